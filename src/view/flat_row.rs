//! A job of a batch as one flat row: the author's columns, how it ended, the answer and its fields, and the cost.
//!
//! The author's columns are the members of the job's metadata. They come first and keep their names. A column of ours
//! whose name is taken gets `sluice_` in front, a field of the answer `answer_`.

mod cell;
mod kind;

pub use cell::FlatCell;
pub use kind::{Kind, Kinds};

use super::result_line::{custom_id, text_of};
use crate::domain::raw_object::RawObject;
use crate::store::results::{EndedJob, ExportedJob};
use kind::{SeenKinds, joined, kind_of};
use std::collections::{BTreeMap, HashMap, HashSet};

/// More fields than these are not made into columns unasked: they are names that answers have made up.
pub const MOST_FIELDS: usize = 200;

/// More members than these make no table.
pub const MOST_COLUMNS: usize = 1_000;

/// The columns that every row has, in their order, with the fields of the answer behind `answer`; and those of
/// cascades.
const OURS: [(&str, Kind); 15] = [
    ("job", Kind::Integer),
    ("custom_id", Kind::Text),
    ("state", Kind::Text),
    ("answer", Kind::Text),
    ("provider", Kind::Text),
    ("model", Kind::Text),
    ("attempts", Kind::Integer),
    ("cost", Kind::Money),
    ("repaired", Kind::Flag),
    ("error_class", Kind::Text),
    ("error", Kind::Text),
    ("request_id", Kind::Text),
    ("enqueued_by", Kind::Text),
    ("confidence", Kind::Float),
    ("low_confidence", Kind::Flag),
];

/// How many of them every row has. The others are there where an answer says how sure it is.
const USUAL: usize = 13;

/// How many of them stand before the fields of the answer.
const BEFORE_FIELDS: usize = 4;

/// Which fields of answers become columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Those of all answers that are JSON objects.
    Found,
    /// Only these, in this order; none of them if there are no names.
    Named(Vec<String>),
}

/// The columns that a batch has beside ours.
#[derive(Debug)]
pub struct Survey {
    /// Whether the author's columns are looked for.
    looks_for_hers: bool,
    hers: BTreeMap<String, Option<SeenKinds>>,
    wanted: Fields,
    /// The fields of the answers in the order in which they came.
    fields: Vec<(String, Option<SeenKinds>)>,
    places: HashMap<String, usize>,
    /// Whether an answer says how sure it is.
    says_how_sure: bool,
}

/// Why the jobs make no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTable {
    /// The metadata has too many different members.
    #[error("the metadata of the jobs has more than {MOST_COLUMNS} different members, so it makes no table")]
    Columns,
    /// The answers have too many different fields.
    #[error("the answers have more than {MOST_FIELDS} different fields, so they make no columns")]
    Fields,
}

impl Survey {
    /// An empty survey. Without `hers` the author's columns come from elsewhere.
    #[must_use]
    pub fn new(wanted: Fields, hers: bool) -> Self {
        let fields = match &wanted {
            Fields::Found => Vec::new(),
            Fields::Named(names) => names.iter().map(|name| (name.clone(), None)).collect(),
        };
        let places = fields.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        Self { looks_for_hers: hers, hers: BTreeMap::new(), wanted, fields, places, says_how_sure: false }
    }

    /// Takes in the columns of one more job.
    ///
    /// # Errors
    /// There are too many.
    pub fn look(&mut self, job: &ExportedJob) -> Result<(), NoTable> {
        self.says_how_sure |= job.confidence.is_some() || job.low_confidence;
        if self.looks_for_hers
            && let Some(metadata) = job.metadata.as_deref().and_then(RawObject::read)
        {
            for (name, value) in metadata.members() {
                let kind = self.hers.entry(name.to_owned()).or_default();
                *kind = joined(*kind, SeenKinds::of(value));
            }
            if self.hers.len() > MOST_COLUMNS {
                return Err(NoTable::Columns);
            }
        }
        let Some(EndedJob::Succeeded { response }) = &job.ending else { return Ok(()) };
        if self.wanted == Fields::Named(Vec::new()) {
            return Ok(());
        }
        let Ok(Some(answer)) = text_of(response.as_deref()) else { return Ok(()) };
        let Some(object) = object_of(&answer) else { return Ok(()) };
        for (name, value) in object.members() {
            let place = match self.places.get(name) {
                Some(place) => *place,
                None if self.wanted == Fields::Found => {
                    self.fields.push((name.to_owned(), None));
                    self.places.insert(name.to_owned(), self.fields.len() - 1);
                    self.fields.len() - 1
                }
                None => continue,
            };
            self.fields[place].1 = joined(self.fields[place].1, SeenKinds::of(value));
        }
        if self.wanted == Fields::Found && self.fields.len() > MOST_FIELDS { Err(NoTable::Fields) } else { Ok(()) }
    }
}

