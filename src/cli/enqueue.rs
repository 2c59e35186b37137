//! `sluice enqueue`: puts the requests of a file into the queue, all or none.

mod entry;
mod lines;
mod options;

use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::faults::Faults;
use super::figure;
use super::output::{Dispensable, Format, Output};
use super::results::RowsOf;
use super::rows::{self, For, Rows};
use super::when::GivenTime;
use super::words::about;
use super::{GlobalArgs, budget};
use crate::config::{Config, Keys};
use crate::domain::budget::{Budget, Coverage, Period};
use crate::domain::counted::counted;
use crate::domain::{MaxFailed, NanoUsd, StopLoss};
use crate::exit_code::ExitCode;
use crate::input::{HeldBy, InputError, InputJob, InputSource, LineError, MemberNotes, Opened, Progress, ReadLimits};
use crate::printable::{self, on_one_line};
use crate::store::enqueue::{BulkOptions, NewJob};
use crate::store::stop_loss::StopLossKept;
use crate::store::{Store, StoreError};
use crate::view::change::EnqueuedView;
use crate::view::dollars::Dollars;
use crate::worker::ahead::{Lot, read_ahead};
use anyhow::Context as _;
use chrono::Utc;
use entry::{Entered, Entry, differs};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lines::Lines;
use options::{bulk_options, own_options};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// The longest line that is accepted by default, in MiB.
pub const MAX_LINE: u16 = 32;

/// Arguments of `sluice enqueue`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A file with one request to a line: OpenAI batch lines, request bodies, {"prompt": "…"}, or {"vars": {…}} for
    /// the route's template. Or a table (CSV, TSV, Parquet, JSON Lines) with one to a row. Gzip or plain; without it,
    /// or with -, standard input is read
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The route that the jobs take [default: default; with --resume that of the batch]
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// The project that pays [default: default; with --resume that of the batch]
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// The name under which they are watched, exported and cancelled. The same file goes on with its batch, and nothing
    /// is bought twice; a file with other lines needs --resume, --append or another name [default: the file's name
    /// without its ending; for standard input the time]
    #[arg(long, value_parser = batch_name)]
    pub batch: Option<String>,
    /// Higher goes first, from -1000 to 1000 [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub priority: Option<i16>,
    /// Not before this instant (2026-08-01T06:00:00Z), or this long from now (2h)
    #[arg(long, value_name = "TIME")]
    pub run_at: Option<GivenTime>,
    /// No call after this instant, or this long from now
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<GivenTime>,
    /// Attempts for each job [default: max_attempts of the route]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub max_attempts: Option<i16>,
    /// Pause the batch when more than this share of its jobs fails: 0.05 is one in twenty, 0 the first, 1 never
    /// [default: max_failed of the route, for a batch that has none yet]
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = max_failed)]
    pub max_failed: Option<MaxFailed>,
    /// Pause the batch when more than this share of what its calls cost brings no accepted answer: 0.3 is three tenths;
    /// from ten such calls on [default: max_wasted of the route, for a batch that has none yet]
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true, value_parser = max_failed)]
    pub max_wasted: Option<MaxFailed>,
    /// What the batch may cost in all, in dollars: before each call its worst case has to fit, and without room the
    /// rest waits (docs/budgets.md). Without this option a batch keeps the budget that it has
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true, value_parser = budget::amount)]
    pub max_cost: Option<NanoUsd>,
    /// Only the first N jobs
    #[arg(long, value_name = "N", value_parser = figure::count::<u64>)]
    pub limit: Option<u64>,
    /// Check every line and enqueue nothing; needs no database
    #[arg(long)]
    pub dry_run: bool,
    /// Enqueue the lines that are in order, and only report the others
    #[arg(long)]
    pub skip_bad: bool,
    /// How to treat a batch that exists
    #[command(flatten)]
    pub again: Again,
    /// How a table becomes requests
    #[command(flatten)]
    pub rows: Rows,
    /// The longest line that is accepted, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MAX_LINE, hide_short_help = true,
        value_parser = clap::value_parser!(u16).range(1..=128))]
    pub max_line: u16,
}

