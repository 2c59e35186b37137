//! The trait of a dialect, from the provider's side.
//!
//! This trait covers everything that a vendor does in its own way: the rest of the simulator knows no dialect by name.

use super::exchange::{Answer, Ask, Call, Failure, Problem};
use super::key::Key;
use super::quota::{Cost, Levels};
use super::stream::{Stream, event};
use super::wait::{Told, WaitFormat};
use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// An API as its provider serves it. Pure: the time of day comes in as an argument.
pub(crate) trait Api: Send + Sync {
    /// The name in scenarios and in the verdict.
    fn name(&self) -> &'static str;

    /// The part of the `base_url` to configure that follows the simulator's address and the provider's name.
    fn base_path(&self) -> &'static str;

    /// The header that carries the request id; absent where the provider sends none.
    fn id_header(&self) -> Option<&'static str>;

    /// The id of a call: unique within a run of the simulator, and between runs as far as `run` is.
    fn request_id(&self, run: u32, seq: u64) -> String;

    /// The key that a call carries, wherever the provider looks for it; `None` when it carries none. Most look for a
    /// bearer token.
    fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        call.bearer()
    }

    /// The place of the key that a call carries or proves to have; otherwise why it is refused.
    fn recognise(&self, call: &Call<'_>, keys: &[Key], _wall: SystemTime) -> Result<usize, Problem> {
        let key = self.key(call);
        keys.iter().position(|known| Some(known.key.as_str()) == key).ok_or(Problem::Auth)
    }

    /// Reads a call whose method is POST.
    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem>;

    /// Writes an answer.
    fn write(&self, answer: &Answer<'_>) -> Vec<u8>;

    /// Writes an answer as a stream. A dialect that has none sends its answer whole.
    fn stream(&self, answer: &Answer<'_>) -> Stream {
        Stream { content_type: "application/json", events: vec![self.write(answer).into()], end: 0 }
    }

    /// The event by which a stream says that the generation failed.
    fn error_in_stream(&self, id: &str) -> Bytes {
        event("", self.error_in_200(id).to_string().as_bytes())
    }

    /// Writes a failure; `id` is the id of the call.
    fn fail(&self, problem: &Problem, told: &Told, model: &str, id: &str) -> Failure;

    /// The error object that some gateways put into a 200. The default is the failure of an overloaded server.
    fn error_in_200(&self, id: &str) -> Value {
        self.fail(&Problem::Overloaded(None), &Told::default(), "", id).body
    }

    /// A header that says what a failure's body says.
    fn error_header(&self, _body: &Value) -> Option<(&'static str, String)> {
        None
    }

    /// States a wait in the provider's own way. Most say it in the header that HTTP has for it.
    fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
        WaitFormat::RetryAfter.tell(wait, wall)
    }

    /// The cost of a call in the token buckets when it is admitted: the input, unless the provider counts more.
    fn cost(&self, input_tokens: u64, _max_output: Option<u64>) -> Cost {
        Cost { tokens: input_tokens, input_tokens }
    }

    /// The cost of a call in the bucket of all tokens when it has ended.
    fn cost_afterwards(&self, _output_tokens: u64) -> u64 {
        0
    }

    /// Puts the limits into the headers of an answer; many providers send none.
    fn limit_headers(&self, _levels: &Levels, _wall: SystemTime, _headers: &mut HeaderMap) {}
}
