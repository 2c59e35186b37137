//! The tick of a schedule that makes a report: the rows are read, and written to a file or sent to a receiver.
//!
//! A file is written before the tick is noted, so a tick that is noted has its file. Where the process dies in between,
//! the tick is still due, and the file is written once more. A message is put into the queue of its receiver by the
//! commit that notes the tick.

use super::tick::{Fault, TickEnd, TickOrder};
use crate::domain::Timestamp;
use crate::domain::alert::{AlertMessage, ReportMade};
use crate::domain::counted::counted;
use crate::domain::report::ReportBy;
use crate::domain::schedule::Schedule;
use crate::domain::schedule::report::{ReportForm, ReportGoesTo, ReportPeriod, TickReport};
use crate::part_file::{self, AS_UMASK_SAYS, BadTarget, folder_of, write_in_full};
use crate::store::report::{Filter, Moment};
use crate::store::schedule::TakenReport;
use crate::store::{Store, StoreError};
use crate::view::fields::{in_columns, write_csv};
use crate::view::report::WORDS_OF_PROVIDERS;
use crate::view::report::asked::{self, ReportRead};
use crate::view::table::Table;
use chrono::{DateTime, Utc};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

/// A report of a schedule has no more rows than this: the worker that makes it has them all in memory.
const MOST_ROWS_AT_ALL: usize = 100_000;

/// Writing a file takes no longer than this: the turn of its schedule is held meanwhile.
const LONGEST_WRITE: Duration = Duration::from_mins(5);

const TOO_SLOW: &str =
    "writing it took longer than 5 minutes: look whether the disk there hangs, or choose another folder";

/// A message has no more rows than this.
const MOST_ROWS: usize = 500;

/// For people it has no more lines than this, …
const MOST_LINES: usize = 30;

/// … and no longer ones.
const LONGEST_LINE: usize = 160;

/// Makes the report of a tick, once however many processes try.
pub(super) async fn try_report(
    store: &Store,
    schedule: &Schedule,
    report: &TickReport,
    order: &TickOrder,
) -> Result<TickEnd, Fault> {
    let turn = match store.take_report(&order.note).await? {
        TakenReport::Busy => return Ok(TickEnd::Busy),
        TakenReport::Over => return Ok(TickEnd::Over),
        TakenReport::Open(turn) => turn,
    };
    let period = report.period(order.note.at, order.note.by_hand);
    let made = match read(store, report, period).await {
        Ok(read) => deliver(schedule, report, order, period, read).await,
        Err(error) if error.is_of_reading() => Err(Fault::passing(unread(&error))),
        Err(error) => Err(error.into()),
    };
    let (reported, message) = match made {
        Ok(made) => made,
        Err(fault) => {
            // So that the turn is free when the caller goes on.
            let _ = turn.rollback().await;
            return Err(fault);
        }
    };
    let to = match &report.to {
        ReportGoesTo::Receiver(name) => Some(name.as_str()),
        ReportGoesTo::File { .. } => None,
    };
    turn.commit(&order.note, &reported, to.zip(message.as_ref())).await?;
    Ok(TickEnd::Reported(reported))
}

/// The rows of the report of this time.
async fn read(store: &Store, report: &TickReport, period: ReportPeriod) -> Result<ReportRead, StoreError> {
    let mut filter = Filter {
        since: period.from.and_then(moment),
        until: moment(period.until),
        batch: report.batch.clone(),
        project: report.project.clone(),
        route: report.route.clone(),
        login: report.login.clone(),
        failures_only: false,
        shown: None,
    };
    let is_by_batch = report.by.contains(&ReportBy::Batch) && filter.batch.is_none();
    let most = if is_by_batch { asked::MOST_BATCHES } else { 0 };
    let said = asked::show_latest(store, &mut filter, most).await?;
    let read = asked::read(store, report.kind, &asked::dimensions(report.kind, &report.by), filter).await?;
    Ok(ReportRead { note: read.note.or(said), ..read })
}

/// Why the report was not read, and what helps where it is too much.
fn unread(error: &StoreError) -> String {
    let remedy =
        if error.is_cut_short() { "; a report of less (`since`, fewer dimensions) is read sooner" } else { "" };
    format!("the report could not be read: {error}{remedy}")
}

fn moment(at: Timestamp) -> Option<Moment> {
    DateTime::<Utc>::from_timestamp_millis(at.0).map(Moment::At)
}

/// Writes the file, or makes the message; and says in words what was reported.
async fn deliver(
    schedule: &Schedule,
    report: &TickReport,
    order: &TickOrder,
    period: ReportPeriod,
    read: ReportRead,
) -> Result<(String, Option<AlertMessage>), Fault> {
    if read.table.rows.len() > MOST_ROWS_AT_ALL {
        return Err(Fault::lasting(too_much(read.table.rows.len())));
    }
    let (rows, doubt) = (rows_of(&read), doubt(&read));
    match &report.to {
        ReportGoesTo::Receiver(name) => {
            let message =
                message(schedule, report, order, period, read).map_err(|error| Fault::lasting(error.to_string()))?;
            Ok((format!("{rows} to the receiver {name}{doubt}"), Some(message)))
        }
        ReportGoesTo::File { folder, name, form, .. } => {
            let name = schedule
                .file_of(name, order.note.at, order.note.by_hand)
                .map_err(|_| Fault::lasting("report.file: names what a tick does not have"))?;
            let path = folder.join(name);
            let note = read.note.map(|note| format!("; {note}")).unwrap_or_default();
            write(path.clone(), *form, read.table).await.map_err(|fault| unwritten(&path, fault))?;
            Ok((format!("{rows} to {}{doubt}{note}", path.display()), None))
        }
    }
}

