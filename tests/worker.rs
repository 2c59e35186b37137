//! The daemon as a process: it is stopped, killed, hung up on, and told to cancel.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, text};
use crate::support::queue::enqueue_questions;
use crate::support::wait::until;
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use tokio::process::Child;

struct Stage {
    database: TestDatabase,
    pool: PgPool,
    simulator: Simulator,
    program: Program,
}

impl Stage {
    /// One provider that behaves as `behaviour` says, and a worker that may hold twenty jobs.
    async fn new(behaviour: &str) -> Self {
        let database = database().await;
        let scenario = format!(
            "markers = true\nrecord_calls = 100000\nverdict.in_flight_grace = \"1s\"\n[providers.one]\n\
             dialect = \"openai\"\n{behaviour}\n\
             models.model.price = {{ input = \"1\", output = \"2\" }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 20\ndrain_timeout = \"30s\"\n[http]\nlisten = \"off\"\n\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), database, simulator, program }
    }

    async fn enqueue(&self, jobs: i32) {
        enqueue_questions(&self.pool, jobs).await;
    }

    fn worker(&self) -> Child {
        self.program.command(&["worker"]).spawn().unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    async fn until_results(&self, least: i64) {
        until("results are there", async || self.count("select count(*) from sluice.result").await >= least).await;
    }

    async fn drain(&self) {
        let worker = self.program.run(&["worker", "--drain"]).await;
        assert!(worker.status.success(), "{}", text(&worker.stderr));
    }

    fn calls(&self) -> i64 {
        i64::try_from(self.simulator.verdict().total.calls).unwrap()
    }

    async fn books_are_in_order(&self, jobs: i64) {
        let audit = self.database.store().await.audit().await.unwrap();
        assert_eq!(audit.faults(), Vec::<String>::new());
        assert_eq!((audit.jobs, audit.succeeded), (jobs, jobs), "{audit:?}");
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_loses_nothing_and_buys_nothing_twice() {
    let stage = Stage::new("latency = { uniform = [0.05, 0.2] }").await;
    stage.enqueue(300).await;
    for _ in 0..2 {
        let before = stage.count("select count(*) from sluice.result").await;
        let worker = stage.worker();
        stage.until_results(before + 20).await;
        signal(&worker, rustix::process::Signal::TERM);
        let output = ended(worker).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        // Everything that was called is written, and nothing is held by the worker that is gone.
        assert_eq!(stage.count("select count(*) from sluice.attempt").await, stage.calls());
        assert_eq!(stage.count("select count(*) from sluice.inflight").await, 0);
    }
    stage.drain().await;
    stage.books_are_in_order(300).await;
    assert_eq!(stage.calls(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_short_and_names_what_was_cut() {
    let stage = Stage::new("latency = { fixed = 30 }").await;
    stage.enqueue(5).await;
    let worker = stage.worker();
    until("five calls are running", async || stage.simulator.verdict().total.max_concurrency == 5).await;
    signal(&worker, rustix::process::Signal::TERM);
    // Another kind of signal: two of one kind may be merged into one.
    signal(&worker, rustix::process::Signal::INT);
    let output = ended(worker).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let named = "select count(*) from sluice.attempts where class = 'abandoned' and uncertain_cost > 0";
    assert_eq!(stage.count(named).await, 5);
    assert_eq!(stage.count("select count(*) from sluice.ready where attempts = 1").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_takes_over_from_one_that_was_killed() {
    let stage = Stage::new("latency = { uniform = [0.05, 0.2] }").await;
    stage.enqueue(200).await;
    let mut worker = stage.worker();
    stage.until_results(30).await;
    worker.kill().await.unwrap();
    let held = stage.count("select count(*) from sluice.inflight").await;
    assert!(held > 0);
    // Thirty seconds pass.
    sqlx::query("update sluice.worker set lease_until = now() - interval '1 second'")
        .execute(&stage.pool)
        .await
        .unwrap();
    stage.drain().await;
    stage.books_are_in_order(200).await;
    // Every call is on the ledger; beside them only what the dead worker had noted and not begun.
    let ledger = stage.count("select count(*) from sluice.attempt").await;
    let begun = stage.calls();
    let named = stage.count("select count(*) from sluice.attempts where detail = 'worker_died'").await;
    assert!(begun <= ledger && ledger - begun <= named, "{begun} calls, {ledger} on the ledger, {named} named");
    // Only the answers to the jobs that it held may have been bought twice.
    assert!(named <= held, "{named} named, {held} held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_does_not_end_a_worker() {
    let stage = Stage::new("").await;
    let worker = stage.worker();
    until("it has registered", async || stage.count("select count(*) from sluice.worker").await == 1).await;
    signal(&worker, rustix::process::Signal::HUP);
    stage.enqueue(10).await;
    stage.until_results(10).await;
    signal(&worker, rustix::process::Signal::TERM);
    assert!(ended(worker).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_called_back_and_its_slot_is_free() {
    let stage = Stage::new("").await;
    let job: i64 = sqlx::query_scalar(
        "insert into sluice.job (request) values ('{\"prompt\": \"[[fault:hang]] for ever\"}') returning id",
    )
    .fetch_one(&stage.pool)
    .await
    .unwrap();
    let worker = stage.worker();
    until("it is called", async || stage.calls() == 1).await;
    let cancelled: bool =
        sqlx::query_scalar("select sluice.cancel($1)").bind(job).fetch_one(&stage.pool).await.unwrap();
    assert!(cancelled);
    until("the call is dropped and booked", async || {
        stage.count("select count(*) from sluice.attempt where class = 'abandoned'").await == 1
    })
    .await;
    assert_eq!(stage.count("select count(*) from sluice.results where state = 'cancelled'").await, 1);
    signal(&worker, rustix::process::Signal::TERM);
    assert!(ended(worker).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_pauses_the_bucket_and_not_the_jobs() {
    // Twenty at once, of which one is told to wait: the rest waits too, untouched.
    let stage =
        Stage::new("faults = [{ kind = \"rate_limit\", wait = \"2s\", format = \"retry_after\", first_n_calls = 1 }]")
            .await;
    stage.enqueue(60).await;
    stage.drain().await;
    stage.books_are_in_order(60).await;
    let seen = stage.simulator.verdict().total;
    assert_eq!((seen.calls, seen.rate_limited, seen.early_retries), (61, 1, 0));
    // On their way, when the one was told, were at most those that were in hand.
    let mut arrived: Vec<_> = stage.simulator.calls(usize::MAX).iter().map(|call| call.arrived_ms).collect();
    arrived.sort_unstable();
    let meanwhile = arrived.iter().filter(|at| **at < arrived[0] + 2000).count();
    assert!(meanwhile <= 20, "{meanwhile} calls came before the wait was over");
    assert_eq!(stage.count("select count(*) from sluice.attempt where class = 'rate_limit'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_asked_for_while_another_call_is_being_noted_is_kept() {
    let stage =
        Stage::new("faults = [{ kind = \"rate_limit\", wait = \"5s\", format = \"retry_after\", first_n_calls = 1 }]")
            .await;
    stage.enqueue(1).await;
    // Its call has leave, and the database takes its time to note it.
    sqlx::raw_sql(
        "create function sluice.slow() returns trigger language plpgsql as $$ begin
             if new.job_id = (select min(id) from sluice.job) then perform pg_sleep(3); end if;
             return new;
         end $$;
         create trigger slow before update on sluice.inflight for each row execute function sluice.slow();",
    )
    .execute(&stage.pool)
    .await
    .unwrap();
    let worker = stage.worker();
    let noting = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    until("the call is being noted", async || stage.count(noting).await == 1).await;
    stage.enqueue(1).await;
    stage.until_results(2).await;
    signal(&worker, rustix::process::Signal::TERM);
    assert!(ended(worker).await.status.success());
    let seen = stage.simulator.verdict().total;
    assert_eq!((seen.calls, seen.rate_limited, seen.early_retries), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_at_a_rejected_key_rests_a_moment_and_goes_on_as_soon_as_the_key_is_mended() {
    // The key rests ten minutes here; the second worker stands for one with a better key.
    let stage = Stage::new("faults = [{ kind = \"auth\", first_n_calls = 1 }]").await;
    stage.enqueue(1).await;
    let worker = stage.worker();
    until("the job is parked", async || stage.count("select count(*) from sluice.parked").await == 1).await;
    assert_eq!(stage.count("select count(*) from sluice.parked where run_at > now() + interval '11 seconds'").await, 0);
    signal(&worker, rustix::process::Signal::TERM);
    let output = ended(worker).await;
    assert!(text(&output.stderr).contains("the key is rejected"), "{}", text(&output.stderr));
    // Ten seconds pass.
    sqlx::query("update sluice.parked set run_at = now()").execute(&stage.pool).await.unwrap();
    stage.drain().await;
    assert_eq!(stage.count("select count(*) from sluice.results where state = 'succeeded'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_nobody_configured_is_felt_for_and_not_run_into_with_everything() {
    let stage =
        Stage::new("quota = { requests_per_minute = 6000, burst_requests = 50 }\nlatency = { fixed = 0.05 }").await;
    stage.enqueue(300).await;
    let mut worker = stage.program.command(&["worker", "--drain"]);
    let output = ended(worker.env("SLUICE__WORKER__MAX_IN_FLIGHT", "300").spawn().unwrap()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    stage.books_are_in_order(300).await;
    let seen = stage.simulator.verdict().total;
    // All at once would be 250 refusals in the first wave alone.
    assert!(seen.rate_limited < 150, "{} refusals", seen.rate_limited);
    assert_eq!(seen.early_retries_of_same_request, 0);
}
