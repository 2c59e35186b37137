//! A ledger of millions of attempts, made by SQL, and counted and folded as settlements are; and how a benchmark over
//! it is run.

use sluice::store::Store;
use sqlx::{AssertSqlSafe, PgPool};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The calls of each job.
pub const CALLS_EACH: i64 = 2;
/// How many jobs are made, counted and folded at a time.
const STEP: i64 = 500_000;

/// What folding the ledger took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folding {
    /// Rows that settlements added to the sums.
    pub rows: u64,
    pub took: Duration,
}

/// Runs a benchmark, says which of its bars were missed, and fails if one was.
pub fn exit_code_of(bench: impl Future<Output = anyhow::Result<Vec<String>>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench));
    let mut err = sluice::printable::stderr();
    match done {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => {
            for bar in missed {
                let _ = writeln!(err, "missed: {bar}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            let _ = writeln!(err, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Fills an empty database, over the one connection of `pool`. After each half million jobs `then` is run too.
pub async fn fill(pool: &PgPool, store: &Store, attempts: i64, then: Option<&str>) -> anyhow::Result<Folding> {
    sqlx::raw_sql("set statement_timeout = 0; set timezone = 'UTC'; set jit = off").execute(pool).await?;
    let jobs = attempts / CALLS_EACH;
    let mut folding = Folding::default();
    let mut first = 1;
    while first <= jobs {
        let last = jobs.min(first + STEP - 1);
        run(pool, include_str!("ledger.fill.sql"), first, last, jobs).await?;
        run(pool, include_str!("ledger.settle.sql"), first, last, jobs).await?;
        if let Some(then) = then {
            run(pool, then, first, last, jobs).await?;
        }
        let began = Instant::now();
        loop {
            let folded = store.fold_tally().await?;
            folding.rows += folded.rows;
            if folded.rows == 0 {
                break;
            }
        }
        folding.took += began.elapsed();
        sqlx::raw_sql("vacuum sluice.tally").execute(pool).await?;
        first = last + 1;
    }
    sqlx::raw_sql(
        "vacuum (analyze) sluice.tally_hour, sluice.tally_hour_all, sluice.tally_hour_target, sluice.tally_day_all",
    )
    .execute(pool)
    .await?;
    sqlx::raw_sql("analyze sluice.job, sluice.attempt").execute(pool).await?;
    Ok(folding)
}

async fn run(pool: &PgPool, statement: &str, first: i64, last: i64, jobs: i64) -> anyhow::Result<()> {
    let statement = statement
        .replace("$FIRST", &first.to_string())
        .replace("$LAST", &last.to_string())
        .replace("$JOBS", &jobs.to_string());
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}
