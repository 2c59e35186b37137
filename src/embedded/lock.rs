//! Locks on files, by which processes agree about the private Postgres.

use rustix::fs::FlockOperation;
use std::fs::File;

/// A file with a lock, or one that is to get it. Dropping it gives the lock up.
///
/// The lock is given up by name rather than by closing the file: a process that this one starts has a copy of the open
/// file until it runs its own program, and would hold the lock for that long.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Does not take the lock yet.
    pub const fn not_taken(file: File) -> Self {
        Self(file)
    }

    /// Takes the lock together with others; waits while a process has it alone.
    pub fn shared(file: File) -> rustix::io::Result<Self> {
        rustix::fs::flock(&file, FlockOperation::LockShared)?;
        Ok(Self(file))
    }

    /// Takes the lock alone, if no other process has it. A shared lock becomes one that is held alone, and may be lost
    /// in the attempt.
    pub fn try_alone(&self) -> rustix::io::Result<()> {
        rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file follows; the lock goes with the last copy of it.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}
