use super::*;
use crate::domain::shut::Reason;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_000_000);

fn open(until: i64) -> BreakerNews {
    BreakerNews::Open { since: NOW, until: Timestamp(until), failed_probes: 0, found: None }
}

fn shut(seconds: u64) -> Shut {
    Shut { reason: Reason::Breaker, since: NOW, until: NOW + Duration::from_secs(seconds) }
}

fn of(breaker: Option<BreakerNews>, model: Option<u64>, rest: Option<u64>) -> TargetNews {
    let model = model.map(|seconds| ModelNews { shut: shut(seconds), said: None });
    TargetNews { breaker, model, rest: rest.map(shut) }
}

#[test]
fn only_what_is_new_is_told() {
    let closed = Some(BreakerNews::Closed);
    let nothing = TargetNews::default();
    for (what, state, told, expected) in [
        ("a target that works is no news", of(closed.clone(), None, None), nothing.clone(), nothing.clone()),
        ("the first failure", of(Some(open(7)), None, None), nothing.clone(), of(Some(open(7)), None, None)),
        ("told already", of(Some(open(7)), None, None), of(Some(open(7)), None, None), nothing.clone()),
        ("another time", of(Some(open(9)), None, None), of(Some(open(7)), None, None), of(Some(open(9)), None, None)),
        ("back again", of(closed.clone(), None, None), of(Some(open(7)), None, None), of(closed.clone(), None, None)),
        ("half open says nothing", of(None, None, None), of(Some(open(7)), None, None), nothing.clone()),
        ("a model", of(closed.clone(), Some(60), None), nothing.clone(), of(None, Some(60), None)),
        ("a model for longer", of(closed.clone(), Some(60), None), of(None, Some(30), None), of(None, Some(60), None)),
        ("a model for no longer", of(closed.clone(), Some(30), None), of(None, Some(60), None), nothing.clone()),
        ("a rest", of(closed.clone(), None, Some(60)), of(None, Some(60), None), of(None, None, Some(60))),
        ("a rest that is nearly over", of(closed.clone(), None, Some(2)), nothing.clone(), nothing.clone()),
        ("a rest that has ended", nothing.clone(), of(None, None, Some(60)), nothing),
    ] {
        assert_eq!(state.since(&told, NOW), expected, "{what}");
    }
}

#[test]
fn what_was_told_adds_up() {
    let mut told = of(Some(open(7)), Some(60), None);
    told.add(of(Some(BreakerNews::Closed), None, Some(5)));
    assert_eq!(told, of(Some(BreakerNews::Closed), Some(60), Some(5)));
    told.add(TargetNews::default());
    assert_eq!(told, of(Some(BreakerNews::Closed), Some(60), Some(5)));
}

#[test]
fn the_words_that_are_kept_in_the_database_do_not_change() {
    let news = of(Some(open(7)), Some(60), Some(5));
    let kept = json!({
        "breaker": { "state": "open", "since": 1_000_000, "until": 7, "failed_probes": 0 },
        "model": { "shut": { "reason": "breaker_open", "since": 1_000_000, "until": 1_060_000 } },
        "rest": { "reason": "breaker_open", "since": 1_000_000, "until": 1_005_000 },
    });
    assert_eq!(serde_json::to_value(&news).unwrap(), kept);
    assert_eq!(serde_json::from_value::<TargetNews>(kept).unwrap(), news);
    assert_eq!(serde_json::from_value::<TargetNews>(json!({ "of_tomorrow": 1 })).unwrap(), TargetNews::default());
    let found = Some(Evidence::of_failures(9, 10));
    let told = BreakerNews::Open { since: NOW, until: Timestamp(7), failed_probes: 0, found };
    let mut kept = serde_json::to_value(&told).unwrap();
    let evidence = json!({ "indicator": "failures", "bad": 9, "of": 10 });
    assert_eq!(kept, json!({ "state": "open", "since": 1_000_000, "until": 7, "failed_probes": 0, "found": evidence }));
    assert_eq!(serde_json::from_value::<BreakerNews>(kept.clone()).unwrap(), told);
    kept["found"]["indicator"] = json!("of_tomorrow");
    assert_eq!(serde_json::from_value::<BreakerNews>(kept).unwrap(), open(7), "it is open, whatever for");
    let out = KeyNews::Out { fault: KeyFault::OutOfMoney, since: NOW, said: None };
    let kept = json!({ "state": "out", "fault": "quota_exhausted", "since": 1_000_000 });
    assert_eq!(serde_json::to_value(&out).unwrap(), kept);
    assert_eq!(serde_json::from_value::<KeyNews>(kept).unwrap(), out);
    assert_eq!(serde_json::to_value(KeyNews::InService).unwrap(), json!({ "state": "in_service" }));
}
