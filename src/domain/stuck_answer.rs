//! A cache at the provider that got stuck: the same long text for different requests.

use super::{ChatRequest, ContentPart};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Shorter texts are labels, numbers and phrases, which many requests may share.
pub const LEAST_CHARACTERS: usize = 200;

/// So many different requests have the same answer before it counts as stuck.
const ENOUGH: usize = 5;

/// So many of the latest answers of a target are remembered.
const REMEMBERED: usize = 64;

/// The latest long answers of a target: hashes of questions and texts, of bounded number.
#[derive(Debug, Default)]
pub struct LatestAnswers {
    seen: VecDeque<(u64, u64)>,
}

impl LatestAnswers {
    /// Notes an answer. Returns to how many different requests, this one included, the target has lately given this
    /// very text, where those are too many.
    pub fn note(&mut self, question: u64, text: &str) -> Option<usize> {
        let answer = hash(|hasher| text.trim().hash(hasher));
        if !self.seen.contains(&(question, answer)) {
            if self.seen.len() >= REMEMBERED {
                self.seen.pop_front();
            }
            self.seen.push_back((question, answer));
        }
        let same = self.seen.iter().filter(|(_, seen)| *seen == answer).count();
        (same >= ENOUGH).then_some(same)
    }
}

/// What a request asks, as a number: its conversation, regardless of how it is to be answered. The same question may
/// well have the same answer.
#[must_use]
pub fn question(request: &ChatRequest) -> u64 {
    hash(|hasher| {
        for part in request.messages.iter().flat_map(|message| &message.content) {
            match part {
                ContentPart::Text(text) => text.hash(hasher),
                ContentPart::Image { url, .. } | ContentPart::File { url, .. } => url.hash(hasher),
                ContentPart::Audio { data, .. } => data.hash(hasher),
                // What it says is not known here: the whole request stands for it.
                ContentPart::Other(_) => request.raw.hash(hasher),
            }
        }
    })
}

fn hash(what: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_text_for_five_different_requests_is_stuck() {
        let mut latest = LatestAnswers::default();
        let noted: Vec<Option<usize>> = (0..6).map(|asked| latest.note(asked, "The same.")).collect();
        assert_eq!(noted, [None, None, None, None, Some(5), Some(6)]);
        // Another text in between changes nothing, and is none of it.
        assert_eq!(latest.note(9, "Another."), None);
        assert_eq!(latest.note(10, " The same.\n"), Some(7));
    }

    #[test]
    fn the_same_question_may_have_the_same_answer_as_often_as_it_comes() {
        let mut latest = LatestAnswers::default();
        assert!((0..100).all(|_| latest.note(1, "The same.").is_none()));
    }

    #[test]
    fn no_more_than_the_latest_answers_are_remembered() {
        let mut latest = LatestAnswers::default();
        for asked in 0..4 {
            latest.note(asked, "The same.");
        }
        for asked in 0..1_000 {
            assert_eq!(latest.note(asked, &asked.to_string()), None);
        }
        assert_eq!(latest.seen.len(), REMEMBERED);
        assert_eq!(latest.note(5, "The same."), None);
    }

    #[test]
    fn how_a_request_is_to_be_answered_makes_no_other_question() {
        let of = |body| question(&ChatRequest::parse(&body).unwrap());
        let base = of(json!({ "prompt": "x" }));
        assert_eq!(base, of(json!({ "prompt": "x", "seed": 7, "temperature": 0.5 })));
        assert_ne!(base, of(json!({ "prompt": "y" })));
    }
}
