//! Batches that are paused when too many of their jobs fail: by SQL, by the store, by command, and with real workers.

use crate::support::fleet::{Fleet, stop};
use crate::support::program::{Program, text};
use crate::support::queue::{NewJob, Queue, in_an_hour, in_batch, park, rejected};
use crate::support::wait::until;
use serde_json::{Value, json};
use sluice::domain::pause::PauseKind;
use sluice::domain::stop_loss::{Exceeded, exceeded, wasted};
use sluice::domain::{ErrorClass, MaxFailed};
use sluice::exit_code::ExitCode;
use sluice::store::settle::Settlement;
use sluice::store::stop_loss::Watched;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const CONFIG: &str = "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                      [routes.default]\nrungs = [\"local/m\"]\n\
                      [routes.careful]\nrungs = [\"local/m\"]\nmax_failed = 0.25\n";

fn share(text: &str) -> MaxFailed {
    MaxFailed::parse(text).unwrap()
}

impl Queue {
    /// Claims jobs and lets some of them fail, the others succeed.
    async fn end(&self, worker: i64, failing: usize, succeeding: usize) {
        let claimed = self.claim(worker, i32::try_from(failing + succeeding).unwrap()).await;
        assert_eq!(claimed.len(), failing + succeeding, "so many jobs are ready");
        for (index, job) in claimed.iter().enumerate() {
            if index < failing {
                self.fail(job, ErrorClass::InvalidRequest).await
            } else {
                self.succeed(job).await
            };
        }
    }

    /// The batches that are to be paused now.
    async fn lost(&self) -> Vec<(Watched, Exceeded)> {
        let watched = self.store.watched_batches().await.unwrap();
        let lost = |watched: Watched| {
            exceeded(watched.max_failed, watched.standing, &watched.before).map(|exceeded| (watched, exceeded))
        };
        watched.into_iter().filter_map(lost).collect()
    }

    /// Pauses the batches that are to be paused, as upkeep does; returns the reasons.
    async fn stop_losses(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (watched, exceeded) in self.lost().await {
            if self.store.stop_batch(&watched, &exceeded).await.unwrap() {
                reasons.push(exceeded.to_string());
            }
        }
        reasons
    }

    /// Lets the failures so far be noted long ago.
    async fn forget_due(&self) {
        self.run("update sluice.stop_loss set failed_at = now() - interval '2 minutes'").await;
        self.store.watched_batches().await.unwrap();
        assert_eq!(self.count("select count(*) from sluice.stop_loss where due").await, 0);
    }
}

#[tokio::test]
async fn a_batch_is_paused_once_with_the_reason_and_others_are_not() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 100).await;
    assert!(queue.store.set_stop_loss("b", Some(share("0.05"))).await.unwrap());
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    queue.end(worker, 5, 20).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "5 of 100 is the share");
    queue.end(worker, 1, 0).await;
    let lost = queue.lost().await;
    let reason = "stop-loss: 6 of 26 jobs failed, more than 5 %";
    // Two workers have counted the same.
    assert!(queue.store.stop_batch(&lost[0].0, &lost[0].1).await.unwrap());
    assert!(!queue.store.stop_batch(&lost[0].0, &lost[0].1).await.unwrap());
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "it is paused");
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.paused, batch.pause_reason.as_deref()), (true, Some(reason)));
    assert_eq!(batch.max_failed, Some(share("0.05")));
    assert_eq!(queue.store.stopped_by_loss("b").await.unwrap().as_deref(), Some(reason));
    let job = queue.count("select min(job_id) from sluice.ready").await;
    let job = queue.store.job(sluice::domain::JobId(job)).await.unwrap().unwrap();
    let pause = job.obstacle.as_ref().and_then(|obstacle| obstacle.pause());
    assert_eq!(pause.and_then(|pause| pause.why.as_deref()), Some(reason));
    let view = "select count(*) from sluice.batches where batch = 'b' and max_failed = 0.05 and paused \
                and pause_reason like 'stop-loss: 6 of 26%'";
    assert_eq!(queue.count(view).await, 1);

    // A batch without a stop-loss fails as it likes.
    queue.enqueue(in_batch("other"), 12).await;
    queue.run("delete from sluice.ready r using sluice.job j where j.id = r.job_id and j.batch = 'b'").await;
    queue.end(worker, 12, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    assert!(!queue.store.batch("other").await.unwrap().unwrap().paused);
}

