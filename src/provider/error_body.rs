//! The content of an error body in any shape.

use super::reply_body;
use super::scrub;
use crate::domain::Finish;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::borrow::Cow;

/// An error body, read leniently.
///
/// The error may be an object, a string, a list, JSON inside a string, or the body itself; its code may be a number or
/// a string; its message has a dozen names. A body that is not JSON at all is plain text or a page.
#[derive(Debug, Default)]
pub(super) struct ErrorBody {
    /// Every code, type, status word and reason in it, the most telling first.
    pub codes: Vec<String>,
    /// A numeric code in the range of HTTP errors.
    pub http_code: Option<u16>,
    /// The code of MiniMax's envelope, whose numbers mean something only there.
    pub base_resp: Option<i64>,
    /// The message as it came.
    pub message: String,
    /// Message and quoted upstream message in lower case without back-ticks; phrases are looked for here.
    pub text: String,
    /// The parameter that the error names.
    pub param: Option<String>,
    /// The error object, or the whole body when it has none.
    pub value: Value,
    /// The whole body where the error is only a part of it, and the parts that the error quotes from the server behind
    /// a gateway.
    pub beside: Vec<Value>,
    /// The words of the server behind a gateway.
    pub quoted: String,
    /// Headers that the body quotes: some gateways pass on the limits of the server behind them in this way.
    pub headers: HeaderMap,
    /// Whether the body is a JSON object. Other bodies come from a proxy or a server that fell over, not from an API.
    pub is_object: bool,
}

/// Where an error object may be; the first one present counts.
const ERRORS: &[&str] = &[
    "/error",
    "/errors/0",
    "/errors",
    "/Response/Error",
    "/base_resp",
    "/err",
    "/fault",
    "/detail/error",
    "/detail/0/error",
    "/choices/0/error",
    "/detail",
];

/// The names under which a message may be, in an error object or beside it.
const MESSAGES: &[&str] = &[
    "message",
    "error",
    "detail",
    "msg",
    "error_message",
    "error_msg",
    "errorMessage",
    "errmsg",
    "status_msg",
    "Message",
    "faultstring",
    "error_description",
    "description",
    "title",
    "errors",
];

/// Where codes are, the most telling first.
const CODES: &[&str] = &[
    "/innererror/code",
    "/details/error_code",
    "/detail/errorcode",
    "/availability/code",
    "/metadata/reason",
    "/metadata/reasons/0",
    "/code",
    "/error_code",
    "/errorCode",
    "/err_code",
    "/Code",
    "/__type",
    "/metadata/error_type",
    "/type",
    "/status",
];

/// Where a status in the range of HTTP errors is repeated.
const STATUSES: &[&str] = &["/code", "/status", "/status_code", "/statusCode", "/error_code", "/httpStatus"];

impl ErrorBody {
    /// Reads the body of an HTTP failure.
    pub fn read(body: &[u8]) -> Self {
        match reply_body::parse_json(body) {
            Ok(value) => Self::of_value(&value),
            Err(reason) => {
                let words = String::from_utf8_lossy(&body[..body.len().min(2000)]);
                // Markup tells a reader nothing; plain text of a proxy often does.
                let message = if let Some(title) = title(&words) {
                    title
                } else if words.trim_start().starts_with('<') || words.trim().is_empty() {
                    reason
                } else {
                    words.trim().to_owned()
                };
                Self { text: searchable(&message), message, ..Self::default() }
            }
        }
    }

