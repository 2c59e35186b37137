//! The thread for a provider's connections. A server may send 1xx heads without end; the HTTP client reads them as long
//! as more are there, up to some fifty megabytes at a stretch, and everything else on its thread waits. So no provider
//! shares a thread with another one, or with the worker's loops.

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Connections that are always ready keep new ones waiting for at most this many turns.
const TURNS: u32 = 8;

/// A thread with a runtime of its own. It ends when this is dropped.
pub(super) struct Outbound {
    handle: Handle,
    _until_dropped: oneshot::Sender<()>,
}

impl Outbound {
    /// Starts the thread of this provider.
    pub(super) fn start(provider: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().event_interval(TURNS).build()?;
        let handle = runtime.handle().clone();
        let (until_dropped, dropped) = oneshot::channel::<()>();
        // Under no watch: it waits for one word and then drops the runtime. A task that panics does not end it.
        // The runtime is dropped on its own thread: a thread that runs tasks must not do that.
        thread::Builder::new().name(format!("to {provider}")).spawn(move || {
            let _ = runtime.block_on(dropped);
            let handle = runtime.handle().clone();
            // Connections that end now may start tasks.
            let _inside = handle.enter();
            // Does not wait for a name that is still being looked up.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _until_dropped: until_dropped })
    }

    /// Makes a future on the thread and drives it from the task that calls this. Tasks that it starts, its sockets and
    /// its timers belong to the thread.
    pub(super) async fn drive<F: Future>(&self, make: impl FnOnce() -> F) -> F::Output {
        let mut future = pin!({
            let _inside = self.handle.enter();
            make()
        });
        std::future::poll_fn(|context| -> Poll<F::Output> {
            let _inside = self.handle.enter();
            future.as_mut().poll(context)
        })
        .await
    }
}
