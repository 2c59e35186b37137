//! A job: its data, its place, and its ending.

use super::dollars::Dollars;
use super::table::{Cell, Layout, Table};
use super::waits::{WhyView, wakes_at};
use crate::domain::counted::counted;
use crate::domain::job::JobState;
use crate::domain::pause::FixedWait;
use crate::store::job::{Ended, JobRecord, Place};
use crate::store::selection::SelectedJob;
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
    /// The job by which another target was asked for the same; its answer is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<i64>,
    /// The job whose shadow it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_of: Option<i64>,
    /// Its current place.
    pub place: PlaceView,
    /// The obstacle to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyView>,
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
        /// Its call that is under way: the target.
        call_target: Option<String>,
        /// When that was sent.
        call_since: Option<DateTime<Utc>>,
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
    /// Whether its rung was not sure enough of the answer, and no surer one came.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub low_confidence: bool,
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
            low_confidence: ended.low_confidence,
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
            Place::Running { worker, host, pid, since, alive, call } => {
                let (call_target, call_since) = call.unzip();
                PlaceView::Running { worker, host, pid, since, worker_alive: alive, call_target, call_since }
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
            shadow: job.shadow,
            shadow_of: job.shadow_of,
            place,
            pause_reason: job.obstacle.as_ref().and_then(|obstacle| obstacle.pause()?.why.clone()),
            why: job.obstacle.map(|obstacle| WhyView::of(&obstacle, Some(job.id))),
            request: bodies.request.then_some(job.request),
            response,
        }
    }

    /// Its place, in words.
    #[must_use]
    pub fn whereabouts(&self) -> String {
        let at = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let why = self.why.as_ref().map(|why| why.words.as_str());
        let mut words = match &self.place {
            PlaceView::Ready { crashes, .. } => {
                let mut words = "queued".to_owned();
                if *crashes > 0 {
                    let _ = write!(words, " again, after {} died with it", counted(crashes, "worker", "workers"));
                }
                if let Some(why) = why {
                    let _ = write!(words, ": {why}");
                }
                words
            }
            PlaceView::Parked { waits_for, .. } if waits_for == FixedWait::Paused.as_str() => {
                let by = why.and_then(|why| why.strip_prefix("the job itself is ")).filter(|by| *by != "paused");
                by.unwrap_or("paused, until it is resumed").to_owned()
            }
            PlaceView::Parked { waits_for, .. } if waits_for == FixedWait::Scheduled.as_str() => {
                why.unwrap_or(waits_for).to_owned()
            }
            PlaceView::Parked { waits_for, .. } => format!("queued: {}", why.unwrap_or(waits_for)),
            PlaceView::Running { worker, host, pid, since, worker_alive, call_target, call_since } => {
                let process = match (host, pid) {
                    (Some(host), Some(pid)) => format!(" ({host}, process {pid})"),
                    _ => String::new(),
                };
                let goes_on = match (why, call_target.as_ref().zip(call_since.as_ref())) {
                    (_, Some((target, sent))) if *worker_alive => {
                        format!("; its call to {target} has been under way since {}", at(sent))
                    }
                    (Some(why), None) if *worker_alive => format!("; no call of it is under way: {why}"),
                    (None, None) if *worker_alive => String::new(),
                    (Some(why), _) => format!(", which is dead, and {why}"),
                    (None, _) => ", which is dead: another worker takes over in a moment".to_owned(),
                };
                format!("with worker {worker}{process} since {}{goes_on}", at(since))
            }
            PlaceView::Ended(end) => format!("{} at {}", self.state, at(&end.finished_at)),
            PlaceView::Nowhere { waits_for } => why.unwrap_or(waits_for).to_owned(),
        };
        if let (Some(deadline), PlaceView::Ready { .. } | PlaceView::Parked { .. }) = (&self.deadline, &self.place) {
            let _ = write!(words, "; if it has no answer by its deadline, {}, it fails", at(deadline));
        }
        words
    }
}

