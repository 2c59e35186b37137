//! Jobs in the forms in which the server takes many: rows of COPY, and the JSON array of `sluice.enqueue_many`.

use super::super::claim::datetime;
use super::{BulkOptions, NewJob};
use crate::domain::Timestamp;

/// Jobs of one statement, and the number that each has in its bulk enqueue.
#[derive(Debug, Default)]
pub(super) struct Rows {
    text: String,
    numbers: Vec<u64>,
}

impl Rows {
    /// Room for this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), numbers: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The text, and the numbers of its jobs in order.
    pub(super) fn into_parts(self) -> (String, Vec<u64>) {
        (self.text, self.numbers)
    }
}

/// The part of the text that is the same for all jobs of a bulk enqueue.
#[derive(Clone, Debug)]
pub(super) struct Form {
    columns: String,
    members: String,
}

impl Form {
    pub(super) fn of(options: &BulkOptions) -> Self {
        Self { columns: columns(options), members: members(options) }
    }

    /// Appends a row of COPY.
    pub(super) fn push_row(&self, rows: &mut Rows, number: u64, job: &NewJob<'_>) {
        rows.numbers.push(number);
        let text = &mut rows.text;
        text.push_str(&self.columns);
        push_field(text, job.custom_id, '\t');
        push_field(text, job.metadata, '\t');
        push_field(text, Some(job.request), '\n');
    }

    /// Appends an object for `sluice.enqueue_many` to an array, which is left without its end.
    pub(super) fn push_keyed(&self, jobs: &mut Rows, number: u64, key: &str, job: &NewJob<'_>) {
        let text = &mut jobs.text;
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

/// The first seven columns of a row, each with the tab behind it.
fn columns(options: &BulkOptions) -> String {
    let mut columns = String::new();
    let instant = |at: Timestamp| datetime(at).to_rfc3339();
    push_field(&mut columns, Some(&options.route), '\t');
    push_field(&mut columns, Some(&options.project), '\t');
    push_field(&mut columns, options.batch.as_deref(), '\t');
    push_field(&mut columns, Some(&options.priority.to_string()), '\t');
    push_field(&mut columns, options.run_at.map(instant).as_deref(), '\t');
    push_field(&mut columns, options.deadline.map(instant).as_deref(), '\t');
    push_field(&mut columns, options.max_attempts.map(|most| most.to_string()).as_deref(), '\t');
    columns
}

/// Appends a field in the text format of COPY: a backslash before each character that would end it or begin an escape.
fn push_field(row: &mut String, field: Option<&str>, end: char) {
    match field {
        None => row.push_str("\\N"),
        Some(text) => {
            let mut rest = text;
            while let Some(at) = rest.find(['\\', '\n', '\r', '\t']) {
                let (before, special) = rest.split_at(at);
                row.push_str(before);
                row.push_str(match special.as_bytes().first() {
                    Some(b'\n') => "\\n",
                    Some(b'\r') => "\\r",
                    Some(b'\t') => "\\t",
                    _ => "\\\\",
                });
                rest = special.get(1..).unwrap_or_default();
            }
            row.push_str(rest);
        }
    }
    row.push(end);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_copy_is_escaped_where_it_would_end() {
        for (field, expected) in [
            (None, "\\N\t"),
            (Some(""), "\t"),
            (Some("\\N"), "\\\\N\t"),
            (Some("\\."), "\\\\.\t"),
            (Some("a\tb\nc\rd\\"), "a\\tb\\nc\\rd\\\\\t"),
            (Some("grün 😀\u{b}"), "grün 😀\u{b}\t"),
        ] {
            let mut row = String::new();
            push_field(&mut row, field, '\t');
            assert_eq!(row, expected);
        }
    }
}
