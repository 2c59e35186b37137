//! Memory for large answers.
//!
//! Each provider has a share of its own, from which an answer takes more as it grows. When the share is used up, one
//! answer of the provider at a time continues in the reserve, which all providers have in common. There it takes all
//! that it may need at once. So it never waits for the rest of another answer, and answers of one provider that never
//! end do not block those of others.

use std::sync::{Arc, LazyLock};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// An answer up to this many bytes takes no room: a hundred times the size of a thousand tokens.
pub(super) const SMALL: usize = 512 << 10;

/// Kilobytes of one provider: 48 MB.
const SHARE_KB: u32 = 48 << 10;

/// Kilobytes of the reserve, for the whole process: 128 MB.
const RESERVE_KB: u32 = 128 << 10;

static RESERVE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(RESERVE_KB as usize)));

/// The room for one provider's answers.
#[derive(Clone)]
pub(super) struct Room {
    share: Arc<Semaphore>,
    /// Held by the answer that continues in the reserve.
    turn: Arc<Mutex<()>>,
    reserve: Arc<Semaphore>,
    reserve_kb: u32,
}

/// The room that one answer has taken; free again when this is dropped.
#[derive(Debug, Default)]
pub(super) struct TakenRoom {
    kb: u32,
    share: Option<OwnedSemaphorePermit>,
    reserve: Option<(OwnedMutexGuard<()>, OwnedSemaphorePermit)>,
}

impl Room {
    /// The room of one provider.
    pub(super) fn new() -> Self {
        Self::of(SHARE_KB, Arc::clone(&RESERVE), RESERVE_KB)
    }

    pub(super) fn of(share_kb: u32, reserve: Arc<Semaphore>, reserve_kb: u32) -> Self {
        let share = Arc::new(Semaphore::new(share_kb as usize));
        Self { share, turn: Arc::default(), reserve, reserve_kb }
    }

    /// Takes enough for an answer that has grown to `bytes` and will reach `most` at most. Returns whether there was
    /// enough in time.
    pub(super) async fn take(&self, taken: &mut TakenRoom, bytes: usize, most: usize, by: Instant) -> bool {
        let kb = |bytes: usize| u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let (needed, most) = (kb(bytes), kb(most.max(bytes)));
        if needed <= taken.kb {
            return true;
        }
        // Twice as much each time, so that it does not ask for every piece.
        for wanted in [needed.saturating_mul(2).min(most), needed] {
            if let Ok(permit) = Arc::clone(&self.share).try_acquire_many_owned(wanted - taken.kb) {
                taken.add(permit, wanted);
                return true;
            }
        }
        let more = tokio::select! {
            biased;
            permit = Arc::clone(&self.share).acquire_many_owned(needed - taken.kb) => More::Share(permit.ok()),
            turn = Arc::clone(&self.turn).lock_owned() => More::Turn(turn),
            () = tokio::time::sleep_until(by) => return false,
        };
        match more {
            More::Share(Some(permit)) => taken.add(permit, needed),
            // The semaphores are never closed.
            More::Share(None) => {}
            More::Turn(turn) => {
                let rest = (most - taken.kb).min(self.reserve_kb);
                let reserve = timeout_at(by, Arc::clone(&self.reserve).acquire_many_owned(rest)).await;
                let Ok(Ok(reserve)) = reserve else { return false };
                taken.reserve = Some((turn, reserve));
                taken.kb = most;
            }
        }
        true
    }
}

enum More {
    Share(Option<OwnedSemaphorePermit>),
    Turn(OwnedMutexGuard<()>),
}

impl TakenRoom {
    fn add(&mut self, permit: OwnedSemaphorePermit, kb: u32) {
        match &mut self.share {
            Some(share) => share.merge(permit),
            None => self.share = Some(permit),
        }
        self.kb = kb;
    }
}
