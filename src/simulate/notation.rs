//! The notation of durations, money, distributions and wait formats in scenarios.

use super::chance::Spread;
use super::wait::WaitFormat;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::fmt;
use std::time::Duration;

/// Seconds as a number (`5`, `0.5`) or a duration with a unit (`"90s"`, `"200ms"`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds (0.5) or a duration (\"500ms\")")
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                let invalid = |_| E::invalid_value(de::Unexpected::Float(seconds), &self);
                Duration::try_from_secs_f64(seconds).map(Span).map_err(invalid)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                let invalid = |_| E::invalid_value(de::Unexpected::Signed(seconds), &self);
                u64::try_from(seconds).map(Duration::from_secs).map(Span).map_err(invalid)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                Ok(Span(Duration::from_secs(seconds)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                humantime::parse_duration(text)
                    .map(Span)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

/// Reads a duration in seconds or with a unit.
pub(crate) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Span::deserialize(deserializer).map(|span| span.0)
}

/// Reads decimal dollars per million tokens as nano-dollars.
pub(crate) fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_dollars(&text).ok_or_else(|| {
        de::Error::custom(format!("expected dollars per million tokens such as \"0.15\", found {text:?}"))
    })
}

/// The same, where there may be none.
pub(crate) fn dollars_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    dollars(deserializer).map(Some)
}

/// Decimal dollars to nano-dollars, exactly: at most nine decimals.
pub(crate) fn parse_dollars(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// A distribution given as one of: fixed, uniform, median with p99; `None` when none is given.
pub(crate) fn spread(
    fixed: Option<f64>,
    uniform: Option<[f64; 2]>,
    median: Option<f64>,
    p99: Option<f64>,
) -> Result<Option<Spread>, String> {
    match (fixed, uniform, median, p99) {
        (None, None, None, None) => Ok(None),
        (Some(value), None, None, None) if value >= 0.0 => Ok(Some(Spread::Fixed(value))),
        (None, Some([low, high]), None, None) if low >= 0.0 && high >= low => Ok(Some(Spread::Uniform(low, high))),
        (None, None, Some(median), Some(p99)) if median > 0.0 && p99 >= median => {
            Ok(Some(Spread::Lognormal { median, p99 }))
        }
        _ => Err("expected one of: a fixed value; `uniform = [low, high]` with low <= high; \
                  `median` and `p99` with 0 < median <= p99"
            .to_owned()),
    }
}

/// The format with the given name, or an error that lists all of them.
pub(crate) fn named_format<E: de::Error>(name: &str) -> Result<WaitFormat, E> {
    let known = || WaitFormat::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    WaitFormat::parse(name).ok_or_else(|| E::custom(format!("unknown format `{name}`: expected one of {}", known())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, nanos) in [
            ("0.15", Some(150_000_000)),
            ("3", Some(3_000_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("", None),
            (".5", None),
            ("-1", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_dollars(text), nanos, "{text}");
        }
    }
}
