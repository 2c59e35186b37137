//! The answers of a batch as tables, beside the author's own rows, and while they come.

use crate::support::postgres::{self, TestDatabase};
use crate::support::program::text;
use crate::support::wait;
use sqlx::AssertSqlSafe;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn command(dir: &Path, database: &TestDatabase, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).current_dir(dir).env("DATABASE_URL", database.url()).env_remove("SLUICE_CONFIG");
    command
}

fn sluice(dir: &Path, database: &TestDatabase, args: &[&str]) -> (i32, String, String) {
    let output = command(dir, database, args).output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn execute(database: &TestDatabase, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&database.pool()).await.unwrap();
}

/// A batch as a table would have made it: two with structured answers, one with prose, one that failed, one that waits.
const TABLE: &str = r#"
    insert into sluice.job (id, batch, custom_id, metadata, request)
         values (201, 'b', 'r1', '{"text":"good","id":"r1","cost":"12"}', '{}'),
                (202, 'b', 'r2', '{"text":"=bad()","id":"r2","cost":"7"}', '{}'),
                (203, 'b', 'r3', '{"text":"prose","id":"r3","cost":"-3"}', '{}'),
                (204, 'b', 'r4', '{"text":"fails","id":"r4","cost":""}', '{}'),
                (205, 'b', 'r5', '{"text":"waits","id":"r5","cost":"1"}', '{}');
    insert into sluice.result (job_id, fence, state, attempts, provider, model, cost_nanos, response)
         select 200 + n, n, 'succeeded', 1, 'openai', 'gpt-4o-mini', 1500,
                jsonb_build_object('choices', jsonb_build_array(jsonb_build_object('message',
                    jsonb_build_object('content', answer))))
           from (values (1, '{"label":"pos","score":0.75,"model":"m1","tags":["a","b"]}'),
                        (2, ' {"score":1,"label":"=neg","ok":true}'), (3, 'just words')) a(n, answer);
    insert into sluice.result (job_id, fence, state, attempts, provider, model, error_class, error, cost_nanos)
         values (204, 4, 'failed', 2, 'openai', 'gpt-4o-mini', 'invalid_request', 'openai: no', 0);
"#;

const HEADER: &str = "cost,id,text,job,custom_id,state,answer,label,score,answer_model,tags,ok,provider,model,attempts,\
                      sluice_cost,repaired,error_class,error,request_id,enqueued_by";

