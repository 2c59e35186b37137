//! A connection that can be torn, as a provider's load balancer tears it when it gives up.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Tells a [`Wire`] to break.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tear(Arc<AtomicBool>);

impl Tear {
    /// From now on nothing is written any more, and closing resets the connection (TCP RST).
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_torn(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A TCP stream that resets instead of closing when it has been torn.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    tear: Tear,
}

impl Wire {
    pub fn new(stream: TcpStream, tear: Tear) -> Self {
        Self { stream, tear }
    }

    fn check(&self) -> io::Result<()> {
        if self.tear.is_torn() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.tear.is_torn() {
            // With a zero linger time, closing sends RST rather than FIN. If it fails the client sees a plain close.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown would send FIN before the reset.
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
