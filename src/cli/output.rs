//! Standard output: one report, four shapes.

use super::GlobalArgs;
use crate::domain::NanoUsd;
use crate::printable::{self, Notation, Printable, on_one_line};
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, Width};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};

/// The shape of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: aligned columns with totals.
    Table,
    /// For `cut` and `awk`: a line of names, then a line per row, with tabs between.
    Plain,
    /// An array of objects; money is an exact decimal number of dollars.
    Json,
    /// With a line of names.
    Csv,
}

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(pub io::Error);

/// Where data goes. There is one per command, and nothing else writes to standard output.
pub struct Output {
    format: Format,
    is_terminal: bool,
    is_quiet: bool,
    writer: Box<dyn Write + Send>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output, in the shape that was asked for.
    #[must_use]
    pub fn new(global: &GlobalArgs) -> Self {
        let stdout = printable::stdout();
        let is_terminal = stdout.is_terminal();
        let usual = if is_terminal { Format::Table } else { Format::Plain };
        let format = global.format.unwrap_or(usual);
        let notation = if format == Format::Json { Notation::Json } else { Notation::Text };
        Self {
            format,
            is_terminal,
            is_quiet: global.quiet,
            writer: Box::new(BufWriter::new(Printable::new(stdout, notation))),
        }
    }

    /// For progress beside data that goes elsewhere: on standard error, unless that is to be quiet. Nothing fails
    /// because no process reads it.
    #[must_use]
    pub fn for_progress(global: &GlobalArgs) -> Self {
        let is_terminal = printable::stderr_is_terminal();
        let usual = if is_terminal { Format::Table } else { Format::Plain };
        let writer: Box<dyn Write + Send> = if global.quiet {
            Box::new(io::sink())
        } else {
            Box::new(Dispensable(BufWriter::new(printable::stderr())))
        };
        Self { format: global.format.unwrap_or(usual), is_terminal, is_quiet: global.quiet, writer }
    }

    /// The shape that was asked for.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether only errors are to be told.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether a person looks at it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// For exports in lines of JSON or in CSV, which stay exact; `is_json` is which of them. A terminal gets them with
    /// hidden characters written as what they are.
    pub fn export(&mut self, is_json: bool) -> Result<&mut (dyn Write + Send), OutputError> {
        self.finish()?;
        self.writer = export_to(self.is_terminal, is_json);
        Ok(&mut *self.writer)
    }

    /// For what is written as it comes.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.writer
    }

    /// One line of text, perhaps with empty ones before it. No name in it begins another one.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        let text = text.to_string();
        let line = text.trim_start_matches('\n');
        let empty = &text[..text.len() - line.len()];
        writeln!(self.writer, "{empty}{}", on_one_line(line)).map_err(OutputError)
    }

    /// Several lines, in which each text is on one of its own.
    pub fn lines(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        writeln!(self.writer, "{text}").map_err(OutputError)
    }

    /// One JSON document over several lines.
    pub fn json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), OutputError> {
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(|error| OutputError(error.into()))?;
        self.line("")
    }

    /// One JSON document on one line, and out with it: for streams of them.
    pub fn json_line(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), OutputError> {
        serde_json::to_writer(&mut self.writer, value).map_err(|error| OutputError(error.into()))?;
        self.line("")?;
        self.finish()
    }

    /// A report, in the shape that was asked for.
    pub fn report(&mut self, report: &Report) -> Result<(), OutputError> {
        match self.format {
            Format::Table => {
                let table = report.to_table();
                match table.width() {
                    Some(width) if report.least_width() > usize::from(width) => self.lines(report.to_blocks()),
                    _ => self.lines(table),
                }
            }
            Format::Plain => report.write_plain(&mut self.writer).map_err(OutputError),
            Format::Json => self.json(report),
            Format::Csv => report.write_csv(&mut self.writer).map_err(OutputError),
        }
    }

    /// Something that is probably not as it should be; to standard error.
    pub fn warn(&self, text: impl fmt::Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// A word to whoever looks on; to standard error, unless that is to be quiet.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.is_quiet {
            // Without a standard error there is no way to tell.
            let _ = writeln!(printable::stderr(), "{text}");
        }
    }

    /// Writes out what is still held back. A command that ends without this may lose an error.
    pub fn finish(&mut self) -> Result<(), OutputError> {
        self.writer.flush().map_err(OutputError)
    }
}

