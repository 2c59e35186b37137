//! `sluice results`: the answers of a batch, as lines or as a table.

#[cfg(feature = "parquet")]
mod columnar;
mod counts;
mod follow;
mod growing;
mod join;
mod numbers;
mod shape;
mod sheet;

use super::GlobalArgs;
use super::batch::find;
use super::context::Context;
use super::failure::CommandFailure;
use super::out_file::{OutFile, is_stdout, require_apart};
use super::output::{Output, OutputError};
use super::rows;
use super::run::paused_by_loss;
use super::watch::{self, Followed};
use super::words::{about, option};
use crate::domain::counted::counted;
use crate::exit_code::ExitCode;
use crate::printable::{self, on_one_line};
use crate::shutdown;
use crate::store::Store;
use crate::store::results::{EXPORT_PAGE, EndedJob, ExportedJob};
use crate::view::flat_row::{Fields, Kinds, Layout, NoTable, Survey};
use crate::view::result_line::LineView;
pub use counts::Counts;
use follow::{Following, Sink};
use futures_util::TryStreamExt as _;
use futures_util::future::Either;
pub use join::RowsOf;
use join::{Batch, Index, Rows};
pub use shape::Shape;
use sheet::Sheet;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Arguments of `sluice results`.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "an option of the command line each")]
pub struct Args {
    /// Which batch
    pub batch: String,
    /// Where the answers go, in place of standard output (-). The file appears when it is complete
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What is written [default: what the ending of FILE says (.csv, .tsv, .parquet), otherwise openai]
    #[arg(long = "as", value_enum, value_name = "SHAPE")]
    pub shape: Option<Shape>,
    /// Where failed and cancelled jobs go, - for standard output. Without it they are only counted; in a table they
    /// stand among the others
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// In a table: these fields of answers that are JSON objects, in columns of their own [default: all of them]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub fields: Vec<String>,
    /// In a table: no columns for fields of answers
    #[arg(long, conflicts_with = "fields")]
    pub no_fields: bool,
    /// In a table: all rows of this table of yours (CSV, TSV, JSON Lines, Parquet), in their order, each with its
    /// answer
    #[arg(long, value_name = "FILE", conflicts_with_all = ["errors", "follow"])]
    pub rows: Option<PathBuf>,
    /// The column of --rows that holds the custom_id [default: custom_id; without such a column rows are known by
    /// their content]
    #[arg(long, value_name = "NAME", requires = "rows")]
    pub id_column: Option<String>,
    /// What --rows holds [default: by the ending of its name]
    #[arg(long, value_name = "FORMAT", value_enum, requires = "rows")]
    pub input_format: Option<rows::Format>,
    /// What is between the cells of --rows [default: a comma; in TSV a tab]
    #[arg(long, value_name = "CHARACTER", value_parser = rows::delimiter, requires = "rows")]
    pub delimiter: Option<u8>,
    /// Leave out rows of --rows that cannot be read, as they were left out of the batch
    #[arg(long, requires = "rows")]
    pub skip_bad: bool,
    /// Write lines as answers come, until the batch is done. Interrupted, the same command goes on with its files
    #[arg(long)]
    pub follow: bool,
    /// Only the jobs that this login enqueued, * for those of every login. Without it: those of your own, if the batch
    /// has any, otherwise all
    #[arg(long, value_name = "LOGIN")]
    pub login: Option<String>,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

impl Args {
    fn fields(&self) -> Fields {
        match (&self.fields, self.no_fields) {
            (_, true) => Fields::Named(Vec::new()),
            (names, _) if names.is_empty() => Fields::Found,
            (names, _) => Fields::Named(names.clone()),
        }
    }
}

/// The shapes of an export, and the columns of its tables.
#[derive(Clone, Debug)]
pub struct Form {
    /// The shape of the answers.
    pub answers: Shape,
    /// The shape of the failures.
    pub errors: Shape,
    /// Which fields of the answers are columns.
    pub fields: Fields,
}

impl Form {
    /// The form that the names of the files tell.
    #[must_use]
    pub fn of_files(answers: &Path, errors: Option<&Path>) -> Self {
        let of = |file: Option<&Path>| Shape::of(None, file, super::output::Format::Plain);
        Self { answers: of(Some(answers)), errors: of(errors), fields: Fields::Found }
    }

