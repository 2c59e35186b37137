//! Sums for reports.
//!
//! Money, counts and tokens come from the sums that every settle appends (`sluice.totals`). They stay small however
//! large the ledger grows, and match it exactly. Latencies cannot be summed, and calls that named the fault of an
//! answer are few: both are read from the ledger itself, by time.

use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Spent, per_answer};
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder, Row};
use std::time::Duration;

/// The dimensions by which sums are grouped. A closed list: no text of a user becomes SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// The provider that was asked.
    Provider,
    /// The model that was asked for.
    Model,
    Route,
    Project,
    Batch,
    /// The error class; empty for successes.
    Class,
    /// The kind of soft failure.
    Detail,
    /// The day, UTC.
    Day,
    /// The hour, UTC.
    Hour,
}

impl Grouping {
    /// The name, on the command line and as the head of a column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Route => "route",
            Self::Project => "project",
            Self::Batch => "batch",
            Self::Class => "class",
            Self::Detail => "detail",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// The expression over `sluice.totals t`.
    const fn in_totals(self) -> &'static str {
        match self {
            Self::Provider => "t.provider",
            Self::Model => "t.model",
            Self::Route => "t.route",
            Self::Project => "t.project",
            Self::Batch => "t.batch",
            Self::Class => "t.class",
            Self::Detail => "t.detail",
            Self::Day => "to_char(t.hour at time zone 'UTC', 'YYYY-MM-DD')",
            Self::Hour => "to_char(t.hour at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"')",
        }
    }

    /// The expression over `sluice.attempt a` and, where [`needs_job`](Self::needs_job) says so, `sluice.job j`.
    const fn in_ledger(self) -> &'static str {
        match self {
            Self::Provider => "a.provider",
            Self::Model => "a.model",
            Self::Route => "j.route",
            Self::Project => "j.project",
            Self::Batch => "coalesce(j.batch, '')",
            Self::Class => "coalesce(a.class, '')",
            Self::Detail => "coalesce(a.detail, '')",
            Self::Day => "to_char(a.ended_at at time zone 'UTC', 'YYYY-MM-DD')",
            Self::Hour => {
                "to_char(date_trunc('hour', a.ended_at, 'UTC') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"')"
            }
        }
    }

    const fn needs_job(self) -> bool {
        matches!(self, Self::Route | Self::Project | Self::Batch)
    }
}

/// An instant, by the calendar or by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This instant.
    At(DateTime<Utc>),
    /// This long ago.
    Ago(Duration),
}

impl Moment {
    /// Whether nothing lies between this instant and the other, whatever the clock says.
    #[must_use]
    pub fn is_at_or_after(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(this), Self::At(other)) => this >= other,
            (Self::Ago(this), Self::Ago(other)) => this <= other,
            (Self::At(_), Self::Ago(_)) | (Self::Ago(_), Self::At(_)) => false,
        }
    }

    fn push(self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Self::At(at) => query.push_bind(at),
            Self::Ago(ago) => query.push("now() - make_interval(secs => ").push_bind(ago.as_secs_f64()).push(")"),
        };
    }
}

/// The part of the work that is summed. Sums are kept by the hour: the hours of `since` and `until` count whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// From this moment on.
    pub since: Option<Moment>,
    /// Before this moment.
    pub until: Option<Moment>,
    /// Only this batch.
    pub batch: Option<String>,
    /// Only this project.
    pub project: Option<String>,
    /// Only this route.
    pub route: Option<String>,
    /// Only attempts and jobs that failed.
    pub failures_only: bool,
}

impl Filter {
    /// Pushes the conditions; `prefix` is the table that has the labels.
    fn push_labels(&self, query: &mut QueryBuilder<Postgres>, prefix: &'static str) {
        for (column, wanted) in [("batch", &self.batch), ("project", &self.project), ("route", &self.route)] {
            if let Some(wanted) = wanted {
                query.push(" and ").push(prefix).push(column).push(" = ").push_bind(wanted.clone());
            }
        }
    }

    /// Pushes the ledger, and the jobs where the labels or the dimensions are theirs.
    fn push_ledger(&self, query: &mut QueryBuilder<Postgres>, by: &[Grouping]) {
        query.push(" from sluice.attempt a");
        let labelled = self.batch.is_some() || self.project.is_some() || self.route.is_some();
        if labelled || by.iter().any(|dimension| dimension.needs_job()) {
            query.push(" join sluice.job j on j.id = a.job_id");
        }
    }

    fn push_times(&self, query: &mut QueryBuilder<Postgres>, column: &'static str, whole_hours: bool) {
        if let Some(since) = self.since {
            query.push(" and ").push(column).push(if whole_hours { " >= date_trunc('hour', " } else { " >= (" });
            since.push(query);
            query.push(")");
        }
        if let Some(until) = self.until {
            query.push(" and ").push(column).push(" < ");
            until.push(query);
        }
    }
}

