//! What an application asks by SQL: waiting for a job, being told of it, answers as JSON, and cancelling its own jobs.

use crate::support::queue::{Queue, success};
use crate::support::wait::{until, within_patience};
use serde_json::Value;
use sluice::store::settle::{EndingRow, Settlement};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// Logins that may enqueue, and one that may only read reports.
struct Logins {
    queue: Queue,
    app: PgConnection,
    other: PgConnection,
    reader: PgConnection,
}

impl Logins {
    async fn new(suffix: &str) -> Self {
        let queue = Queue::new().await;
        let names = [("app", "enqueuer"), ("other", "enqueuer"), ("reader", "reporter")];
        let mut opened = Vec::new();
        for (name, role) in names {
            let login = format!("waiting_{name}_{suffix}");
            let statement = format!("create role {login} login; grant sluice_{role} to {login}");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&queue.pool).await.unwrap();
            let options = queue.database.connect_options().username(&login);
            opened.push(PgConnection::connect_with(&options).await.unwrap());
        }
        let [app, other, reader] = <[PgConnection; 3]>::try_from(opened).unwrap();
        Self { queue, app, other, reader }
    }
}

async fn enqueue(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select sluice.enqueue('{\"prompt\": \"a secret\"}', batch => 'b')")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// The state that a wait returns; `None`: no row.
async fn wait(connection: &mut PgConnection, job: i64, timeout: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select state from sluice.wait($1, $2::text::interval)")
        .bind(job)
        .bind(timeout)
        .fetch_optional(connection)
        .await
}

/// SQLSTATE and message of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, sqlx::Error>) -> (String, String) {
    let error = result.unwrap_err().into_database_error().unwrap();
    (error.code().unwrap().into_owned(), error.message().to_owned())
}

#[tokio::test]
async fn a_wait_returns_when_another_session_has_ended_the_job_and_nothing_at_its_timeout() {
    let mut logins = Logins::new("ends").await;
    let job = enqueue(&mut logins.app).await;
    for timeout in ["0", "-1 hour", "30 ms"] {
        assert_eq!(wait(&mut logins.app, job, timeout).await.unwrap(), None, "{timeout}");
    }
    let worker = logins.queue.worker().await;
    let claimed = logins.queue.claim_one(worker).await;
    // It has begun to look before the job ends, also inside of a transaction of its own.
    let mut waiting = logins.app.begin().await.unwrap();
    let settling = async {
        until("the wait is under way", async || is_waiting(&logins.queue).await).await;
        logins.queue.succeed(&claimed).await;
    };
    let (state, ()) =
        within_patience("it ended", async { tokio::join!(wait(&mut waiting, job, "1 minute"), settling) }).await;
    assert_eq!(state.unwrap().as_deref(), Some("succeeded"));
    waiting.commit().await.unwrap();
    // A job that has ended is not waited for; a reader of reports may wait as well.
    assert_eq!(wait(&mut logins.app, job, "0").await.unwrap().as_deref(), Some("succeeded"));
    assert_eq!(wait(&mut logins.reader, job, "0").await.unwrap().as_deref(), Some("succeeded"));
}

async fn is_waiting(queue: &Queue) -> bool {
    let asked = "select exists (select from pg_stat_activity
                                 where state = 'active' and query ~ 'sluice[.]wait' and wait_event = 'PgSleep'
                                   and datname = current_database())";
    sqlx::query_scalar(asked).fetch_one(&queue.pool).await.unwrap()
}

