//! Waiting for the cheap rung or paying for the expensive one, with the real worker, and the explanation of the choice.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;

/// A cheap provider that takes one request a minute and meets these faults, a dear one that takes all, and a route with
/// ten minutes of patience and one without.
struct Stage {
    _database: TestDatabase,
    pool: PgPool,
    simulator: Simulator,
    program: Program,
}

impl Stage {
    async fn new(faults: &str) -> Self {
        Self::with("limits = { requests_per_minute = 1 }", "10m", faults).await
    }

    /// The same with these limits of the cheap provider, and this patience.
    async fn with(limits: &str, patience: &str, faults: &str) -> Self {
        let database = database().await;
        let scenario =
            format!("[providers.cheap]\ndialect = \"openai\"\n{faults}\n[providers.dear]\ndialect = \"openai\"\n");
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[http]\nlisten = \"off\"\n\
             [providers.cheap]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             {limits}\ntimeouts = {{ total = \"5s\" }}\n\
             [providers.dear]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [routes.default]\nstrategy = \"priority\"\nrungs = [\"cheap/model\", \"dear/model\"]\n\
             patience = \"{patience}\"\n\
             [routes.hasty]\nstrategy = \"priority\"\nrungs = [\"cheap/model\", \"dear/model\"]\npatience = \"0s\"\n",
            simulator.base_url("cheap").unwrap(),
            simulator.base_url("dear").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), _database: database, simulator, program }
    }

    /// Each enqueueing is a batch of its own.
    async fn enqueue(&self, route: &str, jobs: i32, deadline: Option<&str>) {
        sqlx::query(
            "insert into sluice.job (route, batch, deadline, request)
             select $1, 'by ' || $3, now() + $3::text::interval, jsonb_build_object('prompt', $1 || n)
               from generate_series(1, $2) n",
        )
        .bind(route)
        .bind(jobs)
        .bind(deadline)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    fn calls(&self, provider: &str) -> u64 {
        self.simulator.verdict().providers[provider].figures.calls
    }

    /// The explanation of the one job that went to the expensive provider.
    async fn story(&self) -> String {
        let jobs: Vec<i64> = sqlx::query_scalar("select job_id from sluice.attempt where provider = 'dear'")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let [job] = jobs[..] else { panic!("{jobs:?}") };
        self.program.output(&["explain", &job.to_string()]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_near_makes_a_job_pay_and_explain_says_so() {
    let stage = Stage::new("").await;
    // The next turn at the cheap provider is in a minute, which leaves no five seconds for a call.
    stage.enqueue("default", 2, Some("50 seconds")).await;
    let worker = stage.program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));
    assert_eq!((stage.calls("cheap"), stage.calls("dear")), (1, 1));
    let story = stage.story().await;
    assert!(story.contains("not cheap/model: its limit was used up until "), "{story}");
    assert!(story.contains(", and the deadline left patience only until "), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_patience_pays_at_once_and_explain_says_so() {
    let stage = Stage::new("").await;
    stage.enqueue("hasty", 2, None).await;
    let worker = stage.program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));
    assert_eq!((stage.calls("cheap"), stage.calls("dear")), (1, 1));
    let story = stage.story().await;
    assert!(story.contains(", and the route waits for no cheaper rung"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_time_and_patience_waits_for_the_cheap_rung_and_says_so() {
    let stage = Stage::new("faults = [{ kind = \"rate_limit\", wait = 60 }]").await;
    stage.enqueue("default", 1, Some("10 minutes")).await;
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    until("one is parked", async || {
        let parked = "select count(*) from sluice.parked where reason = 'cheap/model: rate_limit (within patience)'";
        sqlx::query_scalar::<_, i64>(parked).fetch_one(&stage.pool).await.unwrap() == 1
    })
    .await;
    assert_eq!((stage.calls("cheap"), stage.calls("dear")), (1, 0));
    terminate(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_deadline_is_near_is_claimed_although_its_route_waits() {
    let stage = Stage::new("faults = [{ kind = \"rate_limit\", wait = 60 }]").await;
    stage.enqueue("default", 1, None).await;
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    until("the cheap provider is shut", async || {
        let parked = "select count(*) from sluice.parked";
        sqlx::query_scalar::<_, i64>(parked).fetch_one(&stage.pool).await.unwrap() == 1
    })
    .await;
    stage.enqueue("default", 1, Some("30 seconds")).await;
    until("the one in a hurry has its answer", async || {
        let answers = "select count(*) from sluice.result";
        sqlx::query_scalar::<_, i64>(answers).fetch_one(&stage.pool).await.unwrap() == 1
    })
    .await;
    assert_eq!((stage.calls("cheap"), stage.calls("dear")), (1, 1));
    let story = stage.story().await;
    assert!(story.contains(", and the deadline left patience only until "), "{story}");
    terminate(worker).await;
}

/// With any number of places, also where it is felt for.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_patience_ends_while_few_places_are_never_at_rest_go_elsewhere_and_explain_says_so() {
    for (limits, jobs) in [("limits = { concurrency = 1 }", 20), ("limits = { concurrency = 8 }", 160)] {
        // Alone, the cheap provider would be busy for ten seconds.
        let stage = Stage::with(limits, "1s", "latency = { fixed = 0.5 }").await;
        stage.enqueue("default", jobs, None).await;
        let worker = stage.program.run(&["worker", "--drain"]).await;
        assert!(worker.status.success(), "{}", text(&worker.stderr));
        let (cheap, dear) = (stage.calls("cheap"), stage.calls("dear"));
        assert_eq!(cheap + dear, u64::from(jobs.unsigned_abs()), "{limits}");
        assert!(dear > cheap, "{limits}: {cheap} and {dear}");
        let job: i64 = sqlx::query_scalar("select max(job_id) from sluice.attempt where provider = 'dear'")
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        let story = stage.program.output(&["explain", &job.to_string()]).await;
        assert!(story.contains("not cheap/model: all its places were taken until "), "{story}");
        assert!(story.contains(", and there was patience only until "), "{story}");
    }
}

async fn terminate(worker: tokio::process::Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(ended(worker).await.status.success());
}
