//! Buttons, the page that tells how many jobs a change concerns before it is made, and the changes under way.

use super::layout::Frame;
use super::rows::{href, table};
use super::{Here, Page, QueryPairs};
use crate::domain::pause::PauseKind;
use crate::http::params::{Params, pairs};
use crate::http::problem::Problem;
use crate::http::site::Site;
use crate::http::tasks::Task;
use crate::http::wish;
use crate::store::selection::{Deed, Selection};
use crate::view::table::{Cell, Layout, Table};
use axum::extract::{Form, Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

/// A change that a page offers.
pub(super) struct Button<'a> {
    action: &'a str,
    name: &'a str,
    of: Vec<(&'a str, &'a str)>,
    /// Whether a page tells first how many jobs it concerns.
    asks: bool,
}

impl<'a> Button<'a> {
    /// One that changes one thing, and can be taken back.
    pub(super) fn at_once(action: &'a str, name: &'a str, of: &[(&'a str, &'a str)]) -> Self {
        Self { action, name, of: of.to_vec(), asks: false }
    }

    /// One that changes many jobs.
    pub(super) fn after_a_look(action: &'a str, name: &'a str, of: &[(&'a str, &'a str)]) -> Self {
        Self { action, name, of: of.to_vec(), asks: true }
    }
}