impl Args {
    /// How the file is read again, to put the answers beside its rows.
    pub(super) fn rows_of(&self) -> RowsOf {
        RowsOf {
            id_column: self.rows.id_column.clone(),
            format: self.rows.input_format.map(rows::Format::of_input),
            delimiter: self.rows.delimiter,
            limits: ReadLimits { line_bytes: usize::from(self.max_line) << 20 },
            limit: self.limit,
            skips_bad: self.skip_bad,
            skips_absent: self.skip_bad,
        }
    }
}

/// The treatment of an existing batch. Without an option, the command goes on with it and adds nothing to it.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "an option of the command line each")]
pub struct Again {
    /// Add to a batch that exists the lines that it does not have: those that it has are known by custom_id, or by
    /// their content where they have none. Jobs that are there stay as they are, failed ones too (`sluice batch retry`
    /// puts those back)
    #[arg(long, conflicts_with_all = ["append", "replace"])]
    pub resume: bool,
    /// Add every line to a batch that exists, those that it has too
    #[arg(long)]
    pub append: bool,
    /// Let the file take the place of what waits in a batch that exists: its jobs that no worker has in hand are
    /// cancelled, and the lines that it then does not have as they are now are added. What was answered or has begun is
    /// not bought again, unless its line has changed. All or nothing; how many of each is said first
    #[arg(long, conflicts_with_all = ["append", "idempotent"])]
    pub replace: bool,
    /// As --resume, for lines that all have a custom_id; and each job gets the idempotency key BATCH/CUSTOM_ID, so that
    /// no insert or enqueue with that key brings it into the project again. The key does not recognise the same request
    /// in another batch, under another custom_id or without a key. It is kept only as long as its job
    #[arg(long, conflicts_with = "append")]
    pub idempotent: bool,
}

/// A share of jobs that may fail, or of money that may be wasted, as an argument.
///
/// # Errors
/// The fault of the share, and the expected form.
pub(super) fn max_failed(text: &str) -> Result<MaxFailed, String> {
    MaxFailed::parse(text).map_err(|problem| format!("{problem}; expected {}", MaxFailed::EXPECTED))
}

/// A name for a new batch, or of one that goes on: it can be typed again as it is shown.
///
/// # Errors
/// The name is empty, or has characters that a terminal does not show.
pub fn batch_name(text: &str) -> Result<String, String> {
    let shown = on_one_line(text);
    if text.trim().is_empty() {
        Err("a batch needs a name: expected at least one character".to_owned())
    } else if shown == text {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "the name {shown} has characters that cannot be seen, which no one could type again: leave them out"
        ))
    }
}

/// The result of an enqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The name of the batch.
    pub batch: String,
    /// What holds a job in the file.
    pub unit: HeldBy,
    /// Jobs that are in the queue now or, with `--dry-run`, would be.
    pub jobs: u64,
    /// Jobs that were left out because the queue had them already.
    pub existing: u64,
    /// Faulty lines that were left out.
    pub faulty: u64,
    /// The number under which the jobs that were added can be cancelled.
    pub enqueue: Option<i64>,
    /// Members that are sent although no provider is known to take them, and how many lines have each.
    pub unknown_members: BTreeMap<String, u64>,
    /// Further remarks for the user.
    pub remarks: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let shows_progress = printable::stderr_is_terminal() && !global.quiet;
    let mut stderr = Dispensable(printable::stderr());
    if args.dry_run {
        let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)?;
        let summary = enqueue(&args, None, &config, shows_progress, &mut stderr).await?;
        let mut output = Output::new(global);
        tell(&args, &summary, &mut output)?;
        output.finish()?;
    } else {
        let mut context = Context::open_if(global, |config| require_input(&args, config)).await?;
        let summary = enqueue(&args, Some(&context.store), &context.config, shows_progress, &mut stderr).await?;
        tell(&args, &summary, &mut context.output)?;
        context.close().await?;
    }
    Ok(ExitCode::Success)
}

