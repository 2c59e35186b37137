//! Why a call went where it went, and how the request was changed for it: `decision` of an attempt on the ledger.
//!
//! A worker writes it, and every reader of the ledger reads it, including what an older or a newer worker wrote. The
//! names of the JSON members and the words in them are a contract.

mod ordering;

use super::decide::{Ineligible, Skip, Worth};
use super::fork::Taken;
use super::larger_cap::RaisedCap;
use super::quality::Weakness;
use super::shut::Reason;
use super::{Timestamp, readable};
pub use ordering::{OrderedRung, Ordering};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

/// The version that this program writes.
pub const VERSION: u32 = 1;

/// Why one call was made as it was. A call without an explanation went to the first rung of the job's order, with the
/// whole request and the provider's only key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// [`VERSION`] of the writer; 0: a row from before versions, with the members of version 1.
    #[serde(deserialize_with = "readable::or_default")]
    pub version: u32,
    /// The rungs before it in the job's order, and why each was not called.
    #[serde(deserialize_with = "readable::items")]
    pub skipped: Vec<SkippedRung>,
    /// Members of the request that were not sent as they came.
    #[serde(deserialize_with = "readable::items")]
    pub dropped: Vec<String>,
    /// The name of the key that was used, where the name says something.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Parts of the request's JSON schema against which no answer is checked.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
    /// When one call asks the provider again, which has asked for a wait that is too long to be believed (`retry_at` of
    /// the attempt).
    #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
    pub asks_again_at: Option<Timestamp>,
    /// The order in which the job tried the rungs of its route; `None`: the called rung was the first by price or by
    /// list, or the only one, or the worker did not note it.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub order: Option<Ordering>,
    /// What came of the stream as which the answer was asked for; `None`: none was asked for.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub streamed: Option<Streamed>,
    /// What the route added to the request, so that the provider keeps its beginning.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// How many milliseconds the job waited for another one's call with the same beginning; `None`: it did not.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub prefix_wait_ms: Option<u64>,
    /// What the job waited for before the call, the latest last, as far as the worker knew it.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub waited: Vec<Waited>,
    /// The pack with which it shared the call; `None`: the call was its own.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub pack: Option<Packed>,
    /// The output cap that the call had in place of the one that cut an answer; `None`: the usual one.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub raised_cap: Option<RaisedCap>,
    /// The rules that led the job from its route to the one whose rungs it tried, in turn.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Taken>,
}

impl Explanation {
    /// Reads the explanation of a ledger row. Members that cannot be read are left out.
    #[must_use]
    pub fn read(decision: &Value) -> Self {
        if decision.is_object() { Self::deserialize(decision).unwrap_or_default() } else { Self::default() }
    }
}

/// A wait that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// What it was for, in the words of [`awaited`](super::awaited) or of a [`FixedWait`](super::pause::FixedWait).
    #[serde(rename = "for")]
    pub awaited: String,
    /// How many milliseconds it took; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

/// Waits of less than this, added up, are not told.
pub const WORTH_TELLING: Duration = Duration::from_secs(1);

/// No more waits than this are told of one call.
const MOST_WAITS: usize = 4;

impl Waited {
    /// Adds a wait to those before it. Waits for the same in turn are one.
    pub fn note(waits: &mut Vec<Self>, awaited: String, took: Option<Duration>) {
        let ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        match waits.last_mut() {
            Some(last) if last.awaited == awaited => {
                last.ms = last.ms.zip(ms).map(|(before, more)| before.saturating_add(more));
            }
            _ => {
                if waits.len() == MOST_WAITS {
                    waits.remove(0);
                }
                waits.push(Self { awaited, ms });
            }
        }
    }

    /// The waits that are worth telling.
    #[must_use]
    pub fn told(mut waits: Vec<Self>) -> Vec<Self> {
        waits.retain(|wait| wait.ms.is_none_or(|ms| u128::from(ms) >= WORTH_TELLING.as_millis()));
        waits
    }
}

