//! The scenario: which providers there are and how they behave, from TOML or built in code.

use super::chance::Spread;
use super::dialect::Dialect;
use super::fault::{Disguise, Fault, FaultRule};
use super::key::Key;
use super::quota::Limits;
use super::verdict::Tolerances;
use super::wait::WaitFormat;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Why a scenario cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScenarioError {
    /// Not TOML, an unknown key, or a value of the wrong kind; the text names line and key.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// Where: `providers.openai.faults[2].rate`.
        key: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Draws (faults, sizes, latencies) are a function of this and of the request.
    pub seed: u64,
    /// Obey `[[fault:…]]` in the last user message.
    pub markers: bool,
    /// How many recent calls `/_sim/calls` keeps; 0 keeps none.
    pub record_calls: usize,
    /// How many distinct requests are told apart; further ones are counted only in sum.
    pub max_requests: usize,
    /// Threads that serve.
    pub worker_threads: usize,
    /// What the verdict still calls clean.
    pub verdict: Tolerances,
    /// The providers by name; the name is the first segment of the path.
    pub providers: BTreeMap<String, Provider>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            markers: false,
            record_calls: 10_000,
            max_requests: 1_000_000,
            worker_threads: 1,
            verdict: Tolerances::default(),
            providers: BTreeMap::new(),
        }
    }
}

/// A simulated provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Which API it speaks.
    pub dialect: Dialect,
    /// The keys it takes; any, or none, when empty.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// The models it knows; any when empty.
    #[serde(default)]
    pub models: BTreeMap<String, Model>,
    /// Its limits.
    #[serde(default)]
    pub quota: Limits,
    /// What a bucket of limits belongs to.
    #[serde(default)]
    pub quota_per: QuotaScope,
    /// Whether it says anything of its limits: in headers, and how long to wait when it refuses a call.
    #[serde(default = "yes")]
    pub publishes: bool,
    /// How a refusal by the quota tells the wait; the dialect's own way when absent.
    #[serde(default, deserialize_with = "wait_format")]
    pub wait_format: Option<WaitFormat>,
    /// How long answers take.
    #[serde(default)]
    pub latency: Latency,
    /// How long answers are.
    #[serde(default)]
    pub output: Output,
    /// What goes wrong: the first rule that strikes decides.
    #[serde(default)]
    pub faults: Vec<FaultRule>,
}

impl Provider {
    /// A provider without limits that answers well and at once.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            keys: Vec::new(),
            models: BTreeMap::new(),
            quota: Limits::default(),
            quota_per: QuotaScope::default(),
            publishes: true,
            wait_format: None,
            latency: Latency::default(),
            output: Output::default(),
            faults: Vec::new(),
        }
    }
}

/// A model of a provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its price; what calls cost is unknown without.
    pub price: Option<Price>,
    /// Limits of its own, in place of the provider's and in a bucket of its own.
    pub quota: Option<Limits>,
}

/// Prices in nano-dollars per million tokens; in TOML decimal dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input.
    #[serde(deserialize_with = "dollars")]
    pub input: u64,
    /// Output.
    #[serde(deserialize_with = "dollars")]
    pub output: u64,
}

impl Price {
    /// What a call costs in nano-dollars, rounded half up.
    #[must_use]
    pub fn cost(self, input_tokens: u64, output_tokens: u64) -> u64 {
        let total =
            u128::from(self.input) * u128::from(input_tokens) + u128::from(self.output) * u128::from(output_tokens);
        u64::try_from((total + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    }
}

/// What a bucket of limits belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaScope {
    /// All calls share it.
    #[default]
    Provider,
    /// Each model has its own.
    Model,
    /// Each key has its own.
    Key,
}

/// How long an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawLatency")]
pub struct Latency {
    /// Until the first token, in seconds.
    pub first: Spread,
    /// For each token of output, in seconds.
    pub per_output_token: f64,
    /// So many calls at once are answered at full speed; with more, each takes longer in proportion. Absent: any
    /// number.
    pub full_speed: Option<u32>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { first: Spread::Fixed(0.0), per_output_token: 0.0, full_speed: None }
    }
}

