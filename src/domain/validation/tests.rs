//! Verdicts, rule by rule.

use super::*;
use crate::domain::Usage;
use SoftFailure as Soft;
use proptest::prelude::*;
use serde_json::json;

fn answer(text: &str) -> Answer {
    Answer {
        text: Some(text.to_owned()),
        refusal: None,
        reasoning: None,
        tool_calls: Vec::new(),
        finish: Finish::Complete,
        finish_raw: Some("stop".to_owned()),
        model: None,
        id: None,
        usage: Usage::default(),
        usage_raw: None,
        vectors: None,
        beside: crate::domain::Beside::default(),
    }
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: "1".into(), name: name.into(), arguments: arguments.into() }
}

fn request() -> ChatRequest {
    ChatRequest::parse(&json!({"prompt": "Hi", "tools": [{"function": {"name": "look"}}]})).unwrap()
}

fn demanding(format: &Value) -> ChatRequest {
    ChatRequest::parse(&json!({"prompt": "Hi", "response_format": format})).unwrap()
}

/// Every rule that only needs switching on.
fn strict() -> Rules {
    Rules { non_empty: true, reject_refusals: true, reject_html: true, reject_truncated: true, ..Rules::default() }
}

/// The faults for which an answer is rejected; empty if it is not.
fn failures(rules: &Rules, answer: &Answer) -> Vec<Soft> {
    failures_for(rules, answer, &request())
}

fn failures_for(rules: &Rules, answer: &Answer, request: &ChatRequest) -> Vec<Soft> {
    match rules.judge(answer, request, request.compile_schema().unwrap().as_ref()) {
        Verdict::Accepted | Verdict::Repaired { .. } => Vec::new(),
        Verdict::Rejected { failures, .. } => failures,
    }
}

fn message(rules: &Rules, answer: &Answer) -> String {
    match rules.judge(answer, &request(), None) {
        Verdict::Rejected { message, .. } => message,
        verdict => panic!("{verdict:?}"),
    }
}

/// The text of an answer that was repaired.
fn repaired(rules: &Rules, text: &str) -> String {
    match rules.judge(&answer(text), &request(), None) {
        Verdict::Repaired { text, cut, .. } if !cut.is_empty() => text,
        verdict => panic!("{text}: {verdict:?}"),
    }
}

#[test]
fn a_draft_is_not_an_answer() {
    let schema = json!({"type": "object", "required": ["label"], "properties": {"label": {"enum": ["spam", "ham"]}}});
    let wanted = demanding(&json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}));
    let spam = "{\"label\": \"spam\"}";
    for (text, expected) in [
        (format!("<think>Maybe {spam}? No, on reflection it is not spam.</think>"), Soft::Empty),
        (format!("<think>Maybe {spam}?"), Soft::Empty),
        (format!("[THINK]Maybe {spam}?[/THINK]"), Soft::Empty),
        (format!("<|channel|>analysis<|message|>Maybe {spam}?<|end|>"), Soft::Empty),
        (format!("Maybe {spam}?\n</think>\n"), Soft::Empty),
        (format!("Maybe {spam}? No, on reflection it is not spam."), Soft::NotJson),
        (format!("Let me see.\n<think>Maybe {spam}?</think>"), Soft::NotJson),
    ] {
        let found = failures_for(&strict(), &answer(&text), &wanted);
        assert!(found.contains(&expected), "{text}: {found:?}");
    }
    for text in [
        format!("<think>Maybe {{\"label\": \"ham\"}}? No.</think>{spam}"),
        format!("<think>Hm.</think>\n\n```json\n{spam}\n```"),
        format!("It is spam. </think>{spam}"),
        format!("<|channel|>analysis<|message|>Ham?<|end|><|start|>assistant<|channel|>final<|message|>{spam}"),
    ] {
        match strict().judge(&answer(&text), &wanted, wanted.compile_schema().unwrap().as_ref()) {
            Verdict::Repaired { text: given, draft, .. } => {
                assert_eq!((given.as_str(), draft.is_some()), (spam, true), "{text}");
            }
            verdict => panic!("{text}: {verdict:?}"),
        }
    }
    // A tag that the request mentions is part of the answer; a mark of the end of a turn is not.
    let asking =
        ChatRequest::parse(&json!({"prompt": "Translate, keep tags: <THINKING>Hello</THINKING> world"})).unwrap();
    let kept = answer("<thinking>Hallo</thinking> Welt");
    assert_eq!(strict().judge(&kept, &asking, None), Verdict::Accepted);
    assert_eq!(repaired(&strict(), "<thinking>Hallo</thinking> Welt"), "Welt");
    assert_eq!(repaired(&strict(), "Welt<|im_end|>\n"), "Welt");
    // Nor where no JSON is asked for; then the other rules apply to the rest.
    assert_eq!(failures(&strict(), &answer("<think>Hm.</think>\n")), [Soft::Empty]);
    assert_eq!(repaired(&strict(), "<think>Hm.</think>\n\nYes."), "Yes.");
    let short = Rules { max_chars: Some(5), ..strict() };
    assert_eq!(failures(&short, &answer("<think>A long thought.</think>Yes.")), []);
    let cut = Answer { finish: Finish::Length, ..answer("<think>A long thou") };
    assert_eq!(failures(&strict(), &cut), [Soft::ReasoningExhausted, Soft::Empty]);
    let calls =
        Answer { tool_calls: vec![call("look", "{}")], finish: Finish::ToolCall, ..answer("<think>Hm.</think>") };
    assert_eq!(failures(&strict(), &calls), []);
}