/// Reads, checks and enqueues; without a store, only reads and checks. Faulty lines are reported on `faults`.
///
/// # Errors
/// [`CommandFailure`] when the arguments do not go together or the input is faulty; nothing was enqueued in that case.
pub async fn enqueue(
    args: &Args,
    store: Option<&Store>,
    config: &Config,
    shows_progress: bool,
    faults: &mut (dyn Write + Send),
) -> anyhow::Result<Summary> {
    load(args, store, config, shows_progress, faults).await?.end().await
}

/// What can be found wrong with the arguments and the file before there is a database: the file is opened, and its
/// columns are compared with the question. Nothing is read of a pipe, which can be read only once.
///
/// # Errors
/// [`CommandFailure`], as [`load`] finds it.
pub(super) fn require_input(args: &Args, config: &Config) -> anyhow::Result<()> {
    let source = InputSource::new(args.file.as_deref());
    let options = bulk_options(args, &source, Utc::now())?;
    // The route of a batch that goes on is known by the database.
    let is_told = args.route.is_some() || !args.again.resume;
    if is_told {
        require_route(config, &options.route)?;
    }
    if is_told && source.stem().is_some() {
        open(args, &source, config, &options)?;
    }
    Ok(())
}

/// Opens the file, to make jobs of it.
fn open(args: &Args, source: &InputSource, config: &Config, options: &BulkOptions) -> anyhow::Result<Opened> {
    let limits = ReadLimits { line_bytes: usize::from(args.max_line) << 20 };
    let jobs = For { config, route: &options.route, project: &options.project, batch: options.batch.as_deref() };
    let reading = args.rows.reading(limits, &jobs)?;
    Ok(source.read(reading).map_err(|error| CommandFailure::input(format!("{}: {error}", source.name())))?)
}

/// The first part of [`enqueue`]: its jobs are invisible before [`Loading::end`].
pub(super) async fn load<'a>(
    args: &'a Args,
    store: Option<&Store>,
    config: &Config,
    shows_progress: bool,
    faults: &'a mut (dyn Write + Send),
) -> anyhow::Result<Loading<'a>> {
    let source = InputSource::new(args.file.as_deref());
    let now = Utc::now();
    let mut options = bulk_options(args, &source, now)?;
    let entry = match store {
        Some(store) => {
            let is_made_up = args.batch.is_none() && source.stem().is_none();
            Some(Entry::of(args, is_made_up, store, &mut options).await?)
        }
        None => None,
    };
    require_route(config, &options.route)?;
    let opened = open(args, &source, config, &options)?;
    let (mut remarks, mut stop_loss) = (Vec::new(), StopLoss::default());
    let entered = match (store, entry) {
        (Some(store), Some(entry)) => {
            let of_route = config.routes.get(&options.route).map(|route| route.stop_loss).unwrap_or_default();
            stop_loss = allowed_stop_loss(args, of_route, store, &mut remarks).await?;
            if args.max_cost.is_some() && !store.may_set_budgets().await? {
                return Err(CommandFailure::usage(
                    "--max-cost: this login may not set budgets; nothing was enqueued. Use a login with the role \
                     sluice_worker, or leave out --max-cost",
                )
                .into());
            }
            let mut entered = entry.open(args, store, &mut options, faults).await?;
            if let (Some(limit), Some(batch)) = (args.max_cost, options.batch.as_deref()) {
                entered.bulk.set_budget(limit);
                remarks.extend(another_budget(store, batch, limit).await?);
            }
            Some(entered)
        }
        _ => None,
    };
    let batch = options.batch.clone().unwrap_or_default();
    let needs_name = args.again.idempotent;
    let Opened { jobs, progress, unit } = opened;
    let jobs = jobs.map(move |job| job.and_then(|job| in_order(job, needs_name)));
    let (mut lots, is_whole) = read_ahead(jobs, args.limit)?;
    let mut loading = Loading {
        args,
        batch,
        entered,
        faults: Faults::new(source.name(), unit, faults),
        unit,
        lines: Lines::default(),
        notes: MemberNotes::default(),
        remarks,
        stop_loss,
    };
    let bar = progress_bar(shows_progress, &progress);
    while let Some(lot) = lots.recv().await {
        loading.take(lot, &bar).await?;
        bar.set_position(progress.done());
        bar.set_message(counted(loading.lines.jobs(), "job", "jobs"));
    }
    bar.finish_and_clear();
    if !is_whole.load(Ordering::Acquire) {
        let name = source.name();
        return Err(CommandFailure::input(format!("{name}: reading it broke off; nothing was enqueued")).into());
    }
    Ok(loading)
}

