//! `/metrics` of the real program: the values that a scraper reads, compared with the ledger and the simulator.

use crate::support::cluster::OwnCluster;
use crate::support::exposition::Exposition;
use crate::support::postgres::database;
use crate::support::program::{Program, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;

const MANUAL: &str = include_str!("../docs/operations.md");

/// A name as no vendor has it, to see that nothing in it ends a label.
const MODEL: &str = r#"mo"del\n"#;

/// A worker that can be scraped, killed when it is dropped.
struct Measured {
    child: Child,
    said: tempfile::NamedTempFile,
    address: String,
}

impl Measured {
    async fn start(program: &Program) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = program.command(&["worker"]);
        command.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
        let child = command.spawn().unwrap();
        let address = || {
            let said = text(&std::fs::read(said.path()).unwrap());
            let (_, rest) = said.split_once("http.listen=")?;
            Some(rest.split_once(char::is_whitespace)?.0.to_owned())
        };
        until("the worker says where it listens", async || address().is_some()).await;
        let address = address().unwrap();
        Self { child, said, address }
    }

    /// The head and the body of an answer.
    async fn get(&self, path: &str) -> (String, String) {
        self.get_as(path, "*/*").await
    }

    async fn get_as(&self, path: &str, accept: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\naccept: {accept}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("\r\ncontent-length: "), "{head}");
        (head.to_owned(), body.to_owned())
    }

    async fn scrape(&self) -> Exposition {
        // As Prometheus asks.
        let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let (head, body) = self.get_as("/metrics", accept).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        let page = Exposition::parse(&body);
        for (name, kind) in &page.types {
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert!(MANUAL.contains(&format!("`{name}{suffix}`")), "{name} is not in the manual");
        }
        page
    }

    /// Scrapes until it is so, and returns that page.
    async fn scrape_until(&self, what: &str, is_so: impl Fn(&Exposition) -> bool) -> Exposition {
        let last = Mutex::new(None);
        until(what, async || {
            let page = self.scrape().await;
            let is_so = is_so(&page);
            *last.lock().unwrap() = Some(page);
            is_so
        })
        .await;
        last.into_inner().unwrap().unwrap()
    }

    async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{}", text(&std::fs::read(self.said.path()).unwrap()));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the worker said:\n{}", text(&std::fs::read(self.said.path()).unwrap_or_default()));
        }
    }
}

/// One provider that fails now and then, and one that wants to be left alone for ten minutes.
fn stage(url: &str) -> (Simulator, Program) {
    let scenario = format!(
        "[providers.one]\ndialect = \"openai\"\nlatency = {{ uniform = [0.005, 0.02] }}\n\
         models.'{MODEL}'.price = {{ input = \"1\", output = \"2\" }}\n\
         faults = [{{ kind = \"500\", containing = \"stumble\", first_n_per_request = 1 }},\n\
                   {{ kind = \"empty\", containing = \"nothing\", first_n_per_request = 1 }}]\n\
         [providers.shut]\ndialect = \"openai\"\nfaults = [{{ kind = \"rate_limit\", wait = \"600s\" }}]\n"
    );
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let config = format!(
        "[worker]\nmax_in_flight = 20\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         limits = {{ requests_per_minute = 6000, concurrency = 10 }}\n\
         [providers.shut]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 4 }}\n\
         [models.'one/{MODEL}']\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = ['one/{MODEL}']\nvalidate = {{ non_empty = true }}\n\
         fallback_on = []\n\
         [routes.shut]\nrungs = [\"shut/model\"]\n\
         [game_days.of_tomorrow]\ntargets = [\"shut\"]\nshare = 1.0\n\
         from = \"2099-12-04T10:00:00Z\"\nuntil = \"2099-12-04T11:00:00Z\"\n",
        simulator.base_url("one").unwrap(),
        simulator.base_url("shut").unwrap()
    );
    (simulator, Program::new(&config, url))
}

async fn enqueue(pool: &PgPool, route: &str, prompt: &str, jobs: i64) {
    sqlx::query(
        "insert into sluice.job (route, request)
              select $1, jsonb_build_object('prompt', $2 || ' ' || n) from generate_series(1, $3) n",
    )
    .bind(route)
    .bind(prompt)
    .bind(jobs)
    .execute(pool)
    .await
    .unwrap();
}

