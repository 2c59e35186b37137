//! Sums for reports.
//!
//! All of it comes from the sums that every settlement appends: `sluice.totals` by batch, and `sluice.totals_all` for
//! all batches together, which stays small however many batches there are; `source` chooses between them. They match
//! the ledger exactly, also where calls are reported late or costs are computed again.

mod failures;
mod keys;
mod latency;
mod shadow;
mod source;

use super::database::Transaction;
use super::{Doing, Store, StoreError};
use crate::domain::{NanoUsd, Spent, per_answer};
use chrono::{DateTime, Utc};
pub use failures::FailureWords;
pub use keys::{Grouping, Keys};
pub use latency::LatencyRow;
pub use shadow::ShadowRow;
use sqlx::{Postgres, QueryBuilder, Row};
use std::time::Duration;

/// An instant, by the calendar or by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This instant.
    At(DateTime<Utc>),
    /// This long ago.
    Ago(Duration),
}

impl Moment {
    /// Whether nothing lies between this instant and the other, regardless of what the clock says.
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
    /// Only jobs of this login.
    pub login: Option<String>,
    /// Only attempts and jobs that failed.
    pub failures_only: bool,
    /// Only these batches are told apart, and the jobs of none; the others are one, named [`OTHERS`]. `None`: all are.
    pub shown: Option<Vec<String>>,
}

/// The name under which batches are summed up that are not told apart.
pub const OTHERS: &str = "(others)";

impl Filter {
    /// Pushes the conditions over the sums `t`.
    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        self.push_times(query);
        self.push_labels(query);
        if self.batch.is_some() {
            // Allows the index over named batches to be used.
            query.push(" and t.batch <> ''");
        }
        if self.failures_only {
            query.push(" and t.class <> ''");
        }
    }

    fn push_labels(&self, query: &mut QueryBuilder<Postgres>) {
        for (column, wanted) in
            [("batch", &self.batch), ("project", &self.project), ("route", &self.route), ("login", &self.login)]
        {
            if let Some(wanted) = wanted {
                query.push(" and t.").push(column).push(" = ").push_bind(wanted.clone());
            }
        }
    }

    fn push_times(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(since) = self.since {
            query.push(" and t.hour >= date_trunc('hour', ");
            since.push(query);
            query.push(")");
        }
        if let Some(until) = self.until {
            query.push(" and t.hour < ");
            until.push(query);
        }
    }
}

/// All sums of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The values of the dimensions.
    pub keys: Keys,
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
    /// Jobs whose answer was repaired.
    pub repaired: i64,
    /// All input tokens.
    pub input_tokens: i64,
    /// Those of them that were read from a cache.
    pub cached_tokens: i64,
    /// Input tokens that were written into a cache.
    pub cache_write_tokens: i64,
    /// Tokens read from a cache or written into it, of which it is known what that saved.
    pub cache_priced_tokens: i64,
    /// What that saved; negative where writing cost more.
    pub cache_saved: NanoUsd,
    /// Output tokens.
    pub output_tokens: i64,
    /// Known cost of all attempts.
    pub cost: NanoUsd,
    /// The part of the cost that was paid for answers that were not used.
    pub waste: NanoUsd,
    /// The amount that may have been spent in addition.
    pub uncertain: NanoUsd,
    /// Attempts whose price is unknown, and whose cost is therefore not in the sums.
    pub unpriced: i64,
    /// Accepted answers of which it is known that another target was the first choice.
    pub detours: i64,
    /// What those answers cost.
    pub detour_cost: NanoUsd,
    /// What they cost more than they would have cost there, as far as that is known; negative: less.
    pub detour_extra: NanoUsd,
    /// Those of them of which that is not known.
    pub detour_unknown: i64,
    /// Calls that named the fault of a rejected answer.
    pub reasks: i64,
    /// Those of them that brought an answer which was accepted.
    pub reasks_accepted: i64,
    pub reask_cost: NanoUsd,
    /// The cost of those that were not accepted.
    pub reask_waste: NanoUsd,
    /// Those of them whose price is unknown.
    pub reasks_unpriced: i64,
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

    /// Tokens read from a cache or written into it, of which it is not known what that saved.
    #[must_use]
    pub fn cache_unpriced_tokens(&self) -> i64 {
        self.cached_tokens.saturating_add(self.cache_write_tokens).saturating_sub(self.cache_priced_tokens)
    }

    /// What caching saved; `None` when tokens were cached and it is known of none of them.
    #[must_use]
    pub fn known_cache_saved(&self) -> Option<NanoUsd> {
        (self.cache_priced_tokens != 0 || self.cache_unpriced_tokens() == 0).then_some(self.cache_saved)
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

/// Answers that were given again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The values of the dimensions.
    pub keys: Keys,
    /// Jobs that have the answer of an earlier one.
    pub answers: i64,
    /// What the earlier jobs cost, as far as it is known.
    pub saved: NanoUsd,
    /// Answers whose first cost is unknown.
    pub unpriced: i64,
}

