//! Requests for embeddings that share calls, with the real worker against the simulator: few calls, the same answers as
//! alone, money that adds up, and each job with a fate of its own.

use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::scripted::Scripted;
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::json;
use sluice::simulate::Dialect;
use sqlx::Row as _;
use std::fmt::Write as _;

const PRICE: &str = "price = { input = \"0.13\", output = \"0\" }";

/// The dialects, the inputs that the route asks for, the inputs that a call gets, and the limits of the provider.
const DIALECTS: [(&str, &str, u64, &str); 5] = [
    // A minute's limit that would not do for a request each.
    ("openai", "64", 64, "requests_per_minute = 12"),
    ("azure_openai", "{ inputs = 100, tokens = 150, wait = \"2s\" }", 0, ""),
    ("cohere", "200", 96, ""),
    ("gemini", "200", 100, ""),
    // A place for one call at a time.
    ("ollama", "50", 50, "concurrency = 1"),
];

/// Enqueues this many jobs of a route, each with one text of the same length.
async fn enqueue(fleet: &Fleet, route: &str, jobs: i64) {
    sqlx::query(
        "insert into sluice.job (route, request, max_attempts)
              select $1, jsonb_build_object('input', 'text number ' || lpad(n::text, 4, '0'), 'dimensions', 4), 1
                from generate_series(1, $2) n",
    )
    .bind(route)
    .bind(jobs)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

/// Enqueues one job.
async fn enqueue_one(fleet: &Fleet, route: &str, input: &str) -> i64 {
    let query = "insert into sluice.job (route, request, max_attempts)
                      values ($1, jsonb_build_object('input', $2, 'dimensions', 4), 1) returning id";
    sqlx::query_scalar(query).bind(route).bind(input).fetch_one(&fleet.pool).await.unwrap()
}

fn calls(fleet: &Fleet, provider: &str) -> u64 {
    fleet.verdict().providers[provider].figures.calls
}

fn charged(fleet: &Fleet, provider: &str) -> i64 {
    i64::try_from(fleet.verdict().providers[provider].figures.charged_nano_usd).unwrap()
}

/// The cost of all calls to a provider, by the ledger.
async fn booked(fleet: &Fleet, provider: &str) -> i64 {
    let query = "select coalesce(sum(cost_nanos), 0)::bigint from sluice.attempt where provider = $1";
    sqlx::query_scalar(query).bind(provider).fetch_one(&fleet.pool).await.unwrap()
}

async fn count(fleet: &Fleet, query: &'static str, provider: &str) -> i64 {
    sqlx::query_scalar(query).bind(provider).fetch_one(&fleet.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_need_few_calls_and_have_the_answers_that_they_have_alone() {
    let (mut scenario, mut config) = (String::new(), String::new());
    for (dialect, pack, _, limits) in DIALECTS {
        for (provider, pack, limits) in [(dialect.to_owned(), pack, limits), (format!("{dialect}_alone"), "", "")] {
            let path = Dialect::ALL.iter().find(|known| known.name() == dialect).unwrap().base_path();
            writeln!(
                scenario,
                "[providers.{provider}]\ndialect = \"{dialect}\"\nmodels.m.{PRICE}\nlatency = {{ fixed = 0.05 }}"
            )
            .unwrap();
            let limits = if limits.is_empty() { String::new() } else { format!("limits = {{ {limits} }}\n") };
            // On a busy machine jobs may come late; a pack that is full does not wait.
            let pack = match pack {
                "" => String::new(),
                table if table.starts_with('{') => format!("pack = {table}\n"),
                inputs => format!("pack = {{ inputs = {inputs}, wait = \"2s\" }}\n"),
            };
            write!(
                config,
                "[providers.{provider}]\ndialect = \"{dialect}\"\nbase_url = \"http://simulator/{provider}{path}\"\n\
                 {limits}[models.\"{provider}/m\"]\n{PRICE}\n[routes.{provider}]\nrungs = [\"{provider}/m\"]\n{pack}"
            )
            .unwrap();
        }
    }
    let fleet = Fleet::new(&scenario, &config).await;
    for (dialect, ..) in DIALECTS {
        enqueue(&fleet, dialect, 200).await;
        enqueue(&fleet, &format!("{dialect}_alone"), 200).await;
    }
    let worker = fleet.start();
    fleet.until_answered(2_000).await;
    worker.stop().await;
    fleet.books_are_in_order(2_000).await;

    for (dialect, _, inputs, _) in DIALECTS {
        // Tokens are estimated, so that their bound is worth some calls more or fewer.
        let needed = if inputs == 0 { 5 } else { 200_u64.div_ceil(inputs) };
        let made = calls(&fleet, dialect);
        assert!(
            made >= needed && made <= needed + if inputs == 0 { 6 } else { 3 },
            "{dialect}: {made} calls, {needed} are needed"
        );
        let figures = fleet.verdict().providers[dialect].figures.clone();
        assert_eq!((figures.refused_by_quota, figures.malformed_requests), (0, 0), "{dialect}: {figures:?}");
        // To the byte, but for the id that Cohere gives to each call.
        let query = "select count(*) from sluice.results r join sluice.jobs j on j.id = r.job_id
                            join sluice.jobs k on k.request = j.request and k.route = $1 || '_alone'
                            join sluice.results s on s.job_id = k.id
                      where j.route = $1
                        and regexp_replace(r.response::text, '\"id\": ?\"[^\"]*\"', '')
                          = regexp_replace(s.response::text, '\"id\": ?\"[^\"]*\"', '')";
        assert_eq!(count(&fleet, query, dialect).await, 200, "{dialect}: the answers are the same");
        // Gemini says nothing of its usage.
        let (booked, charged) = (booked(&fleet, dialect).await, charged(&fleet, dialect));
        assert!(if dialect == "gemini" { booked > 0 } else { booked == charged }, "{dialect}: {booked}, {charged}");
        let alone = "select count(*) from sluice.attempt where provider = $1 || '_alone' and decision ? 'pack'";
        assert_eq!(count(&fleet, alone, dialect).await, 0);
        // Each job has a row of its own that says with how many it shared its call.
        let rows = "select count(*) from sluice.attempt where provider = $1 and accepted
                       and (decision #>> '{pack,jobs}')::bigint > 1";
        let rows = count(&fleet, rows, dialect).await;
        assert!(rows >= 190, "{dialect}: {rows} rows of packs");
    }
}

/// A provider `p` for embeddings, and a route `packed` for it.
fn one_provider(latency: &str, pack: &str) -> (String, String) {
    let scenario = format!(
        "markers = true\n[providers.p]\ndialect = \"openai\"\nmodels.m.{PRICE}\nlatency = {{ fixed = {latency} }}\n"
    );
    let config = format!(
        "[providers.p]\ndialect = \"openai\"\nbase_url = \"http://simulator/p/v1\"\n\
         breaker = {{ min_calls = 1000 }}\n[models.\"p/m\"]\n{PRICE}\n\
         [routes.packed]\nrungs = [\"p/m\"]\npack = {pack}\n"
    );
    (scenario, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_input_fails_alone_and_costs_the_others_no_attempt() {
    let (scenario, config) = one_provider("0.001", "{ inputs = 64, wait = \"2s\" }");
    let fleet = Fleet::new(&scenario, &config).await;
    let mut bad = Vec::new();
    for (place, fault) in ["invalid_request", "context_length", "vector_zero", "vector_count"].iter().enumerate() {
        enqueue(&fleet, "packed", 30).await;
        let input = format!("[[fault:{fault}]] in the midst");
        bad.push((enqueue_one(&fleet, "packed", &input).await, *fault));
        enqueue(&fleet, "packed", 33).await;
        // Packs are made in the order of claims: each of the first two has one of the refused ones.
        let ended = 64 * (i64::try_from(place).unwrap() + 1);
        let worker = fleet.start();
        until("all jobs of this pack have ended", async || {
            fleet.number("select count(*) from sluice.result").await >= ended
        })
        .await;
        worker.stop().await;
    }
    let states = "select state::text, error_class, attempts from sluice.result where job_id = $1";
    for (job, fault) in &bad {
        let row = sqlx::query(states).bind(job).fetch_one(&fleet.pool).await.unwrap();
        let class = match *fault {
            "context_length" => "context_length",
            "invalid_request" => "refused",
            _ => "soft_failure",
        };
        assert_eq!((row.get::<&str, _>(0), row.get::<&str, _>(1)), ("failed", class), "{fault}");
    }
    assert_eq!(fleet.answered().await, 4 * 63, "each of them has one attempt, and none was used up by the others");
    assert_eq!(
        booked(&fleet, "p").await,
        charged(&fleet, "p"),
        "also what brought no vectors is paid by those who asked"
    );
    // 1 + 8 + 8 calls each find the refused ones; a pack without its vectors is asked one by one.
    let made = calls(&fleet, "p");
    assert!(made <= 17 + 17 + 1 + 65, "{made} calls");
    let own = "select count(*) from sluice.attempt where job_id = $1 and not coalesce(decision ? 'pack', false)";
    for (job, fault) in &bad {
        let alone: i64 = sqlx::query_scalar(own).bind(job).fetch_one(&fleet.pool).await.unwrap();
        assert_eq!(alone, i64::from(*fault != "vector_zero"), "{fault}: its own failure is that of a call of its own");
    }
    let explained = fleet.program(&["explain", &bad[0].0.to_string()]).output().await.unwrap();
    let told = text(&explained.stdout);
    assert!(told.contains("it shared its call with 63 other jobs (64 inputs in all); what became of that"), "{told}");
    assert!(told.contains("it shared its call with 7 other jobs (8 inputs in all)"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_felt_by_all_and_counts_against_none_and_a_poor_project_holds_up_nobody() {
    let (scenario, config) = one_provider("0.001", "{ inputs = 64, wait = \"2s\" }");
    let scenario = format!("{scenario}faults = [{{ kind = \"rate_limit\", first_n_calls = 1, wait = \"500ms\" }}]\n");
    let config = format!("{config}[budgets.poor]\nproject = \"poor\"\nlimit = \"0.000000001\"\n");
    let fleet = Fleet::new(&scenario, &config).await;
    enqueue(&fleet, "packed", 63).await;
    let poor: i64 = sqlx::query_scalar(
        "insert into sluice.job (route, project, request)
              values ('packed', 'poor', '{\"input\": \"a text of the poor one\", \"dimensions\": 4}') returning id",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    let worker = fleet.start();
    fleet.until_answered(63).await;
    until("the poor one has failed", async || fleet.number("select count(*) from sluice.result").await == 64).await;
    worker.stop().await;
    let error = "select error_class || ': ' || error from sluice.result where job_id = $1";
    let error: String = sqlx::query_scalar(error).bind(poor).fetch_one(&fleet.pool).await.unwrap();
    assert!(error.starts_with("never_fits: ") && error.contains("budget poor"), "{error}");
    // The refused call, the one after the wait, and perhaps one of those that came back a moment later.
    let made = calls(&fleet, "p");
    assert!((2..=4).contains(&made), "{made} calls");
    let limited = "select count(*) from sluice.attempt where class = 'rate_limit' and cost_nanos = 0
                      and uncertain_nanos = 0 and (decision #>> '{pack,jobs}')::int >= 60
                      and not (decision -> 'pack') ? 'parted'";
    assert!(fleet.number(limited).await >= 60, "each job has a row of it");
    assert_eq!(booked(&fleet, "p").await, charged(&fleet, "p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_inputs_is_kept() {
    let (scenario, config) = one_provider("0.001", "{ inputs = 20, wait = \"100ms\" }");
    // Each input has four tokens, by which the simulator counts; it says nothing of its limit. It takes twenty inputs
    // more at once than the configured limit: a call arrives later than it began, by half a second on a busy machine.
    let quota = "quota = { input_tokens_per_minute = 9600, burst_tokens = 320 }\npublishes = false\n";
    let limits = "limits = { inputs_per_minute = 2400, burst_inputs = 60 }\nbreaker";
    let fleet = Fleet::new(&format!("{scenario}{quota}"), &config.replacen("breaker", limits, 1)).await;
    enqueue(&fleet, "packed", 160).await;
    let many = "insert into sluice.job (route, request)
                     values ('packed', jsonb_build_object('input', array_fill('a text'::text, array[61])))";
    sqlx::query(many).execute(&fleet.pool).await.unwrap();
    let workers = fleet.start_many(2).await;
    fleet.until_answered(160).await;
    crate::support::fleet::stop(workers).await;
    let figures = fleet.verdict().providers["p"].figures.clone();
    assert_eq!(figures.refused_by_quota, 0, "{figures:?}");
    assert!(figures.calls < 80, "{figures:?}");
    let error = "select error_class || ': ' || error from sluice.result where state = 'failed'";
    let error: String = sqlx::query_scalar(error).fetch_one(&fleet.pool).await.unwrap();
    assert!(error.starts_with("never_fits: ") && error.contains("61 inputs, its limit allows 60 at once"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_a_pack_speaks_for_the_quality_of_its_target() {
    let main = Scripted::start(|call, _| {
        let texts = call.body["input"].as_array().map_or(1, Vec::len);
        let zero = |index: usize| json!({ "object": "embedding", "index": index, "embedding": [0.0, 0.0, 0.0, 0.0] });
        let data: Vec<_> = (0..texts).map(zero).collect();
        let usage = json!({ "prompt_tokens": 4 * texts, "total_tokens": 4 * texts });
        (200, json!({ "object": "list", "data": data, "model": "m", "usage": usage }).to_string().into_bytes())
    })
    .await;
    let (scenario, config) = one_provider("0.001", "{ inputs = 8, wait = \"2s\" }");
    let config = format!(
        "{}[providers.main]\ndialect = \"openai\"\nbase_url = \"{}\"\nbreaker = {{ min_calls = 8, open = \"1h\" }}\n\
         [models.\"main/m\"]\n{PRICE}\n",
        config.replace("[\"p/m\"]", "[\"main/m\", \"p/m\"]\nstrategy = \"priority\"\npatience = \"0s\"\nreask = false"),
        main.base_url("main")
    );
    let fleet = Fleet::new(&scenario, &config).await;
    let enqueue = async |from: i32| {
        let some = "insert into sluice.job (route, request)
                         select 'packed', jsonb_build_object('input', 'text number ' || n, 'dimensions', 4)
                           from generate_series($1, $1 + 7) n";
        sqlx::query(some).bind(from).execute(&fleet.pool).await.unwrap();
    };
    enqueue(10).await;
    let worker = fleet.start();
    fleet.until_answered(8).await;
    enqueue(20).await;
    fleet.until_answered(16).await;
    worker.stop().await;
    assert_eq!(main.calls("main").len(), 1, "one call has brought eight answers, and they were enough");
    let rejected = "select count(*) from sluice.attempts where provider = 'main' and detail = 'vector_zero'";
    assert_eq!(fleet.number(rejected).await, 8);
    let passed = "select count(*) from sluice.attempts
                   where provider = 'p' and number = 1 and decision->'skipped'->0->>'why' = 'quality'
                     and decision->'skipped'->0->>'found' = '8 of the last 8 answers were rejected (vector_zero 8)'";
    assert_eq!(fleet.number(passed).await, 8);
    fleet.books_are_in_order(16).await;
}

const NOTED: &str = "select count(*) from sluice.inflight where call_number is not null";

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_pays_its_part_and_a_killed_worker_loses_none() {
    let (scenario, config) = one_provider("3", "{ inputs = 40, wait = \"2s\" }");
    let fleet = Fleet::new(&scenario, &config).await;
    enqueue(&fleet, "packed", 40).await;
    let worker = fleet.start();
    until("the calls are noted", async || fleet.number(NOTED).await == 40).await;
    until("the call is there", async || calls(&fleet, "p") == 1).await;
    let first = fleet.number("select min(id) from sluice.job").await;
    sqlx::query("select sluice.cancel($1)").bind(first).execute(&fleet.pool).await.unwrap();
    fleet.until_answered(39).await;
    until("all are booked", async || fleet.number("select count(*) from sluice.attempt").await == 40).await;
    assert_eq!((calls(&fleet, "p"), booked(&fleet, "p").await), (1, charged(&fleet, "p")));

    // A drain waits for the call, and buys nothing again.
    enqueue(&fleet, "packed", 40).await;
    until("the second call is there", async || calls(&fleet, "p") == 2).await;
    worker.stop().await;
    assert_eq!((fleet.answered().await, calls(&fleet, "p")), (79, 2));

    let mut worker = fleet.start();
    enqueue(&fleet, "packed", 40).await;
    until("the third call is there", async || calls(&fleet, "p") == 3).await;
    worker.signal(Signal::STOP);
    worker.kill().await;
    let other = fleet.start();
    fleet.until_answered(119).await;
    other.stop().await;
    // Each job's part of the call that was lost is named, once.
    let lost = "select count(*) from sluice.attempt where class = 'abandoned' and detail = 'worker_died'
                   and uncertain_nanos > 0";
    assert_eq!(fleet.number(lost).await, 40);
    let uncertain = fleet.number("select sum(uncertain_nanos)::bigint from sluice.attempt").await;
    let (booked, charged) = (booked(&fleet, "p").await, charged(&fleet, "p"));
    assert!(booked <= charged && charged <= booked + uncertain, "{booked} and {uncertain} for {charged}");
    let audit = sluice::store::Store::from_pool(fleet.pool.clone()).audit().await.unwrap();
    assert_eq!((audit.faults(), audit.succeeded), (Vec::<String>::new(), 119));
}
