//! Whether a model can take a request at all: asked before a call is paid for.

use super::decide::Ineligible;
use super::{Capabilities, ChatRequest, ContentPart, ResponseFormat, Sizes, estimate};

/// Why a model with these abilities can never take this request; `None` when nothing known speaks against it.
///
/// An unknown ability counts as "yes": a wrong guess then costs one refused call. The other way round it would cost a
/// provider.
#[must_use]
pub fn ineligible(capabilities: &Capabilities, sizes: &Sizes, request: &ChatRequest) -> Option<Ineligible> {
    if let Some(window) = capabilities.context_window {
        let needed = if let Some(embed) = &request.embed {
            estimate::longest_input(&embed.inputs)
        } else {
            let input = i64::try_from(sizes.input).unwrap_or(i64::MAX);
            input.saturating_add(request.max_tokens.unwrap_or(1))
        };
        if needed > window {
            return Some(Ineligible::ContextWindow { needed, window });
        }
    }
    if let (Some(cap), Some(most)) = (request.max_tokens, capabilities.max_output_tokens)
        && cap > most
    {
        return Some(Ineligible::Unsupported(format!("max_tokens of {cap}: the model's cap is {most}")));
    }
    lacking(capabilities, request).map(|ability| Ineligible::Unsupported(ability.to_owned()))
}

/// The first ability that a request needs and a model is known to lack.
#[must_use]
pub fn lacking(capabilities: &Capabilities, request: &ChatRequest) -> Option<&'static str> {
    let has = |kind: &str| request.messages.iter().flat_map(|message| &message.content).any(|part| part.kind() == kind);
    let parts = [
        (capabilities.images, ContentPart::IMAGES),
        (capabilities.files, ContentPart::FILES),
        (capabilities.audio, ContentPart::AUDIO),
    ];
    if let Some((_, kind)) = parts.into_iter().find(|&(takes, kind)| takes == Some(false) && has(kind)) {
        return Some(kind);
    }
    let has_calls =
        || request.messages.iter().any(|message| !(message.tool_calls.is_empty() && message.other_calls.is_empty()));
    let has_tools = || !(request.tools.is_empty() && request.other_tools.is_empty()) || has_calls();
    if capabilities.tools == Some(false) && has_tools() {
        return Some("tools");
    }
    let wants_schema = matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }));
    (capabilities.json_schema == Some(false) && wants_schema).then_some("json_schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(capabilities: &Capabilities, body: &Value, input_tokens: u64) -> Option<Ineligible> {
        let request = ChatRequest::parse(body).expect("the request is valid");
        let sizes = Sizes { input: input_tokens, ..Sizes::default() };
        ineligible(capabilities, &sizes, &request)
    }

    #[test]
    fn prompt_and_output_cap_have_to_fit_the_window_together() {
        let model = Capabilities { context_window: Some(100), ..Capabilities::default() };
        let body = json!({ "prompt": "x", "max_tokens": 40 });
        assert_eq!(check(&model, &body, 60), None);
        assert_eq!(check(&model, &body, 61), Some(Ineligible::ContextWindow { needed: 101, window: 100 }));
    }

    #[test]
    fn what_a_model_is_known_to_lack_makes_it_ineligible_and_what_is_unknown_does_not() {
        let image = json!({ "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": "https://example.com/a.png" } }] }] });
        let tools = json!({ "prompt": "x", "tools": [{ "type": "function", "function": { "name": "f" } }] });
        let schema = json!({ "prompt": "x", "response_format": { "type": "json_schema",
            "json_schema": { "name": "n", "schema": { "type": "object" } } } });
        let lacks = Capabilities {
            images: Some(false),
            tools: Some(false),
            json_schema: Some(false),
            ..Capabilities::default()
        };
        for (body, what) in [(image, "images"), (tools, "tools"), (schema, "json_schema")] {
            assert_eq!(check(&Capabilities::default(), &body, 1), None);
            assert_eq!(check(&lacks, &body, 1), Some(Ineligible::Unsupported(what.to_owned())));
        }
    }

    #[test]
    fn an_output_cap_above_the_models_own_makes_it_ineligible() {
        let model = Capabilities { max_output_tokens: Some(10), ..Capabilities::default() };
        assert!(check(&model, &json!({ "prompt": "x", "max_tokens": 11 }), 1).is_some());
    }
}
