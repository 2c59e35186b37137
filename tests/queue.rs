//! The queue by itself: claims, leases, rescue, cancel and retry, against a real Postgres.

use crate::support::queue::{NewJob, Queue, failed, failure, in_an_hour, in_batch, park, success};
use sluice::domain::{ErrorClass, JobId};
use sluice::store::claim::{NoRequest, Take};
use sluice::store::job::Changed;
use sluice::store::lease::Rescued;
use sluice::store::settle::{ParkRow, Settlement};
use std::collections::HashSet;

const MAX_CRASHES: u16 = 3;

// ------------------------------------------------------------------------------------------------------ claim

#[tokio::test]
async fn jobs_are_claimed_by_priority_and_then_in_order_of_their_numbers() {
    let queue = Queue::new().await;
    let low = queue.enqueue(NewJob { priority: -5, ..NewJob::default() }, 2).await;
    let usual = queue.enqueue(NewJob::default(), 2).await;
    let high = queue.enqueue(NewJob { priority: 5, ..NewJob::default() }, 2).await;
    let lanes = queue.store.lanes().await.unwrap();
    assert_eq!(lanes.iter().map(|lane| lane.prio).collect::<Vec<_>>(), [-5, 0, 5]);
    assert_eq!(lanes.iter().map(|lane| lane.first).collect::<Vec<_>>(), [high[0], usual[0], low[0]]);
    let worker = queue.worker().await;
    let claimed = queue.claim(worker, 1).await;
    let ids: HashSet<i64> = claimed.iter().map(|claimed| claimed.lease.job.0).collect();
    assert_eq!(ids, HashSet::from([high[0], usual[0], low[0]]));
}

#[tokio::test]
async fn each_route_project_and_batch_is_a_lane_of_its_own() {
    let queue = Queue::new().await;
    for job in [
        NewJob::default(),
        NewJob { route: "other", ..NewJob::default() },
        NewJob { project: "other", ..NewJob::default() },
        in_batch("other"),
    ] {
        queue.enqueue(job, 3).await;
    }
    let mut lanes = queue.store.lanes().await.unwrap();
    assert_eq!(lanes.len(), 4);
    lanes.sort_by_key(|lane| lane.first);
    assert_eq!(lanes[1].route, "other");
    assert_eq!(lanes[2].project, "other");
    assert_eq!(lanes[3].batch.as_deref(), Some("other"));
}

#[tokio::test]
async fn a_claim_takes_no_more_than_it_was_told_and_begins_after_the_watermark() {
    let queue = Queue::new().await;
    let ids = queue.enqueue(NewJob::default(), 10).await;
    let worker = queue.worker().await;
    let lane = queue.store.lanes().await.unwrap().remove(0);
    let take = |after, count| Take { flow: lane.flow, prio: lane.prio, after, count };
    let first = queue.store.claim(worker, &[take(0, 3)], usize::MAX).await.unwrap().jobs;
    assert_eq!(
        first.iter().map(|claimed| claimed.lease.job.0).collect::<HashSet<_>>(),
        ids[..3].iter().copied().collect()
    );
    let later = queue.store.claim(worker, &[take(ids[6], 100)], usize::MAX).await.unwrap().jobs;
    assert_eq!(
        later.iter().map(|claimed| claimed.lease.job.0).collect::<HashSet<_>>(),
        ids[7..].iter().copied().collect()
    );
    assert_eq!(queue.count("select count(*) from sluice.ready").await, 4);
    assert!(queue.store.claim(worker, &[], usize::MAX).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn a_claimed_job_carries_what_it_was_enqueued_with() {
    let queue = Queue::new().await;
    queue
        .run(
            "insert into sluice.job (route, project, batch, priority, deadline, max_attempts, request)
                  values ('cheap', 'acme', 'nightly', 7, '2030-01-01', 4, '{\"prompt\": \"Hi\"}')",
        )
        .await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert_eq!((claimed.route.as_str(), claimed.project.as_str()), ("cheap", "acme"));
    assert_eq!((claimed.batch.as_deref(), claimed.prio, claimed.max_attempts), (Some("nightly"), -7, Some(4)));
    assert!(claimed.deadline.is_some());
    assert!(claimed.request.as_ref().unwrap().contains(r#""prompt": "Hi""#));
    assert_eq!((claimed.attempts, claimed.crashes, claimed.round), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_claimers_never_get_the_same_job() {
    let queue = Queue::new().await;
    let ids = queue.enqueue(NewJob::default(), 2000).await;
    let lane = queue.store.lanes().await.unwrap().remove(0);
    let mut claimers = Vec::new();
    for _ in 0..6 {
        let worker = queue.worker().await;
        let store = queue.store.clone();
        let take = Take { flow: lane.flow, prio: lane.prio, after: 0, count: 37 };
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(worker, &[take], usize::MAX).await.unwrap().jobs;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|claimed| claimed.lease));
            }
        }));
    }
    let mut leases = Vec::new();
    for claimer in claimers {
        leases.extend(claimer.await.unwrap());
    }
    let jobs: HashSet<i64> = leases.iter().map(|lease| lease.job.0).collect();
    let fences: HashSet<i64> = leases.iter().map(|lease| lease.fence).collect();
    // A claimer may find the rest locked by another and go home early, but each claimed job was claimed once.
    assert_eq!((jobs.len(), fences.len()), (leases.len(), leases.len()));
    let left = queue.count("select count(*) from sluice.ready").await;
    assert_eq!(jobs.len() + usize::try_from(left).unwrap(), ids.len());
}

