//! Routes that give answers again: by the store, and with real workers against the simulator.

use crate::support::fleet::{Fleet, stop};
use crate::support::program::text;
use crate::support::queue::{Queue, accepted, failure, park, success};
use crate::support::wait::until;
use serde_json::Value;
use sluice::domain::{CacheKey, ErrorClass, JobId, NanoUsd, Timestamp};
use sluice::store::cache::{EarlierAnswer, FromCache};
use sluice::store::claim::Claimed;
use sluice::store::settle::{CachedEnding, EndingRow, Settlement};

const KEY: CacheKey = CacheKey([7; 32]);

fn cached(from: Option<(JobId, Option<NanoUsd>)>) -> CachedEnding {
    CachedEnding { key: KEY, from }
}

/// The ending of a job with its own answer.
fn answered(claimed: &Claimed) -> EndingRow {
    EndingRow { cache: Some(cached(None)), ..success(claimed) }
}

impl Queue {
    async fn asks(&self, claimed: &Claimed) -> FromCache {
        self.store.ask_cache(claimed.lease.job, KEY, Timestamp(0)).await.unwrap()
    }

    /// Ends a job with its own answer.
    async fn answer(&self, claimed: &Claimed) {
        let attempts = vec![accepted(claimed, 1)];
        self.settle(Settlement { attempts, endings: vec![answered(claimed)], ..Settlement::default() }).await;
    }

    async fn claim_of(&self, worker: i64, jobs: &[i64]) -> Vec<Claimed> {
        let mut claimed = self.claim_all(worker).await;
        claimed.sort_by_key(|claimed| claimed.lease.job.0);
        assert_eq!(claimed.iter().map(|claimed| claimed.lease.job.0).collect::<Vec<_>>(), jobs);
        claimed
    }
}

#[tokio::test]
async fn the_first_job_asks_the_others_wait_and_its_answer_wakes_them() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 3).await;
    let claimed = queue.claim_of(worker, &jobs).await;
    assert_eq!(queue.asks(&claimed[0]).await, FromCache::Lead);
    assert_eq!(queue.asks(&claimed[0]).await, FromCache::Lead, "asked twice, it still leads");
    for other in &claimed[1..] {
        assert_eq!(queue.asks(other).await, FromCache::Follow(JobId(jobs[0])));
        let parks = vec![park(other, Some(crate::support::queue::in_an_hour()))];
        queue.settle(Settlement { parks, ..Settlement::default() }).await;
    }
    queue.answer(&claimed[0]).await;
    let due = "select count(*) from sluice.parked where run_at <= now()";
    assert_eq!(queue.count(due).await, 2, "the answer wakes them");
    queue.store.promote().await.unwrap();
    let claimed = queue.claim_of(worker, &jobs[1..]).await;
    let FromCache::Answered(earlier) = queue.asks(&claimed[0]).await else { panic!("it is answered") };
    let EarlierAnswer { job, target, input_tokens, output_tokens, cost, response, .. } = *earlier;
    assert_eq!((job, target), (JobId(jobs[0]), Some(("openai".to_owned(), "gpt-4o-mini".to_owned()))));
    assert_eq!((input_tokens, output_tokens, cost), (100, 50, Some(NanoUsd(30_000))));
    assert!(response.contains("Paris"), "{response}");
    let left = "select (select count(*) from sluice.asking) + (select count(*) from sluice.following)";
    assert_eq!(queue.count(left).await, 0);
}

#[tokio::test]
async fn a_failure_is_no_answer_and_the_next_job_asks() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 2).await;
    let claimed = queue.claim_of(worker, &jobs).await;
    assert_eq!(queue.asks(&claimed[0]).await, FromCache::Lead);
    assert_eq!(queue.asks(&claimed[1]).await, FromCache::Follow(JobId(jobs[0])));
    let failed = EndingRow { cache: Some(cached(None)), ..failure(&claimed[0], ErrorClass::Timeout) };
    queue.settle(Settlement { endings: vec![failed], ..Settlement::default() }).await;
    assert_eq!(queue.count("select count(*) from sluice.answered").await, 0);
    assert_eq!(queue.asks(&claimed[1]).await, FromCache::Lead);
}