impl Latency {
    /// The latency that belongs to this draw for a call that, itself included, is one of `in_flight`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "numbers of tokens and calls are small")]
    pub fn draw(&self, hash: u64, output_tokens: u64, in_flight: u64) -> Duration {
        let seconds = self.first.draw(hash) + self.per_output_token * output_tokens as f64;
        let load = self.full_speed.map_or(1.0, |calls| in_flight as f64 / f64::from(calls.max(1)));
        Duration::try_from_secs_f64(seconds * load.max(1.0)).unwrap_or_default()
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawOutput")]
pub enum Output {
    /// Always this text.
    Text(String),
    /// So many tokens of made-up text.
    Tokens(Spread),
}

impl Default for Output {
    fn default() -> Self {
        Self::Tokens(Spread::Fixed(16.0))
    }
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string().trim_end().to_owned()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The scenario of `config/simulate.toml`: three providers with quotas, latencies and a few faults.
    #[must_use]
    pub fn example() -> Self {
        Self::from_toml(include_str!("../../config/simulate.toml")).expect("a test reads the example")
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let wrong = |key: String, problem: &str| Err(ScenarioError::Value { key, problem: problem.to_owned() });
        if self.providers.is_empty() {
            return wrong("providers".to_owned(), "expected at least one, such as [providers.openai]");
        }
        if self.worker_threads == 0 {
            return wrong("worker_threads".to_owned(), "expected at least 1");
        }
        for (name, provider) in &self.providers {
            let key = |rest: &str| format!("providers.{name}{rest}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.is_empty() || name.starts_with('_') || !name.chars().all(plain) {
                return wrong(key(""), "expected a name of a-z, 0-9 and _, not beginning with _");
            }
            for (index, own) in provider.keys.iter().enumerate() {
                if own.key.is_empty() {
                    return wrong(key(&format!(".keys[{index}]")), "expected a key");
                }
                if own.credit.is_some() && provider.models.values().all(|model| model.price.is_none()) {
                    return wrong(key(&format!(".keys[{index}].credit")), "has no effect without a model with a price");
                }
                if let Some(Err((limit, problem))) = own.quota.as_ref().map(Limits::check) {
                    return wrong(key(&format!(".keys[{index}].quota.{limit}")), problem);
                }
            }
            if let Err((limit, problem)) = provider.quota.check() {
                return wrong(key(&format!(".quota.{limit}")), problem);
            }
            for (model, spec) in &provider.models {
                if let Some(Err((limit, problem))) = spec.quota.as_ref().map(Limits::check) {
                    return wrong(key(&format!(".models.{model}.quota.{limit}")), problem);
                }
            }
            if provider.latency.full_speed == Some(0) {
                return wrong(key(".latency.full_speed"), "expected at least 1; leave it out for any number");
            }
            for (index, rule) in provider.faults.iter().enumerate() {
                let key = |rest: &str| key(&format!(".faults[{index}].{rest}"));
                if !(0.0..=1.0).contains(&rule.rate) {
                    return wrong(key("rate"), "expected a share from 0 to 1");
                }
                if rule.until <= rule.from {
                    return wrong(key("until"), "expected a time after `from`");
                }
                if rule.fault.status.is_some_and(|status| !(400..=599).contains(&status)) {
                    return wrong(key("status"), "expected a status from 400 to 599");
                }
            }
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

/// The format with the given name, or an error that lists all of them.
fn named_format<E: de::Error>(name: &str) -> Result<WaitFormat, E> {
    let known = || WaitFormat::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    WaitFormat::parse(name).ok_or_else(|| E::custom(format!("unknown format `{name}`: expected one of {}", known())))
}

fn wait_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WaitFormat>, D::Error> {
    named_format(&String::deserialize(deserializer)?).map(Some)
}

/// Seconds as a number (`5`, `0.5`) or a duration with a unit (`"90s"`, `"200ms"`).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds (0.5) or a duration (\"500ms\")")
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                let invalid = |_| E::invalid_value(de::Unexpected::Float(seconds), &self);
                Duration::try_from_secs_f64(seconds).map(Span).map_err(invalid)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                let invalid = |_| E::invalid_value(de::Unexpected::Signed(seconds), &self);
                u64::try_from(seconds).map(Duration::from_secs).map(Span).map_err(invalid)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(seconds)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                humantime::parse_duration(text)
                    .map(Span)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

/// Reads a duration in seconds or with a unit.
pub(crate) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Span::deserialize(deserializer).map(|span| span.0)
}

fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_dollars(&text).ok_or_else(|| {
        de::Error::custom(format!("expected dollars per million tokens such as \"0.15\", found {text:?}"))
    })
}

/// Decimal dollars to nano-dollars, exactly: at most nine decimals.
pub(super) fn parse_dollars(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLatency {
    fixed: Option<Span>,
    uniform: Option<[Span; 2]>,
    median: Option<Span>,
    p99: Option<Span>,
    per_output_token: Option<Span>,
    full_speed: Option<u32>,
}

/// One of: fixed, uniform, median with p99; `None` when none is given.
fn spread(
    fixed: Option<f64>,
    uniform: Option<[f64; 2]>,
    median: Option<f64>,
    p99: Option<f64>,
) -> Result<Option<Spread>, String> {
    match (fixed, uniform, median, p99) {
        (None, None, None, None) => Ok(None),
        (Some(value), None, None, None) if value >= 0.0 => Ok(Some(Spread::Fixed(value))),
        (None, Some([low, high]), None, None) if low >= 0.0 && high >= low => Ok(Some(Spread::Uniform(low, high))),
        (None, None, Some(median), Some(p99)) if median > 0.0 && p99 >= median => {
            Ok(Some(Spread::Lognormal { median, p99 }))
        }
        _ => Err("expected one of: a fixed value; `uniform = [low, high]` with low <= high; \
                  `median` and `p99` with 0 < median <= p99"
            .to_owned()),
    }
}

impl TryFrom<RawLatency> for Latency {
    type Error = String;
    fn try_from(raw: RawLatency) -> Result<Self, String> {
        let seconds = |span: Span| span.0.as_secs_f64();
        let uniform = raw.uniform.map(|range| range.map(seconds));
        let first = spread(raw.fixed.map(seconds), uniform, raw.median.map(seconds), raw.p99.map(seconds))?;
        Ok(Self {
            first: first.unwrap_or(Spread::Fixed(0.0)),
            per_output_token: raw.per_output_token.map_or(0.0, seconds),
            full_speed: raw.full_speed,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    text: Option<String>,
    tokens: Option<u32>,
    uniform: Option<[u32; 2]>,
    median: Option<u32>,
    p99: Option<u32>,
}

impl TryFrom<RawOutput> for Output {
    type Error = String;
    fn try_from(raw: RawOutput) -> Result<Self, String> {
        let uniform = raw.uniform.map(|range| range.map(f64::from));
        let tokens = spread(raw.tokens.map(f64::from), uniform, raw.median.map(f64::from), raw.p99.map(f64::from))?;
        match (raw.text, tokens) {
            (None, tokens) => Ok(tokens.map_or_else(Self::default, Self::Tokens)),
            (Some(text), None) => Ok(Self::Text(text)),
            (Some(_), Some(_)) => Err("expected either `text` or a number of tokens".to_owned()),
        }
    }
}

/// A fault rule as TOML writes it: everything in one table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFaultRule {
    kind: String,
    rate: Option<f64>,
    first_n_calls: Option<u64>,
    first_n_per_request: Option<u32>,
    containing: Option<String>,
    model: Option<String>,
    from: Option<Span>,
    until: Option<Span>,
    status: Option<u16>,
    wait: Option<Span>,
    format: Option<String>,
    delay: Option<Span>,
    interval: Option<Span>,
    disguise: Option<u16>,
    bytes: Option<usize>,
}

impl<'de> Deserialize<'de> for FaultRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawFaultRule::deserialize(deserializer)?;
        let named = Fault::named(&raw.kind).map_err(de::Error::custom)?;
        let format = raw.format.map(|name| named_format(&name));
        let disguise = raw.disguise.map(|status| {
            let unknown = || de::Error::custom(format!("unknown disguise {status}: expected 400, 402 or 429"));
            Disguise::parse(&status.to_string()).ok_or_else(unknown)
        });
        let fault = Fault {
            status: raw.status.or(named.status),
            wait: raw.wait.map(|span| span.0),
            format: format.transpose()?,
            delay: raw.delay.map(|span| span.0),
            interval: raw.interval.map(|span| span.0),
            disguise: disguise.transpose()?.or(named.disguise),
            bytes: raw.bytes,
            ..named
        };
        Ok(Self {
            rate: raw.rate.unwrap_or(1.0),
            first_n_calls: raw.first_n_calls,
            first_n_per_request: raw.first_n_per_request,
            containing: raw.containing,
            model: raw.model,
            from: raw.from.map_or(Duration::ZERO, |span| span.0),
            until: raw.until.map_or(Duration::MAX, |span| span.0),
            ..Self::always(fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::fault::FaultKind;

    fn error(toml: &str) -> String {
        Scenario::from_toml(toml).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_a_scenario_of_three_dialects() {
        let scenario = Scenario::example();
        let dialects: Vec<Dialect> = scenario.providers.values().map(|provider| provider.dialect).collect();
        for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
            assert!(dialects.contains(&dialect), "{dialect:?}");
        }
    }

    #[test]
    fn a_fault_rule_carries_its_conditions_and_parameters() {
        let scenario = Scenario::from_toml(
            r#"
            [providers.a]
            dialect = "openai"
            latency = { median = "400ms", p99 = "3s", per_output_token = 0.005 }
            output = { uniform = [20, 200] }
            publishes = false
            wait_format = "http-date"
            quota.growth = { calls = 20, factor = 1.5, window = "1s" }
            faults = [
                { kind = "overloaded", from = 5, until = "15s" },
                { kind = "rate_limit", rate = 0.02, wait = "2s", format = "http_date" },
                { kind = "502", first_n_calls = 3 },
            ]
            [providers.a.models]
            m = { price = { input = "0.15", output = "0.6" } }
            "#,
        )
        .unwrap();
        let provider = &scenario.providers["a"];
        assert_eq!(provider.latency.first, Spread::Lognormal { median: 0.4, p99: 3.0 });
        assert_eq!(provider.output, Output::Tokens(Spread::Uniform(20.0, 200.0)));
        assert_eq!(provider.models["m"].price, Some(Price { input: 150_000_000, output: 600_000_000 }));
        assert_eq!((provider.publishes, provider.wait_format), (false, Some(WaitFormat::HttpDate)));
        assert_eq!(provider.quota.growth.map(|growth| growth.window), Some(Duration::from_secs(1)));
        let [outage, limited, gateway] = &provider.faults[..] else { panic!("three rules") };
        assert_eq!((outage.from, outage.until), (Duration::from_secs(5), Duration::from_secs(15)));
        assert_eq!((limited.fault.kind, limited.fault.format), (FaultKind::RateLimit, Some(WaitFormat::HttpDate)));
        assert_eq!((gateway.fault.status, gateway.first_n_calls), (Some(502), Some(3)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (toml, expected) in [
            ("", "providers: expected at least one"),
            ("[providers.a]\ndialect = \"openai\"\nkeys = [1]", "expected a key, or a table"),
            ("[providers.a]\ndialect = \"openai\"\nkeys = [\"\"]", "providers.a.keys[0]: expected a key"),
            (
                "[providers.a]\ndialect = \"openai\"\nkeys = [{ key = \"k\", credit = \"x\" }]",
                "expected dollars such as",
            ),
            ("[providers.a]\ndialect = \"openai\"\nkeys = [{ key = \"k\", disguise = 418 }]", "unknown disguise 418"),
            (
                "[providers.a]\ndialect = \"openai\"\nkeys = [{ key = \"k\", credit = \"1\" }]",
                "keys[0].credit: has no effect",
            ),
            ("sed = 1", "unknown field `sed`"),
            ("[providers.a]\ndialect = \"openia\"", "unknown variant `openia`"),
            ("[providers.A]\ndialect = \"openai\"", "providers.A: expected a name"),
            ("[providers.a]\ndialect = \"openai\"\nqota = {}", "line 3"),
            ("[providers.a]\ndialect = \"openai\"\nfaults = [{ kind = \"meteor\" }]", "unknown fault `meteor`"),
            ("[providers.a]\ndialect = \"openai\"\nfaults = [{ kind = \"empty\", rate = 2.0 }]", "faults[0].rate"),
            ("[providers.a]\ndialect = \"openai\"\nfaults = [{ kind = \"empty\", from = 9, until = 3 }]", "until"),
            ("[providers.a]\ndialect = \"openai\"\nquota = { requests_per_minute = 0 }", "quota.requests_per_minute"),
            (
                "[providers.a]\ndialect = \"openai\"\nmodels.m.quota = { burst_tokens = 1 }",
                "models.m.quota.burst_tokens",
            ),
            ("[providers.a]\ndialect = \"openai\"\nwait_format = \"pigeon\"", "unknown format `pigeon`"),
            (
                "[providers.a]\ndialect = \"openai\"\nquota.growth = { calls = 1, factor = 0.5, window = 1 }",
                "quota.growth.factor",
            ),
            (
                "[providers.a]\ndialect = \"openai\"\nquota.growth = { calls = 1, factor = 2, window = 0 }",
                "quota.growth.window",
            ),
            ("[providers.a]\ndialect = \"openai\"\nlatency = { fixed = 1, full_speed = 0 }", "latency.full_speed"),
            ("[providers.a]\ndialect = \"openai\"\nlatency = { fixed = 1, median = 2 }", "expected one of"),
            ("[providers.a]\ndialect = \"openai\"\nlatency = { fixed = \"soon\" }", "a duration"),
            ("[providers.a]\ndialect = \"openai\"\nmodels.m.price = { input = \"x\", output = \"1\" }", "dollars per"),
        ] {
            assert!(error(toml).contains(expected), "{toml}: {}", error(toml));
        }
    }

    #[test]
    fn a_latency_grows_with_the_load_beyond_full_speed() {
        let steady = Latency { first: Spread::Fixed(0.1), ..Latency::default() };
        let loaded = Latency { full_speed: Some(4), ..steady };
        for (in_flight, millis) in [(1, 100), (4, 100), (6, 150), (40, 1_000)] {
            assert_eq!(loaded.draw(1, 0, in_flight), Duration::from_millis(millis));
            assert_eq!(steady.draw(1, 0, in_flight), Duration::from_millis(100));
        }
    }

    #[test]
    fn dollars_are_read_exactly() {
        for (text, nanos) in [
            ("0.15", Some(150_000_000)),
            ("3", Some(3_000_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("", None),
            (".5", None),
            ("-1", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_dollars(text), nanos, "{text}");
        }
        assert_eq!(Price { input: 150_000_000, output: 600_000_000 }.cost(1000, 10), 156_000);
        assert_eq!(Price { input: 500_000, output: 0 }.cost(1, 0), 1, "half a nano-dollar is rounded up");
    }
}
