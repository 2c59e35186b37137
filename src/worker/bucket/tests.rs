//! The arithmetic of one bucket, on paused time: no socket is open here, so time stands still unless we move it.
#![expect(clippy::cast_precision_loss, reason = "the model of the property is in floating point, for small numbers")]

use super::sharing::STEADY;
use super::*;
use crate::domain::Rate;
use crate::domain::limits::{Dimension, Heard};
use crate::domain::shared_bucket::{Allotment, Report, SharedBucket, Slice};
use crate::provider::LimitObservation;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_mins(1);
pub(super) const NOW: Timestamp = Timestamp(1_000_000);
/// Enough for one round of the keeper, and too short for units to come back.
pub(super) const AT_ONCE: Duration = Duration::from_millis(30);

/// Keeps the buckets of processes that share one: does the work of keeper and database, without either.
#[derive(Clone, Default)]
pub(in crate::worker) struct Others {
    pub(in crate::worker) shared: Arc<Mutex<SharedBucket>>,
    /// Buckets of other names.
    named: Arc<Mutex<BTreeMap<String, Others>>>,
}

impl Others {
    /// The bucket of this name.
    pub(in crate::worker) fn of(&self, name: &str) -> Self {
        self.named.lock().entry(name.to_owned()).or_default().clone()
    }

    /// One step by hand.
    pub(in crate::worker) fn exchange(&self, id: i64, limits: &Limits, report: &Report, now: Timestamp) -> Allotment {
        self.shared.lock().exchange(id, limits, report, now)
    }

    /// A process's bucket. To the other processes its time is the test's time.
    pub(super) fn join(&self, id: i64, rates: &[(Unit, u64, u64)], concurrency: Option<u32>) -> Arc<Bucket> {
        let rates = rates.iter().map(|&(unit, amount, burst)| Rate { unit, amount, per: MINUTE, burst }).collect();
        let bucket = Arc::new(Bucket::new("test", &Limits { rates, concurrency }, &Arc::new(Notify::new())));
        self.keep(id, &bucket);
        bucket
    }

    /// Does the keeper's work for a bucket, as long as it lives.
    pub(in crate::worker) fn keep(&self, id: i64, bucket: &Arc<Bucket>) {
        self.keep_looking(id, bucket, MINUTE);
    }

    /// The same, but with a look at least this often. Buckets of one gate share a bell, which wakes only one of their
    /// keepers.
    pub(in crate::worker) fn keep_looking(&self, id: i64, bucket: &Arc<Bucket>, at_least_every: Duration) {
        let (weak, others, began) = (Arc::downgrade(bucket), self.clone(), Instant::now());
        let wake = Arc::clone(&bucket.wake);
        tokio::spawn(async move {
            while let Some(bucket) = weak.upgrade() {
                let now = Instant::now();
                let (due, latest) = (bucket.due(now), now + at_least_every);
                if due.is_some_and(|due| due <= now) {
                    let (report, base) = bucket.report(false);
                    let told = others.exchange(id, &bucket.limits(), &report, NOW + began.elapsed());
                    bucket.receive(&base, &told);
                }
                drop(bucket);
                tokio::select! {
                    () = tokio::time::sleep_until(due.map_or(latest, |due| due.min(latest))) => {}
                    () = wake.notified() => {}
                }
            }
        });
    }
}

pub(super) fn bucket(rates: &[(Unit, u64, u64)], concurrency: Option<u32>) -> Arc<Bucket> {
    Others::default().join(1, rates, concurrency)
}

pub(super) fn tokens(input: u64) -> Charge {
    Charge { input, output: 0, total: input, inputs: 0 }
}

