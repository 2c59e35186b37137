//! Outcomes that are written together, with their rows as one transaction takes them: no row is copied for that.

use super::settler::{Item, Then};
use crate::domain::trace::Span;
use crate::store::settle::Settlement;

/// Outcomes that are written together.
#[derive(Debug, Default)]
pub(super) struct OutcomeBatch {
    rows: Settlement,
    /// Which rows belong together, in their order.
    parts: Vec<OutcomePart>,
    /// Memory that they take, roughly.
    bytes: usize,
}

/// How many rows an outcome has, and what traces tell of it.
#[derive(Debug)]
struct OutcomePart {
    attempts: usize,
    /// Whether the first of them is the one that decided.
    has_first: bool,
    then: ThenRow,
    /// The claim under which it is written.
    fence: Option<i64>,
    spans: Vec<Span>,
}

/// Where the next state of the job is.
#[derive(Clone, Copy, Debug)]
enum ThenRow {
    None,
    Ending,
    Park,
}

impl OutcomeBatch {
    /// Puts outcomes together.
    pub fn of(items: Vec<Item>) -> Self {
        let mut batch = Self::default();
        for item in items {
            batch.add(item);
        }
        batch
    }

    fn add(&mut self, item: Item) {
        self.bytes += item.bytes();
        let fence = item.fence();
        let Item { attempt, beside, then, spans } = item;
        let (before, has_first) = (self.rows.attempts.len(), attempt.is_some());
        self.rows.attempts.extend(attempt.map(|row| *row));
        self.rows.attempts.extend(beside);
        let then = match then {
            Then::GoOn => ThenRow::None,
            Then::End(row) => {
                self.rows.endings.push(*row);
                ThenRow::Ending
            }
            Then::Park(row) => {
                self.rows.parks.push(row);
                ThenRow::Park
            }
        };
        let attempts = self.rows.attempts.len() - before;
        self.parts.push(OutcomePart { attempts, has_first, then, fence, spans });
    }

    /// The rows of all of them.
    pub fn rows(&self) -> &Settlement {
        &self.rows
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Memory that they take, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The claims under which they are written.
    pub fn fences(&self) -> impl Iterator<Item = i64> {
        self.parts.iter().filter_map(|part| part.fence)
    }

    /// What traces tell of each, and the claim under which it is written.
    pub fn spans(&self) -> impl Iterator<Item = (Option<i64>, &[Span])> {
        self.parts.iter().map(|part| (part.fence, part.spans.as_slice()))
    }

    /// The outcomes one by one, as copies: for the disk, and for a database that refuses some of them.
    pub fn items(&self) -> Vec<Item> {
        let Settlement { attempts, endings, parks, .. } = &self.rows;
        let (mut attempts, mut endings, mut parks) = (attempts.iter(), endings.iter(), parks.iter());
        let item = |part: &OutcomePart| {
            let mut rows = attempts.by_ref().take(part.attempts).cloned();
            let attempt = if part.has_first { rows.next().map(Box::new) } else { None };
            let then = match part.then {
                ThenRow::None => None,
                ThenRow::Ending => endings.next().map(|row| Then::End(Box::new(row.clone()))),
                ThenRow::Park => parks.next().map(|row| Then::Park(row.clone())),
            };
            Item { attempt, beside: rows.collect(), then: then.unwrap_or(Then::GoOn), spans: part.spans.clone() }
        };
        self.parts.iter().map(item).collect()
    }
}
