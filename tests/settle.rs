//! Settling: the writes that a fence lets through, those that are booked in any case, and sums that equal those of the
//! ledger.

use crate::support::queue::{NewJob, Queue, accepted, failed, failure, in_an_hour, in_batch, park, rejected, success};
use crate::support::wait::until;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sluice::domain::{ErrorClass, JobId, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::{Claimed, Lease};
use sluice::store::maintenance::Folded;
use sluice::store::report::{Filter, Grouping};
use sluice::store::settle::Settlement;
use sqlx::Row as _;
use std::collections::HashSet;
use std::sync::Arc;

#[tokio::test]
async fn the_right_fence_ends_the_job_once_and_writes_what_was_found() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let claimed = queue.claim_one(worker).await;
    assert!(queue.succeed(&claimed).await.is_empty());
    assert_eq!(queue.places(id).await, "e");
    let row = sqlx::query("select * from sluice.results").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(row.get::<&str, _>("state"), "succeeded");
    assert_eq!(row.get::<&str, _>("answer"), "Paris");
    assert_eq!((row.get::<&str, _>("provider"), row.get::<&str, _>("model")), ("openai", "gpt-4o-mini"));
    assert_eq!((row.get::<i64, _>("input_tokens"), row.get::<i64, _>("output_tokens")), (100, 50));
    let cost: String =
        sqlx::query_scalar("select cost::text from sluice.results").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(cost, "0.000030000");
    // Anything more under the same fence comes too late.
    assert!(
        queue
            .settle(Settlement { endings: vec![failure(&claimed, ErrorClass::Timeout)], ..Settlement::default() })
            .await
            .is_empty()
    );
    assert_eq!(queue.state(id).await, "succeeded");
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.succeeded, batch.failed, batch.attempts, batch.cost), (1, 0, 1, NanoUsd(30_000)));
}

#[tokio::test]
async fn a_claim_that_another_transaction_has_locked_is_named_and_not_waited_for() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let ids = queue.enqueue(in_batch("b"), 3).await;
    let jobs = queue.claim_all(worker).await;
    let held = jobs.iter().find(|job| job.lease.job.0 == ids[1]).unwrap();
    let mut open = queue.pool.begin().await.unwrap();
    sqlx::query("select sluice.cancel($1::bigint)").bind(ids[1]).execute(&mut *open).await.unwrap();
    let call = |job: &Claimed| OpenCall {
        lease: job.lease,
        number: 1,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(0),
        worst: None,
        labels: Arc::new(job.labels()),
    };
    let calls: Vec<OpenCall> = jobs.iter().map(call).collect();
    let end = Settlement {
        attempts: jobs.iter().map(|job| accepted(job, 1)).collect(),
        endings: jobs.iter().map(success).collect(),
        ..Settlement::default()
    };
    for refused in [
        queue.store.open_calls(&calls, 0).await.map(drop),
        queue.store.open_race_calls(&calls, 0).await.map(drop),
        queue.store.settle(&end).await.map(drop),
    ] {
        assert!(refused.unwrap_err().waited_for_a_lock());
    }
    let claims: Vec<Lease> = jobs.iter().map(|job| job.lease).collect();
    // What was refused is being rolled back, and may have the other claims locked until then.
    let locked = async |fences: HashSet<i64>| queue.store.locked(&claims).await.unwrap() == fences;
    until("the claim is named", async || locked(HashSet::from([held.lease.fence])).await).await;
    open.rollback().await.unwrap();
    until("none is locked", async || locked(HashSet::new()).await).await;
    assert_eq!(queue.store.open_calls(&calls, 0).await.unwrap().unwrap().len(), 3);
    assert!(queue.settle(end).await.is_empty());
    assert_eq!(queue.state(ids[1]).await, "succeeded");
}

