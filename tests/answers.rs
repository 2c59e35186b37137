//! Answers as servers really write them, read by the real program from a server that replies as a table says.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, json_lines};
use crate::support::scripted::Scripted;
use crate::support::wait::until;
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};

/// What the server says to a prompt that holds the name in double brackets.
type Says = Vec<(&'static str, Vec<u8>)>;

struct Stage {
    _database: TestDatabase,
    server: Scripted,
    pool: PgPool,
    program: Program,
}

impl Stage {
    /// A server that says these, under the names of several providers.
    async fn new(says: Says, config: &str) -> Self {
        let server = Scripted::start(move |call, _| {
            let answer = says.iter().find(|(name, _)| call.text.contains(&format!("[[{name}]]")));
            let (_, answer) = answer.unwrap_or_else(|| panic!("nothing to say to {}", call.text));
            (200, answer.clone())
        })
        .await;
        let database = database().await;
        let config = format!("[http]\nlisten = \"off\"\n{}", config.replace("{url}", &server.base_url("any")));
        let program = Program::new(&config, &database.url());
        program.output(&["migrate"]).await;
        Self { pool: database.pool(), _database: database, server, program }
    }

    /// Enqueues a request that is answered as the name says.
    async fn ask(&self, route: &str, name: &str, more: &Value) {
        let mut request =
            json!({ "messages": [{ "role": "user", "content": format!("[[{name}]] {}", "word ".repeat(40)) }] });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sqlx::query("insert into sluice.job (route, custom_id, batch, request) values ($1, $2, 'all', $3)")
            .bind(route)
            .bind(name)
            .bind(request)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    async fn drain(&self) {
        self.program.output(&["worker", "--drain"]).await;
    }

    /// The result of a job: its state, whether it was repaired, and the answer.
    async fn result(&self, name: &str) -> (String, bool, Value) {
        let row = sqlx::query("select state, repaired, response from sluice.results where custom_id = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        (row.get(0), row.get(1), row.get::<Option<Value>, _>(2).unwrap_or_default())
    }

    /// A job's only attempt, as the view shows it.
    async fn attempt(&self, name: &str) -> Value {
        let rows: Vec<Value> = sqlx::query_scalar(
            "select to_jsonb(a) from sluice.attempts a join sluice.jobs j on j.id = a.job_id where j.custom_id = $1",
        )
        .bind(name)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let [attempt] = rows.as_slice() else { panic!("{name}: {rows:?}") };
        attempt.clone()
    }
}

/// One provider whose price is known, and one whose is not.
const CONFIG: &str = "[providers.openai]\ndialect = \"openai\"\nbase_url = \"{url}\"\n\
     [providers.gateway]\ndialect = \"openai\"\nbase_url = \"{url}\"\n\
     [routes.default]\nrungs = [\"openai/gpt-5-mini\"]\nmax_attempts = 1\n\
     [routes.unpriced]\nrungs = [\"gateway/some-model\"]\nmax_attempts = 1\n\
     [routes.strict]\nrungs = [\"openai/gpt-5-mini\"]\nmax_attempts = 1\nvalidate = { finish = \"known\" }\n";

fn completion(message: &Value, finish: &str, usage: &Value) -> Value {
    json!({ "id": "c", "object": "chat.completion", "model": "gpt-5-mini",
        "choices": [{ "index": 0, "message": message, "finish_reason": finish }], "usage": usage })
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn said(text: &str) -> Value {
    completion(
        &json!({ "content": text }),
        "stop",
        &json!({ "prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70 }),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_answer_is_used_whatever_stands_beside_it() {
    let logged = |logprob: &str| {
        let mut body = said("Yes.");
        body["choices"][0]["logprobs"] = json!({ "content": [{ "token": "Yes", "logprob": -0.125 }] });
        body["system_fingerprint"] = json!("fp_1");
        body.to_string().replace("-0.125", logprob).into_bytes()
    };
    let call = |arguments: Value| {
        let function = json!({ "name": "look", "arguments": arguments });
        let message =
            json!({ "content": null, "tool_calls": [{ "id": "t", "type": "function", "function": function }] });
        bytes(&completion(&message, "tool_calls", &json!({ "prompt_tokens": 50, "completion_tokens": 20 })))
    };
    let ended = |word: &str| bytes(&completion(&json!({ "content": "Yes." }), word, &json!({})));
    let says: Says = vec![
        ("minus infinity", logged("-Infinity")),
        ("whole", logged("-0.125")),
        ("mark", [b"\xef\xbb\xbf".as_slice(), &logged("-0.125")].concat()),
        ("events", [b"data: ".as_slice(), &logged("-0.125"), b"\n\ndata: [DONE]\n\n"].concat()),
        ("array", [b"[".as_slice(), &logged("NaN"), b"]\0"].concat()),
        ("eos", ended("eos_token")),
        ("cut", ended("MAX_TOKENS")),
        ("unsafe", ended("SAFETY")),
        ("new word", ended("zork")),
        ("new word, strictly", ended("zork")),
        ("no arguments", call(json!(""))),
        ("null arguments", call(json!(null))),
    ];
    let stage = Stage::new(says, CONFIG).await;
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "look" } }] });
    for name in ["minus infinity", "whole", "mark", "events", "array", "eos", "cut", "unsafe", "new word"] {
        stage.ask("default", name, &json!({ "logprobs": true })).await;
    }
    stage.ask("strict", "new word, strictly", &json!({})).await;
    for name in ["no arguments", "null arguments"] {
        stage.ask("default", name, &tools).await;
    }
    stage.drain().await;
    for name in ["minus infinity", "whole", "mark", "events", "array"] {
        let (state, _, response) = stage.result(name).await;
        let attempt = stage.attempt(name).await;
        assert_eq!(
            (state.as_str(), &response["choices"][0]["message"]["content"]),
            ("succeeded", &json!("Yes.")),
            "{name}: {attempt}"
        );
        assert_eq!(response["system_fingerprint"], "fp_1", "{name}");
        let logprob = &response["choices"][0]["logprobs"]["content"][0]["logprob"];
        let is_number = !matches!(name, "minus infinity" | "array");
        assert_eq!(*logprob, if is_number { json!(-0.125) } else { json!(null) }, "{name}");
        assert_eq!(attempt["notes"].is_null(), name == "whole", "{name}: {attempt}");
    }
    for (name, expected, detail) in [
        ("eos", "succeeded", None),
        ("new word", "succeeded", None),
        ("cut", "failed", Some("truncated")),
        ("unsafe", "failed", Some("content_filtered")),
        ("new word, strictly", "failed", Some("bad_finish")),
    ] {
        let attempt = stage.attempt(name).await;
        assert_eq!(stage.result(name).await.0, expected, "{name}: {attempt}");
        assert_eq!(attempt["detail"].as_str(), detail, "{name}");
    }
    let word = stage.attempt("new word").await;
    assert!(word["notes"].to_string().contains("zork"), "{word}");
    for name in ["no arguments", "null arguments"] {
        let (state, _, response) = stage.result(name).await;
        assert_eq!(state, "succeeded", "{name}");
        let function = &response["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(*function, json!({ "name": "look", "arguments": "{}" }), "{name}");
    }
    // Everything that was paid for is in the export too.
    let out = stage.program.path("out.jsonl");
    stage.program.run(&["results", "all", "-o", out.to_str().unwrap()]).await;
    let lines = json_lines(&out);
    let line = lines.iter().find(|line| line["custom_id"] == "whole").unwrap();
    let body = &line["response"]["body"];
    assert_eq!(body["choices"][0]["logprobs"]["content"][0]["token"], "Yes", "{line}");
    assert_eq!(body["system_fingerprint"], "fp_1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_no_answer_and_a_repair_keeps_what_came() {
    const DRAFT: &str = "<think>Maybe {\"label\": \"spam\"}? No, on reflection it is not spam.</think>";
    const FINAL: &str = "{\"label\": \"ham\"}";
    let says: Says = vec![
        ("draft", bytes(&said(DRAFT))),
        ("draft and answer", bytes(&said(&format!("{DRAFT}\n\n{FINAL}")))),
        ("brackets", bytes(&said(&format!("[THINK]Maybe {FINAL}?[/THINK]")))),
        (
            "channels",
            bytes(&said(&format!(
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}<|return|>"
            ))),
        ),
        ("taken back", bytes(&said(&format!("{FINAL}\n\nWait, that is wrong: it should be spam.")))),
        ("prose", bytes(&said(&format!("Here it is:\n```json\n{FINAL}\n```")))),
    ];
    let stage = Stage::new(says, CONFIG).await;
    let schema =
        json!({ "type": "object", "required": ["label"], "properties": { "label": { "enum": ["spam", "ham"] } } });
    let format =
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "l", "schema": schema } } });
    let names = ["draft", "draft and answer", "brackets", "channels", "taken back", "prose"];
    for name in names {
        stage.ask("default", name, &format).await;
    }
    stage.drain().await;
    for (name, detail) in [("draft", "empty"), ("brackets", "empty"), ("taken back", "not_json")] {
        let attempt = stage.attempt(name).await;
        assert_eq!(
            (stage.result(name).await.0.as_str(), &attempt["detail"]),
            ("failed", &json!(detail)),
            "{name}: {attempt}"
        );
    }
    for (name, reasoning) in [("draft and answer", true), ("channels", true), ("prose", false)] {
        let (state, repaired, response) = stage.result(name).await;
        assert_eq!((state.as_str(), repaired), ("succeeded", true), "{name}");
        let message = &response["choices"][0]["message"];
        assert_eq!(message["content"], FINAL, "{name}");
        assert_eq!(message["reasoning_content"].is_string(), reasoning, "{name}");
        let attempt = stage.attempt(name).await;
        let original = attempt["answer"]["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(original.contains(FINAL) && original.len() > FINAL.len(), "{name}: {original}");
        assert!(attempt["notes"][0].as_str().unwrap().contains("characters"), "{name}: {attempt}");
        let explained = stage.program.output(&["explain", &attempt["job_id"].to_string()]).await;
        assert!(explained.contains("was cut off") || explained.contains("was taken off"), "{explained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_only_our_check_cannot_follow_ends_no_job() {
    let says: Says = vec![("fits", bytes(&said("{\"code\": \"ab1c\"}"))), ("breaks", bytes(&said("{\"code\": 5}")))];
    let stage = Stage::new(says, CONFIG).await;
    let code = json!({ "type": "string", "pattern": "^(?=.*[0-9]).{4,}$" });
    let schema = json!({
        "$schema": "http://json-schema.org/draft-05/schema#", "type": "object", "properties": { "code": code },
    });
    let format =
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "c", "schema": schema } } });
    for name in ["fits", "breaks"] {
        stage.ask("default", name, &format).await;
    }
    stage.drain().await;
    assert_eq!(stage.result("fits").await.0, "succeeded");
    let attempt = stage.attempt("fits").await;
    assert_eq!(attempt["decision"]["unchecked"], json!(["/$schema", "/properties/code/pattern"]), "{attempt}");
    let explained = stage.program.output(&["explain", &attempt["job_id"].to_string()]).await;
    assert!(explained.contains("not checked in its answer, of the request's JSON schema: /$schema"), "{explained}");
    // The rest is checked.
    assert_eq!(stage.result("breaks").await.0, "failed");
    assert_eq!(stage.attempt("breaks").await["detail"], json!("schema_mismatch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_cannot_be_is_estimated_and_cost_is_what_was_billed() {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(10);
    let with = |usage: Value| completion(&json!({ "content": text }), "stop", &usage);
    let tier = |tier: &str| {
        let mut body = with(json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100 }));
        body["service_tier"] = json!(tier);
        bytes(&body)
    };
    let says: Says = vec![
        ("zeros", bytes(&with(json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 })))),
        ("no input", bytes(&with(json!({ "prompt_tokens": 0, "completion_tokens": 100, "total_tokens": 100 })))),
        ("no output", bytes(&with(json!({ "prompt_tokens": 1_000, "completion_tokens": 0, "total_tokens": 1_000 })))),
        ("absurd", bytes(&with(json!({ "prompt_tokens": i64::MAX, "completion_tokens": -5 })))),
        ("hidden", bytes(&with(json!({ "prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623 })))),
        ("default", tier("default")),
        ("flex", tier("flex")),
        ("priority", tier("priority")),
        ("scale", tier("scale")),
        (
            "written",
            bytes(&with(json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100,
                    "cache_creation_input_tokens": 600 }))),
        ),
        ("reported", bytes(&with(json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.0042 })))),
        ("both", bytes(&with(json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.0042 })))),
        ("free?", bytes(&with(json!({ "prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0 })))),
    ];
    let names: Vec<&str> = says.iter().map(|(name, _)| *name).collect();
    let stage = Stage::new(says, CONFIG).await;
    for name in names {
        stage.ask(if matches!(name, "reported" | "free?") { "unpriced" } else { "default" }, name, &json!({})).await;
    }
    stage.drain().await;
    let number = |value: &Value| value.as_i64().unwrap();
    for name in ["zeros", "no input", "no output", "absurd"] {
        let attempt = stage.attempt(name).await;
        assert_eq!(attempt["usage_source"], "estimated", "{name}: {attempt}");
        assert!(number(&attempt["input_tokens"]) > 10 && number(&attempt["output_tokens"]) > 50, "{name}: {attempt}");
        assert!(attempt["cost"].as_f64().unwrap() > 0.0, "{name}: {attempt}");
    }
    assert_eq!(stage.attempt("zeros").await["usage"]["total_tokens"], 0, "as it came");
    let (_, _, response) = stage.result("zeros").await;
    assert!(number(&response["usage"]["completion_tokens"]) > 50, "{response}");
    let hidden = stage.attempt("hidden").await;
    assert_eq!((number(&hidden["output_tokens"]), number(&hidden["reasoning_tokens"])), (603, 405));
    // gpt-5-mini: 0.25 in, 2 out.
    for (name, cost, tier) in [
        ("default", json!(0.000_45), Some("default")),
        ("flex", json!(0.000_225), Some("flex")),
        ("priority", json!(0.000_81), Some("priority")),
        ("scale", json!(null), Some("scale")),
        ("written", json!(0.000_45), None),
    ] {
        let attempt = stage.attempt(name).await;
        assert_eq!(attempt["cost"].as_f64(), cost.as_f64(), "{name}: {attempt}");
        assert_eq!(attempt["service_tier"].as_str(), tier, "{name}");
    }
    assert!(stage.attempt("scale").await["notes"].to_string().contains("has no price"));
    let written = stage.attempt("written").await;
    assert_eq!((number(&written["input_tokens"]), number(&written["cache_write_tokens"])), (400, 600));
    for (name, cost, source) in
        [("reported", Some(0.0042), Some("reported")), ("both", Some(0.0042), Some("reported")), ("free?", None, None)]
    {
        let attempt = stage.attempt(name).await;
        assert_eq!((attempt["cost"].as_f64(), attempt["cost_source"].as_str()), (cost, source), "{name}: {attempt}");
        assert_eq!(attempt["reported_cost"].as_f64(), (name != "free?").then_some(0.0042), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_tokens_is_not_passed_because_a_server_reports_none() {
    let lines = (0..60).map(|line| format!("{line}. The quick brown fox jumps over the lazy dog.\n"));
    let text = lines.collect::<Vec<_>>().concat();
    let body = completion(
        &json!({ "content": text }),
        "stop",
        &json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 }),
    );
    let config = CONFIG.replacen(
        "base_url = \"{url}\"\n",
        "base_url = \"{url}\"\nlimits = { tokens_per_minute = 600, concurrency = 1 }\ncharging = \"combined\"\n",
        1,
    );
    let stage = Stage::new(vec![("zeros", bytes(&body))], &config).await;
    for _ in 0..10 {
        stage.ask("default", "zeros", &json!({ "max_tokens": 20 })).await;
    }
    let mut worker = stage.program.command(&["worker"]).spawn().unwrap();
    let level = "select count(*) from sluice.buckets where unit = 'tokens' and level < 0";
    let succeeded = "select count(*) from sluice.results where state = 'succeeded'";
    let count = async |query: &'static str| sqlx::query_scalar::<_, i64>(query).fetch_one(&stage.pool).await.unwrap();
    // The first answer is more than the limit holds: the next calls have to wait.
    until("the limit is used up by what was shown", async || count(level).await > 0).await;
    until("the answer is written", async || count(succeeded).await > 0).await;
    let used = count(succeeded).await;
    assert!((1..=3).contains(&used), "{used} answers of some 700 tokens, of 600 a minute");
    worker.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_languages_other_models_and_calls_as_text_are_rejected_and_a_request_has_rules_of_its_own() {
    let german = "Der Zug nach Hamburg fährt heute leider zwanzig Minuten später ab, weil dort gebaut wird.";
    let other = {
        let mut body = said("Yes.");
        body["model"] = json!("gpt-4.1-nano");
        body
    };
    let looped = "And once more from the beginning. ".repeat(60);
    let call = "<tool_call>{\"name\": \"look\", \"arguments\": {}}</tool_call>";
    let says = vec![
        ("loop", bytes(&said(&looped))),
        ("loop wanted", bytes(&said(&looped))),
        ("german", bytes(&said(german))),
        ("german wanted", bytes(&said(german))),
        ("other", bytes(&other)),
        ("other wanted", bytes(&other)),
        ("call", bytes(&said(call))),
        ("short", bytes(&said("Yes."))),
        ("short wanted", bytes(&said("Yes."))),
        ("pattern", bytes(&said("Yes."))),
    ];
    let stage = Stage::new(
        says,
        "[providers.openai]\ndialect = \"openai\"\nbase_url = \"{url}\"\n\
         [routes.default]\nrungs = [\"openai/gpt-5-mini\"]\nmax_attempts = 1\n\
         validate = { language = [\"en\"], served = \"asked\", min_chars = 3 }\n",
    )
    .await;
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "look" } }] });
    let jobs = [
        ("loop", json!({}), Some("repetition")),
        ("loop wanted", json!({ "validate": { "repetition": false } }), None),
        ("german", json!({}), Some("wrong_language")),
        ("german wanted", json!({ "validate": { "language": ["deu", "fr"] } }), None),
        ("other", json!({}), Some("other_model")),
        ("other wanted", json!({ "validate": { "served": "any" } }), None),
        ("call", tools, Some("bad_tool_call")),
        ("short", json!({}), None),
        ("short wanted", json!({ "validate": { "min_chars": 5 } }), Some("too_short")),
        ("pattern", json!({ "validate": { "required_patterns": ["^No"] } }), Some("missing_pattern")),
    ];
    for (name, more, _) in &jobs {
        stage.ask("default", name, more).await;
    }
    stage.drain().await;
    for (name, _, expected) in &jobs {
        let attempt = stage.attempt(name).await;
        assert_eq!(
            (&attempt["accepted"], attempt["detail"].as_str()),
            (&json!(expected.is_none()), *expected),
            "{name}"
        );
    }
    // The rules are between the author and Sluice.
    assert!(stage.server.calls("any").iter().all(|call| call.body.get("validate").is_none()));
    // What makes no sense fails that job alone, or the line of a file, with the reason.
    stage.ask("default", "short", &json!({ "validate": { "max_char": 5 } })).await;
    stage.drain().await;
    let error: String = sqlx::query_scalar("select error from sluice.result where error_class = 'invalid_request'")
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert!(error.starts_with("request.validate: \"max_char\" is no rule of a request; expected non_empty"), "{error}");
}