/// Standard output for an export.
#[must_use]
pub fn export_to(is_terminal: bool, is_json: bool) -> Box<dyn Write + Send> {
    let stdout = printable::stdout();
    if is_terminal {
        let notation = if is_json { Notation::Json } else { Notation::Text };
        Box::new(BufWriter::new(Printable::new(stdout, notation)))
    } else {
        Box::new(BufWriter::new(stdout))
    }
}

/// A field of CSV. A spreadsheet computes what begins like a formula, so a text that does gets an apostrophe, by which
/// it is a text; numbers stay numbers.
#[must_use]
pub fn csv_field(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if is_formula && !is_number(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Whether a text is one number, in digits.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, part].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Writes what is dispensable: where it cannot be written (a closed terminal, a full disk, a reader that is gone)
/// the user cannot be told, and the work goes on.
#[derive(Debug)]
pub struct Dispensable<W>(pub W);

impl<W: Write> Write for Dispensable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// One value of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing is known, or nothing applies.
    Empty,
    /// Words.
    Text(String),
    /// How many.
    Count(i64),
    /// A part of one, shown as a percentage.
    Share(f64),
    /// A duration in milliseconds.
    Millis(i64),
    /// Dollars.
    Money(NanoUsd),
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

impl From<NanoUsd> for Cell {
    fn from(money: NanoUsd) -> Self {
        Self::Money(money)
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
    /// For people.
    fn shown(&self) -> String {
        match self {
            Self::Empty => "–".to_owned(),
            Self::Text(text) => on_one_line(text).into_owned(),
            Self::Count(count) => grouped(*count),
            Self::Share(share) => format!("{:.1} %", share * 100.0),
            Self::Millis(millis) => shown_millis(*millis),
            Self::Money(money) => shown_money(*money),
            Self::Time(at) => at.format("%Y-%m-%d %H:%M:%S").to_string(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        }
    }

    /// For programs, as text on one line.
    fn bare(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => on_one_line(text).into_owned(),
            Self::Count(number) | Self::Millis(number) => number.to_string(),
            Self::Share(share) => format!("{share:.6}"),
            Self::Money(money) => decimal(*money),
            Self::Time(at) => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            Self::Flag(flag) => flag.to_string(),
        }
    }

    /// For spreadsheets.
    fn in_csv(&self) -> String {
        match self {
            Self::Text(text) => on_one_line(&csv_field(text)).into_owned(),
            cell => cell.bare(),
        }
    }

    fn is_number(&self) -> bool {
        match self {
            Self::Count(_) | Self::Share(_) | Self::Millis(_) | Self::Money(_) => true,
            Self::Empty | Self::Text(_) | Self::Time(_) | Self::Flag(_) => false,
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(number) | Self::Millis(number) => serializer.serialize_i64(*number),
            Self::Share(share) => serializer.serialize_f64(*share),
            // Digit by digit: a float would round what the ledger holds exactly.
            Self::Money(money) => {
                RawValue::from_string(decimal(*money)).map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
            Self::Time(_) => serializer.serialize_str(&self.bare()),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

/// Dollars without the sign: `0.000150`.
fn decimal(money: NanoUsd) -> String {
    money.to_string().replacen('$', "", 1)
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

/// Millionths of a dollar are enough to look at; an amount below that is shown in full rather than as nothing. The
/// other shapes have every digit.
fn shown_money(money: NanoUsd) -> String {
    let rounded = NanoUsd((money.0.saturating_add(if money.0 < 0 { -500 } else { 500 })) / 1000 * 1000);
    if rounded == NanoUsd::ZERO { money.to_string() } else { rounded.to_string() }
}

/// Columns and rows, and a row of totals for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    total: Option<Vec<Cell>>,
}

impl Report {
    /// An empty report with these columns.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = &'static str>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), total: None }
    }

    /// Adds a row: one cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell per column");
        self.rows.push(row);
    }

    /// Sets the totals, which only tables show: in the other shapes they would be taken for a row.
    pub fn total(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.total = Some(cells.into_iter().collect());
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn to_table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')))
            .set_content_arrangement(ContentArrangement::Dynamic);
        // Words can be broken between lines, a name with underscores cannot.
        table.set_header(self.columns.iter().map(|column| column.replace('_', " ")));
        for row in self.rows.iter().chain(&self.total) {
            table.add_row(row.iter().map(Cell::shown));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            // A column of numbers stays one with an odd word in it (`100000+`), and one of words with an odd number.
            let rows = || self.rows.iter().chain(&self.total);
            let cells = || rows().filter_map(|row| row.get(index)).filter(|cell| **cell != Cell::Empty);
            if cells().filter(|cell| cell.is_number()).count() * 2 > cells().count() {
                column.set_cell_alignment(CellAlignment::Right);
                // Half a number is none: where there is little room, words give way.
                let widest = cells().map(|cell| cell.shown().chars().count()).max().unwrap_or(0);
                let least = Width::Fixed(u16::try_from(widest + 2).unwrap_or(u16::MAX));
                column.set_constraint(ColumnConstraint::LowerBoundary(least));
            }
        }
        table
    }

    /// The narrowest table that breaks no word.
    fn least_width(&self) -> usize {
        let longest = |text: &str| text.split([' ', '-']).map(|word| word.chars().count()).max().unwrap_or(0);
        let of_column = |index: usize, name: &str| {
            let cells = self.rows.iter().chain(&self.total).filter_map(|row| row.get(index));
            let of_cell = |cell: &Cell| {
                if cell.is_number() { cell.shown().chars().count() } else { longest(&cell.shown()) }
            };
            cells.map(of_cell).max().unwrap_or(0).max(longest(&name.replace('_', " ")))
        };
        // A blank on either side, and one between columns.
        self.columns.iter().enumerate().map(|(index, name)| of_column(index, name) + 3).sum()
    }

    /// A line for each value, where the rows are too long for the screen.
    fn to_blocks(&self) -> String {
        let width = self.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let rows = self.rows.iter().chain(&self.total).map(|row| {
            let is_told = |cell: &Cell| *cell != Cell::Empty && !cell.shown().is_empty();
            let values = self.columns.iter().zip(row).filter(|(_, cell)| is_told(cell));
            let lines = values.map(|(name, cell)| format!(" {:width$}   {}\n", name.replace('_', " "), cell.shown()));
            lines.collect::<String>()
        });
        rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    fn write_plain(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "{}", self.columns.join("\t"))?;
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(Cell::bare).collect();
            writeln!(writer, "{}", cells.join("\t"))?;
        }
        Ok(())
    }

    fn write_csv(&self, writer: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(writer);
        csv.write_record(&self.columns)?;
        for row in &self.rows {
            csv.write_record(row.iter().map(Cell::in_csv))?;
        }
        csv.flush()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            rows.serialize_element(&Row { columns: &self.columns, cells: row })?;
        }
        rows.end()
    }
}

/// A row with its names, in the order of the columns.
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
    fn rows_that_are_too_long_for_the_screen_become_blocks() {
        let mut report = Report::new(["target", "output_tokens", "cost"]);
        report.row(["one/a-model of mine".into(), Cell::Count(30_000), Cell::Empty]);
        report.row(["two\x1b[2J".into(), Cell::Count(7), Cell::Money(NanoUsd(1_000_000_000))]);
        // The longest of each: `two…`, `30,000` and `$1.00`.
        assert_eq!(report.least_width(), 12 + 6 + 5 + 9, "{}", report.to_table());
        let blocks = " target          one/a-model of mine\n output tokens   30,000\n\n \
                      target          two\\u{1b}[2J\n output tokens   7\n cost            $1.00";
        assert_eq!(report.to_blocks(), blocks);
    }

    fn report() -> Report {
        let mut report = Report::new(["provider", "attempts", "cost", "p95", "note"]);
        report.row(["a, b".into(), 1_234_567.into(), NanoUsd(150_000).into(), Cell::Millis(2340), Cell::Empty]);
        report.total(["total".into(), 1_234_567.into(), NanoUsd(150_000).into(), Cell::Empty, Cell::Empty]);
        report
    }

    #[test]
    fn json_holds_money_as_an_exact_number_and_no_total() {
        let mut nanos = Report::new(["cost"]);
        nanos.row([NanoUsd(i64::MAX).into()]);
        assert_eq!(serde_json::to_string(&nanos).unwrap(), r#"[{"cost":9223372036.854775807}]"#);
        let expected = r#"[{"provider":"a, b","attempts":1234567,"cost":0.00015,"p95":2340,"note":null}]"#;
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }

    #[test]
    fn csv_and_plain_have_a_line_of_names_and_no_total() {
        let (mut csv, mut plain) = (Vec::new(), Vec::new());
        report().write_csv(&mut csv).unwrap();
        report().write_plain(&mut plain).unwrap();
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
        for (nanos, shown) in [(168_183_750, "$0.168184"), (1_500, "$0.000002"), (70, "$0.00000007"), (0, "$0.00")] {
            assert_eq!(Cell::Money(NanoUsd(nanos)).shown(), shown);
        }
    }

    #[test]
    fn a_table_has_a_total_and_groups_digits() {
        let table = report().to_table().to_string();
        assert!(table.contains("1,234,567") && table.contains("$0.00015") && table.contains("2.34 s"), "{table}");
        assert!(table.contains("total"), "{table}");
    }

    #[test]
    fn what_is_dispensable_is_lost_without_a_word() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let mut writer = Dispensable(Gone);
        writeln!(writer, "3 of 4 jobs").unwrap();
        writer.flush().unwrap();
    }

    #[test]
    fn no_name_begins_a_line_of_its_own() {
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shown = std::sync::Arc::default();
        let writer = Box::new(Shared(std::sync::Arc::clone(&shown)));
        let mut output = Output { format: Format::Table, is_terminal: true, is_quiet: false, writer };
        output.line("\nbatch b\nerror: forged\r\u{202e}").unwrap();
        let mut report = Report::new(["batch"]);
        report.row(["b\nerror: forged".into()]);
        output.report(&report).unwrap();
        let shown = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
        assert!(shown.starts_with("\nbatch b\\nerror: forged\\r\\u{202e}\n"), "{shown}");
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("error")), "{shown}");
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
        let mut report = Report::new(["batch", "jobs"]);
        report.row(["=HYPERLINK(\"http://x\",\"y\")".into(), Cell::Count(-7)]);
        report.row(["\u{1b}]0;x\u{7}\n=1".into(), Cell::Count(1)]);
        let mut csv = Vec::new();
        report.write_csv(&mut csv).unwrap();
        let expected = "batch,jobs\n\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",-7\n\\u{1b}]0;x\\u{7}\\n=1,1\n";
        assert_eq!(String::from_utf8(csv).unwrap(), expected);
    }

    #[test]
    fn control_characters_do_not_reach_lines_or_terminals() {
        let mut report = Report::new(["message"]);
        report.row(["a\tb\u{1b}[31m".into()]);
        let mut plain = Vec::new();
        report.write_plain(&mut plain).unwrap();
        assert_eq!(String::from_utf8(plain).unwrap(), "message\na\\tb\\u{1b}[31m\n");
        assert!(!report.to_table().to_string().contains('\u{1b}'));
    }
}
