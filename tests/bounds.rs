//! Bounds on input from outside, and on what one login can do to another, with real logins.

use crate::support::postgres::TestDatabase;
use crate::support::program::{Program, text};
use crate::support::queue::Queue;
use serde_json::Value;
use sluice::domain::bounds::MOST_BYTES;
use sluice::store::Store;
use sluice::store::retention::Retired;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// Two logins that may enqueue. Roles are the cluster's, so each test has names of its own.
struct Logins {
    queue: Queue,
    good: PgConnection,
    evil: PgConnection,
}

impl Logins {
    async fn new(suffix: &str) -> Self {
        let queue = Queue::new().await;
        let [good, evil] = ["good", "evil"].map(|name| format!("bounds_{name}_{suffix}"));
        for name in [&good, &evil] {
            run(&queue.pool, &format!("create role {name} login; grant sluice_enqueuer to {name}")).await;
        }
        Self { good: login(&queue.database, &good).await, evil: login(&queue.database, &evil).await, queue }
    }
}

async fn login(database: &TestDatabase, name: &str) -> PgConnection {
    PgConnection::connect_with(&database.connect_options().username(name)).await.unwrap()
}

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

/// The message with which the server refuses a statement, and the constraint that it names.
async fn refusal(connection: &mut PgConnection, statement: &str) -> (String, String) {
    let error = connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap_err();
    let error = error.as_database_error().unwrap_or_else(|| panic!("{statement}"));
    (error.message().to_owned(), error.constraint().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_database_and_the_program_know_the_same_bounds() {
    let queue = Queue::new().await;
    for (column, most) in MOST_BYTES {
        let found: Option<i32> =
            sqlx::query_scalar("select sluice.most_bytes($1)").bind(column).fetch_one(&queue.pool).await.unwrap();
        assert_eq!(found, i32::try_from(most).ok(), "{column}");
    }
}

#[tokio::test]
async fn a_null_where_a_value_must_be_is_refused_by_name_and_the_row_is_not_quoted() {
    let mut logins = Logins::new("nulls").await;
    let prompt = "jsonb_build_object('prompt', 'a secret')";
    let mut statements = vec![("request", "insert into sluice.job (request) values (null)".to_owned())];
    for column in ["route", "project", "priority"] {
        for values in [format!("({prompt}, null)"), format!("({prompt}, default), ({prompt}, null)")] {
            statements.push((column, format!("insert into sluice.job (request, {column}) values {values}")));
        }
        statements.push((column, format!("select sluice.enqueue({prompt}, {column} => null)")));
    }
    // Columns that only the owner of the schema may set.
    let mut owner = logins.queue.pool.acquire().await.unwrap();
    for column in ["enqueued_by", "created_at"] {
        let statement = format!("insert into sluice.job (request, {column}) values ({prompt}, null)");
        let error = owner.execute(AssertSqlSafe(statement)).await.unwrap_err();
        let error = error.into_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("23502"), "{column}: {error:?}");
        assert!(error.message().starts_with(&format!("{column}: is NULL")), "{column}: {error:?}");
    }
    for (column, statement) in statements {
        let error = logins.good.execute(AssertSqlSafe(statement.clone())).await.unwrap_err();
        let error = error.into_database_error().unwrap();
        assert!(error.message().starts_with(&format!("{column}: is NULL")), "{statement}: {error:?}");
        assert_eq!(error.code().as_deref(), Some("23502"), "{statement}");
        assert!(!format!("{error:?}").contains("a secret"), "{statement}: {error:?}");
    }
    let mut copy = logins.good.copy_in_raw("copy sluice.job (request, route) from stdin").await.unwrap();
    copy.send(&b"{\"prompt\": \"a secret\"}\t\\N\n"[..]).await.unwrap();
    let error = copy.finish().await.unwrap_err().into_database_error().unwrap();
    assert!(
        error.message().starts_with("route: is NULL") && !format!("{error:?}").contains("Failing row"),
        "{error:?}"
    );
    assert_eq!(number(&mut logins.good, "select count(*) from sluice.jobs").await, 0);
}

#[tokio::test]
async fn a_name_that_is_too_long_is_refused_whatever_way_it_comes_and_is_not_quoted() {
    let mut logins = Logins::new("names").await;
    for (column, most) in MOST_BYTES.into_iter().filter(|(name, most)| *most < 1 << 20 && *name != "enqueued_by") {
        let ways = |bytes: usize| {
            let value = format!("repeat('x', {bytes})");
            [
                format!("insert into sluice.job (request, {column}) select '{{}}', {value}"),
                format!(
                    "insert into sluice.job (request, {column}) values ('{{}}', 'short'), ('{{}}', {value} || 'y')"
                ),
                format!("select sluice.enqueue('{{}}', {column} => {value} || 'z')"),
                format!(
                    "select * from sluice.enqueue_many(jsonb_build_array(jsonb_build_object('request', 1, '{column}', \
                     {value} || 'a')))"
                ),
            ]
        };
        for statement in ways(most + 1) {
            let (said, constraint) = refusal(&mut logins.evil, &statement).await;
            let place = if statement.contains("enqueue_many") { "jobs[0]." } else { "" };
            assert!(said.starts_with(&format!("{place}{column}: is {}", most / 10)), "{said}");
            assert!(said.ends_with(&format!("expected at most {most}")) && !said.contains("xxx"), "{said}");
            assert_eq!(constraint, format!("job_{column}_bytes"));
        }
        for statement in ways(most - 1) {
            logins
                .evil
                .execute(AssertSqlSafe(statement.clone()))
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
    let copied = format!("{}\t{{}}\n", "r".repeat(201));
    let mut copy = logins.evil.copy_in_raw("copy sluice.job (batch, request) from stdin").await.unwrap();
    copy.send(copied.as_bytes()).await.unwrap();
    assert!(copy.finish().await.unwrap_err().to_string().contains("batch: is 201 bytes long; expected at most 200"));
    // No index holds such a name, and it is refused before one is asked.
    let far = "insert into sluice.job (request, batch) values ('{}', repeat('x', 300000))";
    let (said, constraint) = refusal(&mut logins.evil, far).await;
    assert_eq!(said, "batch: is 300000 bytes long; expected at most 200");
    assert_eq!(constraint, "job_batch_bytes");
}

#[tokio::test]
async fn a_body_that_is_too_long_as_text_is_refused_also_where_it_is_stored_small() {
    let mut logins = Logins::new("bodies").await;
    logins
        .evil
        .execute(
            "create temp table small as select jsonb_agg('1e100000'::numeric) as body from generate_series(1, 500)",
        )
        .await
        .unwrap();
    assert!(number(&mut logins.evil, "select pg_column_size(body)::bigint from small").await < 2000);
    for (statement, said) in [
        ("insert into sluice.job (request) select body from small", "request: is larger than 32 MB"),
        ("insert into sluice.job (request, metadata) select '{}', body from small", "metadata: is larger than 1 MB"),
        (
            "insert into sluice.job (request) values (jsonb_build_object('prompt', repeat('x', 34000000)))",
            "request: is larger than 32 MB",
        ),
        ("select sluice.enqueue(body) from small", "request: is larger than 32 MB"),
    ] {
        assert_eq!(refusal(&mut logins.evil, statement).await.0, said, "{statement}");
    }
    logins
        .good
        .execute("insert into sluice.job (request) values (jsonb_build_object('prompt', repeat('x', 33000000)))")
        .await
        .unwrap();
    assert_eq!(logins.queue.count("select count(*) from sluice.job").await, 1);
}

#[tokio::test]
async fn the_key_of_one_login_is_nothing_to_another() {
    let mut logins = Logins::new("keys").await;
    // Squatted, and for good.
    logins
        .evil
        .execute("insert into sluice.job (request, idempotency_key, run_at) values ('{}', 'order-1', 'infinity')")
        .await
        .unwrap();
    let first = number(&mut logins.good, "select sluice.enqueue('{}', idempotency_key => 'order-1')").await;
    let own = "select count(*) from sluice.jobs where idempotency_key = 'order-1' and state = 'queued'";
    assert_eq!(number(&mut logins.good, own).await, 1);
    assert_eq!(number(&mut logins.good, "select sluice.enqueue('{}', idempotency_key => 'order-1')").await, first);
    // Found out: it looks like any other.
    logins.good.execute("insert into sluice.job (request, idempotency_key) values ('{}', 'order-2')").await.unwrap();
    logins.evil.execute("insert into sluice.job (request, idempotency_key) values ('{}', 'order-2')").await.unwrap();
    let existing = "select count(*) from sluice.enqueue_many('[{\"request\": 1, \"idempotency_key\": \"order-3\"}]') \
                    where existing";
    assert_eq!((number(&mut logins.good, existing).await, number(&mut logins.evil, existing).await), (0, 0));
    assert_eq!((number(&mut logins.good, existing).await, number(&mut logins.evil, existing).await), (1, 1));
    // Held uncommitted: it is not waited for.
    logins
        .evil
        .execute("begin; insert into sluice.job (request, idempotency_key) values ('{}', 'order-4')")
        .await
        .unwrap();
    logins.good.execute("set lock_timeout = '1ms'").await.unwrap();
    logins.good.execute("insert into sluice.job (request, idempotency_key) values ('{}', 'order-4')").await.unwrap();
    number(&mut logins.good, "select sluice.enqueue('{}', idempotency_key => 'order-5')").await;
    logins.evil.execute("rollback").await.unwrap();
    // Of one login it is still one job.
    let (said, _) =
        refusal(&mut logins.good, "insert into sluice.job (request, idempotency_key) values ('{}', 'order-4')").await;
    assert!(said.starts_with("idempotency key 'order-4' of project 'default' belongs to job "), "{said}");
}

#[tokio::test]
async fn keys_from_before_they_had_owners_hold_for_the_login_of_their_job() {
    let mut logins = Logins::new("before").await;
    let old = number(&mut logins.good, "select sluice.enqueue('{}', idempotency_key => 'old')").await;
    logins
        .queue
        .run(
            "with taken as (delete from sluice.idempotency returning *)
             insert into sluice.idempotency_unowned (project, key, job_id) select project, key, job_id from taken",
        )
        .await;
    let enqueue = "select sluice.enqueue('{}', idempotency_key => 'old')";
    for _ in 0..2 {
        assert_eq!(number(&mut logins.good, enqueue).await, old);
        let (said, _) =
            refusal(&mut logins.good, "insert into sluice.job (request, idempotency_key) values ('{}', 'old')").await;
        assert!(said.ends_with(&format!("belongs to job {old} already")), "{said}");
        let many = "select job_id from sluice.enqueue_many('[{\"request\": 1, \"idempotency_key\": \"old\"}]')";
        assert_eq!(number(&mut logins.good, many).await, old);
        assert_ne!(number(&mut logins.evil, enqueue).await, old);
        // And the same after upkeep has been there.
        logins.queue.store.own_keys().await.unwrap();
        assert_eq!(logins.queue.count("select count(*) from sluice.idempotency_unowned").await, 0);
    }
    assert_eq!(logins.queue.store.own_keys().await.unwrap(), 0);
}

#[tokio::test]
async fn numbers_are_given_with_jobs_and_not_for_the_asking() {
    let mut logins = Logins::new("numbers").await;
    for statement in [
        "select nextval('sluice.job_id_seq')",
        "select count(nextval('sluice.job_id_seq')) from generate_series(1, 1000)",
        "select setval('sluice.job_id_seq', 1)",
        "alter sequence sluice.job_id_seq restart",
        "insert into sluice.job (id, request) values (40000000, '{}')",
        "insert into sluice.job (id, request) overriding system value values (40000000, '{}')",
        "select sluice.ensure_partitions(100)",
        "insert into sluice.job_p0 (request) values ('{}')",
    ] {
        let (said, _) = refusal(&mut logins.evil, statement).await;
        assert!(said.starts_with("permission denied") || said.starts_with("must be owner"), "{statement}: {said}");
    }
    let one = number(&mut logins.good, "insert into sluice.job (request) values ('{}') returning id").await;
    assert_eq!(number(&mut logins.good, "select currval('sluice.job_id_seq')").await, one);
    // A caller that repeats itself uses none up.
    let again = "select count(sluice.enqueue('{}', idempotency_key => 'k')) from generate_series(1, 100)";
    number(&mut logins.evil, again).await;
    let many = "select count(*) from sluice.enqueue_many((select jsonb_agg(
        '{\"request\": 1, \"idempotency_key\": \"k\"}'::jsonb)
                                                            from generate_series(1, 100)))";
    number(&mut logins.evil, many).await;
    let next = number(&mut logins.good, "insert into sluice.job (request) values ('{}') returning id").await;
    assert_eq!(next, one + 2);
    // And numbers of inserts that are taken back do not run ahead of upkeep.
    let store = &logins.queue.store;
    for _ in 0..3 {
        logins
            .queue
            .run("select setval('sluice.job_id_seq', (select last_value + 30000000 from sluice.job_id_seq))")
            .await;
        store.ensure_partitions().await.unwrap();
        logins.evil.execute("insert into sluice.job (request) values ('{}')").await.unwrap();
    }
}

