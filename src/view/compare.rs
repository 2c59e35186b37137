//! One report of two periods, side by side: the changes.

use super::table::{Cell, Layout, Table};
use crate::domain::NanoUsd;
use std::collections::HashMap;

/// How it is laid out for people.
const LAYOUT: Layout = Layout { wide: &[], when_told: &[], give_way: &[], prose: &[] };

/// Compares two tables of the same report, whose first `keys` columns tell what a row is of. The result has a row for
/// each measure of each row that is in one of them: the figure before, the figure now, and the difference in its own
/// unit and as a share of the figure before. A measure that is nothing in both is left out, and so is all that is no
/// number.
#[must_use]
pub fn compare(before: &Table, now: &Table, keys: usize) -> Table {
    let names = now.columns.iter().copied().take(keys);
    let mut table = Table::new(names.chain(["measure", "before", "now", "change", "percent"])).laid_out(LAYOUT);
    let of = |row: &[Cell]| -> Vec<String> { row.iter().take(keys).map(name).collect() };
    let mut others: HashMap<Vec<String>, &Vec<Cell>> = before.rows.iter().map(|row| (of(row), row)).collect();
    for row in &now.rows {
        let same = others.remove(&of(row)).map_or(&[][..], Vec::as_slice);
        add(&mut table, &now.columns, keys, same, row);
    }
    for row in before.rows.iter().filter(|row| others.contains_key(&of(row))) {
        add(&mut table, &now.columns, keys, row, &[]);
    }
    table
}

/// What tells a row from others in this cell.
fn name(cell: &Cell) -> String {
    if let Cell::Text(text) = cell { text.clone() } else { String::new() }
}

fn add(table: &mut Table, columns: &[&'static str], keys: usize, before: &[Cell], now: &[Cell]) {
    let own = if now.is_empty() { before } else { now };
    for (index, column) in columns.iter().enumerate().skip(keys) {
        let cell = |row: &[Cell]| row.get(index).cloned().unwrap_or(Cell::Empty);
        let (was, is) = (cell(before), cell(now));
        let (from, to) = (Amount::of(&was), Amount::of(&is));
        if [from, to].iter().all(|amount| amount.is_none_or(|amount| amount.number == 0.0)) {
            continue;
        }
        let change = match (from, to) {
            (Some(from), Some(to)) => to.minus(from),
            // A group that is not in one of the periods has had none of it there.
            (None, Some(to)) if before.is_empty() => to.cell(),
            (Some(from), None) if now.is_empty() => from.negative(),
            _ => Cell::Empty,
        };
        let percent = match (from, to) {
            (Some(from), Some(to)) if from.number > 0.0 && !from.is_share => Cell::Share(to.number / from.number - 1.0),
            _ => Cell::Empty,
        };
        let measures = [(*column).into(), was, is, change, percent];
        table.row(own.iter().take(keys).cloned().chain(measures));
    }
}

/// A cell that is a number, and how to write a number of its kind.
#[derive(Clone, Copy)]
struct Amount {
    number: f64,
    exact: i64,
    is_share: bool,
    as_cell: fn(i64) -> Cell,
}

impl Amount {
    fn of(cell: &Cell) -> Option<Self> {
        let (exact, as_cell): (i64, fn(i64) -> Cell) = match cell {
            Cell::Count(count) => (*count, Cell::Count),
            Cell::Millis(millis) => (*millis, Cell::Millis),
            Cell::Money(NanoUsd(nanos)) => (*nanos, |nanos| Cell::Money(NanoUsd(nanos))),
            Cell::PerAnswer(each) => (each.amount()?.0, |nanos| Cell::Money(NanoUsd(nanos))),
            Cell::Share(share) => {
                return Some(Self { number: *share, exact: 0, is_share: true, as_cell: |_| Cell::Empty });
            }
            _ => return None,
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage")]
        let number = exact as f64;
        Some(Self { number, exact, is_share: false, as_cell })
    }

    fn cell(self) -> Cell {
        if self.is_share { Cell::Share(self.number) } else { (self.as_cell)(self.exact) }
    }

    fn negative(self) -> Cell {
        if self.is_share { Cell::Share(-self.number) } else { (self.as_cell)(self.exact.saturating_neg()) }
    }

    fn minus(self, other: Self) -> Cell {
        if self.is_share {
            Cell::Share(self.number - other.number)
        } else {
            (self.as_cell)(self.exact.saturating_sub(other.exact))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PerAnswer;

    fn report(rows: Vec<Vec<Cell>>) -> Table {
        let mut table = Table::new(["provider", "attempts", "share", "cost", "each"]);
        for row in rows {
            table.row(row);
        }
        table
    }

    fn row(provider: &str, attempts: i64, share: f64, cost: i64, each: PerAnswer) -> Vec<Cell> {
        vec![provider.into(), Cell::Count(attempts), Cell::Share(share), NanoUsd(cost).into(), each.into()]
    }

    #[test]
    fn each_measure_is_told_before_and_now_with_what_has_changed() {
        let exactly = |nanos| PerAnswer::Exactly(NanoUsd(nanos));
        let before = report(vec![row("a", 8, 0.25, 100, exactly(10)), row("gone", 3, 0.0, 0, PerAnswer::NoAnswer)]);
        let now = report(vec![row("a", 10, 0.5, 80, PerAnswer::Unknown), row("new", 2, 0.0, 5, exactly(5))]);
        let told = serde_json::to_value(compare(&before, &now, 1)).unwrap();
        let expected = serde_json::json!([
            { "provider": "a", "measure": "attempts", "before": 8, "now": 10, "change": 2, "percent": 0.25 },
            { "provider": "a", "measure": "share", "before": 0.25, "now": 0.5, "change": 0.25, "percent": null },
            { "provider": "a", "measure": "cost", "before": 1e-7, "now": 8e-8, "change": -2e-8,
              "percent": 0.8 - 1.0 },
            { "provider": "a", "measure": "each", "before": 1e-8, "now": null, "change": null, "percent": null },
            { "provider": "new", "measure": "attempts", "before": null, "now": 2, "change": 2, "percent": null },
            { "provider": "new", "measure": "cost", "before": null, "now": 5e-9, "change": 5e-9, "percent": null },
            { "provider": "new", "measure": "each", "before": null, "now": 5e-9, "change": 5e-9, "percent": null },
            { "provider": "gone", "measure": "attempts", "before": 3, "now": null, "change": -3, "percent": null },
        ]);
        assert_eq!(told, expected);
    }
}
