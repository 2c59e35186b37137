//! The operator's day: a paused provider, a dead key, an unknown model, a slow batch, a forgotten pause. Each time
//! `status`, `watch` or `run`, and `explain` say why nothing moves, word for word, and what they say to do helps.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

struct Desk {
    pool: PgPool,
    program: Program,
    _simulator: Simulator,
    _database: TestDatabase,
}

/// A provider that takes one key, knows one model and answers at once; a second account with a small limit.
async fn desk() -> Desk {
    let database = database().await;
    let scenario = "[providers.main]\ndialect = \"openai\"\nkeys = [\"right\"]\n\
                    models.model.price = { input = \"1\", output = \"2\" }\n";
    let simulator = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let base = simulator.base_url("main").unwrap();
    let provider = |name: &str, file: &str, more: &str| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{base}\"\napi_key_file = \"{file}\"\n{more}\n\
             [models.\"{name}/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n"
        )
    };
    let config = format!(
        "[worker]\nmax_in_flight = 8\n[http]\nlisten = \"off\"\n{}{}\
         [routes.default]\nrungs = [\"main/model\"]\n[routes.misspelt]\nrungs = [\"main/modle\"]\n\
         [routes.slow]\nrungs = [\"small/model\"]\n",
        provider("main", "main.key", ""),
        provider("small", "small.key", "limits = { requests_per_minute = 1 }"),
    );
    let program = Program::new(&config, &database.url());
    program.file("main.key", "right");
    program.file("small.key", "right");
    program.file("one.jsonl", "{\"prompt\": \"a\"}\n");
    program.file("q.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n{\"prompt\": \"c\"}\n");
    Desk { pool: database.pool(), program, _simulator: simulator, _database: database }
}

impl Desk {
    async fn enqueue(&self, batch: &str, route: &str) {
        self.program.output(&["enqueue", "q.jsonl", "--batch", batch, "--route", route]).await;
    }

