//! Keys at the gate, on paused time.

use crate::domain::charging::Ask;
use crate::domain::decide::RungHealth;
use crate::domain::doubt::Asker;
use crate::domain::shut::{Reason, Shut};
use crate::domain::tempo::Took;
use crate::domain::{
    BreakerSettings, Charge, Charging, ErrorClass, Failure, Limits, Outcome, Rate, Scope, Target, Timestamp, Unit,
};
use crate::provider::{HeaderMap, QuirkSettings, WireReply, gemini, vendors};
use crate::worker::bucket::tests::Others;
use crate::worker::gate::{Gate, Permit, ProviderSetup, TargetState};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const RECHECK: Duration = Duration::from_mins(10);
const SECOND: Duration = Duration::from_secs(1);
const TOOK: Took = Took { time: Duration::from_millis(100), output_tokens: 10 };
const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };

struct Stage {
    gate: Gate,
    target: Arc<TargetState>,
}

impl Stage {
    /// A provider with these keys, a bucket of these limits, and a breaker that opens at the third failure in a row.
    fn new(keys: &[&str], limits: Limits) -> Self {
        let open = Duration::from_secs(30);
        let breaker = BreakerSettings { min_calls: 3, failure_rate: 1.0, window: Duration::from_mins(1), open };
        let setup = ProviderSetup {
            bucket: "p".to_owned(),
            charging: Charging::COMBINED,
            breaker,
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            recheck: RECHECK,
            probe: None,
            server: String::new(),
            targets: vec![Target::new("p", "m")],
            model_buckets: BTreeMap::new(),
        };
        let gate = Gate::new(&[("p".to_owned(), limits)].into(), &BTreeMap::from([("p".to_owned(), setup)]));
        for bucket in gate.buckets() {
            Others::default().keep(1, bucket);
        }
        let target = gate.target(&Target::new("p", "m")).unwrap();
        Self { gate, target }
    }

    fn with_keys(keys: &[&str]) -> Self {
        Self::new(keys, Limits::default())
    }

    async fn admit(&self, now: Timestamp) -> Result<Permit, Reason> {
        self.gate.admit(&self.target, CHARGE, Duration::from_millis(30), now).await.map_err(|shut| shut.reason)
    }

    fn report(&self, permit: Permit, outcome: &Outcome, now: Timestamp) {
        let class = outcome.class();
        let failure = class.map(|class| Failure::new(class, Scope::Key, "m"));
        self.gate.report(&self.target, permit, outcome, failure.as_ref(), CHARGE, TOOK, &[], Asker::another(1), now);
    }

    /// Makes a call and returns the place of the key it was made with.
    async fn call(&self, outcome: impl Fn(usize) -> Outcome, now: Timestamp) -> usize {
        let permit = self.admit(now).await.expect("the gate is open");
        let key = permit.key();
        self.report(permit, &outcome(key), now);
        key
    }

    async fn calls<const N: usize>(&self, outcome: impl Fn(usize) -> Outcome, now: Timestamp) -> [usize; N] {
        let mut keys = [0; N];
        for key in &mut keys {
            *key = self.call(&outcome, now).await;
        }
        keys
    }

    fn health(&self, now: Timestamp) -> RungHealth {
        self.target.health(&Ask { reserved: CHARGE, expected: CHARGE, least: CHARGE }, None, SECOND, now)
    }

    fn keys(&self, now: Timestamp) -> Vec<Value> {
        let shown = serde_json::to_value(self.gate.snapshot(now).keys).unwrap();
        shown.as_array().unwrap().clone()
    }
}

fn accepted(_: usize) -> Outcome {
    Outcome::Accepted
}

fn refused(class: ErrorClass) -> impl Fn(usize) -> Outcome {
    move |_| Outcome::Failed(class)
}

