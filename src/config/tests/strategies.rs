//! `strategy` of a route, and the keys that belong to one strategy.

use super::*;
use crate::domain::{Race, StickyBy};

/// A route over three models of the provider above, with these additional lines.
fn three(lines: &str) -> Given {
    given(&format!("{LOCAL}[routes.default]\nrungs = [\"local/a\", \"local/b\", \"local/c/1\"]\n{lines}"))
}

fn read(lines: &str) -> Strategy {
    three(lines).config().routes["default"].route.strategy.clone()
}

#[test]
fn every_strategy_is_read_with_what_belongs_to_it() {
    assert_eq!(read(""), Strategy::Cost);
    for (name, expected) in [
        ("cost", Strategy::Cost),
        ("priority", Strategy::Priority),
        ("balanced", Strategy::Balanced),
        ("fastest", Strategy::Fastest),
    ] {
        assert_eq!(read(&format!("strategy = {name:?}")), expected);
    }
    let weights = read("strategy = \"weighted\"\nweights = { \"local/c/1\" = 0, \"local/a\" = 3, \"local/b\" = 0.5 }");
    assert_eq!(weights, Strategy::Weighted([3.0, 0.5, 0.0].into()), "in the order of the rungs");
    for (lines, after, at_most) in
        [("", 2_000, 2), ("race_after = \"0s\"", 0, 2), ("race_after = \"1m 500ms\"\nrace_at_most = 3", 60_500, 3)]
    {
        let after = Duration::from_millis(after);
        assert_eq!(read(&format!("strategy = \"race\"\n{lines}")), Strategy::Race(Race { after, at_most }));
    }
    for (by, expected) in [
        ("batch", StickyBy::Batch),
        ("project", StickyBy::Project),
        ("metadata.prompt_id", StickyBy::Metadata("prompt_id".into())),
        ("metadata.a.b", StickyBy::Metadata("a.b".into())),
    ] {
        assert_eq!(read(&format!("strategy = \"sticky\"\nsticky_by = {by:?}")), Strategy::Sticky(expected));
    }
}

#[test]
fn a_race_has_no_more_patience_than_its_pace_unless_it_says_so() {
    let patience = |lines: &str| three(lines).config().routes["default"].route.patience;
    for (lines, expected) in [
        ("strategy = \"race\"", Duration::from_secs(2)),
        ("strategy = \"race\"\nrace_after = \"0s\"", Duration::ZERO),
        ("strategy = \"race\"\nrace_after = \"1h\"", Duration::from_mins(10)),
        ("strategy = \"race\"\npatience = \"1m\"", Duration::from_mins(1)),
        ("strategy = \"priority\"", Duration::from_mins(10)),
        ("", Duration::from_mins(10)),
    ] {
        assert_eq!(patience(lines), Patience::For(expected), "{lines}");
    }
    assert_eq!(patience("strategy = \"race\"\npatience = \"forever\""), Patience::Forever);
}

#[test]
fn a_strategy_that_is_none_is_named_with_the_one_that_is_near() {
    let expected = "\"cost\", \"priority\", \"weighted\", \"balanced\", \"fastest\", \"sticky\" or \"race\"";
    for (name, problem) in [
        ("wieghted", "\"wieghted\" is not a strategy; perhaps \"weighted\" is meant"),
        ("Cost", "\"Cost\" is not a strategy; perhaps \"cost\" is meant"),
        ("round_robin", "\"round_robin\" is not a strategy"),
        ("", "\"\" is not a strategy"),
        ("races", "\"races\" is not a strategy; perhaps \"race\" is meant"),
    ] {
        // No fault is found with keys of a strategy that cannot be told.
        let faults = three(&format!(
            "strategy = {name:?}\nweights = {{ \"local/a\" = 1 }}\nsticky_by = \"batch\"\nrace_after = 7"
        ))
        .faults();
        assert_eq!(faults, [format!("routes.default.strategy: {problem}; expected {expected}")]);
    }
}