#[test]
fn a_whole_answer_with_an_unknown_word_for_its_end_is_taken_unless_the_route_is_strict() {
    let odd =
        |finish, raw: Option<&str>, text: &str| Answer { finish, finish_raw: raw.map(str::to_owned), ..answer(text) };
    let with = |finish| Rules { finish, ..strict() };
    let unknown = odd(Finish::Unknown, Some("brand_new"), "Yes.");
    let silent = odd(Finish::Error, None, "Yes.");
    for (rule, answer, expected) in [
        (FinishRule::Said, &unknown, vec![]),
        (FinishRule::Any, &unknown, vec![]),
        (FinishRule::Known, &unknown, vec![Soft::BadFinish]),
        (FinishRule::Said, &silent, vec![Soft::BadFinish]),
        (FinishRule::Any, &silent, vec![]),
        (FinishRule::Any, &odd(Finish::Error, Some("error"), "Yes."), vec![Soft::BadFinish]),
        (FinishRule::Said, &odd(Finish::Unknown, Some("brand_new"), ""), vec![Soft::BadFinish, Soft::Empty]),
    ] {
        assert_eq!(failures(&with(rule), answer), expected, "{rule:?} {answer:?}");
    }
    // An answer as long as it may be was cut, regardless of its finish reason.
    let mut capped = request();
    capped.max_tokens = Some(10);
    let used = |output, reasoning| {
        let usage = Usage { output, reasoning, source: UsageSource::Provider, ..Usage::default() };
        failures_for(&strict(), &Answer { usage, ..unknown.clone() }, &capped)
    };
    assert_eq!(used(10, 0), [Soft::Truncated]);
    assert_eq!(used(9, 0), []);
    assert_eq!(used(30, 21), []);
}

#[test]
fn a_plain_answer_is_accepted_as_it_is() {
    for text in ["Yes.", " padded \n", "0", "👍🏽", "日本語", "I can't find it in the text."] {
        assert_eq!(strict().judge(&answer(text), &request(), None), Verdict::Accepted, "{text}");
    }
}

#[test]
fn what_nobody_sees_is_empty() {
    for text in ["", " \n\t", "\u{200b}\u{feff}", "\u{2060} \u{ad}", "\u{2800}", "\u{fe0f}", "\0", "\u{e0041}"] {
        assert_eq!(failures(&strict(), &answer(text)), [Soft::Empty], "{text:?}");
        assert_eq!(failures(&Rules::default(), &answer(text)), [], "{text:?}");
    }
    let nothing = Answer { text: None, reasoning: Some("The answer is 42.".into()), ..answer("") };
    assert_eq!(failures(&strict(), &nothing), [Soft::Empty], "reasoning is never an answer");
}

#[test]
fn a_tool_call_is_not_empty() {
    let calls = Answer { tool_calls: vec![call("look", "{}")], finish: Finish::ToolCall, ..answer("") };
    let rules = Rules { min_chars: Some(10), json: true, ..strict() };
    assert_eq!(failures(&rules, &calls), []);
}

#[test]
fn a_tool_call_has_to_be_offered_and_to_carry_json() {
    for (name, arguments, expected) in [
        ("look", "{\"at\": [1]}", vec![]),
        ("look", "{}", vec![]),
        ("look", "not JSON", vec![Soft::BadToolCall]),
        ("look", "{\"at\": ", vec![Soft::BadToolCall]),
        ("jump", "{}", vec![Soft::BadToolCall]),
    ] {
        let calls = Answer { tool_calls: vec![call(name, arguments)], finish: Finish::ToolCall, ..answer("") };
        assert_eq!(failures(&strict(), &calls), expected, "{name} {arguments}");
    }
    let announced = Answer { finish: Finish::ToolCall, ..answer("Let me look.") };
    assert_eq!(failures(&strict(), &announced), [Soft::BadToolCall]);
}