fn rows_of(read: &ReportRead) -> String {
    match read.table.rows.len() {
        0 => "no rows".to_owned(),
        rows => counted(rows, "row", "rows"),
    }
}

fn too_much(rows: usize) -> String {
    format!(
        "report: it has {rows} rows, and a report of a schedule has {MOST_ROWS_AT_ALL} at most: name `since` or fewer \
         dimensions (`by`)"
    )
}

/// What is not in the sums.
fn doubt(read: &ReportRead) -> String {
    match read.unpriced {
        0 => String::new(),
        1 => "; 1 attempt without a known price is not in the sums".to_owned(),
        unpriced => format!("; {unpriced} attempts without a known price are not in the sums"),
    }
}

async fn write(path: PathBuf, form: ReportForm, table: Table) -> Result<(), BadTarget> {
    let write = move |is_wanted: &dyn Fn() -> bool| {
        write_in_full(&path, AS_UMASK_SAYS, is_wanted, |file| write_rows(file, form, &table))
    };
    on_a_thread(LONGEST_WRITE, write).await
}

/// Writes on a thread of its own, which keeps no worker from ending: a disk may hang for ever. The thread is told
/// whether its file is still wanted: when the time is up or the tick is given up, another process may have written it.
async fn on_a_thread(
    limit: Duration,
    write: impl FnOnce(&dyn Fn() -> bool) -> Result<(), BadTarget> + Send + 'static,
) -> Result<(), BadTarget> {
    let (send, written) = oneshot::channel();
    let write = move || {
        let done = write(&|| !send.is_closed());
        let _ = send.send(done);
    };
    std::thread::Builder::new().name("report".to_owned()).spawn(write)?;
    // The end of the wait drops the receiver, which closes the channel.
    match tokio::time::timeout(limit, written).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(io::Error::other("writing it broke off").into()),
        Err(_) => Err(io::Error::other(TOO_SLOW).into()),
    }
}

fn write_rows(file: &mut dyn Write, form: ReportForm, table: &Table) -> io::Result<()> {
    match form {
        ReportForm::Csv => write_csv(table, file),
        ReportForm::Json => {
            serde_json::to_writer_pretty(&mut *file, table)?;
            file.write_all(b"\n")
        }
    }
}

/// Why the file was not written. All of it may pass: an operator makes room, or a folder is mounted.
fn unwritten(path: &Path, fault: BadTarget) -> Fault {
    let file = path.display();
    Fault::passing(match fault {
        BadTarget::Refused(reason) => format!("report.file: {reason}"),
        BadTarget::Io(error) => match error.kind() {
            ErrorKind::NotFound => format!("report.file: there is no folder {} for {file}", folder_of(path).display()),
            ErrorKind::ReadOnlyFilesystem => format!(
                "report.file: {file}: the disk there is read-only to this process; a service of systemd writes only \
                 where its unit says (StateDirectory=, ReadWritePaths=)"
            ),
            kind => match part_file::hindrance(kind) {
                Some(what) => format!("report.file: {file}: {what}"),
                None => format!("report.file: {file}: {error}"),
            },
        },
    })
}