#[test]
fn weights_that_say_nothing_are_faults_each_with_its_rung() {
    let faults = |weights: &str| three(&format!("strategy = \"weighted\"\nweights = {weights}")).faults();
    let number = "a number, at least 0, such as 3 or 0.5; 0: only a fallback";
    for (weight, shown) in [
        ("-1", "-1"),
        ("-0.5", "-0.5"),
        ("nan", "NaN"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("\"3\"", "\"3\""),
        ("true", "true"),
    ] {
        assert_eq!(
            faults(&format!("{{ \"local/a\" = {weight}, \"local/b\" = 1, \"local/c/1\" = 1 }}")),
            [format!("routes.default.weights.\"local/a\": {shown} is not a weight; expected {number}")]
        );
    }
    assert_eq!(
        faults("{ \"local/a\" = [1], \"local/b\" = 1, \"local/c/1\" = 1 }"),
        [format!("routes.default.weights.\"local/a\": is not a weight; expected {number}")]
    );
    assert_eq!(
        faults("{ \"local/a\" = 0, \"local/b\" = 0.0, \"local/c/1\" = -0.0 }"),
        ["routes.default.weights: every weight is 0, so no rung would be drawn; expected one above 0 at least"]
    );
    assert_eq!(
        faults("{ \"local/a\" = 1, \"local/b\" = 1 }"),
        [format!("routes.default.weights.\"local/c/1\": is missing; expected {number}")]
    );
    assert_eq!(
        faults("{ \"local/a\" = 1, \"local/b\" = 1, \"local/c/1\" = 1, \"local/bb\" = 2, \"elsewhere/model\" = 1 }"),
        [
            "routes.default.weights.\"elsewhere/model\": \"elsewhere/model\" is no rung of this route; expected one of \
             local/a, local/b, local/c/1",
            "routes.default.weights.\"local/bb\": \"local/bb\" is no rung of this route; expected perhaps local/b",
        ]
    );
    assert_eq!(faults("[1, 2, 3]").len(), 4, "no table, and no weight for any rung");
    assert_eq!(
        three("strategy = \"weighted\"").faults(),
        ["routes.default.weights: the strategy is \"weighted\", and there are no weights; \
          expected a weight for each rung: weights = { \"local/a\" = 1, \"local/b\" = 1, \"local/c/1\" = 1 }"]
    );
}

#[test]
fn what_belongs_to_another_strategy_is_a_fault() {
    for strategy in ["cost", "priority", "balanced", "fastest", "sticky", "race"] {
        let key = if strategy == "sticky" { "sticky_by = \"batch\"" } else { "" };
        let faults = three(&format!("strategy = {strategy:?}\n{key}\nweights = {{ \"local/a\" = 1 }}")).faults();
        let problem = format!("the strategy is {strategy:?}, which draws by no weights");
        assert_eq!(faults, [format!("routes.default.weights: {problem}; expected strategy = \"weighted\"")]);
    }
    let unsaid = three("weights = { \"local/a\" = 1 }").faults();
    assert_eq!(unsaid.len(), 1, "the default has no weights: {unsaid:?}");
    let faults = three("strategy = \"balanced\"\nsticky_by = \"batch\"").faults();
    let problem = "the strategy is \"balanced\", which sticks to no rung";
    assert_eq!(faults, [format!("routes.default.sticky_by: {problem}; expected strategy = \"sticky\"")]);
}

#[test]
fn a_sticky_route_has_a_key_and_one_that_jobs_have() {
    let expected = "\"batch\", \"project\" or \"metadata.MEMBER\"";
    assert_eq!(
        three("strategy = \"sticky\"").faults(),
        [format!("routes.default.sticky_by: the strategy is \"sticky\", and there is no key; expected {expected}")]
    );
    for by in ["", "user", "metadata", "metadata.", "metadata. ", "job"] {
        assert_eq!(
            three(&format!("strategy = \"sticky\"\nsticky_by = {by:?}")).faults(),
            [format!("routes.default.sticky_by: {by:?} is nothing to stick by; expected {expected}")]
        );
    }
    assert_eq!(three("strategy = \"sticky\"\nsticky_by = 7").faults().len(), 1);
}

#[test]
fn the_pace_of_a_race_belongs_to_a_race() {
    for strategy in ["cost", "priority", "balanced", "fastest"] {
        let lines = format!("strategy = {strategy:?}\nrace_after = \"1s\"\nrace_at_most = 2");
        let fault = |key: &str| {
            format!(
                "routes.default.{key}: the strategy is {strategy:?}, which asks one rung at a time; \
                 expected strategy = \"race\""
            )
        };
        assert_eq!(three(&lines).faults(), [fault("race_after"), fault("race_at_most")]);
    }
    assert_eq!(three("race_after = \"1s\"").faults().len(), 1, "the default is no race");
}

#[test]
fn a_race_has_rungs_to_ask_and_a_pace_that_can_be_kept() {
    let one = |lines: &str| {
        given(&format!("{LOCAL}[routes.default]\nrungs = [\"local/a\"]\nstrategy = \"race\"\n{lines}")).faults()
    };
    let problem = "a race over one rung; expected a second rung, or another strategy";
    assert_eq!(one(""), [format!("routes.default.strategy: {problem}")]);
    assert_eq!(one("race_at_most = 2").len(), 1);
    let faults = |lines: &str| three(&format!("strategy = \"race\"\n{lines}")).faults();
    let duration = "a duration such as \"90s\", \"10m\" or \"1h 30m\"";
    for (after, shown) in [("7", "is 7"), ("-1", "is -1"), ("\"-1s\"", "\"-1s\" is not a duration")] {
        let faults = faults(&format!("race_after = {after}"));
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert!(fault.starts_with(&format!("routes.default.race_after: {shown}")), "{fault}");
        assert!(fault.ends_with(&format!("; expected {duration}")), "{fault}");
    }
    for (at_most, shown) in [("1", "is 1"), ("0", "is 0"), ("-2", "is -2"), ("\"two\"", "is \"two\"")] {
        let faults = faults(&format!("race_at_most = {at_most}"));
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert!(fault.starts_with(&format!("routes.default.race_at_most: {shown}")), "{fault}");
    }
    assert_eq!(
        faults("race_at_most = 4"),
        ["routes.default.race_at_most: 4 calls at a time, and the route has 3 rungs; expected 2 to 3"]
    );
    let two = given(&format!(
        "{LOCAL}[routes.default]\nrungs = [\"local/a\", \"local/b\"]\nstrategy = \"race\"\nrace_at_most = 3"
    ));
    assert_eq!(two.faults(), ["routes.default.race_at_most: 3 calls at a time, and the route has 2 rungs; expected 2"]);
    assert_eq!(
        faults("max_attempts = 1"),
        ["routes.default.max_attempts: the strategy is \"race\", and each of two calls that are under way may fail; \
          expected 2 or more"]
    );
    let pinned = "the strategy is \"race\", which asks other rungs, and no job may leave its rung; \
                  expected another strategy, or no fallback = \"never\"";
    for lines in ["fallback = \"never\"", "fallback_on = []"] {
        assert_eq!(faults(lines), [format!("routes.default.strategy: {pinned}")]);
    }
}
