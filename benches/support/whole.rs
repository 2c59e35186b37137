//! A worker end to end, and what a job costs meanwhile: processor time by process, and WAL.

use super::fast::{fast_provider, fast_worker};
use super::processor::{processor_time, processor_time_of_all};
use super::support::Running;
use sqlx::PgPool;
use std::path::Path;
use std::time::Duration;

/// The worker that is measured, and its database.
#[derive(Clone)]
pub struct Subject {
    /// For people.
    pub name: &'static str,
    /// Its program.
    pub program: String,
    pub pool: PgPool,
    pub url: String,
    /// The process id of the server.
    pub postmaster: u32,
}

/// What one run end to end came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    /// Megabytes that a worker had at most.
    pub peak: f64,
    /// Bytes of an answer, on average.
    pub answer: f64,
    /// The whole of what was measured.
    pub all: Cost,
    /// Its first fifth, and its last.
    pub ends: [Cost; 2],
}

/// What a job takes, on average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Jobs a second.
    pub rate: f64,
    /// Processor time of the worker, in microseconds.
    pub worker: f64,
    /// That of the server with all of its processes.
    pub server: f64,
    /// That of the simulator.
    pub simulator: f64,
    /// WAL, in bytes.
    pub wal: f64,
}

impl Cost {
    /// Processor time of the worker and the server.
    pub fn paid(&self) -> f64 {
        self.worker + self.server
    }
}

/// How far everything was at one moment.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// By the server's clock, in seconds.
    at: f64,
    /// Seconds of processor time so far.
    worker: f64,
    server: f64,
    simulator: f64,
    /// Bytes of WAL so far.
    wal: f64,
    /// About how many jobs had ended.
    ended: i64,
}

/// How often the costs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What lies between two moments, where so many jobs have ended in between.
fn between(from: &Moment, to: &Moment, jobs: f64) -> Cost {
    let each = |spent: f64| spent * 1e6 / jobs.max(1.0);
    Cost {
        rate: jobs / (to.at - from.at).max(f64::MIN_POSITIVE),
        worker: each(to.worker - from.worker),
        server: each(to.server - from.server),
        simulator: each(to.simulator - from.simulator),
        wal: (to.wal - from.wal) / jobs.max(1.0),
    }
}

/// The work of one run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Jobs that end before it is measured, and those that are measured.
    pub warm: usize,
    pub jobs: usize,
    /// Worker processes, and the calls that each makes at a time.
    pub processes: usize,
    pub in_flight: usize,
    /// Whether each answer takes a second.
    pub is_slow: bool,
}

impl Load {
    /// One worker with 500 calls in flight, which are answered at once.
    pub fn plain(warm: usize, jobs: usize) -> Self {
        Self { warm, jobs, processes: 1, in_flight: 500, is_slow: false }
    }
}

/// Works all that is queued off, and measures it from where the first jobs have ended until nearly all have.
pub async fn end_to_end(subject: &Subject, scratch: &Path, load: Load) -> anyhow::Result<Whole> {
    let Subject { pool, url, postmaster, program, .. } = subject;
    let Load { warm, jobs, processes, in_flight, is_slow } = load;
    let (simulator, provider) = fast_provider(scratch)?;
    let mut workers = Vec::new();
    for number in 0..processes {
        let folder = scratch.join(format!("worker-{number}"));
        std::fs::create_dir_all(&folder)?;
        let mut worker = fast_worker(program, &folder, url, &provider)?;
        worker.args(["worker", "--drain"]).env("SLUICE__WORKER__MAX_IN_FLIGHT", in_flight.to_string());
        worker.env("SLUICE__PROVIDERS__SIMULATED__LIMITS__CONCURRENCY", (in_flight * processes).to_string());
        if is_slow {
            worker.env("SLUICE__PROVIDERS__SIMULATED__BASE_URL", format!("{provider}/slow/v1"));
        }
        workers.push(Running(worker.spawn()?));
    }
    let (mut peak, mut moments) = (0.0_f64, Vec::<Moment>::new());
    let mut rhythm = tokio::time::interval(LOOK_EVERY);
    let status = loop {
        rhythm.tick().await;
        // Jobs are claimed in the order of their numbers, so the highest one says about how many have ended.
        let (at, wal, ended): (f64, f64, i64) = sqlx::query_as(
            "select extract(epoch from clock_timestamp())::float8,
                    (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8,
                    coalesce((select max(job_id) from sluice.result) - (select min(id) from sluice.job) + 1, 0)",
        )
        .fetch_one(pool)
        .await?;
        // Once it has ended, the times of a worker are gone.
        let mut ends = Vec::new();
        for worker in &mut workers {
            ends.extend(worker.0.try_wait()?);
        }
        if let Some(status) = ends.first() {
            break *status;
        }
        peak = workers.iter().map(|worker| resident_mb(worker.0.id())).fold(peak, f64::max);
        let (server, simulator) = (processor_time_of_all(*postmaster)?, processor_time(simulator.0.id())?);
        let mut worker = 0.0;
        for process in &workers {
            worker += processor_time(process.0.id())?;
        }
        moments.push(Moment { at, worker, server, simulator, wal, ended });
    };
    for worker in &mut workers {
        worker.0.wait()?;
    }
    anyhow::ensure!(status.success(), "the worker ended with {status}");
    let done: i64 =
        sqlx::query_scalar("select count(*) from sluice.result where state = 'succeeded'").fetch_one(pool).await?;
    anyhow::ensure!(usize::try_from(done)? == warm + jobs, "{done} of {} jobs succeeded", warm + jobs);
    let reached = |jobs: usize| {
        let enough = i64::try_from(jobs).unwrap_or(i64::MAX);
        moments.iter().find(|moment| moment.ended >= enough && moment.ended > 0)
    };
    let too_short = || anyhow::anyhow!("too short to be measured");
    // The last jobs do not fill the worker.
    let last = reached(warm + jobs - jobs / 50).ok_or_else(too_short)?;
    let first = reached(warm).filter(|first| first.at < last.at).ok_or_else(too_short)?;
    let cost = async |from: &Moment, to: &Moment| {
        let exact: i64 = sqlx::query_scalar(
            "select count(*) from sluice.result
              where finished_at > to_timestamp($1) and finished_at <= to_timestamp($2)",
        )
        .bind(from.at)
        .bind(to.at)
        .fetch_one(pool)
        .await?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        anyhow::Ok(between(from, to, exact as f64))
    };
    let answer: f64 =
        sqlx::query_scalar("select coalesce(avg(octet_length(response::text)), 0)::float8 from sluice.results")
            .fetch_one(pool)
            .await?;
    let fifth = |n: usize| reached(warm + jobs * n / 5).unwrap_or(last);
    let ends = [cost(first, fifth(1)).await?, cost(fifth(4), last).await?];
    Ok(Whole { peak, answer, all: cost(first, last).await?, ends })
}

fn resident_mb(pid: u32) -> f64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0.0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .map_or(0.0, |kilobytes| kilobytes / 1024.0)
}
