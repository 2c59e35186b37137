//! The whole way with the real program: jobs by SQL and by file, two routes, three dialects, every fault of the
//! simulator at once. The ledger is compared call by call with the simulator's records.

use crate::support::postgres::database;
use crate::support::program::{Program, json_lines, text};
use sluice::simulate::{Scenario, Simulator};
use sluice::store::Store;
use sqlx::Row as _;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

const PRICES: [(&str, i64, i64); 3] =
    [("alpha", 50_000_000, 200_000_000), ("beta", 250_000_000, 1_250_000_000), ("gamma", 1_250_000_000, 5_000_000_000)];

/// Everything that can go wrong, each with the same small chance.
fn scenario() -> Scenario {
    let kinds = [
        "server_error",
        "overloaded",
        "out_of_quota",
        "auth",
        "permission",
        "not_found",
        "invalid_request",
        "context_length",
        "content_policy",
        "payload_too_large",
        "timeout",
        "hang",
        "reset",
        "html_502",
        "slow_drip",
        "cut",
        "empty",
        "error_in_200",
        "truncated",
        "malformed_json",
        "html",
        "wrong_usage",
        "no_usage",
        "fenced_json",
        "broken_json",
        "content_filter",
        "refusal",
        "refusal_text",
        "no_choices",
        "garbage",
        "huge_body",
    ];
    let waits = sluice::simulate::wait::WaitFormat::ALL;
    let mut faults = String::new();
    for kind in kinds {
        writeln!(faults, "  {{ kind = \"{kind}\", rate = 0.006, bytes = 40000000, interval = 0.4 }},").unwrap();
    }
    for (format, _) in waits {
        writeln!(faults, "  {{ kind = \"rate_limit\", rate = 0.002, format = \"{format}\", wait = 2 }},").unwrap();
    }
    let provider = |name: &str, dialect: &str, input: &str, output: &str| {
        format!(
            "[providers.{name}]\ndialect = \"{dialect}\"\nlatency = {{ uniform = [0.002, 0.02] }}\n\
             models.model.price = {{ input = \"{input}\", output = \"{output}\" }}\nfaults = [\n{faults}]\n"
        )
    };
    let text = format!(
        "seed = 11\nrecord_calls = 100000\nverdict = {{ in_flight_grace = 1 }}\n{}{}{}",
        provider("alpha", "openai", "0.05", "0.20"),
        provider("beta", "anthropic", "0.25", "1.25"),
        provider("gamma", "gemini", "1.25", "5.00")
    );
    Scenario::from_toml(&text).unwrap()
}

