//! A job in hand that found every place taken, and sleeps until one is free.

use super::Bucket;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A job that sleeps until a place of a bucket may be free. Until this is dropped the bucket counts the job among those
/// that wait: the claimer brings no other in its place, and the other processes are asked for a place for it.
#[derive(Debug)]
pub struct Sleeper {
    bucket: Arc<Bucket>,
}

impl Bucket {
    /// Lets a job sleep here if the number of places is configured and every place is taken. Where the number is felt
    /// for, the pressure of the jobs in hand is part of feeling.
    pub(in crate::worker) fn sleeper(self: &Arc<Self>) -> Option<Sleeper> {
        (self.places.is_lent() && self.places.room() == 0).then(|| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            Sleeper { bucket: Arc::clone(self) }
        })
    }

    /// Places that are free, and the calls and jobs that wait for them; `None`: their number is not configured, or the
    /// other processes are being asked.
    pub(in crate::worker) fn line(&self) -> Option<(usize, usize)> {
        (self.places.is_lent() && self.is_fresh())
            .then(|| (self.places.room(), self.waiting.load(Ordering::Relaxed) as usize))
    }
}

impl Sleeper {
    /// Sleeps until a place may be free.
    pub(in crate::worker) async fn sleep(&self) {
        self.bucket.places.vacancy().await;
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.bucket.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AT_ONCE, NOW, Others};
    use crate::domain::Charge;
    use std::time::Duration;

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_job_sleeps_only_while_every_place_is_taken_and_counts_as_waiting_until_it_wakes() {
        let bucket = Others::default().join(1, &[], Some(2));
        let first = bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("two are free");
        let _second = bucket.enter(Charge::default(), AT_ONCE, NOW).await.expect("one is free");
        let sleepers: Vec<_> = (0..3).map(|_| bucket.sleeper().expect("no place is free")).collect();
        assert_eq!((bucket.line(), bucket.counts().1), (Some((0, 3)), 3));
        assert!(tokio::time::timeout(LONG, sleepers[0].sleep()).await.is_err(), "no place is freed");
        // Freed before the others begin to sleep, and while one sleeps already.
        let asleep = tokio::spawn(async move { sleepers.into_iter().next().expect("three").sleep().await });
        tokio::task::yield_now().await;
        let late = bucket.sleeper().expect("no place is free");
        drop(first);
        tokio::time::timeout(LONG, asleep).await.expect("it is woken").expect("no panic");
        tokio::time::timeout(LONG, late.sleep()).await.expect("a place that is free already is not slept through");
        assert!(bucket.sleeper().is_none(), "a place is free");
        drop(late);
        assert_eq!(bucket.line(), Some((1, 0)));
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
        let sleeper = two.sleeper().expect("no place is free");
        held.truncate(2);
        tokio::time::timeout(LONG, sleeper.sleep()).await.expect("it hears of the places");
        two.enter(Charge::default(), AT_ONCE, NOW).await.expect("and gets one");
    }
}