#[tokio::test]
async fn the_claim_reads_the_index_in_order_and_only_the_partitions_it_needs() {
    let queue = Queue::new().await;
    queue.enqueue(NewJob::default(), 20_000).await;
    queue.run("analyze sluice.ready, sluice.job").await;
    let lane = queue.store.lanes().await.unwrap().remove(0);
    // The statement of the store, as the server was given it: a copy in this test would soon be another one.
    let statement = include_str!("../src/store/claim/claim.sql");
    let mut connection = queue.pool.acquire().await.unwrap();
    // The plan that a prepared statement settles on after a few runs, when it knows no values.
    for setting in ["set plan_cache_mode = force_generic_plan", "set jit = off"] {
        sqlx::raw_sql(setting).execute(&mut *connection).await.unwrap();
    }
    let prepare = format!(
        "prepare claim (bigint, bigint[], smallint[], bigint[], integer[], integer, bigint, bigint, smallint, text[], \
         integer, text[]) as \
         {statement}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let explain = format!(
        "explain (analyze, timing off, summary off, costs off) execute claim (1, '{{{}}}', '{{0}}', '{{0}}', \
         '{{100}}', 1000000, 1000000, 1, 0, '{{}}', 0, '{{}}')",
        lane.flow
    );
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using ready_pkey on ready r"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");
    assert!(!plan.contains("Seq Scan on ready"), "{plan}");
    assert!(plan.contains("Index Scan using job_p0_pkey"), "{plan}");
    for partition in 1..=3 {
        let pruned = format!(r" on job_p{partition} b_\d+ \(never executed\)");
        assert!(regex::Regex::new(&pruned).unwrap().is_match(&plan), "{plan}");
    }
}

#[tokio::test]
async fn a_claim_ends_where_its_requests_become_too_large() {
    let queue = Queue::new().await;
    // Half a megabyte each that cannot be stored smaller, but for every tenth, which is stored as a few kilobytes.
    queue
        .run(
            "insert into sluice.job (request) select jsonb_build_object('prompt', case when n % 10 = 0
                then repeat('x', 500000) else (select string_agg(md5(n || '-' || m), '')
                  from generate_series(1, 15000) m) end)
             from generate_series(1, 100) n",
        )
        .await;
    let worker = queue.worker().await;
    let lane = queue.store.lanes().await.unwrap().remove(0);
    let take = |after, count| Take { flow: lane.flow, prio: lane.prio, after, count };
    let first = queue.store.claim(worker, &[take(0, 100)], usize::MAX).await.unwrap();
    let count = first.jobs.len();
    assert!(first.is_cut && (30..100).contains(&count), "{count}");
    assert!(first.jobs.iter().all(|job| job.request.is_ok() && job.weight > 470_000));
    assert_eq!(queue.count("select count(*) from sluice.ready").await, 100 - i64::try_from(count).unwrap());
    // In memory there is room for three; the others are claimed, and come without their requests.
    let after = first.jobs.last().unwrap().lease.job.0;
    let second = queue.store.claim(worker, &[take(after, 10)], 3_200_000).await.unwrap();
    let read = second.jobs.iter().filter(|job| job.request.is_ok()).count();
    assert_eq!((second.jobs.len(), read, second.is_cut), (10, 3, false));
    assert!(second.jobs[3..].iter().all(|job| job.request == Err(NoRequest::NoRoom) && job.weight == 0));
    // The first always has room.
    let after = second.jobs.last().unwrap().lease.job.0;
    let third = queue.store.claim(worker, &[take(after, 2)], 1).await.unwrap();
    assert_eq!(third.jobs.iter().map(|job| job.request.is_ok()).collect::<Vec<_>>(), [true, false]);
}

