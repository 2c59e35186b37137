//! Schedules that make reports, with a real worker: into files, and to a receiver that fails first.

use crate::support::fleet::{Fleet, stop};
use crate::support::inbox::{Inbox, ok, status};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use serde_json::Value;
use sluice::exit_code::ExitCode;
use sqlx::AssertSqlSafe;
use std::collections::BTreeSet;

const ONE: &str = "[providers.one]\ndialect = \"openai\"\n";

const ROUTE: &str = "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://simulator/one/v1\"\n\
                     [models.\"one/model\"]\nprice = { input = \"1\", output = \"10\" }\n\
                     [routes.default]\nrungs = [\"one/model\"]\n";

/// Far away: it is run by hand.
const NEVER_SOON: &str = "0 0 1 1 *";

/// Runs a command to its end: exit status, standard output and standard error.
async fn typed(fleet: &Fleet, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = ended(fleet.program(arguments).spawn().unwrap()).await;
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn sql(fleet: &Fleet, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&fleet.pool).await.unwrap();
}

async fn counted(fleet: &Fleet, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&fleet.pool).await.unwrap()
}

async fn reported(fleet: &Fleet, schedule: &str) -> Option<String> {
    let query = format!("select reported from sluice.ticks where schedule = '{schedule}' and state = 'done'");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_optional(&fleet.pool).await.unwrap().flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_goes_to_a_file_and_to_a_receiver_once_and_says_what_the_command_says() {
    let inbox = Inbox::start(|_, tries| if tries == 0 { status(503) } else { ok() }).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let fleet = Fleet::new(
        ONE,
        &format!(
            "{ROUTE}[alerts]\nsource = \"shop\"\n[alerts.receivers.ops]\nurl = \"{}\"\nrules = [\"spool_in_use\"]\n\
             [schedules.sheet]\ncron = \"{NEVER_SOON}\"\n\
             report = {{ kind = \"cost\", by = [\"project\"], file = \"{path}/{{name}}-{{date}}.csv\" }}\n\
             [schedules.lines]\ncron = \"{NEVER_SOON}\"\n\
             report = {{ kind = \"cost\", by = [\"project\"], file = \"{path}/all.json\" }}\n\
             [schedules.letter]\ncron = \"{NEVER_SOON}\"\n\
             report = {{ kind = \"cost\", by = [\"project\"], since = \"7d\", receiver = \"ops\" }}\n\
             [schedules.nothing]\ncron = \"{NEVER_SOON}\"\n\
             report = {{ kind = \"cost\", by = [\"project\"], project = \"nobody\", \
             file = \"{path}/late/{{name}}.csv\" }}\n",
            inbox.url("/ops")
        ),
    )
    .await;
    fleet.enqueue("default", 4).await;
    let (code, _, err) = typed(&fleet, &["worker", "--drain"]).await;
    assert_eq!(code, Some(0), "{err}");

    // The command and the file have the same rows.
    let told = async |form: &str| {
        let (code, out, err) = typed(&fleet, &["report", "cost", "--by", "project", "--format", form]).await;
        assert_eq!(code, Some(0), "{err}");
        out
    };
    for (schedule, name) in [("sheet", "sheet-"), ("lines", "all.json")] {
        let (code, out, err) = typed(&fleet, &["schedule", "run", schedule]).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.starts_with(&format!("schedule {schedule}: reported 1 row to {path}/{name}")), "{out}");
    }
    let files = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let [json, sheet] = files().try_into().expect("two files and nothing else");
    assert_eq!(std::fs::read_to_string(folder.path().join(sheet)).unwrap(), told("csv").await);
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    let written = read(&std::fs::read_to_string(folder.path().join(json)).unwrap());
    assert_eq!((&written, written[0]["attempts"].as_i64()), (&read(&told("json").await), Some(4)));

    // A folder that is not there is told, and leaves nothing.
    let (code, _, err) = typed(&fleet, &["schedule", "run", "nothing"]).await;
    assert_eq!(code, Some(ExitCode::Input as i32), "{err}");
    let missing = format!("schedule nothing: report.file: there is no folder {path}/late for {path}/late/nothing.csv");
    assert!(err.contains(&format!("{missing}; nothing was reported")), "{err}");

    // A worker makes the one that is asked for by SQL; the receiver gets one message, again until it takes it.
    let worker = fleet.start();
    until("the worker has said that it has the schedule", async || {
        fleet.number("select count(*) from sluice.schedules where schedule = 'letter'").await == 1
    })
    .await;
    // An operator ends the session that reads a report, and then its statement. It is not read again at once.
    let mut lock = fleet.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table sluice.tally_day_all in access exclusive mode").execute(&mut *lock).await.unwrap();
    sql(&fleet, "select sluice.run_schedule('letter')").await;
    for (failures, end) in [(1, "pg_terminate_backend"), (2, "pg_cancel_backend")] {
        let ended = format!(
            "select count({end}(pid)) from pg_stat_activity where datname = current_database()
                and query like 'select array[%' and wait_event_type = 'Lock'"
        );
        until("the report is being read", async || counted(&fleet, &ended).await == 1).await;
        let noted = format!(
            "select count(*) from sluice.ticks where schedule = 'letter' and state = 'retrying'
                and failures = {failures} and reason like 'the report could not be read: %'"
        );
        until("the tick is to be tried again", async || counted(&fleet, &noted).await == 1).await;
        sql(&fleet, "update sluice.tick set retry_at = now() where state = 'retrying'").await;
    }
    lock.rollback().await.unwrap();
    sql(&fleet, "select sluice.run_schedule('nothing')").await;
    until("the receiver has taken the report", async || !inbox.taken().is_empty()).await;
    // The folder comes late. Without a row the file has the names of the columns.
    let retrying = "select count(*) from sluice.ticks where schedule = 'nothing' and state = 'retrying'";
    until("the tick is tried again", async || fleet.number(retrying).await == 1).await;
    std::fs::create_dir(folder.path().join("late")).unwrap();
    sql(&fleet, "update sluice.tick set retry_at = now() where state = 'retrying'").await;
    until("the tick is done", async || reported(&fleet, "nothing").await.is_some()).await;
    assert_eq!(reported(&fleet, "nothing").await, Some(format!("no rows to {path}/late/nothing.csv")));
    let empty = std::fs::read_to_string(folder.path().join("late/nothing.csv")).unwrap();
    assert_eq!(Some(empty.trim_end()), told("csv").await.lines().next());
    // Reports have no route that could be missing.
    let (_, found, _) = typed(&fleet, &["doctor", "--format", "json"]).await;
    let found = read(&found);
    let finding = found["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "schedules").unwrap();
    assert_eq!(finding["severity"], "ok", "{finding}");
    worker.stop().await;
    inbox.has_nothing_double();
    let [letter] = inbox.taken().try_into().expect("one message");
    assert_eq!((letter.kind(), letter.data("schedule"), letter.data("source")), ("report", "letter", "shop"));
    assert_eq!(letter.body["data"]["rows"], written);
    assert!(letter.data("lines").starts_with("project"), "{}", letter.text);
    assert_eq!(reported(&fleet, "letter").await.as_deref(), Some("1 row to the receiver ops"));
    let (_, ticks, _) = typed(&fleet, &["schedule", "ticks", "letter", "--format", "csv"]).await;
    assert!(ticks.contains("1 row to the receiver ops"), "{ticks}");
    assert!(!letter.text.contains("prompt"), "{}", letter.text);
    // What it makes can be seen before, and the address of the receiver nowhere.
    let (_, list, _) = typed(&fleet, &["schedule", "list", "--format", "json"]).await;
    let list = read(&list);
    let letter = list.as_array().unwrap().iter().find(|one| one["schedule"] == "letter").unwrap();
    assert_eq!(letter["report"], "cost by project of the last 168 hours");
    assert_eq!((&letter["receiver"], &letter["last"]["jobs"]), (&Value::from("ops"), &Value::from(0)));
    let rows = "select concat_ws(' ', s.settings, t.reported, t.reason, d.message, d.last_words)
                  from sluice.schedule s join sluice.tick t on t.schedule = s.name
                       left join sluice.alert_delivery d on true";
    let rows: Vec<String> = sqlx::query_scalar(rows).fetch_all(&fleet.pool).await.unwrap();
    let address = inbox.url("");
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    assert!(rows.iter().all(|row| !row.contains(address)), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_between_the_file_and_the_tick_leaves_the_report_to_others_and_each_is_made_once() {
    let inbox = Inbox::start(|_, _| ok()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let fleet = Fleet::new(
        ONE,
        &format!(
            "{ROUTE}[alerts.receivers.ops]\nurl = \"{}\"\nrules = [\"spool_in_use\"]\n\
             [schedules.yearly]\ncron = \"{NEVER_SOON}\"\ncatch_up_within = \"400d\"\n\
             report = {{ kind = \"cost\", since = \"24h\", file = \"{path}/{{tick}}.json\" }}\n\
             [schedules.beat]\ncron = \"* * * * * *\"\ncatch_up = \"all\"\ncatch_up_limit = 1000\n\
             report = {{ kind = \"cost\", receiver = \"ops\" }}\n",
            inbox.url("/ops")
        ),
    )
    .await;
    fleet.enqueue("default", 2).await;
    assert_eq!(typed(&fleet, &["worker", "--drain"]).await.0, Some(0));
    // No tick can be noted for now. The one of the year is months late.
    let mut lock = fleet.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table sluice.tick in share row exclusive mode").execute(&mut *lock).await.unwrap();
    let mut first = fleet.start_many(1).await.remove(0);
    until("the worker has said what it has", async || fleet.number("select count(*) from sluice.schedules").await == 2)
        .await;
    sql(&fleet, "update sluice.schedule set looked_at = now() - interval '13 months' where name = 'yearly'").await;
    let held_up = "select count(*) from pg_stat_activity where datname = current_database()
                      and query like 'insert into sluice.tick%' and wait_event_type = 'Lock'";
    until("both reports are made and not noted", async || fleet.number(held_up).await == 2).await;
    first.kill().await;
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!((files(), fleet.number("select count(*) from sluice.alert_delivery").await), (1, 0));
    lock.rollback().await.unwrap();
    let others = fleet.start_many(3).await;
    let done = "select count(*) from sluice.ticks where schedule = 'beat' and state = 'done'";
    until("reports are made", async || reported(&fleet, "yearly").await.is_some() && fleet.number(done).await > 3)
        .await;
    stop(others).await;
    // The file of the year is of the day before its tick, on which nothing was done.
    let written = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let [file] = written.collect::<Vec<_>>().try_into().expect("one file");
    assert!(file.to_str().unwrap().ends_with("-01-01-0000.json"), "{}", file.display());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[]\n");
    assert_eq!(reported(&fleet, "yearly").await, Some(format!("no rows to {}", file.display())));
    // Each second has its tick, also those of the worker that died, and each tick one message.
    let ticks = fleet.number("select count(*) from sluice.ticks where schedule = 'beat'").await;
    let span = "select extract(epoch from max(at) - min(at))::bigint + 1 from sluice.ticks where schedule = 'beat'";
    assert_eq!((fleet.number(done).await, fleet.number(span).await), (ticks, ticks));
    assert_eq!(fleet.number("select count(*) from sluice.alert_delivery where kind = 'report'").await, ticks);
    inbox.has_nothing_double();
    let told: Vec<String> = inbox.taken().iter().map(|letter| letter.data("tick").to_owned()).collect();
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{told:?}");
}

#[tokio::test]
async fn a_faulty_report_is_refused_with_its_key_and_what_is_expected() {
    let program = Program::new("", "postgres://sluice@127.0.0.1:9/none");
    let check = async |report: &str| {
        program.file(
            "sluice.toml",
            format!(
                "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n[routes.default]\n\
                 rungs = [\"one/model\"]\n[alerts.receivers.ops]\nurl = \"http://127.0.0.1:9/\"\n\
                 [schedules.a]\ncron = \"@daily\"\nreport = {{ {report} }}\n"
            ),
        );
        let output = program.run(&["check"]).await;
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    for (report, expected) in [
        ("kind = \"costs\", file = \"a.csv\"", "report.kind: \"costs\" is no report; perhaps \"cost\" is meant"),
        ("file = \"a.csv\"", "schedules.a.report.kind: is missing"),
        ("kind = \"cost\"", "schedules.a.report: it does not say where the report goes"),
        ("kind = \"cost\", file = \"a.csv\", receiver = \"ops\"", "schedules.a.report.receiver: file is said as well"),
        ("kind = \"cost\", receiver = \"opps\"", "there is no [alerts.receivers.opps]; perhaps \"ops\" is meant"),
        ("kind = \"cost\", file = \"a.xlsx\"", "report.file: \"a.xlsx\" ends in neither .csv nor .json"),
        ("kind = \"cost\", file = \"{day}.csv\"", "report.file: {day} is nothing that a tick has"),
        ("kind = \"cost\", file = \"{month}/a.csv\"", "has braces: only the name of the file can"),
        ("kind = \"cost\", file = \"a.csv\", by = [\"colour\"]", "report.by[0]: \"colour\" is no dimension"),
        ("kind = \"cost\", file = \"a.csv\", by = [\"code\"]", "report.by: by code says nothing here"),
        ("kind = \"cost\", file = \"a.csv\", since = \"5m\"", "report.since"),
        ("kind = \"cost\", file = \"a.csv\", since = \"90m\"", "report.since: is no whole number of hours"),
        ("kind = \"cost\", file = \"/\"", "report.file: / names no file"),
        ("kind = \"cost\", file = \"{tick.csv\"", "report.file: "),
        ("kind = \"cost\", file = \"a.csv\", project = \" \"", "report.project: is empty"),
        (
            "kind = \"cost\", file = \"b-{tick}.csv\" }\n[schedules.b]\ncron = \"@daily\"\n\
             report = { kind = \"waste\", file = \"./{name}-{tick}.csv\"",
            "schedules.b.report.file: schedule a writes the same file",
        ),
        (
            "kind = \"cost\", file = \"b-{tick}.csv\" }\n[schedules.b]\ncron = \"@daily\"\n\
             report = { kind = \"waste\", file = \"{name}-{date}-{time}.csv\"",
            "schedules.b.report.file: schedule a writes the same file",
        ),
        ("kind = \"cache\", file = \"a.csv\", login = \"x\"", "report.login: is nothing by which"),
        ("kind = \"cost\", file = \"a.csv\", form = \"csv\"", "report.form: no such key"),
        ("kind = \"cost\", file = \"a.csv\" }\nroute = \"default\" #", "schedules.a.route: is for jobs"),
        (
            "kind = \"cost\", file = \"a.csv\" }\nrequest = { prompt = \"x\"",
            "schedules.a.report: request is said as well; expected one of file, sql, request and report",
        ),
    ] {
        let (code, said) = check(report).await;
        assert_eq!(code, Some(ExitCode::Configuration as i32), "{report}: {said}");
        assert!(said.contains(expected), "{report}: {said}");
    }
    let long = format!("kind = \"cost\", file = \"{}.csv\"", "x".repeat(200));
    let (code, said) = check(&long).await;
    assert!(code != Some(0) && said.contains("report.file: the name of the file has more than 200 bytes"), "{said}");
    // These may be meant.
    let (code, said) = check(
        "kind = \"cost\", route = \"gone\", file = \"later/all.csv\" }\ncatch_up = \"all\"\ncatch_up_within = \"9d\" #",
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    for expected in ["there is no route \"gone\"", "there is no folder ", "only the last report is left"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("overlap"), "{said}");
    let (code, said) = check("kind = \"cost\", file = \"costs-{month}.csv\"").await;
    assert!(code == Some(0) && said.contains("can have one file, as ") && said.contains("costs-2027-01.csv"), "{said}");
}
