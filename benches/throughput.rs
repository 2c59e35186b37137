//! Throughput in three layers, in one run, on one private Postgres with fsync on:
//! bare batched SQL (the floor), the queue alone (claim, open the calls, settle; no HTTP), and end to end (the real
//! worker against the real simulator). Prints the median of several runs and the ratios; `make bench`.
//!
//! Options by environment: `SLUICE_BENCH_RUNS` (3), `SLUICE_BENCH_JOBS` (20000), `SLUICE_BENCH_DEPTH` (50000).
//! `SLUICE_BENCH_ONLY=budgets`: end to end alone, with no budget, one and three by turns, and the processor time of a
//! job.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use sluice::domain::price::Price;
use sluice::domain::{NanoUsd, Target, Timestamp, Usage, UsageSource};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sluice::store::call::OpenCall;
use sluice::store::claim::{Claimed, Take};
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "support/fast.rs"]
mod fast;
#[path = "support/processor.rs"]
mod processor;
mod support;

use fast::{fast_provider, fast_worker};
use processor::{processor_time, processor_time_of_all};
use support::{Running, open_to_all, setting};

const BATCH: usize = 500;
const CONNECTIONS: usize = 2;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs this too; there is nothing to check in that case.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(bench())
}

async fn bench() -> anyhow::Result<()> {
    let (runs, jobs, depth) =
        (setting("SLUICE_BENCH_RUNS", 3), setting("SLUICE_BENCH_JOBS", 20_000), setting("SLUICE_BENCH_DEPTH", 50_000));
    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let postgres =
        EmbeddedPostgres::start(&Options { data_dir: scratch.path().join("pg"), fsync: true, max_connections: 50 })
            .await?;
    let pool = PgPoolOptions::new().max_connections(8).connect_with(postgres.connect_options("sluice")).await?;
    Store::from_pool(pool.clone()).migrate().await?;
    bare_schema(&pool).await?;

    let mut out = sluice::printable::stdout();
    if std::env::var("SLUICE_BENCH_ONLY").is_ok_and(|only| only == "budgets") {
        let url = postgres.url("sluice");
        budgets(&mut out, &pool, &url, scratch.path(), (runs, jobs)).await?;
        pool.close().await;
        postgres.stop().await?;
        return Ok(());
    }
    writeln!(out, "{runs} runs, {depth} jobs queued for bare SQL and queue alone, {jobs} jobs end to end")?;
    writeln!(out, "1 KB requests and answers, fsync on, {BATCH} a statement on {CONNECTIONS} connections")?;
    let (mut floor, mut queue, mut whole, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        floor.push(bare(&pool, depth).await?);
        queue.push(queue_alone(&pool, depth).await?);
        let url = postgres.url("sluice");
        let Whole { rate, peak, .. } = end_to_end(&pool, &url, scratch.path(), jobs).await?;
        whole.push(rate);
        memory.push(peak);
        writeln!(
            out,
            "run {run}: bare SQL {:.0} jobs/s, queue alone {:.0} jobs/s, end to end {rate:.0} jobs/s at {peak:.0} MB",
            floor[run - 1],
            queue[run - 1]
        )?;
    }
    let (floor, queue, whole, memory) = (median(floor), median(queue), median(whole), median(memory));
    writeln!(out, "\nmedian             jobs/s   of bare SQL")?;
    writeln!(out, "bare SQL        {floor:>9.0}          1.00")?;
    writeln!(out, "queue alone     {queue:>9.0}          {:.2}", queue / floor)?;
    writeln!(out, "end to end      {whole:>9.0}          {:.2}", whole / floor)?;
    writeln!(out, "worker memory   {memory:>9.0} MB resident at most, 500 in flight")?;
    pool.close().await;
    postgres.stop().await?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn body() -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "lorem ipsum ".repeat(80))
}

