//! `sluice job`: one job, shown, cancelled, tried anew, paused or resumed.

use super::GlobalArgs;
use super::context::Context;
use super::failure::Failure;
use super::output::{Cell, Format, Report};
use super::waits::{NO_QUEUE, in_words};
use crate::domain::JobId;
use crate::exit_code::ExitCode;
use crate::store::Store;
use crate::store::job::{Changed, Ended, JobRecord, Place};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What a paused job waits for, as its row says it. There is an instant beside it that means nothing.
pub(super) const PAUSED: &str = "paused";

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which command.
    #[command(subcommand)]
    pub command: JobCommand,
}

/// What to do with a job.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum JobCommand {
    /// Show a job: where it is, how it ended
    Show {
        /// The job's number
        id: i64,
        /// Show the prompt too
        #[arg(long)]
        show_request: bool,
        /// Show the answer too
        #[arg(long)]
        show_answer: bool,
    },
    /// Cancel jobs that have not ended; a call under way is dropped
    Cancel {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Put failed or cancelled jobs back into the queue, with a fresh count of attempts
    Retry {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Keep jobs that wait from being started, until they are resumed
    Pause {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Let paused jobs go on
    Resume {
        /// The jobs' numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
}

/// Does it.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let code = match args.command {
        JobCommand::Show { id, show_request, show_answer } => {
            let job = find(&context.store, id).await?;
            show(&mut context, &job, show_request, show_answer)?;
            ExitCode::Success
        }
        JobCommand::Cancel { ids } => change(&mut context, &ids, Wish::Cancel).await?,
        JobCommand::Retry { ids } => change(&mut context, &ids, Wish::Retry).await?,
        JobCommand::Pause { ids } => change(&mut context, &ids, Wish::Pause).await?,
        JobCommand::Resume { ids } => change(&mut context, &ids, Wish::Resume).await?,
    };
    context.close().await?;
    Ok(code)
}

/// The job with this number.
pub(super) async fn find(store: &Store, id: i64) -> anyhow::Result<JobRecord> {
    if let Some(job) = store.job(JobId(id)).await? {
        return Ok(job);
    }
    let words = match store.retired(id).await? {
        Some(gone) => format!(
            "there is no job {id} any more: it had ended, and was dropped at {} by [retention]",
            gone.dropped_at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ),
        None => format!("there is no job {id}"),
    };
    Err(Failure::not_found(words).into())
}

#[derive(Clone, Copy)]
enum Wish {
    Cancel,
    Retry,
    Pause,
    Resume,
}

async fn change(context: &mut Context, ids: &[i64], wish: Wish) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(["job", "outcome"]);
    let (mut missing, mut running) = (Vec::new(), Vec::new());
    for id in ids {
        let changed = match wish {
            Wish::Cancel => context.store.cancel_job(JobId(*id)).await?,
            Wish::Retry => context.store.retry_job(JobId(*id)).await?,
            Wish::Pause => context.store.pause_job(JobId(*id)).await?,
            Wish::Resume => context.store.resume_job(JobId(*id)).await?,
        };
        let outcome = match (changed, wish) {
            (Changed::Yes, Wish::Cancel) => "cancelled",
            (Changed::Yes, Wish::Retry) => "queued again",
            (Changed::No, Wish::Cancel) => "had ended already",
            (Changed::No, Wish::Retry) => "has not failed",
            (Changed::Yes, Wish::Pause) => "paused",
            (Changed::Yes, Wish::Resume) => "goes on",
            (Changed::No, Wish::Pause) => "has ended or was paused already",
            (Changed::No, Wish::Resume) => "was not paused",
            (Changed::Running, _) => {
                running.push(id.to_string());
                continue;
            }
            (Changed::NoSuchJob, _) => {
                missing.push(id.to_string());
                continue;
            }
        };
        report.row([(*id).into(), outcome.into()]);
    }
    if !report.is_empty() {
        context.output.report(&report)?;
    }
    if !missing.is_empty() {
        context.output.finish()?;
        return Err(Failure::not_found(format!("there is no job {}", missing.join(", "))).into());
    }
    if !running.is_empty() {
        context.output.finish()?;
        anyhow::bail!(
            "in the hands of a worker and not paused: job {}; cancel it to drop its call, or try again when it waits",
            running.join(", ")
        );
    }
    Ok(ExitCode::Success)
}

fn show(context: &mut Context, job: &JobRecord, show_request: bool, show_answer: bool) -> anyhow::Result<()> {
    if context.output.format() == Format::Json {
        context.output.json(&as_json(job, show_request, show_answer))?;
        return Ok(());
    }
    let mut report = Report::new(["field", "value"]);
    let mut field = |name: &'static str, value: Cell| {
        if value != Cell::Empty {
            report.row([name.into(), value]);
        }
    };
    field("job", Cell::Text(job.id.to_string()));
    field("state", job.place.state().into());
    field("route", job.route.as_str().into());
    field("project", job.project.as_str().into());
    field("batch", job.batch.as_deref().into());
    field("custom_id", job.custom_id.as_deref().into());
    field("priority", Cell::Count(job.priority.into()));
    field("created_at", job.created_at.into());
    field("enqueued_by", job.enqueued_by.as_str().into());
    field("run_at", job.run_at.into());
    field("deadline", job.deadline.into());
    field("max_attempts", job.max_attempts.map(i64::from).into());
    field("metadata", job.metadata.as_ref().map(ToString::to_string).into());
    match &job.place {
        Place::Ended(ended) => {
            let Ended { at, repaired, error_class, error, cost, uncertain, response, .. } = &**ended;
            field("finished_at", (*at).into());
            field("answered_by", ended.answered_by().into());
            field("last_asked", ended.last_asked().into());
            field("repaired", Cell::Flag(*repaired));
            field("error_class", error_class.as_deref().into());
            field("error", error.as_deref().into());
            field("cost", cost.map_or_else(|| "unknown".into(), Cell::Money));
            field("uncertain_cost", (*uncertain).into());
            if show_answer {
                field("response", response.as_ref().map(ToString::to_string).into());
            }
        }
        place => field("where", whereabouts(place).into()),
    }
    if show_request {
        field("request", job.request.to_string().into());
    }
    context.output.report(&report)?;
    Ok(())
}

