use super::*;
use crate::provider::checks::{Chat, parsed};
use crate::provider::registry::DIALECTS;
use crate::provider::{anthropic, gemini, openai};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn each_door_of_a_vendor_has_one_row_and_no_host_is_of_two_vendors() {
    let mut doors = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for vendor in VENDORS {
        assert!(doors.insert((vendor.name, vendor.dialect.name)), "{} has two rows for a dialect", vendor.name);
        for host in vendor.hosts {
            assert!(hosts.insert((vendor.dialect.name, host)), "{host} is of two vendors");
            let found = of_server(None, vendor.dialect, &format!("https://{host}/v1")).unwrap();
            assert_eq!(found.name, vendor.name, "{host}");
        }
        if let Some(base_url) = vendor.base_url {
            let found = of_server(None, vendor.dialect, base_url).unwrap();
            assert_eq!(found.name, vendor.name, "{base_url}");
        }
    }
    for dialect in DIALECTS {
        assert!(VENDORS.iter().any(|vendor| vendor.dialect == *dialect), "no vendor speaks {dialect:?}");
    }
}

#[test]
fn a_server_is_its_vendors_by_name_then_by_host() {
    let found = |name, dialect: &'static Dialect, base_url| of_server(name, dialect, base_url).map(|row| row.name);
    for (name, dialect, base_url, expected) in [
        (None, &openai::DIALECT, "https://api.groq.com/openai/v1", Some("groq")),
        (None, &openai::DIALECT, "https://API.GROQ.com/openai/v1?x=1", Some("groq")),
        (None, &openai::DIALECT, "https://acme.openai.azure.com/openai/v1", Some("azure_openai")),
        (None, &openai::DIALECT, "https://notapi.groq.com.example/v1", None),
        (None, &openai::DIALECT, "https://myapi.groq.com/v1", None),
        (None, &openai::DIALECT, "http://127.0.0.1:8000/v1", None),
        (None, &openai::DIALECT, "not a url", None),
        // A name that is not a vendor's leaves the choice to the host; a vendor's name counts alone.
        (Some("mine"), &openai::DIALECT, "https://api.groq.com/openai/v1", Some("groq")),
        (Some("mistral"), &openai::DIALECT, "https://api.groq.com/openai/v1", Some("mistral")),
        (Some("groq"), &openai::DIALECT, "https://gateway.example/v1", Some("groq")),
        (Some("groq"), &anthropic::DIALECT, "https://api.anthropic.com/v1", None),
        // A vendor with two dialects.
        (Some("anthropic"), &anthropic::DIALECT, "", Some("anthropic")),
        (Some("anthropic"), &openai::DIALECT, "", Some("anthropic")),
        (Some("gemini"), &gemini::DIALECT, "", Some("gemini")),
        (Some("gemini"), &openai::DIALECT, "", Some("gemini")),
    ] {
        assert_eq!(found(name, dialect, base_url), expected, "{name:?} {dialect:?} {base_url}");
    }
}

#[test]
fn what_is_known_of_one_door_is_not_believed_of_the_other() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let request = parsed(json!({"prompt": "Hi", "response_format": format}));
    let takes = |dialect| {
        let adapter = adapter(dialect, Some("anthropic"), "", &QuirkSettings::default());
        adapter.chat(&request, "claude-haiku-4-5", &crate::domain::Capabilities::default()).is_ok()
    };
    assert!(takes(&anthropic::DIALECT) && !takes(&openai::DIALECT));
}

#[test]
fn meanings_of_limit_headers_have_the_names_of_their_vendors() {
    for name in limit_headers_names() {
        assert!(limit_headers(name).is_some(), "{name}");
    }
    assert_eq!(&limit_headers_names()[..3], ["plain", "groq", "together"]);
    assert_eq!(limit_headers("openai"), None, "it means nothing else than the plain ones");
    assert_eq!(limit_headers("acme"), None);
}
