//! Tables: each row becomes a request by a template, and its columns go along as metadata.

mod delimited;
mod json_rows;
#[cfg(feature = "parquet")]
mod parquet_rows;
mod quotes;
mod row;

pub(super) use delimited::bad_quote;

use super::custom_ids::CustomIds;
use super::requests::Requests;
use super::{AuthorCell, InputError, InputJob, LineError, MemberNote, json_text};
use crate::domain::bounds::{self, MOST_CUSTOM_ID_BYTES};
use crate::domain::template::{self, RequestTemplate, Template, Unfilled};
use row::{Cell, Row};
use serde_json::Value;
use std::io::BufRead;
use std::sync::Arc;

/// The question about each row, and the columns that are kept.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The request, and the option that it came from.
    pub request: Option<(RequestTemplate, &'static str)>,
    /// Instructions before the question of a column `prompt`.
    pub system: Option<Template>,
    /// The column with the name of each job; without it `custom_id`, if there is such a column.
    pub id_column: Option<String>,
    /// The columns that are kept as metadata; `None`: all but that of the id.
    pub keep: Option<Vec<String>>,
    /// The names in the template of the route, if routes put rows into templates.
    pub route_names: Option<Vec<String>>,
}

impl Asking {
    /// Whether it says something about a table.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.request.is_some() || self.system.is_some() || self.id_column.is_some() || self.keep.is_some()
    }
}

/// Rows of any kind of table.
pub(super) trait Rows {
    /// The next row. After an [`InputError::Read`] there is none.
    fn next_row(&mut self) -> Option<Result<Row, InputError>>;
}

impl From<Cell> for AuthorCell {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Text(text) => Self::Text(text),
            Cell::Json(json) if json == "null" => Self::Empty,
            Cell::Json(json) => Self::Json(json),
            Cell::NotFinite(word) => Self::NotFinite(word),
        }
    }
}

/// Rows, and the names of their columns.
type Headed = (Box<dyn Rows + Send>, Vec<String>);

fn headed(rows: impl Rows + Send + 'static, columns: &Columns) -> Headed {
    (Box::new(rows), columns.names.iter().map(ToString::to_string).collect())
}

/// The rows of CSV or TSV.
///
/// # Errors
/// The header is in no order.
pub(super) fn delimited_rows(
    source: impl BufRead + Send + 'static,
    delimiter: u8,
    longest: usize,
) -> Result<Headed, String> {
    let (rows, columns) = delimited::Delimited::open(source, delimiter, longest)?;
    Ok(headed(rows, &columns))
}

/// The rows of JSON Lines.
pub(super) fn json_rows(source: impl BufRead + Send + 'static, longest: usize) -> Box<dyn Rows + Send> {
    Box::new(json_rows::JsonRows::new(source, longest))
}

/// The rows of Parquet.
///
/// # Errors
/// It is no such file.
#[cfg(feature = "parquet")]
pub(super) fn parquet_rows(file: std::fs::File) -> Result<Headed, String> {
    let (rows, columns) = parquet_rows::ParquetRows::open(file, Arc::default())?;
    Ok(headed(rows, &columns))
}

/// The names of the columns, where they are known before the rows.
struct Columns {
    names: Arc<[Arc<str>]>,
    delimiter: Option<u8>,
}

impl Columns {
    /// # Errors
    /// Two columns have the same name.
    fn new(names: Arc<[Arc<str>]>, delimiter: Option<u8>) -> Result<Self, String> {
        for (place, name) in names.iter().enumerate() {
            if let Some(first) = names.iter().take(place).position(|known| known == name) {
                let (first, second) = (first + 1, place + 1);
                let name = shown(name);
                return Err(format!(
                    "the columns {first} and {second} are both called {name}; expected each name once"
                ));
            }
        }
        Ok(Self { names, delimiter })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| **known == *name)
    }

    /// # Errors
    /// There is no such column; `by` is what names it.
    fn require<'a>(&self, names: impl IntoIterator<Item = &'a str>, by: &str) -> Result<(), String> {
        match names.into_iter().find(|name| !self.has(name)) {
            None => Ok(()),
            Some(name) => Err(self.unknown(name, by)),
        }
    }

    fn unknown(&self, name: &str, by: &str) -> String {
        let names = || self.names.iter().map(|name| &**name);
        let near = template::near(name, names())
            .map_or_else(String::new, |near| format!("; perhaps {} is meant", shown(near)));
        let other = self.other_delimiter().map_or_else(String::new, |delimiter| {
            format!(". The cells seem to be separated by {delimiter:?}: see --delimiter")
        });
        format!("{by} names the column {}, which there is not. There are: {}{near}{other}", shown(name), list(names()))
    }

    /// A column that is probably asked about.
    fn of_text(&self) -> &str {
        const TEXTS: [&str; 8] = ["text", "body", "content", "message", "question", "comment", "review", "title"];
        let known = self.names.iter().find(|name| TEXTS.contains(&name.to_lowercase().as_str()));
        known.or(self.names.last()).map_or("text", |name| name)
    }

    /// The character that seems to separate the cells in place of the one that was expected.
    fn other_delimiter(&self) -> Option<char> {
        let ([only], Some(used)) = (&*self.names, self.delimiter) else { return None };
        [';', '\t', ',', '|'].into_iter().find(|other| u32::from(*other) != u32::from(used) && only.contains(*other))
    }
}

