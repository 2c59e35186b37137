//! A job in hand that found every place taken, and sleeps until one is free.

use super::Bucket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Notify;

/// A job that sleeps until a place of a bucket may be free for it.
///
/// Until this is dropped the bucket counts the job among those that wait: the claimer brings no other in its place, and
/// the other processes are asked for a place for it.
#[derive(Debug)]
pub struct Sleeper {
    bucket: Arc<Bucket>,
    /// Its turn; `None`: it lets all others go before it.
    turn: Option<Waiter>,
}

/// A job in the line of those that wait, in the order of claims: jobs that were claimed later find no room before it
/// has had some.
#[derive(Debug)]
struct Waiter {
    /// The fence of its claim.
    fence: i64,
    woken: Arc<Notify>,
}

impl Bucket {
    /// Whether the number of places is configured, and none is free for the job with this fence. Where the number is
    /// felt for, the pressure of the jobs in hand is part of feeling.
    pub(in crate::worker) fn is_full_for(&self, fence: i64) -> bool {
        self.places.is_lent() && self.places.room_for(fence) == 0
    }

    /// Lets the job with this fence sleep here until it is its turn; `None`: a job that is not to be woken.
    ///
    /// No job sleeps twice in one bucket.
    pub(in crate::worker) fn sleeper(self: &Arc<Self>, fence: Option<i64>) -> Sleeper {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = fence.map(|fence| Waiter { fence, woken: self.places.lie_down(fence) });
        Sleeper { bucket: Arc::clone(self), turn }
    }

    /// Places that are free, as far as is known, and the calls and jobs that wait for them; `None`: their number is not
    /// configured.
    pub(in crate::worker) fn line(&self) -> Option<(usize, usize)> {
        self.places.is_lent().then(|| {
            let places = if self.is_fresh() { self.places.room() } else { 0 };
            (places, self.waiting.load(Ordering::Relaxed) as usize)
        })
    }
}

impl Sleeper {
    /// Sleeps until a place may be free for the job.
    pub(in crate::worker) async fn sleep(&self) {
        let Some(turn) = &self.turn else { return std::future::pending().await };
        while self.bucket.places.room_for(turn.fence) == 0 {
            turn.woken.notified().await;
        }
    }

    /// Whether it sleeps in this bucket.
    pub(in crate::worker) fn is_in(&self, bucket: &Arc<Bucket>) -> bool {
        Arc::ptr_eq(&self.bucket, bucket)
    }

    /// Whether the job has a turn.
    pub(in crate::worker) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// The job takes the place that it waited for: no other is told of it.
    pub(in crate::worker) fn take(mut self) {
        if let Some(turn) = self.turn.take() {
            self.bucket.places.get_up(turn.fence, true);
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.bucket.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(turn) = &self.turn {
            self.bucket.places.get_up(turn.fence, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AT_ONCE, NOW, Others};
    use crate::domain::{Charge, Limits};
    use crate::worker::bucket::Bucket;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::Notify;

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_job_sleeps_only_while_every_place_is_taken_and_counts_as_waiting_until_it_wakes() {
        let bucket = Others::default().join(1, &[], Some(2));
        let first = bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("two are free");
        let _second = bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("one is free");
        let sleepers: Vec<_> = (0..3).map(|fence| bucket.sleeper(Some(fence))).collect();
        assert_eq!((bucket.line(), bucket.counts().1), (Some((0, 3)), 3));
        assert!(tokio::time::timeout(LONG, sleepers[0].sleep()).await.is_err(), "no place is freed");
        // Freed before the others begin to sleep, and while one sleeps already.
        let asleep = tokio::spawn(async move { sleepers.into_iter().next().expect("three").sleep().await });
        tokio::task::yield_now().await;
        let late = bucket.sleeper(Some(3));
        drop(first);
        tokio::time::timeout(LONG, asleep).await.expect("it is woken").expect("no panic");
        tokio::time::timeout(LONG, late.sleep()).await.expect("a place that is free already is not slept through");
        drop(late);
        assert_eq!(bucket.line(), Some((1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_place_is_for_the_job_that_was_claimed_first_however_often_others_look() {
        let bucket = Others::default().join(1, &[], Some(2));
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("two are free"));
        }
        let late = bucket.sleeper(Some(9));
        let early = bucket.sleeper(Some(5));
        let none = bucket.sleeper(None);
        held.truncate(1);
        let finds_room = |fence| bucket.look(Charge::default(), Some(fence), AT_ONCE, NOW).is_none();
        assert_eq!([5, 6, 9, 10].map(finds_room), [true, false, false, false]);
        assert_eq!([5, 9].map(|fence| bucket.is_full_for(fence)), [false, true]);
        tokio::time::timeout(LONG, early.sleep()).await.expect("it is its turn");
        for sleeper in [&late, &none] {
            assert!(tokio::time::timeout(LONG, sleeper.sleep()).await.is_err(), "the place is for the other");
        }
        // The first takes the place, and the next is not told of it.
        early.take();
        held.push(bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("one is free"));
        assert!(tokio::time::timeout(LONG, late.sleep()).await.is_err(), "no place is free");
        // The first of those that wait goes away, and the next has its turn.
        let early = bucket.sleeper(Some(7));
        let asleep = tokio::spawn(async move { late.sleep().await });
        held.truncate(1);
        tokio::time::timeout(LONG, early.sleep()).await.expect("it is its turn");
        assert!(!asleep.is_finished());
        drop(early);
        tokio::time::timeout(LONG, asleep).await.expect("it is woken").expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn until_the_other_processes_are_heard_no_place_is_known_to_be_free() {
        let limits = Limits { rates: Vec::new(), concurrency: Some(2) };
        let bucket = Arc::new(Bucket::new("test", &limits, &Arc::new(Notify::new())));
        assert_eq!(bucket.line(), Some((0, 0)));
        let _sleeper = bucket.sleeper(Some(1));
        assert_eq!(bucket.line(), Some((0, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_jobs_all_sleep_gets_its_part_of_the_places() {
        let others = Others::default();
        let (one, two) = (others.join(1, &[], Some(4)), others.join(2, &[], Some(4)));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(one.enter(Charge::default(), AT_ONCE, NOW).await.expect("four are free"));
        }
        // Word of that reaches the other process, whose job then sleeps.
        assert!(two.enter(Charge::default(), AT_ONCE, NOW).await.is_err());
        assert!(two.is_full_for(1));
        let sleeper = two.sleeper(Some(1));
        held.truncate(2);
        tokio::time::timeout(LONG, sleeper.sleep()).await.expect("it hears of the places");
        two.enter(Charge::default(), AT_ONCE, NOW).await.expect("and gets one");
    }
}
