//! What users have made on top of the tables keeps old work, and is named.

use super::{DAY, DROPPED, HOUR, books_are_in_order, count, finished_partition, pass_days, retire};
use crate::support::fleet::Fleet;
use crate::support::program::{Program, text};
use crate::support::queue::Queue;
use sluice::store::retention::Retired;

/// What people have made on top of the tables, each with how to get rid of it and how it is named.
const DEPENDENTS: [(&str, &str, &str); 9] = [
    (
        "create table app.doc (job bigint references sluice.job on delete cascade)",
        "drop table app.doc",
        "constraint doc_job_fkey on table app.doc",
    ),
    (
        "create table app.note (job bigint references sluice.result) partition by hash (job)",
        "drop table app.note",
        "constraint note_job_fkey on table app.note",
    ),
    ("create view app.old as select id from sluice.job_p0", "drop view app.old", "view app.old"),
    (
        "create materialized view app.spent as select * from sluice.attempt_p0",
        "drop materialized view app.spent",
        "materialized view app.spent",
    ),
    (
        "create function app.n() returns bigint language sql begin atomic select count(*) from sluice.result_p0; end",
        "drop function app.n",
        "function app.n()",
    ),
    (
        "create function app.of(sluice.job_p0) returns bigint language sql as 'select 1'",
        "drop function app.of",
        "function app.of(sluice.job_p0)",
    ),
    ("create table app.copy (was sluice.job_p0)", "drop table app.copy", "column was of table app.copy"),
    (
        "create rule also as on insert to app.mine do also delete from sluice.result_p0",
        "drop rule also on app.mine",
        "rule also on table app.mine",
    ),
    (
        "create policy mine_only on app.mine using (exists (select from sluice.job_p0))",
        "drop policy mine_only on app.mine",
        "policy mine_only on table app.mine",
    ),
];

/// One that has succeeded.
async fn keyed_job(queue: &Queue) -> i64 {
    let keyed = queue.count("select sluice.enqueue('{}', idempotency_key => 'order-17')").await;
    let worker = queue.worker().await;
    queue.succeed(&queue.claim_one(worker).await).await;
    keyed
}

async fn keeps_its_key(queue: &Queue, job: i64) {
    let again = queue.count("select sluice.enqueue('{}', idempotency_key => 'order-17')").await;
    assert_eq!(again, job, "the job is there, and so is its key");
}

#[tokio::test]
async fn a_partition_that_something_of_the_users_depends_on_is_kept_whole_with_its_keys_and_it_is_named() {
    let queue = Queue::new().await;
    let keyed = keyed_job(&queue).await;
    finished_partition(&queue).await;
    queue.run("create schema app; create table app.mine (n integer)").await;
    for (make, unmake, name) in DEPENDENTS {
        queue.run(make).await;
        assert_eq!(retire(&queue.store).await, [Retired::Needed { partition: 0 }], "{name}");
        // Nothing was begun, and it is not said again and again.
        assert!(retire(&queue.store).await.is_empty(), "{name}");
        assert_eq!(queue.store.kept_for_others().await.unwrap(), [(0, vec![name.to_owned()])]);
        let watched = "select count(*) from pg_trigger where tgname = 'retiring'";
        assert_eq!(queue.count(watched).await, 0, "{name}");
        keeps_its_key(&queue, keyed).await;
        queue.run(unmake).await;
    }
    // One more thing comes when all is counted and only the drop is left.
    count(&queue.store).await;
    queue.run(DEPENDENTS[0].0).await;
    assert_eq!(retire(&queue.store).await, [Retired::Needed { partition: 0 }]);
    keeps_its_key(&queue, keyed).await;
    queue.run(DEPENDENTS[0].1).await;
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 4 }));
    assert!(queue.count("select sluice.enqueue('{}', idempotency_key => 'order-17')").await > keyed);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn what_goes_along_with_a_partition_keeps_nothing() {
    let queue = Queue::new().await;
    finished_partition(&queue).await;
    queue
        .run(
            "create schema app;
             create view app.all_jobs as select * from sluice.job;
             create function app.n() returns bigint language sql begin atomic select count(*) from sluice.jobs; end;
             create index mine on sluice.job_p0 (custom_id);
             create index also_mine on sluice.job (project);
             create statistics sluice.together on route, project from sluice.job_p0;
             create sequence sluice.owned owned by sluice.job_p0.id;
             create publication mine for table sluice.job_p0, sluice.result;
             create rule also as on delete to sluice.job_p0 do also select 1;
             create trigger mine after update on sluice.job for each row
                 execute function suppress_redundant_updates_trigger();
             create trigger mine_alone after update on sluice.result_p0 for each row
                 execute function suppress_redundant_updates_trigger()",
        )
        .await;
    assert_eq!(retire(&queue.store).await.last(), Some(&DROPPED));
}

