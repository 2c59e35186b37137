//! The shared buckets in a real Postgres: only the process that read a register last can write it.

use crate::support::postgres;
use sluice::domain::shared_bucket::{Report, SharedBucket, Stock};
use sluice::domain::{Limits, Rate, Unit};
use sluice::store::Store;
use sluice::store::quota::Rewrite;
use std::collections::HashSet;
use std::time::Duration;

fn limits(per_minute: u64, burst: u64) -> Limits {
    let rate = Rate { unit: Unit::Requests, amount: per_minute, per: Duration::from_mins(1), burst };
    Limits { rates: vec![rate], concurrency: None }
}

fn wants(units: u64, left: i64) -> Report {
    let dimension = limits(1, 1).rates[0].dimension();
    let (quiet, refund_age) = (Duration::ZERO, Duration::ZERO);
    let stock = Stock { dimension, epoch: 0, left, quiet, refund: 0, refund_age, need: 1, want: units, waiting: units };
    Report { stocks: vec![stock], ..Report::default() }
}

/// One process asks for `units`, as often as it takes until no other process was faster; returns what it was lent.
async fn borrow(store: &Store, worker: i64, bucket: &str, limits: &Limits, units: u64) -> u64 {
    loop {
        let (registers, now) = store.read_buckets(&[bucket.to_owned()]).await.unwrap();
        let register = &registers[bucket];
        let mut state = register.state.clone();
        let told = state.exchange(worker, limits, &wants(units, 0), now);
        let rewrite = Rewrite { id: register.id, from: register.version, state };
        if store.write_buckets(&[rewrite]).await.unwrap() == [register.id] {
            return told.slices[0].held;
        }
    }
}

#[tokio::test]
async fn of_those_who_read_the_same_state_one_writes() {
    let database = postgres::database().await;
    let store = &database.store().await;
    let names = ["a".to_owned()];
    let (first, _) = store.read_buckets(&names).await.unwrap();
    let (second, _) = store.read_buckets(&names).await.unwrap();
    let (id, from) = (first["a"].id, first["a"].version);
    assert_eq!((id, from), (second["a"].id, second["a"].version));
    let rewrite = || Rewrite { id, from, state: SharedBucket::default() };
    assert_eq!(store.write_buckets(&[rewrite()]).await.unwrap(), [id]);
    assert_eq!(store.write_buckets(&[rewrite()]).await.unwrap(), [0_i64; 0]);
    let (third, _) = store.read_buckets(&names).await.unwrap();
    assert_eq!(third["a"].version, from + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_at_once_no_more_is_lent_than_there_is() {
    let database = postgres::database().await;
    // A unit in ten hours: nothing comes back while this runs.
    let limits = Limits {
        rates: vec![Rate { unit: Unit::Requests, amount: 2, per: Duration::from_hours(20), burst: 40 }],
        concurrency: None,
    };
    let dimension = limits.rates[0].dimension();
    let shared = database.store().await;
    let asking = (0..16_i64).map(|worker| {
        let (store, limits) = (shared.clone(), limits.clone());
        tokio::spawn(async move {
            let mut spent = 0;
            for _ in 0..5 {
                loop {
                    let (registers, now) = store.read_buckets(&["b".to_owned()]).await.unwrap();
                    let mut state = registers["b"].state.clone();
                    let mut report = wants(1, 0);
                    report.stocks[0].dimension = dimension;
                    let told = state.exchange(worker, &limits, &report, now);
                    let rewrite = Rewrite { id: registers["b"].id, from: registers["b"].version, state };
                    if !store.write_buckets(&[rewrite]).await.unwrap().is_empty() {
                        // The units lent are spent before the next report.
                        spent += told.slices[0].held;
                        break;
                    }
                }
            }
            spent
        })
    });
    let mut spent = 0;
    for asked in asking.collect::<Vec<_>>() {
        spent += asked.await.unwrap();
    }
    assert_eq!(spent, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_many_need_first_is_made_once() {
    let database = postgres::database().await;
    let names: Vec<String> = (0..20).map(|number| format!("bucket_{number}")).collect();
    let shared = database.store().await;
    let reading = (0..8).map(|_| {
        let (store, names) = (shared.clone(), names.clone());
        tokio::spawn(async move { store.read_buckets(&names).await.unwrap().0 })
    });
    let mut ids = HashSet::new();
    for read in reading.collect::<Vec<_>>() {
        let read = read.await.unwrap();
        assert_eq!(read.len(), 20);
        ids.extend(read.values().map(|register| register.id));
    }
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn the_newest_state_is_found_however_many_dead_ones_a_snapshot_keeps() {
    let database = postgres::database().await;
    let limits = limits(60_000, 1_000);
    let store = database.store().await;
    borrow(&store, 1, "c", &limits, 1).await;
    let pool = database.pool();
    let mut reader = pool.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *reader).await.unwrap();
    sqlx::query("select count(*) from sluice.bucket_state").fetch_one(&mut *reader).await.unwrap();
    for _ in 0..500 {
        borrow(&store, 1, "c", &limits, 1).await;
    }
    let plan: Vec<String> = sqlx::query_scalar(
        "explain (analyze, buffers, timing off, costs off) select version from sluice.bucket_state s
          where s.bucket = (select id from sluice.bucket where name = 'c') order by version desc limit 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("bucket_state_pkey"), "{plan}");
    // The newest comes first: dead rows are not looked at.
    let touched: u32 = plan
        .lines()
        .find_map(|line| line.trim().strip_prefix("Buffers: shared hit=")?.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("{plan}"));
    assert!(touched <= 20, "{plan}");
    reader.rollback().await.unwrap();
}
