//! Computing costs again: the costs booked for calls are corrected, and everything that was summed up from it follows.
//!
//! This is the one place where the cost of an attempt changes after it was booked. The difference is booked into
//! `tally` in the attempt's hour, as late reports are; the results of the jobs are added up anew from the ledger.
//!
//! Live workers are not hurt: a step reads without locks, and then changes a few hundred attempts in one short
//! transaction, each only if it still says what the step has read. Those that have changed meanwhile are left to the
//! next run. Where a worker settles some of the same jobs at that moment, it is the step that yields: it waits for a
//! lock for less than Postgres waits until it looks for a deadlock, and then tries again with half as many attempts.

use super::database::Transaction;
use super::stretches::IdRange;
use super::{Doing, Store, StoreError, bill};
use crate::domain::price::Price;
use crate::domain::{JobId, NanoUsd, Timestamp, Usage, UsageSource};
use chrono::{DateTime, Utc};
use serde_json::Value;

const REPRICING: &str = "computing costs again";

/// How many job numbers one look covers. It holds as many calls in memory as these jobs have.
const AT_ONCE: i64 = 2_000;

/// How many attempts one transaction changes.
const AT_A_TIME: usize = 500;

/// How long a step waits for a lock: less than `deadlock_timeout` (1 s), so that no worker loses its transaction, and
/// less than a worker waits for Postgres before it spools the outcomes of its calls (500 ms).
const LOCK_TIMEOUT: &str = "200ms";

/// How often one step yields before the command gives up.
const YIELDS: u32 = 100;

/// Which attempts are computed again. A member that is `None` makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepriceScope {
    pub provider: Option<String>,
    /// The model, with or without its tier.
    pub model: Option<String>,
    pub route: Option<String>,
    pub batch: Option<String>,
    pub project: Option<String>,
    /// Attempts that ended at this instant or later.
    pub since: Option<DateTime<Utc>>,
    /// Attempts that ended before this instant.
    pub until: Option<DateTime<Utc>>,
}

/// An attempt, as far as its cost depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Costed {
    pub job: JobId,
    pub fence: i64,
    pub number: i16,
    pub provider: String,
    /// The model that was asked, with its tier.
    pub model: String,
    /// The model that the answer names.
    pub model_served: Option<String>,
    /// The tier that the answer names.
    pub service_tier: Option<String>,
    pub started_at: Timestamp,
    /// Whether it brought an answer, or was billed all the same.
    pub class: Option<String>,
    pub usage: Usage,
    /// The usage as the provider wrote it, if the tokens of an hour's cache are to be found there.
    pub usage_raw: Option<Value>,
    /// What it says of its cost now.
    pub cost: Option<NanoUsd>,
    pub computed: Option<NanoUsd>,
    pub reported: Option<NanoUsd>,
    pub source: Option<String>,
    pub price: Option<Price>,
    pub differs: bool,
    /// What it may have cost besides.
    pub uncertain: NanoUsd,
    /// What it says the provider's prompt cache has saved.
    pub cache_saved: Option<NanoUsd>,
}

/// What an attempt is to say of its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Recosted {
    /// The attempt as it was read.
    pub was: Costed,
    pub cost: Option<NanoUsd>,
    pub computed: Option<NanoUsd>,
    pub source: Option<&'static str>,
    pub price: Option<Price>,
    pub differs: bool,
}

impl Recosted {
    /// What the provider's prompt cache has saved by the new price.
    fn cache_saved(&self) -> Option<NanoUsd> {
        let price = self.computed.and(self.price)?;
        self.was.usage.is_cached().then(|| price.saved_by_cache(&self.was.usage))
    }
}

/// The walk over the attempts of a scope, the newest jobs first.
pub struct Walk<'a> {
    store: &'a Store,
    scope: RepriceScope,
    stretches: super::stretches::Stretches<'a>,
}

