//! Jobs, looked for by what they are and how they stand; and one of them, with its story.

use super::changes::{Button, buttons};
use super::layout::Frame;
use super::rows::{href, table, tone_class};
use super::{Here, Page, QueryPairs};
use crate::domain::ErrorClass;
use crate::domain::job::JobState;
use crate::http::api::story;
use crate::http::params::{Params, pairs};
use crate::http::problem::Problem;
use crate::http::site::Site;
use crate::store::selection::Selection;
use crate::view::job::{Bodies, JobView, jobs_table};
use crate::view::tone::Tone;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use std::time::Duration;

const A_PAGE: usize = 50;
/// How long jobs are looked for: few among many are found a page at a time.
const FOR_JOBS: Duration = Duration::from_millis(400);

/// Which jobs a page lists, and from where on.
pub(super) struct Sought {
    pub(super) selection: Selection,
    below: Option<i64>,
}

impl Sought {
    pub(super) fn read(params: &mut Params) -> Result<Self, Problem> {
        Ok(Self { selection: params.selection()?, below: params.parsed("below", "a job's number")? })
    }

    /// The same among the jobs of one batch.
    pub(super) fn of_batch(self, name: &str) -> Self {
        Self { selection: Selection { batch: Some(name.to_owned()), ..self.selection }, ..self }
    }
}

pub(super) async fn list(State(site): Here, Query(pairs): QueryPairs) -> Result<Response, Problem> {
    let mut params = Params::of_pairs(pairs)?;
    if let Some(job) = params.parsed::<i64>("job", "a job's number")? {
        return Ok(Redirect::to(&format!("/jobs/{job}")).into_response());
    }
    let sought = Sought::read(&mut params)?;
    params.finish()?;
    let body = html! {
        h1 { "Jobs" }
        form .line action="/jobs" {
            div { label for="job" { "Job number" } input id="job" name="job" inputmode="numeric" required; }
            button { "Open" }
        }
        (found(&site, &sought, "/jobs").await?)
    };
    Ok(Frame { title: "Jobs", here: "/jobs", body }.on(&site).await?.into_response())
}

/// The jobs of a selection, the form by which it is changed, and the buttons that change all of them.
pub(super) async fn found(site: &Site, sought: &Sought, path: &str) -> Result<Markup, Problem> {
    let Sought { selection, below } = sought;
    let page = site.look(async |store| store.selected(selection, *below, A_PAGE, FOR_JOBS).await).await?;
    let query = pairs(selection);
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let is_in_path = |name: &str| name == "batch" && path != "/jobs";
    let own: Vec<(&str, &str)> = query.iter().copied().filter(|(name, _)| !is_in_path(name)).collect();
    Ok(html! {
        (form(selection, path))
        (on_all(site, &query))
        section id="jobs" data-live {
            (table("Jobs", &jobs_table(&page.jobs), nothing(page.next), None))
            @if let Some(next) = page.next {
                @let next = next.to_string();
                p { a href=(href(path, &[own.as_slice(), &[("below", &next)]].concat())) { "Older ones" } }
            }
        }
    })
}

const fn nothing(next: Option<i64>) -> &'static str {
    if next.is_some() { "none among the newest; older ones were not looked at yet" } else { "no job" }
}

fn form(selection: &Selection, path: &str) -> Markup {
    let standing = &selection.standing;
    let state = standing.states.first().filter(|_| standing.states.len() == 1);
    let class = standing.classes.first().filter(|_| standing.classes.len() == 1);
    let field = |name: &'static str, value: &Option<String>| {
        html! {
            div {
                label for=(name) { (name) }
                input id=(name) name=(name) value=(value.as_deref().unwrap_or_default());
            }
        }
    };
    html! {
        form .line action=(path) role="search" aria-label="Jobs" {
            @if path == "/jobs" { (field("batch", &selection.batch)) }
            (field("route", &selection.route))
            (field("project", &selection.project))
            div {
                label for="state" { "state" }
                select id="state" name="state" {
                    option value="" { "any" }
                    @for one in JobState::ALL {
                        option value=(one.as_str()) selected[Some(&one) == state] { (one.as_str()) }
                    }
                }
            }
            div {
                label for="class" { "error class" }
                select id="class" name="class" {
                    option value="" { "any" }
                    @for one in ErrorClass::ALL.iter().map(|class| class.as_str()) {
                        option value=(one) selected[class.is_some_and(|class| class == one)] { (one) }
                    }
                }
            }
            (field("error", &standing.error))
            button .main { "Show" }
        }
    }
}

