//! A larger output cap: an answer that the cap cut off is asked for once more, at the same rung, with more room.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::Program;
use crate::support::queue::enqueue_request;
use crate::support::scripted::{Call, Reply, Scripted, answer, cut};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::simulate::{Dialect, Scenario, Simulator};
use std::fmt::Write as _;

/// The cap of a call; 0: it has none.
fn cap(call: &Call) -> i64 {
    call.body["max_tokens"].as_i64().unwrap_or_default()
}

struct Stage {
    database: TestDatabase,
    program: Program,
    provider: Scripted,
}

async fn stage(script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static) -> Stage {
    let provider = Scripted::start(script).await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n\
         [providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 20 }}\n\
         [models.\"p/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [models.\"p/other\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [models.\"p/small\"]\nprice = {{ input = \"1\", output = \"1\" }}\nmax_output_tokens = 300\n\
         [models.\"p/narrow\"]\nprice = {{ input = \"1\", output = \"1\" }}\ncontext_window = 700\n\
         [budgets.poor]\nproject = \"poor\"\nlimit = \"0.000700\"\n\
         [budgets.tight]\nproject = \"tight\"\nlimit = \"0.001200\"\n\
         [routes.default]\nrungs = [\"p/m\", \"p/other\"]\nstrategy = \"priority\"\n\
         [routes.all]\nrungs = [\"p/m\", \"p/other\"]\nstrategy = \"priority\"\n\
         validate = {{ raise_cap = \"always\" }}\n\
         [routes.never]\nrungs = [\"p/m\", \"p/other\"]\nstrategy = \"priority\"\n\
         validate = {{ raise_cap = \"never\" }}\n\
         [routes.once]\nrungs = [\"p/m\"]\nmax_attempts = 1\n\
         [routes.small]\nrungs = [\"p/small\", \"p/other\"]\nstrategy = \"priority\"\n\
         [routes.narrow]\nrungs = [\"p/narrow\", \"p/other\"]\nstrategy = \"priority\"\n",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    program.output(&["migrate"]).await;
    Stage { database, program, provider }
}

