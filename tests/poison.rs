//! Jobs that kill the worker that holds them, among others that are harmless: they are found out, and no other job
//! fails because of them.

use crate::support::clock;
use crate::support::fleet::Fleet;
use crate::support::program::Program;
use crate::support::queue::{NewJob, Queue, in_batch};
use crate::support::scripted::{Scripted, answer};
use crate::support::wait::{until, within_patience};
use rustix::process::{Pid, Signal, kill_process};
use sluice::store::claim::Take;
use sqlx::postgres::PgListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

const MAX_CRASHES: u16 = 3;

#[tokio::test]
async fn a_job_is_accused_only_when_its_worker_held_no_other() {
    let queue = Queue::new().await;
    let ids = queue.enqueue(in_batch("b"), 3).await;
    for crash in 1..=5 {
        let worker = queue.worker().await;
        let claimed = queue.claim_all(worker).await;
        assert_eq!(claimed.iter().map(|job| job.crashes).collect::<Vec<_>>(), [crash - 1; 3]);
        queue.silence(worker).await;
        let rescued = queue.store.rescue(MAX_CRASHES).await.unwrap();
        assert_eq!((rescued.jobs, rescued.poisoned), (3, 0), "crash {crash}");
    }
    // The worker held two jobs, and one ended before the rescue. The other job was not alone, and a rescue in two steps
    // knows that.
    let worker = queue.worker().await;
    let lane = queue.store.lanes().await.unwrap().remove(0);
    let take = |count| [Take { flow: lane.flow, prio: lane.prio, after: 0, count }];
    queue.store.claim(worker, &take(2), usize::MAX).await.unwrap();
    queue.silence(worker).await;
    let mut holding = queue.pool.begin().await.unwrap();
    sqlx::query("select from sluice.inflight where job_id = $1 for update")
        .bind(ids[1])
        .execute(&mut *holding)
        .await
        .unwrap();
    let rescued = queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!((rescued.jobs, rescued.poisoned), (1, 0));
    holding.rollback().await.unwrap();
    let rescued = queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!((rescued.jobs, rescued.poisoned), (1, 0));
    // Alone.
    let worker = queue.worker().await;
    queue.store.claim(worker, &take(1), usize::MAX).await.unwrap();
    queue.silence(worker).await;
    let mut listener = PgListener::connect_with(&queue.pool).await.unwrap();
    listener.listen("sluice_settled").await.unwrap();
    let rescued = queue.store.rescue(MAX_CRASHES).await.unwrap();
    assert_eq!((rescued.jobs, rescued.poisoned), (0, 1));
    assert_eq!(queue.state(ids[0]).await, "failed");
    // No worker ends such a job, and yet the sessions that listen are told of it, and of no other.
    let notice = within_patience("a notice", listener.recv()).await.unwrap();
    assert_eq!(notice.payload(), format!("{{\"jobs\":[{}]}}", ids[0]));
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_that_many_workers_died_with_does_not_stop_the_rescue_of_others() {
    let queue = Queue::new().await;
    queue.enqueue(NewJob::default(), 2).await;
    queue.run("update sluice.ready set crashes = 32767").await;
    let worker = queue.worker().await;
    queue.claim_all(worker).await;
    queue.silence(worker).await;
    assert_eq!(queue.store.rescue(MAX_CRASHES).await.unwrap().jobs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_poison_jobs_fail_and_fifty_six_others_succeed() {
    let queue = Queue::new().await;
    sqlx::query(
        "insert into sluice.job (project, batch, request)
              select case when n % 15 = 0 then 'careless' else 'honest' end, 'b',
                     jsonb_build_object('prompt', case when n % 15 = 0 then 'poison ' else 'good ' end || n)
                from generate_series(1, 60) n",
    )
    .execute(&queue.pool)
    .await
    .unwrap();
    // The worker that asks for poison is killed before it hears anything.
    let victim = Arc::new(AtomicI32::new(0));
    let at = Arc::clone(&victim);
    let provider = Scripted::start(move |call, _| {
        // One call at a time, so that others are in hand when the worker dies.
        clock::blocking_pace(Duration::from_millis(5));
        if call.prompt().starts_with("poison")
            && let Some(pid) = Pid::from_raw(at.swap(0, Ordering::SeqCst))
        {
            kill_process(pid, Signal::KILL).unwrap();
        }
        answer("Paris")
    })
    .await;
    let config = format!(
        "[worker]\nmax_in_flight = 100\n[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
         base_url = \"{}\"\nlimits = {{ concurrency = 100 }}\n[models.\"one/m\"]\n\
         price = {{ input = \"1\", output = \"1\" }}\n\
         [routes.default]\nrungs = [\"one/m\"]\n",
        provider.base_url("one")
    );
    let program = Program::new(&config, &queue.database.url());
    let (mut deaths, mut log) = (0, Vec::new());
    loop {
        let mut worker = program.command(&["worker", "--drain"]).spawn().unwrap();
        victim.store(i32::try_from(worker.id().unwrap()).unwrap(), Ordering::SeqCst);
        let mut said = worker.stderr.take().unwrap();
        let draining = tokio::spawn(async move {
            let mut said_now = Vec::new();
            tokio::io::copy(&mut said, &mut said_now).await.map(|_| said_now)
        });
        let status = within_patience("the worker ends", worker.wait()).await.unwrap();
        log.extend(draining.await.unwrap().unwrap());
        if status.success() {
            break;
        }
        deaths += 1;
        assert!(deaths <= 25, "the worker dies and dies");
    }
    let ended = |project: &'static str, state: &'static str| {
        let count = "select count(*) from sluice.jobs where project = $1 and state = $2";
        sqlx::query_scalar::<_, i64>(count).bind(project).bind(state).fetch_one(&queue.pool)
    };
    assert_eq!(ended("honest", "succeeded").await.unwrap(), 56, "after {deaths} deaths");
    assert_eq!(ended("careless", "failed").await.unwrap(), 4, "after {deaths} deaths");
    let why = "select count(*) from sluice.results where error_class = 'abandoned' and error like '% workers died \
               while they held%'";
    assert_eq!(queue.count(why).await, 4);
    let log = String::from_utf8(log).unwrap();
    let told = log.lines().filter(|line| line.contains("the job has failed: this many workers died with it"));
    let told: Vec<&str> = told.collect();
    assert!(told.len() == 4 && told.iter().all(|line| line.contains("job.id=") && line.contains("workers=")), "{log}");
    // All of them at once, then in small groups, and each poison alone.
    assert!(deaths <= 2 + 4 * 3, "{deaths} deaths");
    assert_eq!(queue.store.audit().await.unwrap().faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_death_new_jobs_go_on_beside_those_that_were_in_its_hands() {
    let scenario = "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = 1 }\n\
                    models.model.price = { input = \"1\", output = \"2\" }\n";
    let config = "[worker]\nmax_in_flight = 64\n[providers.one]\ndialect = \"openai\"\n\
                  base_url = \"http://simulator/one/v1\"\nlimits = { concurrency = 100 }\n\
                  [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
                  [routes.default]\nrungs = [\"one/model\"]\n";
    let fleet = Fleet::new(scenario, config).await;
    let mut first = fleet.start();
    fleet.enqueue("default", 64).await;
    until("it holds all of them", async || fleet.held_by(&first).await == 64).await;
    first.kill().await;
    fleet.enqueue("default", 192).await;
    let second = fleet.start();
    let suspects = "select count(*) from sluice.inflight where crashes = 1";
    let held = "select count(*) from sluice.inflight";
    // Sixteen of those that one worker died with, and all other places for others.
    until("both are in hand", async || fleet.number(suspects).await == 16 && fleet.number(held).await == 64).await;
    fleet.until_answered(256).await;
    fleet.books_are_in_order(256).await;
    second.stop().await;
}
