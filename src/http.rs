//! The worker's own HTTP server: is it alive, is it ready, what is it doing. On loopback unless configured otherwise.

use crate::worker::Observer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Binds the address.
///
/// # Errors
/// Says which address, and what to do when the port is taken.
pub async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::AddrInUse {
            ": another process has this port; set http.listen to a free one"
        } else {
            ""
        };
        anyhow::anyhow!("cannot listen on {listen} (http.listen): {error}{hint}")
    })
}

/// Serves until the listener fails or the task is dropped.
pub async fn serve(listener: TcpListener, observer: Observer) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .with_state(observer);
    axum::serve(listener, router).await
}

async fn ready(State(observer): State<Observer>) -> (StatusCode, &'static str) {
    if observer.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping, or no heartbeat reaches the database\n")
    }
}

async fn status(State(observer): State<Observer>) -> Json<Value> {
    Json(observer.stats())
}
