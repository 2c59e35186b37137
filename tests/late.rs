//! Results that arrive after their claim is gone: good answers for jobs that are still open are used, other results are
//! costed, and the true outcome of a call replaces the placeholder that was booked for its worker.

use crate::support::clock;
use crate::support::queue::{Queue, accepted, failed, failure, in_an_hour, in_batch, park, success};
use sluice::domain::{ErrorClass, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::settle::{AttemptRow, Settlement};
use sqlx::Row as _;
use std::sync::Arc;

const MAX_CRASHES: u16 = 3;

async fn books_are_in_order(queue: &Queue) {
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
    // What the sums say of attempts is what the ledger says, placeholders that were replaced included.
    let apart = "select count(*) from (
        select provider, class, detail, sum(attempts) as n, sum(uncertain_nanos) as u, sum(unpriced) as p
          from sluice.totals where provider <> '' and (attempts <> 0 or uncertain_nanos <> 0) group by 1, 2, 3
        having sum(attempts) <> 0
        except
        select provider, coalesce(class, ''), coalesce(detail, ''), count(*), sum(uncertain_nanos),
               count(*) - count(cost_nanos)
          from sluice.attempt group by 1, 2, 3) t";
    assert_eq!(queue.count(apart).await, 0);
}

fn call(claimed: &Claimed, number: i16, worst: Option<i64>) -> OpenCall {
    OpenCall {
        lease: claimed.lease,
        number,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: worst.map(NanoUsd),
        labels: Arc::new(claimed.labels()),
    }
}

async fn open(queue: &Queue, claimed: &Claimed, number: i16) -> bool {
    queue
        .store
        .open_calls(&[call(claimed, number, Some(900))], 0)
        .await
        .unwrap()
        .unwrap()
        .contains(&(claimed.lease.fence, number))
}

/// A claim whose worker was silent for too long, so that its jobs were rescued.
async fn stale_claim(queue: &Queue) -> Claimed {
    let worker = queue.worker().await;
    let stale = queue.claim_one(worker).await;
    queue.silence(worker).await;
    assert_eq!(queue.store.rescue(MAX_CRASHES).await.unwrap().jobs, 1);
    stale
}

fn answer(claimed: &Claimed) -> Settlement {
    Settlement {
        attempts: vec![accepted(claimed, claimed.attempts + 1)],
        endings: vec![success(claimed)],
        ..Settlement::default()
    }
}

