//! What a route adds to requests: `prompt` or `template`, `system`, and members that a request may lack.

use super::section::{Section, to_json};
use crate::domain::ChatRequest;
use crate::domain::defaults::Defaults;
use crate::domain::template::{RequestTemplate, Same, Template, TemplateError};
use config::ValueKind;
use serde_json::{Value, json};

const EXPECTED: &str = "a request with names in braces, such as { prompt = \"Classify: {text}\" }";

/// The keys that hold the question; a route has at most one of them.
const ASKING: [&str; 3] = ["prompt", "template", "template_file"];

pub(super) fn read(section: &mut Section<'_>) -> Defaults {
    let given: Vec<&str> = ASKING.into_iter().filter(|key| section.has(key)).collect();
    if let [first, second, ..] = given.as_slice() {
        section.fault(first, format!("there is a {second} too"), "only one of the two");
    }
    let key = given.first().copied().unwrap_or_default();
    let prompt = read_text(section, "prompt").map(|prompt| RequestTemplate::of_prompt(prompt, None));
    let template = read_inline(section);
    let file = read_file(section);
    let defaults = Defaults {
        request: prompt.or(template).or(file),
        system: read_text(section, "system"),
        max_tokens: section.whole("max_tokens"),
        temperature: section.number("temperature"),
        response_format: read_format(section),
    };
    if let Some(request) = &defaults.request {
        check_request(section, key, request);
    }
    defaults
}

/// Whether the requests that the route makes ask for embeddings.
pub(super) fn asks_for_vectors(defaults: &Defaults) -> bool {
    let filled = defaults.request.as_ref().and_then(|request| request.fill(&Same("text")).ok());
    filled.is_some_and(|filled| ChatRequest::parse_text(&filled).is_ok_and(|(request, _)| request.embed.is_some()))
}

fn read_text(section: &mut Section<'_>, key: &'static str) -> Option<Template> {
    section.parsed(key, "a text such as \"Classify: {text}\"", |text| {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        Template::parse(text).map_err(|fault| fault.reason)
    })
}

fn read_inline(section: &mut Section<'_>) -> Option<RequestTemplate> {
    let value = section.take("template")?;
    let ValueKind::Table(_) = &value.kind else {
        section.fault("template", "is not a table", "a whole request, such as { messages = […] }");
        return None;
    };
    parse(section, "template", "", &to_json(&value).to_string())
}

fn read_file(section: &mut Section<'_>) -> Option<RequestTemplate> {
    let file = section.path("template_file")?;
    let shown = file.display();
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(section, "template_file", &format!("{shown}: "), &text),
        Err(error) => {
            section.fault("template_file", format!("{shown}: {error}"), "a file with a request in JSON");
            None
        }
    }
}

fn parse(section: &Section<'_>, key: &'static str, place: &str, text: &str) -> Option<RequestTemplate> {
    let told = |TemplateError { path, reason }: TemplateError| {
        let path = if path.is_empty() { path } else { format!("{path}: ") };
        section.fault(key, format!("{place}{path}{reason}"), EXPECTED);
    };
    RequestTemplate::parse(text).map_err(told).ok()
}

fn read_format(section: &mut Section<'_>) -> Option<Value> {
    const EXPECTED: &str = "a form of answers such as { type = \"json_object\" }";
    let value = section.take("response_format").map(|value| to_json(&value))?;
    let asked = json!({ "prompt": "text", "response_format": value });
    match ChatRequest::parse_with_schema(&asked) {
        Ok(_) => Some(value),
        Err(fault) => {
            let key = if fault.field.starts_with("response_format") { fault.field.as_str() } else { "response_format" };
            section.fault(key, fault.reason, EXPECTED);
            None
        }
    }
}

/// Fills a template with texts and reads the outcome. A fault that every row would meet is told now.
fn check_request(section: &Section<'_>, key: &str, request: &RequestTemplate) {
    if request.names().is_empty() {
        let key = section.key_in_file(key);
        section.reading().warn(format!("{key}: it names no value, so all requests that hold just `vars` ask the same"));
    }
    let filled = request.fill(&Same("text")).unwrap_or_default();
    let Err(fault) = ChatRequest::parse_text(&filled) else { return };
    if request.depends_at(&fault.field) {
        return;
    }
    let (key, problem) = match key {
        "template" if fault.field != "request" => (format!("template.{}", fault.field), fault.reason),
        "template" => ("template".to_owned(), fault.reason),
        key => (key.to_owned(), fault.to_string()),
    };
    section.fault(&key, problem, EXPECTED);
}
