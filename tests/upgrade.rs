//! A schema that moves on while workers of an older version run.

use crate::support::clock;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use sluice::simulate::{Scenario, Simulator};
use sluice::store::{Store, StoreError};
use sqlx::PgPool;

/// A database, a provider whose answers take a second, and a binary.
struct Stage {
    pool: PgPool,
    _simulator: Simulator,
    program: Program,
    _database: TestDatabase,
}

impl Stage {
    async fn new() -> Self {
        let database = database().await;
        let scenario = Scenario::from_toml(
            "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = 1 }\n\
             models.model.price = { input = \"1\", output = \"2\" }\n",
        );
        let simulator = Simulator::start(scenario.unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n[routes.default]\n\
             rungs = [\"one/model\"]\n",
            simulator.base_url("one").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), _simulator: simulator, program, _database: database }
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// A migration of a version that this binary knows nothing of.
    async fn migrate_beyond(&self) {
        self.run(
            "insert into sluice.migration (version, description, success, checksum, execution_time)
                  values (9999, 'of tomorrow', true, '', 0)",
        )
        .await;
    }

    /// … after which older binaries must not work.
    async fn leave_older_binaries_behind(&self) {
        self.migrate_beyond().await;
        self.run("update sluice.schema_support set oldest = 9999").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_that_an_older_binary_can_live_with_is_no_reason_to_refuse() {
    let stage = Stage::new().await;
    stage.migrate_beyond().await;
    stage.run("insert into sluice.job (request) values ('{\"prompt\": \"Hi\"}')").await;
    let worker = stage.program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));
    assert_eq!(stage.count("select count(*) from sluice.result where state = 'succeeded'").await, 1);
    assert!(stage.program.output(&["migrate"]).await.contains("can live with it: nothing to do"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_new_is_refused_with_what_to_do() {
    let stage = Stage::new().await;
    stage.leave_older_binaries_behind().await;
    for arguments in [&["status"][..], &["worker", "--drain"], &["migrate"], &["migrate", "--dry-run"]] {
        let output = stage.program.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {said}");
        assert!(said.contains("version 9999") && said.contains("upgrade sluice on this machine"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_that_has_become_too_old_finishes_its_calls_and_stops_with_a_clear_word() {
    let stage = Stage::new().await;
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    until("it lives", async || stage.count("select count(*) from sluice.worker").await == 1).await;
    stage.leave_older_binaries_behind().await;
    // Until it notices it works; what it has begun then, it ends.
    let feeding = async {
        loop {
            stage.run("insert into sluice.job (request) values ('{\"prompt\": \"Hi\"}')").await;
            clock::pace(std::time::Duration::from_millis(50)).await;
        }
    };
    let output = tokio::select! {
        output = ended(worker) => output,
        () = feeding => unreachable!(),
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("too old for the database's schema"), "{said}");
    assert!(said.contains("draining") && said.contains("upgrade sluice on this machine"), "{said}");
    assert!(stage.count("select count(*) from sluice.result where state = 'succeeded'").await > 0);
    assert_eq!(stage.count("select count(*) from sluice.inflight").await, 0);
    assert_eq!(stage.count("select count(*) from sluice.worker where state <> 'gone'").await, 0);
}

/// Commands of a version before do not find answers as text. So none is written while such a version may be in use.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_written_as_text_once_no_older_worker_is_left_a_day_after_the_migration() {
    const JOB: &str = "insert into sluice.job (request) values ('{\"prompt\": \"Hi\"}')";
    let stage = Stage::new().await;
    let store = Store::from_pool(stage.pool.clone());
    let leaves = async || store.leave_older_behind(store.schema_version().await.unwrap()).await.unwrap();
    let answers = async || {
        let forms = "select 10 * count(response) + count(response_json) from sluice.result";
        assert_eq!(stage.count("select count(*) from sluice.results where answer is null").await, 0);
        stage.count(forms).await
    };
    stage.run("update sluice.schema_support set oldest = 41").await;
    assert!(!leaves().await, "the migration is young");
    stage
        .run("insert into sluice.worker (host, pid, version, lease_until) values ('older', 1, '', now() + '1 hour')")
        .await;
    stage.run("update sluice.migration set installed_on = now() - interval '25 hours'").await;
    assert!(!leaves().await, "an older worker lives");
    stage.run(JOB).await;
    stage.program.output(&["worker", "--drain"]).await;
    assert_eq!(answers().await, 10);
    stage.run("update sluice.worker set state = 'gone' where host = 'older'").await;
    // A worker sees by itself that it is the time.
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    let oldest = async || stage.count("select oldest from sluice.schema_support").await;
    until("older binaries are left behind", async || oldest().await == 42).await;
    assert!(!leaves().await, "it has been done");
    // It may have read the version before it changed that.
    until("an answer is text", async || {
        stage.run(JOB).await;
        answers().await % 10 > 0
    })
    .await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_file_stops_too() {
    let stage = Stage::new().await;
    let file = stage.program.file("in.jsonl", "{\"prompt\":\"Question\"}\n".repeat(20_000));
    let run = stage.program.command(&["run", file.to_str().unwrap(), "-o", "out.jsonl"]).spawn().unwrap();
    until("it works", async || stage.count("select count(*) from sluice.result").await > 0).await;
    stage.leave_older_binaries_behind().await;
    let output = ended(run).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(stage.count("select count(*) from sluice.inflight").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_whose_notes_are_gone_are_not_carried_out_anew_and_it_is_said_what_is_missing() {
    let stage = Stage::new().await;
    for gone in [
        "delete from sluice.migration where version = (select max(version) from sluice.migration)",
        "delete from sluice.migration where version = 2",
        "delete from sluice.migration",
    ] {
        stage.run("create table public.notes as table sluice.migration").await;
        stage.run(gone).await;
        let output = stage.program.run(&["migrate"]).await;
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains("its row in sluice.migration is gone"), "{gone}: {told}");
        stage.run("delete from sluice.migration; insert into sluice.migration table public.notes").await;
        stage.run("drop table public.notes").await;
        stage.program.output(&["migrate"]).await;
    }
}

#[tokio::test]
async fn a_migration_that_would_have_to_wait_long_gives_up_and_changes_nothing() {
    let database = database().await;
    let pool = database.pool();
    sqlx::raw_sql(
        "drop table sluice.schema_support, sluice.retired, sluice.retiring, sluice.retiring_touched;
         drop function sluice.touch_retiring, sluice.begin_partition, sluice.retire;
         delete from sluice.migration where version = 4",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql("create table sluice.schema_support ()").execute(&mut *holder).await.unwrap();
    let store = Store::connect(database.connect_options(), 2).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Locked { version: 4 }), "{error}");
    assert!(error.is_transient() && error.to_string().contains("sluice doctor"), "{error}");
    let noted = "select count(*) from sluice.migration where version = 4";
    assert_eq!(sqlx::query_scalar::<_, i64>(noted).fetch_one(&pool).await.unwrap(), 0);
    holder.rollback().await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(noted).fetch_one(&pool).await.unwrap(), 1);
}
