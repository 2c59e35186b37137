use super::*;
use crate::domain::template::RequestTemplate;
use crate::input::{InputError, InputJob};

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// The jobs of a file of this name and content.
fn read(name: &str, content: &[u8], reading: Reading) -> Result<Vec<Result<InputJob, InputError>>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    Ok(InputSource::new(Some(&path)).read(reading)?.jobs.collect())
}

fn asking() -> Asking {
    let request = RequestTemplate::parse(r#"{"prompt":"Is {text}?"}"#).unwrap();
    Asking { request: Some((request, "--prompt")), ..Asking::default() }
}

#[test]
fn a_table_is_known_by_its_ending_or_by_what_is_said_of_it() {
    let csv = b"text\nit\n";
    for (name, content, format) in [
        ("a.csv", csv.to_vec(), None),
        ("a.CSV", csv.to_vec(), None),
        ("a.csv.gz", gzip(csv), None),
        // Compressed, regardless of its name.
        ("a.csv", gzip(csv), None),
        ("a.tsv", csv.to_vec(), None),
        ("a.tsv.gz", gzip(csv), None),
        ("a", csv.to_vec(), Some(InputFormat::Csv)),
        ("a.jsonl", b"{\"text\":\"it\"}".to_vec(), None),
        ("a.jsonl.gz", gzip(b"{\"text\":\"it\"}"), None),
        // A file of objects is welcome, regardless of its name.
        ("a.csv", b"{\"text\":\"it\"}".to_vec(), None),
        ("a", b"{\"text\":\"it\"}".to_vec(), None),
    ] {
        let jobs = read(name, &content, Reading { format, asking: asking(), ..Reading::default() }).unwrap();
        let [Ok(job)] = jobs.as_slice() else { panic!("{name}: {jobs:?}") };
        assert_eq!((job.body.as_str(), job.metadata.as_deref()), (r#"{"prompt":"Is it?"}"#, Some(r#"{"text":"it"}"#)));
    }
}

#[test]
fn a_file_that_is_something_else_is_refused_in_one_sentence() {
    for (name, content, format, reason) in [
        ("a.xlsx", &b"PK"[..], None, "is a spreadsheet (xlsx), which is not read; save it as CSV"),
        ("a", b"PAR1", None, "is a Parquet file, and its name does not say so: see --input-format"),
        (
            "a",
            b"id,text\n",
            None,
            "does not begin with an object of JSON, and its name does not say what it is: see \
          --input-format",
        ),
        ("a.csv", b"", None, "is empty: expected a table, whose first row has the names of the columns"),
        (
            "a.csv",
            b"\xef\xbb\xbf\r\n",
            None,
            "is empty: expected a table, whose first row has the names of the columns",
        ),
        ("a.csv", b"\xff\xfei\0d\0", None, "is UTF-16; expected UTF-8"),
    ] {
        let told = read(name, content, Reading { format, asking: asking(), ..Reading::default() });
        assert_eq!(told.err().as_deref(), Some(reason), "{name}");
    }
    // Options of tables for a file of requests.
    let id = Asking { id_column: Some("id".to_owned()), ..Asking::default() };
    let told = read("a.jsonl", b"{\"prompt\":\"a\"}", Reading { asking: id, ..Reading::default() }).err().unwrap();
    assert!(told.contains("--id-column and --keep are for tables"), "{told}");
}
