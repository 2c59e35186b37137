//! What a provider answered, in one shape for all dialects.

use super::{Finish, NanoUsd, Usage, Vectors};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

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
            members.iter().map(move |(key, value)| (key.len().saturating_add(value.to_string().len()), place, key))
        })
    }

    /// Leaves out the largest members until the rest is small enough to be kept, and notes which.
    pub fn shorten(&mut self, most: usize) {
        const NAMED: usize = 5;
        let mut sizes: Vec<(usize, usize, String)> =
            self.sizes().map(|(size, place, key)| (size, place, key.clone())).collect();
        let mut total = sizes.iter().fold(0, |sum: usize, (size, ..)| sum.saturating_add(*size));
        if total <= most {
            return;
        }
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
        let text = whole.to_string();
        // A NUL is always written as this escape. Few answers have one, and looking for it here is cheap.
        if text.contains("\\u0000") { without_nul(whole).to_string() } else { text }
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
        without_nul(self.chat_completion(model, created_seconds))
    }

    /// The same, with what NUL characters it has.
    fn chat_completion(&self, model: &str, created_seconds: i64) -> Value {
        let Beside { service_tier, completion, choice, message, .. } = &self.beside;
        let mut message = message.clone();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.text.as_deref().into());
        if let Some(refusal) = &self.refusal {
            message.insert("refusal".into(), refusal.as_str().into());
        }
        if let Some(reasoning) = &self.reasoning {
            message.insert("reasoning_content".into(), reasoning.as_str().into());
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().enumerate().map(|(index, call)| {
                let mut members = self.beside.tool_calls.get(index).cloned().unwrap_or_default();
                members.insert("id".into(), call.id.as_str().into());
                members.insert("type".into(), "function".into());
                members.insert("function".into(), json!({ "name": call.name, "arguments": call.arguments }));
                Value::Object(members)
            });
            message.insert("tool_calls".into(), calls.collect());
        }
        let finish = self.finish.as_openai();
        let mut choice = choice.clone();
        if let Some(raw) = self.finish_raw.as_deref().filter(|raw| *raw != finish) {
            choice.entry("native_finish_reason").or_insert_with(|| raw.into());
        }
        choice.insert("index".into(), 0.into());
        choice.insert("message".into(), message.into());
        choice.insert("finish_reason".into(), finish.into());
        let mut whole = completion.clone();
        whole.insert("id".into(), self.id.as_deref().unwrap_or("").into());
        whole.insert("object".into(), "chat.completion".into());
        whole.insert("created".into(), created_seconds.into());
        whole.insert("model".into(), self.model.as_deref().unwrap_or(model).into());
        if let Some(tier) = service_tier {
            whole.insert("service_tier".into(), tier.as_str().into());
        }
        whole.insert("choices".into(), json!([choice]));
        whole.insert("usage".into(), self.usage_as_openai());
        Value::Object(whole)
    }

    /// The counts in OpenAI's words, with the other members that a usage object of that form holds.
    fn usage_as_openai(&self) -> Value {
        let usage = &self.usage;
        let mut whole = match &self.usage_raw {
            Some(Value::Object(raw)) if raw.contains_key("prompt_tokens") || raw.contains_key("completion_tokens") => {
                raw.clone()
            }
            _ => Map::new(),
        };
        let mut put = |key: &str, count: i64| whole.insert(key.to_owned(), count.into());
        put("prompt_tokens", usage.total_input());
        put("completion_tokens", usage.output);
        put("total_tokens", usage.total_input().saturating_add(usage.output));
        let written = usage.cache_write.saturating_add(usage.cache_write_1h);
        for (details, key, count) in [
            ("prompt_tokens_details", "cached_tokens", usage.cache_read),
            ("prompt_tokens_details", "cache_write_tokens", written),
            ("completion_tokens_details", "reasoning_tokens", usage.reasoning),
        ] {
            let details = whole.entry(details).or_insert_with(|| json!({}));
            if !details.is_object() {
                *details = json!({});
            }
            if key != "cache_write_tokens" || count > 0 {
                details[key] = count.into();
            }
        }
        Value::Object(whole)
    }
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
