//! Targets that belong to several buckets, on paused time.

use super::*;
use crate::domain::Scope;
use crate::domain::charging::Ask;
use crate::domain::decide::{Ineligible, RungHealth};
use crate::domain::{BreakerSettings, Charging, Limits, Rate, Tier, Unit};
use crate::worker::bucket::tests::Others;
use tokio::time::sleep;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const CHARGE: Charge = Charge { input: 5, output: 5, total: 10, inputs: 0 };
const MINUTE: Duration = Duration::from_mins(1);
/// Enough for some rounds of the keeper, and too short for any units worth counting to come back.
const SOON: Duration = Duration::from_millis(100);

fn rate(unit: Unit, amount: u64, burst: u64) -> Limits {
    Limits { rates: vec![Rate { unit, amount, per: MINUTE, burst }], concurrency: None }
}

fn places(concurrency: u32) -> Limits {
    Limits { rates: Vec::new(), concurrency: Some(concurrency) }
}

/// A provider with two models. Each has a bucket of its own, and both belong to the account's.
fn gate(account: Limits, a: Limits, b: Limits) -> Gate {
    let buckets = [("account", account), ("own a", a), ("own b", b)];
    gate_of(buckets, [("a", ["account", "own a"]), ("b", ["own b", "account"])])
}

fn gate_of<const N: usize>(buckets: [(&str, Limits); N], models: [(&str, [&str; 2]); 2]) -> Gate {
    let breaker = BreakerSettings { min_calls: 1, failure_rate: 1.0, window: MINUTE, open: MINUTE };
    let setup = ProviderSetup {
        bucket: "account".to_owned(),
        charging: Charging::COMBINED,
        breaker,
        keys: Vec::new(),
        recheck: Duration::from_mins(10),
        probe: None,
        server: String::new(),
        targets: models.iter().map(|(model, _)| Target::new("p", *model)).collect(),
        model_buckets: models.map(|(model, buckets)| (model.to_owned(), buckets.map(str::to_owned).to_vec())).into(),
    };
    let buckets = buckets.map(|(name, limits)| (name.to_owned(), limits)).into();
    let gate = Gate::new(&buckets, &BTreeMap::from([("p".to_owned(), setup)]));
    let others = Others::default();
    gate.buckets().for_each(|bucket| others.of(&bucket.name).keep_looking(1, bucket, Duration::from_millis(5)));
    gate
}

/// One model in the usual tier and in one of spare capacity.
fn tiers() -> (Gate, [Arc<TargetState>; 2]) {
    let usual = Target::new("p", "m");
    let flex = Target { tier: Some(Tier::spare("flex")), ..usual.clone() };
    let breaker = BreakerSettings { min_calls: 1, failure_rate: 1.0, window: MINUTE, open: MINUTE };
    let setup = ProviderSetup {
        bucket: "p".to_owned(),
        charging: Charging::COMBINED,
        breaker,
        keys: Vec::new(),
        recheck: Duration::from_mins(10),
        probe: None,
        server: String::new(),
        targets: vec![usual.clone(), flex.clone()],
        model_buckets: BTreeMap::new(),
    };
    let gate = Gate::new(&BTreeMap::new(), &BTreeMap::from([("p".to_owned(), setup)]));
    gate.buckets().for_each(|bucket| {
        Others::default().of(&bucket.name).keep_looking(1, bucket, Duration::from_millis(5));
    });
    let states = [&usual, &flex].map(|target| gate.target(target).expect("it is set up"));
    (gate, states)
}

/// Makes a call that fails so, and returns why either target is shut then.
async fn fail(gate: &Gate, states: &[Arc<TargetState>; 2], at: usize, failure: &Failure, now: Timestamp) {
    let permit = gate.admit(&states[at], CHARGE, SOON, now).await.expect("it is open");
    let took = Took { time: MINUTE * 5, output_tokens: 5 };
    let outcome = Outcome::Failed(failure.class);
    gate.report(&states[at], permit, &outcome, Some(failure), CHARGE, took, &[], Asker::another(1), now);
}

