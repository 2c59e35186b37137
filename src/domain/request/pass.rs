//! Members that choose another model, tier, tool or count than the route pays for. They are sent only where the route
//! says so.
//!
//! A request comes from any login that may enqueue, and the route from the operator, who pays. A member that only
//! shapes the answer is for the request to decide. A member that makes a dearer model answer, the provider call a tool,
//! or the model write several answers, is for the route to decide.

use super::ChatRequest;
use super::extras::COUNTS;
use super::known::{is_known_name, near_known_member};
use crate::domain::raw_object::RawObject;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

/// Names of such members, without `_` and `-` and in lower case: vendors write them in one way and gateways in another.
const CHOOSING: &[&str] = &[
    // Another model or provider.
    "models",
    "model_list",
    "model_override",
    "provider",
    "providers",
    "route",
    "router",
    "preset",
    "fallbacks",
    "fallback_models",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "transforms",
    "safety_model",
    "draft_model",
    "deployment",
    "deployment_id",
    "custom_llm_provider",
    "api_base",
    "base_url",
    "api_key",
    // Another tier, or another way of being billed.
    "service_tier",
    "speed",
    "performance_config",
    "inference_geo",
    "betas",
    "background",
    "deferred",
    "store",
    "prediction",
    // Tools that the provider calls, and sources that it looks up by itself.
    "plugins",
    "web_search",
    "web_search_options",
    "enable_web_search",
    "search_parameters",
    "search_settings",
    "search_options",
    "search_mode",
    "enable_search",
    "return_images",
    "return_related_questions",
    "compound_custom",
    "data_sources",
    "mcp_servers",
    "mcp",
    "container",
    "code_interpreter",
    "code_execution",
    "tool_resources",
    "google_search",
    "grounding",
    "connectors",
    "cached_content",
    "guardrails",
    "guardrail_config",
    // More than one answer, or an answer of another kind.
    "use_beam_search",
    "modalities",
    "response_modalities",
    "audio",
    "image_config",
    "speech_config",
    // Members that may hold any of these.
    "extra_body",
    "extra_headers",
    "extra_query",
    "additional_model_request_fields",
    "generation_config",
];

/// The same without differences in spelling. Every member of every job is looked up here.
static CHOOSING_PLAIN: LazyLock<HashSet<String>> = LazyLock::new(|| choosing().map(plain).collect());

/// All of them, with those by which the model writes several answers.
fn choosing() -> impl Iterator<Item = &'static str> {
    CHOOSING.iter().chain(COUNTS).copied()
}

/// Parts of a name that suggest a choice, for names that no table knows.
const SOUNDS_LIKE: &[&str] = &["model", "tier", "fallback", "search", "plugin", "mcp", "browsing", "grounding"];

/// Types of tools by which the model only asks its caller for something.
pub(super) const HARMLESS_TOOLS: &[&str] = &["function", "custom"];

/// The members of this kind that a route lets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass(BTreeSet<String>);

/// The name without differences in spelling.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-' | '.')).flat_map(char::to_lowercase).collect()
}

impl Pass {
    /// The members of these names; `*` stands for all of them, `tools` for tools of every type, and `tools.TYPE` for
    /// tools of one type.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether it lets none pass.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn all(&self) -> bool {
        self.0.contains("*")
    }

    /// Whether a top-level member is sent.
    #[must_use]
    pub fn lets(&self, name: &str) -> bool {
        !is_choosing(name) || self.all() || self.0.contains(name)
    }

    /// Whether tools of a type are offered to the model.
    #[must_use]
    pub fn lets_tool(&self, kind: &str) -> bool {
        HARMLESS_TOOLS.contains(&kind)
            || self.all()
            || self.0.contains("tools")
            || self.0.contains(&format!("tools.{kind}"))
    }
}

/// Whether a member of this name chooses what only the route may choose.
#[must_use]
pub fn is_choosing(name: &str) -> bool {
    let plain_name = plain(name);
    if CHOOSING_PLAIN.contains(&plain_name) {
        return true;
    }
    !is_known_name(name) && SOUNDS_LIKE.iter().any(|word| plain_name.contains(word))
}

