//! Whether the prose around a value stands by it.
//!
//! A model that writes sentences around its JSON may think aloud in them: `Maybe {…}? No, on reflection it is not.`
//! Using such a value would give as an answer what the text takes back. In doubt it is no answer: a second call costs
//! less than a wrong result.

use serde_json::Value;

/// Words that only suppose, if they are among the last words before a value.
const SUPPOSING: &[&str] = &[
    "maybe",
    "perhaps",
    "possibly",
    "might",
    "could",
    "not",
    "isn't",
    "never",
    "instead",
    "rather",
    "draft",
    "guess",
    "thought",
    "initially",
    "wrong",
    "vielleicht",
    "eventuell",
    "nicht",
    "statt",
    "peut-être",
    "plutôt",
    "quizás",
    "quizá",
    "talvez",
    "forse",
    "возможно",
    "也许",
    "可能",
    "或许",
    "たぶん",
    "아마",
];

/// Words that take something back, at the beginning of a sentence behind a value.
const TAKING_BACK: &[&str] = &[
    "nope",
    "wait",
    "actually",
    "hmm",
    "hm",
    "scratch that",
    "strike that",
    "correction",
    "on second",
    "on reflection",
    "oops",
    "sorry",
    "instead",
    "rather",
    "i mean",
    "never mind",
    "nevermind",
    "let me re",
    "let me correct",
    "let me fix",
    "let me think",
    "in fact",
    "ignore that",
    "disregard",
    "not quite",
    "not really",
    "not so",
    "that is not",
    "that's not",
    "that isn't",
    "this is not",
    "this isn't",
    "it isn't",
    "moment",
    "korrektur",
    "quatsch",
    "vielmehr",
    "en fait",
    "attends",
    "attendez",
    "en realidad",
    "espera",
    "mejor dicho",
    "na verdade",
    "espere",
    "anzi",
    "aspetta",
    "вернее",
    "подождите",
    "不对",
    "不是",
    "等等",
    "其实",
    "更正",
    "いや",
    "待って",
    "訂正",
    "아니",
];

/// A denial, when it is a sentence or ends in a comma: `No, …` but not `No further entities`.
const DENIALS: &[&str] = &["no", "nein", "doch", "non", "não", "нет", "不", "没有"];

/// Words that take something back wherever they stand behind a value.
const ANYWHERE: &[&str] = &[
    "on reflection",
    "on second thought",
    "scratch that",
    "i was wrong",
    "that is wrong",
    "that's wrong",
    "was wrong",
    "is incorrect",
    "is not correct",
    "is not right",
    "isn't right",
    "isn't correct",
    "my mistake",
    "correct answer is",
    "it should be",
    "that should be",
    "should have been",
    "should actually",
    "take that back",
    "let me correct",
    "change my mind",
    "changed my mind",
    "reconsider",
];

/// How much of the prose is read on either side.
const READ: usize = 4_000;

/// Whether the prose before a value only supposes it, or the prose behind it takes it back.
pub(super) fn is_doubtful(value: &Value, before: &str, after: &str) -> bool {
    let before = &tail(before).to_lowercase();
    let after = &head(after).to_lowercase().replace('’', "'");
    is_supposed(before) || is_asked(after) || is_taken_back(after) || is_denied(value, after)
}

fn head(text: &str) -> &str {
    text.char_indices().nth(READ).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}

fn tail(text: &str) -> &str {
    text.char_indices().rev().nth(READ).map_or(text, |(start, _)| text.get(start..).unwrap_or_default())
}

/// Whether one of the last three words of the sentence before a value is one of doubt.
fn is_supposed(before: &str) -> bool {
    let sentence = before.trim_end_matches(|c: char| c.is_whitespace() || c == '`' || c == '"');
    let sentence = sentence.rsplit(['.', '!', '?', '\n', '。']).next().unwrap_or_default();
    let words = sentence
        .split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’' | '-'))
        .filter(|word| !word.is_empty());
    words
        .rev()
        .take(3)
        .any(|word| SUPPOSING.contains(&word.replace('’', "'").as_str()) || is_supposing_without_spaces(word))
}

/// Scripts that do not part words with spaces.
fn is_supposing_without_spaces(word: &str) -> bool {
    SUPPOSING.iter().any(|doubt| !doubt.chars().any(|c| c.is_ascii() || c < '\u{3000}') && word.ends_with(doubt))
}

