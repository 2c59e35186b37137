//! Shadow traffic: by the store, and with the real worker against the simulator.

use crate::support::fleet::Fleet;
use crate::support::program::text;
use crate::support::queue::{NewJob, Queue, accepted, failure, success};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::domain::{CacheKey, ErrorClass, JobId, NanoUsd};
use sluice::store::claim::Claimed;
use sluice::store::report::{Filter, Grouping, ShadowRow};
use sluice::store::settle::{CachedEnding, CastShadow, EndingRow, Settlement};

const SHADOWS: &str = "select count(*) from sluice.job where route = 'shadow:default'";

/// A good ending whose job has a shadow.
fn casting(claimed: &Claimed) -> EndingRow {
    let shadow = CastShadow { route: "shadow:default".to_owned(), target: "two/m".to_owned() };
    EndingRow { shadow: Some(shadow), ..success(claimed) }
}

#[expect(clippy::unnecessary_wraps, reason = "a job may end without an answer")]
fn answer(content: &str) -> Option<String> {
    Some(json!({ "choices": [{ "message": { "content": content } }] }).to_string())
}

impl Queue {
    async fn ends_with(&self, row: EndingRow) {
        self.settle(Settlement { endings: vec![row], ..Settlement::default() }).await;
    }

    /// Answers a job so, and its shadow so.
    async fn pair(&self, worker: i64, one: Option<String>, other: Option<String>) {
        self.enqueue_one().await;
        let job = self.claim_one(worker).await;
        let attempts = vec![accepted(&job, 1)];
        let endings = vec![EndingRow { response: one, ..casting(&job) }];
        self.settle(Settlement { attempts, endings, ..Settlement::default() }).await;
        let shadow = self.claim_one(worker).await;
        let attempts = vec![accepted(&shadow, 1)];
        let endings = vec![EndingRow { response: other, ..success(&shadow) }];
        self.settle(Settlement { attempts, endings, ..Settlement::default() }).await;
    }
}

#[tokio::test]
async fn a_job_has_one_shadow_however_often_its_settlement_is_sent() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let job = NewJob { project: "acme", batch: Some("b"), ..NewJob::default() };
    queue.enqueue(job, 2).await;
    let claimed = queue.claim_all(worker).await;
    for _ in 0..2 {
        // The reply to the first commit was lost.
        queue.ends_with(casting(&claimed[0])).await;
    }
    assert_eq!(queue.count(SHADOWS).await, 1);
    // The claim of the other is gone, and its late answer is used all the same.
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    for _ in 0..2 {
        queue.ends_with(casting(&claimed[1])).await;
    }
    assert_eq!(queue.count(SHADOWS).await, 2);
    let is_like_its_job = "select count(*) from sluice.shadow s join sluice.job j on j.id = s.job_id
                             join sluice.job k on k.id = s.shadow_id
                            where (k.project, k.enqueued_by, k.request) = (j.project, j.enqueued_by, j.request)
                              and k.batch is null and k.idempotency_key is null and k.priority = -1000
                              and k.deadline > now() + interval '23 hours' and s.target = 'two/m'";
    assert_eq!(queue.count(is_like_its_job).await, 2);
    assert_eq!(queue.count("select jobs from sluice.batches where batch = 'b'").await, 2);
    let worker = queue.worker().await;
    assert_eq!(queue.claim_all(worker).await.len(), 2, "they wait like any other job");
}

#[tokio::test]
async fn failures_answers_from_a_cache_and_cancelled_jobs_have_no_shadow() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 3).await;
    let claimed = queue.claim_all(worker).await;
    let shadow = casting(&claimed[0]).shadow;
    queue.ends_with(EndingRow { shadow: shadow.clone(), ..failure(&claimed[0], ErrorClass::Timeout) }).await;
    let from = CachedEnding { key: CacheKey([1; 32]), from: Some((JobId(1), Some(NanoUsd(1)))) };
    queue.ends_with(EndingRow { cache: Some(from), ..casting(&claimed[1]) }).await;
    queue.run_with("select sluice.cancel($1::bigint)", claimed[2].lease.job.0).await;
    queue.ends_with(casting(&claimed[2])).await;
    assert_eq!((queue.count("select count(*) from sluice.result").await, queue.count(SHADOWS).await), (3, 0));
}