/// The members of an answer that is a JSON object. Most answers are prose, which is told by the first letter.
fn object_of(answer: &str) -> Option<RawObject<'_>> {
    answer.trim_start().starts_with('{').then(|| RawObject::read(answer)).flatten()
}

/// The job beside a row of the author's own file.
#[derive(Clone, Copy, Debug)]
pub enum RowJob<'a> {
    /// The job that was made of it.
    Own(&'a ExportedJob),
    /// It has no job.
    Absent,
    /// The job of its `custom_id` was made of a row with other cells.
    Changed,
}

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A member of the metadata, or the cell of a row that is given beside the job.
    Hers(usize),
    /// One of [`OURS`].
    Ours(usize),
    /// A field of the answer.
    Field(usize),
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatColumn {
    pub name: String,
    pub kind: Kind,
    origin: Origin,
}

/// The columns of a table, and where their values come from.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    columns: Vec<FlatColumn>,
    /// The places of the author's columns and of the fields among their like.
    hers: HashMap<String, usize>,
    fields: HashMap<String, usize>,
    taken: HashSet<String>,
}

impl Layout {
    /// The columns of a survey: the author's by name, ours, and the fields of the answers behind `answer`.
    #[must_use]
    pub fn of(survey: &Survey) -> Self {
        Self::new(survey.hers.iter().map(|(name, seen)| (name.clone(), kind_of(*seen))), survey)
    }

    /// The same with the author's columns as they stand in a file of hers, and the kinds that were found there.
    #[must_use]
    pub fn beside(header: &[String], kinds: &Kinds, survey: &Survey) -> Self {
        let kinds = kinds.0.iter().copied().chain(std::iter::repeat(None));
        Self::new(header.iter().cloned().zip(kinds.map(kind_of)), survey)
    }

    fn new(hers: impl Iterator<Item = (String, Kind)>, survey: &Survey) -> Self {
        let mut layout = Self::default();
        for (place, (name, kind)) in hers.enumerate() {
            layout.taken.insert(name.clone());
            layout.hers.insert(name.clone(), place);
            layout.columns.push(FlatColumn { name, kind, origin: Origin::Hers(place) });
        }
        let shown = if survey.says_how_sure { OURS.len() } else { USUAL };
        let ours: Vec<FlatColumn> = (0..shown).map(|place| layout.of_ours(place)).collect();
        let (before, after) = ours.split_at(BEFORE_FIELDS);
        layout.columns.extend_from_slice(before);
        for (name, kind) in &survey.fields {
            layout.add_field(name, kind_of(*kind));
        }
        layout.columns.extend_from_slice(after);
        layout
    }

    /// The column for one of [`OURS`].
    fn of_ours(&mut self, place: usize) -> FlatColumn {
        let (name, kind) = OURS.get(place).copied().unwrap_or(("", Kind::Text));
        FlatColumn { name: self.free_name(name, "sluice_"), kind, origin: Origin::Ours(place) }
    }

    fn add_field(&mut self, name: &str, kind: Kind) {
        let place = self.fields.len();
        // A name that was asked for twice is one column.
        if self.fields.contains_key(name) {
            return;
        }
        self.fields.insert(name.to_owned(), place);
        let name = self.free_name(name, "answer_");
        self.columns.push(FlatColumn { name, kind, origin: Origin::Field(place) });
    }

    fn free_name(&mut self, name: &str, prefix: &str) -> String {
        let mut free = name.to_owned();
        while !self.taken.insert(free.clone()) {
            free.insert_str(0, prefix);
        }
        free
    }

    /// The columns in their order.
    #[must_use]
    pub fn columns(&self) -> &[FlatColumn] {
        &self.columns
    }

