//! The stored form, which workers of different versions read and write side by side.

use super::tests::{REQUESTS, at, limits, stock};
use super::*;
use crate::domain::Unit;
use crate::domain::limits::Dimension;
use crate::domain::shut::Reason;
use serde_json::{Value, json};

/// [`with_everything`] as version 0.1 wrote it, before holdings were told apart by more than a name, and beside that
/// what was left when a limit was learned, which came later.
const STORED: &str = include_str!("stored.json");

/// A bucket with something in every member that is stored: two limits of which one is learned, holdings, a wait that is
/// too long to be believed, a slope, and a reopening.
fn with_everything() -> SharedBucket {
    let mut limits = limits(600, 100);
    limits.concurrency = Some(8);
    let mut bucket = SharedBucket::default();
    let heard = |unit, seconds, limit| Heard {
        dimension: Dimension { unit, seconds },
        limit: Some(limit),
        remaining: Some(limit / 2),
        corrected: 0,
    };
    let told = Report {
        heard: vec![
            heard(Unit::Tokens, 86_400, 1_000),
            heard(Unit::InputTokens, 7, 70),
            heard(Unit::OutputTokens, 1, 9),
        ],
        slots_wanted: 3,
        ..stock(0, 0, 1, 40)
    };
    bucket.exchange(11, &limits, &told, at(0));
    let mut report = stock(0, 30, 0, 30);
    report.stocks.extend([(Unit::Tokens, 86_400, 50), (Unit::InputTokens, 7, 5)].map(|(unit, seconds, want)| Stock {
        dimension: Dimension { unit, seconds },
        want,
        left: 0,
        ..report.stocks[0]
    }));
    report.running = 2;
    report.slots_wanted = 3;
    bucket.exchange(11, &limits, &report, at(500));
    bucket.exchange(12, &limits, &Report { slots_wanted: 4, may_begin: true, ..stock(0, 0, 7, 90) }, at(600));
    bucket.reopen(at(650));
    let wait = Wait {
        reason: Reason::RateLimit,
        remaining: Duration::from_hours(100),
        recheck: Duration::from_secs(1),
        drained: vec![(REQUESTS, 1)],
        too_steep: true,
    };
    bucket.exchange(
        12,
        &limits,
        &Report { refused: 3, wait: Some(wait), slots_wanted: 4, ..stock(0, 3, 7, 90) },
        at(700),
    );
    bucket.exchange(11, &limits, &Report { may_begin: true, ..report }, at(1_900));
    bucket
}

#[test]
fn what_was_written_is_read_and_written_again_as_it_was() {
    let stored: Value = serde_json::from_str(STORED).unwrap();
    assert_eq!(serde_json::from_value::<SharedBucket>(stored.clone()).unwrap(), with_everything());
    assert_eq!(serde_json::to_value(with_everything()).unwrap(), stored);
}

#[test]
fn a_limit_that_an_earlier_version_has_learned_is_read_without_what_was_left_then() {
    let mut stored: Value = serde_json::from_str(STORED).unwrap();
    for meter in stored["meters"].as_array_mut().unwrap() {
        meter.as_object_mut().unwrap().remove("told");
    }
    let mut expected = with_everything();
    expected.meters.iter_mut().for_each(|meter| meter.told = None);
    assert_eq!(serde_json::from_value::<SharedBucket>(stored).unwrap(), expected);
}

#[test]
fn what_is_held_of_a_limit_that_this_version_cannot_name_is_left_out_and_all_else_is_read() {
    let mut stored: Value = serde_json::from_str(STORED).unwrap();
    let held = json!({ "held": 7, "lacks": 0, "had": 7 });
    for name in ["images/min", "requests", "requests/h", "requests/-3s", "requests/min ", ""] {
        stored["shares"]["11"]["holdings"][name] = held.clone();
    }
    assert_eq!(serde_json::from_value::<SharedBucket>(stored).unwrap(), with_everything());
}

#[test]
fn every_limit_is_found_again_by_its_name() {
    for &unit in Unit::ALL {
        for seconds in [1, 2, 59, 60, 61, 3_600, 86_399, 86_400, 86_401, u64::MAX] {
            let dimension = Dimension { unit, seconds };
            assert_eq!(Dimension::parse(&dimension.to_string()), Some(dimension));
        }
    }
}
