//! Answers as they come, until a batch is done.

use super::growing::{Begins, GrowingFile, NOT_OURS};
use super::numbers::Numbers;
use super::shape::Shape;
use super::{Counts, no_table, sheet};
use crate::cli::batch::find;
use crate::cli::failure::CommandFailure;
use crate::cli::output::OutputError;
use crate::domain::raw_object::RawObject;
use crate::store::Store;
use crate::store::results::{EXPORT_PAGE, EndedJob};
use crate::view::flat_row::{Fields, Layout, Survey};
use crate::view::result_line::LineView;
use serde::Deserialize;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the sums of the batch are read.
const LOOK: Duration = Duration::from_millis(500);

/// Pages that one look reads at the front, where jobs end next as a rule, and further back, where a few do.
const FRONT_PAGES: u32 = 5;
const FURTHER_PAGES: u32 = 20;

/// Answers that are read together: few, because they are in memory.
const TOGETHER: usize = 100;

/// Numbers of jobs that are looked up together.
const LOOKED_UP: usize = 10_000;

/// How lines of the two shapes begin.
const OPENAI_BEGIN: &str = "{\"id\":\"batch_req_";
const FLAT_BEGIN: &str = "{\"";

/// The destination of lines.
pub(super) enum Sink<'a> {
    /// Standard output.
    Stream(&'a mut (dyn Write + Send)),
    File(GrowingFile),
}

impl Sink<'_> {
    fn add(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(lines).and_then(|()| stream.flush()).map_err(|error| OutputError(error).into())
            }
            Self::File(file) => file.add(lines),
        }
    }

    /// Writes the head of a table. A file has it since it was opened.
    fn begin(&mut self, head: &[u8]) -> anyhow::Result<()> {
        if matches!(self, Self::Stream(_)) { self.add(head) } else { Ok(()) }
    }

    fn end(&self) -> anyhow::Result<()> {
        match self {
            Self::Stream(_) => Ok(()),
            Self::File(file) => file.sync(),
        }
    }
}

/// How much of a batch was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Every job that was not known.
    AtAll,
    /// A part, which ended with the last job: the next look begins at the front again.
    RoundTheEnd,
    /// A part.
    AtSome,
}

/// The export under way.
pub(super) struct Following<'a> {
    store: &'a Store,
    batch: &'a str,
    login: Option<&'a str>,
    /// The columns of flat lines and of tables; `None`: the lines are OpenAI's.
    flat: Option<(Layout, Fields)>,
    /// The delimiter between the cells of a table; `None`: they are lines.
    delimiter: Option<u8>,
    /// Jobs whose ending is known: their lines are written, or they have none.
    known: Numbers,
    /// Those of them that have no answer. They may be retried.
    failed: Numbers,
    /// All jobs up to this number are known.
    front: i64,
    /// Where the look at the rest of the batch goes on.
    further: i64,
    counts: Counts,
}

impl<'a> Following<'a> {
    /// Prepares to follow a batch in one of the two shapes of lines.
    ///
    /// # Errors
    /// There is no such batch.
    pub(super) async fn begin(
        store: &'a Store,
        batch: &'a str,
        login: Option<&'a str>,
        shape: Shape,
        fields: &Fields,
    ) -> anyhow::Result<Self> {
        find(store, batch).await?;
        let delimiter = match shape {
            Shape::Csv => Some(b','),
            Shape::Tsv => Some(b'\t'),
            Shape::Openai | Shape::Jsonl | Shape::Parquet => None,
        };
        // The columns of a table are known before its first row, or not at all.
        let fields = match fields {
            Fields::Found if delimiter.is_some() => &Fields::Named(Vec::new()),
            fields => fields,
        };
        let flat = if shape == Shape::Openai {
            None
        } else {
            let mut survey = Survey::new(fields.clone(), true);
            let first = store.ended_after(batch, login, 0).await?;
            let first: Vec<i64> = first.into_iter().take(TOGETHER).map(|(job, _)| job).collect();
            for job in store.export_jobs(batch, &first).await? {
                survey.look(&job).map_err(no_table)?;
            }
            Some((Layout::of(&survey), fields.clone()))
        };
        Ok(Self {
            store,
            batch,
            login,
            flat,
            delimiter,
            known: Numbers::default(),
            failed: Numbers::default(),
            front: 0,
            further: 0,
            counts: Counts::default(),
        })
    }

