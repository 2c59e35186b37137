//! Rules for which calls the faults of a scenario strike.

use super::answer_rule::{Matching, is_meant};
use super::chance::{mix, unit};
use super::fault::{Disguise, Fault, FaultKind};
use super::notation::{Span, named_format, span};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::time::Duration;

/// When a fault of a scenario strikes. All conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    pub fault: Fault,
    /// The share of calls, 0 to 1.
    pub rate: f64,
    /// Only the first calls to the provider.
    pub first_n_calls: Option<u64>,
    /// Only the first calls of each distinct request to the provider.
    pub first_n_per_request: Option<u32>,
    /// Only calls whose last user message contains this.
    pub containing: Option<String>,
    /// Only calls in whose last user message this pattern is found.
    pub matching: Option<Matching>,
    /// Only calls of this model.
    pub model: Option<String>,
    /// Only calls that ask for this tier.
    pub tier: Option<String>,
    /// Not before this time since the start.
    pub from: Duration,
    /// Not at or after this time since the start.
    pub until: Duration,
}

impl FaultRule {
    /// A rule without conditions: every call.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self {
            fault,
            rate: 1.0,
            first_n_calls: None,
            first_n_per_request: None,
            containing: None,
            matching: None,
            model: None,
            tier: None,
            from: Duration::ZERO,
            until: Duration::MAX,
        }
    }

    /// Whether the rule strikes this call.
    #[must_use]
    pub fn strikes(&self, call: &Circumstances<'_>) -> bool {
        call.now >= self.from
            && call.now < self.until
            && self.first_n_calls.is_none_or(|n| call.nth_call <= n)
            && self.first_n_per_request.is_none_or(|n| call.nth_of_request <= n)
            && self.model.as_deref().is_none_or(|model| model == call.model)
            && self.tier.as_deref().is_none_or(|tier| call.tier == Some(tier))
            && is_meant(call.last_user, self.containing.as_deref(), self.matching.as_ref())
            && (self.rate >= 1.0 || unit(call.draw) < self.rate)
    }

    /// Whether the whole server is down by this rule: every call fails now, whatever it asks, by the server's fault.
    #[must_use]
    pub fn is_outage(&self, now: Duration) -> bool {
        use FaultKind::{Hang, Html502, Overloaded, Reset, ServerError, Timeout};
        let is_for_all = *self == Self { from: self.from, until: self.until, ..Self::always(self.fault) };
        let is_of_server = matches!(self.fault.kind, Overloaded | ServerError | Timeout | Html502 | Hang | Reset);
        is_for_all && is_of_server && Stretch { from: self.from, until: self.until }.has(now)
    }
}

/// A stretch of time since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stretch {
    /// Its beginning.
    #[serde(deserialize_with = "span")]
    pub from: Duration,
    /// The first instant after it.
    #[serde(deserialize_with = "span")]
    pub until: Duration,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { from: Duration::ZERO, until: Duration::MAX }
    }
}

impl Stretch {
    /// Whether this time is in it.
    #[must_use]
    pub fn has(self, now: Duration) -> bool {
        self.from <= now && now < self.until
    }
}

/// The facts that the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Time since the start.
    pub now: Duration,
    /// This call's place among all calls of the provider, from 1.
    pub nth_call: u64,
    /// This call's place among the calls of the same request to the provider, from 1.
    pub nth_of_request: u32,
    pub model: &'a str,
    /// The tier that the call asks for; `None`: the usual one.
    pub tier: Option<&'a str>,
    pub last_user: &'a str,
    /// Seed, request and occurrence, hashed.
    pub draw: u64,
}

