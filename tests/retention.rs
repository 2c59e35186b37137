//! Finished work is dropped by partition: which rows go, which stay, and which sessions are in the way.

use crate::support::pooler::{Pooler, REFUSES};
use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::queue::{NewJob, Queue, in_batch};
use crate::support::wait::until;
use sluice::domain::{ErrorClass, JobId};
use sluice::store::Store;
use sluice::store::job::Changed;
use sluice::store::retention::Retired;
use sqlx::postgres::PgPoolOptions;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod dependents;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// Everything that is there happened two days ago.
async fn pass_days(queue: &Queue) {
    queue
        .run(
            "update sluice.job set created_at = created_at - interval '2 days';
             update sluice.result set finished_at = finished_at - interval '2 days';
             update sluice.retiring set youngest = youngest - interval '2 days'",
        )
        .await;
}

/// Three jobs that ended two days ago, one of them failed; new ones go into the next partition.
async fn finished_partition(queue: &Queue) -> Vec<i64> {
    let ids = queue.enqueue(in_batch("old"), 3).await;
    let worker = queue.worker().await;
    let mut claimed = queue.claim_all(worker).await;
    claimed.sort_by_key(|claimed| claimed.lease.job);
    queue.succeed(&claimed[0]).await;
    queue.succeed(&claimed[1]).await;
    queue.fail(&claimed[2], ErrorClass::InvalidRequest).await;
    pass_days(queue).await;
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), Some(1));
    ids
}

/// Goes on until there is nothing to do at once.
async fn retire(store: &Store) -> Vec<Retired> {
    let steps = RefCell::new(Vec::new());
    // A step that was given up is told before its transaction is quite over. Keys of dropped jobs are cleared however
    // long something is kept.
    until("no session is at it", async || {
        let step = store.retire(DAY * 10_000).await.unwrap();
        if matches!(step, Retired::Underway { .. } | Retired::Dropped { .. }) {
            steps.borrow_mut().push(step);
        }
        step == Retired::Nothing
    })
    .await;
    let mut steps = steps.into_inner();
    loop {
        let step = store.retire(DAY).await.unwrap();
        if step == Retired::Nothing {
            return steps;
        }
        steps.push(step);
        if step == Retired::Busy {
            return steps;
        }
        assert!(steps.len() < 50, "it does not come to an end: {steps:?}");
    }
}

/// Up to where only the drop itself is left.
async fn count(store: &Store) {
    until("no session is at it", async || store.retire(DAY * 10_000).await.unwrap() == Retired::Nothing).await;
    for _ in 0..2 {
        assert_eq!(store.retire(DAY).await.unwrap(), Retired::Underway { partition: 0 });
    }
}

