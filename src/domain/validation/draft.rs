//! Reasoning that was left in the text of an answer.
//!
//! A draft is not an answer: the words of a model to itself before it answers are cut off, and the rest is judged. Only
//! text before the answer is a draft; a text that mentions `<think>` in its middle is left alone.

use serde::de::IgnoredAny;
use std::cell::LazyCell;

/// The text before an answer, and the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// The words of the model to itself.
    pub draft: String,
    /// The words of the model to its user; empty when it never came to that.
    pub answer: &'a str,
}

/// Tags in which models think aloud unasked, in small letters, by the pair that opens and closes. A tag that the
/// request mentions is a matter of the answer.
const TAGS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<antthinking>", "</antthinking>"),
    ("<ant_thinking>", "</ant_thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|think|>", "<|/think|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>", "<unused95>"),
];

/// Further tags in which a text with JSON in it can hold a draft. Elsewhere they are a form that the request asked for.
const TAGS_BESIDE_JSON: &[(&str, &str)] = &[
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<internal_reasoning>", "</internal_reasoning>"),
    ("<chain_of_thought>", "</chain_of_thought>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<reflection>", "</reflection>"),
    ("<planning>", "</planning>"),
    ("<reason>", "</reason>"),
];

/// Marks of the answer itself that the same models write around it.
const FRAMES: &[(&str, &str)] =
    &[("<|begin_of_solution|>", "<|end_of_solution|>"), ("<|start_response|>", "<|end_response|>")];

/// Marks by which models end their turn, which some servers leave in the text.
const ENDINGS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|eot|>",
    "<|user|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<｜end▁of▁sentence｜>",
];

/// Marks by which a turn of the model begins, with which some templates leave it alone.
const BEGINNINGS: &[&str] = &[
    "<|im_start|>assistant",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<start_of_turn>model",
    "<|assistant|>",
    "assistant\n",
];

/// A text without the marks that end it; `mentions` says whether the request mentions a mark.
pub(super) fn without_endings<'a>(text: &'a str, mentions: &dyn Fn(&str) -> bool) -> &'a str {
    let mut rest = text;
    for _ in 0..MOST_PIECES {
        let bare = super::trimmed_end(rest);
        let found = ENDINGS.iter().find_map(|ending| Some((ending, bare.strip_suffix(*ending)?)));
        let Some((ending, shorter)) = found else { break };
        // `</s>` may close struck-out text, a text may mention a mark, and channels have ends of their own.
        let is_struck = *ending == "</s>" && shorter.contains("<s>");
        let is_kept = is_struck || shorter.ends_with(['`', '"', '\'', '“']) || shorter.contains(CHANNEL);
        if is_kept || mentions(ending) {
            break;
        }
        rest = shorter;
    }
    rest
}