    /// Checks that this program can write these files.
    ///
    /// # Errors
    /// [`CommandFailure`] says what to do instead.
    pub fn require_writable(&self, answers: &Path, errors: Option<&Path>) -> Result<(), CommandFailure> {
        let is_shown = |file: &Path| is_stdout(file) && printable::stdout().is_terminal();
        shape::require_named(answers)?;
        errors.map_or(Ok(()), shape::require_named)?;
        self.answers.require_writable(is_shown(answers))?;
        errors.map_or(Ok(()), |errors| self.errors.require_writable(is_shown(errors)))
    }

    fn of(args: &Args, output: &Output) -> Self {
        let of = |file: Option<&Path>| Shape::of(args.shape, file, output.format());
        let errors = Shape::of(None, args.errors.as_deref(), output.format());
        let answers = of(args.output.as_deref());
        let errors = if errors == Shape::Openai { args.shape.unwrap_or(errors) } else { errors };
        Self { answers, errors, fields: args.fields() }
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let form = Form::of(&args, &context.output);
    require_form(&args, &form)?;
    let stdout = Path::new("-");
    let input = args.rows.as_deref();
    require_apart(args.output.as_deref().unwrap_or(stdout), args.errors.as_deref(), input)?;
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
    let counts = if args.follow {
        match followed(&args, &form, whose.as_deref(), &mut context, global).await? {
            Some(counts) => counts,
            None => return Ok(ExitCode::Interrupted),
        }
    } else {
        exported(&args, &form, whose.as_deref(), &mut context).await?
    };
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
        let hint = match (args.errors.is_none() && !form.answers.is_table(), counts.without_answer()) {
            (true, 1..) => format!("\n{}", advice(&args.batch, &counts, None, reads_all)),
            _ => String::new(),
        };
        // When standard error is gone too, only the exit status can tell.
        let _ = writeln!(
            printable::stderr(),
            "batch {}: {} of {} an answer; {counts}{hint}",
            on_one_line(&args.batch),
            counts.succeeded,
            counted(counts.total(), "job has", "jobs have")
        );
    }
    Ok(counts.exit_code())
}

/// Checks that the options go together.
fn require_form(args: &Args, form: &Form) -> Result<(), CommandFailure> {
    form.require_writable(args.output.as_deref().unwrap_or(Path::new("-")), args.errors.as_deref())?;
    let of_tables =
        [(!args.fields.is_empty(), "--fields"), (args.no_fields, "--no-fields"), (args.rows.is_some(), "--rows")];
    if !form.answers.is_table()
        && let Some((_, option)) = of_tables.iter().find(|(is_given, _)| *is_given)
    {
        return Err(CommandFailure::usage(format!(
            "{option} is for tables: say --as csv, tsv, parquet or jsonl, or give -o a file that ends so"
        )));
    }
    let all = if args.errors.is_some() { vec![form.answers, form.errors] } else { vec![form.answers] };
    if args.follow && all.contains(&Shape::Parquet) {
        return Err(CommandFailure::usage(
            "--follow writes lines or tables of text (openai, jsonl, csv, tsv): a Parquet file is whole or none",
        ));
    }
    if args.follow && all.iter().any(|shape| shape.is_table()) && all.iter().any(|shape| *shape != form.answers) {
        return Err(CommandFailure::usage(
            "with --follow the answers and the failures have the same shape: let both files end alike, or say --as",
        ));
    }
    Ok(())
}

/// Writes the jobs that have ended by now.
async fn exported(args: &Args, form: &Form, login: Option<&str>, context: &mut Context) -> anyhow::Result<Counts> {
    let rows_of = RowsOf {
        id_column: args.id_column.clone(),
        format: args.input_format.map(rows::Format::of_input),
        delimiter: args.delimiter,
        skips_bad: args.skip_bad,
        ..RowsOf::default()
    };
    let rows = args.rows.as_deref().map(|file| Rows::open(file, &rows_of)).transpose()?;
    let open = |path: &Path| OutFile::create(path, args.force);
    let mut answers = args.output.as_deref().filter(|path| !is_stdout(path)).map(open).transpose()?;
    let mut errors = args.errors.as_deref().map(open).transpose()?;
    let mut remarks = Vec::new();
    let counts = {
        let answers: &mut (dyn Write + Send) = match &mut answers {
            Some(file) => file,
            None => context.output.export(form.answers.is_json())?,
        };
        let errors = errors.as_mut().map(|file| file as &mut (dyn Write + Send));
        let of = Batch { store: &context.store, name: &args.batch, login };
        match rows {
            Some(rows) => {
                let (counts, told) = joined(rows, &of, form, answers).await?;
                remarks = told;
                counts
            }
            None => export(&args.batch, login, &context.store, form, answers, errors).await?,
        }
    };
    context.output.finish()?;
    OutFile::finish_all([answers, errors].into_iter().flatten())?;
    for remark in remarks {
        context.output.warn(remark);
    }
    Ok(counts)
}

/// Writes answers as they come. `None`: it was interrupted.
async fn followed(
    args: &Args,
    form: &Form,
    login: Option<&str>,
    context: &mut Context,
    global: &GlobalArgs,
) -> anyhow::Result<Option<Counts>> {
    let interrupted = shutdown::interruption()?;
    let file = args.output.as_deref().filter(|path| !is_stdout(path));
    let (is_terminal, mut progress) = (context.output.is_terminal(), Output::for_progress(global));
    let store = &context.store;
    let ended = {
        let following = async {
            let mut following = Following::begin(store, &args.batch, login, form.answers, &form.fields).await?;
            // Of the two, one at most.
            let mut stdout = Some(context.output.export(true)?);
            let mut errors = match args.errors.as_deref() {
                Some(path) if is_stdout(path) => stdout.take().map(Sink::Stream),
                Some(path) => Some(following.file(path, args.force).await?),
                None => None,
            };
            let mut answers = match (file, stdout) {
                (Some(path), _) => following.file(path, args.force).await?,
                (None, Some(stdout)) => Sink::Stream(stdout),
                (None, None) => anyhow::bail!("standard output is taken"),
            };
            if following.resumed() > 0 {
                progress.line(counted(following.resumed(), "line was there before", "lines were there before"))?;
            }
            // Lines and a bar on one terminal would be in each other's way.
            if file.is_none() && is_terminal {
                return following.finish(&mut answers, &mut errors, &CancellationToken::new()).await;
            }
            let paused = CancellationToken::new();
            let (counts, reason) = tokio::try_join!(following.finish(&mut answers, &mut errors, &paused), async {
                let reason = match watch::follow(store, &mut progress, &args.batch, Duration::ZERO).await? {
                    Followed::Done(_) => None,
                    Followed::Paused(reason) => Some(reason),
                };
                // All that has ended by now is written before the command says why it ends.
                if reason.is_some() {
                    paused.cancel();
                }
                Ok(reason)
            })?;
            let Some(reason) = reason else { return Ok(counts) };
            let screen = printable::stderr_width().unwrap_or(usize::MAX);
            Err(anyhow::anyhow!(paused_by_loss(&args.batch, &reason, screen)))
        };
        tokio::select! {
            ended = following => Some(ended?),
            () = interrupted.cancelled() => None,
        }
    };
    if ended.is_none() {
        match file {
            Some(file) => context.output.note(format_args!(
                "interrupted: {} has whole lines, and the same command goes on with it",
                file.display()
            )),
            None => context.output.note("interrupted"),
        }
    }
    Ok(ended)
}

/// What to type about jobs that ended without an answer, a line each; `errors` is the file that lists them.
#[must_use]
///
/// `may_retry`: the login may put jobs back into the queue.
pub fn advice(batch: &str, counts: &Counts, errors: Option<&Path>, may_retry: bool) -> String {
    let each = match errors {
        None => String::new(),
        Some(errors) if is_stdout(errors) => " (standard output has them, too)".to_owned(),
        Some(errors) => format!(" ({} has them, too)", errors.display()),
    };
    let mut lines = Vec::new();
    if counts.failed > 0 {
        lines.push((
            about("sluice batch jobs", batch, "--state failed"),
            format!("lists them, each with its error{each}"),
        ));
    }
    if counts.failed > 0 && may_retry {
        lines.push((format!("sluice report failures {}", option("batch", batch)), "counts them by reason".to_owned()));
    }
    if counts.cancelled > 0 {
        let those = if counts.failed > 0 { "lists those that were cancelled" } else { "lists them" };
        lines.push((about("sluice batch jobs", batch, "--state cancelled"), format!("{those}{each}")));
    }
    if may_retry {
        lines.push((about("sluice batch retry", batch, ""), "puts them back into the queue".to_owned()));
    }
    let width = lines.iter().map(|(command, _)| printable::columns(command)).max().unwrap_or(0);
    // Names may be long; then each explanation has a line of its own.
    let is_long = width > 44;
    let told = lines.iter().map(|(command, words)| {
        if is_long { format!("  {command}\n      {words}") } else { format!("  {command:width$}  {words}") }
    });
    told.collect::<Vec<_>>().join("\n")
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
    let batch = on_one_line(batch);
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
    let some: Vec<String> =
        logins.iter().take(5).map(|(login, jobs)| format!("{} ({jobs})", on_one_line(login))).collect();
    let more = if logins.len() > 5 { ", …" } else { "" };
    format!("{}{more}", some.join(", "))
}

/// How many jobs of a batch are no longer kept. The sums still count them.
async fn dropped(batch: &str, store: &Store, counts: Counts) -> anyhow::Result<u64> {
    if !store.reads_all().await? || !store.has_retired().await? {
        return Ok(0);
    }
    let enqueued = store.batch(batch).await?.map_or(0, |batch| u64::try_from(batch.jobs).unwrap_or(0));
    Ok(enqueued.saturating_sub(counts.total() + counts.replaced))
}

/// Writes the jobs of a batch that ended, in the order in which they were enqueued, however many there are. For a table
/// they are read twice: first come its columns.
///
/// # Errors
/// [`CommandFailure`] when there is no such batch, or when it makes no table.
pub async fn export<'a>(
    batch: &str,
    login: Option<&str>,
    store: &Store,
    form: &Form,
    answers: &'a mut (dyn Write + Send),
    errors: Option<&'a mut (dyn Write + Send)>,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let layout = if form.answers.is_table() || (errors.is_some() && form.errors.is_table()) {
        let mut survey = Survey::new(form.fields.clone(), true);
        each_of_batch(store, batch, login, |job| {
            counts.note(&job);
            survey.look(&job).map_err(no_table)
        })
        .await?;
        require_jobs(batch, login, store, counts).await?;
        Some(Layout::of(&survey))
    } else {
        None
    };
    let mut answers = Part::open(form.answers, layout.as_ref(), answers)?;
    let mut errors = errors.map(|errors| Part::open(form.errors, layout.as_ref(), errors)).transpose()?;
    counts = Counts::default();
    each_of_batch(store, batch, login, |job| {
        counts.note(&job);
        match (&job.ending, &mut errors) {
            (Some(_), _) if job.is_replaced => Ok(()),
            (Some(EndedJob::Succeeded { .. }), _) => answers.write(&job),
            (Some(_), Some(errors)) => errors.write(&job),
            // A table tells them apart by their state; as lines of answers they would be taken for answers.
            (Some(_), None) if form.answers.is_table() => answers.write(&job),
            (None, _) | (Some(_), None) => Ok(()),
        }
    })
    .await?;
    require_jobs(batch, login, store, counts).await?;
    answers.end()?;
    errors.map_or(Ok(()), Part::end)?;
    Ok(counts)
}

