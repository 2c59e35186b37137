//! Text that other people choose (names, messages of providers, arguments, files) never reaches a terminal unchanged:
//! nothing in it steers the terminal, hides, or turns the text around. Exports stay exact.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::scripted::{Scripted, answer};
use serde_json::{Value, json};
use sluice::printable::is_hidden;
use std::process::Stdio;
use tokio::process::Command;

/// Clears the screen, sets its title, in one and in two bytes; turns the text around; hides; begins a line.
const EVIL: &str = "=evil\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}txt\u{2066}\u{200b}\u{e0041}\u{2028}\r\u{8}";

fn shows_everything(what: &str, shown: &[u8]) {
    let shown = std::str::from_utf8(shown).unwrap_or_else(|_| panic!("{what} is no text: {}", text(shown)));
    if let Some(hidden) = shown.chars().find(|c| is_hidden(*c) && !matches!(c, '\n' | '\t')) {
        panic!("{what} shows {}: {shown:?}", hidden.escape_unicode());
    }
}

/// Runs a command in a terminal, where there is a program that makes one.
async fn in_terminal(program: &Program, arguments: &[&str]) -> Option<Vec<u8>> {
    let plain = program.command(arguments);
    let quoted: Vec<String> = std::iter::once(plain.as_std().get_program())
        .chain(plain.as_std().get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect();
    let mut command = Command::new("script");
    command.args(["-qec", &quoted.join(" "), "/dev/null"]).current_dir(program.path("."));
    for (name, value) in plain.as_std().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let Ok(child) = child else {
        eprintln!("script(1) is not installed: what a terminal gets is not looked at");
        return None;
    };
    Some(ended(child).await.stdout)
}

/// A name with a line break in it: in no output of a command does a line begin with the text behind the break.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_begins_a_line_of_its_own() {
    const NAME: &str = "b\nFORGED: all is well";
    let provider = Scripted::start(|_, _| answer("yes")).await;
    let database = database().await;
    let config = format!(
        "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\n[routes.other]\nrungs = [\"one/model\"]\n",
        provider.base_url("one")
    );
    let program = Program::new(&config, &database.url());
    program.file("q.jsonl", "{\"prompt\": \"a\"}\n");
    program.file("more.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n");
    program.file("b\nFORGED.jsonl", "{\"prompt\": \"a\"}\nno JSON\n");
    // The commands take no such name for a new batch; a statement does.
    let rows = "insert into sluice.job (batch, project, request)
                values ($1, $1, '{\"prompt\": \"a\"}'), ($1, $1, '{\"no\": 1}')";
    sqlx::query(rows).bind(NAME).execute(&database.pool()).await.unwrap();
    program.run(&["worker", "--drain"]).await;
    let commands: &[&[&str]] = &[
        &["run", "q.jsonl", "--project", NAME, "-o", "out.jsonl"],
        &["run", "q.jsonl", "--batch", NAME, "--project", NAME, "-o", "out.jsonl"],
        &["run", "q.jsonl", "--batch", NAME, "-o", "out.jsonl"],
        &["run", "q.jsonl", "--batch", NAME, "-o", "q.csv"],
        &["enqueue", "more.jsonl", "--batch", NAME],
        &["enqueue", "more.jsonl", "--batch", NAME, "--route", "other"],
        &["enqueue", "more.jsonl", "--batch", NAME, "--replace"],
        &["enqueue", "b\nFORGED.jsonl"],
        &["enqueue", "q.jsonl", "--batch", NAME, "--idempotent"],
        &["estimate", "b\nFORGED.jsonl"],
        &["trial", "q.jsonl", "--batch", NAME],
        &["watch", "b\nFORGED: missing"],
        &["results", NAME],
        &["results", NAME, "-o", "again.jsonl"],
        &["results", NAME, "--login", NAME],
        &["results", "b\nFORGED: missing"],
        &["batch", "show", NAME],
        &["batch", "jobs", NAME, "--state", "failed"],
        &["batch", "enqueues", NAME],
        &["batch", "stop-loss", NAME, "0.05"],
        &["batch", "retry", NAME],
        &["batch", "pause", NAME, "--reason", NAME],
        &["batch", "list"],
        &["project", "pause", NAME],
        &["status"],
        &["doctor", "--waiting", "0s"],
        &["job", "show", "1"],
        &["explain", "1"],
        &["report", "cost", "--by", "batch,project"],
        &["budget", "set", NAME, "5", "--batch", NAME],
        &["budget", "list"],
        &["batch", "cancel", NAME],
        &["batch", "resume", NAME],
        &["project", "resume", NAME],
    ];
    for arguments in commands {
        for format in [&[][..], &["--format", "table"]] {
            let output = program.run(&[arguments, format].concat()).await;
            let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
            let forged = said.lines().find(|line| line.trim_start().starts_with("FORGED"));
            assert_eq!(forged, None, "{arguments:?}: {said}");
            assert!(said.trim().len() > 1, "{arguments:?} says nothing");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_message_or_argument_steers_a_terminal_and_exports_stay_exact() {
    let refusal = json!({"error": {"message": format!("no, {EVIL}"), "type": EVIL, "code": EVIL}}).to_string();
    let provider = Scripted::start(move |call, _| {
        if call.prompt().contains("refuse") {
            (400, refusal.clone().into_bytes())
        } else {
            answer(&format!("an answer {EVIL}"))
        }
    })
    .await;
    let database = database().await;
    let pool = database.pool();
    let config = format!(
        "[http]\nlisten = \"off\"\n[log]\nfilter = \"debug\"\n[providers.one]\ndialect = \"openai\"\n\
         base_url = \"{}\"\n\
         [models.\"one/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
         [routes.default]\nrungs = [\"one/model\"]\nmax_attempts = 1\n",
        provider.base_url("one")
    );
    let program = Program::new(&config, &database.url());
    for (number, prompt, route) in [(1, "answer", "default"), (2, "refuse", "default"), (3, "never", EVIL)] {
        sqlx::query(
            "insert into sluice.job (batch, project, route, custom_id, metadata, request)
                  values ($1, $1, $2, $1 || $3::text, jsonb_build_object('m', $1),
                          jsonb_build_object('prompt', $4 || $1))",
        )
        .bind(EVIL)
        .bind(route)
        .bind(number)
        .bind(prompt)
        .execute(&pool)
        .await
        .unwrap();
    }
    let worked = program.run(&["worker", "--drain", "-vv"]).await;
    shows_everything("the log", &[worked.stdout, worked.stderr].concat());
    let in_json = program.run(&["worker", "--drain", "--log-format", "json"]).await;
    shows_everything("the log in JSON", &[in_json.stdout, in_json.stderr].concat());
    let ended = "select count(*) from sluice.jobs where state in ('succeeded', 'failed')";
    assert_eq!(sqlx::query_scalar::<_, i64>(ended).fetch_one(&pool).await.unwrap(), 2);

    let missing = format!("missing {EVIL}");
    let faulty = format!("{{\"custom_id\": \"{}\", \"{}\": 1}}\n", r"a\u001b[2J\u202e", r"\u009b1m");
    let name = "evil\u{1b}[2J\u{202e}.jsonl";
    program.file(name, &faulty);
    program.file("twice.jsonl", "{\"custom_id\":\"\\u001b[1m\",\"prompt\":\"a\"}\n".repeat(2));
    program.file("evil.toml", "[routes.\"a\\u001b[2J\\u202e\"]\nrungs = []\n\"x\\u009b\" = 1\n");
    let evil_config = program.path("evil.toml").display().to_string();
    let commands: &[&[&str]] = &[
        &["status"],
        &["batch", "list"],
        &["batch", "show", EVIL],
        &["batch", "show", &missing],
        &["batch", "pause", EVIL],
        &["batch", "resume", EVIL],
        &["results", &missing],
        &["job", "show", "1"],
        &["job", "show", "2"],
        &["job", "show", "3"],
        &["explain", "1"],
        &["explain", "2"],
        &["explain", "3"],
        &["report", "cost", "--by", "project"],
        &["report", "cost", "--by", "batch"],
        &["report", "failures"],
        &["report", "latency"],
        &["doctor"],
        &["watch", &missing],
        &["route", "pause", &missing],
        &["project", "pause", EVIL],
        &["project", "resume", EVIL],
        &["provider", "pause", &missing],
        &["enqueue", name],
        &["enqueue", name, "--dry-run", "--batch", EVIL],
        &["enqueue", "twice.jsonl", "--batch", EVIL],
        &["enqueue", &missing],
        &["estimate", name],
        &["estimate", name, "--route", EVIL],
        &["--config", &evil_config, "check"],
        &["--config", &missing, "check"],
        &["--database-url", "postgres://\u{1b}[2J@127.0.0.1:1/\u{202e}", "status"],
        // What the command line quotes back.
        &[EVIL],
        &["job", "show", EVIL],
        &["status", &format!("--{EVIL}")],
        &["report", EVIL],
        &["report", "cost", "--since", EVIL],
        &["enqueue", "twice.jsonl", "--run-at", EVIL],
        &["simulate", "--listen", EVIL],
    ];
    for arguments in commands {
        for format in
            [&[][..], &["--format", "table"], &["--format", "plain"], &["--format", "json"], &["--format", "csv"]]
        {
            let output = program.run(&[arguments, format].concat()).await;
            let what = format!("{arguments:?} {format:?}");
            shows_everything(&what, &output.stdout);
            shows_everything(&what, &output.stderr);
            assert!(!(output.stdout.is_empty() && output.stderr.is_empty()), "{what} says nothing");
        }
    }

    // It means the same in JSON, and a text is a text in a table of commas.
    let batches: Value = serde_json::from_str(&program.output(&["batch", "list", "--format", "json"]).await).unwrap();
    assert!(batches.as_array().unwrap().iter().any(|batch| batch["batch"] == EVIL), "{batches}");
    let csv = program.output(&["batch", "list", "--format", "csv"]).await;
    assert!(csv.lines().any(|line| line.starts_with("'=evil\\u{1b}[2J")), "{csv}");

    // Exports: exact in files and pipes, in JSON's own notation on a terminal.
    let exported = program.run(&["results", EVIL]).await;
    let line: Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(line["custom_id"], format!("{EVIL}1"));
    assert!(text(&exported.stdout).contains('\u{202e}'), "it is exact");
    program.run(&["results", EVIL, "-o", "out.jsonl"]).await;
    assert_eq!(std::fs::read(program.path("out.jsonl")).unwrap(), exported.stdout);
    let csv = program.run(&["results", EVIL, "--format", "csv"]).await;
    assert!(text(&csv.stdout).contains("'=evil\u{1b}[2J"), "{:?}", text(&csv.stdout));
    for arguments in [
        &["results", EVIL][..],
        &["batch", "list"],
        &["status"],
        &["explain", "2"],
        &["watch", &missing],
        &["job", EVIL],
    ] {
        let Some(shown) = in_terminal(&program, arguments).await else { break };
        // The terminal puts a carriage return before each line's end; colours are clap's own and were not asked for.
        let shown = text(&shown).replace("\r\n", "\n");
        shows_everything(&format!("{arguments:?} on a terminal"), shown.as_bytes());
        if arguments[0] == "results" {
            let line = shown.lines().find(|line| line.starts_with('{')).unwrap();
            assert_eq!(serde_json::from_str::<Value>(line).unwrap()["custom_id"], format!("{EVIL}1"));
        }
    }
}
