//! The calls of one bucket that may run at once: so many as are configured, or as many as prove to be all right.

use crate::domain::ramp::Ramp;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Places for running calls.
#[derive(Debug)]
pub(super) struct Slots {
    free: Semaphore,
    /// How many there are, taken or free.
    limit: AtomicU32,
    /// Places that were taken away while calls were in them: they vanish when those calls end.
    owed: AtomicU32,
    running: AtomicU32,
    /// How the number comes about. Whoever changes the number holds this.
    kind: Mutex<Kind>,
}

#[derive(Debug)]
enum Kind {
    /// This process's part of a number that is configured.
    Lent,
    /// As many as prove to be all right.
    FeltFor(Ramp),
    /// Something else is the limit.
    Open,
}

/// What the number of places rests on, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// It is configured, and shared by all processes.
    Lent,
    /// Nobody has said so.
    FeltFor,
    /// The rate is limit enough.
    Open,
}

/// As good as no limit.
const PLENTY: u32 = 1_000_000;

/// One place, given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    /// In which era of the ramp its call began.
    era: u64,
}

impl Slots {
    /// None before some are lent, where they are.
    pub(super) fn new(rule: Rule) -> Arc<Self> {
        let slots = Self {
            free: Semaphore::new(0),
            limit: AtomicU32::new(0),
            owed: AtomicU32::new(0),
            running: AtomicU32::new(0),
            kind: Mutex::new(Kind::Lent),
        };
        slots.follow(rule);
        Arc::new(slots)
    }

    /// The number comes about like this from now on. Calls that run keep their places, and count.
    pub(super) fn follow(&self, rule: Rule) {
        let mut kind = self.kind();
        match rule {
            Rule::Lent => {
                self.give_up_free();
                *kind = Kind::Lent;
            }
            Rule::FeltFor => {
                let ramp = Ramp::default();
                self.resize(ramp.limit());
                *kind = Kind::FeltFor(ramp);
            }
            Rule::Open => {
                self.resize(PLENTY);
                *kind = Kind::Open;
            }
        }
    }

    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that are free now.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// All places.
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Calls that run now.
    pub(super) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// All places, unless something else is the limit.
    pub(super) fn bound(&self) -> Option<u32> {
        (!matches!(*self.kind(), Kind::Open)).then(|| self.limit())
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        // The semaphore is never closed. The place comes back with the slot, not with the permit.
        if let Ok(permit) = self.free.acquire().await {
            permit.forget();
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        let era = self.ramp(|ramp| ramp.era()).unwrap_or_default();
        Slot { slots: Arc::clone(self), era }
    }

    /// A place for a call that runs already: it is taken whether one is free or not.
    pub(super) fn crowd_in(self: &Arc<Self>) -> Slot {
        let _kind = self.kind();
        if self.free.forget_permits(1) == 0 {
            self.owed.fetch_add(1, Ordering::AcqRel);
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Slot { slots: Arc::clone(self), era: u64::MAX }
    }

    /// Whether they are a part of what all processes share.
    pub(super) fn is_lent(&self) -> bool {
        matches!(*self.kind(), Kind::Lent)
    }

    /// Gives up what is lent and free, and says how many places are taken: from now on no more are, until some are lent
    /// again. Without that a call could begin in a place that is given to another process at the same moment.
    ///
    /// `None` where something else is the limit.
    pub(super) fn freeze(&self) -> Option<u32> {
        match &*self.kind() {
            Kind::Lent => Some(self.give_up_free()),
            Kind::FeltFor(_) => Some(self.running()),
            Kind::Open => None,
        }
    }

    /// Gives up what is free, and says how many places are taken.
    fn give_up_free(&self) -> u32 {
        let gone = self.free.forget_permits(usize::MAX);
        self.limit.fetch_sub(u32::try_from(gone).unwrap_or(0), Ordering::AcqRel);
        self.limit().saturating_add(self.owed.load(Ordering::Acquire))
    }

    /// So many are lent now, more or fewer than before.
    pub(super) fn lend(&self, places: u32) {
        if let Kind::Lent = *self.kind() {
            self.resize(places);
        }
    }

    /// Something else is the limit: nothing is felt for any more.
    pub(super) fn lift(&self) {
        let mut kind = self.kind();
        if let Kind::FeltFor(_) = *kind {
            self.resize(PLENTY);
            *kind = Kind::Open;
        }
    }

    /// What a ramp says; `None` when nothing is felt for.
    fn ramp<T>(&self, ask: impl FnOnce(&mut Ramp) -> T) -> Option<T> {
        let mut kind = self.kind();
        let Kind::FeltFor(ramp) = &mut *kind else { return None };
        let answer = ask(ramp);
        if ramp.limit() != self.limit() {
            self.resize(ramp.limit());
        }
        Some(answer)
    }

    fn resize(&self, after: u32) {
        let before = self.limit.swap(after, Ordering::AcqRel);
        if after > before {
            // What is owed is paid first: those places are still taken.
            let mut more = after - before;
            while more > 0 && self.pay() {
                more -= 1;
            }
            self.free.add_permits(more as usize);
        } else if after < before {
            let fewer = (before - after) as usize;
            let gone = self.free.forget_permits(fewer);
            self.owed.fetch_add(u32::try_from(fewer - gone).unwrap_or(0), Ordering::AcqRel);
        }
    }

    /// Pays one place that is owed, if one is.
    fn pay(&self) -> bool {
        self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| owed.checked_sub(1)).is_ok()
    }
}

impl Slot {
    /// The call got through.
    pub(super) fn passed(&self) {
        self.slots.ramp(|ramp| ramp.passed(self.era, self.slots.running()));
    }

