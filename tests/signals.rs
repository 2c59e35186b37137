//! Commands that are interrupted leave in order: a private Postgres stops with its last user.

use crate::support::postgres::{Watchdog, temporary_dir};
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::wait::{until, within_patience};
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Child;

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Reads until a line holds this, and then all the rest in the background, so that the program never waits for us.
async fn until_said(output: impl AsyncRead + Unpin + Send + 'static, words: &str) {
    let mut lines = BufReader::new(output).lines();
    let said = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return;
            }
        }
        panic!("the program ended without saying {words:?}");
    };
    within_patience(words, said).await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

async fn until_stopped(data_dir: &Path) {
    until("the private Postgres has stopped", async || !data_dir.join("data/postmaster.pid").exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_postgres_stops_with_a_command_that_is_interrupted() {
    let dir = temporary_dir();
    let _watchdog = Watchdog::over(&dir);
    let config = format!(
        "[database]\ndata_dir = \"{}\"\n[http]\nlisten = \"off\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"1\" }}\n[routes.default]\n\
         rungs = [\"one/model\"]\n",
        dir.display()
    );
    let program = Program::new(&config, "");
    let command = |arguments: &[&str]| {
        let mut command = program.command(arguments);
        command.env_remove("DATABASE_URL");
        command.spawn().unwrap()
    };
    let first = ended(command(&["worker", "--drain"])).await;
    let said = text(&first.stderr);
    assert!(first.status.success() && said.contains("INFO"), "{said}");
    assert!(!said.contains("already exists"), "a first start has nothing to warn of: {said}");
    program.file("in.jsonl", "{\"prompt\":\"a\"}\n");
    let file = program.path("in.jsonl");
    let enqueued = ended(command(&["enqueue", file.to_str().unwrap(), "--batch", "b"])).await;
    assert!(enqueued.status.success(), "{}", text(&enqueued.stderr));
    until_stopped(&dir).await;

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut watch = command(&["watch", "b"]);
        until_said(watch.stdout.take().unwrap(), "0 of 1 job").await;
        assert!(dir.join("data/postmaster.pid").exists());
        send(&watch, signal);
        let watch = ended(watch).await;
        assert_eq!(watch.status.code(), Some(130), "{signal:?}: {}", text(&watch.stderr));
        until_stopped(&dir).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_its_private_postgres_is_killed() {
    const JOBS: usize = 40;
    let dir = temporary_dir();
    let _watchdog = Watchdog::over(&dir);
    let scenario = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.1, 0.2] }\nmodels.m = {}\n";
    let simulator = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let config = format!(
        "[database]\ndata_dir = \"{}\"\n[worker]\nmax_in_flight = 4\n[http]\nlisten = \"off\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"one/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\n[routes.default]\nrungs = [\"one/m\"]\n",
        dir.display(),
        simulator.base_url("one").unwrap()
    );
    let program = Program::new(&config, "");
    let lines: Vec<String> = (0..JOBS).map(|n| format!("{{\"prompt\":\"question {n}\"}}\n")).collect();
    program.file("in.jsonl", lines.concat());
    let mut run = program.command(&["run", "in.jsonl", "--batch", "b", "-o", "out.jsonl"]);
    let run = run.env_remove("DATABASE_URL").spawn().unwrap();
    until("some calls are made", async || simulator.verdict().total.calls >= 6).await;
    let server = std::fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    let server = Pid::from_raw(server.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(server, Signal::KILL).unwrap();
    let run = ended(run).await;
    let said = text(&run.stderr);
    assert!(run.status.success() && said.contains("was started again"), "{said}");
    assert_eq!(json_lines(&program.path("out.jsonl")).len(), JOBS);
    assert_eq!(simulator.verdict().total.calls, JOBS as u64, "no answer was bought twice: {said}");
    until_stopped(&dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_says_what_it_does_before_it_waits_for_that() {
    let dir = temporary_dir();
    let _watchdog = Watchdog::over(&dir);
    let config = format!(
        "[database]\ndata_dir = \"{}\"\n[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
         base_url = \"http://127.0.0.1:1/v1\"\n[models.\"one/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [routes.default]\nrungs = [\"one/m\"]\n",
        dir.join("data").display()
    );
    let program = Program::new(&config, "");
    // A server whose preparation never ends.
    for name in ["initdb", "postgres"] {
        let script = "#!/bin/sh\ncase \"$*\" in -V | --version) echo \"postgres (PostgreSQL) 17.0\" ;; \
                      *) exec sleep 60 ;; esac\n";
        let path = dir.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    program.file("in.jsonl", "{\"prompt\":\"a\"}\n");
    let mut run = program.command(&["run", "in.jsonl", "--batch", "b", "-o", "out.jsonl"]);
    let mut run = run.env_remove("DATABASE_URL").env("SLUICE_PG_BIN", &dir).spawn().unwrap();
    until_said(run.stderr.take().unwrap(), "starting the private Postgres in ").await;
    assert!(run.try_wait().unwrap().is_none(), "it still waits");
    run.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_no_process_and_no_file() {
    let dir = temporary_dir();
    let _watchdog = Watchdog::over(&dir);
    // The server may run as another user.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = Program::new("", "");
    // A worker that was left behind would hold standard error open, and we would wait for it.
    let mut demo = program.command(&["demo"]).env("TMPDIR", &dir).stderr(Stdio::null()).spawn().unwrap();
    until_said(demo.stdout.take().unwrap(), "$ sluice worker --drain").await;
    let folder = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("postgres/data/postmaster.pid").exists());
    send(&demo, Signal::INT);
    let demo = ended(demo).await;
    assert_eq!(demo.status.code(), Some(130));
    assert!(!folder.exists());
    until("no worker and no server is left", async || processes_of(&folder).is_empty()).await;
}

/// The processes whose command line names this folder.
fn processes_of(folder: &Path) -> Vec<(Pid, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let named = processes.filter_map(|entry| {
        let line = text(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        line.contains(folder.to_str().unwrap()).then_some((pid, line))
    });
    named.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_leaves_no_process_and_no_file() {
    let dir = temporary_dir();
    let _watchdog = Watchdog::over(&dir);
    // The server may run as another user.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = Program::new("", "");
    let start = async || {
        let mut demo = program.command(&["demo"]).env("TMPDIR", &dir).stderr(Stdio::null()).spawn().unwrap();
        until_said(demo.stdout.take().unwrap(), "$ sluice worker --drain").await;
        demo
    };
    let folders = || std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();

    // Its guard tidies up.
    let demo = start().await;
    let folder = folders().remove(0);
    send(&demo, Signal::KILL);
    until("no file is left", async || !folder.exists()).await;
    until("no worker and no server is left", async || processes_of(&folder).is_empty()).await;

    // A later demo does, when the guard was killed first.
    let demo = start().await;
    let folder = folders().remove(0);
    for (pid, line) in processes_of(&folder) {
        if line.contains("--watch-over") {
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
    send(&demo, Signal::KILL);
    drop(ended(demo).await);
    assert!(folder.exists() && !processes_of(&folder).is_empty(), "only the demo and its guard are dead");
    let later = start().await;
    assert!(!folder.exists());
    assert_eq!(processes_of(&folder), []);
    // The folder of a demo that lives is nothing left behind.
    let folder = folders().remove(0);
    send(&later, Signal::INT);
    assert_eq!(ended(later).await.status.code(), Some(130));
    until("no worker and no server is left", async || !folder.exists() && processes_of(&folder).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_while_a_worker_starts_does_not_end_it() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://sluice@{}/sluice?sslmode=disable", silent.local_addr().unwrap());
    let config = "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
                  base_url = \"http://127.0.0.1:1/v1\"\n\
                  [models.\"one/model\"]\nprice = { input = \"1\", output = \"1\" }\n\
                  [routes.default]\nrungs = [\"one/model\"]\n";
    let program = Program::new(config, &url);
    let worker = program.command(&["worker"]).spawn().unwrap();
    // It waits for a word from its database, which has nothing to say.
    let (connection, _) = silent.accept().await.unwrap();
    send(&worker, Signal::HUP);
    drop((connection, silent));
    let output = ended(worker).await;
    assert_eq!(output.status.code(), Some(4), "{}\n{}", output.status, text(&output.stderr));
}
