//! `[budgets.NAME]`.

use super::{Kind, Table, instead, key, needed, with_default};
use crate::config::words::{PERIODS, UNPRICED, names};

pub(in crate::config) const BUDGET: Table = Table {
    header: Some("[budgets.news]"),
    title: "[budgets.NAME]",
    doc: "What may be spent (docs/budgets.md). Before each call its worst case is reserved in every budget that covers \
          it; without room the work waits. A budget of which none of project, route, provider, batch and login is said \
          covers everything.",
    keys: &[
        needed("limit", Kind::Money, "25.00", "Dollars."),
        with_default(
            "per",
            Kind::Word(|| names(PERIODS)),
            "once",
            "How often it begins anew: each hour, day or month by UTC, or never.",
        ),
        key("project", Kind::Text, "news", "The project that it is for."),
        instead("route", Kind::Text, "default", "Or the route: of jobs whose rows name it."),
        instead("provider", Kind::Text, "openai", "Or the provider: without room its rungs are closed."),
        instead("batch", Kind::Text, "nightly", "Or the batch."),
        instead("login", Kind::Text, "app", "Or the login that enqueues."),
        key("soft", Kind::Share, "0.8", "The share of the limit from which on it is logged and marked."),
        instead("then_route", Kind::Text, "cheap", "The route along which its jobs go from there on."),
        with_default(
            "unpriced",
            Kind::Word(|| names(UNPRICED)),
            "refuse",
            "Calls whose price is unknown: \"refuse\" passes their rung, \"allow\" makes them and counts nothing.",
        ),
    ],
    ..Table::EMPTY
};
