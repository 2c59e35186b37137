//! Answers beside the rows of the author's own file: all of her rows, in her order.

use super::sheet::Sheet;
use super::{Counts, each_of_batch, no_table};
use crate::cli::failure::CommandFailure;
use crate::domain::counted::counted;
use crate::domain::raw_object::RawObject;
use crate::domain::written_number;
use crate::input::{AuthorCell, AuthorRows, InputError, InputFormat, InputSource, ReadLimits};
use crate::printable::on_one_line;
use crate::store::Store;
use crate::store::results::ExportedJob;
use crate::view::flat_row::{FlatCell, Kinds, Layout, RowJob, Survey};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Rows whose jobs are read together: few, because their answers are in memory.
const ROWS: usize = 200;

/// The column that holds the custom ids where no other is named.
const USUAL_ID: &str = "custom_id";

/// A file of rows.
pub(super) struct Rows {
    name: String,
    file: PathBuf,
    of: RowsOf,
    table: AuthorRows,
    /// The column with the custom ids; `None`: rows are known by their content.
    id: Option<usize>,
    /// How many rows are written.
    limit: u64,
    /// Rows that could not be read and were left out.
    unreadable: u64,
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
    /// Whether rows are left out that are in no order.
    pub skips_bad: bool,
    /// Whether rows are left out that have no job, as those of a run that enqueued only the rows that were in order.
    pub skips_absent: bool,
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
        let (file, limit) = (file.to_owned(), of.limit.unwrap_or(u64::MAX));
        Ok(Self { name, file, of: of.clone(), table: rows, id, limit, unreadable: 0 })
    }

    /// What kinds of values its columns have. Reads the file once more, unless every cell of it is a text.
    pub(super) fn kinds(&self) -> anyhow::Result<Kinds> {
        let mut kinds = Kinds::none(self.header().len());
        if self.table.is_text() {
            return Ok(kinds);
        }
        let mut rows = Self::open(&self.file, &self.of)?;
        while let Some(row) = rows.next()? {
            kinds.look(&row.into_iter().map(flat).collect::<Vec<_>>());
        }
        Ok(kinds)
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
                Some(Err(InputError::Line(_))) if self.of.skips_bad => self.unreadable += 1,
                Some(Err(error @ InputError::Line(_))) => {
                    let advice = "--skip-bad leaves such rows out, as they were left out of the batch";
                    return Err(CommandFailure::input(format!("{}:{error} ({advice})", self.name)).into());
                }
                Some(Err(error)) => return Err(CommandFailure::input(format!("{}:{error}", self.name)).into()),
            }
        }
        Ok(None)
    }

    /// Writes each row with the job that was made of it, and returns the mismatches, in words.
    pub(super) async fn join(
        mut self,
        of: &Batch<'_>,
        layout: &Layout,
        sheet: &mut dyn Sheet,
        mut jobs: Index,
    ) -> anyhow::Result<Vec<String>> {
        let (mut absent, mut changed, mut others) = (0_u64, 0_u64, 0_u64);
        loop {
            let mut rows = Vec::with_capacity(ROWS);
            while rows.len() < ROWS {
                let Some(row) = self.next()? else { break };
                let jobs = jobs.take(&row);
                if jobs.is_empty() && self.of.skips_absent {
                    (absent, self.limit) = (absent + 1, self.limit.saturating_add(1));
                    continue;
                }
                rows.push((row, jobs));
            }
            if rows.is_empty() {
                break;
            }
            let numbers: Vec<i64> = rows.iter().flat_map(|(_, jobs)| jobs).copied().collect();
            let mut found: HashMap<i64, ExportedJob> = HashMap::with_capacity(numbers.len());
            for job in of.store.export_jobs(of.name, &numbers).await? {
                found.insert(job.job, job);
            }
            for (row, jobs) in rows {
                let jobs: Vec<ExportedJob> = jobs.iter().filter_map(|job| found.remove(job)).collect();
                let own = jobs.iter().find(|job| self.is_of(&row, job));
                let beside = match own {
                    Some(job) => RowJob::Own(job),
                    None if jobs.is_empty() => RowJob::Absent,
                    None => RowJob::Changed,
                };
                absent += u64::from(matches!(beside, RowJob::Absent));
                changed += u64::from(matches!(beside, RowJob::Changed));
                others += u64::try_from(jobs.len().saturating_sub(1)).unwrap_or(0);
                let hers: Vec<FlatCell> = row.into_iter().map(flat).collect();
                sheet.write(layout, &layout.row_beside(&hers, beside)?)?;
            }
        }
        Ok(self.remarks(of.name, [absent, changed, others, jobs.left()]))
    }

    /// The mismatches, in words.
    fn remarks(&self, batch: &str, [absent, changed, others, left]: [u64; 4]) -> Vec<String> {
        let (batch, name) = (on_one_line(batch), &self.name);
        let absent_words = if self.of.skips_absent {
            let rows = counted(absent, "row of", "rows of");
            let are = if absent == 1 { "has no job, and is" } else { "have no job, and are" };
            format!("{rows} {name} {are} left out")
        } else {
            let rows = counted(absent, "row has", "rows have");
            format!("{rows} no job in batch {batch}: their state is `absent`")
        };
        let are = |count: u64, one: &'static str, many: &'static str| if count == 1 { one } else { many };
        let all = [
            (
                self.unreadable,
                format!(
                    "{} {name} cannot be read, and {} left out",
                    counted(self.unreadable, "row of", "rows of"),
                    are(self.unreadable, "is", "are")
                ),
            ),
            (absent, absent_words),
            (
                changed,
                format!(
                    "{} {name} {} other cells than the row that was enqueued under the same custom_id: the state is \
                     `changed`, and the answer to the other row is left out (`sluice results` without --rows has it)",
                    counted(changed, "row of", "rows of"),
                    are(changed, "has", "have"),
                ),
            ),
            (
                others,
                format!(
                    "{} another job of the same custom_id, and {} left out",
                    counted(others, "job of the batch stands behind", "jobs of the batch stand behind"),
                    are(others, "is", "are")
                ),
            ),
            (
                left,
                format!(
                    "{} no row in {name}, and {} left out",
                    counted(left, "job of the batch has", "jobs of the batch have"),
                    are(left, "is", "are")
                ),
            ),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect()
    }

    /// Whether a job that has the row's `custom_id` was made of this row: every column that its metadata has is the
    /// same. Rows that are known by their content need no second look.
    fn is_of(&self, row: &[AuthorCell], job: &ExportedJob) -> bool {
        self.id.is_none() || agrees(self.header(), row, job)
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
        AuthorCell::NotFinite(word) => FlatCell::NotFinite(word),
    }
}

