#![expect(
    clippy::unnecessary_wraps,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    reason = "tables of cases are made of what a look brings"
)]

use super::sighting::{Observations, RouteFlow, RouteWork, sightings};
use super::*;
use crate::domain::Timestamp;
use crate::domain::budget::{Budget, BudgetStanding, Coverage, Need, Period, Unpriced};
use crate::domain::diagnosis::{DoubtedCosts, Finding, Severity};
use crate::domain::obstacle::Pause;
use crate::domain::pause::PauseKind;
use crate::domain::schedule::report::ReportPeriod;
use crate::domain::statistics::{KeyStatistics, RouteWait, ShutStatistics, Statistics, TargetStatistics};
use proptest::prelude::*;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn flow(answered: i64, fallbacks: i64, cost: i64, extra: i64) -> Vec<RouteFlow> {
    vec![RouteFlow {
        route: "r".to_owned(),
        ended: answered,
        answered,
        fallbacks,
        cost: NanoUsd(cost),
        extra: NanoUsd(extra),
    }]
}

/// The worker, while a game day is on.
fn on_game_day(mut worker: Statistics) -> Statistics {
    let day = json!({ "name": "friday", "targets": ["p", "q/n"], "share_millionths": 1, "until_ms": 1 });
    worker.game_days = vec![serde_json::from_value(day).unwrap()];
    worker
}

fn worker(breaker: &'static str, key_reason: Option<&'static str>) -> Statistics {
    let mut worker = Statistics::default();
    worker.gate.targets.push(TargetStatistics {
        target: Some("p/m".to_owned()),
        breaker: Some(breaker.into()),
        said: Some("the words of the provider".to_owned()),
        ..TargetStatistics::default()
    });
    worker.gate.keys.push(KeyStatistics {
        provider: Some("p".to_owned()),
        key: Some("P_KEY".to_owned()),
        shut: key_reason.map(|reason| ShutStatistics { reason: Some(reason.into()), ..ShutStatistics::default() }),
        ..KeyStatistics::default()
    });
    worker
}

/// A worker that calls its target no more for this reason.
fn shut_for(reason: &'static str) -> Statistics {
    let mut worker = worker("closed", None);
    let shut = ShutStatistics { reason: Some(reason.into()), ..ShutStatistics::default() };
    worker.gate.targets.iter_mut().for_each(|target| target.shut = Some(shut.clone()));
    worker
}

/// A worker that says this of its target.
fn of_target(said: &serde_json::Value) -> Statistics {
    let mut target = json!({ "target": "p/m" });
    target.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    Statistics::read(&json!({ "version": 2, "gate": { "targets": [target] } }))
}

fn budget(spent: i64, soft: Option<u32>) -> BudgetStanding {
    BudgetStanding {
        budget: Budget {
            name: "b".to_owned(),
            scope: Coverage::Total,
            period: Period::Once,
            limit: NanoUsd(1000),
            soft,
            then_route: None,
            unpriced: Unpriced::Refuse,
        },
        ends_at: None,
        spent: NanoUsd(spent),
        uncertain: NanoUsd(0),
        reserved: NanoUsd(0),
        least: Some(NanoUsd(10)),
        least_is_old: false,
    }
}

fn work(free: i64, running: i64, waits: &[(&str, i64)], ended: i64) -> Option<Vec<RouteWork>> {
    let waits = waits.iter().map(|(code, jobs)| ((*code).to_owned(), *jobs, None)).collect();
    Some(vec![RouteWork { route: "r".to_owned(), free, running, waits, ended }])
}

fn lost(how: LostHow, has_successor: bool, is_told: bool) -> Option<Vec<LostWorker>> {
    Some(vec![LostWorker { id: 7, host: "h".to_owned(), how, seen_at: NOW - HOUR, has_successor, is_told }])
}

fn doubted(unpriced: i64, differing: i64) -> Option<Vec<DoubtedCosts>> {
    Some(vec![DoubtedCosts { target: "p/m".to_owned(), unpriced, differing, more: NanoUsd(-5) }])
}

fn finding(severity: Severity) -> Option<Vec<Finding>> {
    let what = "a slot keeps 3 GB".to_owned();
    Some(vec![Finding { check: "replication_slots", severity, what, why: "", remedy: String::new() }])
}

fn paused(age: Duration, kind: PauseKind, why: &str) -> Vec<Pause> {
    let why = Some(why.to_owned());
    vec![Pause { kind, name: "x".to_owned(), by: Some("ops".to_owned()), since: NOW - age, why }]
}

