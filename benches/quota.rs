//! How well providers' limits are kept and used: the real worker, as one process and as several, against the simulator,
//! which keeps the quota. Each run is compared with the best that the arithmetic of its quota allows; `make
//! bench-quota`.
//!
//! At its best each run takes 44 to 80 s. What is lost once in a run, at the start of the processes (0.2 to 0.3 s on
//! two cores, 0.6 s for eight of them) and with its last calls (0.2 to 0.3 s), is then less than one per cent.
//!
//! Options by environment: `SLUICE_BENCH_ONLY` (names of scenarios separated by commas; with `:3` only their runs with
//! three processes), `SLUICE_BENCH_SCALE` (1; a share of the jobs and of the bursts, so that a run is shorter by that
//! factor), `SLUICE_BENCH_KEEP` (a folder for each run's calls, and for the logs of its processes at the level
//! `debug`). Exits with 1 when a bar is missed.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark looks at clock and tables")]

use anyhow::Context as _;
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::simulate::{CallRecord, Scenario, Simulator, Verdict};
use sluice::store::Store;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod support;

use support::{Running, open_to_all, setting};

/// The share of the allowed amount that has to be used, by both counts.
const LEAST_USED: f64 = 0.99;
/// The same where the limit has to be learned first.
const LEAST_USED_IF_LEARNED: f64 = 0.985;
/// The most answers with status 429 in a run.
const MOST_REFUSED: u64 = 5;

/// A limited unit, as the provider charges it.
#[derive(Clone, Copy)]
enum Charge {
    Requests,
    Input,
    Output,
}

/// A limit of the provider: the amount per minute, the amount at once after a rest, and the model whose calls are
/// charged.
struct Limit {
    charge: Charge,
    /// The model; `None`: the calls of all models share it.
    model: Option<&'static str>,
    per_minute: f64,
    burst: f64,
}

/// Jobs of a route: how many, and the length of their prompts in characters.
struct Jobs {
    route: &'static str,
    count: f64,
    characters: (u32, u32),
}

/// One thing to measure.
struct Case {
    name: &'static str,
    processes: &'static [usize],
    limits: Vec<Limit>,
    /// Whether each job may be charged to any of the limits.
    adds_up: bool,
    /// Whether another program keeps one of the cores busy. Then no share has to be used.
    is_busy: bool,
    /// Whether the limit has to be learned.
    is_learned: bool,
    jobs: Vec<Jobs>,
    /// The simulator's provider or providers; `{burst}` stands for the burst of the limit with this number.
    simulator: Cow<'static, str>,
    /// The configuration of the worker.
    worker: Cow<'static, str>,
}

fn requests(model: Option<&'static str>, per_minute: f64, burst: f64) -> Limit {
    Limit { charge: Charge::Requests, model, per_minute, burst }
}

/// Jobs with ordinary prompts of 100 to 300 characters.
fn short(route: &'static str, count: f64) -> Jobs {
    Jobs { route, count, characters: (100, 300) }
}

