//! Which login may see and do what.

use super::{history, json_of};
use crate::support::program::{Program, text};
use crate::support::queue::{Queue, in_an_hour, in_batch, park};
use serde_json::{Value, json};
use sluice::domain::{StopLoss, Timestamp};
use sluice::store::enqueue::{BulkOptions, NewJob};
use sluice::store::report::Filter;
use sluice::store::schedule::{TakenTick, TickNote};
use sluice::store::settle::Settlement;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A connection as a user of its own with these roles. Roles are the cluster's: the name has to be new.
async fn as_user(queue: &Queue, user: &'static str, roles: &'static str) -> PgConnection {
    let create = format!("create role {user} login; grant {roles} to {user}");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&queue.pool).await.unwrap();
    PgConnection::connect_with(&queue.database.connect_options().username(user)).await.unwrap()
}

const CAST_SHADOWS: &str =
    "select sluice.cast_shadows(array_agg(job_id), array_agg('shadow:default'::text), array_agg('p/m'::text), '1 day')
       from sluice.result";

#[tokio::test]
async fn an_enqueuer_sees_its_own_jobs_and_answers_only() {
    let queue = history().await;
    let mut app = as_user(&queue, "test_app", "sluice_enqueuer").await;
    let mut other = as_user(&queue, "test_other_app", "sluice_enqueuer").await;
    let id: i64 =
        sqlx::query_scalar("select sluice.enqueue('{\"prompt\": \"Hi\"}')").fetch_one(&mut app).await.unwrap();
    app.execute("insert into sluice.job (request) values ('{\"prompt\": \"Ho\"}')").await.unwrap();
    let worker = queue.worker().await;
    for claimed in queue.claim_all(worker).await {
        queue.succeed(&claimed).await;
    }
    // Shadows of its jobs are none of those that it has enqueued.
    queue.run(CAST_SHADOWS).await;
    for claimed in queue.claim_all(worker).await {
        queue.succeed(&claimed).await;
    }
    for (view, mine) in [("sluice.jobs", 2_i64), ("sluice.results", 2), ("sluice.attempts", 2)] {
        let count = format!("select count(*) from {view}");
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone())).fetch_one(&mut app).await.unwrap();
        assert_eq!(seen, mine, "{view}");
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(count.clone())).fetch_one(&mut other).await.unwrap();
        assert_eq!(seen, 0, "{view}");
        let all: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&queue.pool).await.unwrap();
        assert!(all > mine, "the owner sees all of {view}");
    }
    let own: i64 =
        sqlx::query_scalar("select job_id from sluice.results order by 1").fetch_one(&mut app).await.unwrap();
    assert_eq!(own, id);
    for forbidden in [
        "select * from sluice.job",
        "select * from sluice.result",
        "select * from sluice.attempt",
        "select * from sluice.totals",
        "update sluice.job set project = 'mine'",
        "insert into sluice.job (enqueued_by, request) values ('somebody', '{}')",
        "select sluice.retry(1::bigint)",
        "select sluice.run_schedule('nightly')",
        "update sluice.schedule set looked_at = now()",
        "select * from sluice.schedule_turn",
        "delete from sluice.ready",
    ] {
        let error = app.execute(forbidden).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{forbidden}: {error}");
    }
}

/// The program, run by a login that exists already.
fn program_of(queue: &Queue, user: &str) -> Program {
    let config = "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
                  base_url = \"http://127.0.0.1:1/v1\"\n\
                  [models.\"one/model\"]\nprice = { input = \"1\", output = \"1\" }\n\
                  [routes.default]\nrungs = [\"one/model\"]\n";
    Program::new(config, &queue.database.url().replace("user=sluice", &format!("user={user}")))
}

/// The command fails for want of a right and says, as its last words, who may.
async fn denied(program: &Program, arguments: &[&str], needs: &str) {
    let output = program.run(arguments).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(error.contains(": this login may not do that; "), "no table is named: {arguments:?}: {error}");
    assert!(error.ends_with(&format!("; this needs {needs}\n")), "{arguments:?}: {error}");
    assert!(!error.contains("at line"), "the line of the server's source: {error}");
    assert_eq!(error.matches("this login").count(), 1, "said once: {error}");
}

