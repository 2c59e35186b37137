//! The story of one job, from the ledger: the job, each of its attempts, and their cost.

use super::attempt::{AnswerView, AttemptView};
use super::course::CourseView;
use super::dollars::Dollars;
use super::job::{JobView, PlaceView};
use super::race;
use super::time::clock;
use crate::domain::NanoUsd;
use crate::domain::counted::counted;
use crate::domain::job::JobState;
use crate::store::job::{AttemptRecord, JobRecord, KeptAnswer, Place};
use serde::Serialize;
use std::fmt::Write as _;

/// A job with its ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoryView {
    #[serde(flatten)]
    pub job: JobView,
    /// Its attempts, in the order in which they were begun.
    pub attempts: Vec<AttemptView>,
    /// The rungs that the present configuration has for it; `None`: it has no such route, or is not at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course: Option<CourseView>,
    pub total: SpentView,
    /// Why its shadow ended without asking the other target; `None`: it was asked, or may be yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow_not_asked: Option<String>,
}

/// The cost of a job so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpentView {
    /// Calls made.
    pub attempts: usize,
    /// The cost; `None`: the price of an attempt is unknown.
    pub cost: Option<Dollars>,
    /// The cost of the attempts whose price is known.
    pub known_cost: Dollars,
    /// Money that may have been spent beside that.
    pub uncertain_cost: Dollars,
    /// Attempts whose price is unknown.
    pub unpriced: usize,
}

impl SpentView {
    fn of(attempts: &[AttemptRecord]) -> Self {
        let unpriced = attempts.iter().filter(|attempt| attempt.cost_nanos.is_none()).count();
        let (mut known, mut uncertain) = (NanoUsd::ZERO, NanoUsd::ZERO);
        for attempt in attempts {
            known += NanoUsd(attempt.cost_nanos.unwrap_or(0));
            uncertain += NanoUsd(attempt.uncertain_nanos);
        }
        Self {
            attempts: attempts.len(),
            cost: (unpriced == 0).then_some(Dollars(known)),
            known_cost: Dollars(known),
            uncertain_cost: Dollars(uncertain),
            unpriced,
        }
    }
}

impl StoryView {
    /// A job and its ledger, the oldest row first, with the rungs that the configuration has for it.
    #[must_use]
    pub fn of(job: JobView, attempts: Vec<AttemptRecord>, course: Option<CourseView>) -> Self {
        let total = SpentView::of(&attempts);
        let attempts = race::in_order(attempts.into_iter().map(AttemptView::from).collect());
        Self { job, attempts, course, total, shadow_not_asked: None }
    }

    /// Takes in the job that is its shadow.
    pub fn take_shadow(&mut self, shadow: &JobRecord) {
        let Place::Ended(ended) = &shadow.place else { return };
        if ended.target.is_none() && ended.answered_from.is_none() {
            let why = ended.error.clone().or_else(|| ended.error_class.clone());
            self.shadow_not_asked = Some(why.unwrap_or_else(|| "it was cancelled".to_owned()));
        }
    }

    /// Adds the answers that the ledger has.
    pub fn take_answers(&mut self, answers: Vec<KeptAnswer>) {
        for answer in answers {
            let is_its = |of: &&mut AttemptView| {
                of.answer.is_none() && of.number == answer.number && of.started_at == answer.started_at
            };
            if let Some(attempt) = self.attempts.iter_mut().find(is_its) {
                attempt.answer = Some(AnswerView::of(answer));
            }
        }
    }

