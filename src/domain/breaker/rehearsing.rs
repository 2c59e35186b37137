//! The breaker of a target, and beside it the one of a game day.
//!
//! Failures on purpose count in the second one alone, which is gone when its game day is over. So whatever a game day
//! does to a target, its own breaker knows only what the target itself has done.
//!
//! Guarantees:
//! - A call goes only if both let it go.
//! - The own breaker never learns of a failure on purpose, so other processes and later ones do not hear of it.
//! - The second one holds nothing back once its game day is over, no matter which caller looks first.

use super::{Breaker, BreakerSettings, Evidence, JobId, Passage, Sign, State, Timestamp};
use crate::domain::shut::{Reason, Shut};

/// Both breakers of a target. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct RehearsingBreaker {
    own: Breaker,
    rehearsal: Option<Rehearsal>,
    /// How many game days have had a breaker here.
    rehearsals: u64,
}

#[derive(Clone, Debug)]
struct Rehearsal {
    number: u64,
    /// The name of its game day, and when that ends.
    day: String,
    until: Timestamp,
    breaker: Breaker,
}

/// Permission of both breakers to make one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit whose result is never recorded keeps a probe's place"]
pub struct DoublePassage {
    own: Passage,
    /// That of the game day with this number.
    rehearsed: Option<(u64, Passage)>,
}

/// The breaker of a game day, as it is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsed<'a> {
    /// The name of the game day.
    pub day: &'a str,
    /// The state of its breaker.
    pub state: State,
    /// What that opened for.
    pub found: Option<&'a Evidence>,
}

