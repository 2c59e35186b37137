//! A conversation as turns, for the dialects without system and tool messages; and the checks that all dialects share.

use crate::domain::decide::Ineligible;
use crate::domain::eligibility::lacking;
use crate::domain::raw_object::RawObject;
use crate::domain::request::{PastCall, ToolChoice};
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The speaker of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The person, or a tool on the person's side.
    User,
    Model,
}

/// A piece of a turn.
#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    /// Text; never empty.
    Text {
        text: &'a str,
        /// Its `cache_control`.
        cache: Option<&'a Value>,
    },
    Image {
        url: &'a str,
        /// Its `cache_control`.
        cache: Option<&'a Value>,
    },
    File {
        url: &'a str,
        name: Option<&'a str>,
        /// Its `cache_control`.
        cache: Option<&'a Value>,
    },
    Audio {
        /// Base64.
        data: &'a str,
        format: &'a str,
        /// Its `cache_control`.
        cache: Option<&'a Value>,
    },
    /// A call that the model made.
    Call {
        call: &'a PastCall,
        /// Its id, which no other call of the conversation has.
        id: Cow<'a, str>,
        /// `cache_control` of a message that ends with it.
        cache: Option<&'a Value>,
    },
    Result {
        message: &'a Message,
        /// The id of the call that it answers.
        id: Cow<'a, str>,
        /// The function's name: the call's, else the message's own.
        name: Option<&'a str>,
        /// `cache_control` of the message.
        cache: Option<&'a Value>,
    },
}

impl<'a> Item<'a> {
    /// The id of a call.
    fn called_id(&self) -> Option<&Cow<'a, str>> {
        match self {
            Self::Call { id, .. } => Some(id),
            Self::Text { .. } | Self::Image { .. } | Self::File { .. } | Self::Audio { .. } | Self::Result { .. } => {
                None
            }
        }
    }

    fn set_cache(&mut self, mark: &'a Value) {
        match self {
            Self::Text { cache, .. }
            | Self::Image { cache, .. }
            | Self::File { cache, .. }
            | Self::Audio { cache, .. }
            | Self::Call { cache, .. }
            | Self::Result { cache, .. } => *cache = Some(mark),
        }
    }
}

/// Everything that one speaker says before the other speaks.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub speaker: Speaker,
    /// The pieces; tool results first, where there are any. Never empty.
    pub items: Vec<Item<'a>>,
}

/// A conversation as turns that alternate between the two speakers.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    /// All instructions in their order, each with its `cache_control`.
    pub system: Vec<(Cow<'a, str>, Option<&'a Value>)>,
    /// The turns; the first and the last are the user's.
    pub turns: Vec<Turn<'a>>,
    /// Parameters that were lost on the way.
    pub dropped: Vec<String>,
}

/// How much text there has to be for a dialect to accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    /// One character of any kind.
    White,
    /// A character that is not white space.
    Refused,
}

/// Ids of calls, each made unique: some agents number the calls of each turn anew.
#[derive(Default)]
struct CallIds<'a> {
    taken: BTreeSet<Cow<'a, str>>,
    /// Calls of one id that have no result yet.
    open: BTreeMap<&'a str, VecDeque<Cow<'a, str>>>,
}

