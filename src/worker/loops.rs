//! The loops that a worker consists of, under watch. A loop that ended unexpectedly would leave a worker that looks
//! alive and does half of its work. So the end of a loop stops the worker in order, and the service manager starts
//! another.

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The pause before a loop that ended unexpectedly begins anew.
const BREATH: Duration = Duration::from_millis(500);

/// The loops of one worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Loops(Arc<Watch>);

#[derive(Debug, Default)]
struct Watch {
    /// The first loop that ended unexpectedly.
    fallen: OnceLock<&'static str>,
    fell: CancellationToken,
    traps: Mutex<HashMap<&'static str, Arc<Notify>>>,
}

impl Loops {
    /// Starts a loop that only ends when its task is aborted.
    pub fn endless(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let loops = self.clone();
        tokio::spawn(async move {
            let words = loops.guard(name, run).await.err();
            loops.report(name, words.as_deref().unwrap_or("it returned"));
        })
    }

    /// Starts a loop that begins anew whenever it ends unexpectedly, until its task is aborted: the worker needs it
    /// while it stops.
    pub fn lasting<F>(&self, name: &'static str, mut run: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let loops = self.clone();
        tokio::spawn(async move {
            loop {
                let words = loops.guard(name, run()).await.err();
                loops.report(name, words.as_deref().unwrap_or("it returned"));
                tokio::time::sleep(BREATH).await;
            }
        })
    }

    /// Starts a loop that also ends by itself when its work is done.
    pub fn finite(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let loops = self.clone();
        tokio::spawn(async move {
            if let Err(words) = loops.guard(name, run).await {
                loops.report(name, &words);
            }
        })
    }

    /// Runs a future to its end.
    ///
    /// # Errors
    /// The message of its panic.
    pub async fn guard<T>(&self, name: &'static str, run: impl Future<Output = T>) -> Result<T, String> {
        let trap = self.trap(name);
        let guarded = async {
            tokio::select! {
                biased;
                () = trap.notified() => std::panic::resume_unwind(Box::new("tripped")),
                done = run => done,
            }
        };
        AssertUnwindSafe(guarded).catch_unwind().await.map_err(|panic| words(panic.as_ref()))
    }

    /// Records that a loop has ended unexpectedly.
    pub fn report(&self, name: &'static str, words: &str) {
        tracing::error!(
            part = name,
            "a worker loop ended unexpectedly ({words}); the worker is shutting down cleanly. Please report this"
        );
        let _ = self.0.fallen.set(name);
        self.0.fell.cancel();
    }

    /// Waits until a loop has ended unexpectedly.
    pub async fn fell(&self) {
        self.0.fell.cancelled().await;
    }

    /// The first loop that has ended unexpectedly.
    #[must_use]
    pub fn fallen(&self) -> Option<&'static str> {
        self.0.fallen.get().copied()
    }

    /// Makes a loop end at its next wait, as a panic would: for tests.
    pub fn trip(&self, name: &'static str) {
        self.trap(name).notify_one();
    }

    fn trap(&self, name: &'static str) -> Arc<Notify> {
        Arc::clone(self.0.traps.lock().entry(name).or_default())
    }
}

/// The message of a panic.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endless_loop_that_returns_or_panics_has_fallen_and_one_that_is_aborted_has_not() {
        let loops = Loops::default();
        let aborted = loops.endless("aborted", std::future::pending());
        aborted.abort();
        let _ = aborted.await;
        loops.finite("finished", async {}).await.unwrap();
        assert_eq!(loops.fallen(), None);
        loops.endless("returned", async {}).await.unwrap();
        loops.fell().await;
        assert_eq!(loops.fallen(), Some("returned"));

        let loops = Loops::default();
        loops.finite("panicked", async { std::panic::resume_unwind(Box::new("oh".to_owned())) }).await.unwrap();
        assert_eq!(loops.fallen(), Some("panicked"));
        assert_eq!(
            loops.guard("other", async { std::panic::resume_unwind(Box::new("oh")) }).await,
            Err::<(), _>("it panicked: oh".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_loop_begins_anew_each_time_and_the_worker_is_told() {
        let loops = Loops::default();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let lasting = loops.lasting("a", move || {
            let begun = begun.clone();
            async move {
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
            }
        });
        for _ in 0..3 {
            begins.recv().await.unwrap();
            loops.trip("a");
        }
        begins.recv().await.unwrap();
        assert_eq!(loops.fallen(), Some("a"));
        lasting.abort();
        assert!(lasting.await.unwrap_err().is_cancelled());
        assert_eq!(begins.recv().await, None, "nothing of it is left");
    }

    #[tokio::test]
    async fn a_trap_ends_a_loop_once() {
        let loops = Loops::default();
        loops.trip("a");
        assert!(loops.guard("a", std::future::pending::<()>()).await.is_err());
        assert_eq!(loops.guard("a", async { 1 }).await, Ok(1));
    }
}
