//! One tick of a schedule: its jobs are read and enqueued, together with the row that says so.

use super::super::ahead::read_ahead;
use super::lines::Lines;
use super::report::try_report;
use crate::domain::schedule::{RowQuestion, Schedule, TickSource, retry_at};
use crate::domain::template::RequestTemplate;
use crate::domain::{Route, Timestamp, bounds};
use crate::input::{Along, Asking, InputError, InputJob, InputSource, JobReader, Jobs, ReadLimits, Reading, read_rows};
use crate::store::enqueue::{BulkEnqueue, BulkOptions, Enqueued, NewJob};
use crate::store::schedule::{TakenTick, TickNote};
use crate::store::{Store, StoreError};
use std::io::{BufReader, Cursor};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Lots of rows of a statement that wait to be read, at most.
const ROWS_AHEAD: usize = 64;

/// How often a tick that takes long is told of.
const TELL_EVERY: Duration = Duration::from_mins(2);

/// Finds a route by its name.
pub type FindRoute<'a> = dyn Fn(&str) -> Option<Arc<Route>> + Sync + 'a;

/// A tick that is to be run.
#[derive(Clone, Debug)]
pub struct TickOrder {
    pub note: TickNote,
    /// How often it has failed before.
    pub failures: usize,
    /// Whether it is run although jobs of the last tick have not ended.
    pub anyway: bool,
    /// Whether it is tried again by itself where that may help.
    pub retries: bool,
    /// The time.
    pub now: Timestamp,
}

/// The outcome of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TickEnd {
    /// Its jobs are in the queue.
    Done {
        batch: String,
        jobs: u64,
        /// The number under which they can be cancelled.
        enqueue: Option<i64>,
    },
    /// Its report was made: so many rows, and where they went.
    Reported(String),
    /// Jobs of the last tick have not ended, as these words say; nothing is noted.
    Overlaps(String),
    /// Nothing was enqueued.
    Failed {
        reason: String,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// Another process deals with the schedule.
    Busy,
    /// The tick is dealt with already, or its schedule is paused by now.
    Over,
}

/// Why a tick enqueues or reports nothing.
pub(super) enum Fault {
    /// The database is away: the tick is still due.
    Store(StoreError),
    Tick {
        reason: String,
        /// Whether it may pass by itself.
        passes: bool,
    },
}

impl Fault {
    /// It stays until an operator mends it.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self::Tick { reason: reason.into(), passes: false }
    }

    /// It may pass by itself.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Tick { reason: reason.into(), passes: true }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { Self::Store(error) } else { Self::lasting(error.to_string()) }
    }
}

/// Runs a tick: all its jobs are enqueued, or none, or its report is made; and once however many processes try.
///
/// # Errors
/// The database is away; the tick is as it was.
pub async fn run_tick(
    store: &Store,
    find: &FindRoute<'_>,
    schedule: &Schedule,
    order: TickOrder,
) -> Result<TickEnd, StoreError> {
    let trying = async {
        match &schedule.source {
            TickSource::Report(report) => try_report(store, schedule, report, &order).await,
            TickSource::File(_) | TickSource::Sql(_) | TickSource::Request(_) => {
                try_tick(store, find, schedule, &order).await
            }
        }
    };
    let tried = told_while_it_lasts(schedule, trying).await;
    let fault = match tried {
        Ok(end) => return Ok(end),
        Err(fault) => fault,
    };
    let (reason, passes) = match fault {
        Fault::Store(error) => return Err(error),
        Fault::Tick { reason, passes } => (in_keys(reason), passes),
    };
    let failures = order.failures + 1;
    let next = schedule.next(order.now);
    let retry_at = retry_at(failures, order.now, next).filter(|_| passes && order.retries);
    store.fail_tick(&order.note, failures, retry_at, &reason).await?;
    Ok(TickEnd::Failed { reason, retry_at })
}

/// Logs that a tick is still under way, once in a while: a pipe may wait for ever for its other end.
async fn told_while_it_lasts<T>(schedule: &Schedule, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(TELL_EVERY, &mut work).await {
            return done;
        }
        tracing::warn!(
            schedule = schedule.name,
            source = schedule.source.kind(),
            "a tick is still under way, and the schedule waits for it"
        );
    }
}

