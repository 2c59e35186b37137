//! What shuts a bucket and what opens it, on paused time.

use super::*;
use crate::domain::Limits;
use crate::domain::Unit;
use crate::domain::long_wait::RECHECK;
use crate::domain::shared_bucket::Report;
use crate::worker::bucket::tests::{AT_ONCE, NOW, Others, bucket, enter_after, tokens};
use std::sync::Arc;
use tokio::time::sleep;

async fn refuse(bucket: &Arc<Bucket>, wait: Option<Duration>) {
    let hold = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    bucket.refuse(&hold, Refusal::Pace, wait, RECHECK, &[], NOW);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_is_kept_to_the_millisecond_by_all_and_no_stampede_follows() {
    let others = Others::default();
    let limits = [(Unit::Requests, 600, 600)];
    let (one, two) = (others.join(1, &limits, None), others.join(2, &limits, None));
    enter_after(&two, tokens(1)).await;
    let began = Instant::now();
    refuse(&one, Some(Duration::from_secs(90))).await;
    // The other process hears of it within a second.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(two.enter(tokens(1), AT_ONCE, NOW).await.expect_err("it is shut").reason, Reason::RateLimit);
    while began.elapsed() < Duration::from_millis(89_990) {
        for bucket in [&one, &two] {
            assert!(bucket.enter(tokens(1), Duration::ZERO, NOW).await.is_err());
        }
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(10)).await;
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(92) {
        for bucket in [&one, &two] {
            calls += usize::from(bucket.enter(tokens(1), Duration::from_millis(250), NOW).await.is_ok());
        }
        sleep(Duration::from_millis(10)).await;
    }
    // The first at once, the next at the rate, ten a second, and not all at once.
    assert!((15..=21).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_never_shortens_a_longer_one() {
    let bucket = bucket(&[], None);
    let first = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    let second = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    bucket.refuse(&first, Refusal::Pace, Some(Duration::from_hours(10)), RECHECK, &[], NOW);
    bucket.refuse(&second, Refusal::Pace, Some(Duration::from_secs(1)), RECHECK, &[], NOW);
    sleep(Duration::from_secs(2)).await;
    let shut = bucket.look(tokens(1), None, Duration::ZERO, NOW).expect("it is shut");
    assert_eq!(NOW.until(shut.until), Duration::from_hours(10));
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_hint_back_off_and_a_success_ends_that() {
    let bucket = bucket(&[], None);
    let mut waits = Vec::new();
    for _ in 0..8 {
        refuse(&bucket, None).await;
        let shut = bucket.look(tokens(1), None, Duration::ZERO, NOW).expect("it is shut");
        waits.push(NOW.until(shut.until).as_secs());
        sleep(NOW.until(shut.until) + Duration::from_millis(10)).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let hold = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    bucket.passed(&hold);
    drop(hold);
    refuse(&bucket, None).await;
    assert_eq!(NOW.until(bucket.look(tokens(1), None, Duration::ZERO, NOW).expect("it is shut").until).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_which_nothing_is_known_lower_the_number_at_once_and_shut_nothing_while_others_run() {
    let bucket = bucket(&[], None);
    let mut calls = Vec::new();
    while let Ok(hold) = bucket.enter(tokens(1), AT_ONCE, NOW).await {
        calls.push(hold);
    }
    let began = calls.len();
    for refused in calls.drain(..4) {
        bucket.refuse(&refused, Refusal::Pace, None, RECHECK, &[], NOW);
    }
    assert_eq!(bucket.look(tokens(1), None, AT_ONCE, NOW).map(|shut| shut.reason), Some(Reason::Concurrency));
    // More calls go on than may run now; when they have ended, seven of ten may run.
    calls.clear();
    while let Ok(hold) = bucket.enter(tokens(1), AT_ONCE, NOW).await {
        calls.push(hold);
    }
    assert_eq!((began, calls.len()), (16, 11));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_shuts_all_however_many_run() {
    let bucket = bucket(&[], None);
    let refused = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    let _other = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("it is open");
    bucket.refuse(&refused, Refusal::Pace, Some(Duration::from_secs(7)), RECHECK, &[], NOW);
    let shut = bucket.look(tokens(1), None, AT_ONCE, NOW).expect("it is shut");
    assert_eq!((shut.reason, NOW.until(shut.until)), (Reason::RateLimit, Duration::from_secs(7)));
}

/// How many calls a process can begin at once; each of them is then abandoned.
async fn begin_many(bucket: &Arc<Bucket>) -> Vec<BucketHold> {
    let mut calls = Vec::new();
    while calls.len() < 50
        && let Ok(hold) = bucket.enter(tokens(1), AT_ONCE, NOW).await
    {
        calls.push(hold);
    }
    calls
}

const YEARS: Duration = Duration::from_secs(883_000_000);

#[tokio::test(start_paused = true)]
async fn a_wait_of_years_is_asked_about_again_by_one_call_of_one_process() {
    for limits in [&[][..], &[(Unit::Requests, 6_000, 1_000)][..]] {
        for concurrency in [None, Some(100)] {
            let others = Others::default();
            let (one, two) = (others.join(1, limits, concurrency), others.join(2, limits, concurrency));
            drop(begin_many(&two).await);
            refuse(&one, Some(YEARS)).await;
            sleep(Duration::from_secs(1)).await;
            for bucket in [&one, &two] {
                let shut = bucket.look(tokens(1), None, Duration::ZERO, NOW).map(|shut| NOW.until(shut.until));
                assert!(shut.is_some_and(|shut| shut <= RECHECK + Duration::from_secs(5)), "{shut:?}");
            }
            for _ in 0..3 {
                sleep(RECHECK).await;
                // Both processes have much to do.
                let (mut probes, began) = (Vec::new(), Instant::now());
                while began.elapsed() < Duration::from_secs(10) {
                    for bucket in [&one, &two] {
                        probes.extend(begin_many(bucket).await);
                    }
                    sleep(Duration::from_millis(50)).await;
                }
                assert_eq!(probes.len(), 1, "{limits:?} {concurrency:?}");
                let probe = probes.remove(0);
                let bucket = if std::ptr::eq(probe.bucket(), &raw const *one) { &one } else { &two };
                bucket.refuse(&probe, Refusal::Pace, Some(YEARS), RECHECK, &[], NOW);
                drop(probe);
                sleep(Duration::from_secs(1)).await;
            }
            sleep(RECHECK).await;
            let probe = loop {
                if let Some(probe) = begin_many(&one).await.pop() {
                    break probe;
                }
                sleep(Duration::from_millis(50)).await;
            };
            assert!(begin_many(&one).await.is_empty() && begin_many(&two).await.is_empty());
            // The call is answered: the wait is over, for all.
            one.asked_again(&probe);
            one.passed(&probe);
            drop(probe);
            let mut began = [0, 0];
            for _ in 0..50 {
                for (began, bucket) in began.iter_mut().zip([&one, &two]) {
                    *began += begin_many(bucket).await.len();
                }
                sleep(Duration::from_millis(50)).await;
            }
            assert!(began.iter().all(|began| *began > 1), "{limits:?} {concurrency:?}: {began:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_made_leaves_its_place_to_another_and_one_that_hears_of_a_short_wait_ends_the_long_one() {
    let others = Others::default();
    let one = others.join(1, &[], None);
    refuse(&one, Some(YEARS)).await;
    sleep(RECHECK + Duration::from_secs(1)).await;
    let probe = begin_many(&one).await.pop().expect("one may ask again");
    assert!(begin_many(&one).await.is_empty());
    probe.cancel();
    let probe = begin_many(&one).await.pop().expect("one may ask again");
    one.refuse(&probe, Refusal::Pace, Some(Duration::from_secs(7)), RECHECK, &[], NOW);
    drop(probe);
    sleep(Duration::from_secs(1)).await;
    assert!(begin_many(&one).await.is_empty());
    sleep(Duration::from_secs(7)).await;
    assert!(!begin_many(&one).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_opened_by_hand_is_open_in_every_process_within_seconds() {
    for wait in [YEARS, Duration::from_hours(10)] {
        let others = Others::default();
        let (one, two) = (others.join(1, &[], None), others.join(2, &[], None));
        drop(begin_many(&two).await);
        refuse(&one, Some(wait)).await;
        sleep(Duration::from_secs(1)).await;
        assert!(begin_many(&one).await.is_empty() && begin_many(&two).await.is_empty());
        sleep(Duration::from_mins(1)).await;
        let now = others.shared.lock().exchange(9, &Limits::default(), &Report::default(), NOW).now;
        assert!(others.shared.lock().reopen(now));
        sleep(Duration::from_secs(6)).await;
        assert!(!begin_many(&one).await.is_empty() && !begin_many(&two).await.is_empty(), "{wait:?}");
    }
}
