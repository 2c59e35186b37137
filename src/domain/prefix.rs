//! The beginning that requests of a route share, which providers keep in their prompt caches: what is kept, and what a
//! request gets so that it is.

use super::estimate;
use super::raw_object::RawObject;
use super::request::{ChatRequest, Role};
use super::route::Target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::Duration;

/// Whether and how a route uses the prompt caches of providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptCaching {
    /// How long providers are asked to keep a beginning.
    pub life: CacheLife,
    /// Shorter beginnings are left alone; `None`: those that the provider does not keep.
    pub min_tokens: Option<i64>,
    /// How long calls wait at most for the first one with their beginning.
    pub wait: Duration,
}

/// How long a beginning is kept since it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLife {
    FiveMinutes,
    /// For more money, with vendors that sell it.
    Hour,
}

impl CacheLife {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::FiveMinutes, Self::Hour];

    /// The word for it, in configurations and in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
        }
    }

    /// The time itself.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::FiveMinutes => Duration::from_mins(5),
            Self::Hour => Duration::from_hours(1),
        }
    }
}

/// How a target keeps the beginnings of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptCache {
    pub form: CacheForm,
    /// Shorter beginnings are not kept, by its vendor's word.
    pub min_tokens: i64,
}

/// What a request needs so that its beginning is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheForm {
    /// A mark at its end.
    Marks {
        /// Whether a mark may ask for an hour.
        keeps_an_hour: bool,
    },
    /// Nothing, but requests that name the same key find it more often.
    Key,
    /// Nothing.
    ByItself,
}

/// A digest of a beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey([u8; 32]);

/// The beginning of a request: its tools, the form of its answer, and the instructions before the first turn. Requests
/// with the same key differ only behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub key: PrefixKey,
    /// How long it is, estimated.
    pub tokens: i64,
}

/// What a call does about the cache of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixPlan {
    /// The beginning at this target.
    pub key: PrefixKey,
    /// What the request gets; `None`: nothing.
    pub addition: Option<CacheAddition>,
    /// How long the beginning is kept since its last use.
    pub life: Duration,
    /// How long the call waits at most for the first one with the same beginning.
    pub wait: Duration,
}

/// What a request gets so that its beginning is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAddition {
    /// A mark at the end of the beginning.
    Mark(CacheLife),
    /// The key, which all requests with that beginning have in common.
    Key(PrefixKey),
}

/// OpenAI's member with the key.
const KEY_MEMBER: &str = "prompt_cache_key";

impl PrefixKey {
    /// The same beginning at a target: each keeps its own.
    fn at(self, target: &Target) -> Self {
        let mut digest = Sha256::new();
        digest.update(target.to_string());
        digest.update(self.0);
        Self(digest.finalize().into())
    }

    /// The key as requests name it. It tells two beginnings apart, and nothing of what they say.
    #[must_use]
    pub fn in_words(self) -> String {
        let mut words = String::from("sluice-");
        for byte in self.0.iter().take(16) {
            // Writing to a text cannot fail.
            let _ = write!(words, "{byte:02x}");
        }
        words
    }
}

impl Prefix {
    /// The beginning of a request; `None`: it has neither tools nor instructions before its first turn, or wants
    /// vectors.
    ///
    /// White space and the order of members say nothing. Everything else counts, to the byte.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Option<Self> {
        if request.embed.is_some() {
            return None;
        }
        let body = RawObject::read(&request.raw)?;
        let value = |name: &str| {
            let value = body.given(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
            value.filter(|value| value.as_array().is_none_or(|list| !list.is_empty()))
        };
        let tools = [value("tools"), value("functions")];
        let instructions = instructions(&body, leading(request));
        if instructions.is_empty() && tools.iter().all(Option::is_none) {
            return None;
        }
        // Members of objects are kept in the order of their names.
        let whole = json!([1, tools, value("response_format"), instructions]);
        let key = PrefixKey(Sha256::digest(whole.to_string()).into());
        Some(Self { key, tokens: estimate::prefix_tokens(request, leading(request)) })
    }

    /// What a call of this route to this target does about the cache there; `None`: nothing, because the beginning is
    /// too short.
    #[must_use]
    pub fn plan(&self, caching: &PromptCaching, cache: &PromptCache, target: &Target) -> Option<PrefixPlan> {
        if self.tokens < caching.min_tokens.unwrap_or(cache.min_tokens) {
            return None;
        }
        let (addition, life) = match cache.form {
            CacheForm::Marks { keeps_an_hour } => {
                let life = if keeps_an_hour { caching.life } else { CacheLife::FiveMinutes };
                (Some(CacheAddition::Mark(life)), life)
            }
            CacheForm::Key => (Some(CacheAddition::Key(self.key)), CacheLife::FiveMinutes),
            CacheForm::ByItself => (None, CacheLife::FiveMinutes),
        };
        Some(PrefixPlan { key: self.key.at(target), addition, life: life.duration(), wait: caching.wait })
    }
}

