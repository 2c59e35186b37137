//! `sluice estimate`: what a file will cost, rung by rung, before anything is sent.

mod history;

use super::GlobalArgs;
use super::batch::find;
use super::context::{Context, environment};
use super::failure::CommandFailure;
use super::faults::Faults;
use super::figure;
use super::moment;
use super::output::{Dispensable, Format, Output};
use crate::config::{Config, Keys, RouteConfig};
use crate::domain::counted::counted;
use crate::domain::estimate::{USUAL_OUTPUT_TOKENS, expected_cost, input_tokens, longest_input, worst_cost};
use crate::domain::strategy::{self, Conditions};
use crate::domain::{
    Capabilities, ChatRequest, ContentPart, Job, JobId, NanoUsd, ResponseFormat, Route, Rung, Timestamp,
};
use crate::exit_code::ExitCode;
use crate::input::{InputError, InputJob, InputSource, JobReader, ReadLimits};
use crate::printable;
use crate::store::batch::Batch;
use crate::store::report::Moment;
use crate::view::table::{Cell, Table};
use anyhow::Context as _;
use history::{ENOUGH, PastAnswers};
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
    /// Tell also what the jobs would cost if each cost what the finished jobs of this batch did on average, retries and
    /// fallbacks included; needs the database
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
    let mut estimate = estimate(args, &config, &mut Dispensable(printable::stderr()))?;
    estimate.pilot = pilot;
    if let Some(since) = args.history {
        let context = Context::open(global).await?;
        let history = PastAnswers::read(&context.store, &args.route, since).await?;
        context.close().await?;
        if !history.is_enough() {
            output.note(format_args!(
                "the ledger has fewer than {ENOUGH} answers of each rung of the route: too few to say what an accepted \
                 answer would cost"
            ));
        }
        estimate.history = Some(history);
    }
    output.table(&estimate.table(output.format()))?;
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
pub fn estimate(args: &Args, config: &Config, faults: &mut (dyn Write + Send)) -> anyhow::Result<Estimate> {
    let route = &route_of(config, &args.route)?.route;
    let mut estimate = Estimate::new(route);
    let source = InputSource::new(args.file.as_deref());
    each_job(&source, args.limit, args.skip_bad, faults, |job| estimate.add(route, &job.request))?;
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
    limit: Option<u64>,
    skip_bad: bool,
    faults: &mut (dyn Write + Send),
    mut take: impl FnMut(InputJob),
) -> anyhow::Result<u64> {
    let mut faults = Faults::new(source.name(), faults);
    let (reader, _) = source.open().map_err(|error| CommandFailure::input(format!("{}: {error}", source.name())))?;
    let mut jobs = 0;
    for job in JobReader::new(reader, ReadLimits::default()) {
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
        let lines = counted(faulty + jobs, "line is", "lines are");
        let message = format!("{name}: {faulty} of {lines} faulty (--skip-bad takes the others)");
        return Err(CommandFailure::input(message).into());
    }
    if jobs == 0 {
        return Err(CommandFailure::input(format!("{name}: there are no jobs in it")).into());
    }
    Ok(jobs)
}

/// The sums of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// How many jobs there are.
    pub jobs: u64,
    /// For each rung, in listed order.
    pub rungs: Vec<RungEstimate>,
    /// Expected cost when each job goes to the first rung of its order that can take it; `None`: one of those has no
    /// price.
    pub as_routed: Option<NanoUsd>,
    /// Jobs that no rung can take.
    pub stranded: u64,
    /// A finished batch of the same kind.
    pub pilot: Option<Batch>,
    /// What was accepted of each rung before.
    pub history: Option<PastAnswers>,
}

/// The sums for a rung, if all jobs that it can take went there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RungEstimate {
    /// `provider/model`.
    pub target: String,
    /// Jobs that it can take.
    pub jobs: u64,
    /// Jobs whose first rung it is.
    pub first_choice: u64,
    /// Jobs whose prompt and output cap do not fit its window.
    pub too_large: u64,
    /// Jobs that ask for something it lacks.
    pub unsupported: u64,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers, as expected.
    pub output_tokens: i64,
    /// Expected cost; `None`: the price is unknown.
    pub expected: Option<NanoUsd>,
    /// Worst case of one call for each job; `None`: the price is unknown.
    pub worst: Option<NanoUsd>,
}

