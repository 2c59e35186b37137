//! The row of a vendor.

use crate::domain::pack::PackBounds;
use crate::domain::{Charging, PromptCache, Tier};
use crate::provider::auth::KeyHeader;
use crate::provider::classify::Rule;
use crate::provider::dialect::Dialect;
use crate::provider::limit_headers::Conventions;
use crate::provider::quirks::Quirks;
use serde_json::{Value, json};

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
    /// The tiers of service that a call may ask for by name.
    pub tiers: Tiers,
    /// How it keeps the beginnings of prompts for the model of this name; `None`: it does not, or it is not known to.
    pub prompt_cache: fn(&str) -> Option<PromptCache>,
    /// Names that answers give as their model whichever model was asked for; `*` stands for any.
    pub served_as: &'static [&'static str],
    /// The most that one call for embeddings takes; `None`: as its dialect says.
    pub embeds: Option<PackBounds>,
    /// The meaning of its errors, where the same words mean something else to other vendors.
    pub(in crate::provider) errors: &'static [Rule],
}

/// The tiers of a vendor, and how a call asks for one.
#[derive(Clone, Copy, Debug)]
pub struct Tiers {
    /// The member of the body that asks for it.
    pub member: &'static str,
    /// Its value: the tier's name, or an object around that.
    pub form: Form,
    /// The tiers; none where the vendor is not known to have any.
    pub list: &'static [Tier],
}

/// The form in which a body names a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The name.
    Word,
    /// An object whose `type` is the name.
    Typed,
}

impl Tiers {
    /// Those of a vendor that is not known to have any.
    pub const NONE: Self = Self::called("service_tier", &[]);

    /// Tiers that this member asks for by their names.
    #[must_use]
    pub const fn called(member: &'static str, list: &'static [Tier]) -> Self {
        Self { member, form: Form::Word, list }
    }

    /// The value of the member for this tier.
    #[must_use]
    pub fn value(&self, tier: Tier) -> Value {
        match self.form {
            Form::Word => json!(tier.name),
            Form::Typed => json!({ "type": tier.name }),
        }
    }
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