impl Queue {
    /// Claims jobs: the answers of so many are rejected once, and those of so many accepted, at 30 microdollars each.
    async fn spend(&self, worker: i64, wasted: usize, well_spent: usize) {
        let claimed = self.claim(worker, i32::try_from(wasted + well_spent).unwrap()).await;
        assert_eq!(claimed.len(), wasted + well_spent, "so many jobs are ready");
        for (index, job) in claimed.iter().enumerate() {
            if index < wasted {
                let attempts = vec![rejected(job, 1, "not_json")];
                let parks = vec![park(job, Some(in_an_hour()))];
                self.settle(Settlement { attempts, parks, ..Settlement::default() }).await;
            } else {
                self.succeed(job).await;
            }
        }
    }

    /// Pauses what wastes too much, as upkeep does; returns the reasons.
    async fn wasteful(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for watched in self.store.watched_batches().await.unwrap() {
            let Some(max_wasted) = watched.max_wasted else { continue };
            let lost = wasted(max_wasted, watched.standing, watched.outgo, &watched.outgo_before);
            if let Some(lost) = lost
                && self.store.stop_batch(&watched, &lost).await.unwrap()
            {
                reasons.push(lost.to_string());
            }
        }
        reasons
    }
}

#[tokio::test]
async fn a_batch_is_paused_when_too_much_of_its_money_brings_no_answer() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 100).await;
    assert!(queue.store.set_stop_waste("b", Some(share("0.3"))).await.unwrap());
    queue.spend(worker, 9, 9).await;
    assert_eq!(queue.wasteful().await, Vec::<String>::new(), "nine calls say little");
    queue.forget_due().await;
    // No job has failed for good: the rejected call marks the batch.
    queue.spend(worker, 1, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "all jobs may fail");
    let reason = "stop-loss: $0.0003 of $0.00057 brought no answer, more than 30 %";
    assert_eq!(queue.wasteful().await, [reason]);
    let batch = queue.store.batch("b").await.unwrap().unwrap();
    assert_eq!((batch.pause_reason.as_deref(), batch.max_wasted), (Some(reason), Some(share("0.3"))));
    // The view has both shares, and none where all may fail.
    let view = "select count(*) from sluice.batches where batch = 'b' and max_wasted = 0.3 and max_failed is null";
    assert_eq!(queue.count(view).await, 1);
    assert_eq!(queue.store.stopped_by_loss("b").await.unwrap().as_deref(), Some(reason));
    // The money wasted before the batch was resumed is forgiven.
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    queue.spend(worker, 9, 1).await;
    assert_eq!(queue.wasteful().await, Vec::<String>::new());
    queue.spend(worker, 1, 0).await;
    let again = "stop-loss: $0.0003 of $0.00033 brought no answer since it was resumed, more than 30 %";
    assert_eq!(queue.wasteful().await, [again]);
    // Another share that was given meanwhile counts, and an old count does not pause for it.
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    queue.spend(worker, 10, 0).await;
    let watched = queue.store.watched_batches().await.unwrap().remove(0);
    assert!(queue.store.set_stop_waste("b", Some(share("0.9"))).await.unwrap());
    assert!(!queue.store.stop_batch(&watched, &"wasted").await.unwrap());
    // Each of the two shares goes without the other.
    assert!(queue.store.set_stop_loss("b", Some(share("0.1"))).await.unwrap());
    let both = "select count(*) from sluice.batches where batch = 'b' and max_wasted = 0.9 and max_failed = 0.1";
    assert_eq!(queue.count(both).await, 1);
    assert!(queue.store.set_stop_loss("b", None).await.unwrap());
    assert!(!queue.store.set_stop_loss("b", None).await.unwrap());
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().max_wasted, Some(share("0.9")));
    assert!(queue.store.set_stop_waste("b", None).await.unwrap());
    assert!(!queue.store.set_stop_waste("b", None).await.unwrap());
    assert_eq!(queue.count("select count(*) from sluice.stop_loss").await, 0);
    for (statement, expected) in [
        ("select sluice.stop_waste('b', 1.5)", "max_wasted: is 1.5; expected a share from 0 to 1, such as 0.3"),
        ("select sluice.stop_waste('b', 0.0000001)", "expected at most six decimals"),
        ("select sluice.stop_waste('', 0.5)", "expected the name of a batch"),
    ] {
        let error = sqlx::query(statement).execute(&queue.pool).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_resumed_batch_is_not_paused_by_the_failures_from_before() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 100).await;
    queue.store.set_stop_loss("b", Some(share("0.05"))).await.unwrap();
    queue.end(worker, 8, 2).await;
    assert_eq!(queue.stop_losses().await, ["stop-loss: 8 of 10 jobs failed, more than 5 %"]);
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    assert_eq!(queue.store.stopped_by_loss("b").await.unwrap(), None);
    queue.end(worker, 4, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "4 of the 90 that were left");
    queue.end(worker, 1, 5).await;
    let again = "stop-loss: 5 of 10 jobs failed since it was resumed, more than 5 %";
    assert_eq!(queue.stop_losses().await, [again]);
    // A pause by hand takes nothing back: what failed goes on counting.
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    queue.end(worker, 3, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    assert!(queue.store.pause(PauseKind::Batch, "b", None).await.unwrap());
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    queue.end(worker, 2, 0).await;
    assert_eq!(queue.stop_losses().await, ["stop-loss: 5 of 5 jobs failed since it was resumed, more than 5 %"]);
}

