//! How long answers take.

use super::chance::Spread;
use super::notation::{Span, spread};
use serde::Deserialize;
use std::time::Duration;

/// How long an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawLatency")]
pub struct Latency {
    /// Until the first token, in seconds.
    pub first: Spread,
    /// For each token of output, in seconds.
    pub per_output_token: f64,
    /// This many calls at once are answered at full speed; with more, each takes longer in proportion. Absent: any
    /// number.
    pub full_speed: Option<u32>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { first: Spread::Fixed(0.0), per_output_token: 0.0, full_speed: None }
    }
}

impl Latency {
    /// The latency that belongs to this draw, for one call of `in_flight`, which includes it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "numbers of tokens and calls are small")]
    pub fn draw(&self, hash: u64, output_tokens: u64, in_flight: u64) -> Duration {
        let seconds = self.first.draw(hash) + self.per_output_token * output_tokens as f64;
        let load = self.full_speed.map_or(1.0, |calls| in_flight as f64 / f64::from(calls.max(1)));
        Duration::try_from_secs_f64(seconds * load.max(1.0)).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLatency {
    fixed: Option<Span>,
    uniform: Option<[Span; 2]>,
    median: Option<Span>,
    p99: Option<Span>,
    per_output_token: Option<Span>,
    full_speed: Option<u32>,
}

impl TryFrom<RawLatency> for Latency {
    type Error = String;
    fn try_from(raw: RawLatency) -> Result<Self, String> {
        let seconds = |span: Span| span.0.as_secs_f64();
        let uniform = raw.uniform.map(|range| range.map(seconds));
        let first = spread(raw.fixed.map(seconds), uniform, raw.median.map(seconds), raw.p99.map(seconds))?;
        Ok(Self {
            first: first.unwrap_or(Spread::Fixed(0.0)),
            per_output_token: raw.per_output_token.map_or(0.0, seconds),
            full_speed: raw.full_speed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_grows_with_the_load_beyond_full_speed() {
        let steady = Latency { first: Spread::Fixed(0.1), ..Latency::default() };
        let loaded = Latency { full_speed: Some(4), ..steady };
        for (in_flight, millis) in [(1, 100), (4, 100), (6, 150), (40, 1_000)] {
            assert_eq!(loaded.draw(1, 0, in_flight), Duration::from_millis(millis));
            assert_eq!(steady.draw(1, 0, in_flight), Duration::from_millis(100));
        }
    }
}
