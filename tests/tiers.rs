//! Rungs that ask for a tier of service, with the real worker: what spare capacity refuses goes on at once or comes
//! back, the usual tier of the same model is not held up, and each call costs what the tier that served it costs.

use crate::support::fleet::Fleet;
use std::collections::BTreeMap;

/// One provider whose cheap tier meets these faults, and a route over that tier and the usual one.
async fn stage(faults: &str, patience: &str) -> Fleet {
    let scenario = format!(
        "[providers.openai]\ndialect = \"openai\"\n\
         models.m.price = {{ input = \"1\", output = \"2\" }}\n\
         tiers.flex = {{ price = \"0.5\", latency = {{ fixed = \"200ms\" }} }}\n\
         faults = [{faults}]\n"
    );
    let config = format!(
        "[providers.openai]\nbase_url = \"http://simulator/openai/v1\"\n\
         [models.\"openai/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\ntiers = {{ flex = \"0.5\" }}\n\
         [routes.default]\nrungs = [\"openai/m\", \"openai/m@flex\"]\npatience = \"{patience}\"\n"
    );
    Fleet::new(&scenario, &config).await
}

async fn drain(fleet: &Fleet) {
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The calls by model as the ledger names it, and how each ended.
async fn calls(fleet: &Fleet) -> BTreeMap<(String, String), i64> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select model, case when accepted then 'accepted' else class end, count(*) from sluice.attempts group by 1, 2",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    rows.into_iter().map(|(model, ended, count)| ((model, ended), count)).collect()
}

fn count(calls: &BTreeMap<(String, String), i64>, model: &str, ended: &str) -> i64 {
    calls.get(&(model.to_owned(), ended.to_owned())).copied().unwrap_or(0)
}

async fn story(fleet: &Fleet, job: i64) -> String {
    let output = fleet.program(&["explain", &job.to_string()]).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spare_capacity_refuses_is_answered_by_the_usual_tier_and_each_costs_what_it_is() {
    let fleet = stage("{ kind = \"no_capacity\", tier = \"flex\", rate = 0.3 }", "0s").await;
    fleet.enqueue("default", 80).await;
    drain(&fleet).await;
    fleet.books_are_in_order(80).await;
    let calls = calls(&fleet).await;
    let (served, refused) = (count(&calls, "m@flex", "accepted"), count(&calls, "m@flex", "no_capacity"));
    assert!(served > 40 && refused > 3, "{calls:?}");
    assert_eq!(count(&calls, "m", "accepted"), 80 - served, "{calls:?}");
    assert_eq!(calls.len(), 3, "nothing else came of any call: {calls:?}");
    // Priced by the tier that served.
    let of = async |query: &'static str| fleet.number(query).await;
    let half = "select count(*) from sluice.attempts where model = 'm@flex' and accepted and service_tier = 'flex' \
                and (price->>'input')::bigint = 500000000";
    assert_eq!(of(half).await, served);
    let whole = "select count(*) from sluice.attempts where model = 'm' and service_tier = 'default' \
                 and (price->>'input')::bigint = 1000000000";
    assert_eq!(of(whole).await, 80 - served);
    assert_eq!(of("select sum(cost_nanos)::bigint from sluice.attempt where class = 'no_capacity'").await, 0);
    assert_eq!(of("select sum(uncertain_nanos)::bigint from sluice.attempt").await, 0);
    let charged = fleet.verdict().providers["openai"].figures.charged_nano_usd;
    assert_eq!(u64::try_from(of("select sum(cost_nanos)::bigint from sluice.result").await), Ok(charged));
    // Refusals are no attempts that failed, and results name the tier.
    assert_eq!(of("select count(*) from sluice.results where model = 'm@flex'").await, served);
    let verdict = fleet.verdict();
    assert!(verdict.clean, "{:?}", verdict.reasons);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_the_cheap_tier_asks_for_does_not_hold_up_the_usual_one() {
    let fleet = stage("{ kind = \"no_capacity\", tier = \"flex\", wait = 3600 }", "0s").await;
    fleet.enqueue("default", 1).await;
    drain(&fleet).await;
    let begun = calls(&fleet).await;
    assert_eq!((count(&begun, "m@flex", "no_capacity"), count(&begun, "m", "accepted")), (1, 1), "{begun:?}");
    let story = story(&fleet, fleet.number("select max(id) from sluice.job").await).await;
    assert!(story.contains("openai/m@flex"), "{story}");
    assert!(story.contains("not openai/m@flex: its tier had no capacity until "), "{story}");
    assert!(story.contains(", and the route waits for no cheaper rung"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_patience_comes_back_to_the_cheap_tier() {
    let fleet = stage("{ kind = \"no_capacity\", tier = \"flex\", first_n_calls = 2, status = 498 }", "10m").await;
    fleet.enqueue("default", 1).await;
    drain(&fleet).await;
    let calls = calls(&fleet).await;
    assert_eq!((count(&calls, "m@flex", "no_capacity"), count(&calls, "m@flex", "accepted")), (2, 1), "{calls:?}");
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(fleet.number("select count(*) from sluice.results where error is null and attempts = 3").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_name_the_tier_and_show_its_price() {
    let fleet = stage("", "0s").await;
    let said = async |arguments: &[&str]| {
        let output = fleet.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let check = said(&["check"]).await;
    assert!(check.contains("openai/m@flex: $0.50 in, $1.00 out per million tokens, timeout 15m"), "{check}");
    assert!(check.contains("openai/m: $1.00 in, $2.00 out per million tokens"), "{check}");
    fleet.enqueue("default", 2).await;
    drain(&fleet).await;
    let report = said(&["report", "cost", "--by", "model", "--format", "json"]).await;
    assert!(report.contains("m@flex"), "{report}");
}
