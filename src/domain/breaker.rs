//! The circuit breaker of one target.
//!
//! The textbook machine over recorded results, with the time passed in:
//!
//! ```text
//!          failures ≥ rate of at least min_calls
//! Closed ──────────────────────────────────────────▶ Open ◀──────────────┐
//!    ▲                                                │ after its time    │ a probe fails:
//!    │ probes succeed                                 ▼                   │ twice the time, at most 16 times
//!    └─────────────────────────────────────────── HalfOpen ───────────────┘
//! ```
//!
//! Half open it lets one real job through. Each success doubles the number that may run at once, and after
//! [`RAMP`] successes it is closed, so a provider that has just come back is not buried.
//!
//! Guarantees:
//! - While open nothing is admitted before its time; while half open never more than the probes allowed.
//! - It opens only on a counted failure, with at least `min_calls` counted calls in the window.
//! - The result of a call that was admitted in an earlier state changes nothing: what was sent before the breaker opened
//!   neither closes it again nor lengthens its time.
//! - A probe whose result never comes (its worker died) holds its place only for [`PROBE_LIMIT`].
//! - Memory is constant, and every operation takes constant time.

mod window;

use super::{ErrorClass, Outcome, SoftFailure, Timestamp};
use std::time::Duration;
use window::Window;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// No judgement on fewer calls than this in the window.
    pub min_calls: u32,
    /// Opens at this share of failures in the window, 0 to 1.
    pub failure_rate: f64,
    /// How far back calls count.
    pub window: Duration,
    /// How long it stays open the first time; doubles with each failed probe, up to 16 times this.
    pub open: Duration,
}

/// Successes in a row that close a half-open breaker.
pub const RAMP: u32 = 3;

/// How long a probe may take before another one is let through in its place.
pub const PROBE_LIMIT: Duration = Duration::from_mins(15);

/// How long to wait before asking again while the probes of a half-open breaker are running.
const PROBE_POLL: Duration = Duration::from_secs(1);

/// The longest time open, in doublings of the first: 16 times.
const MOST_DOUBLINGS: u32 = 4;

/// What a result says about the health of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// Nothing: limits, keys, money and the request itself are not the target's health.
    Neutral,
}

impl Sign {
    /// What an outcome says.
    #[must_use]
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted => Self::Good,
            Outcome::Rejected(kind) => Self::of_soft_failure(*kind),
            Outcome::Failed(class) => Self::of_class(*class),
        }
    }

    /// What an unusable answer says.
    ///
    /// What depends on what the request demands (a schema, a length, a pattern, a topic that is refused) is no illness:
    /// otherwise one project with a schema that nobody can meet would open the breaker for all the others.
    #[must_use]
    pub const fn of_soft_failure(kind: SoftFailure) -> Self {
        match kind {
            SoftFailure::Empty | SoftFailure::Html | SoftFailure::BadFinish => Self::Bad,
            SoftFailure::TooShort
            | SoftFailure::TooLong
            | SoftFailure::Truncated
            | SoftFailure::ReasoningExhausted
            | SoftFailure::NotJson
            | SoftFailure::SchemaMismatch
            | SoftFailure::MissingPattern
            | SoftFailure::ForbiddenPattern
            | SoftFailure::Refusal
            | SoftFailure::ContentFiltered
            | SoftFailure::BadToolCall => Self::Neutral,
        }
    }

    /// What a class of failure says.
    ///
    /// A wrong model or a missing permission is lasting, so it closes the target by itself and is not counted here.
    #[must_use]
    pub const fn of_class(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Overloaded
            | ErrorClass::ServerError
            | ErrorClass::Timeout
            | ErrorClass::Network
            | ErrorClass::Unreachable
            | ErrorClass::SoftFailure => Self::Bad,
            ErrorClass::RateLimit
            | ErrorClass::RateLimitDaily
            | ErrorClass::RampLimit
            | ErrorClass::QuotaExhausted
            | ErrorClass::Auth
            | ErrorClass::Permission
            | ErrorClass::NotFound
            | ErrorClass::InvalidRequest
            | ErrorClass::ContextLength
            | ErrorClass::ContentPolicy
            | ErrorClass::PayloadTooLarge
            | ErrorClass::NeverFits
            | ErrorClass::OutputInvalid
            | ErrorClass::Conflict
            | ErrorClass::Cancelled
            | ErrorClass::Abandoned
            | ErrorClass::Deadline => Self::Neutral,
        }
    }
}