#[test]
fn the_reason_for_which_it_ended_is_judged() {
    for (finish, expected) in [
        (Finish::Complete, vec![]),
        (Finish::Length, vec![Soft::Truncated]),
        (Finish::ContentFilter, vec![Soft::ContentFiltered]),
        (Finish::Refusal, vec![Soft::Refusal]),
        (Finish::Pause, vec![Soft::BadFinish]),
        (Finish::Error, vec![Soft::BadFinish]),
        (Finish::Unknown, vec![]),
    ] {
        assert_eq!(failures(&strict(), &Answer { finish, ..answer("Half an ans") }), expected, "{finish:?}");
    }
    let refused = Answer { text: None, refusal: Some("No.".into()), ..answer("") };
    assert_eq!(failures(&Rules::default(), &refused), [Soft::Refusal]);
    let twice = Answer { finish: Finish::Refusal, ..refused };
    assert_eq!(message(&Rules::default(), &twice).matches("the model declined").count(), 1);
    let cut = Answer { finish: Finish::Length, ..answer("Half an ans") };
    assert_eq!(failures(&Rules::default(), &cut), [], "the route may take what there is");
}

#[test]
fn reasoning_that_left_nothing_is_told_apart_from_an_answer_cut_off() {
    let cut = |reasoning, output, text: &str| {
        let usage = Usage { output, reasoning, ..Usage::default() };
        failures(&strict(), &Answer { finish: Finish::Length, usage, ..answer(text) })
    };
    assert_eq!(cut(100, 100, ""), [Soft::ReasoningExhausted, Soft::Empty]);
    assert_eq!(cut(0, 100, " "), [Soft::ReasoningExhausted, Soft::Empty]);
    assert_eq!(cut(0, 0, ""), [Soft::Truncated, Soft::Empty]);
    assert_eq!(cut(100, 100, "Half"), [Soft::Truncated]);
}

#[test]
fn length_is_counted_in_characters() {
    let bounds = |least, most| Rules { min_chars: least, max_chars: most, ..Rules::default() };
    for (text, least, most, expected) in [
        ("äöü", Some(3), Some(3), vec![]),
        ("äöü", Some(4), None, vec![Soft::TooShort]),
        ("äöü", None, Some(2), vec![Soft::TooLong]),
        ("  ab  ", Some(3), None, vec![Soft::TooShort]),
        ("  ab\n", None, Some(2), vec![]),
        ("", Some(1), None, vec![Soft::TooShort]),
    ] {
        assert_eq!(failures(&bounds(least, most), &answer(text)), expected, "{text:?}");
    }
    assert_eq!(message(&bounds(Some(4), None), &answer("äöü")), "too_short: 3 characters, at least 4 demanded");
}

#[test]
fn patterns_have_to_match_or_must_not() {
    let patterns = |list: &[&str]| list.iter().map(|pattern| regex::Regex::new(pattern).unwrap()).collect();
    let rules = Rules {
        required_patterns: patterns(&["^Answer:", "\\d"]),
        forbidden_patterns: patterns(&["<\\|im_end\\|>"]),
        ..Rules::default()
    };
    assert_eq!(failures(&rules, &answer("Answer: 4")), []);
    assert_eq!(failures(&rules, &answer("Answer: four")), [Soft::MissingPattern]);
    assert_eq!(failures(&rules, &answer("4<|im_end|> so")), [Soft::ForbiddenPattern, Soft::MissingPattern]);
    assert_eq!(
        message(&rules, &answer("four")),
        "missing_pattern: it does not match ^Answer:; missing_pattern: it does not match \\d"
    );
}

#[test]
fn a_page_is_not_an_answer() {
    for text in ["<!DOCTYPE html><html>", "\n<html lang=\"en\">", "<HEAD>", "<body class=x>"] {
        assert_eq!(failures(&strict(), &answer(text)), [Soft::Html], "{text}");
        assert_eq!(failures(&Rules::default(), &answer(text)), [], "{text}");
    }
    for text in ["<b>bold</b>", "Use <html> as the root.", "<p>One</p>"] {
        assert_eq!(failures(&strict(), &answer(text)), [], "{text}");
    }
}

#[test]
fn a_short_text_that_declines_is_a_refusal() {
    for text in [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, but I can’t help with that.",
        "Sorry, I cannot comply.",
        "I cannot fulfill this request.",
        "Unfortunately, I am unable to provide that.",
        "I won't be able to help you with this.",
    ] {
        assert_eq!(failures(&strict(), &answer(text)), [Soft::Refusal], "{text}");
        assert_eq!(failures(&Rules::default(), &answer(text)), [], "{text}");
    }
    let long = format!("I can't help but admire it. {}", "It is a fine text. ".repeat(30));
    for text in [
        "I can't find a date in the text.",
        "I'm unable to determine the author.",
        "Sorry to hear that!",
        "The assistant said: I can't help with that.",
        &long,
    ] {
        assert_eq!(failures(&strict(), &answer(text)), [], "{text}");
    }
}