/// Observations with one change.
fn with(change: impl FnOnce(&mut Observations)) -> Observations {
    let mut seen = Observations { now: NOW, ..Observations::default() };
    seen.known.now = NOW;
    change(&mut seen);
    seen
}

/// For each rule that lasts: what it sees, with the subject and a part of the words, and what it does not see.
fn cases() -> Vec<(AlertRule, Vec<(Observations, &'static str, &'static str)>, Vec<Observations>)> {
    use AlertRule as R;
    const DOLLAR: i64 = 1_000_000_000;
    let usual = |hours| Some(UsualHour { cost: NanoUsd(10 * DOLLAR), hours });
    let of_worker = |breaker, key| with(|o| o.known.workers = vec![worker(breaker, key), worker(breaker, key)]);
    let need =
        |left| Some(BTreeMap::from([("b".to_owned(), Need { jobs_left: left, expected: Some(NanoUsd(left * 10)) })]));
    vec![
        (
            R::BreakerOpen,
            vec![
                (of_worker("open", None), "p/m", "the breaker of p/m is open: its calls fail (2 workers)"),
                (of_worker("half_open", None), "p/m", "(2 workers)"),
                (
                    with(|o| o.known.workers = vec![shut_for("health_probe")]),
                    "p/m",
                    "the health probe of p/m fails: it is not called (1 worker)",
                ),
                (
                    with(|o| {
                        o.known.workers = vec![of_target(&json!({ "breaker": "closed", "shut": {
                        "reason": "keys_in_doubt" }, "said": "all 3 keys were refused within 2 s: taken for an outage"
                        }))];
                    }),
                    "p",
                    "p takes no calls: all 3 keys were refused within 2 s: taken for an outage (1 worker)",
                ),
                (
                    with(|o| {
                        o.known.workers = vec![of_target(&json!({ "breaker": "open", "shut": {
                        "reason": "breaker_open" }, "said": "timeout; 9 of the last 10 calls failed" }))];
                    }),
                    "p/m",
                    "the breaker of p/m is open: its calls fail: timeout; 9 of the last 10 calls failed (1 worker)",
                ),
                (
                    with(|o| {
                        let struck = on_game_day(of_target(&json!({ "breaker": "open", "shut": {
                        "reason": "game_day" }, "said": "game day friday; 9 of the last 10 calls failed" })));
                        o.known.workers = vec![struck.clone(), struck];
                    }),
                    "p/m",
                    "the breaker of p/m is open: its calls fail: game day friday; 9 of the last 10 calls failed (2 \
                     workers); a game day (friday) strikes it until 1970-01-01 00:00:00 UTC",
                ),
                (
                    with(|o| {
                        o.known.workers = vec![of_target(&json!({ "breaker": "closed", "weak": [{
                        "route": "r", "found": "9 of the last 10 answers were rejected (empty 9)" }] }))];
                    }),
                    "p/m on r",
                    "p/m answers jobs of route r badly: 9 of the last 10 answers were rejected (empty 9) (1 worker)",
                ),
            ],
            vec![of_worker("closed", None), with(|o| o.known.workers = vec![shut_for("paused")])],
        ),
        (
            R::StuckAnswer,
            vec![(
                with(|o| {
                    let stuck = of_target(&json!({ "stuck": { "requests": 7, "since_ms": 1 } }));
                    o.known.workers = vec![stuck.clone(), of_target(&json!({ "stuck": { "requests": 5 } })), stuck];
                }),
                "p/m",
                "p/m gives the same answer, word by word, to different requests, lately to 7 of them",
            )],
            vec![of_worker("open", None)],
        ),
        (
            R::FallbackShare,
            vec![
                (
                    with(|o| o.fallbacks = Some(flow(50, 10, 0, 0))),
                    "r",
                    "20.0% of the answers of route r in the last 30m",
                ),
                (
                    with(|o| {
                        o.fallbacks = Some(flow(50, 10, 0, 0));
                        o.known.workers = vec![on_game_day(worker("closed", None))];
                    }),
                    "r",
                    "(10 of 50); a game day (friday) strikes p, q/n until 1970-01-01 00:00:00 UTC",
                ),
            ],
            vec![
                with(|o| o.fallbacks = Some(flow(50, 9, 0, 0))),
                with(|o| o.fallbacks = Some(flow(49, 49, 0, 0))),
                with(|o| o.fallbacks = Some(flow(-1, -1, 0, 0))),
            ],
        ),
        (
            R::DearerRung,
            vec![(with(|o| o.dearer = Some(flow(9, 9, 5 * DOLLAR, DOLLAR))), "r", "cost $1.00 more in the last 1h")],
            vec![
                with(|o| o.dearer = Some(flow(9, 9, 5 * DOLLAR + 10, DOLLAR))),
                with(|o| o.dearer = Some(flow(9, 9, 5, 1))),
                with(|o| o.dearer = Some(flow(9, 9, 5 * DOLLAR, -DOLLAR))),
            ],
        ),
        (
            R::BudgetSoft,
            vec![(with(|o| o.known.budgets = vec![budget(800, Some(800_000))]), "b", "past its soft threshold")],
            vec![
                with(|o| o.known.budgets = vec![budget(799, Some(800_000))]),
                with(|o| o.known.budgets = vec![budget(900, None)]),
                // Then it is full.
                with(|o| o.known.budgets = vec![budget(999, Some(800_000))]),
            ],
        ),
        (
            R::BudgetShort,
            vec![(
                with(|o| (o.known.budgets, o.needs) = (vec![budget(500, None)], need(51))),
                "b",
                "51 jobs that are left need about $0.00000051, and $0.0000005 is left",
            )],
            vec![
                with(|o| (o.known.budgets, o.needs) = (vec![budget(500, None)], need(50))),
                with(|o| (o.known.budgets, o.needs) = (vec![budget(999, None)], need(51))),
            ],
        ),
        (
            R::BudgetFull,
            vec![(with(|o| o.known.budgets = vec![budget(991, None)]), "b", "budget b has no room")],
            vec![
                with(|o| o.known.budgets = vec![budget(990, None)]),
                // No job of the batch is left.
                with(|o| {
                    let of_batch = Budget::of_batch("b", NanoUsd(1_000));
                    let over = BudgetStanding { budget: of_batch, ..budget(999, None) };
                    let none = Need { jobs_left: 0, expected: None };
                    (o.known.budgets, o.needs) = (vec![over], Some([("batch:b".to_owned(), none)].into()));
                }),
                // Calls under way will give some of it back.
                with(|o| o.known.budgets = vec![BudgetStanding { reserved: NanoUsd(500), ..budget(500, None) }]),
            ],
        ),
        (
            R::KeyOut,
            vec![
                (of_worker("closed", Some("auth")), "p/P_KEY", "key p/P_KEY is rejected"),
                (of_worker("closed", Some("quota_exhausted")), "p/P_KEY", "is out of money"),
            ],
            vec![of_worker("closed", None), of_worker("closed", Some("keys_in_doubt"))],
        ),
        (
            R::UnknownPrice,
            vec![(with(|o| o.doubted = doubted(1, 0)), "p/m", "1 call of the last day has no cost")],
            vec![with(|o| o.doubted = doubted(0, 9))],
        ),
        (
            R::CostDiffers,
            vec![(
                with(|o| o.doubted = doubted(0, 2)),
                "p/m",
                "reports $0.000000005 less than was computed, for 2 calls",
            )],
            vec![with(|o| o.doubted = doubted(9, 0))],
        ),
        (
            R::StuckQueue,
            vec![
                (with(|o| o.work = work(3, 0, &[], 0)), "r", "3 jobs wait or run; no worker is running"),
                (
                    with(|o| (o.work, o.known.workers) = (work(0, 1, &[], 0), vec![worker("closed", None)])),
                    "r",
                    "1 job is with workers, and none comes to an end",
                ),
                (
                    with(|o| {
                        let reason = "p/m: model (nowhere else to go)".to_owned();
                        let mut waits = worker("closed", None);
                        waits.waits.insert("r".to_owned(), RouteWait { reason, until_ms: None, stuck: Vec::new() });
                        (o.work, o.known.workers) = (work(0, 20, &[], 0), vec![waits]);
                    }),
                    "r",
                    "20 jobs wait or run; p/m: the model is unknown",
                ),
                (
                    with(|o| o.work = work(0, 0, &[("p/m: auth (nowhere else to go)", 9), ("scheduled", 99)], 0)),
                    "r",
                    "9 jobs wait or run; p/m: its key is rejected",
                ),
                (with(|o| o.work = work(0, 0, &[("no worker knows the route", 1)], 0)), "r", "has the route r"),
            ],
            vec![
                with(|o| o.work = work(3, 0, &[], 1)),
                with(|o| o.work = work(0, 0, &[], 0)),
                with(|o| {
                    let meant =
                        [("scheduled", 9), ("paused", 9), ("batch paused", 9), ("budget b", 9), ("p/m: paused (x)", 9)];
                    o.work = work(0, 0, &meant, 0);
                }),
            ],
        ),
        (
            R::StopLoss,
            vec![(
                with(|o| {
                    let reason = "stop-loss: 3 of 10 jobs failed".to_owned();
                    o.stopped = Some(vec![StoppedBatch { batch: "n".to_owned(), reason }]);
                }),
                "n",
                "batch n is paused: stop-loss: 3 of 10",
            )],
            vec![with(|o| o.stopped = Some(Vec::new()))],
        ),
        (
            R::CostSpike,
            vec![(
                with(|o| (o.hour, o.usual) = (Some(flow(1, 0, 30 * DOLLAR, 0)), usual(6))),
                "total",
                "the last hour has cost $30.00, and an hour usually costs $10.00; $30.00 of that on route r",
            )],
            vec![
                with(|o| (o.hour, o.usual) = (Some(flow(1, 0, 30 * DOLLAR - 1, 0)), usual(6))),
                with(|o| (o.hour, o.usual) = (Some(flow(1, 0, 99 * DOLLAR, 0)), usual(5))),
                with(|o| {
                    let usual = Some(UsualHour { cost: NanoUsd(1), hours: 99 });
                    (o.hour, o.usual) = (Some(flow(1, 0, 10 * DOLLAR - 1, 0)), usual);
                }),
            ],
        ),
        (
            R::SpoolInUse,
            vec![(with(|o| o.spools = vec![("w".to_owned(), 1)]), "w", "1 outcome waits in the spool of w")],
            vec![with(|o| o.spools = vec![("w".to_owned(), 0)])],
        ),
        (
            R::WorkerLost,
            vec![
                (with(|o| o.lost = lost(LostHow::Died, false, true)), "worker 7 on h", "has died"),
                // It came back before anyone looked: that is told once.
                (with(|o| o.lost = lost(LostHow::Died, true, false)), "worker 7 on h", "has died"),
            ],
            vec![
                with(|o| o.lost = lost(LostHow::Died, true, true)),
                with(|o| o.lost = lost(LostHow::Fell("claimer".to_owned()), false, false)),
            ],
        ),
        (
            R::LoopLost,
            vec![(
                with(|o| o.lost = lost(LostHow::Fell("claimer".to_owned()), false, false)),
                "worker 7 on h",
                "because its claimer ended unexpectedly",
            )],
            vec![with(|o| o.lost = lost(LostHow::Died, false, false))],
        ),
        (
            R::Doctor,
            vec![(
                with(|o| o.findings = finding(Severity::Bad)),
                "replication_slots",
                "replication slots: a slot keeps",
            )],
            vec![with(|o| o.findings = finding(Severity::Warning)), with(|o| o.findings = finding(Severity::Unseen))],
        ),
        (
            R::ForgottenPause,
            vec![(
                with(|o| o.known.pauses = paused(HOUR * 24, PauseKind::Route, "for now")),
                "route x",
                "route x has been paused for 1d by ops: for now",
            )],
            vec![
                with(|o| o.known.pauses = paused(HOUR * 23, PauseKind::Route, "")),
                with(|o| o.known.pauses = paused(HOUR * 99, PauseKind::Batch, "stop-loss: too many")),
            ],
        ),
    ]
}