async fn bare_schema(pool: &PgPool) -> anyhow::Result<()> {
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

/// Claim with a delete, write result and attempt, and nothing else.
async fn bare(pool: &PgPool, depth: usize) -> anyhow::Result<f64> {
    sqlx::raw_sql("truncate bare.job, bare.ready, bare.result, bare.attempt").execute(pool).await?;
    sqlx::query("insert into bare.job select g, $1::text::jsonb from generate_series(1, $2::bigint) g")
        .bind(body())
        .bind(i64::try_from(depth)?)
        .execute(pool)
        .await?;
    sqlx::raw_sql("insert into bare.ready select id from bare.job order by id; analyze bare.ready; checkpoint")
        .execute(pool)
        .await?;
    let began = Instant::now();
    let workers = (0..CONNECTIONS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            loop {
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
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    Ok(rate(depth, began.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}

async fn fill(pool: &PgPool, jobs: usize) -> anyhow::Result<()> {
    sqlx::raw_sql("truncate sluice.job, sluice.ready, sluice.inflight, sluice.result, sluice.attempt, sluice.tally")
        .execute(pool)
        .await?;
    sqlx::query("insert into sluice.job (request) select $1::text::jsonb from generate_series(1, $2::bigint)")
        .bind(body())
        .bind(i64::try_from(jobs)?)
        .execute(pool)
        .await?;
    sqlx::raw_sql("analyze sluice.ready; analyze sluice.inflight; analyze sluice.job; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}

/// The product's own claim, opening of calls and settle, with attempt and result rows, but without making the calls.
async fn queue_alone(pool: &PgPool, depth: usize) -> anyhow::Result<f64> {
    fill(pool, depth).await?;
    let store = Store::from_pool(pool.clone());
    let lane = store.lanes().await?.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was queued"))?;
    let (worker, _) = store.register("bench", 0, "bench").await?;
    let began = Instant::now();
    let workers = (0..CONNECTIONS).map(|_| {
        let (store, lane) = (store.clone(), lane.clone());
        tokio::spawn(async move {
            let mut after = i64::MIN;
            loop {
                let take = Take { flow: lane.flow, prio: lane.prio, after, count: i32::try_from(BATCH)? };
                let claimed = store.claim(worker, &[take], usize::MAX).await?.jobs;
                let Some(last) = claimed.iter().map(|job| job.lease.job.0).max() else { return anyhow::Ok(()) };
                after = last;
                store.open_calls(&calls(&claimed), 0).await?;
                store.settle(&answered(&claimed)).await?;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    let took = began.elapsed();
    let done: i64 = sqlx::query_scalar("select count(*) from sluice.result").fetch_one(pool).await?;
    anyhow::ensure!(usize::try_from(done)? == depth, "{done} of {depth} jobs have a result");
    Ok(rate(depth, took))
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
        });
    }
    all
}

/// What one run end to end came to.
struct Whole {
    /// Jobs a second.
    rate: f64,
    /// Megabytes that the worker had at most.
    peak: f64,
    /// Processor time of the worker, in seconds.
    worker: f64,
}

/// What budgets cost: the same jobs with none, with one and with three, by turns, so that what else the machine does
/// meets all of them.
async fn budgets(
    out: &mut impl Write,
    pool: &PgPool,
    url: &str,
    scratch: &Path,
    (runs, jobs): (usize, usize),
) -> anyhow::Result<()> {
    const BUDGETS: [usize; 3] = [0, 1, 3];
    let postmaster = std::fs::read_to_string(scratch.join("pg/data/postmaster.pid"))?;
    let postmaster: u32 = postmaster.lines().next().unwrap_or_default().trim().parse()?;
    let mut seen = BUDGETS.map(|_| (Vec::new(), Vec::new(), Vec::new()));
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = |seconds: f64| seconds * 1e6 / jobs as f64;
    for _ in 0..runs {
        for (budgets, seen) in BUDGETS.into_iter().zip(&mut seen) {
            sqlx::raw_sql("select sluice.drop_budget(name) from sluice.budget").execute(pool).await?;
            for (name, covers) in [("all", ""), ("project", ", project => 'default'"), ("day", ", per => 'day'")]
                .into_iter()
                .take(budgets)
            {
                let limit = if name == "day" { 900_000 } else { 1_000_000 };
                let statement = format!("select sluice.set_budget('{name}', {limit}{covers})");
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
            }
            let before = processor_time_of_all(postmaster)?;
            let Whole { rate, worker, .. } = end_to_end(pool, url, scratch, jobs).await?;
            seen.0.push(rate);
            seen.1.push(each(worker));
            seen.2.push(each(processor_time_of_all(postmaster)? - before));
        }
    }
    writeln!(out, "{runs} runs of {jobs} jobs each, medians; processor time of a job in microseconds")?;
    writeln!(out, "{:>7} {:>9} {:>9} {:>9}", "budgets", "jobs/s", "worker", "server")?;
    for (budgets, (rate, worker, server)) in BUDGETS.into_iter().zip(seen) {
        writeln!(out, "{budgets:>7} {:>9.0} {:>9.0} {:>9.0}", median(rate), median(worker), median(server))?;
    }
    Ok(())
}

/// The real worker against the real simulator, each its own process.
async fn end_to_end(pool: &PgPool, url: &str, scratch: &Path, jobs: usize) -> anyhow::Result<Whole> {
    fill(pool, jobs).await?;
    let (_simulator, provider) = fast_provider(scratch)?;
    let mut worker = Running(fast_worker(scratch, url, &provider)?.args(["worker", "--drain"]).spawn()?);
    let (mut peak, mut spent) = (0.0_f64, 0.0_f64);
    let status = loop {
        if let Some(status) = worker.0.try_wait()? {
            break status;
        }
        peak = peak.max(resident_mb(worker.0.id()));
        spent = spent.max(processor_time(worker.0.id()).unwrap_or(0.0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    anyhow::ensure!(status.success(), "the worker ended with {status}");
    let done: i64 =
        sqlx::query_scalar("select count(*) from sluice.result where state = 'succeeded'").fetch_one(pool).await?;
    anyhow::ensure!(usize::try_from(done)? == jobs, "{done} of {jobs} jobs succeeded");
    // From the first claim to the last result, so that starting and stopping the process does not count.
    let seconds: f64 = sqlx::query_scalar(
        "select extract(epoch from (select max(finished_at) from sluice.result)
                                 - (select min(started_at) from sluice.attempt))::float8",
    )
    .fetch_one(pool)
    .await?;
    Ok(Whole { rate: rate(jobs, Duration::from_secs_f64(seconds)), peak, worker: spent })
}

fn resident_mb(pid: u32) -> f64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0.0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .map_or(0.0, |kilobytes| kilobytes / 1024.0)
}