/// The worker's part of [`TWO_PROVIDERS`], up to the route's strategy.
macro_rules! two_providers {
    () => {
        r#"
    [providers.one]
    dialect = "openai"
    base_url = "http://simulator/one/v1"
    limits = { requests_per_minute = 1200, burst_requests = {burst0} }
    [providers.two]
    dialect = "openai"
    base_url = "http://simulator/two/v1"
    limits = { requests_per_minute = 600, burst_requests = {burst1} }
    [routes.default]
    rungs = ["one/large", "two/small"]
    "#
    };
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "requests",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: false,
            limits: vec![requests(None, 1_200.0, 1_200.0)],
            jobs: vec![short("default", 2_500.0)],
            simulator: r#"
                [providers.one]
                dialect = "openai"
                quota = { requests_per_minute = 1200, burst_requests = {burst0} }
                latency = { fixed = 0.05 }
            "#
            .into(),
            worker: ONE_MODEL.into(),
        },
        // Without max_tokens OpenAI reserves its estimate of the prompt, and nothing for the answer.
        Case {
            name: "tokens_openai",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: false,
            limits: vec![Limit { charge: Charge::Input, model: None, per_minute: 1_200_000.0, burst: 300_000.0 }],
            jobs: vec![Jobs { route: "default", count: 1_500.0, characters: (200, 8_000) }],
            simulator: r#"
                [providers.one]
                dialect = "openai"
                quota = { tokens_per_minute = 1_200_000, burst_tokens = {burst0} }
                latency = { median = 0.7, p99 = 3.0 }
                output = { median = 100, p99 = 800 }
            "#
            .into(),
            worker: r#"
                [providers.one]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                limits = { tokens_per_minute = 1_200_000, burst_tokens = {burst0} }
                [routes.default]
                rungs = ["one/model"]
            "#
            .into(),
        },
        // Input is charged when the call comes, output when it has been produced; here output is the scarce one.
        Case {
            name: "tokens_anthropic",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: false,
            limits: vec![
                Limit { charge: Charge::Output, model: None, per_minute: 150_000.0, burst: 60_000.0 },
                Limit { charge: Charge::Input, model: None, per_minute: 900_000.0, burst: 60_000.0 },
            ],
            jobs: vec![Jobs { route: "default", count: 900.0, characters: (400, 3_600) }],
            simulator: r#"
                [providers.one]
                dialect = "anthropic"
                quota.input_tokens_per_minute = 900_000
                quota.output_tokens_per_minute = 150_000
                quota.burst_tokens = {burst0}
                latency = { median = 0.7, p99 = 2.5 }
                output = { median = 150, p99 = 600 }
            "#
            .into(),
            worker: r#"
                [providers.one]
                dialect = "anthropic"
                base_url = "http://simulator/one/v1"
                limits.input_tokens_per_minute = 900_000
                limits.output_tokens_per_minute = 150_000
                limits.burst_tokens = {burst0}
                [models."one/model"]
                max_output_tokens = 4096
                [routes.default]
                rungs = ["one/model"]
            "#
            .into(),
        },
        // One account, two models, each with limits of its own.
        Case {
            name: "two_buckets",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: false,
            limits: vec![requests(Some("large"), 1_200.0, 300.0), requests(Some("small"), 600.0, 150.0)],
            jobs: vec![short("large", 1_900.0), short("small", 950.0)],
            simulator: r#"
                [providers.one]
                dialect = "openai"
                latency = { median = 0.4, p99 = 1.5 }
                [providers.one.models]
                large = { quota = { requests_per_minute = 1200, burst_requests = {burst0} } }
                small = { quota = { requests_per_minute = 600, burst_requests = {burst1} } }
            "#
            .into(),
            worker: r#"
                [providers.one_large]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                limits = { requests_per_minute = 1200, burst_requests = {burst0} }
                [providers.one_small]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                limits = { requests_per_minute = 600, burst_requests = {burst1} }
                [routes.large]
                rungs = ["one_large/large"]
                [routes.small]
                rungs = ["one_small/small"]
            "#
            .into(),
        },
        // One account whose limit all of its models share.
        Case {
            name: "one_bucket",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: false,
            limits: vec![requests(None, 1_200.0, 300.0)],
            jobs: vec![short("large", 950.0), short("small", 950.0)],
            simulator: ONE_PROVIDER.into(),
            worker: r#"
                [buckets.account]
                requests_per_minute = 1200
                burst_requests = {burst0}
                [providers.one_large]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                bucket = "account"
                [providers.one_small]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                bucket = "account"
                [routes.large]
                rungs = ["one_large/large"]
                [routes.small]
                rungs = ["one_small/small"]
            "#
            .into(),
        },
        // Only the headers of the answers tell the provider's limits.
        Case {
            name: "learned",
            processes: &[1, 3],
            adds_up: false,
            is_busy: false,
            is_learned: true,
            limits: vec![requests(None, 1_200.0, 1_200.0)],
            jobs: vec![short("default", 2_500.0)],
            simulator: r#"
                [providers.one]
                dialect = "openai"
                quota = { requests_per_minute = 1200, burst_requests = {burst0} }
                latency = { median = 0.2, p99 = 0.8 }
            "#
            .into(),
            worker: r#"
                [providers.one]
                dialect = "openai"
                base_url = "http://simulator/one/v1"
                [routes.default]
                rungs = ["one/model"]
            "#
            .into(),
        },
        // Two providers, of which each job takes either: both quotas are to be used up. By weight, jobs without
        // patience take whichever has room; by room, all do.
        Case {
            name: "weighted",
            processes: &[1, 3],
            adds_up: true,
            is_busy: false,
            is_learned: false,
            limits: vec![requests(Some("large"), 1_200.0, 300.0), requests(Some("small"), 600.0, 150.0)],
            jobs: vec![short("default", 2_850.0)],
            simulator: TWO_PROVIDERS.into(),
            worker: concat!(
                two_providers!(),
                r#"
                strategy = "weighted"
                weights = { "one/large" = 2, "two/small" = 1 }
                patience = "0s"
            "#
            )
            .into(),
        },
        Case {
            name: "balanced",
            processes: &[1, 3],
            adds_up: true,
            is_busy: false,
            is_learned: false,
            limits: vec![requests(Some("large"), 1_200.0, 300.0), requests(Some("small"), 600.0, 150.0)],
            jobs: vec![short("default", 2_850.0)],
            simulator: TWO_PROVIDERS.into(),
            worker: concat!(two_providers!(), "strategy = \"balanced\"\n").into(),
        },
        // The same as `requests` beside a program that has nothing to wait for.
        Case {
            name: "busy",
            processes: &[1, 3],
            adds_up: false,
            is_busy: true,
            is_learned: false,
            limits: vec![requests(None, 1_200.0, 300.0)],
            jobs: vec![short("default", 1_900.0)],
            simulator: ONE_PROVIDER.into(),
            worker: ONE_MODEL.into(),
        },
        many_buckets(),
    ]
}

