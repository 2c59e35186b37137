//! Answers beside the rows of the author's own file: all of her rows, in her order.

use super::sheet::Sheet;
use super::{Counts, each_of_batch, no_table};
use crate::cli::failure::CommandFailure;
use crate::domain::counted::counted;
use crate::domain::raw_object::RawObject;
use crate::input::{AuthorCell, AuthorRows, InputError, InputFormat, InputSource, ReadLimits};
use crate::printable::on_one_line;
use crate::store::Store;
use crate::store::results::ExportedJob;
use crate::view::flat_row::{FlatCell, Layout, Survey};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Rows whose jobs are read together: few, because their answers are in memory.
const ROWS: usize = 200;

/// The column that holds the custom ids where no other is named.
const USUAL_ID: &str = "custom_id";

/// A file of rows.
pub(super) struct Rows {
    name: String,
    table: AuthorRows,
    /// The column with the custom ids; `None`: rows are known by their content.
    id: Option<usize>,
    /// How many rows are written, and whether those that are in no order are left out.
    limit: u64,
    skips_bad: bool,
}

/// How the author's own file is read.
#[derive(Clone, Debug, Default)]
pub struct RowsOf {
    /// The column with the custom ids; without it `custom_id`, if there is such a column.
    pub id_column: Option<String>,
    pub format: Option<InputFormat>,
    pub delimiter: Option<u8>,
    pub limits: ReadLimits,
    /// Only so many rows.
    pub limit: Option<u64>,
    /// Whether rows that are in no order are left out.
    pub skips_bad: bool,
}

impl Rows {
    /// Opens a table: CSV, TSV, JSON Lines or Parquet.
    ///
    /// # Errors
    /// [`CommandFailure`] when it cannot be read, or has no such column.
    pub(super) fn open(file: &Path, of: &RowsOf) -> Result<Self, CommandFailure> {
        let source = InputSource::new(Some(file));
        let name = source.name();
        let fault = |told: &dyn std::fmt::Display| CommandFailure::input(format!("{name}: {told}"));
        let rows = source.author_rows(of.format, of.delimiter, of.limits).map_err(|error| fault(&error))?;
        let header = rows.header();
        let id = match &of.id_column {
            Some(wanted) => Some(header.iter().position(|name| name == wanted).ok_or_else(|| {
                fault(&format_args!("--id-column: there is no column {wanted:?}; there are {}", header.join(", ")))
            })?),
            None => header.iter().position(|name| name == USUAL_ID),
        };
        Ok(Self { name, table: rows, id, limit: of.limit.unwrap_or(u64::MAX), skips_bad: of.skips_bad })
    }

    /// The next row, if there is one.
    fn next(&mut self) -> anyhow::Result<Option<Vec<AuthorCell>>> {
        while self.limit > 0 {
            match self.table.next() {
                None => break,
                Some(Ok(row)) => {
                    self.limit -= 1;
                    return Ok(Some(row));
                }
                Some(Err(InputError::Line(_))) if self.skips_bad => {}
                Some(Err(error)) => return Err(CommandFailure::input(format!("{}:{error}", self.name)).into()),
            }
        }
        Ok(None)
    }

    /// Writes each row with the job that was made of it, and returns what did not fit together, in words.
    pub(super) async fn join(
        mut self,
        of: &Batch<'_>,
        layout: &Layout,
        sheet: &mut dyn Sheet,
        mut jobs: Index,
    ) -> anyhow::Result<Vec<String>> {
        let mut absent = 0_u64;
        loop {
            let mut rows = Vec::with_capacity(ROWS);
            while rows.len() < ROWS {
                let Some(row) = self.next()? else { break };
                let job = jobs.take(&row);
                rows.push((row, job));
            }
            if rows.is_empty() {
                break;
            }
            let numbers: Vec<i64> = rows.iter().filter_map(|(_, job)| *job).collect();
            let mut found: HashMap<i64, ExportedJob> = HashMap::with_capacity(numbers.len());
            for job in of.store.export_jobs(of.name, &numbers).await? {
                found.insert(job.job, job);
            }
            for (row, job) in rows {
                let job = job.and_then(|job| found.remove(&job));
                absent += u64::from(job.is_none());
                let hers: Vec<FlatCell> = row.into_iter().map(flat).collect();
                sheet.write(layout, &layout.row_beside(&hers, job.as_ref())?)?;
            }
        }
        let mut remarks = Vec::new();
        if absent > 0 {
            let rows = counted(absent, "row has", "rows have");
            remarks.push(format!("{rows} no job in batch {}: their state is `absent`", on_one_line(of.name)));
        }
        let left = jobs.left();
        if left > 0 {
            let jobs = counted(left, "job of the batch has", "jobs of the batch have");
            remarks.push(format!("{jobs} no row in {}, and are left out", self.name));
        }
        Ok(remarks)
    }