pub(super) async fn enter_after(bucket: &Arc<Bucket>, charge: Charge) -> Duration {
    let began = Instant::now();
    let patience = Duration::from_secs(100_000);
    bucket.enter(charge, patience, NOW).await.expect("the patience is long enough");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_burst_goes_at_once_and_the_rest_at_the_rate() {
    let bucket = bucket(&[(Unit::Requests, 1200, 1200)], None);
    let began = Instant::now();
    let calls: Vec<_> = (0..2500)
        .map(|_| {
            let bucket = Arc::clone(&bucket);
            tokio::spawn(async move { enter_after(&bucket, tokens(1)).await })
        })
        .collect();
    let mut waits = Vec::new();
    for call in calls {
        waits.push(call.await.expect("no panic"));
    }
    waits.sort_unstable();
    assert!(waits[1_198] < AT_ONCE, "{:?}", waits[1_198]);
    // Ideal: 1,300 tokens at 20 a second.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(65) && took < Duration::from_millis(65_300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_processes_share_what_one_would_have_had() {
    let others = Others::default();
    let limits = [(Unit::Requests, 600, 100)];
    let both = [others.join(1, &limits, None), others.join(2, &limits, None)];
    let began = Instant::now();
    let calls: Vec<_> = (0..400)
        .map(|index| {
            let bucket = Arc::clone(&both[index % 2]);
            tokio::spawn(async move { enter_after(&bucket, tokens(1)).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic");
    }
    // Ideal: 300 tokens at 10 a second.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_millis(30_900), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_estimate_took_too_much_comes_back() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 10_000)], None);
    let hold = bucket.enter(tokens(9_900), AT_ONCE, NOW).await.expect("the bucket is full");
    assert!(bucket.enter(tokens(5_000), AT_ONCE, NOW).await.is_err());
    sleep(AT_ONCE).await;
    hold.correct(tokens(2_000), &[]);
    // Not at once, but in the next round, and not at the rate, which would take five seconds.
    let waited = enter_after(&bucket, tokens(7_000)).await;
    assert!(waited <= 2 * STEADY, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_estimate_took_too_little_is_a_debt_that_is_paid_before_anything_else() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    let hold = bucket.enter(tokens(900), AT_ONCE, NOW).await.expect("the bucket is full");
    hold.correct(tokens(10_900), &[]);
    // 10,000 of debt at 1,000 a second, then 900 for the call itself, of which 80 are there.
    let waited = enter_after(&bucket, tokens(900)).await;
    assert!(waited >= Duration::from_millis(10_750) && waited < Duration::from_millis(11_250), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_let_in_takes_nothing_from_any_meter() {
    let bucket = bucket(&[(Unit::Requests, 60, 10), (Unit::Tokens, 6_000, 1_000)], None);
    let hold = bucket.enter(tokens(980), AT_ONCE, NOW).await.expect("the bucket is full");
    for _ in 0..10 {
        assert!(bucket.enter(tokens(900), Duration::ZERO, NOW).await.is_err());
    }
    hold.cancel();
    // Ten requests of ten are left: neither the refusals nor the call that was not made cost any.
    for _ in 0..10 {
        bucket.enter(tokens(1), 2 * STEADY, NOW).await.expect("enough is left");
    }
    assert!(bucket.enter(tokens(1), AT_ONCE, NOW).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_large_call_is_not_overtaken_by_small_ones_for_ever() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    let _first = bucket.enter(tokens(980), AT_ONCE, NOW).await.expect("the bucket is full");
    let large = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.enter(tokens(900), Duration::from_secs(5), NOW).await.is_ok() }
    });
    tokio::task::yield_now().await;
    let small = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.enter(tokens(1), STEADY, NOW).await.is_ok() }
    });
    assert!(!small.await.expect("no panic"), "the small one has to queue behind the large one");
    assert!(large.await.expect("no panic"));
}

#[tokio::test(start_paused = true)]
async fn a_call_larger_than_the_bucket_is_told_apart_from_one_that_has_to_wait() {
    let bucket = bucket(&[(Unit::Tokens, 60_000, 1_000)], None);
    assert_eq!(bucket.size(tokens(1_001)), Some((1_001, 1_000)));
    assert_eq!(bucket.size(tokens(1_000)), None);
    // The whole bucket is available, although a little is held back from calls that need less.
    let waited = enter_after(&bucket, tokens(1_000)).await;
    assert!(waited < AT_ONCE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn places_are_given_back_when_the_call_is_over_and_shared_with_others() {
    let others = Others::default();
    let (one, two) = (others.join(1, &[], Some(2)), others.join(2, &[], Some(2)));
    let first = one.enter(tokens(1), AT_ONCE, NOW).await.expect("two are free");
    let _second = one.enter(tokens(1), AT_ONCE, NOW).await.expect("one is free");
    assert_eq!(one.look(tokens(1), None, Duration::ZERO, NOW).map(|shut| shut.reason), Some(Reason::Concurrency));
    assert!(one.enter(tokens(1), Duration::from_secs(1), NOW).await.is_err());
    assert!(two.enter(tokens(1), Duration::from_secs(1), NOW).await.is_err());
    drop(first);
    two.enter(tokens(1), Duration::from_secs(1), NOW).await.expect("one is free again");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gives_up_waiting_leaves_no_place_taken() {
    let bucket = bucket(&[(Unit::Requests, 60, 1)], None);
    let _first = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("the bucket is full");
    for _ in 0..10 {
        let waiting = bucket.enter(tokens(1), Duration::from_secs(50), NOW);
        assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
    }
    // One call a second: the ten calls that gave up are not waited for.
    let waited = enter_after(&bucket, tokens(1)).await;
    assert!(waited <= Duration::from_millis(1_250), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn without_word_from_the_others_what_is_held_is_spent_and_then_nothing() {
    let rate = Rate { unit: Unit::Requests, amount: 6_000, per: MINUTE, burst: 1_000 };
    let limits = Limits { rates: vec![rate], concurrency: None };
    let bucket = Arc::new(Bucket::new("test", &limits, &Arc::new(Notify::new())));
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let bucket = Arc::clone(&bucket);
            tokio::spawn(async move { bucket.enter(tokens(1), MINUTE, NOW).await.is_ok() })
        })
        .collect();
    tokio::task::yield_now().await;
    let (report, base) = bucket.report(false);
    let told = SharedBucket::default().exchange(1, &limits, &report, NOW);
    bucket.receive(&base, &told);
    // From here on no exchange is answered.
    for call in waiting {
        assert!(call.await.expect("no panic"));
    }
    assert!(bucket.enter(tokens(1), Duration::from_secs(20), NOW).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_is_older_than_its_lease_is_not_spent() {
    let wake = Arc::new(Notify::new());
    let rate = Rate { unit: Unit::Requests, amount: 600, per: MINUTE, burst: 600 };
    let bucket = Arc::new(Bucket::new("test", &Limits { rates: vec![rate], concurrency: None }, &wake));
    let waiting = tokio::spawn({
        let bucket = Arc::clone(&bucket);
        async move { bucket.enter(tokens(1), MINUTE, NOW).await.is_ok() }
    });
    tokio::task::yield_now().await;
    let (report, base) = bucket.report(false);
    assert_eq!(report.stocks[0].want, 1);
    // The answer is on its way for longer than the lease.
    let told = SharedBucket::default().exchange(1, &bucket.limits(), &report, NOW);
    assert_eq!(told.slices[0].held, 1);
    sleep(LEASE).await;
    bucket.receive(&base, &told);
    sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "what was lent then is another's now");
    let (report, base) = bucket.report(false);
    assert_eq!(report.stocks[0].left, 0);
    let told = SharedBucket::default().exchange(1, &bucket.limits(), &report, NOW + LEASE);
    bucket.receive(&base, &told);
    assert!(waiting.await.expect("no panic"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_answers_tell_of_is_kept_from_then_on() {
    let bucket = bucket(&[], None);
    let heard = |remaining| Heard {
        dimension: Dimension { unit: Unit::Requests, seconds: 60 },
        limit: Some(600),
        remaining: Some(remaining),
        corrected: 0,
    };
    let first = bucket.enter(tokens(1), AT_ONCE, NOW).await.expect("nothing is known yet");
    first.hear(&[heard(20)]);
    sleep(2 * STEADY).await;
    let began = Instant::now();
    for _ in 0..70 {
        enter_after(&bucket, tokens(1)).await;
    }
    // Twenty are left, and then ten a second come.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(4_500) && took <= Duration::from_millis(5_300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_nobody_names_is_believed_when_answers_at_different_levels_agree() {
    let seen = |capacity: u64, remaining: u64| LimitObservation {
        unit: Unit::Requests,
        limit: Some(1_200),
        remaining: Some(remaining),
        reset_in: Some(Duration::from_millis((capacity - remaining) * 50)),
        per: None,
        pool: None,
    };
    // A minute's limit, told by a bucket that holds all of it.
    let told = bucket(&[], None);
    let windows: Vec<_> = (1_100..1_200)
        .rev()
        .filter_map(|remaining| Some(told.understand(&[seen(1_200, remaining)]).first()?.dimension.seconds))
        .collect();
    assert!(windows.len() >= 50 && windows.iter().all(|window| *window == 60), "{windows:?}");
    // By one that holds a twelfth of it: what looks like a second at some level is none at the next.
    let told = bucket(&[], None);
    for remaining in (0..100).rev() {
        assert_eq!(told.understand(&[seen(100, remaining)]), []);
    }
    // The configured limit says which one is meant.
    let told = bucket(&[(Unit::Requests, 1_200, 100)], None);
    assert_eq!(told.understand(&[seen(100, 80)])[0].dimension.seconds, 60);
    let told = bucket(&[(Unit::Requests, 600, 100)], None);
    assert_eq!(told.understand(&[seen(100, 80)]), []);
}

#[tokio::test(start_paused = true)]
async fn when_the_provider_says_that_less_is_left_it_is_believed_once() {
    let bucket = bucket(&[(Unit::Requests, 600, 600)], None);
    let mut holds = Vec::new();
    for _ in 0..10 {
        holds.push(bucket.enter(tokens(1), 2 * STEADY, NOW).await.expect("the bucket is full"));
    }
    // Each of ten answers says that the account has a hundred left: another program uses it too.
    for hold in &holds {
        hold.hear(&[Heard {
            dimension: Dimension { unit: Unit::Requests, seconds: 60 },
            limit: Some(600),
            remaining: Some(100),
            corrected: 0,
        }]);
    }
    // Once to learn what the other processes have, and once to report the missing units.
    sleep(4 * STEADY).await;
    let left = bucket.headroom(tokens(1), 1, Duration::ZERO);
    assert!((90..=120).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_began_before_a_limit_was_known_count_against_it() {
    let bucket = bucket(&[], None);
    let mut holds = Vec::new();
    for _ in 0..16 {
        holds.push(bucket.enter(tokens(1), 2 * STEADY, NOW).await.expect("sixteen may be tried"));
    }
    // The first answer tells of the limit; the other fifteen calls are under way.
    let dimension = Dimension { unit: Unit::Requests, seconds: 60 };
    holds.remove(0).hear(&[Heard { dimension, limit: Some(60), remaining: Some(40), corrected: 0 }]);
    sleep(2 * STEADY).await;
    let left = bucket.headroom(tokens(1), 1, Duration::ZERO);
    assert!((24..=26).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn of_calls_that_began_before_a_limit_was_known_those_count_that_were_counted_after_it_was_told() {
    let bucket = bucket(&[], None);
    let mut holds = Vec::new();
    for _ in 0..16 {
        holds.push(bucket.enter(tokens(1), 2 * STEADY, NOW).await.expect("sixteen may be tried"));
    }
    let says = |remaining| {
        let (limit, remaining) = (Some(60), Some(remaining));
        [LimitObservation { unit: Unit::Requests, limit, remaining, reset_in: None, per: Some(MINUTE), pool: None }]
    };
    let end = |hold: BucketHold, remaining| hold.correct(tokens(1), &says(remaining));
    // Two answers that nobody could make sense of: one call was counted before that which is understood, one after it.
    end(holds.remove(0), 44);
    end(holds.remove(0), 36);
    let told = holds.remove(0);
    told.correct(tokens(1), &says(40));
    told.hear(&bucket.understand(&says(40)));
    drop(told);
    sleep(2 * STEADY).await;
    let left = || bucket.headroom(tokens(1), 1, Duration::ZERO);
    assert!((26..=27).contains(&left()), "{}", left());
    // Of the thirteen calls under way eight had been counted.
    for (index, hold) in holds.drain(..).enumerate() {
        end(hold, if index < 8 { 41 } else { 39 });
    }
    sleep(2 * STEADY).await;
    assert!((34..=36).contains(&left()), "{}", left());
}

#[tokio::test(start_paused = true)]
async fn units_that_no_call_uses_go_back_soon() {
    let others = Others::default();
    // Hardly anything comes back meanwhile.
    let limits = [(Unit::Requests, 1, 20)];
    let (idle, busy) = (others.join(1, &limits, None), others.join(2, &limits, None));
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(idle.enter(tokens(1), 2 * STEADY, NOW).await.expect("the bucket is full"));
        sleep(AT_ONCE).await;
    }
    // It was given some for calls that do not come: all that are left can be had soon.
    for _ in 0..7 {
        let waited = enter_after(&busy, tokens(1)).await;
        assert!(waited <= 3 * STEADY, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_refuses_is_not_held_against_a_limit_that_it_tells_of_meanwhile() {
    let bucket = bucket(&[], None);
    let mut holds = Vec::new();
    for _ in 0..16 {
        // The first could never fit, and would be waited for in vain.
        let size = if holds.is_empty() { 50_000 } else { 500 };
        holds.push(bucket.enter(tokens(size), 2 * STEADY, NOW).await.expect("sixteen may be tried"));
    }
    let dimension = Dimension { unit: Unit::Tokens, seconds: 60 };
    let heard = Heard { dimension, limit: Some(1_000), remaining: Some(900), corrected: 0 };
    let first = holds.pop().unwrap();
    first.correct(tokens(100), &[]);
    first.hear(&[heard]);
    drop(first);
    sleep(2 * STEADY).await;
    let shut = bucket.enter(tokens(1), STEADY, NOW).await.expect_err("they may all have been charged");
    assert_eq!(shut.reason, Reason::RateLimit);
    // Fourteen times 500, less the remainder, come back at 1,000 a minute.
    assert!((340_000..380_000).contains(&(NOW.until(shut.until).as_millis())), "{shut:?}");
    for hold in holds.drain(..) {
        hold.correct(tokens(0), &[]);
    }
    sleep(2 * STEADY).await;
    bucket.enter(tokens(900), 2 * STEADY, NOW).await.expect("none of them was");
}

#[tokio::test(start_paused = true)]
async fn what_others_were_lent_meanwhile_is_not_missing() {
    let rate = Rate { unit: Unit::Requests, amount: 1_200, per: Duration::from_mins(1), burst: 1_200 };
    let slice = |held, level, outstanding| Slice {
        dimension: rate.dimension(),
        epoch: 0,
        held,
        level,
        outstanding,
        capacity: 1_200,
        interval: 50_000_000,
        amount: 1_200,
        corrected: 0,
        told: None,
        ahead: 0,
        between: 0,
    };
    for (level, others, missing) in [(12, 700, false), (712, 0, true)] {
        let meter = LocalMeter::of(&rate);
        meter.receive(slice(488, 712, 488), 0, 1, Instant::now());
        let mark = meter.mark(Instant::now());
        // The other processes were lent 700 and have spent them, of which this process has not heard when its answer
        // comes.
        sleep(Duration::from_millis(50)).await;
        meter.compare(mark, 499, 1, Instant::now());
        assert_eq!(meter.corrected(), 0, "nothing is taken off before the others were heard");
        sleep(Duration::from_millis(50)).await;
        meter.receive(slice(488, level, 488 + others), 488, 3, Instant::now());
        assert_eq!(meter.corrected() > 0, missing, "with {others} in the hands of others");
    }
}

/// One event of a bucket.
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

    /// Compared with a plain model of a bucket: no call begins before the model would let it, however wrong the
    /// estimates were, and nothing is lost for good.
    #[test]
    fn a_bucket_is_a_bucket_whatever_the_estimates(events in events()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            const BURST: f64 = 1_000.0;
            const PER_SECOND: f64 = 100.0;
            let bucket = bucket(&[(Unit::Tokens, 6_000, 1_000)], None);
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
                assert!(waited >= expected - 0.001, "after {waited} s instead of {expected} s");
                level = BURST.min(level + PER_SECOND * at.elapsed().as_secs_f64()) - estimate as f64;
                at = Instant::now();
                sleep(Duration::from_millis(5)).await;
                level = BURST.min(level + PER_SECOND * at.elapsed().as_secs_f64());
                at = Instant::now();
                hold.correct(tokens(actual), &[]);
                level = BURST.min(level + estimate as f64 - actual as f64);
            }
            // After a rest all of it is there again, except for the part that is held back.
            sleep(MINUTE).await;
            let waited = enter_after(&bucket, tokens(980)).await;
            assert!(waited <= 2 * STEADY, "{waited:?}");
        });
    }
}
