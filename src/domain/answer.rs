//! What a provider answered, in one shape for all dialects.

use super::{Finish, NanoUsd, Usage, Vectors};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// So many bytes an answer as it is kept has beside its texts, as a rule.
const BESIDE_TEXTS: usize = 600;

/// A call that the model wants made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call; made up from its position when the dialect has none.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON text, as the model wrote it.
    pub arguments: String,
}

/// A decoded answer. Validation decides whether it is any good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// All text parts, joined; `None` when the provider sent none.
    pub text: Option<String>,
    /// Text with which the model declined, where the dialect tells it apart.
    pub refusal: Option<String>,
    /// Reasoning that the provider showed apart from the answer. Never promoted to an answer.
    pub reasoning: Option<String>,
    /// Tools the model asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Why generation ended.
    pub finish: Finish,
    /// The reason in the provider's own word.
    pub finish_raw: Option<String>,
    /// The model that the provider says it used.
    pub model: Option<String>,
    /// The provider's id of the answer (`chatcmpl-…`, `msg_…`).
    pub id: Option<String>,
    /// Tokens, normalised.
    pub usage: Usage,
    /// The provider's usage object as it came: prices can be recomputed from it.
    pub usage_raw: Option<Value>,
    /// The vectors, in place of a text, of an answer to a request for embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,
    /// Everything else that came with the answer.
    #[serde(default)]
    pub beside: Beside,
}

/// What an answer holds beside its text and its token counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// The tier that served it, in the provider's word.
    pub service_tier: Option<String>,
    /// What the provider says it cost.
    pub cost: Option<NanoUsd>,
    /// Further members of the completion (`system_fingerprint`, `provider`, …).
    pub completion: Map<String, Value>,
    /// Further members of the choice (`logprobs`, …).
    pub choice: Map<String, Value>,
    /// Further members of the message (`annotations`, `audio`, …).
    pub message: Map<String, Value>,
    /// Further members of each tool call (`extra_content`), by its place.
    pub tool_calls: Vec<Map<String, Value>>,
    /// Repairs that reading the answer needed, and other facts that are worth a note.
    pub notes: Vec<String>,
    /// The request's own function names by the names under which they were sent, where these differ: a model that
    /// writes a call into its text uses the name that it was given. For the judgement of the answer alone.
    #[serde(skip)]
    pub sent_names: BTreeMap<String, String>,
}

impl Beside {
    /// The most that further members may have, in bytes. Log probabilities of a long answer come to some megabytes.
    pub const MOST_BYTES: usize = 8 << 20;

    /// All members that hold JSON.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Map<String, Value>> {
        let Self { completion, choice, message, tool_calls, .. } = self;
        [completion, choice, message].into_iter().chain(tool_calls)
    }

    /// The size of each member, in bytes.
    fn sizes(&self) -> impl Iterator<Item = (usize, usize, &String)> {
        let members = [&self.completion, &self.choice, &self.message].into_iter().chain(&self.tool_calls);
        members.enumerate().flat_map(|(place, members)| {
            members.iter().map(move |(key, value)| (key.len().saturating_add(written_length(value)), place, key))
        })
    }

    /// Leaves out the largest members until the rest is small enough to be kept, and notes which.
    pub fn shorten(&mut self, most: usize) {
        const NAMED: usize = 5;
        if self.sizes().fold(0, |sum: usize, (size, ..)| sum.saturating_add(size)) <= most {
            return;
        }
        let mut sizes: Vec<(usize, usize, String)> =
            self.sizes().map(|(size, place, key)| (size, place, key.clone())).collect();
        let mut total = sizes.iter().fold(0, |sum: usize, (size, ..)| sum.saturating_add(*size));
        sizes.sort_unstable();
        let mut dropped = Vec::new();
        while total > most {
            let Some((size, place, key)) = sizes.pop() else { break };
            total = total.saturating_sub(size);
            if let Some(members) = self.members_mut().nth(place) {
                members.remove(&key);
            }
            dropped.push(key);
        }
        let names = dropped.iter().take(NAMED).map(|name| name.chars().take(60).collect());
        let mut names = names.collect::<Vec<String>>().join(", ");
        if dropped.len() > NAMED {
            // Writing to a string cannot fail.
            let _ = write!(names, " and {} more", dropped.len() - NAMED);
        }
        self.notes.push(format!("too large to be kept: {names}"));
    }
}

