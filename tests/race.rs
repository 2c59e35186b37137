//! Races: several rungs are asked for one job at once, one answer is used, and every call is on the ledger.

use crate::support::clock;
use crate::support::fleet::{Fleet, Process};
use crate::support::queue::{Queue, accepted, failed, in_batch, park, success};
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::Value;
use sluice::domain::{ErrorClass, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::Claimed;
use sluice::store::settle::{AttemptRow, EndingRow, ParkRow, Settlement};
use std::collections::HashSet;
use std::sync::Arc;

/// Two providers of the simulator that behave as these lines say, and a race over both.
async fn race(first: &str, second: &str, route: &str) -> Fleet {
    limited_race([first, second], "", route).await
}

/// The same with these lines for each provider of the configuration.
async fn limited_race([first, second]: [&str; 2], limits: &str, route: &str) -> Fleet {
    let scenario =
        format!("[providers.one]\ndialect = \"openai\"\n{first}\n[providers.two]\ndialect = \"openai\"\n{second}\n");
    let provider = |name: &str, price: u32| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n{limits}\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n"
        )
    };
    let config = format!(
        "[worker]\ndrain_timeout = \"200ms\"\n{}{}[routes.default]\nrungs = [\"two/m\", \"one/m\"]\n\
         strategy = \"race\"\n{route}\n",
        provider("one", 1),
        provider("two", 2),
    );
    Fleet::new(&scenario, &config).await
}

const NEVER: &str = "latency = { fixed = \"1h\" }";
/// Long enough for the second calls of sixty jobs to be noted on a busy machine.
const SOON: &str = "latency = { fixed = \"1500ms\" }";

