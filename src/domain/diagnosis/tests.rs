use super::*;
use crate::domain::timeline::{Change, Stray, TimelineSwitch};
use std::time::Duration;

fn session(pid: i32) -> Session {
    Session {
        pid,
        application: "psql".to_owned(),
        state: "active".to_owned(),
        seconds: 1,
        state_seconds: 1,
        holds_rows: true,
    }
}

fn table(name: &str) -> ChurningTable {
    ChurningTable { name: name.to_owned(), live: 100, dead: 100, vacuumed: Some(30), missing: Vec::new() }
}

fn ailing(ails: Ailment) -> AilingSchedule {
    AilingSchedule { name: "nightly".to_owned(), ails }
}

fn turn(change: Change, age: i64) -> TimelineSwitch {
    TimelineSwitch {
        number: 2,
        change,
        timeline: Some(2),
        previous_timeline: Some(1),
        began_at: "2026-11-26T12:00:05Z".to_owned(),
        age,
        previous_seen_at: None,
        next_job: Some(2_000_000),
        lost_to: None,
        lost_from: None,
    }
}

/// A database that lacks nothing.
fn healthy() -> Facts {
    Facts {
        pooled: false,
        private: false,
        schema: Ok(SchemaState { found: 4, known: 4, oldest: 4 }),
        server: Ok(ServerState {
            version: 150_008,
            version_name: "15.8".to_owned(),
            standby: false,
            read_only: false,
            encoding: "UTF8".to_owned(),
            off: Vec::new(),
            connections: 97,
            used_connections: 10,
            transaction_age: 100_000_000,
            multixact_age: 0,
            freeze_max_age: 200_000_000,
            bytes: 1 << 30,
        }),
        clock: Ok((120, 3)),
        sessions: Ok(vec![session(1)]),
        sees_all_sessions: true,
        prepared: Ok(Vec::new()),
        slots: Ok(Vec::new()),
        standbys: Ok(Vec::new()),
        tables: Ok(vec![table("ready"), table("worker")]),
        vacuum_off: Ok(Vec::new()),
        indexes: Ok((Vec::new(), Vec::new())),
        trigger: Ok(Some(true)),
        partitions: Ok(Partitions { ids_left: 39_999_999, missing: Vec::new() }),
        plans: Ok(vec![StatementPlan { statement: "claiming", faults: Vec::new(), is_small: false }]),
        queue: Ok(Queue {
            workers: 2,
            workers_of_one_batch: 1,
            connections_each: 10,
            dead: Vec::new(),
            oldest: Some(("default".to_owned(), 5)),
            are_all_held: false,
            strange_routes: Vec::new(),
            held_up: Vec::new(),
        }),
        unqueued: Ok(Unqueued::default()),
        misbilled: Ok(Misbilled::default()),
        budgets: Ok(Vec::new()),
        budget_faults: Ok(Vec::new()),
        schedules: Ok(Vec::new()),
        doubted_costs: Ok(Vec::new()),
        alert_mail: Ok(AlertMail::default()),
        absurd_sums: Ok(Vec::new()),
        retention: Ok(FinishedWork {
            configured: true,
            past: 8,
            due: 1,
            held: Vec::new(),
            stuck: Some((0, 3599)),
            late: Some(3599),
            dependents: Vec::new(),
            dropped: 3,
        }),
        history: Ok(History {
            is_readable: true,
            is_standby: false,
            is_news: false,
            turn: Some(turn(Change::First, 5)),
            stray: Stray::default(),
            again: Stray::default(),
            late: Stray::default(),
        }),
        roles: Ok(Roles { owner: "sluice".to_owned(), ..Roles::default() }),
    }
}

fn of(check: &str, facts: &Facts) -> Finding {
    let mut findings = diagnose(facts, Thresholds::default());
    findings.retain(|finding| finding.check == check);
    assert_eq!(findings.len(), 1, "{check}: {findings:?}");
    findings.remove(0)
}

