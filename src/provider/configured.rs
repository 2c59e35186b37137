//! Known and configured facts about a server, for the dialects that translate: members that are not sent, and whether a
//! schema is accepted.

use super::adapter::Payload;
use super::conversation::{note, unsupported};
use super::quirks::Quirks;
use super::wire::WireRequest;
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::{Capabilities, ChatRequest};

/// The quirks that every dialect heeds, by their keys in the configuration.
pub(super) const FOR_ALL: &[&str] = &["drop", "json_schema", "errors", "headers"];

/// Writes a request without the members that the server does not take.
pub(super) fn encode(
    quirks: &Quirks,
    payload: Payload<'_>,
    capabilities: &Capabilities,
    write: impl Fn(Payload<'_>, &Capabilities) -> Result<WireRequest, Ineligible>,
) -> Result<WireRequest, Ineligible> {
    let request = payload.request();
    let mut capabilities = capabilities.clone();
    capabilities.json_schema = capabilities.json_schema.or(quirks.json_schema);
    let Some((reduced, dropped)) = without(request, &quirks.drop) else { return write(payload, &capabilities) };
    // An operator's list may remove a member that a request needs.
    let reduced = match ChatRequest::read_text(&reduced) {
        Ok(reduced) => reduced,
        Err(error) => return unsupported(format!("the request without what `quirks.drop` takes away ({error})")),
    };
    let mut wire = write(Payload::from(&reduced), &capabilities)?;
    for path in dropped {
        note(&mut wire.dropped, &path);
    }
    Ok(wire)
}

/// The body without these members, and which of them it had; `None` when it had none.
fn without(request: &ChatRequest, paths: &[String]) -> Option<(String, Vec<String>)> {
    if paths.is_empty() {
        return None;
    }
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
    use crate::provider::adapter::Adapter;
    use crate::provider::checks::{Chat, encoded, parsed, spoken};
    use crate::provider::quirks::{QuirkSettings, owned};
    use serde_json::json;

    fn configured(drop: &[&str], json_schema: Option<bool>) -> &'static dyn Adapter {
        let quirks = QuirkSettings { drop: owned(drop), json_schema, ..QuirkSettings::default() };
        spoken("anthropic", Some("anthropic"), "https://api.anthropic.com/v1", &quirks)
    }

    #[test]
    fn members_are_dropped_by_their_names_in_the_request() {
        let request = parsed(json!({
            "messages": [{"role": "user",
                "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}],
            "temperature": 0.5, "user": "ann",
        }));
        let adapter = configured(&["temperature", "messages[].content[].cache_control", "seed"], None);
        let (sent, dropped) = encoded(adapter, &request, &Capabilities::default());
        assert_eq!(
            sent,
            json!({
                "model": "the-model", "max_tokens": 4096, "metadata": {"user_id": "ann"},
                "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            })
        );
        assert_eq!(dropped, ["max_tokens 4096 added", "temperature", "messages[].content[].cache_control"]);
        let none = configured(&["messages[].content"], None).chat(&request, "m", &Capabilities::default());
        assert!(none.unwrap_err().to_string().contains("`quirks.drop`"));
    }

    #[test]
    fn whether_a_schema_is_taken_is_the_operators_word_where_the_model_does_not_say() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        let request = parsed(json!({"prompt": "Hi", "response_format": format}));
        let takes = |quirk: Option<bool>, json_schema: Option<bool>, model: &str| {
            let capabilities = Capabilities { json_schema, ..Capabilities::default() };
            configured(&[], quirk).chat(&request, model, &capabilities).is_ok()
        };
        assert!(!takes(Some(false), None, "claude-haiku-4-5") && takes(Some(false), Some(true), "claude-haiku-4-5"));
        assert!(!takes(None, None, "claude-3-haiku-20240307") && takes(Some(true), None, "claude-3-haiku-20240307"));
    }
}