/// An answer that was asked for as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// Whether it came to its end.
    pub whole: bool,
    /// How many characters had come of one that did not.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub characters: u64,
}

/// A call that several jobs shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// How many jobs.
    pub jobs: u64,
    /// How many inputs they had together.
    #[serde(default)]
    pub inputs: u64,
    /// Its failure says nothing of this job, which is asked again in a smaller pack or alone. It counts as no attempt.
    #[serde(default, skip_serializing_if = "is_no")]
    pub parted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_no(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_nothing(number: &u64) -> bool {
    *number == 0
}

/// A rung that was not called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRung {
    /// Its target; `None`: the route has no such rung any more.
    #[serde(default, deserialize_with = "readable::or_default")]
    pub target: Option<String>,
    /// Why the rung was not called.
    #[serde(flatten)]
    pub why: Why,
}

/// Why a rung was not called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// The request does not fit its context window.
    ContextWindow {
        /// Tokens needed, estimated.
        needed: i64,
        /// Tokens there are.
        window: i64,
    },
    /// The request is larger than a limit ever allows at once.
    BucketTooSmall {
        /// The unit that the limit counts, by its code; rows of earlier versions have it in words.
        unit: Cow<'static, str>,
        /// The amount that the request takes of it, estimated.
        needed: i64,
        /// The most that the limit allows.
        size: i64,
    },
    /// The target lacks something the request asks for.
    Unsupported {
        /// The missing ability.
        what: String,
    },
    /// The call may cost more than a whole budget; in billionths of a dollar.
    OverBudget {
        budget: String,
        /// The most that the call may cost.
        worst: i64,
        /// The most that the budget allows in all.
        limit: i64,
    },
    /// Its price is unknown, and the budget lets no such call be made.
    Unpriced { budget: String },
    /// The calls of the job might cost more than `max_cost` of its route; in billionths of a dollar.
    OverCost {
        /// What its calls had cost or might have cost; none: unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spent: Option<i64>,
        /// The most that the call may cost; none: its price is unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worst: Option<i64>,
        /// The most that they may cost together.
        limit: i64,
    },
    /// The rung failed this job before.
    Failed { class: Cow<'static, str> },
    /// The rung rested after a failure of this job.
    BackingOff {
        /// When the rest ended.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// The rung rested after a failure of this job, for longer than the deadline left.
    TooLate {
        /// When the rest ended.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// The latest instant at which a call could have begun.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        latest: Option<Timestamp>,
    },
    /// The rung was being asked, and had not answered: the call was made beside that one.
    UnderWay {
        /// Since when it was being asked.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// The rung was shut for all jobs.
    #[serde(untagged)]
    Shut {
        /// The reason for which it was shut.
        #[serde(rename = "why")]
        reason: Reason,
        /// When it was to open.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Why the job did not wait for the rung; `None`: the worker did not note that.
        #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
        passed_over: Option<PassedOver>,
        /// When patience ended.
        #[serde(default, with = "instant", skip_serializing_if = "Option::is_none")]
        patience_until: Option<Timestamp>,
        /// What was counted against it, in words, where it works and answers badly.
        #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
        found: Option<String>,
    },
    /// The reason of another version, whole.
    #[serde(untagged)]
    Unknown(Map<String, Value>),
}

impl Why {
    /// The reason in a word: for a failure its error class, else the word that stands in `why`.
    #[must_use]
    pub fn word(&self) -> Cow<'static, str> {
        match self {
            Self::ContextWindow { .. } => "context_window".into(),
            Self::BucketTooSmall { .. } => "bucket_too_small".into(),
            Self::Unsupported { .. } => "unsupported".into(),
            Self::OverBudget { .. } => "over_budget".into(),
            Self::Unpriced { .. } => "unpriced".into(),
            Self::OverCost { .. } => "over_cost".into(),
            Self::Failed { class } => class.clone(),
            Self::BackingOff { .. } => "backing_off".into(),
            Self::TooLate { .. } => "too_late".into(),
            Self::UnderWay { .. } => "under_way".into(),
            Self::Shut { reason, .. } => reason.as_str().into(),
            Self::Unknown(_) => "unknown".into(),
        }
    }
}

/// Why a job did not wait for a rung that was shut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedOver {
    /// The route waits for no cheaper rung.
    NoPatience,
    /// Patience had ended, or would have ended before the rung opened.
    PatienceOver,
    /// The deadline left less patience than the route allows.
    DeadlineNear,
    /// Waiting does not open the rung.
    WaitingIsPointless,
    /// It could be called, and a rung after it that could be called answered better.
    BetterRung,
    /// The reason of another version.
    #[serde(untagged)]
    Unknown(String),
}