fn config(simulator: &Simulator) -> String {
    let mut text = String::from("[worker]\nmax_in_flight = 100\n");
    for (name, dialect) in [("alpha", "openai"), ("beta", "anthropic"), ("gamma", "gemini")] {
        write!(
            text,
            "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"{}\"\nrecheck = \"500ms\"\n\
             max_body_bytes = 16777216\n\
             timeouts = {{ connect = \"3s\", first_byte = \"3s\", idle = \"200ms\", total = \"10s\" }}\n\
             breaker = {{ min_calls = 20, failure_rate = 0.9, window = \"10s\", open = \"500ms\" }}\n",
            simulator.base_url(name).unwrap()
        )
        .unwrap();
    }
    text.push_str(
        "[models.\"alpha/model\"]\nprice = { input = \"0.05\", output = \"0.20\" }\n\
         [models.\"beta/model\"]\nprice = { input = \"0.25\", output = \"1.25\" }\n\
         [models.\"gamma/model\"]\nprice = { input = \"1.25\", output = \"5.00\" }\n\
         [routes.default]\nrungs = [\"alpha/model\", \"beta/model\", \"gamma/model\"]\npatience = \"1s\"\n\
         [routes.careful]\nstrategy = \"priority\"\nrungs = [\"gamma/model\", \"beta/model\"]\npatience = \"0s\"\n\
         max_attempts = 4\n",
    );
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_once_ends_every_job_once_and_the_books_agree_with_the_providers() {
    let database = database().await;
    let pool = database.pool();
    let simulator = Simulator::start(scenario(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let program = Program::new(&config(&simulator), &database.url());

    sqlx::raw_sql(
        "insert into sluice.job (batch, custom_id, request)
         select 'by_sql', 'sql-' || n, jsonb_build_object('prompt', 'Question ' || n || ' by SQL', 'max_tokens', 500)
           from generate_series(1, 400) n;
         insert into sluice.job (batch, request) values ('by_sql', '\"nonsense\"'), ('by_sql', '{\"messages\": 7}')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut lines = String::new();
    for n in 1..=400 {
        let body = serde_json::json!({ "messages": [
            { "role": "system", "content": "Answer in JSON." },
            { "role": "user", "content": format!("Question {n} by file") },
        ], "response_format": { "type": "json_schema", "json_schema": { "name": "answer", "schema": {
            "type": "object", "properties": { "answer": { "type": "string" } }, "required": ["answer"] } } } });
        let line = serde_json::json!({ "custom_id": format!("file-{n}"), "method": "POST",
            "url": "/v1/chat/completions", "body": body });
        writeln!(lines, "{line}").unwrap();
    }
    let file = program.file("jobs.jsonl", lines);
    program.output(&["enqueue", file.to_str().unwrap(), "--batch", "by_file", "--route", "careful"]).await;

    let worker = program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));

    let audit = Store::from_pool(pool.clone()).audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
    assert_eq!((audit.jobs, audit.unfinished), (802, 0), "{audit:?}");
    assert!(audit.succeeded > 500, "{audit:?}");

    let verdict = simulator.verdict();
    // A call that was on its way when another was told to wait is no early retry: on a busy machine it may take a
    // while.
    assert_eq!(verdict.total.early_retries, 0, "{:?}", verdict.reasons);
    assert_eq!(verdict.total.malformed_requests, 0, "{:?}", verdict.reasons);
    assert_eq!(verdict.total.retried_non_retryables, 0, "{:?}", verdict.reasons);

    compare_call_by_call(&pool, &simulator).await;
    every_fault_was_met(&simulator);
    nonsense_failed_alone(&pool).await;
    the_export_is_complete(&program).await;
    the_reports_add_up(&program, &audit).await;
}

/// Every call that has an id is on both sides with the same tokens, and its cost recomputed here is the same.
async fn compare_call_by_call(pool: &sqlx::PgPool, simulator: &Simulator) {
    let calls: HashMap<String, _> =
        simulator.calls(usize::MAX).into_iter().map(|call| (call.request_id.clone(), call)).collect();
    let rows = sqlx::query(
        "select request_id, provider, usage_source, input_tokens, output_tokens, cost_nanos, accepted, class \
         from sluice.attempt",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let (mut reported, mut charged) = (0, 0_i64);
    for row in &rows {
        let Some(id) = row.get::<Option<String>, _>("request_id") else { continue };
        let call = calls.get(&id).unwrap_or_else(|| panic!("the simulator knows no call {id}"));
        assert_eq!(call.provider, row.get::<String, _>("provider"));
        let (input, output): (i64, i64) = (row.get("input_tokens"), row.get("output_tokens"));
        let cost: Option<i64> = row.get("cost_nanos");
        let source: String = row.get("usage_source");
        if source == "provider" {
            reported += 1;
            assert_eq!(Some(input), call.reported_input_tokens.map(|n| i64::try_from(n).unwrap()), "{call:?}");
            assert_eq!(Some(output), call.reported_output_tokens.map(|n| i64::try_from(n).unwrap()), "{call:?}");
        }
        let (_, input_price, output_price) = PRICES.into_iter().find(|(name, ..)| *name == call.provider).unwrap();
        let exact = i128::from(input) * i128::from(input_price) + i128::from(output) * i128::from(output_price);
        assert_eq!(i128::from(cost.unwrap()), (exact + 500_000) / 1_000_000, "{call:?}");
        if call.charged && call.fault.is_none() {
            charged += 1;
            assert_eq!(cost, call.nano_usd.map(|n| i64::try_from(n).unwrap()), "{call:?}");
        }
    }
    assert!(reported > 500 && charged > 500, "{reported} reported, {charged} charged");
    // Attempts without an id never saw the answer's head. They are the calls that no other attempt accounts for. On a
    // machine that stands still for seconds, a call's time may be up before the simulator has read it: such an attempt
    // is one that timed out although no hang was played.
    let known: HashSet<String> = rows.iter().filter_map(|row| row.get("request_id")).collect();
    let without_an_id = rows.len() - known.len();
    let unaccounted = calls.keys().filter(|id| !known.contains(*id)).count();
    let never_read = without_an_id.checked_sub(unaccounted).expect("no call is missing in the ledger");
    let timed_out = rows
        .iter()
        .filter(|row| row.get::<Option<String>, _>("request_id").is_none())
        .filter(|row| row.get::<Option<String>, _>("class").as_deref() == Some("timeout"))
        .count();
    let hung = calls.values().filter(|call| call.fault == Some("hang")).count();
    let of_the_machine = timed_out.checked_sub(hung).expect("each hang is a timeout");
    assert!(
        never_read <= of_the_machine,
        "{never_read} attempts without a call, {of_the_machine} timeouts without hang"
    );
}

fn every_fault_was_met(simulator: &Simulator) {
    let met = simulator.verdict().total.by_fault;
    let met: BTreeMap<&str, u64> = met.into_iter().filter(|(_, calls)| *calls > 0).collect();
    for kind in [
        "hang",
        "reset",
        "slow_drip",
        "empty",
        "error_in_200",
        "truncated",
        "malformed_json",
        "html",
        "wrong_usage",
        "out_of_quota",
        "rate_limit",
        "overloaded",
        "server_error",
        "cut",
        "auth",
    ] {
        assert!(met.contains_key(kind), "the simulator never played {kind}: {met:?}");
    }
}

async fn nonsense_failed_alone(pool: &sqlx::PgPool) {
    let reasons: Vec<(String, String)> =
        sqlx::query_as("select error_class, error from sluice.results where custom_id is null order by job_id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|(class, _)| class == "invalid_request"), "{reasons:?}");
    assert!(reasons[0].1.starts_with("request: expected"), "{reasons:?}");
    assert!(reasons[1].1.starts_with("request.messages"), "{reasons:?}");
}

async fn the_export_is_complete(program: &Program) {
    let (out, errors) = (program.path("out.jsonl"), program.path("errors.jsonl"));
    let arguments = ["results", "by_file", "-o", out.to_str().unwrap(), "--errors", errors.to_str().unwrap()];
    let output = program.run(&arguments).await;
    assert!(matches!(output.status.code(), Some(0 | 5)), "{}", text(&output.stderr));
    let (answers, failures) = (json_lines(&out), json_lines(&errors));
    assert_eq!(answers.len() + failures.len(), 400);
    for line in &answers {
        assert_eq!(line["response"]["status_code"], 200);
        let content = line["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(content).unwrap().is_object(), "{content}");
        assert!(["beta", "gamma"].contains(&line["sluice"]["provider"].as_str().unwrap()), "{line}");
    }
    for line in &failures {
        assert!(line["custom_id"].as_str().unwrap().starts_with("file-"), "{line}");
    }
}

async fn the_reports_add_up(program: &Program, audit: &sluice::store::audit::Audit) {
    let report = program.output(&["report", "cost", "--by", "provider", "--format", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let rows = report.as_array().unwrap_or_else(|| panic!("{report}"));
    let attempts: i64 = rows.iter().map(|row| row["attempts"].as_i64().unwrap()).sum();
    assert_eq!(attempts, audit.attempts, "{report}");
}
