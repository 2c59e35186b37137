//! `sluice enqueue`, run for real.

use crate::support::postgres::{self, TestDatabase};
use flate2::{Compression, write::GzEncoder};
use sqlx::PgPool;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// How a run of the program ended.
#[derive(Debug)]
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

/// A database and a folder for files.
struct Desk {
    database: TestDatabase,
    dir: TempDir,
}

impl Desk {
    async fn new() -> Self {
        Self { database: postgres::database().await, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn enqueue(&self, args: &[&str]) -> Run {
        self.enqueue_input(args, b"")
    }

    fn enqueue_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut child = self.command(args).spawn().unwrap();
        // It may refuse its arguments without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command
            .arg("enqueue")
            .args(args)
            .current_dir(self.dir.path())
            .env("DATABASE_URL", self.database.url())
            .env_remove("SLUICE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn pool(&self) -> PgPool {
        self.database.pool()
    }

    async fn jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&self.pool()).await.unwrap()
    }
}

fn batch_line(custom_id: &str) -> String {
    format!(
        "{{\"custom_id\":\"{custom_id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":\
         {{\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}},\"metadata\":{{\"of\":\"{custom_id}\"}}}}\n"
    )
}

fn ten_lines_with_a_bad_seventh() -> String {
    let line = |number| match number {
        7 => batch_line("n7").replace("\"user\"", "\"boss\""),
        number => batch_line(&format!("n{number}")),
    };
    (1..=10).map(line).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_file_becomes_a_batch_named_after_it() {
    let desk = Desk::new().await;
    desk.file("week.jsonl", batch_line("a") + "\n{\"prompt\":\"Hi\"}\n");
    let run = desk.enqueue(&["week.jsonl", "--project", "p", "--priority", "-3", "--format", "json"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run:?}");
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&told["jobs"], &told["existing"], &told["faulty"]), (&2.into(), &0.into(), &0.into()));
    let batch = told["batch"].as_str().unwrap();
    assert_eq!(batch, "week");
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', project, priority, custom_id, metadata) from sluice.job where batch = $1 order by id",
    )
    .bind(batch)
    .fetch_all(&desk.pool())
    .await
    .unwrap();
    assert_eq!(rows, [r#"p -3 a {"of": "a"}"#, "p -3"]);
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_is_enqueued() {
    let desk = Desk::new().await;
    desk.file("ten.jsonl", ten_lines_with_a_bad_seventh());
    let run = desk.enqueue(&["ten.jsonl"]);
    assert_eq!((run.status, run.stdout.as_str()), (7, ""), "{run:?}");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "ten.jsonl:7: body.messages[0].role: expected one of system, developer, user, assistant, tool, found \
             `boss`",
            "error: ten.jsonl: 1 of 10 lines are faulty; nothing was enqueued (--skip-bad enqueues the others)",
        ]
    );
    assert_eq!(desk.jobs().await, 0);
}

#[tokio::test]
async fn skip_bad_enqueues_the_others() {
    let desk = Desk::new().await;
    desk.file("ten.jsonl", ten_lines_with_a_bad_seventh());
    let run = desk.enqueue(&["ten.jsonl", "--skip-bad", "--batch", "b"]);
    assert_eq!(
        (run.status, run.stdout.as_str()),
        (0, "batch\tjobs\texisting\tfaulty\tenqueue\nb\t9\t0\t1\t1\n"),
        "{run:?}"
    );
    assert!(run.stderr.starts_with("ten.jsonl:7: body.messages[0].role: "), "{run:?}");
    assert_eq!(desk.jobs().await, 9);
    desk.file("bad.jsonl", "[]\n");
    assert_eq!(desk.enqueue(&["bad.jsonl", "--skip-bad"]).status, 7);
}

#[tokio::test]
async fn of_many_bad_lines_a_hundred_are_reported_in_full() {
    let desk = Desk::new().await;
    desk.file("bad.jsonl", "{}\n".repeat(250));
    let run = desk.enqueue(&["bad.jsonl"]);
    assert_eq!(run.status, 7);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 102);
    assert!(lines[99].starts_with("bad.jsonl:100: request: "), "{}", lines[99]);
    assert_eq!(lines[100], "bad.jsonl: 150 more faulty lines");
}

#[tokio::test]
async fn standard_input_and_gzip_are_read() {
    let desk = Desk::new().await;
    for args in [&["-", "--batch", "b"][..], &["--batch", "c"]] {
        let run = desk.enqueue_input(args, b"{\"prompt\":\"Hi\"}");
        assert_eq!(run.status, 0, "{run:?}");
    }
    let zipped = gzip(&batch_line("a"));
    desk.file("week.jsonl.gz", &zipped);
    assert_eq!(desk.enqueue(&["week.jsonl.gz"]).status, 0);
    assert_eq!(desk.enqueue_input(&["-"], &zipped).status, 0);
    assert_eq!(desk.jobs().await, 4);
    desk.file("cut.gz", zipped.get(..zipped.len() - 4).unwrap());
    let run = desk.enqueue(&["cut.gz", "--skip-bad"]);
    assert_eq!(run.status, 7);
    assert_eq!(
        run.stderr,
        "error: cut.gz:2: cannot be read any further: the gzip file is truncated; nothing was enqueued\n"
    );
    assert_eq!(desk.jobs().await, 4);
}

