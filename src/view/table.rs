//! Rows of values under the names of their columns: the view of every list.

use super::dollars::Dollars;
use crate::domain::{NanoUsd, PerAnswer};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// One value of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value is known, or none applies.
    Empty,
    Text(String),
    /// A number of things.
    Count(i64),
    /// A number that names a thing. It is typed again, so its digits stay together.
    Id(i64),
    /// A fraction of one, shown as a percentage.
    Share(f64),
    /// A duration in milliseconds.
    Millis(i64),
    /// Dollars.
    Money(NanoUsd),
    /// Dollars, and it is not known how many. An empty cell would be read as nothing to pay; programs get nothing.
    UnknownMoney,
    /// Dollars per accepted answer. Programs get the known amount, or nothing.
    PerAnswer(PerAnswer),
    /// An instant.
    Time(DateTime<Utc>),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(count: i64) -> Self {
        Self::Count(count)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<NanoUsd> for Cell {
    fn from(money: NanoUsd) -> Self {
        Self::Money(money)
    }
}

impl From<Dollars> for Cell {
    fn from(Dollars(money): Dollars) -> Self {
        Self::Money(money)
    }
}

impl From<PerAnswer> for Cell {
    fn from(per_answer: PerAnswer) -> Self {
        if per_answer == PerAnswer::NoAnswer { Self::Empty } else { Self::PerAnswer(per_answer) }
    }
}

impl From<DateTime<Utc>> for Cell {
    fn from(at: DateTime<Utc>) -> Self {
        Self::Time(at)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, Into::into)
    }
}

impl Cell {
    /// The cell for people. A text is as it was written, perhaps of several lines.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Empty => "–".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Count(count) => grouped(*count),
            Self::Id(number) => number.to_string(),
            Self::Share(share) => format!("{:.1} %", share * 100.0),
            Self::Millis(millis) => shown_millis(*millis),
            Self::Money(money) => shown_money(*money),
            Self::UnknownMoney => "unknown".to_owned(),
            Self::PerAnswer(per_answer) => match per_answer {
                PerAnswer::NoAnswer => "–".to_owned(),
                PerAnswer::Unknown => "unknown".to_owned(),
                PerAnswer::Exactly(each) => shown_money(*each),
                // As of counts that were not finished: so much, and perhaps more.
                PerAnswer::AtLeast(each) => format!("{}+", shown_money(*each)),
            },
            Self::Time(at) => at.format("%Y-%m-%d %H:%M:%S").to_string(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        }
    }

    /// Whether it is a figure, for a column that is aligned to the right.
    #[must_use]
    pub fn is_numeric(&self) -> bool {
        match self {
            Self::Count(_) | Self::Id(_) | Self::Share(_) | Self::Millis(_) | Self::Money(_) | Self::PerAnswer(_) => {
                true
            }
            Self::Empty | Self::UnknownMoney | Self::Text(_) | Self::Time(_) | Self::Flag(_) => false,
        }
    }

    /// Whether it says something: it is neither empty nor zero nor no.
    fn is_telling(&self) -> bool {
        !matches!(self, Self::Empty | Self::Count(0) | Self::Money(NanoUsd::ZERO) | Self::Flag(false))
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        shown.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn shown_millis(millis: i64) -> String {
    if millis < 1000 { format!("{millis} ms") } else { format!("{}.{:02} s", millis / 1000, millis % 1000 / 10) }
}

/// Millionths of a dollar are precise enough for people; a smaller amount is shown in full rather than as nothing. The
/// other shapes have every digit.
fn shown_money(money: NanoUsd) -> String {
    let rounded = NanoUsd((money.0.saturating_add(if money.0 < 0 { -500 } else { 500 })) / 1000 * 1000);
    if rounded == NanoUsd::ZERO { money.to_string() } else { rounded.to_string() }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty | Self::UnknownMoney => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(number) | Self::Id(number) | Self::Millis(number) => serializer.serialize_i64(*number),
            Self::Share(share) => serializer.serialize_f64(*share),
            Self::Money(money) => Dollars(*money).serialize(serializer),
            Self::PerAnswer(per_answer) => per_answer.amount().map(Dollars).serialize(serializer),
            Self::Time(at) => serializer.serialize_str(&instant(*at)),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

/// The form of an instant for programs.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Columns and rows, and a row of totals for people. As JSON it is an array with an object for each row, whose members
/// are in the order of the columns. The totals are left out there, since they would be taken for a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub columns: Vec<&'static str>,
    /// The rows, each with a cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// The totals, if the table has any.
    pub total: Option<Vec<Cell>>,
    /// How it is laid out for people.
    pub layout: Layout,
}

/// How a table is laid out for people, on whose screens not everything has room. Programs get all columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Columns that are shown on request only.
    pub wide: &'static [&'static str],
    /// Columns that are shown where they say something: a cell that is neither empty nor zero nor no.
    pub when_told: &'static [&'static str],
    /// Columns that give way on a narrow screen, the first of them first.
    pub give_way: &'static [&'static str],
    /// Columns of sentences, which may be broken between words. Names and numbers never are.
    pub prose: &'static [&'static str],
}

