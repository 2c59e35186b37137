//! From status, headers and error body to a [`Failure`]: a table per dialect, then a table of statuses.

use super::error_body::ErrorBody;
use super::limit_headers::Family;
use super::own_errors::{self, OwnError};
use super::reply_body::{self, Join, Parsed};
use super::stream_error::{self, Piece};
use super::wire::WireReply;
use super::wording::{self, Meaning};
use super::{scrub, wait_hint};
use crate::domain::ErrorClass::{
    self, Auth, Cancelled, Conflict, InvalidRequest, NotFound, Overloaded, PayloadTooLarge, Permission, QuotaExhausted,
    RateLimit, Refused, ServerError, Timeout,
};
use crate::domain::{Bearing, Failure, NamedLimit, Scope, Unit};
use reqwest::Url;
use reqwest::header::LOCATION;
use serde_json::Value;
use std::sync::Arc;

/// The signs by which the failures of a dialect are recognised.
pub(super) struct Signs {
    /// The meaning of its errors; the first row that fits counts.
    pub rules: &'static [Rule],
    /// The headers that report its limits.
    pub limits: &'static [&'static [Family]],
}

/// The meaning of a server's errors where they differ from its dialect's.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorRules {
    /// By the operator's word; the first row that fits counts.
    pub own: Arc<[OwnError]>,
    /// By its vendor's row.
    pub vendor: &'static [Rule],
}

impl ErrorRules {
    /// The meaning of an error by the operator's word.
    fn own_meaning(&self, status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
        self.own.iter().find_map(|own| own.meaning(status, body))
    }

    /// The error that a success hides in a form of which only the operator's codes tell. `holder`: the member in which
    /// the dialect has its answer.
    fn inside(&self, value: &Value, holder: &str) -> Option<ErrorBody> {
        if !own_errors::have_codes(&self.own) {
            return None;
        }
        ErrorBody::in_place_of_an_answer(value, holder).filter(|error| own_errors::name(&self.own, error))
    }
}

/// One row of the table: its meaning applies when all its conditions hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// One of these codes is in the body; empty: any.
    codes: &'static [&'static str],
    /// One of these phrases is in the message (lower case, `*` for anything); empty: any.
    phrases: &'static [&'static str],
    /// The failure came with one of these statuses; empty: any. An error inside a success has no status of its own:
    /// then this condition holds, unless it is the only one.
    statuses: &'static [u16],
    /// A further condition.
    test: Option<fn(&ErrorBody) -> bool>,
    class: ErrorClass,
    scope: Scope,
    bearing: Bearing,
}

impl Rule {
    /// By code.
    pub const fn code(codes: &'static [&'static str], class: ErrorClass, scope: Scope) -> Self {
        Self { codes, phrases: &[], statuses: &[], test: None, class, scope, bearing: Bearing::AsScoped }
    }

    /// By phrase; add the statuses at which it counts, because messages quote prompts.
    pub const fn says(phrases: &'static [&'static str], class: ErrorClass, scope: Scope) -> Self {
        Self { codes: &[], phrases, statuses: &[], test: None, class, scope, bearing: Bearing::AsScoped }
    }

    /// By a condition on the body.
    pub const fn when(test: fn(&ErrorBody) -> bool, class: ErrorClass, scope: Scope) -> Self {
        Self { codes: &[], phrases: &[], statuses: &[], test: Some(test), class, scope, bearing: Bearing::AsScoped }
    }

    /// By status alone.
    pub const fn status(statuses: &'static [u16], class: ErrorClass, scope: Scope) -> Self {
        Self { codes: &[], phrases: &[], statuses, test: None, class, scope, bearing: Bearing::AsScoped }
    }

    /// Only with one of these statuses.
    pub const fn at(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }

    /// Only when one of these phrases is in the message as well.
    pub const fn saying(self, phrases: &'static [&'static str]) -> Self {
        Self { phrases, ..self }
    }

    /// Only when a further condition holds.
    pub const fn given(self, test: fn(&ErrorBody) -> bool) -> Self {
        Self { test: Some(test), ..self }
    }

    /// In doubt, because vendors say the same of single requests.
    pub const fn in_doubt(self) -> Self {
        Self { bearing: Bearing::InDoubt, ..self }
    }

    fn meaning(&self) -> Meaning {
        Meaning { class: self.class, scope: self.scope, bearing: self.bearing, mend: None }
    }

    fn matches(&self, status: Option<u16>, body: &ErrorBody) -> bool {
        let by_status_alone = self.codes.is_empty() && self.phrases.is_empty() && self.test.is_none();
        (self.statuses.is_empty() || status.map_or(!by_status_alone, |status| self.statuses.contains(&status)))
            && (self.codes.is_empty() || body.has_code(self.codes))
            && (self.phrases.is_empty() || body.says(self.phrases))
            && self.test.is_none_or(|test| test(body))
    }
}