/// Where an unfinished job is, in words.
pub(super) fn whereabouts(place: &Place) -> String {
    let at = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match place {
        Place::Ready { crashes, waits_for } => {
            let mut words = "queued".to_owned();
            if *crashes > 0 {
                let _ = write!(words, " again, after {crashes} workers died with it");
            }
            if let Some(reason) = waits_for {
                let _ = write!(words, ": {}", in_words(reason));
            }
            words
        }
        Place::Parked { reason, .. } if reason == PAUSED => "paused, until it is resumed".to_owned(),
        Place::Parked { until, reason } if reason == "scheduled" => format!("scheduled for {}", at(until)),
        Place::Parked { reason, .. } if reason.ends_with(" paused") => format!("queued: {}", in_words(reason)),
        Place::Parked { until, reason } => format!("parked until {}: {}", at(until), in_words(reason)),
        Place::Running { worker, host, pid, since, alive } => {
            let process = match (host, pid) {
                (Some(host), Some(pid)) => format!(" ({host}, process {pid})"),
                _ => String::new(),
            };
            let state = if *alive { "" } else { ", which is dead: another worker takes over in a moment" };
            format!("with worker {worker}{process} since {}{state}", at(since))
        }
        Place::Ended(ended) => format!("{} at {}", ended.state, at(&ended.at)),
        Place::Nowhere => in_words(NO_QUEUE).into_owned(),
    }
}

/// Everything about a job, for programs.
pub(super) fn as_json(job: &JobRecord, show_request: bool, show_answer: bool) -> Value {
    let place = match &job.place {
        Place::Ready { crashes, waits_for } => {
            json!({ "where": "ready", "crashes": crashes, "waits_for": waits_for })
        }
        Place::Parked { until, reason } => json!({
            "where": "parked", "until": (reason != PAUSED).then_some(until), "waits_for": reason,
        }),
        Place::Running { worker, host, pid, since, alive } => json!({
            "where": "running", "worker": worker, "host": host, "pid": pid, "since": since, "worker_alive": alive,
        }),
        Place::Ended(ended) => json!({
            "where": "ended", "finished_at": ended.at, "answered_by": ended.answered_by(),
            "last_asked": ended.last_asked(), "repaired": ended.repaired,
            "error_class": ended.error_class, "error": ended.error,
            "cost": Cell::from(ended.cost), "uncertain_cost": Cell::from(ended.uncertain),
        }),
        Place::Nowhere => json!({ "where": "nowhere", "waits_for": NO_QUEUE }),
    };
    let mut value = json!({
        "job": job.id, "state": job.place.state(), "route": job.route, "project": job.project, "batch": job.batch,
        "custom_id": job.custom_id, "priority": job.priority, "run_at": job.run_at, "deadline": job.deadline,
        "max_attempts": job.max_attempts, "enqueued_by": job.enqueued_by, "created_at": job.created_at,
        "metadata": job.metadata, "place": place,
    });
    if show_request {
        value["request"] = job.request.clone();
    }
    if let (true, Place::Ended(ended)) = (show_answer, &job.place) {
        value["response"] = ended.response.clone().unwrap_or(Value::Null);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whereabouts_read_as_a_sentence() {
        let at: DateTime<Utc> = "2026-01-31T08:00:00Z".parse().unwrap();
        let parked = Place::Parked { until: at, reason: "openai/gpt-4o-mini: rate_limit".to_owned() };
        assert_eq!(whereabouts(&parked), "parked until 2026-01-31T08:00:00Z: openai/gpt-4o-mini: its limit is used up");
        let ready = |waits_for: Option<&str>| Place::Ready { crashes: 0, waits_for: waits_for.map(str::to_owned) };
        assert_eq!(whereabouts(&ready(None)), "queued");
        assert_eq!(whereabouts(&ready(Some("route paused"))), "queued: its route is paused");
        let held = Place::Parked { until: at, reason: "batch paused".to_owned() };
        assert_eq!(whereabouts(&held), "queued: its batch is paused");
        let paused = Place::Parked { until: at, reason: PAUSED.to_owned() };
        assert_eq!(whereabouts(&paused), "paused, until it is resumed");
        let running =
            Place::Running { worker: 7, host: Some("db1".to_owned()), pid: Some(42), since: at, alive: false };
        assert_eq!(
            whereabouts(&running),
            "with worker 7 (db1, process 42) since 2026-01-31T08:00:00Z, which is dead: another worker takes over in a moment"
        );
    }
}
