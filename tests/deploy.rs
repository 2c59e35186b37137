//! A deployment: the workers are replaced under full load, one after the other, again and again. No job is lost and no
//! call is bought twice.

use crate::support::fleet::{Fleet, Process};
use crate::support::wait::until;

/// Workers that run at a time, and how often one of them is replaced.
const WORKERS: usize = 3;
const RESTARTS: usize = 20;
/// Jobs that are there beyond those that have ended: more than all workers hold together.
const AHEAD: i64 = 400;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.05, 0.4] }\n\
                        models.model.price = { input = \"1\", output = \"2\" }\n";
const CONFIG: &str = "[worker]\nmax_in_flight = 20\ndrain_timeout = \"30s\"\n\
                      [providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                      limits = { concurrency = 40 }\n\
                      [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                      [routes.default]\nrungs = [\"one/model\"]\npatience = \"forever\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn twenty_rolling_restarts_under_full_load_lose_nothing_and_buy_nothing_twice() {
    let fleet = Fleet::new(SCENARIO, CONFIG).await;
    let mut workers: Vec<Process> = fleet.start_many(i64::try_from(WORKERS).unwrap()).await;
    let mut jobs = 0;
    for restart in 0..RESTARTS {
        // There is always more than they can do.
        let answered = fleet.answered().await;
        let more = answered + AHEAD - jobs;
        fleet.enqueue("default", more).await;
        jobs += more;
        let oldest = workers.remove(0);
        until("it is at work", async || fleet.held_by(&oldest).await >= 5).await;
        // It ends with status 0, or this panics.
        oldest.stop().await;
        until("the others are at work", async || fleet.held_by(&workers[0]).await > 0).await;
        workers.push(fleet.start());
        let registered = i64::try_from(WORKERS + restart + 1).unwrap();
        let all = "select count(*) from sluice.worker";
        until("the next one is there", async || fleet.number(all).await == registered).await;
    }
    fleet.until_answered(jobs).await;
    for worker in workers {
        worker.stop().await;
    }

    fleet.books_are_in_order(jobs).await;
    let calls = i64::try_from(fleet.verdict().total.calls).unwrap();
    let attempts = fleet.number("select count(*) from sluice.attempts").await;
    let accepted = fleet.number("select count(*) from sluice.attempts where accepted").await;
    assert_eq!((calls, attempts, accepted), (jobs, jobs, jobs), "one call for each job, each of them on the ledger");
    assert_eq!(fleet.number("select count(*) from sluice.attempts where class = 'abandoned'").await, 0);
    let left = "select count(*) from sluice.worker where state <> 'gone'";
    assert_eq!(fleet.number(left).await, 0, "every worker has signed off");
    assert!(fleet.verdict().clean, "{:?}", fleet.verdict().reasons);
}
