//! Marks of turns that a model or its server left in the midst of a text: tokens of the template, and turns of both
//! sides that the model made up behind its answer.
//!
//! A model that ends its turn and goes on has given its whole answer before that, so cutting the rest off loses
//! nothing. Where a mark may stand in the midst of the answer, what is missing or too much is not known, and the answer
//! is rejected. Texts about such marks are left alone: those that quote them, those whose request speaks of them, and
//! sentences that name one in passing.

use super::draft::CHANNEL;
use super::{is_visible, trimmed, trimmed_end, trimmed_start};
use crate::domain::{ChatRequest, ContentPart};

/// What a mark does to a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The turn is over.
    Ends,
    /// A turn of another role begins.
    BeginsOther,
    /// A turn of the model begins.
    BeginsOwn,
    /// The end of the question in Mistral's and Llama 2's template: the answer begins behind it.
    Answers,
}

/// The marks in the templates of models. A mark that is the beginning of another comes after it.
const MARKS: &[(&str, Mark)] = &[
    ("<|im_end|>", Mark::Ends),
    ("<|eot_id|>", Mark::Ends),
    ("<|eom_id|>", Mark::Ends),
    ("<|eot|>", Mark::Ends),
    ("<|endoftext|>", Mark::Ends),
    ("<|end_of_text|>", Mark::Ends),
    ("<|end_of_turn|>", Mark::Ends),
    ("<|END_OF_TURN_TOKEN|>", Mark::Ends),
    ("<|im_sep|>", Mark::Ends),
    ("<|end|>", Mark::Ends),
    ("<end_of_turn>", Mark::Ends),
    ("</s>", Mark::Ends),
    ("<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>", Mark::Ends),
    ("<|im_start|>assistant", Mark::BeginsOwn),
    ("<|im_start|>", Mark::BeginsOther),
    ("<|start_header_id|>assistant<|end_header_id|>", Mark::BeginsOwn),
    ("<|start_header_id|>", Mark::BeginsOther),
    ("<start_of_turn>model", Mark::BeginsOwn),
    ("<start_of_turn>", Mark::BeginsOther),
    ("<|assistant|>", Mark::BeginsOwn),
    ("<|user|>", Mark::BeginsOther),
    ("<|system|>", Mark::BeginsOther),
    ("<|observation|>", Mark::BeginsOther),
    ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", Mark::BeginsOwn),
    ("<|START_OF_TURN_TOKEN|>", Mark::BeginsOther),
    ("<\u{ff5c}Assistant\u{ff5c}>", Mark::BeginsOwn),
    ("<\u{ff5c}User\u{ff5c}>", Mark::BeginsOther),
    ("[/INST]", Mark::Answers),
    ("[INST]", Mark::BeginsOther),
];

/// Roles that stand alone on a line after a server has taken the marks off.
const ROLES: [&str; 5] = ["user", "assistant", "system", "human", "model"];

/// The sides of a talk, as models write them that were trained on such texts.
const SIDES: [(&str, &[&str]); 2] =
    [("Human:", &["Assistant:", "AI:", "Claude:"]), ("User:", &["Assistant:", "AI:", "Bot:", "Model:"])];

/// Words of a request whose answer may well hold tokens of a template.
const ABOUT_MARKS: &[&str] = &[
    "<|",
    "inst]",
    "</s>",
    "<s>",
    "chatml",
    "template",
    "token",
    "end of turn",
    "end-of-turn",
    "end_of_turn",
    "im_end",
    "im_start",
    "eot_id",
    "fine-tun",
    "finetun",
    "system prompt",
    "jinja",
];

/// Words of a request whose answer may well be a talk.
const ABOUT_TALKS: &[&str] = &[
    "dialog",
    "conversation",
    "chat",
    "transcript",
    "interview",
    "script",
    "role-play",
    "roleplay",
    "role play",
    "user",
    "human",
    "assistant",
    "example",
    "q&a",
    "faq",
    "prompt",
];

/// So many bytes of a text are looked at.
const LOOKED_AT: usize = 1 << 20;

/// So many marks of a kind are looked at: a text about them has many.
const MOST_MARKS: usize = 32;

/// What the marks in a text make of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TurnMarks<'a> {
    /// The answer is this part of the text; the other turns are none of it.
    Around(&'a str),
    /// This mark is in the answer.
    Within(&'static str),
}

/// The turns in a text; `None`: it is one turn, as it should be.
pub(super) fn find<'a>(text: &'a str, request: &ChatRequest) -> Option<TurnMarks<'a>> {
    // Channels have ends of their own.
    if text.contains(CHANNEL) {
        return None;
    }
    let looked = text.get(..text.floor_char_boundary(text.len().min(LOOKED_AT))).unwrap_or_default();
    let may_have_marks = ["<|", "<\u{ff5c}", "INST]", "</s>", "_of_turn>"].iter().any(|sign| looked.contains(sign));
    if may_have_marks
        && let Some((at, name, mark)) = first(looked)
        && !speaks_of(request, ABOUT_MARKS)
    {
        return of_mark(text, at, name, mark);
    }
    talk(looked).filter(|_| !speaks_of(request, ABOUT_TALKS)).map(TurnMarks::Within)
}

