//! Cancelled statements: a future of the store is dropped wherever it waits. The next statement on the same connection
//! runs in no transaction but its own, and its writes are there.

use crate::support::cluster::OwnCluster;
use crate::support::fleet::Fleet;
use crate::support::queue::{accepted, success};
use crate::support::wait::until;
use futures_util::future::BoxFuture;
use sluice::store::claim::{Claimed, Take};
use sluice::store::enqueue::{BulkOptions, NewJob};
use sluice::store::settle::Settlement;
use sluice::store::{Address, Pooler, Purpose, Store, StoreError};
use sqlx::Row as _;
use sqlx::postgres::PgConnectOptions;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Waits for a future until it has said so many times that it is not ready, and then drops it.
struct GivenUp<F> {
    work: F,
    waits: usize,
}

impl<F: Future + Unpin> Future for GivenUp<F> {
    /// `None`: it was given up.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.work).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.waits <= 1 => Poll::Ready(None),
            Poll::Pending => {
                self.waits -= 1;
                Poll::Pending
            }
        }
    }
}

type Operation = fn(&Store, i64, Vec<Claimed>) -> BoxFuture<'static, Result<(), StoreError>>;

/// Operations in a transaction of several statements, by COPY, row by row, and in one statement.
const OPERATIONS: [(&str, Operation); 7] = [
    ("settle", |store, _, jobs| {
        let store = store.clone();
        Box::pin(async move {
            let settlement = Settlement {
                attempts: jobs.iter().map(|job| accepted(job, 1)).collect(),
                endings: jobs.iter().map(success).collect(),
                ..Settlement::default()
            };
            store.settle(&settlement).await.map(|_| ())
        })
    }),
    ("rescue", |store, _, _| {
        let store = store.clone();
        Box::pin(async move { store.rescue_left(3).await.map(|_| ()) })
    }),
    ("fold", |store, _, _| {
        let store = store.clone();
        Box::pin(async move { store.fold_tally().await.map(|_| ()) })
    }),
    ("enqueue", |store, _, _| {
        let store = store.clone();
        Box::pin(async move {
            let mut bulk = store.bulk_enqueue(plain()).await?;
            for key in [None, Some("the same each time")] {
                bulk.push(&NewJob { custom_id: None, idempotency_key: key, metadata: None, request: "{}" }).await?;
            }
            bulk.commit().await.map(|_| ())
        })
    }),
    ("look at the roles", |store, _, _| {
        let store = store.clone();
        Box::pin(async move { store.roles().await.map(|_| ()) })
    }),
    ("claim", |store, worker, _| {
        let store = store.clone();
        Box::pin(async move {
            let lanes = store.lanes().await?;
            let take =
                |lane: &sluice::store::lanes::Lane| Take { flow: lane.flow, prio: lane.prio, after: 0, count: 3 };
            let takes: Vec<Take> = lanes.iter().map(take).collect();
            store.claim(worker, &takes, usize::MAX).await.map(|_| ())
        })
    }),
    ("beat", |store, worker, _| {
        let store = store.clone();
        Box::pin(
            async move { store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.map(|_| ()) },
        )
    }),
];

fn plain() -> BulkOptions {
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

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_stands_in_a_transaction_that_was_given_up() {
    let cluster = OwnCluster::start().await;
    for pooler in [Pooler::None, Pooler::Transaction] {
        for (name, operation) in OPERATIONS {
            given_up_everywhere(&cluster, pooler, name, operation).await;
        }
    }
    let log = cluster.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("transaction in progress")).collect();
    assert!(warnings.is_empty(), "{} of them: {:?}", warnings.len(), &warnings[..warnings.len().min(3)]);
    cluster.stop().await;
}

async fn given_up_everywhere(cluster: &OwnCluster, pooler: Pooler, name: &str, operation: Operation) {
    // The pool has one connection, so the next statement gets the abandoned one.
    let options: PgConnectOptions = cluster.url.parse().unwrap();
    let store = Store::connect_through(pooler, Purpose::Work, &Address::of(options), 1).await.unwrap();
    let (worker, _) = store.register("host", 1, "0.0.0").await.unwrap();
    let workers = async || -> i64 {
        sqlx::query_scalar("select count(*) from sluice.worker").fetch_one(&cluster.pool).await.unwrap()
    };
    for waits in 1.. {
        assert!(waits < 2_000, "{name} does not come to an end");
        sqlx::query("insert into sluice.job (request) select '{}' from generate_series(1, 3)")
            .execute(&cluster.pool)
            .await
            .unwrap();
        let lane = store.lanes().await.unwrap().remove(0);
        let take = Take { flow: lane.flow, prio: lane.prio, after: 0, count: 2 };
        let jobs = store.claim(worker, &[take], usize::MAX).await.unwrap().jobs;
        let ended = GivenUp { work: operation(&store, worker, jobs), waits }.await;

        // As text and in one message: so the statement begins when its transaction does, if that is its own.
        let row = sqlx::raw_sql("select now() = statement_timestamp(), current_setting('lock_timeout')")
            .fetch_one(store.pool())
            .await
            .unwrap();
        let found: (bool, String) = (row.get(0), row.get(1));
        let own = if pooler == Pooler::None { "20s" } else { "0" };
        assert_eq!(found, (true, own.to_owned()), "{name}, given up after {waits} waits, {pooler:?}");
        let before = workers().await;
        store.register("next", 1, "0.0.0").await.unwrap();
        assert_eq!(workers().await, before + 1, "{name}, given up after {waits} waits: the next write is not there");
        if let Some(ended) = ended {
            ended.unwrap();
            break;
        }
    }
    store.close().await;
}

/// Where nothing is given up, the connections that there are do all the work.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_at_work_keeps_its_connections() {
    let scenario = "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";
    let config = "[worker]\nmax_in_flight = 50\n[providers.one]\ndialect = \"openai\"\n\
                  base_url = \"http://simulator/one/v1\"\nlimits = { concurrency = 50 }\n\
                  [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                  [routes.default]\nrungs = [\"one/model\"]\n";
    let fleet = Fleet::new(scenario, config).await;
    let worker = fleet.start();
    let connections = async || -> BTreeSet<i32> {
        let pids: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where datname = current_database() and application_name = 'sluice'",
        )
        .fetch_all(&fleet.pool)
        .await
        .unwrap();
        pids.into_iter().collect()
    };
    fleet.enqueue("default", 500).await;
    fleet.until_answered(500).await;
    let warm = connections().await;
    fleet.enqueue("default", 2_000).await;
    fleet.until_answered(2_500).await;
    // Several rounds of upkeep, which has nothing to do and says so without a commit.
    let heartbeats = "select extract(epoch from max(seen_at) - min(started_at))::bigint from sluice.worker";
    until("it has worked for a while", async || fleet.number(heartbeats).await >= 12).await;
    let later = connections().await;
    // A statement that the server does not answer in time costs its connection, and the worker says so: on a machine
    // that is busy with other things that happens.
    let (lost, given_up) = (warm.difference(&later).count(), worker.said().matches("did not answer within").count());
    assert!(lost <= given_up, "{given_up} statements were given up, and {warm:?} became {later:?}");
    worker.stop().await;
}
