//! Finding JSON in a text that was meant to be JSON.
//!
//! Models put it into code fences and write sentences around it. Taking those off loses nothing, nor does taking off a
//! comma before a closing bracket; anything more would be a guess: a missing bracket is not added, of two values none
//! is chosen, and one is taken only where nothing beside it could say that it is not meant ([`form`]).

use super::{doubt, draft, form};
use crate::domain::bulk::MOST_MEMBERS;
use serde_json::Value;
use std::borrow::Cow;

/// The JSON in a text.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// The text is JSON.
    Whole(Value),
    /// A part of the text is JSON, or would be but for commas before closing brackets.
    Inside(Value, Cow<'a, str>),
    /// A value begins and does not end.
    CutOff,
    /// More than one value could be the answer.
    Several,
    /// The text around a value may say that it is not the answer.
    Doubtful,
    /// The text has no value.
    Nothing,
}

/// An opening bracket may be looked at this often: a text of nothing but brackets must not cost the square of its
/// length.
const MOST_TRIES: usize = 64;

/// Finds the JSON in a text. Among several values the one that `fits` is the answer, if it is the only one.
pub(super) fn find<'a>(text: &'a str, fits: &dyn Fn(&Value) -> bool) -> Found<'a> {
    // In prose quotes need not come in pairs, so every comma counts.
    if text.len() > MOST_MEMBERS && text.bytes().filter(|byte| *byte == b',').count() > MOST_MEMBERS {
        return Found::Nothing;
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Found::Whole(value);
    }
    if let Some((value, part)) = unfenced(text).and_then(parsed) {
        return Found::Inside(value, part);
    }
    let mut values = match scan(text) {
        Scan::Values(values) => values,
        Scan::CutOff => return Found::CutOff,
        Scan::Broken => return Found::Nothing,
    };
    let found = values.len();
    // A value in a model's reasoning does not compete with one in its answer.
    let tags = draft::tags_in(text);
    values.retain(|found| !draft::is_open(text.get(..found.at).unwrap_or_default(), &tags));
    if values.is_empty() && found > 0 {
        return Found::Doubtful;
    }
    if values.len() > 1 {
        let fitting: Vec<bool> = values.iter().map(|found| fits(&found.value)).collect();
        if fitting.contains(&true) {
            let mut fitting = fitting.into_iter();
            values.retain(|_| fitting.next().unwrap_or(false));
        }
        // A reference such as `[1]` in the prose beside an object does not compete with it.
        if values.iter().any(|found| found.value.is_object()) {
            values.retain(|found| found.value.is_object());
        }
        // Of several equal values the last one counts.
        values.reverse();
        values.dedup_by(|one, other| one.value == other.value);
    }
    match values.pop() {
        None => Found::Nothing,
        Some(Part { value, at, length, text: part }) if values.is_empty() => {
            let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
            let after = rest.get(length..).unwrap_or_default();
            let is_meant = form::is_surely_meant(draft::after_drafts(before, &tags), after);
            if is_meant && !doubt::is_doubtful(&value, before, after) {
                Found::Inside(value, part)
            } else {
                Found::Doubtful
            }
        }
        Some(_) => Found::Several,
    }
}

/// The inside of a text that is one fenced block: a string or a number has no other sign.
fn unfenced(text: &str) -> Option<&str> {
    let (_language, rest) = text.strip_prefix("```")?.split_once('\n')?;
    rest.trim_end().strip_suffix("```").map(str::trim)
}

/// A value in a text.
struct Part<'a> {
    value: Value,
    at: usize,
    length: usize,
    text: Cow<'a, str>,
}

/// The value of a text that is JSON, and its JSON.
fn parsed(text: &str) -> Option<(Value, Cow<'_, str>)> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some((value, Cow::Borrowed(text)));
    }
    let mended = without_commas(text);
    Some((serde_json::from_str(&mended).ok()?, Cow::Owned(mended)))
}