impl<'a> CallIds<'a> {
    fn called(&mut self, id: &'a str) -> Cow<'a, str> {
        let mut unique = Cow::Borrowed(id);
        let mut number = 2_usize;
        while !self.taken.insert(unique.clone()) {
            unique = Cow::Owned(format!("{id}_{number}"));
            number = number.saturating_add(1);
        }
        self.open.entry(id).or_default().push_back(unique.clone());
        unique
    }

    fn answered(&mut self, id: &'a str) -> Cow<'a, str> {
        self.open.get_mut(id).and_then(VecDeque::pop_front).unwrap_or(Cow::Borrowed(id))
    }
}

impl<'a> Conversation<'a> {
    /// Arranges the messages of a request.
    ///
    /// Instructions move to the front, which is noted where that changes their place. A conversation of instructions
    /// alone is put to the model as the user's words, visibly, because a turn needs a speaker.
    ///
    /// # Errors
    /// [`Ineligible::Unsupported`] for requests that the dialects with turns cannot express: images in instructions or
    /// in the model's words, parts and tools that only OpenAI's dialect knows, a call without its result or the other
    /// way round, and a conversation in which the model speaks first or last (their models would continue the text
    /// instead of answering, or reject it).
    pub fn of(request: &'a ChatRequest, blank: Blank) -> Result<Self, Ineligible> {
        only_here(request)?;
        let only_instructions = request.messages.iter().all(|message| message.role == Role::System);
        let mut conversation = Self { system: Vec::new(), turns: Vec::new(), dropped: request.unread.clone() };
        let mut ids = CallIds::default();
        if only_instructions && !request.messages.is_empty() {
            note(&mut conversation.dropped, SYSTEM_AS_USER);
        }
        for (index, message) in request.messages.iter().enumerate() {
            if message.name.is_some() && message.role != Role::Tool {
                note(&mut conversation.dropped, "messages[].name");
            }
            let attached = message.content.iter().find(|part| part.is_attached()).map(ContentPart::kind);
            let speaker = match message.role {
                Role::System if !only_instructions => {
                    if let Some(kind) = attached {
                        return unsupported(format!("{kind} in system messages"));
                    }
                    if !conversation.turns.is_empty() && is_said(&message.text(), blank) {
                        note(&mut conversation.dropped, SYSTEM_MOVED);
                    }
                    conversation.instruct(message, blank);
                    continue;
                }
                Role::System | Role::User | Role::Tool => Speaker::User,
                Role::Assistant => match attached {
                    Some(kind) => return unsupported(format!("{kind} in assistant messages")),
                    None => Speaker::Model,
                },
            };
            let mut items: Vec<Item<'a>> = Vec::with_capacity(1);
            if message.role == Role::Tool {
                let id = message.tool_call_id.as_deref().unwrap_or("");
                let name = called(&request.messages[..index], id).or(message.name.as_deref());
                items.push(Item::Result { message, id: ids.answered(id), name, cache: None });
            } else {
                conversation.say(message, blank, &mut items);
                items.extend(message.tool_calls.iter().map(|call| Item::Call {
                    call,
                    id: ids.called(&call.id),
                    cache: None,
                }));
            }
            match (items.last_mut(), &message.cache_control) {
                (None, _) => continue,
                (Some(last), Some(mark)) => last.set_cache(mark),
                (Some(_), None) => {}
            }
            match conversation.turns.last_mut() {
                Some(turn) if turn.speaker == speaker => turn.items.extend(items),
                _ => conversation.turns.push(Turn { speaker, items }),
            }
        }
        for turn in &mut conversation.turns {
            // Results have to come before anything else in the turn that follows a call.
            turn.items.sort_by_key(|item| !matches!(item, Item::Result { .. }));
        }
        conversation.check()?;
        Ok(conversation)
    }

    /// Puts the results of each turn into the order of the calls that they answer, for a dialect that matches them by
    /// their places because it has no ids.
    pub fn order_results(&mut self) {
        let mut is_changed = false;
        let mut called: Vec<Cow<'a, str>> = Vec::new();
        for turn in &mut self.turns {
            if turn.speaker == Speaker::Model {
                called = turn.items.iter().filter_map(Item::called_id).cloned().collect();
                continue;
            }
            let place = |item: &Item<'a>| match item {
                Item::Result { id, .. } => called.iter().position(|call| call == id).unwrap_or(usize::MAX),
                // Behind the results.
                Item::Text { .. } | Item::Image { .. } | Item::File { .. } | Item::Audio { .. } | Item::Call { .. } => {
                    usize::MAX
                }
            };
            if !turn.items.is_sorted_by_key(place) {
                turn.items.sort_by_key(place);
                is_changed = true;
            }
        }
        if is_changed {
            note(&mut self.dropped, RESULTS_ORDERED);
        }
    }

    fn instruct(&mut self, message: &'a Message, blank: Blank) {
        if message.cache_marks.is_empty() && message.cache_control.is_none() {
            let text = message.text();
            if is_said(&text, blank) {
                self.system.push((Cow::Owned(text), None));
            } else if !text.is_empty() {
                note(&mut self.dropped, BLANK_TEXT);
            }
            return;
        }
        let mut items = Vec::new();
        self.say(message, blank, &mut items);
        if let (Some(last), Some(mark)) = (items.last_mut(), &message.cache_control) {
            last.set_cache(mark);
        }
        self.system.extend(items.into_iter().filter_map(|item| match item {
            Item::Text { text, cache } => Some((Cow::Borrowed(text), cache)),
            Item::Image { .. } | Item::File { .. } | Item::Audio { .. } | Item::Call { .. } | Item::Result { .. } => {
                None
            }
        }));
    }

    fn say(&mut self, message: &'a Message, blank: Blank, items: &mut Vec<Item<'a>>) {
        for (place, part) in message.content.iter().enumerate() {
            let cache = message.cache_marks.get(&place);
            match part {
                ContentPart::Text(text) if is_said(text, blank) => items.push(Item::Text { text, cache }),
                // The dialects reject it.
                ContentPart::Text(text) => {
                    if !text.is_empty() {
                        note(&mut self.dropped, BLANK_TEXT);
                    }
                }
                ContentPart::Image { url, detail } => {
                    if detail.as_deref().is_some_and(|detail| detail != "auto") {
                        note(&mut self.dropped, "messages[].content[].image_url.detail");
                    }
                    items.push(Item::Image { url, cache });
                }
                ContentPart::File { url, name } => items.push(Item::File { url, name: name.as_deref(), cache }),
                ContentPart::Audio { data, format } => items.push(Item::Audio { data, format, cache }),
                // Refused earlier.
                ContentPart::Other(_) => {}
            }
        }
    }

    /// Checks the order that the dialects demand.
    fn check(&self) -> Result<(), Ineligible> {
        match (self.turns.first(), self.turns.last()) {
            (None, _) | (_, None) => return unsupported("a conversation without words"),
            (Some(first), _) if first.speaker == Speaker::Model => {
                return unsupported("a conversation that the assistant opens");
            }
            (_, Some(last)) if last.speaker == Speaker::Model => {
                return unsupported("a last message from the assistant");
            }
            _ => {}
        }
        let mut open: BTreeSet<&str> = BTreeSet::new();
        for turn in &self.turns {
            if turn.speaker == Speaker::User {
                for item in &turn.items {
                    if let Item::Result { id, .. } = item
                        && !open.remove(id.as_ref())
                    {
                        return unsupported("a tool result whose call is not in the turn before it");
                    }
                }
                if !open.is_empty() {
                    return unsupported("a tool call without its result in the turn after it");
                }
            }
            open.extend(turn.items.iter().filter_map(Item::called_id).map(AsRef::as_ref));
        }
        Ok(())
    }
}

/// The note on instructions that stood between turns: the model reads them before the talk, and not where they were
/// given. `must_keep` counts it as a loss.
pub(super) const SYSTEM_MOVED: &str = "messages[].role: system moved to the front";

/// The note on instructions that are sent as the user's words, because there are no others. `must_keep` counts it as a
/// loss.
pub(super) const SYSTEM_AS_USER: &str = "messages[].role: system as user";

/// The note on results that are sent in the order of their calls.
pub(super) const RESULTS_ORDERED: &str = "messages[] of tools in the order of their calls";

/// The note on texts that a dialect rejects because they are blank.
pub(super) const BLANK_TEXT: &str = "messages[].content[] of white space";

/// The note on tools that are left out because the request lets the model call none of them.
pub(super) const TOOLS_NOT_TO_BE_CALLED: &str = "tools (tool_choice is none)";

/// The note on function names that are written differently.
pub(super) const NAMES_REWRITTEN: &str = "tools[].function.name in letters that the dialect takes";

/// Whether the model has to call a tool.
pub(super) fn forces_call(request: &ChatRequest) -> bool {
    let forces = matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Function(_)));
    forces && !request.tools.is_empty()
}

