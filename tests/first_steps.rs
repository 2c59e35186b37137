//! The first screen of a new user: files are found, each output goes to the right stream, and messages are in our own
//! words.

use crate::support::postgres::database;
use crate::support::program::{Program, text};
use sluice::simulate::{Scenario, Simulator};
use std::process::Output;
use tokio::process::Command;

/// The program in a folder, with no configuration but the files that are there.
async fn bare(folder: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .current_dir(folder)
        .args(arguments)
        .env_remove("SLUICE_CONFIG")
        .env_remove("DATABASE_URL")
        .output()
        .await
        .unwrap()
}

const ROUTE: &str = "[providers.p]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:1\"\n\
                     [models.\"p/m\"]\nprice = { input = \"1\", output = \"1\" }\n[routes.NAME]\nrungs = [\"p/m\"]\n";

/// The text of the README from behind these words to those.
fn of_readme(from: &str, to: &str) -> &'static str {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(from).unwrap_or_else(|| panic!("the README has {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("the README has {to:?} behind {from:?}")).0
}

#[tokio::test]
async fn the_readme_shows_the_estimate_that_its_own_file_and_configuration_have() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("sluice.toml", of_readme("Write `sluice.toml`:\n\n```toml\n", "```"));
    write("prompts.jsonl", of_readme("$ cat prompts.jsonl\n", "```"));
    let estimate = bare(folder.path(), &["estimate", "prompts.jsonl", "--format", "json"]).await;
    let rows: serde_json::Value = serde_json::from_slice(&estimate.stdout).unwrap();
    let shown = of_readme("$ sluice estimate prompts.jsonl\n", "```");
    for row in rows.as_array().unwrap() {
        let dollars = |name: &str| format!("${:.6}", row[name].as_f64().unwrap());
        let told = format!("{}  {}  {}", row["jobs"], dollars("expected"), dollars("most"));
        assert!(shown.contains(&told), "{told}: {shown}");
    }
    assert_eq!(rows.as_array().unwrap().len(), shown.matches("tokens, length of").count());
}

#[tokio::test]
async fn the_file_in_this_folder_is_found_and_its_absence_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // Where a machine has a configuration of its own, that one is read.
    if !std::path::Path::new("/etc/sluice/sluice.toml").exists() {
        for format in ["plain", "json"] {
            let nothing = bare(folder.path(), &["check", "--format", format]).await;
            let said = text(&nothing.stdout) + &text(&nothing.stderr);
            assert_eq!(nothing.status.code(), Some(3), "{said}");
            assert!(
                said.contains("looked for ./sluice.toml, ./config/sluice.toml and /etc/sluice/sluice.toml"),
                "{said}"
            );
            assert!(!said.contains("in order") && !said.contains("\"ok\": true"), "{said}");
        }
    }
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    write("config/sluice.toml", &ROUTE.replace("NAME", "second"));
    let found = text(&bare(folder.path(), &["check"]).await.stdout);
    assert!(found.starts_with("./config/sluice.toml is in order.") && found.contains("route second"), "{found}");
    write("sluice.toml", &ROUTE.replace("NAME", "first"));
    let found = text(&bare(folder.path(), &["check"]).await.stdout);
    assert!(found.starts_with("./sluice.toml is in order.") && found.contains("route first"), "{found}");
    write("sluice.toml", "# nothing yet\n");
    let empty = bare(folder.path(), &["check"]).await;
    let said = text(&empty.stdout);
    assert_eq!(empty.status.code(), Some(3), "{said}");
    assert!(said.starts_with("./sluice.toml has no faults, and nothing that a worker could work with."), "{said}");
    assert!(text(&empty.stderr).contains("a worker would not start"));
    // No route is missing: all are.
    write("jobs.jsonl", "{\"prompt\": \"Hi\"}\n");
    let estimate = bare(folder.path(), &["estimate", "jobs.jsonl"]).await;
    assert_eq!(estimate.status.code(), Some(3), "{}", text(&estimate.stderr));
}

