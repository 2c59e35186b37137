//! Limits that several worker processes share, seen from the provider's side: the simulator keeps the quota, refuses
//! calls above it, and records when each call came.
//!
//! The bounds are on the simulator's counts and its own times between calls, never on how long a test took. What is
//! allowed is a few calls a second, so that a machine that is ten times slower than usual can make them. What one
//! process tells the others within a second takes longer there, as long as other news that the test sends itself.

use crate::support::cluster::OwnCluster;
use crate::support::fleet::{Fleet, stop};
use crate::support::lateness::Lateness;
use crate::support::wait::until;
use rustix::process::Signal;
use sluice::simulate::CallRecord;

/// As many refusals as one event may cost: calls that were on their way, and a clock that is a little ahead. Three
/// processes that each take the whole limit for themselves meet dozens.
const HANDFUL: u64 = 8;

/// One provider with this behaviour, which tells its waits to the millisecond: a refusal then costs the fleet no more
/// than it has to.
fn one(behaviour: &str) -> String {
    format!(
        "[providers.one]\ndialect = \"openai\"\nwait_format = \"retry_after_ms\"\n{behaviour}\n\
         models.model.price = {{ input = \"1\", output = \"2\" }}\n"
    )
}

/// A process that may hold so many jobs, with one provider of these limits.
fn worker(max_in_flight: u32, limits: &str) -> String {
    let one = provider("one", "default", limits);
    format!("[worker]\nmax_in_flight = {max_in_flight}\ndrain_timeout = \"30s\"\n{one}")
}

/// A provider of the simulator, and the route that leads to it.
fn provider(name: &str, route: &str, limits: &str) -> String {
    format!(
        "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n{limits}\n\
         [models.\"{name}/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.{route}]\nrungs = [\"{name}/model\"]\npatience = \"forever\"\n"
    )
}

/// Calls that came before a wait was over of which their process had had the time to hear: a second, and what news
/// takes longer on a machine that is busy with other things.
fn early(calls: &[CallRecord], lateness: &Lateness) -> usize {
    let time_to_hear = 1_000 + u64::try_from(lateness.of_news().as_millis()).unwrap();
    let mut told: Vec<(u64, u64)> = calls.iter().filter_map(|call| Some((call.ended_ms, call.told_ms?))).collect();
    told.sort_unstable();
    let too_early = |call: &&CallRecord| {
        // A wait that is told while another one runs makes that longer.
        let (mut since, mut until) = (0, 0);
        for (at, wait) in told.iter().take_while(|(at, _)| *at <= call.arrived_ms) {
            since = if *at >= until { *at } else { since };
            until = until.max(at + wait);
        }
        call.arrived_ms > since + time_to_hear
    };
    calls.iter().filter(|call| call.early).filter(too_early).count()
}

/// Calls that the quota let through and that arrived between two instants of the simulator's time, in seconds.
fn admitted_between(calls: &[CallRecord], from: f64, until: f64) -> usize {
    arrived_between(calls, from, until).filter(|call| !call.refused_by_quota).count()
}

