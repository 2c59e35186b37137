//! The doctor's findings, the gravest first, each with what to do.

use super::layout::Frame;
use super::rows::{table, tone_class};
use super::{Here, Page};
use crate::domain::alert::AlertRule;
use crate::domain::diagnosis::Severity;
use crate::http::api;
use crate::view::alert::AlertView;
use crate::view::finding::{DiagnosisView, FindingView};
use crate::view::table::{Cell, Layout, Table};
use crate::view::tone::Tone;
use axum::extract::State;
use maud::{Markup, html};

pub(super) async fn page(State(site): Here) -> Page {
    let (found, is_looking) = site.diagnosis_soon().await?;
    let told: Vec<AlertView> = api::alerts_of(&site, false).await?;
    let worker = site.gauged.observer().vitals().worker;
    let body = html! {
        h1 { "Doctor" }
        section id="findings" data-live aria-label="Findings" {
            @if is_looking {
                p { "The doctor is looking now, which takes some seconds. What it finds will stand here." }
            }
            @if let Some(found) = found {
                p .soft {
                    "Looked at " (Cell::Time(found.looked_at).in_words()) " UTC, at most once a minute, by worker "
                    (worker) " with its configuration and its clock."
                }
                (findings(&DiagnosisView::of(&found.findings), &told))
            }
        }
        p .soft {
            "Not looked at here: files and folders of each machine (" code { "sluice check" } "), keys and models ("
            code { "sluice check --online" } "), and what takes long to compare: " code { "sluice doctor" }
            " looks at older jobs too."
        }
    };
    Frame { title: "Doctor", here: "/doctor", body }.on(&site).await
}

/// All findings, the gravest first.
fn findings(view: &DiagnosisView<'_>, told: &[AlertView]) -> Markup {
    let unseen = short(view.of_severity(Severity::Unseen));
    html! {
        (grave("Bad", view.of_severity(Severity::Bad), told))
        (grave("Warnings", view.of_severity(Severity::Warning), told))
        @if view.ok { p .good { "No finding calls for anything." } }
        @if !unseen.is_empty() { h2 { "Not looked at" } (table("Not looked at", &unseen, "none", None)) }
        h2 { "All is well" }
        (table("All is well", &short(view.of_severity(Severity::Ok)), "none", None))
    }
}

/// Findings that call for something.
fn grave<'a>(title: &str, findings: impl Iterator<Item = &'a FindingView<'a>>, told: &[AlertView]) -> Markup {
    let findings: Vec<_> = findings.collect();
    if findings.is_empty() {
        return html! {};
    }
    let alert = |finding: &FindingView| {
        told.iter().find(|alert| alert.rule == AlertRule::Doctor.as_str() && alert.subject == finding.check)
    };
    html! {
        h2 { (title) }
        @for finding in findings {
            article .finding.bad-edge[finding.severity == Severity::Bad.as_str()] {
                h3 .(Tone::of_words(finding.severity).map_or("", tone_class)) { (in_words(finding.check)) }
                p { (finding.what) }
                @if let Some(why) = finding.why { p .soft { "Why it matters: " (why) } }
                @if let Some(remedy) = finding.remedy { p { b { "Do: " } (remedy) } }
                @if let Some(alert) = alert(finding) {
                    p .soft {
                        a href="/alerts" { "Told as an alert" } " since "
                        (Cell::Time(alert.fired_at).in_words()) " UTC"
                    }
                }
            }
        }
    }
}

/// Findings that call for nothing.
fn short<'a>(findings: impl Iterator<Item = &'a FindingView<'a>>) -> Table {
    let mut table = Table::new(["check", "what"]).laid_out(Layout { prose: &["what"], ..Layout::default() });
    for finding in findings {
        table.row([in_words(finding.check).into(), finding.what.into()]);
    }
    table
}

fn in_words(check: &str) -> String {
    check.replace('_', " ")
}
