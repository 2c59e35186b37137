//! The calls of one bucket that may run at once: as many as are configured, or as many as prove to work.

use crate::domain::Timestamp;
use crate::domain::news::PlacesNews;
use crate::domain::ramp::Ramp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Places for running calls.
#[derive(Debug)]
pub(super) struct Places {
    count: Mutex<Count>,
    /// Wakes the call that is first in the queue when a place may be free.
    freed: Notify,
    /// Calls queue here, so that places go to them in the order of asking.
    queue: tokio::sync::Mutex<()>,
}

/// How many places there are, and how many are taken. More may be taken than there are: the limit was lowered while
/// calls ran, or calls came from another bucket. No call begins then until enough of them have ended.
#[derive(Debug)]
struct Count {
    limit: u32,
    running: u32,
    /// Running calls that came from another bucket.
    guests: u32,
    /// Places of the shared number that no process holds, as far as is known.
    left: u32,
    /// The last instant at which no place was free, as of the last change.
    full_at: Option<Instant>,
    /// The jobs that sleep until there is room, by the fences of their claims: the job that was claimed first is first.
    sleepers: BTreeMap<i64, Arc<Notify>>,
    kind: Kind,
}

/// Where the limit comes from.
#[derive(Debug)]
enum Kind {
    /// This process's part of a configured number.
    Lent,
    /// As many as prove to work.
    FeltFor(Ramp),
    /// The number of places is not the limit.
    Open,
}

/// Where the number of places comes from, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The number is configured, and shared by all processes.
    Lent,
    /// The configuration does not give a number.
    FeltFor,
    /// The rate is limit enough.
    Open,
}

/// Effectively no limit.
const PLENTY: u32 = 1_000_000;

/// The era of calls that teach nothing about the number of places here.
const NO_ERA: u64 = u64::MAX;

/// One place, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// The era of the ramp in which its call began.
    era: u64,
}

impl Count {
    fn free(&self) -> u32 {
        self.limit.saturating_sub(self.running)
    }

    /// Places that are free here, or that no process holds.
    fn room(&self) -> u32 {
        self.free().saturating_add(self.left)
    }

    /// The room that is left for the job with this fence by those that sleep before it.
    fn room_for(&self, fence: i64) -> usize {
        let room = self.room() as usize;
        room - self.sleepers.range(..fence).take(room).count()
    }

    /// Wakes as many sleepers as there is room for.
    fn wake(&self) {
        for sleeper in self.sleepers.values().take(self.room() as usize) {
            sleeper.notify_one();
        }
    }

    /// Notes the instant if no place is free. Called before every change that may free one.
    fn look(&mut self) {
        if self.room() == 0 {
            self.full_at = Some(Instant::now());
        }
    }

    /// Gives up the free places, which no process holds from then on, and returns how many places are taken.
    fn give_up_free(&mut self) -> u32 {
        self.left = self.left.saturating_add(self.free());
        self.limit = self.limit.min(self.running);
        self.running
    }
}

impl Places {
    /// Makes the places of a bucket. Under [`Rule::Lent`] there are none before some are lent.
    pub(super) fn new(rule: Rule) -> Arc<Self> {
        let places = Self {
            count: Mutex::new(Count {
                limit: 0,
                running: 0,
                guests: 0,
                left: 0,
                full_at: None,
                sleepers: BTreeMap::new(),
                kind: Kind::Lent,
            }),
            freed: Notify::new(),
            queue: tokio::sync::Mutex::default(),
        };
        places.follow(rule);
        Arc::new(places)
    }

    /// Follows this rule from now on. Calls that run keep their places, and count.
    pub(super) fn follow(&self, rule: Rule) {
        self.change(|count| match rule {
            Rule::Lent => {
                count.limit = count.limit.min(count.running);
                (count.left, count.kind) = (0, Kind::Lent);
            }
            Rule::FeltFor => {
                let ramp = Ramp::default();
                (count.limit, count.left, count.kind) = (ramp.limit(), 0, Kind::FeltFor(ramp));
            }
            Rule::Open => (count.limit, count.left, count.kind) = (PLENTY, 0, Kind::Open),
        });
    }

