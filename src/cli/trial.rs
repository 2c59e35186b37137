//! `sluice trial`: the same few requests, asked of each rung of a route, before the whole file is paid for.

use super::GlobalArgs;
use super::batch::find;
use super::context::Context;
use super::enqueue::batch_name;
use super::estimate::{each_job, route_of};
use super::failure::CommandFailure;
use super::out_file::{OutFile, require_apart};
use super::output::{Dispensable, Format, Output, OutputError};
use super::results::each_of_batch;
use super::rows::{For, Rows, of_route_alone};
use super::run::{outlive_hangups, rehearse, work};
use super::today;
use super::when::GivenTime;
use super::words::{about, beginning, option, path};
use super::worker::{blueprint, went_down};
use crate::config::{Config, RouteConfig};
use crate::domain::counted::counted;
use crate::domain::file_estimate::FileEstimate;
use crate::domain::strategy::{self, Conditions};
use crate::domain::trial::{self, Climbed, Sample, TriedCall};
use crate::domain::{
    Cascade, ChatRequest, Confidence, ErrorClass, JobId, Message, MustKeep, Role, Route, Rung, Spent, Target, bounds,
    estimate, per_answer,
};
use crate::exit_code::ExitCode;
use crate::input::{InputJob, InputSource, ReadLimits, Reading};
use crate::printable::{self, on_one_line};
use crate::shutdown::Signals;
use crate::store::Store;
use crate::store::enqueue::{Admission, BulkOptions, NewJob, Opened};
use crate::store::report::{Filter, Grouping, Totals};
use crate::store::results::EndedJob;
use crate::view::table::Table;
use crate::view::trial::{Comparison, RungAnswer, RungTrial, page, table, thresholds};
use crate::worker::plan::{Blueprint, Plan};
use chrono::Utc;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The most characters of a rejected answer that are written.
const REJECTED: i32 = 20_000;

/// Ask each rung of a route the same requests, and compare the answers.
///
/// The requests are drawn from the whole file: always the same ones for the same file and number. They become ordinary
/// jobs of one batch, with a job for each rung; limits, prices, rules for answers, retries and the ledger are those of
/// the route. No job moves to another rung. No other worker takes them. The exit status is 0 when all have ended,
/// whatever the rungs have answered. Their custom ids are LINE-HASH/TARGET.
///
/// `rejected` are answers that broke a rule, and `unanswered` the calls that brought no answer. `cost` is the known
/// cost of all calls, and `cost per answer` divides it by the accepted answers. `whole file` is what the file would
/// cost on that rung alone at the same rate; longer requests count for more.
///
/// For a route with a `cascade`, a second table shows what it would have made of the sample with each of a few
/// thresholds, from the same calls: how many answers of the first rung were `kept`, how many requests would have been
/// `climbing`, and what all that would have cost. `unsure` answers are those that are taken because no surer one came.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "trial")]
pub struct Args {
    /// A file as for `sluice enqueue`; without it, or with -, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The route whose rungs are compared
    #[arg(long, default_value = "default")]
    pub route: String,
    /// How many requests each rung is asked, at most 1000
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub requests: u16,
    /// Where the answers go, - is standard output: a line of JSON for each request, with the answers of all rungs. A
    /// file whose name ends with .md is written for reading
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
    /// The project that pays
    #[arg(long, value_name = "PROJECT", default_value = "default",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub project: String,
    /// The name of its batch; with that of an earlier trial of the same file it goes on with that one
    /// [default: trial, the file's name and the time]
    #[arg(long, value_parser = batch_name)]
    pub batch: Option<String>,
    /// Requests without an answer by this instant, or this long from now, are cancelled: a rung whose model is unknown,
    /// or whose key is refused, would otherwise be waited for. A trial that goes on begins the time anew
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub deadline: GivenTime,
    /// Show the table of thresholds alone, as formats for programs need it; for a route with a `cascade`
    #[arg(long)]
    pub thresholds: bool,
    /// Draw from the lines that are in order, and only report the others
    #[arg(long)]
    pub skip_bad: bool,
    /// How a table becomes requests
    #[command(flatten)]
    pub rows: Rows,
}

/// The part of the file that was read.
struct Drawn {
    /// Jobs of the file.
    jobs: u64,
    /// What all of them would cost.
    whole: FileEstimate,
    /// What those that were drawn would cost.
    part: FileEstimate,
    /// Those that were drawn, by line.
    requests: BTreeMap<u64, InputJob>,
}