/// Splits a text; `None` when all of it is the answer. `is_json`: the answer has to be JSON. `mentions` says whether
/// the request mentions a tag.
pub(super) fn split<'a>(text: &'a str, is_json: bool, mentions: &dyn Fn(&str) -> bool) -> Option<Split<'a>> {
    if !may_have_tags(text) {
        return bare_harmony(text).or_else(|| announced(text));
    }
    let more = if is_json { TAGS_BESIDE_JSON } else { &[] };
    let tags = || TAGS.iter().chain(more);
    // JSON is never a draft; elsewhere tags that the request asked for belong to the answer.
    let is_asked_for = |open: &str, close: &str| !is_json && (mentions(open) || mentions(close));
    let marked = harmony(text).filter(|_| !is_asked_for(CHANNEL, CHANNEL));
    if let Some(split) = marked.or_else(|| bare_harmony(text)).or_else(|| announced(text)) {
        return Some(split);
    }
    let mut drafts: Vec<&str> = Vec::new();
    let mut rest = without_beginning(text, TAGS);
    // Some models think several times before they answer.
    loop {
        let start = super::trimmed_start(rest);
        let found = tags().find_map(|(open, close)| Some((after_open(start, open)?, open, close)));
        let Some((inside, open, close)) = found else { break };
        // A draft without an end never came to an answer.
        let (end, after) = end_of(inside, open, close);
        if is_asked_for(open, close) || (!is_json && is_mention(inside, end, after)) {
            break;
        }
        drafts.push(inside.get(..end).unwrap_or_default());
        rest = inside.get(after..).unwrap_or_default();
    }
    // Templates put the opening tag into the prompt, so that only the closing one is in the answer.
    let is_value =
        || text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text.trim()).is_ok();
    let signs = LazyCell::new(|| signs(text));
    let is_there = |tag: &str| signs.iter().any(|at| is_at(text, *at, tag));
    if drafts.is_empty()
        && !is_value()
        && let Some((at, length)) = tags()
            .filter(|(_, close)| is_there(close))
            .filter_map(|(open, close)| Some((orphan(text, close, is_json)?, open, close)))
            .filter(|(_, open, close)| !is_asked_for(open, close))
            .map(|(found, ..)| found)
            .max()
    {
        drafts.push(text.get(..at).unwrap_or_default());
        rest = text.get(at.saturating_add(length)..).unwrap_or_default();
    }
    if drafts.is_empty() {
        return None;
    }
    let draft =
        drafts.iter().map(|draft| draft.trim()).filter(|draft| !draft.is_empty()).collect::<Vec<_>>().join("\n\n");
    Some(Split { draft, answer: unframed(super::trimmed(rest)) })
}

/// Whether a text has one of the signs with which all tags and marks begin, or what looks like one: the second byte of
/// `◁`. Most texts have none, so that nothing has to be looked for in them.
fn may_have_tags(text: &str) -> bool {
    // In chunks, because the comparison of all bytes of one takes a few instructions.
    let has_sign = |chunk: &[u8]| chunk.iter().fold(false, |has, byte| has | matches!(byte, b'<' | b'[' | 0x97));
    text.as_bytes().chunks(64).any(has_sign)
}

/// The places at which tags may begin. There are few of them and two dozens of tags, so the text is gone through once
/// for all.
fn signs(text: &str) -> Vec<usize> {
    text.match_indices(['<', '[', '◁']).map(|(at, _)| at).collect()
}

/// Whether a tag stands there, in any case.
fn is_at(text: &str, at: usize, tag: &str) -> bool {
    let found = text.as_bytes().get(at..at.saturating_add(tag.len()));
    found.is_some_and(|found| found.eq_ignore_ascii_case(tag.as_bytes()))
}

/// The tags of drafts that a text holds anywhere.
pub(super) fn tags_in(text: &str) -> Vec<&'static (&'static str, &'static str)> {
    TAGS.iter().chain(TAGS_BESIDE_JSON).filter(|(open, _)| find_tag(text, open).is_some()).collect()
}

/// Whether the text after this one lies in a draft that one of these tags has opened.
pub(super) fn is_open(before: &str, tags: &[&(&str, &str)]) -> bool {
    tags.iter().any(|(open, close)| {
        let opened = places(before, open).next_back();
        opened.is_some_and(|at| find_tag(before.get(at..).unwrap_or_default(), close).is_none())
    })
}

/// The text after the last draft in one of these tags.
pub(super) fn after_drafts<'a>(text: &'a str, tags: &[&(&str, &str)]) -> &'a str {
    let ends =
        tags.iter().filter_map(|(_, close)| places(text, close).next_back().map(|at| at.saturating_add(close.len())));
    ends.max().and_then(|end| text.get(end..)).unwrap_or(text)
}

