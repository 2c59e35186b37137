//! Many lanes: a million batches over a hundred thousand projects, compared with as many jobs in one lane, in turns
//! within one run.

use super::fast::{PROGRAM, fast_provider, fast_worker};
use super::processor::{processor_time, processor_time_of_all};
use super::support::{Running, open_to_all, setting};
use rustix::process::{Pid, Signal, kill_process};
use sluice::domain::rotation::Rotation;
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sluice::store::claim::Take;
use sluice::store::lanes::Lane;
use sluice::store::settle::{ParkRow, Settlement};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The bars: seconds until a newcomer begins; claims and jobs/s compared with one lane.
const NEWCOMER: f64 = 5.0;
const CLAIM_P99: f64 = 2.0;
const RATE: f64 = 0.9;

/// How often a claim is timed and results are counted.
const TICK: Duration = Duration::from_millis(100);

/// How long lanes that were found serve for claims.
const LOOK: Duration = Duration::from_secs(2);

/// Lanes to claim from, and when they were looked up.
#[derive(Default)]
struct Front {
    /// Kept from look to look, as a worker does: the first look among many lanes costs several times the others.
    rotation: Rotation,
    lanes: Vec<Lane>,
    looked: Option<Instant>,
}

/// A queue, and the measurements of it.
struct Queue {
    name: &'static str,
    url: String,
    pool: PgPool,
    store: Store,
    /// The server's first process.
    server: u32,
    rates: Vec<f64>,
    /// Processor time of the worker and of the server, in microseconds a job.
    times: [Vec<f64>; 2],
    claims: Vec<f64>,
    newcomers: Vec<f64>,
    front: Front,
}

/// Measures it, and returns whether the bars are met.
pub async fn run(jobs: i64, out: &mut impl Write) -> anyhow::Result<()> {
    let stretch = setting("SLUICE_BENCH_STRETCH", jobs / 25);
    let rounds = setting("SLUICE_BENCH_ROUNDS", 11);
    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let options = Options { data_dir: scratch.path().join("pg"), fsync: true, max_connections: 50 };
    let postgres = EmbeddedPostgres::start(&options).await?;
    let (simulator, provider) = fast_provider(scratch.path())?;
    let one = Queue::new(&postgres, "one lane", "one", jobs, "'p'", "'b'").await?;
    let many = Queue::new(&postgres, "many lanes", "many", jobs, "'p' || n % 100000", "'b' || n").await?;
    sqlx::raw_sql("checkpoint").execute(&one.pool).await?;
    let mut queues = [one, many];
    for round in 1..=rounds {
        for queue in &mut queues {
            queue.work(scratch.path(), &provider, stretch).await?;
            writeln!(
                out,
                "round {round}, {:<12} {:>6.0} jobs/s, processor time a job: worker {:.0} µs, server {:.0} µs; \
                 a newcomer begins after {:.2} s",
                queue.name,
                queue.rates.last().copied().unwrap_or(0.0),
                queue.times[0].last().copied().unwrap_or(0.0),
                queue.times[1].last().copied().unwrap_or(0.0),
                queue.newcomers.last().copied().unwrap_or(f64::INFINITY)
            )?;
        }
    }
    for queue in &mut queues {
        queue.rates.sort_by(f64::total_cmp);
        queue.times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        queue.claims.sort_by(f64::total_cmp);
        queue.newcomers.sort_by(f64::total_cmp);
    }
    let [one, many] = &queues;
    for queue in [one, many] {
        writeln!(
            out,
            "{:<34} {:>10.0} {:>9.1} ms {:>9.1} ms {:>9.1} ms",
            queue.name,
            at(&queue.rates, 50),
            at(&queue.claims, 50),
            at(&queue.claims, 99),
            at(&queue.claims, 100)
        )?;
    }
    let (rate, p99) = (at(&many.rates, 50) / at(&one.rates, 50), at(&many.claims, 99) / at(&one.claims, 99));
    let newcomer = at(&many.newcomers, 100);
    for (part, name) in ["worker", "server"].into_iter().enumerate() {
        let [many, one] = [&many.times[part], &one.times[part]].map(|times| at(times, 50));
        writeln!(out, "processor time of the {name}: {many:.0} µs a job, {one:.0} in one lane")?;
    }
    let verdict = |is_met: bool| if is_met { "met" } else { "MISSED" };
    writeln!(
        out,
        "a newcomer among many lanes begins after {newcomer:.2} s at most: {}",
        verdict(newcomer <= NEWCOMER)
    )?;
    writeln!(out, "claim p99 {p99:.2} times that of one lane: {}", verdict(p99 <= CLAIM_P99))?;
    writeln!(out, "jobs/s {rate:.2} of those of one lane: {}", verdict(rate >= RATE))?;
    for queue in queues {
        queue.pool.close().await;
    }
    drop(simulator);
    postgres.stop().await?;
    scratch.close()?;
    Ok(())
}