/// The first rule that strikes.
#[must_use]
pub fn choose(rules: &[FaultRule], call: &Circumstances<'_>) -> Option<Fault> {
    let drawn = |index: usize| Circumstances { draw: mix(call.draw, index as u64 + 1), ..*call };
    rules.iter().enumerate().find(|(index, rule)| rule.strikes(&drawn(*index))).map(|(_, rule)| rule.fault)
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
    matching: Option<Matching>,
    model: Option<String>,
    tier: Option<String>,
    from: Option<Span>,
    until: Option<Span>,
    status: Option<u16>,
    wait: Option<Span>,
    format: Option<String>,
    delay: Option<Span>,
    interval: Option<Span>,
    disguise: Option<u16>,
    bytes: Option<usize>,
    tokens: Option<u64>,
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
            tokens: raw.tokens,
            ..named
        };
        Ok(Self {
            rate: raw.rate.unwrap_or(1.0),
            first_n_calls: raw.first_n_calls,
            first_n_per_request: raw.first_n_per_request,
            containing: raw.containing,
            matching: raw.matching,
            model: raw.model,
            tier: raw.tier,
            from: raw.from.map_or(Duration::ZERO, |span| span.0),
            until: raw.until.map_or(Duration::MAX, |span| span.0),
            ..Self::always(fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(now: u64, nth_call: u64, nth_of_request: u32, draw: u64) -> Circumstances<'static> {
        let now = Duration::from_secs(now);
        Circumstances {
            now,
            nth_call,
            nth_of_request,
            model: "m",
            tier: Some("flex"),
            last_user: "please POISON this",
            draw,
        }
    }

    #[test]
    fn a_rule_strikes_when_all_its_conditions_hold() {
        let rule = FaultRule::always(Fault::new(FaultKind::Empty));
        let window = FaultRule { from: Duration::from_secs(5), until: Duration::from_secs(15), ..rule.clone() };
        for (now, strikes) in [(4, false), (5, true), (14, true), (15, false)] {
            assert_eq!(window.strikes(&call(now, 1, 1, 0)), strikes, "at {now}");
        }
        let first = FaultRule { first_n_calls: Some(2), ..rule.clone() };
        assert!(first.strikes(&call(0, 2, 9, 0)) && !first.strikes(&call(0, 3, 1, 0)));
        let per_request = FaultRule { first_n_per_request: Some(1), ..rule.clone() };
        assert!(per_request.strikes(&call(0, 99, 1, 0)) && !per_request.strikes(&call(0, 99, 2, 0)));
        let containing = |text: &str| FaultRule { containing: Some(text.to_owned()), ..rule.clone() };
        assert!(containing("POISON").strikes(&call(0, 1, 1, 0)) && !containing("poison").strikes(&call(0, 1, 1, 0)));
        let matching = |pattern: &str| {
            let matching = Some(Matching(regex::Regex::new(pattern).unwrap()));
            FaultRule { matching, ..rule.clone() }
        };
        assert!(matching("P.*N\\b").strikes(&call(0, 1, 1, 0)) && !matching("^POISON").strikes(&call(0, 1, 1, 0)));
        let model = |model: &str| FaultRule { model: Some(model.to_owned()), ..rule.clone() };
        let tier = |tier: &str| FaultRule { tier: Some(tier.to_owned()), ..rule.clone() };
        assert!(tier("flex").strikes(&call(0, 1, 1, 0)) && !tier("fast").strikes(&call(0, 1, 1, 0)));
        assert!(model("m").strikes(&call(0, 1, 1, 0)) && !model("n").strikes(&call(0, 1, 1, 0)));
    }

    #[test]
    fn a_rule_for_all_calls_that_blames_the_server_is_an_outage() {
        let of = |kind| FaultRule { until: Duration::from_secs(9), ..FaultRule::always(Fault::new(kind)) };
        let down = of(FaultKind::Overloaded);
        assert!(down.is_outage(Duration::from_secs(8)) && !down.is_outage(Duration::from_secs(9)));
        for rule in [
            of(FaultKind::Empty),
            of(FaultKind::RateLimit),
            FaultRule { rate: 0.9, ..down.clone() },
            FaultRule { model: Some("m".to_owned()), ..down.clone() },
            FaultRule { first_n_calls: Some(9), ..down.clone() },
            FaultRule { containing: Some("x".to_owned()), ..down },
        ] {
            assert!(!rule.is_outage(Duration::ZERO), "{rule:?}");
        }
    }

    #[test]
    fn a_rate_strikes_its_share_and_always_the_same_calls() {
        let rules = [
            FaultRule { rate: 0.1, ..FaultRule::always(Fault::new(FaultKind::Empty)) },
            FaultRule { rate: 0.1, ..FaultRule::always(Fault::new(FaultKind::Html)) },
        ];
        let drawn = |i: u64| choose(&rules, &call(0, 1, 1, mix(3, i))).map(|fault| fault.kind);
        let all: Vec<_> = (0..10_000).map(drawn).collect();
        let count = |kind| all.iter().filter(|drawn| **drawn == Some(kind)).count();
        assert!((900..1100).contains(&count(FaultKind::Empty)));
        assert!((800..1000).contains(&count(FaultKind::Html)));
        assert_eq!(all, (0..10_000).map(drawn).collect::<Vec<_>>());
    }
}
