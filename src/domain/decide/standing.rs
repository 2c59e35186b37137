//! What a job's history says of each rung.

use super::Closed;
use crate::domain::{Attempt, ErrorClass, Job, Patience, Remedy, Route, Timestamp, backoff};

/// A rung as the attempts of one job have left it.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Why it will never be called again for this job.
    pub(super) excluded: Option<ErrorClass>,
    /// It is not called again before this instant, because it failed.
    pub(super) backing_off_until: Timestamp,
    /// What the provider asked this job to wait for.
    pub(super) hold: Option<Hold>,
    /// The class of its last failure.
    pub(super) last_failure: Option<ErrorClass>,
    /// Failures after which it was to be tried again.
    failures: u32,
    /// Since when the attempts have met nothing but a closed gate, and how many they are.
    waiting: Option<(Timestamp, u32)>,
    /// Attempts that ended because of their key.
    keys_refused: u32,
    /// Those of them that no other call met: the key may well be good for others.
    doubts: u32,
}

/// So many refused keys are followed by the next key at once. That many keys no provider has: whatever is wrong then, a
/// pause does no harm.
const KEYS_WITHOUT_A_PAUSE: u32 = 30;

/// So often a request is refused as if by its key, although the key stays in service: then it is this request's own
/// matter.
const MOST_DOUBTS: u32 = 3;

/// Something that keeps a rung closed for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) reason: Closed,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// The standing of every rung, in listed order.
pub(super) fn of(job: &Job, route: &Route, history: &[Attempt]) -> Vec<Standing> {
    let fresh = Standing {
        excluded: None,
        backing_off_until: Timestamp::MIN,
        hold: None,
        last_failure: None,
        failures: 0,
        waiting: None,
        keys_refused: 0,
        doubts: 0,
    };
    let mut standings = vec![fresh; route.rungs.len()];
    for attempt in history {
        let Some(rung) = attempt.rung.filter(|&rung| rung < standings.len()) else { continue };
        if let Some(standing) = standings.get_mut(rung) {
            standing.learn(job, attempt);
        }
        if attempt.remedy() == Some(Remedy::LargerWindow) {
            exclude_windows_up_to(route, rung, &mut standings);
        }
    }
    standings
}

impl Standing {
    fn learn(&mut self, job: &Job, attempt: &Attempt) {
        let (Some(class), Some(remedy)) = (attempt.outcome.class(), attempt.remedy()) else { return };
        self.last_failure = Some(class);
        match remedy {
            Remedy::WaitForGate(Closed::Auth | Closed::QuotaExhausted) if attempt.retry_at.is_none() => {
                self.lose_a_key(job, attempt);
            }
            Remedy::WaitForGate(reason) => self.wait(job, attempt, reason),
            Remedy::RetrySame { .. } => {
                let is_doubt = matches!(class, ErrorClass::Auth | ErrorClass::QuotaExhausted);
                self.doubts = self.doubts.saturating_add(u32::from(is_doubt));
                if self.doubts >= MOST_DOUBTS {
                    self.excluded = Some(class);
                }
                (self.hold, self.waiting) = (None, None);
                self.failures = self.failures.saturating_add(1);
                self.back_off(attempt.ended_at + backoff::delay(job.id, self.failures));
                self.back_off(attempt.retry_at.unwrap_or(Timestamp::MIN));
            }
            Remedy::NextRung | Remedy::LargerWindow | Remedy::End => self.excluded = Some(class),
            // What was refused is not what is sent next.
            Remedy::Mend => {}
        }
    }

    /// A key was refused, and the gate has taken it out of service: where it is open all the same, it is so with
    /// another key, and the job goes on with that at once. When the refused one is good again is no matter of this
    /// job's.
    fn lose_a_key(&mut self, job: &Job, attempt: &Attempt) {
        self.keys_refused = self.keys_refused.saturating_add(1);
        if let Some(times @ 1..) = self.keys_refused.checked_sub(KEYS_WITHOUT_A_PAUSE) {
            self.back_off(attempt.ended_at + backoff::delay(job.id, times));
        }
    }

