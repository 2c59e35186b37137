//! The database goes back in time, while workers live and spools wait: numbers are given out again, and no data is
//! taken for another job's.

use crate::failover::{CONFIG, SCENARIO, execute, pool, synchronous_pair};
use crate::support::clock;
use crate::support::fleet::{Fleet, Process, stop};
use crate::support::proxy::{Proxy, Weather};
use crate::support::queue::Queue;
use crate::support::server::Server;
use crate::support::wait::until;
use sluice::domain::diagnosis::{Severity, Thresholds, diagnose};
use sluice::domain::timeline::Change;
use sluice::domain::{JobId, Timestamp};
use sluice::journal::{NextItem, Records};
use sluice::store::Store;
use sluice::store::doctor::{LookTime, Surroundings};
use sluice::store::timeline::Loss;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use std::collections::{BTreeMap, BTreeSet, HashSet};

mod numbers;

const WARNED: &str = "New jobs are numbered from";

// ------------------------------------------------------------------------------------------------- real servers

async fn enqueue(pool: &PgPool, name: &str, jobs: i32) {
    sqlx::query(
        "insert into sluice.job (batch, request)
              select $1, jsonb_build_object('prompt', $1 || ', question ' || n) from generate_series(1, $2) n",
    )
    .bind(name)
    .bind(jobs)
    .execute(pool)
    .await
    .unwrap();
}

/// How many jobs of a batch have ended well.
async fn answered(pool: &PgPool, name: &str) -> i64 {
    let answered = "select count(*) from sluice.results where batch = $1 and state = 'succeeded'";
    sqlx::query_scalar(answered).bind(name).fetch_one(pool).await.unwrap()
}

async fn until_answered(pool: &PgPool, name: &str, jobs: i64) {
    until(name, async || answered(pool, name).await >= jobs).await;
}

async fn text(pool: &PgPool, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

/// Each call of the simulator has a row of its own, and each answer is that of its own job.
async fn every_call_is_booked_for_its_own_job(fleet: &Fleet) {
    let calls = fleet.calls();
    let made: BTreeSet<String> = calls.iter().map(|call| call.request_id.clone()).collect();
    let booked: Vec<String> = sqlx::query_scalar("select request_id from sluice.attempt where request_id is not null")
        .fetch_all(&fleet.pool)
        .await
        .unwrap();
    let distinct: BTreeSet<String> = booked.iter().cloned().collect();
    assert_eq!(distinct.len(), booked.len(), "no call is booked twice");
    let missing: Vec<&String> = made.difference(&distinct).collect();
    let unnamed = fleet.number("select count(*) from sluice.attempt where request_id is null").await;
    assert_eq!(i64::try_from(missing.len()).unwrap(), unnamed, "not on the ledger: {missing:?}");
    let request_of: BTreeMap<&str, &str> =
        calls.iter().map(|call| (call.request_id.as_str(), call.request.as_str())).collect();
    let rows = sqlx::query(
        "select j.request ->> 'prompt', r.request_id from sluice.result r join sluice.job j on j.id = r.job_id",
    )
    .fetch_all(&fleet.pool)
    .await
    .unwrap();
    let (mut by_prompt, mut by_request) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let (prompt, id): (String, String) = (row.get(0), row.get(1));
        let request = (*request_of.get(id.as_str()).unwrap()).to_owned();
        by_prompt.entry(prompt.clone()).or_insert_with(BTreeSet::new).insert(request.clone());
        by_request.entry(request).or_insert_with(BTreeSet::new).insert(prompt);
    }
    assert!(by_prompt.values().all(|requests| requests.len() == 1), "{by_prompt:?}");
    assert!(by_request.values().all(|prompts| prompts.len() == 1), "an answer went to another job: {by_request:?}");
    let faults = Store::from_pool(fleet.pool.clone()).audit().await.unwrap().faults();
    assert_eq!(faults, Vec::<String>::new());
}

fn warnings(workers: &[Process]) -> usize {
    workers.iter().map(|worker| worker.said().matches(WARNED).count()).sum()
}

/// What the doctor says of a check: how bad, and what.
async fn diagnosis(pool: &PgPool, check: &str) -> Option<(Severity, String)> {
    let around = Surroundings {
        private: false,
        connections_each: 1,
        routes: HashSet::new(),
        providers: HashSet::new(),
        schedules: HashSet::new(),
        retention: None,
    };
    let facts = Store::from_pool(pool.clone()).facts(&around, LookTime::LONG).await;
    let findings = diagnose(&facts, Thresholds::default());
    findings.into_iter().find(|finding| finding.check == check).map(|finding| (finding.severity, finding.what))
}

