//! Pausing and resuming, cancelling and retrying whole routes: by SQL, by the store and by command.

use crate::support::fleet::Fleet;
use crate::support::program::{Program, text};
use crate::support::queue::{NewJob, Queue, failed, in_an_hour, in_batch, park};
use crate::support::wait::{until, within_patience};
use serde_json::{Value, json};
use sluice::domain::pause::PauseKind;
use sluice::domain::{ErrorClass, JobId};
use sluice::exit_code::ExitCode;
use sluice::store::job::{Changed, Place};
use sluice::store::settle::{ParkRow, Settlement};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const CONFIG: &str = "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                      [routes.default]\nrungs = [\"local/m\"]\n[routes.other]\nrungs = [\"local/m\"]\n";

fn of_route(route: &'static str) -> NewJob {
    NewJob { route, ..NewJob::default() }
}

async fn yes(queue: &Queue, query: &str) -> bool {
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&queue.pool).await.unwrap()
}

/// What the database says to a statement that fails: the code and the message.
async fn refusal(queue: &Queue, query: &str) -> (String, String) {
    let error = sqlx::query(AssertSqlSafe(query)).execute(&queue.pool).await.unwrap_err();
    let error = error.as_database_error().unwrap();
    (error.code().unwrap().into_owned(), error.message().to_owned())
}

