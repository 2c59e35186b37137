//! The parts of a request that reach a provider, seen from the provider's side, and the notes on the rest.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::scripted::Scripted;
use serde_json::{Value, json};
use sqlx::PgPool;

async fn saying(message: Value) -> Scripted {
    let answer = json!({
        "id": "c", "model": "served", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    });
    Scripted::start(move |_, _| (200, answer.to_string().into_bytes())).await
}

/// The bodies that the provider was sent, as they came.
fn bodies(server: &Scripted) -> Vec<String> {
    server.calls("gateway").into_iter().map(|call| call.text).collect()
}

struct Stage {
    database: TestDatabase,
    program: Program,
}

impl Stage {
    async fn new(provider: &str, model: &str, server: &Scripted) -> Self {
        let database = database().await;
        let config = format!(
            "[http]\nlisten = \"off\"\n[providers.gateway]\n{provider}\nbase_url = \"{}\"\n\
             [models.\"gateway/{model}\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"gateway/{model}\"]\nmax_attempts = 1\n",
            server.base_url("gateway")
        );
        let program = Program::new(&config, &database.url());
        Self { database, program }
    }

    fn pool(&self) -> PgPool {
        self.database.pool()
    }

    async fn insert(&self, request: &str) {
        let insert = "insert into sluice.job (request) values ($1::jsonb)";
        sqlx::query(insert).bind(request).execute(&self.pool()).await.unwrap();
    }

