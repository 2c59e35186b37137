//! The cost of trouble to the queue: a snapshot that a session holds open while a million jobs flow, an outage of the
//! database with a million jobs queued, and a million lanes. Measures throughput and claim times before, during and
//! after; `make bench-trouble`.
//!
//! Options by environment: `SLUICE_BENCH_JOBS` (1000000), `SLUICE_BENCH_OUTAGE` (600, seconds), `SLUICE_BENCH_ONLY`
//! (`plain`, `snapshot`, `outage`, `lanes`, separated by commas); for the lanes `SLUICE_BENCH_ROUNDS` (11) and
//! `SLUICE_BENCH_STRETCH` (jobs in each; a 25th of all).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use rustix::process::{Pid, Signal, kill_process};
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sluice::store::claim::Take;
use sluice::store::settle::{ParkRow, Settlement};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgPool};
use std::io::Write as _;
use std::time::{Duration, Instant};

#[path = "support/fast.rs"]
mod fast;
#[path = "trouble/lanes.rs"]
mod lanes;
#[path = "support/processor.rs"]
mod processor;
mod support;

use fast::{PROGRAM, fast_provider, fast_worker};
use support::{Running, open_to_all, setting};

/// How often results are counted and a claim is timed.
const TICK: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs this too; there is nothing to check in that case.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(bench())
}

