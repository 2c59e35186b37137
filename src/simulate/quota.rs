//! Request and token quotas: continuously refilling buckets, as arithmetic over (state, now).
//!
//! Nothing here reads a clock. `now` is the time since the simulator started.

use super::notation::span;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Slack for sums of floating point numbers: far below one request or token.
const EPSILON: f64 = 1e-6;

/// A token bucket that refills continuously and may be in debt.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    capacity: f64,
    per_second: f64,
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(per_minute: f64, capacity: f64, now: Duration) -> Self {
        Self { capacity, per_second: per_minute / 60.0, level: capacity, at: now }
    }

    /// The level at `now`; negative while in debt.
    #[must_use]
    pub fn level(&self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        (self.level + elapsed * self.per_second).min(self.capacity)
    }

    /// Takes `cost` out, into debt when there is less. Callers ask for admission first: [`Bucket::wait_for`].
    pub fn take(&mut self, cost: f64, now: Duration) {
        self.level = self.level(now) - cost;
        self.at = self.at.max(now);
    }

    /// Takes up to `cost` out, and no more than there is: never into debt.
    fn take_what_there_is(&mut self, cost: f64, now: Duration) {
        let level = self.level(now);
        self.take(cost.min(level.max(0.0)), now);
    }

    /// How long until `cost` could be taken: zero for now, `None` when it is more than the bucket can ever hold.
    #[must_use]
    pub fn wait_for(&self, cost: f64, now: Duration) -> Option<Duration> {
        if cost > self.capacity + EPSILON {
            return None;
        }
        Some(self.wait_until(cost, now))
    }

    /// How long until the bucket is full again.
    #[must_use]
    pub fn until_full(&self, now: Duration) -> Duration {
        self.wait_until(self.capacity, now)
    }

    fn wait_until(&self, wanted: f64, now: Duration) -> Duration {
        let missing = wanted - self.level(now);
        if missing <= EPSILON {
            return Duration::ZERO;
        }
        // Rounded up to the microsecond: the promise must hold at the instant that is named.
        Duration::try_from_secs_f64((missing / self.per_second * 1e6).ceil() / 1e6).unwrap_or(Duration::MAX)
    }
}

/// The limits of a provider. Absent: unlimited.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that refill per minute.
    pub requests_per_minute: Option<u32>,
    /// Requests that a full bucket holds; the limit per minute when absent.
    pub burst_requests: Option<u32>,
    /// Tokens that refill per minute; the dialect decides how many a request costs.
    pub tokens_per_minute: Option<u64>,
    /// Tokens that a full bucket of any kind of token holds; its limit per minute when absent.
    pub burst_tokens: Option<u64>,
    /// Anthropic's separate limit of input tokens per minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Anthropic's separate limit of output tokens per minute, charged as they are produced.
    pub output_tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    pub concurrency: Option<u32>,
    /// Requests per day; the first day begins when the simulator starts.
    pub requests_per_day: Option<u64>,
    /// How fast the number of requests may grow.
    pub growth: Option<Growth>,
    /// A refused call takes one request all the same, if there is one: a client that keeps knocking is not let in.
    pub refused_count: bool,
}

impl Limits {
    /// The first limit that makes no sense, and the value that was expected.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let limits = [
            ("requests_per_minute", self.requests_per_minute.map(u64::from)),
            ("burst_requests", self.burst_requests.map(u64::from)),
            ("tokens_per_minute", self.tokens_per_minute),
            ("burst_tokens", self.burst_tokens),
            ("input_tokens_per_minute", self.input_tokens_per_minute),
            ("output_tokens_per_minute", self.output_tokens_per_minute),
            ("growth.calls", self.growth.map(|growth| u64::from(growth.calls))),
        ];
        for (limit, value) in limits {
            if value == Some(0) {
                return Err((limit, "expected at least 1; leave it out for no limit"));
            }
        }
        if self.burst_requests.is_some() && self.requests_per_minute.is_none() {
            return Err(("burst_requests", "has no effect without requests_per_minute"));
        }
        let tokens = [self.tokens_per_minute, self.input_tokens_per_minute, self.output_tokens_per_minute];
        if self.burst_tokens.is_some() && tokens.iter().all(Option::is_none) {
            return Err(("burst_tokens", "has no effect without a limit of tokens per minute"));
        }
        match self.growth {
            Some(growth) if growth.factor.is_nan() || growth.factor < 1.0 => {
                Err(("growth.factor", "expected at least 1: with less the calls would dwindle away"))
            }
            Some(growth) if growth.window.is_zero() => Err(("growth.window", "expected a duration such as \"1s\"")),
            _ => Ok(()),
        }
    }
}

