//! The body of an answer, and the room in memory that it takes.

use super::room::{Room, SMALL, TakenRoom};
use super::stage::{broken, deadline, timed_out};
use crate::domain::{ErrorClass, Failure, Scope};
use crate::provider::events::StreamPulse;
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Limits on the size and time of a body.
pub(super) struct BodyLimits {
    /// The most bytes.
    pub(super) max: usize,
    /// When a stream of events has to have begun.
    pub(super) begins_by: Instant,
    /// The longest time between two pieces, or between two events of a stream.
    pub(super) idle: Duration,
    pub(super) deadline: Instant,
}

/// A body that was read whole. Its room is free again when the body is dropped.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Bytes,
    room: TakenRoom,
}

impl Body {
    /// Reads the body to its end, or as much as arrives: with the failure when it is too large, does not end in time or
    /// breaks off. `pulse` counts the events of a stream: other bytes of it are no sign of an answer.
    pub(super) async fn read(
        response: &mut Response,
        pulse: Option<&mut StreamPulse>,
        limits: &BodyLimits,
        room: &Room,
    ) -> (Self, Option<Failure>) {
        let mut body = Self::default();
        let mut gathered = BytesMut::new();
        let fault = body.fill(&mut gathered, response, pulse, limits, room).await.err();
        if !gathered.is_empty() {
            body.bytes = gathered.freeze();
        }
        (body, fault)
    }

    async fn fill(
        &mut self,
        gathered: &mut BytesMut,
        response: &mut Response,
        mut pulse: Option<&mut StreamPulse>,
        limits: &BodyLimits,
        room: &Room,
    ) -> Result<(), Failure> {
        let too_large = || {
            let message = format!("the answer is larger than {} bytes (max_body_bytes)", limits.max);
            Failure::new(ErrorClass::ServerError, Scope::Model, message)
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > limits.max as u64 {
            return Err(too_large());
        }
        let announced = usize::try_from(announced).unwrap_or(0);
        let idle_from = |now| limits.deadline.min(deadline(now, limits.idle));
        let mut piece_by = match pulse {
            Some(_) => limits.begins_by,
            None => idle_from(Instant::now()),
        };
        // Most answers come in one piece, which is then handed on as it is.
        loop {
            let piece = match timeout_at(piece_by, response.chunk()).await {
                Err(_) if piece_by == limits.deadline => return Err(timed_out("the answer did not end in time")),
                Err(_) if pulse.as_ref().is_some_and(|pulse| pulse.first().is_none()) => {
                    return Err(timed_out("no event of the stream came in time"));
                }
                Err(_) => return Err(timed_out("the answer stalled")),
                Ok(Err(error)) => return Err(broken(&error, "in the middle of the answer")),
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(piece))) => piece,
            };
            let length = self.bytes.len().max(gathered.len()).saturating_add(piece.len());
            if length > limits.max {
                return Err(too_large());
            }
            let most = if announced > 0 { announced } else { limits.max };
            let now = Instant::now();
            let is_sign = pulse.as_mut().is_none_or(|pulse| pulse.takes(&piece, now));
            if length > SMALL && !room.take(&mut self.room, length, most, limits.deadline).await {
                return Err(timed_out("the answer is large, and so were too many others"));
            }
            if self.bytes.is_empty() {
                self.bytes = piece;
            } else {
                if gathered.is_empty() {
                    gathered.reserve(length.saturating_mul(2));
                    gathered.extend_from_slice(&self.bytes);
                }
                gathered.extend_from_slice(&piece);
            }
            if is_sign {
                piece_by = idle_from(Instant::now());
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
