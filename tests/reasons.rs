//! The reason why a job waits: the true one where it is known, and none where it is not.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::simulate::{Scenario, Simulator};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::io::{AsyncBufReadExt as _, BufReader};

struct Stage {
    pool: PgPool,
    program: Program,
    _simulator: Simulator,
    _database: TestDatabase,
}

/// A provider that takes one key and knows one model. Its configuration has three routes: with the wrong key, with the
/// wrong model, and with both right.
async fn stage() -> Stage {
    let database = database().await;
    let scenario = "[providers.one]\ndialect = \"openai\"\nkeys = [\"right\"]\n\
                    models.model.price = { input = \"1\", output = \"2\" }\n";
    let simulator = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let base = simulator.base_url("one").unwrap();
    let provider = |name: &str, file: &str| {
        format!("[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{base}\"\napi_key_file = \"{file}\"\n")
    };
    let config = format!(
        "[worker]\nmax_in_flight = 2\n[http]\nlisten = \"off\"\n{}{}\
         [models.\"good/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"good/model\"]\n\
         [routes.key]\nrungs = [\"bad/model\"]\n[routes.model]\nrungs = [\"good/missing\"]\n\
         [routes.both]\nstrategy = \"priority\"\nrungs = [\"good/missing\", \"bad/model\"]\n",
        provider("good", "right.key"),
        provider("bad", "wrong.key")
    );
    let program = Program::new(&config, &database.url());
    program.file("right.key", "right");
    program.file("wrong.key", "wrong-3f9a1c77");
    Stage { pool: database.pool(), program, _simulator: simulator, _database: database }
}

