//! `sluice trial`: the same requests asked of each rung, by the program against the simulator.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use std::fmt::Write as _;

/// A database, two providers of which one gives empty answers, and the program.
struct Trial {
    pool: PgPool,
    simulator: Simulator,
    config: String,
    program: Program,
    _database: crate::support::postgres::TestDatabase,
}

impl Trial {
    async fn new(latency: &str) -> Self {
        let database = database().await;
        let scenario = format!(
            "record_calls = 10000\n\
             [providers.good]\ndialect = \"anthropic\"\nlatency = {{ fixed = \"{latency}\" }}\n\
             models.large.price = {{ input = \"3\", output = \"15\" }}\n\
             [providers.bad]\ndialect = \"openai\"\nfaults = [{{ kind = \"empty\", rate = 1.0 }}]\n\
             models.small.price = {{ input = \"1\", output = \"2\" }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 4\n[http]\nlisten = \"off\"\n\
             [providers.bad]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [providers.good]\ndialect = \"anthropic\"\nbase_url = \"{}\"\n\
             [models.\"bad/small\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [models.\"good/large\"]\nprice = {{ input = \"3\", output = \"15\" }}\n\
             [routes.default]\nrungs = [\"bad/small\", \"good/large\"]\nmax_attempts = 2\n\
             [routes.other]\nrungs = [\"good/large\"]\n",
            simulator.base_url("bad").unwrap(),
            simulator.base_url("good").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), simulator, config, program, _database: database }
    }

    fn calls(&self) -> u64 {
        self.simulator.verdict().total.calls
    }

    async fn jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&self.pool).await.unwrap()
    }
}

