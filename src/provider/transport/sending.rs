//! The body of a request, which tells when the request goes out: there is a connection then, a new one or a kept one.

use super::progress::CallProgress;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A body in one piece. Reading it is the sign that the request goes out.
pub(super) struct Sending {
    bytes: Option<Bytes>,
    progress: Arc<CallProgress>,
}

impl Sending {
    pub(super) fn of(body: Vec<u8>, progress: Arc<CallProgress>) -> Self {
        Self { bytes: Some(Bytes::from(body)).filter(|bytes| !bytes.is_empty()), progress }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.progress.sends(Instant::now());
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl Drop for Sending {
    /// A body that is dropped unread is empty and gone out with the head, or its call is over.
    fn drop(&mut self) {
        self.progress.sends(Instant::now());
    }
}
