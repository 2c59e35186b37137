//! The meaning of a refusal's words, whichever vendor wrote them.
//!
//! The tables of the dialects know codes. Codes are few and words are many, and both change without notice. So this
//! file recognises kinds of sentences: the request does not fit the account's money, breaks a policy, names a
//! parameter, a model or a length. A refusal that is recognised by words alone is believed of one request only
//! ([`Bearing::InDoubt`]).
//!
//! An unrecognised refusal is not guessed at: the target is left out for that job, and nothing else follows.

mod phrases;

use super::error_body::ErrorBody;
use super::scrub;
use crate::domain::ErrorClass::{
    self, Auth, ContentPolicy, ContextLength, InvalidRequest, NeverFits, NotFound, Overloaded, PayloadTooLarge,
    Permission, QuotaExhausted, RateLimit, Refused, ServerError, Timeout,
};
use crate::domain::{Bearing, Mend, Scope};
use phrases::{
    ACCOUNT, AFFORDS, AFFORDS_SOMETHING, BAD_KEY, BAD_KEY_CODES, BROKEN, BUSY, CAP_BOUND, CAP_NAME, EXCESS, KEY,
    LENGTH_CODES, LONG_CONTEXT, MODEL_CODES, MODEL_GONE, MONEY, NO_ACCESS, NO_MONEY, NO_MONEY_CODES, NO_STREAMS,
    NO_SUCH_MODEL, OF_A_VALUE, OF_INPUT, ONLY_THE_DEFAULT, OTHER_LENGTH, PARAMETER, PARAMETER_CODES, PARAMETERS,
    PER_REQUEST, POLICY, POLICY_CODES, TOO_LARGE, TOO_LARGE_CODES, TOO_LONG, WAIT, WINDOW,
};

/// The meaning of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub class: ErrorClass,
    pub scope: Scope,
    pub bearing: Bearing,
    pub mend: Option<Mend>,
}

impl Meaning {
    pub const fn new(class: ErrorClass, scope: Scope) -> Self {
        Self { class, scope, bearing: Bearing::AsScoped, mend: None }
    }

    /// A refusal that may concern this request alone, or every request.
    pub const fn in_doubt(class: ErrorClass, scope: Scope) -> Self {
        Self { class, scope, bearing: Bearing::InDoubt, mend: None }
    }

    fn mended(self, mend: Option<Mend>) -> Self {
        Self { mend, ..self }
    }
}

/// The meaning of a refusal that concerns one request although its status or code says otherwise. Asked before any
/// table.
pub(super) fn of_one_request(status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
    let may_be = status.is_none_or(|status| matches!(status, 400 | 402 | 403 | 422 | 429 | 451 | 500));
    let text = head(&body.text);
    if !may_be || ACCOUNT.is_match(text) {
        return None;
    }
    if status == Some(429) {
        if body.has_code(LENGTH_CODES) || text.contains("context window") || text.contains("context length") {
            return Some(Meaning::new(ContextLength, Scope::Request));
        }
        if PER_REQUEST.is_match(text) {
            return Some(Meaning::new(NeverFits, Scope::Request));
        }
    }
    if status.is_none_or(|status| matches!(status, 400 | 402 | 403 | 429))
        && let Some(found) = AFFORDS.captures(text)
    {
        let tokens: Option<u64> = found.get(1).and_then(|number| number.as_str().parse().ok());
        if tokens.is_some_and(|tokens| tokens < AFFORDS_SOMETHING) {
            return Some(Meaning::in_doubt(QuotaExhausted, Scope::Key));
        }
        let mend = tokens.map(|tokens| Mend::Cap { tokens, lasting: false });
        return Some(Meaning::new(NeverFits, Scope::Request).mended(mend));
    }
    if status.is_some_and(|status| matches!(status, 400 | 403 | 429)) && LONG_CONTEXT.is_match(text) {
        return Some(Meaning::new(NeverFits, Scope::Request));
    }
    // At 429 and 500 these words are too often a vendor's advice.
    let by_words = status.is_none_or(|status| matches!(status, 400 | 403 | 422 | 451)) && POLICY.is_match(text);
    (by_words || body.has_code(POLICY_CODES)).then(|| Meaning::new(ContentPolicy, Scope::Request))
}

