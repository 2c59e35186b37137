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
//! `SLUICE_BENCH_ONLY`: one part only: `queue` (bare SQL and the queue alone, also with `SLUICE_BENCH_DEEP`, a million,
//! queued), `whole` (end to end), `processes` (1, 3 and 8 workers), `memory` (500 and 5,000 calls in flight),
//! `enqueue` (a file of `SLUICE_BENCH_LINES` lines, 200000, beside a bare COPY), `claims` (how long a claim takes with
//! ten thousand jobs queued and with `SLUICE_BENCH_DEEPEST`, ten million), `fresh`, or `budgets` (end to end with no
//! budget, one and three by turns).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use sluice::embedded::{EmbeddedPostgres, Options};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::io::Write;
use std::path::Path;
use std::process::Command;

#[path = "throughput/claims.rs"]
mod claims;
#[path = "support/fast.rs"]
mod fast;
#[path = "throughput/from_file.rs"]
mod from_file;
#[path = "throughput/layers.rs"]
mod layers;
#[path = "support/processor.rs"]
mod processor;
mod support;
#[path = "support/whole.rs"]
mod whole;

use layers::{BATCH, CONNECTIONS, bare, bare_schema, queue_alone};
use support::{open_to_all, setting};
use whole::{Cost, Load, Subject, Whole, end_to_end};

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
    let deep = setting("SLUICE_BENCH_DEEP", 1_000_000);
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
        bare_schema(&this.pool).await?;
        for depth in [depth, deep].into_iter().filter(|depth| *depth > 0) {
            let jobs = depth.min(50_000);
            writeln!(out, "\n{jobs} of {depth} jobs queued, {BATCH} a statement on {CONNECTIONS} connections")?;
            let (mut floor, mut queue) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                floor.push(bare(&this, depth, jobs).await?);
                queue.push(queue_alone(&this, depth, jobs).await?);
            }
            let (floor, queue) = (medians(&floor), medians(&queue));
            head(&mut out)?;
            line(&mut out, "bare SQL", &floor, &floor)?;
            line(&mut out, "queue alone", &queue, &floor)?;
        }
    }
    if does("whole") {
        writeln!(out, "\n{jobs} jobs end to end after {warm} to warm up, 500 in flight")?;
        let mut seen = subjects.iter().map(|_| Vec::new()).collect::<Vec<Vec<Whole>>>();
        for _ in 0..runs {
            for (subject, seen) in subjects.iter().zip(&mut seen) {
                fill(&subject.pool, warm + jobs).await?;
                seen.push(end_to_end(subject, scratch.path(), Load::plain(warm, jobs)).await?);
            }
        }
        head(&mut out)?;
        let costs = |seen: &Vec<Whole>| medians(&seen.iter().map(|whole| whole.all).collect::<Vec<_>>());
        let first = seen.first().map(costs).unwrap_or_default();
        for (subject, seen) in subjects.iter().zip(&seen) {
            line(&mut out, subject.name, &costs(seen), &first)?;
            let rates: Vec<String> = seen.iter().map(|whole| format!("{:.0}", whole.all.rate)).collect();
            let peak = median(seen.iter().map(|whole| whole.peak).collect());
            let beyond = costs(seen).wal - median(seen.iter().map(|whole| whole.answer).collect());
            writeln!(out, "{:>12} {peak:.0} MB resident at most; WAL beyond the answer {beyond:.0} bytes", "")?;
            writeln!(out, "{:>12} jobs/s of each run: {}", "", rates.join(", "))?;
        }
    }
    if does("processes") {
        several(&mut out, &this, scratch.path(), warm, jobs).await?;
    }
    if does("memory") {
        memory(&mut out, &this, scratch.path()).await?;
    }
    if does("enqueue") {
        from_file::run(&mut out, &this, scratch.path(), runs).await?;
    }
    if does("claims") {
        claims::run(&mut out, &server).await?;
    }
    if does("fresh") && fresh_jobs > 0 {
        writeln!(out, "\n{fresh_jobs} jobs in a fresh database: its first fifth and its last")?;
        head(&mut out)?;
        for (subject, database) in subjects.iter().zip(["fresh_one", "fresh_two"]) {
            let fresh = server.subject(subject.name, &subject.program, database).await?;
            enqueue(&fresh.pool, warm + fresh_jobs).await?;
            let [first, last] = end_to_end(&fresh, scratch.path(), Load::plain(warm, fresh_jobs)).await?.ends;
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

fn body() -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "lorem ipsum ".repeat(80))
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

/// Worker processes that share one queue: 1, 3 and 8, with 500 calls in flight together.
async fn several(
    out: &mut impl Write,
    subject: &Subject,
    scratch: &Path,
    warm: usize,
    jobs: usize,
) -> anyhow::Result<()> {
    writeln!(out, "\n{jobs} jobs end to end, 500 in flight in all")?;
    head(out)?;
    let mut one = None;
    for processes in [1, 3, 8] {
        fill(&subject.pool, warm + jobs).await?;
        let load = Load { processes, in_flight: 500 / processes, ..Load::plain(warm, jobs) };
        let seen = end_to_end(subject, scratch, load).await?.all;
        line(out, &format!("{processes} processes"), &seen, one.get_or_insert(seen))?;
    }
    Ok(())
}

/// What the worker has resident with many calls in flight, each of which takes a second.
async fn memory(out: &mut impl Write, subject: &Subject, scratch: &Path) -> anyhow::Result<()> {
    writeln!(out, "\nresident at most while each call takes a second")?;
    for in_flight in [500, 5_000] {
        let jobs = in_flight * 8;
        fill(&subject.pool, jobs + in_flight).await?;
        let load = Load { in_flight, is_slow: true, ..Load::plain(in_flight, jobs) };
        let Whole { peak, all, .. } = end_to_end(subject, scratch, load).await?;
        writeln!(out, "{in_flight:>12} in flight: {peak:.0} MB, {:.0} jobs/s", all.rate)?;
    }
    Ok(())
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
            seen.push(end_to_end(subject, scratch, Load::plain(0, jobs)).await?.all);
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
