//! What the API takes and answers, in the form of OpenAPI 3.1. The document is written from one table; a test asks a
//! worker each question of it and holds the answers against the schemas.

use crate::domain::ErrorClass;
use crate::domain::job::JobState;
use crate::domain::report::{ReportBy, ReportKind};
use serde_json::{Map, Value, json};

/// The forms of the answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// One method of one path.
struct Endpoint {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// What the query takes, or the body of a change.
    takes: &'static [&'static [Member]],
    /// The status of its success, and the name of the form of the answer.
    answers: &'static [(u16, &'static str)],
}

/// A name that a query or a body takes.
#[derive(Clone, Copy)]
struct Member {
    name: &'static str,
    /// `string`, `integer`, `boolean`, or one of the word lists below.
    of: &'static str,
    doc: &'static str,
}

const fn text(name: &'static str, doc: &'static str) -> Member {
    Member { name, of: "string", doc }
}

const LIMIT: Member = Member { name: "limit", of: "integer", doc: "At most so many, from 1 to 1000; else 50." };
const BELOW: Member =
    Member { name: "below", of: "integer", doc: "Only jobs with a lower number: `next` of the page before." };
const REASON: Member = text("reason", "Why; it is shown with what is paused.");

/// The jobs that are meant.
const CHOICE: &[Member] = &[
    text("batch", "Only jobs of this batch."),
    text("project", "Only jobs of this project."),
    text("route", "Only jobs of this route."),
    text("login", "Only jobs that this login enqueued."),
    Member { name: "state", of: "states", doc: "Only jobs in these states, with commas in between." },
    Member { name: "class", of: "classes", doc: "Only jobs that failed with these error classes." },
    text("error", "Only jobs whose error has this text in it, in capital or small letters."),
];
/// The same within one batch.
const OF_BATCH: &[Member] = CHOICE.split_first().expect("there are some").1;
const PERIOD: &[Member] = &[
    Member { name: "by", of: "dimensions", doc: "By what the rows are grouped, with commas in between." },
    text("since", "From then on: 24h, 7d, a date or an RFC 3339 instant (UTC)."),
    text("until", "Before then."),
    text("batch", "Only this batch."),
    text("project", "Only this project."),
    text("route", "Only this route."),
    text("login", "Only jobs that this login enqueued."),
    text("compare", "Rows of changes: `before` for the period before `since`, or where the earlier period begins."),
];
const TO: Member = text("to", "With `move`: the route along which the jobs go.");
const PRIORITY: Member = Member { name: "priority", of: "integer", doc: "With `priority`: from -1000 to 1000." };
const DRY: Member = Member { name: "dry_run", of: "boolean", doc: "Count the jobs, and change nothing." };
const BODIES: Member =
    Member { name: "bodies", of: "boolean", doc: "The prompt and the answer, where [http] allows it." };
