//! Tiers of service: what a vendor sells cheaper, dearer or faster under the name of the same model.
//!
//! A rung asks for a tier by a suffix, `openai/gpt-5.4@flex`. Models have names with `@` too (`@cf/meta/llama-3`,
//! `claude-3-5-sonnet@20240620`), so the text after the last `@` is a tier only by the rule of [`split`].

use super::price::special_tier;
use super::{ErrorClass, Failure, Scope};
use std::fmt;

/// A tier of service, as a vendor sells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier {
    /// Its name behind the `@`, which is also the vendor's word in its answers.
    pub name: &'static str,
    /// Whether its calls are refused when the vendor needs the capacity for others. That is part of the bargain, and
    /// no fault of the vendor's.
    pub is_spare: bool,
    /// Whether its limits are others than those of the usual tier.
    pub has_own_limits: bool,
}

impl Tier {
    /// A tier that is served as reliably as the usual one, and within the same limits.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, is_spare: false, has_own_limits: false }
    }

    /// A tier that is served from spare capacity.
    #[must_use]
    pub const fn spare(name: &'static str) -> Self {
        Self { is_spare: true, ..Self::new(name) }
    }

    /// The same tier, with limits of its own.
    #[must_use]
    pub const fn with_own_limits(self) -> Self {
        Self { has_own_limits: true, ..self }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why a name asks for a tier that cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTier {
    /// Nothing follows the `@`.
    Empty,
    /// Nothing is before the `@`.
    NoModel,
    /// Two tiers follow each other.
    Twice,
    /// The vendor has tiers, and this is none of them.
    Unknown(String),
    /// The vendor is not known to have tiers, and other vendors have one of this name.
    NoneHere(String),
}

/// The name of a model, and the tier that is asked for by a suffix to it. `of_vendor` are the tiers of its vendor,
/// `of_any` those of all vendors.
///
/// The text after the last `@` is a tier if the vendor has a tier of that name. Otherwise it belongs to the model's
/// name, unless it can only be meant as a tier: a word of letters where the vendor has tiers, or a tier of other
/// vendors that is not the usual one.
///
/// # Errors
/// It can only be meant as a tier, and the vendor has none of that name.
pub fn split<'a>(model: &'a str, of_vendor: &[Tier], of_any: &[Tier]) -> Result<(&'a str, Option<Tier>), NoTier> {
    let Some((name, word)) = model.rsplit_once('@') else { return Ok((model, None)) };
    let named = |word: &str| of_vendor.iter().find(|tier| tier.name == word);
    if name.is_empty() {
        // `@cf/meta/llama-3` is a model, and `@flex` is none.
        return if named(word).is_some() { Err(NoTier::NoModel) } else { Ok((model, None)) };
    }
    if word.trim().is_empty() {
        return Err(NoTier::Empty);
    }
    if let Some(tier) = named(word) {
        let is_twice = name.rsplit_once('@').is_some_and(|(_, before)| named(before.trim()).is_some());
        return if is_twice { Err(NoTier::Twice) } else { Ok((name, Some(*tier))) };
    }
    let is = |tier: &&Tier| tier.name == word.trim();
    let is_word = word.trim().bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'));
    if !of_vendor.is_empty() && is_word {
        return Err(NoTier::Unknown(word.to_owned()));
    }
    if of_any.iter().any(|tier| is(&tier)) && special_tier(word).is_some() {
        return Err(NoTier::NoneHere(word.to_owned()));
    }
    Ok((model, None))
}

/// Words by which a refusal concerns the tier that was asked for.
const NAMES_A_TIER: &[&str] = &["service_tier", "service tier", "servicetier"];

/// Takes a failure for what it means on a rung that asks for this tier.
///
/// A lack of capacity in a tier of spare capacity says nothing of the provider. A refusal of the tier as such concerns
/// every request of the rung, which another model or tier would not meet.
pub fn heed(tier: Option<Tier>, failure: &mut Failure) {
    let Some(tier) = tier else { return };
    match failure.class {
        ErrorClass::Overloaded if tier.is_spare => {
            failure.class = ErrorClass::NoCapacity;
            failure.scope = Scope::Model;
        }
        ErrorClass::Refused | ErrorClass::InvalidRequest if names_a_tier(&failure.message) => {
            failure.class = ErrorClass::NotFound;
            failure.scope = Scope::Model;
            failure.bearing = super::Bearing::AsScoped;
            failure.mend = None;
        }
        _ => {}
    }
}

