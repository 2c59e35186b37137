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
//! - The result of a call that was admitted in an earlier state changes nothing: a call sent before the breaker opened
//!   neither closes it again nor lengthens its time.
//! - Failures of one job in a row count once while it is closed: that one job never gets an answer says nothing of the
//!   others.
//! - A probe whose result does not come (its worker died, or its job waits for its whole timeout) holds its place only
//!   for twice the time open, and never for longer than [`PROBE_LIMIT`].
//! - It stays open for at most 16 times `open` after its last failed probe, whatever its target asks for; and what its
//!   present settings would not have opened it for keeps it open no longer, whichever process counted it.
//! - Memory is constant, and every operation takes constant time.

mod evidence;
mod window;

use super::news::BreakerNews;
use super::{JobId, Outcome, Timestamp};
pub use evidence::{Evidence, Indicator};
use std::time::Duration;
use window::Window;
pub(super) use window::slice_at;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// With fewer calls than this in the window the breaker does not judge.
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

/// The longest that a probe may take before another one is let through in its place.
pub const PROBE_LIMIT: Duration = Duration::from_mins(15);

/// However short the time open is, a probe has this long.
const LEAST_PROBE: Duration = Duration::from_secs(10);

/// How long to wait before asking again while the probes of a half-open breaker are running.
const PROBE_POLL: Duration = Duration::from_secs(1);

/// The longest time open, in doublings of the first: 16 times.
const MOST_DOUBLINGS: u32 = 4;

impl BreakerSettings {
    /// How long it stays open after so many failed probes: twice as long with each, up to 16 times `open`.
    #[must_use]
    pub fn rest(&self, failed_probes: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed_probes.min(MOST_DOUBLINGS)).unwrap_or(1);
        self.open.saturating_mul(factor)
    }

    /// Whether these settings open a breaker for so many failures. Other indicators are not theirs to judge.
    fn opens_for(&self, found: &Evidence) -> bool {
        let rate = |whole: u64| u32::try_from(whole).map_or(f64::INFINITY, f64::from);
        found.indicator != Indicator::Failures
            || (found.of >= self.min_calls.into() && rate(found.bad) >= self.failure_rate * rate(found.of))
    }
}

/// What a result says about the health of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The target works.
    Good,
    /// The target does not work.
    Bad,
    /// Nothing: limits, keys, money and the request itself are not the target's health.
    Neutral,
}

impl Sign {
    /// The sign that an outcome gives.
    #[must_use]
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted => Self::Good,
            Outcome::Rejected(kind) => kind.facts().breaker,
            Outcome::Failed(class) => class.facts().breaker,
        }
    }
}

/// Permission to make one call; its result is recorded with it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit whose result is never recorded keeps a probe's place"]
pub struct Passage {
    /// The state in which it was given: only that state learns from the result.
    era: u64,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All calls may go.
    Closed,
    /// No call may go.
    Open {
        /// Since when it has not been closed.
        since: Timestamp,
        /// When a probe may go.
        until: Timestamp,
        /// How many probes have failed in a row.
        failed_probes: u32,
    },
    /// Some calls may go, to find out whether the target works again.
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

impl State {
    /// The names of all states.
    pub const NAMES: [&str; 3] = ["closed", "half_open", "open"];

    /// Its name in statistics and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [closed, half_open, open] = Self::NAMES;
        match self {
            Self::Closed => closed,
            Self::HalfOpen { .. } => half_open,
            Self::Open { .. } => open,
        }
    }
}

