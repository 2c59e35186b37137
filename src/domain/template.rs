//! Templates: texts, and whole requests in JSON, in which `{name}` stands for a value of a row.
//!
//! `{{` and `}}` stand for braces. A name is anything without braces, quotes and line breaks. In a request the names
//! stand inside strings; a string that is nothing but `{name}` becomes the value itself, so that a number stays a
//! number.

use super::bounds::MOST_REQUEST_BYTES;
use super::raw_object::RawObject;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The value for a name in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    Text(Cow<'a, str>),
    /// JSON that is no string, as it is written. `null` is nothing: an empty text.
    Json(&'a str),
}

impl<'a> Given<'a> {
    /// A value of JSON, as it is written.
    #[must_use]
    pub fn of_json(written: &'a str) -> Self {
        match serde_json::from_str(written) {
            Ok(text) => Self::Text(Cow::Owned(text)),
            Err(_) => Self::Json(written),
        }
    }

    /// The value inside a text.
    fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Json("null") => "",
            Self::Json(written) => written,
        }
    }
}

/// The values of a row by their names.
pub trait Values {
    /// The value of this name; `None`: the row has no such name.
    fn value(&self, name: &str) -> Option<Given<'_>>;
}

impl Values for RawObject<'_> {
    fn value(&self, name: &str) -> Option<Given<'_>> {
        self.get(name).map(Given::of_json)
    }
}

/// A row that has this text under every name.
#[derive(Clone, Copy, Debug)]
pub struct Same<'a>(pub &'a str);

impl Values for Same<'_> {
    fn value(&self, _: &str) -> Option<Given<'_>> {
        Some(Given::Text(Cow::Borrowed(self.0)))
    }
}

/// Why a template cannot be filled from a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfilled {
    /// The row lacks this name.
    Missing(String),
    /// The outcome would be larger than a request may be.
    TooLarge,
}

/// A fault of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The path of the string at fault, such as `messages[0].content`; empty for a text that stands by itself, and for
    /// a request that cannot be read at all.
    pub path: String,
    /// The fault, and how braces are written.
    pub reason: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// How braces are written, as the end of a message.
pub const BRACES: &str = "`{{` and `}}` stand for braces";

/// A text with names in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// The first brace that is neither doubled nor part of a name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(after) = from.strip_prefix('{') {
                let (name, after) = name(after)?;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Name(name.to_owned()));
                rest = after;
            } else {
                return Err(fault("a `}` stands alone"));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    /// The names in it, each time that they stand there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The name, if it is nothing else.
    fn only_name(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Name(name)] => Some(name),
            _ => None,
        }
    }

    /// The text if there are no names in it.
    fn only_text(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with the values of a row in it.
    ///
    /// # Errors
    /// A name that the row lacks; a text that would be larger than a request.
    pub fn fill(&self, values: &dyn Values) -> Result<String, Unfilled> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => push(&mut text, plain)?,
                Piece::Name(name) => push(&mut text, look_up(values, name)?.as_text())?,
            }
        }
        Ok(text)
    }

    fn bytes(&self) -> usize {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Name(_) => 0,
        };
        self.pieces.iter().map(piece).sum()
    }
}

/// The name at the beginning of this text, and the text after its brace.
fn name(text: &str) -> Result<(&str, &str), TemplateError> {
    let end = text.find(['{', '}', '"', '\n', '\r']);
    match end.map(|end| text.split_at(end)) {
        Some(("", after)) if after.starts_with('}') => Err(fault("`{}` has no name")),
        Some((name, after)) if after.starts_with('}') => Ok((name, after.get(1..).unwrap_or_default())),
        _ => {
            let begin: String = text.chars().take_while(|letter| *letter != '\n' && *letter != '\r').take(20).collect();
            Err(fault(&format!("`{{{begin}` is not a name in braces")))
        }
    }
}

fn fault(what: &str) -> TemplateError {
    TemplateError { path: String::new(), reason: format!("{what}; {BRACES}") }
}

fn look_up<'a>(values: &'a dyn Values, name: &str) -> Result<Given<'a>, Unfilled> {
    values.value(name).ok_or_else(|| Unfilled::Missing(name.to_owned()))
}

fn push(text: &mut String, more: &str) -> Result<(), Unfilled> {
    if text.len().saturating_add(more.len()) > usize::try_from(MOST_REQUEST_BYTES).unwrap_or(usize::MAX) {
        return Err(Unfilled::TooLarge);
    }
    text.push_str(more);
    Ok(())
}

