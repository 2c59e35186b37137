use super::*;
use crate::input::{Asking, Completion};
use proptest::prelude::*;

fn prompt(text: &str) -> Asking {
    let template = Template::parse(text).unwrap();
    Asking { request: Some((RequestTemplate::of_prompt(template, None), "--prompt")), ..Asking::default() }
}

fn with_id(asking: Asking, column: &str) -> Asking {
    Asking { id_column: Some(column.to_owned()), ..asking }
}

fn told(jobs: Jobs) -> Vec<Result<InputJob, String>> {
    jobs.map(|job| job.map_err(|error| error.to_string())).collect()
}

fn csv(text: &[u8], asking: Asking) -> Result<Vec<Result<InputJob, String>>, String> {
    delimited(std::io::Cursor::new(text.to_vec()), b',', 2_000, asking, Requests::default()).map(told)
}

fn jsonl(text: &str, asking: Asking) -> Vec<Result<InputJob, String>> {
    told(json_lines(std::io::Cursor::new(text.to_owned()), 2_000, asking, Requests::default()).unwrap())
}

/// Line, name, request and metadata of each job that is in order.
fn jobs(found: &[Result<InputJob, String>]) -> Vec<(u64, Option<&str>, &str, &str)> {
    let job = |job: &'_ Result<InputJob, String>| job.as_ref().ok().cloned();
    assert!(found.iter().all(|found| job(found).is_some()), "{found:?}");
    found
        .iter()
        .flatten()
        .map(|job| (job.line, job.custom_id.as_deref(), job.body.as_str(), job.metadata.as_deref().unwrap()))
        .collect()
}

#[test]
fn each_row_becomes_a_request_and_its_columns_go_along() {
    let text = "\u{feff}id,text,label\r\n7,\"a \"\"good\"\"\r\none\",x\r\n\r\n8,\"b, c\",\r\n";
    let found = csv(text.as_bytes(), with_id(prompt("Is {text}?"), "id")).unwrap();
    assert_eq!(
        jobs(&found),
        [
            (
                2,
                Some("7"),
                "{\"prompt\":\"Is a \\\"good\\\"\\r\\none?\"}",
                "{\"text\":\"a \\\"good\\\"\\r\\none\",\"label\":\"x\"}"
            ),
            (5, Some("8"), "{\"prompt\":\"Is b, c?\"}", "{\"text\":\"b, c\",\"label\":\"\"}"),
        ]
    );
}

