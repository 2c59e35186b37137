//! Rules that send some jobs of a route along another one, by the facts known before the first call.

use super::language::{self, TextLanguage};
use super::metadata::Metadata;
use super::readable;
use super::request::{ChatRequest, ContentPart, ResponseFormat, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A rule of a route: jobs of which this holds go along another route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    pub when: When,
    /// The name of the other route.
    pub to: String,
}

/// What a rule asks of a job; everything that it names has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Its project is one of these.
    pub project: Option<Names>,
    /// Its batch is one of these.
    pub batch: Option<Names>,
    /// These members of its metadata are one of these each.
    pub metadata: BTreeMap<String, Names>,
    /// Its prompt has at least so many tokens, as estimated, …
    pub min_input_tokens: Option<i64>,
    /// … and at most so many.
    pub max_input_tokens: Option<i64>,
    /// Its request asks for all of these.
    pub needs: Needs,
    /// Its prompt is in one of these languages; none: any.
    pub language: Vec<TextLanguage>,
}

/// Texts of which one has to match; one that ends in `*` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Names {
    fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => name == text,
        })
    }

    /// Whether it matches everything that the other one matches.
    fn covers(&self, other: &Self) -> bool {
        let all_of = |name: &String| match name.strip_suffix('*') {
            Some(start) => self.0.iter().filter_map(|own| own.strip_suffix('*')).any(|own| start.starts_with(own)),
            None => self.matches(name),
        };
        other.0.iter().all(all_of)
    }
}

/// What a request asks of a model beside a text in answer to texts: for each of the words, whether it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs([bool; Needs::WORDS.len()]);

impl Needs {
    /// The words: tools; parts of messages that are no text; JSON as the answer, with or without a schema; vectors.
    pub const WORDS: [&'static str; 6] =
        ["tools", ContentPart::IMAGES, ContentPart::FILES, ContentPart::AUDIO, "json", "embeddings"];

    /// What a request asks for.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Self {
        let has =
            |kind: &str| request.messages.iter().flat_map(|message| &message.content).any(|part| part.kind() == kind);
        Self(Self::WORDS.map(|word| match word {
            "tools" => !request.tools.is_empty() || !request.other_tools.is_empty(),
            "json" => request.response_format.as_ref().is_some_and(|format| *format != ResponseFormat::Text),
            "embeddings" => request.embed.is_some(),
            kind => has(kind),
        }))
    }

    /// Those of these words; `None`: one is no such word.
    #[must_use]
    pub fn by_words(words: &[&str]) -> Option<Self> {
        let mut needs = Self::default();
        words.iter().all(|word| needs.add(word)).then_some(needs)
    }

    /// Adds one by its word. Returns whether there is such a word.
    pub fn add(&mut self, word: &str) -> bool {
        let place = Self::WORDS.iter().position(|known| *known == word);
        let Some(need) = place.and_then(|place| self.0.get_mut(place)) else { return false };
        *need = true;
        true
    }

    /// The words of what is asked for.
    fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().zip(self.0).filter(|(_, needed)| *needed).map(|(word, _)| word)
    }

    /// Whether all of the other's are among these.
    #[must_use]
    pub fn include(self, other: Self) -> bool {
        self.0.into_iter().zip(other.0).all(|(own, other)| own || !other)
    }
}

/// What rules see of a job.
#[derive(Clone, Copy, Debug)]
pub struct Traits<'a> {
    pub project: &'a str,
    pub batch: Option<&'a str>,
    /// The members that rules look at.
    pub metadata: &'a Metadata,
    /// Estimated tokens of the prompt.
    pub input_tokens: i64,
    pub needs: Needs,
    /// The language of the prompt; `None`: it cannot be told, or no rule looks at it.
    pub language: Option<TextLanguage>,
}

/// So many bytes of a prompt tell its language.
const PROMPT_BYTES: usize = 4_096;

/// The language of what a request asks: of its last messages of the user, up to some KB of them.
#[must_use]
pub fn language_of(request: &ChatRequest) -> Option<TextLanguage> {
    let mut prose = String::new();
    let asked = request.messages.iter().rev().filter(|message| message.role == Role::User);
    for text in asked.flat_map(|message| &message.content) {
        if let ContentPart::Text(text) = text {
            let end = text.floor_char_boundary(text.len().min(PROMPT_BYTES));
            prose.push_str(&language::prose_of(text.get(..end).unwrap_or_default()));
        }
        if prose.len() >= PROMPT_BYTES {
            break;
        }
    }
    TextLanguage::of(&prose)
}

