//! `traceparent`: the trace of a caller, as W3C's Trace Context writes it.

use super::{SpanId, TraceId};

/// The trace of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span of the caller.
    pub span: SpanId,
    /// Whether the caller records it.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`, by the letter of the recommendation: small
    /// letters, no id of zeros, no version 255. Of later versions, which may say more, the same four parts are read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = bytes::<1>(parts.next()?)?;
        let (trace, span) = (bytes::<16>(parts.next()?)?, bytes::<8>(parts.next()?)?);
        let [flags] = bytes::<1>(parts.next()?)?;
        let has_more = parts.next().is_some();
        let is_valid = match version {
            [0] => !has_more,
            [255] => false,
            _ => true,
        };
        (is_valid && trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            is_sampled: flags & 1 == 1,
        })
    }
}

/// So many bytes in hexadecimal.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let is_small = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(is_small) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_by_the_letter() {
        let parent = TraceParent::parse(VALID).unwrap();
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((parent.span.to_string().as_str(), parent.is_sampled), ("00f067aa0ba902b7", true));
        for (flags, is_sampled) in [("00", false), ("03", true), ("fe", false), ("ff", true)] {
            let text = VALID.replace("-01", &format!("-{flags}"));
            assert_eq!(TraceParent::parse(&text).map(|parent| parent.is_sampled), Some(is_sampled), "{text}");
        }
        assert!(TraceParent::parse(&VALID.replacen("00", "cc", 1)).is_some(), "a later version");
        assert!(TraceParent::parse(&format!("{}-more", VALID.replacen("00", "cc", 1))).is_some(), "that says more");
        for wrong in [
            String::new(),
            "00".to_owned(),
            VALID.to_uppercase(),
            VALID.replacen("00", "ff", 1),
            format!("{VALID}-more"),
            format!("{VALID}-"),
            format!("{VALID} "),
            format!(" {VALID}"),
            VALID.replace("-01", ""),
            VALID.replace("-01", "-1"),
            VALID.replace("-01", "-0g"),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.replace("4bf9", "4bf"),
            VALID.replace("4bf9", "+bf9"),
            VALID.replace("4bf9", "4bfé"),
            VALID.replace('-', "_"),
        ] {
            assert_eq!(TraceParent::parse(&wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_and_what_is_read_is_what_was_written(
            text in "\\PC{0,80}",
            trace in any::<[u8; 16]>(),
            span in any::<[u8; 8]>(),
            is_sampled: bool,
        ) {
            let _ = TraceParent::parse(&text);
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let (trace, span) = (TraceId(trace), SpanId(span));
            let written = format!("00-{trace}-{span}-0{}", u8::from(is_sampled));
            prop_assert_eq!(TraceParent::parse(&written), Some(TraceParent { trace, span, is_sampled }));
        }
    }
}