#[test]
fn each_rule_sees_what_it_is_for_from_its_threshold_on() {
    let settings = AlertSettings::default();
    let cases = cases();
    let tested: BTreeSet<AlertRule> = cases.iter().map(|(rule, ..)| *rule).collect();
    let lasting: BTreeSet<AlertRule> = AlertRule::ALL.into_iter().filter(|rule| !rule.is_event()).collect();
    assert_eq!(tested, lasting, "every rule has its cases");
    for (rule, seen, unseen) in cases {
        for (observed, subject, words) in seen {
            let (found, examined) = sightings(&observed, &settings);
            let found: Vec<&Sighting> = found.iter().filter(|sighting| sighting.rule == rule).collect();
            assert_eq!(found.len(), 1, "{rule:?}: {found:?}");
            assert_eq!(found[0].subject, subject, "{rule:?}");
            assert!(found[0].summary.contains(words), "{rule:?}: {}", found[0].summary);
            assert!(examined.contains(&rule));
            let mut off = settings.clone();
            off.rules.insert(rule, RuleSettings { on: false, ..settings.rule(rule) });
            let (found, examined) = sightings(&observed, &off);
            assert!(!found.iter().any(|it| it.rule == rule) && !examined.contains(&rule), "{rule:?} is switched off");
        }
        for observed in unseen {
            let (found, _) = sightings(&observed, &settings);
            assert!(!found.iter().any(|sighting| sighting.rule == rule), "{rule:?}: {found:?}");
        }
    }
}