/// Writes the rows of a file, each with the job that was made of it. Also returns the mismatches.
///
/// # Errors
/// Those of the database, the file and the output; [`CommandFailure`] when rows and jobs cannot be matched.
pub async fn export_beside(
    file: &Path,
    of: &RowsOf,
    batch: &str,
    login: Option<&str>,
    store: &Store,
    form: &Form,
    writer: &mut (dyn Write + Send),
) -> anyhow::Result<(Counts, Vec<String>)> {
    joined(Rows::open(file, of)?, &Batch { store, name: batch, login }, form, writer).await
}

/// Checks that answers can be put beside the rows of a file, before anything is bought.
///
/// # Errors
/// [`CommandFailure`] when it cannot be read, or has no such column.
pub fn require_rows(file: &Path, of: &RowsOf) -> Result<(), CommandFailure> {
    Rows::open(file, of).map(|_| ())
}

/// Writes the rows of the author's own file, each with the job that was made of it. Also returns the mismatches.
async fn joined(
    rows: Rows,
    of: &Batch<'_>,
    form: &Form,
    writer: &mut (dyn Write + Send),
) -> anyhow::Result<(Counts, Vec<String>)> {
    let mut survey = Survey::new(form.fields.clone(), false);
    let (index, counts) = Index::read(&rows, of, &mut survey).await?;
    require_jobs(of.name, of.login, of.store, counts).await?;
    let kinds = if form.answers == Shape::Parquet { rows.kinds()? } else { Kinds::none(rows.header().len()) };
    let layout = Layout::beside(rows.header(), &kinds, &survey);
    let mut sheet = sheet::open(form.answers, &layout, writer)?;
    let remarks = rows.join(of, &layout, &mut *sheet, index).await?;
    sheet.end()?;
    Ok((counts, remarks))
}

