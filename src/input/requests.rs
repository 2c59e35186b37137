//! Reads requests: what a route adds to them is added, and a schema is compiled once for all lines that bring the same.

use crate::domain::defaults::{VARS, sketch, unused_vars};
use crate::domain::{ChatRequest, RequestError};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Reads the request of a job from its body and its metadata, as the route completes it that the job would go along.
pub type Complete = dyn Fn(&str, Option<&str>) -> Result<ChatRequest, RequestError> + Send + Sync;

/// What routes add to requests.
#[derive(Clone, Default)]
pub enum Completion {
    /// Nothing.
    #[default]
    Nothing,
    /// This machine does not know the routes: of requests that hold just `vars` only their form is checked.
    Unknown,
    /// What this function adds.
    By(Arc<Complete>),
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Unknown => "Unknown",
            Self::By(_) => "By",
        })
    }
}

/// Reads the requests of a file.
#[derive(Debug, Default)]
pub(super) struct Requests {
    completion: Completion,
    /// The last schema that was in order.
    known_schema: Option<Value>,
}

impl Requests {
    pub(super) fn new(completion: Completion) -> Self {
        Self { completion, known_schema: None }
    }

    /// Reads a body that has been parsed already.
    pub(super) fn read(
        &mut self,
        body: &Value,
        written: &str,
        metadata: Option<&str>,
    ) -> Result<ChatRequest, RequestError> {
        let request = match &self.completion {
            Completion::By(complete) => complete(written, metadata)?,
            Completion::Unknown if body.get(VARS).is_some_and(Value::is_object) => {
                sketch(written).unwrap_or_else(|| Err(unused_vars()))?
            }
            Completion::Nothing | Completion::Unknown => ChatRequest::read_written(body, written)?,
        };
        if let Some(schema) = request.schema()
            && self.known_schema.as_ref() != Some(schema)
        {
            request.compile_schema()?;
            self.known_schema = Some(schema.clone());
        }
        Ok(request)
    }
}