impl Stage {
    /// The model and the cap of each call of a job of this route, and how the job ended.
    async fn calls_of(&self, route: &str, request: &Value) -> (Vec<(String, i64)>, String) {
        let pool = self.database.pool();
        let before = self.provider.calls("p").len();
        enqueue_request(&pool, route, request).await;
        self.program.output(&["worker", "--drain"]).await;
        let calls = self.provider.calls("p").split_off(before);
        let seen = calls.iter().map(|call| (call.body["model"].as_str().unwrap().to_owned(), cap(call))).collect();
        let query = "select state::text from sluice.results order by job_id desc limit 1";
        (seen, sqlx::query_scalar(query).fetch_one(&pool).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_raised_once_as_far_as_model_window_route_job_and_attempts_allow() {
    let stage = stage(|call, _| match call.prompt() {
        // It reasons for some 500 tokens, and for ever.
        "think" | "odd" if cap(call) < 500 => cut("", cap(call)),
        "brood" => cut("", cap(call)),
        // The vendor's own cap cuts it.
        "plain" if cap(call) == 0 => cut("", 256),
        "long" if cap(call) < 500 => cut("Half an ans", cap(call)),
        "odd" if call.body["model"] == "m" => answer("no JSON"),
        _ => answer("{\"whole\": true}"),
    })
    .await;
    let asked = |prompt: &str| json!({ "prompt": prompt, "max_tokens": 256 });
    let own =
        |word: &str, prompt: &str| json!({ "prompt": prompt, "max_tokens": 256, "validate": { "raise_cap": word } });
    let json_asked = json!({ "prompt": "odd", "max_tokens": 256, "response_format": { "type": "json_object" } });
    for (route, request, expected, state) in [
        ("default", asked("think"), vec![("m", 256), ("m", 1_024)], "succeeded"),
        ("default", asked("brood"), vec![("m", 256), ("m", 1_024), ("other", 256), ("other", 1_024)], "failed"),
        ("default", json!({ "prompt": "plain" }), vec![("m", 0), ("m", 1_024)], "succeeded"),
        // What was said in part is as long as its author wanted, unless someone says otherwise.
        ("default", asked("long"), vec![("m", 256), ("other", 256)], "failed"),
        ("all", asked("long"), vec![("m", 256), ("m", 1_024)], "succeeded"),
        ("default", own("always", "long"), vec![("m", 256), ("m", 1_024)], "succeeded"),
        ("never", asked("think"), vec![("m", 256), ("other", 256)], "failed"),
        ("never", own("reasoning", "think"), vec![("m", 256), ("m", 1_024)], "succeeded"),
        ("default", own("never", "think"), vec![("m", 256), ("other", 256)], "failed"),
        ("once", asked("think"), vec![("m", 256)], "failed"),
        // The model's own bound leaves too little.
        ("small", asked("think"), vec![("small", 256), ("other", 256), ("other", 1_024)], "succeeded"),
        ("narrow", asked("think"), vec![("narrow", 256), ("narrow", 691)], "succeeded"),
        // With more room it breaks the form: its fault is named, and the room is kept.
        ("default", json_asked, vec![("m", 256), ("m", 1_024), ("m", 1_024)], "succeeded"),
    ] {
        let (calls, ended) = stage.calls_of(route, &request).await;
        let calls: Vec<(&str, i64)> = calls.iter().map(|(model, cap)| (model.as_str(), *cap)).collect();
        assert_eq!((calls, ended.as_str()), (expected, state), "{route} {request}");
    }
    let story = stage.program.output(&["explain", "1"]).await;
    assert!(story.contains("max_tokens raised from 256 to 1024 after reasoning_exhausted (#1)"), "{story}");
    // A budget that the larger call never fits, and one that has no room left for it: either way nothing is waited for,
    // and the job goes on to the next rung as if nothing could be done about the answer.
    let pool = stage.database.pool();
    for project in ["poor", "tight"] {
        sqlx::query("insert into sluice.job (project, request) values ($1, $2)")
            .bind(project)
            .bind(asked("think"))
            .execute(&pool)
            .await
            .unwrap();
        stage.program.output(&["worker", "--drain"]).await;
        let models: Vec<String> =
            sqlx::query_scalar("select model from sluice.attempts where project = $1 order by number")
                .bind(project)
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(models, ["m", "other"], "{project}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_asks_with_the_larger_cap_too() {
    let stage = stage(|call, before| match (cap(call), before) {
        (..500, _) => cut("", cap(call)),
        (_, 1) => (429, br#"{"error":{"message":"slow down, try again in 4s"}}"#.to_vec()),
        _ => answer("Yes."),
    })
    .await;
    let pool = stage.database.pool();
    enqueue_request(&pool, "default", &json!({ "prompt": "x", "max_tokens": 256 })).await;
    let mut worker = stage.program.command(&["worker"]).spawn().unwrap();
    until("the job is parked", async || {
        let parked: i64 = sqlx::query_scalar("select count(*) from sluice.parked").fetch_one(&pool).await.unwrap();
        parked == 1
    })
    .await;
    worker.kill().await.unwrap();
    stage.program.output(&["worker", "--drain"]).await;
    let caps: Vec<i64> = stage.provider.calls("p").iter().map(cap).collect();
    assert_eq!(caps, [256, 1_024, 1_024]);
    let raised: Vec<Option<Value>> =
        sqlx::query_scalar("select decision -> 'raised_cap' from sluice.attempts order by number")
            .fetch_all(&pool)
            .await
            .unwrap();
    let told = json!({ "of": 1, "from": 256, "to": 1_024, "after": "reasoning_exhausted" });
    assert_eq!(raised, [None, Some(told.clone()), Some(told)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_spells_the_larger_cap_its_own_way() {
    let database = database().await;
    let (mut scenario, mut config) = ("markers = true\n".to_owned(), "[http]\nlisten = \"off\"\n".to_owned());
    for dialect in Dialect::ALL {
        let name = dialect.name();
        write!(scenario, "[providers.{name}]\ndialect = \"{name}\"\nkeys = [\"key\"]\n").unwrap();
    }
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    for dialect in Dialect::ALL {
        let (name, url) = (dialect.name(), simulator.base_url(dialect.name()).unwrap());
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
    for dialect in Dialect::ALL {
        let prompt = format!("{} [[fault:reasoning:tokens=900]]", dialect.name());
        enqueue_request(&pool, dialect.name(), &json!({ "prompt": prompt, "max_tokens": 256 })).await;
    }
    program.output(&["worker", "--drain"]).await;
    for dialect in Dialect::ALL {
        let query = "select array_agg(detail order by number), array_agg(output_tokens order by number)
                       from sluice.attempts where route = $1";
        let (details, tokens): (Vec<Option<String>>, Vec<i64>) =
            sqlx::query_as(query).bind(dialect.name()).fetch_one(&pool).await.unwrap();
        assert_eq!(details, [Some("reasoning_exhausted".to_owned()), None], "{}", dialect.name());
        assert_eq!(tokens[0], 256, "{}", dialect.name());
    }
    for (name, provider) in &simulator.verdict().providers {
        assert_eq!(provider.figures.malformed_requests, 0, "{name}");
    }
}
