//! The meaning of a server's own errors, as its operator has told it: read before any table.

use super::error_body::{ErrorBody, whole};
use super::wording::Meaning;
use crate::domain::{ErrorClass, Scope};
use serde_json::Value;

/// One row: its class applies when all its conditions hold. At least one of them is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnError {
    /// A code, a type or a reason that the body gives, in any case.
    pub code: Option<String>,
    /// The status. An error inside a success has none of its own: then this condition holds, unless it is the only one.
    pub status: Option<u16>,
    /// A phrase of the message, in lower case; `*` stands for anything.
    pub says: Option<String>,
    /// What the error is.
    pub class: ErrorClass,
}

/// What an error of this class concerns when a provider reports it; `None`: no provider reports one, because it is
/// found out on this side.
#[must_use]
pub const fn scope_of(class: ErrorClass) -> Option<Scope> {
    match class {
        ErrorClass::QuotaExhausted | ErrorClass::Auth => Some(Scope::Key),
        ErrorClass::RateLimit
        | ErrorClass::RateLimitDaily
        | ErrorClass::RampLimit
        | ErrorClass::Overloaded
        | ErrorClass::ServerError
        | ErrorClass::Timeout
        | ErrorClass::Permission
        | ErrorClass::NotFound
        | ErrorClass::OutputInvalid => Some(Scope::Model),
        ErrorClass::InvalidRequest
        | ErrorClass::Refused
        | ErrorClass::ContextLength
        | ErrorClass::ContentPolicy
        | ErrorClass::PayloadTooLarge
        | ErrorClass::NeverFits
        | ErrorClass::Conflict
        | ErrorClass::Cancelled => Some(Scope::Request),
        // A tier says this, and only vendors that are known have tiers.
        ErrorClass::NoCapacity
        | ErrorClass::Network
        | ErrorClass::Unreachable
        | ErrorClass::SoftFailure
        | ErrorClass::Abandoned
        | ErrorClass::Deadline => None,
    }
}

/// The names of the classes that a server may report.
#[must_use]
pub fn reported_classes() -> Vec<&'static str> {
    ErrorClass::ALL.iter().filter(|class| scope_of(**class).is_some()).map(|class| class.as_str()).collect()
}

impl OwnError {
    /// What the error means, if it is this one.
    pub(super) fn meaning(&self, status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
        let by_status_alone = self.code.is_none() && self.says.is_none();
        let holds = self.status.is_none_or(|own| status.map_or(!by_status_alone, |status| status == own))
            && self.code.as_ref().is_none_or(|code| gives(body, code))
            && self.says.as_ref().is_none_or(|phrase| body.says(&[phrase.as_str()]));
        holds.then(|| Meaning::new(self.class, scope_of(self.class).unwrap_or(Scope::Model)))
    }

    /// Whether it is told by more than a status, so that it can be found where there is none.
    const fn has_code(&self) -> bool {
        self.code.is_some()
    }
}

/// Whether any of these rows has a code.
pub(super) fn have_codes(own: &[OwnError]) -> bool {
    own.iter().any(OwnError::has_code)
}

/// Whether a code of these rows names this error, which came without a status.
pub(super) fn name(own: &[OwnError], error: &ErrorBody) -> bool {
    own.iter().any(|own| own.has_code() && own.meaning(None, error).is_some())
}

/// Members of an error whose names have one of these parts may hold a code.
const NAMED: &[&str] = &["code", "type", "reason", "status", "kind", "errno", "error", "name"];

/// Members within members are looked at this far down.
const DEPTH: usize = 3;

/// Whether a body gives this code: where codes are known to be, or in a member of the error whose name says that it may
/// be one. A known code may also be a small number there.
fn gives(body: &ErrorBody, code: &str) -> bool {
    let as_number = whole(&Value::from(code));
    body.has_code(&[code])
        || body.base_resp.is_some_and(|number| Some(number) == as_number)
        || std::iter::once(&body.value).chain(&body.beside).any(|value| holds(value, (code, as_number), DEPTH))
}

