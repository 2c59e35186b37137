//! Asking again: a rung whose answer was rejected for its form is asked once more, with the answer and its fault named.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::queue::enqueue_request;
use crate::support::scripted::{Call, Reply, Scripted, answer};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::simulate::{Dialect, Scenario, Simulator};
use std::fmt::Write as _;

struct Stage {
    database: TestDatabase,
    program: Program,
    provider: Scripted,
}

const WRONG: &str = r#"{"age": "a secret"}"#;
const RIGHT: &str = r#"{"age": 5}"#;

async fn stage(script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static) -> Stage {
    let provider = Scripted::start(script).await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n\
         [providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 20 }}\n\
         [models.\"p/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [models.\"p/narrow\"]\nprice = {{ input = \"1\", output = \"1\" }}\ncontext_window = 90\n\
         [routes.default]\nrungs = [\"p/m\"]\nmax_attempts = 3\n\
         [routes.once]\nrungs = [\"p/m\"]\nmax_attempts = 1\n\
         [routes.twice]\nrungs = [\"p/m\"]\nmax_attempts = 2\n\
         [routes.plain]\nrungs = [\"p/m\"]\nreask = false\nmax_attempts = 2\n\
         [routes.narrow]\nrungs = [\"p/narrow\"]\nmax_attempts = 2\n\
         [routes.short]\nrungs = [\"p/m\"]\nvalidate = {{ max_chars = 5 }}\n",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    program.output(&["migrate"]).await;
    Stage { database, program, provider }
}

/// A request for an age, with a number whose digits are the author's own.
fn request() -> Value {
    let schema = json!({ "type": "object", "properties": { "age": { "type": "integer" } }, "required": ["age"] });
    json!({ "messages": [{ "role": "user", "content": "How old?" }], "unheard_of": 1.5, "max_tokens": 20,
            "response_format": { "type": "json_schema", "json_schema": { "name": "a", "schema": schema } } })
}

impl Stage {
    async fn enqueue(&self, route: &str, request: &Value) {
        enqueue_request(&self.database.pool(), route, request).await;
    }

    /// Works on all that there is; what the worker said holds nothing of an answer.
    async fn drain(&self) {
        let output = self.program.run(&["worker", "--drain"]).await;
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && !said.contains("secret"), "{said}");
    }

    /// Of each attempt: its class, and which attempt's answer it named.
    async fn attempts(&self) -> Vec<(Option<String>, Option<i16>)> {
        sqlx::query_as("select class, reask_of from sluice.attempts order by job_id, number")
            .fetch_all(&self.database.pool())
            .await
            .unwrap()
    }

    async fn states(&self) -> Vec<String> {
        sqlx::query_scalar("select state::text from sluice.results order by job_id")
            .fetch_all(&self.database.pool())
            .await
            .unwrap()
    }
}

fn rejected() -> (Option<String>, Option<i16>) {
    (Some("soft_failure".to_owned()), None)
}

