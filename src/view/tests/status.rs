//! The JSON of the status.

use super::*;
use crate::domain::WorkerState;
use crate::store::status::{
    Counted as Rows, Held, PauseRecord, RouteQueue, Spending, SpentOnCalls, Status, WorkerRecord,
};

fn a_bucket() -> SharedBucket {
    let rate = Rate { unit: Unit::Requests, amount: 600, per: Duration::from_mins(1), burst: 100 };
    let limits = Limits { rates: vec![rate], concurrency: Some(8) };
    let stock = Stock {
        dimension: Counted { unit: Unit::Requests, seconds: 60 },
        epoch: 0,
        left: 0,
        quiet: Duration::ZERO,
        refund: 0,
        refund_age: Duration::ZERO,
        need: 0,
        waiting: 0,
        want: 50,
    };
    let heard = Heard {
        dimension: Counted { unit: Unit::Tokens, seconds: 60 },
        limit: Some(90_000),
        remaining: Some(80_000),
        corrected: 0,
    };
    let wait = Wait {
        reason: Reason::RateLimit,
        remaining: Duration::from_secs(90),
        recheck: Duration::from_mins(10),
        drained: Vec::new(),
        too_steep: true,
    };
    let mut bucket = SharedBucket::default();
    let now = Timestamp(at(60).timestamp_millis());
    bucket.exchange(1, &limits, &Told { stocks: vec![stock], slots_wanted: 3, ..Told::default() }, now);
    let told = Told { heard: vec![heard], wait: Some(wait), refused: 3, ..Told::default() };
    bucket.exchange(2, &limits, &told, now);
    bucket
}

const RESUME: &str = "sluice job resume ID, or sluice job resume --route ROUTE";