#[test]
fn json_is_demanded_by_the_route_or_by_the_request() {
    let anything = json!({"type": "text"});
    let object = json!({"type": "json_object"});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"required": ["a"]}}});
    let route = Rules { json: true, ..Rules::default() };
    for (rules, format, text, expected) in [
        (&Rules::default(), &anything, "no", vec![]),
        (&route, &anything, "no", vec![Soft::NotJson]),
        (&route, &anything, "[1]", vec![]),
        (&route, &anything, "3", vec![]),
        (&route, &anything, "", vec![Soft::NotJson]),
        (&Rules::default(), &object, "no", vec![Soft::NotJson]),
        (&Rules::default(), &object, "[1]", vec![Soft::NotJson]),
        (&Rules::default(), &object, "{}", vec![]),
        (&Rules::default(), &schema, "{\"a\": 1}", vec![]),
        (&Rules::default(), &schema, "{\"b\": 1}", vec![Soft::SchemaMismatch]),
        (&Rules::default(), &schema, "no", vec![Soft::NotJson]),
        (&Rules::default(), &schema, "{\"a\": 1", vec![Soft::Truncated]),
    ] {
        assert_eq!(failures_for(rules, &answer(text), &demanding(format)), expected, "{format} {text}");
    }
}

#[test]
fn both_schemas_have_to_be_kept() {
    let route = Schema::compile(&json!({"properties": {"a": {"type": "integer"}}})).unwrap();
    let rules = Rules { json_schema: Some(Arc::new(route)), ..Rules::default() };
    let own = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"required": ["a"]}}});
    assert_eq!(failures_for(&rules, &answer("{\"a\": 1}"), &demanding(&own)), []);
    assert_eq!(failures_for(&rules, &answer("{\"a\": \"x\"}"), &demanding(&own)), [Soft::SchemaMismatch]);
    assert_eq!(failures_for(&rules, &answer("{}"), &demanding(&own)), [Soft::SchemaMismatch]);
    assert_eq!(failures(&rules, &answer("{}")), []);
}

#[test]
fn what_surrounds_json_is_taken_off() {
    let rules = Rules { json: true, ..strict() };
    for text in ["```json\n{\"a\": {\"b\": []}}\n```", "Sure!\n\n{\"a\": {\"b\": []}}\n\nBye."] {
        assert_eq!(repaired(&rules, text), "{\"a\": {\"b\": []}}", "{text}");
    }
    assert_eq!(rules.judge(&answer(" {\"a\": 1}\n"), &request(), None), Verdict::Accepted);
    assert_eq!(repaired(&rules, "\u{feff}{\"a\": 1}"), "{\"a\": 1}");
    // Where JSON was not asked for, a fence is a part of the answer.
    assert_eq!(strict().judge(&answer("```json\n{}\n```"), &request(), None), Verdict::Accepted);
}

#[test]
fn the_other_rules_bind_the_repaired_text() {
    let rules = Rules { json: true, max_chars: Some(10), ..Rules::default() };
    assert_eq!(repaired(&rules, "Here is the object that you asked for: {\"a\": 1}"), "{\"a\": 1}");
}

#[test]
fn the_gravest_failure_comes_first() {
    let rules = Rules { json: true, min_chars: Some(1_000), ..strict() };
    let filtered = Answer { finish: Finish::ContentFilter, ..answer("I'm sorry, but I can't help") };
    let expected = [Soft::ContentFiltered, Soft::Refusal, Soft::NotJson, Soft::TooShort];
    assert_eq!(failures(&rules, &filtered), expected);
}

#[test]
fn a_message_names_the_place_and_not_the_words_of_the_answer() {
    let schema = Schema::compile(&json!({
        "properties": {"people": {"items": {"properties": {"name": {"maxLength": 3}}}}}, "additionalProperties": false,
    }));
    let rules = Rules { json_schema: Some(Arc::new(schema.unwrap())), ..Rules::default() };
    let found = message(&rules, &answer("{\"people\": [{\"name\": \"Rosalind\"}]}"));
    assert_eq!(found, "schema_mismatch: /people/0/name breaks /properties/people/items/properties/name/maxLength (3)");
    let found = message(&rules, &answer("{\"Rosalind\": 1}"));
    assert_eq!(found, "schema_mismatch: the whole breaks /additionalProperties (false)");
    let long = Answer { finish: Finish::Error, finish_raw: Some("x".repeat(1_000)), ..answer("Rosalind") };
    assert!(message(&strict(), &long).len() < 100);
}