#[tokio::test]
async fn routes_projects_batches_and_providers_are_paused_by_sql() {
    let queue = Queue::new().await;
    for kind in ["route", "project", "batch", "provider"] {
        assert!(yes(&queue, &format!("select sluice.pause('{kind}', 'a name', 'lunch')")).await);
        assert!(!yes(&queue, &format!("select sluice.pause('{kind}', 'a name')")).await, "it was paused already");
    }
    assert_eq!(queue.count("select count(*) from sluice.pause where name = 'a name' and reason = 'lunch'").await, 4);
    assert_eq!(queue.store.pauses().await.unwrap().len(), 4);
    for kind in ["route", "project", "batch", "provider"] {
        assert!(yes(&queue, &format!("select sluice.resume('{kind}', 'a name')")).await);
        assert!(!yes(&queue, &format!("select sluice.resume('{kind}', 'a name')")).await);
    }
    assert!(yes(&queue, "select sluice.pause(kind => 'batch', name => 'b')").await);
    assert!(!queue.store.pause(PauseKind::Batch, "b", None).await.unwrap());
    assert!(queue.store.resume(PauseKind::Batch, "b").await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_paused_or_cancelled_together_is_refused_with_a_word_on_what_can() {
    let queue = Queue::new().await;
    for (query, code, message) in [
        (
            "select sluice.pause('rout', 'x')",
            "22023",
            "'rout' cannot be paused: expected route, project, batch or provider",
        ),
        (
            "select sluice.pause(null, 'x')",
            "22023",
            "NULL cannot be paused: expected route, project, batch or provider",
        ),
        (
            "select sluice.pause('job', '5')",
            "22023",
            "'job' cannot be paused: expected route, project, batch or provider",
        ),
        ("select sluice.pause('route', '')", "22023", "expected the name of a route"),
        ("select sluice.pause('route', null)", "22023", "expected the name of a route"),
        (
            "select sluice.resume('rout', 'x')",
            "22023",
            "'rout' cannot be resumed: expected route, project, batch or provider",
        ),
        (
            "select sluice.cancel('provider', 'x')",
            "22023",
            "the jobs of 'provider' cannot be cancelled together: expected batch or route",
        ),
        (
            "select sluice.retry('project', 'x')",
            "22023",
            "the jobs of 'project' cannot be retried together: expected batch or route",
        ),
        ("select sluice.pause(99)", "P0002", "there is no job 99"),
        ("select sluice.resume(99)", "P0002", "there is no job 99"),
    ] {
        assert_eq!(refusal(&queue, query).await, (code.to_owned(), message.to_owned()), "{query}");
    }
    assert_eq!(queue.count("select count(*) from sluice.pause").await, 0);
}

#[tokio::test]
async fn a_job_that_waits_is_paused_and_goes_on_as_it_was() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let tried = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    let parks = vec![ParkRow { attempts: 1, ..park(&claimed, Some(in_an_hour())) }];
    let attempts = vec![failed(&claimed, 1, ErrorClass::RateLimit)];
    queue.settle(Settlement { attempts, parks, ..Settlement::default() }).await;
    let fresh = queue.enqueue_one().await;
    for id in [tried, fresh] {
        assert_eq!(queue.store.pause_job(JobId(id), None).await.unwrap(), Changed::Yes);
        assert_eq!((queue.places(id).await.as_str(), queue.state(id).await.as_str()), ("p", "queued"));
        assert_eq!(queue.store.pause_job(JobId(id), None).await.unwrap(), Changed::No);
    }
    // Nothing wakes them, and no statement fails over the instant at which they would wake.
    assert_eq!((queue.store.promote().await.unwrap(), queue.claim_all(worker).await.len()), (0, 0));
    assert_eq!(queue.store.next_due().await.unwrap(), None);
    let count = queue.store.queue().await.unwrap()["default"].parked["paused"].count;
    assert_eq!(count.rows, 2);
    let place = queue.store.job(JobId(fresh)).await.unwrap().unwrap().place;
    assert!(matches!(&place, Place::Parked { reason, .. } if reason == "paused"), "{place:?}");
    assert!(!queue.store.outstanding(&["default".to_owned()]).await.unwrap(), "a worker that drains may end");

    for id in [tried, fresh] {
        assert_eq!(queue.store.resume_job(JobId(id)).await.unwrap(), Changed::Yes);
        assert_eq!(queue.places(id).await, "r");
        assert_eq!(queue.store.resume_job(JobId(id)).await.unwrap(), Changed::No);
    }
    let claimed = queue.claim_all(worker).await;
    let counts: Vec<_> = claimed.iter().map(|job| (job.lease.job.0, job.attempts, job.crashes, job.round)).collect();
    assert_eq!(counts, [(tried, 1, 0, 0), (fresh, 0, 0, 0)]);
    let audit = queue.store.audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
}

#[tokio::test]
async fn a_paused_job_says_who_paused_it_since_when_and_why() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    let words = async || queue.store.job(JobId(id)).await.unwrap().unwrap().obstacle.map(|why| why.in_words());
    assert_eq!(queue.store.pause_job(JobId(id), Some("looks odd")).await.unwrap(), Changed::Yes);
    let told = words().await.unwrap();
    assert!(told.starts_with("the job itself is paused by sluice since ") && told.ends_with(": looks odd"), "{told}");
    let noted = "select count(*) from sluice.paused_job";
    assert_eq!(queue.store.resume_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.count(noted).await, 0);
    // By SQL as well, with and without a reason; and a job that is cancelled leaves nothing behind.
    queue.execute(format!("select sluice.pause({id})")).await;
    let told = words().await.unwrap();
    assert!(told.starts_with("the job itself is paused by sluice since ") && told.ends_with("ago)"), "{told}");
    queue.execute(format!("select sluice.resume({id}); select sluice.pause({id}, 'again')")).await;
    assert!(words().await.unwrap().ends_with(": again"));
    queue.execute(format!("select sluice.cancel({id}::bigint)")).await;
    assert_eq!((queue.count(noted).await, words().await), (0, None));
}

#[tokio::test]
async fn a_scheduled_job_that_was_paused_still_waits_for_its_time() {
    let queue = Queue::new().await;
    queue
        .run("insert into sluice.job (run_at, request) values (now() + interval '1 day', '{\"prompt\": \"a\"}')")
        .await;
    let id = queue.count("select id from sluice.job").await;
    let same = "select count(*) from sluice.parked p join sluice.job j on j.id = p.job_id where p.run_at = j.run_at \
                and p.reason = 'scheduled'";
    assert_eq!(queue.store.pause_job(JobId(id), None).await.unwrap(), Changed::Yes);
    assert_eq!(queue.count(same).await, 0);
    assert_eq!(queue.store.resume_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.count(same).await, 1);
    assert_eq!(queue.store.resume_job(JobId(id)).await.unwrap(), Changed::No, "scheduled is not paused");
}

