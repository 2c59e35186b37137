//! An HTTP answer, put through a whole dialect.

use super::headers_and_rest;
use sluice::domain::{NanoUsd, Timestamp};
use sluice::provider::vendors::{VENDORS, adapter};
use sluice::provider::{DIALECTS, Delivery, QuirkSettings, WireReply};

/// Three bytes, headers, a body: a byte chooses the dialect, one the vendor, and one the status and whether a stream
/// was asked for.
pub fn run(data: &[u8]) {
    let [which, whose, status, rest @ ..] = data else { return };
    let dialect = DIALECTS[usize::from(*which) % DIALECTS.len()];
    // Every vendor that speaks it, and a server of which nothing is known.
    let mut names: Vec<Option<&str>> =
        VENDORS.iter().filter(|vendor| vendor.dialect == dialect).map(|vendor| Some(vendor.name)).collect();
    names.push(None);
    let name = names[usize::from(*whose) % names.len()];
    let adapter = adapter(dialect, name, "http://127.0.0.1:8000/v1", &QuirkSettings::default());
    let (headers, body) = headers_and_rest(rest);
    // Successes are as likely as failures.
    let (status, delivery) = match *status {
        odd @ 0..128 if odd % 2 == 1 => (200, Delivery::Stream),
        0..128 => (200, Delivery::Whole),
        failed => (272 + u16::from(failed), Delivery::Whole),
    };
    let received_at = Some(Timestamp(1_795_176_000_000));
    // Half of the streams is read for what has come of them.
    let is_partial = delivery == Delivery::Stream && body.len() % 2 == 1;
    let reply = WireReply { status, headers: &headers, body, delivery, is_partial, received_at };
    match adapter.decode(&reply) {
        Ok(answer) => {
            let completion = answer.to_chat_completion("model", 0).to_string();
            assert!(serde_json::from_str::<serde_json::Value>(&completion).is_ok());
        }
        Err(failure) => assert!(failure.message.len() <= 4_000, "{} bytes of message", failure.message.len()),
    }
    if let Some(billed) = adapter.usage_of(&reply) {
        assert!(billed.usage.total_input() >= 0 && billed.usage.output >= 0);
        assert!(billed.cost.is_none_or(|cost| cost >= NanoUsd::ZERO));
    }
    let _ = adapter.limits(&reply);
}