    /// Opens a file to which lines are added, and takes those that it has for written.
    ///
    /// # Errors
    /// The file holds something else.
    pub(super) async fn file(&mut self, path: &Path, force: bool) -> anyhow::Result<Sink<'a>> {
        let mut found = Vec::new();
        let names = self.flat.as_ref().map(|(layout, _)| {
            let name = |ours: &str| layout.name_of(ours).unwrap_or(ours).to_owned();
            (name("job"), name("state"))
        });
        let head = self.head()?;
        let mut table = self.delimiter.zip(head.as_deref()).map(|(delimiter, head)| Resumed::new(delimiter, head));
        let first = head.as_deref().map(|head| String::from_utf8_lossy(head).trim_end().to_owned());
        let begins = match (&first, &names) {
            (Some(first), _) => Begins { first, others: "" },
            (None, Some(_)) => Begins::all(FLAT_BEGIN),
            (None, None) => Begins::all(OPENAI_BEGIN),
        };
        let mut file = GrowingFile::open(path, force, begins, |line| {
            if let (Some(table), Some((job, state))) = (&mut table, &names) {
                return Ok(match table.take(line, job, state)? {
                    LineOfTable::Part => false,
                    LineOfTable::Head => true,
                    LineOfTable::Row(job, is_answer) => {
                        found.push((job, is_answer));
                        true
                    }
                });
            }
            let (job, is_answer) = match &names {
                None => of_openai(line),
                Some((job, state)) => of_flat(line, job, state),
            }
            .ok_or_else(|| NOT_OURS.to_owned())?;
            found.push((job, is_answer));
            Ok(true)
        })?;
        if let Some(head) = head.filter(|_| table.is_none_or(|table| !table.has_head)) {
            file.add(&head)?;
        }
        for some in found.chunks(LOOKED_UP) {
            let mut jobs: Vec<i64> = some.iter().map(|(job, _)| *job).collect();
            jobs.sort_unstable();
            jobs.dedup();
            if self.store.count_in_batch(self.batch, &jobs).await? < u64::try_from(jobs.len()).unwrap_or(0) {
                return Err(CommandFailure::usage(format!(
                    "{} holds answers of another batch than {}; nothing was written. Choose another file; --force \
                     begins it anew",
                    path.display(),
                    self.batch
                ))
                .into());
            }
        }
        for (job, is_answer) in found {
            self.note(job, is_answer);
        }
        Ok(Sink::File(file))
    }

    /// The first line of a table.
    fn head(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let of = self.flat.as_ref().zip(self.delimiter);
        of.map(|((layout, _), delimiter)| sheet::record(delimiter, layout, None)).transpose()
    }

    fn note(&mut self, job: i64, is_answer: bool) {
        self.known.insert(job);
        if is_answer {
            self.failed.remove(job);
        } else {
            self.failed.insert(job);
        }
    }

    /// How many lines were there before.
    pub(super) fn resumed(&self) -> u64 {
        self.known.len()
    }

    /// Writes the jobs that have ended, and waits for the rest, until every job of the batch has ended, or the batch is
    /// `paused` for good.
    ///
    /// # Errors
    /// Those of the database and of the output.
    pub(super) async fn finish(
        mut self,
        answers: &mut Sink<'_>,
        errors: &mut Option<Sink<'_>>,
        paused: &CancellationToken,
    ) -> anyhow::Result<Counts> {
        if let Some(head) = self.head()? {
            answers.begin(&head)?;
            errors.as_mut().map_or(Ok(()), |errors| errors.begin(&head))?;
        }
        // The sums at which everything was looked at, and those at the end of the last round.
        let (mut looked_at, mut round) = (None, None);
        loop {
            let is_over = paused.is_cancelled();
            let batch = find(self.store, self.batch).await?;
            if batch.unfinished() <= 0 || is_over {
                self.catch_up(answers, errors).await?;
                // Further jobs may have come while that was written.
                if is_over || find(self.store, self.batch).await?.unfinished() <= 0 {
                    break;
                }
            }
            let sums = (batch.jobs, batch.done(), batch.attempts);
            // Nothing has ended since everything was looked at.
            if looked_at != Some(sums) {
                match self.look(answers, errors).await? {
                    Looked::AtAll => looked_at = Some(sums),
                    Looked::RoundTheEnd => {
                        // Nothing has ended in the whole round, so it has seen everything that had ended before.
                        looked_at = (round == Some(sums)).then_some(sums);
                        round = Some(sums);
                    }
                    Looked::AtSome => {}
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = paused.cancelled() => {}
            }
        }
        answers.end()?;
        if let Some(errors) = errors {
            errors.end()?;
        }
        self.counted().await
    }

    /// Writes the jobs that have ended at the front, and in the next part of the rest.
    async fn look(&mut self, answers: &mut Sink<'_>, errors: &mut Option<Sink<'_>>) -> anyhow::Result<Looked> {
        let Some(last) = self.walk(self.front, FRONT_PAGES, true, answers, errors).await? else {
            self.further = 0;
            return Ok(Looked::AtAll);
        };
        let from = self.further.max(last);
        let end = self.walk(from, FURTHER_PAGES, false, answers, errors).await?;
        self.further = end.unwrap_or(0);
        Ok(if end.is_none() { Looked::RoundTheEnd } else { Looked::AtSome })
    }

    /// Writes everything that has ended.
    async fn catch_up(&mut self, answers: &mut Sink<'_>, errors: &mut Option<Sink<'_>>) -> anyhow::Result<()> {
        // Jobs of a transaction that took long may have come with lower numbers.
        self.front = 0;
        self.walk(0, u32::MAX, true, answers, errors).await?;
        let failed: Vec<i64> = self.failed.iter().collect();
        for some in failed.chunks(TOGETHER) {
            self.write(some, true, answers, errors).await?;
        }
        Ok(())
    }

    /// Looks at jobs above a number, page by page, and writes those that have ended. The last number that was looked
    /// at; `None` after the last job of the batch.
    async fn walk(
        &mut self,
        from: i64,
        pages: u32,
        is_front: bool,
        answers: &mut Sink<'_>,
        errors: &mut Option<Sink<'_>>,
    ) -> anyhow::Result<Option<i64>> {
        let (mut after, mut is_gapless) = (from, is_front);
        for _ in 0..pages {
            after = self.known.last_of(after.saturating_add(1)).unwrap_or(after);
            if is_gapless {
                self.front = after;
            }
            let page = self.store.ended_after(self.batch, self.login, after).await?;
            let fresh: Vec<i64> =
                page.iter().filter(|(job, ended)| *ended && !self.known.contains(*job)).map(|(job, _)| *job).collect();
            for some in fresh.chunks(TOGETHER) {
                self.write(some, false, answers, errors).await?;
            }
            for (job, _) in &page {
                is_gapless = is_gapless && self.known.contains(*job);
                if is_gapless {
                    self.front = *job;
                }
            }
            after = page.last().map_or(after, |(job, _)| *job);
            if u64::try_from(page.len()).unwrap_or(0) < EXPORT_PAGE {
                return Ok(None);
            }
        }
        Ok(Some(after))
    }

    /// Writes the lines of these jobs; `only_answers`: of those that have an answer by now.
    async fn write(
        &mut self,
        jobs: &[i64],
        only_answers: bool,
        answers: &mut Sink<'_>,
        errors: &mut Option<Sink<'_>>,
    ) -> anyhow::Result<()> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let mut found = Vec::new();
        {
            for job in self.store.export_jobs(self.batch, jobs).await? {
                let is_answer = matches!(job.ending, Some(EndedJob::Succeeded { .. }));
                // It was put back into the queue in between.
                if job.ending.is_none() || (only_answers && !is_answer) {
                    continue;
                }
                if job.is_replaced {
                    found.push((job.job, false));
                    continue;
                }
                let line = match (&mut self.flat, self.delimiter) {
                    (None, _) => serde_json::to_string(&LineView::of(&job)?)?.into_bytes(),
                    (Some((layout, _)), Some(delimiter)) => sheet::record(delimiter, layout, Some(&layout.row(&job)?))?,
                    (Some((layout, fields)), None) => {
                        layout.learn(&job, fields).map_err(no_table)?;
                        sheet::line(layout, &layout.row(&job)?)?.into_bytes()
                    }
                };
                let into = if is_answer || (errors.is_none() && self.flat.is_some()) { &mut good } else { &mut bad };
                into.extend_from_slice(&line);
                if self.delimiter.is_none() {
                    into.push(b'\n');
                }
                found.push((job.job, is_answer));
            }
        }
        if !good.is_empty() {
            answers.add(&good)?;
        }
        if let Some(errors) = errors.as_mut().filter(|_| !bad.is_empty()) {
            errors.add(&bad)?;
        }
        for (job, is_answer) in found {
            self.note(job, is_answer);
        }
        Ok(())
    }

    /// The jobs by how they ended.
    async fn counted(mut self) -> anyhow::Result<Counts> {
        self.counts.succeeded = self.known.len() - self.failed.len();
        let failed: Vec<i64> = self.failed.iter().collect();
        // They have no answers, so more of them can be read together.
        for some in failed.chunks(usize::try_from(EXPORT_PAGE).unwrap_or(TOGETHER)) {
            for job in self.store.export_jobs(self.batch, some).await? {
                self.counts.note(&job);
            }
        }
        Ok(self.counts)
    }
}