fn holds(value: &Value, (code, as_number): (&str, Option<i64>), depth: usize) -> bool {
    let is_it = |value: &Value| match value {
        Value::String(text) if text.trim().eq_ignore_ascii_case(code) => true,
        // `1302`, `"1302"` and `1302.0` are one code, however each side writes it.
        Value::String(_) | Value::Number(_) => whole(value).is_some_and(|number| Some(number) == as_number),
        _ => false,
    };
    let below = |value: &Value| depth > 0 && holds(value, (code, as_number), depth - 1);
    match value {
        Value::Object(members) => members.iter().any(|(name, member)| {
            let name = name.to_ascii_lowercase();
            (is_it(member) && NAMED.iter().any(|part| name.contains(part))) || below(member)
        }),
        Value::Array(items) => items.iter().take(5).any(below),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::checks::spoken;
    use crate::provider::quirks::QuirkSettings;
    use crate::provider::wire::{Delivery, WireReply};
    use crate::provider::{DIALECTS, bedrock};
    use reqwest::header::HeaderMap;
    use serde_json::json;
    use std::time::Duration;

    fn row(code: Option<&str>, status: Option<u16>, says: Option<&str>, class: ErrorClass) -> OwnError {
        OwnError { code: code.map(str::to_owned), status, says: says.map(str::to_owned), class }
    }

    #[test]
    fn a_servers_own_errors_are_read_before_any_table() {
        use ErrorClass::{ContextLength, NotFound, Overloaded, QuotaExhausted, RateLimit, Refused, ServerError};
        let errors = vec![
            row(Some("E_FULL"), None, None, Overloaded),
            row(Some("17"), None, None, QuotaExhausted),
            row(Some("E_BIG"), Some(400), None, ContextLength),
            row(None, Some(420), None, RateLimit),
            row(None, Some(400), Some("wrong * shape"), Refused),
        ];
        let quirks = QuirkSettings { errors, ..QuirkSettings::default() };
        let told = |dialect: &str, status: u16, body: &str| {
            let adapter = spoken(dialect, None, "http://127.0.0.1/v1", &quirks);
            let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), "3".parse().unwrap())]);
            let failure = adapter.decode(&WireReply::new(status, &headers, body.as_bytes())).unwrap_err();
            assert!(failure.wait == Some(Duration::from_secs(3)), "{body}");
            (failure.class, failure.scope)
        };
        let good = r#"{"choices":[{"message":{"content":"E_FULL"},"finish_reason":"stop"}],"status":"E_FULL"}"#;
        let adapter = spoken("openai", None, "http://127.0.0.1/v1", &quirks);
        assert!(adapter.decode(&WireReply::new(200, &HeaderMap::new(), good.as_bytes())).is_ok());
        for (status, body, expected) in [
            (400, r#"{"error":{"code":"e_full","message":"Come back."}}"#, (Overloaded, Scope::Model)),
            (400, r#"{"fault":{"reason_code":"E_FULL"},"message":"no"}"#, (Overloaded, Scope::Model)),
            (200, r#"{"outcome":{"status":"E_FULL"}}"#, (Overloaded, Scope::Model)),
            (200, r#"{"error":{"type":"E_BIG","message":"long"}}"#, (ContextLength, Scope::Request)),
            (500, r#"{"error":{"code":17,"message":"pay"}}"#, (QuotaExhausted, Scope::Key)),
            (420, "<html>calm</html>", (RateLimit, Scope::Model)),
            (400, r#"{"error":{"message":"A wrong tensor shape."}}"#, (Refused, Scope::Request)),
            // Where no row fits, the tables decide.
            (500, r#"{"error":{"code":"E_BIG","message":"odd"}}"#, (ServerError, Scope::Model)),
            (404, r#"{"error":{"message":"The model `m` does not exist."}}"#, (NotFound, Scope::Model)),
        ] {
            assert_eq!(told("openai", status, body), expected, "{status} {body}");
        }
        // Every dialect asks them.
        for dialect in ["anthropic", "gemini", "openai_responses", "cohere", "ollama", "bedrock", "completions"] {
            let body = r#"{"error":{"code":"E_FULL","message":"Come back."}}"#;
            assert_eq!(told(dialect, 403, body), (Overloaded, Scope::Model), "{dialect}");
            assert_eq!(
                told(dialect, 200, r#"{"outcome":{"status":"E_FULL"}}"#),
                (Overloaded, Scope::Model),
                "{dialect}"
            );
        }
    }

    #[test]
    fn a_code_within_an_answer_is_no_error() {
        let errors = vec![row(Some("timeout"), None, None, ErrorClass::Timeout)];
        let quirks = QuirkSettings { errors, ..QuirkSettings::default() };
        for (dialect, body) in [
            (
                "openai_responses",
                r#"{"status":"completed","tools":[{"type":"function","name":"timeout"}],"output":[{"type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Yes."}]}]}"#,
            ),
            ("openai", r#"{"object":"list","data":[{"index":0,"embedding":[0.5]}],"type":"timeout"}"#),
            (
                "ollama",
                r#"{"message":{"role":"assistant","content":"Yes."},"done":true,"done_reason":"stop","type":"timeout"}"#,
            ),
            (
                "anthropic",
                r#"{"type":"message","kind":"timeout","content":[{"type":"text","text":"Yes."}],"stop_reason":"end_turn"}"#,
            ),
        ] {
            let adapter = spoken(dialect, None, "http://127.0.0.1/v1", &quirks);
            let answer = adapter.decode(&WireReply::new(200, &HeaderMap::new(), body.as_bytes()));
            assert!(answer.is_ok(), "{dialect}: {answer:?}");
        }
    }

    #[test]
    fn a_code_is_looked_for_where_a_code_may_be() {
        let body = |text: &str| ErrorBody::read(text.as_bytes());
        for (text, is_there) in [
            (r#"{"error":{"err_kind":"X1"}}"#, true),
            (r#"{"a":{"b":{"error_name":"X1"}}}"#, true),
            (r#"{"error":{"message":"X1"}}"#, false),
            (r#"{"error":{"retry_after":"X1"}}"#, false),
            (r#"{"error":{"code":"X12"}}"#, false),
            ("X1", false),
        ] {
            assert_eq!(gives(&body(text), "X1"), is_there, "{text}");
        }
    }

    #[test]
    fn a_number_is_one_code_however_each_side_writes_it() {
        for written in ["1302", "1302.0", "1.302e3", "\"1302\"", "\" 1302.0\""] {
            for place in ["error", "fault"] {
                let body = ErrorBody::read(format!(r#"{{"{place}":{{"code":{written},"message":"m"}}}}"#).as_bytes());
                for code in ["1302", "1302.0"] {
                    assert!(gives(&body, code), "{body:?} {code}");
                }
                assert!(!gives(&body, "130") && !gives(&body, "1302.5"), "{body:?}");
            }
        }
        let body = ErrorBody::read(br#"{"error":{"code":1302.5,"message":"m"}}"#);
        assert!(!gives(&body, "1302"));
        // The vendors' own codes, too.
        let zai = spoken("openai", Some("zai"), "http://127.0.0.1/v1", &QuirkSettings::default());
        let body = br#"{"error":{"code":1302.0,"message":"m"}}"#;
        let failure = zai.decode(&WireReply::new(429, &HeaderMap::new(), body)).unwrap_err();
        assert_eq!((failure.class, failure.code.as_deref()), (ErrorClass::RateLimit, Some("1302")));
    }

    /// A stream of each dialect that has begun, and the form of its pieces.
    fn begun() -> Vec<(&'static str, Vec<u8>, Form)> {
        let text = |lines: &[&str]| -> Vec<u8> {
            lines.iter().flat_map(|line| format!("data: {line}\n\n").into_bytes()).collect()
        };
        let chunk = text(&[r#"{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}"#]);
        let delta = bedrock::frames::written(
            "event",
            "contentBlockDelta",
            &json!({"contentBlockIndex": 0, "delta": {"text": "Hel"}}),
        );
        let anthropics = [
            r#"{"type":"message_start","message":{"id":"x","type":"message","content":[],"usage":{"input_tokens":3}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}"#,
        ];
        let coheres = [
            r#"{"type":"message-start","id":"x","delta":{"message":{"role":"assistant","content":[]}}}"#,
            r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":"Hel"}}}}"#,
        ];
        let responses = [
            r#"{"type":"response.created","response":{"id":"x","status":"in_progress","output":[]}}"#,
            r#"{"type":"response.output_text.delta","delta":"Hel"}"#,
        ];
        let gemini = text(&[r#"{"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"}}]}"#]);
        let ollama = b"{\"message\":{\"role\":\"assistant\",\"content\":\"Hel\"},\"done\":false}\n".to_vec();
        vec![
            ("openai", chunk.clone(), Form::Events),
            ("azure_openai", chunk, Form::Events),
            ("completions", text(&[r#"{"id":"x","choices":[{"index":0,"text":"Hel"}]}"#]), Form::Events),
            ("anthropic", text(&anthropics), Form::Events),
            ("gemini", gemini, Form::Events),
            ("cohere", text(&coheres), Form::Events),
            ("openai_responses", text(&responses), Form::Events),
            ("ollama", ollama, Form::Lines),
            ("bedrock", delta, Form::Frames),
        ]
    }

    #[derive(Clone, Copy)]
    enum Form {
        Events,
        Lines,
        Frames,
    }

    impl Form {
        fn written(self, name: &str, value: &Value) -> Vec<u8> {
            match self {
                Self::Events if name.is_empty() => format!("data: {value}\n\n").into_bytes(),
                Self::Events => format!("event: {name}\ndata: {value}\n\n").into_bytes(),
                Self::Lines => format!("{value}\n").into_bytes(),
                Self::Frames => bedrock::frames::written("event", name, value),
            }
        }
    }

    #[test]
    fn an_error_in_the_middle_of_a_stream_is_read_in_every_dialect() {
        use ErrorClass::{ContentPolicy, Network, Overloaded, QuotaExhausted, RateLimit, ServerError};
        let errors = vec![
            row(Some("E_FULL"), None, None, Overloaded),
            row(Some("17"), None, None, QuotaExhausted),
            row(Some("E_ODD"), None, Some("bad words"), ContentPolicy),
        ];
        let quirks = QuirkSettings { errors, ..QuirkSettings::default() };
        let headers = HeaderMap::new();
        let names: Vec<&str> = begun().iter().map(|(name, ..)| *name).collect();
        assert!(DIALECTS.iter().all(|dialect| names.contains(&dialect.name)), "{names:?}");
        for (dialect, begun, form) in begun() {
            let adapter = spoken(dialect, None, "http://127.0.0.1/v1", &quirks);
            let failure = |name: &str, value: &Value| {
                let body = [begun.clone(), form.written(name, value)].concat();
                let reply = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, &body) };
                let partial = adapter.decode(&WireReply { is_partial: true, ..reply });
                assert_eq!(partial.unwrap().text.as_deref(), Some("Hel"), "{dialect}: {value}");
                adapter.decode(&reply).expect_err(dialect)
            };
            for (name, value, class) in [
                ("", json!({"outcome": {"status": "E_FULL"}}), Overloaded),
                ("note", json!({"type": "note", "reason": "e_full"}), Overloaded),
                ("", json!({"code": 17.0, "message": "pay"}), QuotaExhausted),
                ("", json!({"code": "17", "message": "pay"}), QuotaExhausted),
                ("", json!({"error": {"code": "E_ODD", "message": "Bad, bad words."}}), ContentPolicy),
                // No row fits: what is an error in the body of a success is one here, too.
                ("", json!({"code": "E_ELSE", "message": "Rate limit exceeded."}), RateLimit),
                ("", json!({"error": {"code": "E_ODD", "message": "Other words."}}), ServerError),
                // What a model or a server says beside is no error.
                ("", json!({"type": "ping"}), Network),
                ("", json!({"status": "working"}), Network),
            ] {
                // In a stream of frames these are the exceptions of the service.
                let is_plain_error = class == ServerError || class == ContentPolicy;
                if matches!(form, Form::Frames) && is_plain_error {
                    continue;
                }
                let failure = failure(name, &value);
                assert_eq!(failure.class, class, "{dialect}: {value}: {failure:?}");
            }
        }
    }

    #[test]
    fn an_event_that_is_named_an_error_is_one_and_a_code_in_a_piece_of_an_answer_is_none() {
        let errors = vec![row(Some("timeout"), None, None, ErrorClass::Timeout)];
        let quirks = QuirkSettings { errors, ..QuirkSettings::default() };
        let adapter = spoken("openai", None, "http://127.0.0.1/v1", &quirks);
        let headers = HeaderMap::new();
        let decode = |body: &str| {
            let reply = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, body.as_bytes()) };
            adapter.decode(&reply)
        };
        let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","type":"function","function":{"name":"timeout","arguments":"{}"}}]},"finish_reason":null}]}"#;
        let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"type":"timeout"}"#;
        let answer = decode(&format!("data: {call}\n\ndata: {end}\n\n")).unwrap();
        assert_eq!(answer.tool_calls.len(), 1);
        assert_eq!(decode(&format!("data: {call}\n\n")).unwrap_err().class, ErrorClass::Network);
        // An event of its own counts even before an end.
        let told = r#"{"outcome":"none","kind":"timeout"}"#;
        let failure = decode(&format!("data: {call}\n\ndata: {told}\n\ndata: {end}\n\n")).unwrap_err();
        assert_eq!(failure.class, ErrorClass::Timeout);
        for said in ["The model is overloaded.", r#"{"text":"The model is overloaded."}"#] {
            let failure = decode(&format!("data: {call}\n\nevent: error\ndata: {said}\n\n")).unwrap_err();
            assert_eq!(failure.class, ErrorClass::Overloaded, "{said}: {failure:?}");
        }
    }

    #[test]
    fn a_vendors_own_codes_count_in_the_middle_of_a_stream() {
        let zai = spoken("openai", Some("zai"), "http://127.0.0.1/v1", &QuirkSettings::default());
        let dashscope = spoken("openai", Some("dashscope"), "http://127.0.0.1/v1", &QuirkSettings::default());
        let chunk = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
        let headers = HeaderMap::new();
        for (adapter, event, class) in [
            (zai, r#"data: {"error":{"code":"1261","message":"m"}}"#, ErrorClass::ContextLength),
            (zai, r#"data: {"code":1113,"msg":"m"}"#, ErrorClass::QuotaExhausted),
            (
                dashscope,
                "event: error\ndata: {\"code\":\"Throttling.BurstRate\",\"message\":\"m\",\"request_id\":\"r\"}",
                ErrorClass::RampLimit,
            ),
        ] {
            let body = format!("data: {chunk}\n\n{event}\n\n");
            let reply = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, body.as_bytes()) };
            assert_eq!(adapter.decode(&reply).unwrap_err().class, class, "{event}");
        }
    }

    #[test]
    fn no_server_reports_classes_that_are_found_out_on_this_side() {
        let words = reported_classes();
        assert!(words.contains(&"rate_limit") && words.contains(&"refused"));
        for other in ["network", "unreachable", "soft_failure", "abandoned", "deadline", "no_capacity"] {
            assert!(!words.contains(&other), "{other}");
        }
    }
}
