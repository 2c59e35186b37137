//! The failures, grouped by class and code, each with the provider's words.

use super::changes::{Button, buttons};
use super::layout::Frame;
use super::rows::{href, table};
use super::{Here, Page, QueryPairs};
use crate::http::api::ReportWish;
use crate::http::params::Params;
use crate::store::report::Moment;
use crate::view::table::{Cell, Table};
use axum::extract::{Query, State};
use maud::{Markup, html};
use std::time::Duration;

pub(super) async fn page(State(site): Here, Query(pairs): QueryPairs) -> Page {
    let mut params = Params::of_pairs(pairs)?;
    let mut wish = ReportWish::read("failures", &mut params)?;
    params.finish()?;
    let is_lately = wish.filter.since.is_none();
    wish.filter.since = wish.filter.since.or(Some(Moment::Ago(Duration::from_hours(24))));
    let report = wish.answer(&site).await?.table;
    let class = |row: usize| match column(&report, row, "class") {
        Some(Cell::Text(class)) => Some(class.clone()),
        _ => None,
    };
    let more = |row: usize| -> Markup {
        let Some(class) = class(row) else { return html! {} };
        let failed = [("state", "failed"), ("class", class.as_str())];
        html! {
            a href=(href("/jobs", &failed)) { "jobs" } " "
            (buttons(&site, &[Button::after_a_look("retry", "Retry…", &failed)]))
        }
    };
    let body = html! {
        h1 { "Failures" }
        p .soft {
            @if is_lately { "Of the last 24 hours. " a href="/failures?since=90d" { "Of the last 90 days" } }
            @else { a href="/failures" { "Of the last 24 hours" } }
        }
        section id="failures" data-live { (table("Failures", &report, "nothing has failed", Some(&more))) }
    };
    Frame { title: "Failures", here: "/failures", body }.on(&site).await
}

fn column<'a>(table: &'a Table, row: usize, name: &str) -> Option<&'a Cell> {
    let index = table.columns.iter().position(|column| *column == name)?;
    table.rows.get(row)?.get(index)
}