#[tokio::test]
async fn an_outcome_that_lost_its_texts_ends_the_job_with_the_class_that_it_had() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let ids = queue.enqueue(in_batch("b"), 2).await;
    let claimed = queue.claim(worker, 2).await;
    let (mut answered, mut answer) = (success(&claimed[0]), accepted(&claimed[0], 1));
    answered.repaired = true;
    let (mut timed_out, mut cut) = (failure(&claimed[1], ErrorClass::Timeout), rejected(&claimed[1], 1, "empty"));
    for (ending, attempt) in [(&mut answered, &mut answer), (&mut timed_out, &mut cut)] {
        attempt.lost_its_texts();
        ending.lost_its_texts(&"no such letter");
    }
    assert_eq!((answer.class, cut.class), (Some(ErrorClass::OutputInvalid), Some(ErrorClass::SoftFailure)));
    let settlement =
        Settlement { attempts: vec![answer, cut], endings: vec![answered, timed_out], ..Settlement::default() };
    assert!(queue.settle(settlement).await.is_empty());
    let told: Vec<(i64, String, String, bool)> =
        sqlx::query_as("select job_id, error_class, error, repaired from sluice.results order by job_id")
            .fetch_all(&queue.pool)
            .await
            .unwrap();
    let row = |id: i64, class: &str, lost: &str| {
        (id, class.to_owned(), format!("{lost} could not be stored: no such letter"), false)
    };
    assert_eq!(told, [row(ids[0], "output_invalid", "the answer"), row(ids[1], "timeout", "the reason")]);
}

/// Rows go by COPY, which takes no key that is there. What another process has written first stays, and the rest of the
/// settlement is written all the same.
#[tokio::test]
async fn a_row_that_is_there_although_the_claim_holds_is_not_written_twice() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let ids = queue.enqueue(in_batch("b"), 3).await;
    let claimed = queue.claim(worker, 3).await;
    let [booked, ended, plain] = claimed.as_slice() else { panic!("{claimed:?}") };
    sqlx::query(
        "insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at, total_ms,
                accepted, usage_source, cost_nanos)
         values ($1, $2, 1, 0, 'openai', 'gpt-4o-mini', now(), now(), 1, true, 'provider', 7)",
    )
    .bind(booked.lease.job.0)
    .bind(booked.lease.fence)
    .execute(&queue.pool)
    .await
    .unwrap();
    sqlx::query("insert into sluice.result (job_id, fence, state, attempts) values ($1, 1, 'cancelled', 0)")
        .bind(ended.lease.job.0)
        .execute(&queue.pool)
        .await
        .unwrap();
    // One of them comes twice.
    let settlement = Settlement {
        attempts: [booked, ended, plain, plain].iter().map(|job| accepted(job, 1)).collect(),
        endings: [booked, ended, plain, plain].iter().map(|job| success(job)).collect(),
        ..Settlement::default()
    };
    assert!(queue.settle(settlement.clone()).await.is_empty());
    let states: Vec<String> =
        sqlx::query_scalar("select state from sluice.result order by job_id").fetch_all(&queue.pool).await.unwrap();
    assert_eq!(states, ["succeeded", "cancelled", "succeeded"]);
    let costs: Vec<(i64, i64)> = sqlx::query_as("select job_id, cost_nanos from sluice.attempt order by job_id")
        .fetch_all(&queue.pool)
        .await
        .unwrap();
    assert_eq!(costs, [(ids[0], 7), (ids[1], 30_000), (ids[2], 30_000)]);
    let counted: (i64, i64) = sqlx::query_as("select sum(succeeded)::bigint, sum(attempts)::bigint from sluice.tally")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(counted, (2, 2), "what was there is not counted again");
    let before: i64 = sqlx::query_scalar("select count(*) from sluice.tally").fetch_one(&queue.pool).await.unwrap();
    queue.settle(settlement).await;
    let after: i64 = sqlx::query_scalar("select count(*) from sluice.tally").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_wrong_fence_changes_nothing_and_its_attempt_is_booked() {
    let queue = Queue::new().await;
    let (silent, heir) = (queue.worker().await, queue.worker().await);
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let stale = queue.claim_one(silent).await;
    queue.silence(silent).await;
    queue.store.rescue(3).await.unwrap();
    let current = queue.claim_one(heir).await;
    // The zombie's failure and its wish to park: none of them has any effect.
    assert_eq!(queue.fail(&stale, ErrorClass::Timeout).await, [id]);
    assert_eq!(
        queue.settle(Settlement { parks: vec![park(&stale, Some(in_an_hour()))], ..Settlement::default() }).await,
        [id]
    );
    assert_eq!(queue.settle(Settlement { parks: vec![park(&stale, None)], ..Settlement::default() }).await, [id]);
    assert_eq!(queue.places(id).await, "i");
    assert!(queue.succeed(&current).await.is_empty());
    let fence: i64 = sqlx::query_scalar("select fence from sluice.result").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(fence, current.lease.fence);
    // Both calls were made, so both stand on the books; the job is counted once.
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.succeeded, batch.attempts, batch.cost), (1, 2, NanoUsd(30_000)));
    books_are_in_order(&queue).await;
}

