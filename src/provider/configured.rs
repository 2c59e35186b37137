//! What an operator says of a provider, for the dialects that have no quirks of their own.

use super::adapter::{Adapter, WireReply, WireRequest};
use super::conversation::{note, unsupported};
use super::limit_headers::LimitObservation;
use super::quirks::QuirkSettings;
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure, Usage};
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde_json::Value;

/// A dialect with `drop` and `json_schema` of the configuration before it.
pub(super) struct Configured<A> {
    pub adapter: A,
    pub quirks: QuirkSettings,
}

impl<A: Adapter> Adapter for Configured<A> {
    fn encode(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
    ) -> Result<WireRequest, Ineligible> {
        let mut capabilities = capabilities.clone();
        capabilities.json_schema = capabilities.json_schema.or(self.quirks.json_schema);
        if self.quirks.drop.is_empty() {
            return self.adapter.encode(request, model, &capabilities);
        }
        let Some((reduced, dropped)) = without(request, &self.quirks.drop) else {
            return self.adapter.encode(request, model, &capabilities);
        };
        // An operator's list may take away what a request cannot do without.
        let reduced = match ChatRequest::read_text(&reduced) {
            Ok(reduced) => reduced,
            Err(error) => return unsupported(format!("the request without what `quirks.drop` takes away ({error})")),
        };
        let mut wire = self.adapter.encode(&reduced, model, &capabilities)?;
        for path in dropped {
            note(&mut wire.dropped, &path);
        }
        Ok(wire)
    }

    fn authorize(&self, key: &SecretString, headers: &mut HeaderMap) {
        self.adapter.authorize(key, headers);
    }

    fn decode(&self, reply: &WireReply<'_>) -> Result<Answer, Failure> {
        self.adapter.decode(reply)
    }

    fn usage_of(&self, reply: &WireReply<'_>) -> Option<(Usage, Value)> {
        self.adapter.usage_of(reply)
    }

    fn limits(&self, reply: &WireReply<'_>) -> Vec<LimitObservation> {
        self.adapter.limits(reply)
    }
}

/// The body without these members, and which of them were there; `None` when none was.
fn without(request: &ChatRequest, paths: &[String]) -> Option<(String, Vec<String>)> {
    let mut body = RawObject::read(&request.raw)?;
    let there: Vec<String> = paths.iter().filter(|path| body.remove_at(path)).cloned().collect();
    if there.is_empty() {
        return None;
    }
    Some((body.to_text(), there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::anthropic::Anthropic;
    use crate::provider::checks::{encoded, parsed};
    use serde_json::json;

    fn configured(drop: &[&str], json_schema: Option<bool>) -> Configured<Anthropic> {
        let drop = drop.iter().map(|path| (*path).to_owned()).collect();
        Configured { adapter: Anthropic, quirks: QuirkSettings { drop, json_schema, ..QuirkSettings::default() } }
    }

    #[test]
    fn members_are_dropped_by_their_names_in_the_request() {
        let request = parsed(json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
            "temperature": 0.5, "user": "ann",
        }));
        let adapter = configured(&["temperature", "messages[].content[].cache_control", "seed"], None);
        let (sent, dropped) = encoded(&adapter, &request, &Capabilities::default());
        assert_eq!(
            sent,
            json!({
                "model": "the-model", "max_tokens": 4096, "metadata": {"user_id": "ann"},
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            })
        );
        assert_eq!(dropped, ["temperature", "messages[].content[].cache_control"]);
        let none = configured(&["messages[].content"], None).encode(&request, "m", &Capabilities::default());
        assert!(none.unwrap_err().to_string().contains("`quirks.drop`"));
    }

    #[test]
    fn whether_a_schema_is_taken_is_the_operators_word_where_the_model_does_not_say() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        let request = parsed(json!({"prompt": "Hi", "response_format": format}));
        let takes = |quirk: Option<bool>, json_schema: Option<bool>, model: &str| {
            let capabilities = Capabilities { json_schema, ..Capabilities::default() };
            configured(&[], quirk).encode(&request, model, &capabilities).is_ok()
        };
        assert!(!takes(Some(false), None, "claude-haiku-4-5") && takes(Some(false), Some(true), "claude-haiku-4-5"));
        assert!(!takes(None, None, "claude-3-haiku-20240307") && takes(Some(true), None, "claude-3-haiku-20240307"));
    }
}
