//! `sluice doctor`: the tests cause each problem that hurts a queue, and the doctor has to name it.

use crate::support::cluster::used_before;
use crate::support::pooler::{Pooler, REFUSES};
use crate::support::postgres::{Watchdog, temporary_dir};
use crate::support::program::{Program, text};
use serde_json::Value;
use sluice::embedded::{EmbeddedPostgres, Options};
use sluice::store::Store;
use sluice::store::claim::Take;
use sluice::store::doctor::LookTime;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgPool};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::{Mutex, OnceCell};

/// A server that is set up as one should be (the one of the other tests is not durable), and that takes prepared
/// transactions.
struct Clinic {
    postgres: EmbeddedPostgres,
    _watchdog: Watchdog,
}

/// Slots belong to the whole server: who makes one, and who wants none, come one after the other.
static SLOTS: Mutex<()> = Mutex::const_new(());

async fn clinic() -> &'static Clinic {
    static CLINIC: OnceCell<Clinic> = OnceCell::const_new();
    CLINIC
        .get_or_init(|| async {
            let dir = temporary_dir();
            let watchdog = Watchdog::over(&dir);
            used_before(&dir).await;
            let options = Options { data_dir: dir, fsync: true, max_connections: 100 };
            let first = EmbeddedPostgres::start(&options).await.unwrap();
            let mut connection = first.connect_options("postgres").connect().await.unwrap();
            sqlx::query("alter system set max_prepared_transactions = 5").execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            first.stop().await.unwrap();
            Clinic { postgres: EmbeddedPostgres::start(&options).await.unwrap(), _watchdog: watchdog }
        })
        .await
}

struct Patient {
    options: PgConnectOptions,
    pool: PgPool,
    store: Store,
    program: Program,
}

impl Patient {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(config: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let clinic = clinic().await;
        let name = format!("patient_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = clinic.postgres.connect_options("postgres").connect().await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let options = clinic.postgres.connect_options(&name);
        let store = Store::connect(options.clone(), 2).await.unwrap();
        store.migrate().await.unwrap();
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(options.clone());
        Self { options, pool, store, program: Program::new(config, &clinic.postgres.url(&name)) }
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    /// Exit status and findings.
    async fn examine(&self, more: &[&str]) -> Findings {
        let arguments: Vec<&str> = ["doctor", "--format", "json"].iter().chain(more).copied().collect();
        let output = self.program.run(&arguments).await;
        let said = text(&output.stdout);
        let found: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&output.stderr)));
        Findings { status: output.status.code().unwrap(), found }
    }
}

#[derive(Debug)]
struct Findings {
    status: i32,
    found: Value,
}

impl Findings {
    fn of(&self, check: &str) -> &Value {
        let all = self.found["findings"].as_array().unwrap();
        all.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {self:?}"))
    }

    /// The checks with a severity.
    fn with(&self, severity: &str) -> BTreeSet<&str> {
        let all = self.found["findings"].as_array().unwrap().iter();
        all.filter(|finding| finding["severity"] == severity)
            .map(|finding| finding["check"].as_str().unwrap())
            .collect()
    }

    /// That this check, and no other, found something of this severity, with these words, and says what to do.
    #[track_caller]
    fn is_only(&self, check: &str, severity: &str, words: &str) {
        assert_eq!(self.with("bad").union(&self.with("warning")).copied().collect::<Vec<_>>(), [check], "{self:?}");
        self.is(check, severity, words);
    }

    #[track_caller]
    fn is(&self, check: &str, severity: &str, words: &str) {
        let finding = self.of(check);
        assert_eq!(finding["severity"], severity, "{finding}");
        assert!(finding["what"].as_str().unwrap().contains(words), "{finding}");
        assert!(finding["why"].is_string() && finding["do"].is_string(), "{finding}");
        assert_eq!(self.status, if severity == "bad" || !self.with("bad").is_empty() { 9 } else { 0 });
    }
}

#[tokio::test]
async fn a_healthy_database_is_told_so() {
    let _slots = SLOTS.lock().await;
    let patient = Patient::new().await;
    let findings = patient.examine(&[]).await;
    assert_eq!((findings.status, &findings.found["ok"], &findings.found["worst"]), (0, &true.into(), &"ok".into()));
    assert_eq!(findings.with("ok").len(), findings.found["findings"].as_array().unwrap().len(), "{findings:?}");
    let table = patient.program.output(&["doctor", "--format", "table"]).await;
    assert!(table.contains("oldest snapshot") && !table.contains("why:"), "{table}");
    let plain = patient.program.output(&["doctor", "--format", "plain", "--strict"]).await;
    assert!(plain.starts_with("severity\tcheck\twhat\twhy\tdo\n"), "{plain}");
}

