//! How Postgres runs the statements of a worker, by the plans that it writes into its log. No statement reads a whole
//! table of the queue, or a whole partition, regardless of what Postgres knew of the tables when it made the plan.

use crate::support::clock;
use crate::support::cluster::OwnCluster;
use crate::support::queue::{accepted, failed, failure, park, success};
use serde_json::Value;
use sluice::domain::rotation::{Rotation, WINDOW};
use sluice::domain::{ErrorClass, NanoUsd, Target, Timestamp};
use sluice::store::call::OpenCall;
use sluice::store::claim::{Claimed, Lease, Take};
use sluice::store::quota::Rewrite;
use sluice::store::settle::Settlement;
use sluice::store::{Address, Pooler, Purpose, Store};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{PgPool, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The tables that grow with the work, and those that churn.
const TABLES: [&str; 7] = ["job", "result", "attempt", "inflight", "race_call", "ready", "parked"];

/// A few words of each statement that a worker runs all day.
const HOT: [(&str, &str); 23] = [
    ("lanes", "with recursive step as"),
    ("a sweep for lanes", "with swept as materialized"),
    ("claim", "picked as materialized"),
    ("history", "as \"current_round!\""),
    ("open", "set call_number = c.number"),
    ("open beside", "insert into sluice.race_call as r"),
    (
        "calls of races that are over",
        "using unnest($1::bigint[], $2::bigint[], $3::smallint[]) c(job_id, fence, number)\n          where r.",
    ),
    ("claims that end", "i.round, w.is_fault"),
    ("endings that were sent before", "and r.fence = w.fence limit 1"),
    ("attempts that are booked", "select t.placeholder from sluice.attempt t"),
    ("parks", "waiting as (\n    insert into sluice.parked"),
    ("late", "-- Of two late answers for one job"),
    ("what was booked for a call", "and a.placeholder"),
    ("beat", "update sluice.worker\n"),
    ("rescue, calls", "with orphan as materialized"),
    ("rescue, jobs", "poison as ("),
    ("a lost claim", "fence <> all ($2)"),
    ("giving a lost claim back", "with lost as ("),
    ("wake", "with due as materialized"),
    ("next due", "select nullif(least(first.run_at"),
    ("fold", "from sluice.tally limit $1"),
    ("calls under other claims", "and a.fence <> w.fence limit 1"),
    ("calls of claims that are gone", "where i.is_held is null"),
];

/// A server that writes down the plan of every statement that the login `planned` runs, those in functions included.
struct Stage {
    cluster: OwnCluster,
    url: String,
}

impl Stage {
    async fn new() -> Self {
        let cluster = OwnCluster::start().await;
        let url = cluster.url.replace("user=sluice", "user=planned");
        let stage = Self { cluster, url };
        stage
            .run(
                "create role planned login in role sluice_worker;
                 alter role planned set session_preload_libraries = 'auto_explain';
                 alter role planned set auto_explain.log_min_duration = 0;
                 alter role planned set auto_explain.log_nested_statements = on;
                 alter role planned set auto_explain.log_format = json",
            )
            .await;
        stage
    }

    async fn run(&self, statements: &'static str) {
        sqlx::raw_sql(statements).execute(&self.cluster.pool).await.unwrap();
    }

    async fn store(&self, pooler: Pooler) -> Store {
        let options: PgConnectOptions = self.url.parse().unwrap();
        Store::connect_through(pooler, Purpose::Work, &Address::of(options), 2).await.unwrap()
    }

    async fn enqueue(&self, count: i32) {
        sqlx::query(
            "insert into sluice.job (request, batch)
                  select jsonb_build_object('prompt', n), 'b' || n % 2 from generate_series(1, $1) n",
        )
        .bind(count)
        .execute(&self.cluster.pool)
        .await
        .unwrap();
    }

    /// As if the lease of this worker had run out.
    async fn silence(&self, worker: i64) {
        sqlx::query("update sluice.worker set lease_until = now() - interval '1 s' where id = $1")
            .bind(worker)
            .execute(&self.cluster.pool)
            .await
            .unwrap();
    }

    /// The plans since the log was so long.
    fn plans(&self, since: usize) -> Vec<Plan> {
        let log = self.cluster.log();
        log[since..]
            .split(" plan:\n")
            .skip(1)
            .map(|said| {
                let lines = said.lines().take_while(|line| line.starts_with('\t'));
                let json: String = lines.flat_map(|line| [line, "\n"]).collect();
                let plan: Value = serde_json::from_str(&json).unwrap();
                Plan { statement: plan["Query Text"].as_str().unwrap().to_owned(), top: plan["Plan"].clone() }
            })
            .collect()
    }
}

struct Plan {
    statement: String,
    top: Value,
}

impl Plan {
    /// The reads from end to end among the tables that count.
    fn whole_reads(&self) -> Vec<String> {
        let mut found = Vec::new();
        whole_reads(&self.top, false, &mut found);
        found
    }
}

/// The table behind a name: `job_p0` is a part of `job`.
fn table(relation: &str) -> &str {
    match relation.rsplit_once("_p") {
        Some((table, part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => table,
        _ => relation,
    }
}

fn whole_reads(node: &Value, is_cut: bool, found: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or("");
    let relation = node["Relation Name"].as_str().unwrap_or("");
    let is_whole = match kind {
        "Seq Scan" => true,
        // A walk along an index from its beginning is as long, unless the caller wants no more than the first rows.
        "Index Scan" | "Index Only Scan" => node["Index Cond"].is_null() && !is_cut,
        // The condition stands below.
        "Bitmap Heap Scan" => {
            node["Plans"].as_array().is_none_or(|plans| plans.iter().any(|p| p["Index Cond"].is_null()))
        }
        _ => false,
    };
    if is_whole && TABLES.contains(&table(relation)) {
        found.push(format!("{kind} of {relation}"));
    }
    // Lists of a statement are taken for short, regardless of their length.
    let lists = node["Plans"].as_array().into_iter().flatten().filter(|below| below["Node Type"] == "CTE Scan").count();
    if kind == "Nested Loop" && lists > 1 {
        found.push("each of one list with each of another".to_owned());
    }
    let passes_on = ["LockRows", "Result", "Subquery Scan", "Append", "Merge Append", "ProjectSet"].contains(&kind);
    for below in node["Plans"].as_array().into_iter().flatten() {
        whole_reads(below, kind == "Limit" || (is_cut && passes_on), found);
    }
}

async fn claim(store: &Store, worker: i64, count: i32) -> Vec<Claimed> {
    let lanes = store.lanes().await.unwrap();
    let takes: Vec<Take> =
        lanes.iter().map(|lane| Take { flow: lane.flow, prio: lane.prio, after: 0, count }).collect();
    store.claim(worker, &takes, usize::MAX).await.unwrap().jobs
}

fn call(claimed: &Claimed) -> OpenCall {
    OpenCall {
        lease: claimed.lease,
        number: claimed.attempts + 1,
        target: Target::new("openai", "gpt-4o-mini"),
        rung: 0,
        started_at: Timestamp(clock::millis()),
        worst: Some(NanoUsd(900)),
        labels: Arc::new(claimed.labels()),
    }
}

async fn open(store: &Store, jobs: &[Claimed]) {
    let calls: Vec<OpenCall> = jobs.iter().map(call).collect();
    assert_eq!(store.open_calls(&calls, 0).await.unwrap().unwrap().len(), jobs.len());
}

fn answered(claimed: &Claimed) -> Settlement {
    Settlement {
        attempts: vec![accepted(claimed, claimed.attempts + 1)],
        endings: vec![success(claimed)],
        ..Settlement::default()
    }
}

/// What workers do all day, each of it at least once; all jobs have ended well or badly afterwards.
async fn a_day(stage: &Stage, store: &Store) {
    stage.enqueue(12).await;
    let (worker, _) = store.register("host", 1, "0.0.0").await.unwrap();
    store.installation().await.unwrap();
    store.pauses().await.unwrap();
    store.pauses_and_budgets().await.unwrap();
    let jobs = claim(store, worker, 3).await;
    assert_eq!(jobs.len(), 6);
    open(store, &jobs).await;
    let beside: Vec<OpenCall> = jobs.iter().map(|job| OpenCall { number: 2, ..call(job) }).collect();
    assert_eq!(store.open_race_calls(&beside, 0).await.unwrap().unwrap().len(), jobs.len());
    let [good, again, waits, faulty, lost, also_lost] = &jobs[..] else { panic!("six jobs") };
    let overdue = Timestamp(clock::millis() - 1000);
    let mut fault = failure(faulty, ErrorClass::Abandoned);
    fault.attempts = 1;
    let mut won = success(good);
    won.raced = true;
    let settlement = Settlement {
        attempts: vec![
            accepted(good, 1),
            failed(again, 1, ErrorClass::ServerError),
            failed(waits, 1, ErrorClass::ServerError),
        ],
        endings: vec![won, fault],
        parks: [(again, None), (waits, Some(overdue))]
            .map(|(job, until)| {
                let mut row = park(job, until);
                (row.attempts, row.raced) = (1, true);
                row
            })
            .into(),
    };
    store.settle(&settlement).await.unwrap();
    // Sent once more, because no answer told its outcome.
    store.settle(&settlement).await.unwrap();
    store.next_due().await.unwrap();
    assert_eq!(store.promote().await.unwrap(), 1);
    assert_eq!(store.give_back_unknown(worker, &[lost.lease.fence]).await.unwrap(), 1);
    store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    // The worker falls silent, and lives; another one takes the lost jobs, and a third nothing.
    let (heir, _) = store.register("host", 2, "0.0.0").await.unwrap();
    stage.silence(worker).await;
    store.rescue(3).await.unwrap();
    let taken = claim(store, heir, 1000).await;
    let tried: Vec<Lease> = taken.iter().filter(|job| job.attempts > 0).map(|job| job.lease).collect();
    assert!(!store.history(&tried).await.unwrap().is_empty());
    open(store, &taken).await;
    assert_eq!(store.settle(&answered(lost)).await.unwrap(), []);
    assert_eq!(store.settle(&answered(also_lost)).await.unwrap(), []);
    store.beat(heir, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    for job in taken.iter().filter(|job| ![lost.lease.job, also_lost.lease.job].contains(&job.lease.job)) {
        assert_eq!(store.settle(&answered(job)).await.unwrap(), []);
    }
    while store.fold_tally().await.unwrap().rows > 0 {}
    let (buckets, _) = store.read_buckets(&["one".to_owned()]).await.unwrap();
    let rewrites: Vec<Rewrite> = buckets
        .into_values()
        .map(|register| Rewrite { id: register.id, from: register.version, state: register.state })
        .collect();
    store.write_buckets(&rewrites).await.unwrap();
    store.standings().await.unwrap();
    store.declare_dead(&[heir]).await.unwrap();
    // Dies with a job in its hands.
    stage.enqueue(1).await;
    let (third, _) = store.register("host", 3, "0.0.0").await.unwrap();
    open(store, &claim(store, third, 1).await).await;
    stage.silence(third).await;
    assert_eq!(store.rescue(1).await.unwrap().poisoned, 1);
    store.ensure_partitions().await.unwrap();
    store.forget_workers().await.unwrap();
    store.begin_partition(Duration::from_hours(2)).await.unwrap();
    store.retire(Duration::from_hours(20)).await.unwrap();
    store.sign_off(heir).await.unwrap();
    many_lanes(stage, store).await;
}

/// More lanes than one look reads, for a while.
async fn many_lanes(stage: &Stage, store: &Store) {
    stage
        .run("insert into sluice.job (batch, request) select 'lane ' || n, '{}' from generate_series(1, 3000) n")
        .await;
    let mut rotation = Rotation::default();
    for _ in 0..3 {
        let look = store.look(&mut rotation, &[], 0).await.unwrap();
        assert!(!look.is_all && look.lanes.len() > WINDOW / 2);
    }
    stage.run("delete from sluice.ready; delete from sluice.job where batch like 'lane %'").await;
}

/// What the statements of a day read from end to end.
async fn whole_reads_of_a_day(stage: &Stage, store: &Store) -> BTreeSet<String> {
    let since = stage.cluster.log().len();
    a_day(stage, store).await;
    let plans = stage.plans(since);
    for (name, words) in HOT {
        assert!(plans.iter().any(|plan| plan.statement.contains(words)), "{name} was not seen");
    }
    let of_plan =
        |plan: &Plan| plan.whole_reads().into_iter().map(|read| format!("{read} in\n{}", plan.statement)).collect();
    plans.iter().flat_map(|plan| -> Vec<String> { of_plan(plan) }).collect()
}

/// Then the planner knows that they are empty, and not only that it knows nothing of them.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_a_worker_reads_a_whole_table_where_all_were_vacuumed_while_they_were_empty() {
    let stage = Stage::new().await;
    stage.run("vacuum analyze").await;
    for pooler in [Pooler::None, Pooler::Transaction] {
        let store = stage.store(pooler).await;
        let faults = whole_reads_of_a_day(&stage, &store).await;
        assert!(faults.is_empty(), "{} plans:\n{}", faults.len(), Vec::from_iter(faults).join("\n\n"));
        store.close().await;
    }
    stage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_a_worker_reads_a_whole_table_however_old_its_plan_is() {
    let stage = Stage::new().await;
    // Its plans are made while every table is empty.
    let (old, pooled) = (stage.store(Pooler::None).await, stage.store(Pooler::Transaction).await);
    let mut faults = BTreeSet::new();
    for (state, change) in [
        ("a new database", "select 1"),
        (
            "a partition that is full",
            "insert into sluice.job (id, request) select n, '{}' from generate_series(100000, 120000) n;
             delete from sluice.ready where job_id between 100000 and 120000;
             insert into sluice.result (job_id, fence, state, attempts)
                  select n, n, 'succeeded', 1 from generate_series(100000, 120000) n;
             insert into sluice.attempt (job_id, fence, number, round, provider, model, started_at, ended_at, total_ms,
                                         accepted, usage_source)
                  select n, n, 1, 0, 'p', 'm', now(), now(), 1, true, 'provider' from generate_series(100000, 120000) n;
             alter sequence sluice.job_id_seq restart with 130000;
             vacuum analyze",
        ),
        ("an empty partition beside a full one", "alter sequence sluice.job_id_seq restart with 10000000"),
        // As after a vacuum that came when nothing was in hand, in the midst of full days.
        (
            "tables that the planner takes for empty",
            "analyze sluice.inflight, sluice.ready, sluice.parked, sluice.job_p1, sluice.result_p1, sluice.attempt_p1",
        ),
    ] {
        // One statement at a time: `vacuum` takes no company.
        for statement in change.split(";\n").map(str::trim) {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&stage.cluster.pool).await.unwrap();
        }
        let new = stage.store(Pooler::None).await;
        for store in [&old, &new, &pooled] {
            faults.extend(whole_reads_of_a_day(&stage, store).await.into_iter().map(|read| format!("{state}: {read}")));
        }
        new.close().await;
    }
    assert!(faults.is_empty(), "{} plans:\n{}", faults.len(), Vec::from_iter(faults).join("\n\n"));
    old.close().await;
    pooled.close().await;
    stage.cluster.stop().await;
}

/// Takes up, calls and ends this many jobs, fifty at a time, as a worker does.
async fn work(store: &Store, worker: i64, jobs: i32) {
    const AT_ONCE: i32 = 50;
    let lane = store.lanes().await.unwrap().remove(0);
    let mut done = 0;
    while done < jobs {
        let take = Take { flow: lane.flow, prio: lane.prio, after: i64::MIN, count: AT_ONCE };
        let taken = store.claim(worker, &[take], usize::MAX).await.unwrap().jobs;
        assert_eq!(taken.len(), usize::try_from(AT_ONCE).unwrap());
        open(store, &taken).await;
        let mut settlement = Settlement::default();
        for job in &taken {
            settlement.attempts.push(accepted(job, 1));
            settlement.endings.push(success(job));
        }
        assert_eq!(store.settle(&settlement).await.unwrap(), []);
        done += AT_ONCE;
    }
}

/// How many rows sequential scans have read so far, by table and partition.
async fn read_in_sequence(pool: &PgPool) -> BTreeMap<String, i64> {
    let question = "select pg_stat_force_next_flush();
                    select relname, seq_tup_read from pg_stat_user_tables where schemaname = 'sluice'";
    let rows = sqlx::raw_sql(question).fetch_all(pool).await.unwrap();
    let of_row = |row: PgRow| Some((row.try_get("relname").ok()?, row.try_get("seq_tup_read").ok()?));
    let read = rows.into_iter().filter_map(of_row);
    read.filter(|(name, _): &(String, i64)| TABLES.contains(&table(name))).collect()
}

/// A plan that was made when a table was empty would read the whole table for each batch, and the longer the day, the
/// more. So it is rows that are counted: how many a batch reads must not grow with the jobs that ended before.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_jobs_have_ended_the_next_ones_read_no_table_in_sequence() {
    const JOBS: i32 = 1_000;
    let cluster = OwnCluster::start().await;
    for pooler in [Pooler::None, Pooler::Transaction] {
        let address = Address::of(cluster.url.parse().unwrap());
        // One connection, so that its plans are as old as they can be.
        let store = Store::connect_through(pooler, Purpose::Work, &address, 1).await.unwrap();
        let (worker, _) = store.register("host", 1, "0.0.0").await.unwrap();
        // In new tables, and in those of a partition that begins.
        for _ in 0..2 {
            let before = read_in_sequence(&cluster.pool).await;
            sqlx::query("insert into sluice.job (request) select '{}' from generate_series(1, $1)")
                .bind(JOBS)
                .execute(&cluster.pool)
                .await
                .unwrap();
            work(&store, worker, JOBS).await;
            // What a session has read is told when it ends at the latest.
            sqlx::raw_sql("select pg_stat_force_next_flush()").execute(store.pool()).await.unwrap();
            let after = read_in_sequence(&cluster.pool).await;
            let more = |(name, read): (&String, &i64)| {
                let rows = read - before.get(name).copied().unwrap_or(0);
                (rows > 0).then(|| format!("{rows} of {name}"))
            };
            let grown: Vec<String> = after.iter().filter_map(more).collect();
            assert!(grown.is_empty(), "{pooler:?}: {JOBS} jobs have read {}", grown.join(", "));
            let parts = "select count(*) from pg_class where relname ~ '^result_p[0-9]+$'";
            let old: i64 = sqlx::query_scalar(parts).fetch_one(&cluster.pool).await.unwrap();
            // The next numbers belong to another partition.
            sqlx::raw_sql(
                "select setval('sluice.job_id_seq', (last_value / 10000000 + 1) * 10000000)
                             from sluice.job_id_seq",
            )
            .execute(&cluster.pool)
            .await
            .unwrap();
            store.ensure_partitions().await.unwrap();
            let new: i64 = sqlx::query_scalar(parts).fetch_one(&cluster.pool).await.unwrap();
            assert!(new > old, "no partition has begun");
        }
        store.close().await;
    }
    cluster.stop().await;
}

/// The conditions of each scan of this table: the one by which it finds rows, and the one by which it leaves some out.
fn scans_of<'a>(table: &str, node: &'a Value, found: &mut Vec<[&'a Value; 2]>) {
    if node["Relation Name"] == table && node["Node Type"] != "ModifyTable" {
        found.push([&node["Index Cond"], &node["Filter"]]);
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        scans_of(table, below, found);
    }
}

/// All keys of a project read for each key that comes in would take minutes for some ten thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_looked_up_by_itself_however_little_is_known_of_the_tables() {
    let stage = Stage::new().await;
    let store = stage.store(Pooler::None).await;
    let many = "select count(*) from sluice.enqueue_many((select jsonb_agg(jsonb_build_object(
                    'request', n, 'idempotency_key', 'key ' || n)) from generate_series($1::bigint, $2::bigint) n))";
    let since = stage.cluster.log().len();
    // All new, all known, some of both; and by a plain insert.
    for (first, last) in [(1_i64, 200_i64), (1, 200), (150, 300)] {
        sqlx::query(many).bind(first).bind(last).execute(store.pool()).await.unwrap();
    }
    sqlx::raw_sql(
        "insert into sluice.job (request, idempotency_key) select '{}', 'another ' || n from generate_series(1, 200) n",
    )
    .execute(store.pool())
    .await
    .unwrap();
    let mut seen = 0;
    for plan in stage.plans(since) {
        // As long as nothing is refused, no second look is taken.
        assert!(!plan.statement.contains("sluice.refuse"), "{}", plan.statement);
        let mut scans = Vec::new();
        for table in ["idempotency", "idempotency_unowned"] {
            scans_of(table, &plan.top, &mut scans);
        }
        // Without any condition it is asked whether there is a row at all.
        scans.retain(|conditions| conditions.iter().any(|condition| !condition.is_null()));
        seen += scans.len();
        for [found_by, _] in scans {
            assert!(found_by.to_string().contains("(key = "), "{found_by} in\n{}", plan.statement);
        }
    }
    assert!(seen > 5, "{seen}");
    store.close().await;
    stage.cluster.stop().await;
}

