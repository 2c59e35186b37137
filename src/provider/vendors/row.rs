//! What a row says of a vendor.

use crate::domain::Charging;
use crate::provider::auth::KeyHeader;
use crate::provider::classify::Rule;
use crate::provider::dialect::Dialect;
use crate::provider::limit_headers::Conventions;
use crate::provider::quirks::Quirks;

/// A vendor, as it is spoken to in one dialect. A vendor with a second door, for another dialect, has a second row; what
/// a configuration leaves out is that of the first.
#[derive(Debug)]
pub struct Vendor {
    /// The name in the configuration, and that of its models in the catalogue of prices.
    pub name: &'static str,
    /// Its hosts, or the domains that its hosts are in.
    pub hosts: &'static [&'static str],
    /// What it speaks.
    pub dialect: &'static Dialect,
    /// Where it is asked, unless each account has an address of its own.
    pub base_url: Option<&'static str>,
    /// How it wants the key; `None`: as its dialect has it.
    pub auth: Option<KeyHeader>,
    /// How it counts tokens against its limits.
    pub charging: Charging,
    /// What it does differently.
    pub quirks: fn() -> Quirks,
    /// What its limit headers mean.
    pub limits: Conventions,
    /// What its errors mean where other vendors mean something else by the same words.
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