fn finishes() -> impl Strategy<Value = Finish> {
    use Finish::{Complete, ContentFilter, Error, Length, Pause, Refusal, ToolCall, Unknown};
    prop::sample::select(vec![Complete, Length, ContentFilter, Refusal, ToolCall, Pause, Error, Unknown])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_answer_gets_a_verdict_and_a_rejection_has_its_reasons(
        text in prop::option::of("[\\[\\]{}\"\\\\:,a1 ä`\u{200b}\n]{0,60}"),
        calls in prop::collection::vec(("look|jump", "[{}\"a]{0,4}"), 0..2),
        finish in finishes(),
        output in any::<i64>(),
        switches in prop::array::uniform5(any::<bool>()),
        least in prop::option::of(0..50_usize),
    ) {
        let [non_empty, json, reject_refusals, reject_html, reject_truncated] = switches;
        let rules = Rules { non_empty, json, reject_refusals, reject_html, reject_truncated, min_chars: least,
            ..Rules::default() };
        let tool_calls = calls.iter().map(|(name, arguments)| call(name, arguments)).collect();
        let usage = Usage { output, ..Usage::default() };
        let answer = Answer { text, tool_calls, finish, usage, ..answer("") };
        match rules.judge(&answer, &request(), None) {
            Verdict::Rejected { failures, message } => {
                prop_assert!(!failures.is_empty() && !message.is_empty());
                prop_assert!(failures.windows(2).all(|pair| gravity(pair[0]) < gravity(pair[1])));
            }
            Verdict::Repaired { text, .. } => {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                // Nothing but commas is taken out of its midst.
                let plain = |text: &str| text.replace([',', ' ', '\n'], "");
                prop_assert!(answer.text.is_some_and(|whole| plain(&whole).contains(&plain(&text))));
            }
            Verdict::Accepted => {
                let text = answer.text.as_deref().unwrap_or_default();
                let speaks = text.chars().any(is_visible) || !answer.tool_calls.is_empty();
                prop_assert!(!non_empty || speaks);
                prop_assert!(!json || !answer.tool_calls.is_empty() || serde_json::from_str::<Value>(text).is_ok());
            }
        }
    }
}

/// A German text of some length.
const GERMAN: &str = "Der Zug nach Hamburg fährt heute leider zwanzig Minuten später ab, weil auf der Strecke gebaut \
                      wird.";

fn asking(body: &Value) -> ChatRequest {
    ChatRequest::parse(body).unwrap()
}

fn kinds(rules: &Rules, answer: &Answer, request: &ChatRequest) -> Vec<SoftFailure> {
    match rules.judge(answer, request, None) {
        Verdict::Rejected { failures, .. } => failures,
        Verdict::Accepted | Verdict::Repaired { .. } => Vec::new(),
    }
}

#[test]
fn a_loop_is_told_before_the_cap_that_ended_it_and_json_may_repeat_itself() {
    let rules = Rules { reject_repetition: true, reject_truncated: true, ..Rules::default() };
    let looped = format!("It begins well. {}", "And then it says this once more. ".repeat(80));
    let request = asking(&json!({"prompt": "x"}));
    let cut = Answer { finish: Finish::Length, ..answer(&looped) };
    assert_eq!(kinds(&rules, &cut, &request), [SoftFailure::Repetition, SoftFailure::Truncated]);
    let Verdict::Rejected { message, .. } = rules.judge(&answer(&looped), &request, None) else { panic!() };
    assert_eq!(message, "repetition: it ends in the same 32 characters, 80 times");
    assert_eq!(kinds(&Rules::default(), &answer(&looped), &request), []);
    let labels = serde_json::to_string(&vec![json!({"label": "positive", "sure": true}); 90]).unwrap();
    let asks = asking(&json!({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {
        "name": "labels", "schema": {"type": "array"}}}}));
    assert_eq!(kinds(&rules, &answer(&labels), &asks), []);
}

#[test]
fn an_answer_in_another_language_or_script_is_rejected() {
    let request = asking(&json!({"prompt": "x"}));
    let language = |code: &str| Rules { languages: vec![TextLanguage::parse(code).unwrap()], ..Rules::default() };
    let script = |name: &str| Rules { scripts: vec![TextScript::parse(name).unwrap()], ..Rules::default() };
    assert_eq!(kinds(&language("de"), &answer(GERMAN), &request), []);
    assert_eq!(kinds(&language("fr"), &answer(GERMAN), &request), [SoftFailure::WrongLanguage]);
    assert_eq!(kinds(&script("latin"), &answer(GERMAN), &request), []);
    assert_eq!(kinds(&script("cyrillic"), &answer(GERMAN), &request), [SoftFailure::WrongLanguage]);
    let asks = asking(&json!({"prompt": "x", "response_format": {"type": "json_object"}}));
    let object = |text: &str| answer(&json!({"summary": text, "label": "on time"}).to_string());
    assert_eq!(kinds(&language("de"), &object(GERMAN), &asks), []);
    assert_eq!(kinds(&language("fr"), &object(GERMAN), &asks), [SoftFailure::WrongLanguage]);
}