/// An acceleration limit: in each window at most `factor` times the calls that were admitted in the one before, and
/// always `calls`. The windows follow each other from the start of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The calls that any window admits.
    pub calls: u32,
    /// The factor by which a window may exceed the one before; at least 1.
    pub factor: f64,
    /// The length of a window; above zero.
    #[serde(deserialize_with = "span")]
    pub window: Duration,
}

impl Growth {
    /// The number of the window in which `now` lies.
    fn window_of(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.window.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// How many calls a window admits after one that admitted `before`.
    fn allowed(&self, before: u64) -> u64 {
        u64::from(self.calls).max(whole(number(before) * self.factor))
    }

    /// How long until the next window begins.
    fn until_next(&self, now: Duration) -> Duration {
        let into = now.as_nanos() % self.window.as_nanos().max(1);
        self.window.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX)))
    }
}

/// The calls that were admitted in a window, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Grown {
    window: u64,
    admitted: u64,
    before: u64,
}

impl Grown {
    /// The same as seen from `window`: calls that lie further back than one window no longer count.
    fn seen_from(self, window: u64) -> Self {
        match window.saturating_sub(self.window) {
            0 => self,
            1 => Self { window, admitted: 0, before: self.admitted },
            _ => Self { window, admitted: 0, before: 0 },
        }
    }
}

/// A limit of a [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// Input tokens per minute.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
    /// Requests per day.
    RequestsPerDay,
    /// Calls at the same time.
    Concurrency,
    /// Calls more than before.
    Growth,
}

/// The cost of a call when it is admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// From the bucket of all tokens.
    pub tokens: u64,
    /// From the bucket of input tokens.
    pub input_tokens: u64,
}

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The limit.
    pub dimension: Dimension,
    /// Its value.
    pub limit: u64,
    /// The part of it that is used now.
    pub used: u64,
    /// The amount that the call wanted.
    pub requested: u64,
    /// When the call could be admitted; `None` when that cannot be said (concurrency) or will never be (too large).
    pub wait: Option<Duration>,
}

impl Shortage {
    /// Whether the call alone is larger than the limit, so that waiting is in vain.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.dimension != Dimension::Concurrency && self.wait.is_none()
    }
}

/// One limit as the headers state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The limit per minute.
    pub limit: u64,
    /// The part of it that is left.
    pub remaining: u64,
    /// When it is whole again.
    pub until_full: Duration,
}

/// The limits as the headers state them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Requests per minute.
    pub requests: Option<Level>,
    /// Tokens per minute.
    pub tokens: Option<Level>,
    /// Input tokens per minute.
    pub input_tokens: Option<Level>,
    /// Output tokens per minute.
    pub output_tokens: Option<Level>,
}

const DAY: Duration = Duration::from_hours(24);

/// The buckets of one provider, model or key.
#[derive(Clone, Debug)]
pub struct Quota {
    limits: Limits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    input_tokens: Option<Bucket>,
    output_tokens: Option<Bucket>,
    day: u64,
    used_today: u64,
    in_flight: u32,
    grown: Grown,
}

#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to be positive")]
fn whole(value: f64) -> u64 {
    (value + EPSILON).max(0.0) as u64
}

impl Quota {
    /// Buckets that are all full.
    #[must_use]
    pub fn new(limits: &Limits, now: Duration) -> Self {
        let bucket = |limit: Option<u64>, burst: Option<u64>| {
            limit.map(|limit| Bucket::full(number(limit), number(burst.unwrap_or(limit)), now))
        };
        Self {
            requests: bucket(limits.requests_per_minute.map(u64::from), limits.burst_requests.map(u64::from)),
            tokens: bucket(limits.tokens_per_minute, limits.burst_tokens),
            input_tokens: bucket(limits.input_tokens_per_minute, limits.burst_tokens),
            output_tokens: bucket(limits.output_tokens_per_minute, limits.burst_tokens),
            limits: limits.clone(),
            day: 0,
            used_today: 0,
            in_flight: 0,
            grown: Grown::default(),
        }
    }

