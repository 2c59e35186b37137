//! Waits that no provider can mean: the worker asks again, and an operator ends them.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::scripted::{Reply, Scripted, answer};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::Child;

/// Twenty-eight years.
fn go_away(status: u16) -> Reply {
    let kind = if status == 429 { "rate_limit_exceeded" } else { "overloaded" };
    (
        status,
        json!({"error": {"message": "go away", "type": kind, "retry_after": 883_000_000}}).to_string().into_bytes(),
    )
}

async fn stage(provider: &Scripted, recheck: &str) -> (TestDatabase, Program) {
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\nrecheck = \"{recheck}\"\n\
         [models.\"p/m\"]\nprice = {{ input = \"1\", output = \"1\" }}\n\
         [routes.default]\nrungs = [\"p/m\"]\n",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    (database, program)
}

async fn enqueue(database: &TestDatabase, jobs: i64) {
    sqlx::query("insert into sluice.job (request) select '{\"prompt\": \"Hi\"}' from generate_series(1, $1)")
        .bind(jobs)
        .execute(&database.pool())
        .await
        .unwrap();
}

async fn until_succeeded(database: &TestDatabase, jobs: i64) {
    let pool = database.pool();
    until("the jobs succeed", async || {
        let count = "select count(*) from sluice.jobs where state = 'succeeded'";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap() == jobs
    })
    .await;
}

async fn stop(mut worker: Child) {
    kill_process(Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert!(worker.wait().await.unwrap().success());
}

/// Both as a limit and as an overload: a second later it is asked again, by one call, and after that by all.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_years_is_asked_about_again_and_then_it_is_over() {
    for status in [429, 503] {
        let provider =
            Scripted::start(move |_, before| if before < 2 { go_away(status) } else { answer("Yes.") }).await;
        let (database, program) = stage(&provider, "1s").await;
        program.output(&["migrate"]).await;
        enqueue(&database, 1).await;
        let worker = program.command(&["worker"]).spawn().unwrap();
        until("it was refused", async || provider.calls("p").len() == 1).await;
        enqueue(&database, 20).await;
        until_succeeded(&database, 21).await;
        let calls = provider.calls("p");
        assert_eq!(calls.len(), 23, "{status}: one call asked again while it was refused");
        stop(worker).await;
    }
}

/// Both as a limit and as an overload.
#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_what_the_provider_asked_for_and_when_it_is_asked_again() {
    for status in [429, 503] {
        let provider = Scripted::start(move |_, _| go_away(status)).await;
        let (database, program) = stage(&provider, "1h").await;
        program.output(&["migrate"]).await;
        enqueue(&database, 1).await;
        let worker = program.command(&["worker"]).spawn().unwrap();
        let pool = database.pool();
        let parked = "select count(*) from sluice.parked p join sluice.attempts a using (job_id)";
        until("it was refused", async || sqlx::query_scalar::<_, i64>(parked).fetch_one(&pool).await.unwrap() == 1)
            .await;
        let told = "select job_id, extract(epoch from retry_at - ended_at)::float8 as asked,
                           extract(epoch from (decision ->> 'asks_again_at')::timestamptz - ended_at)::float8 as again
                      from sluice.attempts";
        let (job, asked, again): (i64, f64, f64) = sqlx::query_as(told).fetch_one(&pool).await.unwrap();
        assert_eq!((asked.round(), again.round()), (883_000_000.0, 3_600.0), "{status}");
        let story = program.output(&["explain", &job.to_string()]).await;
        let line = story.lines().find(|line| line.contains("it asked to be left alone until ")).expect(&story);
        assert!(line.contains("; one call asks again at ") && line.contains("more than a day away"), "{story}");
        until("status says when it is asked again", async || {
            let status = program.output(&["status", "--format", "json"]).await;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            let gate = &status["workers"][0]["stats"]["gate"];
            ["targets", "buckets"].iter().any(|of| gate[of][0]["shut"]["until_ms"].is_i64())
        })
        .await;
        stop(worker).await;
    }
}

/// Money that comes back in years at one of two keys says nothing of the target.
#[tokio::test(flavor = "multi_thread")]
async fn a_far_date_for_the_money_of_one_key_is_no_warning_about_the_target() {
    let broke = json!({"error": {
        "message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota",
        "retry_after": 883_000_000,
    }});
    let provider = Scripted::start(
        move |_, before| {
            if before == 0 { (429, broke.to_string().into_bytes()) } else { answer("Yes.") }
        },
    )
    .await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         keys = [{{ api_key_file = \"one.key\" }}, {{ api_key_file = \"other.key\" }}]\n\
         [routes.default]\nrungs = [\"p/m\"]\n",
        provider.base_url("p")
    );
    let program = Program::new(&config, &database.url());
    program.file("one.key", "the-first-key\n");
    program.file("other.key", "the-other-key\n");
    program.output(&["migrate"]).await;
    enqueue(&database, 4).await;
    let worker = program.run(&["worker", "--drain"]).await;
    let log = text(&worker.stderr);
    assert!(worker.status.success(), "{log}");
    assert_eq!(provider.calls("p").len(), 5);
    assert_eq!(log.matches("one call tries the key again after the recheck").count(), 1, "{log}");
    assert!(!log.contains("more than a day"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_opened_by_hand_for_every_worker() {
    let provider = Scripted::start(|_, before| if before == 0 { go_away(429) } else { answer("Yes.") }).await;
    let (database, program) = stage(&provider, "1h").await;
    program.output(&["migrate"]).await;
    enqueue(&database, 1).await;
    let workers = [program.command(&["worker"]).spawn().unwrap(), program.command(&["worker"]).spawn().unwrap()];
    until("it is shut for all", async || {
        let status = program.output(&["status", "--format", "json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["buckets"].as_array().unwrap().iter().any(|bucket| bucket["asked_until"].is_string())
    })
    .await;
    enqueue(&database, 5).await;
    let told = program.output(&["provider", "reopen", "p"]).await;
    assert!(told.contains("is open again"), "{told}");
    until_succeeded(&database, 6).await;
    let unknown = program.run(&["provider", "reopen", "q"]).await;
    assert!(!unknown.status.success());
    for worker in workers {
        stop(worker).await;
    }
}