/// The value at this hundredth of sorted numbers.
fn at(sorted: &[f64], part: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * part / 100).min(last)).copied().unwrap_or(f64::NAN)
}

impl Queue {
    async fn new(
        postgres: &EmbeddedPostgres,
        name: &'static str,
        database: &str,
        jobs: i64,
        project: &str,
        batch: &str,
    ) -> anyhow::Result<Self> {
        let first = PgPoolOptions::new().connect_with(postgres.connect_options("sluice")).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {database}"))).execute(&first).await?;
        first.close().await;
        let pool = PgPoolOptions::new().max_connections(4).connect_with(postgres.connect_options(database)).await?;
        let store = Store::from_pool(pool.clone());
        store.migrate().await?;
        let insert = format!(
            "insert into sluice.job (project, batch, request)
                  select {project}, {batch}, jsonb_build_object('messages', jsonb_build_array(jsonb_build_object(
                         'role', 'user', 'content', n || repeat(' lorem ipsum', 80))))
                     from generate_series(1, $1::bigint) n"
        );
        sqlx::query(sqlx::AssertSqlSafe(insert)).bind(jobs).execute(&pool).await?;
        sqlx::raw_sql("vacuum analyze").execute(&pool).await?;
        let url = postgres.url(database);
        let folder: String = sqlx::query_scalar("show data_directory").fetch_one(&pool).await?;
        let lock = std::fs::read_to_string(Path::new(&folder).join("postmaster.pid"))?;
        let server = lock.lines().next().unwrap_or_default().trim().parse()?;
        Ok(Self {
            name,
            url,
            pool,
            store,
            server,
            rates: Vec::new(),
            times: [Vec::new(), Vec::new()],
            claims: Vec::new(),
            newcomers: Vec::new(),
            front: Front::default(),
        })
    }

    /// Results so far, exactly. It reads an index as a whole, so it is asked at the ends of a stretch only.
    async fn results(&self) -> anyhow::Result<i64> {
        // Not counted by the sums: a million batches have a million of them.
        Ok(sqlx::query_scalar("select count(*) from sluice.result").fetch_one(&self.pool).await?)
    }

    /// Results so far by the server's statistics, which are a second behind and cost next to nothing.
    async fn about(&self) -> anyhow::Result<i64> {
        let inserted = "select coalesce(sum(pg_stat_get_tuples_inserted(inhrelid)), 0)::bigint
                          from pg_inherits where inhparent = 'sluice.result'::regclass";
        Ok(sqlx::query_scalar(inserted).fetch_one(&self.pool).await?)
    }

