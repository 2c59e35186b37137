//! Sends the spans of what was settled to a collector of OpenTelemetry, beside the work, which never waits for it.
//!
//! Spans wait in a queue of bounded size. What finds no room there is dropped and counted, as is what the collector
//! refuses. A collector that is away, hangs or refuses costs memory for one queue, and a line in the log now and then.

use super::outcome_batch::OutcomeBatch;
use crate::domain::trace::{JobTrace, MEMBER, Resend, Span, SpanKind, resend};
use crate::provider::otlp::{Exported, SpanExporter, TraceCollector};
use crate::store::claim::Claimed;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Spans that may wait: some megabytes.
const QUEUE: usize = 8_192;
/// Spans in one message, at most.
const BATCH: usize = 512;
/// A span waits at most this long for others to share its message.
const LINGER: Duration = Duration::from_millis(500);
/// Time between two lines of the log about the same trouble.
const EVERY: Duration = Duration::from_mins(1);
/// How long a worker that stops waits until the last spans are sent.
const GOOD_BYE: Duration = Duration::from_secs(3);

/// Where spans are sent, and of which share of the jobs.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    pub collector: TraceCollector,
    /// The share of jobs whose traces are sent.
    pub sample: f64,
}

/// What became of spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub sent: u64,
    /// Lost: the queue was full, or the collector refused them.
    pub dropped: u64,
}

/// The sending end of the queue, where spans are sent at all. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanQueue(Option<Arc<OpenQueue>>);

#[derive(Debug)]
struct OpenQueue {
    sender: mpsc::Sender<Span>,
    sample: f64,
    sent: AtomicU64,
    dropped: AtomicU64,
    /// Spans that the queue has taken.
    queued: AtomicU64,
    /// Set when what is there is all that comes.
    closing: CancellationToken,
}

impl SpanQueue {
    /// A queue, and the loop that the caller has to run for it.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(settings: Option<&TraceSettings>) -> Result<(Self, Option<SpanLoop>), String> {
        let Some(settings) = settings else { return Ok((Self(None), None)) };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let exporter = SpanExporter::new(settings.collector.clone(), host)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let queue = Arc::new(OpenQueue {
            sender,
            sample: settings.sample,
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            closing: CancellationToken::new(),
        });
        let sending = SpanLoop { receiver, exporter, queue: Arc::clone(&queue), trouble: Trouble::default() };
        Ok((Self(Some(queue)), Some(sending)))
    }

    /// The trace of a job; `None`: it is not sent.
    pub fn trace_of(&self, installation: &str, claimed: &Claimed) -> Option<JobTrace> {
        let queue = self.0.as_ref()?;
        let lease = claimed.lease;
        let caller = claimed.metadata.get(MEMBER);
        JobTrace::of(installation, lease.job, lease.born, claimed.round, caller, queue.sample)
    }

    /// Takes the spans of outcomes that are settled. The job of a claim that was `fenced_out` has not ended with it, so
    /// its own span is left out.
    pub fn tell(&self, batch: &OutcomeBatch, fenced_out: &HashSet<i64>) {
        let Some(queue) = &self.0 else { return };
        for (fence, spans) in batch.spans() {
            let has_ended = fence.is_some_and(|fence| !fenced_out.contains(&fence));
            for span in spans.iter().filter(|span| has_ended || span.kind == SpanKind::Client) {
                match queue.sender.try_send(span.clone()) {
                    Ok(()) => queue.queued.fetch_add(1, Ordering::Relaxed),
                    Err(_) => queue.dropped.fetch_add(1, Ordering::Relaxed),
                };
            }
        }
    }

    /// What became of spans so far; `None`: none are sent.
    pub fn counts(&self) -> Option<SpanCounts> {
        let queue = self.0.as_ref()?;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(SpanCounts { sent: of(&queue.sent), dropped: of(&queue.dropped) })
    }

    /// Waits a moment until the spans that are there are sent.
    pub async fn close(&self, mut sending: JoinHandle<()>) {
        let Some(queue) = &self.0 else { return };
        queue.closing.cancel();
        if timeout(GOOD_BYE, &mut sending).await.is_err() {
            sending.abort();
            let _ = sending.await;
            let handled = queue.sent.load(Ordering::Relaxed) + queue.dropped.load(Ordering::Relaxed);
            let left = queue.queued.load(Ordering::Relaxed).saturating_sub(handled);
            tracing::warn!(spans = left, "the collector of traces has not taken the last spans; they are dropped");
        }
    }
}

/// The receiving end: see [`SpanLoop::run`].
pub(super) struct SpanLoop {
    receiver: mpsc::Receiver<Span>,
    exporter: SpanExporter,
    queue: Arc<OpenQueue>,
    trouble: Trouble,
}

/// What the log was told of a collector that does not take spans.
#[derive(Debug, Default)]
struct Trouble {
    /// When it was last told that there is trouble.
    told: Option<Instant>,
    /// Whether the last message was not taken.
    is_failing: bool,
    /// Spans that had been dropped when it was last told.
    dropped: u64,
}

