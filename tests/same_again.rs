//! The same file twice: jobs that the batch has are not bought again, unless the user says so.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use sluice::store::enqueue::{Admission, BulkOptions, NewJob, Opened};
use sluice::store::{Address, Pooler, Purpose, Store};
use sqlx::{AssertSqlSafe, PgPool};
use std::fmt::Write as _;
use std::process::{Command, Stdio};

/// A database, a provider, and the program.
pub struct Desk {
    pub pool: PgPool,
    database: TestDatabase,
    simulator: Simulator,
    pub program: Program,
}

impl Desk {
    pub async fn new(latency: &str) -> Self {
        let database = database().await;
        let scenario = format!(
            "record_calls = 100000\n[providers.one]\ndialect = \"openai\"\nlatency = {{ fixed = \"{latency}\" }}\n\
             models.model.price = {{ input = \"1\", output = \"2\" }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 4\n[http]\nlisten = \"off\"\n\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 4 }}\n\
             [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\n[routes.other]\nrungs = [\"one/model\"]\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), database, simulator, program }
    }

    pub async fn jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&self.pool).await.unwrap()
    }

    pub fn calls(&self) -> u64 {
        self.simulator.verdict().total.calls
    }

    /// Runs a command that is refused before it has written anything, and returns what it said.
    pub async fn refused(&self, arguments: &[&str], status: i32) -> String {
        let before = self.jobs().await;
        let output = self.program.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert_eq!(self.jobs().await, before, "{arguments:?}");
        said
    }
}

