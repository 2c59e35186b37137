//! What the attempts of a job say of each rung.

use crate::domain::shut::{Reason, Shut};
use crate::domain::{Attempt, Bearing, ErrorClass, Job, Remedy, Route, Timestamp, backoff};

/// A rung as the attempts of one job have left it.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// Why it will never be called again for this job.
    pub(super) excluded: Option<ErrorClass>,
    /// It is not called again before this instant, because it failed.
    pub(super) backing_off_until: Timestamp,
    /// The wait that the provider asked of this job.
    pub(super) asked: Option<Shut>,
    /// The class of its last failure.
    pub(super) last_failure: Option<ErrorClass>,
    /// Failures after which the rung was to be tried again.
    failures: u32,
    /// Since when the attempts have met only a shut gate, and how many such attempts there are.
    waiting: Option<(Timestamp, u32)>,
    /// Attempts that ended because of their key.
    keys_refused: u32,
    /// Refusals of a key or a target that no other call found refused: it may well be good for others.
    doubts: u32,
}

/// After this many refused keys at most, the next key follows at once. No provider has that many keys: a pause does no
/// harm then, regardless of the cause.
const KEYS_WITHOUT_A_PAUSE: u32 = 30;

/// How often a request may be refused as if by its key or its target while that stays in service. After that the
/// refusal concerns only this request.
const MOST_DOUBTS: u32 = 3;

/// What the attempts say of every rung, in listed order.
pub(super) fn of(job: &Job, route: &Route, history: &[Attempt]) -> Vec<Tried> {
    let fresh = Tried {
        excluded: None,
        backing_off_until: Timestamp::MIN,
        asked: None,
        last_failure: None,
        failures: 0,
        waiting: None,
        keys_refused: 0,
        doubts: 0,
    };
    let mut tried = vec![fresh; route.rungs.len()];
    for attempt in history {
        let Some(rung) = attempt.rung.filter(|&rung| rung < tried.len()) else { continue };
        if let Some(tried) = tried.get_mut(rung) {
            tried.learn(job, attempt);
        }
        if attempt.remedy() == Some(Remedy::LargerWindow) {
            exclude_windows_up_to(route, rung, &mut tried);
        }
    }
    tried
}

impl Tried {
    /// The class of its last failure, where it rests because of that, and not because a gate is shut.
    pub(super) fn rests_after(&self) -> Option<ErrorClass> {
        self.last_failure.filter(|class| self.waiting.is_none() && class.facts().key.is_none())
    }

    fn learn(&mut self, job: &Job, attempt: &Attempt) {
        let (Some(class), Some(remedy)) = (attempt.outcome.class(), attempt.remedy()) else { return };
        self.last_failure = Some(class);
        match remedy {
            Remedy::WaitForGate(_) if attempt.blames_the_key() && attempt.retry_at.is_none() => {
                self.lose_a_key(job, attempt);
            }
            Remedy::WaitForGate(reason) => self.wait(job, attempt, reason),
            Remedy::RetrySame { .. } => {
                self.doubts = self.doubts.saturating_add(u32::from(attempt.bearing == Bearing::InDoubt));
                if self.doubts >= MOST_DOUBTS {
                    self.excluded = Some(class);
                }
                (self.asked, self.waiting) = (None, None);
                self.failures = self.failures.saturating_add(1);
                self.back_off(attempt.ended_at + backoff::delay(job.id, self.failures));
                self.back_off(attempt.retry_at.unwrap_or(Timestamp::MIN));
            }
            Remedy::NextRung | Remedy::LargerWindow | Remedy::End => self.excluded = Some(class),
            // The next request differs from this one.
            Remedy::Mend | Remedy::Reask => {}
        }
    }

    /// A key was refused, and the gate has taken it out of service. If the gate is open all the same, it has another
    /// key, and the job goes on with that at once. When the refused key becomes good again does not concern this job.
    fn lose_a_key(&mut self, job: &Job, attempt: &Attempt) {
        self.keys_refused = self.keys_refused.saturating_add(1);
        if let Some(times @ 1..) = self.keys_refused.checked_sub(KEYS_WITHOUT_A_PAUSE) {
            self.back_off(attempt.ended_at + backoff::delay(job.id, times));
        }
    }

    /// Waits for as long as the provider asked. Where it named no time the gate knows the time; backing off keeps this
    /// job from hammering a gate that is not shut.
    fn wait(&mut self, job: &Job, attempt: &Attempt, reason: Reason) {
        let (since, times) = self.waiting.unwrap_or((attempt.ended_at, 0));
        let times = times.saturating_add(1);
        self.waiting = Some((since, times));
        let pause = attempt.ended_at + backoff::delay(job.id, times);
        match (attempt.retry_at, reason) {
            (Some(until), _) => self.asked = Some(Shut { reason, since, until }),
            // One call without capacity does not shut the tier. To this job it is shut all the same: whether it waits
            // is for its patience to decide. A model that is unknown is left for another rung, whatever the gate knows.
            (None, Reason::NoCapacity | Reason::Model) => self.asked = Some(Shut { reason, since, until: pause }),
            (None, _) => self.back_off(pause),
        }
    }

    fn back_off(&mut self, until: Timestamp) {
        self.backing_off_until = self.backing_off_until.max(until);
    }
}

/// A prompt that did not fit here does not fit a window that is no larger.
fn exclude_windows_up_to(route: &Route, rung: usize, tried: &mut [Tried]) {
    let window = |index: usize| route.rungs.get(index).and_then(|rung| rung.model.capabilities.context_window);
    let Some(too_small) = window(rung) else { return };
    for (index, tried) in tried.iter_mut().enumerate() {
        if window(index).is_some_and(|window| window <= too_small) {
            tried.excluded.get_or_insert(ErrorClass::ContextLength);
        }
    }
}
