//! Refusals by providers, through the real program and a scripted server: what they mean for the job, and for
//! other jobs.

use crate::support::clock;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::Program;
use crate::support::scripted::{Call, Reply, Scripted, answer};
use crate::support::wait::until;
use sqlx::PgPool;
use std::fmt::Write as _;
use std::time::Duration;

const RETIRED: &str = r#"{"error":{"message":"The model `x` has been decommissioned and is no longer supported.","type":"invalid_request_error","code":"model_decommissioned"}}"#;
const TOO_LONG: &str = r#"{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 136973 tokens."}"#;
const RENAME: &str = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#;
const PAGE: &str = "<html><head><title>400 Bad Request</title></head><body>nginx</body></html>";
const POLICY: &str = r#"{"code":"permission-denied","error":"Content violates usage guidelines. "}"#;
const AFFORDS: &str = r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 30104. To increase, add more credits","code":402}}"#;

/// Two providers of which the first is the cheaper one, and jobs.
struct Stage {
    database: TestDatabase,
    pool: PgPool,
    server: Scripted,
    program: Program,
}

impl Stage {
    /// `script` plays the first provider; the second one always answers. `route` is more of the route's configuration.
    async fn new(rungs: &str, route: &str, script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::asking_again_after("10m", rungs, route, script).await
    }

