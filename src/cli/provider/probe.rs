//! `sluice provider probe`: whether a provider answers now, with each key and model, and what workers make of it.

use super::super::GlobalArgs;
use super::super::context::{Context, environment};
use super::super::failure::CommandFailure;
use super::super::figure;
use super::super::online::{self, Chosen};
use super::super::output::{Format, Output, OutputError};
use super::unknown;
use crate::config::{Config, ProviderConfig};
use crate::domain::awaited::What;
use crate::domain::knock;
use crate::domain::obstacle::{Circumstances, Hindrance, Obstacle, Subject};
use crate::domain::probe::ProbeReport;
use crate::domain::shut::Reason;
use crate::embedded::EmbeddedPostgres;
use crate::exit_code::ExitCode;
use crate::printable::on_one_line;
use crate::provider::Provider;
use crate::view::check::{HeldBackView, ProbedPageView, ProviderProbeView, TriedView};
use crate::view::command::{about, advice};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is probed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Its name
    pub name: String,
    /// Call this model alone, one that a route names
    #[arg(long)]
    pub model: Option<String>,
    /// Calls that have no answer by then are given up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = figure::duration)]
    pub timeout: Duration,
}

/// Runs the command.
pub(super) async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref(), environment(global))?;
    let name = args.name.as_str();
    let Some(provider) = config.providers.get(name) else { return Err(unknown(name, &config).into()) };
    let target = args.model.as_deref().map(|model| target_of(&config, name, model)).transpose()?;
    if target.is_none() && provider.probe.is_none() && online::targets_of(&config, name).is_empty() {
        let problem = format!("no route names a model of the provider {name:?}, so there is nothing to call");
        return Err(CommandFailure::not_found(problem).into());
    }
    let chosen = Chosen { provider: Some(name), target: target.as_deref() };
    let (page, calls) = tokio::join!(ask_page(provider, args.timeout), online::try_all(&config, chosen, args.timeout));
    let page = page?;
    let is_answered = calls.iter().any(TriedView::is_answered);
    let held_back = match held_back(&config, name, is_answered, global).await {
        Ok(held_back) => held_back,
        Err(error) => {
            let said = format!("what workers hold back is not known: {error:#}");
            Output::new(global).note(said);
            None
        }
    };
    let calls = with_doubt(calls, held_back.as_deref().unwrap_or_default());
    let ok = page.as_ref().is_none_or(|page| page.ok) && calls.iter().all(TriedView::is_answered);
    let view = ProviderProbeView { provider: name.to_owned(), ok, page, calls, held_back };
    let mut output = Output::new(global);
    if output.format() == Format::Json {
        output.json(&view)?;
    } else {
        tell(&view, &mut output)?;
    }
    output.finish()?;
    let page_is_well = view.page.as_ref().is_none_or(|page| page.ok);
    Ok(match online::exit_code(&view.calls) {
        ExitCode::Success if !page_is_well => ExitCode::Failure,
        code => code,
    })
}

/// The target of the provider that is meant by a model's name.
fn target_of(config: &Config, provider: &str, model: &str) -> Result<String, CommandFailure> {
    let known = online::targets_of(config, provider);
    let meant = format!("{provider}/{model}");
    if let Some(target) = known.iter().find(|target| **target == meant || **target == model) {
        return Ok(target.clone());
    }
    let names: Vec<&str> = known.iter().filter_map(|target| Some(target.split_once('/')?.1)).collect();
    let names = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    Err(CommandFailure::not_found(format!("no route names the model {model:?} of {provider}; they name: {names}")))
}

/// Asks the health page, where one is configured.
async fn ask_page(config: &ProviderConfig, limit: Duration) -> anyhow::Result<Option<ProbedPageView>> {
    let Some(settings) = &config.probe else { return Ok(None) };
    let client = Provider::new(config.endpoint.clone())?;
    let report = client.probe(0, &settings.page, settings.timeout.min(limit)).await;
    let ok = report.is_good();
    let ProbeReport { status, words, total_ms } = report;
    Ok(Some(ProbedPageView {
        path: settings.page.as_str().to_owned(),
        ok,
        http_status: status,
        message: words,
        total_ms: i64::from(total_ms),
    }))
}

/// What live workers hold back of the provider; `None`: there is no database yet that could know. `is_answered`:
/// whether it answers, so that there may be something to end.
async fn held_back(
    config: &Config,
    provider: &str,
    is_answered: bool,
    global: &GlobalArgs,
) -> anyhow::Result<Option<Vec<HeldBackView>>> {
    // A private Postgres is not made or started for this.
    if config.database.url.is_none() && !EmbeddedPostgres::runs_in(&config.database.data_dir).await {
        return Ok(None);
    }
    let context = Context::open(global).await?;
    let known = context.store.known().await;
    context.close().await?;
    Ok(Some(held_back_by(&known?, provider, is_answered)))
}