// ------------------------------------------------------------------------------------------- park and promote

#[tokio::test]
async fn a_parked_job_comes_back_when_its_time_has_come_and_keeps_its_count() {
    let queue = Queue::new().await;
    let id = queue.enqueue(NewJob { priority: 3, ..in_batch("b") }, 1).await[0];
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    let mut row = park(&claimed, Some(in_an_hour()));
    row.attempts = 2;
    assert!(queue.settle(Settlement { parks: vec![row], ..Settlement::default() }).await.is_empty());
    assert_eq!(queue.places(id).await, "p");
    assert_eq!(queue.store.promote().await.unwrap(), 0);
    assert!(queue.store.next_due().await.unwrap().is_some());
    queue.pass_time().await;
    assert_eq!(queue.store.promote().await.unwrap(), 1);
    assert_eq!((queue.places(id).await.as_str(), queue.store.next_due().await.unwrap()), ("r", None));
    let again = queue.claim_one(worker).await;
    assert_eq!((again.attempts, again.prio, again.flow), (2, -3, claimed.flow));
    assert_ne!(again.lease.fence, claimed.lease.fence);
}

#[tokio::test]
async fn a_job_that_is_given_back_is_ready_at_once() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    queue.settle(Settlement { parks: vec![park(&claimed, None)], ..Settlement::default() }).await;
    assert_eq!(queue.places(id).await, "r");
    assert_eq!(queue.claim_one(worker).await.attempts, 0);
}

#[tokio::test]
async fn a_job_for_later_waits_until_then() {
    let queue = Queue::new().await;
    queue
        .run("insert into sluice.job (run_at, request) values (now() + interval '1 day', '{\"prompt\": \"Hi\"}')")
        .await;
    assert!(queue.store.lanes().await.unwrap().is_empty());
    queue.pass_time().await;
    assert_eq!(queue.store.promote().await.unwrap(), 1);
    assert_eq!(queue.store.lanes().await.unwrap().len(), 1);
}

// ------------------------------------------------------------------------------------------------------ rescue

#[tokio::test]
async fn a_live_worker_keeps_its_jobs_and_a_silent_one_loses_them() {
    let queue = Queue::new().await;
    let (alive, silent) = (queue.worker().await, queue.worker().await);
    let kept = queue.enqueue_one().await;
    queue.claim_one(alive).await;
    let lost = queue.enqueue_one().await;
    queue.claim_one(silent).await;
    assert_eq!(queue.store.rescue(MAX_CRASHES).await.unwrap(), Rescued::default());
    queue.silence(silent).await;
    let rescued = queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!(rescued, Rescued { workers: 1, jobs: 1, poisoned: 0 });
    assert_eq!((queue.places(kept).await.as_str(), queue.places(lost).await.as_str()), ("i", "r"));
    let again = queue.claim_one(alive).await;
    assert_eq!((again.crashes, again.attempts), (1, 0));
    assert!(!queue.store.beat(silent, &sluice::domain::statistics::Statistics::default()).await.unwrap().alive);
    assert!(queue.store.beat(alive, &sluice::domain::statistics::Statistics::default()).await.unwrap().alive);
}

#[tokio::test]
async fn a_claim_that_commits_after_its_worker_was_declared_dead_is_rescued_too() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    queue.claim_one(worker).await;
    assert_eq!(queue.store.declare_dead(&[worker]).await.unwrap(), 1);
    assert_eq!(queue.store.rescue(MAX_CRASHES).await.unwrap(), Rescued { workers: 0, jobs: 1, poisoned: 0 });
    assert_eq!(queue.places(id).await, "r");
}