impl Estimate {
    pub(super) fn new(route: &Route) -> Self {
        let rung = |rung: &Rung| {
            let nothing = rung.price().map(|_| NanoUsd::ZERO);
            RungEstimate {
                target: rung.target.to_string(),
                expected: nothing,
                worst: nothing,
                ..RungEstimate::default()
            }
        };
        Self {
            jobs: 0,
            rungs: route.rungs.iter().map(rung).collect(),
            as_routed: Some(NanoUsd::ZERO),
            stranded: 0,
            pilot: None,
            history: None,
        }
    }

    pub(super) fn add(&mut self, route: &Route, request: &ChatRequest) {
        self.jobs += 1;
        let job = Job {
            // Of each job another one: a strategy that draws spreads them as it will spread the jobs.
            id: JobId(i64::try_from(self.jobs).unwrap_or(i64::MAX)),
            ready_at: Timestamp(0),
            deadline: None,
            max_attempts: None,
            input_tokens: input_tokens(request),
            max_output_tokens: request.max_tokens,
            sticky: None,
        };
        let mut takes = Vec::with_capacity(route.rungs.len());
        for (rung, sums) in route.rungs.iter().zip(&mut self.rungs) {
            let lack = lack(&rung.model.capabilities, request, &job);
            takes.push(lack.is_none());
            match lack {
                Some(Lack::Window) => sums.too_large += 1,
                Some(Lack::Ability) => sums.unsupported += 1,
                None => sums.add(rung, &job),
            }
        }
        let mut order = Vec::new();
        strategy::order(route, &Conditions::of_job(&job, Some(NanoUsd::ZERO), job.ready_at, &[]), &mut order);
        let first = order.into_iter().find(|index| takes.get(*index) == Some(&true));
        match first.and_then(|index| Some((route.rungs.get(index)?, self.rungs.get_mut(index)?))) {
            None => self.stranded += 1,
            Some((rung, sums)) => {
                sums.first_choice += 1;
                let cost = rung.price().map(|price| expected_cost(&price, job.input_tokens, job.max_output_tokens));
                self.as_routed = self.as_routed.zip(cost).map(|(sum, cost)| sum + cost);
            }
        }
    }

    /// A row for each rung.
    #[must_use]
    pub fn table(&self, format: Format) -> Table {
        let money = |amount: Option<NanoUsd>| match (amount, format) {
            (Some(amount), _) => Cell::Money(amount),
            (None, Format::Json) => Cell::Empty,
            // An empty cell would be read as nothing to pay.
            (None, Format::Table | Format::Plain | Format::Csv) => Cell::Text("unknown".to_owned()),
        };
        let mut table = Table::new([
            "rung",
            "target",
            "jobs",
            "first_choice",
            "too_large",
            "unsupported",
            "input_tokens",
            "output_tokens",
            "expected",
            "worst_without_retries",
        ]);
        if self.history.is_some() {
            table.columns.extend(["history_answers", "history_accepted", "expected_per_answer"]);
        }
        for (index, rung) in (1..).zip(&self.rungs) {
            let cells = [
                Cell::Count(index),
                rung.target.as_str().into(),
                rung.jobs.into(),
                rung.first_choice.into(),
                rung.too_large.into(),
                rung.unsupported.into(),
                rung.input_tokens.into(),
                rung.output_tokens.into(),
                money(rung.expected),
                money(rung.worst),
            ];
            table.row(cells.into_iter().chain(self.of_history(rung)));
        }
        if let Some(pilot) = &self.pilot {
            let seen = format!(
                "as batch {}: {} ended in {}",
                pilot.name,
                ended(pilot),
                counted(pilot.attempts, "attempt", "attempts")
            );
            let empty = || [const { Cell::Empty }; 3];
            let [large, unsupported, input] = empty();
            let nothing = self.history.iter().flat_map(|_| [const { Cell::Empty }; 3]);
            let cells = [
                Cell::Empty,
                seen.into(),
                self.jobs.into(),
                Cell::Empty,
                large,
                unsupported,
                input,
                Cell::Empty,
                money(like(pilot, self.jobs)),
                Cell::Empty,
            ];
            table.row(cells.into_iter().chain(nothing));
        }
        let stranded = if self.stranded > 0 { format!("no rung can take {}", self.stranded) } else { String::new() };
        let nothing = self.history.iter().flat_map(|_| [const { Cell::Empty }; 3]);
        let cells = [
            Cell::Empty,
            "each job to its first choice".into(),
            self.jobs.into(),
            (self.jobs - self.stranded).into(),
            stranded.into(),
            Cell::Empty,
            Cell::Empty,
            Cell::Empty,
            money(self.as_routed),
            Cell::Empty,
        ];
        table.total(cells.into_iter().chain(nothing));
        table
    }

