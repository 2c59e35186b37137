//! Lays out a table of values for a terminal.

use super::colour::Toned;
use crate::printable::{columns as columns_of, on_one_line};
use crate::view::table::{Cell, Table};
use crate::view::tone::Tone;

/// Blanks between two columns.
const GAP: usize = 2;
/// A column of sentences that is narrower than this cannot be read.
const LEAST_PROSE: usize = 24;

/// A table for a screen of this many columns; `None`: there is no screen. Columns that have no room give way, the least
/// important first. Where the rest is still too wide there is a line for each value. `is_wide`: all columns are wanted.
pub(super) fn for_terminal(table: &Table, screen: Option<usize>, is_wide: bool) -> Toned {
    let mut columns = asked_for(table, is_wide);
    let Some(screen) = screen else { return in_columns(&columns, usize::MAX) };
    while least_width(&columns) > screen {
        let way = table.layout.give_way.iter().filter(|_| !is_wide);
        let next =
            way.filter_map(|name| columns.iter().position(|column| column.name == *name)).find(|place| *place > 0);
        match next {
            Some(place) => drop(columns.remove(place)),
            None => return in_blocks(&asked_for(table, is_wide), screen),
        }
    }
    in_columns(&columns, screen)
}

/// All values of all rows, a line for each.
pub(super) fn for_reading(table: &Table, screen: Option<usize>) -> Toned {
    in_blocks(&asked_for(table, true), screen.unwrap_or(usize::MAX))
}

/// A column as people see it.
struct Column {
    name: &'static str,
    /// The words of its head.
    head: String,
    cells: Vec<String>,
    /// What each cell means.
    tones: Vec<Option<Tone>>,
    /// Whether each cell says something.
    is_told: Vec<bool>,
    is_numeric: bool,
    is_prose: bool,
}

/// All rows, the totals last.
fn rows(table: &Table) -> impl Iterator<Item = &Vec<Cell>> {
    table.rows.iter().chain(&table.total)
}

/// The columns that are shown where there is room.
fn asked_for(table: &Table, is_wide: bool) -> Vec<Column> {
    let (layout, names) = (table.layout, &table.columns);
    let column = |index: usize| {
        let name = names[index];
        let cells = || rows(table).filter_map(move |row| row.get(index));
        let valued = || cells().filter(|cell| !matches!(cell, Cell::Empty) && !shown(cell).is_empty());
        Column {
            name,
            head: name.replace('_', " "),
            cells: cells().map(shown).collect(),
            tones: rows(table).map(|row| tone(table, row, index)).collect(),
            is_told: cells().map(|cell| *cell != Cell::Empty && !shown(cell).is_empty()).collect(),
            // A column of numbers stays one in spite of an odd word (`100000+`), and one of words in spite of an odd
            // number.
            is_numeric: valued().filter(|cell| cell.is_numeric()).count() * 2 > valued().count(),
            is_prose: layout.prose.contains(&name),
        }
    };
    table.wanted(is_wide).into_iter().map(column).collect()
}

impl Column {
    /// The width at which nothing of it is broken but its sentences, and its head between words.
    fn least(&self) -> usize {
        let head = longest_word(&self.head);
        if !self.is_prose {
            return head.max(self.widest_cell());
        }
        let words = self.cells.iter().map(|cell| longest_word(cell)).max().unwrap_or(0);
        head.max(words).max(self.widest_cell().min(LEAST_PROSE))
    }

    fn cell(&self, index: usize) -> (&str, Option<Tone>) {
        (self.cells.get(index).map_or("", String::as_str), self.tones.get(index).copied().flatten())
    }

    /// The width at which nothing of it is broken.
    fn full(&self) -> usize {
        columns_of(&self.head).max(self.widest_cell())
    }

    fn widest_cell(&self) -> usize {
        self.cells.iter().map(|cell| columns_of(cell)).max().unwrap_or(0)
    }
}

/// How long the longest word is.
fn longest_word(text: &str) -> usize {
    text.split(' ').map(columns_of).max().unwrap_or(0)
}

/// The smallest width at which no name and no number is broken.
fn least_width(columns: &[Column]) -> usize {
    1 + columns.iter().map(|column| column.least() + GAP).sum::<usize>().saturating_sub(GAP)
}

