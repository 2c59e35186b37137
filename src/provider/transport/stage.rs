//! Failures that end a call before its answer does.

use crate::domain::{ErrorClass, Failure, Scope};
use crate::provider::scrub;
use std::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// `start + duration`; a timeout beyond what the clock can represent becomes a century.
pub(super) fn deadline(start: Instant, duration: Duration) -> Instant {
    start.checked_add(duration).unwrap_or_else(|| start + Duration::from_hours(100 * 365 * 24))
}

pub(super) fn timed_out(message: &str) -> Failure {
    Failure::new(ErrorClass::Timeout, Scope::Model, message)
}

/// The thread that made the call has ended, as it does with its provider.
pub(super) fn gone() -> Failure {
    Failure::new(ErrorClass::Network, Scope::Network, "the thread of its connections has ended")
}

/// The words of a system's error without its number, which says nothing to a user.
fn without_number(words: &str) -> &str {
    words.split_once(" (os error").map_or(words, |(words, _)| words)
}

/// The words of the innermost cause of an error, if it has one.
pub(super) fn root_of(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut root = None;
    while let Some(inner) = cause {
        root = Some(inner.to_string());
        cause = inner.source();
    }
    root.map(|root| scrub::clean(without_number(&root)))
}

/// A connection that failed or broke. A body that arrives whole and cannot be decompressed is the server's fault.
pub(super) fn broken(error: &reqwest::Error, when: &str) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut root = String::new();
    let mut from_the_wire = false;
    let mut cut = false;
    while let Some(inner) = cause {
        from_the_wire |= inner.is::<hyper::Error>();
        cut |= inner.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof);
        root = inner.to_string();
        cause = inner.source();
    }
    let root = if root.is_empty() { "unknown cause".to_owned() } else { without_number(&root).to_owned() };
    if error.is_decode() && !from_the_wire && !cut {
        return Failure::new(
            ErrorClass::ServerError,
            Scope::Model,
            scrub::clean(&format!("the answer cannot be decompressed: {root}")),
        );
    }
    if error.is_builder() {
        // Nothing was sent; the configuration was checked, so this is not expected.
        return Failure::new(
            ErrorClass::Network,
            Scope::Provider,
            scrub::clean(&format!("the call cannot be made: {root}")),
        );
    }
    let what = match (error.is_connect(), error.is_timeout()) {
        (true, true) => "no connection in time".to_owned(),
        (true, false) => format!("no connection: {root}"),
        (false, _) => format!("the connection broke {when}: {root}"),
    };
    let class = if error.is_connect() { ErrorClass::Unreachable } else { ErrorClass::Network };
    Failure::new(class, Scope::Network, scrub::clean(&what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_s_error_is_told_without_its_number() {
        for (said, told) in [("Connection refused (os error 111)", "Connection refused"), ("broken", "broken")] {
            assert_eq!(without_number(said), told);
        }
    }
}