const ALL: Member = Member { name: "all", of: "boolean", doc: "Needed where nothing else says which jobs are meant." };

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: "get",
        path: "/status",
        summary: "The queue, the workers, the limits, breakers, keys, budgets and pauses, as `sluice status` has them.",
        takes: &[],
        answers: &[(200, "Status")],
    },
    Endpoint {
        method: "get",
        path: "/batches",
        summary: "Batches, those in which something happened last first.",
        takes: &[&[LIMIT, text("after", "The batch behind which the page begins: `next` of the page before.")]],
        answers: &[(200, "Batches")],
    },
    Endpoint {
        method: "get",
        path: "/batches/{name}",
        summary: "One batch, and why it does not go on.",
        takes: &[],
        answers: &[(200, "Batch")],
    },
    Endpoint {
        method: "get",
        path: "/batches/{name}/enqueues",
        summary: "The enqueues by command that made a batch, the newest first: as `sluice batch enqueues` has them.",
        takes: &[],
        answers: &[(200, "Enqueues")],
    },
    Endpoint {
        method: "post",
        path: "/batches/{name}/{action}",
        summary: "Pauses or resumes a batch, or changes its jobs: all, or those that the body names.",
        takes: &[&[REASON, TO, PRIORITY, DRY], OF_BATCH],
        answers: &[(200, "BatchChange"), (202, "Task")],
    },
    Endpoint {
        method: "get",
        path: "/jobs",
        summary: "Jobs, the newest first. Looking for few among many ends early: a page may have fewer than asked for.",
        takes: &[CHOICE, &[LIMIT, BELOW]],
        answers: &[(200, "Jobs")],
    },
    Endpoint {
        method: "post",
        path: "/jobs",
        summary: "Cancels, retries, pauses, resumes, moves or gives a priority to all jobs that the body names.",
        takes: &[
            &[Member { name: "action", of: "actions", doc: "What is done with them." }],
            &[REASON, TO, PRIORITY, DRY, ALL],
            CHOICE,
        ],
        answers: &[(200, "Proposal"), (202, "Task")],
    },
    Endpoint {
        method: "get",
        path: "/jobs/{job}",
        summary: "One job and its ledger, as `sluice explain` has them.",
        takes: &[&[BODIES]],
        answers: &[(200, "Story")],
    },
    Endpoint {
        method: "post",
        path: "/jobs/{job}/{action}",
        summary: "Cancels, retries, pauses, resumes, moves or gives a priority to one job.",
        takes: &[&[REASON, TO, PRIORITY]],
        answers: &[(200, "JobChange")],
    },
    Endpoint {
        method: "post",
        path: "/routes/{name}/{action}",
        summary: "Pauses or resumes a route.",
        takes: &[&[REASON]],
        answers: &[(200, "PauseChange")],
    },
    Endpoint {
        method: "post",
        path: "/projects/{name}/{action}",
        summary: "Pauses or resumes a project.",
        takes: &[&[REASON]],
        answers: &[(200, "PauseChange")],
    },
    Endpoint {
        method: "post",
        path: "/providers/{name}/{action}",
        summary: "Pauses or resumes a provider.",
        takes: &[&[REASON]],
        answers: &[(200, "PauseChange")],
    },
    Endpoint {
        method: "get",
        path: "/reports/{kind}",
        summary: "A report, as `sluice report` has it: a row for each group.",
        takes: &[PERIOD],
        answers: &[(200, "Report")],
    },
    Endpoint {
        method: "get",
        path: "/budgets",
        summary: "Where all budgets stand.",
        takes: &[],
        answers: &[(200, "Budgets")],
    },
    Endpoint {
        method: "post",
        path: "/budgets/{name}",
        summary: "Gives a budget another limit.",
        takes: &[&[text("limit", "The new limit in dollars, such as \"25\".")]],
        answers: &[(200, "Budget")],
    },
    Endpoint {
        method: "get",
        path: "/schedules",
        summary: "The schedules that workers have, and the newest ticks of each.",
        takes: &[],
        answers: &[(200, "Schedules")],
    },
    Endpoint {
        method: "post",
        path: "/schedules/{name}/{action}",
        summary: "Runs a schedule now, or pauses or resumes it.",
        takes: &[&[REASON]],
        answers: &[(200, "ScheduleChange")],
    },
    Endpoint {
        method: "get",
        path: "/game-days",
        summary: "The game days of the worker's configuration.",
        takes: &[],
        answers: &[(200, "GameDays")],
    },
    Endpoint {
        method: "get",
        path: "/game-days/{name}",
        summary: "What a game day did, as `sluice game-day report` tells it.",
        takes: &[],
        answers: &[(200, "GameDayReport")],
    },
    Endpoint {
        method: "get",
        path: "/alerts",
        summary: "The alerts that fire.",
        takes: &[&[Member { name: "all", of: "boolean", doc: "Also those of lately that are over." }]],
        answers: &[(200, "Alerts")],
    },
    Endpoint {
        method: "get",
        path: "/doctor",
        summary: "What the doctor finds, as `sluice doctor` has it; looked at most once a minute, and for 6 s.",
        takes: &[],
        answers: &[(200, "Doctor")],
    },
    Endpoint {
        method: "get",
        path: "/tasks",
        summary: "Changes of many jobs that this worker was asked for, the newest first.",
        takes: &[],
        answers: &[(200, "Tasks")],
    },
    Endpoint { method: "get", path: "/tasks/{task}", summary: "One of them.", takes: &[], answers: &[(200, "Task")] },
];

