//! The log lines of a worker: daily files, and a standard error that is gone.

use crate::support::fleet::Fleet;
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Output;
use tokio::net::TcpStream;

const SCENARIO: &str =
    "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";
const CONFIG: &str = "[worker]\nmax_in_flight = 8\n[providers.one]\ndialect = \"openai\"\n\
                      base_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 100 }\n[models.\"one/model\"]\n\
                      price = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_with_log_files_has_nothing_to_complain_of_and_a_restart_keeps_todays() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("not/there/yet");
    fleet.configure(&format!("{CONFIG}[log]\nkeep = 1\ndir = \"{}\"\n", logs.display()));
    for start in 1..=2 {
        let worker = fleet.start();
        fleet.until_live(1).await;
        worker.signal(Signal::TERM);
        let (code, said) = worker.ended().await;
        assert_eq!(code, Some(0), "{said}");
        // Every line is one of the log's own.
        assert!(said.lines().all(|line| line.contains("INFO")), "{said}");
        let files: Vec<_> = std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().path()).collect();
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(text.lines().filter(|line| line.contains("worker is done")).count(), start, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_standard_error_is_gone_goes_on() {
    const JOBS: i64 = 20;
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let mut worker = fleet.command().spawn().unwrap();
    // The process that read it has died.
    drop(worker.stderr.take());
    let pid = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    fleet.until_live(1).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    kill_process(pid, Signal::TERM).unwrap();
    let output = ended(worker).await;
    assert_eq!(output.status.code(), Some(0));
}

/// Runs a command whose standard error has no reader from the beginning.
async fn without_standard_error(mut command: tokio::process::Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    ended(command.stderr(writer).spawn().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_whose_standard_error_is_gone_serves_and_gives_its_verdict() {
    let program = Program::new("", "postgres://127.0.0.1:1/none");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = program.command(&["simulate", "--listen", &free]);
    let child = command.stderr(writer).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    until("it serves", async || TcpStream::connect(&free).await.is_ok()).await;
    kill_process(pid, Signal::TERM).unwrap();
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(0));
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["clean"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_whose_standard_error_is_gone_do_what_they_are_to_do() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    let jobs = fleet.file(
        "jobs.jsonl",
        "{\"custom_id\": \"a\", \"body\": {\"prompt\": \"one\"}}\n\
         {\"custom_id\": \"b\", \"body\": {\"prompt\": \"two\"}}\n",
    );
    let (jobs, out) = (jobs.to_str().unwrap().to_owned(), fleet.file("out.jsonl", "").display().to_string());
    for (arguments, says) in [
        (vec!["enqueue", &jobs, "--batch", "b"], "b"),
        (vec!["watch", "b"], "2 succeeded"),
        (vec!["results", "b"], "custom_id"),
        (vec!["estimate", &jobs, "--route", "default"], "one/model"),
        (vec!["check"], ""),
        (vec!["run", &jobs, "-o", &out, "--force"], ""),
    ] {
        let output = without_standard_error(fleet.program(&arguments)).await;
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_standard_error_is_gone_plays_to_the_end() {
    let program = Program::new("", "postgres://127.0.0.1:1/none");
    let output = without_standard_error(program.command(&["demo"])).await;
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("The books are in order"), "{said}");
}