/// The meaning of a refusal that no table knows, by its words.
pub(super) fn of_refusal(status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
    let caller = ["invalid_request_error", "invalid_request", "BadRequestError", "unprocessable", "INVALID_ARGUMENT"];
    let is_refusal = match status {
        Some(402 | 408 | 409 | 425 | 429 | 499) => false,
        // The 401 may come from fetching content that the request refers to.
        Some(401) => return OF_INPUT.is_match(head(&body.text)).then(|| Meaning::new(Refused, Scope::Request)),
        Some(status) => (400..500).contains(&status),
        None => {
            body.base_resp.is_none_or(|code| code == BAD_PARAMETERS)
                && (body.base_resp.is_some() || body.has_code(&caller))
        }
    };
    let text = head(&body.text);
    if status == Some(500) && (body.has_code(LENGTH_CODES) || is_too_long(text)) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if !is_refusal {
        return None;
    }
    // An account is often suspended because its bill was not paid.
    if ACCOUNT.is_match(text) && NO_MONEY.is_match(text) {
        return Some(Meaning::in_doubt(QuotaExhausted, Scope::Key));
    }
    if ACCOUNT.is_match(text) || body.has_code(BAD_KEY_CODES) || (BAD_KEY.is_match(text) && !OF_INPUT.is_match(text)) {
        return Some(Meaning::in_doubt(Auth, Scope::Key));
    }
    if body.has_code(NO_MONEY_CODES) || NO_MONEY.is_match(text) {
        return Some(Meaning::in_doubt(QuotaExhausted, Scope::Key));
    }
    if matches!(status, Some(403 | 404 | 410)) && OF_INPUT.is_match(text) {
        return Some(Meaning::new(Refused, Scope::Request));
    }
    if body.has_code(LENGTH_CODES) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if CAP_NAME.is_match(text)
        && !body.has_code(&["unsupported_parameter", "unknown_parameter"])
        && let Some(mend) = cap(text)
    {
        return Some(Meaning::new(Refused, Scope::Request).mended(Some(mend)));
    }
    if body.has_code(MODEL_CODES) {
        return Some(Meaning::new(NotFound, Scope::Model));
    }
    if BROKEN.is_match(text) {
        return Some(Meaning { bearing: Bearing::EveryTarget, ..Meaning::new(InvalidRequest, Scope::Request) });
    }
    let member = parameter(text, body);
    let about_the_model = NO_SUCH_MODEL.is_match(text) || MODEL_GONE.is_match(text);
    if member.is_none() && (about_the_model || body.param.as_deref() == Some("model")) {
        return Some(Meaning::in_doubt(NotFound, Scope::Model));
    }
    if member.is_none() && NO_ACCESS.is_match(text) && text.contains("model") {
        return Some(Meaning::in_doubt(Permission, Scope::Model));
    }
    if member.is_none() && is_too_long(text) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if body.has_code(TOO_LARGE_CODES) || TOO_LARGE.is_match(text) {
        return Some(Meaning::new(PayloadTooLarge, Scope::Request));
    }
    let names_one = member.is_some() || body.param.as_deref().is_some_and(is_parameter) || names_a_parameter(text);
    if names_one || body.has_code(PARAMETER_CODES) || PARAMETER.is_match(text) {
        return Some(Meaning::new(Refused, Scope::Request).mended(member.and_then(|member| mend(member, text))));
    }
    None
}

/// Whether the member that an error names is a parameter, and not the conversation itself.
fn is_parameter(param: &str) -> bool {
    let top = param.split(['.', '[']).next().unwrap_or(param);
    !matches!(top, "messages" | "input" | "prompt" | "contents" | "body" | "request")
}

/// Whether a sentence begins with a word that only a parameter can be called.
fn names_a_parameter(text: &str) -> bool {
    let text = scrub::head(text, 200);
    let unmistakable = |name: &&str| name.contains('_') || matches!(*name, "temperature" | "logprobs" | "verbosity");
    PARAMETERS.iter().map(|(name, _)| *name).filter(unmistakable).any(|name| word_at(text, name).is_some())
}

/// The meaning of an error inside a success that no table knows, by its words: it has no status.
pub(super) fn of_error_inside(body: &ErrorBody) -> Option<Meaning> {
    if let Some(code) = body.base_resp {
        return base_resp(code);
    }
    let text = head(&body.text);
    [
        (&MONEY, QuotaExhausted, Scope::Key),
        (&KEY, Auth, Scope::Key),
        (&WAIT, RateLimit, Scope::Model),
        (&BUSY, Overloaded, Scope::Model),
    ]
    .into_iter()
    .find(|(pattern, ..)| pattern.is_match(text))
    .map(|(_, class, scope)| Meaning::in_doubt(class, scope))
}