fn arrived_between(calls: &[CallRecord], from: f64, until: f64) -> impl Iterator<Item = &CallRecord> {
    calls.iter().filter(move |call| (from..until).contains(&seconds(call.arrived_ms)))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of one test")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
fn per_second(calls: usize, from: f64, until: f64) -> f64 {
    calls as f64 / (until - from)
}

/// Needs a limit that all processes share: alone each of them would make all the calls that are allowed.
#[tokio::test(flavor = "multi_thread")]
async fn three_processes_keep_one_limit_and_use_it() {
    const BURST: i64 = 24;
    const JOBS: i64 = BURST + 80;
    let quota = format!("requests_per_minute = 480, burst_requests = {BURST}");
    let fleet = Fleet::new(
        &one(&format!("quota = {{ {quota} }}\nlatency = {{ uniform = [0.05, 0.3] }}")),
        &worker(50, &format!("limits = {{ {quota} }}")),
    )
    .await;
    let processes = fleet.start_many(3).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    stop(processes).await;
    fleet.books_are_in_order(JOBS).await;

    let verdict = fleet.verdict();
    assert!(verdict.total.rate_limited <= HANDFUL, "{} refusals", verdict.total.rate_limited);
    assert!(verdict.clean, "{:?}", verdict.reasons);
    // After the burst, which makes up for three seconds of a machine that is busy with other things.
    let calls = fleet.calls();
    let (first, last) = (seconds(calls[0].arrived_ms), seconds(calls[calls.len() - 1].arrived_ms));
    let rate = per_second(80, first, last);
    assert!(rate > 6.4, "{rate:.1} calls per second where 8 are allowed");
}

/// Needs a limit that all processes share. Each event is followed by a phase of some six seconds; what the quota let
/// through from one and a half seconds into it (a lease, and as much again for a busy machine) until its end is
/// counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_or_stalls_or_joins_breaks_no_limit_and_leaves_nothing_of_it_unused() {
    const PER_SECOND: f64 = 10.0;
    const BURST: u64 = 20;
    const PHASE: u64 = 60;
    const LEASE: f64 = 1.5;
    const JOBS: i64 = 280;
    let quota = format!("requests_per_minute = 600, burst_requests = {BURST}");
    let fleet = Fleet::new(
        &one(&format!("quota = {{ {quota} }}\nlatency = {{ uniform = [0.05, 0.3] }}")),
        &worker(20, &format!("limits = {{ {quota} }}")),
    )
    .await;
    let mut processes = fleet.start_many(3).await;
    let lateness = Lateness::watch(&fleet.pool).await;
    fleet.enqueue("default", JOBS).await;

    let mut events = vec![("started", fleet.until_admitted(1).await)];
    events.push(("one was killed", fleet.until_admitted(BURST + PHASE).await));
    let mut killed = processes.remove(0);
    killed.kill().await;
    events.push(("one was stopped, one joined", fleet.until_admitted(BURST + 2 * PHASE).await));
    let stopped = processes.remove(0);
    stopped.signal(Signal::STOP);
    let joined = fleet.start();
    events.push(("the stopped one goes on", fleet.until_admitted(BURST + 3 * PHASE).await));
    stopped.signal(Signal::CONT);
    events.push(("over", fleet.until_admitted(BURST + 4 * PHASE).await));

    // What the dead process held comes back with its lease, here at once.
    sqlx::query("update sluice.worker set lease_until = now() - interval '1 second' where pid = $1 and state = 'live'")
        .bind(killed.pid())
        .execute(&fleet.pool)
        .await
        .unwrap();
    fleet.until_answered(JOBS).await;
    processes.extend([stopped, joined]);
    stop(processes).await;
    fleet.books_are_in_order(JOBS).await;

    let calls = fleet.calls();
    let told: Vec<String> = events
        .windows(2)
        .map(|phase| {
            let ((what, from), (_, until)) = (phase[0], phase[1]);
            let refused = arrived_between(&calls, from, until).filter(|call| call.refused_by_quota).count();
            let rate = per_second(admitted_between(&calls, from + LEASE, until), from + LEASE, until);
            format!("{what} at {from:.2} s: {refused} refusals, then {rate:.1} calls per second")
        })
        .collect();
    for (phase, told) in events.windows(2).zip(&told) {
        let (from, until) = (phase[0].1, phase[1].1);
        let refused = arrived_between(&calls, from, until).filter(|call| call.refused_by_quota).count();
        assert!(refused as u64 <= HANDFUL, "{told}\n{told:#?}");
        let rate = per_second(admitted_between(&calls, from + LEASE, until), from + LEASE, until);
        assert!(rate > 0.8 * PER_SECOND, "{PER_SECOND} calls per second are allowed\n{told:#?}");
    }
    let after = arrived_between(&calls, events[4].1, f64::MAX).filter(|call| call.refused_by_quota).count();
    assert!(after as u64 <= HANDFUL, "{after} refusals at the end\n{told:#?}");
    assert_eq!((early(&calls, &lateness), fleet.verdict().total.early_retries_of_same_request), (0, 0));
}

