//! The caches in which providers keep the beginnings of prompts: what a call reads there, and what it writes.
//!
//! A beginning that a call asks to be kept is there as soon as that call has been answered, and for five minutes or an
//! hour after its last use. A call that comes before then writes it once more.

use super::chance::mix;
use super::prompt::PromptHash;
use super::prompt::count_tokens;
use std::collections::HashMap;
use std::time::Duration;

/// Shorter beginnings are not kept.
pub const LEAST_TOKENS: u64 = 1_024;

/// The most beginnings per provider, so that memory is bounded.
const MOST: usize = 10_000;

/// The beginning that a call asks to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheAsk {
    /// Its hash.
    pub prefix: u64,
    pub tokens: u64,
    pub life: Life,
}

/// How long a beginning is kept, and whether writing it costs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Five minutes; writing it is free, and no answer mentions it.
    Free,
    FiveMinutes,
    Hour,
}

/// Input tokens that were read from the cache and written into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cached {
    pub read: u64,
    pub written: u64,
    /// The part of those written that is kept for an hour.
    pub for_an_hour: u64,
}

/// The beginnings that one provider keeps.
#[derive(Debug, Default)]
pub(super) struct PromptCaches {
    /// Until when each is kept.
    kept: HashMap<u64, Duration>,
}

impl CacheAsk {
    /// The beginning that these texts make, if it is long enough to be kept. No more of it counts than the call has in
    /// tokens of input.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>, life: Life, input_tokens: u64) -> Option<Self> {
        let (mut hash, mut tokens) = (PromptHash::default(), 0);
        for text in texts {
            hash.text(text);
            tokens += count_tokens(text);
        }
        let tokens = tokens.min(input_tokens);
        (tokens >= LEAST_TOKENS).then(|| Self { prefix: hash.finish(), tokens, life })
    }

    /// The same beginning among those of calls that name this key.
    pub fn under(self, key: &str) -> Self {
        let mut hash = PromptHash::default();
        hash.text(key);
        Self { prefix: mix(self.prefix, hash.finish()), ..self }
    }
}

impl Life {
    const fn duration(self) -> Duration {
        match self {
            Self::Free | Self::FiveMinutes => Duration::from_mins(5),
            Self::Hour => Duration::from_hours(1),
        }
    }
}

impl PromptCaches {
    /// What a call to this model reads and writes. What it reads is kept for longer.
    pub fn look(&mut self, model: u64, ask: &CacheAsk, now: Duration) -> Cached {
        match self.kept.get_mut(&mix(model, ask.prefix)) {
            Some(until) if *until > now => {
                *until = now + ask.life.duration();
                Cached { read: ask.tokens, ..Cached::default() }
            }
            _ => match ask.life {
                Life::Free => Cached::default(),
                Life::FiveMinutes => Cached { written: ask.tokens, ..Cached::default() },
                Life::Hour => Cached { written: ask.tokens, for_an_hour: ask.tokens, ..Cached::default() },
            },
        }
    }

    /// Keeps the beginning of a call to this model that has been answered.
    pub fn keep(&mut self, model: u64, ask: &CacheAsk, now: Duration) {
        if self.kept.len() >= MOST {
            self.kept.retain(|_, until| *until > now);
        }
        if self.kept.len() < MOST {
            self.kept.insert(mix(model, ask.prefix), now + ask.life.duration());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_read_once_a_call_with_it_was_answered_and_as_long_as_it_is_used() {
        let minutes = |minutes: u64| Duration::from_mins(minutes);
        let long = "word ".repeat(1_000);
        let ask = CacheAsk::of([long.as_str()], Life::FiveMinutes, 2_000).unwrap();
        assert_eq!(ask.tokens, 1_250);
        assert_eq!(CacheAsk::of(["short"], Life::FiveMinutes, 2_000), None);
        assert_eq!(CacheAsk::of([long.as_str()], Life::FiveMinutes, 1_000), None);
        let (written, read) =
            (Cached { written: 1_250, ..Cached::default() }, Cached { read: 1_250, ..Cached::default() });
        let mut caches = PromptCaches::default();
        // Two at once both write.
        assert_eq!([0, 0].map(|at| caches.look(1, &ask, minutes(at))), [written; 2]);
        caches.keep(1, &ask, minutes(1));
        assert_eq!([2, 6, 10].map(|at| caches.look(1, &ask, minutes(at))), [read; 3]);
        assert_eq!(caches.look(2, &ask, minutes(10)), written, "another model has its own");
        assert_eq!(caches.look(1, &ask, minutes(15)), written);
        let hour = CacheAsk { life: Life::Hour, prefix: 7, ..ask };
        assert_eq!(caches.look(1, &hour, minutes(0)), Cached { for_an_hour: 1_250, ..written });
        caches.keep(1, &hour, minutes(0));
        assert_eq!(caches.look(1, &hour, minutes(59)), read);
        let free = CacheAsk { life: Life::Free, prefix: 8, ..ask };
        assert_eq!(caches.look(1, &free, minutes(0)), Cached::default());
    }
}