#[tokio::test]
async fn a_job_that_a_worker_has_or_that_has_ended_is_not_paused() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let id = queue.enqueue_one().await;
    let claimed = queue.claim_one(worker).await;
    assert_eq!(queue.store.pause_job(JobId(id), None).await.unwrap(), Changed::Running);
    let message = format!("job {id} is in the hands of a worker and cannot be paused now");
    assert_eq!(refusal(&queue, &format!("select sluice.pause({id})")).await, ("55006".to_owned(), message));
    assert_eq!(queue.places(id).await, "i");
    queue.succeed(&claimed).await;
    assert_eq!(queue.store.pause_job(JobId(id), None).await.unwrap(), Changed::No);
    assert_eq!((queue.state(id).await.as_str(), queue.places(id).await.as_str()), ("succeeded", "e"));
    assert_eq!(queue.store.pause_job(JobId(99), None).await.unwrap(), Changed::NoSuchJob);
    assert_eq!(queue.store.resume_job(JobId(99)).await.unwrap(), Changed::NoSuchJob);
}

#[tokio::test]
async fn a_paused_job_can_be_cancelled_and_tried_anew() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    queue.store.pause_job(JobId(id), None).await.unwrap();
    assert_eq!(queue.store.cancel_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.places(id).await, "e");
    assert_eq!(queue.store.retry_job(JobId(id)).await.unwrap(), Changed::Yes);
    assert_eq!(queue.places(id).await, "r", "a retry is a wish to go on");
}

/// The first to come has the job; it is never in two places and never in none.
#[tokio::test(flavor = "multi_thread")]
async fn pausing_and_claiming_at_the_same_time_leave_a_job_in_one_place() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let ids = queue.enqueue(NewJob::default(), 100).await;
    let pausing = {
        let (store, ids) = (queue.store.clone(), ids.clone());
        tokio::spawn(async move {
            let mut paused = 0;
            for id in ids.into_iter().rev() {
                paused += usize::from(store.pause_job(JobId(id), None).await.unwrap() == Changed::Yes);
            }
            paused
        })
    };
    let mut claimed = 0;
    while !pausing.is_finished() {
        claimed += queue.claim(worker, 3).await.len();
    }
    claimed += queue.claim_all(worker).await.len();
    let paused = pausing.await.unwrap();
    assert_eq!(claimed + paused, 100);
    for id in ids {
        assert!(["i", "p"].contains(&queue.places(id).await.as_str()));
    }
}

/// Postgres knows instants that no driver does. One row with such an instant must not end the workers that read it.
#[tokio::test]
async fn infinite_instants_are_read_as_very_far_ones() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue
        .run(
            "insert into sluice.job (run_at, deadline, request) values
                  (null, 'infinity', '{\"prompt\": \"a\"}'), ('-infinity', '294000-01-01', '{\"prompt\": \"a\"}'),
                  ('infinity', 'infinity', '{\"prompt\": \"a\"}'), (null, '-infinity', '{\"prompt\": \"a\"}')",
        )
        .await;
    assert_eq!(queue.store.next_due().await.unwrap(), None);
    assert_eq!(queue.store.promote().await.unwrap(), 0);
    let status = queue.store.status().await.unwrap();
    assert_eq!((status.routes["default"].ready.rows, status.routes["default"].parked["scheduled"].count.rows), (3, 1));
    let ids: Vec<i64> =
        sqlx::query_scalar("select id from sluice.job order by id").fetch_all(&queue.pool).await.unwrap();
    for id in &ids {
        assert!(queue.store.job(JobId(*id)).await.unwrap().is_some());
    }
    let claimed = queue.claim_all(worker).await;
    let deadlines: Vec<_> = claimed.iter().map(|job| job.deadline.map(|at| at.0)).collect();
    assert_eq!(deadlines, [None, None, Some(0)], "what is long past is past");
    assert_eq!(queue.store.pause_job(JobId(ids[2]), None).await.unwrap(), Changed::Yes);
    assert_eq!(queue.store.resume_job(JobId(ids[2])).await.unwrap(), Changed::Yes);
    assert_eq!(queue.places(ids[2]).await, "p");
}