/// A whole request with names in its strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// JSON as it is written.
    Json(String),
    /// A string with names in it.
    Text(Template),
    /// A string that is nothing but a name. `is_text`: a text belongs here, so a number is written as one.
    Value { name: String, is_text: bool },
}

/// Members whose value is a text.
const OF_TEXT: [&str; 4] = ["content", "text", "prompt", "input"];

impl RequestTemplate {
    /// Reads a JSON object. Names of its members stay as they are.
    ///
    /// # Errors
    /// It is no JSON object, or one of its strings is no template.
    pub fn parse(json: &str) -> Result<Self, TemplateError> {
        let fault = |reason: String| TemplateError { path: String::new(), reason };
        let value: Value = serde_json::from_str(json).map_err(|error| fault(format!("expected JSON: {error}")))?;
        if !value.is_object() {
            return Err(fault("expected an object of JSON: a whole request".to_owned()));
        }
        let mut parts = Parts::default();
        let (mut rest, mut member) = (json, String::new());
        while let Some(letter) = rest.chars().next() {
            if letter != '"' {
                if !letter.is_ascii_whitespace() {
                    parts.json.push(letter);
                }
                rest = rest.get(letter.len_utf8()..).unwrap_or_default();
                continue;
            }
            let (written, after) = rest.split_at(end_of_string(rest));
            let text: String =
                serde_json::from_str(written).map_err(|error| fault(format!("expected JSON: {error}")))?;
            if after.trim_start().starts_with(':') {
                parts.json.push_str(written);
                member = text;
            } else if text.contains(['{', '}']) {
                let template = Template::parse(&text).map_err(|fault| {
                    let path = path_of(&value, &text).unwrap_or_default();
                    TemplateError { path: path.trim_start_matches('.').to_owned(), ..fault }
                })?;
                parts.add(template, OF_TEXT.contains(&member.as_str()));
            } else {
                parts.json.push_str(written);
            }
            rest = after;
        }
        Ok(parts.end())
    }

    /// One question, with or without instructions before it.
    #[must_use]
    pub fn of_prompt(prompt: Template, system: Option<Template>) -> Self {
        let mut parts = Parts::default();
        match system {
            None => {
                parts.json.push_str("{\"prompt\":");
                parts.add_text(prompt);
                parts.json.push('}');
            }
            Some(system) => {
                parts.json.push_str("{\"messages\":[{\"role\":\"system\",\"content\":");
                parts.add_text(system);
                parts.json.push_str("},{\"role\":\"user\",\"content\":");
                parts.add_text(prompt);
                parts.json.push_str("}]}");
            }
        }
        parts.end()
    }

    /// The names in it, each once and in their order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for part in &self.parts {
            let of_part: Vec<&str> = match part {
                Part::Json(_) => Vec::new(),
                Part::Text(template) => template.names().collect(),
                Part::Value { name, .. } => vec![name.as_str()],
            };
            for name in of_part {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The request with the values of a row in it, as JSON.
    ///
    /// # Errors
    /// A name that the row lacks; a request that would be too large.
    pub fn fill(&self, values: &dyn Values) -> Result<String, Unfilled> {
        let mut request = String::new();
        for part in &self.parts {
            match part {
                Part::Json(json) => push(&mut request, json)?,
                Part::Text(template) => push(&mut request, &in_quotes(&template.fill(values)?))?,
                Part::Value { name, is_text } => match look_up(values, name)? {
                    Given::Json(written) if !*is_text || written.starts_with(['{', '[']) => {
                        push(&mut request, written)?;
                    }
                    given => push(&mut request, &in_quotes(given.as_text()))?,
                },
            }
        }
        Ok(request)
    }

    /// How many bytes it has without the values, and how often it has the name that it has most often.
    #[must_use]
    pub fn extent(&self) -> (usize, usize) {
        let (mut bytes, mut uses) = (0, BTreeMap::new());
        for part in &self.parts {
            bytes += match part {
                Part::Json(json) => json.len(),
                Part::Text(template) => template.bytes(),
                Part::Value { .. } => 0,
            };
            let mut note = |name| *uses.entry(name).or_insert(0) += 1;
            match part {
                Part::Json(_) => {}
                Part::Text(template) => template.names().for_each(note),
                Part::Value { name, .. } => note(name.as_str()),
            }
        }
        (bytes, uses.into_values().max().unwrap_or(0))
    }

    /// Whether a request that was filled with any texts has a name alone at this place, so that the texts decide
    /// whether it is in order.
    #[must_use]
    pub fn depends_at(&self, path: &str) -> bool {
        let mark = "\u{1}";
        let filled = self.fill(&Same(mark)).unwrap_or_default();
        let value: Value = serde_json::from_str(&filled).unwrap_or_default();
        let pointer = format!(".{path}").replace(['.', '['], "/").replace(']', "");
        value.pointer(&pointer).is_some_and(|found| found.as_str() == Some(mark))
    }
}

/// Parts that are being gathered.
#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    json: String,
}