/// The names in braces of a path, and what they take.
const IN_PATH: &[(&str, &str)] =
    &[("name", "string"), ("job", "integer"), ("task", "integer"), ("kind", "reports"), ("action", "actions")];

/// What a path takes as its action.
fn actions(path: &str) -> &'static str {
    match path.split('/').nth(1) {
        Some("schedules") => "schedule_actions",
        Some("jobs" | "batches") => "actions",
        _ => "pause_actions",
    }
}

/// The form of a member.
fn form(of: &str) -> Value {
    let words = |words: Vec<&str>| json!({ "type": "string", "enum": words });
    match of {
        "actions" => words(vec!["cancel", "retry", "pause", "resume", "move", "priority"]),
        "pause_actions" => words(vec!["pause", "resume"]),
        "schedule_actions" => words(vec!["run", "pause", "resume"]),
        "reports" => words(ReportKind::names()),
        "states" => listed(JobState::ALL.map(JobState::as_str).as_slice()),
        "classes" => listed(&ErrorClass::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>()),
        "dimensions" => listed(&ReportBy::names()),
        of => json!({ "type": of }),
    }
}

/// Words with commas in between.
fn listed(words: &[&str]) -> Value {
    let word = format!("({})", words.join("|"));
    json!({ "type": "string", "pattern": format!("^{word}(,{word})*$") })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let taken = || endpoint.takes.iter().copied().flatten();
    let mut parameters: Vec<Value> = IN_PATH
        .iter()
        .filter(|(name, _)| endpoint.path.contains(&format!("{{{name}}}")))
        .map(|(name, of)| {
            let of = if *of == "actions" { actions(endpoint.path) } else { of };
            json!({ "name": name, "in": "path", "required": true, "schema": form(of) })
        })
        .collect();
    let mut operation = Map::new();
    operation.insert("summary".to_owned(), endpoint.summary.into());
    if endpoint.method == "get" {
        parameters.extend(taken().map(|member| {
            let Member { name, of, doc } = *member;
            json!({ "name": name, "in": "query", "description": doc, "schema": form(of) })
        }));
    } else {
        let members = taken().map(|member| {
            let mut form = form(member.of);
            form["description"] = member.doc.into();
            (member.name.to_owned(), form)
        });
        let members: Map<String, Value> = members.collect();
        let required: Vec<&str> = taken()
            .map(|member| member.name)
            .filter(|name| *name == "action" || (*name == "limit" && endpoint.path.starts_with("/budgets")))
            .collect();
        let mut body = json!({ "type": "object", "additionalProperties": false, "properties": members });
        if !required.is_empty() {
            body["required"] = required.into();
        }
        let content = json!({ "application/json": { "schema": body } });
        operation.insert("requestBody".to_owned(), json!({ "content": content }));
    }
    operation.insert("parameters".to_owned(), parameters.into());
    let mut responses: Map<String, Value> = endpoint
        .answers
        .iter()
        .map(|(status, form)| {
            let schema = json!({ "$ref": format!("#/components/schemas/{form}") });
            let content = json!({ "application/json": { "schema": schema } });
            (status.to_string(), json!({ "description": form, "content": content }))
        })
        .collect();
    let problem = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    responses.insert("default".to_owned(), json!({ "description": "What is wrong.", "content": problem }));
    operation.insert("responses".to_owned(), responses.into());
    Value::Object(operation)
}

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for one in ENDPOINTS {
        let path = paths.entry(format!("/api/v1{}", one.path)).or_insert_with(|| json!({}));
        path[one.method] = endpoint(one);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("the forms of the answers are JSON");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What `sluice status`, `explain`, `report` and the other commands show and change.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:9470" }],
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}