/// Models of one account, each with a limit of its own, and a route for each.
fn many_buckets() -> Case {
    let (mut simulator, mut worker) = (String::new(), String::new());
    simulator.push_str("[providers.one]\ndialect = \"openai\"\nlatency = { median = 0.4, p99 = 1.5 }\n");
    simulator.push_str("[providers.one.models]\n");
    for (number, (model, per_minute)) in MODELS.into_iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = writeln!(
            simulator,
            "{model} = {{ quota = {{ requests_per_minute = {per_minute}, burst_requests = {{burst{number}}} }} }}"
        );
        let _ = writeln!(
            worker,
            "[providers.one_{model}]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
             limits = {{ requests_per_minute = {per_minute}, burst_requests = {{burst{number}}} }}\n\
             [routes.{model}]\nrungs = [\"one_{model}/{model}\"]"
        );
    }
    let limit = |(model, per_minute): (&'static str, u32)| {
        requests(Some(model), f64::from(per_minute), f64::from(per_minute) / 4.0)
    };
    Case {
        name: "ten_buckets",
        processes: &[8],
        adds_up: false,
        is_busy: false,
        is_learned: false,
        limits: MODELS.into_iter().map(limit).collect(),
        jobs: MODELS.into_iter().map(|(model, per_minute)| short(model, f64::from(per_minute) * 19.0 / 12.0)).collect(),
        simulator: simulator.into(),
        worker: worker.into(),
    }
}

/// The models of [`many_buckets`], and the requests a minute of each.
const MODELS: [(&str, u32); 10] = [
    ("a", 120),
    ("b", 180),
    ("c", 240),
    ("d", 300),
    ("e", 360),
    ("f", 420),
    ("g", 480),
    ("h", 540),
    ("i", 600),
    ("j", 660),
];

/// A provider that takes 1,200 requests a minute for all of its models.
const ONE_PROVIDER: &str = r#"
    [providers.one]
    dialect = "openai"
    quota = { requests_per_minute = 1200, burst_requests = {burst0} }
    latency = { median = 0.4, p99 = 1.5 }
"#;

/// The worker's part of such a provider: one model, and the limit as it is.
const ONE_MODEL: &str = r#"
    [providers.one]
    dialect = "openai"
    base_url = "http://simulator/one/v1"
    limits = { requests_per_minute = 1200, burst_requests = {burst0} }
    [routes.default]
    rungs = ["one/model"]
"#;

const TWO_PROVIDERS: &str = r#"
    [providers.one]
    dialect = "openai"
    quota = { requests_per_minute = 1200, burst_requests = {burst0} }
    latency = { median = 0.4, p99 = 1.5 }
    [providers.two]
    dialect = "openai"
    quota = { requests_per_minute = 600, burst_requests = {burst1} }
    latency = { median = 0.4, p99 = 1.5 }
"#;

fn main() -> anyhow::Result<ExitCode> {
    // `cargo test --benches` runs this too; there is nothing to check in that case.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(bench())
}