#[test]
fn a_healthy_database_has_nothing_but_good_findings() {
    for finding in diagnose(&healthy(), Thresholds::default()) {
        assert_eq!(finding.severity, Severity::Ok, "{finding:?}");
        assert!(!finding.what.is_empty() && finding.why.is_empty() && finding.remedy.is_empty(), "{finding:?}");
    }
}

#[test]
fn each_thing_that_can_be_wrong_is_named_by_its_own_finding_alone() {
    use Severity::{Bad, Ok as Well, Warning};
    type Spoil = fn(&mut Facts);
    fn server(facts: &mut Facts) -> &mut ServerState {
        facts.server.as_mut().unwrap()
    }
    fn queue(facts: &mut Facts) -> &mut Queue {
        facts.queue.as_mut().unwrap()
    }
    fn off(facts: &mut Facts, name: &str) {
        server(facts).off.push((name.to_owned(), "off".to_owned()));
    }
    fn slot(active: bool, row_age: Option<i64>, gigabytes: i64) -> ReplicationSlot {
        ReplicationSlot { name: "copy".to_owned(), active, row_age, bytes: gigabytes << 30 }
    }
    let spoils: &[(&str, Severity, &str, Spoil)] = &[
        ("connection", Well, "pooler", |f| f.pooled = true),
        ("server", Bad, "14.1", |f| (server(f).version, server(f).version_name) = (140_001, "14.1".to_owned())),
        ("server", Bad, "standby", |f| server(f).standby = true),
        ("encoding", Bad, "WIN1252", |f| server(f).encoding = "WIN1252".to_owned()),
        ("durability", Bad, "fsync is off", |f| off(f, "fsync")),
        ("durability", Bad, "full_page_writes is off", |f| off(f, "full_page_writes")),
        ("durability", Bad, "autovacuum is off", |f| off(f, "autovacuum")),
        ("durability", Warning, "synchronous_commit is off", |f| off(f, "synchronous_commit")),
        ("transaction_ids", Well, "399,999,999", |f| server(f).transaction_age = 399_999_999),
        ("transaction_ids", Warning, "400,000,000", |f| server(f).multixact_age = 400_000_000),
        ("transaction_ids", Bad, "1,200,000,000", |f| server(f).transaction_age = 1_200_000_000),
        ("schema", Bad, "there is none", |f| f.schema.as_mut().unwrap().found = 0),
        ("schema", Bad, "version 3, this binary knows 4", |f| f.schema.as_mut().unwrap().found = 3),
        ("schema", Well, "can live with", |f| f.schema.as_mut().unwrap().found = 9),
        ("schema", Bad, "know 5 at least", |f| f.schema = Ok(SchemaState { found: 9, known: 4, oldest: 5 })),
        ("clock", Well, "agrees", |f| f.clock = Ok((-9000, 7001))),
        ("clock", Warning, "9 s behind", |f| f.clock = Ok((-9500, 500))),
        ("clock", Bad, "60 s ahead", |f| f.clock = Ok((60_500, 500))),
        ("oldest_snapshot", Well, "4 min", |f| f.sessions.as_mut().unwrap()[0].seconds = 299),
        ("oldest_snapshot", Warning, "process 1 (psql)", |f| f.sessions.as_mut().unwrap()[0].seconds = 300),
        ("oldest_snapshot", Bad, "60 min", |f| f.sessions.as_mut().unwrap()[0].seconds = 3600),
        ("prepared_transactions", Warning, "\"g\"", |f| f.prepared = Ok(vec![("g".to_owned(), 300)])),
        ("prepared_transactions", Bad, "\"g\"", |f| f.prepared = Ok(vec![("g".to_owned(), 3600)])),
        ("replication_slots", Well, "1, all of them read", |f| f.slots = Ok(vec![slot(true, Some(5), 0)])),
        ("replication_slots", Warning, "has no reader", |f| f.slots = Ok(vec![slot(false, None, 0)])),
        ("replication_slots", Warning, "keeps 1024 MB of WAL", |f| f.slots = Ok(vec![slot(true, None, 1)])),
        ("replication_slots", Bad, "dead rows of 20,000,000", |f| f.slots = Ok(vec![slot(true, Some(20_000_000), 0)])),
        ("standbys", Well, "999,999", |f| f.standbys = Ok(vec![("s".to_owned(), 999_999)])),
        ("standbys", Warning, "hot_standby_feedback", |f| f.standbys = Ok(vec![("s".to_owned(), 1_000_000)])),
        ("standbys", Bad, "\"s\"", |f| f.standbys = Ok(vec![("s".to_owned(), 20_000_000)])),
        ("dead_rows", Well, "199,999 in ready", |f| f.tables.as_mut().unwrap()[0].dead = 199_999),
        ("dead_rows", Warning, "ready has 200,000", |f| f.tables.as_mut().unwrap()[0].dead = 200_000),
        ("dead_rows", Bad, "ready has 2,000,000", |f| f.tables.as_mut().unwrap()[0].dead = 2_000_000),
        ("dead_rows", Warning, "worker has 20,000", |f| f.tables.as_mut().unwrap()[1].dead = 20_000),
        ("dead_rows", Warning, "tally has 500,000", |f| {
            f.tables.as_mut().unwrap().push(ChurningTable { live: 500_000, ..table("tally") });
        }),
        ("table_settings", Warning, "ready has lost fillfactor", |f| {
            f.tables.as_mut().unwrap()[0].missing.push("fillfactor".to_owned());
        }),
        ("autovacuum", Bad, "ready", |f| f.vacuum_off = Ok(vec!["ready".to_owned()])),
        ("indexes", Bad, "missing: ready_pkey; not valid: job_batch", |f| {
            f.indexes = Ok((vec!["ready_pkey".to_owned()], vec!["job_batch".to_owned()]));
        }),
        ("trigger", Bad, "disabled", |f| f.trigger = Ok(Some(false))),
        ("trigger", Bad, "missing", |f| f.trigger = Ok(None)),
        ("partitions", Bad, "job_p1", |f| f.partitions.as_mut().unwrap().missing.push("job_p1".to_owned())),
        ("partitions", Warning, "9,999,999", |f| f.partitions.as_mut().unwrap().ids_left = 9_999_999),
        ("partitions", Bad, "999,999", |f| f.partitions.as_mut().unwrap().ids_left = 999_999),
        ("plans", Bad, "claiming: Seq Scan", |f| f.plans.as_mut().unwrap()[0].faults.push("Seq Scan".to_owned())),
        ("plans", Well, "too short", |f| {
            f.plans =
                Ok(vec![StatementPlan { statement: "claiming", faults: vec!["Seq Scan".to_owned()], is_small: true }]);
        }),
        ("connections", Warning, "80 of 97", |f| server(f).used_connections = 80),
        ("connections", Bad, "93 of 97", |f| server(f).used_connections = 93),
        ("connections", Warning, "may want 100 of 97", |f| queue(f).workers = 10),
        ("connections", Well, "10 of 97", |f| (f.pooled, queue(f).workers) = (true, 10)),
        ("workers", Well, "1 running, each on one batch alone", |f| queue(f).workers = 1),
        ("workers", Bad, "none is running, and jobs are ready", |f| queue(f).workers = 0),
        ("workers", Well, "nothing is ready", |f| (queue(f).workers, queue(f).oldest) = (0, None)),
        ("workers", Well, "paused or waits for a budget", |f| {
            (queue(f).workers, queue(f).oldest, queue(f).are_all_held) = (0, None, true);
        }),
        ("budget_settings", Warning, "news sends its jobs along cheep", |f| {
            f.budget_faults = Ok(vec!["news sends its jobs along cheep, and there is no such route".to_owned()]);
        }),
        ("schedules", Bad, "nightly: its last tick has failed (no file)", |f| {
            f.schedules = Ok(vec![ailing(Ailment::Failed("no file".to_owned()))]);
        }),
        ("schedules", Warning, "nightly: its last tick is tried again (no file)", |f| {
            f.schedules = Ok(vec![ailing(Ailment::Retrying("no file".to_owned()))]);
        }),
        ("schedules", Warning, "nightly: no worker has had it for 2 h", |f| {
            f.schedules = Ok(vec![ailing(Ailment::Unseen(7200))]);
        }),
        ("schedules", Warning, "nightly: there is no route typo", |f| {
            f.schedules = Ok(vec![ailing(Ailment::NoRoute("typo".to_owned()))]);
        }),
        ("dead_workers", Warning, "7 jobs", |f| queue(f).dead.push((3, 7, 59))),
        ("dead_workers", Bad, "by worker 3", |f| queue(f).dead.push((3, 7, 60))),
        ("routes", Warning, "typo", |f| queue(f).strange_routes.push("typo".to_owned())),
        ("oldest_job", Warning, "route slow", |f| queue(f).oldest = Some(("slow".to_owned(), 3600))),
        ("result_costs", Warning, "12 results cost something else than their calls: 7, 9, …", |f| {
            f.misbilled = Ok(Misbilled { jobs: 12, some: vec![7, 9], looked_from: None });
        }),
        ("result_costs", Well, "looked at jobs from 5 on", |f| f.misbilled.as_mut().unwrap().looked_from = Some(5)),
        ("budgets", Warning, "news: $0.10 spent, $0.30 on the ledger", |f| {
            f.budgets = Ok(vec![WrongBudget {
                name: "news".to_owned(),
                spent: NanoUsd(100_000_000),
                booked: NanoUsd(300_000_000),
                uncertain: NanoUsd::ZERO,
                booked_uncertain: NanoUsd::ZERO,
                reserved: NanoUsd::ZERO,
                under_way: NanoUsd::ZERO,
            }]);
        }),
        ("unknown_prices", Warning, "unknown of 12 calls of p/m; 1 call of p/n", |f| {
            let of = |target: &str, unpriced| DoubtedCosts {
                target: target.to_owned(),
                unpriced,
                differing: 0,
                more: NanoUsd::ZERO,
            };
            f.doubted_costs = Ok(vec![of("p/m", 12), of("p/n", 1)]);
        }),
        ("reported_costs", Warning, "2 calls of p/m, together $0.25 less than computed", |f| {
            let (target, more) = ("p/m".to_owned(), NanoUsd(-250_000_000));
            f.doubted_costs = Ok(vec![DoubtedCosts { target, unpriced: 0, differing: 2, more }]);
        }),
        ("retention", Warning, "by job 17", |f| f.retention.as_mut().unwrap().held.push((0, 17))),
        ("retention", Warning, "partition 3 has been", |f| f.retention.as_mut().unwrap().stuck = Some((3, 3600))),
        ("retention", Warning, "another partition for 60 min", |f| f.retention.as_mut().unwrap().late = Some(3600)),
        ("retention", Warning, "24 past", |f| f.retention.as_mut().unwrap().past = 24),
        ("retention", Well, "for ever", |f| {
            let kept = f.retention.as_mut().unwrap();
            (kept.configured, kept.held, kept.stuck, kept.late) = (false, vec![(0, 17)], Some((0, 9999)), Some(9999));
        }),
    ];
    for (check, severity, words, spoil) in spoils {
        let mut facts = healthy();
        spoil(&mut facts);
        let finding = of(check, &facts);
        assert_eq!(finding.severity, *severity, "{finding:?}");
        assert!(finding.what.contains(words), "{words}: {finding:?}");
        assert_eq!(*severity == Well, finding.why.is_empty() && finding.remedy.is_empty(), "{finding:?}");
        let findings = diagnose(&facts, Thresholds::default());
        let others = findings.iter().filter(|finding| finding.check != *check);
        assert!(others.into_iter().all(|finding| finding.severity == Well), "{check}: {findings:?}");
        assert_eq!(worst(&findings), *severity);
    }
}