impl Store {
    /// Walks over the attempts whose cost can be computed: those that report or estimate their tokens and were charged,
    /// and all those whose cost is unknown. `below`: only jobs with smaller numbers, to go on where a walk was broken
    /// off.
    #[must_use]
    pub fn costed(&self, scope: RepriceScope, below: Option<JobId>) -> Walk<'_> {
        let last = below.map_or(i64::MAX, |JobId(job)| job.saturating_sub(1));
        Walk { store: self, scope, stretches: self.stretches(last, AT_ONCE) }
    }

    /// Writes the new costs, in steps. Returns how many attempts were changed; the others say something else by now
    /// than when they were read.
    pub async fn recost(&self, changes: &[Recosted]) -> Result<u64, StoreError> {
        let mut changed = 0;
        let mut left: Vec<&[Recosted]> = changes.chunks(AT_A_TIME).rev().collect();
        let mut yields = 0;
        while let Some(some) = left.pop() {
            match self.recost_step(some).await {
                Ok(written) => {
                    changed += written;
                    yields = 0;
                }
                Err(error) if error.is_contention() && yields < YIELDS => {
                    yields += 1;
                    let (first, second) = some.split_at(some.len().div_ceil(2));
                    left.extend([second, first].into_iter().filter(|part| !part.is_empty()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    async fn recost_step(&self, changes: &[Recosted]) -> Result<u64, StoreError> {
        let mut transaction = self.db.begin().await.doing(REPRICING)?;
        sqlx::query!("select set_config('lock_timeout', $1, true)", LOCK_TIMEOUT)
            .fetch_one(&mut transaction)
            .await
            .doing(REPRICING)?;
        let changed = write(&mut transaction, changes).await?;
        transaction.commit().await.doing(REPRICING)?;
        Ok(changed)
    }

    /// The instant that lies so many seconds before now, by the clock of the database.
    pub async fn seconds_ago(&self, seconds: f64) -> Result<DateTime<Utc>, StoreError> {
        sqlx::query_scalar!(r#"select now() - make_interval(secs => $1) as "at!""#, seconds)
            .fetch_one(&self.db)
            .await
            .doing("asking for the time")
    }
}

impl Walk<'_> {
    /// The attempts of the next jobs, and the number down to which they come; `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<(JobId, Vec<Costed>)>, StoreError> {
        let Some(IdRange { first, last }) = self.stretches.next().await? else { return Ok(None) };
        let scope = &self.scope;
        let rows = sqlx::query_file!(
            "src/store/reprice/costed.sql",
            first,
            last,
            scope.provider.as_deref(),
            scope.model.as_deref(),
            scope.route.as_deref(),
            scope.batch.as_deref(),
            scope.project.as_deref(),
            scope.since,
            scope.until
        )
        .fetch_all(&self.store.db)
        .await
        .doing(REPRICING)?;
        let costed = rows.into_iter().map(|row| Costed {
            job: JobId(row.job_id),
            fence: row.fence,
            number: row.number,
            provider: row.provider,
            model: row.model,
            model_served: row.model_served,
            service_tier: row.service_tier,
            started_at: Timestamp(row.started_at.timestamp_millis()),
            class: row.class,
            usage: Usage {
                input: row.input_tokens,
                cache_read: row.cache_read_tokens,
                cache_write: row.cache_write_tokens.saturating_sub(row.cache_write_1h_tokens.unwrap_or(0)),
                cache_write_1h: row.cache_write_1h_tokens.unwrap_or(0),
                output: row.output_tokens,
                reasoning: row.reasoning_tokens,
                source: match row.usage_source.as_str() {
                    "provider" => UsageSource::Provider,
                    "estimated" => UsageSource::Estimated,
                    _ => UsageSource::Unknown,
                },
            },
            usage_raw: row.usage_raw.and_then(|text| serde_json::from_str(&text).ok()),
            cost: row.cost_nanos.map(NanoUsd),
            computed: row.computed_cost_nanos.map(NanoUsd),
            reported: row.reported_cost_nanos.map(NanoUsd),
            source: row.cost_source,
            price: row.price.and_then(|text| serde_json::from_str(&text).ok()),
            differs: row.cost_differs,
            uncertain: NanoUsd(row.uncertain_nanos),
            cache_saved: row.cache_saved_nanos.map(NanoUsd),
        });
        Ok(Some((JobId(first), costed.collect())))
    }
}

async fn write(transaction: &mut Transaction, changes: &[Recosted]) -> Result<u64, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            changes.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let jobs: Vec<i64> = column!(row => row.was.job.0);
    // The process that ends such a job waits for this transaction, and then adds up what it has written.
    bill::hold(transaction, &jobs).await?;
    let nanos = |amount: Option<NanoUsd>| amount.map(|amount| amount.of_a_call().0);
    let changed = sqlx::query_file_scalar!(
        "src/store/reprice/recost.sql",
        &jobs,
        &column!(row => row.was.fence),
        &column!(row => row.was.number),
        &column!(row => row.was.cost.map(|cost| cost.0)) as _,
        &column!(row => row.was.computed.map(|cost| cost.0)) as _,
        &column!(row => nanos(row.cost)) as _,
        &column!(row => nanos(row.computed)) as _,
        &column!(row => row.source) as _,
        &column!(row => row.price.as_ref().map(super::settle::json_text)) as _,
        &column!(row => row.differs),
        &column!(row => row.was.usage.cache_write_1h),
        &column!(row => row.was.uncertain.0),
        &column!(row => row.was.cache_saved.map(|saved| saved.0)) as _,
        &column!(row => row.cache_saved().map(|saved| saved.0)) as _
    )
    .fetch_all(&mut *transaction)
    .await
    .doing(REPRICING)?;
    if !changed.is_empty() {
        bill::add_up(transaction, &changed).await?;
    }
    u64::try_from(changed.len()).map_or(Ok(u64::MAX), Ok)
}
