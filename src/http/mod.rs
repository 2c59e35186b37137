//! The worker's own HTTP server: liveness, readiness, metrics and status. On loopback unless configured otherwise.

mod families;
mod guard;
mod metrics;
mod server;

use crate::view;
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
/// The error says which address, and what to do when the port is taken.
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

/// Serves until the task is dropped. `hosts`: names under which it may be asked, beside those of this machine.
///
/// # Errors
/// When the listener cannot tell its address.
pub async fn serve(listener: TcpListener, observer: Observer, hosts: &[String]) -> std::io::Result<()> {
    let listen = listener.local_addr()?;
    tracing::info!(http.listen = %listen, "serving health, status and metrics");
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .route("/metrics", get(exposition))
        .with_state(Arc::new(Gauged::new(observer)));
    server::serve(listener, router, guard::Hosts::of(listen, hosts)).await;
    Ok(())
}

async fn ready(State(gauged): State<Arc<Gauged>>) -> (StatusCode, String) {
    match gauged.observer().unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn status(State(gauged): State<Arc<Gauged>>) -> Json<Value> {
    let statistics = view::document(&gauged.observer().statistics());
    Json(statistics.expect("every member of the statistics is JSON"))
}

async fn exposition(State(gauged): State<Arc<Gauged>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], gauged.exposition().await)
}
