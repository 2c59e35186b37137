//! Traces, with the real program against the simulator and a collector of the test: what comes there, and that nothing
//! a collector does holds up a job.

use crate::support::exposition::Exposition;
use crate::support::fleet::Fleet;
use crate::support::inbox::{Reply, ok, status};
use crate::support::otlp::{Collector, Told};
use crate::support::postgres::database;
use crate::support::program::{Program, text};
use crate::support::site::Site;
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::simulate::{Scenario, Simulator};
use sqlx::{PgPool, Row as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PROMPT: &str = "quetzalprompt";
const ANSWER: &str = "quetzalanswer";
const KEY: &str = "zq-provider-5Tv9Wm2xLp0";
const TOKEN: &str = "zq-collector-8Hd3Kf6Qa1";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const ACCEPT: &str = "accept: application/openmetrics-text;version=1.0.0\r\n";

const SCENARIO: &str = "markers = true\n[providers.one]\ndialect = \"openai\"\noutput = { text = \"quetzalanswer\" }\n\
                        [providers.two]\ndialect = \"anthropic\"\noutput = { text = \"quetzalanswer\" }\n";

async fn add(pool: &PgPool, custom_id: &str, route: &str, prompt: &str, metadata: Value) {
    let insert = "insert into sluice.job (custom_id, route, project, batch, request, metadata)
                  values ($1, $2, 'p', 'b', $3, $4)";
    sqlx::query(insert)
        .bind(custom_id)
        .bind(route)
        .bind(json!({ "prompt": format!("{prompt} {PROMPT}"), "max_tokens": 77 }))
        .bind(metadata)
        .execute(pool)
        .await
        .unwrap();
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|part| part == secret.as_bytes())
}

