//! What a worker does with its log lines: daily files, and a standard error that is gone.

use crate::support::fleet::Fleet;
use crate::support::program::ended;
use rustix::process::{Pid, Signal, kill_process};

const SCENARIO: &str =
    "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";
const CONFIG: &str = "[worker]\nmax_in_flight = 8\n[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 100 }\n[models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
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
    // Whoever read it has died.
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