/// Runs the command.
pub async fn run(args: &Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let source = InputSource::new(args.file.as_deref());
    if let Some(output) = &args.output {
        require_apart(output, None, Some(args.file.as_deref().unwrap_or(Path::new("-"))))?;
    }
    let signals = Signals::listen()?;
    outlive_hangups()?;
    let check = |config: &Config| Ok(route_of(config, &args.route).map(|_| ())?);
    let mut context = Context::open_for_run(global, check).await?;
    let mut output = std::mem::replace(&mut context.output, Output::for_progress(global));
    let route = route_of(&context.config, &args.route)?.clone();
    let routes = routes(&route)?;
    if args.thresholds && route.route.cascade.is_none() {
        let name = &route.route.name;
        let problem = format!("--thresholds: route {name} has no `cascade`, so that it has no threshold");
        return Err(CommandFailure::usage(problem).into());
    }
    let options = options(args, &source)?;
    let batch = options.batch.clone().unwrap_or_default();
    let time = time(args)?;
    // Before anything is enqueued: an impossible output should not be discovered after the money is spent.
    let answers = args.output.as_deref().map(|path| OutFile::create(path, args.force)).transpose()?;
    let drawn = draw(args, &source, &context.config, &route.route)?;
    let plan = Plan::new(&of_trial(blueprint(&context.config), routes.clone()))?;
    rehearse(&context).await?;
    require_same(&drawn, &context.store, &batch, &routes).await?;
    for rung in &routes {
        let options = BulkOptions { route: rung.name.clone(), ..options.clone() };
        let enqueueing = enqueue(&drawn, &context.store, options, rung);
        tokio::select! {
            enqueued = enqueueing => enqueued?,
            () = signals.stop.cancelled() => return interrupted(args, global, &batch, context).await,
        }
    }
    context.output.note(format_args!(
        "{} of {}, asked of {}: batch {}",
        counted(drawn.requests.len(), "request", "requests"),
        drawn.jobs,
        counted(routes.len(), "rung", "rungs each"),
        on_one_line(&batch)
    ));
    if find(&context.store, &batch).await?.unfinished() > 0 {
        let ending = tokio::spawn(cancel_after(time, context.store.clone(), batch.clone()));
        let worked = work(&mut context, plan, &batch, &signals, false).await;
        ending.abort();
        let worked = worked?.summary;
        if let Ok(Some(remark)) = ending.await {
            context.output.note(remark);
        }
        if find(&context.store, &batch).await?.unfinished() > 0 {
            if let Some(version) = worked.outgrown {
                version.require()?;
            }
            went_down(&worked)?;
            return interrupted(args, global, &batch, context).await;
        }
    }
    let rungs = figures(&context.store, &batch, &route.route, &drawn).await?;
    let is_for_people = matches!(output.format(), Format::Table);
    if !args.thresholds {
        output.table(&table(&rungs))?;
    }
    if let Some(cascade) = route.route.cascade.as_ref().filter(|_| args.thresholds || is_for_people) {
        if !args.thresholds {
            output.line("")?;
        }
        output.table(&by_threshold(&context.store, &batch, (&route.route, cascade), &drawn).await?)?;
    }
    output.finish()?;
    if let (Some(mut file), Some(path)) = (answers, &args.output) {
        let is_page = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md"));
        write_answers(&mut file, is_page, compare(&context.store, &batch, &route.route, &drawn).await?, &drawn)?;
        file.finish()?;
    } else {
        context.output.note(format_args!("`{}` writes the answers", about("sluice results", &batch, "-o FILE")));
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

/// The routes of the trial. No route of a configuration has such a name.
fn routes(route: &RouteConfig) -> Result<Vec<Arc<Route>>, CommandFailure> {
    let routes: Vec<_> = trial::routes(&route.route).map(Arc::new).collect();
    for rung in &routes {
        bounds::check("route", &rung.name).map_err(|reason| {
            CommandFailure::usage(format!("--route: the name of the route that a trial of it needs {reason}"))
        })?;
    }
    Ok(routes)
}

/// What the jobs of the trial have in common; their routes are filled in later.
fn options(args: &Args, source: &InputSource) -> Result<BulkOptions, CommandFailure> {
    let now = Utc::now();
    let made_up = || {
        let stem = source.stem();
        format!("trial-{}-{}", stem.as_deref().unwrap_or("stdin"), now.format("%Y%m%d-%H%M%S"))
    };
    let batch = args.batch.clone().unwrap_or_else(made_up);
    for (column, name) in [("batch", &batch), ("project", &args.project)] {
        bounds::check(column, name).map_err(|reason| CommandFailure::usage(format!("--{column}: {reason}")))?;
    }
    Ok(BulkOptions {
        route: String::new(),
        project: args.project.clone(),
        batch: Some(batch),
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    })
}

/// How long the trial may take from now on.
fn time(args: &Args) -> Result<Duration, CommandFailure> {
    let now = Utc::now();
    let deadline = args.deadline.from(now);
    let deadline = deadline.ok_or_else(|| CommandFailure::usage("--deadline: that is too far in the future"))?;
    let time = (deadline - now).to_std().ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| CommandFailure::usage("--deadline: every request would be cancelled, as it lies in the past"))
}

/// Cancels the open jobs of a batch after this time; returns the reason for which they waited.
async fn cancel_after(time: Duration, store: Store, batch: String) -> Option<String> {
    tokio::time::sleep(time).await;
    loop {
        let waits_for = store.batch_obstacle(&batch).await.ok().flatten();
        match store.cancel_batch(&batch, |_| {}).await {
            Ok(0) => return None,
            Ok(cancelled) => {
                let waited =
                    waits_for.map_or_else(String::new, |why| format!("; the first waited for: {}", why.in_words()));
                let jobs = counted(cancelled, "request had", "requests had");
                return Some(format!("the deadline is over: {jobs} no answer yet and are cancelled{waited}"));
            }
            // The worker waits for the database, too.
            Err(error) => tracing::debug!(error = %error, "the trial cannot be cancelled at the moment"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The configuration for work on the trial alone. Failures open no breaker: what a rung makes of its sample is the
/// result, and a rung with many failures would otherwise be waited for.
fn of_trial(mut blueprint: Blueprint, routes: Vec<Arc<Route>>) -> Blueprint {
    for provider in blueprint.providers.values_mut() {
        provider.setup.breaker.min_calls = u32::MAX;
        provider.quality.min_calls = u32::MAX;
    }
    Blueprint { routes, ..blueprint }
}

/// Reads the file and draws from it.
fn draw(args: &Args, source: &InputSource, config: &Config, route: &Arc<Route>) -> anyhow::Result<Drawn> {
    let jobs = For { config, route: &args.route, project: &args.project, batch: args.batch.as_deref() };
    let reading = args.rows.reading(ReadLimits::default(), &jobs)?;
    // The rules of the route lead no request of a trial away from it.
    let reading = Reading { completion: of_route_alone(route), ..reading };
    let mut sample = Sample::of(usize::from(args.requests));
    let refuses = |rung: &Rung, request: &ChatRequest, must_keep: &MustKeep| config.refusal(rung, request, must_keep);
    let now = today::now();
    let (mut whole, mut part) = (FileEstimate::new(route, now), FileEstimate::new(route, now));
    let jobs = each_job(source, reading, None, args.skip_bad, &mut Dispensable(printable::stderr()), |job| {
        whole.add(route, &job.request, &refuses);
        sample.offer(job.line, || job);
    })?;
    let requests = sample.into_lines();
    for job in requests.values() {
        part.add(route, &job.request, &refuses);
    }
    Ok(Drawn { jobs, whole, part, requests })
}

/// Checks that a batch holds no other requests than those that were drawn, asked of the same rungs: its figures are of
/// all that it holds.
async fn require_same(drawn: &Drawn, store: &Store, batch: &str, routes: &[Arc<Route>]) -> anyhow::Result<()> {
    let so_far = store.batch_so_far(batch).await?;
    let shown = on_one_line(batch);
    let tries = routes.first().and_then(|rung| trial::tried(&rung.name)).unwrap_or_default();
    if !so_far.routes.iter().all(|known| trial::tried(known) == Some(tries)) {
        return Err(CommandFailure::usage(format!(
            "batch {shown} exists and is no trial of route {tries}: its jobs take {}; nothing was enqueued. Choose \
             another --batch",
            so_far.routes.join(", ")
        ))
        .into());
    }
    let expected: HashSet<String> = routes.iter().flat_map(|rung| drawn.custom_ids(rung)).collect();
    each_of_batch(store, batch, None, |job| match job.custom_id {
        Some(custom_id) if expected.contains(&custom_id) => Ok(()),
        custom_id => Err(CommandFailure::usage(format!(
            "batch {shown} is a trial of another file, of more requests or of other rungs: it has {}, which is not \
             among those that would be asked now; nothing was enqueued. Say the same file, route and -n (or a larger \
             one), or choose another --batch",
            custom_id.as_deref().unwrap_or("a job without a custom id")
        ))
        .into()),
    })
    .await
}

impl Drawn {
    /// The custom ids of the jobs for this rung.
    fn custom_ids(&self, rung: &Route) -> impl Iterator<Item = String> {
        let target = rung.rungs.first().map(|rung| rung.target.to_string()).unwrap_or_default();
        self.requests.iter().map(move |(line, job)| trial::custom_id(*line, &job.body, &target))
    }
}

/// Enqueues the drawn jobs for one rung, except those that an earlier run of the same trial has enqueued.
async fn enqueue(drawn: &Drawn, store: &Store, options: BulkOptions, rung: &Route) -> anyhow::Result<()> {
    let batch = options.batch.clone().unwrap_or_default();
    let mut bulk = match store.enqueue_into(options, Admission::Resume { wait: true }).await? {
        Opened::Open { bulk, .. } => bulk,
        Opened::Lost(..) | Opened::Busy | Opened::Exists(_) => {
            return Err(CommandFailure::usage(format!(
                "jobs of batch {} are no longer kept, so the trial cannot go on; choose another --batch",
                on_one_line(&batch)
            ))
            .into());
        }
    };
    for (custom_id, job) in drawn.custom_ids(rung).zip(drawn.requests.values()) {
        let new_job = NewJob {
            custom_id: Some(&custom_id),
            idempotency_key: None,
            metadata: job.metadata.as_deref(),
            request: &job.body,
        };
        bulk.push(&new_job).await?;
    }
    bulk.commit().await?;
    Ok(())
}

/// Tells how to go on with a trial that was stopped.
async fn interrupted(args: &Args, global: &GlobalArgs, batch: &str, context: Context) -> anyhow::Result<ExitCode> {
    // Printed even with --quiet: nothing else tells how to go on.
    let _ = writeln!(printable::stderr(), "{}", resume_line(args, global, batch));
    context.close().await?;
    Ok(ExitCode::Interrupted)
}

fn resume_line(args: &Args, global: &GlobalArgs, batch: &str) -> String {
    let drop = about("sluice batch cancel", batch, "");
    let Some(file) = args.file.as_deref().filter(|file| *file != Path::new("-")) else {
        return format!("stopped. Go on with the same input and {}, or drop the rest: {drop}", option("batch", batch));
    };
    let mut words = beginning(global);
    words.extend(["trial".to_owned(), path(file), option("route", &args.route), format!("-n {}", args.requests)]);
    words.push(option("batch", batch));
    words.push(option("deadline", &args.deadline.to_string()));
    if args.project != "default" {
        words.push(option("project", &args.project));
    }
    if args.thresholds {
        words.push("--thresholds".to_owned());
    }
    if args.skip_bad {
        words.push("--skip-bad".to_owned());
    }
    words.extend(args.rows.words());
    if let Some(output) = &args.output {
        words.extend(["-o".to_owned(), path(output)]);
    }
    if args.force {
        words.push("--force".to_owned());
    }
    format!("stopped. Go on with:\n  {}\nor drop the rest:\n  {drop}", words.join(" "))
}

/// What each rung has made of the sample, from the sums.
async fn figures(store: &Store, batch: &str, route: &Route, drawn: &Drawn) -> anyhow::Result<Vec<RungTrial>> {
    let filter = Filter { batch: Some(batch.to_owned()), ..Filter::default() };
    let by = [Grouping::Route, Grouping::Class, Grouping::Detail];
    let rows = store.totals(&by, &filter).await?;
    let latencies = store.latencies(&[Grouping::Route], &filter).await?;
    let mut rungs = Vec::with_capacity(route.rungs.len());
    for (index, rung) in route.rungs.iter().enumerate() {
        let own = trial::route_name(&route.name, &rung.target);
        let mut figures = of_sums(rows.iter().filter(|row| row.keys.get(Grouping::Route) == Some(&own)));
        figures.target = rung.target.to_string();
        if let Some(latency) = latencies.iter().find(|latency| latency.keys.get(Grouping::Route) == Some(&own)) {
            (figures.p50_ms, figures.p95_ms) = (latency.p50_ms, latency.p95_ms);
        }
        let expected = |estimate: &FileEstimate| estimate.rungs.get(index).and_then(|rung| rung.expected);
        let requests = (drawn.jobs, u64::try_from(drawn.requests.len()).unwrap_or(u64::MAX));
        // A rung without an accepted answer would do nothing with the file, at any cost.
        figures.whole_file = figures
            .cost
            .filter(|_| figures.accepted > 0)
            .and_then(|cost| trial::of_the_whole(cost, expected(&drawn.whole).zip(expected(&drawn.part)), requests));
        rungs.push(figures);
    }
    Ok(rungs)
}

/// The figures of a rung, from the sums of its route by class and detail.
fn of_sums<'a>(rows: impl Iterator<Item = &'a Totals>) -> RungTrial {
    let (mut figures, mut spent) = (RungTrial::default(), Spent::default());
    for row in rows {
        let [class, detail] = [Grouping::Class, Grouping::Detail].map(|part| row.keys.get(part).unwrap_or_default());
        figures.asked += row.enqueued;
        figures.accepted += row.succeeded;
        figures.failed += row.failed;
        figures.cancelled += row.cancelled;
        figures.attempts += row.attempts;
        figures.input_tokens = figures.input_tokens.saturating_add(row.input_tokens);
        figures.output_tokens = figures.output_tokens.saturating_add(row.output_tokens);
        spent.cost += row.cost;
        spent.uncertain += row.uncertain;
        spent.unpriced += row.unpriced;
        spent.accepted += row.succeeded;
        if row.attempts > 0 && class == ErrorClass::SoftFailure.as_str() {
            figures.rejected.push((detail.to_owned(), row.attempts));
        } else if row.attempts > 0 && !class.is_empty() {
            match figures.unanswered.iter_mut().find(|(known, _)| known == class) {
                Some((_, calls)) => *calls += row.attempts,
                None => figures.unanswered.push((class.to_owned(), row.attempts)),
            }
        }
    }
    for kinds in [&mut figures.rejected, &mut figures.unanswered] {
        kinds.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    }
    figures.cost = per_answer::known_cost(spent.cost, spent.unpriced, figures.attempts);
    figures.per_answer = Some(spent.per_answer());
    figures
}

/// What the cascade of the route would have made of the sample with each of a few thresholds.
async fn by_threshold(
    store: &Store,
    batch: &str,
    (route, cascade): (&Route, &Cascade),
    drawn: &Drawn,
) -> anyhow::Result<Table> {
    let mut made: HashMap<String, TriedCall> = HashMap::new();
    each_of_batch(store, batch, None, |job| {
        let accepted = matches!(job.ending, Some(EndedJob::Succeeded { .. }));
        let confidence = job.confidence.and_then(Confidence::of);
        made.extend(job.custom_id.map(|custom_id| (custom_id, TriedCall { accepted, confidence, cost: job.cost })));
        Ok(())
    })
    .await?;
    let now = today::now();
    let in_order = |(line, job): (&u64, &InputJob)| {
        let (input_tokens, max_output_tokens) = (estimate::input_tokens(&job.request), job.request.max_tokens);
        let seen =
            Conditions { input_tokens, max_output_tokens, hash: None, sticky: None, spent: None, now, rungs: &[] };
        let mut order = Vec::new();
        strategy::order(route, &seen, &mut order);
        let target = |index: usize| Some(&route.rungs.get(index)?.target);
        let of = |target| {
            let custom_id = trial::custom_id(*line, &job.body, target);
            (target, made.get(&custom_id).copied().unwrap_or_default())
        };
        order.into_iter().filter_map(target).map(of).collect::<Vec<_>>()
    };
    let sample: Vec<Vec<(&Target, TriedCall)>> = drawn.requests.iter().map(in_order).collect();
    let climbed: Vec<Climbed> = trial::thresholds(cascade, &sample)
        .into_iter()
        .map(|at_least| trial::climb(cascade, at_least, &sample))
        .collect();
    let requests = (drawn.jobs, u64::try_from(drawn.requests.len()).unwrap_or(u64::MAX));
    let first = |estimate: &FileEstimate| estimate.rungs.first().and_then(|rung| rung.expected);
    let expected = first(&drawn.whole).zip(first(&drawn.part));
    Ok(thresholds(&climbed, |cost| trial::of_the_whole(cost, expected, requests)))
}

/// The answers of all rungs to each request that was drawn.
async fn compare(store: &Store, batch: &str, route: &Route, drawn: &Drawn) -> anyhow::Result<Vec<Comparison>> {
    let mut places = HashMap::new();
    let mut compared = Vec::with_capacity(drawn.requests.len());
    for (place, (line, job)) in drawn.requests.iter().enumerate() {
        let targets = route.rungs.iter().map(|rung| &rung.target);
        for (rung, target) in targets.clone().enumerate() {
            places.insert(trial::custom_id(*line, &job.body, target), (place, rung));
        }
        let rungs = targets.map(|target| RungAnswer::missing(&target.to_string())).collect();
        compared.push(Comparison { line: *line, custom_id: job.custom_id.clone(), rungs });
    }
    each_of_batch(store, batch, None, |job| {
        let place = job.custom_id.as_deref().and_then(|custom_id| places.get(custom_id));
        let place = place.and_then(|(place, rung)| compared.get_mut(*place)?.rungs.get_mut(*rung));
        if let Some(place) = place {
            *place = RungAnswer::of(&place.target, &job)?;
        }
        Ok(())
    })
    .await?;
    for rung in compared.iter_mut().flat_map(|comparison| &mut comparison.rungs) {
        let is_rejected = rung.class.as_deref() == Some(ErrorClass::SoftFailure.as_str());
        if let Some(job) = rung.job.filter(|_| is_rejected) {
            rung.rejected = store.kept_answers(JobId(job), REJECTED).await?.pop().map(|kept| kept.text);
        }
    }
    Ok(compared)
}

fn write_answers(file: &mut OutFile, is_page: bool, compared: Vec<Comparison>, drawn: &Drawn) -> anyhow::Result<()> {
    for comparison in compared {
        let text = match drawn.requests.get(&comparison.line).filter(|_| is_page) {
            Some(job) => page(&comparison, &question(job)),
            None => format!("{}\n", serde_json::to_string(&comparison)?),
        };
        file.write_all(text.as_bytes()).map_err(OutputError)?;
    }
    Ok(())
}

/// What the model is asked: the text of the last message of the user or, where there is none, the request.
fn question(job: &InputJob) -> String {
    let asked = job.request.messages.iter().rev().find(|message| message.role == Role::User);
    asked.map(Message::text).filter(|text| !text.is_empty()).unwrap_or_else(|| job.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NanoUsd, PerAnswer};
    use crate::store::report::Keys;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        global: GlobalArgs,
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &[&str]) -> String {
        let command = Command::try_parse_from([&["trial"], words].concat()).unwrap();
        resume_line(&command.args, &command.global, "t 1")
    }

    #[test]
    fn what_is_said_to_go_on_is_the_command_that_does() {
        assert_eq!(
            line(&["my file", "-n", "7", "-o", "a.md", "--project", "p", "--skip-bad", "--force", "-c", "s.toml"]),
            "stopped. Go on with:\n  sluice --config s.toml trial 'my file' --route default -n 7 --batch 't 1' \
             --deadline 5m --project p --skip-bad -o a.md --force\nor drop the rest:\n  sluice batch cancel 't 1'"
        );
        assert!(line(&["-"]).contains("with the same input and --batch 't 1', or drop the rest"));
        assert!(!line(&["x", "--database-url", "postgres://u:hunter2@h/d"]).contains("hunter2"));
    }

    #[test]
    fn rejected_answers_and_calls_without_one_are_told_apart() {
        let row = |class: &str, detail: &str, attempts, cost| Totals {
            keys: Keys::of(&[Grouping::Route, Grouping::Class, Grouping::Detail], ["trial:r:1", class, detail]),
            attempts,
            cost: NanoUsd(cost),
            ..Totals::default()
        };
        let accepted = Totals { enqueued: 5, succeeded: 3, ..row("", "", 3, 30) };
        let rows = [
            accepted.clone(),
            row("soft_failure", "refusal", 1, 10),
            Totals { failed: 2, ..row("soft_failure", "truncated", 2, 20) },
            row("server_error", "a", 2, 0),
            row("server_error", "b", 2, 0),
        ];
        let told = of_sums(rows.iter());
        assert_eq!((told.asked, told.accepted, told.failed, told.attempts), (5, 3, 2, 10));
        assert_eq!(told.rejected, [("truncated".to_owned(), 2), ("refusal".to_owned(), 1)]);
        assert_eq!(told.unanswered, [("server_error".to_owned(), 4)]);
        assert_eq!((told.cost, told.per_answer.and_then(PerAnswer::amount)), (Some(NanoUsd(60)), Some(NanoUsd(20))));
        let unpriced = Totals { unpriced: 3, cost: NanoUsd::ZERO, ..accepted };
        assert_eq!(of_sums([unpriced].iter()).cost, None);
    }
}
