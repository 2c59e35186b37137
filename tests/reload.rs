//! SIGHUP to the real program: the configuration changes under load, and no call is dropped or made twice.

use crate::support::fleet::{Fleet, Process};
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::simulate::CallRecord;
use std::os::unix::net::UnixDatagram;

const IN_FORCE: &str = "the configuration was read again and is in force";

/// A provider of the simulator.
fn simulated(name: &str, behaviour: &str) -> String {
    format!(
        "[providers.{name}]\ndialect = \"openai\"\nmodels.model.price = {{ input = \"1\", output = \"2\" }}\n\
         {behaviour}\n"
    )
}

/// The same in the configuration.
fn provider(name: &str, more: &str) -> String {
    format!(
        "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n{more}\n\
         [models.\"{name}/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n"
    )
}

fn worker(max_in_flight: u32) -> String {
    format!("[worker]\nmax_in_flight = {max_in_flight}\ndrain_timeout = \"30s\"\n")
}

/// Lets a process read its new configuration, which is good.
async fn reload(process: &Process) {
    let before = process.said().matches(IN_FORCE).count();
    process.signal(Signal::HUP);
    process.until_said(IN_FORCE, before + 1).await;
}

/// Each job was bought once, and no call came to nothing.
async fn nothing_was_dropped(fleet: &Fleet, jobs: i64) {
    fleet.books_are_in_order(jobs).await;
    let attempts = fleet.number("select count(*) from sluice.attempts").await;
    assert_eq!(attempts, fleet.number("select count(*) from sluice.attempts where accepted").await);
    assert_eq!((attempts, fleet.verdict().total.calls), (jobs, u64::try_from(jobs).unwrap()));
}

/// The most calls of a provider at the same time, of those that arrived after an instant of the simulator's time; calls
/// under way then count as long as they last.
fn most_at_once(calls: &[CallRecord], provider: &str, after: u64) -> usize {
    let of: Vec<&CallRecord> = calls.iter().filter(|call| call.provider == provider).collect();
    let late = of.iter().filter(|call| call.arrived_ms > after);
    let at_once = |at: u64| of.iter().filter(|call| call.arrived_ms <= at && at < call.ended_ms).count();
    late.map(|call| at_once(call.arrived_ms)).max().unwrap_or(0)
}

/// When the calls of a provider that arrived by an instant of the simulator's time, and so many more, had all ended.
fn end_of_the_first(calls: &[CallRecord], provider: &str, by: u64, and: usize) -> u64 {
    let mut of: Vec<&CallRecord> = calls.iter().filter(|call| call.provider == provider).collect();
    of.sort_by_key(|call| call.arrived_ms);
    let before = of.iter().filter(|call| call.arrived_ms <= by).count();
    of.iter().take(before + and).map(|call| call.ended_ms).max().unwrap()
}

