//! Lays out a table of values: for a terminal, for `cut` and `awk`, for spreadsheets.

use crate::domain::{NanoUsd, PerAnswer};
use crate::printable::on_one_line;
use crate::view::dollars::Dollars;
use crate::view::table::{Cell, Table, instant};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Width};
use std::borrow::Cow;
use std::io::{self, Write};

/// Columns if the screen is wide enough for them, else a line for each value.
pub(super) fn for_terminal(table: &Table) -> String {
    let columns = in_columns(table);
    match columns.width() {
        Some(width) if least_width(table) > usize::from(width) => in_blocks(table),
        _ => columns.to_string(),
    }
}

/// All rows, the totals last.
fn rows(table: &Table) -> impl Iterator<Item = &Vec<Cell>> {
    table.rows.iter().chain(&table.total)
}

fn in_columns(table: &Table) -> comfy_table::Table {
    let mut columns = comfy_table::Table::new();
    columns
        .load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Dynamic);
    // Text can be broken between words, a name with underscores cannot.
    columns.set_header(table.columns.iter().map(|column| column.replace('_', " ")));
    for row in rows(table) {
        columns.add_row(row.iter().map(shown));
    }
    for (index, column) in columns.column_iter_mut().enumerate() {
        // A column of numbers stays one in spite of an odd word (`100000+`), and one of words in spite of an odd
        // number.
        let cells = || rows(table).filter_map(|row| row.get(index)).filter(|cell| **cell != Cell::Empty);
        if cells().filter(|cell| is_numeric(cell)).count() * 2 > cells().count() {
            column.set_cell_alignment(CellAlignment::Right);
            // A number must not be cut: where there is little room, words give way.
            let widest = cells().map(|cell| shown(cell).chars().count()).max().unwrap_or(0);
            let least = Width::Fixed(u16::try_from(widest + 2).unwrap_or(u16::MAX));
            column.set_constraint(ColumnConstraint::LowerBoundary(least));
        }
    }
    columns
}

/// The smallest width at which no word is broken.
fn least_width(table: &Table) -> usize {
    let longest = |text: &str| text.split([' ', '-']).map(|word| word.chars().count()).max().unwrap_or(0);
    let of_column = |index: usize, name: &str| {
        let of_cell = |cell: &Cell| if is_numeric(cell) { shown(cell).chars().count() } else { longest(&shown(cell)) };
        let cells = rows(table).filter_map(|row| row.get(index));
        cells.map(of_cell).max().unwrap_or(0).max(longest(&name.replace('_', " ")))
    };
    // A blank on either side, and a separator between columns.
    table.columns.iter().enumerate().map(|(index, name)| of_column(index, name) + 3).sum()
}

/// A line for each value, where the rows are too long for the screen.
fn in_blocks(table: &Table) -> String {
    let width = table.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let blocks = rows(table).map(|row| {
        let is_told = |cell: &Cell| *cell != Cell::Empty && !shown(cell).is_empty();
        let values = table.columns.iter().zip(row).filter(|(_, cell)| is_told(cell));
        let lines = values.map(|(name, cell)| format!(" {:width$}   {}\n", name.replace('_', " "), shown(cell)));
        lines.collect::<String>()
    });
    blocks.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// Writes a line of names, then a line per row, separated by tabs.
pub(super) fn write_plain(table: &Table, writer: &mut dyn Write) -> io::Result<()> {
    writeln!(writer, "{}", table.columns.join("\t"))?;
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(bare).collect();
        writeln!(writer, "{}", cells.join("\t"))?;
    }
    Ok(())
}

/// Writes a line of names, then a line per row.
pub(super) fn write_csv(table: &Table, writer: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(&table.columns)?;
    for row in &table.rows {
        csv.write_record(row.iter().map(in_csv))?;
    }
    csv.flush()
}

/// A field of CSV. A spreadsheet evaluates a text that begins like a formula, so such a text gets an apostrophe, which
/// marks it as text; numbers stay numbers.
pub(super) fn csv_field(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if is_formula && !is_number(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Whether a text is a number in digits.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, part].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A cell for people.
fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Empty => "–".to_owned(),
        Cell::Text(text) => on_one_line(text).into_owned(),
        Cell::Count(count) => grouped(*count),
        Cell::Id(number) => number.to_string(),
        Cell::Share(share) => format!("{:.1} %", share * 100.0),
        Cell::Millis(millis) => shown_millis(*millis),
        Cell::Money(money) => shown_money(*money),
        Cell::UnknownMoney => "unknown".to_owned(),
        Cell::PerAnswer(per_answer) => match per_answer {
            PerAnswer::NoAnswer => "–".to_owned(),
            PerAnswer::Unknown => "unknown".to_owned(),
            PerAnswer::Exactly(each) => shown_money(*each),
            // As of counts that were not finished: so much, and perhaps more.
            PerAnswer::AtLeast(each) => format!("{}+", shown_money(*each)),
        },
        Cell::Time(at) => at.format("%Y-%m-%d %H:%M:%S").to_string(),
        Cell::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
    }
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
fn in_csv(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => on_one_line(&csv_field(text)).into_owned(),
        cell => bare(cell),
    }
}

