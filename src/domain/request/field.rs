//! A place in a JSON body: its value, and its path for messages.

use super::RequestError;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;

/// A value and where it stands. The path is written out only when there is something to report.
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    path: Path<'a>,
    unread: &'a Unread,
}

/// The paths of members that the parser did not take, each once and without positions:
/// `messages[].reasoning_content`.
#[derive(Default)]
pub(super) struct Unread(RefCell<Vec<String>>);

impl Unread {
    /// How many paths are named; more would not help a reader.
    const MOST: usize = 40;
    /// A longer name is cut.
    const LONGEST_NAME: usize = 60;

    fn note(&self, path: Path<'_>, name: &str) {
        let mut noted = self.0.borrow_mut();
        if noted.len() > Self::MOST {
            return;
        }
        let end = name.char_indices().nth(Self::LONGEST_NAME).map_or(name.len(), |(end, _)| end);
        let name = name.get(..end).unwrap_or(name);
        let path = match path {
            Path::Root => name.to_owned(),
            Path::Member(..) | Path::Item(..) => format!("{}.{name}", Places(path)),
        };
        if !noted.contains(&path) {
            let is_one_too_many = noted.len() == Self::MOST;
            noted.push(if is_one_too_many { "and more".to_owned() } else { path });
        }
    }

    /// In order, so that the same request gives the same list.
    pub(super) fn into_paths(self) -> Vec<String> {
        let mut paths = self.0.into_inner();
        let named = paths.len().min(Self::MOST);
        if let Some(named) = paths.get_mut(..named) {
            named.sort_unstable();
        }
        paths
    }
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'static str),
    Item(&'a Path<'a>, usize),
}

impl<'a> Field<'a> {
    /// The body itself.
    pub(super) fn root(body: &'a Value, unread: &'a Unread) -> Self {
        Self { value: body, path: Path::Root, unread }
    }

    /// The fault that the value found here is not the one expected.
    pub(super) fn expected<T>(&self, what: &str) -> Result<T, RequestError> {
        self.fault(format_args!("expected {what}, found {}", Found(self.value)))
    }

    /// A fault in its own words.
    pub(super) fn fault<T>(&self, reason: impl fmt::Display) -> Result<T, RequestError> {
        Err(RequestError { field: self.path.to_string(), reason: reason.to_string() })
    }

    pub(super) fn members(&'a self) -> Result<Members<'a>, RequestError> {
        match self.value {
            Value::Object(map) => Ok(Members { map, path: &self.path, taken: Vec::new(), unread: self.unread }),
            _ => self.expected("an object"),
        }
    }

    /// Reads every item of an array; the first fault ends it.
    pub(super) fn each<T>(&self, read: impl Fn(&Field<'_>) -> Result<T, RequestError>) -> Result<Vec<T>, RequestError> {
        let Value::Array(items) = self.value else { return self.expected("an array") };
        let field = |(index, value)| Field { value, path: Path::Item(&self.path, index), unread: self.unread };
        items.iter().enumerate().map(|item| read(&field(item))).collect()
    }

    pub(super) fn object(&self) -> Result<&'a Map<String, Value>, RequestError> {
        self.value.as_object().map_or_else(|| self.expected("an object"), Ok)
    }

    /// A finite number from `least` to `most`.
    pub(super) fn number(&self, least: f64, most: f64) -> Result<f64, RequestError> {
        match self.value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ => self.expected(&format!("a number from {least} to {most}")),
        }
    }

    /// A whole number from `least` to `most`; `100.0` is one too, as some JSON writers know only floats.
    pub(super) fn integer(&self, least: i64, most: i64) -> Result<i64, RequestError> {
        match whole(self.value) {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ => self.expected(&format!("a whole number from {least} to {most}")),
        }
    }
}

// Functions rather than methods, so that they can be passed on for a field of any lifetime.

/// A string with something in it.
pub(super) fn string(field: &Field<'_>) -> Result<String, RequestError> {
    match field.value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => field.expected("a string that is not empty"),
    }
}

