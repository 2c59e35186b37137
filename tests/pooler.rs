//! The whole program behind a PgBouncer in transaction mode, with fewer server connections than clients.

use crate::support::clock;
use crate::support::pooler::{Pooler, REFUSES, SWALLOWS};
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::queue::{NewJob, Queue, accepted, in_an_hour, in_batch, park, success};
use crate::support::wait::until;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use sluice::domain::pause::PauseKind;
use sluice::domain::{ErrorClass, JobId};
use sluice::simulate::{Scenario, Simulator};
use sluice::store::enqueue::{BulkOptions, NewJob as BulkJob};
use sluice::store::job::Changed;
use sluice::store::report::{Filter, Grouping};
use sluice::store::settle::Settlement;
use sluice::store::{Address, Pooler as Between, Purpose, Store, StoreError};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Clients' connections that one store of a test opens: more than the pooler has to the server.
const CONNECTIONS: u32 = 4;

async fn through(pooler: &Pooler, database: &TestDatabase) -> Store {
    let store = Store::connect(pooler.options(database.connect_options()), CONNECTIONS).await.unwrap();
    assert!(store.is_pooled());
    store
}

/// A queue whose store goes through the pooler, while its own pool looks at the outcome.
fn queue(store: Store, database: TestDatabase) -> Queue {
    Queue { store, pool: database.pool(), database }
}

async fn drop_schema(database: &TestDatabase) {
    sqlx::raw_sql("drop schema sluice cascade").execute(&database.pool()).await.unwrap();
}

