//! A loop of the worker ends unexpectedly: the worker stops in order and says so, and no paid answer is lost.

use crate::support::fleet::Fleet;
use crate::support::wait::{until, within_patience};
use sluice::cli::GlobalArgs;
use sluice::cli::failure::report;
use sluice::cli::worker::{attend, blueprint, settings, went_down};
use sluice::config::Config;
use sluice::exit_code::ExitCode;
use sluice::shutdown::Hangups;
use sluice::store::{Pooler, Store};
use sluice::systemd::Notifier;
use sluice::worker::plan::Plan;
use sluice::worker::{LifeSign, Settings, Summary, Worker};
use std::sync::Arc;

/// Enough jobs to keep the first worker busy for many seconds, so that the loop ends in the middle of the work.
const JOBS: i64 = 80;

const SCENARIO: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { uniform = [0.2, 0.6] }\n\
                        models.model.price = { input = \"1\", output = \"2\" }\n";

fn config(fleet: &Fleet, spool: &str) -> Config {
    let file = fleet.file(
        "loops.toml",
        &format!(
            "[worker]\ndrain_timeout = \"20s\"\n[spool]\ndir = \"{spool}\"\n\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"http://{}/one/v1\"\n\
             limits = {{ concurrency = 100 }}\n[models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"one/model\"]\n",
            fleet.simulator.addr()
        ),
    );
    Config::load(Some(&file), []).unwrap()
}

async fn registered(store: &Store, config: &Config, max_in_flight: usize) -> Worker {
    let settings = Settings { max_in_flight, ..settings(config, true) };
    Worker::register(store.clone(), Plan::new(&blueprint(config)).unwrap(), settings).await.unwrap()
}

/// Works until one of the parts ends; another worker then does the rest.
async fn falls(part: &'static str, with_spool: bool) -> Summary {
    // As `main` does. An error means that another test has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fleet = Fleet::new(SCENARIO, "").await;
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let config = config(&fleet, if with_spool { spool.to_str().unwrap() } else { "off" });
    let store = Store::from_pool(fleet.pool.clone());
    let worker = async |max_in_flight| registered(&store, &config, max_in_flight).await;
    let first = worker(4).await;
    let loops = first.loops();
    // The loops that the daemon has beside it.
    let listener = sluice::http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let hangups = Hangups::listen().unwrap();
    let address = fleet.database().url().parse().unwrap();
    let reach = sluice::http::Reach { pooler: Pooler::None, address };
    attend(&first, Some(listener), reach, hangups, &config, &GlobalArgs::default(), &Arc::new(Notifier::new()));
    fleet.enqueue("default", JOBS).await;
    let working = tokio::spawn(first.run(std::future::pending(), std::future::pending(), |_| {}));
    until("work is under way", async || fleet.answered().await >= 8).await;
    loops.trip(part);
    let summary = within_patience("it stops", working).await.unwrap();
    assert_eq!(summary.fallen, Some(part));
    assert_eq!(summary.spooled, 0, "{part}: what it had in hand is written");
    assert_eq!(
        fleet.number("select count(*) from sluice.worker where state = 'live'").await,
        0,
        "{part}: it has signed off"
    );
    let fallen = "select count(*) from sluice.worker where state = 'gone' and stats ? 'fallen'";
    assert_eq!(fleet.number(fallen).await, 1, "{part}: an alert tells of it");
    // Also what a claim brought that was under way on the server when the loop ended.
    until("everything is given back", async || fleet.number("select count(*) from sluice.inflight").await == 0).await;
    let (calls, booked) = (fleet.verdict().total.calls, fleet.number("select count(*) from sluice.attempt").await);
    assert_eq!(i64::try_from(calls).unwrap(), booked, "{part}: each call is on the ledger");
    assert!(fleet.answered().await < JOBS, "{part}: it stopped in the middle of the work");

    let second = worker(60).await.run(std::future::pending(), std::future::pending(), |_| {}).await;
    assert_eq!(second.fallen, None);
    fleet.books_are_in_order(JOBS).await;
    assert_eq!(i64::try_from(fleet.verdict().total.calls).unwrap(), JOBS, "{part}: nothing was bought twice");
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_that_claim_and_look_after_the_queue() {
    for part in ["claimer", "heartbeat", "upkeep", "schedules", "keeper", "opener", "opening", "alerts", "messages"] {
        falls(part, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_that_the_daemon_has_beside_its_worker() {
    for part in ["http", "reload"] {
        falls(part, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_ends_while_the_worker_drains_begins_anew() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let slow = "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = \"12s\" }\n\
                models.model.price = { input = \"1\", output = \"2\" }\n";
    let fleet = Fleet::new(slow, "").await;
    let config = config(&fleet, "off");
    let store = Store::from_pool(fleet.pool.clone());
    let worker =
        Worker::register(store, Plan::new(&blueprint(&config)).unwrap(), settings(&config, true)).await.unwrap();
    let loops = worker.loops();
    fleet.enqueue("default", 1).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (stopping, mut signs) = tokio::sync::mpsc::unbounded_channel();
    let working = tokio::spawn(worker.run(
        async move {
            let _ = stopped.await;
        },
        std::future::pending(),
        move |sign| {
            let _ = stopping.send(sign);
        },
    ));
    until("a call is under way", async || fleet.verdict().total.max_concurrency > 0).await;
    stop.send(()).unwrap();
    while signs.recv().await.is_some_and(|sign| !matches!(sign, LifeSign::Stopping)) {}
    sqlx::query("create table stopped as select clock_timestamp() as at").execute(&fleet.pool).await.unwrap();
    let beats = async || {
        fleet.number("select count(*) from sluice.worker, stopped where state = 'live' and seen_at > at").await == 1
    };
    until("it beats while it drains", beats).await;
    loops.trip("heartbeat");
    loops.fell().await;
    sqlx::query("create table fell as select clock_timestamp() as at").execute(&fleet.pool).await.unwrap();
    let has_beaten = async || {
        fleet.number("select count(*) from sluice.worker, fell where state = 'live' and seen_at > at").await == 1
    };
    until("it beats again while its call goes on", has_beaten).await;
    assert_eq!(fleet.answered().await, 0, "the call still goes on");
    let summary = working.await.unwrap();
    assert_eq!((summary.fallen, summary.succeeded), (Some("heartbeat"), 1));
    fleet.books_are_in_order(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_cannot_be_written_are_counted_and_their_jobs_are_taken_over() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for part in ["settler", "flusher"] {
        let fleet = Fleet::new(SCENARIO, "").await;
        let config = config(&fleet, "off");
        let store = Store::from_pool(fleet.pool.clone());
        let worker = async |max_in_flight| registered(&store, &config, max_in_flight).await;
        let first = worker(4).await;
        let loops = first.loops();
        fleet.enqueue("default", JOBS).await;
        let working = tokio::spawn(first.run(std::future::pending(), std::future::pending(), |_| {}));
        until("work is under way", async || fleet.answered().await >= 8).await;
        // It ends each time that it begins anew.
        let tripping = tokio::spawn(async move {
            loop {
                loops.trip(part);
                tokio::task::yield_now().await;
            }
        });
        let summary = within_patience("it stops", working).await.unwrap();
        tripping.abort();
        assert_eq!(summary.fallen, Some(part));
        assert!(summary.lost > 0, "{part}: {summary:?}");
        let failure = went_down(&summary).unwrap_err();
        assert_eq!(report(&failure, "sluice_worker"), ExitCode::Failure, "the service manager starts another worker");
        let told = failure.to_string();
        assert!(told.contains("could not be written (the log names the jobs)"), "{told}");
        assert!(told.contains(part) && !told.contains("All its jobs"), "{told}");

        let second = worker(60).await.run(std::future::pending(), std::future::pending(), |_| {}).await;
        assert_eq!((second.fallen, second.lost), (None, 0));
        assert!(went_down(&second).is_ok());
        fleet.books_are_in_order(JOBS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_of_answers_into_the_database() {
    for part in ["settler", "flusher", "spool"] {
        falls(part, true).await;
    }
    for part in ["settler", "flusher"] {
        falls(part, false).await;
    }
}
