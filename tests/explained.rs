//! The story of one job on one screen: the order, the rungs that were never asked, and waits that are over.

use crate::support::fleet::Fleet;
use crate::support::wait::until;
use serde_json::{Value, json};

const SCENARIO: &str = "\
    [providers.broken]\ndialect = \"openai\"\nfaults = [{ kind = \"server_error\" }]\n\
    [providers.usual]\ndialect = \"openai\"\n\
    [providers.plain]\ndialect = \"openai\"\n\
    [providers.dear]\ndialect = \"openai\"\n";

const CONFIG: &str = "\
    [providers.broken]\ndialect = \"openai\"\nbase_url = \"http://simulator/broken/v1\"\n\
    [providers.usual]\ndialect = \"openai\"\nbase_url = \"http://simulator/usual/v1\"\n\
    [providers.plain]\ndialect = \"openai\"\nbase_url = \"http://simulator/plain/v1\"\n\
    [providers.dear]\ndialect = \"openai\"\nbase_url = \"http://simulator/dear/v1\"\n\
    [models.\"broken/m\"]\nprice = { input = \"1\", output = \"2\" }\n\
    [models.\"usual/m\"]\nprice = { input = \"2\", output = \"4\" }\n\
    [models.\"plain/m\"]\nprice = { input = \"3\", output = \"6\" }\ntools = false\n\
    [models.\"dear/m\"]\nprice = { input = \"4\", output = \"8\" }\n\
    [routes.default]\nrungs = [\"dear/m\", \"plain/m\", \"usual/m\", \"broken/m\"]\n\
    [routes.alone]\nrungs = [\"broken/m\", \"dear/m\"]\nfallback_on = [\"rate_limit\"]\nmax_attempts = 2\n";

impl Fleet {
    async fn insert_one(&self, route: &str, batch: Option<&str>, request: &Value) -> i64 {
        sqlx::query_scalar("insert into sluice.job (route, batch, request) values ($1, $2, $3) returning id")
            .bind(route)
            .bind(batch)
            .bind(request)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn told_as(&self, job: i64, format: &str) -> String {
        let output = self.program(&["explain", &job.to_string(), "--format", format]).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_story_with_the_rungs_that_were_never_asked_and_the_pause_that_is_over_fits_one_screen() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let tools = json!({
        "prompt": "Hi", "max_tokens": 100, "tools": [{ "type": "function", "function": { "name": "f" } }],
    });
    let waits = fleet.insert_one("default", Some("nightly"), &tools).await;
    assert!(fleet.program(&["batch", "pause", "nightly"]).output().await.unwrap().status.success());
    let alone = fleet.insert_one("alone", None, &json!({ "prompt": "Hi" })).await;
    let worker = fleet.start();
    until("the job without a pause has ended", async || fleet.number("select count(*) from sluice.result").await == 1)
        .await;
    // The worker has looked at the pause by now; the job has waited long enough for that to be told.
    until("the paused job has waited for a second", async || {
        fleet
            .number("select count(*) from sluice.job where batch = 'nightly' and created_at < now() - interval '1 s'")
            .await
            == 1
    })
    .await;
    assert!(fleet.program(&["batch", "resume", "nightly"]).output().await.unwrap().status.success());
    until("both have ended", async || fleet.number("select count(*) from sluice.result").await == 2).await;
    worker.stop().await;

    let story = fleet.told_as(waits, "table").await;
    for words in [
        "Route default has 4 rungs for it as configured now, the cheapest first:\n   1. broken/m  ~$0.0002",
        "asked: #1, #2, #3 (server_error)\n   2. usual/m",
        "answered: #4\n   3. plain/m",
        "it can never take this request: it does not support tools\n   4. dear/m",
        "never asked: the job had its answer\n",
        "   it waited: its batch was paused\n",
        "#3 the same again at ",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    let rows: usize = story.lines().map(|line| line.chars().count().div_ceil(80).max(1)).sum();
    assert!(rows <= 36, "{rows} rows of 80 columns: {story}");

    let told: Value = serde_json::from_str(&fleet.told_as(waits, "json").await).unwrap();
    let rungs = told["course"]["rungs"].as_array().unwrap();
    let fates: Vec<_> = rungs.iter().map(|rung| rung["fate"].as_str().unwrap()).collect();
    assert_eq!(fates, ["asked", "answered", "ineligible", "never_asked"]);
    assert_eq!((&told["course"]["route"], &told["course"]["ordered"]), (&json!("default"), &json!(true)));

    let story = fleet.told_as(alone, "table").await;
    let words = "never asked: the route does not go on to another rung after server_error\n";
    assert!(story.contains(words), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_rested_says_for_what_when_it_is_called_again_by_another_worker() {
    let scenario = "markers = true\n[providers.slow]\ndialect = \"openai\"\n";
    let config = "[providers.slow]\ndialect = \"openai\"\nbase_url = \"http://simulator/slow/v1\"\n\
        [routes.default]\nrungs = [\"slow/m\"]\n";
    let fleet = Fleet::new(scenario, config).await;
    let job = fleet.insert_one("default", None, &json!({ "prompt": "[[faults:rate_limit:wait=4,ok]] Hi" })).await;
    let first = fleet.start();
    until("the job rests", async || fleet.number("select count(*) from sluice.parked").await == 1).await;
    first.stop().await;
    let second = fleet.start();
    until("it has ended", async || fleet.number("select count(*) from sluice.result").await == 1).await;
    second.stop().await;
    let story = fleet.told_as(job, "table").await;
    assert!(story.contains("   it waited: slow/m: its limit was used up\n"), "{story}");
}
