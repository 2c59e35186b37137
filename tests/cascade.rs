//! Cascades with the real worker: a rung that is not sure enough of its answer is followed by the next one, and no
//! answer is lost.

use crate::support::fleet::Fleet;
use crate::support::program::json_lines;
use crate::support::scripted::{Scripted, answer};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A cheap rung that is sure of everything but the hard questions, and a dear one that behaves as these lines say.
async fn stage(dear: &str, route: &str) -> Fleet {
    let scenario = format!(
        "[providers.cheap]\ndialect = \"openai\"\n\
         answers = [{{ containing = \"hard\", text = \"perhaps\", confidence = 0.6 }},\
                    {{ containing = \"easy\", text = \"yes\", confidence = 0.95 }}]\n\
         [providers.dear]\ndialect = \"openai\"\n\
         answers = [{{ containing = \"\", text = \"no\", confidence = 0.5 }}]\n{dear}\n"
    );
    Fleet::new(&scenario, &config(1, route)).await
}

/// The configuration, with the price of the cheap rung and further lines of the route.
fn config(cheap: u32, route: &str) -> String {
    let provider = |name: &str, price: u32| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n"
        )
    };
    format!(
        "{}{}[routes.default]\nrungs = [\"cheap/m\", \"dear/m\"]\n\
         cascade = {{ confidence = \"mean_logprob\", at_least = 0.8 }}\n{route}\n",
        provider("cheap", cheap),
        provider("dear", 10)
    )
}

