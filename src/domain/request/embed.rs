//! Requests for embeddings: `{"input": …}`, in OpenAI's words.

use super::field::{Field, Members, string};
use super::{ChatRequest, RequestError};
use serde_json::Value;

/// The most inputs of one request: OpenAI's own limit, and more than any other vendor takes.
const MOST_INPUTS: usize = 2_048;

/// More dimensions than any vector has.
const MOST_DIMENSIONS: i64 = 65_536;

/// Members that ask for an answer in words. A request that has one beside `input` was meant for another API.
const OF_CONVERSATIONS: &[&str] = &[
    "instructions",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "previous_response_id",
    "response_format",
    "temperature",
    "tool_choice",
    "tools",
    "validate",
];

/// The texts or tokens that are to become vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Texts; none is empty.
    Texts(Vec<String>),
    /// Texts as the numbers of their tokens, which depend on the model; none is empty.
    Tokens(Vec<Vec<u32>>),
}

impl Inputs {
    /// How many vectors are asked for; at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }
}

/// The inputs to be embedded, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embed {
    pub inputs: Inputs,
    /// How long each vector is to be; positive.
    pub dimensions: Option<i64>,
}

/// Reads a body with `input`.
pub(super) fn read(members: &mut Members<'_>) -> Result<ChatRequest, RequestError> {
    if let Some(input) = members.take("input") {
        if let Some(other) = ["messages", "prompt"].into_iter().find(|name| members.has(name)) {
            return input.fault(format_args!("expected either `input` (for embeddings) or `{other}`, found both"));
        }
        for name in OF_CONVERSATIONS.iter().copied() {
            if let Some(field) = members.take(name) {
                let reason = "expected nothing here, as `input` asks for embeddings; a conversation goes into \
                              `messages`";
                return field.fault(reason);
            }
        }
    }
    let inputs = read_inputs(&members.need("input", WHAT)?)?;
    let dimensions = members.read("dimensions", |field| field.integer(1, MOST_DIMENSIONS))?;
    members.read("encoding_format", |field| match field.value.as_str() {
        Some("float" | "base64") => Ok(()),
        _ => field.expected("float or base64"),
    })?;
    members.take_if("stream", |stream| (*stream == Value::Bool(false)).then_some(()));
    Ok(ChatRequest {
        model: members.take("model").map(|model| model.value.as_str().unwrap_or_default().to_owned()),
        user: members.take_if("user", |user| user.as_str().map(str::to_owned)),
        // Vectors are no output that is counted.
        max_tokens: Some(0),
        embed: Some(Embed { inputs, dimensions }),
        ..ChatRequest::of(Vec::new())
    })
}

const WHAT: &str = "a text, an array of texts, or arrays of token numbers";

fn read_inputs(input: &Field<'_>) -> Result<Inputs, RequestError> {
    let items = match input.value {
        Value::String(_) => return Ok(Inputs::Texts(vec![string(input)?])),
        Value::Array(items) => items,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return input.expected(WHAT),
    };
    let Some(first) = items.first() else { return input.expected("at least one input") };
    if first.is_number() {
        return Ok(Inputs::Tokens(vec![input.each(token)?]));
    }
    if items.len() > MOST_INPUTS {
        let found = items.len();
        return input.fault(format_args!(
            "expected at most {MOST_INPUTS} inputs, found {found} (enqueue a job for each part of them)"
        ));
    }
    match first {
        Value::String(_) => input.each(string_like_the_first).map(Inputs::Texts),
        Value::Array(_) => input.each(tokens_like_the_first).map(Inputs::Tokens),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            input.each(|item| item.expected::<Vec<u32>>("a text or an array of token numbers")).map(Inputs::Tokens)
        }
    }
}

fn string_like_the_first(item: &Field<'_>) -> Result<String, RequestError> {
    if item.value.is_string() { string(item) } else { item.expected("a text, as the first input is") }
}

fn tokens_like_the_first(item: &Field<'_>) -> Result<Vec<u32>, RequestError> {
    match item.value {
        Value::Array(tokens) if tokens.is_empty() => item.expected("at least one token number"),
        Value::Array(_) => item.each(token),
        _ => item.expected("an array of token numbers, as the first input is"),
    }
}

