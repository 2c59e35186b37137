//! The row of a vendor.

use crate::domain::Charging;
use crate::provider::auth::KeyHeader;
use crate::provider::classify::Rule;
use crate::provider::dialect::Dialect;
use crate::provider::limit_headers::Conventions;
use crate::provider::quirks::Quirks;

/// A vendor, as spoken to in one dialect. A vendor that offers a second dialect has a second row; settings that a
/// configuration leaves out come from the first.
#[derive(Debug)]
pub struct Vendor {
    /// The name in the configuration, and that of its models in the catalogue of prices.
    pub name: &'static str,
    /// Its hosts, or the domains that its hosts are in.
    pub hosts: &'static [&'static str],
    /// The dialect that it speaks.
    pub dialect: &'static Dialect,
    /// Its address, unless each account has one of its own.
    pub base_url: Option<&'static str>,
    /// How it wants the key; `None`: as its dialect says.
    pub auth: Option<KeyHeader>,
    /// How it counts tokens against its limits.
    pub charging: Charging,
    /// How it differs from other servers.
    pub quirks: fn() -> Quirks,
    /// The meaning of its limit headers.
    pub limits: Conventions,
    /// The meaning of its errors, where the same words mean something else to other vendors.
    pub(in crate::provider) errors: &'static [Rule],
}

impl Vendor {
    /// Whether `host` (in lower case) is one of its hosts or inside one of its domains.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.hosts
            .iter()
            .any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }
}
