//! Pages of the dashboard, the API and the metrics over ten million attempts and a million jobs that wait: how long
//! each takes while a worker works. All is made by SQL in a private Postgres, which goes with the benchmark;
//! `make bench-pages`.
//!
//! Options by environment: `SLUICE_BENCH_ATTEMPTS` (10000000; about 9 GB of disk for ten million) and
//! `SLUICE_BENCH_OPEN` (1000000). Exits with 1 when one takes a second or more.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at the clock")]

use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use std::io::{BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[path = "support/ledger.rs"]
mod ledger;
mod support;

use support::{Running, open_to_all, setting};

/// How long a page may take.
const MOST: Duration = Duration::from_secs(1);
/// How often each is asked for. The slowest answer counts.
const TIMES: usize = 5;

/// What is asked for. `{ended}` and `{open}` stand for the numbers of jobs that have ended and that wait.
const PAGES: &[&str] = &[
    "/",
    "/batches",
    "/batches?after=evening-12000",
    "/batches?after=batch-50000",
    "/batches/night",
    "/batches/batch-7",
    "/batches/night?state=queued",
    "/batches/night?state=failed",
    "/batches/night?class=timeout",
    "/jobs",
    "/jobs?below={ended}",
    "/jobs?state=failed",
    "/jobs?state=queued",
    "/jobs?state=succeeded",
    "/jobs?state=cancelled",
    "/jobs?class=timeout",
    "/jobs?class=content_policy",
    "/jobs?route=route_1&project=project-3",
    "/jobs?route=no-such-route",
    "/jobs?error=says+no",
    "/jobs?error=no+such+error",
    "/jobs/{ended}",
    "/jobs/{open}",
    "/failures",
    "/limits",
    "/pauses",
    "/budgets",
    "/schedules",
    "/alerts",
    "/doctor",
    "/reports/cost",
    "/reports/cost?by=day",
    "/reports/quality",
    "/reports/failures",
    "/reports/waste",
    "/reports/fallbacks",
    "/reports/reasks",
    "/reports/latency",
    "/reports/cache",
    "/changes",
    "/api/v1/status",
    "/api/v1/batches",
    "/api/v1/batches/night",
    "/api/v1/jobs",
    "/api/v1/jobs?state=failed&class=timeout",
    "/api/v1/jobs/{ended}",
    "/api/v1/jobs/{open}",
    "/api/v1/reports/cost?by=day",
    "/api/v1/reports/latency",
    "/api/v1/budgets",
    "/api/v1/schedules",
    "/api/v1/alerts",
    "/metrics",
    "/readyz",
];

/// Pages that count the jobs that a change would concern. They say "or more" after three seconds, so they are timed
/// and have no bar.
const COUNTS: &[&str] = &[
    "/confirm?action=retry&state=failed&class=timeout&batch=batch-7",
    "/confirm?action=retry&state=failed&class=timeout",
    "/confirm?action=cancel&batch=night",
    "/confirm?action=cancel&state=queued",
];

fn main() -> ExitCode {
    // `cargo test --benches` runs this too; there is nothing to check in that case.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    ledger::exit_code_of(bench())
}

/// Returns the bars that were missed.
async fn bench() -> anyhow::Result<Vec<String>> {
    let attempts: i64 = setting("SLUICE_BENCH_ATTEMPTS", 10_000_000);
    let open: i64 = setting("SLUICE_BENCH_OPEN", 1_000_000);
    let ended = attempts / ledger::CALLS_EACH;
    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let postgres =
        EmbeddedPostgres::start(&Options { data_dir: scratch.path().join("pg"), fsync: false, max_connections: 50 })
            .await?;
    // One connection: what is set for it holds for all statements.
    let pool = PgPoolOptions::new().max_connections(1).connect_with(postgres.connect_options("sluice")).await?;
    let store = Store::from_pool(pool.clone());
    store.migrate().await?;
    let folding = ledger::fill(&pool, &store, attempts, Some(include_str!("pages.results.sql"))).await?;
    let queue = include_str!("pages.open.sql").replace("$OPEN", &open.to_string()).replace("$JOBS", &ended.to_string());
    sqlx::raw_sql(AssertSqlSafe(queue)).execute(&pool).await?;
    // As autovacuum leaves a database that has grown over a month.
    sqlx::raw_sql("vacuum (analyze)").execute(&pool).await?;
    let size: i64 = sqlx::query_scalar("select pg_database_size(current_database())").fetch_one(&pool).await?;
    let mut out = sluice::printable::stdout();
    writeln!(
        out,
        "{attempts} attempts of {ended} jobs ({} rows folded in {:.0} s), {open} jobs wait; {} MB of disk",
        folding.rows,
        folding.took.as_secs_f64(),
        size / 1_000_000
    )?;
    out.flush()?;

    let (running, address) = worker(scratch.path(), &postgres.url("sluice"))?;
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().timeout(Duration::from_mins(1)).build()?;
    let mut missed = Vec::new();
    writeln!(out, "\n{:<64} {:>8} {:>8} {:>8}", "page", "first ms", "most ms", "bytes")?;
    for (pages, has_bar) in [(PAGES, true), (COUNTS, false)] {
        for page in pages {
            let path = page.replace("{ended}", &ended.to_string()).replace("{open}", &(ended + open).to_string());
            let mut took = Vec::new();
            let mut bytes = 0;
            for _ in 0..TIMES {
                let began = Instant::now();
                let answer = client.get(format!("{address}{path}")).send().await?;
                let status = answer.status();
                bytes = answer.bytes().await?.len();
                took.push(began.elapsed());
                anyhow::ensure!(status.is_success(), "{path} answered {status}");
            }
            let (first, most) = (took[0], took.iter().max().copied().unwrap_or_default());
            let in_ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            writeln!(out, "{path:<64} {:>8.0} {:>8.0} {bytes:>8}", in_ms(first), in_ms(most))?;
            if has_bar && most >= MOST {
                missed.push(format!("{path} took {:.2} s", most.as_secs_f64()));
            }
        }
    }
    out.flush()?;
    drop(running);
    pool.close().await;
    postgres.stop().await?;
    Ok(missed)
}

/// A worker whose calls take half a minute, and the address of its pages.
fn worker(scratch: &Path, url: &str) -> anyhow::Result<([Running; 2], String)> {
    let scenario = scratch.join("scenario.toml");
    std::fs::write(&scenario, include_str!("pages.scenario.toml"))?;
    let program = env!("CARGO_BIN_EXE_sluice");
    let mut simulator = Running(
        Command::new(program)
            .args(["simulate", "--listen", "127.0.0.1:0", "--scenario"])
            .arg(&scenario)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let providers = address_after("listening on ", &mut simulator)?;
    let config = scratch.join("sluice.toml");
    std::fs::write(&config, include_str!("pages.sluice.toml").replace("http://simulator", &providers))?;
    let mut worker = Running(
        Command::new(program)
            .arg("--config")
            .arg(&config)
            .args(["worker"])
            .env("DATABASE_URL", url)
            .env("SLUICE__SPOOL__DIR", scratch.join("spool"))
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let address = address_after("http.listen=", &mut worker)?;
    Ok(([worker, simulator], address))
}

/// The address of a server, which says it in a line behind `mark`.
fn address_after(mark: &str, server: &mut Running) -> anyhow::Result<String> {
    let errors = server.0.stderr.take().ok_or_else(|| anyhow::anyhow!("no pipe"))?;
    let mut lines = BufReader::new(errors).lines();
    let address = loop {
        let line = lines.next().ok_or_else(|| anyhow::anyhow!("it did not start"))??;
        if let Some((_, rest)) = line.split_once(mark) {
            let rest = rest.trim_start_matches("http://");
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
            break format!("http://{}", &rest[..end]);
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    Ok(address)
}
