//! How far a call has come on the thread of its provider, for the task that waits for it.

use super::stage::deadline;
use reqwest::header::HeaderMap;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// The stages that a call has reached. They wake no task: the task that waits looks when its alarm rings.
#[derive(Debug, Default)]
pub(super) struct CallProgress {
    sent: OnceLock<Instant>,
    head: OnceLock<ArrivedHead>,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct ArrivedHead {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The time that it took; `None`: a stream is to begin after it.
    pub(super) first_byte: Option<Duration>,
}

impl CallProgress {
    /// Records that the request goes out: there is a connection then, a new one or a kept one.
    pub(super) fn sends(&self, now: Instant) {
        // Only the first time counts.
        let _ = self.sent.set(now);
    }

    /// Records that the head has come.
    pub(super) fn has_head(&self, head: ArrivedHead) {
        let _ = self.head.set(head);
    }

    /// The head, once it has come.
    pub(super) fn head(&self) -> Option<&ArrivedHead> {
        self.head.get()
    }

    /// By when an answer has to begin that may take so long from the sending of the request on. As long as that is not
    /// sent, it is as if it were sent `now`.
    pub(super) fn begins_by(&self, first_byte: Duration, now: Instant) -> Instant {
        deadline(self.sent.get().copied().unwrap_or(now), first_byte)
    }
}
