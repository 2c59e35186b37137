//! Turns a request into a chat-completions body. The body goes through as it was written, member by member. Only
//! members that the server or the model is known to handle differently are changed, visibly.

use super::strict;
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::request::is_known_member;
use crate::domain::{Capabilities, ChatRequest, ResponseFormat, Role};
use crate::provider::conversation::{self, note, unsupported};
use crate::provider::model_habits::{self, ModelHabits};
use crate::provider::names::{self, NameRule, Renamed, Undo};
use crate::provider::quirks::{CapField, Quirks};
use crate::provider::wire::WireRequest;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Where a body may have its output cap.
const CAPS: &[&str] = &["max_tokens", "max_completion_tokens", "max_output_tokens"];

pub(super) fn encode(
    quirks: &Quirks,
    request: &ChatRequest,
    model: &str,
    capabilities: &Capabilities,
) -> Result<WireRequest, Ineligible> {
    conversation::check(request, capabilities)?;
    check(quirks, request, model, capabilities)?;
    let habits = if quirks.model_rules { model_habits::of(model) } else { ModelHabits::default() };
    let mut writing =
        Writing { quirks, request, body: RawObject::read(&request.raw).unwrap_or_default(), dropped: Vec::new() };
    writing.spell_out_prompt();
    writing.leave_out_what_asks_for_nothing();
    writing.leave_to_the_worker();
    writing.leave_out_tools_that_may_not_be_called();
    writing.functions_as_tools();
    writing.cap(&habits, capabilities);
    writing.drop_what_is_not_taken(&habits, capabilities);
    writing.keep_what_is_taken()?;
    writing.check_that_all_is_whole()?;
    let stops = writing.stops();
    writing.shape_messages();
    writing.loosen_what_is_not_strict();
    writing.ids();
    let renamed = writing.names();
    writing.probabilities();
    writing.spell_words();
    writing.rename();
    writing.add(model);
    let Writing { body, dropped, .. } = writing;
    let mut bytes = Vec::with_capacity(request.raw.len().saturating_add(256));
    serde_json::to_writer(&mut bytes, &body).expect("strings, numbers and JSON values always serialize");
    let undo = Undo::of(&renamed, stops);
    Ok(WireRequest { dropped, undo, ..WireRequest::post("/chat/completions", CAPS, bytes) })
}

/// Refuses requests that this server is known to refuse.
fn check(quirks: &Quirks, request: &ChatRequest, model: &str, capabilities: &Capabilities) -> Result<(), Ineligible> {
    if let Some(path) = refused(quirks, request) {
        return unsupported(path);
    }
    match &request.response_format {
        Some(ResponseFormat::JsonSchema { .. }) => {
            let model = model.to_ascii_lowercase();
            let of_model = quirks.json_schema_models.is_empty()
                || quirks.json_schema_models.iter().any(|part| model.contains(part.as_str()));
            if !capabilities.json_schema.unwrap_or(quirks.json_schema != Some(false) && of_model) {
                return unsupported("json_schema");
            }
            if !quirks.tools_with_schema && conversation::offers_tools(request) {
                return unsupported("tools together with a response schema");
            }
        }
        Some(ResponseFormat::JsonObject) if quirks.needs_json_word && !conversation::says_json(request) => {
            return unsupported("json_object without the word JSON in the messages");
        }
        Some(ResponseFormat::JsonObject | ResponseFormat::Text | ResponseFormat::Other(_)) | None => {}
    }
    let ends_with_model = request.messages.last().is_some_and(|message| message.role == Role::Assistant);
    // `prefix` asks for the words to be continued.
    let is_prefix = request.unread.iter().any(|path| path == "messages[].prefix");
    if quirks.needs_user_last && ends_with_model && !is_prefix {
        return unsupported("a last message from the assistant");
    }
    Ok(())
}

/// The first member of a request that the server does not take and that cannot be left out.
fn refused<'a>(quirks: &'a Quirks, request: &ChatRequest) -> Option<&'a str> {
    if quirks.refuse.is_empty() {
        return None;
    }
    let mut body = RawObject::read(&request.raw)?;
    // What asks for the usual is left out, or does no harm.
    let asks = |body: &RawObject<'_>, path: &str| !body.get(path).is_some_and(|value| is_usual(path, value));
    quirks.refuse.iter().find(|path| asks(&body, path) && body.remove_at(path)).map(String::as_str)
}

