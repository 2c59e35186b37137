//! `sluice explain`: the story of one job, from the ledger.

use super::GlobalArgs;
use super::context::Context;
use super::job::{as_json, find, whereabouts};
use super::output::{Cell, Format};
use crate::domain::price::special_tier;
use crate::domain::shut::Reason;
use crate::domain::{JobId, NanoUsd, Unit};
use crate::exit_code::ExitCode;
use crate::store::job::{AttemptRecord, JobRecord, Place};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A pause between two attempts that is worth a line.
const WORTH_TELLING: TimeDelta = TimeDelta::milliseconds(500);

/// Which job.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// The job's number
    pub id: i64,
    /// Show the prompt too
    #[arg(long)]
    pub show_request: bool,
}

/// Tells it.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let job = find(&context.store, args.id).await?;
    let attempts = context.store.job_attempts(JobId(args.id)).await?;
    if context.output.format() == Format::Json {
        let mut value = as_json(&job, args.show_request, false);
        value["attempts"] = attempts.iter().map(attempt_as_json).collect();
        value["total"] = total_as_json(&attempts);
        context.output.json(&value)?;
    } else {
        for line in story(&job, &attempts) {
            context.output.line(line)?;
        }
        if args.show_request {
            context.output.line("\nRequest:")?;
            context.output.json(&job.request)?;
        }
    }
    context.close().await?;
    Ok(ExitCode::Success)
}

fn attempt_as_json(attempt: &AttemptRecord) -> Value {
    let mut value = serde_json::to_value(attempt).unwrap_or(Value::Null);
    value["cost"] = json!(Cell::from(attempt.cost_nanos.map(NanoUsd)));
    value["uncertain_cost"] = json!(Cell::from(NanoUsd(attempt.uncertain_nanos)));
    value
}

fn total_as_json(attempts: &[AttemptRecord]) -> Value {
    let total = Total::of(attempts);
    json!({
        "attempts": attempts.len(),
        "cost": Cell::from((total.unpriced == 0).then_some(total.cost)),
        "known_cost": Cell::from(total.cost),
        "uncertain_cost": Cell::from(total.uncertain),
        "unpriced": total.unpriced,
    })
}

/// What a job cost so far.
#[derive(Default)]
struct Total {
    cost: NanoUsd,
    uncertain: NanoUsd,
    unpriced: usize,
}

impl Total {
    fn of(attempts: &[AttemptRecord]) -> Self {
        attempts.iter().fold(Self::default(), |mut total, attempt| {
            match attempt.cost_nanos {
                Some(cost) => total.cost += NanoUsd(cost),
                None => total.unpriced += 1,
            }
            total.uncertain += NanoUsd(attempt.uncertain_nanos);
            total
        })
    }
}

/// The whole story, line by line.
fn story(job: &JobRecord, attempts: &[AttemptRecord]) -> Vec<String> {
    let mut lines = vec![headline(job)];
    let mut born = format!("Enqueued {} by {}", clock(job.created_at), job.enqueued_by);
    if let Some(run_at) = job.run_at {
        let _ = write!(born, ", not to run before {}", clock(run_at));
    }
    if let Some(deadline) = job.deadline {
        let _ = write!(born, ", to be done by {}", clock(deadline));
    }
    lines.push(born);
    let mut free_since = job.run_at.map_or(job.created_at, |run_at| run_at.max(job.created_at));
    let mut round = 0;
    for attempt in attempts {
        lines.push(String::new());
        if attempt.round != round {
            lines.push(format!("Tried anew by hand: round {}", attempt.round));
            round = attempt.round;
        }
        tell_attempt(attempt, free_since, &mut lines);
        free_since = attempt.ended_at;
    }
    lines.push(String::new());
    lines.extend(conclusion(job, attempts));
    lines
}

fn headline(job: &JobRecord) -> String {
    let state = match job.place.state() {
        _ if job.place == Place::Nowhere => "is in no queue",
        "succeeded" => "has succeeded",
        "failed" => "has failed",
        "cancelled" => "was cancelled",
        "running" => "is running",
        _ => "is queued",
    };
    let mut line = format!("Job {} {state}: route {}, project {}", job.id, job.route, job.project);
    if let Some(batch) = &job.batch {
        let _ = write!(line, ", batch {batch}");
    }
    if let Some(custom_id) = &job.custom_id {
        let _ = write!(line, ", custom id {custom_id}");
    }
    line
}

