//! Databases as users have them: with other encodings, defaults, publications and policies.

use crate::support::fleet::Fleet;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::wait::until;
use sqlx::{AssertSqlSafe, PgPool};

const SCENARIO: &str =
    "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";
const CONFIG: &str = "[worker]\nmax_in_flight = 8\n[providers.one]\ndialect = \"openai\"\n\
                      base_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 100 }\n[models.\"one/model\"]\n\
                      price = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\n";

async fn execute(pool: &PgPool, statements: &[&str]) {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe((*statement).to_owned()))
            .execute(pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// A login of the database's own, by the name of the database.
async fn login(database: &TestDatabase, settings: &str) -> String {
    let pool = database.pool();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&pool).await.unwrap();
    let login = format!("odd_{name}");
    execute(&pool, &[&format!("create role {login} login in role sluice_worker {settings}")]).await;
    login
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_text_is_refused_in_words() {
    let database = database().await;
    let admin = database.pool();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&admin).await.unwrap();
    for encoding in ["SQL_ASCII", "WIN1252", "LATIN1"] {
        let other = format!("{name}_{}", encoding.to_lowercase());
        execute(&admin, &[&format!("create database {other} encoding '{encoding}' locale 'C' template template0")])
            .await;
        let program = Program::new("", &database.url().replace(&name, &other));
        let output = program.run(&["migrate"]).await;
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains(encoding) && said.contains("encoding 'UTF8'"), "{said}");
        execute(&admin, &[&format!("drop database {other}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_has_a_primary_key_and_a_publication_of_all_tables_stops_nothing() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let without: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c
          where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('r', 'p')
            and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(without, Vec::<String>::new());
    execute(&fleet.pool, &["create publication everything for all tables"]).await;
    let worker = fleet.start();
    fleet.enqueue("default", 50).await;
    fleet.until_answered(50).await;
    until("the sums are folded", async || fleet.number("select count(*) from sluice.tally").await == 0).await;
    fleet.books_are_in_order(50).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_defaults_of_its_own_works_as_any_other() {
    let database = database().await;
    let login = login(&database, "").await;
    let pool = database.pool();
    execute(
        &pool,
        &[
            &format!("alter role {login} set default_transaction_isolation = serializable"),
            &format!("alter role {login} set row_security = on"),
            &format!("alter role {login} set client_min_messages = debug1"),
        ],
    )
    .await;
    let url = database.url().replace("user=sluice", &format!("user={login}"));
    let fleet = Fleet::over(pool, &url, SCENARIO, CONFIG);
    let workers = fleet.start_many(2).await;
    fleet.enqueue("default", 300).await;
    fleet.until_answered(300).await;
    fleet.books_are_in_order(300).await;
    for worker in workers {
        assert!(!worker.said().contains("could not serialize"), "{}", worker.said());
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_would_hide_are_an_error_and_not_a_queue_that_looks_empty() {
    let database = database().await;
    let login = login(&database, "").await;
    let pool = database.pool();
    execute(&pool, &["alter table sluice.ready enable row level security"]).await;
    let url = database.url().replace("user=sluice", &format!("user={login}"));
    let fleet = Fleet::over(pool.clone(), &url, SCENARIO, CONFIG);
    fleet.enqueue("default", 3).await;
    let worker = fleet.start();
    worker.until_said("row-level security", 1).await;
    execute(&pool, &["alter table sluice.ready disable row level security"]).await;
    fleet.until_answered(3).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_few_connections_works_with_those() {
    let database = database().await;
    let login = login(&database, "connection limit 3").await;
    let url = database.url().replace("user=sluice", &format!("user={login}"));
    let fleet = Fleet::over(database.pool(), &url, SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.enqueue("default", 300).await;
    fleet.until_answered(300).await;
    fleet.books_are_in_order(300).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_locked_for_a_while_does_not_leave_work_waiting_for_ten_times_as_long() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let worker = fleet.start();
    fleet.until_live(1).await;
    let mut lock = fleet.pool.begin().await.unwrap();
    sqlx::query("lock table sluice.ready").execute(&mut *lock).await.unwrap();
    // A look waits for the table.
    let waits = "select count(*) from pg_locks where not granted and relation = 'sluice.ready'::regclass";
    until("a look waits", async || fleet.number(waits).await > 0).await;
    sqlx::query("select pg_sleep(6)").execute(&mut *lock).await.unwrap();
    lock.rollback().await.unwrap();
    fleet.enqueue("default", 3).await;
    // The test's own patience is shorter than the minute that it took.
    fleet.until_answered(3).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_lz4_is_migrated_and_works() {
    let database = database().await;
    let admin = database.pool();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&admin).await.unwrap();
    let bare = format!("{name}_bare");
    execute(&admin, &[&format!("create database {bare} template template0")]).await;
    let url = database.url().replace(&name, &bare);
    let pool = PgPool::connect_lazy_with(database.connect_options().database(&bare));
    // A build without lz4 differs from others by what this view says, and by refusing to be asked for it.
    execute(
        &pool,
        &[
            "create schema built;
             create view built.pg_settings as
                 select name, setting, case name when 'default_toast_compression' then '{pglz}'
                   else enumvals end as enumvals
                   from pg_catalog.pg_settings",
            &format!("alter database {bare} set search_path = built, pg_catalog"),
        ],
    )
    .await;
    pool.close().await;
    let pool = PgPool::connect_lazy_with(database.connect_options().database(&bare));
    let fleet = Fleet::over(pool.clone(), &url, SCENARIO, CONFIG);
    let migrated = Program::new("", &url).run(&["migrate"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    let asked: i64 = sqlx::query_scalar(
        "select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid
          where c.relnamespace = 'sluice'::regnamespace and a.attcompression = 'l'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(asked, 0);
    let again = Program::new("", &url).output(&["migrate"]).await;
    assert!(again.contains("nothing to do"), "{again}");
    let worker = fleet.start();
    fleet.enqueue("default", 20).await;
    fleet.until_answered(20).await;
    worker.stop().await;
    drop(fleet);
    pool.close().await;
    execute(&admin, &[&format!("drop database {bare} with (force)")]).await;
}
