//! `sluice results` and `sluice estimate`, run for real.

use crate::support::postgres::{self, TestDatabase};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sluice(dir: &Path, database: Option<&TestDatabase>, args: &[&str]) -> (i32, String, String) {
    let url = database.map_or_else(|| "postgres://nobody@127.0.0.1:1/none".to_owned(), TestDatabase::url);
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(args)
        .current_dir(dir)
        .env("DATABASE_URL", url)
        .env_remove("SLUICE_CONFIG")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn execute(database: &TestDatabase, sql: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&database.pool()).await.unwrap();
}

/// One job of each ending, numbered 101 to 106.
const ENDINGS: &str = r#"
    insert into sluice.job (id, batch, custom_id, metadata, request)
         values (101, 'b', 'good', '{"k":1}', '{}'), (102, 'b', null, null, '{}'), (103, 'b', 'refused', null, '{}'),
                (104, 'b', 'empty', null, '{}'), (105, 'b', 'stopped', null, '{}'), (106, 'b', 'waits', null, '{}'),
                (107, 'other', 'else', null, '{}');
    insert into sluice.result (job_id, fence, state, attempts, provider, model, repaired, cost_nanos, request_id,
      response)
         values (101, 1, 'succeeded', 2, 'openai', 'gpt-4o-mini', true, 123000, 'req_1',
                 '{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"Grüße, \"you\""}}]}'),
                (102, 2, 'succeeded', 1, 'local', 'llama', false, null, null, '{"choices":[]}'),
                (107, 7, 'succeeded', 1, 'openai', 'gpt-4o-mini', false, 0, null, '{"choices":[]}');
    insert into sluice.result (job_id, fence, state, attempts, provider, model, error_class, error, cost_nanos)
         values (103, 3, 'failed', 1, 'openai', 'gpt-4o-mini', 'invalid_request', 'openai: bad temperature', 0),
                (104, 4, 'failed', 1, 'openai', 'gpt-4o-mini', 'soft_failure', 'the answer is empty', 5000000);
    insert into sluice.result (job_id, fence, state, attempts, cost_nanos) values (105, 5, 'cancelled', 0, 0);
    insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at, total_ms, accepted,
                                class, http_status, code, message, request_id, usage_source)
         values (103, 3, 1, 0, 'openai', 'gpt-4o-mini', now(), now(), 1, false, 'rate_limit', 429, null, 'slow',
           'req_2', 'unknown'),
                (103, 3, 2, 0, 'openai', 'gpt-4o-mini', now(), now(), 1, false, 'invalid_request', 400, 'bad_value',
                 'bad temperature', 'req_3', 'unknown'),
                (104, 4, 1, 0, 'openai', 'gpt-4o-mini', now(), now(), 1, false, 'soft_failure', 200, null, null,
                  'req_4', 'unknown');
"#;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// An answer lies in one of two columns, and no reader can tell which.
#[tokio::test]
async fn an_answer_is_read_from_either_column() {
    const READ: &str = "select jsonb_agg(to_jsonb(r) - 'request_id' order by r.job_id) from sluice.results r";
    let database = postgres::database().await;
    execute(&database, ENDINGS).await;
    let scratch = tempfile::tempdir().unwrap();
    let told = async || {
        let view: Value = sqlx::query_scalar(READ).fetch_one(&database.pool()).await.unwrap();
        let own: Vec<(i64, Option<Value>)> =
            sqlx::query_as("select job_id, response::jsonb from sluice.own_results('b', 0) order by job_id")
                .fetch_all(&database.pool())
                .await
                .unwrap();
        let of: Vec<(i64, Option<Value>)> =
            sqlx::query_as("select job_id, response::jsonb from sluice.own_results_of('b', '{101,102}')")
                .fetch_all(&database.pool())
                .await
                .unwrap();
        let (_, exported, _) = sluice(scratch.path(), Some(&database), &["results", "b"]);
        let (_, shown, _) = sluice(scratch.path(), Some(&database), &["job", "show", "101", "--format", "json"]);
        (view, own, of, lines(&exported), serde_json::from_str::<Value>(&shown).unwrap())
    };
    let before = told().await;
    assert_eq!(before.0[0]["answer"], "Gr\u{fc}\u{df}e, \"you\"");
    execute(
        &database,
        "update sluice.result set response_json = response::text::json, response = null where response is not null",
    )
    .await;
    assert_eq!(told().await, before);
}