/// Whether a rule holds for jobs of which only project and batch are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    ForAll,
    ForSome,
    ForNone,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |what: &str, names: &Names| format!("{what} is {}", names.0.join(" or "));
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.project.as_ref().map(|project| names("project", project)));
        parts.extend(self.batch.as_ref().map(|batch| names("batch", batch)));
        parts.extend(self.metadata.iter().map(|(member, wanted)| names(&format!("metadata.{member}"), wanted)));
        parts.extend(self.min_input_tokens.map(|least| format!("the prompt has at least {least} tokens")));
        parts.extend(self.max_input_tokens.map(|most| format!("the prompt has at most {most} tokens")));
        let words: Vec<&str> = self.needs.words().collect();
        parts.extend((!words.is_empty()).then(|| format!("the request asks for {}", words.join(" and "))));
        let languages: Vec<String> = self.language.iter().map(ToString::to_string).collect();
        parts.extend((!languages.is_empty()).then(|| format!("the prompt is in {}", languages.join(" or "))));
        f.write_str(if parts.is_empty() { "it is any job" } else { "" })?;
        f.write_str(&parts.join(", and "))
    }
}

impl When {
    /// Whether it holds for a job.
    #[must_use]
    pub fn holds(&self, job: &Traits<'_>) -> bool {
        let member = |(name, wanted): (&String, &Names)| job.metadata.get(name).is_some_and(|is| wanted.matches(is));
        self.of_lane(job.project, job.batch) != Holds::ForNone
            && self.metadata.iter().all(member)
            && self.min_input_tokens.is_none_or(|least| job.input_tokens >= least)
            && self.max_input_tokens.is_none_or(|most| job.input_tokens <= most)
            && job.needs.include(self.needs)
            && (self.language.is_empty()
                || job.language.is_some_and(|is| self.language.iter().any(|wanted| wanted.is_or_is_near(is))))
    }

    /// Whether it holds for the jobs of a project and batch.
    #[must_use]
    pub fn of_lane(&self, project: &str, batch: Option<&str>) -> Holds {
        let in_project = self.project.as_ref().is_none_or(|names| names.matches(project));
        let in_batch = self.batch.as_ref().is_none_or(|names| batch.is_some_and(|batch| names.matches(batch)));
        let asks_more = !self.metadata.is_empty()
            || self.min_input_tokens.is_some()
            || self.max_input_tokens.is_some()
            || self.needs != Needs::default()
            || !self.language.is_empty();
        match (in_project && in_batch, asks_more) {
            (false, _) => Holds::ForNone,
            (true, false) => Holds::ForAll,
            (true, true) => Holds::ForSome,
        }
    }

    /// Whether it holds for every job for which the other one holds.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let names = |own: Option<&Names>, other: Option<&Names>| {
            own.is_none_or(|own| other.is_some_and(|other| own.covers(other)))
        };
        let mut members = self.metadata.iter();
        names(self.project.as_ref(), other.project.as_ref())
            && names(self.batch.as_ref(), other.batch.as_ref())
            && members.all(|(name, own)| names(Some(own), other.metadata.get(name)))
            && self.min_input_tokens.unwrap_or(0) <= other.min_input_tokens.unwrap_or(0)
            && self.max_input_tokens.unwrap_or(i64::MAX) >= other.max_input_tokens.unwrap_or(i64::MAX)
            && other.needs.include(self.needs)
            && (self.language.is_empty()
                || (!other.language.is_empty() && other.language.iter().all(|one| self.language.contains(one))))
    }
}

/// A rule that a job met: of which route, at which place (counted from 0), and the route that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    #[serde(deserialize_with = "readable::or_default")]
    pub route: String,
    #[serde(deserialize_with = "readable::or_default")]
    pub rule: usize,
    #[serde(deserialize_with = "readable::or_default")]
    pub to: String,
    /// The budget past whose soft threshold it was; `None`: a rule led there.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(budget) = &self.budget {
            return write!(
                f,
                "the budget {budget} is past its soft threshold, which led from {} to {}",
                self.route, self.to
            );
        }
        write!(f, "rules[{}] of route {} led to {}", self.rule, self.route, self.to)
    }
}