#[tokio::test]
async fn a_shadow_that_the_database_refuses_takes_no_answer_with_it() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue_one().await;
    let job = queue.claim_one(worker).await;
    queue.run("alter table sluice.shadow add constraint none check (target = '')").await;
    let attempts = vec![accepted(&job, 1)];
    queue.settle(Settlement { attempts, endings: vec![casting(&job)], ..Settlement::default() }).await;
    let kept = "select count(*) from sluice.result r join sluice.attempt a using (job_id) where r.state = 'succeeded'";
    assert_eq!((queue.count(kept).await, queue.count(SHADOWS).await), (1, 0));
}

#[tokio::test]
async fn answers_are_compared_by_what_they_say() {
    let call = |id: &str, arguments: &str| {
        let call = json!({ "id": id, "function": { "name": "f", "arguments": arguments } });
        Some(json!({ "choices": [{ "message": { "content": null, "tool_calls": [call] } }] }).to_string())
    };
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    for (one, other, same, fields) in [
        (answer("Paris"), answer(" Paris\n"), Some(true), None),
        (answer("Paris"), answer("paris"), Some(false), None),
        (answer(r#"{"a": 1, "b": [2]}"#), answer(r#"{"b":[2],"a":1.0}"#), Some(true), Some((2, 2))),
        (answer(r#"{"a": 1, "b": 2}"#), answer(r#"{"a":1,"b":3,"c":4}"#), Some(false), Some((3, 1))),
        (answer(r#"{"a": 1}"#), answer("prose"), Some(false), None),
        (call("x", r#"{"q": 1}"#), call("y", r#"{"q":1}"#), Some(true), None),
        (call("x", r#"{"q": 1}"#), call("x", r#"{"q":2}"#), Some(false), None),
        (Some(r#"{"data":[]}"#.to_owned()), Some(r#"{"data":[]}"#.to_owned()), None, None),
    ] {
        queue.run("delete from sluice.shadow").await;
        queue.pair(worker, one.clone(), other.clone()).await;
        let found: (Option<bool>, Option<i32>, Option<i32>) =
            sqlx::query_as("select same, fields, fields_same from sluice.shadows")
                .fetch_one(&queue.pool)
                .await
                .unwrap();
        assert_eq!(found, (same, fields.map(|(all, _)| all), fields.map(|(_, same)| same)), "{one:?} {other:?}");
    }
}

#[tokio::test]
async fn the_report_tells_pairs_costs_and_times_of_both_sides() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.pair(worker, answer("a"), answer("a")).await;
    queue.pair(worker, answer(r#"{"a":1}"#), answer(r#"{"a":2}"#)).await;
    // One that fails, one that waits, and one whose time is over before it was asked.
    queue.enqueue(NewJob::default(), 3).await;
    for job in queue.claim_all(worker).await {
        let attempts = vec![accepted(&job, 1)];
        queue.settle(Settlement { attempts, endings: vec![casting(&job)], ..Settlement::default() }).await;
    }
    let shadows = queue.claim_all(worker).await;
    queue.fail(&shadows[0], ErrorClass::Timeout).await;
    queue.ends_with(EndingRow { attempts: 0, target: None, ..failure(&shadows[1], ErrorClass::Deadline) }).await;
    let by = [Grouping::Route, Grouping::Provider, Grouping::Model];
    let rows = queue.store.shadows(&by, &Filter::default()).await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(by.map(|part| row.keys.get(part).unwrap()), ["default", "two", "m"]);
    let expected = ShadowRow {
        keys: row.keys.clone(),
        pairs: 3,
        both_accepted: 2,
        compared: 2,
        same: 1,
        fields: 1,
        fields_same: 0,
        cost: NanoUsd(90_000),
        unpriced: 0,
        shadow_cost: NanoUsd(60_000),
        shadow_unpriced: 0,
        p50_ms: Some(1200),
        shadow_p50_ms: Some(1200),
        waiting: 1,
        not_asked: 1,
    };
    assert_eq!(*row, expected);
    let of_another = Filter { route: Some("other".to_owned()), ..Filter::default() };
    assert_eq!(queue.store.shadows(&by, &of_another).await.unwrap(), []);
    // Retention drops jobs, and what is said of them goes after them.
    assert_eq!(queue.store.forget_shadows().await.unwrap(), 0);
    queue.run("delete from sluice.job where id in (select job_id from sluice.shadow)").await;
    assert_eq!(queue.store.forget_shadows().await.unwrap(), 5);
}

fn config(rungs: &str, shadow: &str, limit: &str) -> String {
    let provider = |name: &str, price: i64| {
        format!(
            "[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{name}/v1\"\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}\n"
        )
    };
    let (one, two) = (provider("one", 5), provider("two", 1));
    format!(
        "{one}{two}[worker]\nmax_in_flight = 40\n\
         [routes.default]\nrungs = [{rungs}]\npatience = \"0s\"\nmax_tokens = 50\n\
         [routes.default.shadow]\ntarget = \"{shadow}\"\nshare = 1\nlimit = \"{limit}\"\n"
    )
}

fn scenario(of_two: &str) -> String {
    format!(
        "[providers.one]\ndialect = \"openai\"\nmodels.m.price = {{ input = \"5\", output = \"5\" }}\n\
         output = {{ text = \"Paris\" }}\n\
         [providers.two]\ndialect = \"openai\"\nmodels.m.price = {{ input = \"1\", output = \"1\" }}\n{of_two}\n"
    )
}

async fn json_of(fleet: &Fleet, arguments: &[&str]) -> Value {
    let output = fleet.program(&[arguments, &["--format", "json"]].concat()).output().await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

async fn lines_of(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = fleet.program(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn enqueue_batch(fleet: &Fleet, jobs: i64) {
    sqlx::query(
        "insert into sluice.job (batch, custom_id, request)
              select 'b', 'c' || n, jsonb_build_object('prompt', 'question ' || n) from generate_series(1, $1) n",
    )
    .bind(jobs)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

const UNFINISHED: &str = "select count(*) from sluice.jobs where route = 'shadow:default' and finished_at is null";
const ANSWERED: &str = "select count(*) from sluice.results where route = 'default' and state = 'succeeded'";
const ASKED: &str = "select count(*) from sluice.attempts where route = 'shadow:default'";

#[tokio::test(flavor = "multi_thread")]
async fn shadows_are_asked_compared_and_costed_apart_and_answers_stay_what_they_are() {
    const JOBS: i64 = 30;
    let fleet = Fleet::new(&scenario("output = { text = \"Paris\" }"), &config("\"one/m\"", "two/m", "1")).await;
    let worker = fleet.start();
    enqueue_batch(&fleet, JOBS).await;
    until("the shadows have ended", async || {
        fleet.number(SHADOWS).await == JOBS && fleet.number(UNFINISHED).await == 0
    })
    .await;
    worker.stop().await;
    fleet.books_are_in_order(2 * JOBS).await;
    let by_one = "select count(*) from sluice.results where batch = 'b' and provider = 'one' and answer = 'Paris'";
    assert_eq!(fleet.number(by_one).await, JOBS);
    let batch = json_of(&fleet, &["batch", "show", "b"]).await;
    assert_eq!((&batch["jobs"], &batch["succeeded"]), (&json!(JOBS), &json!(JOBS)), "{batch}");
    let exported = lines_of(&fleet, &["results", "b"]).await;
    assert_eq!(exported.lines().count(), usize::try_from(JOBS).unwrap());

    let report = json_of(&fleet, &["report", "shadow"]).await;
    let row = &report[0];
    assert_eq!(
        (&row["route"], &row["provider"], &row["model"]),
        (&json!("default"), &json!("two"), &json!("m")),
        "{report}"
    );
    assert_eq!((&row["pairs"], &row["both_accepted"], &row["answer_only"]), (&json!(JOBS), &json!(JOBS), &json!(0)));
    assert_eq!(row["same"].as_f64(), Some(1.0));
    let spent = async |route: &'static str| {
        let cost = "select sum(cost)::float8 from sluice.results where route = $1";
        sqlx::query_scalar::<_, f64>(cost).bind(route).fetch_one(&fleet.pool).await.unwrap()
    };
    let near = |told: &Value, spent: f64| (told.as_f64().unwrap() - spent).abs() < 1e-9 && spent > 0.0;
    assert!(near(&row["cost"], spent("default").await), "{row}");
    assert!(near(&row["shadow_cost"], spent("shadow:default").await), "{row}");
    // The route's own figures know nothing of them.
    let cost = json_of(&fleet, &["report", "cost", "--by", "route", "--route", "default"]).await;
    assert_eq!((&cost[0]["answered"], &cost[0]["attempts"]), (&json!(JOBS), &json!(JOBS)));
    assert!(near(&cost[0]["cost"], spent("default").await));
    let budget = json_of(&fleet, &["budget", "show", "shadow:default"]).await;
    assert!(budget.to_string().contains("shadow:default"), "{budget}");
    let by_batch = json_of(&fleet, &["report", "shadow", "--by", "batch"]).await;
    assert_eq!(by_batch[0]["batch"], json!("b"));
    // It is a route like any other, also when none of its jobs waits.
    for change in ["pause", "resume"] {
        assert!(lines_of(&fleet, &["route", change, "shadow:default"]).await.contains("shadow:default"));
    }
    for format in ["table", "csv"] {
        assert!(lines_of(&fleet, &["report", "shadow", "--format", format]).await.contains("two"));
    }

    let (job, shadow): (i64, i64) = sqlx::query_as("select job_id, shadow_id from sluice.shadow order by 1 limit 1")
        .fetch_one(&fleet.pool)
        .await
        .unwrap();
    let (job, shadow) = (job.to_string(), shadow.to_string());
    let told = lines_of(&fleet, &["explain", &job]).await;
    assert!(told.contains(&format!("Shadow: job {shadow} ")), "{told}");
    let told = lines_of(&fleet, &["explain", &shadow]).await;
    assert!(told.contains(&format!("It is the shadow of job {job},")), "{told}");
    assert_eq!(json_of(&fleet, &["job", "show", &job]).await["shadow"].to_string(), shadow);
    assert_eq!(json_of(&fleet, &["job", "show", &shadow]).await["shadow_of"].to_string(), job);
    let checked = lines_of(&fleet, &["check"]).await;
    assert!(checked.contains("shadow: 100 % of the accepted jobs also to two/m, for $1.00 a day"), "{checked}");
    // A call may have fifty tokens of output.
    fleet.configure(&config("\"one/m\"", "two/m", "0.00005"));
    let output = fleet.program(&["check"]).output().await.unwrap();
    let warned = "the limit of the shadow of route default is $0.00005, and one call of two/m may cost $0.00005";
    assert!(output.status.success() && text(&output.stderr).contains(warned), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_of_shadows_harms_nothing_and_is_left_alone() {
    const JOBS: i64 = 200;
    let dead = "faults = [{ kind = \"overloaded\" }]";
    let fleet = Fleet::new(&scenario(dead), &config("\"one/m\"", "two/m", "1")).await;
    let worker = fleet.start();
    enqueue_batch(&fleet, JOBS).await;
    until("all jobs are answered", async || fleet.number(ANSWERED).await == JOBS).await;
    let by_one = "select count(*) from sluice.results
                   where route = 'default' and attempts = 1 and provider = 'one' and answer = 'Paris'";
    assert_eq!(fleet.number(by_one).await, JOBS);
    // Each was asked once at most, and none is good for anything.
    let twice = "select count(*) from sluice.results where route = 'shadow:default'
                    and (attempts > 1 or state = 'succeeded')";
    assert_eq!(fleet.number(twice).await, 0);
    let report = json_of(&fleet, &["report", "quality", "--by", "route", "--route", "default"]).await;
    assert_eq!(report[0]["accepted"], json!(JOBS), "{report}");
    // They have failed, and nobody's job has.
    let failed = "select count(*) from sluice.results where route = 'shadow:default' and state = 'failed'";
    until("shadows have failed", async || fleet.number(failed).await >= 1).await;
    let booked = async || {
        let stats = "select stats->>$1 from sluice.worker";
        let of = async |name: &str| {
            let stat: Option<String> = sqlx::query_scalar(stats).bind(name).fetch_one(&fleet.pool).await.unwrap();
            stat.map_or(0, |stat| stat.parse::<i64>().unwrap())
        };
        of("attempts").await == fleet.number("select count(*) from sluice.attempt").await
    };
    until("the worker has told of all its calls", booked).await;
    let status = json_of(&fleet, &["status"]).await;
    let stats = &status["workers"][0]["stats"];
    assert_eq!((&stats["succeeded"], &stats["failed"]), (&json!(JOBS), &json!(0)), "{stats}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_day_holds_and_a_worker_that_drains_leaves_the_rest() {
    const JOBS: i64 = 60;
    // About sixty nano-dollars a token: a call is at most 50 tokens of output and some of the prompt.
    let fleet = Fleet::new(&scenario("output = { tokens = 40 }"), &config("\"one/m\"", "two/m", "0.0005")).await;
    enqueue_batch(&fleet, JOBS).await;
    // It ends although shadows wait for another day.
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fleet.number(ANSWERED).await, JOBS);
    let asked = fleet.number(ASKED).await;
    assert!(asked < JOBS, "{asked}");
    let worker = fleet.start();
    until("the limit is used up, or nearly", async || {
        // Its signal handlers are there before its row.
        let live = "select count(*) from sluice.worker where state = 'live'";
        fleet.number(live).await == 1
            && fleet.number("select count(*) from sluice.budgets where spent > 0.0003").await == 1
    })
    .await;
    let within = "select count(*) from sluice.budgets
                   where name = 'shadow:default' and spent + uncertain + reserved <= \"limit\"";
    assert_eq!(fleet.number(within).await, 1);
    worker.stop().await;
    let spent = "select (sum(cost) * 1e9)::bigint from sluice.attempts where route = 'shadow:default'";
    assert!(fleet.number(spent).await <= 500_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_have_the_limits_of_their_provider_before_shadows() {
    const JOBS: i64 = 20;
    let config = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                  limits = { concurrency = 2 }\n\
                  [models.\"one/m\"]\nprice = { input = \"5\", output = \"5\" }\n\
                  [models.\"one/other\"]\nprice = { input = \"1\", output = \"1\" }\n\
                  [routes.default]\nrungs = [\"one/m\"]\nmax_tokens = 50\n\
                  [routes.default.shadow]\ntarget = \"one/other\"\nshare = 1\nlimit = \"1\"\n";
    let scenario = "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = 0.05 }\n\
                    models.m.price = { input = \"5\", output = \"5\" }\n\
                    models.other.price = { input = \"1\", output = \"1\" }\n";
    let fleet = Fleet::new(scenario, config).await;
    enqueue_batch(&fleet, JOBS).await;
    let worker = fleet.start();
    until("the shadows have ended", async || {
        fleet.number(SHADOWS).await == JOBS && fleet.number(UNFINISHED).await == 0
    })
    .await;
    worker.stop().await;
    let before_a_job = "select count(*) from sluice.attempts s where s.route = 'shadow:default'
                           and s.started_at < (select max(j.started_at) from sluice.attempts j
                                                where j.route = 'default')";
    assert_eq!(fleet.number(before_a_job).await, 0);
}
