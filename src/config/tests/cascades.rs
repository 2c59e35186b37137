//! `cascade` of a route.

use super::*;
use crate::domain::{Cascade, Confidence, Measure};

const THREE: &str = "[providers.claude]\ndialect = \"anthropic\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                     [providers.open]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:8/v1\"\n\
                     [models.\"claude/a\"]\nprice = { input = \"1\", output = \"1\" }\n\
                     [models.\"open/b\"]\nprice = { input = \"2\", output = \"2\" }\n\
                     [models.\"open/c\"]\nprice = { input = \"3\", output = \"3\" }\n\
                     [models.\"claude/d\"]\nprice = { input = \"4\", output = \"4\" }\n";

fn over(rungs: &str, lines: &str) -> Given {
    given(&format!("{THREE}[routes.default]\nrungs = [{rungs}]\n{lines}"))
}

fn read(rungs: &str, lines: &str) -> Cascade {
    over(rungs, lines).config().routes["default"].route.cascade.clone().expect("a cascade")
}

fn faults(rungs: &str, lines: &str) -> Vec<String> {
    let told = |fault: String| fault.replacen("routes.default.", "", 1);
    over(rungs, lines).faults().into_iter().map(told).collect()
}

const LOGPROBS: &str = "cascade = { confidence = \"mean_logprob\", at_least = 0.8 }\n";
const FIELD: &str = "cascade = { confidence = \"/sure\", at_least = 80 }\n";

#[test]
fn every_measure_is_read_and_who_cannot_say_is_known() {
    let cascade = read("\"open/b\", \"open/c\"", LOGPROBS);
    assert_eq!((cascade.measure, cascade.at_least), (Measure::MeanLogprob, Confidence::of(0.8).unwrap()));
    let field = read("\"claude/a\", \"open/b\"", &format!("{FIELD}strategy = \"priority\""));
    assert_eq!((field.measure, field.at_least), (Measure::Field("/sure".into()), Confidence::of(80.0).unwrap()));
    assert!(field.silent.is_empty(), "every rung can fill a field");
    let mute = read("\"open/b\", \"claude/d\"", &LOGPROBS.replace("mean", "min"));
    assert_eq!(mute.silent.iter().map(ToString::to_string).collect::<Vec<_>>(), ["claude/d"]);
    assert!(over("\"open/b\"", "").config().routes["default"].route.cascade.is_none());
}

#[test]
fn a_rung_that_cannot_say_how_sure_it_is_may_only_be_the_last() {
    let expected = |target: &str| {
        format!(
            "cascade.confidence: {target} cannot say how sure it is: it is not asked for logprobs; expected a field of \
             the answer such as \"/confidence\""
        )
    };
    assert_eq!(faults("\"claude/a\", \"open/b\"", LOGPROBS), [expected("claude/a")]);
    // By price it is the first, wherever it is listed.
    assert_eq!(faults("\"open/b\", \"claude/a\"", LOGPROBS), [expected("claude/a")]);
    assert!(read("\"open/b\", \"claude/a\"", &format!("{LOGPROBS}strategy = \"priority\"")).silent.len() == 1);
    assert_eq!(faults("\"claude/a\", \"open/b\", \"claude/d\"", LOGPROBS), [expected("claude/a")]);
    assert_eq!(
        faults("\"open/b\", \"claude/d\", \"claude/a\"", &format!("{LOGPROBS}strategy = \"priority\"")),
        [expected("claude/d")]
    );
    // A model that is known to refuse them.
    let reasoning =
        format!("[routes.default]\nrungs = [\"openai/o3\", \"openai/gpt-4o\"]\nstrategy = \"priority\"\n{LOGPROBS}");
    let faults = given(&format!("[providers.openai]\napi_key_env = \"K\"\n{reasoning}")).with("K", "k").faults();
    assert!(faults.iter().any(|fault| fault.contains("openai/o3 cannot say how sure it is")), "{faults:?}");
}

#[test]
fn a_cascade_that_makes_no_sense_is_refused_with_what_would() {
    let two = "\"open/b\", \"open/c\"";
    let measures =
        "\"mean_logprob\", \"min_logprob\", or a JSON pointer to a number in the answer, such as \"/confidence\"";
    for (lines, expected) in [
        ("cascade = {}", format!("cascade.confidence: is missing; expected {measures}")),
        ("cascade = { at_least = 0.5 }", format!("cascade.confidence: is missing; expected {measures}")),
        (
            "cascade = { confidence = \"logprobs\", at_least = 0.5 }",
            format!("cascade.confidence: \"logprobs\" says nothing of how sure an answer is; expected {measures}"),
        ),
        (
            "cascade = { confidence = \"/sure\" }",
            "cascade.at_least: is missing; expected a number such as 0.8".to_owned(),
        ),
        (
            "cascade = { confidence = \"min_logprob\", at_least = 80 }",
            "cascade.at_least: 80 is no threshold; expected a probability from 0 to 1".to_owned(),
        ),
        (
            "cascade = { confidence = \"/sure\", at_least = nan }",
            "cascade.at_least: null is no threshold; expected a number such as 0.8".to_owned(),
        ),
        (
            "cascade = { confidence = \"/sure\", at_least = true }",
            "cascade.at_least: true is no threshold; expected a number such as 0.8".to_owned(),
        ),
        (
            "cascade = { confidence = \"/sure\", at_least = 1 }\nstrategy = \"balanced\"",
            "cascade: the strategy is \"balanced\", which knows no rung above another; expected strategy = \"cost\" or \
             \"priority\", or no cascade"
                .to_owned(),
        ),
        (
            "cascade = { confidence = \"/sure\", at_least = 1 }\nfallback = \"never\"",
            "cascade: no job may leave its rung because of its answer; expected soft_failure in fallback_on, and no \
             fallback = \"never\""
                .to_owned(),
        ),
        (
            "cascade = { confidence = \"/sure\", at_least = 1 }\nmax_attempts = 1",
            "max_attempts: a job of a cascade asks two rungs; expected 2 or more".to_owned(),
        ),
    ] {
        let found = faults(two, lines);
        assert!(found.contains(&expected), "{lines}: {found:#?}");
    }
    assert_eq!(
        faults("\"open/b\"", FIELD),
        ["cascade: a cascade over one rung; expected a second rung, or no cascade"]
    );
    let unknown = faults(two, "cascade = { confidence = \"/sure\", at_least = 1, atleast = 2 }");
    assert!(unknown.iter().any(|fault| fault.starts_with("cascade.atleast: ")), "{unknown:?}");
}