    /// The last job of a batch that has not ended, if there is one: jobs need not be answered in their order.
    async fn job(&self, batch: &str) -> String {
        let last = "select coalesce(max(id) filter (where state in ('queued', 'running')), max(id))::text
                      from sluice.jobs where batch = $1";
        sqlx::query_scalar(last).bind(batch).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until `batch show` says these words: what workers know is told with their next heartbeat.
    async fn is_told(&self, batch: &str, words: &str) {
        until(words, async || {
            let shown = self.program.output(&["batch", "show", batch, "--format", "json"]).await;
            shown.contains(words)
        })
        .await;
    }

    async fn ends(&self, batch: &str) {
        let left = "select count(*) from sluice.jobs where batch = $1 and state in ('queued', 'running')";
        until("the batch ends", async || {
            sqlx::query_scalar::<_, i64>(left).bind(batch).fetch_one(&self.pool).await.unwrap() == 0
        })
        .await;
    }

    /// What `status`, `watch` and `explain` say of a batch.
    async fn all_said(&self, batch: &str) -> String {
        let status = self.program.output(&["status", "--format", "table"]).await;
        let queue = status.split("\nWorkers").next().unwrap_or_default();
        let paused = status.split_once("\nPaused").map_or_else(String::new, |(_, rest)| format!("\nPaused{rest}"));
        let mut watch = self.program.command(&["watch", batch, "--format", "table"]).spawn().unwrap();
        let line = BufReader::new(watch.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
        let _ = watch.kill().await;
        let job = self.job(batch).await;
        let explained = self.program.output(&["explain", &job]).await;
        let told = |line: &&str| line.starts_with("It is") || line.trim_start().starts_with("do: ");
        let it_is = explained.lines().filter(told).collect::<Vec<_>>().join("\n");
        self.masked(&format!("status\n{queue}{paused}\nwatch\n{line}\n\nexplain\n{it_is}\n")).await
    }

    async fn login(&self) -> String {
        sqlx::query_scalar("select session_user::text").fetch_one(&self.pool).await.unwrap()
    }

    /// The text without the parts that differ from run to run: folder and login, numbers and times, the room that they
    /// take.
    async fn masked(&self, said: &str) -> String {
        let folder = format!("{}/", self.program.path("").display()).replace("//", "/");
        masked(&said.replace(&folder, "FOLDER/"), &self.login().await)
    }

    /// A worker that runs until it is told to stop.
    fn worker(&self) -> Child {
        self.program.command(&["worker"]).spawn().unwrap()
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn masked(said: &str, login: &str) -> String {
    let mut masked = String::new();
    let mut rest = said.chars().peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_digit() {
            masked.push(c);
            continue;
        }
        while rest.next_if(|c| c.is_ascii_digit() || matches!(c, '.' | ',')).is_some() {}
        masked.push('N');
    }
    for (from, to) in [("N:N:N", "CLOCK"), ("N-N-N CLOCK", "DATE"), ("N-N-N N:N", "DATE"), ("Nms", "TIME")] {
        masked = masked.replace(from, to);
    }
    for unit in ["Nd Nh", "Nh Nm", "Nm Ns", "Nd", "Nh", "Nm", "Ns"] {
        masked = masked.replace(unit, "TIME");
    }
    masked = masked.replace(&format!("by {login}"), "by LOGIN");
    // A job rests for a moment before it is ready again.
    masked = masked.replace("N ready: ", "N jobs: ").replace("N waiting: ", "N jobs: ");
    while masked.contains("   ") {
        masked = masked.replace("   ", "  ");
    }
    while masked.contains("──") {
        masked = masked.replace("──", "─");
    }
    let masked = masked.replace("N  N  N  –", "N  N  N  TIME");
    masked.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_told_why_nothing_moves_and_what_helps() {
    let desk = desk().await;

    // Nothing runs yet, and a provider is paused for a reason.
    desk.enqueue("morning", "default").await;
    insta::assert_snapshot!("no_worker", desk.all_said("morning").await);
    desk.program.output(&["provider", "pause", "main", "--reason", "its invoice is in dispute"]).await;
    let worker = desk.worker();
    desk.is_told("morning", "main/model: its provider is paused").await;
    insta::assert_snapshot!("paused_provider", desk.all_said("morning").await);
    desk.program.output(&["provider", "resume", "main"]).await;
    desk.ends("morning").await;

    // A key dies: another one in its file helps, and the worker reads it when it is told to.
    desk.program.file("main.key", "expired");
    signal(&worker, Signal::HUP);
    desk.enqueue("noon", "default").await;
    desk.is_told("noon", "main/model: no key is in service").await;
    insta::assert_snapshot!("dead_key", desk.all_said("noon").await);
    desk.program.file("main.key", "right");
    signal(&worker, Signal::HUP);
    desk.ends("noon").await;

    // A model that does not exist: a run of its own ends at once, and keeps its jobs.
    let run = desk.program.run(&["run", "one.jsonl", "--batch", "model", "--route", "misspelt", "-o", "out"]).await;
    let said = text(&run.stderr);
    let said = said.lines().skip_while(|line| !line.contains("cannot go on")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!("unknown_model_run", desk.masked(&said).await);
    assert_eq!(run.status.code(), Some(10), "{said}");
    // The worker that runs all the time finds out by the first jobs; all wait, and none fails.
    let found_out = "select count(*) from sluice.jobs
                      where batch = 'model' and state <> 'failed' and waits_for like 'main/modle: model%'";
    until("the worker finds out", async || {
        sqlx::query_scalar::<_, i64>(found_out).fetch_one(&desk.pool).await.unwrap() == 1
    })
    .await;
    desk.program.output(&["batch", "cancel", "model"]).await;
    desk.enqueue("afternoon", "misspelt").await;
    desk.is_told("afternoon", "main/modle: the model is unknown").await;
    insta::assert_snapshot!("unknown_model", desk.all_said("afternoon").await);
    desk.program.output(&["batch", "cancel", "afternoon"]).await;

    // A slow batch: a small limit, which passes by itself.
    desk.enqueue("slow", "slow").await;
    desk.is_told("slow", "small/model: its limit is used up (small: requests/min)").await;
    insta::assert_snapshot!("slow_batch", desk.all_said("slow").await);
    desk.program.output(&["batch", "cancel", "slow"]).await;

    // A pause that was forgotten: the doctor names it, too.
    desk.program.output(&["route", "pause", "default", "--reason", "until the meeting"]).await;
    desk.enqueue("evening", "default").await;
    insta::assert_snapshot!("forgotten_pause", desk.all_said("evening").await);
    let doctor = desk.program.run(&["doctor", "--waiting", "0s", "--format", "table"]).await;
    let found = text(&doctor.stdout);
    let found: Vec<&str> = found.lines().skip_while(|line| !line.starts_with("warning: held up")).take(3).collect();
    insta::assert_snapshot!("forgotten_pause_doctor", desk.masked(&found.join("\n")).await);
    desk.program.output(&["route", "resume", "default"]).await;
    desk.ends("evening").await;

    signal(&worker, Signal::TERM);
    let stopped = crate::support::program::ended(worker).await;
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let states = "select count(*) filter (where state = 'succeeded') from sluice.jobs
                   where batch in ('morning', 'noon', 'evening')";
    assert_eq!(sqlx::query_scalar::<_, i64>(states).fetch_one(&desk.pool).await.unwrap(), 9, "three batches of three");
}