async fn books_are_in_order(queue: &Queue) {
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

const DROPPED: Retired = Retired::Dropped { partition: 0, jobs: 3 };

#[tokio::test]
async fn a_partition_goes_when_all_its_jobs_ended_long_ago_and_the_books_stay_exact() {
    let queue = Queue::new().await;
    let ids = finished_partition(&queue).await;
    let before = queue.store.audit().await.unwrap();
    assert_eq!(before.faults(), Vec::<String>::new());
    // Young work in the next partition stays.
    let young = queue.enqueue_one().await;
    assert!(young >= 10_000_000);
    let worker = queue.worker().await;
    queue.succeed(&queue.claim_one(worker).await).await;

    assert_eq!(retire(&queue.store).await.last(), Some(&DROPPED));
    let after = queue.store.audit().await.unwrap();
    assert_eq!(after.faults(), Vec::<String>::new());
    assert_eq!((after.jobs, after.succeeded), (before.jobs + 1, before.succeeded + 1));
    assert_eq!(queue.count("select count(*) from sluice.job").await, 1);
    let noted: (i64, i64, i64, i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "select part, first_id, last_id, jobs, succeeded, failed, attempts, accepted, cost_nanos from sluice.retired",
    )
    .fetch_one(&queue.pool)
    .await
    .unwrap();
    assert_eq!(noted, (0, ids[0], ids[2], 3, 2, 1, 3, 2, 60_000));
    // The sums are still there, the jobs are not.
    assert_eq!(queue.store.batch("old").await.unwrap().unwrap().jobs, 3);
    assert_eq!(queue.store.cancel_job(JobId(ids[0])).await.unwrap(), Changed::NoSuchJob);
    assert_eq!(queue.store.ensure_partitions().await.unwrap(), 3);
    assert_eq!(queue.count("select count(*) from pg_class where relname = 'job_p0'").await, 0);
}

#[tokio::test]
async fn the_commands_say_that_a_dropped_job_is_gone() {
    let queue = Queue::new().await;
    let ids = finished_partition(&queue).await;
    let kept = queue.enqueue(in_batch("half"), 1).await[0];
    queue
        .run(
            "insert into sluice.tally (hour, route, project, batch, enqueued) values (now(), 'default', 'default', \
             'half', 4)",
        )
        .await;
    retire(&queue.store).await;
    let program = Program::new("", &queue.database.url());
    for arguments in [["explain", "1"], ["results", "old"]] {
        let output = program.run(&arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(said.contains("[retention]"), "{said}");
    }
    let never = program.run(&["job", "show", &(ids[2] + 1).to_string()]).await;
    assert_eq!(text(&never.stderr), format!("error: there is no job {}\n", ids[2] + 1));
    let half = program.run(&["results", "half"]).await;
    assert!(text(&half.stderr).contains("4 more jobs of this batch are no longer kept"), "{}", text(&half.stderr));
    assert!(queue.store.retired(kept).await.unwrap().is_none());
}

#[tokio::test]
async fn a_job_that_has_not_ended_keeps_its_partition() {
    let queue = Queue::new().await;
    let open = queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    finished_partition(&queue).await;
    let steps = retire(&queue.store).await;
    assert_eq!(steps.last(), Some(&Retired::Open { partition: 0, job: open }), "{steps:?}");
    // It is not counted again and again meanwhile.
    assert!(retire(&queue.store).await.is_empty());
    queue.succeed(&claimed).await;
    assert!(!retire(&queue.store).await.contains(&Retired::Dropped { partition: 0, jobs: 4 }), "it has ended just now");
    pass_days(&queue).await;
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 4 }));
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn what_is_young_and_what_new_jobs_go_into_stays() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 2).await;
    for claimed in queue.claim_all(worker).await {
        queue.succeed(&claimed).await;
    }
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), None, "its first job came just now");
    pass_days(&queue).await;
    assert!(retire(&queue.store).await.is_empty(), "new jobs still go into it");
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), Some(1));
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), None, "the next one is empty");
    // Old enough by its last job, and not by all.
    queue.run("update sluice.result set finished_at = now() where job_id = 1").await;
    assert!(!retire(&queue.store).await.contains(&Retired::Dropped { partition: 0, jobs: 2 }));
    queue.run("update sluice.result set finished_at = now() - interval '2 days'").await;
    // The change is one more thing that has to be counted anew.
    queue.run("update sluice.retiring set youngest = null").await;
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 2 }));
}

#[tokio::test]
async fn a_retry_by_hand_keeps_the_partition_however_late_it_comes() {
    let queue = Queue::new().await;
    let ids = finished_partition(&queue).await;
    count(&queue.store).await;
    assert_eq!(queue.store.retry_job(JobId(ids[2])).await.unwrap(), Changed::Yes);
    let steps = retire(&queue.store).await;
    assert_eq!(steps.last(), Some(&Retired::Open { partition: 0, job: ids[2] }), "{steps:?}");
    assert_eq!(queue.places(ids[2]).await, "r");
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn an_open_transaction_that_has_changed_something_keeps_the_partition() {
    let queue = Queue::new().await;
    let ids = finished_partition(&queue).await;
    // Before it is watched, and after it was counted.
    for is_counted in [false, true] {
        if is_counted {
            count(&queue.store).await;
        }
        let mut retry = queue.pool.begin().await.unwrap();
        sqlx::query("select sluice.retry($1::bigint)").bind(ids[2]).execute(&mut *retry).await.unwrap();
        assert_eq!(retire(&queue.store).await, [Retired::Busy]);
        retry.rollback().await.unwrap();

        let mut insert = queue.pool.begin().await.unwrap();
        sqlx::raw_sql("insert into sluice.job (id, request) values (77, '{}')").execute(&mut *insert).await.unwrap();
        assert_eq!(retire(&queue.store).await, [Retired::Busy]);
        if is_counted {
            insert.commit().await.unwrap();
            assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Open { partition: 0, job: 77 }));
        } else {
            insert.rollback().await.unwrap();
        }
    }
    assert_eq!(queue.places(77).await, "r");
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_late_attempt_is_in_the_note() {
    let queue = Queue::new().await;
    finished_partition(&queue).await;
    count(&queue.store).await;
    queue
        .run(
            "insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at, total_ms,
                                         accepted, class, usage_source, cost_nanos)
                  values (1, 99, 7, 0, 'one', 'm', now(), now(), 1, false, 'abandoned', 'unknown', 5);
             insert into sluice.tally (hour, route, project, attempts, cost_nanos) values (now(), 'default',
               'default', 1, 5)",
        )
        .await;
    assert_eq!(retire(&queue.store).await.last(), Some(&DROPPED));
    assert_eq!(queue.count("select cost_nanos from sluice.retired").await, 60_005);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_transaction_that_has_taken_a_number_is_waited_for_before_numbers_move_on() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    pass_days(&queue).await;
    let mut copy = queue.pool.begin().await.unwrap();
    sqlx::query("select nextval('sluice.job_id_seq')").execute(&mut *copy).await.unwrap();
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), None);
    copy.commit().await.unwrap();
    // A step that was given up before is told before its transaction is quite over.
    until("they move on", async || queue.store.begin_partition(HOUR).await.unwrap() == Some(1)).await;
    assert_eq!(queue.enqueue_one().await, 10_000_000);
}

