//! The headers by which servers of this dialect tell of their limits. Gateways pass on those of any vendor.

use crate::provider::anthropic;
use crate::provider::limit_headers::{COMMON, Family};

/// What such servers send.
pub(in crate::provider) const LIMITS: &[&[Family]] = &[COMMON, anthropic::limits::OWN];
