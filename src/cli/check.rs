//! `sluice check`: everything that is wrong with the configuration, without a network or a database; with `--online`
//! also whether its keys and models work.

use super::GlobalArgs;
use super::colour;
use super::context::environment;
use super::failure::without_numbers;
use super::figure;
use super::online::{self, Chosen};
use super::output::{self, Output, OutputError, for_stderr};
use super::today;
use crate::config::{Config, ConfigErrors, Fault, RouteConfig};
use crate::domain::counted::counted;
use crate::domain::price::{Price, Tariff};
use crate::domain::request::Extras;
use crate::domain::{Defaults, Job, JobId, Limits, NanoUsd, Patience, Route, Rung, Strategy, Timestamp, strategy};
use crate::exit_code::ExitCode;
use crate::printable;
use crate::view;
use crate::view::check::{CheckView, FaultView, RungsView, TriedView};
use crate::view::tone::Tone;
use chrono::DateTime;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Check the configuration, without a network or a database; with --online, its keys and models too
///
/// With --online every key is tried with every model that a route names, by one call of some ten tokens, all of them at
/// once. What that costs is shown, and is in no ledger: no database is needed. The exit status is 0 when all calls were
/// answered, 3 when a key or a model was refused, and 1 when a provider was not reached or was busy.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Make one cheap call with every key and model; this costs a little money
    #[arg(long)]
    pub online: bool,
    /// With --online: calls that have no answer by then are given up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = figure::duration, requires = "online")]
    pub timeout: Duration,
}

/// A shape of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Those of the output.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let format = match global.format {
        Some(output::Format::Json) => Format::Json,
        Some(output::Format::Table | output::Format::Plain | output::Format::Csv) | None => Format::Text,
    };
    let loaded = load(global.config.as_deref(), environment(global), today::now());
    let tried = match &loaded {
        Ok(config) if args.online && config.require_providers().is_ok() => {
            Some(online::try_all(config, Chosen::default(), args.timeout).await)
        }
        _ => None,
    };
    let mut output = Output::new(global);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = report(format, &loaded, tried.as_deref(), &mut out, &mut err).map_err(OutputError)?;
    match format {
        Format::Json => output.writer().write_all(&out).map_err(OutputError)?,
        Format::Text => {
            for line in String::from_utf8_lossy(&out).lines() {
                output.told(line)?;
            }
        }
    }
    for line in without_numbers(String::from_utf8_lossy(&err).into_owned()).lines() {
        // When standard error is gone, the exit status tells.
        let _ = match line.split_once(": ").map(|(head, _)| head) {
            Some("warning") => colour::headed(Tone::Warning, line),
            _ => writeln!(printable::stderr(), "{}", for_stderr(line)),
        };
    }
    output.finish()?;
    Ok(code)
}

fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    now: Timestamp,
) -> Result<Config, ConfigErrors> {
    let mut config = Config::load(file, environment)?;
    if config.file.is_none() {
        // The defaults alone are valid, yet a user who asks has surely written a file that was not found.
        config.require_providers()?;
    }
    let to_come = prices_to_come(&config, now);
    config.warnings.extend(to_come);
    let too_dear = too_dear_for_their_limit(&config, now);
    config.warnings.extend(too_dear);
    Ok(config)
}

