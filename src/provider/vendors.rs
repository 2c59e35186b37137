//! The known vendors: one row each.

mod errors;
mod row;
mod table;
#[cfg(test)]
mod tests;

pub use row::{Tiers, Vendor};
pub use table::VENDORS;

use super::adapter::Adapter;
use super::classify::ErrorRules;
use super::dialect::{Dialect, Manners};
use super::limit_headers::Conventions;
use super::quirks::{QuirkSettings, Quirks};
use crate::domain::prefix::CacheForm;
use crate::domain::{PromptCache, Tier};
use reqwest::Url;

/// The first row of the vendor with this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

/// The vendor of a server that speaks this dialect: the named one, regardless of the address; else by its host.
#[must_use]
pub fn of_server(name: Option<&str>, dialect: &Dialect, base_url: &str) -> Option<&'static Vendor> {
    let mut rows = VENDORS.iter().filter(|vendor| vendor.dialect == dialect);
    // A known name stands for the vendor, even where its row is for another dialect.
    if let Some(name) = name.filter(|name| named(name).is_some()) {
        return rows.find(|vendor| vendor.name == name);
    }
    let host = Url::parse(base_url).ok()?.host_str()?.to_ascii_lowercase();
    rows.find(|vendor| vendor.covers(&host))
}

/// The tiers that this server's calls may ask for.
#[must_use]
pub fn tiers(name: Option<&str>, dialect: &Dialect, base_url: &str) -> Tiers {
    of_server(name, dialect, base_url).map_or(Tiers::NONE, |vendor| vendor.tiers)
}

/// How this server keeps the beginnings of prompts for this model; `None`: it does not, or it is not known to. Of a
/// server whose vendor is unknown it is known where its dialect has marks for that.
#[must_use]
pub fn prompt_cache(name: Option<&str>, dialect: &Dialect, base_url: &str, model: &str) -> Option<PromptCache> {
    if let Some(vendor) = of_server(name, dialect, base_url) {
        return (vendor.prompt_cache)(model);
    }
    let mut alike = VENDORS.iter().filter(|vendor| vendor.dialect == dialect);
    let cache = alike.find_map(|vendor| (vendor.prompt_cache)(model))?;
    matches!(cache.form, CacheForm::Marks { .. }).then_some(cache)
}

/// The tiers of all vendors.
#[must_use]
pub fn all_tiers() -> Vec<Tier> {
    VENDORS.iter().flat_map(|vendor| vendor.tiers.list).copied().collect()
}

/// The members of a body by which the known vendors are asked for a tier.
pub(super) fn tier_members() -> impl Iterator<Item = &'static str> {
    VENDORS.iter().filter(|vendor| !vendor.tiers.list.is_empty()).map(|vendor| vendor.tiers.member)
}

/// Whether this host (in lower case) belongs to a vendor whose calls can be signed.
#[must_use]
pub fn takes_signatures(host: &str) -> bool {
    VENDORS.iter().any(|vendor| vendor.dialect.signs_for.is_some() && vendor.covers(host))
}

/// The adapter for a server: its vendor's row, with the operator's settings over it.
#[must_use]
pub fn adapter(
    dialect: &'static Dialect,
    vendor: Option<&str>,
    base_url: &str,
    settings: &QuirkSettings,
) -> Box<dyn Adapter> {
    (dialect.speak)(manners(of_server(vendor, dialect, base_url), base_url, settings))
}

fn manners(vendor: Option<&Vendor>, base_url: &str, settings: &QuirkSettings) -> Manners {
    let quirks = vendor.map_or_else(Quirks::compatible, |vendor| (vendor.quirks)());
    Manners {
        quirks: quirks.with(settings),
        limits: settings.limit_headers.or(vendor.map(|vendor| vendor.limits)).unwrap_or(Conventions::NONE),
        base_url: base_url.to_owned(),
        errors: ErrorRules {
            own: settings.errors.as_slice().into(),
            vendor: vendor.map_or(&[], |vendor| vendor.errors),
        },
        usage: settings.usage.clone(),
    }
}

/// The convention for limit headers with this name: `plain`, or that of a vendor with a meaning of its own.
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