async fn books_are_in_order(queue: &Queue) {
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test]
async fn a_settlement_that_is_sent_twice_is_written_once() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let claimed = queue.claim_one(worker).await;
    let settlement = Settlement {
        attempts: vec![rejected(&claimed, 1, "empty"), accepted(&claimed, 2)],
        endings: vec![success(&claimed)],
        parks: Vec::new(),
    };
    for _ in 0..3 {
        // Each time the sender learns that its own result stands.
        assert!(queue.settle(settlement.clone()).await.is_empty());
    }
    assert_eq!(queue.count("select count(*) from sluice.attempt").await, 2);
    assert_eq!(queue.count("select count(*) from sluice.result").await, 1);
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.succeeded, batch.attempts, batch.waste), (1, 2, NanoUsd(30_000)));
    assert_eq!(queue.places(id).await, "e");
}

#[tokio::test]
async fn one_settlement_ends_parks_and_gives_back_many_jobs() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 40).await;
    let claimed = queue.claim_all(worker).await;
    let mut settlement = Settlement::default();
    for (index, job) in claimed.iter().enumerate() {
        match index % 4 {
            0 => settlement.endings.push(success(job)),
            1 => settlement.endings.push(failure(job, ErrorClass::Timeout)),
            2 => settlement.parks.push(park(job, Some(in_an_hour()))),
            _ => settlement.parks.push(park(job, None)),
        }
    }
    assert!(queue.settle(settlement).await.is_empty());
    let counts = [
        queue.count("select count(*) from sluice.result").await,
        queue.count("select count(*) from sluice.parked").await,
        queue.count("select count(*) from sluice.ready").await,
        queue.count("select count(*) from sluice.inflight").await,
    ];
    assert_eq!(counts, [20, 10, 10, 0]);
}

#[tokio::test]
async fn text_with_nul_characters_is_kept_without_them() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    let mut attempt = failed(&claimed, 1, ErrorClass::ServerError);
    attempt.message = Some("a\0b".to_owned());
    attempt.usage_raw = Some(serde_json::json!({ "odd\0key": "\0" }));
    let mut ending = failure(&claimed, ErrorClass::ServerError);
    ending.failure = Some((ErrorClass::ServerError, "c\0d".to_owned()));
    queue.settle(Settlement { attempts: vec![attempt], endings: vec![ending], ..Settlement::default() }).await;
    let kept: (String, String) = sqlx::query_as("select a.message, r.error from sluice.attempt a, sluice.result r")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(kept, ("a\u{fffd}b".to_owned(), "c\u{fffd}d".to_owned()));
}

// -------------------------------------------------------------------------------------------------------- sums

/// The fate of one claimed job.
#[derive(Clone, Debug)]
enum Fate {
    Succeed {
        wasted: u8,
        fallback: bool,
        cost: Option<i64>,
    },
    Fail {
        tried: u8,
        class: ErrorClass,
        uncertain: i64,
    },
    Park {
        tried: u8,
    },
    /// The worker dies, and its answer comes after all.
    Zombie,
    Cancel,
    /// It fails, is tried anew by hand, and is claimed again later.
    Retry,
}

