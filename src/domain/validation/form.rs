//! Whether the form of a text says that the value in it is the answer.
//!
//! A sentence beside a value may say anything of it, in any language: that it is wrong, that it is a sample, that it
//! holds for another question. No list of such sentences is ever complete. So the question is put the other way round:
//! only words that are known to say nothing of a value may stand beside it. With anything else beside it the value is
//! no sure answer, and a second call costs less than a wrong result.

use super::phrases;

/// Words of which a lead-in may consist. Words of sentences that belittle the value are not here.
const NEUTRAL: &[&str] = &[
    // English.
    "a",
    "an",
    "and",
    "are",
    "follows",
    "fields",
    "details",
    "answer",
    "answers",
    "as",
    "asked",
    "based",
    "below",
    "certainly",
    "classification",
    "code",
    "complete",
    "completed",
    "course",
    "data",
    "email",
    "entities",
    "extracted",
    "extraction",
    "final",
    "following",
    "for",
    "formatted",
    "from",
    "generated",
    "got",
    "great",
    "have",
    "here",
    "here's",
    "hi",
    "hello",
    "i",
    "i've",
    "in",
    "information",
    "is",
    "it",
    "items",
    "json",
    "label",
    "message",
    "my",
    "object",
    "of",
    "ok",
    "okay",
    "on",
    "only",
    "output",
    "please",
    "provided",
    "requested",
    "response",
    "result",
    "results",
    "structured",
    "sure",
    "text",
    "thank",
    "thanks",
    "that",
    "the",
    "this",
    "to",
    "understood",
    "valid",
    "with",
    "yes",
    "you",
    "your",
    "absolutely",
    "list",
    "array",
    "record",
    "value",
    "find",
    "analysis",
    "summary",
    "done",
    // Other languages: the few words for `here is the answer as JSON`.
    "hier",
    "ist",
    "das",
    "die",
    "antwort",
    "ergebnis",
    "gerne",
    "voici",
    "la",
    "le",
    "réponse",
    "résultat",
    "aquí",
    "está",
    "el",
    "respuesta",
    "resultado",
    "aqui",
    "a",
    "o",
    "resposta",
    "ecco",
    "il",
    "risposta",
    "risultato",
    "вот",
    "ответ",
    "результат",
    "答案",
    "结果",
    "回答",
    "以下是",
    "結果",
    "こちらが",
    "です",
    "결과",
    "답변",
];

/// Words that name a form and not a value: taken out of a lead-in before its words are examined.
const FORMS: &[&str] = &[
    "matching the schema",
    "matching your schema",
    "that matches the schema",
    "that conforms to the schema",
    "according to the schema",
    "in json format",
    "in the json format",
    "in valid json format",
    "in the requested format",
    "in the requested json format",
    "in the specified format",
    "you asked for",
    "as requested",
    "as per your request",
    "based on your request",
];

/// Beginnings of a lead-in that may name what it leads to: `Here is the order of the customer:`.
const POINTING: &[&str] = &[
    "here is the ",
    "here is your ",
    "here's the ",
    "here's your ",
    "here are the ",
    "here are ",
    "here is a json ",
    "here's a json ",
    "below is the ",
];

/// Words that no lead-in to an answer has.
const BELITTLING: &[&str] = &[
    "not",
    "no",
    "n't",
    "never",
    "wrong",
    "false",
    "incorrect",
    "bad",
    "sample",
    "example",
    "examples",
    "template",
    "placeholder",
    "schema",
    "format",
    "draft",
    "dummy",
    "test",
    "naive",
    "would",
    "could",
    "might",
    "should",
    "if",
    "what",
    "how",
    "previous",
    "old",
    "original",
    "first",
    "initial",
    "instead",
    "without",
    "invalid",
    "hypothetical",
    "fake",
    "mock",
    "possible",
    "potential",
    "guess",
    "attempt",
    "mistake",
    "error",
    "opposite",
    "kind",
    "sort",
    "type",
    "structure",
    "shape",
    "rejected",
    "unlikely",
    "supposed",
    "alleged",
    "but",
    "however",
    "someone",
    "people",
];

/// Polite ends that say nothing of the value. Each stands for all sentences that begin with it, within the bounds of
/// [`closes`].
const CLOSINGS: &[&str] = &[
    "let me know if you need",
    "let me know if you have any",
    "let me know if you'd like",
    "let me know if you would like",
    "let me know if you want",
    "please let me know if you need",
    "please let me know if you have any",
    "if you need anything else",
    "if you need any further",
    "if you have any questions",
    "if you have any other questions",
    "if you have any further questions",
    "is there anything else",
    "anything else",
    "hope this helps",
    "hope that helps",
    "i hope this helps",
    "i hope that helps",
    "feel free to ask",
    "feel free to reach out",
    "have a nice day",
    "have a great day",
    "thank you",
    "thanks",
    "you're welcome",
    "bye",
    "goodbye",
    "done",
    "cheers",
];

