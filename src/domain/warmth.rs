//! Which beginnings of prompts a provider has in its cache, as far as calls have shown it, and who of several calls
//! with the same beginning asks first.
//!
//! The first call writes the beginning into the cache, and the others wait for it, so that they read it there. No job
//! waits for longer than was said, whatever became of the first call.

use super::Timestamp;
use super::prefix::PrefixKey;
use std::collections::HashMap;
use std::time::Duration;

/// The most beginnings that are remembered. What does not fit is asked as if nothing were known of it: at once.
const MOST: usize = 20_000;

/// What is known of the beginnings at all targets.
#[derive(Debug, Default)]
pub struct Warmth {
    prefixes: HashMap<PrefixKey, Warm>,
    firsts: u64,
}

/// What is known of one beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Warm {
    /// Until when it is in the cache; `None`: it is not known to be.
    until: Option<Timestamp>,
    first: Option<FirstCall>,
}

/// The call that writes a beginning into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstCall {
    /// Tells it from earlier ones.
    pub number: u64,
    /// Until when others wait for it.
    pub until: Timestamp,
}

/// Whether a call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admittance {
    /// It may. With a number it is the first one, for which others wait until it has [ended](Warmth::ended).
    Goes(Option<u64>),
    /// It waits for this one.
    Waits(FirstCall),
}

impl Warmth {
    /// Whether a call with this beginning may be made now. If it is the first, others wait for it for so long at most.
    pub fn admit(&mut self, key: PrefixKey, wait: Duration, now: Timestamp) -> Admittance {
        if self.prefixes.len() >= MOST && !self.prefixes.contains_key(&key) {
            self.prefixes.retain(|_, warm| warm.first.is_some() || warm.is_warm(now));
            if self.prefixes.len() >= MOST {
                return Admittance::Goes(None);
            }
        }
        let warm = self.prefixes.entry(key).or_default();
        if warm.is_warm(now) {
            return Admittance::Goes(None);
        }
        match warm.first {
            Some(first) if first.until > now => Admittance::Waits(first),
            // It has been waited for long enough.
            Some(_) => Admittance::Goes(None),
            None => {
                self.firsts += 1;
                warm.first = Some(FirstCall { number: self.firsts, until: now + wait });
                Admittance::Goes(Some(self.firsts))
            }
        }
    }

    /// A call that began at this instant has brought an answer: the beginning is in the cache for so long from then on.
    pub fn answered(&mut self, key: PrefixKey, began_at: Timestamp, life: Duration) {
        if let Some(warm) = self.prefixes.get_mut(&key) {
            warm.until = warm.until.max(Some(began_at + life));
        }
    }

    /// The first call of this number has ended, however it did.
    pub fn ended(&mut self, key: PrefixKey, number: u64) {
        if let Some(warm) = self.prefixes.get_mut(&key)
            && warm.first.is_some_and(|first| first.number == number)
        {
            warm.first = None;
        }
    }
}

