//! What a route adds to requests, with the real worker: rows that hold just `vars`, by SQL and by file.

use crate::support::fleet::Fleet;
use crate::support::program::{json_lines, text};
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::simulate::request_hash;
use std::fmt::Write as _;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\n[providers.two]\ndialect = \"openai\"\n";

/// Two providers, a route for each, and these lines.
fn config(lines: &str) -> String {
    let mut config = String::new();
    for name in ["one", "two"] {
        write!(
            config,
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n"
        )
        .unwrap();
    }
    config + lines
}

const CLASSIFY: &str = "[routes.default]\nrungs = [\"one/m\"]\nprompt = \"Classify: {text}\"\nsystem = \"Be brief.\"\n\
                        max_tokens = 2000\ntemperature = 0\n";

impl Fleet {
    /// Enqueues a job by SQL, and returns its number.
    async fn insert(&self, request: Value) -> i64 {
        sqlx::query_scalar("insert into sluice.job (request) values ($1) returning id")
            .bind(request)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The requests that were answered, by the simulator's hash of what they asked.
    fn asked(&self) -> Vec<String> {
        let mut asked: Vec<String> = self.calls().into_iter().map(|call| call.request).collect();
        asked.sort();
        asked
    }

    async fn work_off(&self) {
        let output = self.program(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// The class and the words of a job's failure.
    async fn failure(&self, job: i64) -> (String, String) {
        sqlx::query_as("select error_class, error from sluice.results where job_id = $1")
            .bind(job)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

fn hashes(asked: &[(&str, &str)]) -> Vec<String> {
    let mut hashes: Vec<String> =
        asked.iter().map(|(system, prompt)| format!("{:016x}", request_hash(system, &[prompt]))).collect();
    hashes.sort();
    hashes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_holds_just_its_values_is_asked_as_the_route_says() {
    let fleet = Fleet::new(SCENARIO, &config(CLASSIFY)).await;
    let by_sql = fleet.insert(json!({ "vars": { "text": "good \"tea\"" } })).await;
    fleet.insert(json!({ "prompt": "My own" })).await;
    let own = json!([{ "role": "system", "content": "Mine" }, { "role": "user", "content": "All mine" }]);
    fleet.insert(json!({ "messages": own, "max_tokens": 1500 })).await;
    let lacks = fleet.insert(json!({ "vars": { "txt": "a" } })).await;
    let both = fleet.insert(json!({ "vars": { "text": "a" }, "prompt": "b" })).await;
    fleet.file("a.jsonl", "{\"custom_id\":\"x\",\"vars\":{\"text\":\"by file\"},\"row\":7}\n");
    let enqueued = fleet.program(&["enqueue", "a.jsonl"]).output().await.unwrap();
    assert!(enqueued.status.success(), "{}", text(&enqueued.stderr));
    fleet.work_off().await;

    let expected = hashes(&[
        ("Be brief.", "Classify: good \"tea\""),
        ("Be brief.", "My own"),
        ("Mine", "All mine"),
        ("Be brief.", "Classify: by file"),
    ]);
    assert_eq!(fleet.asked(), expected);
    let invalid = |reason: &str| ("invalid_request".to_owned(), reason.to_owned());
    let missing = "request.vars.text: is missing, and the template of the route names it";
    assert_eq!(fleet.failure(lacks).await, invalid(missing));
    let (class, error) = fleet.failure(both).await;
    assert!(class == "invalid_request" && error.starts_with("request.vars: nothing uses them"), "{error}");
    // The row stays as it was written, and the members beside its values are kept.
    let (request, metadata): (Value, Value) =
        sqlx::query_as("select request, metadata from sluice.job where custom_id = 'x'")
            .fetch_one(&fleet.pool)
            .await
            .unwrap();
    assert_eq!((request, metadata), (json!({ "vars": { "text": "by file" } }), json!({ "row": 7 })));
    let answer: Option<String> = sqlx::query_scalar("select answer from sluice.results where job_id = $1")
        .bind(by_sql)
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    assert!(answer.is_some_and(|answer| !answer.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_that_a_rule_leads_to_says_what_is_asked() {
    let lines = "[routes.default]\nrungs = [\"one/m\"]\n\
                 [[routes.default.rules]]\nwhen = { min_input_tokens = 100 }\nroute = \"long\"\n\
                 [[routes.default.rules]]\nroute = \"short\"\n\
                 [routes.short]\nrungs = [\"one/m\"]\nprompt = \"Short: {text}\"\n\
                 [routes.long]\nrungs = [\"two/m\"]\nprompt = \"Long: {text}\"\nsystem = \"Summarise.\"\n";
    let fleet = Fleet::new(SCENARIO, &config(lines)).await;
    let long = "word ".repeat(200);
    fleet.insert(json!({ "vars": { "text": "few words" } })).await;
    fleet.insert(json!({ "vars": { "text": long } })).await;
    fleet.work_off().await;
    let prompt = format!("Long: {long}");
    assert_eq!(fleet.asked(), hashes(&[("", "Short: few words"), ("Summarise.", &prompt)]));

    // The commands look at a file in the same way.
    fleet.file("a.jsonl", &format!("{{\"vars\":{{\"text\":\"{long}\"}}}}\n{{\"vars\":{{\"txt\":\"a\"}}}}\n"));
    let checked = fleet.program(&["enqueue", "--dry-run", "a.jsonl"]).output().await.unwrap();
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(7), "{said}");
    assert!(said.contains("a.jsonl:2: vars.text: is missing, and the template of the route names it"), "{said}");
    fleet.file("b.csv", &format!("text\n{long}\n"));
    let command = ["estimate", "b.csv", "--route", "long", "--format", "json"];
    let estimated = fleet.program(&command).output().await.unwrap();
    let estimated: Value = serde_json::from_slice(&estimated.stdout).unwrap();
    let tokens = estimated[0]["input_tokens"].as_i64().unwrap();
    assert!((240..400).contains(&tokens), "with the words of the route: {estimated}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_is_asked_of_jobs_that_are_in_hand() {
    let busy = "[providers.one]\ndialect = \"openai\"\nfaults = [{ kind = \"overloaded\", first_n_calls = 1 }]\n\
                latency = { fixed = \"500ms\" }\n[providers.two]\ndialect = \"openai\"\n";
    let fleet = Fleet::new(busy, &config(CLASSIFY)).await;
    let worker = fleet.start();
    fleet.insert(json!({ "vars": { "text": "tea" } })).await;
    until("the call has begun", async || fleet.verdict().providers["one"].figures.calls == 1).await;
    fleet.configure(&config(&CLASSIFY.replace("Classify:", "Translate:")));
    worker.signal(Signal::HUP);
    worker.until_said("the configuration was read again and is in force", 1).await;
    fleet.until_answered(1).await;
    worker.stop().await;
    let answered: Vec<String> =
        fleet.calls().into_iter().filter(|call| call.charged).map(|call| call.request).collect();
    assert_eq!(answered, hashes(&[("Be brief.", "Translate: tea")]));
    fleet.books_are_in_order(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_of_a_table_asks_every_rung_what_the_route_says() {
    let lines = CLASSIFY.replace("[\"one/m\"]", "[\"one/m\", \"two/m\"]");
    let fleet = Fleet::new(SCENARIO, &config(&lines)).await;
    fleet.file("a.csv", "id,text\n1,tea\n2,coffee\n");
    let command = ["trial", "a.csv", "--id-column", "id", "-o", "trial.jsonl"];
    let output = fleet.program(&command).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let both = [("Be brief.", "Classify: tea"), ("Be brief.", "Classify: coffee")];
    assert_eq!(fleet.asked(), hashes(&[both, both].concat()));
    let compared = json_lines(&fleet.file("none", "").with_file_name("trial.jsonl"));
    assert_eq!((compared.len(), &compared[0]["custom_id"]), (2, &json!("1")));
}
