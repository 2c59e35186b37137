//! `pack` of a route.

use super::*;
use crate::domain::Packing;
use crate::domain::pack::PackBounds;

const THREE: &str = "[providers.open]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:8/v1\"\n\
                     [providers.claude]\ndialect = \"anthropic\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                     [models.\"open/a\"]\nprice = { input = \"1\", output = \"1\" }\n\
                     [models.\"open/b\"]\nprice = { input = \"1\", output = \"1\" }\n\
                     [models.\"claude/c\"]\nprice = { input = \"1\", output = \"1\" }\n[routes.default]\n";

fn route(lines: &str) -> Given {
    given(&format!("{THREE}{lines}\n"))
}

#[test]
fn a_number_is_enough_and_a_table_says_more() {
    let pack = |lines: &str| {
        let route = route(&format!("rungs = [\"open/a\", \"claude/c\"]\n{lines}"));
        route.config().routes["default"].route.pack
    };
    let packing =
        |inputs, tokens, wait| Packing { most: PackBounds { inputs, tokens }, wait: Duration::from_millis(wait) };
    assert_eq!(pack(""), None);
    assert_eq!(pack("pack = 64"), Some(packing(64, None, 50)));
    assert_eq!(pack("pack = { inputs = 2 }"), Some(packing(2, None, 50)));
    let whole = "pack = { inputs = 2048, tokens = 9000, wait = \"0s\" }";
    assert_eq!(pack(whole), Some(packing(2_048, Some(9_000), 0)));
}

#[test]
fn the_bounds_of_vendors_are_data() {
    let bounds = |dialect: &str, host: &str| {
        let lines = format!(
            "[providers.p]\ndialect = \"{dialect}\"\nbase_url = \"https://{host}/v1\"\n\
             [routes.default]\nrungs = [\"p/m\"]\n"
        );
        given(&lines).config().providers["p"].endpoint.embeds()
    };
    let (inputs, of) = (PackBounds::of_inputs, |inputs, tokens| PackBounds { inputs, tokens: Some(tokens) });
    for (dialect, host, expected) in [
        ("openai", "api.openai.com", Some(of(2_048, 300_000))),
        ("openai", "host.example", Some(of(2_048, 300_000))),
        ("azure_openai", "r.openai.azure.com", Some(of(2_048, 300_000))),
        ("openai", "api.mistral.ai", Some(of(512, 16_384))),
        ("openai", "dashscope.aliyuncs.com", Some(inputs(10))),
        ("cohere", "api.cohere.com", Some(inputs(96))),
        ("gemini", "generativelanguage.googleapis.com", Some(inputs(100))),
        ("openai", "generativelanguage.googleapis.com", Some(inputs(100))),
        ("ollama", "host.example", Some(inputs(usize::MAX))),
        ("anthropic", "api.anthropic.com", None),
        ("completions", "api.openai.com", None),
    ] {
        assert_eq!(bounds(dialect, host), expected, "{dialect} {host}");
    }
}

#[test]
fn a_pack_that_makes_no_sense_is_refused_with_what_would() {
    const NUMBER: &str = "expected a whole number from 2 to 2048";
    for (lines, expected) in [
        ("pack = 1", format!("pack.inputs: is 1; {NUMBER}")),
        ("pack = 2049", format!("pack.inputs: is 2049; {NUMBER}")),
        ("pack = \"64\"", format!("pack.inputs: is \"64\"; {NUMBER}")),
        ("pack = true", format!("pack.inputs: is true; {NUMBER}")),
        ("pack = {}", format!("pack.inputs: is missing; {NUMBER}")),
        ("pack = { wait = \"1s\" }", format!("pack.inputs: is missing; {NUMBER}")),
        (
            "pack = { inputs = 9, wait = \"6s\" }",
            "pack.wait: is longer than 5s; expected a duration such as \"90s\", \"10m\" or \"1h 30m\", at most \
             \"5s\""
                .to_owned(),
        ),
        (
            "pack = { inputs = 9, tokens = 0 }",
            "pack.tokens: is 0; expected a whole number from 1 to 1000000000".to_owned(),
        ),
        ("pack = { inputs = 9, input = 9 }", "pack.input: no such key; expected perhaps inputs".to_owned()),
        (
            "pack = 9\nstrategy = \"race\"",
            "pack: the strategy is \"race\", which asks a second rung for one job and not for a pack; expected another \
             strategy, or no pack"
                .to_owned(),
        ),
        (
            "pack = 9\ncascade = { confidence = \"/sure\", at_least = 0.5 }",
            "pack: the route has a cascade, and vectors say nothing of how sure a rung is; expected no cascade, or no \
             pack"
                .to_owned(),
        ),
    ] {
        let faults = route(&format!("rungs = [\"open/a\", \"open/b\"]\n{lines}")).faults();
        assert_eq!(faults.iter().map(|fault| fault.replacen("routes.default.", "", 1)).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(
        route("rungs = [\"claude/c\"]\npack = 9").faults(),
        ["routes.default.pack: no rung of the route has embeddings, and nothing else is packed; expected a rung \
          whose dialect has embeddings, or no pack"]
    );
}
