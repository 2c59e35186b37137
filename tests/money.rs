//! Counts and costs that no call can have: a provider that lies, an absurd price, rows of an older worker. They are not
//! believed, and no sum fails because of them.

use crate::support::postgres::database;
use crate::support::program::Program;
use crate::support::queue::{Queue, accepted, in_batch, success};
use crate::support::scripted::{Scripted, altered, answer};
use serde_json::{Value, json};
use sluice::domain::{NanoUsd, Usage, UsageSource};
use sluice::store::settle::Settlement;
use std::fmt::Write as _;
use std::sync::Arc;

const PER_CALL: i64 = 1_000_000_000_000_000;

/// Everything that sums up, as the commands do it.
async fn every_sum_is_there(queue: &Queue) {
    while queue.store.fold_tally().await.unwrap().rows > 0 {}
    let program = Program::new("", &queue.database.url());
    for arguments in [
        &["report", "cost"][..],
        &["report", "cost", "--by", "batch"],
        &["report", "waste"],
        &["report", "failures"],
        &["batch", "list"],
        &["batch", "show", "b"],
    ] {
        program.output(&[arguments, &["--format", "json"]].concat()).await;
    }
    for view in ["batches", "cost_by_provider", "cost_by_route", "cost_daily", "failures", "waste", "fallbacks"] {
        let statement = format!("select count(v::text) from sluice.{view} v");
        let _: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&queue.pool).await.unwrap();
    }
    queue.store.progress().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_call_can_have_is_cut_when_it_is_booked() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 4).await;
    let worker = queue.worker().await;
    for (claimed, odd) in queue.claim_all(worker).await.into_iter().zip([i64::MAX, i64::MAX, i64::MAX, i64::MIN]) {
        let mut attempt = accepted(&claimed, 1);
        attempt.usage = Usage {
            input: odd,
            cache_read: odd,
            cache_write: odd,
            cache_write_1h: odd,
            output: odd,
            reasoning: odd,
            source: UsageSource::Provider,
        };
        (attempt.cost, attempt.uncertain) = (Some(NanoUsd(odd)), NanoUsd(odd));
        attempt.reported_cost = Some(NanoUsd(odd));
        let settlement =
            Settlement { attempts: vec![attempt], endings: vec![success(&claimed)], ..Settlement::default() };
        assert!(queue.store.settle(&settlement).await.unwrap().is_empty());
    }
    every_sum_is_there(&queue).await;
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.cost, batch.uncertain), (NanoUsd(3 * PER_CALL), NanoUsd(3 * PER_CALL)));
    assert_eq!(queue.count("select count(*) from sluice.attempt where cost_nanos < 0 or input_tokens < 0").await, 0);
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_older_worker_has_written_stop_no_sum_and_the_doctor_names_them() {
    let queue = Queue::new().await;
    let program = Program::new("", &queue.database.url());
    let doctor = async || -> Value {
        let output = program.run(&["doctor", "--format", "json"]).await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = found["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["check"] == "absurd_sums").unwrap()
    };
    assert_eq!(doctor().await["severity"], "ok");
    queue
        .run(
            "insert into sluice.tally (hour, route, project, batch, provider, model, class, attempts, input_tokens,
                                       cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos)
                  select '2026-01-31 08:00:00+00', 'default', 'default', 'b', 'one', 'm', 'timeout', 1, big, big,
                    big, big, big,
                         big from generate_series(1, 3), (values (9223372036854775807)) v(big)",
        )
        .await;
    for _ in 0..2 {
        every_sum_is_there(&queue).await;
        let batch = queue.store.batch("b").await.unwrap().unwrap();
        assert_eq!((batch.attempts, batch.cost), (3, NanoUsd(i64::MAX)));
        let finding = doctor().await;
        assert_eq!(finding["severity"], "warning");
        assert!(finding["what"].as_str().unwrap().contains("one/m at 2026-01-31 08:00"), "{finding}");
    }
    assert_eq!(queue.count("select count(*) from sluice.tally").await, 0, "all of it was folded");
}

