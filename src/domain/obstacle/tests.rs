use super::words::{moment, span};
use super::*;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_800_000_060_000);

/// A worker with a route of two rungs, of which both are shut: one for its keys, one for its model.
fn worker() -> Statistics {
    Statistics::read(&json!({
        "version": 2, "routes": ["default", "other"], "patience": { "default": 600 },
        "waits": {
            "default": {
                "for": "one/m: auth (nowhere else to go)", "until_ms": NOW.0 + 60_000, "stuck": ["one/m", "two/x"],
            },
            "other": { "for": "one/m: auth (no fallback from that)" },
        },
        "gate": {
            "buckets": [{ "name": "one", "rates": [
                { "limit": "requests/min", "held": 0, "headroom": 0 },
                { "limit": "tokens/min", "held": 9, "headroom": 9 },
            ] }],
            "targets": [
                { "target": "one/m", "bucket": "one", "shut": { "reason": "auth", "since_ms": NOW.0 - 30_000 } },
                {
                    "target": "ill/m", "said": "HTTP 503: Loading model",
                    "shut": {
                        "reason": "health_probe", "since_ms": NOW.0 - 90_000, "until_ms": NOW.0 + 15_000,
                    },
                },
                {
                    "target": "two/x", "bucket": "two", "said": "HTTP 404: “no model x”",
                    "shut": { "reason": "model", "since_ms": NOW.0 - 5_000 },
                },
            ],
            "keys": [
                { "provider": "one", "key": "ONE_A", "state": "out", "said": "HTTP 401: “wrong key”",
                  "shut": { "reason": "auth", "since_ms": NOW.0 - 30_000 } },
                { "provider": "one", "key": "ONE_B", "state": "out",
                  "shut": { "reason": "quota_exhausted", "since_ms": NOW.0 - 3_600_000 } },
                { "provider": "one", "key": "ONE_C", "state": "in_service" },
                { "provider": "two", "key": "TWO", "state": "in_service" },
            ],
        },
    }))
}

fn known() -> Circumstances {
    let pause = |kind, name: &str, by: Option<&str>, why: Option<&str>| Pause {
        kind,
        name: name.to_owned(),
        by: by.map(str::to_owned),
        since: NOW - Duration::from_mins(5),
        why: why.map(str::to_owned),
    };
    let pauses = vec![
        pause(PauseKind::Batch, "nightly", Some("ops"), Some("too dear")),
        pause(PauseKind::Batch, "lossy", Some("worker"), Some("stop-loss: 12 of 40 jobs failed")),
        pause(PauseKind::Provider, "one", Some("ops"), None),
        pause(PauseKind::Route, "default", None, None),
    ];
    Circumstances { now: NOW, pauses, workers: vec![worker()], ..Circumstances::default() }
}

fn told(code: &str) -> String {
    let subject = Subject {
        route: "default",
        project: Some("acme"),
        batch: Some("nightly"),
        ready_at: Some(NOW - Duration::from_mins(2)),
        rests_until: None,
    };
    Obstacle::of(code, subject, &known()).in_words()
}

#[test]
fn a_trial_that_starts_is_not_told_of_the_routes_of_other_workers() {
    let subject = Subject { route: "trial:default:one/m", ..Subject::default() };
    let told = Obstacle::of("no worker knows the route", subject, &known());
    assert!(told.is_no_worker() && !told.in_words().contains("trial:"), "{}", told.in_words());
}

#[test]
fn each_reason_is_told_with_all_that_is_known_of_it() {
    for (code, words) in [
        ("batch paused", "batch nightly is paused by ops since 07:56:00 UTC (5m ago): too dear"),
        ("route paused", "route default is paused since 07:56:00 UTC (5m ago)"),
        // It was resumed between two looks.
        ("project paused", "its project is paused"),
        ("paused", "the job itself is paused"),
        ("scheduled", "scheduled for later"),
        ("no worker", "no worker is running that takes it: 1 worker is stopping or on other batches alone"),
        ("no worker knows the route", "no worker that is running has the route default; they have default, other"),
        ("no queue", "in no queue, so no worker finds it: it came in while triggers were off"),
        (
            "one/m: auth (nowhere else to go)",
            "one/m: no key is in service: ONE_A was rejected 30s ago (HTTP 401: “wrong key”); ONE_B is out of money 1h \
             ago; one call tries again at 08:02:00 UTC (in 1m); nowhere else to go",
        ),
        (
            "two/x: model (nowhere else to go)",
            "two/x: the model is unknown, or not allowed to the key (HTTP 404: “no model x”); nowhere else to go",
        ),
        (
            "one/m: paused (nowhere else to go)",
            "one/m: its provider is paused by ops since 07:56:00 UTC (5m ago); \
          nowhere else to go",
        ),
        (
            "one/m: rate_limit (within patience)",
            "one/m: its limit is used up (one: requests/min); it waits for this rung until 08:09:00 UTC (in 8m) at \
             most",
        ),
        (
            "two/x: asked_to_wait (nowhere else to go)",
            "two/x: its provider failed and asked to be left alone; nowhere else to go",
        ),
        (
            "one/m: breaker_open (within patience)",
            "one/m: its breaker is open after failures; it waits for this rung \
          until 08:09:00 UTC (in 8m) at most",
        ),
        ("one/m: peak_hours (patience without end)", "one/m: it is in its peak hours; patience without end"),
        (
            "ill/m: health_probe (nowhere else to go)",
            "ill/m: its provider's health probe fails (HTTP 503: Loading model) since 07:59:30 UTC (1m 30s ago); the \
             next one goes at 08:01:15 UTC (in 15s); nowhere else to go",
        ),
        ("one/m: retry", "one/m: it failed, and is tried again"),
        ("one/m: retry (unreachable)", "one/m: its last call failed (unreachable), and it is tried again"),
        (
            "one/m: offline (nowhere else to go)",
            "one/m: no provider can be reached, and it rests for a moment; nowhere else to go",
        ),
        ("a/m: of tomorrow (because)", "a/m: of tomorrow (because)"),
    ] {
        assert_eq!(told(code), words, "{code}");
    }
}