#[tokio::test]
async fn a_snapshot_that_is_held_is_named_without_what_it_reads() {
    let patient = Patient::new().await;
    let mut holder = patient.options.clone().application_name("a report").connect().await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select 'a secret' from sluice.job")
        .execute(&mut holder)
        .await
        .unwrap();
    assert!(patient.examine(&[]).await.with("bad").is_empty(), "a moment is nothing");
    let findings = patient.examine(&["--transaction-age", "0s"]).await;
    findings.is("oldest_snapshot", "bad", "(a report)");
    findings.is("idle_in_transaction", "bad", "(a report)");
    assert!(!findings.found.to_string().contains("secret"));
    let table = text(&patient.program.run(&["doctor", "--format", "table", "--transaction-age", "0s"]).await.stdout);
    assert!(table.contains("bad: oldest snapshot: process") && table.contains("  do:  end it"), "{table}");
}

#[tokio::test]
async fn a_forgotten_prepared_transaction_is_named() {
    let patient = Patient::new().await;
    patient.run("begin; insert into sluice.job (request) values ('{}'); prepare transaction 'forgotten'").await;
    let findings = patient.examine(&["--transaction-age", "0s"]).await;
    findings.is("prepared_transactions", "bad", "forgotten");
    patient.run("rollback prepared 'forgotten'").await;
    assert!(!patient.examine(&["--transaction-age", "0s"]).await.with("bad").contains("prepared_transactions"));
}

#[tokio::test]
async fn a_slot_without_a_reader_is_named() {
    let _slots = SLOTS.lock().await;
    let patient = Patient::new().await;
    patient.run("select pg_create_physical_replication_slot('copy', true)").await;
    let findings = patient.examine(&[]).await;
    let strict = patient.program.run(&["doctor", "--strict"]).await;
    patient.run("select pg_drop_replication_slot('copy')").await;
    findings.is_only("replication_slots", "warning", "\"copy\" has no reader");
    assert_eq!(strict.status.code(), Some(9));
}

#[tokio::test]
async fn indexes_that_are_missing_or_not_valid_are_named() {
    let patient = Patient::new().await;
    patient
        .run(
            "drop index sluice.parked_run_at;
             update pg_index set indisvalid = false where indexrelid = 'sluice.inflight_worker'::regclass",
        )
        .await;
    patient.examine(&[]).await.is("indexes", "bad", "missing: parked_run_at; not valid: inflight_worker");
}

