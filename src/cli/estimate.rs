//! `sluice estimate`: what a file will cost, rung by rung, before anything is sent.

use super::GlobalArgs;
use super::batch::find;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::faults::Faults;
use super::figure;
use super::output::{Dispensable, Output};
use super::rows::{For, Rows};
use super::today;
use crate::config::{Config, Keys, RouteConfig};
use crate::domain::counted::counted;
use crate::domain::file_estimate::{FileEstimate, RungEstimate, expected_of};
use crate::domain::lately::{CallsOfTarget, ENOUGH as ENOUGH_JOBS, Lately};
use crate::domain::time_left::{self, TakenSoFar};
use crate::domain::{ChatRequest, MustKeep, Route, Rung, Target, Timestamp, trial};
use crate::exit_code::ExitCode;
use crate::input::{InputError, InputJob, InputSource, ReadLimits, Reading};
use crate::printable::{self, on_one_line};
use crate::provider::Endpoint;
use crate::store::lately::{PastJob, Sampled};
use crate::store::report::{Filter, Moment};
use crate::view::estimate::{EstimateView, PastAnswers, ended};
use crate::view::moment;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// What a file will cost, rung by rung, before anything is sent
///
/// Three columns say what it costs, for each rung if all jobs went there, and in the last line for each job at its
/// first choice, as the route decides that.
///
/// `expected` is one call for each job. Tokens are estimated from the text, and an answer without a cap is taken for
/// 500 of them; with --pilot or --history, what answers of the rung have lately cost corrects that.
///
/// `as_lately` adds what is made again or elsewhere: failures that were billed, rejected answers, retries and, in the
/// last line, fallbacks, as often as lately. It needs --pilot or --history, and 20 jobs that have ended.
///
/// `most` is the most that can be booked: every job has all the calls that max_attempts and max_cost allow, of the
/// dearest rung that can take it, each with the longest prompt that its text can be, the whole output cap (without one:
/// that of the model, or 131,072 tokens), and the dearest price of any hour or day to come. Only a provider that
/// reports more than it was sent, or than it was allowed to write, that says a higher cost itself, or that answers from
/// a dearer model or tier, can come to more; and calls that are cut off because their worker dies come on top, as
/// uncertain.
///
/// `at_least` is how long that takes by the configured limits, nothing else under way. `guessed` names what no answer
/// of the rung stands behind.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A file as for `sluice enqueue`; without it, or with -, standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The route that the jobs would take
    #[arg(long, default_value = "default")]
    pub route: String,
    /// Only the first N jobs
    #[arg(long, value_name = "N", value_parser = figure::count::<u64>)]
    pub limit: Option<u64>,
    /// Learn from the finished jobs of this batch, for example the first hundred of the file; needs the database
    #[arg(long, value_name = "BATCH")]
    pub pilot: Option<String>,
    /// Learn from the jobs of the route that have ended since then [default: 30d], and tell how many answers of each
    /// rung it has accepted and what an accepted answer would cost at that rate; needs the database
    #[arg(long, value_name = "SINCE", num_args = 0..=1, require_equals = true, default_missing_value = "30d",
          value_parser = moment::parse)]
    pub history: Option<Moment>,
    /// Estimate the lines that are in order, and only report the others
    #[arg(long)]
    pub skip_bad: bool,
    /// How a table becomes requests
    #[command(flatten)]
    pub rows: Rows,
}

/// The most jobs that are learned from, the newest ones.
const SAMPLE: i64 = 5_000;

/// Runs the command: without a pilot and a history it needs neither a database nor a key.
pub async fn run(args: &Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)?;
    if config.routes.is_empty() {
        config.require_providers()?;
    }
    let mut output = Output::new(global);
    let mut view = EstimateView::default();
    if args.pilot.is_some() || args.history.is_some() {
        let context = Context::open(global).await?;
        learn(args, &context, &config, &mut view, &mut output).await?;
        context.close().await?;
    }
    view.sums = estimate(args, &config, &mut Dispensable(printable::stderr()))?;
    let route = &route_of(&config, &args.route)?.route;
    take_time(&mut view, &config, route);
    let as_lately = view.sums.as_lately(view.lately.as_ref());
    if let Some(said) = climbs_unseen(route, as_lately.is_some()) {
        output.note(said);
    }
    if let Some((target, why)) = &view.sums.why_stranded {
        let jobs = counted(i64::try_from(view.sums.stranded).unwrap_or(i64::MAX), "job", "jobs");
        output.note(format!("no rung can take {jobs}: of the first, {target} {why}"));
    }
    output.table(&view.table())?;
    output.finish()?;
    Ok(ExitCode::Success)
}

