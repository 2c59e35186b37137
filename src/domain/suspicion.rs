//! Which jobs may be in hand together after workers have died.
//!
//! One of the jobs that a worker held when it died may have killed it, and it is not known which. So all of them are
//! under suspicion. The more often that happened to a job, the fewer others are held together with it: first a part of
//! all places, then a part of that, and in the end none. Only a worker that dies with a single job accuses that job.

/// How many jobs one worker may hold together when one of them was in the hands of `crashes` workers that died.
///
/// The steps from all places down to one are as many as `max_crashes`, each by the same factor.
#[must_use]
pub fn most_together(crashes: u16, max_crashes: u16, places: usize) -> usize {
    if crashes == 0 {
        return places;
    }
    if crashes >= max_crashes {
        return 1;
    }
    let left = f64::from(max_crashes - crashes) / f64::from(max_crashes);
    let places = u32::try_from(places).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and the number of places")]
    let most = f64::from(places).powf(left).round() as u32;
    usize::try_from(most.clamp(1, places.max(1))).unwrap_or(1)
}

/// Whether a job is held only with jobs of its kind. One death may have any cause, such as a machine that was switched
/// off; so after the first the job still goes along with others.
#[must_use]
pub fn is_apart(crashes: u16, max_crashes: u16) -> bool {
    crashes >= 2 || (crashes > 0 && crashes >= max_crashes)
}

/// What a worker takes from the queue next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Jobs that are under no suspicion.
    Others,
    /// Jobs with which exactly this many workers died, and a bound on how many to take.
    Suspects {
        /// How many workers died with each job.
        crashes: u16,
        /// The most jobs to take.
        most: usize,
    },
    /// Nothing, until a job has left its hands.
    Nothing,
}

/// What a worker takes next if it holds jobs with these numbers of crashes, and jobs with those numbers wait.
#[must_use]
pub fn next(held: &[u16], waiting: &[u16], max_crashes: u16, places: usize) -> Next {
    let apart = |crashes: &&u16| is_apart(**crashes, max_crashes);
    if let Some(crashes) = held.iter().filter(apart).max().copied() {
        let most = most_together(crashes, max_crashes, places).saturating_sub(held.len());
        let is_there = most > 0 && waiting.contains(&crashes);
        return if is_there { Next::Suspects { crashes, most } } else { Next::Nothing };
    }
    // The most suspicious first: the sooner the killer is known, the fewer others are held with it.
    let Some(crashes) = waiting.iter().max().copied().filter(|crashes| *crashes > 0) else { return Next::Others };
    let most = most_together(crashes, max_crashes, places);
    if is_apart(crashes, max_crashes) {
        return if held.is_empty() { Next::Suspects { crashes, most } } else { Next::Nothing };
    }
    let most = most.saturating_sub(held.iter().filter(|crashes| **crashes > 0).count());
    if most > 0 { Next::Suspects { crashes, most } } else { Next::Others }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn fewer_are_held_together_with_every_crash() {
        for (max_crashes, places, expected) in [
            (3, 500, vec![500, 63, 8, 1, 1]),
            (3, 60, vec![60, 15, 4, 1]),
            (1, 500, vec![500, 1, 1]),
            (2, 500, vec![500, 22, 1]),
            (5, 1, vec![1; 7]),
            (1000, 500, vec![500, 497]),
        ] {
            for (crashes, most) in (0..).zip(expected) {
                assert_eq!(most_together(crashes, max_crashes, places), most, "{crashes} of {max_crashes}, {places}");
            }
        }
    }

    #[test]
    fn the_suspicious_are_held_by_themselves() {
        let suspects = |crashes, most| Next::Suspects { crashes, most };
        for (held, waiting, expected) in [
            (&[0, 0][..], &[0][..], Next::Others),
            (&[0, 0], &[], Next::Others),
            // One crash: along with others, a few at a time.
            (&[0, 0], &[0, 1], suspects(1, 63)),
            (&[0, 1, 1], &[1], suspects(1, 61)),
            (&[1; 63], &[0, 1], Next::Others),
            // Two: not before all others have left, and nothing else meanwhile.
            (&[0, 1], &[0, 1, 2], Next::Nothing),
            (&[], &[0, 1, 2], suspects(2, 8)),
            (&[2, 2], &[0, 1, 2], suspects(2, 6)),
            (&[2, 2], &[0, 1, 3], Next::Nothing),
            // Three: alone.
            (&[], &[2, 3], suspects(3, 1)),
            (&[3], &[0, 2, 3], Next::Nothing),
        ] {
            assert_eq!(next(held, waiting, 3, 500), expected, "{held:?} {waiting:?}");
        }
    }

    proptest! {
        /// A worker that takes every job it may and dies whenever it holds poison: every poison is found, no other job
        /// is accused, and it does not take many deaths.
        #[test]
        fn poison_is_found_and_nothing_else_is_accused(
            jobs in 1_usize..300, poisons in prop::collection::btree_set(0_usize..300, 0..6),
            places in 1_usize..200, max_crashes in 1_u16..6,
        ) {
            let mut waiting: BTreeMap<usize, u16> = (0..jobs).map(|job| (job, 0)).collect();
            let poisons: Vec<usize> = poisons.into_iter().filter(|poison| *poison < jobs).collect();
            let (mut accused, mut deaths) = (Vec::new(), 0_usize);
            while !waiting.is_empty() {
                // It takes until it may take no more.
                let mut held: Vec<(usize, u16)> = Vec::new();
                while held.len() < places {
                    let crashes: Vec<_> = held.iter().map(|(_, c)| *c).collect();
                    let numbers = waiting.values().copied();
                    let (wanted, most) = match next(&crashes, &numbers.collect::<Vec<_>>(), max_crashes, places) {
                        Next::Others => (0, places - held.len()),
                        Next::Suspects { crashes, most } => (crashes, most.min(places - held.len())),
                        Next::Nothing => break,
                    };
                    let taken: Vec<usize> =
                        waiting.iter().filter(|(_, c)| **c == wanted).map(|(job, _)| *job).take(most).collect();
                    if taken.is_empty() {
                        break;
                    }
                    held.extend(taken.iter().map(|job| (*job, waiting.remove(job).unwrap())));
                }
                prop_assert!(!held.is_empty(), "nothing is taken of {waiting:?}");
                if held.iter().any(|(job, _)| poisons.contains(job)) {
                    deaths += 1;
                    for (job, crashes) in &held {
                        if held.len() == 1 && crashes + 1 >= max_crashes {
                            accused.push(*job);
                        } else {
                            waiting.insert(*job, crashes + 1);
                        }
                    }
                }
            }
            accused.sort_unstable();
            prop_assert_eq!(&accused, &poisons);
            let bound = poisons.len() * (usize::from(max_crashes) + 1) + usize::from(max_crashes);
            prop_assert!(deaths <= bound, "{deaths} deaths for {} poisons", poisons.len());
        }
    }
}
