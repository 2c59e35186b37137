use super::*;
use crate::domain::{BreakerSettings, Charging, JobId, SoftFailure, Tier};
use crate::worker::gate::{Gate, ProviderSetup};
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_795_176_000_000);
const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: QualitySettings = QualitySettings {
    min_calls: 4,
    window: Duration::from_mins(1),
    open: Duration::from_secs(30),
    slow: Some(SECOND),
    slow_rate: 0.5,
    soft_failure_rate: 0.9,
    wasted_token_rate: 0.9,
};

/// One worker process, whose provider has a model in the usual tier and in one of spare capacity.
fn process(server: &str) -> Gate {
    let usual = Target::new("p", "m");
    let spare = Target { tier: Some(Tier::spare("flex")), ..usual.clone() };
    let setup = ProviderSetup {
        bucket: "p".to_owned(),
        charging: Charging::COMBINED,
        breaker: BreakerSettings { min_calls: 4, failure_rate: 0.5, window: SECOND * 60, open: SECOND * 30 },
        keys: Vec::new(),
        recheck: SECOND,
        probe: None,
        server: server.to_owned(),
        targets: vec![usual, spare],
        model_buckets: BTreeMap::new(),
    };
    Gate::new(&BTreeMap::new(), &BTreeMap::from([("p".to_owned(), setup)]))
}

fn quality(gate: &Gate, route: &str) -> Arc<RouteQuality> {
    gate.target(&Target::new("p", "m")).expect("it is set up").quality_on(route, SETTINGS)
}

/// Answers to so many jobs; returns whether the target is passed over then.
fn answer(of: &Arc<RouteQuality>, jobs: std::ops::Range<i64>, outcome: &Outcome, took: Duration) -> bool {
    for job in jobs {
        let brought = Brought { job: JobId(job), project: "p", outcome, took: Some(took), output_tokens: 10 };
        of.admit(true, NOW).expect("it goes regardless").report(&brought, NOW);
    }
    of.weakness(NOW).is_some()
}

const REJECTED: Outcome = Outcome::Rejected(SoftFailure::NotJson);

fn tell(one: &Gate, other: &Gate, is_first: bool) -> usize {
    let news = one.news(NOW);
    let count = news.len();
    news.clone().into_iter().for_each(|news| other.hear(news, is_first, NOW));
    one.told(news);
    count
}

#[test]
fn each_route_judges_for_itself_and_is_forgotten_with_its_route() {
    let gate = process("s");
    let (one, other) = (quality(&gate, "one"), quality(&gate, "other"));
    assert!(answer(&one, 0..4, &REJECTED, Duration::ZERO));
    assert_eq!((one.weakness(NOW).is_some(), other.weakness(NOW).is_some()), (true, false));
    assert!(one.admit(false, NOW).is_none() && one.admit(true, NOW).is_some() && other.admit(false, NOW).is_some());
    let told: Vec<String> =
        gate.weaknesses(NOW).into_iter().map(|((_, route), what)| format!("{route} {what}")).collect();
    assert_eq!(told, ["one soft_failures"]);
    let said = gate.snapshot(NOW).targets.swap_remove(0).weak.swap_remove(0);
    let words = "4 of the last 4 answers were rejected (not_json 4)";
    assert_eq!((said.route.as_deref(), said.found.as_deref()), (Some("one"), Some(words)));
    // The configuration is read again.
    assert!(quality(&gate, "one").weakness(NOW).is_some());
    gate.keep_routes(|route| route == "other");
    assert!(quality(&gate, "one").weakness(NOW).is_none());
}

#[test]
fn failures_and_the_slowness_of_spare_capacity_are_not_held_against_it() {
    let gate = process("s");
    let usual = quality(&gate, "r");
    assert!(!answer(&usual, 0..9, &Outcome::Failed(ErrorClass::ServerError), SECOND * 9));
    assert!(answer(&usual, 0..4, &Outcome::Accepted, SECOND * 9));
    let spare = Target { tier: Some(Tier::spare("flex")), ..Target::new("p", "m") };
    let spare = gate.target(&spare).expect("it is set up").quality_on("r", SETTINGS);
    assert!(!answer(&spare, 0..9, &Outcome::Accepted, SECOND * 9));
    assert!(answer(&spare, 9..99, &REJECTED, SECOND * 9), "its faults are");
}

#[test]
fn it_holds_everywhere_and_one_job_asks_after_a_restart() {
    let (one, two, elsewhere) = (process("s"), process("s"), process("t"));
    let (of_one, of_two) = (quality(&one, "r"), quality(&two, "r"));
    assert_eq!(tell(&one, &two, false), 0, "nothing has happened");
    assert!(answer(&of_one, 0..4, &REJECTED, Duration::ZERO));
    tell(&one, &elsewhere, false);
    assert!(quality(&elsewhere, "r").weakness(NOW).is_none(), "another server");
    let (one, of_one) = (process("s"), of_one);
    drop(of_one);
    let of_one = quality(&one, "r");
    assert!(answer(&of_one, 0..4, &REJECTED, Duration::ZERO));
    assert_eq!(
        (tell(&one, &two, false), tell(&one, &two, false), tell(&two, &one, false)),
        (1, 0, 0),
        "it is told once"
    );
    assert_eq!(of_two.weakness(NOW).unwrap().found, of_one.weakness(NOW).unwrap().found);
    let later = process("s");
    let of_later = quality(&later, "r");
    quality(&one, "r").told.lock().take();
    tell(&one, &later, true);
    drop(of_later.admit(false, NOW).expect("one job asks at once"));
    let _probe = of_later.admit(false, NOW).expect("its place was given back");
    assert!(of_later.admit(false, NOW).is_none() && of_later.weakness(NOW).is_some());
}
