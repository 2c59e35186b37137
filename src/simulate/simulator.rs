//! A running simulator.

use super::core::Core;
use super::ledger::{CallRecord, RequestRecord};
use super::scenario::Scenario;
use super::server;
use super::verdict::Verdict;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// A running simulator. It has threads and a runtime of its own, so that neither paused time nor a blocked task of the
/// caller's runtime disturbs it. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    core: Arc<Core>,
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Checks the scenario, binds the address (port 0: any free one) and serves.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a scenario that makes no sense; otherwise the error of binding.
    pub fn start(scenario: Scenario, listen: SocketAddr) -> io::Result<Self> {
        scenario.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let runtime = runtime(scenario.worker_threads)?;
        let bound = {
            let _inside = runtime.enter();
            server::bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)))
        };
        let (address, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                // A plain drop would panic inside the caller's runtime.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let core = Arc::new(Core::new(scenario));
        let stop = CancellationToken::new();
        let serving = server::serve(Arc::clone(&core), listener, stop.clone());
        let thread = std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
            runtime.block_on(serving);
            runtime.shutdown_background();
        })?;
        Ok(Self { core, address, stop, thread: Some(thread) })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The `base_url` to configure for a provider of the scenario, as Sluice's adapters extend it.
    #[must_use]
    pub fn base_url(&self, provider: &str) -> Option<String> {
        let spec = self.core.scenario.providers.get(provider)?;
        Some(format!("http://{}/{provider}{}", self.address, spec.dialect.base_path()))
    }

    /// The scenario that is played.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.core.scenario
    }

    /// The verdict so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let book = self.core.book();
        book.ledger.verdict(&self.core.scenario, book.now())
    }

    /// The latest calls that have ended, the newest first; at most as many as the scenario records.
    #[must_use]
    pub fn calls(&self, limit: usize) -> Vec<CallRecord> {
        self.core.book().ledger.calls(&self.core.scenario, self.core.run, limit)
    }

    /// The distinct requests that were called most.
    #[must_use]
    pub fn requests(&self, limit: usize) -> Vec<RequestRecord> {
        self.core.book().ledger.requests(limit)
    }

    /// Empties the ledger, fills the buckets and starts the clock again. Calls under way no longer count.
    pub fn reset(&self) {
        self.core.reset();
    }

    /// Stops serving: open connections break, and the port is free when this returns.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // The thread only ends early by a panic, which has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn runtime(worker_threads: usize) -> io::Result<Runtime> {
    // One thread needs no synchronization between threads: it serves about twice as much per core.
    let mut builder = if worker_threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(worker_threads).thread_name("simulator").enable_all().build()
}
