//! Few places and long calls: the jobs that are already in hand take the places in turn, and no job is claimed before
//! there is a place for it. So a job of high priority that comes late begins within the next few calls.

use crate::support::fleet::Fleet;
use crate::support::wait::until;

/// Calls that may begin between the moment at which the urgent job is committed and its own call: two jobs in hand that
/// wait for a place, as many that are claimed at that moment, and those that were being looked for.
const NEXT_FEW: i64 = 6;

/// Routes that share the places.
const ROUTES: i64 = 20;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.2, 0.3] }\n\
     models.model.price = { input = \"1\", output = \"2\" }\n";

/// Calls that take long compared with a look at the queue, also on a busy machine: where calls are counted, a look that
/// takes as long as several of them would let those go before.
const LONG_CALLS: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.6, 0.8] }\n\
     models.model.price = { input = \"1\", output = \"2\" }\n";

fn config(concurrency: u32, routes: &str) -> String {
    format!(
        "[worker]\nmax_in_flight = 200\ndrain_timeout = \"1s\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
         limits = {{ concurrency = {concurrency} }}\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n{routes}"
    )
}

/// Enqueues a job of this priority on this route and returns how many calls of other jobs began before its own, counted
/// from the moment at which it was committed.
async fn calls_before_an_urgent_job(fleet: &Fleet, route: &str, priority: i16) -> i64 {
    let job: i64 = sqlx::query_scalar(
        "insert into sluice.job (route, priority, request) values ($1, $2, '{\"prompt\": \"now\"}') returning id",
    )
    .bind(route)
    .bind(priority)
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    // Later than the insertion said: its transaction had begun before.
    let committed: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&fleet.pool).await.unwrap();
    let has_begun = async || {
        sqlx::query_scalar("select exists (select 1 from sluice.attempt where job_id = $1)")
            .bind(job)
            .fetch_one(&fleet.pool)
            .await
            .unwrap()
    };
    until("the urgent job has been called for", has_begun).await;
    sqlx::query_scalar(
        "select count(*) from sluice.attempt other
           join sluice.attempt own on own.job_id = $1
          where other.job_id <> $1 and other.started_at >= $2 and other.started_at < own.started_at",
    )
    .bind(job)
    .bind(committed)
    .fetch_one(&fleet.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_high_priority_begins_within_the_next_few_calls_however_few_places_there_are() {
    let fleet = Fleet::new(LONG_CALLS, &config(2, "[routes.default]\nrungs = [\"one/model\"]\n")).await;
    fleet.enqueue("default", 100).await;
    let worker = fleet.start();
    fleet.until_admitted(12).await;
    let before = calls_before_an_urgent_job(&fleet, "default", 10).await;
    assert!(before <= NEXT_FEW, "{before} calls of jobs of priority 0 began before it");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_share_few_places_hold_few_jobs_each_and_none_is_kept_out() {
    let routes: Vec<String> = (0..ROUTES).map(|n| format!("[routes.r{n}]\nrungs = [\"one/model\"]\n")).collect();
    let fleet = Fleet::new(SCENARIO, &config(2, &routes.concat())).await;
    for n in 0..ROUTES {
        fleet.enqueue(&format!("r{n}"), 20).await;
    }
    let worker = fleet.start();
    fleet.until_admitted(40).await;
    // Not those whose call is over and which are being written. On a busy machine a place may be taken, and the next
    // job of that route claimed, before the call has been noted: the least of some looks is what waits, each after
    // another call. A worker that hoards jobs has more of them in hand at each look.
    let mut in_hand = i64::MAX;
    for more in 1..=10 {
        let waiting = "select count(*) from sluice.inflight where call_number is null";
        in_hand = in_hand.min(fleet.number(waiting).await);
        fleet.until_admitted(40 + more).await;
    }
    assert!(in_hand <= ROUTES + NEXT_FEW, "{in_hand} jobs wait in hand where two may run");
    // Three rounds at most: a job of its route that is in hand waits for its turn, another may be claimed before the
    // worker has seen the urgent one, and then that waits for its own turn.
    let before = calls_before_an_urgent_job(&fleet, "r7", 10).await;
    assert!(before <= 3 * ROUTES + NEXT_FEW, "{before} calls of other jobs began before it");
    let routes = fleet
        .number("select count(distinct route) from sluice.job where id in (select job_id from sluice.attempt)")
        .await;
    assert_eq!(routes, ROUTES, "each route has had calls");
    worker.stop().await;
}

/// Each route waits for seconds for its turn at the only place. Jobs that went back to the queue meanwhile and were
/// claimed anew would go behind those that have waited for less.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_long_for_a_place_keep_their_turn_until_their_route_is_paused() {
    let routes: Vec<String> = (0..ROUTES).map(|n| format!("[routes.r{n}]\nrungs = [\"one/model\"]\n")).collect();
    let fleet = Fleet::new(SCENARIO, &config(1, &routes.concat())).await;
    for n in 0..ROUTES {
        fleet.enqueue(&format!("r{n}"), 20).await;
    }
    let worker = fleet.start();
    fleet.until_admitted(u64::try_from(2 * ROUTES).unwrap()).await;
    let calls = "select coalesce(max(calls) - min(calls), 0) from (
                   select count(attempt.job_id) as calls from sluice.job
                     left join sluice.attempt on attempt.job_id = job.id group by job.route) routes";
    let apart = fleet.number(calls).await;
    // The first claims may bring two jobs of a route, before jobs wait.
    assert!(apart <= 3, "a route has had {apart} calls more than another");
    assert!(fleet.program(&["route", "pause", "r7"]).status().await.unwrap().success());
    let in_hand = "select count(*) from sluice.inflight join sluice.job on job.id = job_id where job.route = 'r7'";
    until("no job of the paused route is in hand", async || fleet.number(in_hand).await == 0).await;
    worker.stop().await;
}
