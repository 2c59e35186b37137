//! Facts that providers report beside an answer: the tier that served it, and its cost.

use super::own_headers;
use super::reply_body::at;
use super::report::FailedUsage;
use super::wire::WireReply;
use crate::domain::usage::dollars;
use crate::domain::{NanoUsd, Usage};
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

/// The tier, from the first of these values that names one. Bedrock puts the word into an object.
pub(super) fn tier(values: &[Option<&Value>]) -> Option<String> {
    values.iter().flatten().find_map(|value| {
        let word = value.get("type").unwrap_or(value).as_str()?.trim();
        (!word.is_empty()).then(|| word.to_owned())
    })
}

/// Where a usage reports money, in dollars.
const IN_USAGE: &[&str] = &[
    "/cost",
    "/cost/total_cost",
    "/total_cost",
    "/cost_usd",
    "/total_cost_usd",
    "/cost_in_usd",
    "/response_cost",
    "/estimated_cost",
];

/// Where an answer reports money outside its usage, in dollars.
const IN_BODY: &[&str] = &[
    "/cost",
    "/total_cost",
    "/response_cost",
    "/_hidden_params/response_cost",
    "/provider_metadata/gateway/cost",
    "/choices/0/message/provider_metadata/gateway/cost",
    "/meta/usage/usd_spent",
];

/// The cost of an answer as a gateway reports it.
///
/// A cost of zero is not believed, because gateways write zero for models whose price they do not know. The exception
/// is an answer that says whose key paid, as OpenRouter's do: then zero means that it was free.
pub(super) fn cost(usage: Option<&Value>, body: &Map<String, Value>, headers: &HeaderMap) -> Option<NanoUsd> {
    let of_body = |pointer: &&str| {
        let first = pointer.trim_start_matches('/').split('/').next()?;
        amount(at(body.get(first)?, &pointer[1 + first.len()..]))
    };
    let is_other_money = |value: &Value| {
        let currency = value.get("currency").or_else(|| value.get("cost_currency"));
        currency.and_then(Value::as_str).is_some_and(|currency| !currency.eq_ignore_ascii_case("usd"))
    };
    if usage.is_some_and(is_other_money) {
        return None;
    }
    let ticks = || {
        // Ten-billionths of a dollar (xAI).
        let ticks = usage?.get("cost_in_usd_ticks")?.as_i64().filter(|ticks| *ticks >= 0)?;
        let cost = NanoUsd(ticks.saturating_add(5) / 10);
        (cost <= NanoUsd::MOST_REPORTED).then_some(cost)
    };
    let of_header = |name: &str| amount(Some(&Value::from(headers.get(name)?.to_str().ok()?)));
    let found = of_header(own_headers::COST)
        .filter(|cost| *cost > NanoUsd::ZERO)
        .or_else(ticks)
        .or_else(|| IN_USAGE.iter().find_map(|pointer| amount(at(usage?, pointer))))
        .or_else(|| IN_BODY.iter().find_map(of_body))
        .or_else(|| of_header("x-litellm-response-cost"))?;
    // With a key of the user's own the gateway takes its fee, and the vendor the rest.
    let byok = usage.and_then(|usage| usage.get("is_byok")).and_then(Value::as_bool);
    let upstream = || amount(at(usage?, "/cost_details/upstream_inference_cost"));
    let whole = if byok == Some(true) { found + upstream().unwrap_or(NanoUsd::ZERO) } else { found };
    (whole > NanoUsd::ZERO || byok == Some(false)).then_some(whole)
}

/// What an answer says that was billed, although it is a failure: the usage that was found in it, and the cost in that
/// or in the headers. A cost elsewhere in such a body may be anything.
pub(super) fn billed(
    reply: &WireReply<'_>,
    raw: Option<Value>,
    count: impl FnOnce(&Value) -> Usage,
) -> Option<FailedUsage> {
    let cost = cost(raw.as_ref(), &Map::new(), reply.headers);
    let usage = raw.as_ref().map_or_else(Usage::default, count);
    (raw.is_some() || cost.is_some()).then_some(FailedUsage { usage, raw, cost })
}