    /// The whole story, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let job = &self.job;
        let mut lines = vec![self.headline()];
        let mut born = format!("Enqueued {} by {}", clock(job.created_at), job.enqueued_by);
        if let Some(run_at) = job.run_at {
            let _ = write!(born, ", not to run before {}", clock(run_at));
        }
        if let Some(deadline) = job.deadline {
            let _ = write!(born, ", to be done by {}", clock(deadline));
        }
        lines.push(born);
        lines.extend(job.shadow_of.map(|of| {
            format!("It is the shadow of job {of}, which has its own answer: this one is compared and not used")
        }));
        if let Some(course) = &self.course {
            lines.push(String::new());
            course.tell(&mut lines);
        }
        let mut free_since = job.run_at.map_or(job.created_at, |run_at| run_at.max(job.created_at));
        let mut round = 0;
        let mut before: Option<&AttemptView> = None;
        for attempt in &self.attempts {
            if let Some(again) = before.and_then(|before| attempt.same_as(before, free_since)) {
                lines.push(again);
                free_since = free_since.max(attempt.ended_at);
                before = Some(attempt);
                continue;
            }
            lines.push(String::new());
            if attempt.round != round {
                lines.push(format!("Tried anew by hand: round {}", attempt.round));
                round = attempt.round;
            }
            let ordered = self.course.as_ref().filter(|course| course.ordered);
            attempt.tell(free_since, race::beside(&self.attempts, attempt), ordered, &mut lines);
            free_since = free_since.max(attempt.ended_at);
            before = Some(attempt);
        }
        lines.push(String::new());
        lines.push(self.ending());
        let advice = self.job.why.as_ref().and_then(|why| why.advice.as_ref());
        lines.extend(advice.map(|advice| format!("   do: {advice}")));
        lines.extend(race::outcome(&self.attempts));
        lines.push(self.spent());
        lines.extend(job.shadow.map(|shadow| match &self.shadow_not_asked {
            Some(why) => format!("Shadow: job {shadow} was to ask another target for the same, and did not: {why}"),
            None => format!(
                "Shadow: job {shadow} asks another target for the same; it costs apart, and its answer is not used"
            ),
        }));
        lines
    }

    fn headline(&self) -> String {
        let job = &self.job;
        let state = match job.state {
            _ if matches!(job.place, PlaceView::Nowhere { .. }) => "is in no queue",
            JobState::Succeeded => "has succeeded",
            JobState::Failed => "has failed",
            JobState::Cancelled => "was cancelled",
            JobState::Running => "is running",
            JobState::Queued => "is queued",
        };
        let mut line = format!("Job {} {state}: route {}, project {}", job.job, job.route, job.project);
        if let Some(batch) = &job.batch {
            let _ = write!(line, ", batch {batch}");
        }
        if let Some(custom_id) = &job.custom_id {
            let _ = write!(line, ", custom id {custom_id}");
        }
        line
    }

    fn ending(&self) -> String {
        let PlaceView::Ended(end) = &self.job.place else { return format!("It is {}", self.job.whereabouts()) };
        let mut line = match self.job.state {
            JobState::Cancelled => format!("It was cancelled at {}", clock(end.finished_at)),
            state => format!("It {state} at {}", clock(end.finished_at)),
        };
        if let Some(target) = &end.answered_by {
            let _ = write!(line, ", answered by {target}");
        }
        if let Some(earlier) = end.answered_from {
            let _ = write!(line, " for job {earlier}, whose request was the same: no call was made");
        }
        if end.repaired {
            line.push_str("; the answer was repaired without loss");
        }
        if end.low_confidence {
            line.push_str("; its rung was not sure enough of it, and no surer answer came");
        }
        if let Some(class) = &end.error_class {
            let _ = write!(line, ": {class}, {}", end.error.as_deref().unwrap_or("no reason was noted"));
        }
        line
    }

    fn spent(&self) -> String {
        let SpentView { attempts, known_cost, uncertain_cost, unpriced, .. } = self.total;
        let mut line = format!("Total: {} in {}", known_cost.0, counted(attempts, "attempt", "attempts"));
        if unpriced > 0 {
            let _ = write!(line, ", and the unknown cost of {unpriced} of them");
        }
        if uncertain_cost.0 > NanoUsd::ZERO {
            let _ = write!(line, ", and perhaps up to {} more", uncertain_cost.0);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::job::Ended;
    use crate::view::job::Bodies;
    use chrono::{DateTime, Utc};
    use serde_json::json;

    fn told(job: JobRecord, attempts: Vec<AttemptRecord>) -> String {
        StoryView::of(JobView::of(job, Bodies::default()), attempts, None).lines().join("\n")
    }

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-31T{text}Z").parse().unwrap()
    }

    fn job(place: Place) -> JobRecord {
        JobRecord {
            obstacle: None,
            shadow: None,
            shadow_of: None,
            id: 42,
            route: "default".to_owned(),
            project: "acme".to_owned(),
            batch: Some("nightly".to_owned()),
            custom_id: None,
            priority: 0,
            run_at: None,
            deadline: None,
            max_attempts: None,
            enqueued_by: "app".to_owned(),
            created_at: at("08:00:00"),
            metadata: None,
            request: json!({ "prompt": "a secret" }),
            place,
        }
    }

    fn attempt(number: i16) -> AttemptRecord {
        AttemptRecord {
            number,
            round: 0,
            provider: "deepseek".to_owned(),
            model: "deepseek-chat".to_owned(),
            rung: Some(0),
            started_at: at("08:00:00.100"),
            ended_at: at("08:00:00.220"),
            first_byte_ms: None,
            total_ms: 120,
            accepted: false,
            class: Some("rate_limit".to_owned()),
            detail: None,
            http_status: Some(429),
            code: None,
            message: Some("slow down".to_owned()),
            retry_at: Some(at("08:00:30")),
            request_id: None,
            model_served: None,
            finish: None,
            usage_source: "provider".to_owned(),
            input_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 0,
            reasoning_tokens: 0,
            cost_nanos: Some(0),
            uncertain_nanos: 0,
            price: None,
            decision: None,
            service_tier: None,
            reported_cost_nanos: None,
            computed_cost_nanos: None,
            cost_differs: false,
            repriced_at: None,
            repriced_from: None,
            cost_source: None,
            notes: None,
            has_answer: false,
            reask_of: None,
            confidence: None,
        }
    }

    fn answer(number: i16) -> AttemptRecord {
        AttemptRecord {
            provider: "openai".to_owned(),
            model: "gpt-4o-mini".to_owned(),
            started_at: at("08:00:10"),
            ended_at: at("08:00:11.240"),
            first_byte_ms: Some(310),
            total_ms: 1240,
            accepted: true,
            class: None,
            http_status: Some(200),
            message: None,
            retry_at: None,
            model_served: Some("gpt-4o-mini-2024-07-18".to_owned()),
            finish: Some("stop".to_owned()),
            input_tokens: 100,
            cache_read_tokens: 20,
            output_tokens: 300,
            cost_nanos: Some(195_000),
            price: Some(json!({ "input": 150_000_000, "output": 600_000_000 })),
            decision: Some(json!({
                "skipped": [{ "target": "deepseek/deepseek-chat", "why": "rate_limit",
                    "until": "2026-01-31T08:00:30Z" }],
                "dropped": ["logit_bias"],
            })),
            ..attempt(number)
        }
    }

    #[test]
    fn the_story_of_a_fallback_reads_from_top_to_bottom() {
        let ended = Ended {
            state: JobState::Succeeded,
            at: at("08:00:11.250"),
            target: Some("openai/gpt-4o-mini".to_owned()),
            repaired: false,
            answered_from: None,
            low_confidence: false,
            error_class: None,
            error: None,
            cost: Some(NanoUsd(195_000)),
            uncertain: NanoUsd::ZERO,
            response: None,
        };
        let story = told(job(Place::Ended(Box::new(ended))), vec![attempt(1), answer(2)]);
        assert_eq!(
            story,
            "\
Job 42 has succeeded: route default, project acme, batch nightly
Enqueued 2026-01-31T08:00:00.000Z by app

#1 deepseek/deepseek-chat at 2026-01-31T08:00:00.100Z
   it was the first choice
   failed after 120 ms: rate_limit; HTTP 429
   “slow down”
   it asked to be left alone until 2026-01-31T08:00:30.000Z
   cost $0.00

#2 openai/gpt-4o-mini at 2026-01-31T08:00:10.000Z, after waiting 9.78 s
   not deepseek/deepseek-chat: its limit was used up until 2026-01-31T08:00:30.000Z
   not sent to it as it came: logit_bias
   accepted after 1.24 s (first byte after 310 ms); finish stop; served by gpt-4o-mini-2024-07-18
   120 tokens in (20 from the cache), 300 out
   cost $0.000195 at $0.15 in, $0.60 out per million tokens

It succeeded at 2026-01-31T08:00:11.250Z, answered by openai/gpt-4o-mini
Total: $0.000195 in 2 attempts"
        );
        assert!(!story.contains("secret"));
    }

    #[test]
    fn the_same_failure_again_takes_one_line() {
        let again = AttemptRecord {
            number: 2,
            started_at: at("08:00:05"),
            ended_at: at("08:00:05.300"),
            total_ms: 300,
            retry_at: None,
            request_id: Some("req_2".to_owned()),
            ..attempt(1)
        };
        let first = AttemptRecord { retry_at: None, ..attempt(1) };
        let place = || Place::Ready { crashes: 0, waits_for: None, opens: None };
        let story = told(job(place()), vec![first.clone(), again.clone()]);
        let words = "\n   cost $0.00\n#2 the same again at 2026-01-31T08:00:05.000Z, after waiting 4.78 s, and 300 ms; \
                     request id req_2\n";
        assert!(story.contains(words), "{story}");
        for other in [
            AttemptRecord { model: "other".to_owned(), ..again.clone() },
            AttemptRecord { message: Some("other".to_owned()), ..again.clone() },
            AttemptRecord { cost_nanos: Some(1), ..again.clone() },
            AttemptRecord { round: 1, ..again.clone() },
            AttemptRecord { retry_at: Some(at("08:00:30")), ..again.clone() },
            AttemptRecord { has_answer: true, ..again.clone() },
            AttemptRecord { decision: Some(json!({ "key": "B" })), ..again.clone() },
        ] {
            let story = told(job(place()), vec![first.clone(), other]);
            assert!(!story.contains("the same again"), "{story}");
        }
    }

    #[test]
    fn an_unknown_price_is_said_and_not_summed_as_zero() {
        let unpriced = AttemptRecord { cost_nanos: None, price: None, ..answer(1) };
        let story = told(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), vec![unpriced]);
        assert!(story.contains("cost unknown: the price was not known"), "{story}");
        assert!(story.contains("and the unknown cost of 1 of them"), "{story}");
        assert!(story.contains("It is queued"), "{story}");
    }

    #[test]
    fn what_was_mended_and_who_named_the_cost_is_told() {
        let mended = AttemptRecord {
            price: None,
            cost_source: Some("reported".to_owned()),
            service_tier: Some("flex".to_owned()),
            notes: Some(json!(["reasoning before the answer was cut off (12 characters)"])),
            has_answer: true,
            ..answer(1)
        };
        let story = told(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), vec![mended]);
        for words in [
            "; tier flex",
            "cost $0.000195, as the provider says: the price was not known\n",
            "note: reasoning before the answer was cut off (12 characters)\n",
            "the answer as it came: `answer` of this attempt in sluice.attempts\n",
        ] {
            assert!(story.contains(words), "{words}: {story}");
        }
        let both =
            AttemptRecord { cost_source: Some("price".to_owned()), reported_cost_nanos: Some(200_000), ..answer(1) };
        let story = told(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), vec![both]);
        assert!(story.contains("per million tokens; the provider says $0.0002\n"), "{story}");
    }

    #[test]
    fn a_call_that_was_abandoned_is_not_called_rejected() {
        for (class, detail, words) in [
            ("abandoned", "late", "not used, after 120 ms: abandoned, late"),
            ("abandoned", "worker_died", "not used, after 120 ms: abandoned, worker_died"),
            ("output_invalid", "empty", "rejected after 120 ms: output_invalid, empty"),
        ] {
            let attempt =
                AttemptRecord { class: Some(class.to_owned()), detail: Some(detail.to_owned()), ..attempt(1) };
            let story = told(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), vec![attempt]);
            assert!(story.contains(&format!("\n   {words}")), "{story}");
        }
    }

    #[test]
    fn calls_of_a_race_are_told_in_the_order_in_which_they_were_begun() {
        let call = |number, model: &str, started: &str, asked: &[(&str, &str)]| {
            let skipped = asked.iter().map(|(target, since)| {
                json!({ "target": target, "why": "under_way", "since": format!("2026-01-31T{since}Z") })
            });
            AttemptRecord {
                model: model.to_owned(),
                started_at: at(started),
                ended_at: at("08:00:09"),
                decision: Some(json!({ "skipped": skipped.collect::<Vec<_>>() })),
                ..attempt(number)
            }
        };
        let order = |attempts: Vec<AttemptRecord>| {
            let job = JobView::of(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), Bodies::default());
            let story = StoryView::of(job, attempts, None);
            story.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>()
        };
        // The second was sent first, and the third before both.
        let one = ("deepseek/one", "08:00:00.100");
        let two = ("deepseek/two", "08:00:00.100");
        assert_eq!(
            order(vec![
                call(3, "three", "08:00:00.101", &[one, two]),
                call(2, "two", "08:00:00.102", &[one]),
                call(1, "one", "08:00:00.103", &[]),
            ]),
            [1, 2, 3]
        );
        // A later call to the same rung was begun later.
        assert_eq!(
            order(vec![
                call(1, "one", "08:00:00.101", &[]),
                call(2, "two", "08:00:00.102", &[one]),
                call(3, "one", "08:00:05", &[two]),
            ]),
            [1, 2, 3]
        );
    }

    #[test]
    fn a_rejected_answer_is_shown_on_request_and_within_bounds() {
        let rejected = AttemptRecord {
            class: Some("output_invalid".to_owned()),
            detail: Some("empty".to_owned()),
            has_answer: true,
            ..attempt(1)
        };
        let job = JobView::of(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), Bodies::default());
        let mut story = StoryView::of(job, vec![rejected.clone(), AttemptRecord { number: 2, ..rejected }], None);
        assert!(!story.lines().join("\n").contains('│'));
        let text = format!("one\ntwo{}", "\nmore".repeat(100));
        story.take_answers(vec![KeptAnswer { number: 2, started_at: at("08:00:00.100"), text, length: 1_000 }]);
        let told = story.lines().join("\n");
        assert!(told.contains("   its answer:\n   │ one\n   │ two\n   │ more\n"), "{told}");
        let cut = "   … 42 more lines, and then 493 more characters: `answer` of this attempt in sluice.attempts\n";
        assert!(told.contains(cut), "{told}");
        assert_eq!(told.matches("its answer").count(), 1);
        let shown = serde_json::to_value(&story).unwrap();
        assert_eq!(shown["attempts"][1]["answer"]["left_out"], 493);
        assert!(shown["attempts"][0].get("answer").is_none());
    }

    #[test]
    fn the_key_of_a_call_is_named_where_the_ledger_names_it() {
        let decision = Some(json!({ "skipped": [], "dropped": [], "key": "OPENAI_B" }));
        let story = told(
            job(Place::Ready { crashes: 0, waits_for: None, opens: None }),
            vec![AttemptRecord { decision, ..attempt(1) }],
        );
        assert!(story.contains("it was the first choice\n   it was called with the key OPENAI_B\n"), "{story}");
    }

    #[test]
    fn the_wait_that_a_provider_asks_for_and_the_call_that_asks_again_before_are_told_apart() {
        let week = AttemptRecord {
            retry_at: Some("2026-02-07T08:00:00Z".parse().unwrap()),
            decision: Some(json!({ "skipped": [], "dropped": [], "asks_again_at": "2026-01-31T08:10:00Z" })),
            ..attempt(1)
        };
        let story = told(job(Place::Ready { crashes: 0, waits_for: None, opens: None }), vec![week]);
        let line = "   it asked to be left alone until 2026-02-07T08:00:00.000Z; one call asks again at \
                    2026-01-31T08:10:00.000Z, because that is more than a day away\n";
        assert!(story.contains(line), "{story}");
    }

    #[test]
    fn a_shared_call_is_told_and_why_its_failure_counts_against_none() {
        let told = |pack: serde_json::Value| {
            let decision = Some(json!({ "skipped": [], "dropped": [], "pack": pack }));
            let place = Place::Ready { crashes: 0, waits_for: None, opens: None };
            told(job(place), vec![AttemptRecord { decision, ..attempt(1) }])
        };
        let story = told(json!({ "jobs": 64, "inputs": 70 }));
        assert!(story.contains("   it shared its call with 63 other jobs (70 inputs in all)\n"), "{story}");
        let story = told(json!({ "jobs": 2, "inputs": 2, "parted": true }));
        let words = "   it shared its call with 1 other job (2 inputs in all); what became of that may be the fault of \
                     another, so it counts against none: the job is asked again with fewer others, or alone\n";
        assert!(story.contains(words), "{story}");
    }

    #[test]
    fn what_no_answer_is_checked_against_is_told() {
        let decision = Some(json!({ "skipped": [], "dropped": [], "unchecked": ["/properties/code/pattern", "/not"] }));
        let story = told(
            job(Place::Ready { crashes: 0, waits_for: None, opens: None }),
            vec![AttemptRecord { decision, ..attempt(1) }],
        );
        let told = "not checked in its answer, of the request's JSON schema: /properties/code/pattern, /not\n";
        assert!(story.contains(told), "{story}");
    }

    #[test]
    fn who_ran_beside_whom_and_what_the_lost_calls_cost_is_told() {
        let lost = |number, cost_nanos, uncertain_nanos| AttemptRecord {
            started_at: at("08:00:09"),
            ended_at: at("08:00:11.240"),
            class: Some("abandoned".to_owned()),
            detail: Some("lost_race".to_owned()),
            retry_at: None,
            cost_nanos,
            uncertain_nanos,
            ..attempt(number)
        };
        let place = || Place::Ready { crashes: 0, waits_for: None, opens: None };
        let story = told(job(place()), vec![attempt(1), lost(2, Some(0), 5_000_000), answer(3)]);
        for words in [
            "it was the first choice\n   it ran beside #3 (openai/gpt-4o-mini)\n   not used, after 120 ms: abandoned, \
             lost_race",
            "logit_bias\n   it ran beside #2 (deepseek/deepseek-chat)\n   accepted",
            "\n#3 won the race; the call that lost it cost $0.00, and perhaps up to $0.005 more\nTotal: ",
        ] {
            assert!(story.contains(words), "{words}: {story}");
        }
        assert_eq!(story.matches("ran beside").count(), 2, "#1 had ended before: {story}");
        let both = told(job(place()), vec![lost(1, Some(7_000_000), 0), lost(2, None, 0), answer(3)]);
        assert!(both.contains("; the 2 calls that lost it cost $0.007, and an unknown amount\n"), "{both}");
        let none = told(job(place()), vec![attempt(1), answer(2)]);
        assert!(!none.contains("race") && !none.contains("beside"), "{none}");
    }

    #[test]
    fn a_retry_by_hand_and_money_at_risk_are_told() {
        let second = AttemptRecord { round: 1, uncertain_nanos: 5_000_000, ..attempt(2) };
        let story = told(job(Place::Ready { crashes: 1, waits_for: None, opens: None }), vec![attempt(1), second]);
        assert!(story.contains("Tried anew by hand: round 1"), "{story}");
        assert!(story.contains("perhaps up to $0.005 more"), "{story}");
    }

    #[test]
    fn a_shadow_that_was_never_asked_says_why() {
        let ended = |target: Option<&str>, error: Option<&str>| {
            Place::Ended(Box::new(Ended {
                state: JobState::Failed,
                at: at("08:00:20"),
                target: target.map(str::to_owned),
                repaired: false,
                answered_from: None,
                low_confidence: false,
                error_class: error.map(|_| "never_fits".to_owned()),
                error: error.map(str::to_owned),
                cost: Some(NanoUsd::ZERO),
                uncertain: NanoUsd::ZERO,
                response: None,
            }))
        };
        let told = |place: Place| {
            let record = JobRecord { shadow: Some(1407), ..job(ended(Some("openai/gpt-4o-mini"), None)) };
            let mut story = StoryView::of(JobView::of(record, Bodies::default()), vec![answer(1)], None);
            story.take_shadow(&job(place));
            story.lines().join("\n")
        };
        let asks = "Shadow: job 1407 asks another target for the same";
        assert!(told(ended(Some("two/m"), Some("it failed"))).contains(asks));
        let unasked = told(ended(None, Some("one call may cost $0.02, and its limit is $0.01")));
        let expected = "Shadow: job 1407 was to ask another target for the same, and did not: one call may cost $0.02";
        assert!(unasked.contains(expected) && !unasked.contains(asks), "{unasked}");
    }
}