/// The targets of which the smallest call may cost more than is allowed: shadows by their limit, and rungs by
/// `max_cost`.
fn too_dear_for_their_limit(config: &Config, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, RouteConfig { route, .. }) in &config.routes {
        let smallest = Job {
            id: JobId(0),
            ready_at: now,
            deadline: None,
            max_attempts: None,
            input_tokens: 1,
            max_output_tokens: route.defaults.max_tokens,
            sticky: None,
            extras: Extras::default(),
        };
        let above = |rung: &Rung, limit: NanoUsd| rung.worst_cost(&smallest, now).filter(|worst| *worst > limit);
        if let Some(shadow) = &route.shadow
            && let Some(rung) = shadow.route.rungs.first()
            && let Some(worst) = above(rung, shadow.limit)
        {
            warnings.push(format!(
                "the limit of the shadow of route {name} is {}, and one call of {} may cost {worst}, so that none is \
                 made{}, or raise `limit`",
                shadow.limit,
                rung.target,
                match way_to_cheaper_calls(rung) {
                    Some(own) => format!(": {own}"),
                    None => " unless requests have a small `max_tokens`: give them one".to_owned(),
                }
            ));
        }
        let Some(limit) = route.max_cost else { continue };
        for (rung, worst) in route.rungs.iter().filter_map(|rung| Some((rung, above(rung, limit)?))) {
            warnings.push(format!(
                "max_cost of route {name} is {limit}, and one call of {} may cost {worst}, so that it is {}, or raise \
                 max_cost",
                rung.target,
                match way_to_cheaper_calls(rung) {
                    Some(own) => format!("never asked: {own}"),
                    None => "asked only by requests with a small `max_tokens`: give the route `max_tokens`".to_owned(),
                }
            ));
        }
    }
    warnings
}

/// What makes the worst case of a call smaller where a cap of the request does not, because `quirks` keep it from the
/// server; `None`: a cap does.
fn way_to_cheaper_calls(rung: &Rung) -> Option<String> {
    let in_no_tier = rung.target.in_no_tier();
    rung.model.capabilities.ignores_cap.then(|| {
        format!(
            "its server is not sent `max_tokens` (quirks), so give [models.\"{in_no_tier}\"] the \
             `max_output_tokens` that the server itself keeps"
        )
    })
}

/// The rungs that have a price from a day to come on, and none until then.
fn prices_to_come(config: &Config, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, route) in &config.routes {
        for rung in route.route.rungs.iter().filter(|rung| rung.is_priced() && rung.price_at(now).is_none()) {
            warnings.push(format!(
                "the price of {} (route {name}) is unknown until a later day (`changes`), so the costs of calls before \
                 are, too: `sluice prices show` lists the days",
                rung.target
            ));
        }
    }
    warnings
}

/// Prints the summary and the outcomes of the calls to `out`, faults and warnings to `err`.
fn report(
    format: Format,
    loaded: &Result<Config, ConfigErrors>,
    tried: Option<&[TriedView]>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let works = loaded.as_ref().is_ok_and(|config| config.require_providers().is_ok());
    let code = if works { tried.map_or(ExitCode::Success, online::exit_code) } else { ExitCode::Configuration };
    match (format, loaded) {
        (Format::Json, loaded) => writeln!(out, "{:#}", as_json(loaded, tried)?)?,
        (Format::Text, Err(errors)) => writeln!(err, "{errors}")?,
        (Format::Text, Ok(config)) => {
            summarise(config, out)?;
            for warning in &config.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            for fault in missing(config) {
                writeln!(err, "a worker would not start: {}; add {}", fault.problem, fault.expected)?;
            }
            if let Some(tried) = tried {
                online::tell(tried, out)?;
            }
        }
    }
    Ok(code)
}

/// The settings that a worker lacks to start, although no existing setting is wrong.
fn missing(config: &Config) -> Vec<Fault> {
    config.require_providers().err().map_or_else(Vec::new, |missing| missing.faults().to_vec())
}

fn faults(faults: &[Fault]) -> Vec<FaultView<'_>> {
    let shown = faults.iter().map(|fault| FaultView {
        place: &fault.place,
        key: &fault.key,
        problem: &fault.problem,
        expected: &fault.expected,
    });
    shown.collect()
}

fn as_json(loaded: &Result<Config, ConfigErrors>, tried: Option<&[TriedView]>) -> io::Result<Value> {
    let config = match loaded {
        Ok(config) => config,
        Err(errors) => return Ok(view::document(&CheckView::Faulty { ok: false, faults: faults(errors.faults()) })?),
    };
    let routes = config.routes.iter().map(|(name, route)| {
        let rungs = route.route.rungs.iter().map(|rung| rung.target.to_string());
        (name.as_str(), RungsView { rungs: rungs.collect() })
    });
    let missing = missing(config);
    Ok(view::document(&CheckView::Read {
        ok: missing.is_empty() && tried.is_none_or(|tried| tried.iter().all(TriedView::is_answered)),
        file: config.file.as_ref().map(|file| file.display().to_string()),
        providers: config.providers.keys().map(String::as_str).collect(),
        routes: routes.collect(),
        warnings: &config.warnings,
        faults: faults(&missing),
        online: tried,
    })?)
}