    /// The name that one of our columns has in this table.
    #[must_use]
    pub fn name_of(&self, ours: &str) -> Option<&str> {
        let place = OURS.iter().position(|(name, _)| *name == ours)?;
        let column = self.columns.iter().find(|column| column.origin == Origin::Ours(place))?;
        Some(&column.name)
    }

    /// Adds what a job has beside the columns so far, at the end: for lines that are written before all is known.
    ///
    /// # Errors
    /// There are too many.
    pub fn learn(&mut self, job: &ExportedJob, wanted: &Fields) -> Result<(), NoTable> {
        let mut survey = Survey::new(wanted.clone(), true);
        survey.look(job)?;
        for name in survey.hers.into_keys() {
            if self.hers.contains_key(&name) {
                continue;
            }
            let place = self.hers.len();
            self.hers.insert(name.clone(), place);
            let free = self.free_name(&name, "metadata_");
            self.columns.push(FlatColumn { name: free, kind: Kind::Text, origin: Origin::Hers(place) });
        }
        for (name, _) in &survey.fields {
            self.add_field(name, Kind::Text);
        }
        if survey.says_how_sure && self.name_of("confidence").is_none() {
            for place in USUAL..OURS.len() {
                let column = self.of_ours(place);
                self.columns.push(column);
            }
        }
        if self.hers.len() > MOST_COLUMNS {
            return Err(NoTable::Columns);
        }
        if *wanted == Fields::Found && self.fields.len() > MOST_FIELDS { Err(NoTable::Fields) } else { Ok(()) }
    }

    /// The row of a job, a cell for each column.
    ///
    /// # Errors
    /// When a stored answer is not a chat completion.
    pub fn row(&self, job: &ExportedJob) -> anyhow::Result<Vec<FlatCell>> {
        let mut hers = vec![FlatCell::Empty; self.hers.len()];
        if let Some(metadata) = job.metadata.as_deref().and_then(RawObject::read) {
            for (name, value) in metadata.members() {
                if let Some(place) = self.hers.get(name) {
                    hers[*place] = FlatCell::of_json(value);
                }
            }
        }
        self.row_beside(&hers, RowJob::Own(job))
    }

    /// The row of a job, with the cells of the author's own row.
    ///
    /// # Errors
    /// When a stored answer is not a chat completion.
    pub fn row_beside(&self, hers: &[FlatCell], beside: RowJob<'_>) -> anyhow::Result<Vec<FlatCell>> {
        let (job, state) = match beside {
            RowJob::Own(job) => (Some(job), ""),
            RowJob::Absent => (None, "absent"),
            RowJob::Changed => (None, "changed"),
        };
        let mut fields = vec![FlatCell::Empty; self.fields.len()];
        let answer = match job.and_then(|job| job.ending.as_ref()) {
            Some(EndedJob::Succeeded { response }) => text_of(response.as_deref())?,
            Some(EndedJob::Failed { .. } | EndedJob::Cancelled) | None => None,
        };
        if let Some(object) = answer.as_deref().filter(|_| !fields.is_empty()).and_then(object_of) {
            for (name, value) in object.members() {
                if let Some(place) = self.fields.get(name) {
                    fields[*place] = FlatCell::of_json(value);
                }
            }
        }
        let cell = |column: &FlatColumn| match column.origin {
            Origin::Hers(place) => hers.get(place).cloned().unwrap_or(FlatCell::Empty),
            Origin::Field(place) => fields.get(place).cloned().unwrap_or(FlatCell::Empty),
            Origin::Ours(place) => match job {
                Some(job) => ours(place, job, answer.as_deref()),
                None if OURS.get(place).is_some_and(|(name, _)| *name == "state") => FlatCell::text(state),
                None => FlatCell::Empty,
            },
        };
        Ok(self.columns.iter().map(cell).collect())
    }
}

