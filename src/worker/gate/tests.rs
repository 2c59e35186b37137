//! How the gate feels for the number of calls at once, on paused time.

use super::*;
use crate::domain::Scope;
use crate::domain::game_day::{GameDay, GameFault};
use crate::domain::{BreakerSettings, Charging, JobId, Limits, Rate, Unit};
use crate::worker::bucket::tests::Others;
use std::collections::VecDeque;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const OPEN: Duration = Duration::from_secs(30);
const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };

struct Stage {
    gate: Gate,
}

impl Stage {
    /// A provider with two models that share a bucket of these limits, and breakers that open at the third failure.
    fn new(limits: Limits) -> Self {
        let breaker = BreakerSettings { min_calls: 3, failure_rate: 1.0, window: Duration::from_mins(1), open: OPEN };
        let setup = ProviderSetup {
            bucket: "shared".to_owned(),
            charging: Charging::COMBINED,
            breaker,
            keys: Vec::new(),
            recheck: Duration::from_mins(10),
            probe: None,
            server: String::new(),
            targets: ["quick", "slow"].map(|model| Target::new("p", model)).to_vec(),
            model_buckets: BTreeMap::new(),
        };
        let buckets = BTreeMap::from([("shared".to_owned(), limits)]);
        let gate = Gate::new(&buckets, &BTreeMap::from([("p".to_owned(), setup)]));
        for bucket in gate.buckets() {
            Others::default().keep(1, bucket);
        }
        Self { gate }
    }

    fn target(&self, model: &str) -> Arc<TargetState> {
        self.gate.target(&Target::new("p", model)).expect("it is set up")
    }

    async fn admit(&self, model: &str, now: Timestamp) -> Result<Permit, Reason> {
        let patience = Duration::from_millis(30);
        self.gate.admit(&self.target(model), CHARGE, patience, now).await.map_err(|shut| shut.reason)
    }

    /// Begins as many calls as may run.
    async fn all(&self, model: &str, now: Timestamp) -> Vec<Permit> {
        let mut permits = Vec::new();
        while let Ok(permit) = self.admit(model, now).await {
            permits.push(permit);
        }
        permits
    }

    fn end(&self, model: &str, permit: Permit, class: Option<ErrorClass>, millis: u64, now: Timestamp) {
        let failure = class.map(|class| Failure::new(class, Scope::Model, "m"));
        let outcome = class.map_or(Outcome::Accepted, Outcome::Failed);
        let took = Took { time: Duration::from_millis(millis), output_tokens: 50 };
        self.gate.report(
            &self.target(model),
            permit,
            &outcome,
            failure.as_ref(),
            CHARGE,
            took,
            &[],
            Asker::another(1),
            now,
        );
    }

    fn pass(&self, model: &str, permits: Vec<Permit>, millis: u64, now: Timestamp) {
        for permit in permits {
            self.end(model, permit, None, millis, now);
        }
    }