/// What a redirect says: no call follows it, because the key would go along. Its path and query may name a session.
fn redirect(reply: &WireReply<'_>) -> Option<String> {
    let location = reply.headers.get(LOCATION).filter(|_| (300..400).contains(&reply.status))?;
    let url = location.to_str().ok().and_then(|location| Url::parse(location).ok());
    let place = match url.as_ref().and_then(Url::host_str) {
        Some(host) => format!("to {host}"),
        None => "to another path".to_owned(),
    };
    let advice = "redirects are not followed, so `base_url` has to name the right address";
    Some(scrub::clean(&format!("HTTP {} redirects {place}: {advice}", reply.status)))
}

/// What a success has in place of an answer.
pub(super) enum Instead {
    /// An error.
    Error(Box<ErrorBody>),
    /// Nothing that could be read.
    Unreadable(Failure),
}

impl Instead {
    /// The failure that it is; `classify` reads errors.
    pub(super) fn failure(self, classify: impl FnOnce(&ErrorBody) -> Failure) -> Failure {
        match self {
            Self::Error(error) => classify(&error),
            Self::Unreadable(failure) => failure,
        }
    }
}

/// Reads the body of a success, whole or as a stream.
///
/// # Errors
/// The reply is a failure, the body is none that a dialect could read ([`reply_body::parse`]), or it is an error after
/// all.
pub(super) fn success(
    signs: &Signs,
    errors: &ErrorRules,
    reply: &WireReply<'_>,
    holder: &str,
    join: Join,
) -> Result<Parsed, Failure> {
    if !(200..300).contains(&reply.status) {
        return Err(classify(signs, errors, reply, &ErrorBody::read(reply.body)));
    }
    let parsed = reply_body::parse(reply, holder, join);
    let pieces = || stream_error::pieces(reply);
    let answer = answer_of(errors, reply, holder, parsed, pieces);
    answer.map_err(|instead| instead.failure(|error| classify(signs, errors, reply, error)))
}

/// The answer that was read of a success, unless it is an error after all. `pieces`: those of a stream, in any form.
///
/// # Errors
/// What there is instead.
pub(super) fn answer_of(
    errors: &ErrorRules,
    reply: &WireReply<'_>,
    holder: &str,
    parsed: Result<Parsed, Failure>,
    pieces: impl Fn() -> Vec<Piece>,
) -> Result<Parsed, Instead> {
    let error = |error: ErrorBody| Instead::Error(Box::new(error));
    // What has come of an answer is wanted without its error.
    if reply.is_partial {
        let parsed = parsed.map_err(Instead::Unreadable)?;
        return ErrorBody::inside(&parsed.value).map_or(Ok(parsed), |found| Err(error(found)));
    }
    if own_errors::have_codes(&errors.own)
        && let Some(told) = stream_error::told(&errors.own, &pieces())
    {
        return Err(error(told));
    }
    match parsed {
        Err(unreadable) => {
            Err(stream_error::found(&errors.own, &pieces()).map_or(Instead::Unreadable(unreadable), error))
        }
        Ok(parsed) => {
            let found = ErrorBody::inside(&parsed.value).or_else(|| errors.inside(&parsed.value, holder));
            // The first of the pieces stands for those of which none is an answer.
            let is_none = || parsed.value.get(holder).is_none();
            let found = found.or_else(|| is_none().then(|| stream_error::found(&errors.own, &pieces())).flatten());
            found.map_or(Ok(parsed), |found| Err(error(found)))
        }
    }
}

