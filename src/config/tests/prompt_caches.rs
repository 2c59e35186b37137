//! `prompt_cache` of a route.

use super::*;
use crate::domain::PromptCaching;
use crate::domain::prefix::CacheLife;

fn over(rung: &str, lines: &str) -> Given {
    given(&format!(
        "[providers.claude]\ndialect = \"anthropic\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
         [providers.openai]\nbase_url = \"http://127.0.0.1:8/v1\"\n{LOCAL}\
         [routes.default]\nrungs = [\"{rung}\"]\n{lines}\n"
    ))
}

fn read(lines: &str) -> Option<PromptCaching> {
    over("claude/m", lines).config().routes["default"].route.prompt_cache
}

#[test]
fn a_route_says_whether_and_how_it_uses_the_caches_of_its_providers() {
    let usual = PromptCaching { life: CacheLife::FiveMinutes, min_tokens: None, wait: Duration::from_mins(1) };
    for (lines, expected) in [
        ("", None),
        ("prompt_cache = false", None),
        ("prompt_cache = true", Some(usual)),
        ("prompt_cache = {}", Some(usual)),
        (
            "prompt_cache = { ttl = \"1h\", min_tokens = 2048, wait = \"0s\" }",
            Some(PromptCaching { life: CacheLife::Hour, min_tokens: Some(2048), wait: Duration::ZERO }),
        ),
    ] {
        assert_eq!(read(lines), expected, "{lines}");
    }
    let by_variable = over("claude/m", "").with("SLUICE__ROUTES__DEFAULT__PROMPT_CACHE", "true").config();
    assert_eq!(by_variable.routes["default"].route.prompt_cache, Some(usual));
}

#[test]
fn a_value_that_means_nothing_is_refused_with_what_would() {
    let wait = "a duration such as \"30s\", at most \"10m\"";
    for (lines, expected) in [
        (
            "prompt_cache = \"1h\"",
            "prompt_cache: is \"1h\"; expected true, false, or a table such as { ttl = \"1h\", min_tokens = 2048 }"
                .to_owned(),
        ),
        (
            "prompt_cache = 5",
            "prompt_cache: is 5; expected true, false, or a table such as { ttl = \"1h\", min_tokens = 2048 }"
                .to_owned(),
        ),
        (
            "prompt_cache = { ttl = \"1d\" }",
            "prompt_cache.ttl: \"1d\" is no time for which providers keep a prompt; expected \"5m\" or \"1h\""
                .to_owned(),
        ),
        (
            "prompt_cache = { min_tokens = -1 }",
            "prompt_cache.min_tokens: is -1; expected a whole number, at least 0".to_owned(),
        ),
        ("prompt_cache = { wait = \"11m\" }", format!("prompt_cache.wait: \"11m\" is too long; expected {wait}")),
        (
            "prompt_cache = { least = 5 }",
            "prompt_cache.least: no such key; expected one of ttl, min_tokens, wait".to_owned(),
        ),
    ] {
        assert_eq!(over("claude/m", lines).faults(), [format!("routes.default.{expected}")], "{lines}");
    }
}

#[test]
fn what_makes_no_difference_is_a_warning() {
    for (rung, lines, expected) in [
        ("claude/m", "prompt_cache = { ttl = \"1h\" }", None),
        ("openai/m", "prompt_cache = true", None),
        ("openai/m", "prompt_cache = { ttl = \"1h\" }", Some("for an hour by being asked")),
        ("local/m", "prompt_cache = true", Some("no rung of the route is known to keep the beginnings of prompts")),
        ("local/m", "prompt_cache = false", None),
    ] {
        let warnings = over(rung, lines).config().warnings;
        let told = warnings.iter().find(|warning| warning.contains("routes.default.prompt_cache"));
        assert_eq!(told.is_some(), expected.is_some(), "{rung} {lines}: {warnings:?}");
        assert!(expected.is_none_or(|words| told.is_some_and(|told| told.contains(words))), "{told:?}");
    }
}
