//! The strategies with the real worker: which rung each job takes, as the domain says, and what `explain` tells of it.

use crate::support::fleet::Fleet;
use crate::support::scripted::{Scripted, answer};
use crate::support::wait::until;
use serde_json::Value;
use sluice::config::{Config, Keys};
use sluice::domain::request::Extras;
use sluice::domain::strategy::{Conditions, order};
use sluice::domain::{Job, JobId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Two providers of the simulator that behave as these lines say, and a route over both.
async fn two(first: &str, second: &str, limits: [&str; 2], route: &str) -> Fleet {
    let scenario =
        format!("[providers.one]\ndialect = \"openai\"\n{first}\n[providers.two]\ndialect = \"openai\"\n{second}\n");
    let provider = |name: &str, limits: &str| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n{limits}\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n"
        )
    };
    let config = format!(
        "{}{}[routes.default]\nrungs = [\"one/m\", \"two/m\"]\n{route}\n",
        provider("one", limits[0]),
        provider("two", limits[1])
    );
    Fleet::new(&scenario, &config).await
}

impl Fleet {
    fn called(&self, provider: &str) -> u64 {
        self.verdict().providers[provider].figures.calls
    }

    async fn drain(&self) {
        let output = self.program(&["worker", "--drain"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The provider of each attempt, by job.
    async fn attempts(&self) -> BTreeMap<i64, Vec<String>> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("select job_id, provider from sluice.attempt order by job_id, number")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let mut attempts: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (job, provider) in rows {
            attempts.entry(job).or_default().push(provider);
        }
        attempts
    }

    /// Enqueues jobs in this batch with this metadata.
    async fn enqueue_with(&self, jobs: i64, batch: Option<&str>, metadata: Value) {
        sqlx::query(
            "insert into sluice.job (batch, metadata, request)
                  select $2, $3, jsonb_build_object('prompt', 'question ' || n) from generate_series(1, $1) n",
        )
        .bind(jobs)
        .bind(batch)
        .bind(metadata)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn story(&self, job: i64) -> String {
        let output = self.program(&["explain", &job.to_string()]).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The provider that a job draws first on a route of these lines, by the domain alone.
fn draws(route: &str, id: i64) -> String {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let provider =
        |name: &str| format!("[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1/v1\"\n");
    let rungs = "[routes.default]\nrungs = [\"one/m\", \"two/m\"]";
    std::fs::write(file.path(), format!("{}{}{rungs}\n{route}\n", provider("one"), provider("two"))).unwrap();
    let config = Config::load_with(Some(Path::new(file.path())), [], Keys::Ignored).unwrap();
    let route = &config.routes["default"].route;
    let (ready_at, deadline, max_attempts, sticky) = (Timestamp(0), None, None, None);
    let (input_tokens, max_output_tokens, extras) = (1, None, Extras::default());
    let job = Job { id: JobId(id), ready_at, deadline, max_attempts, input_tokens, max_output_tokens, sticky, extras };
    let mut into = Vec::new();
    order(route, &Conditions::of_job(&job, None, Timestamp(0), &[]), &mut into);
    route.rungs[into[0]].target.provider.clone()
}

/// A breaker that a few failures do not open.
const PATIENT: &str = "breaker = { min_calls = 1000 }";

const THREE_TO_ONE: &str = "strategy = \"weighted\"\nweights = { \"one/m\" = 3, \"two/m\" = 1 }";

#[tokio::test(flavor = "multi_thread")]
async fn each_job_takes_the_rung_that_it_draws_whichever_process_works_on_it() {
    let fleet = two("", "", ["", ""], THREE_TO_ONE).await;
    fleet.enqueue("default", 200).await;
    let workers = fleet.start_many(2).await;
    fleet.until_answered(200).await;
    crate::support::fleet::stop(workers).await;
    let attempts = fleet.attempts().await;
    assert_eq!(attempts.len(), 200);
    for (job, providers) in &attempts {
        assert_eq!(*providers, [draws(THREE_TO_ONE, *job)], "job {job}");
    }
    assert_eq!(fleet.called("one") + fleet.called("two"), 200);
    assert!((110..190).contains(&fleet.called("one")), "{}", fleet.called("one"));
    let story = fleet.story(*attempts.keys().next().unwrap()).await;
    assert!(story.contains("   its order was drawn by weight: ") && story.contains("two/m (weight 1)"), "{story}");
    fleet.books_are_in_order(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_draw_a_rung_that_is_shut_for_long_rest_and_the_others_go_on() {
    let fleet = two("faults = [{ kind = \"rate_limit\", wait = 300 }]", "", ["", ""], THREE_TO_ONE).await;
    fleet.enqueue("default", 60).await;
    let worker = fleet.start();
    let jobs: Vec<i64> =
        sqlx::query_scalar("select id from sluice.job order by id").fetch_all(&fleet.pool).await.unwrap();
    let open = jobs.iter().filter(|job| draws(THREE_TO_ONE, **job) == "two").count();
    let open = i64::try_from(open).unwrap();
    assert!(open > 4, "{open}");
    fleet.until_answered(open).await;
    until("the others rest", async || fleet.number("select count(*) from sluice.parked").await == 60 - open).await;
    assert_eq!(fleet.answered().await, open);
    assert_eq!(fleet.called("two"), u64::try_from(open).unwrap());
    // Those that were under way when the first refusal came, and no more.
    assert!(fleet.called("one") <= 60, "{}", fleet.called("one"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rung_without_weight_is_called_when_the_drawn_one_fails() {
    let weights = "strategy = \"weighted\"\nweights = { \"one/m\" = 1, \"two/m\" = 0 }";
    let fleet = two("faults = [{ kind = \"empty\", containing = \"question 1\" }]", "", [PATIENT, ""], weights).await;
    fleet.enqueue("default", 30).await;
    fleet.drain().await;
    let attempts = fleet.attempts().await;
    // The questions 1 and 10 to 19.
    let both = attempts.values().filter(|providers| **providers == ["one", "two"]).count();
    assert_eq!((both, attempts.values().filter(|providers| **providers == ["one"]).count()), (11, 19));
    fleet.books_are_in_order(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_batch_stick_to_one_rung_and_batches_are_spread() {
    let fleet = two("", "", ["", ""], "strategy = \"sticky\"\nsticky_by = \"batch\"").await;
    for batch in 0..12 {
        fleet.enqueue_with(10, Some(&format!("b{batch}")), Value::Null).await;
    }
    fleet.drain().await;
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select distinct j.batch, a.provider from sluice.attempt a join sluice.job j on j.id = a.job_id",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    assert_eq!(rows.len(), 12, "one provider for each batch: {rows:?}");
    let providers: BTreeSet<&str> = rows.iter().map(|(_, provider)| provider.as_str()).collect();
    assert_eq!(providers.len(), 2, "{rows:?}");
    let story = fleet.story(1).await;
    assert!(story.contains("   its order was the same for all jobs of its batch: "), "{story}");
    fleet.books_are_in_order(120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_stick_by_a_member_of_their_metadata_and_those_without_it_are_spread() {
    let fleet = two("", "", ["", ""], "strategy = \"sticky\"\nsticky_by = \"metadata.prompt\"").await;
    for prompt in 0..8 {
        fleet.enqueue_with(6, None, serde_json::json!({ "prompt": prompt, "other": [prompt] })).await;
    }
    fleet.enqueue_with(24, None, serde_json::json!({ "other": 1 })).await;
    fleet.drain().await;
    let spread = "select count(distinct a.provider) from sluice.attempt a join sluice.job j on j.id = a.job_id
                   where j.metadata->>'prompt' is ";
    let by_key: Vec<i64> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{spread} not null group by j.metadata->>'prompt'")))
            .fetch_all(&fleet.pool)
            .await
            .unwrap();
    assert_eq!(by_key, [1; 8]);
    let without: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{spread} null"))).fetch_one(&fleet.pool).await.unwrap();
    assert_eq!(without, 2);
    fleet.books_are_in_order(72).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_two_providers_is_used_up_together() {
    let limits = [60, 20].map(|burst| format!("limits = {{ requests_per_minute = {burst} }}"));
    let quotas = [60, 20].map(|burst| format!("quota = {{ requests_per_minute = {burst} }}"));
    let fleet =
        two(&quotas[0], &quotas[1], [&limits[0], &limits[1]], "strategy = \"balanced\"\npatience = \"forever\"").await;
    // As many as both take without a wait: each has to be nearly empty in the end.
    fleet.enqueue("default", 70).await;
    fleet.drain().await;
    let (one, two) = (fleet.called("one"), fleet.called("two"));
    assert_eq!(one + two, 70);
    assert!((47..=60).contains(&one) && (10..=23).contains(&two), "{one} and {two}");
    assert_eq!(fleet.verdict().total.refused_by_quota, 0);
    let story = fleet.story(70).await;
    assert!(story.contains("   its order was the one with the most room in its limits first: "), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn most_jobs_go_to_the_provider_that_answers_soonest_and_some_look_at_the_other() {
    let (slow, fast) = ("latency = { fixed = \"300ms\" }", "latency = { fixed = \"10ms\" }");
    let limits = ["limits = { concurrency = 8 }"; 2];
    let fleet = two(slow, fast, limits, "strategy = \"fastest\"").await;
    // The first jobs find out how fast both are, …
    let worker = fleet.start();
    fleet.enqueue("default", 40).await;
    fleet.until_answered(40).await;
    let (one, two) = (fleet.called("one"), fleet.called("two"));
    assert!(one > 0 && two > 0, "{one} and {two}");
    // … and the others know.
    fleet.enqueue("default", 400).await;
    fleet.until_answered(440).await;
    worker.stop().await;
    let (slow, fast) = (fleet.called("one") - one, fleet.called("two") - two);
    assert_eq!(slow + fast, 400);
    assert!(fast >= 320 && slow >= 2, "{slow} and {fast}");
    let rows: Vec<Value> = sqlx::query_scalar(
        "select decision->'order' from sluice.attempt where provider = 'one' order by job_id desc limit 2",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    assert!(rows.iter().all(|order| order["explores"] == true), "{rows:?}");
    let job: i64 = sqlx::query_scalar("select max(job_id) from sluice.attempt where provider = 'two'")
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    let story = fleet.story(job).await;
    assert!(story.contains("   its order was the fastest first: two/m ("), "{story}");
}

/// Some rows of the game table with the real worker: the first rung of each job fails each time, the others answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_the_game_table_is_played_by_the_real_worker() {
    let table = include_str!("../src/domain/decide/tests/game.txt");
    let expected = |row: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{row} | in turn | "))).unwrap();
        line.split(" | ").nth(2).unwrap().replace("w ", "").trim_end_matches(" +").to_owned()
    };
    let troubles = [("server_error", 500), ("soft_failure empty", 200), ("payload_too_large", 413)];
    let first: std::sync::Mutex<BTreeMap<String, String>> = std::sync::Mutex::default();
    let server = Scripted::start(move |call, _| {
        let prompt = call.prompt().to_owned();
        let failing = first.lock().unwrap().entry(prompt.clone()).or_insert_with(|| call.provider.clone()).clone();
        let (_, status) = troubles.iter().find(|(row, _)| prompt.ends_with(row)).unwrap();
        match *status {
            _ if call.provider != failing => answer("Yes."),
            200 => answer(""),
            status => (status, b"{\"error\":{\"message\":\"no\"}}".to_vec()),
        }
    })
    .await;
    let mut config = String::new();
    for name in ["a", "b", "c"] {
        writeln!(config, "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"{}\"", server.base_url(name)).unwrap();
        config += "breaker = { min_calls = 1000 }\n";
        writeln!(config, "[models.\"{name}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}").unwrap();
    }
    let rungs = "rungs = [\"a/m\", \"b/m\", \"c/m\"]";
    for (name, lines) in [
        ("cost", ""),
        ("priority", ""),
        ("weighted", "weights = { \"a/m\" = 2, \"b/m\" = 1, \"c/m\" = 4 }"),
        ("sticky", "sticky_by = \"project\""),
    ] {
        writeln!(config, "[routes.{name}]\n{rungs}\nstrategy = \"{name}\"\n{lines}").unwrap();
    }
    let fleet = Fleet::new("[providers.unused]\ndialect = \"openai\"\n", &config).await;
    for route in ["cost", "priority", "weighted", "sticky"] {
        for (row, _) in troubles {
            sqlx::query("insert into sluice.job (route, request) values ($1, jsonb_build_object('prompt', $2::text))")
                .bind(route)
                .bind(format!("{route}: {row}"))
                .execute(&fleet.pool)
                .await
                .unwrap();
        }
    }
    fleet.drain().await;
    for (job, providers) in fleet.attempts().await {
        let prompt: String = sqlx::query_scalar("select request->>'prompt' from sluice.job where id = $1")
            .bind(job)
            .fetch_one(&fleet.pool)
            .await
            .unwrap();
        let (_, row) = prompt.split_once(": ").unwrap();
        let played: Vec<&str> =
            providers.iter().map(|provider| if *provider == providers[0] { "1" } else { "2" }).collect();
        assert_eq!(played.join(" "), expected(row), "{prompt}");
    }
    fleet.books_are_in_order(12).await;
}
