//! The tables of the status.

use super::{CountView, StatusView};
use crate::domain::{Reason, WorkerState};
use crate::view::table::{Cell, Layout, Table};
use crate::view::waits::WhyView;
use crate::view::worker::WorkerView;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// `100000+` where counting stopped.
fn counted(count: CountView) -> Cell {
    if count.or_more { Cell::Text(count.in_short()) } else { Cell::Count(count.jobs) }
}

pub(super) fn age(now: DateTime<Utc>, since: DateTime<Utc>) -> Cell {
    let seconds = u64::try_from((now - since).num_seconds()).unwrap_or(0);
    Cell::Text(humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string())
}

/// The jobs of each route, for people: the reasons follow as sentences.
#[must_use]
pub fn jobs(status: &StatusView) -> Table {
    let mut table = Table::new(["route", "ready", "running", "waiting", "oldest"]);
    for route in &status.routes {
        let mut waiting = CountView { jobs: 0, or_more: false };
        for parked in &route.parked {
            waiting.jobs += parked.count.jobs;
            waiting.or_more |= parked.count.or_more;
        }
        table.row([
            route.route.as_str().into(),
            counted(route.ready),
            route.running.into(),
            counted(waiting),
            route.oldest_ready.map(|since| age(status.now, since)).into(),
        ]);
    }
    table
}

/// The jobs of each route for programs, a line for each reason to wait.
#[must_use]
pub fn queue(status: &StatusView) -> Table {
    let mut table = Table::new(["route", "ready", "oldest", "running", "parked", "waits_for", "wakes_in", "budget"]);
    for route in &status.routes {
        let mut cells = [
            route.route.as_str().into(),
            counted(route.ready),
            route.oldest_ready.map(|since| age(status.now, since)).into(),
            route.running.into(),
        ];
        // A line for each reason; facts about the whole route stand on the first of them.
        let running = route.running_waits_for.iter().map(|held| (held, true, "running"));
        let held = route.ready_waits_for.iter().map(|held| (held, held.count != route.ready, "ready")).chain(running);
        let held = held.map(|(held, is_told, state)| {
            let of_some = if is_told { format!(" ({} {state})", held.count.in_short()) } else { String::new() };
            [Cell::Empty, Cell::Text(format!("{}{of_some}", held.waits_for)), Cell::Empty, budget_of(&held.why)]
        });
        let parked = route.parked.iter().map(|parked| {
            let wakes_in = parked.wakes_at.map(|at| age(at, status.now));
            let waits_for = parked.waits_for.as_str().into();
            [counted(parked.count), waits_for, wakes_in.unwrap_or(Cell::Empty), budget_of(&parked.why)]
        });
        let mut lines: Vec<[Cell; 4]> = held.chain(parked).collect();
        if route.parked.is_empty() {
            match lines.first_mut() {
                Some([parked, ..]) => *parked = Cell::Count(0),
                None => lines.push([Cell::Count(0), Cell::Empty, Cell::Empty, Cell::Empty]),
            }
        }
        for waits in lines {
            table.row(cells.iter().cloned().chain(waits));
            cells = [route.route.as_str().into(), Cell::Empty, Cell::Empty, Cell::Empty];
        }
    }
    table
}

/// The budget that is behind a wait: the code of a rung says no more than that there is one.
fn budget_of(whys: &[WhyView]) -> Cell {
    whys.iter().find_map(|why| why.budget.as_ref()).map(|budget| budget.name.as_str()).into()
}

/// The workers that live or still hold jobs, or all of them; and how many others there were, in words.
#[must_use]
pub fn workers(status: &StatusView, all: bool) -> (Table, Option<String>) {
    let mut table = Table::new([
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
    ])
    .laid_out(Layout {
        wide: &["pid", "version", "up", "calls", "waiting", "attempts", "unsettled"],
        give_way: &["host", "of", "failed", "succeeded", "seen"],
        ..Layout::default()
    });
    let (shown, others): (Vec<&WorkerView>, Vec<&WorkerView>) =
        status.workers.iter().partition(|worker| all || worker.is_alive || worker.holds > 0);
    for worker in shown {
        let said = &worker.said;
        // What a worker said last holds no more once it is gone. The sums do.
        let now = |figure: Cell| if worker.is_alive { figure } else { Cell::Empty };
        table.row([
            Cell::Text(worker.worker.to_string()),
            worker.host.as_str().into(),
            Cell::Text(worker.pid.to_string()),
            worker.version.as_str().into(),
            worker.condition(status.now).into(),
            age(status.now, worker.seen_at),
            age(worker.seen_at, worker.started_at),
            worker.holds.into(),
            now(said.max_in_flight.into()),
            now(worker.calls_running().into()),
            now(worker.calls_waiting().into()),
            said.succeeded.into(),
            said.failed.into(),
            said.attempts.into(),
            now(said.unsettled.into()),
        ]);
    }
    (table, gone_in_words(&others))
}