// ------------------------------------------------------------------------------------------------------ whole routes

#[tokio::test]
async fn a_route_is_cancelled_wherever_its_jobs_are_and_tried_anew_where_they_failed() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let other = queue.enqueue(of_route("other"), 3).await;
    // More than one chunk, in several lanes, with one job in every state.
    queue.enqueue(of_route("mine"), 2_000).await;
    queue.enqueue(NewJob { route: "mine", ..in_batch("b") }, 300).await;
    queue.enqueue(NewJob { priority: 5, project: "p", ..of_route("mine") }, 200).await;
    let claimed: Vec<_> = queue.claim(worker, 2).await.into_iter().filter(|job| job.route == "mine").collect();
    assert_eq!(claimed.len(), 6);
    queue.succeed(&claimed[0]).await;
    queue.fail(&claimed[1], ErrorClass::Timeout).await;
    queue.settle(Settlement { parks: vec![park(&claimed[2], Some(in_an_hour()))], ..Settlement::default() }).await;

    let found = queue.store.unfinished_of_route("mine").await.unwrap();
    assert_eq!(found.len(), 2_498);
    let late = queue.enqueue(of_route("mine"), 1).await[0];
    let mut heard = Vec::new();
    assert_eq!(queue.store.cancel_route("mine", found, |done| heard.push(done)).await.unwrap(), 2_498);
    assert_eq!(heard, [1_000, 2_000, 2_498]);
    assert_eq!(queue.count("select count(*) from sluice.recall").await, 3);
    assert_eq!(queue.places(late).await, "r", "it came after the question");
    assert_eq!(queue.count("select count(*) from sluice.result where state = 'cancelled'").await, 2_498);
    assert!(other.iter().all(|id| !heard.contains(id)));
    assert_eq!(
        queue.count("select count(*) from sluice.jobs where route = 'other' and state in ('queued', 'running')").await,
        3
    );

    // Cancelled jobs were meant to be cancelled.
    let failed = queue.store.failed_of_route("mine").await.unwrap();
    assert_eq!(failed, [claimed[1].lease.job.0]);
    assert_eq!(queue.store.retry_jobs(&failed, |_| {}).await.unwrap().jobs, 1);
    assert_eq!(queue.places(failed[0]).await, "r");
    assert!(queue.store.failed_of_route("mine").await.unwrap().is_empty());
    assert!(queue.store.failed_of_route("none").await.unwrap().is_empty());
    let audit = queue.store.audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
}

#[tokio::test]
async fn the_functions_for_sql_cancel_and_retry_a_whole_route() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    // One of the other route has failed too.
    queue.enqueue(of_route("other"), 3).await;
    let spoilt = queue.claim(worker, 1).await.remove(0);
    queue.fail(&spoilt, ErrorClass::ServerError).await;
    queue.enqueue(NewJob { route: "mine", ..in_batch("b") }, 3).await;
    let claimed: Vec<_> = queue.claim(worker, 1).await.into_iter().filter(|job| job.route == "mine").collect();
    queue.fail(&claimed[0], ErrorClass::ServerError).await;
    assert_eq!(queue.count("select sluice.cancel('route', 'mine')").await, 2);
    assert_eq!(queue.count("select sluice.cancel('route', 'mine')").await, 0);
    assert_eq!(queue.count("select sluice.retry('route', 'mine')").await, 1);
    assert_eq!(queue.count("select sluice.retry('batch', 'b')").await, 2, "those that were cancelled");
    assert_eq!(queue.count("select sluice.cancel('batch', 'b')").await, 3);
    assert_eq!(queue.count("select sluice.cancel('route', 'none')").await, 0);
    assert_eq!(
        queue.count("select count(*) from sluice.jobs where route = 'other' and state in ('queued', 'running')").await,
        2
    );
}