/// A column's name in a message.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(60).collect();
    let more = if short.len() < name.len() { "…" } else { "" };
    format!("`{short}{more}`")
}

/// The names of columns, as many as fit a message.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let mut all: Vec<String> = names.map(shown).collect();
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", all.join(", "))
}

/// How a row becomes a request.
enum Question {
    /// By a template.
    By(RequestTemplate),
    /// By the route, which gets the columns as `vars`.
    Vars,
}

/// The jobs of a table.
struct TableJobs<T> {
    rows: T,
    ask: Question,
    id_column: Option<String>,
    keep: Option<Vec<String>>,
    requests: Requests,
    custom_ids: CustomIds,
    /// What the numbers of rows count.
    unit: &'static str,
    ended: bool,
}

/// Jobs in the order of their lines.
pub type Jobs = Box<dyn Iterator<Item = Result<InputJob, InputError>> + Send>;

/// The jobs of a table in CSV or TSV.
///
/// # Errors
/// The header is in no order, or does not go with the question.
pub(super) fn delimited(
    source: impl BufRead + Send + 'static,
    delimiter: u8,
    longest: usize,
    asking: Asking,
    requests: Requests,
) -> Result<Jobs, String> {
    let (rows, columns) = delimited::Delimited::open(source, delimiter, longest)?;
    Ok(Box::new(TableJobs::new(rows, Some(&columns), asking, requests, "lines")?))
}

/// The jobs of a JSON-lines table.
///
/// # Errors
/// The question about the rows is missing.
pub(super) fn json_lines(
    source: impl BufRead + Send + 'static,
    longest: usize,
    asking: Asking,
    requests: Requests,
) -> Result<Jobs, String> {
    Ok(Box::new(TableJobs::new(json_rows::JsonRows::new(source, longest), None, asking, requests, "lines")?))
}

/// The jobs of a Parquet file.
///
/// # Errors
/// As for [`delimited`]; and when it is no Parquet file.
#[cfg(feature = "parquet")]
pub(super) fn parquet(
    file: std::fs::File,
    done: Arc<std::sync::atomic::AtomicU64>,
    asking: Asking,
    requests: Requests,
) -> Result<Jobs, String> {
    let (rows, columns) = parquet_rows::ParquetRows::open(file, done)?;
    Ok(Box::new(TableJobs::new(rows, Some(&columns), asking, requests, "rows")?))
}

impl<T> TableJobs<T> {
    fn new(
        rows: T,
        columns: Option<&Columns>,
        asking: Asking,
        requests: Requests,
        unit: &'static str,
    ) -> Result<Self, String> {
        let Asking { request, system, id_column, keep, route_names } = asking;
        if let Some(columns) = columns {
            columns.require(id_column.as_deref(), "--id-column")?;
            columns.require(keep.iter().flatten().map(String::as_str), "--keep")?;
        }
        let id_column = id_column.or_else(|| {
            let is_there = columns.is_none_or(|columns| columns.has("custom_id"));
            is_there.then(|| "custom_id".to_owned())
        });
        let ask = ask(columns, request, system, route_names.as_deref())?;
        let custom_ids = CustomIds::default();
        Ok(Self { rows, ask, id_column, keep, requests, custom_ids, unit, ended: false })
    }
}

