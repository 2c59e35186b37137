//! `docs/configuration-keys.md`: every key of every table.

use super::{literal, own_section, prose, wrapped};
use crate::config::keys::{Default, Key, Kind, ROOT, Table, TakesEffect};
use std::fmt::Write as _;

const HEAD: &str = "\
# Keys of the configuration

Every key, with what it takes and what holds without it. [configuration.md](configuration.md) says how the parts fit
together, [config/sluice.toml](../config/sluice.toml) shows them in place, and
[config/sluice.schema.json](../config/sluice.schema.json) tells an editor about them. `make config` writes this page
from the declarations in `src/config/keys`.
";

/// The page.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut written: Vec<&'static str> = Vec::new();
    for key in ROOT.all_keys() {
        if let Some(table) = own_section(key) {
            write_table(&mut page, table, &mut written);
        }
    }
    page
}

fn write_table(page: &mut String, table: &'static Table, written: &mut Vec<&'static str>) {
    if written.contains(&table.title) {
        return;
    }
    written.push(table.title);
    // Writing to a text cannot fail.
    let _ = writeln!(
        page,
        "\n## {}\n",
        if table.header.is_some() { format!("`{}`", table.title) } else { table.title.to_owned() }
    );
    if !table.doc.is_empty() {
        for paragraph in prose(table).split('\n') {
            let _ = writeln!(page, "{}", wrapped(paragraph, 120).join("\n"));
        }
        let _ = writeln!(page);
    }
    if table.effect == TakesEffect::Restart {
        let _ = writeln!(page, "A change takes effect when the process starts again.\n");
    }
    let _ = writeln!(page, "| key | takes | default | meaning |\n|---|---|---|---|");
    let keys: Vec<&Key> = match table.header {
        // A section that takes its keys from another table says so there.
        Some(_) if table.keys.is_empty() => Vec::new(),
        _ => table.all_keys().collect(),
    };
    for key in &keys {
        let meaning = if key.doc.is_empty() { below(&key.kind) } else { key.doc.to_owned() };
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            key.name,
            takes(&key.kind),
            default(key),
            meaning.replace('|', "\\|")
        );
    }
    for key in keys {
        for below in tables(&key.kind) {
            write_table(page, below, written);
        }
    }
}

fn below(kind: &Kind) -> String {
    match kind {
        Kind::Table(table) => format!("See `{}`.", table.title),
        _ => String::new(),
    }
}

fn tables(kind: &Kind) -> Vec<&'static Table> {
    match kind {
        Kind::Table(table) | Kind::Named(table) => vec![table],
        Kind::List(kind) | Kind::Map(kind) => tables(kind),
        Kind::Either(kinds) => kinds.iter().flat_map(tables).collect(),
        _ => Vec::new(),
    }
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Text => "a text".to_owned(),
        Kind::Word(words) => words().iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Kind::Path => "a path".to_owned(),
        Kind::Duration => "a duration".to_owned(),
        Kind::Whole(least, i64::MAX) => format!("a whole number from {least}"),
        Kind::Whole(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Share => "a share up to 1".to_owned(),
        Kind::Part => "a share from 0 to 1".to_owned(),
        Kind::Weight => "a number from 0".to_owned(),
        Kind::Number(least, most) => format!("a number from {least} to {most}"),
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Money => "dollars as a text".to_owned(),
        Kind::List(kind) => match kind {
            Kind::Word(_) => format!("a list of {}", takes(kind)),
            Kind::Text => "a list of texts".to_owned(),
            _ => format!("a list: {}", takes(kind)),
        },
        Kind::Either(kinds) => kinds.iter().map(takes).collect::<Vec<_>>().join(", or "),
        Kind::Table(_) => "a table".to_owned(),
        Kind::Named(_) => "tables by name".to_owned(),
        Kind::Map(kind) => format!("a table with free keys: {}", takes(kind)),
        Kind::Any => "any value".to_owned(),
    }
}

fn default(key: &Key) -> String {
    match key.default {
        Default::None => String::new(),
        Default::Is(default) => format!("`{}`", literal(&key.kind, default)),
        Default::Texts(texts) => texts().iter().map(|text| format!("`\"{text}\"`")).collect::<Vec<_>>().join(", "),
        Default::Depends(default) => default.to_owned(),
    }
}