/// Classifies a failure: by the operator's word, then by the vendor's own rules, then by signs that surely concern one
/// request, then by the dialect's rules in their order, then by its words, else by the status.
pub(super) fn classify(signs: &Signs, errors: &ErrorRules, reply: &WireReply<'_>, body: &ErrorBody) -> Failure {
    let success = (200..300).contains(&reply.status);
    let status = if success { body.http_code } else { Some(reply.status) };
    // A server that fails has looked at no key, whatever its words are: those of an outage speak of keys, too.
    let may_refuse_keys = status.is_none_or(|status| status < 500);
    let is_it = |rule: &&Rule| (may_refuse_keys || rule.class != Auth) && rule.matches(status, body);
    let by_rules = |rules: &[Rule]| rules.iter().find(is_it).map(Rule::meaning);
    let Meaning { class, scope, bearing, mend } = errors
        .own_meaning(status, body)
        .or_else(|| by_rules(errors.vendor))
        .or_else(|| wording::of_one_request(status, body))
        .or_else(|| by_rules(signs.rules))
        .or_else(|| wording::of_refusal(status, body))
        .or_else(|| if status.is_none() { wording::of_error_inside(body) } else { None })
        .unwrap_or_else(|| by_status(status, body, reply));
    let message = if let Some(elsewhere) = redirect(reply) {
        elsewhere
    } else if body.message.trim().is_empty() {
        format!("HTTP {} without a message", reply.status)
    } else {
        scrub::clean(&body.message)
    };
    Failure {
        class,
        scope,
        wait: wait_hint::of_failure(class, reply, body, signs.limits),
        status: Some(reply.status),
        code: body.code().map(|code| scrub::clean(&code)),
        message,
        limit: named_limit(class, body),
        bearing,
        mend: mend.map(Box::new),
    }
}

/// The meaning of a status when no code and no word says more.
fn by_status(status: Option<u16>, body: &ErrorBody, reply: &WireReply<'_>) -> Meaning {
    let Some(status) = status else {
        // An error inside a success that gives nothing but its type.
        let caller =
            ["invalid_request_error", "invalid_request", "BadRequestError", "unprocessable", "INVALID_ARGUMENT"];
        let is_refusal = body.has_code(&caller) || body.base_resp.is_some();
        return if is_refusal {
            Meaning::new(InvalidRequest, Scope::Request)
        } else {
            Meaning::new(ServerError, Scope::Model)
        };
    };
    // The provider knows better than the table whether a 4xx without a code would go through next time.
    let retry_helps = reply.headers.get("x-should-retry").is_some_and(|value| value == "true");
    match status {
        401 => Meaning::in_doubt(Auth, Scope::Key),
        402 => Meaning::in_doubt(QuotaExhausted, Scope::Key),
        403 | 412 | 451 => Meaning::in_doubt(Permission, Scope::Model),
        404 | 410 => Meaning::in_doubt(NotFound, Scope::Model),
        // The URL is wrong, not the request: another rung may well accept it.
        405 => Meaning::in_doubt(NotFound, Scope::Provider),
        408 | 504 | 522 | 524 => Meaning::new(Timeout, Scope::Model),
        409 => Meaning::new(Conflict, Scope::Request),
        413 | 414 | 431 => Meaning::new(PayloadTooLarge, Scope::Request),
        424 | 425 => Meaning::new(ServerError, Scope::Model),
        429 => Meaning::new(RateLimit, Scope::Model),
        498 | 503 => Meaning::new(Overloaded, Scope::Model),
        529 => Meaning::new(Overloaded, Scope::Provider),
        499 => Meaning::new(Cancelled, Scope::Request),
        400..500 if retry_helps => Meaning::new(ServerError, Scope::Model),
        // An API that finds a request wrong says so in its own words. A proxy's page says nothing about the request.
        400..500 if body.is_object => Meaning::new(InvalidRequest, Scope::Request),
        // With 501 the server has no such function, today and tomorrow.
        400..500 | 501 => Meaning::new(Refused, Scope::Request),
        520..=530 => Meaning::new(ServerError, Scope::Provider),
        500..600 => Meaning::new(ServerError, Scope::Model),
        // Redirects are not followed, and no other status reaches this point.
        _ => Meaning::new(ServerError, Scope::Provider),
    }
}

