//! The scenario: which providers there are and how they behave, from TOML or built in code.

use super::answer_rule::AnswerRule;
use super::dialect::Dialect;
use super::exchange::Usage;
use super::fault_rule::{FaultRule, Stretch};
use super::habits::Habits;
use super::key::Key;
use super::latency::Latency;
use super::notation::{dollars, dollars_if_any, named_format};
use super::output::Output;
use super::prompt_cache::Cached;
use super::quota::Limits;
use super::verdict::Tolerances;
use super::wait::WaitFormat;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
        /// The place: `providers.openai.faults[2].rate`.
        key: String,
        /// The fault, and the value that was expected.
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
    /// How many distinct requests are told apart; further ones are counted only in total.
    pub max_requests: usize,
    /// The number of threads that serve.
    pub worker_threads: usize,
    /// The limits up to which the verdict is clean.
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
    /// The API that it speaks.
    pub dialect: Dialect,
    /// The keys that it takes; when empty, it takes any key, and calls without one.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// The models it knows; any when empty.
    #[serde(default)]
    pub models: BTreeMap<String, Model>,
    /// The tiers that its calls may ask for beside the usual one. Calls that ask for another are served in the usual
    /// one.
    #[serde(default)]
    pub tiers: BTreeMap<String, Tier>,
    #[serde(default)]
    pub quota: Limits,
    /// The owner of a bucket of limits.
    #[serde(default)]
    pub quota_per: QuotaScope,
    /// Whether it states its limits in headers, and how long to wait when it refuses a call.
    #[serde(default = "yes")]
    pub publishes: bool,
    /// The format in which a refusal by the quota states the wait; the dialect's own when absent.
    #[serde(default, deserialize_with = "wait_format")]
    pub wait_format: Option<WaitFormat>,
    /// How long answers take.
    #[serde(default)]
    pub latency: Latency,
    /// How long answers are.
    #[serde(default)]
    pub output: Output,
    /// Answers to certain prompts, in place of made-up ones: the first rule that fits decides.
    #[serde(default)]
    pub answers: Vec<AnswerRule>,
    /// Its faults: the first rule that strikes decides.
    #[serde(default)]
    pub faults: Vec<FaultRule>,
    /// Times in which its page `/health` says 503 although its calls go well.
    #[serde(default)]
    pub unhealthy: Vec<Stretch>,
    /// How its answers differ from those of the dialect.
    #[serde(default)]
    pub habits: Habits,
}

impl Provider {
    /// A provider without limits that answers well and at once.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            keys: Vec::new(),
            models: BTreeMap::new(),
            tiers: BTreeMap::new(),
            quota: Limits::default(),
            quota_per: QuotaScope::default(),
            publishes: true,
            wait_format: None,
            latency: Latency::default(),
            output: Output::default(),
            answers: Vec::new(),
            faults: Vec::new(),
            unhealthy: Vec::new(),
            habits: Habits::default(),
        }
    }
}

/// A model of a provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its price; without one the cost of calls is unknown.
    pub price: Option<Price>,
    /// Limits of its own, in place of the provider's and in a bucket of its own.
    pub quota: Option<Limits>,
}

/// A tier of service.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// How many billionths of the model's price its calls cost; in TOML a factor such as `"0.5"`. The same when absent.
    #[serde(default, deserialize_with = "factor")]
    pub price: Option<u64>,
    /// How long its answers take, in place of the provider's latency.
    pub latency: Option<Latency>,
}

/// Prices in nano-dollars per million tokens; in TOML decimal dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    #[serde(deserialize_with = "dollars")]
    pub input: u64,
    #[serde(deserialize_with = "dollars")]
    pub output: u64,
    /// Input that was read from the cache; absent: as input.
    #[serde(default, deserialize_with = "dollars_if_any")]
    pub cached_input: Option<u64>,
    /// Input that was written into the cache; absent: as input.
    #[serde(default, deserialize_with = "dollars_if_any")]
    pub cache_write: Option<u64>,
    /// The same for an hour; absent: as `cache_write`.
    #[serde(default, deserialize_with = "dollars_if_any")]
    pub cache_write_1h: Option<u64>,
}

