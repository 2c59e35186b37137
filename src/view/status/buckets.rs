//! The limits, as all workers share them.

use super::StatusView;
use super::tables::age;
use crate::view::table::{Cell, Layout, Table};
use std::collections::BTreeMap;
use std::fmt::Display;

/// A line per limit; facts about the whole bucket stand on the first of them. A bucket that no live worker has, and of
/// which nothing is missing, gets no line.
#[must_use]
pub fn table(status: &StatusView) -> Table {
    let mut table = Table::new([
        "bucket",
        "limit",
        "amount",
        "source",
        "level",
        "leased",
        "last_minute",
        "places",
        "concurrency",
        "shut",
        "opens_in",
        "429s",
    ])
    .laid_out(Layout {
        wide: &["source", "leased", "places"],
        when_told: &["concurrency", "shut", "opens_in", "429s"],
        give_way: &["concurrency", "429s", "last_minute", "amount"],
        ..Layout::default()
    });
    let in_use = status.buckets_in_use();
    for bucket in &status.buckets {
        if bucket.is_idle && !in_use.contains(bucket.bucket.as_str()) {
            continue;
        }
        let mut of_all = [
            by_worker(&bucket.places),
            bucket.concurrency.map(i64::from).into(),
            bucket.shut.as_ref().and_then(|shut| shut.reason.as_deref()).into(),
            bucket.shut.as_ref().and_then(|shut| shut.until).map(|until| age(until, status.now)).into(),
            bucket.refused_last_minute.into(),
        ];
        // A bucket without such limits gets a line too: its places, and whether it is shut.
        for index in 0..bucket.limits.len().max(1) {
            let of_one = match bucket.limits.get(index) {
                Some(limit) => [
                    limit.limit.as_str().into(),
                    limit.amount.into(),
                    limit.source.into(),
                    limit.level.into(),
                    by_worker(&limit.leased),
                    Cell::Share(limit.utilisation),
                ],
                None => [const { Cell::Empty }; 6],
            };
            table.row([bucket.bucket.as_str().into()].into_iter().chain(of_one).chain(of_all));
            of_all = [const { Cell::Empty }; 5];
        }
    }
    table
}

