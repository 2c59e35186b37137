//! The breakers of targets: what calls show, and what game days play.

use super::target::TargetState;
use super::{Gate, Permit, cancel};
use crate::domain::breaker::{self, RehearsingBreaker};
use crate::domain::game_day::GameDay;
use crate::domain::{ErrorClass, JobId, Timestamp};
use std::sync::atomic::Ordering;

impl Gate {
    /// A call failed on purpose, and was not made: nothing learns of it but the breaker of the game day, and what the
    /// call held is given back.
    pub fn rehearse(&self, target: &TargetState, permit: Permit, day: &GameDay, job: JobId, now: Timestamp) {
        target.record.under_way.fetch_sub(1, Ordering::Relaxed);
        let Permit { holds, key, breaker, asks_again } = permit;
        drop(key);
        if asks_again {
            target.shut.lock().tried(false);
        }
        target.rehearse(job, breaker, day, now);
        cancel(holds);
        self.changed.notify_waiters();
    }

    /// Ends what game days hold back that are not among these, or not on now.
    pub fn keep_rehearsals(&self, days: &[GameDay], now: Timestamp) {
        let mut has_opened = false;
        for target in self.targets.values() {
            let on = days.iter().filter(|day| day.is_on(now) && day.covers(&target.target));
            has_opened |= target.record.breaker.lock().keep_rehearsal(on.map(|day| day.until).max(), now);
        }
        if has_opened {
            self.has_changed();
        }
    }
}

/// The state of the breaker of the game day that is on; closed, where none is.
pub(super) fn rehearsed_state(breakers: &RehearsingBreaker, now: Timestamp) -> breaker::State {
    breakers.rehearsed(now).map_or(breaker::State::Closed, |rehearsed| rehearsed.state)
}

impl TargetState {
    /// Records what a call shows of the target's health, and logs when its breaker opens or closes.
    pub(super) fn record(
        &self,
        job: JobId,
        permit: breaker::DoublePassage,
        sign: breaker::Sign,
        class: Option<ErrorClass>,
        now: Timestamp,
    ) {
        let mut breakers = self.record.breaker.lock();
        let (before, rehearsed) = (breakers.own().state(), rehearsed_state(&breakers, now));
        breakers.record_of(job, permit, sign, now);
        let breaker = breakers.own();
        match (before, breaker.state()) {
            (breaker::State::Closed, breaker::State::Open { until, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                open_seconds = now.until(until).as_secs(),
                "too many failures{}: the breaker is open",
                breaker.found().map_or_else(String::new, |found| format!(" ({found})"))
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Open { until, failed_probes, .. }) => tracing::warn!(
                target.name = %self.target,
                last = class.map(ErrorClass::as_str),
                failed_probes,
                open_seconds = now.until(until).as_secs(),
                "a probe has failed: the breaker is open again"
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Closed) => {
                tracing::info!(target.name = %self.target, "the target answers again; its breaker is closed");
            }
            _ => {}
        }
        self.tell_of_rehearsal(rehearsed, &breakers, now);
    }

    /// Records that a call failed on purpose.
    pub(super) fn rehearse(&self, job: JobId, permit: breaker::DoublePassage, day: &GameDay, now: Timestamp) {
        let mut breakers = self.record.breaker.lock();
        let before = rehearsed_state(&breakers, now);
        breakers.rehearse(job, permit, &day.name, day.until, now);
        self.tell_of_rehearsal(before, &breakers, now);
    }

    /// Logs when the breaker of a game day opens or closes.
    fn tell_of_rehearsal(&self, before: breaker::State, breakers: &RehearsingBreaker, now: Timestamp) {
        let Some(breaker::Rehearsed { day, state, found }) = breakers.rehearsed(now) else { return };
        match (before, state) {
            (breaker::State::Closed, breaker::State::Open { until, .. }) => tracing::warn!(
                target.name = %self.target,
                game_day = day,
                open_seconds = now.until(until).as_secs(),
                "a game day has failed too many calls{}: calls are held back as by a breaker",
                found.map_or_else(String::new, |found| format!(" ({found})"))
            ),
            (breaker::State::HalfOpen { .. }, breaker::State::Closed) => {
                tracing::info!(target.name = %self.target, game_day = day, "calls are no longer held back");
            }
            _ => {}
        }
    }

    pub(super) fn breaker_name(&self, now: Timestamp) -> &'static str {
        self.record.breaker.lock().state(now).name()
    }
}