fn summarise(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    match &config.file {
        Some(file) if config.require_providers().is_err() => {
            writeln!(out, "{} has no faults, and nothing that a worker could work with.", file.display())?;
        }
        Some(file) => writeln!(out, "{} is in order.", file.display())?,
        None => writeln!(out, "The configuration in variables is in order; there is no file.")?,
    }
    match &config.database.url {
        Some(_) => writeln!(out, "database: by URL")?,
        None => writeln!(out, "database: a private Postgres in {}", config.database.data_dir.display())?,
    }
    match &config.spool.dir {
        Some(dir) => writeln!(out, "spool: {}", dir.display())?,
        None => writeln!(out, "spool: none; answers wait in memory while the database is away")?,
    }
    for (name, provider) in &config.providers {
        let endpoint = &provider.endpoint;
        let key = match endpoint.keys.len() {
            0 => "without a key".to_owned(),
            1 => "with a key".to_owned(),
            keys => format!("with {keys} keys"),
        };
        // Access keys by their sources, because several places are looked into.
        let signed = endpoint.keys.iter().filter_map(|key| Some((key.name.as_str(), key.region()?)));
        let (names, regions): (Vec<&str>, Vec<&str>) = signed.unzip();
        let key = match regions.first() {
            Some(region) => format!("signed (SigV4) for {region} with {}", names.join(", ")),
            None => key,
        };
        writeln!(out, "provider {name}: {} at {}, {key}", endpoint.dialect.name, endpoint.base_url)?;
        if let Some(probe) = &provider.probe {
            writeln!(
                out,
                "  probe: {} every {}; {} in a row hold the provider back",
                probe.page.as_str(),
                humantime::format_duration(probe.every),
                counted(probe.failures, "failure", "failures")
            )?;
        }
        summarise_bucket(&provider.bucket, config, out)?;
        let own: BTreeSet<&String> = config
            .model_buckets
            .iter()
            .filter(|(target, bucket)| target.provider == *name && **bucket != provider.bucket)
            .map(|(_, bucket)| bucket)
            .collect();
        own.into_iter().try_for_each(|bucket| summarise_bucket(bucket, config, out))?;
    }
    config.routes.iter().try_for_each(|(name, route)| summarise_route(name, route, out))
}

fn summarise_bucket(bucket: &str, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let limits = config.buckets.get(bucket).map(describe_limits).unwrap_or_default();
    let limits = if limits.is_empty() { "no limits of our own".to_owned() } else { limits };
    writeln!(out, "  bucket {bucket}: {limits}")
}

fn day(Timestamp(millis): Timestamp) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(String::new, |at| at.date_naive().to_string())
}

/// What a price says of plain tokens, and of those of long prompts.
fn in_and_out(price: &Tariff) -> String {
    let of = |price: &Price| format!("{} in, {} out", NanoUsd(price.input), NanoUsd(price.output));
    price.above.iter().fold(of(&price.usual), |all, above| {
        format!("{all} ({} beyond {} tokens of input)", of(&above.price), above.input_tokens)
    })
}