/// A word where the batch had another budget before.
async fn another_budget(store: &Store, batch: &str, limit: NanoUsd) -> anyhow::Result<Option<String>> {
    let name = Budget::name_of_batch(batch);
    let known = store.budgets().await?.budgets.0;
    let before = known.iter().map(|standing| &standing.budget).find(|budget| budget.name == name);
    let covers_it = |budget: &&Budget| {
        budget.period == Period::Once && budget.scope == Coverage::Batch(batch.to_owned()) && budget.name != name
    };
    if let Some(other) = known.iter().map(|standing| &standing.budget).find(covers_it) {
        let raise = about("sluice budget raise", &other.name, &Dollars(limit).to_string());
        return Err(CommandFailure::usage(format!(
            "--max-cost: the budget {} is one of this batch already, of {}; nothing was enqueued. Leave out \
             --max-cost, and change that one: `{raise}`",
            other.name, other.limit
        ))
        .into());
    }
    if let Some(other) = before.filter(|budget| budget.scope != Coverage::Batch(batch.to_owned())) {
        return Err(CommandFailure::usage(format!(
            "--max-cost: the budget {name} covers {}, and would be lost; nothing was enqueued. Give that one another \
             name first",
            other.scope
        ))
        .into());
    }
    Ok(before.filter(|budget| budget.limit != limit).map(|before| {
        let batch = on_one_line(batch);
        format!("the budget of batch {batch} is {limit} from now on; it was {}", before.limit)
    }))
}

/// The stop-loss that the batch gets: that of the arguments, or else the route's.
async fn allowed_stop_loss(
    args: &Args,
    of_route: StopLoss,
    store: &Store,
    remarks: &mut Vec<String>,
) -> anyhow::Result<StopLoss> {
    let own = StopLoss { max_failed: args.max_failed, max_wasted: args.max_wasted };
    let stop_loss = own.or(of_route);
    if stop_loss.is_empty() || store.may_set_stop_losses().await? {
        return Ok(stop_loss);
    }
    if !own.is_empty() {
        let option = if own.max_failed.is_some() { "--max-failed" } else { "--max-wasted" };
        return Err(CommandFailure::usage(format!(
            "{option}: this login may not pause batches, so it may not give them a stop-loss; nothing was enqueued. \
             Use a login with the role sluice_worker, or leave out {option}"
        ))
        .into());
    }
    remarks.push(
        "the batch has no stop-loss: this login may not pause batches. A login with the role sluice_worker gives it \
         one with `sluice batch stop-loss`"
            .to_owned(),
    );
    Ok(StopLoss::default())
}

/// Checks the route's name: a typing error would be noticed only when no worker takes the jobs.
fn require_route(config: &Config, route: &str) -> Result<(), CommandFailure> {
    if config.routes.is_empty() || config.routes.contains_key(route) {
        return Ok(());
    }
    let known: Vec<&str> = config.routes.keys().map(String::as_str).collect();
    Err(CommandFailure::not_found(format!(
        "there is no route `{route}` in the configuration; there are: {}",
        known.join(", ")
    )))
}

