//! Choices that a request may not make by itself: another model, tier, tool or count than its route pays for. And the
//! cost of an answer that comes from another model than was asked.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::queue::enqueue_request;
use crate::support::scripted::{Scripted, answer};
use serde_json::{Value, json};

struct Stage {
    database: TestDatabase,
    program: Program,
    provider: Scripted,
}

/// A provider that answers as the model that the prompt names, or as the one that it was asked for.
async fn stage(extra: &str) -> Stage {
    let provider = Scripted::start(|call, _| {
        let (status, body) = answer("Yes.");
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        let named = call.prompt().strip_prefix("as ").map(Value::from);
        body["model"] = named.unwrap_or_else(|| call.body["model"].clone());
        (status, body.to_string().into_bytes())
    })
    .await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"p/cheap\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [models.\"p/dear-pro\"]\nprice = {{ input = \"100\", output = \"100\" }}\n\
         [routes.default]\nrungs = [\"p/cheap\"]\nmax_attempts = 1\n\
         [routes.open]\nrungs = [\"p/cheap\"]\nmax_attempts = 1\npass = [\"models\", \"tools.web_search\"]\n\
         [routes.wide]\nrungs = [\"p/cheap\"]\nmax_attempts = 1\npass = [\"*\"]\n{extra}",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    Stage { database, program, provider }
}

impl Stage {
    async fn enqueue(&self, route: &str, request: &Value) {
        enqueue_request(&self.database.pool(), route, request).await;
    }

    /// Works on all that there is; returns what the worker said.
    async fn drain(&self) -> String {
        let output = self.program.command(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    async fn column(&self, query: &'static str) -> Vec<Value> {
        let rows: Vec<Option<Value>> = sqlx::query_scalar(query).fetch_all(&self.database.pool()).await.unwrap();
        rows.into_iter().map(Option::unwrap_or_default).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_chooses_only_what_its_route_lets_pass() {
    let stage = stage("").await;
    let function = json!({"type": "function", "function": {"name": "f"}});
    let request = json!({
        "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, "unheard_of": 1,
        "models": ["dear-pro"], "provider": {"order": ["dear"]}, "plugins": [{"id": "web"}], "service_tier": "priority",
        "web_search_options": {}, "best_of": 9, "extra_body": {"models": ["dear-pro"]}, "background": true,
        "tools": [function, {"type": "web_search"}],
    });
    for route in ["default", "open", "wide"] {
        stage.enqueue(route, &request).await;
    }
    stage.drain().await;
    let sent = |route: usize| {
        let calls = stage.provider.calls("p");
        let mut bodies: Vec<Value> = calls.into_iter().map(|call| call.body).collect();
        bodies.sort_by_key(|body| body.as_object().unwrap().len());
        bodies.swap_remove(route)
    };
    let shaped = json!({
        "model": "cheap", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, "unheard_of": 1,
        "tools": [function],
    });
    assert_eq!(sent(0), shaped);
    let mut open = shaped;
    open["models"] = request["models"].clone();
    open["tools"] = request["tools"].clone();
    assert_eq!(sent(1), open);
    let mut wide = request.clone();
    wide["model"] = json!("cheap");
    assert_eq!(sent(2), wide);
    // The members left out are told.
    let told = stage.program.output(&["explain", "1"]).await;
    for name in ["models", "provider", "plugins", "service_tier", "best_of", "extra_body", "tools of type web_search"] {
        assert!(told.contains(&format!("{name} (not in the route's `pass`)")), "{name}: {told}");
    }
    let told = stage.program.output(&["explain", "2"]).await;
    assert!(
        !told.contains("models (not") && !told.contains("web_search (not") && told.contains("best_of (not"),
        "{told}"
    );
    assert!(!stage.program.output(&["explain", "3"]).await.contains("`pass`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_another_model_costs_what_that_model_costs_or_nobody_knows() {
    let stage = stage(
        "[models.\"p/alias\"]\nprice = { input = \"1\", output = \"1\" }\nserved_as = [\"behind-it\"]\n\
         [routes.alias]\nrungs = [\"p/alias\"]\nmax_attempts = 1\n\
         [models.\"p/free\"]\nprice = { input = \"0\", output = \"0\" }\n\
         [routes.free]\nrungs = [\"p/free\"]\nmax_attempts = 1\n",
    )
    .await;
    // Ten tokens in and five out.
    let cheap = json!(15_000);
    for (route, served, cost) in [
        ("default", "cheap", &cheap),
        ("default", "cheap-2024-08-06", &cheap),
        ("default", "vendor/Cheap", &cheap),
        ("default", "", &cheap),
        ("default", "dear-pro", &json!(1_500_000)),
        ("default", "vendor/dear-pro-20260101", &json!(1_500_000)),
        ("default", "stranger", &Value::Null),
        ("default", "cheap-pro", &Value::Null),
        ("alias", "behind-it", &cheap),
        ("alias", "another", &Value::Null),
        ("free", "whatever.gguf", &json!(0)),
    ] {
        stage.enqueue(route, &json!({"prompt": format!("as {served}")})).await;
        let said = stage.drain().await;
        let costs = stage.column("select to_jsonb(cost_nanos) from sluice.attempt order by job_id").await;
        assert_eq!(costs.last().unwrap(), cost, "{route} {served}: {costs:?}");
        let is_other = *cost != cheap && route != "free";
        assert_eq!(said.contains("a different model answered"), is_other, "{route} {served}: {said}");
    }
    assert_eq!(
        stage.column("select to_jsonb(state) from sluice.jobs where state <> 'succeeded'").await,
        [] as [Value; 0]
    );
    let told = stage.program.output(&["explain", "7"]).await;
    assert!(told.contains("\"stranger\" answered in its place") && told.contains("served_as"), "{told}");
}
