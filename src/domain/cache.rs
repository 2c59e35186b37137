//! The cache of a route: which requests count as the same, and how old an answer may be.

use super::must_keep::MustKeep;
use super::request::ChatRequest;
use super::route::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// A route's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// The oldest answer that is given again.
    pub max_age: Duration,
}

/// A digest of a request and of what its route asks of an answer. Two jobs with the same key may have the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheKey(pub [u8; 32]);

impl CacheKey {
    /// The key of a request on this route.
    ///
    /// The order of members, white space and the name of a model say nothing, since the route decides who is asked;
    /// `{"prompt": …}` is the same as one message of the user. Everything else counts: sampling, tools, the form of the
    /// answer, members of vendors. Of the route its targets and the rules for answers count, so that a route that is
    /// changed asks anew.
    #[must_use]
    pub fn of(route: &Route, request: &ChatRequest) -> Self {
        let targets: Vec<String> = route.rungs.iter().map(|rung| rung.target.to_string()).collect();
        let rules = &route.rules;
        let schema = rules.json_schema.as_ref().map(|schema| schema.written());
        // Everything but the compiled schema, whose text stands beside.
        let demands = format!("{:?}", super::validation::Rules { json_schema: None, ..rules.clone() });
        // Rules of its own are no part of the request as it is sent.
        let demands = request.validate.as_ref().map_or(demands.clone(), |own| format!("{demands} {own:?}"));
        // A route that demands nothing of the kind has the keys that it had before it could.
        let demands = match &route.must_keep {
            MustKeep::Nothing => demands,
            must_keep => format!("{demands} {must_keep:?}"),
        };
        let whole = json!([1, targets, demands, schema, canonical(request)]);
        // Members of objects are kept in the order of their names.
        Self(Sha256::digest(whole.to_string()).into())
    }
}

/// The request in the one form that all ways of writing it have.
fn canonical(request: &ChatRequest) -> Value {
    let Ok(Value::Object(mut members)) = serde_json::from_str::<Value>(&request.raw) else {
        return Value::String(request.raw.to_string());
    };
    members.remove("model");
    if let Some(prompt) = members.get("prompt").filter(|_| request.is_prompt).cloned() {
        members.remove("prompt");
        members.insert("messages".to_owned(), json!([{ "role": "user", "content": prompt }]));
    }
    members.retain(|_, value| !value.is_null());
    let mut whole = Value::Object(members);
    write_whole_numbers_alike(&mut whole);
    whole
}

/// `0.0` and `0` are the same number. A request that had the other form under an earlier version is asked anew once.
fn write_whole_numbers_alike(value: &mut Value) {
    /// Beyond this not every whole number is one of double precision.
    const MOST: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < MOST);
            #[expect(clippy::cast_possible_truncation, reason = "it is a whole number that fits")]
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_alike),
        Value::Object(members) => members.values_mut().for_each(write_whole_numbers_alike),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::validation::Rules;
    use crate::domain::{Model, Rung, Target, Timeouts};
    use proptest::prelude::*;

    fn route(models: &[&str], rules: Rules) -> Route {
        let rung = |model: &&str| Rung {
            target: Target::new("p", *model),
            model: Model::default(),
            timeouts: Timeouts::of(Duration::from_secs(1)),
            stream: false,
        };
        Route { rules, ..Route::plain("r", models.iter().map(rung).collect()) }
    }

    fn key(request: &str) -> CacheKey {
        CacheKey::of(&route(&["m"], Rules::default()), &ChatRequest::read_text(request).unwrap())
    }

    const PLAIN: &str = r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5}"#;

    #[test]
    fn the_same_request_in_another_form_has_the_same_key() {
        for same in [
            r#"{ "max_tokens": 5, "messages": [ {"content": "Hi", "role": "user"} ] }"#,
            r#"{"model":"gpt","messages":[{"role":"user","content":"Hi"}],"max_tokens":5}"#,
            r#"{"prompt":"Hi","max_tokens":5}"#,
            r#"{"messages":[{"role":"user","content":"\u0048i"}],"max_tokens":5,"stop":null}"#,
        ] {
            assert_eq!(key(same), key(PLAIN), "{same}");
        }
        let at = |temperature: &str| key(&format!(r#"{{"prompt":"Hi","temperature":{temperature}}}"#));
        assert_eq!([at("0.0"), at("-0.0"), at("0e3")], [at("0"); 3]);
        assert_eq!(at("1.0"), at("1"));
        assert!(at("0.5") != at("0") && at("0.5") != at("1") && at("0.5") == at("5e-1"));
    }

    #[test]
    fn whatever_may_change_the_answer_changes_the_key() {
        for other in [
            r#"{"messages":[{"role":"user","content":"Hi "}],"max_tokens":5}"#,
            r#"{"messages":[{"role":"system","content":"Hi"}],"max_tokens":5}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":6}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"temperature":0}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"seed":7}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"chat_template_kwargs":{"a":1}}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"response_format":{"type":"json_object"}}"#,
            r#"{"input":"Hi"}"#,
        ] {
            assert_ne!(key(other), key(PLAIN), "{other}");
        }
    }

    #[test]
    fn a_route_that_asks_others_or_asks_more_of_an_answer_asks_anew() {
        let request = ChatRequest::read_text(PLAIN).unwrap();
        let keys = [
            CacheKey::of(&route(&["m"], Rules::default()), &request),
            CacheKey::of(&route(&["m", "n"], Rules::default()), &request),
            CacheKey::of(&route(&["m"], Rules { min_chars: Some(3), ..Rules::default() }), &request),
            CacheKey::of(&route(&["m"], Rules { json: true, ..Rules::default() }), &request),
            CacheKey::of(
                &route(&["m"], Rules { forbidden_patterns: vec![regex::Regex::new("x").unwrap()], ..Rules::default() }),
                &request,
            ),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys[index + 1..].iter().all(|other| other != one), "{index}");
        }
        // Its name, its patience and its rules for jobs say nothing of an answer.
        let other = Route { name: "s".to_owned(), max_attempts: 9, ..route(&["m"], Rules::default()) };
        assert_eq!(CacheKey::of(&other, &request), keys[0]);
    }

    proptest! {
        #[test]
        fn the_order_of_members_never_counts(
            members in prop::collection::btree_map("[a-z_]{1,8}", "[a-z]{0,4}", 0..6),
            text in "\\PC{1,12}",
        ) {
            let known = ["messages", "prompt", "input", "model", "stop", "tools", "user", "n", "stream", "suffix"];
            let members: Vec<(String, String)> =
                members.into_iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
            let message = format!(r#""messages":[{{"role":"user","content":{}}}]"#, json!(text));
            let written = |members: &[(String, String)], first: bool| {
                let mut parts: Vec<String> =
                    members.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
                parts.insert(if first { 0 } else { parts.len() }, message.clone());
                format!("{{{}}}", parts.join(","))
            };
            let backwards: Vec<(String, String)> = members.iter().rev().cloned().collect();
            let (Ok(one), Ok(two)) = (
                ChatRequest::read_text(&written(&members, true)),
                ChatRequest::read_text(&written(&backwards, false)),
            ) else {
                return Ok(());
            };
            let route = route(&["m"], Rules::default());
            prop_assert_eq!(CacheKey::of(&route, &one), CacheKey::of(&route, &two));
        }
    }
}