/// A provider at which prompts with `bad` fail for good.
fn simulator() -> Simulator {
    let scenario = "[providers.one]\ndialect = \"openai\"\nmodels.model.price = { input = \"1\", output = \"2\" }\n\
                    faults = [{ kind = \"content_policy\", containing = \"bad\" }]\n";
    Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn config(simulator: &Simulator) -> String {
    format!(
        "[http]\nlisten = \"off\"\n[log]\nfilter = \"warn\"\n[providers.one]\ndialect = \"openai\"\n\
         base_url = \"{}\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n[routes.default]\n\
         rungs = [\"one/model\"]\n",
        simulator.base_url("one").unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dash_is_standard_output_wherever_a_file_is_written() {
    let (database, simulator) = (database().await, simulator());
    let program = Program::new(&config(&simulator), &database.url());
    program.file("q.jsonl", "{\"custom_id\":\"a\",\"prompt\":\"good\"}\n{\"custom_id\":\"b\",\"prompt\":\"bad\"}\n");
    let ids = |output: &Output| -> Vec<String> {
        let named = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["custom_id"].as_str().unwrap().to_owned()
        };
        text(&output.stdout).lines().map(named).collect()
    };
    let run = program.run(&["run", "q.jsonl", "--batch", "b1", "-o", "-", "--errors", "failed.jsonl"]).await;
    assert_eq!((run.status.code(), ids(&run)), (Some(5), vec!["a".to_owned()]), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("b1: done, 1 succeeded, 1 failed"), "progress goes to standard error");
    let run = program.run(&["run", "q.jsonl", "--batch", "b2", "-o", "answers.jsonl", "--errors", "-"]).await;
    assert_eq!((run.status.code(), ids(&run)), (Some(5), vec!["b".to_owned()]), "{}", text(&run.stderr));
    for arguments in [&["results", "b1", "-o", "-"][..], &["results", "b1", "-o", "/dev/stdout"], &["results", "b1"]] {
        assert_eq!(ids(&program.run(arguments).await), ["a"], "{arguments:?}");
    }
    let errors = program.run(&["results", "b1", "-o", "again.jsonl", "--errors", "-"]).await;
    assert_eq!(ids(&errors), ["b"]);
    for arguments in [
        &["results", "b1", "--errors", "-"][..],
        &["results", "b1", "-o", "-", "--errors", "/dev/stdout"],
        &["run", "q.jsonl", "--batch", "b3", "-o", "-", "--errors", "-"],
        &["results", "b1", "-o", "x", "--errors", "x"],
    ] {
        let refused = program.run(arguments).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", text(&refused.stderr));
    }
    let made: Vec<String> = std::fs::read_dir(program.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name == "-" || name.contains("part-"))
        .collect();
    assert!(made.is_empty(), "{made:?}");
}

const REFUSED: &str = "\n1 of 2 jobs have no answer: one/model: content_policy “Your request was rejected as a \
                       result of our safety system.”, which route default does not fall back on\n";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_failed_come_with_what_to_do() {
    let (database, simulator) = (database().await, simulator());
    let program = Program::new(&config(&simulator), &database.url());
    program.file("q.jsonl", "{\"prompt\":\"good\"}\n{\"prompt\":\"bad\"}\n");
    let why = "  sluice batch jobs b --state failed  lists them, each with its error\n  sluice report failures --batch \
               b    counts them by reason\n  sluice batch retry b                puts them back into the queue\n";
    for (arguments, words) in [
        (&["run", "q.jsonl", "--batch", "b", "-o", "1"][..], REFUSED),
        (&["run", "q.jsonl", "--batch", "b", "--resume", "-o", "2"], REFUSED),
        (&["watch", "b"], ""),
        (&["results", "b"], "1 of 2 jobs have an answer; 1 failed\n"),
    ] {
        let output = program.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {said}");
        assert!(said.contains(&format!("{words}{why}")), "{arguments:?}: {said}");
    }
    let told = program.run(&["run", "q.jsonl", "--batch", "b", "--resume", "-o", "3", "--errors", "bad"]).await;
    for words in [
        "nothing to work on; 1 of 2 jobs have no answer, and are not tried again\n",
        "lists them, each with its error (bad has them, too)\n",
    ] {
        assert!(text(&told.stderr).contains(words), "{}", text(&told.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_neither_resumed_nor_exported() {
    let (database, simulator) = (database().await, simulator());
    let program = Program::new(&config(&simulator), &database.url());
    program.file("q.jsonl", "{\"prompt\":\"good\"}\n");
    program.output(&["enqueue", "q.jsonl", "--batch", "nightly", "--project", "news"]).await;
    for (arguments, words) in [
        (&["batch", "resume", "nigthly"][..], "there is no batch \"nigthly\"; perhaps \"nightly\" is meant"),
        (&["results", "nigthly"], "there is no batch \"nigthly\"; perhaps \"nightly\" is meant"),
        (&["batch", "show", "other"], "there is no batch \"other\"; recent ones are: nightly"),
        (&["project", "resume", "nwes"], "there is no project \"nwes\"; perhaps \"news\" is meant"),
        (&["route", "resume", "other"], "there is no route \"other\""),
        (&["provider", "resume", "other"], "there is no provider \"other\""),
    ] {
        let refused = program.run(arguments).await;
        assert_eq!(refused.status.code(), Some(6), "{arguments:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(words), "{arguments:?}: {}", text(&refused.stderr));
    }
    // A project may be paused before its first job; the name may also be a typing error.
    let paused = program.run(&["project", "pause", "nwes"]).await;
    assert_eq!(paused.status.code(), Some(0), "{}", text(&paused.stderr));
    assert!(text(&paused.stderr).contains("perhaps \"news\" is meant. A job of that name will wait"));
    program.output(&["project", "resume", "nwes"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_run_enqueues_nothing() {
    let (database, simulator) = (database().await, simulator());
    let program = Program::new(&config(&simulator), &database.url());
    program.file("q.jsonl", "{\"prompt\":\"good\"}\n");
    let run = program.run(&["run", "q.jsonl", "-o", "out.jsonl", "--dry-run"]).await;
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("1 job is in order; nothing was enqueued"));
    let jobs: i64 = sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&database.pool()).await.unwrap();
    assert_eq!((jobs, simulator.verdict().total.calls), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_input_is_said_without_a_database() {
    let simulator = simulator();
    // Nothing listens there.
    let program = Program::new(&config(&simulator), "postgresql://127.0.0.1:1/none");
    program.file("q.jsonl", "{\"prompt\":\"good\"}\n");
    program.file("q.csv", "id,text\n1,good\n");
    for (arguments, status, words) in [
        (&["run", "q.jsonl", "-o", "out.jsonl", "--dry-run"][..], 0, "1 job is in order; nothing was enqueued"),
        (&["run", "q.jsonl", "-o", "out.jsonl"], 4, "cannot connect to Postgres"),
        (&["run", "none.jsonl", "-o", "out.jsonl"], 7, "none.jsonl"),
        (&["run", "q.csv", "-o", "out.csv"], 7, "--prompt"),
        (&["run", "q.jsonl", "-o", "out.jsonl", "--route", "nosuch"], 6, "nosuch"),
        (&["run", "q.jsonl", "-o", "none/out.jsonl"], 2, "there is no folder none"),
        (&["run", "q.jsonl", "-o", "out.jsonl", "--errors", "none/bad", "--dry-run"], 2, "there is no folder none"),
        (&["enqueue", "none.jsonl"], 7, "none.jsonl"),
        (&["trial", "q.jsonl", "--route", "nosuch"], 6, "nosuch"),
    ] {
        let run = program.run(arguments).await;
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_notices_of_the_server_stay_off_the_terminal() {
    let (database, simulator) = (database().await, simulator());
    // Every insert takes longer than the driver thinks it should, and talks.
    sqlx::raw_sql(
        "create function public.dawdle() returns trigger language plpgsql as $$
         begin perform pg_sleep(1.2); raise warning 'of no concern to you'; return null; end $$;
         create trigger dawdle after insert on sluice.job for each statement execute function public.dawdle();
         create trigger dawdle after insert on sluice.result for each statement execute function public.dawdle()",
    )
    .execute(&database.pool())
    .await
    .unwrap();
    let program = Program::new(&config(&simulator).replace("\"warn\"", "\"info\""), &database.url());
    program.file("q.jsonl", "{\"prompt\":\"good\"}\n");
    for arguments in [
        &["enqueue", "q.jsonl", "--batch", "one"][..],
        &["run", "q.jsonl", "--batch", "two", "-o", "out.jsonl"],
        &["worker", "--drain"],
        &["batch", "show", "one"],
    ] {
        let output = program.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        for word in ["slow", "insert into", "select ", "of no concern", "db.statement"] {
            assert!(!said.contains(word), "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_value_that_is_refused_is_named_without_the_row() {
    let database = database().await;
    let pool = database.pool();
    for (columns, values, words) in [
        ("priority", "1001", "priority: expected a number from -1000 to 1000, found 1001"),
        ("priority", "-32768", "priority: expected a number from -1000 to 1000, found -32768"),
        ("max_attempts", "0", "max_attempts: expected a number above 0, found 0"),
        ("max_attempts", "-5", "max_attempts: expected a number above 0, found -5"),
    ] {
        let statement = format!(
            "insert into sluice.job (request, metadata, {columns})
                  values ('{{\"prompt\": \"hunter2\"}}', '{{\"a\": \"hunter2\"}}', {values})"
        );
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap_err();
        let error = error.into_database_error().unwrap();
        let whole = format!("{error:?}");
        assert_eq!((error.message(), error.code().as_deref()), (words, Some("23514")));
        assert!(!whole.contains("hunter2"), "{whole}");
    }
    let jobs: i64 = sqlx::query_scalar("select count(*) from sluice.job").fetch_one(&pool).await.unwrap();
    assert_eq!(jobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pilot_tells_what_the_whole_will_cost() {
    let (database, simulator) = (database().await, simulator());
    let program = Program::new(&config(&simulator), &database.url());
    program.file("few.jsonl", "{\"prompt\":\"good\"}\n".repeat(20));
    program.file("many.jsonl", "{\"prompt\":\"good\"}\n".repeat(400));
    assert!(program.run(&["run", "few.jsonl", "--batch", "pilot", "-o", "out.jsonl"]).await.status.success());
    let json = program.output(&["estimate", "many.jsonl", "--pilot", "pilot", "--format", "json"]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let cost: f64 =
        sqlx::query_scalar("select cost::float8 from sluice.batches").fetch_one(&database.pool()).await.unwrap();
    let path = rows.last().unwrap();
    assert_eq!((&path["target"], &path["guessed"]), (&"each job to its first choice".into(), &"".into()));
    assert!((path["as_lately"].as_f64().unwrap() - cost * 20.0).abs() < 1e-9, "{rows:?}");
    assert_eq!(program.run(&["estimate", "many.jsonl", "--pilot", "none"]).await.status.code(), Some(6));
}

#[tokio::test]
async fn help_names_only_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut pages = vec![text(&bare(folder.path(), &["--help"]).await.stdout)];
    pages.push(text(&bare(folder.path(), &["man"]).await.stdout));
    for command in ["run", "enqueue", "estimate", "batch", "route", "provider", "job", "results", "status", "report"] {
        pages.push(text(&bare(folder.path(), &[command, "--help"]).await.stdout));
    }
    let mentioned = regex::Regex::new("sluice ([a-z-]+)(?: ([a-z-]+))?").unwrap();
    let mut commands = std::collections::BTreeSet::new();
    for page in &pages {
        // The manual writes hyphens so that they are not taken for a break.
        for found in mentioned.captures_iter(&page.replace("\\-", "-")) {
            commands.insert([1, 2].map(|word| found.get(word).map_or(String::new(), |word| word.as_str().to_owned())));
        }
    }
    let probe = ["provider", "probe"].map(str::to_owned);
    assert!(pages.iter().any(|page| page.contains("sluice provider probe")) && commands.contains(&probe));
    let groups = ["provider", "batch", "route", "project", "job", "schedule", "budget", "alert", "db", "prices"];
    for [command, below] in commands.iter().filter(|[command, _]| groups.contains(&command.as_str())) {
        let mut words = vec![command.as_str()];
        words.extend(Some(below.as_str()).filter(|below| !below.is_empty()));
        let output = bare(folder.path(), &[&words[..], &["--help"]].concat()).await;
        assert!(output.status.success(), "help names `sluice {}`: {}", words.join(" "), text(&output.stderr));
    }
}

#[test]
fn no_blank_line_breaks_a_table_of_the_documentation() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for file in docs.chain(["README.md", "CHANGELOG.md"].map(|name| root.join(name))) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let is_row = |index: usize| lines.get(index).is_some_and(|line| line.starts_with('|'));
        for first in (0..lines.len()).filter(|&index| is_row(index) && (index == 0 || !is_row(index - 1))) {
            let rule = lines.get(first + 1).copied().unwrap_or_default();
            assert!(rule.starts_with("|---"), "{}:{}: rows without a head", file.display(), first + 1);
        }
    }
}