#[tokio::test]
async fn a_worker_that_was_declared_dead_claims_nothing() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    queue.store.declare_dead(&[worker]).await.unwrap();
    assert!(queue.claim_all(worker).await.is_empty());
    assert_eq!(queue.places(id).await, "r");
}

#[tokio::test]
async fn what_a_worker_left_behind_when_it_signed_off_is_rescued_at_once() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    queue.claim_one(worker).await;
    queue.store.sign_off(worker).await.unwrap();
    assert_eq!(queue.store.rescue(MAX_CRASHES).await.unwrap(), Rescued { workers: 0, jobs: 1, poisoned: 0 });
    assert_eq!(queue.places(id).await, "r");
}

#[tokio::test]
async fn a_job_that_three_workers_died_with_is_failed() {
    let queue = Queue::new().await;
    let id = queue.enqueue(in_batch("poison"), 1).await[0];
    for crash in 1..=3 {
        let worker = queue.worker().await;
        assert_eq!(i32::from(queue.claim_one(worker).await.crashes), crash - 1);
        queue.silence(worker).await;
        queue.store.rescue(MAX_CRASHES).await.unwrap();
    }
    assert_eq!((queue.places(id).await.as_str(), queue.state(id).await.as_str()), ("e", "failed"));
    let error: String = sqlx::query_scalar("select error from sluice.results").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(error, "3 workers died while they held this job");
    assert_eq!(queue.store.batch("poison").await.unwrap().unwrap().failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rescuers_at_once_put_each_job_back_once() {
    let queue = Queue::new().await;
    queue.enqueue(NewJob::default(), 3000).await;
    let worker = queue.worker().await;
    assert_eq!(queue.claim_all(worker).await.len(), 3000);
    queue.silence(worker).await;
    let rescue = || {
        let store = queue.store.clone();
        tokio::spawn(async move { store.rescue(MAX_CRASHES).await.unwrap().jobs })
    };
    let (one, two) = (rescue(), rescue());
    assert_eq!(one.await.unwrap() + two.await.unwrap(), 3000);
    assert_eq!(queue.count("select count(*) from sluice.ready where crashes = 1").await, 3000);
    assert_eq!(queue.count("select count(*) from sluice.inflight").await, 0);
}

#[tokio::test]
async fn a_worker_that_holds_nothing_is_forgotten_after_an_hour_with_its_recalls() {
    let queue = Queue::new().await;
    let (gone, holding) = (queue.worker().await, queue.worker().await);
    queue.enqueue_one().await;
    queue.claim_one(holding).await;
    queue.run("update sluice.worker set state = 'dead', seen_at = now() - interval '2 hours'").await;
    queue.run_with("insert into sluice.recall values ($1, 1, 1)", gone).await;
    assert_eq!(queue.store.forget_workers().await.unwrap(), 1);
    assert_eq!(queue.count("select id from sluice.worker").await, holding);
    assert_eq!(queue.count("select count(*) from sluice.recall").await, 0);
}

// --------------------------------------------------------------------------------------------- cancel and retry

#[tokio::test]
async fn a_ready_and_a_parked_job_are_cancelled_on_the_spot() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let parked = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    queue.settle(Settlement { parks: vec![park(&claimed, Some(in_an_hour()))], ..Settlement::default() }).await;
    let ready = queue.enqueue_one().await;
    for id in [ready, parked] {
        assert_eq!(queue.store.cancel_job(JobId(id)).await.unwrap(), Changed::Yes);
        assert_eq!((queue.places(id).await.as_str(), queue.state(id).await.as_str()), ("e", "cancelled"));
        assert_eq!(queue.store.cancel_job(JobId(id)).await.unwrap(), Changed::No);
    }
    assert_eq!(queue.count("select count(*) from sluice.recall").await, 0);
}

#[tokio::test]
async fn a_running_job_is_cancelled_and_its_worker_told_once() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    assert_eq!(queue.store.cancel_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.places(id).await, "e");
    let beat = queue.store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    assert_eq!(beat.recalled, [claimed.lease]);
    assert!(
        queue.store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap().recalled.is_empty()
    );
}

