//! Embeddings with the real program: in by file and by SQL, out as lines and as a table, in every dialect that has
//! them, against the simulator.

use crate::support::postgres::database;
use crate::support::program::{Program, text};
use crate::support::scripted::Scripted;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sluice::simulate::embedding::vector;
use sluice::simulate::{Scenario, Simulator};
use sqlx::Row as _;
use std::fmt::Write as _;

const DIALECTS: [&str; 5] = ["openai", "azure_openai", "cohere", "ollama", "gemini"];
/// Dialects without embeddings.
const OTHERS: [&str; 4] = ["anthropic", "openai_responses", "completions", "bedrock"];

/// A simulator of all dialects, and a configuration with a route for each; `mixed` asks those without embeddings first.
fn stage() -> (Simulator, String) {
    let mut known: Vec<&str> = DIALECTS.iter().chain(&OTHERS).copied().collect();
    let mut all: Vec<&str> = sluice::provider::DIALECTS.iter().map(|dialect| dialect.name).collect();
    known.sort_unstable();
    all.sort_unstable();
    assert_eq!(known, all, "a dialect either has embeddings or refuses them");
    let mut scenario = "record_calls = 10000\nmarkers = true\n".to_owned();
    for name in DIALECTS.iter().chain(&OTHERS) {
        let price = "models.m.price = { input = \"1\", output = \"4\" }";
        writeln!(scenario, "[providers.{name}]\ndialect = \"{name}\"\n{price}").unwrap();
    }
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let mut config = "[http]\nlisten = \"off\"\n".to_owned();
    for name in DIALECTS.iter().chain(&OTHERS) {
        write!(
            config,
            "[providers.p_{name}]\ndialect = \"{name}\"\nbase_url = \"{}\"\napi_key_file = \"key\"\n\
             [models.\"p_{name}/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n\
             [routes.{name}]\nrungs = [\"p_{name}/m\"]\n",
            simulator.base_url(name).unwrap()
        )
        .unwrap();
    }
    let rungs: Vec<String> = OTHERS.iter().chain(&["openai"]).map(|name| format!("\"p_{name}/m\"")).collect();
    write!(config, "[routes.mixed]\nstrategy = \"priority\"\nrungs = [{}]\n", rungs.join(", ")).unwrap();
    (simulator, config)
}

fn program(config: &str, url: &str) -> Program {
    let program = Program::new(config, url);
    let file = program.file("key", "a-key-of-the-simulator");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    program
}