#[test]
fn without_a_schema_the_server_alone_is_judged() {
    let mut facts = healthy();
    facts.schema.as_mut().unwrap().found = 0;
    (facts.tables, facts.trigger) = (Err("relation does not exist".to_owned()), Ok(None));
    facts.queue = Err("relation does not exist".to_owned());
    let findings = diagnose(&facts, Thresholds::default());
    let poor: Vec<&str> =
        findings.iter().filter(|found| found.severity != Severity::Ok).map(|found| found.check).collect();
    assert_eq!(poor, ["schema"]);
    assert!(findings.iter().any(|found| found.check == "connections"), "{findings:?}");
}

#[test]
fn a_session_that_does_nothing_hurts_with_and_without_a_snapshot() {
    let mut facts = healthy();
    let idle = Session {
        state: "idle in transaction (aborted)".to_owned(),
        state_seconds: 300,
        holds_rows: false,
        ..session(7)
    };
    facts.sessions = Ok(vec![idle]);
    assert_eq!(of("oldest_snapshot", &facts).severity, Severity::Ok);
    let finding = of("idle_in_transaction", &facts);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.what.contains("process 7"), "{finding:?}");
}

#[test]
fn what_cannot_be_seen_is_said_and_is_no_praise() {
    let mut facts = healthy();
    facts.sees_all_sessions = false;
    for check in ["oldest_snapshot", "idle_in_transaction"] {
        let finding = of(check, &facts);
        assert_eq!(finding.severity, Severity::Unseen);
        assert!(finding.remedy.contains("pg_read_all_stats"), "{finding:?}");
    }
    // Sessions that are seen all the same are reported.
    facts.sessions.as_mut().unwrap()[0].seconds = 300;
    assert_eq!(of("oldest_snapshot", &facts).severity, Severity::Warning);
    let reason = || "permission denied".to_owned();
    let blind = Facts {
        server: Err(reason()),
        schema: Err(reason()),
        clock: Err(reason()),
        sessions: Err(reason()),
        prepared: Err(reason()),
        slots: Err(reason()),
        standbys: Err(reason()),
        tables: Err(reason()),
        vacuum_off: Err(reason()),
        indexes: Err(reason()),
        trigger: Err(reason()),
        partitions: Err(reason()),
        plans: Err(reason()),
        queue: Err(reason()),
        unqueued: Err(reason()),
        misbilled: Err(reason()),
        budgets: Err(reason()),
        budget_faults: Err(reason()),
        schedules: Err(reason()),
        doubted_costs: Err(reason()),
        alert_mail: Err(reason()),
        absurd_sums: Err(reason()),
        retention: Err(reason()),
        roles: Err(reason()),
        history: Err(reason()),
        ..healthy()
    };
    let findings = diagnose(&blind, Thresholds::default());
    for finding in findings.iter().filter(|finding| finding.check != "connection") {
        assert_eq!(finding.severity, Severity::Unseen, "{finding:?}");
    }
    assert_eq!(worst(&findings), Severity::Unseen);
}

