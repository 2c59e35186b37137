//! The parts of a gate that pass from one configuration to the next, on paused time.

use super::*;
use crate::domain::Scope;
use crate::domain::decide::RungHealth;
use crate::domain::doubt::Asker;
use crate::domain::shut::{Reason, Shut};
use crate::domain::tempo::Took;
use crate::domain::{Charge, ErrorClass, Failure, Outcome, Rate, Unit, Usage};
use crate::worker::bucket::tests::Others;
use crate::worker::gate::Permit;
use std::time::Duration;
use tokio::time::sleep;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };
const MINUTE: Duration = Duration::from_mins(1);
/// Enough for some rounds of the keeper.
const SOON: Duration = Duration::from_millis(100);
const BREAKER: BreakerSettings =
    BreakerSettings { min_calls: 3, failure_rate: 1.0, window: MINUTE, open: Duration::from_secs(30) };

/// A configuration with one provider, `p`, with the models `a` and `b`.
#[derive(Clone)]
struct Stage {
    others: Others,
    buckets: BTreeMap<String, Limits>,
    setup: ProviderSetup,
    kept: Unchanged,
}

impl Stage {
    fn new(bucket: &str, limits: Limits) -> Self {
        let setup = ProviderSetup {
            bucket: bucket.to_owned(),
            charging: Charging::COMBINED,
            breaker: BREAKER,
            keys: vec!["one".to_owned(), "other".to_owned()],
            recheck: Duration::from_mins(10),
            probe: None,
            server: String::new(),
            targets: ["a", "b"].map(|model| Target::new("p", model)).to_vec(),
            model_buckets: BTreeMap::new(),
        };
        let kept = Unchanged { is_same_server: true, keys: setup.keys.iter().cloned().collect() };
        let buckets = BTreeMap::from([(bucket.to_owned(), limits)]);
        Self { others: Others::default(), buckets, setup, kept }
    }

    fn gate(&self) -> Gate {
        let gate = Gate::new(&self.buckets, &BTreeMap::from([("p".to_owned(), self.setup.clone())]));
        self.keep(&gate, None);
        gate
    }

    fn after(&self, gate: &Gate) -> Gate {
        let (setups, kept) = (("p".to_owned(), self.setup.clone()), ("p".to_owned(), self.kept.clone()));
        let after = gate.succeeded_by(&self.buckets, &BTreeMap::from([setups]), &BTreeMap::from([kept]), NOW);
        self.keep(&after, Some(gate));
        after
    }

    /// Keeps the buckets of one process; buckets of different names are independent.
    fn keep(&self, gate: &Gate, before: Option<&Gate>) {
        for bucket in gate.buckets() {
            let is_known = before.is_some_and(|gate| gate.kept_buckets().any(|known| Arc::ptr_eq(known, bucket)));
            if !is_known {
                self.others.of(&bucket.name).keep_looking(1, bucket, Duration::from_millis(5));
            }
        }
    }
}

fn concurrency(places: u32) -> Limits {
    Limits { rates: Vec::new(), concurrency: Some(places) }
}

fn requests(amount: u64, burst: u64) -> Limits {
    Limits { rates: vec![Rate { unit: Unit::Requests, amount, per: MINUTE, burst }], concurrency: None }
}

fn target(gate: &Gate, model: &str) -> Arc<TargetState> {
    gate.target(&Target::new("p", model)).expect("it is set up")
}

async fn admit(gate: &Gate, model: &str) -> Result<Permit, Shut> {
    gate.admit(&target(gate, model), CHARGE, SOON, NOW).await
}

async fn all(gate: &Gate, model: &str) -> Vec<Permit> {
    let mut permits = Vec::new();
    while let Ok(permit) = admit(gate, model).await {
        permits.push(permit);
        assert!(permits.len() < 1_000, "there is no end");
    }
    permits
}