/// What providers say of usage and cost, each beside a good answer.
fn reports() -> Vec<Value> {
    let big = 9_223_372_036_854_775_807_i64;
    let usage = |input: Value, output: Value| json!({"prompt_tokens": input, "completion_tokens": output});
    let with = |mut usage: Value, name: &str, value: Value| {
        usage[name] = value;
        usage
    };
    let plain = || usage(json!(10), json!(5));
    vec![
        usage(json!(big), json!(5)),
        usage(json!(10), json!(big)),
        usage(json!(20_000_000), json!(20_000_000)),
        usage(json!(-1), json!(-5)),
        usage(json!(1e300), json!(0.5)),
        usage(json!("9223372036854775807"), json!("many")),
        with(plain(), "total_tokens", json!(big)),
        with(plain(), "prompt_tokens_details", json!({"cached_tokens": 15_000_000})),
        with(plain(), "completion_tokens_details", json!({"reasoning_tokens": 19_000_000})),
        with(plain(), "cost", json!(1e300)),
        with(plain(), "cost", json!(-3)),
        with(plain(), "cost", json!("NaN")),
        with(plain(), "cost_in_usd_ticks", json!(big)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_says_that_cannot_be_is_estimated_and_marked() {
    let database = database().await;
    let queue = Queue { store: database.store().await, pool: database.pool(), database };
    let said = Arc::new(reports());
    let number = said.len();
    let odd = Arc::clone(&said);
    // Every report comes with a good answer, and with a failure that was billed.
    let provider = Scripted::start(move |call, _| {
        let index: usize = call.prompt().split(' ').next_back().unwrap().parse().unwrap();
        let (_, body) = answer("Paris");
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["usage"] = odd[index % odd.len()].clone();
        if index >= odd.len() {
            body["choices"] = json!([]);
            body["error"] = json!({"message": "the server had an error", "code": 500});
        }
        (200, body.to_string().into_bytes())
    })
    .await;
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"one/m\"]\nprice = {{ input = \"9000000000\", output = \"9000000000\" }}\n\
         [routes.default]\nrungs = [\"one/m\"]\nmax_attempts = 1\n",
        provider.base_url("one")
    );
    sqlx::query(
        "insert into sluice.job (batch, request)
              select 'b', jsonb_build_object('prompt', 'Say ' || n) from generate_series(0, $1) n",
    )
    .bind(i32::try_from(2 * number - 1).unwrap())
    .execute(&queue.pool)
    .await
    .unwrap();
    let program = Program::new(&config, &queue.database.url());
    program.output(&["worker", "--drain"]).await;
    every_sum_is_there(&queue).await;
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.done(), batch.succeeded), (batch.jobs, i64::try_from(number).unwrap()));
    assert!(batch.cost >= NanoUsd::ZERO && batch.uncertain >= NanoUsd::ZERO);
    let absurd = "select count(*) from sluice.attempt
                   where greatest(input_tokens, cache_read_tokens, output_tokens, reasoning_tokens) > 16000000
                      or least(input_tokens, output_tokens, cost_nanos, uncertain_nanos) < 0
                      or greatest(cost_nanos, uncertain_nanos, reported_cost_nanos) > 1000000000000000";
    assert_eq!(queue.count(absurd).await, 0);
    // None of the figures of the first six is taken for the provider's word.
    let taken = "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id
                  where a.accepted and a.usage_source = 'provider'
                    and split_part(j.request ->> 'prompt', ' ', 2)::integer in (0, 2, 3)";
    assert_eq!(queue.count(taken).await, 0);
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_is_said_to_cost_is_booked_also_when_it_failed_as_far_as_such_a_call_can_cost_it() {
    let error = |status: u16, usage: Value| {
        (status, json!({ "error": { "message": "no" }, "usage": usage }).to_string().into_bytes())
    };
    let good = |usage: Value| altered(answer("Paris"), |body| body["usage"] = usage);
    let tokens = |more: Value| {
        let mut usage = json!({ "prompt_tokens": 1_000, "completion_tokens": 100 });
        usage.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        usage
    };
    let count = |output: i64| json!({ "prompt_tokens": 1_000, "completion_tokens": output });
    let by_tokens = Some(1_000 * 1_000 + 100 * 2_000);
    // What is said; the cost and who says it, the tokens of output, and what the notes tell.
    let table = [
        (error(502, tokens(json!({}))), by_tokens, Some("price"), 100, ""),
        (error(400, tokens(json!({}))), by_tokens, Some("price"), 100, ""),
        (error(200, tokens(json!({ "cost": 0.002 }))), Some(2_000_000), Some("reported"), 100, ""),
        (error(502, tokens(json!({ "cost": 0.002 }))), Some(2_000_000), Some("reported"), 100, ""),
        (error(400, json!({ "cost": 0.002 })), Some(2_000_000), Some("reported"), 0, ""),
        // A cent for a call of a tenth of that is much, and a gateway may take it; hundreds of dollars are not.
        (good(tokens(json!({ "cost": 0.01 }))), Some(10_000_000), Some("reported"), 100, ""),
        (good(tokens(json!({ "cost": 900 }))), by_tokens, Some("price"), 100, "$900.00 was reported"),
        (error(502, tokens(json!({ "cost": 900 }))), by_tokens, Some("price"), 100, "$900.00 was reported"),
        (good(tokens(json!({ "cost": 99_999 }))), by_tokens, Some("price"), 100, ""),
        // Of a failed call it is not known what it cost, then.
        (error(502, json!({ "cost": 900 })), Some(0), None, 0, "$900.00 was reported"),
        (error(502, count(99_999)), Some(0), None, 0, "more tokens of output were reported"),
        (good(count(99_999)), Some(1_000 * 1_000 + 2_000 * 2), Some("price"), 2, "more tokens of output"),
        // Nothing was billed.
        (error(502, count(0)), Some(1_000_000), Some("price"), 0, ""),
        (error(502, json!({ "prompt_tokens": 0, "completion_tokens": 0 })), Some(0), None, 0, ""),
        (error(400, json!({ "limit": 5 })), Some(0), None, 0, ""),
        // The last one asks for a tier of twice the price.
        (error(502, tokens(json!({}))), by_tokens.map(|cost| cost * 2), Some("price"), 100, ""),
    ];
    let replies: Vec<_> = table.iter().map(|(reply, ..)| reply.clone()).collect();
    let provider = Scripted::start(move |call, _| {
        let index: usize = call.prompt().split(' ').next_back().unwrap().parse().unwrap();
        replies[index].clone()
    })
    .await;
    let mut config = "[http]\nlisten = \"off\"\n".to_owned();
    let database = database().await;
    let pool = database.pool();
    // A provider for each, as what one says of its state holds up the others' calls.
    for index in 0..table.len() {
        write!(
            config,
            "[providers.p{index}]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"p{index}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\ntiers = {{ priority = \"2\" }}\n\
             [routes.r{index}]\nrungs = [\"p{index}/m\"]\nmax_attempts = 1\npass = [\"service_tier\"]\n",
            provider.base_url("p")
        )
        .unwrap();
        sqlx::query("insert into sluice.job (route, request) values ($1, $2)")
            .bind(format!("r{index}"))
            .bind(json!({ "prompt": format!("Say {index}"), "max_tokens": 256,
                          "service_tier": (index + 1 == table.len()).then_some("priority") }))
            .execute(&pool)
            .await
            .unwrap();
    }
    Program::new(&config, &database.url()).output(&["worker", "--drain"]).await;
    for (index, (_, cost, source, output, note)) in table.iter().enumerate() {
        let (booked, by, tokens, notes): (Option<i64>, Option<String>, i64, Option<String>) = sqlx::query_as(
            "select cost_nanos, cost_source, output_tokens, notes::text from sluice.attempt
              where provider = $1 order by number limit 1",
        )
        .bind(format!("p{index}"))
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((booked, by.as_deref(), tokens), (*cost, *source, *output), "{index}: {notes:?}");
        assert!(notes.unwrap_or_default().contains(note), "{index}");
    }
    // Output that is not believed may have been charged for, and a call is priced again by the tier that it had.
    let told: (i64, Option<String>) = sqlx::query_as(
        "select (select count(*) from sluice.attempt where provider = 'p11' and uncertain_nanos > 0),
                (select min(service_tier) from sluice.attempt where provider = $1)",
    )
    .bind(format!("p{}", table.len() - 1))
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(told, (1, Some("priority".to_owned())));
}