    /// The names of its columns.
    pub(super) fn header(&self) -> &[String] {
        self.table.header()
    }
}

/// A cell of hers as a cell of the table.
fn flat(cell: AuthorCell) -> FlatCell {
    match cell {
        AuthorCell::Empty => FlatCell::Empty,
        AuthorCell::Text(text) => FlatCell::Verbatim(text),
        AuthorCell::Json(json) => FlatCell::Json(json),
    }
}

/// Whose jobs are read.
pub(super) struct Batch<'a> {
    pub store: &'a Store,
    pub name: &'a str,
    pub login: Option<&'a str>,
}

/// The jobs of a batch by what tells their rows. Takes about 40 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The column with the custom ids.
    id: Option<usize>,
    /// The columns by which content is compared, by their names; empty where there are ids.
    compared: Vec<(usize, String)>,
    /// 128 bits of a hash: the chance that two among ten million are confused is below 10⁻²⁴.
    first: HashMap<u128, i64>,
    /// Further jobs of the same key.
    more: HashMap<u128, VecDeque<i64>>,
    /// Jobs that have no key, or one that a later job has too, so no row can be theirs.
    nameless: u64,
}

impl Index {
    /// Reads the batch: the keys of its jobs, how they ended, and the columns of the answers.
    ///
    /// # Errors
    /// [`CommandFailure`] when rows and jobs have nothing by which they could be matched.
    pub(super) async fn read(rows: &Rows, of: &Batch<'_>, survey: &mut Survey) -> anyhow::Result<(Self, Counts)> {
        let mut index = Self { id: rows.id, ..Self::default() };
        let mut counts = Counts::default();
        each_of_batch(of.store, of.name, of.login, |job| {
            survey.look(&job).map_err(no_table)?;
            if counts.total() == 0 && index.id.is_none() {
                index.compared = compared(rows.header(), &job);
                if index.compared.is_empty() {
                    return Err(CommandFailure::usage(format!(
                        "--rows {}: no column of it is in the metadata of the jobs of batch {}, so rows and jobs \
                         cannot be matched by content. Name the column that holds the custom_id with --id-column",
                        rows.name,
                        on_one_line(of.name)
                    ))
                    .into());
                }
            }
            counts.note(&job);
            if job.is_replaced {
                return Ok(());
            }
            match index.key_of_job(&job) {
                None => index.nameless += 1,
                Some(key) => index.insert(key, job.job),
            }
            Ok(())
        })
        .await?;
        Ok((index, counts))
    }

    fn insert(&mut self, key: u128, job: i64) {
        if self.id.is_some() {
            // A row that was added once more, or has taken the place of another: its last job counts.
            if self.first.insert(key, job).is_some() {
                self.nameless += 1;
            }
        } else if *self.first.entry(key).or_insert(job) != job {
            self.more.entry(key).or_default().push_back(job);
        }
    }

    /// The job of a row. Rows that are the same have jobs of their own, in their order.
    fn take(&mut self, row: &[AuthorCell]) -> Option<i64> {
        let cell = |place: usize| row.get(place).map_or("", AuthorCell::as_text);
        let key = match self.id {
            Some(id) => hash([("", cell(id))].into_iter()),
            None => hash(self.compared.iter().map(|(place, name)| (name.as_str(), cell(*place)))),
        };
        let job = self.first.remove(&key)?;
        if let Some(next) = self.more.get_mut(&key).and_then(VecDeque::pop_front) {
            self.first.insert(key, next);
        }
        Some(job)
    }