#[test]
fn thresholds_may_be_anything() {
    let none = Thresholds { transaction: Duration::ZERO, waiting: Duration::MAX };
    let findings = diagnose(&healthy(), none);
    let snapshot = findings.iter().find(|finding| finding.check == "oldest_snapshot").unwrap();
    assert_eq!(snapshot.severity, Severity::Bad);
    let all = diagnose(&healthy(), Thresholds { transaction: Duration::MAX, waiting: Duration::ZERO });
    assert_eq!(worst(&all), Severity::Warning);
}

#[test]
fn a_role_that_is_missing_or_lacks_a_right_is_named_with_who_can_help() {
    let lacking = |rights: &[&str]| {
        let rights = rights.iter().map(|right| (*right).to_owned()).collect();
        [("sluice_worker".to_owned(), rights)].into_iter().collect()
    };
    let owner = || "shop".to_owned();
    let missing = Roles { missing: vec!["sluice_reporter".to_owned()], owner: owner(), ..Roles::default() };
    let four = ["select on sluice.jobs", "select on sluice.job", "update on sluice.job", "delete on sluice.job"];
    for (roles, what, remedy) in [
        (
            missing,
            "the role sluice_reporter is missing",
            "`create role sluice_reporter nologin;`; then run `sluice migrate` as shop",
        ),
        (
            Roles { lacking: lacking(&four), owner: owner(), ..Roles::default() },
            "the role sluice_worker lacks select on sluice.jobs, select on sluice.job, update on sluice.job and 1 more",
            "run `sluice migrate` as shop",
        ),
    ] {
        let facts = Facts { roles: Ok(roles), ..healthy() };
        let findings = diagnose(&facts, Thresholds::default());
        let finding = findings.iter().find(|finding| finding.check == "roles").unwrap();
        assert_eq!((finding.severity, finding.what.as_str()), (Severity::Warning, what));
        assert!(finding.remedy.contains(remedy), "{}", finding.remedy);
    }
}