impl From<&Skip> for Why {
    fn from(skip: &Skip) -> Self {
        match skip {
            Skip::Shut { shut, worth } => {
                let (passed_over, patience_until) = match *worth {
                    // The job waits for such a rung, and so never passes it.
                    Worth::Patience { .. } | Worth::NoFallback => (None, None),
                    Worth::NoPatience => (Some(PassedOver::NoPatience), None),
                    Worth::PatienceOver { at } => (Some(PassedOver::PatienceOver), Some(at)),
                    Worth::DeadlineNear { at } => (Some(PassedOver::DeadlineNear), Some(at)),
                    Worth::Pointless => (Some(PassedOver::WaitingIsPointless), None),
                };
                Self::Shut { reason: shut.reason, until: Some(shut.until), passed_over, patience_until, found: None }
            }
            Skip::Weak(Weakness { shut, found }) => Self::Shut {
                reason: shut.reason,
                until: Some(shut.until),
                passed_over: Some(PassedOver::BetterRung),
                patience_until: None,
                found: found.as_ref().map(ToString::to_string),
            },
            Skip::Ineligible(fault) => fault.into(),
            Skip::Failed(class) => Self::Failed { class: class.as_str().into() },
            Skip::BackingOff { until } => Self::BackingOff { until: Some(*until) },
            Skip::TooLate { until, latest } => Self::TooLate { until: Some(*until), latest: Some(*latest) },
            Skip::UnderWay { since } => Self::UnderWay { since: Some(*since) },
        }
    }
}

impl From<&Ineligible> for Why {
    fn from(fault: &Ineligible) -> Self {
        match fault {
            Ineligible::ContextWindow { needed, window } => Self::ContextWindow { needed: *needed, window: *window },
            Ineligible::BucketTooSmall { unit, needed, size } => {
                Self::BucketTooSmall { unit: unit.as_str().into(), needed: *needed, size: *size }
            }
            Ineligible::Unsupported(what) => Self::Unsupported { what: what.clone() },
            Ineligible::OverBudget { budget, worst, limit } => {
                Self::OverBudget { budget: budget.clone(), worst: worst.0, limit: limit.0 }
            }
            Ineligible::Unpriced { budget } => Self::Unpriced { budget: budget.clone() },
            Ineligible::OverCost { spent, worst, limit } => {
                Self::OverCost { spent: spent.map(|spent| spent.0), worst: worst.map(|worst| worst.0), limit: limit.0 }
            }
        }
    }
}