impl Answer {
    /// The texts that the model has written: what it says, thinks and calls.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let texts = [&self.text, &self.reasoning, &self.refusal].into_iter().flatten().map(String::as_str);
        texts.chain(self.tool_calls.iter().flat_map(|call| [call.name.as_str(), call.arguments.as_str()]))
    }

    /// How many characters the model has written.
    #[must_use]
    pub fn characters(&self) -> usize {
        self.texts().map(|text| text.chars().count()).fold(0, usize::saturating_add)
    }

    /// The approximate size, in bytes, of the answer as it is stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [&self.text, &self.reasoning, &self.refusal].into_iter().flatten().map(String::len);
        let calls = self.tool_calls.iter().map(|call| call.arguments.len());
        let beside = self.beside.sizes().map(|(size, ..)| size);
        let vectors = self.vectors.iter().map(Vectors::bytes);
        texts.chain(calls).chain(beside).chain(vectors).fold(0, usize::saturating_add)
    }

    /// The answer as results, exports and the ledger hold it, whichever provider gave it: an OpenAI chat completion or
    /// list of embeddings. It has no NUL.
    #[must_use]
    pub fn to_openai(&self, model: &str, created_seconds: i64) -> String {
        if let Some(vectors) = &self.vectors {
            return self.to_embeddings(vectors, model);
        }
        let whole = self.chat_completion(model, created_seconds);
        let texts: usize = self.texts().map(str::len).sum();
        let mut text = Vec::with_capacity(texts.saturating_add(texts / 16).saturating_add(BESIDE_TEXTS));
        serde_json::to_writer(&mut text, &whole).expect("texts, numbers and JSON values always serialize");
        let text = String::from_utf8(text).expect("JSON is written in UTF-8");
        // A NUL is always written as this escape. Few answers have one, and looking for it here is cheap.
        if text.contains("\\u0000") { without_nul(whole.into_value()).to_string() } else { text }
    }

    /// The vectors as OpenAI's list of embeddings: as numbers, however they came. Written at once, as a value for each
    /// of a million numbers would take much memory. A number that JSON does not have becomes null.
    fn to_embeddings(&self, vectors: &Vectors, model: &str) -> String {
        #[derive(Serialize)]
        struct List<'a> {
            object: &'static str,
            data: Vec<Item<'a>>,
            model: Value,
            usage: Value,
            #[serde(flatten)]
            others: Value,
        }
        #[derive(Serialize)]
        struct Item<'a> {
            object: &'static str,
            index: usize,
            embedding: &'a [f32],
        }
        let data = vectors
            .list()
            .iter()
            .enumerate()
            .map(|(index, embedding)| Item { object: "embedding", index, embedding })
            .collect();
        let mut usage = match &self.usage_raw {
            Some(Value::Object(raw)) if raw.contains_key("prompt_tokens") => raw.clone(),
            _ => Map::new(),
        };
        usage.insert("prompt_tokens".into(), self.usage.total_input().into());
        usage.insert("total_tokens".into(), self.usage.total_input().saturating_add(self.usage.output).into());
        let mut others = self.beside.completion.clone();
        for ours in ["object", "data", "model", "usage"] {
            others.remove(ours);
        }
        if let Some(id) = &self.id {
            others.insert("id".into(), id.as_str().into());
        }
        let list = List {
            object: "list",
            data,
            model: without_nul(self.model.as_deref().unwrap_or(model).into()),
            usage: without_nul(Value::Object(usage)),
            others: without_nul(Value::Object(others)),
        };
        serde_json::to_string(&list).expect("numbers, names and JSON values always serialize")
    }

    /// The answer as an OpenAI chat completion, the form in which results and exports hold it whichever provider
    /// answered. It includes everything that came with the answer beside its text, in OpenAI's words where it has any.
    ///
    /// NUL characters are replaced with U+FFFD because Postgres cannot store them.
    #[must_use]
    pub fn to_chat_completion(&self, model: &str, created_seconds: i64) -> Value {
        without_nul(self.chat_completion(model, created_seconds).into_value())
    }

    /// The same, with what NUL characters it has.
    fn chat_completion<'a>(&'a self, model: &'a str, created_seconds: i64) -> OwnMembers<'a> {
        let Beside { service_tier, completion, choice, message, .. } = &self.beside;
        let mut message = OwnMembers::over(message);
        message.set("role", OwnMember::Text("assistant"));
        message.set("content", self.text.as_deref().map_or(OwnMember::Null, OwnMember::Text));
        if let Some(refusal) = &self.refusal {
            message.set("refusal", OwnMember::Text(refusal));
        }
        if let Some(reasoning) = &self.reasoning {
            message.set("reasoning_content", OwnMember::Text(reasoning));
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().enumerate().map(|(index, call)| {
                let beside = self.beside.tool_calls.get(index);
                let mut members = beside.map_or_else(OwnMembers::default, OwnMembers::over);
                members.set("id", OwnMember::Text(&call.id));
                members.set("type", OwnMember::Text("function"));
                let mut function = OwnMembers::default();
                function.set("name", OwnMember::Text(&call.name));
                function.set("arguments", OwnMember::Text(&call.arguments));
                members.set("function", OwnMember::Object(function));
                members
            });
            message.set("tool_calls", OwnMember::List(calls.collect()));
        }
        let finish = self.finish.as_openai();
        let mut choice = OwnMembers::over(choice);
        if let Some(raw) = self.finish_raw.as_deref().filter(|raw| *raw != finish) {
            choice.0.entry("native_finish_reason").or_insert(OwnMember::Text(raw));
        }
        choice.set("index", OwnMember::Number(0));
        choice.set("message", OwnMember::Object(message));
        choice.set("finish_reason", OwnMember::Text(finish));
        let mut whole = OwnMembers::over(completion);
        whole.set("id", OwnMember::Text(self.id.as_deref().unwrap_or("")));
        whole.set("object", OwnMember::Text("chat.completion"));
        whole.set("created", OwnMember::Number(created_seconds));
        whole.set("model", OwnMember::Text(self.model.as_deref().unwrap_or(model)));
        if let Some(tier) = service_tier {
            whole.set("service_tier", OwnMember::Text(tier));
        }
        whole.set("choices", OwnMember::List(vec![choice]));
        whole.set("usage", OwnMember::Object(self.usage_as_openai()));
        whole
    }

    /// The counts in OpenAI's words, with the other members that a usage object of that form holds.
    fn usage_as_openai(&self) -> OwnMembers<'_> {
        let usage = &self.usage;
        let raw = match &self.usage_raw {
            Some(Value::Object(raw)) if raw.contains_key("prompt_tokens") || raw.contains_key("completion_tokens") => {
                Some(raw)
            }
            _ => None,
        };
        let mut whole = raw.map_or_else(OwnMembers::default, OwnMembers::over);
        whole.set("prompt_tokens", OwnMember::Number(usage.total_input()));
        whole.set("completion_tokens", OwnMember::Number(usage.output));
        whole.set("total_tokens", OwnMember::Number(usage.total_input().saturating_add(usage.output)));
        let details = |name: &str| {
            let details = raw.and_then(|raw| raw.get(name)).and_then(Value::as_object);
            details.map_or_else(OwnMembers::default, OwnMembers::over)
        };
        let mut of_prompt = details("prompt_tokens_details");
        of_prompt.set("cached_tokens", OwnMember::Number(usage.cache_read));
        let written = usage.cache_write.saturating_add(usage.cache_write_1h);
        if written > 0 {
            of_prompt.set("cache_write_tokens", OwnMember::Number(written));
        }
        let mut of_completion = details("completion_tokens_details");
        of_completion.set("reasoning_tokens", OwnMember::Number(usage.reasoning));
        whole.set("prompt_tokens_details", OwnMember::Object(of_prompt));
        whole.set("completion_tokens_details", OwnMember::Object(of_completion));
        whole
    }
}