impl Price {
    /// A price that makes no difference between tokens of input.
    #[must_use]
    pub const fn plain(input: u64, output: u64) -> Self {
        Self { input, output, cached_input: None, cache_write: None, cache_write_1h: None }
    }

    /// The price times a factor in billionths, each part rounded half up.
    #[must_use]
    pub fn times(self, billionths: u64) -> Self {
        let scale = |price: u64| {
            let scaled = (u128::from(price) * u128::from(billionths) + 500_000_000) / 1_000_000_000;
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Self {
            input: scale(self.input),
            output: scale(self.output),
            cached_input: self.cached_input.map(scale),
            cache_write: self.cache_write.map(scale),
            cache_write_1h: self.cache_write_1h.map(scale),
        }
    }

    /// The cost of a call in nano-dollars, rounded half up.
    pub(super) fn cost(self, used: Usage) -> u64 {
        let Cached { read, written, for_an_hour } = used.cached;
        let write = self.cache_write.unwrap_or(self.input);
        let parts = [
            (used.uncached(), self.input),
            (read, self.cached_input.unwrap_or(self.input)),
            (written.saturating_sub(for_an_hour), write),
            (for_an_hour, self.cache_write_1h.unwrap_or(write)),
            (used.output, self.output),
        ];
        let total: u128 = parts.iter().map(|(tokens, price)| u128::from(*tokens) * u128::from(*price)).sum();
        u64::try_from((total + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    }
}

/// The owner of a bucket of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaScope {
    /// The provider: all calls share the bucket.
    #[default]
    Provider,
    /// Each model has its own.
    Model,
    /// Each key has its own.
    Key,
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// The first fault, with its place.
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

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// The first value that does not.
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
            if let Some(index) = provider.unhealthy.iter().position(|stretch| stretch.until <= stretch.from) {
                return wrong(key(&format!(".unhealthy[{index}].until")), "expected a time after `from`");
            }
            if let Err((setting, problem)) = provider.habits.check() {
                return wrong(key(&format!(".habits.{setting}")), problem);
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

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    dollars(deserializer).map(Some)
}

fn yes() -> bool {
    true
}

fn wait_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WaitFormat>, D::Error> {
    named_format(&String::deserialize(deserializer)?).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::chance::Spread;
    use super::super::fault::FaultKind;
    use super::*;
    use std::time::Duration;

    fn error(toml: &str) -> String {
        Scenario::from_toml(toml).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_a_scenario_of_three_dialects() {
        let scenario = Scenario::example();
        let dialects: Vec<&str> = scenario.providers.values().map(|provider| provider.dialect.name()).collect();
        for dialect in ["openai", "anthropic", "gemini"] {
            assert!(dialects.contains(&dialect), "{dialect}");
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
        assert_eq!(provider.models["m"].price, Some(Price::plain(150_000_000, 600_000_000)));
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
            ("[providers.a]\ndialect = \"openai\"\nhabits.headers = { \"a b\" = \"c\" }", "habits.headers.a b"),
            ("[providers.a]\ndialect = \"openai\"\nhabits.moved = { \"usage\" = \"/a\" }", "habits.moved.usage"),
            ("[providers.a]\ndialect = \"openai\"\nhabits.cost = \"usd\"", "habits.cost: expected a JSON pointer"),
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
    fn a_cost_is_rounded_half_up() {
        let used = |input, output, cached| Usage { input, output, cached };
        let none = Cached::default();
        assert_eq!(Price::plain(150_000_000, 600_000_000).cost(used(1000, 10, none)), 156_000);
        assert_eq!(Price::plain(500_000, 0).cost(used(1, 0, none)), 1, "half a nano-dollar is rounded up");
        let cached =
            Price { cached_input: Some(10_000_000), cache_write: Some(125_000_000), ..Price::plain(100_000_000, 0) };
        let of = |read, written, for_an_hour| cached.cost(used(1000, 0, Cached { read, written, for_an_hour }));
        assert_eq!([of(0, 0, 0), of(1000, 0, 0), of(400, 500, 200)], [100_000, 10_000, 4_000 + 62_500 + 10_000]);
    }
}
