//! A cache at the provider that got stuck: the same long text for different requests.

use super::fingerprint::{Fingerprint, fingerprint};
use super::{ChatRequest, ContentPart, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;

/// Shorter texts are labels, numbers and phrases, which many requests may share.
pub const LEAST_CHARACTERS: usize = 200;

/// So many different requests have the same answer before it counts as stuck.
const ENOUGH: usize = 5;

/// So many of the latest answers of a target are remembered.
const REMEMBERED: usize = 64;

/// So many long answers in a row that are no such text end it.
const RECOVERED: usize = 10;

/// After this time without such an answer nothing is known any more.
const LAPSE: Duration = Duration::from_hours(1);

/// The latest long answers of a target: hashes of questions and texts, of bounded number.
#[derive(Debug, Default)]
pub struct LatestAnswers {
    seen: VecDeque<(u64, u64)>,
    /// Set while the target gives one text to different requests.
    stuck: Option<OneForAll>,
}

/// One text that a target gives to different requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneForAll {
    /// How many different requests have lately had it.
    pub requests: usize,
    /// Since when.
    pub since: Timestamp,
    /// When it came last.
    last: Timestamp,
    /// How many other long answers have come since.
    others: usize,
}

impl LatestAnswers {
    /// Notes an answer. Returns to how many different requests, this one included, the target has lately given this
    /// very text, where those are too many.
    pub fn note(&mut self, question: u64, text: &str, now: Timestamp) -> Option<usize> {
        let answer = fingerprint(text.trim());
        if !self.seen.contains(&(question, answer)) {
            if self.seen.len() >= REMEMBERED {
                self.seen.pop_front();
            }
            self.seen.push_back((question, answer));
        }
        let same = self.seen.iter().filter(|(_, seen)| *seen == answer).count();
        let standing = self.standing(now);
        if same < ENOUGH {
            let others = |stuck: OneForAll| OneForAll { others: stuck.others.saturating_add(1), ..stuck };
            self.stuck = standing.map(others).filter(|stuck| stuck.others < RECOVERED);
            return None;
        }
        let since = standing.map_or(now, |stuck| stuck.since);
        self.stuck = Some(OneForAll { requests: same, since, last: now, others: 0 });
        Some(same)
    }

    /// What it gives to different requests; `None`: nothing, or it has stopped doing so.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Option<OneForAll> {
        self.stuck.filter(|stuck| stuck.last + LAPSE > now)
    }
}

/// What a request asks, as a number: its conversation, regardless of how it is to be answered. The same question may
/// well have the same answer.
#[must_use]
pub fn question(request: &ChatRequest) -> u64 {
    let mut question = Fingerprint::default();
    for part in request.messages.iter().flat_map(|message| &message.content) {
        question.take(match part {
            ContentPart::Text(text) => text,
            ContentPart::Image { url, .. } | ContentPart::File { url, .. } => url,
            ContentPart::Audio { data, .. } => data,
            // What it says is not known here: the whole request stands for it.
            ContentPart::Other(_) => &request.raw,
        });
    }
    question.number()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn the_same_text_for_five_different_requests_is_stuck() {
        let mut latest = LatestAnswers::default();
        let noted: Vec<Option<usize>> = (0..6).map(|asked| latest.note(asked, "The same.", NOW)).collect();
        assert_eq!(noted, [None, None, None, None, Some(5), Some(6)]);
        // Another text in between changes nothing, and is none of it.
        assert_eq!(latest.note(9, "Another.", NOW), None);
        assert_eq!(latest.note(10, " The same.\n", NOW), Some(7));
    }

    #[test]
    fn the_same_question_may_have_the_same_answer_as_often_as_it_comes() {
        let mut latest = LatestAnswers::default();
        assert!((0..100).all(|_| latest.note(1, "The same.", NOW).is_none()));
    }

    #[test]
    fn no_more_than_the_latest_answers_are_remembered() {
        let mut latest = LatestAnswers::default();
        for asked in 0..4 {
            latest.note(asked, "The same.", NOW);
        }
        for asked in 0..1_000 {
            assert_eq!(latest.note(asked, &asked.to_string(), NOW), None);
        }
        assert_eq!(latest.seen.len(), REMEMBERED);
        assert_eq!(latest.note(5, "The same.", NOW), None);
    }

    #[test]
    fn it_is_over_after_ten_other_texts_in_a_row_or_an_hour() {
        let stuck = || {
            let mut latest = LatestAnswers::default();
            for asked in 0..6 {
                assert_eq!(latest.standing(NOW).is_some(), asked == 5, "{asked}");
                latest.note(asked, "The same.", NOW);
            }
            latest
        };
        let told = |latest: &LatestAnswers, now| latest.standing(now).map(|stuck| (stuck.requests, stuck.since));
        let mut latest = stuck();
        assert_eq!(told(&latest, NOW), Some((6, NOW)));
        let later = NOW + Duration::from_mins(1);
        for asked in 10..19 {
            latest.note(asked, &asked.to_string(), later);
        }
        assert_eq!(told(&latest, later), Some((6, NOW)), "nine are not enough");
        latest.note(20, "The same.", later);
        assert_eq!(told(&latest, later), Some((7, NOW)), "it is still the same trouble");
        for asked in 30..40 {
            latest.note(asked, &asked.to_string(), later);
        }
        assert_eq!(told(&latest, later), None);
        let quiet = stuck();
        assert!(told(&quiet, NOW + LAPSE - Duration::from_millis(1)).is_some());
        assert_eq!(told(&quiet, NOW + LAPSE), None);
    }

    #[test]
    fn how_a_request_is_to_be_answered_makes_no_other_question() {
        let of = |body| question(&ChatRequest::parse(&body).unwrap());
        let base = of(json!({ "prompt": "x" }));
        assert_eq!(base, of(json!({ "prompt": "x", "seed": 7, "temperature": 0.5 })));
        assert_ne!(base, of(json!({ "prompt": "y" })));
    }
}
