//! Rules that send some jobs of a route along another one, with the real worker.

use crate::support::fleet::Fleet;
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Providers of these names, and a route for each that is called like it; then these lines.
async fn fleet(providers: &[(&str, &str)], lines: &str) -> Fleet {
    let (scenario, config) = described(providers, lines);
    Fleet::new(&scenario, &config).await
}

/// The scenario and the configuration of [`fleet`].
fn described(providers: &[(&str, &str)], lines: &str) -> (String, String) {
    let (mut scenario, mut config) = (String::new(), String::new());
    for (name, behaves) in providers {
        writeln!(scenario, "[providers.{name}]\ndialect = \"openai\"\n{behaves}").unwrap();
        writeln!(config, "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"")
            .unwrap();
        writeln!(config, "[models.\"{name}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}").unwrap();
        writeln!(config, "[routes.{name}]\nrungs = [\"{name}/m\"]").unwrap();
    }
    (scenario, config + lines)
}

impl Fleet {
    /// Enqueues one job of the route `usual`, and returns its number.
    async fn job(&self, project: &str, batch: Option<&str>, metadata: Value, request: Value) -> i64 {
        sqlx::query_scalar(
            "insert into sluice.job (route, project, batch, metadata, request)
             values ('usual', $1, $2, $3, $4) returning id",
        )
        .bind(project)
        .bind(batch)
        .bind(metadata)
        .bind(request)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// Who answered each job.
    async fn answerers(&self) -> BTreeMap<i64, String> {
        let rows: Vec<(i64, String)> = sqlx::query_as("select job_id, provider from sluice.attempt where accepted")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.into_iter().collect()
    }

    async fn explained(&self, job: i64) -> String {
        let output = self.program(&["explain", &job.to_string()]).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn works_until_done(&self) {
        let output = self.program(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn prompt(words: usize) -> Value {
    json!({ "prompt": "word ".repeat(words) })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_goes_along_the_route_of_the_first_rule_that_holds_and_explain_says_which() {
    let rules = "\
        [[routes.usual.rules]]\nwhen = { metadata = { tier = [\"gold\", 3] } }\nroute = \"gold\"\n\
        [[routes.usual.rules]]\nwhen = { needs = [\"tools\"], project = \"acme\" }\nroute = \"tools\"\n\
        [[routes.usual.rules]]\nwhen = { min_input_tokens = 200 }\nroute = \"long\"\n\
        [[routes.usual.rules]]\nwhen = { batch = \"nightly-*\" }\nroute = \"gold\"\n\
        [[routes.long.rules]]\nwhen = { min_input_tokens = 2000 }\nroute = \"longest\"\n";
    let providers = ["gold", "tools", "long", "longest"].map(|name| (name, ""));
    let fleet = fleet(&[&providers[..], &[("usual", "")]].concat(), rules).await;
    let tools = json!({ "prompt": "Hi", "tools": [{ "type": "function", "function": { "name": "f" } }] });
    let cases = [
        ("usual", fleet.job("acme", None, Value::Null, prompt(3)).await),
        ("gold", fleet.job("acme", None, json!({ "tier": "gold" }), tools.clone()).await),
        ("gold", fleet.job("acme", None, json!({ "tier": 3 }), prompt(3)).await),
        ("usual", fleet.job("acme", None, json!({ "tier": "golden", "x": "gold" }), prompt(3)).await),
        ("tools", fleet.job("acme", None, Value::Null, tools.clone()).await),
        ("usual", fleet.job("globex", None, Value::Null, tools).await),
        ("long", fleet.job("acme", Some("nightly-1"), Value::Null, prompt(900)).await),
        ("longest", fleet.job("acme", None, Value::Null, prompt(9_000)).await),
        ("gold", fleet.job("acme", Some("nightly-1"), Value::Null, prompt(3)).await),
    ];
    fleet.works_until_done().await;
    let answerers = fleet.answerers().await;
    for (index, (expected, job)) in cases.iter().enumerate() {
        // The tools of a request that is answered by plain text do no harm.
        assert_eq!(answerers.get(job).map(String::as_str), Some(*expected), "case {index}");
    }
    let story = fleet.explained(cases[7].1).await;
    assert!(story.contains("route usual, project acme"), "the row keeps its route: {story}");
    let led = "   rules[2] of route usual led to long\n   rules[0] of route long led to longest\n   \
        it was the first choice\n";
    assert!(story.contains(led), "{story}");
    assert!(!fleet.explained(cases[0].1).await.contains("rules["));
    fleet.books_are_in_order(9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_rule_sends_to_a_route_that_is_shut_for_long_do_not_stop_the_others() {
    let rules = "rules = [{ when = { metadata = { slow = \"yes\" } }, route = \"shut\" }]\n";
    let shut = "faults = [{ kind = \"rate_limit\", wait = 300 }]";
    let fleet = fleet(&[("shut", shut), ("usual", "")], rules).await;
    for number in 0..40 {
        let metadata = if number % 2 == 0 { json!({ "slow": "yes" }) } else { Value::Null };
        fleet.job("acme", None, metadata, prompt(number + 1)).await;
    }
    let worker = fleet.start();
    fleet.until_answered(20).await;
    until("the others rest", async || fleet.number("select count(*) from sluice.parked").await == 20).await;
    let verdict = fleet.verdict();
    assert_eq!(verdict.providers["usual"].figures.calls, 20);
    assert!(verdict.providers["shut"].figures.calls <= 20);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_rules_that_look_at_metadata_which_no_claim_had_read_before() {
    // A job that is in hand meanwhile asks again after a second, and by then the rules are there.
    let busy = "faults = [{ kind = \"overloaded\", first_n_calls = 1 }]\nlatency = { fixed = \"800ms\" }";
    let providers = [("gold", ""), ("usual", busy)];
    let fleet = fleet(&providers, "").await;
    let worker = fleet.start();
    let in_hand = fleet.job("acme", None, json!({ "tier": "gold" }), prompt(2)).await;
    until("the call has begun", async || fleet.verdict().providers["usual"].figures.calls == 1).await;
    let rules = "[[routes.usual.rules]]\nwhen = { metadata = { tier = \"gold\" } }\nroute = \"gold\"\n";
    fleet.configure(&described(&providers, rules).1);
    worker.signal(Signal::HUP);
    worker.until_said("the configuration was read again and is in force", 1).await;
    let later = fleet.job("acme", None, json!({ "tier": "gold" }), prompt(3)).await;
    let other = fleet.job("acme", None, json!({ "tier": "tin" }), prompt(4)).await;
    fleet.until_answered(3).await;
    worker.stop().await;
    let answerers = fleet.answerers().await;
    let of = |job| answerers.get(&job).map(String::as_str);
    assert_eq!((of(in_hand), of(later), of(other)), (Some("gold"), Some("gold"), Some("usual")));
}