#[tokio::test(start_paused = true)]
async fn calls_take_the_keys_in_turn_and_go_on_with_those_that_are_left() {
    let stage = Stage::with_keys(&["A", "B", "C"]);
    assert_eq!(stage.calls(accepted, NOW).await, [0, 1, 2, 0]);
    let second_is_out = |key| if key == 1 { Outcome::Failed(ErrorClass::QuotaExhausted) } else { Outcome::Accepted };
    assert_eq!(stage.calls(second_is_out, NOW).await, [1, 2, 0, 2, 0]);
    assert_eq!(stage.health(NOW), RungHealth::Open);
    let state = |key: &str, state: &str, why: Option<&str>, since: Option<i64>, until: Option<i64>| {
        let shut = why.map(|why| json!({ "reason": why, "since_ms": since, "until_ms": until }));
        let mut told = json!({ "provider": "p", "key": key, "state": state, "shut": shut });
        if why.is_some() {
            told["said"] = json!("“m”");
        }
        told
    };
    let until = (NOW + RECHECK).0;
    let expected = [
        state("A", "in_service", None, None, None),
        state("B", "out", Some("quota_exhausted"), Some(NOW.0), Some(until)),
        state("C", "in_service", None, None, None),
    ];
    assert_eq!(stage.keys(NOW + SECOND), expected);
}

