//! `sluice results`: a batch as OpenAI-batch output lines.

use super::GlobalArgs;
use super::context::Context;
use super::failure::Failure;
use super::out_file::{OutFile, is_stdout, require_apart};
use super::output::csv_field;
use super::output::{Format, OutputError};
use super::words::about;
use crate::domain::NanoUsd;
use crate::exit_code::ExitCode;
use crate::printable;
use crate::store::Store;
use crate::store::results::{EXPORT_PAGE, Ending, ExportedJob, HttpError};
use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `sluice results`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which batch
    pub batch: String,
    /// Where the answers go, in place of standard output (-). The file appears when it is complete
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where failed and cancelled jobs go, as error lines, - for standard output; without it they are only counted
    /// (with --format csv they stand among the others)
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Only the jobs that this login enqueued, * for those of every login. Without it: those of your own, if the batch
    /// has any, otherwise all
    #[arg(long, value_name = "LOGIN")]
    pub login: Option<String>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

/// How many jobs ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With an answer.
    pub succeeded: u64,
    /// Without one.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Not yet.
    pub unfinished: u64,
}

impl Counts {
    /// Every job of the batch.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.unfinished
    }

    /// Those that ended without an answer.
    #[must_use]
    pub fn without_answer(&self) -> u64 {
        self.failed + self.cancelled
    }

    /// What a script should take from it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.unfinished > 0 {
            ExitCode::Failure
        } else if self.failed + self.cancelled > 0 {
            ExitCode::JobsFailed
        } else {
            ExitCode::Success
        }
    }
}

/// What is not among the answers: `2 failed, 1 cancelled, 3 not finished`; empty when all are.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.failed, "failed"), (self.cancelled, "cancelled"), (self.unfinished, "not finished")];
        let told: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        f.write_str(&told.join(", "))
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let is_csv = context.output.format() == Format::Csv;
    let stdout = Path::new("-");
    require_apart(args.output.as_deref().unwrap_or(stdout), args.errors.as_deref(), None)?;
    let open = |path: &Path| OutFile::create(path, args.force);
    let mut answers = args.output.as_deref().filter(|path| !is_stdout(path)).map(open).transpose()?;
    let mut errors = args.errors.as_deref().map(open).transpose()?;
    let whose = match args.login.as_deref() {
        Some("*") => None,
        Some(login) => Some(login.to_owned()),
        None => context.store.exporter(&args.batch).await?,
    };
    let counts = {
        let answers: &mut (dyn Write + Send) = match &mut answers {
            Some(file) => file,
            None => context.output.export(!is_csv)?,
        };
        let errors = errors.as_mut().map(|file| file as &mut (dyn Write + Send));
        export(&args.batch, whose.as_deref(), &context.store, is_csv, answers, errors).await?
    };
    context.output.finish()?;
    OutFile::finish_all([answers, errors].into_iter().flatten())?;
    if let Some(remark) = remarks_on_logins(&args.batch, whose.as_deref(), args.login.is_some(), &context.store).await?
    {
        context.output.warn(format_args!("{remark}"));
    }
    let dropped = dropped(&args.batch, &context.store, counts).await?;
    if dropped > 0 {
        context
            .output
            .warn(format_args!("{dropped} more jobs of this batch are no longer kept: [retention] has dropped them"));
    }
    context.close().await?;
    if counts.total() > counts.succeeded && !global.quiet {
        let hint = match (args.errors.is_none() && !is_csv, counts.without_answer()) {
            (true, 1..) => format!(". {}", advice(&args.batch, None)),
            _ => String::new(),
        };
        // When standard error is gone too, the exit status has to do.
        let _ = writeln!(
            printable::stderr(),
            "batch {}: {} of {} jobs have an answer; {counts}{hint}",
            args.batch,
            counts.succeeded,
            counts.total()
        );
    }
    Ok(counts.exit_code())
}

/// What is to be done about jobs that ended without an answer; `errors` is the file in which they are.
#[must_use]
pub fn advice(batch: &str, errors: Option<&Path>) -> String {
    let why = match errors {
        None => format!("{} tells why", about("sluice results", batch, "--errors FILE")),
        Some(errors) if is_stdout(errors) => "standard output tells why".to_owned(),
        Some(errors) => format!("{} tells why", errors.display()),
    };
    format!("{why}; {} puts them back into the queue", about("sluice batch retry", batch, ""))
}

