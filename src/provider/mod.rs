//! All outbound HTTP to providers: one pure adapter per dialect, one transport.
//!
//! This room knows the domain and nothing of the store. An [`Adapter`] translates and classifies without touching the
//! network. The transport sends, times and caps, and does not look into the bodies. A [`Provider`] combines the two.

pub mod auth;
pub mod cache_writes;
pub mod charging;
pub mod durations;
pub mod hook;
pub mod limit_headers;
pub mod otlp;
pub mod own_errors;
pub mod own_headers;
pub mod quirks;
pub mod usage_places;
pub mod vendors;
pub mod wait_hint;

// The dialects. Each has a line in the registry.
pub mod anthropic;
pub mod azure_openai;
pub mod bedrock;
pub mod cohere;
pub mod completions;
pub mod gemini;
pub mod ollama;
pub mod openai;
pub mod openai_responses;

mod adapter;
mod addresses;
#[cfg(test)]
mod attachments;
mod beside;
#[cfg(test)]
mod checks;
mod classify;
mod client;
mod configured;
#[cfg(test)]
mod conformance;
mod conversation;
mod dialect;
mod echo;
mod effort;
mod embeddings;
mod endpoint;
mod error_body;
mod events;
#[cfg(test)]
mod fixtures;
mod lenient_json;
mod mending;
mod model_habits;
mod names;
mod registry;
mod reply_body;
mod report;
#[cfg(test)]
mod robustness;
mod role;
mod scrub;
mod sigv4;
mod stream_error;
#[cfg(test)]
mod translation;
mod transport;
mod wire;
mod wording;

pub use reqwest::Url;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

pub use adapter::{Adapter, Payload};
pub use client::{Call, Head, Provider, ProviderError};
pub use dialect::Dialect;
pub use endpoint::{ApiKey, Endpoint};
pub use limit_headers::LimitObservation;
pub use names::Undo;
pub use quirks::QuirkSettings;
pub use registry::{DIALECTS, dialect};
pub use report::{CallReport, FailedUsage};
pub use role::{AwsRole, RoleSource, RoleToken};
pub use sigv4::AccessKey;
pub use wire::{Delivery, Outgoing, WireReply, WireRequest};
