//! The description of a dialect: a constant in its folder, and one line in the registry.

use super::adapter::Adapter;
use super::auth::KeyHeader;
use super::classify::ErrorRules;
use super::limit_headers::Conventions;
use super::quirks::Quirks;
use super::usage_places::UsagePlaces;
use crate::domain::Charging;
use crate::domain::pack::PackBounds;
use std::fmt;

/// A dialect.
pub struct Dialect {
    /// The name in the configuration.
    pub name: &'static str,
    /// How the key is sent, unless the vendor wants it otherwise.
    pub auth: KeyHeader,
    /// How a token of an identity provider (a JWT) is sent, where that differs from a key.
    pub tokens: Option<KeyHeader>,
    /// The name of its service in signatures of AWS (SigV4), where calls can be signed instead of carrying a key.
    pub signs_for: Option<&'static str>,
    /// How tokens are counted where the vendor is not known.
    pub charging: Charging,
    /// The quirks that it heeds, by their keys in the configuration; `None`: all of them.
    pub heeds: Option<&'static [&'static str]>,
    /// The most that one call for embeddings takes, unless the vendor takes another number; `None`: there are none.
    pub embeds: Option<PackBounds>,
    /// Whether requests can bring sounds.
    pub hears: bool,
    /// Makes the adapter for a server with these manners.
    pub(super) speak: fn(Manners) -> Box<dyn Adapter>,
}

/// How one server speaks its dialect: by its vendor's row, with the operator's settings over it.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    /// How it differs from other servers.
    pub quirks: Quirks,
    /// The meaning of its limit headers.
    pub limits: Conventions,
    /// Its address, as configured.
    pub base_url: String,
    /// The meaning of its errors, consulted before the rules of the dialect.
    pub errors: ErrorRules,
    /// Where its answers count tokens and money, if not where the dialect says.
    pub usage: UsagePlaces,
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
