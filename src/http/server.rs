//! Connections to the worker's own port. However many clients connect, and no matter what they send or leave out, the
//! worker keeps its file descriptors and its memory, and a probe gets its answer.

use super::guard::{Hosts, guard};
use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// The most connections at a time. Probes and scrapes need a handful.
const MOST: usize = 64;
/// How long the head of a request may take to arrive.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last, until its answer was taken. The slowest page is one that waits for a database which
/// does not answer.
const WHOLE: Duration = Duration::from_secs(15);
/// Bytes that a head may have.
const HEAD_BYTES: usize = 16 << 10;
const HEAD_LINES: usize = 64;

/// Serves until the task is dropped, one request per connection. When every place is taken, the oldest connection is
/// closed: a client that asks has its answer within milliseconds, so the oldest one only holds a place.
pub(super) async fn serve(listener: TcpListener, router: Router, hosts: Hosts) {
    let router = router.layer(from_fn_with_state(Arc::new(hosts), guard));
    let places = Arc::new(Semaphore::new(MOST));
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        if places.available_permits() == 0
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client left before it was accepted, or no descriptor is left: neither ends the server.
            Err(error) => {
                tracing::debug!(error = %error, "a connection to the worker's own port was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        let connection = connection(stream, router.clone());
        let task = tokio::spawn(async move {
            // However this ends, the client has its answer or is gone.
            let _ = tokio::time::timeout(WHOLE, connection).await;
            drop(place);
        });
        open.push_back(task.abort_handle());
    }
}

async fn connection(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .keep_alive(false)
        // A client that has sent everything may still read.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}
