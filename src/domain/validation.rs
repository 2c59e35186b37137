//! Rules that an answer has to keep, and the verdict on it.
//!
//! HTTP's success is not the answer's: an answer may be empty, cut off, malformed or a refusal, and it is paid for all
//! the same. The demands of the request itself (JSON, a schema, its own tools) hold regardless of what the route says.
//! A repair is made only where it loses nothing: reasoning before an answer and text around JSON are taken off. Nothing
//! is ever added or guessed, and a value that the text itself takes back is not used.

mod doubt;
mod draft;
mod embedded;
mod form;
mod json_text;
pub mod own_rules;
mod phrases;
mod repetition;
mod turns;
mod written_call;

#[cfg(test)]
mod tests;

use super::{
    Answer, ChatRequest, ContentPart, Finish, ResponseFormat, Role, SoftFailure, ToolCall, UsageSource, Verdict,
};
use crate::domain::counted::counted;
use crate::domain::estimate;
use crate::domain::json_schema::{Broken, Mismatch, Schema};
use crate::domain::language::{self, TextLanguage, TextScript};
use crate::domain::larger_cap::RaiseCap;
use json_text::Found;
pub use own_rules::OwnRules;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fmt::{Display, Write};
use std::sync::Arc;
use turns::TurnMarks;

/// A route's demands on an answer. Patterns and schemas are compiled when the configuration is read.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own, switched on or off in the configuration")]
pub struct Rules {
    /// Something visible (default of the configuration: true).
    pub non_empty: bool,
    /// At least this many characters, not counting white space and invisible ones at the ends.
    pub min_chars: Option<usize>,
    /// At most this many characters, counted likewise.
    pub max_chars: Option<usize>,
    /// Must be JSON.
    pub json: bool,
    /// Must be JSON of this schema.
    pub json_schema: Option<Arc<Schema>>,
    /// Each of these has to match.
    pub required_patterns: Vec<regex::Regex>,
    /// None of these may match.
    pub forbidden_patterns: Vec<regex::Regex>,
    /// A text that reads like a refusal is a failure, if it is short and in English. A refusal that the provider marks
    /// as one always is.
    pub reject_refusals: bool,
    /// An HTML page is a failure.
    pub reject_html: bool,
    /// An answer cut at the output cap is a failure. JSON that is cut off always is.
    pub reject_truncated: bool,
    /// What the answer has to say of its end.
    pub finish: FinishRule,
    /// A text that ends in a loop of the same words is a failure.
    pub reject_repetition: bool,
    /// Tokens of the model's template in the midst of a text, and turns that it made up, are a failure, unless the
    /// answer stands whole before them.
    pub reject_control_tokens: bool,
    /// An answer to a prompt that the provider has read only in part, by its own count, is a failure.
    pub reject_cut_prompts: bool,
    /// A long text that the target has given to several other requests is a failure.
    pub reject_stuck: bool,
    /// Only an answer that the provider's content filter has looked at is taken, where there is one.
    pub only_filtered: bool,
    /// The text has to be in one of these languages; none: any.
    pub languages: Vec<TextLanguage>,
    /// The text has to be written in one of these scripts; none: any.
    pub scripts: Vec<TextScript>,
    /// Only the model that was asked may answer.
    pub only_as_asked: bool,
    /// Which answers that were cut off are asked for again with a larger output cap.
    pub raise_cap: RaiseCap,
}

/// What an answer has to say of why it ended, where that word does not mean a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinishRule {
    /// A known word.
    Known,
    /// Any word: a whole answer whose word is not known is taken, and the word noted.
    #[default]
    Said,
    /// Nothing: for servers that never say why they ended.
    Any,
}