/// Where a draft ends, and where the text after it begins. A draft may hold another one.
fn end_of(inside: &str, open: &str, close: &str) -> (usize, usize) {
    let Some((mut end, length)) = find_tag(inside, close) else { return (inside.len(), inside.len()) };
    let mut opened = places(inside.get(..end).unwrap_or_default(), open).take(MOST_PIECES).count();
    while opened > 0 {
        let from = end.saturating_add(length);
        let Some((at, _)) = inside.get(from..).and_then(|rest| find_tag(rest, close)) else { break };
        let between = inside.get(from..from.saturating_add(at)).unwrap_or_default();
        opened = opened.saturating_add(places(between, open).count()).saturating_sub(1);
        end = from.saturating_add(at);
    }
    (end, end.saturating_add(length))
}

/// Whether a text that begins with a tag only mentions it: the sentence goes on behind it, and behind the closing tag.
fn is_mention(inside: &str, end: usize, after: usize) -> bool {
    const GOING_ON: &[&str] = &[
        "is", "are", "was", "and", "or", "tag", "tags", "token", "tokens", "block", "blocks", "opens", "marks",
        "starts", "begins", "means", "denotes", "element", "elements", "sections",
    ];
    let thought = inside.get(..end).unwrap_or_default();
    let rest = inside.get(after..).unwrap_or_default();
    let goes_on = |text: &str| text.strip_prefix(' ').is_some_and(|text| text.starts_with(char::is_lowercase));
    let word = thought.strip_prefix(' ').and_then(|thought| thought.split(|c: char| !c.is_alphanumeric()).next());
    let is_of_tag = word.is_some_and(|word| GOING_ON.contains(&word));
    let is_inline = !thought.contains('\n') && !thought.trim_end().ends_with(['.', '!', '?', '。']);
    is_of_tag || (goes_on(thought) && is_inline && goes_on(rest))
}

/// The text without the mark that begins a turn, where a draft or a mark follows.
fn without_beginning<'a>(text: &'a str, tags: &[(&str, &str)]) -> &'a str {
    let start = super::trimmed_start(text);
    let rest = BEGINNINGS.iter().find_map(|beginning| start.strip_prefix(beginning)).map(super::trimmed_start);
    rest.filter(|rest| tags.iter().any(|(open, _)| after_open(rest, open).is_some())).unwrap_or(text)
}

/// Splits off a draft by the frame that Ollama's command line writes around it.
fn announced(text: &str) -> Option<Split<'_>> {
    const DONE: &str = "...done thinking.";
    let inside = super::trimmed_start(text).strip_prefix("Thinking...\n")?;
    let at = inside.find(DONE).filter(|at| inside.get(..*at).is_some_and(|before| before.ends_with('\n')))?;
    Some(Split {
        draft: inside.get(..at).unwrap_or_default().trim().to_owned(),
        answer: super::trimmed(inside.get(at.saturating_add(DONE.len())..).unwrap_or_default()),
    })
}

/// The text after an opening tag at the beginning. The tag may carry attributes.
fn after_open<'a>(text: &'a str, open: &str) -> Option<&'a str> {
    let name = open.strip_suffix('>').filter(|_| !open.ends_with("|>")).unwrap_or(open);
    let head = text.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name))?;
    let rest = text.get(head.len()..)?;
    if name.len() == open.len() {
        return Some(rest);
    }
    let end = rest.find('>')?;
    let attributes = rest.get(..end)?;
    let are_plain =
        attributes.is_empty() || (attributes.starts_with(char::is_whitespace) && !attributes.contains(['<', '\n']));
    are_plain.then(|| rest.get(end.saturating_add(1)..)).flatten()
}

/// The first place of a tag, in any case, and its length.
fn find_tag(text: &str, tag: &str) -> Option<(usize, usize)> {
    places(text, tag).next().map(|at| (at, tag.len()))
}

/// Every place of a tag.
fn places<'a>(text: &'a str, tag: &'a str) -> impl DoubleEndedIterator<Item = usize> + 'a {
    let first = tag.chars().next().unwrap_or('<');
    text.match_indices(first).map(|(at, _)| at).filter(move |&at| is_at(text, at, tag))
}

