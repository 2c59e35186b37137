//! Jobs of a batch that are listed, retried and cancelled by what they have in common.

use crate::support::postgres::{self, TestDatabase};
use crate::support::program::text;
use sqlx::AssertSqlSafe;
use std::fs;
use std::path::Path;
use std::process::Command;

fn sluice(dir: &Path, database: &TestDatabase, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(args)
        .current_dir(dir)
        .env("DATABASE_URL", database.url())
        .env_remove("SLUICE_CONFIG")
        .output()
        .unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn execute(database: &TestDatabase, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&database.pool()).await.unwrap();
}

async fn number(database: &TestDatabase, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&database.pool()).await.unwrap()
}

/// 12,000 jobs, of which the last few have ended in different ways.
const BATCH: &str = r"
    insert into sluice.job (batch, custom_id, request) select 'b', n::text, '{}' from generate_series(1, 12000) n;
    delete from sluice.ready where job_id in (select id from sluice.job where custom_id::int > 11994);
    insert into sluice.result (job_id, fence, state, attempts, error_class, error, cost_nanos)
         select id, 1,
                case when custom_id = '12000' then 'cancelled' when class is null then 'succeeded' else 'failed' end,
                2, class, error, 1500
           from sluice.job j join (values ('11995', 'timeout', 'openai: no answer within 60 s'),
                                          ('11996', 'timeout', 'anthropic: no answer within 60 s'),
                                          ('11997', 'auth', 'openai: Bad key'),
                                          ('11998', 'network', 'connection reset'),
                                          ('11999', null, null), ('12000', null, null)) e(name, class, error)
             on e.name = j.custom_id;
    insert into sluice.tally (hour, route, project, batch, succeeded, failed, cancelled)
         values (date_trunc('hour', now()), 'default', 'default', 'b', 1, 4, 1);
";

async fn stage() -> (TestDatabase, tempfile::TempDir) {
    let database = postgres::database().await;
    execute(&database, BATCH).await;
    (database, tempfile::tempdir().unwrap())
}

