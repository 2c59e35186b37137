//! Bodies as they are sent: whole, a little at a time, or only in part.

use super::ledger::Ending;
use super::ticket::Ticket;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
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
    /// Piece by piece, without a word of its length.
    Pieces { rest: VecDeque<Bytes>, interval: Option<Duration>, pause: Option<Pin<Box<Sleep>>>, then: Then },
    /// The first part of it, then the connection breaks; `announced` is the length in the header.
    Cut { first: Bytes, announced: u64, pause: Option<Pin<Box<Sleep>>> },
}

/// What comes behind the last piece of a body.
pub(crate) enum Then {
    /// Its end, and that of the call.
    End(Box<(Ticket, Ending)>),
    /// The connection breaks.
    Break,
    /// Nothing, until the client gives up.
    Silence(#[expect(dead_code, reason = "dropping it books that the client went away")] Box<Ticket>),
    /// It has ended.
    Ended,
}

/// The time in which a piece leaves before its connection breaks.
const LEAVING: Duration = Duration::from_millis(2);

impl ReplyBody {
    /// A body that comes in these pieces, with a pause before each if there is an interval; many of them go together
    /// then.
    pub fn pieces(pieces: &[Bytes], interval: Option<Duration>, then: Then) -> Self {
        let together = if interval.is_some() { pieces.len().div_ceil(DROPS).max(1) } else { 1 };
        let rest = pieces.chunks(together).map(|some| Bytes::from(some.concat())).collect();
        let pause = interval.map(|interval| Box::pin(tokio::time::sleep(interval)));
        Self::Pieces { rest, interval, pause, then }
    }

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
            Self::Pieces { rest, interval, pause, then } => {
                if pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_pending()) {
                    return Poll::Pending;
                }
                if let Some(piece) = rest.pop_front() {
                    let breaks = rest.is_empty() && matches!(then, Then::Break);
                    let next = if breaks { Some(LEAVING) } else { interval.filter(|_| !rest.is_empty()) };
                    *pause = next.map(|next| Box::pin(tokio::time::sleep(next)));
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                match std::mem::replace(then, Then::Ended) {
                    Then::End(end) => {
                        let (ticket, ending) = *end;
                        ticket.end(ending);
                        Poll::Ready(None)
                    }
                    Then::Ended => Poll::Ready(None),
                    Then::Break => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
                    silence @ Then::Silence(_) => {
                        *then = silence;
                        Poll::Pending
                    }
                }
            }
            Self::Cut { first, pause, .. } => {
                if !first.is_empty() {
                    // The pause lets the first part leave before the connection breaks.
                    *pause = Some(Box::pin(tokio::time::sleep(LEAVING)));
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
            Self::Cut { .. } | Self::Pieces { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest) | Self::Drip { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Self::Cut { announced, .. } => SizeHint::with_exact(*announced),
            Self::Pieces { .. } => SizeHint::default(),
        }
    }
}
