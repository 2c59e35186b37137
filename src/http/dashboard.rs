//! The dashboard: pages made on the server, which need no script and load nothing from elsewhere. A small script of
//! ours keeps them fresh.

mod batches;
mod changes;
mod chart;
mod doctor;
mod failures;
mod jobs;
mod layout;
mod limits;
mod money;
mod overview;
mod rows;
mod schedules;
mod sign_in;

use super::problem::Problem;
use super::site::Site;
use crate::printable::on_lines;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use layout::Frame;
use maud::{Markup, html};
use std::sync::Arc;

/// Headers of every page: nothing from elsewhere is loaded or run, and no other site shows a page of ours in a frame.
const OF_PAGES: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    // Not `no-referrer`, with which browsers do not say where a form comes from.
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
];

/// A page, or why there is none.
type Page = Result<Paper, Problem>;
type Here = State<Arc<Site>>;
type QueryPairs = axum::extract::Query<Vec<(String, String)>>;

/// A page with the headers of pages.
struct Paper(Response);

impl Paper {
    fn of(markup: Markup) -> Self {
        Self::from_text("text/html; charset=utf-8", legible(&markup.into_string()))
    }

    fn from_text(kind: &'static str, text: String) -> Self {
        Self(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response())
    }
}

impl axum::response::IntoResponse for Paper {
    fn into_response(self) -> Response {
        let mut response = self.0;
        response.headers_mut().extend(OF_PAGES);
        response
    }
}

/// The pages.
pub(super) fn router() -> Router<Arc<Site>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/batches", get(batches::list))
        .route("/batches/{name}", get(batches::one))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{job}", get(jobs::one))
        .route("/failures", get(failures::page))
        .route("/limits", get(limits::page))
        .route("/pauses", get(limits::pauses))
        .route("/budgets", get(money::budgets))
        .route("/schedules", get(schedules::page))
        .route("/game-days/{name}", get(schedules::game_day))
        .route("/alerts", get(schedules::alerts))
        .route("/doctor", get(doctor::page))
        .route("/reports/{kind}", get(money::report))
        .route("/confirm", get(changes::confirm))
        .route("/do", post(changes::carry_out))
        .route("/changes", get(changes::list))
        .route("/changes/{task}", get(changes::one))
}

/// The paths that everybody who reaches the port may read: the page that asks for the token, and how pages look.
pub(super) fn open() -> Router<Arc<Site>> {
    Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::take))
        .route("/sign-out", post(sign_in::end))
        .route("/assets/style.css", get(async || asset("text/css; charset=utf-8", include_str!("dashboard/style.css"))))
        .route(
            "/assets/live.js",
            get(async || asset("text/javascript; charset=utf-8", include_str!("dashboard/live.js"))),
        )
}

fn asset(kind: &'static str, text: &'static str) -> Paper {
    Paper::from_text(kind, text.to_owned())
}

/// A page on which nothing is hidden in what is read: a name must not turn the words around it, nor look like another
/// name. What stands in tags stays as it is, since forms send it back.
fn legible(page: &str) -> String {
    let mut legible = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((words, tag)) = rest.split_once('<') {
        legible.push_str(&on_lines(words));
        let (tag, after) = tag.split_once('>').unwrap_or((tag, ""));
        legible.push('<');
        legible.push_str(tag);
        legible.push('>');
        rest = after;
    }
    legible.push_str(&on_lines(rest));
    legible
}

/// Why there is no page, as a page. `is_read`: the request changes nothing, so it can be made again.
pub(super) fn sorry(problem: &Problem, is_read: bool) -> Response {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    let passes = problem.status == StatusCode::SERVICE_UNAVAILABLE;
    let body = html! {
        h1 { (title) }
        p { (problem.detail) }
        @if passes && !is_read {
            p { "Whether the change was made is not known: look before you ask for it again." }
        } @else if passes {
            p data-again { "This page is read again every five seconds, and shows what it should as soon as it can." }
        }
        p { a href="/" { "Overview" } }
    };
    let paper = Paper::of(Frame { title, here: "", body }.alone());
    let mut response = (problem.status, paper).into_response();
    if passes {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_hidden_in_words_and_nothing_is_changed_in_tags() {
        let name = "a\u{202e}b\u{200b}>\n";
        let page = legible(&html! { p title=(name) { (name) br; "c" } }.into_string());
        assert_eq!(page, "<p title=\"a\u{202e}b\u{200b}&gt;\n\">a\\u{202e}b\\u{200b}&gt;\n<br>c</p>");
        assert_eq!(legible("plain"), "plain");
    }
}
