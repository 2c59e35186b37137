//! Headers, and a body that says how long to wait.

use sluice::domain::Timestamp;
use sluice::provider::limit_headers::{COMMON, Conventions, observe};
use sluice::provider::{durations, wait_hint};

/// Headers, and a body that says how long to wait.
pub fn run(data: &[u8]) {
    let (headers, rest) = super::headers_and_rest(data);
    for now in [None, Some(Timestamp(1_795_176_000_000))] {
        let _ = wait_hint::of_headers(&headers, now);
        for seen in observe(&headers, now, &[COMMON], &Conventions::NONE) {
            let _ = format!("{seen:?}");
        }
        if let Ok(text) = std::str::from_utf8(rest) {
            let _ = durations::parse(text, now);
            let _ = wait_hint::of_message(text, now);
        }
    }
    if let Ok(body) = serde_json::from_slice(rest) {
        let _ = wait_hint::of_body(&body, None);
    }
}