/// What is to be said where a batch holds jobs of more than one login, and it was not said whose are wanted.
///
/// # Errors
/// Of the database.
pub async fn remarks_on_logins(
    batch: &str,
    whose: Option<&str>,
    is_asked: bool,
    store: &Store,
) -> anyhow::Result<Option<String>> {
    if is_asked {
        return Ok(None);
    }
    let logins = store.logins_of_batch(batch).await?;
    if logins.len() < 2 {
        return Ok(None);
    }
    let told = |logins: &[(String, i64)]| {
        let some: Vec<String> = logins.iter().take(5).map(|(login, jobs)| format!("{login} ({jobs})")).collect();
        let more = if logins.len() > 5 { ", …" } else { "" };
        format!("{}{more}", some.join(", "))
    };
    Ok(Some(match whose {
        Some(own) => {
            let others: Vec<(String, i64)> = logins.into_iter().filter(|(login, _)| login != own).collect();
            format!(
                "batch {batch} holds jobs of other logins too, which are left out: {}. --login '*' takes them in",
                told(&others)
            )
        }
        None => format!(
            "batch {batch} holds jobs of several logins: {}. Each line says whose it is; --login takes those of one",
            told(&logins)
        ),
    }))
}

/// How many jobs of a batch are no longer kept. The sums still know of them.
async fn dropped(batch: &str, store: &Store, counts: Counts) -> anyhow::Result<u64> {
    if !store.has_retired().await? {
        return Ok(0);
    }
    let enqueued = store.batch(batch).await?.map_or(0, |batch| u64::try_from(batch.jobs).unwrap_or(0));
    Ok(enqueued.saturating_sub(counts.total()))
}

/// Writes the jobs of a batch that ended, in the order in which they were enqueued, however many there are.
///
/// # Errors
/// [`Failure`] when there is no such batch.
pub async fn export<'a>(
    batch: &str,
    login: Option<&str>,
    store: &Store,
    is_csv: bool,
    answers: &'a mut (dyn Write + Send),
    errors: Option<&'a mut (dyn Write + Send)>,
) -> anyhow::Result<Counts> {
    let mut export = Export { is_csv, answers, errors, counts: Counts::default() };
    let mut after = 0;
    loop {
        let mut read = 0;
        let mut jobs = std::pin::pin!(store.export_batch(batch, login, after));
        while let Some(job) = jobs.try_next().await? {
            read += 1;
            after = job.job;
            export.take(&job)?;
        }
        if read < EXPORT_PAGE {
            break;
        }
    }
    if export.counts.total() == 0 {
        let words = match dropped(batch, store, Counts::default()).await? {
            0 => format!("there is no batch `{batch}`"),
            _ => format!(
                "the jobs of batch `{batch}` are no longer kept: they had ended, and [retention] has dropped them"
            ),
        };
        return Err(Failure::not_found(words).into());
    }
    Ok(export.counts)
}

/// An export under way.
struct Export<'a> {
    is_csv: bool,
    answers: &'a mut (dyn Write + Send),
    errors: Option<&'a mut (dyn Write + Send)>,
    counts: Counts,
}

impl Export<'_> {
    fn take(&mut self, job: &ExportedJob) -> anyhow::Result<()> {
        if self.is_csv && self.counts.total() == 0 {
            write_record(self.answers, CSV_COLUMNS)?;
            if let Some(errors) = &mut self.errors {
                write_record(*errors, CSV_COLUMNS)?;
            }
        }
        match job.ending {
            None => self.counts.unfinished += 1,
            Some(Ending::Succeeded { .. }) => {
                self.counts.succeeded += 1;
                return write_job(job, self.is_csv, self.answers);
            }
            Some(Ending::Failed { .. }) => self.counts.failed += 1,
            Some(Ending::Cancelled) => self.counts.cancelled += 1,
        }
        match &mut self.errors {
            _ if job.ending.is_none() => Ok(()),
            Some(errors) => write_job(job, self.is_csv, *errors),
            // A table tells them apart by their state; lines of answers would be taken for answers.
            None if self.is_csv => write_job(job, self.is_csv, self.answers),
            None => Ok(()),
        }
    }
}

fn write_job(job: &ExportedJob, is_csv: bool, writer: &mut dyn Write) -> anyhow::Result<()> {
    if is_csv {
        return write_record(writer, csv_fields(job)?);
    }
    let line = serde_json::to_string(&Line::of(job)?)?;
    writeln!(writer, "{line}").map_err(|error| OutputError(error).into())
}

/// A line of an OpenAI-batch output or error file. `sluice` is ours; consumers of the format pass over it.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    custom_id: String,
    response: Option<Response<'a>>,
    error: Option<LineFault<'a>>,
    sluice: Served<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    status_code: i16,
    request_id: Option<&'a str>,
    body: Box<RawValue>,
}

#[derive(Serialize)]
struct LineFault<'a> {
    code: &'a str,
    message: &'a str,
}

/// Who answered, and for how much.
#[derive(Serialize)]
struct Served<'a> {
    job: i64,
    provider: Option<&'a str>,
    model: Option<&'a str>,
    attempts: i16,
    enqueued_by: &'a str,
    /// Dollars as an exact decimal number; null when the price is unknown.
    cost: Option<String>,
    repaired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
}