/// Everything that a login can hold: advisory locks by the names that there were, a table here and there, rows.
async fn hold_everything(evil: &mut PgConnection) {
    for name in
        ["migrate", "ensure_partitions", "begin_partition", "retire", "unqueued", "fold_tally", "own_keys", "batch/b"]
    {
        let lock = format!("select pg_advisory_lock(hashtextextended('sluice.{name}', 0))");
        evil.execute(AssertSqlSafe(lock)).await.unwrap();
    }
    for table in ["job", "job_p0", "result", "turn", "migration", "idempotency", "batch_turn", "ready"] {
        for mode in ["row share", "row exclusive", "share", "exclusive", "access exclusive"] {
            let (said, _) = refusal(evil, &format!("begin; lock table sluice.{table} in {mode} mode nowait")).await;
            assert!(said.starts_with("permission denied"), "{table}, {mode}: {said}");
            evil.execute("rollback").await.unwrap();
        }
    }
    for statement in [
        "select from sluice.turn for update",
        "select from sluice.batch_turn for share",
        "select from sluice.job for update",
        "select sluice.take_turn('retire')",
        "select sluice.own_keys()",
    ] {
        let (said, _) = refusal(evil, statement).await;
        assert!(said.starts_with("permission denied"), "{statement}: {said}");
    }
    // What it may: a job that is not committed, and the locks that come with it.
    evil.execute(
        "begin; insert into sluice.job (batch, request, idempotency_key) values ('b', '{}', 'k'); select id from \
         sluice.job",
    )
    .await
    .unwrap();
    evil.execute("select sluice.take_batch_turn('b', true, false)").await.unwrap();
}

