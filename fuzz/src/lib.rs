//! What the targets share: an HTTP answer out of arbitrary bytes, put through a whole dialect.

use sluice::domain::Timestamp;
use sluice::provider::{Dialect, HeaderMap, HeaderName, HeaderValue, WireReply};

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

/// Two bytes of status, headers, a body: decoded by a dialect as it is at one of its vendors.
pub fn decode(dialect: Dialect, base_urls: &[&str], data: &[u8]) {
    let [which, status, rest @ ..] = data else { return };
    let base_url = base_urls[usize::from(*which) % base_urls.len()];
    let adapter = dialect.adapter(base_url);
    let (headers, body) = headers_and_rest(rest);
    // Successes are as likely as failures.
    let status = if *status < 128 { 200 } else { 272 + u16::from(*status) };
    let reply = WireReply { status, headers: &headers, body, received_at: Some(Timestamp(1_795_176_000_000)) };
    match adapter.decode(&reply) {
        Ok(answer) => {
            let completion = answer.to_chat_completion("model", 0).to_string();
            assert!(serde_json::from_str::<serde_json::Value>(&completion).is_ok());
        }
        Err(failure) => assert!(failure.message.len() <= 4_000, "{} bytes of message", failure.message.len()),
    }
    if let Some((usage, _)) = adapter.usage_of(&reply) {
        assert!(usage.total_input() >= 0 && usage.output >= 0);
    }
    let _ = adapter.limits(&reply);
}