#[test]
fn what_was_not_looked_at_is_not_judged() {
    let (_, examined) = sightings(&with(|_| {}), &AlertSettings::default());
    for unknown in [AlertRule::StuckQueue, AlertRule::Doctor, AlertRule::CostSpike, AlertRule::UnknownPrice] {
        assert!(!examined.contains(&unknown), "{unknown:?}");
    }
    assert!(!examined.contains(&AlertRule::BatchCompleted), "events are no states");
}

#[test]
fn names_are_read_as_they_are_written_and_every_alert_says_what_to_do() {
    for rule in AlertRule::ALL {
        assert_eq!(AlertRule::parse(rule.as_str()), Some(rule));
        assert_eq!(rule.facts().remedy.is_empty(), rule == AlertRule::BatchCompleted, "{rule:?}");
    }
    for severity in AlertSeverity::ALL {
        assert_eq!(AlertSeverity::parse(severity.as_str()), Some(severity));
    }
}

#[test]
fn a_receiver_takes_its_rules_from_its_severity_on() {
    let appetite = |rules: Option<&[AlertRule]>, severity| Appetite {
        rules: rules.map(|rules| rules.iter().copied().collect()),
        severity,
    };
    let all = appetite(None, AlertSeverity::Warning);
    assert!(all.takes(AlertRule::KeyOut, AlertSeverity::Critical));
    assert!(!all.takes(AlertRule::BatchCompleted, AlertSeverity::Info));
    let some = appetite(Some(&[AlertRule::BatchCompleted]), AlertSeverity::Info);
    assert!(some.takes(AlertRule::BatchCompleted, AlertSeverity::Info));
    assert!(!some.takes(AlertRule::KeyOut, AlertSeverity::Critical));
}