#[tokio::test]
async fn a_login_that_holds_all_that_it_can_holds_up_nothing() {
    let mut logins = Logins::new("locks").await;
    logins.queue.run("insert into sluice.job (batch, request) values ('b', '{}')").await;
    hold_everything(&mut logins.evil).await;
    // A session that had to wait would be told so.
    let options =
        logins.queue.database.connect_options().options([("lock_timeout", "2s"), ("statement_timeout", "20s")]);
    let store = Store::from_pool(PgPoolOptions::new().max_connections(3).connect_lazy_with(options));
    store.migrate().await.unwrap();
    store.ensure_partitions().await.unwrap();
    assert!(store.fold_tally().await.unwrap().rows > 0, "it is not taken for the work of another");
    store.queue_unqueued().await.unwrap();
    store.own_keys().await.unwrap();
    store.forget_turns().await.unwrap();
    store.begin_partition(HOUR).await.unwrap();
    assert_ne!(store.retire(HOUR).await.unwrap(), Retired::Busy);
    let program = Program::new("", &logins.queue.database.url());
    program.file("q.jsonl", "{\"prompt\": \"a\"}\n");
    for again in ["--append", "--resume"] {
        program.output(&["enqueue", "q.jsonl", "--batch", "b", again]).await;
    }
    // A new partition is attached beside the open transaction.
    logins.queue.run("select setval('sluice.job_id_seq', 10000000)").await;
    assert!(store.ensure_partitions().await.unwrap() > 0);
}

