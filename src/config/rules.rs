//! `validate = { … }` of a route, compiled.

use super::section::{Section, to_json};
use super::words::{CAP_RAISES, FILTER_RULES, FINISH_RULES, SERVED_RULES};
use crate::domain::json_schema::Schema;
use crate::domain::language::{TextLanguage, TextScript};
use crate::domain::validation::Rules;
use regex::Regex;
use std::sync::Arc;

pub(super) const LANGUAGES: &str = "a list of codes of ISO 639 such as [\"de\", \"en\"]";

pub(super) fn read(mut section: Section<'_>) -> Rules {
    let json_schema = read_schema(&mut section);
    let scripts = format!("a list of scripts: {}", TextScript::names().collect::<Vec<_>>().join(", "));
    let rules = Rules {
        non_empty: section.flag_or_default("non_empty"),
        min_chars: section.whole("min_chars"),
        max_chars: section.whole("max_chars"),
        // A schema is always one of JSON.
        json: section.flag_or_default("json") || json_schema.is_some(),
        json_schema,
        required_patterns: read_patterns(&mut section, "required_patterns"),
        forbidden_patterns: read_patterns(&mut section, "forbidden_patterns"),
        reject_refusals: section.flag_or_default("refusal"),
        reject_html: section.flag_or_default("html"),
        reject_truncated: section.flag_or_default("truncated"),
        finish: section.word_or_default("finish", "is not a rule for finish words", FINISH_RULES),
        reject_repetition: section.flag_or_default("repetition"),
        reject_control_tokens: section.flag_or_default("control_tokens"),
        reject_cut_prompts: section.flag_or_default("prompt_cut"),
        reject_stuck: section.flag_or_default("stuck_answer"),
        only_filtered: section.word_or_default("filter", "does not say whether the filter has to run", FILTER_RULES),
        languages: section.parsed_list("language", LANGUAGES, TextLanguage::parse).unwrap_or_default(),
        scripts: section.parsed_list("script", &scripts, TextScript::parse).unwrap_or_default(),
        only_as_asked: section.word_or_default("served", "does not say which model may answer", SERVED_RULES),
        raise_cap: section.word_or_default("raise_cap", "does not say which answers raise the cap", CAP_RAISES),
    };
    if let (Some(min), Some(max)) = (rules.min_chars, rules.max_chars)
        && min > max
    {
        section.fault("min_chars", format!("{min} is more than max_chars, which is {max}"), "at most max_chars");
    }
    section.finish();
    rules
}

fn read_patterns(section: &mut Section<'_>, key: &'static str) -> Vec<Regex> {
    let compile = |text: &str| {
        Regex::new(text).map_err(|error| {
            // The crate prints the pattern over several lines; the last one has the reason.
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("the pattern {text:?} does not compile: {reason}")
        })
    };
    section.parsed_list(key, "a list of regular expressions", compile).unwrap_or_default()
}

fn read_schema(section: &mut Section<'_>) -> Option<Arc<Schema>> {
    let inline = section.take("json_schema").map(|value| to_json(&value));
    let file = section.path("json_schema_file");
    let (key, schema, described) = match (inline, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            section.fault("json_schema", "there is a json_schema_file too", "only one of the two");
            return None;
        }
        (Some(inline), None) => ("json_schema", inline, "the schema".to_owned()),
        (None, Some(file)) => {
            let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
            match read.and_then(|text| serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))) {
                Ok(schema) => ("json_schema_file", schema, file.display().to_string()),
                Err(reason) => {
                    section.fault(
                        "json_schema_file",
                        format!("{}: {reason}", file.display()),
                        "a file with a JSON schema",
                    );
                    return None;
                }
            }
        }
    };
    match jsonschema::validator_for(&schema) {
        Ok(validator) => Some(Arc::new(Schema::compiled(validator, &schema))),
        Err(error) => {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() { String::new() } else { format!(" at {at}") };
            section.fault(key, format!("{described} does not compile{at}: {error}"), "a valid JSON schema");
            None
        }
    }
}
