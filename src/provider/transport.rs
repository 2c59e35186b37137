//! The one way out: sends a request, times it, caps it, and never retries.

use crate::domain::decide::Ineligible;
use crate::domain::{Answer, Capabilities, ChatRequest, Failure};
use crate::provider::Dialect;
use secrecy::SecretString;
use std::time::Duration;

/// How long each stage of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS.
    pub connect: Duration,
    /// From sending the request to the first byte of the answer's head.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

/// A provider as configured.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name in the configuration.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// For example `https://api.openai.com/v1`; without a trailing slash.
    pub base_url: String,
    /// The key; `None` for servers without one.
    pub key: Option<SecretString>,
    /// Extra headers (`OpenAI-Organization`, …).
    pub headers: Vec<(String, String)>,
    /// Timeouts, before a rung's own.
    pub timeouts: Timeouts,
    /// Answers larger than this are cut off and count as a failure. Bytes, after decompression.
    pub max_body: usize,
}

/// What came of one call.
#[derive(Debug)]
pub struct CallReport {
    /// The answer or the classified failure.
    pub result: Result<Answer, Failure>,
    /// HTTP status, when an answer's head came.
    pub status: Option<u16>,
    /// The provider's id of the request (`x-request-id`, `request-id`, …).
    pub request_id: Option<String>,
    /// Milliseconds until the answer's head, when it came.
    pub first_byte_ms: Option<i32>,
    /// Milliseconds until the call was over.
    pub total_ms: i32,
    /// Parameters that were left out for this target.
    pub dropped: Vec<String>,
}

/// A provider that can be called.
pub struct Provider {
    endpoint: Endpoint,
}

impl Provider {
    /// Makes one call and reports it; never retries. `timeouts` are those of the rung.
    ///
    /// # Errors
    /// [`Ineligible`] when this target can never take the request: nothing was sent then.
    pub async fn call(
        &self,
        request: &ChatRequest,
        model: &str,
        capabilities: &Capabilities,
        timeouts: &Timeouts,
    ) -> Result<CallReport, Ineligible> {
        let _ = (&self.endpoint, request, model, capabilities, timeouts);
        Err(Ineligible::Unsupported("transport".to_owned()))
    }
}