async fn succeeds(program: &Program, arguments: &[&str]) -> (String, String) {
    let output = program.run(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// The vectors that a response has to have.
fn vectors(texts: &[&str], dimension: usize) -> Vec<Vec<f32>> {
    texts.iter().map(|text| vector(text, dimension)).collect()
}

fn vectors_of(response: &Value) -> Vec<Vec<f32>> {
    let item = |(place, item): (usize, &Value)| {
        assert_eq!((&item["object"], item["index"].as_u64()), (&json!("embedding"), Some(place as u64)), "{item}");
        serde_json::from_value(item["embedding"].clone()).unwrap()
    };
    response["data"].as_array().unwrap_or_else(|| panic!("{response}")).iter().enumerate().map(item).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_with_embeddings_brings_each_input_its_vector() {
    let database = database().await;
    let pool = database.pool();
    let (simulator, config) = stage();
    // A server of the test shows what went over the wire.
    let wire = Scripted::start(|call, _| {
        let bytes: Vec<u8> = vector("gamma", 4).iter().flat_map(|number| number.to_le_bytes()).collect();
        let embedding = match call.body["encoding_format"].as_str() {
            Some("base64") => json!(STANDARD.encode(bytes)),
            _ => json!(vector("another text", 4)),
        };
        let data = json!([{ "object": "embedding", "index": 0, "embedding": embedding }]);
        let usage = json!({ "prompt_tokens": 2, "total_tokens": 2 });
        (200, json!({ "object": "list", "data": data, "model": "m", "usage": usage }).to_string().into_bytes())
    })
    .await;
    let config = format!(
        "{config}[providers.wire]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"wire/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n[routes.wire]\nrungs = [\"wire/m\"]\n",
        wire.base_url("wire")
    );
    let program = program(&config, &database.url());
    let encoded = json!({"input": "gamma", "dimensions": 4, "encoding_format": "base64"});
    let encoded: i64 =
        sqlx::query_scalar("select sluice.enqueue($1, route => 'wire')").bind(&encoded).fetch_one(&pool).await.unwrap();
    for name in DIALECTS {
        let mut lines = Vec::new();
        let mut add = |id: &str, body: Value| {
            lines.push(
                json!({"custom_id": format!("{name}-{id}"), "method": "POST", "url": "/v1/embeddings", "body": body}),
            );
        };
        add("two", json!({"input": [format!("{name} alpha"), "beta"], "dimensions": 4, "encoding_format": "base64"}));
        for fault in ["vector_count", "vector_nan", "vector_zero", "empty", "500"] {
            add(fault, json!({"input": ["x", format!("{name} [[faults:{fault},ok]]")]}));
        }
        add("vector_short", json!({"input": ["x", format!("{name} [[fault:vector_short]]")]}));
        lines.push(json!({"custom_id": format!("{name}-one"), "input": format!("{name} gamma")}));
        let file = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let path = program.file(&format!("{name}.jsonl"), file);
        succeeds(&program, &["enqueue", path.to_str().unwrap(), "--route", name, "--batch", name]).await;
    }
    let worker = program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));
    assert!(!text(&worker.stderr).contains("alpha"), "prompts never reach a log");
    let sent = wire.calls("wire");
    assert_eq!((sent.len(), &sent[0].body["encoding_format"]), (1, &json!("base64")), "{sent:?}");
    let response: Value = sqlx::query_scalar("select response from sluice.results where job_id = $1")
        .bind(encoded)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(vectors_of(&response), vectors(&["gamma"], 4), "numbers, although base64 came");

    for name in DIALECTS {
        let (out, errors) = (program.path(&format!("{name}.out")), program.path(&format!("{name}.err")));
        let files = ["-o", out.to_str().unwrap(), "--errors", errors.to_str().unwrap()];
        program.run(&[&["results", name][..], &files].concat()).await;
        let lines: Vec<Value> = [out, errors]
            .iter()
            .flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect();
        let of = |id: &str| {
            let custom_id = format!("{name}-{id}");
            lines.iter().find(|line| line["custom_id"] == custom_id).unwrap_or_else(|| panic!("{custom_id}: {lines:?}"))
        };
        let two = of("two");
        let body = &two["response"]["body"];
        assert_eq!((&two["response"]["status_code"], &body["object"]), (&json!(200), &json!("list")), "{name}");
        assert_eq!(vectors_of(body), vectors(&[&format!("{name} alpha"), "beta"], 4), "{name}");
        assert!(body["usage"]["prompt_tokens"].as_i64().unwrap() > 0, "{name}: {body}");
        assert_eq!(vectors_of(&of("one")["response"]["body"]), vectors(&[&format!("{name} gamma")], 8), "{name}");
        for fault in ["vector_count", "vector_nan", "vector_zero", "empty", "500"] {
            let line = of(fault);
            let texts = ["x".to_owned(), format!("{name} [[faults:{fault},ok]]")];
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(vectors_of(&line["response"]["body"]), vectors(&texts, 8), "{name} {fault}");
            assert_eq!(line["sluice"]["attempts"], 2, "{name} {fault}: {line}");
        }
        let short = of("vector_short");
        assert_eq!(short["error"]["code"], "soft_failure", "{name}: {short}");
        let query = "select message from sluice.attempts where provider = $1 and detail = 'vector_dimension'";
        let messages: Vec<String> = sqlx::query_scalar(query).bind(format!("p_{name}")).fetch_all(&pool).await.unwrap();
        assert_eq!(messages.len(), 1, "{name}: a model that has its own dimension is not asked again");
        assert!(messages[0].contains("vector 1 has 7 numbers, not 8 as the first has"), "{name}: {messages:?}");

        // On the ledger: the kinds of failures by their names, no tokens of output, and the money that was charged.
        let query = "select (select string_agg(distinct detail, ',' order by detail) from sluice.attempts
                              where provider = $1 and class = 'soft_failure'),
                            (select coalesce(sum(output_tokens), 0)::bigint from sluice.attempt where provider = $1),
                            (select coalesce(sum(cost_nanos), 0)::bigint from sluice.attempt where provider = $1)";
        let row = sqlx::query(query).bind(format!("p_{name}")).fetch_one(&pool).await.unwrap();
        let (kinds, output, cost): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(kinds, "vector_count,vector_dimension,vector_not_finite,vector_zero", "{name}");
        assert_eq!(output, 0, "{name}");
        let figures = &simulator.verdict().providers[name].figures.clone();
        let charged = i64::try_from(figures.charged_nano_usd).unwrap();
        // Gemini does not say what it counted.
        assert!(if name == "gemini" { cost > 0 } else { cost == charged }, "{name}: {cost} booked, {charged} charged");
        assert_eq!((figures.malformed_requests, figures.retried_non_retryables), (0, 0), "{name}: {figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rung_without_embeddings_is_passed_with_the_reason_and_numbers_fill_no_screen() {
    let database = database().await;
    let pool = database.pool();
    let (_simulator, config) = stage();
    let program = program(&config, &database.url());
    let request = json!({"input": [[1, 2, 3], [4, 5]], "dimensions": 300});
    let id: i64 = sqlx::query_scalar("select sluice.enqueue($1, route => 'mixed', batch => 'b')")
        .bind(&request)
        .fetch_one(&pool)
        .await
        .unwrap();
    // No rung of the route can take it, and a row that is no request fails alone.
    for (route, request) in [("bedrock", json!({"input": "a"})), ("openai", json!({"input": ["a", [1]]}))] {
        sqlx::query("insert into sluice.job (route, batch, request) values ($1, 'bad', $2)")
            .bind(route)
            .bind(request)
            .execute(&pool)
            .await
            .unwrap();
    }
    let worker = program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));

    let response: Value = sqlx::query_scalar("select response from sluice.results where job_id = $1")
        .bind(id)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(vectors_of(&response), vectors(&["1 2 3", "4 5"], 300));
    let number = response["data"][0]["embedding"][0].to_string();
    let (told, _) = succeeds(&program, &["explain", &id.to_string()]).await;
    for rung in OTHERS {
        assert!(told.contains(&format!("p_{rung}/m")), "{told}");
    }
    assert!(told.contains("embeddings") && told.contains("2 vectors of 300 numbers"), "{told}");
    assert!(!told.contains(&number), "{told}");
    let (table, _) = succeeds(&program, &["results", "b", "--format", "csv"]).await;
    assert!(table.contains(&format!(",succeeded,\"[[{number},")), "{table}");
    let (lines, _) = succeeds(&program, &["results", "b"]).await;
    assert_eq!(vectors_of(&serde_json::from_str::<Value>(&lines).unwrap()["response"]["body"]), vectors_of(&response));

    let bad: Vec<(String, String)> =
        sqlx::query_as("select error_class::text, error from sluice.results where batch = 'bad' order by job_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(bad[0].0, "invalid_request");
    assert!(bad[0].1.contains("embeddings"), "{bad:?}");
    assert!(bad[1].1.contains("request.input[1]: expected a text, as the first input is, found an array"), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_bad_inputs_is_refused_as_a_whole_and_each_fault_has_its_line_and_field() {
    let database = database().await;
    let (_simulator, config) = stage();
    let program = program(&config, &database.url());
    let many = json!({"input": vec!["a"; 2_049]});
    let lines = [
        (json!({"input": ""}), "1: input: expected a string that is not empty"),
        (json!({"input": []}), "2: input: expected at least one input, found an empty array"),
        (json!({"input": [[1], "a"]}), "3: input[1]: expected an array of token numbers, as the first input is"),
        (json!({"input": "a", "messages": []}), "4: input: expected either `input` (for embeddings) or `messages`"),
        (many, "5: input: expected at most 2048 inputs, found 2049"),
        (json!({"url": "/v1/embeddings", "body": {"prompt": "a"}}), "6: body.input: is missing"),
    ];
    let file = lines.iter().map(|(line, _)| line.to_string()).collect::<Vec<_>>().join("\n");
    let path = program.file("bad.jsonl", file);
    let output = program.run(&["enqueue", path.to_str().unwrap(), "--route", "openai", "--batch", "b"]).await;
    let told = text(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{told}");
    for (_, expected) in &lines {
        assert!(told.contains(expected), "{expected} is missing in {told}");
    }
    let jobs: i64 = sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&database.pool()).await.unwrap();
    assert_eq!(jobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_counts_the_inputs_and_no_answer() {
    let database = database().await;
    let (_simulator, config) = stage();
    let program = program(&config, &database.url());
    let path =
        program.file("in.jsonl", format!("{}\n", json!({"input": ["abcd".repeat(1_000), "abcd".repeat(1_000)]})));
    let (table, _) =
        succeeds(&program, &["estimate", path.to_str().unwrap(), "--route", "openai", "--format", "json"]).await;
    let rows: Value = serde_json::from_str(&table).unwrap();
    let rung = rows.as_array().map_or(&rows, |rows| &rows[0]);
    assert_eq!((&rung["input_tokens"], &rung["output_tokens"]), (&json!(2_000), &json!(0)), "{table}");
}
