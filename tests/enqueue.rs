//! Every way in: SQL, the functions, COPY, and files.

use crate::support::postgres::{self, TestDatabase};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use sluice::domain::Timestamp;
use sluice::store::Store;
use sluice::store::enqueue::{BulkOptions, NewJob};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

async fn count(pool: &PgPool, what: &'static str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {what}"))).fetch_one(pool).await.unwrap()
}

async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
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

fn job(request: &str) -> NewJob<'_> {
    NewJob { custom_id: None, idempotency_key: None, metadata: None, request }
}

// ------------------------------------------------------------------------------------------------------------- SQL

#[tokio::test]
async fn plain_inserts_insert_select_and_copy_all_reach_the_queue() {
    let database = postgres::database().await;
    let pool = database.pool();
    execute(&pool, r#"insert into sluice.job (request) values ('{"prompt":"a"}'), ('{"prompt":"b"}')"#).await;
    execute(
        &pool,
        "insert into sluice.job (batch, custom_id, request)
         select 'some', 'n' || n, jsonb_build_object('prompt', n::text) from generate_series(1, 100) n",
    )
    .await;
    let mut connection = pool.acquire().await.unwrap();
    let mut copy = connection.copy_in_raw("copy sluice.job (batch, request) from stdin").await.unwrap();
    copy.send(&b"some\t{\"prompt\":\"x\"}\nsome\t{\"prompt\":\"y\"}\n"[..]).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    assert_eq!(count(&pool, "sluice.ready").await, 104);
    assert_eq!(count(&pool, "sluice.jobs where state = 'queued'").await, 104);
    let jobs: i64 =
        sqlx::query_scalar("select jobs from sluice.batches where batch = 'some'").fetch_one(&pool).await.unwrap();
    assert_eq!(jobs, 102);
}

#[tokio::test]
async fn a_rollback_leaves_nothing() {
    let database = postgres::database().await;
    let pool = database.pool();
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql(
        r#"insert into sluice.job (batch, idempotency_key, request) values ('b', 'k', '{"prompt":"a"}');
           select sluice.enqueue('{"prompt":"b"}', run_at => now() + interval '1 day');
           select sluice.enqueue_many('[{"request":{"prompt":"c"},"idempotency_key":"l"}]');"#,
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.rollback().await.unwrap();
    let mut bulk = database.store().await.bulk_enqueue(options("b")).await.unwrap();
    bulk.push(&job(r#"{"prompt":"d"}"#)).await.unwrap();
    bulk.push(&NewJob { idempotency_key: Some("m"), ..job(r#"{"prompt":"e"}"#) }).await.unwrap();
    bulk.rollback().await.unwrap();
    for table in ["sluice.job", "sluice.ready", "sluice.parked", "sluice.idempotency", "sluice.tally"] {
        assert_eq!(count(&pool, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn scheduled_jobs_are_parked_and_priorities_are_claimed_first() {
    let database = postgres::database().await;
    let pool = database.pool();
    execute(
        &pool,
        r#"insert into sluice.job (priority, run_at, custom_id, request) values
             (0, null, 'usual', '{"prompt":"a"}'), (7, null, 'urgent', '{"prompt":"a"}'),
             (-7, null, 'whenever', '{"prompt":"a"}'), (0, now() - interval '1 day', 'overdue', '{"prompt":"a"}'),
             (0, now() + interval '1 day', 'tomorrow', '{"prompt":"a"}')"#,
    )
    .await;
    let order: Vec<String> = sqlx::query_scalar(
        "select j.custom_id from sluice.ready r join sluice.job j on j.id = r.job_id order by r.flow, r.prio, r.job_id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(order, ["urgent", "usual", "overdue", "whenever"]);
    let parked: (String, String) =
        sqlx::query_as("select j.custom_id, p.reason from sluice.parked p join sluice.job j on j.id = p.job_id")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(parked, ("tomorrow".to_owned(), "scheduled".to_owned()));
    for wrong in ["priority) values ('{}', 1001)", "max_attempts) values ('{}', 0)", "priority) values (null, 1)"] {
        let sql = format!("insert into sluice.job (request, {wrong}");
        assert!(sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.is_err(), "{wrong}");
    }
}

// ------------------------------------------------------------------------------------------------------- functions

#[tokio::test]
async fn enqueue_takes_every_column_by_name() {
    let database = postgres::database().await;
    let pool = database.pool();
    let id: i64 = sqlx::query_scalar(
        r#"select sluice.enqueue('{"prompt":"a"}', route => 'r', project => 'p', batch => 'b', custom_id => 'c',
              priority => 3, run_at => '2020-01-01Z', deadline => '2040-01-01Z', max_attempts => 2,
              idempotency_key => 'k', metadata => '{"m":1}')"#,
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let row: String = sqlx::query_scalar(
        "select concat_ws(' ', id, state, route, project, batch, custom_id, priority, max_attempts, idempotency_key,
                metadata, request) from sluice.jobs",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(row, format!(r#"{id} queued r p b c 3 2 k {{"m": 1}} {{"prompt": "a"}}"#));
}

#[tokio::test]
async fn the_same_key_gives_the_first_job_and_buys_nothing_twice() {
    let database = postgres::database().await;
    let pool = database.pool();
    let mut ids: Vec<i64> = Vec::new();
    for project in ["one", "one", "two"] {
        let id =
            sqlx::query_scalar(r#"select sluice.enqueue('{"prompt":"a"}', idempotency_key => 'k', project => $1)"#);
        ids.push(id.bind(project).fetch_one(&pool).await.unwrap());
    }
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");
    assert_eq!(count(&pool, "sluice.ready").await, 2);
    let insert = "insert into sluice.job (project, idempotency_key, request) values ('one', 'k', '{}')";
    let error = sqlx::raw_sql(insert).execute(&pool).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23505");
    assert_eq!(count(&pool, "sluice.job").await, 2);
}

#[tokio::test]
async fn enqueue_many_answers_in_order_and_finds_keys_that_exist() {
    let database = postgres::database().await;
    let pool = database.pool();
    let many = |jobs: &'static str| {
        sqlx::query_as::<_, (i64, i64, bool)>("select * from sluice.enqueue_many($1::jsonb, batch => 'b')")
            .bind(jobs)
            .fetch_all(&pool)
    };
    let first = many(r#"[{"request":{"prompt":"a"},"idempotency_key":"k"},{"request":{"prompt":"b"},"priority":4}]"#)
        .await
        .unwrap();
    let again = many(
        r#"[{"request":{"prompt":"c"},"idempotency_key":"l"},{"request":{"prompt":"a"},"idempotency_key":"k"},
            {"request":{"prompt":"c"},"idempotency_key":"l"},
            {"request":{"prompt":"k"},"idempotency_key":"k","project":"p"}]"#,
    )
    .await
    .unwrap();
    let existing = |rows: &[(i64, i64, bool)]| rows.iter().map(|row| row.2).collect::<Vec<_>>();
    assert_eq!(existing(&first), [false, false]);
    assert_eq!(existing(&again), [false, true, true, false]);
    assert_eq!((again[1].1, again[2].1), (first[0].1, again[0].1));
    assert_eq!(count(&pool, "sluice.ready").await, 4);
    for wrong in ["{}", "[1]", "[{}]", r#"[{"request":{},"colour":"red"}]"#] {
        assert!(many(wrong).await.unwrap_err().to_string().contains("jobs"), "{wrong}");
    }
    assert!(many("[]").await.unwrap().is_empty());
}

#[tokio::test]
async fn of_two_sessions_with_the_same_key_one_enqueues_and_both_get_its_job() {
    for statement in [
        r#"select sluice.enqueue('{"prompt":"a"}', idempotency_key => 'k')"#,
        r#"select job_id from sluice.enqueue_many('[{"request":{"prompt":"a"},"idempotency_key":"k"}]')"#,
    ] {
        let database = postgres::database().await;
        let pool = database.pool();
        let mut first = pool.begin().await.unwrap();
        let one: i64 = sqlx::query_scalar(statement).fetch_one(&mut *first).await.unwrap();
        let mut second = pool.acquire().await.unwrap();
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *second).await.unwrap();
        let other = tokio::spawn(async move {
            sqlx::query_scalar::<_, Option<i64>>(statement).fetch_one(&mut *second).await.unwrap()
        });
        until_waiting(&pool, backend).await;
        first.commit().await.unwrap();
        assert_eq!(other.await.unwrap(), Some(one), "{statement}");
        assert_eq!(count(&pool, "sluice.job").await, 1);
        assert_eq!(count(&pool, "sluice.ready").await, 1);
    }
}

/// Until a session waits for another.
async fn until_waiting(pool: &PgPool, backend: i32) {
    let waiting = "select cardinality(pg_blocking_pids($1)) > 0";
    while !sqlx::query_scalar::<_, bool>(waiting).bind(backend).fetch_one(pool).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_enqueuer_may_enqueue_and_sees_only_its_own() {
    let database = postgres::database().await;
    let pool = database.pool();
    execute(
        &pool,
        "do $$ begin create role app_a login in role sluice_enqueuer; exception when duplicate_object then null; end $$;
           do $$ begin create role app_b login in role sluice_enqueuer;
             exception when duplicate_object then null; end $$;",
    )
    .await;
    let (mut a, mut b) = (connect(&database, "app_a").await, connect(&database, "app_b").await);
    sqlx::raw_sql(
        r#"insert into sluice.job (batch, request) values ('b', '{"prompt":"a"}');
           select sluice.enqueue('{"prompt":"a"}', batch => 'b', idempotency_key => 'k');
           select sluice.enqueue_many('[{"request":{"prompt":"a"}}]', batch => 'b');"#,
    )
    .execute(&mut a)
    .await
    .unwrap();
    let pool_of_a = PgPool::connect_with(database.connect_options().username("app_a")).await.unwrap();
    let mut bulk = Store::from_pool(pool_of_a.clone()).bulk_enqueue(options("b")).await.unwrap();
    bulk.push(&job(r#"{"prompt":"a"}"#)).await.unwrap();
    bulk.push(&NewJob { idempotency_key: Some("k"), ..job(r#"{"prompt":"a"}"#) }).await.unwrap();
    let enqueued = bulk.commit().await.unwrap();
    assert_eq!((enqueued.jobs, enqueued.existing), (1, 1));
    pool_of_a.close().await;
    // As libraries that map objects do it.
    let (id, _): (i64, chrono::DateTime<chrono::Utc>) =
        sqlx::query_as(r#"insert into sluice.job (request) values ('{"prompt":"a"}') returning id, created_at"#)
            .fetch_one(&mut a)
            .await
            .unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>("select max(id) from sluice.jobs").fetch_one(&mut a).await.unwrap(), id);
    execute(
        &pool,
        "insert into sluice.result (job_id, fence, state, attempts) select id, 1, 'succeeded', 1 from sluice.job",
    )
    .await;
    for (connection, seen) in [(&mut a, 5_i64), (&mut b, 0)] {
        for view in ["sluice.jobs", "sluice.results"] {
            let sql = AssertSqlSafe(format!("select count(*) from {view}"));
            assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await.unwrap(), seen, "{view}");
        }
        for forbidden in [
            "select request from sluice.job",
            "select batch, metadata from sluice.job",
            "insert into sluice.job (request) values ('{}') returning request",
            "select from sluice.ready",
            "delete from sluice.job",
            "update sluice.job set priority = 1",
            "insert into sluice.job (id, request) values (1, '{}')",
            "insert into sluice.job (enqueued_by, request) values ('app_b', '{}')",
            "insert into sluice.ready values (1, 1, 1)",
            "select sluice.retry(1)",
            "select * from sluice.batches",
        ] {
            let error = sqlx::query(forbidden).execute(&mut *connection).await.unwrap_err();
            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{forbidden}");
        }
    }
}

async fn connect(database: &TestDatabase, user: &str) -> PgConnection {
    PgConnection::connect_with(&database.connect_options().username(user)).await.unwrap()
}

// ------------------------------------------------------------------------------------------------------------ bulk

#[tokio::test]
async fn a_bulk_enqueue_is_visible_at_once_and_not_before() {
    let database = postgres::database().await;
    let pool = database.pool();
    let mut bulk = database.store().await.bulk_enqueue(options("b")).await.unwrap();
    // More than one chunk, so that some rows are on the server long before the commit.
    let request = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(2_000));
    for _ in 0..5_000 {
        bulk.push(&job(&request)).await.unwrap();
    }
    assert_eq!(count(&pool, "sluice.jobs").await, 0);
    let enqueued = bulk.commit().await.unwrap();
    assert_eq!((enqueued.jobs, enqueued.existing), (5_000, 0));
    assert_eq!(count(&pool, "sluice.ready").await, 5_000);
}

#[tokio::test]
async fn a_bulk_enqueue_fills_every_column() {
    let database = postgres::database().await;
    let pool = database.pool();
    let all = BulkOptions {
        route: "r\\t".to_owned(),
        project: "p\t".to_owned(),
        batch: None,
        priority: -9,
        run_at: Some(Timestamp(4_000_000_000_123)),
        deadline: Some(Timestamp(4_000_000_001_000)),
        max_attempts: Some(4),
    };
    let mut bulk = database.store().await.bulk_enqueue(all).await.unwrap();
    for key in [None, Some("k")] {
        let job = NewJob {
            custom_id: Some("c\\N"),
            idempotency_key: key,
            metadata: Some(r#"{"m":1}"#),
            request: r#"{"prompt":"\"\\n"}"#,
        };
        bulk.push(&job).await.unwrap();
    }
    let enqueued = bulk.commit().await.unwrap();
    assert_eq!((enqueued.jobs, enqueued.existing), (2, 0));
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws('|', route, project, batch, priority, extract(epoch from run_at),
           extract(epoch from deadline),
                max_attempts, custom_id, idempotency_key, metadata, request) from sluice.job order by id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |key| {
        format!(
            "r\\t|p\t|-9|4000000000.123000|4000000001.000000|4|c\\N|{key}{{\"m\": 1}}|{{\"prompt\": \"\\\"\\\\n\"}}"
        )
    };
    assert_eq!(rows, [row(""), row("k|")]);
    assert_eq!(count(&pool, "sluice.parked").await, 2);
}

#[tokio::test]
async fn what_the_database_refuses_is_an_error_and_leaves_nothing() {
    let database = postgres::database().await;
    let pool = database.pool();
    let mut bulk = database.store().await.bulk_enqueue(options("b")).await.unwrap();
    bulk.push(&job(r#"{"prompt":"a"}"#)).await.unwrap();
    bulk.push(&job("no json")).await.unwrap();
    let error = bulk.commit().await.unwrap_err();
    assert!(error.to_string().contains("invalid input syntax for type json"), "{error}");
    assert_eq!(count(&pool, "sluice.job").await, 0);
}

#[test]
fn any_text_comes_back_from_the_database_as_it_went_in() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(postgres::database());
    let store = Store::from_pool(database.pool());
    let text = || prop_oneof![any::<String>(), "[\\\\\t\r\n\"'Nx.{}]{0,20}"].prop_map(|text| text.replace('\0', "␀"));
    let strategy = prop::collection::vec((text(), text(), text(), any::<bool>()), 1..40);
    // Each case is a transaction of its own.
    let mut runner = TestRunner::new(Cases { cases: 60, ..Cases::default() });
    let result = runner.run(&strategy, |rows| {
        runtime.block_on(async {
            sqlx::raw_sql("truncate sluice.job, sluice.ready, sluice.idempotency").execute(store.pool()).await.unwrap();
            let mut bulk = store.bulk_enqueue(options(&rows[0].0)).await.unwrap();
            let mut expected = Vec::new();
            for (index, (custom_id, key, prompt, keyed)) in rows.iter().enumerate() {
                let request = serde_json::json!({ "prompt": prompt, key: [custom_id] });
                let key = format!("{index}{key}");
                let job = NewJob {
                    custom_id: Some(custom_id),
                    idempotency_key: keyed.then_some(key.as_str()),
                    metadata: None,
                    request: &request.to_string(),
                };
                bulk.push(&job).await.unwrap();
                expected.push((rows[0].0.clone(), custom_id.clone(), keyed.then_some(key), request));
            }
            bulk.commit().await.unwrap();
            let mut found: Vec<(String, String, Option<String>, serde_json::Value)> =
                sqlx::query_as("select batch, custom_id, idempotency_key, request from sluice.job")
                    .fetch_all(store.pool())
                    .await
                    .unwrap();
            let order = |row: &(String, String, Option<String>, serde_json::Value)| format!("{row:?}");
            found.sort_by_key(order);
            expected.sort_by_key(order);
            prop_assert_eq!(found, expected);
            Ok(())
        })
    });
    runtime.block_on(store.close());
    result.unwrap();
}
