//! Every key of the configuration, declared once: its kind, default, meaning, and when a change takes effect.
//!
//! [`Section`](super::section::Section) reads by these declarations, and [`render`](super::render) writes the sample
//! file, the reference and the JSON schema from them.

mod alerts;
mod budgets;
mod catalogue;
mod daemon;
mod game_days;
mod models;
mod providers;
mod routes;
mod schedules;

pub(super) use catalogue::{CATALOGUE, ENTRY as CATALOGUE_MODEL};
pub(super) use daemon::LOG;
pub(super) use models::{ABOVE, CHANGE, MODEL, PRICE};
pub(super) use providers::{API_KEY, OWN_ERROR, TIMEOUTS};
pub(super) use routes::{CASCADE, PACK, PROMPT_CACHE, RULE, RUNG};

/// The whole file: the sections by their names.
pub(super) const ROOT: Table = Table {
    keys: &[
        section("database", &daemon::DATABASE),
        section("worker", &daemon::WORKER),
        section("spool", &daemon::SPOOL),
        section("retention", &daemon::RETENTION),
        section("http", &daemon::HTTP),
        section("log", &LOG),
        section("traces", &daemon::TRACES),
        sections("providers", &providers::PROVIDER),
        sections("buckets", &providers::BUCKET),
        section("prices", &models::PRICES),
        sections("models", &MODEL),
        sections("routes", &routes::ROUTE),
        sections("budgets", &budgets::BUDGET),
        sections("schedules", &schedules::SCHEDULE),
        sections("game_days", &game_days::GAME_DAY),
        section("alerts", &alerts::ALERTS),
    ],
    ..Table::EMPTY
};

/// The keys whose changes take effect only when the process starts again, such as `log.format`. A key that stands for
/// another one is not listed.
#[must_use]
pub fn restart_keys() -> Vec<String> {
    let sections = ROOT.all_keys().filter_map(|section| match section.kind {
        Kind::Table(table) if table.effect == TakesEffect::Restart => Some((section.name, table)),
        _ => None,
    });
    let keys = sections.flat_map(|(section, table)| table.all_keys().map(move |key| (section, key)));
    keys.filter(|(_, key)| !key.is_alternative).map(|(section, key)| format!("{section}.{}", key.name)).collect()
}

/// A table without declared keys, for tables whose keys the user chooses.
pub(super) const FREE: Table = Table::EMPTY;

const fn section(name: &'static str, table: &'static Table) -> Key {
    Key { name, kind: Kind::Table(table), ..Key::EMPTY }
}

const fn sections(name: &'static str, table: &'static Table) -> Key {
    Key { name, kind: Kind::Named(table), ..Key::EMPTY }
}

/// The keys that one table may have.
pub(super) struct Table {
    /// The header in the file, such as `[providers.openai]`; `None` for a table that is written inline.
    pub header: Option<&'static str>,
    /// The name in the reference, such as `[providers.NAME]`.
    pub title: &'static str,
    /// The purpose of the section: prose that stands before its keys.
    pub doc: &'static str,
    /// When a running worker applies a change.
    pub effect: TakesEffect,
    /// The keys, in the order in which they are shown.
    pub keys: &'static [Key],
    /// A table whose keys this one has too, shown first.
    pub extends: Option<&'static Table>,
    /// Whether the section is switched on in the sample file, so that its header is not a comment.
    pub is_on: bool,
    /// How the sample file shows the section.
    pub sample: SampleStyle,
    /// Further examples, which the sample file shows after the section.
    pub more: &'static str,
}

impl Table {
    /// A table without a word, to be filled in.
    pub const EMPTY: Self = Self {
        header: None,
        title: "",
        doc: "",
        effect: TakesEffect::Reload,
        keys: &[],
        extends: None,
        is_on: false,
        sample: SampleStyle::EachKey,
        more: "",
    };

    /// All keys, in the order in which they are shown.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.extends.map_or(&[][..], |table| table.keys).iter().chain(self.keys)
    }

    /// The declaration of a key.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }
}

/// When a running worker applies a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakesEffect {
    /// At the next SIGHUP.
    Reload,
    /// When the process starts again.
    Restart,
}