#[tokio::test(start_paused = true)]
async fn when_all_keys_are_out_the_provider_is_closed_until_the_first_may_be_tried() {
    let stage = Stage::with_keys(&["A", "B"]);
    stage.call(refused(ErrorClass::Auth), NOW).await;
    let later = NOW + SECOND;
    stage.call(refused(ErrorClass::QuotaExhausted), later).await;
    let shut = RungHealth::Shut(Shut { reason: Reason::Auth, since: later, until: NOW + RECHECK });
    assert_eq!(stage.health(later), shut);
    assert_eq!(stage.admit(later).await.err(), Some(Reason::Auth));
    assert_eq!(
        stage.gate.snapshot(later).targets[0].shut.as_ref().and_then(|shut| shut.reason.as_deref()),
        Some("auth")
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_recheck_one_call_for_each_key_tries_again_and_not_a_herd() {
    let stage = Stage::with_keys(&["A", "B"]);
    stage.calls::<2>(refused(ErrorClass::QuotaExhausted), NOW).await;
    let due = NOW + RECHECK;
    assert_eq!(stage.health(due), RungHealth::Open);
    assert_eq!(stage.target.headroom(CHARGE, 1), 2, "the claimer brings one job for each");
    let probes = [stage.admit(due).await.expect("a probe"), stage.admit(due).await.expect("a probe")];
    for _ in 0..100 {
        assert_eq!(stage.admit(due).await.err(), Some(Reason::QuotaExhausted));
    }
    assert!(stage.keys(due).iter().all(|key| key["state"] == "tried_again"));
    let [first, second] = probes;
    let (good, bad) = (first.key(), second.key());
    stage.report(first, &Outcome::Accepted, due);
    stage.report(second, &Outcome::Failed(ErrorClass::QuotaExhausted), due);
    assert_eq!(stage.calls(accepted, due).await, [good, good]);
    assert_eq!(stage.keys(due)[bad]["shut"]["until_ms"], (due + RECHECK).0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_made_after_all_leaves_its_place_to_the_next() {
    let stage = Stage::with_keys(&["A"]);
    stage.call(refused(ErrorClass::Auth), NOW).await;
    let due = NOW + RECHECK;
    // Given up, …
    let permit = stage.admit(due).await.expect("a probe");
    stage.gate.abandon(&stage.target, permit, None, due);
    // … dropped with its task, …
    drop(stage.admit(due).await.expect("a probe"));
    // … or left without an answer.
    stage.call(refused(ErrorClass::Timeout), due).await;
    assert_eq!(stage.call(accepted, due).await, 0);
    assert_eq!(stage.keys(due)[0]["state"], "in_service");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_breaker_stops_tries_no_key() {
    let stage = Stage::with_keys(&["A", "B"]);
    let first_is_out = |key| Outcome::Failed(if key == 0 { ErrorClass::Auth } else { ErrorClass::ServerError });
    // The breaker opens at the third failure of the second key, and for longer at a failed probe of its own.
    stage.calls::<4>(first_is_out, NOW).await;
    let due = NOW + RECHECK;
    stage.call(refused(ErrorClass::ServerError), due).await;
    for _ in 0..5 {
        assert_eq!(stage.admit(due + SECOND).await.err(), Some(Reason::Breaker));
    }
    assert_eq!(stage.keys(due + SECOND)[0]["state"], "due");
    let later = due + Duration::from_mins(2);
    let mut tried = stage.calls::<2>(accepted, later).await;
    tried.sort_unstable();
    assert_eq!(tried, [0, 1]);
    assert_eq!(stage.keys(later)[0]["state"], "in_service");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_bucket_stops_tries_no_key() {
    let twice_an_hour = Rate { unit: Unit::Requests, amount: 2, per: Duration::from_hours(1), burst: 2 };
    let stage = Stage::new(&["A", "B"], Limits { rates: vec![twice_an_hour], concurrency: None });
    stage.calls::<2>(refused(ErrorClass::Auth), NOW).await;
    assert_eq!(stage.admit(NOW + RECHECK).await.err(), Some(Reason::RateLimit));
    assert!(stage.keys(NOW + RECHECK).iter().all(|key| key["state"] == "due"));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_keys_rests_as_a_whole_and_has_no_line_in_the_status() {
    let stage = Stage::with_keys(&[]);
    assert_eq!(stage.call(refused(ErrorClass::Auth), NOW).await, 0);
    assert_eq!(stage.admit(NOW).await.err(), Some(Reason::Auth));
    assert!(stage.keys(NOW).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_hours_reaches_the_gate_to_the_millisecond() {
    let stage = Stage::with_keys(&["A", "B"]);
    let body = br#"{"error":{"code":429,"message":"Please retry in 10h17m5.72s.","status":"RESOURCE_EXHAUSTED"}}"#;
    let headers = HeaderMap::new();
    let failure = vendors::adapter(&gemini::DIALECT, None, "", &QuirkSettings::default())
        .decode(&WireReply::new(429, &headers, body))
        .expect_err("a failure");
    let permit = stage.admit(NOW).await.expect("the gate is open");
    let outcome = Outcome::Failed(failure.class);
    stage.gate.report(&stage.target, permit, &outcome, Some(&failure), CHARGE, TOOK, &[], Asker::another(1), NOW);
    // For all keys: limits are the account's.
    let until = NOW + Duration::from_millis(37_025_720);
    assert_eq!(stage.health(NOW), RungHealth::Shut(Shut { reason: Reason::RateLimit, since: NOW, until }));
    let almost = until - Duration::from_millis(1);
    assert!(matches!(stage.health(almost), RungHealth::Shut(Shut { until: opens, .. }) if opens == until));
}

#[test]
fn other_workers_are_told_of_a_key_that_was_replaced() {
    let names = vec!["A".to_owned()];
    let before = super::Keys::new("p", &names, RECHECK);
    let hold = before.take(NOW).expect("it is in service");
    assert!(hold.report(&Outcome::Failed(ErrorClass::QuotaExhausted), None, 1, NOW));
    let news = before.news();
    assert_eq!(news.len(), 1, "{news:?}");
    for (name, news) in &news {
        before.told(name, news);
    }
    let same = names.iter().cloned().collect();
    assert_eq!(super::Keys::renewed(&before, &names, &same, RECHECK, NOW).news(), [], "it is out as before");
    let after = super::Keys::renewed(&before, &names, &std::collections::BTreeSet::new(), RECHECK, NOW);
    assert_eq!(after.news(), [("A".to_owned(), crate::domain::news::KeyNews::InService)]);
}