#[tokio::test]
async fn answers_are_openai_batch_output_lines_that_say_who_answered() {
    let database = postgres::database().await;
    execute(&database, ENDINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = sluice(dir.path(), Some(&database), &["results", "b"]);
    assert_eq!(status, 1, "{stderr}");
    assert_eq!(
        stderr,
        "batch b: 2 of 6 jobs have an answer; 2 failed, 1 cancelled, 1 not finished\n  \
         sluice batch jobs b --state failed     lists them, each with its error\n  \
         sluice report failures --batch b       counts them by reason\n  \
         sluice batch jobs b --state cancelled  lists those that were cancelled\n  \
         sluice batch retry b                   puts them back into the queue\n"
    );
    assert_eq!(
        lines(&stdout),
        [
            json!({
                "id": "batch_req_101", "custom_id": "good",
                "response": { "status_code": 200, "request_id": "req_1", "body": {
                    "id": "c1",
                    "choices": [{ "index": 0, "message": { "role": "assistant", "content": "Grüße, \"you\"" } }],
                } },
                "error": null,
                "sluice": { "job": 101, "provider": "openai", "model": "gpt-4o-mini", "attempts": 2,
                    "enqueued_by": "sluice",
                            "cost": "0.000123", "repaired": true, "metadata": { "k": 1 } },
            }),
            json!({
                "id": "batch_req_102", "custom_id": "job-102",
                "response": { "status_code": 200, "request_id": null, "body": { "choices": [] } },
                "error": null,
                "sluice": { "job": 102, "provider": "local", "model": "llama", "attempts": 1, "enqueued_by": "sluice",
                            "cost": null, "repaired": false },
            }),
        ]
    );
    assert!(
        stdout.starts_with(r#"{"id":"batch_req_101","custom_id":"good","response":{"status_code":200,"#),
        "{stdout}"
    );
}

#[tokio::test]
async fn failures_are_error_lines_in_a_file_of_their_own() {
    let database = postgres::database().await;
    execute(&database, ENDINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let args = ["results", "b", "-o", "out.jsonl", "--errors", "err.jsonl"];
    let (_, stdout, stderr) = sluice(dir.path(), Some(&database), &args);
    assert_eq!(stdout, "");
    assert_eq!(stderr, "batch b: 2 of 6 jobs have an answer; 2 failed, 1 cancelled, 1 not finished\n");
    assert_eq!(lines(&read(dir.path().join("out.jsonl"))).len(), 2);
    let served = |job: i64, cost: &str, class: &str| {
        json!({ "job": job, "provider": "openai", "model": "gpt-4o-mini", "attempts": 1, "enqueued_by": "sluice",
            "cost": cost,
                "repaired": false, "class": class })
    };
    assert_eq!(
        lines(&read(dir.path().join("err.jsonl"))),
        [
            json!({
                "id": "batch_req_103", "custom_id": "refused",
                "response": { "status_code": 400, "request_id": "req_3", "body": { "error": {
                    "message": "bad temperature", "type": "invalid_request", "param": null, "code": "bad_value",
                } } },
                "error": null, "sluice": served(103, "0.00", "invalid_request"),
            }),
            json!({
                "id": "batch_req_104", "custom_id": "empty", "response": null,
                "error": { "code": "soft_failure", "message": "the answer is empty" },
                "sluice": served(104, "0.005", "soft_failure"),
            }),
            json!({
                "id": "batch_req_105", "custom_id": "stopped", "response": null,
                "error": { "code": "job_cancelled", "message": "The job was cancelled." },
                "sluice": { "job": 105, "provider": null, "model": null, "attempts": 0, "enqueued_by": "sluice",
                    "cost": "0.00", "repaired": false },
            }),
        ]
    );
    // A second time only by force.
    let (status, _, stderr) = sluice(dir.path(), Some(&database), &args);
    assert_eq!((status, stderr.as_str()), (2, "error: out.jsonl exists already; --force replaces it\n"));
    let (status, ..) = sluice(dir.path(), Some(&database), &[&args[..], &["--force"]].concat());
    assert_eq!(status, 1);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_table_of_all_endings_is_written_as_csv() {
    let database = postgres::database().await;
    execute(&database, ENDINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let (_, stdout, _) = sluice(dir.path(), Some(&database), &["results", "b", "--format", "csv"]);
    let rows: Vec<&str> = stdout.lines().collect();
    assert_eq!(rows.len(), 6, "{stdout}");
    assert_eq!(
        rows[..2],
        [
            "k,job,custom_id,state,answer,provider,model,attempts,cost,repaired,error_class,error,request_id,\
             enqueued_by",
            r#"1,101,good,succeeded,"Grüße, ""you""",openai,gpt-4o-mini,2,0.000123,true,,,req_1,sluice"#,
        ]
    );
    assert_eq!(
        rows[4],
        ",104,empty,failed,,openai,gpt-4o-mini,1,0.005,false,soft_failure,the answer is empty,req_4,sluice"
    );
}

#[tokio::test]
async fn the_exit_status_says_how_a_batch_stands() {
    let database = postgres::database().await;
    execute(&database, ENDINGS).await;
    let dir = tempfile::tempdir().unwrap();
    let status = |batch: &str| sluice(dir.path(), Some(&database), &["results", batch, "-o", "/dev/null"]);
    assert_eq!(status("other"), (0, String::new(), String::new()));
    assert_eq!(
        status("none"),
        (6, String::new(), "error: there is no batch \"none\"; recent ones are: other, b\n".to_owned())
    );
    execute(&database, "delete from sluice.job where id = 106").await;
    assert_eq!(status("b").0, 5);
}

#[tokio::test]
async fn a_batch_of_many_pages_is_exported_once_and_in_order() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, request) select 'b', n::text, '{}' from generate_series(1, 2500) n;
         insert into sluice.result (job_id, fence, state, attempts, response)
              select id, 1, 'succeeded', 1, '{}' from sluice.job;",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = sluice(dir.path(), Some(&database), &["results", "b"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let named: Vec<String> = lines(&stdout).iter().map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named, (1..=2500).map(|n: i32| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_begins_behind_the_last_one() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, request) select 'b', '{}' from generate_series(1, 20000) n;
         insert into sluice.result (job_id, fence, state, attempts, response)
              select id, 1, 'succeeded', 1, '{}' from sluice.job where id % 2 = 0;",
    )
    .await;
    let store = database.store().await;
    let page: Vec<_> = store.export_batch("b", None, 10_000).try_collect().await.unwrap();
    assert_eq!((page.len(), page[0].job, page.iter().filter(|job| job.ending.is_some()).count()), (1_000, 10_001, 500));
}

#[tokio::test]
async fn an_estimate_needs_no_database_and_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[providers.p]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
                  api_key_env = \"NO_SUCH_KEY\"\n\
                  [models.\"p/m\"]\nprice = { input = \"1\", output = \"2\" }\n\
                  [routes.default]\nrungs = [\"p/m\", \"p/unknown\"]\n";
    std::fs::write(dir.path().join("sluice.toml"), config).unwrap();
    std::fs::write(dir.path().join("jobs.jsonl"), "{\"prompt\":\"Hi\",\"max_tokens\":1000}\n".repeat(10)).unwrap();
    let args = ["estimate", "jobs.jsonl", "--config", "sluice.toml"];
    let (status, stdout, stderr) = sluice(dir.path(), None, &[&args[..], &["--format", "json"]].concat());
    assert_eq!((status, stderr.as_str()), (0, ""));
    let rungs: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&rungs[0]["jobs"], &rungs[0]["output_tokens"]), (&10.into(), &10_000.into()));
    assert!(rungs[0]["expected"].as_f64().unwrap() > 0.02);
    assert_eq!(rungs[1]["expected"], Value::Null);
    let (_, stdout, _) = sluice(dir.path(), None, &[&args[..], &["--format", "csv"]].concat());
    let unknown = stdout.lines().nth(2).unwrap();
    assert!(unknown.ends_with(",unknown,,unknown,,\"the price, tokens, retries\""), "{stdout}");
}