    /// Makes every change, so that a call which waits for a place learns of each one that is freed.
    fn change<T>(&self, change: impl FnOnce(&mut Count) -> T) -> T {
        let mut count = self.count.lock();
        count.look();
        let outcome = change(&mut count);
        if count.free() > 0 {
            self.freed.notify_one();
        }
        count.wake();
        outcome
    }

    /// Places that are free now.
    pub(super) fn free(&self) -> usize {
        self.count.lock().free() as usize
    }

    /// Places that are free here, or that no process holds.
    pub(super) fn room(&self) -> usize {
        self.count.lock().room() as usize
    }

    /// The room that is left for the job with this fence by those that sleep before it.
    pub(super) fn room_for(&self, fence: i64) -> usize {
        self.count.lock().room_for(fence)
    }

    /// Whether a place has been free all the time for this long.
    pub(super) fn have_rested(&self, time: Duration) -> bool {
        let count = self.count.lock();
        count.room() > 0 && count.full_at.is_none_or(|at| at.elapsed() >= time)
    }

    /// All places.
    #[cfg(test)]
    pub(super) fn limit(&self) -> u32 {
        self.count.lock().limit
    }

    /// Calls that run now.
    pub(super) fn running(&self) -> u32 {
        self.count.lock().running
    }

    /// Calls that run now and began in another bucket.
    pub(super) fn guests(&self) -> u32 {
        self.count.lock().guests
    }

    /// All places; `None` when their number is not the limit.
    pub(super) fn bound(&self) -> Option<u32> {
        let count = self.count.lock();
        (!matches!(count.kind, Kind::Open)).then_some(count.limit)
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        // Only the first in the queue waits for a place, so one notice wakes the right call, and none is lost.
        let _first = self.queue.lock().await;
        loop {
            if let Some(place) = self.take() {
                return place;
            }
            self.freed.notified().await;
        }
    }

    /// Adds the job with this fence to the sleepers. Until [`Places::get_up`], no job that was claimed later finds the
    /// room that this one waits for. The notice comes when there may be room for it.
    pub(super) fn lie_down(&self, fence: i64) -> Arc<Notify> {
        Arc::clone(self.count.lock().sleepers.entry(fence).or_default())
    }

    /// Removes the job with this fence from the sleepers. `takes`: it goes on to take the room that it waited for;
    /// otherwise the next sleeper is told of that.
    pub(super) fn get_up(&self, fence: i64, takes: bool) {
        let mut count = self.count.lock();
        if count.sleepers.remove(&fence).is_some() && !takes {
            count.wake();
        }
    }

    /// A place, if one is free.
    fn take(self: &Arc<Self>) -> Option<Place> {
        let mut count = self.count.lock();
        if count.free() == 0 {
            return None;
        }
        count.running += 1;
        let era = if let Kind::FeltFor(ramp) = &count.kind { ramp.era() } else { 0 };
        Some(Place { places: Arc::clone(self), era })
    }

    /// A place for a call that runs already: it takes the place whether one is free or not.
    pub(super) fn crowd_in(self: &Arc<Self>) -> Place {
        let mut count = self.count.lock();
        (count.running, count.guests) = (count.running + 1, count.guests + 1);
        Place { places: Arc::clone(self), era: NO_ERA }
    }

    /// Whether the places are a part of a number that all processes share.
    pub(super) fn is_lent(&self) -> bool {
        matches!(self.count.lock().kind, Kind::Lent)
    }

    /// Gives up the places that are lent and free, and returns how many are taken. No more can be taken until some are
    /// lent again: otherwise a call could begin in a place that is given to another process at the same moment. They
    /// still count as room: the next word tells whether they are.
    ///
    /// `None` where the number of places is not the limit.
    pub(super) fn freeze(&self) -> Option<u32> {
        let mut count = self.count.lock();
        match count.kind {
            Kind::Lent => Some(count.give_up_free()),
            Kind::FeltFor(_) => Some(count.running),
            Kind::Open => None,
        }
    }

    /// Sets how many places are lent now, more or fewer than before, and how many no process holds.
    pub(super) fn lend(&self, places: u32, left: u32) {
        self.change(|count| {
            if let Kind::Lent = count.kind {
                (count.limit, count.left) = (places, left);
            }
        });
    }