/// All sums of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The values of the dimensions, in the order in which they were requested.
    pub keys: Vec<String>,
    /// Jobs of batches that were enqueued.
    pub enqueued: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    /// Calls.
    pub attempts: i64,
    /// Those of them without an answer that was used.
    pub unused: i64,
    /// Jobs that succeeded after another target had failed or was passed over.
    pub fallbacks: i64,
    /// All input tokens.
    pub input_tokens: i64,
    /// Those of them that were read from a cache.
    pub cached_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// Known cost of all attempts.
    pub cost: NanoUsd,
    /// The part of the cost that was paid for answers that were not used.
    pub waste: NanoUsd,
    /// What may have been spent in addition.
    pub uncertain: NanoUsd,
    /// Attempts whose price is unknown, and whose cost is therefore not in the sums.
    pub unpriced: i64,
}

impl Totals {
    /// The cost; `None` when no attempt of the group has a known price.
    #[must_use]
    pub fn known_cost(&self) -> Option<NanoUsd> {
        per_answer::known_cost(self.cost, self.unpriced, self.attempts)
    }

    /// The waste; `None` when no attempt of the group has a known price.
    #[must_use]
    pub fn known_waste(&self) -> Option<NanoUsd> {
        self.known_cost().map(|_| self.waste)
    }

    /// The money that was spent, and the answers that it bought.
    #[must_use]
    pub fn spent(&self) -> Spent {
        Spent { cost: self.cost, uncertain: self.uncertain, unpriced: self.unpriced, accepted: self.succeeded }
    }

    /// Whether every sum is zero.
    fn is_void(&self) -> bool {
        *self == Self { keys: self.keys.clone(), ..Self::default() }
    }
}

/// Latencies of accepted answers, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyRow {
    /// The values of the dimensions.
    pub keys: Vec<String>,
    /// Accepted answers.
    pub answers: i64,
    pub mean_ms: i64,
    /// Half of them took at most this long.
    pub p50_ms: i64,
    /// 95 of 100 took at most this long.
    pub p95_ms: i64,
    /// 99 of 100 took at most this long.
    pub p99_ms: i64,
    /// Half of them began to arrive after at most this long.
    pub first_byte_p50_ms: Option<i64>,
}

/// Calls that named the fault of a rejected answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasks {
    /// The values of the dimensions.
    pub keys: Vec<String>,
    pub calls: i64,
    /// Those of them that brought an answer which was accepted.
    pub accepted: i64,
    pub cost: NanoUsd,
    /// The cost of those that were not accepted.
    pub waste: NanoUsd,
    /// Those of them whose price is unknown.
    pub unpriced: i64,
}

/// Answers that were given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The values of the dimensions.
    pub keys: Vec<String>,
    /// Jobs that have the answer of an earlier one.
    pub answers: i64,
    /// What the earlier jobs cost, as far as it is known.
    pub saved: NanoUsd,
    /// Answers whose first cost is unknown.
    pub unpriced: i64,
}

fn push_keys(query: &mut QueryBuilder<Postgres>, by: &[Grouping], expression: fn(Grouping) -> &'static str) {
    query.push("array[");
    for (index, dimension) in by.iter().enumerate() {
        query.push(if index == 0 { "" } else { ", " }).push(expression(*dimension));
    }
    query.push("]::text[]");
}