/// How the rows of a table become requests.
fn ask(
    columns: Option<&Columns>,
    request: Option<(RequestTemplate, &'static str)>,
    system: Option<Template>,
    route_names: Option<&[String]>,
) -> Result<Question, String> {
    if let Some((request, option)) = request {
        let names = request.names();
        if names.is_empty() {
            let there = columns.map(|columns| list(columns.names.iter().map(|name| &**name)));
            let there = there.map_or_else(String::new, |there| format!(". There are: {there}"));
            return Err(format!(
                "{option} names no column, so every row would ask the same; `{{text}}` stands for the \
                                column `text`{there}"
            ));
        }
        if let Some(columns) = columns {
            columns.require(names, option)?;
        }
        return Ok(Question::By(request));
    }
    if let (Some(names), None) = (route_names, &system)
        && (columns.is_none_or(|columns| !columns.has("prompt")) || names.iter().any(|name| name == "prompt"))
    {
        if let Some(columns) = columns {
            columns.require(names.iter().map(String::as_str), "the template of the route")?;
        }
        return Ok(Question::Vars);
    }
    if let Some(columns) = columns.filter(|columns| !columns.has("prompt")) {
        let there = list(columns.names.iter().map(|name| &**name));
        return Err(format!(
            "has no column `prompt`: say with --prompt what is asked of each row, such as --prompt 'Classify: {{{}}}'. \
             There are: {there}",
            columns.of_text()
        ));
    }
    if let (Some(columns), Some(system)) = (columns, &system) {
        columns.require(system.names(), "--system")?;
    }
    let prompt = Template::parse("{prompt}").map_err(|fault| fault.to_string())?;
    Ok(Question::By(RequestTemplate::of_prompt(prompt, system)))
}

impl<T: Rows> TableJobs<T> {
    fn job(&mut self, row: &Row) -> Result<InputJob, LineError> {
        let fault = |field: &str, reason: String| LineError::new(row.line, field, reason);
        for (name, cell) in &row.cells {
            if cell_has_nul(cell) {
                return Err(fault(name, "contains NUL, which Postgres cannot store".to_owned()));
            }
        }
        let custom_id = self.custom_id(row)?;
        let mut notes = Vec::new();
        let body = match &self.ask {
            Question::Vars => {
                format!("{{\"vars\":{}}}", object(row.cells.iter().filter(|(name, _)| !self.is_id(name))))
            }
            Question::By(template) => {
                let is_empty = |name: &&str| row.get(name).is_some_and(|cell| cell.as_text().is_empty());
                notes.extend(template.names().into_iter().filter(is_empty).map(MemberNote::empty));
                template.fill(row).map_err(|unfilled| match unfilled {
                    Unfilled::Missing(name) => {
                        let names = row.cells.iter().map(|(name, _)| &**name);
                        let near = template::near(&name, names.clone());
                        let near = near.map_or_else(String::new, |near| format!("; perhaps {} is meant", shown(near)));
                        fault(&name, format!("is missing, and the template names it. There are: {}{near}", list(names)))
                    }
                    Unfilled::TooLarge => fault("", "the request is larger than 32 MB".to_owned()),
                })?
            }
        };
        let is_kept = |name: &str| match &self.keep {
            Some(keep) => keep.iter().any(|kept| kept == name),
            None => !self.is_id(name),
        };
        let metadata = object(row.cells.iter().filter(|(name, _)| is_kept(name)));
        bounds::check("request", &body).map_err(|reason| fault("request", reason))?;
        bounds::check("metadata", &metadata).map_err(|reason| {
            fault(
                "",
                format!("the columns of the row are kept as the job's metadata, which {reason}; --keep says which"),
            )
        })?;
        let parsed: Value = serde_json::from_str(&body).map_err(|error| fault("request", error.to_string()))?;
        let request = self.requests.read(&parsed, &body, Some(&metadata)).map_err(|error| {
            let field = if error.field == "request" { error.field } else { format!("request.{}", error.field) };
            fault(&field, error.reason)
        })?;
        Ok(InputJob { line: row.line, custom_id, metadata: Some(metadata), body, request, notes })
    }

    fn is_id(&self, name: &str) -> bool {
        self.id_column.as_deref() == Some(name)
    }

    fn custom_id(&mut self, row: &Row) -> Result<Option<String>, LineError> {
        let Some(column) = self.id_column.as_deref() else { return Ok(None) };
        let fault = |reason: String| LineError::new(row.line, column, reason);
        let Some(cell) = row.get(column) else {
            // A JSON-lines table may have rows without a name, unless the option asks for one.
            return if column == "custom_id" {
                Ok(None)
            } else {
                Err(fault("is missing, and --id-column names it".to_owned()))
            };
        };
        let id = cell.as_text();
        if id.is_empty() {
            return Err(fault(format!("is empty; expected an id of 1 to {MOST_CUSTOM_ID_BYTES} bytes")));
        }
        if id.len() > MOST_CUSTOM_ID_BYTES {
            return Err(fault(format!("has {} bytes; expected an id of at most {MOST_CUSTOM_ID_BYTES}", id.len())));
        }
        if let Some(first) = self.custom_ids.note(id, row.line) {
            let (unit, second) = (self.unit, row.line);
            return Err(fault(format!("{unit} {first} and {second} have the same id; expected each only once")));
        }
        Ok(Some(id.to_owned()))
    }
}

fn cell_has_nul(cell: &Cell) -> bool {
    match cell {
        Cell::Text(text) => text.contains('\0'),
        Cell::Json(written) => json_text::has_nul(written),
        Cell::NotFinite(_) => false,
    }
}

/// The cells as an object of JSON, in the order of the columns.
fn object<'a>(cells: impl Iterator<Item = &'a (Arc<str>, Cell)>) -> String {
    let members: Vec<String> =
        cells.map(|(name, cell)| format!("{}:{}", Value::from(&**name), cell.to_json())).collect();
    format!("{{{}}}", members.join(","))
}

impl<T: Rows> Iterator for TableJobs<T> {
    type Item = Result<InputJob, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.rows.next_row();
        self.ended = matches!(row, None | Some(Err(InputError::Read { .. })));
        Some(row?.and_then(|row| self.job(&row).map_err(InputError::Line)))
    }
}

#[cfg(test)]
mod tests;
