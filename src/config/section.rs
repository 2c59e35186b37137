//! Typed access to one table of the configuration, which collects faults instead of stopping at the first.

use super::keys::{Default, FREE, Key, Kind, ROOT, Table as Declared};
use super::scalar::{self, DURATION};
use super::words::{WordList, names};
use super::{ConfigErrors, Fault, source};
use crate::domain::MaxFailed;
use crate::permissions::Exposed;
use config::{Value, ValueKind};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) type Table = BTreeMap<String, Value>;

/// The origin that the `config` crate reports for variables.
pub(super) const FROM_ENVIRONMENT: &str = "the environment";

/// State that all sections share while they are read: the environment, the file and the faults found so far.
pub(super) struct Reading {
    pub environment: BTreeMap<String, String>,
    file: Option<PathBuf>,
    /// Set where all users may read the file: the advice for that case.
    pub world_readable: Option<Exposed>,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<String>>,
}

impl Reading {
    pub fn new(file: Option<PathBuf>, world_readable: Option<Exposed>, environment: BTreeMap<String, String>) -> Self {
        Self { environment, file, world_readable, faults: RefCell::default(), warnings: RefCell::default() }
    }

    /// Notes a warning, to be shown when there are no faults.
    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// How many faults there are so far.
    pub fn fault_count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Notes the faults of another file.
    pub fn fail(&self, errors: ConfigErrors) {
        self.faults.borrow_mut().extend(errors.into_faults());
    }

    /// The warnings, or the faults if there are any.
    pub fn into_result(self) -> Result<Vec<String>, ConfigErrors> {
        match ConfigErrors::from_faults(self.faults.into_inner()) {
            Some(errors) => Err(errors),
            None => Ok(self.warnings.into_inner()),
        }
    }

    fn file_name(&self) -> String {
        self.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string())
    }

    /// A file beside the configuration; `None`: there is no configuration file.
    pub fn beside(&self, name: &str) -> Option<PathBuf> {
        self.file.as_deref().map(|file| file.with_file_name(name))
    }

    /// Resolves a path: those in the file are relative to the file, those in variables to the working directory.
    fn resolve(&self, path: &str, from_environment: bool) -> PathBuf {
        match self.file.as_deref().and_then(Path::parent) {
            Some(dir) if !from_environment => dir.join(path),
            _ => PathBuf::from(path),
        }
    }
}

/// One table, read by its declaration. Undeclared keys are faults: see [`finish`](Self::finish).
///
/// Reading an undeclared key, or one by another kind than its declared one, is a fault of the program: it panics, in
/// the first test that loads any configuration.
#[must_use]
pub(super) struct Section<'a> {
    reading: &'a Reading,
    path: String,
    declared: &'static Declared,
    entries: Table,
    from_environment: bool,
}

impl<'a> Section<'a> {
    pub fn new(reading: &'a Reading, path: String, declared: &'static Declared, entries: Table) -> Self {
        let from_environment = !entries.is_empty() && entries.values().all(is_from_environment);
        Self { reading, path, declared, entries, from_environment }
    }