/// Jobs of any batch, and how they stand.
#[must_use]
pub fn jobs_table(jobs: &[SelectedJob]) -> Table {
    let mut table = Table::new([
        "job",
        "state",
        "batch",
        "custom_id",
        "route",
        "project",
        "attempts",
        "cost",
        "error_class",
        "error",
    ])
    .laid_out(Layout {
        when_told: &["batch", "custom_id", "error_class", "error", "attempts", "cost"],
        give_way: &["project", "custom_id", "attempts", "cost", "route", "error_class", "batch"],
        prose: &["error"],
        ..Layout::default()
    });
    for job in jobs {
        table.row([
            Cell::Id(job.job),
            job.state.as_str().into(),
            job.batch.as_deref().into(),
            job.custom_id.as_deref().into(),
            job.route.as_str().into(),
            job.project.as_str().into(),
            job.attempts.map(i64::from).into(),
            match (job.cost, job.attempts) {
                (Some(cost), _) => cost.into(),
                (None, Some(_)) => Cell::UnknownMoney,
                (None, None) => Cell::Empty,
            },
            job.error_class.as_deref().into(),
            job.error.as_deref().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::obstacle::{Circumstances, Obstacle, Pause, Subject};
    use crate::domain::pause::PauseKind;

    /// The words for a job in this place, with the obstacle that its reason names.
    fn whereabouts(place: Place) -> String {
        let (reason, until) = match &place {
            Place::Ready { waits_for, .. } => (waits_for.clone(), None),
            Place::Parked { until, reason } => (Some(reason.clone()), Some(*until)),
            Place::Nowhere => (Some("no queue".to_owned()), None),
            Place::Running { host: None, .. } => (Some("no worker".to_owned()), None),
            _ => (None, None),
        };
        let lost = "stop-loss: 1 of 1 job failed".to_owned();
        let pause = Pause {
            kind: PauseKind::Batch,
            name: "nightly".to_owned(),
            by: Some("worker".to_owned()),
            since: stamp("07:50:00"),
            why: Some(lost),
        };
        let known = Circumstances { now: stamp("07:59:00"), pauses: vec![pause], ..Circumstances::default() };
        let subject = Subject {
            route: "default",
            batch: Some("nightly"),
            rests_until: until.map(|until| Timestamp(until.timestamp_millis())),
            ..Subject::default()
        };
        let obstacle = reason.map(|reason| Box::new(Obstacle::of(&reason, subject, &known)));
        JobView::of(JobRecord { obstacle, ..job(place) }, Bodies::default()).whereabouts()
    }

    fn stamp(clock: &str) -> Timestamp {
        Timestamp(format!("2026-01-31T{clock}Z").parse::<DateTime<Utc>>().unwrap().timestamp_millis())
    }

    #[test]
    fn whereabouts_read_as_a_sentence() {
        let at: DateTime<Utc> = "2026-01-31T08:00:00Z".parse().unwrap();
        let parked = |reason: &str| Place::Parked { until: at, reason: reason.to_owned() };
        assert_eq!(
            whereabouts(parked("openai/gpt-4o-mini: rate_limit")),
            "queued: openai/gpt-4o-mini: its limit is used up until 08:00:00 UTC (in 1m)"
        );
        assert_eq!(whereabouts(parked("scheduled")), "scheduled for 08:00:00 UTC (in 1m)");
        assert_eq!(whereabouts(parked("route paused")), "queued: its route is paused");
        assert_eq!(whereabouts(parked("paused")), "paused, until it is resumed");
        let words = "queued: batch nightly is paused since 07:50:00 UTC (9m ago): stop-loss: 1 of 1 job failed";
        assert_eq!(whereabouts(parked("batch paused")), words);
        let ready =
            |waits_for: Option<&str>| Place::Ready { crashes: 0, waits_for: waits_for.map(str::to_owned), opens: None };
        assert_eq!(whereabouts(ready(Some("batch paused"))), words);
        assert_eq!(whereabouts(ready(None)), "queued");
        assert_eq!(whereabouts(ready(Some("no worker"))), "queued: no worker is running");
        let running = Place::Running {
            worker: 7,
            host: Some("db1".to_owned()),
            pid: Some(42),
            since: at,
            alive: false,
            call: None,
        };
        assert_eq!(
            whereabouts(running),
            "with worker 7 (db1, process 42) since 2026-01-31T08:00:00Z, which is dead: another worker takes over in \
             a moment"
        );
        // Nothing takes over where no worker is.
        let running = Place::Running { worker: 7, host: None, pid: None, since: at, alive: false, call: None };
        let words = "with worker 7 since 2026-01-31T08:00:00Z, which is dead, and no worker is running";
        assert_eq!(whereabouts(running), words);
        let in_hand = |call| Place::Running {
            worker: 7,
            host: Some("db1".to_owned()),
            pid: Some(42),
            since: at,
            alive: true,
            call,
        };
        assert_eq!(
            whereabouts(in_hand(Some(("a/m".to_owned(), at + chrono::TimeDelta::seconds(9))))),
            "with worker 7 (db1, process 42) since 2026-01-31T08:00:00Z; its call to a/m has been under way since \
             2026-01-31T08:00:09Z"
        );
        assert_eq!(whereabouts(in_hand(None)), "with worker 7 (db1, process 42) since 2026-01-31T08:00:00Z");
        assert!(whereabouts(Place::Nowhere).starts_with("in no queue, so no worker finds it"));
    }

    #[test]
    fn a_deadline_is_told_while_the_job_waits() {
        let at: DateTime<Utc> = "2026-01-31T08:00:00Z".parse().unwrap();
        let of = |place| JobView::of(JobRecord { deadline: Some(at), ..job(place) }, Bodies::default()).whereabouts();
        let ready = Place::Ready { crashes: 0, waits_for: None, opens: None };
        assert_eq!(of(ready), "queued; if it has no answer by its deadline, 2026-01-31T08:00:00Z, it fails");
    }
}
