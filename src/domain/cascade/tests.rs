//! Confidences, by each measure.

use super::*;
use crate::domain::{Beside, Finish, Usage};
use serde_json::json;

fn answer(text: &str, logprobs: Value) -> Answer {
    let mut beside = Beside::default();
    beside.choice.insert("logprobs".into(), logprobs);
    Answer {
        text: Some(text.to_owned()),
        refusal: None,
        reasoning: None,
        tool_calls: Vec::new(),
        finish: Finish::Complete,
        finish_raw: None,
        model: None,
        id: None,
        usage: Usage::default(),
        usage_raw: None,
        vectors: None,
        beside,
    }
}

fn tokens(logprobs: &[f64]) -> Value {
    json!({ "content": logprobs.iter().map(|p| json!({ "token": "x", "logprob": p })).collect::<Vec<_>>() })
}

#[test]
fn the_probabilities_of_tokens_are_averaged_or_the_least_is_taken() {
    let half = 0.5_f64.ln();
    for (logprobs, mean, least) in [
        (tokens(&[0.0, half + half]), Some(0.5), Some(0.25)),
        (tokens(&[half]), Some(0.5), Some(0.5)),
        // What OpenAI writes for a token that hardly ever comes; and rounding above a certainty.
        (tokens(&[-9999.0, 0.000_1]), Some(0.0), Some(0.0)),
        (tokens(&[0.2]), Some(1.0), Some(1.0)),
        // Of text completions, and of a first token that has none.
        (json!({ "tokens": ["a", "b"], "token_logprobs": [null, half] }), Some(0.5), Some(0.5)),
        (tokens(&[]), None, None),
        (Value::Null, None, None),
        (json!({ "content": "none" }), None, None),
        (json!({ "content": [{ "token": "x" }, 7] }), None, None),
    ] {
        let answer = answer("x", logprobs);
        let (of_mean, of_least) = (Measure::MeanLogprob.of(&answer), Measure::MinLogprob.of(&answer));
        assert_eq!(of_mean.map(Confidence::value), mean, "{answer:?}");
        assert_eq!(of_least.map(Confidence::value), least, "{answer:?}");
    }
}

#[test]
fn a_field_is_a_number_in_an_answer_that_is_json() {
    let field = Measure::named("/sure/of").unwrap();
    for (text, expected) in [
        (r#"{"sure":{"of":0.75}}"#, Some(0.75)),
        (r#"{"sure":{"of":90}}"#, Some(90.0)),
        (r#"{"sure":{"of":-1e300}}"#, Some(-9_223_372_036_854.775)),
        (r#"{"sure":{"of":"0.75"}}"#, None),
        (r#"{"sure":{"of":null}}"#, None),
        (r#"{"sure":0.75}"#, None),
        ("0.75", None),
        ("{", None),
    ] {
        let found = field.of(&answer(text, Value::Null)).map(Confidence::value);
        assert_eq!(found.is_some(), expected.is_some(), "{text}");
        assert!(
            found.zip(expected).is_none_or(|(found, expected)| (found - expected).abs() < 0.01),
            "{text} {found:?}"
        );
    }
}

#[test]
fn measures_have_names_and_others_have_not() {
    for name in ["mean_logprob", "min_logprob", "/confidence", "/a/0"] {
        assert_eq!(Measure::named(name).unwrap().to_string(), name);
    }
    for name in ["", "/", "confidence", "logprobs", "mean"] {
        assert_eq!(Measure::named(name), None, "{name}");
    }
}

#[test]
fn only_what_reaches_the_threshold_is_sure() {
    let of = |measure: &str| Cascade {
        measure: Measure::named(measure).unwrap(),
        at_least: Confidence::of(0.8).unwrap(),
        silent: BTreeSet::from([Target::new("p", "mute")]),
    };
    let cascade = of("mean_logprob");
    assert_eq!(cascade.fault(Confidence::of(0.8)), None);
    let fault = cascade.fault(Confidence::of(0.799_99)).unwrap();
    assert_eq!(fault, "its confidence is 0.79999, at least 0.8 is asked for");
    assert!(cascade.fault(None).unwrap().contains("no probabilities of its tokens"));
    assert!(of("/sure").fault(None).unwrap().contains("no number at /sure"));
    assert!(cascade.asks_for_logprobs(&Target::new("p", "m")) && !cascade.asks_for_logprobs(&Target::new("p", "mute")));
    assert!(!of("/sure").asks_for_logprobs(&Target::new("p", "m")));
}

#[test]
fn a_request_asks_for_probabilities_once_and_stays_what_it_is() {
    let asked = |body: &str| {
        let request = ChatRequest::read_text(body).unwrap();
        ask_for_logprobs(&request).map(|asking| (asking.is_prompt == request.is_prompt, asking.raw.to_string()))
    };
    let (is_same, raw) = asked(r#"{"prompt":"Hi","note":1}"#).unwrap();
    let body: Value = serde_json::from_str(&raw).unwrap();
    assert!(is_same && body == json!({ "prompt": "Hi", "note": 1, "logprobs": true }), "{raw}");
    for off in ["false", "null"] {
        let (_, raw) =
            asked(&format!(r#"{{"messages":[{{"role":"user","content":"Hi"}}],"logprobs":{off}}}"#)).unwrap();
        assert_eq!(raw.matches("logprobs").count(), 1, "{raw}");
        assert!(raw.contains(r#""logprobs":true"#), "{raw}");
    }
    for not in [r#"{"prompt":"Hi","logprobs":true}"#, r#"{"prompt":"Hi","logprobs":2}"#, r#"{"input":"Hi"}"#] {
        assert_eq!(asked(not), None, "{not}");
    }
}