#[tokio::test]
async fn no_lock_of_ours_goes_by_a_number_that_can_be_guessed() {
    let queue = Queue::new().await;
    let taking =
        "select count(*) from pg_proc where pronamespace = 'sluice'::regnamespace and prosrc ~ 'pg_(try_)?advisory'";
    assert_eq!(queue.count(taking).await, 0);
}

#[tokio::test]
async fn where_a_role_is_missing_nothing_is_opened() {
    let queue = Queue::new().await;
    queue.run("insert into sluice.job (request) values ('{\"prompt\": \"secret\"}')").await;
    run(
        &queue.pool,
        "create role bounds_looker login; grant usage on schema sluice to bounds_looker; grant select on sluice.jobs \
         to bounds_looker",
    )
    .await;
    // Roles are the cluster's and other tests use them: the function is asked for ones that are not there.
    let definition: String = sqlx::query_scalar("select pg_get_functiondef('sluice.sees_all'::regproc)")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    let mut looker = login(&queue.database, "bounds_looker").await;
    for missing in [["sluice_reporter", "none_such"], ["sluice_worker", "none_such"], ["sluice_", "none_such_"]] {
        let [known, unknown] = missing;
        run(&queue.pool, &definition.replace(known, unknown)).await;
        assert_eq!(number(&mut looker, "select count(*) from sluice.jobs").await, 0, "{missing:?}");
        assert_eq!(queue.count("select count(*) from sluice.jobs").await, 1, "the owner");
    }
}