async fn stage() -> (TestDatabase, tempfile::TempDir) {
    let database = postgres::database().await;
    execute(&database, TABLE).await;
    (database, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn a_table_has_her_columns_and_the_fields_of_the_answers() {
    let (database, dir) = stage().await;
    let (status, stdout, stderr) = sluice(dir.path(), &database, &["results", "b", "-o", "out.csv"]);
    assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
    assert_eq!(stderr, "batch b: 3 of 5 jobs have an answer; 1 failed, 1 not finished\n");
    let csv = fs::read_to_string(dir.path().join("out.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(
        rows,
        [
            HEADER,
            "12,r1,good,201,r1,succeeded,\"{\"\"label\"\":\"\"pos\"\",\"\"score\"\":0.75,\"\"model\"\":\"\"m1\"\",\
             \"\"tags\"\":[\"\"a\"\",\"\"b\"\"]}\",pos,0.75,m1,\"[\"\"a\"\",\"\"b\"\"]\",,openai,gpt-4o-mini,1,\
             0.0000015,false,,,,sluice",
            "7,r2,'=bad(),202,r2,succeeded,\" {\"\"score\"\":1,\"\"label\"\":\"\"=neg\"\",\"\"ok\"\":true}\",'=neg,1,\
             ,,true,openai,gpt-4o-mini,1,0.0000015,false,,,,sluice",
            "-3,r3,prose,203,r3,succeeded,just words,,,,,,openai,gpt-4o-mini,1,0.0000015,false,,,,sluice",
            ",r4,fails,204,r4,failed,,,,,,,openai,gpt-4o-mini,2,0.00,false,invalid_request,openai: no,,sluice",
        ]
    );
    // The same on standard output, and as the format of a report.
    for args in [&["results", "b", "--as", "csv"][..], &["results", "b", "--format", "csv"]] {
        assert_eq!(sluice(dir.path(), &database, args).1, csv, "{args:?}");
    }
    let (_, tsv, _) = sluice(dir.path(), &database, &["results", "b", "--as", "tsv", "--no-fields"]);
    assert_eq!(
        tsv.lines().nth(3),
        Some("-3\tr3\tprose\t203\tr3\tsucceeded\tjust words\topenai\tgpt-4o-mini\t1\t0.0000015\tfalse\t\t\t\tsluice")
    );
    let (_, lines, _) = sluice(dir.path(), &database, &["results", "b", "--as", "jsonl", "--fields", "score,none"]);
    let first = r#"{"cost":"12","id":"r1","text":"good","job":201,"custom_id":"r1","state":"succeeded","answer":"{\"label\":\"pos\",\"score\":0.75,\"model\":\"m1\",\"tags\":[\"a\",\"b\"]}","score":0.75,"none":null,"provider":"openai","model":"gpt-4o-mini","attempts":1,"sluice_cost":0.0000015,"repaired":false,"error_class":null,"error":null,"request_id":null,"enqueued_by":"sluice"}"#;
    assert_eq!(lines.lines().next(), Some(first));
    assert_eq!(lines.lines().count(), 4);
}

#[tokio::test]
async fn failures_of_a_table_may_have_a_file_of_their_own() {
    let (database, dir) = stage().await;
    let args = ["results", "b", "-o", "out.csv", "--errors"];
    sluice(dir.path(), &database, &[&args[..], &["err.csv"]].concat());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("out.csv").lines().count(), read("err.csv").lines().count()), (4, 2));
    assert!(read("err.csv").starts_with(HEADER));
    sluice(dir.path(), &database, &[&args[..], &["err.jsonl", "--force"]].concat());
    assert!(read("err.jsonl").starts_with(r#"{"id":"batch_req_204","custom_id":"r4","#), "{}", read("err.jsonl"));
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn a_parquet_file_has_the_same_columns_with_types() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    let (database, dir) = stage().await;
    let (status, _, stderr) = sluice(dir.path(), &database, &["results", "b", "-o", "out.parquet"]);
    assert_eq!(status, 1, "{stderr}");
    let reader = SerializedFileReader::new(fs::File::open(dir.path().join("out.parquet")).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns: Vec<String> =
        schema.columns().iter().map(|column| format!("{} {}", column.name(), column.physical_type())).collect();
    assert_eq!(columns.iter().map(|column| column.split(' ').next().unwrap()).collect::<Vec<_>>().join(","), HEADER);
    for column in ["job INT64", "score DOUBLE", "ok BOOLEAN", "text BYTE_ARRAY", "sluice_cost INT64", "attempts INT64"]
    {
        assert!(columns.contains(&column.to_owned()), "{column}: {columns:?}");
    }
    let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows[1].contains("text: \"=bad()\"") && rows[1].contains("sluice_cost: 0.000001500"), "{}", rows[1]);
    // A pipe takes it too.
    let output = command(dir.path(), &database, &["results", "b", "--as", "parquet"]).output().unwrap();
    assert_eq!((&output.stdout[..4], &output.stdout[output.stdout.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
}

#[tokio::test]
async fn her_rows_come_back_in_her_order_with_their_answers() {
    let (database, dir) = stage().await;
    let rows = "id,text,note\nr4,fails,x\nr1,good,=1+1\nr9,new,\nr5,waits,y\n";
    fs::write(dir.path().join("rows.csv"), rows).unwrap();
    let args = ["results", "b", "--rows", "rows.csv", "--no-fields", "-o"];
    let (status, _, stderr) = sluice(dir.path(), &database, &[&args[..], &["out.csv", "--id-column", "id"]].concat());
    assert_eq!(status, 1);
    assert_eq!(
        stderr,
        "warning: 1 row has no job in batch b: their state is `absent`\n\
         warning: 2 jobs of the batch have no row in rows.csv, and are left out\n\
         batch b: 3 of 5 jobs have an answer; 1 failed, 1 not finished\n"
    );
    let csv = fs::read_to_string(dir.path().join("out.csv")).unwrap();
    let begins: Vec<String> = csv.lines().map(|line| line.split(',').take(6).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(
        begins,
        [
            "id,text,note,job,custom_id,state",
            "r4,fails,x,204,r4,failed",
            "r1,good,=1+1,201,r1,succeeded",
            "r9,new,,,,absent",
            "r5,waits,y,205,r5,unfinished",
        ]
    );
    // Without an id, by the columns that the metadata has.
    let (_, _, stderr) = sluice(dir.path(), &database, &[&args[..], &["again.csv"]].concat());
    assert!(stderr.contains("2 jobs of the batch have no row"), "{stderr}");
    assert_eq!(fs::read_to_string(dir.path().join("again.csv")).unwrap(), csv);
}

#[tokio::test]
async fn her_rows_may_be_of_any_format_that_is_read() {
    let (database, dir) = stage().await;
    let lines = "{\"id\":\"r4\",\"n\":1.50}\n{\"id\":\"r1\",\"note\":null}\n{\"id\":\"r9\"}\n";
    fs::write(dir.path().join("rows.jsonl"), lines).unwrap();
    fs::write(dir.path().join("rows.csv"), "id;n\nr4;1,5\nr1;\nr9;\n").unwrap();
    let begins = |file: &str| {
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        text.lines().map(|line| line.split('\t').take(6).collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
    };
    let rest = ["--id-column", "id", "--no-fields", "-o"];
    for (rows, out, expected) in [
        (
            &["--rows", "rows.jsonl"][..],
            "lines.tsv",
            ["id|n|note|job|custom_id|state", "r4|1.50||204|r4|failed", "r1|||201|r1|succeeded", "r9|||||absent"],
        ),
        (
            &["--rows", "rows.csv", "--delimiter", ";"],
            "cells.tsv",
            ["id|n|job|custom_id|state|answer", "r4|1,5|204|r4|failed|", "r1||201|r1|succeeded|", "r9||||absent|"],
        ),
    ] {
        let args = [&["results", "b"][..], rows, &rest, &[out]].concat();
        let (status, _, stderr) = sluice(dir.path(), &database, &args);
        assert_eq!(status, 1, "{stderr}");
        let begins = begins(out);
        for (line, expected) in begins.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line} {expected}");
        }
        assert_eq!(begins.len(), 4);
    }
    if cfg!(feature = "parquet") {
        // A file written as Parquet is read as such, and joined again.
        let parquet =
            ["results", "b", "--rows", "rows.csv", "--delimiter", ";", "--id-column", "id", "-o", "p.parquet"];
        sluice(dir.path(), &database, &parquet);
        let again = ["results", "b", "--rows", "p.parquet", "--id-column", "id", "--no-fields", "-o", "again.tsv"];
        let (_, _, stderr) = sluice(dir.path(), &database, &again);
        assert!(stderr.contains("1 row has no job in batch b"), "{stderr}");
        let text = fs::read_to_string(dir.path().join("again.tsv")).unwrap();
        assert!(
            text.starts_with("id\tn\tjob\tcustom_id\tstate\tanswer\t") && text.contains("\tsluice_job\t"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn rows_that_have_changed_or_cannot_be_read_get_no_answer_and_are_told() {
    let (database, dir) = stage().await;
    // JSON Lines under any name: as jobs are made of it.
    let rows = "{\"id\":\"r1\",\"text\":\"good\"}\n{\"id\":\"r3\",\"text\":\"not prose\"}\n[]\n\
                {\"id\":\"r2\",\"text\":\"=bad()\"}\n";
    fs::write(dir.path().join("rows.csv"), rows).unwrap();
    // Another run of the same id, at another time: the answer to this row is that of the earlier job.
    execute(
        &database,
        r#"insert into sluice.job (id, batch, custom_id, metadata, request)
                values (206, 'b', 'r1', '{"text":"worse"}', '{}')"#,
    )
    .await;
    let args = ["results", "b", "--rows", "rows.csv", "--id-column", "id", "--no-fields", "-o", "out.csv"];
    let (status, _, stderr) = sluice(dir.path(), &database, &args);
    assert!(
        status == 7 && stderr.contains("rows.csv:3: expected an object") && stderr.contains("--skip-bad"),
        "{stderr}"
    );
    let (status, _, stderr) = sluice(dir.path(), &database, &[&args[..], &["--skip-bad"]].concat());
    assert_eq!(status, 1, "{stderr}");
    for words in [
        "1 row of rows.csv cannot be read, and is left out",
        "1 row of rows.csv has other cells than the row that was enqueued",
        "1 job of the batch stands behind another job of the same custom_id, and is left out",
        "2 jobs of the batch have no row in rows.csv, and are left out",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let csv = fs::read_to_string(dir.path().join("out.csv")).unwrap();
    let begins: Vec<String> = csv.lines().map(|line| line.split(',').take(5).collect::<Vec<_>>().join(",")).collect();
    let expected = ["id,text,job,custom_id,state", "r1,good,201,r1,succeeded", "r3,not prose,,,changed"];
    assert_eq!(
        (&begins[..3], begins[3].as_str(), begins.len()),
        (&expected.map(str::to_owned)[..], "r2,=bad(),202,r2,succeeded", 4)
    );
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn her_columns_have_types_in_parquet_and_keep_every_digit() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    let (database, dir) = stage().await;
    let rows = "{\"id\":\"r1\",\"n\":9007199254740993,\"f\":1,\"b\":true,\"u\":18446744073709551615}\n\
                {\"id\":\"r2\",\"n\":9223372036854775807,\"f\":0.5,\"b\":null,\"u\":1}\n";
    fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let args = ["results", "b", "--rows", "rows.jsonl", "--id-column", "id", "-o", "out.parquet"];
    let (_, _, stderr) = sluice(dir.path(), &database, &args);
    let reader = SerializedFileReader::new(fs::File::open(dir.path().join("out.parquet")).expect(&stderr)).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns: Vec<String> =
        schema.columns().iter().take(5).map(|column| format!("{} {}", column.name(), column.physical_type())).collect();
    assert_eq!(columns, ["id BYTE_ARRAY", "n INT64", "f DOUBLE", "b BOOLEAN", "u BYTE_ARRAY"]);
    let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert!(rows[0].contains("n: 9007199254740993,") && rows[0].contains("u: \"18446744073709551615\""), "{}", rows[0]);
    assert!(rows[1].contains("n: 9223372036854775807,") && rows[1].contains("b: null"), "{}", rows[1]);
}

#[tokio::test]
async fn rows_that_cannot_be_joined_say_why_and_write_nothing() {
    let (database, dir) = stage().await;
    for (name, rows, words) in [
        ("twice.csv", "id,id\n1,2\n", "twice.csv: the columns 1 and 2 are both called `id`"),
        ("short.csv", "id,text\nr1\n", "short.csv:2: expected 2 cells, as the header has, found 1"),
        ("strange.csv", "a,b\n1,2\n", "no column of it is in the metadata of the jobs of batch b"),
        ("empty.csv", "", "empty.csv: is empty: expected a table"),
        ("x.parquet", "PAR1", "x.parquet: is no Parquet file"),
        ("x.jsonl", "{\"id\": \"r1\"}\n[]\n", "x.jsonl:2: expected an object"),
    ] {
        fs::write(dir.path().join(name), rows).unwrap();
        let args = ["results", "b", "--rows", name, "-o", "out.csv"];
        let (status, _, stderr) = sluice(dir.path(), &database, &args);
        assert!((status == 7 || status == 2) && stderr.contains(words), "{name}: {status} {stderr}");
        assert!(!dir.path().join("out.csv").exists(), "{name}");
    }
    fs::write(dir.path().join("bytes.csv"), b"id,text\nr1,\xff\n").unwrap();
    let rows = ["results", "b", "-o", "out.csv", "--rows"];
    for (args, words) in [
        (&["bytes.csv", "--id-column", "id"][..], "bytes.csv:2: text: expected UTF-8"),
        (&["bytes.csv", "--id-column", "nr"], "--id-column: there is no column \"nr\"; there are id, text"),
        (&["none.csv"], "none.csv: No such file"),
        (&["out.csv"], "--rows out.csv"),
    ] {
        let (_, _, stderr) = sluice(dir.path(), &database, &[&rows[..], args].concat());
        assert!(stderr.contains(words) || args == ["out.csv"], "{args:?}: {stderr}");
        assert!(!dir.path().join("out.csv").exists());
    }
}

#[tokio::test]
async fn options_that_do_not_go_together_say_so() {
    let (database, dir) = stage().await;
    for (args, words) in [
        (&["--fields", "a"][..], "--fields is for tables"),
        (&["--rows", "x.csv"], "--rows is for tables"),
        (&["--follow", "-o", "x.parquet"], "a Parquet file is whole or none"),
        (&["--follow", "-o", "x.csv", "--errors", "y.jsonl"], "have the same shape"),
        (&["--delimiter", ";"], "--rows <FILE>"),
        (&["--as", "xml"], "possible values: openai, jsonl, csv, tsv, parquet"),
        (&["--id-column", "a"], "--rows <FILE>"),
        (&["-o", "x.csv", "--errors", "x.csv"], "give each a file of its own"),
    ] {
        let (status, _, stderr) = sluice(dir.path(), &database, &[&["results", "b"], args].concat());
        assert!(status == 2 && stderr.contains(words), "{args:?}: {stderr}");
    }
    for args in [&["--follow"][..], &["--as", "csv"], &["--as", "parquet", "-o", "x"]] {
        let (status, _, stderr) = sluice(dir.path(), &database, &[&["results", "none"], args].concat());
        assert!(status == 6 && stderr.contains("there is no batch"), "{args:?}: {stderr}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    fs::write(dir.path().join("out.csv"), "mine").unwrap();
    let (status, _, stderr) = sluice(dir.path(), &database, &["results", "b", "-o", "out.csv"]);
    assert_eq!((status, stderr.as_str()), (2, "error: out.csv exists already; --force replaces it\n"));
    assert_eq!(fs::read_to_string(dir.path().join("out.csv")).unwrap(), "mine");
}

#[tokio::test]
async fn names_that_answers_make_up_make_no_columns() {
    let (database, dir) = stage().await;
    execute(
        &database,
        "insert into sluice.job (id, batch, request) values (301, 'wild', '{}');
         insert into sluice.result (job_id, fence, state, attempts, response)
              select 301, 1, 'succeeded', 1, jsonb_build_object('choices', jsonb_build_array(
                     jsonb_build_object('message', jsonb_build_object('content', a.answer::text))))
                from (select json_object_agg('f' || n, n) as answer from generate_series(1, 201) n) a",
    )
    .await;
    let (status, _, stderr) = sluice(dir.path(), &database, &["results", "wild", "--as", "csv"]);
    assert_eq!(status, 2);
    assert_eq!(
        stderr,
        "error: the answers have more than 200 different fields, so they make no columns: name those that you want \
         with --fields, or say --no-fields\n"
    );
    let (status, stdout, _) = sluice(dir.path(), &database, &["results", "wild", "--as", "csv", "--fields", "f7"]);
    assert_eq!((status, stdout.lines().nth(1).map(|row| row.contains("\",7,"))), (0, Some(true)), "{stdout}");
}

#[tokio::test]
async fn a_table_of_many_pages_is_in_order_and_whole() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, metadata, request)
              select 'b', n::text, jsonb_build_object('n', n), '{}' from generate_series(1, 2500) n;
         insert into sluice.result (job_id, fence, state, attempts, response)
              select id, 1, 'succeeded', 1, '{\"choices\":[]}' from sluice.job;",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (1..=2500).rev().map(|n: i32| format!("{n}\n")).collect();
    fs::write(dir.path().join("rows.csv"), format!("n\n{}", rows.concat())).unwrap();
    let first_cells = |args: &[&str]| {
        let (status, stdout, stderr) = sluice(dir.path(), &database, args);
        assert_eq!((status, stderr.as_str()), (0, ""));
        let cells = stdout.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap());
        cells.collect::<Vec<i32>>()
    };
    assert_eq!(first_cells(&["results", "b", "--as", "csv"]), (1..=2500).collect::<Vec<_>>());
    let joined = first_cells(&["results", "b", "--as", "csv", "--rows", "rows.csv"]);
    assert_eq!(joined, (1..=2500).rev().collect::<Vec<_>>());
}

/// Ends some of a batch's jobs, with the sums that a worker would have written.
async fn end(database: &TestDatabase, jobs: &str) {
    let sql = format!(
        "with gone as (delete from sluice.ready where job_id in ({jobs}) returning job_id),
              ended as (insert into sluice.result (job_id, fence, state, attempts, response)
                        select job_id, 1, 'succeeded', 1, '{{\"choices\":[]}}' from gone returning job_id)
         insert into sluice.tally (hour, route, project, batch, succeeded, attempts)
         select date_trunc('hour', now()), 'default', 'default', 'b', count(*), count(*) from ended"
    );
    execute(database, &sql).await;
}

fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let of =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["custom_id"].as_str().unwrap().to_owned();
    text.lines().map(of).collect()
}

#[tokio::test]
async fn answers_are_followed_until_the_batch_is_done_and_after_a_stop() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, request) select 'b', n::text, '{}' from generate_series(1, 6) n",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let job = |n: &str| format!("select id from sluice.job where custom_id in ({n})");
    end(&database, &job("'5'")).await;
    let args = ["results", "b", "--follow", "-o", "out.jsonl"];
    let spawn = || command(dir.path(), &database, &args).stderr(Stdio::piped()).spawn().unwrap();
    let child = spawn();
    wait::until("the first answer", async || ids(&out).len() == 1).await;
    end(&database, &job("'2'")).await;
    wait::until("the second answer", async || ids(&out).len() == 2).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let told = text(&output.stderr);
    assert!(told.contains("interrupted: out.jsonl has whole lines, and the same command goes on with it"), "{told}");
    assert_eq!(ids(&out), ["5", "2"]);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o077, 0);

    // A line that a crash has torn is written again, and nothing else is.
    let whole = fs::read_to_string(&out).unwrap();
    fs::write(&out, &whole[..whole.len() - 9]).unwrap();
    end(&database, &job("'1', '3', '4', '6'")).await;
    let (status, _, stderr) = sluice(dir.path(), &database, &args);
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("1 line was there before"), "{stderr}");
    assert_eq!(ids(&out), ["5", "1", "2", "3", "4", "6"]);
    // Done: it adds nothing.
    assert_eq!(sluice(dir.path(), &database, &args).0, 0);
    assert_eq!(ids(&out).len(), 6);
    let (status, stdout, _) = sluice(dir.path(), &database, &["results", "b", "--follow", "--as", "jsonl"]);
    assert_eq!((status, stdout.lines().count()), (0, 6));
    assert!(stdout.starts_with(r#"{"job":"#), "{stdout}");
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_not_followed_into() {
    let (database, dir) = stage().await;
    execute(
        &database,
        "insert into sluice.job (id, batch, request) values (401, 'other', '{}');
         insert into sluice.result (job_id, fence, state, attempts, response)
              values (401, 1, 'succeeded', 1, '{\"choices\":[]}');
         delete from sluice.ready where job_id = 401;
         insert into sluice.tally (hour, route, project, batch, succeeded)
              values (date_trunc('hour', now()), 'default', 'default', 'other', 1)",
    )
    .await;
    let path = dir.path().join("out.jsonl");
    for (content, words) in [
        ("dear diary\n", "out.jsonl, line 1: is no line of this export; nothing was written"),
        ("dear diary", "out.jsonl, line 1: is no line of this export; nothing was written"),
        (
            "{\"id\":\"batch_req_201\",\"response\":{\"status_code\":200},\"sluice\":{\"job\":201}}\n",
            "out.jsonl holds answers of another batch than other; nothing was written",
        ),
    ] {
        fs::write(&path, content).unwrap();
        let (status, _, stderr) = sluice(dir.path(), &database, &["results", "other", "--follow", "-o", "out.jsonl"]);
        assert!(status == 2 && stderr.contains(words), "{stderr}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let args = ["results", "other", "--follow", "-o", "out.jsonl", "--force"];
    assert_eq!(sluice(dir.path(), &database, &args).0, 0);
    assert_eq!(ids(&path), ["job-401"]);
}

#[tokio::test]
async fn a_failed_job_that_is_retried_is_followed_to_its_answer() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, request) values ('b', '1', '{}'), ('b', '2', '{}');
         delete from sluice.ready where job_id = (select id from sluice.job where custom_id = '1');
         insert into sluice.result (job_id, fence, state, attempts, error_class, error)
              select id, 1, 'failed', 1, 'timeout', 'slow' from sluice.job where custom_id = '1';
         insert into sluice.tally (hour, route, project, batch, failed)
              values (date_trunc('hour', now()), 'default', 'default', 'b', 1)",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (out, err) = (dir.path().join("out.jsonl"), dir.path().join("err.jsonl"));
    let args = ["results", "b", "--follow", "-o", "out.jsonl", "--errors", "err.jsonl"];
    let child = command(dir.path(), &database, &args).stderr(Stdio::null()).spawn().unwrap();
    wait::until("the failure", async || ids(&err) == ["1"]).await;
    let (status, ..) = sluice(dir.path(), &database, &["batch", "retry", "b", "--failed"]);
    assert_eq!(status, 0);
    end(&database, "select id from sluice.job").await;
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(ids(&out), ["2", "1"]);
}

#[tokio::test]
async fn what_ends_far_behind_the_others_is_found_too() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, request) select 'b', n::text, '{}' from generate_series(1, 30000) n",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let job = |n: &str| format!("select id from sluice.job where custom_id = '{n}'");
    end(&database, &job("29999")).await;
    let args = ["results", "b", "--follow", "-o", "out.jsonl", "--quiet"];
    let mut child = command(dir.path(), &database, &args).stderr(Stdio::null()).spawn().unwrap();
    wait::until("the job at the end", async || ids(&out) == ["29999"]).await;
    // After a round in which nothing has ended.
    for (n, all) in [("15000", 2), ("3", 3), ("29998", 4)] {
        end(&database, &job(n)).await;
        wait::until("one more job", async || ids(&out).len() == all).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_table_is_followed_row_by_row_and_gone_on_with() {
    let database = postgres::database().await;
    execute(
        &database,
        "insert into sluice.job (batch, custom_id, metadata, request)
              select 'b', n::text, jsonb_build_object('text', E'two\nlines ' || n), '{}' from generate_series(1, 6) n",
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.csv");
    let job = |n: &str| format!("select id from sluice.job where custom_id in ({n})");
    let rows = || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        reader.records().map(|row| row.unwrap()[2].to_owned()).collect::<Vec<_>>()
    };
    let args = ["results", "b", "--follow", "-o", "out.csv"];
    let spawn = || command(dir.path(), &database, &args).stderr(Stdio::piped()).spawn().unwrap();
    end(&database, &job("'5'")).await;
    let child = spawn();
    wait::until("the first answer", async || rows().len() == 1).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    child.wait_with_output().unwrap();
    // A row that was torn in the middle of a cell is removed.
    let torn = fs::read_to_string(&out).unwrap() + "\"two\nli";
    fs::write(&out, torn).unwrap();
    end(&database, &job("'1', '2', '3', '4', '6'")).await;
    let output = spawn().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut ids = rows();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    let table = fs::read_to_string(&out).unwrap();
    assert!(table.starts_with("text,job,custom_id,state,answer,provider,"), "{table}");
    // Another table is not taken for it.
    fs::write(&out, "a,b\n1,2\n").unwrap();
    let (status, _, stderr) = sluice(dir.path(), &database, &args);
    assert!(status == 2 && stderr.contains("line 1: has other columns than this export"), "{stderr}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "a,b\n1,2\n");
    let (_, stdout, _) = sluice(dir.path(), &database, &["results", "b", "--follow", "--as", "tsv"]);
    assert!(stdout.starts_with("text\tjob\t"), "{stdout}");
}
