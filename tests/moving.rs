//! The private Postgres is not a box: a shell on it, and its queue moved to another database, where it goes on.

use crate::support::cluster::used_before;
use crate::support::postgres::{TestDatabase, Watchdog, database, temporary_dir};
use crate::support::program::{Program, ended, text};
use serde_json::Value;
use sluice::simulate::{Scenario, Simulator};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use std::path::PathBuf;

/// A program on a private Postgres, and a simulated provider.
struct Stage {
    dir: PathBuf,
    _watchdog: Watchdog,
    _simulator: Simulator,
    program: Program,
}

impl Stage {
    async fn new() -> Self {
        let dir = temporary_dir();
        let watchdog = Watchdog::over(&dir);
        used_before(&dir).await;
        let scenario = Scenario::from_toml("[providers.one]\ndialect = \"openai\"\n").unwrap();
        let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[database]\ndata_dir = \"{}\"\n[http]\nlisten = \"off\"\n[retention]\nfinished = \"1h\"\n[providers.one]\n\
             dialect = \"openai\"\nbase_url = \"{}\"\n[models.\"one/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/m\"]\n",
            dir.display(),
            simulator.base_url("one").unwrap()
        );
        Self { dir, _watchdog: watchdog, _simulator: simulator, program: Program::new(&config, "") }
    }

    /// Exit status, standard output, standard error of a command on the private Postgres, or on another database.
    async fn run(&self, database: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.program.command(arguments);
        command.env_remove("DATABASE_URL");
        if let Some(url) = database {
            command.env("DATABASE_URL", url);
        }
        let output = ended(command.spawn().unwrap()).await;
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    async fn output(&self, database: Option<&str>, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(database, arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {err}");
        out
    }
}

/// An empty database beside the one of a test.
pub async fn empty(database: &TestDatabase, suffix: &str) -> (String, PgPool) {
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&database.pool()).await.unwrap();
    let other = format!("{name}_{suffix}");
    let statement = format!("create database \"{other}\" template template0");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&database.pool()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(database.connect_options().database(&other));
    (database.url().replace(&name, &other), pool)
}