#[tokio::test]
async fn an_enqueuer_may_use_the_command_that_enqueues() {
    let queue = history().await;
    as_user(&queue, "test_filer", "sluice_enqueuer").await;
    let program = program_of(&queue, "test_filer");
    let file =
        program.file("in.jsonl", "{\"prompt\":\"a\",\"custom_id\":\"x\"}\n{\"prompt\":\"b\",\"custom_id\":\"y\"}\n");
    let enqueue = ["enqueue", file.to_str().unwrap(), "--format", "csv", "--batch"];
    assert_eq!(
        program.output(&[&enqueue[..], &["mine"]].concat()).await,
        "batch,jobs,existing,faulty,enqueue\nmine,2,0,0,1\n"
    );
    for counts in ["keyed,2,0,0,2", "keyed,0,2,0,"] {
        let output = program.output(&[&enqueue[..], &["keyed", "--idempotent"]].concat()).await;
        assert_eq!(output, format!("batch,jobs,existing,faulty,enqueue\n{counts}\n"));
    }
    for reading in [&["status"][..], &["job", "show", "1"], &["batch", "list"]] {
        denied(&program, reading, "a role such as sluice_reporter").await;
    }
    denied(&program, &["job", "retry", "1"], "a role such as sluice_worker").await;
    denied(&program, &["worker", "--drain"], "a role such as sluice_worker").await;
    // Who has no role at all is told at the first look.
    queue.run("create role test_stranger login").await;
    denied(&program_of(&queue, "test_stranger"), &enqueue[..2], "a role such as sluice_enqueuer").await;
}

#[tokio::test]
async fn a_login_sees_both_shares_of_the_stop_loss_of_its_own_batch() {
    let queue = Queue::new().await;
    let mut app = as_user(&queue, "test_thrifty", "sluice_enqueuer").await;
    let mut other = as_user(&queue, "test_nosy", "sluice_enqueuer").await;
    app.execute("insert into sluice.job (batch, request) values ('mine', '{\"prompt\": \"Ho\"}')").await.unwrap();
    queue.run("select sluice.stop_waste('mine', 0.3)").await;
    let show = ["batch", "show", "mine"];
    let shown = json_of(&program_of(&queue, "test_thrifty"), &show).await;
    assert_eq!((&shown["max_failed"], &shown["max_wasted"]), (&Value::Null, &json!(0.3)), "{shown}");
    queue.run("select sluice.stop_loss('mine', 0.1)").await;
    let shown = json_of(&program_of(&queue, "test_thrifty"), &show).await;
    assert_eq!((&shown["max_failed"], &shown["max_wasted"]), (&json!(0.1), &json!(0.3)), "{shown}");
    let nosy: Option<String> =
        sqlx::query_scalar("select sluice.own_max_wasted('mine')::text").fetch_one(&mut other).await.unwrap();
    assert_eq!(nosy, None, "it has no job there");
}

#[tokio::test]
async fn a_reporter_may_use_every_command_that_only_reads() {
    let queue = history().await;
    as_user(&queue, "test_auditor", "sluice_reporter").await;
    let program = program_of(&queue, "test_auditor");
    let all = queue.enqueue(in_batch("waits"), 2).await;
    let (waiting, running) = (all[0].to_string(), all[1].to_string());
    queue.run("insert into sluice.pause (kind, name) values ('batch', 'waits')").await;
    let worker = queue.worker().await;
    queue.claim(worker, 1).await;
    for reading in [
        &["status"][..],
        &["report", "cost"],
        &["report", "failures"],
        &["report", "fallbacks"],
        &["report", "quality"],
        &["report", "cost", "--by", "login"],
        &["report", "waste"],
        &["report", "latency"],
        &["report", "latency", "--by", "project"],
        &["explain", "1"],
        &["explain", &waiting],
        &["job", "show", &running],
        &["batch", "list"],
        &["batch", "show", "nightly"],
    ] {
        assert!(!program.output(reading).await.is_empty(), "{reading:?}");
    }
    for of_a_batch in ["results", "watch"] {
        let output = program.run(&[of_a_batch, "nightly"]).await;
        assert_eq!(output.status.code(), Some(5), "{of_a_batch}: {}", text(&output.stderr));
        assert!(!output.stdout.is_empty(), "{of_a_batch}");
    }
    for changing in [
        &["job", "retry", "1"][..],
        &["job", "cancel", &waiting],
        &["batch", "cancel", "waits"],
        &["batch", "resume", "waits"],
        &["route", "pause", "default"],
    ] {
        denied(&program, changing, "a role such as sluice_worker").await;
    }
    denied(&program, &["migrate"], "the owner of the schema sluice, or of the database when there is none yet").await;
}

