//! The headers in which Anthropic reports its limits: per minute, refilled continuously.

use crate::domain::Unit;
use crate::provider::limit_headers::{COMMON, Family, MINUTE, Window, suffixed};

/// The headers that Anthropic sends.
pub(in crate::provider) const OWN: &[Family] = &[
    suffixed!(Requests, "anthropic-ratelimit-requests", Window::Known(MINUTE), None),
    suffixed!(Tokens, "anthropic-ratelimit-tokens", Window::Known(MINUTE), None),
    suffixed!(InputTokens, "anthropic-ratelimit-input-tokens", Window::Known(MINUTE), None),
    suffixed!(OutputTokens, "anthropic-ratelimit-output-tokens", Window::Known(MINUTE), None),
    suffixed!(InputTokens, "anthropic-priority-input-tokens", Window::Known(MINUTE), Some("priority")),
    suffixed!(OutputTokens, "anthropic-priority-output-tokens", Window::Known(MINUTE), Some("priority")),
    suffixed!(InputTokens, "anthropic-fast-input-tokens", Window::Known(MINUTE), Some("fast")),
    suffixed!(OutputTokens, "anthropic-fast-output-tokens", Window::Known(MINUTE), Some("fast")),
];

/// The headers that come with its answers: gateways before it have some of their own.
pub(super) const LIMITS: &[&[Family]] = &[COMMON, OWN];
