//! The prompt caches of providers, with the real worker against the simulator: what the route adds, who asks first, and
//! what it saves.

use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::queue::{NewJob, Queue, accepted, success};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::domain::Usage;
use sluice::domain::price::Price;
use sluice::store::settle::{AttemptRow, Settlement};

const SONNET: &str = "claude-sonnet-4-5";
const BEDROCK: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

/// A provider of each kind, and a route to each that uses its cache.
async fn stage() -> Fleet {
    let price = "price = { input = \"3\", output = \"15\", cached_input = \"0.3\", cache_write = \"3.75\", \
                 cache_write_1h = \"6\" }";
    let provider = |name: &str, model: &str| {
        format!(
            "[providers.{name}]\ndialect = \"{name}\"\nlatency = {{ fixed = \"50ms\" }}\n\
             [providers.{name}.models.\"{model}\"]\n{price}\n"
        )
    };
    let scenario = ["markers = true\n".to_owned(), provider("anthropic", SONNET), provider("openai", "gpt-4.1-mini")]
        .concat()
        + &provider("bedrock", BEDROCK);
    let rungs = |target: &str| format!("[models.\"{target}\"]\n{price}\n");
    let (anthropic, openai) = (format!("anthropic/{SONNET}"), "openai/gpt-4.1-mini");
    let bedrock = format!("bedrock/{BEDROCK}");
    // Half of the calls fail on purpose.
    let breaker = "breaker = { min_calls = 1000 }\n";
    let config = format!(
        "[providers.anthropic]\nbase_url = \"http://simulator/anthropic/v1\"\n{breaker}\
         [providers.openai]\nbase_url = \"http://simulator/openai/v1\"\n{breaker}\
         [providers.bedrock]\nbase_url = \"http://simulator/bedrock\"\n{breaker}\
         {}{}{}\
         [routes.marked]\nrungs = [\"{anthropic}\"]\nprompt_cache = {{ ttl = \"1h\" }}\n\
         [routes.plain]\nrungs = [\"{anthropic}\"]\n\
         [routes.keyed]\nrungs = [\"{openai}\"]\nprompt_cache = true\n\
         [routes.points]\nrungs = [\"{bedrock}\"]\nprompt_cache = true\n",
        rungs(&anthropic),
        rungs(openai),
        rungs(&bedrock),
    );
    Fleet::new(&scenario, &config).await
}