/// The last closing tag that nothing has opened and that ends a thought: one that stands by itself, or behind a
/// sentence. A tag that a sentence mentions does not end one, nor does a tag in a JSON value.
fn orphan(text: &str, close: &str, is_json: bool) -> Option<(usize, usize)> {
    let ends_a_thought = |at: &usize| {
        let before = text.get(..*at).unwrap_or_default();
        let after = text.get(at.saturating_add(close.len())..).unwrap_or_default();
        // The draft that it closes would have been opened in the middle.
        let name = close.trim_start_matches(['<', '[', '◁', '/']).trim_end_matches(['>', ']', '▷']);
        if places(before, name).any(|at| before.get(..at).is_some_and(|before| before.ends_with(['<', '[', '◁']))) {
            return false;
        }
        let is_quoted = before.ends_with(['`', '"', '\'', '“', '‘']) && after.starts_with(['`', '"', '\'', '”', '’']);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let by_itself = line.trim().is_empty();
        let ends_line = after.is_empty() || after.starts_with(['\n', '\r']);
        // A sentence that mentions a tag does not end with it and end the paragraph too.
        let ends_paragraph = ["\n\n", "\r\n\r\n"].iter().any(|gap| after.starts_with(gap));
        let ends_draft = is_json && (ends_line || before.trim_end().ends_with(['}', ']', '`']));
        let behind_sentence =
            before.trim_end().ends_with(['.', '!', '?', ':', '…', ')', '"', '”', '。', '！', '？', '」']);
        let before_answer = after.trim_start().starts_with(|c: char| !c.is_lowercase());
        let before_json = is_json && after.trim_start().starts_with(['{', '[', '`']);
        !is_quoted
            && !is_fenced(before)
            && (by_itself
                || before_json
                || ends_paragraph
                || ends_draft
                || (behind_sentence && (ends_line || before_answer)))
    };
    places(text, close).rev().take(MOST_PIECES).find(ends_a_thought).map(|at| (at, close.len()))
}

/// Whether a text ends within a block of code.
fn is_fenced(before: &str) -> bool {
    before.lines().filter(|line| line.trim_start().starts_with("```")).count() % 2 == 1
}

fn unframed(answer: &str) -> &str {
    for (open, close) in FRAMES {
        if let Some(inside) = after_open(answer, open) {
            let end = find_tag(inside, close).map_or(inside.len(), |(at, _)| at);
            return super::trimmed(inside.get(..end).unwrap_or_default());
        }
    }
    answer
}

/// How many channels, and how many closing tags, are looked at: a text of nothing else must not cost the square of its
/// length.
const MOST_PIECES: usize = 64;

pub(super) const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const ENDS: &[&str] = &["<|end|>", "<|return|>", "<|call|>", "<|start|>", CHANNEL];