async fn bench() -> anyhow::Result<()> {
    let jobs = setting("SLUICE_BENCH_JOBS", 1_000_000_i64);
    let outage = Duration::from_secs(setting("SLUICE_BENCH_OUTAGE", 600));
    let only: String = setting("SLUICE_BENCH_ONLY", "plain,snapshot,outage,lanes".to_owned());
    let mut out = sluice::printable::stdout();
    writeln!(out, "{jobs} jobs of 1 KB, answers of 1 KB at once, fsync on, one worker with 500 in flight")?;
    writeln!(out, "{:<34} {:>10} {:>12} {:>12} {:>12}", "", "jobs/s", "claim p50", "claim p99", "claim max")?;
    for name in only.split(',') {
        if name == "lanes" {
            lanes::run(jobs, &mut out).await?;
            continue;
        }
        let stage = Stage::new(jobs).await?;
        match name {
            "plain" => stage.flow("nothing else", 1.0).await?.tell(&mut out)?,
            "snapshot" => {
                let mut other = sqlx::PgConnection::connect_with(&stage.postgres.connect_options("sluice")).await?;
                // The session has looked once and keeps its snapshot.
                sqlx::raw_sql("begin isolation level repeatable read; select count(*) from sluice.ready")
                    .execute(&mut other)
                    .await?;
                for quarter in 1..=4 {
                    let part = f64::from(quarter) / 4.0;
                    stage.flow(&format!("snapshot held open, quarter {quarter}"), part).await?.tell(&mut out)?;
                }
                other.close().await?;
            }
            "outage" => {
                stage.flow("before the outage", 0.1).await?.tell(&mut out)?;
                let before = stage.count().await?;
                stage.kill()?;
                tokio::time::sleep(outage).await;
                let again = EmbeddedPostgres::start(&stage.options).await?;
                let returned = Instant::now();
                while stage.count().await.unwrap_or(0) <= before {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                let first = returned.elapsed().as_secs_f64();
                writeln!(out, "first results {first:.1} s after the return, {} s away", outage.as_secs())?;
                stage.flow("after the outage, next tenth", 0.2).await?.tell(&mut out)?;
                stage.flow("after the outage, the rest", 1.0).await?.tell(&mut out)?;
                stage.audit(&mut out).await?;
                again.stop().await?;
            }
            other => anyhow::bail!("SLUICE_BENCH_ONLY: expected plain, snapshot, outage or lanes, found {other:?}"),
        }
        stage.end().await?;
    }
    Ok(())
}

/// A cluster with jobs in it, a simulator, and a running worker.
struct Stage {
    postgres: EmbeddedPostgres,
    options: Options,
    pool: PgPool,
    store: Store,
    jobs: i64,
    processes: [Running; 2],
    scratch: tempfile::TempDir,
}

/// The measurements over a stretch of work.
struct Stretch {
    name: String,
    jobs: i64,
    took: Duration,
    claims: Vec<Duration>,
}

impl Stretch {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn tell(mut self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        self.claims.sort_unstable();
        let at = |part: usize| {
            let claim = self.claims.get((self.claims.len() * part / 100).min(self.claims.len().saturating_sub(1)));
            claim.map_or(0.0, |claim| claim.as_secs_f64() * 1000.0)
        };
        let rate = self.jobs as f64 / self.took.as_secs_f64();
        writeln!(out, "{:<34} {rate:>10.0} {:>9.1} ms {:>9.1} ms {:>9.1} ms", self.name, at(50), at(99), at(100))
    }
}

impl Stage {
    async fn new(jobs: i64) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
        open_to_all(scratch.path())?;
        let options = Options { data_dir: scratch.path().join("pg"), fsync: true, max_connections: 50 };
        let postgres = EmbeddedPostgres::start(&options).await?;
        let pool = PgPoolOptions::new().max_connections(4).connect_with(postgres.connect_options("sluice")).await?;
        let store = Store::from_pool(pool.clone());
        store.migrate().await?;
        sqlx::query(
            "insert into sluice.job (request)
                  select jsonb_build_object('messages', jsonb_build_array(jsonb_build_object('role', 'user', 'content',
                         n || repeat(' lorem ipsum', 80)))) from generate_series(1, $1::bigint) n",
        )
        .bind(jobs)
        .execute(&pool)
        .await?;
        sqlx::raw_sql("analyze; checkpoint").execute(&pool).await?;
        let (simulator, provider) = fast_provider(scratch.path())?;
        let worker = fast_worker(PROGRAM, scratch.path(), &postgres.url("sluice"), &provider)?.arg("worker").spawn()?;
        Ok(Self { postgres, options, pool, store, jobs, processes: [simulator, Running(worker)], scratch })
    }

    async fn count(&self) -> anyhow::Result<i64> {
        let sums = "select coalesce(sum(succeeded), 0)::bigint from sluice.totals";
        Ok(sqlx::query_scalar(sums).fetch_one(&self.pool).await?)
    }

    /// Watches until this part of all jobs is done. Meanwhile it times claims of its own, which it gives back.
    async fn flow(&self, name: &str, part: f64) -> anyhow::Result<Stretch> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a part of a count of jobs")]
        let goal = (self.jobs as f64 * part) as i64;
        let (began, first) = (Instant::now(), self.count().await?);
        let mut claims = Vec::new();
        loop {
            let done = self.count().await?;
            if done >= goal {
                return Ok(Stretch { name: name.to_owned(), jobs: done - first, took: began.elapsed(), claims });
            }
            claims.extend(self.claim().await?);
            tokio::time::sleep(TICK).await;
        }
    }

    /// How long a claim of ten jobs takes, beginning at the front like a worker that has just started.
    async fn claim(&self) -> anyhow::Result<Option<Duration>> {
        let (worker, _) = self.store.register("bench", 0, "bench").await?;
        let Some(lane) = self.store.lanes().await?.into_iter().next() else { return Ok(None) };
        let take = Take { flow: lane.flow, prio: lane.prio, after: lane.first - 1, count: 10 };
        let began = Instant::now();
        let claimed = self.store.claim(worker, &[take], usize::MAX).await?.jobs;
        let took = began.elapsed();
        let parks = claimed
            .iter()
            .map(|job| ParkRow { lease: job.lease, attempts: 0, until: None, reason: "bench".to_owned(), raced: false })
            .collect();
        self.store.settle(&Settlement { parks, ..Settlement::default() }).await?;
        self.store.sign_off(worker).await?;
        Ok((!claimed.is_empty()).then_some(took))
    }

    /// Shuts the server down immediately, without notice to its clients.
    fn kill(&self) -> anyhow::Result<()> {
        let pid_file = std::fs::read_to_string(self.options.data_dir.join("data/postmaster.pid"))?;
        let pid = pid_file.lines().next().unwrap_or_default().parse()?;
        kill_process(Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("no process"))?, Signal::QUIT)?;
        Ok(())
    }

    async fn audit(&self, out: &mut impl std::io::Write) -> anyhow::Result<()> {
        let audit = self.store.audit().await?;
        writeln!(
            out,
            "{} results for {} jobs, {} attempts, faults: {:?}",
            audit.results,
            audit.jobs,
            audit.attempts,
            audit.faults()
        )?;
        Ok(())
    }

    async fn end(self) -> anyhow::Result<()> {
        self.pool.close().await;
        drop(self.processes);
        self.postgres.stop().await?;
        self.scratch.close()?;
        Ok(())
    }
}