/// Right where the fault was named, and wrong otherwise.
fn listens(call: &Call, _: usize) -> Reply {
    answer(if call.prompt().contains("does not match the JSON schema") { RIGHT } else { WRONG })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rung_mends_its_answer_once_it_is_told_what_was_wrong() {
    let stage = stage(listens).await;
    stage.enqueue("default", &request()).await;
    stage.drain().await;
    assert_eq!(stage.states().await, ["succeeded"]);
    assert_eq!(stage.attempts().await, [rejected(), (None, Some(1))]);
    let calls = stage.provider.calls("p");
    let [first, second] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    // The body goes on as it was written, and has two messages more.
    let mut expected = first.body.clone();
    let told = "The answer does not match the JSON schema: /age breaks /properties/age/type (\"integer\"). \
                Answer again, with the corrected JSON only.";
    let messages = expected["messages"].as_array_mut().unwrap();
    messages.push(json!({ "role": "assistant", "content": WRONG }));
    messages.push(json!({ "role": "user", "content": told }));
    assert_eq!(second.body, expected);
    // The faces tell of it.
    let job: i64 = sqlx::query_scalar("select id from sluice.job").fetch_one(&stage.database.pool()).await.unwrap();
    let story = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(story.contains("it was asked again, with the answer of #1 and its fault named"), "{story}");
    let report = stage.program.output(&["report", "reasks", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report[0]["reasks"], &report[0]["accepted"], &report[0]["share"]),
        (&json!(1), &json!(1), &json!(1.0))
    );
    assert!(report[0]["cost"].as_f64().unwrap() > 0.0, "{report}");
    let seen: (i64, i64) =
        sqlx::query_as("select reasks, accepted from sluice.reasks").fetch_one(&stage.database.pool()).await.unwrap();
    assert_eq!(seen, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rung_is_asked_again_once_and_only_where_route_attempts_and_window_allow_it() {
    let stage = stage(|_, _| {
        let (status, body) = answer(WRONG);
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        // About the estimate, so that nothing else is learned.
        body["usage"]["prompt_tokens"] = json!(40);
        (status, body.to_string().into_bytes())
    })
    .await;
    for (route, expected) in [
        // The second answer is as wrong: from then on it is asked as at first.
        ("default", vec![None, Some(1), None]),
        ("once", vec![None]),
        ("twice", vec![None, Some(1)]),
        ("plain", vec![None, None]),
        // The request fits the window, and the longer one does not.
        ("narrow", vec![None, None]),
    ] {
        stage.enqueue(route, &request()).await;
        stage.drain().await;
        let pool = stage.database.pool();
        let query = "select reask_of from sluice.attempts where route = $1 order by number";
        let named: Vec<Option<i16>> = sqlx::query_scalar(query).bind(route).fetch_all(&pool).await.unwrap();
        assert_eq!(named, expected, "{route}");
    }
    // A request whose answer is not named is asked as it was.
    let calls = stage.provider.calls("p");
    let plain: Vec<&Call> = calls.iter().filter(|call| call.body["messages"].as_array().unwrap().len() == 1).collect();
    assert_eq!(calls.len() - plain.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_faults_of_form_are_named_and_a_refused_re_ask_costs_the_job_nothing_else() {
    let stage = stage(|call, _| match call.prompt() {
        told if told.contains("at most 5 allowed") => answer("short"),
        told if told.contains("is not the JSON") => {
            (400, br#"{"error":{"message":"messages must alternate"}}"#.to_vec())
        }
        "long" => answer("much too long"),
        "once" if call.body["seed"] == 1 => answer("no JSON"),
        _ => answer("?"),
    })
    .await;
    stage.enqueue("short", &json!({ "prompt": "long" })).await;
    stage.drain().await;
    assert_eq!(stage.states().await, ["succeeded"]);
    assert_eq!(stage.attempts().await, [rejected(), (None, Some(1))]);
    // The rung stays in play for the request as it was inserted.
    stage.enqueue("twice", &json!({ "prompt": "once", "seed": 1, "response_format": { "type": "json_object" } })).await;
    stage.drain().await;
    let (classes, named): (Vec<_>, Vec<_>) = stage.attempts().await.into_iter().skip(2).unzip();
    assert_eq!(named, [None, Some(1)]);
    assert_eq!(classes[0].as_deref(), Some("soft_failure"));
    let error: Option<String> = sqlx::query_scalar("select error from sluice.results order by job_id desc limit 1")
        .fetch_one(&stage.database.pool())
        .await
        .unwrap();
    assert!(error.as_deref().is_some_and(|error| error.contains("all 2 attempts used up")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_asks_again_with_the_answer_from_the_ledger() {
    let stage = stage(|call, before| match (call.prompt().contains("does not match"), before) {
        (true, 1) => (429, br#"{"error":{"message":"slow down, try again in 4s"}}"#.to_vec()),
        (true, _) => answer(RIGHT),
        _ => answer(WRONG),
    })
    .await;
    stage.enqueue("default", &request()).await;
    let mut worker = stage.program.command(&["worker"]).spawn().unwrap();
    let pool = stage.database.pool();
    // It has been told to wait, and the job waits in the database.
    until("the job is parked", async || {
        let parked: i64 = sqlx::query_scalar("select count(*) from sluice.parked").fetch_one(&pool).await.unwrap();
        parked == 1
    })
    .await;
    worker.kill().await.unwrap();
    stage.drain().await;
    assert_eq!(stage.states().await, ["succeeded"]);
    assert_eq!(stage.attempts().await, [rejected(), (Some("rate_limit".to_owned()), Some(1)), (None, Some(1))]);
    let calls = stage.provider.calls("p");
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[1].body, calls[2].body);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_with_conversations_carries_the_answer_and_its_fault() {
    let database = database().await;
    let (mut scenario, mut config) = (String::new(), "[http]\nlisten = \"off\"\n".to_owned());
    let dialects: Vec<&Dialect> = Dialect::ALL.iter().filter(|dialect| dialect.name() != "completions").collect();
    for dialect in &dialects {
        let name = dialect.name();
        write!(scenario, "[providers.{name}]\ndialect = \"{name}\"\nkeys = [\"key\"]\n").unwrap();
    }
    let scenario = format!("markers = true\n{scenario}");
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    for dialect in &dialects {
        let name = dialect.name();
        let url = simulator.base_url(name).unwrap();
        write!(
            config,
            "[providers.p_{name}]\ndialect = \"{name}\"\nbase_url = \"{url}\"\napi_key_file = \"key\"\n\
             [routes.{name}]\nrungs = [\"p_{name}/m\"]\n"
        )
        .unwrap();
    }
    let program = Program::new(&config, &database.url());
    let key = program.file("key", "key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    program.output(&["migrate"]).await;
    let pool = database.pool();
    for dialect in &dialects {
        // The mark makes each call wrong that ends with it: the call that names the fault ends with that.
        let prompt = format!("Answer in JSON. {} [[fault:wrong_json]]", dialect.name());
        let messages = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": prompt }]);
        let schema = json!({ "type": "object", "properties": { "answer": { "type": "string" } },
                             "required": ["answer"], "additionalProperties": false });
        let format = json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": schema } });
        let request = json!({ "messages": messages, "max_tokens": 300, "response_format": format });
        sqlx::query("insert into sluice.job (route, custom_id, request) values ($1, $1, $2)")
            .bind(dialect.name())
            .bind(request)
            .execute(&pool)
            .await
            .unwrap();
    }
    program.output(&["worker", "--drain"]).await;
    for dialect in &dialects {
        let query = "select array_agg(accepted order by number), array_agg(reask_of order by number),
                            array_agg(input_tokens order by number), max(message)
                       from sluice.attempts where route = $1";
        let (accepted, named, tokens, message): (Vec<bool>, Vec<Option<i16>>, Vec<i64>, Option<String>) =
            sqlx::query_as(query).bind(dialect.name()).fetch_one(&pool).await.unwrap();
        assert_eq!((accepted, named), (vec![false, true], vec![None, Some(1)]), "{}: {message:?}", dialect.name());
        assert!(tokens[1] > tokens[0], "{}: {tokens:?}", dialect.name());
    }
    for (name, provider) in &simulator.verdict().providers {
        assert_eq!(provider.figures.malformed_requests, 0, "{name}");
    }
}
