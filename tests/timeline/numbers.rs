//! The fate of a call whose job, or whose number, the database has lost.

use super::{diagnosis, text};
use crate::support::clock;
use crate::support::queue::{Queue, accepted, failed, success};
use sluice::domain::{ErrorClass, JobId, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::settle::Settlement;
use std::sync::Arc;

fn answer(claimed: &Claimed) -> Settlement {
    Settlement { attempts: vec![accepted(claimed, 1)], endings: vec![success(claimed)], ..Settlement::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_job_is_not_there_is_booked_with_its_money_and_its_answer_even_beyond_all_partitions() {
    for (number, ends) in [(1, true), (1, false), (9_999_999, true), (77_000_000, true), (77_000_000, false)] {
        let queue = Queue::new().await;
        queue.store.look_at_timeline(None, true).await.unwrap();
        queue.enqueue_one().await;
        let worker = queue.worker().await;
        let mut lost = queue.claim_one(worker).await;
        queue.run("delete from sluice.inflight; delete from sluice.job").await;
        lost.lease.job = JobId(number);
        let settlement = if ends {
            answer(&lost)
        } else {
            let row = failed(&lost, 1, ErrorClass::ServerError);
            Settlement { attempts: vec![row], ..Settlement::default() }
        };
        for _ in 0..2 {
            queue.store.settle(&settlement).await.unwrap();
            let booked = text(
                &queue.pool,
                "select string_agg(concat_ws(' ', class, detail, round, accepted, cost_nanos, answer is not null), ',')
                   from sluice.attempt",
            )
            .await;
            let money = if ends { "30000 t" } else { "0 f" };
            assert_eq!(booked, format!("abandoned lost_job -1 f {money}"), "{number}");
            let counted =
                text(&queue.pool, "select concat_ws(' ', lost_calls, lost_cost_nanos) from sluice.timeline").await;
            assert_eq!(counted, if ends { "1 30000" } else { "1 0" });
        }
        let faults = queue.store.audit().await.unwrap().faults();
        assert_eq!(faults, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_outcome_the_database_has_lost_is_named_when_its_job_goes_back() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    let call = OpenCall {
        lease: claimed.lease,
        number: 1,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: Some(NanoUsd(900)),
        labels: Arc::new(claimed.labels()),
    };
    assert!(queue.store.open_calls(&[call], 0).await.unwrap().unwrap().contains(&(claimed.lease.fence, 1)));
    // The worker has settled it, and knows nothing of the claim any more; the database has gone back to before that.
    assert_eq!(queue.store.give_back_unknown(worker, &[]).await.unwrap(), 1);
    let ledger = "select concat_ws(' ', class, detail, placeholder, uncertain_nanos) from sluice.attempt";
    assert_eq!(text(&queue.pool, ledger).await, "abandoned lost_answer t 900");
    let again = queue.claim_one(worker).await;
    assert_eq!((again.lease.job.0, again.attempts), (id, 1));
    // It remembers after all: that is the truth, and the other call is dropped.
    assert_eq!(queue.settle(answer(&claimed)).await, Vec::<i64>::new());
    assert_eq!(
        text(&queue.pool, "select concat_ws(' ', accepted, placeholder, cost_nanos) from sluice.attempt").await,
        "t f 30000"
    );
    assert_eq!(
        queue.store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap().recalled,
        [again.lease]
    );
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_job_is_gone_or_is_another_leads_to_no_other_job() {
    let enqueue = "select sluice.enqueue('{\"prompt\": \"x\"}', idempotency_key => 'k')";
    let many =
        "select job_id from sluice.enqueue_many('[{\"request\": {\"prompt\": \"x\"}, \"idempotency_key\": \"k\"}]')";
    let insert = "insert into sluice.job (request, idempotency_key) values ('{\"prompt\": \"x\"}', 'k') returning id";
    for (lost, statement) in [
        // The job is not there; another job has its number; another job with a key of its own has it.
        "delete from sluice.ready; delete from sluice.job",
        "delete from sluice.ready; delete from sluice.job;
         insert into sluice.job (id, request) values (1, '{\"prompt\": \"y\"}')",
        "delete from sluice.ready; delete from sluice.job;
         insert into sluice.job (id, request, idempotency_key) values (1, '{\"prompt\": \"y\"}', 'other')",
    ]
    .into_iter()
    .flat_map(|lost| [enqueue, many, insert].map(|statement| (lost, statement)))
    {
        let queue = Queue::new().await;
        assert_eq!(queue.count(enqueue).await, 1);
        assert_eq!(queue.count(enqueue).await, 1, "the key has its job");
        queue.run(lost).await;
        let id = queue.count(statement).await;
        assert!(id > 1, "{statement}: the key led to {id}");
        assert_eq!(
            text(&queue.pool, "select request ->> 'prompt' from sluice.job where idempotency_key = 'k'").await,
            "x"
        );
        // From then on it is that job's.
        assert_eq!((queue.count(enqueue).await, queue.count(many).await), (id, id));
        let refused = sqlx::query(insert).execute(&queue.pool).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("belongs to job {id} already")), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_for_a_lost_job_is_no_matter_of_the_job_that_has_its_number() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let lost = queue.claim_one(worker).await;
    queue.run("delete from sluice.inflight; delete from sluice.job").await;
    queue
        .run(
            "do $$ begin create role other_author login in role sluice_enqueuer; exception when duplicate_object then \
             null; end $$",
        )
        .await;
    let mut session = queue.pool.acquire().await.unwrap();
    for statement in [
        "set session authorization other_author",
        "insert into sluice.job (request) values ('{\"prompt\": \"mine\"}')",
        "reset session authorization",
    ] {
        sqlx::query(statement).execute(&mut *session).await.unwrap();
    }
    queue
        .run(
            "alter table sluice.job disable trigger user; update sluice.job set id = 1;
             alter table sluice.job enable trigger user; update sluice.ready set job_id = 1",
        )
        .await;
    queue.store.settle(&answer(&lost)).await.unwrap();
    let seen = "select count(*) from sluice.attempts";
    assert_eq!(queue.count(seen).await, 1, "the operator sees it");
    sqlx::query("set session authorization other_author").execute(&mut *session).await.unwrap();
    let theirs: i64 = sqlx::query_scalar(seen).fetch_one(&mut *session).await.unwrap();
    assert_eq!(theirs, 0, "and not the author of the other job");
    sqlx::query("reset session authorization").execute(&mut *session).await.unwrap();
    let again = queue.claim_one(worker).await;
    assert!(queue.store.history(&[again.lease]).await.unwrap().is_empty());
    assert_eq!(queue.succeed(&again).await, Vec::<i64>::new());
    let cost = "select cost_nanos from sluice.result";
    assert_eq!(queue.count(cost).await, 30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_answers_of_cancelled_jobs_are_not_among_the_calls_that_were_lost() {
    let queue = Queue::new().await;
    queue.store.look_at_timeline(None, true).await.unwrap();
    queue.run("update sluice.timeline set change = 'went_back', lost_calls = 1, lost_call_at = now()").await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    queue.store.cancel_job(claimed.lease.job).await.unwrap();
    queue.store.settle(&answer(&claimed)).await.unwrap();
    let booked = "select concat_ws(' ', class, detail) from sluice.attempt";
    assert_eq!(text(&queue.pool, booked).await, "abandoned late");
    let (_, what) = diagnosis(&queue.pool, "lost_calls").await.unwrap();
    assert!(what.starts_with("1 call was for jobs") && !what.contains("answer came"), "{what}");
    // The same answer, late because another worker had answered.
    queue.run("update sluice.result set state = 'failed', error_class = 'server_error'").await;
    let (_, what) = diagnosis(&queue.pool, "lost_calls").await.unwrap();
    assert!(what.contains("1 answer came when the job had been answered again"), "{what}");
}