/// Every row that waits, where it lies and which transaction touched it last: the same again means that no session
/// has written or even locked one of them.
const ROWS: &str = "
    select coalesce(md5(string_agg(which || ctid || xmin || xmax, ',' order by which, ctid)), 'none')
      from (select 'ready' as which, ctid, xmin::text, xmax::text from sluice.ready
            union all select 'parked', ctid, xmin::text, xmax::text from sluice.parked
            union all select 'inflight', ctid, xmin::text, xmax::text from sluice.inflight) as waiting";

/// What the statistics have of writes to the queue's tables.
const WRITES: &str = "
    select string_agg(format('%s +%s ~%s -%s', relname, n_tup_ins, n_tup_upd, n_tup_del), ', ' order by relname)
      from pg_stat_user_tables where schemaname = 'sluice' and relname in ('ready', 'parked', 'inflight')";

#[tokio::test(flavor = "multi_thread")]
async fn a_long_wait_is_kept_to_the_end_and_the_jobs_behind_it_are_not_touched() {
    const JOBS: i64 = 200;
    let refuses = |name: &str, wait: &str, format: &str| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nlatency = {{ fixed = 0.02 }}\n\
             faults = [{{ kind = \"rate_limit\", wait = \"{wait}\", format = \"{format}\" }}]\n"
        )
    };
    let fleet = Fleet::new(
        &format!(
            "{}{}[providers.free]\ndialect = \"openai\"\nlatency = {{ fixed = 0.5 }}\n",
            refuses("seconds", "90s", "retry_after"),
            refuses("date", "1h", "http_date")
        ),
        &format!(
            "[worker]\nmax_in_flight = 100\n{}{}{}",
            provider("seconds", "seconds", "limits = { concurrency = 4 }"),
            provider("date", "date", "limits = { concurrency = 4 }"),
            provider("free", "free", "limits = { concurrency = 20 }"),
        ),
    )
    .await;
    for route in ["seconds", "date", "free"] {
        fleet.enqueue(route, JOBS).await;
    }
    let process = fleet.start();
    fleet.until_answered(JOBS).await;
    until("nothing is under way", async || fleet.number("select count(*) from sluice.inflight").await == 0).await;
    let refused = |name: &str| fleet.verdict().providers[name].figures.rate_limited;
    let calls = (refused("seconds"), refused("date"));
    // The calls that were under way when the first of them was told to wait.
    assert!((1..=4).contains(&calls.0) && (1..=4).contains(&calls.1), "{calls:?}");
    assert_eq!(fleet.verdict().providers["free"].figures.max_concurrency, 20, "the other route had all its places");
    assert!(fleet.number("select count(*) from sluice.ready").await > JOBS, "hundreds wait");

    let text =
        async |query: &'static str| -> String { sqlx::query_scalar(query).fetch_one(&fleet.pool).await.unwrap() };
    let seen = "select (extract(epoch from max(seen_at)) * 1000)::bigint from sluice.worker";
    let lives_on = async |millis: i64| {
        let since = fleet.number(seen).await;
        until("the worker has lived on", async || fleet.number(seen).await >= since + millis).await;
    };
    // A session that is idle reports its last writes within ten seconds, and what was begun before takes its time.
    let mut before = (text(ROWS).await, text(WRITES).await);
    for _ in 0..5 {
        lives_on(11_000).await;
        let now = (text(ROWS).await, text(WRITES).await);
        if now == before {
            break;
        }
        before = now;
    }
    // Six seconds of the worker's life: heartbeats, dozens of looks at the queue, and its work for all workers.
    lives_on(6_000).await;
    assert_eq!((text(ROWS).await, text(WRITES).await), before);
    assert_eq!((refused("seconds"), refused("date")), calls, "not one call before its time");
    assert_eq!(fleet.verdict().total.early_retries, 0);
    process.stop().await;
}

/// The first call is refused with a wait of three seconds; nothing is configured, so that nothing but the refusal says
/// what the provider takes.
async fn a_gate_opens(processes: i64) {
    const JOBS: i64 = 80;
    let fleet = Fleet::new(
        &one("quota = { requests_per_minute = 600, burst_requests = 20 }\nlatency = { uniform = [0.05, 0.1] }\n\
             faults = [{ kind = \"rate_limit\", wait = \"3s\", format = \"retry_after\", first_n_calls = 1 }]"),
        &worker(100, ""),
    )
    .await;
    let processes = fleet.start_many(processes).await;
    let lateness = Lateness::watch(&fleet.pool).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(JOBS).await;
    stop(processes).await;
    fleet.books_are_in_order(JOBS).await;
    let verdict = fleet.verdict();
    let calls = fleet.calls();
    assert_eq!((early(&calls, &lateness), verdict.total.early_retries_of_same_request), (0, 0));
    assert_eq!(verdict.total.storms, 0);
    let reasons: Vec<_> = verdict.reasons.iter().filter(|reason| !reason.starts_with("early retries")).collect();
    assert!(reasons.is_empty(), "{reasons:?}");
    // Some calls came when it was over: the gate has really been shut and has really opened.
    let refusal = calls.iter().find(|call| call.fault == Some("rate_limit")).unwrap();
    let opens = seconds(refusal.ended_ms + 3_000) - 0.005;
    let heard = seconds(refusal.ended_ms) + 1.0 + lateness.of_news().as_secs_f64();
    assert_eq!(arrived_between(&calls, heard, opens).count(), 0);
    assert!(arrived_between(&calls, opens, f64::MAX).count() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_opens_is_not_stormed() {
    a_gate_opens(1).await;
}

/// Needs gates that all processes share.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_opens_is_not_stormed_by_a_fleet() {
    a_gate_opens(3).await;
}

/// Needs gates that all processes share: who was not told himself would go on calling.
#[tokio::test(flavor = "multi_thread")]
async fn one_process_is_told_to_wait_and_within_a_second_all_of_them_do() {
    const JOBS: i64 = 160;
    let fleet = Fleet::new(
        &one("latency = { fixed = 0.3 }\nfaults = [{ kind = \"rate_limit\", wait = \"4s\", format = \"retry_after\", \
              containing = \"refuse this\", first_n_per_request = 1 }]"),
        &worker(20, "limits = { concurrency = 6 }"),
    )
    .await;
    let processes = fleet.start_many(2).await;
    let lateness = Lateness::watch(&fleet.pool).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_admitted(40).await;
    sqlx::query("insert into sluice.job (priority, request) values (100, '{\"prompt\": \"refuse this\"}')")
        .execute(&fleet.pool)
        .await
        .unwrap();
    fleet.until_answered(JOBS + 1).await;
    stop(processes).await;
    fleet.books_are_in_order(JOBS + 1).await;

    let calls = fleet.calls();
    let refusals: Vec<&CallRecord> = calls.iter().filter(|call| call.status == 429).collect();
    assert_eq!(refusals.len(), 1);
    let told = seconds(refusals[0].ended_ms);
    let heard = told + 1.0 + lateness.of_news().as_secs_f64();
    let waiting = arrived_between(&calls, heard, told + 4.0 - 0.005).count();
    assert_eq!(waiting, 0, "calls while the whole fleet should wait");
    assert!(arrived_between(&calls, told + 4.0, f64::MAX).count() > 60, "it goes on afterwards");
    assert_eq!((early(&calls, &lateness), fleet.verdict().total.early_retries_of_same_request), (0, 0));
}

/// Needs a limit that all processes share.
#[tokio::test(flavor = "multi_thread")]
async fn three_processes_share_the_places_of_one_provider() {
    let fleet =
        Fleet::new(&one("latency = { uniform = [0.2, 0.4] }"), &worker(50, "limits = { concurrency = 6 }")).await;
    let processes = fleet.start_many(3).await;
    fleet.enqueue("default", 150).await;
    fleet.until_answered(150).await;
    stop(processes).await;
    fleet.books_are_in_order(150).await;
    assert_eq!(fleet.verdict().total.max_concurrency, 6, "never more, and all of them are used");
}

/// Eight calls at once, and not a word about it: a bare 429 for every call more. It says to make fewer calls at once,
/// not to make none for seconds on end: the jobs are four seconds of work.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_publishes_nothing_is_felt_for() {
    const JOBS: i64 = 300;
    let fleet =
        Fleet::new(&one("quota = { concurrency = 8 }\nlatency = { uniform = [0.05, 0.15] }"), &worker(100, "")).await;
    fleet.enqueue("default", JOBS).await;
    let process = fleet.start();
    fleet.until_answered(JOBS).await;
    process.stop().await;
    fleet.books_are_in_order(JOBS).await;
    let verdict = fleet.verdict();
    // Everything at once would be refused nine times in ten.
    assert!(verdict.total.rate_limited < 60, "{} refusals", verdict.total.rate_limited);
    assert!(verdict.clean, "{:?}", verdict.reasons);
}

/// A server that answers eight calls at full speed and divides itself between more: more calls at once gain nothing.
///
/// The usual time is learned from the first calls. So the process is warm before them, and a call takes long compared
/// with what a busy machine adds to it: what slows an answer down here is the load on the server, and not that on the
/// machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_slows_down_under_load_is_not_loaded_with_everything() {
    const JOBS: i64 = 250;
    const WARM_UP: i64 = 100;
    let fleet = Fleet::new(
        &format!(
            "{}[providers.warm]\ndialect = \"openai\"\nlatency = {{ fixed = 0.02 }}\n",
            one("latency = { uniform = [0.5, 0.75], full_speed = 8 }")
        ),
        &format!("{}{}", worker(300, ""), provider("warm", "warm", "limits = { concurrency = 32 }")),
    )
    .await;
    let process = fleet.start();
    fleet.enqueue("warm", WARM_UP).await;
    fleet.until_answered(WARM_UP).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_answered(WARM_UP + JOBS).await;
    process.stop().await;
    fleet.books_are_in_order(WARM_UP + JOBS).await;
    let most = fleet.verdict().providers["one"].figures.max_concurrency;
    assert!((8..=80).contains(&most), "{most} calls at once where 8 are answered at full speed");
}