async fn bench() -> anyhow::Result<ExitCode> {
    let scale: f64 = setting("SLUICE_BENCH_SCALE", 1.0);
    anyhow::ensure!(scale > 0.0, "SLUICE_BENCH_SCALE is a share of the jobs, such as 0.2");
    let only: String = setting("SLUICE_BENCH_ONLY", String::new());
    let wanted = |name: &str, processes: usize| {
        let full = format!("{name}:{processes}");
        only.is_empty() || only.split(',').map(str::trim).any(|chosen| chosen == name || chosen == full)
    };
    let cases = cases();
    let chosen: Vec<(&Case, usize)> = cases
        .iter()
        .flat_map(|case| case.processes.iter().map(move |processes| (case, *processes)))
        .filter(|(case, processes)| wanted(case.name, *processes))
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "SLUICE_BENCH_ONLY={only} names no scenario");

    let scratch = tempfile::Builder::new().prefix("sluice-bench").tempdir()?;
    open_to_all(scratch.path())?;
    let options = Options { data_dir: scratch.path().join("pg"), fsync: true, max_connections: 100 };
    let postgres = EmbeddedPostgres::start(&options).await?;
    let mut out = sluice::printable::stdout();
    writeln!(
        out,
        "{:<17} {:>9} {:>6} {:>8} {:>8} {:>8} {:>9} {:>5} {:>6} {:>8}  bars",
        "scenario", "processes", "jobs", "ideal s", "wall s", "used %", "by sim. %", "429", "early", "answered"
    )?;
    let mut missed = 0;
    for (number, (case, processes)) in chosen.into_iter().enumerate() {
        let database = format!("quota_{number}");
        let run = run(case, processes, scale, &postgres, &database, scratch.path()).await;
        let run = run.with_context(|| format!("{} with {processes} processes", case.name))?;
        writeln!(out, "{:<17} {processes:>9} {run}", case.name)?;
        out.flush()?;
        missed += usize::from(!run.misses().is_empty());
    }
    postgres.stop().await?;
    writeln!(out)?;
    writeln!(out, "ideal: what the quota admits at best, and then the answers to the last calls as they took.")?;
    writeln!(out, "wall: from the start of the processes to the last result. used: ideal by wall.")?;
    writeln!(out, "by sim.: by the simulator's own times, from the first call to the last that it admitted.")?;
    writeln!(
        out,
        "bars: used and by sim. at least {:.0} % (`learned` {:.1} %), 429s at most {MOST_REFUSED}, every job answered, \
         verdict clean.",
        LEAST_USED * 100.0,
        LEAST_USED_IF_LEARNED * 100.0
    )?;
    writeln!(out, "`busy`, beside a program that keeps a core busy, has no bar for what is used.")?;
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The result of one run.
struct Run {
    jobs: u64,
    answered: u64,
    ideal: f64,
    wall: f64,
    /// The share of the allowed amount that was used, by the simulator's own times.
    by_simulator: f64,
    verdict: Verdict,
    /// The share that has to be used.
    least_used: f64,
    /// Other failures: a process that failed or did not end.
    trouble: Vec<String>,
}

impl Run {
    fn misses(&self) -> Vec<String> {
        let mut misses = self.trouble.clone();
        if self.answered < self.jobs {
            misses.push(format!("{} jobs not answered", self.jobs - self.answered));
        }
        if self.wall * self.least_used > self.ideal {
            misses.push(format!("wall beyond {:.1} s", self.ideal / self.least_used));
        }
        if self.by_simulator < self.least_used {
            misses.push("too little used".to_owned());
        }
        if self.verdict.total.rate_limited > MOST_REFUSED {
            misses.push("too many 429s".to_owned());
        }
        misses.extend(self.verdict.reasons.iter().cloned());
        misses
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { jobs, answered, ideal, wall, by_simulator, verdict, .. } = self;
        let used = ideal / wall * 100.0;
        let (refused, early) = (verdict.total.rate_limited, verdict.total.early_retries);
        let by_simulator = by_simulator * 100.0;
        write!(f, "{jobs:>6} {ideal:>8.1} {wall:>8.1} {used:>8.1} {by_simulator:>9.1} {refused:>5} {early:>6} ")?;
        let misses = self.misses();
        let bars = if misses.is_empty() { "pass".to_owned() } else { format!("MISS: {}", misses.join("; ")) };
        write!(f, "{answered:>8}  {bars}")
    }
}

