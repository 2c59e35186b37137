//! Schedules that make reports, with a real worker: into files, and to a receiver that fails first.

use crate::support::fleet::Fleet;
use crate::support::inbox::{Inbox, ok, status};
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use serde_json::Value;
use sluice::exit_code::ExitCode;
use sqlx::AssertSqlSafe;

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
             [schedules.nowhere]\ncron = \"{NEVER_SOON}\"\n\
             report = {{ kind = \"cost\", file = \"{path}/missing/x.csv\" }}\n",
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
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let [json, sheet] = files().try_into().expect("two files and nothing else");
    assert_eq!(std::fs::read_to_string(folder.path().join(sheet)).unwrap(), told("csv").await);
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap();
    let written = read(&std::fs::read_to_string(folder.path().join(json)).unwrap());
    assert_eq!((&written, written[0]["attempts"].as_i64()), (&read(&told("json").await), Some(4)));

    // A folder that is not there is told, and leaves nothing.
    let (code, _, err) = typed(&fleet, &["schedule", "run", "nowhere"]).await;
    assert_eq!(code, Some(ExitCode::Input as i32), "{err}");
    assert!(err.contains("missing/x.csv: No such file or directory") && !err.contains("nothing was enqueued"), "{err}");

    // A worker makes the one that is asked for by SQL; the receiver gets one message, again until it takes it.
    let worker = fleet.start();
    until("the worker has said that it has the schedule", async || {
        fleet.number("select count(*) from sluice.schedules where schedule = 'letter'").await == 1
    })
    .await;
    sqlx::raw_sql("select sluice.run_schedule('letter')").execute(&fleet.pool).await.unwrap();
    until("the receiver has taken the report", async || !inbox.taken().is_empty()).await;
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
}

#[tokio::test]
async fn a_faulty_report_is_refused_with_its_key_and_what_is_expected() {
    let program = Program::new("", "postgres://sluice@127.0.0.1:9/none");
    let folder = program.path("sluice.toml").parent().unwrap().display().to_string();
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
        ("kind = \"cache\", file = \"a.csv\", login = \"x\"", "report.login: is nothing by which"),
        ("kind = \"cost\", file = \"a.csv\", form = \"csv\"", "report.form: no such key"),
        ("kind = \"cost\", file = \"a.csv\" }\nroute = \"default\" #", "schedules.a.route: is for jobs"),
        (
            "kind = \"cost\", file = \"a.csv\" }\nrequest = { prompt = \"x\"",
            "schedules.a.report: request is said as well; expected one of file, sql, request and report",
        ),
    ] {
        program.file(
            "sluice.toml",
            format!(
                "[providers.one]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n[routes.default]\n\
                 rungs = [\"one/model\"]\n[alerts.receivers.ops]\nurl = \"http://127.0.0.1:9/\"\n\
                 [schedules.a]\ncron = \"@daily\"\nreport = {{ {report} }}\n"
            ),
        );
        let output = program.run(&["check"]).await;
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(ExitCode::Configuration as i32), "{report}: {said}");
        assert!(said.contains(expected), "{report}: {said} (in {folder})");
    }
}