/// Tags that a value may stand in.
const TAGS: &[&str] = &["json", "answer", "final_answer", "output", "result", "response", "final"];

/// A lead-in and a close are short.
const LONGEST: usize = 200;

/// Whether the text before and behind a value leaves no doubt that the value is the answer.
pub(super) fn is_surely_meant(before: &str, after: &str) -> bool {
    let (before, after) = untagged(super::trimmed(before), after.trim());
    leads_in(before, after) && closes(after)
}

/// The text without a pair of tags around the value.
fn untagged<'a>(before: &'a str, after: &'a str) -> (&'a str, &'a str) {
    let inner = TAGS.iter().find_map(|tag| {
        let name = before.strip_suffix('>')?;
        let lead = name.get(..name.len().checked_sub(tag.len().saturating_add(1))?)?;
        let open = name.get(lead.len()..)?.strip_prefix('<')?;
        let rest = after.strip_prefix("</")?;
        let (close, rest) = rest.split_once('>')?;
        (open.eq_ignore_ascii_case(tag) && close.eq_ignore_ascii_case(tag)).then_some((lead, rest))
    });
    inner.map_or((before, after), |(lead, rest)| (lead.trim(), rest.trim()))
}

fn leads_in(before: &str, after: &str) -> bool {
    let lead = unfenced_start(before);
    if is_neutral(lead) || points(lead) {
        return true;
    }
    // Steps of thought may come first, where the last line says that the answer follows, and nothing follows that.
    let Some((thoughts, last)) = lead.rsplit_once('\n') else { return false };
    let last = last.trim();
    let says_so = last.ends_with([':', '*', '：'])
        && ["answer", "final", "output", "result", "json"].iter().any(|word| has_word(last, word));
    after.trim_matches(['`', '\n', ' ', '\r']).is_empty()
        && says_so
        && (is_neutral(last) || points(last))
        && !phrases::declines(thoughts)
}

/// The text without the opening line of a fence.
fn unfenced_start(before: &str) -> &str {
    let bare = before.trim_end();
    let start = bare.rfind("```").unwrap_or(bare.len());
    let is_fence =
        bare.get(start..).is_some_and(|fence| fence.trim_start_matches('`').chars().all(char::is_alphanumeric));
    if is_fence { bare.get(..start).unwrap_or_default().trim_end() } else { bare }
}

/// Whether the lead-in says nothing: neutral words and plain marks.
fn is_neutral(lead: &str) -> bool {
    if lead.len() > LONGEST || !lead.chars().all(is_plain) {
        return false;
    }
    let plain = FORMS.iter().fold(lowered(lead), |lead, form| lead.replace(form, " "));
    words(&plain).all(|word| NEUTRAL.contains(&word))
}

/// Whether the lead-in points at the text after it, in a sentence of its own that ends in a colon.
fn points(lead: &str) -> bool {
    if lead.len() > LONGEST || !lead.chars().all(|c| is_plain(c) || c.is_numeric()) {
        return false;
    }
    let lead = FORMS.iter().fold(lowered(lead), |lead, form| lead.replace(form, " "));
    let lead = lead.trim().trim_end_matches('*');
    let Some(lead) = lead.strip_suffix(':') else { return false };
    let at = lead.rfind(['.', '!', '\n']).map_or(0, |at| at.saturating_add(1));
    let (courtesy, sentence) = lead.split_at_checked(at).unwrap_or(("", lead));
    // `Sure, here is the order:` has its courtesy in the same sentence.
    let sentence = sentence.trim().trim_start_matches('*');
    let start = POINTING.iter().filter_map(|start| sentence.find(start)).min();
    let Some((opening, rest)) = start.and_then(|start| sentence.split_at_checked(start)) else { return false };
    is_neutral(courtesy)
        && (is_neutral(opening) || opening.starts_with("based on "))
        && words(opening).all(stands_by)
        && words(rest).count() <= 14
        && words(rest).all(stands_by)
}

/// Whether a word does not belittle the value.
fn stands_by(word: &str) -> bool {
    !BELITTLING.contains(&word) && !word.ends_with("n't")
}

