//! A result costs what all calls for its job cost, regardless of which process books which of them, and in any order.

use crate::support::clock;
use crate::support::program::{Program, text};
use crate::support::queue::{Queue, accepted, failed, failure, in_batch, park, success};
use crate::support::wait::until;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use sluice::domain::{ErrorClass, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::reprice::{Recosted, RepriceScope};
use sluice::store::settle::{AttemptRow, EndingRow, Settlement};
use std::sync::Arc;

const MAX_CRASHES: u16 = 3;

/// Sessions of this test's database that wait for a lock.
const WAITING_FOR_A_LOCK: &str =
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";

/// What the calls of a claim cost, and its next number.
struct Held {
    claimed: Claimed,
    cost: i64,
    uncertain: i64,
    calls: i16,
}

impl Held {
    /// As a worker does it: the calls before the claim are read once.
    async fn of(queue: &Queue, claimed: Claimed) -> Self {
        let past = queue.store.history(&[claimed.lease]).await.unwrap();
        let cost = past.iter().map(|call| call.cost_nanos.unwrap()).sum();
        let uncertain = past.iter().map(|call| call.uncertain_nanos).sum();
        Self { calls: claimed.attempts, claimed, cost, uncertain }
    }

    /// One more call, which was noted if the claim held.
    async fn call(&mut self, queue: &Queue) {
        self.calls += 1;
        let call = OpenCall {
            lease: self.claimed.lease,
            number: self.calls,
            target: Target::new("openai", "gpt-4o-mini"),
            rung: 0,
            started_at: Timestamp(clock::millis()),
            worst: Some(NanoUsd(900)),
            labels: Arc::new(self.claimed.labels()),
        };
        queue.store.open_calls(&[call], 0).await.unwrap().unwrap();
    }

    fn failed(&mut self, cost: i64, uncertain: i64) -> AttemptRow {
        self.cost += cost;
        self.uncertain += uncertain;
        let row = failed(&self.claimed, self.calls, ErrorClass::Timeout);
        AttemptRow { cost: Some(NanoUsd(cost)), uncertain: NanoUsd(uncertain), ..row }
    }

    fn accepted(&mut self) -> AttemptRow {
        self.cost += 30_000;
        accepted(&self.claimed, self.calls)
    }

    fn billed(&self, ending: EndingRow) -> EndingRow {
        let (cost, uncertain) = (Some(NanoUsd(self.cost)), NanoUsd(self.uncertain));
        EndingRow { attempts: self.calls, cost, uncertain, ..ending }
    }
}

async fn books_are_in_order(queue: &Queue) {
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
    assert_eq!(queue.store.misbilled(std::time::Duration::MAX).await.unwrap().jobs, 0);
}

#[tokio::test]
async fn a_result_costs_what_its_calls_cost_after_every_order_of_events() {
    let mut runner = TestRunner::deterministic();
    let (mut results, mut odd) = (0, 0);
    for _ in 0..4 {
        let queue = Queue::new().await;
        let jobs = queue.enqueue(in_batch("b"), 5).await;
        // Claims stay in hand regardless of their fate, as with workers that are only taken for dead.
        let mut held: Vec<Held> = Vec::new();
        for _ in 0..60 {
            let (event, which) = (0..10_u8, 0..1_000_usize).new_tree(&mut runner).unwrap().current();
            let job = sluice::domain::JobId(jobs[which % jobs.len()]);
            match event {
                0 | 1 => {
                    let worker = queue.worker().await;
                    for claimed in queue.claim(worker, 1).await {
                        let mut one = Held::of(&queue, claimed).await;
                        one.call(&queue).await;
                        held.push(one);
                    }
                }
                2 => {
                    queue
                        .run("update sluice.worker set lease_until = now() - interval '1 s' where state = 'live'")
                        .await;
                    queue.store.rescue(MAX_CRASHES).await.unwrap();
                }
                3 => drop(queue.store.cancel_job(job).await.unwrap()),
                4 => drop(queue.store.retry_job(job).await.unwrap()),
                _ if held.is_empty() => {}
                _ => {
                    let at = which % held.len();
                    let mut one = held.swap_remove(at);
                    let mut settlement = Settlement::default();
                    match event {
                        5 | 6 => settlement.attempts.push(one.failed(7, 5)),
                        7 => {
                            settlement.attempts.push(one.accepted());
                            settlement.endings.push(one.billed(success(&one.claimed)));
                        }
                        8 => {
                            settlement.attempts.push(one.failed(3, 0));
                            settlement.endings.push(one.billed(failure(&one.claimed, ErrorClass::Timeout)));
                        }
                        _ => {
                            settlement.attempts.push(one.failed(0, 11));
                            let row = park(&one.claimed, None);
                            settlement.parks.push(sluice::store::settle::ParkRow { attempts: one.calls, ..row });
                        }
                    }
                    queue.settle(settlement.clone()).await;
                    queue.settle(settlement).await;
                    if event < 7 {
                        one.call(&queue).await;
                        held.push(one);
                    }
                }
            }
            books_are_in_order(&queue).await;
        }
        results += queue.count("select count(*) from sluice.result").await;
        odd += queue.count("select count(*) from sluice.attempt where detail = 'late' or placeholder").await;
    }
    assert!(results > 0 && odd > 0, "{results} results, {odd} late or placeholders");
}

#[tokio::test]
async fn a_late_report_and_the_end_of_the_job_at_the_same_time_see_each_other() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 1).await;
    let worker = queue.worker().await;
    let mut stale = Held::of(&queue, queue.claim_one(worker).await).await;
    stale.call(&queue).await;
    queue.silence(worker).await;
    queue.store.rescue(MAX_CRASHES).await.unwrap();
    let heir = queue.worker().await;
    let current = queue.claim_one(heir).await;
    // The job is cancelled by a transaction that is open yet.
    let mut cancelling = queue.pool.begin().await.unwrap();
    let job = current.lease.job.0;
    sqlx::query("select sluice.cancel($1::bigint)").bind(job).execute(&mut *cancelling).await.unwrap();
    let row = stale.failed(7, 5);
    let reporting = {
        let store = queue.store.clone();
        tokio::spawn(async move {
            store.settle(&Settlement { attempts: vec![row], ..Settlement::default() }).await.unwrap();
        })
    };
    let waits = WAITING_FOR_A_LOCK;
    until("the report waits for the other transaction", async || queue.count(waits).await > 0).await;
    cancelling.commit().await.unwrap();
    reporting.await.unwrap();
    books_are_in_order(&queue).await;
    assert_eq!(queue.count("select cost_nanos * 100 + uncertain_nanos from sluice.result").await, 705);
}

