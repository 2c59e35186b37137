//! What the fuzzer feeds arbitrary bytes to, a module for each target. `tests/fuzz.rs` feeds them the seeds.

pub mod answer;
pub mod config;
pub mod decode;
pub mod headers;
pub mod input;
pub mod request;
pub mod spool;
pub mod tables;

use sluice::provider::{HeaderMap, HeaderName, HeaderValue};

/// Headers as lines `name: value` up to an empty line, and the rest. Lines that are no headers are left out.
pub fn headers_and_rest(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