#[tokio::test]
async fn only_workers_may_call_the_functions() {
    let queue = Queue::new().await;
    let id = queue.enqueue_one().await;
    queue
        .run(
            "create role pause_worker login; grant sluice_worker to pause_worker;
              create role pause_reporter login; grant sluice_reporter to pause_reporter;
              create role pause_enqueuer login; grant sluice_enqueuer to pause_enqueuer",
        )
        .await;
    let calls = [
        "select sluice.pause('route', 'x')".to_owned(),
        "select sluice.resume('route', 'x')".to_owned(),
        format!("select sluice.pause({id})"),
        format!("select sluice.resume({id})"),
        "select sluice.cancel('route', 'none')".to_owned(),
        "select sluice.retry('route', 'none')".to_owned(),
    ];
    for (user, may) in [("pause_worker", true), ("pause_reporter", false), ("pause_enqueuer", false)] {
        let options = queue.database.connect_options().username(user);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        for call in &calls {
            let done = sqlx::query(AssertSqlSafe(call.as_str())).execute(&mut connection).await;
            let refused = done.err().map(|error| error.as_database_error().unwrap().code().unwrap().into_owned());
            // An enqueuer cancels its own jobs.
            let may = may || user == "pause_enqueuer" && call.contains("cancel");
            assert_eq!(refused.as_deref(), (!may).then_some("42501"), "{user}: {call}");
        }
        connection.close().await.unwrap();
    }
    queue.run("drop role pause_worker, pause_reporter, pause_enqueuer").await;
}

// ------------------------------------------------------------------------------------------------------- commands

