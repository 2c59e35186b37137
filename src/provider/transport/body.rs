//! The body of an answer, and the room in memory that it takes.

use super::{broken, deadline, timed_out};
use crate::domain::{ErrorClass, Failure, Scope};
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Up to so many bytes a body takes no room: a hundred times what an answer of a thousand tokens has.
const SMALL: usize = 512 << 10;

/// Kilobytes that larger bodies take together: 256 MB.
const ALL_KB: u32 = 256 << 10;

/// The room of the whole process, in kilobytes. Who does not find any waits for it, and the server with it. Hundreds of calls
/// to a server that sends whatever it can would otherwise fill the memory.
pub(super) static ROOM: Semaphore = Semaphore::const_new(ALL_KB as usize);

/// How much and for how long.
pub(super) struct Limits {
    /// Bytes.
    pub(super) max: usize,
    /// Between two pieces.
    pub(super) idle: Duration,
    /// Of the call.
    pub(super) deadline: Instant,
}

/// A body that was read whole. Its room is free again when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Bytes,
    room: Option<SemaphorePermit<'static>>,
}

impl Body {
    /// Reads it to its end, or as far as it comes: with the failure when it is too large, does not end in time or
    /// breaks off.
    pub(super) async fn read(
        response: &mut Response,
        limits: &Limits,
        room: &'static Semaphore,
    ) -> (Self, Option<Failure>) {
        let mut body = Self::default();
        let mut gathered = BytesMut::new();
        let fault = body.fill(&mut gathered, response, limits, room).await.err();
        if !gathered.is_empty() {
            body.bytes = gathered.freeze();
        }
        (body, fault)
    }

    async fn fill(
        &mut self,
        gathered: &mut BytesMut,
        response: &mut Response,
        limits: &Limits,
        room: &'static Semaphore,
    ) -> Result<(), Failure> {
        let too_large = || {
            let message = format!("the answer is larger than {} bytes (max_body)", limits.max);
            Failure::new(ErrorClass::ServerError, Scope::Model, message)
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > limits.max as u64 {
            return Err(too_large());
        }
        let announced = usize::try_from(announced).unwrap_or(0);
        // Most answers come in one piece, which is then handed on as it is.
        loop {
            let piece_by = limits.deadline.min(deadline(Instant::now(), limits.idle));
            let piece = match timeout_at(piece_by, response.chunk()).await {
                Err(_) if piece_by == limits.deadline => return Err(timed_out("the answer did not end in time")),
                Err(_) => return Err(timed_out("the answer stalled")),
                Ok(Err(error)) => return Err(broken(&error, "in the middle of the answer")),
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(piece))) => piece,
            };
            let length = self.bytes.len().max(gathered.len()).saturating_add(piece.len());
            if length > limits.max {
                return Err(too_large());
            }
            if length > SMALL && self.room.is_none() {
                // All that it may come to at once: who had a part of it would wait for the rest while others do.
                let whole = if announced > 0 { announced } else { limits.max };
                let kilobytes = u32::try_from(whole >> 10).unwrap_or(u32::MAX).min(ALL_KB);
                let found = timeout_at(limits.deadline, room.acquire_many(kilobytes)).await;
                let found = found.map_err(|_| timed_out("the answer is large, and so were too many others"))?;
                self.room = found.ok();
            }
            if self.bytes.is_empty() {
                self.bytes = piece;
            } else {
                if gathered.is_empty() {
                    gathered.reserve(announced.max(length));
                    gathered.extend_from_slice(&self.bytes);
                }
                gathered.extend_from_slice(&piece);
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