/// Milliseconds of the simulator's time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds of one test")]
fn now(fleet: &Fleet) -> u64 {
    (fleet.verdict().seconds * 1000.0) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn rungs_and_limits_change_under_load_and_no_call_is_dropped() {
    const JOBS: i64 = 600;
    let config = |places: u32, rung: &str, most: u32| {
        let one = provider("one", &format!("limits = {{ concurrency = {places} }}"));
        let two = provider("two", "limits = { concurrency = 12 }");
        format!("{}{one}{two}[routes.default]\nrungs = [\"{rung}/model\"]\npatience = \"forever\"\n", worker(most))
    };
    let latency = "latency = { uniform = [0.05, 0.15] }";
    let fleet =
        Fleet::new(&format!("{}{}", simulated("one", latency), simulated("two", latency)), &config(8, "one", 40)).await;
    let process = fleet.start();
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(50).await;

    // Fewer places: what runs ends, and then no more than three run.
    fleet.configure(&config(3, "one", 40));
    reload(&process).await;
    let changed = now(&fleet);
    fleet.until_answered(150).await;
    let calls = fleet.calls();
    assert_eq!(most_at_once(&calls, "one", 0), 8);
    // The calls that had passed the gate by then, even those not at the provider yet, end first.
    let settled = end_of_the_first(&calls, "one", changed, 8);
    assert_eq!(most_at_once(&calls, "one", settled), 3);

    // More places.
    fleet.configure(&config(10, "one", 40));
    reload(&process).await;
    let changed = now(&fleet);
    fleet.until_answered(300).await;
    assert_eq!(most_at_once(&fleet.calls(), "one", changed), 10);

    // Another rung, and fewer jobs in hand. Those that are past the gate are on their way.
    fleet.configure(&config(10, "two", 5));
    reload(&process).await;
    let before = fleet.verdict().providers["one"].figures.calls;
    fleet.until_answered(JOBS).await;
    let after = fleet.verdict().providers["one"].figures.calls;
    assert!(after <= before + 10, "{} calls went where none should go any more", after - before);
    let held = "select max((stats->>'max_in_flight')::bigint) from sluice.worker";
    until("the heartbeat tells of fewer places", async || fleet.number(held).await == 5).await;
    let calls = fleet.calls();
    // The jobs that the worker had in hand, at most forty, come first.
    assert!(most_at_once(&calls, "two", end_of_the_first(&calls, "two", 0, 40)) <= 5);
    process.stop().await;
    nothing_was_dropped(&fleet, JOBS).await;
}

/// The calls that fill the first places take long: the limit comes while all of them are at the provider, and none that
/// has passed the gate is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_where_there_was_none_holds_with_the_calls_that_are_under_way() {
    const JOBS: i64 = 120;
    let config = |limits: &str| {
        format!(
            "{}{}[routes.default]\nrungs = [\"one/model\"]\npatience = \"forever\"\n",
            worker(50),
            provider("one", limits)
        )
    };
    let behaviour = "latency = { uniform = [0.1, 0.4] }\n\
                     faults = [{ kind = \"slow\", delay = \"6s\", first_n_calls = 16 }]";
    let fleet = Fleet::new(&simulated("one", behaviour), &config("")).await;
    let process = fleet.start();
    fleet.enqueue("default", JOBS).await;
    until("the first places are taken", async || fleet.verdict().total.max_concurrency == 16).await;
    fleet.configure(&config("limits = { concurrency = 4 }"));
    reload(&process).await;
    let changed = now(&fleet);
    fleet.until_answered(70).await;
    // Once more, with nothing that is new.
    reload(&process).await;
    fleet.until_answered(JOBS).await;
    process.stop().await;
    nothing_was_dropped(&fleet, JOBS).await;
    let calls = fleet.calls();
    assert!(most_at_once(&calls, "one", 0) >= 16, "more were under way");
    assert_eq!(most_at_once(&calls, "one", changed), 4, "none began before there was a place for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_key_is_used_at_once() {
    const JOBS: i64 = 40;
    let config = format!(
        "{}{}[routes.default]\nrungs = [\"one/model\"]\npatience = \"forever\"\n",
        worker(20),
        provider("one", "recheck = \"1h\"\nkeys = [{ api_key_file = \"one.key\" }]"),
    );
    let fleet =
        Fleet::new(&simulated("one", "keys = [\"the-new-one-7d21\"]\nlatency = { fixed = 0.02 }"), &config).await;
    fleet.file("one.key", "the-old-one-93ac");
    let process = fleet.start();
    fleet.enqueue("default", JOBS).await;
    process.until_said("the key is rejected", 1).await;
    until("nothing is under way", async || fleet.number("select count(*) from sluice.inflight").await == 0).await;
    let refused = fleet.verdict().total.calls;

    // The same key: it is tried once, which is not for nothing when it was unlocked at the vendor.
    reload(&process).await;
    process.until_said("tried again: the key is rejected", 1).await;
    assert_eq!(fleet.verdict().total.calls, refused + 1);
    fleet.file("one.key", "the-new-one-7d21");
    reload(&process).await;
    fleet.until_answered(JOBS).await;
    fleet.books_are_in_order(JOBS).await;
    assert_eq!(fleet.verdict().total.calls, refused + 1 + u64::try_from(JOBS).unwrap());
    let said = process.said();
    assert!(!said.contains("the-old-one") && !said.contains("the-new-one"), "a key is shown");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_configuration_is_refused_with_all_its_faults_and_the_work_goes_on() {
    const JOBS: i64 = 300;
    let good = format!("{}{}[routes.default]\nrungs = [\"one/model\"]\n", worker(10), provider("one", ""));
    let fleet = Fleet::new(&simulated("one", "latency = { uniform = [0.02, 0.1] }"), &good).await;
    let folder = tempfile::tempdir().unwrap();
    let (path, told) = (folder.path().join("notify"), UnixDatagram::bind(folder.path().join("notify")).unwrap());
    told.set_nonblocking(true).unwrap();
    let process = fleet.start_with(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let next = async |words: &str| {
        let heard = || {
            let mut buffer = [0; 1024];
            let length = told.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        let found = std::sync::Mutex::new(String::new());
        until(words, async || {
            let message = std::iter::from_fn(heard).find(|message| message.contains(words));
            message.is_some_and(|message| {
                *found.lock().unwrap() = message;
                true
            })
        })
        .await;
        found.into_inner().unwrap()
    };
    next("READY=1").await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(20).await;

    let refused = "the new configuration is refused; the worker goes on with the one before";
    fleet.configure(
        &good.replace("max_in_flight = 10", "max_in_flight = \"many\"").replace("one/model\"]", "none/model\"]"),
    );
    process.signal(Signal::HUP);
    process.until_said(refused, 1).await;
    let said = process.said();
    assert!(said.contains("faults=2"), "{said}");
    for fault in ["worker.max_in_flight", "routes.default.rungs"] {
        assert!(said.lines().any(|line| line.contains("ERROR") && line.contains(fault)), "{fault}: {said}");
    }
    let reloading = next("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(next("READY=1").await.contains("was refused"));
    for (number, bad) in ["[providers", ""].into_iter().enumerate() {
        fleet.configure(bad);
        process.signal(Signal::HUP);
        process.until_said(refused, number + 2).await;
        next("was refused").await;
    }

    // A good one, with changes that take a restart.
    fleet.configure(&format!("{good}[database]\npooler = \"transaction\"\n[log]\nfilter = \"debug\"\n"));
    reload(&process).await;
    next("RELOADING=1").await;
    assert!(!next("READY=1").await.contains("refused"));
    let said = process.said();
    let waits = |key: &str| {
        said.lines()
            .filter(|line| line.contains("takes effect when the worker is restarted") && line.contains(key))
            .count()
    };
    assert_eq!((waits("database.pooler"), waits("log.filter"), waits("key=")), (1, 1, 2), "{said}");
    fleet.until_answered(JOBS).await;
    process.stop().await;
    nothing_was_dropped(&fleet, JOBS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_route_that_vanished_go_back_and_wait_for_it() {
    const JOBS: i64 = 10;
    let config = |route: &str| {
        let one = provider("one", "breaker = { min_calls = 1000 }");
        format!("{}{one}[routes.{route}]\nrungs = [\"one/model\"]\npatience = \"forever\"\n", worker(20))
    };
    // Each job is tried twice, and the first try is long enough for the route to vanish meanwhile.
    let faults = "faults = [{ kind = \"server_error\", delay = \"3s\", first_n_per_request = 1 }]";
    let fleet =
        Fleet::new(&simulated("one", &format!("latency = {{ fixed = 0.05 }}\n{faults}")), &config("default")).await;
    let process = fleet.start();
    fleet.enqueue("default", JOBS).await;
    let under_way = "select count(*) from sluice.inflight";
    until("all are called", async || fleet.verdict().total.max_concurrency == u64::try_from(JOBS).unwrap()).await;
    assert_eq!((fleet.number(under_way).await, fleet.calls().len()), (JOBS, 0));
    fleet.configure(&config("other"));
    reload(&process).await;
    process.until_said("jobs wait for routes that this worker does not have", 1).await;
    until("no job is in hand", async || fleet.number(under_way).await == 0).await;
    let booked = "select count(*) from sluice.attempts where class = 'server_error'";
    assert_eq!(fleet.number(booked).await, JOBS, "calls under way went on to their end");
    assert_eq!(fleet.number("select count(*) from sluice.ready where attempts = 1").await, JOBS);
    assert_eq!(fleet.verdict().total.calls, u64::try_from(JOBS).unwrap(), "and no other began");

    fleet.configure(&config("default"));
    reload(&process).await;
    fleet.until_answered(JOBS).await;
    process.stop().await;
    fleet.books_are_in_order(JOBS).await;
    assert_eq!(fleet.verdict().total.calls, 2 * u64::try_from(JOBS).unwrap());
}

/// A server that no row knows: its errors, headers, counts and costs are where its operator says. It is taken up, and
/// what a route must keep with it, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_habits_of_its_own_is_taken_up_by_configuration_alone() {
    let foreign = "[providers.foreign]\ndialect = \"openai\"\n\
        models.model.price = { input = \"1000\", output = \"2000\" }\n\
        faults = [{ kind = \"server_error\", status = 420, wait = \"0.7s\", format = \"retry_after_fraction\", \
                    first_n_per_request = 1, containing = \"foreign\" }]\n\
        [providers.foreign.habits]\nheaders = { retry-after = \"x-slow-down-ms\", x-request-id = \"x-trace\" }\n\
        codes = { server_error = \"E_FULL\" }\ncost = \"/meta/usd\"\n\
        moved = { \"/usage/prompt_tokens\" = \"/meta/in\", \"/usage/completion_tokens\" = \"/meta/out\", \
                  \"/usage\" = \"/rest\" }\n";
    let known = provider("known", "quirks = { drop = [\"seed\"] }\n");
    let before = format!("{}{known}[routes.default]\nrungs = [\"known/model\"]\n", worker(4));
    let after = format!(
        "{}{known}[providers.foreign]\ndialect = \"openai\"\nbase_url = \"http://simulator/foreign/v1\"\n\
         [providers.foreign.quirks]\nerrors = [{{ code = \"E_FULL\", status = 420, class = \"rate_limit\" }}]\n\
         headers = {{ wait = \"x-slow-down-ms\", request_id = \"x-trace\" }}\n\
         usage = {{ input = \"/meta/in\", output = \"/meta/out\", cost = \"/meta/usd\" }}\n\
         [routes.default]\nrungs = [\"known/model\", \"foreign/model\"]\nmust_keep = [\"seed\"]\n\
         [routes.streamed]\nrungs = [\"foreign/model\"]\nstream = true\n",
        worker(4)
    );
    let fleet = Fleet::new(&format!("{}{foreign}", simulated("known", "")), &before).await;
    let ask = async |route: &str, prompt: &str| {
        sqlx::query_scalar::<_, i64>(
            "insert into sluice.job (route, request)
                  values ($1, jsonb_build_object('prompt', $2, 'seed', 7)) returning id",
        )
        .bind(route)
        .bind(prompt)
        .fetch_one(&fleet.pool)
        .await
        .unwrap()
    };
    let process = fleet.start();
    ask("default", "Hi").await;
    fleet.until_answered(1).await;
    let dropped = "select count(*) from sluice.attempts where provider = 'known' and decision->'dropped' ? 'seed'";
    assert_eq!(fleet.number(dropped).await, 1, "without a word of the route it is left out, visibly");

    fleet.configure(&after);
    reload(&process).await;
    let job = ask("default", "Hi, foreign server").await;
    fleet.until_answered(2).await;
    ask("streamed", "Hi").await;
    fleet.until_answered(3).await;
    let story = fleet.program(&["explain", &job.to_string()]).output().await.unwrap();
    let story = String::from_utf8(story.stdout).unwrap();
    let why = "does not support seed, which its route does not let it leave out (must_keep)";
    assert!(story.contains(why), "{story}");
    assert_eq!(fleet.verdict().providers["known"].figures.calls, 1, "it was not asked for what it would lose");

    let refused: (String, String, i32, bool) = sqlx::query_as(
        "select class, code, http_status::int, retry_at - ended_at = interval '700 ms' from sluice.attempts
          where provider = 'foreign' and not accepted",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(refused, ("rate_limit".to_owned(), "E_FULL".to_owned(), 420, true));
    let answers: Vec<(i64, i64, String, bool, bool)> = sqlx::query_as(
        "select input_tokens, output_tokens, usage_source, request_id like 'req_%',
                cost = round((input_tokens * 1000 + output_tokens * 2000) / 1e6, 9) and cost = reported_cost
           from sluice.attempts where provider = 'foreign' and accepted order by job_id",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(answers.len(), 2);
    for (input, output, source, has_id, is_billed) in answers {
        assert!(input > 0 && output > 0 && source == "provider" && has_id && is_billed);
    }
    process.stop().await;
    fleet.books_are_in_order(3).await;
}
