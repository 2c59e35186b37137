//! `[routes.NAME.shadow]`.

use super::*;
use crate::domain::NanoUsd;
use crate::domain::budget::{Coverage, Period};

const TWO: &str = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                   [providers.two]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:8/v1\"\n\
                   [models.\"one/m\"]\nprice = { input = \"1\", output = \"1\" }\n\
                   [models.\"two/m\"]\nprice = { input = \"2\", output = \"2\" }\n\
                   [routes.default]\nrungs = [\"one/m\"]\nmax_tokens = 5\ncache = \"1h\"\n[routes.default.shadow]\n";

const WHOLE: [&str; 3] = ["target = \"two/m\"", "share = 0.05", "limit = \"2.50\""];

fn shadow(lines: &[&str]) -> Given {
    given(&format!("{TWO}{}\n", lines.join("\n")))
}

#[test]
fn a_shadow_is_a_route_of_its_own_with_a_budget_of_a_day() {
    let config = shadow(&WHOLE).config();
    let shadow = config.routes["default"].route.shadow.clone().expect("a shadow");
    assert_eq!((shadow.share().millionths(), shadow.limit), (50_000, NanoUsd(2_500_000_000)));
    assert_eq!((shadow.route.name.as_str(), shadow.target().unwrap().to_string()), ("shadow:default", "two/m".into()));
    assert_eq!(shadow.route.defaults.max_tokens, Some(5), "requests are completed as on the route");
    let budget = config.budgets.iter().find(|budget| budget.name == "shadow:default").expect("a budget");
    assert_eq!(budget.scope, Coverage::Route("shadow:default".to_owned()));
    assert_eq!((budget.period, budget.limit), (Period::Day, NanoUsd(2_500_000_000)));
    assert!(!config.warnings.iter().any(|warning| warning.contains("two")), "{:?}", config.warnings);
    assert!(!config.routes.contains_key("shadow:default"), "nothing is enqueued on it by name");
}

#[test]
fn a_shadow_that_makes_no_sense_is_refused_with_what_would() {
    for (instead_of, line, expected) in [
        (0, "", "target: is missing; expected \"provider/model\""),
        (1, "", "share: is missing; expected a share above 0 and up to 1, such as 0.05"),
        (2, "", "limit: is missing; expected the dollars that it may cost in a day, as a text such as \"5.00\""),
        (0, "target = \"two\"", "target: \"two\" has no provider or no model; expected \"provider/model\""),
        (0, "target = \"tow/m\"", "target: there is no provider \"tow\"; expected perhaps two"),
        (
            0,
            "target = \"one/m\"",
            "target: one/m is a rung of this route: it would be a shadow of itself; expected a target that the route \
             does not ask",
        ),
        (
            0,
            "target = \"two/x\"",
            "target: the price of two/x is unknown, so that `limit` would not hold; expected a price under \
             [models.\"two/x\"]",
        ),
        (1, "share = 0", "share: is 0; expected a share above 0 and up to 1, such as 0.05"),
        (1, "share = 1.5", "share: \"1.5\" is above 1; expected a share above 0 and up to 1, such as 0.05"),
        (1, "share = -0.1", "share: \"-0.1\" is below 0; expected a share above 0 and up to 1, such as 0.05"),
        (
            2,
            "limit = \"0\"",
            "limit: \"0\" is nothing: to let nothing run, pause it; expected the dollars that it may cost in a day, as \
             a text such as \"5.00\"",
        ),
    ] {
        let mut lines = WHOLE;
        lines[instead_of] = line;
        let found = shadow(&lines).faults();
        assert_eq!(found, [format!("routes.default.shadow.{expected}")], "{line}");
    }
    let unknown = shadow(&[WHOLE[0], WHOLE[1], WHOLE[2], "shares = 1"]).faults();
    assert!(unknown[0].starts_with("routes.default.shadow.shares: "), "{unknown:?}");
}