    /// Admits a call and takes its cost, or returns the shortage that lasts longest. A call that is not admitted takes
    /// nothing, unless refusals count.
    pub fn admit(&mut self, cost: Cost, now: Duration) -> Result<(), Shortage> {
        if let Some(shortage) = self.shortage(cost, now) {
            if self.limits.refused_count
                && let Some(bucket) = &mut self.requests
            {
                bucket.take_what_there_is(1.0, now);
                // The wait is that of the bucket in its present state.
                return Err(self.shortage(cost, now).unwrap_or(shortage));
            }
            return Err(shortage);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0, now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(number(cost.tokens), now);
        }
        if let Some(bucket) = &mut self.input_tokens {
            bucket.take(number(cost.input_tokens), now);
        }
        self.used_today += 1;
        self.in_flight += 1;
        self.grown.admitted += 1;
        Ok(())
    }

    fn shortage(&mut self, cost: Cost, now: Duration) -> Option<Shortage> {
        let today = now.as_secs() / DAY.as_secs();
        if today != self.day {
            self.day = today;
            self.used_today = 0;
        }
        if let Some(limit) = self.limits.requests_per_day
            && self.used_today >= limit
        {
            let midnight = DAY.saturating_mul(u32::try_from(today + 1).unwrap_or(u32::MAX));
            let wait = Some(midnight.saturating_sub(now));
            let used = self.used_today;
            return Some(Shortage { dimension: Dimension::RequestsPerDay, limit, used, requested: 1, wait });
        }
        // Output is charged afterwards: beforehand, one token must be left.
        let asked = [
            (Dimension::Requests, &self.requests, self.limits.requests_per_minute.map(u64::from), 1),
            (Dimension::Tokens, &self.tokens, self.limits.tokens_per_minute, cost.tokens),
            (Dimension::InputTokens, &self.input_tokens, self.limits.input_tokens_per_minute, cost.input_tokens),
            (Dimension::OutputTokens, &self.output_tokens, self.limits.output_tokens_per_minute, 1),
        ];
        let mut longest: Option<Shortage> = None;
        for (dimension, bucket, limit, requested) in asked {
            let (Some(bucket), Some(limit)) = (bucket, limit) else { continue };
            let wait = bucket.wait_for(number(requested), now);
            if wait == Some(Duration::ZERO) {
                continue;
            }
            // Rounded up, because a unit that has been refilled in part cannot be used yet.
            let used = whole((number(limit).max(bucket.capacity) - bucket.level(now) - EPSILON).ceil());
            let shortage = Shortage { dimension, limit, used, requested, wait };
            match &longest {
                // A shortage that no wait ends outlasts all others.
                Some(other) if other.wait.is_none() => {}
                Some(other) if wait.is_some() && wait <= other.wait => {}
                _ => longest = Some(shortage),
            }
        }
        if longest.is_some() {
            return longest;
        }
        if let Some(growth) = self.limits.growth {
            self.grown = self.grown.seen_from(growth.window_of(now));
            let (limit, used) = (growth.allowed(self.grown.before), self.grown.admitted);
            if used >= limit {
                let wait = Some(growth.until_next(now));
                return Some(Shortage { dimension: Dimension::Growth, limit, used, requested: 1, wait });
            }
        }
        let limit = self.limits.concurrency?;
        (self.in_flight >= limit).then_some(Shortage {
            dimension: Dimension::Concurrency,
            limit: u64::from(limit),
            used: u64::from(self.in_flight),
            requested: 1,
            wait: None,
        })
    }

