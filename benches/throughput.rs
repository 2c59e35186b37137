//! Throughput in three layers, in one run, on one private Postgres with fsync on:
//! bare batched SQL (the floor), the queue alone (claim, open the calls, settle; no HTTP), and end to end (the real
//! worker against the real simulator). Prints medians, processor time and WAL of a job, and ratios; `make bench`. In
//! the end, once: many jobs in a fresh database, whose last fifth is compared with the first.
//!
//! The machine may be busy with other work. Then the processor time of a job says more than jobs a second.
//!
//! Options by environment: `SLUICE_BENCH_RUNS` (3); `SLUICE_BENCH_JOBS` (60000) after a warm-up of `SLUICE_BENCH_WARM`
//! (5000); `SLUICE_BENCH_DEPTH` (50000): jobs for bare SQL and the queue alone; `SLUICE_BENCH_FRESH` (200000): jobs in
//! the fresh database, 0: none.
//! `SLUICE_BENCH_BEFORE`: another `sluice` program, which works end to end by turns with this one, in a database of its
//! own (with a fresh one in the end as well).
//! `SLUICE_BENCH_ONLY`: one part only: `queue` (bare SQL and the queue alone), `whole` (end to end), `fresh`, or
//! `budgets` (end to end with no budget, one and three by turns).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use sluice::domain::price::Price;
use sluice::domain::{NanoUsd, Target, Timestamp, Usage, UsageSource};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::call::OpenCall;
use sluice::store::claim::{Claimed, Take};
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use sluice::store::{Address, Pooler, Purpose, Store};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

#[path = "support/fast.rs"]
mod fast;
#[path = "support/processor.rs"]
mod processor;
mod support;
#[path = "support/whole.rs"]
mod whole;

use processor::{processor_time, processor_time_of_all};
use support::{open_to_all, setting};
use whole::{Cost, Subject, Whole, end_to_end};

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
    let (runs, warm, jobs) =
        (setting("SLUICE_BENCH_RUNS", 3), setting("SLUICE_BENCH_WARM", 5_000), setting("SLUICE_BENCH_JOBS", 60_000));
    let (depth, fresh_jobs) = (setting("SLUICE_BENCH_DEPTH", 50_000), setting("SLUICE_BENCH_FRESH", 200_000));
    let before: String = setting("SLUICE_BENCH_BEFORE", String::new());
    let only: String = setting("SLUICE_BENCH_ONLY", String::new());
    let does = |part: &str| only.is_empty() || only == part;
    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let postgres =
        EmbeddedPostgres::start(&Options { data_dir: scratch.path().join("pg"), fsync: true, max_connections: 50 })
            .await?;
    let server = Server { postmaster: postmaster(scratch.path())?, postgres: &postgres };
    let this = server.subject("this", fast::PROGRAM, "sluice").await?;
    let mut out = sluice::printable::stdout();
    if only == "budgets" {
        return budgets(&mut out, &this, scratch.path(), (runs, jobs)).await;
    }
    let mut subjects = vec![this.clone()];
    if !before.is_empty() {
        subjects.insert(0, server.subject("before", &before, "before").await?);
    }
    writeln!(out, "{runs} runs, medians; 1 KB requests and answers, fsync on")?;
    writeln!(out, "processor time of a job in microseconds; WAL in bytes")?;
    if does("queue") {
        writeln!(out, "\n{depth} jobs queued, {BATCH} a statement on {CONNECTIONS} connections")?;
        bare_schema(&this.pool).await?;
        let (mut floor, mut queue) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            floor.push(bare(&this, depth).await?);
            queue.push(queue_alone(&this, depth).await?);
        }
        let (floor, queue) = (medians(&floor), medians(&queue));
        head(&mut out)?;
        line(&mut out, "bare SQL", &floor, &floor)?;
        line(&mut out, "queue alone", &queue, &floor)?;
    }
    if does("whole") {
        writeln!(out, "\n{jobs} jobs end to end after {warm} to warm up, 500 in flight")?;
        let mut seen = subjects.iter().map(|_| Vec::new()).collect::<Vec<Vec<Whole>>>();
        for _ in 0..runs {
            for (subject, seen) in subjects.iter().zip(&mut seen) {
                fill(&subject.pool, warm + jobs).await?;
                seen.push(end_to_end(subject, scratch.path(), warm, jobs).await?);
            }
        }
        head(&mut out)?;
        let costs = |seen: &Vec<Whole>| medians(&seen.iter().map(|whole| whole.all).collect::<Vec<_>>());
        let first = seen.first().map(costs).unwrap_or_default();
        for (subject, seen) in subjects.iter().zip(&seen) {
            line(&mut out, subject.name, &costs(seen), &first)?;
            let rates: Vec<String> = seen.iter().map(|whole| format!("{:.0}", whole.all.rate)).collect();
            let peak = median(seen.iter().map(|whole| whole.peak).collect());
            writeln!(out, "{:>12} {peak:.0} MB resident at most; jobs/s of each run: {}", "", rates.join(", "))?;
        }
    }
    if does("fresh") && fresh_jobs > 0 {
        writeln!(out, "\n{fresh_jobs} jobs in a fresh database: its first fifth and its last")?;
        head(&mut out)?;
        for (subject, database) in subjects.iter().zip(["fresh_one", "fresh_two"]) {
            let fresh = server.subject(subject.name, &subject.program, database).await?;
            enqueue(&fresh.pool, warm + fresh_jobs).await?;
            let [first, last] = end_to_end(&fresh, scratch.path(), warm, fresh_jobs).await?.ends;
            line(&mut out, &format!("{}, first", subject.name), &first, &first)?;
            line(&mut out, &format!("{}, last", subject.name), &last, &first)?;
            fresh.pool.close().await;
        }
    }
    for subject in subjects {
        subject.pool.close().await;
    }
    postgres.stop().await?;
    Ok(())
}

