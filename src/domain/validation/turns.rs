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

/// So many turns of the model may begin before its answer does.
const MOST_OPENINGS: usize = 8;

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
    // Every mark has one of these signs; a talk has sides, which stand at the beginning of a line. Most texts have no
    // signs, and are not searched for each mark.
    let may_have_marks = has_sign(text, |byte| matches!(byte, b'<' | b']' | b'_'));
    if !(may_have_marks || has_sign(text, |byte| byte == b'\n') && has_sign(text, |byte| byte == b':')) {
        return None;
    }
    // Channels have ends of their own.
    if text.contains(CHANNEL) {
        return None;
    }
    let looked = text.get(..text.floor_char_boundary(text.len().min(LOOKED_AT))).unwrap_or_default();
    let signs = ["<|", "<\u{ff5c}", "INST]", "</s>", "_of_turn>"];
    if may_have_marks
        && signs.iter().any(|sign| looked.contains(sign))
        && let Some(found) = of_marks(text, looked)
        && !speaks_of(request, ABOUT_MARKS)
    {
        return Some(found);
    }
    talk(looked).filter(|_| !speaks_of(request, ABOUT_TALKS)).map(TurnMarks::Within)
}

/// Whether a text has a byte like this. In chunks, because the comparison of all bytes of one takes a few instructions.
fn has_sign(text: &str, is_sign: impl Fn(u8) -> bool) -> bool {
    text.as_bytes().chunks(64).any(|chunk| chunk.iter().fold(false, |has, byte| has | is_sign(*byte)))
}

/// A place at which a mark stands.
type Place = (usize, &'static str, Mark);

/// The places of all marks, in their order. Of two marks at the same place the longer one is meant, which comes first
/// in the list, and so it does here.
fn places(text: &str) -> Vec<Place> {
    let of = |(name, mark): &(&'static str, Mark)| {
        let (name, mark) = (*name, *mark);
        text.match_indices(name).take(MOST_MARKS).map(move |(at, _)| (at, name, mark))
    };
    let mut places: Vec<Place> = MARKS.iter().flat_map(of).collect();
    places.sort_by_key(|(at, ..)| *at);
    places
}

/// What lies before a place in a text, found on one walk through it: nothing is looked at twice, however many marks
/// there are.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    line_begins: usize,
    /// Whether the line has something to see so far.
    is_line_empty: bool,
    /// Backticks on the line so far.
    ticks: usize,
    /// Lines so far that begin or end a block of code.
    fences: usize,
    /// Whether all that has come is white.
    is_white: bool,
    has_struck: bool,
}

impl<'a> Walk<'a> {
    /// A walk that begins there, as if the text did.
    fn from(text: &'a str, at: usize) -> Self {
        Self { text, at, line_begins: at, is_line_empty: true, ticks: 0, fences: 0, is_white: true, has_struck: false }
    }

    /// Goes on to a place, which is no earlier than the last one and is not within a fence.
    fn go_to(&mut self, place: usize) {
        let from = self.at.min(place);
        for (at, letter) in self.text.get(from..place).unwrap_or_default().char_indices() {
            let at = from.saturating_add(at);
            let starts = |sign| self.text.get(at..).is_some_and(|rest| rest.starts_with(sign));
            if letter == '\n' {
                (self.line_begins, self.is_line_empty, self.ticks) = (at.saturating_add(1), true, 0);
                continue;
            }
            if letter.is_whitespace() {
                continue;
            }
            self.fences = self.fences.saturating_add(usize::from(self.is_line_empty && starts("```")));
            self.ticks = self.ticks.saturating_add(usize::from(letter == '`'));
            self.has_struck |= starts("<s>");
            (self.is_line_empty, self.is_white) = (false, false);
        }
        self.at = place.max(self.at);
    }

    fn is_in_block(&self) -> bool {
        self.fences % 2 == 1
    }

    fn line(&self) -> &'a str {
        self.text.get(self.line_begins..self.at).unwrap_or_default()
    }
}

/// A line that is no longer than this is read to its end.
const LINE_LOOKED_AT: usize = 64;

/// What stands on a line, without the white at its ends; `None`: too much to be a role.
fn role_on(line: &str) -> Option<&str> {
    let head = line.get(..line.floor_char_boundary(line.len().min(LINE_LOOKED_AT))).unwrap_or_default();
    let rest = line.get(head.len()..).unwrap_or_default();
    let role = head.trim();
    let may_be_one = role.len() < LINE_LOOKED_AT / 2 && rest.chars().all(char::is_whitespace);
    may_be_one.then_some(role)
}