/// Whether a member asks for what happens without it.
fn is_usual(name: &str, value: &str) -> bool {
    matches!(
        (name, value),
        // With "none" the tools are left out.
        ("tool_choice", "\"auto\"" | "\"none\"")
            | ("logprobs", "false")
            | ("logit_bias", "{}")
            | ("presence_penalty" | "frequency_penalty", "0" | "0.0")
    )
}

/// Whether a server lets a request say which tools may be called.
fn takes_tool_choice(quirks: &Quirks) -> bool {
    let names_it = |names: &[String]| names.iter().any(|name| name == "tool_choice");
    let takes_others = quirks.takes_only.iter().any(|(path, takes)| path.is_empty() && !names_it(takes));
    names_it(&quirks.keep) || !(names_it(&quirks.refuse) || names_it(&quirks.drop) || takes_others)
}

/// A body that is being changed.
struct Writing<'a> {
    quirks: &'a Quirks,
    request: &'a ChatRequest,
    body: RawObject<'a>,
    dropped: Vec<String>,
}

impl Writing<'_> {
    /// Spells out `{"prompt": …}`, which is ours and not the dialect's. Members beside it that no provider knows are
    /// the author's own.
    fn spell_out_prompt(&mut self) {
        if !self.request.is_prompt {
            return;
        }
        if let Some(prompt) = self.body.get("prompt").map(str::to_owned) {
            let content: &RawValue = serde_json::from_str(&prompt).expect("the text of a member is JSON");
            let mut message = RawObject::default();
            message.set("role", "user");
            message.set("content", content);
            self.body.set("prompt", &[message]);
            self.body.rename("prompt", "messages");
        }
        let dropped = &mut self.dropped;
        self.body.retain(|name, value| {
            let is_known = serde_json::from_str(value).is_ok_and(|value| is_known_member(name, &value));
            if !is_known && value != "null" {
                note(dropped, name);
            }
            is_known
        });
    }

    /// Removes members that mean nothing and that servers reject.
    fn leave_out_what_asks_for_nothing(&mut self) {
        if !self.quirks.takes_null {
            self.body.retain(|_, value| value != "null");
        }
        for name in ["tools", "functions", "stop"] {
            if self.body.get(name).is_some_and(is_empty_list) {
                self.body.remove(name);
                note(&mut self.dropped, &format!("{name} (an empty list)"));
            }
        }
        if self.request.tools.is_empty() && self.request.other_tools.is_empty() {
            for name in ["tool_choice", "function_call"] {
                self.remove(name);
            }
        }
    }

    /// Removes tools that the request offers and lets nobody call, where the server does not take the word for that:
    /// there the model might call them. Without them it cannot.
    fn leave_out_tools_that_may_not_be_called(&mut self) {
        let quirks = self.quirks;
        if self.body.get("tool_choice") != Some("\"none\"") || takes_tool_choice(quirks) {
            return;
        }
        for name in ["tools", "tool_choice"] {
            self.body.remove(name);
        }
        self.remove("parallel_tool_calls");
        note(&mut self.dropped, conversation::TOOLS_NOT_TO_BE_CALLED);
    }

    /// Removes members on how the answer is transferred: the worker decides that.
    fn leave_to_the_worker(&mut self) {
        if self.body.given("stream").is_some_and(|stream| stream != "false") {
            self.remove("stream");
        }
        self.remove("stream_options");
    }

    /// Puts the output cap into the field that the server wants, and lowers it to the model's own: a larger one is an
    /// error with every provider.
    fn cap(&mut self, habits: &ModelHabits, capabilities: &Capabilities) {
        let by_model = if habits.wants_completion_cap { CapField::MaxCompletionTokens } else { CapField::MaxTokens };
        let field = self.quirks.cap_field.unwrap_or(by_model).as_str();
        let other = if field == "max_tokens" { "max_completion_tokens" } else { "max_tokens" };
        if self.body.given(other).is_some() {
            // The newer of the two names wins, whichever is sent.
            let beside = self.body.given(field).map(|cap| self.body.given(other) == Some(cap));
            if other == "max_completion_tokens" && beside.is_some() {
                self.body.remove(field);
            }
            self.body.rename(other, field);
            let renamed = format!("{other} as {field}");
            match (beside, other) {
                // Of two caps the older one vanishes.
                (Some(false), "max_completion_tokens") => {
                    note(&mut self.dropped, &renamed);
                    note(&mut self.dropped, field);
                }
                (Some(false), _) => note(&mut self.dropped, other),
                (Some(true) | None, _) => note(&mut self.dropped, &renamed),
            }
        }
        let lowered = conversation::output_cap(self.request, capabilities, &mut self.dropped);
        if lowered != self.request.max_tokens {
            self.body.set(field, &lowered);
        }
    }

    fn drop_what_is_not_taken(&mut self, habits: &ModelHabits, capabilities: &Capabilities) {
        let quirks = self.quirks;
        let when_reasoning = (capabilities.temperature == Some(false)).then_some(&quirks.drop_when_reasoning);
        let has_tools = wants_form(self.request) || conversation::offers_tools(self.request);
        let with_tools = has_tools.then_some(&quirks.drop_with_tools);
        let by_server = quirks.drop.iter().chain(when_reasoning.into_iter().flatten());
        let by_server = by_server.chain(with_tools.into_iter().flatten()).map(String::as_str);
        for path in by_server.chain(habits.refuses.iter().copied()) {
            if !quirks.keep.iter().any(|kept| kept == path) {
                self.remove(path);
            }
        }
    }

    /// For servers that reject every member they do not know. If only the type of a tool or of a call would remain, the
    /// server does not know that kind.
    fn keep_what_is_taken(&mut self) -> Result<(), Ineligible> {
        let (quirks, dropped) = (self.quirks, &mut self.dropped);
        let mut unknown = None;
        for (path, takes) in &quirks.takes_only {
            let path_of = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let is_taken = |name: &str| {
                let path = path_of(name);
                takes.iter().any(|taken| taken == name)
                    || quirks.keep.contains(&path)
                    || quirks.add.iter().any(|(added, _)| *added == path)
            };
            let has_types = matches!(path.as_str(), "tools[]" | "messages[].tool_calls[]");
            let mut leave_out = |object: &mut RawObject<'_>| {
                let kind = object.given("type").filter(|kind| has_types && *kind != "\"function\"");
                if let Some(kind) = kind.and_then(|kind| serde_json::from_str::<String>(kind).ok())
                    && object.given(&kind).is_some()
                    && !is_taken(&kind)
                {
                    let of_what = if path == "tools[]" { "tools" } else { "tool calls" };
                    unknown.get_or_insert_with(|| format!("{of_what} of type {kind}"));
                }
                let mut is_changed = false;
                object.retain(|name, value| {
                    let is_taken = is_taken(name);
                    is_changed |= !is_taken;
                    if !is_taken && value != "null" {
                        note(dropped, &path_of(name));
                    }
                    is_taken
                });
                is_changed
            };
            if path.is_empty() {
                leave_out(&mut self.body);
            } else {
                self.body.edit_at(path, &mut leave_out);
            }
        }
        match unknown {
            Some(what) => unsupported(what.chars().take(80).collect::<String>()),
            None => Ok(()),
        }
    }

    /// Checks that a message with content still has some, and that the result of a function still names it.
    fn check_that_all_is_whole(&self) -> Result<(), Ineligible> {
        if self.request.is_prompt || self.dropped.is_empty() {
            return Ok(());
        }
        let before = RawObject::read(&self.request.raw).unwrap_or_default();
        let (Some(before), Some(after)) = (messages_of(&before), messages_of(&self.body)) else { return Ok(()) };
        for (before, after) in before.iter().zip(&after) {
            let is_result = after.get("role") == Some("\"function\"");
            if is_result && before.given("name").is_some() && after.given("name").is_none() {
                return unsupported("messages of the role function");
            }
            if says_something(before) && !says_something(after) {
                let lost = before.names().find(|name| is_said(name) && after.given(name).is_none());
                return unsupported(format!("a message of nothing but {}", lost.unwrap_or("what is not taken")));
            }
        }
        Ok(())
    }

    /// Removes a member by its path, and notes it.
    fn remove(&mut self, path: &str) {
        if self.body.remove_at(path) {
            note(&mut self.dropped, path);
        }
    }

    /// Removes stop sequences that the server or the model does not take, or that are too many: the answer is cut at
    /// them afterwards.
    fn stops(&mut self) -> Vec<String> {
        if self.body.given("stop").is_none() {
            return self.request.stop.clone();
        }
        let most = self.quirks.max_stops.unwrap_or(usize::MAX);
        let (sent, held_back) = self.request.stop.split_at(most.min(self.request.stop.len()));
        if !held_back.is_empty() {
            self.body.set("stop", sent);
            note(&mut self.dropped, &conversation::stops_beyond(most));
        } else if self.quirks.stop_as_list && self.body.given("stop").is_some_and(|stop| stop.starts_with('"')) {
            self.body.set("stop", sent);
        }
        held_back.to_vec()
    }

    fn shape_messages(&mut self) {
        let quirks = self.quirks;
        if quirks.join_texts {
            let mut joined = false;
            let mut has_more = false;
            let mut has_marks = false;
            self.body.edit_at("messages[]", &mut |message| {
                let Some(parts) = message.get("content").and_then(text_parts) else { return false };
                joined = true;
                has_marks |= parts.has_marks;
                has_more |= parts.has_more;
                message.set("content", &parts.text);
                true
            });
            if joined {
                note(&mut self.dropped, "messages[].content[] as one text");
            }
            if has_marks {
                note(&mut self.dropped, "messages[].content[].cache_control");
            }
            if has_more {
                note(&mut self.dropped, "messages[].content[]: members beside text");
            }
        }
        if !quirks.takes_developer {
            let is_renamed = self.body.edit_at("messages[]", &mut |message| {
                let is_developer = message.get("role") == Some("\"developer\"");
                if is_developer {
                    message.set("role", "system");
                }
                is_developer
            });
            if is_renamed {
                note(&mut self.dropped, "messages[].role developer as system");
            }
        }
        if quirks.empty_content_as_null {
            let calls_something =
                |message: &RawObject<'_>| message.given("tool_calls").is_some_and(|calls| !is_empty_list(calls));
            self.body.edit_at("messages[]", &mut |message| {
                let is_empty = message.get("content") == Some("\"\"") && calls_something(message);
                if is_empty {
                    message.set("content", &());
                }
                is_empty
            });
        }
    }

    /// Keeps `strict` where the schema can be enforced to the letter. Elsewhere it would only be an error, and
    /// validation checks the schema in any case.
    fn loosen_what_is_not_strict(&mut self) {
        if !self.quirks.checks_strict {
            return;
        }
        for (path, place) in [("response_format.json_schema", "schema"), ("tools[].function", "parameters")] {
            let was_loosened = self.body.edit_at(path, &mut |object| {
                let is_strict = object.get("strict") == Some("true");
                let schema = object.get(place).and_then(|schema| serde_json::from_str(schema).ok());
                is_strict && !schema.is_some_and(|schema| strict::is_strict(&schema)) && object.remove("strict")
            });
            if was_loosened {
                note(&mut self.dropped, &format!("{path}.strict"));
            }
        }
    }

    /// Where the server demands nine letters or digits as the id of a call, others become nine digits; where it wants
    /// short ones, long ones are cut. A result still matches its call.
    fn ids(&mut self) {
        if !self.quirks.short_call_ids && self.quirks.max_call_id.is_none() {
            return;
        }
        let messages = &self.request.messages;
        let called = messages.iter().flat_map(|message| message.tool_calls.iter().map(|call| call.id.as_str()));
        let answered = messages.iter().filter_map(|message| message.tool_call_id.as_deref());
        let ids = called.chain(answered);
        let (ids, what) = if self.quirks.short_call_ids {
            (nine_digits(ids), "messages[].tool_calls[].id as nine digits")
        } else {
            let longest = self.quirks.max_call_id.unwrap_or(usize::MAX);
            (Renamed::of(NameRule::up_to(longest), ids), "messages[].tool_calls[].id cut to what is taken")
        };
        if ids.is_empty() {
            return;
        }
        let shorten = |object: &mut RawObject<'_>, name: &str| {
            let id = object.get(name).and_then(|id| serde_json::from_str::<Cow<'_, str>>(id).ok());
            let Some(id) = id.filter(|id| ids.written(id) != id.as_ref()) else { return false };
            object.set(name, ids.written(&id));
            true
        };
        self.body.edit_at("messages[].tool_calls[]", &mut |call| shorten(call, "id"));
        self.body.edit_at("messages[]", &mut |message| shorten(message, "tool_call_id"));
        note(&mut self.dropped, what);
    }

    fn names(&mut self) -> Renamed {
        if !self.quirks.plain_tool_names {
            return Renamed::default();
        }
        let renamed = Renamed::of(NameRule::PLAIN, names::function_names(self.request));
        if renamed.is_empty() {
            return renamed;
        }
        let mut rewrite = |object: &mut RawObject<'_>| {
            let Some(name) = object.get("name").and_then(|name| serde_json::from_str::<String>(name).ok()) else {
                return false;
            };
            let written = renamed.written(&name);
            if written == name {
                return false;
            }
            object.set("name", written);
            true
        };
        for path in [
            "tools[].function",
            "functions[]",
            "tool_choice.function",
            "function_call",
            "messages[].tool_calls[].function",
            "messages[].function_call",
        ] {
            self.body.edit_at(path, &mut rewrite);
        }
        self.body.edit_at("messages[]", &mut |message| {
            matches!(message.get("role"), Some("\"tool\"" | "\"function\"")) && rewrite(message)
        });
        note(&mut self.dropped, conversation::NAMES_REWRITTEN);
        renamed
    }

    /// For servers that no longer know the deprecated form, or never did.
    fn functions_as_tools(&mut self) {
        if self.quirks.takes_functions {
            return;
        }
        if let Some(functions) = self.body.given("functions").map(str::to_owned) {
            let functions: Vec<&RawValue> = serde_json::from_str(&functions).unwrap_or_default();
            let tools: Vec<_> = functions.into_iter().map(of_function).collect();
            self.body.set("functions", &tools);
            self.body.rename("functions", "tools");
            note(&mut self.dropped, "functions as tools");
        }
        if let Some(choice) = self.body.given("function_call").map(str::to_owned) {
            let choice: &RawValue = serde_json::from_str(&choice).expect("the text of a member is JSON");
            if choice.get().starts_with('{') {
                self.body.set("function_call", &of_function(choice));
            }
            self.body.rename("function_call", "tool_choice");
        }
        let was_rewritten = self.body.edit_at("messages[]", &mut |message| {
            if let Some(call) = message.given("function_call").map(str::to_owned) {
                let call: &RawValue = serde_json::from_str(&call).expect("the text of a member is JSON");
                let name: Option<String> =
                    RawObject::read(call.get()).and_then(|call| serde_json::from_str(call.get("name")?).ok());
                let mut tool_call = of_function(call);
                tool_call.set("id", &name.unwrap_or_default());
                message.remove("function_call");
                message.set("tool_calls", &[tool_call]);
                return true;
            }
            let is_function = message.get("role") == Some("\"function\"");
            if is_function {
                message.set("role", "tool");
                message.rename("name", "tool_call_id");
            }
            is_function
        });
        if was_rewritten {
            note(&mut self.dropped, "messages[].function_call as tool_calls");
        }
    }

    /// Says with one number which probabilities are wanted.
    fn probabilities(&mut self) {
        if !self.quirks.logprobs_as_number || self.body.given("logprobs") != Some("true") {
            return;
        }
        let top = self.body.given("top_logprobs").and_then(|text| text.parse::<u32>().ok());
        self.body.remove("top_logprobs");
        self.body.set("logprobs", &top.unwrap_or(1).max(1));
        note(&mut self.dropped, "logprobs as a number");
    }

    fn spell_words(&mut self) {
        for (member, ours, theirs) in &self.quirks.words {
            let word = self.body.given(member).and_then(|text| serde_json::from_str::<String>(text).ok());
            if word.as_ref() == Some(ours) {
                self.body.set(member, theirs);
                note(&mut self.dropped, &format!("{member} {ours} as {theirs}"));
            }
        }
    }

    fn rename(&mut self) {
        for (from, to) in &self.quirks.rename {
            if self.body.rename(from, to) {
                note(&mut self.dropped, &format!("{from} as {to}"));
            }
        }
    }

    /// Whether an answer that heeds only some of the members would not be the one that was asked for.
    fn wants_all(&self) -> bool {
        let asks = |name: &str| self.body.given(name).is_some_and(|value| !is_usual(name, value));
        wants_form(self.request)
            || conversation::offers_tools(self.request)
            || ["stop", "logprobs", "logit_bias"].into_iter().any(asks)
    }

    fn add(&mut self, model: &str) {
        conversation::note_model(self.request, model, &mut self.dropped);
        self.body.set_first("model", model);
        if self.quirks.require_parameters && self.wants_all() && self.body.given("provider").is_none() {
            self.body.set("provider", &json!({ "require_parameters": true }));
            note(&mut self.dropped, "provider.require_parameters added");
        }
        for (name, value) in &self.quirks.add {
            if self.body.given(name).is_none() {
                self.body.set(name, value);
                note(&mut self.dropped, &format!("{name} added"));
            }
        }
    }
}

