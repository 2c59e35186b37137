//! How well one target answers the jobs of one route, as a state machine over their answers.
//!
//! A target that answers slowly or badly works, so it is not shut as a failing one is: jobs pass it over only while
//! another rung of their route may be called ([`decide`](super::decide::decide)), and are sent there all the same where
//! there is none. What is bad is for a route's rules and requests to say, so each route judges for itself: one with a
//! schema that no model can meet moves no other route's jobs.
//!
//! Three shares are watched over a rolling window, once it has `min_calls` answers: those that took too long, those
//! that were rejected, and the output tokens that went into rejected answers. For those that took too long the window
//! is as long as `min_calls` slow answers one after the other take, where that is longer. From then on it is a
//! [breaker](super::breaker): after a time that grows one real job asks again, and answers that are well again let more
//! and more jobs through until it is closed.
//!
//! Guarantees:
//! - It opens only on an answer that was slow or rejected, with at least `min_calls` answers in the window.
//! - Bad answers of one job in a row count once, and where `min_calls` is above 1 no job alone opens it, however many
//!   tokens its answer had.
//! - One project alone does not open it while others get good answers: the share has to be reached without the project
//!   that has most of the bad answers, too.
//! - Answers to jobs that were sent there all the same count for nothing.
//! - A call that was given up before its answer came was slow if it had taken that long by then; else it says nothing.
//! - Memory is bounded: twice ten slices, each with a few groups of projects and the kinds of its faults.

mod answers;

use super::breaker::{Breaker, BreakerSettings, Evidence, Indicator, Passage, Sign, State};
use super::news::BreakerNews;
use super::shut::{Reason, Shut};
use super::{JobId, SoftFailure, Timestamp};
use answers::{Answers, Tally};
use std::time::Duration;

/// When a target is passed over for the quality of its answers, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualitySettings {
    /// With fewer answers than this in the window it does not judge.
    pub min_calls: u32,
    /// How far back answers count.
    pub window: Duration,
    /// How long a target is passed over the first time; doubles with each probe that finds it no better.
    pub open: Duration,
    /// An answer that takes longer is slow; `None`: none is.
    pub slow: Option<Duration>,
    /// It is passed over at this share of slow answers, 0 to 1, …
    pub slow_rate: f64,
    /// … at this share of rejected answers, …
    pub soft_failure_rate: f64,
    /// … or at this share of output tokens in rejected answers.
    pub wasted_token_rate: f64,
}

/// One answer of a target.
#[derive(Clone, Copy, Debug)]
pub struct SeenAnswer {
    /// The job that it was for.
    pub job: JobId,
    /// A number by which jobs of the same project are known.
    pub project: u64,
    /// Why it was rejected; `None`: it was accepted.
    pub rejected: Option<SoftFailure>,
    /// How long it took; `None`: that is not held against the target.
    pub took: Option<Duration>,
    /// Tokens of output.
    pub output_tokens: u64,
}

impl SeenAnswer {
    /// The fault of its quality. That a rung is not sure enough of an answer is none: the answer may be used yet.
    fn fault(&self) -> Option<SoftFailure> {
        self.rejected.filter(|kind| *kind != SoftFailure::LowConfidence)
    }
}

/// Why and until when a target that works is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// Why, since when and until when.
    pub shut: Shut,
    /// What was counted; `None`: not known.
    pub found: Option<Evidence>,
}

/// How well one target answers the jobs of one route. See the [module](self) for its guarantees.
#[derive(Clone, Debug)]
pub struct Quality {
    settings: QualitySettings,
    breaker: Breaker,
    answers: Answers,
    /// The answers whose time counts.
    times: Answers,
    /// The job whose bad answer was counted last.
    blamed_by: Option<JobId>,
}

impl QualitySettings {
    /// The times of the breaker beneath. It counts nothing itself.
    fn breaker(&self) -> BreakerSettings {
        let Self { min_calls, window, open, .. } = *self;
        BreakerSettings { min_calls, failure_rate: 1.0, window, open }
    }

    /// Whether these settings can have a target passed over for this. How many answers wasted tokens came from is not
    /// known, and of answers that were slow by a shorter time it is not known whether they were slow by this one.
    fn opens_for(&self, found: &Evidence) -> bool {
        let is_known_to_be_slow = || {
            let counted = Duration::from_millis(found.slow_ms.unwrap_or(u64::MAX));
            self.slow.is_some_and(|slow| slow <= counted)
        };
        let (rate, is_enough) = match found.indicator {
            Indicator::SlowAnswers if !is_known_to_be_slow() => return false,
            Indicator::SlowAnswers => (self.slow_rate, found.of >= self.min_calls.into()),
            Indicator::SoftFailures => (self.soft_failure_rate, found.of >= self.min_calls.into()),
            Indicator::WastedTokens => (self.wasted_token_rate, true),
            Indicator::Failures => return true,
        };
        #[expect(clippy::cast_precision_loss, reason = "a share of it")]
        let reaches = found.bad as f64 >= rate * found.of as f64;
        is_enough && reaches
    }