fn in_columns(columns: &[Column], screen: usize) -> Toned {
    let mut widths: Vec<usize> = columns.iter().map(Column::least).collect();
    let mut room = screen.saturating_sub(least_width(columns));
    // Heads that fit on one line first, then sentences.
    for is_prose in [false, true] {
        for (width, column) in widths.iter_mut().zip(columns).filter(|(_, column)| column.is_prose == is_prose) {
            let more = column.full().saturating_sub(*width).min(room);
            *width += more;
            room -= more;
        }
    }
    let all = 1 + widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
    let mut shown = Toned::default();
    let heads: Vec<(&str, Option<Tone>)> = columns.iter().map(|column| (column.head.as_str(), None)).collect();
    lay_side_by_side(&mut shown, columns, &widths, &heads);
    shown.push(None, "\n");
    shown.push(None, &"─".repeat(all));
    for index in 0..columns.iter().map(|column| column.cells.len()).max().unwrap_or(0) {
        let cells: Vec<(&str, Option<Tone>)> = columns.iter().map(|column| column.cell(index)).collect();
        shown.push(None, "\n");
        lay_side_by_side(&mut shown, columns, &widths, &cells);
    }
    shown
}

/// Adds the lines of one row.
fn lay_side_by_side(shown: &mut Toned, columns: &[Column], widths: &[usize], cells: &[(&str, Option<Tone>)]) {
    let texts: Vec<Vec<String>> = cells.iter().zip(widths).map(|((text, _), width)| wrapped(text, *width)).collect();
    for line in 0..texts.iter().map(Vec::len).max().unwrap_or(0) {
        if line > 0 {
            shown.push(None, "\n");
        }
        // Blanks are written only when something follows them.
        let mut blanks = 1;
        for (((column, &width), text), (_, tone)) in columns.iter().zip(widths).zip(&texts).zip(cells) {
            let part = text.get(line).map_or("", String::as_str);
            let room = width.saturating_sub(columns_of(part));
            let (before, after) = if column.is_numeric { (room, 0) } else { (0, room) };
            blanks += before;
            if !part.is_empty() {
                shown.push(None, &" ".repeat(blanks));
                shown.push(*tone, part);
                blanks = 0;
            }
            blanks += after + GAP;
        }
    }
}

/// The text in lines of this width, broken between words. A word that is longer has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if columns_of(line) + 1 + columns_of(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A line for each value, where the rows are too long for the screen.
fn in_blocks(columns: &[Column], screen: usize) -> Toned {
    let width = columns.iter().map(|column| columns_of(&column.head)).max().unwrap_or(0);
    let room = screen.saturating_sub(width + 4).max(LEAST_PROSE);
    let height = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    let (mut shown, mut between) = (Toned::default(), "");
    for index in 0..height {
        for column in columns.iter().filter(|column| column.is_told.get(index) == Some(&true)) {
            let (text, tone) = column.cell(index);
            for (place, part) in wrapped(text, room).iter().enumerate() {
                let head = if place == 0 { column.head.as_str() } else { "" };
                let blanks = " ".repeat(width - columns_of(head) + 3);
                shown.push(None, &format!("{between} {head}{blanks}"));
                shown.push(tone, part);
                between = "\n";
            }
        }
        between = "\n\n";
    }
    shown
}

/// What a cell means. A table of fields and values has the name of the value beside it.
fn tone(table: &Table, row: &[Cell], index: usize) -> Option<Tone> {
    let name = match (table.columns.as_slice(), row) {
        (["field", "value"], [Cell::Text(field), _]) => field.as_str(),
        (columns, _) => columns.get(index)?,
    };
    Tone::of(name, row.get(index)?)
}

