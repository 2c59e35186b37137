//! `sluice results`: a batch as OpenAI-batch output lines.

use super::GlobalArgs;
use super::context::Context;
use super::failure::CommandFailure;
use super::out_file::{OutFile, is_stdout, require_apart};
use super::output::{Format, OutputError};
use super::table::csv_field;
use super::words::{about, option};
use crate::domain::counted::counted;
use crate::exit_code::ExitCode;
use crate::printable;
use crate::store::Store;
use crate::store::results::{EXPORT_PAGE, EndedJob, ExportedJob};
use crate::view::result_line::{self, LineView};
use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use futures_util::future::Either;
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

/// The jobs of a batch, counted by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs with an answer.
    pub succeeded: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that have not ended.
    pub unfinished: u64,
}

impl Counts {
    /// All jobs of the batch.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled + self.unfinished
    }

    /// Jobs that ended without an answer.
    #[must_use]
    pub fn without_answer(&self) -> u64 {
        self.failed + self.cancelled
    }

    /// The exit status for scripts.
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

/// The jobs without an answer: `2 failed, 1 cancelled, 3 not finished`; empty when all have one.
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
    let reads_all = context.store.reads_all().await?;
    if let (false, Some(login)) = (reads_all, &args.login) {
        return Err(CommandFailure::usage(format!(
            "--login {login}: this login may read only the jobs that it has enqueued itself; leave --login out, or use \
             a login with a role such as sluice_reporter"
        ))
        .into());
    }
    let whose = match args.login.as_deref() {
        Some("*") => None,
        None if !reads_all => None,
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
        // When standard error is gone too, only the exit status can tell.
        let _ = writeln!(
            printable::stderr(),
            "batch {}: {} of {} an answer; {counts}{hint}",
            args.batch,
            counts.succeeded,
            counted(counts.total(), "job has", "jobs have")
        );
    }
    Ok(counts.exit_code())
}

/// Advice on jobs that ended without an answer; `errors` is the file that lists them.
#[must_use]
pub fn advice(batch: &str, errors: Option<&Path>) -> String {
    let each = match errors {
        None => format!("{} tells why each did", about("sluice results", batch, "--errors FILE")),
        Some(errors) if is_stdout(errors) => "standard output tells why each did".to_owned(),
        Some(errors) => format!("{} tells why each did", errors.display()),
    };
    format!(
        "sluice report failures {} counts them by reason; {each}; {} puts them back into the queue",
        option("batch", batch),
        about("sluice batch retry", batch, "")
    )
}

/// Remarks for a batch that holds jobs of more than one login, when the user has not said whose jobs are wanted.
///
/// # Errors
/// Those of the database.
pub async fn remarks_on_logins(
    batch: &str,
    whose: Option<&str>,
    is_asked: bool,
    store: &Store,
) -> anyhow::Result<Option<String>> {
    if is_asked || !store.reads_all().await? {
        return Ok(None);
    }
    let logins = store.logins_of_batch(batch).await?;
    if logins.len() < 2 {
        return Ok(None);
    }
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

/// Some logins with the number of their jobs.
fn told(logins: &[(String, i64)]) -> String {
    let some: Vec<String> = logins.iter().take(5).map(|(login, jobs)| format!("{login} ({jobs})")).collect();
    let more = if logins.len() > 5 { ", …" } else { "" };
    format!("{}{more}", some.join(", "))
}

/// How many jobs of a batch are no longer kept. The sums still count them.
async fn dropped(batch: &str, store: &Store, counts: Counts) -> anyhow::Result<u64> {
    if !store.reads_all().await? || !store.has_retired().await? {
        return Ok(0);
    }
    let enqueued = store.batch(batch).await?.map_or(0, |batch| u64::try_from(batch.jobs).unwrap_or(0));
    Ok(enqueued.saturating_sub(counts.total()))
}

/// Writes the jobs of a batch that ended, in the order in which they were enqueued, however many there are.
///
/// # Errors
/// [`CommandFailure`] when there is no such batch.
pub async fn export<'a>(
    batch: &str,
    login: Option<&str>,
    store: &Store,
    is_csv: bool,
    answers: &'a mut (dyn Write + Send),
    errors: Option<&'a mut (dyn Write + Send)>,
) -> anyhow::Result<Counts> {
    let mut export = Export { is_csv, answers, errors, counts: Counts::default() };
    each_of_batch(store, batch, login, |job| export.take(&job)).await?;
    if export.counts.total() == 0 {
        if let Some(login) = login
            && let logins = store.logins_of_batch(batch).await?
            && !logins.is_empty()
        {
            let words = format!("batch `{batch}` has no job of the login {login}; it has jobs of {}", told(&logins));
            return Err(CommandFailure::not_found(words).into());
        }
        let words = match dropped(batch, store, Counts::default()).await? {
            0 => format!("there is no batch `{batch}`"),
            _ => format!(
                "the jobs of batch `{batch}` are no longer kept: they had ended, and [retention] has dropped them"
            ),
        };
        return Err(CommandFailure::not_found(words).into());
    }
    Ok(export.counts)
}

/// Reads the jobs of a batch in the order of their numbers, with their answers, one at a time. Only those of one login,
/// if one is named, or if this login may read no others.
pub(super) async fn each_of_batch(
    store: &Store,
    batch: &str,
    login: Option<&str>,
    mut take: impl FnMut(ExportedJob) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let reads_all = store.reads_all().await?;
    let mut after = 0;
    loop {
        let mut read = 0;
        let mut jobs = std::pin::pin!(if reads_all {
            Either::Left(store.export_batch(batch, login, after))
        } else {
            Either::Right(store.export_own(batch, after))
        });
        while let Some(job) = jobs.try_next().await? {
            read += 1;
            after = job.job;
            take(job)?;
        }
        if read < EXPORT_PAGE {
            return Ok(());
        }
    }
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
            write_record(self.answers, result_line::COLUMNS)?;
            if let Some(errors) = &mut self.errors {
                write_record(*errors, result_line::COLUMNS)?;
            }
        }
        match job.ending {
            None => self.counts.unfinished += 1,
            Some(EndedJob::Succeeded { .. }) => {
                self.counts.succeeded += 1;
                return write_job(job, self.is_csv, self.answers);
            }
            Some(EndedJob::Failed { .. }) => self.counts.failed += 1,
            Some(EndedJob::Cancelled) => self.counts.cancelled += 1,
        }
        match &mut self.errors {
            _ if job.ending.is_none() => Ok(()),
            Some(errors) => write_job(job, self.is_csv, *errors),
            // A table tells them apart by their state; as lines of answers they would be taken for answers.
            None if self.is_csv => write_job(job, self.is_csv, self.answers),
            None => Ok(()),
        }
    }
}

fn write_job(job: &ExportedJob, is_csv: bool, writer: &mut dyn Write) -> anyhow::Result<()> {
    if is_csv {
        return write_record(writer, result_line::fields(job)?);
    }
    let line = serde_json::to_string(&LineView::of(job)?)?;
    writeln!(writer, "{line}").map_err(|error| OutputError(error).into())
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