/// The outcomes, with other advice about refused keys while workers take their refusals for an outage.
fn with_doubt(mut calls: Vec<TriedView>, held_back: &[HeldBackView]) -> Vec<TriedView> {
    let in_doubt = |target: &str| {
        held_back
            .iter()
            .any(|held| held.target.as_deref() == Some(target) && held.reason == Reason::KeysInDoubt.as_str())
    };
    for call in &mut calls {
        if call.class.as_deref().is_some_and(knock::looks_like_an_outage) && in_doubt(&call.target) {
            call.advice = Some(knock::IN_AN_OUTAGE);
        }
    }
    calls
}

fn held_back_by(known: &Circumstances, provider: &str, is_answered: bool) -> Vec<HeldBackView> {
    let reopen = || is_answered.then(|| about("sluice provider reopen", provider, ""));
    let mut targets: BTreeMap<&str, Reason> = BTreeMap::new();
    let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
    for worker in &known.workers {
        let reason = |code: Option<&str>| code.and_then(|code| Reason::try_from(code.to_owned()).ok());
        for target in &worker.gate.targets {
            let Some(name) = target.target.as_deref() else { continue };
            if name.split_once('/').is_none_or(|(of, _)| of != provider) {
                continue;
            }
            let own = target.shut.as_ref().and_then(|shut| shut.reason.as_deref());
            // A wait that the provider asked for is known by the limits of its bucket.
            let buckets: Vec<&str> = target.bucket.as_deref().unwrap_or_default().split(", ").collect();
            let is_its = |bucket: &str| buckets.contains(&bucket);
            let waits = worker.gate.buckets.iter().filter(|bucket| bucket.name.as_deref().is_some_and(is_its));
            let mut waits = waits.filter_map(|bucket| bucket.shut.as_ref()?.reason.as_deref());
            let told = reason(own).or_else(|| reason(waits.find(|wait| *wait == Reason::RateLimit.as_str())));
            if let Some(told) = told {
                targets.entry(name).or_insert(told);
            }
        }
        for key in worker.gate.keys.iter().filter(|key| key.provider.as_deref() == Some(provider)) {
            let reason = key.shut.as_ref().and_then(|shut| shut.reason.as_deref());
            if let (Some(name), Some(reason)) = (key.key.as_deref(), reason) {
                keys.entry(name).or_insert(reason);
            }
        }
    }
    let of_target = targets.into_iter().map(|(target, reason)| {
        let obstacle = Obstacle::of(&format!("{target}: {}", reason.as_str()), Subject::default(), known);
        let ends = match (&obstacle.kind, reason) {
            (_, Reason::HealthProbe) => Some("the first good health probe of a worker ends it".to_owned()),
            (Hindrance::Shut(shut), Reason::Paused | Reason::Budget) => shut.advice().as_ref().map(advice),
            (Hindrance::Shut(shut), _) if matches!(shut.what, What::Opens(Reason::PeakHours)) => None,
            _ => reopen(),
        };
        HeldBackView {
            target: Some(target.to_owned()),
            key: None,
            reason: reason.as_str().to_owned(),
            words: obstacle.in_words(),
            advice: ends,
        }
    });
    let of_key = keys.into_iter().map(|(key, reason)| HeldBackView {
        target: None,
        key: Some(key.to_owned()),
        reason: reason.to_owned(),
        words: format!("the key {key} is out of service ({reason})"),
        advice: reopen(),
    });
    of_target.chain(of_key).collect()
}

fn tell(view: &ProviderProbeView, output: &mut Output) -> Result<(), OutputError> {
    if let Some(page) = &view.page {
        let after = format!("after {} ms", page.total_ms);
        let said = page.message.as_deref().map(|said| format!(": “{}”", on_one_line(said))).unwrap_or_default();
        let status = page.http_status.map(|status| format!(", HTTP {status}")).unwrap_or_default();
        let outcome = if page.ok { format!("is good {after}") } else { format!("FAILED {after}{status}{said}") };
        output.told(format_args!("its health page {} {outcome}", page.path))?;
    }
    if !view.calls.is_empty() {
        let mut told = Vec::new();
        online::tell(&view.calls, &mut told).map_err(OutputError)?;
        let told = String::from_utf8_lossy(&told);
        for line in if view.page.is_some() { &told } else { told.trim_start() }.lines() {
            output.told(line)?;
        }
    }
    let held_back = view.held_back.as_deref().unwrap_or_default();
    if let Some((first, rest)) = held_back.split_first() {
        output.told("")?;
        output.told("workers hold it back:")?;
        let mut ends: Vec<&str> = Vec::new();
        for held in std::iter::once(first).chain(rest) {
            output.told(format_args!("  {}", on_one_line(&held.words)))?;
            ends.extend(held.advice.as_deref().filter(|advice| !ends.contains(advice)));
        }
        for advice in ends {
            output.told(format_args!("  do: {advice}"))?;
        }
    }
    Ok(())
}