/// The server of the benchmark.
struct Server<'a> {
    postmaster: u32,
    postgres: &'a EmbeddedPostgres,
}

impl Server<'_> {
    /// A program with a database of its own, which has the schema of that program.
    async fn subject(&self, name: &'static str, program: &str, database: &str) -> anyhow::Result<Subject> {
        let connect =
            |database| PgPoolOptions::new().max_connections(8).connect_with(self.postgres.connect_options(database));
        if database != "sluice" {
            let statement = AssertSqlSafe(format!("create database {database}"));
            let pool = connect("sluice").await?;
            sqlx::raw_sql(statement).execute(&pool).await?;
            pool.close().await;
        }
        let (pool, url) = (connect(database).await?, self.postgres.url(database));
        // Where no configuration lies: an earlier program may not know all keys of the one in this folder.
        let program = &std::fs::canonicalize(program)?.display().to_string();
        let migrated = Command::new(program).arg("migrate").env("DATABASE_URL", &url).current_dir("/").output()?;
        let words = String::from_utf8_lossy(&migrated.stderr);
        anyhow::ensure!(migrated.status.success(), "{program} migrate: {words}");
        Ok(Subject { name, program: program.clone(), pool, url, postmaster: self.postmaster })
    }
}

/// The process id of the server.
fn postmaster(scratch: &Path) -> anyhow::Result<u32> {
    let written = std::fs::read_to_string(scratch.join("pg/data/postmaster.pid"))?;
    Ok(written.lines().next().unwrap_or_default().trim().parse()?)
}

fn head(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>8} {:>6} {:>7} {:>7} {:>10} {:>6} {:>8}",
        "", "jobs/s", "of it", "client", "server", "both, of", "simul.", "WAL"
    )
}

/// A line of a table, compared with another one.
fn line(out: &mut impl Write, name: &str, cost: &Cost, with: &Cost) -> std::io::Result<()> {
    let Cost { rate, worker, server, simulator, wal } = cost;
    let (paid, ratio, pay) = (cost.paid(), rate / with.rate, cost.paid() / with.paid());
    writeln!(
        out,
        "{name:>12} {rate:>8.0} {ratio:>6.2} {worker:>7.1} {server:>7.1} {paid:>5.1} {pay:>4.2} {simulator:>6.1} \
         {wal:>8.0}"
    )
}

fn medians(costs: &[Cost]) -> Cost {
    let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure).collect());
    Cost {
        rate: of(|cost| cost.rate),
        worker: of(|cost| cost.worker),
        server: of(|cost| cost.server),
        simulator: of(|cost| cost.simulator),
        wal: of(|cost| cost.wal),
    }
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
async fn bare(subject: &Subject, depth: usize) -> anyhow::Result<Cost> {
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
    spent.since(subject, depth).await
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

/// Empties the queue, and puts this many jobs into it.
async fn fill(pool: &PgPool, jobs: usize) -> anyhow::Result<()> {
    sqlx::raw_sql("truncate sluice.job, sluice.ready, sluice.inflight, sluice.result, sluice.attempt, sluice.tally")
        .execute(pool)
        .await?;
    enqueue(pool, jobs).await?;
    sqlx::raw_sql("analyze sluice.ready; analyze sluice.inflight; analyze sluice.job; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}

async fn enqueue(pool: &PgPool, jobs: usize) -> anyhow::Result<()> {
    sqlx::query("insert into sluice.job (request) select $1::text::jsonb from generate_series(1, $2::bigint)")
        .bind(body())
        .bind(i64::try_from(jobs)?)
        .execute(pool)
        .await?;
    Ok(())
}

/// The product's own claim, opening of calls and settle, with attempt and result rows, but without making the calls.
async fn queue_alone(subject: &Subject, depth: usize) -> anyhow::Result<Cost> {
    let pool = &subject.pool;
    fill(pool, depth).await?;
    // As a worker connects: its plans depend on it.
    let address = Address::of(pool.connect_options().as_ref().clone());
    let connections = u32::try_from(CONNECTIONS)?;
    let store = Store::connect_through(Pooler::None, Purpose::Work, &address, connections).await?;
    let lane = store.lanes().await?.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was queued"))?;
    let (worker, _) = store.register("bench", 0, "bench").await?;
    let spent = Spent::so_far(subject).await?;
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
    let cost = spent.since(subject, depth).await?;
    store.close().await;
    let done: i64 = sqlx::query_scalar("select count(*) from sluice.result").fetch_one(pool).await?;
    anyhow::ensure!(usize::try_from(done)? == depth, "{done} of {depth} jobs have a result");
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

/// What budgets cost: the same jobs with none, with one and with three, by turns, so that what else the machine does
/// meets all of them.
async fn budgets(
    out: &mut impl Write,
    subject: &Subject,
    scratch: &Path,
    (runs, jobs): (usize, usize),
) -> anyhow::Result<()> {
    const BUDGETS: [usize; 3] = [0, 1, 3];
    let pool = &subject.pool;
    let mut seen = BUDGETS.map(|_| Vec::new());
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
            fill(pool, jobs).await?;
            seen.push(end_to_end(subject, scratch, 0, jobs).await?.all);
        }
    }
    writeln!(out, "{runs} runs of {jobs} jobs each, medians; processor time of a job in microseconds")?;
    head(out)?;
    let none = medians(&seen[0]);
    for (budgets, seen) in BUDGETS.into_iter().zip(seen) {
        line(out, &format!("{budgets} budgets"), &medians(&seen), &none)?;
    }
    Ok(())
}