/// One alert as the store would keep it, over looks.
struct World {
    settings: AlertSettings,
    now: Timestamp,
    record: Option<AlertRecord>,
    next_id: i64,
    /// The messages: when each was told, and which.
    told: Vec<(Timestamp, &'static str)>,
}

const LOOKS_APART: Duration = Duration::from_secs(200);

impl World {
    fn new(hold: u64, clear: u64, repeat: Option<u64>) -> Self {
        let mut settings = AlertSettings {
            clear: Duration::from_secs(clear),
            repeat: repeat.map(Duration::from_secs),
            ..AlertSettings::default()
        };
        let rule = RuleSettings { on: true, severity: AlertSeverity::Warning, hold: Duration::from_secs(hold) };
        settings.rules.insert(AlertRule::KeyOut, rule);
        Self { settings, now: NOW, record: None, next_id: 1, told: Vec::new() }
    }

    fn look(&mut self, after: u64, is_seen: bool) {
        self.look_at(after, is_seen, true);
    }

    fn look_at(&mut self, after: u64, is_seen: bool, is_examined: bool) {
        self.now = self.now + Duration::from_secs(after);
        let sighting = Sighting {
            rule: AlertRule::KeyOut,
            subject: "k".to_owned(),
            summary: "s".to_owned(),
            values: BTreeMap::new(),
        };
        // A rule that says a thing twice says it once.
        let seen = if is_seen { vec![sighting.clone(), sighting] } else { Vec::new() };
        let examined = if is_examined { BTreeSet::from([AlertRule::KeyOut]) } else { BTreeSet::new() };
        let known: Vec<AlertRecord> = self.record.iter().cloned().collect();
        let steps = steps(&known, &seen, &examined, &self.settings, LOOKS_APART, self.now);
        assert!(steps.len() <= 1, "one step for each key: {steps:?}");
        for step in steps {
            self.take(step);
        }
    }

    fn take(&mut self, step: AlertStep<'_>) {
        let now = self.now;
        match step {
            AlertStep::Note { .. } | AlertStep::Fire { id: None, .. } => {
                assert!(self.record.is_none());
                let fired_at = matches!(step, AlertStep::Fire { .. }).then_some(now);
                self.told.extend(fired_at.map(|at| (at, "firing")));
                self.record = Some(AlertRecord {
                    id: self.next_id,
                    rule: AlertRule::KeyOut,
                    subject: "k".to_owned(),
                    since: now,
                    seen_at: now,
                    fired_at,
                    gone_since: None,
                    told_at: fired_at,
                    reminders: 0,
                });
                self.next_id += 1;
            }
            AlertStep::See { anew, .. } => {
                let record = self.record.as_mut().unwrap();
                (record.seen_at, record.gone_since) = (now, None);
                record.since = if anew { now } else { record.since };
            }
            AlertStep::Fire { .. } => {
                let record = self.record.as_mut().unwrap();
                assert_eq!(record.fired_at, None);
                (record.fired_at, record.told_at, record.seen_at) = (Some(now), Some(now), now);
                self.told.push((now, "firing"));
            }
            AlertStep::Remind { reminders, .. } => {
                let record = self.record.as_mut().unwrap();
                (record.told_at, record.seen_at, record.gone_since) = (Some(now), now, None);
                record.reminders = reminders;
                self.told.push((now, "reminder"));
            }
            AlertStep::Miss { .. } => self.record.as_mut().unwrap().gone_since = Some(now),
            AlertStep::Drop { .. } => assert_eq!(self.record.take().unwrap().fired_at, None),
            AlertStep::Resolve { .. } => {
                assert!(self.record.take().unwrap().fired_at.is_some());
                self.told.push((now, "resolved"));
            }
        }
    }