/// `3 left and 1 died`, of workers that hold no job.
fn gone_in_words(others: &[&WorkerView]) -> Option<String> {
    let left = others.iter().filter(|worker| worker.state == WorkerState::Gone).count();
    let told = match (left, others.len() - left) {
        (0, 0) => return None,
        (left, 0) => format!("{left} left"),
        (0, died) => format!("{died} died"),
        (left, died) => format!("{left} left and {died} died"),
    };
    Some(format!("{told} within the last hour (--all lists them)"))
}

/// `closed` when all workers agree, else how many see which state.
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

/// Where the private Postgres lives.
#[must_use]
pub fn database(status: &StatusView) -> Table {
    let mut table = Table::new(["private_postgres", "shell"]);
    if let Some(dir) = &status.private_postgres {
        table.row([dir.as_str().into(), "sluice psql".into()]);
    }
    table
}

/// The targets, as the live workers see them.
#[must_use]
pub fn targets(status: &StatusView) -> Table {
    let mut table = Table::new([
        "target",
        "bucket",
        "breaker",
        "shut",
        "opens_in",
        "passed_over_on",
        "paused",
        "calls",
        "failures",
        "cost_per_answer",
    ])
    .laid_out(Layout {
        wide: &["bucket"],
        when_told: &["shut", "opens_in", "passed_over_on", "paused", "cost_per_answer"],
        give_way: &["failures", "calls", "paused", "cost_per_answer", "breaker"],
        ..Layout::default()
    });
    for target in &status.targets {
        let shut = target.shut.as_ref();
        let spent = status.spent_by_target.iter().find(|spent| spent.target == target.target);
        let routes: Vec<&str> = target.passed_over.iter().map(|passed| passed.route.as_str()).collect();
        table.row([
            target.target.as_str().into(),
            target.bucket.as_deref().into(),
            breaker_in_words(&target.breakers),
            shut.and_then(|shut| shut.reason.as_deref()).into(),
            shut.and_then(|shut| shut.until).map(|until| age(until, status.now)).into(),
            Some(routes.join(", ")).filter(|routes| !routes.is_empty()).map_or(Cell::Empty, Cell::Text),
            Cell::Flag(target.paused),
            target.calls.into(),
            target.failures.into(),
            spent.map_or(Cell::Empty, |spent| spent.spent.per_answer()),
        ]);
    }
    table
}

/// Why targets are not called, or are passed over, in sentences.
#[must_use]
pub fn troubles(status: &StatusView) -> Vec<String> {
    let mut told = Vec::new();
    for target in &status.targets {
        if let (Some(reason), Some(said)) = (target.shut.as_ref().and_then(|shut| shut.reason.as_deref()), &target.said)
        {
            let words = Reason::parse(reason).map_or_else(|| reason.to_owned(), |reason| reason.to_string());
            told.push(format!("{}: {words} ({said})", target.target));
        }
        if let Some(stuck) = &target.stuck_answer {
            let since =
                stuck.since.map_or_else(String::new, |since| format!(", for {}", age(status.now, since).in_words()));
            told.push(format!(
                "{}: {} different requests lately had the very same answer, word by word{since}: perhaps a cache of \
                 the provider got stuck",
                target.target, stuck.requests
            ));
        }
        for passed in &target.passed_over {
            let until = passed.shut.as_ref().and_then(|shut| shut.until).filter(|until| *until > status.now);
            let until = until.map_or_else(
                || "single jobs find out whether it is well again".to_owned(),
                |until| format!("one job asks again in {}", age(until, status.now).in_words()),
            );
            told.push(format!(
                "{}: passed over on route {} while another rung may be called: {}; {until}",
                target.target,
                passed.route,
                passed.in_words()
            ));
        }
    }
    told
}