#[test]
fn a_call_as_text_is_known_by_the_name_that_was_sent() {
    let request = asking(&json!({"prompt": "x", "tools": [
        {"type": "function", "function": {"name": "web.search", "parameters": {"type": "object"}}},
    ]}));
    for text in [
        "<tool_call>\n{\"name\": \"web_search\", \"arguments\": {}}\n</tool_call>",
        "[web_search(query=\"x\")]",
        "{\"name\": \"web_search\", \"arguments\": {}}",
        "{\"name\": \"web.search\", \"arguments\": {}}",
    ] {
        let mut written = answer(text);
        let sent = [("web_search", "web.search"), ("old_call", "old.call")];
        written.beside.sent_names = sent.into_iter().map(|(sent, own)| (sent.to_owned(), own.to_owned())).collect();
        let verdict = Rules::default().judge(&written, &request, None);
        let Verdict::Rejected { failures, message } = verdict else { panic!("{text}: {verdict:?}") };
        assert_eq!((failures.as_slice(), message.contains("web.search")), (&[SoftFailure::BadToolCall][..], true));
        // A name of an earlier call is none that may be called.
        written.text = Some("{\"name\": \"old_call\", \"arguments\": {}}".to_owned());
        assert_eq!(kinds(&Rules::default(), &written, &request), []);
    }
}

