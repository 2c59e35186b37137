//! What tokens cost.

use super::{NanoUsd, Usage};
use serde::{Deserialize, Serialize};

/// Prices of one model, in nano-dollars per million tokens, as frozen on each attempt.
///
/// A missing cache price means that the provider bills such tokens like plain input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Plain input.
    pub input: i64,
    /// Output, reasoning included.
    pub output: i64,
    /// Input read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<i64>,
    /// Input written to a short-lived cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<i64>,
    /// Input written to a cache that lives an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<i64>,
}

impl Price {
    /// What `usage` costs, rounded half up to a whole nano-dollar; saturates, never panics.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let part = |tokens: i64, price: i64| i128::from(tokens.max(0)) * i128::from(price);
        let total = part(usage.input, self.input)
            + part(usage.cache_read, self.cached_input.unwrap_or(self.input))
            + part(usage.cache_write, self.cache_write.unwrap_or(self.input))
            + part(usage.cache_write_1h, self.cache_write_1h.or(self.cache_write).unwrap_or(self.input))
            + part(usage.output, self.output);
        NanoUsd(i64::try_from((total + 500_000).div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }
}