impl Rules {
    /// The rules that hold, by their names in the configuration.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("non_empty", self.non_empty),
            ("min_chars", self.min_chars.is_some()),
            ("max_chars", self.max_chars.is_some()),
            ("json", self.json),
            ("json_schema", self.json_schema.is_some()),
            ("required_patterns", !self.required_patterns.is_empty()),
            ("forbidden_patterns", !self.forbidden_patterns.is_empty()),
            ("refusal", self.reject_refusals),
            ("html", self.reject_html),
            ("truncated", self.reject_truncated),
            ("finish", self.finish == FinishRule::Known),
            ("repetition", self.reject_repetition),
            ("control_tokens", self.reject_control_tokens),
            ("prompt_cut", self.reject_cut_prompts),
            ("stuck_answer", self.reject_stuck),
            ("filter", self.only_filtered),
            ("language", !self.languages.is_empty()),
            ("script", !self.scripts.is_empty()),
            ("served", self.only_as_asked),
        ];
        all.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect()
    }

    /// Judges an answer. `schema` is the compiled schema of the request's `response_format`, from
    /// [`ChatRequest::compile_schema`], so that it is compiled once for all attempts of a job.
    ///
    /// Rules about text do not bind an answer that only calls tools, nor vectors, which have rules of their own.
    #[must_use]
    pub fn judge(&self, answer: &Answer, request: &ChatRequest, schema: Option<&Schema>) -> Verdict {
        let mut faults = Faults::default();
        if let Some(embed) = &request.embed {
            embedded::judge(answer, embed, &mut faults);
            return faults.verdict(|| Verdict::Accepted);
        }
        let whole = answer.text.as_deref().unwrap_or_default();
        let is_json = answer.tool_calls.is_empty() && self.wants_json(request, schema);
        let mentions = |tag: &str| mentions(request, tag);
        let unmarked = draft::without_endings(whole, &mentions);
        let one_turn = self.judge_turns(unmarked, is_json, request, &mut faults);
        let split = draft::split(one_turn, is_json, &mentions);
        let said = split.as_ref().map_or(one_turn, |split| split.answer);
        let text = trimmed(said);
        // A model that has ended its turn was not cut off in it, whatever came behind.
        let finish = if one_turn.len() < unmarked.len() && answer.finish == Finish::Length {
            Finish::Complete
        } else {
            answer.finish
        };
        let close = Close { finish, text, has_draft: split.is_some(), is_json };
        self.judge_finish(answer, &close, request, &mut faults);
        self.judge_reading(answer, request, &mut faults);
        for call in &answer.tool_calls {
            judge_call(call, request, &mut faults);
        }
        let only_calls = text.is_empty() && !answer.tool_calls.is_empty();
        let repaired = if is_json { self.judge_json(said, request, schema, &mut faults) } else { None };
        if !only_calls {
            let text = repaired.as_deref().unwrap_or(text);
            self.judge_text(text, &mut faults);
            self.judge_prose(text, is_json, finish == Finish::Complete, &mut faults);
        }
        if answer.tool_calls.is_empty()
            && let Some(called) = written_call::find(text, request, &answer.beside.sent_names, &mentions)
        {
            faults.add(SoftFailure::BadToolCall, &format_args!("a call of {} came as text", excerpt(called)));
        }
        if answer.tool_calls.is_empty()
            && self.reject_control_tokens
            && let Some(mark) = written_call::unoffered(text, request, &mentions)
        {
            faults.add(SoftFailure::BadToolCall, &format_args!("{mark}: a call came as text, and none was offered"));
        }
        let mut cut = Vec::new();
        if unmarked.len() < whole.len() {
            let length = whole.chars().count().saturating_sub(unmarked.chars().count());
            cut.push(format!("marks of the end of its turn were cut off ({})", characters(length)));
        }
        if one_turn.len() < unmarked.len() {
            let length = unmarked.chars().count().saturating_sub(one_turn.chars().count());
            cut.push(format!("turns that are none of its answer were cut off ({})", characters(length)));
        }
        if split.is_some() {
            let length = one_turn.chars().count().saturating_sub(said.chars().count());
            cut.push(format!("reasoning before the answer was cut off ({})", characters(length)));
        }
        if let Some(repaired) = &repaired {
            let length = said.chars().count().saturating_sub(repaired.chars().count());
            let what = if said.contains(repaired) { "text around the JSON" } else { "text that is no JSON" };
            cut.push(format!("{what} was taken off ({})", characters(length)));
        }
        faults.verdict(|| {
            if cut.is_empty() {
                return Verdict::Accepted;
            }
            let text = repaired.unwrap_or_else(|| said.to_owned());
            let draft = split.map(|split| split.draft).filter(|draft| !draft.is_empty());
            Verdict::Repaired { text, draft, cut: cut.join("; ") }
        })
    }

    /// Whether the route or the request demands JSON.
    fn wants_json(&self, request: &ChatRequest, schema: Option<&Schema>) -> bool {
        let by_request = match &request.response_format {
            Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }) => true,
            Some(ResponseFormat::Text | ResponseFormat::Other(_)) | None => false,
        };
        by_request || self.json || self.json_schema.is_some() || schema.is_some()
    }

    /// Judges the marks of turns in a text; returns the part of it that is the answer.
    fn judge_turns<'a>(&self, text: &'a str, is_json: bool, request: &ChatRequest, faults: &mut Faults) -> &'a str {
        if !self.reject_control_tokens || (is_json && serde_json::from_str::<IgnoredAny>(text).is_ok()) {
            return text;
        }
        match turns::find(text, request) {
            // What a model says to itself of such marks ends no turn.
            Some(TurnMarks::Around(answer)) if !draft::is_open(answer, &draft::tags_in(answer)) => answer,
            Some(TurnMarks::Within(mark)) => {
                faults.add(SoftFailure::ControlTokens, &format_args!("{mark} stands in its midst"));
                text
            }
            Some(TurnMarks::Around(_)) | None => text,
        }
    }

    /// Judges what the provider says of the prompt and of its own filter.
    fn judge_reading(&self, answer: &Answer, request: &ChatRequest, faults: &mut Faults) {
        let read = answer.usage.total_input();
        if self.reject_cut_prompts && answer.usage.source == UsageSource::Provider && read > 0 {
            // A word has a letter and a space at least: most prompts need no counting.
            let most_words = i64::try_from(request.raw.len() / 2).unwrap_or(i64::MAX);
            let may_be_cut = most_words >= LEAST_CUT && read < most_words / MOST_WORDS_A_TOKEN;
            let words = if may_be_cut { estimate::fewest_tokens(request) } else { 0 };
            if words >= LEAST_CUT && read < words / MOST_WORDS_A_TOKEN {
                let told = format_args!("{read} tokens of a prompt with some {words} words were read");
                faults.add(SoftFailure::PromptCut, &told);
            }
        }
        let filter = answer.beside.choice.get("content_filter_results").and_then(|results| results.get("error"));
        if self.only_filtered && filter.is_some_and(|error| !error.is_null()) {
            faults.add(SoftFailure::Unfiltered, &"the provider's content filter was down and did not look at it");
        }
    }

    fn judge_finish(&self, answer: &Answer, close: &Close<'_>, request: &ChatRequest, faults: &mut Faults) {
        let Close { finish, text, has_draft, is_json } = *close;
        if answer.refusal.as_deref().is_some_and(|refusal| !trimmed(refusal).is_empty()) {
            faults.add(SoftFailure::Refusal, &"the model declined");
        }
        let is_there = !text.is_empty() || !answer.tool_calls.is_empty();
        match finish {
            Finish::ToolCall if answer.tool_calls.is_empty() => {
                faults.add(SoftFailure::BadToolCall, &"a call was announced and none came");
            }
            Finish::Length if self.reject_truncated => {
                let thought =
                    has_draft || answer.reasoning.is_some() || answer.usage.reasoning > 0 || answer.usage.output > 0;
                if !is_there && thought {
                    faults.add(SoftFailure::ReasoningExhausted, &"the output cap was reached before an answer began");
                } else {
                    faults.add(SoftFailure::Truncated, &"cut off at the output cap");
                }
            }
            // JSON shows by its form whether it is whole.
            Finish::Complete if !is_json && answer.tool_calls.is_empty() => {
                judge_stop(self, answer, text, request, faults);
            }
            Finish::Complete | Finish::ToolCall | Finish::Length => {}
            Finish::ContentFilter => faults.add(SoftFailure::ContentFiltered, &"the provider's filter cut it"),
            Finish::Refusal => faults.add(SoftFailure::Refusal, &"the model declined"),
            Finish::Unknown if is_there && self.finish != FinishRule::Known => self.judge_cap(answer, request, faults),
            Finish::Error if is_there && answer.finish_raw.is_none() && self.finish == FinishRule::Any => {
                self.judge_cap(answer, request, faults);
            }
            Finish::Error if is_there && answer.finish_raw.is_none() => {
                let words = "it does not say why it ended (validate = { finish = \"any\" } takes that)";
                faults.add(SoftFailure::BadFinish, &words);
            }
            Finish::Pause | Finish::Error | Finish::Unknown => {
                let raw = excerpt(answer.finish_raw.as_deref().unwrap_or("nothing"));
                faults.add(SoftFailure::BadFinish, &format_args!("it ended with {raw}"));
            }
        }
    }

    /// An answer that does not say in known words why it ended counts as cut if it is as long as it may be.
    fn judge_cap(&self, answer: &Answer, request: &ChatRequest, faults: &mut Faults) {
        let usage = &answer.usage;
        let shown = usage.output.saturating_sub(usage.reasoning);
        let is_reported = usage.source == UsageSource::Provider;
        if self.reject_truncated && is_reported && request.max_tokens.is_some_and(|most| shown >= most) {
            faults.add(SoftFailure::Truncated, &"it is as long as the output cap, and does not say that it is done");
        }
    }

    /// Judges an answer that has to be JSON; `Some` is the JSON out of a text that holds more than that.
    fn judge_json(
        &self,
        whole: &str,
        request: &ChatRequest,
        schema: Option<&Schema>,
        faults: &mut Faults,
    ) -> Option<String> {
        let object = matches!(request.response_format, Some(ResponseFormat::JsonObject));
        let text = trimmed(whole);
        let route_schema = self.json_schema.as_deref();
        let schemas = [route_schema, schema];
        let fault = |value: &Value| match value {
            Value::Object(_) if is_schema_itself(value, &schemas) => {
                Some((SoftFailure::SchemaMismatch, "the schema itself came back in place of an answer".to_owned()))
            }
            Value::Object(_) => broken_schema(&schemas, value),
            _ if object => Some((SoftFailure::NotJson, "an object was demanded".to_owned())),
            _ => broken_schema(&schemas, value),
        };
        match json_text::find(text, &|value| fault(value).is_none()) {
            Found::Whole(value) => {
                faults.extend(fault(&value));
                // JSON knows four kinds of white space; a parser stumbles over a byte order mark.
                let bare = whole.trim_matches([' ', '\t', '\n', '\r']) == text;
                (!bare).then(|| text.to_owned())
            }
            Found::Inside(value, part) => {
                faults.extend(fault(&value));
                Some(part.into_owned())
            }
            Found::CutOff => {
                faults.add(SoftFailure::Truncated, &"the JSON has no end");
                None
            }
            Found::Several => {
                faults.add(SoftFailure::NotJson, &"several JSON values, and no telling which is meant");
                None
            }
            Found::Doubtful => {
                faults
                    .add(SoftFailure::NotJson, &"a JSON value, and a text around it that may say that it is not meant");
                None
            }
            Found::Nothing => {
                faults.add(SoftFailure::NotJson, &"no JSON found");
                None
            }
        }
    }

    fn judge_text(&self, text: &str, faults: &mut Faults) {
        if self.non_empty && text.is_empty() {
            faults.add(SoftFailure::Empty, &"no visible character");
        }
        if self.reject_html && is_html(text) {
            faults.add(SoftFailure::Html, &"a page instead of an answer");
        }
        if self.reject_refusals && phrases::is_refusal(text) {
            faults.add(SoftFailure::Refusal, &"it reads like a refusal");
        }
        let length = text.chars().count();
        if let Some(least) = self.min_chars.filter(|&least| length < least) {
            faults.add(SoftFailure::TooShort, &format_args!("{}, at least {least} demanded", characters(length)));
        }
        if let Some(most) = self.max_chars.filter(|&most| length > most) {
            faults.add(SoftFailure::TooLong, &format_args!("{}, at most {most} allowed", characters(length)));
        }
        for pattern in self.forbidden_patterns.iter().filter(|pattern| pattern.is_match(text)) {
            faults.add(SoftFailure::ForbiddenPattern, &format_args!("it matches {}", excerpt(pattern.as_str())));
        }
        for pattern in self.required_patterns.iter().filter(|pattern| !pattern.is_match(text)) {
            faults.add(SoftFailure::MissingPattern, &format_args!("it does not match {}", excerpt(pattern.as_str())));
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy)]
struct Close<'a> {
    finish: Finish,
    text: &'a str,
    has_draft: bool,
    is_json: bool,
}