    fn is_slow(&self, answer: &SeenAnswer) -> bool {
        answer.took.is_some_and(|took| self.takes_too_long(took))
    }

    fn takes_too_long(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took > slow)
    }

    /// How far back slow answers count: a target whose answers take minutes has few of them in a window of a minute.
    #[must_use]
    pub fn slow_window(&self) -> Duration {
        let slow = self.slow.unwrap_or_default();
        self.window.max(slow.saturating_mul(self.min_calls))
    }
}

impl Quality {
    /// A target of which no answer has been seen.
    #[must_use]
    pub fn new(settings: QualitySettings) -> Self {
        let (answers, times) = Default::default();
        Self { settings, breaker: Breaker::new(settings.breaker()), answers, times, blamed_by: None }
    }

    /// Uses these settings from now on. A target that they would not pass over is called again, and of a time that is
    /// longer than they give no more is left than that.
    pub fn retune(&mut self, settings: QualitySettings) {
        if settings.window != self.settings.window {
            self.answers = Answers::default();
        }
        if settings.slow_window() != self.settings.slow_window() {
            self.times = Answers::default();
        }
        self.breaker.retune(settings.breaker());
        self.settings = settings;
        if self.breaker.found().is_some_and(|found| !settings.opens_for(found)) {
            self.breaker.let_go();
        }
    }

    /// Why the target is passed over now; `None`: it is not.
    #[must_use]
    pub fn weakness(&self, now: Timestamp) -> Option<Weakness> {
        let (since, until) = self.breaker.peek(now)?;
        Some(self.weak(since, until))
    }