/// The first rule that holds for a job.
#[must_use]
pub fn first<'a>(forks: &'a [Fork], job: &Traits<'_>) -> Option<(usize, &'a Fork)> {
    forks.iter().enumerate().find(|(_, fork)| fork.when.holds(job))
}

/// How often jobs of a route lately went along each route that its rules lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    counts: BTreeMap<String, u32>,
}

/// After this many jobs the older half weighs half.
const REMEMBERED: u32 = 512;

impl Ways {
    /// Counts one job.
    pub fn note(&mut self, to: &str) {
        match self.counts.get_mut(to) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(to.to_owned(), 1)),
        }
        if self.counts.values().sum::<u32>() >= REMEMBERED {
            self.counts.values_mut().for_each(|count| *count /= 2);
        }
    }

    /// How much each of these routes weighs; one that no job has taken yet weighs as one job.
    #[must_use]
    pub fn weight(&self, to: &str) -> f64 {
        f64::from(self.counts.get(to).copied().unwrap_or(0).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Names {
        Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn job(project: &'static str, batch: Option<&'static str>, metadata: &Metadata, tokens: i64) -> bool {
        let job = Traits { project, batch, metadata, input_tokens: tokens, needs: Needs::default(), language: None };
        let metadata = [("tier".to_owned(), Names(vec!["gold".into(), "3".into()]))].into();
        let project = Some(names(&["acme", "test*"]));
        let when =
            When { project, metadata, min_input_tokens: Some(10), max_input_tokens: Some(99), ..When::default() };
        when.holds(&job)
    }

    #[test]
    fn everything_that_a_rule_names_has_to_hold() {
        let gold = Metadata::new(["tier".to_owned()].into(), vec![Some("gold".into())]);
        let tin = Metadata::new(["tier".to_owned()].into(), vec![Some("tin".into())]);
        assert!(job("acme", None, &gold, 10) && job("test7", Some("b"), &gold, 99));
        assert!(!job("acme2", None, &gold, 10), "another project");
        assert!(!job("acme", None, &tin, 10) && !job("acme", None, &Metadata::default(), 10));
        assert!(!job("acme", None, &gold, 9) && !job("acme", None, &gold, 100));
    }

    #[test]
    fn a_rule_about_batches_holds_for_no_job_without_one() {
        let when = When { batch: Some(names(&["*"])), ..When::default() };
        assert_eq!((when.of_lane("p", None), when.of_lane("p", Some("b"))), (Holds::ForNone, Holds::ForAll));
        let some = When { needs: Needs::by_words(&["tools"]).unwrap(), ..when };
        assert_eq!((some.of_lane("p", None), some.of_lane("p", Some("b"))), (Holds::ForNone, Holds::ForSome));
    }

    #[test]
    fn what_a_request_needs_is_read_from_it() {
        let of = |request: &str| Needs::of(&ChatRequest::read_text(request).unwrap());
        assert_eq!(of(r#"{"prompt":"Hi"}"#), Needs::default());
        let tools = r#"{"prompt":"Hi","tools":[{"type":"function","function":{"name":"f"}}]}"#;
        assert_eq!(of(tools), Needs::by_words(&["tools"]).unwrap());
        let json = r#"{"prompt":"Hi","response_format":{"type":"json_object"}}"#;
        assert_eq!(of(json), Needs::by_words(&["json"]).unwrap());
        assert_eq!(of(r#"{"prompt":"Hi","response_format":{"type":"text"}}"#), Needs::default());
        let image =
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a/b"}}]}]}"#;
        assert_eq!(of(image), Needs::by_words(&["images"]).unwrap());
        let sound = r#"{"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}},
            {"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}]}]}"#;
        assert_eq!(of(sound), Needs::by_words(&["audio", "files"]).unwrap());
        assert_eq!(of(r#"{"input":"Hi"}"#), Needs::by_words(&["embeddings"]).unwrap());
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let fork = |project: Option<Names>, to: &str| Fork { when: When { project, ..When::default() }, to: to.into() };
        let forks = [
            fork(Some(names(&["a"])), "one"),
            fork(Some(names(&["a", "b"])), "two"),
            fork(Some(names(&["c"])), "three"),
        ];
        let to = |project| {
            let metadata = &Metadata::default();
            let job =
                Traits { project, batch: None, metadata, input_tokens: 1, needs: Needs::default(), language: None };
            first(&forks, &job).map(|(index, fork)| (index, fork.to.as_str()))
        };
        assert_eq!(
            (to("a"), to("b"), to("c"), to("d")),
            (Some((0, "one")), Some((1, "two")), Some((2, "three")), None)
        );
    }

    #[test]
    fn the_ways_of_late_count_more_than_those_of_old() {
        let mut ways = Ways::default();
        assert!((ways.weight("a") - 1.0).abs() < f64::EPSILON);
        (0..2_000).for_each(|_| ways.note("a"));
        (0..2_000).for_each(|_| ways.note("b"));
        assert!(ways.weight("b") > ways.weight("a") * 20.0, "{ways:?}");
    }

    fn some_names() -> impl Strategy<Value = Option<Names>> {
        let name = prop::sample::select(vec!["a", "ab", "b", "a*", "ab*", "*"]).prop_map(str::to_owned);
        prop::option::of(prop::collection::vec(name, 1..3).prop_map(Names))
    }

    fn whens() -> impl Strategy<Value = When> {
        let tokens = || prop::option::weighted(0.3, 0..6_i64);
        let needs = any::<[bool; 6]>().prop_map(Needs);
        let language = prop::collection::vec(languages(), 0..3);
        (some_names(), some_names(), some_names(), tokens(), tokens(), needs, language).prop_map(
            |(project, batch, member, min_input_tokens, max_input_tokens, needs, language)| When {
                project,
                batch,
                metadata: member.map(|names| ("m".to_owned(), names)).into_iter().collect(),
                min_input_tokens,
                max_input_tokens,
                needs,
                language,
            },
        )
    }

    /// Two that are near each other, and one that is not.
    fn languages() -> impl Strategy<Value = TextLanguage> {
        prop::sample::select(vec!["hr", "sr", "de"]).prop_map(|code| TextLanguage::parse(code).unwrap())
    }

    #[test]
    fn the_language_of_a_prompt_is_that_of_the_last_words_of_the_user() {
        let german = "Wie heißt der Bahnhof, an dem der Zug nach Hamburg am Morgen zuerst hält, und wann kommt er an?";
        let english = "Please answer the question of the traveller in one short sentence, and do not add anything.";
        let request = |messages: serde_json::Value| ChatRequest::parse(&serde_json::json!({ "messages": messages }));
        let of = |messages| language_of(&request(messages).unwrap()).map(|language| language.to_string());
        let message = |role: &str, text: &str| serde_json::json!({ "role": role, "content": text });
        let asked = serde_json::json!([message("system", english), message("user", german)]);
        assert_eq!(of(asked).as_deref(), Some("German"));
        let long = serde_json::json!([message("user", &english.repeat(99)), message("user", &german.repeat(99))]);
        assert_eq!(of(long).as_deref(), Some("German"));
        assert_eq!(of(serde_json::json!([message("user", "42?")])), None);
        let when = When { language: vec![TextLanguage::parse("de").unwrap()], ..When::default() };
        assert_eq!((when.to_string().as_str(), when.of_lane("p", None)), ("the prompt is in German", Holds::ForSome));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A rule that is covered by an earlier one meets no job that the earlier one does not meet.
        #[test]
        fn what_covers_a_rule_holds_wherever_the_rule_holds(
            (one, other) in (whens(), whens()),
            (project, batch) in (prop::sample::select(vec!["a", "ab", "abc", "b"]), prop::option::of(Just("ab"))),
            (member, tokens) in (prop::option::of(prop::sample::select(vec!["a", "ab", "c"])), 0..7_i64),
            needs in any::<[bool; 6]>(),
            language in prop::option::of(languages()),
        ) {
            let metadata = Metadata::new(["m".to_owned()].into(), vec![member.map(str::to_owned)]);
            let job =
                Traits { project, batch, metadata: &metadata, input_tokens: tokens,
                    needs: Needs(needs), language };
            prop_assert!(!(one.covers(&other) && other.holds(&job)) || one.holds(&job));
            prop_assert!(one.covers(&one));
            match one.of_lane(project, batch) {
                Holds::ForAll => prop_assert!(one.holds(&job)),
                Holds::ForNone => prop_assert!(!one.holds(&job)),
                Holds::ForSome => {}
            }
        }
    }
}