/// Leave to make one call; its result is recorded with it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit whose result is never recorded keeps a probe's place"]
pub struct Permit {
    /// In which state it was given: only that one learns from the result.
    era: u64,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All calls go.
    Closed,
    /// No call goes.
    Open {
        /// Since when it has not been closed.
        since: Timestamp,
        /// When a probe may go.
        until: Timestamp,
        /// How many probes have failed in a row.
        failed_probes: u32,
    },
    /// Some calls go, to find out.
    HalfOpen {
        /// Since when it has not been closed.
        since: Timestamp,
        /// How many probes failed in a row before.
        failed_probes: u32,
        /// How many have succeeded in a row now.
        successes: u32,
        /// How many are running.
        running: u32,
        /// When the last one began.
        probed_at: Timestamp,
    },
}

/// The circuit breaker of one target. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Counts changes of state.
    era: u64,
    window: Window,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed, era: 0, window: Window::default() }
    }

    /// A breaker that goes on where another process, or this one before a restart, stood.
    ///
    /// Probes that were running then are not waited for, and the calls of the window are forgotten.
    #[must_use]
    pub fn restore(settings: BreakerSettings, state: State) -> Self {
        let state = match state {
            State::HalfOpen { since, failed_probes, successes, probed_at, .. } => {
                State::HalfOpen { since, failed_probes, successes, running: 0, probed_at }
            }
            State::Closed | State::Open { .. } => state,
        };
        Self { state, ..Self::new(settings) }
    }

    /// Goes by these settings from now on. A breaker that is open keeps its time.
    pub fn retune(&mut self, settings: BreakerSettings) {
        if settings.window != self.settings.window {
            // Calls are counted in slices of the window.
            self.window = Window::default();
        }
        self.settings = settings;
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it has not been closed, and when to ask again; `None` if a call may go now.
    #[must_use]
    pub fn peek(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        match self.state {
            State::Closed => None,
            State::Open { since, until, .. } => (now < until).then_some((since, until)),
            State::HalfOpen { since, successes, running, probed_at, .. } => {
                let given_up = probed_at + PROBE_LIMIT;
                let full = running >= probes_allowed(successes) && now < given_up;
                full.then(|| (since, given_up.min(now + PROBE_POLL)))
            }
        }
    }

    /// Lets a call go, or says when to ask again.
    ///
    /// # Errors
    /// The earliest instant at which asking again makes sense; later than `now`.
    pub fn admit(&mut self, now: Timestamp) -> Result<Permit, Timestamp> {
        if let Some((_, until)) = self.peek(now) {
            return Err(until);
        }
        match &mut self.state {
            State::Closed => {}
            &mut State::Open { since, failed_probes, .. } => {
                self.enter(State::HalfOpen { since, failed_probes, successes: 0, running: 1, probed_at: now });
            }
            State::HalfOpen { successes, running, probed_at, .. } => {
                // One beyond the allowed goes only in place of one that was given up.
                *running = running.saturating_add(1).min(probes_allowed(*successes));
                *probed_at = now;
            }
        }
        Ok(Permit { era: self.era })
    }

    /// Takes note of a result. A call that was not made after all is [`Sign::Neutral`].
    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one result")]
    pub fn record(&mut self, permit: Permit, sign: Sign, now: Timestamp) {
        if permit.era != self.era {
            return;
        }
        match self.state {
            State::Closed => self.record_closed(sign, now),
            // Nothing is admitted in this state, so no permit is of its era.
            State::Open { .. } => {}
            State::HalfOpen { since, failed_probes, successes, running, probed_at } => match sign {
                Sign::Bad => self.open(since, failed_probes.saturating_add(1), now),
                Sign::Good if successes.saturating_add(1) >= RAMP => self.close(),
                Sign::Good | Sign::Neutral => {
                    let successes = successes.saturating_add(u32::from(sign == Sign::Good));
                    let running = running.saturating_sub(1);
                    self.state = State::HalfOpen { since, failed_probes, successes, running, probed_at };
                }
            },
        }
    }

    fn record_closed(&mut self, sign: Sign, now: Timestamp) {
        match sign {
            Sign::Neutral => {}
            Sign::Good => self.window.count(false, now, self.settings.window),
            Sign::Bad => {
                self.window.count(true, now, self.settings.window);
                let (calls, failures) = self.window.totals();
                let enough = calls >= self.settings.min_calls;
                if enough && f64::from(failures) >= self.settings.failure_rate * f64::from(calls) {
                    self.open(now, 0, now);
                }
            }
        }
    }

    fn open(&mut self, since: Timestamp, failed_probes: u32, now: Timestamp) {
        let factor = 1_u32.checked_shl(failed_probes.min(MOST_DOUBLINGS)).unwrap_or(1);
        let until = now + self.settings.open.saturating_mul(factor);
        self.enter(State::Open { since, until, failed_probes });
    }

    fn close(&mut self) {
        self.enter(State::Closed);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era = self.era.wrapping_add(1);
        self.window = Window::default();
    }
}

