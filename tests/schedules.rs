//! Schedules with real worker processes: one enqueue for each tick, no matter which process dies, and where the jobs
//! come from.

use crate::support::fleet::{Fleet, Process, stop};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::{Value, json};
use sluice::exit_code::ExitCode;
use sqlx::AssertSqlSafe;
use std::io::Write as _;
use std::path::Path;

const ONE: &str = "[providers.one]\ndialect = \"openai\"\nlatency = { fixed = \"10ms\" }\n";

const ROUTE: &str = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                     [models.\"one/model\"]\nprice = { input = \"0\", output = \"10\" }\n\
                     [routes.default]\nrungs = [\"one/model\"]\n\
                     [routes.reviews]\nrungs = [\"one/model\"]\nprompt = \"Classify: {body}\"\n";

/// Far away: it is run by hand, or made due by the test.
const NEVER_SOON: &str = "0 0 1 1 *";

async fn fleet(schedules: &str) -> Fleet {
    Fleet::new(ONE, &format!("{ROUTE}{schedules}")).await
}

impl Fleet {
    async fn sql(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&self.pool).await.unwrap();
    }

    /// Rows of texts of one column.
    async fn texts(&self, query: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_all(&self.pool).await.unwrap()
    }

    /// Runs a command to its end: exit status, standard output and standard error.
    async fn typed(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = ended(self.program(arguments).spawn().unwrap()).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.typed(&[arguments, &["--format", "json"]].concat()).await;
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    }

    async fn until_known(&self, schedule: &str) {
        until("a worker has said that it has the schedule", async || {
            let known = self.texts("select schedule from sluice.schedules").await;
            known.iter().any(|name| name == schedule)
        })
        .await;
    }

    /// Waits until a tick is in this state; returns its reason.
    async fn until_tick(&self, state: &str) -> String {
        let query = format!("select coalesce(reason, '') from sluice.ticks where state = '{state}' order by at");
        until(&format!("a tick is {state}"), async || !self.texts(&query).await.is_empty()).await;
        self.texts(&query).await.remove(0)
    }

    /// Makes the schedule as if no worker had looked at it for so long.
    async fn not_looked_for(&self, interval: &str) {
        self.sql(&format!(
            "update sluice.schedule set looked_at = date_trunc('minute', now()) - interval '{interval}'"
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_enqueue_each_tick_once() {
    let fleet = fleet(
        "[schedules.beat]\ncron = \"* * * * * *\"\noverlap = \"allow\"\ncatch_up = \"all\"\ncatch_up_limit = 1000\n\
         request = { prompt = \"What is new?\" }\n",
    )
    .await;
    let mut processes = fleet.start_many(3).await;
    let done = "select count(*) from sluice.ticks where state = 'done'";
    until("ticks are done", async || fleet.number(done).await >= 3).await;
    // One is killed, in the midst of any work.
    processes.remove(0).kill().await;
    until("ticks are done", async || fleet.number(done).await >= 7).await;
    stop(processes).await;
    let ticks = fleet.number("select count(*) from sluice.ticks").await;
    assert_eq!(fleet.number(done).await, ticks, "{:?}", fleet.texts("select reason from sluice.ticks").await);
    assert_eq!(fleet.number("select count(*) from sluice.job").await, ticks);
    assert_eq!(fleet.number("select count(distinct batch) from sluice.job").await, ticks);
    // Each second has its tick: none was left out when the worker was killed.
    let span = "select extract(epoch from max(at) - min(at))::bigint + 1 from sluice.ticks";
    assert_eq!(fleet.number(span).await, ticks);
    let whose = "select count(*) from sluice.ticks t left join sluice.worker w on w.id = t.worker where w.id is null";
    assert_eq!(fleet.number(whose).await, 0);
    let named = "select count(*) from sluice.ticks where batch = 'beat-' || to_char(at at time zone 'UTC',
                 'YYYY-MM-DD-HH24MI' || case when extract(second from at)::integer = 0 then '' else 'SS' end)";
    assert_eq!(fleet.number(named).await, ticks);
}

/// A pipe: what reads it waits until the test writes.
fn pipe(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
}

/// Opens the pipe for writing, as soon as it is read.
async fn other_end(path: &Path) -> std::fs::File {
    let path = path.to_owned();
    let open = move || std::fs::OpenOptions::new().write(true).open(path).unwrap();
    tokio::task::spawn_blocking(open).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_in_the_midst_of_an_enqueue_leaves_nothing_and_another_does_it() {
    let fleet = fleet(&format!("[schedules.nightly]\ncron = \"{NEVER_SOON}\"\nfile = \"nightly.jsonl\"\n")).await;
    let path = fleet.file("nightly.jsonl", "");
    std::fs::remove_file(&path).unwrap();
    pipe(&path);
    let mut first = fleet.start_many(1).await.remove(0);
    fleet.until_known("nightly").await;
    fleet.sql("select sluice.run_schedule('nightly')").await;
    // Opens when the worker reads, and keeps it waiting for more lines. More than is sent at once.
    let mut writer = other_end(&path).await;
    let line = format!("{{\"prompt\": \"{}\"}}\n", "x".repeat(1000));
    writer.write_all(line.repeat(6000).as_bytes()).unwrap();
    let writing = "select count(*) from pg_stat_activity where query like 'copy sluice.job%'
                      and datname = current_database()";
    until("rows are on their way", async || fleet.number(writing).await > 0).await;
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 0, "not before the commit");
    first.kill().await;
    drop(writer);
    std::fs::remove_file(&path).unwrap();
    fleet.file("nightly.jsonl", "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n");
    let second = fleet.start();
    fleet.until_tick("done").await;
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 2);
    assert_eq!(fleet.number("select count(*) from sluice.ticks where jobs = 2 and by_hand").await, 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_its_enqueue_to_another() {
    let fleet = fleet(&format!("[schedules.nightly]\ncron = \"{NEVER_SOON}\"\nfile = \"nightly.jsonl\"\n")).await;
    let path = fleet.file("nightly.jsonl", "");
    std::fs::remove_file(&path).unwrap();
    pipe(&path);
    let first = fleet.start_many(1).await.remove(0);
    fleet.until_known("nightly").await;
    fleet.sql("select sluice.run_schedule('nightly')").await;
    let writer = other_end(&path).await;
    // While the file is read, the schedule can be paused and listed all the same.
    assert_eq!(fleet.typed(&["schedule", "pause", "nightly"]).await.0, Some(0));
    assert_eq!(fleet.json(&["schedule", "list"]).await[0]["state"], "paused");
    first.signal(Signal::TERM);
    let (code, said) = first.ended().await;
    assert_eq!(code, Some(0), "{said}");
    drop(writer);
    assert_eq!(fleet.number("select count(*) from sluice.ticks where state = 'asked'").await, 1);
    std::fs::remove_file(&path).unwrap();
    fleet.file("nightly.jsonl", "{\"prompt\": \"one\"}\n");
    let second = fleet.start();
    fleet.until_tick("done").await;
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_a_statement_is_a_job_of_the_routes_template() {
    let statement = "select id as custom_id, body, lang from review\\n\
                     where added > current_setting('sluice.last_tick')::timestamptz\\norder by id -- the new ones";
    let fleet = fleet(&format!(
        "[schedules.reviews]\ncron = \"{NEVER_SOON}\"\nroute = \"reviews\"\nproject = \"shop\"\npriority = 7\n\
         batch = \"reviews/{{date}}\"\noverlap = \"allow\"\ndeadline = \"6h\"\nsql = \"{statement}\"\n"
    ))
    .await;
    fleet
        .sql(
            "create table review (id text, body text, lang text, added timestamptz default clock_timestamp());
             insert into review values ('r1', 'Fine', 'en'), ('r2', 'Naja {x}', 'de'), ('r3', null, 'en')",
        )
        .await;
    let run = fleet.json(&["schedule", "run", "reviews"]).await;
    assert_eq!((&run["jobs"], &run["schedule"]), (&json!(3), &json!("reviews")), "{run}");
    assert!(run["batch"].as_str().unwrap().starts_with("reviews/20"), "{run}");
    let jobs = fleet
        .texts(
            "select concat_ws(' ', custom_id, project, route, priority, request, metadata,
                              round(extract(epoch from deadline - created_at) / 3600)) from sluice.job order by id",
        )
        .await;
    assert_eq!(
        jobs,
        [
            "r1 shop reviews 7 {\"vars\": {\"body\": \"Fine\", \"lang\": \"en\"}} {\"body\": \"Fine\", \
             \"lang\": \"en\"} 6",
            "r2 shop reviews 7 {\"vars\": {\"body\": \"Naja {x}\", \"lang\": \"de\"}} {\"body\": \"Naja {x}\", \
             \"lang\": \"de\"} 6",
            "r3 shop reviews 7 {\"vars\": {\"body\": null, \"lang\": \"en\"}} {\"body\": null, \"lang\": \"en\"} 6",
        ]
    );
    // Nothing is new.
    let (code, out, _) = fleet.typed(&["schedule", "run", "reviews", "--format", "table"]).await;
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "schedule reviews: its source holds no jobs, so nothing was enqueued\n")
    );
    // The rows since the last tick.
    fleet.sql("insert into review values ('r4', 'Late', 'en')").await;
    assert_eq!(fleet.json(&["schedule", "run", "reviews"]).await["jobs"], 1);
    let process = fleet.start();
    fleet.until_answered(4).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_goes_wrong_says_so_and_never_quotes_a_row() {
    let cases = [
        ("syntax", "selec id from review", "syntax error"),
        ("missing", "select id from no_such_table", "relation \\\"no_such_table\\\" does not exist"),
        ("writing", "insert into review values (1) returning id", "syntax error"),
        ("writes", "select nextval('numbers') as body", "can only read"),
        ("two", "select 1 as body) x; drop table review; select * from (select 1 as body", ""),
        ("slow", "select pg_sleep(30) as body", "longer than sql_timeout"),
        ("cast", "select body::integer as body from review", "SQLSTATE 22P02"),
        ("column", "select id as other from review", "body: is missing"),
        ("ended", "select pg_terminate_backend(pg_backend_pid()) as body", "session of the statement was ended"),
        ("twice", "select 'a' as custom_id, body from review", "the same id"),
    ];
    let schedules = cases.iter().fold(String::new(), |schedules, (name, statement, _)| {
        format!(
            "{schedules}[schedules.{name}]\ncron = \"{NEVER_SOON}\"\nroute = \"reviews\"\nsql_timeout = \"300ms\"\n\
                 sql = \"{statement}\"\n"
        )
    });
    let fleet = fleet(&schedules).await;
    fleet
        .sql(
            "create table review (id integer, body text); create sequence numbers;
             insert into review values (1, 'a secret text'), (2, 'a secret text')",
        )
        .await;
    for (name, _, expected) in cases {
        let (code, out, err) = fleet.typed(&["schedule", "run", name]).await;
        assert_eq!(code, Some(ExitCode::Input as i32), "{name}: {out}{err}");
        let expected = expected.replace("\\\"", "\"");
        assert!(err.contains(&expected) && err.contains("nothing was enqueued"), "{name}: {err}");
        assert!(!err.contains("secret"), "{name}: {err}");
    }
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 0);
    assert_eq!(fleet.number("select count(*) from review").await, 2);
    let failed = fleet.texts("select schedule from sluice.ticks where state = 'failed' and reason <> ''").await;
    assert_eq!(failed.len(), cases.len());
    assert!(!fleet.texts("select reason from sluice.ticks").await.iter().any(|reason| reason.contains("secret")));
    // What no configuration has any more cannot be run again, so nothing is to be done about its last tick.
    let severity = async || {
        let (_, out, _) = fleet.typed(&["doctor", "--format", "json"]).await;
        let found: Value = serde_json::from_str(&out).unwrap();
        let finding = found["findings"].as_array().unwrap().iter().find(|it| it["check"] == "schedules");
        finding.unwrap()["severity"].as_str().unwrap().to_owned()
    };
    assert_eq!(severity().await, "bad");
    fleet.configure(ROUTE);
    fleet.sql("update sluice.schedule set seen_at = now() - interval '10 minutes'").await;
    assert_eq!(severity().await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_any_form_is_enqueued_as_it_is_at_the_tick_and_one_that_is_late_is_waited_for() {
    let fleet = fleet(&format!(
        "[schedules.table]\ncron = \"{NEVER_SOON}\"\nfile = \"table.csv\"\nprompt = \"Say {{what}}\"\n\
         system = \"Be brief.\"\nid_column = \"number\"\nkeep = [\"what\"]\n\
         [schedules.lines]\ncron = \"{NEVER_SOON}\"\nfile = \"lines.jsonl\"\ncatch_up_within = \"400d\"\n"
    ))
    .await;
    fleet.file("table.csv", "number,what,more\n1,yes,x\n2,no,y\n");
    assert_eq!(fleet.json(&["schedule", "run", "table"]).await["jobs"], 2);
    let first = fleet.texts("select custom_id || ' ' || request || ' ' || metadata from sluice.job order by id").await;
    assert_eq!(
        first[0],
        "1 {\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \
         \"Say yes\"}]} {\"what\": \"yes\"}"
    );
    // By the clock, and the file is not there yet.
    let process = fleet.start();
    fleet.until_known("lines").await;
    fleet.sql("update sluice.schedule set looked_at = now() - interval '13 months' where name = 'lines'").await;
    let reason = fleet.until_tick("retrying").await;
    assert!(reason.contains("lines.jsonl") && reason.contains("No such file"), "{reason}");
    let shown = fleet.json(&["schedule", "show", "lines"]).await;
    assert_eq!((&shown["state"], &shown["last"]["failures"]), (&json!("waits"), &json!(1)), "{shown}");
    assert!(fleet.typed(&["status"]).await.1.contains("retrying"));
    // Bad lines are no matter of time; the whole file is refused, with the line.
    fleet.file("lines.jsonl", "{\"prompt\": \"one\"}\n{\"prompt\": 5}\n");
    fleet.sql("update sluice.tick set retry_at = now() where state = 'retrying'").await;
    let reason = fleet.until_tick("failed").await;
    assert!(reason.contains("lines.jsonl:2: prompt"), "{reason}");
    process.until_said("a tick of a schedule has failed, and came to nothing", 1).await;
    let (_, doctor, _) = fleet.typed(&["doctor", "--format", "json"]).await;
    assert!(doctor.contains("lines: its last tick has failed"), "{doctor}");
    // And a file that comes late.
    fleet.file("lines.jsonl", "{\"prompt\": \"one\"}\n");
    fleet.sql("update sluice.tick set state = 'retrying', retry_at = now() where state = 'failed'").await;
    until("it is done", async || fleet.number("select count(*) from sluice.ticks where state = 'done'").await == 2)
        .await;
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 3);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_whose_forerunner_has_not_ended_is_left_out_and_says_so() {
    let fleet = fleet("[schedules.beat]\ncron = \"* * * * * *\"\nrequest = { prompt = \"What is new?\" }\n").await;
    assert_eq!(fleet.typed(&["route", "pause", "default"]).await.0, Some(0));
    let process = fleet.start();
    let reason = fleet.until_tick("skipped").await;
    assert!(reason.contains("1 job of the last tick has not ended (batch beat-"), "{reason}");
    let jobs = fleet.number("select count(*) from sluice.job").await;
    assert_eq!(jobs, 1);
    // By hand it is refused, unless one insists.
    let (code, _, err) = fleet.typed(&["schedule", "run", "beat"]).await;
    assert_eq!(code, Some(ExitCode::Usage as i32), "{err}");
    assert!(err.contains("--anyway"), "{err}");
    assert_eq!(fleet.typed(&["schedule", "run", "beat", "--anyway"]).await.0, Some(0));
    assert_eq!(fleet.typed(&["route", "resume", "default"]).await.0, Some(0));
    until("it goes on", async || fleet.number("select count(*) from sluice.job").await > 3).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_came_without_a_worker_are_made_up_for_as_configured() {
    let fleet = fleet("").await;
    // Half an hour away from now, whenever the test runs.
    let minute = fleet.number("select (extract(minute from now())::bigint + 30) % 60").await;
    let each = |policy: &str| {
        format!(
            "[schedules.{policy}]\ncron = \"{minute} * * * *\"\ncatch_up = \"{policy}\"\noverlap = \"allow\"\n\
             catch_up_within = \"5h\"\ncatch_up_limit = 3\nrequest = {{ prompt = \"x\" }}\n"
        )
    };
    fleet.configure(&format!("{ROUTE}{}", ["none", "last", "all"].map(each).concat()));
    let process = fleet.start();
    for name in ["none", "last", "all"] {
        fleet.until_known(name).await;
    }
    process.stop().await;
    // As if for seven hours there had been no worker.
    fleet.not_looked_for("7 hours").await;
    let processes = fleet.start_many(3).await;
    let ticks = "select count(*) from sluice.ticks";
    until("all ticks are dealt with", async || fleet.number(ticks).await >= 21).await;
    // More than one hour may have begun meanwhile.
    let counted = fleet
        .texts(
            "select schedule || ' ' || state || ' ' || count(*) || coalesce(' ' || min(reason), '') from sluice.ticks
              where at < now() - interval '5 minutes' group by schedule, state order by 1",
        )
        .await;
    assert_eq!(
        counted.iter().map(|line| line.split(" no worker").next().unwrap()).collect::<Vec<_>>(),
        ["all done 3", "all skipped 4", "last done 1", "last skipped 6", "none skipped 7"],
        "{counted:?}"
    );
    stop(processes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_schedule_leaves_its_ticks_out_and_goes_on_when_it_is_resumed() {
    let fleet =
        fleet("[schedules.beat]\ncron = \"* * * * * *\"\noverlap = \"allow\"\nrequest = { prompt = \"x\" }\n").await;
    let (code, _, err) = fleet.typed(&["schedule", "pause", "beet"]).await;
    assert_eq!(code, Some(ExitCode::NotFound as i32));
    assert!(err.contains("there are: beat"), "{err}");
    // Also before any worker has spoken of it.
    let (_, out, _) = fleet.typed(&["schedule", "pause", "beat", "--reason", "the shop is closed"]).await;
    assert_eq!(out, "schedule beat is paused\n");
    assert_eq!(fleet.typed(&["schedule", "pause", "beat"]).await.1, "schedule beat was paused already\n");
    let process = fleet.start();
    assert_eq!(fleet.until_tick("skipped").await, "the schedule was paused");
    let list = fleet.json(&["schedule", "list"]).await;
    assert_eq!(
        (&list[0]["state"], &list[0]["paused"], &list[0]["pause_reason"], &list[0]["next_tick"]),
        (&json!("paused"), &json!(true), &json!("the shop is closed"), &Value::Null),
        "{list}"
    );
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 0);
    // By hand it runs all the same, also by a worker.
    assert_eq!(fleet.json(&["schedule", "run", "beat"]).await["jobs"], 1);
    fleet.sql("select sluice.run_schedule('beat')").await;
    until("both are done", async || {
        fleet.number("select count(*) from sluice.ticks where by_hand and state = 'done'").await == 2
    })
    .await;
    assert_eq!(fleet.number("select count(*) from sluice.job").await, 2);
    assert_eq!(fleet.typed(&["schedule", "resume", "beat"]).await.1, "schedule beat goes on\n");
    let by_clock = "select count(*) from sluice.ticks where state = 'done' and not by_hand";
    until("it goes on", async || fleet.number(by_clock).await > 0).await;
    let (_, table, _) = fleet.typed(&["schedule", "ticks", "beat", "--last", "3", "--format", "csv"]).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    process.stop().await;
    let unknown = sqlx::query("select sluice.pause_schedule('no')").execute(&fleet.pool).await.unwrap_err().to_string();
    assert!(unknown.contains("there is no schedule 'no'"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_another_line_and_one_that_is_switched_off_rests() {
    let config =
        |more: &str| format!("{ROUTE}[schedules.beat]\noverlap = \"allow\"\nrequest = {{ prompt = \"x\" }}\n{more}");
    let fleet = Fleet::new(ONE, &config(&format!("cron = \"{NEVER_SOON}\"\n"))).await;
    let process = fleet.start();
    fleet.until_known("beat").await;
    let off = "cron = \"* * * * * *\"\ntimezone = \"Europe/Berlin\"\n";
    fleet.configure(&config(off));
    process.signal(Signal::HUP);
    fleet.until_tick("done").await;
    let late = "select count(*) from sluice.ticks where at < now() - interval '1 hour'";
    assert_eq!(fleet.number(late).await, 0, "a new line begins now");
    fleet.configure(&config(&format!("{off}enabled = false\n")));
    process.signal(Signal::HUP);
    until("it is off", async || {
        !fleet.texts("select schedule from sluice.schedules where not enabled").await.is_empty()
    })
    .await;
    let list = fleet.json(&["schedule", "list"]).await;
    assert_eq!((&list[0]["state"], &list[0]["next_tick"]), (&json!("off"), &Value::Null), "{list}");
    let ticks = fleet.number("select count(*) from sluice.ticks").await;
    fleet.sql("select sluice.run_schedule('beat')").await;
    until("by hand", async || {
        fleet.number("select count(*) from sluice.ticks where by_hand and state = 'done'").await == 1
    })
    .await;
    assert!(fleet.number("select count(*) from sluice.ticks").await <= ticks + 2);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_with_different_lines_the_newer_configuration_counts() {
    let config = |cron: &str| format!("{ROUTE}[schedules.beat]\ncron = \"{cron}\"\nrequest = {{ prompt = \"x\" }}\n");
    let fleet = Fleet::new(ONE, &config("* * * * * *")).await;
    let older = fleet.start();
    fleet.until_tick("done").await;
    fleet.configure(&config(NEVER_SOON));
    let newer = fleet.start();
    older.until_said("another worker has a newer configuration of this schedule", 1).await;
    let list = fleet.json(&["schedule", "list"]).await;
    assert_eq!(list[0]["cron"], NEVER_SOON);
    stop(vec![older, newer]).await;
}

#[tokio::test]
async fn a_faulty_schedule_is_refused_with_its_key_and_what_is_expected() {
    let program = Program::new("", "postgres://nobody@127.0.0.1:9/none");
    let check = async |schedules: &str| {
        let route = ROUTE.replace("http://simulator", "http://127.0.0.1:9");
        program.file("sluice.toml", format!("{route}{schedules}"));
        let output = program.run(&["check"]).await;
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    let request = "request = { prompt = \"x\" }\n";
    for (schedule, expected) in [
        (format!("cron = \"0 0 31 2 *\"\n{request}"), "schedules.a.cron: \"0 0 31 2 *\" never fires"),
        (format!("cron = \"* * * *\"\n{request}"), "schedules.a.cron: \"* * * *\" has 4 of 5 fields; expected five"),
        (format!("cron = \"61 * * * *\"\n{request}"), "schedules.a.cron: minute: \"61\" is none of 0 to 59"),
        (format!("cron = \"@reboot\"\n{request}"), "schedules.a.cron: @reboot is no time"),
        (request.to_owned(), "schedules.a.cron: is missing"),
        (
            format!("cron = \"@daily\"\ntimezone = \"Europe/Berln\"\n{request}"),
            "schedules.a.timezone: there is no time zone \"Europe/Berln\"; perhaps \"Europe/Berlin\" is meant",
        ),
        (
            "cron = \"@daily\"\n".to_owned(),
            "schedules.a: it does not say where its jobs come from, or what it reports; expected one of",
        ),
        (
            format!("cron = \"@daily\"\nsql = \"select 1\"\n{request}"),
            "schedules.a.request: sql is said as well; expected one of file, sql, request and report",
        ),
        ("cron = \"@daily\"\nsql = \" ; \"\n".to_owned(), "schedules.a.sql: is empty"),
        (
            format!("cron = \"@daily\"\nroute = \"defualt\"\n{request}"),
            "schedules.a.route: there is no route \"defualt\"; expected perhaps default",
        ),
        ("cron = \"@daily\"\nrequest = { promt = \"x\" }\n".to_owned(), "schedules.a.request: "),
        ("cron = \"@daily\"\nrequest = \"{\"\n".to_owned(), "schedules.a.request: is not JSON"),
        (
            "cron = \"@daily\"\nrequest = { vars = { x = 1 } }\nroute = \"reviews\"\n".to_owned(),
            "schedules.a.request: ",
        ),
        (
            format!("cron = \"@daily\"\nbatch = \"{{day}}\"\n{request}"),
            "schedules.a.batch: {day} is nothing that a tick has",
        ),
        (format!("cron = \"@daily\"\noverlap = \"queue\"\n{request}"), "schedules.a.overlap: \"queue\" says nothing"),
        (format!("cron = \"@daily\"\ncatch_up = \"some\"\n{request}"), "schedules.a.catch_up: \"some\" says nothing"),
        (format!("cron = \"@daily\"\npriority = 2000\n{request}"), "schedules.a.priority: is 2000"),
        (format!("cron = \"@daily\"\nprompt = \"{{x}}\"\n{request}"), "schedules.a.prompt: is for the rows"),
        (format!("cron = \"@daily\"\ncrom = \"x\"\n{request}"), "schedules.a.crom: no such key; expected perhaps cron"),
    ] {
        let (code, said) = check(&format!("[schedules.a]\n{schedule}")).await;
        assert_eq!(code, Some(ExitCode::Configuration as i32), "{schedule}: {said}");
        assert!(said.contains(expected), "{schedule}: {said}");
    }
    let (code, said) = check("[schedules.a]\ncron = \"@daily\"\nfile = \"not-yet.jsonl\"\n").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("schedules.a.file") && said.contains("not-yet.jsonl yet"), "{said}");
    let (_, said) = check(&format!("[schedules.a]\ncron = \"@daily\"\ncatch_up = \"all\"\n{request}")).await;
    assert!(said.contains("overlap = \"allow\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_drains_or_works_on_one_batch_runs_no_schedule() {
    let fleet = fleet("[schedules.beat]\ncron = \"* * * * * *\"\nrequest = { prompt = \"x\" }\n").await;
    fleet.enqueue("default", 3).await;
    let (code, _, err) = fleet.typed(&["worker", "--drain"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(fleet.number("select count(*) from sluice.schedules").await, 0);
    assert_eq!(fleet.json(&["schedule", "list"]).await[0]["state"], "unseen");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_ticks_are_forgotten_but_for_the_last_of_each_schedule() {
    let fleet = fleet(&format!("[schedules.nightly]\ncron = \"{NEVER_SOON}\"\nrequest = {{ prompt = \"x\" }}\n")).await;
    for _ in 0..3 {
        assert_eq!(fleet.typed(&["schedule", "run", "nightly", "--anyway"]).await.0, Some(0));
    }
    fleet.sql("update sluice.tick set ended_at = now() - interval '91 days'").await;
    let process: Process = fleet.start();
    until("they are forgotten", async || fleet.number("select count(*) from sluice.ticks").await == 1).await;
    let newest = "select count(*) from sluice.ticks t where t.batch = (select max(j.batch) from sluice.job j)";
    assert_eq!(fleet.number(newest).await, 1);
    process.stop().await;
}