/// Whether the answer is to be JSON.
fn wants_form(request: &ChatRequest) -> bool {
    matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. } | ResponseFormat::JsonObject))
}

fn messages_of<'a>(body: &'a RawObject<'_>) -> Option<Vec<RawObject<'a>>> {
    serde_json::from_str(body.get("messages")?).ok()
}

/// Whether a member of a message belongs to its content, and not to its author.
fn is_said(name: &str) -> bool {
    !matches!(name, "role" | "name" | "tool_call_id" | "cache_control" | "weight" | "prefix")
}

fn says_something(message: &RawObject<'_>) -> bool {
    message.names().any(is_said)
}

/// The newer form of a deprecated function or choice.
fn of_function(function: &RawValue) -> RawObject<'static> {
    let mut tool = RawObject::default();
    tool.set("type", "function");
    tool.set("function", function);
    tool
}

fn is_empty_list(text: &str) -> bool {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|rest| rest.trim_ascii().is_empty())
}

/// The parts of a message, if all of them are texts.
struct TextParts {
    text: String,
    has_marks: bool,
    /// Whether a part has members beside type, text and mark.
    has_more: bool,
}

fn text_parts(content: &str) -> Option<TextParts> {
    let parts: Vec<RawObject<'_>> = serde_json::from_str(content).ok()?;
    let mut joined = TextParts { text: String::new(), has_marks: false, has_more: false };
    for (index, part) in parts.iter().enumerate() {
        if part.get("type") != Some("\"text\"") {
            return None;
        }
        let text: String = serde_json::from_str(part.get("text")?).ok()?;
        if index > 0 {
            joined.text.push('\n');
        }
        joined.text.push_str(&text);
        joined.has_marks |= part.given("cache_control").is_some();
        joined.has_more |= part.names().any(|name| !matches!(name, "type" | "text" | "cache_control"));
    }
    Some(joined)
}

/// Ids that are not nine letters or digits, and the nine digits that stand for each.
fn nine_digits<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Renamed {
    let fits = |id: &&str| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut taken: BTreeSet<String> = ids.clone().filter(fits).map(str::to_owned).collect();
    let mut short = BTreeMap::new();
    for id in ids.filter(|id| !fits(id)) {
        if short.contains_key(id) {
            continue;
        }
        // FNV-1a, so that an id becomes the same in every request that has it.
        let mut hash = id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let digits = |hash: u64| format!("{:09}", hash % 1_000_000_000);
        while !taken.insert(digits(hash)) {
            hash = hash.wrapping_add(1);
        }
        short.insert(id.to_owned(), digits(hash));
    }
    Renamed::from_pairs(short)
}