async fn try_tick(
    store: &Store,
    find: &FindRoute<'_>,
    schedule: &Schedule,
    order: &TickOrder,
) -> Result<TickEnd, Fault> {
    let TickNote { at, by_hand, .. } = order.note;
    let batch = schedule.batch_of(at, by_hand).map_err(|_| Fault::lasting("batch: names what a tick does not have"))?;
    bounds::check("batch", &batch).map_err(|reason| Fault::lasting(format!("batch: {reason}")))?;
    let options = BulkOptions {
        route: schedule.route.clone(),
        project: schedule.project.clone(),
        batch: Some(batch.clone()),
        priority: schedule.priority,
        run_at: None,
        deadline: schedule.deadline_of(at),
        max_attempts: schedule.max_attempts,
    };
    let (mut bulk, last) = match store.take_tick(&order.note, options).await? {
        TakenTick::Busy => return Ok(TickEnd::Busy),
        TakenTick::Over => return Ok(TickEnd::Over),
        TakenTick::Open { bulk, last } => (bulk, last),
    };
    let overlap = last.and_then(|(batch, left)| schedule.overlaps(&batch, left)).filter(|_| !order.anyway);
    if let Some(reason) = overlap {
        bulk.rollback().await?;
        return Ok(TickEnd::Overlaps(reason));
    }
    let filled = fill(store, find, schedule, &order.note, &batch, &mut bulk).await;
    if let Err(fault) = filled {
        // So that the turn is free when the caller goes on.
        let _ = bulk.rollback().await;
        return Err(fault);
    }
    let Enqueued { jobs, number, .. } = bulk.commit_tick(order.note.clone(), schedule.stop_loss).await?;
    Ok(TickEnd::Done { batch, jobs, enqueue: number })
}

/// Reads the jobs and pushes them.
async fn fill(
    store: &Store,
    find: &FindRoute<'_>,
    schedule: &Schedule,
    note: &TickNote,
    batch: &str,
    bulk: &mut BulkEnqueue,
) -> Result<(), Fault> {
    if find(&schedule.route).is_none() {
        return Err(Fault::lasting(format!("there is no route {:?}", schedule.route)));
    }
    let reading = reading(find, schedule, batch);
    match &schedule.source {
        TickSource::Request(request) => {
            let line = Cursor::new(request.clone().into_bytes());
            let jobs = JobReader::new(line, ReadLimits::default()).completed_by(reading.completion);
            push("request", Box::new(jobs), bulk).await
        }
        TickSource::File(file) => {
            let jobs = open(file, reading).await?;
            push(&file.display().to_string(), jobs, bulk).await
        }
        TickSource::Sql(statement) => {
            let (send, lines) = mpsc::channel(ROWS_AHEAD);
            let rows = BufReader::new(Lines::new(lines));
            let jobs = read_rows(rows, reading).map_err(|reason| Fault::lasting(format!("sql: {reason}")))?;
            let select = store.select_rows(statement, schedule.sql_timeout, note, send);
            let (selected, pushed) = tokio::join!(select, push("row", jobs, bulk));
            // A statement that breaks off looks like the end of its rows.
            if let Err(error) = selected {
                let reason = error.of_statement();
                return Err(if error.is_cut_short() || error.is_ended_session() {
                    // A statement that was ended by its time or by a person is not to come back within a second.
                    Fault::Tick { reason, passes: true }
                } else if error.is_transient() && !error.is_read_only() {
                    // The tick is as it was.
                    Fault::Store(error)
                } else {
                    Fault::Tick { reason, passes: false }
                });
            }
            pushed
        }
        // It has no jobs.
        TickSource::Report(_) => Ok(()),
    }
}

/// How the jobs of a tick are read.
fn reading(find: &FindRoute<'_>, schedule: &Schedule, batch: &str) -> Reading {
    let find = |name: &str| find(name);
    let along = Along { find: Some(&find), route: &schedule.route, project: &schedule.project, batch: Some(batch) };
    let asking = asking(&schedule.question, along.names_of_route());
    Reading { asking, completion: along.completion(), ..Reading::default() }
}