#[tokio::test]
async fn numbers_do_not_move_on_into_a_partition_that_is_not_there() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    pass_days(&queue).await;
    queue.run("drop table sluice.attempt_p2").await;
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), None);
    queue.store.ensure_partitions().await.unwrap();
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), Some(1));
}

#[tokio::test]
async fn new_partitions_are_made_while_somebody_enqueues_for_long() {
    let queue = Queue::new().await;
    queue.run("drop table sluice.job_p3, sluice.result_p3, sluice.attempt_p3").await;
    let mut copy = queue.pool.begin().await.unwrap();
    sqlx::raw_sql("insert into sluice.job (request) values ('{}')").execute(&mut *copy).await.unwrap();
    // Less patience than usual: it needs none.
    let options = queue.database.connect_options().options([("lock_timeout", "50ms")]);
    let store = Store::from_pool(PgPoolOptions::new().connect_lazy_with(options));
    assert_eq!(store.ensure_partitions().await.unwrap(), 3);
    copy.commit().await.unwrap();
    queue.run("insert into sluice.job (id, priority, request) values (30000000, 5, '{}')").await;
    assert!(
        sqlx::raw_sql("insert into sluice.job (id, priority, request) values (30000001, 5000, '{}')")
            .execute(&queue.pool)
            .await
            .is_err()
    );
    assert_eq!(queue.count("select count(*) from pg_indexes where tablename = 'job_p3'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_is_given_twice_while_they_move_on_under_load() {
    const MOVES: i64 = 8;
    let queue = Queue::new().await;
    let done = Arc::new(AtomicBool::new(false));
    let takers: Vec<_> = (0..6)
        .map(|_| {
            let (pool, done) = (queue.pool.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut mine: Vec<i64> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    // Each is old as soon as it is there, so that there is always a reason to move on.
                    let ids: Vec<i64> = sqlx::query_scalar(
                        "insert into sluice.job (created_at, request)
                              select now() - interval '1 day', '{}' from generate_series(1, 7) returning id",
                    )
                    .fetch_all(&pool)
                    .await
                    .unwrap();
                    mine.extend(ids);
                }
                mine
            })
        })
        .collect();
    // Each time from shortly before the end of a partition, so that the numbers may get there by themselves as well.
    for partition in 0..MOVES {
        queue.store.ensure_partitions().await.unwrap();
        queue
            .run(
                "do $$ declare next bigint; begin
                     alter sequence sluice.job_id_seq cache 1;
                     select greatest(last_value, (last_value / 10000000 + 1) * 10000000 - 300) into next
                       from sluice.job_id_seq;
                     execute format('alter sequence sluice.job_id_seq restart with %s', next + 1);
                 end $$",
            )
            .await;
        until("the numbers have moved on", async || {
            queue.store.begin_partition(HOUR).await.unwrap();
            queue.count("select last_value / 10000000 from sluice.job_id_seq").await > partition
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    let mut ids = Vec::new();
    for taker in takers {
        ids.extend(taker.await.unwrap());
    }
    let unique: HashSet<i64> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    assert_eq!(queue.count("select count(*) from sluice.job").await, i64::try_from(ids.len()).unwrap());
}

#[tokio::test]
async fn keys_of_dropped_jobs_may_be_used_again() {
    let queue = Queue::new().await;
    let enqueue = async || queue.count("select sluice.enqueue('{}', idempotency_key => 'order-17')").await;
    let first = enqueue().await;
    let worker = queue.worker().await;
    queue.succeed(&queue.claim_one(worker).await).await;
    pass_days(&queue).await;
    queue.store.begin_partition(HOUR).await.unwrap();
    assert_eq!(enqueue().await, first);
    queue.count("select sluice.enqueue('{}', idempotency_key => 'another')").await;
    // A session that has just met a key is about to read whose it is.
    let mut meeting = queue.pool.begin().await.unwrap();
    sqlx::query(
        "insert into sluice.idempotency values ('default', session_user, 'order-17', 99) on conflict do nothing",
    )
    .execute(&mut *meeting)
    .await
    .unwrap();
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Busy));
    // The job is gone by then, and its key not yet.
    assert_eq!(queue.count("select count(*) from sluice.retired").await, 1);
    meeting.commit().await.unwrap();
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 1 }));
    assert!(enqueue().await > first);
    assert_eq!(queue.count("select count(*) from sluice.idempotency").await, 2);
}

