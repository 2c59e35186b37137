//! A conversation as turns, for the dialects that know no system and no tool messages; and the checks that all
//! dialects share.

use crate::domain::decide::Ineligible;
use crate::domain::{Capabilities, ChatRequest, ContentPart, Message, ResponseFormat, Role, ToolCall};

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The person, or a tool on the person's side.
    User,
    /// The model.
    Model,
}

/// A piece of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// Text; never empty.
    Text(&'a str),
    /// An image.
    Image(&'a str),
    /// A call that the model made.
    Call(&'a ToolCall),
    /// What a tool answered.
    Result {
        /// The tool's message.
        message: &'a Message,
        /// The id of the call that it answers.
        id: &'a str,
        /// The function's name: the call's, else the message's own.
        name: Option<&'a str>,
    },
}

/// Everything that one speaker says before the other has the word.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// Who.
    pub speaker: Speaker,
    /// What; tool results first, where there are any. Never empty.
    pub items: Vec<Item<'a>>,
}

/// A conversation as turns that alternate between the two speakers.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    /// All instructions, in their order, joined with an empty line; `None` without any.
    pub system: Option<String>,
    /// The turns; the first and the last are the user's.
    pub turns: Vec<Turn<'a>>,
    /// Parameters that were lost on the way.
    pub dropped: Vec<String>,
}

impl<'a> Conversation<'a> {
    /// Arranges the messages of a request.
    ///
    /// Instructions move to the front. A conversation of instructions alone is put to the model as the user's
    /// words, because somebody has to speak.
    ///
    /// # Errors
    /// [`Ineligible::Unsupported`] for what the dialects with turns do not have: images in instructions or in the
    /// model's words, and a conversation in which the model speaks first or last (their models would continue the
    /// text instead of answering, or reject it).
    pub fn of(request: &'a ChatRequest) -> Result<Self, Ineligible> {
        let unsupported = |what: &str| Err(Ineligible::Unsupported(what.to_owned()));
        let only_instructions = request.messages.iter().all(|message| message.role == Role::System);
        let mut system: Option<String> = None;
        let mut turns: Vec<Turn<'a>> = Vec::new();
        let mut dropped = Vec::new();
        for (index, message) in request.messages.iter().enumerate() {
            if message.name.is_some() && message.role != Role::Tool {
                note(&mut dropped, "messages.name");
            }
            let has_image = message.content.iter().any(|part| matches!(part, ContentPart::Image { .. }));
            let speaker = match message.role {
                Role::System if !only_instructions => {
                    if has_image {
                        return unsupported("images in system messages");
                    }
                    let text = message.text();
                    if !text.is_empty() {
                        match &mut system {
                            Some(system) => {
                                system.push_str("\n\n");
                                system.push_str(&text);
                            }
                            None => system = Some(text),
                        }
                    }
                    continue;
                }
                Role::System | Role::User | Role::Tool => Speaker::User,
                Role::Assistant if has_image => return unsupported("images in assistant messages"),
                Role::Assistant => Speaker::Model,
            };
            let mut items: Vec<Item<'a>> = Vec::with_capacity(1);
            if message.role == Role::Tool {
                let id = message.tool_call_id.as_deref().unwrap_or("");
                let name = called(&request.messages[..index], id).or(message.name.as_deref());
                items.push(Item::Result { message, id, name });
            } else {
                for part in &message.content {
                    match part {
                        // The dialects reject empty text.
                        ContentPart::Text(text) if text.is_empty() => {}
                        ContentPart::Text(text) => items.push(Item::Text(text)),
                        ContentPart::Image { url, detail } => {
                            if detail.as_deref().is_some_and(|detail| detail != "auto") {
                                note(&mut dropped, "image_url.detail");
                            }
                            items.push(Item::Image(url));
                        }
                    }
                }
                items.extend(message.tool_calls.iter().map(Item::Call));
            }
            if items.is_empty() {
                continue;
            }
            match turns.last_mut() {
                Some(turn) if turn.speaker == speaker => turn.items.extend(items),
                _ => turns.push(Turn { speaker, items }),
            }
        }
        for turn in &mut turns {
            // Results have to come before anything else in the turn that follows a call.
            turn.items.sort_by_key(|item| !matches!(item, Item::Result { .. }));
        }
        match (turns.first(), turns.last()) {
            (None, _) | (_, None) => unsupported("a conversation without words"),
            (Some(first), _) if first.speaker == Speaker::Model => {
                unsupported("a conversation that the assistant opens")
            }
            (_, Some(last)) if last.speaker == Speaker::Model => unsupported("a last message from the assistant"),
            _ => Ok(Self { system, turns, dropped }),
        }
    }
}

/// The name of the function that the call with this id called.
fn called<'a>(earlier: &'a [Message], id: &str) -> Option<&'a str> {
    earlier
        .iter()
        .rev()
        .flat_map(|message| &message.tool_calls)
        .find(|call| call.id == id)
        .map(|call| call.name.as_str())
}

/// What a model lacks by its capabilities.
///
/// # Errors
/// [`Ineligible::Unsupported`] names it.
pub(super) fn check(request: &ChatRequest, capabilities: &Capabilities) -> Result<(), Ineligible> {
    let images = || {
        request
            .messages
            .iter()
            .flat_map(|message| &message.content)
            .any(|part| matches!(part, ContentPart::Image { .. }))
    };
    let tools = || !request.tools.is_empty() || request.messages.iter().any(|message| !message.tool_calls.is_empty());
    let lacking = if capabilities.tools == Some(false) && tools() {
        "tools"
    } else if capabilities.images == Some(false) && images() {
        "images"
    } else if capabilities.json_schema == Some(false)
        && matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }))
    {
        "json_schema"
    } else {
        return Ok(());
    };
    Err(Ineligible::Unsupported(lacking.to_owned()))
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

/// Notes once what was dropped.
pub(super) fn note(dropped: &mut Vec<String>, what: &str) {
    if !dropped.iter().any(|noted| noted == what) {
        dropped.push(what.to_owned());
    }
}

/// A `data:` URL with base64 content: media type and data.
pub(super) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = kind.strip_suffix(";base64")?;
    Some((media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type), data))
}