    async fn asking_again_after(
        recheck: &str,
        rungs: &str,
        route: &str,
        script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let database = database().await;
        let server = Scripted::start(move |call, before| match call.provider.as_str() {
            "first" => script(call, before),
            _ => answer("From the second."),
        })
        .await;
        let mut config = "[http]\nlisten = \"off\"\n[worker]\nmax_in_flight = 4\n".to_owned();
        for (name, price) in [("first", "1"), ("second", "6")] {
            write!(
                config,
                "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
                 recheck = \"{recheck}\"\n\
                 [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n",
                server.base_url(name)
            )
            .unwrap();
        }
        writeln!(config, "[routes.default]\nrungs = {rungs}\n{route}").unwrap();
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), database, server, program }
    }

    async fn enqueue(&self, request: &str, jobs: i32) {
        sqlx::query(
            "insert into sluice.job (request) select replace($1, 'NUMBER', n::text)::jsonb from generate_series(1, \
             $2) n",
        )
        .bind(request)
        .bind(jobs)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Works until nothing is left.
    async fn drain(&self) {
        let output = self.program.run(&["worker", "--drain"]).await;
        assert!(matches!(output.status.code(), Some(0 | 5)), "{output:?}");
        let audit = sluice::store::Store::from_pool(self.database.pool()).audit().await.unwrap();
        assert_eq!(audit.faults(), Vec::<String>::new());
    }

    /// Jobs by state, provider and class.
    async fn results(&self) -> Vec<(String, Option<String>, Option<String>, i64)> {
        sqlx::query_as(
            "select state, provider, error_class, count(*) from sluice.results group by 1, 2, 3 order by 1, 2, 3",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Calls on the ledger by provider and class.
    async fn attempts(&self) -> Vec<(String, String, i64)> {
        sqlx::query_as(
            "select provider, coalesce(class, 'accepted'), count(*) from sluice.attempts group by 1, 2 order by 1, 2",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn error(&self) -> String {
        sqlx::query_scalar("select error from sluice.results where error is not null order by job_id limit 1")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

const BOTH: &str = r#"["first/m", "second/m"]"#;
const ASK: &str = r#"{"prompt": "Question NUMBER"}"#;

fn succeeded(provider: &str, count: i64) -> (String, Option<String>, Option<String>, i64) {
    ("succeeded".to_owned(), Some(provider.to_owned()), None, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_batch_dies_of_words_that_nobody_has_heard_before() {
    for (status, body, class) in [
        (400, RETIRED, "not_found"),
        (400, TOO_LONG, "context_length"),
        (400, PAGE, "refused"),
        (400, r#"{"error":{"message":"Zorb.","type":"invalid_request_error"}}"#, "invalid_request"),
        (418, "", "refused"),
        (409, r#"{"error":{"message":"Zorb."}}"#, "conflict"),
        (403, r#"{"error":{"message":"Zorb."}}"#, "permission"),
        (402, r#"{"error":{"message":"Zorb."}}"#, "quota_exhausted"),
        (401, r#"{"error":{"message":"Zorb."}}"#, "auth"),
    ] {
        // Not even where the route lists what it falls back on, as long as it falls back at all.
        let listed = if matches!(class, "conflict" | "quota_exhausted" | "auth") {
            ""
        } else {
            "fallback_on = [\"rate_limit\", \"server_error\"]"
        };
        let stage = Stage::new(BOTH, listed, move |_, _| (status, body.into())).await;
        stage.enqueue(ASK, 20).await;
        stage.drain().await;
        assert_eq!(stage.results().await, [succeeded("second", 20)], "{status} {body}");
        let attempts = stage.attempts().await;
        assert!(attempts.iter().any(|(provider, told, _)| provider == "first" && told == class), "{attempts:?}");
        if body == RETIRED {
            // Those that were under way when it was found out.
            assert!(stage.server.calls("first").len() <= 4, "{attempts:?}");
        }
    }
}

/// The name of a model is wrong, or the whole address, and a person mends it after a while.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_costs_no_job_however_often_it_is_asked_for() {
    for body in [RETIRED, "", r#"{"error":{"message":"Zorb."}}"#] {
        let stage = Stage::asking_again_after("100ms", r#"["first/m"]"#, "max_attempts = 1", move |_, before| {
            if before < 10 { (404, body.into()) } else { answer("At last.") }
        })
        .await;
        stage.enqueue(ASK, 20).await;
        stage.drain().await;
        assert_eq!(stage.results().await, [succeeded("first", 20)], "{body}");
        // Calls that were under way together find it out together; after that one asks at a time.
        assert_eq!(stage.server.calls("first").len(), 30, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_says_the_providers_own_words() {
    let said = r#"{"error":{"message":"Zorb has no such thing.","type":"invalid_request_error"}}"#;
    let stage = Stage::new(r#"["first/m"]"#, "", move |_, _| (400, said.into())).await;
    stage.enqueue(ASK, 1).await;
    stage.drain().await;
    let error = stage.error().await;
    assert!(error.contains("first/m: invalid_request “Zorb has no such thing"), "{error}");
    assert!(!error.contains("no rung would take"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rungs_that_refuse_alike_end_the_job_before_all_are_asked() {
    let odd = |_: &Call, _: usize| {
        (400, r#"{"error":{"message":"The roles 3 zorb for quux.","type":"invalid_request_error"}}"#.into())
    };
    let stage = Stage::new(r#"["first/m", "first/n", "first/o", "second/m"]"#, "strategy = \"priority\"", odd).await;
    stage.enqueue(ASK, 1).await;
    stage.drain().await;
    assert_eq!((stage.server.calls("first").len(), stage.server.calls("second").len()), (2, 0));
    let error = stage.error().await;
    assert!(
        error
            .starts_with("2 rungs refused this request in the same way, the last: first/n: invalid_request “The roles"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_parameter_is_mended_once_and_remembered() {
    let stage = Stage::new(BOTH, "", |call, _| {
        if call.body.get("max_tokens").is_some() { (400, RENAME.into()) } else { answer("From the first.") }
    })
    .await;
    stage.enqueue(r#"{"prompt": "Question NUMBER", "max_tokens": 77}"#, 40).await;
    stage.drain().await;
    assert_eq!(stage.results().await, [succeeded("first", 40)]);
    let calls = stage.server.calls("first");
    let refused = calls.iter().filter(|call| call.body.get("max_tokens").is_some()).count();
    assert!((1..=4).contains(&refused), "no more than were under way: {refused}");
    assert!(calls.iter().filter(|call| call.body["max_completion_tokens"] == 77).count() == 40, "{calls:?}");
    let job: i64 = sqlx::query_scalar("select min(job_id) from sluice.attempts where class is null")
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    let explained = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(explained.contains("max_tokens as max_completion_tokens"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_a_vendor_refuses_with_a_403_shuts_the_model_for_nobody_else() {
    let script = |call: &Call, _: usize| {
        if call.prompt().contains("harmful") { (403, POLICY.into()) } else { answer("From the first.") }
    };
    let stage = Stage::new(BOTH, "", script).await;
    stage.enqueue(r#"{"prompt": "A harmful question NUMBER"}"#, 3).await;
    stage.enqueue(ASK, 5).await;
    stage.drain().await;
    let failed = ("failed".to_owned(), Some("first".to_owned()), Some("content_policy".to_owned()), 3);
    assert_eq!(stage.results().await, [failed, succeeded("first", 5)]);
    assert_eq!(stage.server.calls("first").len(), 8, "each was asked once");
    assert!(stage.error().await.contains("“Content violates usage guidelines.”"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_cannot_afford_at_once_is_asked_for_with_a_smaller_cap() {
    let script = |call: &Call, _: usize| match call.body["max_tokens"].as_u64() {
        Some(cap) if cap <= 30_104 => answer("From the first."),
        _ => (402, AFFORDS.into()),
    };
    let stage = Stage::new(BOTH, "", script).await;
    stage.enqueue(ASK, 1).await;
    stage.enqueue(r#"{"prompt": "A long answer NUMBER", "max_tokens": 65536}"#, 1).await;
    stage.enqueue(r#"{"prompt": "Short NUMBER", "max_tokens": 100}"#, 6).await;
    stage.drain().await;
    assert_eq!(stage.results().await, [succeeded("first", 8)]);
    assert_eq!(stage.server.calls("first").len(), 10, "two were asked for twice");
    assert_eq!(stage.attempts().await[1], ("first".to_owned(), "never_fits".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_only_the_body_tells_of_is_kept_to_the_millisecond() {
    let resets = std::sync::Arc::new(std::sync::OnceLock::new());
    let told = std::sync::Arc::clone(&resets);
    let stage = Stage::new(r#"["first/m"]"#, "", move |_, before| {
        if before > 0 {
            return answer("From the first.");
        }
        let now = clock::wall();
        let since_epoch = |at: std::time::SystemTime| at.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        told.set(clock::instant() + Duration::from_millis(2_500)).unwrap();
        let reset = since_epoch(now + Duration::from_millis(2_500));
        let headers = format!(r#"{{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}"}}"#);
        let error = format!(r#"{{"message":"Rate limit exceeded: free-models-per-min. ","code":429,"metadata":{{"headers":{headers}}}}}"#);
        (429, format!(r#"{{"error":{error}}}"#).into_bytes())
    })
    .await;
    stage.enqueue(ASK, 1).await;
    stage.drain().await;
    let calls = stage.server.calls("first");
    assert_eq!(calls.len(), 2);
    // The answer's own date has whole seconds.
    assert!(calls[1].at + Duration::from_secs(1) >= *resets.get().unwrap(), "it was asked again too early");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_a_conversation_is_believed_where_the_conversation_shows_it() {
    const UNPAIRED: &str = r#"{"error":{"message":"Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.","type":"invalid_request_error"}}"#;
    let stage = Stage::new(BOTH, "", |_, _| (400, UNPAIRED.into())).await;
    stage.enqueue(ASK, 1).await;
    let orphan = r#"{"messages": [{"role": "user", "content": "Question NUMBER"}, {"role": "tool", "tool_call_id": "a", "content": "1"}]}"#;
    stage.enqueue(orphan, 1).await;
    stage.drain().await;
    let failed = ("failed".to_owned(), Some("first".to_owned()), Some("invalid_request".to_owned()), 1);
    assert_eq!(stage.results().await, [failed, succeeded("second", 1)]);
    assert_eq!(stage.server.calls("second").len(), 1);
    assert!(stage.error().await.ends_with("; no rung would take this request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_for_money_again_and_again_ends_while_the_key_is_good_for_others() {
    let script = |call: &Call, _: usize| {
        if call.prompt().contains("dear") {
            (402, r#"{"detail":"Payment required for this prompt"}"#.into())
        } else {
            answer("From the first.")
        }
    };
    let stage = Stage::new(r#"["first/m"]"#, "", script).await;
    stage.enqueue(r#"{"prompt": "A dear question NUMBER"}"#, 1).await;
    stage.enqueue(ASK, 3).await;
    // Others are answered between its tries.
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    let tries = "select count(*) from sluice.attempt where class = 'quota_exhausted'";
    for times in 1..=3_i64 {
        until("it was refused once more", async || {
            sqlx::query_scalar::<_, i64>(tries).fetch_one(&stage.pool).await.unwrap() >= times
        })
        .await;
        stage.enqueue(ASK, 1).await;
    }
    let ended = "select count(*) from sluice.result where state = 'failed'";
    until("it has ended", async || sqlx::query_scalar::<_, i64>(ended).fetch_one(&stage.pool).await.unwrap() == 1)
        .await;
    drop(worker);
    assert!(stage.error().await.contains("quota_exhausted “Payment required for this prompt”"));
    let dear = stage.server.calls("first").iter().filter(|call| call.prompt().contains("dear")).count();
    assert_eq!(dear, 3);
}
