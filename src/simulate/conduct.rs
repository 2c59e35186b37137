//! How well a client waits: the waits it was told, calls before they are over, and stampedes when they are.
//!
//! Pure: time comes in as an argument.

use std::time::Duration;

/// How long after the end of a wait the calls are counted for a stampede.
pub const STORM_WINDOW: Duration = Duration::from_millis(100);

/// The thresholds of early calls and of storms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A call this little before the wait is over is in time.
    pub tolerance: Duration,
    /// A call this soon after the wait was told was on its way already.
    pub in_flight_grace: Duration,
    /// How many calls more than the quota admits may follow an opening.
    pub storm_calls: u32,
}

/// The findings on an arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The call came before the wait that was told is over.
    pub early: bool,
    /// This call turns those before it into a stampede.
    pub storm: bool,
}

/// The calls after an opening.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Opening {
    at: Duration,
    calls: u32,
    allowed: f64,
    counted: bool,
}

/// The wait that a provider told for a bucket.
#[derive(Clone, Debug, Default)]
pub struct ToldWait {
    told_at: Duration,
    not_before: Duration,
    opening: Option<Opening>,
}

impl ToldWait {
    /// Notes that a wait was told at `now`. The latest end counts; the grace runs from the first telling.
    pub fn tell(&mut self, now: Duration, wait: Duration) {
        if now >= self.not_before {
            self.told_at = now;
        }
        self.not_before = self.not_before.max(now + wait);
    }

    /// Notes that a call arrives. `admitted` gives the number of calls that the quota admits between two instants;
    /// `None`: any number, so that there is nothing to stampede.
    pub fn arrive(
        &mut self,
        now: Duration,
        rules: &Rules,
        admitted: impl FnOnce(Duration, Duration) -> Option<f64>,
    ) -> Arrival {
        if self.not_before.is_zero() {
            return Arrival::default();
        }
        let closed = now + rules.tolerance < self.not_before;
        let early = closed && now > self.told_at + rules.in_flight_grace;
        if !closed && now < self.not_before + STORM_WINDOW && self.opening.is_none_or(|o| o.at != self.not_before) {
            let until = self.not_before + STORM_WINDOW;
            self.opening = admitted(self.not_before, until).map(|admitted| Opening {
                at: self.not_before,
                calls: 0,
                allowed: admitted + f64::from(rules.storm_calls),
                counted: false,
            });
        }
        let mut storm = false;
        if let Some(opening) = &mut self.opening
            && now < opening.at + STORM_WINDOW
        {
            opening.calls += 1;
            storm = !opening.counted && f64::from(opening.calls) > opening.allowed;
            opening.counted |= storm;
        }
        Arrival { early, storm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { tolerance: Duration::from_millis(5), in_flight_grace: Duration::from_millis(50), storm_calls: 3 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn arrive(told: &mut ToldWait, now: u64) -> Arrival {
        told.arrive(ms(now), &RULES, |_, _| Some(2.0))
    }

    #[test]
    fn a_call_is_early_from_the_grace_until_the_tolerance() {
        for (now, early) in [
            (1_000, false),
            (1_050, false),
            (1_051, true),
            (2_994, true),
            (2_995, false),
            (3_000, false),
            (9_000, false),
        ] {
            let mut told = ToldWait::default();
            told.tell(ms(1_000), ms(2_000));
            assert_eq!(arrive(&mut told, now).early, early, "at {now}");
        }
    }

    #[test]
    fn the_latest_end_counts_and_the_first_telling_begins_the_grace() {
        let mut told = ToldWait::default();
        told.tell(ms(0), ms(1_000));
        told.tell(ms(100), ms(2_000));
        assert!(arrive(&mut told, 120).early, "told for 120 ms");
        assert!(arrive(&mut told, 1_500).early);
        told.tell(ms(1_500), ms(100));
        assert!(arrive(&mut told, 1_800).early, "a shorter wait does not end a longer one");
        assert!(!arrive(&mut told, 2_100).early);
    }

    #[test]
    fn without_a_wait_nothing_is_early_and_nothing_a_storm() {
        let mut told = ToldWait::default();
        for now in 0..100 {
            assert_eq!(arrive(&mut told, now), Arrival::default());
        }
    }

    #[test]
    fn a_stampede_is_more_calls_than_the_quota_admits_and_counts_once_per_opening() {
        let mut told = ToldWait::default();
        told.tell(ms(1_000), ms(1_000));
        let storms: Vec<bool> = (0..10).map(|i| arrive(&mut told, 2_000 + i).storm).collect();
        assert_eq!(storms.iter().position(|storm| *storm), Some(5), "2 admitted and 3 more are in order");
        assert_eq!(storms.iter().filter(|storm| **storm).count(), 1);
        told.tell(ms(2_050), ms(1_000));
        let again = (0..10).filter(|i| arrive(&mut told, 3_050 + i).storm).count();
        assert_eq!(again, 1);
    }

    #[test]
    fn calls_that_come_one_by_one_are_no_stampede() {
        let mut told = ToldWait::default();
        told.tell(ms(1_000), ms(1_000));
        assert!((0..100).all(|i| !arrive(&mut told, 2_000 + i * 25).storm));
        let mut unlimited = ToldWait::default();
        unlimited.tell(ms(1_000), ms(1_000));
        assert!((0..100).all(|_| !unlimited.arrive(ms(2_001), &RULES, |_, _| None).storm));
    }
}
