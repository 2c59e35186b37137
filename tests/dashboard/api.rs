//! The API is what its document says, and does what the command line does.

use super::{HOSTILE, Stage};
use crate::support::site::{Reply, Site};
use crate::support::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The form of an answer, with every form that it refers to.
fn schema_of(document: &Value, method: &str, path: &str, status: u16) -> Value {
    let responses = &document["paths"][path][method]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let content = response["content"].as_object().unwrap_or_else(|| panic!("{method} {path} {status}: {response}"));
    let mut schema = content.values().next().unwrap()["schema"].clone();
    schema["components"] = document["components"].clone();
    schema
}

/// Fails unless the answer has the form that the document promises.
fn is_as_promised(document: &Value, method: &str, path: &str, reply: &Reply) {
    let schema = schema_of(document, method, path, reply.status);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let body = reply.json();
    let faults: Vec<String> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{method} {path}: {faults:#?}\n{body:#}");
}

#[test]
fn the_document_is_the_one_that_the_program_writes_and_serves() {
    assert_eq!(document(), sluice::http::openapi(), "run `make config`");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_form_that_the_document_promises() {
    let stage = Stage::new("bodies = true\n").await;
    let site = stage.site().await;
    stage.fill().await;
    stage.program.output(&["budget", "set", "all", "5", "--soft", "0.5"]).await;
    let file = stage.program.file("jobs.jsonl", "{\"prompt\": \"go, from a file\"}\n");
    stage.program.output(&["enqueue", file.to_str().unwrap(), "--batch", "from a file"]).await;
    let document = site.get("/api/v1/openapi.json").await.json();
    assert_eq!(document, self::document());
    let failed = "select min(job_id) from sluice.result where state = 'failed'";
    let failed: i64 = sqlx::query_scalar(failed).fetch_one(&stage.pool).await.unwrap();
    let held = "select min(id) from sluice.job where batch = 'held'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&stage.pool).await.unwrap();
    let done = failed - 1;
    let mut asked = BTreeSet::new();
    let reports = document["paths"]["/api/v1/reports/{kind}"]["get"]["parameters"][0]["schema"]["enum"].clone();
    let reports = reports.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap().to_owned());
    let reports: Vec<String> = reports.map(|kind| format!("/reports/{kind}")).collect();
    let gets = [
        ("/status", "/status".to_owned()),
        ("/batches", "/batches?limit=1".to_owned()),
        ("/batches", "/batches".to_owned()),
        ("/batches/{name}", "/batches/night".to_owned()),
        ("/batches/{name}", "/batches/held".to_owned()),
        ("/jobs", "/jobs?limit=5".to_owned()),
        ("/jobs", "/jobs?state=failed&class=refused&error=stumble".to_owned()),
        ("/jobs/{job}", format!("/jobs/{failed}")),
        ("/jobs/{job}", format!("/jobs/{held}?bodies=true")),
        ("/jobs/{job}", format!("/jobs/{done}?bodies=true")),
        ("/budgets", "/budgets".to_owned()),
        ("/schedules", "/schedules".to_owned()),
        ("/alerts", "/alerts?all=true".to_owned()),
        ("/tasks", "/tasks".to_owned()),
        ("/doctor", "/doctor".to_owned()),
        ("/game-days", "/game-days".to_owned()),
        ("/game-days/{name}", "/game-days/practice".to_owned()),
        ("/batches/{name}/enqueues", "/batches/from%20a%20file/enqueues".to_owned()),
        ("/reports/{kind}", "/reports/cost?by=route&since=1h&compare=before".to_owned()),
    ];
    let gets = gets.into_iter().chain(reports.into_iter().map(|path| ("/reports/{kind}", path)));
    for (path, concrete) in gets {
        let path = format!("/api/v1{path}");
        let reply = site.get(&format!("/api/v1{concrete}")).await;
        assert_eq!(reply.status, 200, "{concrete}: {reply:?}");
        is_as_promised(&document, "get", &path, &reply);
        asked.insert(("get".to_owned(), path.clone()));
        // Names that are not known are refused, everywhere.
        let odd = site.get(&format!("/api/v1{}?nonsense=1", concrete.split('?').next().unwrap())).await;
        assert_eq!(odd.status, 400, "{concrete}: {odd:?}");
        is_as_promised(&document, "get", &path, &odd);
    }
    let posts = [
        ("/routes/{name}/{action}", "/routes/other/pause".to_owned(), json!({ "reason": "a look" }), 200),
        ("/routes/{name}/{action}", "/routes/nil/pause".to_owned(), json!({}), 404),
        ("/projects/{name}/{action}", "/projects/books/resume".to_owned(), json!({}), 200),
        ("/providers/{name}/{action}", "/providers/one/pause".to_owned(), json!({}), 200),
        ("/providers/{name}/{action}", "/providers/one/burn".to_owned(), json!({}), 404),
        ("/schedules/{name}/{action}", "/schedules/rare/run".to_owned(), json!({}), 200),
        ("/schedules/{name}/{action}", "/schedules/rare/pause".to_owned(), json!({ "reason": "a look" }), 200),
        ("/schedules/{name}/{action}", "/schedules/nil/run".to_owned(), json!({}), 404),
        ("/budgets/{name}", "/budgets/all".to_owned(), json!({ "limit": "7.5" }), 200),
        ("/budgets/{name}", "/budgets/all".to_owned(), json!({}), 400),
        ("/jobs/{job}/{action}", format!("/jobs/{held}/cancel"), json!({}), 200),
        ("/jobs/{job}/{action}", format!("/jobs/{held}/pause"), json!({ "reason": "r", "more": 1 }), 400),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "retry", "state": ["failed"], "dry_run": true }), 200),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "retry" }), 400),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "cancel", "all": "true" }), 400),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "cancel", "all": true, "dry_run": null }), 400),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "cancel", "batch": "a\0b" }), 400),
        ("/batches/{name}/{action}", "/batches/a%00b/pause".to_owned(), json!({}), 400),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "retry", "error": "x".repeat(70_000) }), 413),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "cancel", "batch": "night" }), 409),
        ("/batches/{name}/{action}", "/batches/held/resume".to_owned(), json!({}), 200),
        ("/batches/{name}/{action}", "/batches/night/retry".to_owned(), json!({ "dry_run": true }), 200),
        ("/batches/{name}/{action}", "/batches/night/retry".to_owned(), json!({}), 202),
        ("/jobs", "/jobs".to_owned(), json!({ "action": "cancel", "all": true }), 202),
    ];
    for (path, concrete, body, status) in posts {
        let path = format!("/api/v1{path}");
        let reply = site.post(&format!("/api/v1{concrete}"), &body).await;
        assert_eq!(reply.status, status, "{concrete} {body}: {reply:?}");
        is_as_promised(&document, "post", &path, &reply);
        asked.insert(("post".to_owned(), path));
    }
    let task = site.get("/api/v1/tasks/1").await;
    is_as_promised(&document, "get", "/api/v1/tasks/{task}", &task);
    asked.insert(("get".to_owned(), "/api/v1/tasks/{task}".to_owned()));
    let all = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
    });
    assert_eq!(asked, all.collect::<BTreeSet<_>>(), "each question of the document was asked");
    for path in ["/api/v1/", "/api/v1/nothing"] {
        assert_eq!(site.get(path).await.status, 404, "{path}");
    }
    assert_eq!(site.ask("DELETE", "/api/v1/jobs", "", "").await.status, 405);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gaps_and_a_filter_takes_what_it_says() {
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    let walk = async |first: &str, list: &str, key: &str| {
        let mut seen = Vec::new();
        let mut next = Value::Null;
        loop {
            let mark = if list == "jobs" { "below" } else { "after" };
            let path = match &next {
                Value::Null => first.to_owned(),
                Value::String(name) => format!("{first}&{mark}={}", encoded(name)),
                number => format!("{first}&{mark}={number}"),
            };
            let page = site.get(&path).await.json();
            seen.extend(page[list].as_array().unwrap().iter().map(|row| row[key].clone()));
            next = page["next"].clone();
            if next.is_null() {
                return seen;
            }
        }
    };
    let jobs = walk("/api/v1/jobs?limit=3", "jobs", "job").await;
    let numbers: Vec<i64> = jobs.iter().map(|job| job.as_i64().unwrap()).collect();
    let all: Vec<i64> =
        sqlx::query_scalar("select id from sluice.job order by id desc").fetch_all(&stage.pool).await.unwrap();
    assert_eq!(numbers, all);
    let batches = walk("/api/v1/batches?limit=1", "batches", "batch").await;
    let names: BTreeSet<&str> = batches.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!((batches.len(), names), (3, BTreeSet::from(["night", "held", HOSTILE])));
    for (filter, count) in [
        ("batch=night", 15),
        ("batch=night&state=failed", 3),
        ("state=failed", 3),
        ("state=queued", 4),
        ("class=refused", 3),
        ("class=timeout", 0),
        ("project=books", 20),
        ("route=default&state=succeeded,failed", 16),
        ("route=other", 0),
        ("login=nobody", 0),
        ("error=no%20such%20words", 0),
    ] {
        let found = walk(&format!("/api/v1/jobs?limit=7&{filter}"), "jobs", "job").await;
        assert_eq!(found.len(), count, "{filter}");
        let wish = filter.split('&').map(|pair| pair.split_once('=').unwrap());
        let mut body: serde_json::Map<String, Value> =
            wish.map(|(name, value)| (name.to_owned(), value.replace("%20", " ").into())).collect();
        body.insert("action".to_owned(), "retry".into());
        body.insert("dry_run".to_owned(), true.into());
        let would = site.post("/api/v1/jobs", &Value::Object(body)).await.json();
        let failed = if count == 0 || filter == "state=queued" { 0 } else { 3 };
        assert_eq!((&would["jobs"], &would["or_more"]), (&failed.into(), &false.into()), "{filter}: {would}");
    }
    site.stop().await;
}

fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_filter_are_cancelled_paused_resumed_and_retried() {
    let stage = Stage::new("").await;
    let site = stage.site().await;
    stage.fill().await;
    let change = async |body: Value| {
        let reply = site.post("/api/v1/jobs", &body).await;
        assert_eq!(reply.status, 202, "{body}: {reply:?}");
        site.task(&reply.json()).await
    };
    let done = change(json!({ "action": "retry", "class": "refused", "project": "books" })).await;
    assert_eq!((&done["state"], &done["jobs"]), (&"done".into(), &3.into()), "{done}");
    until("they have failed again", async || stage.simulator.verdict().total.calls == 19).await;
    until("they are on the books", async || stage.count("failed").await == 3).await;
    // One by one, beside the pause of their batch.
    let done = change(json!({ "action": "pause", "batch": "held", "reason": "not yet" })).await;
    assert_eq!(done["jobs"], 4, "{done}");
    let resumed = site.post("/api/v1/batches/held/resume", &json!({})).await.json();
    assert_eq!(resumed, json!({ "kind": "batch", "name": "held", "paused": false, "changed": true }));
    let job = site.get("/api/v1/jobs?batch=held&limit=1").await.json()["jobs"][0]["job"].clone();
    let story = site.get(&format!("/api/v1/jobs/{job}")).await.json();
    assert_eq!(story["why"]["waits_for"], "paused", "{story}");
    let done = change(json!({ "action": "resume", "batch": "held" })).await;
    assert_eq!(done["jobs"], 4, "{done}");
    until("they are answered", async || stage.count("succeeded").await == 17).await;
    let again = site.post("/api/v1/jobs", &json!({ "action": "resume", "batch": "held" })).await;
    assert_eq!(again.status, 409, "{again:?}");
    assert!(again.json()["detail"].as_str().unwrap().contains("nothing was done"), "{again:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_thousands_is_made_in_steps_while_the_worker_works() {
    let stage = Stage::new("").await;
    sqlx::query("select sluice.pause('batch', 'many', 'staged')").execute(&stage.pool).await.unwrap();
    stage.enqueue("many", "go", 3_500).await;
    let site: Site = stage.site().await;
    let would = site.post("/api/v1/batches/many/cancel", &json!({ "dry_run": true })).await.json();
    assert_eq!((&would["jobs"], &would["or_more"]), (&3500.into(), &false.into()), "{would}");
    let begun = site.post("/api/v1/batches/many/cancel", &json!({})).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let done = site.task(&begun.json()).await;
    assert_eq!((&done["state"], &done["jobs"]), (&"done".into(), &3500.into()), "{done}");
    assert_eq!(stage.count("cancelled").await, 3_500);
    let books = stage.program.output(&["batch", "show", "many", "--format", "json"]).await;
    let books: Value = serde_json::from_str(&books).unwrap();
    assert_eq!((&books["cancelled"], &books["unfinished"]), (&3500.into(), &0.into()), "{books}");
    site.stop().await;
}