/// How the sample file shows a section.
#[derive(Clone, Copy)]
pub(super) enum SampleStyle {
    /// A line for each key.
    EachKey,
    /// These lines.
    Text(&'static str),
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// The value in the sample file, where the default cannot be written as a value: a text without its quotes,
    /// anything else as TOML.
    pub example: &'static str,
    /// Whether it stands for an earlier key, so that the sample file keeps it as a comment within the comment.
    pub is_alternative: bool,
    /// Whether its table is incomplete without it.
    pub is_needed: bool,
    /// Its meaning, in one sentence or a few.
    pub doc: &'static str,
}

impl Key {
    /// A key without a name, to be filled in.
    pub const EMPTY: Self = Self {
        name: "",
        kind: Kind::Text,
        default: Default::None,
        example: "",
        is_alternative: false,
        is_needed: false,
        doc: "",
    };
}

/// A key without a default.
const fn key(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, example, doc, ..Key::EMPTY }
}

/// A key without which its table is incomplete.
const fn needed(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { is_needed: true, ..key(name, kind, example, doc) }
}

/// A key with a default.
const fn with_default(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default: Default::Is(default), doc, ..Key::EMPTY }
}

/// A key whose default depends on something, as `default` says in words.
const fn depends(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default: Default::Depends(default), example, doc, ..Key::EMPTY }
}

/// A key that stands for another one.
const fn instead(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, example, is_alternative: true, doc, ..Key::EMPTY }
}

/// The default of a key.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// The key has no default.
    None,
    /// This value: a text without its quotes, anything else as TOML.
    Is(&'static str),
    /// These texts, as a list.
    Texts(fn() -> Vec<&'static str>),
    /// The default depends on other things, as these words say.
    Depends(&'static str),
}

/// The kind of a value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A text that is not empty.
    Text,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A path, relative to the file.
    Path,
    /// A duration such as "90s".
    Duration,
    /// A whole number within these bounds.
    Whole(i64, i64),
    /// A share above 0 and up to 1.
    Share,
    /// A share from 0 to 1.
    Part,
    /// A number, at least 0.
    Weight,
    /// A number within these bounds.
    Number(i64, i64),
    /// true or false.
    Flag,
    /// Dollars, or another decimal number, as a text.
    Money,
    List(&'static Kind),
    /// One of several kinds.
    Either(&'static [Kind]),
    /// A table with declared keys.
    Table(&'static Table),
    /// Tables of one kind by names that the user chooses.
    Named(&'static Table),
    /// A table whose keys the user chooses.
    Map(&'static Kind),
    /// Any value.
    Any,
}

const TEXTS: Kind = Kind::List(&Kind::Text);

#[cfg(test)]
mod tests {
    use super::*;

    fn each_table(table: &'static Table, seen: &mut Vec<&'static Table>) {
        if seen.iter().any(|known| std::ptr::eq(*known, table)) {
            return;
        }
        seen.push(table);
        for key in table.all_keys() {
            each_kind(&key.kind, seen);
        }
    }

    fn each_kind(kind: &'static Kind, seen: &mut Vec<&'static Table>) {
        match kind {
            Kind::Table(table) | Kind::Named(table) => each_table(table, seen),
            Kind::List(kind) | Kind::Map(kind) => each_kind(kind, seen),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| each_kind(kind, seen)),
            _ => {}
        }
    }

    #[test]
    fn every_key_is_declared_once_in_its_table_and_says_what_it_means() {
        static ALL: Table = ROOT;
        let mut tables = Vec::new();
        each_table(&ALL, &mut tables);
        assert!(tables.len() > 12, "{}", tables.len());
        for table in tables {
            let names: Vec<&str> = table.all_keys().map(|key| key.name).collect();
            for (index, key) in table.all_keys().enumerate() {
                assert!(!names[..index].contains(&key.name), "{} has {} twice", table.title, key.name);
                let is_section = matches!(key.kind, Kind::Table(table) | Kind::Named(table) if table.header.is_some());
                assert!(is_section || !key.doc.is_empty(), "{} {}", table.title, key.name);
            }
        }
    }
}
