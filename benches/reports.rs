//! Reports over ten million attempts: how long each takes, whether the sums are those of the ledger, and how fast they
//! are folded. The attempts are made by SQL in a private Postgres, which goes with the benchmark; `make bench-reports`.
//!
//! Options by environment: `SLUICE_BENCH_ATTEMPTS` (10000000; about 5 GB of disk for ten million). Exits with 1 when a
//! report takes a second or more, a sum differs, or the fold does not keep up with ten thousand attempts a second.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use std::io::{Read as _, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[path = "support/ledger.rs"]
mod ledger;
mod support;

use support::{Running, open_to_all, setting};

/// Attempts that the fold has to keep up with, each second.
const LEAST_FOLDED: f64 = 10_000.0;
/// How long a report may take.
const MOST: Duration = Duration::from_secs(1);

/// Each report, as one calls for it.
const REPORTS: &[&str] = &[
    "cost",
    "cost --by day",
    "cost --by hour",
    "cost --by project",
    "cost --by login",
    "cost --by route,day",
    "cost --by batch",
    "cost --batch batch-7",
    "cost --since 7d --compare",
    "quality",
    "quality --by login",
    "quality --by day",
    "quality --by hour",
    "quality --by batch",
    "failures",
    "failures --by code",
    "failures --by day",
    "failures --by hour",
    "failures --by batch",
    "waste",
    "waste --by hour",
    "fallbacks",
    "fallbacks --by route",
    "fallbacks --by day,why",
    "reasks --since 40d",
    "reasks --since 40d --by day",
    "latency --since 40d",
    "latency --since 40d --by day",
    "latency --since 40d --by hour",
    "latency --since 40d --by hour,model",
    "latency --since 40d --by login,route",
    "latency --since 40d --by batch",
    "latency --batch batch-7 --since 40d",
    "cache",
];

/// Reports with a row for each of a hundred thousand batches, or by hour and by whose the jobs are over a month. They
/// are timed, and nothing is promised of them.
const LONG: &[&str] = &[
    "cost --by batch --limit 0",
    "quality --by batch --limit 0",
    "latency --since 40d --by batch --limit 0",
    "cost --by hour,login",
    "latency --since 40d --by hour,login",
];

/// The views of the sums, read whole.
const VIEWS: &[&str] = &[
    "cost_by_provider",
    "cost_by_route",
    "cost_by_login",
    "cost_daily",
    "failures",
    "failure_codes",
    "fallbacks",
    "fallback_paths",
    "waste",
    "quality",
    "latency",
    "reasks",
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
    let jobs = attempts / ledger::CALLS_EACH;
    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let postgres =
        EmbeddedPostgres::start(&Options { data_dir: scratch.path().join("pg"), fsync: false, max_connections: 50 })
            .await?;
    // One connection: what is set for it holds for all statements.
    let pool = PgPoolOptions::new().max_connections(1).connect_with(postgres.connect_options("sluice")).await?;
    let store = Store::from_pool(pool.clone());
    store.migrate().await?;
    let mut missed = Vec::new();
    let mut out = sluice::printable::stdout();

    let folding = ledger::fill(&pool, &store, attempts, None).await?;
    let sizes: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from sluice.tally_hour), (select count(*) from sluice.tally_hour_all),
                pg_database_size(current_database())",
    )
    .fetch_one(&pool)
    .await?;
    let rate = of_a_second(attempts, folding.took);
    writeln!(
        out,
        "{attempts} attempts of {jobs} jobs; {} sums by batch, {} of all batches; {} MB of disk",
        sizes.0,
        sizes.1,
        sizes.2 / 1_000_000
    )?;
    writeln!(
        out,
        "folded {} rows in {:.1} s: {rate:.0} attempts/s, {:.0} rows/s",
        folding.rows,
        folding.took.as_secs_f64(),
        of_a_second(i64::try_from(folding.rows)?, folding.took)
    )?;
    if rate < LEAST_FOLDED {
        missed.push(format!("the fold takes {rate:.0} attempts/s, and {LEAST_FOLDED:.0} come"));
    }

    let url = postgres.url("sluice");
    writeln!(out, "\n{:<44} {:>8} {:>8}", "report", "ms", "rows")?;
    for (reports, has_bar) in [(REPORTS, true), (LONG, false)] {
        for words in reports {
            let (took, lines) = report(scratch.path(), &url, words)?;
            writeln!(out, "{words:<44} {:>8.0} {lines:>8}", took.as_secs_f64() * 1_000.0)?;
            if has_bar && took >= MOST {
                missed.push(format!("report {words} took {:.2} s", took.as_secs_f64()));
            }
        }
    }
    for view in VIEWS {
        let began = Instant::now();
        let statement = format!("select count(*) from (select * from sluice.{view} offset 0) v");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&pool).await?;
        let took = began.elapsed();
        writeln!(out, "sluice.{view:<37} {:>8.0} {count:>8}", took.as_secs_f64() * 1_000.0)?;
        if took >= MOST {
            missed.push(format!("the view sluice.{view} took {:.2} s", took.as_secs_f64()));
        }
    }
    out.flush()?;

    sqlx::raw_sql("set work_mem = '256MB'").execute(&pool).await?;
    for (what, query) in [
        ("measures", include_str!("../tests/support/measures_beside_ledger.sql")),
        ("latencies", include_str!("../tests/support/latencies_beside_ledger.sql")),
    ] {
        let began = Instant::now();
        let (of_ledger, astray, apart): (i64, i64, i64) = sqlx::query_as(query).fetch_one(&pool).await?;
        writeln!(
            out,
            "{what}: {of_ledger} sums of the ledger (in {:.0} s); {astray} differ; {apart} differ between the two sets",
            began.elapsed().as_secs_f64()
        )?;
        if of_ledger == 0 || astray != 0 || apart != 0 {
            missed.push(format!("{what}: {astray} sums differ from the ledger, {apart} from each other"));
        }
    }
    pool.close().await;
    postgres.stop().await?;
    Ok(missed)
}

/// How long the program takes for a report from its start to its end, and how many rows it shows.
fn report(scratch: &Path, url: &str, words: &str) -> anyhow::Result<(Duration, usize)> {
    let config = scratch.join("sluice.toml");
    std::fs::write(&config, "[http]\nlisten = \"off\"\n")?;
    let began = Instant::now();
    let program = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .arg("--config")
        .arg(&config)
        .arg("report")
        .args(words.split(' '))
        .args(["--format", "plain", "--quiet"])
        .env("DATABASE_URL", url)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut running = Running(program);
    let mut shown = String::new();
    if let Some(mut out) = running.0.stdout.take() {
        out.read_to_string(&mut shown)?;
    }
    let status = running.0.wait()?;
    let took = began.elapsed();
    anyhow::ensure!(status.success(), "report {words}: {status}");
    Ok((took, shown.lines().count().saturating_sub(1)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn of_a_second(count: i64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
