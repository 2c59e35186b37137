//! The tick of a schedule that makes a report: the rows are read, and written to a file or sent to a receiver.
//!
//! A file is written before the tick is noted, under another name first, so that it is whole or not there. Where the
//! process dies in between, the tick is still due, and the file is written once more. A message is put into the queue of
//! its receiver by the commit that notes the tick.

use super::tick::{Fault, TickEnd, TickOrder};
use crate::domain::Timestamp;
use crate::domain::alert::{AlertMessage, ReportMade};
use crate::domain::counted::counted;
use crate::domain::report::ReportBy;
use crate::domain::schedule::Schedule;
use crate::domain::schedule::report::{ReportForm, ReportGoesTo, TickReport};
use crate::store::report::{Filter, Moment};
use crate::store::schedule::TakenReport;
use crate::store::{Store, StoreError};
use crate::view::fields::{in_columns, write_csv};
use crate::view::report::asked::{self, ReportRead};
use crate::view::table::Table;
use chrono::{DateTime, Utc};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

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
    let made = match read(store, report, order.note.at).await {
        Ok(read) => deliver(schedule, report, order, read).await,
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

/// The rows of the report for a tick.
async fn read(store: &Store, report: &TickReport, at: Timestamp) -> Result<ReportRead, StoreError> {
    let mut filter = Filter {
        since: report.begins(at).and_then(moment),
        until: moment(at),
        batch: report.batch.clone(),
        project: report.project.clone(),
        route: report.route.clone(),
        login: report.login.clone(),
        failures_only: false,
        shown: None,
    };
    if report.by.contains(&ReportBy::Batch) && filter.batch.is_none() {
        asked::show_latest(store, &mut filter, asked::MOST_BATCHES).await?;
    }
    asked::read(store, report.kind, &asked::dimensions(report.kind, &report.by), filter).await
}

fn moment(at: Timestamp) -> Option<Moment> {
    DateTime::<Utc>::from_timestamp_millis(at.0).map(Moment::At)
}

/// Writes the file, or makes the message; and says in words what was reported.
async fn deliver(
    schedule: &Schedule,
    report: &TickReport,
    order: &TickOrder,
    read: ReportRead,
) -> Result<(String, Option<AlertMessage>), Fault> {
    let rows = counted(read.table.rows.len(), "row", "rows");
    match &report.to {
        ReportGoesTo::Receiver(name) => {
            let message = message(schedule, report, order, &read).map_err(|error| Fault::lasting(error.to_string()))?;
            Ok((format!("{rows} to the receiver {name}"), Some(message)))
        }
        ReportGoesTo::File { folder, name, form, .. } => {
            let name = schedule
                .file_of(name, order.note.at, order.note.by_hand)
                .map_err(|_| Fault::lasting("file: names what a tick does not have"))?;
            let (path, form) = (folder.join(name), *form);
            let told = format!("{rows} to {}", path.display());
            let shown = path.display().to_string();
            let written = tokio::task::spawn_blocking(move || write_whole(&path, form, &read.table)).await;
            match written.map_err(|_| io::Error::other("the thread that writes it has broken off")) {
                Ok(Ok(())) => Ok((told, None)),
                Ok(Err(error)) | Err(error) => Err(Fault::passing(format!("file: {shown}: {error}"))),
            }
        }
    }
}

/// Writes a file so that readers see it whole, or as it was before.
fn write_whole(path: &Path, form: ReportForm, table: &Table) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    // Two processes never write it at a time, as one of them has the turn.
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_part(&part, form, table).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written?;
    // So that the name, too, outlives a loss of power.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn write_part(part: &Path, form: ReportForm, table: &Table) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(part)?);
    match form {
        ReportForm::Csv => write_csv(table, &mut file)?,
        ReportForm::Json => {
            serde_json::to_writer_pretty(&mut file, table)?;
            file.write_all(b"\n")?;
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// What a receiver is sent.
fn message(
    schedule: &Schedule,
    report: &TickReport,
    order: &TickOrder,
    read: &ReportRead,
) -> serde_json::Result<AlertMessage> {
    let all = read.table.rows.len();
    let first = Table { rows: read.table.rows.iter().take(MOST_ROWS).cloned().collect(), ..read.table.clone() };
    let made = ReportMade {
        schedule: &schedule.name,
        tick: order.note.at,
        kind: report.kind.as_str(),
        from: report.begins(order.note.at),
        summary: format!("report {} of schedule {}: {}", report.kind.as_str(), schedule.name, counted(all, "row", "rows")),
        rows: serde_json::to_value(&first)?,
        more_rows: all.saturating_sub(MOST_ROWS),
        unpriced: read.unpriced,
        lines: in_columns(&read.table, MOST_LINES, LONGEST_LINE),
    };
    Ok(AlertMessage::of_report(&made, report.source.as_deref(), order.now))
}
