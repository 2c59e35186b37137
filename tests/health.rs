//! What workers tell each other of targets and keys: a rest that a provider asks of one process, and a key that it
//! refuses, seen from the provider's side.

use crate::support::fleet::Fleet;
use crate::support::wait::until;

/// More calls may be under way at once than there are jobs.
fn config(provider: &str) -> String {
    format!(
        "[worker]\nmax_in_flight = 100\ndrain_timeout = \"5s\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n{provider}\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\npatience = \"forever\"\nmax_attempts = 9\n"
    )
}

/// The targets that are shut, in what live workers say of themselves.
const SHUT: &str = "select count(*) from sluice.worker w, jsonb_array_elements(w.stats->'gate'->'targets') t
                     where w.state = 'live' and t->'shut'->>'reason' is not null";

#[tokio::test(flavor = "multi_thread")]
async fn a_rest_that_a_provider_asks_of_one_process_holds_for_all_and_for_those_that_start_later() {
    let scenario = "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n\
                    faults = [{ kind = \"overloaded\", wait = 600 }]\n";
    let fleet = Fleet::new(scenario, &config("")).await;
    let mut first = fleet.start();
    fleet.until_live(1).await;
    let second = fleet.start();
    fleet.until_live(2).await;
    fleet.enqueue("default", 1).await;
    until("both workers rest", async || fleet.number(SHUT).await == 2).await;
    first.kill().await;
    second.stop().await;
    let third = fleet.start();
    fleet.enqueue("default", 30).await;
    until("the new worker rests as well", async || {
        third.said().contains("worker is ready") && fleet.number(SHUT).await >= 1
    })
    .await;
    third.stop().await;
    assert_eq!(fleet.verdict().total.calls, 1, "the provider was left alone");
    assert!(fleet.verdict().clean, "{:?}", fleet.verdict().reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_refused_is_tried_by_one_call_after_a_restart() {
    let scenario = "[providers.one]\ndialect = \"openai\"\nkeys = [\"another-key-3f9a1c77\"]\n\
                    latency = { uniform = [0.3, 0.4] }\n\
                    models.model.price = { input = \"1\", output = \"2\" }\n";
    let key = "keys = [{ api_key_env = \"HEALTH_KEY\" }]\nlimits = { concurrency = 100 }\n";
    let fleet = Fleet::new(scenario, &config(key)).await;
    let variables = [("HEALTH_KEY", "refused-key-b8d20e41")];
    let mut first = fleet.start_with(&variables);
    fleet.enqueue("default", 1).await;
    let told = "select count(*) from sluice.health where subject like 'key %' and state->>'state' = 'out'";
    until("it is told", async || fleet.number(told).await == 1).await;
    first.kill().await;
    assert_eq!(fleet.verdict().total.calls, 1);
    fleet.enqueue("default", 40).await;
    let second = fleet.start_with(&variables);
    second.until_said("tried again: the key is rejected", 1).await;
    second.stop().await;
    assert_eq!(fleet.verdict().total.calls, 2, "forty jobs waited for one call");
    let kept: String = sqlx::query_scalar("select string_agg(subject || state, '') from sluice.health")
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    assert!(!kept.contains("refused-key-b8d20e41") && kept.contains("HEALTH_KEY"), "{kept}");
}
