//! Which of the sums a report reads: the fewest rows that have the requested figures.
//!
//! The source is always called `t` and has the same columns. Beside the sums of the chosen table it has those that are
//! not folded yet.

use super::{Filter, Grouping, OTHERS};
use sqlx::{Postgres, QueryBuilder};

/// What sums are kept by, batches left out.
const LABELS: &str = "hour, route, project, login, provider, model, class, detail, code, instead_of, instead_why";

/// The same in the sums that leave out what the jobs are.
const LABELS_OF_TARGETS: &str = "hour, route, '' as project, '' as login, provider, model, class, detail, '' as code,
    '' as instead_of, '' as instead_why";

/// The figures that can be added up, histograms left out.
const MEASURES: [&str; 24] = [
    "enqueued",
    "succeeded",
    "failed",
    "cancelled",
    "attempts",
    "fallbacks",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_priced_tokens",
    "cache_saved_nanos",
    "output_tokens",
    "cost_nanos",
    "waste_nanos",
    "uncertain_nanos",
    "unpriced",
    "total_ms",
    "repaired",
    "reasks",
    "reask_cost_nanos",
    "reask_unpriced",
    "extra_nanos",
    "extra_unknown",
    "detours",
];

/// One table of sums, or the union of several, from which is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// By everything.
    Everything,
    /// By hours, without batches.
    Hours,
    /// By hours and targets, without what the jobs are.
    Targets,
    /// By days, without batches.
    Days,
}

impl Kept {
    /// The fewest rows that tell these dimensions apart, and those of the filter.
    fn of(filter: &Filter, by: &[Grouping]) -> Self {
        let is_of_target = |dimension: &Grouping| {
            matches!(
                dimension,
                Grouping::Provider
                    | Grouping::Model
                    | Grouping::To
                    | Grouping::Route
                    | Grouping::Class
                    | Grouping::Detail
                    | Grouping::Day
                    | Grouping::Hour
            )
        };
        if filter.batch.is_some() || by.contains(&Grouping::Batch) {
            Self::Everything
        } else if !by.contains(&Grouping::Hour) {
            Self::Days
        } else if filter.project.is_none() && filter.login.is_none() && by.iter().all(is_of_target) {
            Self::Targets
        } else {
            Self::Hours
        }
    }
}

impl Filter {
    /// Pushes the sums that have the requested figures, as `t`.
    pub(super) fn push_source(&self, query: &mut QueryBuilder<Postgres>, by: &[Grouping]) {
        query.push("(");
        match Kept::of(self, by) {
            Kept::Everything => match self.shown.as_ref().filter(|_| self.batch.is_none()) {
                Some(shown) => self.push_shown(query, by, shown),
                None => push_rows(query, "totals", "batch", 1),
            },
            kept => self.push_together(query, kept, "'' as batch"),
        }
        query.push(") t");
    }

    /// Those of the batches that are shown, and of the others the rest of all when the shown are taken away.
    fn push_shown(&self, query: &mut QueryBuilder<Postgres>, by: &[Grouping], shown: &[String]) {
        let others = format!("'{OTHERS}' as batch");
        for (batch, sign) in [("batch", 1), (others.as_str(), -1)] {
            push_rows(query, "totals", batch, sign);
            // In these words each of the two has an index.
            query.push(" and (batch = '' or batch <> '' and batch = any (").push_bind(shown.to_vec()).push("))");
            query.push(" union all ");
        }
        let rest: Vec<Grouping> = by.iter().copied().filter(|dimension| *dimension != Grouping::Batch).collect();
        self.push_together(query, Kept::of(self, &rest), &others);
    }

    /// Those of all batches together: by the hour, or as many whole days as lie in the time, with the hours at its
    /// edges; and the sums not folded yet.
    fn push_together(&self, query: &mut QueryBuilder<Postgres>, kept: Kept, batch: &str) {
        push_rows(query, "tally", batch, 1);
        query.push(" union all ");
        match kept {
            Kept::Targets => push_rows(query, "tally_hour_target", batch, 1),
            Kept::Everything | Kept::Hours => push_rows(query, "tally_hour_all", batch, 1),
            Kept::Days => self.push_days(query, batch),
        }
    }

    fn push_days(&self, query: &mut QueryBuilder<Postgres>, batch: &str) {
        push_rows(query, "tally_day_all", batch, 1);
        if self.since.is_some() {
            query.push(" and hour >= ");
            self.push_first_day(query);
        }
        if self.until.is_some() {
            query.push(" and hour < ");
            self.push_last_day(query);
        }
        if self.since.is_some() {
            query.push(" union all ");
            push_rows(query, "tally_hour_all", batch, 1);
            query.push(" and hour < ");
            self.push_first_day(query);
        }
        if self.until.is_some() {
            query.push(" union all ");
            push_rows(query, "tally_hour_all", batch, 1);
            query.push(" and hour >= ");
            self.push_last_day(query);
            if self.since.is_some() {
                query.push(" and hour >= ");
                self.push_first_day(query);
            }
        }
    }

    /// Pushes the beginning of the first day that is whole in the time.
    fn push_first_day(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(since) = self.since {
            query.push("date_trunc('day', date_trunc('hour', ");
            since.push(query);
            query.push(") - interval '1 microsecond', 'UTC') + interval '24 hours'");
        }
    }

    /// Pushes the beginning of the day in which the time ends.
    fn push_last_day(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(until) = self.until {
            query.push("date_trunc('day', ");
            until.push(query);
            query.push(", 'UTC')");
        }
    }
}

/// Pushes a query of all rows of one table, added or taken away, to which conditions can be pushed.
fn push_rows(query: &mut QueryBuilder<Postgres>, table: &str, batch: &str, sign: i8) {
    let is_of_targets = table == "tally_hour_target";
    let labels = if is_of_targets { LABELS_OF_TARGETS } else { LABELS };
    query.push("select ").push(batch).push(", ").push(labels).push(", latency, first_byte, ");
    query.push(sign).push(" as sign");
    for (measure, of_detours) in
        MEASURES.into_iter().map(|measure| (measure, "attempts")).chain([("detour_cost_nanos", "cost_nanos")])
    {
        query.push(if sign < 0 { ", -" } else { ", " });
        if measure.starts_with("detour") && !is_of_targets {
            query.push("case when instead_of <> '' then ").push(of_detours).push(" else 0 end");
        } else {
            query.push(measure);
        }
        query.push(" as ").push(measure);
    }
    query.push(" from sluice.").push(table).push(" where true");
}
