//! What an error body says, whichever of the many shapes it has.

use super::reply_body;
use super::scrub;
use serde_json::Value;

/// An error body, read leniently: `error` as object or string, `code` as number or string, array-wrapped, in a
/// choice, or not JSON at all.
#[derive(Debug, Default)]
pub(super) struct ErrorBody {
    /// Every code, type, status word and reason in it, the most telling first.
    pub codes: Vec<String>,
    /// A numeric code in the range of HTTP errors.
    pub http_code: Option<u16>,
    /// The message as it came.
    pub message: String,
    /// Message and quoted upstream message in lower case without back-ticks: what phrases are looked for in.
    pub text: String,
    /// The error object, or the whole body when it has none.
    pub value: Value,
}

impl ErrorBody {
    /// Reads the body of an HTTP failure.
    pub fn read(body: &[u8]) -> Self {
        match reply_body::parse_json(body) {
            Ok(value) => Self::of_value(&value),
            Err(reason) => {
                let words = String::from_utf8_lossy(&body[..body.len().min(2000)]);
                // Markup tells nobody anything; plain text of a proxy often does.
                let message = if words.trim_start().starts_with('<') || words.trim().is_empty() {
                    reason
                } else {
                    words.trim().to_owned()
                };
                Self { text: searchable(&message), message, ..Self::default() }
            }
        }
    }

    /// Reads the error that an HTTP success hides, if there is one.
    pub fn inside(body: &Value) -> Option<Self> {
        let body = unwrapped(body);
        let present = |value: &&Value| match value {
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => false,
        };
        let word = |key: &str| body.get(key).and_then(Value::as_str);
        let top = body.get("error").as_ref().is_some_and(present)
            || word("object") == Some("error")
            || word("type") == Some("error");
        if top {
            return Some(Self::of_value(body));
        }
        body.pointer("/choices/0/error").filter(present).map(Self::of_value)
    }

    fn of_value(value: &Value) -> Self {
        let root = unwrapped(value);
        let error = root.get("error").filter(|error| error.is_object()).unwrap_or(root);

        let mut codes: Vec<String> = Vec::new();
        let mut add = |value: Option<&Value>| {
            if let Some(code) = value.and_then(Value::as_str).filter(|code| !code.is_empty())
                && !codes.iter().any(|known| known == code)
            {
                codes.push(scrub::head(code, 200).to_owned());
            }
        };
        for pointer in [
            "/innererror/code",
            "/details/error_code",
            "/availability/code",
            "/metadata/reason",
            "/metadata/reasons/0",
            "/code",
            "/metadata/error_type",
            "/type",
            "/status",
        ] {
            add(error.pointer(pointer));
        }
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            add(detail.get("reason"));
        }
        if !std::ptr::eq(root, error) {
            add(root.get("code"));
        }

        let message = ["message", "error", "detail", "msg"]
            .iter()
            .find_map(|key| error.get(*key).filter(|message| !message.is_null()))
            .or_else(|| root.get("message"))
            .map_or_else(String::new, words);
        let mut text = searchable(&message);
        if let Some(raw) = error.pointer("/metadata/raw") {
            text.push('\n');
            text.push_str(&searchable(&words(raw)));
        }
        let http_code = error
            .get("code")
            .and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()))
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| (400..600).contains(code));
        let value = error.clone();
        Self { codes, http_code, message, text, value }
    }

    /// Whether one of the codes is one of `wanted`, in any case.
    pub fn has_code(&self, wanted: &[&str]) -> bool {
        self.codes.iter().any(|code| wanted.iter().any(|wanted| code.eq_ignore_ascii_case(wanted)))
    }

    /// Whether the text holds one of `phrases`; `*` in a phrase stands for anything.
    pub fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| {
            let mut rest = self.text.as_str();
            phrase.split('*').all(|piece| rest.find(piece).map(|at| rest = &rest[at + piece.len()..]).is_some())
        })
    }

    /// The code for the ledger.
    pub fn code(&self) -> Option<String> {
        self.codes.first().cloned().or_else(|| self.http_code.map(|code| code.to_string()))
    }
}

/// Some endpoints wrap their errors in an array.
fn unwrapped(body: &Value) -> &Value {
    body.as_array().and_then(|list| list.first()).unwrap_or(body)
}

/// The words of a message: a string as it is, a list of validation faults as its messages, anything else as JSON.
fn words(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Array(faults) => {
            let fault = |fault: &Value| match fault.get("msg").and_then(Value::as_str) {
                Some(reason) => {
                    let place: Vec<String> =
                        fault.get("loc").and_then(Value::as_array).into_iter().flatten().map(words).collect();
                    if place.is_empty() { reason.to_owned() } else { format!("{}: {reason}", place.join(".")) }
                }
                None => words(fault),
            };
            faults.iter().take(5).map(fault).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// Phrases are looked for in the first few thousand characters: later ones are quoted prompts.
fn searchable(message: &str) -> String {
    scrub::head(message, 4000).to_lowercase().replace('`', "")
}
