//! A model that its provider does not know or does not allow: until when no call asks for it, and which one asks again.

use super::Timestamp;
use super::doubt::RequestHash;
use super::shut::{Reason, Shut};
use std::time::Duration;

/// While one call asks again, the others look again this soon, or when it has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// After a rest, the request that was refused lets others ask first for this part of the rest, and no longer than
/// [`MOST_COURTESY`]: its refusal may have been its own fault, and then it would shut the model anew for all of them.
const COURTESY: u32 = 20;

/// The longest time in which others ask first.
const MOST_COURTESY: Duration = Duration::from_secs(10);

/// The refusals of a target's model since its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelRefusal {
    /// The last rest; it may be over.
    shut: Option<Shut>,
    /// Whether a call is under way that asks again.
    is_on_trial: bool,
    /// The only request that was refused; `None`: no request was, or several were.
    by: Option<RequestHash>,
    /// For how long others ask first after the rest.
    courtesy: Duration,
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

    /// Why a call for this request does not go now although the model has rested: it is the one that was refused, and
    /// others ask first.
    #[must_use]
    pub fn lets_others_first(&self, request: RequestHash, now: Timestamp) -> Option<Shut> {
        let shut = self.shut.filter(|_| self.by == Some(request))?;
        let until = shut.until + self.courtesy;
        (until > now).then_some(Shut { until, ..shut })
    }

    /// The model was refused to this request: it rests for so long. `is_confirmed`: a different one was refused, too.
    pub fn refused(&mut self, rest: Duration, request: RequestHash, is_confirmed: bool, now: Timestamp) {
        let since = self.shut.map_or(now, |shut| shut.since);
        let until = self.rest(now).map_or(now, |shut| shut.until).max(now + rest);
        let is_alone = !is_confirmed && self.shut.is_none_or(|_| self.by == Some(request));
        *self = Self {
            shut: Some(Shut { reason: Reason::Model, since, until }),
            is_on_trial: false,
            by: is_alone.then_some(request),
            courtesy: (rest / COURTESY).min(MOST_COURTESY),
        };
    }

    /// The model has answered a call that was under way. That disproves the word of a single request.
    pub fn answered(&mut self) {
        if self.by.is_some() {
            *self = Self::default();
        }
    }

    /// The call that asked again has ended and was not refused; without an answer the next call asks.
    pub fn tried(&mut self, is_answered: bool) {
        self.is_on_trial = false;
        if is_answered {
            *self = Self::default();
        }
    }

    /// Another process says how long it rests; returns whether that is longer than was known.
    pub fn hear(&mut self, told: Shut, now: Timestamp) -> bool {
        let is_longer = told.until > now && self.rest(now).is_none_or(|known| known.until < told.until);
        if is_longer {
            (self.shut, self.by) = (Some(told), None);
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
        model.refused(MINUTE, 1, false, NOW);
        // Calls that were under way are refused, too.
        model.refused(MINUTE / 2, 2, false, NOW);
        model.answered();
        assert!(model.admit(NOW + MINUTE / 2).is_err());
        let (mut now, since) = (NOW, NOW);
        for _ in 0..3 {
            now = now + MINUTE;
            assert_eq!((model.shut(now), model.admit(now)), (None, Ok(true)));
            assert_eq!(model.admit(now).map_err(|shut| (shut.reason, shut.since)), Err((Reason::Model, since)));
            assert_eq!(model.rest(now), None, "the call that asks is not held up by itself");
            model.refused(MINUTE, 3, false, now);
            assert!(model.shut(now + MINUTE / 2).is_some());
        }
        now = now + MINUTE;
        assert_eq!(model.admit(now), Ok(true));
        model.tried(false);
        assert_eq!(model.admit(now), Ok(true), "it was not sent, or found out nothing");
        model.tried(true);
        assert_eq!([model.admit(now), model.admit(now)], [Ok(false), Ok(false)]);
    }

    #[test]
    fn the_one_request_that_was_refused_lets_others_ask_first_and_an_answer_to_another_disproves_it() {
        let mut model = ModelRefusal::default();
        model.refused(MINUTE * 10, 7, false, NOW);
        let now = NOW + MINUTE * 10;
        let until = now + MOST_COURTESY;
        assert_eq!(model.lets_others_first(7, now).map(|shut| (shut.reason, shut.until)), Some((Reason::Model, until)));
        assert_eq!([model.lets_others_first(8, now), model.lets_others_first(7, until)], [None, None]);
        // No other request came, and this one is refused again: nothing is new.
        assert_eq!(model.admit(until), Ok(true));
        model.refused(MINUTE * 10, 7, false, until);
        assert!(model.lets_others_first(7, until + MINUTE * 10).is_some());
        model.answered();
        assert_eq!((model.admit(until), model.lets_others_first(7, until)), (Ok(false), None));
        // Of two that were refused, neither is to blame, and no call that was under way disproves both.
        model.refused(MINUTE, 7, false, NOW);
        model.refused(MINUTE, 8, false, NOW);
        model.answered();
        let later = NOW + MINUTE;
        assert!(model.shut(NOW).is_some() && model.lets_others_first(7, later).is_none());
        // A short rest is not made much longer.
        let mut model = ModelRefusal::default();
        model.refused(MINUTE / 60, 7, false, NOW);
        assert_eq!(model.lets_others_first(7, NOW + MINUTE / 60 + Duration::from_millis(50)), None);
    }
}
