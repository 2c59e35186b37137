//! Of many jobs that come in together, the one that is refused is named, and its prompt is not quoted.

use crate::support::postgres::{self, TestDatabase};
use crate::support::program::{Program, text};
use serde_json::{Value, json};
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};

const SECRET: &str = "a secret prompt";
const JOBS: usize = 120;

async fn run(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(pool).await.unwrap();
}

async fn jobs(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from sluice.job").fetch_one(pool).await.unwrap()
}

/// A refusal in the server's words.
#[derive(Debug)]
struct Refusal {
    message: String,
    detail: String,
    hint: String,
    code: String,
    column: String,
    constraint: String,
    context: String,
}

impl Refusal {
    fn of(error: &sqlx::Error) -> Self {
        let error = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
        let error = error.downcast_ref::<PgDatabaseError>();
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            message: error.message().to_owned(),
            detail: owned(error.detail()),
            hint: owned(error.hint()),
            code: error.code().to_owned(),
            column: owned(error.column()),
            constraint: owned(error.constraint()),
            context: owned(error.r#where()),
        }
    }
}

async fn refusal(connection: &mut PgConnection, statement: &str) -> Refusal {
    let Err(error) = connection.execute(AssertSqlSafe(statement.to_owned())).await else { panic!("{statement}") };
    Refusal::of(&error)
}

async fn refusal_of_many(pool: &PgPool, jobs: &[Value]) -> Refusal {
    let asked = sqlx::query("select count(*) from sluice.enqueue_many($1)").bind(Value::from(jobs.to_vec()));
    let Err(error) = asked.execute(pool).await else { panic!("nothing was refused") };
    Refusal::of(&error)
}

/// Jobs in order; every third has a key.
fn good(count: usize) -> Vec<Value> {
    let job = |n: usize| {
        let mut job = json!({"request": {"prompt": SECRET}, "custom_id": format!("c{n}"), "priority": 3,
                             "run_at": "2026-08-01T06:00:00Z", "deadline": "infinity", "max_attempts": 2});
        if n.is_multiple_of(3) {
            job["idempotency_key"] = format!("k{n}").into();
        }
        job
    };
    (0..count).map(job).collect()
}

/// Text that no index takes in this length, since it cannot be compressed much.
fn noise(bytes: usize) -> String {
    let mut state = 1_u64;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from(state >> 58).unwrap())
    };
    (0..bytes).map(letter).collect()
}

/// A member with a bad value, and the beginning of the words after the member.
struct Bad {
    member: &'static str,
    value: Value,
    said: &'static str,
    code: &'static str,
    constraint: &'static str,
}