#[tokio::test]
async fn the_doctor_knows_every_index_that_the_migrations_make() {
    let patient = Patient::new().await;
    let made: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c
           where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('i', 'I')
            and c.relname !~ '_p\\d+_' order by 1",
    )
    .fetch_all(&patient.pool)
    .await
    .unwrap();
    for index in made {
        let renamed = format!("alter index sluice.{index} rename to something_else");
        sqlx::query(AssertSqlSafe(renamed)).execute(&patient.pool).await.unwrap();
        let around = sluice::store::doctor::Surroundings {
            private: false,
            connections_each: 10,
            routes: std::collections::HashSet::new(),
            providers: std::collections::HashSet::new(),
            schedules: std::collections::HashSet::new(),
            retention: None,
        };
        let facts = patient.store.facts(&around, LookTime::LONG).await;
        assert_eq!(facts.indexes.unwrap().0, [index.as_str()], "add it to store/doctor.rs");
        let back = format!("alter index sluice.something_else rename to {index}");
        sqlx::query(AssertSqlSafe(back)).execute(&patient.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_trigger_that_does_not_fire_is_named() {
    let patient = Patient::new().await;
    patient.run("alter table sluice.job disable trigger job_enqueued").await;
    patient.examine(&[]).await.is("trigger", "bad", "disabled");
    patient.run("drop trigger job_enqueued on sluice.job").await;
    patient.examine(&[]).await.is("trigger", "bad", "missing");
}

#[tokio::test]
async fn dead_rows_and_a_vacuum_that_is_told_to_stay_away_are_named() {
    let patient = Patient::new().await;
    patient
        .run(
            "alter table sluice.ready set (autovacuum_enabled = off);
             alter table sluice.inflight reset (autovacuum_vacuum_threshold);
             insert into sluice.ready select 1, 1, n from generate_series(1, 210000) n",
        )
        .await;
    patient.run("delete from sluice.ready; select pg_stat_force_next_flush()").await;
    crate::support::wait::until("the statistics know it", async || {
        let dead: i64 = sqlx::query_scalar("select n_dead_tup from pg_stat_user_tables where relname = 'ready'")
            .fetch_one(&patient.pool)
            .await
            .unwrap();
        dead >= 210_000
    })
    .await;
    let findings = patient.examine(&[]).await;
    findings.is("dead_rows", "warning", "ready has 210,000 dead rows");
    findings.is("autovacuum", "bad", "ready");
    findings.is("table_settings", "warning", "inflight has lost autovacuum_vacuum_threshold");
}

#[tokio::test]
async fn a_claim_that_would_read_the_whole_queue_is_named() {
    let patient = Patient::new().await;
    patient.run("insert into sluice.job (request) select '{}' from generate_series(1, 20000)").await;
    patient.run("analyze sluice.ready, sluice.job").await;
    assert_eq!(patient.examine(&[]).await.of("plans")["severity"], "ok");
    // By a setting, and for want of the index.
    patient
        .run("do $$ begin execute format('alter database %I set enable_indexscan = off', current_database()); end $$")
        .await;
    patient.examine(&[]).await.is("plans", "bad", "Scan on ready");
    patient
        .run("do $$ begin execute format('alter database %I reset enable_indexscan', current_database()); end $$")
        .await;
    patient.run("alter table sluice.ready drop constraint ready_pkey").await;
    let findings = patient.examine(&[]).await;
    findings.is("plans", "bad", "claiming: Sort of ready, Seq Scan on ready");
    findings.is("indexes", "bad", "missing: ready_pkey");
}

#[tokio::test]
async fn the_end_of_the_partitions_is_seen_coming() {
    let patient = Patient::new().await;
    patient.run("drop table sluice.attempt_p2").await;
    patient.examine(&[]).await.is("partitions", "bad", "missing: attempt_p2");
    patient.run("drop table sluice.result_p2, sluice.job_p2, sluice.job_p1, sluice.result_p1, sluice.attempt_p1").await;
    patient.run("drop table sluice.job_p3, sluice.result_p3, sluice.attempt_p3").await;
    patient.examine(&[]).await.is("partitions", "warning", "9,999,999 job numbers are left");
    patient.run("select setval('sluice.job_id_seq', 9999000)").await;
    patient.examine(&[]).await.is("partitions", "bad", "1,000 job numbers are left");
    patient.store.ensure_partitions().await.unwrap();
    assert_eq!(patient.examine(&[]).await.of("partitions")["severity"], "ok");
}

#[tokio::test]
async fn jobs_that_no_worker_works_on_are_named() {
    let config = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  [models.\"one/m\"]\nprice = { input = \"1\", output = \"1\" }\n[routes.default]\n\
                  rungs = [\"one/m\"]\n";
    let patient = Patient::with(config).await;
    patient.run("insert into sluice.job (created_at, request) values (now() - interval '2 hours', '{}')").await;
    let findings = patient.examine(&[]).await;
    findings.is("workers", "bad", "none is running");
    findings.is("oldest_job", "warning", "for 2 h");
    // Paused work is meant to wait.
    patient.run("insert into sluice.pause (kind, name) values ('route', 'default')").await;
    assert!(patient.examine(&[]).await.with("bad").is_empty());
    patient.run("delete from sluice.pause").await;

    let worker = patient.store.register("host", 1, "0").await.unwrap().0;
    let lane = patient.store.lanes().await.unwrap().remove(0);
    let take = Take { flow: lane.flow, prio: lane.prio, after: 0, count: 1 };
    assert_eq!(patient.store.claim(worker, &[take], usize::MAX).await.unwrap().jobs.len(), 1);
    assert!(patient.examine(&[]).await.with("bad").is_empty());
    patient.run("update sluice.worker set lease_until = now() - interval '2 minutes'").await;
    patient.examine(&[]).await.is_only("dead_workers", "bad", "1 job is held");
    patient.run("update sluice.worker set lease_until = now() + interval '2 minutes'").await;
    patient.run("insert into sluice.job (route, request) values ('typo', '{}')").await;
    patient.examine(&[]).await.is_only("routes", "warning", "typo");
}

#[tokio::test]
async fn settings_that_lose_answers_are_named() {
    let patient = Patient::new().await;
    patient
        .run("do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$")
        .await;
    patient.examine(&[]).await.is("durability", "warning", "synchronous_commit is off");
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_named_and_the_rest_looked_at_all_the_same() {
    let patient = Patient::new().await;
    patient.run("insert into sluice.migration values (9999, '', now(), true, '', 0)").await;
    assert!(patient.examine(&[]).await.of("schema")["what"].as_str().unwrap().contains("can live with"));
    patient.run("update sluice.schema_support set oldest = 9999").await;
    patient.examine(&[]).await.is("schema", "bad", "know 9999 at least");
    patient.run("drop schema sluice cascade").await;
    let findings = patient.examine(&[]).await;
    findings.is("schema", "bad", "there is none");
    assert_eq!(findings.of("server")["severity"], "ok");
    // What the schema holds is not looked at: that there is none says it all.
    assert!(findings.with("unseen").is_empty() && findings.of("connections")["severity"] == "ok", "{findings:?}");
}

#[tokio::test]
async fn old_work_that_a_job_keeps_is_named_where_retention_is_configured() {
    let patient = Patient::with("[retention]\nfinished = \"30d\"\n").await;
    assert_eq!(patient.examine(&[]).await.of("retention")["severity"], "ok");
    patient.run("insert into sluice.retiring (part, counted_to, open_job) values (0, 0, 17)").await;
    patient.examine(&[]).await.is("retention", "warning", "by job 17");
    patient.run("update sluice.retiring set open_job = null, since = now() - interval '2 hours'").await;
    patient.examine(&[]).await.is("retention", "warning", "partition 0 has been about to be dropped for 2 h");
    patient.run("delete from sluice.retiring").await;
    patient.run("insert into sluice.job (created_at, request) values (now() - interval '3 days', '{}')").await;
    assert_eq!(patient.examine(&[]).await.of("retention")["severity"], "ok");
    patient.run("update sluice.job set created_at = now() - interval '4 days'").await;
    patient.examine(&[]).await.is("retention", "warning", "another partition for 6 h");
}

#[tokio::test]
async fn with_few_rights_it_says_what_it_could_not_see() {
    let _slots = SLOTS.lock().await;
    let patient = Patient::new().await;
    // Roles belong to the server, which tests of other databases share.
    patient.run("create role looker login in role sluice_reporter").await;
    let url = format!("{}&", clinic().await.postgres.url(patient.options.get_database().unwrap()));
    let program = Program::new("", &url.replace("&user=sluice&", "&user=looker"));
    let output = program.run(&["doctor", "--format", "json"]).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let findings = Findings { status: output.status.code().unwrap(), found };
    assert_eq!(findings.status, 0);
    assert_eq!(
        findings.with("unseen").into_iter().collect::<Vec<_>>(),
        ["idle_in_transaction", "oldest_snapshot", "plans"],
        "{findings:?}"
    );
    assert!(findings.of("oldest_snapshot")["do"].as_str().unwrap().contains("pg_monitor"));
    assert!(findings.of("plans")["what"].as_str().unwrap().contains("sluice_worker"), "{findings:?}");
    assert!(findings.with("warning").is_empty(), "{findings:?}");
    patient.run("drop role looker").await;
}

#[tokio::test]
async fn a_pooler_is_noticed_and_a_server_that_is_away_is_a_finding_too() {
    let patient = Patient::new().await;
    let away = Program::new("", "postgres://nobody@127.0.0.1:1/none").run(&["doctor", "--format", "json"]).await;
    assert_eq!(away.status.code(), Some(4));
    let found: Value = serde_json::from_slice(&away.stdout).unwrap();
    assert_eq!(found["findings"][0]["check"], "connection", "{found}");
    let Some(pooler) = Pooler::start(&patient.options, REFUSES).await else { return };
    let program = Program::new("", &pooler.url(&patient.options));
    let output = program.output(&["doctor", "--format", "plain"]).await;
    assert!(output.contains("ok\tconnection\tthrough a pooler"), "{output}");
    assert!(output.contains("ok\tplans\t"), "{output}");
}
