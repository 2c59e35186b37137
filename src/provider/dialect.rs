//! What a dialect says of itself: a constant in its folder, and one line in the registry.

use super::adapter::Adapter;
use super::auth::KeyHeader;
use super::classify::Rule;
use super::limit_headers::Conventions;
use super::quirks::Quirks;
use crate::domain::Charging;
use std::fmt;

/// A dialect.
pub struct Dialect {
    /// The name in the configuration.
    pub name: &'static str,
    /// How the key is sent, unless the vendor wants it otherwise.
    pub auth: KeyHeader,
    /// How tokens are counted where the vendor is not known.
    pub charging: Charging,
    /// The quirks that it heeds, by their keys in the configuration; `None`: all of them.
    pub heeds: Option<&'static [&'static str]>,
    /// The adapter for a server of these manners.
    pub(super) speak: fn(Manners) -> Box<dyn Adapter>,
}

/// How one server speaks its dialect: what is known of its vendor, with an operator's word over it.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    /// What it does differently.
    pub quirks: Quirks,
    /// What its limit headers mean.
    pub limits: Conventions,
    /// What its errors mean, before the rules of the dialect.
    pub errors: &'static [Rule],
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Dialect {}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