impl Fleet {
    async fn ask(&self, prompt: &str) -> i64 {
        sqlx::query_scalar("insert into sluice.job (batch, request) values ('b', $1) returning id")
            .bind(json!({ "prompt": prompt }))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn drained(&self) {
        let output = self.program(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn told(&self, job: i64) -> String {
        let output = self.program(&["explain", &job.to_string()]).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Answer, provider, attempts, confidence, and whether it was taken although it is not sure.
    async fn result(&self, job: i64) -> (String, String, i16, Option<f64>, bool) {
        sqlx::query_as(
            "select answer, provider, attempts, confidence, low_confidence from sluice.results
              where job_id = $1 and response #> '{choices,0,logprobs}' is null",
        )
        .bind(job)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_climbs_where_its_rung_is_not_sure_enough_and_only_there() {
    let fleet = stage("", "").await;
    let (easy, hard) = (fleet.ask("easy").await, fleet.ask("hard").await);
    fleet.drained().await;
    assert_eq!(fleet.result(easy).await, ("yes".into(), "cheap".into(), 1, Some(0.95), false));
    // The last rung's answer is taken as it is.
    assert_eq!(fleet.result(hard).await, ("no".into(), "dear".into(), 2, Some(0.5), false));
    let ledger: Vec<(String, bool, Option<String>, Option<f64>)> = sqlx::query_as(
        "select provider, accepted, detail, confidence from sluice.attempts where job_id = $1 order by number",
    )
    .bind(hard)
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    let unsure = ("cheap".to_owned(), false, Some("low_confidence".to_owned()), Some(0.6));
    assert_eq!(ledger, [unsure, ("dear".to_owned(), true, None, Some(0.5))]);
    let story = fleet.told(hard).await;
    for words in [
        "rejected after ",
        ": soft_failure, low_confidence",
        "not cheap/m: it had failed this job already (soft_failure)",
        "“its confidence is 0.6, at least 0.8 is asked for”",
        "its confidence is 0.5\n",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(fleet.told(easy).await.contains("its confidence is 0.95\n"));
    // The rejected answer was paid for, and is in what an accepted one costs.
    let waste = "select (sum(waste_nanos) > 0 and sum(attempts) = 3 and sum(succeeded) = 2)::int::bigint
                   from sluice.totals";
    assert_eq!(fleet.number(waste).await, 1);
    fleet.books_are_in_order(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_sure_is_taken_and_marked_where_the_rungs_above_fail() {
    let fleet = stage("faults = [{ kind = \"server_error\" }]", "cache = \"1h\"").await;
    let hard = fleet.ask("hard").await;
    fleet.drained().await;
    assert_eq!(fleet.result(hard).await, ("perhaps".into(), "cheap".into(), 4, Some(0.6), true));
    let story = fleet.told(hard).await;
    for words in ["it was not sure enough, and no surer answer came", "its rung was not sure enough of it"] {
        assert!(story.contains(words), "{words}: {story}");
    }
    fleet.books_are_in_order(1).await;
    let written = fleet.file("out.jsonl", "");
    let path = written.to_str().unwrap();
    let output = fleet.program(&["results", "b", "-o", path, "--force"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line: Value = json_lines(&written).remove(0);
    assert_eq!((&line["sluice"]["confidence"], &line["sluice"]["low_confidence"]), (&json!(0.6), &json!(true)));
    assert_eq!(line["response"]["body"]["choices"][0]["message"]["content"], "perhaps", "{line}");
    // A price that was wrong is corrected where the answer was booked, as one that was rejected.
    let before = fleet.number("select sum(cost_nanos)::bigint from sluice.attempt where provider = 'cheap'").await;
    fleet.configure(&config(3, "cache = \"1h\""));
    let output = fleet.program(&["reprice", "--yes"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for sums in [
        "select sum(cost_nanos)::bigint from sluice.attempt where provider = 'cheap'",
        "select sum(cost_nanos)::bigint from sluice.totals where class = 'soft_failure' and detail = 'low_confidence'",
        "select sum(waste_nanos)::bigint from sluice.totals where class = 'soft_failure' and detail = 'low_confidence'",
    ] {
        assert_eq!(fleet.number(sums).await, before * 3, "{sums}");
    }
    fleet.books_are_in_order(1).await;
    // It is not given to the next job with the same request.
    let again = fleet.ask("hard").await;
    fleet.drained().await;
    assert_eq!(fleet.result(again).await.2, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_an_earlier_claim_is_taken_from_the_ledger_with_its_repair() {
    let limited = "faults = [{ kind = \"rate_limit\", first_n_calls = 1, wait = \"4s\" }, { kind = \"server_error\" }]";
    let fleet = stage(limited, "max_attempts = 2").await;
    let hard = sqlx::query_scalar("insert into sluice.job (request) values ($1) returning id")
        .bind(json!({ "prompt": "hard" }))
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    let worker = fleet.start();
    fleet.until_answered(1).await;
    worker.stop().await;
    let (answer, provider, attempts, confidence, is_unsure) = fleet.result(hard).await;
    assert_eq!((answer.as_str(), provider.as_str(), confidence, is_unsure), ("perhaps", "cheap", Some(0.6), true));
    assert_eq!(attempts, 3);
    fleet.books_are_in_order(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probabilities_are_asked_for_where_a_cascade_needs_them_and_a_field_says_how_sure_an_answer_is() {
    let providers = Scripted::start(|call, _| match call.provider.as_str() {
        "cheap" => answer(r#"Here it is: {"label":"a","sure":40}"#),
        _ => (500, Vec::new()),
    })
    .await;
    let provider =
        |name: &str| format!("[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{}\"\n", providers.base_url(name));
    let rungs = "rungs = [\"cheap/m\", \"dear/m\"]\nmax_attempts = 2\nstrategy = \"priority\"";
    let config = format!(
        "{}{}[routes.default]\n{rungs}\n[routes.field]\n{rungs}\nvalidate = {{ json = true }}\n\
         cascade = {{ confidence = \"/sure\", at_least = 50 }}\n[routes.tokens]\n{rungs}\n\
         cascade = {{ confidence = \"min_logprob\", at_least = 0.5 }}\n",
        provider("cheap"),
        provider("dear")
    );
    let fleet = Fleet::new("[providers.none]\ndialect = \"openai\"\n", &config).await;
    for route in ["default", "field", "tokens"] {
        fleet.enqueue(route, 1).await;
    }
    fleet.drained().await;
    let mut asking: Vec<Value> = providers.calls("cheap").iter().map(|call| call.body["logprobs"].clone()).collect();
    asking.sort_by_key(Value::to_string);
    assert_eq!(asking, [Value::Null, Value::Null, json!(true)]);
    let results: Vec<(String, String, Option<f64>, bool, bool, i16)> = sqlx::query_as(
        "select route, answer, confidence, low_confidence, repaired, attempts from sluice.results order by route",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    let whole = "Here it is: {\"label\":\"a\",\"sure\":40}";
    let expected = [
        ("default".to_owned(), whole.to_owned(), None, false, false, 1),
        ("field".to_owned(), r#"{"label":"a","sure":40}"#.to_owned(), Some(40.0), true, true, 2),
        // The answer does not say how sure it is.
        ("tokens".to_owned(), whole.to_owned(), None, true, false, 2),
    ];
    assert_eq!(results, expected);
    // The ledger has the answer as it came.
    let kept = "select count(*) from sluice.attempts where accepted and detail = 'low_confidence'
                   and answer #>> '{choices,0,message,content}' like 'Here it is%'";
    assert_eq!(fleet.number(kept).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_shows_what_each_threshold_would_have_cost_and_kept() {
    let fleet = stage("", "").await;
    let mut lines = String::new();
    for n in 0..10 {
        let prompt = format!("{} {n}", if n < 3 { "hard" } else { "easy" });
        writeln!(lines, "{}", json!({ "prompt": prompt, "max_tokens": 20 })).unwrap();
    }
    let file = fleet.file("q.jsonl", &lines);
    let command = ["trial", file.to_str().unwrap(), "-n", "10", "--batch", "t", "--thresholds", "--format", "json"];
    let output = fleet.program(&command).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let shown: Vec<(&str, &Value, &Value, &Value)> = rows
        .iter()
        .map(|row| (row["at_least"].as_str().unwrap(), &row["kept"], &row["climbing"], &row["accepted"]))
        .collect();
    let ten = json!(10);
    assert_eq!(
        shown,
        [("0.6", &ten, &json!(0), &ten), ("0.8", &json!(7), &json!(3), &ten), ("0.95", &json!(7), &json!(3), &ten),]
    );
    let cost = |row: usize| rows[row]["cost"].as_f64().unwrap();
    assert!(cost(0) < cost(1), "{rows:#?}");
    assert!((rows[1]["share_climbing"].as_f64().unwrap() - 0.3).abs() < 1e-9, "{rows:#?}");
    let both = fleet
        .program(&["trial", file.to_str().unwrap(), "-n", "10", "--batch", "t", "--format", "table"])
        .output()
        .await
        .unwrap();
    let both = String::from_utf8(both.stdout).unwrap();
    assert!(both.contains("dear/m") && both.contains("0.95"), "{both}");
}
