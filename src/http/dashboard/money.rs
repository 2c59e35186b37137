//! Budgets and reports.

use super::layout::Frame;
use super::rows::{href, table};
use super::{Here, Page, QueryPairs};
use crate::domain::report::{ReportBy, ReportKind};
use crate::http::api::{ReportWish, standing};
use crate::http::params::Params;
use crate::view::budget;
use axum::extract::{Path, Query, State};
use maud::{Markup, html};

pub(super) async fn budgets(State(site): Here) -> Page {
    let views = standing(&site).await?;
    let more = |row: usize| -> Markup {
        let Some(view) = views.get(row) else { return html! {} };
        let id = format!("limit-{row}");
        html! {
            form .line method="post" action="/do" {
                input type="hidden" name="action" value="limit";
                input type="hidden" name="kind" value="budget";
                input type="hidden" name="name" value=(view.budget);
                input type="hidden" name="back" value="/budgets";
                label for=(id) { "limit in $" }
                input id=(id) name="limit" inputmode="decimal" size="8" required
                    value=(plain(&view.limit.0.to_string()));
                button { "Set" }
            }
        }
    };
    let more: Option<&dyn Fn(usize) -> Markup> = if site.access.is_read_only() { None } else { Some(&more) };
    let body = html! {
        h1 { "Budgets" }
        section id="budgets" data-live {
            (table("Budgets", &budget::table(&views), "there are no budgets", more))
            @for said in views.iter().filter_map(budget::BudgetView::shortage_in_words) { p .warning { (said) } }
        }
    };
    Frame { title: "Budgets", here: "/budgets", body }.on(&site).await
}

/// Dollars without their sign.
fn plain(dollars: &str) -> &str {
    dollars.trim_start_matches('$')
}

pub(super) async fn report(State(site): Here, Path(kind): Path<String>, Query(pairs): QueryPairs) -> Page {
    let mut params = Params::of_pairs(pairs)?;
    let since = params.peek("since").map(str::to_owned);
    let compare = params.peek("compare").map(str::to_owned).unwrap_or_default();
    let wish = ReportWish::read(&kind, &mut params)?;
    params.finish()?;
    let (kind, by) = (wish.kind, wish.by.first().copied());
    let answer = wish.answer(&site).await?;
    let title = format!("Report: {}", kind.as_str());
    let path = format!("/reports/{}", kind.as_str());
    let since = since.unwrap_or_default();
    let query = [("by", by.map_or("", ReportBy::as_str)), ("since", since.as_str()), ("compare", compare.as_str())];
    let query: Vec<(&str, &str)> = query.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let body = html! {
        h1 { (title) }
        nav aria-label="Reports" {
            ul {
                @for other in ReportKind::ALL.iter().copied() {
                    li {
                        a href=(format!("/reports/{}", other.as_str()))
                            aria-current=[(other == kind).then_some("true")] { (other.as_str()) }
                    }
                }
            }
        }
        p .soft { (kind.meaning()) "." }
        form .line action=(path) {
            div {
                label for="by" { "by" }
                select id="by" name="by" {
                    option value="" { "as usual" }
                    @for one in ReportBy::ALL.iter().copied() {
                        option value=(one.as_str()) selected[Some(one) == by] { (one.as_str()) }
                    }
                }
            }
            div {
                label for="since" { "since (24h, 7d, 2026-01-31)" }
                input id="since" name="since" value=(since);
            }
            div {
                label for="compare" { "compared with" }
                select id="compare" name="compare" {
                    option value="" { "nothing" }
                    option value="before" selected[compare == "before"] { "as long a time before" }
                }
            }
            button .main { "Show" }
            a .button href=(href(&format!("/api/v1{path}"), &query)) { "JSON" }
        }
        section id="report" data-live {
            (table(&title, &answer.table, "there is nothing to report for this selection", None))
            @if answer.unpriced > 0 {
                p .warning { "The price of " (answer.unpriced) " attempts is unknown and not in the sums." }
            }
            @if let Some(note) = &answer.note { p .warning { (note) } }
        }
    };
    Frame { title: &title, here: "/reports/cost", body }.on(&site).await
}