#[tokio::test]
async fn a_leader_that_is_gone_or_waits_for_long_is_not_waited_for() {
    for statement in [
        "select sluice.cancel(1)",
        "delete from sluice.inflight where job_id = 1; insert into sluice.parked (job_id, run_at, flow, prio, reason) \
         select 1, now() + interval '1 hour', 1, 0, 'x'",
        "delete from sluice.inflight where job_id = 1",
    ] {
        let queue = Queue::new().await;
        let worker = queue.worker().await;
        let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 2).await;
        assert_eq!(jobs, [1, 2]);
        let claimed = queue.claim_of(worker, &jobs).await;
        assert_eq!(queue.asks(&claimed[0]).await, FromCache::Lead);
        assert_eq!(queue.asks(&claimed[1]).await, FromCache::Follow(JobId(1)));
        queue.run(statement).await;
        assert_eq!(queue.asks(&claimed[1]).await, FromCache::Lead, "{statement}");
        // The first one, should it come back, follows now.
        assert_eq!(queue.asks(&claimed[0]).await, FromCache::Follow(JobId(2)), "{statement}");
    }
}

#[tokio::test]
async fn no_login_finds_the_answers_of_another_and_no_job_one_that_is_too_old_or_dropped() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 1).await;
    let claimed = queue.claim_of(worker, &jobs).await;
    queue.answer(&claimed[0]).await;
    queue.run("insert into sluice.job (request, enqueued_by) values ('{\"prompt\": \"x\"}', 'another_login')").await;
    let other = queue.claim_one(worker).await;
    assert_eq!(queue.asks(&other).await, FromCache::Lead, "of another login");
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 1).await;
    let claimed = queue.claim_of(worker, &jobs).await;
    let since = Timestamp(crate::support::clock::millis() + 60_000);
    let asked = |since| queue.store.ask_cache(claimed[0].lease.job, KEY, since);
    assert_eq!(asked(since).await.unwrap(), FromCache::Lead, "too old");
    assert!(matches!(asked(Timestamp(0)).await.unwrap(), FromCache::Answered(_)));
    queue.run("delete from sluice.result").await;
    assert_eq!(asked(Timestamp(0)).await.unwrap(), FromCache::Lead, "its result is gone");
}

#[tokio::test]
async fn an_answer_that_is_given_again_is_counted_once_however_often_it_is_settled() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 3).await;
    let claimed = queue.claim_of(worker, &jobs).await;
    queue.answer(&claimed[0]).await;
    for (claimed, saved) in [(&claimed[1], Some(NanoUsd(30_000))), (&claimed[2], None)] {
        let row = EndingRow {
            attempts: 0,
            rung: None,
            cost: Some(NanoUsd::ZERO),
            cache: Some(cached(Some((JobId(jobs[0]), saved)))),
            ..success(claimed)
        };
        for _ in 0..2 {
            // The reply to the first commit was lost.
            queue.settle(Settlement { endings: vec![row.clone()], ..Settlement::default() }).await;
        }
    }
    let uses = "select (sum(answers) * 1000000 + sum(saved_nanos) * 10 + sum(unpriced))::bigint from sluice.cache_use";
    assert_eq!(queue.count(uses).await, 2_300_001);
    let from = "select count(*) from sluice.results where answered_from = 1 and cost = 0 and attempts = 0";
    assert_eq!(queue.count(from).await, 2);
    // An answer that was given again is not the one that later jobs are told of.
    assert_eq!(queue.count("select job_id from sluice.answered").await, jobs[0]);
    let sums = "select (sum(succeeded) * 10 + sum(attempts))::bigint from sluice.totals where provider = '(cache)'";
    assert_eq!(queue.count(sums).await, 20);
}

const CONFIG: &str = "[providers.p]\ndialect = \"openai\"\nbase_url = \"http://simulator/p/v1\"\n\
                      [models.\"p/m\"]\nprice = { input = \"1\", output = \"4\" }\n\
                      [worker]\nmax_in_flight = 40\n\
                      [routes.again]\nrungs = [\"p/m\"]\ncache = \"1h\"\nmax_attempts = 1\n\
                      [routes.default]\nrungs = [\"p/m\"]\n";
const SCENARIO: &str = "markers = true\n[providers.p]\ndialect = \"openai\"\nlatency = { fixed = 0.1 }\n\
                        models.m.price = { input = \"1\", output = \"4\" }\n";