/// Jobs of two beginnings, one after the other.
async fn enqueue(fleet: &Fleet, route: &str, jobs: i32, question: &str) {
    sqlx::query(
        "insert into sluice.job (route, request)
              select $1, jsonb_build_object('max_tokens', 20, 'messages', jsonb_build_array(
                         jsonb_build_object('role', 'system', 'content', repeat('word ', 1000) || n % 2),
                         jsonb_build_object('role', 'user', 'content', format($3, $1, n))))
                from generate_series(1, $2) n",
    )
    .bind(route)
    .bind(jobs)
    .bind(question)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

async fn drain(fleet: &Fleet) {
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The report of what a command says in JSON.
async fn told(fleet: &Fleet, arguments: &[&str]) -> Value {
    let output = fleet.program(arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The report's row of each route.
async fn report(fleet: &Fleet) -> Vec<Value> {
    let rows = told(fleet, &["report", "prompt-cache", "--by", "route", "--format", "json"]).await;
    let rows = rows["rows"].as_array().or_else(|| rows.as_array()).unwrap_or_else(|| panic!("{rows}")).clone();
    let mut rows: Vec<Value> = rows.into_iter().filter(|row| row["route"] != "total").collect();
    rows.sort_by_key(|row| row["route"].to_string());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_with_a_beginning_writes_it_and_all_others_read_it() {
    let fleet = stage().await;
    // Whichever call is the first: one that fails leaves that to the next one.
    for (route, jobs) in [("marked", 40), ("keyed", 12), ("points", 12)] {
        enqueue(&fleet, route, jobs, "%s: question %s [[faults:500,ok]]").await;
    }
    enqueue(&fleet, "plain", 6, "%s: question %s").await;
    drain(&fleet).await;
    fleet.books_are_in_order(70).await;

    // What the providers saw: each beginning was written once, and read by all calls that had an answer after that.
    let calls = fleet.calls();
    let seen = |provider: &str| {
        let answered = calls.iter().filter(|call| call.provider == provider && call.charged);
        let (mut written, mut read) = (0, 0);
        for call in answered {
            written += i32::from(call.cache_write_tokens > 0);
            read += i32::from(call.cache_read_tokens > 0);
        }
        (written, read)
    };
    assert_eq!((seen("anthropic"), seen("bedrock")), ((2, 38), (2, 10)));
    // OpenAI does not say what it writes.
    assert_eq!(seen("openai"), (0, 10));

    // Their books and ours agree on the money.
    for provider in ["anthropic", "openai", "bedrock"] {
        let charged = fleet.verdict().providers[provider].figures.charged_nano_usd;
        let booked: i64 = sqlx::query_scalar("select sum(cost_nanos)::bigint from sluice.attempt where provider = $1")
            .bind(provider)
            .fetch_one(&fleet.pool)
            .await
            .unwrap();
        assert_eq!(u64::try_from(booked), Ok(charged), "{provider}");
    }

    // The report: a beginning has 1,251 tokens by the simulator.
    let rows = report(&fleet).await;
    let figures = |row: &Value| {
        ["route", "cached_tokens", "written_tokens", "saved", "unpriced_tokens"].map(|name| row[name].clone())
    };
    let dollars = |read: i64, cheaper: i64, written: i64, dearer: i64| {
        let nanos = 1_251 * (read * cheaper - written * dearer);
        #[expect(clippy::cast_precision_loss, reason = "a few cents")]
        let dollars = nanos as f64 / 1e9;
        json!(dollars)
    };
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok()).map(|value| json!(value));
    for (row, (route, read, written, saved)) in rows.iter().zip([
        ("keyed", 10, 0, dollars(10, 2_700, 0, 0)),
        ("marked", 38, 2, dollars(38, 2_700, 2, 3_000)),
        ("plain", 0, 0, dollars(0, 0, 0, 0)),
        ("points", 10, 2, dollars(10, 2_700, 2, 750)),
    ]) {
        let [name, cached, wrote, gained, unpriced] = figures(row);
        assert_eq!(
            (name, cached, wrote, unpriced),
            (json!(route), json!(read * 1_251), json!(written * 1_251), json!(0))
        );
        assert_eq!(number(&gained), Some(saved), "{row}");
    }
    let marked = &rows[1];
    let rate = marked["hit_rate"].as_f64().unwrap();
    assert!((0.93..0.95).contains(&rate), "{marked}");
    // In SQL the same, and by call.
    let view: (i64, i64, bool) = sqlx::query_as(
        "select sum(cached_tokens)::bigint, sum(written_tokens)::bigint,
                sum(saved) = (select sum(cache_saved) from sluice.attempts where route = 'marked')
           from sluice.prompt_caches where route = 'marked'",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(view, (38 * 1_251, 2 * 1_251, true));

    // What was added and who waited is on the ledger, and in words.
    let with = async |like: &'static str| {
        sqlx::query_scalar::<_, i64>(
            "select count(*) from sluice.attempts where accepted and decision::text like '%' || $1 || '%'",
        )
        .bind(like)
        .fetch_one(&fleet.pool)
        .await
        .unwrap()
    };
    assert_eq!((with("cache_control").await, with("prompt_cache_key").await), (52, 12));
    assert!(with("prefix_wait_ms").await > 0);
    let job: i64 = sqlx::query_scalar(
        "select max(job_id) from sluice.attempts
          where decision->'added' is not null and decision->'prefix_wait_ms' is not null",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    let story = fleet.program(&["explain", &job.to_string()]).output().await.unwrap();
    let story = text(&story.stdout);
    assert!(story.contains("added by the route (prompt_cache): cache_control"), "{story}");
    assert!(story.contains("for the first call with the same tools and instructions"), "{story}");

    // Computed again by another price, the sums follow.
    reprice(&fleet).await;
    let rows = report(&fleet).await;
    assert_eq!(number(&rows[1]["saved"]), Some(dollars(38, 5_000, 2, 1_000)), "{}", rows[1]);
    let astray: i64 = sqlx::query_scalar(
        "select count(*) from (
             select route, sum(cache_saved_nanos), sum(cache_priced_tokens) from sluice.totals group by 1
             except
             select j.route, coalesce(sum(a.cache_saved_nanos), 0),
                    coalesce(sum(a.cache_read_tokens + a.cache_write_tokens)
                        filter (where a.cache_saved_nanos is not null), 0)
               from sluice.attempt a join sluice.job j on j.id = a.job_id group by 1) d",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(astray, 0);
}

/// Gives Anthropic's model another price, by which all its calls are computed again.
async fn reprice(fleet: &Fleet) {
    let price = "input = \"6\", output = \"15\", cached_input = \"1\", cache_write = \"6.5\", cache_write_1h = \"7\"";
    fleet.configure(&format!(
        "[providers.anthropic]\nbase_url = \"http://simulator/anthropic/v1\"\n\
         [models.\"anthropic/{SONNET}\"]\nprice = {{ {price} }}\n[routes.marked]\nrungs = [\"anthropic/{SONNET}\"]\n"
    ));
    let output = fleet.program(&["reprice", "--provider", "anthropic", "--yes"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_waits_longer_than_was_said_and_other_beginnings_are_not_held_up() {
    let config = "[providers.anthropic]\nbase_url = \"http://simulator/anthropic/v1\"\n\
                  [routes.brief]\nrungs = [\"anthropic/claude-sonnet-4-5\"]\nprompt_cache = { wait = \"1s\" }\n\
                  [routes.patient]\nrungs = [\"anthropic/claude-sonnet-4-6\"]\nprompt_cache = { wait = \"10m\" }\n";
    let fleet = Fleet::new("markers = true\n[providers.anthropic]\ndialect = \"anthropic\"\n", config).await;
    let _worker = fleet.start();
    // The first call with one of the two beginnings never ends.
    for (route, calls) in ["brief", "patient"].into_iter().zip(1_u64..) {
        enqueue(&fleet, route, 1, "%s: question %s [[fault:hang]]").await;
        until("the first call is under way", async || fleet.verdict().total.calls == calls).await;
    }
    for route in ["brief", "patient"] {
        enqueue(&fleet, route, 6, "%s: another question %s").await;
    }
    // All six, and the three that begin otherwise.
    fleet.until_answered(9).await;
    let by_route: Vec<(String, i64)> =
        sqlx::query_as("select route, count(*) from sluice.results group by 1 order by 1")
            .fetch_all(&fleet.pool)
            .await
            .unwrap();
    assert_eq!(by_route, [("brief".to_owned(), 6), ("patient".to_owned(), 3)]);
}

#[tokio::test]
async fn what_has_no_price_is_not_said_to_have_saved_nothing() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 3).await;
    let price = Price { cached_input: Some(100_000_000), ..Price::plain(1_000_000_000, 0) };
    let usage = |cache_read| Usage { input: 200 - cache_read, cache_read, ..Usage::default() };
    let jobs = queue.claim_all(worker).await;
    // One without a price, one with it, and one that read nothing.
    for (job, (model, price, cache_read)) in
        jobs.iter().zip([("unpriced", None, 150), ("priced", Some(price), 100), ("priced", Some(price), 0)])
    {
        let cost = price.map(|price| price.cost(&usage(cache_read)));
        let row = AttemptRow {
            model: model.to_owned(),
            usage: usage(cache_read),
            price,
            cost,
            computed_cost: cost,
            ..accepted(job, 1)
        };
        queue.settle(Settlement { attempts: vec![row], endings: vec![success(job)], ..Settlement::default() }).await;
    }
    for _ in 0..2 {
        let told: Vec<(String, i64, String, Option<String>, i64)> = sqlx::query_as(
            "select model, cached_tokens, hit_rate::text, saved::text, unpriced_tokens
               from sluice.prompt_caches where provider <> '' order by model",
        )
        .fetch_all(&queue.pool)
        .await
        .unwrap();
        let row = |model: &str, cached, rate: &str, saved: Option<&str>, unpriced| {
            (model.to_owned(), cached, rate.to_owned(), saved.map(str::to_owned), unpriced)
        };
        let expected =
            [row("priced", 100, "0.2500", Some("0.000090000"), 0), row("unpriced", 150, "0.7500", None, 150)];
        assert_eq!(told, expected);
        queue.store.fold_tally().await.unwrap();
    }
    assert_eq!(queue.count("select count(*) from sluice.tally").await, 0, "all of it was folded");
}