#[tokio::test]
async fn a_job_that_is_retried_counts_anew() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 100).await;
    queue.store.set_stop_loss("b", Some(share("0.05"))).await.unwrap();
    queue.end(worker, 12, 0).await;
    assert_eq!(queue.stop_losses().await.len(), 1);
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    assert_eq!(queue.store.retry_batch("b", |_| {}).await.unwrap(), 12);
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    // All of them fail once more, and no count was taken between.
    queue.end(worker, 12, 0).await;
    assert_eq!(queue.stop_losses().await, ["stop-loss: 12 of 12 jobs failed, more than 5 %"]);
    // Those that failed since it was resumed are taken back by their retry.
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    queue.end(worker, 4, 0).await;
    let since = "select count(filtered) from (select sluice.retry(r.job_id) as filtered from sluice.result r \
                 where r.state = 'failed' and r.finished_at >= (select resumed_at from sluice.stop_loss)) f";
    assert_eq!(queue.count(since).await, 4);
    queue.end(worker, 4, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "4 jobs have failed since, each twice");
}

#[tokio::test]
async fn a_batch_that_was_resumed_or_changed_meanwhile_is_not_paused() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 20).await;
    queue.store.set_stop_loss("b", Some(share("0"))).await.unwrap();
    queue.end(worker, 1, 0).await;
    let old = queue.lost().await.remove(0);
    assert_eq!(old.1.to_string(), "stop-loss: 1 of 1 job failed, more than 0 %");
    assert!(queue.store.stop_batch(&old.0, &old.1).await.unwrap());
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
    assert!(!queue.store.stop_batch(&old.0, &old.1).await.unwrap(), "counted before it was resumed");
    queue.end(worker, 1, 0).await;
    let old = queue.lost().await.remove(0);
    queue.store.set_stop_loss("b", Some(share("0.5"))).await.unwrap();
    assert!(!queue.store.stop_batch(&old.0, &old.1).await.unwrap(), "another share");
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    assert!(queue.store.set_stop_loss("b", None).await.unwrap());
    assert!(!queue.store.set_stop_loss("b", None).await.unwrap());
    queue.end(worker, 18, 0).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new());
    assert_eq!(queue.store.batch("b").await.unwrap().unwrap().max_failed, None);
}

