//! The primary dies and a standby takes over: work goes on without a restart, and nothing is lost.

use crate::support::fleet::Fleet;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::wait::until;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

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
    sluice::store::Store::from_pool(pool(&primary)).migrate().await.unwrap();
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

/// What HAProxy and the addresses of managed services do for a while: the roles have changed, sessions stay with the former
/// primary, and new ones are still led to it.
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
    // What was committed before has arrived: a switchover in order waits for that.
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
