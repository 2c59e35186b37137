//! One cheap call with every key and model: `sluice check --online`, and of one provider `sluice provider probe`.

use crate::cli::today;
use crate::config::{Config, ProviderConfig};
use crate::domain::counted::counted;
use crate::domain::error_class::Billed;
use crate::domain::knock::{self, Blame};
use crate::domain::usage::Sent;
use crate::domain::{ErrorClass, MustKeep, NanoUsd, Route, Rung, UsageSource, estimate};
use crate::exit_code::ExitCode;
use crate::printable::on_one_line;
use crate::provider::{Call, CallReport, Delivery, Payload, Provider};
use crate::view::check::TriedView;
use crate::view::dollars::Dollars;
use futures_util::{StreamExt as _, stream};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// Columns of a provider's words, so that they and their margin fit a terminal of the usual width.
const WIDTH: usize = 70;

/// The words before what to do.
const DO: &str = "do: ";
/// Calls under way at once.
const AT_ONCE: usize = 64;

/// A call to be made.
struct Trial<'a> {
    provider: &'a Provider,
    rung: &'a Rung,
    /// The key's place in the configuration, and its name.
    key: (usize, Option<&'a str>),
}

/// Which of the keys and models are tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chosen<'a> {
    /// The provider; `None`: all of them.
    pub provider: Option<&'a str>,
    /// The target, as `provider/model`; `None`: all of them.
    pub target: Option<&'a str>,
}

/// The rungs of a route, and that of its shadow.
fn rungs_of(route: &Route) -> impl Iterator<Item = &Rung> {
    route.rungs.iter().chain(route.shadow.iter().flat_map(|shadow| &shadow.route.rungs))
}

/// The targets that routes name, each with the first of its rungs.
fn named<'a>(config: &'a Config, chosen: Chosen<'_>) -> BTreeMap<String, &'a Rung> {
    let mut rungs: BTreeMap<String, &Rung> = BTreeMap::new();
    for rung in config.routes.values().flat_map(|route| rungs_of(&route.route)) {
        let name = rung.target.to_string();
        let is_chosen = chosen.provider.is_none_or(|provider| rung.target.provider == provider)
            && chosen.target.is_none_or(|target| name == target);
        if is_chosen {
            rungs.entry(name).or_insert(rung);
        }
    }
    rungs
}

/// The targets of a provider that routes name, as `provider/model`, in the order of their names.
pub(super) fn targets_of(config: &Config, provider: &str) -> Vec<String> {
    named(config, Chosen { provider: Some(provider), target: None }).into_keys().collect()
}

/// Makes one call with every chosen key and model that a route names. Calls that have no answer after `limit` are given
/// up, and none begins after that. The outcomes are in the order of the targets and of the keys.
pub(super) async fn try_all(config: &Config, chosen: Chosen<'_>, limit: Duration) -> Vec<TriedView> {
    let until = Instant::now() + limit;
    let rungs = named(config, chosen);
    let clients: BTreeMap<&str, Result<Provider, String>> = config
        .providers
        .iter()
        .filter(|(name, _)| chosen.provider.is_none_or(|provider| *name == provider))
        .map(|(name, ProviderConfig { endpoint, .. })| {
            (name.as_str(), Provider::new(endpoint.clone()).map_err(|error| error.to_string()))
        })
        .collect();
    let (mut trials, mut tried) = (Vec::new(), Vec::new());
    for (target, rung) in &rungs {
        match clients.get(rung.target.provider.as_str()) {
            Some(Ok(provider)) => {
                let names: Vec<Option<&str>> =
                    provider.endpoint().keys.iter().map(|key| Some(key.name.as_str())).collect();
                let names = if names.is_empty() { vec![None] } else { names };
                trials.extend(names.into_iter().enumerate().map(|key| Trial { provider, rung, key }));
            }
            Some(Err(fault)) => tried.push(not_made(target, None, "configuration", true, fault.clone())),
            None => {}
        }
    }
    let calls = trials.iter().map(|trial| trial.make(until, limit));
    tried.extend(stream::iter(calls).buffered(AT_ONCE).collect::<Vec<_>>().await);
    tried
}

fn not_made(target: &str, key: Option<&str>, class: &str, is_refused: bool, message: String) -> TriedView {
    TriedView {
        target: target.to_owned(),
        key: key.map(str::to_owned),
        class: Some(class.to_owned()),
        is_refused,
        http_status: None,
        message: Some(message),
        advice: None,
        total_ms: 0,
        cost: Some(Dollars(NanoUsd::ZERO)),
    }
}