#[test]
fn a_database_that_went_back_in_time_is_named_for_a_week_with_what_it_lost() {
    let found = |change: &dyn Fn(&mut History)| {
        let mut facts = healthy();
        facts.history.as_mut().map(change).unwrap();
        diagnose(&facts, Thresholds::default())
    };
    let check = |findings: &[Finding], name: &str| findings.iter().find(|finding| finding.check == name).cloned();
    let promoted = check(&found(&|history| history.turn = Some(turn(Change::Timeline, 90))), "timeline").unwrap();
    assert_eq!(promoted.severity, Severity::Warning);
    assert!(
        promoted.what.contains("from timeline 1 to 2") && promoted.what.contains("nothing need be"),
        "{promoted:?}"
    );
    assert!(promoted.remedy.contains("2,000,000") && !promoted.why.contains("are gone"), "{promoted:?}");
    let lost = check(
        &found(&|history| {
            history.turn = Some(TimelineSwitch { lost_to: Some("noon".to_owned()), ..turn(Change::Timeline, 90) });
        }),
        "timeline",
    );
    assert!(lost.unwrap().why.contains("are gone"));
    for (age, severity) in [(7 * 86_400, Severity::Warning), (7 * 86_400 + 1, Severity::Ok)] {
        let old = check(&found(&|history| history.turn = Some(turn(Change::Database, age))), "timeline");
        assert_eq!(old.unwrap().severity, severity);
    }
    let news = check(&found(&|history| history.is_news = true), "timeline").unwrap();
    assert!(news.severity == Severity::Warning && news.remedy.contains("sluice migrate"), "{news:?}");
    let unreadable = check(&found(&|history| history.is_readable = false), "timeline").unwrap();
    assert!(unreadable.severity == Severity::Unseen && unreadable.what.contains("pg_control_system"), "{unreadable:?}");
    // Answers that are only late have other causes.
    let late = |history: &mut History| history.late = Stray { calls: 3, ..Stray::default() };
    assert_eq!(check(&found(&late), "lost_calls"), None);
    let all = check(
        &found(&|history| {
            history.stray = Stray { calls: 2, cost: NanoUsd(1_500_000_000), ..Stray::default() };
            history.again = Stray { calls: 4, uncertain: NanoUsd(250_000_000), ..Stray::default() };
            late(history);
        }),
        "lost_calls",
    );
    let what = all.unwrap().what;
    for said in ["2 calls", "$1.50", "4 calls", "perhaps $0.25", "3 answers"] {
        assert!(what.contains(said), "{said}: {what}");
    }
}
