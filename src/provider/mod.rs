//! All outbound HTTP to providers: one pure adapter per dialect, one transport.
//!
//! Knows the domain and nothing of the store. An [`Adapter`] translates and classifies without touching
//! the network; [`Provider`] sends, times and caps, and understands nothing of what it carries.

pub mod adapter;
pub mod transport;

pub mod anthropic;
pub mod gemini;
pub mod openai;

pub mod limit_headers;
pub mod wait_hint;

mod beside;
#[cfg(test)]
mod checks;
mod classify;
mod configured;
mod conversation;
mod echo;
mod error_body;
#[cfg(test)]
mod fixtures;
mod lenient_json;
mod mending;
mod model_habits;
mod names;
mod quirks;
mod reply_body;
#[cfg(test)]
mod robustness;
mod scrub;
#[cfg(test)]
mod translation;
mod wording;

pub use reqwest::Url;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

pub use adapter::{Adapter, Dialect, WireReply, WireRequest};
pub use limit_headers::LimitObservation;
pub use names::Undo;
pub use quirks::QuirkSettings;
pub use transport::{ApiKey, CallReport, Endpoint, Head, Provider, ProviderError, Timeouts};