/// The ledger of everything: class and detail, and whether it is a placeholder, in order of the attempts, accepted ones
/// first. Fences tell no order: every connection takes a hundred of them at a time.
async fn ledger(queue: &Queue) -> Vec<(String, String, bool, i64)> {
    let query = "select coalesce(class, 'accepted'), coalesce(detail, ''), placeholder, uncertain_nanos
                   from sluice.attempt order by number, accepted desc, detail";
    let rows = sqlx::query(query).fetch_all(&queue.pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

fn entry(class: &str, detail: &str, placeholder: bool, uncertain: i64) -> (String, String, bool, i64) {
    (class.to_owned(), detail.to_owned(), placeholder, uncertain)
}

// --------------------------------------------------------------------------------------------------- late answers

#[tokio::test]
async fn a_late_answer_is_used_while_the_job_waits_to_be_taken_again() {
    let queue = Queue::new().await;
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let stale = stale_claim(&queue).await;
    assert_eq!(queue.places(id).await, "r");
    assert_eq!(queue.settle(answer(&stale)).await, Vec::<i64>::new());
    assert_eq!(queue.places(id).await, "e");
    assert_eq!(queue.state(id).await, "succeeded");
    // Sent again, as after a commit whose reply was lost: the same.
    assert_eq!(queue.settle(answer(&stale)).await, Vec::<i64>::new());
    assert_eq!(ledger(&queue).await, [entry("accepted", "", false, 0)]);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_late_answer_is_used_while_the_job_is_parked() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let stale = stale_claim(&queue).await;
    let heir = queue.worker().await;
    let current = queue.claim_one(heir).await;
    queue.settle(Settlement { parks: vec![park(&current, Some(in_an_hour()))], ..Settlement::default() }).await;
    assert_eq!(queue.places(id).await, "p");
    assert_eq!(queue.settle(answer(&stale)).await, Vec::<i64>::new());
    assert_eq!(queue.places(id).await, "e");
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_late_answer_ends_the_job_in_the_hands_of_another_who_is_called_back() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let stale = stale_claim(&queue).await;
    let heir = queue.worker().await;
    let current = queue.claim_one(heir).await;
    assert!(open(&queue, &current, 1).await);
    assert_eq!(queue.settle(answer(&stale)).await, Vec::<i64>::new());
    assert_eq!(queue.places(id).await, "e");
    let beat = queue.store.beat(heir, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    assert_eq!(beat.recalled, [current.lease]);
    // The call of the other was under way. Should nothing more be heard of it, it is named.
    assert_eq!(
        ledger(&queue).await,
        [entry("accepted", "", false, 0), entry("abandoned", "answered_elsewhere", true, 900)]
    );
    // It may not begin another one, and what it has to say of this one counts.
    assert!(!open(&queue, &current, 2).await);
    assert_eq!(queue.settle(answer(&current)).await, [id]);
    assert_eq!(ledger(&queue).await, [entry("accepted", "", false, 0), entry("abandoned", "late", false, 0)]);
    let waste: i64 = queue.count("select sum(waste_nanos)::bigint from sluice.totals").await;
    assert_eq!(waste, 30_000, "the second answer was paid for in vain");
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn of_two_late_answers_for_one_job_one_is_used() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let first = stale_claim(&queue).await;
    let second = stale_claim(&queue).await;
    let both = Settlement {
        attempts: vec![accepted(&second, 1), accepted(&first, 1)],
        endings: vec![success(&second), success(&first)],
        ..Settlement::default()
    };
    assert_eq!(queue.settle(both).await, [id]);
    assert_eq!(queue.places(id).await, "e");
    assert_eq!(ledger(&queue).await, [entry("accepted", "", false, 0), entry("abandoned", "late", false, 0)]);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_stale_and_a_current_answer_in_one_transaction_end_the_job_once() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let stale = stale_claim(&queue).await;
    let heir = queue.worker().await;
    let current = queue.claim_one(heir).await;
    let both = Settlement {
        attempts: vec![accepted(&stale, 1), accepted(&current, 1)],
        endings: vec![success(&stale), success(&current)],
        ..Settlement::default()
    };
    assert_eq!(queue.settle(both).await, [id]);
    let fence: i64 = queue.count("select fence from sluice.result").await;
    assert_eq!(fence, current.lease.fence);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_cancelled_jobs_late_answer_is_costed_and_not_delivered() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert!(open(&queue, &claimed, 1).await);
    queue.store.cancel_job(claimed.lease.job).await.unwrap();
    // Named at once: its worker may die before it says anything.
    assert_eq!(ledger(&queue).await, [entry("abandoned", "cancelled", true, 900)]);
    assert_eq!(queue.settle(answer(&claimed)).await, [id]);
    assert_eq!(queue.state(id).await, "cancelled");
    assert_eq!(ledger(&queue).await, [entry("abandoned", "late", false, 0)]);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn an_answer_of_a_round_that_was_cancelled_is_not_that_of_the_next() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let worker = queue.worker().await;
    for round in 0..3 {
        let claimed = queue.claim_one(worker).await;
        assert_eq!(claimed.round, round);
        queue.store.cancel_job(claimed.lease.job).await.unwrap();
        queue.store.retry_job(claimed.lease.job).await.unwrap();
        // Nothing was booked in that round, and yet it does not come again.
        assert_eq!(queue.settle(Settlement { endings: vec![success(&claimed)], ..Settlement::default() }).await, [id]);
        assert_eq!(queue.places(id).await, "r");
    }
}

// ------------------------------------------------------------------------------------------------ open calls

#[tokio::test]
async fn a_call_under_a_lost_claim_must_not_be_made() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let stale = stale_claim(&queue).await;
    assert!(!open(&queue, &stale, 1).await);
    let heir = queue.worker().await;
    let current = queue.claim_one(heir).await;
    assert!(!open(&queue, &stale, 1).await);
    assert!(open(&queue, &current, 1).await);
    queue.store.cancel_job(current.lease.job).await.unwrap();
    assert!(!open(&queue, &current, 1).await);
}

#[tokio::test]
async fn what_a_dead_worker_had_under_way_is_on_the_ledger() {
    let queue = Queue::new().await;
    let id = queue.enqueue(in_batch("b"), 1).await[0];
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert!(open(&queue, &claimed, 1).await);
    // The first call failed and is settled; the second one was under way.
    queue
        .settle(Settlement { attempts: vec![failed(&claimed, 1, ErrorClass::Timeout)], ..Settlement::default() })
        .await;
    assert!(open(&queue, &claimed, 2).await);
    queue.silence(worker).await;
    queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!(ledger(&queue).await, [entry("timeout", "", false, 0), entry("abandoned", "worker_died", true, 900)]);
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.attempts, batch.uncertain), (2, NanoUsd(900)));
    let heir = queue.worker().await;
    let again = queue.claim_one(heir).await;
    assert_eq!((again.lease.job.0, again.attempts, again.crashes), (id, 2, 1));
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_call_that_was_settled_is_not_booked_a_second_time() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert!(open(&queue, &claimed, 1).await);
    queue
        .settle(Settlement { attempts: vec![failed(&claimed, 1, ErrorClass::Timeout)], ..Settlement::default() })
        .await;
    queue.silence(worker).await;
    queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!(ledger(&queue).await, [entry("timeout", "", false, 0)]);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_late_open_hides_no_later_call() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert!(open(&queue, &claimed, 2).await);
    assert!(!open(&queue, &claimed, 1).await);
    assert_eq!(queue.count("select call_number::bigint from sluice.inflight").await, 2);
}

