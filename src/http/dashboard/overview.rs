//! The first page: how much waits and runs, what it costs, and which model answers for each route.

use super::chart::{Bar, bars};
use super::layout::Frame;
use super::rows::table;
use super::{Here, Page};
use crate::domain::per_answer::known_cost;
use crate::domain::{NanoUsd, PerAnswer, Spent};
use crate::http::site::Site;
use crate::store::report::{Filter, Grouping, Moment, Totals};
use crate::view::dollars::at_a_glance;
use crate::view::status::tables::{jobs, workers};
use crate::view::status::{CountView, StatusView};
use crate::view::table::{Cell, Layout, Table};
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// The time in which a model answers that is called active.
const LATELY: Duration = Duration::from_hours(1);

pub(super) async fn page(State(site): Here) -> Page {
    let status = site.status().await?;
    let (hours, targets) = sums(&site).await?;
    let body = html! {
        h1 { "Overview" }
        div id="tiles" data-live { (tiles(&status, &hours)) }
        div .two {
            section id="done" data-live aria-label="Jobs by hour" {
                h2 { "Jobs that ended, by hour (UTC)" }
                (ended(status.now, &hours))
            }
            section id="spent" data-live aria-label="Dollars by hour" {
                h2 { "Dollars, by hour (UTC)" }
                (dollars(status.now, &hours))
            }
        }
        section id="queue" data-live {
            h2 { "Queue" }
            (table("Queue", &jobs(&status), "nothing waits and nothing runs", None))
        }
        section id="routes" data-live {
            h2 { "Routes: who answers" }
            (table("Routes", &active(&targets), "no call within the last hour", None))
        }
        section id="costs" data-live {
            h2 { "Routes: what they cost within a day" }
            (table("Costs", &status.spent_table(), "no call within a day", None))
        }
        section id="workers" data-live {
            h2 { "Workers" }
            (table("Workers", &workers(&status, false).0, "none", None))
        }
    };
    Frame { title: "Overview", here: "/", body }.on(&site).await
}

/// The sums of a day by the hour, and those of the last hour by route and target.
async fn sums(site: &Site) -> Result<(Vec<Totals>, Vec<Totals>), crate::http::problem::Problem> {
    let since = |ago| Filter { since: Some(Moment::Ago(ago)), ..Filter::default() };
    site.look(async |store| {
        let hours = store.totals(&[Grouping::Hour], &since(DAY)).await?;
        let by = [Grouping::Route, Grouping::Provider, Grouping::Model];
        Ok((hours, store.totals(&by, &since(LATELY)).await?))
    })
    .await
}

fn tiles(status: &StatusView, hours: &[Totals]) -> Markup {
    let mut waiting = CountView { jobs: 0, or_more: false };
    let mut running = 0;
    for route in &status.routes {
        let counts = route.parked.iter().map(|parked| parked.count).chain([route.ready]);
        for count in counts {
            waiting.jobs += count.jobs;
            waiting.or_more |= count.or_more;
        }
        running += route.running;
    }
    let oldest = status.routes.iter().filter_map(|route| route.oldest_ready).min();
    let latest = hours.last().filter(|row| hour_of(row).is_some_and(|hour| status.now - hour < TimeDelta::hours(1)));
    let (cost, attempts, unpriced) = latest.map_or((NanoUsd::ZERO, 0, 0), |row| (row.cost, row.attempts, row.unpriced));
    let day = hours.iter().fold(Spent::default(), |mut sum, row| {
        let spent = row.spent();
        sum.cost += spent.cost;
        sum.uncertain += spent.uncertain;
        sum.unpriced += spent.unpriced;
        sum.accepted += spent.accepted;
        sum
    });
    let this_hour = if attempts == 0 {
        at_a_glance(NanoUsd::ZERO)
    } else {
        known_cost(cost, unpriced, attempts).map_or_else(|| Cell::UnknownMoney.in_words(), at_a_glance)
    };
    let each = match day.per_answer() {
        PerAnswer::Exactly(each) => at_a_glance(each),
        PerAnswer::AtLeast(each) => format!("{}+", at_a_glance(each)),
        unknown => Cell::from(unknown).in_words(),
    };
    let waiting = format!("{}{}", Cell::Count(waiting.jobs).in_words(), if waiting.or_more { "+" } else { "" });
    let alive = status.workers.iter().filter(|worker| worker.is_alive).count();
    let tiles = [
        ("waiting", waiting),
        ("running", Cell::Count(running).in_words()),
        ("oldest ready", oldest.map_or("–".to_owned(), |since| age(status.now, since))),
        ("live workers", alive.to_string()),
        ("spent in this hour", this_hour),
        ("spent within a day", at_a_glance(day.cost)),
        ("per accepted answer", each),
    ];
    html! { ul .tiles { @for (name, figure) in tiles { li { b { (figure) } span { (name) } } } } }
}