/// What to do about a batch that makes no table.
fn no_table(fault: NoTable) -> anyhow::Error {
    let advice = match fault {
        NoTable::Columns => "--as openai writes it as lines",
        NoTable::Fields => "name those that you want with --fields, or say --no-fields",
    };
    CommandFailure::usage(format!("{fault}: {advice}")).into()
}

/// Checks that a batch has jobs to write.
async fn require_jobs(batch: &str, login: Option<&str>, store: &Store, counts: Counts) -> anyhow::Result<()> {
    if counts.total() + counts.replaced > 0 {
        return Ok(());
    }
    if let Some(login) = login
        && let logins = store.logins_of_batch(batch).await?
        && !logins.is_empty()
    {
        let (batch, login) = (on_one_line(batch), on_one_line(login));
        let words = format!("batch `{batch}` has no job of the login {login}; it has jobs of {}", told(&logins));
        return Err(CommandFailure::not_found(words).into());
    }
    if dropped(batch, store, Counts::default()).await? == 0 {
        find(store, batch).await?;
    }
    let batch = on_one_line(batch);
    let words =
        format!("the jobs of batch `{batch}` are no longer kept: they had ended, and [retention] has dropped them");
    Err(CommandFailure::not_found(words).into())
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

/// One of the files of an export: lines as OpenAI writes them, or a table.
enum Part<'a> {
    Lines(&'a mut (dyn Write + Send)),
    Table(Box<dyn Sheet + 'a>, &'a Layout),
}

impl<'a> Part<'a> {
    fn open(shape: Shape, layout: Option<&'a Layout>, writer: &'a mut (dyn Write + Send)) -> anyhow::Result<Self> {
        match layout.filter(|_| shape.is_table()) {
            Some(layout) => Ok(Self::Table(sheet::open(shape, layout, writer)?, layout)),
            None => Ok(Self::Lines(writer)),
        }
    }

    fn write(&mut self, job: &ExportedJob) -> anyhow::Result<()> {
        match self {
            Self::Lines(writer) => {
                let line = serde_json::to_string(&LineView::of(job)?)?;
                writeln!(writer, "{line}").map_err(|error| OutputError(error).into())
            }
            Self::Table(sheet, layout) => sheet.write(layout, &layout.row(job)?),
        }
    }

    fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(_) => Ok(()),
            Self::Table(sheet, _) => sheet.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_about_jobs_without_an_answer_finds_them() {
        let told = |failed, cancelled| advice("b", &Counts { failed, cancelled, ..Counts::default() }, None, true);
        let (failed, cancelled, both) = (told(1, 0), told(0, 2), told(1, 1));
        assert!(failed.contains("--state failed") && !failed.contains("cancelled"), "{failed}");
        assert!(cancelled.contains("--state cancelled") && !cancelled.contains("failed"), "{cancelled}");
        assert!(!cancelled.contains("report failures"), "it counts failures alone: {cancelled}");
        assert!(both.contains("--state failed") && both.contains("--state cancelled"), "{both}");
        for told in [failed, cancelled, both] {
            assert!(told.contains("sluice batch retry b "), "{told}");
        }
    }
}
