//! Traces: which trace the spans of a job lie in, and whether they are sent at all.
//!
//! Ids follow from the job, not from chance. So the spans of different workers, of a restart, and of a round that an
//! operator has asked for all lie in one trace, and no worker has to tell another one anything.

mod parent;
mod resend;
mod span;

pub use parent::TraceParent;
pub use resend::{Resend, resend};
pub use span::{AttributeValue, Operation, Span, SpanKind, TracedCall, TracedEnding, provider_name};

use super::JobId;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The member of a job's metadata that names the trace of its caller.
pub const MEMBER: &str = "traceparent";

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// The trace of one job in one of its rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobTrace {
    /// The trace.
    pub trace: TraceId,
    /// The span of the job itself, in this round.
    pub root: SpanId,
    /// The span of the caller that the job's span belongs to; `None`: it belongs to no other.
    pub caller: Option<SpanId>,
    /// The job has a `traceparent` that is none.
    pub is_misled: bool,
    /// What the ids of spans are made of.
    seed: [u8; 32],
}

impl JobTrace {
    /// The trace of a job; `None`: nothing of it is sent. `installation` tells databases apart, and `born` jobs of one
    /// database that have the same number. `traceparent` is that member of its metadata.
    ///
    /// A caller's trace is sent if the caller records it, so that it is whole. Of all others the share `sample` is.
    #[must_use]
    pub fn of(
        installation: &str,
        job: JobId,
        born: i64,
        round: i16,
        traceparent: Option<&str>,
        sample: f64,
    ) -> Option<Self> {
        let seed: [u8; 32] = Sha256::new()
            .chain_update(b"sluice job\0")
            .chain_update(installation.as_bytes())
            .chain_update([0])
            .chain_update(job.0.to_be_bytes())
            .chain_update(born.to_be_bytes())
            .finalize()
            .into();
        let parent = traceparent.map(TraceParent::parse);
        let is_misled = matches!(parent, Some(None));
        let parent = parent.flatten();
        let trace = parent.map_or_else(|| TraceId(cut(&seed)), |parent| parent.trace);
        let is_sent = parent.map_or_else(|| trace.is_drawn(sample), |parent| parent.is_sampled);
        let root = span_id(&seed, b"round", round);
        is_sent.then_some(Self { trace, root, caller: parent.map(|parent| parent.span), is_misled, seed })
    }

    /// The span of the job's attempt with this number.
    #[must_use]
    pub fn attempt(&self, number: i16) -> SpanId {
        span_id(&self.seed, b"attempt", number)
    }
}

impl TraceId {
    /// Whether a trace is among this share of all. By the rule of W3C's Trace Context Level 2, the last 56 bits decide:
    /// a collector that samples by the same rule keeps whole traces of those that come.
    fn is_drawn(self, share: f64) -> bool {
        /// Two to the power of 56.
        const ALL: f64 = 72_057_594_037_927_936.0;
        let drawn = u128::from_be_bytes(self.0) & ((1 << 56) - 1);
        #[expect(clippy::cast_precision_loss, reason = "a share is not that exact")]
        let drawn = drawn as f64;
        drawn >= (1.0 - share.clamp(0.0, 1.0)) * ALL
    }
}

/// The first bytes of a digest. They are not all zero, which would be no id: no digest that begins so is known.
fn cut<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    let mut first = [0; N];
    first.iter_mut().zip(digest).for_each(|(byte, of)| *byte = *of);
    first
}

fn span_id(seed: &[u8; 32], what: &[u8], number: i16) -> SpanId {
    let digest = Sha256::new().chain_update(seed).chain_update(what).chain_update(number.to_be_bytes()).finalize();
    SpanId(cut(&digest.into()))
}

fn in_hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_hexadecimal(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_hexadecimal(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        in_hexadecimal(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(job: i64, born: i64, round: i16, traceparent: Option<&str>) -> JobTrace {
        JobTrace::of("i", JobId(job), born, round, traceparent, 1.0).unwrap()
    }

    #[test]
    fn ids_follow_from_the_job_and_differ_between_jobs_databases_rounds_and_attempts() {
        let trace = of(7, 1, 0, None);
        assert_eq!(trace, of(7, 1, 0, None));
        assert_eq!(trace.attempt(3), of(7, 1, 2, None).attempt(3), "numbers of attempts go on over rounds");
        for other in [of(8, 1, 0, None), of(7, 2, 0, None), JobTrace::of("j", JobId(7), 1, 0, None, 1.0).unwrap()] {
            assert_ne!(trace.trace, other.trace);
            assert_ne!(trace.root, other.root);
            assert_ne!(trace.attempt(1), other.attempt(1));
        }
        let again = of(7, 1, 1, None);
        assert_eq!(trace.trace, again.trace, "a round that was asked for lies in the same trace");
        assert_ne!(trace.root, again.root);
        assert_ne!(trace.attempt(1), trace.attempt(2));
        assert_ne!(trace.attempt(1), trace.root);
    }

    #[test]
    fn a_caller_gives_the_trace_and_the_parent_and_decides_whether_it_is_sent() {
        let trace = of(7, 1, 0, Some(CALLER));
        assert_eq!(trace.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.caller.unwrap().to_string(), "00f067aa0ba902b7");
        assert_eq!((trace.root, trace.is_misled), (of(7, 1, 0, None).root, false));
        let given = |text: &str, sample| JobTrace::of("i", JobId(7), 1, 0, Some(text), sample).is_some();
        assert!(given(CALLER, 1e-9), "the caller records it");
        assert!(!given(&CALLER.replace("-01", "-00"), 1.0), "the caller does not record it");
        let misled = of(7, 1, 0, Some("nonsense"));
        assert_eq!((misled.trace, misled.caller, misled.is_misled), (of(7, 1, 0, None).trace, None, true));
    }

    #[test]
    fn a_share_of_the_traces_is_sent_whole_and_a_larger_share_has_those_of_a_smaller_one() {
        let sent = |share: f64| -> Vec<i64> {
            (0..4_000).filter(|job| JobTrace::of("i", JobId(*job), 1, 0, None, share).is_some()).collect()
        };
        assert_eq!((sent(0.0).len(), sent(1.0).len()), (0, 4_000));
        let (tenth, half) = (sent(0.1), sent(0.5));
        assert!((300..500).contains(&tenth.len()), "{}", tenth.len());
        assert!((1_850..2_150).contains(&half.len()), "{}", half.len());
        assert!(tenth.iter().all(|job| half.contains(job)));
    }
}