/// The custom ids of a list.
fn listed(dir: &Path, database: &TestDatabase, args: &[&str]) -> Vec<String> {
    let all = [&["batch", "jobs", "b", "--format", "json"], args].concat();
    let (status, stdout, stderr) = sluice(dir, database, &all);
    assert_eq!(status, 0, "{stderr}");
    let rows: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    rows.as_array().unwrap().iter().map(|row| row["custom_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn jobs_are_listed_by_state_class_and_text_of_the_error() {
    let (database, dir) = stage().await;
    for (args, expected) in [
        (&["--state", "failed"][..], &["11995", "11996", "11997", "11998"][..]),
        (&["--state", "succeeded,cancelled"], &["11999", "12000"]),
        (&["--class", "timeout"], &["11995", "11996"]),
        (&["--class", "auth,network"], &["11997", "11998"]),
        (&["--error", "OPENAI:"], &["11995", "11997"]),
        (&["--error", "openai", "--class", "timeout"], &["11995"]),
        (&["--error", "100%"], &[]),
        (&["--limit", "2"], &["1", "2"]),
        (&["--state", "running"], &[]),
    ] {
        assert_eq!(listed(dir.path(), &database, args), expected, "{args:?}");
    }
    let args = ["batch", "jobs", "b", "--state", "failed", "--limit", "3", "--format", "csv"];
    let (_, stdout, stderr) = sluice(dir.path(), &database, &args);
    assert_eq!(
        stdout,
        "job,custom_id,state,attempts,cost,error_class,error\n\
         11995,11995,failed,2,0.0000015,timeout,openai: no answer within 60 s\n\
         11996,11996,failed,2,0.0000015,timeout,anthropic: no answer within 60 s\n\
         11997,11997,failed,2,0.0000015,auth,openai: Bad key\n"
    );
    assert_eq!(stderr, "there are more: sluice batch jobs b --state failed --limit 3 --after 11997\n");
    assert_eq!(listed(dir.path(), &database, &["--state", "failed", "--after", "11997"]), ["11998"]);
}

#[tokio::test]
async fn a_list_without_jobs_says_why() {
    let (database, dir) = stage().await;
    let (status, stdout, stderr) = sluice(dir.path(), &database, &["batch", "jobs", "b", "--class", "sulking"]);
    assert_eq!(status, 2, "{stdout}{stderr}");
    assert!(stderr.contains("no such error class") && stderr.contains("timeout"), "{stderr}");
    let (status, stdout, stderr) = sluice(dir.path(), &database, &["batch", "jobs", "b", "--class", "rate_limit"]);
    assert_eq!((status, stdout.as_str()), (0, ""));
    assert_eq!(stderr, "no job: batch b has 12000 jobs, 4 failed, 1 cancelled, 11994 unfinished\n");
    let (status, _, stderr) = sluice(dir.path(), &database, &["batch", "jobs", "none"]);
    assert!(status == 6 && stderr.contains("there is no batch \"none\"; recent ones are: b"), "{stderr}");
    let (status, _, stderr) = sluice(dir.path(), &database, &["batch", "jobs", "b", "--state", "done"]);
    assert!(status == 2 && stderr.contains("no such state; there are queued"), "{stderr}");
    execute(&database, "delete from sluice.result; delete from sluice.ready; delete from sluice.job").await;
    let (status, _, stderr) = sluice(dir.path(), &database, &["batch", "jobs", "b"]);
    assert!(status == 6 && stderr.contains("the jobs of batch \"b\" are no longer kept"), "{stderr}");
}

#[tokio::test]
async fn only_the_chosen_jobs_are_retried_and_counted_before() {
    let (database, dir) = stage().await;
    let retry = |args: &[&str]| {
        let (status, stdout, stderr) = sluice(dir.path(), &database, &[&["batch", "retry", "b"], args].concat());
        assert_eq!((status, stderr.as_str()), (0, ""));
        stdout
    };
    let failed = "select count(*) from sluice.result where state = 'failed'";
    assert_eq!(retry(&["--class", "timeout", "--dry-run"]), "batch b: 2 jobs would be queued again\n");
    assert_eq!(number(&database, failed).await, 4);
    assert_eq!(retry(&["--class", "timeout", "--error", "anthropic"]), "batch b: 1 job queued again\n");
    assert_eq!(retry(&["--class", "timeout,auth"]), "batch b: 2 jobs queued again\n");
    assert_eq!(retry(&["--failed"]), "batch b: 1 job queued again\n");
    assert_eq!(number(&database, failed).await, 0);
    assert_eq!(retry(&["--failed"]), "batch b: 0 jobs queued again\n");
    assert_eq!(retry(&[]), "batch b: 1 job queued again\n");
    assert_eq!(number(&database, "select count(*) from sluice.result").await, 1);
    let json = sluice(dir.path(), &database, &["batch", "retry", "b", "--dry-run", "--format", "json"]).1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!({ "batch": "b", "would_be_queued_again": 0 }));
}

fn lines(from: i32, to: i32) -> String {
    let lines: Vec<String> =
        (from..=to).map(|n| format!("{{\"custom_id\":\"q{n}\",\"body\":{{\"prompt\":\"{n}\"}}}}\n")).collect();
    lines.concat()
}

#[tokio::test]
async fn what_one_enqueue_added_is_cancelled_and_nothing_else() {
    let database = postgres::database().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.jsonl"), lines(1, 3)).unwrap();
    fs::write(dir.path().join("b.jsonl"), lines(1, 2500)).unwrap();
    let enqueue = |args: &[&str]| {
        let args = [&["enqueue"], args, &["--batch", "b", "--format", "json"]].concat();
        let (status, stdout, stderr) = sluice(dir.path(), &database, &args);
        assert_eq!(status, 0, "{stderr}");
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["enqueue"].as_i64()
    };
    let first = enqueue(&["a.jsonl"]).unwrap();
    let second = enqueue(&["b.jsonl", "--resume"]).unwrap();
    assert!(second > first);
    assert_eq!(enqueue(&["b.jsonl"]), None, "nothing was added");
    execute(&database, "insert into sluice.job (batch, custom_id, request) values ('b', 'sql', '{}')").await;
    let third = enqueue(&["a.jsonl", "--append", "--priority", "5"]).unwrap();
    // A worker has one of them; others wait for an instant, or were cancelled already.
    execute(
        &database,
        "with taken as (delete from sluice.ready where job_id = (select id from sluice.job where custom_id = 'q7')
                        returning *)
         insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round)
              select job_id, 7, 1, flow, prio, 0, 0, 0 from taken;
         select sluice.pause(id) from sluice.job where custom_id = 'q8';
         select sluice.cancel(id) from sluice.job where custom_id = 'q9'",
    )
    .await;
    let (status, stdout, stderr) =
        sluice(dir.path(), &database, &["batch", "cancel", "b", "--enqueue", &second.to_string()]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("batch b, enqueue {second}: 2495 jobs cancelled; 1 job has begun and goes on\n"));
    let open = "select count(*) from sluice.job j where not exists (select from sluice.result r where r.job_id = j.id)";
    assert_eq!(number(&database, open).await, 3 + 1 + 1 + 3);
    let by_sql = format!("select sluice.cancel_enqueue({third})");
    assert_eq!(number(&database, &by_sql).await, 3);
    assert_eq!(number(&database, &by_sql).await, 0);
    let (_, stdout, _) = sluice(dir.path(), &database, &["batch", "enqueues", "b", "--format", "csv"]);
    let rows: Vec<String> = stdout.lines().map(|row| row.split(',').take(2).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(rows, ["enqueue,jobs".to_owned(), format!("{third},3"), format!("{second},2497"), format!("{first},3")]);

    let other = ["batch", "cancel", "b", "--enqueue", "99999"];
    let (status, _, stderr) = sluice(dir.path(), &database, &other);
    assert_eq!(status, 6);
    let known = format!("{third}, {second}, {first}");
    assert_eq!(
        stderr,
        format!("error: batch \"b\" has no enqueue 99999; the latest that this login may see: {known}\n")
    );
    let (status, _, stderr) = sluice(dir.path(), &database, &["batch", "cancel", "x", "--enqueue", &first.to_string()]);
    assert!(status == 6 && stderr.contains("there is no batch \"x\""), "{stderr}");
}