#[tokio::test]
async fn the_late_answer_of_a_cancelled_job_is_fenced_out_and_booked() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    queue.store.cancel_job(JobId(id)).await.unwrap();
    assert_eq!(queue.succeed(&claimed).await, [id]);
    assert_eq!(queue.state(id).await, "cancelled");
    assert_eq!(queue.count("select count(*) from sluice.attempt").await, 1);
}

#[tokio::test]
async fn a_finished_job_stays_as_it_is_and_an_unknown_one_is_said_to_be() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    queue.succeed(&claimed).await;
    assert_eq!(queue.store.cancel_job(JobId(id)).await.unwrap(), Changed::No);
    assert_eq!(queue.store.retry_job(JobId(id)).await.unwrap(), Changed::No);
    assert_eq!(queue.state(id).await, "succeeded");
    assert_eq!(queue.store.cancel_job(JobId(99)).await.unwrap(), Changed::NoSuchJob);
    assert_eq!(queue.store.retry_job(JobId(99)).await.unwrap(), Changed::NoSuchJob);
}

#[tokio::test]
async fn a_retry_begins_a_new_round_and_keeps_the_ledger() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let claimed = queue.claim_one(worker).await;
    assert_eq!(queue.store.retry_job(JobId(id)).await.unwrap(), Changed::No);
    queue.fail(&claimed, ErrorClass::ServerError).await;
    assert_eq!(queue.store.retry_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!((queue.places(id).await.as_str(), queue.state(id).await.as_str()), ("r", "queued"));
    let again = queue.claim_one(worker).await;
    assert_eq!((again.round, again.attempts, again.flow), (1, 1, claimed.flow));
    let history = queue.store.history(&[again.lease]).await.unwrap();
    assert_eq!(history.iter().map(|attempt| attempt.current_round).collect::<Vec<_>>(), [false]);
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.jobs, batch.failed, batch.unfinished()), (1, 0, 1));
    queue.settle(Settlement { endings: vec![success(&again)], ..Settlement::default() }).await;
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().unfinished(), 0);
}

#[tokio::test]
async fn a_batch_is_cancelled_wherever_its_jobs_are_and_tried_anew_where_they_failed() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let other = queue.enqueue(in_batch("other"), 1).await[0];
    // More than one chunk, with one job in every state.
    let ids = queue.enqueue(in_batch("mine"), 2500).await;
    let mine = |claimed: &&sluice::store::claim::Claimed| claimed.batch.as_deref() == Some("mine");
    let claimed = queue.claim(worker, 4).await;
    let claimed: Vec<_> = claimed.iter().filter(mine).collect();
    queue.succeed(claimed[0]).await;
    queue.fail(claimed[1], ErrorClass::Timeout).await;
    queue.settle(Settlement { parks: vec![park(claimed[2], Some(in_an_hour()))], ..Settlement::default() }).await;
    let mut heard = Vec::new();
    assert_eq!(queue.store.cancel_batch("mine", |done| heard.push(done)).await.unwrap(), 2498);
    assert_eq!(heard, [1000, 2000, 2498]);
    assert_eq!(queue.count("select count(*) from sluice.recall").await, 1);
    let batch = queue.store.batch("mine").await.unwrap().unwrap();
    assert_eq!((batch.succeeded, batch.failed, batch.cancelled, batch.unfinished()), (1, 1, 2498, 0));
    assert_eq!(queue.store.cancel_batch("mine", |_| {}).await.unwrap(), 0);
    assert_eq!(queue.state(other).await, "running");

    assert_eq!(queue.store.retry_batch("mine", |_| {}).await.unwrap(), 2499);
    let batch = queue.store.batch("mine").await.unwrap().unwrap();
    assert_eq!((batch.jobs, batch.succeeded, batch.unfinished()), (2500, 1, 2499));
    assert_eq!(queue.count("select count(*) from sluice.ready where round = 1").await, 2499);
    assert_eq!(ids.len(), 2500);
}

#[tokio::test]
async fn the_functions_for_sql_cancel_and_retry_a_whole_batch() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 3).await;
    assert_eq!(queue.count("select sluice.cancel('b')").await, 3);
    assert_eq!(queue.count("select sluice.retry('b')").await, 3);
    assert_eq!(queue.count("select sluice.cancel('of-nobody')").await, 0);
    assert_eq!(queue.count("select count(*) from sluice.ready").await, 3);
}

// ------------------------------------------------------------------------------------------------ what users see