fn tell_attempt(attempt: &AttemptRecord, free_since: DateTime<Utc>, lines: &mut Vec<String>) {
    let waited = attempt.started_at - free_since;
    let mut line =
        format!("#{} {}/{} at {}", attempt.number, attempt.provider, attempt.model, clock(attempt.started_at));
    if waited >= WORTH_TELLING {
        let _ = write!(line, ", after waiting {}", span(waited.num_milliseconds()));
    }
    lines.push(line);
    lines.extend(reasons(attempt).into_iter().map(|reason| format!("   {reason}")));
    lines.push(format!("   {}", outcome(attempt)));
    if let Some(message) = attempt.message.as_deref().filter(|message| !message.is_empty()) {
        lines.push(format!("   “{message}”"));
    }
    if let Some(retry_at) = attempt.retry_at {
        lines.push(format!("   it asked to be left alone until {}", clock(retry_at)));
    }
    if let Some(tokens) = tokens(attempt) {
        lines.push(format!("   {tokens}"));
    }
    lines.push(format!("   {}", cost(attempt)));
    lines.extend(notes(attempt).map(|note| format!("   note: {note}")));
    if attempt.accepted && attempt.has_answer {
        lines.push("   the answer as it came: `answer` of this attempt in sluice.attempts".to_owned());
    }
    if let Some(request_id) = &attempt.request_id {
        lines.push(format!("   the provider's request id: {request_id}"));
    }
}