    /// Notes that an admitted call has ended: takes `output` tokens from the output bucket, `tokens` from that of all
    /// tokens.
    pub fn release(&mut self, output: u64, tokens: u64, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(bucket) = &mut self.output_tokens {
            bucket.take(number(output), now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(number(tokens), now);
        }
    }

    /// The limits for the headers.
    #[must_use]
    pub fn levels(&self, now: Duration) -> Levels {
        let level = |bucket: &Option<Bucket>, limit: Option<u64>| {
            let (bucket, limit) = (bucket.as_ref()?, limit?);
            Some(Level { limit, remaining: whole(bucket.level(now)), until_full: bucket.until_full(now) })
        };
        Levels {
            requests: level(&self.requests, self.limits.requests_per_minute.map(u64::from)),
            tokens: level(&self.tokens, self.limits.tokens_per_minute),
            input_tokens: level(&self.input_tokens, self.limits.input_tokens_per_minute),
            output_tokens: level(&self.output_tokens, self.limits.output_tokens_per_minute),
        }
    }

    /// How many requests could be admitted between `from` and `until`, if only requests counted; `None`: no limit.
    #[must_use]
    pub fn requests_between(&self, from: Duration, until: Duration) -> Option<f64> {
        let bucket = self.requests.as_ref()?;
        Some(bucket.level(from).max(0.0) + bucket.per_second * until.saturating_sub(from).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn quota(limits: &Limits) -> Quota {
        Quota::new(limits, Duration::ZERO)
    }

    #[test]
    fn a_burst_is_admitted_and_then_one_call_per_refill() {
        let mut quota = quota(&Limits { requests_per_minute: Some(60), burst_requests: Some(3), ..Limits::default() });
        for _ in 0..3 {
            assert_eq!(quota.admit(Cost::default(), ms(0)), Ok(()));
        }
        let shortage = quota.admit(Cost::default(), ms(400)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.limit, shortage.wait), (Dimension::Requests, 60, Some(ms(600))));
        assert_eq!(quota.admit(Cost::default(), ms(1000)), Ok(()));
        assert!(quota.admit(Cost::default(), ms(1001)).is_err());
    }

    #[test]
    fn the_longest_shortage_is_the_one_that_is_told() {
        let limits = Limits { requests_per_minute: Some(60), tokens_per_minute: Some(600), ..Limits::default() };
        let mut quota = quota(&Limits { burst_requests: Some(1), ..limits });
        let cost = Cost { tokens: 500, input_tokens: 0 };
        assert_eq!(quota.admit(cost, ms(0)), Ok(()));
        let shortage = quota.admit(cost, ms(0)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.wait), (Dimension::Tokens, Some(ms(40_000))));
        assert_eq!((shortage.used, shortage.requested), (500, 500));
        assert_eq!(quota.admit(cost, ms(40_000)), Ok(()));
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_refused_for_good() {
        let mut quota = quota(&Limits { tokens_per_minute: Some(100), ..Limits::default() });
        let shortage = quota.admit(Cost { tokens: 101, input_tokens: 0 }, ms(0)).unwrap_err();
        assert!(shortage.is_too_large());
    }

    #[test]
    fn output_tokens_are_charged_afterwards_and_may_leave_a_debt() {
        let mut quota = quota(&Limits { output_tokens_per_minute: Some(60), ..Limits::default() });
        assert_eq!(quota.admit(Cost::default(), ms(0)), Ok(()));
        quota.release(70, 0, ms(0));
        let shortage = quota.admit(Cost::default(), ms(0)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.wait), (Dimension::OutputTokens, Some(ms(11_000))));
        assert_eq!(quota.admit(Cost::default(), ms(11_000)), Ok(()));
    }

    #[test]
    fn concurrency_frees_with_every_release() {
        let mut quota = quota(&Limits { concurrency: Some(1), ..Limits::default() });
        assert_eq!(quota.admit(Cost::default(), ms(0)), Ok(()));
        let shortage = quota.admit(Cost::default(), ms(1)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.is_too_large()), (Dimension::Concurrency, false));
        quota.release(0, 0, ms(2));
        assert_eq!(quota.admit(Cost::default(), ms(3)), Ok(()));
    }