/// Instants as JSON has them: RFC 3339 in UTC. One that cannot be read counts as absent.
mod instant {
    use crate::domain::{Timestamp, readable};
    use chrono::{DateTime, Utc};
    use serde::{Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands the member over like this")]
    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, json: S) -> Result<S::Ok, S::Error> {
        let at = at.map(|at| DateTime::from_timestamp_millis(at.0).unwrap_or(DateTime::<Utc>::MAX_UTC));
        at.serialize(json)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Timestamp>, D::Error> {
        let at: Option<DateTime<Utc>> = readable::or_default(json)?;
        Ok(at.map(|at| Timestamp(at.timestamp_millis())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::breaker::Evidence;
    use crate::domain::shut::Shut;
    use crate::domain::{ErrorClass, NanoUsd, Unit};
    use serde_json::json;

    const UNTIL: Timestamp = Timestamp(1_800_000_000_000);
    const ENDED: Timestamp = Timestamp(1_799_999_940_000);

    fn shut(reason: Reason, worth: Worth) -> Skip {
        Skip::Shut { shut: Shut { reason, since: ENDED, until: UNTIL }, worth }
    }

    /// Every kind of reason, in the form in which it has always been stored.
    fn stored() -> Vec<(Skip, Value)> {
        let (until, ended) = ("2027-01-15T08:00:00Z", "2027-01-15T07:59:00Z");
        let limit = |worth| shut(Reason::RateLimit, worth);
        let mut all = vec![
            (limit(Worth::NoPatience), json!({ "why": "rate_limit", "until": until, "passed_over": "no_patience" })),
            (
                limit(Worth::PatienceOver { at: ENDED }),
                json!({
                    "why": "rate_limit", "until": until, "passed_over": "patience_over", "patience_until": ended,
                }),
            ),
            (
                limit(Worth::DeadlineNear { at: ENDED }),
                json!({
                    "why": "rate_limit", "until": until, "passed_over": "deadline_near", "patience_until": ended,
                }),
            ),
            (
                limit(Worth::Pointless),
                json!({ "why": "rate_limit", "until": until, "passed_over": "waiting_is_pointless" }),
            ),
            (limit(Worth::NoFallback), json!({ "why": "rate_limit", "until": until })),
            (
                Skip::Ineligible(Ineligible::ContextWindow { needed: 9000, window: 8192 }),
                json!({ "why": "context_window", "needed": 9000, "window": 8192 }),
            ),
            (
                Skip::Ineligible(Ineligible::BucketTooSmall { unit: Unit::InputTokens, needed: 9, size: 8 }),
                json!({ "why": "bucket_too_small", "unit": "input_tokens", "needed": 9, "size": 8 }),
            ),
            (
                Skip::Ineligible(Ineligible::Unsupported("tools".to_owned())),
                json!({ "why": "unsupported", "what": "tools" }),
            ),
            (
                Skip::Ineligible(Ineligible::OverBudget {
                    budget: "news".to_owned(),
                    worst: NanoUsd(9),
                    limit: NanoUsd(8),
                }),
                json!({ "why": "over_budget", "budget": "news", "worst": 9, "limit": 8 }),
            ),
            (
                Skip::Ineligible(Ineligible::Unpriced { budget: "news".to_owned() }),
                json!({ "why": "unpriced", "budget": "news" }),
            ),
            (
                Skip::Weak(Weakness {
                    shut: Shut { reason: Reason::Quality, since: ENDED, until: UNTIL },
                    found: Some(Evidence::of_failures(9, 10)),
                }),
                json!({
                    "why": "quality", "until": until, "passed_over": "better_rung",
                    "found": "9 of the last 10 calls failed",
                }),
            ),
            (Skip::Failed(ErrorClass::Timeout), json!({ "why": "failed", "class": "timeout" })),
            (Skip::BackingOff { until: UNTIL }, json!({ "why": "backing_off", "until": until })),
            (
                Skip::TooLate { until: UNTIL, latest: ENDED },
                json!({ "why": "too_late", "until": until, "latest": ended }),
            ),
            (Skip::UnderWay { since: ENDED }, json!({ "why": "under_way", "since": ended })),
        ];
        for (reason, word) in [
            (Reason::Concurrency, "concurrency"),
            (Reason::NoCapacity, "no_capacity"),
            (Reason::PeakHours, "peak_hours"),
            (Reason::Breaker, "breaker_open"),
            (Reason::AskedToWait, "asked_to_wait"),
            (Reason::Offline, "offline"),
            (Reason::QuotaExhausted, "quota_exhausted"),
            (Reason::Auth, "auth"),
            (Reason::KeysInDoubt, "keys_in_doubt"),
            (Reason::Model, "model"),
            (Reason::Paused, "paused"),
            (Reason::Budget, "budget"),
            (Reason::HealthProbe, "health_probe"),
            (Reason::Slow, "slow"),
            (Reason::Quality, "quality"),
        ] {
            all.push((shut(reason, Worth::NoFallback), json!({ "why": word, "until": until })));
        }
        all
    }

    #[test]
    fn every_reason_is_written_in_the_words_that_were_always_stored_and_is_read_again() {
        for (skip, mut expected) in stored() {
            expected["target"] = json!("p/m");
            let rung = SkippedRung { target: Some("p/m".to_owned()), why: Why::from(&skip) };
            let explanation = Explanation { version: VERSION, skipped: vec![rung], ..Explanation::default() };
            let written = serde_json::to_value(&explanation).unwrap();
            assert_eq!(written, json!({ "version": 1, "skipped": [expected], "dropped": [] }), "{skip:?}");
            assert_eq!(Explanation::read(&written), explanation);
            let why = &explanation.skipped[0].why;
            let word = if let Why::Failed { class } = why { class.clone().into() } else { expected["why"].clone() };
            assert_eq!(json!(why.word()), word);
        }
    }

    #[test]
    fn whom_a_call_was_shared_with_is_told_and_that_its_failure_is_none_of_the_jobs_own() {
        for (pack, written) in [
            (Packed { jobs: 64, inputs: 70, parted: false }, json!({ "jobs": 64, "inputs": 70 })),
            (Packed { jobs: 2, inputs: 2, parted: true }, json!({ "jobs": 2, "inputs": 2, "parted": true })),
        ] {
            let explanation = Explanation { pack: Some(pack), ..Explanation::default() };
            let value = serde_json::to_value(&explanation).unwrap();
            assert_eq!(value["pack"], written);
            assert_eq!(Explanation::read(&value), explanation);
        }
        for strange in [json!(true), json!({ "jobs": "many" }), json!(null)] {
            assert_eq!(Explanation::read(&json!({ "pack": strange, "key": "A" })).key.as_deref(), Some("A"));
        }
    }

    #[test]
    fn what_came_of_a_stream_is_told_and_strange_words_of_it_are_left_out() {
        for (streamed, written) in [
            (Streamed { whole: true, characters: 0 }, json!({ "whole": true })),
            (Streamed { whole: false, characters: 1_234 }, json!({ "whole": false, "characters": 1_234 })),
        ] {
            let explanation = Explanation { streamed: Some(streamed), ..Explanation::default() };
            let value = serde_json::to_value(&explanation).unwrap();
            assert_eq!(value["streamed"], written);
            assert_eq!(Explanation::read(&value), explanation);
        }
        for strange in [json!(true), json!({ "whole": "half" }), json!(null)] {
            assert_eq!(Explanation::read(&json!({ "streamed": strange, "key": "A" })).key.as_deref(), Some("A"));
        }
    }

    #[test]
    fn waits_for_the_same_are_one_and_short_ones_are_not_told() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let mut waits = vec![Waited { awaited: "paused".to_owned(), ms: None }];
        for (awaited, took) in [("a", seconds(1)), ("a", seconds(2)), ("b", seconds(0)), ("c", seconds(3))] {
            Waited::note(&mut waits, awaited.to_owned(), took);
        }
        let told: Vec<_> = Waited::told(waits.clone()).into_iter().map(|wait| (wait.awaited, wait.ms)).collect();
        let expected = [("paused", None), ("a", Some(3000)), ("c", Some(3000))];
        assert_eq!(told, expected.map(|(awaited, ms)| (awaited.to_owned(), ms)));
        for index in 0..100 {
            Waited::note(&mut waits, index.to_string(), seconds(1));
        }
        assert_eq!((waits.len(), waits[3].awaited.as_str()), (MOST_WAITS, "99"));
        let written = serde_json::to_value(Explanation { waited: waits.clone(), ..Explanation::default() }).unwrap();
        assert_eq!(written["waited"][3], json!({ "for": "99", "ms": 1000 }));
        assert_eq!(Explanation::read(&written).waited, waits);
    }

    #[test]
    fn what_was_stored_before_there_were_versions_is_read() {
        let old = json!({
            "skipped": [{ "target": null, "why": "paused" }, { "target": "a/b", "why": "too_late" }],
            "dropped": ["logit_bias"], "key": "A", "unchecked": ["/not"],
        });
        let shut =
            Why::Shut { reason: Reason::Paused, until: None, passed_over: None, patience_until: None, found: None };
        let expected = Explanation {
            version: 0,
            skipped: vec![
                SkippedRung { target: None, why: shut },
                SkippedRung { target: Some("a/b".to_owned()), why: Why::TooLate { until: None, latest: None } },
            ],
            dropped: vec!["logit_bias".to_owned()],
            key: Some("A".to_owned()),
            unchecked: vec!["/not".to_owned()],
            asks_again_at: None,
            order: None,
            raised_cap: None,
            streamed: None,
            added: Vec::new(),
            prefix_wait_ms: None,
            waited: Vec::new(),
            pack: None,
            rules: Vec::new(),
        };
        assert_eq!(Explanation::read(&old), expected);
    }

    #[test]
    fn what_another_version_may_say_is_kept_or_left_out_and_the_rest_is_read() {
        let strange = json!({ "why": "of_tomorrow", "until": "2027-01-15T08:00:00Z", "moon": { "is": "full" } });
        let mut skipped = strange.clone();
        skipped["target"] = json!("p/m");
        let said = json!({
            "version": 9,
            "skipped": [
                skipped, 7, { "target": ["p"], "why": "auth", "until": "soon", "passed_over": "for_fun" },
                { "target": "p/m", "why": "context_window", "needed": "many" }, { "target": "p/m" },
            ],
            "dropped": { "what": 1 }, "key": 3, "more": [],
        });
        let read = Explanation::read(&said);
        assert_eq!((read.version, read.skipped.len(), read.dropped.len(), read.key), (9, 4, 0, None));
        let why: Vec<&Why> = read.skipped.iter().map(|rung| &rung.why).collect();
        let Value::Object(members) = strange else { unreachable!() };
        assert_eq!(why[0], &Why::Unknown(members));
        let for_fun = Some(PassedOver::Unknown("for_fun".to_owned()));
        let auth =
            Why::Shut { reason: Reason::Auth, until: None, passed_over: for_fun, patience_until: None, found: None };
        assert_eq!((why[1], read.skipped[1].target.as_deref()), (&auth, None));
        assert!(matches!(why[2], Why::Unknown(members) if members["needed"] == "many"), "{:?}", why[2]);
        assert!(matches!(why[3], Why::Unknown(members) if members.is_empty()), "{:?}", why[3]);
        for nonsense in [json!(null), json!(7), json!([]), json!([1, 2]), json!("x"), json!({})] {
            assert_eq!(Explanation::read(&nonsense), Explanation::default(), "{nonsense}");
        }
    }

    #[test]
    fn when_a_provider_is_asked_again_is_kept_and_an_instant_that_cannot_be_read_is_left_out() {
        let explanation = Explanation { version: VERSION, asks_again_at: Some(UNTIL), ..Explanation::default() };
        let written = serde_json::to_value(&explanation).unwrap();
        assert_eq!(written["asks_again_at"], "2027-01-15T08:00:00Z");
        assert_eq!(Explanation::read(&written), explanation);
        assert_eq!(Explanation::read(&json!({ "asks_again_at": "soon" })).asks_again_at, None);
    }

    #[test]
    fn an_instant_that_never_comes_is_written_all_the_same() {
        let never = Why::BackingOff { until: Some(Timestamp::MAX) };
        let written = serde_json::to_value(&never).unwrap();
        assert!(written["until"].as_str().is_some_and(|until| until.starts_with("+262142")), "{written}");
    }
}