async fn run(
    case: &Case,
    processes: usize,
    scale: f64,
    postgres: &EmbeddedPostgres,
    database: &str,
    scratch: &Path,
) -> anyhow::Result<Run> {
    let pool = new_database(postgres, database).await?;
    let jobs = enqueue(&pool, case, scale).await?;
    let with_bursts = |text: &str| {
        case.limits.iter().enumerate().fold(text.to_owned(), |text, (number, limit)| {
            text.replace(&format!("{{burst{number}}}"), &format!("{:.0}", limit.burst * scale))
        })
    };
    // A 429 that one process gets has to reach the others within a second: until then their calls are under way.
    let scenario = format!(
        "record_calls = 1000000\nverdict = {{ in_flight_grace = \"1s\", answered_twice = 0 }}\n{}",
        with_bursts(&case.simulator)
    );
    let simulator = Simulator::start(Scenario::from_toml(&scenario)?, ([127, 0, 0, 1], 0).into())?;
    let simulated = Instant::now();
    let config = scratch.join(format!("{database}.toml"));
    let addressed = with_bursts(&case.worker).replace("http://simulator", &format!("http://{}", simulator.addr()));
    std::fs::write(&config, format!("[http]\nlisten = \"off\"\n{addressed}"))?;

    let _busy = if case.is_busy {
        Some(Running(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?))
    } else {
        None
    };
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let before = simulated.elapsed();
    let keep: String = setting("SLUICE_BENCH_KEEP", String::new());
    let logs = if keep.is_empty() { scratch } else { Path::new(&keep) };
    let mut workers = Vec::new();
    for number in 0..processes {
        let log = logs.join(format!("{database}.{number}.log"));
        let mut worker = Command::new(env!("CARGO_BIN_EXE_sluice"));
        if !keep.is_empty() {
            worker.env("SLUICE__LOG__FILTER", "sluice=debug");
        }
        let worker = worker
            .arg("--config")
            .arg(&config)
            .args(["worker", "--drain"])
            .env("DATABASE_URL", postgres.url(database))
            .env("SLUICE__SPOOL__DIR", scratch.join("spool"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        workers.push((Running(worker), log));
    }
    let trouble = ended(&mut workers, jobs).await?;

    let answered: i64 =
        sqlx::query_scalar("select count(*) from sluice.result where state = 'succeeded'").fetch_one(&pool).await?;
    let last: Option<f64> =
        sqlx::query_scalar("select extract(epoch from max(finished_at))::float8 from sluice.result")
            .fetch_one(&pool)
            .await?;
    pool.close().await;
    let mut calls = simulator.calls(usize::MAX);
    calls.retain(|call| !call.refused_by_quota && call.status == 200);
    calls.sort_by_key(|call| call.arrived_ms);
    if !keep.is_empty() {
        keep_calls(&calls, before, &Path::new(&keep).join(format!("{database}.{}.{processes}.csv", case.name)))?;
    }
    let (admission, tail) = (admission_at_best(case, scale, &calls), tail(&calls));
    Ok(Run {
        jobs,
        answered: u64::try_from(answered)?,
        ideal: admission + tail,
        wall: last.map_or(f64::INFINITY, |last| last - began.as_secs_f64()),
        by_simulator: admission / admission_took(&calls),
        least_used: match case {
            Case { is_busy: true, .. } => 0.0,
            Case { is_learned: true, .. } => LEAST_USED_IF_LEARNED,
            Case { .. } => LEAST_USED,
        },
        verdict: simulator.verdict(),
        trouble,
    })
}

/// Writes the calls as lines of model, arrival and end, in seconds since the start of the processes.
fn keep_calls(calls: &[CallRecord], before: Duration, path: &Path) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    for call in calls {
        let since_start = |millis| seconds(millis) - before.as_secs_f64();
        let (arrived, ended) = (since_start(call.arrived_ms), since_start(call.ended_ms));
        writeln!(file, "{},{},{arrived:.3},{ended:.3},{}", call.provider, call.model, call.input_tokens)?;
    }
    Ok(file.flush()?)
}

/// A database of the run's own, so that nothing learned by an earlier run helps this one.
async fn new_database(postgres: &EmbeddedPostgres, name: &str) -> anyhow::Result<PgPool> {
    let admin = PgPoolOptions::new().max_connections(1).connect_with(postgres.connect_options("postgres")).await?;
    sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&admin).await?;
    admin.close().await;
    let pool = PgPoolOptions::new().max_connections(2).connect_with(postgres.connect_options(name)).await?;
    Store::from_pool(pool.clone()).migrate().await?;
    Ok(pool)
}