    #[test]
    fn the_number_of_calls_may_grow_by_its_factor_and_no_faster() {
        let growth = Growth { calls: 10, factor: 1.5, window: ms(1_000) };
        let mut quota = quota(&Limits { growth: Some(growth), ..Limits::default() });
        // How many of a hundred calls in the middle of a second are admitted.
        let mut admitted = |second: u64| {
            let at = ms(second * 1_000 + 500);
            (0..100).filter(|_| quota.admit(Cost::default(), at).is_ok()).count()
        };
        assert_eq!([0, 1, 2, 3].map(&mut admitted), [10, 15, 22, 33]);
        assert_eq!(admitted(5), 10, "after a second without calls it begins anew");
        let shortage = quota.admit(Cost::default(), ms(5_600)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.wait), (Dimension::Growth, Some(ms(400))));
    }

    #[test]
    fn where_refusals_count_who_keeps_knocking_is_not_let_in_and_who_waits_is() {
        let limits = Limits { requests_per_minute: Some(60), burst_requests: Some(1), ..Limits::default() };
        let mut patient = quota(&Limits { refused_count: true, ..limits.clone() });
        let (mut hasty, mut lenient) = (patient.clone(), quota(&limits));
        // Every half second, for ten seconds.
        let knocking =
            |quota: &mut Quota| (0..20).filter(|n| quota.admit(Cost::default(), ms(n * 500)).is_ok()).count();
        assert_eq!((knocking(&mut hasty), knocking(&mut lenient)), (1, 10));
        assert_eq!(patient.admit(Cost::default(), ms(0)), Ok(()));
        let shortage = patient.admit(Cost::default(), ms(500)).unwrap_err();
        assert_eq!(shortage.wait, Some(ms(1_000)), "half a request had flowed back, and is gone");
        assert_eq!(patient.admit(Cost::default(), ms(1_500)), Ok(()));
    }

    #[test]
    fn the_burst_of_tokens_holds_for_every_kind_of_token() {
        let limits = Limits {
            input_tokens_per_minute: Some(6_000),
            output_tokens_per_minute: Some(600),
            burst_tokens: Some(100),
            ..Limits::default()
        };
        let mut quota = quota(&limits);
        assert_eq!(quota.admit(Cost { tokens: 100, input_tokens: 100 }, ms(0)), Ok(()));
        let shortage = quota.admit(Cost { tokens: 50, input_tokens: 50 }, ms(0)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.wait), (Dimension::InputTokens, Some(ms(500))));
        quota.release(110, 0, ms(0));
        let shortage = quota.admit(Cost { tokens: 50, input_tokens: 50 }, ms(500)).unwrap_err();
        assert_eq!((shortage.dimension, shortage.wait), (Dimension::OutputTokens, Some(ms(600))));
    }

    #[test]
    fn a_daily_limit_opens_at_the_end_of_the_day() {
        let mut quota = quota(&Limits { requests_per_day: Some(2), ..Limits::default() });
        assert!(quota.admit(Cost::default(), ms(0)).is_ok() && quota.admit(Cost::default(), ms(0)).is_ok());
        let shortage = quota.admit(Cost::default(), Duration::from_hours(1)).unwrap_err();
        assert_eq!(shortage.wait, Some(Duration::from_hours(23)));
        assert_eq!(quota.admit(Cost::default(), DAY), Ok(()));
    }

    #[test]
    fn levels_tell_what_is_left_and_when_it_is_whole() {
        let mut quota = quota(&Limits { requests_per_minute: Some(120), ..Limits::default() });
        quota.admit(Cost::default(), ms(0)).unwrap();
        let level = quota.levels(ms(0)).requests.unwrap();
        assert_eq!(level, Level { limit: 120, remaining: 119, until_full: ms(500) });
    }

    proptest! {
        #[test]
        fn a_call_that_waits_as_told_is_admitted(
            per_minute in 1u32..100_000, burst in 1u32..1_000, tokens_per_minute in 1000u64..1_000_000,
            refused_count in any::<bool>(), calls in prop::collection::vec((0u64..3_000, 1u64..1_000), 1..200),
        ) {
            let limits = Limits {
                requests_per_minute: Some(per_minute), burst_requests: Some(burst),
                tokens_per_minute: Some(tokens_per_minute), refused_count, ..Limits::default()
            };
            let mut quota = quota(&limits);
            let mut now = Duration::ZERO;
            for (pause, tokens) in calls {
                now += ms(pause);
                let cost = Cost { tokens, input_tokens: tokens };
                if let Err(shortage) = quota.admit(cost, now) {
                    now += shortage.wait.unwrap();
                    prop_assert_eq!(quota.admit(cost, now), Ok(()));
                }
            }
        }

        #[test]
        fn no_window_admits_more_than_the_burst_and_the_refill(
            per_minute in 60u32..6_000, burst in 1u32..100, pauses in prop::collection::vec(0u64..200, 1..300),
        ) {
            let mut quota = quota(&Limits {
                requests_per_minute: Some(per_minute), burst_requests: Some(burst), ..Limits::default()
            });
            let (mut now, mut admitted) = (Duration::ZERO, 0u32);
            for pause in pauses {
                now += ms(pause);
                admitted += u32::from(quota.admit(Cost::default(), now).is_ok());
                let most = f64::from(burst) + f64::from(per_minute) / 60.0 * now.as_secs_f64();
                prop_assert!(f64::from(admitted) <= most + 0.01);
            }
        }
    }
}