#[tokio::test]
async fn a_worker_may_drop_and_others_may_not() {
    let queue = Queue::new().await;
    finished_partition(&queue).await;
    let store_as = |role| {
        let options = queue.database.connect_options().options([("role", role)]);
        Store::from_pool(PgPoolOptions::new().max_connections(1).connect_lazy_with(options))
    };
    for role in ["sluice_reporter", "sluice_enqueuer"] {
        assert!(store_as(role).retire(DAY).await.unwrap_err().is_denied(), "{role}");
        assert!(store_as(role).begin_partition(HOUR).await.unwrap_err().is_denied(), "{role}");
    }
    let worker = store_as("sluice_worker");
    worker.begin_partition(HOUR).await.unwrap();
    assert_eq!(retire(&worker).await.last(), Some(&DROPPED));
    assert_eq!(worker.audit().await.unwrap().faults(), Vec::<String>::new());
    assert!(worker.retire(Duration::from_mins(59)).await.is_err(), "an hour is the least");
}

#[tokio::test]
async fn it_works_behind_a_pooler() {
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), REFUSES).await else { return };
    let store = Store::connect(pooler.options(database.connect_options()), 2).await.unwrap();
    assert!(store.is_pooled());
    let queue = Queue { store, pool: database.pool(), database };
    finished_partition(&queue).await;
    assert_eq!(retire(&queue.store).await.last(), Some(&DROPPED));
    books_are_in_order(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_drops_what_the_configuration_does_not_keep() {
    let queue = Queue::new().await;
    queue.enqueue(NewJob::default(), 2).await;
    let by_hand = queue.worker().await;
    for claimed in queue.claim_all(by_hand).await {
        queue.succeed(&claimed).await;
    }
    pass_days(&queue).await;
    queue
        .run(
            "insert into sluice.failure_sample (provider, model, class, detail, code, message, seen_at)
                  values ('one', 'm', 'timeout', '', 'old', 'long ago', now() - interval '25 hours'),
                         ('one', 'm', 'timeout', '', 'new', 'lately', now() - interval '23 hours')",
        )
        .await;
    let config = "[retention]\nfinished = \"24h\"\n[http]\nlisten = \"off\"\n\
                  [providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  [models.\"one/m\"]\nprice = { input = \"1\", output = \"1\" }\n[routes.default]\n\
                  rungs = [\"one/m\"]\n";
    let program = Program::new(config, &queue.database.url());
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut command = program.command(&["worker"]);
    let worker = command.stderr(said.reopen().unwrap()).spawn().unwrap();
    until("it is dropped", async || queue.count("select count(*) from sluice.retired").await == 1).await;
    // The server answers when the files are gone, which is after others see that the rows are.
    let says = async || text(&std::fs::read(said.path()).unwrap()).contains("finished work was dropped");
    until("the worker says it", says).await;
    // What providers have said goes with the work of that time.
    let said = "select string_agg(code, ',') = 'new' from sluice.failure_sample";
    until("old words are forgotten", async || {
        sqlx::query_scalar::<_, bool>(said).fetch_one(&queue.pool).await.unwrap()
    })
    .await;
    assert_eq!(queue.enqueue_one().await, 10_000_000);
    let pid = rustix::process::Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(ended(worker).await.status.success());
    books_are_in_order(&queue).await;
}