impl Trial<'_> {
    async fn make(&self, until: Instant, limit: Duration) -> TriedView {
        let target = self.rung.target.to_string();
        let (key, name) = self.key;
        let left = until.saturating_duration_since(Instant::now());
        let in_vain = || {
            let limit = humantime::format_duration(limit);
            let message = format!("no answer within {limit}; --timeout gives it longer");
            // It was sent, so it may be billed.
            let cost = None;
            let advice = Some(knock::advice(ErrorClass::Timeout));
            TriedView { advice, cost, ..not_made(&target, name, "timeout", false, message) }
        };
        if left.is_zero() {
            return TriedView { cost: Some(Dollars(NanoUsd::ZERO)), ..in_vain() };
        }
        let request = match knock::request(&self.rung.target.model) {
            Ok(request) => request,
            Err(fault) => return not_made(&target, name, "invalid_request", true, fault.to_string()),
        };
        let call = Call {
            payload: Payload::from(&request),
            model: &self.rung.target.model,
            tier: self.rung.target.tier,
            capabilities: &self.rung.model.capabilities,
            mends: &[],
            must_keep: &MustKeep::Nothing,
            delivery: Delivery::Whole,
        };
        let (began, head) = (Instant::now(), OnceLock::new());
        let called = tokio::time::timeout(left, self.provider.call(key, &call, &self.rung.timeouts, &head)).await;
        let millis = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        match called {
            Ok(Ok(report)) => {
                let most = |cap| estimate::most_output_tokens(&self.rung.model.capabilities, cap);
                let (allowed, longest) = (most(request.max_tokens), most(None));
                let sent = Sent { input: estimate::input_tokens(&request), allowed, longest };
                self.told(&target, name, report, sent)
            }
            Ok(Err(ineligible)) => not_made(&target, name, "invalid_request", true, format!("{ineligible:?}")),
            Err(_) => TriedView { total_ms: millis, ..in_vain() },
        }
    }

    fn told(&self, target: &str, key: Option<&str>, report: CallReport, sent: Sent) -> TriedView {
        let price = self.rung.price_at(today::now());
        let told = TriedView {
            total_ms: i64::from(report.total_ms),
            http_status: report.status,
            ..not_made(target, key, "", false, String::new())
        };
        match report.result {
            Ok(answer) => {
                let text = answer.text.as_deref().unwrap_or_default();
                let (usage, _) = answer.usage.believed(sent, &[text]);
                let cost = price.as_ref().map(|price| price.cost(&usage)).or(answer.beside.cost);
                TriedView { class: None, message: None, cost: cost.map(Dollars), ..told }
            }
            Err(failure) => {
                let said = report.failed_usage.as_ref().and_then(|billed| billed.cost);
                let billed = report.failed_usage.as_ref().map(|billed| &billed.usage);
                let cost = match billed.filter(|usage| usage.source == UsageSource::Provider) {
                    _ if said.is_some() => said,
                    Some(usage) => price.as_ref().map(|price| price.cost(usage)),
                    // A refusal costs nothing; a call that broke off may have been billed.
                    None if report.status.is_some_and(|status| status >= 400) => Some(NanoUsd::ZERO),
                    None if failure.class.facts().billed == Billed::Never => Some(NanoUsd::ZERO),
                    None => None,
                };
                TriedView {
                    class: Some(failure.class.as_str().to_owned()),
                    is_refused: Blame::of(failure.class) == Blame::Refused,
                    message: Some(failure.message),
                    advice: Some(knock::advice(failure.class)),
                    cost: cost.map(Dollars),
                    ..told
                }
            }
        }
    }
}

/// The exit status that fits the outcomes.
pub(super) fn exit_code(tried: &[TriedView]) -> ExitCode {
    if tried.iter().any(|call| call.is_refused) {
        ExitCode::Configuration
    } else if tried.iter().all(TriedView::is_answered) {
        ExitCode::Success
    } else {
        ExitCode::Failure
    }
}

/// Prints the outcomes: a line for each key under its target, and the sum.
pub(super) fn tell(tried: &[TriedView], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\none call with each key and model:")?;
    let width = tried.iter().map(|call| shown_key(call).chars().count()).max().unwrap_or(0);
    let mut above = None;
    for call in tried {
        if above != Some(&call.target) {
            writeln!(out, "  {}", on_one_line(&call.target))?;
            above = Some(&call.target);
        }
        let key = shown_key(call);
        let took = if call.total_ms > 0 { format!(" after {} ms", call.total_ms) } else { String::new() };
        let cost = call.cost.map_or_else(|| "cost unknown".to_owned(), |cost| format!("{}", cost.0));
        match &call.class {
            None => writeln!(out, "    {key:width$}  answered{took}, {cost}")?,
            Some(class) => {
                let status = call.http_status.map_or_else(String::new, |status| format!(", HTTP {status}"));
                writeln!(out, "    {key:width$}  FAILED{took}: {class}{status}")?;
                if let Some(message) = call.message.as_deref().filter(|message| !message.is_empty()) {
                    for line in wrapped(&format!("“{}”", on_one_line(message)), WIDTH) {
                        writeln!(out, "      {line}")?;
                    }
                }
                if let Some(advice) = call.advice {
                    for (index, line) in wrapped(advice, WIDTH - DO.len()).iter().enumerate() {
                        writeln!(out, "      {}{line}", if index == 0 { DO } else { "    " })?;
                    }
                }
            }
        }
    }
    let answered = tried.iter().filter(|call| call.is_answered()).count();
    let known = tried.iter().filter_map(|call| call.cost).fold(NanoUsd::ZERO, |sum, cost| sum + cost.0);
    let unknown = match tried.iter().filter(|call| call.cost.is_none()).count() {
        0 => String::new(),
        calls => format!(", and an unknown amount for {}", counted(as_count(calls), "call", "calls")),
    };
    writeln!(
        out,
        "{answered} of {} answered; no ledger has what this cost:",
        counted(as_count(tried.len()), "call", "calls")
    )?;
    writeln!(out, "  {known}{unknown}")
}

fn as_count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The text in lines of this width, as far as its words are short enough.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn shown_key(call: &TriedView) -> String {
    call.key.as_deref().map_or_else(|| "without a key".to_owned(), |key| on_one_line(key).into_owned())
}