impl Warm {
    fn is_warm(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefix::Prefix;
    use super::super::request::ChatRequest;
    use super::*;
    use proptest::prelude::*;

    const WAIT: Duration = Duration::from_mins(1);
    const LIFE: Duration = Duration::from_mins(5);

    fn key(name: usize) -> PrefixKey {
        let text =
            format!(r#"{{"messages":[{{"role":"system","content":"{name}"}},{{"role":"user","content":"Hi"}}]}}"#);
        Prefix::of(&ChatRequest::read_text(&text).unwrap()).unwrap().key
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[test]
    fn the_others_wait_for_the_first_and_then_go_while_the_beginning_is_warm() {
        let mut warmth = Warmth::default();
        let Admittance::Goes(Some(first)) = warmth.admit(key(1), WAIT, at(0)) else { panic!("it is the first") };
        let waits = Admittance::Waits(FirstCall { number: first, until: at(60) });
        assert_eq!(warmth.admit(key(1), WAIT, at(5)), waits);
        // Another beginning is not held up.
        assert!(matches!(warmth.admit(key(2), WAIT, at(5)), Admittance::Goes(Some(_))));
        warmth.answered(key(1), at(0), LIFE);
        warmth.ended(key(1), first);
        assert_eq!(warmth.admit(key(1), WAIT, at(9)), Admittance::Goes(None));
        // Each use keeps it for longer.
        warmth.answered(key(1), at(200), LIFE);
        assert_eq!(warmth.admit(key(1), WAIT, at(499)), Admittance::Goes(None));
        assert!(matches!(warmth.admit(key(1), WAIT, at(500)), Admittance::Goes(Some(_))));
    }

    #[test]
    fn after_a_first_call_that_failed_the_next_one_is_first() {
        let mut warmth = Warmth::default();
        let Admittance::Goes(Some(first)) = warmth.admit(key(1), WAIT, at(0)) else { panic!("it is the first") };
        warmth.ended(key(1), first);
        let Admittance::Goes(Some(second)) = warmth.admit(key(1), WAIT, at(1)) else { panic!("it is the next") };
        // A late word of the first one changes nothing.
        warmth.ended(key(1), first);
        assert!(matches!(warmth.admit(key(1), WAIT, at(2)), Admittance::Waits(it) if it.number == second));
    }

    #[test]
    fn no_job_waits_for_longer_than_was_said() {
        let mut warmth = Warmth::default();
        assert!(matches!(warmth.admit(key(1), WAIT, at(0)), Admittance::Goes(Some(_))));
        assert!(matches!(warmth.admit(key(1), WAIT, at(59)), Admittance::Waits(_)));
        assert_eq!(warmth.admit(key(1), WAIT, at(60)), Admittance::Goes(None));
        assert!(matches!(warmth.admit(key(2), Duration::ZERO, at(0)), Admittance::Goes(Some(_))));
        assert_eq!(warmth.admit(key(2), Duration::ZERO, at(0)), Admittance::Goes(None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut warmth = Warmth::default();
        for name in 0..MOST {
            warmth.admit(key(name), WAIT, at(0));
        }
        assert_eq!(warmth.admit(key(MOST), WAIT, at(0)), Admittance::Goes(None));
        assert_eq!(warmth.admit(key(MOST), WAIT, at(0)), Admittance::Goes(None));
        warmth.ended(key(7), 8);
        assert!(matches!(warmth.admit(key(MOST), WAIT, at(0)), Admittance::Goes(Some(_))));
    }

    /// What happens to one beginning.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Asks,
        Ends { answered: bool },
        Later(i64),
    }

    proptest! {
        #[test]
        fn whatever_happens_somebody_may_go_within_the_wait(
            events in proptest::collection::vec(
                prop_oneof![
                    Just(Event::Asks),
                    any::<bool>().prop_map(|answered| Event::Ends { answered }),
                    (0_i64..100).prop_map(Event::Later),
                ],
                0..60,
            )
        ) {
            let (mut warmth, mut now, mut first) = (Warmth::default(), at(0), None);
            for event in events {
                match event {
                    Event::Asks => match warmth.admit(key(1), WAIT, now) {
                        Admittance::Goes(Some(number)) => {
                            prop_assert_eq!(first, None, "there is one first call at a time");
                            first = Some(number);
                        }
                        Admittance::Goes(None) => {}
                        Admittance::Waits(it) => {
                            prop_assert_eq!(first, Some(it.number), "no job waits for a call that has ended");
                            prop_assert!(it.until > now && it.until <= now + WAIT);
                        }
                    },
                    Event::Ends { answered } => {
                        if let Some(number) = first.take() {
                            if answered {
                                warmth.answered(key(1), now, LIFE);
                            }
                            warmth.ended(key(1), number);
                        }
                    }
                    Event::Later(seconds) => now = now + Duration::from_secs(seconds.unsigned_abs()),
                }
            }
            let may_go = matches!(warmth.admit(key(1), WAIT, now + WAIT), Admittance::Goes(_));
            prop_assert!(may_go);
        }
    }
}