async fn number(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_the_private_postgres_and_where_it_lives() {
    let stage = Stage::new().await;
    let said = stage.output(None, &["psql", "--", "-Atc", "select count(*) from sluice.job"]).await;
    assert_eq!(said, "0\n");
    let (code, _, err) = stage.run(None, &["psql", "--", "-c", "select * from nothing"]).await;
    assert!(code == 1 && err.contains("\"nothing\" does not exist"), "{err}");
    let line = stage.output(None, &["psql", "--print"]).await;
    let dir = stage.dir.display().to_string();
    assert!(line.contains("psql '") && line.contains("user=sluice") && line.contains(&dir), "{line}");
    let status = stage.output(None, &["status", "--format", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&status).unwrap()["private_postgres"], dir);
    let table = stage.output(None, &["status", "--format", "table"]).await;
    assert!(table.contains(&dir) && table.contains("sluice psql"), "{table}");
    let nowhere = Program::new(&format!("[database]\ndata_dir = \"{dir}-not\"\n"), "");
    let mut command = nowhere.command(&["psql", "--print"]);
    let output = ended(command.env_remove("DATABASE_URL").spawn().unwrap()).await;
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(!std::path::Path::new(&format!("{dir}-not")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_printed_or_given_as_an_argument() {
    let database = database().await;
    let program = Program::new("", &database.url().replace("user=sluice", "user=sluice&password=hunter2"));
    let printed = program.run(&["psql", "--print"]).await;
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    assert!(!text(&printed.stdout).contains("hunter2") && text(&printed.stderr).contains("PGPASSWORD"));
    let arguments = "select string_agg(coalesce(application_name, ''), '') from pg_stat_activity";
    assert!(!program.output(&["psql", "--", "-Atc", arguments]).await.contains("hunter2"));
    // The shell of psql shows the arguments of its parent, and its own environment.
    let seen = program.output(&["psql", "--", "-c", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline; echo $PGPASSWORD"]).await;
    let (line, password) = seen.trim_end().rsplit_once('\n').unwrap_or(("", seen.trim_end()));
    assert!(!line.contains("hunter2"), "{seen}");
    assert!(password.ends_with("hunter2"), "{seen}");
    let unreachable =
        Program::new("", "postgresql://u:hunter2@127.0.0.1:1/d").run(&["psql", "--", "-c", "select 1"]).await;
    assert_eq!(unreachable.status.code(), Some(4));
    assert!(!text(&unreachable.stderr).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_moves_from_the_private_postgres_to_another_and_goes_on_there() {
    let (stage, database) = (Stage::new().await, database().await);
    let lines: Vec<String> =
        (0..20).map(|n| format!("{{\"custom_id\": \"a{n}\", \"prompt\": \"Question {n}\"}}\n")).collect();
    stage.program.file("q.jsonl", lines.concat());
    stage.output(None, &["run", "q.jsonl", "--batch", "b", "-o", "before.jsonl"]).await;
    stage.program.file("more.jsonl", "{\"prompt\": \"left over\"}\n");
    stage.output(None, &["enqueue", "more.jsonl", "--batch", "later"]).await;
    stage.output(None, &["enqueue", "more.jsonl", "--batch", "tomorrow", "--run-at", "2099-01-01T00:00:00Z"]).await;
    stage.output(None, &["batch", "pause", "tomorrow"]).await;
    stage.output(None, &["db", "export", "queue.dump"]).await;
    let (code, _, err) = stage.run(None, &["db", "export", "queue.dump"]).await;
    assert!(code == 2 && err.contains("exists already"), "{err}");

    let (url, there) = empty(&database, "moved").await;
    let there_url = Some(url.as_str());
    assert_eq!(stage.output(there_url, &["db", "import", "queue.dump"]).await, "imported 22 jobs\n");
    // The results of the old database are there, and can be read as before.
    stage.output(there_url, &["results", "b", "-o", "after.jsonl"]).await;
    let read = |name: &str| std::fs::read_to_string(stage.program.path(name)).unwrap();
    assert_eq!(read("before.jsonl"), read("after.jsonl"));
    // Numbers go on above, so that none is given twice.
    let highest = number(&there, "select max(id) from sluice.job").await;
    stage.program.file("new.jsonl", "{\"prompt\": \"new\"}\n");
    stage.output(there_url, &["enqueue", "new.jsonl", "--batch", "new"]).await;
    assert!(number(&there, "select max(id) from sluice.job where batch = 'new'").await > highest + 1000);
    // The trigger works, the rights are there, and a worker takes the jobs left over and the new ones.
    stage.output(there_url, &["worker", "--drain"]).await;
    let states: Vec<(String, String, i64)> =
        sqlx::query_as("select batch, state, count(*) from sluice.jobs group by 1, 2 order by 1")
            .fetch_all(&there)
            .await
            .unwrap();
    let expected =
        [("b", "succeeded", 20), ("later", "succeeded", 1), ("new", "succeeded", 1), ("tomorrow", "queued", 1)];
    let told: Vec<(&str, &str, i64)> =
        states.iter().map(|(batch, state, jobs)| (batch.as_str(), state.as_str(), *jobs)).collect();
    assert_eq!(told, expected);
    let known: Value = serde_json::from_str(&stage.run(there_url, &["doctor", "--format", "json"]).await.1).unwrap();
    let of = |check: &str| {
        let findings = known["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap()["severity"].clone()
    };
    for check in ["schema", "trigger", "partitions", "roles", "unqueued_jobs", "indexes"] {
        assert_eq!(of(check), "ok", "{check}: {known}");
    }
    // Retention drops the partition that came with the export.
    let store = sluice::store::Store::from_pool(there.clone());
    sqlx::raw_sql(
        "delete from sluice.parked; delete from sluice.job where batch = 'tomorrow';
         update sluice.job set created_at = created_at - interval '2 days';
         update sluice.result set finished_at = finished_at - interval '2 days'",
    )
    .execute(&there)
    .await
    .unwrap();
    let hour = std::time::Duration::from_hours(1);
    store.begin_partition(hour).await.unwrap();
    sqlx::raw_sql("update sluice.retiring set youngest = youngest - interval '2 days'").execute(&there).await.unwrap();
    crate::support::wait::until("the old partition is gone", async || {
        store.retire(hour).await.unwrap();
        number(&there, "select count(*) from sluice.retired where jobs > 0").await > 0
    })
    .await;
    assert!(number(&there, "select sum(jobs)::bigint from sluice.retired").await >= 20);
    stage.output(there_url, &["enqueue", "new.jsonl", "--batch", "last"]).await;
    stage.output(there_url, &["worker", "--drain"]).await;
    assert_eq!(
        number(&there, "select count(*) from sluice.results where batch = 'last' and state = 'succeeded'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_would_mix_or_break_something_is_refused_and_changes_nothing() {
    let (stage, database) = (Stage::new().await, database().await);
    stage.output(None, &["db", "export", "queue.dump"]).await;
    let refused = async |url: Option<&str>, file: &str| stage.run(url, &["db", "import", file]).await;
    let (url, there) = empty(&database, "refused").await;
    let is_empty = async || number(&there, "select count(*) from pg_namespace where nspname = 'sluice'").await == 0;
    // The database of the test has a schema, and so has the private Postgres.
    let with_schema = database.url();
    for url in [None, Some(with_schema.as_str())] {
        let (code, _, err) = refused(url, "queue.dump").await;
        assert!(code == 2 && err.contains("has a schema sluice already"), "{err}");
    }
    let dump = std::fs::read(stage.program.path("queue.dump")).unwrap();
    stage.program.file("half.dump", &dump[..dump.len() / 2]);
    stage.program.file("other.dump", "{\"prompt\": \"no dump at all\"}\n");
    for (file, code, words) in [
        ("missing.dump", 1, "No such file"),
        ("other.dump", 7, "is no file of `sluice db export`"),
        (".", 2, "is no plain file"),
        ("half.dump", 1, ""),
    ] {
        let (found, out, err) = refused(Some(&url), file).await;
        assert!(found != 0 && err.contains(words), "{file}: {found} {out} {err}");
        assert!(words.is_empty() || found == code, "{file}: {found} {err}");
        assert!(is_empty().await, "{file}");
    }
    // A login that may make nothing there.
    sqlx::raw_sql("create role moving_guest login").execute(&database.pool()).await.unwrap();
    let (code, _, err) = refused(Some(&url.replace("user=sluice", "user=moving_guest")), "queue.dump").await;
    assert!(code == 2 && err.contains("moving_guest may not make a schema") && err.contains("grant create"), "{err}");
    assert!(is_empty().await);
    assert_eq!(stage.output(Some(&url), &["db", "import", "queue.dump"]).await, "imported 0 jobs\n");
}
