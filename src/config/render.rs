//! The declared keys in three written forms: the sample file, the reference, and a JSON schema for editors.

mod reference;
mod sample;
mod schema;

pub use reference::reference;
pub use sample::sample;
pub use schema::schema;

use super::keys::{Default, Key, Kind, Table};
use crate::provider::vendors::{VENDORS, Vendor};
use std::collections::BTreeSet;

/// A value as TOML writes it: `text` is a text without its quotes, anything else as it is.
fn literal(kind: &Kind, text: &str) -> String {
    match kind {
        Kind::Text | Kind::Word(_) | Kind::Path | Kind::Duration | Kind::Money => format!("{text:?}"),
        _ => text.to_owned(),
    }
}

/// The value shown for a key: its default, else its example, as TOML. A table with defaults is shown with them.
fn shown(key: &Key) -> Option<String> {
    match (key.default, key.kind) {
        (Default::Is(default), kind) => Some(literal(&kind, default)),
        (Default::Texts(texts), _) => Some(list(&texts())),
        (_, Kind::Table(table)) if key.example.is_empty() => Some(inline(table)),
        (_, kind) => (!key.example.is_empty()).then(|| literal(&kind, key.example)),
    }
}

fn list(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(", "))
}

fn inline(table: &Table) -> String {
    let entries: Vec<String> =
        table.all_keys().filter_map(|key| Some(format!("{} = {}", key.name, shown(key)?))).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// The table that a key leads to, if it has a section of its own.
fn own_section(key: &Key) -> Option<&'static Table> {
    match key.kind {
        Kind::Table(table) | Kind::Named(table) => table.header.is_some().then_some(table),
        _ => None,
    }
}

/// The prose about a table. `{vendors}` in it are the vendors that need nothing but a key, by the table of vendors.
fn prose(table: &Table) -> String {
    // The files are those of the program; the tests have a vendor of their own.
    let vendors = VENDORS.iter().filter(|vendor| !cfg!(test) || vendor.name != "acme_ai");
    table.doc.replace("{vendors}", &known_by_name(vendors))
}

/// The names of the vendors that have an address on the network, as a list in words. Those on this machine need no key.
fn known_by_name<'a>(vendors: impl Iterator<Item = &'a Vendor>) -> String {
    let mut named = BTreeSet::new();
    let is_away = |vendor: &&Vendor| vendor.base_url.is_some_and(|url| url.starts_with("https://"));
    let rows = vendors.filter(|vendor| named.insert(vendor.name)).filter(is_away);
    match rows.map(|vendor| vendor.name).collect::<Vec<_>>().as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        names => names.concat(),
    }
}

/// Prose in lines of at most `width` characters.
fn wrapped(prose: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in prose.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The vendor that only the tests have.
    fn is_made_up(word: &str) -> bool {
        word.contains("acme_ai")
    }

    /// The files that are generated from the declarations. `make config` writes them.
    #[test]
    fn the_files_say_what_is_declared() {
        let keys = reference().replace(", `\"acme_ai\"`", "");
        for (file, is, told) in [
            ("config/sluice.toml", include_str!("../../config/sluice.toml"), sample()),
            ("docs/configuration-keys.md", include_str!("../../docs/configuration-keys.md"), keys),
        ] {
            assert!(!is_made_up(&told), "{file}");
            assert!(is == told, "{file} is not what the declarations in src/config/keys say: `make config` writes it");
        }
    }

    #[test]
    fn a_row_of_the_table_of_vendors_is_enough_to_be_named_where_providers_are_explained() {
        let named = known_by_name(VENDORS.iter());
        assert!(named.starts_with("openai, ") && named.ends_with(" or acme_ai"), "{named}");
        assert!(!named.contains("ollama") && !named.contains("bedrock") && named.contains("groq, "), "{named}");
        assert!(sample().replace("\n# ", " ").contains("needs only its key, ollama not even that"));
    }

    /// As JSON: the order of members depends on a feature of serde_json that dependencies of the tests switch on.
    #[test]
    fn the_schema_for_editors_says_what_is_declared() {
        let file: Value = serde_json::from_str(include_str!("../../config/sluice.schema.json")).unwrap();
        let mut told: Value = serde_json::from_str(&schema()).unwrap();
        for words in ["vendor", "quirks/properties/limit_headers"] {
            let path = format!("/properties/providers/additionalProperties/properties/{words}/enum");
            let words = told.pointer_mut(&path).unwrap();
            words.as_array_mut().unwrap().retain(|word| !is_made_up(word.as_str().unwrap()));
        }
        assert_eq!(file, told, "config/sluice.schema.json: `make config` writes it");
    }

    #[test]
    fn no_line_is_too_long() {
        for text in [sample()] {
            for line in text.lines() {
                assert!(line.chars().count() <= 120, "{line}");
            }
        }
    }

    #[test]
    fn prose_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a-long-word b", 4), ["a-long-word", "b"]);
    }
}