/// What a worker that drains asks, over and over: it finds the jobs that wait for a retry, or that none does, without
/// reading those that are scheduled for later or paused.
#[tokio::test(flavor = "multi_thread")]
async fn whether_something_is_left_is_found_without_reading_all_that_is_parked() {
    let stage = Stage::new().await;
    stage
        .run(
            "insert into sluice.job (request, run_at)
                  select '{}', now() + n * interval '1 s' from generate_series(1000, 50000) n;
             update sluice.parked set reason = 'paused', run_at = '9999-12-31 00:00:00+00' where job_id % 10 = 0;
             analyze sluice.parked",
        )
        .await;
    let routes = ["default".to_owned()];
    for pooler in [Pooler::None, Pooler::Transaction] {
        let store = stage.store(pooler).await;
        let since = stage.cluster.log().len();
        assert!(!store.outstanding(&routes).await.unwrap());
        stage.run("update sluice.parked set reason = 'p/m: timeout' where job_id = 777").await;
        assert!(store.outstanding(&routes).await.unwrap());
        stage.run("update sluice.parked set reason = 'scheduled' where job_id = 777").await;
        let asked: Vec<Plan> =
            stage.plans(since).into_iter().filter(|plan| plan.statement.contains("\"busy!\"")).collect();
        assert_eq!(asked.len(), 2);
        for plan in asked {
            let mut indexes = BTreeSet::new();
            scans_of_parked(&plan.top, &mut indexes);
            assert_eq!(Vec::from_iter(indexes), ["parked_run_at", "parked_waiting"], "{:#}", plan.top);
        }
        store.close().await;
    }
    stage.cluster.stop().await;
}

/// By which index each scan of the parked jobs goes. A bitmap of them names it one node further down.
fn scans_of_parked(node: &Value, found: &mut BTreeSet<String>) {
    let by_bitmap = node["Node Type"] == "Bitmap Heap Scan";
    let index_of_it = node["Node Type"] == "Bitmap Index Scan"
        && node["Index Name"].as_str().is_some_and(|index| index.starts_with("parked"));
    if (node["Relation Name"] == "parked" && !by_bitmap) || index_of_it {
        found.insert(node["Index Name"].as_str().unwrap_or("none").to_owned());
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        scans_of_parked(below, found);
    }
}