    fn words(&self) -> Vec<&'static str> {
        self.told.iter().map(|(_, word)| *word).collect()
    }
}

#[test]
fn an_alert_fires_when_it_has_lasted_and_is_over_when_it_has_been_gone() {
    let mut world = World::new(60, 120, None);
    for _ in 0..2 {
        world.look(30, true);
    }
    assert_eq!(world.words(), [""; 0], "it has lasted for 30 s");
    world.look(30, true);
    assert_eq!(world.words(), ["firing"]);
    for is_seen in [false, true, false, false, false] {
        world.look(60, is_seen);
    }
    assert_eq!(world.words(), ["firing", "resolved"], "the second break was long enough");
    world.look(60, true);
    world.look(60, false);
    world.look(600, true);
    assert_eq!(world.words(), ["firing", "resolved"], "what is gone before its time is told to no one");
}

#[test]
fn what_lasts_is_told_of_again_and_what_was_not_looked_at_stays_as_it_is() {
    let mut world = World::new(0, 0, Some(100));
    for _ in 0..7 {
        world.look(50, true);
    }
    assert_eq!(world.words(), ["firing", "reminder", "reminder", "reminder"]);
    assert_eq!(world.record.as_ref().unwrap().reminders, 3);
    world.look_at(5000, false, false);
    assert!(world.record.is_some());
    world.look(1, false);
    assert_eq!(world.words().last(), Some(&"resolved"), "without a time to clear it is over at once");
}

#[test]
fn what_takes_long_to_read_is_read_less_often_and_often_enough_that_no_alert_begins_anew() {
    // Milliseconds that reading took, seconds between two looks, and seconds without reading.
    let cases = [(0, 30, 0.0), (10, 30, 0.49), (600, 30, 29.4), (1_800, 30, 88.2), (9_000, 30, 90.0), (500, 1, 3.0)];
    for (took, every, pause) in cases {
        let (took, every) = (Duration::from_millis(took), Duration::from_secs(every));
        assert_eq!(pause_in_reading(took, every), Duration::from_secs_f64(pause), "{took:?}");
    }
    assert_eq!(pause_in_reading(Duration::MAX, Duration::MAX), Duration::MAX);
}

#[test]
fn after_a_long_break_it_is_not_known_whether_it_was_there_all_the_time() {
    let mut world = World::new(60, 120, None);
    world.look(0, true);
    world.look(5000, true);
    assert_eq!(world.words(), [""; 0]);
    world.look(60, true);
    assert_eq!(world.words(), ["firing"]);
    world.look(5000, false);
    assert_eq!(world.words(), ["firing"], "it may have gone just now");
}

#[test]
fn a_rule_that_is_switched_off_ends_its_alerts() {
    let mut world = World::new(0, 120, None);
    world.look(0, true);
    let rule = world.settings.rule(AlertRule::KeyOut);
    world.settings.rules.insert(AlertRule::KeyOut, RuleSettings { on: false, ..rule });
    world.look_at(1, true, false);
    assert_eq!(world.words(), ["firing", "resolved"]);
    world.look_at(1, true, false);
    assert_eq!(world.words(), ["firing", "resolved"]);
}