impl RehearsingBreaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { own: Breaker::new(settings), rehearsal: None, rehearsals: 0 }
    }

    /// The target's own breaker.
    #[must_use]
    pub fn own(&self) -> &Breaker {
        &self.own
    }

    /// The same, to change it.
    pub fn own_mut(&mut self) -> &mut Breaker {
        &mut self.own
    }

    /// Uses these settings from now on.
    pub fn retune(&mut self, settings: BreakerSettings) {
        self.own.retune(settings);
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.breaker.retune(settings);
        }
    }

    /// A person says that the target works again.
    pub fn reopen(&mut self, now: Timestamp) {
        self.own.reopen(now);
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.breaker.reopen(now);
        }
    }

    /// Why no call may go now, and when to ask again; the end of the game day at the latest, where only that is why.
    #[must_use]
    pub fn peek(&self, now: Timestamp) -> Option<Shut> {
        let own = self.own.peek(now);
        let rehearsed = self.rehearsal_at(now).and_then(|it| Some((it.breaker.peek(now)?, it.until)));
        let rehearsed = rehearsed.map(|((since, until), ends)| (since, until.min(ends)));
        match (own, rehearsed) {
            (None, None) => None,
            (Some((since, until)), other) => {
                let until = other.map_or(until, |(_, other)| until.max(other));
                Some(Shut { reason: Reason::Breaker, since, until })
            }
            (None, Some((since, until))) => Some(Shut { reason: Reason::GameDay, since, until }),
        }
    }

    /// Lets a call go, or says when to ask again.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub fn admit(&mut self, now: Timestamp) -> Result<DoublePassage, Shut> {
        if self.rehearsal_at(now).is_none() {
            self.rehearsal = None;
        }
        if let Some(shut) = self.peek(now) {
            return Err(shut);
        }
        let own = self.own.admit(now).map_err(|(since, until)| Shut { reason: Reason::Breaker, since, until })?;
        let rehearsed = self.rehearsal.as_mut().and_then(|it| Some((it.number, it.breaker.admit(now).ok()?)));
        Ok(DoublePassage { own, rehearsed })
    }

    /// Records the result of a call of this job that was made.
    pub fn record_of(&mut self, job: JobId, permit: DoublePassage, sign: Sign, now: Timestamp) {
        self.own.record_of(job, permit.own, sign, now);
        if let (Some((number, passage)), Some(rehearsal)) = (permit.rehearsed, &mut self.rehearsal)
            && rehearsal.number == number
        {
            rehearsal.breaker.record_of(job, passage, sign, now);
        }
    }

    /// Records that a call was given up, or not made after all.
    pub fn give_back(&mut self, permit: DoublePassage, now: Timestamp) {
        self.own.record(permit.own, Sign::Neutral, now);
        if let (Some((number, passage)), Some(rehearsal)) = (permit.rehearsed, &mut self.rehearsal)
            && rehearsal.number == number
        {
            rehearsal.breaker.record(passage, Sign::Neutral, now);
        }
    }

    /// Records that a call of this job failed on purpose, on a game day of this name that ends then.
    pub fn rehearse(&mut self, job: JobId, permit: DoublePassage, day: &str, until: Timestamp, now: Timestamp) {
        self.own.record(permit.own, Sign::Neutral, now);
        if until <= now {
            return;
        }
        if self.rehearsal_at(now).is_none() {
            self.rehearsals += 1;
            // Its calls of before count: the share of failures is that of all calls. What it is open for does not: its
            // own breaker sees to that.
            let is_closed = self.own.state() == State::Closed;
            let breaker = if is_closed { self.own.clone() } else { Breaker::new(self.own.settings) };
            self.rehearsal = Some(Rehearsal { number: self.rehearsals, day: day.to_owned(), until, breaker });
        }
        let Some(rehearsal) = &mut self.rehearsal else { return };
        rehearsal.until = rehearsal.until.max(until);
        let passage = match permit.rehearsed {
            Some((number, passage)) => (number == rehearsal.number).then_some(passage),
            // Admitted before there was a breaker of the game day.
            None if rehearsal.breaker.state() == State::Closed => rehearsal.breaker.admit(now).ok(),
            None => None,
        };
        if let Some(passage) = passage {
            rehearsal.breaker.record_of(job, passage, Sign::Bad, now);
        }
    }

    /// Game days that strike the target are on until then; `None`: none is. Returns whether that ends the breaker of
    /// one.
    pub fn keep_rehearsal(&mut self, until: Option<Timestamp>, now: Timestamp) -> bool {
        match (&mut self.rehearsal, until.filter(|until| now < *until)) {
            (Some(rehearsal), Some(until)) => {
                rehearsal.until = until;
                false
            }
            (Some(_), None) => {
                self.rehearsal = None;
                true
            }
            (None, _) => false,
        }
    }

    /// The breaker of the game day that is on.
    #[must_use]
    pub fn rehearsed(&self, now: Timestamp) -> Option<Rehearsed<'_>> {
        let Rehearsal { day, until, breaker, .. } = self.rehearsal_at(now)?;
        let state = match breaker.state() {
            State::Open { since, until: opens, failed_probes } => {
                State::Open { since, until: opens.min(*until), failed_probes }
            }
            state => state,
        };
        Some(Rehearsed { day, state, found: breaker.found() })
    }

    /// The state for which calls are held back: that of its own, unless only a game day holds them back.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match (self.own.state(), self.rehearsed(now)) {
            (State::Closed, Some(rehearsed)) => rehearsed.state,
            (state, _) => state,
        }
    }

    fn rehearsal_at(&self, now: Timestamp) -> Option<&Rehearsal> {
        self.rehearsal.as_ref().filter(|rehearsal| now < rehearsal.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp(1_795_176_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: BreakerSettings = BreakerSettings {
        min_calls: 4,
        failure_rate: 0.5,
        window: Duration::from_mins(1),
        open: Duration::from_secs(5),
    };
    const ENDS: Timestamp = Timestamp(NOW.0 + 60_000);

    /// A breaker that four calls on purpose have opened.
    fn opened() -> RehearsingBreaker {
        let mut breaker = RehearsingBreaker::new(SETTINGS);
        for job in 0..4 {
            let permit = breaker.admit(NOW).expect("it is closed");
            breaker.rehearse(JobId(job), permit, "friday", ENDS, NOW);
        }
        breaker
    }

    fn shut(breaker: &RehearsingBreaker, now: Timestamp) -> Option<Reason> {
        breaker.peek(now).map(|shut| shut.reason)
    }

    #[test]
    fn failures_on_purpose_open_the_breaker_of_the_game_day_alone() {
        let breaker = opened();
        assert_eq!(shut(&breaker, NOW), Some(Reason::GameDay));
        assert_eq!(breaker.own().state(), State::Closed);
        assert_eq!(breaker.own().news(), Some(crate::domain::news::BreakerNews::Closed));
        assert_eq!(breaker.state(NOW).name(), "open");
        let rehearsed = breaker.rehearsed(NOW).unwrap();
        assert_eq!((rehearsed.day, rehearsed.found.map(|found| found.bad)), ("friday", Some(4)));
    }

    #[test]
    fn however_many_probes_failed_it_is_closed_when_the_game_day_is_over() {
        let mut breaker = opened();
        let mut now = NOW;
        for job in 10..13 {
            while breaker.peek(now).is_some() {
                now = now + SECOND;
            }
            let permit = breaker.admit(now).unwrap();
            breaker.rehearse(JobId(job), permit, "friday", ENDS, now);
        }
        let last = Timestamp(ENDS.0 - 1);
        assert_eq!(
            breaker.peek(last),
            breaker.peek(last).map(|it| Shut { reason: Reason::GameDay, until: ENDS, ..it })
        );
        assert!(breaker.peek(last).is_some(), "the next probe would be after the end");
        assert_eq!((shut(&breaker, ENDS), breaker.state(ENDS)), (None, State::Closed));
        for _ in 0..3 {
            assert!(breaker.admit(ENDS).is_ok(), "all calls go at once");
        }
    }

    #[test]
    fn one_that_is_taken_out_ends_at_once_and_one_that_is_prolonged_goes_on() {
        let mut breaker = opened();
        assert!(!breaker.keep_rehearsal(Some(ENDS + SECOND), NOW));
        assert_eq!(breaker.state(ENDS).name(), "open");
        assert!(breaker.keep_rehearsal(None, NOW));
        assert!(!breaker.keep_rehearsal(None, NOW));
        assert_eq!(shut(&breaker, NOW), None);
    }

    #[test]
    fn what_real_failures_opened_stays_and_says_so() {
        let mut breaker = RehearsingBreaker::new(SETTINGS);
        let permit = breaker.admit(NOW).unwrap();
        breaker.rehearse(JobId(0), permit, "friday", ENDS, NOW);
        let permits: Vec<_> = (1..=4).map(|job| (JobId(job), breaker.admit(NOW).unwrap())).collect();
        for (job, permit) in permits {
            breaker.record_of(job, permit, Sign::Bad, NOW);
        }
        assert_eq!(shut(&breaker, NOW), Some(Reason::Breaker));
        assert!(breaker.keep_rehearsal(None, NOW));
        assert_eq!((shut(&breaker, NOW), breaker.state(NOW).name()), (Some(Reason::Breaker), "open"));
        // A probe that fails on purpose neither closes it nor lengthens its rest.
        let later = NOW + SECOND * 6;
        let permit = breaker.admit(later).unwrap();
        assert_eq!(shut(&breaker, later), Some(Reason::Breaker), "one probe at a time");
        breaker.rehearse(JobId(9), permit, "monday", ENDS, later);
        assert!(breaker.admit(later).is_ok(), "the probe's place is free again");
    }

    #[test]
    fn real_calls_of_before_count_and_a_permit_of_an_earlier_game_day_does_not() {
        let mut breaker = RehearsingBreaker::new(SETTINGS);
        for job in 0..4 {
            let permit = breaker.admit(NOW).unwrap();
            breaker.record_of(JobId(job), permit, Sign::Good, NOW);
        }
        for job in 4..7 {
            let permit = breaker.admit(NOW).unwrap();
            breaker.rehearse(JobId(job), permit, "friday", ENDS, NOW);
        }
        assert_eq!(shut(&breaker, NOW), None, "three of seven are less than half");
        let late = breaker.admit(NOW).unwrap();
        breaker.keep_rehearsal(None, NOW);
        let permit = breaker.admit(NOW).unwrap();
        breaker.rehearse(JobId(7), permit, "monday", ENDS, NOW);
        breaker.rehearse(JobId(8), late, "monday", ENDS, NOW);
        assert_eq!(breaker.rehearsed(NOW).unwrap().state, State::Closed);
    }
}
