//! Jobs that were inserted while triggers were off: they are found, told apart from those that wait, cancelled, and put
//! into the queue.

use crate::support::program::{Program, text};
use crate::support::queue::{NewJob, Queue, in_batch};
use serde_json::Value;
use sluice::domain::JobId;
use sluice::store::job::{Changed, Place};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

/// As a logical restore or a subscription writes rows.
async fn insert_with_triggers_off(queue: &Queue, values: &str) -> Vec<i64> {
    let mut transaction = queue.pool.begin().await.unwrap();
    sqlx::raw_sql("set local session_replication_role = replica").execute(&mut *transaction).await.unwrap();
    let statement = format!(
        "insert into sluice.job (batch, priority, run_at, idempotency_key, max_attempts, request)
              select v.*, '{{\"prompt\": \"a secret\"}}' from (values {values}) v returning id"
    );
    let mut ids: Vec<i64> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    ids.sort_unstable();
    ids
}

/// One that a trigger would have taken.
const PLAIN: &str = "(null::text, 0::smallint, null::timestamptz, null::text, null::smallint)";

async fn books_are_in_order(queue: &Queue) {
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test]
async fn the_doctor_finds_them_and_puts_them_into_the_queue() {
    let queue = Queue::new().await;
    let waiting = queue.enqueue(in_batch("b"), 2).await;
    let lost = insert_with_triggers_off(
        &queue,
        "('b', 5::smallint, null::timestamptz, 'key', null::smallint), ('b', 0, now() + interval '1 day', null, 3),
         (null, -7, now() - interval '1 day', null, null)",
    )
    .await;
    let found = queue.store.unqueued(PATIENCE).await.unwrap();
    assert_eq!((found.jobs, &found.some, found.looked_from), (3, &lost, None));

    let program = Program::new("", &queue.database.url());
    let doctor = async |more: &[&str]| {
        let arguments: Vec<&str> = ["doctor", "--format", "json"].iter().chain(more).copied().collect();
        let output = program.run(&arguments).await;
        let found: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        let findings = found["findings"].as_array().unwrap().clone();
        let finding = findings.into_iter().find(|finding| finding["check"] == "unqueued_jobs").unwrap();
        (output.status.code().unwrap(), finding, text(&output.stderr))
    };
    let (status, finding, _) = doctor(&[]).await;
    assert_eq!((status, &finding["severity"]), (9, &"bad".into()));
    let expected = format!("3 jobs have not ended and are in no queue: {}, {}, {}", lost[0], lost[1], lost[2]);
    assert_eq!(finding["what"], expected);
    assert!(finding["do"].as_str().unwrap().contains("sluice doctor --repair"), "{finding}");

    let (_, finding, said) = doctor(&["--repair"]).await;
    assert_eq!(finding["severity"], "ok", "{finding}");
    assert!(said.contains("3 jobs that were in no queue are in it now"), "{said}");
    assert_eq!(queue.places(lost[0]).await, "r");
    assert_eq!(queue.places(lost[1]).await, "p");
    assert_eq!(queue.places(lost[2]).await, "r");
    // Twice is as once; those that waited still do, once.
    assert_eq!(queue.store.queue_unqueued().await.unwrap().jobs, 0);
    assert_eq!(queue.places(waiting[0]).await, "r");
    // As if they had come by the trigger.
    let again = queue.count("select sluice.enqueue('{}', idempotency_key => 'key')").await;
    assert_eq!(again, lost[0]);
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().jobs, 4);
    books_are_in_order(&queue).await;
    let worker = queue.worker().await;
    for claimed in queue.claim_all(worker).await {
        queue.succeed(&claimed).await;
    }
    assert_eq!(queue.places(lost[0]).await, "e");
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_restore_of_all_tables_is_not_counted_twice() {
    let queue = Queue::new().await;
    let ids = queue.enqueue(in_batch("b"), 3).await;
    let worker = queue.worker().await;
    let claimed = queue.claim_all(worker).await;
    queue.succeed(&claimed[0]).await;
    // The jobs in a worker's hands are not there any more, each with one attempt on the ledger.
    queue
        .run(
            "delete from sluice.inflight;
             insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at, total_ms,
                                         accepted, class, usage_source, cost_nanos)
                  select id, 99, 4, 2, 'one', 'm', now(), now(), 1, false, 'timeout', 'unknown', 0 from sluice.job
                   where id not in (select job_id from sluice.result)",
        )
        .await;
    assert_eq!(queue.store.queue_unqueued().await.unwrap().jobs, 2);
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().jobs, 3);
    assert_eq!(queue.count("select count(*) from sluice.ready where attempts = 4 and round = 2").await, 2);
    assert_eq!(ids.len(), 3);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn what_the_trigger_would_have_refused_is_left_and_can_be_cancelled() {
    let queue = Queue::new().await;
    queue.count("select sluice.enqueue('{}', idempotency_key => 'taken')").await;
    let lost = insert_with_triggers_off(
        &queue,
        "('b', 0::smallint, null::timestamptz, 'taken', null::smallint), ('b', (-32768)::smallint, null, null, null),
         ('b', 2000, null, 'free', null), ('b', 0, null, 'twice', null), ('b', 0, null, 'twice', null),
         ('b', 0, null, null, 0)",
    )
    .await;
    let done = queue.store.queue_unqueued().await.unwrap();
    assert_eq!((done.jobs, done.left), (1, vec![lost[0], lost[1], lost[2], lost[4], lost[5]]));
    assert_eq!(queue.places(lost[3]).await, "r");
    for job in [lost[0], lost[1], lost[2], lost[4], lost[5]] {
        assert_eq!(queue.store.job(JobId(job)).await.unwrap().unwrap().place, Place::Nowhere);
        assert_eq!(queue.store.cancel_job(JobId(job)).await.unwrap(), Changed::Yes);
        assert_eq!(queue.store.cancel_job(JobId(job)).await.unwrap(), Changed::No);
    }
    assert_eq!(queue.store.unqueued(PATIENCE).await.unwrap().jobs, 0);
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.jobs, batch.cancelled), (6, 5));
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn commands_and_views_say_the_truth_about_them() {
    let queue = Queue::new().await;
    let lost = insert_with_triggers_off(&queue, PLAIN).await[0];
    let waits: String =
        sqlx::query_scalar("select state || ': ' || waits_for from sluice.jobs").fetch_one(&queue.pool).await.unwrap();
    assert_eq!(waits, "queued: no queue");
    let program = Program::new("", &queue.database.url());
    let id = lost.to_string();
    for arguments in [["explain", &id], ["job show", &id]] {
        let arguments: Vec<&str> = arguments.iter().flat_map(|words| words.split(' ')).collect();
        let said = program.output(&arguments).await;
        assert!(said.contains("in no queue") && said.contains("sluice doctor --repair"), "{said}");
    }
    let shown: Value = serde_json::from_str(&program.output(&["job", "show", &id, "--format", "json"]).await).unwrap();
    assert_eq!(shown["place"], serde_json::json!({ "where": "nowhere", "waits_for": "no queue" }));
    let paused = program.run(&["job", "pause", &id]).await;
    assert!(text(&paused.stderr).contains("in no queue"), "{}", text(&paused.stderr));
    assert_eq!(
        program.output(&["job", "cancel", &id, "--format", "csv"]).await,
        format!("job,outcome\n{id},cancelled\n")
    );
    assert_eq!(queue.places(lost).await, "e");
    insert_with_triggers_off(&queue, &PLAIN.replace("null::text, 0", "'b', 0")).await;
    assert_eq!(queue.count("select sluice.cancel('b')").await, 1);
    assert_eq!(queue.store.unqueued(PATIENCE).await.unwrap().jobs, 0);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn two_repairs_and_workers_at_once_put_each_job_into_the_queue_once() {
    let queue = Queue::new().await;
    let values = vec![PLAIN; 500].join(", ");
    insert_with_triggers_off(&queue, &values).await;
    queue.enqueue(NewJob::default(), 100).await;
    let worker = queue.worker().await;
    let work = async {
        let mut done = 0;
        while done < 600 {
            for claimed in queue.claim_all(worker).await {
                queue.succeed(&claimed).await;
                done += 1;
            }
        }
    };
    let (one, two, three, ()) =
        tokio::join!(queue.store.queue_unqueued(), queue.store.queue_unqueued(), queue.store.queue_unqueued(), work);
    assert_eq!(one.unwrap().jobs + two.unwrap().jobs + three.unwrap().jobs, 500);
    books_are_in_order(&queue).await;
}

#[tokio::test]
async fn a_command_that_ends_all_jobs_of_a_batch_or_a_route_reaches_them() {
    let queue = Queue::new().await;
    let config = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  [models.\"one/m\"]\nprice = { input = \"1\", output = \"1\" }\n[routes.default]\n\
                  rungs = [\"one/m\"]\n";
    let program = Program::new(config, &queue.database.url());
    let none = program.run(&["batch", "cancel", "b"]).await;
    assert!(text(&none.stderr).contains("there is no batch \"b\""), "{}", text(&none.stderr));
    // A batch of which the sums know nothing: none of its jobs has come by the trigger.
    let lost = insert_with_triggers_off(&queue, &vec![PLAIN.replace("null::text, 0", "'b', 0"); 3].join(", ")).await;
    for arguments in [["batch", "show", "b"], ["watch", "b", "-q"], ["batch", "pause", "b"], ["batch", "retry", "b"]] {
        let said = text(&program.run(&arguments).await.stderr);
        assert!(said.contains("3 jobs") && said.contains("in no queue"), "{arguments:?}: {said}");
        assert!(said.contains("sluice doctor --repair"), "{arguments:?}: {said}");
    }
    assert_eq!(program.output(&["batch", "cancel", "b"]).await, "batch b: 3 jobs cancelled\n");
    assert!(program.output(&["batch", "show", "b", "--format", "json"]).await.contains("\"cancelled\": 3"));
    // Beside one that waits, one that is scheduled and one of another route.
    queue.enqueue_one().await;
    queue.run("insert into sluice.job (run_at, request) values (now() + interval '1 day', '{}')").await;
    let more = insert_with_triggers_off(&queue, &[PLAIN; 2].join(", ")).await;
    queue.run_with("update sluice.job set route = 'other' where id = $1", more[1]).await;
    let said = program.output(&["route", "cancel", "default", "--yes"]).await;
    assert_eq!(said, "route default: 3 jobs cancelled\n");
    assert_eq!((queue.places(more[0]).await.as_str(), queue.places(more[1]).await.as_str()), ("e", ""));
    assert_eq!(queue.places(lost[0]).await, "e");
    // A route that is not configured any more is known by its jobs.
    assert_eq!(program.output(&["route", "cancel", "other", "-y"]).await, "route other: 1 job cancelled\n");
    assert_eq!(queue.store.unqueued(PATIENCE).await.unwrap().jobs, 0);
    books_are_in_order(&queue).await;
}