impl CacheAddition {
    /// The request with the addition, and the name of what was added; `None`: the request has one of its own, which is
    /// left as it is, or has no place for it.
    #[must_use]
    pub fn to(self, request: &ChatRequest) -> Option<(ChatRequest, &'static str)> {
        match self {
            Self::Mark(life) => mark(request, life).map(|request| (request, "cache_control")),
            Self::Key(key) => name_key(request, key).map(|request| (request, KEY_MEMBER)),
        }
    }
}

/// How many messages of instructions stand before the first turn. A request that has nothing but instructions asks by
/// them: they are its only turn.
fn leading(request: &ChatRequest) -> usize {
    let first_turn = request.messages.iter().position(|message| message.role != Role::System);
    first_turn.unwrap_or(0)
}

/// The first so many messages, as they are written.
fn instructions(body: &RawObject<'_>, leading: usize) -> Vec<Value> {
    let messages = body.given("messages").unwrap_or("[]");
    let messages: Vec<&RawValue> = serde_json::from_str(messages).unwrap_or_default();
    messages.into_iter().take(leading).filter_map(|message| serde_json::from_str(message.get()).ok()).collect()
}

/// Whether the author of a request has marked what is to be kept.
fn has_marks(request: &ChatRequest) -> bool {
    request.cache_control.is_some()
        || request.tools.iter().any(|tool| tool.cache_control.is_some())
        || request.messages.iter().any(|message| message.cache_control.is_some() || !message.cache_marks.is_empty())
}

/// Marks the last of the instructions before the first turn, or else the last tool.
fn mark(request: &ChatRequest, life: CacheLife) -> Option<ChatRequest> {
    if has_marks(request) {
        return None;
    }
    let mark = match life {
        CacheLife::FiveMinutes => json!({ "type": "ephemeral" }),
        CacheLife::Hour => json!({ "type": "ephemeral", "ttl": life.as_str() }),
    };
    let mut marked = request.clone();
    let instructions = marked.messages.iter_mut().take(leading(request));
    // A blank text is not sent, and so holds no mark.
    match instructions.rev().find(|message| !message.text().trim().is_empty()) {
        Some(last) => last.cache_control = Some(mark),
        None => marked.tools.last_mut()?.cache_control = Some(mark),
    }
    Some(marked)
}