/// The first mark that ends or begins a turn where it stands.
fn first(text: &str) -> Option<(usize, &'static str, Mark)> {
    let of = |(name, mark): &(&'static str, Mark)| {
        let places = text.match_indices(name).take(MOST_MARKS).map(|(at, _)| at);
        places.into_iter().find(|at| is_meant(text, *at, name, *mark)).map(|at| (at, *name, *mark))
    };
    // Of two marks at the same place the longer one is meant, which comes first in the list.
    MARKS.iter().filter_map(of).reduce(|best, next| if next.0 < best.0 { next } else { best })
}

/// Whether a mark does there what it does in a template, and is not just named.
fn is_meant(text: &str, at: usize, name: &str, mark: Mark) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let after = text.get(at.saturating_add(name.len())..).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_quoted =
        before.ends_with(['`', '"', '\'', '“', '‘', '«', '(']) || after.starts_with(['`', '"', '\'', '”', '’', '»']);
    let is_in_code = line.matches('`').count() % 2 == 1
        || before.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 1;
    // `<s>…</s>` strikes a text out.
    let is_struck = name == "</s>" && before.contains("<s>");
    if is_quoted || is_in_code || is_struck {
        return false;
    }
    let rest_of_line = after.split('\n').next().unwrap_or_default();
    let is_at_end = rest_of_line.trim().is_empty();
    let is_glued = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
    let next_mark = trimmed_start(after);
    let leads_on = MARKS.iter().any(|(name, _)| next_mark.starts_with(name)) || after.trim().is_empty();
    let ends_sentence = trimmed_end(line).is_empty()
        || trimmed_end(line).ends_with(['.', '!', '?', '。', '！', '？', '}', ']', '"', ')']);
    match mark {
        Mark::Ends => {
            leads_on
                || (is_at_end && !line.trim().is_empty())
                || (is_glued(before.chars().next_back()) && is_glued(after.chars().next()) && ends_sentence)
        }
        // The role, or nothing more, stands on the line of its mark.
        Mark::BeginsOther | Mark::BeginsOwn => {
            let role = rest_of_line.trim().trim_end_matches("<|end_header_id|>");
            let is_role = role.is_empty() || ROLES.contains(&role) || ["tool", "ipython", "developer"].contains(&role);
            is_role && !after.is_empty()
                || (ends_sentence && is_glued(after.chars().next()) && is_glued(before.chars().next_back()))
                || (name == "[INST]" && ends_sentence && !before.trim().is_empty())
        }
        Mark::Answers => ends_sentence || is_glued(before.chars().next_back()),
    }
}

fn of_mark<'a>(text: &'a str, at: usize, name: &'static str, mark: Mark) -> Option<TurnMarks<'a>> {
    let before = text.get(..at).unwrap_or_default();
    let after = text.get(at.saturating_add(name.len())..).unwrap_or_default();
    let is_first = !before.chars().any(is_visible);
    match mark {
        // Its own turn begins with the answer.
        Mark::BeginsOwn if is_first => match find_in(after) {
            None => Some(TurnMarks::Around(trimmed(after))),
            Some((at, name, mark)) => of_mark(after, at, name, mark),
        },
        Mark::BeginsOther if !is_first => Some(TurnMarks::Around(trimmed(before))),
        Mark::Ends if !is_first && another_turn_begins(after) => Some(TurnMarks::Around(trimmed(before))),
        Mark::Ends | Mark::BeginsOther | Mark::BeginsOwn | Mark::Answers => Some(TurnMarks::Within(name)),
    }
}

fn find_in(text: &str) -> Option<(usize, &'static str, Mark)> {
    first(text.get(..text.floor_char_boundary(text.len().min(LOOKED_AT))).unwrap_or_default())
}

/// Whether what follows the end of a turn is nothing, or another turn.
fn another_turn_begins(after: &str) -> bool {
    let after = trimmed_start(after);
    let line = after.lines().next().unwrap_or_default().trim().trim_end_matches(':').to_ascii_lowercase();
    after.is_empty()
        || is_side(after)
        || ROLES.contains(&line.as_str())
        || MARKS.iter().any(|(name, mark)| *mark != Mark::Answers && after.starts_with(name))
}

/// Whether a text begins with the name of a side.
fn is_side(text: &str) -> bool {
    SIDES.iter().any(|(ask, answers)| [ask].into_iter().chain(*answers).any(|side| text.starts_with(side)))
}

/// The side of a talk that a model made up behind its answer: a line of one side, and then one of the other.
fn talk(text: &str) -> Option<&'static str> {
    // A talk from its first line on is the answer itself.
    if is_side(trimmed_start(text)) {
        return None;
    }
    SIDES.iter().find_map(|(ask, answers)| {
        let starts = |rest: &str, side: &str| {
            rest.match_indices(side).map(|(at, _)| at).take(MOST_MARKS).find(|at| {
                let before = rest.get(..*at).unwrap_or_default();
                before.ends_with('\n')
                    && before.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 0
            })
        };
        let at = starts(text, ask)?;
        let rest = text.get(at..)?;
        answers.iter().any(|answer| starts(rest, answer).is_some()).then_some(*ask)
    })
}