    /// The state to which all sections report their faults.
    pub fn reading(&self) -> &'a Reading {
        self.reading
    }

    /// Whether neither the file nor a variable has a key of it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the key is there with a value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.kind != ValueKind::Nil)
    }

    /// Whether the value of a key comes from a variable.
    pub fn is_from_environment(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(is_from_environment)
    }

    /// The keys that are present.
    pub fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Whether the key is declared.
    pub fn declares(&self, key: &str) -> bool {
        self.declared.key(key).is_some()
    }

    /// All entries, for tables whose keys are free.
    pub fn take_all(&mut self) -> Table {
        std::mem::take(&mut self.entries)
    }

    /// The value of a key.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.declaration(key);
        self.entries.remove(key).filter(|value| value.kind != ValueKind::Nil)
    }

    /// The value of a key, which stays to be read.
    pub fn peek(&self, key: &'static str) -> Option<&Value> {
        self.declaration(key);
        self.entries.get(key)
    }

    /// Removes a key that must not be there; returns whether it was.
    pub fn take_forbidden(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some_and(|value| value.kind != ValueKind::Nil)
    }

    fn declaration(&self, key: &str) -> &'static Key {
        self.declared.key(key).unwrap_or_else(|| panic!("{} has no declaration", join(&self.path, key)))
    }

    /// The declared default of a key.
    fn default(&self, key: &str) -> &'static str {
        match self.declaration(key).default {
            Default::Is(text) => text,
            _ => panic!("{} is declared without a default", join(&self.path, key)),
        }
    }

    /// The words that a key accepts, as an error message lists them.
    pub fn words(&self, key: &str) -> String {
        let Kind::Word(words) = self.declaration(key).kind else {
            panic!("{} is not declared as a word", join(&self.path, key))
        };
        let words: Vec<String> = words().iter().map(|word| format!("{word:?}")).collect();
        match words.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            words => words.concat(),
        }
    }

    /// What one of these words means, which are the declared ones; that of the default when the key is not set or has
    /// another word. `problem` names the fault of another word, such as "is not a format".
    pub fn word_or_default<T: Copy>(&mut self, key: &'static str, problem: &str, words: WordList<T>) -> T {
        let find = |word: &str| words.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning);
        let Kind::Word(declared) = self.declaration(key).kind else { panic!("{key} is not declared as a word") };
        debug_assert_eq!(declared(), names(words), "{key} has one list of words");
        let expected = self.words(key);
        let found = self.parsed(key, &expected, |word| find(word).ok_or_else(|| format!("{word:?} {problem}")));
        let default = self.default(key);
        found.or_else(|| find(default)).unwrap_or_else(|| panic!("the default of {} is no word", join(&self.path, key)))
    }

    /// Records a fault of a key of this section (or of the section, when `key` is empty).
    pub fn fault(&self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        self.fault_at(key, self.from_environment, problem, expected);
    }

    /// A key of this section as the file has it, with the file.
    pub fn key_in_file(&self, key: &str) -> String {
        format!("{} of {}", join(&self.path, key), self.reading.file_name())
    }

    fn fault_at(&self, key: &str, from_environment: bool, problem: impl Into<String>, expected: impl Into<String>) {
        let path = join(&self.path, key);
        let url = source::database_url(&self.reading.environment).filter(|_| path == "database.url");
        let (place, key) = if let (true, Some((name, _))) = (from_environment, url) {
            let place = if name.starts_with('-') { "the command line" } else { FROM_ENVIRONMENT };
            (place.to_owned(), name.to_owned())
        } else if from_environment {
            (FROM_ENVIRONMENT.to_owned(), format!("SLUICE__{}", path.replace('.', "__").to_uppercase()))
        } else {
            (self.reading.file_name(), path)
        };
        self.reading.faults.borrow_mut().push(Fault { place, key, problem: problem.into(), expected: expected.into() });
    }

    /// Records a value of the wrong kind. The message shows it, so it must not be one that could be a secret.
    fn wrong_kind(&self, key: &str, value: &Value, expected: &str) {
        self.fault_at(key, is_from_environment(value), format!("is {}", describe(value)), expected);
    }

    /// A text, turned into a `T`; the parser's error becomes a fault.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let ValueKind::String(text) = &value.kind else {
            self.wrong_kind(key, &value, expected);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.fault_at(key, is_from_environment(&value), problem, expected);
                None
            }
        }
    }

    /// The same, or what the declared default is parsed to.
    pub fn parsed_or_default<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let default = self.default(key);
        let parsed = self.parsed(key, expected, &parse);
        parsed.unwrap_or_else(|| parse(default).unwrap_or_else(|problem| panic!("the default of {key}: {problem}")))
    }

    /// A text that is not blank. `expected`: what to say of another value.
    pub fn text(&mut self, key: &'static str, expected: &str) -> Option<String> {
        self.parsed(key, expected, |text| {
            if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
        })
    }

    /// A path, resolved from where it was written.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let from_environment = self.entries.get(key).is_some_and(is_from_environment);
        let text = self.text(key, "a path")?;
        Some(self.reading.resolve(&text, from_environment))
    }

    /// A duration such as "90s".
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, DURATION, scalar::duration)
    }

    /// A duration, or its default.
    pub fn duration_or_default(&mut self, key: &'static str) -> Duration {
        let default = self.default(key);
        self.duration(key).unwrap_or_else(|| scalar::duration(default).expect("a declared default is a duration"))
    }

    /// A duration that is not zero.
    pub fn positive_duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, &format!("{DURATION}, longer than zero"), |text| {
            scalar::duration(text).and_then(|d| if d.is_zero() { Err("is zero".to_owned()) } else { Ok(d) })
        })
    }

    /// A duration that is not shorter than `least`.
    pub fn duration_of_at_least(&mut self, key: &'static str, least: Duration) -> Option<Duration> {
        let in_words = humantime::format_duration(least);
        self.parsed(key, &format!("{DURATION}, at least \"{in_words}\""), |text| {
            scalar::duration(text)
                .and_then(|d| if d < least { Err(format!("is shorter than {in_words}")) } else { Ok(d) })
        })
    }

    /// The same, or its default.
    pub fn duration_of_at_least_or_default(&mut self, key: &'static str, least: Duration) -> Duration {
        let default = self.default(key);
        let given = self.duration_of_at_least(key, least);
        given.unwrap_or_else(|| scalar::duration(default).expect("a declared default is a duration"))
    }

    /// A duration that is not zero, or its default.
    pub fn positive_duration_or_default(&mut self, key: &'static str) -> Duration {
        let default = self.default(key);
        let given = self.positive_duration(key);
        given.unwrap_or_else(|| scalar::duration(default).expect("a declared default is a duration"))
    }

    /// A whole number within its declared bounds.
    pub fn whole<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let Kind::Whole(least, most) = self.declaration(key).kind else {
            panic!("{} is not declared as a whole number", join(&self.path, key))
        };
        let range = least..=most;
        let value = self.take(key)?;
        let expected = match most {
            i64::MAX => format!("a whole number, at least {least}"),
            most => format!("a whole number from {least} to {most}"),
        };
        let number = match &value.kind {
            ValueKind::I64(number) => Some(*number),
            // Variables are texts.
            ValueKind::String(text) if is_from_environment(&value) => text.trim().parse().ok(),
            _ => None,
        };
        let in_range = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if in_range.is_none() {
            self.wrong_kind(key, &value, &expected);
        }
        in_range
    }

    /// A whole number within its declared bounds, or its default.
    pub fn whole_or_default<T: TryFrom<i64>>(&mut self, key: &'static str) -> T {
        let default = self.default(key);
        let default = || default.parse().ok().and_then(|number: i64| T::try_from(number).ok());
        self.whole(key).or_else(default).expect("a declared default is a number of this kind")
    }

    /// A number within its declared bounds.
    pub fn number(&mut self, key: &'static str) -> Option<f64> {
        let Kind::Number(least, most) = self.declaration(key).kind else {
            panic!("{} is not declared as a number", join(&self.path, key))
        };
        let value = self.take(key)?;
        let number: Option<f64> = match &value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(number) => number.to_string().parse().ok(),
            ValueKind::String(text) if is_from_environment(&value) => text.trim().parse().ok(),
            _ => None,
        };
        #[expect(clippy::cast_precision_loss, reason = "declared bounds are small")]
        let in_range = number.filter(|number| (least as f64..=most as f64).contains(number));
        if in_range.is_none() {
            self.wrong_kind(key, &value, &format!("a number from {least} to {most}"));
        }
        in_range
    }

    /// A number above 0 and up to 1.
    pub fn fraction(&mut self, key: &'static str) -> Option<f64> {
        let value = self.take(key)?;
        let number = match &value.kind {
            ValueKind::Float(number) => Some(*number),
            ValueKind::I64(1) => Some(1.0),
            ValueKind::String(text) if is_from_environment(&value) => text.trim().parse().ok(),
            _ => None,
        };
        let fraction = number.filter(|number| *number > 0.0 && *number <= 1.0);
        if fraction.is_none() {
            self.wrong_kind(key, &value, "a share above 0 and up to 1, such as 0.5");
        }
        fraction
    }

    /// A number above 0 and up to 1, or its default.
    pub fn fraction_or_default(&mut self, key: &'static str) -> f64 {
        let default = self.default(key);
        self.fraction(key).unwrap_or_else(|| default.parse().expect("a declared default is a number"))
    }

    /// A number from 0 to 1: the share of jobs that may fail.
    pub fn max_failed(&mut self, key: &'static str) -> Option<MaxFailed> {
        let value = self.take(key)?;
        let share = match &value.kind {
            ValueKind::Float(number) => MaxFailed::of_number(*number),
            ValueKind::I64(number) => MaxFailed::parse(&number.to_string()),
            ValueKind::String(text) if is_from_environment(&value) => MaxFailed::parse(text.trim()),
            _ => {
                self.wrong_kind(key, &value, MaxFailed::EXPECTED);
                return None;
            }
        };
        share.map_err(|problem| self.fault(key, problem, MaxFailed::EXPECTED)).ok()
    }

    /// A number above 0 and up to 1, exactly, in millionths.
    pub fn fraction_of(&mut self, key: &'static str, expected: &str) -> Option<MaxFailed> {
        let value = self.take(key)?;
        let share = match &value.kind {
            ValueKind::Float(number) => MaxFailed::of_number(*number),
            ValueKind::I64(number) => MaxFailed::parse(&number.to_string()),
            ValueKind::String(text) if is_from_environment(&value) => MaxFailed::parse(text.trim()),
            _ => {
                self.wrong_kind(key, &value, expected);
                return None;
            }
        };
        let share = share.and_then(|share| if share.millionths() > 0 { Ok(share) } else { Err("is 0".to_owned()) });
        share.map_err(|problem| self.fault(key, problem, expected)).ok()
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        let flag = match &value.kind {
            ValueKind::Boolean(flag) => Some(*flag),
            ValueKind::String(text) if is_from_environment(&value) => text.trim().parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            self.wrong_kind(key, &value, "true or false");
        }
        flag
    }

    /// A flag, or its default.
    pub fn flag_or_default(&mut self, key: &'static str) -> bool {
        let default = self.default(key);
        self.flag(key).unwrap_or(default == "true")
    }

    /// The elements of a list; a variable holds them separated by commas.
    pub fn list(&mut self, key: &'static str, expected: &str) -> Option<Vec<Value>> {
        let value = self.take(key)?;
        match &value.kind {
            ValueKind::Array(values) => Some(values.clone()),
            ValueKind::String(text) if is_from_environment(&value) => {
                let origin = FROM_ENVIRONMENT.to_owned();
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(|part| Value::new(Some(&origin), part)).collect())
            }
            _ => {
                self.fault_at(key, is_from_environment(&value), format!("is {}", describe_kind(&value)), expected);
                None
            }
        }
    }

    /// A list of texts, each turned into a `T`.
    pub fn parsed_list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let values = self.list(key, expected)?;
        let mut parsed = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let result = match &value.kind {
                ValueKind::String(text) => parse(text),
                _ => Err(format!("is {}", describe(value))),
            };
            match result {
                Ok(element) => parsed.push(element),
                Err(problem) => {
                    self.fault_at(&format!("{key}[{index}]"), is_from_environment(value), problem, expected);
                }
            }
        }
        Some(parsed)
    }

    /// A table below this one; empty when it is missing.
    pub fn child(&mut self, key: &'static str) -> Self {
        let table = self.table(key);
        Section::new(self.reading, join(&self.path, key), self.declared_below(key), table)
    }

    /// The declaration of the table, or of the tables, below this one.
    fn declared_below(&self, key: &str) -> &'static Declared {
        match self.declaration(key).kind {
            Kind::Table(table) | Kind::Named(table) => table,
            Kind::Map(_) => &FREE,
            _ => panic!("{} is not declared as a table", join(&self.path, key)),
        }
    }

    /// The entries of a table; none if it is absent or, which is a fault, something else.
    pub fn table(&mut self, key: &'static str) -> Table {
        let Some(value) = self.take(key) else { return Table::new() };
        if let ValueKind::Table(table) = value.kind {
            return table.into_iter().collect();
        }
        self.fault_at(key, is_from_environment(&value), format!("is {}", describe_kind(&value)), "a table");
        Table::new()
    }

    /// Named tables below this one.
    pub fn children(&mut self, key: &'static str) -> Vec<(String, Self)> {
        let path = join(&self.path, key);
        let mut children = Vec::new();
        for (name, value) in self.table(key) {
            let from_environment = is_from_environment(&value);
            let quoted = quote(&name);
            if !scalar::is_name(&name) {
                self.fault_at(
                    &join(key, &quoted),
                    from_environment,
                    format!("{name:?} cannot be a name"),
                    scalar::NAME,
                );
            }
            match value.kind {
                ValueKind::Table(table) => {
                    let entries = table.into_iter().collect();
                    let section = Section::new(self.reading, join(&path, &quoted), self.declared_below(key), entries);
                    children.push((name, section));
                }
                _ => {
                    self.fault_at(
                        &join(key, &quoted),
                        from_environment,
                        format!("is {}", describe_kind(&value)),
                        "a table",
                    );
                }
            }
        }
        children
    }

    /// A section for an element of a list, or for a table that has no declared name.
    pub fn nested(&self, path: &str, declared: &'static Declared, table: Table) -> Self {
        Section::new(self.reading, join(&self.path, path), declared, table)
    }

    /// Records a fault for each key that was not read, because no such key exists.
    pub fn finish(self) {
        let known: Vec<&str> = self.declared.all_keys().map(|key| key.name).collect();
        for (key, value) in &self.entries {
            let expected = match (self.section_of_its_own(key), scalar::nearest(key, known.iter().copied())) {
                (Some(section), _) => format!("it in a section of its own, {section}"),
                (None, Some(known)) => format!("perhaps {known}"),
                (None, None) => format!("one of {}", known.join(", ")),
            };
            self.fault_at(&quote(key), is_from_environment(value), "no such key", expected);
        }
    }

    /// The title of the section of this name, where it is not found below another one: models stand beside providers.
    fn section_of_its_own(&self, key: &str) -> Option<&'static str> {
        let section = ROOT.key(key).filter(|_| !self.path.is_empty())?;
        match section.kind {
            Kind::Table(table) | Kind::Named(table) => Some(table.title),
            _ => None,
        }
    }
}

