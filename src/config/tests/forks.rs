//! `rules` of a route: which jobs go along another one.

use super::*;
use crate::domain::fork::{Fork, Names, Needs, When};

/// Three routes over the provider above; the first has these rules.
fn rules(rules: &str) -> Given {
    let route = |name: &str| format!("[routes.{name}]\nrungs = [\"local/m\"]\n");
    given(&format!("{LOCAL}{}{}{}rules = {rules}\n", route("long"), route("gold"), route("default")))
}

fn names(names: &[&str]) -> Names {
    Names(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn rules_are_read_in_their_order_as_tables_or_as_a_list() {
    let expected = [
        Fork {
            when: When {
                project: Some(names(&["acme", "test*"])),
                metadata: [("tier".to_owned(), names(&["gold", "3", "true"]))].into(),
                needs: Needs::by_words(&["tools", "json"]).unwrap(),
                ..When::default()
            },
            to: "gold".to_owned(),
        },
        Fork {
            when: When {
                batch: Some(names(&["nightly-*"])),
                min_input_tokens: Some(20_000),
                max_input_tokens: Some(90_000),
                ..When::default()
            },
            to: "long".to_owned(),
        },
    ];
    let list = rules(
        "[{ when = { project = [\"acme\", \"test*\"], metadata = { tier = [\"gold\", 3, true] }, \
         needs = [\"tools\", \"json\"] }, route = \"gold\" }, \
         { when = { batch = \"nightly-*\", min_input_tokens = 20000, max_input_tokens = 90000 }, route = \"long\" }]",
    );
    assert_eq!(list.config().routes["default"].route.forks, expected);
    let tables = given(&format!(
        "{LOCAL}[routes.gold]\nrungs = [\"local/m\"]\n[routes.default]\nrungs = [\"local/m\"]\n\
         [[routes.default.rules]]\nroute = \"gold\"\n[routes.default.rules.when]\nproject = \"acme\"\n\
         [[routes.default.rules]]\nroute = \"gold\"\n"
    ));
    let read = &tables.config().routes["default"].route.forks;
    assert_eq!((read.len(), &read[0].when.project, &read[1].when), (2, &Some(names(&["acme"])), &When::default()));
}

#[test]
fn a_rule_that_leads_nowhere_is_a_fault() {
    let gold = "when = { project = \"acme\" }";
    for (rule, fault) in [
        (
            format!("{{ {gold}, route = \"golt\" }}"),
            "rules[0].route: there is no route \"golt\"; expected perhaps gold",
        ),
        (
            format!("{{ {gold}, route = \"elsewhere\" }}"),
            "rules[0].route: there is no route \"elsewhere\"; expected a section [routes.elsewhere]",
        ),
        (format!("{{ {gold} }}"), "rules[0].route: is missing; expected the name of a route"),
        (format!("{{ {gold}, route = \"\" }}"), "rules[0].route: is empty; expected the name of a route"),
        (
            format!("{{ {gold}, route = \"default\" }}"),
            "rules[0].route: the rules lead round in a circle: default, default; expected rules that end at a route",
        ),
        (
            "\"gold\"".to_owned(),
            "rules[0]: is no rule; expected a list of rules such as [{ when = { project = \"acme\" }, \
             route = \"other\" }]",
        ),
    ] {
        assert_eq!(rules(&format!("[{rule}]")).faults(), [format!("routes.default.{fault}")], "{rule}");
    }
}

#[test]
fn a_circle_is_told_at_each_rule_of_it_and_at_no_other() {
    let route = |name: &str, to: &str| {
        let rules = if to.is_empty() { String::new() } else { format!("rules = [{{ route = {to:?} }}]\n") };
        format!("[routes.{name}]\nrungs = [\"local/m\"]\n{rules}")
    };
    let faults =
        given(&format!("{LOCAL}{}{}{}{}", route("a", "b"), route("b", "c"), route("c", "b"), route("d", ""))).faults();
    let expected = "expected rules that end at a route";
    assert_eq!(
        faults,
        [
            format!("routes.b.rules[0].route: the rules lead round in a circle: b, c, b; {expected}"),
            format!("routes.c.rules[0].route: the rules lead round in a circle: c, b, c; {expected}"),
        ]
    );
    given(&format!("{LOCAL}{}{}{}", route("a", "b"), route("b", "c"), route("c", ""))).config();
}

#[test]
fn a_rule_that_can_never_decide_is_a_fault() {
    let listed = "expected a text, or a list of texts; `*` at the end stands for any ending";
    for (when, fault) in [
        (
            "min_input_tokens = 30, max_input_tokens = 3",
            "when.min_input_tokens: 30 is more than max_input_tokens, which is 3, so the rule never holds; expected at \
             most max_input_tokens"
                .to_owned(),
        ),
        ("project = []", format!("when.project: is an empty list, so the rule never holds; {listed}")),
        ("metadata = { tier = [] }",
            format!("when.metadata.tier: is an empty list, so the rule never holds; {listed}")),
        ("batch = \" \"", format!("when.batch: is neither a text nor a list of texts; {listed}")),
        ("metadata = { tier = { a = 1 } }",
            format!("when.metadata.tier: is neither a text nor a list of texts; {listed}")),
        (
            "language = [\"german\"]",
            "when.language[0]: \"german\" is no language that is told; expected a list of codes of ISO 639 such as \
             [\"de\", \"en\"]"
                .to_owned(),
        ),
        (
            "needs = [\"sounds\"]",
            "when.needs[0]: \"sounds\" is nothing that a request asks for; expected a list of tools, images, \
             files, audio, json, embeddings"
                .to_owned(),
        ),
        ("min_input_token = 3", "when.min_input_token: no such key; expected perhaps min_input_tokens".to_owned()),
    ] {
        let faults = rules(&format!("[{{ when = {{ {when} }}, route = \"gold\" }}]")).faults();
        assert_eq!(faults, [format!("routes.default.rules[0].{fault}")], "{when}");
    }
    for (wide, narrow) in [
        ("", "project = \"acme\""),
        ("project = \"acme\"", "project = \"acme\""),
        ("project = \"ac*\"", "project = [\"acme\", \"acid*\"], needs = [\"tools\"]"),
        ("min_input_tokens = 10", "min_input_tokens = 11, max_input_tokens = 20"),
        ("metadata = { tier = [\"gold\", \"tin\"] }", "metadata = { tier = \"tin\", lang = \"de\" }"),
    ] {
        let both = |first: &str, second: &str| {
            rules(&format!(
                "[{{ when = {{ {first} }}, route = \"gold\" }}, {{ when = {{ {second} }}, route = \"long\" }}]"
            ))
        };
        let problem = "rules[0] takes every job for which this rule holds, so it never decides";
        assert_eq!(
            both(wide, narrow).faults(),
            [format!("routes.default.rules[1]: {problem}; expected the narrower rule first, or only one of the two")]
        );
        if wide != narrow {
            both(narrow, wide).config();
        }
    }
}