/// How many probes may run at once after so many successes: 1, 2, 4.
fn probes_allowed(successes: u32) -> u32 {
    1_u32.checked_shl(successes.min(RAMP)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    const SETTINGS: BreakerSettings = BreakerSettings {
        min_calls: 4,
        failure_rate: 0.5,
        window: Duration::from_mins(1),
        open: Duration::from_secs(30),
    };

    fn call(breaker: &mut Breaker, sign: Sign, now: Timestamp) {
        let permit = breaker.admit(now).expect("is admitted");
        breaker.record(permit, sign, now);
    }

    /// A breaker that opened at `START`.
    fn opened() -> Breaker {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..4 {
            call(&mut breaker, Sign::Bad, START);
        }
        assert!(matches!(breaker.state(), State::Open { .. }));
        breaker
    }

    #[test]
    fn new_settings_hold_at_once_and_leave_the_state_alone() {
        let mut breaker = opened();
        let before = breaker.state();
        breaker.retune(BreakerSettings { open: SECOND, min_calls: 1, ..SETTINGS });
        assert_eq!(breaker.state(), before);
        let mut breaker = Breaker::new(SETTINGS);
        call(&mut breaker, Sign::Bad, START);
        breaker.retune(BreakerSettings { min_calls: 2, ..SETTINGS });
        call(&mut breaker, Sign::Bad, START);
        assert!(matches!(breaker.state(), State::Open { .. }), "what was counted counts");
        let mut breaker = Breaker::new(SETTINGS);
        call(&mut breaker, Sign::Bad, START);
        breaker.retune(BreakerSettings { min_calls: 2, window: SECOND, ..SETTINGS });
        call(&mut breaker, Sign::Bad, START);
        assert_eq!(breaker.state(), State::Closed, "another window counts anew");
    }

    #[test]
    fn a_schema_that_nobody_can_meet_opens_no_breaker() {
        use SoftFailure::{BadFinish, Empty, Html};
        for &kind in SoftFailure::ALL {
            let expected = if [Empty, Html, BadFinish].contains(&kind) { Sign::Bad } else { Sign::Neutral };
            assert_eq!(Sign::of(&Outcome::Rejected(kind)), expected, "{kind}");
        }
    }

    #[test]
    fn it_opens_at_the_failure_rate_and_not_below_the_least_number_of_calls() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            call(&mut breaker, Sign::Bad, START);
            assert_eq!(breaker.peek(START), None);
        }
        call(&mut breaker, Sign::Bad, START);
        assert_eq!(breaker.peek(START), Some((START, START + SETTINGS.open)));

        let mut breaker = Breaker::new(SETTINGS);
        for sign in [Sign::Good, Sign::Good, Sign::Good, Sign::Bad, Sign::Bad] {
            call(&mut breaker, sign, START);
            assert_eq!(breaker.state(), State::Closed);
        }
        call(&mut breaker, Sign::Bad, START);
        assert!(matches!(breaker.state(), State::Open { .. }));
    }

    #[test]
    fn what_says_nothing_about_health_is_not_counted() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..100 {
            call(&mut breaker, Sign::Neutral, START);
        }
        for _ in 0..3 {
            call(&mut breaker, Sign::Bad, START);
        }
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn limits_keys_money_and_requests_say_nothing_about_health() {
        use ErrorClass::{Network, Overloaded, ServerError, SoftFailure, Timeout, Unreachable};
        let bad = [Overloaded, ServerError, Timeout, Network, Unreachable, SoftFailure];
        for &class in ErrorClass::ALL {
            let expected = if bad.contains(&class) { Sign::Bad } else { Sign::Neutral };
            assert_eq!(Sign::of(&Outcome::Failed(class)), expected, "{class}");
        }
        assert_eq!(Sign::of(&Outcome::Accepted), Sign::Good);
    }

    #[test]
    fn failures_leave_the_window() {
        let mut breaker = Breaker::new(SETTINGS);
        for second in 0..100 {
            // One failure in twenty seconds: three in the window, four are needed.
            call(&mut breaker, Sign::Bad, START + SECOND * 20 * second);
        }
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            call(&mut breaker, Sign::Bad, START);
        }
        call(&mut breaker, Sign::Bad, START - SETTINGS.window);
        assert!(matches!(breaker.state(), State::Open { .. }));
    }

    #[test]
    fn one_probe_goes_when_its_time_is_over() {
        let mut breaker = opened();
        let due = START + SETTINGS.open;
        assert_eq!(breaker.admit(due - SECOND), Err(due));
        let probe = breaker.admit(due).unwrap();
        assert_eq!(breaker.admit(due), Err(due + PROBE_POLL));
        assert_eq!(breaker.peek(due), Some((START, due + PROBE_POLL)));
        breaker.record(probe, Sign::Good, due);
        assert_eq!(breaker.peek(due), None);
    }

    #[test]
    fn successes_let_more_through_until_it_is_closed() {
        let mut breaker = opened();
        let now = START + SETTINGS.open;
        for allowed in [1, 2, 4] {
            let mut permits: Vec<Permit> = (0..allowed).map(|_| breaker.admit(now).unwrap()).collect();
            assert!(breaker.admit(now).is_err());
            let last = permits.pop().unwrap();
            for permit in permits {
                breaker.record(permit, Sign::Neutral, now);
            }
            breaker.record(last, Sign::Good, now);
        }
        assert_eq!(breaker.state(), State::Closed);
        // What failed before is forgotten.
        call(&mut breaker, Sign::Bad, now);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn each_failed_probe_doubles_the_time_up_to_sixteen_times() {
        let mut breaker = opened();
        let mut factors = Vec::new();
        for _ in 0..7 {
            let State::Open { since, until, .. } = breaker.state() else { panic!("{:?}", breaker.state()) };
            assert_eq!(since, START, "it has not been closed since");
            call(&mut breaker, Sign::Bad, until);
            let (_, next) = breaker.peek(until).unwrap();
            factors.push(until.until(next).as_secs() / SETTINGS.open.as_secs());
        }
        assert_eq!(factors, [2, 4, 8, 16, 16, 16, 16]);
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_its_place_to_another() {
        let mut breaker = opened();
        let now = START + SETTINGS.open;
        call(&mut breaker, Sign::Neutral, now);
        assert!(matches!(breaker.state(), State::HalfOpen { running: 0, successes: 0, .. }));
        assert!(breaker.admit(now).is_ok());
    }

    #[test]
    fn a_probe_that_never_answers_is_given_up() {
        let mut breaker = opened();
        let now = START + SETTINGS.open;
        let lost = breaker.admit(now).unwrap();
        assert!(breaker.admit(now + PROBE_LIMIT - SECOND).is_err());
        let other = breaker.admit(now + PROBE_LIMIT).unwrap();
        assert!(breaker.admit(now + PROBE_LIMIT).is_err(), "only one in its place");
        drop(lost);
        breaker.record(other, Sign::Good, now + PROBE_LIMIT);
        assert!(breaker.admit(now + PROBE_LIMIT).is_ok());
    }

    #[test]
    fn a_result_from_before_it_opened_changes_nothing() {
        for sign in [Sign::Good, Sign::Bad] {
            let mut breaker = Breaker::new(SETTINGS);
            let early = [breaker.admit(START).unwrap(), breaker.admit(START).unwrap()];
            for _ in 0..4 {
                call(&mut breaker, Sign::Bad, START);
            }
            let [first, second] = early;
            let before = breaker.state();
            breaker.record(first, sign, START + SECOND);
            assert_eq!(breaker.state(), before);
            let probe = breaker.admit(START + SETTINGS.open).unwrap();
            let before = breaker.state();
            breaker.record(second, sign, START + SETTINGS.open);
            assert_eq!(breaker.state(), before);
            breaker.record(probe, Sign::Good, START + SETTINGS.open);
        }
    }

    #[test]
    fn a_restored_breaker_goes_on_where_it_stood() {
        let mut breaker = Breaker::restore(SETTINGS, opened().state());
        let due = START + SETTINGS.open;
        assert_eq!(breaker.admit(START), Err(due));
        let _lost = breaker.admit(due).unwrap();
        let mut breaker = Breaker::restore(SETTINGS, breaker.state());
        assert!(breaker.admit(due).is_ok(), "the probe of the other process is not waited for");
    }

    #[test]
    fn settings_without_sense_are_survived() {
        for failure_rate in [f64::NAN, -1.0, 0.0, 2.0, f64::INFINITY] {
            for (window, open) in [(Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::MAX)] {
                let mut breaker = Breaker::new(BreakerSettings { min_calls: 0, failure_rate, window, open });
                for now in [Timestamp::MIN, Timestamp(0), Timestamp::MAX] {
                    for sign in [Sign::Bad, Sign::Good, Sign::Neutral] {
                        if let Ok(permit) = breaker.admit(now) {
                            breaker.record(permit, sign, now);
                        }
                    }
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u16),
        Admit,
        Record(usize, Sign),
        Lose(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let sign = prop::sample::select(vec![Sign::Bad, Sign::Bad, Sign::Good, Sign::Neutral]);
        let event = prop_oneof![
            2 => (0..40_000_u16).prop_map(Event::Pass),
            4 => Just(Event::Admit),
            4 => (0..8_usize, sign).prop_map(|(which, sign)| Event::Record(which, sign)),
            1 => (0..8_usize).prop_map(Event::Lose),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_keeps_its_promises_whatever_happens(events in events()) {
            let mut breaker = Breaker::new(SETTINGS);
            let mut now = START;
            let mut running: Vec<Permit> = Vec::new();
            // The counted calls since it was last closed, whatever their age.
            let mut counted = 0;
            for event in events {
                let before = breaker.state();
                match event {
                    Event::Pass(ms) => now = now + Duration::from_millis(u64::from(ms)),
                    Event::Admit => {
                        let peeked = breaker.peek(now);
                        let answer = breaker.admit(now);
                        prop_assert_eq!(peeked.map(|(_, until)| until), answer.as_ref().err().copied());
                        prop_assert!(answer.as_ref().err().is_none_or(|&until| until > now));
                        if let State::Open { until, .. } = before {
                            prop_assert_eq!(answer.is_ok(), now >= until);
                        }
                        if let State::HalfOpen { running, successes, .. } = breaker.state() {
                            prop_assert!(running <= probes_allowed(successes));
                        }
                        running.extend(answer);
                    }
                    Event::Record(which, sign) if !running.is_empty() => {
                        let permit = running.swap_remove(which % running.len());
                        let current = permit.era == breaker.era;
                        counted += u32::from(current && before == State::Closed && sign != Sign::Neutral);
                        breaker.record(permit, sign, now);
                        let after = breaker.state();
                        if !current {
                            prop_assert_eq!(before, after);
                        }
                        if let (State::Closed, State::Open { until, .. }) = (before, after) {
                            prop_assert!(sign == Sign::Bad && counted >= SETTINGS.min_calls);
                            prop_assert_eq!(until, now + SETTINGS.open);
                        }
                        if let State::Open { since, until, .. } = after {
                            prop_assert!(since <= now && until <= now + SETTINGS.open * 16);
                        }
                        if (before != State::Closed) && after == State::Closed {
                            prop_assert_eq!(sign, Sign::Good);
                            counted = 0;
                        }
                    }
                    Event::Lose(which) if !running.is_empty() => {
                        let _ = running.swap_remove(which % running.len());
                    }
                    Event::Record(..) | Event::Lose(_) => {}
                }
            }
            // However it was left, it lets a call go in the end.
            let later = now + PROBE_LIMIT.max(SETTINGS.open * 16);
            prop_assert_eq!(breaker.peek(later), None);
        }
    }
}
