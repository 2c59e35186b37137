//! A job: its data, its place, and its ending.

use super::dollars::Dollars;
use super::waits::{in_words, in_words_with, wakes_at};
use crate::domain::counted::counted;
use crate::domain::job::JobState;
use crate::domain::pause::FixedWait;
use crate::store::job::{Ended, JobRecord, Place};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

/// The parts of a job that are shown only on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// The prompt.
    pub request: bool,
    /// The answer.
    pub response: bool,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobView {
    pub job: i64,
    /// The state, in the words that users know.
    pub state: JobState,
    pub route: String,
    /// The project that pays for it.
    pub project: String,
    pub batch: Option<String>,
    /// The user's own name for it.
    pub custom_id: Option<String>,
    /// A higher number goes first.
    pub priority: i16,
    /// The earliest time to start it.
    pub run_at: Option<DateTime<Utc>>,
    /// No call is made for it after this time.
    pub deadline: Option<DateTime<Utc>>,
    /// Its own limit on attempts.
    pub max_attempts: Option<i16>,
    pub enqueued_by: String,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// The user's own notes on it.
    pub metadata: Option<Value>,
    /// Its current place.
    pub place: PlaceView,
    /// The reason that was given for the pause that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<String>,
    /// The prompt, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// The answer, if it was asked for and the job has ended; null when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Value>,
}

/// The place of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "where", rename_all = "snake_case")]
pub enum PlaceView {
    /// In the queue.
    Ready {
        /// Workers that died with it.
        crashes: i16,
        /// The known reason why it is not taken.
        waits_for: Option<String>,
        /// When the first job of its route may be taken, where a worker knows it.
        #[serde(skip_serializing_if = "Option::is_none")]
        opens_at: Option<DateTime<Utc>>,
    },
    /// It waits.
    Parked {
        /// When it wakes; `None`: not by itself.
        until: Option<DateTime<Utc>>,
        /// The reason why it waits.
        waits_for: String,
    },
    /// In a worker's hands.
    Running {
        worker: i64,
        /// Its machine; unknown when its row is gone.
        host: Option<String>,
        /// Its process id.
        pid: Option<i32>,
        /// Since when it has been there.
        since: DateTime<Utc>,
        /// Whether that worker is alive; if not, another one is about to get the job.
        worker_alive: bool,
    },
    Ended(EndView),
    /// In no queue, so that no worker takes it.
    Nowhere {
        waits_for: &'static str,
    },
}

/// How a job ended, beside its state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndView {
    pub finished_at: DateTime<Utc>,
    /// The target that gave the answer.
    pub answered_by: Option<String>,
    /// The target that was asked last, if no answer came of it.
    pub last_asked: Option<String>,
    /// Whether the answer was repaired.
    pub repaired: bool,
    /// The earlier job whose answer it has: the cache of its route had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_from: Option<i64>,
    pub error_class: Option<String>,
    /// The reason of its failure.
    pub error: Option<String>,
    /// All attempts together; `None`: the price of one is unknown.
    pub cost: Option<Dollars>,
    /// Money that may have been spent beside that.
    pub uncertain_cost: Dollars,
}

impl EndView {
    fn of(ended: Ended) -> Self {
        Self {
            finished_at: ended.at,
            answered_by: ended.answered_by().map(str::to_owned),
            last_asked: ended.last_asked().map(str::to_owned),
            repaired: ended.repaired,
            answered_from: ended.answered_from,
            error_class: ended.error_class,
            error: ended.error,
            cost: ended.cost.map(Dollars),
            uncertain_cost: Dollars(ended.uncertain),
        }
    }
}

impl JobView {
    /// A job as it was read, with the bodies that were asked for.
    #[must_use]
    pub fn of(job: JobRecord, bodies: Bodies) -> Self {
        let state = job.place.state();
        let mut response = None;
        let place = match job.place {
            Place::Ready { crashes, waits_for, opens } => PlaceView::Ready { crashes, waits_for, opens_at: opens },
            Place::Parked { until, reason } => PlaceView::Parked { until: wakes_at(&reason, until), waits_for: reason },
            Place::Running { worker, host, pid, since, alive } => {
                PlaceView::Running { worker, host, pid, since, worker_alive: alive }
            }
            Place::Ended(mut ended) => {
                response = bodies.response.then(|| ended.response.take().unwrap_or(Value::Null));
                PlaceView::Ended(EndView::of(*ended))
            }
            Place::Nowhere => PlaceView::Nowhere { waits_for: FixedWait::NoQueue.as_str() },
        };
        Self {
            job: job.id,
            state,
            route: job.route,
            project: job.project,
            batch: job.batch,
            custom_id: job.custom_id,
            priority: job.priority,
            run_at: job.run_at,
            deadline: job.deadline,
            max_attempts: job.max_attempts,
            enqueued_by: job.enqueued_by,
            created_at: job.created_at,
            metadata: job.metadata,
            place,
            pause_reason: job.pause_reason,
            request: bodies.request.then_some(job.request),
            response,
        }
    }

