//! Token counts in OpenAI's words, and in those of the compatible servers and gateways.

use crate::domain::{Usage, UsageSource};
use crate::provider::quirks::Quirks;
use crate::provider::reply_body::{Parsed, count};
use crate::provider::usage_places::{Counted, UsagePlaces};
use serde_json::{Map, Value, json};

const TOTAL: &[&str] = &["/total_tokens", "/totalTokens"];
const PROMPT: &[&str] = &["/prompt_tokens", "/input_tokens", "/promptTokens", "/inputTokens"];
const COMPLETION: &[&str] = &["/completion_tokens", "/output_tokens", "/completionTokens", "/outputTokens"];
const READ: &[&str] = &[
    "/prompt_tokens_details/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/prompt_token_details/cached_tokens",
    "/prompt_tokens_details/cache_read_tokens",
    "/prompt_tokens_details/cache_read_input_tokens",
    "/cache_read_input_tokens",
    "/cacheReadInputTokens",
    "/cache_read_tokens",
    "/prompt_cache_hit_tokens",
    "/num_cached_tokens",
    "/cached_tokens",
];
/// Words for cached tokens that are a part of the prompt, with all vendors except those that also count reasoning
/// apart.
const READ_OF_PROMPT: &[&str] = &[
    "/prompt_tokens_details/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/prompt_token_details/cached_tokens",
];
/// LiteLLM, OpenRouter, Envoy, new-api, Bedrock behind a gateway: each has its own words for the same count.
const WRITTEN: &[&str] = &[
    "/prompt_tokens_details/cache_write_tokens",
    "/input_tokens_details/cache_write_tokens",
    "/prompt_tokens_details/cache_creation_tokens",
    "/prompt_tokens_details/cached_creation_tokens",
    "/prompt_tokens_details/cache_creation_input_tokens",
    "/prompt_tokens_details/cached_write_tokens",
    "/prompt_tokens_details/cache_write_input_tokens",
    "/cache_creation_input_tokens",
    "/cache_write_input_tokens",
    "/cacheWriteInputTokens",
    "/cache_creation_tokens",
    "/cache_write_tokens",
    "/prompt_cache_write_tokens",
];
const WRITTEN_1H: &[&str] = &[
    "/cache_creation/ephemeral_1h_input_tokens",
    "/prompt_tokens_details/cache_creation_token_details/ephemeral_1h_input_tokens",
    "/prompt_tokens_details/cache_write_tokens_details/ttl_12h_tokens",
    "/input_tokens_details/cache_write_tokens_details/ttl_12h_tokens",
    "/claude_cache_creation_1_h_tokens",
];
const WRITTEN_5M: &[&str] = &[
    "/cache_creation/ephemeral_5m_input_tokens",
    "/prompt_tokens_details/cache_creation_token_details/ephemeral_5m_input_tokens",
    "/prompt_tokens_details/cache_write_tokens_details/ttl_30m_tokens",
    "/input_tokens_details/cache_write_tokens_details/ttl_30m_tokens",
    "/claude_cache_creation_5_m_tokens",
];
const REASONING: &[&str] = &[
    "/completion_tokens_details/reasoning_tokens",
    "/output_tokens_details/reasoning_tokens",
    "/reasoning_tokens",
    "/reasoningTokens",
];

/// A usage as it came, and the names of its members. Servers count at some forty places, and each answer has a few of
/// them: most are told by their first name not to be there.
struct Counts<'a> {
    raw: &'a Value,
    names: Vec<&'a str>,
}

impl<'a> Counts<'a> {
    fn of(raw: &'a Value) -> Self {
        let names = raw.as_object().map(|members| members.keys().map(String::as_str).collect()).unwrap_or_default();
        Self { raw, names }
    }

    fn count(&self, place: &str) -> Option<i64> {
        let path = place.strip_prefix('/')?;
        let leads_on = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let is_there = self.names.iter().any(|name| path.strip_prefix(name).is_some_and(leads_on));
        if is_there { count(self.raw, place) } else { None }
    }

    /// The count at the first of these places that has one.
    fn first(&self, places: &[&str]) -> Option<i64> {
        places.iter().find_map(|place| self.count(place))
    }

    /// The largest count at these places. Zero under one word does not hide a count under another: gateways fill both.
    fn most(&self, places: &[&str]) -> i64 {
        places.iter().filter_map(|place| self.count(place)).max().unwrap_or(0)
    }
}

