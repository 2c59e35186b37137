//! `sluice estimate`: what a file will cost, rung by rung, before anything is sent.

use super::GlobalArgs;
use super::batch::find;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::faults::Faults;
use super::figure;
use super::moment;
use super::output::{Dispensable, Output};
use super::rows::{For, Rows};
use crate::config::{Config, Keys, RouteConfig};
use crate::domain::file_estimate::FileEstimate;
use crate::exit_code::ExitCode;
use crate::input::{InputError, InputJob, InputSource, ReadLimits, Reading};
use crate::printable;
use crate::store::batch::Batch;
use crate::store::report::{Filter, Moment};
use crate::view::estimate::{ENOUGH, EstimateView, PastAnswers, ended};
use anyhow::Context as _;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `sluice estimate`.
///
/// Tokens are estimated, and an answer without a cap is taken for 500 of them. Neither figure is a bound on what a run
/// costs. `expected` is one call for each job. `worst without retries` is one call for each job, too, with the whole
/// output cap and a quarter more input: calls that are made again, after a failure or an answer that was rejected, come
/// on top of it, up to max_attempts of the route. Nothing is learned from earlier jobs, unless --pilot names a batch of
/// them, or --history asks what share of a rung's answers was accepted.
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
    /// Estimate also from the average cost of this batch's finished jobs, retries and fallbacks included; needs the
    /// database
    #[arg(long, value_name = "BATCH")]
    pub pilot: Option<String>,
    /// Tell also how many answers of each rung the route has accepted since then [default: 30d], and what an accepted
    /// answer would cost at that rate; needs the database
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

/// Runs the command: without a pilot and a history it needs neither a database nor a key.
pub async fn run(args: &Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load_with(global.config.as_deref(), environment(global), Keys::Ignored)?;
    if config.routes.is_empty() {
        config.require_providers()?;
    }
    let pilot = match &args.pilot {
        Some(batch) => Some(pilot(batch, global).await?),
        None => None,
    };
    let mut output = Output::new(global);
    let sums = estimate(args, &config, &mut Dispensable(printable::stderr()))?;
    let mut estimate = EstimateView { sums, pilot, history: None };
    if let Some(since) = args.history {
        let context = Context::open(global).await?;
        let filter = Filter { since: Some(since), route: Some(args.route.clone()), ..Filter::default() };
        let history = PastAnswers::of_sums(context.store.totals(&PastAnswers::BY, &filter).await?);
        context.close().await?;
        if !history.is_enough() {
            output.note(format_args!(
                "the ledger has fewer than {ENOUGH} answers of each rung of the route: too few to say what an accepted \
                 answer would cost"
            ));
        }
        estimate.history = Some(history);
    }
    output.table(&estimate.table())?;
    output.finish()?;
    Ok(ExitCode::Success)
}

/// The batch that was a trial run of the same kind.
async fn pilot(name: &str, global: &GlobalArgs) -> anyhow::Result<Batch> {
    let context = Context::open(global).await?;
    let batch = find(&context.store, name).await?;
    context.close().await?;
    if ended(&batch) == 0 {
        return Err(CommandFailure::usage(format!("--pilot {name}: none of its jobs has ended yet")).into());
    }
    Ok(batch)
}

/// Reads a file and sums up its jobs. Faulty lines are reported on `faults`.
///
/// # Errors
/// [`CommandFailure`] when there is no such route or the input is faulty.
pub fn estimate(args: &Args, config: &Config, faults: &mut (dyn Write + Send)) -> anyhow::Result<FileEstimate> {
    let route = &route_of(config, &args.route)?.route;
    let mut estimate = FileEstimate::new(route);
    let source = InputSource::new(args.file.as_deref());
    let stem = source.stem();
    let jobs = For { config, route: &args.route, project: "default", batch: stem.as_deref() };
    let reading = args.rows.reading(ReadLimits::default(), &jobs)?;
    each_job(&source, reading, args.limit, args.skip_bad, faults, |job| estimate.add(route, &job.request))?;
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
    "#;

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
        assert_eq!((free.jobs, free.expected, free.worst), (3, None, None));
        assert_eq!((cheap.output_tokens, dear.output_tokens), (200, 300));
        // In nano-dollars: a thousand for an input token, two thousand for an output token.
        assert_eq!(cheap.expected, Some(NanoUsd(cheap.input_tokens * 1_000 + 200 * 2_000)));
        assert!(cheap.worst > cheap.expected);
        assert!(found.as_routed > cheap.expected && found.as_routed < dear.expected);
        let shown = serde_json::to_value(EstimateView { sums: found, pilot: None, history: None }.table()).unwrap();
        assert_eq!((&shown[2]["expected"], &shown[2]["target"]), (&serde_json::Value::Null, &"a/free".into()));
    }

    #[test]
    fn the_worst_is_that_of_the_dearest_hours() {
        let found = estimate_of("{\"prompt\":\"word\",\"max_tokens\":100}\n", &["--route", "hours"]).unwrap();
        let [by_day, always] = found.rungs.as_slice() else { panic!("{found:?}") };
        assert_eq!(by_day.expected, always.expected);
        assert_eq!(by_day.worst, always.worst.map(|NanoUsd(worst)| NanoUsd(worst * 3)));
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
    fn faulty_lines_and_unknown_routes_are_refused() {
        let lines = "{\"prompt\":\"a\"}\n{}\n";
        assert!(
            estimate_of(lines, &[]).unwrap_err().ends_with("1 of 2 lines are faulty (--skip-bad takes the others)")
        );
        assert_eq!(estimate_of(lines, &["--skip-bad"]).unwrap().jobs, 1);
        assert_eq!(estimate_of(lines, &["--limit", "1"]).unwrap().jobs, 1);
        assert!(estimate_of("", &[]).unwrap_err().ends_with("there are no jobs in it"));
        assert!(estimate_of(lines, &["--route", "x"]).unwrap_err().ends_with("there are: default, hours"));
    }
}
