//! When patience begins to run, on paused time.

use crate::domain::shut::Reason;
use crate::domain::{Timestamp, Unit};
use crate::worker::bucket::tests::{AT_ONCE, NOW, Others, bucket, enter_after, tokens};
use crate::worker::bucket::{Bucket, BucketHold};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn saturation_lasts_through_single_tokens_and_ends_with_a_rest() {
    let bucket = bucket(&[(Unit::Requests, 60, 100)], None);
    while bucket.enter(tokens(1), AT_ONCE, NOW).await.is_ok() {}
    let first = bucket.look(tokens(1), None, Duration::ZERO, NOW).expect("it is empty").since;
    sleep(Duration::from_secs(2)).await;
    assert!(bucket.look(tokens(1), None, Duration::ZERO, Timestamp(NOW.0 + 2_000)).is_none(), "two tokens dripped in");
    while bucket.enter(tokens(1), AT_ONCE, NOW).await.is_ok() {}
    let later =
        bucket.look(tokens(1), None, Duration::ZERO, Timestamp(NOW.0 + 2_500)).expect("it is empty again").since;
    assert_eq!(first, later);
    sleep(Duration::from_secs(30)).await;
    enter_after(&bucket, tokens(1)).await;
    assert!(bucket.look(tokens(1), None, Duration::ZERO, Timestamp(NOW.0 + 32_000)).is_none());
    while bucket.enter(tokens(1), AT_ONCE, NOW).await.is_ok() {}
    let rested =
        bucket.look(tokens(1), None, Duration::ZERO, Timestamp(NOW.0 + 33_000)).expect("it is empty again").since;
    assert!(rested > first);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_vain_has_waited_since_the_limit_was_used_up() {
    let bucket = bucket(&[(Unit::Requests, 60, 100)], None);
    while bucket.enter(tokens(1), AT_ONCE, NOW).await.is_ok() {}
    let first = bucket.look(tokens(1), None, Duration::ZERO, NOW).expect("it is empty").since;
    while bucket.enter(tokens(1), AT_ONCE, NOW).await.is_ok() {}
    let later = Timestamp(NOW.0 + 40_000);
    let refused = bucket.enter(tokens(1), AT_ONCE, later).await.expect_err("it is empty");
    assert_eq!((refused.reason, refused.since), (Reason::RateLimit, first));
    assert!(refused.until > later, "{refused:?}");
}

/// Takes every place there is.
async fn fill(bucket: &Arc<Bucket>, running: &mut Vec<BucketHold>) {
    while let Ok(hold) = bucket.enter(tokens(1), AT_ONCE, NOW).await {
        running.push(hold);
    }
}

/// Since when the bucket has been full, asked `seconds` after the start.
fn full_since(bucket: &Arc<Bucket>, seconds: i64) -> Timestamp {
    let shut = bucket.look(tokens(1), None, Duration::ZERO, Timestamp(NOW.0 + seconds * 1_000)).expect("it is full");
    assert_eq!(shut.reason, Reason::Concurrency);
    shut.since
}

/// Calls end and others begin at once, one by one and all together: the places never rest. Then they do.
async fn is_full_until_a_rest(bucket: &Arc<Bucket>, running: &mut Vec<BucketHold>) {
    let places = running.len();
    let first = full_since(bucket, 0);
    for seconds in 1..8 {
        // All of them end every other time.
        running.truncate(if seconds % 2 == 0 { 0 } else { places - 1 });
        sleep(AT_ONCE).await;
        assert_eq!(bucket.look(tokens(1), None, Duration::ZERO, NOW), None, "a place is free, {places}");
        fill(bucket, running).await;
        sleep(SECOND * 2).await;
        assert_eq!((full_since(bucket, seconds), running.len()), (first, places));
    }
    running.pop();
    sleep(SECOND * 2).await;
    // The first look may only fetch fresh word from the other processes.
    let _ = bucket.look(tokens(1), None, Duration::ZERO, NOW);
    sleep(AT_ONCE).await;
    assert_eq!(bucket.look(tokens(1), None, Duration::ZERO, NOW), None, "a place is free, {places}");
    fill(bucket, running).await;
    assert_eq!(full_since(bucket, 20), Timestamp(NOW.0 + 20_000), "{places}");
}

#[tokio::test(start_paused = true)]
async fn places_that_the_next_call_takes_are_no_rest_however_few_there_are() {
    for places in [1, 2, 3, 8, 9, 10, 40] {
        let bucket = bucket(&[], Some(places));
        let mut running = Vec::new();
        fill(&bucket, &mut running).await;
        assert_eq!(running.len(), places as usize);
        is_full_until_a_rest(&bucket, &mut running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_where_two_processes_share_the_places() {
    for places in [2, 8, 40] {
        let others = Others::default();
        let (one, two) = (others.join(1, &[], Some(places)), others.join(2, &[], Some(places)));
        let (mut running, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..places / 2 {
            running.push(one.enter(tokens(1), AT_ONCE, NOW).await.expect("it is free"));
            theirs.push(two.enter(tokens(1), AT_ONCE, NOW).await.expect("it is free"));
        }
        sleep(SECOND).await;
        is_full_until_a_rest(&one, &mut running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_where_the_number_of_places_is_felt_for() {
    for passed in [0, 1, 2, 3] {
        let bucket = bucket(&[], None);
        let mut running = Vec::new();
        fill(&bucket, &mut running).await;
        // Calls begin one by one again, and as many more may run as have got through.
        running[0].crowded(Some(SECOND));
        running.clear();
        for _ in 0..passed {
            fill(&bucket, &mut running).await;
            for hold in &running {
                bucket.passed(hold);
            }
            running.clear();
        }
        fill(&bucket, &mut running).await;
        assert!(running.len() <= 8, "{}", running.len());
        is_full_until_a_rest(&bucket, &mut running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_the_next_call_takes_is_no_rest_however_small_the_burst_is() {
    for (unit, burst, size) in [(Unit::Requests, 1, 1), (Unit::Requests, 3, 1), (Unit::Tokens, 100, 40)] {
        // A call's worth comes back every ten seconds.
        let bucket = bucket(&[(unit, size * 6, burst)], None);
        while bucket.enter(tokens(size), AT_ONCE, NOW).await.is_ok() {}
        let first = bucket.look(tokens(size), None, AT_ONCE, NOW).expect("it is empty").since;
        for _ in 0..5 {
            bucket.enter(tokens(size), SECOND * 20, NOW).await.expect("it comes back");
            sleep(Duration::from_millis(10_500)).await;
            assert_eq!(bucket.look(tokens(size), None, AT_ONCE, NOW), None, "{unit} {burst}");
            bucket.enter(tokens(size), SECOND, NOW).await.expect("it has come back");
            let since = bucket.look(tokens(size), None, AT_ONCE, Timestamp(NOW.0 + 1)).expect("it is empty").since;
            assert_eq!(since, first, "{unit} {burst}");
        }
        sleep(SECOND * 60).await;
        let _ = bucket.look(tokens(size), None, AT_ONCE, NOW);
        sleep(AT_ONCE).await;
        assert_eq!(bucket.look(tokens(size), None, AT_ONCE, NOW), None, "{unit} {burst}");
        while bucket.enter(tokens(size), AT_ONCE, NOW).await.is_ok() {}
        let rested = bucket.look(tokens(size), None, AT_ONCE, Timestamp(NOW.0 + 2)).expect("it is empty").since;
        assert!(rested > first, "{unit} {burst}");
    }
}
