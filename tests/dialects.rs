//! Every dialect with the real program: conversations, forms, waits and failures of jobs, against the simulator, which
//! was written from the other side. The ledger and the simulator agree on each.

use crate::support::postgres::database;
use crate::support::program::{Program, text};
use serde_json::{Value, json};
use sluice::simulate::{Dialect, Scenario, Simulator};
use sqlx::Row as _;
use std::fmt::Write as _;

/// Dialects that take one question, and neither a conversation nor a form.
const PLAIN: &[&str] = &["completions"];

/// Jobs for each dialect: custom id, request, and the class with which the job has to fail, if any.
fn jobs(dialect: &str) -> Vec<(String, Value, Option<&'static str>)> {
    let mut jobs = Vec::new();
    let mut add = |name: &str, request: Value, ending| jobs.push((format!("{dialect}-{name}"), request, ending));
    for n in 0..10 {
        add(&format!("plain-{n}"), json!({"prompt": format!("{dialect}: question {n}"), "max_tokens": 300}), None);
    }
    let conversation = json!({"messages": [
        {"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": format!("{dialect}: one")},
        {"role": "assistant", "content": "two"}, {"role": "user", "content": "three, in JSON"}],
        "max_tokens": 300, "temperature": 0.5, "response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": {"type": "object", "additionalProperties": false, "required": ["answer"],
                "properties": {"answer": {"type": "string"}}}}}});
    add("conversation", conversation, PLAIN.contains(&dialect).then_some("invalid_request"));
    // A wait, a failure of the server, a page, an answer that breaks off: then a good one.
    for (name, script) in [
        ("waits", "429:wait=0.2,ok"),
        ("fails", "500,ok"),
        ("page", "html,ok"),
        ("cut", "cut,ok"),
        ("garbled", "malformed_json,ok"),
        ("busy", "overloaded,ok"),
        ("error_inside", "error_in_200,ok"),
    ] {
        add(name, json!({"prompt": format!("{dialect} {name} [[faults:{script}]]"), "max_tokens": 300}), None);
    }
    for (name, fault, class) in [
        ("long", "context_length", "context_length"),
        ("policy", "content_policy", "content_policy"),
        ("bytes", "413", "payload_too_large"),
    ] {
        add(name, json!({"prompt": format!("{dialect} {name} [[fault:{fault}]]")}), Some(class));
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dialect_carries_jobs_to_their_ends_and_the_ledger_agrees_with_the_provider() {
    let database = database().await;
    let pool = database.pool();
    let (mut scenario, mut config) = (
        "record_calls = 100000\nmarkers = true\nverdict = { in_flight_grace = 0.5 }\n".to_owned(),
        "[http]\nlisten = \"off\"\n[worker]\nmax_in_flight = 50\n".to_owned(),
    );
    for dialect in Dialect::ALL {
        let name = dialect.name();
        write!(
            scenario,
            "[providers.{name}]\ndialect = \"{name}\"\nkeys = [\"right-key-of-{name}\"]\n\
             models.\"org/model:1\".price = {{ input = \"1\", output = \"4\" }}\n"
        )
        .unwrap();
    }
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        write!(
            config,
            "[providers.p_{name}]\ndialect = \"{name}\"\nbase_url = \"{}\"\napi_key_file = \"{name}.key\"\n\
             [models.\"p_{name}/org/model:1\"]\nprice = {{ input = \"1\", output = \"4\" }}\n\
             [routes.{name}]\nrungs = [\"p_{name}/org/model:1\"]\n",
            simulator.base_url(name).unwrap()
        )
        .unwrap();
    }
    let program = Program::new(&config, &database.url());
    for dialect in Dialect::ALL {
        let file = program.file(&format!("{}.key", dialect.name()), format!("right-key-of-{}", dialect.name()));
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for (custom_id, request, _) in jobs(dialect.name()) {
            sqlx::query("insert into sluice.job (route, custom_id, request) values ($1, $2, $3)")
                .bind(dialect.name())
                .bind(custom_id)
                .bind(request)
                .execute(&pool)
                .await
                .unwrap();
        }
    }
    let worker = program.run(&["worker", "--drain"]).await;
    assert!(worker.status.success(), "{}", text(&worker.stderr));

    let mut wrong = Vec::new();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        for (custom_id, _, ending) in jobs(name) {
            let query = "select state::text, error_class::text, error from sluice.results where custom_id = $1";
            let row = sqlx::query(query).bind(&custom_id).fetch_one(&pool).await.unwrap();
            let (state, class): (String, Option<String>) = (row.get(0), row.get(1));
            let error: Option<String> = row.get(2);
            let expected = if ending.is_some() { "failed" } else { "succeeded" };
            if (state.as_str(), class.as_deref()) != (expected, ending) {
                wrong.push(format!("{custom_id}: {state} {class:?} {error:?}, expected {expected} {ending:?}"));
            }
        }
        let figures = &simulator.verdict().providers[name].figures.clone();
        let query = "select (select count(*) from sluice.attempt where provider = $1),
                            (select coalesce(sum(cost_nanos), 0)::bigint from sluice.attempt where provider = $1),
                            (select coalesce(sum(uncertain_nanos), 0)::bigint from sluice.attempt where provider = $1),
                            (select count(*) from sluice.attempts where provider = $1 and class = 'rate_limit')";
        let row = sqlx::query(query).bind(format!("p_{name}")).fetch_one(&pool).await.unwrap();
        let (attempts, cost, uncertain, limited): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if attempts != i64::try_from(figures.calls).unwrap() || limited != 1 {
            wrong.push(format!("{name}: {attempts} attempts, {} calls, {limited} limited", figures.calls));
        }
        // The charge for an answer that cannot be read is uncertain.
        let charged = i64::try_from(figures.charged_nano_usd).unwrap();
        if !(cost..=cost + uncertain).contains(&charged) || cost == 0 {
            wrong.push(format!("{name}: {cost} and {uncertain} uncertain on the ledger, {charged} charged"));
        }
        if (figures.malformed_requests, figures.early_retries, figures.retried_non_retryables) != (0, 0, 0) {
            wrong.push(format!("{name}: {figures:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