/// The text without single commas between a value and the closing bracket.
fn without_commas(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    // The place of a comma after which only white space has come.
    let mut comma = None;
    let mut last = '[';
    for c in text.chars() {
        if in_string {
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else {
            match c {
                '}' | ']' => {
                    if let Some(at) = comma.take() {
                        out.remove(at);
                    }
                }
                ',' => comma = (!matches!(last, '{' | '[' | ',' | ':')).then_some(out.len()),
                c if c.is_whitespace() => {}
                c => {
                    in_string = c == '"';
                    comma = None;
                }
            }
        }
        if !c.is_whitespace() {
            last = c;
        }
        out.push(c);
    }
    out
}

enum Scan<'a> {
    /// Every object and array that does not lie within another one.
    Values(Vec<Part<'a>>),
    CutOff,
    /// A part that was meant to be an object or array is malformed.
    Broken,
}

fn scan(text: &str) -> Scan<'_> {
    let mut values = Vec::new();
    let mut from = 0;
    for _ in 0..MOST_TRIES {
        let rest = text.get(from..).unwrap_or_default();
        let Some(start) = rest.find(['{', '[']) else { return Scan::Values(values) };
        let candidate = rest.get(start..).unwrap_or_default();
        let length = match end_of(candidate) {
            Some(end) => {
                let part = candidate.get(..end).unwrap_or_default();
                match parsed(part) {
                    Some((value, text)) => {
                        values.push(Part { value, at: from.saturating_add(start), length: end, text });
                    }
                    None if is_meant_as_json(part) => return Scan::Broken,
                    // A bracket in the prose; the text within it is prose as well.
                    None => {}
                }
                end
            }
            None if is_meant_as_json(candidate) => return Scan::CutOff,
            // A bracket in the prose that is never closed.
            None => 1,
        };
        from = from.saturating_add(start).saturating_add(length);
    }
    Scan::Broken
}