#[tokio::test]
async fn the_word_of_a_worker_that_lives_replaces_what_was_booked_in_its_place() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 1).await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    // No price is known: neither what it cost nor what it may have cost.
    queue.store.open_calls(&[call(&claimed, 1, None)], 0).await.unwrap().unwrap();
    queue.silence(worker).await;
    queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().unpriced, 1);
    let told = AttemptRow { uncertain: NanoUsd(5), ..failed(&claimed, 1, ErrorClass::Network) };
    for _ in 0..2 {
        queue.settle(Settlement { attempts: vec![told.clone()], ..Settlement::default() }).await;
        assert_eq!(ledger(&queue).await, [entry("network", "", false, 5)]);
        let batch = queue.store.batch("b").await.unwrap().unwrap();
        assert_eq!((batch.attempts, batch.unpriced, batch.uncertain), (1, 0, NanoUsd(5)));
        // Folded or not, the sums agree.
        while queue.store.fold_tally().await.unwrap().rows > 0 {}
        books_are_in_order(&queue).await;
    }
}

#[tokio::test]
async fn a_job_that_kills_its_workers_ends_with_all_that_it_may_have_cost() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let mut last = None;
    for _ in 0..MAX_CRASHES {
        let worker = queue.worker().await;
        let claimed = queue.claim_one(worker).await;
        assert!(open(&queue, &claimed, claimed.attempts + 1).await);
        queue.silence(worker).await;
        queue.store.rescue(MAX_CRASHES).await.unwrap();
        last = Some(claimed);
    }
    assert_eq!(queue.state(id).await, "failed");
    let row = sqlx::query("select attempts, uncertain_nanos, error_class from sluice.result");
    let row = row.fetch_one(&queue.pool).await.unwrap();
    assert_eq!((row.get::<i16, _>(0), row.get::<i64, _>(1), row.get::<&str, _>(2)), (3, 2700, "abandoned"));
    books_are_in_order(&queue).await;
    // The last of them lives after all: its answer comes too late, and it must not take that ending for its own.
    assert_eq!(queue.settle(answer(&last.unwrap())).await, [id]);
    assert_eq!(queue.state(id).await, "failed");
    assert_eq!(ledger(&queue).await.pop().unwrap(), entry("abandoned", "late", false, 0));
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_call_in_which_sluice_itself_failed_is_named() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    assert!(open(&queue, &claimed, 1).await);
    queue.settle(Settlement { endings: vec![failure(&claimed, ErrorClass::Abandoned)], ..Settlement::default() }).await;
    assert_eq!(ledger(&queue).await, [entry("abandoned", "fault", true, 900)]);
    books_are_in_order(&queue).await;
}

// ------------------------------------------------------------------------------------------- unknown claims

#[tokio::test]
async fn jobs_of_a_claim_that_nobody_heard_of_are_given_back() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let known = queue.enqueue_one().await;
    let heard = queue.claim_one(worker).await;
    let lost = queue.enqueue_one().await;
    queue.claim_one(worker).await;
    let others = queue.worker().await;
    let elsewhere = queue.enqueue_one().await;
    queue.claim_one(others).await;
    assert_eq!(queue.store.give_back_unknown(worker, &[heard.lease.fence]).await.unwrap(), 1);
    assert_eq!(queue.store.give_back_unknown(worker, &[heard.lease.fence]).await.unwrap(), 0);
    assert_eq!(
        [queue.places(known).await, queue.places(lost).await, queue.places(elsewhere).await],
        ["i", "r", "i"].map(str::to_owned)
    );
    // No worker has died.
    let again = queue.claim_one(worker).await;
    assert_eq!((again.lease.job.0, again.crashes), (lost, 0));
}

