//! The ledger beside an invoice, as it is shown.

use super::table::{Cell, Layout, Table};
use crate::domain::NanoUsd;
use crate::domain::reconcile::{Compared, Discrepancy};

/// A line for each day and model; the last one has the sums.
#[must_use]
pub fn table(compared: &[Compared], all: bool) -> Table {
    let columns = [
        "day",
        "model",
        "finding",
        "ledger_cost",
        "invoice_cost",
        "difference",
        "ledger_tokens",
        "invoice_tokens",
        "uncertain",
        "perhaps",
    ];
    let mut table = Table::new(columns).laid_out(Layout {
        wide: &["perhaps"],
        when_told: &["invoice_cost", "difference", "invoice_tokens", "perhaps"],
        give_way: &["uncertain", "ledger_tokens", "invoice_tokens"],
        prose: &["model", "perhaps"],
    });
    for line in compared.iter().filter(|line| all || line.finding != Discrepancy::Agrees) {
        table.row([
            line.day.as_str().into(),
            line.model.as_str().into(),
            line.finding.as_str().into(),
            money(line.ledger.cost),
            money(line.invoice.cost),
            money(line.ledger.cost.zip(line.invoice.cost).map(|(ours, theirs)| ours.saturating_sub(theirs))),
            count(line.ledger.tokens),
            count(line.invoice.tokens),
            money(Some(line.ledger.uncertain)),
            line.perhaps.join("; ").into(),
        ]);
    }
    let sum = |of: &dyn Fn(&Compared) -> Option<i128>| compared.iter().filter_map(of).reduce(i128::saturating_add);
    let (ours, theirs) = (sum(&|line| line.ledger.cost), sum(&|line| line.invoice.cost));
    let differing = compared.iter().filter(|line| line.finding != Discrepancy::Agrees).count();
    table.total([
        "all".into(),
        Cell::Empty,
        format!("{differing} of {} differ", compared.len()).into(),
        money(ours),
        money(theirs),
        money(ours.zip(theirs).map(|(ours, theirs)| ours.saturating_sub(theirs))),
        count(sum(&|line| line.ledger.tokens)),
        count(sum(&|line| line.invoice.tokens)),
        money(sum(&|line| Some(line.ledger.uncertain))),
        Cell::Empty,
    ]);
    table
}

/// What may be behind the differences, a sentence for each line of the table that has one.
#[must_use]
pub fn perhaps(compared: &[Compared]) -> Vec<String> {
    let differing = compared.iter().filter(|line| line.finding != Discrepancy::Agrees && !line.perhaps.is_empty());
    differing.map(|line| format!("{} {}: {}", line.day, line.model, line.perhaps.join("; "))).collect()
}

fn money(nanos: Option<i128>) -> Cell {
    let bounded = |nanos: i128| i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    nanos.map_or(Cell::Empty, |nanos| Cell::Money(NanoUsd(bounded(nanos))))
}

fn count(count: Option<i128>) -> Cell {
    count.map_or(Cell::Empty, |count| Cell::Count(i64::try_from(count).unwrap_or(i64::MAX)))
}
