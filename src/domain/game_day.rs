//! A game day: for a bounded time a share of the calls to chosen targets fails on purpose, so that the fallback is seen
//! to work while nothing is broken.
//!
//! Guarantees:
//! - A call that fails on purpose is never sent, so it costs nothing.
//! - Whether a call fails is drawn from the game day's name, the job and the number of the call. So every process draws
//!   the same, and the share holds over many calls.
//! - A game day ends by itself, after a day at the latest.
//! - What fails on purpose teaches workers nothing that outlasts the game day: only a breaker of its own counts it
//!   ([`RehearsingBreaker`](super::breaker::RehearsingBreaker)).

use super::failure::{Failure, Scope};
use super::job::spread;
use super::strategy::hash_of;
use super::{ErrorClass, JobId, Target, Timestamp};
use std::time::Duration;

/// The code of failures that were injected, where a provider's own code stands in others.
pub const CODE: &str = "game_day";

/// The longest game day.
pub const LONGEST: Duration = Duration::from_hours(24);

/// A kind of failure that is injected.
///
/// A refusal because of a limit is none: which limit it would be about is not known, and limits are kept by all workers
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GameFault {
    /// HTTP 503: the provider has no room at the moment.
    Overloaded,
    /// HTTP 500: a fault of the provider.
    ServerError,
}

impl GameFault {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.class().as_str()
    }

    const fn class(self) -> ErrorClass {
        match self {
            Self::Overloaded => ErrorClass::Overloaded,
            Self::ServerError => ErrorClass::ServerError,
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Overloaded => 503,
            Self::ServerError => 500,
        }
    }
}

/// A game day, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GameDay {
    pub name: String,
    /// Providers, or targets as `provider/model`.
    pub targets: Vec<String>,
    /// The kinds of failures; not empty.
    pub faults: Vec<GameFault>,
    /// The share of the calls that fail, in millionths.
    pub share: u32,
    pub from: Timestamp,
    pub until: Timestamp,
}

impl GameDay {
    /// Whether calls fail at this instant.
    #[must_use]
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// Whether calls to this target may fail.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        let is_it = |name: &String| *name == target.provider || *name == target.to_string();
        self.targets.iter().any(is_it)
    }

    /// The failure that this call is given in place of being made, if it is one of those that fail. `number`: its
    /// ordinal within the job.
    #[must_use]
    pub fn fault(&self, target: &Target, job: JobId, number: i16, now: Timestamp) -> Option<Failure> {
        if !self.is_on(now) || !self.covers(target) {
            return None;
        }
        let draw = spread(job.hash() ^ hash_of(&self.name) ^ u64::from(number.cast_unsigned()).rotate_left(32));
        if draw % 1_000_000 >= u64::from(self.share) {
            return None;
        }
        let which = usize::try_from(draw / 1_000_000).unwrap_or(usize::MAX) % self.faults.len().max(1);
        let fault = *self.faults.get(which)?;
        let mut failure = Failure::new(fault.class(), Scope::Model, self.mark());
        failure.status = Some(fault.status());
        failure.code = Some(CODE.to_owned());
        Some(failure)
    }

    /// The message of its failures, by which their rows are found.
    #[must_use]
    pub fn mark(&self) -> String {
        mark(&self.name)
    }
}

/// The message of the failures of the game day of this name.
#[must_use]
pub fn mark(name: &str) -> String {
    format!("game day {name}: this call was not made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: Timestamp = Timestamp(1_000_000);

    fn day(share: u32) -> GameDay {
        GameDay {
            name: "friday".to_owned(),
            targets: vec!["openai".to_owned(), "local/small".to_owned()],
            faults: vec![GameFault::Overloaded, GameFault::ServerError],
            share,
            from: FROM,
            until: FROM + Duration::from_mins(10),
        }
    }

    #[test]
    fn it_begins_and_ends_and_concerns_its_targets_only() {
        let day = day(1_000_000);
        let fault = |target: &Target, now| day.fault(target, JobId(7), 1, now).map(|failure| failure.class);
        let (openai, small) = (Target::new("openai", "m"), Target::new("local", "small"));
        for (target, now, fails) in [
            (&openai, FROM, true),
            (&small, FROM + Duration::from_secs(599), true),
            (&openai, Timestamp(FROM.0 - 1), false),
            (&openai, day.until, false),
            (&Target::new("local", "large"), FROM, false),
            (&Target::new("openai2", "m"), FROM, false),
        ] {
            assert_eq!(fault(target, now).is_some(), fails, "{target} {now:?}");
        }
        let failure = day.fault(&openai, JobId(7), 1, FROM).unwrap();
        assert_eq!(failure.code.as_deref(), Some(CODE));
        assert_eq!(failure.message, "game day friday: this call was not made");
    }

    #[test]
    fn the_share_holds_over_many_calls_and_each_kind_comes() {
        let target = Target::new("openai", "m");
        for share in [0_u32, 10_000, 250_000, 1_000_000] {
            let day = day(share);
            let drawn: Vec<Failure> = (0..40_000).filter_map(|job| day.fault(&target, JobId(job), 1, FROM)).collect();
            let expected = 40_000 * i64::from(share) / 1_000_000;
            let found = i64::try_from(drawn.len()).unwrap();
            assert!((found - expected).abs() <= expected / 10 + 1, "{share}: {found}, not {expected}");
            let overloaded = drawn.iter().filter(|failure| failure.class == ErrorClass::Overloaded).count();
            assert!(share == 0 || (overloaded * 10 > drawn.len() * 4 && overloaded * 10 < drawn.len() * 6));
        }
    }

    proptest! {
        #[test]
        fn every_process_draws_the_same(job in any::<i64>(), number in 1_i16.., share in 0_u32..=1_000_000) {
            let target = Target::new("openai", "m");
            let (one, other) = (day(share), day(share));
            let fault = |day: &GameDay, now| day.fault(&target, JobId(job), number, now);
            prop_assert_eq!(fault(&one, FROM), fault(&other, FROM + Duration::from_secs(30)));
            // A larger share only adds failures.
            prop_assert!(fault(&one, FROM).is_none() || fault(&day(1_000_000), FROM).is_some());
        }
    }
}
