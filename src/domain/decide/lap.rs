//! One pass along the rungs of a route.

use crate::domain::{Attempt, ErrorClass, Job, Patience, Remedy, Route, Strategy, Timestamp, backoff};

/// One pass along the rungs of a route.
pub(super) struct Lap {
    /// Nothing is called before this instant.
    pub(super) begins: Timestamp,
    /// When the pause ends that a passed rung has to keep after its last failure, if it is tried all the same.
    pub(super) pause_ends: Timestamp,
    /// The failure that moved the job on, by rung in listed order.
    passed: Vec<Option<ErrorClass>>,
    /// Failures in this lap, by rung in listed order.
    failures: Vec<u32>,
}

impl Lap {
    /// The lap that the job is in, if the rungs `taking_part` make it up. A job that has an answer goes along the rungs
    /// above it in one lap.
    pub(super) fn of(job: &Job, route: &Route, history: &[Attempt], taking_part: &[usize]) -> Self {
        let mut lap = Self {
            begins: Timestamp::MIN,
            pause_ends: Timestamp::MIN,
            passed: vec![None; route.rungs.len()],
            failures: vec![0; route.rungs.len()],
        };
        let mut counted = 0_u32;
        let has_answer = history.iter().any(|attempt| attempt.unsure.is_some());
        for attempt in history {
            let Some(class) = attempt.outcome.class() else { continue };
            counted = counted.saturating_add(u32::from(attempt.uses_up_an_attempt()));
            let tries = match attempt.remedy() {
                // The next rung may be faster than a retry.
                Some(Remedy::RetrySame { .. }) if matches!(route.strategy, Strategy::Race(_)) => 0,
                Some(Remedy::RetrySame { tries }) => tries,
                // It takes the place of the retry, so it is counted; and it is never one too many.
                Some(Remedy::Reask) => u32::MAX,
                _ => continue,
            };
            let Some(rung) = attempt.rung else { continue };
            lap.pause_ends = attempt.ended_at + backoff::delay(job.id, counted);
            let enough = lap.count_failure(rung) > tries || attempt.is_final || asks_for_too_long(route, attempt);
            if enough && route.falls_back_on(class) {
                lap.pass(rung, class);
                if !has_answer && taking_part.iter().all(|&rung| lap.passed(rung).is_some()) {
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

    /// The failure that moved the job on from this rung in this lap.
    pub(super) fn passed(&self, rung: usize) -> Option<ErrorClass> {
        self.passed.get(rung).copied().flatten()
    }
}

/// Whether a failing provider asks to be left alone for longer than any backoff, and for longer than the job has
/// patience.
fn asks_for_too_long(route: &Route, attempt: &Attempt) -> bool {
    let asked = attempt.retry_at.map(|until| attempt.ended_at.until(until));
    match route.patience {
        Patience::Forever => false,
        Patience::For(patience) => asked.is_some_and(|asked| asked > patience.max(backoff::LONGEST)),
    }
}
