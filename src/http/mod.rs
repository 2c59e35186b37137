//! The worker's own HTTP server: liveness, readiness, metrics, status, the dashboard and the API. On loopback unless
//! configured otherwise.

mod access;
mod api;
mod dashboard;
mod families;
mod guard;
mod metrics;
mod notices;
mod params;
mod problem;
mod server;
mod site;
mod tasks;
mod text_format;
mod wish;

pub use api::document as openapi;
pub use site::{Pages, Reach};

use crate::view;
use crate::worker::Observer;
use access::{Access, Denied};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::Gauged;
use problem::Problem;
use serde_json::Value;
use site::Site;
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
/// `pages`: what the dashboard and the API stand on.
///
/// # Errors
/// When the listener cannot tell its address.
pub async fn serve(listener: TcpListener, observer: Observer, hosts: &[String], pages: Pages) -> std::io::Result<()> {
    let listen = listener.local_addr()?;
    tracing::info!(http.listen = %listen, "serving the dashboard, the API, health and metrics");
    let Pages { reach, token, read_only, bodies } = pages;
    let access = Access::new(token, listen.ip().to_canonical().is_loopback(), read_only);
    let site = Arc::new(Site::new(Gauged::new(observer), access, reach, bodies));
    let api = api::router().layer(from_fn_with_state(Arc::clone(&site), admit_program));
    let dashboard = dashboard::router().layer(from_fn_with_state(Arc::clone(&site), admit_person));
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/status", get(status))
        .route("/metrics", get(exposition))
        .merge(dashboard::open())
        .merge(dashboard)
        .nest("/api/v1", api)
        .fallback(nothing)
        .with_state(site);
    server::serve(listener, router, guard::Hosts::of(listen, hosts)).await;
    Ok(())
}

/// A path that leads nowhere: a person gets a page.
async fn nothing(headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("text/html") {
        return dashboard::sorry(&Problem::not_found("there is no such page: those that there are stand above"), true);
    }
    (StatusCode::NOT_FOUND, "there is nothing here: / has the dashboard\n").into_response()
}

/// Whether a request may go on.
fn admitted(site: &Site, request: &Request) -> Result<(), Denied> {
    let headers = request.headers();
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        site.access.may_read(headers)
    } else {
        site.access.may_change(headers)
    }
}

/// Lets requests of the API through that may go on.
async fn admit_program(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    match admitted(&site, &request) {
        Ok(()) => next.run(request).await,
        Err(denied) => Problem::from(denied).into_response(),
    }
}

/// The same for pages: a person without a session is asked for the token, and is told in words what went wrong.
async fn admit_person(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let is_read = request.method() != Method::POST;
    let response = match admitted(&site, &request) {
        Ok(()) => next.run(request).await,
        Err(Denied::Unknown) if request.method() == Method::GET => return Redirect::to("/sign-in").into_response(),
        Err(denied) => Problem::from(denied).into_response(),
    };
    match response.extensions().get::<Problem>() {
        Some(problem) => dashboard::sorry(problem, is_read),
        None => response,
    }
}

async fn ready(State(site): State<Arc<Site>>) -> (StatusCode, String) {
    match site.gauged.observer().unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn status(State(site): State<Arc<Site>>) -> Json<Value> {
    let statistics = view::document(&site.gauged.observer().statistics());
    Json(statistics.expect("every member of the statistics is JSON"))
}

/// The metrics: in OpenMetrics to a scraper that asks for it, as Prometheus does, else in the older text format.
async fn exposition(State(site): State<Arc<Site>>, headers: HeaderMap) -> impl IntoResponse {
    let page = site.gauged.exposition().await;
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.to_ascii_lowercase().contains("application/openmetrics-text")) {
        ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page)
    } else {
        ([(header::CONTENT_TYPE, text_format::CONTENT_TYPE)], text_format::of(&page))
    }
}