/// The refusal of a dialect that cannot make a model call a tool.
pub(super) const FORCED_CALL: &str = "a tool choice that forces a call";

/// The arguments of an earlier call, for the dialects that write them as an object.
///
/// # Errors
/// They are something else.
pub(super) fn call_arguments(arguments: &str) -> Result<&RawValue, Ineligible> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
    let object = serde_json::from_str::<&RawValue>(arguments).ok().filter(|input| input.get().starts_with('{'));
    object.map_or_else(|| unsupported("tool call arguments that are not a JSON object"), Ok)
}

/// Refuses a part that is attached, for a dialect that takes none of its kind.
///
/// # Errors
/// It is one.
pub(super) fn no_attachment(part: &ContentPart) -> Result<(), Ineligible> {
    if part.is_attached() { unsupported(part.kind()) } else { Ok(()) }
}

/// Refuses files that do not come along: the type and the base64 of one that does.
///
/// # Errors
/// It has a web address, or is not base64.
pub(super) fn file_along(url: &str) -> Result<(String, &str), Ineligible> {
    let Some((given, data)) = data_url(url) else {
        let is_there = url.starts_with("http");
        return unsupported(if is_there { "files by web address" } else { "files that are not base64" });
    };
    Ok((given.trim().to_ascii_lowercase(), data))
}

/// The refusal of a type of file.
pub(super) fn file_type_refused<T>(kind: &str) -> Result<T, Ineligible> {
    unsupported(format!("files of type {}", kind.chars().take(40).collect::<String>()))
}

