//! The limits with the units left and their holders, the targets with their breakers, the keys, and the pauses.

use super::changes::{Button, buttons};
use super::layout::Frame;
use super::rows::table;
use super::{Here, Page};
use crate::domain::pause::PauseKind;
use crate::view::status::{buckets, tables};
use crate::view::table::Layout;
use axum::extract::State;
use maud::{Markup, html};

pub(super) async fn page(State(site): Here) -> Page {
    let status = site.status().await?;
    // Also the columns that a terminal shows on request only: who holds what.
    let limits = buckets::table(&status);
    let layout = Layout { wide: &[], ..limits.layout };
    let limits = limits.laid_out(layout);
    let body = html! {
        h1 { "Limits" }
        section id="buckets" data-live {
            h2 { "Limits that all workers share" }
            (table("Limits", &limits, "no limits", None))
            p .soft {
                "Who holds what: " b { "leased" } " are units that a worker may spend without asking, " b { "places" }
                " calls that it may have under way. " code { "3:20" } " means 20 of worker 3."
            }
        }
        section id="targets" data-live {
            h2 { "Targets and their breakers" }
            (table("Targets", &tables::targets(&status), "no live worker", None))
            @for trouble in tables::troubles(&status) { p { (trouble) } }
        }
        section id="keys" data-live {
            h2 { "Keys" }
            (table("Keys", &tables::keys(&status), "no keys", None))
        }
        section id="workers" data-live {
            h2 { "Workers" }
            (table("Workers", &tables::workers(&status, true).0, "none", None))
        }
    };
    Frame { title: "Limits", here: "/limits", body }.on(&site).await
}

pub(super) async fn pauses(State(site): Here) -> Page {
    let status = site.status().await?;
    let resume = |row: usize| -> Markup {
        let Some(pause) = status.paused.get(row) else { return html! {} };
        let of = [("kind", pause.kind.as_str()), ("name", pause.name.as_str())];
        buttons(&site, &[Button::at_once("resume", "Resume", &of)])
    };
    let body = html! {
        h1 { "Pauses" }
        section id="pauses" data-live {
            (table("Pauses", &tables::pauses(&status), "nothing is paused", Some(&resume)))
        }
        @if !site.access.is_read_only() {
            h2 { "Pause something" }
            form .line method="post" action="/do" {
                input type="hidden" name="action" value="pause";
                input type="hidden" name="back" value="/pauses";
                div {
                    label for="kind" { "what" }
                    select id="kind" name="kind" {
                        @for kind in PauseKind::ALL { option { (kind.as_str()) } }
                    }
                }
                div { label for="name" { "name" } input id="name" name="name" required; }
                div { label for="reason" { "why" } input id="reason" name="reason"; }
                button .main { "Pause" }
            }
        }
    };
    Frame { title: "Pauses", here: "/pauses", body }.on(&site).await
}