/// A prompt of fewer words is not taken to be cut: what vendors count of short ones differs too much.
const LEAST_CUT: i64 = 1_000;

/// So many words a token are more than any tokenizer makes of a text.
const MOST_WORDS_A_TOKEN: i64 = 3;

/// An answer of fewer tokens may well be as long as its cap by chance.
const LEAST_CAP: i64 = 16;

/// Judges an answer that says that it is done. One that is exactly as long as it may be, and breaks off within a
/// sentence, was cut by a server that does not say so.
fn judge_stop(rules: &Rules, answer: &Answer, text: &str, request: &ChatRequest, faults: &mut Faults) {
    let usage = &answer.usage;
    let is_at = |cap: i64| usage.output == cap || usage.output.saturating_sub(usage.reasoning) == cap;
    let is_at_cap = request.max_tokens.is_some_and(|cap| cap >= LEAST_CAP && is_at(cap));
    let breaks_off = text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ',' | '-' | '(' | '/'));
    if rules.reject_truncated && usage.source == UsageSource::Provider && is_at_cap && breaks_off {
        faults.add(SoftFailure::Truncated, &"it breaks off at the output cap, and says that it is done");
    }
}

/// JSON of more bytes is taken as a text where its language is looked for.
const PARSED_FOR_PROSE: usize = 1 << 20;

