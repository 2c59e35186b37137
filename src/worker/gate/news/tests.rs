use super::*;
use crate::domain::breaker;
use crate::domain::decide::RungHealth;
use crate::domain::doubt::Asker;
use crate::domain::shut::{Reason, Shut};
use crate::domain::tempo::Took;
use crate::domain::{BreakerSettings, Charge, Charging, ErrorClass, Failure, Limits, Outcome, Scope, Target};
use crate::worker::bucket::tests::Others;
use crate::worker::gate::ProviderSetup;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const SECOND: Duration = Duration::from_secs(1);
const CHARGE: Charge = Charge { input: 1, output: 1, total: 2, inputs: 0 };
const RECHECK: Duration = Duration::from_mins(10);

const BREAKER: BreakerSettings = BreakerSettings {
    min_calls: 3,
    failure_rate: 0.5,
    window: SECOND.saturating_mul(60),
    open: SECOND.saturating_mul(30),
};

/// One worker process.
struct Process(Gate);

impl Process {
    /// A process whose provider is at the server with this mark.
    fn at(server: &str) -> Self {
        Self::with(server, BREAKER)
    }

    /// The same with these settings of its breakers.
    fn with(server: &str, breaker: BreakerSettings) -> Self {
        let setup = ProviderSetup {
            bucket: "p".to_owned(),
            charging: Charging::COMBINED,
            breaker,
            keys: vec!["KEY".to_owned()],
            recheck: RECHECK,
            probe: None,
            server: server.to_owned(),
            targets: vec![Target::new("p", "m")],
            model_buckets: BTreeMap::new(),
        };
        let buckets = BTreeMap::from([("p".to_owned(), Limits::default())]);
        let gate = Gate::new(&buckets, &BTreeMap::from([("p".to_owned(), setup)]));
        for bucket in gate.buckets() {
            Others::default().keep(1, bucket);
        }
        Self(gate)
    }

    fn target(&self) -> Arc<TargetState> {
        self.0.target(&Target::new("p", "m")).expect("it is set up")
    }

    /// A call that begins and ends at `now`; `Err`: why there is none.
    async fn call(&self, failure: Option<&Failure>, now: Timestamp) -> Result<(), Reason> {
        let target = self.target();
        let permit = self.0.admit(&target, CHARGE, SECOND, now).await.map_err(|shut| shut.reason)?;
        let outcome = failure.map_or(Outcome::Accepted, |failure| Outcome::Failed(failure.class));
        let took = Took { time: SECOND, output_tokens: 50 };
        self.0.report(&target, permit, &outcome, failure, CHARGE, took, &[], Asker::another(1), now);
        Ok(())
    }

    /// Tells `other` all that it does not know; returns how much that was.
    fn tells(&self, other: &Self, now: Timestamp) -> usize {
        self.tells_at(other, false, now)
    }

    /// Tells a process that begins what was told to others before.
    fn tells_everything_to(&self, other: &Self, now: Timestamp) {
        let health = Health::Target { target: "p/m".to_owned(), news: self.target().whole_news(now) };
        other.0.hear(HealthNews { server: "s".to_owned(), health }, true, now);
    }

    fn tells_at(&self, other: &Self, is_first: bool, now: Timestamp) -> usize {
        let news = self.0.news(now);
        for one in news.clone() {
            other.0.hear(one, is_first, now);
        }
        let count = news.len();
        self.0.told(news);
        count
    }

    fn shut(&self, now: Timestamp) -> Option<(Reason, Duration)> {
        let ask = crate::domain::charging::Ask { reserved: CHARGE, least: CHARGE, expected: CHARGE };
        match self.target().health(&ask, None, SECOND, now) {
            RungHealth::Shut(Shut { reason, until, .. }) => Some((reason, now.until(until))),
            RungHealth::Open => None,
            RungHealth::Ineligible(why) => panic!("{why}"),
        }
    }
}

