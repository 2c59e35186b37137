//! The report of what the prompt caches of providers did.

use super::{head, keys, share, sort, total_keys};
use crate::store::report::{Grouping, Totals};
use crate::view::table::{Cell, Layout, Table};

/// What they saved is told to the last.
const LAYOUT: Layout = Layout {
    wide: &[],
    when_told: &["unpriced_tokens"],
    give_way: &["unpriced_tokens", "written_tokens", "attempts", "input_tokens", "cached_tokens"],
    prose: &[],
};

/// The table of input that was read from them; `all` sums it up.
#[must_use]
pub fn prompt_caches(by: &[Grouping], mut rows: Vec<Totals>, all: &Totals) -> Table {
    let columns =
        ["attempts", "input_tokens", "cached_tokens", "hit_rate", "written_tokens", "saved", "unpriced_tokens"];
    let mut table = head(by, &columns).laid_out(LAYOUT);
    rows.retain(|row| row.attempts != 0);
    sort(by, &mut rows, |row| row.cached_tokens);
    let measures = |row: &Totals| -> [Cell; 7] {
        [
            row.attempts.into(),
            row.input_tokens.into(),
            row.cached_tokens.into(),
            share(row.cached_tokens, row.input_tokens),
            row.cache_write_tokens.into(),
            row.known_cache_saved().into(),
            row.cache_unpriced_tokens().into(),
        ]
    };
    for row in &rows {
        table.row(keys(&row.keys).chain(measures(row)));
    }
    table.total(total_keys(by).chain(measures(all)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NanoUsd;
    use crate::store::report::Keys;

    #[test]
    fn what_is_not_known_to_have_saved_anything_is_no_zero() {
        let by = [Grouping::Route];
        let row = |route: &str, cached_tokens, cache_priced_tokens, saved| Totals {
            keys: Keys::of(&by, [route]),
            attempts: 4,
            input_tokens: 1_000,
            cached_tokens,
            cache_write_tokens: 100,
            cache_priced_tokens,
            cache_saved: NanoUsd(saved),
            ..Totals::default()
        };
        let rows = vec![row("part", 400, 300, 7_000_000_000), row("unknown", 300, 0, 0), row("loss", 0, 100, -5)];
        let plain = Totals { cache_write_tokens: 0, ..row("plain", 0, 0, 0) };
        let table = prompt_caches(&by, [rows, vec![plain]].concat(), &Totals::default());
        let report: serde_json::Value = serde_json::to_value(&table).unwrap();
        let of = |route: &str, member: &str| {
            let row = report.as_array().unwrap().iter().find(|row| row["route"] == route).unwrap();
            row[member].clone()
        };
        assert_eq!((of("part", "hit_rate"), of("part", "unpriced_tokens")), (0.4.into(), 200.into()));
        assert_eq!(of("unknown", "saved"), serde_json::Value::Null);
        assert_ne!(of("plain", "saved"), serde_json::Value::Null);
        assert!(of("loss", "saved").to_string().contains('-'), "{report}");
    }
}
