//! The meaning of a server's own errors, as its operator has told it: read before any table.

use super::error_body::ErrorBody;
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
    pub(super) const fn has_code(&self) -> bool {
        self.code.is_some()
    }
}

/// Members of an error whose names have one of these parts may hold a code.
const NAMED: &[&str] = &["code", "type", "reason", "status", "kind", "errno", "error", "name"];

/// Members within members are looked at this far down.
const DEPTH: usize = 3;

/// Whether a body gives this code: where codes are known to be, or in a member of the error whose name says that it may
/// be one. A known code may also be a small number there.
fn gives(body: &ErrorBody, code: &str) -> bool {
    body.has_code(&[code])
        || body.base_resp.is_some_and(|number| number.to_string() == code)
        || std::iter::once(&body.value).chain(&body.beside).any(|value| holds(value, code, DEPTH))
}

fn holds(value: &Value, code: &str, depth: usize) -> bool {
    let is_it = |value: &Value| match value {
        Value::String(text) => text.trim().eq_ignore_ascii_case(code),
        Value::Number(number) => number.to_string() == code,
        _ => false,
    };
    let below = |value: &Value| depth > 0 && holds(value, code, depth - 1);
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
    use crate::provider::wire::WireReply;
    use reqwest::header::HeaderMap;
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
    fn no_server_reports_classes_that_are_found_out_on_this_side() {
        let words = reported_classes();
        assert!(words.contains(&"rate_limit") && words.contains(&"refused"));
        for other in ["network", "unreachable", "soft_failure", "abandoned", "deadline", "no_capacity"] {
            assert!(!words.contains(&other), "{other}");
        }
    }
}
