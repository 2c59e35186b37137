//! The outcome for costs that were computed again.

use super::dollars::Dollars;
use super::table::Table;
use crate::domain::NanoUsd;
use crate::domain::counted::counted;
use serde::Serialize;

/// The sums of a walk over the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Attempts that were looked at: those that were charged, or whose cost is unknown.
    pub attempts: u64,
    /// Those of them that are to say something else.
    pub changes: u64,
    /// What they cost together, as far as that is known, before and after.
    pub cost_before: Dollars,
    pub cost_after: Dollars,
    /// Those whose cost is unknown, before and after.
    pub unknown_before: u64,
    pub unknown_after: u64,
}

impl Sums {
    /// Counts an attempt.
    pub fn count(&mut self, before: Option<NanoUsd>, after: Option<NanoUsd>, changes: bool) {
        self.attempts += 1;
        self.changes += u64::from(changes);
        self.cost_before.0 += before.unwrap_or_default();
        self.cost_after.0 += after.unwrap_or_default();
        self.unknown_before += u64::from(before.is_none());
        self.unknown_after += u64::from(after.is_none());
    }
}

/// The changes, proposed or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepricedView {
    #[serde(flatten)]
    pub sums: Sums,
    /// Attempts that were changed; `None`: it was only looked at.
    pub changed: Option<u64>,
}

impl RepricedView {
    /// One row.
    #[must_use]
    pub fn table(&self) -> Table {
        let sums = &self.sums;
        let mut table = Table::new([
            "attempts",
            if self.changed.is_some() { "changed" } else { "changes" },
            "cost_before",
            "cost_after",
            "unknown_before",
            "unknown_after",
        ]);
        table.row([
            sums.attempts.into(),
            self.changed.unwrap_or(sums.changes).into(),
            sums.cost_before.into(),
            sums.cost_after.into(),
            sums.unknown_before.into(),
            sums.unknown_after.into(),
        ]);
        table
    }

    /// The same in a sentence or two.
    #[must_use]
    pub fn in_words(&self) -> String {
        let sums = &self.sums;
        let of = counted(sums.attempts, "attempt", "attempts");
        let told = match self.changed {
            _ if sums.changes == 0 => return format!("nothing changes in the cost of {of}"),
            None => format!("{} of {of} would cost something else", sums.changes),
            Some(changed) => format!("{changed} of {of} cost something else now"),
        };
        let left = match self.changed {
            Some(changed) if changed < sums.changes => {
                let left = sums.changes - changed;
                format!("; {left} changed meanwhile and were left as they are: run it once more")
            }
            _ => String::new(),
        };
        format!(
            "{told}: {} before, {} after; unknown {} before, {} after{left}",
            sums.cost_before.0, sums.cost_after.0, sums.unknown_before, sums.unknown_after
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_say_what_is_known_before_and_after() {
        let mut sums = Sums::default();
        sums.count(Some(NanoUsd(100)), Some(NanoUsd(150)), true);
        sums.count(None, Some(NanoUsd(7)), true);
        sums.count(None, None, false);
        let view = RepricedView { sums: sums.clone(), changed: None };
        assert_eq!(
            view.in_words(),
            "2 of 3 attempts would cost something else: $0.0000001 before, $0.000000157 after; unknown 2 before, \
             1 after"
        );
        let told = RepricedView { sums, changed: Some(1) }.in_words();
        assert!(told.ends_with("1 changed meanwhile and were left as they are: run it once more"), "{told}");
        let nothing = RepricedView { sums: Sums { attempts: 2, ..Sums::default() }, changed: Some(0) };
        assert_eq!(nothing.in_words(), "nothing changes in the cost of 2 attempts");
    }
}