proptest! {
    /// However it comes and goes: each firing has one end, and there is no flapping beyond what the rule allows.
    #[test]
    fn each_firing_has_one_end_and_nothing_flaps(
        hold in 0_u64..200,
        clear in 0_u64..200,
        repeat in proptest::option::of(1_u64..500),
        looks in proptest::collection::vec((1_u64..120, any::<bool>(), proptest::bool::weighted(0.9)), 1..120),
    ) {
        let mut world = World::new(hold, clear, repeat);
        for (after, is_seen, is_examined) in looks {
            world.look_at(after, is_seen && is_examined, is_examined);
        }
        // Everything is over in the end.
        for _ in 0..3 {
            world.look(clear.max(1), false);
        }
        prop_assert!(world.record.is_none());
        let turns: Vec<&(Timestamp, &str)> = world.told.iter().filter(|(_, word)| *word != "reminder").collect();
        for (index, (_, word)) in turns.iter().enumerate() {
            prop_assert_eq!(*word, if index % 2 == 0 { "firing" } else { "resolved" });
        }
        prop_assert_eq!(turns.len() % 2, 0);
        for pair in turns.windows(2) {
            let apart = pair[0].0.until(pair[1].0);
            let least = if pair[1].1 == "firing" { hold } else { clear };
            prop_assert!(apart >= Duration::from_secs(least), "{:?}", pair);
        }
        if let Some(repeat) = repeat {
            for pair in world.told.windows(2).filter(|pair| pair[1].1 == "reminder") {
                prop_assert!(pair[0].0.until(pair[1].0) >= Duration::from_secs(repeat));
            }
        }
    }

    #[test]
    fn a_message_is_tried_for_a_day_and_as_its_receiver_asks(
        tries in 1_u32..100_000,
        seconds in 0_u64..200_000,
        asked in proptest::option::of(0_u64..1_000_000),
        seed in any::<u64>(),
    ) {
        let outcome = SendOutcome { status: Some(503), retry_after: asked.map(Duration::from_secs) };
        let age = Duration::from_secs(seconds);
        let pause = next_try(outcome, tries, age, seed);
        prop_assert_eq!(pause.is_none(), age >= GIVE_UP_AFTER);
        if let Some(pause) = pause {
            let left = GIVE_UP_AFTER.saturating_sub(age);
            prop_assert!(pause >= Duration::from_millis(100) && pause <= left.max(Duration::from_millis(100)));
            let asked = outcome.retry_after.unwrap_or_default().min(left);
            prop_assert!(pause >= asked, "{:?} {:?}", pause, asked);
            if asked.is_zero() {
                prop_assert!(pause <= Duration::from_mins(15));
            }
        }
    }
}

#[test]
fn what_a_receiver_says_decides_what_becomes_of_a_message() {
    let of = |status| SendOutcome { status, retry_after: None };
    for (status, is_taken, is_of_receiver, is_tried_again) in [
        (Some(200), true, false, true),
        (Some(204), true, false, true),
        (Some(302), false, false, true),
        (Some(400), false, false, true),
        (Some(404), false, false, true),
        (Some(410), false, false, false),
        (Some(429), false, true, true),
        (Some(500), false, true, true),
        (None, false, true, true),
    ] {
        let outcome = of(status);
        assert_eq!(outcome.is_taken(), is_taken, "{status:?}");
        assert_eq!(outcome.is_of_receiver(), is_of_receiver, "{status:?}");
        assert_eq!(next_try(outcome, 1, Duration::ZERO, 1).is_some(), is_tried_again, "{status:?}");
    }
}

fn told(values: &BTreeMap<String, String>, until: Option<Timestamp>) -> AlertTold<'_> {
    AlertTold {
        id: 12,
        rule: AlertRule::KeyOut,
        subject: "p/<!channel>",
        severity: AlertSeverity::Warning,
        summary: "key p/<!channel> is\nrejected & out",
        values,
        since: NOW - HOUR,
        fired_at: NOW,
        until,
        reminders: 0,
    }
}

#[test]
fn a_generic_message_has_every_member_and_the_same_bytes_each_time() {
    let values = BTreeMap::from([("reason".to_owned(), "auth".to_owned())]);
    let message = AlertMessage::of_alert(AlertNews::Firing, &told(&values, None), Some("prod"), NOW);
    let remedy = AlertRule::KeyOut.facts().remedy;
    assert_eq!(
        *message.value(),
        json!({
            "type": "alert.firing",
            "timestamp": "2027-01-15T08:00:00.000Z",
            "data": {
                "alert": 12, "key": "key_out:p/<!channel>", "rule": "key_out", "subject": "p/<!channel>",
                "severity": "warning", "state": "firing", "summary": "key p/<!channel> is rejected & out",
                "remedy": remedy, "values": { "reason": "auth" }, "since": "2027-01-15T07:00:00.000Z",
                "fired_at": "2027-01-15T08:00:00.000Z", "resolved_at": null, "reminders": 0, "source": "prod",
            },
        })
    );
    let stored = AlertMessage::stored(message.value().clone());
    assert_eq!(stored.body(HookFormat::Generic), message.body(HookFormat::Generic));
}