#[tokio::test]
async fn sums_are_read_only_for_batches_in_which_jobs_have_failed_lately() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    for batch in ["fine", "failing"] {
        queue.enqueue(in_batch(batch), 10).await;
        queue.store.set_stop_loss(batch, Some(share("0.9"))).await.unwrap();
    }
    queue.forget_due().await;
    for job in queue.claim(worker, 5).await {
        match job.batch.as_deref() {
            Some("fine") => queue.succeed(&job).await,
            _ => queue.fail(&job, ErrorClass::ServerError).await,
        };
    }
    let watched = queue.store.watched_batches().await.unwrap();
    assert_eq!(watched.iter().map(|watched| watched.batch.as_str()).collect::<Vec<_>>(), ["failing"]);
    assert_eq!(watched[0].standing, sluice::domain::stop_loss::Standing { jobs: 10, ended: 5, failed: 5 });
    queue.forget_due().await;
    assert_eq!(queue.store.watched_batches().await.unwrap(), []);
    // A transaction that has the row holds up no settlement, and what fails meanwhile is counted.
    let mut other = PgConnection::connect_with(&queue.database.connect_options()).await.unwrap();
    sqlx::raw_sql("begin; select sluice.stop_loss('failing', 0.4)").execute(&mut other).await.unwrap();
    for job in queue.claim(worker, 1).await.iter().filter(|job| job.batch.as_deref() == Some("failing")) {
        queue.fail(job, ErrorClass::ServerError).await;
    }
    sqlx::raw_sql("commit").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(queue.stop_losses().await, ["stop-loss: 6 of 6 jobs failed, more than 40 %"]);
}

#[tokio::test]
async fn a_job_that_fails_because_workers_died_counts_too() {
    let queue = Queue::new().await;
    queue.enqueue(in_batch("b"), 2).await;
    queue.store.set_stop_loss("b", Some(share("0"))).await.unwrap();
    queue.forget_due().await;
    let worker = queue.worker().await;
    assert_eq!(queue.claim(worker, 1).await.len(), 1);
    queue.silence(worker).await;
    assert_eq!(queue.store.rescue(1).await.unwrap().poisoned, 1);
    assert_eq!(queue.stop_losses().await, ["stop-loss: 1 of 1 job failed, more than 0 %"]);
}

#[tokio::test]
async fn cancelled_jobs_count_neither_as_ended_nor_as_failed() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(in_batch("b"), 40).await;
    queue.store.set_stop_loss("b", Some(share("0.05"))).await.unwrap();
    queue.end(worker, 1, 9).await;
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "1 of 40 is less");
    // Of the 15 that are left beside the cancelled ones, it is more.
    let some = "select count(*) filter (where sluice.cancel(job_id)) from (select job_id from sluice.ready limit 25) r";
    assert_eq!(queue.count(some).await, 25);
    assert_eq!(queue.stop_losses().await, ["stop-loss: 1 of 10 jobs failed, more than 5 %"]);
}

#[tokio::test]
async fn all_jobs_of_a_batch_count_together_and_one_that_has_ended_is_not_paused() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let name = "o'brien/week 1";
    for (route, project) in [("default", "one"), ("other", "one"), ("other", "two")] {
        queue.enqueue(NewJob { route, project, batch: Some(name), priority: 0 }, 6).await;
    }
    queue.store.set_stop_loss(name, Some(share("0.1"))).await.unwrap();
    for job in queue.claim(worker, 5).await {
        queue.fail(&job, ErrorClass::ServerError).await;
    }
    assert_eq!(queue.stop_losses().await, ["stop-loss: 15 of 15 jobs failed, more than 10 %"]);
    queue.store.resume(PauseKind::Batch, name).await.unwrap();
    for job in queue.claim_all(worker).await {
        queue.fail(&job, ErrorClass::ServerError).await;
    }
    assert_eq!(queue.stop_losses().await, Vec::<String>::new(), "nothing is left to stop");
    // Its retry is no longer held by a pause, and counts.
    assert_eq!(queue.store.retry_batch(name, |_| {}).await.unwrap(), 18);
    for job in queue.claim(worker, 1).await {
        queue.fail(&job, ErrorClass::ServerError).await;
    }
    assert_eq!(queue.stop_losses().await, ["stop-loss: 3 of 3 jobs failed, more than 10 %"]);
}

