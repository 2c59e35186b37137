//! How long a call may take.

use std::time::Duration;

/// How long each stage of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS. A client has one such timeout: the provider's, not the rung's.
    pub connect: Duration,
    /// From sending the request to the first byte of the answer's head.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

#[cfg(test)]
impl Timeouts {
    /// Timeouts under which each stage may take as long as the whole call.
    pub(crate) const fn of(total: Duration) -> Self {
        Self { connect: total, first_byte: total, idle: total, total }
    }
}