/// MiniMax's code for errors that other vendors answer with a 400.
const BAD_PARAMETERS: i64 = 2013;

/// MiniMax's codes.
fn base_resp(code: i64) -> Option<Meaning> {
    Some(match code {
        1001 => Meaning::new(Timeout, Scope::Model),
        // Requests and tokens per minute, and traffic that grew too fast.
        1002 | 1039 | 1041 | 2045 => Meaning::new(RateLimit, Scope::Model),
        1004 | 2049 => Meaning::new(Auth, Scope::Key),
        1008 | 2056 => Meaning::new(QuotaExhausted, Scope::Key),
        1026 | 1027 => Meaning::new(ContentPolicy, Scope::Request),
        BAD_PARAMETERS => return None,
        _ => Meaning::new(ServerError, Scope::Model),
    })
}

/// The beginning of a text, where phrases stand. Later text is often the prompt.
fn head(text: &str) -> &str {
    scrub::head(text, 800)
}

/// Whether a sentence says that the prompt, alone or with the answer, is longer than the model takes.
fn is_too_long(text: &str) -> bool {
    let text = head(text);
    TOO_LONG.is_match(text) && EXCESS.is_match(text) && !OTHER_LENGTH.is_match(text)
}

/// The highest output cap that a sentence allows, if it is about the cap and not about the window.
fn cap(text: &str) -> Option<Mend> {
    let about_the_answer = text.contains("context_window for this model") || !WINDOW.is_match(text);
    let found = CAP_BOUND.captures(text).filter(|_| about_the_answer)?;
    let number = [1, 2, 4].into_iter().find_map(|group| found.get(group))?;
    let bound: u64 = number.as_str().replace([',', '_'], "").parse().ok()?;
    let is_exclusive = found.get(3).is_some_and(|end| end.as_str() == "(exclusive)") || text.contains("lower than");
    let tokens = bound.saturating_sub(u64::from(is_exclusive));
    (tokens > 0).then_some(Mend::Cap { tokens, lasting: true })
}

/// The parameter that a refusal is about, if it says that one is not accepted.
fn parameter(text: &str, body: &ErrorBody) -> Option<&'static str> {
    if NO_STREAMS.is_match(text) {
        return Some("stream");
    }
    if !PARAMETER.is_match(text) && !body.has_code(PARAMETER_CODES) {
        return None;
    }
    let named = |word: &str| PARAMETERS.iter().map(|(name, _)| *name).find(|name| word == *name);
    if let Some(name) = body.param.as_deref().map(str::to_lowercase).as_deref().and_then(named) {
        return Some(name);
    }
    // The first one counts: later ones are suggested replacements. An everyday word has to be quoted.
    let message = snake_case(head(&body.message));
    let quoted = |name: &str| {
        let spelled = [format!("'{name}'"), format!("\"{name}\""), format!("`{name}`"), format!("body.{name}:")];
        message.starts_with(&format!("{name}:")) || spelled.iter().any(|spelled| message.contains(spelled))
    };
    let everyday = |name: &str| matches!(name, "user" | "store" | "stop" | "stream" | "seed" | "metadata" | "prefill");
    PARAMETERS
        .iter()
        .filter(|(name, _)| !everyday(name) || quoted(name))
        .filter_map(|(name, _)| Some((word_at(&message, name).or_else(|| word_at(text, name))?, *name)))
        .min()
        .map(|(_, name)| name)
}

/// `presencePenalty` and `MaxTokens` as they are written elsewhere; everything else in lower case.
fn snake_case(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 16);
    let mut before = ' ';
    for letter in text.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        before = letter;
    }
    snake
}

/// Where a word stands in a text as a separate word.
fn word_at(text: &str, word: &str) -> Option<usize> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The change that lets a request pass which was refused for this parameter, provided its meaning stays the same.
fn mend(member: &'static str, text: &str) -> Option<Mend> {
    match member {
        "max_tokens" if text.contains("max_completion_tokens") || text.contains("maxcompletiontokens") => {
            Some(Mend::Rename { from: "max_tokens", to: "max_completion_tokens" })
        }
        "max_completion_tokens" => Some(Mend::Rename { from: "max_completion_tokens", to: "max_tokens" }),
        member => PARAMETERS.iter().find(|(name, may_go)| *name == member && *may_go).map(|(member, _)| {
            let lasting = ONLY_THE_DEFAULT.is_match(text) || !OF_A_VALUE.is_match(text);
            Mend::Drop { member, lasting }
        }),
    }
}