/// The buttons, where anything may be changed.
pub(super) fn buttons(site: &Site, offered: &[Button<'_>]) -> Markup {
    if site.access.is_read_only() {
        return html! {};
    }
    html! {
        @for button in offered {
            form .inline method=(if button.asks { "get" } else { "post" })
                action=(if button.asks { "/confirm" } else { "/do" }) {
                input type="hidden" name="action" value=(button.action);
                @for (name, value) in &button.of { input type="hidden" name=(name) value=(value); }
                @if !button.asks { input type="hidden" name="back" value=(way_back(&button.of)); }
                button { (button.name) }
            }
        }
    }
}

/// The page of the thing that is changed.
fn way_back(of: &[(&str, &str)]) -> String {
    let value = |wanted: &str| of.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    match (value("job"), value("kind"), value("name")) {
        (Some(job), ..) => format!("/jobs/{job}"),
        (None, Some("schedule"), _) => "/schedules".to_owned(),
        (None, Some("batch"), Some(name)) => super::rows::batch_page(name),
        _ => "/pauses".to_owned(),
    }
}

pub(super) async fn confirm(State(site): Here, Query(asked): QueryPairs) -> Page {
    let mut params = Params::of_pairs(asked)?;
    let action = params.text("action").unwrap_or_default();
    let deed = wish::deed(&site, &action, &mut params)?;
    let selection = params.selection()?;
    params.finish()?;
    let of_deed = match &deed {
        Deed::Move { to } => Some(("to", to.clone())),
        Deed::Priority(priority) => Some(("priority", priority.to_string())),
        _ => None,
    };
    let proposal = wish::propose(&site, &selection, &deed).await?;
    let count = format!("{}{}", Cell::Count(proposal.jobs).in_words(), if proposal.or_more { " or more" } else { "" });
    let is_all = selection == Selection::default();
    let fields = pairs(&selection);
    let query: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let is_nothing = proposal.jobs == 0 && !proposal.or_more;
    let done = match &deed {
        Deed::Move { to } => format!("Send {count} jobs along route {to}"),
        Deed::Priority(priority) => format!("Give {count} jobs priority {priority}"),
        deed => format!("{} {count} jobs", capital(deed.as_str())),
    };
    let title = format!("{done}?");
    let body = html! {
        h1 { (title) }
        p { "Jobs " (proposal.of) "." }
        @if is_nothing {
            p .warning { "No such job can be changed by " (action) ": there is nothing to do." }
        } @else {
            @if is_all { p .bad { "Nothing says which jobs: this concerns every job of every login." } }
            @if proposal.or_more {
                p .warning { "There are so many that counting them ended early." }
            }
            p .soft { "It is done a thousand jobs at a time, and can be followed. " (meaning(&action)) }
            form .line method="post" action="/do" {
                input type="hidden" name="action" value=(action);
                @if let Some((name, value)) = &of_deed { input type="hidden" name=(name) value=(value); }
                @for (name, value) in &fields { input type="hidden" name=(name) value=(value); }
                @if is_all { input type="hidden" name="all" value="true"; }
                @if action == "pause" {
                    div { label for="reason" { "why" } input id="reason" name="reason"; }
                }
                button .danger[action == "cancel"] .main[action != "cancel"] { (done) }
            }
        }
        p { a href=(href("/jobs", &query)) { "Back to these jobs" } }
    };
    Frame { title: &title, here: "/jobs", body }.on(&site).await
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn meaning(action: &str) -> &'static str {
    match action {
        "cancel" => "Calls under way are dropped; what they cost stays on the books.",
        "retry" => "Each goes back into the queue with a fresh count of attempts, and may cost as much again.",
        "pause" => "Jobs that a worker has go on.",
        "move" => "They begin anew there; what they have cost so far stays with their route.",
        "priority" => "A higher one goes first, within the same route, project, batch and login.",
        _ => "They are started again as soon as their turn comes.",
    }
}

pub(super) async fn carry_out(
    State(site): Here,
    Form(asked): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let mut params = Params::of_pairs(asked)?;
    let action = params.text("action").unwrap_or_default();
    let back = params.text("back").filter(|path| is_ours(path)).unwrap_or_else(|| "/".to_owned());
    if let Some(kind) = params.text("kind") {
        let reason = params.text("reason");
        let name = params.text("name").ok_or_else(|| params.missing("name is missing"))?;
        if kind == "budget" {
            let limit = params.text("limit").ok_or_else(|| params.missing("limit is missing"))?;
            params.finish()?;
            wish::change_budget(&site, &name, &limit).await?;
        } else if kind == "schedule" {
            params.finish()?;
            wish::change_schedule(&site, &name, &action, reason.as_deref()).await?;
        } else {
            params.finish()?;
            let kind = PauseKind::named(&kind)
                .ok_or_else(|| Problem::bad(format!("{kind:?} cannot be paused: route, project, batch or provider")))?;
            let is_pause = match action.as_str() {
                "pause" => true,
                "resume" => false,
                _ => return Err(Problem::bad(format!("{action:?} is neither pause nor resume"))),
            };
            wish::change_pause(&site, kind, &name, reason.as_deref(), is_pause).await?;
        }
        return Ok(Redirect::to(&back).into_response());
    }
    let deed = wish::deed(&site, &action, &mut params)?;
    if let Some(job) = params.parsed::<i64>("job", "a job's number")? {
        params.finish()?;
        wish::change_job(&site, job, &deed).await?;
        return Ok(Redirect::to(&back).into_response());
    }
    let selection = params.selection()?;
    let is_all = params.flag("all")?;
    params.finish()?;
    let task = wish::change_jobs(&site, selection, deed, is_all).await?;
    Ok(Redirect::to(&format!("/changes/{}", task.task)).into_response())
}

/// Whether a path leads to a page of ours.
fn is_ours(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\\') && !path.contains(char::is_control)
}

pub(super) async fn list(State(site): Here) -> Page {
    let body = html! {
        h1 { "Changes" }
        p .soft { "Those of many jobs that this worker was asked for since it started." }
        section id="changes" data-live { (table("Changes", &tasks_table(&site.tasks.all()), "none", None)) }
    };
    Frame { title: "Changes", here: "", body }.on(&site).await
}

pub(super) async fn one(State(site): Here, Path(task): Path<String>) -> Page {
    let Some(task) = task.parse().ok().and_then(|number| site.tasks.get(number)) else {
        return Err(Problem::not_found("this worker knows of no such change: it may have started anew since"));
    };
    let title = format!("Change {}", task.task);
    let body = html! {
        h1 { (title) }
        section id="change" data-live {
            (table("Change", &tasks_table(std::slice::from_ref(&task)), "none", None))
            @if let Some(error) = &task.error { p .bad { (error) } }
            @if task.state == "running" { p .soft { "It goes on; this page follows it." } }
        }
        p { a href="/jobs" { "Jobs" } " " a href="/changes" { "All changes" } }
    };
    Frame { title: &title, here: "", body }.on(&site).await
}

fn tasks_table(tasks: &[Task]) -> Table {
    let mut table = Table::new(["change", "action", "of", "state", "jobs", "seconds", "error"]).laid_out(Layout {
        when_told: &["error"],
        prose: &["of", "error"],
        ..Layout::default()
    });
    for task in tasks {
        table.row([
            Cell::Id(i64::try_from(task.task).unwrap_or(i64::MAX)),
            task.action.into(),
            task.of.as_str().into(),
            task.state.into(),
            task.jobs.into(),
            task.seconds.into(),
            task.error.as_deref().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_leads_nowhere_else() {
        for path in ["/", "/jobs/7", "/batches/a%2Fb?state=failed"] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["//evil.example", "https://evil.example", "/\\evil.example", "", "jobs", "/a\nset-cookie: x"] {
            assert!(!is_ours(path), "{path}");
        }
        assert_eq!(way_back(&[("kind", "batch"), ("name", "a/b")]), "/batches/a%2Fb");
    }
}