/// Whether the request says one of these words.
fn speaks_of(request: &ChatRequest, words: &[&str]) -> bool {
    request.messages.iter().flat_map(|message| &message.content).any(|part| match part {
        ContentPart::Text(text) => {
            let text = text.to_ascii_lowercase();
            words.iter().any(|word| text.contains(word))
        }
        ContentPart::Image { .. } | ContentPart::File { .. } | ContentPart::Audio { .. } | ContentPart::Other(_) => {
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn request(prompt: &str) -> ChatRequest {
        ChatRequest::parse(&json!({ "prompt": prompt })).unwrap()
    }

    #[test]
    fn turns_that_the_model_made_up_are_no_part_of_its_answer() {
        for text in [
            "Paris.<|im_end|>\n<|im_start|>user\nAnd Rome?<|im_end|>\n<|im_start|>assistant\nItaly.",
            "Paris.<|im_end|><|im_end|><|im_end|>",
            "Paris.\n<|im_start|>user\nAnd Rome?",
            "Paris.<|im_start|>user\nAnd Rome?",
            "Paris.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd Rome?",
            "Paris.<|eot_id|>\nuser\nAnd Rome?",
            "Paris.<end_of_turn>\n<start_of_turn>user\nAnd Rome?",
            "Paris.</s>[INST] And Rome? [/INST] Italy.",
            "Paris. [INST] And Rome? [/INST] Italy.",
            "Paris.<|endoftext|>Human: And Rome?",
            "Paris.\n<|user|>\nAnd Rome?\n<|assistant|>\nItaly.",
            "Paris.<\u{ff5c}User\u{ff5c}>And Rome?<\u{ff5c}Assistant\u{ff5c}>Italy.",
            "<|im_start|>assistant\nParis.<|im_end|>\n<|im_start|>user\nAnd Rome?",
            "<|im_start|>assistant\nParis.",
            "<start_of_turn>model\nParis.",
        ] {
            assert_eq!(find(text, &request("Where is the Louvre?")), Some(TurnMarks::Around("Paris.")), "{text}");
        }
    }

    #[test]
    fn marks_within_an_answer_spoil_it() {
        for (text, mark) in [
            ("In Paris.<|im_end|>It stands by the river.", "<|im_end|>"),
            ("In Paris.<|im_end|>\nIt stands by the river.", "<|im_end|>"),
            ("Where is it?[/INST] In Paris.", "[/INST]"),
            ("In Paris.<|im_start|>assistant\nIn Paris.", "<|im_start|>assistant"),
            ("<|im_start|>user\nWhere is it?<|im_end|>", "<|im_start|>"),
            ("In Paris.\n\nHuman: And where is the Prado?\n\nAssistant: In Madrid.", "Human:"),
            ("In Paris.\nUser: And the Prado?\nAssistant: In Madrid.", "User:"),
        ] {
            assert_eq!(find(text, &request("Where is the Louvre?")), Some(TurnMarks::Within(mark)), "{text}");
        }
    }

    #[test]
    fn texts_about_marks_and_talks_are_left_alone() {
        for (prompt, text) in [
            ("Where?", "In Paris."),
            ("Where?", ""),
            (
                "Explain ChatML.",
                "A turn looks so:\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>",
            ),
            ("What does <|im_end|> do?", "It ends a turn.<|im_end|>\nIt is a token."),
            ("How do models stop?", "They write `<|im_end|>` and stop."),
            ("How do models stop?", "They write \"</s>\" or <|im_end|> and stop."),
            ("How do models stop?", "```\nHi<|im_end|>\n<|im_start|>user\n```\nThat is all."),
            ("How do models stop?", "- <|im_end|> ends a turn\n- <|im_start|> begins one"),
            ("How do models stop?", "| mark | use |\n| <|im_end|> | ends |"),
            ("Strike it out.", "<s>Old</s>\nNew"),
            ("Write a dialogue.", "Here it is.\nUser: Hi\nAssistant: Hello"),
            ("Where?", "User: Hi\nAssistant: Hello"),
            ("Translate.", "Sehr geehrte Damen.\nUser: das ist ein Wort."),
            ("Write code.", "```python\nprompt = '''\nHuman: hi\nAssistant:\n'''\n```"),
            ("Write code.", "if a <|b|> c then"),
            ("Which step?", "Use [INST] and [/INST] around it."),
        ] {
            assert_eq!(find(text, &request(prompt)), None, "{prompt} {text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_an_answer_is_a_part_of_it(
            pieces in prop::collection::vec(
                "Paris\\.|<\\|im_end\\|>|<\\|im_start\\|>|user|\n|\\[INST\\]|\\[/INST\\]|</s>| |`|Human:|ß",
                0..12,
            ),
        ) {
            let text = pieces.concat();
            if let Some(TurnMarks::Around(answer)) = find(&text, &request("Where?")) {
                prop_assert!(text.contains(answer) && answer.len() < text.len());
            }
        }
    }
}