fn token(item: &Field<'_>) -> Result<u32, RequestError> {
    let number = item.value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map_or_else(|| item.expected("the number of a token"), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, Sizes, eligibility, estimate};
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(body: &Value) -> ChatRequest {
        ChatRequest::parse(body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[test]
    fn inputs_come_in_each_of_the_forms() {
        let texts = |texts: &[&str]| Inputs::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
        for (input, expected) in [
            (json!("a"), texts(&["a"])),
            (json!(["a", " "]), texts(&["a", " "])),
            (json!([1, 2]), Inputs::Tokens(vec![vec![1, 2]])),
            (json!([[1], [2, 3]]), Inputs::Tokens(vec![vec![1], vec![2, 3]])),
        ] {
            let request = parsed(&json!({ "input": input }));
            assert_eq!(request.embed, Some(Embed { inputs: expected, dimensions: None }), "{input}");
            assert_eq!((request.messages.len(), request.max_tokens), (0, Some(0)));
        }
    }

    #[test]
    fn what_else_it_has_is_understood_or_named() {
        let body = json!({"input": "a", "model": "m", "dimensions": 64, "encoding_format": "base64", "user": "ann",
            "stream": false, "input_type": "search_query", "truncate": null});
        let request = parsed(&body);
        assert_eq!(request.embed.unwrap().dimensions, Some(64));
        assert_eq!((request.model.as_deref(), request.user.as_deref()), (Some("m"), Some("ann")));
        assert_eq!(request.unread, ["input_type"]);
        assert_eq!(serde_json::from_str::<Value>(&request.raw).unwrap(), body);
    }

    #[test]
    fn a_fault_names_its_field_and_what_was_expected() {
        let many: Vec<&str> = vec!["a"; 2_049];
        let with = |name: &str, value: Value| {
            let mut body = json!({"input": "a"});
            body[name] = value;
            body
        };
        for (body, expected) in [
            (json!({"input": ""}), "input: expected a string that is not empty, found an empty string"),
            (json!({"input": []}), "input: expected at least one input, found an empty array"),
            (json!({"input": 7}), "input: expected a text, an array of texts, or arrays of token numbers, found 7"),
            (
                json!({"input": {}}),
                "input: expected a text, an array of texts, or arrays of token numbers, found an object",
            ),
            (json!({"input": ["a", ""]}), "input[1]: expected a string that is not empty, found an empty string"),
            (json!({"input": ["a", [1]]}), "input[1]: expected a text, as the first input is, found an array"),
            (json!({"input": ["a", 1]}), "input[1]: expected a text, as the first input is, found 1"),
            (json!({"input": ["a", null]}), "input[1]: expected a text, as the first input is, found null"),
            (
                json!({"input": [[1], "a"]}),
                "input[1]: expected an array of token numbers, as the first input is, found `a`",
            ),
            (
                json!({"input": [[1], 2]}),
                "input[1]: expected an array of token numbers, as the first input is, found 2",
            ),
            (json!({"input": [[]]}), "input[0]: expected at least one token number, found an empty array"),
            (json!({"input": [[1, -1]]}), "input[0][1]: expected the number of a token, found -1"),
            (json!({"input": [1, "a"]}), "input[1]: expected the number of a token, found `a`"),
            (json!({"input": [1, 1.5]}), "input[1]: expected the number of a token, found 1.5"),
            (
                json!({"input": [{"role": "user"}]}),
                "input[0]: expected a text or an array of token numbers, found an object",
            ),
            (
                json!({"input": many}),
                "input: expected at most 2048 inputs, found 2049 (enqueue a job for each part of them)",
            ),
            (with("messages", json!([])), "input: expected either `input` (for embeddings) or `messages`, found both"),
            (with("prompt", json!("a")), "input: expected either `input` (for embeddings) or `prompt`, found both"),
            (with("dimensions", json!(0)), "dimensions: expected a whole number from 1 to 65536, found 0"),
            (with("dimensions", json!("a")), "dimensions: expected a whole number from 1 to 65536, found `a`"),
            (with("encoding_format", json!("int8")), "encoding_format: expected float or base64, found `int8`"),
            (
                with("max_output_tokens", json!(9)),
                "max_output_tokens: expected nothing here, as `input` asks for embeddings; a conversation goes into \
                 `messages`",
            ),
            (
                with("instructions", json!("Be brief.")),
                "instructions: expected nothing here, as `input` asks for embeddings; a conversation goes into \
                 `messages`",
            ),
        ] {
            assert_eq!(ChatRequest::parse(&body).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn only_what_is_sent_counts_and_each_input_has_the_window_to_itself() {
        let request = parsed(&json!({"input": ["abcd".repeat(100), "abcd".repeat(50)]}));
        assert_eq!(estimate::input_tokens(&request), 150);
        assert_eq!(estimate::input_tokens(&parsed(&json!({"input": [[1, 2, 3], [4]]}))), 4);
        let window = |tokens| Capabilities { context_window: Some(tokens), ..Capabilities::default() };
        let sizes = Sizes { input: 150, ..Sizes::default() };
        assert_eq!(eligibility::ineligible(&window(100), &sizes, &request), None);
        assert!(eligibility::ineligible(&window(99), &sizes, &request).is_some());
    }

    proptest! {
        #[test]
        fn every_list_of_texts_is_read_or_refused_and_counts_at_least_one_token(
            texts in prop::collection::vec(".*", 0..6),
        ) {
            let is_whole = !texts.is_empty() && texts.iter().all(|text| !text.is_empty());
            match ChatRequest::parse(&json!({ "input": texts })) {
                Ok(request) => {
                    prop_assert!(is_whole && estimate::input_tokens(&request) >= 1);
                    prop_assert_eq!(request.embed.unwrap().inputs, Inputs::Texts(texts));
                }
                Err(error) => prop_assert!(!is_whole && error.field.starts_with("input")),
            }
        }
    }
}