/// The spans of the job with this custom id, the job's own first.
async fn of_job(pool: &PgPool, spans: &[Told], custom_id: &str) -> Vec<Told> {
    let job: i64 = sqlx::query_scalar("select id from sluice.job where custom_id = $1")
        .bind(custom_id)
        .fetch_one(pool)
        .await
        .unwrap();
    let roots: Vec<&Told> = spans.iter().filter(|span| span.attribute("sluice.job") == job.to_string()).collect();
    let ids: BTreeSet<&str> = roots.iter().map(|root| root.id.as_str()).collect();
    let mut calls: Vec<&Told> = spans.iter().filter(|span| ids.contains(span.parent.as_str())).collect();
    calls.sort_by_key(|span| span.attribute("sluice.attempt").parse::<i64>().unwrap());
    roots.into_iter().chain(calls).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_one_trace_with_a_span_for_each_call_and_no_word_of_what_was_said() {
    let collector = Collector::start(|_| ok()).await;
    let config = format!(
        "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\napi_key_env = \"ONE_KEY\"\n\
         [providers.two]\ndialect = \"anthropic\"\nbase_url = \"http://simulator/two/v1\"\napi_key_env = \"ONE_KEY\"\n\
         [models.\"one/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n\
         [models.\"two/n\"]\nprice = {{ input = \"2\", output = \"8\" }}\n\
         [routes.default]\nstrategy = \"priority\"\nrungs = [\"one/m\", \"two/n\"]\npatience = \"0s\"\n\
         [routes.again]\nrungs = [\"one/m\"]\ncache = \"1h\"\nstream = true\n\
         [traces]\nendpoint = \"{}\"\nheaders_env = \"COLLECTOR\"\nservice = \"acme\"\n",
        collector.url()
    );
    let fleet = Fleet::new(SCENARIO, &config).await;
    add(&fleet.pool, "fallback", "default", "[[faults@one:500,empty,ok]]", json!({})).await;
    add(&fleet.pool, "caller", "default", "plain", json!({ "traceparent": CALLER, "secret": KEY })).await;
    add(&fleet.pool, "unsampled", "default", "other", json!({ "traceparent": CALLER.replace("-01", "-00") })).await;
    add(&fleet.pool, "misled", "again", "same", json!({ "traceparent": format!("{CALLER}0") })).await;
    sqlx::query("insert into sluice.job (custom_id, request) values ('unfit', '{\"messages\": 7}')")
        .execute(&fleet.pool)
        .await
        .unwrap();
    let drain = async || {
        let mut command = fleet.program(&["worker", "--drain"]);
        command.env("ONE_KEY", KEY).env("COLLECTOR", format!("Authorization: Bearer {TOKEN}\nx-team: core"));
        command.env("SLUICE__LOG__FILTER", "trace");
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains(TOKEN) && !text(&output.stderr).contains(KEY));
    };
    drain().await;
    // Another worker, later: a job that is asked for anew, and one that has the answer of another.
    sqlx::query("select sluice.retry(id) from sluice.job where custom_id = 'unfit'")
        .execute(&fleet.pool)
        .await
        .unwrap();
    add(&fleet.pool, "cached", "again", "same", json!({})).await;
    drain().await;

    let spans = collector.spans();
    let [root, first, rejected, second] = &of_job(&fleet.pool, &spans, "fallback").await[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!((root.name.as_str(), root.kind, root.status, root.parent.as_str()), ("job default", 5, 0, ""));
    assert_eq!((first.name.as_str(), first.kind, first.status), ("chat m", 3, 2));
    assert_eq!((second.name.as_str(), second.kind, second.status), ("chat n", 3, 0));
    assert_eq!((rejected.name.as_str(), rejected.status), ("chat m", 2));
    assert_eq!(rejected.attribute("sluice.soft_failure"), "empty");
    let traces: BTreeSet<&str> = [root, first, rejected, second].map(|span| span.trace.as_str()).into();
    assert_eq!(traces.len(), 1);
    assert!(root.started_ms <= first.started_ms && first.ended_ms <= rejected.started_ms);
    assert!(second.ended_ms <= root.ended_ms);
    for (span, system, provider, class, verdict) in [
        (first, "one", "one", "server_error", "failed"),
        (rejected, "one", "one", "soft_failure", "rejected"),
        (second, "anthropic", "two", "", "accepted"),
    ] {
        assert_eq!(span.attribute("gen_ai.provider.name"), system);
        assert_eq!(span.attribute("gen_ai.operation.name"), "chat");
        assert_eq!(span.attribute("gen_ai.request.max_tokens"), "77");
        assert_eq!(span.attribute("server.address"), "127.0.0.1");
        assert_eq!((span.attribute("sluice.provider"), span.attribute("sluice.verdict")), (provider, verdict));
        assert_eq!((span.attribute("error.type"), span.attribute("sluice.batch")), (class, "b"));
        assert_eq!(span.resource["service.name"], "acme");
    }
    // Numbers are those of the ledger.
    let row = sqlx::query(
        "select a.input_tokens, a.output_tokens, a.cost_nanos::float8 / 1e9 as cost
           from sluice.attempt a join sluice.job j on j.id = a.job_id where j.custom_id = 'fallback' and a.number = 3",
    )
    .fetch_one(&fleet.pool)
    .await
    .unwrap();
    let (input, output): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(second.attribute("gen_ai.usage.input_tokens"), input.to_string());
    assert_eq!(second.attribute("gen_ai.usage.output_tokens"), output.to_string());
    assert_eq!(second.attribute("sluice.cost_dollars"), row.get::<f64, _>("cost").to_string());
    assert_eq!(second.attribute("gen_ai.response.finish_reasons"), "stop");

    let [root, call] = &of_job(&fleet.pool, &spans, "caller").await[..] else { panic!("{spans:#?}") };
    assert_eq!((root.trace.as_str(), root.parent.as_str()), (&CALLER[3..35], &CALLER[36..52]));
    assert_eq!(call.trace, root.trace);
    assert!(of_job(&fleet.pool, &spans, "unsampled").await.is_empty(), "its caller does not record it");
    let [misled, streamed] = &of_job(&fleet.pool, &spans, "misled").await[..] else { panic!("{spans:#?}") };
    assert_eq!((misled.attribute("sluice.invalid_traceparent"), misled.parent.as_str()), ("true", ""));
    assert_eq!(streamed.attribute("gen_ai.request.stream"), "true");
    let [cached] = &of_job(&fleet.pool, &spans, "cached").await[..] else { panic!("{spans:#?}") };
    assert_eq!((cached.attribute("sluice.from_cache"), cached.attribute("sluice.cost_dollars")), ("true", "0"));
    let [unfit, anew] = &of_job(&fleet.pool, &spans, "unfit").await[..] else { panic!("{spans:#?}") };
    assert_eq!((unfit.attribute("error.type"), unfit.status), ("invalid_request", 2));
    assert_eq!((&unfit.trace, anew.attribute("sluice.round")), (&anew.trace, "1"), "by two workers, in one trace");
    assert_ne!(unfit.id, anew.id);

    let exports = collector.exports();
    for export in &exports {
        assert!(export.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", export.head);
        let head = export.head.to_lowercase();
        assert!(head.contains("content-type: application/x-protobuf") && head.contains("x-team: core"), "{head}");
        assert!(export.head.contains(&format!("authorization: Bearer {TOKEN}")), "{head}");
        for secret in [PROMPT, ANSWER, KEY, TOKEN, "ONE_KEY"] {
            assert!(!contains(&export.body, secret), "{secret}: {spans:#?}");
        }
    }
    assert!(fleet.number("select count(*) from sluice.results where response::text like '%quetzalanswer%'").await >= 3);
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "no span comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_refuses_or_hangs_holds_up_nothing() {
    // 0: away, 1: takes spans, 2: refuses, 3: hangs.
    let mood = Arc::new(AtomicUsize::new(0));
    let of_collector = Arc::clone(&mood);
    let collector = Collector::start(move |_| match of_collector.load(Ordering::SeqCst) {
        0 => status(503),
        1 => ok(),
        2 => Reply::Say(400, String::new(), format!("no token {TOKEN}")),
        _ => Reply::Hang,
    })
    .await;
    let database = database().await;
    let simulator = Simulator::start(Scenario::from_toml(SCENARIO).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let program = Program::new(
        &format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n\
             [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"one/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n[routes.default]\nrungs = [\"one/m\"]\n\
             [traces]\nendpoint = \"{}\"\nheaders_env = \"COLLECTOR\"\ntimeout = \"1m\"\n",
            simulator.base_url("one").unwrap(),
            collector.url()
        ),
        &database.url(),
    );
    let pool = database.pool();
    let site = Site::start(&program, &[("COLLECTOR", &format!("x-token: {TOKEN}"))]).await;
    let mut jobs = 0;
    let mut work = async |site: &Site| {
        for _ in 0..10 {
            jobs += 1;
            add(&pool, &jobs.to_string(), "default", &jobs.to_string(), json!({})).await;
        }
        let done = "select count(*) from sluice.result where state = 'succeeded'";
        until("the jobs are answered", async || {
            sqlx::query_scalar::<_, i64>(done).fetch_one(&pool).await.unwrap() == jobs
        })
        .await;
        assert!(site.get("/readyz").await.status == 200, "{}", site.said());
    };
    let counts = async |site: &Site| {
        let page = Exposition::parse(&site.ask("GET", "/metrics", ACCEPT, "").await.body);
        (page.value("sluice_spans_sent_total", &[]), page.value("sluice_spans_dropped_total", &[]))
    };
    work(&site).await;
    until("it tried, and tries again", async || collector.exports().len() >= 2).await;
    assert_eq!(counts(&site).await, (Some(0.0), Some(0.0)), "nothing is lost yet");
    mood.store(1, Ordering::SeqCst);
    until("what waited is sent", async || counts(&site).await == (Some(20.0), Some(0.0))).await;
    mood.store(2, Ordering::SeqCst);
    work(&site).await;
    until("what is refused is counted", async || counts(&site).await == (Some(20.0), Some(20.0))).await;
    let before = collector.exports().len();
    mood.store(3, Ordering::SeqCst);
    work(&site).await;
    until("it hangs", async || collector.exports().len() > before).await;
    let said = site.stop().await;
    for (words, times) in [
        ("the collector of traces does not take spans; jobs go on without it", 2),
        ("HTTP 503: no", 1),
        ("the collector of traces takes spans again", 1),
        ("HTTP 400: no token [REDACTED]", 1),
        ("the collector of traces has not taken the last spans; they are dropped", 1),
        ("worker is done", 1),
        (TOKEN, 0),
    ] {
        assert_eq!(said.matches(words).count(), times, "{words}:\n{said}");
    }
}
