//! The recent answers of a target to jobs of one route.

use crate::domain::breaker::{Indicator, slice_at};
use crate::domain::{SoftFailure, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// The number of slices: old answers leave the window a slice at a time.
const SLICES: i64 = 10;

/// Projects are told apart up to this number. Beyond it some of them count as one, which opens nothing too early.
const GROUPS: u64 = 8;

/// The most kinds of faults that are told.
const TOLD_KINDS: usize = 3;

/// Answers, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) answers: u32,
    pub(super) slow: u32,
    pub(super) rejected: u32,
    /// Tokens of output.
    pub(super) tokens: u64,
    /// Those of rejected answers, …
    pub(super) wasted: u64,
    /// … and of the largest of these.
    pub(super) largest: u64,
}

impl Tally {
    fn add(self, other: &Self) -> Self {
        Self {
            answers: self.answers.saturating_add(other.answers),
            slow: self.slow.saturating_add(other.slow),
            rejected: self.rejected.saturating_add(other.rejected),
            tokens: self.tokens.saturating_add(other.tokens),
            wasted: self.wasted.saturating_add(other.wasted),
            largest: self.largest.max(other.largest),
        }
    }

    fn bad(&self, indicator: Indicator) -> u64 {
        match indicator {
            Indicator::SlowAnswers => self.slow.into(),
            Indicator::WastedTokens => self.wasted,
            Indicator::SoftFailures | Indicator::Failures => self.rejected.into(),
        }
    }

    /// Whether this share of it is bad. `spares_largest`: even if the largest of the rejected answers had not come, as
    /// far as tokens are counted.
    #[expect(clippy::cast_precision_loss, reason = "a share of it")]
    pub(super) fn reaches(&self, indicator: Indicator, rate: f64, spares_largest: bool) -> bool {
        let spared = if spares_largest && indicator == Indicator::WastedTokens { self.largest } else { 0 };
        let bad = self.bad(indicator).saturating_sub(spared);
        let of = if indicator == Indicator::WastedTokens { self.tokens } else { self.answers.into() };
        bad > 0 && bad as f64 >= rate * of.saturating_sub(spared) as f64
    }
}

/// The answers of a part of the window.
#[derive(Clone, Debug, Default)]
struct AnswerSlice {
    number: i64,
    by_group: BTreeMap<u8, Tally>,
    kinds: BTreeMap<SoftFailure, u32>,
}

/// Recent answers, in slices.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    slices: Vec<AnswerSlice>,
    /// The number of the newest slice.
    newest: i64,
}

impl Answers {
    /// Counts an answer. If the clock was set back, it counts into the newest slice.
    pub(super) fn count(
        &mut self,
        project: u64,
        tally: &Tally,
        fault: Option<SoftFailure>,
        now: Timestamp,
        length: Duration,
    ) {
        let number = slice_at(now, length);
        self.newest = if self.slices.is_empty() { number } else { self.newest.max(number) };
        let (newest, oldest) = (self.newest, self.oldest());
        self.slices.retain(|slice| slice.number >= oldest);
        if self.slices.last().is_none_or(|slice| slice.number != newest) {
            self.slices.push(AnswerSlice { number: newest, ..AnswerSlice::default() });
        }
        let Some(slice) = self.slices.last_mut() else { return };
        let group = u8::try_from(project % GROUPS).unwrap_or(0);
        let before = slice.by_group.entry(group).or_default();
        *before = before.add(tally);
        if let Some(kind) = fault {
            let answers = slice.kinds.entry(kind).or_default();
            *answers = answers.saturating_add(1);
        }
    }

    /// How many sums it keeps.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.slices.iter().map(|slice| slice.by_group.len()).sum()
    }

    fn oldest(&self) -> i64 {
        self.newest.saturating_sub(SLICES - 1)
    }

    fn groups(&self, oldest: i64) -> BTreeMap<u8, Tally> {
        let mut groups: BTreeMap<u8, Tally> = BTreeMap::new();
        let current = self.slices.iter().filter(|slice| slice.number >= oldest);
        for (group, tally) in current.flat_map(|slice| &slice.by_group) {
            let before = groups.entry(*group).or_default();
            *before = before.add(tally);
        }
        groups
    }

    /// All answers of the window.
    pub(super) fn totals(&self) -> Tally {
        self.groups(self.oldest()).values().fold(Tally::default(), Tally::add)
    }

    /// The same of the window that ends now: after a quiet time fewer than when the last one was counted.
    pub(super) fn totals_at(&self, now: Timestamp, length: Duration) -> Tally {
        let oldest = self.newest.max(slice_at(now, length)).saturating_sub(SLICES - 1);
        self.groups(oldest).values().fold(Tally::default(), Tally::add)
    }

    /// The answers to all projects but the one that has most of the bad ones; `None`: there is no other.
    pub(super) fn without_worst(&self, indicator: Indicator) -> Option<Tally> {
        let groups = self.groups(self.oldest());
        let worst = groups.iter().max_by_key(|(_, tally)| tally.bad(indicator)).map(|(group, _)| *group);
        let others = groups.iter().filter(|(group, _)| Some(**group) != worst).map(|(_, tally)| tally);
        let others = others.fold(Tally::default(), Tally::add);
        (others.answers > 0).then_some(others)
    }

    /// The most frequent faults.
    pub(super) fn kinds(&self) -> Vec<(String, u32)> {
        let mut all: BTreeMap<SoftFailure, u32> = BTreeMap::new();
        for (kind, answers) in self.slices.iter().flat_map(|slice| &slice.kinds) {
            let before = all.entry(*kind).or_default();
            *before = before.saturating_add(*answers);
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by_key(|(_, answers)| std::cmp::Reverse(*answers));
        all.into_iter().take(TOLD_KINDS).map(|(kind, answers)| (kind.as_str().to_owned(), answers)).collect()
    }
}