/// Whether the text after the value is empty or a polite close.
fn closes(after: &str) -> bool {
    let rest = after.trim_start_matches(['`', '*', '.', '。', ' ', '\n', '\r', '\t']);
    if rest.trim_matches(|c: char| is_plain(c) && !c.is_alphanumeric()).is_empty() {
        return true;
    }
    if rest.len() > LONGEST || !rest.starts_with(char::is_alphanumeric) {
        return false;
    }
    lowered(rest).split(['.', '!', '?', '\n']).map(str::trim).filter(|sentence| !sentence.is_empty()).all(|sentence| {
        !sentence.contains([':', ';', '{', '[', '—', '–'])
            && words(sentence).all(|word| !BELITTLING.contains(&word) || word == "if")
            && CLOSINGS.iter().any(|closing| {
                // A single word of thanks goes on with something else.
                let most = if closing.contains(' ') { 8 } else { 0 };
                sentence
                    .strip_prefix(closing)
                    .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric) && words(rest).count() <= most)
            })
    })
}

fn lowered(text: &str) -> String {
    text.to_lowercase().replace('’', "'")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty())
}

fn has_word(text: &str, word: &str) -> bool {
    words(&text.to_lowercase()).any(|found| found == word)
}

/// Whether a plain sentence may have this character: no strokes, comments, tags or brackets.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric()
        || c.is_whitespace()
        || matches!(
            c,
            '\'' | '’'
                | ','
                | '.'
                | '!'
                | ':'
                | '*'
                | '#'
                | '-'
                | '_'
                | '`'
                | '，'
                | '。'
                | '！'
                | '：'
                | '、'
                | '…'
                | '✅'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_meant(text: &str) -> bool {
        let (before, after) = text.split_once("{}").unwrap();
        is_surely_meant(before, after)
    }

    #[test]
    fn a_value_in_the_form_of_an_answer_is_one() {
        for text in [
            "{}",
            "{}.",
            "**{}**",
            "Sure!\n\n{}\n\nBye.",
            "JSON: {}",
            "**Answer:** {}",
            "### Final answer\n\n{}",
            "Here you are:\n```json\n{}\n```\nAnything else?",
            "Here is the JSON object that you asked for: {}",
            "Certainly! Here's the extracted data in JSON format:\n\n```json\n{}\n```\n\n\
             Let me know if you need anything else!",
            "Here is the shipping address of the customer:\n{}",
            "Sure, here is the order of 12 March:\n```\n{}\n```",
            "The answer is {}.",
            "<json>{}</json>",
            "Sure: <answer>\n{}\n</answer>",
            "The mail sells pills.\nThe sender is unknown.\n\nFinal answer:\n{}",
            "Let's see. It is not ham, and might be spam.\n\n**Output:**\n```json\n{}\n```",
            "Hier ist das Ergebnis:\n{}",
            "Voici la réponse :\n{}",
            "答案：{}",
            "\u{feff}{}",
            "Based on the review, here is the rating:\n{}",
            "Here's a JSON object with the extracted fields:\n\n{}",
            "I've extracted the following information:\n{}",
            "The details are as follows: {}",
            "Here are 3 items:\n{}",
        ] {
            assert!(is_meant(text), "{text}");
        }
    }

    #[test]
    fn a_value_of_which_the_text_may_say_anything_is_none() {
        for text in [
            "{}</think>",
            "{}</think>I cannot answer.",
            "Sorry, {} is invalid.",
            "{} <- wrong",
            "{} is what a naive model would say. It is wrong.",
            "For example, {} would be the format, but I cannot answer.",
            "I cannot comply. A sample of the format: {}",
            "I cannot comply.\n\nOutput: {}",
            "{} (Edit: should say Paris)",
            "{} Edit: ignore the previous line.",
            "Output: {} Explanation: London is not the answer; Paris is.",
            "If you asked about the UK: {}. For France I do not know.",
            "{} Please replace London with Paris.",
            "Please return something like {}",
            "The schema is {}; the answer is Paris.",
            "The schema is: {}",
            "Here is the schema: {}",
            "Here is the wrong answer: {}",
            "Here is the answer that a naive model would give: {}",
            "~~{}~~",
            "/* {} */",
            "// {}",
            "<!-- {} -->",
            "<wrong>{}</wrong>",
            "{} P.S. that was a test, do not use.",
            "{} aber das ist falsch",
            "{} c'est faux",
            "{} es incorrecta",
            "{} これは間違いです",
            "{}这是错误的",
            "Falsch wäre: {}",
            "Ce n'est pas la réponse : {}",
            "{} Thanks, but London is wrong.",
            "{} Thanks, Paris.",
            "Input: {}",
            "{} Let me know if you need the right answer: Paris.",
            "Wait. {}",
            "{}?",
            "Q: {}",
            "Based on a mistake, here is the answer: {}",
            "Here is a JSON answer that nobody should give: {}",
        ] {
            assert!(!is_meant(text), "{text}");
        }
    }
}
