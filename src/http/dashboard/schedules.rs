//! Schedules with the outcomes of their ticks, and alerts.

use super::changes::{Button, buttons};
use super::layout::Frame;
use super::rows::table;
use super::{Here, Page};
use crate::http::api;
use crate::view::{alert, schedule};
use axum::extract::State;
use maud::{Markup, html};

pub(super) async fn page(State(site): Here) -> Page {
    let (views, ticks) = api::schedules_and_ticks(&site).await?;
    let more = |row: usize| -> Markup {
        let Some(view) = views.get(row) else { return html! {} };
        let of = [("kind", "schedule"), ("name", view.schedule.as_str())];
        let pause = if view.paused { ("resume", "Resume") } else { ("pause", "Pause") };
        buttons(&site, &[Button::at_once("run", "Run now", &of), Button::at_once(pause.0, pause.1, &of)])
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
    };
    Frame { title: "Schedules", here: "/schedules", body }.on(&site).await
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