#[tokio::test]
async fn the_view_counts_the_attempts_of_a_job_wherever_it_is() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 1).await;
    let attempts = async || queue.count("select attempts::bigint from sluice.jobs").await;
    assert_eq!(attempts().await, 0);
    let claimed = queue.claim_one(worker).await;
    let tried = failed(&claimed, 1, ErrorClass::ServerError);
    let parks = vec![ParkRow { attempts: 1, ..park(&claimed, Some(in_an_hour())) }];
    queue.settle(Settlement { attempts: vec![tried], parks, ..Settlement::default() }).await;
    assert_eq!(attempts().await, 1, "parked");
    queue.pass_time().await;
    queue.store.promote().await.unwrap();
    assert_eq!((attempts().await, queue.count("select count(*) from sluice.ready").await), (1, 1), "ready again");
    queue.claim_one(worker).await;
    assert_eq!(attempts().await, 1, "running");
}

#[tokio::test]
async fn the_view_shows_a_job_in_every_phase_of_its_life() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    let seen = async || -> (String, bool, Option<String>) {
        sqlx::query_as("select state, waits_until is not null, waits_for from sluice.jobs")
            .fetch_one(&queue.pool)
            .await
            .unwrap()
    };
    let state = |state: &str| (state.to_owned(), false, None);
    assert_eq!(seen().await, state("queued"));
    let claimed = queue.claim_one(worker).await;
    assert_eq!(seen().await, state("running"));
    queue.settle(Settlement { parks: vec![park(&claimed, Some(in_an_hour()))], ..Settlement::default() }).await;
    assert_eq!(seen().await, ("queued".to_owned(), true, Some("openai/gpt-4o-mini: rate_limit".to_owned())));
    queue.pass_time().await;
    queue.store.promote().await.unwrap();
    let claimed = queue.claim_one(worker).await;
    let ending = failure(&claimed, ErrorClass::ContentPolicy);
    queue.settle(Settlement { endings: vec![ending], ..Settlement::default() }).await;
    assert_eq!(seen().await, state("failed"));
    queue.store.retry_job(JobId(id)).await.unwrap();
    assert_eq!(seen().await, state("queued"));
    queue.store.cancel_job(JobId(id)).await.unwrap();
    assert_eq!(seen().await, state("cancelled"));
    queue.store.retry_job(JobId(id)).await.unwrap();
    let claimed = queue.claim_one(worker).await;
    queue.succeed(&claimed).await;
    assert_eq!(seen().await, state("succeeded"));
    let answer: String = sqlx::query_scalar("select answer from sluice.results").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(answer, "Paris");
}

/// A worker that runs until the work is done asks this: it must not see a job in none of the tables while it moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_moves_between_the_tables_is_outstanding_all_the_while() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue_one().await;
    let routes = ["default".to_owned()];
    let moving = async {
        for _ in 0..300 {
            let claimed = queue.claim_one(worker).await;
            queue.settle(Settlement { parks: vec![park(&claimed, Some(in_an_hour()))], ..Settlement::default() }).await;
            queue.pass_time().await;
            queue.store.promote().await.unwrap();
        }
    };
    let mut moving = std::pin::pin!(moving);
    let mut looks = 0;
    loop {
        tokio::select! {
            () = &mut moving => break,
            outstanding = queue.store.outstanding(&routes) => {
                assert!(outstanding.unwrap(), "after {looks} looks");
                looks += 1;
            }
        }
    }
    assert!(looks > 10, "{looks} looks");
    assert!(!queue.store.outstanding(&["other".to_owned()]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_hour_has_come_is_outstanding_before_it_is_put_into_the_queue() {
    let queue = Queue::new().await;
    sqlx::query("insert into sluice.job (request, run_at) values ('{}', now() + interval '1 hour')")
        .execute(&queue.pool)
        .await
        .unwrap();
    let routes = ["default".to_owned()];
    assert!(!queue.store.outstanding(&routes).await.unwrap(), "it is left for its hour");
    sqlx::query("update sluice.parked set run_at = now()").execute(&queue.pool).await.unwrap();
    assert!(queue.store.outstanding(&routes).await.unwrap());
    assert_eq!(queue.store.promote().await.unwrap(), 1);
    assert!(queue.store.outstanding(&routes).await.unwrap());
}
