//! The provider-independent names of failures.

use super::{Bearing, Mend, Unit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

macro_rules! error_classes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What kind of failure an attempt met, whatever the provider calls it.
        ///
        /// What each calls for is in [`ErrorClass::remedy`](crate::domain::remedy).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorClass { $($(#[$doc])* $variant,)* }

        impl ErrorClass {
            /// Every class, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in configuration, ledger, reports and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl FromStr for ErrorClass {
            type Err = ();
            fn from_str(name: &str) -> Result<Self, ()> {
                match name { $($name => Ok(Self::$variant),)* _ => Err(()) }
            }
        }
    };
}

error_classes! {
    /// Requests or tokens came too fast; the limit refills.
    RateLimit = "rate_limit",
    /// A daily allowance is used up.
    RateLimitDaily = "rate_limit_daily",
    /// Traffic grew too fast; the slope, not the level, is the trouble.
    RampLimit = "ramp_limit",
    /// Money, spend cap or prepaid credit is used up; waiting seconds does not help.
    QuotaExhausted = "quota_exhausted",
    /// The provider has no capacity now.
    Overloaded = "overloaded",
    /// Any other fault of the provider.
    ServerError = "server_error",
    /// No (complete) answer in time; it may have been billed.
    Timeout = "timeout",
    /// The connection broke while the call was on its way; a cut answer counts too.
    Network = "network",
    /// No connection was made, so nothing was sent and nothing can be billed.
    Unreachable = "unreachable",
    /// The key is wrong, expired or revoked.
    Auth = "auth",
    /// The key may not do this: model, region, policy.
    Permission = "permission",
    /// No such model or deployment.
    NotFound = "not_found",
    /// The target finds the request itself wrong. Another may think otherwise.
    InvalidRequest = "invalid_request",
    /// The target does not take what this request asks of it (a parameter, a combination, an output cap), or something
    /// in front of its API turned the request away.
    Refused = "refused",
    /// The prompt (with the output cap) does not fit the model's window.
    ContextLength = "context_length",
    /// Input or output was blocked by the provider's policy.
    ContentPolicy = "content_policy",
    /// Too many bytes.
    PayloadTooLarge = "payload_too_large",
    /// This request alone is larger than the limit: waiting can never help here.
    NeverFits = "never_fits",
    /// The provider rejected its own output.
    OutputInvalid = "output_invalid",
    /// Another request was in the way (409).
    Conflict = "conflict",
    /// The provider gave up on the call (499).
    Cancelled = "cancelled",
    /// HTTP said yes and the answer is unusable; which way is in the verdict.
    SoftFailure = "soft_failure",
    /// The worker died or was cut off while the call was in flight.
    Abandoned = "abandoned",
    /// The job's deadline passed before an answer was accepted.
    Deadline = "deadline",
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a failure says something about: the smallest thing that is to be avoided because of it.
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
    /// The kind.
    pub class: ErrorClass,
    /// What it concerns.
    pub scope: Scope,
    /// How long the provider asks to wait, in whichever of its formats; the longest where it says several.
    pub wait: Option<Duration>,
    /// HTTP status, when there was one.
    pub status: Option<u16>,
    /// The provider's own code or type (`insufficient_quota`, `overloaded_error`).
    pub code: Option<String>,
    /// The provider's message, shortened, without keys. It may quote the prompt: rows may hold it, logs may not.
    pub message: String,
    /// The limit that stood in the way, when the provider names it.
    pub limit: Option<NamedLimit>,
    /// Whom it concerns, as far as its words leave no doubt.
    pub bearing: Bearing,
    /// The change that it asks for, where it asks for one that keeps the request's meaning.
    pub mend: Option<Box<Mend>>,
}

/// A limit with its numbers, as a failure names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedLimit {
    /// What it counts.
    pub unit: Unit,
    /// How much it allows.
    pub size: u64,
    /// How much the request would have taken, where that is said.
    pub requested: Option<u64>,
}

impl Failure {
    /// The provider's code, where it looks like one: a server may put anything there, a prompt too.
    #[must_use]
    pub fn code_for_the_log(&self) -> Option<&str> {
        let looks_like_one = |code: &&str| {
            code.len() <= 64
                && code.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
        };
        self.code.as_deref().filter(looks_like_one)
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
