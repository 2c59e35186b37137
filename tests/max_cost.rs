//! `max_cost` of a route: what the calls of one job may cost together.

use crate::support::postgres::database;
use crate::support::program::Program;
use crate::support::queue::enqueue_request;
use crate::support::scripted::{Call, Reply, Scripted, altered, billed, cut};
use serde_json::json;

/// The tokens of every answer: nearly as many as the cap allows.
const TOKENS: i64 = 250;

fn script(call: &Call) -> Reply {
    match (call.prompt(), call.body["model"].as_str()) {
        // It is longer than its cap.
        ("long", _) if call.body["max_tokens"].as_i64().unwrap() < 500 => cut("Half an ans", TOKENS),
        // Only the dear model knows what is hard.
        ("hard", Some("dear")) | ("easy" | "long" | "fast" | "many", _) => billed("{\"known\": true}", TOKENS),
        // The answer of a model whose price is not known.
        ("odd", _) => altered(billed("no JSON", TOKENS), |body| body["model"] = json!("stranger")),
        _ => billed("no JSON", TOKENS),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_job_cost_no_more_than_its_route_allows() {
    let provider = Scripted::start(|call, _| script(call)).await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n\
         [providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 20 }}\n\
         [models.\"p/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\ntiers = {{ priority = \"10\" }}\n\
         [models.\"p/other\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [models.\"p/dear\"]\nprice = {{ input = \"1000\", output = \"1000\" }}\n\
         [routes.bound]\nrungs = [\"p/m\", \"p/dear\"]\nmax_cost = \"0.001\"\n\
         [routes.roomy]\nrungs = [\"p/m\", \"p/dear\"]\nmax_cost = \"1\"\n\
         [routes.race]\nrungs = [\"p/m\", \"p/other\", \"p/dear\"]\nmax_cost = \"0.001\"\n\
         strategy = \"race\"\nrace_after = \"0s\"\nrace_at_most = 3\n\
         [routes.tight]\nrungs = [\"p/m\", \"p/dear\"]\nmax_cost = \"0.0001\"\n\
         [routes.passing]\nrungs = [\"p/m\"]\nmax_cost = \"0.001\"\npass = [\"service_tier\", \"best_of\"]\n\
         [routes.unpriced]\nrungs = [\"p/nameless\", \"p/m\"]\nstrategy = \"priority\"\nmax_cost = \"0.001\"\n",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    program.output(&["migrate"]).await;
    let pool = database.pool();
    for (route, prompt, state, calls, models) in [
        // Three calls of some 0.00027 fit into a tenth of a cent; a call of the dear model never does.
        ("bound", "hard", "failed", 3..=3, vec!["m"]),
        ("bound", "easy", "succeeded", 1..=1, vec!["m"]),
        ("roomy", "hard", "succeeded", 2..=3, vec!["dear", "m"]),
        ("race", "hard", "failed", 3..=3, vec!["m", "other"]),
        ("tight", "easy", "failed", 0..=0, vec![]),
        ("unpriced", "easy", "succeeded", 1..=1, vec!["m"]),
        // A cap four times as large may cost too much, and twice as large it does not.
        ("bound", "long", "succeeded", 2..=2, vec!["m"]),
        // A tier of ten times the price, or five answers, where the route lets the request ask for them.
        ("passing", "easy", "succeeded", 1..=1, vec!["m"]),
        ("passing", "fast", "failed", 0..=0, vec![]),
        ("passing", "many", "failed", 0..=0, vec![]),
        ("bound", "fast", "succeeded", 1..=1, vec!["m"]),
        ("bound", "many", "succeeded", 1..=1, vec!["m"]),
        // What a stranger's answer cost is not known, so there may be nothing left.
        ("bound", "odd", "failed", 1..=1, vec!["m"]),
    ] {
        let request = match prompt {
            "fast" => json!({ "prompt": prompt, "max_tokens": 256, "service_tier": "priority" }),
            "many" => json!({ "prompt": prompt, "max_tokens": 256, "best_of": 5 }),
            "long" => json!({ "prompt": prompt, "max_tokens": 256, "validate": { "raise_cap": "always" } }),
            _ => json!({ "prompt": prompt, "max_tokens": 256, "response_format": { "type": "json_object" } }),
        };
        enqueue_request(&pool, route, &request).await;
        program.output(&["worker", "--drain"]).await;
        let (ended, cost, error): (String, Option<f64>, Option<String>) =
            sqlx::query_as("select state::text, cost::float8, error from sluice.results order by job_id desc limit 1")
                .fetch_one(&pool)
                .await
                .unwrap();
        let mut asked: Vec<String> = sqlx::query_scalar(
            "select model from sluice.attempts where job_id = (select max(id) from sluice.job) order by number",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        let count = asked.len();
        asked.sort();
        asked.dedup();
        assert_eq!(
            (ended.as_str(), asked),
            (state, models.iter().map(ToString::to_string).collect()),
            "{route} {error:?}"
        );
        assert!(calls.contains(&count), "{route} {prompt}: {count} calls");
        if route != "roomy" {
            assert!(cost.is_none_or(|cost| cost <= 0.001), "{route}: {cost:?}");
        }
        if state == "failed" {
            let error = error.unwrap();
            assert!(error.contains("max_cost"), "{route} {prompt}: {error}");
        }
    }
    // The rungs that were passed over, and those that the job can never pay for.
    let story = program.output(&["explain", "6"]).await;
    assert!(story.contains("has no price, and max_cost of $0.001 takes only calls"), "{story}");
    let story = program.output(&["explain", "5"]).await;
    assert!(story.contains("and max_cost is $0.0001"), "{story}");
    // Enqueued again by hand, it may spend as much once more.
    program.output(&["job", "retry", "1"]).await;
    program.output(&["worker", "--drain"]).await;
    let calls: i64 =
        sqlx::query_scalar("select count(*) from sluice.attempts where job_id = 1").fetch_one(&pool).await.unwrap();
    assert_eq!(calls, 6);
}