#[test]
fn without_a_template_the_column_prompt_is_asked_and_custom_id_is_the_name() {
    let text = b"custom_id,prompt,temperature\na,Hi,36.6\n";
    let found = csv(text, Asking::default()).unwrap();
    let expected = (2, Some("a"), r#"{"prompt":"Hi"}"#, r#"{"prompt":"Hi","temperature":"36.6"}"#);
    assert_eq!(jobs(&found), [expected]);
    let system = Some(Template::parse("It is {temperature} degrees.").unwrap());
    let found = csv(text, Asking { system, ..Asking::default() }).unwrap();
    assert!(jobs(&found)[0].2.starts_with(r#"{"messages":[{"role":"system","content":"It is 36.6 degrees."},"#));
    let keep = Some(vec!["custom_id".to_owned(), "temperature".to_owned()]);
    let found = csv(text, Asking { keep, ..Asking::default() }).unwrap();
    assert_eq!(jobs(&found)[0].3, r#"{"custom_id":"a","temperature":"36.6"}"#);
}

#[test]
fn rows_go_into_the_template_of_the_route_where_it_has_one() {
    let route = |names: &[&str]| Asking {
        route_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Asking::default()
    };
    let read = |text: &str, asking: Asking| {
        delimited(std::io::Cursor::new(text.to_owned()), b',', 2_000, asking, Requests::new(Completion::Unknown))
            .map(told)
    };
    let found = read("id,text\n1,a\n", with_id(route(&["text"]), "id")).unwrap();
    assert_eq!(jobs(&found), [(2, Some("1"), r#"{"vars":{"text":"a"}}"#, r#"{"text":"a"}"#)]);
    // The row's own prompt goes first, unless the template names that column.
    assert_eq!(jobs(&read("prompt\nHi\n", route(&["text"])).unwrap())[0].2, r#"{"prompt":"Hi"}"#);
    assert_eq!(jobs(&read("prompt\nHi\n", route(&["prompt"])).unwrap())[0].2, r#"{"vars":{"prompt":"Hi"}}"#);
    assert_eq!(
        read("id,txt\n1,a\n", route(&["text"])).unwrap_err(),
        "the template of the route names the column `text`, which there is not. There are: `id`, `txt`; perhaps `txt` \
         is meant"
    );
}

#[test]
fn a_header_that_does_not_go_with_what_is_asked_is_told_before_any_row() {
    for (header, asking, reason) in [
        (
            "id,text,label",
            prompt("Is {txt}?"),
            "--prompt names the column `txt`, which there is not. There are: `id`, `text`, `label`; perhaps `text` is \
             meant",
        ),
        ("a,b", prompt("{price}"), "--prompt names the column `price`, which there is not. There are: `a`, `b`"),
        (
            "id;text",
            prompt("Is {text}?"),
            "--prompt names the column `text`, which there is not. There are: `id;text`. The cells seem to be \
             separated by ';': see --delimiter",
        ),
        (
            "a,b",
            with_id(prompt("{a}"), "c"),
            "--id-column names the column `c`, which there is not. There are: `a`, `b`",
        ),
        (
            "a,b",
            Asking { keep: Some(vec!["A".to_owned()]), ..prompt("{a}") },
            "--keep names the column `A`, which there is not. There are: `a`, `b`; perhaps `a` is meant",
        ),
        ("id,text,text", prompt("{text}"), "the columns 2 and 3 are both called `text`; expected each name once"),
        (",text,", prompt("{text}"), "the columns 1 and 3 are both called ``; expected each name once"),
        (
            "a,b",
            Asking::default(),
            "has no column `prompt`: say with --prompt what is asked of each row, such as --prompt 'Classify: {b}'. \
             There are: `a`, `b`",
        ),
        (
            "a,b",
            prompt("Classify"),
            "--prompt names no column, so every row would ask the same; `{text}` stands for the column `text`. There \
             are: `a`, `b`",
        ),
        ("a,\"b", prompt("{a}"), "line 1: the quote that opens here is never closed"),
        ("a,b{c}", prompt("{b}"), "--prompt names the column `b`, which there is not. There are: `a`, `b{c}`"),
    ] {
        assert_eq!(
            csv(format!("{header}\n1,2,3\n").as_bytes(), asking).map(|_| ()),
            Err(reason.to_owned()),
            "{header}"
        );
    }
    assert!(csv(b"a,\xff\n", prompt("{a}")).unwrap_err().starts_with("line 1: expected UTF-8 in the names"));
    // A column that has braces in its name, or none, goes along like any other.
    let found = csv(b",b{c},text\n0,1,x\n", prompt("{text}")).unwrap();
    assert_eq!(jobs(&found)[0].3, r#"{"":"0","b{c}":"1","text":"x"}"#);
}

#[test]
fn a_bad_row_is_told_with_its_line_and_the_next_is_read() {
    let text =
        "id,text\n1,a\n2,\"two\nlines\"\n\n3\n4,d,e\n7,\"broken\n8,\"fine\"\n9,\"x\" y\n1,again\n,f\n10,\n11,g\n";
    let found = csv(text.as_bytes(), with_id(prompt("Is {text}?"), "id")).unwrap();
    let lines: Vec<Result<u64, &str>> =
        found.iter().map(|job| job.as_ref().map(|job| job.line).map_err(String::as_str)).collect();
    assert_eq!(
        lines,
        [
            Ok(2),
            Ok(3),
            Err("6: expected 2 cells, as the header has, found 1"),
            Err("7: expected 2 cells, as the header has, found 3; a cell with a delimiter in it stands in quotes"),
            Err("8: text: the quote that opens here closes on line 9 before more text; expected the end of the cell \
                 there, or two quotes for one that belongs to the text"),
            Err("10: text: the quote that opens here closes before more text; expected the end of the cell there, or \
                 two quotes for one that belongs to the text"),
            Err("11: id: lines 2 and 11 have the same id; expected each only once"),
            Err("12: id: is empty; expected an id of 1 to 512 bytes"),
            Ok(13),
            Ok(14),
        ]
    );
    let Some(Ok(InputJob { notes, .. })) = found.get(8) else { panic!("{found:?}") };
    assert_eq!(notes.as_slice(), [MemberNote::Empty("text".to_owned())]);
}

#[test]
fn a_quote_that_is_never_closed_ends_the_reading() {
    let text = "id,text\n1,a\n2,b\n3,c\n4,d\n5,e\n6,\"f\n7,g\n8,h\n";
    let found = csv(text.as_bytes(), prompt("{text}")).unwrap();
    assert_eq!(found.len(), 6);
    let told = found[5].as_ref().unwrap_err();
    assert_eq!(told, "7: cannot be read any further: the quote in the column `text` is never closed");
    // A long one is not read to its end.
    let long = text.replace("8,h\n", &"8,h\n".repeat(1_000));
    let found = csv(long.as_bytes(), prompt("{text}")).unwrap();
    assert_eq!(found.len(), 6);
    let told = found[5].as_ref().unwrap_err();
    assert_eq!(told, "7: cannot be read any further: the quote that opens here is not closed within 2000 bytes");
}

#[test]
fn what_cannot_be_sent_or_stored_is_told_by_its_column() {
    let long = format!("id,text\n1,\"{}\"\n", "x".repeat(600));
    for (text, column, fault) in [
        (&b"id,text\n1,\"a\n\xe9\"\n"[..], "id", "3: text: expected UTF-8, found other bytes; `iconv"),
        (b"id,text\n1,a\0\n", "id", "2: text: contains NUL, which Postgres cannot store"),
        (b"id,text\n1,\n", "id", "2: request.prompt: expected a string that is not empty, found an empty string"),
        (long.as_bytes(), "text", "2: text: has 600 bytes; expected an id of at most 512"),
    ] {
        let found = csv(text, with_id(prompt("{text}"), column)).unwrap();
        let told = found[0].as_ref().unwrap_err();
        assert!(told.starts_with(fault), "{told}");
    }
}

#[test]
fn a_json_lines_table_keeps_the_kinds_of_its_values() {
    let template = RequestTemplate::parse(
        r#"{"messages":[{"role":"user","content":"{text}"}],"max_tokens":"{cap}","stop":"{stops}"}"#,
    )
    .unwrap();
    let asking = Asking { request: Some((template, "--template")), ..Asking::default() };
    let text = concat!(
        r#"{"custom_id": 5, "text": 1.50, "cap": 9, "stops": ["a"], "more": {"b": null}}"#,
        "\n\n",
        r#"{"text": "x", "cap": 9, "stops": null}"#,
        "\n"
    );
    let found = jsonl(text, asking);
    assert_eq!(
        jobs(&found),
        [
            (
                1,
                Some("5"),
                r#"{"messages":[{"role":"user","content":"1.50"}],"max_tokens":9,"stop":["a"]}"#,
                r#"{"text":1.50,"cap":9,"stops":["a"],"more":{"b": null}}"#
            ),
            (
                3,
                None,
                r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":9,"stop":null}"#,
                r#"{"text":"x","cap":9,"stops":null}"#
            ),
        ]
    );
}

#[test]
fn a_bad_row_of_json_is_told_with_its_line() {
    let request = "is of a request, and no column: the line is a whole request already. Leave out --prompt and \
                   --template";
    for (line, fault) in [
        (
            r#"{"id":1,"txt":"a"}"#,
            "1: text: is missing, and the template names it. There are: `id`, `txt`; perhaps \
          `txt` is meant"
                .to_owned(),
        ),
        (r#"{"text":"a"}"#, "1: id: is missing, and --id-column names it".to_owned()),
        ("[1]", "1: expected an object, whose members are the columns of a row".to_owned()),
        (r#"{"id":1,"text":"a"#, "1: expected JSON: EOF while parsing a string at column 17".to_owned()),
        (r#"{"id":null,"text":"a"}"#, "1: id: is empty; expected an id of 1 to 512 bytes".to_owned()),
        (r#"{"id":1,"text":"a\u0000"}"#, "1: text: contains NUL (\\u0000), which Postgres cannot store".to_owned()),
        (r#"{"custom_id":"a","url":"/v1/chat/completions","body":{"prompt":"x"}}"#, format!("1: body: {request}")),
        (r#"{"messages":[{"role":"user","content":"x"}]}"#, format!("1: messages: {request}")),
    ] {
        let found = jsonl(line, with_id(prompt("{text}"), "id"));
        assert_eq!(found, [Err(fault)], "{line}");
    }
    // A column may be called like a member of a request.
    let found = jsonl(r#"{"body":"long text","url":"https://x.example","id":1}"#, with_id(prompt("{body}"), "id"));
    assert_eq!(jobs(&found)[0].2, r#"{"prompt":"long text"}"#);
}

proptest! {
    /// The cells that a writer of CSV puts into a file come out of it, regardless of their content.
    #[test]
    fn any_cells_are_read_as_they_were_written(
        rows in prop::collection::vec(("[^\\x00]{1,8}", "[^\\x00]{0,8}"), 1..6)
    ) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "other"]).unwrap();
        for (text, other) in &rows {
            writer.write_record([text, other]).unwrap();
        }
        let written = writer.into_inner().unwrap();
        let found = csv(&written, prompt("<{text}>")).unwrap();
        prop_assert_eq!(found.len(), rows.len());
        for (job, (text, other)) in found.iter().zip(&rows) {
            let job = job.as_ref().unwrap();
            let body: Value = serde_json::from_str(&job.body).unwrap();
            prop_assert_eq!(&body["prompt"], &Value::from(format!("<{text}>")));
            let metadata: Value = serde_json::from_str(job.metadata.as_ref().unwrap()).unwrap();
            prop_assert_eq!(&metadata["other"], &Value::from(other.as_str()));
        }
    }

    #[test]
    fn any_bytes_give_rows_and_faults(text in "[ab,\"\r\n;{}]{0,60}", tail in any::<Vec<u8>>()) {
        let bytes = [b"text,b\n", text.as_bytes(), &tail].concat();
        let first = csv(&bytes, prompt("{text}"));
        prop_assert_eq!(&first, &csv(&bytes, prompt("{text}")));
    }
}

#[cfg(feature = "parquet")]
mod parquet_files;