    fn key_of_job(&self, job: &ExportedJob) -> Option<u128> {
        if self.id.is_some() {
            return job.custom_id.as_deref().map(|id| hash([("", id)].into_iter()));
        }
        let metadata = job.metadata.as_deref().and_then(RawObject::read)?;
        let cells: Vec<String> = self.compared.iter().map(|(_, name)| cell(metadata.get(name))).collect();
        Some(hash(self.compared.iter().zip(&cells).map(|((_, name), cell)| (name.as_str(), cell.as_str()))))
    }

    /// How many jobs have had no row.
    fn left(&self) -> u64 {
        let more: usize = self.more.values().map(VecDeque::len).sum();
        self.nameless + u64::try_from(self.first.len() + more).unwrap_or(u64::MAX)
    }
}

/// The columns of a file that are members of a job's metadata.
fn compared(header: &[String], job: &ExportedJob) -> Vec<(usize, String)> {
    let metadata = job.metadata.as_deref().and_then(RawObject::read).unwrap_or_default();
    let is_there = |name: &String| metadata.get(name).is_some();
    header.iter().enumerate().filter(|(_, name)| is_there(name)).map(|(place, name)| (place, name.clone())).collect()
}

/// A member of metadata as the cell of a row.
fn cell(value: Option<&str>) -> String {
    match value {
        None | Some("null") => String::new(),
        Some(json) if json.starts_with('"') => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
        Some(json) => json.to_owned(),
    }
}

fn hash<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> u128 {
    let mut halves = [DefaultHasher::new(), DefaultHasher::new()];
    1_u8.hash(&mut halves[1]);
    for cell in cells {
        for half in &mut halves {
            cell.hash(half);
        }
    }
    let [one, other] = halves.map(|half| u128::from(half.finish()));
    one << 64 | other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: i64, custom_id: Option<&str>, metadata: &str) -> ExportedJob {
        ExportedJob {
            is_replaced: false,
            job: number,
            custom_id: custom_id.map(str::to_owned),
            enqueued_by: "app".to_owned(),
            metadata: Some(metadata.to_owned()),
            ending: None,
            attempts: 0,
            provider: None,
            model: None,
            repaired: false,
            confidence: None,
            low_confidence: false,
            cost: None,
            request_id: None,
        }
    }

    fn index(id: Option<usize>, header: &[String], jobs: &[ExportedJob]) -> Index {
        let compared = if id.is_some() { Vec::new() } else { compared(header, &jobs[0]) };
        let mut index = Index { id, compared, ..Index::default() };
        for job in jobs {
            match index.key_of_job(job) {
                None => index.nameless += 1,
                Some(key) => index.insert(key, job.job),
            }
        }
        index
    }

    fn header() -> Vec<String> {
        ["id", "text"].map(str::to_owned).to_vec()
    }

    fn row(cells: [&str; 2]) -> Vec<AuthorCell> {
        cells.map(|cell| AuthorCell::Text(cell.to_owned())).to_vec()
    }

    #[test]
    fn a_row_has_the_last_job_of_its_id() {
        let jobs = [job(1, Some("a"), "{}"), job(2, Some("b"), "{}"), job(3, Some("a"), "{}"), job(4, None, "{}")];
        let mut index = index(Some(0), &header(), &jobs);
        let mut take = |id: &str| index.take(&row([id, "x"]));
        assert_eq!(["a", "a", "a", "c"].map(&mut take), [Some(3), None, None, None]);
        assert_eq!(index.left(), 3, "the first of `a`, that of `b`, and the nameless one");
    }

    #[test]
    fn rows_without_ids_are_known_by_what_the_metadata_has_of_them() {
        let jobs =
            [job(1, None, r#"{"text":"Hi","id":null}"#), job(2, None, r#"{"text":"Hi","id":7}"#), job(3, None, "[]")];
        let mut index = index(None, &header(), &jobs);
        let mut take = |id: &str, text: &str| index.take(&row([id, text]));
        assert_eq!((take("7", "Hi"), take("", "Hi"), take("", "Hi"), take("", "Ho")), (Some(2), Some(1), None, None));
        assert_eq!(index.left(), 1);
    }
}