/// Pushes the dimensions as they are grouped by: `k0`, `k1` and so on, with a comma behind each. The last one is the
/// same in all rows.
fn push_dimensions(query: &mut QueryBuilder<Postgres>, by: &[Grouping]) {
    for (index, dimension) in by.iter().enumerate() {
        query.push(dimension.grouped()).push(" as k").push(index).push(", ");
    }
    query.push("1 as k").push(by.len()).push(", ");
}

/// Pushes the values of those dimensions as a list of texts.
fn push_keys(query: &mut QueryBuilder<Postgres>, by: &[Grouping]) {
    query.push("array[");
    for (index, dimension) in by.iter().enumerate() {
        let (before, behind) = dimension.as_text();
        query.push(if index == 0 { "" } else { ", " }).push(before).push("k").push(index).push(behind);
    }
    query.push("]::text[]");
}

impl Store {
    /// Sums by these dimensions, in the order of their values; without dimensions, one row with the sum of all.
    pub async fn totals(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<Totals>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by);
        query.push(" as keys, s.* from (select ");
        push_dimensions(&mut query, by);
        query.push(
            "coalesce(sum(enqueued), 0)::bigint as enqueued, coalesce(sum(succeeded), 0)::bigint as succeeded,
             coalesce(sum(failed), 0)::bigint as failed, coalesce(sum(cancelled), 0)::bigint as cancelled,
             coalesce(sum(attempts), 0)::bigint as attempts,
             coalesce(sum(attempts) filter (where t.class <> ''), 0)::bigint as unused,
             coalesce(sum(fallbacks), 0)::bigint as fallbacks, coalesce(sum(repaired), 0)::bigint as repaired,
             sluice.capped(coalesce(sum(input_tokens), 0)) as input_tokens,
             sluice.capped(coalesce(sum(cached_tokens), 0)) as cached_tokens,
             sluice.capped(coalesce(sum(cache_write_tokens), 0)) as cache_write_tokens,
             sluice.capped(coalesce(sum(cache_priced_tokens), 0)) as cache_priced_tokens,
             sluice.capped(coalesce(sum(cache_saved_nanos), 0)) as cache_saved,
             sluice.capped(coalesce(sum(output_tokens), 0)) as output_tokens,
             sluice.capped(coalesce(sum(cost_nanos), 0)) as cost,
             sluice.capped(coalesce(sum(waste_nanos), 0)) as waste,
             sluice.capped(coalesce(sum(uncertain_nanos), 0)) as uncertain,
             coalesce(sum(unpriced), 0)::bigint as unpriced,
             coalesce(sum(detours), 0)::bigint as detours,
             sluice.capped(coalesce(sum(detour_cost_nanos), 0)) as detour_cost,
             sluice.capped(coalesce(sum(extra_nanos), 0)) as detour_extra,
             coalesce(sum(extra_unknown), 0)::bigint as detour_unknown,
             coalesce(sum(reasks), 0)::bigint as reasks,
             coalesce(sum(reasks) filter (where t.class = ''), 0)::bigint as reasks_accepted,
             sluice.capped(coalesce(sum(reask_cost_nanos), 0)) as reask_cost,
             sluice.capped(coalesce(sum(reask_cost_nanos) filter (where t.class <> ''), 0)) as reask_waste,
             coalesce(sum(reask_unpriced), 0)::bigint as reasks_unpriced
           from ",
        );
        filter.push_source(&mut query, by);
        query.push(" where true");
        filter.push(&mut query);
        for index in 0..by.len() {
            query.push(if index == 0 { " group by " } else { ", " }).push(index + 1);
        }
        query.push(") s order by 1");
        let mut transaction = self.reading("summing up").await?;
        let rows = query.build().fetch_all(&mut transaction).await.doing("summing up")?;
        transaction.commit().await.doing("summing up")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<Totals, sqlx::Error> {
            Ok(Totals {
                keys: Keys::of(by, row.try_get::<Vec<String>, _>("keys")?),
                enqueued: row.try_get("enqueued")?,
                succeeded: row.try_get("succeeded")?,
                failed: row.try_get("failed")?,
                cancelled: row.try_get("cancelled")?,
                attempts: row.try_get("attempts")?,
                unused: row.try_get("unused")?,
                fallbacks: row.try_get("fallbacks")?,
                repaired: row.try_get("repaired")?,
                input_tokens: row.try_get("input_tokens")?,
                cached_tokens: row.try_get("cached_tokens")?,
                cache_write_tokens: row.try_get("cache_write_tokens")?,
                cache_priced_tokens: row.try_get("cache_priced_tokens")?,
                cache_saved: NanoUsd(row.try_get("cache_saved")?),
                output_tokens: row.try_get("output_tokens")?,
                cost: NanoUsd(row.try_get("cost")?),
                waste: NanoUsd(row.try_get("waste")?),
                uncertain: NanoUsd(row.try_get("uncertain")?),
                unpriced: row.try_get("unpriced")?,
                detours: row.try_get("detours")?,
                detour_cost: NanoUsd(row.try_get("detour_cost")?),
                detour_extra: NanoUsd(row.try_get("detour_extra")?),
                detour_unknown: row.try_get("detour_unknown")?,
                reasks: row.try_get("reasks")?,
                reasks_accepted: row.try_get("reasks_accepted")?,
                reask_cost: NanoUsd(row.try_get("reask_cost")?),
                reask_waste: NanoUsd(row.try_get("reask_waste")?),
                reasks_unpriced: row.try_get("reasks_unpriced")?,
            })
        };
        let mut totals: Vec<Totals> = rows.into_iter().map(read).collect::<Result<_, _>>().doing("summing up")?;
        if !by.is_empty() {
            totals.retain(|row| !row.is_void());
        }
        Ok(totals)
    }

    /// A transaction for a long report: twenty thousand groups are gathered in memory, and not sorted on disk.
    async fn reading(&self, doing: &'static str) -> Result<Transaction, StoreError> {
        let mut transaction = self.db.begin().await.doing(doing)?;
        sqlx::raw_sql("set local work_mem = '64MB'").execute(&mut transaction).await.doing(doing)?;
        Ok(transaction)
    }

    /// Answers that were given again. Only routes, projects, days and hours are known of them.
    pub async fn cache_uses(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<CacheUse>, StoreError> {
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by);
        query.push(" as keys, s.* from (select ");
        push_dimensions(&mut query, by);
        query.push(
            "sum(answers)::bigint as answers, sluice.capped(sum(saved_nanos)) as saved,
             sum(unpriced)::bigint as unpriced
           from sluice.cache_use t where true",
        );
        filter.push_times(&mut query);
        filter.push_labels(&mut query);
        // By the last one, too, which is the same in all rows: where there are none, nothing is told.
        for index in 0..=by.len() {
            query.push(if index == 0 { " group by " } else { ", " }).push(index + 1);
        }
        query.push(") s order by 1");
        let rows = query.build().fetch_all(&self.db).await.doing("summing up what was given again")?;
        let read = |row: sqlx::postgres::PgRow| -> Result<CacheUse, sqlx::Error> {
            Ok(CacheUse {
                keys: Keys::of(by, row.try_get::<Vec<String>, _>("keys")?),
                answers: row.try_get("answers")?,
                saved: NanoUsd(row.try_get("saved")?),
                unpriced: row.try_get("unpriced")?,
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing("summing up what was given again")
    }

    /// The batches in which something happened last, at most this many of them, if there are more; `None`: these are
    /// all. They are looked for in the latest thirty thousand sums, however many batches there are.
    pub async fn latest_batches_in(&self, filter: &Filter, most: usize) -> Result<Option<Vec<String>>, StoreError> {
        const SUMS: i64 = 30_000;
        let mut query = QueryBuilder::new(
            "with seen as materialized (select t.batch, t.hour from sluice.totals t where t.batch <> ''",
        );
        filter.push(&mut query);
        query.push(" order by t.hour desc limit ").push(SUMS + 1).push(
            ") select batch, (select count(*) from seen) as seen from seen group by batch
                order by max(hour) desc, batch limit ",
        );
        query.push_bind(i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1));
        let rows = query.build().fetch_all(&self.db).await.doing("looking for batches")?;
        let read = |row: sqlx::postgres::PgRow| Ok((row.try_get("batch")?, row.try_get("seen")?));
        let rows: Vec<(String, i64)> =
            rows.into_iter().map(read).collect::<Result<_, sqlx::Error>>().doing("looking for batches")?;
        let is_all = rows.len() <= most && rows.first().is_none_or(|(_, seen)| *seen <= SUMS);
        Ok((!is_all).then(|| rows.into_iter().map(|(batch, _)| batch).take(most).collect()))
    }

    /// The hour in which this instant lies, by the database's clock; `None`: now.
    pub async fn hour_of(&self, moment: Option<Moment>) -> Result<DateTime<Utc>, StoreError> {
        let (at, ago) = match moment {
            Some(Moment::At(at)) => (Some(at), 0.0),
            Some(Moment::Ago(ago)) => (None, ago.as_secs_f64()),
            None => (None, 0.0),
        };
        sqlx::query_scalar!(
            r#"select date_trunc('hour', coalesce($1, now() - make_interval(secs => $2)), 'UTC') as "hour!""#,
            at,
            ago
        )
        .fetch_one(&self.db)
        .await
        .doing("asking for the time")
    }
}
