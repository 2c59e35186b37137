//! Tiers of service, in the words of each vendor.

use super::*;
use crate::domain::Tier;
use crate::provider::vendors::{self, VENDORS};
use serde_json::{Value, json};

fn provider(vendor: &str, dialect: &str) -> Provider {
    let row = VENDORS.iter().find(|row| row.name == vendor && row.dialect.name == dialect).expect("a known vendor");
    let keys = Vec::new();
    let (vendor, dialect) = (Some(vendor.to_owned()), row.dialect);
    Provider::new(Endpoint { dialect, vendor, keys, ..endpoint("http://127.0.0.1/v1") }).unwrap()
}

/// The body and the notes of a request in this tier.
fn written(provider: &Provider, body: &Value, tier: Option<&str>, mends: &[Mend]) -> Option<(Value, Vec<String>)> {
    let tiers = provider.tiers.list;
    let tier: Option<Tier> = tier.map(|name| *tiers.iter().find(|tier| tier.name == name).expect("the vendor has it"));
    let request = ChatRequest::parse(body).unwrap();
    let capabilities = Capabilities::default();
    let wire = provider.written(&Call { tier, mends, ..asked(&request, &capabilities) }).ok()?;
    Some((serde_json::from_slice(&wire.body).unwrap(), wire.dropped))
}

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 99})
}

#[test]
fn each_vendor_is_asked_for_a_tier_in_its_own_words() {
    for (vendor, dialect, tier, member, value) in [
        ("openai", "openai", "flex", "service_tier", json!("flex")),
        ("openai", "openai_responses", "priority", "service_tier", json!("priority")),
        ("openai", "openai", "default", "service_tier", json!("default")),
        ("azure_openai", "azure_openai", "flex", "service_tier", json!("flex")),
        ("azure_openai", "openai_responses", "flex", "service_tier", json!("flex")),
        ("groq", "openai", "flex", "service_tier", json!("flex")),
        ("fireworks", "openai", "priority", "service_tier", json!("priority")),
        ("gemini", "gemini", "flex", "serviceTier", json!("flex")),
        ("bedrock", "bedrock", "flex", "serviceTier", json!({"type": "flex"})),
        ("anthropic", "anthropic", "fast", "speed", json!("fast")),
    ] {
        let provider = provider(vendor, dialect);
        let (plain, before) = written(&provider, &question(), None, &[]).unwrap();
        assert_eq!(plain.get(member), None, "{vendor}");
        let (mut body, notes) = written(&provider, &question(), Some(tier), &[]).unwrap();
        assert_eq!(body[member], value, "{vendor}");
        assert_eq!(notes, before, "{vendor}: nothing was left out for it");
        body.as_object_mut().unwrap().remove(member);
        assert_eq!(body, plain, "{vendor}: nothing else differs");
    }
}

#[test]
fn a_tier_that_the_request_asks_for_gives_way_to_the_rungs_and_is_noted() {
    let openai = provider("openai", "openai");
    let mut request = question();
    request["service_tier"] = json!("priority");
    let (body, notes) = written(&openai, &request, Some("flex"), &[]).unwrap();
    assert_eq!((&body["service_tier"], notes), (&json!("flex"), vec!["service_tier as the rung's flex".to_owned()]));
    let (body, notes) = written(&openai, &request, Some("priority"), &[]).unwrap();
    assert_eq!((&body["service_tier"], notes), (&json!("priority"), Vec::new()), "the same is no other");
    let (body, _) = written(&openai, &request, None, &[]).unwrap();
    assert_eq!(body["service_tier"], "priority", "a rung without a tier lets it be");
}

#[test]
fn no_refusal_takes_the_tier_out_of_the_call() {
    let openai = provider("openai", "openai");
    let drop = Mend::Drop { member: "service_tier", lasting: true };
    let (body, notes) = written(&openai, &question(), Some("flex"), std::slice::from_ref(&drop)).unwrap();
    assert_eq!((&body["service_tier"], notes), (&json!("flex"), Vec::new()));
}

#[test]
fn embeddings_have_no_tiers() {
    let body = json!({"input": "a text"});
    let openai = provider("openai", "openai");
    assert!(written(&openai, &body, None, &[]).is_some());
    assert!(written(&openai, &body, Some("flex"), &[]).is_none());
}

#[test]
fn a_vendor_names_each_tier_once_and_an_unknown_server_has_none() {
    for vendor in VENDORS {
        let names: std::collections::BTreeSet<_> = vendor.tiers.list.iter().map(|tier| tier.name).collect();
        assert_eq!(names.len(), vendor.tiers.list.len(), "{}", vendor.name);
        // The suffix is told from a model's name by its letters.
        let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(names.iter().all(is_word), "{}: {names:?}", vendor.name);
    }
    assert!(vendors::tiers(None, &openai::DIALECT, "http://10.0.0.7/v1").list.is_empty());
    assert!(!vendors::tiers(None, &openai::DIALECT, "https://api.openai.com/v1").list.is_empty());
}