#[tokio::test]
async fn what_is_no_share_is_refused_by_sql_and_only_workers_may_set_one() {
    let queue = Queue::new().await;
    for (call, message) in [
        ("'b', -0.1", "max_failed: is -0.1; expected a share from 0 to 1, such as 0.05"),
        ("'b', 1.5", "max_failed: is 1.5; expected a share from 0 to 1, such as 0.05"),
        ("'b', 5", "max_failed: is 5; expected a share from 0 to 1, such as 0.05"),
        ("'b', 'NaN'", "max_failed: is NaN; expected a share from 0 to 1, such as 0.05"),
        ("'b', 0.0000001", "max_failed: is 0.0000001; expected at most six decimals"),
        ("'', 0.5", "expected the name of a batch"),
        ("null, 0.5", "expected the name of a batch"),
        ("repeat('b', 201), 0.5", "batch: is 201 bytes long; expected at most 200"),
    ] {
        let query = format!("select sluice.stop_loss({call})");
        let error = sqlx::query(AssertSqlSafe(query)).execute(&queue.pool).await.unwrap_err();
        let error = error.as_database_error().unwrap();
        assert_eq!((error.code().as_deref(), error.message()), (Some("22023"), message));
    }
    let set = async |call: &str| -> bool {
        let query = format!("select sluice.stop_loss({call})");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&queue.pool).await.unwrap()
    };
    assert!(set("'b', 0").await && set("'b', 1").await);
    assert!(!set("'b', 0.5, keep => true").await, "it has one");
    assert!(set("'c', 0.5, keep => true").await);
    assert_eq!(
        queue.count("select count(*) from sluice.stop_loss where (batch, max_failed) in (('b', 1), ('c', 0.5))").await,
        2
    );

    let logins = "create role loss_worker login; grant sluice_worker to loss_worker;
                  create role loss_enqueuer login; grant sluice_enqueuer to loss_enqueuer";
    queue.run(logins).await;
    let program = Program::new(CONFIG, &queue.database.url());
    program.file("q.jsonl", "{\"prompt\":\"a\"}\n");
    for (user, may) in [("loss_worker", true), ("loss_enqueuer", false)] {
        let options = queue.database.connect_options().username(user);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let done = sqlx::query("select sluice.stop_loss('b', 0.2)").execute(&mut connection).await;
        let refused = done.err().map(|error| error.as_database_error().unwrap().code().unwrap().into_owned());
        assert_eq!(refused.as_deref(), (!may).then_some("42501"), "{user}");
        connection.close().await.unwrap();

        let url = queue.database.url().replace("user=sluice", &format!("user={user}"));
        let run = async |arguments: &[&str]| {
            program.run(&[&["--database-url", &url, "enqueue", "q.jsonl"], arguments].concat()).await
        };
        let asked = run(&["--batch", &format!("asked-{user}"), "--max-failed", "0.5"]).await;
        let by_route = run(&["--batch", &format!("route-{user}"), "--route", "careful"]).await;
        assert_eq!(by_route.status.code(), Some(0), "{}", text(&by_route.stderr));
        let said = text(&by_route.stderr);
        assert_eq!(said.contains("the batch has no stop-loss: this login may not pause batches"), !may, "{said}");
        let code = if may { ExitCode::Success } else { ExitCode::Usage };
        assert_eq!(asked.status.code(), Some(code as i32), "{}", text(&asked.stderr));
        if !may {
            assert!(text(&asked.stderr).contains("--max-failed: this login may not pause batches"));
        }
    }
    let set = "select count(*) from sluice.stop_loss where batch in ('asked-loss_worker', 'route-loss_worker')";
    assert_eq!(queue.count(set).await, 2);
    assert_eq!(queue.count("select count(*) from sluice.stop_loss where batch like '%enqueuer'").await, 0);
    queue.run("drop role loss_worker, loss_enqueuer").await;
}

