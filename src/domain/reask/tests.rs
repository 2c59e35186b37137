use super::*;
use crate::domain::{ErrorClass, Outcome, Timestamp};
use proptest::prelude::*;
use std::sync::Arc;

fn rejected(answer: &Value, kind: SoftFailure) -> Option<Rejected> {
    Rejected::of(answer, kind, &format!("{kind}: /age breaks /properties/age/type (\"integer\")"), 3)
}

fn again(request: &str, answer: &Value, kind: SoftFailure) -> Option<Value> {
    let request = ChatRequest::read_text(request).unwrap();
    let again = rejected(answer, kind)?.ask_again(&request)?;
    assert_eq!(again.is_prompt, request.is_prompt);
    Some(serde_json::from_str(&again.raw).unwrap())
}

const ASKED: &str =
    r#"{"temperature":0.10,"messages":[{"role":"system","content":"S"},{"role":"user","content":"Q"}]}"#;

#[test]
fn the_conversation_goes_on_with_the_answer_and_its_fault() {
    let told = "The answer does not match the JSON schema: /age breaks /properties/age/type (\"integer\"). \
                Answer again, with the corrected JSON only.";
    let body = again(ASKED, &json!({ "content": "{\"age\":\"x\"}" }), SoftFailure::SchemaMismatch).unwrap();
    assert_eq!(
        body["messages"],
        json!([
            { "role": "system", "content": "S" },
            { "role": "user", "content": "Q" },
            { "role": "assistant", "content": "{\"age\":\"x\"}" },
            { "role": "user", "content": told },
        ])
    );
    // Everything else is as it was written.
    let request = ChatRequest::read_text(ASKED).unwrap();
    let raw = rejected(&json!({ "content": "no" }), SoftFailure::NotJson).unwrap().ask_again(&request).unwrap().raw;
    assert!(raw.contains(r#""temperature":0.10"#), "{raw}");
}

#[test]
fn after_an_empty_turn_the_model_is_asked_to_answer() {
    let request = ChatRequest::read_text(ASKED).unwrap();
    let again = Rejected::nudge(3).ask_again(&request).unwrap();
    let body: Value = serde_json::from_str(&again.raw).unwrap();
    let told = "Your turn was empty. Please answer the message before this one.";
    assert_eq!(body["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!(body["messages"][2], json!({ "role": "user", "content": told }));
    for (finish, output, expected) in [
        (Some("end_turn"), Some(3), true),
        (Some("end_turn"), Some(0), false),
        (Some("end_turn"), Some(40), false),
        (Some("end_turn"), None, false),
        (Some("stop"), Some(3), false),
        (None, Some(3), false),
    ] {
        assert_eq!(is_empty_turn(SoftFailure::Empty, finish, output), expected, "{finish:?} {output:?}");
    }
    assert!(!is_empty_turn(SoftFailure::Truncated, Some("end_turn"), Some(3)));
}

#[test]
fn a_prompt_alone_becomes_a_conversation_and_what_is_its_authors_own_stays_so() {
    let body = again(r#"{"prompt":"Q","note":"mine"}"#, &json!({ "content": "no" }), SoftFailure::NotJson).unwrap();
    assert_eq!(body["messages"][0], json!({ "role": "user", "content": "Q" }));
    assert_eq!(body["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!((&body["note"], body.get("prompt")), (&json!("mine"), None));
}

#[test]
fn each_call_has_the_fault_for_its_result() {
    let asked = r#"{"messages":[{"role":"user","content":"Q"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    let signed = json!({ "google": { "thought_signature": "abc" } });
    let answer = json!({ "content": null, "tool_calls": [
        { "id": "a", "function": { "name": "f", "arguments": "{\"x\":1.50}" }, "extra_content": signed },
        { "id": "", "function": { "name": "g", "arguments": "{\"x\":" } },
    ]});
    let body = again(asked, &answer, SoftFailure::BadToolCall).unwrap();
    let messages = body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    assert_eq!(
        messages[1]["tool_calls"],
        json!([
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1.50}" },
              "extra_content": signed },
            { "id": "call_1", "type": "function", "function": { "name": "g", "arguments": "{}" } },
        ])
    );
    assert_eq!((&messages[2]["tool_call_id"], &messages[3]["tool_call_id"]), (&json!("a"), &json!("call_1")));
    assert!(messages[3]["content"].as_str().unwrap().starts_with("A call of a function could not be made: /age"));
    // Without an offer of functions, calls are not shown; and calls alone are nothing then.
    assert_eq!(again(ASKED, &answer, SoftFailure::BadToolCall), None);
    let spoken = json!({ "content": "I call g", "tool_calls": answer["tool_calls"] });
    let body = again(ASKED, &spoken, SoftFailure::BadToolCall).unwrap();
    assert_eq!(body["messages"][2], json!({ "role": "assistant", "content": "I call g" }));
    // The functions of old have messages of their own.
    let old = r#"{"messages":[{"role":"user","content":"Q"}],"functions":[{"name":"f"}]}"#;
    assert_eq!(again(old, &answer, SoftFailure::BadToolCall), None);
}

#[test]
fn what_has_nothing_to_correct_or_too_much_to_repeat_is_not_asked_again() {
    let text = |length: usize| json!({ "content": "x".repeat(length) });
    for kind in SoftFailure::ALL {
        let is_named = kind.facts().reask.is_some();
        assert_eq!(rejected(&text(10), *kind).is_some(), is_named, "{kind}");
        for nothing in [json!({}), json!({ "content": null }), json!({ "content": " \n" }), json!(null), json!([1])] {
            assert_eq!(rejected(&nothing, *kind), None, "{kind} {nothing}");
        }
    }
    assert!(rejected(&text(MOST_ANSWER_BYTES), SoftFailure::NotJson).is_some());
    assert!(rejected(&text(MOST_ANSWER_BYTES + 1), SoftFailure::NotJson).is_none());
    let call = json!({ "id": "a", "function": { "name": "f", "arguments": "{}" },
                       "extra_content": "y".repeat(MOST_ANSWER_BYTES) });
    assert!(rejected(&json!({ "tool_calls": [call] }), SoftFailure::BadToolCall).is_none());
    assert_eq!(again(r#"{"input":"vector"}"#, &text(10), SoftFailure::NotJson), None);
}

#[test]
fn a_fault_is_told_without_our_names_and_in_bounds() {
    let told = plain("not_json: no JSON found; too_short: 1 characters; and more");
    assert_eq!(told, "no JSON found; 1 characters; and more");
    assert_eq!(plain(&"é".repeat(5_000)).chars().count(), MOST_FAULT + 1);
}

#[test]
fn an_answer_does_not_reach_a_log_by_debugging() {
    let shown = format!("{:?}", rejected(&json!({ "content": "secret" }), SoftFailure::NotJson).unwrap());
    assert_eq!(shown, "Rejected { number: 3, .. }");
}

fn attempt(outcome: Outcome) -> Attempt {
    Attempt::new(Some(0), outcome, Timestamp(0))
}

fn wrong() -> Attempt {
    let rejected = rejected(&json!({ "content": "no" }), SoftFailure::NotJson).map(Arc::new);
    Attempt { rejected, ..attempt(Outcome::Rejected(SoftFailure::NotJson)) }
}

#[test]
fn a_call_that_was_turned_away_leaves_the_fault_to_be_named_and_any_other_does_not() {
    for class in ErrorClass::ALL {
        let passes = matches!(
            class,
            ErrorClass::RateLimit
                | ErrorClass::RateLimitDaily
                | ErrorClass::RampLimit
                | ErrorClass::NoCapacity
                | ErrorClass::QuotaExhausted
                | ErrorClass::Auth
                | ErrorClass::Permission
                | ErrorClass::NotFound
                | ErrorClass::Unreachable
        );
        for is_reask in [false, true] {
            let then = Attempt { is_reask, ..attempt(Outcome::Failed(*class)) };
            let history = [wrong(), then];
            assert_eq!(due(&history, 0).is_some(), passes, "{class}");
            assert!(was_due(&history, 0));
        }
    }
    assert_eq!(due(&[wrong()], 1), None);
    assert!(!was_due(&[wrong()], 1));
    let elsewhere = Attempt { rung: Some(1), ..attempt(Outcome::Failed(ErrorClass::ServerError)) };
    assert_eq!(due(&[elsewhere.clone(), wrong(), elsewhere], 0), Some(1));
}

proptest! {
    /// A rung is asked again at most once, regardless of what the calls meet.
    #[test]
    fn a_rung_is_asked_again_at_most_once(came in prop::collection::vec((0..3_usize, 0..40_usize), 0..30)) {
        let mut history: Vec<Attempt> = Vec::new();
        let mut made = [0; 3];
        for (rung, what) in came {
            let is_reask = due(&history, rung).is_some();
            let next = match ErrorClass::ALL.get(what) {
                Some(class) if *class != ErrorClass::SoftFailure => attempt(Outcome::Failed(*class)),
                _ if is_reask || was_due(&history, rung) => attempt(Outcome::Rejected(SoftFailure::NotJson)),
                _ => wrong(),
            };
            let next = Attempt { rung: Some(rung), is_reask, ..next };
            made[rung] += i32::from(is_reask && !next.was_turned_away());
            history.push(next);
        }
        prop_assert!(made.iter().all(|times| *times <= 1), "{made:?}");
    }

    /// For any answer and any fault, the sent request is bounded and can be read.
    #[test]
    fn what_is_sent_is_bounded(text in ".{0,200}", fault in ".{0,2000}") {
        let request = ChatRequest::read_text(ASKED).unwrap();
        if let Some(rejected) = Rejected::of(&json!({ "content": text }), SoftFailure::TooLong, &fault, 1) {
            let again = rejected.ask_again(&request).unwrap();
            prop_assert_eq!(again.messages.len(), request.messages.len() + 2);
            let told = again.messages.last().unwrap().text();
            prop_assert!(told.chars().count() <= MOST_FAULT + 200);
        }
    }
}