#[test]
fn the_status_has_the_queue_the_workers_the_buckets_and_what_is_paused() {
    let counted = |rows, more| Rows { rows, more };
    let held = |rows, wakes_at| Held { count: counted(rows, false), wakes_at, ..Held::default() };
    let parked = [("scheduled".to_owned(), held(2, Some(at(120)))), ("paused".to_owned(), held(7, Some(at(61))))];
    let of_route = Held { names: ["nightly".to_owned()].into(), ..held(4, None) };
    let queue = RouteQueue {
        ready: counted(100_000, true),
        oldest_ready: Some(at(0)),
        held: [("batch paused".to_owned(), of_route)].into(),
        running: 3,
        long_calls: None,
        parked: parked.into(),
    };
    let gate = json!({
        "targets": [{
            "target": "openai/m", "bucket": "openai", "breaker": "open",
            "shut": { "reason": "breaker", "since_ms": null, "until_ms": at(90).timestamp_millis() },
            "said": "server_error, HTTP 500; 9 of the last 10 calls failed",
            "weak": [{
                "route": "default", "indicator": "soft_failures", "found": "9 of the last 10 answers were rejected",
                "shut": { "reason": "quality", "since_ms": at(30).timestamp_millis(), "until_ms": null },
            }],
            "paused": false, "calls": 9, "failures": 5,
        }],
        "keys": [{
            "provider": "openai", "key": "main", "state": "out", "shut": {
                "reason": "auth", "since_ms": at(30).timestamp_millis(), "until_ms": at(120).timestamp_millis(),
            },
        }],
    });
    let worker = WorkerRecord {
        id: 1,
        host: "db1".to_owned(),
        pid: 42,
        version: "0.1.0".to_owned(),
        started_at: at(0),
        seen_at: at(58),
        state: WorkerState::Live,
        holds: 3,
        stats: json!({ "version": 2, "in_flight": 3, "of_tomorrow": { "moon": "full" }, "gate": gate }),
    };
    let pause = PauseRecord {
        kind: "batch".to_owned(),
        name: "nightly".to_owned(),
        since: at(9),
        reason: Some("a reason".to_owned()),
        by: Some("ops".to_owned()),
    };
    let why = |waits_for, words, remedy: Value, until: Value, paused: Value| {
        json!([{
            "waits_for": waits_for, "words": words, "do": remedy, "until": until, "paused": paused, "keys": [],
            "stuck": false, "others_wait_for": [], "budget": null,
        }])
    };
    let now = Timestamp(at(60).timestamp_millis());
    let spent = Spent { cost: NanoUsd(10), uncertain: NanoUsd(3), unpriced: 0, accepted: 4 };
    let status = Status {
        now: at(60),
        routes: [("default".to_owned(), queue)].into(),
        spending: Spending {
            since: at(0),
            routes: [("default".to_owned(), SpentOnCalls { attempts: 9, spent })].into(),
            targets: [("openai/m".to_owned(), SpentOnCalls { attempts: 7, spent })].into(),
        },
        workers: vec![worker],
        pauses: vec![pause],
        buckets: [("openai".to_owned(), a_bucket().standing(now))].into(),
        budgets: Vec::new(),
        schedules: Vec::new(),
        ticks: Vec::new(),
        firing: BTreeMap::from([("critical".to_owned(), 2)]),
        needs: std::collections::HashMap::new(),
    };
    let expected = json!({
        "now": "2027-01-15T08:01:00Z",
        "routes": [{
            "route": "default", "ready": { "jobs": 100_000, "or_more": true },
            "oldest_ready": "2027-01-15T08:00:00Z", "running": 3, "long_calls": null, "running_waits_for": [],
            "parked": [
                {
                    "waits_for": "paused", "count": { "jobs": 7, "or_more": false }, "wakes_at": null,
                    "why": why("paused", "the job itself is paused", json!(RESUME), Value::Null, Value::Null),
                },
                {
                    "waits_for": "scheduled", "count": { "jobs": 2, "or_more": false },
                    "wakes_at": "2027-01-15T08:02:00Z",
                    "why": why(
                        "scheduled", "scheduled for 08:02:00 UTC (in 1m)", Value::Null,
                        json!("2027-01-15T08:02:00Z"), Value::Null,
                    ),
                },
            ],
            "ready_waits_for": [{
                "waits_for": "batch paused", "count": { "jobs": 4, "or_more": false },
                "why": why(
                    "batch paused", "batch nightly is paused by ops since 08:00:09 UTC (51s ago): a reason",
                    json!("sluice batch resume nightly"), Value::Null,
                    json!({
                        "kind": "batch", "name": "nightly", "by": "ops", "since": "2027-01-15T08:00:09Z",
                        "reason": "a reason",
                    }),
                ),
            }],
        }],
        "spent": [{
            "route": "default", "answered": 4, "attempts": 9, "cost": 1e-8, "uncertain_cost": 3e-9,
            "unpriced_attempts": 0, "cost_per_answer": 3e-9,
        }],
        "spent_by_target": [{
            "target": "openai/m", "answered": 4, "attempts": 7, "cost": 1e-8, "uncertain_cost": 3e-9,
            "unpriced_attempts": 0, "cost_per_answer": 3e-9,
        }],
        "spent_since": "2027-01-15T08:00:00Z",
        "workers": [{
            "worker": 1, "host": "db1", "pid": 42, "version": "0.1.0", "state": "live",
            "started_at": "2027-01-15T08:00:00Z", "seen_at": "2027-01-15T08:00:58Z", "holds": 3,
            "stats": { "version": 2, "in_flight": 3, "of_tomorrow": { "moon": "full" }, "gate": gate },
        }],
        "targets": [{
            "target": "openai/m", "bucket": "openai", "breakers": { "open": 1 },
            "shut": { "reason": "breaker", "since": null, "until": "2027-01-15T08:01:30Z" },
            "said": "server_error, HTTP 500; 9 of the last 10 calls failed",
            "passed_over": [{
                "route": "default", "shut": { "reason": "quality", "since": "2027-01-15T08:00:30Z", "until": null },
                "indicator": "soft_failures", "found": "9 of the last 10 answers were rejected", "workers": 1,
            }],
            "paused": false, "calls": 9, "failures": 5,
        }],
        "keys": [{
            "provider": "openai", "key": "main", "worker": 1, "state": "out",
            "shut": { "reason": "auth", "since": "2027-01-15T08:00:30Z", "until": "2027-01-15T08:02:00Z" },
        }],
        "buckets": [{
            "bucket": "openai",
            "limits": [
                {
                    "limit": "requests/min", "unit": "requests", "per_seconds": 60, "amount": 600, "capacity": 99,
                    "source": "configured", "level": 49, "leased": { "1": 50 }, "used_last_minute": 0,
                    "utilisation": 0.0,
                },
                {
                    "limit": "tokens/min", "unit": "tokens", "per_seconds": 60, "amount": 90_000,
                    "capacity": 89_962, "source": "learned", "level": 80_000, "leased": {}, "used_last_minute": 0,
                    "utilisation": 0.0,
                },
            ],
            "concurrency": 8, "places": { "1": 3 }, "shut": {
                "reason": "rate_limit", "since": "2027-01-15T08:01:00Z", "until": "2027-01-15T08:02:30Z",
            },
            "asked_until": null, "slowed": true, "refused_last_minute": 3,
        }],
        "game_days": [],
        "paused": [{
            "kind": "batch", "name": "nightly", "since": "2027-01-15T08:00:09Z", "reason": "a reason", "by": "ops",
        }],
        "budgets": [],
        "schedules": [],
        "alerts": [{ "severity": "critical", "firing": 2 }],
    });
    assert_eq!(shown(&StatusView::from(status)), expected);
}
