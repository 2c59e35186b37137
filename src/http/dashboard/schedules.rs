//! Schedules with the outcomes of their ticks, game days, and alerts.

use super::changes::{Button, buttons};
use super::layout::Frame;
use super::rows::{encoded, table};
use super::{Here, Page};
use crate::http::api;
use crate::view::{alert, game_day, schedule};
use axum::extract::{Path, State};
use maud::{Markup, html};

pub(super) async fn page(State(site): Here) -> Page {
    let (views, ticks) = api::schedules_and_ticks(&site).await?;
    let more = |row: usize| -> Markup {
        let Some(view) = views.get(row) else { return html! {} };
        let of = [("kind", "schedule"), ("name", view.schedule.as_str())];
        let pause = if view.paused { ("resume", "Resume") } else { ("pause", "Pause") };
        buttons(&site, &[Button::at_once("run", "Run now", &of), Button::at_once(pause.0, pause.1, &of)])
    };
    let days = api::game_days_of(&site);
    let report = |row: usize| -> Markup {
        let Some(day) = days.get(row).filter(|day| day.state != "planned") else { return html! {} };
        html! { a href=(format!("/game-days/{}", encoded(&day.game_day))) { "what it did" } }
    };
    let body = html! {
        h1 { "Schedules" }
        section id="schedules" data-live {
            (table("Schedules", &schedule::table(&views), "there are no schedules", Some(&more)))
            @for trouble in views.iter().filter_map(schedule::ScheduleView::trouble) { p .warning { (trouble) } }
        }
        section id="ticks" data-live {
            h2 { "Ticks" }
            (table("Ticks", &schedule::ticks(&ticks), "there have been no ticks", None))
        }
        section id="game-days" data-live {
            h2 { "Game days: times in which calls fail on purpose" }
            (table("Game days", &game_day::table(&days), "there are no game days", Some(&report)))
        }
    };
    Frame { title: "Schedules", here: "/schedules", body }.on(&site).await
}

pub(super) async fn game_day(State(site): Here, Path(name): Path<String>) -> Page {
    let report = api::game_day_report(&site, &name).await?;
    let title = format!("Game day {name}");
    let body = html! {
        h1 { (title) }
        section id="game-day" data-live aria-label="What it did" {
            (table("Game day", &game_day::table(std::slice::from_ref(&report.day)), "none", None))
            h2 { "What it did" }
            (table("What it did", &report.table(), "none", None))
            @if report.routes.len() > 1 {
                h2 { "By route" }
                (table("By route", &report.routes_table(), "none", None))
            }
        }
        p { a href="/schedules" { "All game days" } }
    };
    Frame { title: &title, here: "/schedules", body }.on(&site).await
}

pub(super) async fn alerts(State(site): Here) -> Page {
    let alerts = api::alerts_of(&site, true).await?;
    let (firing, over): (Vec<_>, Vec<_>) = alerts.into_iter().partition(|alert| alert.resolved_at.is_none());
    let body = html! {
        h1 { "Alerts" }
        section id="firing" data-live {
            h2 { "Firing" }
            (table("Firing", &alert::table(&firing), "none", None))
        }
        section id="over" data-live {
            h2 { "Over" }
            (table("Over", &alert::table(&over), "none", None))
        }
    };
    Frame { title: "Alerts", here: "/alerts", body }.on(&site).await
}