/// The question about rows.
fn asking(question: &RowQuestion, route_names: Option<Vec<String>>) -> Asking {
    let RowQuestion { prompt, system, id_column, keep } = question.clone();
    let request = prompt.map(|prompt| (RequestTemplate::of_prompt(prompt, system.clone()), "prompt"));
    Asking { system: system.filter(|_| request.is_none()), request, id_column, keep, route_names }
}

/// Opens a file, which may lie on a slow disk.
async fn open(file: &Path, reading: Reading) -> Result<Jobs, Fault> {
    let (name, path) = (file.display(), file.to_owned());
    let (send, opened) = oneshot::channel();
    // On a thread of its own, which keeps no worker from ending: a pipe may wait for ever for its other end.
    let open = move || {
        // A device never ends.
        let is_readable = |found: std::fs::Metadata| found.is_file() || found.file_type().is_fifo();
        let opened = if std::fs::metadata(&path).is_ok_and(|found| !is_readable(found)) {
            Ok(None)
        } else {
            InputSource::File(path).read(reading).map(|opened| Some(opened.jobs))
        };
        let _ = send.send(opened);
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(open);
    thread.map_err(|error| Fault::passing(format!("{name}: {error}")))?;
    match opened.await {
        Ok(Ok(Some(jobs))) => Ok(jobs),
        Ok(Ok(None)) => Err(Fault::lasting(format!("{name}: this is a device or a folder, and no file"))),
        // It may come, or be written anew.
        Ok(Err(reason)) => Err(Fault::passing(format!("{name}: {reason}"))),
        Err(_) => Err(Fault::lasting(format!("{name}: opening it broke off"))),
    }
}

/// Pushes jobs as they are read, on a thread of their own. `name`: of what they are read from.
async fn push(name: &str, jobs: Jobs, bulk: &mut BulkEnqueue) -> Result<(), Fault> {
    let (mut lots, is_whole) = read_ahead(jobs, None).map_err(|error| Fault::passing(error.to_string()))?;
    while let Some(lot) = lots.recv().await {
        for job in lot {
            let job = job.map_err(|error| match error {
                InputError::Line(fault) => Fault::lasting(format!("{name}:{fault}")),
                error @ InputError::Read { .. } => Fault::passing(format!("{name}:{error}")),
            })?;
            let InputJob { line, custom_id, metadata, body, .. } = job;
            let job = NewJob {
                custom_id: custom_id.as_deref(),
                idempotency_key: None,
                metadata: metadata.as_deref(),
                request: &body,
            };
            bulk.push(&job).await.map_err(|error| match error {
                StoreError::Refused { reason, .. } => Fault::lasting(format!("{name}: {reason} (before line {line})")),
                error => Fault::from(error),
            })?;
        }
    }
    if is_whole.load(Ordering::Acquire) { Ok(()) } else { Err(Fault::passing(format!("{name}: reading it broke off"))) }
}

/// The same message with the keys of the configuration in place of the options of `sluice enqueue`, and without numbers
/// of the operating system.
fn in_keys(reason: String) -> String {
    const OPTIONS: [(&str, &str); 6] = [
        ("--id-column", "id_column"),
        ("--keep", "keep"),
        ("--system", "system"),
        ("--prompt or --template", "prompt or the route's template"),
        ("--prompt '", "prompt '"),
        ("--prompt", "prompt"),
    ];
    let said = OPTIONS.iter().fold(reason, |said, (option, key)| said.replace(option, key));
    // The operating system's number says nothing more.
    match said.split_once(" (os error ") {
        Some((before, after)) => {
            format!(
                "{before}{}",
                after.trim_start_matches(|digit: char| digit.is_ascii_digit()).trim_start_matches(')')
            )
        }
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_tables_name_keys_and_not_options() {
        let said = "x.csv: has no column `prompt`: say with --prompt what is asked of each row, such as --prompt 'A'";
        assert_eq!(
            in_keys(said.to_owned()),
            "x.csv: has no column `prompt`: say with prompt what is asked of each row, such as prompt 'A'"
        );
        assert_eq!(in_keys("x: No such file (os error 2); more".to_owned()), "x: No such file; more");
        assert!(!in_keys("--system, --id-column and --keep are for tables".to_owned()).contains("--"));
    }
}