/// Dollars, as a number or a text; `None`: none, or more than a call can cost.
pub(super) fn amount(value: Option<&Value>) -> Option<NanoUsd> {
    match value? {
        Value::Number(number) => dollars(number.as_f64()?),
        Value::String(text) => dollars(text.trim().trim_start_matches('$').parse().ok()?),
        _ => None,
    }
}

/// Members that are worth keeping: those that carry information.
pub(super) fn kept(mut members: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    members.retain(|key, member| !member.is_null() && !known.contains(&key.as_str()));
    members
}

/// The members of a choice whose tokens have these probabilities, each in OpenAI's form; none, where there are none.
pub(super) fn with_logprobs(tokens: &[Value]) -> Map<String, Value> {
    let found = (!tokens.is_empty()).then(|| ("logprobs".to_owned(), json!({ "content": tokens })));
    found.into_iter().collect()
}

/// The extra members of each tool call, if any call has some.
pub(super) fn of_calls(extras: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    if extras.iter().all(Map::is_empty) { Vec::new() } else { extras }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn what_a_gateway_charged_is_read_in_its_words() {
        let nothing = HeaderMap::new();
        for (usage, body, expected) in [
            (json!({"cost": 0.000_195}), json!({}), Some(195_000)),
            (json!({"cost": "0.000195"}), json!({}), Some(195_000)),
            (json!({"total_cost": 0.01}), json!({}), Some(10_000_000)),
            (json!({"estimated_cost": 1.5e-6}), json!({}), Some(1_500)),
            (json!({"cost": {"input_tokens_cost": 0.1, "total_cost": 0.3}}), json!({}), Some(300_000_000)),
            (json!({"cost_in_usd_ticks": 37_756_000}), json!({}), Some(3_775_600)),
            (
                json!({"cost": 0.001, "is_byok": true, "cost_details": {"upstream_inference_cost": 0.02}}),
                json!({}),
                Some(21_000_000),
            ),
            (json!({"cost": 0, "is_byok": false}), json!({}), Some(0)),
            (json!({"cost": 0}), json!({}), None),
            (json!({"cost": -1}), json!({}), None),
            (json!({"cost": 1, "currency": "CNY"}), json!({}), None),
            (json!({"cost": null}), json!({"provider_metadata": {"gateway": {"cost": "0.5"}}}), Some(500_000_000)),
            (json!({}), json!({"response_cost": 0.5}), Some(500_000_000)),
            (json!({}), json!({}), None),
        ] {
            let found = cost(Some(&usage), body.as_object().unwrap(), &nothing);
            assert_eq!(found, expected.map(NanoUsd), "{usage} {body}");
        }
        let headers = HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static("x-litellm-response-cost"),
            HeaderValue::from_static("2.5e-05"),
        )]);
        assert_eq!(cost(None, &Map::new(), &headers), Some(NanoUsd(25_000)));
        let credits = json!({"cost": 7});
        assert_eq!(cost(None, credits.as_object().unwrap(), &headers), Some(NanoUsd(7_000_000_000)));
        // The header that the operator names counts before all others.
        let named = reqwest::header::HeaderName::from_static(own_headers::COST);
        let headers = HeaderMap::from_iter([(named, HeaderValue::from_static("0.02"))]);
        assert_eq!(cost(None, credits.as_object().unwrap(), &headers), Some(NanoUsd(20_000_000)));
    }

    #[test]
    fn a_tier_is_a_word_or_lies_in_an_object() {
        assert_eq!(tier(&[Some(&json!(null)), Some(&json!("flex"))]).as_deref(), Some("flex"));
        assert_eq!(tier(&[Some(&json!({"type": "priority"}))]).as_deref(), Some("priority"));
        assert_eq!(tier(&[None, Some(&json!("")), Some(&json!(3))]), None);
    }
}