fn notes(attempt: &AttemptRecord) -> impl Iterator<Item = &str> {
    attempt.notes.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Why this rung and no other, and what of the request it does not take.
fn reasons(attempt: &AttemptRecord) -> Vec<String> {
    let Some(decision) = &attempt.decision else { return vec!["it was the first choice".to_owned()] };
    let list = |key: &str| decision.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut reasons: Vec<String> = list("skipped")
        .iter()
        .map(|skip| {
            let target = skip.get("target").and_then(Value::as_str).unwrap_or("a rung that is no longer there");
            format!("not {target}: {}", skip_reason(skip))
        })
        .collect();
    if reasons.is_empty() {
        reasons.push("it was the first choice".to_owned());
    }
    if let Some(key) = decision.get("key").and_then(Value::as_str) {
        reasons.push(format!("it was called with the key {key}"));
    }
    let dropped: Vec<&str> = list("dropped").iter().filter_map(Value::as_str).collect();
    if !dropped.is_empty() {
        reasons.push(format!("not sent to it as it came: {}", dropped.join(", ")));
    }
    let unchecked: Vec<&str> = list("unchecked").iter().filter_map(Value::as_str).collect();
    if !unchecked.is_empty() {
        reasons.push(format!("not checked in its answer, of the request's JSON schema: {}", unchecked.join(", ")));
    }
    reasons
}

fn skip_reason(skip: &Value) -> String {
    let text = |key: &str| skip.get(key).and_then(Value::as_str);
    let number = |key: &str| skip.get(key).and_then(Value::as_i64).unwrap_or(0);
    let instant = |key: &str| text(key).and_then(|at| at.parse::<DateTime<Utc>>().ok()).map(clock);
    let until = instant("until").map_or_else(String::new, |at| format!(" until {at}"));
    let over = passed_over(text("passed_over"), instant("patience_until"));
    let why = text("why").unwrap_or("");
    if let Some(reason) = Reason::parse(why) {
        return match reason {
            Reason::RateLimit => format!("its limit was used up{until}{over}"),
            Reason::Concurrency => format!("all its places were taken{until}{over}"),
            Reason::Breaker => format!("its breaker was open{until}{over}"),
            Reason::QuotaExhausted => format!("its key was out of money{until}{over}"),
            Reason::Auth => format!("its key had been rejected{until}{over}"),
            Reason::Model => format!("the model was unknown or not allowed to the key{until}{over}"),
            Reason::Paused => format!("its provider was paused{over}"),
        };
    }
    match why {
        "backing_off" => format!("it was resting after a failure{until}"),
        "too_late" => match instant("latest") {
            Some(latest) => {
                format!(
                    "it was resting after a failure{until}, and only a call before {latest} could make the deadline"
                )
            }
            None => format!("it was resting after a failure{until}, too long for the deadline"),
        },
        "failed" => format!("it had failed this job already ({})", text("class").unwrap_or("unknown")),
        "context_window" => {
            format!("about {} tokens do not fit its window of {}", number("needed"), number("window"))
        }
        "bucket_too_small" => {
            // Earlier versions kept the words in place of the code.
            let unit = text("unit").unwrap_or("tokens");
            let unit = Unit::parse(unit).map_or_else(|| unit.to_owned(), |unit| unit.to_string());
            format!("about {} {unit} can never fit its limit of {} at once", number("needed"), number("size"))
        }
        "unsupported" => format!("it does not support {}", text("what").unwrap_or("something the request asks for")),
        // A newer worker's word: better shown than hidden.
        other => format!("{other}{until}"),
    }
}

/// Why a closed rung was not waited for. Nothing where an older worker did not note it.
fn passed_over(why: Option<&str>, patience_until: Option<String>) -> String {
    let until = patience_until.unwrap_or_else(|| "then".to_owned());
    match why {
        None => String::new(),
        Some("no_patience") => ", and the route waits for no cheaper rung".to_owned(),
        Some("patience_over") => format!(", and there was patience only until {until}"),
        Some("deadline_near") => format!(", and the deadline left patience only until {until}"),
        Some("waiting_is_pointless") => ", which does not pass by waiting".to_owned(),
        Some(other) => format!(", {other}"),
    }
}

fn outcome(attempt: &AttemptRecord) -> String {
    let took = span(attempt.total_ms.into());
    let mut line = if attempt.accepted {
        let mut line = format!("accepted after {took}");
        if let Some(first_byte) = attempt.first_byte_ms {
            let _ = write!(line, " (first byte after {})", span(first_byte.into()));
        }
        line
    } else {
        let class = attempt.class.as_deref().unwrap_or("unknown");
        match &attempt.detail {
            // Nothing was found wrong with it.
            Some(detail) if class == "abandoned" => format!("not used, after {took}: {class}, {detail}"),
            Some(detail) => format!("rejected after {took}: {class}, {detail}"),
            None => format!("failed after {took}: {class}"),
        }
    };
    let facts = [
        attempt.http_status.filter(|_| !attempt.accepted).map(|status| format!("HTTP {status}")),
        attempt.code.clone(),
        attempt.finish.as_ref().map(|finish| format!("finish {finish}")),
        attempt.service_tier.as_deref().and_then(special_tier).map(|tier| format!("tier {tier}")),
        attempt
            .model_served
            .as_ref()
            .filter(|served| **served != attempt.model)
            .map(|served| format!("served by {served}")),
    ];
    for fact in facts.into_iter().flatten() {
        let _ = write!(line, "; {fact}");
    }
    line
}

fn tokens(attempt: &AttemptRecord) -> Option<String> {
    let input = attempt.input_tokens + attempt.cache_read_tokens + attempt.cache_write_tokens;
    if input == 0 && attempt.output_tokens == 0 {
        return None;
    }
    let mut line = format!("{input} tokens in");
    let mut parts = Vec::new();
    if attempt.cache_read_tokens > 0 {
        parts.push(format!("{} from the cache", attempt.cache_read_tokens));
    }
    if attempt.cache_write_tokens > 0 {
        parts.push(format!("{} into it", attempt.cache_write_tokens));
    }
    if !parts.is_empty() {
        let _ = write!(line, " ({})", parts.join(", "));
    }
    let _ = write!(line, ", {} out", attempt.output_tokens);
    if attempt.reasoning_tokens > 0 {
        let _ = write!(line, " ({} of them reasoning)", attempt.reasoning_tokens);
    }
    if attempt.usage_source != "provider" {
        line.push_str(", estimated: the provider did not say, or not what can be");
    }
    Some(line)
}

fn cost(attempt: &AttemptRecord) -> String {
    let mut line = match (attempt.cost_nanos, &attempt.price) {
        (Some(cost), Some(price)) => format!("cost {} at {}", NanoUsd(cost), price_in_words(price)),
        (Some(cost), None) if attempt.cost_source.as_deref() == Some("reported") => {
            format!("cost {}, as the provider says: the price was not known", NanoUsd(cost))
        }
        (Some(cost), None) => format!("cost {}", NanoUsd(cost)),
        (None, _) => "cost unknown: the price was not known".to_owned(),
    };
    if let Some(reported) = attempt.reported_cost_nanos.filter(|_| attempt.cost_source.as_deref() != Some("reported")) {
        let _ = write!(line, "; the provider says {}", NanoUsd(reported));
    }
    if attempt.uncertain_nanos > 0 {
        let _ = write!(line, ", and perhaps up to {} more: its end is not known", NanoUsd(attempt.uncertain_nanos));
    }
    line
}

fn price_in_words(price: &Value) -> String {
    let names = [
        ("input", "in"),
        ("cached_input", "from the cache"),
        ("cache_write", "into the cache"),
        ("cache_write_1h", "into the cache for an hour"),
        ("output", "out"),
    ];
    let parts: Vec<String> =
        names.iter().filter_map(|(key, name)| Some(format!("{} {name}", NanoUsd(price.get(key)?.as_i64()?)))).collect();
    if parts.is_empty() { price.to_string() } else { format!("{} per million tokens", parts.join(", ")) }
}

fn conclusion(job: &JobRecord, attempts: &[AttemptRecord]) -> Vec<String> {
    let mut lines = Vec::new();
    match &job.place {
        Place::Ended(ended) => {
            let mut line = format!("It {} at {}", ended.state, clock(ended.at));
            if ended.state == "cancelled" {
                line = format!("It was cancelled at {}", clock(ended.at));
            }
            if let Some(target) = ended.target.as_ref().filter(|_| ended.state == "succeeded") {
                let _ = write!(line, ", answered by {target}");
            }
            if ended.repaired {
                line.push_str("; the answer was repaired without loss");
            }
            if let Some(class) = &ended.error_class {
                let _ = write!(line, ": {class}, {}", ended.error.as_deref().unwrap_or("no reason was noted"));
            }
            lines.push(line);
        }
        place => lines.push(format!("It is {}", whereabouts(place))),
    }
    let total = Total::of(attempts);
    let mut line = format!("Total: {} in {} attempts", total.cost, attempts.len());
    if total.unpriced > 0 {
        let _ = write!(line, ", and the unknown cost of {} of them", total.unpriced);
    }
    if total.uncertain > NanoUsd::ZERO {
        let _ = write!(line, ", and perhaps up to {} more", total.uncertain);
    }
    lines.push(line);
    lines
}

fn clock(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn span(millis: i64) -> String {
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 60_000 {
        return format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
    }
    let seconds = std::time::Duration::from_secs(u64::try_from(millis / 1000).unwrap_or(0));
    humantime::format_duration(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::job::Ended;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-01-31T{text}Z").parse().unwrap()
    }

    fn job(place: Place) -> JobRecord {
        JobRecord {
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
            cost_source: None,
            notes: None,
            has_answer: false,
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
                "skipped": [{ "target": "deepseek/deepseek-chat", "why": "rate_limit", "until": "2026-01-31T08:00:30Z" }],
                "dropped": ["logit_bias"],
            })),
            ..attempt(number)
        }
    }

    #[test]
    fn the_story_of_a_fallback_reads_from_top_to_bottom() {
        let ended = Ended {
            state: "succeeded".to_owned(),
            at: at("08:00:11.250"),
            target: Some("openai/gpt-4o-mini".to_owned()),
            repaired: false,
            error_class: None,
            error: None,
            cost: Some(NanoUsd(195_000)),
            uncertain: NanoUsd::ZERO,
            response: None,
        };
        let story = story(&job(Place::Ended(Box::new(ended))), &[attempt(1), answer(2)]).join("\n");
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
    fn an_unknown_price_is_said_and_not_summed_as_zero() {
        let unpriced = AttemptRecord { cost_nanos: None, price: None, ..answer(1) };
        let story = story(&job(Place::Ready { crashes: 0, waits_for: None }), &[unpriced]).join("\n");
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
        let story = story(&job(Place::Ready { crashes: 0, waits_for: None }), &[mended]).join("\n");
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
        assert!(cost(&both).ends_with("per million tokens; the provider says $0.0002"), "{}", cost(&both));
    }

    #[test]
    fn every_reason_to_pass_a_rung_over_has_its_words() {
        let reason = |skip: Value| skip_reason(&skip);
        assert_eq!(reason(json!({ "why": "paused" })), "its provider was paused");
        assert_eq!(reason(json!({ "why": "failed", "class": "timeout" })), "it had failed this job already (timeout)");
        assert_eq!(
            reason(json!({ "why": "context_window", "needed": 9000, "window": 8192 })),
            "about 9000 tokens do not fit its window of 8192"
        );
        for unit in ["input_tokens", "input tokens"] {
            let bucket = json!({ "why": "bucket_too_small", "unit": unit, "needed": 9000, "size": 8000 });
            assert_eq!(reason(bucket), "about 9000 input tokens can never fit its limit of 8000 at once");
        }
        assert_eq!(reason(json!({ "why": "unsupported", "what": "tools" })), "it does not support tools");
        assert_eq!(reason(json!({ "why": "of_tomorrow" })), "of_tomorrow");
    }

    #[test]
    fn what_cut_the_wait_for_a_cheaper_rung_short_is_told_with_its_instant() {
        let reason = |passed_over: &str| {
            skip_reason(&json!({
                "why": "rate_limit", "until": "2026-01-31T09:00:00Z",
                "passed_over": passed_over, "patience_until": "2026-01-31T08:10:00Z",
            }))
        };
        let (shut, until) = ("its limit was used up until 2026-01-31T09:00:00.000Z", "2026-01-31T08:10:00.000Z");
        assert_eq!(reason("patience_over"), format!("{shut}, and there was patience only until {until}"));
        assert_eq!(reason("deadline_near"), format!("{shut}, and the deadline left patience only until {until}"));
        assert_eq!(reason("no_patience"), format!("{shut}, and the route waits for no cheaper rung"));
        assert_eq!(
            skip_reason(&json!({ "why": "auth", "passed_over": "waiting_is_pointless" })),
            "its key had been rejected, which does not pass by waiting"
        );
        let late = json!({ "why": "too_late", "until": "2026-01-31T09:00:00Z", "latest": "2026-01-31T08:10:00Z" });
        assert_eq!(
            skip_reason(&late),
            format!(
                "it was resting after a failure until 2026-01-31T09:00:00.000Z, and only a call before {until} could \
                 make the deadline"
            )
        );
    }

    #[test]
    fn a_call_that_was_abandoned_is_not_called_rejected() {
        for (class, detail, told) in [
            ("abandoned", "late", "not used, after 120 ms: abandoned, late"),
            ("abandoned", "worker_died", "not used, after 120 ms: abandoned, worker_died"),
            ("output_invalid", "empty", "rejected after 120 ms: output_invalid, empty"),
        ] {
            let attempt =
                AttemptRecord { class: Some(class.to_owned()), detail: Some(detail.to_owned()), ..attempt(1) };
            assert!(outcome(&attempt).starts_with(told), "{}", outcome(&attempt));
        }
    }

    #[test]
    fn the_key_of_a_call_is_named_where_the_ledger_names_it() {
        let decision = Some(json!({ "skipped": [], "dropped": [], "key": "OPENAI_B" }));
        let story =
            story(&job(Place::Ready { crashes: 0, waits_for: None }), &[AttemptRecord { decision, ..attempt(1) }])
                .join("\n");
        assert!(story.contains("it was the first choice\n   it was called with the key OPENAI_B\n"), "{story}");
    }

    #[test]
    fn what_no_answer_is_checked_against_is_told() {
        let decision = Some(json!({ "skipped": [], "dropped": [], "unchecked": ["/properties/code/pattern", "/not"] }));
        let story =
            story(&job(Place::Ready { crashes: 0, waits_for: None }), &[AttemptRecord { decision, ..attempt(1) }])
                .join("\n");
        let told = "not checked in its answer, of the request's JSON schema: /properties/code/pattern, /not\n";
        assert!(story.contains(told), "{story}");
    }

    #[test]
    fn a_retry_by_hand_and_money_at_risk_are_told() {
        let second = AttemptRecord { round: 1, uncertain_nanos: 5_000_000, ..attempt(2) };
        let story = story(&job(Place::Ready { crashes: 1, waits_for: None }), &[attempt(1), second]).join("\n");
        assert!(story.contains("Tried anew by hand: round 1"), "{story}");
        assert!(story.contains("perhaps up to $0.005 more"), "{story}");
    }
}