#[tokio::test]
async fn a_worker_that_ends_jobs_in_another_order_loses_nothing_to_a_reprice() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 3).await;
    let worker = queue.worker().await;
    let mut attempts = Vec::new();
    for claimed in queue.claim_all(worker).await {
        let mut held = Held::of(&queue, claimed).await;
        held.call(&queue).await;
        attempts.push(held.failed(7, 0));
    }
    queue.settle(Settlement { attempts, ..Settlement::default() }).await;
    let mut walk = queue.store.costed(RepriceScope::default(), None);
    let (_, costed) = walk.next().await.unwrap().unwrap();
    let changes: Vec<Recosted> = costed
        .into_iter()
        .map(|was| {
            let cost = Some(NanoUsd(11));
            Recosted { was, cost, computed: cost, source: Some("price"), price: None, differs: false }
        })
        .collect();
    assert_eq!(changes.len(), 3);
    // The job in the middle is in other hands: in either order the reprice has a job of its own when it waits.
    let mut ending = queue.pool.begin().await.unwrap();
    let lock = "select job_id from sluice.inflight where job_id = any ($1) for update";
    let take = async |jobs: &[i64], transaction: &mut sqlx::PgTransaction<'_>| {
        sqlx::query(lock).bind(jobs).execute(&mut **transaction).await.map(|_| ())
    };
    let [first, middle, last] = [0, 1, 2].map(|nth: usize| changes[nth].was.job.0);
    take(&[middle], &mut ending).await.unwrap();
    let repricing = {
        let store = queue.store.clone();
        tokio::spawn(async move { store.recost(&changes).await })
    };
    until("the reprice waits", async || queue.count(WAITING_FOR_A_LOCK).await > 0).await;
    take(&[first, last], &mut ending).await.expect("the worker's transaction goes on");
    ending.commit().await.unwrap();
    assert_eq!(repricing.await.unwrap().unwrap(), 3);
    books_are_in_order(&queue).await;
    assert_eq!(queue.count("select sum(cost_nanos)::bigint from sluice.attempt").await, 33);
}

#[tokio::test]
async fn the_doctor_finds_results_with_another_cost_and_corrects_them() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 3).await;
    let worker = queue.worker().await;
    for claimed in queue.claim_all(worker).await {
        queue.succeed(&claimed).await;
    }
    queue
        .run("update sluice.result set uncertain_nanos = 5 where job_id in (select min(job_id) from sluice.result)")
        .await;
    queue
        .run("update sluice.result set cost_nanos = null where job_id in (select max(job_id) from sluice.result)")
        .await;
    let faults = queue.store.audit().await.unwrap().faults();
    assert_eq!(faults, ["2 results cost something else than their calls"]);
    let program = Program::new("", &queue.database.url());
    let told = text(&program.run(&["doctor", "--format", "plain"]).await.stdout);
    assert!(told.contains("2 results cost something else than their calls"), "{told}");
    let told = text(&program.run(&["doctor", "--repair", "--format", "plain"]).await.stdout);
    assert!(told.contains("every result costs what its calls cost"), "{told}");
    books_are_in_order(&queue).await;
}