/// On a route with a cascade, how often its jobs climb decides what they cost, and nothing but answers tells that.
fn climbs_unseen(route: &Route, is_seen: bool) -> Option<String> {
    let cascade = route.cascade.as_ref().filter(|_| !is_seen)?;
    Some(format!(
        "expected has no climbs of the cascade in it (to the next rung where {} is below {}): run a pilot of some \
         jobs, and `--pilot BATCH` tells as_lately",
        cascade.measure, cascade.at_least
    ))
}

/// Reads what the ledger teaches.
async fn learn(
    args: &Args,
    context: &Context,
    config: &Config,
    view: &mut EstimateView,
    output: &mut Output,
) -> anyhow::Result<()> {
    let route = &route_of(config, &args.route)?.route;
    if let Some(since) = args.history {
        let filter = Filter { since: Some(since), route: Some(args.route.clone()), ..Filter::default() };
        view.history = Some(PastAnswers::of_sums(context.store.totals(&PastAnswers::BY, &filter).await?));
    }
    let (sampled, of) = match (&args.pilot, args.history) {
        (Some(name), _) => {
            let batch = find(&context.store, name).await?;
            if ended(&batch) == 0 {
                return Err(CommandFailure::usage(format!("--pilot {name}: none of its jobs has ended yet")).into());
            }
            (Sampled::Batch(name), format!("of batch {name}"))
        }
        (None, Some(since)) => (Sampled::Route(&args.route, since), format!("of route {}", args.route)),
        (None, None) => return Ok(()),
    };
    let past = context.store.past_jobs(sampled, SAMPLE).await?;
    let mut lately = of_past(config, route, &past);
    if let (Some(name), false) = (&args.pilot, lately.targets.is_empty()) {
        let is_rung = |target: &String| route.rungs.iter().any(|rung| rung.target.to_string() == *target);
        if !lately.targets.keys().any(is_rung) {
            return Err(CommandFailure::usage(format!(
                "--pilot {name}: none of its calls went to a rung of route {}; expected a batch of that route",
                args.route
            ))
            .into());
        }
    }
    if let Some(name) = &args.pilot
        && context.store.batch_so_far(name).await?.routes.iter().any(|route| trial::tried(route).is_some())
    {
        // Each of its jobs was asked of one rung alone, also of those that are no job's first choice.
        lately.forget_jobs();
        output.note(format_args!(
            "batch {} is of a trial, whose jobs have one rung each: it tells what answers of a rung cost, and not what \
             jobs of the route come to; `sluice run` of the first lines (--limit) makes a pilot for that",
            on_one_line(name)
        ));
        view.lately = Some(lately);
        return Ok(());
    }
    let jobs = counted(lately.seen, "job", "jobs");
    output.note(if lately.unpriced > 0 {
        let unknown = counted(lately.unpriced, "of them has an unknown cost", "of them have an unknown cost");
        format!("learned from {jobs} {of} that ended; {unknown}, so what the file costs as lately is unknown too")
    } else if lately.seen < ENOUGH_JOBS {
        format!("{jobs} {of} ended: fewer than {ENOUGH_JOBS} teach nothing, so what is told is guessed")
    } else {
        format!("learned from {jobs} {of} that ended")
    });
    view.lately = Some(lately);
    Ok(())
}

/// What jobs that have ended teach of a route.
fn of_past(config: &Config, route: &Route, past: &[PastJob]) -> Lately {
    let refuses = |rung: &Rung, request: &ChatRequest, must_keep: &MustKeep| config.refusal(rung, request, must_keep);
    let mut lately = Lately::default();
    for job in past {
        lately.seen += 1;
        // What the file's jobs are compared with is what this one would be expected to cost, at the prices of its day.
        let at = job.calls.first().map_or(Timestamp(0), |call| call.started_at);
        let Ok(request) = route.defaults.read(&job.body) else { continue };
        let (first, each) = expected_of(route, &request, at, &refuses);
        match (job.cost, first) {
            (None, _) => lately.unpriced += 1,
            (Some(cost), Some(first)) => lately.jobs.add(first, cost),
            (Some(_), None) => {}
        }
        for call in &job.calls {
            let index = route.rungs.iter().position(|rung| rung.target.to_string() == call.target);
            let expected = index.and_then(|index| each.get(index).copied().flatten());
            let of = lately.targets.entry(call.target.clone()).or_default();
            // A call of unknown cost teaches nothing: it is not one that cost nothing.
            let Some(cost) = call.cost else { continue };
            of.calls += 1;
            of.millis = of.millis.saturating_add(i64::from(call.total_ms));
            of.spent += cost;
            if call.class.is_none() {
                of.answers += 1;
                of.spent_on_accepted += cost;
                of.output_tokens = of.output_tokens.saturating_add(call.output_tokens);
                if let Some(expected) = expected {
                    of.accepted.add(expected, cost);
                }
            }
        }
    }
    lately
}