/// The value of one of [`OURS`].
fn ours(place: usize, job: &ExportedJob, answer: Option<&str>) -> FlatCell {
    let (class, reason) = match &job.ending {
        Some(EndedJob::Failed { class, reason, .. }) => (Some(class.as_str()), Some(reason.as_str())),
        Some(EndedJob::Succeeded { .. } | EndedJob::Cancelled) | None => (None, None),
    };
    match OURS.get(place).map_or("", |(name, _)| *name) {
        "job" => FlatCell::Json(job.job.to_string()),
        "custom_id" => FlatCell::Text(custom_id(job)),
        "state" => FlatCell::text(job.ending.as_ref().map_or("unfinished", |ending| ending.state().as_str())),
        "answer" => FlatCell::text_if_any(answer),
        "provider" => FlatCell::text_if_any(job.provider.as_deref()),
        "model" => FlatCell::text_if_any(job.model.as_deref()),
        "attempts" => FlatCell::Json(job.attempts.to_string()),
        "cost" => job.cost.map_or(FlatCell::Empty, FlatCell::Money),
        "repaired" => FlatCell::Json(job.repaired.to_string()),
        "error_class" => FlatCell::text_if_any(class),
        "error" => FlatCell::text_if_any(reason),
        "request_id" => FlatCell::text_if_any(job.request_id.as_deref()),
        "enqueued_by" => FlatCell::text(&job.enqueued_by),
        "confidence" => job.confidence.map_or(FlatCell::Empty, |sure| FlatCell::Json(sure.to_string())),
        "low_confidence" => FlatCell::Json(job.low_confidence.to_string()),
        _ => FlatCell::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;

    fn job(metadata: &str, answer: Option<&str>) -> ExportedJob {
        let response = serde_json::json!({ "choices": [{ "message": { "content": answer } }] });
        ExportedJob {
            is_replaced: false,
            job: 7,
            custom_id: Some("c".to_owned()),
            enqueued_by: "app".to_owned(),
            metadata: Some(metadata.to_owned()),
            ending: Some(EndedJob::Succeeded { response: Some(response.to_string()) }),
            attempts: 1,
            provider: Some("p".to_owned()),
            model: Some("m".to_owned()),
            repaired: false,
            confidence: None,
            low_confidence: false,
            cost: Some(NanoUsd(1_500)),
            request_id: None,
        }
    }

    fn laid_out(jobs: &[ExportedJob], wanted: Fields) -> Layout {
        let mut survey = Survey::new(wanted, true);
        for job in jobs {
            survey.look(job).unwrap();
        }
        Layout::of(&survey)
    }

    fn names(layout: &Layout) -> Vec<&str> {
        layout.columns().iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn how_sure_an_answer_is_has_columns_where_one_says_so() {
        let sure = ExportedJob { confidence: Some(0.25), low_confidence: true, ..job("{}", Some("x")) };
        let layout = laid_out(&[job("{}", Some("x")), sure.clone()], Fields::Found);
        let last = |layout: &Layout, job| layout.row(job).unwrap().split_off(USUAL);
        assert_eq!(names(&layout)[USUAL..], ["confidence", "low_confidence"]);
        assert_eq!(last(&layout, &sure), [FlatCell::Json("0.25".into()), FlatCell::Json("true".into())]);
        let unsaid = [FlatCell::Empty, FlatCell::Json("false".into())];
        assert_eq!(last(&layout, &job("{}", Some("x"))), unsaid);
        // Lines that are written before all is known get them when the first such answer comes.
        let mut growing = laid_out(&[job("{}", Some("x"))], Fields::Found);
        assert_eq!(growing.columns().len(), USUAL);
        for _ in 0..2 {
            growing.learn(&sure, &Fields::Found).unwrap();
        }
        assert_eq!(names(&growing)[USUAL..], ["confidence", "low_confidence"]);
    }

    #[test]
    fn her_columns_keep_their_names_and_ours_give_way() {
        let jobs = [job(r#"{"text":"Hi","answer":"42","cost":1}"#, Some(r#"{"label":"x","model":2,"cost":null}"#))];
        let layout = laid_out(&jobs, Fields::Found);
        assert_eq!(
            names(&layout),
            [
                "answer",
                "cost",
                "text",
                "job",
                "custom_id",
                "state",
                "sluice_answer",
                "label",
                "answer_model",
                "answer_cost",
                "provider",
                "model",
                "attempts",
                "sluice_cost",
                "repaired",
                "error_class",
                "error",
                "request_id",
                "enqueued_by"
            ]
        );
        let row = layout.row(&jobs[0]).unwrap();
        let cell = |name: &str| row[names(&layout).iter().position(|own| *own == name).unwrap()].clone();
        assert_eq!(cell("answer"), FlatCell::text("42"));
        assert_eq!(cell("cost"), FlatCell::Json("1".to_owned()));
        assert_eq!(cell("sluice_cost"), FlatCell::Money(NanoUsd(1_500)));
        assert_eq!(cell("answer_model"), FlatCell::Json("2".to_owned()));
        assert_eq!((cell("answer_cost"), cell("error")), (FlatCell::Empty, FlatCell::Empty));
        assert_eq!(cell("sluice_answer"), FlatCell::text(r#"{"label":"x","model":2,"cost":null}"#));
    }

    #[test]
    fn names_that_are_taken_by_a_prefix_too_get_another() {
        let jobs = [job(r#"{"cost":1,"sluice_cost":2}"#, Some(r#"{"answer_state":1,"state":2}"#))];
        let layout = laid_out(&jobs, Fields::Found);
        let named = names(&layout);
        for name in ["sluice_sluice_cost", "answer_state", "answer_answer_state"] {
            assert!(named.contains(&name), "{named:?}");
        }
        let distinct: HashSet<&str> = named.iter().copied().collect();
        assert_eq!(distinct.len(), named.len());
    }

    #[test]
    fn a_kind_takes_every_value_of_its_column() {
        for (values, kind) in [
            (&["1", "-22"][..], Kind::Integer),
            (&["1", "2.5"], Kind::Float),
            (&["1", "null"], Kind::Integer),
            // Two whole numbers beyond the precision of a DOUBLE stay two.
            (&["1234567890123456789", "9223372036854775807"], Kind::Integer),
            (&["9007199254740993", "0.5"], Kind::Text),
            (&["9007199254740992", "0.5"], Kind::Float),
            (&["18446744073709551615", "1"], Kind::Text),
            (&["0.1234567890123456789"], Kind::Text),
            (&["12.340", "1e3"], Kind::Float),
            (&["true", "false"], Kind::Flag),
            (&["true", "1"], Kind::Text),
            (&["\"1\"", "1"], Kind::Text),
            (&["[1]"], Kind::Text),
            (&["null"], Kind::Text),
        ] {
            let jobs: Vec<ExportedJob> =
                values.iter().map(|value| job("{}", Some(&format!("{{\"f\":{value}}}")))).collect();
            let layout = laid_out(&jobs, Fields::Found);
            let column = layout.columns().iter().find(|column| column.name == "f").unwrap();
            assert_eq!(column.kind, kind, "{values:?}");
        }
    }

    #[test]
    fn fields_are_columns_only_as_they_are_wanted() {
        let jobs = [job("{}", Some(r#"{"a":1,"b":2}"#)), job("{}", Some("prose")), job("{}", Some("[1]"))];
        let of = |wanted: Fields| laid_out(&jobs, wanted).columns().len() - USUAL;
        assert_eq!(of(Fields::Found), 2);
        assert_eq!(of(Fields::Named(Vec::new())), 0);
        let layout = laid_out(&jobs, Fields::Named(["b", "missing", "b"].map(str::to_owned).to_vec()));
        assert_eq!(layout.columns().len() - USUAL, 2);
        assert_eq!(layout.row(&jobs[1]).unwrap().len(), layout.columns().len());
    }

    #[test]
    fn names_that_answers_make_up_make_no_table() {
        let many: Vec<String> = (0..=MOST_FIELDS).map(|n| format!("\"f{n}\":1")).collect();
        let wild = job("{}", Some(&format!("{{{}}}", many.join(","))));
        assert_eq!(Survey::new(Fields::Found, true).look(&wild), Err(NoTable::Fields));
        assert_eq!(Survey::new(Fields::Named(vec!["f1".to_owned()]), true).look(&wild), Ok(()));
        let mut layout = laid_out(&[], Fields::Found);
        assert_eq!(layout.learn(&wild, &Fields::Found), Err(NoTable::Fields));
    }

    #[test]
    fn what_comes_later_is_a_column_at_the_end() {
        let mut layout = laid_out(&[job(r#"{"a":1}"#, None)], Fields::Found);
        let before = layout.columns().len();
        let later = job(r#"{"a":1,"cost":2}"#, Some(r#"{"f":3}"#));
        layout.learn(&later, &Fields::Found).unwrap();
        assert_eq!(names(&layout)[before..], ["metadata_cost", "f"]);
        let row = layout.row(&later).unwrap();
        assert_eq!(row[before..], [FlatCell::Json("2".to_owned()), FlatCell::Json("3".to_owned())]);
    }
}