fn shut(state: &TargetState, now: Timestamp) -> Option<(Reason, Duration)> {
    let ask = Ask { reserved: CHARGE, least: CHARGE, expected: CHARGE };
    match state.health(&ask, None, SOON, now) {
        RungHealth::Shut(shut) => Some((shut.reason, now.until(shut.until))),
        RungHealth::Open | RungHealth::Ineligible(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_without_capacity_rests_by_itself_and_its_model_goes_on() {
    let (gate, states) = tiers();
    let [usual, flex] = &states;
    assert_eq!(gate.buckets().count(), 1, "they share the limits of the model");
    let refused = Failure::new(ErrorClass::NoCapacity, Scope::Model, "m");
    for _ in 0..9 {
        fail(&gate, &states, 1, &refused, NOW).await;
        assert_eq!((shut(usual, NOW), shut(flex, NOW)), (None, None), "single refusals concern single jobs");
    }
    fail(&gate, &states, 1, &refused, NOW).await;
    let second = Duration::from_secs(1);
    assert_eq!((shut(usual, NOW), shut(flex, NOW)), (None, Some((Reason::NoCapacity, second))));
    fail(&gate, &states, 1, &refused, NOW + second).await;
    assert_eq!(shut(flex, NOW + second), Some((Reason::NoCapacity, second * 2)));
    // A wait that it names holds for the tier alone, and the breaker has learned nothing.
    let told = Failure { wait: Some(MINUTE * 60), ..refused };
    fail(&gate, &states, 1, &told, NOW + second * 3).await;
    let then = NOW + second * 3;
    assert_eq!((shut(usual, then), shut(flex, then)), (None, Some((Reason::NoCapacity, MINUTE * 60))));
    assert!(gate.breakers(then).values().all(|breaker| *breaker == "closed"), "{:?}", gate.breakers(then));
    let names: Vec<(String, String)> = gate.breakers(then).into_keys().collect();
    assert_eq!(names, [("p", "m"), ("p", "m@flex")].map(|(p, m)| (p.to_owned(), m.to_owned())));
    drop(gate.admit(usual, CHARGE, SOON, then).await.expect("the model goes on"));
}

#[tokio::test(start_paused = true)]
async fn where_no_provider_can_be_reached_only_those_rest_that_did_not_answer() {
    let breaker = BreakerSettings { min_calls: 1, failure_rate: 1.0, window: MINUTE, open: MINUTE };
    let setup = |name: &str| ProviderSetup {
        bucket: name.to_owned(),
        charging: Charging::COMBINED,
        breaker,
        keys: Vec::new(),
        recheck: MINUTE,
        probe: None,
        server: String::new(),
        targets: vec![Target::new(name, "m")],
        model_buckets: BTreeMap::new(),
    };
    let names = ["dead", "down", "well", "new"];
    let gate = Gate::new(&BTreeMap::new(), &names.map(|name| (name.to_owned(), setup(name))).into());
    gate.buckets().for_each(|bucket| {
        Others::default().of(&bucket.name).keep_looking(1, bucket, Duration::from_millis(5));
    });
    let [dead, down, well, new] = names.map(|name| gate.target(&Target::new(name, "m")).expect("it is set up"));
    let call = async |state: &TargetState, class: Option<ErrorClass>, now: Timestamp| {
        let permit = gate.admit(state, CHARGE, SOON, now).await.expect("it is open");
        let took = Took { time: SOON, output_tokens: 5 };
        let outcome = class.map_or(Outcome::Accepted, Outcome::Failed);
        let failure = class.map(|class| Failure::new(class, Scope::Provider, "no answer"));
        gate.report(state, permit, &outcome, failure.as_ref(), CHARGE, took, &[], Asker::another(1), now);
    };
    call(&well, None, NOW).await;
    let now = NOW + MINUTE;
    for state in [&dead, &down] {
        call(state, Some(ErrorClass::Network), now).await;
    }
    let rest = Some((Reason::Offline, Duration::from_secs(5)));
    assert_eq!([&dead, &down, &well, &new].map(|state| shut(state, now)), [rest, rest, None, None]);
    let said = gate.snapshot(now).targets.into_iter().find(|it| it.target.as_deref() == Some("down/m"));
    assert_eq!(said.and_then(|it| it.said).as_deref(), Some("network"), "the class, and no words about a request");
    // One that answered last is tried, and its answer shows that the network is not to blame.
    call(&well, None, now).await;
    let later = now + Duration::from_secs(6);
    assert_eq!([&down, &well].map(|state| shut(state, later)), [None, None]);
    call(&down, Some(ErrorClass::Network), later).await;
    assert_eq!(shut(&down, later).map(|(reason, _)| reason), Some(Reason::Breaker), "now it is to blame");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_of_a_tier_is_not_that_of_its_model() {
    let (gate, states) = tiers();
    fail(&gate, &states, 1, &Failure::new(ErrorClass::Timeout, Scope::Model, "m"), NOW).await;
    assert_eq!((shut(&states[0], NOW), shut(&states[1], NOW)), (None, Some((Reason::Breaker, MINUTE))));
    // But a limit is that of the model.
    let (gate, states) = tiers();
    let limit = Failure { wait: Some(MINUTE), ..Failure::new(ErrorClass::RateLimit, Scope::Model, "m") };
    fail(&gate, &states, 1, &limit, NOW).await;
    let reasons = states.each_ref().map(|state| shut(state, NOW).map(|(reason, _)| reason));
    assert_eq!(reasons, [Some(Reason::RateLimit); 2]);
}

#[test]
fn a_tier_has_the_bucket_of_its_model_unless_it_has_limits_of_its_own() {
    let target = |tier: Option<Tier>| Target { tier, ..Target::new("p", "m") };
    let setup = |bucket: &str| ProviderSetup {
        bucket: bucket.to_owned(),
        charging: Charging::COMBINED,
        breaker: BreakerSettings { min_calls: 1, failure_rate: 1.0, window: MINUTE, open: MINUTE },
        keys: Vec::new(),
        recheck: MINUTE,
        probe: None,
        server: String::new(),
        targets: Vec::new(),
        model_buckets: BTreeMap::new(),
    };
    let own = Tier::spare("flex").with_own_limits();
    for (bucket, limits, tier, expected) in [
        ("p", Limits::default(), None, "p/m"),
        ("p", Limits::default(), Some(Tier::spare("flex")), "p/m"),
        ("p", Limits::default(), Some(own), "p/m@flex"),
        ("p", places(3), Some(own), "p"),
        ("shared", Limits::default(), Some(own), "shared"),
    ] {
        let configured = BTreeMap::from([(bucket.to_owned(), limits)]);
        assert_eq!(setup(bucket).buckets_of(&target(tier), &configured), [expected], "{bucket} {tier:?}");
    }
    let by_model = ProviderSetup { model_buckets: [("m".to_owned(), vec!["own".to_owned()])].into(), ..setup("p") };
    assert_eq!(by_model.buckets_of(&target(Some(own)), &BTreeMap::new()), ["own"]);
}

fn target(gate: &Gate, model: &str) -> Arc<TargetState> {
    gate.target(&Target::new("p", model)).expect("it is set up")
}

async fn admit(gate: &Gate, model: &str, patience: Duration) -> Result<Permit, Reason> {
    gate.admit(&target(gate, model), CHARGE, patience, NOW).await.map_err(|shut| shut.reason)
}

fn end(gate: &Gate, model: &str, permit: Permit, failure: Option<&Failure>, limits: &[LimitObservation]) {
    let outcome = failure.map_or(Outcome::Accepted, |failure| Outcome::Failed(failure.class));
    let took = Took { time: SOON, output_tokens: 5 };
    gate.report(&target(gate, model), permit, &outcome, failure, CHARGE, took, limits, Asker::another(1), NOW);
}

fn why_shut(gate: &Gate, model: &str) -> Option<Reason> {
    let ask = Ask { reserved: CHARGE, least: CHARGE, expected: CHARGE };
    match target(gate, model).health(&ask, None, SOON, NOW) {
        RungHealth::Shut(shut) => Some(shut.reason),
        RungHealth::Open => None,
        RungHealth::Ineligible(why) => panic!("{why}"),
    }
}

/// For each bucket: calls that run, calls that wait, and how many more could begin.
async fn rooms(gate: &Gate) -> Vec<(String, u32, u32, usize)> {
    // A bucket without fresh word from the other processes has room for one call, which fetches some.
    for bucket in gate.buckets() {
        let _ = bucket.headroom(CHARGE, 1, Duration::ZERO);
    }
    // Units that were given back have to be reported to the other processes, which takes some rounds.
    sleep(SOON * 10).await;
    let room = |bucket: &Arc<Bucket>| {
        let (running, waiting, _) = bucket.counts();
        (bucket.name.clone(), running, waiting, bucket.headroom(CHARGE, 1, Duration::ZERO))
    };
    gate.buckets().map(room).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_one_bucket_refuses_has_taken_nothing_from_the_others() {
    // Hardly anything comes back.
    let few = || rate(Unit::Requests, 1, 2);
    let many = || Limits { concurrency: Some(9), ..rate(Unit::Tokens, 6, 90) };
    for (account, a) in [(few(), many()), (many(), few())] {
        let gate = gate(account, a, many());
        let calls = [admit(&gate, "a", SOON).await.expect("two fit"), admit(&gate, "a", SOON).await.expect("two fit")];
        let before = rooms(&gate).await;
        assert_eq!(before.iter().filter(|room| room.1 == 2).count(), 2, "{before:?}");
        assert_eq!(admit(&gate, "a", SOON).await.expect_err("no third fits"), Reason::RateLimit);
        assert_eq!(rooms(&gate).await, before);
        // The same holds when it has no time for a place.
        assert!(admit(&gate, "a", Duration::ZERO).await.is_err());
        assert_eq!(rooms(&gate).await, before);
        // The same holds when the call is given up while it waits.
        let waiting = admit(&gate, "a", MINUTE * 10);
        assert!(tokio::time::timeout(SOON, waiting).await.is_err());
        assert_eq!(rooms(&gate).await, before);
        drop(calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_key_or_no_breaker_lets_pass_has_taken_nothing_from_any_bucket() {
    // Hardly anything comes back.
    let gate = gate(rate(Unit::Requests, 1, 9), rate(Unit::Tokens, 6, 90), Limits::default());
    let before = rooms(&gate).await;
    let permit = admit(&gate, "a", SOON).await.expect("all fit");
    end(&gate, "a", permit, Some(&Failure::new(ErrorClass::ServerError, Scope::Model, "m")), &[]);
    let after_one = rooms(&gate).await;
    assert_ne!(after_one, before);
    assert_eq!(admit(&gate, "a", SOON).await.expect_err("one failure opens the breaker"), Reason::Breaker);
    assert_eq!(rooms(&gate).await, after_one);
    let permit = admit(&gate, "b", SOON).await.expect("the other model works");
    gate.abandon(&target(&gate, "b"), permit, None, NOW);
    assert_eq!(rooms(&gate).await, after_one, "a call that was not made takes nothing");
}

#[tokio::test(start_paused = true)]
async fn targets_that_name_the_same_buckets_in_opposite_order_never_wait_for_each_other_in_a_circle() {
    let buckets = [("x", places(1)), ("y", places(1))];
    let gate = Arc::new(gate_of(buckets, [("a", ["x", "y"]), ("b", ["y", "x"])]));
    let began = Instant::now();
    let calls: Vec<_> = (0..40)
        .map(|index| {
            let (gate, model) = (Arc::clone(&gate), ["a", "b"][index % 2]);
            tokio::spawn(async move {
                let permit = admit(&gate, model, MINUTE).await.expect("the patience is long enough");
                sleep(SOON).await;
                end(&gate, model, permit, None, &[]);
            })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic");
    }
    let took = began.elapsed();
    assert!(took >= SOON * 40 && took < SOON * 100, "one at a time, and no pause as long as a patience: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_models_limit_holds_up_no_call_to_another_model() {
    let gate = Arc::new(gate(places(2), rate(Unit::Requests, 60, 1), Limits::default()));
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                let permit = admit(&gate, "a", MINUTE).await.expect("the patience is long enough");
                end(&gate, "a", permit, None, &[]);
            })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        let permit = admit(&gate, "b", SOON).await.expect("nothing holds it up");
        sleep(SOON).await;
        end(&gate, "b", permit, None, &[]);
    }
    assert!(began.elapsed() < SOON * 40, "{:?}", began.elapsed());
    for call in waiting {
        call.await.expect("no panic");
    }
    // One unit was there, and the others came back one a second.
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn calls_pass_the_shared_bucket_in_the_order_in_which_they_came_to_it() {
    let gate = Arc::new(gate(places(1), Limits::default(), Limits::default()));
    let order = Arc::new(Mutex::new(Vec::new()));
    let calls: Vec<_> = (0..10)
        .map(|index| {
            let (gate, order, model) = (Arc::clone(&gate), Arc::clone(&order), ["a", "b"][index % 2]);
            tokio::spawn(async move {
                let permit = admit(&gate, model, MINUTE).await.expect("the patience is long enough");
                order.lock().push(index);
                sleep(SOON).await;
                end(&gate, model, permit, None, &[]);
            })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic");
    }
    assert_eq!(*order.lock(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_shuts_the_bucket_whose_limit_the_answer_names_and_else_all_of_them() {
    let wait = Some(Duration::from_secs(30));
    let refusal = Failure { wait, ..Failure::new(ErrorClass::RateLimit, Scope::Model, "m") };
    let used_up = LimitObservation {
        unit: Unit::Tokens,
        per: Some(MINUTE),
        pool: None,
        limit: Some(900),
        remaining: Some(0),
        reset_in: None,
    };
    for (said, other) in [(vec![used_up], None), (Vec::new(), Some(Reason::RateLimit))] {
        let gate = gate(rate(Unit::Requests, 600, 90), rate(Unit::Tokens, 900, 900), Limits::default());
        let permit = admit(&gate, "a", SOON).await.expect("all fit");
        end(&gate, "a", permit, Some(&refusal), &said);
        assert_eq!((why_shut(&gate, "a"), why_shut(&gate, "b")), (Some(Reason::RateLimit), other), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_one_bucket_can_never_hold_is_told_apart_from_one_that_has_to_wait() {
    let gate = gate(rate(Unit::Tokens, 900, 900), rate(Unit::Tokens, 90, 9), Limits::default());
    let ask = Ask { reserved: CHARGE, least: CHARGE, expected: CHARGE };
    assert!(matches!(
        target(&gate, "a").health(&ask, None, SOON, NOW),
        RungHealth::Ineligible(Ineligible::BucketTooSmall { unit: Unit::Tokens, needed: 10, size: 9 })
    ));
    assert_eq!(why_shut(&gate, "b"), None);
}