/// "Limit 30000, Requested 45000": whether the request alone is larger than the limit; `None` without numbers.
fn exceeds_limit(body: &ErrorBody) -> Option<bool> {
    let limit = number_after(&body.text, "limit ").or_else(|| number_after(&body.text, "limit: "))?;
    let requested = number_after(&body.text, "requested ").or_else(|| number_after(&body.text, "requested: "))?;
    Some(requested > limit)
}

/// Whether the request alone is larger than its limit ever holds.
pub(super) fn never_fits(body: &ErrorBody) -> bool {
    exceeds_limit(body).unwrap_or_else(|| body.says(&["request too large*tokens per", "request too large*limit"]))
}

/// Whether the failure says that the request is small enough for the limit.
pub(super) fn fits_later(body: &ErrorBody) -> bool {
    exceeds_limit(body) == Some(false)
}

/// The limit that a refusal names: OpenAI's "on tokens per min (TPM): Limit 30000, Used 9000, Requested 45000",
/// Anthropic's "rate limit of 40,000 input tokens per minute", Gemini's violations of quotas with their values.
fn named_limit(class: ErrorClass, body: &ErrorBody) -> Option<NamedLimit> {
    if !class.may_name_a_limit() {
        return None;
    }
    let text = &body.text;
    if let Some((size, rest)) = number_and_rest(text, "limit of ") {
        let unit = unit_at_start(rest.trim_start())?;
        return Some(NamedLimit { unit, size, requested: None });
    }
    if let Some((size, rest)) = number_and_rest(text, "limit ") {
        let unit = if text.contains("requests per") { Unit::Requests } else { Unit::Tokens };
        let requested = number_and_rest(rest, "requested ").map(|(requested, _)| requested);
        return Some(NamedLimit { unit, size, requested });
    }
    let details = body.value.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter_map(|detail| detail.get("violations").and_then(Value::as_array))
        .flatten()
        .filter(|violation| {
            violation.get("quotaId").and_then(Value::as_str).is_some_and(|id| id.contains("InputTokens"))
        })
        .filter_map(|violation| violation.get("quotaValue")?.as_str()?.parse().ok())
        .min()
        .map(|size| NamedLimit { unit: Unit::InputTokens, size, requested: None })
}

fn unit_at_start(text: &str) -> Option<Unit> {
    [
        ("requests", Unit::Requests),
        ("tokens", Unit::Tokens),
        ("input tokens", Unit::InputTokens),
        ("output tokens", Unit::OutputTokens),
    ]
    .into_iter()
    .find_map(|(word, unit)| text.starts_with(word).then_some(unit))
}

/// The first number that directly follows `word`, with or without thousands separators.
fn number_after(text: &str, word: &str) -> Option<u64> {
    number_and_rest(text, word).map(|(number, _)| number)
}

/// The same, and the text that follows the number.
fn number_and_rest<'a>(text: &'a str, word: &str) -> Option<(u64, &'a str)> {
    text.match_indices(word).find_map(|(at, _)| {
        let rest = &text[at + word.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ',' | '_')).unwrap_or(rest.len());
        let digits: String = rest[..end].chars().filter(char::is_ascii_digit).collect();
        Some((digits.parse().ok()?, &rest[end..]))
    })
}