#[tokio::test]
async fn one_partition_that_is_kept_does_not_keep_the_next() {
    let queue = Queue::new().await;
    finished_partition(&queue).await;
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    queue.succeed(&queue.claim_one(worker).await).await;
    pass_days(&queue).await;
    queue.store.ensure_partitions().await.unwrap();
    assert_eq!(queue.store.begin_partition(HOUR).await.unwrap(), Some(2));
    queue.run("create view public.old as select id from sluice.job_p0").await;
    let steps = retire(&queue.store).await;
    assert_eq!(steps.first(), Some(&Retired::Needed { partition: 0 }), "{steps:?}");
    assert_eq!(steps.last(), Some(&Retired::Dropped { partition: 1, jobs: 1 }), "{steps:?}");
}

#[tokio::test]
async fn keys_stay_with_a_job_that_is_tried_again_at_the_last_moment() {
    let queue = Queue::new().await;
    let keyed = keyed_job(&queue).await;
    finished_partition(&queue).await;
    count(&queue.store).await;
    queue.run("select sluice.retry(r.job_id) from sluice.result r where r.state = 'failed'").await;
    assert!(matches!(retire(&queue.store).await.last(), Some(Retired::Open { partition: 0, .. })));
    keeps_its_key(&queue, keyed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_the_doctor_name_what_keeps_old_work() {
    let queue = Queue::new().await;
    finished_partition(&queue).await;
    queue.run("create table public.doc (job bigint references sluice.job)").await;
    let config = "[retention]\nfinished = \"24h\"\n[providers.one]\ndialect = \"openai\"\n\
                  base_url = \"http://simulator/one/v1\"\n[models.\"one/m\"]\n\
                  price = { input = \"1\", output = \"1\" }\n\
                  [routes.default]\nrungs = [\"one/m\"]\n";
    let scenario = "[providers.one]\ndialect = \"openai\"\n";
    let fleet = Fleet::over(queue.pool.clone(), &queue.database.url(), scenario, config);
    // The worker that finds it out says it, and so does another that starts later.
    for _ in 0..2 {
        let worker = fleet.start();
        worker.until_said("[retention] cannot drop old work", 1).await;
        let said = worker.said();
        assert!(said.contains("constraint doc_job_fkey on table public.doc") && !said.contains("CASCADE"), "{said}");
        worker.stop().await;
    }
    let program = Program::new("[retention]\nfinished = \"24h\"\n", &queue.database.url());
    let doctor = text(&program.run(&["doctor", "--format", "plain"]).await.stdout);
    let line = doctor.lines().find(|line| line.contains("\tretention\t")).unwrap();
    assert!(line.starts_with("warning") && line.contains("constraint doc_job_fkey on table public.doc"), "{doctor}");
}

/// A foreign key onto the keys that refuses to let go of them.
const ONTO_KEYS: &str = "create table app.noted (project text, owner text, key text, constraint noted_key
     foreign key (project, owner, key) references sluice.idempotency)";

#[tokio::test]
async fn a_foreign_key_onto_idempotency_keys_keeps_the_partition_and_is_named() {
    let queue = Queue::new().await;
    let keyed = keyed_job(&queue).await;
    finished_partition(&queue).await;
    queue.run("create schema app").await;
    queue.run(ONTO_KEYS).await;
    let name = "constraint noted_key on table app.noted".to_owned();
    assert_eq!(retire(&queue.store).await, [Retired::Needed { partition: 0 }]);
    assert!(retire(&queue.store).await.is_empty(), "it is not said again and again");
    assert_eq!(queue.store.kept_for_others().await.unwrap(), [(0, vec![name.clone()])]);
    keeps_its_key(&queue, keyed).await;
    // It comes when the tables are gone, and the keys are left.
    queue.run("drop table app.noted").await;
    while queue.count("select count(*) from sluice.retired").await == 0 {
        queue.store.retire(DAY).await.unwrap();
    }
    queue.run(ONTO_KEYS).await;
    queue.run("insert into app.noted select project, owner, key from sluice.idempotency").await;
    assert_eq!(queue.store.retire(DAY).await.unwrap(), Retired::Needed { partition: 0 });
    assert_eq!(queue.store.retire(DAY).await.unwrap(), Retired::Nothing);
    assert_eq!(queue.store.kept_for_others().await.unwrap(), [(0, vec![name])]);
    queue.run("drop table app.noted").await;
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 4 }));
    assert!(queue.store.kept_for_others().await.unwrap().is_empty());
    assert!(queue.count("select sluice.enqueue('{}', idempotency_key => 'order-17')").await > keyed);
}

#[tokio::test]
async fn a_foreign_key_that_lets_go_of_idempotency_keys_keeps_nothing() {
    let queue = Queue::new().await;
    keyed_job(&queue).await;
    finished_partition(&queue).await;
    queue
        .run(
            "create schema app;
             create table app.goes (project text, owner text, key text,
                 foreign key (project, owner, key) references sluice.idempotency on delete cascade);
             create table app.forgets (project text, owner text, key text,
                 foreign key (project, owner, key) references sluice.idempotency on delete set null);
             insert into app.goes select project, owner, key from sluice.idempotency;
             insert into app.forgets select project, owner, key from sluice.idempotency",
        )
        .await;
    assert_eq!(retire(&queue.store).await.last(), Some(&Retired::Dropped { partition: 0, jobs: 4 }));
    assert_eq!(queue.count("select count(*) from app.goes").await, 0);
    assert_eq!(queue.count("select count(*) from app.forgets where key is null").await, 1);
}
