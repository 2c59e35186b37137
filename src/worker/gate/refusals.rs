//! What the refusal of one request means for other requests and for its own job: from the bytes, through gate and
//! decision.

use super::*;
use crate::domain::charging::Ask;
use crate::domain::decide::{Condition, RungHealth, Step, decide};
use crate::domain::request::Extras;
use crate::domain::{Attempt, BreakerSettings, Charging, Job, JobId, Limits, Model, Patience, Route, Rung, Timeouts};
use crate::provider::{DIALECTS, Dialect, HeaderMap, QuirkSettings, WireReply, openai, vendors};
use crate::worker::bucket::tests::Others;
use proptest::prelude::*;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const SECOND: Duration = Duration::from_secs(1);
const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };

struct Stage {
    gate: Gate,
    target: Arc<TargetState>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new(keys: &[&str]) -> Self {
        Self::with_others(keys, &Others::default())
    }

    /// A worker that starts beside these others.
    fn with_others(keys: &[&str], others: &Others) -> Self {
        let breaker = BreakerSettings { min_calls: 10, failure_rate: 0.5, window: SECOND * 60, open: SECOND * 30 };
        let setup = ProviderSetup {
            bucket: "p".to_owned(),
            charging: Charging::COMBINED,
            breaker,
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            recheck: SECOND * 600,
            probe: None,
            server: String::new(),
            targets: vec![Target::new("p", "m")],
            model_buckets: BTreeMap::new(),
        };
        let buckets = BTreeMap::from([("p".to_owned(), Limits::default())]);
        let gate = Gate::new(&buckets, &BTreeMap::from([("p".to_owned(), setup)]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let entered = runtime.enter();
        for bucket in gate.buckets() {
            others.keep(1, bucket);
        }
        drop(entered);
        let target = gate.target(&Target::new("p", "m")).expect("it is set up");
        Self { gate, target, runtime }
    }

    /// A call for this request that begins and ends at `now`.
    fn call(&self, request: u64, failure: Option<&Failure>, now: Timestamp) {
        let _entered = self.runtime.enter();
        let permit =
            self.runtime.block_on(self.gate.admit(&self.target, CHARGE, SECOND, now)).expect("the gate is open");
        let outcome = failure.map_or(Outcome::Accepted, |failure| Outcome::Failed(failure.class));
        let took = Took { time: SECOND, output_tokens: 50 };
        self.gate.report(&self.target, permit, &outcome, failure, CHARGE, took, &[], Asker::another(request), now);
    }

    fn shut(&self, now: Timestamp) -> Option<Reason> {
        let _entered = self.runtime.enter();
        let ask = Ask { reserved: CHARGE, least: CHARGE, expected: CHARGE };
        match self.target.health(&ask, None, SECOND, now) {
            RungHealth::Shut(Shut { reason, .. }) => Some(reason),
            RungHealth::Open => None,
            RungHealth::Ineligible(why) => panic!("{why}"),
        }
    }
}

fn failure(dialect: &'static Dialect, status: u16, body: &str) -> Failure {
    let adapter = vendors::adapter(dialect, None, "http://127.0.0.1:8000/v1", &QuirkSettings::default());
    adapter.decode(&WireReply::new(status, &HeaderMap::new(), body.as_bytes())).expect_err(body)
}

#[test]
fn a_refusal_in_doubt_shuts_a_target_when_a_different_request_meets_it() {
    let refused = failure(&openai::DIALECT, 403, r#"{"code":"permission-denied","error":"No."}"#);
    let stage = Stage::new(&[]);
    for _ in 0..2 {
        stage.call(1, Some(&refused), NOW);
        assert_eq!(stage.shut(NOW), None);
    }
    stage.call(2, Some(&refused), NOW);
    assert_eq!(stage.shut(NOW + SECOND * 29), Some(Reason::Model));
    // For a moment only, since the two requests may still have been the cause.
    let later = NOW + SECOND * 31;
    assert_eq!(stage.shut(later), None);
    stage.call(3, Some(&refused), later);
    assert_eq!(stage.shut(later + SECOND * 59), Some(Reason::Model));
}

#[test]
fn an_answer_shows_that_a_refusal_concerned_its_request() {
    let refused = failure(&openai::DIALECT, 403, r#"{"code":"permission-denied","error":"No."}"#);
    let stage = Stage::new(&[]);
    for request in 0..20 {
        stage.call(request, Some(&refused), NOW + SECOND * u32::try_from(2 * request).unwrap());
        stage.call(100, None, NOW + SECOND * u32::try_from(2 * request + 1).unwrap());
        assert_eq!(stage.shut(NOW + SECOND * 60), None, "{request}");
    }
}

#[test]
fn a_code_that_names_the_model_is_believed_at_once() {
    let gone = failure(&openai::DIALECT, 400, r#"{"error":{"message":"m","code":"model_decommissioned"}}"#);
    let stage = Stage::new(&[]);
    stage.call(1, Some(&gone), NOW);
    assert_eq!(stage.shut(NOW + SECOND * 599), Some(Reason::Model));
}

#[test]
fn a_model_that_has_answered_lately_or_was_reopened_is_not_shut_for_the_refusal_of_one_request() {
    let gone = failure(&openai::DIALECT, 404, r#"{"error":{"message":"m","code":"model_not_found"}}"#);
    let stage = Stage::new(&["A"]);
    stage.call(7, None, NOW);
    // One job meets it again and again, and others are answered: it is its own matter.
    for times in 1..20 {
        let now = NOW + SECOND * times;
        stage.call(1, Some(&gone), now);
        assert_eq!(stage.shut(now), None, "{times}");
        stage.call(2, None, now);
    }
    // The second request that meets it confirms it, and the code is believed for the whole recheck.
    let now = NOW + SECOND * 60;
    stage.call(1, Some(&gone), now);
    stage.call(3, Some(&gone), now);
    assert_eq!(stage.shut(now + SECOND * 599), Some(Reason::Model));
    assert_eq!(stage.target.lets_others_first(3, now + SECOND * 600), None, "both may go");
    // An hour later one request is believed again.
    let stage = Stage::new(&["A"]);
    stage.call(7, None, NOW);
    let later = NOW + SECOND * 3601;
    stage.call(1, Some(&gone), later);
    assert_eq!(stage.shut(later), Some(Reason::Model));
    let due = later + SECOND * 600;
    assert!(stage.shut(due).is_none() && stage.target.lets_others_first(1, due).is_some(), "another may ask first");
    assert_eq!(stage.target.lets_others_first(2, due), None);
    // A person says that it works: the same job alone does not shut it for others again.
    stage.target.vouch(later);
    stage.call(1, Some(&gone), later);
    assert_eq!(stage.shut(later), None);
    stage.call(2, None, later);
    stage.call(1, Some(&gone), later);
    assert_eq!(stage.shut(later), None);
}

/// A worker that starts hears of the last opening by hand, however long ago that was.
#[test]
fn an_opening_of_long_ago_says_nothing_of_what_is_refused_now() {
    let gone = failure(&openai::DIALECT, 404, r#"{"error":{"message":"m","code":"model_not_found"}}"#);
    for (ago, shut) in [(60, None), (3_600 * 24 * 30, Some(Reason::Model))] {
        let others = Others::default();
        others.shared.lock().reopen(NOW - SECOND * ago);
        let stage = Stage::with_others(&["A"], &others);
        stage.call(1, Some(&gone), NOW);
        assert_eq!(stage.shut(NOW), shut, "{ago} s");
    }
}

#[test]
fn one_call_asks_again_for_a_model_that_was_refused_and_all_others_wait_for_its_outcome() {
    let gone = failure(&openai::DIALECT, 404, r#"{"error":{"message":"m","code":"model_not_found"}}"#);
    let stage = Stage::new(&["A"]);
    stage.call(1, Some(&gone), NOW);
    let admit = |now| {
        let _entered = stage.runtime.enter();
        stage.runtime.block_on(stage.gate.admit(&stage.target, CHARGE, SECOND, now)).map_err(|shut| shut.reason)
    };
    let mut now = NOW;
    for _ in 0..3 {
        now = now + SECOND * 601;
        assert_eq!(stage.shut(now), None);
        let asks = admit(now).expect("one call asks again");
        assert_eq!((admit(now).err(), stage.shut(now)), (Some(Reason::Model), Some(Reason::Model)));
        assert_eq!(stage.target.shut_meanwhile(&asks, now), None, "it goes on");
        // A call that was not sent leaves its place to another.
        stage.gate.abandon(&stage.target, asks, None, now);
        stage.call(2, Some(&gone), now);
        assert_eq!((admit(now).err(), stage.shut(now + SECOND * 599)), (Some(Reason::Model), Some(Reason::Model)));
    }
    now = now + SECOND * 601;
    stage.call(3, None, now);
    assert!(admit(now).is_ok() && admit(now).is_ok(), "the model is there");
}

#[test]
fn a_key_stays_in_service_until_a_second_request_is_refused_for_money() {
    let refused = failure(&openai::DIALECT, 402, r#"{"error":{"message":"Pay."}}"#);
    let stage = Stage::new(&["A"]);
    for _ in 0..2 {
        stage.call(1, Some(&refused), NOW);
        assert_eq!(stage.shut(NOW), None);
    }
    stage.call(7, None, NOW + SECOND);
    stage.call(2, Some(&refused), NOW + SECOND);
    assert_eq!(stage.shut(NOW + SECOND), None, "it has answered in between");
    stage.call(3, Some(&refused), NOW + SECOND);
    assert_eq!(stage.shut(NOW + SECOND), Some(Reason::QuotaExhausted));

    let sure = failure(&openai::DIALECT, 402, r#"{"error":{"message":"Insufficient Balance"}}"#);
    let stage = Stage::new(&["A"]);
    stage.call(1, Some(&sure), NOW);
    assert_eq!(stage.shut(NOW), Some(Reason::QuotaExhausted));
}

#[test]
fn one_request_alone_confirms_that_a_key_is_refused_unless_others_are_answered() {
    for (status, body, reason) in [
        (401, "Unauthorized", Reason::Auth),
        (402, r#"{"error":{"message":"Pay."}}"#, Reason::QuotaExhausted),
        (400, r#"{"error":{"message":"API key expired. Please renew the API key."}}"#, Reason::Auth),
    ] {
        let refused = failure(&openai::DIALECT, status, body);
        let stage = Stage::new(&["A"]);
        for times in 0..3 {
            assert_eq!(stage.shut(NOW), None, "{body}, {times}");
            stage.call(1, Some(&refused), NOW);
        }
        assert_eq!(stage.shut(NOW), Some(reason), "{body}");
        // Where other requests are answered in between, the refusal is that request's own matter, however often it
        // comes.
        let stage = Stage::new(&["A"]);
        for _ in 0..20 {
            stage.call(1, Some(&refused), NOW);
            stage.call(2, None, NOW);
            assert_eq!(stage.shut(NOW), None, "{body}");
        }
    }
}

fn route() -> Route {
    let rung = |model: &str| Rung {
        target: Target::new(model, model),
        model: Model::default(),
        timeouts: Timeouts::of(SECOND * 60),
        stream: false,
    };
    Route {
        patience: Patience::For(SECOND * 600),
        max_attempts: 6,
        reask: true,
        ..Route::plain("r", vec![rung("a"), rung("b")])
    }
}

/// Words that no table knows.
fn messages() -> impl Strategy<Value = String> {
    const WORDS: &[&str] =
        &["zorb", "quux", "mumble", "frob", "wibble", "plugh", "42", "xyzzy", "grault", "'thud'", "#7"];
    prop::collection::vec(prop::sample::select(WORDS), 0..12).prop_map(|words| words.join(" "))
}

fn bodies() -> impl Strategy<Value = String> {
    (messages(), messages(), 0..10_u8).prop_map(|(message, code, shape)| match shape {
        0 => json!({"error": {"message": message, "type": code, "code": null}}).to_string(),
        1 => json!({"error": message, "code": code}).to_string(),
        2 => json!({"detail": [{"msg": message, "loc": ["body", "messages", 3]}]}).to_string(),
        3 => json!({"errors": [{"message": message, "code": 700_123}]}).to_string(),
        4 => json!({"type": "error", "error": {"type": code, "message": message}}).to_string(),
        5 => format!("<html><body>{message}</body></html>"),
        6 => message,
        7 => json!({"error": {"status": code, "message": message, "details": [{"reason": code}]}}).to_string(),
        8 => json!({message: code}).to_string(),
        _ => String::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Other requests have to wait for a limit only: it is theirs as well.
    #[test]
    fn what_no_table_knows_ends_no_job_and_holds_up_no_other(
        status in 400..600_u16,
        body in bodies(),
        dialect in prop::sample::select(DIALECTS),
    ) {
        let failure = failure(dialect, status, &body);
        let (route, job) = (route(), Job {
            id: JobId(7), ready_at: NOW, deadline: None, max_attempts: None, input_tokens: 10, max_output_tokens: None,
            sticky: None,
            extras: Extras::default(),
        });
        let stage = Stage::new(&["A"]);
        let (mut now, mut history) = (NOW, Vec::new());
        let first_other = loop {
            let conditions = [stage.shut(now), None].map(|why| {
                let shut = |reason| RungHealth::Shut(Shut { reason, since: NOW, until: now + SECOND });
                Condition::from(why.map_or(RungHealth::Open, shut))
            });
            match decide(&job, &route, &[0, 1], &history, &[], &conditions, now) {
                Step::Call { rung: 1, .. } => break history.len(),
                Step::Call { .. } => {
                    stage.call(1, Some(&failure), now);
                    history.push(Attempt {
                        bearing: failure.bearing,
                        words: Some(failure.message.as_str().into()),
                        ..Attempt::new(Some(0), Outcome::Failed(failure.class), now)
                    });
                    let why = stage.shut(now);
                    let limited = matches!(failure.class, ErrorClass::RateLimit);
                    prop_assert!(why.is_none() || limited, "{} {why:?}", failure.class);
                }
                Step::Wait { until, .. } => now = until,
                Step::Finish(ending) => return Err(TestCaseError::fail(format!("{ending:?} after {failure:?}"))),
            }
            prop_assert!(now.0 - NOW.0 < 3_600_000, "{failure:?}");
        };
        prop_assert!(first_other <= 5 || failure.class == ErrorClass::RateLimit, "{first_other} calls, {failure:?}");
    }
}