impl Rules {
    /// Judges what a text is written in, and whether it ends. An answer in JSON may hold the same value many times.
    fn judge_prose(&self, text: &str, is_json: bool, is_whole: bool, faults: &mut Faults) {
        if self.reject_repetition
            && !is_json
            && let Some(found) = repetition::find(text, is_whole)
        {
            let words = format_args!("it ends in the same {}, {} times", characters(found.round), found.rounds);
            faults.add(SoftFailure::Repetition, &words);
        }
        if self.languages.is_empty() && self.scripts.is_empty() {
            return;
        }
        // What else there is of a very long answer would not change the finding.
        let is_short = text.len() <= PARSED_FOR_PROSE;
        let is_json = is_json || text.trim_start().starts_with(['{', '[']);
        let parsed = if is_json && is_short { serde_json::from_str::<Value>(text).ok() } else { None };
        let prose = parsed.as_ref().map_or_else(|| language::prose_of(text), language::prose_of_json);
        let other = language::other_language(&prose, &self.languages);
        if let Some(words) = other.or_else(|| language::other_script(&prose, &self.scripts)) {
            faults.add(SoftFailure::WrongLanguage, &words);
        }
    }

    /// The failure of an answer that another model gave, in words; `None`: it may.
    #[must_use]
    pub fn other_model(&self, served: Option<&str>) -> Option<(SoftFailure, String)> {
        let served = served.filter(|_| self.only_as_asked)?;
        Some((SoftFailure::OtherModel, format!("{} answered in its place", excerpt(served))))
    }
}