/// The database goes back in time: a job is lost, and another one gets its number.
async fn lose(queue: &Queue, claimed: &Claimed) {
    let number = claimed.lease.job.0;
    for statement in [
        "delete from sluice.inflight where job_id = $1",
        "delete from sluice.attempt where job_id = $1",
        "delete from sluice.job where id = $1",
        "insert into sluice.job (id, request) values ($1, '{\"prompt\": \"Another question\"}')",
    ] {
        sqlx::query(statement).bind(number).execute(queue.store.pool()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_never_taken_for_that_of_another_job_with_the_same_number() {
    for ends in [true, false] {
        let queue = Queue::new().await;
        queue.enqueue_one().await;
        let worker = queue.worker().await;
        let lost = queue.claim_one(worker).await;
        lose(&queue, &lost).await;
        let settlement = if ends {
            answer(&lost)
        } else {
            Settlement { attempts: vec![failed(&lost, 1, ErrorClass::ServerError)], ..Settlement::default() }
        };
        queue.store.settle(&settlement).await.unwrap();
        // The other job waits as before, and the call that was paid for stands beside it, under the number that it had.
        assert_eq!(queue.count("select count(*) from sluice.result").await, 0);
        assert_eq!(queue.count("select count(*) from sluice.ready").await, 1);
        let booked = "select count(*) from sluice.attempt where detail = 'other_job' and not accepted and round = -1";
        assert_eq!(queue.count(booked).await, 1);
        let again = queue.claim_one(worker).await;
        let history = queue.store.history(&[again.lease]).await.unwrap();
        assert!(history.iter().all(|attempt| !attempt.current_round), "{history:?}");
        queue.store.settle(&answer(&again)).await.unwrap();
        assert_eq!(queue.count("select count(*) from sluice.result where state = 'succeeded'").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_job_that_is_gone_is_not_the_next_ones_with_its_number() {
    for ends in [true, false] {
        let queue = Queue::new().await;
        queue.enqueue_one().await;
        let worker = queue.worker().await;
        let lost = queue.claim_one(worker).await;
        let run = async |statement: &'static str| {
            sqlx::query(statement).bind(lost.lease.job.0).execute(queue.store.pool()).await.unwrap();
        };
        run("delete from sluice.inflight where job_id = $1").await;
        run("delete from sluice.job where id = $1").await;
        let refused =
            || Settlement { attempts: vec![failed(&lost, 1, ErrorClass::ServerError)], ..Settlement::default() };
        queue.store.settle(&if ends { answer(&lost) } else { refused() }).await.unwrap();
        assert_eq!(queue.count("select count(*) from sluice.attempt where round = -1 and not accepted").await, 1);
        run("insert into sluice.job (id, request) values ($1, '{\"prompt\": \"Another question\"}')").await;
        let next = queue.claim_one(worker).await;
        let history = queue.store.history(&[next.lease]).await.unwrap();
        assert!(history.iter().all(|attempt| !attempt.current_round), "{history:?}");
        run("select sluice.cancel($1)").await;
        let theirs = "select (attempts + round + coalesce(cost_nanos, -1))::bigint from sluice.result";
        assert_eq!(queue.count(theirs).await, 0, "what was spent on the lost job is no cost of this one");
        run("select sluice.retry($1)").await;
        assert_eq!(queue.count("select round::bigint from sluice.ready").await, 1, "and its rounds are its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_never_have_the_numbers_of_earlier_ones_even_when_sequences_go_back() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue_one().await;
    let first = queue.claim_one(worker).await;
    queue.enqueue_one().await;
    sqlx::query("select setval('sluice.fence_seq', 1, false)").execute(queue.store.pool()).await.unwrap();
    let same_process = queue.claim_one(worker).await;
    queue.enqueue_one().await;
    let another = sluice::store::Store::from_pool(queue.store.pool().clone());
    let lane = sluice::store::claim::Take { flow: first.flow, prio: first.prio, after: i64::MIN, count: 1 };
    let third = another.claim(worker, &[lane], usize::MAX).await.unwrap().jobs.remove(0);
    let fences = std::collections::HashSet::from([first, same_process, third].map(|claimed| claimed.lease.fence));
    assert_eq!(fences.len(), 3);
    assert!(fences.iter().all(|fence| *fence > i64::from(u32::MAX)), "above all that a sequence has given: {fences:?}");
}
