//! A model that its provider does not know or does not allow: until when no call asks for it, and which one asks again.

use super::Timestamp;
use super::shut::{Reason, Shut};
use std::time::Duration;

/// While one call asks again, the others look again this soon, or when it has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The refusals of a target's model since its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelRefusal {
    /// The last rest; it may be over.
    shut: Option<Shut>,
    /// Whether a call is under way that asks again.
    is_on_trial: bool,
}

impl ModelRefusal {
    /// The rest, while it lasts.
    #[must_use]
    pub fn rest(&self, now: Timestamp) -> Option<Shut> {
        self.shut.filter(|shut| shut.until > now)
    }

    /// Why no other call may go now: it rests, or one call is asking again.
    #[must_use]
    pub fn shut(&self, now: Timestamp) -> Option<Shut> {
        let asked = || self.shut.filter(|_| self.is_on_trial).map(|shut| Shut { until: now + LOOK_AGAIN, ..shut });
        self.rest(now).or_else(asked)
    }

    /// Lets a call go; returns whether it is the one that asks again.
    ///
    /// # Errors
    /// Why none may go now.
    pub fn admit(&mut self, now: Timestamp) -> Result<bool, Shut> {
        self.shut(now).map_or(Ok(()), Err)?;
        self.is_on_trial = self.shut.is_some();
        Ok(self.is_on_trial)
    }

    /// The model was refused: it rests for so long.
    pub fn refused(&mut self, rest: Duration, now: Timestamp) {
        let since = self.shut.map_or(now, |shut| shut.since);
        let until = self.rest(now).map_or(now, |shut| shut.until).max(now + rest);
        *self = Self { shut: Some(Shut { reason: Reason::Model, since, until }), is_on_trial: false };
    }

    /// The call that asked again has ended and was not refused; without an answer the next call asks.
    pub fn tried(&mut self, is_answered: bool) {
        self.is_on_trial = false;
        if is_answered {
            self.shut = None;
        }
    }

    /// Another process says how long it rests; returns whether that is longer than was known.
    pub fn hear(&mut self, told: Shut, now: Timestamp) -> bool {
        let is_longer = told.until > now && self.rest(now).is_none_or(|known| known.until < told.until);
        if is_longer {
            self.shut = Some(told);
        }
        is_longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_176_000_000);
    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn one_call_asks_again_after_each_rest() {
        let mut model = ModelRefusal::default();
        assert_eq!([model.admit(NOW), model.admit(NOW)], [Ok(false), Ok(false)], "nothing is known of it");
        model.refused(MINUTE, NOW);
        // Calls that were under way are refused, too.
        model.refused(MINUTE / 2, NOW);
        assert!(model.admit(NOW + MINUTE / 2).is_err());
        let (mut now, since) = (NOW, NOW);
        for _ in 0..3 {
            now = now + MINUTE;
            assert_eq!((model.shut(now), model.admit(now)), (None, Ok(true)));
            assert_eq!(model.admit(now).map_err(|shut| (shut.reason, shut.since)), Err((Reason::Model, since)));
            assert_eq!(model.rest(now), None, "the call that asks is not held up by itself");
            model.refused(MINUTE, now);
            assert!(model.shut(now + MINUTE / 2).is_some());
        }
        now = now + MINUTE;
        assert_eq!(model.admit(now), Ok(true));
        model.tried(false);
        assert_eq!(model.admit(now), Ok(true), "it was not sent, or found out nothing");
        model.tried(true);
        assert_eq!([model.admit(now), model.admit(now)], [Ok(false), Ok(false)]);
    }
}