/// Whether there is enough of a text for the dialect.
pub(super) fn is_said(text: &str, blank: Blank) -> bool {
    match blank {
        Blank::White => !text.is_empty(),
        Blank::Refused => !text.trim().is_empty(),
    }
}

/// The note on stop sequences beyond a number of them.
pub(super) fn stops_beyond(most: usize) -> String {
    format!("stop beyond {most} (the answer is cut at the others)")
}

/// A refusal, in words.
pub(super) fn unsupported<T>(what: impl Into<String>) -> Result<T, Ineligible> {
    Err(Ineligible::Unsupported(what.into()))
}

/// Refuses requests that only OpenAI's own dialect can express.
pub(super) fn only_here(request: &ChatRequest) -> Result<(), Ineligible> {
    for message in &request.messages {
        if let Some(kind) = message.other_calls.first() {
            return unsupported(format!("tool calls of type {kind}"));
        }
        for part in &message.content {
            if let ContentPart::Other(kind) = part {
                return match kind.as_str() {
                    "file" => unsupported("a file without `file_data`: base64 behind `data:`, or a web address"),
                    "input_audio" => unsupported("a sound without `data` and `format`"),
                    kind => unsupported(format!("content parts of type {kind}")),
                };
            }
        }
    }
    if let Some(kind) = request.other_tools.first() {
        return unsupported(format!("tools of type {kind}"));
    }
    if let Some(ToolChoice::Other(kind)) = &request.tool_choice {
        return unsupported(format!("a tool choice of type {kind}"));
    }
    if let Some(ResponseFormat::Other(kind)) = &request.response_format {
        return unsupported(format!("a response format of type {kind}"));
    }
    Ok(())
}

/// Whether the model may call tools in its answer.
pub(super) fn offers_tools(request: &ChatRequest) -> bool {
    let has_tools = !request.tools.is_empty() || !request.other_tools.is_empty();
    has_tools && request.tool_choice != Some(ToolChoice::None)
}

/// Whether the word JSON is in the messages, in which it has to be for a JSON object.
pub(super) fn says_json(request: &ChatRequest) -> bool {
    let has_it = |text: &str| text.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"json"));
    request.messages.iter().flat_map(|message| &message.content).any(|part| match part {
        ContentPart::Text(text) => has_it(text),
        ContentPart::Image { .. } | ContentPart::Audio { .. } => false,
        ContentPart::File { .. } | ContentPart::Other(_) => true,
    })
}

/// The probabilities of its tokens that a request asks for with the answer.
pub(super) struct LogprobsAsk {
    /// How many likely tokens are wanted for each place.
    pub top: Option<i64>,
}

/// The most likely tokens that are given for a place.
const MOST_TOP: i64 = 20;

/// What a request asks for, in a dialect that can give the probabilities of tokens; `None`: nothing, or the model is
/// known to refuse it. What is sent is no longer noted as dropped.
pub(super) fn logprobs_ask(
    request: &ChatRequest,
    refuses: &[&str],
    takes_top: bool,
    dropped: &mut Vec<String>,
) -> Option<LogprobsAsk> {
    let raw = RawObject::read(&request.raw).unwrap_or_default();
    if raw.given("logprobs") != Some("true") || refuses.contains(&"logprobs") {
        return None;
    }
    let top = raw.given("top_logprobs").and_then(|text| text.parse().ok());
    let top = top.filter(|top| takes_top && (0..=MOST_TOP).contains(top));
    dropped.retain(|noted| noted != "logprobs" && (noted != "top_logprobs" || top.is_none()));
    Some(LogprobsAsk { top })
}

/// Notes that the body names another model than the one that is asked: the route decides.
pub(super) fn note_model(request: &ChatRequest, model: &str, dropped: &mut Vec<String>) {
    if request.model.as_deref().is_some_and(|named| named != model) {
        note(dropped, "model");
    }
}

/// Notes these members of a request, which a dialect cannot say, where the request has them.
pub(super) fn note_lost(lost: &[(&str, bool)], dropped: &mut Vec<String>) {
    for (name, _) in lost.iter().filter(|(_, is_there)| *is_there) {
        note(dropped, name);
    }
}

/// The signatures of thoughts that come with earlier calls: where they are in a request, and whether it has any.
pub(super) fn signatures(request: &ChatRequest) -> (&'static str, bool) {
    let mut calls = request.messages.iter().flat_map(|message| &message.tool_calls);
    ("messages[].tool_calls[].extra_content", calls.any(|call| call.thought_signature.is_some()))
}