impl Table {
    /// An empty table with these columns.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = &'static str>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), total: None, layout: Layout::default() }
    }

    /// The table, laid out for people like this.
    #[must_use]
    pub fn laid_out(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Adds a row: one cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell per column");
        self.rows.push(row);
    }

    /// Sets the totals.
    pub fn total(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.total = Some(cells.into_iter().collect());
    }

    /// Leaves out the column of this name, if there is one.
    pub fn leave_out(&mut self, column: &str) {
        let Some(place) = self.columns.iter().position(|name| *name == column) else { return };
        self.columns.remove(place);
        for row in self.rows.iter_mut().chain(&mut self.total).filter(|row| place < row.len()) {
            row.remove(place);
        }
    }

    /// The columns that people want to see where there is room, by their places.
    #[must_use]
    pub fn wanted(&self, is_wide: bool) -> Vec<usize> {
        let says_something = |index: usize| {
            let mut cells = self.rows.iter().chain(&self.total).filter_map(|row| row.get(index));
            cells.any(Cell::is_telling)
        };
        let layout = self.layout;
        let is_of_use = |index: usize, name: &&str| {
            !layout.wide.contains(name) && (!layout.when_told.contains(name) || says_something(index))
        };
        let columns = self.columns.iter().enumerate();
        columns.filter(|(index, name)| is_wide || is_of_use(*index, name)).map(|(index, _)| index).collect()
    }

    /// Whether the table has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            rows.serialize_element(&Row { columns: &self.columns, cells: row })?;
        }
        rows.end()
    }
}

/// A row with the names of its cells.
struct Row<'a> {
    columns: &'a [&'static str],
    cells: &'a [Cell],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, cell) in self.columns.iter().zip(self.cells) {
            map.serialize_entry(column, cell)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_money_as_an_exact_number_and_no_total() {
        let mut nanos = Table::new(["cost"]);
        nanos.row([NanoUsd(i64::MAX).into()]);
        assert_eq!(serde_json::to_string(&nanos).unwrap(), r#"[{"cost":9223372036.854775807}]"#);
        let mut table = Table::new(["provider", "attempts", "cost", "p95", "note"]);
        table.row(["a, b".into(), Cell::Count(1_234_567), NanoUsd(150_000).into(), Cell::Millis(2340), Cell::Empty]);
        table.total(["total".into(), Cell::Count(1_234_567), NanoUsd(150_000).into(), Cell::Empty, Cell::Empty]);
        let expected = r#"[{"provider":"a, b","attempts":1234567,"cost":0.00015,"p95":2340,"note":null}]"#;
        assert_eq!(serde_json::to_string(&table).unwrap(), expected);
    }
}
