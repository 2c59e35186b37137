//! What the queue costs without calls: bare batched SQL, and the product's own claim, opening of calls and settle.

use super::processor::{processor_time, processor_time_of_all};
use super::whole::{Cost, Subject};
use super::{body, fill};
use sluice::domain::price::Price;
use sluice::domain::{NanoUsd, Target, Timestamp, Usage, UsageSource};
use sluice::store::call::OpenCall;
use sluice::store::claim::{Claimed, Take};
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use sluice::store::{Address, Pooler, Purpose, Store};
use sqlx::PgPool;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Jobs in a statement, and connections.
pub const BATCH: usize = 500;
pub const CONNECTIONS: usize = 2;

/// The tables of bare SQL.
pub async fn bare_schema(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "create schema bare;
         create table bare.job (id bigint primary key, request jsonb not null);
         create table bare.ready (id bigint primary key);
         create table bare.result (id bigint primary key, response jsonb not null);
         create table bare.attempt (id bigint, number smallint, provider text, at timestamptz, tokens bigint,
                                   cost bigint,
                                    primary key (id, number));",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Claim with a delete, write result and attempt, and nothing else: `jobs` of `depth` that are queued.
pub async fn bare(subject: &Subject, depth: usize, jobs: usize) -> anyhow::Result<Cost> {
    let pool = &subject.pool;
    sqlx::raw_sql("truncate bare.job, bare.ready, bare.result, bare.attempt").execute(pool).await?;
    sqlx::query("insert into bare.job select g, $1::text::jsonb from generate_series(1, $2::bigint) g")
        .bind(body())
        .bind(i64::try_from(depth)?)
        .execute(pool)
        .await?;
    sqlx::raw_sql("insert into bare.ready select id from bare.job order by id; analyze bare.ready; checkpoint")
        .execute(pool)
        .await?;
    let spent = Spent::so_far(subject).await?;
    let left = Arc::new(AtomicUsize::new(jobs));
    let workers = (0..CONNECTIONS).map(|_| {
        let (pool, left) = (pool.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            while take(&left) {
                let rows: Vec<(i64, serde_json::Value)> = sqlx::query_as(
                    "with picked as materialized (select ctid as tid from bare.ready order by id limit 500 for update \
                     skip locked),
                          gone as (delete from bare.ready where ctid = any (array(select tid from picked)) returning id)
                     select j.id, j.request from gone join bare.job j using (id)",
                )
                .fetch_all(&pool)
                .await?;
                if rows.is_empty() {
                    return anyhow::Ok(());
                }
                let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
                let answers: Vec<String> = rows.iter().map(|_| body()).collect();
                let mut transaction = pool.begin().await?;
                sqlx::query("insert into bare.result select * from unnest($1::bigint[], $2::text[]::jsonb[])")
                    .bind(&ids)
                    .bind(&answers)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query(
                    "insert into bare.attempt select id, 1, 'p', now(), 100, 1000 from unnest($1::bigint[]) id",
                )
                .bind(&ids)
                .execute(&mut *transaction)
                .await?;
                transaction.commit().await?;
            }
            anyhow::Ok(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    spent.since(subject, jobs).await
}

/// Whether one more batch is to be worked.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(BATCH)).is_ok()
}

/// The product's own claim, opening of calls and settle, with attempt and result rows, but without making the calls:
/// `jobs` of `depth` that are queued.
pub async fn queue_alone(subject: &Subject, depth: usize, jobs: usize) -> anyhow::Result<Cost> {
    let pool = &subject.pool;
    fill(pool, depth).await?;
    // As a worker connects: its plans depend on it.
    let address = Address::of(pool.connect_options().as_ref().clone());
    let connections = u32::try_from(CONNECTIONS)?;
    let store = Store::connect_through(Pooler::None, Purpose::Work, &address, connections).await?;
    // A worker reads it first, and learns in which form to write answers.
    store.require_schema().await?;
    let lane = store.lanes().await?.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was queued"))?;
    let (worker, _) = store.register("bench", 0, "bench").await?;
    let spent = Spent::so_far(subject).await?;
    let left = Arc::new(AtomicUsize::new(jobs));
    let workers = (0..CONNECTIONS).map(|_| {
        let (store, lane, left) = (store.clone(), lane.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let mut after = i64::MIN;
            while take(&left) {
                let take = Take { flow: lane.flow, prio: lane.prio, after, count: i32::try_from(BATCH)? };
                let claimed = store.claim(worker, &[take], usize::MAX).await?.jobs;
                let Some(last) = claimed.iter().map(|job| job.lease.job.0).max() else { return anyhow::Ok(()) };
                after = last;
                store.open_calls(&calls(&claimed), 0).await?;
                store.settle(&answered(&claimed)).await?;
            }
            anyhow::Ok(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    let cost = spent.since(subject, jobs).await?;
    store.close().await;
    let done: i64 = sqlx::query_scalar("select count(*) from sluice.result").fetch_one(pool).await?;
    anyhow::ensure!(usize::try_from(done)? == jobs, "{done} of {jobs} jobs have a result");
    Ok(cost)
}

fn calls(claimed: &[Claimed]) -> Vec<OpenCall> {
    let now = Timestamp(chrono::Utc::now().timestamp_millis());
    let target = Target::new("provider", "model");
    let open = |job: &Claimed| OpenCall {
        lease: job.lease,
        number: 1,
        target: target.clone(),
        rung: 0,
        started_at: now,
        worst: Some(NanoUsd(2000)),
        labels: Arc::new(job.labels()),
    };
    claimed.iter().map(open).collect()
}

fn answered(claimed: &[Claimed]) -> Settlement {
    let mut all = Settlement::default();
    let now = Timestamp(chrono::Utc::now().timestamp_millis());
    for job in claimed {
        let labels = Arc::new(job.labels());
        let usage = Usage { input: 250, output: 250, source: UsageSource::Provider, ..Usage::default() };
        all.attempts.push(AttemptRow {
            lease: job.lease,
            labels: Arc::clone(&labels),
            number: 1,
            round: 0,
            provider: "provider".to_owned(),
            model: "model".to_owned(),
            rung: 0,
            started_at: now,
            ended_at: now,
            first_byte_ms: Some(1),
            total_ms: 1,
            class: None,
            detail: None,
            http_status: Some(200),
            code: None,
            message: None,
            retry_at: None,
            request_id: Some("req_0123456789".to_owned()),
            model_served: Some("model".to_owned()),
            finish: Some("stop".to_owned()),
            usage_raw: Some(serde_json::json!({ "prompt_tokens": 250, "completion_tokens": 250 })),
            usage,
            cost: Some(NanoUsd(1000)),
            uncertain: NanoUsd::ZERO,
            price: Some(Price::plain(150_000_000, 600_000_000)),
            decision: None,
            answer: None,
            service_tier: None,
            reported_cost: None,
            computed_cost: None,
            cost_differs: false,
            cost_source: None,
            reask_of: None,
            confidence: None,
            first_choice: None,
            raced: false,
            notes: Vec::new(),
        });
        all.endings.push(EndingRow {
            lease: job.lease,
            round: job.round,
            labels,
            attempts: 1,
            target: Some(("provider".to_owned(), "model".to_owned())),
            rung: Some(0),
            after_fallback: false,
            repaired: false,
            failure: None,
            cost: Some(NanoUsd(1000)),
            uncertain: NanoUsd::ZERO,
            input_tokens: 250,
            output_tokens: 250,
            request_id: Some("req_0123456789".to_owned()),
            response: Some(body()),
            raced: false,
            cache: None,
            confidence: None,
            unsure: None,
            shadow: None,
        });
    }
    all
}

/// What was spent when work began that this process does itself.
struct Spent {
    began: Instant,
    client: f64,
    server: f64,
    wal: f64,
}

impl Spent {
    async fn so_far(subject: &Subject) -> anyhow::Result<Self> {
        let written = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
        let wal = sqlx::query_scalar(written).fetch_one(&subject.pool).await?;
        let (client, server) = (processor_time(std::process::id())?, processor_time_of_all(subject.postmaster)?);
        Ok(Self { began: Instant::now(), client, server, wal })
    }

    async fn since(self, subject: &Subject, jobs: usize) -> anyhow::Result<Cost> {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = Self::so_far(subject).await?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let jobs = jobs as f64;
        Ok(Cost {
            rate: jobs / seconds,
            worker: (now.client - self.client) * 1e6 / jobs,
            server: (now.server - self.server) * 1e6 / jobs,
            simulator: 0.0,
            wal: (now.wal - self.wal) / jobs,
        })
    }
}
