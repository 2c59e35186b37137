//! The files that a run writes: whether one that exists is its own.

use super::Args;
use crate::cli::context::Context;
use crate::cli::failure::CommandFailure;
use crate::cli::out_file::{Earlier, OutFile, is_stdout};
use crate::cli::results::{Form, Shape};
use crate::input::{AuthorCell, InputFormat, InputSource, ReadLimits};
use crate::printable::on_one_line;
use crate::store::Store;
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

/// Rows that are looked at for one with a job. A row of the author's that became no job has none.
const ROWS: usize = 10_000;

/// The longest line that is looked at, in bytes.
const LINE: u64 = 64 << 20;

/// Begins the files of a run. One that holds an export of the same batch is replaced: the same command writes the same
/// file again. Edits in it are not lost: such a file is kept under another name.
///
/// # Errors
/// [`CommandFailure`] when a file holds something else, and is not to be replaced.
pub(super) async fn begin(args: &Args, form: &Form, context: &Context) -> anyhow::Result<(OutFile, Option<OutFile>)> {
    let batch = args.enqueue.batch.clone().or_else(|| InputSource::new(args.enqueue.file.as_deref()).stem());
    let output = open(&args.output, form.answers, batch.as_deref(), args.force, context).await?;
    let errors = match args.errors.as_deref() {
        Some(path) => Some(open(path, form.errors, batch.as_deref(), args.force, context).await?),
        None => None,
    };
    Ok((output, errors))
}

async fn open(
    path: &Path,
    shape: Shape,
    batch: Option<&str>,
    force: bool,
    context: &Context,
) -> anyhow::Result<OutFile> {
    let exists = !force && !is_stdout(path) && fs::metadata(path).is_ok_and(|found| found.is_file());
    if !exists {
        return OutFile::create(path, force);
    }
    if let Some(batch) = batch
        && is_export_of(path, shape, batch, &context.store).await?
    {
        return OutFile::begin(path, Earlier::IsKept);
    }
    let of = batch.map_or_else(String::new, |batch| format!(", and is no export of batch {}", on_one_line(batch)));
    Err(CommandFailure::usage(format!(
        "{} exists already{of}; nothing was enqueued. Choose another file, or add --force, which replaces it",
        path.display()
    ))
    .into())
}

/// Whether a file holds an export of this batch: its first row with a job names one of it. A file without anything in
/// it holds nothing that could be lost.
async fn is_export_of(path: &Path, shape: Shape, batch: &str, store: &Store) -> anyhow::Result<bool> {
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Ok(true);
    }
    let job = match shape {
        Shape::Openai | Shape::Jsonl => File::open(path).ok().and_then(job_of_line),
        Shape::Csv => job_of_table(path, InputFormat::Csv),
        Shape::Tsv => job_of_table(path, InputFormat::Tsv),
        Shape::Parquet => job_of_table(path, InputFormat::Parquet),
    };
    match job {
        Some(job) => Ok(store.count_in_batch(batch, &[job]).await? == 1),
        None => Ok(false),
    }
}

/// The job of the first line, as OpenAI's batches write it.
fn job_of_line(file: File) -> Option<i64> {
    #[derive(Deserialize)]
    struct Line {
        sluice: Ours,
    }
    #[derive(Deserialize)]
    struct Ours {
        job: i64,
    }
    let mut line = String::new();
    BufReader::new(file.take(LINE)).read_line(&mut line).ok()?;
    serde_json::from_str::<Line>(&line).ok().map(|line| line.sluice.job)
}

/// The job of the first row that has one.
fn job_of_table(path: &Path, format: InputFormat) -> Option<i64> {
    let rows = InputSource::new(Some(path)).author_rows(Some(format), None, ReadLimits::default()).ok()?;
    let place = |name: &str| rows.header().iter().position(|column| column == name);
    let (job, _) = (place("sluice_job").or_else(|| place("job"))?, place("sluice_state").or_else(|| place("state"))?);
    rows.take(ROWS).find_map(|row| row.ok()?.get(job).map(AuthorCell::as_text)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_known_by_the_jobs_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let table = |text: &str, format| {
            fs::write(&path, text).unwrap();
            job_of_table(&path, format)
        };
        assert_eq!(table("text,job,custom_id,state\nx,,,absent\ny,17,a,succeeded\n", InputFormat::Csv), Some(17));
        assert_eq!(table("job\tsluice_job\tstate\nbaker\t18\tfailed\n", InputFormat::Tsv), Some(18));
        assert_eq!(table("job,wage\n17,3\n", InputFormat::Csv), None, "another table");
        assert_eq!(table("", InputFormat::Csv), None);
        fs::write(&path, "{\"id\":\"batch_req_7\",\"sluice\":{\"job\":7}}\n{}\n").unwrap();
        assert_eq!(job_of_line(File::open(&path).unwrap()), Some(7));
        fs::write(&path, "{\"custom_id\":\"a\",\"body\":{}}\n").unwrap();
        assert_eq!(job_of_line(File::open(&path).unwrap()), None);
    }
}
