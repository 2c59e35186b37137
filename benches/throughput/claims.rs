//! How long a claim takes, by how many jobs are queued.

use super::Server;
use super::support::setting;
use sluice::store::claim::Take;
use sluice::store::settle::{ParkRow, Settlement};
use sluice::store::{Address, Pooler, Purpose, Store};
use std::io::Write;
use std::time::Instant;

/// Jobs that one statement enqueues.
const STEP: i64 = 500_000;

/// Claims of ten jobs that are timed at each depth.
const CLAIMS: usize = 1_000;

/// The bar: the 99th of a hundred claims among the most jobs, compared with that among the fewest.
const P99: f64 = 2.0;

pub async fn run(out: &mut impl Write, server: &Server<'_>) -> anyhow::Result<()> {
    let deepest = setting("SLUICE_BENCH_DEEPEST", 10_000_000_i64);
    writeln!(out, "\nclaims of ten jobs from one lane; milliseconds")?;
    writeln!(out, "{:>12} {:>8} {:>8} {:>8}", "queued", "median", "p99", "max")?;
    let mut first = None;
    for (depth, database) in [(10_000, "claims_few"), (deepest, "claims_many")] {
        let subject = server.subject("this", super::fast::PROGRAM, database).await?;
        let mut queued = 0;
        while queued < depth {
            let more = STEP.min(depth - queued);
            sqlx::query("insert into sluice.job (request) select '{\"prompt\": \"Hi\"}' from generate_series(1, $1)")
                .bind(more)
                .execute(&subject.pool)
                .await?;
            queued += more;
        }
        for statement in ["vacuum analyze sluice.ready", "vacuum analyze sluice.job", "checkpoint"] {
            sqlx::raw_sql(statement).execute(&subject.pool).await?;
        }
        let address = Address::of(subject.pool.connect_options().as_ref().clone());
        let store = Store::connect_through(Pooler::None, Purpose::Work, &address, 2).await?;
        let lane = store.lanes().await?.into_iter().next().ok_or_else(|| anyhow::anyhow!("nothing was queued"))?;
        let (worker, _) = store.register("bench", 0, "bench").await?;
        let mut after = lane.first - 1;
        let mut took = Vec::new();
        for _ in 0..CLAIMS {
            let take = Take { flow: lane.flow, prio: lane.prio, after, count: 10 };
            let began = Instant::now();
            let claimed = store.claim(worker, &[take], usize::MAX).await?.jobs;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
            anyhow::ensure!(claimed.len() == 10, "{} jobs were claimed", claimed.len());
            after = claimed.iter().map(|job| job.lease.job.0).max().unwrap_or(after);
            // Back behind all others would be another depth: they are given back where they were, and not read again.
            let reason = "bench".to_owned();
            let park = |lease| ParkRow { lease, attempts: 0, until: None, reason: reason.clone(), raced: false };
            let parks = claimed.iter().map(|job| park(job.lease)).collect();
            store.settle(&Settlement { parks, ..Settlement::default() }).await?;
        }
        store.sign_off(worker).await?;
        store.close().await;
        subject.pool.close().await;
        took.sort_by(f64::total_cmp);
        let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied().unwrap_or(0.0);
        writeln!(out, "{depth:>12} {:>8.2} {:>8.2} {:>8.2}", at(50), at(99), at(100))?;
        let ratio = at(99) / *first.get_or_insert(at(99));
        if depth == deepest {
            let verdict = if ratio <= P99 { "met" } else { "MISSED" };
            writeln!(out, "p99 with {deepest} queued is {ratio:.2} times that with 10000: {verdict}")?;
        }
    }
    Ok(())
}