    /// What the ledger says of a rung: answers, those that were accepted, and what one of those would cost.
    fn of_history(&self, rung: &RungEstimate) -> Vec<Cell> {
        let Some(history) = &self.history else { return Vec::new() };
        let seen = history.of(&rung.target);
        vec![seen.answers.into(), seen.accepted.into(), seen.per_answer(rung.expected, rung.jobs).into()]
    }
}

/// Jobs that succeeded or failed; cancelled ones do not show what a job costs.
fn ended(pilot: &Batch) -> i64 {
    pilot.succeeded + pilot.failed
}

/// The cost of this many jobs at the average of a batch; `None`: a price is unknown.
fn like(pilot: &Batch, jobs: u64) -> Option<NanoUsd> {
    let sum = i128::from(pilot.cost.0) * i128::from(jobs);
    let average = sum.checked_div(i128::from(ended(pilot)))?;
    (pilot.unpriced == 0).then(|| NanoUsd(i64::try_from(average).unwrap_or(i64::MAX)))
}

impl RungEstimate {
    fn add(&mut self, rung: &Rung, job: &Job) {
        self.jobs += 1;
        self.input_tokens = self.input_tokens.saturating_add(job.input_tokens);
        let output = job.max_output_tokens.unwrap_or(USUAL_OUTPUT_TOKENS);
        self.output_tokens = self.output_tokens.saturating_add(output);
        let Some(price) = &rung.price() else { return };
        self.expected = self.expected.map(|sum| sum + expected_cost(price, job.input_tokens, job.max_output_tokens));
        // The hours of the calls are not known yet, and outside the peak hours they may be dearer.
        let worst = [Some(*price), rung.off_peak_price()].into_iter().flatten();
        let worst = worst.map(|price| worst_cost(&price, &rung.model.capabilities, job)).max().unwrap_or_default();
        self.worst = self.worst.map(|sum| sum + worst);
    }
}

/// Why a rung cannot take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Window,
    Ability,
}

/// The first capability that a job needs and the configuration knows to be missing. An adapter may find more when it
/// translates the request.
fn lack(capabilities: &Capabilities, request: &ChatRequest, job: &Job) -> Option<Lack> {
    let needs = match &request.embed {
        Some(embed) => longest_input(&embed.inputs),
        None => job.input_tokens.saturating_add(job.max_output_tokens.unwrap_or(1)),
    };
    if capabilities.context_window.is_some_and(|window| needs > window) {
        return Some(Lack::Window);
    }
    let has_images = || {
        request
            .messages
            .iter()
            .flat_map(|message| &message.content)
            .any(|part| matches!(part, ContentPart::Image { .. }))
    };
    let wants_schema = matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }));
    let lacks_ability = (capabilities.tools == Some(false) && !request.tools.is_empty())
        || (capabilities.json_schema == Some(false) && wants_schema)
        || (capabilities.images == Some(false) && has_images());
    lacks_ability.then_some(Lack::Ability)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn estimate_of(lines: &str, args: &[&str]) -> Result<Estimate, String> {
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
        let shown = serde_json::to_value(found.table(Format::Json)).unwrap();
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
    fn a_pilot_tells_what_a_job_has_cost_with_all_its_attempts() {
        let pilot = |unpriced| Batch {
            name: "trial".to_owned(),
            first_hour: chrono::DateTime::UNIX_EPOCH,
            last_hour: chrono::DateTime::UNIX_EPOCH,
            jobs: 12,
            succeeded: 9,
            failed: 1,
            cancelled: 0,
            attempts: 17,
            cost: NanoUsd(1_000_000),
            waste: NanoUsd::ZERO,
            uncertain: NanoUsd::ZERO,
            unpriced,
            paused: false,
            pause_reason: None,
            max_failed: None,
        };
        assert_eq!(like(&pilot(0), 2_000), Some(NanoUsd(200_000_000)));
        assert_eq!(like(&pilot(1), 2_000), None, "an unknown price is no price");
        let mut found = estimate_of("{\"prompt\":\"a\"}\n", &[]).unwrap();
        found.pilot = Some(pilot(0));
        let shown = serde_json::to_value(found.table(Format::Json)).unwrap();
        assert_eq!(shown[3]["target"], "as batch trial: 10 ended in 17 attempts");
        assert_eq!(shown[3]["worst_without_retries"], serde_json::Value::Null);
        found.history = Some(PastAnswers::default());
        let wider = found.table(Format::Json);
        assert_eq!(wider.columns.len(), 13);
        assert!(wider.rows.iter().chain(&wider.total).all(|row| row.len() == 13));
        assert!(shown[0]["worst_without_retries"].is_number() && shown[0].get("worst").is_none(), "{shown}");
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
