//! `sluice run`: a message that cannot be written never stops its work, and it enqueues only jobs that it can work on.

use crate::same_again::Desk;
use crate::support::program::{ended, json_lines, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;

/// Where nothing can be written: a pipe that no process reads, and a full disk.
fn dead_ends() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    [writer.into(), full.into()]
}

fn prompts(count: usize) -> String {
    "{\"prompt\":\"a\"}\n".repeat(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_that_cannot_be_written_costs_no_answer() {
    let desk = Desk::new("20ms").await;
    desk.program.file("q.jsonl", prompts(30));
    for format in ["plain", "json"] {
        for (number, (stdout, stderr)) in dead_ends().into_iter().zip(dead_ends()).enumerate() {
            let batch = format!("{format}-{number}");
            let arguments = ["run", "q.jsonl", "--batch", &batch, "-o", &batch, "--format", format];
            let child = desk.program.command(&arguments).stdout(stdout).stderr(stderr).spawn().unwrap();
            assert_eq!(ended(child).await.status.code(), Some(0), "{batch}");
            assert_eq!(json_lines(&desk.program.path(&batch)).len(), 30, "{batch}");
        }
    }
    // With a file for the answers nothing goes to standard output.
    let run = desk.program.run(&["run", "q.jsonl", "--batch", "b", "-o", "b"]).await;
    assert_eq!((run.status.code(), text(&run.stdout).as_str()), (Some(0), ""));
    assert!(text(&run.stderr).contains("b: done, 30 succeeded"), "{}", text(&run.stderr));
    let quiet = desk.program.run(&["run", "q.jsonl", "--batch", "c", "-o", "c", "--quiet"]).await;
    assert_eq!((text(&quiet.stdout).as_str(), text(&quiet.stderr).as_str()), ("", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_its_terminal() {
    let desk = Desk::new("100ms").await;
    desk.program.file("q.jsonl", prompts(40));
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = desk.program.command(&["run", "q.jsonl", "--batch", "b", "-o", "out.jsonl"]);
    let child = command.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    // It holds the writing end too.
    drop(command);
    until("some calls were made", async || desk.calls() >= 4).await;
    drop(reader);
    kill_process(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap(), Signal::HUP).unwrap();
    assert_eq!(ended(child).await.status.code(), Some(0));
    assert_eq!(json_lines(&desk.program.path("out.jsonl")).len(), 40);
    assert_eq!(desk.calls(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_could_not_work_enqueues_nothing() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", prompts(2));
    let run = ["run", "q.jsonl", "--batch", "b", "-o", "out.jsonl"];
    let spool = desk.program.file("spool", "no folder");
    let said = desk.refused(&run, 1).await;
    assert!(said.contains("the spool") && said.contains("cannot be used"), "{said}");
    std::fs::remove_file(spool).unwrap();
    for arguments in [
        &["run", "q.jsonl", "-o", "q.jsonl", "--force"][..],
        &["run", "q.jsonl", "-o", "out.jsonl", "--errors", "./q.jsonl", "--force"],
    ] {
        let said = desk.refused(arguments, 2).await;
        assert!(said.contains("is the file that is read"), "{said}");
    }
    assert_eq!((desk.jobs().await, desk.calls()), (0, 0));
    assert_eq!(json_lines(&desk.program.path("q.jsonl")).len(), 2);
    assert_eq!(desk.program.run(&run).await.status.code(), Some(0));
    let workers =
        sqlx::query_as::<_, (i64, i64)>("select count(*), count(*) filter (where state = 'live') from sluice.worker");
    assert_eq!(workers.fetch_one(&desk.pool).await.unwrap(), (1, 0), "the one that worked, and it has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_was_is_not_resumed() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", "{\"custom_id\": \"a\", \"prompt\": \"b\"}\n");
    desk.program.output(&["enqueue", "q.jsonl", "--batch", "nightly"]).await;
    for arguments in [
        &["run", "q.jsonl", "--batch", "nightyl", "--resume", "-o", "out.jsonl"][..],
        &["enqueue", "q.jsonl", "--batch", "nightyl", "--resume"],
        &["enqueue", "q.jsonl", "--batch", "nightyl", "--resume", "--idempotent"],
    ] {
        let said = desk.refused(arguments, 6).await;
        let expected =
            "there is no batch \"nightyl\" to go on with (perhaps \"nightly\" is meant); nothing was enqueued";
        assert!(said.contains(expected), "{said}");
    }
    for (batch, word) in [("one", "--append"), ("two", "--idempotent")] {
        let output = desk.program.output(&["enqueue", "q.jsonl", "--batch", batch, word, "--format", "csv"]).await;
        assert!(output.contains(&format!("\n{batch},1,0,0,")), "{output}");
    }
}

#[tokio::test]
async fn help_that_cannot_be_written_in_full_is_a_failure_and_a_reader_that_leaves_is_none() {
    for arguments in [&["--help"][..], &["help", "worker"], &["report", "--help"], &["--version"]] {
        for (stdout, expected) in dead_ends().into_iter().zip([0, 1]) {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
            let child = command.args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
            let output = ended(child).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {said}");
            assert_eq!(said.contains("cannot write the output"), expected == 1, "{arguments:?}: {said}");
        }
    }
}
