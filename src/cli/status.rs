//! `sluice status`: what waits, who works, what the limits leave, what is open, what is paused.

mod buckets;

use super::GlobalArgs;
use super::context::Context;
use super::job::PAUSED;
use super::output::{Cell, Format, Output, OutputError, Report};
use crate::exit_code::ExitCode;
use crate::store::status::{Counted, Status, WorkerRecord};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nothing to choose.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {}

/// Prints it.
pub async fn run(_: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let status = context.store.status().await?;
    if context.output.format() == Format::Json {
        context.output.json(&as_json(&status))?;
    } else {
        print(&mut context.output, &status)?;
    }
    if !status.routes.is_empty() && !status.workers.iter().any(WorkerRecord::is_alive) {
        context.output.warn("no worker is running: start one with `sluice worker`");
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

fn print(output: &mut Output, status: &Status) -> Result<(), OutputError> {
    let sections = [
        ("Queue", queue(status), "nothing waits and nothing runs"),
        ("Workers", workers(status), "none"),
        ("Buckets", buckets::report(status), ""),
        ("Targets", targets(status), ""),
        ("Keys", keys(status), ""),
        ("Paused", pauses(status), ""),
    ];
    let mut first = true;
    for (title, report, when_empty) in sections {
        if report.is_empty() && when_empty.is_empty() {
            continue;
        }
        if !first {
            output.line("")?;
        }
        first = false;
        // A mark by which programs that read the plain shape tell the sections apart.
        output.line(if output.format() == Format::Table {
            title.to_owned()
        } else {
            format!("# {}", title.to_lowercase())
        })?;
        if report.is_empty() {
            output.line(when_empty)?;
        } else {
            output.report(&report)?;
        }
    }
    Ok(())
}

/// `100000+` where counting stopped.
fn counted(count: Counted) -> Cell {
    if count.more { Cell::Text(in_short(count)) } else { Cell::Count(count.rows) }
}

fn in_short(count: Counted) -> String {
    format!("{}{}", count.rows, if count.more { "+" } else { "" })
}

fn age(now: DateTime<Utc>, since: DateTime<Utc>) -> Cell {
    let seconds = u64::try_from((now - since).num_seconds()).unwrap_or(0);
    Cell::Text(humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string())
}

/// When the first of them wakes; paused jobs do not by themselves.
fn wakes(reason: &str, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (reason != PAUSED).then_some(at)
}

fn queue(status: &Status) -> Report {
    let mut report = Report::new(["route", "ready", "oldest", "running", "parked", "waits_for", "wakes_in"]);
    for (route, queue) in &status.routes {
        let mut cells = [
            route.as_str().into(),
            counted(queue.ready),
            queue.oldest_ready.map(|since| age(status.now, since)).into(),
            queue.running.into(),
        ];
        // A line for each reason; what is true of the whole route stands on the first of them.
        let held = queue.held.iter().map(|(reason, count)| {
            let of_some = if *count == queue.ready { String::new() } else { format!(" ({} ready)", in_short(*count)) };
            [Cell::Empty, Cell::Text(format!("{reason}{of_some}")), Cell::Empty]
        });
        let parked = queue.parked.iter().map(|(reason, (count, wakes_at))| {
            let wakes_in = wakes(reason, *wakes_at).map(|at| age(at, status.now));
            [counted(*count), reason.as_str().into(), wakes_in.unwrap_or(Cell::Empty)]
        });
        let mut lines: Vec<[Cell; 3]> = held.chain(parked).collect();
        if queue.parked.is_empty() {
            match lines.first_mut() {
                Some([parked, ..]) => *parked = Cell::Count(0),
                None => lines.push([Cell::Count(0), Cell::Empty, Cell::Empty]),
            }
        }
        for waits in lines {
            report.row(cells.iter().cloned().chain(waits));
            cells = [route.as_str().into(), Cell::Empty, Cell::Empty, Cell::Empty];
        }
    }
    report
}

fn workers(status: &Status) -> Report {
    let mut report = Report::new([
        "worker",
        "host",
        "pid",
        "version",
        "state",
        "seen",
        "up",
        "in_flight",
        "of",
        "calls",
        "waiting",
        "succeeded",
        "failed",
        "attempts",
        "unsettled",
    ]);
    for worker in &status.workers {
        let number = |key: &str| Cell::from(worker.stats.get(key).and_then(Value::as_i64));
        // Calls that run and calls that wait for their turn, in all buckets.
        let calls = |key: &str| -> Cell {
            let counts = gate_of(worker, "buckets").filter_map(|bucket| bucket.get(key).and_then(Value::as_i64));
            counts.reduce(i64::saturating_add).into()
        };
        let stopping = worker.stats.get("stopping").and_then(Value::as_bool).unwrap_or(false);
        let state = if worker.is_alive() && stopping { "stopping" } else { &worker.state };
        report.row([
            Cell::Text(worker.id.to_string()),
            worker.host.as_str().into(),
            Cell::Text(worker.pid.to_string()),
            worker.version.as_str().into(),
            state.into(),
            age(status.now, worker.seen_at),
            age(worker.seen_at, worker.started_at),
            worker.holds.into(),
            number("max_in_flight"),
            calls("running"),
            calls("waiting"),
            number("succeeded"),
            number("failed"),
            number("attempts"),
            number("unsettled"),
        ]);
    }
    report
}

/// A part of what a worker says of its gate.
fn gate_of<'a>(worker: &'a WorkerRecord, part: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let parts = worker.stats.get("gate").and_then(|gate| gate.get(part)).and_then(Value::as_array);
    parts.into_iter().flatten()
}

/// The same part of all live workers.
fn gate<'a>(status: &'a Status, part: &'a str) -> impl Iterator<Item = (i64, &'a Value)> {
    let alive = status.workers.iter().filter(|worker| worker.is_alive());
    alive.flat_map(move |worker| gate_of(worker, part).map(move |entry| (worker.id, entry)))
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// How long until an instant that a worker gave in milliseconds since the epoch.
fn opens_in(now: DateTime<Utc>, value: &Value, key: &str) -> Cell {
    let until = value.get(key).and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
    until.map(|until| age(until, now)).into()
}

/// One target as several workers see it.
#[derive(Default)]
struct TargetView {
    bucket: Option<String>,
    /// Workers by the state of their breaker.
    breakers: BTreeMap<String, usize>,
    closed: Option<String>,
    closed_until_ms: Option<i64>,
    paused: bool,
    calls: i64,
    failures: i64,
}

fn target_views(status: &Status) -> BTreeMap<String, TargetView> {
    let mut views: BTreeMap<String, TargetView> = BTreeMap::new();
    for (_, target) in gate(status, "targets") {
        let Some(name) = text(target, "target") else { continue };
        let view = views.entry(name).or_default();
        let number = |key: &str| target.get(key).and_then(Value::as_i64);
        view.bucket = view.bucket.take().or_else(|| text(target, "bucket"));
        if let Some(breaker) = text(target, "breaker") {
            *view.breakers.entry(breaker).or_default() += 1;
        }
        view.closed = view.closed.take().or_else(|| text(target, "closed"));
        view.closed_until_ms = view.closed_until_ms.max(number("closed_until_ms"));
        view.paused |= target.get("paused").and_then(Value::as_bool).unwrap_or(false);
        view.calls += number("calls").unwrap_or(0);
        view.failures += number("failures").unwrap_or(0);
    }
    views
}

/// `closed` when all workers agree, else how many see it how.
fn breaker_in_words(breakers: &BTreeMap<String, usize>) -> Cell {
    match breakers.len() {
        0 => Cell::Empty,
        1 => breakers.keys().next().map(String::as_str).into(),
        _ => {
            let parts: Vec<String> = breakers.iter().map(|(state, workers)| format!("{state} ({workers})")).collect();
            Cell::Text(parts.join(", "))
        }
    }
}

fn targets(status: &Status) -> Report {
    let mut report = Report::new(["target", "bucket", "breaker", "closed", "opens_in", "paused", "calls", "failures"]);
    for (target, view) in target_views(status) {
        let until = view.closed_until_ms.and_then(DateTime::from_timestamp_millis);
        report.row([
            target.into(),
            view.bucket.into(),
            breaker_in_words(&view.breakers),
            view.closed.into(),
            until.map(|until| age(until, status.now)).into(),
            Cell::Flag(view.paused),
            view.calls.into(),
            view.failures.into(),
        ]);
    }
    report
}

/// The keys by their names; a key that is out is so for one worker, as each has its own experience of it.
fn keys(status: &Status) -> Report {
    let mut report = Report::new(["provider", "key", "worker", "state", "why", "for", "tried_in"]);
    for (worker, key) in gate(status, "keys") {
        let since = key.get("since_ms").and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
        report.row([
            text(key, "provider").into(),
            text(key, "key").into(),
            Cell::Text(worker.to_string()),
            text(key, "state").into(),
            text(key, "why").into(),
            since.map(|since| age(status.now, since)).into(),
            opens_in(status.now, key, "until_ms"),
        ]);
    }
    report
}

fn pauses(status: &Status) -> Report {
    let mut report = Report::new(["kind", "name", "since", "reason"]);
    for pause in &status.pauses {
        report.row([
            pause.kind.as_str().into(),
            pause.name.as_str().into(),
            pause.since.into(),
            pause.reason.as_deref().into(),
        ]);
    }
    report
}

/// The same for programs; what a worker says of itself is passed on whole.
#[must_use]
pub fn as_json(status: &Status) -> Value {
    let count = |count: Counted| json!({ "jobs": count.rows, "or_more": count.more });
    let routes = status.routes.iter().map(|(name, queue)| {
        let parked = queue.parked.iter().map(
            |(reason, (jobs, wakes_at))| json!({ "waits_for": reason, "count": count(*jobs), "wakes_at": wakes(reason, *wakes_at) }),
        );
        json!({
            "route": name, "ready": count(queue.ready), "oldest_ready": queue.oldest_ready, "running": queue.running,
            "parked": parked.collect::<Value>(),
            "ready_waits_for": queue.held.iter()
                .map(|(reason, jobs)| json!({ "waits_for": reason, "count": count(*jobs) }))
                .collect::<Value>(),
        })
    });
    let workers = status.workers.iter().map(|worker| {
        json!({
            "worker": worker.id, "host": worker.host, "pid": worker.pid, "version": worker.version,
            "state": worker.state, "started_at": worker.started_at, "seen_at": worker.seen_at, "holds": worker.holds,
            "stats": worker.stats,
        })
    });
    let pauses = status
        .pauses
        .iter()
        .map(|pause| json!({ "kind": pause.kind, "name": pause.name, "since": pause.since, "reason": pause.reason }));
    json!({
        "now": status.now, "routes": routes.collect::<Value>(), "workers": workers.collect::<Value>(),
        "buckets": buckets::as_json(status), "paused": pauses.collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::status::RouteQueue;

    fn worker(id: i64, breaker: &str) -> WorkerRecord {
        WorkerRecord {
            id,
            host: "db1".to_owned(),
            pid: 42,
            version: "0.1.0".to_owned(),
            started_at: at(0),
            seen_at: at(58),
            state: "live".to_owned(),
            holds: 3,
            stats: json!({
                "in_flight": 3, "max_in_flight": 500, "succeeded": 10, "failed": 1, "attempts": 12, "unsettled": 0,
                "stopping": false,
                "gate": {
                    "buckets": [{
                        "name": "openai", "rates": [{ "limit": "requests/min", "held": 20, "headroom": 20 }],
                        "concurrency": 20, "running": 3, "waiting": 4, "shut": null,
                    }, {
                        "name": "free", "rates": [], "concurrency": null, "running": 2, "waiting": 0, "shut": null,
                    }],
                    "targets": [{
                        "target": "openai/gpt-4o-mini", "bucket": "openai", "breaker": breaker, "closed": null,
                        "closed_until_ms": null, "paused": false, "calls": 6, "failures": 1,
                    }],
                    "keys": [{
                        "provider": "openai", "key": "OPENAI_A", "state": "in_service", "why": null, "since_ms": null,
                        "until_ms": null,
                    }, {
                        "provider": "openai", "key": "OPENAI_B", "state": "out", "why": "quota_exhausted",
                        "since_ms": 1_800_000_030_000_i64, "until_ms": 1_800_000_120_000_i64,
                    }],
                },
            }),
        }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn status() -> Status {
        let parked = [
            ("scheduled".to_owned(), (Counted { rows: 2, more: false }, at(120))),
            ("openai/gpt-4o-mini: rate_limit".to_owned(), (Counted { rows: 7, more: false }, at(61))),
        ];
        let queue = RouteQueue {
            ready: Counted { rows: 100_000, more: true },
            oldest_ready: Some(at(0)),
            held: BTreeMap::new(),
            running: 3,
            parked: parked.into_iter().collect(),
        };
        Status {
            now: at(60),
            routes: [("default".to_owned(), queue)].into_iter().collect(),
            workers: vec![worker(1, "closed"), worker(2, "open")],
            pauses: Vec::new(),
            buckets: BTreeMap::new(),
        }
    }

    fn json_of(report: &Report) -> Value {
        serde_json::to_value(report).unwrap()
    }

    #[test]
    fn a_route_has_a_line_for_each_thing_it_waits_for() {
        let rows = json_of(&queue(&status()));
        assert_eq!(rows.as_array().unwrap().len(), 2);
        assert_eq!(
            (&rows[0]["ready"], &rows[0]["oldest"], &rows[0]["running"]),
            (&"100000+".into(), &"1m".into(), &3.into())
        );
        assert_eq!((&rows[0]["parked"], &rows[0]["wakes_in"]), (&7.into(), &"1s".into()));
        assert_eq!((&rows[1]["waits_for"], &rows[1]["ready"]), (&"scheduled".into(), &Value::Null));
    }

    #[test]
    fn what_holds_up_ready_jobs_has_a_line_of_its_own() {
        let mut status = status();
        let queue_of = status.routes.get_mut("default").unwrap();
        queue_of.ready = Counted { rows: 10, more: false };
        queue_of.held.insert("batch paused".to_owned(), Counted { rows: 4, more: false });
        let rows = json_of(&queue(&status));
        assert_eq!((&rows[0]["ready"], &rows[0]["waits_for"]), (&10.into(), &"batch paused (4 ready)".into()));
        assert_eq!((&rows[1]["ready"], &rows[1]["parked"]), (&Value::Null, &7.into()));
        let queue_of = status.routes.get_mut("default").unwrap();
        queue_of.parked.clear();
        queue_of.held.insert("batch paused".to_owned(), Counted { rows: 10, more: false });
        let rows = json_of(&queue(&status));
        assert_eq!((&rows[0]["parked"], &rows[0]["waits_for"]), (&0.into(), &"batch paused".into()));
        assert_eq!(rows.as_array().unwrap().len(), 1);
        assert_eq!(as_json(&status)["routes"][0]["ready_waits_for"][0]["count"]["jobs"], 10);
    }

    #[test]
    fn a_worker_has_its_calls_of_all_buckets_together() {
        let rows = json_of(&workers(&status()));
        assert_eq!((&rows[0]["calls"], &rows[0]["waiting"]), (&5.into(), &4.into()));
    }

    #[test]
    fn breakers_on_which_workers_disagree_are_counted() {
        let rows = json_of(&targets(&status()));
        assert_eq!((&rows[0]["breaker"], &rows[0]["calls"]), (&"closed (1), open (1)".into(), &12.into()));
        let agreed = Status { workers: vec![worker(1, "open")], ..status() };
        assert_eq!(json_of(&targets(&agreed))[0]["breaker"], "open");
    }

    #[test]
    fn a_key_is_in_service_or_has_a_reason_and_a_time() {
        let rows = json_of(&keys(&status()));
        assert_eq!(rows.as_array().unwrap().len(), 4);
        let row = |key, state, why: Value, out_for: Value, tried_in: Value| {
            json!({
                "provider": "openai", "key": key, "worker": "1", "state": state, "why": why, "for": out_for,
                "tried_in": tried_in,
            })
        };
        assert_eq!(rows[0], row("OPENAI_A", "in_service", Value::Null, Value::Null, Value::Null));
        assert_eq!(rows[1], row("OPENAI_B", "out", "quota_exhausted".into(), "30s".into(), "1m".into()));
    }

    #[test]
    fn what_a_dead_worker_said_of_its_gate_does_not_count() {
        let mut dead = worker(1, "open");
        "dead".clone_into(&mut dead.state);
        let status = Status { workers: vec![dead], ..status() };
        assert!(targets(&status).is_empty() && keys(&status).is_empty());
    }

    #[test]
    fn stats_of_another_version_do_no_harm() {
        let odd =
            WorkerRecord { stats: json!({ "gate": { "targets": "none", "buckets": [3, null] } }), ..worker(1, "") };
        let status = Status { workers: vec![odd], ..status() };
        let row = &json_of(&workers(&status))[0];
        assert_eq!((&row["of"], &row["calls"]), (&Value::Null, &Value::Null));
        assert!(targets(&status).is_empty());
    }
}
