//! One more call of a rung whose answer was rejected: the conversation goes on with that answer and a message that
//! names its fault.
//!
//! A model that is told the fault mends it more often than one that is asked the same once more, and the rung that
//! answered is usually cheaper than the next one. A job asks a rung again at most once, regardless of the outcome.

use super::raw_object::RawObject;
use super::{Attempt, ChatRequest, SoftFailure};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A rejected answer with more bytes than this is not repeated: the model would be paid for reading it once more.
pub const MOST_ANSWER_BYTES: usize = 32 << 10;

/// The most characters of a fault that the model is told.
const MOST_FAULT: usize = 1_000;

/// What the model is told of a kind of unusable answer.
#[derive(Debug)]
pub struct Words {
    /// The fault; the validator's message follows.
    pub fault: &'static str,
    /// The task that the model is given.
    pub demand: &'static str,
}

/// A rejected answer, with as much of it as the model is shown again.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The attempt that brought it, by its number.
    pub number: i16,
    text: Option<String>,
    calls: Vec<Call>,
    told: String,
    /// There was no answer at all.
    is_nudge: bool,
}

/// A call of a function in a rejected answer.
#[derive(Clone, PartialEq, Eq)]
struct Call {
    id: String,
    name: String,
    /// A JSON object; empty where the model wrote something else, as not every provider takes that back.
    arguments: String,
    /// What a provider wants back with it.
    extra: Option<Value>,
}

/// Shows nothing of the answer: that may quote the prompt, and logs may not.
impl std::fmt::Debug for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejected").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Rejected {
    /// A rejected answer, given as the message of a chat completion, and the validator's `fault`. `None`: telling the
    /// model does not help, or there is nothing to repeat, or too much.
    #[must_use]
    pub fn of(answer: &Value, kind: SoftFailure, fault: &str, number: i16) -> Option<Self> {
        let words = kind.facts().reask.as_ref()?;
        let text = answer.get("content").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let listed = answer.get("tool_calls").and_then(Value::as_array);
        let calls: Vec<Call> = listed.into_iter().flatten().enumerate().map(|(at, call)| Call::of(at, call)).collect();
        let bytes = calls.iter().map(Call::bytes).fold(text.map_or(0, str::len), usize::saturating_add);
        if (text.is_none() && calls.is_empty()) || bytes > MOST_ANSWER_BYTES {
            return None;
        }
        let told = format!("{}: {}. {}", words.fault, plain(fault), words.demand);
        Some(Self { number, text: text.map(str::to_owned), calls, told, is_nudge: false })
    }

    /// What follows an empty turn that the model ended by itself: there is no answer to repeat, and the model is asked
    /// for one.
    #[must_use]
    pub fn nudge(number: i16) -> Self {
        let told = SoftFailure::Empty.facts().reask.as_ref().map(|words| format!("{}. {}", words.fault, words.demand));
        Self { number, text: None, calls: Vec::new(), told: told.unwrap_or_default(), is_nudge: true }
    }

    /// The request with the answer and its fault at the end of the conversation. `None`: the request has no
    /// conversation to go on with, or none that can hold the answer.
    #[must_use]
    pub fn ask_again(&self, request: &ChatRequest) -> Option<ChatRequest> {
        let mut body = RawObject::read(&request.raw).filter(|_| request.embed.is_none())?;
        // Without an offer of functions no provider takes calls of them back.
        let calls: &[Call] = if request.tools.is_empty() { &[] } else { &self.calls };
        let is_outdated = body.given("functions").is_some() && !calls.is_empty();
        if is_outdated || (self.text.is_none() && calls.is_empty() && !self.is_nudge) {
            return None;
        }
        let messages = match body.take("prompt").filter(|prompt| prompt != "null") {
            Some(prompt) => format!(r#"[{{"role":"user","content":{prompt}}}]"#),
            None => body.take("messages")?,
        };
        let mut messages: Vec<Box<RawValue>> = serde_json::from_str(&messages).ok()?;
        let mut add = |message: Value| messages.push(serde_json::value::to_raw_value(&message).expect(PLAIN));
        let mut answer = Map::new();
        answer.insert("role".into(), "assistant".into());
        answer.insert("content".into(), self.text.as_deref().into());
        if !calls.is_empty() {
            answer.insert("tool_calls".into(), calls.iter().map(Call::in_message).collect());
        }
        // No provider takes a turn without content back.
        if !self.is_nudge {
            add(answer.into());
        }
        if calls.is_empty() {
            add(json!({ "role": "user", "content": self.told }));
        }
        for call in calls {
            add(json!({ "role": "tool", "tool_call_id": call.id, "content": self.told }));
        }
        body.set_first("messages", &messages);
        let again = ChatRequest::read_text(&body.to_text()).ok()?;
        Some(ChatRequest { is_prompt: request.is_prompt, validate: request.validate.clone(), ..again })
    }
}

