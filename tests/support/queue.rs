//! A queue in a database of a test's own, worked on by hand: jobs put in, claimed and settled one step at a time.

use super::clock;
use super::postgres::{TestDatabase, database};
use serde_json::Value;
use sluice::domain::price::Price;
use sluice::domain::{ErrorClass, NanoUsd, Timestamp, Usage, UsageSource};
use sluice::store::Store;
use sluice::store::claim::{Claimed, Take};
use sluice::store::settle::{AttemptRow, EndingRow, Labels, ParkRow, Settlement};
use sqlx::PgPool;
use std::sync::Arc;

/// Everything goes into this many jobs at most: a claim without a bound that matters.
const PLENTY: i32 = 1_000_000;

/// What the attempts cost by.
const PRICE: Price = Price::plain(150_000_000, 600_000_000);

/// A job to be enqueued.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub route: &'static str,
    pub project: &'static str,
    pub batch: Option<&'static str>,
    pub priority: i16,
}

impl Default for NewJob {
    fn default() -> Self {
        Self { route: "default", project: "default", batch: None, priority: 0 }
    }
}

/// A job of this batch.
pub fn in_batch(batch: &'static str) -> NewJob {
    NewJob { batch: Some(batch), ..NewJob::default() }
}

/// Enqueues this many plain jobs whose prompts are numbered.
pub async fn enqueue_questions(pool: &PgPool, jobs: i32) {
    sqlx::query(
        "insert into sluice.job (request) select jsonb_build_object('prompt', 'Question ' || n) from \
         generate_series(1, $1) n",
    )
    .bind(jobs)
    .execute(pool)
    .await
    .unwrap();
}

/// A job of this route with this request.
pub async fn enqueue_request(pool: &PgPool, route: &str, request: &Value) {
    sqlx::query("insert into sluice.job (route, request) values ($1, $2)")
        .bind(route)
        .bind(request)
        .execute(pool)
        .await
        .unwrap();
}

/// The queue.
pub struct Queue {
    pub store: Store,
    pub pool: PgPool,
    pub database: TestDatabase,
}

impl Queue {
    pub async fn new() -> Self {
        let database = database().await;
        Self { store: database.store().await, pool: database.pool(), database }
    }

    /// Enqueues jobs of a kind and returns their numbers, in order.
    pub async fn enqueue(&self, job: NewJob, count: i32) -> Vec<i64> {
        let mut ids: Vec<i64> = sqlx::query_scalar(
            "insert into sluice.job (route, project, batch, priority, request)
                  select $1, $2, $3, $4, jsonb_build_object('prompt', 'a secret ' || n) from generate_series(1, $5) n
               returning id",
        )
        .bind(job.route)
        .bind(job.project)
        .bind(job.batch)
        .bind(job.priority)
        .bind(count)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        ids.sort_unstable();
        ids
    }

    /// Enqueues one plain job.
    pub async fn enqueue_one(&self) -> i64 {
        self.enqueue(NewJob::default(), 1).await[0]
    }

    /// A worker that is alive.
    pub async fn worker(&self) -> i64 {
        self.store.register("host", 42, "0.0.0").await.unwrap().0
    }

    /// Claims up to `count` jobs from every lane.
    pub async fn claim(&self, worker: i64, count: i32) -> Vec<Claimed> {
        let lanes = self.store.lanes().await.unwrap();
        let takes: Vec<Take> =
            lanes.iter().map(|lane| Take { flow: lane.flow, prio: lane.prio, after: 0, count }).collect();
        self.store.claim(worker, &takes, usize::MAX).await.unwrap().jobs
    }

    /// Claims everything that is ready.
    pub async fn claim_all(&self, worker: i64) -> Vec<Claimed> {
        self.claim(worker, PLENTY).await
    }

    /// Claims the one job there is.
    pub async fn claim_one(&self, worker: i64) -> Claimed {
        let mut claimed = self.claim_all(worker).await;
        assert_eq!(claimed.len(), 1, "one job is ready");
        claimed.remove(0)
    }

    /// Lets a worker's lease run out, as if it had been silent.
    pub async fn silence(&self, worker: i64) {
        self.run_with("update sluice.worker set lease_until = now() - interval '1 s' where id = $1", worker).await;
    }

    /// Lets the parked jobs be due.
    pub async fn pass_time(&self) {
        self.run("update sluice.parked set run_at = now() - interval '1 s'").await;
    }