#[tokio::test]
async fn where_there_are_allowances_a_login_enqueues_what_they_let_in() {
    let mut logins = Logins::new("allowances").await;
    let insert =
        |columns: &str, values: &str| format!("insert into sluice.job (request{columns}) values ('{{}}'{values})");
    // Without any row, everything.
    logins.good.execute(AssertSqlSafe(insert(", priority", ", 1000"))).await.unwrap();
    logins
        .queue
        .run(
            "insert into sluice.allowance (login, route, project, priority, open_jobs) values
                 ('bounds_good_allowances', 'fast', 'shop', 10, 3), ('*', 'slow', null, 0, null)",
        )
        .await;
    for (columns, values) in [
        ("", ""),
        (", route", ", 'fast'"),
        (", route, project", ", 'fast', 'other'"),
        (", route, project, priority", ", 'fast', 'shop', 11"),
        (", route, priority", ", 'slow', 1"),
    ] {
        let (said, constraint) = refusal(&mut logins.good, &insert(columns, values)).await;
        assert!(said.starts_with("bounds_good_allowances may not enqueue on route "), "{said}");
        assert_eq!(constraint, "job_allowance");
    }
    let (said, _) = refusal(&mut logins.evil, &insert(", route, project", ", 'fast', 'shop'")).await;
    assert!(said.contains("may not enqueue on route 'fast' in project 'shop' with priority 0"), "{said}");
    let (said, _) = refusal(&mut logins.evil, "select sluice.enqueue('{}', route => 'fast')").await;
    assert!(said.contains("may not enqueue"), "{said}");
    // So many open ones, counted over statements.
    let fast = insert(", route, project", ", 'fast', 'shop'");
    for _ in 0..3 {
        logins.good.execute(AssertSqlSafe(fast.clone())).await.unwrap();
    }
    let (said, constraint) = refusal(&mut logins.good, &fast).await;
    assert!(said.contains("may have 3 open jobs at most"), "{said}");
    assert_eq!(constraint, "job_open_jobs");
    logins.good.execute(AssertSqlSafe(insert(", route", ", 'slow'"))).await.unwrap();
    let cancel = "select count(*) filter (where sluice.cancel(id)) from sluice.jobs where route = 'fast'";
    assert_eq!(logins.queue.count(cancel).await, 3);
    let (said, _) = refusal(
        &mut logins.good,
        &format!("{fast}, ('{{}}', 'fast', 'shop'), ('{{}}', 'fast', 'shop'), ('{{}}', 'fast', 'shop')"),
    )
    .await;
    assert!(said.contains("may have 3 open jobs at most"), "{said}");
    logins.good.execute(AssertSqlSafe(fast)).await.unwrap();
    // Who could change the queue anyway is not held to it.
    logins.queue.run("insert into sluice.job (request, priority) values ('{}', 1000)").await;
    for statement in ["select * from sluice.allowance", "delete from sluice.allowance", "delete from sluice.open_job"] {
        assert!(refusal(&mut logins.good, statement).await.0.starts_with("permission denied"));
    }
}

