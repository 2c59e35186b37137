//! `[budgets.NAME]`.

use super::route::RouteConfig;
use super::scalar;
use super::section::Section;
use super::words::{PERIODS, UNPRICED};
use crate::domain::budget::{Budget, Coverage, amount, contradictions};
use crate::domain::{MaxFailed, NanoUsd};
use std::collections::BTreeMap;

const AMOUNT: &str = "dollars as a text, such as \"25.00\"";
const SHARE: &str = "a share above 0 and up to 1, such as 0.8";

/// Reads all budgets. `providers`: their names.
pub(super) fn read_all<'a>(
    sections: Vec<(String, Section<'a>)>,
    providers: &[&str],
    routes: &BTreeMap<String, RouteConfig>,
) -> Vec<Budget> {
    let mut read: Vec<(Budget, Section<'a>)> = Vec::new();
    for (name, section) in sections {
        if let Some(budget) = read_one(name, section, providers, routes) {
            read.push(budget);
        }
    }
    let (budgets, sections): (Vec<Budget>, Vec<Section<'a>>) = read.into_iter().unzip();
    for (index, problem) in contradictions(&budgets) {
        if let Some(section) = sections.get(index) {
            section.fault("limit", problem, "budgets that do not contradict each other");
        }
    }
    sections.into_iter().for_each(Section::finish);
    budgets
}

fn read_one<'a>(
    name: String,
    mut section: Section<'a>,
    providers: &[&str],
    routes: &BTreeMap<String, RouteConfig>,
) -> Option<(Budget, Section<'a>)> {
    let limit = read_limit(&mut section);
    let period = section.word_or_default("per", "is a window that never turns", PERIODS);
    let scope = read_scope(&mut section, providers, routes);
    let soft = section.fraction_of("soft", SHARE);
    let then_route = section.text("then_route", "the name of a route");
    if let Some(route) = &then_route {
        if !routes.contains_key(route) {
            unknown(&section, "then_route", "route", route, routes.keys().map(String::as_str));
        }
        if soft.is_none() && !section.has("soft") {
            section.fault("then_route", "is used from the soft threshold on, and there is none", "soft as well");
        }
        if matches!(scope, Some(Coverage::Provider(_) | Coverage::Login(_))) {
            section.fault(
                "then_route",
                "is for the jobs of a project, a route or a batch, or for all",
                "no then_route",
            );
        }
        if scope == Some(Coverage::Route(route.clone())) {
            section.fault("then_route", "is the route itself", "another route");
        }
    }
    let unpriced = section.word_or_default("unpriced", "says nothing of calls without a price", UNPRICED);
    let (limit, scope) = (limit?, scope?);
    Some((Budget { name, scope, period, limit, soft: soft.map(MaxFailed::millionths), then_route, unpriced }, section))
}

fn read_limit(section: &mut Section<'_>) -> Option<NanoUsd> {
    if !section.has("limit") {
        section.fault("limit", "is missing", AMOUNT);
        return None;
    }
    section.parsed("limit", AMOUNT, |text| amount(text).map_err(|problem| format!("{text:?} {problem}")))
}

/// What it covers; `None`: a fault.
fn read_scope(
    section: &mut Section<'_>,
    providers: &[&str],
    routes: &BTreeMap<String, RouteConfig>,
) -> Option<Coverage> {
    let mut scopes = Vec::new();
    for key in ["project", "route", "provider", "batch", "login"] {
        if !section.has(key) {
            continue;
        }
        let name = section.text(key, "a name")?;
        match key {
            "route" if !routes.contains_key(&name) => {
                unknown(section, key, "route", &name, routes.keys().map(String::as_str));
            }
            "provider" if !providers.contains(&name.as_str()) => {
                unknown(section, key, "provider", &name, providers.iter().copied());
            }
            _ => {}
        }
        scopes.extend(Coverage::of(key, &name).map(|scope| (key, scope)));
    }
    if let [(first, _), (second, _), ..] = scopes.as_slice() {
        section.fault(
            second,
            format!("{first} is said as well"),
            "at most one of project, route, provider, batch and login: two budgets cover both",
        );
        return None;
    }
    Some(scopes.pop().map_or(Coverage::Total, |(_, scope)| scope))
}

fn unknown<'a>(section: &Section<'_>, key: &str, kind: &str, name: &str, known: impl Iterator<Item = &'a str>) {
    let expected = match scalar::nearest(name, known) {
        Some(near) => format!("perhaps {near}"),
        None => format!("a section [{kind}s.{name}]"),
    };
    section.fault(key, format!("there is no {kind} {name:?}"), expected);
}