/// The members of an object that is written: those that came, and our own over them. Nothing of them is copied.
#[derive(Default)]
struct OwnMembers<'a>(BTreeMap<&'a str, OwnMember<'a>>);

enum OwnMember<'a> {
    Came(&'a Value),
    Null,
    Text(&'a str),
    Number(i64),
    Object(OwnMembers<'a>),
    List(Vec<OwnMembers<'a>>),
}

impl<'a> OwnMembers<'a> {
    fn over(came: &'a Map<String, Value>) -> Self {
        Self(came.iter().map(|(name, value)| (name.as_str(), OwnMember::Came(value))).collect())
    }

    fn set(&mut self, name: &'a str, member: OwnMember<'a>) {
        self.0.insert(name, member);
    }

    fn into_value(self) -> Value {
        self.0.into_iter().map(|(name, member)| (name.to_owned(), member.into_value())).collect()
    }
}

impl OwnMember<'_> {
    fn into_value(self) -> Value {
        match self {
            Self::Came(value) => value.clone(),
            Self::Null => Value::Null,
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Object(members) => members.into_value(),
            Self::List(items) => items.into_iter().map(OwnMembers::into_value).collect(),
        }
    }
}

impl Serialize for OwnMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

impl Serialize for OwnMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Came(value) => value.serialize(serializer),
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Object(members) => members.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
        }
    }
}