#[test]
fn a_stop_loss_is_not_said_to_be_a_person() {
    let subject = Subject { batch: Some("lossy"), ..Subject::default() };
    let words = Obstacle::of("batch paused", subject, &known()).in_words();
    assert_eq!(words, "batch lossy is paused since 07:56:00 UTC (5m ago): stop-loss: 12 of 40 jobs failed");
}

#[test]
fn a_route_is_stuck_where_no_rung_can_be_called_before_a_person_acts() {
    let of = |route, code| Obstacle::of(code, Subject { route, ..Subject::default() }, &known());
    let stuck = of("default", "one/m: auth (nowhere else to go)").stuck;
    let words: Vec<String> = stuck.iter().map(|shut| shut.in_words(None, NOW)).collect();
    assert_eq!(
        words,
        [
            "one/m: no key is in service: ONE_A was rejected 30s ago (HTTP 401: “wrong key”); ONE_B is out of money 1h \
             ago",
            "two/x: the model is unknown, or not allowed to the key (HTTP 404: “no model x”)",
        ]
    );
    assert!(stuck.iter().all(|shut| shut.advice().is_some()));
    // Another route has a rung left; and a paused batch is not stuck, regardless of what its worker says.
    assert!(of("other", "one/m: auth (no fallback from that)").stuck.is_empty());
    assert!(of("default", "batch paused").stuck.is_empty());
}

#[test]
fn a_route_is_not_stuck_while_a_worker_that_takes_its_jobs_goes_on() {
    let stuck = |other: &Statistics| {
        let known = Circumstances { workers: vec![worker(), other.clone()], ..known() };
        let subject = Subject { route: "default", batch: Some("b"), ..Subject::default() };
        Obstacle::of("one/m: auth (nowhere else to go)", subject, &known).stuck.len()
    };
    // It has another secret under the key's name.
    let other = Statistics { routes: Some(vec!["default".to_owned()]), ..Statistics::default() };
    assert_eq!(stuck(&other), 0);
    assert_eq!(stuck(&Statistics { only_batch: Some("b".to_owned()), ..other.clone() }), 0);
    // These take no job of it.
    assert_eq!(stuck(&Statistics { stopping: true, ..other.clone() }), 2);
    assert_eq!(stuck(&Statistics { only_batch: Some("c".to_owned()), ..other.clone() }), 2);
    assert_eq!(stuck(&Statistics { routes: Some(vec!["other".to_owned()]), ..other }), 2);
}

#[test]
fn what_is_tried_at_this_moment_is_said_to_be() {
    let shut = |reason, until: Timestamp| {
        let target = known().shut("two/y", What::Opens(reason), "nowhere else to go", Subject::default());
        target.in_words(Some(until), NOW)
    };
    let tried = "two/y: its breaker is open after failures; one call is trying it; nowhere else to go";
    assert_eq!(shut(Reason::Breaker, NOW), tried);
    assert!(shut(Reason::Breaker, NOW + Duration::from_secs(5)).contains("; one call tries again at "));
    assert!(!shut(Reason::RateLimit, NOW).contains("trying"));
}

#[test]
fn what_ends_by_itself_has_an_end_and_the_rest_has_advice() {
    for (code, is_a_limit, has_advice) in [
        ("one/m: rate_limit", true, false),
        ("one/m: concurrency", true, false),
        ("one/m: breaker_open", false, false),
        ("one/m: auth", false, true),
        ("one/m: quota_exhausted", false, true),
        ("one/m: model", false, true),
        ("one/m: paused", false, true),
        ("no worker", false, true),
        ("batch paused", false, true),
        ("paused", false, true),
        ("scheduled", false, false),
    ] {
        let subject = Subject { route: "default", batch: Some("nightly"), ..Subject::default() };
        let obstacle = Obstacle::of(code, subject, &known());
        assert_eq!((obstacle.is_a_limit(), obstacle.advice(Some(5)).is_some()), (is_a_limit, has_advice), "{code}");
    }
}

#[test]
fn instants_have_their_distance_and_another_day_its_date() {
    assert_eq!(moment(NOW + Duration::from_secs(51), NOW), "08:01:51 UTC (in 51s)");
    assert_eq!(moment(NOW - Duration::from_hours(3), NOW), "05:01:00 UTC (3h ago)");
    assert_eq!(moment(NOW + Duration::from_hours(20), NOW), "2027-01-16 04:01 UTC (in 20h)");
    assert_eq!(moment(Timestamp::MAX, NOW).split(" (").next(), Some("an unknown time"));
    for (seconds, words) in [(0, "0s"), (59, "59s"), (60, "1m"), (3661, "1h 1m"), (90_061, "1d 1h"), (86_400, "1d")] {
        assert_eq!(span(Duration::from_secs(seconds)), words);
    }
}

#[test]
fn jobs_of_a_batch_that_wait_for_something_else_are_told_too() {
    let mut obstacle = Obstacle::of("one/m: retry", Subject::default(), &known());
    obstacle.others = vec!["budget news".to_owned(), "two/x: retry (timeout)".to_owned()];
    let words = "one/m: it failed, and is tried again; others wait for budget news, two/x: retry (timeout)";
    assert_eq!(obstacle.in_words(), words);
    assert!(obstacle.lasting_budget().is_none() && !obstacle.is_a_limit());
}