#[tokio::test]
async fn a_reporter_reads_everything_and_changes_nothing() {
    let queue = history().await;
    queue.store.read_buckets(&["openai".to_owned()]).await.unwrap();
    queue.run("update sluice.tally set reasks = 1 where class = ''").await;
    let saved = "insert into sluice.cache_use (hour, route, project, answers, saved_nanos, unpriced)
                      values (now(), 'a', 'b', 1, 1, 0)";
    queue.run(saved).await;
    queue.run("insert into sluice.enqueued (batch, after_job, last_job, jobs) values ('b', 0, 1, 1)").await;
    queue.run("select sluice.set_budget('all', 1, per => 'once')").await;
    let alert = "insert into sluice.alert (rule, subject, severity, state, since, seen_at, fired_at, summary)
                 values ('key_out', 'p/KEY', 'warning', 'firing', now(), now(), now(), 'a summary')";
    queue.run(alert).await;
    queue
        .run("insert into sluice.schedule (name, cron, timezone, enabled) values ('nightly', '@daily', 'UTC', true)")
        .await;
    queue.run("select sluice.run_schedule('nightly')").await;
    queue.run(CAST_SHADOWS).await;
    let mut reporter = as_user(&queue, "test_reporter", "sluice_reporter").await;
    let views: Vec<String> = sqlx::query_scalar("select viewname from pg_views where schemaname = 'sluice'")
        .fetch_all(&queue.pool)
        .await
        .unwrap();
    assert!(views.len() >= 11, "{views:?}");
    for view in views {
        let rows = reporter.fetch_all(AssertSqlSafe(format!("select * from sluice.{view}"))).await.unwrap();
        assert!(!rows.is_empty(), "{view}");
    }
    for forbidden in [
        "select * from sluice.idempotency",
        "select * from sluice.recall",
        "insert into sluice.job (request) values ('{}')",
        "update sluice.job set priority = 1",
        "delete from sluice.result",
        "delete from sluice.ready",
        "insert into sluice.pause (kind, name) values ('route', 'default')",
        "select sluice.enqueue('{}')",
        "select sluice.retry(1::bigint)",
    ] {
        let error = reporter.execute(forbidden).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{forbidden}: {error}");
    }
}

#[tokio::test]
async fn the_worker_role_can_do_all_of_the_work() {
    let queue = Queue::new().await;
    let daemon = as_user(&queue, "test_daemon", "sluice_worker").await;
    drop(daemon);
    let options = queue.database.connect_options().username("test_daemon");
    let store = sluice::store::Store::connect(options, 2).await.unwrap();
    store.require_schema().await.unwrap();
    let queue = Queue { pool: store.pool().clone(), store, database: queue.database };
    queue.enqueue(in_batch("b"), 3).await;
    let worker = queue.worker().await;
    let claimed = queue.claim_all(worker).await;
    queue.succeed(&claimed[0]).await;
    queue.settle(Settlement { parks: vec![park(&claimed[1], Some(in_an_hour()))], ..Settlement::default() }).await;
    queue.store.beat(worker, &sluice::domain::statistics::Statistics::default()).await.unwrap();
    queue.silence(worker).await;
    queue.store.rescue(3).await.unwrap();
    queue.store.promote().await.unwrap();
    queue.store.fold_tally().await.unwrap();
    queue.store.ensure_partitions().await.unwrap();
    queue.store.forget_workers().await.unwrap();
    assert_eq!(queue.store.cancel_batch("b", |_| {}).await.unwrap(), 2);
    assert_eq!(queue.store.retry_batch("b", |_| {}).await.unwrap(), 2);
    assert_eq!(queue.store.status().await.unwrap().routes["default"].ready.rows, 2);
    assert_eq!(queue.store.totals(&[], &Filter::default()).await.unwrap()[0].succeeded, 1);
    runs_a_schedule(&queue).await;
}

