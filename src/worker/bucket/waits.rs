//! The waits of a bucket: what shuts it, and what opens it before its time.

#[cfg(test)]
mod tests;

use super::{Bucket, BucketHold};
use crate::domain::error_class::Refusal;
use crate::domain::limits::Heard;
use crate::domain::shared_bucket::Wait;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Timestamp, long_wait};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A wait of this bucket in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub shut: Shut,
    pub opens: Instant,
    /// The wait is too long to be believed: when it is over here, the other processes decide which call may ask again.
    pub is_long: bool,
}

impl Bucket {
    /// The wait in force, if there is one.
    pub(in crate::worker) fn block(&self) -> Option<Shut> {
        let now = Instant::now();
        let mut block = self.block.lock();
        let is_over = block.take_if(|block| block.opens <= now);
        let shut = block.map(|block| block.shut);
        drop(block);
        if is_over.is_some_and(|block| block.is_long) {
            self.keeping().heard_at = None;
        }
        if shut.is_some() {
            // The bucket may be opened by hand, and the keeper listens for that as long as a call wants the bucket.
            self.keeping().used_at = Some(now);
        }
        shut
    }

    /// When the bucket was last opened before its wait was over.
    pub(in crate::worker) fn reopened_at(&self) -> Option<Timestamp> {
        self.keeping().reopened
    }

    /// If this call was the one that asked again, records that it has shown the wait to be over.
    pub(in crate::worker) fn asked_again(&self, hold: &BucketHold) {
        if hold.probe.is_none() {
            return;
        }
        *self.block.lock() = None;
        self.keeping().reopens = true;
        self.ask();
    }

    /// Takes the leave of the one call that may ask again, for which all others wait; `None` when no long wait is on.
    /// `Err`: the leave has run out, and the other processes have to be asked anew.
    pub(super) fn take_leave(&self) -> Result<Option<Block>, ()> {
        let leave = self.leave.lock().take();
        let Some(leave) = leave else { return Ok(None) };
        if leave.opens <= Instant::now() {
            self.keeping().heard_at = None;
            return Err(());
        }
        *self.block.lock() = Some(leave);
        Ok(Some(leave))
    }

    /// The call that was to ask again was not made after all: another call may.
    pub(super) fn give_back_leave(&self, leave: Block) {
        let mut block = self.block.lock();
        if *block == Some(leave) {
            *block = None;
            drop(block);
            *self.leave.lock() = Some(leave);
        }
    }

    pub(super) fn has_leave(&self) -> bool {
        self.leave.lock().is_some()
    }

    /// Shuts the bucket here; never shortens a wait in force. Returns whether the wait is longer now.
    pub(super) fn set_block(&self, shut: Shut, opens: Instant, is_long: bool) -> bool {
        let mut block = self.block.lock();
        let since = match *block {
            Some(before) if before.opens >= opens => return false,
            Some(before) if before.opens > Instant::now() => before.shut.since.min(shut.since),
            _ => shut.since,
        };
        *block = Some(Block { shut: Shut { since, ..shut }, opens, is_long });
        true
    }

    /// A provider refused `hold`'s call because of its limits. Shuts the bucket, here and for all processes, for
    /// exactly as long as the provider asks; never shortens a wait in force.
    ///
    /// Where nothing is known of its limits and it asks for no wait, there were too many calls at once: fewer may run
    /// from now on. If the call was the only one, the bucket is shut, in this process only.
    pub fn refuse(
        &self,
        hold: &BucketHold,
        why: Refusal,
        wait: Option<Duration>,
        recheck: Duration,
        heard: &[Heard],
        now: Timestamp,
    ) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let is_bare = wait.is_none() && why == Refusal::Pace && heard.is_empty() && hold.taken.is_empty();
        if is_bare && let Some(was_alone) = hold.place.refused() {
            if was_alone {
                let wait = self.unhinted_wait();
                let shut = Shut { reason: Reason::RateLimit, since: now, until: now + wait };
                self.set_block(shut, Instant::now() + wait, false);
            }
            let mut keeping = self.keeping();
            keeping.refused = keeping.refused.saturating_add(1);
            return;
        }
        hold.place.shut();
        let wait = wait.unwrap_or_else(|| self.unhinted_wait());
        let (is_long, rest) = (long_wait::is_long(wait), long_wait::rest(wait, recheck));
        let opens = Instant::now() + rest;
        self.set_block(Shut { reason: Reason::RateLimit, since: now, until: now + rest }, opens, is_long);
        let drained = if why == Refusal::Day { Vec::new() } else { hold.drained(heard) };
        let too_steep = why == Refusal::Slope;
        let mut keeping = self.keeping();
        keeping.refused = keeping.refused.saturating_add(1);
        // A process that asked again and is given a believable wait has ended the unbelievable one.
        keeping.reopens |= hold.probe.is_some() && !is_long;
        let before = keeping.wait.take();
        let mut asked = Wait { reason: Reason::RateLimit, remaining: wait, recheck, drained, too_steep };
        let mut until = Instant::now().checked_add(wait).unwrap_or(opens);
        if let Some((earlier, opened)) = before {
            // Two refusals came before the other processes learned of the first: the longer wait counts, and all limits
            // that they are about.
            until = until.max(opened);
            asked.too_steep |= earlier.too_steep;
            for drained in earlier.drained {
                if !asked.drained.iter().any(|(dimension, _)| *dimension == drained.0) {
                    asked.drained.push(drained);
                }
            }
        }
        keeping.wait = Some((asked, until));
        drop(keeping);
        self.hungry.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The wait after a refusal without a hint: one second, doubling up to a minute, until a call gets through.
    fn unhinted_wait(&self) -> Duration {
        let times = self.unhinted.fetch_add(1, Ordering::Relaxed).clamp(0, 6);
        Duration::from_secs(1 << times).min(Duration::from_mins(1))
    }

    /// `hold`'s call got through: refusals without a hint start again at one second.
    pub fn passed(&self, hold: &BucketHold) {
        hold.place.passed();
        if self.unhinted.load(Ordering::Relaxed) != 0 {
            self.unhinted.store(0, Ordering::Relaxed);
        }
    }
}
