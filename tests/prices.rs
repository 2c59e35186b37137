//! Prices with the real program: what every dialect and every feature of a price comes to, costs that providers report,
//! history that is computed again, invoices beside the ledger, and estimates beside the amounts paid.

use crate::support::fleet::Fleet;
use crate::support::postgres::database;
use crate::support::program::{Program, text};
use crate::support::queue::{NewJob, Queue, in_batch};
use crate::support::scripted::{Reply, Scripted};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::domain::NanoUsd;
use sluice::store::Store;
use sluice::store::reprice::{Recosted, RepriceScope};
use sqlx::{PgPool, Row as _};
use std::fmt::Write as _;

/// The costs of all attempts, worked out anew by the database from the tokens and the price on each, with arithmetic
/// of its own: those that are not what the ledger says.
async fn wrong_costs(pool: &PgPool) -> Vec<(i64, String, Option<i64>, Option<i64>)> {
    sqlx::query_as(
        "with recomputed as (
            select a.job_id, a.model, a.computed_cost_nanos as booked,
                   floor(((a.input_tokens::numeric * (a.price->>'input')::numeric
                         + a.cache_read_tokens * coalesce(a.price->>'cached_input', a.price->>'input')::numeric
                         + (a.cache_write_tokens - a.cache_write_1h_tokens)
                           * coalesce(a.price->>'cache_write', a.price->>'input')::numeric
                         + a.cache_write_1h_tokens * coalesce(a.price->>'cache_write_1h', a.price->>'cache_write',
                                                              a.price->>'input')::numeric
                         + (a.output_tokens - a.reasoning_tokens) * (a.price->>'output')::numeric
                         + a.reasoning_tokens * coalesce(a.price->>'reasoning', a.price->>'output')::numeric)
                        / 1000000) + 0.5)::bigint as ours
              from sluice.attempt a where a.cost_source is not null and a.price is not null
        )
        select job_id, model, booked, ours from recomputed where booked is distinct from ours",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// The price of all models below in nano-dollars a token: in, from the cache, into it for minutes and for an hour, out,
/// reasoning. No two are alike, so that no class of tokens can stand for another one.
const PRICE: &str = "price = { input = \"3.1\", cached_input = \"0.31\", cache_write = \"3.9\", \
                     cache_write_1h = \"6.2\", output = \"15.7\", reasoning = \"17.3\", \
                     above = [{ input_tokens = 200000, price = { input = \"6.3\", \
                     cached_input = \"0.63\", output = \"22.9\" } }] }\n\
                     tiers = { flex = \"0.5\", batch = \"0.45\", priority = { input = \"5.1\", output = \"30.3\" } }\n";

/// An answer in OpenAI's dialect with this usage.
fn openai(usage: &Value, tier: &str) -> Value {
    let message = json!({ "role": "assistant", "content": "Paris." });
    json!({ "id": "c", "object": "chat.completion", "model": "m", "service_tier": tier, "usage": usage,
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] })
}