async fn number(pool: &PgPool, query: &'static str) -> f64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_agree_with_the_ledger() {
    let database = database().await;
    let pool = database.pool();
    let (simulator, program) = stage(&database.url());
    let worker = Measured::start(&program).await;

    let fresh = worker.scrape().await;
    let target = [("provider", "one"), ("model", MODEL)];
    let of_target = |name, value| [target[0], target[1], (name, value)];
    assert_eq!(fresh.value("sluice_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    assert_eq!(fresh.value("sluice_attempts_total", &of_target("class", "accepted")), Some(0.0), "{fresh:?}");
    assert_eq!(fresh.value("sluice_queue_ready_jobs", &[("route", "default")]), Some(0.0));

    for (prompt, jobs) in [("plain", 30), ("stumble", 5), ("nothing", 4)] {
        enqueue(&pool, "default", prompt, jobs).await;
    }
    let ended = "select count(*)::float8 from sluice.result";
    until("all jobs have ended", async || number(&pool, ended).await >= 39.0).await;
    // The last outcome may be committed a moment before this process knows.
    let page = worker
        .scrape_until("all is booked", |page| {
            page.value("sluice_unsettled", &[]) == Some(0.0) && page.sum("sluice_jobs_ended_total") >= Some(39.0)
        })
        .await;

    let booked: BTreeMap<String, f64> =
        sqlx::query_as("select coalesce(class, 'accepted'), count(*)::float8 from sluice.attempts group by 1")
            .fetch_all(&pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
    let expected = [("accepted", 39.0), ("server_error", 5.0), ("soft_failure", 4.0)];
    assert_eq!(booked, expected.map(|(class, attempts)| (class.to_owned(), attempts)).into());
    let mut counted = page.by("sluice_attempts_total", "class");
    counted.retain(|_, attempts| *attempts > 0.0);
    assert_eq!(counted, booked);
    assert_eq!(page.value("sluice_soft_failures_total", &of_target("kind", "empty")), Some(4.0));
    assert_eq!(simulator.verdict().total.calls, 48, "as many as the provider saw");

    for (metric, query) in [
        ("sluice_cost_dollars_total", "select sum(cost)::float8 from sluice.attempts"),
        ("sluice_waste_dollars_total", "select sum(cost) filter (where not accepted)::float8 from sluice.attempts"),
        ("sluice_uncertain_cost_dollars_total", "select sum(uncertain_cost)::float8 from sluice.attempts"),
    ] {
        let (shown, booked) = (page.value(metric, &target).unwrap(), number(&pool, query).await);
        assert!((shown - booked).abs() < 1e-12, "{metric}: {shown}, on the ledger {booked}");
    }
    assert!(page.sum("sluice_waste_dollars_total") > Some(0.0));
    assert_eq!(page.value("sluice_unpriced_attempts_total", &target), Some(0.0));
    for (kind, query) in [
        ("input", "select sum(input_tokens)::float8 from sluice.attempts"),
        ("output", "select sum(output_tokens)::float8 from sluice.attempts"),
    ] {
        assert_eq!(page.value("sluice_tokens_total", &of_target("kind", kind)), Some(number(&pool, query).await));
    }
    let answered = page.value("sluice_attempt_duration_seconds_count", &of_target("answered", "true"));
    let unanswered = page.value("sluice_attempt_duration_seconds_count", &of_target("answered", "false"));
    assert_eq!((answered, unanswered), (Some(43.0), Some(5.0)));
    let seconds = number(&pool, "select sum(total_ms)::float8 / 1000 from sluice.attempts").await;
    assert!((page.sum("sluice_attempt_duration_seconds_sum").unwrap() - seconds).abs() < 1e-9);
    let ended = [("route", "default"), ("state", "succeeded")];
    assert_eq!(page.value("sluice_jobs_ended_total", &ended), Some(39.0));
    assert_eq!(page.value("sluice_breaker_state", &of_target("state", "closed")), Some(1.0));
    assert_eq!(page.value("sluice_breaker_state", &of_target("state", "open")), Some(0.0));
    assert_eq!(page.value("sluice_game_day_active", &[("game_day", "of_tomorrow")]), Some(0.0));
    for (name, expected) in [
        ("ready", 1.0),
        ("database_up", 1.0),
        ("jobs_in_hand", 0.0),
        ("jobs_in_hand_limit", 20.0),
        ("request_bytes_in_hand", 0.0),
        ("request_bytes_in_hand_limit", 268_435_456.0),
    ] {
        assert_eq!(page.value(&format!("sluice_{name}"), &[]), Some(expected), "{name}");
    }
    worker.stop().await;
}

/// Asks Prometheus's own tool, where it is installed (Debian: the package prometheus).
fn promtool(arguments: &[&str], input: &Path) {
    let mut command = std::process::Command::new("promtool");
    match command.args(arguments).stdin(std::fs::File::open(input).unwrap()).output() {
        Ok(said) => assert!(said.status.success(), "{}", text(&said.stdout) + &text(&said.stderr)),
        Err(error) => eprintln!("promtool is not installed ({error}): it has not read this"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_schedules_and_alerts_are_shown_and_both_formats_say_the_same() {
    let database = database().await;
    let pool = database.pool();
    let (_simulator, program) = stage(&database.url());
    let worker = Measured::start(&program).await;
    enqueue(&pool, "default", "plain", 3).await;
    sqlx::raw_sql(
        "select sluice.pause('batch', 'b'), sluice.pause('batch', 'c'), sluice.pause('provider', 'shut');
         insert into sluice.schedule (name, cron, timezone, enabled, next_at)
              values ('nightly', '0 0 1 1 *', 'UTC', true, '2100-01-01 00:00:00+00'),
                     ('off', '0 0 1 1 *', 'UTC', false, null);
         insert into sluice.tick (schedule, at, state) values ('nightly', '2026-01-01 00:00:00+00', 'failed');
         insert into sluice.alert (rule, subject, severity, state, since, seen_at, fired_at, summary)
              values ('made_up', 'x', 'critical', 'firing', now(), now(), now(), 'it burns');
         insert into sluice.alert_delivery (receiver, kind, message, tries, due_at)
              values ('ops', 'fired', '{}', 2, 'infinity'), ('ops', 'fired', '{}', 0, 'infinity')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let firing = |severity| ("sluice_alerts_firing", vec![("severity", severity)]);
    let of = |name, schedule| (name, vec![("schedule", schedule)]);
    let expected = [
        (("sluice_paused", vec![("kind", "batch")]), 2.0),
        (("sluice_paused", vec![("kind", "provider")]), 1.0),
        (("sluice_paused", vec![("kind", "route")]), 0.0),
        (of("sluice_schedule_enabled", "nightly"), 1.0),
        (of("sluice_schedule_enabled", "off"), 0.0),
        (of("sluice_schedule_next_tick_timestamp_seconds", "nightly"), 4_102_444_800.0),
        (of("sluice_schedule_last_tick_timestamp_seconds", "nightly"), 1_767_225_600.0),
        (of("sluice_schedule_last_tick_failed", "nightly"), 1.0),
        (of("sluice_schedule_last_tick_failed", "off"), 0.0),
        (firing("critical"), 1.0),
        (firing("info"), 0.0),
        (("sluice_alert_messages_waiting", vec![("receiver", "ops")]), 2.0),
        (("sluice_alert_messages_refused", vec![("receiver", "ops")]), 1.0),
    ];
    let page = worker
        .scrape_until("the alert is shown", |page| {
            page.value("sluice_alerts_firing", &[("severity", "critical")]) == Some(1.0)
                && page.sum("sluice_jobs_ended_total") >= Some(3.0)
        })
        .await;
    for ((name, labels), value) in expected {
        assert_eq!(page.value(name, &labels), Some(value), "{name} {labels:?}");
    }
    assert_eq!(page.value("sluice_schedule_next_tick_timestamp_seconds", &[("schedule", "off")]), None);

    // To people and older scrapers.
    let (head, plain) = worker.get("/metrics").await;
    assert!(head.contains("text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let samples = plain.lines().filter(|line| !line.starts_with('#'));
    let names: BTreeSet<&str> = samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();
    assert_eq!(names, page.names());
    for family in ["sluice_attempts_total counter", "sluice_build_info gauge", "sluice_first_byte_seconds histogram"] {
        assert!(plain.contains(&format!("# TYPE {family}\n")), "{family}: {plain}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plain).unwrap();
    promtool(&["check", "metrics"], file.path());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_limits_and_what_waits_for_them() {
    let database = database().await;
    let pool = database.pool();
    let (_simulator, program) = stage(&database.url());
    let worker = Measured::start(&program).await;
    enqueue(&pool, "default", "plain", 50).await;
    enqueue(&pool, "shut", "plain", 8).await;
    enqueue(&pool, "of nobody", "plain", 3).await;
    let limit = [("bucket", "one"), ("limit", "requests/min")];
    let page = worker
        .scrape_until("the limit was used, and the other bucket is shut", |page| {
            page.value("sluice_bucket_shut", &[("bucket", "shut")]) == Some(1.0)
                && page.value("sluice_bucket_utilisation_ratio", &limit) == Some(50.0 / 6000.0)
                && page.value("sluice_queue_unknown_route_jobs", &[]) == Some(3.0)
                && page.value("sluice_queue_running_jobs", &[("route", "shut")]) == Some(0.0)
        })
        .await;
    let configured = [limit[0], limit[1], ("source", "configured")];
    assert_eq!(page.value("sluice_bucket_limit_per_second", &configured), Some(100.0));
    let of_limit = |name: &str| page.value(&format!("sluice_bucket_{name}"), &limit).unwrap();
    assert!(of_limit("level") + of_limit("leased") <= of_limit("capacity"), "{page:?}");
    let whole = |name: &str, bucket| page.value(&format!("sluice_bucket_{name}"), &[("bucket", bucket)]);
    assert_eq!((whole("concurrency", "one"), whole("concurrency", "shut")), (Some(10.0), Some(4.0)));
    assert_eq!((whole("shut", "one"), whole("refusals_total", "one")), (Some(0.0), Some(0.0)));
    let opens_in = page.value("sluice_bucket_opens_in_seconds", &[("bucket", "shut"), ("reason", "rate_limit")]);
    assert!(opens_in.is_some_and(|seconds| seconds > 0.0 && seconds <= 600.0), "{opens_in:?}");
    let refusals = whole("refusals_total", "shut").unwrap();
    assert!((1.0..=4.0).contains(&refusals), "{refusals}");
    assert_eq!(page.by("sluice_attempts_total", "class").get("rate_limit"), Some(&refusals));
    let route = [("route", "shut")];
    let waiting = ["ready", "parked"].map(|place| page.value(&format!("sluice_queue_{place}_jobs"), &route).unwrap());
    assert_eq!(waiting.into_iter().reduce(|ready, parked| ready + parked), Some(8.0), "{waiting:?}");
    assert!(page.value("sluice_queue_oldest_ready_seconds", &route).unwrap() > 0.0);
    // Bounded by the configuration: what users write into rows is no label.
    assert!(!page.by("sluice_queue_ready_jobs", "route").contains_key("of nobody"));
    assert_eq!(page.sum("sluice_keys"), None, "servers without keys");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_there_while_the_database_is_not() {
    let mut cluster = OwnCluster::start().await;
    let pool = cluster.pool.clone();
    let (_simulator, program) = stage(&cluster.url);
    let worker = Measured::start(&program).await;
    enqueue(&pool, "default", "plain", 5).await;
    worker.scrape_until("the jobs have ended", |page| page.sum("sluice_jobs_ended_total") >= Some(5.0)).await;
    cluster.kill();
    let page = worker.scrape_until("the worker knows", |page| page.value("sluice_database_up", &[]) == Some(0.0)).await;
    assert_eq!(page.sum("sluice_attempts_total"), Some(5.0), "what this process knows by itself");
    assert!(!page.types.contains_key("sluice_bucket_level"), "what it cannot know is left out rather than out of date");
    cluster.return_of_the_server().await;
    worker.scrape_until("all is well again", |page| page.value("sluice_database_up", &[]) == Some(1.0)).await;
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_says_that_the_database_is_away_and_why_until_it_is_there_again() {
    let mut cluster = OwnCluster::start().await;
    let (_simulator, program) = stage(&cluster.url);
    let worker = Measured::start(&program).await;
    let is_ready = async || worker.get("/readyz").await.1 == "ready\n";
    until("it is ready", is_ready).await;
    let says = async |words: &str| {
        let (head, body) = worker.get("/readyz").await;
        head.starts_with("HTTP/1.1 503 ") && body.starts_with("not ready: ") && body.contains(words)
    };
    // Refused, and gone: each in the words of what happened.
    sqlx::raw_sql("alter table sluice.worker rename to away").execute(&cluster.pool).await.unwrap();
    until("it says what is missing", async || says("relation \"sluice.worker\" does not exist").await).await;
    sqlx::raw_sql("alter table sluice.away rename to worker").execute(&cluster.pool).await.unwrap();
    until("it is ready", is_ready).await;
    cluster.kill();
    until("it says that no heartbeat comes through", async || says("the last heartbeat did not reach").await).await;
    assert_eq!(worker.get("/healthz").await.1, "ok\n");
    cluster.return_of_the_server().await;
    until("it is ready again", is_ready).await;
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_says_that_the_database_is_read_only_and_what_to_do() {
    let cluster = OwnCluster::start().await;
    let (_simulator, program) = stage(&cluster.url);
    let worker = Measured::start(&program).await;
    let is_ready = async || worker.get("/readyz").await.1 == "ready\n";
    until("it is ready", is_ready).await;
    let set = async |value: &str| {
        let mut connection = cluster.pool.acquire().await.unwrap();
        for statement in [
            "set default_transaction_read_only = off".to_owned(),
            format!("alter system set default_transaction_read_only = {value}"),
            "select pg_reload_conf()".to_owned(),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await.unwrap();
        }
    };
    set("on").await;
    let says_so = async || {
        let body = worker.get("/readyz").await.1;
        body.contains("the database takes no writes") && body.contains("default_transaction_read_only")
    };
    until("it says so", says_so).await;
    let output = program.run(&["doctor", "--format", "plain"]).await;
    let said = text(&output.stdout);
    let is_told = |line: &str| line.starts_with("bad\tserver\t") && line.contains("read-only");
    assert!(said.lines().any(is_told) && said.contains("reset default_transaction_read_only"), "{said}");
    // For as long as it lasts, and not only while the first error is news.
    until("two more heartbeats were tried", async || {
        text(&std::fs::read(worker.said.path()).unwrap()).matches("no heartbeat").count() >= 3
    })
    .await;
    assert!(says_so().await, "{}", worker.get("/readyz").await.1);
    set("off").await;
    until("it is ready again", is_ready).await;
    worker.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_says_what_of_the_work_is_refused_while_the_heart_beats() {
    let database = database().await;
    let pool = database.pool();
    let (_simulator, program) = stage(&database.url());
    let worker = Measured::start(&program).await;
    let is_ready = async || worker.get("/readyz").await.1 == "ready\n";
    until("it is ready", is_ready).await;
    // Claims, the notes of calls, and outcomes.
    for (table, refused) in [
        ("ready", "no jobs are taken"),
        ("attempt", "what came of calls is not written"),
        ("result", "what came of calls is not written"),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("alter table sluice.{table} rename to away")))
            .execute(&pool)
            .await
            .unwrap();
        if table != "ready" {
            enqueue(&pool, "default", "plain", 1).await;
        }
        let says_so = async || {
            let (head, body) = worker.get("/readyz").await;
            head.starts_with("HTTP/1.1 503 ") && body.contains(refused) && body.contains("does not exist")
        };
        until(&format!("it says that {table} is away"), says_so).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("alter table sluice.away rename to {table}")))
            .execute(&pool)
            .await
            .unwrap();
        until("it is ready again", is_ready).await;
    }
    worker.stop().await;
}

/// The names of metrics in an expression, without the endings of counters and histograms.
fn metrics_of(text: &str) -> BTreeSet<String> {
    let name = regex::Regex::new(r"\bsluice_[a-z0-9_]+").unwrap();
    name.find_iter(text).map(|found| found.as_str().trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn the_rules_and_the_grafana_dashboard_name_metrics_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    let rules = std::fs::read_to_string(folder.join("prometheus-rules.yml")).unwrap();
    let board = std::fs::read_to_string(folder.join("grafana-dashboard.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&board).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(expressions.len() > 15);
    let named = metrics_of(&format!("{rules}\n{}", expressions.join("\n")));
    assert!(named.len() > 20, "{named:?}");
    for metric in named {
        assert!(MANUAL.contains(&format!("`{metric}`")), "{metric} is not in the manual");
    }
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    // Prometheus's own tool reads both, where it is installed (Debian: the package prometheus).
    let questions = expressions.iter().enumerate().fold(rules.clone(), |rules, (index, expression)| {
        let rule = format!("      - record: board:{index}\n        expr: {}\n", serde_json::Value::from(&**expression));
        rules + &rule
    });
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), questions).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], file.path());
}