#[tokio::test]
async fn commands_set_a_stop_loss_and_say_what_is_wrong_with_one() {
    let queue = Queue::new().await;
    let program = Program::new(CONFIG, &queue.database.url());
    program.file("q.jsonl", "{\"custom_id\":\"a\",\"prompt\":\"a\"}\n");
    let enqueue = async |arguments: &[&str]| program.run(&[&["enqueue", "q.jsonl"], arguments].concat()).await;
    for (given, problem) in [
        ("-0.1", "\"-0.1\" is below 0; expected a share from 0 to 1 in at most six decimals, such as 0.05"),
        ("1.01", "\"1.01\" is above 1"),
        ("5", "\"5\" is above 1"),
        ("a few", "\"a few\" is not a share"),
        ("5%", "\"5%\" is not a share"),
        ("NaN", "\"NaN\" is not a share"),
    ] {
        for command in [
            &["enqueue", "q.jsonl", "--batch", "b", "--max-failed", given][..],
            &["run", "q.jsonl", "-o", "out", "--max-failed", given],
            &["batch", "stop-loss", "b", given],
        ] {
            let refused = program.run(command).await;
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(ExitCode::Usage as i32), "{command:?}: {said}");
            assert!(said.contains(problem), "{command:?}: {said}");
        }
    }
    assert_eq!(queue.count("select count(*) from sluice.job").await, 0);
    let missing = program.run(&["batch", "stop-loss", "b", "0.1"]).await;
    assert_eq!(missing.status.code(), Some(ExitCode::NotFound as i32));

    let max_failed = async |batch: &str| {
        let shown = program.output(&["batch", "show", batch, "--format", "json"]).await;
        serde_json::from_str::<Value>(&shown).unwrap()["max_failed"].clone()
    };
    for (batch, arguments, expected) in [
        ("plain", &[][..], Value::Null),
        ("asked", &["--max-failed", "0.05"], json!(0.05)),
        ("zero", &["--max-failed", "0"], json!(0.0)),
        ("careful", &["--route", "careful"], json!(0.25)),
        ("both", &["--route", "careful", "--max-failed", "1"], json!(1.0)),
    ] {
        let done = enqueue(&[&["--batch", batch], arguments].concat()).await;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert_eq!(max_failed(batch).await, expected, "{batch}");
    }
    // A batch that goes on keeps what it has, unless another share is given.
    for (arguments, expected) in [(&[][..], json!(1.0)), (&["--max-failed", "0.1"], json!(0.1))] {
        let done = enqueue(&[&["--batch", "both", "--append"], arguments].concat()).await;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert_eq!(max_failed("both").await, expected);
    }
    for (share, said) in [
        ("0.125", "batch plain pauses when more than 12.5 % of its jobs fails\n"),
        ("1", "batch plain does not pause, however many of its jobs fail\n"),
        ("none", "batch plain has no stop-loss any more\n"),
        ("none", "batch plain had no stop-loss\n"),
    ] {
        assert_eq!(program.output(&["batch", "stop-loss", "plain", share, "--format", "plain"]).await, said);
    }
    let changed = program.output(&["batch", "stop-loss", "plain", "0.5", "--format", "json"]).await;
    let changed: Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(changed, json!({ "batch": "plain", "max_failed": 0.5, "max_wasted": null, "changed": true }));
    assert!(program.output(&["check"]).await.contains("pause when more than 25 % of them fails"));
    // By money: beside the share of jobs, or alone.
    for (arguments, said) in [
        (
            &["0.5", "--max-wasted", "0.3"][..],
            "batch plain pauses when more than 50 % of its jobs fails, or more than 30 % of its money brings no \
             answer\n",
        ),
        (&["none"], "batch plain pauses when more than 30 % of its money brings no answer\n"),
        (&["--max-wasted", "none"], "batch plain has no stop-loss any more\n"),
    ] {
        let all = [&["batch", "stop-loss", "plain"], arguments, &["--format", "plain"]].concat();
        assert_eq!(program.output(&all).await, said);
    }
    let done = enqueue(&["--batch", "money", "--route", "careful", "--max-wasted", "0.2"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let shown = program.output(&["batch", "show", "money", "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["max_failed"], &shown["max_wasted"]), (&json!(0.25), &json!(0.2)));
}

/// A provider whose answers are empty, one whose answers are good, and a route to each.
async fn two_routes() -> Fleet {
    // Slow, so that jobs are left whenever the worker notices how many have failed.
    let scenario = "[providers.bad]\ndialect = \"openai\"\nlatency = { fixed = \"200ms\" }\n\
                    faults = [{ kind = \"empty\", rate = 1.0 }]\n\
                    [providers.good]\ndialect = \"openai\"\nlatency = { fixed = \"20ms\" }\n";
    Fleet::new(scenario, &routes("bad", "good")).await
}

fn routes(first: &str, second: &str) -> String {
    let [bad, good] = ["bad", "good"].map(|provider| {
        format!(
            "[providers.{provider}]\ndialect = \"openai\"\nbase_url = \"http://simulator/{provider}/v1\"\n\
             breaker = {{ min_calls = 100000 }}\n\
             [models.\"{provider}/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n"
        )
    });
    format!(
        "[worker]\nmax_in_flight = 6\n{bad}{good}\
         [routes.default]\nrungs = [\"{first}/m\"]\nmax_attempts = 1\n\
         [routes.other]\nrungs = [\"{second}/m\"]\nmax_attempts = 1\n"
    )
}

/// A file of so many prompts.
fn prompts(batch: &str, jobs: usize) -> String {
    let lines: Vec<String> = (0..jobs).map(|n| format!("{{\"prompt\":\"{batch} {n}\"}}")).collect();
    lines.join("\n")
}

impl Fleet {
    async fn said_by(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    async fn enqueue_file(&self, route: &str, batch: &str, jobs: usize, arguments: &[&str]) {
        self.file("q.jsonl", &prompts(batch, jobs));
        let command = [&["enqueue", "q.jsonl", "--route", route, "--batch", batch], arguments].concat();
        self.said_by(&command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_is_paused_by_one_of_several_workers_and_goes_on_when_it_is_resumed() {
    let fleet = two_routes().await;
    fleet.enqueue_file("default", "bad", 400, &["--max-failed", "0.05"]).await;
    fleet.enqueue_file("other", "good", 400, &["--max-failed", "0"]).await;
    let workers = fleet.start_many(2).await;
    let paused =
        "select count(*) from sluice.pause where kind = 'batch' and name = 'bad' and reason like 'stop-loss: %'";
    until("the batch is paused", async || fleet.number(paused).await == 1).await;
    // The other batch goes on to its end, and the paused one starts no more.
    fleet.until_answered(400).await;
    let calls = "select count(*) from sluice.inflight";
    until("nothing is under way", async || fleet.number(calls).await == 0).await;
    let left = fleet.number("select count(*) from sluice.ready").await;
    assert!(left > 0, "all have failed before it was paused");
    let reports =
        || -> usize { workers.iter().map(|worker| worker.said().matches("is paused by its stop-loss").count()).sum() };
    until("it is reported", async || reports() > 0).await;

    let status: Value = serde_json::from_str(&fleet.said_by(&["status", "--format", "json"]).await).unwrap();
    let reason = status["paused"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("stop-loss: ") && reason.ends_with(" jobs failed, more than 5 %"), "{reason}");
    let job = fleet.number("select min(job_id) from sluice.ready").await.to_string();
    for command in [&["explain", &job][..], &["job", "show", &job]] {
        let story = fleet.said_by(command).await;
        assert!(story.contains(&format!(": {reason}")), "{story}");
    }
    for command in [&["batch", "list", "--format", "csv"][..], &["batch", "show", "bad", "--format", "csv"]] {
        let shown = fleet.said_by(command).await;
        assert!(shown.contains(&reason), "{shown}");
    }
    assert_eq!(reports(), 1, "one worker pauses it, and says so");
    stop(workers).await;

    // With another provider, and its failed jobs retried, the batch goes on to its end.
    fleet.configure(&routes("good", "good"));
    fleet.said_by(&["batch", "retry", "bad"]).await;
    fleet.said_by(&["batch", "resume", "bad"]).await;
    let worker = fleet.start();
    fleet.until_answered(800).await;
    worker.stop().await;
    fleet.books_are_in_order(800).await;
    assert_eq!(fleet.number("select count(*) from sluice.pause").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_batch_pauses_again_when_more_fail() {
    let fleet = two_routes().await;
    fleet.enqueue_file("default", "bad", 600, &["--max-failed", "0.01"]).await;
    let worker = fleet.start();
    let paused = "select count(*) from sluice.pause where reason like 'stop-loss: %'";
    until("the batch is paused", async || fleet.number(paused).await == 1).await;
    fleet.said_by(&["batch", "resume", "bad"]).await;
    let again = "select count(*) from sluice.pause where reason like '%since it was resumed%'";
    until("the batch is paused again", async || fleet.number(again).await == 1).await;
    worker.until_said("is paused by its stop-loss", 2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_calls_under_way_are_waited_for_when_the_batch_is_paused() {
    let scenario = "[providers.bad]\ndialect = \"openai\"\nlatency = { fixed = \"4s\" }\n\
                    [providers.good]\ndialect = \"openai\"\n";
    let config = routes("bad", "good").replace("max_in_flight = 6", "max_in_flight = 1");
    let fleet = Fleet::new(scenario, &config).await;
    fleet.enqueue_file("default", "b", 2, &[]).await;
    let worker = fleet.start();
    until("a call is under way", async || {
        fleet.number("select count(*) from sluice.inflight where call_number is not null").await == 1
    })
    .await;
    fleet.said_by(&["batch", "pause", "b", "--reason", "stop-loss: one of two jobs failed"]).await;
    let output = fleet.program(&["results", "b", "--follow", "-o", "followed.jsonl"]).output().await.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(ExitCode::Failure as i32), "{said}");
    let followed = std::fs::read_to_string(fleet.file("q.jsonl", "").with_file_name("followed.jsonl")).unwrap();
    assert_eq!(followed.lines().count(), 1, "{followed}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_when_its_batch_is_paused_and_says_how_it_goes_on() {
    let fleet = two_routes().await;
    let file = fleet.file("q.jsonl", &prompts("question", 600));
    let run = ["run", "q.jsonl", "--batch", "b", "-o", "out.jsonl", "--max-failed", "0.01"];
    let output = fleet.program(&run).output().await.unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(ExitCode::Failure as i32), "{said}");
    assert!(said.contains("batch b is paused (stop-loss: "), "{said}");
    assert!(said.contains("`sluice batch resume b` lets it go on"), "{said}");
    assert!(said.contains("run q.jsonl --batch b -o out.jsonl") && !said.contains("--resume"), "{said}");
    // Until it is resumed it ends in the same way, and so does what only looks on.
    for looks_on in [&["watch", "b"][..], &["results", "b", "--follow", "-o", "followed.jsonl"]] {
        let output = fleet.program(looks_on).output().await.unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(ExitCode::Failure as i32), "{said}");
        assert!(said.contains("batch b is paused (stop-loss: "), "{said}");
        assert!(said.contains("`sluice batch resume b` lets it go on"), "{said}");
    }
    // Each answer that there is was written first.
    let answered = fleet.number("select count(*) from sluice.results where state = 'succeeded'").await;
    let followed = std::fs::read_to_string(file.with_file_name("followed.jsonl")).unwrap();
    assert_eq!(i64::try_from(followed.lines().count()).unwrap(), answered);
    let again = ["run", "q.jsonl", "--batch", "b", "-o", "out.jsonl"];
    let before = fleet.number("select count(*) from sluice.attempt").await;
    let output = fleet.program(&again).output().await.unwrap();
    assert_eq!(output.status.code(), Some(ExitCode::Failure as i32), "{}", text(&output.stderr));
    assert_eq!(fleet.number("select count(*) from sluice.attempt").await, before);
    fleet.configure(&routes("good", "good"));
    fleet.said_by(&["batch", "retry", "b"]).await;
    fleet.said_by(&["batch", "resume", "b"]).await;
    let output = fleet.program(&again).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    fleet.books_are_in_order(600).await;
}
