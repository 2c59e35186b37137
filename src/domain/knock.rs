//! One cheap call that shows whether a key and a model work: its request, and what its outcome says of them.

use super::request::RequestError;
use super::{ChatRequest, ErrorClass};
use serde_json::json;

/// Some vendors take no smaller cap on the output.
const MOST_OUTPUT: u32 = 16;

/// What a failed call says of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The key, the account or the model is refused: as configured it will not work.
    Refused,
    /// The provider was not reached, or is busy: another time it may work.
    Passing,
}

impl Blame {
    /// What a failure of this class says.
    #[must_use]
    pub fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::RateLimit
            | ErrorClass::RateLimitDaily
            | ErrorClass::RampLimit
            | ErrorClass::Overloaded
            | ErrorClass::NoCapacity
            | ErrorClass::ServerError
            | ErrorClass::Timeout
            | ErrorClass::Network
            | ErrorClass::Unreachable
            | ErrorClass::Conflict
            | ErrorClass::Cancelled
            | ErrorClass::Abandoned
            | ErrorClass::Deadline => Self::Passing,
            ErrorClass::QuotaExhausted
            | ErrorClass::Auth
            | ErrorClass::Permission
            | ErrorClass::NotFound
            | ErrorClass::InvalidRequest
            | ErrorClass::Refused
            | ErrorClass::ContextLength
            | ErrorClass::ContentPolicy
            | ErrorClass::PayloadTooLarge
            | ErrorClass::NeverFits
            | ErrorClass::OutputInvalid
            | ErrorClass::SoftFailure => Self::Refused,
        }
    }
}

/// What to do when such a call has failed.
#[must_use]
pub const fn advice(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::RateLimit | ErrorClass::RampLimit => {
            "try again in a while; `limits` keep calls below what the account allows"
        }
        ErrorClass::RateLimitDaily => "wait until its day ends, or have the limit raised by the provider",
        ErrorClass::Overloaded | ErrorClass::NoCapacity | ErrorClass::ServerError | ErrorClass::Conflict => {
            "look at the server's log or the provider's status page; workers try again by themselves"
        }
        ErrorClass::Timeout | ErrorClass::Cancelled | ErrorClass::Abandoned | ErrorClass::Deadline => {
            "see whether the server is busy, or still loads the model; --timeout gives it longer"
        }
        ErrorClass::Network | ErrorClass::Unreachable => {
            "see whether the server runs, whether base_url is right, and whether a firewall or a proxy is in between"
        }
        ErrorClass::QuotaExhausted => "pay the provider, or add a key of an account that has money",
        ErrorClass::Auth => "replace the key, and reload the workers (SIGHUP)",
        ErrorClass::Permission => "have the provider allow the model to the key, or take another key",
        ErrorClass::NotFound => "correct the model's name in the routes, or base_url",
        ErrorClass::InvalidRequest
        | ErrorClass::Refused
        | ErrorClass::ContextLength
        | ErrorClass::ContentPolicy
        | ErrorClass::PayloadTooLarge
        | ErrorClass::NeverFits
        | ErrorClass::OutputInvalid
        | ErrorClass::SoftFailure => {
            "see whether the dialect is right; [providers.NAME.quirks] says what a server takes"
        }
    }
}

/// What to do when a key is refused while workers take the refusals for an outage of the provider's keys.
pub const IN_AN_OUTAGE: &str = "wait: keys that had answered are refused together, as in an outage at the \
                                provider, and workers ask again by themselves; replace the key only if you know that \
                                it was revoked";

/// Whether a failure of this class is one of those that an outage of keys looks like.
#[must_use]
pub fn looks_like_an_outage(class: &str) -> bool {
    [ErrorClass::Auth, ErrorClass::QuotaExhausted].iter().any(|refused| refused.as_str() == class)
}

/// The smallest request that the model takes, by its name: one for a vector where the name speaks of embeddings.
///
/// # Errors
/// None: a test parses both.
pub fn request(model: &str) -> Result<ChatRequest, RequestError> {
    let body = if model.to_ascii_lowercase().contains("embed") {
        json!({"input": "OK"})
    } else {
        json!({"messages": [{"role": "user", "content": "Say OK."}], "max_tokens": MOST_OUTPUT})
    };
    ChatRequest::parse(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_a_short_question_or_an_input_for_a_vector() {
        let chat = request("gpt-4o-mini").unwrap();
        assert_eq!((chat.messages.len(), chat.max_tokens, chat.embed.is_none()), (1, Some(16), true));
        for model in ["text-embedding-3-small", "nomic-embed-text", "Embed-v4.0"] {
            assert!(request(model).unwrap().embed.is_some(), "{model}");
        }
    }

    #[test]
    fn every_class_says_whether_the_configuration_is_at_fault() {
        for class in ErrorClass::ALL {
            let _ = Blame::of(*class);
            assert!(advice(*class).is_ascii(), "{class}");
        }
        assert_eq!(Blame::of(ErrorClass::Auth), Blame::Refused);
        assert!(IN_AN_OUTAGE.is_ascii() && looks_like_an_outage("auth") && !looks_like_an_outage("rate_limit"));
        assert_eq!(Blame::of(ErrorClass::RateLimit), Blame::Passing);
    }
}
