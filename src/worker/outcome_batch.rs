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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::JobId;
    use crate::store::claim::Lease;
    use crate::store::settle::ParkRow;
    use serde_json::{Value, json};

    fn lease(job: i64) -> Value {
        json!({ "job": job, "fence": job, "born": 0 })
    }

    /// The least that a row of a call consists of, as the spool holds it.
    fn called(job: i64, number: i64) -> Value {
        json!({
            "lease": lease(job), "labels": { "route": "r", "project": "p", "batch": null, "login": "l" },
            "number": number, "round": 0, "provider": "one", "model": "m", "rung": 0, "started_at": 1, "ended_at": 2,
            "first_byte_ms": null, "total_ms": 1, "class": null, "detail": null, "http_status": 200, "code": null,
            "message": null, "retry_at": null, "request_id": null, "model_served": null, "finish": null,
            "usage_raw": null, "usage": crate::domain::Usage::default(), "cost": null, "uncertain": 0, "price": null,
            "decision": null, "answer": null,
        })
    }

    fn park(job: i64) -> Then {
        let lease = Lease { job: JobId(job), fence: job, born: 0 };
        Then::Park(ParkRow { lease, attempts: 1, until: None, reason: format!("of {job}"), raced: false })
    }

    #[test]
    fn outcomes_come_out_as_they_were_put_in() {
        let row = |job, number| serde_json::from_value(called(job, number)).expect("a row as the spool holds it");
        let items = vec![
            Item {
                attempt: Some(Box::new(row(1, 1))),
                beside: vec![row(1, 2), row(1, 3)],
                then: Then::GoOn,
                spans: Vec::new(),
            },
            Item { attempt: None, beside: Vec::new(), then: park(2), spans: Vec::new() },
            Item { attempt: None, beside: vec![row(3, 7)], then: park(3), spans: Vec::new() },
            Item { attempt: Some(Box::new(row(4, 1))), beside: Vec::new(), then: Then::GoOn, spans: Vec::new() },
        ];
        let written = |items: &[Item]| serde_json::to_value(items).expect("rows always serialize");
        let before = written(&items);
        let bytes: usize = items.iter().map(Item::bytes).sum();
        let batch = OutcomeBatch::of(items);
        assert_eq!((written(&batch.items()), batch.len(), batch.bytes()), (before, 4, bytes));
        assert_eq!(batch.fences().collect::<Vec<_>>(), [1, 2, 3, 4]);
        let numbers: Vec<i16> = batch.rows().attempts.iter().map(|row| row.number).collect();
        assert_eq!((numbers, batch.rows().parks.len()), (vec![1, 2, 3, 7, 1], 2));
    }
}