    /// The same for people: also while single jobs find out whether it is well again.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Option<Weakness> {
        match self.breaker.state() {
            State::Closed => None,
            State::Open { since, until, .. } => Some(self.weak(since, until)),
            State::HalfOpen { since, .. } => Some(self.weak(since, now)),
        }
    }

    fn weak(&self, since: Timestamp, until: Timestamp) -> Weakness {
        let found = self.breaker.found().cloned();
        let is_slow = found.as_ref().is_some_and(|found| found.indicator == Indicator::SlowAnswers);
        let reason = if is_slow { Reason::Slow } else { Reason::Quality };
        Weakness { shut: Shut { reason, since, until }, found }
    }

    /// Lets a job go that has another rung, or says when to ask again.
    ///
    /// # Errors
    /// As of [`Breaker::admit`].
    pub fn admit(&mut self, now: Timestamp) -> Result<Passage, (Timestamp, Timestamp)> {
        self.breaker.admit(now)
    }

    /// A call that was let go has brought no answer.
    pub fn give_back(&mut self, permit: Passage, now: Timestamp) {
        self.breaker.record(permit, Sign::Neutral, now);
    }

    /// Records the answer to a call that was let go. Returns whether the target is passed over or called again because
    /// of it.
    pub fn record(&mut self, permit: Passage, answer: &SeenAnswer, now: Timestamp) -> bool {
        if !self.breaker.learns_from(&permit) {
            return false;
        }
        let before = self.breaker.state();
        match before {
            State::Closed => self.count(answer, now),
            // No permit is of this state.
            State::Open { .. } => {}
            State::HalfOpen { .. } => {
                let sign = self.sign_of(answer);
                self.breaker.record(permit, sign, now);
            }
        }
        let is_closed = |state: State| state == State::Closed;
        is_closed(before) != is_closed(self.breaker.state())
    }

    /// Records that a call which was let go was given up after this time, before its answer came. Returns the same.
    pub fn record_given_up(
        &mut self,
        permit: Passage,
        (job, project): (JobId, u64),
        took: Option<Duration>,
        now: Timestamp,
    ) -> bool {
        let is_slow = took.is_some_and(|took| self.settings.takes_too_long(took));
        if !is_slow || !self.breaker.learns_from(&permit) {
            self.give_back(permit, now);
            return false;
        }
        let was_closed = self.breaker.state() == State::Closed;
        if was_closed {
            if self.blamed_by.replace(job) != Some(job) {
                self.time(project, true, now);
                self.judge_bad(now);
            }
        } else {
            let is_slow = self.breaker.found().is_some_and(|found| found.indicator == Indicator::SlowAnswers);
            self.breaker.record(permit, if is_slow { Sign::Bad } else { Sign::Neutral }, now);
        }
        was_closed && self.breaker.state() != State::Closed
    }

    /// What the answer to a probe says of that for which the target is passed over.
    fn sign_of(&self, answer: &SeenAnswer) -> Sign {
        let is_bad = match self.breaker.found().map(|found| found.indicator) {
            Some(Indicator::SlowAnswers) => self.settings.is_slow(answer),
            _ => answer.fault().is_some(),
        };
        if is_bad { Sign::Bad } else { Sign::Good }
    }

    fn count(&mut self, answer: &SeenAnswer, now: Timestamp) {
        let (fault, is_slow) = (answer.fault(), self.settings.is_slow(answer));
        let is_bad = fault.is_some() || is_slow;
        if is_bad && self.blamed_by.replace(answer.job) == Some(answer.job) {
            return;
        }
        let (tokens, is_rejected) = (answer.output_tokens, fault.is_some());
        let tally = Tally {
            answers: 1,
            slow: 0,
            rejected: is_rejected.into(),
            tokens,
            wasted: if is_rejected { tokens } else { 0 },
            largest: if is_rejected { tokens } else { 0 },
        };
        self.answers.count(answer.project, &tally, fault, now, self.settings.window);
        if answer.took.is_some() && self.settings.slow.is_some() {
            self.time(answer.project, is_slow, now);
        }
        if is_bad {
            self.judge_bad(now);
        }
    }

    fn time(&mut self, project: u64, is_slow: bool, now: Timestamp) {
        let tally = Tally { answers: 1, slow: is_slow.into(), ..Tally::default() };
        self.times.count(project, &tally, None, now, self.settings.slow_window());
    }

    /// Opens if too much speaks against the target, now that something bad was counted.
    fn judge_bad(&mut self, now: Timestamp) {
        if let Some(found) = self.judge() {
            self.breaker.trip(found, now);
            (self.answers, self.times) = Default::default();
        }
    }

    /// The answers that count for this.
    fn answers_for(&self, indicator: Indicator) -> &Answers {
        if indicator == Indicator::SlowAnswers { &self.times } else { &self.answers }
    }

    /// What speaks against the target, if anything does.
    fn judge(&self) -> Option<Evidence> {
        let indicators = [Indicator::SoftFailures, Indicator::WastedTokens, Indicator::SlowAnswers];
        let (indicator, all) = indicators.into_iter().find_map(|indicator| {
            let all = self.answers_for(indicator).totals();
            let is_enough = all.answers >= self.settings.min_calls.max(1);
            (is_enough && self.speaks(indicator, &all)).then_some((indicator, all))
        })?;
        let (bad, of) = match indicator {
            Indicator::WastedTokens => (all.wasted, all.tokens),
            Indicator::SlowAnswers => (all.slow.into(), all.answers.into()),
            Indicator::SoftFailures | Indicator::Failures => (all.rejected.into(), all.answers.into()),
        };
        let is_slow = indicator == Indicator::SlowAnswers;
        let slow_ms = self.settings.slow.filter(|_| is_slow).and_then(|slow| u64::try_from(slow.as_millis()).ok());
        let kinds = if is_slow { Vec::new() } else { self.answers.kinds() };
        Some(Evidence { indicator, bad, of, slow_ms, kinds })
    }

    fn speaks(&self, indicator: Indicator, all: &Tally) -> bool {
        let rate = match indicator {
            Indicator::SlowAnswers => self.settings.slow_rate,
            Indicator::SoftFailures => self.settings.soft_failure_rate,
            Indicator::WastedTokens => self.settings.wasted_token_rate,
            Indicator::Failures => return false,
        };
        let bad_answers = if indicator == Indicator::SlowAnswers { all.slow } else { all.rejected };
        let jobs = if self.settings.min_calls > 1 { 2 } else { 1 };
        if bad_answers < jobs {
            return false;
        }
        let reaches = |tally: &Tally| tally.reaches(indicator, rate, self.settings.min_calls > 1);
        let others = || self.answers_for(indicator).without_worst(indicator);
        reaches(all) && others().is_none_or(|others| reaches(&others))
    }

    /// Takes in what another process has found out. Returns whether it changes anything. A process that has seen enough
    /// answers of its own goes by these, and none hears of what its own settings do not pass a target over for.
    pub fn hear(&mut self, news: &BreakerNews, now: Timestamp) -> bool {
        let found = match news {
            BreakerNews::Open { found, .. } => found.as_ref(),
            BreakerNews::Closed => None,
        };
        if found.is_some_and(|found| !self.settings.opens_for(found)) {
            return false;
        }
        let own = match found.map(|found| found.indicator) {
            Some(Indicator::SlowAnswers) => self.times.totals_at(now, self.settings.slow_window()),
            _ => self.answers.totals_at(now, self.settings.window),
        };
        let own = own.answers;
        let knows_better = self.breaker.state() == State::Closed && own >= self.settings.min_calls;
        !knows_better && self.breaker.hear(news, now)
    }

    /// What it would tell other processes; `None`: it is finding out.
    #[must_use]
    pub fn news(&self) -> Option<BreakerNews> {
        self.breaker.news()
    }

    /// A person says that the target is well again: a job goes at once, and the time grows from the beginning.
    pub fn reopen(&mut self, now: Timestamp) {
        self.breaker.reopen(now);
    }

    /// Lets a job go at once, to ask again, if the target is passed over.
    pub fn try_again(&mut self, now: Timestamp) {
        self.breaker.try_again(now);
    }
}

#[cfg(test)]
mod tests;