#[tokio::test]
async fn a_pooler_is_noticed_whether_it_refuses_or_swallows_settings() {
    let database = database().await;
    assert!(!Store::connect(database.connect_options(), 1).await.unwrap().is_pooled());
    // The last one would do without all this, and must not suffer from it.
    for settings in [REFUSES, SWALLOWS, "pool_mode = session"] {
        let Some(pooler) = Pooler::start(&database.connect_options(), settings).await else { return };
        through(&pooler, &database).await.require_schema().await.unwrap();
        let options = pooler.options(database.connect_options());
        let told = Store::connect_through(Between::Transaction, Purpose::Commands, &Address::of(options.clone()), 1)
            .await
            .unwrap();
        told.require_schema().await.unwrap();
        // Where a refusal can tell, the wrong setting is named.
        let denied = Store::connect_through(Between::None, Purpose::Commands, &Address::of(options), 1).await;
        if settings == SWALLOWS {
            assert!(!denied.unwrap().is_pooled());
        } else {
            let error = denied.unwrap_err();
            assert!(matches!(error, StoreError::Pooler { .. }), "{error}");
            assert!(error.to_string().contains("database.pooler"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_behind_its_pooler_is_told_as_it_is() {
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), REFUSES).await else { return };
    let options = pooler.options(database.connect_options()).database("no_such_database");
    let error = Store::connect(options, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("no_such_database"), "{error}");
}

#[tokio::test]
async fn timeouts_are_in_force_behind_a_pooler_and_the_same_as_without() {
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), SWALLOWS).await else { return };
    // A statement of the store runs into this one and leaves behind the settings that were in force.
    sqlx::raw_sql(
        "create function note_settings() returns trigger language plpgsql as $$ begin
             new.reason = concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'),
                                    current_setting('idle_in_transaction_session_timeout'), current_setting('jit'),
                                    current_setting('client_min_messages'));
             return new;
         end $$;
         create trigger note_settings before insert on sluice.pause for each row execute function note_settings()",
    )
    .execute(&database.pool())
    .await
    .unwrap();
    let direct = Store::connect(database.connect_options(), 1).await.unwrap();
    assert!(direct.pause(PauseKind::Route, "direct", None).await.unwrap());
    let pooled = through(&pooler, &database).await;
    assert!(pooled.pause(PauseKind::Route, "pooled", None).await.unwrap());
    let noted: BTreeMap<String, String> = sqlx::query_as("select name, reason from sluice.pause")
        .fetch_all(&database.pool())
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(noted["pooled"], "1min 20s 1min off error");
    assert_eq!(noted["direct"], noted["pooled"]);
    // And nothing of it stays with the server's session, which is not ours.
    let left: String = sqlx::raw_sql("show statement_timeout")
        .fetch_one(pooled.pool())
        .await
        .map(|row| sqlx::Row::get(&row, 0))
        .unwrap();
    assert_eq!(left, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_the_store_works_for_many_clients_on_two_server_connections() {
    for settings in [REFUSES, SWALLOWS] {
        let databases = [database().await, database().await];
        let Some(pooler) = Pooler::start(&databases[0].connect_options(), settings).await else { return };
        for database in databases {
            let noise = noise(&pooler, &database).await;
            let store = through(&pooler, &database).await;
            // Kept until the others are done: the database goes with it, and all connections to it.
            let queue = queue(store, database);
            use_everything(&queue).await;
            noise.abort();
            assert!(noise.await.unwrap_err().is_cancelled(), "a statement of the others failed");
        }
        let log = pooler.log();
        assert!(!log.contains("prepared statement"), "{log}");
    }
}

/// Other clients, whose transactions come between any two of ours.
async fn noise(pooler: &Pooler, database: &TestDatabase) -> tokio::task::JoinHandle<()> {
    let stores = [through(pooler, database).await, through(pooler, database).await];
    tokio::spawn(async move {
        loop {
            let reads = stores.iter().map(async |store| {
                let (lanes, workers, pauses, status) =
                    tokio::join!(store.lanes(), store.workers(), store.pauses(), store.status());
                (lanes.unwrap(), workers.unwrap(), pauses.unwrap(), status.unwrap())
            });
            futures_util::future::join_all(reads).await;
        }
    })
}

async fn use_everything(queue: &Queue) {
    let store = &queue.store;
    store.require_schema().await.unwrap();
    let version = store.migrate().await.unwrap();
    assert_eq!(version.found, version.known);

    enqueue_in_bulk(queue).await;
    queue.enqueue(in_batch("b"), 4).await;
    let batched = NewJob { route: "other", ..in_batch("c") };
    let [first, second, ..] = queue.enqueue(batched, 3).await[..] else { panic!("three jobs") };
    assert_eq!(store.cancel_job(JobId(first)).await.unwrap(), Changed::Yes);
    assert_eq!(store.cancel_job(JobId(first)).await.unwrap(), Changed::No);
    assert_eq!(store.cancel_job(JobId(i64::MAX)).await.unwrap(), Changed::NoSuchJob);
    assert_eq!(store.retry_job(JobId(first)).await.unwrap(), Changed::Yes);
    assert_eq!(store.cancel_batch("c", |_| {}).await.unwrap(), 3);
    assert_eq!(store.retry_batch("c", |_| {}).await.unwrap(), 3);
    assert_eq!(store.job(JobId(second)).await.unwrap().unwrap().place.state().as_str(), "queued");
    assert!(store.outstanding(&["other".to_owned()]).await.unwrap());

    assert!(store.pause(PauseKind::Provider, "one", Some("why")).await.unwrap());
    assert!(!store.pause(PauseKind::Provider, "one", None).await.unwrap());
    assert_eq!(store.pauses().await.unwrap().len(), 1);
    assert!(store.resume(PauseKind::Provider, "one").await.unwrap());

    let worker = queue.worker().await;
    let beat = store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    assert!(beat.alive && beat.recalled.is_empty());
    assert_eq!(store.live_workers().await.unwrap(), 1);
    let claimed = queue.claim_all(worker).await;
    assert_eq!(claimed.len(), 7 + 20);
    assert!(queue.fail(&claimed[0], ErrorClass::ServerError).await.is_empty());
    assert!(queue.succeed(&claimed[1]).await.is_empty());
    let parks = vec![park(&claimed[2], Some(in_an_hour())), park(&claimed[3], None)];
    assert!(queue.settle(Settlement { parks, ..Settlement::default() }).await.is_empty());
    let leases: Vec<_> = claimed.iter().map(|claimed| claimed.lease).collect();
    assert!(store.history(&leases).await.unwrap().is_empty());
    assert!(store.next_due().await.unwrap().is_some());
    queue.pass_time().await;
    assert_eq!(store.promote().await.unwrap(), 1);
    queue.silence(worker).await;
    assert_eq!(store.rescue(3).await.unwrap().jobs, 23);
    store.sign_off(worker).await.unwrap();

    assert!(store.fold_tally().await.unwrap().rows > 0);
    assert_eq!(store.ensure_partitions().await.unwrap(), 0);
    store.forget_workers().await.unwrap();

    let ended = claimed[1].lease.job;
    assert_eq!(store.job_attempts(ended).await.unwrap().len(), 1);
    assert_eq!(store.job(ended).await.unwrap().unwrap().place.state().as_str(), "succeeded");
    assert_eq!(store.batches(10).await.unwrap().len(), 3);
    assert_eq!(store.batch("b").await.unwrap().unwrap().jobs, 4);
    let filter = Filter { batch: Some("b".to_owned()), ..Filter::default() };
    assert!(!store.totals(&[Grouping::Provider], &filter).await.unwrap().is_empty());
    store.latencies(&[Grouping::Model], &Filter::default()).await.unwrap();
    assert_eq!(store.status().await.unwrap().workers.len(), 1);
    assert_eq!(store.workers().await.unwrap().len(), 1);
    let exported: Vec<_> = store.export_batch("b", None, 0).try_collect().await.unwrap();
    assert_eq!(exported.len(), 4);

    store.enqueue_demo("demo", 5).await.unwrap();
    assert_eq!(store.progress().await.unwrap().finished, 2);
    assert_eq!(store.job_that_fell_back().await.unwrap(), None);
    assert_eq!(store.audit().await.unwrap().faults(), Vec::<String>::new());
}

fn job(idempotency_key: Option<&str>) -> BulkJob<'_> {
    BulkJob { custom_id: None, idempotency_key, metadata: None, request: "{\"prompt\":\"Hi\"}" }
}

/// By COPY and by function, with a chunk that fails and one that is taken back in between.
async fn enqueue_in_bulk(queue: &Queue) {
    let options = BulkOptions {
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: Some("bulk".to_owned()),
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    };
    let mut taken_back = queue.store.bulk_enqueue(options.clone()).await.unwrap();
    taken_back.push(&job(None)).await.unwrap();
    taken_back.rollback().await.unwrap();
    let mut faulty = queue.store.bulk_enqueue(options.clone()).await.unwrap();
    let broken = BulkJob { request: "{", ..job(None) };
    faulty.push(&broken).await.unwrap();
    faulty.commit().await.unwrap_err();
    let mut bulk = queue.store.bulk_enqueue(options).await.unwrap();
    for number in 0..10 {
        let key = format!("key {number}");
        bulk.push(&job(None)).await.unwrap();
        bulk.push(&job(Some(&key))).await.unwrap();
    }
    bulk.push(&job(Some("key 1"))).await.unwrap();
    let enqueued = bulk.commit().await.unwrap();
    assert_eq!((enqueued.jobs, enqueued.existing), (20, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_dropped_half_way_holds_nothing_up() {
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), REFUSES).await else { return };
    sqlx::raw_sql(
        "insert into sluice.job (batch, request) select 'b', to_jsonb(repeat('x', 1000))
           from generate_series(1, 1000) n;
         insert into sluice.result (job_id, fence, state, attempts, response)
              select id, 1, 'succeeded', 1, to_jsonb(repeat(md5(id::text), 1000)) from sluice.job",
    )
    .execute(&database.pool())
    .await
    .unwrap();
    let store = through(&pooler, &database).await;
    for _ in 0..4 {
        let mut export = std::pin::pin!(store.export_batch("b", None, 0));
        assert!(export.next().await.unwrap().is_ok());
    }
    // With two server connections a third statement would wait if one of the four were still held.
    let all: Vec<_> = store.export_batch("b", None, 0).try_collect().await.unwrap();
    assert_eq!(all.len(), 1000);
    until("no session is left in a transaction", async || {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'",
        )
        .fetch_one(&database.pool())
        .await
        .unwrap();
        left == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_migrate_at_once_one_does_it() {
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), REFUSES).await else { return };
    drop_schema(&database).await;
    let stores =
        [through(&pooler, &database).await, through(&pooler, &database).await, through(&pooler, &database).await];
    assert!(matches!(stores[0].require_schema().await, Err(StoreError::NotMigrated)));
    let migrated = futures_util::future::try_join_all(stores.iter().map(Store::migrate)).await.unwrap();
    assert_eq!(migrated.iter().filter(|version| version.found == 0).count(), 1, "{migrated:?}");
    stores[0].require_schema().await.unwrap();
    let notes: (i64, i64) = sqlx::query_as("select count(*), count(distinct version) from sluice.migration")
        .fetch_one(&database.pool())
        .await
        .unwrap();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!((notes.0, notes.0), (notes.1, i64::try_from(files).unwrap()));
}

#[tokio::test]
async fn a_command_that_waits_too_long_for_another_migration_says_so() {
    let database = database().await;
    let mut transaction = database.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table sluice.migration in exclusive mode").execute(&mut *transaction).await.unwrap();
    // Less patience than usual: the test is about the time after it.
    let options = database.connect_options().options([("lock_timeout", "50ms")]);
    let store = Store::from_pool(PgPoolOptions::new().connect_lazy_with(options));
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Migrating), "{error}");
    transaction.rollback().await.unwrap();
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let database = database().await;
    drop_schema(&database).await;
    // In the way of what the first migration makes.
    sqlx::raw_sql("create schema sluice; create table sluice.worker ()").execute(&database.pool()).await.unwrap();
    let store = Store::connect(database.connect_options(), 2).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Migrate(_)), "{error}");
    let tables: Vec<String> = sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'sluice'")
        .fetch_all(&database.pool())
        .await
        .unwrap();
    assert_eq!(tables, ["worker"]);
}