/// The channels of OpenAI's open models: `<|channel|>analysis<|message|>…<|end|>`, and the answer in the one called
/// final.
fn harmony(text: &str) -> Option<Split<'_>> {
    let start = super::trimmed_start(text);
    let is_framed = start.starts_with(CHANNEL) || start.starts_with("<|start|>") || start.starts_with(MESSAGE);
    // The first mark may have been in the prompt.
    let goes_over = || {
        [
            "<|end|><|start|>assistant<|channel|>",
            "<|start|>assistant<|channel|>final",
            "<|end|>\n<|start|>assistant<|channel|>",
        ]
        .iter()
        .any(|mark| places(text, mark).any(|at| !text.get(..at).is_some_and(|before| before.ends_with('`'))))
    };
    if !is_framed && !goes_over() {
        return None;
    }
    let mut drafts = Vec::new();
    let mut answer = None;
    let first = text.find(CHANNEL).unwrap_or(0);
    drafts.push(unmarked(text.get(..first).unwrap_or_default()));
    let mut rest = text.get(first..).unwrap_or_default();
    for _ in 0..MOST_PIECES {
        let Some(at) = rest.find(CHANNEL) else { break };
        let piece = rest.get(at.saturating_add(CHANNEL.len())..).unwrap_or_default();
        let Some((name, body)) = piece.split_once(MESSAGE) else {
            drafts.push(piece);
            rest = "";
            break;
        };
        let end = ENDS.iter().filter_map(|end| body.find(end)).min().unwrap_or(body.len());
        let said = super::trimmed(body.get(..end).unwrap_or_default());
        if name.trim_start().starts_with("final") {
            answer = Some(said);
        } else {
            drafts.push(said);
        }
        rest = body.get(end..).unwrap_or_default();
    }
    if rest.len() == text.len() {
        // `<|message|>` alone: no channel was named.
        return text.split_once(MESSAGE).map(|(_, body)| {
            let end = ENDS.iter().filter_map(|end| body.find(end)).min().unwrap_or(body.len());
            Split { draft: String::new(), answer: super::trimmed(body.get(..end).unwrap_or_default()) }
        });
    }
    let draft =
        drafts.iter().map(|draft| draft.trim()).filter(|draft| !draft.is_empty()).collect::<Vec<_>>().join("\n\n");
    Some(Split { draft, answer: answer.unwrap_or_default() })
}

/// The piece without the marks around it.
fn unmarked(piece: &str) -> &str {
    let mut piece = piece.trim();
    for mark in ["<|start|>assistant", "<|start|>", "<|end|>"] {
        piece = piece.strip_suffix(mark).unwrap_or(piece).trim();
    }
    piece
}

