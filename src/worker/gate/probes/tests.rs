//! What health probes do to a provider's targets.

use super::*;
use crate::domain::breaker::BreakerSettings;
use crate::domain::charging::Ask;
use crate::domain::decide::RungHealth;
use crate::domain::probe::ProbePage;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Charge, Charging, Sizes, Target};
use crate::worker::bucket::tests::Others;
use crate::worker::gate::{ProviderSetup, Unchanged};
use std::collections::BTreeMap;
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const EVERY: Duration = Duration::from_secs(15);

fn settings(page: &str) -> ProbeSettings {
    let page = ProbePage::parse(page).unwrap();
    ProbeSettings { page, every: EVERY, timeout: Duration::from_secs(5), failures: 2 }
}

fn setup(page: Option<&str>, models: &[&str]) -> BTreeMap<String, ProviderSetup> {
    let setup = ProviderSetup {
        bucket: "p".to_owned(),
        charging: Charging::COMBINED,
        breaker: BreakerSettings {
            min_calls: 1,
            failure_rate: 1.0,
            window: Duration::from_mins(1),
            open: Duration::from_mins(5),
        },
        keys: Vec::new(),
        recheck: Duration::from_mins(10),
        probe: page.map(settings),
        server: String::new(),
        targets: models.iter().map(|model| Target::new("p", *model)).collect(),
        model_buckets: BTreeMap::new(),
    };
    BTreeMap::from([("p".to_owned(), setup)])
}

fn gate(page: Option<&str>) -> Gate {
    let gate = Gate::new(&BTreeMap::new(), &setup(page, &["a", "b"]));
    for bucket in gate.buckets() {
        Others::default().keep(1, bucket);
    }
    gate
}

fn report(status: u16) -> ProbeReport {
    let words = (status >= 400).then(|| "Loading model".to_owned());
    ProbeReport { status: Some(status), words, total_ms: 2 }
}

fn ask() -> Ask {
    Charging::COMBINED.ask(&Sizes { input: 1, input_at_most: 1, cap: Some(1), expected_output: 1, inputs: 0 })
}

/// Why the target is shut, for status and for a call.
fn shut(gate: &Gate, model: &str, now: Timestamp) -> Option<Shut> {
    let target = gate.target(&Target::new("p", model)).unwrap();
    let told = target.shut_by(now);
    let health = target.health(&ask(), None, Duration::ZERO, now);
    assert_eq!(matches!(health, RungHealth::Shut(_)), told.is_some(), "{health:?}");
    told
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_shut_all_targets_with_the_servers_words_and_a_good_probe_opens_them() {
    let (gate, page) = (gate(Some("/health")), settings("/health"));
    assert!(!gate.take_in_probe("p", &page, &report(200), NOW));
    assert!(!gate.take_in_probe("p", &page, &report(503), NOW));
    assert_eq!(shut(&gate, "a", NOW), None, "one failure is none");
    let target = gate.target(&Target::new("p", "a")).unwrap();
    let permit = gate.admit(&target, Charge::default(), Duration::from_secs(5), NOW).await.unwrap();
    let later = NOW + EVERY;
    assert!(!gate.take_in_probe("p", &page, &report(503), later));
    let expected = Shut { reason: Reason::HealthProbe, since: NOW, until: later + EVERY };
    assert_eq!((shut(&gate, "a", later), shut(&gate, "b", later)), (Some(expected), Some(expected)));
    assert_eq!(target.shut_meanwhile(&permit, later), Some(expected), "a call that is not sent yet is not sent");
    gate.abandon(&target, permit, None, later);
    let told = serde_json::to_value(gate.snapshot(later)).unwrap();
    let of = &told["targets"][0];
    assert_eq!((&of["shut"]["reason"], &of["said"]), (&"health_probe".into(), &"HTTP 503: Loading model".into()));
    assert!(gate.take_in_probe("p", &page, &report(200), later));
    assert_eq!(shut(&gate, "a", later), None);
    assert!(!gate.take_in_probe("p", &page, &report(200), later), "it was open");
    assert!(!gate.take_in_probe("q", &page, &report(503), later), "there is no such provider");
}

#[tokio::test(start_paused = true)]
async fn a_good_probe_lets_an_open_breaker_try_at_once_only_where_the_probe_had_shut_it() {
    let (gate, page) = (gate(Some("/health")), settings("/health"));
    let target = gate.target(&Target::new("p", "a")).unwrap();
    target.record.breaker.lock().own_mut().open_for(Duration::from_mins(5), NOW);
    // The page is well while calls fail: the breaker keeps its time.
    gate.take_in_probe("p", &page, &report(200), NOW);
    assert_eq!(shut(&gate, "a", NOW).unwrap().reason, Reason::Breaker);
    for _ in 0..2 {
        gate.take_in_probe("p", &page, &report(503), NOW);
    }
    assert_eq!(shut(&gate, "a", NOW).unwrap().reason, Reason::HealthProbe);
    gate.take_in_probe("p", &page, &report(204), NOW);
    assert!(target.health(&ask(), None, Duration::ZERO, NOW) == RungHealth::Open, "one call asks");
}

#[tokio::test]
async fn another_configuration_keeps_what_probes_have_shown_of_the_same_page_of_the_same_server() {
    let shut_gate = || {
        let gate = gate(Some("/health"));
        for _ in 0..2 {
            gate.take_in_probe("p", &settings("/health"), &report(503), NOW);
        }
        gate
    };
    for (page, models, is_same_server, is_shut) in [
        (Some("/health"), &["a"][..], true, true),
        (Some("/health"), &["a"], false, false),
        (Some("/v1/models"), &["a"], true, false),
        (None, &["a"], true, false),
    ] {
        let kept = BTreeMap::from([("p".to_owned(), Unchanged { is_same_server, ..Unchanged::default() })]);
        let after = shut_gate().succeeded_by(&BTreeMap::new(), &setup(page, models), &kept, NOW);
        let told = after.target(&Target::new("p", "a")).unwrap().shut_by(NOW);
        assert_eq!(told.is_some(), is_shut, "{page:?}, {is_same_server}");
        assert_eq!(after.probed(NOW).count(), usize::from(page.is_some()));
        // An answer of the page that was asked before says nothing of another one.
        after.take_in_probe("p", &settings("/other"), &report(200), NOW);
        assert_eq!(after.target(&Target::new("p", "a")).unwrap().shut_by(NOW), told);
    }
    let unused = Gate::new(&BTreeMap::new(), &setup(Some("/health"), &[]));
    assert_eq!(unused.probed(NOW).count(), 0, "no route uses it");
}
