//! A table in one of four formats, as the first byte says, and the jobs that are made of it.

use sluice::domain::template::{RequestTemplate, Template};
use sluice::input::{Asking, InputError, InputFormat, InputSource, ReadLimits, Reading};

/// A table.
pub fn run(data: &[u8]) {
    let Some((first, content)) = data.split_first() else { return };
    let format = match first % 4 {
        0 => InputFormat::Csv,
        1 => InputFormat::Tsv,
        2 => InputFormat::JsonLines,
        _ => InputFormat::Parquet,
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let source = InputSource::new(Some(file.path()));
    let prompt = RequestTemplate::of_prompt(Template::parse("What is {text}?").unwrap(), None);
    for request in [Some((prompt, "--prompt")), None] {
        let asking = Asking { request, ..Asking::default() };
        let limits = ReadLimits { line_bytes: 1 << 16 };
        match source.read(Reading { limits, format: Some(format), asking, ..Reading::default() }) {
            Ok(opened) => {
                for job in opened.jobs {
                    match job {
                        Ok(job) => {
                            let body: serde_json::Value = serde_json::from_str(&job.body).unwrap();
                            assert!(body.is_object() && !body.to_string().contains("\\u0000"), "{body}");
                            let metadata = job.metadata.as_deref().map(serde_json::from_str::<serde_json::Value>);
                            assert!(metadata.is_none_or(|metadata| metadata.unwrap().is_object()));
                        }
                        Err(InputError::Line(fault)) => assert!(fault.to_string().len() < 4_000, "{fault}"),
                        Err(InputError::Read { .. }) => {}
                    }
                }
            }
            Err(told) => assert!(told.len() < 4_000, "{told}"),
        }
    }
    // The same rows beside their answers.
    if let Ok(rows) = source.author_rows(Some(format), None, ReadLimits { line_bytes: 1 << 16 }) {
        let columns = rows.header().len();
        for row in rows.flatten() {
            assert_eq!(row.len(), columns);
        }
    }
}