fn bad_members() -> Vec<Bad> {
    let bad = |member, value, said, code, constraint| Bad { member, value, said, code, constraint };
    let (priority, attempts) = ("job_priority_check", "job_max_attempts_check");
    let whole = "expected a whole number from -1000 to 1000, found";
    let instant = "expected an instant such as 2026-08-01T06:00:00Z, found";
    let long = |name| json!("x".repeat(name));
    // A number of five letters that is 309 digits long as the database writes it.
    let wide = |numbers: usize| Value::from(vec![json!(1e308); numbers]);
    vec![
        bad("request", Value::Null, "is NULL; expected a request", "23502", ""),
        bad(
            "request",
            json!({"prompt": SECRET, "n": wide(120_000)}),
            "is larger than 32 MB",
            "23514",
            "job_request_bytes",
        ),
        bad("metadata", json!([SECRET, wide(4_000)]), "is larger than 1 MB", "23514", "job_metadata_bytes"),
        bad("metadata", json!(long(1 << 20)), "is larger than 1 MB", "23514", "job_metadata_bytes"),
        bad("colour", json!(SECRET), "is no member of a job; expected one of request, route, project", "22023", ""),
        bad("Request", json!({"prompt": SECRET}), "is no member of a job; expected one of request", "22023", ""),
        bad("enqueued_by", json!("another"), "is no member of a job; expected one of request", "22023", ""),
        bad("priority", json!(SECRET), whole, "22P02", priority),
        bad("priority", json!({"prompt": SECRET}), whole, "22P02", priority),
        bad("priority", json!([SECRET]), whole, "22P02", priority),
        bad("priority", json!(true), whole, "22P02", priority),
        bad("priority", json!(1.5), whole, "22P02", priority),
        bad("priority", json!(1e300), whole, "23514", priority),
        bad("priority", json!(99_999), whole, "23514", priority),
        bad("priority", json!("1001"), "expected a number from -1000 to 1000, found 1001", "23514", priority),
        bad("priority", json!(-1001), "expected a number from -1000 to 1000, found -1001", "23514", priority),
        bad("max_attempts", json!(0), "expected a number above 0, found 0", "23514", attempts),
        bad("max_attempts", json!(-5), "expected a number above 0, found -5", "23514", attempts),
        bad("max_attempts", json!(32_768), "expected a whole number from 1 to 32767, found 32768", "23514", attempts),
        bad(
            "max_attempts",
            json!(SECRET),
            "expected a whole number from 1 to 32767, found a string",
            "22P02",
            attempts,
        ),
        bad("run_at", json!(SECRET), instant, "22007", ""),
        bad("run_at", json!({"prompt": SECRET}), instant, "22007", ""),
        bad("run_at", json!(5), instant, "22007", ""),
        bad("run_at", json!(""), instant, "22007", ""),
        bad("run_at", json!("2026-13-01T00:00:00Z"), instant, "22007", ""),
        bad("deadline", json!("2026-11-26 06:00 Mars/Phobos"), instant, "22007", ""),
        bad("deadline", json!("400000-01-01"), instant, "22007", ""),
        bad("deadline", json!(false), instant, "22007", ""),
        bad("route", long(201), "is 201 bytes long; expected at most 200", "23514", "job_route_bytes"),
        bad("project", long(5_000), "is 5000 bytes long; expected at most 200", "23514", "job_project_bytes"),
        bad("batch", json!("ü".repeat(101)), "is 202 bytes long; expected at most 200", "23514", "job_batch_bytes"),
        bad("custom_id", long(513), "is 513 bytes long; expected at most 512", "23514", "job_custom_id_bytes"),
        bad(
            "idempotency_key",
            long(1_025),
            "is 1025 bytes long; expected at most",
            "23514",
            "job_idempotency_key_bytes",
        ),
        bad("idempotency_key", json!(noise(9_000)), "is 9000 bytes long", "23514", "job_idempotency_key_bytes"),
    ]
}

#[tokio::test]
async fn a_bad_member_is_named_with_its_place_wherever_it_is() {
    let database = postgres::database().await;
    let pool = database.pool();
    // The keys of some are known, so that not every job of the array is inserted.
    let known: Vec<Value> = good(JOBS).into_iter().step_by(6).collect();
    sqlx::query("select count(*) from sluice.enqueue_many($1)").bind(Value::from(known)).execute(&pool).await.unwrap();
    let before = jobs(&pool).await;
    assert_eq!(before, 20);
    for bad in bad_members() {
        // Neither of them has a key that is known.
        for place in [0, JOBS / 2, JOBS - 1] {
            let mut jobs = good(JOBS);
            jobs[place] = json!({"request": {"prompt": SECRET}, "idempotency_key": format!("new {place}")});
            jobs[place][bad.member] = bad.value.clone();
            let found = refusal_of_many(&pool, &jobs).await;
            let what = format!("{} {}: {found:?}", bad.member, bad.said);
            assert!(found.message.starts_with(&format!("jobs[{place}].{}: {}", bad.member, bad.said)), "{what}");
            assert_eq!((found.code.as_str(), found.constraint.as_str()), (bad.code, bad.constraint), "{what}");
            assert!(found.column == bad.member || bad.code == "22023", "{what}");
            assert!(!format!("{found:?}").contains(SECRET), "{what}");
            assert!(found.message.len() < 250 && found.context.len() < 10_000, "{what}");
        }
    }
    assert_eq!(jobs(&pool).await, before);
}

