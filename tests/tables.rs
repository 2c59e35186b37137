//! Tables as input of the real program: each row is asked once, and its columns come back beside the answer.

use crate::same_again::Desk;
use crate::support::program::{ended, json_lines, text};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;

const ROWS: &str = "id,text,label\r\n1,\"good, cheap tea\",x\r\n2,\"two\nlines\",\r\n3,bad,z\r\n";

/// Lines of an export by their custom id.
fn by_id(lines: Vec<Value>) -> Vec<(String, Value)> {
    let mut lines: Vec<(String, Value)> =
        lines.into_iter().map(|line| (line["custom_id"].as_str().unwrap().to_owned(), line)).collect();
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_run_and_run_again_and_nothing_is_bought_twice() {
    let desk = Desk::new("1ms").await;
    desk.program.file("rows.csv", ROWS);
    let run = ["run", "rows.csv", "--prompt", "Is {text} good?", "--id-column", "id", "-o", "out.jsonl"];
    let first = desk.program.run(&run).await;
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert_eq!((desk.jobs().await, desk.calls()), (3, 3));
    let answers = by_id(json_lines(&desk.program.path("out.jsonl")));
    assert_eq!(answers.len(), 3);
    let (request, metadata): (Value, Value) =
        sqlx::query_as("select request, metadata from sluice.job where custom_id = '2'")
            .fetch_one(&desk.pool)
            .await
            .unwrap();
    assert_eq!(request, json!({ "prompt": "Is two\nlines good?" }));
    assert_eq!(metadata, json!({ "text": "two\nlines", "label": "" }));

    // The same command goes on: by the id, or by the content where there is none.
    let again = desk.program.run(&[&run[..], &["--force"]].concat()).await;
    let said = text(&again.stderr);
    assert_eq!(again.status.code(), Some(0), "{said}");
    assert!(said.contains("0 jobs enqueued as batch rows, 3 were there before"), "{said}");
    let by_content = ["enqueue", "rows.csv", "--prompt", "Is {text} good?", "--batch", "content", "--format", "csv"];
    assert_eq!(desk.program.output(&by_content).await, "batch,jobs,existing,faulty,enqueue\ncontent,3,0,0,2\n");
    assert_eq!(desk.program.output(&by_content).await, "batch,jobs,existing,faulty,enqueue\ncontent,0,3,0,\n");
    assert_eq!((desk.jobs().await, desk.calls()), (6, 3));

    // Another question is another request, and another row another job.
    let other = ["enqueue", "rows.csv", "--prompt", "Is {text} bad?", "--id-column", "id"];
    let said = desk.refused(&other, 2).await;
    assert!(said.contains("rows.csv has another request under the custom_id `1`"), "{said}");
    desk.program.file("rows.csv", format!("{ROWS}4,new,\r\n"));
    let said = desk.refused(&["enqueue", "rows.csv", "--prompt", "Is {text} good?", "--id-column", "id"], 2).await;
    assert!(
        said.contains("rows.csv has 1 row that it does not have") && said.contains("add the rows that it"),
        "{said}"
    );
    let resume = [&run[1..6], &["--resume", "--format", "csv"]].concat();
    let output = desk.program.output(&[&["enqueue"], &resume[..]].concat()).await;
    assert_eq!(output, "batch,jobs,existing,faulty,enqueue\nrows,1,3,0,3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_table_that_is_stopped_says_the_whole_command_that_goes_on() {
    let desk = Desk::new("300ms").await;
    let rows: Vec<String> = (0..40).map(|n| format!("{n}|text {n}")).collect();
    desk.program.file("rows.txt", format!("id|text\n{}\n", rows.join("\n")));
    let options = ["--input-format", "csv", "--delimiter", "|", "--prompt", "Is {text} it's?", "--id-column", "id"];
    let child =
        desk.program.command(&[&["run", "rows.txt", "-o", "out.jsonl"], &options[..]].concat()).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    crate::support::wait::until("some calls were made", async || desk.calls() >= 4).await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = text(&ended(child).await.stderr);
    let words = "--input-format csv --prompt 'Is {text} it'\\''s?' --id-column id --delimiter '|' -o out.jsonl";
    assert!(said.contains(&format!("run rows.txt {words}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tables_are_told_once_and_nothing_is_enqueued() {
    let desk = Desk::new("1ms").await;
    let file = |name: &str, content: &[u8]| drop(desk.program.file(name, content));
    file("rows.csv", ROWS.as_bytes());
    file("quote.csv", b"id,text\n1,a\n2,b\n3,c\n4,d\n5,e\n6,\"f\n7,g\n");
    file("ragged.csv", b"id,text\n1,a\n2\n3,c\n");
    file("twice.csv", b"id,text,id\n1,a,1\n");
    file("same.csv", b"id,text\n1,a\n2,b\n1,c\n");
    file("nameless.csv", b"id,text\n1,a\n,b\n");
    file("latin.csv", b"id,text\n1,a\n2,caf\xe9\n");
    file("empty.csv", b"");
    file("header.csv", b"id,text\n");
    file("braces.csv", b"id,a{b}\n1,x\n");
    file("batch.jsonl", b"{\"custom_id\":\"a\",\"body\":{\"prompt\":\"x\"}}\n");
    file("cut.parquet", b"PAR1 and then nothing more of it");
    file("plain.json", b"no json");
    file("braced.json", b"{\"messages\":[{\"role\":\"user\",\"content\":\"{text\"}]}");
    let ask = ["--prompt", "Is {text}?"];
    for (arguments, status, words) in [
        (
            &["rows.csv", "--prompt", "{txt}?"][..],
            7,
            "rows.csv: --prompt names the column `txt`, which there is not. There \
          are: `id`, `text`, `label`; perhaps `text` is meant",
        ),
        (
            &[&["quote.csv"], &ask[..]].concat(),
            7,
            "quote.csv:7: cannot be read any further: the quote in the column `text` \
          is never closed; nothing was enqueued",
        ),
        (&[&["ragged.csv"], &ask[..]].concat(), 7, "ragged.csv:3: expected 2 cells, as the header has, found 1\n"),
        (&[&["twice.csv"], &ask[..]].concat(), 7, "twice.csv: the columns 1 and 3 are both called `id`"),
        (&[&["same.csv", "--id-column", "id"], &ask[..]].concat(), 7, "same.csv:4: id: lines 2 and 4 have the same id"),
        (&[&["nameless.csv", "--id-column", "id"], &ask[..]].concat(), 7, "nameless.csv:3: id: is empty"),
        (&[&["latin.csv"], &ask[..]].concat(), 7, "latin.csv:3: text: expected UTF-8, found other bytes"),
        (&[&["empty.csv"], &ask[..]].concat(), 7, "empty.csv: is empty: expected a table"),
        (&[&["header.csv"], &ask[..]].concat(), 7, "header.csv: there are no rows in it; nothing was enqueued"),
        (
            &["braces.csv", "--prompt", "{a{b}}"],
            2,
            "--prompt: `{a{b}}` is not a name in braces; `{{` and `}}` stand for \
          braces",
        ),
        (&[&["batch.jsonl"], &ask[..]].concat(), 7, "batch.jsonl:1: body: is of a request, and no column"),
        (&[&["cut.parquet"], &ask[..]].concat(), 7, "cut.parquet: is no Parquet file, or one that was cut short"),
        (&["rows.csv", "--template", "plain.json"], 7, "--template: plain.json: expected JSON: expected ident"),
        (
            &["rows.csv", "--template", "braced.json"],
            7,
            "--template: braced.json: messages[0].content: `{text` is not a \
          name in braces",
        ),
        (&["rows.csv", "--template", "none.json"], 7, "--template: none.json: No such file"),
        (&["rows.csv"], 7, "rows.csv: has no column `prompt`: say with --prompt what is asked of each row"),
        (&["rows.csv", "--prompt", "Classify"], 7, "rows.csv: --prompt names no column"),
        (&[&["rows.csv", "--template", "x.json"], &ask[..]].concat(), 2, "cannot be used with"),
    ] {
        let said = desk.refused(&[&["enqueue"], arguments].concat(), status).await;
        assert!(said.contains(words), "{arguments:?}:\n{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // A bad row is left out where that is asked for, and a file that breaks off is not.
    let some = ["enqueue", "same.csv", "--id-column", "id", "--skip-bad", "--prompt", "Is {text}?", "--format", "csv"];
    assert_eq!(desk.program.output(&some).await, "batch,jobs,existing,faulty,enqueue\nsame,2,0,1,1\n");
    let said = desk.refused(&["enqueue", "quote.csv", "--skip-bad", "--prompt", "Is {text}?"], 7).await;
    assert!(said.contains("nothing was enqueued"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_a_table_when_that_is_said() {
    let desk = Desk::new("1ms").await;
    let ask = ["--prompt", "Is {text}?", "--id-column", "id"];
    let arguments = [&["enqueue", "-", "--input-format", "csv", "--batch", "b", "--format", "csv"], &ask[..]].concat();
    let mut child = desk.program.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(ROWS.as_bytes()).await.unwrap();
    let output = ended(child).await;
    assert_eq!(text(&output.stdout), "batch,jobs,existing,faulty,enqueue\nb,3,0,0,1\n", "{}", text(&output.stderr));
    // The estimate and the dry run read a table as the enqueue does.
    desk.program.file("rows.csv", ROWS);
    let estimated = desk.program.output(&[&["estimate", "rows.csv", "--format", "json"], &ask[..]].concat()).await;
    assert_eq!(serde_json::from_str::<Value>(&estimated).unwrap()[0]["jobs"], 3, "{estimated}");
    let checked = desk.program.output(&[&["enqueue", "rows.csv", "--dry-run"], &ask[..]].concat()).await;
    assert_eq!(checked, "batch\tjobs\texisting\tfaulty\tenqueue\nrows\t3\t0\t0\t\n");
    assert_eq!(desk.jobs().await, 3);
}