    /// The provider had too many, and said nothing of how long to wait. Whether fewer are no help, because this was the
    /// only one; `None` when the number is not felt for.
    pub(super) fn refused(&self) -> Option<bool> {
        self.slots.ramp(|ramp| ramp.refused(self.era, self.slots.running()))
    }

    /// The provider asked to be left alone for a while.
    pub(super) fn shut(&self) {
        self.slots.ramp(|ramp| ramp.shut(self.era, self.slots.running()));
    }

    /// Answers take longer than usual; with about so many at once they would not.
    pub(super) fn slowed(&self, bearable: f64) {
        self.slots.ramp(|ramp| ramp.slowed(self.era, self.slots.running(), bearable));
    }

    /// All places, if their number is felt for and has not been lowered since the call began: only then the time that
    /// it took is the time that calls take now.
    pub(super) fn felt(&self) -> Option<u32> {
        self.slots.ramp(|ramp| (ramp.era() == self.era).then(|| ramp.limit())).flatten()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.running.fetch_sub(1, Ordering::Relaxed);
        if !self.slots.pay() {
            self.slots.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_taken_away_while_a_call_is_in_it_vanishes_when_the_call_ends() {
        let slots = Slots::new(Rule::FeltFor);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(slots.enter().await);
        }
        held[3].shut();
        assert_eq!((slots.limit(), slots.free(), slots.running()), (1, 0, 16));
        held.truncate(2);
        assert_eq!(slots.free(), 0, "two still run where one may");
        held.truncate(1);
        assert_eq!(slots.free(), 0, "one runs where one may");
        held.clear();
        assert_eq!((slots.free(), slots.running()), (1, 0));
    }

    #[tokio::test]
    async fn good_calls_bring_places_and_never_more_than_the_limit() {
        let slots = Slots::new(Rule::FeltFor);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(slots.enter().await);
        }
        held[0].shut();
        held.truncate(1);
        for _ in 0..50 {
            held[0].passed();
        }
        assert_eq!(slots.limit() as usize, slots.free() + held.len());
        assert!(slots.limit() > 1);
    }

    #[tokio::test]
    async fn what_is_reported_as_free_is_not_taken_any_more() {
        let slots = Slots::new(Rule::Lent);
        slots.lend(3);
        let held = slots.enter().await;
        assert_eq!(slots.freeze(), Some(1));
        assert_eq!((slots.limit(), slots.free()), (1, 0));
        // Fewer are lent than are taken: the next report says what is taken.
        slots.lend(0);
        assert_eq!(slots.freeze(), Some(1));
        drop(held);
        assert_eq!((slots.freeze(), slots.free()), (Some(0), 0));
        slots.lend(2);
        assert_eq!(slots.free(), 2);
    }

    #[tokio::test]
    async fn a_number_that_is_lent_changes_with_what_is_lent_and_with_nothing_else() {
        let slots = Slots::new(Rule::Lent);
        assert_eq!((slots.limit(), slots.free()), (0, 0));
        slots.lend(3);
        let held = slots.enter().await;
        assert_eq!((held.refused(), held.felt()), (None, None));
        held.shut();
        held.slowed(1.0);
        held.passed();
        assert_eq!((slots.limit(), slots.free()), (3, 2));
    }

    #[tokio::test]
    async fn calls_that_began_before_the_number_was_lowered_say_nothing_of_it() {
        let slots = Slots::new(Rule::FeltFor);
        let (one, other) = (slots.enter().await, slots.enter().await);
        assert_eq!(one.felt(), Some(16));
        assert_eq!((one.refused(), other.refused()), (Some(false), Some(false)));
        assert_eq!((slots.limit(), one.felt(), other.felt()), (1, None, None));
        drop(other);
        drop(one);
        assert_eq!(slots.enter().await.refused(), Some(true), "it was the only one");
        slots.lift();
        assert_eq!(slots.enter().await.refused(), None, "something else is the limit");
    }

    #[tokio::test]
    async fn calls_keep_their_places_when_the_rule_changes_and_count_under_the_new_one() {
        let slots = Slots::new(Rule::Open);
        assert_eq!((slots.bound(), slots.freeze()), (None, None));
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(slots.enter().await);
        }
        slots.follow(Rule::Lent);
        assert_eq!((slots.freeze(), slots.free()), (Some(5), 0), "nobody else begins before some are lent");
        slots.lend(5);
        assert_eq!(slots.free(), 0, "what was lent is for those that run");
        slots.lend(3);
        held.truncate(3);
        assert_eq!(slots.free(), 0, "three run where three may");
        held.truncate(2);
        assert_eq!(slots.free(), 1);
        slots.follow(Rule::FeltFor);
        assert_eq!((slots.bound(), slots.free()), (Some(16), 14));
        slots.follow(Rule::Lent);
        assert_eq!((slots.freeze(), slots.free()), (Some(2), 0));
        held.clear();
        assert_eq!(slots.freeze(), Some(0));
        slots.follow(Rule::Open);
        assert!(slots.free() > 1_000 && slots.bound().is_none());
    }

    #[tokio::test]
    async fn calls_from_elsewhere_take_places_whether_there_are_any_or_not() {
        let slots = Slots::new(Rule::Lent);
        let mut held: Vec<Slot> = (0..3).map(|_| slots.crowd_in()).collect();
        assert_eq!(slots.freeze(), Some(3));
        slots.lend(4);
        assert_eq!(slots.free(), 1);
        held.push(slots.enter().await);
        held.clear();
        assert_eq!((slots.free(), slots.running()), (4, 0));
        let felt = Slots::new(Rule::FeltFor);
        let one = felt.crowd_in();
        assert_eq!((felt.free(), one.felt()), (15, None), "what it took says nothing of calls here");
    }
}