impl SpanLoop {
    /// Sends spans until the queue is closed and empty.
    pub async fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        loop {
            let first = tokio::select! {
                biased;
                span = self.receiver.recv() => span,
                () = queue.closing.cancelled() => None,
            };
            let Some(first) = first else { return };
            let mut batch = vec![first];
            let full_at = Instant::now() + LINGER;
            while batch.len() < BATCH {
                tokio::select! {
                    biased;
                    Some(span) = self.receiver.recv() => batch.push(span),
                    () = queue.closing.cancelled() => break,
                    () = sleep_until(full_at) => break,
                }
            }
            self.deliver(&batch).await;
        }
    }

    /// Sends one message, again and again where that may help, until it is taken or given up.
    async fn deliver(&mut self, batch: &[Span]) {
        let queue = Arc::clone(&self.queue);
        let spans = batch.len() as u64;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.exporter.send(batch).await {
                Exported::Taken { refused, words } => {
                    queue.sent.fetch_add(spans - refused, Ordering::Relaxed);
                    queue.dropped.fetch_add(refused, Ordering::Relaxed);
                    return self.tell((refused > 0).then(|| format!("it refused {refused} of {spans}: {words}")));
                }
                Exported::NotTaken { status, retry_after, words } => {
                    let pause = match resend(status, retry_after, tries) {
                        Resend::After(pause) if !queue.closing.is_cancelled() => Some(pause),
                        _ => None,
                    };
                    if pause.is_none() {
                        queue.dropped.fetch_add(spans, Ordering::Relaxed);
                    }
                    self.tell(Some(words));
                    let Some(pause) = pause else { return };
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = queue.closing.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Logs what there is to say after a message. `trouble`: why it was not taken.
    fn tell(&mut self, trouble: Option<String>) {
        let dropped = self.queue.dropped.load(Ordering::Relaxed);
        let lost = dropped - self.trouble.dropped;
        let was_failing = std::mem::replace(&mut self.trouble.is_failing, trouble.is_some());
        let is_due = self.trouble.told.is_none_or(|told| told.elapsed() >= EVERY);
        match trouble {
            Some(words) if is_due => {
                tracing::warn!(
                    error = words,
                    spans_dropped = lost,
                    "the collector of traces does not take spans; jobs go on without it"
                );
            }
            None if was_failing => {
                tracing::info!(spans_dropped = lost, "the collector of traces takes spans again");
                self.trouble = Trouble { dropped, ..Trouble::default() };
                return;
            }
            None if lost > 0 && is_due => {
                tracing::warn!(
                    spans_dropped = lost,
                    "the collector of traces takes spans more slowly than they come: lower traces.sample"
                );
            }
            Some(_) | None => return,
        }
        self.trouble.told = Some(Instant::now());
        self.trouble.dropped = dropped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trace::{SpanId, TraceId};
    use crate::domain::{JobId, Timestamp};
    use crate::provider::otlp::collector_url;
    use crate::store::claim::Lease;
    use crate::store::settle::ParkRow;
    use crate::worker::settler::{Item, Then};

    fn span(kind: SpanKind) -> Span {
        Span {
            trace: TraceId([1; 16]),
            id: SpanId([1; 8]),
            parent: None,
            is_of_caller: false,
            kind,
            name: "a".to_owned(),
            started: Timestamp(0),
            ended: Timestamp(0),
            has_failed: false,
            attributes: Vec::new(),
        }
    }

    fn item(fence: i64) -> Item {
        let lease = Lease { job: JobId(1), fence, born: 0 };
        let row = ParkRow { lease, attempts: 0, until: None, reason: String::new(), raced: false };
        Item::of_no_call(Then::Park(row), vec![span(SpanKind::Client), span(SpanKind::Consumer)])
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_a_job_that_another_worker_has_does_not_end() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let endpoint = collector_url("http://127.0.0.1:9").unwrap();
        let service = "s".to_owned();
        let collector = TraceCollector { endpoint, headers: Vec::new(), timeout: Duration::from_secs(1), service };
        let (queue, sending) = SpanQueue::new(Some(&TraceSettings { collector, sample: 1.0 })).unwrap();
        let mut sending = sending.unwrap();
        queue.tell(&OutcomeBatch::of(vec![item(1), item(2)]), &HashSet::from([2]));
        let kinds = [(); 3].map(|()| sending.receiver.try_recv().unwrap().kind);
        assert_eq!(kinds, [SpanKind::Client, SpanKind::Consumer, SpanKind::Client]);
        for _ in 0..QUEUE {
            queue.tell(&OutcomeBatch::of(vec![item(1)]), &HashSet::new());
        }
        assert_eq!(queue.counts(), Some(SpanCounts { sent: 0, dropped: QUEUE as u64 }));
        assert_eq!(SpanQueue::new(None).unwrap().0.counts(), None);
    }
}
