//! What a request says beside its path: in the query, in a form, or as a JSON object. The names are the same in all
//! three. An unknown name is refused, since a filter with a mistyped name would mean other jobs.

use super::problem::{OrProblem, Problem};
use crate::domain::ErrorClass;
use crate::domain::job::JobState;
use crate::store::batch::JobFilter;
use crate::store::selection::Selection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

/// Names and texts that have not been read yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Params {
    left: BTreeMap<String, String>,
    read: Vec<&'static str>,
}

impl Params {
    /// The pairs of a query or a form.
    pub(super) fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> OrProblem<Self> {
        let mut left = BTreeMap::new();
        for (name, value) in pairs {
            if left.insert(name.clone(), value).is_some() {
                return Err(Problem::bad(format!("{name} is given twice")));
            }
        }
        Ok(Self { left, read: Vec::new() })
    }

    /// The members of a JSON object; no body at all is an empty one. A list of texts is read as if they were written
    /// with commas in between.
    pub(super) fn of_json(body: &[u8]) -> OrProblem<Self> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body) else {
            return Err(Problem::bad("the body is no JSON object"));
        };
        let mut left = BTreeMap::new();
        for (name, value) in members {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(texts) if texts.iter().all(Value::is_string) => {
                    texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
                }
                Value::Array(_) | Value::Object(_) => {
                    return Err(Problem::bad(format!(
                        "{name} is neither a text, a number, a flag nor a list of texts"
                    )));
                }
            };
            left.insert(name, text);
        }
        Ok(Self { left, read: Vec::new() })
    }

    /// A text; an empty one, as an empty field of a form sends it, is none.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.read.push(name);
        self.left.remove(name).filter(|text| !text.trim().is_empty())
    }

    /// A text that is still to be read.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        self.left.get(name).map(String::as_str)
    }

    /// A number, or another value, whose form `expected` names.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> OrProblem<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| Problem::bad(format!("{name}: expected {expected}, found {text:?}")))
    }

    /// How many, from 1 to `most`.
    pub(super) fn limit(&mut self, usual: usize, most: usize) -> OrProblem<usize> {
        let limit = self.parsed("limit", "a whole number")?.unwrap_or(usual);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::bad(format!("limit: expected a number from 1 to {most}, found {limit}")))
        }
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, name: &'static str) -> OrProblem<bool> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// Words with commas in between, each one that `named` knows.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        named: impl Fn(&str) -> Option<T>,
        known: impl FnOnce() -> String,
    ) -> OrProblem<Vec<T>> {
        let Some(text) = self.text(name) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match named(word) {
                Some(one) => found.push(one),
                None => return Err(Problem::bad(format!("{name}: {word:?} is unknown; there are {}", known()))),
            }
        }
        Ok(found)
    }

    /// Which jobs are meant.
    pub(super) fn selection(&mut self) -> OrProblem<Selection> {
        let states = self.list("state", JobState::named, || JobState::ALL.map(JobState::as_str).join(", "))?;
        let class = |word: &str| word.parse::<ErrorClass>().ok().map(|class| class.as_str().to_owned());
        let classes = self.list("class", class, || {
            let all: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
            all.join(", ")
        })?;
        Ok(Selection {
            batch: self.text("batch"),
            project: self.text("project"),
            route: self.text("route"),
            login: self.text("login"),
            standing: JobFilter { states, classes, error: self.text("error") },
        })
    }

    /// Refuses names that were not read.
    pub(super) fn finish(self) -> OrProblem<()> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let known = if self.read.is_empty() { "nothing".to_owned() } else { self.read.join(", ") };
        Err(Problem::bad(format!("{name:?} is not known here; what is taken: {known}")))
    }
}

/// The selection in words: `of batch b, of class timeout`; empty when it takes every job.
pub(super) fn in_words(selection: &Selection) -> String {
    let mut words = String::new();
    let mut say = |what: &str, value: &str| {
        let comma = if words.is_empty() { "" } else { ", " };
        let _ = write!(words, "{comma}{what} {value}");
    };
    for (name, value) in pairs(selection) {
        match name {
            "state" => say("in state", &value),
            "error" => say("with an error that has", &format!("{value:?}")),
            name => say(&format!("of {name}"), &value),
        }
    }
    words
}

/// The selection as names and texts, as it is read from a query.
pub(super) fn pairs(selection: &Selection) -> Vec<(&'static str, String)> {
    let Selection { batch, project, route, login, standing } = selection;
    let states: Vec<&str> = standing.states.iter().map(|state| state.as_str()).collect();
    let mut pairs = Vec::new();
    let named = [("batch", batch), ("project", project), ("route", route), ("login", login)];
    pairs.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    pairs.extend((!states.is_empty()).then(|| ("state", states.join(","))));
    pairs.extend((!standing.classes.is_empty()).then(|| ("class", standing.classes.join(","))));
    pairs.extend(standing.error.clone().map(|error| ("error", error)));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Params {
        Params::of_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).unwrap()
    }

    #[test]
    fn a_selection_is_read_and_written_alike() {
        let all = [
            ("batch", "b"),
            ("project", "p"),
            ("route", "r"),
            ("login", "l"),
            ("state", "failed,queued"),
            ("class", "timeout,network"),
            ("error", "no such"),
        ];
        let mut params = of(&all);
        let selection = params.selection().unwrap();
        params.finish().unwrap();
        let written = pairs(&selection);
        assert_eq!(written, all.map(|(name, value)| (name, value.to_owned())).to_vec());
        let body = serde_json::json!({
            "batch": "b", "project": "p", "route": "r", "login": "l", "state": ["failed", "queued"],
            "class": "timeout, network", "error": "no such", "dry_run": true,
        });
        let mut params = Params::of_json(body.to_string().as_bytes()).unwrap();
        assert_eq!(params.selection().unwrap(), selection);
        assert_eq!(params.flag("dry_run"), Ok(true));
        params.finish().unwrap();
        assert_eq!(
            in_words(&selection),
            "of batch b, of project p, of route r, of login l, in state failed,queued, of class timeout,network, with \
             an error that has \"no such\""
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_was_expected() {
        let words = |problem: Problem| problem.detail;
        let unknown = |pairs: &[(&str, &str)]| of(pairs).selection().map(|_| ()).map_err(words).unwrap_err();
        assert!(unknown(&[("state", "done")]).contains("\"done\" is unknown; there are queued, running"));
        assert!(unknown(&[("class", "time_out")]).contains("there are "));
        let mut params = of(&[("bach", "b")]);
        params.selection().unwrap();
        assert!(params.finish().map_err(words).unwrap_err().starts_with("\"bach\" is not known here; what is taken: "));
        for (name, value) in [("limit", "0"), ("limit", "1001"), ("limit", "x"), ("limit", "-1")] {
            assert!(of(&[(name, value)]).limit(50, 1000).is_err(), "{value}");
        }
        assert_eq!(of(&[("limit", "")]).limit(50, 1000), Ok(50));
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(Params::of_pairs(twice).is_err());
        for body in ["[]", "{", "3", "{\"a\": {}}", "{\"a\": [1]}"] {
            assert!(Params::of_json(body.as_bytes()).is_err(), "{body}");
        }
    }
}