/// `named` lines with a custom id, then two equal ones without.
fn lines(named: usize) -> String {
    let mut text = String::new();
    for n in 0..named {
        writeln!(text, "{{\"custom_id\": \"q-{n}\", \"prompt\": \"Question {n}\", \"max_tokens\": 50}}").unwrap();
    }
    text + "{\"prompt\": \"the same\"}\n{\"prompt\": \"the same\"}\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_run_again_buys_nothing_twice_and_another_one_is_refused_resumed_or_added_as_it_is_asked() {
    let desk = Desk::new("1ms").await;
    desk.program.file("b.jsonl", lines(8));
    let first = desk.program.run(&["run", "b.jsonl", "-o", "out.jsonl"]).await;
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert_eq!((desk.jobs().await, desk.calls()), (10, 10));

    // The same file goes on with its batch. Nothing is left, so it only writes the answers.
    for (number, options) in [&[][..], &["--resume"], &["--batch", "b"], &["--limit", "5"]].iter().enumerate() {
        let out = format!("again{number}.jsonl");
        let again = [&["run", "b.jsonl", "-o", &out, "--errors", "failed.jsonl", "--force"][..], options].concat();
        let output = desk.program.run(&again).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let there = if options.contains(&"--limit") { 5 } else { 10 };
        assert!(said.contains(&format!("0 jobs enqueued as batch b, {there} were there before")), "{said}");
        assert_eq!((desk.jobs().await, desk.calls()), (10, 10), "{options:?}");
        assert_eq!(json_lines(&desk.program.path(&out)).len(), 10);
    }
    let output = desk.program.output(&["enqueue", "b.jsonl", "--format", "csv"]).await;
    assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nb,0,10,0,\n");

    // Another file does not, nor does one with another request under a name that is there.
    desk.program.file("q.jsonl", lines(9) + "{\"prompt\": \"new\"}\n");
    desk.program.file("r.jsonl", lines(8).replace("Question 3", "Riddle"));
    for (command, words) in [
        (&["run", "q.jsonl", "--batch", "b", "-o", "never.jsonl"][..], "q.jsonl has 2 lines that it does not have;"),
        (&["enqueue", "q.jsonl", "--batch", "b"], "q.jsonl has 2 lines that it does not have;"),
        (&["enqueue", "r.jsonl", "--batch", "b"], "r.jsonl has another request under the custom_id `q-3`;"),
    ] {
        let said = desk.refused(command, 2).await;
        assert!(said.contains("batch b exists already (10 jobs, of which 10 have ended), and "), "{said}");
        assert!(said.contains(words) && said.contains("nothing was enqueued"), "{said}");
        assert!(said.contains("--resume ") && said.contains("--append "), "{said}");
    }
    assert!(!desk.program.path("never.jsonl").exists());
    assert_eq!((desk.jobs().await, desk.calls()), (10, 10));

    // Three new ones, one of them equal to two that are there; spelt otherwise, others are the same.
    let more = lines(9).replace("\"prompt\": \"the same\"", "\"prompt\" :  \"the s\\u0061me\"")
        + "{\"prompt\":\"the same\"}\n{\"prompt\":\"new\"}\n";
    desk.program.file("q.jsonl", more);
    let output = desk.program.output(&["enqueue", "q.jsonl", "--batch", "b", "--resume", "--format", "csv"]).await;
    assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nb,3,10,0,2\n");

    let output = desk.program.output(&["enqueue", "q.jsonl", "--batch", "b", "--append", "--format", "csv"]).await;
    assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nb,13,0,0,3\n");
    assert_eq!(desk.jobs().await, 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_says_the_command_that_goes_on() {
    let desk = Desk::new("150ms").await;
    desk.program.file("my file.jsonl", lines(38));
    let arguments = ["run", "my file.jsonl", "-o", "out.jsonl", "--errors", "failed.jsonl"];
    let child = desk.program.command(&arguments).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    until("some calls were made", async || desk.calls() >= 6).await;
    kill_process(pid, Signal::INT).unwrap();
    let output = ended(child).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let made = desk.calls();
    assert!(made < 40, "{made}");
    assert!(!desk.program.path("out.jsonl").exists());
    let line = said.lines().find_map(|line| line.strip_prefix("  sluice ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("run 'my file.jsonl' -o out.jsonl") && !line.contains("--resume"), "{line}");

    // Exactly as a shell would take it.
    let words = format!("\"$SLUICE\" {line}");
    let again = desk.program.command(&[]);
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &words]).current_dir(desk.program.path("")).env("SLUICE", env!("CARGO_BIN_EXE_sluice"));
    for (name, value) in again.as_std().get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = ended(shell.spawn().unwrap()).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("stopped"), "nothing is left: {said}");
    assert_eq!((desk.jobs().await, desk.calls()), (40, 40), "no call is made twice");
    assert_eq!(json_lines(&desk.program.path("out.jsonl")).len(), 40);
    assert!(desk.program.path("failed.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_goes_on_after_its_process_was_killed() {
    let desk = Desk::new("150ms").await;
    desk.program.file("q.jsonl", lines(38));
    let arguments = ["run", "q.jsonl", "-o", "out.jsonl", "--errors", "failed.jsonl"];
    let child = desk.program.command(&arguments).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    until("some calls were made", async || desk.calls() >= 6).await;
    kill_process(pid, Signal::KILL).unwrap();
    ended(child).await;

    let output = desk.program.run(&arguments).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("0 jobs enqueued as batch q, 40 were there before"), "{said}");
    assert_eq!(desk.jobs().await, 40);
    // Only calls that were under way are made again: each of them is on the ledger, as given up.
    let booked = "select count(*) filter (where accepted), count(*) filter (where class = 'abandoned'), count(*)
                    from sluice.attempts";
    let (accepted, abandoned, all): (i64, i64, i64) = sqlx::query_as(booked).fetch_one(&desk.pool).await.unwrap();
    assert_eq!((accepted, accepted + abandoned), (40, all));
    assert!(i64::try_from(desk.calls()).unwrap() <= all, "{} calls, {all} on the ledger", desk.calls());
    assert_eq!(json_lines(&desk.program.path("out.jsonl")).len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_inherited_refused_or_said() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", lines(2));
    desk.program.output(&["enqueue", "q.jsonl", "--batch", "b", "--route", "other", "--project", "p"]).await;
    let resume = ["enqueue", "q.jsonl", "--batch", "b", "--resume"];
    for (more, words) in [
        (&["--route", "default"][..], "batch b uses the route other, and a job's route never changes"),
        (&["--project", "default"], "batch b uses the project p"),
    ] {
        let said = desk.refused(&[&resume[..], more].concat(), 2).await;
        assert!(said.contains(words), "{said}");
    }
    // An option that is not given is the batch's own.
    desk.program.file("q.jsonl", lines(3));
    let output = desk.program.run(&[&resume[..], &["--priority", "5", "--deadline", "1h"]].concat()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--priority, --deadline: only for the jobs that are new"));
    let kinds: Vec<String> = sqlx::query_scalar("select distinct route || ' ' || project from sluice.job")
        .fetch_all(&desk.pool)
        .await
        .unwrap();
    assert_eq!(kinds, ["other p"]);
    // The custom ids are the same, the questions are not.
    desk.program.file("q.jsonl", lines(3).replace("Question", "Riddle"));
    let output = desk.program.run(&resume).await;
    let said = text(&output.stderr);
    assert!(said.contains("has another request under the custom_id `q-0`"), "{said}");
    assert_eq!(desk.jobs().await, 5);

    for (arguments, words) in [
        (&["enqueue", "-", "--resume"][..], "--resume needs --batch when standard input is read"),
        (&["enqueue", "/dev/null", "--append"], "--append needs --batch when standard input is read"),
        (&["enqueue", "q.jsonl", "--batch", "b", "--append", "--resume"], "cannot be used with"),
        (&["enqueue", "q.jsonl", "--batch", "b", "--append", "--idempotent"], "cannot be used with"),
    ] {
        let said = desk.refused(arguments, 2).await;
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_leaves_out_what_came_without_it() {
    let desk = Desk::new("1ms").await;
    let whole = lines(5);
    let named: Vec<&str> = whole.lines().take(5).collect();
    desk.program.file("week.jsonl", named.join("\n"));
    desk.program.output(&["enqueue", "week.jsonl", "--batch", "week"]).await;
    for _ in 0..2 {
        let output = desk.program.output(&["enqueue", "week.jsonl", "--idempotent", "--format", "csv"]).await;
        assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nweek,0,5,0,\n");
    }
    assert_eq!(desk.jobs().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_name_that_is_taken_is_not_refused() {
    let desk = Desk::new("1ms").await;
    let file = desk.program.file("q.jsonl", lines(1));
    let mut names = Vec::new();
    for file_argument in ["-", "/dev/stdin", "-"] {
        let mut command = desk.program.command(&["enqueue", file_argument, "--format", "json"]);
        // A pipe, as from a shell: the thing opened by its name is no file.
        let source = Command::new("cat").arg(&file).stdout(Stdio::piped()).spawn().unwrap().stdout.unwrap();
        let output = ended(command.stdin(source).spawn().unwrap()).await;
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        names.push(told["batch"].as_str().unwrap().to_owned());
    }
    names.dedup();
    assert_eq!((names.len(), desk.jobs().await), (3, 9), "{names:?}");
}

fn options(batch: &str) -> BulkOptions {
    BulkOptions {
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: Some(batch.to_owned()),
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    }
}

const ONE: NewJob<'static> =
    NewJob { custom_id: Some("a"), idempotency_key: None, metadata: None, request: "{\"prompt\":\"a\"}" };

/// Of two that begin at once one is first; the other is told so, or waits and then sees what the first has put there.
async fn two_at_once(first: &Store, second: &Store, pool: &PgPool) {
    let open = async |store: &Store, admission| store.enqueue_into(options("b"), admission).await.unwrap();
    let Opened::Open { mut bulk, before: None, .. } = open(first, Admission::New).await else { panic!("it is new") };
    for admission in [Admission::New, Admission::Resume { wait: false }] {
        assert!(matches!(open(second, admission).await, Opened::Busy), "{admission:?}");
    }
    bulk.push(&ONE).await.unwrap();
    let waiting = {
        let second = second.clone();
        tokio::spawn(async move { second.enqueue_into(options("b"), Admission::Resume { wait: true }).await.unwrap() })
    };
    // It is known to wait.
    until("the second one waits", async || {
        let waits: i64 = sqlx::query_scalar(
            "select count(*) from pg_locks l join pg_stat_activity a on a.pid = l.pid
              where not l.granted and a.datname = current_database()",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        waits > 0
    })
    .await;
    assert_eq!(bulk.commit().await.unwrap().jobs, 1);
    let Opened::Open { mut bulk, before: Some(before), .. } = waiting.await.unwrap() else { panic!("it goes on") };
    assert_eq!((before.jobs, before.ended), (1, 0));
    bulk.push(&ONE).await.unwrap();
    bulk.push(&NewJob { custom_id: Some("b"), ..ONE }).await.unwrap();
    let enqueued = bulk.commit().await.unwrap();
    assert_eq!((enqueued.jobs, enqueued.existing), (1, 1));
    assert!(matches!(open(first, Admission::New).await, Opened::Exists(standing) if standing.jobs == 2));
    // Two that add do not wait for each other.
    let Opened::Open { bulk: one, .. } = open(first, Admission::Append).await else { panic!("it adds") };
    assert!(matches!(open(second, Admission::New).await, Opened::Busy));
    let Opened::Open { bulk: two, .. } = open(second, Admission::Append).await else { panic!("it adds, too") };
    one.rollback().await.unwrap();
    two.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_begin_at_once_one_is_first() {
    let database = database().await;
    two_at_once(&database.store().await, &database.store().await, &database.pool()).await;
    // Also where the database's own default would show the second one a picture from before it waited.
    let database = self::database().await;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&database.pool()).await.unwrap();
    let frozen = format!("alter database {name} set default_transaction_isolation = 'repeatable read'");
    sqlx::query(AssertSqlSafe(frozen)).execute(&database.pool()).await.unwrap();
    let store = async || Store::connect(database.connect_options(), 4).await.unwrap();
    two_at_once(&store().await, &store().await, &database.pool()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_it_is_the_same() {
    use crate::support::pooler::{Pooler as Between, REFUSES};
    let database = database().await;
    let Some(pooler) = Between::start(&database.connect_options(), REFUSES).await else { return };
    let options = || pooler.options(database.connect_options());
    let store = async || {
        Store::connect_through(Pooler::Transaction, Purpose::Commands, &Address::of(options()), 4).await.unwrap()
    };
    two_at_once(&store().await, &store().await, &database.pool()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_not_see_all_jobs_of_a_batch_does_not_guess() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", lines(2));
    desk.program.output(&["enqueue", "q.jsonl", "--batch", "b"]).await;
    sqlx::raw_sql("create role again_app login; grant sluice_enqueuer to again_app").execute(&desk.pool).await.unwrap();
    let url = desk.database.url().replace("user=sluice", "user=again_app");
    let app = Program::new("", &url);
    app.file("q.jsonl", lines(2));
    let said = text(&app.run(&["enqueue", "q.jsonl", "--batch", "b", "--resume"]).await.stderr);
    assert!(said.contains("batch b has jobs of other logins"), "{said}");
    assert_eq!(app.run(&["enqueue", "q.jsonl", "--batch", "b"]).await.status.code(), Some(2));
    app.output(&["enqueue", "q.jsonl", "--batch", "own"]).await;
    let output = app.output(&["enqueue", "q.jsonl", "--batch", "own", "--resume", "--format", "csv"]).await;
    assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nown,0,4,0,\n");
    assert_eq!(desk.jobs().await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_retention_has_dropped_jobs_is_not_resumed() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", lines(2));
    desk.program.output(&["enqueue", "q.jsonl", "--batch", "b"]).await;
    sqlx::raw_sql(
        "delete from sluice.ready; delete from sluice.job where custom_id = 'q-0';
         insert into sluice.retired (part, jobs, succeeded, failed, cancelled, attempts, accepted, cost_nanos)
              values (-1, 1, 1, 0, 0, 1, 1, 0)",
    )
    .execute(&desk.pool)
    .await
    .unwrap();
    let said = desk.refused(&["enqueue", "q.jsonl", "--batch", "b", "--resume"], 2).await;
    assert!(said.contains("of the 4 jobs of batch b 1 is no longer kept"), "{said}");
}
