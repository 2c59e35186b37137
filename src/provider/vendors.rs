//! What is known of vendors: one row each.

mod table;
#[cfg(test)]
mod tests;

pub use table::VENDORS;

use super::adapter::Adapter;
use super::auth::KeyHeader;
use super::classify::Rule;
use super::dialect::{Dialect, Manners};
use super::limit_headers::Conventions;
use super::quirks::{QuirkSettings, Quirks};
use crate::domain::Charging;
use reqwest::Url;

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
    pub(super) errors: &'static [Rule],
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

/// The first row of the vendor with this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

/// The vendor of a server that speaks this dialect: the one that is named, whatever stands in front of it; else by its
/// host.
#[must_use]
pub fn of_server(name: Option<&str>, dialect: &Dialect, base_url: &str) -> Option<&'static Vendor> {
    let mut rows = VENDORS.iter().filter(|vendor| vendor.dialect == dialect);
    // A name that is known stands for the vendor, also where its row is for another dialect.
    if let Some(name) = name.filter(|name| named(name).is_some()) {
        return rows.find(|vendor| vendor.name == name);
    }
    let host = Url::parse(base_url).ok()?.host_str()?.to_ascii_lowercase();
    rows.find(|vendor| vendor.covers(&host))
}

/// The adapter for a server: what is known of its vendor, with an operator's word over it.
#[must_use]
pub fn adapter(
    dialect: &'static Dialect,
    vendor: Option<&str>,
    base_url: &str,
    settings: &QuirkSettings,
) -> Box<dyn Adapter> {
    (dialect.speak)(manners(of_server(vendor, dialect, base_url), settings))
}

fn manners(vendor: Option<&Vendor>, settings: &QuirkSettings) -> Manners {
    let quirks = vendor.map_or_else(Quirks::compatible, |vendor| (vendor.quirks)());
    Manners {
        quirks: quirks.with(settings),
        limits: settings.limit_headers.or(vendor.map(|vendor| vendor.limits)).unwrap_or(Conventions::NONE),
        errors: vendor.map_or(&[], |vendor| vendor.errors),
    }
}

/// The meaning of limit headers that has this name: `plain`, or that of a vendor whose meaning is its own.
#[must_use]
pub fn limit_headers(name: &str) -> Option<Conventions> {
    let of_vendor = || named(name).map(|vendor| vendor.limits).filter(|limits| *limits != Conventions::NONE);
    if name == "plain" { Some(Conventions::NONE) } else { of_vendor() }
}

/// The names that [`limit_headers`] knows.
#[must_use]
pub fn limit_headers_names() -> Vec<&'static str> {
    let own = VENDORS.iter().filter(|vendor| vendor.limits != Conventions::NONE).map(|vendor| vendor.name);
    std::iter::once("plain").chain(own).collect()
}