/// Tokens in disjoint classes.
///
/// The total decides which count includes which, as far as it adds up. Without a total, cached tokens are part of the
/// prompt unless there are more of them than of all, or the words are Anthropic's. Reasoning is part of the completion
/// unless there is more of it, or the host's habit says otherwise. Tokens that a total has beyond the parts were
/// generated and not shown: they are billed as output. A total below its parts is not believed.
pub(in crate::provider) fn usage(quirks: &Quirks, raw: &Value) -> Usage {
    let counts = Counts::of(raw);
    let first = |places: &[&str]| counts.first(places);
    let most = |places: &[&str]| counts.most(places);
    let total = first(TOTAL);
    let (prompt, completion) = (first(PROMPT), first(COMPLETION));
    if prompt.is_none() && completion.is_none() {
        return Usage::default();
    }
    let left = |other: Option<i64>| total.unwrap_or(0).saturating_sub(other.unwrap_or(0)).max(0);
    let prompt = prompt.unwrap_or_else(|| left(completion));
    let completion = completion.unwrap_or_else(|| left(Some(prompt)));

    let (mut read, mut for_an_hour, for_minutes) = (most(READ), most(WRITTEN_1H), most(WRITTEN_5M));
    let mut written = most(WRITTEN).max(for_an_hour.saturating_add(for_minutes));
    for_an_hour = for_an_hour.min(written);
    let cached = read.saturating_add(written);
    let adds_up = |input: i64| total == Some(input.saturating_add(completion));
    let of_prompt = written == 0 && read == most(READ_OF_PROMPT) && !quirks.reasoning_outside;
    let native = raw.get("prompt_tokens").is_none() && raw.get("cache_read_input_tokens").is_some();
    let input = if cached == 0 {
        prompt
    } else if adds_up(prompt) {
        // The total leaves no room for a cache beside the prompt.
        if cached > prompt {
            (read, written, for_an_hour) = (0, 0, 0);
            prompt
        } else {
            prompt - cached
        }
    } else if adds_up(prompt.saturating_add(cached)) {
        prompt
    } else if written > 0 && read <= prompt && adds_up(prompt.saturating_add(written)) {
        prompt - read
    } else if cached > prompt && of_prompt && total.is_none() {
        read = 0;
        prompt
    } else if cached > prompt || native {
        prompt
    } else {
        prompt - cached
    };

    let all_input = input.saturating_add(read).saturating_add(written);
    let reasoning = first(REASONING).unwrap_or(0);
    let beyond = total.map_or(0, |total| total.saturating_sub(all_input).saturating_sub(completion)).max(0);
    let is_outside = beyond > 0 || reasoning > completion || (quirks.reasoning_outside && !adds_up(all_input));
    let output = match (is_outside, total) {
        // The total says how much there is outside.
        (true, _) if beyond > 0 => completion.saturating_add(beyond),
        (true, Some(_)) if adds_up(all_input) => completion,
        (true, _) => completion.saturating_add(reasoning),
        (false, _) => completion,
    };
    let reasoning = reasoning.max(if beyond > 0 { beyond } else { 0 }).min(output);
    Usage {
        input,
        cache_read: read,
        cache_write: written - for_an_hour,
        cache_write_1h: for_an_hour,
        output,
        reasoning,
        source: UsageSource::Provider,
    }
}

/// Puts the counts of a body that are where the operator says into its usage, under OpenAI's words: they count in place
/// of what the usage says of the same. Returns a note on each place where nothing is found that every answer has.
pub(super) fn gather(places: &UsagePlaces, parsed: &mut Parsed) -> Vec<String> {
    let (found, lost) = (places.counts(parsed), places.lost(parsed));
    if found.is_empty() {
        return lost;
    }
    let Value::Object(body) = &mut parsed.value else { return lost };
    let mut usage = match body.remove("usage") {
        Some(Value::Object(usage)) => usage,
        _ => Map::new(),
    };
    for (what, tokens) in found {
        let (elsewhere, ours): (&[&str], &str) = match what {
            Counted::Input => (PROMPT, "prompt_tokens"),
            Counted::Output => (COMPLETION, "completion_tokens"),
            Counted::CachedInput => (READ, "cached_tokens"),
            Counted::Reasoning => (REASONING, "reasoning_tokens"),
        };
        // A total that was told beside other counts says nothing of these.
        elsewhere.iter().chain(TOTAL).for_each(|pointer| remove(&mut usage, pointer));
        let details = match what {
            Counted::Input | Counted::Output => &mut usage,
            Counted::CachedInput => members(&mut usage, "prompt_tokens_details"),
            Counted::Reasoning => members(&mut usage, "completion_tokens_details"),
        };
        details.insert(ours.to_owned(), json!(tokens));
    }
    body.insert("usage".to_owned(), Value::Object(usage));
    lost
}

/// Removes the member at a pointer of one or two names.
fn remove(usage: &mut Map<String, Value>, pointer: &str) {
    match pointer.trim_start_matches('/').split_once('/') {
        None => drop(usage.remove(&pointer[1..])),
        Some((outer, inner)) => {
            if let Some(Value::Object(inside)) = usage.get_mut(outer) {
                inside.remove(inner);
            }
        }
    }
}

/// The object of this name, which is made where there is none.
fn members<'a>(usage: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let member = usage.entry(name).or_insert_with(|| json!({}));
    if !member.is_object() {
        *member = json!({});
    }
    member.as_object_mut().expect("it is an object")
}

/// The note on counts that contradict each other.
pub(super) fn remark(raw: &Value, usage: &Usage) -> Option<String> {
    let counts = Counts::of(raw);
    let first = |places: &[&str]| counts.first(places);
    if usage.cache_read == 0 && first(READ).is_some_and(|read| read > usage.input) {
        return Some("more tokens from the cache than the prompt has: not believed".to_owned());
    }
    let (total, prompt, completion) = (first(TOTAL)?, first(PROMPT)?, first(COMPLETION)?);
    let shown = usage.total_input().saturating_add(completion);
    if total > shown && first(REASONING).unwrap_or(0) != total - shown {
        let beyond = total - shown;
        return Some(format!("the total names {beyond} tokens beyond prompt and completion: taken as output"));
    }
    (total < prompt.saturating_add(completion))
        .then(|| format!("the total of {total} tokens is less than its parts: not believed"))
}