    /// Reads the error that an HTTP success hides, if there is one.
    ///
    /// Beside a whole answer, which was paid for, only a sign that generating failed counts as an error: gateways write
    /// an error of nothing into every body, and report the providers that failed before the one that answered.
    pub fn inside(body: &Value) -> Option<Self> {
        let body = unwrapped(body);
        let word = |key: &str| body.get(key).and_then(Value::as_str);
        let is_whole = is_whole_answer(body);
        let says_so = !is_whole && (word("object") == Some("error") || word("type") == Some("error"));
        let holds_one = HELD.iter().any(|pointer| {
            reply_body::at(body, pointer)
                .is_some_and(|error| if is_whole { says_failed(error) } else { is_present(error) })
        });
        // These stand beside good answers as well, with a zero in them.
        let number = |pointer: &str| reply_body::at(body, pointer).filter(|code| code.is_number()).and_then(whole);
        let coded = ["/base_resp/status_code", "/error_code", "/errcode"]
            .iter()
            .any(|pointer| number(pointer).is_some_and(|code| code != 0 && !(200..300).contains(&code)));
        let is_answer = ["choices", "content", "candidates", "output", "data"]
            .iter()
            .any(|key| body.get(*key).is_some_and(|member| is_present(member) && !member.is_boolean()))
            // A message with a `role` is the model's answer.
            || ["/message/role", "/message/content"].iter().any(|pointer| reply_body::at(body, pointer).is_some());
        let refused = !is_answer
            && (body.get("success") == Some(&Value::Bool(false))
                || (body.get("code").is_some()
                    && MESSAGES.iter().any(|key| word(key).is_some_and(|text| !text.is_empty()))));
        // A message, and nothing that could be an answer.
        let only_words = !is_answer
            && ["message", "detail", "fault", "Message"].iter().any(|key| body.get(*key).is_some_and(is_present));
        (says_so || holds_one || coded || refused || only_words).then(|| Self::of_value(body))
    }

    /// The body of a success as an error, for those who know its codes; `None`: it holds an answer. A choice may stand
    /// beside an error, so it has to be whole; vectors, and what other dialects have in `holder`, count as they are.
    pub fn in_place_of_an_answer(body: &Value, holder: &str) -> Option<Self> {
        let body = unwrapped(body);
        let is_held = |member: &str| body.get(member).is_some_and(is_present);
        let is_answer = (holder != "choices" && is_held(holder))
            || ["data", "embeddings"]
                .iter()
                .any(|list| body.get(*list).is_some_and(|list| list.is_array() && is_present(list)));
        (!is_answer && !is_whole_answer(body)).then(|| Self::of_value(body))
    }

    /// The note on something like an error that stands beside an accepted answer.
    pub fn set_aside(body: &Value) -> Option<&'static str> {
        let body = unwrapped(body);
        let is_one = |error: &Value| is_present(error) && !is_of_nothing(error);
        HELD.iter()
            .any(|pointer| reply_body::at(body, pointer).is_some_and(is_one))
            .then_some("an error beside a whole answer, which does not say that generating failed, was set aside")
    }

    /// Reads a value as an error, whether it is one or not.
    pub fn of_value(value: &Value) -> Self {
        let root = unwrapped(value);
        let error = error_object(root);
        let error = error.as_ref();

        let mut codes = Codes::default();
        codes.add_all(error);
        codes.add(root.pointer("/code"));
        codes.add(root.pointer("/status"));
        codes.add(root.pointer("/type").filter(|kind| **kind != "error"));

        let named = |object: &Value| {
            let present = || MESSAGES.iter().filter_map(|key| object.get(*key).filter(|message| is_present(message)));
            // An object under such a name is the message only where no text is.
            present().find(|message| !message.is_object()).or_else(|| present().next()).map(words)
        };
        let message = match error {
            Value::String(text) => text.clone(),
            error => named(error).or_else(|| named(root)).unwrap_or_default(),
        };
        let (message, inner) = match nested(&message) {
            Some(inner) => (Self::of_value(&inner), true),
            None => (Self { message, ..Self::default() }, false),
        };
        codes.append(message.codes);
        let mut text = if inner { message.text } else { searchable(&message.message) };
        let mut beside: Vec<Value> = if std::ptr::eq(root, error) { Vec::new() } else { vec![root.clone()] };
        let mut upstream = String::new();
        for quoted in ["/metadata/raw", "/error/metadata/raw", "/upstream_error", "/innererror/message"] {
            let Some(raw) = error.pointer(quoted).filter(|raw| is_present(raw)) else { continue };
            let raw = words(raw);
            text.push('\n');
            text.push_str(&searchable(&raw));
            match nested(&raw) {
                Some(inner) => {
                    let inner = Self::of_value(&inner);
                    codes.append(inner.codes);
                    upstream = inner.message;
                    beside.push(inner.value);
                }
                None => upstream = raw,
            }
        }
        // Where a gateway quotes the server behind it, its own words say little.
        let told = if upstream.trim().is_empty() || message.message.contains(upstream.trim()) {
            message.message
        } else if message.message.trim().is_empty() {
            upstream.clone()
        } else {
            format!("{}: {}", message.message.trim(), upstream.trim())
        };
        // Something without a known name is better than nothing.
        let told = if told.trim().is_empty() && is_present(error) && !error.is_string() {
            let told = error.to_string();
            text = searchable(&told);
            told
        } else {
            told
        };
        let http_code = [error, root]
            .iter()
            .flat_map(|object| STATUSES.iter().filter_map(|pointer| whole(object.pointer(pointer)?)))
            .filter_map(|code| u16::try_from(code).ok())
            .find(|code| (400..600).contains(code))
            .or(message.http_code);
        let param = ["param", "parameter", "field"]
            .iter()
            .find_map(|key| error.get(*key).and_then(Value::as_str).filter(|param| !param.is_empty()));
        Self {
            codes: codes.0,
            http_code,
            base_resp: root.pointer("/base_resp/status_code").and_then(whole),
            message: told,
            text,
            beside,
            quoted: upstream,
            param: param.map(|param| scrub::head(param, 200).to_owned()).or(message.param),
            value: error.clone(),
            headers: quoted_headers(error).or_else(|| quoted_headers(root)).unwrap_or(message.headers),
            is_object: root.is_object(),
        }
    }

    /// Whether one of the codes is one of `wanted`, in any case.
    pub fn has_code(&self, wanted: &[&str]) -> bool {
        self.codes.iter().any(|code| wanted.iter().any(|wanted| code.eq_ignore_ascii_case(wanted)))
    }

    /// Whether one of the codes begins so, in any case.
    pub fn has_code_from(&self, start: &str) -> bool {
        self.codes.iter().any(|code| code.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)))
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
        let number = || self.base_resp.map(|code| code.to_string());
        self.codes.first().cloned().or_else(number).or_else(|| self.http_code.map(|code| code.to_string()))
    }
}

