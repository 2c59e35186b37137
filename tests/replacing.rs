//! A file that takes the place of what its batch has not begun, the same command after its end, and a run that reaches
//! no server.

use crate::same_again::Desk;
use crate::support::program::{ended, json_lines, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

/// The rows of a table, of which some ask something else.
fn rows(count: usize, changed: impl Fn(usize) -> bool) -> String {
    let mut text = "id,text\n".to_owned();
    for n in 0..count {
        let other = if changed(n) { " anew" } else { "" };
        writeln!(text, "r{n},row {n}{other}").unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_takes_the_place_of_what_has_not_begun_and_nothing_is_bought_twice() {
    let desk = Desk::new("150ms").await;
    desk.program.file("t.csv", rows(40, |_| false));
    let run = ["run", "t.csv", "--prompt", "What of {text}?", "--id-column", "id", "-o", "out.csv"];
    let child = desk.program.command(&run).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    until("some calls were made", async || desk.calls() >= 6).await;
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(ended(child).await.status.code(), Some(130));
    let answered = desk.calls();
    assert!(answered < 30, "{answered}");
    let before: i64 = sqlx::query_scalar("select count(*) from sluice.results where state = 'succeeded'")
        .fetch_one(&desk.pool)
        .await
        .unwrap();

    // The last ten rows ask something else, and there are five more. The refusal names the way.
    desk.program.file("t.csv", rows(45, |n| (30..40).contains(&n)));
    let refusal = desk.refused(&run, 2).await;
    for way in ["--resume ", "--append ", "--replace ", "--batch NAME "] {
        assert!(refusal.contains(&format!("\n  {way}")), "{refusal}");
    }
    // A file with a fault changes nothing, and cancels nothing either.
    desk.program.file("bad.csv", "id,text\nr1,\"a\" b\n");
    let replaced = ["--batch", "t", "--replace", "--prompt", "What of {text}?", "--id-column", "id"];
    desk.refused(&[&["enqueue", "bad.csv"][..], &replaced].concat(), 7).await;
    let cancelled = "select count(*) from sluice.results where state = 'cancelled'";
    assert_eq!(sqlx::query_scalar::<_, i64>(cancelled).fetch_one(&desk.pool).await.unwrap(), 0);

    let output = desk.program.run(&[&run[..], &["--replace"]].concat()).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let waiting = 40 - before;
    let told = format!(
        "--replace: of batch t, {waiting} jobs wait and are cancelled together with the enqueue of t.csv; 0 have begun \
         and go on, and {before} have ended and stay"
    );
    assert!(said.contains(&told), "{told}: {said}");
    assert_eq!(i64::try_from(desk.calls() - answered).unwrap(), 45 - before, "what was answered is not asked again");
    // All her rows, in her order, each with the answer to what it asks now.
    let table = fs::read_to_string(desk.program.path("out.csv")).unwrap();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][..5], ["id", "text", "job", "custom_id", "state"]);
    assert_eq!(lines.len(), 46, "{table}");
    for (n, line) in lines[1..].iter().enumerate() {
        assert_eq!((line[0], line[4]), (format!("r{n}").as_str(), "succeeded"), "{table}");
    }
    // Nothing of it failed, and a retry of the batch buys none of the replaced jobs.
    let watched = desk.program.run(&["watch", "t"]).await;
    let (said, replaced) = (text(&watched.stdout), format!("t: done, 45 succeeded, 0 failed, {waiting} replaced, "));
    assert_eq!(watched.status.code(), Some(0), "{said}");
    assert!(said.contains(&replaced), "{said}");
    let shown = desk.program.output(&["watch", "t", "--format", "json"]).await;
    assert!(shown.contains(&format!("\"replaced\":{waiting}")), "{shown}");
    let retried = desk.program.output(&["batch", "retry", "t"]).await;
    assert!(retried.contains("0 jobs"), "{retried}");
    let by_sql: i64 = sqlx::query_scalar("select sluice.retry('t')").fetch_one(&desk.pool).await.unwrap();
    assert_eq!(by_sql, 0);
    // The same once more: nothing waits, and nothing is new.
    let again = desk.program.run(&[&run[..], &["--replace"]].concat()).await;
    assert!(
        text(&again.stderr).contains("0 jobs enqueued as batch t, 45 were there before"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(fs::read_to_string(desk.program.path("out.csv")).unwrap(), table);
    let missing = desk.refused(&["enqueue", "t.csv", "--batch", "none", "--replace", "--prompt", "{text}"], 6).await;
    assert!(missing.contains("leave out --resume or --replace"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_after_the_end_writes_its_own_file_again_and_no_other() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n");
    let run = ["run", "q.jsonl", "-o", "out.jsonl", "--errors", "failed.jsonl"];
    let first = desk.program.run(&run).await;
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let written = fs::read_to_string(desk.program.path("out.jsonl")).unwrap();
    let again = desk.program.run(&run).await;
    let said = text(&again.stderr);
    assert_eq!(again.status.code(), Some(0), "{said}");
    assert!(said.contains("every job of it has ended: there is nothing to work on"), "{said}");
    assert_eq!((fs::read_to_string(desk.program.path("out.jsonl")).unwrap(), desk.calls()), (written.clone(), 2));
    // Edits in it are not lost: that file is kept beside the new one, and it is said.
    let edited = written.replacen("\"sluice\"", "\"checked\":\"by me\",\"sluice\"", 1);
    assert_ne!(edited, written);
    for name in ["out.jsonl.before", "out.jsonl.before-2"] {
        desk.program.file("out.jsonl", &edited);
        let said = text(&desk.program.run(&run).await.stderr);
        assert!(said.contains(&format!("it is kept as {name}")) && said.contains("out.jsonl had lines"), "{said}");
        assert_eq!(fs::read_to_string(desk.program.path(name)).unwrap(), edited);
        assert_eq!(fs::read_to_string(desk.program.path("out.jsonl")).unwrap(), written);
    }
    // A file that is only shorter has nothing that could be lost.
    desk.program.file("out.jsonl", written.lines().next().unwrap());
    let said = text(&desk.program.run(&run).await.stderr);
    assert!(!said.contains("kept as"), "{said}");
    // A file of something else, and answers of another batch, stay.
    desk.program.file("other.jsonl", "{\"prompt\": \"three\"}\n");
    assert!(desk.program.run(&["run", "other.jsonl", "-o", "theirs.jsonl"]).await.status.success());
    desk.program.file("notes.jsonl", "{\"mine\": true}\n");
    for file in ["theirs.jsonl", "notes.jsonl"] {
        let before = fs::read_to_string(desk.program.path(file)).unwrap();
        let said = desk.refused(&["run", "q.jsonl", "-o", file], 2).await;
        let words = format!("{file} exists already, and is no export of batch q; nothing was enqueued");
        assert!(said.contains(&words) && said.contains("--force"), "{said}");
        assert_eq!(fs::read_to_string(desk.program.path(file)).unwrap(), before);
    }
    assert_eq!(json_lines(&desk.program.path("theirs.jsonl")).len(), 1);
}

/// Writing where there is no more room: the message says why and what to do, no answer is lost, and the same command
/// goes on once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_find_no_room_are_kept_and_the_same_command_writes_them() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", "{\"prompt\": \"one\"}\n".repeat(40));
    // Of eight blocks at most, as `ulimit -f` bounds every file.
    let bounded = async |arguments: &[&str]| {
        let plain = desk.program.command(arguments);
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(plain.as_std().get_program());
        shell.args(plain.as_std().get_args()).current_dir(desk.program.path("."));
        for (name, value) in plain.as_std().get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = ended(shell.spawn().unwrap()).await;
        (output.status.code(), text(&output.stderr))
    };
    let why = "it would become larger than this process may make a file (`ulimit -f` tells how large)";
    let (code, said) = bounded(&["run", "q.jsonl", "-o", "out.jsonl"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("writing out.jsonl: {why}")), "{said}");
    assert!(said.contains("the answers are kept: `sluice results q -o FILE` writes them again"), "{said}");
    assert!(!desk.program.path("out.jsonl").exists());
    for file in ["out.csv", "out.parquet"] {
        let (code, said) = bounded(&["results", "q", "-o", file]).await;
        // Parquet is small; where it fits it is whole.
        assert!(code == Some(0) || said.contains(why), "{file}: {code:?} {said}");
        assert_eq!(desk.program.path(file).exists(), code == Some(0), "{file}");
    }
    let (code, said) = bounded(&["results", "q", "-o", "grows.jsonl", "--follow"]).await;
    assert!(code == Some(1) && said.contains(&format!("writing grows.jsonl: {why}")), "{code:?} {said}");
    for arguments in [&["results", "q", "-o", "/dev/full"][..], &["results", "q", "-o", "/dev/full", "--as", "csv"]] {
        let output = desk.program.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("writing /dev/full: the disk is full: make room there, or choose another file"),
            "{said}"
        );
    }
    // With room, the same commands go on: nothing is bought again.
    for arguments in [&["run", "q.jsonl", "-o", "out.jsonl"][..], &["results", "q", "-o", "grows.jsonl", "--follow"]] {
        let output = desk.program.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    for file in ["out.jsonl", "grows.jsonl"] {
        assert_eq!(json_lines(&desk.program.path(file)).len(), 40, "{file}");
    }
    assert_eq!(desk.calls(), 40);
    let parts = fs::read_dir(desk.program.path("."))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".part-"));
    assert_eq!(parts.count(), 0, "nothing is left lying about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_reaches_no_server_says_so_and_ends_and_goes_on_once_there_is_one() {
    let desk = Desk::new("1ms").await;
    desk.program.file("q.jsonl", "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n");
    let run = ["run", "q.jsonl", "-o", "out.jsonl"];
    let mut command = desk.program.command(&run);
    // A port at which nothing listens.
    command.env("SLUICE__PROVIDERS__ONE__BASE_URL", "http://127.0.0.1:1/v1");
    let output = ended(command.spawn().unwrap()).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("batch q cannot go on:\n  one/model cannot be reached: no connection"), "{said}");
    assert!(!said.contains("os error"), "{said}");
    assert!(said.contains("When that is mended, go on with:\n  sluice "), "{said}");
    let output = desk.program.run(&run).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((json_lines(&desk.program.path("out.jsonl")).len(), desk.calls()), (2, 2));
}

/// The breaker opens within the first second, before the progress is read for the first time, and no call is made then.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_reaches_no_server_ends_though_its_breaker_opens_at_once() {
    let desk = Desk::new("1ms").await;
    let lines: Vec<String> = (0..12).map(|number| format!("{{\"prompt\": \"question {number}\"}}\n")).collect();
    desk.program.file("q.jsonl", lines.concat());
    let mut command = desk.program.command(&["run", "q.jsonl", "-o", "out.jsonl"]);
    command.env("SLUICE__PROVIDERS__ONE__BASE_URL", "http://127.0.0.1:1/v1");
    command.env("SLUICE__PROVIDERS__ONE__BREAKER__OPEN", "10m");
    let output = ended(command.spawn().unwrap()).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("the breaker is open") && said.contains("one/model cannot be reached"), "{said}");
}