fn requests(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "{{\"custom_id\": \"q-{n}\", \"prompt\": \"Question {n}\", \"max_tokens\": 50}}").unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rung_is_asked_the_same_and_stands_in_a_row_with_its_money() {
    let trial = Trial::new("1ms").await;
    trial.program.file("q.jsonl", requests(100));
    let command = ["trial", "q.jsonl", "-n", "5", "--batch", "t", "-o", "out.jsonl", "--format", "json"];
    let rows: Vec<Value> = serde_json::from_str(&trial.program.output(&command).await).unwrap();
    assert_eq!(rows.len(), 2);
    let [bad, good] = rows.as_slice() else { panic!("{rows:?}") };
    for (row, member, expected) in [
        (bad, "target", json!("bad/small")),
        (bad, "asked", json!(5)),
        (bad, "accepted", json!(0)),
        (bad, "failed", json!(5)),
        (bad, "attempts", json!(10)),
        (bad, "rejected", json!("empty 10")),
        (bad, "cost_per_answer", Value::Null),
        (bad, "whole_file", Value::Null),
        (good, "target", json!("good/large")),
        (good, "accepted", json!(5)),
        (good, "attempts", json!(5)),
        (good, "rejected", Value::Null),
    ] {
        assert_eq!(row[member], expected, "{member}: {row}");
    }
    let money = |member: &str| good[member].as_f64().unwrap();
    assert!((money("cost") - 5.0 * money("cost_per_answer")).abs() < 1e-8, "{good}");
    // The questions are all alike, so the file costs as often as it has more of them.
    assert!((money("whole_file") / (20.0 * money("cost")) - 1.0).abs() < 0.05, "{good}");
    assert!(bad["cost"].as_f64().unwrap() > 0.0, "rejected answers are paid for: {bad}");

    let answers = json_lines(&trial.program.path("out.jsonl"));
    assert_eq!(answers.len(), 5);
    for answer in &answers {
        let line = answer["line"].as_u64().unwrap();
        assert_eq!(answer["custom_id"], format!("q-{}", line - 1));
        let [bad, good] = answer["rungs"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        assert_eq!((&bad["state"], &bad["class"]), (&json!("failed"), &json!("soft_failure")), "{answer}");
        assert_eq!((&good["state"], &good["attempts"]), (&json!("accepted"), &json!(1)), "{answer}");
        assert!(!good["answer"].as_str().unwrap().is_empty(), "{answer}");
    }
    let asked: Vec<(String, i64)> =
        sqlx::query_as("select route, count(*) from sluice.job group by route order by route")
            .fetch_all(&trial.pool)
            .await
            .unwrap();
    assert_eq!(asked, [("trial:default:bad/small".to_owned(), 5), ("trial:default:good/large".to_owned(), 5)]);

    // Said again, it asks nothing again; for reading, it writes texts.
    let calls = trial.calls();
    assert_eq!(calls, 15);
    trial.program.output(&["trial", "q.jsonl", "-n", "5", "--batch", "t", "-o", "out.md"]).await;
    let page = std::fs::read_to_string(trial.program.path("out.md")).unwrap();
    assert_eq!(page.matches("## Line ").count(), 5, "{page}");
    assert!(page.contains("### 2. good/large: accepted, $") && page.contains("Question "), "{page}");
    assert_eq!((trial.calls(), trial.jobs().await), (calls, 10));
    // Rungs are known by their targets, regardless of their places now.
    let turned = trial.config.replace("[\"bad/small\", \"good/large\"]", "[\"good/large\", \"bad/small\"]");
    trial.program.file("sluice.toml", turned);
    let command = ["trial", "q.jsonl", "-n", "5", "--batch", "t", "--format", "json"];
    let turned: Vec<Value> = serde_json::from_str(&trial.program.output(&command).await).unwrap();
    for (row, before) in turned.iter().zip(rows.iter().rev()) {
        assert_eq!((&row["target"], &row["cost"]), (&before["target"], &before["cost"]));
    }
    assert_eq!((trial.calls(), trial.jobs().await), (calls, 10));
    // As a pilot it teaches what calls cost, and not what jobs of the route do: each of these had one rung.
    let estimate = ["estimate", "q.jsonl", "--pilot", "t", "--format", "json"];
    let output = trial.program.run(&estimate).await;
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("batch t is of a trial, whose jobs have one rung each"), "{said}");
    let told: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told.last().unwrap()["as_lately"], Value::Null, "{told:?}");
    // A larger number adds the new requests.
    trial.program.output(&["trial", "q.jsonl", "-n", "6", "--batch", "t"]).await;
    assert_eq!((trial.calls(), trial.jobs().await), (calls + 3, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_is_stopped_goes_on_as_it_says() {
    let trial = Trial::new("300ms").await;
    trial.program.file("q.jsonl", requests(40));
    let mut command = trial.program.command(&["trial", "q.jsonl", "--route", "default", "-n", "12", "-o", "out"]);
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let calls_of_good = async || {
        sqlx::query_scalar::<_, i64>("select count(*) from sluice.attempt where provider = 'good'")
            .fetch_one(&trial.pool)
            .await
            .is_ok_and(|calls| calls >= 1)
    };
    until("an answer was booked", calls_of_good).await;
    kill_process(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap(), Signal::INT).unwrap();
    let ended = ended(child).await;
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(!trial.program.path("out").exists());
    let told = said.lines().find(|line| line.contains(" trial q.jsonl ")).expect(&said);
    let words: Vec<&str> = told.split_whitespace().skip_while(|word| *word != "trial").collect();
    let table = trial.program.output(&words).await;
    assert!(table.contains("good/large"), "{table}");
    assert_eq!(json_lines(&trial.program.path("out")).len(), 12);
    let attempts: i64 = sqlx::query_scalar("select count(*) from sluice.attempt where provider = 'good' and accepted")
        .fetch_one(&trial.pool)
        .await
        .unwrap();
    assert_eq!((attempts, trial.calls()), (12, 12 + 24), "no answer was bought twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_ends_at_its_deadline_whatever_it_waits_for() {
    let trial = Trial::new("1ms").await;
    trial.program.file("q.jsonl", requests(3));
    trial.program.output(&["project", "pause", "default"]).await;
    let command = ["trial", "q.jsonl", "-n", "2", "--batch", "t", "--deadline", "1s", "--format", "json"];
    let ended = trial.program.run(&command).await;
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(said.contains("the deadline is over: 4 requests had no answer yet and are cancelled"), "{said}");
    assert!(said.contains("the first waited for: project default is paused by "), "{said}");
    let rows: Vec<Value> = serde_json::from_str(&text(&ended.stdout)).unwrap();
    for row in &rows {
        assert_eq!((&row["cancelled"], &row["attempts"]), (&json!(2), &json!(0)), "{row}");
    }
    assert_eq!(trial.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_trial_can_be_made_of_is_refused_before_anything_is_asked() {
    let trial = Trial::new("1ms").await;
    trial.program.file("q.jsonl", requests(9));
    trial.program.file("other.jsonl", requests(9).replace("Question", "Another question"));
    trial.program.file("empty.jsonl", "");
    trial.program.file("faulty.jsonl", "{\"prompt\": \"a\"}\n{}\n");
    trial.program.output(&["enqueue", "q.jsonl", "--batch", "plain"]).await;
    trial.program.output(&["trial", "q.jsonl", "-n", "4", "--batch", "t"]).await;
    let (jobs, calls) = (trial.jobs().await, trial.calls());
    let long = "x".repeat(201);
    for (arguments, status, said) in [
        (&["empty.jsonl"][..], 7, "there are no jobs in it"),
        (&["none.jsonl"], 7, "No such file"),
        (&["faulty.jsonl"], 7, "1 of 2 lines are faulty (--skip-bad takes the others)"),
        (&["q.jsonl", "--route", "nope"], 6, "there is no route `nope`"),
        (&["q.jsonl", "--route", "other", "--batch", "t"], 2, "is no trial of route other"),
        (&["q.jsonl", "-n", "0"], 2, "0 is not in 1..=1000"),
        (&["q.jsonl", "-n", "1001"], 2, "1001 is not in 1..=1000"),
        (&["q.jsonl", "-o", "q.jsonl", "--force"], 2, "is the file that is read"),
        (&["q.jsonl", "--batch", &long], 2, "--batch: is 201 bytes long"),
        (&["q.jsonl", "--deadline", "2020-01-01T00:00:00Z"], 2, "lies in the past"),
        (&["q.jsonl", "--project", ""], 2, "a value is required for '--project"),
        (&["q.jsonl", "--batch", "plain"], 2, "is no trial of route default"),
        (&["q.jsonl", "--batch", "t", "-n", "3"], 2, "of more requests or of other rungs"),
        (&["other.jsonl", "--batch", "t", "-n", "4"], 2, "is a trial of another file"),
    ] {
        let output = trial.program.run(&[&["trial"], arguments].concat()).await;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
        assert_eq!((trial.jobs().await, trial.calls()), (jobs, calls), "{arguments:?}");
    }
}
