//! The JSON of each view: its members and their types. Programs may rely on each of them, so a change here is a change
//! of the public surface and belongs in the changelog.

use super::batch::{BatchView, ProgressView};
use super::change::{BulkView, CancelledEnqueueView, EnqueuedView, MigratedView, PauseChangeView, ReopenedView};
use super::check::{CheckView, FaultView, RungsView};
use super::finding::DiagnosisView;
use super::job::{Bodies, JobView};
use super::result_line::LineView;
use super::status::StatusView;
use super::story::StoryView;
use super::{batch, document, report};
use crate::domain::diagnosis;
use crate::domain::job::JobState;
use crate::domain::limits::{Dimension as Counted, Heard};
use crate::domain::obstacle::{Circumstances, Obstacle, Pause, Subject};
use crate::domain::pause::PauseKind;
use crate::domain::shared_bucket::{Report as Told, SharedBucket, Stock, Wait};
use crate::domain::shut::Reason;
use crate::domain::{Limits, MaxFailed, NanoUsd, Rate, Spent, Timestamp, Unit};
use crate::store::batch::{Batch, ListedJob};
use crate::store::enqueues::EnqueueRecord;
use crate::store::job::{AttemptRecord, Ended, JobRecord, Place};
use crate::store::report::{Grouping, Keys, LatencyRow, Totals};
use crate::store::results::{EndedJob, ExportedJob, HttpError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

mod schedule;
mod status;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn shown(view: &impl Serialize) -> Value {
    document(view).unwrap()
}

/// What these words mean for the route and batch of the job, a minute after it was enqueued.
fn obstacle(code: &str, pauses: Vec<Pause>) -> Obstacle {
    let subject = Subject { route: "default", batch: Some("nightly"), ..Subject::default() };
    let now = Timestamp(at(60).timestamp_millis());
    Obstacle::of(code, subject, &Circumstances { now, pauses, ..Circumstances::default() })
}

/// A job at this place.
pub(super) fn job(place: Place) -> JobRecord {
    JobRecord {
        obstacle: None,
        shadow: None,
        shadow_of: None,
        id: 42,
        route: "default".to_owned(),
        project: "acme".to_owned(),
        batch: Some("nightly".to_owned()),
        custom_id: None,
        priority: -3,
        run_at: Some(at(1)),
        deadline: None,
        max_attempts: Some(6),
        enqueued_by: "app".to_owned(),
        created_at: at(0),
        metadata: Some(json!({ "tag": 1 })),
        request: json!({ "prompt": "a secret" }),
        place,
    }
}

fn ended() -> Place {
    Place::Ended(Box::new(Ended {
        state: JobState::Succeeded,
        at: at(9),
        target: Some("a/m".to_owned()),
        repaired: true,
        answered_from: None,
        low_confidence: false,
        error_class: None,
        error: None,
        cost: Some(NanoUsd(195_000)),
        uncertain: NanoUsd::ZERO,
        response: Some(json!({ "choices": [] })),
    }))
}

/// The members of a job's view that do not depend on its place.
fn with_place(state: &str, place: &Value) -> Value {
    json!({
        "job": 42, "state": state, "route": "default", "project": "acme", "batch": "nightly", "custom_id": null,
        "priority": -3, "run_at": "2027-01-15T08:00:01Z", "deadline": null, "max_attempts": 6, "enqueued_by": "app",
        "created_at": "2027-01-15T08:00:00Z", "metadata": { "tag": 1 }, "place": place,
    })
}

#[test]
fn a_job_is_shown_with_its_place() {
    let since = at(5);
    let places = [
        (
            Place::Ready { crashes: 1, waits_for: Some("batch paused".to_owned()), opens: None },
            "queued",
            json!({ "where": "ready", "crashes": 1, "waits_for": "batch paused" }),
        ),
        (
            Place::Parked { until: since, reason: "a/m: rate_limit (within patience)".to_owned() },
            "queued",
            json!({
                "where": "parked", "until": "2027-01-15T08:00:05Z", "waits_for": "a/m: rate_limit (within patience)",
            }),
        ),
        (
            Place::Parked { until: since, reason: "paused".to_owned() },
            "queued",
            json!({ "where": "parked", "until": null, "waits_for": "paused" }),
        ),
        (
            Place::Running { worker: 7, host: Some("db1".to_owned()), pid: None, since, alive: true, call: None },
            "running",
            json!({
                "where": "running", "worker": 7, "host": "db1", "pid": null, "since": "2027-01-15T08:00:05Z",
                "worker_alive": true, "call_target": null, "call_since": null,
            }),
        ),
        (
            ended(),
            "succeeded",
            json!({
                "where": "ended", "finished_at": "2027-01-15T08:00:09Z", "answered_by": "a/m", "last_asked": null,
                "repaired": true, "error_class": null, "error": null, "cost": 0.000_195, "uncertain_cost": 0.0,
            }),
        ),
        (Place::Nowhere, "queued", json!({ "where": "nowhere", "waits_for": "no queue" })),
    ];
    for (place, state, expected) in places {
        assert_eq!(shown(&JobView::of(job(place), Bodies::default())), with_place(state, &expected));
    }
}

#[test]
fn prompts_and_answers_are_shown_to_those_only_who_ask() {
    let view = |request, response| shown(&JobView::of(job(ended()), Bodies { request, response }));
    let hidden = view(false, false);
    assert_eq!((hidden.get("request"), hidden.get("response")), (None, None));
    let all = view(true, true);
    assert_eq!((&all["request"], &all["response"]), (&json!({ "prompt": "a secret" }), &json!({ "choices": [] })));
    let failed = Place::Ended(Box::new(Ended {
        state: JobState::Failed,
        at: at(9),
        target: None,
        repaired: false,
        answered_from: None,
        low_confidence: false,
        error_class: Some("timeout".to_owned()),
        error: Some("no answer".to_owned()),
        cost: None,
        uncertain: NanoUsd(5),
        response: None,
    }));
    let failed = shown(&JobView::of(job(failed), Bodies { request: false, response: true }));
    assert_eq!(failed.get("response"), Some(&Value::Null));
    let waits = JobView::of(job(Place::Nowhere), Bodies { request: false, response: true });
    assert_eq!(shown(&waits).get("response"), None);
}

#[test]
fn a_story_is_a_job_with_its_attempts_and_their_sum() {
    let attempt = AttemptRecord {
        number: 1,
        round: 0,
        provider: "a".to_owned(),
        model: "m".to_owned(),
        rung: Some(0),
        started_at: at(1),
        ended_at: at(2),
        first_byte_ms: Some(310),
        total_ms: 1000,
        accepted: false,
        class: Some("soft_failure".to_owned()),
        detail: Some("empty".to_owned()),
        http_status: Some(200),
        code: None,
        message: Some("nothing in it".to_owned()),
        retry_at: None,
        request_id: Some("r-1".to_owned()),
        model_served: None,
        finish: Some("stop".to_owned()),
        usage_source: "provider".to_owned(),
        input_tokens: 100,
        cache_read_tokens: 20,
        cache_write_tokens: 0,
        output_tokens: 300,
        reasoning_tokens: 0,
        cost_nanos: Some(195_000),
        uncertain_nanos: 5_000_000,
        price: Some(json!({ "input": 150_000_000 })),
        decision: Some(json!({ "skipped": [], "dropped": ["logit_bias"], "of_tomorrow": 1 })),
        service_tier: None,
        reported_cost_nanos: None,
        computed_cost_nanos: None,
        cost_differs: false,
        repriced_at: None,
        repriced_from: None,
        cost_source: Some("price".to_owned()),
        notes: Some(json!(["mended"])),
        has_answer: true,
        reask_of: Some(1),
        confidence: None,
    };
    let unpriced = AttemptRecord { number: 2, cost_nanos: None, uncertain_nanos: 0, ..attempt.clone() };
    let job = JobView::of(job(Place::Nowhere), Bodies::default());
    let story = shown(&StoryView::of(job, vec![attempt, unpriced], None));
    let mut expected = with_place("queued", &json!({ "where": "nowhere", "waits_for": "no queue" }));
    let mut first = json!({
        "number": 1, "round": 0, "provider": "a", "model": "m", "rung": 0, "started_at": "2027-01-15T08:00:01Z",
        "ended_at": "2027-01-15T08:00:02Z", "first_byte_ms": 310, "total_ms": 1000, "accepted": false,
        "class": "soft_failure", "detail": "empty", "http_status": 200, "code": null, "message": "nothing in it",
        "retry_at": null, "request_id": "r-1", "model_served": null, "finish": "stop", "usage_source": "provider",
        "input_tokens": 100, "cache_read_tokens": 20, "cache_write_tokens": 0, "output_tokens": 300,
        "reasoning_tokens": 0, "cost_nanos": 195_000, "uncertain_nanos": 5_000_000,
        "price": { "input": 150_000_000 }, "decision": { "skipped": [], "dropped": ["logit_bias"], "of_tomorrow": 1 },
        "service_tier": null, "reported_cost_nanos": null, "cost_source": "price", "computed_cost_nanos": null,
        "cost_differs": false, "repriced_at": null, "repriced_from": null, "notes": ["mended"],
        "has_answer": true, "reask_of": 1, "cost": 0.000_195, "uncertain_cost": 0.005,
    });
    first["confidence"] = Value::Null;
    let mut second = first.clone();
    second["number"] = json!(2);
    second["cost_nanos"] = Value::Null;
    second["uncertain_nanos"] = json!(0);
    second["cost"] = Value::Null;
    second["uncertain_cost"] = json!(0.0);
    expected["attempts"] = json!([first, second]);
    expected["total"] = json!({
        "attempts": 2, "cost": null, "known_cost": 0.000_195, "uncertain_cost": 0.005, "unpriced": 1,
    });
    assert_eq!(story, expected);
}

fn a_batch() -> Batch {
    Batch {
        name: "nightly".to_owned(),
        first_hour: at(0),
        last_hour: at(3600),
        jobs: 1000,
        succeeded: 390,
        failed: 10,
        cancelled: 0,
        attempts: 450,
        cost: NanoUsd(1_234_500_000),
        waste: NanoUsd(5),
        uncertain: NanoUsd::ZERO,
        unpriced: 0,
        paused: false,
        pause_reason: None,
        max_failed: None,
        max_wasted: None,
    }
}

#[test]
fn a_batch_is_shown_alone_and_as_a_row() {
    let expected = json!({
        "batch": "nightly", "jobs": 1000, "done": 400, "succeeded": 390, "failed": 10, "cancelled": 0,
        "unfinished": 600, "attempts": 450, "cost": 1.2345, "waste": 5e-9, "uncertain_cost": 0.0,
        "unpriced_attempts": 0, "cost_per_answer": 0.003_165_385, "paused": false, "pause_reason": null,
        "max_failed": null, "max_wasted": null,
        "first_hour": "2027-01-15T08:00:00Z", "last_hour": "2027-01-15T09:00:00Z",
    });
    assert_eq!(shown(&BatchView::of(&a_batch())), expected);
    let unknown = shown(&BatchView::of(&Batch { unpriced: 450, ..a_batch() }));
    assert_eq!((&unknown["cost"], &unknown["waste"]), (&Value::Null, &Value::Null));
    let row = concat!(
        r#"[{"batch":"nightly","jobs":1000,"succeeded":390,"failed":10,"cancelled":0,"unfinished":600,"#,
        r#""attempts":450,"cost":1.2345,"waste":0.000000005,"unpriced":0,"paused":false,"#,
        r#""last_hour":"2027-01-15T09:00:00Z","max_failed":null,"max_wasted":null,"pause_reason":null,"#,
        r#""cost_per_answer":0.003165385,"uncertain":0.00}]"#
    );
    assert_eq!(serde_json::to_string(&batch::table(&[a_batch()])).unwrap(), row);
    let lost = "stop-loss: 10 of 40 jobs failed, more than 5 %";
    let stopped = Batch {
        paused: true,
        pause_reason: Some(lost.to_owned()),
        max_failed: MaxFailed::parse("0.05").ok(),
        max_wasted: None,
        ..a_batch()
    };
    let view = shown(&BatchView::of(&stopped));
    assert_eq!((&view["pause_reason"], &view["max_failed"]), (&json!(lost), &json!(0.05)));
    let row = serde_json::to_value(batch::table(std::slice::from_ref(&stopped))).unwrap();
    assert_eq!((&row[0]["pause_reason"], &row[0]["max_failed"]), (&json!(lost), &json!(0.05)));
    let pause = Pause {
        kind: PauseKind::Batch,
        name: "nightly".to_owned(),
        by: Some("worker".to_owned()),
        since: Timestamp(at(9).timestamp_millis()),
        why: Some(lost.to_owned()),
    };
    let held = |code| obstacle(code, vec![pause.clone()]);
    let progress = shown(&ProgressView::of(&stopped, 0.0, None, Some(&held("batch paused"))));
    assert_eq!(
        progress["idle"],
        json!(format!("batch nightly is paused since 08:00:09 UTC (51s ago): {lost}")),
        "no person paused it"
    );
    let other = shown(&ProgressView::of(&stopped, 0.0, None, Some(&held("route paused"))));
    assert_eq!(other["idle"], "its route is paused", "the pause is over by now");
}

#[test]
fn progress_is_a_batch_with_its_pace_and_what_is_in_its_way() {
    let plain = shown(&BatchView::of(&a_batch()));
    let moving = shown(&ProgressView::of(&a_batch(), 20.0, Some(Duration::from_secs(30)), None));
    let mut expected = plain.clone();
    expected["replaced"] = Value::Null;
    expected["per_second"] = json!(20.0);
    expected["seconds_left"] = json!(30);
    expected["idle"] = Value::Null;
    expected["waits_for"] = Value::Null;
    expected["why"] = Value::Null;
    expected["long_calls"] = Value::Null;
    assert_eq!(moving, expected);
    let pause = Pause {
        kind: PauseKind::Batch,
        name: "nightly".to_owned(),
        by: Some("ops".to_owned()),
        since: Timestamp(at(9).timestamp_millis()),
        why: None,
    };
    let held = shown(&ProgressView::of(&a_batch(), 0.0, None, Some(&obstacle("batch paused", vec![pause]))));
    expected["per_second"] = json!(0.0);
    expected["seconds_left"] = Value::Null;
    expected["idle"] = json!("batch nightly is paused by ops since 08:00:09 UTC (51s ago)");
    expected["waits_for"] = json!("batch paused");
    expected["why"] = json!({
        "waits_for": "batch paused", "words": "batch nightly is paused by ops since 08:00:09 UTC (51s ago)",
        "do": "sluice batch resume nightly", "until": null, "keys": [], "stuck": false, "others_wait_for": [],
        "budget": null, "paused": {
            "kind": "batch", "name": "nightly", "by": "ops", "since": "2027-01-15T08:00:09Z", "reason": null,
        },
    });
    assert_eq!(held, expected);
}

#[test]
fn a_report_has_a_row_for_each_group_with_the_dimensions_first() {
    let totals = |keys: &[&str]| Totals {
        keys: Keys::of(&[Grouping::Class, Grouping::Day], keys.iter().copied()),
        succeeded: 8,
        failed: 1,
        attempts: 10,
        unused: 10,
        fallbacks: 2,
        input_tokens: 1000,
        cached_tokens: 100,
        output_tokens: 500,
        cost: NanoUsd(2_000_000),
        waste: NanoUsd(500_000),
        uncertain: NanoUsd(7),
        ..Totals::default()
    };
    let (by, rows, all) = ([Grouping::Class, Grouping::Day], totals(&["", "2026-01-31"]), totals(&[]));
    let text = |table| serde_json::to_string(&table).unwrap();
    let keys = r#""class":null,"day":"2026-01-31""#;
    for (table, measures) in [
        (
            report::cost(&by, vec![rows.clone()], &all),
            concat!(
                r#""answered":8,"attempts":10,"input_tokens":1000,"cached_tokens":100,"output_tokens":500,"#,
                r#""cost":0.002,"waste":0.0005,"uncertain":0.000000007,"unpriced":0,"cost_per_answer":null"#
            ),
        ),
        (
            report::failures(&by, vec![rows.clone()], &all, &[]),
            concat!(
                r#""attempts":10,"share":1.0,"jobs_failed":1,"waste":0.0005,"uncertain":0.000000007,"#,
                r#""code":null,"message":null"#
            ),
        ),
        (
            report::waste(&by, vec![rows.clone()], &all),
            r#""attempts":10,"waste":0.0005,"share":0.25,"uncertain":0.000000007"#,
        ),
        (
            report::fallbacks(&by, vec![rows], &all),
            r#""jobs_answered":8,"after_fallback":2,"share":0.25,"cost":0.00,"cost_more":null,"unknown":0"#,
        ),
    ] {
        assert_eq!(text(table), format!("[{{{keys},{measures}}}]"));
    }
    let latency = LatencyRow {
        keys: Keys::of(&by, ["", "2026-01-31"]),
        answers: 8,
        mean_ms: 900,
        p50_ms: Some(800),
        p95_ms: Some(2000),
        p99_ms: Some(3000),
        first_byte_p50_ms: None,
    };
    let measures = r#""answers":8,"first_byte_p50_ms":null,"p50_ms":800,"p95_ms":2000,"p99_ms":3000,"mean_ms":900"#;
    assert_eq!(text(report::latency(&by, vec![latency])), format!("[{{{keys},{measures}}}]"));
}

fn exported(ending: Option<EndedJob>) -> ExportedJob {
    ExportedJob {
        is_replaced: false,
        job: 7,
        custom_id: None,
        enqueued_by: "app".to_owned(),
        metadata: Some(r#"{"tag": 1}"#.to_owned()),
        ending,
        attempts: 2,
        provider: Some("a".to_owned()),
        model: Some("m".to_owned()),
        repaired: false,
        confidence: None,
        low_confidence: false,
        cost: Some(NanoUsd(195_000)),
        request_id: Some("r-1".to_owned()),
    }
}

#[test]
fn a_line_of_results_is_one_of_an_openai_batch_with_a_member_of_ours() {
    let served = |class: &str| {
        let told = r#""attempts":2,"enqueued_by":"app","cost":"0.000195","repaired":false"#;
        format!(r#""sluice":{{"job":7,"provider":"a","model":"m",{told}{class},"metadata":{{"tag": 1}}}}"#)
    };
    let line = |ending| serde_json::to_string(&LineView::of(&exported(ending)).unwrap()).unwrap();
    let response = r#"{"choices": [{"message": {"content": "hello"}}]}"#;
    let answered = EndedJob::Succeeded { response: Some(response.to_owned()) };
    let head = r#""id":"batch_req_7","custom_id":"job-7""#;
    assert_eq!(
        line(Some(answered.clone())),
        format!(
            r#"{{{head},"response":{{"status_code":200,"request_id":"r-1","body":{response}}},"error":null,{}}}"#,
            served("")
        )
    );
    let failed = |http| EndedJob::Failed { class: "auth".to_owned(), reason: "no".to_owned(), http };
    let http = HttpError { status: 401, code: None, message: Some("bad key".to_owned()) };
    let body = r#"{"error":{"message":"bad key","type":"auth","param":null,"code":null}}"#;
    assert_eq!(
        line(Some(failed(Some(http)))),
        format!(
            r#"{{{head},"response":{{"status_code":401,"request_id":"r-1","body":{body}}},"error":null,{}}}"#,
            served(r#","class":"auth""#)
        )
    );
    for (ending, code, message, class) in [
        (Some(failed(None)), "auth", "no", r#","class":"auth""#),
        (Some(EndedJob::Cancelled), "job_cancelled", "The job was cancelled.", ""),
        (None, "job_unfinished", "The job is not finished.", ""),
    ] {
        let error = format!(r#""error":{{"code":"{code}","message":"{message}"}}"#);
        assert_eq!(line(ending), format!(r#"{{{head},"response":null,{error},{}}}"#, served(class)));
    }
}

#[test]
fn a_change_says_what_it_changed() {
    let pause = PauseChangeView { kind: "route", name: "slow".to_owned(), paused: true, changed: false };
    assert_eq!(shown(&pause), json!({ "kind": "route", "name": "slow", "paused": true, "changed": false }));
    assert_eq!(pause.to_string(), "route slow was paused already");
    let reopened = ReopenedView { kind: "provider", name: "a".to_owned(), opened: vec!["shared".to_owned()], woken: 1 };
    assert_eq!(shown(&reopened), json!({ "kind": "provider", "name": "a", "opened": ["shared"], "woken": 1 }));
    assert_eq!(reopened.to_string(), "provider a is open again; 1 waiting job is woken");
    let none = ReopenedView { woken: 0, ..reopened };
    assert_eq!(none.to_string(), "provider a is open again", "that none waits here says nothing");
    let bulk = BulkView { of: "batch", name: "nightly", what: "queued_again", jobs: 7 };
    assert_eq!(shown(&bulk), json!({ "batch": "nightly", "queued_again": 7 }));
    assert_eq!(bulk.to_string(), "batch nightly: 7 jobs queued again");
    let unknown_members = BTreeMap::from([("logit".to_owned(), 3)]);
    let enqueued = EnqueuedView {
        batch: "nightly",
        jobs: 5,
        existing: 1,
        faulty: 0,
        enqueue: Some(3),
        dry_run: false,
        unknown_members: &unknown_members,
    };
    let expected = json!({
        "batch": "nightly", "jobs": 5, "existing": 1, "faulty": 0, "enqueue": 3, "dry_run": false,
        "unknown_members": { "logit": 3 },
    });
    let row = r#"[{"batch":"nightly","jobs":5,"existing":1,"faulty":0,"enqueue":3}]"#;
    assert_eq!(serde_json::to_string(&enqueued.table()).unwrap(), row);
    let cancelled = CancelledEnqueueView { batch: "nightly", enqueue: 3, cancelled: 7, begun: 1 };
    assert_eq!(shown(&cancelled), json!({ "batch": "nightly", "enqueue": 3, "cancelled": 7, "begun": 1 }));
    assert_eq!(cancelled.to_string(), "batch nightly, enqueue 3: 7 jobs cancelled; 1 job has begun and goes on");
    let listed = ListedJob {
        job: 7,
        custom_id: None,
        state: "failed".to_owned(),
        attempts: Some(2),
        error_class: Some("timeout".to_owned()),
        error: Some("no".to_owned()),
        cost: None,
    };
    let row = concat!(
        r#"[{"job":7,"custom_id":null,"state":"failed","attempts":2,"cost":null,"#,
        r#""error_class":"timeout","error":"no"}]"#
    );
    assert_eq!(serde_json::to_string(&batch::jobs_table(&[listed])).unwrap(), row);
    let noted = EnqueueRecord {
        number: 3,
        batch: "nightly".to_owned(),
        enqueued_by: "app".to_owned(),
        enqueued_at: at(0),
        jobs: 7,
    };
    let row = r#"[{"enqueue":3,"jobs":7,"enqueued_at":"2027-01-15T08:00:00Z","enqueued_by":"app"}]"#;
    assert_eq!(serde_json::to_string(&batch::enqueues_table(&[noted])).unwrap(), row);
    assert_eq!(shown(&enqueued), expected);
    let lacking = BTreeMap::from([("sluice_app".to_owned(), vec!["select on sluice.jobs".to_owned()])]);
    let migrated = MigratedView {
        from: 3,
        to: 13,
        dry_run: false,
        changed: true,
        missing_roles: &["sluice_report".to_owned()],
        missing_rights: &lacking,
    };
    let expected = json!({
        "from": 3, "to": 13, "dry_run": false, "changed": true, "missing_roles": ["sluice_report"],
        "missing_rights": { "sluice_app": ["select on sluice.jobs"] },
    });
    assert_eq!(shown(&migrated), expected);
}

#[test]
fn a_finding_says_what_why_and_what_to_do() {
    let findings = [diagnosis::unreachable("it is away")];
    let view = shown(&DiagnosisView::of(&findings));
    assert_eq!((&view["ok"], &view["worst"]), (&json!(false), &json!("bad")));
    let members: Vec<&String> = view["findings"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["check", "do", "severity", "what", "why"]);
    assert_eq!(shown(&DiagnosisView::of(&[])), json!({ "ok": true, "worst": "ok", "findings": [] }));
}

#[test]
fn a_configuration_has_faults_or_a_summary() {
    let fault = FaultView { place: "sluice.toml", key: "worker.speed", problem: "no such key", expected: "" };
    let told = json!({ "place": "sluice.toml", "key": "worker.speed", "problem": "no such key", "expected": "" });
    let faulty = CheckView::Faulty { ok: false, faults: vec![fault] };
    assert_eq!(shown(&faulty), json!({ "ok": false, "faults": [told] }));
    let read = |faults| {
        shown(&CheckView::Read {
            ok: true,
            file: Some("sluice.toml".to_owned()),
            providers: vec!["a"],
            routes: [("default", RungsView { rungs: vec!["a/m".to_owned()] })].into(),
            warnings: &["odd".to_owned()],
            faults,
            online: None,
        })
    };
    let mut expected = json!({
        "ok": true, "file": "sluice.toml", "providers": ["a"], "routes": { "default": { "rungs": ["a/m"] } },
        "warnings": ["odd"],
    });
    assert_eq!(read(Vec::new()), expected);
    expected["faults"] = json!([told]);
    assert_eq!(read(vec![fault]), expected);
}

#[test]
fn a_document_has_its_members_in_the_order_of_the_alphabet() {
    let text = document(&BulkView { of: "route", name: "slow", what: "cancelled", jobs: 7 }).unwrap().to_string();
    assert_eq!(text, r#"{"cancelled":7,"route":"slow"}"#);
}