fn summarise_route(name: &str, config: &RouteConfig, out: &mut dyn Write) -> io::Result<()> {
    let now = today::now();
    let RouteConfig { route, stop_loss, .. } = config;
    writeln!(out, "route {name}: {}, {} at most", order(route), counted(route.max_attempts, "attempt", "attempts"))?;
    if let Some(limit) = route.max_cost {
        writeln!(out, "  the calls of one job cost {limit} at most")?;
    }
    if let Some(cascade) = &route.cascade {
        let (measure, at_least) = (&cascade.measure, cascade.at_least);
        writeln!(out, "  a job goes on to the next rung where {measure} of its answer is below {at_least}")?;
    }
    if let Some(max_failed) = stop_loss.max_failed {
        writeln!(
            out,
            "  batches that are enqueued by command pause when more than {} of them fails",
            max_failed.percent()
        )?;
    }
    if let Some(max_wasted) = stop_loss.max_wasted {
        writeln!(out, "  and when more than {} of their money brings no answer", max_wasted.percent())?;
    }
    let rules = route.rules.names();
    if !rules.is_empty() {
        writeln!(out, "  answers keep {}: {}", counted(rules.len(), "rule", "rules"), rules.join(", "))?;
    }
    if !route.defaults.is_empty() {
        writeln!(out, "  adds to requests that lack it: {}", adds(&route.defaults))?;
    }
    let shares = match &route.strategy {
        Strategy::Weighted(_) => strategy::first_choices(route, None),
        _ => Vec::new(),
    };
    if let Some((shadow, target)) = route.shadow.as_ref().and_then(|shadow| Some((shadow, shadow.target()?))) {
        let share = shadow.share().percent();
        writeln!(out, "  shadow: {share} of the accepted jobs also to {target}, for {} a day at most", shadow.limit)?;
    }
    for (index, fork) in route.forks.iter().enumerate() {
        writeln!(out, "  rules[{index}]: along route {} if {}", fork.to, fork.when)?;
    }
    if let Some(packing) = &route.pack {
        writeln!(out, "  embeddings share calls, up to {} inputs each", packing.most.inputs)?;
    }
    for (index, rung) in route.rungs.iter().enumerate() {
        let share = match shares.iter().find(|(drawn, _)| *drawn == index) {
            Some((_, share)) => format!(", {:.1} % of the jobs first", share * 100.0),
            None if shares.is_empty() => String::new(),
            None => ", only as a fallback".to_owned(),
        };
        let price = rung
            .peak_price(now)
            .map_or_else(|| "price unknown".to_owned(), |price| format!("{} per million tokens", in_and_out(&price)));
        let timeout = humantime::format_duration(rung.timeouts.total);
        let streamed = if rung.stream { ", streamed" } else { "" };
        writeln!(out, "  {}: {price}, timeout {timeout}{streamed}{share}", rung.target)?;
        if let (Some(other), Some(price)) = (&rung.model.terms_at(now).off_peak, rung.off_peak_price(now)) {
            writeln!(out, "    {} outside {} (UTC)", in_and_out(&price), other.peak)?;
        }
        for change in rung.model.changes.iter().filter(|change| change.from > now) {
            let price = change.terms.peak_price(rung.target.tier.map(|tier| tier.name));
            let price = price.map_or_else(|| "price unknown".to_owned(), |price| in_and_out(&price));
            writeln!(out, "    {price} from {} on", day(change.from))?;
        }
    }
    Ok(())
}