fn age(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    let seconds = u64::try_from((now - since).num_seconds()).unwrap_or(0);
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn hour_of(row: &Totals) -> Option<DateTime<Utc>> {
    let minute = row.keys.get(Grouping::Hour)?.strip_suffix('Z')?;
    format!("{minute}:00Z").parse().ok()
}

/// A bar for each of the last 24 hours.
fn by_hour(now: DateTime<Utc>, hours: &[Totals], bar: impl Fn(&Totals) -> (f64, f64, String)) -> Vec<Bar> {
    let known: BTreeMap<DateTime<Utc>, &Totals> = hours.iter().filter_map(|row| Some((hour_of(row)?, row))).collect();
    let this = DateTime::from_timestamp(now.timestamp() / 3600 * 3600, 0).unwrap_or(now);
    (0..24)
        .rev()
        .map(|ago| {
            let hour = this - TimeDelta::hours(ago);
            let (amount, bad, words) = known.get(&hour).map_or((0.0, 0.0, "nothing".to_owned()), |row| bar(row));
            Bar { name: hour.format("%H:%M").to_string(), amount, bad, words }
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "the height of a bar")]
fn float(number: i64) -> f64 {
    number as f64
}

fn ended(now: DateTime<Utc>, hours: &[Totals]) -> Markup {
    let bar = |row: &Totals| {
        let words = format!("{} succeeded, {} failed", row.succeeded, row.failed);
        (float(row.succeeded + row.failed), float(row.failed), words)
    };
    let highest = hours.iter().map(|row| row.succeeded + row.failed).max().unwrap_or(0);
    bars("Jobs that ended, by hour", &by_hour(now, hours, bar), &Cell::Count(highest).in_words())
}

fn dollars(now: DateTime<Utc>, hours: &[Totals]) -> Markup {
    let bar = |row: &Totals| {
        let words = format!("{}, of it {} wasted", row.cost, row.waste);
        (float(row.cost.0), float(row.waste.0), words)
    };
    let highest = hours.iter().map(|row| row.cost).max().unwrap_or(NanoUsd::ZERO);
    bars("Dollars by hour", &by_hour(now, hours, bar), &at_a_glance(highest))
}

/// The target that has answered most for each route within the last hour, and its share.
fn active(targets: &[Totals]) -> Table {
    let mut routes: BTreeMap<&str, Vec<&Totals>> = BTreeMap::new();
    for row in targets.iter().filter(|row| row.attempts > 0) {
        routes.entry(row.keys.get(Grouping::Route).unwrap_or_default()).or_default().push(row);
    }
    let mut table = Table::new(["route", "answers", "share", "answered", "others"])
        .laid_out(Layout { prose: &["others"], ..Layout::default() });
    let name = |row: &Totals| {
        let part = |of| row.keys.get(of).unwrap_or_default();
        format!("{}/{}", part(Grouping::Provider), part(Grouping::Model))
    };
    for (route, mut rows) in routes {
        rows.sort_by_key(|row| std::cmp::Reverse((row.succeeded, row.attempts)));
        let all: i64 = rows.iter().map(|row| row.succeeded).sum();
        let Some((first, others)) = rows.split_first() else { continue };
        let share = if all > 0 { Cell::Share(float(first.succeeded) / float(all)) } else { Cell::Empty };
        let others: Vec<String> = others.iter().map(|row| format!("{} ({})", name(row), row.succeeded)).collect();
        table.row([
            route.into(),
            if all > 0 { name(first).into() } else { "none of its calls was accepted".into() },
            share,
            all.into(),
            if others.is_empty() { Cell::Empty } else { others.join(", ").into() },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::report::Keys;

    #[test]
    fn the_model_that_answers_most_is_the_active_one() {
        let row = |route: &str, model: &str, succeeded, attempts| Totals {
            keys: Keys::of(&[Grouping::Route, Grouping::Provider, Grouping::Model], [route, "one", model]),
            succeeded,
            attempts,
            ..Totals::default()
        };
        let rows = [row("r", "small", 3, 9), row("r", "large", 9, 9), row("q", "small", 0, 4), row("q", "idle", 0, 0)];
        let table = serde_json::to_value(active(&rows)).unwrap();
        assert_eq!(table[1]["answers"], "one/large");
        assert_eq!((&table[1]["share"], &table[1]["others"]), (&0.75.into(), &"one/small (3)".into()));
        assert_eq!(table[0]["answers"], "none of its calls was accepted");
    }
}