/// A string, perhaps an empty one.
pub(super) fn text(field: &Field<'_>) -> Result<String, RequestError> {
    field.value.as_str().map_or_else(|| field.expected("a string"), |text| Ok(text.to_owned()))
}

pub(super) fn boolean(field: &Field<'_>) -> Result<bool, RequestError> {
    field.value.as_bool().map_or_else(|| field.expected("true or false"), Ok)
}

/// The members of an object, each handed out once. Members that were not taken at the end are noted as unread, so that
/// nothing can be overlooked: either the parser understands a member, or its path is on the list.
pub(super) struct Members<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path<'a>,
    taken: Vec<&'static str>,
    unread: &'a Unread,
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        for (name, value) in self.map {
            // A member that is null counts as absent.
            if !value.is_null() && !self.taken.contains(&name.as_str()) {
                self.unread.note(*self.path, name);
            }
        }
    }
}

impl<'a> Members<'a> {
    /// A member that is there and not null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.taken.push(name);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Field { value, path: Path::Member(self.path, name), unread: self.unread })
    }

    /// A member that `read` understands; otherwise it stays unread, as a vendor may mean something else by the name.
    pub(super) fn take_if<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let understood = self.map.get(name).and_then(read)?;
        self.taken.push(name);
        Some(understood)
    }

    /// Whether a member is there and not null, without taking it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A member that has to be there.
    pub(super) fn need(&mut self, name: &'static str, what: &str) -> Result<Field<'a>, RequestError> {
        self.take(name).map_or_else(|| self.missing(name, what), Ok)
    }

    /// The fault that a member is missing.
    pub(super) fn missing<T>(&self, name: &'static str, what: &str) -> Result<T, RequestError> {
        Field { value: &Value::Null, path: Path::Member(self.path, name), unread: self.unread }
            .fault(format_args!("expected {what}, found nothing"))
    }

    /// Reads a member if it is there.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Field<'_>) -> Result<T, RequestError>,
    ) -> Result<Option<T>, RequestError> {
        self.take(name).map(|field| read(&field)).transpose()
    }

    /// A string with something in it, which has to be there.
    pub(super) fn need_string(&mut self, name: &'static str) -> Result<String, RequestError> {
        string(&self.need(name, "a string")?)
    }

    /// A string, perhaps an empty one, which has to be there.
    pub(super) fn need_text(&mut self, name: &'static str) -> Result<String, RequestError> {
        text(&self.need(name, "a string")?)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("request"),
            Self::Member(Path::Root, name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A path without positions: `messages[].content[]`.
struct Places<'a>(Path<'a>);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Path::Root => f.write_str("request"),
            Path::Member(Path::Root, name) => f.write_str(name),
            Path::Member(parent, name) => write!(f, "{}.{name}", Places(*parent)),
            Path::Item(parent, _) => write!(f, "{}[]", Places(*parent)),
        }
    }
}

/// Describes the value without showing more of the body than one short word: prompts do not belong in messages.
struct Found<'a>(&'a Value);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write!(f, "{number:.30}"),
            Value::String(text) if text.is_empty() => f.write_str("an empty string"),
            Value::String(text) => f.write_str(&shown(text)),
            Value::Array(items) if items.is_empty() => f.write_str("an empty array"),
            Value::Array(_) => f.write_str("an array"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

/// The text itself when it is one short word, otherwise only the fact that it is a text.
pub(super) fn shown(text: &str) -> String {
    let short = text.len() <= 24 && text.chars().all(|c| c.is_ascii_graphic());
    if short { format!("`{text}`") } else { "a longer text".to_owned() }
}

/// Whole numbers, including those written as floats as long as a float holds them exactly.
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        Some(number as i64)
    })
}

/// Whether a value is nested deeper than this many levels. Looks no deeper than that, so its own recursion is bounded.
pub(super) fn deeper_than(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| deeper_than(item, below)),
        Value::Object(map) => map.values().any(|item| deeper_than(item, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