    /// Goes on from the number of places that an earlier process has found, if it is felt for.
    pub(super) fn resume(&self, news: &PlacesNews, now: Timestamp) {
        self.change(|count| {
            if let (Kind::FeltFor(ramp), Some(resumed)) = (&mut count.kind, Ramp::resumed(news, now)) {
                *ramp = resumed;
                count.limit = resumed.limit();
            }
        });
    }

    /// The number of places that was found so far; `None`: it is not felt for.
    pub(super) fn found(&self, now: Timestamp) -> Option<PlacesNews> {
        match &self.count.lock().kind {
            Kind::FeltFor(ramp) => Some(ramp.news(now)),
            Kind::Lent | Kind::Open => None,
        }
    }

    /// Lifts the limit: the number of places is not felt for any more.
    pub(super) fn lift(&self) {
        self.change(|count| {
            if let Kind::FeltFor(_) = count.kind {
                (count.limit, count.kind) = (PLENTY, Kind::Open);
            }
        });
    }
}

impl Place {
    /// Tells the ramp this call's era and how many calls run, and follows the ramp's answer; `None` where the number is
    /// not felt for.
    fn tell<T>(&self, tell: impl FnOnce(&mut Ramp, u64, u32) -> T) -> Option<T> {
        self.places.change(|count| {
            let Kind::FeltFor(ramp) = &mut count.kind else { return None };
            let answer = tell(ramp, self.era, count.running);
            count.limit = ramp.limit();
            Some(answer)
        })
    }

    /// Records that the call got through.
    pub(super) fn passed(&self) {
        self.tell(Ramp::passed);
    }

    /// Records that the provider had too many calls, and gave no time to wait. Returns whether fewer calls would not
    /// help, because this was the only one; `None` when the number is not felt for.
    pub(super) fn refused(&self) -> Option<bool> {
        self.tell(Ramp::refused)
    }

    /// Records that the provider asked to be left alone for a while.
    pub(super) fn shut(&self) {
        self.tell(Ramp::shut);
    }

    /// Records that answers take longer than usual, and that `bearable` calls at once would not slow them down.
    pub(super) fn slowed(&self, bearable: f64) {
        self.tell(|ramp, era, running| ramp.slowed(era, running, bearable));
    }

    /// All places, if their number is felt for and has not been lowered since the call began. Only then does the call's
    /// duration show how long calls take now.
    pub(super) fn felt(&self) -> Option<u32> {
        self.tell(|ramp, era, _| (ramp.era() == era).then(|| ramp.limit())).flatten()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let guests = u32::from(self.era == NO_ERA);
        self.places.change(|count| (count.running, count.guests) = (count.running - 1, count.guests - guests));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_taken_away_while_a_call_is_in_it_vanishes_when_the_call_ends() {
        let places = Places::new(Rule::FeltFor);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(places.enter().await);
        }
        held[3].shut();
        assert_eq!((places.limit(), places.free(), places.running()), (1, 0, 16));
        held.truncate(2);
        assert_eq!(places.free(), 0, "two still run where one may");
        held.truncate(1);
        assert_eq!(places.free(), 0, "one runs where one may");
        held.clear();
        assert_eq!((places.free(), places.running()), (1, 0));
    }

