//! How a job of a batch ended: a line of an OpenAI-batch file, or a row of a table.

use super::dollars::Dollars;
use crate::domain::Vectors;
use crate::store::results::{EndedJob, ExportedJob, HttpError};
use anyhow::Context as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// A line of an OpenAI-batch output or error file. The member `sluice` is ours; consumers of the format ignore it.
#[derive(Debug, Serialize)]
pub struct LineView<'a> {
    id: String,
    custom_id: String,
    response: Option<Response<'a>>,
    error: Option<LineFault<'a>>,
    sluice: ServedBy<'a>,
}

#[derive(Debug, Serialize)]
struct Response<'a> {
    status_code: i16,
    request_id: Option<&'a str>,
    body: Box<RawValue>,
}

#[derive(Debug, Serialize)]
struct LineFault<'a> {
    code: &'a str,
    message: &'a str,
}

/// The target that answered, and the cost.
#[derive(Debug, Serialize)]
struct ServedBy<'a> {
    job: i64,
    provider: Option<&'a str>,
    model: Option<&'a str>,
    attempts: i16,
    enqueued_by: &'a str,
    /// Dollars as an exact decimal number; null when the price is unknown.
    cost: Option<String>,
    repaired: bool,
    /// How sure its rung was of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    /// Its rung was not sure enough, and no surer answer came.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    low_confidence: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
}

/// The body of an HTTP error, as OpenAI writes it.
#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<()>,
    code: Option<&'a str>,
}

impl<'a> LineView<'a> {
    /// The line of a job.
    ///
    /// # Errors
    /// When the stored answer is not JSON.
    pub fn of(job: &'a ExportedJob) -> anyhow::Result<Self> {
        let (response, error) = match &job.ending {
            Some(EndedJob::Succeeded { response }) => {
                let body = raw(response.as_deref().unwrap_or("null"))?;
                (Some(Response { status_code: 200, request_id: job.request_id.as_deref(), body }), None)
            }
            Some(EndedJob::Failed { class, reason, http: Some(http) }) => {
                let HttpError { status, code, message } = http;
                let error = ErrorDetail {
                    message: message.as_deref().unwrap_or(reason),
                    r#type: class,
                    param: None,
                    code: code.as_deref(),
                };
                let body = to_raw_value(&ErrorBody { error })?;
                (Some(Response { status_code: *status, request_id: job.request_id.as_deref(), body }), None)
            }
            Some(EndedJob::Failed { class, reason, http: None }) => {
                (None, Some(LineFault { code: class, message: reason }))
            }
            Some(EndedJob::Cancelled) => {
                (None, Some(LineFault { code: "job_cancelled", message: "The job was cancelled." }))
            }
            None => (None, Some(LineFault { code: "job_unfinished", message: "The job is not finished." })),
        };
        let class = match &job.ending {
            Some(EndedJob::Failed { class, .. }) => Some(class.as_str()),
            Some(EndedJob::Succeeded { .. } | EndedJob::Cancelled) | None => None,
        };
        Ok(Self {
            id: format!("batch_req_{}", job.job),
            custom_id: custom_id(job),
            response,
            error,
            sluice: ServedBy {
                job: job.job,
                provider: job.provider.as_deref(),
                model: job.model.as_deref(),
                attempts: job.attempts,
                enqueued_by: &job.enqueued_by,
                cost: job.cost.map(|cost| Dollars(cost).to_string()),
                repaired: job.repaired,
                confidence: job.confidence,
                low_confidence: job.low_confidence,
                class,
                metadata: job.metadata.as_deref().map(raw).transpose()?,
            },
        })
    }
}

fn raw(json: &str) -> anyhow::Result<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).context("a stored value is not JSON")
}

/// The id of a line. Consumers join on it, so each line has one.
pub(super) fn custom_id(job: &ExportedJob) -> String {
    job.custom_id.clone().unwrap_or_else(|| format!("job-{}", job.job))
}

/// The text of a chat completion; of embeddings how many and how long they are, for a page on which their numbers would
/// be in the way.
pub(super) fn short_text_of(response: Option<&str>) -> anyhow::Result<Option<String>> {
    Ok(answer_of(response)?.map(|answer| match answer {
        StoredAnswer::Text(text) => text,
        StoredAnswer::Vectors(lists) => {
            let dimension = |list: &String| serde_json::from_str::<Vec<IgnoredAny>>(list).map_or(0, |list| list.len());
            Vectors::told(lists.len(), lists.first().map_or(0, dimension))
        }
    }))
}

/// The text of a chat completion; of embeddings their numbers as JSON: `[…]` of one, `[[…],[…]]` of several.
pub(super) fn text_of(response: Option<&str>) -> anyhow::Result<Option<String>> {
    Ok(answer_of(response)?.map(|answer| match answer {
        StoredAnswer::Text(text) => text,
        StoredAnswer::Vectors(lists) => match lists.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(",")),
        },
    }))
}

/// What a stored response says.
enum StoredAnswer {
    Text(String),
    /// The list of numbers of each vector, as JSON without spaces.
    Vectors(Vec<String>),
}

fn answer_of(response: Option<&str>) -> anyhow::Result<Option<StoredAnswer>> {
    #[derive(Deserialize)]
    struct Completion<'a> {
        #[serde(default)]
        choices: Vec<Choice>,
        object: Option<String>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        embedding: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Choice {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        content: Option<String>,
    }
    let Some(response) = response else { return Ok(None) };
    let completion: Completion<'_> = serde_json::from_str(response).context("a stored answer is no chat completion")?;
    if let (Some("list"), Some(data)) = (completion.object.as_deref(), completion.data) {
        let data: Vec<Item<'_>> =
            serde_json::from_str(data.get()).context("a stored answer is no list of embeddings")?;
        let plain = |item: &Item<'_>| item.embedding.get().chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return Ok(Some(StoredAnswer::Vectors(data.iter().map(plain).collect())));
    }
    let first = completion.choices.into_iter().next();
    Ok(first.and_then(|choice| choice.message.content).map(StoredAnswer::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_a_table_is_a_text_or_the_vectors_and_on_a_page_their_size() {
        let item = r#"{"object":"embedding","index":0,"embedding":[0.5, -1.5e-7]}"#;
        for (response, expected, short) in [
            (r#"{"choices":[{"message":{"content":"Hi"}}]}"#.to_owned(), Some("Hi"), Some("Hi")),
            (r#"{"choices":[{"message":{"content":null}}]}"#.to_owned(), None, None),
            (r#"{"choices":[{"message":{"content":"Hi"}}],"data":7}"#.to_owned(), Some("Hi"), Some("Hi")),
            (format!(r#"{{"object":"list","data":[{item}]}}"#), Some("[0.5,-1.5e-7]"), Some("1 vector of 2 numbers")),
            (
                format!(r#"{{"object":"list","data":[{item},{item}]}}"#),
                Some("[[0.5,-1.5e-7],[0.5,-1.5e-7]]"),
                Some("2 vectors of 2 numbers"),
            ),
        ] {
            assert_eq!(text_of(Some(&response)).unwrap().as_deref(), expected, "{response}");
            assert_eq!(short_text_of(Some(&response)).unwrap().as_deref(), short, "{response}");
        }
    }
}