/// `12:40 13:20`: forty to the worker 12 and twenty to the worker 13.
fn by_worker(amounts: &BTreeMap<i64, impl Display>) -> Cell {
    let parts: Vec<String> = amounts.iter().map(|(worker, amount)| format!("{worker}:{amount}")).collect();
    if parts.is_empty() { Cell::Empty } else { Cell::Text(parts.join(" ")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::limits::{Dimension, Heard};
    use crate::domain::shared_bucket::{BucketStanding, Report as Told, SharedBucket, Stock, Wait};
    use crate::domain::shut::Reason;
    use crate::domain::{Limits, Rate, Unit, WorkerState};
    use crate::store::status::{Spending, Status, WorkerRecord};
    use chrono::DateTime;
    use serde_json::{Value, json};
    use std::time::Duration;

    const NOW: i64 = 1_800_000_000_000;
    const REQUESTS: Dimension = Dimension { unit: Unit::Requests, seconds: 60 };

    fn limits(concurrency: Option<u32>) -> Limits {
        let rate = Rate { unit: Unit::Requests, amount: 600, per: Duration::from_mins(1), burst: 100 };
        Limits { rates: vec![rate], concurrency }
    }

    /// The report of a worker that spent this much, and would like to hold that much.
    fn told(left: i64, want: u64, slots_wanted: u32) -> Told {
        let stock = Stock {
            dimension: REQUESTS,
            epoch: 0,
            left,
            quiet: Duration::ZERO,
            refund: 0,
            refund_age: Duration::ZERO,
            need: 0,
            waiting: 0,
            want,
        };
        Told { stocks: vec![stock], slots_wanted, ..Told::default() }
    }

    fn status(buckets: impl IntoIterator<Item = (&'static str, SharedBucket)>) -> Status {
        let standing = |(name, bucket): (&str, SharedBucket)| (name.to_owned(), bucket.standing(Timestamp(NOW)));
        Status {
            now: DateTime::from_timestamp_millis(NOW).unwrap(),
            routes: BTreeMap::new(),
            spending: Spending::default(),
            workers: Vec::new(),
            pauses: Vec::new(),
            buckets: buckets.into_iter().map(standing).collect(),
            budgets: Vec::new(),
            schedules: Vec::new(),
            ticks: Vec::new(),
            firing: BTreeMap::new(),
            needs: std::collections::HashMap::new(),
        }
    }

    fn rows(status: &Status) -> Vec<Value> {
        serde_json::to_value(table(&status.clone().into())).unwrap().as_array().unwrap().clone()
    }

    /// The view as programs see it.
    fn in_json(status: &Status) -> Value {
        serde_json::to_value(StatusView::from(status.clone()).buckets).unwrap()
    }

    /// Two workers hold a part of it, the first has spent 30, and answers told of a token limit.
    fn shared() -> SharedBucket {
        let mut bucket = SharedBucket::default();
        bucket.exchange(1, &limits(Some(8)), &told(0, 50, 3), Timestamp(NOW));
        bucket.exchange(1, &limits(Some(8)), &told(20, 20, 3), Timestamp(NOW));
        let heard = Heard {
            dimension: Dimension { unit: Unit::Tokens, seconds: 60 },
            limit: Some(90_000),
            remaining: Some(80_000),
            corrected: 0,
        };
        let told = Told { heard: vec![heard], ..told(0, 10, 2) };
        bucket.exchange(2, &limits(Some(8)), &told, Timestamp(NOW));
        bucket
    }

    pub(crate) fn shared_by_name() -> BTreeMap<String, BucketStanding> {
        BTreeMap::from([("azure_westeurope".to_owned(), shared().standing(Timestamp(NOW)))])
    }

    #[test]
    fn a_limit_has_a_line_and_the_bucket_is_on_the_first() {
        let rows = rows(&status([("openai", shared())]));
        assert_eq!(rows.len(), 2);
        let seen = |row: &Value| {
            ["bucket", "limit", "amount", "source", "level", "leased", "places", "concurrency", "429s"]
                .map(|key| row[key].clone())
        };
        // One of the hundred is held back against jitter.
        assert_eq!(
            json!(seen(&rows[0])),
            json!(["openai", "requests/min", 600, "configured", 39, "1:20 2:10", "1:3 2:2", 8, 0])
        );
        assert!((rows[0]["last_minute"].as_f64().unwrap() - 0.05).abs() < 1e-9, "30 of 600: {}", rows[0]);
        assert_eq!(
            json!(seen(&rows[1])),
            json!(["openai", "tokens/min", 90_000, "learned", 80_000, null, null, null, null])
        );
    }

    #[test]
    fn a_shut_bucket_says_why_and_until_when() {
        let mut bucket = SharedBucket::default();
        let wait = Wait {
            reason: Reason::RateLimit,
            remaining: Duration::from_secs(90),
            recheck: Duration::from_mins(10),
            drained: Vec::new(),
            too_steep: true,
        };
        let told = Told { wait: Some(wait), refused: 3, ..Told::default() };
        bucket.exchange(1, &Limits::default(), &told, Timestamp(NOW));
        let status = status([("free", bucket)]);
        let rows = rows(&status);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["limit"], Value::Null);
        assert_eq!(
            (&rows[0]["shut"], &rows[0]["opens_in"], &rows[0]["429s"]),
            (&"rate_limit".into(), &"1m 30s".into(), &3.into())
        );
        let told = &in_json(&status)[0];
        assert_eq!(told["shut"]["until"], "2027-01-15T08:01:30Z");
        assert_eq!((&told["slowed"], &told["refused_last_minute"]), (&true.into(), &3.into()));
    }

    #[test]
    fn an_idle_bucket_is_shown_only_when_a_worker_has_it() {
        let mut idle = SharedBucket::default();
        idle.exchange(1, &limits(None), &told(0, 0, 0), Timestamp(NOW));
        let mut status = status([("idle", idle)]);
        assert!(rows(&status).is_empty());
        assert_eq!(in_json(&status)[0]["limits"][0]["level"], 99, "programs see it all the same");
        status.workers.push(WorkerRecord {
            id: 1,
            host: "db1".to_owned(),
            pid: 42,
            version: "0.1.0".to_owned(),
            started_at: status.now,
            seen_at: status.now,
            state: WorkerState::Live,
            holds: 0,
            stats: json!({ "gate": { "buckets": [{ "name": "idle" }] } }),
        });
        assert_eq!(rows(&status)[0]["level"], 99);
        status.workers[0].state = WorkerState::Dead;
        assert!(rows(&status).is_empty());
    }
}