/// Tells how long the jobs take by the limits of the configuration.
fn take_time(view: &mut EstimateView, config: &Config, route: &Route) {
    let bucket_of = |rung: &Rung| {
        let target = rung.target.in_no_tier();
        let provider = config.providers.get(&target.provider).map(|provider| &provider.bucket);
        config.model_buckets.get(&target).or(provider).cloned()
    };
    let need_of = |sums: &RungEstimate, jobs: u64| {
        let seen = view.lately.as_ref().and_then(|lately| lately.target(&sums.target));
        let part = |whole: i64| {
            let share = i128::from(whole).saturating_mul(i128::from(jobs)).checked_div(i128::from(sums.jobs));
            i64::try_from(share.unwrap_or(0)).unwrap_or(i64::MAX)
        };
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let calls = seen.and_then(CallsOfTarget::calls_each).map_or(jobs, |each| jobs.saturating_mul(each) / 1_000);
        // Of jobs that share calls it is known at least how many share one at most.
        let endpoint = Target::parse(&sums.target)
            .and_then(|target| config.providers.get(&target.provider))
            .map(|provider| &provider.endpoint);
        let bounds = route.pack.zip(endpoint.and_then(Endpoint::embeds));
        let together = bounds.map_or(1, |(packing, vendor)| packing.most.and(vendor).inputs);
        let calls = calls.div_ceil(u64::try_from(together.max(1)).unwrap_or(u64::MAX));
        let output = seen
            .and_then(CallsOfTarget::mean_output)
            .map_or_else(|| part(sums.output_tokens), |mean| mean.saturating_mul(signed(jobs)));
        let need = TakenSoFar { calls: signed(calls), input_tokens: part(sums.input_tokens), output_tokens: output };
        (need, seen.and_then(CallsOfTarget::mean_millis))
    };
    let mut in_all: BTreeMap<String, (TakenSoFar, Option<i64>)> = BTreeMap::new();
    let mut at_least = Vec::new();
    for (rung, sums) in route.rungs.iter().zip(&view.sums.rungs) {
        let bucket = bucket_of(rung);
        let limits = bucket.as_ref().and_then(|bucket| config.buckets.get(bucket));
        let (need, millis) = need_of(sums, sums.jobs);
        at_least.push(limits.and_then(|limits| time_left::by_configuration(&need, millis, limits)));
        if let Some(bucket) = bucket.filter(|_| sums.first_choice > 0) {
            let (need, millis) = need_of(sums, sums.first_choice);
            let all = in_all.entry(bucket).or_default();
            all.0.add(need);
            all.1 = all.1.max(millis);
        }
    }
    let times = in_all
        .iter()
        .filter_map(|(bucket, (need, millis))| time_left::by_configuration(need, *millis, config.buckets.get(bucket)?));
    view.at_least_in_all = times.max();
    view.at_least = at_least;
}

/// Reads a file and sums up its jobs. Faulty lines are reported on `faults`.
///
/// # Errors
/// [`CommandFailure`] when there is no such route or the input is faulty.
pub fn estimate(args: &Args, config: &Config, faults: &mut (dyn Write + Send)) -> anyhow::Result<FileEstimate> {
    let route = &route_of(config, &args.route)?.route;
    let mut estimate = FileEstimate::new(route, today::now());
    let source = InputSource::new(args.file.as_deref());
    let stem = source.stem();
    let refuses = |rung: &Rung, request: &ChatRequest, must_keep: &MustKeep| config.refusal(rung, request, must_keep);
    let jobs = For { config, route: &args.route, project: "default", batch: stem.as_deref() };
    let reading = args.rows.reading(ReadLimits::default(), &jobs)?;
    each_job(&source, reading, args.limit, args.skip_bad, faults, |job| {
        estimate.add(route, &job.request, &refuses);
    })?;
    Ok(estimate)
}

/// A route of the configuration.
pub(super) fn route_of<'a>(config: &'a Config, name: &str) -> Result<&'a RouteConfig, CommandFailure> {
    config.routes.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.routes.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
        CommandFailure::not_found(format!("there is no route `{name}`; there are: {known}"))
    })
}

