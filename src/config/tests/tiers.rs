//! Tiers of service in the names of rungs.

use super::*;
use crate::domain::{Tier, Timeouts};

fn routed(providers: &str, rungs: &str, more: &str) -> Given {
    given(&format!("{providers}\n[routes.default]\nrungs = [{rungs}]\n{more}"))
}

const OPENAI: &str = "[providers.openai]\nbase_url = \"http://127.0.0.1/v1\"";

#[test]
fn a_rung_with_a_tier_has_the_models_settings_the_tiers_price_and_time() {
    let config = routed(
        OPENAI,
        "\"openai/gpt-5@flex\", \"openai/gpt-5\", \
         { target = \"openai/gpt-5@priority\", timeouts = { total = \"9s\" } }",
        "strategy = \"weighted\"\nweights = { \"openai/gpt-5\" = 1, \"openai/gpt-5@flex\" = 2, \
         \"openai/gpt-5@priority\" = 0 }\n[models.\"openai/gpt-5\"]\ncontext_window = 99\n",
    )
    .config();
    let rungs = &config.routes["default"].route.rungs;
    let names: Vec<String> = rungs.iter().map(|rung| rung.target.to_string()).collect();
    assert_eq!(names, ["openai/gpt-5@flex", "openai/gpt-5", "openai/gpt-5@priority"]);
    assert!(rungs.iter().all(|rung| rung.target.model == "gpt-5"));
    assert_eq!(rungs[0].target.tier, Some(Tier::spare("flex")));
    let prices: Vec<i64> =
        rungs.iter().map(|rung| rung.price_at(crate::domain::Timestamp(0)).unwrap().usual.input).collect();
    assert_eq!(prices, [625_000_000, 1_250_000_000, 2_500_000_000]);
    assert!(rungs.iter().all(|rung| rung.model.capabilities.context_window == Some(99)));
    let usual = config.providers["openai"].endpoint.timeouts;
    let timeouts: Vec<Timeouts> = rungs.iter().map(|rung| rung.timeouts).collect();
    assert_eq!((timeouts[0].total, timeouts[0].first_byte), (Duration::from_mins(15), Duration::from_mins(15)));
    assert_eq!((timeouts[1], timeouts[2].total), (usual, Duration::from_secs(9)));
    assert_eq!(config.models.len(), 1, "settings are those of the model: {:?}", config.models.keys());
    let warned = |warning: &&String| !warning.contains("not set") && warning.contains("gpt-5");
    assert_eq!(config.warnings.iter().filter(warned).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_timeout_that_a_rung_sets_counts_also_where_spare_capacity_is_slow() {
    let rung = "{ target = \"openai/gpt-5@flex\", timeouts = { total = \"2m\", first_byte = \"1m\" } }";
    let config = routed(OPENAI, rung, "").config();
    assert_eq!(config.routes["default"].route.rungs[0].timeouts.total, Duration::from_mins(2));
}

#[test]
fn a_tier_that_cannot_be_asked_for_is_a_fault_that_names_those_that_can() {
    let mistral = "[providers.mistral]\nbase_url = \"http://127.0.0.1/v1\"";
    let azure = "[providers.a]\nvendor = \"azure_openai\"\nbase_url = \"http://127.0.0.1/openai\"";
    let local = LOCAL;
    for (providers, rung, fault) in [
        (
            OPENAI,
            "openai/gpt-5@flexx",
            "openai has no tier \"flexx\"; expected perhaps openai/gpt-5@flex; its tiers are flex, fast, priority, \
             default",
        ),
        (
            OPENAI,
            "openai/gpt-5@cheap",
            "openai has no tier \"cheap\"; expected openai/gpt-5, or a tier behind the @: flex, fast, priority, \
             default",
        ),
        (
            OPENAI,
            "openai/gpt-5@",
            "\"openai/gpt-5@\" has no tier behind its @; expected openai/gpt-5, or a tier behind the @: flex, fast, \
             priority, default",
        ),
        (
            OPENAI,
            "openai/gpt-5@FLEX ",
            "openai has no tier \"FLEX \"; expected perhaps openai/gpt-5@flex; its tiers are flex, fast, priority, \
             default",
        ),
        (
            OPENAI,
            "openai/@flex",
            "\"openai/@flex\" has no model before its @; expected openai/MODEL, or a tier behind the @: flex, fast, \
             priority, default",
        ),
        (
            OPENAI,
            "openai/gpt-5@flex@fast",
            "\"openai/gpt-5@flex@fast\" asks for two tiers; expected openai/gpt-5@flex, or a tier behind the @: flex, \
             fast, priority, default",
        ),
        (
            mistral,
            "mistral/mistral-small@flex",
            "the tier \"flex\" is not known of mistral, nor is any other tier; expected mistral/mistral-small",
        ),
        (
            local,
            "local/m@priority",
            "the tier \"priority\" is not known of local, nor is any other tier; expected local/m",
        ),
        (azure, "a/gpt@fast", "a has no tier \"fast\"; expected a/gpt, or a tier behind the @: flex"),
    ] {
        let faults = routed(providers, &format!("\"{rung}\""), "").faults();
        assert_eq!(faults, [format!("routes.default.rungs[0]: {fault}")], "{rung}");
    }
    let twice = routed(OPENAI, "\"openai/gpt-5@flex\", \"openai/gpt-5@flex\"", "").faults();
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(twice[0].contains("openai/gpt-5@flex is a rung of this route already"), "{twice:?}");
}

#[test]
fn an_at_sign_that_is_no_tiers_belongs_to_the_name() {
    for name in ["@cf/meta/llama-3", "claude-3-5-sonnet@20240620", "claude-3-5-sonnet@default", "gemini@001"] {
        let config = routed(LOCAL, &format!("\"local/{name}\""), "").config();
        let target = &config.routes["default"].route.rungs[0].target;
        assert_eq!((target.model.as_str(), target.tier), (name, None));
    }
}

#[test]
fn settings_of_a_model_are_not_those_of_a_tier() {
    let more = "[models.\"openai/gpt-5@flex\"]\nprice = { input = \"1\", output = \"1\" }\n";
    let faults = routed(OPENAI, "\"openai/gpt-5@flex\"", more).faults();
    assert_eq!(
        faults,
        ["models.\"openai/gpt-5@flex\": names a tier: settings are those of the model, whatever the tier; \
             expected the tier's price among `tiers` of [models.\"openai/gpt-5\"]"]
    );
}

#[test]
fn a_tier_without_a_price_is_warned_of_with_the_place_for_it() {
    let providers = "[providers.fireworks]\nbase_url = \"http://127.0.0.1/v1\"";
    let more = "[models.\"fireworks/m\"]\nprice = { input = \"1\", output = \"1\" }\n";
    let config = routed(providers, "\"fireworks/m@flex\", \"fireworks/m\"", more).config();
    let unpriced: Vec<&String> = config.warnings.iter().filter(|warning| warning.contains("unknown")).collect();
    assert_eq!(
        unpriced,
        ["the price of fireworks/m@flex (route default) is unknown, so its costs are too: add it to `tiers` in \
          [models.\"fireworks/m\"]"]
    );
}