#[tokio::test]
async fn jobs_are_paused_and_resumed_by_number() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let running = queue.enqueue_one().await;
    queue.claim_one(worker).await;
    let id = queue.enqueue_one().await;
    let program = Program::new(CONFIG, &queue.database.url());
    let (one, held) = (id.to_string(), running.to_string());
    let csv = async |arguments: &[&str]| program.run(&[arguments, &["--format", "csv"]].concat()).await;

    let paused = csv(&["job", "pause", &one, "--reason", "looks odd"]).await;
    assert_eq!((text(&paused.stdout), paused.status.code()), (format!("job,outcome\n{one},paused\n"), Some(0)));
    let again = csv(&["job", "pause", &one]).await;
    assert_eq!(text(&again.stdout), format!("job,outcome\n{one},has ended or was paused already\n"));
    assert_eq!(again.status.code(), Some(0));
    for command in [&["job", "show", &one][..], &["explain", &one]] {
        let told = program.output(command).await;
        assert!(told.contains("paused by sluice since ") && told.contains(": looks odd"), "{told}");
    }
    let shown: Value = serde_json::from_str(&program.output(&["job", "show", &one, "--format", "json"]).await).unwrap();
    assert_eq!(shown["place"], json!({ "where": "parked", "until": null, "waits_for": "paused" }));
    assert!(program.output(&["explain", &one]).await.contains("paused"));
    let status = program.output(&["status"]).await;
    assert!(status.contains("paused") && !status.contains("years"), "{status}");
    let status: Value = serde_json::from_str(&program.output(&["status", "--format", "json"]).await).unwrap();
    assert_eq!(status["routes"][0]["parked"][0]["wakes_at"], Value::Null, "{status}");

    let resumed = csv(&["job", "resume", &one, &held]).await;
    assert_eq!(text(&resumed.stdout), format!("job,outcome\n{one},goes on\n{held},was not paused\n"));
    let again = program.output(&["job", "resume", &one, "--format", "json"]).await;
    let told: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(told, json!([{ "job": id, "outcome": "was_not_paused" }]));
    assert_eq!(resumed.status.code(), Some(0));
    // One that a worker has is not paused, which a script has to know; the others are.
    let refused = csv(&["job", "pause", &held, &one]).await;
    assert_eq!(refused.status.code(), Some(ExitCode::Failure as i32));
    assert_eq!(text(&refused.stdout), format!("job,outcome\n{one},paused\n"));
    assert!(text(&refused.stderr).contains(&format!("not paused: job {held}")), "{}", text(&refused.stderr));
    let missing = csv(&["job", "pause", "999"]).await;
    assert_eq!(missing.status.code(), Some(ExitCode::NotFound as i32));
    assert_eq!(text(&missing.stderr), "error: there is no job 999\n");
    for arguments in
        [&["job", "pause"] as &[&str], &["job", "resume", "seven"], &["job", "pause", "99999999999999999999"]]
    {
        assert_eq!(program.run(arguments).await.status.code(), Some(ExitCode::Usage as i32), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_route_is_cancelled_with_the_users_yes() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    queue.enqueue(NewJob::default(), 3).await;
    queue.enqueue(of_route("gone"), 2).await;
    let claimed: Vec<_> = queue.claim(worker, 1).await.into_iter().filter(|job| job.route == "default").collect();
    queue.fail(&claimed[0], ErrorClass::ServerError).await;
    let program = Program::new(CONFIG, &queue.database.url());

    let asked = program.run(&["route", "cancel", "default"]).await;
    assert_eq!(asked.status.code(), Some(ExitCode::Usage as i32));
    let said = text(&asked.stderr);
    assert!(said.contains("cancel 2 unfinished jobs of the route default") && said.contains("--yes"), "{said}");
    let asked = program.run(&["route", "retry", "default"]).await;
    assert_eq!(asked.status.code(), Some(ExitCode::Usage as i32));
    assert!(text(&asked.stderr).contains("retry 1 failed job of the route default"));
    assert_eq!(queue.count("select count(*) from sluice.ready").await, 3, "nothing was changed");

    assert_eq!(program.output(&["route", "cancel", "default", "--yes"]).await, "route default: 2 jobs cancelled\n");
    assert_eq!(program.output(&["route", "cancel", "default"]).await, "route default: 0 jobs cancelled\n");
    let retried = program.output(&["route", "retry", "default", "-y", "--format", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&retried).unwrap(), json!({ "route": "default", "queued_again": 1 }));
    // A route that is not configured any more, which is when its jobs are to be got rid of.
    assert_eq!(program.output(&["route", "cancel", "gone", "--yes"]).await, "route gone: 2 jobs cancelled\n");
    let slip = program.run(&["route", "cancel", "defualt", "--yes"]).await;
    assert_eq!(slip.status.code(), Some(ExitCode::NotFound as i32));
    assert!(text(&slip.stderr).contains("there is no route \"defualt\"; there are: default, other"));
    for command in [&["job", "list", "--route", "defualt"][..], &["job", "cancel", "--route", "defualt", "--yes"]] {
        let slip = program.run(command).await;
        assert_eq!(slip.status.code(), Some(ExitCode::NotFound as i32), "{command:?}");
        assert!(text(&slip.stderr).contains("there is no route \"defualt\"; there are: default, other"));
    }
    let none = program.run(&["job", "cancel", "--route", "other", "--state", "queued", "--yes"]).await;
    assert_eq!(none.status.code(), Some(0), "{}", text(&none.stderr));
    assert_eq!(program.run(&["route", "cancel"]).await.status.code(), Some(ExitCode::Usage as i32));
}

/// With the real worker: paused work is not called, whichever login paused it, and everything else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_what_is_paused_alone_until_it_is_resumed() {
    let fleet = Fleet::new(
        "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = 0.01 }\n\
         models.model.price = { input = \"1\", output = \"2\" }\n",
        "[worker]\nmax_in_flight = 20\n[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
         [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
         [routes.default]\nrungs = [\"one/model\"]\n[routes.other]\nrungs = [\"one/model\"]\n",
    )
    .await;
    fleet.enqueue("default", 20).await;
    fleet.enqueue("other", 10).await;
    fleet.number("select count(*) from (select sluice.pause('route', 'other')) p").await;
    let few = "select count(*) filter (where sluice.pause(id)) from sluice.job where route = 'default' and id % 4 = 0";
    let paused = fleet.number(few).await;
    let process = fleet.start();
    fleet.until_answered(20 - paused).await;
    until("nothing is under way", async || fleet.number("select count(*) from sluice.inflight").await == 0).await;
    // It goes on looking, and takes the jobs that are not paused.
    fleet.enqueue("default", 5).await;
    fleet.until_answered(25 - paused).await;
    assert_eq!(fleet.answered().await, 25 - paused);
    fleet.number("select count(*) filter (where sluice.resume(id)) from sluice.job").await;
    fleet.until_answered(25).await;
    assert_eq!(fleet.number("select count(*) from sluice.ready").await, 10);
    fleet.number("select count(*) from (select sluice.resume('route', 'other')) p").await;
    fleet.until_answered(35).await;
    process.stop().await;
    fleet.books_are_in_order(35).await;
}

/// A worker looks at the queue while the pause comes, and then the jobs.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_come_after_their_pause_are_not_taken_by_a_look_that_began_before_it() {
    let fleet = Fleet::new(
        "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n",
        "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
         [models.\"one/model\"]\nprice = { input = \"1\", output = \"2\" }\n\
         [routes.default]\nrungs = [\"one/model\"]\n",
    )
    .await;
    let process = fleet.start();
    fleet.until_live(1).await;
    let mut jobs = fleet.pool.begin().await.unwrap();
    sqlx::query("lock table sluice.ready in access exclusive mode").execute(&mut *jobs).await.unwrap();
    let waiting = "select count(*) from pg_locks where relation = 'sluice.ready'::regclass and not granted";
    until("the worker's look waits", async || fleet.number(waiting).await > 0).await;
    fleet.number("select count(*) from (select sluice.pause('batch', 'held')) p").await;
    let add = "insert into sluice.job (route, batch, request)
                    select 'default', batch, '{\"prompt\": \"a\"}' from unnest(array['held', 'held', 'free']) batch";
    sqlx::query(add).execute(&mut *jobs).await.unwrap();
    jobs.commit().await.unwrap();
    fleet.until_answered(1).await;
    // Another look is over: the first one took what it was to take.
    fleet.enqueue("default", 1).await;
    fleet.until_answered(2).await;
    assert_eq!(fleet.number("select count(*) from sluice.jobs where batch = 'held' and attempts = 0").await, 2);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_ends_where_only_paused_work_is_left() {
    let scenario = "[providers.local]\ndialect = \"openai\"\nmodels.m.price = { input = \"1\", output = \"2\" }\n";
    let fleet = Fleet::new(scenario, &CONFIG.replace("127.0.0.1:9/v1", "simulator/local/v1")).await;
    sqlx::raw_sql(
        "insert into sluice.job (route, project, batch, request)
         values ('other', 'p', null, '{\"prompt\": \"Hi\"}'), ('default', 'held', null, '{\"prompt\": \"Hi\"}'),
                ('default', 'p', 'held', '{\"prompt\": \"Hi\"}'), ('default', 'p', null, '{\"prompt\": \"Hi\"}');
         select sluice.pause('route', 'other'), sluice.pause('project', 'held'), sluice.pause('batch', 'held')",
    )
    .execute(&fleet.pool)
    .await
    .unwrap();
    let drained = fleet.program(&["worker", "--drain"]).output();
    let drained = within_patience("the drain ends", drained).await.unwrap();
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    assert_eq!((fleet.answered().await, fleet.number("select count(*) from sluice.ready").await), (1, 3));
    // So is one whose only provider is paused, whether its jobs have been looked at or not.
    fleet.program(&["provider", "pause", "local"]).output().await.unwrap();
    fleet.enqueue("default", 3).await;
    let drained = fleet.program(&["worker", "--drain"]).output();
    let drained = within_patience("the drain ends", drained).await.unwrap();
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    sqlx::raw_sql(
        "insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
              select job_id, now() + interval '1 h', flow, prio, attempts, crashes, round,
                     'local/m: paused (nowhere else to go)' from sluice.ready;
         delete from sluice.ready",
    )
    .execute(&fleet.pool)
    .await
    .unwrap();
    let drained = fleet.program(&["worker", "--drain"]).output();
    let drained = within_patience("the drain ends", drained).await.unwrap();
    assert!(drained.status.success(), "{}", text(&drained.stderr));
    assert_eq!(fleet.answered().await, 1);
}