impl Store {
    /// Sums by these dimensions, in the order of their values; without dimensions, one row with the sum of all.
    pub async fn totals(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<Totals>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by, Grouping::in_totals);
        query.push(
            " as keys, coalesce(sum(enqueued), 0)::bigint as enqueued, coalesce(sum(succeeded), 0)::bigint as succeeded,
                coalesce(sum(failed), 0)::bigint as failed, coalesce(sum(cancelled), 0)::bigint as cancelled,
                coalesce(sum(attempts), 0)::bigint as attempts,
                coalesce(sum(attempts) filter (where t.class <> ''), 0)::bigint as unused,
                coalesce(sum(fallbacks), 0)::bigint as fallbacks,
                sluice.capped(coalesce(sum(input_tokens), 0)) as input_tokens,
                sluice.capped(coalesce(sum(cached_tokens), 0)) as cached_tokens,
                sluice.capped(coalesce(sum(output_tokens), 0)) as output_tokens,
                sluice.capped(coalesce(sum(cost_nanos), 0)) as cost,
                sluice.capped(coalesce(sum(waste_nanos), 0)) as waste,
                sluice.capped(coalesce(sum(uncertain_nanos), 0)) as uncertain,
                coalesce(sum(unpriced), 0)::bigint as unpriced
           from sluice.totals t where true",
        );
        filter.push_times(&mut query, "t.hour", true);
        filter.push_labels(&mut query, "t.");
        if filter.batch.is_some() {
            // Allows the index over named batches to be used.
            query.push(" and t.batch <> ''");
        }
        if filter.failures_only {
            query.push(" and t.class <> ''");
        }
        if !by.is_empty() {
            query.push(" group by 1 order by 1");
        }
        let rows = query.build().fetch_all(&self.db).await.doing("summing up")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<Totals, sqlx::Error> {
            Ok(Totals {
                keys: row.try_get("keys")?,
                enqueued: row.try_get("enqueued")?,
                succeeded: row.try_get("succeeded")?,
                failed: row.try_get("failed")?,
                cancelled: row.try_get("cancelled")?,
                attempts: row.try_get("attempts")?,
                unused: row.try_get("unused")?,
                fallbacks: row.try_get("fallbacks")?,
                input_tokens: row.try_get("input_tokens")?,
                cached_tokens: row.try_get("cached_tokens")?,
                output_tokens: row.try_get("output_tokens")?,
                cost: NanoUsd(row.try_get("cost")?),
                waste: NanoUsd(row.try_get("waste")?),
                uncertain: NanoUsd(row.try_get("uncertain")?),
                unpriced: row.try_get("unpriced")?,
            })
        };
        let mut totals: Vec<Totals> = rows.into_iter().map(read).collect::<Result<_, _>>().doing("summing up")?;
        if !by.is_empty() {
            totals.retain(|row| !row.is_void());
        }
        Ok(totals)
    }

    /// Answers that were given again. Only routes, projects, days and hours are known of them.
    pub async fn cache_uses(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<CacheUse>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by, Grouping::in_totals);
        query.push(
            " as keys, sum(answers)::bigint as answers, sluice.capped(sum(saved_nanos)) as saved,
                sum(unpriced)::bigint as unpriced
           from sluice.cache_use t where true",
        );
        filter.push_times(&mut query, "t.hour", true);
        filter.push_labels(&mut query, "t.");
        query.push(" group by 1 order by 1");
        let rows = query.build().fetch_all(&self.db).await.doing("summing up what was given again")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<CacheUse, sqlx::Error> {
            Ok(CacheUse {
                keys: row.try_get("keys")?,
                answers: row.try_get("answers")?,
                saved: NanoUsd(row.try_get("saved")?),
                unpriced: row.try_get("unpriced")?,
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing("summing up what was given again")
    }

    /// Calls that named the fault of a rejected answer, from the ledger. Slow without `since`, when the ledger is
    /// large.
    pub async fn reasks(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<Reasks>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by, Grouping::in_ledger);
        query.push(
            " as keys, count(*) as calls, count(*) filter (where a.accepted) as accepted,
                sluice.capped(coalesce(sum(a.cost_nanos), 0)) as cost,
                sluice.capped(coalesce(sum(a.cost_nanos) filter (where not a.accepted), 0)) as waste,
                count(*) filter (where a.cost_nanos is null) as unpriced",
        );
        filter.push_ledger(&mut query, by);
        query.push(" where a.reask_of is not null");
        filter.push_times(&mut query, "a.ended_at", false);
        filter.push_labels(&mut query, "j.");
        query.push(" group by 1 order by 1");
        let rows = query.build().fetch_all(&self.db).await.doing("reading re-asks")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<Reasks, sqlx::Error> {
            Ok(Reasks {
                keys: row.try_get("keys")?,
                calls: row.try_get("calls")?,
                accepted: row.try_get("accepted")?,
                cost: NanoUsd(row.try_get("cost")?),
                waste: NanoUsd(row.try_get("waste")?),
                unpriced: row.try_get("unpriced")?,
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing("reading re-asks")
    }

    /// Latencies of accepted answers, from the ledger. Slow without `since`, when the ledger is large.
    pub async fn latencies(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<LatencyRow>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by, Grouping::in_ledger);
        query.push(
            " as keys, count(*) as answers, avg(a.total_ms)::bigint as mean,
                percentile_disc(array[0.5, 0.95, 0.99]) within group (order by a.total_ms) as spread,
                percentile_disc(0.5) within group (order by a.first_byte_ms) as first_byte",
        );
        filter.push_ledger(&mut query, by);
        query.push(" where a.accepted");
        filter.push_times(&mut query, "a.ended_at", false);
        filter.push_labels(&mut query, "j.");
        query.push(" group by 1 order by 1");
        let rows = query.build().fetch_all(&self.db).await.doing("reading latencies")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<LatencyRow, sqlx::Error> {
            let spread: Vec<i32> = row.try_get("spread")?;
            let at = |index: usize| spread.get(index).copied().map_or(0, i64::from);
            Ok(LatencyRow {
                keys: row.try_get("keys")?,
                answers: row.try_get("answers")?,
                mean_ms: row.try_get("mean")?,
                p50_ms: at(0),
                p95_ms: at(1),
                p99_ms: at(2),
                first_byte_p50_ms: row.try_get::<Option<i32>, _>("first_byte")?.map(i64::from),
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing("reading latencies")
    }
}
