//! A data engineer's day: twenty thousand rows of a table, a bad line, Ctrl-C, the same command again, and the answers
//! beside her rows. At the end there is an answer for each row, and none was bought twice.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, json_lines, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sluice::exit_code::ExitCode;
use sluice::simulate::{Scenario, Simulator};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const ROWS: usize = 20_000;
/// One row in so many fails at first, for a reason that she can do something about.
const FAILS: usize = 1_000;
/// The line of the table that is faulty at first; the head is line 1.
const BAD_LINE: usize = 10_002;

const QUESTION: &[&str] = &["--prompt", "Good or bad? {text}", "--id-column", "id"];

/// Her table. Rows of one kind are refused by the provider when they are asked for the first time.
fn table(with_bad_line: bool) -> String {
    let mut table = "id,text,stars\n".to_owned();
    for row in 1..=ROWS {
        let more = if row % FAILS == 7 { " [[faults:content_policy,ok]]" } else { "" };
        let line = row + 1;
        if with_bad_line && line == BAD_LINE {
            writeln!(table, "r{row},\"Tea, number {row}\",5,too,many").unwrap();
        } else {
            writeln!(table, "r{row},\"Tea, number {row}{more}\",{}", row % 5 + 1).unwrap();
        }
    }
    table
}

fn status(output: &std::process::Output) -> Option<i32> {
    output.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_rows_become_twenty_thousand_answers_and_none_is_bought_twice() {
    let database = database().await;
    let pool = database.pool();
    let scenario = "markers = true\nmax_requests = 1000000\n[providers.p]\ndialect = \"openai\"\n\
                    models.m.price = { input = \"1\", output = \"4\" }\n";
    let simulator = Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let config = format!(
        "[worker]\nmax_in_flight = 64\n[http]\nlisten = \"off\"\n\
         [providers.p]\ndialect = \"openai\"\nbase_url = \"{}\"\nlimits = {{ concurrency = 64 }}\n\
         [models.\"p/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n\
         [routes.default]\nrungs = [\"p/m\"]\nmax_attempts = 1\n",
        simulator.base_url("p").unwrap()
    );
    let program = Program::new(&config, &database.url());
    let count = async |query: &'static str| -> i64 { sqlx::query_scalar(query).fetch_one(&pool).await.unwrap() };
    let answers = || simulator.verdict().total.by_status.get(&200).copied().unwrap_or(0);

    // A bad line: named, and nothing is enqueued.
    program.file("reviews.csv", table(true));
    let run = || {
        let arguments: Vec<&str> =
            ["run", "reviews.csv"].into_iter().chain(QUESTION.iter().copied()).chain(["-o", "answers.jsonl"]).collect();
        program.command(&arguments)
    };
    let refused = ended(run().spawn().unwrap()).await;
    let said = text(&refused.stderr);
    assert_eq!(status(&refused), Some(ExitCode::Input as i32), "{said}");
    assert!(said.contains(&format!("reviews.csv:{BAD_LINE}: expected 3 cells")), "{said}");
    assert_eq!((count("select count(*) from sluice.job").await, answers()), (0, 0));

    // What it will cost.
    program.file("reviews.csv", table(false));
    let estimate: Vec<&str> = ["estimate", "reviews.csv"].into_iter().chain(QUESTION.iter().copied()).collect();
    let estimate = program.output(&estimate).await;
    assert!(estimate.contains("20000") || estimate.contains("20,000"), "{estimate}");

    // Ctrl-C in the middle: it says how to go on.
    let child = run().spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    until("a part is done", async || count("select count(*) from sluice.result").await > 3_000).await;
    kill_process(pid, Signal::INT).unwrap();
    let interrupted = ended(child).await;
    let said = text(&interrupted.stderr);
    assert_eq!(status(&interrupted), Some(ExitCode::Interrupted as i32), "{said}");
    let goes_on = "run reviews.csv --prompt 'Good or bad? {text}' --id-column id -o answers.jsonl";
    assert!(said.contains(goes_on), "{said}");
    let done = count("select count(*) from sluice.result").await;
    assert!((3_000..20_000).contains(&done), "{done} are done");

    // The same command again goes on. Some rows fail, and its last lines say where to look.
    let again = ended(run().spawn().unwrap()).await;
    let said = text(&again.stderr);
    assert_eq!(status(&again), Some(ExitCode::JobsFailed as i32), "{said}");
    assert_eq!(count("select count(*) from sluice.job").await, i64::try_from(ROWS).unwrap());
    let failed = ROWS / FAILS;
    assert!(said.contains("reviews"), "{said}");

    // What failed, of one class, is tried again: the rest is left alone.
    let jobs = program.output(&["batch", "jobs", "reviews", "--class", "content_policy", "--format", "csv"]).await;
    assert_eq!(jobs.lines().count(), failed + 1, "{jobs}");
    program.output(&["batch", "retry", "reviews", "--class", "content_policy"]).await;
    // The same command once more: its own file has fewer answers than the new one, and nothing else to lose.
    let last = ended(run().spawn().unwrap()).await;
    let said = text(&last.stderr);
    assert_eq!(status(&last), Some(ExitCode::Success as i32), "{said}");
    assert!(!said.contains("kept as"), "{said}");
    assert_eq!(json_lines(&program.path("answers.jsonl")).len(), ROWS);

    // The answers stand beside her rows, in her order.
    program.output(&["results", "reviews", "--rows", "reviews.csv", "--id-column", "id", "-o", "joined.csv"]).await;
    let joined = std::fs::read_to_string(program.path("joined.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(joined.as_bytes());
    let head = reader.headers().unwrap().clone();
    assert_eq!(head.iter().take(3).collect::<Vec<_>>(), ["id", "text", "stars"], "{head:?}");
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), ROWS);
    for (index, row) in rows.iter().enumerate() {
        let number = index + 1;
        assert_eq!((&row["id"], &row["stars"]), (&format!("r{number}"), &(number % 5 + 1).to_string()));
        assert!(row["text"].starts_with(&format!("Tea, number {number}")), "{row:?}");
        assert!(!row["answer"].is_empty(), "{row:?}");
        assert_eq!((row["provider"].as_str(), row["model"].as_str()), ("p", "m"));
    }

    // Not one was bought twice: an answer for each row, and no call beside those that were refused.
    let verdict = simulator.verdict().total;
    assert_eq!(answers(), u64::try_from(ROWS).unwrap());
    assert_eq!(verdict.calls, u64::try_from(ROWS + failed).unwrap());
    let twice =
        "select count(*) from (select job_id from sluice.attempt where accepted group by 1 having count(*) > 1) t";
    assert_eq!(count(twice).await, 0);
}
