//! A call under way, which is booked however it ends.

use super::core::Core;
use super::ledger::{Charge, Ending, Entry};
use super::scenario::Provider;
use std::sync::Arc;

/// A call under way. If it is dropped without an end, it was abandoned: the client went away.
pub(crate) struct Ticket {
    core: Arc<Core>,
    pub entry: Entry,
    open: bool,
}

impl Ticket {
    /// A ticket for a call that has been booked.
    pub fn new(core: Arc<Core>, entry: Entry) -> Self {
        Self { core, entry, open: true }
    }

    /// The provider that is called.
    pub fn spec(&self) -> &Provider {
        &self.core.providers[self.entry.provider].1
    }

    /// The id of the call, as the answer states it.
    pub fn request_id(&self) -> String {
        self.spec().dialect.api().request_id(self.core.run, self.entry.seq)
    }

    /// Books the end.
    pub fn end(mut self, ending: Ending) {
        self.book(ending);
    }

    fn book(&mut self, ending: Ending) {
        self.open = false;
        let mut book = self.core.book();
        let now = book.now();
        book.ledger.end(&self.core.scenario, &self.core.providers[self.entry.provider].1, &self.entry, ending, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let charge = if self.entry.admitted { Charge::Lost } else { Charge::Free };
            self.book(Ending { status: 0, told: None, charge, abandoned: true, reported: None });
        }
    }
}
