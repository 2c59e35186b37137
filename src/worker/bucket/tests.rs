//! The arithmetic of one bucket, on paused time: no socket is open here, so time stands still unless we move it.
#![expect(clippy::cast_precision_loss, reason = "the model of the property is in floating point, for small numbers")]

use super::*;
use crate::domain::Rate;
use proptest::prelude::*;
use tokio::time::{advance, sleep};

const MINUTE: Duration = Duration::from_mins(1);
const NOW: Timestamp = Timestamp(1_000_000);

fn bucket(rates: &[(Unit, u64, u64)], concurrency: Option<u32>) -> Arc<Bucket> {
    let rates = rates.iter().map(|&(unit, amount, burst)| Rate { unit, amount, per: MINUTE, burst }).collect();
    Arc::new(Bucket::new("test", &Limits { rates, concurrency }, &GateClock::new()))
}

fn tokens(input: u64) -> Charge {
    Charge { input, output: 0, total: input }
}

async fn enter_after(bucket: &Arc<Bucket>, charge: Charge) -> Duration {
    let began = Instant::now();
    let patience = Duration::from_secs(100_000);
    bucket.enter(charge, patience, NOW).await.expect("the patience is long enough");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_burst_goes_at_once_and_the_rest_at_the_rate() {
    let bucket = bucket(&[(Unit::Requests, 1200, 1200)], None);
    let began = Instant::now();
    for _ in 0..1200 {
        assert_eq!(enter_after(&bucket, tokens(1)).await, Duration::ZERO);
    }
    for _ in 0..1300 {
        enter_after(&bucket, tokens(1)).await;
    }
    // Ideal: 1,300 tokens at 20 a second.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(65) && took < Duration::from_millis(65_100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_estimate_took_too_much_comes_back() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 10_000)], None);
    let hold = bucket.enter(tokens(10_000), Duration::ZERO, NOW).await.expect("the bucket is full");
    assert!(bucket.enter(tokens(5_000), Duration::ZERO, NOW).await.is_err());
    hold.correct(tokens(2_000));
    assert_eq!(enter_after(&bucket, tokens(8_000)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_an_estimate_took_too_little_is_a_debt_that_is_paid_before_anything_else() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    let hold = bucket.enter(tokens(1_000), Duration::ZERO, NOW).await.expect("the bucket is full");
    hold.correct(tokens(11_000));
    // 10,000 of debt at 1,000 a second, then 1,000 for the call itself.
    let waited = enter_after(&bucket, tokens(1_000)).await;
    assert!(waited >= Duration::from_secs(11) && waited < Duration::from_millis(11_010), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_is_kept_to_the_millisecond_and_no_stampede_follows() {
    let bucket = bucket(&[(Unit::Requests, 600, 600)], None);
    bucket.shut(Closed::RateLimit, Some(Duration::from_secs(90)), NOW);
    advance(Duration::from_millis(89_999)).await;
    assert_eq!(bucket.enter(tokens(1), Duration::ZERO, NOW).await.expect_err("it is shut").reason, Closed::RateLimit);
    advance(Duration::from_millis(1)).await;
    assert_eq!(enter_after(&bucket, tokens(1)).await, Duration::ZERO);
    // The next come at the rate, ten a second, not all at once.
    let waited = enter_after(&bucket, tokens(1)).await;
    assert!(waited >= Duration::from_millis(99), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_never_shortens_a_longer_one() {
    let bucket = bucket(&[], None);
    bucket.shut(Closed::RateLimit, Some(Duration::from_hours(10)), NOW);
    bucket.shut(Closed::RateLimit, Some(Duration::from_secs(1)), NOW);
    let shut = bucket.look(tokens(1), Duration::ZERO, NOW).expect("it is shut");
    assert_eq!(NOW.until(shut.until), Duration::from_hours(10));
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_hint_back_off_and_a_success_ends_that() {
    let bucket = bucket(&[], None);
    let mut waits = Vec::new();
    for _ in 0..8 {
        bucket.shut(Closed::RateLimit, None, NOW);
        let shut = bucket.look(tokens(1), Duration::ZERO, NOW).expect("it is shut");
        waits.push(NOW.until(shut.until).as_secs());
        sleep(NOW.until(shut.until)).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    bucket.passed();
    bucket.shut(Closed::RateLimit, None, NOW);
    assert_eq!(NOW.until(bucket.look(tokens(1), Duration::ZERO, NOW).expect("it is shut").until).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_takes_nothing_from_any_meter() {
    let bucket = bucket(&[(Unit::Requests, 60, 10), (Unit::Tokens, 60_000, 1_000)], None);
    let hold = bucket.enter(tokens(1_000), Duration::ZERO, NOW).await.expect("the bucket is full");
    for _ in 0..100 {
        assert!(bucket.enter(tokens(1_000), Duration::ZERO, NOW).await.is_err());
    }
    hold.correct(tokens(0));
    // Nine requests are left of ten: the hundred refusals cost none.
    for _ in 0..9 {
        assert_eq!(enter_after(&bucket, tokens(1)).await, Duration::ZERO);
    }
    assert!(bucket.enter(tokens(1), Duration::ZERO, NOW).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_large_call_is_not_overtaken_by_small_ones_for_ever() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    let _first = bucket.enter(tokens(1_000), Duration::ZERO, NOW).await.expect("the bucket is full");
    let large = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.enter(tokens(1_000), Duration::from_secs(5), NOW).await.is_ok() }
    });
    tokio::task::yield_now().await;
    let small = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.enter(tokens(1), Duration::ZERO, NOW).await.is_ok() }
    });
    assert!(!small.await.expect("no panic"), "the small one has to queue behind the large one");
    assert!(large.await.expect("no panic"));
}

#[tokio::test(start_paused = true)]
async fn a_call_larger_than_the_bucket_is_told_apart_from_one_that_has_to_wait() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    assert_eq!(bucket.size(tokens(1_001)), Some((1_001, 1_000)));
    assert_eq!(bucket.size(tokens(1_000)), None);
}

#[tokio::test(start_paused = true)]
async fn slots_are_given_back_when_the_call_is_over() {
    let bucket = bucket(&[], Some(2));
    let first = bucket.enter(tokens(1), Duration::ZERO, NOW).await.expect("two are free");
    let _second = bucket.enter(tokens(1), Duration::ZERO, NOW).await.expect("one is free");
    assert_eq!(bucket.look(tokens(1), Duration::ZERO, NOW).map(|shut| shut.reason), Some(Closed::Concurrency));
    assert!(bucket.enter(tokens(1), Duration::from_secs(1), NOW).await.is_err());
    drop(first);
    assert!(bucket.look(tokens(1), Duration::ZERO, NOW).is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_leaves_no_place_taken() {
    let bucket = bucket(&[(Unit::Requests, 60, 1)], None);
    let _first = bucket.enter(tokens(1), Duration::ZERO, NOW).await.expect("the bucket is full");
    for _ in 0..10 {
        let waiting = bucket.enter(tokens(1), Duration::from_secs(50), NOW);
        assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
    }
    // One call a second: the ten who gave up are not waited for.
    let waited = enter_after(&bucket, tokens(1)).await;
    assert!(waited <= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn saturation_lasts_through_single_tokens_and_ends_with_a_rest() {
    let bucket = bucket(&[(Unit::Requests, 60, 100)], None);
    for _ in 0..100 {
        enter_after(&bucket, tokens(1)).await;
    }
    let first = bucket.look(tokens(1), Duration::ZERO, NOW).expect("it is empty").since;
    advance(Duration::from_secs(2)).await;
    assert!(bucket.look(tokens(1), Duration::ZERO, Timestamp(NOW.0 + 2_000)).is_none(), "two tokens dripped in");
    for _ in 0..2 {
        enter_after(&bucket, tokens(1)).await;
    }
    let later = bucket.look(tokens(1), Duration::ZERO, Timestamp(NOW.0 + 2_000)).expect("it is empty again").since;
    assert_eq!(first, later);
    advance(Duration::from_secs(30)).await;
    assert!(bucket.look(tokens(1), Duration::ZERO, Timestamp(NOW.0 + 32_000)).is_none());
    for _ in 0..30 {
        enter_after(&bucket, tokens(1)).await;
    }
    let rested = bucket.look(tokens(1), Duration::ZERO, Timestamp(NOW.0 + 33_000)).expect("it is empty again").since;
    assert!(rested > first);
}

/// One thing that happens to a bucket.
#[derive(Clone, Debug)]
enum Event {
    Call { estimate: u64, actual: u64 },
    Rest { ms: u64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let call = (1_u64..200, 0_u64..400).prop_map(|(estimate, actual)| Event::Call { estimate, actual });
    let rest = (0_u64..3_000).prop_map(|ms| Event::Rest { ms });
    prop::collection::vec(prop_oneof![3 => call, 1 => rest], 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Beside a plain model of a bucket: a call waits exactly as long as the model says, however wrong the estimates
    /// were. So never more is spent than the limit allows, and nothing that is allowed is lost.
    #[test]
    fn a_bucket_is_a_bucket_whatever_the_estimates(events in events()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            const BURST: f64 = 200.0;
            const PER_SECOND: f64 = 100.0;
            let bucket = bucket(&[(Unit::Tokens, 6_000, 200)], None);
            let (mut level, mut at) = (BURST, Instant::now());
            for event in events {
                let (estimate, actual) = match event {
                    Event::Rest { ms } => {
                        sleep(Duration::from_millis(ms)).await;
                        continue;
                    }
                    Event::Call { estimate, actual } => (estimate, actual),
                };
                level = BURST.min(level + PER_SECOND * at.elapsed().as_secs_f64());
                at = Instant::now();
                let expected = ((estimate as f64 - level) / PER_SECOND).max(0.0);
                let asked = Instant::now();
                let hold = bucket
                    .enter(tokens(estimate), Duration::from_secs(100_000), NOW)
                    .await
                    .expect("the patience is long enough");
                let waited = asked.elapsed().as_secs_f64();
                // Timers are rounded up to the millisecond.
                assert!(waited >= expected - 0.000_1, "after {waited} s instead of {expected} s");
                assert!(waited <= expected + 0.002, "after {waited} s instead of {expected} s");
                level = BURST.min(level + PER_SECOND * at.elapsed().as_secs_f64()) - estimate as f64;
                at = Instant::now();
                hold.correct(tokens(actual));
                level = BURST.min(level + estimate as f64 - actual as f64);
            }
        });
    }
}
