//! The primary dies and a standby takes over: work goes on without a restart, and no job is lost.

use crate::support::fleet::Fleet;
use crate::support::postgres::database;
use crate::support::program::Program;
use crate::support::proxy::{Proxy, Weather};
use crate::support::server::Server;
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::store::{Pooler, Purpose, Store, StoreError};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

pub const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.1, 0.4] }\n\
                        models.model.price = { input = \"1\", output = \"2\" }\n";
pub const CONFIG: &str = "[worker]\nmax_in_flight = 8\ndrain_timeout = \"5s\"\n\
                      [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 100 }\n\
                      [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\n";

pub fn pool(server: &Server) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect_lazy(&server.url("sluice")).unwrap()
}

pub async fn execute(server: &Server, database: &str, statement: &'static str) {
    let pool = PgPool::connect(&server.url(database)).await.unwrap();
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

/// A primary with the schema, and a standby that every commit waits for.
pub async fn synchronous_pair() -> (Server, Server) {
    let primary = Server::primary();
    execute(&primary, "postgres", "create database sluice").await;
    let standby = primary.standby();
    execute(&primary, "postgres", "alter system set synchronous_standby_names = '*'").await;
    execute(&primary, "postgres", "select pg_reload_conf()").await;
    Store::from_pool(pool(&primary)).migrate().await.unwrap();
    (primary, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_standby_takes_over_and_nothing_is_lost_or_bought_twice() {
    const JOBS: i64 = 120;
    let (primary, standby) = synchronous_pair().await;
    let url = format!(
        "postgres://sluice@127.0.0.1:{},127.0.0.1:{}/sluice?target_session_attrs=read-write",
        primary.port, standby.port
    );
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", JOBS).await;
    until("work is under way", async || fleet.answered().await >= 16).await;
    primary.crash();
    standby.promote();
    fleet.pool = pool(&standby);
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    let calls = i64::try_from(fleet.verdict().total.calls).unwrap();
    let booked = fleet.number("select count(*) from sluice.attempt").await;
    assert_eq!((calls, booked), (JOBS, JOBS), "nothing was bought twice:\n{}", worker.said());
    worker.stop().await;
}

/// What HAProxy and the addresses of managed services do for a while: the roles have changed, sessions stay with the
/// former primary, and new ones are still led to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_behind_a_proxy_that_lags_loses_nothing_and_buys_nothing_twice() {
    const JOBS: i64 = 120;
    let (primary, standby) = synchronous_pair().await;
    let proxy = Proxy::to(&primary.socket()).await;
    let mut fleet = Fleet::over(pool(&primary), &proxy.url("sluice", "sluice"), SCENARIO, CONFIG);
    let former = fleet.pool.clone();
    let worker = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", JOBS).await;
    until("work is under way", async || fleet.answered().await >= 16).await;
    execute(&primary, "postgres", "alter system set default_transaction_read_only = on").await;
    execute(&primary, "postgres", "select pg_reload_conf()").await;
    worker.until_said("they wait in the spool", 1).await;
    // Earlier commits have arrived: a switchover in order waits for them.
    let busy = "select count(*) from pg_stat_activity where application_name = 'sluice' and state <> 'idle'";
    until("its last transaction has ended", async || fleet.number(busy).await == 0).await;
    standby.promote();
    let before = proxy.opened();
    until("new sessions are led to the wrong server", async || proxy.opened() >= before + 4).await;
    proxy.lead_to(&standby.socket());
    fleet.pool = pool(&standby);
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    let calls = i64::try_from(fleet.verdict().total.calls).unwrap();
    let booked = fleet.number("select count(*) from sluice.attempt").await;
    assert_eq!((calls, booked), (JOBS, JOBS), "nothing was bought twice:\n{}", worker.said());
    until("no session stays with the former primary", async || {
        let left = "select count(*) from pg_stat_activity where application_name = 'sluice'";
        sqlx::query_scalar::<_, i64>(left).fetch_one(&former).await.unwrap() == 0
    })
    .await;
    worker.stop().await;
}

/// An address that leads to a hot standby, as it does in the midst of a failover, and both hosts while neither takes
/// writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_on_a_standby_waits_for_a_primary_and_reports_do_not() {
    const JOBS: i64 = 24;
    const WAITS: &str = "the worker waits until its database takes writes";
    let (primary, standby) = synchronous_pair().await;
    let proxy = Proxy::to(&standby.socket()).await;
    let url = proxy.url("sluice", "sluice");
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    fleet.enqueue("default", JOBS).await;

    let worker = fleet.start();
    worker.until_said(WAITS, 1).await;
    assert!(worker.said().contains("it is a standby, or the database was made read-only"), "{}", worker.said());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (first, second) in [(standby.port, dead), (dead, standby.port)] {
        let hosts = format!("127.0.0.1:{first},127.0.0.1:{second}");
        let url = format!("postgres://sluice@{hosts}/sluice?target_session_attrs=read-write");
        let other = fleet.start_with(&[("DATABASE_URL", &url)]);
        other.until_said(WAITS, 1).await;
        other.signal(Signal::TERM);
        let (code, said) = other.ended().await;
        assert_eq!(code, Some(4), "it never came to work: {said}");
    }
    assert_eq!(fleet.verdict().total.calls, 0, "nothing is begun that could not be written down");

    let reader = Program::new("[http]\nlisten = \"off\"\n", &url);
    let replayed = async |query: &'static str, rows: i64| {
        let standby = pool(&standby);
        until("the standby has it", async || {
            sqlx::query_scalar::<_, i64>(query).fetch_one(&standby).await.unwrap() == rows
        })
        .await;
    };
    replayed("select count(*) from sluice.job", JOBS).await;
    let status: serde_json::Value =
        serde_json::from_str(&reader.output(&["status", "--format", "json"]).await).unwrap();
    assert_eq!(status["routes"][0]["ready"]["jobs"].as_i64(), Some(JOBS), "{status}");

    proxy.lead_to(&primary.socket());
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    worker.stop().await;

    replayed("select count(*) from sluice.result", JOBS).await;
    proxy.lead_to(&standby.socket());
    let report = reader.output(&["report", "cost", "--format", "json"]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&report).unwrap();
    assert_eq!((rows.len(), rows[0]["attempts"].as_i64()), (1, Some(JOBS)), "{report}");
    // It goes on after the standby has become the primary.
    fleet.pool = pool(&standby);
    primary.crash();
    standby.promote();
    let next = fleet.start();
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(2 * JOBS).await;
    next.stop().await;
}

