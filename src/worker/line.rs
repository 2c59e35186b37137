//! The jobs of one route that are in hand and wait for a place at one of its rungs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The jobs that wait.
#[derive(Debug, Default)]
pub(super) struct LineCount(Arc<AtomicUsize>);

/// A job's place in a line, until it is dropped.
#[derive(Debug)]
pub(super) struct InLine(Arc<AtomicUsize>);

impl LineCount {
    /// How many jobs wait.
    pub(super) fn jobs(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds a job.
    pub(super) fn join(&self) -> InLine {
        self.0.fetch_add(1, Ordering::Relaxed);
        InLine(Arc::clone(&self.0))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