/// What a route adds to requests.
fn adds(defaults: &Defaults) -> String {
    let template = defaults.request.as_ref().map(|request| {
        let names: Vec<String> = request.names().into_iter().map(|name| format!("{{{name}}}")).collect();
        if names.is_empty() { "a template".to_owned() } else { format!("a template for {}", names.join(", ")) }
    });
    let parts = [
        template,
        defaults.system.as_ref().map(|_| "system".to_owned()),
        defaults.max_tokens.map(|most| format!("max_tokens {most}")),
        defaults.temperature.map(|temperature| format!("temperature {temperature}")),
        defaults.response_format.as_ref().map(|_| "response_format".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Which rung a job takes, and how long it waits for another one.
fn order(route: &Route) -> String {
    if route.fallback_on.is_empty() {
        return "pinned to its rung".to_owned();
    }
    if route.rungs.len() < 2 {
        return "one rung".to_owned();
    }
    let (strategy, better) = match &route.strategy {
        Strategy::Cost => ("cheapest first".to_owned(), "a cheaper rung"),
        Strategy::Priority => ("in this order".to_owned(), "an earlier rung"),
        Strategy::Weighted(_) => ("drawn by weight".to_owned(), "the drawn rung"),
        Strategy::Balanced => ("most room first".to_owned(), "any rung"),
        Strategy::Fastest => ("fastest first".to_owned(), "a faster rung"),
        Strategy::Sticky(by) => (format!("the same rung for the same {by}"), "that rung"),
        Strategy::Race(race) => {
            let after = humantime::format_duration(race.after);
            (format!("cheapest first, the next after {after}, {} at a time", race.at_most), "a cheaper rung")
        }
    };
    match route.patience {
        Patience::Forever => format!("{strategy}, waits for {better} as long as it takes"),
        Patience::For(Duration::ZERO) => format!("{strategy}, never waits for {better}"),
        Patience::For(time) => format!("{strategy}, waits for {better} up to {}", humantime::format_duration(time)),
    }
}

fn describe_limits(limits: &Limits) -> String {
    let rates = limits.rates.iter().map(|rate| {
        let per = match rate.per.as_secs() {
            1 => "second".to_owned(),
            60 => "minute".to_owned(),
            86_400 => "day".to_owned(),
            _ => humantime::format_duration(rate.per).to_string(),
        };
        format!("{} {} per {per}", rate.amount, rate.unit)
    });
    let concurrency = limits.concurrency.iter().map(|calls| format!("{} at once", counted(calls, "call", "calls")));
    rates.chain(concurrency).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-hunter2";

    /// Exit code, standard output, standard error.
    fn check(toml: &str, format: Format) -> (ExitCode, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sluice.toml");
        std::fs::write(&file, toml).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let environment = [("OPENAI_API_KEY", KEY), ("AWS_ACCESS_KEY_ID", "AKIDX"), ("AWS_SECRET_ACCESS_KEY", KEY)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let code = report(format, &load(Some(&file), environment, NOW), None, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// A day of November 2026.
    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    const GOOD: &str = "[providers.openai]\napi_key_env = \"OPENAI_API_KEY\"\nlimits = { requests_per_minute = 600 }\n\
                        [routes.default]\nrungs = [\"openai/gpt-4o-mini\", \"openai/of-tomorrow\"]\n";

    #[test]
    fn a_good_file_is_summarised_and_unknown_prices_are_warned_of() {
        let (code, out, err) = check(GOOD, Format::Text);
        assert_eq!(code, ExitCode::Success);
        assert!(out.contains("provider openai: openai at https://api.openai.com/v1, with a key"), "{out}");
        assert!(out.contains("bucket openai: 600 requests per minute"), "{out}");
        assert!(out.contains("openai/gpt-4o-mini: $0.15 in, $0.60 out per million tokens, timeout 10m"), "{out}");
        assert!(err.contains("warning: the price of openai/of-tomorrow"), "{err}");
        assert!(!out.contains(KEY) && !err.contains(KEY));
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&other, "another-key").unwrap();
        let list = format!("keys = [{{ api_key_env = \"OPENAI_API_KEY\" }}, {{ api_key_file = {:?} }}]", other.path());
        let (_, out, _) = check(&GOOD.replace("api_key_env = \"OPENAI_API_KEY\"", &list), Format::Text);
        assert!(out.contains("provider openai: openai at https://api.openai.com/v1, with 2 keys"), "{out}");
    }

    #[test]
    fn probes_rules_for_answers_and_shadows_that_are_never_asked_are_told() {
        let with = |limit: &str| {
            let more = format!(
                "validate = {{ min_chars = 10, stuck_answer = true }}\n[routes.default.shadow]\n\
                 target = \"openai/gpt-4o\"\nshare = 0.1\nlimit = \"{limit}\"\n[providers.local]\n\
                 dialect = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n\
                 probe = {{ path = \"/health\", every = \"15s\", failures = 2 }}\n"
            );
            check(&format!("{GOOD}{more}"), Format::Text)
        };
        let (code, out, err) = with("1");
        assert_eq!(code, ExitCode::Success, "{err}");
        assert!(out.contains("  probe: /health every 15s; 2 failures in a row hold the provider back\n"), "{out}");
        let rules = out.lines().find(|line| line.contains("answers keep")).unwrap();
        assert!(rules.contains(" rules: non_empty, min_chars, ") && rules.ends_with(", stuck_answer"), "{rules}");
        assert!(!err.contains("shadow"), "{err}");
        let (code, _, err) = with("0.001");
        assert_eq!(code, ExitCode::Success, "it is a warning");
        let told = "the limit of the shadow of route default is $0.001, and one call of openai/gpt-4o may cost $0.";
        assert!(err.contains(told) && err.contains("raise `limit`"), "{err}");
        // A cap makes the calls cheap enough.
        let small = GOOD.replace("rungs", "max_tokens = 10\nrungs");
        let shadow = "[routes.default.shadow]\ntarget = \"openai/gpt-4o\"\nshare = 0.1\nlimit = \"0.001\"\n";
        assert!(!check(&format!("{small}{shadow}"), Format::Text).2.contains("shadow"));
    }

    #[test]
    fn rungs_that_hardly_a_request_can_pay_for_are_told() {
        let with = |lines: &str| check(&GOOD.replace("rungs", &format!("{lines}\nrungs")), Format::Text);
        let (code, out, err) = with("max_cost = \"0.001\"");
        assert_eq!(code, ExitCode::Success, "it is a warning");
        assert!(out.contains("  the calls of one job cost $0.001 at most\n"), "{out}");
        let told = "max_cost of route default is $0.001, and one call of openai/gpt-4o-mini may cost $0.0";
        assert!(err.contains(told) && err.contains("give the route `max_tokens`, or raise max_cost"), "{err}");
        assert!(err.contains("openai/of-tomorrow has no price, so no job of this route is ever sent there"), "{err}");
        assert!(!with("max_tokens = 100\nmax_cost = \"0.001\"").2.contains("may cost"));
    }

    #[test]
    fn where_a_server_is_not_sent_the_cap_another_way_to_cheaper_calls_is_told() {
        let deaf = GOOD.replace(
            "[providers.openai]\n",
            "[providers.openai]\nquirks = { drop = [\"max_tokens\", \"max_completion_tokens\"] }\n",
        );
        let bounded = deaf.replace("rungs", "max_tokens = 10\nmax_cost = \"0.001\"\nrungs");
        let shadow = "[routes.default.shadow]\ntarget = \"openai/gpt-4o\"\nshare = 0.1\nlimit = \"0.001\"\n";
        let (code, _, err) = check(&format!("{bounded}{shadow}"), Format::Text);
        assert_eq!(code, ExitCode::Success, "{err}");
        let told: Vec<&str> = err.lines().filter(|line| line.contains("may cost")).collect();
        assert_eq!(told.len(), 2, "{err}");
        for (line, model) in told.iter().zip(["gpt-4o", "gpt-4o-mini"]) {
            let advice =
                format!("not sent `max_tokens` (quirks), so give [models.\"openai/{model}\"] the `max_output_tokens`");
            assert!(line.contains(&advice), "{line}");
            assert!(!line.contains("give the route"), "{line}");
        }
        // The advice works.
        let capped = format!("{bounded}[models.\"openai/gpt-4o-mini\"]\nmax_output_tokens = 10\n");
        let err = check(&capped, Format::Text).2;
        assert!(!err.contains("openai/gpt-4o-mini may cost"), "{err}");
    }

    #[test]
    fn a_price_that_begins_on_a_later_day_is_told() {
        let priced = |from: &str| {
            let price = "price = { input = \"1\", output = \"2\" }";
            let model = format!("[models.\"openai/of-tomorrow\"]\nchanges = [{{ from = \"{from}\", {price} }}]\n");
            check(&format!("{GOOD}{model}"), Format::Text).2
        };
        let told = priced("2027-05-01");
        assert!(told.contains("of openai/of-tomorrow (route default) is unknown until a later day"), "{told}");
        assert_eq!(priced("2026-05-01"), "");
    }

    #[test]
    fn a_signed_provider_says_where_its_key_is_from_and_for_which_region() {
        let aws = "[providers.aws]\ndialect = \"bedrock\"\nauth = \"sigv4\"\nbase_url = \
                   \"https://bedrock-runtime.eu-central-1.amazonaws.com\"\n";
        let (_, out, err) = check(&format!("{GOOD}{aws}"), Format::Text);
        let expected = "amazonaws.com, signed (SigV4) for eu-central-1 with AWS_ACCESS_KEY_ID\n";
        assert!(out.contains(expected), "{out}");
        assert!(![out, err].concat().contains("AKIDX"));
    }

    #[test]
    fn a_route_says_which_rung_it_waits_for_and_a_provider_has_the_limits_of_its_models() {
        let told = |more: &str| check(&format!("{GOOD}{more}"), Format::Text).1;
        for (more, expected) in [
            ("", "route default: cheapest first, waits for a cheaper rung up to 10m, 6 attempts at most"),
            (
                "strategy = \"priority\"",
                "route default: in this order, waits for an earlier rung up to 10m, 6 attempts",
            ),
            ("strategy = \"priority\"\npatience = \"0s\"", "in this order, never waits for an earlier rung, 6"),
            ("patience = \"forever\"", "cheapest first, waits for a cheaper rung as long as it takes, 6"),
            ("fallback = \"never\"", "route default: pinned to its rung, 6 attempts"),
        ] {
            assert!(told(more).contains(expected), "{more}: {}", told(more));
        }
        let climbs = told("cascade = { confidence = \"min_logprob\", at_least = 0.5 }");
        assert!(climbs.contains("goes on to the next rung where min_logprob of its answer is below 0.5"), "{climbs}");
        let one = GOOD.replace(", \"openai/of-tomorrow\"", "");
        assert!(check(&one, Format::Text).1.contains("route default: one rung, 6 attempts"));
        let own = told("[models.\"openai/gpt-4o-mini\"]\nlimits = { requests_per_minute = 7 }\n");
        assert!(own.contains("  bucket openai/gpt-4o-mini: 7 requests per minute"), "{own}");
    }

    #[test]
    fn a_bad_file_lists_its_faults_on_standard_error_and_has_its_exit_code() {
        let (code, out, err) = check("[worker]\nspeed = 1\npace = 2\n", Format::Text);
        assert_eq!((code, out.as_str()), (ExitCode::Configuration, ""));
        assert!(err.contains("2 faults") && err.contains("worker.speed") && err.contains("worker.pace"), "{err}");
    }

    #[test]
    fn a_file_with_which_a_worker_would_not_start_has_the_exit_code_that_it_would_have() {
        let provider = "[providers.openai]\napi_key_env = \"OPENAI_API_KEY\"\n";
        for (toml, lacks) in [("", "providers"), ("[http]\nlisten = \"off\"\n", "providers"), (provider, "routes")] {
            let (code, out, err) = check(toml, Format::Text);
            assert_eq!(code, ExitCode::Configuration, "{toml}");
            assert!(out.contains("no faults, and nothing that a worker could work with"), "{out}");
            assert!(err.contains(&format!("a worker would not start: there are no {lacks}")), "{err}");
            assert!(err.contains("[providers.openai]"), "{err}");
            let (code, out, _) = check(toml, Format::Json);
            let value: Value = serde_json::from_str(&out).unwrap();
            assert_eq!((code, &value["ok"]), (ExitCode::Configuration, &false.into()));
            assert_eq!((&value["faults"][0]["key"], value["file"].is_string()), (&lacks.into(), true));
        }
    }

    #[test]
    fn json_says_the_same_to_programs() {
        let parse = |(code, out, _): (ExitCode, String, String)| (code, serde_json::from_str::<Value>(&out).unwrap());
        let (code, value) = parse(check(GOOD, Format::Json));
        assert_eq!((code, &value["ok"]), (ExitCode::Success, &true.into()));
        assert_eq!(value["routes"]["default"]["rungs"][0], "openai/gpt-4o-mini");
        let (code, value) = parse(check("[worker]\nspeed = 1\n", Format::Json));
        assert_eq!((code, &value["faults"][0]["key"]), (ExitCode::Configuration, &"worker.speed".into()));
    }
}