/// The length of the text up to and including the bracket that closes its first one.
///
/// Brackets within strings do not count. The parser decides whether each is closed by one of its own kind.
fn end_of(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(index.saturating_add(1));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether the text after an opening bracket looks like JSON rather than prose: `{"a"`, `{'a'`, `[1`, `[{`, but not
/// `{name}` or `[sic]`.
fn is_meant_as_json(text: &str) -> bool {
    let inside = text.get(1..).unwrap_or_default().trim_start();
    let Some(first) = inside.chars().next() else { return true };
    if text.starts_with('{') {
        return matches!(first, '"' | '\'' | '}');
    }
    let is_literal =
        ["true", "false", "null"].iter().any(|literal| inside.starts_with(literal) || literal.starts_with(inside));
    is_literal || first.is_ascii_digit() || matches!(first, '"' | '\'' | '{' | '[' | ']' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn inside(text: &str) -> Option<Cow<'_, str>> {
        match find(text, &|_| true) {
            Found::Inside(_, part) => Some(part),
            Found::Whole(_) | Found::CutOff | Found::Several | Found::Doubtful | Found::Nothing => None,
        }
    }

    #[test]
    fn fences_and_prose_are_taken_off() {
        for (text, part) in [
            ("```json\n{\"a\": 1}\n```", "{\"a\": 1}"),
            ("```\n[1, 2]\n```", "[1, 2]"),
            ("```json\n\"yes\"\n```", "\"yes\""),
            ("```json\n42\n```\n", "42"),
            ("Here you are:\n```json\n{\"a\": {\"b\": [1]}}\n```\nAnything else?", "{\"a\": {\"b\": [1]}}"),
            ("Sure! {\"a\": \"}\"} Bye.", "{\"a\": \"}\"}"),
            ("Answer: {\"a\": \"\\\"}{\"}", "{\"a\": \"\\\"}{\"}"),
            ("Here you are: [{\"a\": 1}, {\"a\": 2}]", "[{\"a\": 1}, {\"a\": 2}]"),
            ("It is what [1] and [2] say.\nFinal answer: {\"a\": 1}", "{\"a\": 1}"),
            ("I take {\"a\": 1}.\n\nAnswer:\n{\"a\": 1}", "{\"a\": 1}"),
            ("An [open bracket, then\nFinal answer: {\"a\": 1}", "{\"a\": 1}"),
            ("\u{feff}{\"a\": \"ü\"}", "{\"a\": \"ü\"}"),
            ("{\"a\": \"Paris\",}", "{\"a\": \"Paris\"}"),
            ("```json\n{\"a\": [1, 2, ],\n}\n```", "{\"a\": [1, 2 ]\n}"),
            ("JSON: {\"a\": \",]\\\",}\",}", "{\"a\": \",]\\\",}\"}"),
        ] {
            assert_eq!(inside(text).as_deref(), Some(part), "{text}");
        }
    }

    #[test]
    fn what_is_json_already_is_left_alone() {
        for text in ["{\"a\": 1}", " [1]\n", "3", "\"x\"", "null"] {
            assert!(matches!(find(text, &|_| true), Found::Whole(_)), "{text}");
        }
    }

    #[test]
    fn a_value_without_end_is_cut_off_and_not_repaired() {
        for text in [
            "{",
            "[",
            "{\"a\": 1",
            "{\"a\": \"}",
            "{\"items\": [{\"a\": 1}, {\"a\": 2}",
            "```json\n{\"a\": [1, 2",
            "Sure: [{\"a\": 1}, ",
            "{\"a\": 1} and {\"b\": ",
        ] {
            assert_eq!(find(text, &|_| true), Found::CutOff, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_not_repaired_nor_robbed_of_its_parts() {
        for text in ["", "no", "{'a': [1]}", "{\"a\": [1],, }", "[1, {\"a\": 2},, ]", "{,}", "[,]", "[1}", "{name}"] {
            assert_eq!(find(text, &|_| true), Found::Nothing, "{text}");
        }
    }

    #[test]
    fn of_several_values_none_is_guessed() {
        let text = "First {\"a\": 1}, then {\"a\": 2}";
        assert_eq!(find(text, &|_| true), Found::Several);
        assert_eq!(find(text, &|_| false), Found::Several);
        let second = json!({"a": 2});
        assert_eq!(find(text, &|value| *value == second), Found::Doubtful);
        let text = "From {\"a\": 1} follows this.\nOutput: {\"a\": 2}";
        assert_eq!(find(text, &|value| *value == second), Found::Inside(second.clone(), "{\"a\": 2}".into()));
    }

    #[test]
    fn a_value_that_the_text_takes_back_is_none() {
        let spam = json!({"label": "spam"});
        for text in [
            "Maybe {\"label\": \"spam\"}? No, on reflection it is not spam.",
            "Maybe {\"label\": \"spam\"}? No: {\"verdict\": \"ham\"}",
            "{\"label\": \"spam\"}\n\nWait, that is wrong.",
            "Let me see. <think>Maybe {\"label\": \"spam\"}?</think>",
            "```json\n{\"label\": \"spam\"}\n```\nCorrection: it is ham.",
        ] {
            assert_eq!(find(text, &|value| *value == spam), Found::Doubtful, "{text}");
        }
        let ham = json!({"label": "ham"});
        let text = "Let me see. <think>Maybe {\"label\": \"spam\"}?</think> {\"label\": \"ham\"}";
        assert_eq!(find(text, &|_| true), Found::Inside(ham, "{\"label\": \"ham\"}".into()));
        let text = "Maybe {\"label\": \"spam\"}? No, {\"label\": \"ham\"}";
        assert_eq!(find(text, &|_| true), Found::Several);
        let text = "Maybe {\"label\": \"spam\"}? Yes:\nFinal answer: {\"label\": \"spam\"}";
        assert_eq!(find(text, &|_| true), Found::Inside(spam, "{\"label\": \"spam\"}".into()));
    }

    #[test]
    fn a_text_of_brackets_holds_no_json_and_is_read_in_one_go() {
        for bracket in ["[", "{", "[x", "{x}", "]", "[[[]", "{\"", "\\\""] {
            let text = bracket.repeat(1_000_000 / bracket.len());
            // A scanner that began anew at each bracket would not finish here.
            assert!(!matches!(find(&text, &|_| true), Found::Whole(_)), "{bracket}");
        }
    }

    /// Any JSON that is an object or an array.
    fn compound() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~äß\\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-z{}\"\\[\\]]{0,6}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
        .prop_filter("is an object or an array", |value| value.is_object() || value.is_array())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn json_is_found_where_the_form_is_that_of_an_answer(
            value in compound(),
            before in "(Sure!|Here is the JSON:|Answer:|```json)?\n?",
            after in "\n?(```)?\n?(Bye\\.|Let me know if you need anything else!)?",
        ) {
            prop_assume!(!doubt::is_doubtful(&value, &before, &after));
            let text = format!("{before}\n{value}\n{after}");
            match find(&text, &|_| true) {
                Found::Whole(found) | Found::Inside(found, _) => prop_assert_eq!(found, value),
                other => prop_assert!(false, "{:?} in {}", other, text),
            }
        }

        #[test]
        fn json_in_any_prose_is_it_or_none(
            value in compound(),
            before in "[a-zA-Z ,.:\\n]{0,30}",
            after in "[a-zA-Z ,.:\\n]{0,30}",
        ) {
            match find(&format!("{before}\n{value}\n{after}"), &|_| true) {
                Found::Whole(found) | Found::Inside(found, _) => prop_assert_eq!(found, value),
                other => prop_assert_eq!(other, Found::Doubtful),
            }
        }

        #[test]
        fn json_that_is_cut_off_is_never_taken_for_whole(value in compound(), share in 0.0..1.0_f64) {
            let whole = value.to_string();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                reason = "a test")]
            let most = (whole.len() as f64 * share) as usize;
            let cut = (1..whole.len()).rev().find(|&end| end <= most && whole.is_char_boundary(end));
            if let Some(cut) = cut {
                let found = find(&whole[..cut], &|_| true);
                prop_assert!(matches!(found, Found::CutOff | Found::Nothing), "{:?}", found);
            }
        }

        #[test]
        fn any_text_is_searched(text in "[\\[\\]{}\"\\\\:,a1 ä`\n]{0,200}") {
            let _ = find(&text, &|_| true);
        }
    }
}
