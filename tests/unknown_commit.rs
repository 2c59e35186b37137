//! The connection breaks while a commit is under way: its outcome is found out, not guessed.

use crate::support::postgres::database;
use crate::support::proxy::{Moment, Proxy, Weather};
use crate::support::queue::{Queue, accepted, success};
use sluice::store::Store;
use sluice::store::enqueue::{BulkOptions, NewJob};
use sluice::store::settle::Settlement;
use sqlx::PgPool;

fn options() -> BulkOptions {
    BulkOptions {
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: None,
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    }
}

const JOB: NewJob<'static> =
    NewJob { custom_id: None, idempotency_key: None, metadata: None, request: r#"{"prompt": "Hi"}"# };

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_enqueue_knows_whether_its_commit_went_through() {
    for (moment, goes_through) in [(Moment::CommitAnswer, true), (Moment::Commit, false)] {
        let database = database().await;
        let proxy = Proxy::to(&database.connect_options()).await;
        let name = database.connect_options().get_database().unwrap().to_owned();
        let through: sqlx::postgres::PgConnectOptions = proxy.url("sluice", &name).parse().unwrap();
        let store = Store::connect(through, 4).await.unwrap();
        let mut bulk = store.bulk_enqueue(options()).await.unwrap();
        for _ in 0..3 {
            bulk.push(&JOB).await.unwrap();
        }
        proxy.cut_at(moment);
        let told = bulk.commit().await;
        assert_eq!(proxy.struck(), 1, "{moment:?}: the connection was cut");
        assert_eq!(told.is_ok(), goes_through, "{moment:?}: {told:?}");
        let there = count(&database.pool(), "select count(*) from sluice.ready").await;
        assert_eq!(there, if goes_through { 3 } else { 0 }, "{moment:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_commit_was_not_confirmed_is_sent_again_without_harm() {
    let queue = Queue::new().await;
    let name = queue.database.connect_options().get_database().unwrap().to_owned();
    let proxy = Proxy::to(&queue.database.connect_options()).await;
    let store = Store::connect(proxy.url("sluice", &name).parse().unwrap(), 4).await.unwrap();
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    let settlement =
        Settlement { attempts: vec![accepted(&claimed, 1)], endings: vec![success(&claimed)], ..Settlement::default() };
    proxy.cut_at(Moment::CommitAnswer);
    let error = store.settle(&settlement).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(proxy.struck(), 1);
    // It went through; the next attempt finds that its own result stands.
    assert_eq!(store.settle(&settlement).await.unwrap(), []);
    assert_eq!(count(&queue.pool, "select count(*) from sluice.attempt").await, 1);
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_without_a_word_is_waited_for_only_so_long() {
    use sluice::store::{StoreError, within};
    use std::time::Duration;
    let database = database().await;
    let name = database.connect_options().get_database().unwrap().to_owned();
    let proxy = Proxy::to(&database.connect_options()).await;
    let store = Store::connect(proxy.url("sluice", &name).parse().unwrap(), 2).await.unwrap();
    store.lanes().await.unwrap();
    proxy.set(Weather::Blackhole);
    let answer = within(Duration::from_millis(300), "looking for ready jobs", store.lanes()).await;
    assert!(matches!(answer, Err(StoreError::Timeout { .. })), "{answer:?}");
    assert!(answer.unwrap_err().is_transient());
    proxy.set(Weather::Clear);
    // The next statements get other connections.
    assert!(store.lanes().await.is_ok());
}