fn failure(class: ErrorClass) -> Failure {
    Failure::new(class, Scope::Model, "the words")
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_and_closes_everywhere() {
    let (one, two) = (Process::at("s"), Process::at("s"));
    assert_eq!(one.tells(&two, NOW), 0, "nothing has happened");
    for _ in 0..3 {
        one.call(Some(&failure(ErrorClass::ServerError)), NOW).await.unwrap();
    }
    assert_eq!((one.tells(&two, NOW), one.tells(&two, NOW), two.tells(&one, NOW)), (1, 0, 0), "it is told once");
    assert_eq!(two.call(None, NOW).await, Err(Reason::Breaker));
    // The process that found it out asks first.
    let later = NOW + SECOND * 30;
    assert_eq!(two.call(None, later).await, Err(Reason::Breaker));
    for _ in 0..breaker::RAMP {
        one.call(None, later).await.unwrap();
    }
    assert_eq!(one.tells(&two, later), 1);
    two.call(None, later).await.unwrap();
    assert_eq!((two.target().breaker_name(), two.tells(&one, later)), ("closed", 0), "the other one knows");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_of_a_stopped_process_counts_as_far_as_the_next_ones_settings_go() {
    let one = Process::at("s");
    let fails = failure(ErrorClass::ServerError);
    for _ in 0..3 {
        one.call(Some(&fails), NOW).await.unwrap();
    }
    let mut now = NOW;
    for doublings in 0..6_u32 {
        now = now + BREAKER.rest(doublings);
        one.call(Some(&fails), now).await.unwrap();
    }
    // With the same settings one call asks, and all of the rest follows if it fails.
    let same = Process::at("s");
    one.tells_at(&same, true, now);
    same.call(Some(&fails), now).await.unwrap();
    assert_eq!(same.shut(now), Some((Reason::Breaker, SECOND * 30 * 16)));
    // One that would not have opened for three failures goes by its own calls.
    let lenient = Process::with("s", BreakerSettings { min_calls: 1000, ..BREAKER });
    one.tells_everything_to(&lenient, now);
    for _ in 0..5 {
        lenient.call(Some(&fails), now).await.unwrap();
    }
    assert_eq!(lenient.shut(now), None);
    // And a person who reopens the provider has its rests grow from the beginning.
    let target = same.target();
    target.record.breaker.lock().reopen(now);
    same.call(Some(&fails), now).await.unwrap();
    assert_eq!(same.shut(now), Some((Reason::Breaker, SECOND * 60)));
}

#[tokio::test(start_paused = true)]
async fn a_rest_and_a_refused_model_hold_everywhere() {
    let (one, two) = (Process::at("s"), Process::at("s"));
    let rest = Failure { wait: Some(SECOND * 90), ..failure(ErrorClass::ServerError) };
    one.call(Some(&rest), NOW).await.unwrap();
    one.tells(&two, NOW);
    assert_eq!(two.shut(NOW), Some((Reason::AskedToWait, SECOND * 90)));
    // A shorter one changes nothing.
    let (one, three) = (Process::at("s"), Process::at("s"));
    let short = Failure { wait: Some(SECOND * 20), ..failure(ErrorClass::ServerError) };
    one.call(Some(&short), NOW).await.unwrap();
    one.tells(&two, NOW);
    assert_eq!(two.shut(NOW), Some((Reason::AskedToWait, SECOND * 90)));
    three.call(Some(&failure(ErrorClass::NotFound)), NOW).await.unwrap();
    three.tells(&one, NOW + SECOND * 21);
    let (reason, _) = one.shut(NOW + SECOND * 21).expect("it is refused there");
    assert_eq!(reason, Reason::Model);
    let said = one.0.snapshot(NOW + SECOND * 21).targets[0].said.clone();
    assert!(said.is_some_and(|said| said.contains("the words")));
}

#[tokio::test(start_paused = true)]
async fn a_rest_counts_for_as_long_as_the_hearers_own_breaker_rests_and_is_told_in_words_of_earlier_versions() {
    let rest = Failure { wait: Some(SECOND * 400), ..failure(ErrorClass::Overloaded) };
    let (one, hasty) = (Process::at("s"), Process::with("s", BreakerSettings { open: SECOND, ..BREAKER }));
    one.call(Some(&rest), NOW).await.unwrap();
    let told = serde_json::to_value(one.target().news(NOW).rest).unwrap();
    assert_eq!(told["reason"], "breaker_open");
    one.tells(&hasty, NOW);
    assert_eq!(hasty.shut(NOW), Some((Reason::AskedToWait, SECOND * 16)));
    // Of a rest that was cut, too.
    let rest = Failure { wait: Some(SECOND * 3600), ..failure(ErrorClass::Overloaded) };
    let (one, hasty) = (Process::at("s"), Process::with("s", BreakerSettings { open: SECOND, ..BREAKER }));
    one.call(Some(&rest), NOW).await.unwrap();
    one.tells(&hasty, NOW);
    assert_eq!(hasty.shut(NOW), Some((Reason::AskedToWait, SECOND * 16)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_by_one_call_of_each_process() {
    let (one, two) = (Process::at("s"), Process::at("s"));
    one.call(Some(&failure(ErrorClass::Auth)), NOW).await.unwrap();
    assert_eq!(one.tells(&two, NOW), 1);
    let target = two.target();
    let probe = two.0.admit(&target, CHARGE, SECOND, NOW).await.expect("one call tries it");
    assert_eq!(two.call(None, NOW).await, Err(Reason::Auth));
    let took = Took { time: SECOND, output_tokens: 50 };
    two.0.report(&target, probe, &Outcome::Accepted, None, CHARGE, took, &[], Asker::another(1), NOW);
    assert_eq!(two.shut(NOW), None, "its secret is another one");
    // The first process hears that the key works, tries it, and finds that its own does not.
    assert_eq!(two.tells(&one, NOW), 1);
    one.call(Some(&failure(ErrorClass::Auth)), NOW).await.unwrap();
    assert_eq!(one.shut(NOW), Some((Reason::Auth, RECHECK)));
    for _ in 0..3 {
        one.tells(&two, NOW);
        two.tells(&one, NOW);
    }
    assert_eq!((two.shut(NOW), one.tells(&two, NOW), two.tells(&one, NOW)), (None, 0, 0), "and that is the end of it");
}

#[tokio::test(start_paused = true)]
async fn another_server_of_the_same_name_is_not_concerned() {
    let (one, other) = (Process::at("s"), Process::at("t"));
    for _ in 0..3 {
        one.call(Some(&failure(ErrorClass::ServerError)), NOW).await.unwrap();
    }
    one.tells(&other, NOW);
    assert_eq!(other.shut(NOW), None);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_asks_once_more_but_keeps_to_a_rest() {
    let one = Process::at("s");
    for _ in 0..3 {
        one.call(Some(&failure(ErrorClass::ServerError)), NOW).await.unwrap();
    }
    let next = Process::at("s");
    one.tells_at(&next, true, NOW);
    let probe = next.0.admit(&next.target(), CHARGE, SECOND, NOW).await.expect("one call asks");
    assert_eq!(next.call(None, NOW).await, Err(Reason::Breaker), "one at a time");
    next.0.abandon(&next.target(), probe, None, NOW);

    let one = Process::at("s");
    one.call(Some(&failure(ErrorClass::NotFound)), NOW).await.unwrap();
    let next = Process::at("s");
    one.tells_at(&next, true, NOW);
    assert_eq!(next.shut(NOW), None, "the model may be there by now");

    let one = Process::at("s");
    let rest = Failure { wait: Some(SECOND * 90), ..failure(ErrorClass::ServerError) };
    one.call(Some(&rest), NOW).await.unwrap();
    let next = Process::at("s");
    one.tells_at(&next, true, NOW);
    assert_eq!(next.shut(NOW), Some((Reason::AskedToWait, SECOND * 90)));
}