/// Whether a mark does at the place of the walk what it does in a template, and is not just named.
fn is_meant(walk: &Walk<'_>, name: &str, mark: Mark) -> bool {
    let (text, at) = (walk.text, walk.at);
    let before = text.get(..at).unwrap_or_default();
    let after = text.get(at.saturating_add(name.len())..).unwrap_or_default();
    let line = walk.line();
    let is_quoted =
        before.ends_with(['`', '"', '\'', '“', '‘', '«', '(']) || after.starts_with(['`', '"', '\'', '”', '’', '»']);
    let is_in_code = walk.ticks % 2 == 1 || walk.is_in_block();
    // `<s>…</s>` strikes a text out.
    let is_struck = name == "</s>" && walk.has_struck;
    if is_quoted || is_in_code || is_struck {
        return false;
    }
    let rest_of_line = after.split('\n').next().unwrap_or_default();
    let is_white = |text: &str| text.chars().all(char::is_whitespace);
    let is_at_end = is_white(rest_of_line);
    let is_glued = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace());
    let next_mark = trimmed_start(after);
    let leads_on = MARKS.iter().any(|(name, _)| next_mark.starts_with(name)) || is_white(after);
    let ends_sentence = trimmed_end(line).is_empty()
        || trimmed_end(line).ends_with(['.', '!', '?', '。', '！', '？', '}', ']', '"', ')']);
    match mark {
        Mark::Ends => {
            leads_on
                || (is_at_end && !walk.is_line_empty)
                || (is_glued(before.chars().next_back()) && is_glued(after.chars().next()) && ends_sentence)
        }
        // The role, or nothing more, stands on the line of its mark.
        Mark::BeginsOther | Mark::BeginsOwn => {
            let is_one = |role: &str| {
                role.is_empty() || ROLES.contains(&role) || ["tool", "ipython", "developer"].contains(&role)
            };
            let is_role = role_on(rest_of_line).is_some_and(|role| is_one(role.trim_end_matches("<|end_header_id|>")));
            is_role && !after.is_empty()
                || (ends_sentence && is_glued(after.chars().next()) && is_glued(before.chars().next_back()))
                || (name == "[INST]" && ends_sentence && !walk.is_white)
        }
        Mark::Answers => ends_sentence || is_glued(before.chars().next_back()),
    }
}

/// What the first mark that ends or begins a turn where it stands makes of the text; `None`: there is none.
fn of_marks<'a>(text: &'a str, looked: &'a str) -> Option<TurnMarks<'a>> {
    let mut walk = Walk::from(looked, 0);
    let mut begins = 0;
    let mut openings = 0;
    for (at, name, mark) in places(looked) {
        // Within a mark that was passed.
        if at < begins {
            continue;
        }
        walk.go_to(at);
        if !is_meant(&walk, name, mark) {
            continue;
        }
        let before = text.get(begins..at).unwrap_or_default();
        let behind = at.saturating_add(name.len());
        let after = text.get(behind..).unwrap_or_default();
        let is_first = !before.chars().any(is_visible);
        match mark {
            // Its own turn begins with the answer.
            Mark::BeginsOwn if is_first && openings < MOST_OPENINGS => {
                openings = openings.saturating_add(1);
                begins = behind;
                walk = Walk::from(looked, begins);
            }
            Mark::BeginsOther if !is_first => return Some(TurnMarks::Around(trimmed(before))),
            Mark::Ends if !is_first && another_turn_begins(after) => return Some(TurnMarks::Around(trimmed(before))),
            Mark::Ends | Mark::BeginsOther | Mark::BeginsOwn | Mark::Answers => return Some(TurnMarks::Within(name)),
        }
    }
    (openings > 0).then(|| TurnMarks::Around(trimmed(text.get(begins..).unwrap_or_default())))
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
            let mut walk = Walk::from(rest, 0);
            rest.match_indices(side).map(|(at, _)| at).take(MOST_MARKS).find(|at| {
                walk.go_to(*at);
                *at > 0 && walk.line_begins == *at && !walk.is_in_block()
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

    /// Every one of these used to look at the megabyte before each of its marks, or once for each mark.
    #[test]
    fn a_megabyte_of_marks_is_walked_through_once() {
        for piece in [
            "<|im_start|>assistant\n",
            "```\n",
            "` <|im_end|>",
            "<s></s>",
            " ",
            "Human: \n",
            "a <|im_end|> b",
            "[INST]",
        ] {
            let text = piece.repeat((1 << 20) / piece.len());
            for text in [text.clone(), format!("<|im_end|><|user|>{text}<|im_end|>\nHuman: "), format!("a\n{text}")] {
                let _ = find(&text, &request("Where?"));
                let mut walk = Walk::from(&text, 0);
                let places = places(&text);
                assert!(places.len() <= MARKS.len() * MOST_MARKS);
                let mut last = 0;
                for (at, ..) in places {
                    assert!(at >= last && walk.at == last, "never back");
                    walk.go_to(at);
                    last = at;
                }
            }
        }
        let openings = "<|im_start|>assistant\n".repeat(40_000);
        assert_eq!(find(&openings, &request("Where?")), Some(TurnMarks::Within("<|im_start|>assistant")));
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_a_look_at_all_of_the_text_before_a_place_does(
            pieces in prop::collection::vec("a|`|```|\n| |<s>|ß|\u{2003}|<\\|im_end\\|>", 0..20),
        ) {
            let text = pieces.concat();
            let mut walk = Walk::from(&text, 0);
            for (at, _) in text.match_indices("<|im_end|>") {
                walk.go_to(at);
                let before = &text[..at];
                let line = before.rsplit('\n').next().unwrap();
                prop_assert_eq!(walk.line(), line);
                prop_assert_eq!(walk.is_line_empty, line.trim().is_empty());
                prop_assert_eq!(walk.ticks, line.matches('`').count());
                let fences = before.lines().filter(|line| line.trim_start().starts_with("```")).count();
                prop_assert_eq!(walk.fences, fences);
                prop_assert_eq!(walk.is_white, before.trim().is_empty());
                prop_assert_eq!(walk.has_struck, before.contains("<s>"));
            }
        }

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
