//! The headers in which servers of this dialect report their limits. Gateways pass on those of any vendor.

use crate::provider::anthropic;
use crate::provider::limit_headers::{COMMON, Family};

/// The headers that such servers send.
pub(in crate::provider) const LIMITS: &[&[Family]] = &[COMMON, anthropic::limits::OWN];