/// Why a message can be written as JSON.
const PLAIN: &str = "text and JSON values always serialize";

impl Call {
    fn of(place: usize, call: &Value) -> Self {
        let said = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let function = call.get("function");
        let of_function = |member: &str| said(function.and_then(|function| function.get(member)));
        let id = said(call.get("id"));
        let arguments = of_function("arguments");
        let is_object = serde_json::from_str::<Map<String, Value>>(&arguments).is_ok();
        Self {
            id: if id.is_empty() { format!("call_{place}") } else { id },
            name: of_function("name"),
            arguments: if is_object { arguments } else { "{}".to_owned() },
            extra: call.get("extra_content").cloned(),
        }
    }

    fn bytes(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| extra.to_string().len());
        [self.id.len(), self.name.len(), self.arguments.len(), extra].into_iter().fold(0, usize::saturating_add)
    }

    fn in_message(&self) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        let mut call = json!({ "id": self.id, "type": "function", "function": function });
        if let Some(extra) = &self.extra {
            call["extra_content"] = extra.clone();
        }
        call
    }
}

/// The fault without the names by which the ledger knows its kinds, and no longer than it may be.
fn plain(fault: &str) -> String {
    let bare = |part: &'_ str| {
        let named = SoftFailure::ALL.iter().find_map(|kind| part.strip_prefix(kind.as_str())?.strip_prefix(": "));
        named.unwrap_or(part).to_owned()
    };
    let told = fault.split("; ").map(bare).collect::<Vec<String>>().join("; ");
    match told.char_indices().nth(MOST_FAULT) {
        Some((end, _)) => format!("{}…", told.get(..end).unwrap_or_default()),
        None => told,
    }
}

/// Whether a rejected answer is an empty turn that the model ended by itself: Claude does so now and then, in the word
/// of its vendor, after two or three tokens. It goes on when it is asked to.
#[must_use]
pub fn is_empty_turn(kind: SoftFailure, finish: Option<&str>, output: Option<i64>) -> bool {
    kind == SoftFailure::Empty && finish == Some("end_turn") && output.is_some_and(|output| (1..=3).contains(&output))
}

/// Whether a job has asked a rung again, or is about to: it does so once.
#[must_use]
pub fn was_due(history: &[Attempt], rung: usize) -> bool {
    let is_one = |attempt: &Attempt| attempt.rejected.is_some() || was_made(attempt);
    history.iter().any(|attempt| attempt.rung == Some(rung) && is_one(attempt))
}

/// The attempt whose rejected answer the next call to this rung names, by its place in the history; `None`: the next
/// call asks as if for the first time. After any other outcome of a later call, the answer is not named any more; a
/// call that was turned away counts as not made.
#[must_use]
pub fn due(history: &[Attempt], rung: usize) -> Option<usize> {
    let mut due = None;
    for (place, attempt) in history.iter().enumerate().filter(|(_, attempt)| attempt.rung == Some(rung)) {
        if was_made(attempt) {
            return None;
        }
        match attempt.rejected {
            Some(_) => due = Some(place),
            None if attempt.was_turned_away() => {}
            None => due = None,
        }
    }
    due
}

fn was_made(attempt: &Attempt) -> bool {
    attempt.is_reask && !attempt.was_turned_away()
}

#[cfg(test)]
mod tests;
