//! Jobs in the forms in which the server takes many: rows of COPY, and the JSON array of `sluice.enqueue_many`.

use super::super::claim::datetime;
use super::super::copy::{Field as _, Jsonb, Rows};
use super::{BulkOptions, NewJob};
use crate::domain::Timestamp;

/// Jobs of one statement, and the number that each has in its bulk enqueue.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// The jobs as the statement takes them.
    pub(super) jobs: T,
    /// Their numbers, in order.
    pub(super) numbers: Vec<u64>,
}

impl<T> Numbered<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// Rows of COPY.
pub(super) type JobRows = Numbered<Rows>;

impl Numbered<Rows> {
    /// No rows yet, and room for this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { jobs: Rows::with_capacity(STATEMENT, bytes), numbers: Vec::new() }
    }
}

/// The JSON array that `sluice.enqueue_many` takes, without its end.
pub(super) type KeyedJobs = Numbered<String>;

impl Default for Numbered<String> {
    fn default() -> Self {
        Self { jobs: String::new(), numbers: Vec::new() }
    }
}

const STATEMENT: &str = "copy sluice.job (route, project, batch, priority, run_at, deadline, max_attempts, custom_id, \
                         metadata, request) from stdin (format binary)";

/// The columns that it names.
const COLUMNS: usize = 10;

/// The part that is the same for all jobs of a bulk enqueue.
#[derive(Clone, Debug)]
pub(super) struct Form {
    columns: Vec<u8>,
    members: String,
}

impl Form {
    pub(super) fn of(options: &BulkOptions) -> Self {
        Self { columns: columns(options), members: members(options) }
    }

    /// Appends a row of COPY.
    pub(super) fn push_row(&self, rows: &mut JobRows, number: u64, job: &NewJob<'_>) {
        rows.numbers.push(number);
        let row = rows.jobs.begin(COLUMNS);
        row.extend_from_slice(&self.columns);
        job.custom_id.append(row);
        job.metadata.map(Jsonb).append(row);
        Jsonb(job.request).append(row);
    }

    /// Appends an object for `sluice.enqueue_many` to an array, which is left without its end.
    pub(super) fn push_keyed(&self, jobs: &mut KeyedJobs, number: u64, key: &str, job: &NewJob<'_>) {
        let text = &mut jobs.jobs;
        text.push_str(if jobs.numbers.is_empty() { "[{" } else { ",{" });
        jobs.numbers.push(number);
        text.push_str(&self.members);
        push_member(text, "idempotency_key", Some(&json_string(key)));
        push_member(text, "custom_id", job.custom_id.map(json_string).as_deref());
        push_member(text, "metadata", job.metadata);
        text.push_str("\"request\":");
        text.push_str(job.request);
        text.push('}');
    }
}

/// The first seven fields of a row.
fn columns(options: &BulkOptions) -> Vec<u8> {
    let mut columns = Vec::new();
    options.route.append(&mut columns);
    options.project.append(&mut columns);
    options.batch.as_deref().append(&mut columns);
    options.priority.append(&mut columns);
    options.run_at.map(datetime).append(&mut columns);
    options.deadline.map(datetime).append(&mut columns);
    options.max_attempts.append(&mut columns);
    columns
}

/// The first members of an object for `sluice.enqueue_many`, each with the comma behind it.
fn members(options: &BulkOptions) -> String {
    let mut members = String::new();
    let instant = |at: Timestamp| json_string(&datetime(at).to_rfc3339());
    push_member(&mut members, "priority", Some(&options.priority.to_string()));
    push_member(&mut members, "run_at", options.run_at.map(instant).as_deref());
    push_member(&mut members, "deadline", options.deadline.map(instant).as_deref());
    push_member(&mut members, "max_attempts", options.max_attempts.map(|most| most.to_string()).as_deref());
    members
}

/// Appends a member and a comma; nothing when it has no value.
fn push_member(object: &mut String, name: &str, json: Option<&str>) {
    if let Some(json) = json {
        object.push('"');
        object.push_str(name);
        object.push_str("\":");
        object.push_str(json);
        object.push(',');
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
