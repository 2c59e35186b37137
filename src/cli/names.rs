//! Names that arguments mention: whether there is such a thing, and the name that may have been meant.

use super::failure::CommandFailure;
use crate::config::Config;
use crate::domain::template::near;
use crate::store::names::Named;
use crate::store::{Store, StoreError};

/// Names that a message lists at most.
const MOST: usize = 12;

/// Whether the configuration or the books know the name; otherwise what to say of it.
///
/// # Errors
/// Those of the database.
pub(super) async fn unknown(
    kind: Named,
    name: &str,
    store: &Store,
    config: &Config,
) -> Result<Option<String>, StoreError> {
    let mut known = configured(kind, config);
    if known.iter().any(|known| known == name) || store.is_booked(kind, name).await? {
        return Ok(None);
    }
    known.extend(store.booked_names(kind).await?);
    known.sort_unstable();
    known.dedup();
    Ok(Some(in_words(kind, name, &known)))
}

/// Refuses a name that neither the configuration nor the books know.
///
/// # Errors
/// There is no such thing; those of the database.
pub(super) async fn require(kind: Named, name: Option<&str>, store: &Store, config: &Config) -> anyhow::Result<()> {
    let Some(name) = name else { return Ok(()) };
    match unknown(kind, name, store, config).await? {
        Some(said) => Err(CommandFailure::not_found(said).into()),
        None => Ok(()),
    }
}

fn configured(kind: Named, config: &Config) -> Vec<String> {
    match kind {
        Named::Route => config.route_names().map(str::to_owned).collect(),
        Named::Provider => config.providers.keys().cloned().collect(),
        Named::Batch | Named::Project | Named::Model | Named::Login => Vec::new(),
    }
}

fn in_words(kind: Named, name: &str, known: &[String]) -> String {
    let kind = kind.as_str();
    let names = || known.iter().map(String::as_str);
    if let Some(near) = near(name, names()) {
        return format!("there is no {kind} {name:?}; perhaps {near:?} is meant");
    }
    match known {
        [] => format!("there is no {kind} {name:?}, and no other one"),
        some if some.len() <= MOST => format!("there is no {kind} {name:?}; there are: {}", some.join(", ")),
        _ => format!("there is no {kind} {name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_meant_is_named() {
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let many: Vec<String> = (0..20).map(|number| format!("batch of day {number}")).collect();
        for (names, expected) in [
            (known(&["news", "other"]), "there is no batch \"nwes\"; perhaps \"news\" is meant"),
            (known(&["weather", "sports"]), "there is no batch \"nwes\"; there are: weather, sports"),
            (known(&[]), "there is no batch \"nwes\", and no other one"),
            (many, "there is no batch \"nwes\""),
        ] {
            assert_eq!(in_words(Named::Batch, "nwes", &names), expected);
        }
    }
}