fn judge_call(call: &ToolCall, request: &ChatRequest, faults: &mut Faults) {
    if !request.tools.iter().any(|tool| tool.name == call.name) {
        faults.add(SoftFailure::BadToolCall, &format_args!("{} was not offered", excerpt(&call.name)));
    } else if serde_json::from_str::<IgnoredAny>(&call.arguments).is_err() {
        faults.add(SoftFailure::BadToolCall, &format_args!("the arguments for {} are not JSON", excerpt(&call.name)));
    }
}

/// Whether a value is one of the demanded schemas, perhaps as it was sent, or with its name around it.
fn is_schema_itself(value: &Value, schemas: &[Option<&Schema>]) -> bool {
    let named = |value: &Value| {
        value.get("properties").and_then(Value::as_object).map(|all| {
            let mut names: Vec<String> = all.keys().cloned().collect();
            names.sort_unstable();
            names
        })
    };
    let inner = [Some(value), value.get("schema"), value.pointer("/json_schema/schema")];
    schemas.iter().flatten().map(|schema| schema.written()).any(|schema| {
        let names = named(schema).filter(|names| !names.is_empty() && !names.iter().any(|name| name == "properties"));
        inner.iter().flatten().any(|inner| {
            let is_of_schema = inner.get("type").is_some_and(|kind| kind == "object");
            is_of_schema && names.is_some() && named(inner) == names
        })
    })
}

/// Names the places in the answer, the rules of the schema and what they demand, never a value of the answer.
fn broken_schema(schemas: &[Option<&Schema>], value: &Value) -> Option<(SoftFailure, String)> {
    let words = match schemas.iter().flatten().find_map(|schema| schema.check(value).err())? {
        Mismatch::At(broken) => broken.iter().map(in_words).collect::<Vec<String>>().join(", "),
        Mismatch::Somewhere => "it breaks the schema; where would take too long to find out".to_owned(),
        Mismatch::TooCostly => "checking it against the schema would take too long".to_owned(),
    };
    Some((SoftFailure::SchemaMismatch, words))
}

fn in_words(Broken { place, rule, demand }: &Broken) -> String {
    let place = excerpt(place);
    let place = if place.is_empty() { "the whole" } else { &place };
    let demand = demand.as_ref().map(|demand| format!(" ({demand})")).unwrap_or_default();
    format!("{place} breaks {}{demand}", excerpt(rule))
}

