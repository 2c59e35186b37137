//! The frame of every page: its head, the way to the others, and why nothing is moving.

use super::rows::href;
use crate::http::problem::Problem;
use crate::http::site::Site;
use crate::view::status::StatusView;
use maud::{DOCTYPE, Markup, html};

/// The pages that every page leads to.
const PAGES: [(&str, &str); 11] = [
    ("/", "Overview"),
    ("/batches", "Batches"),
    ("/jobs", "Jobs"),
    ("/failures", "Failures"),
    ("/limits", "Limits"),
    ("/budgets", "Budgets"),
    ("/pauses", "Pauses"),
    ("/schedules", "Schedules"),
    ("/alerts", "Alerts"),
    ("/reports/cost", "Reports"),
    ("/doctor", "Doctor"),
];

/// A page.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    /// The page among [`PAGES`] that it belongs to.
    pub(super) here: &'a str,
    pub(super) body: Markup,
}

impl Frame<'_> {
    /// The page with the obstacles to jobs on top.
    pub(super) async fn on(self, site: &Site) -> Result<super::Paper, Problem> {
        let status = site.status().await?;
        let why = why(&status);
        let can_leave = site.access.has_token();
        Ok(super::Paper::of(self.framed(Some(why), can_leave)))
    }

    /// The page without what the database would have to tell.
    pub(super) fn alone(self) -> Markup {
        self.framed(None, false)
    }

    fn framed(self, why: Option<Markup>, can_leave: bool) -> Markup {
        let Self { title, here, body } = self;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · Sluice" }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href="/assets/style.css";
                    script src="/assets/live.js" defer {}
                }
                body {
                    a .skip href="#main" { "Skip to the page" }
                    header {
                        a .name href="/" { "Sluice" }
                        nav aria-label="Pages" {
                            ul {
                                @for (path, name) in PAGES {
                                    li { a href=(path) aria-current=[(path == here).then_some("page")] { (name) } }
                                }
                            }
                        }
                        @if can_leave {
                            form method="post" action="/sign-out" { button { "Sign out" } }
                        }
                    }
                    aside id="why" data-live aria-label="Why is nothing moving?" { (why.unwrap_or_default()) }
                    main id="main" { (body) }
                    footer { p id="stale" role="status" {} }
                }
            }
        }
    }
}

/// Why jobs do not go on, a line for each reason, with what a person may do.
fn why(status: &StatusView) -> Markup {
    let mut lines = Vec::new();
    for route in &status.routes {
        for (count, state, whys) in route.waits() {
            lines.extend(whys.iter().map(|why| (route.route.as_str(), count.in_short(), state, why)));
        }
    }
    let no_worker = !status.routes.is_empty() && !status.workers.iter().any(|worker| worker.is_alive);
    let long_calls: Vec<_> =
        status.routes.iter().filter_map(|route| Some((&route.route, route.long_calls.as_ref()?))).collect();
    if lines.is_empty() && long_calls.is_empty() && !no_worker && status.game_days.is_empty() {
        return html! {};
    }
    let is_bad = no_worker || lines.iter().any(|(.., why)| why.stuck);
    html! {
        ul .bad-edge[is_bad] {
            @for day in &status.game_days { li { (day.in_words()) } }
            @if no_worker { li { "No worker is running: start one with " code { "sluice worker" } } }
            @for (route, calls) in long_calls { li { (route) ": " (calls.words) } }
            @for (route, count, state, why) in lines {
                li {
                    a href=(href("/jobs", &[("route", route), ("state", "queued")])) { (route) }
                    ": " (count) " " (state) ": " (why.words)
                    @if let Some(advice) = &why.advice { " – do: " code { (advice) } }
                }
            }
        }
    }
}