    /// Its place, in words.
    #[must_use]
    pub fn whereabouts(&self) -> String {
        let at = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        match &self.place {
            PlaceView::Ready { crashes, waits_for, opens_at } => {
                let mut words = "queued".to_owned();
                if *crashes > 0 {
                    let _ = write!(words, " again, after {} died with it", counted(crashes, "worker", "workers"));
                }
                if let Some(reason) = waits_for {
                    let _ = write!(words, ": {}", in_words_with(reason, self.pause_reason.as_deref()));
                }
                if let Some(opens_at) = opens_at {
                    let _ = write!(words, "; not tried before {}", at(opens_at));
                }
                words
            }
            PlaceView::Parked { waits_for, .. } if waits_for == FixedWait::Paused.as_str() => {
                "paused, until it is resumed".to_owned()
            }
            PlaceView::Parked { until: Some(until), waits_for } if waits_for == FixedWait::Scheduled.as_str() => {
                format!("scheduled for {}", at(until))
            }
            PlaceView::Parked { until: Some(until), waits_for } if !waits_for.ends_with(" paused") => {
                format!("parked until {}: {}", at(until), in_words(waits_for))
            }
            PlaceView::Parked { waits_for, .. } => {
                format!("queued: {}", in_words_with(waits_for, self.pause_reason.as_deref()))
            }
            PlaceView::Running { worker, host, pid, since, worker_alive } => {
                let process = match (host, pid) {
                    (Some(host), Some(pid)) => format!(" ({host}, process {pid})"),
                    _ => String::new(),
                };
                let dead = if *worker_alive { "" } else { ", which is dead: another worker takes over in a moment" };
                format!("with worker {worker}{process} since {}{dead}", at(since))
            }
            PlaceView::Ended(end) => format!("{} at {}", self.state, at(&end.finished_at)),
            PlaceView::Nowhere { waits_for } => in_words(waits_for).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    fn whereabouts(place: Place) -> String {
        JobView::of(job(place), Bodies::default()).whereabouts()
    }

    #[test]
    fn whereabouts_read_as_a_sentence() {
        let at: DateTime<Utc> = "2026-01-31T08:00:00Z".parse().unwrap();
        let parked = |reason: &str| Place::Parked { until: at, reason: reason.to_owned() };
        assert_eq!(
            whereabouts(parked("openai/gpt-4o-mini: rate_limit")),
            "parked until 2026-01-31T08:00:00Z: openai/gpt-4o-mini: its limit is used up"
        );
        assert_eq!(whereabouts(parked("scheduled")), "scheduled for 2026-01-31T08:00:00Z");
        assert_eq!(whereabouts(parked("batch paused")), "queued: its batch is paused");
        assert_eq!(whereabouts(parked("paused")), "paused, until it is resumed");
        let held = |place: Place| {
            let job = JobRecord { pause_reason: Some("stop-loss: 1 of 1 job failed".to_owned()), ..job(place) };
            JobView::of(job, Bodies::default()).whereabouts()
        };
        let words = "queued: its batch is paused (stop-loss: 1 of 1 job failed)";
        assert_eq!(held(parked("batch paused")), words);
        let ready = Place::Ready { crashes: 0, waits_for: Some("batch paused".to_owned()), opens: None };
        assert_eq!(held(ready), words);
        let ready =
            |waits_for: Option<&str>| Place::Ready { crashes: 0, waits_for: waits_for.map(str::to_owned), opens: None };
        assert_eq!(whereabouts(ready(None)), "queued");
        let shut = Place::Ready {
            crashes: 0,
            waits_for: Some("a/m: breaker_open (within patience)".to_owned()),
            opens: Some(at),
        };
        assert_eq!(
            whereabouts(shut),
            "queued: a/m: its breaker is open after failures (within patience); not tried before \
             2026-01-31T08:00:00Z"
        );
        assert_eq!(whereabouts(ready(Some("route paused"))), "queued: its route is paused");
        let running =
            Place::Running { worker: 7, host: Some("db1".to_owned()), pid: Some(42), since: at, alive: false };
        assert_eq!(
            whereabouts(running),
            "with worker 7 (db1, process 42) since 2026-01-31T08:00:00Z, which is dead: another worker takes over in \
             a moment"
        );
        assert!(whereabouts(Place::Nowhere).starts_with("in no queue, so no worker finds it"));
    }
}