    /// Runs statements that a test has put together.
    pub async fn execute(&self, sql: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    pub async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    pub async fn run_with(&self, statement: &'static str, argument: i64) {
        sqlx::query(statement).bind(argument).execute(&self.pool).await.unwrap();
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// The state of a job as users see it.
    pub async fn state(&self, job: i64) -> String {
        sqlx::query_scalar("select state from sluice.jobs where id = $1").bind(job).fetch_one(&self.pool).await.unwrap()
    }

    /// Where a job's rows are: `r` ready, `p` parked, `i` in flight, `e` ended. A job is in exactly one place.
    pub async fn places(&self, job: i64) -> String {
        sqlx::query_scalar(
            "select concat((select 'r' from sluice.ready where job_id = $1),
                           (select 'p' from sluice.parked where job_id = $1),
                           (select 'i' from sluice.inflight where job_id = $1),
                           (select 'e' from sluice.result where job_id = $1))",
        )
        .bind(job)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    pub async fn settle(&self, settlement: Settlement) -> Vec<i64> {
        let fenced_out = self.store.settle(&settlement).await.unwrap();
        fenced_out.into_iter().map(|lease| lease.job.0).collect()
    }

    /// Ends a claimed job with one accepted attempt.
    pub async fn succeed(&self, claimed: &Claimed) -> Vec<i64> {
        self.settle(Settlement {
            attempts: vec![accepted(claimed, 1)],
            endings: vec![success(claimed)],
            ..Settlement::default()
        })
        .await
    }

    /// Ends a claimed job with one failed attempt.
    pub async fn fail(&self, claimed: &Claimed, class: ErrorClass) -> Vec<i64> {
        self.settle(Settlement {
            attempts: vec![failed(claimed, 1, class)],
            endings: vec![failure(claimed, class)],
            ..Settlement::default()
        })
        .await
    }
}

fn labels(claimed: &Claimed) -> Arc<Labels> {
    Arc::new(claimed.labels())
}

/// An attempt whose answer was used: 100 tokens in, 20 of them cached, 50 out, for 30 microdollars.
pub fn accepted(claimed: &Claimed, number: i16) -> AttemptRow {
    let now = clock::millis();
    AttemptRow {
        lease: claimed.lease,
        labels: labels(claimed),
        number,
        round: claimed.round,
        provider: "openai".to_owned(),
        model: "gpt-4o-mini".to_owned(),
        rung: 0,
        started_at: Timestamp(now - 1200),
        ended_at: Timestamp(now),
        first_byte_ms: Some(300),
        total_ms: 1200,
        class: None,
        detail: None,
        http_status: Some(200),
        code: None,
        message: None,
        retry_at: None,
        request_id: Some("req_1".to_owned()),
        model_served: Some("gpt-4o-mini-2024-07-18".to_owned()),
        finish: Some("stop".to_owned()),
        usage_raw: None,
        usage: Usage { input: 80, cache_read: 20, output: 50, source: UsageSource::Provider, ..Usage::default() },
        cost: Some(NanoUsd(30_000)),
        uncertain: NanoUsd::ZERO,
        price: Some(PRICE),
        decision: None,
        answer: None,
        service_tier: None,
        reported_cost: None,
        computed_cost: None,
        cost_differs: false,
        cost_source: None,
        reask_of: None,
        confidence: None,
        first_choice: None,
        raced: false,
        notes: Vec::new(),
    }
}

/// An attempt that failed and cost nothing.
pub fn failed(claimed: &Claimed, number: i16, class: ErrorClass) -> AttemptRow {
    AttemptRow {
        class: Some(class),
        http_status: Some(500),
        usage: Usage::default(),
        cost: Some(NanoUsd::ZERO),
        finish: None,
        ..accepted(claimed, number)
    }
}

/// An attempt whose answer was paid for and not used.
pub fn rejected(claimed: &Claimed, number: i16, detail: &'static str) -> AttemptRow {
    AttemptRow { class: Some(ErrorClass::SoftFailure), detail: Some(detail.into()), ..accepted(claimed, number) }
}

/// The ending of a job whose last attempt was accepted.
pub fn success(claimed: &Claimed) -> EndingRow {
    EndingRow {
        lease: claimed.lease,
        round: claimed.round,
        labels: labels(claimed),
        attempts: 1,
        target: Some(("openai".to_owned(), "gpt-4o-mini".to_owned())),
        rung: Some(0),
        after_fallback: false,
        repaired: false,
        failure: None,
        cost: Some(NanoUsd(30_000)),
        uncertain: NanoUsd::ZERO,
        input_tokens: 100,
        output_tokens: 50,
        request_id: Some("req_1".to_owned()),
        response: Some(r#"{"choices":[{"message":{"content":"Paris"}}]}"#.to_owned()),
        raced: false,
        cache: None,
        confidence: None,
        unsure: None,
        shadow: None,
    }
}

/// The ending of a job that failed.
pub fn failure(claimed: &Claimed, class: ErrorClass) -> EndingRow {
    EndingRow {
        failure: Some((class, "it did not work".to_owned())),
        cost: Some(NanoUsd::ZERO),
        response: None,
        ..success(claimed)
    }
}

/// A claimed job that goes back: until an instant, or at once.
pub fn park(claimed: &Claimed, until: Option<Timestamp>) -> ParkRow {
    ParkRow {
        lease: claimed.lease,
        attempts: claimed.attempts,
        until,
        reason: "openai/gpt-4o-mini: rate_limit".to_owned(),
        raced: false,
    }
}

/// An hour from now.
pub fn in_an_hour() -> Timestamp {
    Timestamp(clock::millis() + 3_600_000)
}