/// Names the key in the body as it was written, from which OpenAI's dialects take it.
fn name_key(request: &ChatRequest, key: PrefixKey) -> Option<ChatRequest> {
    let mut body = RawObject::read(&request.raw).filter(|body| body.given(KEY_MEMBER).is_none())?;
    body.set(KEY_MEMBER, key.in_words().as_str());
    Some(ChatRequest { raw: body.to_text().into(), ..request.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CACHING: PromptCaching =
        PromptCaching { life: CacheLife::Hour, min_tokens: None, wait: Duration::from_mins(1) };

    fn read(body: &Value) -> ChatRequest {
        ChatRequest::read_text(&body.to_string()).unwrap()
    }

    fn asked(system: &str, question: &str) -> Value {
        json!({"messages": [{"role": "system", "content": system}, {"role": "user", "content": question}]})
    }

    fn key(body: &Value) -> PrefixKey {
        Prefix::of(&read(body)).unwrap().key
    }

    fn tool(name: &str) -> Value {
        json!([{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}])
    }

    #[test]
    fn what_stands_behind_the_instructions_says_nothing() {
        let plain = asked("Be brief.", "Hi");
        let mut longer = asked("Be brief.", "Another question");
        longer["temperature"] = json!(0.5);
        longer["max_tokens"] = json!(7);
        assert_eq!(key(&longer), key(&plain));
        let other_form = r#"{ "messages": [ {"content":"\u0042e brief.", "role":"system"},
            {"role":"user","content":[{"type":"text","text":"Ho"}]}, {"role":"system","content":"Late."} ] }"#;
        assert_eq!(Prefix::of(&ChatRequest::read_text(other_form).unwrap()).unwrap().key, key(&plain));
    }

    #[test]
    fn tools_instructions_and_the_form_of_the_answer_count() {
        let plain = asked("Be brief.", "Hi");
        let mut with_tools = plain.clone();
        with_tools["tools"] = tool("a");
        let mut with_others = plain.clone();
        with_others["tools"] = tool("b");
        let mut as_json = plain.clone();
        as_json["response_format"] = json!({"type": "json_object"});
        let mut two = plain.clone();
        two["messages"].as_array_mut().unwrap().insert(1, json!({"role": "developer", "content": "Be kind."}));
        let keys: std::collections::BTreeSet<_> =
            [&plain, &with_tools, &with_others, &as_json, &two, &asked("Be brief", "Hi")].map(key).into();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn a_request_without_instructions_and_tools_begins_like_no_other() {
        for body in [
            json!({"prompt": "Hi"}),
            json!({"input": "Hi"}),
            json!({"messages": [{"role": "user", "content": "Hi"}], "tools": []}),
            json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Late."}]}),
            // Its instructions are what it asks.
            json!({"messages": [{"role": "system", "content": "Say hi."}]}),
        ] {
            assert_eq!(Prefix::of(&read(&body)), None, "{body}");
        }
        let alone = json!({"prompt": "Hi", "tools": tool("a")});
        assert!(Prefix::of(&read(&alone)).is_some());
    }

    #[test]
    fn short_beginnings_are_left_alone() {
        let prefix = Prefix::of(&read(&asked(&"word ".repeat(1_000), "Hi"))).unwrap();
        assert!((1_200..1_300).contains(&prefix.tokens), "{}", prefix.tokens);
        let target = Target::new("p", "m");
        let of = |form, min_tokens| PromptCache { form, min_tokens };
        let marks = CacheForm::Marks { keeps_an_hour: true };
        for (own, vendors, is_used) in
            [(None, 1_024, true), (None, 4_096, false), (Some(10), 4_096, true), (Some(2_000), 1_024, false)]
        {
            let caching = PromptCaching { min_tokens: own, ..CACHING };
            let plan = prefix.plan(&caching, &of(marks, vendors), &target);
            assert_eq!(plan.is_some(), is_used, "{own:?} {vendors}");
        }
        let plan = |form| prefix.plan(&CACHING, &of(form, 1_024), &target).unwrap();
        let told = |form| (plan(form).addition, plan(form).life);
        let minutes = Duration::from_mins(5);
        assert_eq!(told(marks), (Some(CacheAddition::Mark(CacheLife::Hour)), Duration::from_hours(1)));
        let short = CacheForm::Marks { keeps_an_hour: false };
        assert_eq!(told(short), (Some(CacheAddition::Mark(CacheLife::FiveMinutes)), minutes));
        assert_eq!(told(CacheForm::Key), (Some(CacheAddition::Key(prefix.key)), minutes));
        assert_eq!(told(CacheForm::ByItself), (None, minutes));
        let elsewhere = prefix.plan(&CACHING, &of(marks, 0), &Target::new("p", "n")).unwrap();
        assert_ne!(elsewhere.key, plan(marks).key);
    }

    #[test]
    fn a_mark_stands_behind_the_last_instructions_or_the_last_tool() {
        let hour = CacheAddition::Mark(CacheLife::Hour);
        let mut body = asked("Be brief.", "Hi");
        body["tools"] = tool("a");
        body["messages"].as_array_mut().unwrap().insert(1, json!({"role": "system", "content": " "}));
        body["messages"].as_array_mut().unwrap().push(json!({"role": "system", "content": "Late."}));
        let (marked, what) = hour.to(&read(&body)).unwrap();
        assert_eq!(what, "cache_control");
        let marks: Vec<bool> = marked.messages.iter().map(|message| message.cache_control.is_some()).collect();
        assert_eq!(marks, [true, false, false, false]);
        assert_eq!(marked.messages[0].cache_control, Some(json!({"type": "ephemeral", "ttl": "1h"})));
        assert_eq!(marked.tools[0].cache_control, None);
        let alone = read(&json!({"prompt": "Hi", "tools": tool("a")}));
        let (marked, _) = CacheAddition::Mark(CacheLife::FiveMinutes).to(&alone).unwrap();
        assert_eq!(marked.tools[0].cache_control, Some(json!({"type": "ephemeral"})));
    }

    #[test]
    fn a_request_with_marks_or_a_key_of_its_own_is_left_as_it_is() {
        let hour = CacheAddition::Mark(CacheLife::Hour);
        let own = json!({"type": "ephemeral"});
        let mut whole = asked("Be brief.", "Hi");
        whole["cache_control"] = own.clone();
        let mut in_turn = asked("Be brief.", "Hi");
        in_turn["messages"][1]["cache_control"] = own.clone();
        let mut in_part = asked("Be brief.", "Hi");
        in_part["messages"][1]["content"] = json!([{"type": "text", "text": "Hi", "cache_control": own}]);
        let mut in_tool = asked("Be brief.", "Hi");
        in_tool["tools"] = tool("a");
        in_tool["tools"][0]["cache_control"] = own;
        for body in [&whole, &in_turn, &in_part, &in_tool] {
            assert!(hour.to(&read(body)).is_none(), "{body}");
        }
        let mut named = asked("Be brief.", "Hi");
        let key = CacheAddition::Key(key(&named));
        let (with_key, what) = key.to(&read(&named)).unwrap();
        let sent: Value = serde_json::from_str(&with_key.raw).unwrap();
        let name = sent[what].as_str().unwrap();
        assert!(name.starts_with("sluice-") && name.len() == 39 && !name.contains("brief"), "{name}");
        named["prompt_cache_key"] = json!("mine");
        assert!(key.to(&read(&named)).is_none());
    }

    proptest! {
        #[test]
        fn the_same_beginning_has_the_same_key_and_one_other_letter_another(
            system in "[a-z ]{1,40}", first in ".{1,20}", second in ".{1,20}", place in 0_usize..40,
        ) {
            let plain = key(&asked(&system, &first));
            prop_assert_eq!(key(&asked(&system, &second)), plain);
            let mut letters: Vec<char> = system.chars().collect();
            let place = place % letters.len();
            letters[place] = 'X';
            let other: String = letters.into_iter().collect();
            prop_assert_ne!(key(&asked(&other, &first)), plain);
        }
    }
}
