//! The body of a request, which tells when the request goes out: there is a connection then, a new one or a kept one.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A body in one piece, and the end of a wire on which it tells the instant.
pub(super) struct Sending {
    bytes: Option<Bytes>,
    begins: Option<oneshot::Sender<Instant>>,
}

/// When the request went out; pending until then.
pub(super) struct SentCall(oneshot::Receiver<Instant>);

impl Sending {
    pub(super) fn of(body: Vec<u8>) -> (Self, SentCall) {
        let (begins, sent) = oneshot::channel();
        let bytes = Some(Bytes::from(body)).filter(|bytes| !bytes.is_empty());
        (Self { bytes, begins: Some(begins) }, SentCall(sent))
    }
}

impl SentCall {
    /// Waits for the instant. A body that is dropped unread is empty and gone out with the head.
    pub(super) async fn at(self) -> Instant {
        self.0.await.unwrap_or_else(|_| Instant::now())
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(begins) = self.begins.take() {
            // The call may have been given up.
            let _ = begins.send(Instant::now());
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