impl Fleet {
    /// The ledger: provider, class and detail, and whether each call cost something or may have.
    async fn races(&self) -> Vec<(String, String, bool, bool)> {
        sqlx::query_as(
            "select provider, concat_ws(' ', class, detail), cost_nanos > 0, uncertain_nanos > 0
               from sluice.attempt order by job_id, number, fence",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Waits until both calls of the one job are under way at the providers.
    async fn until_both_are_asked(&self) {
        until("both are asked", async || {
            let providers = self.verdict().providers;
            ["one", "two"].iter().all(|name| providers.get(*name).is_some_and(|of| of.figures.calls > 0))
        })
        .await;
        assert_eq!(self.number("select count(*) from sluice.race_call").await, 1);
        assert_eq!(self.number("select call_number::bigint from sluice.inflight").await, 1);
    }

    fn calls_to(&self, provider: &str) -> u64 {
        self.verdict().providers.get(provider).map_or(0, |of| of.figures.calls)
    }

    async fn nothing_is_left_over(&self) {
        let left = "select (select count(*) from sluice.race_call) + (select count(*) from sluice.inflight)";
        assert_eq!(self.number(left).await, 0);
    }

    async fn said(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn row(provider: &str, ended: &str, cost: bool, uncertain: bool) -> (String, String, bool, bool) {
    (provider.to_owned(), ended.to_owned(), cost, uncertain)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cheapest_is_slow_the_next_is_asked_beside_it_and_what_was_lost_is_told() {
    let fleet = race(NEVER, "", "race_after = \"50ms\"").await;
    fleet.enqueue("default", 1).await;
    let worker = fleet.start();
    fleet.until_answered(1).await;
    let expected = [row("one", "abandoned lost_race", false, true), row("two", "", true, false)];
    assert_eq!(fleet.races().await, expected);
    let story = fleet.said(&["explain", "1"]).await;
    for words in [
        "#1 one/m at ",
        "\n   it was the first choice\n",
        "\n   it ran beside #2 (two/m)\n",
        "abandoned, lost_race\n   “two/m answered first”\n   cost $0.00 at $1.00 in, $1.00 out per million \
         tokens, and perhaps up to $",
        "\n   not one/m: it was being asked since ",
        ", so this one was asked beside it\n",
        "\n   it ran beside #1 (one/m)\n",
        "answered by two/m\n#2 won the race; the call that lost it cost $0.00, and perhaps up to $",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    let waste = fleet.said(&["report", "waste", "--format", "json"]).await;
    let waste: Value = serde_json::from_str(&waste).unwrap();
    let lost = waste.as_array().unwrap().iter().find(|row| row["detail"] == "lost_race").unwrap();
    assert_eq!((&lost["class"], &lost["attempts"]), (&Value::from("abandoned"), &Value::from(1)));
    fleet.nothing_is_left_over().await;
    fleet.books_are_in_order(1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_lost_say_nothing_against_their_target() {
    // Its breaker would open at the second failure, and the rung would be passed over.
    let fleet = limited_race(
        [NEVER, ""],
        "breaker = { min_calls = 2, failure_rate = 0.1 }\nlimits = { concurrency = 4 }",
        "race_after = \"20ms\"\npatience = \"10m\"",
    )
    .await;
    fleet.enqueue("default", 30).await;
    let worker = fleet.start();
    fleet.until_answered(30).await;
    let lost = "select count(*) from sluice.attempt where provider = 'one' and detail = 'lost_race'";
    // The places of calls that were dropped are free again. A call that waits for one is dropped without a trace.
    let lost = fleet.number(lost).await;
    assert!(lost > 8, "{lost}");
    let buckets: Value = serde_json::from_str(&fleet.said(&["status", "--format", "json"]).await).unwrap();
    assert!(!buckets.to_string().contains("breaker_open"), "{buckets}");
    fleet.nothing_is_left_over().await;
    fleet.books_are_in_order(30).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_fails_the_next_is_asked_at_once() {
    let table = include_str!("../src/domain/decide/tests/game.txt");
    for (fault, ended) in [
        ("server_error", "server_error"),
        ("empty", "soft_failure empty"),
        ("payload_too_large", "payload_too_large"),
        ("timeout", "timeout"),
    ] {
        // As the game table says.
        assert!(table.contains(&format!("\n{ended} | in a race | 1 2 + | ")), "{ended}");
        let fleet = race(&format!("faults = [{{ kind = \"{fault}\" }}]"), "", "race_after = \"1h\"").await;
        fleet.enqueue("default", 1).await;
        let worker = fleet.start();
        fleet.until_answered(1).await;
        let rows = fleet.races().await;
        assert_eq!(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>(), [ended, ""], "{rows:?}");
        fleet.nothing_is_left_over().await;
        fleet.books_are_in_order(1).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_answers_that_come_together_one_is_used_and_both_are_on_the_ledger() {
    let fleet = race(SOON, SOON, "race_after = \"0s\"\npatience = \"10m\"").await;
    fleet.enqueue("default", 60).await;
    let worker = fleet.start();
    fleet.until_answered(60).await;
    let rows = fleet.races().await;
    assert_eq!(rows.iter().filter(|row| row.1.is_empty()).count(), 60);
    let lost: Vec<_> = rows.iter().filter(|row| row.1 == "abandoned lost_race").collect();
    // A call that the database had not noted yet was not made.
    assert!(lost.len() > 30 && lost.len() + 60 == rows.len(), "{rows:?}");
    // Each is booked with what it cost, or with what it may have cost.
    assert!(lost.iter().all(|row| row.2 != row.3), "{lost:?}");
    fleet.nothing_is_left_over().await;
    fleet.books_are_in_order(60).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_both_calls_are_on_the_ledger_and_the_job_is_done_once() {
    let hangs = "faults = [{ kind = \"hang\", first_n_calls = 1 }]";
    let fleet = race(hangs, hangs, "race_after = \"50ms\"").await;
    fleet.enqueue("default", 1).await;
    let mut worker = fleet.start();
    fleet.until_both_are_asked().await;
    worker.kill().await;
    let heir = fleet.start();
    fleet.until_answered(1).await;
    let rows = fleet.races().await;
    let died: HashSet<&str> =
        rows.iter().filter(|row| row.1 == "abandoned worker_died" && row.3).map(|row| row.0.as_str()).collect();
    assert_eq!(died, HashSet::from(["one", "two"]), "{rows:?}");
    assert_eq!(fleet.number("select count(*) from sluice.attempt where accepted").await, 1);
    assert_eq!(fleet.number("select attempts::bigint from sluice.result").await, i64::try_from(rows.len()).unwrap());
    fleet.nothing_is_left_over().await;
    fleet.books_are_in_order(1).await;
    heir.stop().await;
}

/// Both calls of the one job end with this action, and the books say so.
async fn both_end(end: impl AsyncFnOnce(&Fleet, Process) -> Option<Process>, state: &str) {
    let fleet = race(NEVER, NEVER, "race_after = \"50ms\"").await;
    fleet.enqueue("default", 1).await;
    let worker = fleet.start();
    fleet.until_both_are_asked().await;
    let worker = end(&fleet, worker).await;
    until("both are told of", async || {
        fleet.number("select count(*) from sluice.attempt where class = 'abandoned' and not placeholder").await == 2
    })
    .await;
    let expected = [row("one", "abandoned", false, true), row("two", "abandoned", false, true)];
    assert_eq!(fleet.races().await, expected);
    let found: String = sqlx::query_scalar("select state from sluice.jobs").fetch_one(&fleet.pool).await.unwrap();
    assert_eq!(found, state);
    fleet.nothing_is_left_over().await;
    let audit = sluice::store::Store::from_pool(fleet.pool.clone()).audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
    if let Some(worker) = worker {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_drops_both_calls() {
    let cancel = async |fleet: &Fleet, worker| {
        fleet.said(&["job", "cancel", "1"]).await;
        Some(worker)
    };
    both_end(cancel, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_books_both_calls_and_puts_the_job_back() {
    let stop = async |_: &Fleet, worker: Process| {
        worker.signal(Signal::TERM);
        let (code, said) = worker.ended().await;
        assert_eq!(code, Some(0), "{said}");
        None
    };
    both_end(stop, "queued").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_needs_a_place_of_its_own() {
    let shared = "bucket = \"account\"";
    let fleet = limited_race(
        ["latency = { fixed = \"300ms\" }", ""],
        shared,
        "race_after = \"20ms\"\npatience = \"10m\"\n[buckets.account]\nconcurrency = 1",
    )
    .await;
    fleet.enqueue("default", 2).await;
    let worker = fleet.start();
    fleet.until_answered(2).await;
    // The place was taken, so no second call was ever made. A job that waits for it waits at both rungs.
    let calls = fleet.races().await;
    assert_eq!(calls.len(), 2, "{calls:?}");
    for (_, how, costs, perhaps) in &calls {
        assert_eq!((how.as_str(), *costs, *perhaps), ("", true, false));
    }
    assert_eq!(fleet.verdict().total.max_concurrency, 1);
    fleet.books_are_in_order(2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_may_fail_once_has_one_call_under_way() {
    let fleet = race("latency = { fixed = \"200ms\" }", "", "race_after = \"10ms\"").await;
    sqlx::query("insert into sluice.job (max_attempts, request) values (1, '{\"prompt\":\"one\"}')")
        .execute(&fleet.pool)
        .await
        .unwrap();
    let worker = fleet.start();
    fleet.until_answered(1).await;
    assert_eq!(fleet.races().await, [row("one", "", true, false)]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_takes_one_of_the_calls_that_a_worker_makes_at_once() {
    let fleet = race("latency = { fixed = \"300ms\" }", "", "race_after = \"10ms\"").await;
    fleet.enqueue("default", 3).await;
    let worker = fleet.start_with(&[("SLUICE__WORKER__MAX_IN_FLIGHT", "1")]);
    fleet.until_answered(3).await;
    worker.stop().await;
    assert_eq!(fleet.calls_to("two"), 0);
    // Of two, the second is for the call beside that of the first job, and not for the next job.
    fleet.enqueue("default", 3).await;
    let worker = fleet.start_with(&[("SLUICE__WORKER__MAX_IN_FLIGHT", "2")]);
    fleet.until_answered(6).await;
    worker.stop().await;
    assert!(fleet.calls_to("two") > 0);
    let figures = fleet.verdict().providers;
    let most = ["one", "two"].map(|name| figures[name].figures.max_concurrency);
    assert!(most.iter().sum::<u64>() <= 3, "{most:?}");
    fleet.books_are_in_order(6).await;
}

// ------------------------------------------------------------------------------------------------ the statements

fn call(claimed: &Claimed, number: i16, model: &str) -> OpenCall {
    OpenCall {
        lease: claimed.lease,
        number,
        target: Target::new("openai", model),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: Some(NanoUsd(900)),
        labels: Arc::new(claimed.labels()),
    }
}

/// A claimed job with a call under way in its claim, if `alone`, and two beside that.
async fn racing(queue: &Queue, alone: bool) -> (i64, Claimed) {
    let worker = queue.worker().await;
    let claimed = queue.claim_one(worker).await;
    if alone {
        assert_eq!(queue.store.open_calls(&[call(&claimed, 1, "a")], 0).await.unwrap().unwrap().len(), 1);
    }
    let beside = [call(&claimed, 2, "b"), call(&claimed, 3, "c")];
    let open = queue.store.open_race_calls(&beside, 0).await.unwrap().unwrap();
    assert_eq!(open, HashSet::from([(claimed.lease.fence, 2), (claimed.lease.fence, 3)]));
    (worker, claimed)
}

/// Number, model, class and detail of every row of the ledger, and whether it stands for a worker's word.
async fn ledger(queue: &Queue) -> Vec<(i16, String, String, bool)> {
    sqlx::query_as(
        "select number, model, concat_ws(' ', class, detail), placeholder from sluice.attempt order by number",
    )
    .fetch_all(&queue.pool)
    .await
    .unwrap()
}

fn named(why: &str, models: &[(i16, &str)]) -> Vec<(i16, String, String, bool)> {
    models.iter().map(|(number, model)| (*number, (*model).to_owned(), format!("abandoned {why}"), true)).collect()
}

const THREE: [(i16, &str); 3] = [(1, "a"), (2, "b"), (3, "c")];

async fn none_is_left(queue: &Queue) {
    assert_eq!(queue.count("select count(*) from sluice.race_call").await, 0);
    let audit = queue.store.audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
}

#[tokio::test]
async fn whichever_process_takes_a_job_away_books_all_its_calls() {
    for alone in [true, false] {
        let open = if alone { &THREE[..] } else { &THREE[1..] };
        let queue = Queue::new().await;
        queue.enqueue(in_batch("b"), 1).await;
        let (worker, _) = racing(&queue, alone).await;
        queue.silence(worker).await;
        assert_eq!(queue.store.rescue(3).await.unwrap().jobs, 1);
        assert_eq!(ledger(&queue).await, named("worker_died", open));
        let batch = queue.store.batch("b").await.unwrap().unwrap();
        assert_eq!(
            (batch.attempts, batch.uncertain),
            (i64::try_from(open.len()).unwrap(), NanoUsd(900 * i64::try_from(open.len()).unwrap()))
        );
        // The next claim knows that there were calls.
        assert_eq!(queue.count("select attempts::bigint from sluice.ready").await, 3);
        none_is_left(&queue).await;

        let queue = Queue::new().await;
        let job = queue.enqueue_one().await;
        racing(&queue, alone).await;
        sqlx::query("select sluice.cancel($1)").bind(job).execute(&queue.pool).await.unwrap();
        assert_eq!(ledger(&queue).await, named("cancelled", open));
        none_is_left(&queue).await;

        let queue = Queue::new().await;
        queue.enqueue_one().await;
        let (worker, _) = racing(&queue, alone).await;
        assert_eq!(queue.store.give_back_unknown(worker, &[]).await.unwrap(), 1);
        assert_eq!(ledger(&queue).await, named("lost_answer", open));
        none_is_left(&queue).await;
    }
}

#[tokio::test]
async fn a_late_answer_books_the_calls_of_the_race_that_it_ends() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let first = queue.worker().await;
    let stale = queue.claim_one(first).await;
    queue.silence(first).await;
    queue.store.rescue(3).await.unwrap();
    racing(&queue, true).await;
    let late =
        Settlement { attempts: vec![accepted(&stale, 1)], endings: vec![success(&stale)], ..Settlement::default() };
    assert_eq!(queue.store.settle(&late).await.unwrap(), []);
    let rows = ledger(&queue).await;
    assert_eq!(rows.iter().filter(|row| row.2 == "abandoned answered_elsewhere" && row.3).count(), 3, "{rows:?}");
    none_is_left(&queue).await;
}

#[tokio::test]
async fn the_word_of_a_worker_that_lives_replaces_what_was_booked_for_each_call() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let (worker, claimed) = racing(&queue, true).await;
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    let raced = |row: AttemptRow| AttemptRow { raced: true, ..row };
    let told = Settlement {
        attempts: vec![
            raced(accepted(&claimed, 2)),
            raced(failed(&claimed, 1, ErrorClass::Timeout)),
            raced(failed(&claimed, 3, ErrorClass::Abandoned)),
        ],
        endings: vec![EndingRow { attempts: 3, raced: true, ..success(&claimed) }],
        ..Settlement::default()
    };
    for _ in 0..2 {
        queue.store.settle(&told).await.unwrap();
        let rows = ledger(&queue).await;
        let ended: Vec<(i16, &str, bool)> = rows.iter().map(|row| (row.0, row.2.as_str(), row.3)).collect();
        assert_eq!(ended, [(1, "timeout", false), (2, "", false), (3, "abandoned", false)]);
        none_is_left(&queue).await;
    }
}

#[tokio::test]
async fn a_call_of_a_race_is_forgotten_when_it_is_booked_and_all_are_when_the_claim_ends() {
    for parks in [false, true] {
        let queue = Queue::new().await;
        queue.enqueue_one().await;
        let (_, claimed) = racing(&queue, true).await;
        let row = AttemptRow { raced: true, ..failed(&claimed, 2, ErrorClass::Timeout) };
        queue.settle(Settlement { attempts: vec![row], ..Settlement::default() }).await;
        assert_eq!(queue.count("select sum(number)::bigint from sluice.race_call").await, 3);
        let mut rest =
            Settlement { attempts: vec![AttemptRow { raced: true, ..accepted(&claimed, 1) }], ..Settlement::default() };
        if parks {
            rest.attempts[0].class = Some(ErrorClass::Timeout);
            rest.parks.push(ParkRow { attempts: 2, raced: true, ..park(&claimed, None) });
        } else {
            rest.endings.push(EndingRow { attempts: 2, raced: true, ..success(&claimed) });
        }
        queue.settle(rest).await;
        assert_eq!(ledger(&queue).await.len(), 2, "what was not made is not booked");
        none_is_left(&queue).await;
    }
}

#[tokio::test]
async fn a_call_of_a_race_is_not_made_when_its_claim_is_gone_and_hides_no_later_one() {
    let queue = Queue::new().await;
    queue.enqueue_one().await;
    let (worker, claimed) = racing(&queue, true).await;
    // A statement that was given up, and is run late by the server.
    let early = OpenCall { started_at: Timestamp(clock::millis() - 60_000), ..call(&claimed, 2, "z") };
    assert_eq!(queue.store.open_race_calls(&[early], 0).await.unwrap().unwrap(), HashSet::new());
    // Its number was not used: the call was not made.
    let again = OpenCall { started_at: Timestamp(clock::millis() + 60_000), ..call(&claimed, 3, "d") };
    assert_eq!(queue.store.open_race_calls(&[again], 0).await.unwrap().unwrap().len(), 1);
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    assert_eq!(ledger(&queue).await, named("worker_died", &[(1, "a"), (2, "b"), (3, "d")]));
    assert_eq!(queue.store.open_race_calls(&[call(&claimed, 4, "e")], 0).await.unwrap().unwrap(), HashSet::new());
    none_is_left(&queue).await;
}