/// A worker has renewed its lease, and was told so, after this.
async fn until_beaten(fleet: &Fleet, workers: i64) {
    let beats = "select coalesce(sum((stats ->> 'beats')::bigint), 0)::bigint from sluice.worker";
    let before = fleet.number(beats).await;
    until("the workers have renewed their leases", async || fleet.number(beats).await >= before + 3 * workers).await;
}

async fn histories(fleet: &Fleet) -> i64 {
    fleet.number("select count(*) from sluice.timeline").await
}

async fn migrated(server: &Server) {
    execute(server, "postgres", "create database sluice").await;
    Store::from_pool(pool(server)).migrate().await.unwrap();
}

/// No process reaches the database any more, and answers wait on the disk: the worker is killed with them.
async fn a_spool_that_waits(fleet: &Fleet, proxy: &Proxy, mut worker: Process, jobs: i32) {
    enqueue(&fleet.pool, "spooled", jobs).await;
    let calls = fleet.verdict().total.calls;
    until("calls are under way", async || fleet.verdict().total.calls >= calls + 8).await;
    proxy.set(Weather::Refuse);
    worker.until_said("they wait in the spool", 1).await;
    let made = fleet.verdict().total.calls;
    until("all calls are answered", async || u64::try_from(fleet.calls().len()).unwrap() >= made).await;
    until("their answers are on the disk", async || {
        let mut lines = 0;
        for path in fleet.spools() {
            let journal = std::fs::read(path).unwrap();
            let mut records = Records::new(&journal[..], 0);
            while let Ok(NextItem::Record(_)) = records.read_next() {
                lines += 1;
            }
        }
        // The first says whose it is.
        lines > 8
    })
    .await;
    worker.kill().await;
    proxy.set(Weather::Clear);
}

