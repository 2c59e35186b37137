//! What a request says beside its path: in the query, in a form, or as a JSON object. The names are the same in all
//! three. An unknown name is refused, since a filter with a mistyped name would mean other jobs.

use super::problem::{OrProblem, Problem};
use crate::domain::ErrorClass;
use crate::domain::job::JobState;
use crate::store::batch::JobFilter;
use crate::store::selection::Selection;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Names and values that have not been read yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Params {
    left: BTreeMap<String, Said>,
    read: Vec<&'static str>,
    /// The first value that was of another kind than what was read.
    fault: Option<Problem>,
}

/// A value as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// A text of a query or a form, which have no other kind. An empty field is none.
    Words(String),
    /// A text in JSON.
    Text(String),
    /// A number or a flag in JSON, as it was written.
    Number(String),
    Flag(bool),
    Texts(Vec<String>),
    Null,
}

impl Said {
    fn of(name: &str, value: Value) -> OrProblem<Self> {
        let fault = || Problem::bad(format!("{name} is neither a text, a number, a flag nor a list of texts"));
        Ok(match value {
            Value::Null => Self::Null,
            Value::String(text) => Self::Text(text),
            Value::Bool(flag) => Self::Flag(flag),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::Array(texts) => {
                let text = |value| if let Value::String(text) = value { Ok(text) } else { Err(fault()) };
                Self::Texts(texts.into_iter().map(text).collect::<OrProblem<_>>()?)
            }
            Value::Object(_) => return Err(fault()),
        })
    }

    /// What it is, for people.
    fn kind(&self) -> String {
        match self {
            Self::Words(text) | Self::Text(text) => format!("the text {text:?}"),
            Self::Number(number) => format!("the number {number}"),
            Self::Flag(flag) => format!("the flag {flag}"),
            Self::Texts(_) => "a list".to_owned(),
            Self::Null => "null".to_owned(),
        }
    }

    fn has_nul(&self) -> bool {
        match self {
            Self::Words(text) | Self::Text(text) => text.contains('\0'),
            Self::Texts(texts) => texts.iter().any(|text| text.contains('\0')),
            Self::Number(_) | Self::Flag(_) | Self::Null => false,
        }
    }
}

