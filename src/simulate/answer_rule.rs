//! Answers that a scenario scripts: which prompts get which text.

use regex::Regex;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize as _};
use serde_json::Value;

/// A scripted answer. The first rule whose conditions all hold gives the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRule {
    /// Only calls whose last user message contains this.
    pub containing: Option<String>,
    /// Only calls in whose last user message this pattern is found.
    pub matching: Option<Matching>,
    /// Only calls of this model.
    pub model: Option<String>,
    /// The whole answer.
    pub text: String,
    /// How likely each of its tokens is, for calls that ask; nearly certain when absent.
    pub confidence: Option<f64>,
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Matching(pub Regex);

impl PartialEq for Matching {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl<'de> Deserialize<'de> for Matching {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pattern = String::deserialize(deserializer)?;
        let fault = |error: regex::Error| de::Error::custom(format!("`{pattern}` is no regular expression: {error}"));
        Regex::new(&pattern).map(Self).map_err(fault)
    }
}

/// Whether a last user message is one that these conditions are about.
pub(super) fn is_meant(last_user: &str, containing: Option<&str>, matching: Option<&Matching>) -> bool {
    containing.is_none_or(|text| last_user.contains(text))
        && matching.is_none_or(|pattern| pattern.0.is_match(last_user))
}

/// The scripted answer to a prompt; `None`: the scenario has none for it.
#[must_use]
pub fn scripted<'a>(rules: &'a [AnswerRule], model: &str, last_user: &str) -> Option<&'a AnswerRule> {
    let holds = |rule: &&AnswerRule| {
        rule.model.as_deref().is_none_or(|only| only == model)
            && is_meant(last_user, rule.containing.as_deref(), rule.matching.as_ref())
    };
    rules.iter().find(holds)
}

/// A rule as TOML writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnswerRule {
    containing: Option<String>,
    matching: Option<Matching>,
    model: Option<String>,
    text: Option<String>,
    json: Option<toml::Value>,
    confidence: Option<f64>,
}

/// JSON has no instants: they become their texts.
fn as_json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::Datetime(instant) => Value::String(instant.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(as_json).collect::<Result<_, _>>()?),
        toml::Value::Table(members) => {
            let member = |(name, member)| Ok::<_, String>((name, as_json(member)?));
            Value::Object(members.into_iter().map(member).collect::<Result<_, _>>()?)
        }
        toml::Value::Float(number) if !number.is_finite() => return Err(format!("{number} is no number of JSON")),
        plain => plain.serialize(serde_json::value::Serializer).map_err(|error| error.to_string())?,
    })
}

impl<'de> Deserialize<'de> for AnswerRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawAnswerRule { containing, matching, model, text, json, confidence } =
            RawAnswerRule::deserialize(deserializer)?;
        if confidence.is_some_and(|confidence| !(0.0..=1.0).contains(&confidence)) {
            return Err(de::Error::custom("`confidence` is a probability from 0 to 1"));
        }
        let text = match (text, json) {
            (Some(text), None) => text,
            (None, Some(json)) => as_json(json).map_err(de::Error::custom)?.to_string(),
            _ => return Err(de::Error::custom("an answer needs either `text` or `json`")),
        };
        Ok(Self { containing, matching, model, text, confidence })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    fn rules(answers: &str) -> Result<Vec<AnswerRule>, String> {
        let toml = format!("[providers.one]\ndialect = \"openai\"\nanswers = [{answers}]\n");
        let mut scenario = Scenario::from_toml(&toml).map_err(|error| error.to_string())?;
        Ok(scenario.providers.remove("one").unwrap().answers)
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_gives_the_answer() {
        let rules = rules(
            r#"{ containing = "invoice", matching = "(?i)wrong", text = "fault" },
               { containing = "invoice", text = "billing" },
               { matching = "^[0-9]+$", json = { number = true, at = 2026-01-02, list = [1, 2.5, "x"] } },
               { model = "large", text = "I am large" }"#,
        )
        .unwrap();
        for (model, prompt, expected) in [
            ("m", "my invoice is WRONG", Some("fault")),
            ("m", "my invoice", Some("billing")),
            ("m", "17", Some(r#"{"number":true,"at":"2026-01-02","list":[1,2.5,"x"]}"#)),
            ("m", "17 or so", None),
            ("large", "17 or so", Some("I am large")),
        ] {
            let given = scripted(&rules, model, prompt).map(|rule| rule.text.as_str());
            match expected.map(serde_json::from_str::<Value>) {
                Some(Ok(expected)) => assert_eq!(serde_json::from_str::<Value>(given.unwrap()).unwrap(), expected),
                _ => assert_eq!(given, expected, "{model}: {prompt}"),
            }
        }
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_with_the_reason() {
        for (rule, problem) in [
            ("{ containing = \"a\" }", "an answer needs either `text` or `json`"),
            ("{ text = \"a\", json = 1 }", "an answer needs either `text` or `json`"),
            ("{ matching = \"(\", text = \"a\" }", "`(` is no regular expression"),
            ("{ text = \"a\", confidence = 1.5 }", "`confidence` is a probability from 0 to 1"),
            ("{ json = nan }", "NaN is no number of JSON"),
            ("{ prompt = \"a\", text = \"a\" }", "unknown field `prompt`"),
        ] {
            let refused = rules(rule).unwrap_err();
            assert!(refused.contains(problem), "{rule}: {refused}");
        }
    }
}