async fn enqueue(fleet: &Fleet, batch: &'static str, jobs: i64, prompts: i64) {
    sqlx::query(
        "insert into sluice.job (route, batch, request)
              select 'again', $1, jsonb_build_object('prompt', 'question ' || n % $3) from generate_series(1, $2) n",
    )
    .bind(batch)
    .bind(jobs)
    .bind(prompts)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

fn calls(fleet: &Fleet) -> u64 {
    fleet.simulator.verdict().total.calls
}

async fn ended(fleet: &Fleet, jobs: i64) {
    until("all jobs have ended", async || fleet.number("select count(*) from sluice.result").await == jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_bought_once_for_two_workers_and_two_batches() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let workers = fleet.start_many(2).await;
    enqueue(&fleet, "one", 200, 20).await;
    ended(&fleet, 200).await;
    assert_eq!(calls(&fleet), 20, "the same request is bought once while it waits and runs");
    enqueue(&fleet, "two", 100, 25).await;
    ended(&fleet, 300).await;
    assert_eq!(calls(&fleet), 25, "and once for later batches");
    let good = "select count(*) from sluice.results where state = 'succeeded' and answer <> ''";
    assert_eq!(fleet.number(good).await, 300);
    let again = "select count(*) from sluice.results where answered_from is not null and cost = 0 and attempts = 0";
    assert_eq!(fleet.number(again).await, 275);
    // Equal requests have equal answers.
    let answers = "select count(distinct (j.request ->> 'prompt', r.response::text)) from sluice.results r
                     join sluice.job j on j.id = r.job_id";
    assert_eq!(fleet.number(answers).await, 25);
    stop(workers).await;
    let output = async |arguments: &[&str]| {
        let output = fleet.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let report: Value = serde_json::from_str(&output(&["report", "cache", "--format", "json"]).await).unwrap();
    assert_eq!((&report[0]["route"], &report[0]["answers"]), (&"again".into(), &275.into()));
    let saved = fleet.number(
        "select sum(e.cost_nanos)::bigint from sluice.result r join sluice.result e on e.job_id = r.answered_from",
    );
    let told = report[0]["saved"].as_f64().unwrap() * 1e9;
    #[expect(clippy::cast_precision_loss, reason = "some microdollars")]
    let saved = saved.await as f64;
    assert!((told - saved).abs() < 0.5 && saved > 0.0, "{told} told, {saved} saved");
    let cost: Value = serde_json::from_str(&output(&["report", "cost", "--format", "json"]).await).unwrap();
    let row = |provider: &str| cost.as_array().unwrap().iter().find(|row| row["provider"] == provider).unwrap().clone();
    assert_eq!((&row("(cache)")["answered"], &row("(cache)")["attempts"]), (&275.into(), &0.into()));
    assert_eq!((&row("p")["answered"], &row("p")["attempts"]), (&25.into(), &25.into()));
    let job = fleet.number("select max(job_id) from sluice.result where answered_from is not null").await.to_string();
    let story = output(&["explain", &job]).await;
    assert!(story.contains("whose request was the same: no call was made"), "{story}");
    assert!(story.contains("Total: $0.00 in 0 attempts"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_end_each_for_itself_and_other_routes_buy_each_answer() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let worker = fleet.start();
    sqlx::raw_sql(
        "insert into sluice.job (route, request)
              select 'again', '{\"prompt\": \"[[fault:400]]\"}' from generate_series(1, 4);
         insert into sluice.job (request) select '{\"prompt\": \"Hi\"}' from generate_series(1, 4)",
    )
    .execute(&fleet.pool)
    .await
    .unwrap();
    ended(&fleet, 8).await;
    assert_eq!(calls(&fleet), 8);
    assert_eq!(fleet.number("select count(*) from sluice.results where state = 'failed'").await, 4);
    assert_eq!(fleet.number("select count(*) from sluice.result where answered_from is not null").await, 0);
    assert_eq!(fleet.number("select count(*) from sluice.asking").await, 0);
    stop(vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_by_another() {
    let fleet = Fleet::new(&SCENARIO.replace("0.1", "2.0"), CONFIG).await;
    let mut first = fleet.start();
    enqueue(&fleet, "one", 5, 1).await;
    let waits =
        "select count(*) from sluice.jobs where waits_for like 'the answer of job %, which has the same request%'";
    until("four wait for the first", async || fleet.number(waits).await == 4 && calls(&fleet) == 1).await;
    first.kill().await;
    let second = fleet.start();
    ended(&fleet, 5).await;
    assert_eq!(fleet.number("select count(*) from sluice.results where state = 'succeeded'").await, 5);
    assert!(calls(&fleet) <= 3, "{} calls", calls(&fleet));
    stop(vec![second]).await;
}

#[tokio::test]
async fn what_a_cache_cannot_be_or_a_report_cannot_know_is_told() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    for (given, told) in [
        ("cache = \"0s\"", "routes.r.cache: is zero"),
        ("cache = true", "routes.r.cache: is true"),
        ("cache = \"soon\"", "routes.r.cache"),
    ] {
        fleet.configure(&format!("{CONFIG}[routes.r]\nrungs = [\"p/m\"]\n{given}\n"));
        let output = fleet.program(&["check"]).output().await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
    fleet.configure(CONFIG);
    for (arguments, told) in [
        (&["report", "cache", "--by", "model"][..], "by route, project, day and hour"),
        (&["report", "cache", "--batch", "b"], "is not kept by batch"),
    ] {
        let output = fleet.program(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
}