/// A dotted path. `key` is a bare name, or a path whose parts are [quoted](quote) already.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// A key as it stands in TOML: in quotes, unless it has plain characters only.
pub(super) fn quote(key: &str) -> String {
    let is_bare = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { key.to_owned() } else { format!("{key:?}") }
}

fn is_from_environment(value: &Value) -> bool {
    match &value.kind {
        // Tables have no origin of their own: theirs is that of their entries.
        ValueKind::Table(table) => !table.is_empty() && table.values().all(is_from_environment),
        _ => value.origin() == Some(FROM_ENVIRONMENT),
    }
}

/// Describes a value in an error message where headers or keys belong: a user may have put one there as a plain text.
fn describe_kind(value: &Value) -> String {
    if matches!(value.kind, ValueKind::String(_)) { "a text".to_owned() } else { describe(value) }
}

/// Describes a value in an error message, shortened.
fn describe(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "empty".to_owned(),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::String(text) if text.chars().count() > 60 => {
            format!("{:?} and so on", text.chars().take(60).collect::<String>())
        }
        ValueKind::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// The same value as JSON.
pub(super) fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::U64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::I128(_) | ValueKind::U128(_) => value.to_string().into(),
        ValueKind::String(text) => text.clone().into(),
        ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
        ValueKind::Array(values) => values.iter().map(to_json).collect(),
    }
}