/// Checks the demands that only some arguments make on a line.
fn in_order(job: InputJob, needs_name: bool) -> Result<InputJob, InputError> {
    if needs_name && job.custom_id.is_none() {
        let reason = "is missing, and --idempotent knows jobs by it".to_owned();
        return Err(InputError::Line(LineError { line: job.line, field: "custom_id".to_owned(), reason }));
    }
    Ok(job)
}

/// An enqueue under way.
pub(super) struct Loading<'a> {
    args: &'a Args,
    batch: String,
    /// `None` when nothing is to be enqueued, or no longer.
    entered: Option<Entered>,
    faults: Faults<'a>,
    unit: HeldBy,
    lines: Lines,
    notes: MemberNotes,
    remarks: Vec<String>,
    /// The stop-loss that the batch gets.
    stop_loss: StopLoss,
}

impl Loading<'_> {
    async fn take(&mut self, lot: Lot, bar: &ProgressBar) -> anyhow::Result<()> {
        for job in lot {
            match job {
                Ok(job) => self.push(&job).await?,
                Err(InputError::Line(fault)) => bar.suspend(|| self.report(&fault))?,
                // A file that breaks off is not a file with a bad line: --skip-bad must not take it for complete.
                Err(error @ InputError::Read { .. }) => {
                    return Err(
                        CommandFailure::input(format!("{}:{error}; nothing was enqueued", self.faults.file())).into()
                    );
                }
            }
        }
        Ok(())
    }

    async fn push(&mut self, job: &InputJob) -> anyhow::Result<()> {
        self.lines.note(job.line);
        self.notes.add(job.line, &job.notes);
        if let Some(Entered { bulk, .. }) = &mut self.entered {
            let named = job.custom_id.as_deref().filter(|_| self.args.again.idempotent);
            let key = named.map(|custom_id| format!("{}/{custom_id}", self.batch));
            let new_job = NewJob {
                custom_id: job.custom_id.as_deref(),
                idempotency_key: key.as_deref(),
                metadata: job.metadata.as_deref(),
                request: &job.body,
            };
            bulk.push(&new_job).await.map_err(|error| refusal(error, self.faults.file(), &self.lines))?;
        }
        Ok(())
    }

    fn report(&mut self, fault: &LineError) -> anyhow::Result<()> {
        if !self.args.skip_bad {
            // Nothing will be enqueued: the rest is read only to find its faults.
            self.entered = None;
        }
        self.faults.report(fault).context("reporting a faulty line")
    }

    /// What holds a job, if there are jobs that [`end`](Self::end) enqueues.
    pub(super) fn holds(&self) -> Option<HeldBy> {
        let is_in_order = self.args.skip_bad || self.faults.count() == 0;
        (is_in_order && self.lines.jobs() > 0).then_some(self.unit)
    }

    /// Makes all jobs visible at once, unless there were faults.
    pub(super) async fn end(self) -> anyhow::Result<Summary> {
        let Self { args, batch, entered, mut faults, unit, lines, notes, mut remarks, stop_loss } = self;
        let jobs = lines.jobs();
        faults.end().context("reporting faulty lines")?;
        for sentence in notes.sentences() {
            faults.warn(&sentence).context("reporting members")?;
        }
        let unknown_members = notes.unknown().into_iter().map(|(name, lines)| (name.to_owned(), lines)).collect();
        let (name, faulty) = (faults.file(), faults.count());
        if faulty > 0 && !args.skip_bad {
            let message =
                format!("{name}: {}; nothing was enqueued (--skip-bad enqueues the others)", faults.share(jobs));
            return Err(CommandFailure::input(message).into());
        }
        if jobs == 0 {
            let what = match unit {
                _ if faulty > 0 => format!("every {} is faulty", unit.words().0),
                HeldBy::Line => "there are no jobs in it".to_owned(),
                HeldBy::Row => "there are no rows in it".to_owned(),
            };
            return Err(CommandFailure::input(format!("{name}: {what}; nothing was enqueued")).into());
        }
        let Some(Entered { bulk, before, may_grow }) = entered else {
            return Ok(Summary { batch, unit, jobs, faulty, unknown_members, ..Summary::default() });
        };
        let kept = StopLossKept { max_failed: args.max_failed.is_none(), max_wasted: args.max_wasted.is_none() };
        let stop_loss = Some((stop_loss, kept)).filter(|(stop_loss, _)| !stop_loss.is_empty());
        let committed =
            if may_grow { bulk.commit_with(stop_loss).await } else { bulk.commit_if_known(stop_loss).await };
        let enqueued = committed.map_err(|error| refusal(error, name, &lines))?;
        if enqueued.is_given_up {
            return Err(differs(&batch, &before.unwrap_or_default(), &enqueued, unit, args).into());
        }
        if let Some(custom_id) = enqueued.changed {
            remarks.push(format!(
                "warning: batch {} has another request under the custom_id `{}`, and perhaps under others. Lines are \
                 known by their custom_id, so it was left out; to ask anew, choose another --batch",
                on_one_line(&batch),
                on_one_line(&custom_id)
            ));
        }
        if let Some(remark) = own_options(args).filter(|_| before.is_some() && enqueued.existing > 0) {
            remarks.push(remark);
        }
        let (jobs, existing, enqueue) = (enqueued.jobs, enqueued.existing, enqueued.number);
        Ok(Summary { batch, unit, jobs, existing, faulty, enqueue, unknown_members, remarks })
    }
}