/// The name that was probably meant where a route lets a member pass that no provider is known to take. A name that
/// resembles none may be a new member.
#[must_use]
pub fn probably_meant(name: &str) -> Option<&'static str> {
    let is_a_tool = name.starts_with("tools.") || name == "tools";
    if name == "*" || is_a_tool || choosing().any(|own| own == name) || is_known_name(name) {
        return None;
    }
    let slips = if name.len() < 8 { 1 } else { 2 };
    let near = |known: &&'static str| strsim::damerau_levenshtein(name, known) <= slips;
    let near_tools = strsim::damerau_levenshtein(name, "tools") <= 1;
    let stem = name.split_once('.').is_some_and(|(stem, _)| strsim::damerau_levenshtein(stem, "tools") <= 1);
    if near_tools || stem {
        return Some("tools");
    }
    choosing().find(near).or_else(|| near_known_member(name))
}

impl ChatRequest {
    /// The members that are not sent because the route does not let them pass: in words for the ledger.
    #[must_use]
    pub fn held_back(&self, pass: &Pass) -> Vec<String> {
        let Some(body) = RawObject::read(&self.raw) else { return Vec::new() };
        let members = body.names().filter(|name| !pass.lets(name)).map(words);
        let tools = self.other_tools.iter().filter(|kind| !pass.lets_tool(kind)).map(|kind| tool_words(kind));
        let mut held: Vec<String> = members.chain(tools).collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    /// The names of the members that are not sent, or not as a whole, because the route does not let them pass.
    #[must_use]
    pub(in crate::domain) fn names_held_back(&self, pass: &Pass) -> Vec<String> {
        let Some(body) = RawObject::read(&self.raw) else { return Vec::new() };
        let members = body.names().filter(|name| !pass.lets(name)).map(str::to_owned);
        let loses_tools = self.other_tools.iter().any(|kind| !pass.lets_tool(kind));
        members.chain(loses_tools.then(|| "tools".to_owned())).collect()
    }

    /// The request without the members that the route does not let pass; `None` when there are none.
    ///
    /// # Errors
    /// The fault of the request that is left.
    #[must_use]
    pub fn without_held_back(&self, pass: &Pass) -> Option<Result<Self, super::RequestError>> {
        if self.held_back(pass).is_empty() {
            return None;
        }
        let mut body = RawObject::read(&self.raw)?;
        body.retain(|name, _| pass.lets(name));
        if self.other_tools.iter().any(|kind| !pass.lets_tool(kind)) {
            leave_out_tools(pass, &mut body);
        }
        Some(Self::read_text(&body.to_text()))
    }
}

fn leave_out_tools(pass: &Pass, body: &mut RawObject<'_>) {
    let Some(tools) = body.given("tools").map(str::to_owned) else { return };
    let tools: Vec<&RawValue> = serde_json::from_str(&tools).unwrap_or_default();
    let kind_of = |tool: &RawValue| {
        let kind = RawObject::read(tool.get()).and_then(|tool| tool.given("type").map(str::to_owned))?;
        serde_json::from_str::<String>(&kind).ok()
    };
    let is_let = |tool: &&&RawValue| kind_of(tool).is_none_or(|kind| pass.lets_tool(&kind));
    let left: Vec<&&RawValue> = tools.iter().filter(is_let).collect();
    // A choice among tools that are no longer offered is void.
    let chosen = body.given("tool_choice").map(str::to_owned);
    let chosen = chosen.and_then(|choice| serde_json::from_str::<Value>(&choice).ok());
    let names_one = chosen.as_ref().and_then(|choice| choice.get("type")).and_then(Value::as_str);
    if left.is_empty() || names_one.is_some_and(|kind| !pass.lets_tool(kind)) {
        body.remove("tool_choice");
    }
    if left.is_empty() {
        body.remove("tools");
    } else {
        body.set("tools", &left);
    }
}

fn words(name: &str) -> String {
    let name: String = name.chars().take(60).collect();
    format!("{name} (not in the route's `pass`)")
}

fn tool_words(kind: &str) -> String {
    format!("tools of type {kind} (not in the route's `pass`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sent(body: &Value, pass: &[&str]) -> (Value, Vec<String>) {
        let request = ChatRequest::parse(body).unwrap();
        let pass = Pass::of(pass.iter().map(|name| (*name).to_owned()));
        let held = request.held_back(&pass);
        let left = match request.without_held_back(&pass) {
            Some(left) => left.unwrap(),
            None => request,
        };
        (serde_json::from_str(&left.raw).unwrap(), held)
    }

    fn with(member: &str, value: &Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        body[member] = value.clone();
        body
    }

    #[test]
    fn what_chooses_is_sent_only_where_the_route_lets_it_pass() {
        for (member, value) in [
            ("models", json!(["openai/gpt-6-astra"])),
            ("provider", json!({"order": ["dear"]})),
            ("provider", json!("dear")),
            ("plugins", json!([{"id": "web"}])),
            ("route", json!("fallback")),
            ("transforms", json!(["middle-out"])),
            ("service_tier", json!("priority")),
            ("serviceTier", json!("priority")),
            ("Service-Tier", json!("priority")),
            ("web_search_options", json!({})),
            ("search_parameters", json!({"mode": "on"})),
            ("best_of", json!(20)),
            ("num_return_sequences", json!(4)),
            ("candidateCount", json!(4)),
            ("modalities", json!(["text", "audio"])),
            ("audio", json!({"voice": "a"})),
            ("prediction", json!({"type": "content", "content": "x"})),
            ("background", json!(true)),
            ("store", json!(true)),
            ("extra_body", json!({"models": ["dear"]})),
            ("fallbacks", json!(["dear"])),
            ("mcp_servers", json!([])),
            ("speed", json!("fast")),
            ("container", json!("c")),
            // Names that no table knows, and that sound like a choice.
            ("x_fallback_chain", json!(["dear"])),
            ("override_model", json!("dear")),
            ("billing_tier", json!("gold")),
            ("deep_search", json!(true)),
        ] {
            let body = with(member, &value);
            let (left, held) = sent(&body, &[]);
            assert_eq!(left, json!({"messages": [{"role": "user", "content": "Hi"}]}), "{member}");
            assert_eq!(held, [format!("{member} (not in the route's `pass`)")]);
            for pass in [member, "*"] {
                assert_eq!(sent(&body, &[pass]), (body.clone(), Vec::new()), "{member}");
            }
        }
    }

    #[test]
    fn what_only_shapes_the_answer_is_the_requests() {
        for (member, value) in [
            ("temperature", json!(0.5)),
            ("top_k", json!(5)),
            ("min_p", json!(0.1)),
            ("guided_json", json!({})),
            ("chat_template_kwargs", json!({"enable_thinking": false})),
            ("reasoning", json!({"effort": "low"})),
            ("reasoning_effort", json!("low")),
            ("metadata", json!({"a": "b"})),
            ("user", json!("ann")),
            ("logit_bias", json!({"5": 1})),
            ("cache_control", json!({"type": "ephemeral"})),
            ("seed", json!(1)),
            ("n", json!(1)),
            ("model", json!("another")),
            ("unheard_of", json!({"deep": [1.5, null]})),
            ("service_tier", json!(null)),
            ("search_domain_filter", json!(["a.org"])),
        ] {
            let body = with(member, &value);
            assert_eq!(sent(&body, &[]), (body.clone(), Vec::new()), "{member}");
        }
    }

    #[test]
    fn tools_that_the_provider_calls_are_not_offered_and_functions_are() {
        let function = json!({"type": "function", "function": {"name": "f"}});
        let custom = json!({"type": "custom", "custom": {"name": "c"}});
        let search = json!({"type": "web_search", "max_uses": 5});
        let body = |tools: Value, choice: Value| {
            json!({"messages": [{"role": "user", "content": "Hi"}], "tools": tools,
                "tool_choice": choice})
        };
        let both = body(json!([function, search, custom]), json!("required"));
        let (left, held) = sent(&both, &[]);
        assert_eq!(left, body(json!([function, custom]), json!("required")));
        assert_eq!(held, ["tools of type web_search (not in the route's `pass`)"]);
        for pass in ["tools", "tools.web_search", "*"] {
            assert_eq!(sent(&both, &[pass]), (both.clone(), Vec::new()));
        }
        assert_eq!(sent(&both, &["tools.code_interpreter"]).0, left);
        // Nothing is left to choose from.
        let alone = json!({"messages": [{"role": "user", "content": "Hi"}]});
        for choice in [json!("required"), json!({"type": "web_search"}), json!("auto")] {
            assert_eq!(sent(&body(json!([search]), choice), &[]).0, alone);
        }
        let chosen = body(json!([function, search]), json!({"type": "web_search"}));
        assert_eq!(sent(&chosen, &[]).0["tool_choice"], json!(null));
    }

    #[test]
    fn spelling_a_name_in_another_way_changes_nothing() {
        let text = r#"{"messages":[{"role":"user","content":"Hi"}],"mod\u0065ls":["dear"],"best_of":2,"best_of":3}"#;
        let request = ChatRequest::read_text(text).unwrap();
        let left = request.without_held_back(&Pass::default()).unwrap().unwrap();
        assert_eq!(&*left.raw, r#"{"messages":[{"role":"user","content":"Hi"}]}"#);
    }
}