#[tokio::test]
async fn the_same_file_enqueued_again_idempotently_adds_only_what_is_new() {
    let desk = Desk::new().await;
    desk.file("week.jsonl", batch_line("a") + &batch_line("b"));
    let args = ["week.jsonl", "--idempotent", "--format", "csv"];
    assert_eq!(desk.enqueue(&args).stdout, "batch,jobs,existing,faulty,enqueue\nweek,2,0,0,1\n");
    desk.file("week.jsonl", batch_line("a") + &batch_line("b") + &batch_line("c"));
    assert_eq!(desk.enqueue(&args).stdout, "batch,jobs,existing,faulty,enqueue\nweek,1,2,0,2\n");
    assert_eq!(desk.jobs().await, 3);
    desk.file("week.jsonl", "{\"prompt\":\"no name\"}");
    let run = desk.enqueue(&args);
    assert_eq!(run.status, 7);
    assert!(run.stderr.starts_with("week.jsonl:1: custom_id: is missing"), "{run:?}");
}

#[tokio::test]
async fn a_limit_takes_the_first_jobs_only() {
    let desk = Desk::new().await;
    desk.file("ten.jsonl", ten_lines_with_a_bad_seventh());
    let run = desk.enqueue(&["ten.jsonl", "--limit", "6", "--batch", "b"]);
    assert_eq!(
        (run.status, run.stdout.as_str()),
        (0, "batch\tjobs\texisting\tfaulty\tenqueue\nb\t6\t0\t0\t1\n"),
        "{run:?}"
    );
    assert_eq!(desk.jobs().await, 6);
}

#[tokio::test]
async fn a_limit_ends_the_reading_of_a_pipe_that_stays_open() {
    let desk = Desk::new().await;
    let mut child = desk.command(&["--limit", "1", "--batch", "b"]).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(b"{\"prompt\":\"Hi\"}\n").unwrap();
    assert!(child.wait().unwrap().success());
    drop(pipe);
    assert_eq!(desk.jobs().await, 1);
}

#[tokio::test]
async fn a_dry_run_checks_without_a_database() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ten.jsonl"), ten_lines_with_a_bad_seventh()).unwrap();
    let run = |args: &[&str]| dry_run(dir.path(), args);
    assert_eq!(run(&[]), (7, String::new()));
    assert_eq!(
        run(&["--skip-bad", "--batch", "b"]),
        (0, "batch\tjobs\texisting\tfaulty\tenqueue\nb\t9\t0\t1\t\n".to_owned())
    );
    assert_eq!(
        run(&["--limit", "3", "--batch", "b"]),
        (0, "batch\tjobs\texisting\tfaulty\tenqueue\nb\t3\t0\t0\t\n".to_owned())
    );
}

fn dry_run(dir: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["enqueue", "ten.jsonl", "--dry-run"])
        .args(args)
        .current_dir(dir)
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env_remove("SLUICE_CONFIG")
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn scheduled_jobs_are_parked_until_their_time() {
    let desk = Desk::new().await;
    let run =
        desk.enqueue_input(&["--run-at", "2h", "--deadline", "3h", "--max-attempts", "2"], b"{\"prompt\":\"Hi\"}");
    assert_eq!(run.status, 0, "{run:?}");
    let parked: bool = sqlx::query_scalar(
        "select p.reason = 'scheduled' and p.run_at between now() + interval '1h' and now() + interval '2h'
                and j.deadline - j.run_at = interval '1h' and j.max_attempts = 2
           from sluice.parked p join sluice.job j on j.id = p.job_id",
    )
    .fetch_one(&desk.pool())
    .await
    .unwrap();
    assert!(parked);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anything_is_read() {
    let desk = Desk::new().await;
    desk.file("empty.jsonl", "\n \n");
    desk.file("one.jsonl", batch_line("a"));
    let config = "[providers.p]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
                  [routes.cheap]\nrungs = [\"p/m\"]\n[routes.dear]\nrungs = [\"p/m\"]\n";
    desk.file("routes.toml", config);
    for (args, status, message) in [
        (&["none.jsonl"][..], 7, "error: none.jsonl: No such file"),
        (&["empty.jsonl"], 7, "error: empty.jsonl: there are no jobs in it; nothing was enqueued"),
        (&["one.jsonl", "--deadline", "2001-01-01T00:00:00Z"], 2, "error: --deadline: "),
        (&["one.jsonl", "--run-at", "soon"], 2, "error: invalid value 'soon'"),
        (&["-", "--idempotent"], 2, "error: --idempotent needs --batch"),
        (
            &["one.jsonl", "--config", "routes.toml", "--route", "cheep"],
            6,
            "error: there is no route `cheep` in the configuration; there are: cheap, dear",
        ),
    ] {
        let run = desk.enqueue(args);
        assert_eq!(run.status, status, "{run:?}");
        assert!(run.stderr.starts_with(message), "{run:?}");
    }
    assert_eq!(desk.enqueue(&["one.jsonl", "--config", "routes.toml", "--route", "cheap"]).status, 0);
    assert_eq!(desk.jobs().await, 1);
}