/// The circuit breaker of one target. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Counts changes of state.
    era: u64,
    window: Window,
    /// Since when it had not been closed when it last closed.
    disproved: Option<Timestamp>,
    /// The job whose failure was counted last.
    blamed_by: Option<JobId>,
    /// What it opened for, until it closes; `None`: not known, or it was told to open.
    found: Option<Evidence>,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            era: 0,
            window: Window::default(),
            disproved: None,
            blamed_by: None,
            found: None,
        }
    }

    /// A breaker that continues from the state that another process, or this one before a restart, had reached.
    ///
    /// It does not wait for probes that were running then, and it forgets the calls of the window.
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

    /// Uses these settings from now on. A breaker that they would not have opened closes, and one whose time is longer
    /// than they give keeps no more than that. One that was told to open keeps its time.
    pub fn retune(&mut self, settings: BreakerSettings) {
        if settings.window != self.settings.window {
            // Calls are counted in slices of the window.
            self.window = Window::default();
        }
        let before = std::mem::replace(&mut self.settings, settings);
        let Some(found) = &self.found else { return };
        if !settings.opens_for(found) {
            self.close();
        } else if let State::Open { until, failed_probes, .. } = &mut self.state {
            let (was, is) = (before.rest(*failed_probes), settings.rest(*failed_probes));
            *until = *until - was.saturating_sub(is);
        }
    }

    /// Closes a breaker that opened for something that is bad no longer.
    pub(super) fn let_go(&mut self) {
        self.close();
    }

    /// The longest that it stays open by its settings.
    #[must_use]
    pub fn longest_rest(&self) -> Duration {
        self.settings.rest(MOST_DOUBLINGS)
    }

    /// Opens because the target asked to be left alone for longer than Sluice believes: no call goes for `rest`, and
    /// then one goes to ask again.
    pub fn open_for(&mut self, rest: Duration, now: Timestamp) {
        let (since, failed_probes) = match self.state {
            State::Closed => (now, 0),
            State::Open { since, failed_probes, .. } | State::HalfOpen { since, failed_probes, .. } => {
                (since, failed_probes)
            }
        };
        self.enter(State::Open { since, until: now + rest, failed_probes });
        self.found = None;
    }

    /// Opens for what others than this breaker have counted.
    pub(super) fn trip(&mut self, found: Evidence, now: Timestamp) {
        self.open(now, 0, now);
        self.found = Some(found);
    }

    /// What it opened for; `None`: it is closed, that is not known, or it was told to open.
    #[must_use]
    pub fn found(&self) -> Option<&Evidence> {
        self.found.as_ref()
    }

    /// Whether the present state learns from the result of a call with this permit.
    pub(super) fn learns_from(&self, permit: &Passage) -> bool {
        permit.era == self.era
    }

    /// Takes in what another process has found out about the target. Returns whether it changes anything.
    ///
    /// A breaker that has judged enough calls of its own by now stays closed: these count more than what others say. If
    /// it opens, the process that tells of the trouble asks first, and this one a quarter of the usual time later,
    /// unless it has heard more by then. If the target answers again, a few calls go, and the first answer closes the
    /// breaker. What its own calls have disproved is not heard again: the trouble is the other process's own.
    ///
    /// The other process may have other settings, such as those from before a restart. What these settings would not
    /// have opened a breaker for is not heard, and of a rest that is longer than they give no more counts than that.
    pub fn hear(&mut self, news: &BreakerNews, now: Timestamp) -> bool {
        let at_most = |until: Timestamp, failed_probes: u32, found: &Option<Evidence>| match found {
            Some(_) => until.min(now + self.settings.rest(failed_probes)),
            // It was told to open, or does not say for what.
            None => until.min(now + self.longest_rest()),
        };
        match (self.state, news) {
            (_, BreakerNews::Open { found: Some(found), .. }) if !self.settings.opens_for(found) => false,
            (State::Closed, BreakerNews::Open { since, .. }) if self.disproved == Some(*since) => false,
            (State::Closed, &BreakerNews::Open { since, until, failed_probes, ref found }) => {
                let (calls, _) = self.window.totals_at(now, self.settings.window);
                if calls >= self.settings.min_calls {
                    return false;
                }
                let until = at_most(until, failed_probes, found) + self.settings.open / 4;
                self.enter(State::Open { since, until, failed_probes });
                self.found.clone_from(found);
                true
            }
            (State::Open { since, until: before, .. }, &BreakerNews::Open { until, failed_probes, ref found, .. }) => {
                let until = at_most(until, failed_probes, found) + self.settings.open / 4;
                if until <= before {
                    return false;
                }
                self.enter(State::Open { since, until, failed_probes });
                self.found = self.found.take().or_else(|| found.clone());
                true
            }
            (State::Open { since, failed_probes, .. }, BreakerNews::Closed) => {
                let successes = RAMP - 1;
                self.enter(State::HalfOpen { since, failed_probes, successes, running: 0, probed_at: now });
                true
            }
            // A probe of this process finds out by itself.
            (State::HalfOpen { .. }, _) | (State::Closed, BreakerNews::Closed) => false,
        }
    }

    /// What it would tell other processes; `None`: it is finding out.
    #[must_use]
    pub fn news(&self) -> Option<BreakerNews> {
        match self.state {
            State::Closed => Some(BreakerNews::Closed),
            State::Open { since, until, failed_probes } => {
                Some(BreakerNews::Open { since, until, failed_probes, found: self.found.clone() })
            }
            State::HalfOpen { .. } => None,
        }
    }

    /// A person says that the target works again: a call goes at once, and if it fails, the time open grows from the
    /// beginning.
    pub fn reopen(&mut self, now: Timestamp) {
        match self.state {
            State::Closed => {}
            State::Open { since, until, .. } => {
                self.state = State::Open { since, until: until.min(now), failed_probes: 0 };
            }
            State::HalfOpen { since, successes, running, probed_at, .. } => {
                self.state = State::HalfOpen { since, failed_probes: 0, successes, running, probed_at };
            }
        }
    }

    /// Lets a call go at once, to ask again, if the breaker is open.
    pub fn try_again(&mut self, now: Timestamp) {
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(now);
        }
    }

    /// The present state.
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
                let given_up = probed_at + self.settings.open.saturating_mul(2).clamp(LEAST_PROBE, PROBE_LIMIT);
                let full = running >= probes_allowed(successes) && now < given_up;
                full.then(|| (since, given_up.min(now + PROBE_POLL)))
            }
        }
    }

    /// Lets a call go, or says when to ask again.
    ///
    /// # Errors
    /// As [`peek`](Self::peek): since when it has not been closed, and the earliest instant at which asking again makes
    /// sense, which is later than `now`.
    pub fn admit(&mut self, now: Timestamp) -> Result<Passage, (Timestamp, Timestamp)> {
        if let Some(shut) = self.peek(now) {
            return Err(shut);
        }
        match &mut self.state {
            State::Closed => {}
            &mut State::Open { since, failed_probes, .. } => {
                self.enter(State::HalfOpen { since, failed_probes, successes: 0, running: 1, probed_at: now });
            }
            State::HalfOpen { successes, running, probed_at, .. } => {
                // A probe beyond the allowed number goes only in place of one that was given up.
                *running = running.saturating_add(1).min(probes_allowed(*successes));
                *probed_at = now;
            }
        }
        Ok(Passage { era: self.era })
    }

    /// Records the result of a call of this job.
    pub fn record_of(&mut self, job: JobId, permit: Passage, sign: Sign, now: Timestamp) {
        let counts = sign == Sign::Bad && self.state == State::Closed && permit.era == self.era;
        let is_repeated = counts && self.blamed_by.replace(job) == Some(job);
        self.record(permit, if is_repeated { Sign::Neutral } else { sign }, now);
    }

    /// Records a result. A call that was not made after all is [`Sign::Neutral`].
    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one result")]
    pub fn record(&mut self, permit: Passage, sign: Sign, now: Timestamp) {
        if permit.era != self.era {
            return;
        }
        match self.state {
            State::Closed => self.record_closed(sign, now),
            // Nothing is admitted in this state, so no permit is of its era.
            State::Open { .. } => {}
            State::HalfOpen { since, failed_probes, successes, running, probed_at } => match sign {
                Sign::Bad => self.open(since, failed_probes.saturating_add(1), now),
                Sign::Good if successes.saturating_add(1) >= RAMP => {
                    self.disproved = Some(since);
                    self.close();
                }
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
                    self.trip(Evidence::of_failures(failures, calls), now);
                }
            }
        }
    }

    fn open(&mut self, since: Timestamp, failed_probes: u32, now: Timestamp) {
        let until = now + self.settings.rest(failed_probes);
        self.enter(State::Open { since, until, failed_probes });
    }

    fn close(&mut self) {
        self.enter(State::Closed);
    }

    fn enter(&mut self, state: State) {
        if state == State::Closed {
            self.found = None;
        }
        self.state = state;
        self.era = self.era.wrapping_add(1);
        self.window = Window::default();
    }
}

/// How many probes may run at once after this many successes: 1, 2, 4.
fn probes_allowed(successes: u32) -> u32 {
    1_u32.checked_shl(successes.min(RAMP)).unwrap_or(1)
}

#[cfg(test)]
mod tests;