async fn scalar(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_answer_every_job_of_a_file_once_behind_a_pooler_that_refuses() {
    from_file_to_answers(REFUSES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_answer_every_job_of_a_file_once_behind_a_pooler_that_swallows() {
    from_file_to_answers(SWALLOWS).await;
}

/// The whole life of a batch with the real program, from an empty database on.
async fn from_file_to_answers(settings: &str) {
    const JOBS: i64 = 600;
    let database = database().await;
    let Some(pooler) = Pooler::start(&database.connect_options(), settings).await else { return };
    drop_schema(&database).await;
    let scenario = "markers = true\nrecord_calls = 100000\n[providers.one]\ndialect = \"openai\"\n\
                    latency = { uniform = [0.01, 0.05] }\nfaults = [{ kind = \"server_error\", rate = 0.05 }]\n\
                    models.model.price = { input = \"1\", output = \"2\" }\n";
    let simulator = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let config = format!(
        "[worker]\nmax_in_flight = 20\n[http]\nlisten = \"off\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\n",
        simulator.base_url("one").unwrap()
    );
    let program = Program::new(&config, &pooler.url(&database.connect_options()));
    assert!(program.output(&["migrate"]).await.contains("migrated"));
    assert!(program.output(&["migrate"]).await.contains("nothing to do"));

    let mut lines = String::new();
    for number in 0..JOBS {
        writeln!(lines, "{}", json!({ "custom_id": format!("n{number}"), "prompt": format!("Question {number}") }))
            .unwrap();
    }
    let file = program.file("jobs.jsonl", lines);
    program.output(&["enqueue", file.to_str().unwrap(), "--batch", "file"]).await;
    assert_eq!(scalar(&database.pool(), "select count(*) from sluice.ready").await, JOBS);

    let workers: Vec<_> = (0..3).map(|_| program.command(&["worker", "--drain"]).spawn().unwrap()).collect();
    for output in futures_util::future::join_all(workers.into_iter().map(ended)).await {
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("a pooler is between"), "{said}");
        assert!(!said.contains("ERROR") && !said.contains("prepared statement"), "{said}");
    }

    // As seen from outside, past the pooler.
    let audit = Store::from_pool(database.pool()).audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
    assert_eq!((audit.jobs, audit.succeeded, audit.unfinished), (JOBS, JOBS, 0), "{audit:?}");
    assert_eq!(audit.attempts, i64::try_from(simulator.verdict().total.calls).unwrap());
    assert_eq!(scalar(&database.pool(), "select count(*) from sluice.worker where state = 'gone'").await, 3);

    let out = program.path("out.jsonl");
    program.output(&["results", "file", "-o", out.to_str().unwrap()]).await;
    let answers = json_lines(&out);
    let ids: BTreeSet<_> = answers.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!((answers.len(), ids.len()), (usize::try_from(JOBS).unwrap(), usize::try_from(JOBS).unwrap()));
    let status: serde_json::Value =
        serde_json::from_str(&program.output(&["status", "--format", "json"]).await).unwrap();
    assert!(status.to_string().contains("workers"), "{status}");
    let report = program.output(&["report", "cost", "--by", "provider", "--format", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report[0]["attempts"].as_i64().unwrap(), audit.attempts, "{report}");
    let job = scalar(&database.pool(), "select min(id) from sluice.job").await.to_string();
    assert!(program.output(&["explain", &job]).await.contains("one/model"));
    program.output(&["watch", "file"]).await;
}

/// What a pooler costs: jobs claimed and settled per second, and the time of the smallest statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; it takes some seconds"]
async fn rates_with_and_without() {
    const JOBS: i32 = 20_000;
    const STATEMENTS: u32 = 2_000;
    for _ in 0..3 {
        for behind in [false, true] {
            let database = database().await;
            let Some(pooler) = Pooler::start(&database.connect_options(), REFUSES).await else { return };
            let store = if behind {
                through(&pooler, &database).await
            } else {
                Store::connect(database.connect_options(), CONNECTIONS).await.unwrap()
            };
            let queue = queue(store, database);
            queue.enqueue(in_batch("b"), JOBS).await;
            let worker = queue.worker().await;
            let began = clock::instant();
            let work = async || loop {
                let claimed = queue.claim(worker, 500).await;
                if claimed.is_empty() {
                    return;
                }
                let attempts = claimed.iter().map(|claimed| accepted(claimed, 1)).collect();
                let endings = claimed.iter().map(success).collect();
                queue.settle(Settlement { attempts, endings, ..Settlement::default() }).await;
            };
            tokio::join!(work(), work());
            let jobs = f64::from(JOBS) / began.elapsed().as_secs_f64();
            let began = clock::instant();
            for _ in 0..STATEMENTS {
                queue.store.next_due().await.unwrap();
            }
            let statement = began.elapsed() / STATEMENTS;
            eprintln!("behind a pooler: {behind:5}  {jobs:6.0} jobs/s  {statement:?} for a small statement");
        }
    }
}