#[test]
fn a_message_to_slack_is_text_with_a_colour_in_which_no_name_becomes_a_mention() {
    let values = BTreeMap::new();
    let firing = AlertMessage::of_alert(AlertNews::Firing, &told(&values, None), Some("prod"), NOW);
    let slack: serde_json::Value = serde_json::from_slice(&firing.body(HookFormat::Slack)).unwrap();
    let line = "[warning] key p/&lt;!channel&gt; is rejected &amp; out (prod)";
    assert_eq!((&slack["text"], &slack["attachments"][0]["fallback"]), (&json!(line), &json!(line)));
    assert_eq!(slack["attachments"][0]["color"], "#f9a825");
    let fields = slack["attachments"][0]["fields"].as_array().unwrap();
    assert!(fields.iter().any(|field| field["title"] == "what to do"), "{fields:?}");
    let over = AlertMessage::of_alert(AlertNews::Resolved, &told(&values, Some(NOW)), None, NOW);
    let slack: serde_json::Value = serde_json::from_slice(&over.body(HookFormat::Slack)).unwrap();
    assert!(slack["text"].as_str().unwrap().starts_with("[resolved] key"), "{slack}");
    assert_eq!(slack["attachments"][0]["color"], "#2e7d32");
}

#[test]
fn a_report_is_told_with_its_time_and_what_is_not_in_it_and_in_slack_as_lines() {
    let report = ReportMade {
        schedule: "costs",
        tick: NOW,
        kind: "cost",
        period: ReportPeriod { from: Some(NOW - HOUR), until: NOW },
        summary: "report cost of schedule costs: 1 row".to_owned(),
        rows: json!([{ "project": "<!here>", "cost": "1.5" }]),
        more_rows: 0,
        unpriced: 2,
        note: Some("money was lost".to_owned()),
        lines: "project  cost\n<!here>  $1.50".to_owned(),
    };
    let message = AlertMessage::of_report(&report, Some("prod"), NOW);
    assert_eq!(
        message.value(),
        &json!({
            "type": "report", "timestamp": "2027-01-15T08:00:00.000Z",
            "data": {
                "severity": "info", "summary": "report cost of schedule costs: 1 row", "remedy": "",
                "schedule": "costs", "tick": "2027-01-15T08:00:00.000Z", "report": "cost",
                "from": "2027-01-15T07:00:00.000Z", "until": "2027-01-15T08:00:00.000Z",
                "rows": [{ "project": "<!here>", "cost": "1.5" }], "more_rows": 0, "unpriced_attempts": 2,
                "note": "money was lost", "lines": "project  cost\n<!here>  $1.50", "source": "prod",
            },
        })
    );
    let slack: serde_json::Value = serde_json::from_slice(&message.body(HookFormat::Slack)).unwrap();
    let text = "[info] report cost of schedule costs: 1 row (prod)\n```\nproject  cost\n&lt;!here&gt;  $1.50\n```";
    assert_eq!(slack["text"], text);
    let empty = AlertMessage::of_report(&ReportMade { lines: String::new(), ..report }, None, NOW);
    let slack: serde_json::Value = serde_json::from_slice(&empty.body(HookFormat::Slack)).unwrap();
    assert!(!slack["text"].as_str().unwrap().contains("```"), "{slack}");
}

#[test]
fn a_batch_has_failed_when_more_of_it_failed_than_may() {
    let end = |succeeded, failed| BatchEnd {
        batch: "b".to_owned(),
        jobs: succeeded + failed + 1,
        succeeded,
        failed,
        cancelled: 1,
        attempts: 9,
        cost: NanoUsd(5_000_000_000),
        uncertain: NanoUsd(0),
        unpriced: 0,
        before: 0,
    };
    let (half, none, all) = (500_000, 0, 1_000_000);
    for (succeeded, failed, share, rule) in [
        (10, 0, none, AlertRule::BatchCompleted),
        (10, 1, none, AlertRule::BatchFailed),
        (5, 5, half, AlertRule::BatchCompleted),
        (4, 5, half, AlertRule::BatchFailed),
        (1, 99, all, AlertRule::BatchCompleted),
        (0, 1, all, AlertRule::BatchFailed),
        (0, 0, none, AlertRule::BatchCompleted),
    ] {
        assert_eq!(end(succeeded, failed).rule(share), rule, "{succeeded} {failed} {share}");
    }
    let words = end(4, 5).in_words(AlertRule::BatchFailed);
    assert_eq!(words, "batch b has failed: 4 jobs succeeded, 5 failed, 1 cancelled; it cost $5.00");
    let message = AlertMessage::of_batch(&end(4, 5), AlertRule::BatchFailed, AlertSeverity::Warning, None, NOW);
    assert_eq!(message.kind(), "batch.failed");
    assert_eq!(message.value()["data"]["cost"], "5.00");
}
