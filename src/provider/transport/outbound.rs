//! The thread for a provider's connections. A server may send 1xx heads without end; the HTTP client reads them as long
//! as more are there, up to some fifty megabytes at a stretch, and everything else on its thread waits. So no provider
//! shares a thread with another one, or with the worker's loops.

use super::stage::gone;
use crate::domain::Failure;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

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

    /// Has the thread make a call. Tasks that it starts, its sockets and its timers belong to the thread, too.
    pub(super) fn hand_over<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> OutboundCall<T> {
        OutboundCall(self.handle.spawn(call))
    }
}

/// A call that the thread makes. It ends when this is dropped; a panic in it comes out here.
pub(super) struct OutboundCall<T>(JoinHandle<Result<T, Failure>>);

impl<T> Future for OutboundCall<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|made| match made.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(made) => made,
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(_)) => Err(gone()),
        })
    }
}

impl<T> Drop for OutboundCall<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