fn fate() -> impl Strategy<Value = Fate> {
    let class = prop::sample::select(&ErrorClass::ALL[..8]);
    prop_oneof![
        4 => (0..3_u8, any::<bool>(), prop::option::weighted(0.8, 0..2_000_000_000_i64))
            .prop_map(|(wasted, fallback, cost)| Fate::Succeed { wasted, fallback, cost }),
        2 => (0..4_u8, class, 0..1_000_i64)
            .prop_map(|(tried, class, uncertain)| Fate::Fail { tried, class, uncertain }),
        2 => (0..2_u8).prop_map(|tried| Fate::Park { tried }),
        1 => Just(Fate::Zombie),
        1 => Just(Fate::Cancel),
        1 => Just(Fate::Retry),
    ]
}

/// Lets what fate has in store happen to a claimed job.
async fn befall(queue: &Queue, claimed: &Claimed, fate: &Fate, settlement: &mut Settlement) {
    match fate {
        Fate::Succeed { wasted, fallback, cost } => {
            let first = claimed.attempts + 1;
            for number in 0..i16::from(*wasted) {
                settlement.attempts.push(rejected(claimed, first + number, "not_json"));
            }
            let mut last = accepted(claimed, first + i16::from(*wasted));
            last.cost = cost.map(NanoUsd);
            settlement.attempts.push(last);
            let mut ending = success(claimed);
            ending.after_fallback = *fallback;
            settlement.endings.push(ending);
        }
        Fate::Fail { tried, class, uncertain } => {
            for number in 0..i16::from(*tried) {
                let mut attempt = failed(claimed, claimed.attempts + 1 + number, *class);
                attempt.uncertain = NanoUsd(*uncertain);
                settlement.attempts.push(attempt);
            }
            settlement.endings.push(failure(claimed, *class));
        }
        Fate::Park { tried } => {
            for number in 0..i16::from(*tried) {
                settlement.attempts.push(failed(claimed, claimed.attempts + 1 + number, ErrorClass::Overloaded));
            }
            let mut row = park(claimed, Some(in_an_hour()));
            row.attempts = claimed.attempts + i16::from(*tried);
            settlement.parks.push(row);
        }
        Fate::Zombie => {
            let stale = Claimed { lease: Lease { fence: -claimed.lease.fence, ..claimed.lease }, ..claimed.clone() };
            settlement.attempts.push(accepted(&stale, claimed.attempts + 1));
            settlement.endings.push(success(&stale));
            settlement.parks.push(park(claimed, None));
        }
        Fate::Cancel => {
            queue.store.cancel_job(JobId(claimed.lease.job.0)).await.unwrap();
            settlement.attempts.push(accepted(claimed, claimed.attempts + 1));
            settlement.endings.push(success(claimed));
        }
        Fate::Retry => {
            queue.fail(claimed, ErrorClass::ServerError).await;
            queue.store.retry_job(JobId(claimed.lease.job.0)).await.unwrap();
        }
    }
}

/// Every sum over the tallies, beside the same sum over the bodies.
const BOOKS: &str = "
    with tally as (
        select route, project, batch, provider, model, class, detail, sum(attempts) as attempts,
               sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
                 sum(output_tokens) as output_tokens,
               sum(cost_nanos) as cost, sum(waste_nanos) as waste, sum(uncertain_nanos) as uncertain,
               sum(unpriced) as unpriced, sum(total_ms) as total_ms
          from sluice.totals group by 1, 2, 3, 4, 5, 6, 7 having sum(attempts) <> 0
    ), ledger as (
        select j.route, j.project, coalesce(j.batch, ''), a.provider, a.model, coalesce(a.class, ''),
               coalesce(a.detail, ''), count(*)::numeric,
               sum(a.input_tokens + a.cache_read_tokens + a.cache_write_tokens)::numeric,
               sum(a.cache_read_tokens)::numeric, sum(a.output_tokens)::numeric,
                 coalesce(sum(a.cost_nanos), 0)::numeric,
               coalesce(sum(a.cost_nanos) filter (where not a.accepted), 0)::numeric, sum(a.uncertain_nanos)::numeric,
               (count(*) - count(a.cost_nanos))::numeric, sum(a.total_ms)::numeric
          from sluice.attempt a join sluice.job j on j.id = a.job_id group by 1, 2, 3, 4, 5, 6, 7
    ), endings as (
        select route, project, batch, sum(succeeded) as succeeded, sum(failed) as failed, sum(cancelled) as cancelled
          from sluice.totals group by 1, 2, 3 having sum(succeeded) <> 0 or sum(failed) <> 0 or sum(cancelled) <> 0
    ), results as (
        select j.route, j.project, coalesce(j.batch, ''), (count(*) filter (where state = 'succeeded'))::numeric,
               (count(*) filter (where state = 'failed'))::numeric,
                 (count(*) filter (where state = 'cancelled'))::numeric
          from sluice.result r join sluice.job j on j.id = r.job_id group by 1, 2, 3
    ), enqueued as (
        select batch, sum(enqueued) from sluice.totals where batch <> '' group by 1
    ), jobs as (
        select batch, count(*)::numeric from sluice.job where batch is not null group by 1
    )
    select count(*) from (
        (table tally except all table ledger) union all (table ledger except all table tally)
    ) a full join (
        (table endings except all table results) union all (table results except all table endings)
    ) e on false full join (
        (table enqueued except all table jobs) union all (table jobs except all table enqueued)
    ) q on false";

