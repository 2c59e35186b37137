//! Reading jobs from files that may be larger than memory.
//!
//! A file of JSON Lines holds one request to a line, in any mix of four formats: the lines of an OpenAI batch
//! (`{"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}`, or `"url": "/v1/embeddings"`),
//! bare request bodies of either kind, `{"prompt": "…"}`, and `{"vars": {…}}` for the template of a route. Members
//! beside a `prompt` or `vars` that are no parameters go into the job's metadata. In the other two formats the request
//! is sent as it is, and members that no provider is known to take are named. A file may be compressed with gzip, begin
//! with a byte order mark and have blank lines.
//!
//! A table holds one row for each request: see [`table`].
//!
//! Memory: one line or row at a time (see [`ReadLimits::line_bytes`]) and about 35 bytes per distinct `custom_id`, by
//! which a second use is found. Of Parquet, a page of each column.

mod along;
mod author_rows;
mod custom_ids;
pub mod invoice;
mod json_text;
mod line;
mod line_reader;
mod members;
mod opening;
mod requests;
mod source;
mod table;

pub use along::{Along, RouteByName};
pub use author_rows::{AuthorCell, AuthorRows};
pub use members::{MemberNote, MemberNotes};
pub use opening::{HeldBy, InputFormat, Opened, Reading, read_rows};
pub use requests::{Complete, Completion};
pub use source::{InputSource, Progress};
pub use table::{Asking, Jobs};

use crate::domain::ChatRequest;
use custom_ids::CustomIds;
use line_reader::{LineReader, RawLine};
use requests::Requests;
use std::fmt;
use std::io::BufRead;

/// A request that was read and found to be in order.
#[derive(Clone, Debug, PartialEq)]
pub struct InputJob {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The author's name for it.
    pub custom_id: Option<String>,
    /// A JSON object that accompanies the job, as it was written.
    pub metadata: Option<String>,
    /// The request body, as it was written.
    pub body: String,
    /// The body, parsed.
    pub request: ChatRequest,
    /// Members that its author should look at.
    pub notes: Vec<MemberNote>,
}

/// A line that is no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: u64,
    /// The path of the member at fault, such as `body.messages[1].role`; empty when the line as a whole is at fault.
    pub field: String,
    /// The fault. Never quotes more than a short word of the line.
    pub reason: String,
}

impl LineError {
    fn new(line: u64, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { line, field: field.into(), reason: reason.into() }
    }
}

/// `LINE: FIELD: REASON`, to be put behind a file's name.
impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

/// Why there is no job here.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// One line is at fault; the next may be in order.
    #[error("{0}")]
    Line(LineError),
    /// The file cannot be read any further. The rest is unknown, so nothing may be taken for complete.
    #[error("{line}: cannot be read any further: {source}")]
    Read {
        /// The line at which reading ended.
        line: u64,
        /// The message of the system or the decompressor.
        source: std::io::Error,
    },
}

/// The bound on how much of a file is read into memory.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// The longest line, in bytes.
    pub line_bytes: usize,
}

impl ReadLimits {
    /// The most that Postgres can store as one `jsonb` value, with room for its own form of it, in bytes.
    pub const MOST_LINE_BYTES: usize = 128 << 20;
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { line_bytes: 32 << 20 }
    }
}

/// The jobs of a file, in order. Ends after [`InputError::Read`]; goes on after [`InputError::Line`].
pub struct JobReader<R> {
    lines: LineReader<R>,
    requests: Requests,
    custom_ids: CustomIds,
    ended: bool,
}

impl<R: BufRead> JobReader<R> {
    /// Reads from text that is already decompressed.
    pub fn new(source: R, limits: ReadLimits) -> Self {
        let longest = limits.line_bytes.clamp(1, ReadLimits::MOST_LINE_BYTES);
        let (requests, custom_ids) = (Requests::default(), CustomIds::default());
        Self { lines: LineReader::new(source, longest), requests, custom_ids, ended: false }
    }

    /// The same with what routes add to the requests.
    #[must_use]
    pub fn completed_by(mut self, completion: Completion) -> Self {
        self.requests = Requests::new(completion);
        self
    }

    fn read(&mut self) -> Result<Option<InputJob>, InputError> {
        let longest = self.lines.longest();
        loop {
            let RawLine { number, content } = match self.lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(source) => return Err(InputError::Read { line: self.lines.number(), source }),
            };
            let Some(bytes) = content else {
                let reason = format!("expected at most {longest} bytes in a line, found more");
                return Err(InputError::Line(LineError::new(number, "", reason)));
            };
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let job = line::parse(number, bytes, &mut self.requests).map_err(InputError::Line)?;
            if let Some(custom_id) = &job.custom_id
                && let Some(first) = self.custom_ids.note(custom_id, number)
            {
                let reason = format!("lines {first} and {number} have the same custom_id; expected each only once");
                return Err(InputError::Line(LineError::new(number, "custom_id", reason)));
            }
            return Ok(Some(job));
        }
    }
}

impl<R: BufRead> Iterator for JobReader<R> {
    type Item = Result<InputJob, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let job = self.read().transpose();
        self.ended = matches!(job, None | Some(Err(InputError::Read { .. })));
        job
    }
}

#[cfg(test)]
mod tests;