#[test]
fn a_call_that_came_as_text_is_a_bad_call() {
    let request = |more: Value| {
        let mut body = json!({"prompt": "x", "tools": [{"type": "function", "function": {"name": "get_weather",
            "parameters": {"type": "object"}}}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        asking(&body)
    };
    let offers = request(json!({}));
    for text in [
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
        "I will look that up. <function=get_weather>{\"city\": \"Rome\"}</function>",
        "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {}}]",
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}>get_weather\n{}",
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}",
        "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"arguments\": \"{}\"}}]",
    ] {
        assert_eq!(kinds(&Rules::default(), &answer(text), &offers), [SoftFailure::BadToolCall], "{text}");
    }
    for (text, request) in [
        ("It is sunny in Rome.", &offers),
        ("{\"name\": \"Rome\", \"arguments\": {}}", &offers),
        ("{\"name\": \"get_weather\"}", &offers),
        ("The function get_weather tells the weather.", &offers),
        ("<tool_call>other</tool_call>", &offers),
        ("<tool_call>get_weather</tool_call>", &request(json!({"tool_choice": "none"}))),
        ("<tool_call>get_weather</tool_call>", &request(json!({"prompt": "What does <tool_call> mean?"}))),
        ("<tool_call>get_weather</tool_call>", &asking(&json!({"prompt": "x"}))),
    ] {
        assert_eq!(kinds(&Rules::default(), &answer(text), request), [], "{text}");
    }
}

#[test]
fn rules_of_a_request_stand_in_the_place_of_those_of_its_route() {
    let route = Rules {
        non_empty: true,
        min_chars: Some(10),
        forbidden_patterns: vec![regex::Regex::new("route").unwrap()],
        ..Rules::default()
    };
    let judged = |validate: Value, text: &str| {
        let request = asking(&json!({"prompt": "x", "validate": validate}));
        let rules = OwnRules::over(request.validate.as_deref(), &route).into_owned();
        kinds(&rules, &answer(text), &request)
    };
    assert_eq!(judged(json!({}), "short"), [SoftFailure::TooShort]);
    assert_eq!(judged(json!({"min_chars": 3}), "short"), []);
    assert_eq!(judged(json!({"min_chars": 0, "non_empty": false}), ""), []);
    assert_eq!(judged(json!({"max_chars": 12}), "longer than that is"), [SoftFailure::TooLong]);
    assert_eq!(judged(json!({"language": "fr", "min_chars": 0}), GERMAN), [SoftFailure::WrongLanguage]);
    assert_eq!(judged(json!({}), "along the route"), [SoftFailure::ForbiddenPattern]);
    assert_eq!(judged(json!({"forbidden_patterns": []}), "along the route"), []);
    assert_eq!(judged(json!({"required_patterns": ["^A"]}), "along the rails"), [SoftFailure::MissingPattern]);
    let served = |validate: Value| {
        let request = asking(&json!({"prompt": "x", "validate": validate}));
        OwnRules::over(request.validate.as_deref(), &route).other_model(Some("m2"))
    };
    assert_eq!(served(json!({})), None);
    assert_eq!(
        served(json!({"served": "asked"})),
        Some((SoftFailure::OtherModel, "m2 answered in its place".to_owned()))
    );
}

/// The rules that are told by the answer and by what the provider says of it.
fn wary() -> Rules {
    Rules { reject_control_tokens: true, reject_cut_prompts: true, only_filtered: true, ..strict() }
}

fn counted_by_provider(input: i64, output: i64) -> Usage {
    Usage { input, output, source: UsageSource::Provider, ..Usage::default() }
}

#[test]
fn turns_behind_an_answer_are_cut_off_even_if_the_cap_ended_them() {
    let asked = asking(&json!({"prompt": "Where is the Louvre?"}));
    let ran_on = "Paris.<|im_end|>\n<|im_start|>user\nAnd the Prado?<|im_end|>\n<|im_start|>assistant\nIn Mad";
    let cut = Answer { finish: Finish::Length, ..answer(ran_on) };
    for answer in [&answer(ran_on), &cut] {
        let Verdict::Repaired { text, cut, .. } = wary().judge(answer, &asked, None) else { panic!("{answer:?}") };
        assert_eq!(
            (text.as_str(), cut.as_str()),
            ("Paris.", "turns that are none of its answer were cut off (81 characters)")
        );
    }
    assert_eq!(kinds(&wary(), &answer("Where?[/INST] Paris."), &asked), [Soft::ControlTokens]);
    // Thoughts about such marks end no turn, and JSON may hold them.
    for (text, request) in [
        ("<think>It ends.<|im_end|>\n<|im_start|>user\n</think>Paris.", &asked),
        ("{\"token\": \"a.<|im_end|>\\n<|im_start|>user\"}", &demanding(&json!({"type": "json_object"}))),
    ] {
        assert_eq!(kinds(&wary(), &answer(text), request), [], "{text}");
    }
    let fenced = "{\"a\": 1}<|im_end|>\n<|im_start|>user\nMore?";
    let verdict = wary().judge(&answer(fenced), &demanding(&json!({"type": "json_object"})), None);
    assert!(matches!(&verdict, Verdict::Repaired { text, .. } if text == "{\"a\": 1}"), "{verdict:?}");
    assert_eq!(kinds(&strict(), &answer("Where?[/INST] Paris."), &asked), []);
}

#[test]
fn a_call_as_text_is_one_in_the_form_of_every_model() {
    let forms = [
        "<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>look\n<arg_key>at</arg_key>\n<arg_value>it</arg_value>\n</tool_call>",
        "<tool_call>\n<function=look>\n<parameter=at>it</parameter>\n</function>\n</tool_call>",
        "<function=look>{\"at\": 1}</function>",
        "[TOOL_CALLS] [{\"name\": \"look\", \"arguments\": {}}]",
        "[TOOL_CALLS]look[ARGS]{\"at\": 1}",
        "<|python_tag|>look.call(at=1)",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.look:0<|tool_call_argument_begin|>{}",
        "<minimax:tool_call>\n<invoke name=\"look\">\n</invoke>\n</minimax:tool_call>",
        "<\u{ff5c}DSML\u{ff5c}function_calls>\n<\u{ff5c}DSML\u{ff5c}invoke name=\"look\">",
        "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}><\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>look",
        "<TOOLCALL>[{\"name\": \"look\", \"arguments\": {}}]</TOOLCALL>",
        "<|tool_call_start|>[look(at=1)]<|tool_call_end|>",
        "<seed:tool_call><function=look></function></seed:tool_call>",
        "commentary to=functions.look json{\"at\": 1}",
        "functools[{\"name\": \"look\", \"arguments\": {}}]",
        "```tool_code\nprint(look(at=1))\n```",
        "[look(at=\"it\")]",
    ];
    for text in forms {
        assert_eq!(kinds(&wary(), &answer(text), &request()), [Soft::BadToolCall], "{text}");
    }
    // A call where no function was offered.
    let plain = asking(&json!({"prompt": "x"}));
    for text in ["<tool_call>\n{\"name\": \"look\"}", "[TOOL_CALLS] [{}]", "<\u{ff5c}DSML\u{ff5c}function_calls>"] {
        assert_eq!(kinds(&wary(), &answer(text), &plain), [Soft::BadToolCall], "{text}");
        let about = asking(&json!({"prompt": "Show me a <tool_call>, [TOOL_CALLS], <\u{ff5c}DSML."}));
        assert_eq!(kinds(&wary(), &answer(text), &about), [], "{text}");
    }
    for text in ["[look](https://example.com)", "Then `look(at=1)` is called.", "[looking around]"] {
        assert_eq!(kinds(&wary(), &answer(text), &request()), [], "{text}");
    }
}

#[test]
fn a_prompt_is_cut_where_far_fewer_tokens_were_counted_than_it_has_words() {
    let of = |prompt: &str, input: i64| {
        let usage = counted_by_provider(input, 5);
        kinds(&wary(), &Answer { usage, ..answer("Yes.") }, &asking(&json!({"prompt": prompt})))
    };
    let (long, short) = ("a word or two, ".repeat(500), "a word or two, ".repeat(200));
    assert_eq!(of(&long, 600), [Soft::PromptCut]);
    for (prompt, input) in [
        (&long, 2_500),
        // A tokenizer that makes one token of two words is unheard of, and let pass.
        (&long, 1_000),
        (&long, 0),
        (&short, 10),
        (&"=".repeat(100_000), 40),
        (&" ".repeat(100_000), 40),
        (&"日本語".repeat(1_000), 300),
    ] {
        assert_eq!(of(prompt, input), [], "{input}");
    }
    let estimated = Usage { source: UsageSource::Estimated, ..counted_by_provider(600, 5) };
    let asked = asking(&json!({"prompt": long}));
    assert_eq!(kinds(&wary(), &Answer { usage: estimated, ..answer("Yes.") }, &asked), []);
    let counted = Answer { usage: counted_by_provider(600, 5), ..answer("Yes.") };
    assert_eq!(kinds(&strict(), &counted, &asked), []);
}

#[test]
fn an_answer_that_breaks_off_at_its_cap_is_cut_whatever_it_says() {
    let of = |text: &str, cap: i64, output: i64, reasoning: i64| {
        let usage = Usage { reasoning, ..counted_by_provider(10, output) };
        kinds(&strict(), &Answer { usage, ..answer(text) }, &asking(&json!({"prompt": "x", "max_tokens": cap})))
    };
    assert_eq!(of("And then the wheel turned and", 20, 20, 0), [Soft::Truncated]);
    assert_eq!(of("And then the wheel turned and", 20, 50, 30), [Soft::Truncated]);
    for (text, cap, output) in [
        ("And then the wheel turned.", 20, 20),
        ("And then the wheel turned and", 20, 19),
        ("And then the wheel turned and", 200, 20),
        // A label may be as long as its cap.
        ("positive", 1, 1),
        ("fn main() {}", 20, 20),
        ("| a | b |", 20, 20),
    ] {
        assert_eq!(of(text, cap, output, 0), [], "{text}");
    }
}

#[test]
fn the_schema_is_no_answer_to_itself() {
    let schema = json!({"type": "object", "properties": {"label": {"type": "string"}, "sure": {"type": "boolean"}}});
    let wanted = demanding(&json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}));
    let mut sent = schema.clone();
    sent["additionalProperties"] = json!(false);
    for text in [schema.to_string(), sent.to_string(), json!({"name": "a", "schema": schema}).to_string()] {
        assert_eq!(failures_for(&strict(), &answer(&text), &wanted), [Soft::SchemaMismatch], "{text}");
    }
    for text in ["{\"label\": \"x\"}", "{\"type\": \"object\"}", "{\"type\": \"object\", \"properties\": {\"x\": 1}}"] {
        assert_eq!(failures_for(&strict(), &answer(text), &wanted), [], "{text}");
    }
    // A request for a schema may get one.
    let of_schemas = json!({"type": "object", "properties": {"type": {}, "properties": {"type": "object"}}});
    let wanted = demanding(&json!({"type": "json_schema", "json_schema": {"name": "a", "schema": of_schemas}}));
    let text = "{\"type\": \"object\", \"properties\": {\"type\": {}, \"properties\": {}}}";
    assert_eq!(failures_for(&strict(), &answer(text), &wanted), []);
}

#[test]
fn a_filter_that_was_down_is_a_fault_only_where_it_has_to_run() {
    let mut unfiltered = answer("Yes.");
    let results = json!({"error": {"code": "content_filter_error", "message": "The contents are not filtered"}});
    unfiltered.beside.choice.insert("content_filter_results".to_owned(), results);
    assert_eq!(failures(&wary(), &unfiltered), [Soft::Unfiltered]);
    assert_eq!(failures(&strict(), &unfiltered), []);
    unfiltered.beside.choice.insert("content_filter_results".to_owned(), json!({"hate": {"filtered": false}}));
    assert_eq!(failures(&wary(), &unfiltered), []);
}