/// Codes, the most telling first, each once.
#[derive(Default)]
struct Codes(Vec<String>);

impl Codes {
    fn add(&mut self, value: Option<&Value>) {
        let code = match value {
            // A bare "error" is no code.
            Some(Value::String(code)) if !code.is_empty() && code != "error" => Cow::Borrowed(code.as_str()),
            // A status is kept apart; any other number is the vendor's own code.
            Some(number @ Value::Number(_)) => match whole(number) {
                Some(code) if code >= 600 => Cow::Owned(code.to_string()),
                _ => return,
            },
            _ => return,
        };
        if !self.0.iter().any(|known| *known == code) {
            self.0.push(scrub::head(&code, 200).to_owned());
        }
    }

    fn add_all(&mut self, error: &Value) {
        for pointer in CODES {
            self.add(error.pointer(pointer));
        }
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            self.add(detail.get("reason"));
        }
        for fault in error.as_array().into_iter().flatten().take(5) {
            self.add(fault.get("type"));
        }
    }

    fn append(&mut self, more: Vec<String>) {
        for code in more {
            if !self.0.contains(&code) {
                self.0.push(code);
            }
        }
    }
}

/// A whole number, also one in quotes or with an empty fraction: `1302`, `"1302"`, `1302.0`.
pub(super) fn whole(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "a whole number that a float holds exactly")]
    let of_float = |float: f64| (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64);
    match value {
        Value::Number(number) => number.as_i64().or_else(|| of_float(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            let digits = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0'));
            digits.map_or(text, |(digits, _)| digits).parse().ok()
        }
        _ => None,
    }
}

/// The title of an HTML page.
fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title>")? + "<title>".len();
    let end = begin + lower.get(begin..)?.find("</title>")?;
    let title = page.get(begin..end)?.split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then_some(title)
}

/// Some endpoints wrap their errors in an array.
fn unwrapped(body: &Value) -> &Value {
    body.as_array().and_then(|list| list.first()).unwrap_or(body)
}

/// The error object of a body, the body itself where it has none.
fn error_object(root: &Value) -> Cow<'_, Value> {
    for pointer in ERRORS {
        match root.pointer(pointer) {
            Some(Value::String(text)) => {
                if let Some(inner) = nested(text) {
                    return Cow::Owned(error_object(&inner).into_owned());
                }
            }
            Some(error @ Value::Object(members)) if !members.is_empty() => return Cow::Borrowed(error),
            _ => {}
        }
    }
    Cow::Borrowed(root)
}

