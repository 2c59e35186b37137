//! The state that all connections of a simulator share.

use super::chance::mix;
use super::ledger::Ledger;
use super::scenario::{Provider, Scenario};
use parking_lot::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Core {
    pub scenario: Scenario,
    /// The providers in the order of the scenario: the ledger knows them by index.
    pub providers: Vec<(String, Provider)>,
    /// Makes the request ids of this run differ from those of other runs.
    pub run: u32,
    book: Mutex<Book>,
}

/// The ledger and the instant from which it counts time.
#[derive(Debug)]
pub(crate) struct Book {
    started: Instant,
    pub ledger: Ledger,
}

impl Book {
    /// Time since the start or the last reset.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Core {
    pub fn new(scenario: Scenario) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "any 32 bits that differ between runs")]
        let run = mix(since.as_nanos() as u64, u64::from(std::process::id())) as u32;
        let providers = scenario.providers.iter().map(|(name, spec)| (name.clone(), spec.clone())).collect();
        let book = Mutex::new(Book { started: Instant::now(), ledger: Ledger::new(&scenario, 0) });
        Self { scenario, providers, run, book }
    }

    /// The ledger. Held for no longer than it takes to book: never across an await.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Empties the ledger, fills the buckets and starts the clock again.
    pub fn reset(&self) {
        let mut book = self.book();
        let generation = book.ledger.next_generation();
        *book = Book { started: Instant::now(), ledger: Ledger::new(&self.scenario, generation) };
    }
}