/// What a line of a table is.
enum LineOfTable {
    /// Its row goes on.
    Part,
    /// The head ends with it.
    Head,
    /// The row of this job ends with it; whether it has an answer.
    Row(i64, bool),
}

/// A table that is gone on with.
struct Resumed {
    delimiter: u8,
    head: Vec<u8>,
    has_head: bool,
    /// The lines of a row that has not ended.
    pending: String,
    /// The names of the columns.
    names: Vec<String>,
}

impl Resumed {
    fn new(delimiter: u8, head: &[u8]) -> Self {
        Self { delimiter, head: head.to_owned(), has_head: false, pending: String::new(), names: Vec::new() }
    }

    /// Takes a line.
    ///
    /// # Errors
    /// The line is not of such an export.
    fn take(&mut self, line: &str, job: &str, state: &str) -> Result<LineOfTable, String> {
        self.pending.push_str(line);
        self.pending.push('\n');
        if self.pending.matches('"').count() % 2 == 1 {
            return Ok(LineOfTable::Part);
        }
        let text = std::mem::take(&mut self.pending);
        if !self.has_head {
            if text.as_bytes() != self.head {
                return Err("has other columns than this export".to_owned());
            }
            self.has_head = true;
            self.names = self.cells(&text).unwrap_or_default();
            return Ok(LineOfTable::Head);
        }
        let cells = self.cells(&text).filter(|cells| cells.len() == self.names.len());
        let cell = |cells: &[String], name: &str| {
            self.names.iter().position(|column| column == name).and_then(|place| cells.get(place).cloned())
        };
        let row = cells.and_then(|cells| Some((cell(&cells, job)?.parse().ok()?, cell(&cells, state)? == "succeeded")));
        row.map(|(job, is_answer)| LineOfTable::Row(job, is_answer)).ok_or_else(|| NOT_OURS.to_owned())
    }

