//! One failed call, classified.

use super::{Bearing, ErrorClass, Mend, Unit};
use std::time::Duration;

/// The smallest thing that a failure says something about, and that is to be avoided because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This request only.
    Request,
    /// Everything that uses this key.
    Key,
    /// This model (or deployment) of the provider.
    Model,
    /// The whole provider.
    Provider,
    /// The way there, perhaps our own network.
    Network,
}

/// A classified failure of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: ErrorClass,
    /// The part that the failure concerns.
    pub scope: Scope,
    /// How long the provider asks to wait, in whichever of its formats; the longest where it states several.
    pub wait: Option<Duration>,
    /// HTTP status, when there was one.
    pub status: Option<u16>,
    /// The provider's own code or type (`insufficient_quota`, `overloaded_error`).
    pub code: Option<String>,
    /// The provider's message, shortened, without keys. It may quote the prompt: rows may hold it, logs may not.
    pub message: String,
    /// The limit that stood in the way, when the provider names it.
    pub limit: Option<NamedLimit>,
    /// Whom the failure concerns, as far as its words leave no doubt.
    pub bearing: Bearing,
    /// The change of the request that the provider asks for, where it keeps the request's meaning.
    pub mend: Option<Box<Mend>>,
}

/// A limit with its numbers, as a failure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedLimit {
    pub unit: Unit,
    /// How much the limit allows.
    pub size: u64,
    /// How much the request would have taken, where the provider says so.
    pub requested: Option<u64>,
}

impl Failure {
    /// The provider's code, if it looks like one: a server may put anything there, a prompt too.
    #[must_use]
    pub fn code_for_the_log(&self) -> Option<&str> {
        let looks_like_one = |code: &&str| {
            code.len() <= 64
                && code.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
        };
        self.code.as_deref().filter(looks_like_one)
    }

    /// Status and message in a few words, for people: rows may hold them, logs may not.
    #[must_use]
    pub fn in_short(&self) -> String {
        const MOST: usize = 160;
        let mut message: String =
            self.message.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if self.message.chars().nth(MOST).is_some() {
            message.push('…');
        }
        match (self.status, message.trim()) {
            (None, message) => format!("“{message}”"),
            (Some(status), "") => format!("HTTP {status}"),
            (Some(status), message) => format!("HTTP {status}: “{message}”"),
        }
    }

    /// A failure with only a class, scope and message.
    #[must_use]
    pub fn new(class: ErrorClass, scope: Scope, message: impl Into<String>) -> Self {
        Self {
            class,
            scope,
            wait: None,
            status: None,
            code: None,
            message: message.into(),
            limit: None,
            bearing: Bearing::AsScoped,
            mend: None,
        }
    }
}
