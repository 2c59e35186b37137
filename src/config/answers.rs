//! The quirks of a provider that concern its answers: `errors`, `headers` and `usage`.

use super::keys::OWN_ERROR;
use super::scalar;
use super::section::{Section, to_json};
use crate::domain::ErrorClass;
use crate::provider::HeaderName;
use crate::provider::own_errors::{OwnError, reported_classes, scope_of};
use crate::provider::own_headers::{OwnHeaders, OwnLimit};
use crate::provider::usage_places::UsagePlaces;
use config::ValueKind;

const ERRORS: &str = "a list of errors such as [{ code = \"E_FULL\", class = \"overloaded\" }]";
const CONDITIONS: &str = "code, status, or says beside one of them";
const POINTER: &str = "a JSON pointer into the body of an answer, such as \"/meta/tokens/in\"";
const HEADER: &str = "the name of a header, such as \"x-slow-down\"";

/// The rows in which a server's own errors stand.
pub(super) fn errors(section: &mut Section<'_>) -> Vec<OwnError> {
    let mut errors: Vec<OwnError> = Vec::new();
    for (index, value) in section.list("errors", ERRORS).into_iter().flatten().enumerate() {
        let key = format!("errors[{index}]");
        let ValueKind::Table(table) = value.kind else {
            section.fault(&key, "is no error", ERRORS);
            continue;
        };
        let row = section.nested(&key, &OWN_ERROR, table.into_iter().collect());
        let Some(error) = error(row) else { continue };
        // A row without a status, or without words, covers those that have one.
        let covers = |earlier: &OwnError| {
            earlier.code.is_none_or_is(&error.code)
                && earlier.status.is_none_or_is(&error.status)
                && earlier.says.is_none_or_is(&error.says)
        };
        if let Some(earlier) = errors.iter().position(covers) {
            let problem = format!("errors[{earlier}] fits every error that this row fits, so it never decides");
            section.fault(&key, problem, "the narrower row first, or only one of the two");
        }
        errors.push(error);
    }
    errors
}

/// A condition of an earlier row beside that of a later one.
trait Covering {
    /// Whether it asks for nothing, or for the same.
    fn is_none_or_is(&self, later: &Self) -> bool;
}

impl<T: PartialEq> Covering for Option<T> {
    fn is_none_or_is(&self, later: &Self) -> bool {
        self.is_none() || self == later
    }
}

/// One row; `None`: it is faulty.
fn error(mut row: Section<'_>) -> Option<OwnError> {
    let has = |row: &Section<'_>, key: &str| row.has(key);
    let (has_code, has_status, has_words) = (has(&row, "code"), has(&row, "status"), has(&row, "says"));
    let code = code(&mut row);
    let status = row.whole("status");
    let says = row.text("says", "words of its message").map(|words| words.to_lowercase().replace('`', ""));
    let class = class(&mut row);
    if !has_code && !has_status {
        if has_words {
            let problem = "is alone, and messages quote prompts that may say the same";
            row.fault("says", problem, "a code or a status beside it");
        } else {
            row.fault("", "says of no error how it is told", CONDITIONS);
        }
    }
    row.finish();
    let is_whole = (has_code || has_status)
        && has_code == code.is_some()
        && has_status == status.is_some()
        && has_words == says.is_some();
    let class = class?;
    is_whole.then_some(OwnError { code, status, says, class })
}

/// A code: a text, or a number.
fn code(row: &mut Section<'_>) -> Option<String> {
    const EXPECTED: &str = "a code such as \"E_FULL\" or 1302";
    let value = row.take("code")?;
    let code = match &value.kind {
        ValueKind::String(text) => text.trim().to_owned(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Float(number) if number.fract() == 0.0 => format!("{number:.0}"),
        _ => {
            row.fault("code", format!("{} is no code", to_json(&value)), EXPECTED);
            return None;
        }
    };
    if code.is_empty() {
        row.fault("code", "is empty", EXPECTED);
        return None;
    }
    Some(code)
}

fn class(row: &mut Section<'_>) -> Option<ErrorClass> {
    let known = reported_classes();
    let expected = format!("one of {}", known.join(", "));
    if !row.has("class") {
        row.fault("class", "is missing", expected.clone());
    }
    row.parsed("class", &expected, |text| match text.parse::<ErrorClass>() {
        Ok(class) if scope_of(class).is_some() => Ok(class),
        Ok(class) => Err(format!("{:?} is found out on this side, and no server reports it", class.as_str())),
        Err(()) => Err(match scalar::nearest(text, known.iter().copied()) {
            Some(near) => format!("{text:?} is not an error class; perhaps {near:?} is meant"),
            None => format!("{text:?} is not an error class"),
        }),
    })
}

/// The names of the headers of its answers.
pub(super) fn headers(mut section: Section<'_>) -> OwnHeaders {
    let mut name = |key: &'static str| {
        section.parsed(key, HEADER, |text| {
            HeaderName::try_from(text.trim()).map_err(|_| format!("{text:?} is not the name of a header"))
        })
    };
    let headers = OwnHeaders {
        wait: name("wait"),
        request_id: name("request_id"),
        cost: name("cost"),
        requests: OwnLimit {
            limit: name("requests_limit"),
            remaining: name("requests_remaining"),
            reset: name("requests_reset"),
        },
        tokens: OwnLimit {
            limit: name("tokens_limit"),
            remaining: name("tokens_remaining"),
            reset: name("tokens_reset"),
        },
    };
    section.finish();
    headers
}

/// The places of its counts.
pub(super) fn usage(mut section: Section<'_>) -> UsagePlaces {
    let mut place = |key: &'static str| section.parsed(key, POINTER, UsagePlaces::pointer);
    let usage = UsagePlaces {
        input: place("input"),
        output: place("output"),
        cached_input: place("cached_input"),
        reasoning: place("reasoning"),
        cost: place("cost"),
    };
    section.finish();
    usage
}