/// The same channels after a server has taken the marks off and left the words: `analysisThe user wants
/// …assistantfinal4`.
fn bare_harmony(text: &str) -> Option<Split<'_>> {
    const FINAL: &str = "assistantfinal";
    let inside = text.trim_start().strip_prefix("analysis")?;
    if !inside.starts_with(char::is_uppercase) {
        return None;
    }
    Some(match inside.rfind(FINAL) {
        Some(at) => Split {
            draft: inside.get(..at).unwrap_or_default().trim().to_owned(),
            answer: super::trimmed(inside.get(at.saturating_add(FINAL.len())..).unwrap_or_default()),
        },
        None => Split { draft: inside.trim().to_owned(), answer: "" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request that mentions no tag.
    const NOTHING: &dyn Fn(&str) -> bool = &|_| false;

    #[test]
    fn reasoning_before_an_answer_is_told_from_it() {
        for (text, draft, answer) in [
            ("<think>Hmm.</think>Yes", "Hmm.", "Yes"),
            ("\n<think>\nHmm.\n</think>\n\nYes\n", "Hmm.", "Yes"),
            ("<THINK>Hmm.</Think> Yes", "Hmm.", "Yes"),
            ("<think time=\"3\">Hmm.</think>Yes", "Hmm.", "Yes"),
            ("<think></think>Yes", "", "Yes"),
            ("<think>a</think><think>b</think>Yes", "a\n\nb", "Yes"),
            ("<think>Hmm.</think>", "Hmm.", ""),
            ("<think>Hmm, and then", "Hmm, and then", ""),
            ("<thinking>Hmm.</thinking>Yes", "Hmm.", "Yes"),
            ("[THINK]Hmm.[/THINK]Yes", "Hmm.", "Yes"),
            ("◁think▷Hmm.◁/think▷Yes", "Hmm.", "Yes"),
            ("<seed:think>Hmm.</seed:think>Yes", "Hmm.", "Yes"),
            ("<think>a <think>b</think> c</think>Yes", "a <think>b</think> c", "Yes"),
            ("<think>I use <think> tags.</think>Yes", "I use <think> tags.", "Yes"),
            ("<think>hm, is it so</think>Yes", "hm, is it so", "Yes"),
            ("assistant\n<think>\nHmm.\n</think>\nYes", "Hmm.", "Yes"),
            ("<|im_start|>assistant\n<think>Hmm.</think>Yes", "Hmm.", "Yes"),
            ("Thinking...\nHmm.\n...done thinking.\n\nYes", "Hmm.", "Yes"),
            ("So it is Paris</think>\n\nYes", "So it is Paris", "Yes"),
            ("所以是巴黎</think>\n\nYes", "所以是巴黎", "Yes"),
            ("It is \"Paris\"</think>\n\nYes", "It is \"Paris\"", "Yes"),
            ("It is `Paris`</think>\r\n\r\nYes", "It is `Paris`", "Yes"),
            ("Paris 🎉</think>\n\nYes", "Paris 🎉", "Yes"),
            ("<|START_THINKING|>Hmm.<|END_THINKING|><|START_RESPONSE|>Yes<|END_RESPONSE|>", "Hmm.", "Yes"),
            ("<|begin_of_thought|>Hmm.<|end_of_thought|>\n<|begin_of_solution|>Yes<|end_of_solution|>", "Hmm.", "Yes"),
            ("<|channel>thought\nHmm.<channel|>Yes", "Hmm.", "Yes"),
            ("Okay, the user asks.\n</think>\n\nYes", "Okay, the user asks.", "Yes"),
            ("Okay, the user asks. </think> Yes", "Okay, the user asks.", "Yes"),
            ("Okay, the user asks.[/THINK]Yes", "Okay, the user asks.", "Yes"),
            ("</think>Yes", "", "Yes"),
            ("Okay.\n</think>", "Okay.", ""),
            (
                "<|channel|>analysis<|message|>Hmm.<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>",
                "Hmm.",
                "Yes",
            ),
            ("<|channel|>final<|message|>Yes", "", "Yes"),
            ("<|start|>assistant<|channel|>analysis<|message|>Hmm.<|end|>", "Hmm.", ""),
            ("<|channel|>analysis<|message|>Hmm, and", "Hmm, and", ""),
            (
                "<|channel|>analysis<|message|>Hmm.<|channel|>final <|constrain|>json<|message|>{}<|return|>",
                "Hmm.",
                "{}",
            ),
            ("Hmm.<|end|><|start|>assistant<|channel|>final<|message|>Yes", "Hmm.", "Yes"),
            ("<|channel|>commentary to=functions.f<|message|>{\"a\":1}<|call|>", "{\"a\":1}", ""),
            ("analysisThe user asks.assistantfinalYes", "The user asks.", "Yes"),
            ("analysisWe need to", "We need to", ""),
        ] {
            let expected = Split { draft: draft.to_owned(), answer };
            assert_eq!(split(text, false, NOTHING), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_only_speaks_of_such_a_tag_is_left_alone() {
        for text in [
            "Yes",
            "",
            "Models write <think> before they answer.",
            "Use </think> to close the block.",
            "Close it with `</think>`.\nThen answer.",
            "The tag is \"</think>\".",
            "```\n<think>\nHmm.\n</think>\n```\nThat is how it looks.",
            "Write:\n\n<think>Hmm.</think>\n\nand then the answer.",
            "<thinker>Rodin</thinker>",
            "<analysis>It rose by 3 %.</analysis>",
            "<reasoning>It rose.</reasoning><label>up</label>",
            "<thought>Be kind.</thought>",
            "[THINK] is Magistral's opening tag and [/THINK] its closing tag.",
            "<think> opens the block that the parser skips.",
            "<think> blocks are skipped:\n\n<think>Hmm.</think>",
            "Thinking... is what it says.",
            "assistant\nis the role",
            "[thinking about it] Yes",
            "analysis of the data shows",
            "analysis",
            "The channel is named `<|channel|>final<|message|>`.",
            "<p>A think piece</p>",
        ] {
            assert_eq!(split(text, false, NOTHING), None, "{text}");
        }
    }

    #[test]
    fn beside_json_more_is_a_draft() {
        for (text, answer) in [
            ("<analysis>Maybe {\"a\": 1}?</analysis>{\"a\": 2}", "{\"a\": 2}"),
            ("<scratchpad>Maybe {\"a\": 1}", ""),
            ("<reasoning>Maybe {\"a\": 1}?</reasoning>{\"a\": 2}", "{\"a\": 2}"),
            ("{\"a\": 1}</think>", ""),
            ("{\"a\": 1}</think>I cannot answer.", "I cannot answer."),
            ("```json\n{\"a\": 1}\n```</think>no", "no"),
            ("it is a list</think>{\"a\": 2}", "{\"a\": 2}"),
            ("it is a list</think>\n```json\n{\"a\": 2}\n```", "```json\n{\"a\": 2}\n```"),
        ] {
            assert_eq!(split(text, true, NOTHING).map(|split| split.answer), Some(answer), "{text}");
        }
        assert_eq!(split("Here: {\"a\": \"close with </think> and\"}", true, NOTHING), None);
    }

    #[test]
    fn what_the_request_speaks_of_is_no_draft() {
        let think = |tag: &str| tag == "<think>";
        assert_eq!(split("<think>Hallo</think> Welt", false, &think), None);
        assert_eq!(split("Hallo.</think> Welt", false, &|tag| tag == "</think>"), None);
        assert!(split("<thinking>Hallo</thinking> Welt", false, &think).is_some());
        // A draft is not JSON, even where the request mentions its tag.
        assert!(split("<think>Hallo</think> {}", true, &think).is_some());
    }

    #[test]
    fn marks_that_end_a_turn_are_no_part_of_it() {
        for (text, bare) in [
            ("Yes<|im_end|>", "Yes"),
            ("Yes.<|eot_id|>\n", "Yes."),
            ("Yes</s></s>", "Yes"),
            ("Yes\n<|im_end|>\n<|endoftext|>", "Yes\n"),
            ("<s>No</s>", "<s>No</s>"),
            ("It ends with `<|im_end|>", "It ends with `<|im_end|>"),
            ("Yes", "Yes"),
            ("Yes\n", "Yes\n"),
            ("", ""),
        ] {
            assert_eq!(without_endings(text, NOTHING), bare, "{text}");
        }
        assert_eq!(without_endings("Yes</s>", &|tag| tag == "</s>"), "Yes</s>");
    }

    #[test]
    fn a_text_of_nothing_but_marks_is_read_in_one_go() {
        for mark in
            ["</think>`", "<think></think>", "<|channel|>x<|message|>", "<think>", "assistantfinal", ". </think> x"]
        {
            let text = mark.repeat(1_000_000 / mark.len());
            let _ = split(&text, true, NOTHING);
            let _ = without_endings(&text, NOTHING);
            let _ = split(&format!("analysisA{text}"), false, NOTHING);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_into_pieces_of_itself(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "<think>", "</think>", "[THINK]", "◁think▷", "◁/think▷", "<|channel|>", "final", "analysis",
                "<|message|>", "<|end|>",
                "<|start|>assistant", "Yes. ", "\n", "{\"a\":1}", "ä", "`", "assistantfinal", "A", "<think ", ">",
            ]), 0..12),
            is_json in any::<bool>(),
        ) {
            let text = pieces.concat();
            if let Some(split) = split(&text, is_json, NOTHING) {
                prop_assert!(text.contains(split.answer));
                prop_assert!(split.answer.len() < text.len());
            }
        }

        #[test]
        fn an_answer_behind_a_draft_is_that_answer(
            draft in "[a-zA-Z .,\n{}\"?]{0,60}",
            answer in "[a-zA-Z][a-zA-Z .,]{0,30}[a-z]",
        ) {
            let text = format!("<think>{draft}</think>\n\n{answer}");
            prop_assert_eq!(split(&text, false, NOTHING).unwrap().answer, answer);
        }
    }
}