/// What the worker remembers is written to the new primary before the jobs, which are open again there, can be claimed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_remembers_is_not_bought_again_after_a_failover_that_lost_it() {
    const JOBS: i64 = 40;
    let primary = Server::primary();
    migrated(&primary).await;
    let standby = primary.standby();
    let url = format!(
        "postgres://sluice@127.0.0.1:{},127.0.0.1:{}/sluice?target_session_attrs=read-write",
        primary.port, standby.port
    );
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    let workers = fleet.start_many(1).await;
    execute(&primary, "sluice", "insert into sluice.pause (kind, name) values ('batch', 'open')").await;
    enqueue(&fleet.pool, "open", 40).await;
    until_beaten(&fleet, 1).await;
    let behind =
        "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 1)::bigint from pg_stat_replication";
    until("the standby has all of it", async || fleet.number(behind).await == 0).await;
    execute(&standby, "postgres", "alter system set primary_conninfo = ''").await;
    execute(&standby, "postgres", "select pg_reload_conf()").await;
    until("the stream is cut", async || fleet.number("select count(*) from pg_stat_replication").await == 0).await;
    execute(&primary, "sluice", "delete from sluice.pause").await;
    until_answered(&fleet.pool, "open", JOBS).await;
    primary.crash();
    standby.promote();
    fleet.pool = pool(&standby);
    execute(&standby, "sluice", "delete from sluice.pause").await;
    until_answered(&fleet.pool, "open", JOBS).await;
    every_call_is_booked_for_its_own_job(&fleet).await;
    let said = workers.iter().map(Process::said).collect::<String>();
    assert_eq!(i64::try_from(fleet.verdict().total.calls).unwrap(), JOBS, "nothing was bought twice:\n{said}");
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_behind_takes_over_and_every_call_is_booked_and_none_for_another_job() {
    let primary = Server::primary();
    migrated(&primary).await;
    let standby = primary.standby();
    let url = format!(
        "postgres://sluice@127.0.0.1:{},127.0.0.1:{}/sluice?target_session_attrs=read-write",
        primary.port, standby.port
    );
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    let workers = fleet.start_many(2).await;
    enqueue(&fleet.pool, "before", 20).await;
    until_answered(&fleet.pool, "before", 20).await;
    execute(&primary, "sluice", "insert into sluice.pause (kind, name) values ('batch', 'open')").await;
    enqueue(&fleet.pool, "open", 12).await;
    let behind =
        "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 1)::bigint from pg_stat_replication";
    until("the standby has all of it", async || fleet.number(behind).await == 0).await;

    execute(&standby, "postgres", "alter system set primary_conninfo = ''").await;
    execute(&standby, "postgres", "select pg_reload_conf()").await;
    until("the stream is cut", async || fleet.number("select count(*) from pg_stat_replication").await == 0).await;
    // From here on it is lost: answers of jobs that the standby knows, and jobs that it does not know with theirs.
    execute(&primary, "sluice", "delete from sluice.pause").await;
    enqueue(&fleet.pool, "lost", 60).await;
    until_answered(&fleet.pool, "open", 12).await;
    until_answered(&fleet.pool, "lost", 60).await;
    until_beaten(&fleet, 2).await;
    enqueue(&fleet.pool, "under way", 60).await;
    until("calls are under way", async || answered(&fleet.pool, "under way").await >= 8).await;
    primary.crash();
    standby.promote();
    fleet.pool = pool(&standby);
    // At once, before a worker has noticed anything: these get the numbers of lost ones.
    enqueue(&fleet.pool, "after", 30).await;
    let again = fleet.number("select min(id) from sluice.job where batch = 'after'").await;
    assert!(again < 200, "{again}");
    until_answered(&fleet.pool, "after", 30).await;
    until("a worker has noticed it", async || histories(&fleet).await == 2).await;
    until("a worker has written it again", async || {
        fleet.number("select count(*) from sluice.attempt where round = -1").await >= 60
    })
    .await;
    execute(&standby, "sluice", "delete from sluice.pause").await;
    until_answered(&fleet.pool, "open", 12).await;
    until_beaten(&fleet, 2).await;
    enqueue(&fleet.pool, "later", 10).await;
    until_answered(&fleet.pool, "later", 10).await;
    let said = workers.iter().map(Process::said).collect::<String>();

    every_call_is_booked_for_its_own_job(&fleet).await;
    // The worker that notices first need not be the one whose commits are gone: each of the two is told once.
    let of_the_loss = said.matches("commits that were confirmed are lost").count();
    assert_eq!(of_the_loss, 1, "{said}");
    assert!(warnings(&workers) <= 2, "{said}");
    assert_eq!(histories(&fleet).await, 2);
    let noted = text(
        &fleet.pool,
        "select concat_ws(' ', change, timeline, lost_to is not null, lost_from < lost_to, next_job)
           from sluice.timeline
          where number = 2",
    )
    .await;
    assert_eq!(noted, "timeline 2 t t 2000000", "{said}");
    let later = fleet.number("select min(id) from sluice.job where batch = 'later'").await;
    assert!(later >= 2_000_000, "numbers that may have been lost are left out: {later}");
    // Answers that were written lately were remembered, and are not bought again.
    let twice = fleet
        .number(
            "select count(*) from (select request ->> 'prompt' from sluice.job j join sluice.attempt a
        on a.job_id = j.id and a.round >= 0 where batch = 'open' group by 1 having count(*) > 1) t",
        )
        .await;
    assert_eq!(twice, 0);
    let (severity, what) = diagnosis(&fleet.pool, "timeline").await.unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(what.contains("from timeline 1 to 2") && what.contains("commits that were confirmed are lost"), "{what}");
    let stray = fleet.number("select sum(lost_calls)::bigint from sluice.timeline").await;
    assert_eq!(stray, fleet.number("select count(*) from sluice.attempt where round = -1").await);
    let (severity, what) = diagnosis(&fleet.pool, "lost_calls").await.unwrap();
    assert_eq!(severity, Severity::Warning);
    assert!(
        what.starts_with(&format!("{stray} calls were for jobs that are not in the database any more ($")),
        "{what}"
    );
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_in_order_is_said_once_and_that_nothing_need_be_lost() {
    let (primary, standby) = synchronous_pair().await;
    let url = format!(
        "postgres://sluice@127.0.0.1:{},127.0.0.1:{}/sluice?target_session_attrs=read-write",
        primary.port, standby.port
    );
    let mut fleet = Fleet::over(pool(&primary), &url, SCENARIO, CONFIG);
    let workers = fleet.start_many(2).await;
    enqueue(&fleet.pool, "before", 20).await;
    until_answered(&fleet.pool, "before", 20).await;
    primary.stop();
    standby.promote();
    fleet.pool = pool(&standby);
    until("a worker has noticed it", async || histories(&fleet).await == 2).await;
    enqueue(&fleet.pool, "after", 20).await;
    until_answered(&fleet.pool, "after", 20).await;
    until_beaten(&fleet, 2).await;
    assert_eq!(warnings(&workers), 1);
    let said = workers.iter().map(Process::said).collect::<String>();
    assert!(
        said.contains("from timeline 1 to 2") && said.contains("with a synchronous standby nothing need be"),
        "{said}"
    );
    assert!(!said.contains("are lost"), "{said}");
    let (severity, what) = diagnosis(&fleet.pool, "timeline").await.unwrap();
    assert!(severity == Severity::Warning && what.contains("nothing need be"), "{what}");
    assert_eq!(diagnosis(&fleet.pool, "lost_calls").await, None);
    fleet.books_are_in_order(40).await;
    assert_eq!(fleet.number("select count(*) from sluice.attempt").await, 40, "nothing was bought twice");
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_restored_into_the_same_cluster_while_a_spool_waits() {
    let server = Server::primary();
    migrated(&server).await;
    let proxy = Proxy::to(&server.socket()).await;
    let mut fleet = Fleet::over(pool(&server), &proxy.url("sluice", "sluice"), SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    enqueue(&fleet.pool, "before", 10).await;
    until_answered(&fleet.pool, "before", 10).await;
    server.dump("sluice");
    a_spool_that_waits(&fleet, &proxy, worker, 40).await;
    fleet.pool.close().await;
    execute(&server, "postgres", "drop database sluice with (force)").await;
    execute(&server, "postgres", "create database sluice").await;
    server.restore_dump("sluice");
    fleet.pool = pool(&server);
    // An application goes on before any worker does.
    enqueue(&fleet.pool, "after", 40).await;
    the_spool_is_taken_over(&fleet, "database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_is_restored_to_a_point_in_time_while_a_spool_waits() {
    let server = Server::archiving();
    migrated(&server).await;
    let backup = server.backup().unwrap();
    let proxy = Proxy::to(&server.socket()).await;
    let mut fleet = Fleet::over(pool(&server), &proxy.url("sluice", "sluice"), SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    enqueue(&fleet.pool, "before", 10).await;
    until_answered(&fleet.pool, "before", 10).await;
    execute(&server, "postgres", "select pg_create_restore_point('noon')").await;
    a_spool_that_waits(&fleet, &proxy, worker, 40).await;
    execute(&server, "postgres", "select pg_switch_wal()").await;
    let archived = "select (last_archived_wal is not null and last_archived_wal >= (select \
                    pg_walfile_name(pg_current_wal_lsn() - 1)))::integer::bigint from pg_stat_archiver";
    execute(&server, "postgres", "checkpoint").await;
    until("the WAL is in the archive", async || {
        fleet.number(archived).await == 1 || {
            execute(&server, "postgres", "select pg_switch_wal()").await;
            false
        }
    })
    .await;
    server.crash();
    backup.restore_to(&server, "noon");
    proxy.lead_to(&backup.socket());
    fleet.pool = pool(&backup);
    let in_recovery = "select pg_is_in_recovery()::integer::bigint";
    until("it is a primary", async || {
        sqlx::query_scalar::<_, i64>(in_recovery).fetch_one(&fleet.pool).await.is_ok_and(|waits| waits == 0)
    })
    .await;
    enqueue(&fleet.pool, "after", 40).await;
    the_spool_is_taken_over(&fleet, "timeline").await;
}

/// A new worker begins on a database that is from before the spool.
async fn the_spool_is_taken_over(fleet: &Fleet, change: &str) {
    let spooled = fleet.verdict().total.calls - 10;
    assert!(spooled >= 8);
    let heir = fleet.start();
    until_answered(&fleet.pool, "after", 40).await;
    let said = heir.said();
    assert_eq!(warnings(std::slice::from_ref(&heir)), 1, "{said}");
    let noted = text(
        &fleet.pool,
        "select string_agg(concat_ws(' ', change, next_job), ', ' order by number) from sluice.timeline",
    )
    .await;
    assert_eq!(noted, format!("first, {change} 2000000"), "{said}");
    // The outcomes that the database had forgotten when the worker was killed are known nowhere; those in the spool
    // are.
    let stray = fleet.number("select sum(lost_calls)::bigint from sluice.timeline").await;
    let booked = fleet.number("select count(*) from sluice.attempt where round = -1 and answer is not null").await;
    assert!(stray >= 8, "{said}");
    assert_eq!(stray, booked, "each with its answer");
    let wrong = "select count(*) from sluice.result r
                   join sluice.attempt a on a.job_id = r.job_id and a.request_id = r.request_id
                  where a.round = -1";
    assert_eq!(fleet.number(wrong).await, 0, "no answer went to another job");
    assert!(fleet.spools().len() <= 1, "the spool is empty and gone");
    let (severity, what) = diagnosis(&fleet.pool, "lost_calls").await.unwrap();
    assert!(severity == Severity::Warning && what.contains(&format!("{stray} calls")), "{what}");
    enqueue(&fleet.pool, "later", 5).await;
    until_answered(&fleet.pool, "later", 5).await;
    assert!(fleet.number("select min(id) from sluice.job where batch = 'later'").await >= 2_000_000);
    assert_eq!(Store::from_pool(fleet.pool.clone()).audit().await.unwrap().faults(), Vec::<String>::new());
    heir.stop().await;
}

/// The same cluster, database and timeline: only a worker that lives through it can know.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_files_is_brought_back_under_a_worker_that_lives() {
    let server = Server::primary();
    migrated(&server).await;
    let mut fleet = Fleet::over(pool(&server), &server.url("sluice"), SCENARIO, CONFIG);
    let worker = fleet.start();
    fleet.until_live(1).await;
    enqueue(&fleet.pool, "before", 10).await;
    until_answered(&fleet.pool, "before", 10).await;
    fleet.pool.close().await;
    server.take_snapshot();
    fleet.pool = pool(&server);
    until_beaten(&fleet, 1).await;
    enqueue(&fleet.pool, "lost", 10).await;
    until_answered(&fleet.pool, "lost", 10).await;
    fleet.pool.close().await;
    server.bring_snapshot_back();
    fleet.pool = pool(&server);
    until("the worker has noticed it", async || histories(&fleet).await == 2).await;
    until("what was settled last is written again", async || {
        fleet.number("select count(*) from sluice.attempt where round = -1").await == 10
    })
    .await;
    enqueue(&fleet.pool, "after", 10).await;
    until_answered(&fleet.pool, "after", 10).await;
    every_call_is_booked_for_its_own_job(&fleet).await;
    let noted =
        text(&fleet.pool, "select concat_ws(' ', change, lost_to is not null) from sluice.timeline where number = 2");
    assert_eq!(noted.await, "went_back t");
    assert_eq!(warnings(std::slice::from_ref(&worker)), 1, "{}", worker.said());
    assert!(worker.said().contains("a snapshot or a backup was brought back"), "{}", worker.said());
    worker.stop().await;
}

// --------------------------------------------------------------------------------------------- what is noticed

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_notice_a_change_one_does_what_there_is_to_do() {
    for (change, statement) in [
        (Change::Cluster, "update sluice.timeline set system_identifier = system_identifier + 1"),
        (Change::Database, "update sluice.timeline set database = database + 1"),
        (Change::Tables, "update sluice.timeline set relation = relation + 1"),
        (Change::Timeline, "update sluice.timeline set timeline = timeline + 1"),
    ] {
        let queue = Queue::new().await;
        queue.enqueue_one().await;
        assert_eq!(queue.store.look_at_timeline(None, false).await.unwrap().number, None, "a template has none");
        let first = queue.store.look_at_timeline(None, true).await.unwrap();
        assert_eq!((first.number, first.news), (Some(1), None));
        queue.run(statement).await;
        let looks = (0..8).map(|_| queue.store.look_at_timeline(None, true));
        let looked: Vec<_> = futures_util::future::join_all(looks).await.into_iter().map(Result::unwrap).collect();
        assert!(looked.iter().all(|looked| looked.number == Some(2)), "{looked:?}");
        let news: Vec<_> = looked.into_iter().filter_map(|looked| looked.news).collect();
        assert_eq!(news.iter().map(|turn| turn.change).collect::<Vec<_>>(), [change]);
        assert_eq!(queue.enqueue_one().await, 2_000_000, "the numbers went on once");
        assert!(queue.worker().await >= 2_000_000);
        assert_eq!(queue.store.look_at_timeline(None, true).await.unwrap().news, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_behind_the_highest_that_is_known_and_have_partitions() {
    let queue = Queue::new().await;
    queue.store.look_at_timeline(None, true).await.unwrap();
    queue.enqueue_one().await;
    let worker = queue.worker().await;
    let mut far = queue.claim_one(worker).await;
    far.lease.job = JobId(95_500_000);
    queue.store.knows_of_jobs(std::iter::once(far.lease));
    let looked = queue.store.look_at_timeline(None, true).await.unwrap();
    assert_eq!(looked.news.unwrap().change, Change::WentBack);
    assert_eq!(queue.enqueue_one().await, 97_000_000);
    let missing = "select count(*) from generate_series(0, 10) p
                    where to_regclass('sluice.job_p' || p) is null or to_regclass('sluice.attempt_p' || p) is null";
    assert_eq!(queue.count(missing).await, 0);
    assert_eq!(queue.store.look_at_timeline(None, true).await.unwrap().news, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_known_is_noted_with_the_change_that_brought_it_and_otherwise_is_one() {
    let queue = Queue::new().await;
    queue.store.look_at_timeline(None, true).await.unwrap();
    let at = |seconds: i64| Timestamp(clock::millis() + seconds * 1000);
    let before = Loss { from: Some(at(-20)), to: at(-10) };
    queue.run("update sluice.timeline set timeline = timeline + 1").await;
    assert!(queue.store.look_at_timeline(None, true).await.unwrap().news.unwrap().lost_to.is_none());
    // Another worker knows what the change took.
    let looked = queue.store.look_at_timeline(Some(before), true).await.unwrap();
    assert!(looked.number == Some(2) && looked.news.unwrap().lost_to.is_some());
    let looked = queue.store.look_at_timeline(Some(before), true).await.unwrap();
    assert_eq!((looked.number, looked.news), (Some(2), None), "it is said once");
    // This came later: another loss.
    let later = Loss { from: Some(at(10)), to: at(20) };
    let looked = queue.store.look_at_timeline(Some(later), true).await.unwrap();
    assert_eq!((looked.number, looked.news.map(|turn| turn.change)), (Some(3), Some(Change::WentBack)));
    assert_eq!(queue.enqueue_one().await, 4_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_is_another_history_and_a_copy_of_a_template_is_none() {
    let queue = Queue::new().await;
    assert_eq!(queue.count("select count(*) from sluice.timeline").await, 0);
    queue.store.look_at_timeline(None, true).await.unwrap();
    let name = text(&queue.pool, "select current_database()").await;
    queue.pool.close().await;
    queue.store.close().await;
    let admin = PgPool::connect_with(queue.database.connect_options().database("postgres")).await.unwrap();
    let copy = format!("create database {name}_copy template {name}");
    until("the original is free", async || sqlx::query(AssertSqlSafe(copy.clone())).execute(&admin).await.is_ok())
        .await;
    let copied =
        PgPool::connect_with(queue.database.connect_options().database(&format!("{name}_copy"))).await.unwrap();
    let looked = Store::from_pool(copied.clone()).look_at_timeline(None, true).await.unwrap();
    assert_eq!(looked.news.unwrap().change, Change::Database);
    copied.close().await;
    sqlx::query(AssertSqlSafe(format!("drop database {name}_copy"))).execute(&admin).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_another_worker_has_is_not_taken_for_ones_own() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let stats = |life: &str, beats: i64| sluice::domain::statistics::Statistics {
        life: Some(life.to_owned()),
        beats: Some(beats),
        ..sluice::domain::statistics::Statistics::default()
    };
    assert!(queue.store.beat(worker, &stats("a", 1)).await.unwrap().alive);
    let beat = queue.store.beat(worker, &stats("a", 2)).await.unwrap();
    assert!(beat.alive && beat.known && beat.before.unwrap().0 == 1, "{beat:?}");
    let other = queue.store.beat(worker, &stats("b", 7)).await.unwrap();
    assert!(!other.alive && !other.known && other.before.is_none(), "{other:?}");
    let unborn = queue.store.beat(worker + 1, &stats("c", 7)).await.unwrap();
    assert!(!unborn.alive && !unborn.known, "{unborn:?}");
}