/// What a receiver is sent.
fn message(
    schedule: &Schedule,
    report: &TickReport,
    order: &TickOrder,
    period: ReportPeriod,
    read: ReportRead,
) -> serde_json::Result<AlertMessage> {
    let kind = report.kind.as_str();
    let summary = format!("report {kind} of schedule {}: {}{}", schedule.name, rows_of(&read), doubt(&read));
    let ReportRead { mut table, unpriced, note } = read;
    // What providers say may quote a prompt, and a receiver is often a chat. Files have it, as the command does.
    table.leave_out(WORDS_OF_PROVIDERS);
    let lines = in_columns(&table, MOST_LINES, LONGEST_LINE);
    let more_rows = table.rows.len().saturating_sub(MOST_ROWS);
    table.rows.truncate(MOST_ROWS);
    let made = ReportMade {
        schedule: &schedule.name,
        tick: order.note.at,
        kind,
        period,
        summary,
        rows: serde_json::to_value(&table)?,
        more_rows,
        unpriced,
        note,
        lines,
    };
    Ok(AlertMessage::of_report(&made, report.source.as_deref(), order.now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StopLoss;
    use crate::domain::report::ReportKind;
    use crate::domain::schedule::{CatchUp, CronLine, Overlap, RowQuestion, TickSource, USUAL_BATCH, Zone};
    use crate::domain::template::Template;
    use crate::store::schedule::TickNote;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_file_that_a_disk_held_up_for_too_long_does_not_replace_what_came_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let ((go, gate), (tell, told)) = (mpsc::channel::<()>(), mpsc::channel());
        let target = path.clone();
        let hangs = move |is_wanted: &dyn Fn() -> bool| {
            let done = write_in_full(&target, AS_UMASK_SAYS, is_wanted, |file| {
                gate.recv().unwrap();
                file.write_all(b"late")
            });
            tell.send(done.is_ok()).unwrap();
            Ok(())
        };
        let fault = on_a_thread(Duration::ZERO, hangs).await.map_err(|fault| unwritten(&path, fault));
        let Err(Fault::Tick { reason, passes: true }) = fault else { panic!("a fault that passes") };
        assert!(reason.contains("a.csv: writing it took longer than 5 minutes"), "{reason}");
        let mut table = Table::new(["class"]);
        table.row(["timeout".into()]);
        write(path.clone(), ReportForm::Csv, table).await.unwrap();
        go.send(()).unwrap();
        assert!(!told.recv().unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "class\ntimeout\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    fn schedule(report: &TickReport) -> Schedule {
        Schedule {
            name: "failed".to_owned(),
            line: CronLine::parse("@daily").unwrap(),
            zone: Zone::default(),
            is_enabled: true,
            overlap: Overlap::Skip,
            catch_up: CatchUp::Last,
            catch_up_within: Duration::from_hours(1),
            catch_up_limit: 1,
            source: TickSource::Report(Box::new(report.clone())),
            question: RowQuestion::default(),
            sql_timeout: Duration::from_mins(5),
            route: "default".to_owned(),
            project: "default".to_owned(),
            batch: Template::parse(USUAL_BATCH).unwrap(),
            priority: 0,
            deadline: None,
            max_attempts: None,
            stop_loss: StopLoss::default(),
        }
    }

    #[tokio::test]
    async fn what_is_noted_of_a_file_has_its_notes_and_too_many_rows_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let report = TickReport {
            kind: ReportKind::Cost,
            by: vec![ReportBy::Batch],
            since: None,
            project: None,
            route: None,
            batch: None,
            login: None,
            to: ReportGoesTo::File {
                folder: dir.path().to_owned(),
                name: Template::parse("a.csv").unwrap(),
                written: "a.csv".to_owned(),
                form: ReportForm::Csv,
            },
            source: None,
        };
        let now = Timestamp(1_800_000_000_000);
        let note = TickNote { schedule: "costs".to_owned(), at: now, by_hand: false, worker: None };
        let order = TickOrder { note, failures: 0, anyway: false, retries: true, now };
        let delivered = async |rows: usize| {
            let mut table = Table::new(["batch"]);
            for _ in 0..rows {
                table.row(["nightly".into()]);
            }
            let read = ReportRead { table, unpriced: 2, note: Some("all others are in one row".to_owned()) };
            deliver(&schedule(&report), &report, &order, report.period(now, false), read).await
        };
        let Err(Fault::Tick { reason, passes: false }) = delivered(MOST_ROWS_AT_ALL + 1).await else {
            panic!("a fault that lasts")
        };
        assert!(reason.contains("100001 rows") && reason.contains("name `since` or fewer dimensions"), "{reason}");
        assert!(!dir.path().join("a.csv").exists());
        let Ok((reported, None)) = delivered(1).await else { panic!("a file and no message") };
        let path = dir.path().join("a.csv");
        let doubt = "; 2 attempts without a known price are not in the sums; all others are in one row";
        assert_eq!(reported, format!("1 row to {}{doubt}", path.display()));
    }

    #[test]
    fn a_message_has_a_bound_and_the_words_of_no_provider_and_says_what_is_not_in_the_sums() {
        let mut table = Table::new(["class", WORDS_OF_PROVIDERS]);
        for _ in 0..MOST_ROWS + 2 {
            table.row(["invalid_request".into(), "cannot parse: a secret prompt".into()]);
        }
        let report = TickReport {
            kind: ReportKind::Failures,
            by: Vec::new(),
            since: None,
            project: None,
            route: None,
            batch: None,
            login: None,
            to: ReportGoesTo::Receiver("ops".to_owned()),
            source: None,
        };
        let now = Timestamp(1_800_000_000_000);
        let note = TickNote { schedule: "failed".to_owned(), at: now, by_hand: false, worker: None };
        let order = TickOrder { note, failures: 0, anyway: false, retries: true, now };
        let read = ReportRead { table, unpriced: 1, note: None };
        let made = message(&schedule(&report), &report, &order, report.period(now, false), read).unwrap();
        let data = &made.value()["data"];
        assert_eq!(
            data["summary"],
            "report failures of schedule failed: 502 rows; 1 attempt without a known price is not in the sums"
        );
        assert_eq!((data["rows"].as_array().unwrap().len(), data["more_rows"].as_u64()), (MOST_ROWS, Some(2)));
        assert!(data["lines"].as_str().unwrap().ends_with("\nand 472 rows more"), "{data}");
        assert!(!made.value().to_string().contains("secret"), "{data}");
        assert!(made.value().to_string().len() < 1 << 20);
    }
}
