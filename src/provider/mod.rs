//! All outbound HTTP to providers: one pure adapter per dialect, one transport.
//!
//! Knows the domain and nothing of the store.

pub mod adapter;
pub mod transport;

pub use adapter::{Adapter, Dialect, WireReply, WireRequest};
pub use transport::{CallReport, Endpoint, Provider, Timeouts};