/// For each case: the provider, its dialect, its answer, and what that costs in nano-dollars, worked out by hand from
/// the answer's own words.
fn cases() -> Vec<(&'static str, &'static str, Value, i64)> {
    let usage = json!({ "prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200,
        "prompt_tokens_details": { "cached_tokens": 300 }, "completion_tokens_details": { "reasoning_tokens": 50 } });
    let long = json!({ "prompt_tokens": 200_001, "completion_tokens": 20, "total_tokens": 200_021,
        "prompt_tokens_details": { "cached_tokens": 150_000 } });
    let edge = json!({ "prompt_tokens": 200_000, "completion_tokens": 20, "total_tokens": 200_020,
        "prompt_tokens_details": { "cached_tokens": 150_000 } });
    let whole = 700 * 3_100 + 300 * 310 + 150 * 15_700 + 50 * 17_300;
    let anthropic = json!({ "id": "a", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "Paris." }],
        "usage": { "input_tokens": 100, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 300,
            "cache_creation": { "ephemeral_5m_input_tokens": 180, "ephemeral_1h_input_tokens": 120 },
            "output_tokens": 80, "service_tier": "standard" } });
    let mut batch = anthropic.clone();
    batch["usage"]["service_tier"] = json!("batch");
    let of_anthropic = 100 * 3_100 + 200 * 310 + 180 * 3_900 + 120 * 6_200 + 80 * 15_700;
    let gemini = json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": "Paris." }] },
            "finishReason": "STOP" }], "modelVersion": "m",
        "usageMetadata": { "promptTokenCount": 1_000, "cachedContentTokenCount": 400, "candidatesTokenCount": 100,
            "thoughtsTokenCount": 60, "totalTokenCount": 1_160 } });
    let responses = json!({ "id": "r", "object": "response", "status": "completed", "model": "m",
        "output": [{ "type": "message", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": "Paris.", "annotations": [] }] }],
        "usage": { "input_tokens": 1_000, "input_tokens_details": { "cached_tokens": 100 }, "output_tokens": 90,
            "output_tokens_details": { "reasoning_tokens": 30 }, "total_tokens": 1_090 } });
    let completions = json!({ "id": "t", "object": "text_completion", "model": "m",
        "choices": [{ "index": 0, "text": "Paris.", "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 70, "completion_tokens": 7, "total_tokens": 77 } });
    let cohere = json!({ "id": "c", "finish_reason": "COMPLETE",
        "message": { "role": "assistant", "content": [{ "type": "text", "text": "Paris." }] },
        "usage": { "billed_units": { "input_tokens": 110, "output_tokens": 50 },
            "tokens": { "input_tokens": 130, "output_tokens": 50 } } });
    let ollama = json!({ "model": "m", "message": { "role": "assistant", "content": "Paris." }, "done": true,
        "done_reason": "stop", "prompt_eval_count": 90, "eval_count": 33 });
    let bedrock = json!({ "stopReason": "end_turn",
        "output": { "message": { "role": "assistant", "content": [{ "text": "Paris." }] } },
        "usage": { "inputTokens": 100, "cacheReadInputTokens": 50, "cacheWriteInputTokens": 30, "outputTokens": 40,
            "totalTokens": 220,
            "cacheDetails": [{ "ttl": "1h", "inputTokens": 10 }, { "ttl": "5m", "inputTokens": 20 }] } });
    vec![
        ("chat", "openai", openai(&usage, "default"), whole),
        ("flex", "openai", openai(&usage, "flex"), whole / 2),
        // Its own price says nothing of the cache and of reasoning: they cost what input and output do.
        ("priority", "openai", openai(&usage, "priority"), 1_000 * 5_100 + 200 * 30_300),
        ("long", "openai", openai(&long, "default"), 50_001 * 6_300 + 150_000 * 630 + 20 * 22_900),
        ("edge", "openai", openai(&edge, "default"), 50_000 * 3_100 + 150_000 * 310 + 20 * 15_700),
        ("long_flex", "openai", openai(&long, "flex"), 50_001 * 3_150 + 150_000 * 315 + 20 * 11_450),
        ("messages", "anthropic", anthropic, of_anthropic),
        ("batch", "anthropic", batch, of_anthropic * 45 / 100),
        ("gemini", "gemini", gemini, 600 * 3_100 + 400 * 310 + 100 * 15_700 + 60 * 17_300),
        ("responses", "openai_responses", responses, 900 * 3_100 + 100 * 310 + 60 * 15_700 + 30 * 17_300),
        ("completions", "completions", completions, 70 * 3_100 + 7 * 15_700),
        ("azure", "azure_openai", openai(&usage, "default"), whole),
        ("cohere", "cohere", cohere, 110 * 3_100 + 50 * 15_700),
        ("ollama", "ollama", ollama, 90 * 3_100 + 33 * 15_700),
        ("bedrock", "bedrock", bedrock, 100 * 3_100 + 50 * 310 + 20 * 3_900 + 10 * 6_200 + 40 * 15_700),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_agree_to_the_nano_dollar_for_every_dialect_and_every_feature_of_a_price() {
    let answers: Vec<(&str, Reply)> =
        cases().into_iter().map(|(name, _, answer, _)| (name, (200, answer.to_string().into_bytes()))).collect();
    let server = Scripted::start(move |call, _| {
        // By the clock, and from a day on: with the answer of the first case.
        let provider = if matches!(call.provider.as_str(), "off_peak" | "since") { "chat" } else { &call.provider };
        answers.iter().find(|(name, _)| *name == provider).map(|(_, reply)| reply.clone()).unwrap()
    })
    .await;
    let mut config = "[http]\nlisten = \"off\"\n".to_owned();
    let mut add = |name: &str, dialect: &str, model: &str| {
        write!(
            config,
            "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"{}\"\napi_key_env = \"KEY\"\n\
             [models.\"{name}/m\"]\n{model}[routes.{name}]\nrungs = [\"{name}/m\"]\nmax_attempts = 1\n",
            server.base_url(name)
        )
        .unwrap();
    };
    let mut expected: Vec<(String, i64)> = Vec::new();
    for (name, dialect, _, cost) in cases() {
        add(name, dialect, PRICE);
        expected.push((name.to_owned(), cost));
    }
    add("off_peak", "openai", &format!("{PRICE}peak_hours = []\noff_peak = \"0.3\"\n"));
    expected.push(("off_peak".to_owned(), expected[0].1 * 3 / 10));
    let changes = "changes = [{ from = \"2020-01-01\", price = { input = \"1\", output = \"2\" } }, \
                   { from = \"2999-01-01\", price = { input = \"9\", output = \"9\" } }]\n";
    add("since", "openai", &format!("{PRICE}{changes}"));
    expected.push(("since".to_owned(), 1_000 * 1_000 + 200 * 2_000));
    let database = database().await;
    let program = Program::new(&config, &database.url());
    program.output(&["migrate"]).await;
    let pool = database.pool();
    for (name, _) in &expected {
        sqlx::query("insert into sluice.job (route, request) values ($1, '{\"prompt\": \"Where?\"}')")
            .bind(name)
            .execute(&pool)
            .await
            .unwrap();
    }
    let worker = program.command(&["worker", "--drain"]).env("KEY", "some-key-of-a-test").output().await.unwrap();
    assert!(worker.status.success(), "{}", text(&worker.stderr));
    expected.sort();
    let query = "select provider, cost_nanos, notes::text from sluice.attempt order by provider collate \"C\"";
    let rows = sqlx::query(query).fetch_all(&pool).await.unwrap();
    let booked: Vec<(String, i64)> =
        rows.iter().map(|row| (row.get(0), row.get::<Option<i64>, _>(1).unwrap_or(-1))).collect();
    assert_eq!(booked, expected, "{:?}", rows.iter().map(|row| row.get::<Option<String>, _>(2)).collect::<Vec<_>>());
    assert_eq!(wrong_costs(&pool).await, []);
    // The sums, too: what results and reports say is what the attempts cost.
    let all: i64 = expected.iter().map(|(_, cost)| cost).sum();
    for sums in
        ["select sum(cost_nanos)::bigint from sluice.result", "select sum(cost_nanos)::bigint from sluice.totals"]
    {
        assert_eq!(sqlx::query_scalar::<_, i64>(sums).fetch_one(&pool).await.unwrap(), all, "{sums}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cost_that_a_provider_puts_otherwise_is_booked_logged_once_an_hour_and_found_by_the_doctor() {
    let server = Scripted::start(|call, _| {
        let usage = match call.provider.as_str() {
            "near" => json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.001_202 }),
            "far" => json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.0042 }),
            _ => json!({ "prompt_tokens": 1_000, "completion_tokens": 100 }),
        };
        (200, openai(&usage, "default").to_string().into_bytes())
    })
    .await;
    let mut config = "[http]\nlisten = \"off\"\n".to_owned();
    for name in ["near", "far", "unpriced"] {
        let price = if name == "unpriced" { "" } else { "price = { input = \"1\", output = \"2\" }\n" };
        write!(
            config,
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{}\"\n[models.\"{name}/m\"]\n{price}\
             [routes.{name}]\nrungs = [\"{name}/m\"]\n",
            server.base_url(name)
        )
        .unwrap();
    }
    let database = database().await;
    let program = Program::new(&config, &database.url());
    program.output(&["migrate"]).await;
    let pool = database.pool();
    sqlx::query(
        "insert into sluice.job (route, request) select r, '{\"prompt\": \"Where?\"}'
           from unnest(array['near', 'far', 'unpriced']) r, generate_series(1, 3)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let worker = program.run(&["worker", "--drain"]).await;
    let said = text(&worker.stderr);
    assert!(worker.status.success(), "{said}");
    assert_eq!(said.matches("the provider says another cost").count(), 1, "{said}");
    assert_eq!(said.matches("a call has no price").count(), 1, "{said}");
    let rows: Vec<OfCost> = sqlx::query_as(
        "select distinct provider, cost_nanos, computed_cost_nanos, reported_cost_nanos, cost_source, cost_differs
           from sluice.attempt order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let row = |name: &str, cost, computed, reported, source: Option<&str>, differs| {
        (name.to_owned(), cost, computed, reported, source.map(str::to_owned), differs)
    };
    let (computed, reported) = (Some(1_200_000), Some(4_200_000));
    let near = Some(1_202_000);
    assert_eq!(
        rows,
        [
            row("far", reported, computed, reported, Some("reported"), true),
            row("near", near, computed, near, Some("reported"), false),
            row("unpriced", None, None, None, None, false),
        ]
    );
    // No worker runs, which the doctor finds, too.
    let doctor = program.run(&["doctor", "--format", "json"]).await;
    let found: Value = serde_json::from_str(&text(&doctor.stdout)).unwrap();
    let what = |check: &str| {
        let findings = found["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["check"] == check).unwrap()["what"].as_str().unwrap().to_owned()
    };
    assert_eq!(what("unknown_prices"), "the cost is unknown of 3 calls of unpriced/m");
    assert_eq!(
        what("reported_costs"),
        "providers say another cost than was computed: 3 calls of far/m, together $0.009 more than computed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_tier_without_a_price_keeps_what_was_reserved_until_it_has_one() {
    let usage = json!({ "prompt_tokens": 100, "completion_tokens": 100 });
    let server = Scripted::start(move |_, _| (200, openai(&usage, "turbo").to_string().into_bytes())).await;
    let config = |tiers: &str| {
        format!(
            "[http]\nlisten = \"off\"\n[providers.house]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"house/m\"]\nprice = {{ input = \"0\", output = \"5\" }}\n{tiers}\
             [routes.default]\nrungs = [\"house/m\"]\n[budgets.all]\nlimit = \"0.02\"\n",
            server.base_url("house")
        )
    };
    let database = database().await;
    let program = Program::new(&config(""), &database.url());
    program.output(&["migrate"]).await;
    let pool = database.pool();
    // Half a cent each at most.
    sqlx::query(
        "insert into sluice.job (request)
              select '{\"prompt\": \"Where?\", \"max_tokens\": 1000}' from generate_series(1, 10)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let books = async || {
        let mut books = Vec::new();
        for book in [
            "select coalesce(sum(cost_nanos), 0)::bigint, sum(uncertain_nanos)::bigint from sluice.attempt",
            "select coalesce(sum(cost_nanos), 0)::bigint, sum(uncertain_nanos)::bigint from sluice.result",
            "select sum(cost_nanos)::bigint, sum(uncertain_nanos)::bigint from sluice.totals",
            "select (spent * 1e9)::bigint, (uncertain * 1e9)::bigint from sluice.budgets",
        ] {
            books.push(sqlx::query_as::<_, (i64, i64)>(book).fetch_one(&pool).await.unwrap());
        }
        books
    };
    let drained = program.run(&["worker", "--drain"]).await;
    assert_eq!(server.calls("house").len(), 4, "{}", text(&drained.stderr));
    assert_eq!(books().await, [(0, 20_000_000); 4]);
    let called: i64 = sqlx::query_scalar("select min(job_id) from sluice.attempt").fetch_one(&pool).await.unwrap();
    let story = program.output(&["explain", &called.to_string()]).await;
    assert!(story.contains("cost unknown: the price was not known; budgets count $0.005 for it"), "{story}");
    // Twice the usual price, and a tenth of the tokens: a fifth of it.
    let program = Program::new(&config("tiers = { turbo = \"2\" }\n"), &database.url());
    program.output(&["reprice", "--yes"]).await;
    assert_eq!(books().await, [(4_000_000, 0); 4]);
    assert_eq!(Store::from_pool(pool.clone()).check_budgets(false).await.unwrap(), []);
    assert_eq!(wrong_costs(&pool).await, []);
    // The room is there again.
    program.run(&["worker", "--drain"]).await;
    assert_eq!(books().await, [(10_000_000, 0); 4]);
}

/// A provider, and what an attempt says of its cost: booked, computed, reported, by whom, and whether that differs.
type OfCost = (String, Option<i64>, Option<i64>, Option<i64>, Option<String>, bool);

/// One provider with one model, and its price as the configuration has it.
fn priced(price: &str) -> String {
    format!(
        "[providers.house]\ndialect = \"openai\"\nbase_url = \"http://simulator/house/v1\"\n\
         [models.\"house/m\"]\n{price}\n[routes.default]\nrungs = [\"house/m\"]\nmax_attempts = 4\n"
    )
}

const SCENARIO: &str = "[providers.house]\ndialect = \"openai\"\noutput = { median = 60, p99 = 300 }\n\
                        latency = { fixed = \"1ms\" }\nfaults = [{ kind = \"empty\", rate = 0.2 }, \
                        { kind = \"500\", rate = 0.1 }]\n";

async fn run(fleet: &Fleet, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = fleet.program(arguments).output().await.unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn json_of(fleet: &Fleet, arguments: &[&str]) -> Value {
    let (code, out, err) = run(fleet, &[arguments, &["--format", "json"]].concat()).await;
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{code:?} {error}: {out}{err}"))
}

async fn drain(fleet: &Fleet) {
    let (code, _, err) = run(fleet, &["worker", "--drain"]).await;
    assert_eq!(code, Some(0), "{err}");
}

/// What the ledger, the results and the sums say of the cost, each with how much is unknown.
async fn three_books(fleet: &Fleet) -> [(i64, i64); 3] {
    let mut books = [(0, 0); 3];
    let queries = [
        "select coalesce(sum(cost_nanos), 0)::bigint, count(*) - count(cost_nanos) from sluice.attempt",
        "select coalesce(sum(cost_nanos), 0)::bigint, count(*) - count(cost_nanos) from sluice.result",
        "select sum(cost_nanos)::bigint, sum(unpriced)::bigint from sluice.totals",
    ];
    for (book, query) in books.iter_mut().zip(queries) {
        *book = sqlx::query_as(query).fetch_one(&fleet.pool).await.unwrap();
    }
    books
}

#[tokio::test(flavor = "multi_thread")]
async fn history_without_a_price_is_priced_later_and_every_book_follows() {
    let fleet = Fleet::new(SCENARIO, &priced("context_window = 100000")).await;
    fleet.enqueue("default", 60).await;
    drain(&fleet).await;
    let [ledger, results, sums] = three_books(&fleet).await;
    assert_eq!((ledger.0, results.0, sums.0), (0, 0, 0));
    assert_eq!(ledger.1, sums.1);
    assert!(ledger.1 > 60 && results.1 == 60, "{ledger:?} {results:?}");
    fleet.configure(&priced("price = { input = \"1\", output = \"2\" }"));
    let dry = json_of(&fleet, &["reprice", "--dry-run"]).await;
    assert_eq!(dry["changed"], Value::Null);
    assert_eq!((&dry["cost_before"], dry["unknown_before"].as_i64()), (&json!(0.0), Some(ledger.1)));
    assert_eq!(three_books(&fleet).await, [ledger, results, sums], "a dry run changes nothing");
    // There is no user to ask here.
    let (code, _, err) = run(&fleet, &["reprice"]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("say --yes; nothing was changed"), "{err}");
    let (code, _, err) = run(&fleet, &["budget", "set", "total", "500", "--per", "once"]).await;
    assert_eq!(code, Some(0), "{err}");
    let done = json_of(&fleet, &["reprice", "--yes"]).await;
    assert_eq!(done["changed"], dry["changes"]);
    let wrong = Store::from_pool(fleet.pool.clone()).check_budgets(false).await.unwrap();
    assert_eq!(wrong, [], "a budget counts the new costs");
    let [ledger, results, sums] = three_books(&fleet).await;
    assert_eq!((ledger, results.0), (sums, ledger.0));
    assert!(ledger.0 > 0 && ledger.1 == 0 && results.1 == 0, "{ledger:?} {results:?}");
    assert_eq!(wrong_costs(&fleet.pool).await, []);
    fleet.books_are_in_order(60).await;
    // A second run finds nothing to do.
    assert_eq!(json_of(&fleet, &["reprice", "--yes"]).await["changes"], 0);
    // The attempts know what they said before.
    let trace = "select count(*) from sluice.attempts where repriced_at is not null and cost_source = 'price' \
                 and repriced_from->0->'cost_nanos' = 'null' and repriced_from->0 ? 'until'";
    assert_eq!(fleet.number(trace).await, done["changed"].as_i64().unwrap());
    let job = fleet.number("select min(job_id) from sluice.attempt where repriced_at is not null").await.to_string();
    let (_, story, _) = run(&fleet, &["explain", &job]).await;
    assert!(story.contains("; repriced 20") && story.contains("before that unknown"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_priced_anew_and_a_running_worker_is_not_hurt() {
    let fleet = Fleet::new(SCENARIO, &priced("price = { input = \"1\", output = \"2\" }")).await;
    sqlx::query(
        "insert into sluice.job (batch, project, request) select 'b' || n % 2, 'p' || n % 3,
                jsonb_build_object('prompt', 'question ' || n) from generate_series(1, 400) n",
    )
    .execute(&fleet.pool)
    .await
    .unwrap();
    let worker = fleet.start();
    until("some are answered", async || fleet.answered().await >= 50).await;
    // The commands read a dearer price than the worker does: it books at the old one meanwhile.
    let dear = |factor: i64| priced(&format!("price = {{ input = \"{factor}\", output = \"{}\" }}", 2 * factor));
    for factor in 3..9 {
        fleet.configure(&dear(factor));
        let (code, _, err) = run(&fleet, &["reprice", "--yes"]).await;
        assert_eq!(code, Some(0), "{err}");
    }
    fleet.until_answered(400).await;
    worker.stop().await;
    fleet.configure(&dear(10));
    let (code, _, err) = run(&fleet, &["reprice", "--yes"]).await;
    assert_eq!(code, Some(0), "{err}");
    let [ledger, results, sums] = three_books(&fleet).await;
    assert_eq!((ledger, ledger.0), (sums, results.0));
    fleet.books_are_in_order(400).await;
    assert_eq!(wrong_costs(&fleet.pool).await, []);
    let at = async |query: &'static str| fleet.number(query).await;
    let left = "select count(*) from sluice.attempt where cost_source is not null and price->>'input' <> '10000000000'";
    assert_eq!(at(left).await, 0);
    // Only one batch of one project.
    fleet.configure(&dear(11));
    let (code, _, err) = run(&fleet, &["reprice", "--batch", "b1", "--project", "p2", "--yes"]).await;
    assert_eq!(code, Some(0), "{err}");
    let others = "select count(*) from sluice.attempts where (price->>'input' = '11000000000') \
                  is distinct from (batch = 'b1' and project = 'p2') and cost_source is not null";
    assert_eq!(at(others).await, 0);
    for nothing in [["--until", "2020-01-01"], ["--since", "0s"]] {
        let dry = json_of(&fleet, &[&["reprice", "--dry-run"], nothing.as_slice()].concat()).await;
        assert_eq!(dry["attempts"], 0, "{nothing:?}");
    }
    // A name that neither the configuration nor the books have is a slip.
    for (option, name, said) in [
        ("--provider", "x", "there is no provider \"x\""),
        ("--model", "n", "there is no model \"n\""),
        ("--route", "defualt", "there is no route \"defualt\"; perhaps \"default\" is meant"),
        ("--batch", "b11", "there is no batch \"b11\"; there are: b0, b1"),
        ("--project", "x", "there is no project \"x\""),
    ] {
        let (code, _, err) = run(&fleet, &["reprice", "--dry-run", option, name]).await;
        assert!(code == Some(6) && err.contains(said), "{option}: {err}");
    }
    assert!(json_of(&fleet, &["reprice", "--dry-run", "--model", "m"]).await["changes"].as_i64().unwrap() > 0);
    fleet.books_are_in_order(400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_agrees_or_is_told_apart_line_by_line() {
    let fleet = Fleet::new(SCENARIO, &priced("price = { input = \"1\", output = \"2\" }")).await;
    fleet.enqueue("default", 20).await;
    drain(&fleet).await;
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "select (started_at at time zone 'UTC')::date::text, max(split_part(model, '@', 1)), sum(cost_nanos)::bigint,
                sum(input_tokens + cache_read_tokens + output_tokens)::bigint
           from sluice.attempt group by 1 order by 1",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    let file = |cost: &dyn Fn(i64) -> i64, tokens: &dyn Fn(i64) -> i64| {
        let mut csv = "Day,Model,Spent,Tokens\n".to_owned();
        for (day, model, nanos, count) in &rows {
            let nanos = cost(*nanos);
            writeln!(csv, "{day},{model},{}.{:09},{}", nanos / 1_000_000_000, nanos % 1_000_000_000, tokens(*count))
                .unwrap();
        }
        csv
    };
    let columns = ["--date", "Day", "--model", "model", "--cost", "spent", "--tokens", "tokens"];
    let reconcile = async |csv: &str, more: &[&str]| {
        fleet.file("invoice.csv", csv);
        run(&fleet, &[&["reconcile", "invoice.csv"], more].concat()).await
    };
    let same = |amount: i64| amount;
    let (code, out, err) = reconcile(&file(&same, &same), &columns).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for (csv, finding) in [
        (file(&|cost| cost * 2, &same), "other_price"),
        (file(&same, &|tokens| tokens + tokens / 10), "other_tokens"),
        (file(&same, &same).replace(",m,", ",another-model,"), "only_in_ledger"),
        (file(&same, &same).replace(",m,", ",another-model,"), "only_in_invoice"),
    ] {
        let (code, out, err) = reconcile(&csv, &columns).await;
        assert_eq!(code, Some(11), "{finding}: {out}{err}");
        assert!(out.contains(finding), "{finding}: {out}{err}");
    }
    // Within the tolerance.
    let (code, out, _) =
        reconcile(&file(&|cost| cost + cost / 20, &same), &[&columns[..], &["--tolerance", "0.1"]].concat()).await;
    assert_eq!(code, Some(0), "{out}");
    let anthropic = "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd\n\
                     2026-08-04,Claude Haiku 4.5,Default,k,message,x,output,0.05\n";
    let openai = "start_time_iso,amount_value,amount_currency\n2026-08-04T00:00:00+00:00,0.06,usd\n";
    fleet.configure(&format!(
        "{}[providers.openai]\nbase_url = \"http://simulator/house/v1\"\n",
        priced("price = { input = \"1\", output = \"2\" }")
    ));
    for (csv, more, words) in [
        (anthropic, vec!["--provider", "openai"], "this is Anthropic's export of costs, and openai is of openai: take"),
        (anthropic, vec![], "no provider of the configuration is of anthropic; there are: house, openai"),
        ("a,b\n1,2\n", vec![], "no export that is known (a, b)"),
        (&openai.replace("usd\n", "eur\n"), vec![], "invoice.csv:2: amount_currency is \"eur\""),
        (&openai.replace("0.06", "6 cents"), vec![], "invoice.csv:2: amount_value is \"6 cents\"; expected dollars"),
        (&openai.replace("2026-08-04T", "someday T"), vec![], "invoice.csv:2: start_time_iso is"),
        ("start_time_iso,amount_currency,amount_value\n", vec![], "it has no line below its header"),
        ("Day,Spent\n2026-08-04,1\n", vec!["--date", "Day", "--cost", "Cost"], "there is no column \"Cost\" (--cost)"),
    ] {
        let (code, _, err) = reconcile(csv, &more).await;
        assert_eq!(code, Some(7), "{words}: {err}");
        assert!(err.contains(words), "{words}: {err}");
    }
    let (code, out, _) = reconcile(openai, &[]).await;
    assert_eq!(code, Some(11), "{out}");
    let (code, _, err) = reconcile(openai, &["--provider", "opneai"]).await;
    assert!(code == Some(6) && err.contains("no provider \"opneai\"; perhaps \"openai\" is meant"), "{err}");

    // As spreadsheets and pipes bring it.
    let columns = &columns[..6];
    let csv = file(&same, &same);
    let by_semicolons: String =
        csv.lines().map(|line| line.replace('.', "?").replace(',', ";").replace('?', ",") + "\r\n").collect();
    let wide: Vec<u8> =
        std::iter::once(0xfeff).chain(by_semicolons.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, csv.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    for (form, bytes) in [("semicolons", by_semicolons.as_bytes()), ("UTF-16", &wide), ("gzip", &packed)] {
        let mut command = fleet.program(&[&["reconcile", "-"], columns].concat());
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, bytes).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{form}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[tokio::test]
async fn what_changes_of_a_call_whose_job_is_gone_is_booked_without_its_labels() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob { project: "p", ..in_batch("b") }, 1).await;
    let claimed = queue.claim_one(worker).await;
    queue.succeed(&claimed).await;
    let scope = RepriceScope::default();
    let (_, costed) = queue.store.costed(scope, None).next().await.unwrap().unwrap();
    let [was] = costed.as_slice() else { panic!("{costed:?}") };
    // The job goes between the two steps, as in a retention that a person does by hand.
    queue.run("alter table sluice.job disable trigger all; delete from sluice.job").await;
    let cost = Some(NanoUsd(45_000));
    let change =
        Recosted { was: was.clone(), cost, computed: cost, source: Some("price"), price: was.price, differs: false };
    assert_eq!(queue.store.recost(&[change]).await.unwrap(), 1);
    assert_eq!(queue.count("select sum(cost_nanos)::bigint from sluice.attempt").await, 45_000);
    let without = "select sum(cost_nanos)::bigint from sluice.totals where route = '' and project = '' and batch = ''";
    assert_eq!(queue.count(without).await, 15_000, "the difference");
    assert_eq!(queue.count("select sum(cost_nanos)::bigint from sluice.totals").await, 45_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_catalogue_is_checked_shown_kept_and_taken_by_a_running_worker() {
    let fleet = Fleet::new(
        "[providers.openai]\ndialect = \"openai\"\n",
        "[providers.openai]\nbase_url = \"http://simulator/openai/v1\"\n\
         [routes.default]\nrungs = [\"openai/gpt-4o-mini\"]\n",
    )
    .await;
    let (code, out, _) = run(&fleet, &["prices", "show", "openai/gpt-4o-mini"]).await;
    assert!(code == Some(0) && out.contains("0.15"), "{out}");
    let block = |as_of: &str, price: &str| {
        format!(
            "[openai]\nas_of = \"{as_of}\"\nsource = \"https://example.com/prices\"\n[openai.models]\n\
             \"gpt-4o-mini\" = {{ price = {{ {price} }} }}\n"
        )
    };
    for (text, words) in [
        (block("2999-01-01", "input = \"-1\", output = \"2\""), "is negative"),
        (block("soon", "input = \"1\", output = \"2\""), "\"soon\" is no day"),
        (block("2999-01-01", "input = \"1 EUR\", output = \"2\""), "is not an amount of money"),
        ("[openai".to_owned(), "new.toml"),
    ] {
        fleet.file("new.toml", &text);
        let (code, _, err) = run(&fleet, &["prices", "update", "new.toml", "--yes"]).await;
        assert_eq!(code, Some(7), "{err}");
        assert!(err.contains(words) && err.contains("new.toml"), "{words}: {err}");
        assert!(err.contains("the catalogue has ") && err.contains("and is not taken:"), "{err}");
    }
    // A typing error in the name of a vendor.
    fleet.file("new.toml", &block("2020-01-01", "input = \"1\", output = \"2\"").replace("openai", "openia"));
    let (_, _, err) = run(&fleet, &["prices", "update", "new.toml", "--dry-run"]).await;
    assert!(err.contains("openia is a vendor that the program does not know"), "{err}");
    assert!(!err.contains("a day to come"), "{err}");
    // Older than what the program has: nothing changes.
    fleet.file("new.toml", &block("2020-01-01", "input = \"1\", output = \"2\""));
    let (_, out, err) = run(&fleet, &["prices", "update", "new.toml", "--dry-run"]).await;
    assert!(err.contains("the program's goes on to hold") && err.contains("0 prices would change"), "{out}{err}");
    let worker = fleet.start();
    fleet.enqueue("default", 1).await;
    fleet.until_answered(1).await;
    fleet.file("new.toml", &block("2999-01-01", "input = \"7\", output = \"8\""));
    let (_, _, err) = run(&fleet, &["prices", "update", "new.toml", "--dry-run"]).await;
    assert!(err.contains("openai is as of 2999-01-01, a day to come"), "{err}");
    assert!(!err.contains("openia") && !err.contains("prices of its own"), "{err}");
    let shown = json_of(&fleet, &["prices", "update", "new.toml", "--dry-run"]).await;
    let changed = shown.as_array().unwrap().iter().find(|row| row["model"] == "gpt-4o-mini").unwrap();
    assert_eq!(changed["after"], "$7.00 in, $8.00 out");
    let (code, _, err) = run(&fleet, &["prices", "update", "new.toml", "--yes"]).await;
    assert_eq!(code, Some(0), "{err}");
    worker.signal(rustix::process::Signal::HUP);
    worker.until_said("configuration", 1).await;
    until("a call is booked at the new price", async || {
        fleet.enqueue("default", 1).await;
        fleet.number("select count(*) from sluice.attempt where price->>'input' = '7000000000'").await > 0
    })
    .await;
    worker.stop().await;
    let list = json_of(&fleet, &["prices", "list", "--vendor", "openai"]).await;
    assert_eq!((list[0]["input"].as_f64(), list.as_array().unwrap().len()), (Some(7.0), 1));
    assert!(list[0]["origin"].as_str().unwrap().ends_with("prices.toml"), "{list}");
    assert_eq!(run(&fleet, &["prices", "show", "no-such-model"]).await.0, Some(6));
    // What the configuration says itself goes over the file.
    fleet.configure(
        "[providers.openai]\nbase_url = \"http://simulator/openai/v1\"\n\
         [models.\"openai/gpt-4o-mini\"]\nprice = { input = \"3\", output = \"3\" }\n\
         [routes.default]\nrungs = [\"openai/gpt-4o-mini\"]\n",
    );
    fleet.file("new.toml", &block("2999-01-01", "input = \"8\", output = \"9\""));
    let (_, _, err) = run(&fleet, &["prices", "update", "new.toml", "--dry-run"]).await;
    let own = "the configuration has prices of its own for [models.\"openai/gpt-4o-mini\"], which go on to hold";
    assert!(err.contains(own), "{err}");
}

/// A file of so many rows whose prompts differ in length as those of real files do: most are short, a few are long.
fn skewed(rows: u64) -> String {
    let mut file = String::new();
    for row in 0..rows {
        // A hash spreads the lengths over the file: the first rows are like the others.
        let draw = row.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 44;
        let share = f64::from(u32::try_from(draw).unwrap()) / f64::from(1_u32 << 20);
        // A heavy tail: from 15 words to some 1,500.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of words")]
        let words = (15.0 / (1.0 - share * 0.99)) as usize;
        writeln!(file, "{}", json!({ "prompt": format!("Row {row}: {}", "some words of it ".repeat(words / 4)) }))
            .unwrap();
    }
    file
}

/// Estimates a file after a pilot of its first hundred rows, then runs it all: the estimate, the amount paid, and the
/// most that was said.
async fn after_a_pilot(rows: u64) -> (f64, f64, f64) {
    let scenario = "[providers.cheap]\ndialect = \"openai\"\noutput = { median = 60, p99 = 300 }\n\
        latency = { fixed = \"1ms\" }\nfaults = [{ kind = \"empty\", rate = 0.15 }, { kind = \"500\", rate = 0.1 }]\n\
        [providers.dear]\ndialect = \"openai\"\noutput = { median = 60, p99 = 300 }\nlatency = { fixed = \"1ms\" }\n";
    let mut config = "[worker]\nmax_in_flight = 100\n".to_owned();
    for (name, price) in [("cheap", "input = \"1\", output = \"2\""), ("dear", "input = \"2\", output = \"5\"")] {
        write!(
            config,
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             breaker = {{ min_calls = 1000000 }}\n[models.\"{name}/m\"]\nprice = {{ {price} }}\n"
        )
        .unwrap();
    }
    config +=
        "[routes.default]\nrungs = [\"cheap/m\", \"dear/m\"]\nreask = false\nmax_attempts = 6\nmax_tokens = 2000\n";
    let fleet = Fleet::new(scenario, &config).await;
    fleet.file("q.jsonl", &skewed(rows));
    let (code, _, err) = run(&fleet, &["enqueue", "q.jsonl", "--batch", "pilot", "--limit", "100"]).await;
    assert_eq!(code, Some(0), "{err}");
    drain(&fleet).await;
    let estimate = json_of(&fleet, &["estimate", "q.jsonl", "--pilot", "pilot"]).await;
    let path = estimate.as_array().unwrap().last().unwrap().clone();
    let (code, _, err) = run(&fleet, &["enqueue", "q.jsonl", "--batch", "whole"]).await;
    assert_eq!(code, Some(0), "{err}");
    drain(&fleet).await;
    let paid = "select sum(cost_nanos + uncertain_nanos)::float8 / 1e9 from sluice.totals where batch = 'whole'";
    let paid: f64 = sqlx::query_scalar(paid).fetch_one(&fleet.pool).await.unwrap();
    assert_eq!(path["guessed"], "", "{estimate}");
    (path["as_lately"].as_f64().unwrap(), paid, path["most"].as_f64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pilot_of_a_hundred_rows_the_estimate_is_within_a_tenth_and_the_most_holds() {
    let (estimated, paid, most) = after_a_pilot(1_500).await;
    assert!((estimated / paid - 1.0).abs() < 0.1, "estimated {estimated}, paid {paid}");
    assert!(paid <= most, "paid {paid}, and {most} was the most");
}

/// The same with the whole file: some minutes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes: run it by hand with --ignored"]
async fn after_a_pilot_of_a_hundred_rows_of_twenty_thousand() {
    let (estimated, paid, most) = after_a_pilot(20_000).await;
    eprintln!("estimated {estimated}, paid {paid}, at most {most}");
    assert!((estimated / paid - 1.0).abs() < 0.1 && paid <= most, "estimated {estimated}, paid {paid}, {most}");
}