/// A primary that is cut off breaks no connection: nothing comes back, and no statement is told of an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_looks_for_the_server_that_serves_before_its_pool_gives_up() {
    let (primary, standby) = synchronous_pair().await;
    let (first, second) = (Proxy::to(&primary.socket()).await, Proxy::to(&standby.socket()).await);
    let url = format!(
        "postgres://sluice@{},{}/sluice?target_session_attrs=read-write&sslmode=disable",
        first.address(),
        second.address()
    );
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    first.set(Weather::Blackhole);
    standby.promote();
    worker.until_said("switched to the server that takes writes", 1).await;
    let said = worker.said();
    let before = said.split("switched to the server that takes writes").next().unwrap();
    assert!(!before.contains("pool timed out"), "{said}");
    fleet.pool = pool(&standby);
    fleet.enqueue("default", 8).await;
    fleet.until_answered(8).await;
    // Its connections to the first lead nowhere, and it does not wait for their farewell.
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_a_lost_server_never_answers_leaves_room_for_a_connection_to_another_one() {
    let database = database().await;
    let options = database.connect_options();
    let (first, second) = (Proxy::to(&options).await, Proxy::to(&options).await);
    let url = format!(
        "postgres://sluice@{},{}/{}?target_session_attrs=read-write&sslmode=disable",
        first.address(),
        second.address(),
        options.get_database().unwrap()
    );
    let store = Store::connect_through(Pooler::None, Purpose::Work, &url.parse().unwrap(), 1).await.unwrap();
    let pool = database.pool();
    for statement in [Statement::Rows, Statement::Row] {
        let (lost, serving) = if statement == Statement::Rows { (&first, &second) } else { (&second, &first) };
        statement.run(&store).await.unwrap();
        serving.set(Weather::Clear);
        let mut open = pool.begin().await.unwrap();
        sqlx::query("lock table sluice.ready, sluice.alert_sample").execute(&mut *open).await.unwrap();
        let asking = tokio::spawn({
            let store = store.clone();
            async move { statement.run(&store).await }
        });
        until("the server is asked", async || {
            let waiting = "select exists (select from pg_locks where not granted and database =
                                          (select oid from pg_database where datname = current_database()))";
            sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap()
        })
        .await;
        lost.set(Weather::Blackhole);
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        open.rollback().await.unwrap();
        until("the other server answers", async || statement.run(&store).await.is_ok()).await;
    }
}

/// A statement by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Statement {
    Rows,
    Row,
}

impl Statement {
    async fn run(self, store: &Store) -> Result<(), StoreError> {
        match self {
            Self::Rows => store.lanes().await.map(drop),
            Self::Row => store.flows_were_noted(Duration::from_secs(1)).await.map(drop),
        }
    }
}
