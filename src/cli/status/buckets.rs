//! The limits as all workers share them.

use super::super::output::{Cell, Report};
use super::{age, gate};
use crate::domain::Timestamp;
use crate::domain::shared_bucket::BucketStanding;
use crate::store::status::Status;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// A line per limit; what is true of the whole bucket stands on the first of them. A bucket that no live worker has,
/// and of which nothing is missing, has none.
pub(super) fn report(status: &Status) -> Report {
    let mut report = Report::new([
        "bucket",
        "limit",
        "amount",
        "source",
        "level",
        "leased",
        "last_minute",
        "places",
        "of",
        "shut",
        "opens_in",
        "429s",
    ]);
    let in_use: BTreeSet<&str> =
        gate(status, "buckets").filter_map(|(_, bucket)| bucket.get("name").and_then(Value::as_str)).collect();
    for (name, standing) in &status.buckets {
        if standing.is_idle() && !in_use.contains(name.as_str()) {
            continue;
        }
        let shut = standing.gate;
        let mut of_all = [
            by_worker(&standing.places),
            standing.concurrency.map(i64::from).into(),
            shut.map(|gate| gate.shut.reason.as_str()).into(),
            shut.and_then(|gate| instant(gate.shut.until)).map(|until| age(until, status.now)).into(),
            count(standing.refused_last_minute),
        ];
        // A bucket without such limits has its line too: its places, and whether it is shut.
        for index in 0..standing.limits.len().max(1) {
            let of_one = match standing.limits.get(index) {
                Some(limit) => [
                    limit.limit.as_str().into(),
                    count(limit.amount),
                    limit.source.as_str().into(),
                    limit.level.into(),
                    by_worker(&limit.leased),
                    Cell::Share(limit.utilisation),
                ],
                None => [const { Cell::Empty }; 6],
            };
            report.row([name.as_str().into()].into_iter().chain(of_one).chain(of_all));
            of_all = [const { Cell::Empty }; 5];
        }
    }
    report
}

/// `12:40 13:20`: forty to the worker 12 and twenty to the worker 13.
fn by_worker(amounts: &BTreeMap<i64, impl Display>) -> Cell {
    let parts: Vec<String> = amounts.iter().map(|(worker, amount)| format!("{worker}:{amount}")).collect();
    if parts.is_empty() { Cell::Empty } else { Cell::Text(parts.join(" ")) }
}

fn count(units: u64) -> Cell {
    Cell::Count(i64::try_from(units).unwrap_or(i64::MAX))
}

fn instant(at: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(at.0)
}

/// All buckets for programs, the idle ones too.
pub(super) fn as_json(status: &Status) -> Value {
    status.buckets.iter().map(|(name, standing)| bucket_as_json(name, standing)).collect()
}

fn bucket_as_json(name: &str, standing: &BucketStanding) -> Value {
    let limits = standing.limits.iter().map(|limit| {
        json!({
            "limit": limit.limit, "unit": limit.unit.as_str(), "per_seconds": limit.per_seconds,
            "amount": limit.amount, "capacity": limit.capacity, "source": limit.source.as_str(),
            "level": limit.level, "leased": limit.leased,
            "used_last_minute": limit.spent_last_minute, "utilisation": limit.utilisation,
        })
    });
    let shut = standing.gate;
    json!({
        "bucket": name, "limits": limits.collect::<Value>(),
        "concurrency": standing.concurrency, "places": standing.places,
        "shut": shut.map(|gate| gate.shut.reason.as_str()),
        "shut_since": shut.and_then(|gate| instant(gate.shut.since)),
        "shut_until": shut.and_then(|gate| instant(gate.shut.until)),
        "asked_until": shut.and_then(|gate| gate.asked).and_then(|asked| instant(asked.until)),
        "slowed": standing.slowed, "refused_last_minute": standing.refused_last_minute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::{Dimension, Heard};
    use crate::domain::shared_bucket::{Report as Told, SharedBucket, Stock, Wait};
    use crate::domain::shut::Reason;
    use crate::domain::{Limits, Rate, Unit};
    use crate::store::status::WorkerRecord;
    use std::time::Duration;

    const NOW: i64 = 1_800_000_000_000;
    const REQUESTS: Dimension = Dimension { unit: Unit::Requests, seconds: 60 };

    fn limits(concurrency: Option<u32>) -> Limits {
        let rate = Rate { unit: Unit::Requests, amount: 600, per: Duration::from_mins(1), burst: 100 };
        Limits { rates: vec![rate], concurrency }
    }

    /// A worker that spent so much, and would like to hold so much.
    fn told(left: i64, want: u64, slots_wanted: u32) -> Told {
        let stock = Stock {
            dimension: REQUESTS,
            epoch: 0,
            left,
            quiet: Duration::ZERO,
            refund: 0,
            refund_age: Duration::ZERO,
            need: 0,
            want,
        };
        Told { stocks: vec![stock], slots_wanted, ..Told::default() }
    }

    fn status(buckets: impl IntoIterator<Item = (&'static str, SharedBucket)>) -> Status {
        let standing = |(name, bucket): (&str, SharedBucket)| (name.to_owned(), bucket.standing(Timestamp(NOW)));
        Status {
            now: DateTime::from_timestamp_millis(NOW).unwrap(),
            routes: BTreeMap::new(),
            workers: Vec::new(),
            pauses: Vec::new(),
            buckets: buckets.into_iter().map(standing).collect(),
        }
    }

    fn rows(status: &Status) -> Vec<Value> {
        serde_json::to_value(report(status)).unwrap().as_array().unwrap().clone()
    }

    /// Two workers hold a part of it, the first has spent 30, and tokens were heard of.
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

    #[test]
    fn a_limit_has_a_line_and_the_bucket_is_on_the_first() {
        let rows = rows(&status([("openai", shared())]));
        assert_eq!(rows.len(), 2);
        let seen = |row: &Value| {
            ["bucket", "limit", "amount", "source", "level", "leased", "places", "of", "429s"]
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
        let told = &as_json(&status)[0];
        assert_eq!(told["shut_until"], "2027-01-15T08:01:30Z");
        assert_eq!((&told["slowed"], &told["refused_last_minute"]), (&true.into(), &3.into()));
    }

    #[test]
    fn an_idle_bucket_is_shown_only_when_a_worker_has_it() {
        let mut idle = SharedBucket::default();
        idle.exchange(1, &limits(None), &told(0, 0, 0), Timestamp(NOW));
        let mut status = status([("idle", idle)]);
        assert!(report(&status).is_empty());
        assert_eq!(as_json(&status)[0]["limits"][0]["level"], 99, "programs see it all the same");
        status.workers.push(WorkerRecord {
            id: 1,
            host: "db1".to_owned(),
            pid: 42,
            version: "0.1.0".to_owned(),
            started_at: status.now,
            seen_at: status.now,
            state: "live".to_owned(),
            holds: 0,
            stats: json!({ "gate": { "buckets": [{ "name": "idle" }] } }),
        });
        assert_eq!(rows(&status)[0]["level"], 99);
        "dead".clone_into(&mut status.workers[0].state);
        assert!(report(&status).is_empty());
    }
}
