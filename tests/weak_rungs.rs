//! Rungs that work but answer badly or slowly: their jobs go to a better rung and come back, what was found is known to
//! all workers and kept over restarts, and no job of a route without another rung is held up.

use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::scripted::{Scripted, answer};
use crate::support::wait::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SCENARIO: &str = "[providers.two]\ndialect = \"openai\"\nmodels.m.price = { input = \"1\", output = \"2\" }\n";
const TWO: &str = "[providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/two/v1\"\n\
                   [models.\"two/m\"]\nprice = { input = \"1\", output = \"2\" }\n";
const FEW_AT_ONCE: &str = "[worker]\nmax_in_flight = 4\ndrain_timeout = \"5s\"\n";
/// Jobs take the rungs in their order, and wait for none.
const AT_ONCE: &str = "strategy = \"priority\"\npatience = \"0s\"\nreask = false\n";

/// What live workers say of targets that jobs pass over.
const WEAK: &str = "select count(*) from sluice.worker w, jsonb_array_elements(w.stats->'gate'->'targets') t,
                           jsonb_array_elements(t->'weak') weak
                     where w.state = 'live' and weak->>'route' = 'strict'";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_leave_a_rung_that_answers_badly_for_a_good_one_and_come_back_when_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let say = move || if well.load(Ordering::Relaxed) { "A whole sentence at last." } else { "Hm." };
    let main = Scripted::start(move |_, _| answer(say())).await;
    let config = format!(
        "{FEW_AT_ONCE}{TWO}[providers.main]\ndialect = \"openai\"\nbase_url = \"{}\"\nbreaker = {{ min_calls = 5 }}\n\
         [models.\"main/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.strict]\nrungs = [\"main/m\", \"two/m\"]\n{AT_ONCE}validate = {{ min_chars = 10 }}\n\
         [routes.alone]\nrungs = [\"main/m\"]\nmax_attempts = 1\nreask = false\nvalidate = {{ min_chars = 10 }}\n\
         [routes.easy]\nrungs = [\"main/m\", \"two/m\"]\n{AT_ONCE}",
        main.base_url("main")
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    let mut first = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("strict", 40).await;
    fleet.until_answered(40).await;
    let asked = || main.calls("main").len();
    let before = asked();
    assert!((5..=9).contains(&before), "five, and those that were under way: {before}");
    first.until_said("jobs of the route pass the target over while another rung may be called", 1).await;

    // Each call says why it went elsewhere, and so does every face.
    let passed = "select count(*) from sluice.attempt
                   where provider = 'two' and decision->'skipped'->0->>'why' = 'quality'
                     and decision->'skipped'->0->>'passed_over' = 'better_rung'
                     and decision->'skipped'->0->>'found' like '5 of the last 5 answers were rejected (too_short 5)'";
    assert!(fleet.number(passed).await >= 31, "{}", fleet.number(passed).await);
    let job: i64 = fleet.number("select max(id) from sluice.jobs").await;
    until("it is in the statistics", async || fleet.number(WEAK).await == 1).await;
    for command in
        [&["explain", &job.to_string()][..], &["status", "--format", "table"], &["status", "--format", "json"]]
    {
        let output = fleet.program(command).output().await.unwrap();
        let out = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.contains("5 of the last 5 answers were rejected (too_short 5)"), "{command:?}: {out}");
    }
    let report = text(&fleet.program(&["report", "fallbacks"]).output().await.unwrap().stdout);
    assert!(report.contains("quality"), "{report}");

    // A route that it answers well is left alone, and one without another rung is held up by nothing.
    fleet.enqueue("easy", 10).await;
    fleet.until_answered(50).await;
    fleet.enqueue("alone", 10).await;
    let failed = "select count(*) from sluice.result where state = 'failed'";
    until("each of them has its answer rejected", async || fleet.number(failed).await == 10).await;
    assert_eq!(asked(), before + 20);

    // A second worker goes by it, and one that starts when all are gone asks with one call.
    let mut second = fleet.start();
    until("both know", async || fleet.number(WEAK).await == 2).await;
    first.kill().await;
    second.kill().await;
    let before = asked();
    let mut third = fleet.start();
    third.until_said("another worker has found something out", 1).await;
    fleet.enqueue("strict", 20).await;
    fleet.until_answered(70).await;
    assert_eq!(asked(), before + 1, "one job asked, and the others went to the good rung");

    // It is well: the first job of the next process finds that out, and after three good answers all come back.
    is_well.store(true, Ordering::Relaxed);
    third.kill().await;
    let fourth = fleet.start();
    fourth.until_said("another worker has found something out", 1).await;
    fleet.enqueue("strict", 30).await;
    fleet.until_answered(100).await;
    fourth.until_said("the target answers well again", 1).await;
    let before = asked();
    fleet.enqueue("strict", 10).await;
    fleet.until_answered(110).await;
    assert_eq!(asked(), before + 10);
    let status = text(&fleet.program(&["status", "--format", "json"]).output().await.unwrap().stdout);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let spent = status["spent_by_target"].as_array().unwrap();
    let of_main = spent.iter().find(|spent| spent["target"] == "main/m").unwrap();
    // Every call costs the same, and the rejected ones have to be paid by the accepted.
    let (calls, answered) = (of_main["attempts"].as_f64().unwrap(), of_main["answered"].as_f64().unwrap());
    let each = of_main["cost_per_answer"].as_f64().unwrap();
    assert!(calls > answered && (each * answered / calls - 20e-6).abs() < 1e-8, "{of_main}");
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_leave_a_slow_rung_and_a_restart_goes_on_with_the_calls_at_once_that_were_found() {
    let scenario = format!(
        "{SCENARIO}latency = {{ fixed = \"20ms\" }}\n[providers.slow]\ndialect = \"openai\"\n\
         latency = {{ fixed = \"300ms\" }}\nmodels.m.price = {{ input = \"1\", output = \"2\" }}\n"
    );
    let config = format!(
        "[worker]\nmax_in_flight = 100\n{TWO}[providers.slow]\ndialect = \"openai\"\n\
         base_url = \"http://simulator/slow/v1\"\nlimits = {{ concurrency = 2 }}\n\
         breaker = {{ min_calls = 3, slow = \"100ms\" }}\n\
         [models.\"slow/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"slow/m\", \"two/m\"]\n{AT_ONCE}",
    );
    let fleet = Fleet::new(&scenario, &config).await;
    let mut first = fleet.start();
    fleet.until_live(1).await;
    fleet.enqueue("default", 400).await;
    fleet.until_answered(400).await;
    let to_slow = || fleet.calls().iter().filter(|call| call.provider == "slow").count();
    let to_slow = to_slow();
    assert!((3..20).contains(&to_slow), "{to_slow}");
    let passed = "select count(*) from sluice.attempt where provider = 'two'
                     and decision->'skipped'->0->>'why' = 'slow'
                     and decision->'skipped'->0->>'found' like '% of the last % answers took longer than 100ms'";
    assert!(fleet.number(passed).await > 0);

    let found =
        "select coalesce(max((state->'news'->>'calls')::bigint), 0) from sluice.health where subject = 'places two/m'";
    until("it is told", async || fleet.number(found).await > 20).await;
    first.kill().await;
    let found = fleet.number(found).await;
    let second = fleet.start();
    let resumed = "select coalesce(max((bucket->>'concurrency')::bigint), 0)
                     from sluice.worker w, jsonb_array_elements(w.stats->'gate'->'buckets') bucket
                    where w.state = 'live' and bucket->>'name' = 'two/m' and (w.stats->>'claimed')::int = 0";
    until("it begins where the other one was", async || fleet.number(resumed).await == found).await;
    second.stop().await;
}