/// The text without white space and invisible characters at the beginning.
fn trimmed_start(text: &str) -> &str {
    text.trim_start_matches(|c: char| !is_visible(c))
}

/// Whether the instructions or the questions of a request mention a tag, as written or by its name.
fn mentions(request: &ChatRequest, tag: &str) -> bool {
    let name = tag.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    let ways = [tag.to_ascii_lowercase(), format!("{name} tag"), format!("`{name}`")];
    let asked = request.messages.iter().filter(|message| matches!(message.role, Role::System | Role::User));
    asked.flat_map(|message| &message.content).any(|part| match part {
        ContentPart::Text(text) => {
            let text = text.to_ascii_lowercase();
            ways.iter().any(|way| text.contains(way.as_str()))
        }
        ContentPart::Image { .. } | ContentPart::File { .. } | ContentPart::Audio { .. } | ContentPart::Other(_) => {
            false
        }
    })
}

/// The text without white space and invisible characters at the end.
fn trimmed_end(text: &str) -> &str {
    text.trim_end_matches(|c: char| !is_visible(c))
}

/// The text without white space and invisible characters at both ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| !is_visible(c))
}

/// Whether a reader would see the character. Joiners and variation selectors alone do not count.
fn is_visible(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !(invisible || c.is_whitespace() || c.is_control())
}

/// Whether the text is an HTML page, as captive portals and proxies send instead of an answer.
fn is_html(text: &str) -> bool {
    let start: String = text.chars().take(16).collect::<String>().to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| start.starts_with(tag))
}

/// The beginning of a text, short enough for a message.
fn excerpt(text: &str) -> String {
    const LENGTH: usize = 60;
    let mut short: String = text.chars().take(LENGTH).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The rules that an answer broke.
#[derive(Default)]
struct Faults {
    found: Vec<(SoftFailure, String)>,
}

impl Faults {
    fn add(&mut self, kind: SoftFailure, detail: &dyn Display) {
        self.extend(Some((kind, detail.to_string())));
    }

    /// An answer may show the same fault in several places: it is told once.
    fn extend(&mut self, fault: Option<(SoftFailure, String)>) {
        self.found.extend(fault.filter(|fault| !self.found.contains(fault)));
    }

    /// The verdict: `good` makes it when no rule was broken.
    fn verdict(mut self, good: impl FnOnce() -> Verdict) -> Verdict {
        if self.found.is_empty() {
            return good();
        }
        self.found.sort_by_key(|(kind, _)| gravity(*kind));
        let mut failures: Vec<SoftFailure> = self.found.iter().map(|(kind, _)| *kind).collect();
        failures.dedup();
        let mut message = String::new();
        for (kind, detail) in self.found {
            let gap = if message.is_empty() { "" } else { "; " };
            // Writing to a string cannot fail.
            let _ = write!(message, "{gap}{kind}: {detail}");
        }
        Verdict::Rejected { failures, message }
    }
}

/// The rank of a failure, from the gravest: a failure that explains the others comes before them.
fn gravity(kind: SoftFailure) -> u8 {
    match kind {
        SoftFailure::ContentFiltered => 0,
        SoftFailure::Refusal => 1,
        SoftFailure::Html => 2,
        SoftFailure::ReasoningExhausted => 3,
        SoftFailure::PromptCut => 4,
        SoftFailure::Repetition => 5,
        SoftFailure::Truncated => 6,
        SoftFailure::BadFinish => 7,
        SoftFailure::Empty => 8,
        SoftFailure::BadToolCall => 9,
        SoftFailure::ControlTokens => 10,
        SoftFailure::NotJson => 11,
        SoftFailure::SchemaMismatch => 12,
        SoftFailure::WrongLanguage => 13,
        SoftFailure::ForbiddenPattern => 14,
        SoftFailure::MissingPattern => 15,
        SoftFailure::TooShort => 16,
        SoftFailure::TooLong => 17,
        SoftFailure::Unfiltered => 18,
        SoftFailure::VectorCount => 19,
        SoftFailure::VectorDimension => 20,
        SoftFailure::VectorNotFinite => 21,
        SoftFailure::VectorZero => 22,
        // Verdicts on an answer that keeps every rule of its text.
        SoftFailure::OtherModel => 23,
        SoftFailure::StuckAnswer => 24,
        SoftFailure::LowConfidence => 25,
    }
}

fn characters(number: usize) -> String {
    counted(number, "character", "characters")
}
