//! The Rust example of docs/testing-your-integration.md, word for word.

use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use std::process::Command;

/// The application's own code.
pub async fn classify(db: &PgPool, text: &str) -> sqlx::Result<i64> {
    let request = serde_json::json!({
        "messages": [{ "role": "user", "content": format!("Billing or fault? {text}") }],
        "max_tokens": 200,
    });
    sqlx::query_scalar("select sluice.enqueue($1, batch => 'tickets')").bind(request).fetch_one(db).await
}

/// Call it from a `#[tokio::test]`, with the path of `sluice`, the folder of the two files and the two logins.
pub async fn a_ticket_is_classified(sluice: &str, folder: &str, app: &str, worker: &str) {
    let scenario = std::fs::read_to_string(format!("{folder}/scenario.toml")).unwrap();
    let scenario = Scenario::from_toml(&scenario).unwrap();
    let simulator = Simulator::start(scenario, "127.0.0.1:0".parse().unwrap()).unwrap();
    let db = PgPool::connect(app).await.unwrap();
    let job = classify(&db, "The program crashed.").await.unwrap();
    let worked = Command::new(sluice)
        .args(["--config", &format!("{folder}/sluice.toml"), "worker", "--drain"])
        .env("DATABASE_URL", worker)
        .env("SLUICE__PROVIDERS__OPENAI__BASE_URL", simulator.base_url("openai").unwrap())
        .status()
        .unwrap();
    assert!(worked.success());
    let label: Option<String> = sqlx::query_scalar("select answer_json ->> 'label' from sluice.wait($1)")
        .bind(job)
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(label.as_deref(), Some("fault"));
    assert!(simulator.verdict().clean, "the provider would have complained");
}