/// The buttons that change all jobs that the filter takes.
fn on_all(site: &Site, query: &[(&str, &str)]) -> Markup {
    let offered = [
        Button::after_a_look("retry", "Retry all of these…", query),
        Button::after_a_look("cancel", "Cancel all of these…", query),
        Button::after_a_look("pause", "Pause all of these…", query),
        Button::after_a_look("resume", "Resume all of these…", query),
    ];
    let routes = site.gauged.observer().vitals().routes;
    if site.access.is_read_only() {
        return html! {};
    }
    html! {
        details {
            summary { "Change all of these jobs" }
            (buttons(site, &offered))
            form .inline action="/confirm" {
                (hidden("move", query))
                label for="to" { "to route" }
                select id="to" name="to" { @for route in &routes { option { (route) } } }
                button { "Move all of these…" }
            }
            form .inline action="/confirm" {
                (hidden("priority", query))
                label for="priority" { "new priority" }
                input id="priority" name="priority" type="number" min="-1000" max="1000" value="0" required;
                button { "Give it to all of these…" }
            }
        }
    }
}

fn hidden(action: &str, query: &[(&str, &str)]) -> Markup {
    html! {
        input type="hidden" name="action" value=(action);
        @for (name, value) in query { input type="hidden" name=(name) value=(value); }
    }
}

pub(super) async fn one(State(site): Here, Path(job): Path<String>, Query(pairs): QueryPairs) -> Page {
    let mut params = Params::of_pairs(pairs)?;
    let wants_bodies = params.flag("bodies")?;
    params.finish()?;
    let job: i64 = job.parse().map_err(|_| Problem::not_found(format!("{job:?} is no job's number")))?;
    let shows = wants_bodies && site.bodies;
    let story = story(&site, job, Bodies { request: shows, response: shows }).await?;
    let title = format!("Job {job}");
    let path = format!("/jobs/{job}");
    let body = html! {
        h1 { (title) }
        section id="story" data-live aria-label="What happened" {
            div .scroll tabindex="0" role="region" aria-label="What happened" {
                pre {
                    @for line in story.lines() {
                        @match Tone::of_words(line.trim_start()) {
                            Some(tone) => span class=(tone_class(tone)) { (line) },
                            None => (line),
                        }
                        "\n"
                    }
                }
            }
        }
        p {
            "Route " a href=(href("/jobs", &[("route", &story.job.route)])) { (story.job.route) }
            @if let Some(batch) = &story.job.batch {
                ", batch " a href=(super::rows::batch_page(batch)) { (batch) }
            }
        }
        (changes(&site, &story.job))
        @if shows {
            (document("Prompt", story.job.request.as_ref()))
            (document("Answer", story.job.response.as_ref()))
        } @else if site.bodies {
            p { a href=(href(&path, &[("bodies", "true")])) { "Show prompt and answer" } }
        } @else {
            p .soft { "Prompts and answers are not shown here (" code { "bodies" } " in [http])." }
        }
    };
    Frame { title: &title, here: "/jobs", body }.on(&site).await
}

fn document(name: &str, value: Option<&serde_json::Value>) -> Markup {
    let text = value.and_then(|value| serde_json::to_string_pretty(value).ok());
    html! {
        h2 { (name) }
        @match text { Some(text) => pre tabindex="0" { (text) }, None => p .empty { "none" } }
    }
}

fn changes(site: &Site, job: &JobView) -> Markup {
    let number = job.job.to_string();
    let of = [("job", number.as_str())];
    let offered: &[(&'static str, &'static str)] = match job.state {
        JobState::Queued => &[("pause", "Pause"), ("resume", "Resume"), ("cancel", "Cancel")],
        JobState::Running => &[("cancel", "Cancel")],
        JobState::Failed | JobState::Cancelled => &[("retry", "Retry")],
        JobState::Succeeded => &[],
    };
    let offered: Vec<Button> = offered.iter().map(|(action, name)| Button::at_once(action, name, &of)).collect();
    buttons(site, &offered)
}