/// Ten calls in the first second, and half as many again in each that follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wants_calls_to_grow_slowly_is_not_run_into() {
    const JOBS: i64 = 250;
    let fleet = Fleet::new(
        &one("quota.growth = { calls = 10, factor = 1.5, window = \"1s\" }\nlatency = { uniform = [0.05, 0.15] }"),
        &worker(100, ""),
    )
    .await;
    fleet.enqueue("default", JOBS).await;
    let process = fleet.start();
    fleet.until_answered(JOBS).await;
    process.stop().await;
    fleet.books_are_in_order(JOBS).await;
    let verdict = fleet.verdict();
    assert!(verdict.total.rate_limited < 40, "{} refusals", verdict.total.rate_limited);
    assert_eq!((verdict.total.early_retries, verdict.total.storms), (0, 0));
}

/// Postgres is killed in the middle of the work and comes back.
async fn the_database_is_away(processes: i64) {
    const JOBS: i64 = 130;
    let mut cluster = OwnCluster::start().await;
    // The provider allows a little more than the configuration says, which leaves room for calls that come late.
    let fleet = Fleet::over(
        cluster.pool.clone(),
        &cluster.url,
        &one("quota = { requests_per_minute = 600, burst_requests = 30 }\nlatency = { uniform = [0.05, 0.3] }"),
        &worker(40, "limits = { requests_per_minute = 600, burst_requests = 20 }"),
    );
    let workers = fleet.start_many(processes).await;
    fleet.enqueue("default", JOBS).await;
    fleet.until_admitted(50).await;
    let before = fleet.admitted();
    cluster.kill();
    until("the calls have stopped", async || {
        let newest = fleet.calls().last().map_or(0.0, |call| seconds(call.arrived_ms));
        fleet.verdict().seconds > newest + 3.0
    })
    .await;
    let meanwhile = fleet.admitted() - before;
    cluster.return_of_the_server().await;
    fleet.until_answered(JOBS).await;
    stop(workers).await;
    fleet.books_are_in_order(JOBS).await;
    let total = fleet.verdict().total;
    assert_eq!(total.rate_limited, 0);
    assert_eq!(total.calls - u64::try_from(JOBS).unwrap(), 0, "nothing was bought twice");
    assert!(meanwhile <= 40 * u64::try_from(processes).unwrap(), "{meanwhile} calls without a database");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_spends_what_it_holds_while_the_database_is_away_and_goes_on_afterwards() {
    the_database_is_away(1).await;
}

/// Needs a limit that all processes share.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_keeps_its_limit_while_the_database_is_away() {
    the_database_is_away(3).await;
}