/// Reads the jobs of a file, at most `limit`, and reports its faulty lines.
///
/// # Errors
/// [`CommandFailure`] when the file cannot be read or holds no job, or when a line is faulty and faulty lines are not
/// skipped.
pub(super) fn each_job(
    source: &InputSource,
    reading: Reading,
    limit: Option<u64>,
    skip_bad: bool,
    faults: &mut (dyn Write + Send),
    mut take: impl FnMut(InputJob),
) -> anyhow::Result<u64> {
    let opened = source.read(reading).map_err(|error| CommandFailure::input(format!("{}: {error}", source.name())))?;
    let mut faults = Faults::new(source.name(), opened.unit, faults);
    let mut jobs = 0;
    for job in opened.jobs {
        if limit.is_some_and(|limit| jobs >= limit) {
            break;
        }
        match job {
            Ok(job) => {
                jobs += 1;
                take(job);
            }
            Err(InputError::Line(fault)) => faults.report(&fault).context("reporting a faulty line")?,
            Err(error @ InputError::Read { .. }) => {
                return Err(CommandFailure::input(format!("{}:{error}", source.name())).into());
            }
        }
    }
    faults.end().context("reporting faulty lines")?;
    let (name, faulty) = (faults.file(), faults.count());
    if faulty > 0 && !skip_bad {
        let message = format!("{name}: {} (--skip-bad takes the others)", faults.share(jobs));
        return Err(CommandFailure::input(message).into());
    }
    if jobs == 0 {
        return Err(CommandFailure::input(format!("{name}: there are no jobs in it")).into());
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;
    use crate::store::lately::EarlierCall;

    const CONFIG: &str = r#"
        [providers.a]
        dialect = "openai"
        base_url = "http://127.0.0.1:1"
        [models."a/cheap"]
        price = { input = "1", output = "2" }
        context_window = 1000
        [models."a/dear"]
        price = { input = "10", output = "20" }
        images = false
        [models."a/by_day"]
        price = { input = "1", output = "2" }
        peak_hours = ["08:00-18:00"]
        off_peak = "3"
        [routes.default]
        rungs = ["a/dear", "a/cheap", "a/free"]
        [routes.hours]
        rungs = ["a/by_day", "a/cheap"]
        [providers.deaf]
        dialect = "anthropic"
        base_url = "http://127.0.0.1:9/v1"
        [models."deaf/m"]
        price = { input = "1", output = "2" }
        [routes.sounds]
        rungs = ["deaf/m", "a/dear"]
    "#;

    #[test]
    fn what_a_cascade_costs_is_known_from_its_answers_alone() {
        let cascade = CONFIG.replace(
            "[routes.hours]",
            "[routes.climbing]\nrungs = [\"a/cheap\", \"a/dear\"]\n\
             cascade = { confidence = \"/sure\", at_least = 0.9 }\n[routes.hours]",
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sluice.toml");
        std::fs::write(&file, cascade).unwrap();
        let config = Config::load_with(Some(&file), [], Keys::Ignored).unwrap();
        let said = |route: &str, is_seen| climbs_unseen(&config.routes[route].route, is_seen);
        let told = said("climbing", false).unwrap();
        assert!(told.contains("no climbs of the cascade in it (to the next rung where /sure is below 0.9)"), "{told}");
        assert_eq!((said("climbing", true), said("default", false)), (None, None));
    }

    fn estimate_of(lines: &str, args: &[&str]) -> Result<FileEstimate, String> {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        let dir = tempfile::tempdir().unwrap();
        let (config, file) = (dir.path().join("sluice.toml"), dir.path().join("jobs.jsonl"));
        std::fs::write(&config, CONFIG).unwrap();
        std::fs::write(&file, lines).unwrap();
        let config = Config::load_with(Some(&config), [], Keys::Ignored).unwrap();
        let args = Command::try_parse_from([&["estimate", file.to_str().unwrap()], args].concat()).unwrap().args;
        estimate(&args, &config, &mut std::io::sink()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_rung_has_its_sums_and_an_unknown_price_is_no_price() {
        let large = format!("{{\"prompt\":\"{}\",\"max_tokens\":100}}\n", "word ".repeat(2_000));
        let small = "{\"prompt\":\"word\",\"max_tokens\":100}\n".repeat(2);
        let found = estimate_of(&(large + &small), &[]).unwrap();
        let [dear, cheap, free] = found.rungs.as_slice() else { panic!("{found:?}") };
        assert_eq!((found.jobs, found.stranded), (3, 0));
        assert_eq!((dear.jobs, dear.first_choice, dear.too_large), (3, 1, 0));
        assert_eq!((cheap.jobs, cheap.first_choice, cheap.too_large), (2, 2, 1));
        assert_eq!((free.jobs, free.expected, free.most), (3, None, None));
        assert_eq!((cheap.output_tokens, dear.output_tokens), (200, 300));
        // In nano-dollars: a thousand for an input token, two thousand for an output token.
        assert_eq!(cheap.expected, Some(NanoUsd(cheap.input_tokens * 1_000 + 200 * 2_000)));
        assert!(cheap.most > cheap.expected && found.most.is_none());
        assert!(found.as_routed > cheap.expected && found.as_routed < dear.expected);
        let shown = serde_json::to_value(EstimateView { sums: found, ..EstimateView::default() }.table()).unwrap();
        assert_eq!((&shown[2]["expected"], &shown[2]["target"]), (&serde_json::Value::Null, &"a/free".into()));
    }

    #[test]
    fn the_most_is_that_of_the_dearest_hours() {
        let found = estimate_of("{\"prompt\":\"word\",\"max_tokens\":100}\n", &["--route", "hours"]).unwrap();
        let [by_day, always] = found.rungs.as_slice() else { panic!("{found:?}") };
        assert_eq!(by_day.expected, always.expected);
        assert_eq!(by_day.most, always.most.map(|NanoUsd(most)| NanoUsd(most * 3)));
        assert_eq!(found.most, by_day.most);
    }

    #[test]
    fn what_a_rung_lacks_is_counted_apart() {
        let image = concat!(
            r#"{"messages":[{"role":"user","content":["#,
            r#"{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}]}]}"#
        );
        let found = estimate_of(image, &[]).unwrap();
        assert_eq!((found.rungs[0].unsupported, found.rungs[0].jobs), (1, 0));
        // An image counts as a thousand tokens, which the small window does not hold; the price of the third rung is
        // unknown.
        assert_eq!((found.rungs[1].too_large, found.as_routed), (1, None));
    }

    #[test]
    fn a_sound_at_a_rung_whose_dialect_has_none_is_unsupported() {
        let sound = concat!(
            r#"{"messages":[{"role":"user","content":["#,
            r#"{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}]}]}"#
        );
        let found = estimate_of(sound, &["--route", "sounds"]).unwrap();
        let [deaf, dear] = found.rungs.as_slice() else { panic!("{found:?}") };
        assert_eq!((deaf.unsupported, deaf.jobs), (1, 0));
        assert_eq!((dear.unsupported, dear.jobs, dear.first_choice), (0, 1, 1));
    }

    #[test]
    fn faulty_lines_and_unknown_routes_are_refused() {
        let lines = "{\"prompt\":\"a\"}\n{}\n";
        assert!(
            estimate_of(lines, &[]).unwrap_err().ends_with("1 of 2 lines are faulty (--skip-bad takes the others)")
        );
        assert_eq!(estimate_of(lines, &["--skip-bad"]).unwrap().jobs, 1);
        assert_eq!(estimate_of(lines, &["--limit", "1"]).unwrap().jobs, 1);
        assert!(estimate_of("", &[]).unwrap_err().ends_with("there are no jobs in it"));
        assert!(estimate_of(lines, &["--route", "x"]).unwrap_err().ends_with("there are: default, hours, sounds"));
    }

    #[test]
    fn calls_of_unknown_cost_teach_nothing_and_are_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sluice.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let config = Config::load_with(Some(&file), [], Keys::Ignored).unwrap();
        let route = &config.routes["default"].route;
        let job = |cost: Option<NanoUsd>| {
            let call = EarlierCall {
                target: "a/cheap".to_owned(),
                started_at: Timestamp(0),
                class: None,
                cost,
                output_tokens: 10,
                total_ms: 5,
            };
            PastJob { body: "{\"prompt\":\"word\",\"max_tokens\":10}".to_owned(), cost, calls: vec![call] }
        };
        let taught = |past: &[PastJob]| of_past(&config, route, past);
        let priced: Vec<PastJob> = (0..30).map(|_| job(Some(NanoUsd(1_000)))).collect();
        let mixed: Vec<PastJob> = priced.iter().cloned().chain((0..60).map(|_| job(None))).collect();
        let (priced, mixed) = (taught(&priced), taught(&mixed));
        assert_eq!((mixed.seen, mixed.unpriced), (90, 60));
        assert_eq!(mixed.target("a/cheap"), priced.target("a/cheap"), "the sixty calls change no figure");
        let unknown = taught(&(0..30).map(|_| job(None)).collect::<Vec<_>>());
        assert_eq!(unknown.target("a/cheap").map(|seen| (seen.accepted.pairs(), seen.calls)), Some((0, 0)));
    }
}