/// The body of an HTTP error, as OpenAI writes it.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<()>,
    code: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn of(job: &'a ExportedJob) -> anyhow::Result<Self> {
        let (response, error) = match &job.ending {
            Some(Ending::Succeeded { response }) => {
                let body = raw(response.as_deref().unwrap_or("null"))?;
                (Some(Response { status_code: 200, request_id: job.request_id.as_deref(), body }), None)
            }
            Some(Ending::Failed { class, reason, http: Some(http) }) => {
                let HttpError { status, code, message } = http;
                let error = ErrorDetail {
                    message: message.as_deref().unwrap_or(reason),
                    r#type: class,
                    param: None,
                    code: code.as_deref(),
                };
                let body = to_raw_value(&ErrorBody { error })?;
                (Some(Response { status_code: *status, request_id: job.request_id.as_deref(), body }), None)
            }
            Some(Ending::Failed { class, reason, http: None }) => {
                (None, Some(LineFault { code: class, message: reason }))
            }
            Some(Ending::Cancelled) => {
                (None, Some(LineFault { code: "job_cancelled", message: "The job was cancelled." }))
            }
            None => (None, Some(LineFault { code: "job_unfinished", message: "The job is not finished." })),
        };
        let class = match &job.ending {
            Some(Ending::Failed { class, .. }) => Some(class.as_str()),
            Some(Ending::Succeeded { .. } | Ending::Cancelled) | None => None,
        };
        Ok(Self {
            id: format!("batch_req_{}", job.job),
            custom_id: custom_id(job),
            response,
            error,
            sluice: Served {
                job: job.job,
                provider: job.provider.as_deref(),
                model: job.model.as_deref(),
                attempts: job.attempts,
                enqueued_by: &job.enqueued_by,
                cost: job.cost.map(decimal),
                repaired: job.repaired,
                class,
                metadata: job.metadata.as_deref().map(raw).transpose()?,
            },
        })
    }
}

fn raw(json: &str) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).context("a stored value is not JSON")
}

/// Consumers join on it, so each line has one.
fn custom_id(job: &ExportedJob) -> String {
    job.custom_id.clone().unwrap_or_else(|| format!("job-{}", job.job))
}

/// Dollars as a decimal number.
fn decimal(cost: NanoUsd) -> String {
    cost.to_string().replacen('$', "", 1)
}

const CSV_COLUMNS: [&str; 13] = [
    "job",
    "custom_id",
    "state",
    "answer",
    "provider",
    "model",
    "attempts",
    "cost",
    "repaired",
    "error_class",
    "error",
    "request_id",
    "enqueued_by",
];

fn csv_fields(job: &ExportedJob) -> anyhow::Result<[String; 13]> {
    let (state, answer, class, reason) = match &job.ending {
        Some(Ending::Succeeded { response }) => ("succeeded", text_of(response.as_deref())?, "", ""),
        Some(Ending::Failed { class, reason, .. }) => ("failed", None, class.as_str(), reason.as_str()),
        Some(Ending::Cancelled) => ("cancelled", None, "", ""),
        None => ("unfinished", None, "", ""),
    };
    Ok([
        job.job.to_string(),
        custom_id(job),
        state.to_owned(),
        answer.unwrap_or_default(),
        job.provider.clone().unwrap_or_default(),
        job.model.clone().unwrap_or_default(),
        job.attempts.to_string(),
        job.cost.map(decimal).unwrap_or_default(),
        job.repaired.to_string(),
        class.to_owned(),
        reason.to_owned(),
        job.request_id.clone().unwrap_or_default(),
        job.enqueued_by.clone(),
    ])
}

/// The text of a chat completion.
fn text_of(response: Option<&str>) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Completion {
        #[serde(default)]
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        content: Option<String>,
    }
    let Some(response) = response else { return Ok(None) };
    let completion: Completion = serde_json::from_str(response).context("a stored answer is no chat completion")?;
    Ok(completion.choices.into_iter().next().and_then(|choice| choice.message.content))
}

fn write_record(writer: &mut dyn Write, fields: impl IntoIterator<Item = impl AsRef<str>>) -> anyhow::Result<()> {
    let mut record = csv::Writer::from_writer(Vec::new());
    for field in fields {
        record.write_field(csv_field(field.as_ref()).as_bytes())?;
    }
    record.write_record(None::<&[u8]>)?;
    let line = record.into_inner().context("writing a record")?;
    writer.write_all(&line).map_err(|error| OutputError(error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_says_whether_all_jobs_have_answers() {
        let counts = |succeeded, failed, cancelled, unfinished| Counts { succeeded, failed, cancelled, unfinished };
        for (counts, code, words) in [
            (counts(3, 0, 0, 0), ExitCode::Success, ""),
            (counts(3, 1, 0, 0), ExitCode::JobsFailed, "1 failed"),
            (counts(0, 1, 2, 0), ExitCode::JobsFailed, "1 failed, 2 cancelled"),
            (counts(3, 1, 0, 4), ExitCode::Failure, "1 failed, 4 not finished"),
        ] {
            assert_eq!((counts.exit_code(), counts.to_string().as_str()), (code, words));
        }
    }
}