    fn cells(&self, text: &str) -> Option<Vec<String>> {
        let mut reader =
            csv::ReaderBuilder::new().delimiter(self.delimiter).has_headers(false).from_reader(text.as_bytes());
        let record = reader.records().next()?.ok()?;
        Some(record.iter().map(str::to_owned).collect())
    }
}

/// The job of a line as OpenAI writes them, and whether it has an answer.
fn of_openai(line: &str) -> Option<(i64, bool)> {
    #[derive(Deserialize)]
    struct Line {
        response: Option<Response>,
        sluice: Ours,
    }
    #[derive(Deserialize)]
    struct Response {
        status_code: u16,
    }
    #[derive(Deserialize)]
    struct Ours {
        job: i64,
    }
    let line: Line = serde_json::from_str(line).ok()?;
    Some((line.sluice.job, line.response.is_some_and(|response| response.status_code < 400)))
}

/// The same of a flat line, in which our columns have these names.
fn of_flat(line: &str, job: &str, state: &str) -> Option<(i64, bool)> {
    let object = RawObject::read(line)?;
    Some((object.get(job)?.parse().ok()?, object.get(state)? == "\"succeeded\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_their_job_and_whether_it_has_an_answer() {
        for (line, told) in [
            (
                r#"{"id":"batch_req_7","response":{"status_code":200,"body":{}},"error":null,"sluice":{"job":7}}"#,
                Some((7, true)),
            ),
            (r#"{"response":{"status_code":400},"sluice":{"job":7}}"#, Some((7, false))),
            (r#"{"response":null,"error":{},"sluice":{"job":8}}"#, Some((8, false))),
            (r#"{"custom_id":"a","response":{"status_code":200}}"#, None),
            ("job,state", None),
        ] {
            assert_eq!(of_openai(line), told, "{line}");
        }
        let flat = r#"{"job":"hers","sluice_job":9,"state":"succeeded"}"#;
        assert_eq!(of_flat(flat, "sluice_job", "state"), Some((9, true)));
        assert_eq!(of_flat(flat, "job", "state"), None);
    }
}