    #[tokio::test]
    async fn good_calls_bring_places_and_never_more_than_the_limit() {
        let places = Places::new(Rule::FeltFor);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(places.enter().await);
        }
        held[0].shut();
        held.truncate(1);
        for _ in 0..50 {
            held[0].passed();
        }
        assert_eq!(places.limit() as usize, places.free() + held.len());
        assert!(places.limit() > 1);
    }

    #[tokio::test]
    async fn what_is_reported_as_free_is_not_taken_any_more() {
        let places = Places::new(Rule::Lent);
        places.lend(3, 0);
        let held = places.enter().await;
        assert_eq!(places.freeze(), Some(1));
        assert_eq!((places.limit(), places.free()), (1, 0));
        // Fewer places are lent than are taken: the next report gives the number taken.
        places.lend(0, 0);
        assert_eq!(places.freeze(), Some(1));
        drop(held);
        assert_eq!((places.freeze(), places.free()), (Some(0), 0));
        places.lend(2, 0);
        assert_eq!(places.free(), 2);
    }

    #[tokio::test]
    async fn a_number_that_is_lent_changes_with_what_is_lent_and_with_nothing_else() {
        let places = Places::new(Rule::Lent);
        assert_eq!((places.limit(), places.free()), (0, 0));
        places.lend(3, 0);
        let held = places.enter().await;
        assert_eq!((held.refused(), held.felt()), (None, None));
        held.shut();
        held.slowed(1.0);
        held.passed();
        assert_eq!((places.limit(), places.free()), (3, 2));
    }

    #[tokio::test]
    async fn calls_that_began_before_the_number_was_lowered_say_nothing_of_it() {
        let places = Places::new(Rule::FeltFor);
        let (one, other) = (places.enter().await, places.enter().await);
        assert_eq!(one.felt(), Some(16));
        assert_eq!((one.refused(), other.refused()), (Some(false), Some(false)));
        assert_eq!((places.limit(), one.felt(), other.felt()), (1, None, None));
        drop(other);
        drop(one);
        assert_eq!(places.enter().await.refused(), Some(true), "it was the only one");
        places.lift();
        assert_eq!(places.enter().await.refused(), None, "something else is the limit");
    }

    #[tokio::test]
    async fn places_go_to_calls_in_the_order_of_asking_and_past_those_that_gave_up() {
        let places = Places::new(Rule::Lent);
        let order = Arc::new(Mutex::new(Vec::new()));
        let calls: Vec<_> = (0..6)
            .map(|call| {
                let (places, order) = (Arc::clone(&places), Arc::clone(&order));
                tokio::spawn(async move {
                    let place = places.enter().await;
                    order.lock().push(call);
                    place
                })
            })
            .collect();
        tokio::task::yield_now().await;
        calls[0].abort();
        calls[3].abort();
        tokio::task::yield_now().await;
        let late = tokio::time::timeout(Duration::ZERO, places.enter()).await;
        assert!(late.is_err() && places.running() == 0);
        places.lend(2, 0);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*order.lock(), [1, 2], "two may run");
        places.lend(4, 0);
        for call in calls {
            drop(call.await);
        }
        assert_eq!((&*order.lock(), places.running(), places.free()), (&vec![1, 2, 4, 5], 0, 4));
    }

    #[tokio::test]
    async fn calls_keep_their_places_when_the_rule_changes_and_count_under_the_new_one() {
        let places = Places::new(Rule::Open);
        assert_eq!((places.bound(), places.freeze()), (None, None));
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(places.enter().await);
        }
        places.follow(Rule::Lent);
        assert_eq!((places.freeze(), places.free()), (Some(5), 0), "no other begins before some are lent");
        places.lend(5, 0);
        assert_eq!(places.free(), 0, "what was lent is for those that run");
        places.lend(3, 0);
        held.truncate(3);
        assert_eq!(places.free(), 0, "three run where three may");
        held.truncate(2);
        assert_eq!(places.free(), 1);
        places.follow(Rule::FeltFor);
        assert_eq!((places.bound(), places.free()), (Some(16), 14));
        places.follow(Rule::Lent);
        assert_eq!((places.freeze(), places.free()), (Some(2), 0));
        held.clear();
        assert_eq!(places.freeze(), Some(0));
        places.follow(Rule::Open);
        assert!(places.free() > 1_000 && places.bound().is_none());
    }

    #[tokio::test]
    async fn calls_from_elsewhere_take_places_whether_there_are_any_or_not() {
        let places = Places::new(Rule::Lent);
        let mut held: Vec<Place> = (0..3).map(|_| places.crowd_in()).collect();
        assert_eq!(places.freeze(), Some(3));
        places.lend(4, 0);
        assert_eq!(places.free(), 1);
        held.push(places.enter().await);
        held.clear();
        assert_eq!((places.free(), places.running()), (4, 0));
        let felt = Places::new(Rule::FeltFor);
        let one = felt.crowd_in();
        assert_eq!((felt.free(), one.felt()), (15, None), "what it took says nothing of calls here");
    }
}