impl Stage {
    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    async fn job(&self, columns: &str, values: &str) -> i64 {
        let statement = format!(
            "insert into sluice.job (request, {columns}) values ('{{\"prompt\": \"x\"}}', {values}) returning id"
        );
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&self.pool).await.unwrap()
    }

    async fn waits_for(&self, job: i64) -> Option<String> {
        sqlx::query_scalar("select waits_for from sluice.jobs where id = $1")
            .bind(job)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// View, `job show`, `explain` and `status` say the same.
    async fn all_say(&self, job: i64, reason: &str, words: &str) {
        assert_eq!(self.waits_for(job).await.as_deref(), Some(reason));
        let id = job.to_string();
        for command in [&["job", "show", &id][..], &["explain", &id]] {
            let said = self.program.output(command).await;
            assert!(said.contains(words) && !said.contains("next free worker"), "{command:?}: {said}");
        }
        let said = self.program.output(&["status", "--format", "json"]).await;
        let status: Value = serde_json::from_str(&said).unwrap();
        let routes = status["routes"].as_array().unwrap();
        let held = |route: &Value| {
            let of = |key: &str| route[key].as_array().unwrap().clone();
            of("ready_waits_for").into_iter().chain(of("parked")).any(|entry| entry["waits_for"] == reason)
        };
        assert!(routes.iter().any(held), "{status:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_told_whatever_it_is_of() {
    let stage = stage().await;
    let alive = "insert into sluice.worker (host, pid, version, lease_until, stats)
                      values ('h', 1, '1', now() + interval '1 h', '{}')";
    stage.run(alive).await;
    for (kind, columns, values) in
        [("batch", "batch", "'b'"), ("project", "project", "'p'"), ("route", "route", "'key'")]
    {
        let job = stage.job(columns, values).await;
        assert_eq!(stage.waits_for(job).await, None, "a worker that says nothing of routes may well take it");
        let said = stage.program.output(&["explain", &job.to_string()]).await;
        assert!(said.contains("It is queued\n"), "{said}");
        let name = values.trim_matches('\'');
        stage.program.output(&[kind, "pause", name]).await;
        stage.all_say(job, &format!("{kind} paused"), &format!("queued: {kind} {name} is paused by ")).await;
        stage.program.output(&[kind, "resume", name]).await;
        assert_eq!(stage.waits_for(job).await, None);
    }
    // One that is parked for something of its own waits for the pause too.
    let job = stage.job("batch, run_at", "'b', now() + interval '1 h'").await;
    assert_eq!(stage.waits_for(job).await.as_deref(), Some("scheduled"));
    stage.program.output(&["batch", "pause", "b"]).await;
    assert_eq!(stage.waits_for(job).await.as_deref(), Some("batch paused"));
    stage.program.output(&["job", "pause", &job.to_string()]).await;
    assert_eq!(stage.waits_for(job).await.as_deref(), Some("paused"));
    stage.run("delete from sluice.worker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_is_there_or_nobody_knows_the_route_is_told() {
    let stage = stage().await;
    let job = stage.job("batch", "'b'").await;
    stage.all_say(job, "no worker", "queued: no worker is running").await;
    let told = |stats: &str| {
        format!(
            "delete from sluice.worker;
             insert into sluice.worker (host, pid, version, lease_until, stats)
                  values ('h', 1, '1', now() + interval '1 h', '{stats}')"
        )
    };
    let set = async |stats: &str| sqlx::raw_sql(AssertSqlSafe(told(stats))).execute(&stage.pool).await.unwrap();
    for (stats, reason) in [
        (r#"{"routes": ["other"], "waits": {}}"#, Some("no worker knows the route")),
        (r#"{"routes": ["default"], "waits": {}}"#, None),
        (
            r#"{"routes": ["default"], "waits": {"default": {"for": "a/m: auth (nowhere else to go)"}}}"#,
            Some("a/m: auth (nowhere else to go)"),
        ),
        // It works on a batch of its own, or on no other any more.
        (r#"{"routes": ["default"], "waits": {}, "only_batch": "c"}"#, Some("no worker")),
        (r#"{"routes": ["default"], "waits": {}, "only_batch": "b"}"#, None),
        (r#"{"routes": ["default"], "waits": {}, "stopping": true}"#, Some("no worker")),
        // What another version may say does no harm.
        (r#"{"routes": 7, "waits": []}"#, None),
        (r#"{"routes": ["default"], "waits": {"default": "x"}}"#, None),
        ("[]", None),
    ] {
        set(stats).await;
        assert_eq!(stage.waits_for(job).await.as_deref(), reason, "{stats}");
        let status: Value = serde_json::from_str(&stage.program.output(&["status", "--format", "json"]).await).unwrap();
        assert_eq!(status["routes"][0]["ready_waits_for"][0]["waits_for"].as_str(), reason, "{stats}");
    }
    // One that waits does not hold up what another takes.
    set(r#"{"routes": ["default"], "waits": {"default": {"for": "a/m: auth (nowhere else to go)"}}}"#).await;
    stage
        .run(
            "insert into sluice.worker (host, pid, version, lease_until, stats)
                  values ('h', 2, '1', now() + interval '1 h', '{\"routes\": [\"default\"], \"waits\": {}}')",
        )
        .await;
    assert_eq!(stage.waits_for(job).await, None);
    stage.run("delete from sluice.worker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_a_model_and_a_paused_provider_are_told_by_the_workers() {
    let stage = stage().await;
    stage.program.output(&["provider", "pause", "good"]).await;
    let worker = stage.program.command(&["worker"]).spawn().unwrap();
    let paused = stage.job("route", "'default'").await;
    let say = async |job: i64, reason: &str| {
        until(reason, async || stage.waits_for(job).await.is_some_and(|said| said.starts_with(reason))).await;
    };
    say(paused, "good/model: paused").await;
    stage.all_say(paused, "good/model: paused (nowhere else to go)", "good/model: its provider is paused").await;
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(stage.job("route", "'key'").await);
    }
    for job in keys {
        say(job, "bad/model: auth").await;
    }
    stage.program.output(&["provider", "resume", "good"]).await;
    let ended = async |job: i64| {
        sqlx::query_scalar::<_, i64>("select count(*) from sluice.result where job_id = $1")
            .bind(job)
            .fetch_one(&stage.pool)
            .await
            .unwrap()
            == 1
    };
    until("the paused one goes on", async || ended(paused).await).await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_go_on_ends_and_says_why_and_its_jobs_stay() {
    let stage = stage().await;
    stage.program.file("q.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n{\"prompt\": \"c\"}\n");
    for (route, words) in [
        ("key", "/wrong.key was rejected "),
        ("model", "good/missing: the model is unknown, or not allowed to the key (HTTP 404: “"),
        ("both", "good/missing: the model is unknown"),
    ] {
        let output = stage.program.run(&["run", "q.jsonl", "-o", "out", "--route", route, "--batch", route]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(10), "{said}");
        let told = said.split_once(&format!("batch {route} cannot go on:\n")).unwrap_or_else(|| panic!("{said}")).1;
        assert!(told.contains(words), "{said}");
        let line = format!(
            "stopped: 3 jobs are left and stay queued. When that is mended, go on with:\n  sluice --config {} run \
             q.jsonl --batch {route} --route {route} -o out\n",
            stage.program.path("sluice.toml").display()
        );
        assert!(told.ends_with(&line), "{said}");
        assert!(!stage.program.path("out").exists());
    }
    let states: Vec<String> =
        sqlx::query_scalar("select distinct state from sluice.jobs").fetch_all(&stage.pool).await.unwrap();
    assert_eq!(states, ["queued"]);
    // With the key mended, the same command goes on.
    stage.program.file("wrong.key", "right");
    let output = stage.program.run(&["run", "q.jsonl", "-o", "out", "--route", "key", "--batch", "key"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // And `watch` says of the others that no worker is there.
    let mut watch = stage.program.command(&["watch", "model"]).spawn().unwrap();
    let line = BufReader::new(watch.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    assert!(line.contains("; no worker is running"), "{line}");
    let _ = watch.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_jobs_all_rest_for_the_same_says_it_and_a_resting_job_needs_a_worker_too() {
    let stage = stage().await;
    let alive = "insert into sluice.worker (host, pid, version, lease_until, stats)
                      values ('h', 1, '1', now() + interval '1 h', '{\"routes\": [\"default\"]}')";
    stage.run(alive).await;
    let jobs = [stage.job("batch, run_at", "'b', now() + interval '1 h'").await, stage.job("batch", "'b'").await];
    let told = async || {
        let said = stage.program.output(&["batch", "show", "b", "--format", "json"]).await;
        serde_json::from_str::<Value>(&said).unwrap()["why"]["waits_for"].clone()
    };
    assert_eq!(told().await, Value::Null, "one of them is ready");
    let rest = "insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
                     select job_id, now() + interval '1 h', flow, prio, attempts, crashes, round,
                            'one/model: rate_limit (within patience)' from sluice.ready;
                delete from sluice.ready";
    stage.run(rest).await;
    assert_eq!(told().await, "one/model: rate_limit (within patience)");
    let said = stage.program.output(&["batch", "show", "b", "--format", "table"]).await;
    assert!(said.contains("others wait for scheduled"), "each waits for something of its own: {said}");
    stage.run("update sluice.parked set reason = 'scheduled'").await;
    assert_eq!(told().await, "scheduled");
    stage.run("update sluice.parked set reason = 'one/model: rate_limit (within patience)'").await;
    assert_eq!(told().await, "one/model: rate_limit (within patience)");
    for job in jobs {
        stage.all_say(job, "one/model: rate_limit (within patience)", "one/model: its limit is used up until").await;
    }
    // What it rests for is nothing without a worker that would go on with it.
    stage.run("delete from sluice.worker").await;
    stage.all_say(jobs[0], "no worker", "queued: no worker is running").await;
    stage
        .run(
            "update sluice.parked set reason = 'scheduled'
              where job_id = (select min(job_id) from sluice.parked)",
        )
        .await;
    assert_eq!(stage.waits_for(jobs[0]).await.as_deref(), Some("scheduled"));
    stage.run("update sluice.parked set run_at = now() - interval '1 s'").await;
    assert_eq!(stage.waits_for(jobs[0]).await.as_deref(), Some("no worker"), "its time has come");
}

#[tokio::test]
async fn a_batch_with_jobs_that_no_target_takes_and_scheduled_ones_tells_of_the_first() {
    let stage = stage().await;
    let stuck = "insert into sluice.worker (host, pid, version, lease_until, stats)
                      values ('h', 1, '1', now() + interval '1 h',
                              '{\"routes\": [\"default\", \"other\"], \"waits\": {\"default\": {
                                    \"for\": \"one/model: model (nowhere else to go)\"}}}')";
    stage.run(stuck).await;
    stage.job("batch, run_at, route", "'b', now() + interval '1 h', 'other'").await;
    stage.job("batch", "'b'").await;
    let told = async || {
        let said = stage.program.output(&["batch", "show", "b", "--format", "json"]).await;
        let why = serde_json::from_str::<Value>(&said).unwrap()["why"].clone();
        (why["waits_for"].clone(), why["others_wait_for"].clone())
    };
    let expected = (json!("one/model: model (nowhere else to go)"), json!(["scheduled"]));
    assert_eq!(told().await, expected, "one is ready");
    // Its own rest is over, and its route waits all the same.
    let rest = "insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
                     select job_id, now() - interval '1 s', flow, prio, attempts, crashes, round,
                            'one/model: model (nowhere else to go)' from sluice.ready;
                delete from sluice.ready";
    stage.run(rest).await;
    assert_eq!(told().await, expected);
    let plain = stage.program.output(&["batch", "show", "b", "--format", "csv"]).await;
    assert!(plain.contains("waits_for,why,do") && plain.contains("the model is unknown"), "{plain}");
}

#[tokio::test]
async fn calls_that_have_had_no_answer_for_long_are_told_everywhere() {
    let stage = stage().await;
    let alive = "insert into sluice.worker (id, host, pid, version, lease_until, stats)
                      overriding system value
                      values (7, 'h', 1, '1', now() + interval '1 h', '{\"routes\": [\"default\"]}')";
    stage.run(alive).await;
    let job = stage.job("batch", "'hangs'").await;
    let taken = "insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round,
                                              call_number, call_provider, call_model, call_started)
                      select job_id, 5, 7, flow, prio, attempts, crashes, round, 1, 'one', 'model',
                             now() - interval '30 s'
                        from sluice.ready;
                 delete from sluice.ready";
    stage.run(taken).await;
    let explained = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(explained.contains("; its call to one/model has been under way since "), "{explained}");
    let shown = async || {
        let batch = stage.program.output(&["batch", "show", "hangs", "--format", "table"]).await;
        let status = stage.program.output(&["status", "--format", "table"]).await;
        (batch, status)
    };
    let words = "1 call has had no answer for 1m or longer: it went to one/model at ";
    let (batch, status) = shown().await;
    assert!(!batch.contains("had no answer") && !status.contains("had no answer"), "{batch}{status}");
    stage.run("update sluice.inflight set call_started = now() - interval '5 min'").await;
    let (batch, status) = shown().await;
    assert!(batch.contains(&format!(" calls: {words}")), "{batch}");
    assert!(status.contains(&format!(" default: {words}")), "{status}");
    let mut watch = stage.program.command(&["watch", "hangs"]).spawn().unwrap();
    let line = BufReader::new(watch.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    assert!(line.contains(&format!("; {words}")), "{line}");
    let _ = watch.kill().await;
    // A call that has ended is no longer under way, also while its job is still in hand.
    let booked = "insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at,
                                              total_ms, accepted, class, usage_source)
                       select job_id, fence, 1, round, 'one', 'model', call_started, now(), 300000, false, 'timeout',
                              'unknown'
                         from sluice.inflight";
    stage.run(booked).await;
    let (batch, status) = shown().await;
    assert!(!batch.contains("had no answer") && !status.contains("had no answer"), "{batch}{status}");
    let explained = stage.program.output(&["explain", &job.to_string()]).await;
    assert!(!explained.contains("under way"), "{explained}");
}

#[tokio::test]
async fn a_batch_that_is_scheduled_says_so_while_no_worker_runs() {
    let stage = stage().await;
    stage.job("batch, run_at", "'later', now() + interval '1 hour'").await;
    let said = stage.program.output(&["batch", "show", "later", "--format", "json"]).await;
    assert!(said.contains("scheduled for") && !said.contains("no worker"), "{said}");
    stage.job("batch", "'later'").await;
    let said = stage.program.output(&["batch", "show", "later", "--format", "json"]).await;
    assert!(said.contains("no worker is running"), "{said}");
}
