//! The worker's own HTTP server: is it alive, is it ready, what is it doing. On loopback unless configured otherwise.

mod families;
mod metrics;

use crate::worker::Observer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics::Gauged;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
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
    tracing::info!(http.listen = %listener.local_addr()?, "serving health, status and metrics");
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .route("/metrics", get(exposition))
        .with_state(Arc::new(Gauged::new(observer)));
    axum::serve(listener, router).await
}

async fn ready(State(gauged): State<Arc<Gauged>>) -> (StatusCode, String) {
    match gauged.observer().unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn status(State(gauged): State<Arc<Gauged>>) -> Json<Value> {
    Json(gauged.observer().stats())
}

async fn exposition(State(gauged): State<Arc<Gauged>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], gauged.exposition().await)
}