#[tokio::test]
async fn what_is_no_job_is_named_with_its_place_wherever_it_is() {
    let database = postgres::database().await;
    let pool = database.pool();
    for (bad, said) in [
        (json!(SECRET), ": expected an object with \"request\" and the columns of sluice.job, found a string"),
        (json!([{"request": {"prompt": SECRET}}]), ": expected an object with \"request\""),
        (json!(7), ": expected an object with \"request\" and the columns of sluice.job, found 7"),
        (json!(true), ": expected an object with \"request\" and the columns of sluice.job, found a boolean"),
        (Value::Null, ": expected an object with \"request\" and the columns of sluice.job, found null"),
        (json!({}), ".request: is missing; expected a request"),
        (json!({"prompt": SECRET}), ".request: is missing; expected a request"),
        (json!({"request": {"prompt": SECRET}, "n".repeat(500): 1}), ".nnnn"),
    ] {
        for place in [0, JOBS / 2, JOBS - 1] {
            let mut jobs = good(JOBS);
            jobs[place] = bad.clone();
            let found = refusal_of_many(&pool, &jobs).await;
            assert!(found.message.starts_with(&format!("jobs[{place}]{said}")), "{said}: {found:?}");
            assert_eq!(found.code, "22023", "{found:?}");
            assert!(!format!("{found:?}").contains(SECRET) && found.message.len() < 250, "{found:?}");
        }
    }
    for no_array in [json!({"request": 1}), json!(SECRET), Value::Null] {
        let asked = sqlx::query("select count(*) from sluice.enqueue_many($1)").bind(no_array);
        let found = Refusal::of(&asked.execute(&pool).await.unwrap_err());
        assert!(found.message.starts_with("jobs: expected a JSON array of objects"), "{found:?}");
    }
    assert_eq!(jobs(&pool).await, 0);
}

#[tokio::test]
async fn of_several_the_first_is_named() {
    let database = postgres::database().await;
    let pool = database.pool();
    for (member, value, member_too, value_too) in [
        ("batch", json!("b".repeat(201)), "priority", json!(1001)),
        ("max_attempts", json!(0), "custom_id", json!("c".repeat(900))),
        ("run_at", json!("never"), "priority", json!("high")),
        ("colour", json!(1), "request", Value::Null),
        ("request", json!(vec![1e308; 120_000]), "request", json!(vec![1e308; 120_001])),
    ] {
        let mut jobs = good(9);
        jobs[4][member] = value;
        jobs[7][member_too] = value_too;
        let found = refusal_of_many(&pool, &jobs).await;
        assert!(found.message.starts_with(&format!("jobs[4].{member}: ")), "{found:?}");
    }
}