/// The keys of the live workers.
#[must_use]
pub fn keys(status: &StatusView) -> Table {
    let mut table = Table::new(["provider", "key", "worker", "state", "why", "for", "tried_in"]).laid_out(Layout {
        when_told: &["why", "for", "tried_in"],
        give_way: &["worker", "for", "tried_in"],
        ..Layout::default()
    });
    for key in &status.keys {
        let shut = key.shut.as_ref();
        table.row([
            key.provider.as_deref().into(),
            key.key.as_deref().into(),
            Cell::Text(key.worker.to_string()),
            key.state.as_deref().into(),
            shut.and_then(|shut| shut.reason.as_deref()).into(),
            shut.and_then(|shut| shut.since).map(|since| age(status.now, since)).into(),
            shut.and_then(|shut| shut.until).map(|until| age(until, status.now)).into(),
        ]);
    }
    table
}

/// The pauses in force.
#[must_use]
pub fn pauses(status: &StatusView) -> Table {
    let mut table = Table::new(["kind", "name", "since", "reason", "by"]).laid_out(Layout {
        when_told: &["reason", "by"],
        give_way: &["by", "since"],
        prose: &["reason"],
        ..Layout::default()
    });
    for pause in &status.paused {
        table.row([
            pause.kind.as_str().into(),
            pause.name.as_str().into(),
            pause.since.into(),
            pause.reason.as_deref().into(),
            pause.by.as_deref().into(),
        ]);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::{NanoUsd, Spent};
    use crate::store::status::{Counted, Held, PauseRecord, RouteQueue, Spending, SpentOnCalls, Status, WorkerRecord};
    use serde_json::{Value, json};

    fn worker(id: i64, breaker: &str) -> WorkerRecord {
        WorkerRecord {
            id,
            host: "db1".to_owned(),
            pid: 42,
            version: "0.1.0".to_owned(),
            started_at: at(0),
            seen_at: at(58),
            state: WorkerState::Live,
            holds: 3,
            stats: json!({
                "version": 2, "in_flight": 3, "max_in_flight": 500, "succeeded": 10, "failed": 1, "attempts": 12,
                "unsettled": 0,
                "stopping": false,
                "gate": {
                    "buckets": [{
                        "name": "openai", "rates": [{ "limit": "requests/min", "held": 20, "headroom": 20 }],
                        "concurrency": 20, "running": 3, "waiting": 4, "shut": null,
                    }, {
                        "name": "free", "rates": [], "concurrency": null, "running": 2, "waiting": 0, "shut": null,
                    }],
                    "targets": [{
                        "target": "openai/gpt-4o-mini", "bucket": "openai", "breaker": breaker, "shut": null,
                        "paused": false, "calls": 6, "failures": 1,
                    }],
                    "keys": [{
                        "provider": "openai", "key": "OPENAI_A", "state": "in_service", "shut": null,
                    }, {
                        "provider": "openai", "key": "OPENAI_B", "state": "out", "shut": {
                            "reason": "quota_exhausted", "since_ms": 1_800_000_030_000_i64,
                            "until_ms": 1_800_000_120_000_i64,
                        },
                    }],
                },
            }),
        }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn held(rows: i64, wakes_at: Option<DateTime<Utc>>) -> Held {
        Held { count: Counted { rows, more: false }, wakes_at, ..Held::default() }
    }

    fn status() -> Status {
        let parked = [
            ("scheduled".to_owned(), held(2, Some(at(120)))),
            ("openai/gpt-4o-mini: rate_limit".to_owned(), held(7, Some(at(61)))),
        ];
        let queue = RouteQueue {
            ready: Counted { rows: 100_000, more: true },
            oldest_ready: Some(at(0)),
            held: BTreeMap::new(),
            running: 3,
            long_calls: None,
            parked: parked.into_iter().collect(),
        };
        Status {
            now: at(60),
            routes: [("default".to_owned(), queue)].into_iter().collect(),
            spending: Spending::default(),
            workers: vec![worker(1, "closed"), worker(2, "open")],
            pauses: Vec::new(),
            buckets: BTreeMap::new(),
            budgets: Vec::new(),
            schedules: Vec::new(),
            ticks: Vec::new(),
            firing: BTreeMap::new(),
            needs: std::collections::HashMap::new(),
        }
    }

    /// The tables of a status with long names.
    pub(crate) fn tables() -> Vec<(&'static str, Table)> {
        let mut status = status();
        for worker in &mut status.workers {
            "ip-10-0-12-117.eu-west-1.compute.internal".clone_into(&mut worker.host);
            let gate = worker.stats.pointer_mut("/gate").unwrap();
            gate["targets"][0]["target"] = "azure_westeurope/gpt-4.1-mini-2025-04-14".into();
            gate["targets"][0]["shut"] = json!({ "reason": "rate_limit", "until_ms": 1_800_000_120_000_i64 });
            gate["keys"][1]["key"] = "AZURE_WESTEUROPE_SECOND_KEY".into();
        }
        let queue = status.routes["default"].clone();
        status.routes.insert("classify_german_invoices".to_owned(), queue);
        status.pauses = vec![PauseRecord {
            kind: "batch".to_owned(),
            name: "nightly-classification-2027-01-15".to_owned(),
            since: at(9),
            reason: Some("stop-loss: 1,234 of 8,913,579 jobs failed, and 0.01 % may".to_owned()),
            by: Some("sluice_worker".to_owned()),
        }];
        status.buckets = super::super::buckets::tests::shared_by_name();
        let spent = Spent {
            cost: NanoUsd(1_234_567_890_123),
            uncertain: NanoUsd(1_500_000_000),
            unpriced: 7,
            accepted: 8_912_345,
        };
        let of_route = SpentOnCalls { attempts: 12_345_678, spent };
        status.spending.routes.insert("classify_german_invoices".to_owned(), of_route);
        status.spending.targets.insert("azure_westeurope/gpt-4.1-mini-2025-04-14".to_owned(), of_route);
        let view = StatusView::from(status);
        vec![
            ("status: queue", jobs(&view)),
            ("status: workers", workers(&view, false).0),
            ("status: spent", view.spent_table()),
            ("status: buckets", super::super::buckets::table(&view)),
            ("status: targets", targets(&view)),
            ("status: keys", keys(&view)),
            ("status: paused", pauses(&view)),
        ]
    }

    fn json_of(table: &Table) -> Value {
        serde_json::to_value(table).unwrap()
    }

    #[test]
    fn a_route_has_a_line_for_each_thing_it_waits_for() {
        let rows = json_of(&queue(&status().into()));
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
        queue_of.held.insert("batch paused".to_owned(), held(4, None));
        let rows = json_of(&queue(&status.clone().into()));
        assert_eq!((&rows[0]["ready"], &rows[0]["waits_for"]), (&10.into(), &"batch paused (4 ready)".into()));
        assert_eq!((&rows[1]["ready"], &rows[1]["parked"]), (&Value::Null, &7.into()));
        let queue_of = status.routes.get_mut("default").unwrap();
        queue_of.parked.clear();
        queue_of.held.insert("batch paused".to_owned(), held(10, None));
        let rows = json_of(&queue(&status.clone().into()));
        assert_eq!((&rows[0]["parked"], &rows[0]["waits_for"]), (&0.into(), &"batch paused".into()));
        assert_eq!(rows.as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_worker_has_its_calls_of_all_buckets_together() {
        let rows = json_of(&workers(&status().into(), false).0);
        assert_eq!((&rows[0]["calls"], &rows[0]["waiting"]), (&5.into(), &4.into()));
    }

    #[test]
    fn breakers_on_which_workers_disagree_are_counted() {
        let rows = json_of(&targets(&status().into()));
        assert_eq!((&rows[0]["breaker"], &rows[0]["calls"]), (&"closed (1), open (1)".into(), &12.into()));
        let agreed = Status { workers: vec![worker(1, "open")], ..status() };
        assert_eq!(json_of(&targets(&agreed.into()))[0]["breaker"], "open");
    }

    #[test]
    fn what_a_target_is_passed_over_for_is_told_with_its_numbers() {
        let weak = |found: Option<&str>| {
            let mut worker = worker(1, "closed");
            worker.stats.pointer_mut("/gate").unwrap()["targets"][0]["weak"] = json!([
                {
                    "route": "default", "found": found,
                    "shut": { "reason": "quality", "until_ms": 1_800_000_090_000_i64 },
                },
                { "route": "of tomorrow", "shut": "none" }, 7,
            ]);
            worker.stats.pointer_mut("/gate").unwrap()["targets"][0]["stuck"] =
                json!({ "requests": 7, "since_ms": 1_800_000_000_000_i64 });
            worker
        };
        let found = "18 of the last 20 answers were rejected (schema_mismatch 15, empty 3)";
        let mut status = StatusView::from(Status { workers: vec![weak(Some(found)), weak(None)], ..status() });
        let told = troubles(&status);
        let head = "openai/gpt-4o-mini: passed over on route default while another rung may be called: ";
        assert_eq!(
            told[0],
            "openai/gpt-4o-mini: 7 different requests lately had the very same answer, word by word, for 1m: perhaps \
             a cache of the provider got stuck"
        );
        assert_eq!(told[1], format!("{head}{found}; one job asks again in 30s"));
        assert_eq!(status.targets[0].passed_over[0].workers, 2);
        assert_eq!(json_of(&targets(&status))[0]["passed_over_on"], "default, of tomorrow");
        status.targets[0].passed_over[0].found = None;
        assert_eq!(troubles(&status)[1], format!("{head}its answers are rejected; one job asks again in 30s"));
    }

    #[test]
    fn an_accepted_answer_of_a_target_has_its_price() {
        let mut status = status();
        let spent = Spent { cost: NanoUsd(9_000), uncertain: NanoUsd(0), unpriced: 0, accepted: 3 };
        let of_target = SpentOnCalls { attempts: 12, spent };
        status.spending.targets.insert("openai/gpt-4o-mini".to_owned(), of_target);
        assert_eq!(json_of(&targets(&status.into()))[0]["cost_per_answer"], 3e-6);
    }

    #[test]
    fn a_key_is_in_service_or_has_a_reason_and_a_time() {
        let rows = json_of(&keys(&status().into()));
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
        dead.state = WorkerState::Dead;
        let status = StatusView::from(Status { workers: vec![dead], ..status() });
        assert!(targets(&status).is_empty() && keys(&status).is_empty());
    }

    #[test]
    fn jobs_in_the_hands_of_the_dead_have_a_reason_where_no_worker_lives() {
        let dead = WorkerRecord { state: WorkerState::Dead, ..worker(1, "closed") };
        let told = |workers| {
            let status = StatusView::from(Status { workers, ..status() });
            let waits = status.routes[0].waits();
            let told = waits
                .filter(|(.., state, _)| *state == "running")
                .map(|(count, _, whys)| (count.jobs, whys[0].words.clone(), whys[0].advice.clone()));
            (told.collect::<Vec<_>>(), json_of(&queue(&status))[0]["waits_for"].clone())
        };
        let advice = Some("sluice worker".to_owned());
        let expected = (vec![(3, "no worker is running".to_owned(), advice)], "no worker (3 running)".into());
        assert_ne!(told(vec![dead.clone(), worker(2, "open")]), expected);
        assert_eq!(told(vec![dead]), expected);
    }

    #[test]
    fn workers_that_are_gone_are_a_line_together_and_say_nothing_of_now() {
        let other = |id, state, holds| WorkerRecord { state, holds, ..worker(id, "closed") };
        let crowd = vec![
            worker(1, "closed"),
            other(2, WorkerState::Dead, 3),
            other(3, WorkerState::Gone, 0),
            other(4, WorkerState::Gone, 0),
        ];
        let status =
            StatusView::from(Status { workers: [crowd, vec![other(5, WorkerState::Dead, 0)]].concat(), ..status() });
        let (table, gone) = workers(&status, false);
        let rows = json_of(&table);
        let shown: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["worker"]).collect();
        assert_eq!(shown, ["1", "2"], "the live ones, and one that still holds jobs");
        assert_eq!(gone.as_deref(), Some("2 left and 1 died within the last hour (--all lists them)"));
        assert_eq!((&rows[0]["calls"], &rows[0]["of"]), (&5.into(), &500.into()));
        assert_eq!((&rows[1]["calls"], &rows[1]["of"], &rows[1]["in_flight"]), (&Value::Null, &Value::Null, &3.into()));
        let (table, gone) = workers(&status, true);
        assert_eq!((json_of(&table).as_array().unwrap().len(), gone), (5, None));
    }

    #[test]
    fn a_worker_that_misses_heartbeats_is_silent_before_it_is_dead() {
        let of = |seen_at| WorkerRecord { seen_at, ..worker(1, "closed") };
        let told = |record| {
            let status = StatusView::from(Status { workers: vec![record], ..status() });
            json_of(&workers(&status, false).0)[0]["state"].clone()
        };
        assert_eq!((told(of(at(58))), told(of(at(40)))), ("live".into(), "silent".into()), "now it is 60");
        assert_eq!(told(WorkerRecord { state: WorkerState::Dead, ..of(at(40)) }), "dead");
    }

    #[test]
    fn stats_of_another_version_do_no_harm() {
        let odd =
            WorkerRecord { stats: json!({ "gate": { "targets": "none", "buckets": [3, null] } }), ..worker(1, "") };
        let status = StatusView::from(Status { workers: vec![odd], ..status() });
        let row = &json_of(&workers(&status, false).0)[0];
        assert_eq!((&row["of"], &row["calls"]), (&Value::Null, &Value::Null));
        assert!(targets(&status).is_empty());
    }
}