impl Parts {
    /// Adds a string that may be nothing but a name.
    fn add(&mut self, template: Template, is_text: bool) {
        match template.only_name().map(str::to_owned) {
            Some(name) => self.push(Part::Value { name, is_text }),
            None => self.add_text(template),
        }
    }

    /// Adds a string that is always a text.
    fn add_text(&mut self, template: Template) {
        match template.only_text() {
            Some(text) => self.json.push_str(&in_quotes(text)),
            None => self.push(Part::Text(template)),
        }
    }

    fn push(&mut self, part: Part) {
        self.parts.push(Part::Json(std::mem::take(&mut self.json)));
        self.parts.push(part);
    }

    fn end(mut self) -> RequestTemplate {
        self.parts.push(Part::Json(self.json));
        RequestTemplate { parts: self.parts }
    }
}

/// Where the string ends with which a JSON text begins.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn in_quotes(text: &str) -> String {
    Value::from(text).to_string()
}

/// The path of the first string that is this text, with a dot before it.
fn path_of(value: &Value, text: &str) -> Option<String> {
    match value {
        Value::String(found) => (found == text).then(String::new),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| path_of(item, text).map(|below| format!("[{index}]{below}")))
        }
        Value::Object(members) => {
            let mut members = members.iter();
            members.find_map(|(name, member)| path_of(member, text).map(|below| format!(".{name}{below}")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// The name that was probably meant by one that there is not: it differs in case or spaces, or by a slip or two.
#[must_use]
pub fn near<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.trim().to_lowercase().replace([' ', '-'], "_");
    let (wanted, most) = (plain(name), 1 + name.chars().count() / 5);
    let distance = |known: &str| strsim::damerau_levenshtein(&wanted, &plain(known));
    let far = |known: &str| known.chars().count() > 200 || (distance(known) > 0 && known.chars().count() < 3);
    let near = names.into_iter().filter(|known| !far(known)).map(|known| (distance(known), known));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROW: &str = r#"{"text":"it \"works\"\n","n":1.50,"none":null,"list":["a", 1],"two words":"Ü"}"#;

    fn row() -> RawObject<'static> {
        RawObject::read(ROW).unwrap()
    }

    #[test]
    fn names_are_filled_and_doubled_braces_are_braces() {
        for (template, filled) in [
            ("", ""),
            ("plain", "plain"),
            ("Is {text} {n}?", "Is it \"works\"\n 1.50?"),
            ("{{text}} {{{n}}}", "{text} {1.50}"),
            ("[{none}] {list} {two words}", "[] [\"a\", 1] Ü"),
            ("{{\"label\": \"{n}\"}}", "{\"label\": \"1.50\"}"),
        ] {
            assert_eq!(Template::parse(template).unwrap().fill(&row()).as_deref(), Ok(filled), "{template}");
        }
        assert_eq!(Template::parse("{x}").unwrap().fill(&row()), Err(Unfilled::Missing("x".to_owned())));
    }

    #[test]
    fn a_brace_that_means_nothing_is_told() {
        for (template, reason) in [
            ("a } b", "a `}` stands alone; `{{` and `}}` stand for braces"),
            ("{}", "`{}` has no name; `{{` and `}}` stand for braces"),
            ("{text", "`{text` is not a name in braces; `{{` and `}}` stand for braces"),
            ("{\"label\": 1}", "`{\"label\": 1}` is not a name in braces; `{{` and `}}` stand for braces"),
            ("{a{b}}", "`{a{b}}` is not a name in braces; `{{` and `}}` stand for braces"),
            ("{a\nb}", "`{a` is not a name in braces; `{{` and `}}` stand for braces"),
        ] {
            assert_eq!(Template::parse(template).unwrap_err().to_string(), reason, "{template}");
        }
    }

    #[test]
    fn a_request_keeps_its_order_its_digits_and_the_kind_of_a_value_that_stands_alone() {
        let template = RequestTemplate::parse(
            r#"{"z": 1.0, "messages": [{"role": "user", "content": "Is {text}?"}, {"content": "{n}"}],
                "{n}": "{n}", "stop": "{list}", "big": 12345678901234567890123, "user": "{two words}", "b": "{{}}"}"#,
        )
        .unwrap();
        assert_eq!(template.names(), ["text", "n", "list", "two words"]);
        assert_eq!(
            template.fill(&row()).unwrap(),
            "{\"z\":1.0,\"messages\":[{\"role\":\"user\",\"content\":\"Is it \\\"works\\\"\\n?\"},{\"content\":\
             \"1.50\"}],\"{n}\":1.50,\"stop\":[\"a\", 1],\"big\":12345678901234567890123,\"user\":\"Ü\",\"b\":\"{}\"}"
        );
        let parse = |text: &str| RequestTemplate::parse(text).unwrap_err().to_string();
        assert_eq!(
            parse(r#"{"messages": [{"content": "a"}, {"content": "{"}]}"#),
            "messages[1].content: `{` is not a name in braces; `{{` and `}}` stand for braces"
        );
        assert_eq!(parse("[]"), "expected an object of JSON: a whole request");
        assert!(parse("{\"a\": \n").starts_with("expected JSON: EOF while parsing a value at line 2 column 0"));
    }

    #[test]
    fn a_question_is_a_text_whatever_its_value_is() {
        let of = |prompt: &str, system: Option<&str>| {
            let parse = |text: &str| Template::parse(text).unwrap();
            RequestTemplate::of_prompt(parse(prompt), system.map(parse)).fill(&row()).unwrap()
        };
        assert_eq!(of("{n}", None), r#"{"prompt":"1.50"}"#);
        assert_eq!(
            of("{n}?", Some("Say {two words}.")),
            r#"{"messages":[{"role":"system","content":"Say Ü."},{"role":"user","content":"1.50?"}]}"#
        );
    }

    #[test]
    fn a_template_that_repeats_a_long_text_is_stopped_in_time() {
        let long = "x".repeat(20 << 20);
        let values = Same(&long);
        let fill = |template: &str| Template::parse(template).unwrap().fill(&values).map(|text| text.len());
        assert_eq!((fill("{x}"), fill("{x}{x}")), (Ok(20 << 20), Err(Unfilled::TooLarge)));
        let request = RequestTemplate::parse(r#"{"a":"{x}","b":"{x} {y}","c":"abc"}"#).unwrap();
        assert_eq!((request.extent().1, request.fill(&values)), (2, Err(Unfilled::TooLarge)));
    }

    #[test]
    fn a_name_that_was_probably_meant_is_found() {
        let names = ["id", "text", "Review Text", "label"];
        for (name, meant) in [
            ("txt", Some("text")),
            ("Text", Some("text")),
            ("review_text", Some("Review Text")),
            (" label", Some("label")),
            ("ID", Some("id")),
            ("ix", None),
            ("price", None),
        ] {
            assert_eq!(near(name, names), meant, "{name}");
        }
    }

    #[test]
    fn places_that_depend_on_the_row_are_known() {
        let template =
            RequestTemplate::parse(r#"{"max_tokens":"{n}","messages":[{"role":"{r}","content":"a{b}"}]}"#).unwrap();
        assert!(template.depends_at("max_tokens") && template.depends_at("messages[0].role"));
        assert!(!template.depends_at("messages[0].content") && !template.depends_at("messages"));
    }

    proptest! {
        #[test]
        fn any_text_with_its_braces_doubled_is_itself(text in ".*") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&doubled).unwrap();
            prop_assert_eq!(template.fill(&row()), Ok(text.clone()));
            let json = serde_json::json!({ "a": doubled, "b": [1, null, { "c": doubled }] }).to_string();
            let filled = RequestTemplate::parse(&json).unwrap().fill(&row()).unwrap();
            let expected = serde_json::json!({ "a": text, "b": [1, null, { "c": text }] });
            prop_assert_eq!(serde_json::from_str::<Value>(&filled).unwrap(), expected);
        }

        #[test]
        fn no_text_makes_the_reader_fail_otherwise_than_by_a_fault(text in "[{}\"a:\\\\\n ]*") {
            let _ = Template::parse(&text);
            let _ = RequestTemplate::parse(&text);
        }

        #[test]
        fn what_is_filled_is_json_whatever_the_values_are(value in ".*") {
            let template = RequestTemplate::parse(r#"{"a":"{x}","b":["<{x}>"]}"#).unwrap();
            let filled = template.fill(&Same(&value)).unwrap();
            let expected = serde_json::json!({ "a": value, "b": [format!("<{value}>")] });
            prop_assert_eq!(serde_json::from_str::<Value>(&filled).unwrap(), expected);
        }
    }
}