/// The members of a JSON object, as many of a name as there are.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl Params {
    /// The pairs of a query or a form.
    pub(super) fn of_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> OrProblem<Self> {
        Self::of(pairs.into_iter().map(|(name, value)| Ok((name, Said::Words(value)))))
    }

    /// The members of a JSON object; no body at all is an empty one.
    pub(super) fn of_json(body: &[u8]) -> OrProblem<Self> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let Ok(Members(members)) = serde_json::from_slice(body) else {
            return Err(Problem::bad("the body is no JSON object"));
        };
        Self::of(members.into_iter().map(|(name, value)| {
            let said = Said::of(&name, value)?;
            Ok((name, said))
        }))
    }

    fn of(members: impl IntoIterator<Item = OrProblem<(String, Said)>>) -> OrProblem<Self> {
        let mut left = BTreeMap::new();
        for member in members {
            let (name, said) = member?;
            if name.contains('\0') || said.has_nul() {
                let name = name.replace('\0', "\u{fffd}");
                return Err(Problem::bad(format!("{name}: a text cannot have the character NUL")));
            }
            if left.insert(name.clone(), said).is_some() {
                return Err(Problem::bad(format!("{name} is given twice")));
            }
        }
        Ok(Self { left, ..Self::default() })
    }

    fn take(&mut self, name: &'static str) -> Option<Said> {
        self.read.push(name);
        self.left.remove(name)
    }

    /// Remembers that a value is of another kind.
    fn expected(&mut self, name: &str, expected: &str, said: &Said) -> Problem {
        let problem = Problem::bad(format!("{name}: expected {expected}, found {}", said.kind()));
        self.fault.get_or_insert(problem).clone()
    }

    /// Why a text that is needed is not there: it is of another kind, or, in these words, missing.
    pub(super) fn missing(&self, words: &str) -> Problem {
        self.fault.clone().unwrap_or_else(|| Problem::bad(words))
    }

    /// A text, or a number, which stands for its digits. An empty text, as an empty field of a form sends it, is none.
    /// [`Self::finish`] refuses a value of another kind.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Said::Words(text) | Said::Text(text) | Said::Number(text) => {
                Some(text).filter(|text| !text.trim().is_empty())
            }
            Said::Null => None,
            said => {
                self.expected(name, "a text", &said);
                None
            }
        }
    }

    /// A text that says which jobs are meant. In JSON an empty one is a mistake: left out, it would mean more jobs.
    fn name_of_jobs(&mut self, name: &'static str) -> Option<String> {
        if matches!(self.left.get(name), Some(Said::Text(text)) if text.trim().is_empty()) {
            self.expected(name, "a name", &Said::Text(String::new()));
        }
        self.text(name)
    }

    /// A text that is still to be read.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        match self.left.get(name)? {
            Said::Words(text) | Said::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, or another value, whose form `expected` names.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> OrProblem<Option<T>> {
        let text = match self.take(name) {
            None | Some(Said::Null) => return Ok(None),
            Some(Said::Words(text) | Said::Text(text) | Said::Number(text)) => text,
            Some(said) => return Err(self.expected(name, expected, &said)),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
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

    /// Yes or no; no if it is not said. JSON has a word of its own for it: a text in its place is a mistake, and so is
    /// null, by which a client may mean either.
    pub(super) fn flag(&mut self, name: &'static str) -> OrProblem<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Said::Flag(flag)) => Ok(flag),
            Some(Said::Words(text)) if text.trim().is_empty() => Ok(false),
            Some(said) => match &said {
                Said::Words(text) if matches!(text.trim(), "true" | "false") => Ok(text.trim() == "true"),
                said => Err(self.expected(name, "true or false", said)),
            },
        }
    }

    /// Words with commas in between, each one that `named` knows.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        named: impl Fn(&str) -> Option<T>,
        known: impl FnOnce() -> String,
    ) -> OrProblem<Vec<T>> {
        let said = self.take(name);
        let words: Vec<&str> = match &said {
            None | Some(Said::Null) => return Ok(Vec::new()),
            Some(Said::Words(text)) => text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect(),
            Some(Said::Text(text)) => text.split(',').map(str::trim).collect(),
            Some(Said::Texts(texts)) => texts.iter().map(String::as_str).collect(),
            Some(said) => return Err(self.expected(name, "a list of texts", said)),
        };
        let mut found = Vec::new();
        for word in words {
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
            batch: self.name_of_jobs("batch"),
            project: self.name_of_jobs("project"),
            route: self.name_of_jobs("route"),
            login: self.name_of_jobs("login"),
            standing: JobFilter { states, classes, error: self.name_of_jobs("error") },
        })
    }

    /// Refuses names that were not read, and values of another kind than what was.
    pub(super) fn finish(self) -> OrProblem<()> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
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
        for body in ["[]", "{", "3", r#"{"a": {}}"#, r#"{"a": [1]}"#, r#"{"a": 1, "a": 2}"#, r#"{"a": "\u0000"}"#] {
            assert!(Params::of_json(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Params::of_pairs([("a".to_owned(), "b\0".to_owned())]).is_err());
    }

    #[test]
    fn in_json_a_value_of_another_kind_is_refused_and_not_taken_for_what_it_may_mean() {
        let body = |body: &str| Params::of_json(body.as_bytes()).unwrap();
        let flag = |text: &str| body(text).flag("all").map_err(|problem| problem.detail);
        assert_eq!(flag(r#"{"all": true}"#), Ok(true));
        assert_eq!(flag(r#"{"all": false}"#), Ok(false));
        assert_eq!(flag("{}"), Ok(false));
        for (text, found) in [
            (r#"{"all": "true"}"#, "the text \"true\""),
            (r#"{"all": null}"#, "null"),
            (r#"{"all": 1}"#, "the number 1"),
            (r#"{"all": ["true"]}"#, "a list"),
        ] {
            assert_eq!(flag(text), Err(format!("all: expected true or false, found {found}")));
        }
        assert_eq!(of(&[("all", "true")]).flag("all"), Ok(true), "a form has texts only");
        assert!(of(&[("all", "yes")]).flag("all").is_err());
        for text in [
            r#"{"batch": ["a", "b"]}"#,
            r#"{"batch": ""}"#,
            r#"{"project": true}"#,
            r#"{"state": ""}"#,
            r#"{"state": "failed,"}"#,
            r#"{"state": 7}"#,
            r#"{"class": [""]}"#,
        ] {
            let mut params = body(text);
            let read = params.selection();
            assert!(read.is_err() || params.finish().is_err(), "{text}");
        }
        let mut params = body(r#"{"reason": ["a"], "limit": 25}"#);
        assert_eq!((params.text("reason"), params.text("limit").as_deref()), (None, Some("25")));
        assert_eq!(params.missing("reason is missing").detail, "reason: expected a text, found a list");
        let mut params = body(r#"{"batch": null, "state": [], "below": "7", "limit": 9}"#);
        assert_eq!(params.selection().unwrap(), Selection::default());
        assert_eq!((params.parsed::<i64>("below", "a number"), params.limit(1, 10)), (Ok(Some(7)), Ok(9)));
        params.finish().unwrap();
    }
}
