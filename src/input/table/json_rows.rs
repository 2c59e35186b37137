//! Rows of a JSON-lines table: an object on each line, whose members are the columns.

use super::Rows;
use super::row::{Cell, Row};
use crate::domain::raw_object::RawObject;
use crate::input::line::{Object, object_on};
use crate::input::line_reader::{LineReader, RawLine};
use crate::input::{InputError, LineError};
use serde_json::{Map, Value};
use std::io::BufRead;
use std::sync::Arc;

/// Reads rows one at a time.
pub(super) struct JsonRows<R> {
    lines: LineReader<R>,
}

impl<R: BufRead> JsonRows<R> {
    pub(super) fn new(source: R, longest: usize) -> Self {
        Self { lines: LineReader::new(source, longest) }
    }
}

/// The member by which a line is known to be a request already, and no row.
fn of_request(members: &Map<String, Value>) -> Option<&'static str> {
    let asks = |value: &Value| ["messages", "prompt", "input"].iter().any(|name| value.get(name).is_some());
    let is_address = |url: &Value| url.as_str().is_some_and(|url| url.starts_with("/v1/"));
    if members.get("body").is_some_and(asks) {
        return Some("body");
    }
    if members.get("url").is_some_and(is_address) {
        return Some("url");
    }
    let speaks = |messages: &Value| messages.get(0).is_some_and(|first| first.get("role").is_some());
    members.get("messages").is_some_and(speaks).then_some("messages")
}

fn row(number: u64, bytes: &[u8]) -> Result<Row, LineError> {
    let Object { text, members } = object_on(number, bytes, "an object, whose members are the columns of a row")?;
    if let Some(member) = of_request(&members) {
        let reason = "is of a request, and no column: the line is a whole request already. Leave out --prompt and \
                      --template";
        return Err(LineError::new(number, member, reason));
    }
    let written = RawObject::read(text).unwrap_or_default();
    let cell = |(name, written): (&str, &str)| {
        let cell = match members.get(name) {
            Some(Value::String(text)) => Cell::Text(text.clone()),
            _ => Cell::Json(written.to_owned()),
        };
        (Arc::from(name), cell)
    };
    Ok(Row { line: number, cells: written.members().map(cell).collect() })
}

impl<R: BufRead> Rows for JsonRows<R> {
    fn next_row(&mut self) -> Option<Result<Row, InputError>> {
        let longest = self.lines.longest();
        loop {
            let (number, bytes) = match self.lines.next_line() {
                Ok(None) => return None,
                Ok(Some(RawLine { number, content: Some(bytes) })) => (number, bytes),
                Ok(Some(RawLine { number, content: None })) => {
                    let reason = format!("expected at most {longest} bytes in a line, found more");
                    return Some(Err(InputError::Line(LineError::new(number, "", reason))));
                }
                Err(source) => return Some(Err(InputError::Read { line: self.lines.number(), source })),
            };
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Some(row(number, bytes).map_err(InputError::Line));
            }
        }
    }
}