fn is_asked(after: &str) -> bool {
    after
        .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'' | ')' | ']'))
        .starts_with(['?', '？'])
}

fn is_taken_back(after: &str) -> bool {
    if ANYWHERE.iter().any(|phrase| after.contains(phrase)) {
        return true;
    }
    after.split(['.', '!', '?', '\n', ';', ':', '—', '–', '。', '！', '？']).any(|sentence| {
        let sentence = sentence.trim_matches(|c: char| !c.is_alphanumeric() && !matches!(c, ',' | '，'));
        let sentence = sentence.trim_start_matches([',', '，', ' ']);
        let begins = |phrase: &str| {
            let rest = sentence.strip_prefix(phrase);
            // A part of a longer word is another word, but for `let me re…` and where words are not parted.
            rest.is_some_and(|rest| {
                phrase.ends_with("re") || !phrase.is_ascii() || !rest.starts_with(char::is_alphanumeric)
            })
        };
        let denies = |phrase: &str| {
            sentence.strip_prefix(phrase).is_some_and(|rest| rest.is_empty() || rest.starts_with([',', '，']))
        };
        TAKING_BACK.iter().any(|phrase| begins(phrase)) || DENIALS.iter().any(|phrase| denies(phrase))
    })
}

/// Whether the prose says `not spam` behind `{"label": "spam"}`.
fn is_denied(value: &Value, after: &str) -> bool {
    const SHORT: usize = 40;
    const MOST: usize = 20;
    let mut texts = Vec::new();
    gather(value, &mut texts, MOST);
    texts.iter().filter(|text| !text.is_empty() && text.len() <= SHORT).any(|text| {
        let text = text.to_lowercase();
        ["not ", "not a ", "not an ", "not really ", "n't ", "n't a ", "n't an "].iter().any(|denial| {
            let phrase = format!("{denial}{text}");
            after.match_indices(&phrase).any(|(at, found)| {
                !after.get(at.saturating_add(found.len())..).unwrap_or_default().starts_with(char::is_alphanumeric)
            })
        })
    })
}

fn gather<'a>(value: &'a Value, texts: &mut Vec<&'a str>, most: usize) {
    if texts.len() >= most {
        return;
    }
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().take(most).for_each(|item| gather(item, texts, most)),
        Value::Object(members) => members.values().take(most).for_each(|member| gather(member, texts, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn doubted(text: &str) -> bool {
        let value = json!({"label": "spam"});
        let (before, after) = text.split_once("{}").unwrap();
        is_doubtful(&value, before, after)
    }

    #[test]
    fn what_the_prose_supposes_or_takes_back_is_doubted() {
        for text in [
            "Maybe {}? No, on reflection it is not spam.",
            "Maybe {}",
            "It could be {}",
            "I would say {}? Hm.",
            "I would say {}. No.",
            "{} No, wait.",
            "{}\n\nWait, that is ham.",
            "{}\nActually, it is ham.",
            "{} Hmm, let me reconsider.",
            "{} Scratch that.",
            "{}. That's wrong.",
            "{} – but it should be ham. Correction: ham.",
            "{}\n\nIt is not spam.",
            "{}\nThis isn’t spam",
            "It is not {}",
            "My first guess: {}",
            "```json\n{}\n```\nOn second thought it is ham.",
            "Vielleicht {}",
            "{} Nein, doch nicht.",
            "也许{}",
            "{} 不对，应该是 ham",
        ] {
            assert!(doubted(text), "{text}");
        }
    }

    #[test]
    fn what_the_prose_stands_by_is_taken() {
        for text in [
            "Sure!\n\n{}\n\nBye.",
            "{}",
            "Here is the JSON that you asked for:\n```json\n{}\n```\nAnything else?",
            "I could not find a date, so it is left out:\n{}",
            "{}\n\nNo further labels apply.",
            "{}\n\nNote: nothing else was found. The sender is not known.",
            "{}\n\nNotice that it was sent at night.",
            "{}\n\nHowever, the confidence is low.",
            "The answer is {}.",
            "Nothing else fits.\n\n{}",
            "{}\n\nI chose spam because nobody asked for it.",
        ] {
            assert!(!doubted(text), "{text}");
        }
    }
}