/// The JSON object that a text consists of; gateways quote the servers behind them in this way.
fn nested(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.len() > 100_000 || !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    reply_body::parse_json(text.as_bytes()).ok().filter(Value::is_object)
}

fn is_present(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Where an HTTP success may hold an error.
const HELD: &[&str] = &["/error", "/errors", "/Response/Error", "/choices/0/error"];

/// Whether a body holds a whole answer of any dialect: content, and a word that it has ended.
fn is_whole_answer(body: &Value) -> bool {
    let first = ["/choices/0", "/candidates/0"].iter().find_map(|place| reply_body::at(body, place));
    let choice = first.unwrap_or(body);
    let contents =
        ["/message/content", "/message/tool_calls", "/message/function_call", "/text", "/content/parts", "/content"];
    let has_content = contents.iter().any(|pointer| reply_body::at(choice, pointer).is_some_and(is_present));
    let words = ["finish_reason", "finishReason", "stop_reason", "native_finish_reason"];
    let word = choice.as_object().and_then(|choice| reply_body::finish_word(choice, &words));
    has_content && word.is_some_and(|word| !matches!(Finish::of_word(&word), Finish::Error | Finish::Pause))
}

/// Whether an error says that generating failed: by a failure code, or by a message where it has no code. A list may
/// report attempts that others made good, so there only a code counts.
pub(super) fn says_failed(error: &Value) -> bool {
    match error {
        Value::String(text) => !is_nothing(text),
        Value::Array(errors) => errors.iter().any(|error| codes_of(error).any(is_failing)),
        Value::Object(_) => {
            let mut codes = codes_of(error).peekable();
            if codes.peek().is_some() {
                return codes.any(is_failing);
            }
            MESSAGES.iter().filter_map(|key| error.get(*key)).any(|message| match message {
                Value::String(text) => !is_nothing(text),
                other => is_present(other),
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether an error is there in form only.
fn is_of_nothing(error: &Value) -> bool {
    match error {
        Value::String(text) => is_nothing(text),
        Value::Array(errors) => errors.iter().all(is_of_nothing),
        Value::Object(members) => members.values().all(|member| is_of_nothing(member) || !is_failing(member)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The codes that an error object has.
fn codes_of(error: &Value) -> impl Iterator<Item = &Value> {
    let pointers = CODES.iter().chain(STATUSES).filter(|pointer| **pointer != "/metadata/reasons/0");
    pointers.filter_map(|pointer| error.pointer(pointer)).filter(|code| match code {
        Value::String(code) => !code.trim().is_empty(),
        Value::Number(_) => true,
        _ => false,
    })
}

/// Whether a code means failure: not zero, not an HTTP success code, not a word for nothing.
fn is_failing(code: &Value) -> bool {
    match code {
        Value::String(code) => match code.trim().parse::<i64>() {
            Ok(number) => number != 0 && !(200..300).contains(&number),
            Err(_) => !is_nothing(code),
        },
        Value::Number(code) => code.as_i64().is_none_or(|code| code != 0 && !(200..300).contains(&code)),
        _ => false,
    }
}

/// Whether a word says that there is no error.
fn is_nothing(word: &str) -> bool {
    let word = word.trim().trim_end_matches(['.', '!']).to_ascii_lowercase();
    let words =
        ["", "0", "200", "null", "none", "nil", "undefined", "false", "no", "no error", "no_error", "ok", "okay"];
    words.contains(&word.as_str()) || ["success", "succeeded", "successful", "completed"].contains(&word.as_str())
}

/// The headers that an error quotes.
fn quoted_headers(error: &Value) -> Option<HeaderMap> {
    let quoted = ["/metadata/headers", "/headers", "/response_headers", "/metadata/provider_headers"];
    let members = quoted.iter().find_map(|pointer| error.pointer(pointer)?.as_object())?;
    let headers = members.iter().take(100).filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value).ok()?))
    });
    Some(headers.collect())
}

/// The words of a message: a string as it is, a list of validation faults as its messages, anything else as JSON.
fn words(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Array(faults) => {
            let fault = |fault: &Value| match fault.get("msg").or_else(|| fault.get("message")).and_then(Value::as_str)
            {
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

/// The first few thousand characters, in which phrases are looked for: later ones are quoted prompts.
fn searchable(message: &str) -> String {
    scrub::head(message, 4000).to_lowercase().replace('`', "")
}
