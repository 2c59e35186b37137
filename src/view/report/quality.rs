//! How good answers were.

use super::{head, keys, share, sort, total_keys};
use crate::domain::{ErrorClass, SoftFailure};
use crate::store::report::{Grouping, Keys, Totals};
use crate::view::table::{Cell, Layout, Table};
use std::collections::HashMap;

/// As for all reports, and kinds of soft failures have columns where there are any.
const QUALITY: Layout = Layout { wide: &[], when_told: SoftFailure::NAMES, give_way: SoftFailure::NAMES, prose: &[] };

/// The dimensions by which sums are asked for [`quality`].
#[must_use]
pub fn by_of_quality(by: &[Grouping]) -> Vec<Grouping> {
    by.iter().copied().chain([Grouping::Class, Grouping::Detail]).collect()
}

/// The answers of one group.
#[derive(Clone, Default)]
struct Answers {
    keys: Keys,
    accepted: i64,
    rejected: i64,
    /// The rejected ones by kind, in the order of all kinds.
    kinds: Vec<i64>,
    sum: Totals,
}

impl Answers {
    fn add(&mut self, row: &Totals) {
        self.kinds.resize(SoftFailure::ALL.len(), 0);
        self.sum.succeeded += row.succeeded;
        self.sum.repaired += row.repaired;
        self.sum.cost += row.cost;
        self.sum.uncertain += row.uncertain;
        self.sum.unpriced += row.unpriced;
        match row.keys.get(Grouping::Class) {
            Some("") => self.accepted += row.attempts,
            Some(class) if class == ErrorClass::SoftFailure.as_str() => {
                self.rejected += row.attempts;
                let detail = row.keys.get(Grouping::Detail).unwrap_or_default();
                let kinds = SoftFailure::ALL.iter().zip(&mut self.kinds);
                for (_, count) in kinds.filter(|(kind, _)| kind.as_str() == detail) {
                    *count += row.attempts;
                }
            }
            _ => {}
        }
    }

    fn measures(&self) -> impl Iterator<Item = Cell> {
        let answers = self.accepted + self.rejected;
        let told: [Cell; 5] = [
            answers.into(),
            self.accepted.into(),
            share(self.accepted, answers),
            self.sum.repaired.into(),
            self.sum.spent().per_answer().into(),
        ];
        told.into_iter().chain(self.kinds.iter().map(|count| Cell::Count(*count)))
    }
}

/// The table of how good answers were: how many were accepted, the faults of the others, and the dollars per accepted
/// answer. The rows are by [more dimensions](by_of_quality) than are shown.
#[must_use]
pub fn quality(by: &[Grouping], rows: &[Totals]) -> Table {
    let measures = ["answers", "accepted", "acceptance", "repaired", "cost_per_answer"];
    let mut table = head(by, &[&measures[..], SoftFailure::NAMES].concat()).laid_out(QUALITY);
    let mut places: HashMap<Keys, usize> = HashMap::new();
    let mut groups: Vec<Answers> = Vec::new();
    let mut all = Answers::default();
    for row in rows {
        let own = row.keys.only(by);
        let place = *places.entry(own.clone()).or_insert_with(|| {
            groups.push(Answers { keys: own, ..Answers::default() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.add(row);
        }
        all.add(row);
    }
    groups.retain(|group| group.accepted != 0 || group.rejected != 0);
    sort(by, &mut groups, |group| group.accepted + group.rejected);
    for group in &groups {
        table.row(keys(&group.keys).chain(group.measures()));
    }
    if !groups.is_empty() {
        table.total(total_keys(by).chain(all.measures()));
    }
    table
}