fn end(gate: &Gate, model: &str, permit: Permit, class: Option<ErrorClass>, wait: Option<Duration>) {
    let failure = class.map(|class| Failure { wait, ..Failure::new(class, Scope::Model, "m") });
    let outcome = class.map_or(Outcome::Accepted, Outcome::Failed);
    let took = Took { time: SOON, output_tokens: 50 };
    gate.report(&target(gate, model), permit, &outcome, failure.as_ref(), CHARGE, took, &[], Asker::another(1), NOW);
}

fn bucket(gate: &Gate, model: &str) -> Arc<Bucket> {
    Arc::clone(&target(gate, model).buckets[0])
}

fn shut(gate: &Gate, model: &str) -> Option<Reason> {
    match target(gate, model).health(&crate::domain::charging::Ask::default(), None, MINUTE, NOW) {
        RungHealth::Shut(Shut { reason, .. }) => Some(reason),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_the_same_goes_on_as_it_stands() {
    let stage = Stage::new("shared", requests(60, 10));
    let gate = stage.gate();
    let permits = all(&gate, "a").await;
    assert_eq!(permits.len(), 10);
    let usage = Usage { input: 900, output: 5, ..Usage::default() };
    target(&gate, "a").learn(100, None, &usage);
    gate.set_paused(&["p"], NOW);
    let after = stage.after(&gate);
    assert!(Arc::ptr_eq(&bucket(&gate, "a"), &bucket(&after, "a")));
    assert_eq!(target(&after, "a").calibration(), target(&gate, "a").calibration());
    assert_eq!(target(&after, "a").calibration().samples(), 1);
    assert_eq!(shut(&after, "a"), Some(Reason::Paused));
    assert_eq!(bucket(&after, "a").counts().0, 10, "calls under way are counted");
    assert!(admit(&after, "a").await.is_err(), "what was used up is used up");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_open_for_the_same_server_only() {
    let mut stage = Stage::new("shared", concurrency(8));
    let gate = stage.gate();
    let mut before = Vec::new();
    for _ in 0..4 {
        before.push(admit(&gate, "a").await.expect("it is open"));
    }
    let late = before.pop().expect("there are four");
    for permit in before {
        end(&gate, "a", permit, Some(ErrorClass::ServerError), None);
    }
    let after = stage.after(&gate);
    assert_eq!((shut(&after, "a"), shut(&after, "b")), (Some(Reason::Breaker), None));
    // A call that began under the earlier configuration is reported to the buckets that it began with.
    end(&gate, "a", late, Some(ErrorClass::ServerError), None);
    stage.kept.is_same_server = false;
    target(&after, "a").learn(100, None, &Usage { input: 900, output: 5, ..Usage::default() });
    let elsewhere = stage.after(&after);
    assert_eq!(shut(&elsewhere, "a"), None);
    assert_eq!(target(&elsewhere, "a").calibration().samples(), 1, "the model is the same");
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_and_failures_after_open_the_same_breaker() {
    let stage = Stage::new("shared", concurrency(8));
    let gate = stage.gate();
    let first = admit(&gate, "a").await.expect("it is open");
    let after = stage.after(&gate);
    end(&gate, "a", first, Some(ErrorClass::ServerError), None);
    for _ in 0..2 {
        let permit = admit(&after, "a").await.expect("two are not enough");
        end(&after, "a", permit, Some(ErrorClass::ServerError), None);
    }
    assert_eq!(shut(&after, "a"), Some(Reason::Breaker));
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_refused_for_good_gets_another_chance_and_what_it_asked_for_is_kept() {
    let stage = Stage::new("shared", concurrency(8));
    let gate = stage.gate();
    let (a, b) = (admit(&gate, "a").await.expect("open"), admit(&gate, "b").await.expect("open"));
    end(&gate, "a", a, Some(ErrorClass::NotFound), None);
    end(&gate, "b", b, Some(ErrorClass::Overloaded), Some(MINUTE));
    assert_eq!((shut(&gate, "a"), shut(&gate, "b")), (Some(Reason::Model), Some(Reason::AskedToWait)));
    let after = stage.after(&gate);
    assert_eq!((shut(&after, "a"), shut(&after, "b")), (None, Some(Reason::AskedToWait)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_by_one_call_and_a_renewed_one_by_all() {
    let mut stage = Stage::new("shared", concurrency(8));
    stage.setup.keys.truncate(1);
    let gate = stage.gate();
    let permit = admit(&gate, "a").await.expect("it is open");
    end(&gate, "a", permit, Some(ErrorClass::Auth), None);
    assert_eq!(shut(&gate, "a"), Some(Reason::Auth));

    let same = stage.after(&gate);
    assert_eq!(shut(&same, "a"), None);
    let probe = admit(&same, "a").await.expect("one call tries it");
    assert_eq!(admit(&same, "a").await.map(drop).map_err(|shut| shut.reason), Err(Reason::Auth));
    drop(probe);

    stage.kept.keys.clear();
    let renewed = stage.after(&gate);
    assert_eq!(all(&renewed, "a").await.len(), 8);

    // Keys are known by their names, wherever they stand in the list.
    stage.setup.keys = vec!["new".to_owned(), "one".to_owned()];
    stage.kept.keys = BTreeSet::from(["one".to_owned()]);
    assert_eq!(stage.after(&gate).keys().next(), Some(("p", 2, 1)));
}

#[tokio::test(start_paused = true)]
async fn fewer_places_count_the_calls_that_run_already() {
    let mut stage = Stage::new("shared", concurrency(8));
    let gate = stage.gate();
    let mut running = all(&gate, "a").await;
    assert_eq!(running.len(), 8);
    stage.buckets = BTreeMap::from([("shared".to_owned(), concurrency(3))]);
    let after = stage.after(&gate);
    for left in [7, 3] {
        running.truncate(left);
        sleep(SOON).await;
        assert!(admit(&after, "a").await.is_err(), "{left} still run where three may");
    }
    running.truncate(1);
    assert_eq!(all(&after, "a").await.len(), 2);
    stage.buckets = BTreeMap::from([("shared".to_owned(), concurrency(5))]);
    let more = stage.after(&after);
    assert_eq!(all(&more, "a").await.len(), 4, "one of the first runs still, and those that ended have ended");
}

#[tokio::test(start_paused = true)]
async fn a_limit_where_there_was_none_counts_the_calls_that_run_already() {
    // Without limits each model has a bucket of its own; with some, both are in that of the provider.
    let mut stage = Stage::new("p", Limits::default());
    let gate = stage.gate();
    let mut running = all(&gate, "a").await;
    running.extend(all(&gate, "b").await);
    assert_eq!(running.len(), 32);
    let waiting = tokio::spawn({
        let bucket = bucket(&gate, "a");
        async move { bucket.enter(CHARGE, MINUTE, NOW).await.map(drop).is_err() }
    });
    sleep(SOON).await;
    stage.buckets = BTreeMap::from([("p".to_owned(), concurrency(6))]);
    let after = stage.after(&gate);
    assert_eq!(after.buckets().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>(), ["p"]);
    assert_eq!(after.retired.len(), 2);
    sleep(SOON).await;
    assert!(waiting.is_finished(), "no call waits for a bucket that is out of use");
    assert!(waiting.await.expect("no panic"), "and none begins in it");
    running.remove(0);
    assert!(admit(&gate, "a").await.is_err());
    assert!(admit(&after, "a").await.is_err());
    running.truncate(6);
    sleep(SOON).await;
    assert!(admit(&after, "b").await.is_err(), "six still run where six may");
    running.truncate(4);
    assert_eq!(all(&after, "b").await.len(), 2);
    running.clear();
    sleep(SOON).await;
    assert_eq!(all(&after, "a").await.len(), 6);
    let last = stage.after(&after);
    assert_eq!(last.retired.len(), 0, "nothing is left to be told of the old ones");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_comes_back_is_the_same_one() {
    let mut stage = Stage::new("p", Limits::default());
    let gate = stage.gate();
    let mut running = all(&gate, "a").await;
    let open = stage.buckets.clone();
    stage.buckets = BTreeMap::from([("p".to_owned(), concurrency(6))]);
    let limited = stage.after(&gate);
    sleep(SOON).await;
    stage.buckets = open;
    let back = stage.after(&limited);
    assert!(Arc::ptr_eq(&bucket(&back, "a"), &bucket(&gate, "a")));
    assert!(admit(&back, "a").await.is_err(), "sixteen still run");
    running.truncate(15);
    assert!(admit(&back, "a").await.is_ok());
    assert_eq!(back.retired.iter().map(|bucket| bucket.name.as_str()).collect::<Vec<_>>(), ["p"]);
}

#[tokio::test(start_paused = true)]
async fn a_lower_rate_counts_what_was_used_before() {
    let mut stage = Stage::new("shared", requests(60, 100));
    let gate = stage.gate();
    for _ in 0..50 {
        let permit = admit(&gate, "a").await.expect("there is a burst of a hundred");
        end(&gate, "a", permit, None, None);
    }
    stage.buckets = BTreeMap::from([("shared".to_owned(), requests(30, 60))]);
    let after = stage.after(&gate);
    // About fifty of a hundred are used, so about ten of sixty are left; hardly any come back.
    let left = all(&after, "a").await.len();
    assert!((5..=15).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_before_the_others_know_of_the_new_limits() {
    let mut stage = Stage::new("shared", concurrency(8));
    let gate = Gate::new(&stage.buckets, &BTreeMap::from([("p".to_owned(), stage.setup.clone())]));
    let shared = bucket(&gate, "a");
    let exchange = |bucket: &Bucket| {
        let (report, base) = bucket.report(false);
        let told = stage.others.of("shared").exchange(1, &bucket.limits(), &report, NOW);
        (base, told)
    };
    // One call asks; the others' answer brings places.
    assert!(admit(&gate, "a").await.is_err());
    let (base, told) = exchange(&shared);
    shared.receive(&base, &told);
    let waiting = tokio::spawn({
        let shared = Arc::clone(&shared);
        async move { shared.enter(CHARGE, MINUTE, NOW).await.map(drop) }
    });
    sleep(SOON).await;
    let (base, told) = exchange(&shared);
    // While that answer is on its way, the limits change: it is too old to let any call begin.
    stage.buckets = BTreeMap::from([("shared".to_owned(), concurrency(1))]);
    sleep(Duration::from_millis(1)).await;
    let setups = BTreeMap::from([("p".to_owned(), stage.setup.clone())]);
    let after = gate.succeeded_by(&stage.buckets, &setups, &BTreeMap::new(), NOW);
    shared.receive(&base, &told);
    assert!(admit(&after, "a").await.is_err());
    assert!(!waiting.is_finished());
    sleep(Duration::from_millis(1)).await;
    let (report, base) = shared.report(false);
    let told = stage.others.of("shared").exchange(1, &shared.limits(), &report, NOW);
    shared.receive(&base, &told);
    waiting.await.expect("no panic").expect("its turn has come");
}

#[tokio::test(start_paused = true)]
async fn calls_that_run_count_in_a_bucket_that_their_target_gains() {
    let mut stage = Stage::new("shared", concurrency(9));
    let gate = stage.gate();
    let permits = [admit(&gate, "a").await.expect("there are places"), admit(&gate, "a").await.expect("there are")];
    stage.buckets.insert("own".to_owned(), concurrency(3));
    stage.setup.model_buckets.insert("a".to_owned(), vec!["shared".to_owned(), "own".to_owned()]);
    let after = stage.after(&gate);
    assert_eq!(all(&after, "a").await.len(), 1, "three may run, and two do");
    assert_eq!(all(&after, "b").await.len(), 7, "the shared places are the same as before");
    for permit in permits {
        end(&gate, "a", permit, None, None);
    }
    sleep(SOON).await;
    assert_eq!(all(&after, "a").await.len(), 3);
    // Without the bucket again, the calls that run in it are counted where they are.
    stage.setup.model_buckets.clear();
    assert_eq!(all(&stage.after(&after), "b").await.len(), 9);
}