    /// Waits for as long as the provider asked. Where it named no time the gate is what knows; backing off keeps a gate
    /// that is not closed from being hammered.
    fn wait(&mut self, job: &Job, attempt: &Attempt, reason: Closed) {
        let (since, times) = self.waiting.unwrap_or((attempt.ended_at, 0));
        let times = times.saturating_add(1);
        self.waiting = Some((since, times));
        match attempt.retry_at {
            Some(until) => self.hold = Some(Hold { reason, since, until }),
            None => self.back_off(attempt.ended_at + backoff::delay(job.id, times)),
        }
    }

    fn back_off(&mut self, until: Timestamp) {
        self.backing_off_until = self.backing_off_until.max(until);
    }
}

/// A prompt that did not fit here does not fit a window that is no larger.
fn exclude_windows_up_to(route: &Route, rung: usize, standings: &mut [Standing]) {
    let window = |index: usize| route.rungs.get(index).and_then(|rung| rung.model.capabilities.context_window);
    let Some(too_small) = window(rung) else { return };
    for (index, standing) in standings.iter_mut().enumerate() {
        if window(index).is_some_and(|window| window <= too_small) {
            standing.excluded.get_or_insert(ErrorClass::ContextLength);
        }
    }
}

/// One pass along the rungs of a route.
pub(super) struct Lap {
    /// Nothing is called before this instant.
    pub(super) begins: Timestamp,
    /// When the pause after the last failure ends that a rung has to keep which was passed and is tried all the same.
    pub(super) pause_ends: Timestamp,
    /// What moved the job on, by rung in listed order.
    passed: Vec<Option<ErrorClass>>,
    /// Failures in this lap, by rung in listed order.
    failures: Vec<u32>,
}

impl Lap {
    /// The lap that the job is in, if the rungs `taking_part` make it up.
    pub(super) fn of(job: &Job, route: &Route, history: &[Attempt], taking_part: &[usize]) -> Self {
        let mut lap = Self {
            begins: Timestamp::MIN,
            pause_ends: Timestamp::MIN,
            passed: vec![None; route.rungs.len()],
            failures: vec![0; route.rungs.len()],
        };
        let mut counted = 0_u32;
        for attempt in history {
            let Some(class) = attempt.outcome.class() else { continue };
            counted = counted.saturating_add(u32::from(attempt.uses_up_an_attempt()));
            let (Some(Remedy::RetrySame { tries }), Some(rung)) = (attempt.remedy(), attempt.rung) else {
                continue;
            };
            lap.pause_ends = attempt.ended_at + backoff::delay(job.id, counted);
            let enough = lap.count_failure(rung) > tries || attempt.is_final || asks_for_too_long(route, attempt);
            if enough && route.falls_back_on(class) {
                lap.pass(rung, class);
                if taking_part.iter().all(|&rung| lap.passed(rung).is_some()) {
                    lap.begin_again();
                }
            }
        }
        lap
    }

    fn count_failure(&mut self, rung: usize) -> u32 {
        self.failures.get_mut(rung).map_or(0, |failures| {
            *failures = failures.saturating_add(1);
            *failures
        })
    }

    fn pass(&mut self, rung: usize, class: ErrorClass) {
        if let Some(passed) = self.passed.get_mut(rung) {
            *passed = Some(class);
        }
    }

    fn begin_again(&mut self) {
        self.begins = self.pause_ends;
        self.passed.fill(None);
        self.failures.fill(0);
    }

    /// What moved the job on from this rung in this lap.
    pub(super) fn passed(&self, rung: usize) -> Option<ErrorClass> {
        self.passed.get(rung).copied().flatten()
    }
}

/// Whether a failing provider wants to be left alone for longer than any backoff and than the job has patience for.
fn asks_for_too_long(route: &Route, attempt: &Attempt) -> bool {
    let asked = attempt.retry_at.map(|until| attempt.ended_at.until(until));
    match route.patience {
        Patience::Forever => false,
        Patience::For(patience) => asked.is_some_and(|asked| asked > patience.max(backoff::LONGEST)),
    }
}