#[tokio::test]
async fn a_wait_that_would_be_in_vain_is_refused_at_once_and_says_why() {
    let mut logins = Logins::new("vain").await;
    let committed = enqueue(&mut logins.app).await;
    for savepoints in ["", "savepoint a", "savepoint a; savepoint b"] {
        logins.app.execute("begin").await.unwrap();
        if !savepoints.is_empty() {
            sqlx::raw_sql(savepoints).execute(&mut logins.app).await.unwrap();
        }
        let job = enqueue(&mut logins.app).await;
        let (code, said) = refused(wait(&mut logins.app, job, "1 minute").await);
        assert_eq!(code, "25000");
        assert!(
            said.ends_with("was enqueued in this transaction, and no worker sees it before it is committed"),
            "{said}"
        );
        logins.app.execute("rollback").await.unwrap();
        // A transaction that has written something else waits for what others have committed.
        logins.app.execute("begin").await.unwrap();
        enqueue(&mut logins.app).await;
        assert_eq!(wait(&mut logins.app, committed, "1 ms").await.unwrap(), None);
        logins.app.execute("rollback").await.unwrap();
    }
    for level in ["repeatable read", "serializable"] {
        logins.app.execute(AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
        let (code, said) = refused(wait(&mut logins.app, committed, "1 minute").await);
        assert!(code == "25000" && said.contains(&format!("this transaction is {level}")), "{code} {said}");
        logins.app.execute("rollback").await.unwrap();
    }
    let (_, said) = refused(wait(&mut logins.app, committed, "61 seconds").await);
    assert_eq!(said, "timeout: is 00:01:01; expected at most 00:01:00");
    let none = sqlx::query("select from sluice.wait($1, null)").bind(committed).fetch_all(&mut logins.app).await;
    assert_eq!(refused(none).1, "timeout: is NULL; expected at most 00:01:00");
    // A job of another login is as little there as one that never was.
    for (connection, job) in [(&mut logins.other, committed), (&mut logins.app, 4_711)] {
        let refusal = refused(wait(connection, job, "1 minute").await);
        assert_eq!(refusal, ("P0002".to_owned(), format!("there is no job {job}")));
    }
}

#[tokio::test]
async fn an_answer_is_json_where_it_is_and_never_an_error() {
    let mut logins = Logins::new("json").await;
    let deep = "[".repeat(200_000);
    let answers = [
        ("{\"label\": \"billing\"}", Some(serde_json::json!({"label": "billing"}))),
        ("  [1, 2.50]\n", Some(serde_json::json!([1, 2.50]))),
        ("true", Some(Value::Bool(true))),
        ("5", Some(serde_json::json!(5))),
        ("true enough", None),
        ("Paris", None),
        ("", None),
        ("{\"cut\": ", None),
        ("{\"nul\": \"\\u0000\"}", None),
        ("{\"half\": \"\\ud800\"}", None),
        ("1e999999", None),
        (deep.as_str(), None),
    ];
    for _ in &answers {
        enqueue(&mut logins.app).await;
    }
    let worker = logins.queue.worker().await;
    let mut claimed = logins.queue.claim_all(worker).await;
    claimed.sort_by_key(|claimed| claimed.lease.job);
    for (claimed, (answer, _)) in claimed.iter().zip(&answers) {
        let response = serde_json::json!({"choices": [{"message": {"content": answer}}]}).to_string();
        let ending = EndingRow { response: Some(response), ..success(claimed) };
        logins.queue.settle(Settlement { endings: vec![ending], ..Settlement::default() }).await;
    }
    let read: Vec<(String, Option<Value>)> =
        sqlx::query_as("select answer, answer_json from sluice.results order by job_id")
            .fetch_all(&mut logins.app)
            .await
            .unwrap();
    let expected: Vec<(String, Option<Value>)> =
        answers.into_iter().map(|(answer, json)| (answer.to_owned(), json)).collect();
    assert_eq!(read, expected);
    // A job without an answer has none as JSON either.
    let job = enqueue(&mut logins.app).await;
    logins.app.execute(AssertSqlSafe(format!("select sluice.cancel({job}::bigint)"))).await.unwrap();
    let row: (String, Option<Value>) = sqlx::query_as("select state, answer_json from sluice.wait($1)")
        .bind(job)
        .fetch_one(&mut logins.app)
        .await
        .unwrap();
    assert_eq!(row, ("cancelled".to_owned(), None));
}

#[tokio::test]
async fn an_enqueuer_cancels_its_own_jobs_and_no_others() {
    let mut logins = Logins::new("cancel").await;
    let [mine, mine_too] = [enqueue(&mut logins.app).await, enqueue(&mut logins.app).await];
    let others = enqueue(&mut logins.other).await;
    let cancel = |job: i64| format!("select sluice.cancel({job}::bigint)");
    let refusal = refused(logins.app.execute(AssertSqlSafe(cancel(others))).await);
    assert_eq!(refusal, ("P0002".to_owned(), format!("there is no job {others}")));
    // Who reads all jobs may change none of them for that.
    assert_eq!(refused(logins.reader.execute(AssertSqlSafe(cancel(mine))).await).0, "42501");
    let both = format!("grant sluice_reporter to {}", login_of(&mut logins.app).await);
    sqlx::raw_sql(AssertSqlSafe(both)).execute(&logins.queue.pool).await.unwrap();
    assert_eq!(refused(logins.app.execute(AssertSqlSafe(cancel(others))).await).0, "P0002");
    for (call, expected) in [
        (format!("sluice.cancel({mine}::bigint)"), "true"),
        ("sluice.cancel('b')".to_owned(), "1"),
        ("sluice.cancel('route', 'default')".to_owned(), "0"),
    ] {
        let statement = AssertSqlSafe(format!("select {call}::text"));
        let cancelled: String = sqlx::query_scalar(statement).fetch_one(&mut logins.app).await.unwrap();
        assert_eq!(cancelled, expected, "{call}");
    }
    assert_eq!(logins.queue.state(mine_too).await, "cancelled");
    assert_eq!(logins.queue.state(others).await, "queued");
    // The owner of the schema cancels everything, as ever.
    assert_eq!(logins.queue.count("select sluice.cancel('route', 'default')").await, 1);
}

async fn login_of(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("select session_user::text").fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_listen_are_told_which_jobs_have_ended_and_the_enqueuing_transaction_tells_nothing() {
    let queue = Queue::new().await;
    let mut listener = PgListener::connect_with(&queue.pool).await.unwrap();
    listener.listen("sluice_settled").await.unwrap();
    let jobs = queue.enqueue(crate::support::queue::NewJob::default(), 700).await;
    // Had enqueuing told anything, this would come after it.
    queue.run("select pg_notify('sluice_settled', 'enqueued')").await;
    assert_eq!(within_patience("a notice", listener.recv()).await.unwrap().payload(), "enqueued");
    queue.store.tell_ended(&jobs).await.unwrap();
    queue.store.tell_ended(&[]).await.unwrap();
    let mut told: Vec<i64> = Vec::new();
    while told.len() < jobs.len() {
        let notice = within_patience("a notice", listener.recv()).await.unwrap();
        assert!(notice.payload().len() < 8_000);
        let notice: Value = serde_json::from_str(notice.payload()).unwrap();
        told.extend(notice["jobs"].as_array().unwrap().iter().map(|job| job.as_i64().unwrap()));
    }
    assert_eq!(told, jobs);

    // A job that ends without a worker is told of as well: one that is cancelled, once that is committed.
    let cancelled = jobs[0];
    queue.execute(format!("begin; select sluice.cancel({cancelled}::bigint); rollback")).await;
    queue.execute(format!("begin; select sluice.cancel({}::bigint); commit", jobs[1])).await;
    let notice = within_patience("a notice", listener.recv()).await.unwrap();
    assert_eq!(notice.payload(), format!("{{\"jobs\":[{}]}}", jobs[1]), "and not of {cancelled}");
}