    /// Plays rounds of as many calls as may run, all of which pass; returns the size of each round.
    async fn rounds(&self, model: &str, count: usize, millis: u64, now: Timestamp) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..count {
            let permits = self.all(model, now).await;
            sizes.push(permits.len());
            self.pass(model, permits, millis, now);
        }
        sizes
    }

    /// Lets this many calls end, each of which makes room for the next; returns the most that ran at once.
    async fn steady(&self, running: &mut VecDeque<Permit>, model: &str, calls: usize, millis: u64) -> usize {
        let mut most = 0;
        for _ in 0..calls {
            running.extend(self.all(model, NOW).await);
            most = most.max(running.len());
            let oldest = running.pop_front().expect("some may run");
            self.end(model, oldest, None, millis, NOW);
        }
        running.extend(self.all(model, NOW).await);
        most.max(running.len())
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_overloaded_gets_fewer_calls_at_once() {
    let stage = Stage::new(Limits::default());
    let mut permits = stage.all("quick", NOW).await;
    assert_eq!(permits.len(), 16);
    for refused in permits.split_off(14) {
        stage.end("quick", refused, Some(ErrorClass::Overloaded), 10, NOW);
    }
    stage.pass("quick", permits, 100, NOW);
    let after = stage.all("quick", NOW).await.len();
    assert!((11..=14).contains(&after), "{after}");
}

#[tokio::test(start_paused = true)]
async fn probes_of_a_provider_that_is_ill_say_nothing_of_how_many_it_takes() {
    let stage = Stage::new(Limits::default());
    let known = stage.rounds("quick", 6, 100, NOW).await[5];
    assert!(known > 60, "{known}");
    let mut now = NOW + Duration::from_mins(2);
    let overloaded = Some(ErrorClass::Overloaded);
    for permit in stage.all("quick", now).await.drain(..3) {
        stage.end("quick", permit, overloaded, 10, now);
    }
    let opened = now;
    // Three probes, one by one, half a minute and more apart.
    for doubled in 0..3 {
        let refused = stage.gate.admit(&stage.target("quick"), CHARGE, Duration::ZERO, now).await.err();
        let told = refused.map(|shut| (shut.reason, shut.since));
        assert_eq!(told, Some((Reason::Breaker, opened)), "patience goes on from when it opened");
        now = now + OPEN * (1 << doubled);
        let probe = stage.admit("quick", now).await.expect("one may try");
        assert!(stage.admit("quick", now).await.is_err());
        stage.end("quick", probe, overloaded, 10, now);
    }
    // It works again without a stampede, and reaches the earlier number within a few rounds.
    now = now + OPEN * 8;
    let rounds = stage.rounds("quick", 14, 100, now).await;
    assert!(rounds[2] <= 4 && rounds[13] > known * 3 / 4, "{rounds:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_take_longer_and_longer_lower_the_number() {
    let stage = Stage::new(Limits::default());
    let mut running = VecDeque::new();
    let most = stage.steady(&mut running, "quick", 60, 100).await;
    assert!(most > 60, "{most}");
    let most = stage.steady(&mut running, "quick", 300, 300).await;
    assert!(running.len() < most * 2 / 3, "{} after {most}", running.len());
}

#[tokio::test(start_paused = true)]
async fn a_slow_model_beside_a_quick_one_is_no_rise() {
    // Only a limit on requests would show how many may run, so the number is felt for.
    let plenty = Rate { unit: Unit::Tokens, amount: 1_000_000, per: Duration::from_mins(1), burst: 1_000_000 };
    let stage = Stage::new(Limits { rates: vec![plenty], concurrency: None });
    let mut running = VecDeque::new();
    for _ in 0..5 {
        stage.steady(&mut running, "quick", 40, 100).await;
        let most = stage.steady(&mut running, "slow", 40, 5_000).await;
        assert_eq!(running.len(), most, "it has never been less");
    }
    assert!(running.len() > 300, "{}", running.len());
}

/// Why status says that a target is shut, and until when.
fn told(stage: &Stage, model: &str, now: Timestamp) -> (Option<String>, Option<i64>) {
    let statistics = stage.gate.snapshot(now);
    let name = format!("p/{model}");
    let target = statistics.targets.into_iter().find(|target| target.target.as_deref() == Some(&*name));
    let target = target.expect("it is set up");
    target.shut.map(|shut| (shut.reason.map(|word| word.to_string()), shut.until_ms)).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn status_says_when_an_open_breaker_is_probed_and_that_a_provider_is_paused() {
    let stage = Stage::new(Limits::default());
    assert_eq!(told(&stage, "quick", NOW), (None, None));
    for permit in stage.all("quick", NOW).await.into_iter().take(3) {
        stage.end("quick", permit, Some(ErrorClass::ServerError), 10, NOW);
    }
    let open = (Some("breaker_open".to_owned()), Some((NOW + OPEN).0));
    assert_eq!(told(&stage, "quick", NOW), open);
    assert_eq!(told(&stage, "slow", NOW), (None, None));
    // An operator ends a pause, so no instant is known; then the breaker is still open.
    stage.gate.set_paused(&["p"], NOW);
    for model in ["quick", "slow"] {
        assert_eq!(told(&stage, model, NOW), (Some("paused".to_owned()), None));
    }
    stage.gate.set_paused(&[], NOW);
    assert_eq!(told(&stage, "quick", NOW), open);
    // A probe that fails opens it for twice as long.
    let later = NOW + OPEN;
    let probe = stage.admit("quick", later).await.expect("one call probes");
    assert_eq!(told(&stage, "quick", later), (None, None), "it is half open");
    stage.end("quick", probe, Some(ErrorClass::ServerError), 10, later);
    assert_eq!(told(&stage, "quick", later), (Some("breaker_open".to_owned()), Some((later + OPEN * 2).0)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_a_failing_provider_asks_for_holds_other_jobs_for_the_longest_rest_of_the_breaker() {
    let longest = OPEN * 16;
    for (class, asked) in [
        (ErrorClass::ServerError, Duration::from_hours(1)),
        (ErrorClass::Overloaded, Duration::from_hours(1)),
        (ErrorClass::ServerError, Duration::from_hours(1000)),
    ] {
        let stage = Stage::new(Limits::default());
        let refusal = Failure { wait: Some(asked), status: Some(503), ..Failure::new(class, Scope::Model, "m") };
        let fails = |permit, now| {
            let took = Took { time: OPEN, output_tokens: 0 };
            let (outcome, target) = (Outcome::Failed(class), stage.target("quick"));
            stage.gate.report(&target, permit, &outcome, Some(&refusal), CHARGE, took, &[], Asker::another(1), now)
        };
        fails(stage.admit("quick", NOW).await.expect("nothing is known"), NOW);
        let held = |now: Timestamp| (Some("asked_to_wait".to_owned()), Some((now + longest).0));
        assert_eq!(told(&stage, "quick", NOW), held(NOW));
        let status = stage.gate.snapshot(NOW).targets.into_iter().find(|it| it.target.as_deref() == Some("p/quick"));
        let status = status.expect("it is set up");
        assert_eq!(status.breaker.as_deref(), Some("open"));
        assert_eq!(status.said, Some(format!("{class}, HTTP 503")));
        // One call asks then, and the others wait for what it finds out.
        let later = NOW + longest;
        assert_eq!(told(&stage, "quick", later - Duration::from_millis(1)), held(NOW));
        let probe = stage.admit("quick", later).await.expect("one call asks");
        assert!(stage.admit("quick", later).await.is_err(), "one at a time");
        fails(probe, later);
        assert_eq!(told(&stage, "quick", later), held(later));
        let again = later + longest;
        for _ in 0..breaker::RAMP {
            let probe = stage.admit("quick", again).await.expect("it asks");
            stage.end("quick", probe, None, 10, again);
        }
        assert_eq!(told(&stage, "quick", again), (None, None));
    }
    // What is shorter than that is kept to the second, and then all calls go.
    let stage = Stage::new(Limits::default());
    let short = Failure { wait: Some(OPEN), ..Failure::new(ErrorClass::ServerError, Scope::Model, "m") };
    let permit = stage.admit("quick", NOW).await.expect("nothing is known");
    let took = Took { time: OPEN, output_tokens: 0 };
    let outcome = Outcome::Failed(short.class);
    let asker = Asker::another(1);
    stage.gate.report(&stage.target("quick"), permit, &outcome, Some(&short), CHARGE, took, &[], asker, NOW);
    assert_eq!(told(&stage, "quick", NOW), (Some("asked_to_wait".to_owned()), Some((NOW + OPEN).0)));
    assert_eq!(told(&stage, "quick", NOW + OPEN), (None, None));
    assert!(stage.all("quick", NOW + OPEN).await.len() > 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_on_purpose_teach_nothing_that_outlasts_the_game_day() {
    let (stage, fresh) = (Stage::new(Limits::default()), Stage::new(Limits::default()));
    let places = stage.rounds("quick", 4, 100, NOW).await;
    assert_eq!(places, fresh.rounds("quick", 4, 100, NOW).await);
    let day = GameDay {
        name: "friday".to_owned(),
        targets: vec!["p".to_owned()],
        faults: vec![GameFault::Overloaded],
        share: 1_000_000,
        from: NOW,
        until: NOW + Duration::from_mins(30),
    };
    let target = stage.target("quick");
    // The calls of before are out of the window.
    let mut now = NOW + Duration::from_mins(2);
    // The first three, and probes until it rests for the longest time.
    for number in 0..7 {
        let permit = stage.admit("quick", now).await.expect("one may go");
        stage.gate.rehearse(&target, permit, &day, JobId(number), now);
        if (2..6).contains(&number) {
            now = now + OPEN * (1 << (number - 2));
        }
    }
    assert_eq!(stage.admit("quick", now).await.err(), Some(Reason::GameDay));
    let status = stage.gate.snapshot(now).targets.into_iter().find(|it| it.target.as_deref() == Some("p/quick"));
    let status = status.expect("it is set up");
    assert_eq!((status.breaker.as_deref(), status.calls), (Some("open"), fresh.gate.snapshot(NOW).targets[0].calls));
    assert!(status.said.is_some_and(|said| said.starts_with("game day friday; ")));
    assert!(
        stage.gate.news(now).iter().all(|news| !matches!(news.health, crate::store::health::Health::Target { .. }))
    );
    // It is over: everything goes as at a gate that had none.
    let over = now.max(day.until);
    assert_eq!(told(&stage, "quick", over), (None, None));
    stage.gate.keep_rehearsals(&[day], over);
    assert_eq!(stage.rounds("quick", 3, 100, over).await, fresh.rounds("quick", 3, 100, over).await);
}