/// Everything that a worker does for a schedule.
async fn runs_a_schedule(queue: &Queue) {
    queue
        .run(
            "insert into sluice.schedule (name, cron, timezone, enabled) values ('nightly', '@daily', 'UTC', true);
             insert into sluice.schedule_turn (schedule) values ('nightly')",
        )
        .await;
    assert!(queue.store.pause_schedule("nightly", Some("closed")).await.unwrap());
    assert!(queue.store.resume_schedule("nightly").await.unwrap());
    let at = Timestamp(queue.store.ask_for_tick("nightly").await.unwrap().timestamp_millis());
    assert_eq!(queue.store.schedules_at().await.unwrap().open.len(), 1);
    let note = |at| TickNote { schedule: "nightly".to_owned(), at, by_hand: true, worker: None };
    let options = BulkOptions {
        route: "default".to_owned(),
        project: "default".to_owned(),
        batch: Some("nightly-1".to_owned()),
        priority: 0,
        run_at: None,
        deadline: None,
        max_attempts: None,
    };
    let taken = queue.store.take_tick(&note(at), options.clone()).await.unwrap();
    let TakenTick::Open { mut bulk, last: None } = taken else { panic!("{taken:?}") };
    let busy = queue.store.take_tick(&note(at), options.clone()).await.unwrap();
    assert!(matches!(busy, TakenTick::Busy), "{busy:?}");
    let request = r#"{"prompt": "x"}"#;
    let job = NewJob { custom_id: None, idempotency_key: None, metadata: None, request };
    bulk.push(&job).await.unwrap();
    assert_eq!(bulk.commit_tick(note(at), StopLoss::default()).await.unwrap().jobs, 1);
    let over = queue.store.take_tick(&note(at), options.clone()).await.unwrap();
    assert!(matches!(over, TakenTick::Over), "{over:?}");
    let later = Timestamp(at.0 + 1000);
    let taken = queue.store.take_tick(&note(later), options).await.unwrap();
    let TakenTick::Open { bulk, last } = taken else { panic!("{taken:?}") };
    assert_eq!(last, Some(("nightly-1".to_owned(), 1)));
    bulk.rollback().await.unwrap();
    assert!(queue.store.skip_ticks(&[(note(later), "for a test".to_owned())]).await.unwrap());
    queue.store.fail_tick(&note(Timestamp(at.0 + 2000)), 1, None, "for a test").await.unwrap();
    let ticks = queue.store.ticks(Some("nightly"), 9).await.unwrap();
    let states: Vec<&str> = ticks.iter().map(|tick| tick.state.as_str()).collect();
    assert_eq!(states, ["failed", "skipped", "done"]);
    assert_eq!(queue.store.forget_ticks(std::time::Duration::from_hours(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn the_owner_of_the_schema_sees_what_others_enqueued() {
    let queue = history().await;
    // As on a hosted Postgres: owner of a database, no superuser, member of none of our roles.
    queue
        .run(
            "create role test_owner login;
             alter schema sluice owner to test_owner;
             grant select on sluice.jobs, sluice.results to test_owner",
        )
        .await;
    let mut owner = PgConnection::connect_with(&queue.database.connect_options().username("test_owner")).await.unwrap();
    let seen: i64 = sqlx::query_scalar("select count(*) from sluice.jobs").fetch_one(&mut owner).await.unwrap();
    assert_eq!(seen, 5);
}