/// Enqueues the jobs, each with a prompt of its own, and returns their number.
async fn enqueue(pool: &PgPool, case: &Case, scale: f64) -> anyhow::Result<u64> {
    let mut all = 0;
    for jobs in &case.jobs {
        #[expect(clippy::cast_possible_truncation, reason = "some thousand jobs")]
        let count = (jobs.count * scale).round() as i64;
        let (least, most) = jobs.characters;
        // A fixed shuffle gives the sizes: large and small jobs come mixed, and in the same order in every run.
        sqlx::query(
            "insert into sluice.job (route, request)
                  select $1, jsonb_build_object('prompt',
                                                rpad(format('%s %s ', $1, n), ($3 + n * 7919 % ($4 - $3 + 1))::int,
                                                     'lorem ipsum '))
                    from generate_series(1, $2) n",
        )
        .bind(jobs.route)
        .bind(count)
        .bind(i64::from(least))
        .bind(i64::from(most))
        .execute(pool)
        .await?;
        all += u64::try_from(count)?;
    }
    sqlx::raw_sql("analyze sluice.ready; analyze sluice.job; checkpoint").execute(pool).await?;
    Ok(all)
}

/// Waits until all processes have ended, but not for ever; returns the failures.
async fn ended(workers: &mut [(Running, std::path::PathBuf)], jobs: u64) -> anyhow::Result<Vec<String>> {
    // Some minutes more than the slowest case takes when everything goes wrong.
    let deadline = Instant::now() + Duration::from_secs(120 + jobs / 8);
    let mut trouble = Vec::new();
    for (number, (worker, log)) in workers.iter_mut().enumerate() {
        let status = loop {
            if let Some(status) = worker.0.try_wait()? {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        match status {
            Some(status) if status.success() => continue,
            Some(status) => trouble.push(format!("process {number} ended with {status}")),
            None => trouble.push(format!("process {number} did not end")),
        }
        let said = std::fs::read_to_string(log)?;
        let last: Vec<&str> = said.lines().rev().take(20).collect();
        let mut errors = sluice::printable::stderr();
        for line in last.into_iter().rev() {
            writeln!(errors, "process {number}: {line}")?;
        }
    }
    Ok(trouble)
}

/// How long the quota takes at best to admit these calls: the whole charge, less the burst, at its rate. Of several
/// limits the slowest counts, or all together where each job may be charged to any of them.
#[expect(clippy::cast_precision_loss, reason = "token counts are small")]
fn admission_at_best(case: &Case, scale: f64, calls: &[CallRecord]) -> f64 {
    if case.adds_up {
        let burst: f64 = case.limits.iter().map(|limit| limit.burst * scale).sum();
        let per_minute: f64 = case.limits.iter().map(|limit| limit.per_minute).sum();
        return (calls.len() as f64 - burst).max(0.0) / (per_minute / 60.0);
    }
    let seconds = case.limits.iter().map(|limit| {
        let charged = calls.iter().filter(|call| limit.model.is_none_or(|model| call.model == model));
        let charged: u64 = charged
            .map(|call| match limit.charge {
                Charge::Requests => 1,
                Charge::Input => call.input_tokens,
                Charge::Output => call.output_tokens,
            })
            .sum();
        (charged as f64 - limit.burst * scale).max(0.0) / (limit.per_minute / 60.0)
    });
    seconds.fold(0.0, f64::max)
}

/// How long admitting the calls really took, from the first to the last.
fn admission_took(calls: &[CallRecord]) -> f64 {
    match calls {
        [first, .., last] => seconds(last.arrived_ms - first.arrived_ms),
        _ => f64::INFINITY,
    }
}

/// How long the last answers took after the last call had arrived.
fn tail(calls: &[CallRecord]) -> f64 {
    let ended = calls.iter().map(|call| call.ended_ms).max().unwrap_or(0);
    seconds(ended - calls.last().map_or(0, |call| call.arrived_ms))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of one run")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
