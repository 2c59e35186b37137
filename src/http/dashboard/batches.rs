//! The batches, and one of them: its progress, what it costs, its jobs.

use super::changes::{Button, buttons};
use super::jobs::{Sought, found};
use super::layout::Frame;
use super::rows::{href, table};
use super::{Here, Page, QueryPairs};
use crate::domain::NanoUsd;
use crate::domain::long_calls::LongCalls;
use crate::http::params::Params;
use crate::http::problem::Problem;
use crate::store::batch::Batch;
use crate::view::batch::{self, BatchView, per_answer_in_words};
use crate::view::dollars::at_a_glance;
use crate::view::table::Cell;
use crate::view::waits::WhyView;
use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use std::time::Duration;

const A_PAGE: usize = 50;

pub(super) async fn list(State(site): Here, Query(pairs): QueryPairs) -> Page {
    let mut params = Params::of_pairs(pairs)?;
    let after = params.text("after");
    params.finish()?;
    let mut batches = site.look(async |store| store.batches_after(after.as_deref(), A_PAGE + 1).await).await?;
    let is_more = batches.len() > A_PAGE;
    batches.truncate(A_PAGE);
    let body = html! {
        h1 { "Batches" }
        section id="batches" data-live {
            (table("Batches", &batch::table(&batches), "there are no batches yet", None))
            @if let Some(last) = batches.last().filter(|_| is_more) {
                p { a href=(href("/batches", &[("after", &last.name)])) { "Older ones" } }
            }
        }
    };
    Frame { title: "Batches", here: "/batches", body }.on(&site).await
}

pub(super) async fn one(State(site): Here, Path(name): Path<String>, Query(pairs): QueryPairs) -> Page {
    let mut params = Params::of_pairs(pairs)?;
    let sought = Sought::read(&mut params)?;
    params.finish()?;
    if sought.selection.batch.as_ref().is_some_and(|other| *other != name) {
        return Err(Problem::bad("the batch is in the path already"));
    }
    let sought = sought.of_batch(&name);
    let read = site.look(async |store| {
        let Some(batch) = store.batch(&name).await? else { return Ok(None) };
        let (why, long_calls) = store.standstill(&batch).await?;
        let left = if batch.unfinished() > 0 { store.least_time_left(&batch).await? } else { None };
        Ok(Some((batch, why, long_calls, left)))
    });
    let Some((batch, why, long_calls, left)) = read.await? else {
        return Err(Problem::not_found(format!("there is no batch {name:?}")));
    };
    let why = why.map(|why| WhyView::of(&why, None));
    let body = html! {
        h1 { "Batch " (name) }
        section id="progress" data-live aria-label="Progress" {
            (progress(&batch, why.as_ref(), long_calls.as_ref(), left))
        }
        (changes(&site, &batch))
        h2 { "Jobs" }
        (found(&site, &sought, &format!("/batches/{}", super::rows::encoded(&name))).await?)
    };
    Frame { title: &name, here: "/batches", body }.on(&site).await
}

fn progress(batch: &Batch, why: Option<&WhyView>, long_calls: Option<&LongCalls>, left: Option<Duration>) -> Markup {
    let view = BatchView::of(batch);
    let of = |count: i64| Cell::Count(count).in_words();
    html! {
        progress max=(batch.jobs.max(1)) value=(batch.done())
            aria-label=(format!("{} of {}", batch.done(), batch.jobs)) {}
        p {
            b { (of(batch.done())) } " of " (of(batch.jobs)) " done: " (of(batch.succeeded)) " succeeded, "
            span .bad[batch.failed > 0] { (of(batch.failed)) " failed" } ", " (of(batch.cancelled)) " cancelled"
        }
        @if let Some(calls) = long_calls {
            p .warning { (calls.in_words()) }
        }
        @if let Some(why) = why {
            p .(if why.stuck { "bad" } else { "warning" }) {
                "It waits: " (why.words)
                @if let Some(advice) = &why.advice { " – do: " code { (advice) } }
            }
        }
        @if batch.paused {
            p .warning { "It is paused" @if let Some(reason) = &batch.pause_reason { ": " (reason) } }
        }
        p {
            "So far " b { (view.dollars()) }
            @if let Some(each) = per_answer_in_words(batch) { ", " (each) }
            @if let Some(all) = at_the_end(batch) { "; at the end about " b { (at_a_glance(all)) } }
            @if let Some(left) = left {
                "; by the limits at least "
                (humantime::format_duration(Duration::from_secs(left.as_secs()))) " to go"
            }
        }
    }
}

/// The cost of the whole batch if the rest costs as much a job as the ended jobs; `None`: that is not known.
fn at_the_end(batch: &Batch) -> Option<NanoUsd> {
    let cost = batch.known_cost().filter(|_| batch.unpriced == 0)?;
    let ended = batch.succeeded + batch.failed;
    if batch.unfinished() == 0 || ended == 0 {
        return None;
    }
    let of_all = i128::from(cost.0) * i128::from(batch.jobs - batch.cancelled) / i128::from(ended);
    i64::try_from(of_all).ok().map(NanoUsd)
}

fn changes(site: &crate::http::site::Site, batch: &Batch) -> Markup {
    let name = batch.name.as_str();
    let kind = [("kind", "batch"), ("name", name)];
    let all = [("batch", name)];
    let mut offered = Vec::new();
    if batch.paused {
        offered.push(Button::at_once("resume", "Resume", &kind));
    } else if batch.unfinished() > 0 {
        offered.push(Button::at_once("pause", "Pause", &kind));
    }
    if batch.unfinished() > 0 {
        offered.push(Button::after_a_look("cancel", "Cancel what is left…", &all));
    }
    if batch.failed > 0 {
        let failed = [("batch", name), ("state", "failed")];
        offered.push(Button::after_a_look("retry", "Retry what failed…", &failed));
    }
    buttons(site, &offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_costs_as_much_a_job_as_what_has_ended() {
        let at = chrono::DateTime::UNIX_EPOCH;
        let batch = Batch {
            name: "b".to_owned(),
            first_hour: at,
            last_hour: at,
            jobs: 1000,
            succeeded: 90,
            failed: 10,
            cancelled: 100,
            attempts: 120,
            cost: NanoUsd(5_000_000_000),
            waste: NanoUsd::ZERO,
            uncertain: NanoUsd::ZERO,
            unpriced: 0,
            paused: false,
            pause_reason: None,
            max_failed: None,
            max_wasted: None,
        };
        assert_eq!(at_the_end(&batch), Some(NanoUsd(45_000_000_000)));
        assert_eq!(at_the_end(&Batch { unpriced: 1, ..batch.clone() }), None);
        assert_eq!(at_the_end(&Batch { succeeded: 0, failed: 0, ..batch.clone() }), None);
        assert_eq!(at_the_end(&Batch { succeeded: 890, ..batch }), None);
    }
}