#[tokio::test]
async fn a_foreign_job_stands_in_no_export_of_the_owner() {
    let mut logins = Logins::new("export").await;
    let program = Program::new("", &logins.queue.database.url());
    program
        .file("q.jsonl", "{\"prompt\": \"a\", \"custom_id\": \"q-1\"}\n{\"prompt\": \"b\", \"custom_id\": \"q-2\"}\n");
    logins
        .evil
        .execute("insert into sluice.job (batch, custom_id, request) values ('b', 'q-1', '{\"prompt\": \"evil\"}')")
        .await
        .unwrap();
    program.output(&["enqueue", "q.jsonl", "--batch", "b", "--append"]).await;
    // A resume knows its own lines, and not those of another.
    program.file(
        "more.jsonl",
        "{\"prompt\": \"a\", \"custom_id\": \"q-1\"}\n{\"prompt\": \"c\", \"custom_id\": \"q-3\"}\n",
    );
    let told = program.output(&["enqueue", "more.jsonl", "--batch", "b", "--resume", "--format", "csv"]).await;
    assert_eq!(told, "batch,jobs,existing,faulty,enqueue\nb,1,1,0,2\n");
    let worker = logins.queue.worker().await;
    for claimed in logins.queue.claim_all(worker).await {
        logins.queue.succeed(&claimed).await;
    }
    let lines = |arguments: &[&str]| {
        let arguments: Vec<String> = ["results", "b"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let program = &program;
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = program.run(&arguments).await;
            let whose: Vec<String> = text(&output.stdout)
                .lines()
                .map(|line| {
                    let line: Value = serde_json::from_str(line).unwrap();
                    format!(
                        "{} {}",
                        line["sluice"]["enqueued_by"].as_str().unwrap(),
                        line["custom_id"].as_str().unwrap()
                    )
                })
                .collect();
            (whose, text(&output.stderr))
        }
    };
    let (own, said) = lines(&[]).await;
    assert_eq!(own, ["sluice q-1", "sluice q-2", "sluice q-3"]);
    assert!(said.contains("which are left out: bounds_evil_export (1). --login '*' takes them in"), "{said}");
    let (all, said) = lines(&["--login", "*"]).await;
    assert_eq!((all.len(), said.as_str()), (4, ""));
    assert_eq!(lines(&["--login", "bounds_evil_export"]).await.0, ["bounds_evil_export q-1"]);
    let (none, said) = lines(&["--login", "bounds_absent"]).await;
    assert_eq!(none, [""; 0]);
    let expected = "batch `b` has no job of the login bounds_absent; it has jobs of sluice (3), bounds_evil_export (1)";
    assert!(said.contains(expected), "{said}");
    // A reader without jobs of its own sees all, and whose each is.
    run(&logins.queue.pool, "create role bounds_reader login; grant sluice_reporter to bounds_reader").await;
    let reader = Program::new("", &logins.queue.database.url().replace("user=sluice", "user=bounds_reader"));
    let output = reader.run(&["results", "b"]).await;
    assert_eq!(text(&output.stdout).lines().count(), 4);
    assert!(text(&output.stderr).contains("batch b holds jobs of several logins: sluice (3), bounds_evil_export (1)"));
}
