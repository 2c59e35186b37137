//! Bodies as they are sent: whole, a little at a time, or only in part.

use super::ledger::Ending;
use super::ticket::Ticket;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The most pieces of a slow drip: a long body drips in larger drops, not for hours.
const DROPS: usize = 50;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// All at once.
    Whole(Bytes),
    /// All of it, with a pause before each piece.
    Drip { rest: Bytes, drop: usize, interval: Duration, pause: Pin<Box<Sleep>>, end: Option<Box<(Ticket, Ending)>> },
    /// The first part of it, then the connection breaks; `announced` is the length in the header.
    Cut { first: Bytes, announced: u64, pause: Option<Pin<Box<Sleep>>> },
}

impl ReplyBody {
    /// A body that drips; the call ends when the last drop is handed over.
    pub fn drip(rest: Bytes, interval: Duration, ticket: Ticket, ending: Ending) -> Self {
        let drop = rest.len().div_ceil(DROPS).max(1);
        Self::Drip {
            rest,
            drop,
            interval,
            pause: Box::pin(tokio::time::sleep(interval)),
            end: Some(Box::new((ticket, ending))),
        }
    }

    /// A body that breaks in the middle.
    pub fn cut(mut whole: Bytes) -> Self {
        let announced = whole.len() as u64;
        whole.truncate(whole.len() / 2);
        Self::Cut { first: whole, announced, pause: None }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Drip { rest, .. } if rest.is_empty() => Poll::Ready(None),
            Self::Drip { rest, drop, interval, pause, end } => {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let piece = rest.split_to((*drop).min(rest.len()));
                if rest.is_empty() {
                    if let Some((ticket, ending)) = end.take().map(|end| *end) {
                        ticket.end(ending);
                    }
                } else {
                    pause.set(tokio::time::sleep(*interval));
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Cut { first, pause, .. } => {
                if !first.is_empty() {
                    // The pause lets the first part leave before the connection breaks.
                    *pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(2))));
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(first)))));
                }
                if pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending()) {
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(rest) | Self::Drip { rest, .. } => rest.is_empty(),
            Self::Cut { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest) | Self::Drip { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Self::Cut { announced, .. } => SizeHint::with_exact(*announced),
        }
    }
}
