//! The report of shadows.

use super::{Grouping, head, keys, share, total_keys};
use crate::domain::per_answer::known_cost;
use crate::store::report::ShadowRow;
use crate::view::table::{Cell, Layout, Table};

const LAYOUT: Layout = Layout {
    wide: &[],
    when_told: &["fields_same", "waiting", "not_asked"],
    give_way: &[
        "not_asked",
        "waiting",
        "cost",
        "shadow_cost",
        "p50_ms",
        "shadow_p50_ms",
        "fields_same",
        "both_accepted",
        "cost_per_answer",
        "shadow_per_answer",
        "answer_only",
        "compared",
    ],
    prose: &[],
};

/// The table of answers beside those of shadows. A pair is an accepted job and its shadow that was asked: so what one
/// alone has is the job.
#[must_use]
pub fn shadows(by: &[Grouping], rows: &[ShadowRow], all: Option<&ShadowRow>) -> Table {
    let measures = [
        "pairs",
        "both_accepted",
        "answer_only",
        "compared",
        "same",
        "fields_same",
        "cost",
        "shadow_cost",
        "cost_per_answer",
        "shadow_per_answer",
        "p50_ms",
        "shadow_p50_ms",
        "waiting",
        "not_asked",
    ];
    let mut table = head(by, &measures).laid_out(LAYOUT);
    for row in rows {
        table.row(keys(&row.keys).chain(cells(row)));
    }
    if let Some(all) = all.filter(|_| !by.is_empty() && !rows.is_empty()) {
        table.total(total_keys(by).chain(cells(all)));
    }
    table
}

fn cells(row: &ShadowRow) -> [Cell; 14] {
    let millis = |millis: Option<i64>| millis.map_or(Cell::Empty, Cell::Millis);
    let [answers, shadows] = row.spent();
    [
        row.pairs.into(),
        row.both_accepted.into(),
        (row.pairs - row.both_accepted).into(),
        row.compared.into(),
        share(row.same, row.compared),
        share(row.fields_same, row.fields),
        known_cost(row.cost, row.unpriced, row.pairs).into(),
        known_cost(row.shadow_cost, row.shadow_unpriced, row.pairs).into(),
        answers.per_answer().into(),
        shadows.per_answer().into(),
        millis(row.p50_ms),
        millis(row.shadow_p50_ms),
        row.waiting.into(),
        row.not_asked.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;
    use crate::store::report::Keys;

    #[test]
    fn shares_are_of_what_can_be_compared_and_costs_are_told_apart() {
        let by = [Grouping::Route];
        let row = ShadowRow {
            keys: Keys::of(&by, ["r"]),
            pairs: 10,
            both_accepted: 8,
            compared: 4,
            same: 3,
            fields: 8,
            fields_same: 6,
            cost: NanoUsd(10_000_000),
            shadow_cost: NanoUsd(4_000_000),
            p50_ms: Some(20),
            waiting: 1,
            ..ShadowRow::default()
        };
        let told = serde_json::to_value(shadows(&by, std::slice::from_ref(&row), Some(&row))).unwrap();
        let told = &told[0];
        assert_eq!((&told["pairs"], &told["both_accepted"], &told["answer_only"]), (&10.into(), &8.into(), &2.into()));
        assert_eq!(told["compared"], 4);
        assert_eq!((told["same"].as_f64(), told["fields_same"].as_f64()), (Some(0.75), Some(0.75)));
        assert_eq!((told["cost"].as_f64(), told["shadow_cost"].as_f64()), (Some(0.01), Some(0.004)));
        assert_eq!(told["cost_per_answer"].as_f64(), Some(0.001));
        assert_eq!(told["shadow_per_answer"].as_f64(), Some(0.0005));
        assert_eq!((&told["p50_ms"], told["shadow_p50_ms"].is_null()), (&20.into(), true));
        let none = ShadowRow { keys: Keys::of(&by, ["r"]), waiting: 2, ..ShadowRow::default() };
        let told = serde_json::to_value(shadows(&by, &[none], None)).unwrap();
        assert!(told[0]["same"].is_null() && told[0]["shadow_per_answer"].is_null(), "{told}");
    }
}