/// The failure to enqueue: with file and line where one line is refused by the database.
fn refusal(error: StoreError, file: &str, lines: &Lines) -> anyhow::Error {
    match error {
        StoreError::Refused { job, reason } => {
            CommandFailure::input(format!("{file}:{}: {reason}; nothing was enqueued", lines.of(job))).into()
        }
        error => error.into(),
    }
}

fn progress_bar(is_shown: bool, progress: &Progress) -> ProgressBar {
    if !is_shown {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(progress.total, ProgressDrawTarget::stderr());
    let template = match progress.total {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {msg} {eta}",
        None => "{spinner} {bytes} {msg}",
    };
    ProgressStyle::with_template(template).map_or(bar.clone(), |style| bar.with_style(style))
}

fn tell(args: &Args, summary: &Summary, output: &mut Output) -> anyhow::Result<()> {
    let Summary { batch, unit, jobs, existing, faulty, enqueue, unknown_members, remarks } = summary;
    for remark in remarks {
        output.note(remark);
    }
    let view = EnqueuedView {
        batch,
        jobs: *jobs,
        existing: *existing,
        faulty: *faulty,
        enqueue: *enqueue,
        dry_run: args.dry_run,
        unknown_members,
    };
    match output.format() {
        Format::Table => {
            let done = if args.dry_run {
                format!("{}; nothing was enqueued (--dry-run)", counted(jobs, "job is in order", "jobs are in order"))
            } else {
                format!("enqueued {} as batch {batch}", counted(jobs, "job", "jobs"))
            };
            let before = if *existing > 0 {
                format!(", {} there before", counted(existing, "was", "were"))
            } else {
                String::new()
            };
            let left_out = if *faulty > 0 {
                let (one, many) = unit.words();
                let lines = counted(faulty, &format!("faulty {one} was"), &format!("faulty {many} were"));
                format!(", {lines} left out")
            } else {
                String::new()
            };
            let number = enqueue.map_or_else(String::new, |number| format!(" (enqueue {number})"));
            output.line(format_args!("{done}{before}{left_out}{number}"))?;
        }
        Format::Json => output.json(&view)?,
        Format::Plain | Format::Csv => output.table(&view.table())?,
    }
    Ok(())
}
