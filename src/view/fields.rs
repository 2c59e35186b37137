//! A table for programs: its cells as fields, for `cut` and `awk`, and for spreadsheets.

use super::dollars::Dollars;
use super::table::{Cell, Table, instant};
use crate::domain::counted::counted;
use crate::printable::{columns as columns_of, on_one_line};
use std::borrow::Cow;
use std::io::{self, Write};

/// Writes a line of names, then a line per row, separated by tabs.
///
/// # Errors
/// Those of the writer.
pub fn write_plain(table: &Table, writer: &mut dyn Write) -> io::Result<()> {
    writeln!(writer, "{}", table.columns.join("\t"))?;
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(bare).collect();
        writeln!(writer, "{}", cells.join("\t"))?;
    }
    Ok(())
}

/// Writes a line of names, then a line per row, as CSV.
///
/// # Errors
/// Those of the writer.
pub fn write_csv(table: &Table, writer: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(&table.columns)?;
    for row in &table.rows {
        csv.write_record(row.iter().map(in_csv))?;
    }
    csv.flush()
}

/// A field of CSV. A spreadsheet evaluates a text that begins like a formula, so such a text gets an apostrophe, which
/// marks it as text; numbers stay numbers.
#[must_use]
pub fn csv_field(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if is_formula && !is_number(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Whether a text is a number in digits.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, part].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The table as lines of equal columns, for a message to people: so many lines at most, each of so many characters at
/// most. What is left out is told.
#[must_use]
pub fn in_columns(table: &Table, most_lines: usize, longest: usize) -> String {
    if table.is_empty() {
        return String::new();
    }
    let wanted = table.wanted(false);
    let name = |index: &usize| table.columns.get(*index).map(|name| name.replace('_', " ")).unwrap_or_default();
    let words = |row: &[Cell], index: &usize| {
        row.get(*index).map(|cell| on_one_line(&cell.in_words()).into_owned()).unwrap_or_default()
    };
    let shown = table.rows.iter().take(most_lines).chain(&table.total);
    let head: Vec<String> = wanted.iter().map(name).collect();
    let cells = shown.map(|row| wanted.iter().map(|index| words(row, index)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    let width = |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|text| columns_of(text)).max();
    let widths: Vec<usize> = (0..wanted.len()).map(|index| width(index).unwrap_or(0)).collect();
    let line = |cells: &Vec<String>| {
        let padded =
            cells.iter().zip(&widths).map(|(text, width)| format!("{text}{:1$}", "", width - columns_of(text)));
        shortened_to(padded.collect::<Vec<_>>().join("  ").trim_end(), longest)
    };
    let mut shown: Vec<String> = lines.iter().map(line).collect();
    let more = table.rows.len().saturating_sub(most_lines);
    if more > 0 {
        shown.push(format!("and {}", counted(more, "row more", "rows more")));
    }
    shown.join("\n")
}

/// The text, of which an ellipsis shows where it was cut.
fn shortened_to(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// A cell for programs, as text on one line.
fn bare(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) => on_one_line(text).into_owned(),
        Cell::Count(number) | Cell::Id(number) | Cell::Millis(number) => number.to_string(),
        Cell::Share(share) => format!("{share:.6}"),
        Cell::Money(money) => Dollars(*money).to_string(),
        Cell::UnknownMoney => "unknown".to_owned(),
        Cell::PerAnswer(each) => each.amount().map_or_else(String::new, |each| Dollars(each).to_string()),
        Cell::Time(at) => instant(*at),
        Cell::Flag(flag) => flag.to_string(),
    }
}

/// A cell for spreadsheets.
#[must_use]
pub fn in_csv(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => on_one_line(&csv_field(text)).into_owned(),
        cell => bare(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Layout;
    use super::*;

    #[test]
    fn a_table_in_a_message_has_equal_columns_and_says_what_is_left_out() {
        let mut table = Table::new(["project", "calls"]);
        assert_eq!(in_columns(&table, 2, 20), "", "without a row it says nothing");
        for (project, calls) in [("shop", 1), ("日本", 1_234), ("a\nb", 3)] {
            table.row([project.into(), Cell::Count(calls)]);
        }
        assert_eq!(in_columns(&table, 3, 20), "project  calls\nshop     1\n日本     1,234\na\\nb     3");
        assert_eq!(in_columns(&table.clone().laid_out(Layout { wide: &["calls"], ..Layout::default() }), 1, 9), {
            "project\nshop\nand 2 rows more"
        });
        table.leave_out("none");
        assert_eq!(in_columns(&table, 1, 12), "project  ca…\nshop     1\nand 2 rows more");
        table.leave_out("project");
        assert_eq!(in_columns(&table, 3, 20), "calls\n1\n1,234\n3");
    }

    #[test]
    fn a_text_that_begins_like_a_formula_is_a_text_in_csv_and_a_number_is_a_number() {
        for formula in
            ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "＝1", "-1-1", "+.", "=-1"]
        {
            assert_eq!(csv_field(formula), format!("'{formula}"));
        }
        for text in ["-5", "+5", "-0.25", "plain", "a=b", "'=1", "", "1-1"] {
            assert_eq!(csv_field(text), text);
        }
        let mut table = Table::new(["batch", "jobs"]);
        table.row(["=HYPERLINK(\"http://x\",\"y\")".into(), Cell::Count(-7)]);
        table.row(["\u{1b}]0;x\u{7}\n=1".into(), Cell::Count(1)]);
        let mut csv = Vec::new();
        write_csv(&table, &mut csv).unwrap();
        let expected = "batch,jobs\n\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",-7\n\\u{1b}]0;x\\u{7}\\n=1,1\n";
        assert_eq!(String::from_utf8(csv).unwrap(), expected);
    }
}