    async fn drain(&self) {
        let output = self.program.command(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    async fn dropped(&self) -> Vec<String> {
        let query = "select coalesce(decision->'dropped', '[]') from sluice.attempts order by job_id desc limit 1";
        let dropped: Value = sqlx::query_scalar(query).fetch_one(&self.pool()).await.unwrap();
        serde_json::from_value(dropped).unwrap()
    }
}

/// JSON without the spaces that Postgres puts between members.
fn packed(text: &str) -> String {
    text.replace("\": ", "\":").replace(", \"", ",\"").replace("}, {", "},{")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_a_compatible_server_in_every_member() {
    let server = saying(json!({"role": "assistant", "content": "Yes."})).await;
    let stage = Stage::new("dialect = \"openai\"", "m", &server).await;
    let request = r#"{"model":"m","messages":[
        {"role":"user","content":[{"text":"Grüße 😀","type":"text","cache_control":{"type":"ephemeral"}}]},
        {"role":"assistant","content":"x","reasoning_content":"hm"},{"role":"user","content":"y"}],"temperature":1.0,
        "tools":[{"type":"function","function":{"name":"f.g","strict":true,
            "parameters":{"type":"object","maximum":123456789012345678901234567890}}}],
        "unheard_of":{"deep":[1.50,null]}}"#;
    stage.insert(request).await;
    stage.drain().await;
    let stored: String =
        sqlx::query_scalar("select request::text from sluice.jobs").fetch_one(&stage.pool()).await.unwrap();
    let bodies = bodies(&server);
    assert_eq!(bodies.len(), 1);
    // In the order and with the figures in which Postgres keeps it.
    assert_eq!(packed(&bodies[0]), packed(&stored));
    for kept in ["\"temperature\":1.0", "123456789012345678901234567890", "1.50", "\"strict\":true", "Grüße 😀"] {
        assert!(packed(&bodies[0]).contains(kept), "{kept}: {}", bodies[0]);
    }
    assert_eq!(stage.dropped().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn quirks_of_the_vendor_hold_behind_a_gateway_and_names_of_functions_come_back() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "weather_get", "arguments": "{}"}});
    let server = saying(json!({"role": "assistant", "content": null, "tool_calls": [call]})).await;
    let stage = Stage::new("vendor = \"openai\"\nquirks = { drop = [\"user\"] }", "gpt-5-mini", &server).await;
    stage
        .insert(
            r#"{"messages":[{"role":"user","content":"Weather?"}],"max_tokens":50,"temperature":0.2,"user":"ann",
                "tools":[{"type":"function","function":{"name":"weather.get"}}]}"#,
        )
        .await;
    stage.drain().await;
    let sent: Value = serde_json::from_str(&bodies(&server)[0]).unwrap();
    assert_eq!((&sent["max_completion_tokens"], sent.get("max_tokens")), (&json!(50), None));
    assert_eq!((sent.get("temperature"), sent.get("user")), (None, None));
    assert_eq!(sent["tools"][0]["function"]["name"], json!("weather_get"));
    let response: Value =
        sqlx::query_scalar("select response from sluice.results").fetch_one(&stage.pool()).await.unwrap();
    assert_eq!(response["choices"][0]["message"]["tool_calls"][0]["function"]["name"], json!("weather.get"));
    let mut dropped = stage.dropped().await;
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "max_tokens as max_completion_tokens",
            "temperature",
            "tools[].function.name in letters that the dialect takes",
            "user",
        ]
    );
    let id: i64 = sqlx::query_scalar("select id from sluice.jobs").fetch_one(&stage.pool()).await.unwrap();
    let output = stage.program.command(&["explain", &id.to_string(), "--format", "table"]).output().await.unwrap();
    let story = text(&output.stdout);
    assert!(
        story.contains("not sent to it as it came: ") && story.contains("max_tokens as max_completion_tokens"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_a_prompt_is_not_sent_by_sql_and_is_metadata_by_file() {
    let server = saying(json!({"role": "assistant", "content": "Yes."})).await;
    let stage = Stage::new("dialect = \"openai\"", "m", &server).await;
    stage.insert(r#"{"id":"a","review_id":7,"prompt":"Hi","seed":1}"#).await;
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    std::fs::write(file.path(), "{\"id\":\"a\",\"review_id\":7,\"prompt\":\"Hi\",\"seed\":1}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let output = stage.program.command(&["enqueue", path, "--batch", "file"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    stage.drain().await;
    let sent: Vec<Value> = bodies(&server).iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let expected = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "seed": 1});
    assert_eq!(sent, [expected.clone(), expected]);
    let metadata: Value = sqlx::query_scalar("select metadata from sluice.results where batch = 'file'")
        .fetch_one(&stage.pool())
        .await
        .unwrap();
    assert_eq!(metadata, json!({"id": "a", "review_id": 7}));
    let dropped: Value = sqlx::query_scalar(
        "select decision->'dropped' from sluice.attempts a join sluice.jobs j on j.id = a.job_id where j.batch is null",
    )
    .fetch_one(&stage.pool())
    .await
    .unwrap();
    assert_eq!(dropped, json!(["id", "review_id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_nobody_knows_are_named_by_the_check() {
    let server = saying(json!({"role": "assistant", "content": "Yes."})).await;
    let stage = Stage::new("dialect = \"openai\"", "m", &server).await;
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    let message = r#""messages":[{"role":"user","content":"Hi"}]"#;
    let lines = format!(
        "{{{message},\"review_id\":7,\"top_k\":5}}\n{{\"body\":{{{message},\"review_id\":8,\"temprature\":0.1}}}}\n\
         {{\"prompt\":\"Hi\",\"max_token\":5}}\n"
    );
    std::fs::write(file.path(), lines).unwrap();
    let path = file.path().to_str().unwrap();
    let output = stage.program.command(&["enqueue", path, "--dry-run", "--format", "json"]).output().await.unwrap();
    let (told, warnings) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{warnings}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["unknown_members"], json!({"review_id": 2, "temprature": 1}));
    for part in [
        "warning: 2 lines, the first of them 1, have `review_id`",
        "line 2 has `temprature`, which no provider is known to take (perhaps `temperature` is meant)",
        "line 3 has `max_token`, which is no parameter (perhaps `max_tokens` is meant)",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(!warnings.contains("top_k"), "{warnings}");
}