/// The options stand for a member that a job does not have.
#[tokio::test]
async fn an_option_for_all_is_refused_by_its_own_name_where_it_is_used() {
    let database = postgres::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let own = r#"{"request": 1, "route": "r", "project": "p", "batch": "b", "idempotency_key": "o"}"#;
    let bare = r#"{"request": 1, "idempotency_key": "k"}"#;
    for (option, said) in [
        ("route => repeat('x', 201)", "route: is 201 bytes long; expected at most 200"),
        ("project => repeat('x', 5000)", "project: is 5000 bytes long; expected at most 200"),
        ("batch => repeat('x', 201)", "batch: is 201 bytes long; expected at most 200"),
        ("route => null", "jobs[1].route: is missing, and the option route of sluice.enqueue_many is NULL"),
        ("project => null", "jobs[1].project: is missing, and the option project of sluice.enqueue_many is NULL"),
    ] {
        let many = format!("select count(*) from sluice.enqueue_many('[{own}, {bare}]', {option})");
        assert_eq!(refusal(&mut connection, &many).await.message, said);
        // It is of no account where no job needs it.
        let many = format!("select count(*) from sluice.enqueue_many('[{own}, {own}]', {option})");
        connection.execute(AssertSqlSafe(many)).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_whose_key_is_known_is_not_looked_at_any_further() {
    let database = postgres::database().await;
    let pool = database.pool();
    let first: i64 =
        sqlx::query_scalar("select sluice.enqueue('1', idempotency_key => 'k')").fetch_one(&pool).await.unwrap();
    let again = json!([
        {"request": 1, "idempotency_key": "k", "priority": "high", "run_at": "never", "batch": "b".repeat(201)},
        {"request": 1},
    ]);
    let rows: Vec<(i64, bool)> =
        sqlx::query_as("select job_id, existing from sluice.enqueue_many($1) order by ordinal")
            .bind(again)
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!((rows[0], rows[1].1), ((first, true), false));
}

#[tokio::test]
async fn a_key_of_another_job_is_named_with_its_place() {
    let database = postgres::database().await;
    let pool = database.pool();
    // Only a trigger of the user's brings such a key past the look that enqueue_many takes.
    run(
        &pool,
        "create function public.other_key() returns trigger language plpgsql as
             $$ begin new.idempotency_key := 'taken'; return new; end $$;
         create trigger other_key before insert on sluice.job for each row
             when (new.idempotency_key = 'free') execute function public.other_key();
         select sluice.enqueue('1', idempotency_key => 'taken')",
    )
    .await;
    for place in [0, 5, 8] {
        let mut jobs = good(9);
        jobs[place]["idempotency_key"] = "free".into();
        let found = refusal_of_many(&pool, &jobs).await;
        let said =
            format!("jobs[{place}].idempotency_key: idempotency key 'taken' of project 'default' belongs to job ");
        assert!(found.message.starts_with(&said), "{found:?}");
        assert_eq!((found.code.as_str(), found.constraint.as_str()), ("23505", "job_idempotency_key"));
    }
    let mut connection = pool.acquire().await.unwrap();
    let found = refusal(
        &mut connection,
        "insert into sluice.job (request, idempotency_key) values ('1', 'new'), ('1', 'free'), ('1', null)",
    )
    .await;
    assert!(found.message.starts_with("idempotency key 'taken' of project 'default' belongs to job"), "{found:?}");
    assert!(found.detail.starts_with("Row 2 of 3 of the statement"), "{found:?}");
}

async fn restricted(database: &TestDatabase, name: &str) -> PgConnection {
    let pool = database.pool();
    run(
        &pool,
        &format!(
            "create role {name} login; grant sluice_enqueuer to {name};
             insert into sluice.allowance (login, route, project, priority, open_jobs) values
                 ('{name}', 'fast', null, 10, 3), ('{name}', 'slow', 'shop', 0, null)"
        ),
    )
    .await;
    PgConnection::connect_with(&database.connect_options().username(name)).await.unwrap()
}

#[tokio::test]
async fn a_job_that_a_login_may_not_enqueue_is_named_with_its_place() {
    let database = postgres::database().await;
    let mut login = restricted(&database, "refused_places").await;
    for (bad, said) in [
        (json!({"route": "fast", "priority": 11}), "route 'fast' in project 'default' with priority 11"),
        (json!({"route": "other"}), "route 'other' in project 'default' with priority 0"),
        (json!({"project": "mine"}), "route 'slow' in project 'mine' with priority 0"),
        (json!({"priority": 1}), "route 'slow' in project 'shop' with priority 1"),
    ] {
        for place in [0, 3, 5] {
            let mut jobs = vec![json!({"request": {"prompt": SECRET}, "route": "slow", "project": "shop"}); 6];
            for (member, value) in bad.as_object().unwrap() {
                jobs[place][member] = value.clone();
            }
            if bad.get("route").is_some() {
                jobs[place]["project"] = "default".into();
            }
            let asked = sqlx::query("select count(*) from sluice.enqueue_many($1)").bind(Value::from(jobs.clone()));
            let found = Refusal::of(&asked.execute(&mut login).await.unwrap_err());
            let expected = format!("jobs[{place}]: refused_places may not enqueue on {said}");
            assert_eq!((found.message.as_str(), found.constraint.as_str()), (expected.as_str(), "job_allowance"));
            assert!(found.hint.contains("sluice.allowance") && !format!("{found:?}").contains(SECRET), "{found:?}");
            // The same jobs in a plain insert.
            let asked = sqlx::query(
                "insert into sluice.job (request, route, project, priority)
                 select r.request, r.route, r.project, coalesce(r.priority, 0) from jsonb_to_recordset($1)
                        r(request jsonb, route text, project text, priority smallint)",
            );
            let found = Refusal::of(&asked.bind(Value::from(jobs)).execute(&mut login).await.unwrap_err());
            assert_eq!(found.message, format!("refused_places may not enqueue on {said}"));
            assert_eq!(found.detail, format!("Row {} of 6 of the statement, in the order of job numbers.", place + 1));
        }
    }
    // The first that is one too many.
    let fast = json!({"request": {"prompt": SECRET}, "route": "fast"});
    for (count, place) in [(5, 3), (3, 2), (2, 1)] {
        let asked =
            sqlx::query("select count(*) from sluice.enqueue_many($1)").bind(Value::from(vec![fast.clone(); count]));
        let found = Refusal::of(&asked.execute(&mut login).await.unwrap_err());
        let said =
            format!("jobs[{place}]: refused_places may have 3 open jobs at most, and with these it would have more");
        assert_eq!((found.message.as_str(), found.constraint.as_str()), (said.as_str(), "job_open_jobs"), "{found:?}");
        login.execute("select sluice.enqueue('1', route => 'fast')").await.unwrap();
    }
}

#[tokio::test]
async fn a_place_is_not_told_of_a_later_statement() {
    let database = postgres::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    connection
        .execute("begin; select * from sluice.enqueue_many('[{\"request\": 1}, {\"request\": 2}]')")
        .await
        .unwrap();
    connection.execute("savepoint here").await.unwrap();
    let bad = "select count(*) from sluice.enqueue_many('[{\"request\": 1}, {\"request\": 2, \"priority\": 1001}]')";
    for _ in 0..2 {
        let found = refusal(&mut connection, bad).await;
        assert!(found.message.starts_with("jobs[1].priority: "), "{found:?}");
        connection.execute("rollback to here").await.unwrap();
        let found = refusal(
            &mut connection,
            "insert into sluice.job (request, priority) values ('1', 0), ('1', 0), ('1', -1001)",
        )
        .await;
        assert_eq!(found.message, "priority: expected a number from -1000 to 1000, found -1001");
        assert_eq!(found.detail, "Row 3 of 3 of the statement, in the order of job numbers.");
        connection.execute("rollback to here").await.unwrap();
    }
    // One row needs no number.
    let found = refusal(&mut connection, "insert into sluice.job (request, priority) values ('1', 1001)").await;
    assert_eq!(
        (found.message.as_str(), found.detail.as_str()),
        ("priority: expected a number from -1000 to 1000, found 1001", "")
    );
}

#[tokio::test]
async fn sluice_enqueue_names_each_member() {
    let database = postgres::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let long_key = format!("idempotency_key => '{}'", noise(9_000).replace('\'', "+"));
    for (options, said, code) in [
        ("priority => 100000", "priority: expected a number from -1000 to 1000, found 100000", "23514"),
        ("priority => -1001", "priority: expected a number from -1000 to 1000, found -1001", "23514"),
        ("priority => null", "priority: is NULL; leave the column out for its default", "23502"),
        ("max_attempts => 0", "max_attempts: expected a number above 0, found 0", "23514"),
        ("max_attempts => 40000", "max_attempts: expected a number from 1 to 32767, found 40000", "23514"),
        ("max_attempts => -40000", "max_attempts: expected a number above 0, found -40000", "23514"),
        ("route => null, idempotency_key => 'k'", "route: is NULL; leave the column out for its default", "23502"),
        ("project => null", "project: is NULL; leave the column out for its default", "23502"),
        ("project => null, idempotency_key => 'k'", "project: is NULL; leave the column out for its default", "23502"),
        ("project => repeat('p', 201)", "project: is 201 bytes long; expected at most 200", "23514"),
        (
            "project => repeat('p', 9000), idempotency_key => 'k'",
            "project: is 9000 bytes long; expected at most 200",
            "23514",
        ),
        (&long_key, "idempotency_key: is 9000 bytes long; expected at most 1024", "23514"),
        ("custom_id => repeat('c', 513)", "custom_id: is 513 bytes long; expected at most 512", "23514"),
    ] {
        let enqueue = format!("select sluice.enqueue('{{\"prompt\": \"{SECRET}\"}}', {options})");
        let found = refusal(&mut connection, &enqueue).await;
        assert_eq!((found.message.as_str(), found.code.as_str()), (said, code), "{found:?}");
        let member = said.split_once(':').unwrap().0;
        assert!(found.column == member && !format!("{found:?}").contains(SECRET), "{found:?}");
    }
    let found = refusal(&mut connection, "select sluice.enqueue(null)").await;
    assert_eq!(found.message, "request: is NULL; expected a request");
}

// -------------------------------------------------------------------------------------------------- from a file

/// A line that the reader takes and the database does not: a number of five letters has 309 digits there.
fn wide_line(name: &str, numbers: usize) -> String {
    format!(
        "{{\"prompt\": \"{SECRET}\", \"custom_id\": \"{name}\", \"metadata\": {{\"n\": [{}]}}}}\n",
        vec!["1e308"; numbers].join(",")
    )
}

fn line(name: usize) -> String {
    format!("{{\"prompt\": \"{SECRET} {}\", \"custom_id\": \"c{name}\"}}\n", "x".repeat(80_000))
}

#[tokio::test]
async fn a_line_that_the_database_refuses_is_named() {
    let database = postgres::database().await;
    let program = Program::new("", &database.url());
    // More than one statement's worth, with a blank line and a second line at fault.
    let all = 60;
    for place in [1, 57, all] {
        let lines: String = (1..=all)
            .map(|number| match number {
                _ if number == place => wide_line("wide", 4_000),
                2 => "\n".to_owned(),
                number => line(number),
            })
            .collect();
        program.file("q.jsonl", &lines);
        for arguments in [&[][..], &["--idempotent", "--skip-bad"]] {
            let output = program.run(&[&["enqueue", "q.jsonl"], arguments].concat()).await;
            let said = text(&output.stderr);
            let expected = format!("error: q.jsonl:{place}: metadata: is larger than 1 MB; nothing was enqueued\n");
            assert_eq!((output.status.code(), said.as_str()), (Some(7), expected.as_str()), "{arguments:?}");
        }
    }
    assert_eq!(jobs(&database.pool()).await, 0);
    // Lines that a batch has are left out, and counted all the same.
    program.file("q.jsonl", &(line(1) + &line(2)));
    program.output(&["enqueue", "q.jsonl", "--batch", "b"]).await;
    program.file("q.jsonl", &(line(1) + "\n" + &line(2) + &line(3) + &wide_line("wide", 4_000)));
    for again in ["--resume", "--append", "--idempotent"] {
        let output = program.run(&["enqueue", "q.jsonl", "--batch", "b", again]).await;
        let said = text(&output.stderr);
        assert!(said.contains("q.jsonl:5: metadata: is larger than 1 MB; nothing was enqueued"), "{again}: {said}");
    }
    assert_eq!(jobs(&database.pool()).await, 2);
}

#[tokio::test]
async fn the_line_for_which_a_login_has_no_room_is_named() {
    let database = postgres::database().await;
    let login = restricted(&database, "refused_lines").await;
    login.close().await.unwrap();
    let program = Program::new("", &database.url().replace("user=sluice", "user=refused_lines"));
    program.file("q.jsonl", (1..=6).map(line).collect::<String>().replacen('\n', "\n\n", 1));
    let output = program.run(&["enqueue", "q.jsonl", "--route", "fast"]).await;
    let said = text(&output.stderr);
    assert!(said.starts_with("error: q.jsonl:5: refused_lines may have 3 open jobs at most"), "{said}");
    let output = program.run(&["enqueue", "q.jsonl", "--route", "slow", "--priority", "5", "--idempotent"]).await;
    let said = text(&output.stderr);
    assert!(said.starts_with("error: q.jsonl:1: refused_lines may not enqueue on route 'slow'"), "{said}");
    assert_eq!(jobs(&database.pool()).await, 0);
}