/// How many bytes a value has as a text of JSON.
#[must_use]
pub fn written_length(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("JSON values always serialize, and counting cannot fail");
    count.0
}

/// Removes NUL from texts and names: Postgres can keep it in neither.
fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(members) => members.into_iter().map(|(key, member)| (clean(key), without_nul(member))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_as_it_is_kept_has_no_nul_wherever_the_provider_put_one() {
        let answer = |text: &str| Answer {
            text: Some(text.to_owned()),
            refusal: None,
            reasoning: None,
            tool_calls: Vec::new(),
            finish: Finish::Complete,
            finish_raw: None,
            model: None,
            id: None,
            usage: Usage::default(),
            usage_raw: None,
            vectors: None,
            beside: Beside::default(),
        };
        let without = answer(r"a\u0000");
        let mut answer = answer("a\0b");
        answer.beside.message.insert("k\0".into(), json!(["\0", r"\u0000"]));
        let kept = answer.to_openai("m", 7);
        let value: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(value, answer.to_chat_completion("m", 7));
        let message = &value["choices"][0]["message"];
        assert_eq!(
            (&message["content"], &message["k\u{fffd}"]),
            (&json!("a\u{fffd}b"), &json!(["\u{fffd}", r"\u0000"]))
        );
        assert!(without.to_openai("m", 7).contains(r"a\\u0000"));
    }

    #[test]
    fn what_is_too_large_to_be_kept_is_left_out_by_name_and_the_rest_is_kept() {
        let mut beside = Beside::default();
        beside.choice.insert("logprobs".into(), Value::from("x".repeat(1_000)));
        beside.message.insert("annotations".into(), json!([1]));
        beside.completion.insert("provider".into(), "a".into());
        beside.shorten(100);
        assert_eq!((beside.choice.len(), beside.message.len(), beside.completion.len()), (0, 1, 1));
        assert_eq!(beside.notes, ["too large to be kept: logprobs"]);
        // Many small ones, in no more than one go.
        beside.completion = (0..200_000).map(|index| (format!("member_{index}"), Value::from(index))).collect();
        beside.notes.clear();
        beside.shorten(1_000);
        assert!(beside.completion.len() < 150, "{}", beside.completion.len());
        assert!(beside.notes[0].ends_with(" more") && beside.notes[0].len() < 200, "{:?}", beside.notes);
    }
}