fn is_numeric(cell: &Cell) -> bool {
    match cell {
        Cell::Count(_) | Cell::Id(_) | Cell::Share(_) | Cell::Millis(_) | Cell::Money(_) | Cell::PerAnswer(_) => true,
        Cell::Empty | Cell::UnknownMoney | Cell::Text(_) | Cell::Time(_) | Cell::Flag(_) => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_too_long_for_the_screen_become_blocks() {
        let mut table = Table::new(["target", "output_tokens", "cost"]);
        table.row(["one/a-model of mine".into(), Cell::Count(30_000), Cell::Empty]);
        table.row(["two\x1b[2J".into(), Cell::Count(7), Cell::Money(NanoUsd(1_000_000_000))]);
        // The longest of each: `two…`, `30,000` and `$1.00`.
        assert_eq!(least_width(&table), 12 + 6 + 5 + 9, "{}", in_columns(&table));
        let blocks = " target          one/a-model of mine\n output tokens   30,000\n\n \
                      target          two\\u{1b}[2J\n output tokens   7\n cost            $1.00";
        assert_eq!(in_blocks(&table), blocks);
    }

    fn sample() -> Table {
        let mut table = Table::new(["provider", "attempts", "cost", "p95", "note"]);
        table.row(["a, b".into(), Cell::Count(1_234_567), NanoUsd(150_000).into(), Cell::Millis(2340), Cell::Empty]);
        table.total(["total".into(), Cell::Count(1_234_567), NanoUsd(150_000).into(), Cell::Empty, Cell::Empty]);
        table
    }

    #[test]
    fn csv_and_plain_have_a_line_of_names_and_no_total() {
        let (mut csv, mut plain) = (Vec::new(), Vec::new());
        write_csv(&sample(), &mut csv).unwrap();
        write_plain(&sample(), &mut plain).unwrap();
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "provider,attempts,cost,p95,note\n\"a, b\",1234567,0.00015,2340,\n"
        );
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            "provider\tattempts\tcost\tp95\tnote\na, b\t1234567\t0.00015\t2340\t\n"
        );
    }

    #[test]
    fn a_table_rounds_money_to_millionths_and_never_to_nothing() {
        for (nanos, words) in [(168_183_750, "$0.168184"), (1_500, "$0.000002"), (70, "$0.00000007"), (0, "$0.00")] {
            assert_eq!(shown(&Cell::Money(NanoUsd(nanos))), words);
        }
    }

    #[test]
    fn money_per_answer_says_when_it_is_not_all() {
        let each = NanoUsd(1_500_000);
        for (per_answer, words, program) in [
            (PerAnswer::Exactly(each), "$0.0015", "0.0015"),
            (PerAnswer::AtLeast(each), "$0.0015+", "0.0015"),
            (PerAnswer::Unknown, "unknown", ""),
            (PerAnswer::NoAnswer, "–", ""),
        ] {
            let cell = Cell::from(per_answer);
            assert_eq!((shown(&cell).as_str(), in_csv(&cell).as_str()), (words, program));
            let json = if program.is_empty() { "null" } else { program };
            assert_eq!(serde_json::to_string(&cell).unwrap(), json);
        }
    }

    #[test]
    fn a_table_has_a_total_and_groups_digits() {
        let told = in_columns(&sample()).to_string();
        assert!(told.contains("1,234,567") && told.contains("$0.00015") && told.contains("2.34 s"), "{told}");
        assert!(told.contains("total"), "{told}");
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

    #[test]
    fn control_characters_do_not_reach_lines_or_terminals() {
        let mut table = Table::new(["message"]);
        table.row(["a\tb\u{1b}[31m".into()]);
        let mut plain = Vec::new();
        write_plain(&table, &mut plain).unwrap();
        assert_eq!(String::from_utf8(plain).unwrap(), "message\na\\tb\\u{1b}[31m\n");
        assert!(!in_columns(&table).to_string().contains('\u{1b}'));
    }
}