fn names_a_tier(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    NAMES_A_TIER.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Bearing;

    const FLEX: Tier = Tier::spare("flex");
    const FAST: Tier = Tier::new("fast");
    const USUAL: Tier = Tier::new("default");
    const ANY: &[Tier] = &[FLEX, FAST, USUAL];

    #[test]
    fn a_suffix_is_a_tier_only_where_the_vendor_has_it() {
        for (model, of_vendor, expected) in [
            ("gpt-5.4@flex", ANY, Ok(("gpt-5.4", Some(FLEX)))),
            ("gpt-5.4@default", ANY, Ok(("gpt-5.4", Some(USUAL)))),
            ("gpt-5.4", ANY, Ok(("gpt-5.4", None))),
            ("a/b@c@fast", ANY, Ok(("a/b@c", Some(FAST)))),
            ("gpt-5.4@", ANY, Err(NoTier::Empty)),
            ("llama@", &[][..], Err(NoTier::Empty)),
            ("gpt-5.4@flexx", ANY, Err(NoTier::Unknown("flexx".to_owned()))),
            ("gpt-5.4@Flex", ANY, Err(NoTier::Unknown("Flex".to_owned()))),
            ("gpt-5.4@fast", &[FLEX][..], Err(NoTier::Unknown("fast".to_owned()))),
            ("mistral-small@flex", &[][..], Err(NoTier::NoneHere("flex".to_owned()))),
            // Names of models.
            ("@cf/meta/llama-3", &[][..], Ok(("@cf/meta/llama-3", None))),
            ("@cf/meta/llama-3", ANY, Ok(("@cf/meta/llama-3", None))),
            ("x/@cf/meta/llama-3", ANY, Ok(("x/@cf/meta/llama-3", None))),
            ("@flex", &[][..], Ok(("@flex", None))),
            ("@flex", ANY, Err(NoTier::NoModel)),
            ("gpt-5.4@flex ", ANY, Err(NoTier::Unknown("flex ".to_owned()))),
            ("gpt-5.4@ flex", ANY, Err(NoTier::Unknown(" flex".to_owned()))),
            ("gpt-5.4@flex@flex", ANY, Err(NoTier::Twice)),
            ("gpt-5.4@fast@flex", ANY, Err(NoTier::Twice)),
            ("claude-3-5-sonnet@20240620", ANY, Ok(("claude-3-5-sonnet@20240620", None))),
            ("claude-3-5-sonnet@20240620@flex", ANY, Ok(("claude-3-5-sonnet@20240620", Some(FLEX)))),
            ("gemini-2.0-flash@001", ANY, Ok(("gemini-2.0-flash@001", None))),
            // Vertex calls a version so.
            ("claude-3-5-sonnet@default", &[][..], Ok(("claude-3-5-sonnet@default", None))),
            ("claude-3-5-sonnet@latest", &[][..], Ok(("claude-3-5-sonnet@latest", None))),
            ("", ANY, Ok(("", None))),
        ] {
            assert_eq!(split(model, of_vendor, ANY), expected, "{model} of {of_vendor:?}");
        }
    }

    #[test]
    fn a_lack_of_capacity_is_told_from_a_failing_provider_by_the_tier() {
        use ErrorClass::{InvalidRequest, NoCapacity, NotFound, Overloaded, RateLimit, Refused, ServerError};
        let plain = "Resource Unavailable";
        let tiered = "'service_tier' of 'flex' is not supported with this model";
        for (tier, class, message, expected) in [
            (None, Overloaded, plain, Overloaded),
            (Some(FLEX), Overloaded, plain, NoCapacity),
            (Some(FAST), Overloaded, plain, Overloaded),
            (Some(FLEX), RateLimit, plain, RateLimit),
            (Some(FLEX), ServerError, plain, ServerError),
            (Some(FLEX), Refused, tiered, NotFound),
            (Some(FAST), InvalidRequest, "Invalid value for serviceTier", NotFound),
            (Some(FLEX), InvalidRequest, plain, InvalidRequest),
            (None, Refused, tiered, Refused),
        ] {
            let mut failure = Failure::new(class, Scope::Request, message);
            failure.bearing = Bearing::InDoubt;
            heed(tier, &mut failure);
            assert_eq!(failure.class, expected, "{tier:?} {class} {message}");
            if expected == NotFound {
                assert_eq!((failure.scope, failure.bearing), (Scope::Model, Bearing::AsScoped));
            }
        }
    }
}