/// A cell for people, on one line.
fn shown(cell: &Cell) -> String {
    on_one_line(&cell.in_words()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NanoUsd, PerAnswer};
    use crate::view::fields::{in_csv, write_csv, write_plain};
    use crate::view::table::Layout;

    fn for_terminal(table: &Table, screen: Option<usize>, is_wide: bool) -> String {
        super::for_terminal(table, screen, is_wide).to_string()
    }

    #[test]
    fn rows_that_are_too_long_for_the_screen_become_blocks() {
        let mut table = Table::new(["target", "output_tokens", "cost"]);
        table.row(["one/a-model-of-mine".into(), Cell::Count(30_000), Cell::Empty]);
        table.row(["two\x1b[2J".into(), Cell::Count(7), Cell::Money(NanoUsd(1_000_000_000))]);
        // The name, the longest word of a head, and `$1.00`, with gaps.
        let fits = 1 + 19 + 2 + 6 + 2 + 5;
        let columns = [
            " target               output   cost",
            "                      tokens",
            "───────────────────────────────────",
            " one/a-model-of-mine  30,000      –",
            " two\\u{1b}[2J              7  $1.00",
        ];
        assert_eq!(for_terminal(&table, Some(fits), false), columns.join("\n"));
        let blocks = " target          one/a-model-of-mine\n output tokens   30,000\n\n \
                      target          two\\u{1b}[2J\n output tokens   7\n cost            $1.00";
        assert_eq!(for_terminal(&table, Some(fits - 1), false), blocks);
        assert!(for_terminal(&table, None, false).contains("output tokens"));
    }

    #[test]
    fn wide_letters_and_accents_leave_the_columns_in_line() {
        let mut table = Table::new(["batch", "failed"]);
        for name in ["夜间批次", "e\u{301}te\u{301}", "plain", "👍🏽 ok"] {
            table.row([name.into(), Cell::Count(12)]);
        }
        let shown = for_terminal(&table, Some(40), false);
        let ends: Vec<usize> = shown.lines().skip(2).map(columns_of).collect();
        assert_eq!(ends, [1 + 8 + 2 + 6; 4], "{shown}");
        let blocks = for_terminal(&table, Some(12), false);
        assert!(blocks.contains(" batch    夜间批次\n failed   12"), "{blocks}");
        assert_eq!(wrapped("一二 三四 五六", 9), ["一二 三四", "五六"]);
    }

    #[test]
    fn columns_give_way_in_their_order_and_are_all_there_on_request() {
        const LAYOUT: Layout =
            Layout { wide: &["pid"], when_told: &["waiting", "failed"], give_way: &["host", "seen"], prose: &["note"] };
        let names = ["worker", "host", "pid", "seen", "waiting", "failed", "note"];
        let mut table = Table::new(names).laid_out(LAYOUT);
        let note = "a sentence that may be broken between its words, however narrow the screen is";
        table.row([
            "12".into(),
            "ip-10-0-12-117.eu-west-1.compute.internal".into(),
            "4211".into(),
            "3s".into(),
            Cell::Count(0),
            Cell::Count(2),
            note.into(),
        ]);
        let heads = |screen, is_wide| {
            let shown = for_terminal(&table, Some(screen), is_wide);
            assert!(shown.lines().all(|line| line.chars().count() <= screen), "{shown}");
            let head = shown.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            (head, shown)
        };
        assert_eq!(heads(120, false).0, "worker host seen failed note", "a count of nothing says nothing");
        assert_eq!(heads(80, false).0, "worker seen failed note");
        let (head, shown) = heads(42, false);
        assert_eq!(head, "worker failed note");
        assert!(shown.contains("however narrow"), "{shown}");
        assert_eq!(heads(140, true).0, names.join(" "));
        // Asked for all, none gives way.
        assert!(heads(80, true).1.contains(" pid       4211"), "{}", heads(80, true).1);
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
        let told = for_terminal(&sample(), None, false);
        assert!(told.contains("1,234,567") && told.contains("$0.00015") && told.contains("2.34 s"), "{told}");
        assert!(told.contains("total"), "{told}");
    }

    #[test]
    fn control_characters_do_not_reach_lines_or_terminals() {
        let mut table = Table::new(["message"]);
        table.row(["a\tb\u{1b}[31m".into()]);
        let mut plain = Vec::new();
        write_plain(&table, &mut plain).unwrap();
        assert_eq!(String::from_utf8(plain).unwrap(), "message\na\\tb\\u{1b}[31m\n");
        assert!(!for_terminal(&table, None, false).contains('\u{1b}'));
    }
}