    /// Lets a worker of its own do this many jobs, while one more job of a newcomer arrives in their midst.
    async fn work(&mut self, scratch: &Path, provider: &str, stretch: i64) -> anyhow::Result<()> {
        let mut worker = Running(fast_worker(PROGRAM, scratch, &self.url, provider)?.arg("worker").spawn()?);
        let first = self.about().await?;
        // Starting does not count.
        while self.about().await? - first < stretch / 10 {
            tokio::time::sleep(TICK).await;
        }
        let from = self.results().await?;
        let began = Instant::now();
        let (pid, server) = (worker.0.id(), self.server);
        let times = || anyhow::Ok([processor_time(pid)?, processor_time_of_all(server)?]);
        let spent = times()?;
        let mut newcomer = None;
        loop {
            let done = self.about().await? - first;
            if done >= stretch {
                break;
            }
            if newcomer.is_none() && done > stretch / 2 {
                let insert = "insert into sluice.job (project, batch, request) values ('newcomer ' || random(), 'x',
                              '{\"prompt\": \"Hi\"}') returning id";
                newcomer = Some(sqlx::query_scalar::<_, i64>(insert).fetch_one(&self.pool).await?);
            }
            self.claim().await?;
            tokio::time::sleep(TICK).await;
        }
        let spent_by_now = times()?;
        let took = began.elapsed().as_secs_f64();
        let done = self.results().await? - from;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let jobs = done as f64;
        let rate = jobs / took;
        let each = spent_by_now.into_iter().zip(spent).map(|(after, before)| (after - before) * 1e6 / jobs);
        let each: Vec<f64> = each.collect();
        self.rates.push(rate);
        for (all, time) in self.times.iter_mut().zip(each) {
            all.push(time);
        }
        let begun = "select extract(epoch from a.started_at - j.created_at)::float8
                       from sluice.job j join sluice.attempt a on a.job_id = j.id where j.id = $1 limit 1";
        let waiting = Instant::now();
        let took = loop {
            let took: Option<f64> = sqlx::query_scalar(begun).bind(newcomer).fetch_optional(&self.pool).await?;
            if took.is_some() || waiting.elapsed() > Duration::from_secs(30) {
                break took;
            }
            tokio::time::sleep(TICK).await;
        };
        self.newcomers.push(took.unwrap_or(f64::INFINITY));
        let pid = i32::try_from(worker.0.id())?;
        kill_process(Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("no process"))?, Signal::TERM)?;
        worker.0.wait()?;
        Ok(())
    }

    /// Times a claim of ten jobs, from one lane or from ten, which is given back.
    async fn claim(&mut self) -> anyhow::Result<()> {
        let (worker, _) = self.store.register("bench", 0, "bench").await?;
        // Looking is the worker's business and costs more where there are many lanes: what it costs the worker is
        // measured, and what it costs this benchmark is not. So one look serves for many claims.
        let front = &mut self.front;
        if front.lanes.len() < 10 || front.looked.is_none_or(|looked| looked.elapsed() > LOOK) {
            front.lanes = self.store.look(&mut front.rotation, &[], 0).await?.lanes;
            front.looked = Some(Instant::now());
        }
        let takes: Vec<Take> = match front.lanes.as_slice() {
            [lane] => vec![Take { flow: lane.flow, prio: lane.prio, after: lane.first - 1, count: 10 }],
            lanes => lanes
                .iter()
                .rev()
                .take(10)
                .map(|lane| Take { flow: lane.flow, prio: lane.prio, after: lane.first - 1, count: 1 })
                .collect(),
        };
        if front.lanes.len() > 1 {
            front.lanes.truncate(front.lanes.len().saturating_sub(10));
        }
        let began = Instant::now();
        let claimed = self.store.claim(worker, &takes, usize::MAX).await?.jobs;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        if !claimed.is_empty() {
            self.claims.push(took);
        }
        let parks = claimed
            .iter()
            .map(|job| ParkRow { lease: job.lease, attempts: 0, until: None, reason: "bench".to_owned(), raced: false })
            .collect();
        self.store.settle(&Settlement { parks, ..Settlement::default() }).await?;
        self.store.sign_off(worker).await?;
        Ok(())
    }
}
