//! Untrusted data from outside: rows that people insert, bytes that providers send, files. With any of it, the worker
//! goes on with the good jobs beside it, and its memory stays within bounds.

mod provider;

use crate::support::clock;
use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use crate::support::wait::{until, within_patience};
use rustix::process::{Pid, Signal, kill_process};
use sluice::simulate::{Scenario, Simulator};
use sqlx::{AssertSqlSafe, PgPool};
use std::io::Write as _;
use tokio::net::TcpListener;
use tokio::process::Child;

/// A debug build with a few jobs in hand, and room for two requests of the size that is allowed.
const MOST_MEMORY: u64 = 400 << 20;

const LIMITS: &str = "timeouts = { connect = \"1s\", first_byte = \"1s\", idle = \"500ms\", total = \"2s\" }\n";

struct Stage {
    _database: TestDatabase,
    pool: PgPool,
    program: Program,
    _good: Simulator,
}

impl Stage {
    /// A provider that is good, and one that is the server listening at `bad`.
    async fn new(bad: &str) -> Self {
        let database = database().await;
        let scenario =
            "[providers.good]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n";
        let good = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[worker]\nmax_in_flight = 50\n[http]\nlisten = \"off\"\n\
             [providers.good]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             [models.\"good/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.default]\nrungs = [\"good/model\"]\n\
             [providers.bad]\ndialect = \"openai\"\nbase_url = \"http://{bad}/v1\"\n{LIMITS}\
             breaker = {{ min_calls = 1000, failure_rate = 1.0, window = \"60s\", open = \"1s\" }}\n\
             [models.\"bad/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.bad]\nrungs = [\"bad/model\"]\nmax_attempts = 1\n\
             [routes.patient]\nrungs = [{{ target = \"bad/model\", timeouts = {{ \
             first_byte = \"10m\", total = \"10m\" }} }}]\n",
            good.base_url("good").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), _database: database, program, _good: good }
    }

    /// Rows that come in past the triggers and are queued by hand: as those that were there before there were bounds.
    async fn run_from_before(&self, statement: &'static str) {
        let queued = format!(
            "begin; set local session_replication_role = replica; {statement};
             set local session_replication_role = origin;
             insert into sluice.ready (flow, prio, job_id)
                  select sluice.flow_of(j.route, j.project, j.batch), -j.priority, j.id from sluice.job j
                   where not exists (select from sluice.ready r where r.job_id = j.id); commit"
        );
        sqlx::raw_sql(AssertSqlSafe(queued)).execute(&self.pool).await.unwrap();
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    fn worker(&self) -> Running {
        self.worker_with(&[])
    }

    fn worker_with(&self, variables: &[(&str, &str)]) -> Running {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = self.program.command(&["worker"]);
        command.envs(variables.iter().copied());
        command.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
        let child = command.spawn().unwrap();
        Running { pid: i32::try_from(child.id().unwrap()).unwrap(), child, said }
    }

    async fn good_jobs(&self, count: i64) {
        sqlx::query(
            "insert into sluice.job (request, batch) select '{\"prompt\": \"Hi\"}', 'good' from generate_series(1, $1)",
        )
        .bind(count)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Good jobs beside the bad ones all succeed.
    async fn until_good_succeed(&self, count: i64) {
        let good = "select count(*) from sluice.jobs where batch = 'good' and state = 'succeeded'";
        until("the good jobs succeed", async || self.count(good).await >= count).await;
    }
}

/// The most memory that a process ever had, in bytes; `None` when it has none any more.
fn most_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

struct Running {
    child: Child,
    pid: i32,
    said: tempfile::NamedTempFile,
}

impl Running {
    /// Stops it, and returns what it said.
    async fn stop(mut self) -> String {
        let most = most_memory(u32::try_from(self.pid).unwrap()).unwrap();
        kill_process(Pid::from_raw(self.pid).unwrap(), Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        assert!(most < MOST_MEMORY, "{} MB", most >> 20);
        said
    }

    fn said(&self) -> String {
        text(&std::fs::read(self.said.path()).unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the worker said:\n{}", self.said());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_requests_fail_alone() {
    let stage = Stage::new("127.0.0.1:1").await;
    stage
        .run(
            r#"insert into sluice.job (custom_id, request) values
                 ('number', '1'), ('text', '"x"'), ('null', 'null'), ('array', '[]'), ('empty', '{}'),
                 ('big number', '{"prompt": "x", "temperature": 1e400}'),
                 ('small number', '{"prompt": "x", "temperature": 1e-400}'),
                 ('many digits', ('{"prompt": "x", "n": 1' || repeat('0', 100000) || '}')::jsonb),
                 ('odd text', jsonb_build_object('prompt', E'\x01\x1b[31m\u2028\uFFFF')),
                 ('odd name', jsonb_build_object(E'\x1b[31m' || repeat('x', 100000), 1)),
                 ('deep', (repeat('[', 5000) || repeat(']', 5000))::jsonb),
                 ('deep objects', (repeat('{"a":', 3000) || '1' || repeat('}', 3000))::jsonb),
                 ('deep member', ('{"prompt": "x", "tools": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb),
                 ('deep schema', ('{"prompt": "x", "response_format": {"type": "json_schema", "json_schema":
                     {"name": "x", "schema": '
                     || repeat('{"not":', 100) || 'true' || repeat('}', 100) || '}}}')::jsonb)"#,
        )
        .await;
    stage
        .run_from_before(
            "insert into sluice.job (custom_id, request, metadata) select repeat('c', 1000000), \
             '{\"prompt\": \"Hi\"}', (repeat('[', 3000) || repeat(']', 3000))::jsonb",
        )
        .await;
    stage
        .run(
            "insert into sluice.job (priority, batch, request) values (1000, 'good', '{\"prompt\": \"Hi\"}'), \
             (-1000, 'good', '{\"prompt\": \"Hi\"}')",
        )
        .await;
    stage
        .run_from_before(
            "insert into sluice.job (route, request) values (E'a\\x1b[31m\\nroute', '{\"prompt\": \"Hi\"}'), \
             (repeat('r', 100000), '{}')",
        )
        .await;
    stage.good_jobs(100).await;
    let worker = stage.worker();
    stage.until_good_succeed(102).await;
    let open = "select count(*) from sluice.jobs where route = 'default' and state not in ('succeeded', 'failed')";
    until("every row of a known route has ended", async || stage.count(open).await == 0).await;
    // Another batch of good ones finds the worker in good health.
    stage.good_jobs(10).await;
    stage.until_good_succeed(112).await;
    let said = worker.stop().await;
    assert!(!said.contains('\u{1b}'), "a control character reached the terminal:\n{said}");
    let refused = "select count(*) from sluice.results where state = 'failed' and error_class = 'invalid_request' and \
        length(error) between 1 and 1000";
    assert_eq!(
        stage.count("select count(*) from sluice.results where state = 'failed'").await,
        stage.count(refused).await
    );
    assert_eq!(
        stage
            .count("select count(*) from sluice.attempt a join sluice.result r using (job_id) where r.state = 'failed'")
            .await,
        0
    );
    for (name, state) in [("deep", "failed"), ("big number", "failed"), ("number", "failed"), ("odd text", "succeeded")]
    {
        let found: String = sqlx::query_scalar("select state from sluice.jobs where custom_id = $1")
            .bind(name)
            .fetch_one(&stage.pool)
            .await
            .unwrap();
        assert_eq!(found, state, "{name}");
    }
    // They can be looked at, too.
    for id in [1, 6, 8, 11, 12, 13, 15] {
        for arguments in [["job", "show"], ["explain", ""]] {
            let id = id.to_string();
            let arguments: Vec<&str> =
                arguments.into_iter().filter(|word| !word.is_empty()).chain([id.as_str()]).collect();
            let output = stage.program.run(&arguments).await;
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_stays_open_holds_up_the_outcomes_of_its_own_jobs_only() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage::new(&server.local_addr().unwrap().to_string()).await;
    let worker = stage.worker();
    let failed = "select count(*) from sluice.jobs where batch = 'held' and state = 'failed'";
    let running = "select count(*) from sluice.jobs where batch = 'held' and state = 'running'";
    for (end, good, failed_in_the_end) in [("rollback", 100, 10), ("commit", 200, 17)] {
        stage
            .run(
                "insert into sluice.job (route, request, batch, max_attempts)
                 select 'patient', '{\"prompt\": \"Hi\"}', 'held', 1 from generate_series(1, 10)",
            )
            .await;
        // It takes their calls, and answers none.
        let mut calls = Vec::new();
        for _ in 0..10 {
            calls.push(within_patience("a call", server.accept()).await.unwrap());
        }
        let before = stage.count(failed).await;
        let mut open = stage.pool.begin().await.unwrap();
        let cancel = "select sluice.cancel(id) from sluice.jobs where batch = 'held' and state = 'running' limit 3";
        assert_eq!(sqlx::query(cancel).fetch_all(&mut *open).await.unwrap().len(), 3);
        // All calls end now, three of them under claims that are locked.
        drop(calls);
        until("the outcomes of the others are written", async || stage.count(failed).await == before + 7).await;
        stage.good_jobs(100).await;
        stage.until_good_succeed(good).await;
        assert_eq!(stage.count(running).await, 3);
        sqlx::query(end).execute(&mut *open).await.unwrap();
        drop(open);
        until("so are theirs", async || stage.count(running).await == 0).await;
        assert_eq!(stage.count(failed).await, failed_in_the_end);
    }
    // Each call is on the ledger once, those of the cancelled jobs too.
    let booked = "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id where j.batch = 'held'";
    until("all calls are booked", async || stage.count(booked).await == 20).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_beyond_all_calendars_stop_nobody() {
    let stage = Stage::new("127.0.0.1:1").await;
    stage
        .run(
            r#"insert into sluice.job (custom_id, batch, request, deadline) values
                   ('never late', 'good', '{"prompt": "Hi"}', 'infinity'),
                   ('far', 'good', '{"prompt": "Hi"}', '290000-01-01'),
                   ('no deadline', 'good', '{"prompt": "Hi"}', null),
                   ('late', null, '{"prompt": "Hi"}', '-infinity');
               insert into sluice.job (batch, request, run_at) values
                   ('good', '{"prompt": "Hi"}', '-infinity'), (null, '{"prompt": "Hi"}', 'infinity'),
                   (null, '{"prompt": "Hi"}', '290000-01-01');
               insert into sluice.job (batch, request, created_at) values
                   ('good', '{"prompt": "Hi"}', 'infinity'), ('good', '{"prompt": "Hi"}', '-infinity')"#,
        )
        .await;
    let worker = stage.worker();
    stage.until_good_succeed(6).await;
    let late = "select count(*) from sluice.results where state = 'failed' and error_class = 'deadline'";
    until("the late one fails", async || stage.count(late).await == 1).await;
    worker.stop().await;
    for id in 1..=9 {
        let id = id.to_string();
        let shown = stage.program.output(&["job", "show", &id, "--format", "json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["deadline"].is_null(), id.parse::<i32>().unwrap() > 4 || id == "3", "{shown}");
        stage.program.output(&["explain", &id]).await;
    }
    stage.program.output(&["status", "--format", "json"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_index_holds_do_not_stop_the_sums() {
    let stage = Stage::new("127.0.0.1:1").await;
    // Random, so that no compression makes them short.
    stage
        .run_from_before(
            "insert into sluice.job (project, request) select string_agg(md5(random()::text), ''), \
             '{\"prompt\": \"Hi\"}' from generate_series(1, 300)",
        )
        .await;
    stage.good_jobs(5).await;
    let worker = stage.worker();
    stage.until_good_succeed(5).await;
    until("all sums are folded", async || {
        stage.count("select count(*) from sluice.tally").await == 0
            && stage.count("select coalesce(sum(succeeded), 0)::bigint from sluice.tally_hour").await == 6
    })
    .await;
    worker.stop().await;
    stage.program.output(&["report", "cost", "--by", "project"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_size_stay_within_memory() {
    let stage = Stage::new("127.0.0.1:1").await;
    for _ in 0..6 {
        // Sixty megabytes that the database keeps as one.
        stage
            .run_from_before(
                "insert into sluice.job (request) values (jsonb_build_object('prompt', repeat('x', 60000000)))",
            )
            .await;
    }
    stage
        .run(
            "insert into sluice.job (request) select jsonb_build_object('prompt', jsonb_agg(0)) from \
             generate_series(1, 3000000)",
        )
        .await;
    stage.good_jobs(20).await;
    let worker = stage.worker();
    stage.until_good_succeed(20).await;
    let refused = "select count(*) from sluice.results where state = 'failed' and error like '%larger than%'";
    until("the large ones are refused", async || stage.count(refused).await == 6).await;
    let refused = "select count(*) from sluice.results where state = 'failed' and error like '%members%'";
    until("the one of many members is refused", async || stage.count(refused).await == 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_would_take_minutes_and_gigabytes_are_refused_and_hold_up_nobody() {
    let stage = Stage::new("127.0.0.1:1").await;
    stage
        .run(
            r"create function with_schema(name text, schema jsonb) returns void language sql as $$
                   insert into sluice.job (custom_id, request) values (name, jsonb_build_object('prompt', 'Hi',
                       'response_format', jsonb_build_object('type', 'json_schema', 'json_schema',
                           jsonb_build_object('name', 'x', 'schema', schema))))
               $$;
               create function patterns(count integer, pattern text) returns jsonb language sql as $$
                   select jsonb_build_object('properties', jsonb_object_agg('p' || n, 
                       jsonb_build_object('pattern', pattern || n)))
                     from generate_series(1, count) n
               $$;
               select with_schema('a thousand', patterns(1000, '\p{L}{1,16}')),
                      with_schema('heavy', patterns(400, '\p{L}{1,16}')),
                      with_schema('four thousand', patterns(4000, '\p{L}{1,16}')),
                      with_schema('too heavy', patterns(400, '\p{L}{1,100}')),
                      with_schema('enum', (select jsonb_build_object('enum', jsonb_agg('value ' || n))
                          from generate_series(1, 200000) n)),
                      with_schema('const', (select jsonb_build_object('const', jsonb_agg(n))
                          from generate_series(1, 400000) n));",
        )
        .await;
    stage
        .run(
            "insert into sluice.job (custom_id, request) select c.custom_id, j.request from sluice.job j, \
             generate_series(1, 4) n, lateral (select j.custom_id || n as custom_id) c",
        )
        .await;
    stage.good_jobs(30).await;
    // One schema for all of them, and one for each.
    stage
        .run(
            r#"select with_schema('same', '{"type": "object"}'),
                      with_schema('own ' || n, jsonb_build_object('maxLength', n))
                 from generate_series(1, 30) n"#,
        )
        .await;
    let worker = stage.worker();
    stage.until_good_succeed(30).await;
    let open = "select count(*) from sluice.jobs where state not in ('succeeded', 'failed')";
    until("all have ended", async || stage.count(open).await == 0).await;
    let refused = "select count(*) from sluice.results r join sluice.job j on j.id = r.job_id where r.error_class = \
        'invalid_request'
                      and r.error like 'request.response_format.json_schema.schema: expected a JSON schema: has %'";
    assert_eq!(stage.count(refused).await, 30);
    assert_eq!(
        stage
            .count(
                "select count(*) from sluice.attempt a join sluice.job j on j.id = a.job_id where \
                 j.custom_id ~ '^(a|heavy|four|too|enum|const)'"
            )
            .await,
        0
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_requests_are_taken_as_there_is_room_for_them() {
    let stage = Stage::new("127.0.0.1:1").await;
    // A quarter of a gigabyte in all, and a megabyte as it is stored.
    stage
        .run(
            "insert into sluice.job (request, batch)
             select jsonb_build_object('prompt', repeat('x', 6000000)), 'good' from generate_series(1, 40)",
        )
        .await;
    stage.good_jobs(20).await;
    let worker = stage.worker_with(&[("SLUICE__WORKER__MAX_IN_FLIGHT_BYTES", "16000000")]);
    // They go on: the whole takes as long as a machine that is busy with other things needs for it.
    for so_many in (10..=60).step_by(10) {
        stage.until_good_succeed(so_many).await;
    }
    worker.stop().await;
    // It cost none of them anything.
    let again = "select count(*) from sluice.jobs where attempts <> 1";
    assert_eq!(stage.count(again).await, 0);
}

fn gzip(bytes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for piece in bytes {
        encoder.write_all(&piece).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_unpacks_to_gigabytes_or_has_one_line_is_read_within_memory() {
    let stage = Stage::new("127.0.0.1:1").await;
    let line = gzip((0..600).map(|_| vec![b'x'; 1 << 20]));
    let path = stage.program.file("line.jsonl.gz", line);
    let mut child = stage.program.command(&["enqueue", path.to_str().unwrap()]).spawn().unwrap();
    let pid = child.id().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        most = most.max(most_memory(pid).unwrap_or(0));
        clock::pace(std::time::Duration::from_millis(5)).await;
    }
    let output = child.wait_with_output().await.unwrap();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("bytes in a line"), "{}", text(&output.stderr));
    assert!(most > 0 && most < MOST_MEMORY, "{} MB", most >> 20);
    assert_eq!(stage.count("select count(*) from sluice.job").await, 0);
}