/// Whether all cells of a row that a job's metadata has, too, say the same there.
fn agrees(header: &[String], row: &[AuthorCell], job: &ExportedJob) -> bool {
    let Some(metadata) = job.metadata.as_deref().and_then(RawObject::read) else { return true };
    header.iter().zip(row).all(|(name, own)| metadata.get(name).is_none_or(|kept| is_same(own, kept)))
}

/// Whether a cell is the member of the metadata that was made of it. The database spells numbers and lists anew.
fn is_same(own: &AuthorCell, kept: &str) -> bool {
    let (text, known) = (own.as_text(), cell(Some(kept)));
    text == known
        || (!kept.starts_with('"') && written_number::same(text, kept))
        || match own {
            AuthorCell::Json(json) => {
                let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
                json.starts_with(['[', '{']) && value(json) == value(kept)
            }
            AuthorCell::Empty | AuthorCell::Text(_) | AuthorCell::NotFinite(_) => false,
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
    /// Jobs that have no key, so no row can be theirs.
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
            // A row that was added once more, or has taken the place of another: its last job goes first.
            if let Some(earlier) = self.first.insert(key, job) {
                self.more.entry(key).or_default().push_front(earlier);
            }
        } else if *self.first.entry(key).or_insert(job) != job {
            self.more.entry(key).or_default().push_back(job);
        }
    }

    /// The jobs that may be that of a row, the likeliest first. Rows that are the same have jobs of their own, in their
    /// order; of rows with the same id only the first has any.
    fn take(&mut self, row: &[AuthorCell]) -> Vec<i64> {
        let cell = |place: usize| row.get(place).map_or("", AuthorCell::as_text);
        let key = match self.id {
            Some(id) => hash([("", cell(id))].into_iter()),
            None => hash(self.compared.iter().map(|(place, name)| (name.as_str(), cell(*place)))),
        };
        let Some(job) = self.first.remove(&key) else { return Vec::new() };
        if self.id.is_some() {
            return std::iter::once(job).chain(self.more.remove(&key).unwrap_or_default()).collect();
        }
        if let Some(next) = self.more.get_mut(&key).and_then(VecDeque::pop_front) {
            self.first.insert(key, next);
        }
        vec![job]
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
    fn a_row_has_the_jobs_of_its_id_with_the_last_in_front() {
        let jobs = [job(1, Some("a"), "{}"), job(2, Some("b"), "{}"), job(3, Some("a"), "{}"), job(4, None, "{}")];
        let mut index = index(Some(0), &header(), &jobs);
        let mut take = |id: &str| index.take(&row([id, "x"]));
        assert_eq!(["a", "a", "c"].map(&mut take), [vec![3, 1], vec![], vec![]]);
        assert_eq!(index.left(), 2, "that of `b`, and the nameless one");
    }

    #[test]
    fn rows_without_ids_are_known_by_what_the_metadata_has_of_them() {
        let jobs =
            [job(1, None, r#"{"text":"Hi","id":null}"#), job(2, None, r#"{"text":"Hi","id":7}"#), job(3, None, "[]")];
        let mut index = index(None, &header(), &jobs);
        let mut take = |id: &str, text: &str| index.take(&row([id, text]));
        assert_eq!((take("7", "Hi"), take("", "Hi")), (vec![2], vec![1]));
        assert_eq!((take("", "Hi"), take("", "Ho")), (vec![], vec![]));
        assert_eq!(index.left(), 1);
    }

    #[test]
    fn a_job_is_that_of_a_row_whose_cells_it_has() {
        let json = |json: &str| AuthorCell::Json(json.to_owned());
        let text = |text: &str| AuthorCell::Text(text.to_owned());
        for (own, kept, is_that) in [
            (text("good"), r#""good""#, true),
            (text("good"), r#""bad""#, false),
            (text("12.340"), r#""12.34""#, false),
            // The database, or another format of the same table, spells it otherwise.
            (json("1e3"), "1000", true),
            (text("12.340"), "12.34", true),
            (json("9007199254740993"), "9007199254740992", false),
            (json(r#"{"b":[1,  2],"a":null}"#), r#"{"a": null, "b": [1, 2]}"#, true),
            (json("[1]"), "[2]", false),
            (json("true"), "false", false),
            (AuthorCell::Empty, "null", true),
            (AuthorCell::NotFinite("NaN"), "null", true),
            (text(""), "null", true),
            (AuthorCell::Empty, "1", false),
        ] {
            let job = job(1, Some("a"), &format!("{{\"text\":{kept},\"other\":7}}"));
            assert_eq!(agrees(&header(), &[text("a"), own.clone()], &job), is_that, "{own:?} {kept}");
        }
        assert!(agrees(&header(), &row(["a", "x"]), &job(1, Some("a"), "{}")), "nothing was kept to compare it with");
    }
}