#[tokio::test]
async fn the_sums_are_those_of_the_ledger_whatever_happens() {
    // Reproducible: the same fates each time.
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let queue = Queue::new().await;
        let worker = queue.worker().await;
        for job in [
            NewJob::default(),
            in_batch("a"),
            NewJob { project: "p", ..in_batch("a") },
            NewJob { route: "r", priority: 2, ..in_batch("b") },
        ] {
            queue.enqueue(job, 12).await;
        }
        for turn in 0..3 {
            let claimed = queue.claim_all(worker).await;
            let mut settlement = Settlement::default();
            for job in &claimed {
                let fate = fate().new_tree(&mut runner).unwrap().current();
                befall(&queue, job, &fate, &mut settlement).await;
            }
            queue.settle(settlement.clone()).await;
            assert_eq!(queue.count(BOOKS).await, 0, "turn {turn}");
            // A commit whose outcome was unknown, and upkeep in between: nothing changes.
            queue.settle(settlement).await;
            queue.store.fold_tally().await.unwrap();
            assert_eq!(queue.count(BOOKS).await, 0, "turn {turn}, again and folded");
            queue.pass_time().await;
            queue.store.promote().await.unwrap();
        }
        let audit = queue.store.audit().await.unwrap();
        assert_eq!((audit.lost, audit.jobs), (0, audit.results + audit.unfinished), "{audit:?}");
        assert_eq!(audit.endings, audit.results, "{audit:?}");
        assert_eq!(queue.count("select count(*) from sluice.tally").await, 0);
        // The comparison itself: a row too many is noticed.
        queue.run("insert into sluice.tally (hour, route, project, attempts) values (now(), 'x', 'y', 1)").await;
        assert_eq!(queue.count(BOOKS).await, 1);
    }
}

#[tokio::test]
async fn folding_keeps_every_sum_and_leaves_a_row_per_hour_and_group() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    for _ in 0..5 {
        queue.enqueue(in_batch("b"), 2).await;
        for claimed in queue.claim_all(worker).await {
            queue.succeed(&claimed).await;
        }
    }
    queue
        .run(
            "update sluice.tally set hour = hour - interval '1 hour' where ctid = (select min(ctid) from sluice.tally)",
        )
        .await;
    let by = [Grouping::Hour, Grouping::Batch, Grouping::Provider, Grouping::Class];
    let before = queue.store.totals(&by, &Filter::default()).await.unwrap();
    let rows = queue.count("select count(*) from sluice.tally").await;
    assert_eq!(i64::try_from(queue.store.fold_tally().await.unwrap().rows).unwrap(), rows);
    assert_eq!(queue.store.totals(&by, &Filter::default()).await.unwrap(), before);
    assert_eq!(queue.store.fold_tally().await.unwrap(), Folded::default());
    // Later rows are added to those that are there.
    queue.enqueue(in_batch("b"), 1).await;
    queue.store.fold_tally().await.unwrap();
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().jobs, 11);
    assert!(queue.count("select count(*) from sluice.tally_hour").await <= 4);
}