#[tokio::test]
async fn what_is_dropped_is_no_longer_noted() {
    let database = postgres::database().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.jsonl"), lines(1, 3)).unwrap();
    let enqueue = |batch: &str| sluice(dir.path(), &database, &["enqueue", "a.jsonl", "--batch", batch]).0;
    assert_eq!((enqueue("one"), enqueue("two")), (0, 0));
    execute(&database, "delete from sluice.ready; delete from sluice.job").await;
    assert_eq!(enqueue("three"), 0);
    assert_eq!(number(&database, "select count(*) from sluice.enqueues").await, 1);
}

#[tokio::test]
async fn an_enqueuer_cancels_what_it_enqueued_and_nothing_of_others() {
    let database = postgres::database().await;
    let dir = tempfile::tempdir().unwrap();
    execute(&database, "create role app_chosen login; grant sluice_enqueuer to app_chosen").await;
    fs::write(dir.path().join("a.jsonl"), lines(1, 3)).unwrap();
    assert_eq!(sluice(dir.path(), &database, &["enqueue", "a.jsonl", "--batch", "b"]).0, 0);
    let theirs = number(&database, "select number from sluice.enqueues").await;
    let pool = sqlx::PgPool::connect_with(database.connect_options().username("app_chosen")).await.unwrap();
    let store = sluice::store::Store::from_pool(pool.clone());
    assert!(store.cancel_enqueue(theirs, |_| {}).await.unwrap_err().to_string().contains("there is no enqueue"));
    assert_eq!(store.enqueues("b", 9).await.unwrap(), []);
    let options = sluice::store::enqueue::BulkOptions {
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: Some("b".to_owned()),
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    };
    let mut bulk = store.bulk_enqueue(options).await.unwrap();
    let job = sluice::store::enqueue::NewJob {
        custom_id: None,
        idempotency_key: None,
        metadata: None,
        request: r#"{"prompt":"a"}"#,
    };
    bulk.push(&job).await.unwrap();
    let own = bulk.commit().await.unwrap().number.unwrap();
    assert_eq!(store.enqueues("b", 9).await.unwrap().len(), 1);
    assert_eq!(store.cancel_enqueue(own, |_| {}).await.unwrap().cancelled, 1);
    assert_eq!(number(&database, "select count(*) from sluice.result").await, 1);
    pool.close().await;
    drop(store);
    execute(&database, "drop owned by app_chosen").await;
}

#[tokio::test]
async fn a_retry_of_jobs_after_their_deadline_says_that_they_fail_at_once() {
    let (database, dir) = stage().await;
    execute(&database, "update sluice.job set deadline = now() - interval '1 s' where custom_id in ('11995', '11997')")
        .await;
    let job = |custom_id: &str| format!("select id from sluice.job where custom_id = '{custom_id}'");
    let one = number(&database, &job("11995")).await.to_string();
    let two = number(&database, &job("11996")).await.to_string();
    for (args, told) in [
        (&["job", "retry", two.as_str()][..], None),
        (&["job", "retry", one.as_str()], Some("1 job has a deadline that is over")),
        (&["job", "retry", "--batch", "b", "--class", "auth", "--dry-run"], None),
        (&["batch", "retry", "b", "--dry-run"], Some("1 job has a deadline that is over")),
        (&["job", "retry", "--batch", "b", "--class", "network", "--yes"], None),
        (&["batch", "retry", "b"], Some("1 job has a deadline that is over")),
    ] {
        let (status, _, stderr) = sluice(dir.path(), &database, args);
        assert_eq!((status, stderr.contains("a deadline that is over")), (0, told.is_some()), "{args:?}: {stderr}");
        assert!(told.is_none_or(|told| stderr.contains(told)), "{args:?}: {stderr}");
    }
}