/// Notes what a dialect cannot say of a form beside its schema: `strict` has no place where every schema is enforced.
pub(super) fn note_strict(request: &ChatRequest, dropped: &mut Vec<String>) {
    if matches!(request.response_format, Some(ResponseFormat::JsonSchema { strict: Some(_), .. })) {
        note(dropped, "response_format.json_schema.strict (schemas are always enforced)");
    }
}

/// Notes marks of caching for a dialect that has none.
pub(super) fn note_cache_marks(request: &ChatRequest, dropped: &mut Vec<String>) {
    let (messages, tools) = (&request.messages, &request.tools);
    let marks = [
        ("cache_control", request.cache_control.is_some()),
        ("tools[].cache_control", tools.iter().any(|tool| tool.cache_control.is_some())),
        ("messages[].cache_control", messages.iter().any(|message| message.cache_control.is_some())),
        ("messages[].content[].cache_control", messages.iter().any(|message| !message.cache_marks.is_empty())),
    ];
    note_lost(&marks, dropped);
}

/// The name of the function that the call with this id called.
pub(super) fn called<'a>(earlier: &'a [Message], id: &str) -> Option<&'a str> {
    earlier
        .iter()
        .rev()
        .flat_map(|message| &message.tool_calls)
        .find(|call| call.id == id)
        .map(|call| call.name.as_str())
}

/// Checks that the model has the capabilities that a request needs.
///
/// # Errors
/// [`Ineligible::Unsupported`] names the missing one.
pub(super) fn check(request: &ChatRequest, capabilities: &Capabilities) -> Result<(), Ineligible> {
    lacking(capabilities, request).map_or(Ok(()), unsupported)
}

/// The output cap that is asked for, lowered to the model's own: a larger one is an error with every provider.
pub(super) fn output_cap(request: &ChatRequest, capabilities: &Capabilities, dropped: &mut Vec<String>) -> Option<i64> {
    match (request.max_tokens, capabilities.max_output_tokens) {
        (Some(asked), Some(most)) if asked > most => {
            note(dropped, &format!("max_tokens above {most}"));
            Some(most)
        }
        (asked, _) => asked,
    }
}

/// The output cap for a dialect or a server that needs one: the one that is asked for, else the model's own, else the
/// usual one. A cap that the request does not have is noted.
pub(super) fn needed_cap(
    request: &ChatRequest,
    capabilities: &Capabilities,
    usual: Option<i64>,
    dropped: &mut Vec<String>,
) -> Option<i64> {
    let asked = output_cap(request, capabilities, dropped);
    if asked.is_some() {
        return asked;
    }
    let added = capabilities.max_output_tokens.or(usual);
    if let Some(cap) = added {
        note(dropped, &format!("max_tokens {cap} added"));
    }
    added
}

/// Notes that of two output caps the newer one counts, for a dialect that has only one.
pub(super) fn note_second_cap(request: &ChatRequest, dropped: &mut Vec<String>) {
    let raw = RawObject::read(&request.raw).unwrap_or_default();
    if let (Some(newer), Some(older)) = (raw.given("max_completion_tokens"), raw.given("max_tokens"))
        && newer != older
    {
        note(dropped, "max_tokens");
    }
}

/// Adds a note on a dropped member, once. The list stays short enough for a reader and for a row.
pub(super) fn note(dropped: &mut Vec<String>, what: &str) {
    const MOST: usize = 60;
    if dropped.len() > MOST || dropped.iter().any(|noted| noted == what) {
        return;
    }
    let is_one_too_many = dropped.len() == MOST;
    let what = if is_one_too_many { "and more" } else { what };
    dropped.push(what.chars().take(160).collect());
}

/// A `data:` URL with base64 content: media type and data.
pub(super) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = kind.strip_suffix(";base64")?;
    Some((media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type), data))
}

/// The type of an image, by its own first bytes, else by the given name, in the spelling that all dialects know.
pub(super) fn image_type(given: &str, data: &str) -> String {
    // Base64 of the first bytes of each format. Providers compare the bytes with the name.
    const BEGINNINGS: [(&str, &str); 4] =
        [("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")];
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| data.starts_with(beginning)) {
        return (*kind).to_owned();
    }
    let given = given.trim().to_ascii_lowercase();
    match given.as_str() {
        "image/jpg" | "image/pjpeg" | "image/jfif" => "image/jpeg".to_owned(),
        "image/x-png" | "image/apng" => "image/png".to_owned(),
        _ => given,
    }
}
