//! The protocol between processes that live, stall and die in any order, beside a provider that counts for itself.
#![expect(clippy::cast_precision_loss, reason = "the provider's model is in floating point, for small numbers")]

mod world;

use super::*;
use crate::domain::limits::Dimension;
use crate::domain::long_wait::RECHECK;
use crate::domain::shut::{Reason, Shut};
use crate::domain::{Rate, Unit};

const EPOCH: i64 = 1_800_000_000_000;
pub(super) const REQUESTS: Dimension = Dimension { unit: Unit::Requests, seconds: 60 };

pub(super) fn limits(per_minute: u64, burst: u64) -> Limits {
    let rate = Rate { unit: Unit::Requests, amount: per_minute, per: Duration::from_mins(1), burst };
    Limits { rates: vec![rate], concurrency: None }
}

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp(EPOCH + ms)
}

pub(super) fn stock(epoch: u64, left: i64, need: u64, want: u64) -> Report {
    let quiet = Duration::ZERO;
    Report {
        stocks: vec![Stock {
            dimension: REQUESTS,
            epoch,
            left,
            quiet,
            refund: 0,
            refund_age: Duration::ZERO,
            need,
            want,
            waiting: want,
        }],
        ..Report::default()
    }
}

/// A process that only asks and reports, with what it holds.
#[derive(Clone, Debug)]
struct Process {
    id: i64,
    limits: Limits,
    epoch: u64,
    held: i64,
    spent_at: i64,
    refund: u64,
    refunded_at: i64,
    /// Its slice is void from this time on, by its own clock.
    lease_until: i64,
    shut_until: i64,
}

impl Process {
    fn new(id: i64, limits: &Limits) -> Self {
        Self {
            id,
            limits: limits.clone(),
            epoch: 0,
            held: 0,
            spent_at: 0,
            refund: 0,
            refunded_at: 0,
            lease_until: 0,
            shut_until: 0,
        }
    }

    fn exchange(&mut self, bucket: &mut SharedBucket, need: u64, want: u64, now: i64) -> Allotment {
        if now >= self.lease_until {
            self.held = self.held.min(0);
        }
        let mut report = stock(self.epoch, self.held, need, want);
        report.stocks[0].quiet = self.quiet(now);
        let allotment = bucket.exchange(self.id, &self.limits, &report, at(now));
        self.take(&allotment, now);
        allotment
    }

    fn take(&mut self, allotment: &Allotment, asked: i64) {
        let slice = allotment.slices[0];
        self.epoch = slice.epoch;
        self.held = i64::try_from(slice.held).unwrap();
        self.lease_until = asked + i64::try_from(LEASE.as_millis()).unwrap();
        self.shut_until = allotment.wait.map_or(0, |wait| wait.shut.until.0 - EPOCH);
    }

    fn quiet(&self, now: i64) -> Duration {
        Duration::from_millis(u64::try_from(now - self.spent_at).unwrap())
    }

    /// Spends as many of `calls` as it may.
    fn spend(&mut self, calls: i64, now: i64) -> i64 {
        if now >= self.lease_until || now < self.shut_until {
            return 0;
        }
        let spent = calls.min(self.held).max(0);
        self.held -= spent;
        if spent > 0 {
            self.spent_at = now;
        }
        spent
    }
}

#[test]
fn one_process_that_wants_everything_gets_everything_at_once_and_then_the_rate() {
    let (mut bucket, mut one) = (SharedBucket::default(), Process::new(1, &limits(1_200, 1_200)));
    one.exchange(&mut bucket, 1, 10_000, 0);
    // 20 a second; a fortieth of a second is held back.
    assert_eq!(one.held, 1_199);
    let mut spent = one.spend(10_000, 0);
    for step in 1..=40 {
        one.exchange(&mut bucket, 1, 10_000, step * 250);
        spent += one.spend(10_000, step * 250);
    }
    assert_eq!(spent, 1_199 + 200);
}

#[test]
fn an_idle_process_holds_nothing_and_a_busy_one_gets_it_all() {
    let limits = limits(600, 600);
    let mut bucket = SharedBucket::default();
    let (mut one, mut two) = (Process::new(1, &limits), Process::new(2, &limits));
    one.exchange(&mut bucket, 1, 400, 0);
    assert_eq!(one.held, 400);
    // The process has no more work: its holding goes back and to the other.
    one.exchange(&mut bucket, 0, 0, 100);
    assert_eq!(one.held, 0);
    assert_eq!(bucket.shares.len(), 0);
    two.exchange(&mut bucket, 1, 1_000, 200);
    assert_eq!(two.held, 599);
}

#[test]
fn what_a_dead_process_holds_is_lost_and_nothing_else() {
    let limits = limits(600, 600);
    let mut bucket = SharedBucket::default();
    let (mut one, mut two) = (Process::new(1, &limits), Process::new(2, &limits));
    one.exchange(&mut bucket, 1, 500, 0);
    two.exchange(&mut bucket, 1, 10_000, 10);
    assert_eq!(two.spend(10_000, 10), 99);
    // The first is dead. The second has the whole rate, ten a second, from the first moment on, …
    two.exchange(&mut bucket, 1, 10_000, 1_010);
    assert_eq!(two.spend(10_000, 1_010), 10);
    // … and after the lease and a rest the whole burst.
    two.exchange(&mut bucket, 0, 0, 1_100);
    two.exchange(&mut bucket, 1, 10_000, 3_100);
    two.exchange(&mut bucket, 0, 0, 3_200);
    two.exchange(&mut bucket, 1, 10_000, 70_000);
    assert_eq!(two.held, 599);
}

#[test]
fn what_was_spent_without_leave_is_paid_before_anything_is_lent() {
    let (mut bucket, mut one) = (SharedBucket::default(), Process::new(1, &limits(600, 100)));
    one.exchange(&mut bucket, 1, 1_000, 0);
    one.spend(1_000, 0);
    one.held -= 50;
    one.exchange(&mut bucket, 1, 10, 0);
    assert_eq!(one.held, 0);
    one.exchange(&mut bucket, 1, 10, 4_900);
    assert_eq!(one.held, 0);
    one.exchange(&mut bucket, 1, 10, 5_100);
    assert_eq!(one.held, 1);
}

#[test]
fn a_wait_holds_for_all_and_makes_void_what_is_lent() {
    let limits = limits(600, 600);
    let mut bucket = SharedBucket::default();
    let (mut one, mut two) = (Process::new(1, &limits), Process::new(2, &limits));
    one.exchange(&mut bucket, 1, 100, 0);
    two.exchange(&mut bucket, 1, 100, 0);
    let mut report = stock(one.epoch, 100, 1, 100);
    report.wait = Some(Wait {
        reason: Reason::RateLimit,
        remaining: Duration::from_hours(10),
        recheck: RECHECK,
        drained: vec![(REQUESTS, 1)],
        too_steep: false,
    });
    let told = bucket.exchange(1, &limits, &report, at(1_000));
    let until = at(1_000 + 36_000_000);
    assert_eq!(
        told.wait,
        Some(SharedWait { shut: Shut { reason: Reason::RateLimit, since: at(1_000), until }, asked: None })
    );
    // A shorter wait shortens nothing.
    report.wait.as_mut().unwrap().remaining = Duration::from_secs(1);
    let told = bucket.exchange(1, &limits, &report, at(1_100));
    assert_eq!(told.wait.map(|wait| wait.shut.until), Some(until));
    one.take(&told, 1_100);
    let told = two.exchange(&mut bucket, 1, 100, 1_200);
    assert_eq!((two.held, told.wait.map(|wait| wait.shut.until)), (0, Some(until)));
    // Both have heard, and their holdings go back.
    one.exchange(&mut bucket, 0, 0, 1_300);
    two.exchange(&mut bucket, 0, 0, 1_300);
    // When the wait ends there is one unit, and then ten a second: no stampede.
    let open = 36_001_000;
    two.exchange(&mut bucket, 1, 100, open);
    assert_eq!(two.spend(100, open), 1);
    two.exchange(&mut bucket, 1, 100, open + 1_000);
    assert_eq!(two.spend(100, open + 1_000), 10);
}

#[test]
fn after_a_complaint_of_acceleration_the_rate_is_half_and_recovers() {
    let limits = limits(6_000, 1_000);
    let (mut bucket, mut one) = (SharedBucket::default(), Process::new(1, &limits));
    one.exchange(&mut bucket, 1, 10, 0);
    one.spend(10, 0);
    let mut report = stock(one.epoch, 0, 1, 10_000);
    let drained = vec![(REQUESTS, 0)];
    report.wait = Some(Wait {
        reason: Reason::RateLimit,
        remaining: Duration::from_secs(1),
        recheck: RECHECK,
        drained,
        too_steep: true,
    });
    let told = bucket.exchange(1, &limits, &report, at(0));
    one.take(&told, 0);
    let mut in_a_second = |from: i64| {
        one.exchange(&mut bucket, 1, 10_000, from);
        one.spend(10_000, from);
        let mut spent = 0;
        for step in 1..=10 {
            one.exchange(&mut bucket, 1, 10_000, from + step * 100);
            spent += one.spend(10_000, from + step * 100);
        }
        spent
    };
    let (first, middle, whole) = (in_a_second(1_000), in_a_second(31_000), in_a_second(62_000));
    assert!((49..=52).contains(&first), "{first}");
    assert!((74..=77).contains(&middle), "{middle}");
    assert_eq!(whole, 100);
}

#[test]
fn two_large_calls_do_not_wait_for_each_other_and_small_ones_do_not_overtake_for_ever() {
    let limits = limits(6_000, 1_000);
    let mut bucket = SharedBucket::default();
    let (mut one, mut two, mut three) = (Process::new(1, &limits), Process::new(2, &limits), Process::new(3, &limits));
    let large = 900;
    let (mut first, mut second, mut small) = (0, 0, 0);
    for step in 0..600 {
        let now = step * 100;
        for (process, done) in [(&mut one, &mut first), (&mut two, &mut second)] {
            process.exchange(&mut bucket, large, large, now);
            if process.held >= 900 {
                *done += process.spend(900, now) / 900;
            }
        }
        three.exchange(&mut bucket, 1, 50, now);
        small += three.spend(50, now);
    }
    // 7,000 in a minute: about a third for each, and no process gets nothing.
    assert!(first >= 2 && second >= 2, "{first} and {second}");
    assert!(small >= 500, "{small}");
    let in_hand = one.held + two.held + three.held;
    let all = 900 * (first + second) + small + in_hand;
    assert!(all >= 6_900, "{first}, {second}, {small} and {in_hand}: capacity is lost");
}

#[test]
fn a_wait_is_for_what_comes_first_and_not_for_an_equal_part_of_all_that_comes_back() {
    let limits = limits(60, 20);
    let (mut bucket, mut first) = (SharedBucket::default(), Process::new(1, &limits));
    first.exchange(&mut bucket, 1, 20, 0);
    assert_eq!(first.spend(20, 0), 20);
    first.exchange(&mut bucket, 0, 0, 10);
    let waits = (2..=4).map(|id| {
        let told = Process::new(id, &limits).exchange(&mut bucket, 1, 1, 20);
        let slice = told.slices[0];
        (slice.ahead, slice.wait(1, slice.level, told.sharers).as_secs())
    });
    // One unit a second, and each of them waits for one.
    assert_eq!(waits.collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 3)]);
}

#[test]
fn what_comes_back_to_a_small_limit_is_put_off_once_however_often_processes_spend() {
    let limits = limits(600, 40);
    let mut bucket = SharedBucket::default();
    let mut processes = [Process::new(1, &limits), Process::new(2, &limits), Process::new(3, &limits)];
    let mut spent = 0;
    // Fifteen calls a second where ten may be made.
    for step in 0..200_i64 {
        let now = step * 20;
        for (process, turn) in processes.iter_mut().zip(0..) {
            process.exchange(&mut bucket, 1, 13, now);
            if step % 10 == turn * 3 {
                spent += process.spend(1, now);
            }
        }
    }
    let left: i64 = bucket.meters[0].level + processes.iter().map(|process| process.held).sum::<i64>();
    // Forty, and ten a second for four seconds, less a tenth of a second at most.
    assert!((78..=80).contains(&(spent + left)), "{spent} spent, {left} left");
}

#[test]
fn the_wait_of_one_that_comes_first_is_also_for_what_the_others_get_in_turn() {
    let limits = limits(60, 20);
    let (mut bucket, mut one, mut two) = (SharedBucket::default(), Process::new(1, &limits), Process::new(2, &limits));
    one.exchange(&mut bucket, 1, 20, 0);
    one.spend(20, 0);
    one.exchange(&mut bucket, 1, 5, 10);
    two.exchange(&mut bucket, 1, 5, 20);
    let slice = two.exchange(&mut bucket, 1, 5, 30).slices[0];
    // Its first unit comes next. Between this and its fifth the other process gets four.
    assert_eq!((slice.ahead, slice.between), (0, 4));
    assert_eq!([1, 5].map(|missing| slice.wait(missing, slice.level, 2).as_secs()), [1, 9]);
}

#[test]
fn requests_alone_are_taken_for_counted_before_a_limit_was_told_and_only_soon_after() {
    let slice = |unit, ago| {
        let limits = limits(600, 20);
        let slice = SharedBucket::default().exchange(1, &limits, &stock(0, 0, 0, 0), at(0)).slices[0];
        let dimension = Dimension { unit, ..slice.dimension };
        Slice { dimension, told: Some((10, Duration::from_millis(ago))), ..slice }
    };
    let cases = [
        // Ten a second come back.
        (Unit::Requests, 0, 11, true),
        (Unit::Requests, 0, 10, false),
        (Unit::Requests, 100, 11, false),
        (Unit::Requests, 100, 12, true),
        (Unit::Requests, 2_100, 1_000, false),
        (Unit::Tokens, 0, 1_000, false),
    ];
    for (unit, ago, remaining, expected) in cases {
        assert_eq!(slice(unit, ago).had_counted(remaining, Duration::ZERO), expected, "{unit:?} {ago} {remaining}");
    }
    assert!(!slice(Unit::Requests, 0).had_counted(11, Duration::from_millis(100)));
}

#[test]
fn what_a_process_would_only_like_to_have_is_not_withheld_from_calls_that_wait() {
    let limits = limits(600, 20);
    for (waiting, there) in [(0, 3), (3, 0)] {
        let (mut bucket, mut first) = (SharedBucket::default(), Process::new(1, &limits));
        first.exchange(&mut bucket, 1, 20, 0);
        assert_eq!(first.spend(20, 0), 20);
        first.exchange(&mut bucket, 1, 3, 10);
        let mut report = stock(0, 0, waiting.min(1), 3);
        report.stocks[0].waiting = waiting;
        assert_eq!(bucket.exchange(2, &limits, &report, at(20)).slices[0].held, 0);
        first.exchange(&mut bucket, 1, 3, 380);
        assert_eq!(first.held, there, "while {waiting} units are waited for by a process that had less");
    }
}

proptest::proptest! {
    #[test]
    fn no_wait_is_shorter_than_the_rate_allows_or_longer_than_an_equal_part_of_it(
        missing in 0_i64..1_000, left in -1_000_i64..1_000, sharers in 0_u32..20, ahead in 0_u64..1_000,
    ) {
        let mut bucket = SharedBucket::default();
        let slice = Slice { ahead, ..bucket.exchange(1, &limits(60, 20), &stock(0, 0, 0, 0), at(0)).slices[0] };
        let (wait, behind) = (slice.wait(missing, left, sharers), u32::try_from((missing - left).max(0)).unwrap());
        let second = Duration::from_secs(1);
        proptest::prop_assert!(wait >= second * behind && wait <= second * behind * sharers.max(1));
        proptest::prop_assert!(wait <= slice.wait_in_turn(missing, left));
    }
}

#[test]
fn a_days_allowance_is_whole_again_at_midnight_and_not_before() {
    let day = 86_400_000;
    let midnight = EPOCH.div_euclid(day) * day + day - EPOCH;
    let rate = Rate { unit: Unit::Requests, amount: 1_000, per: Duration::from_hours(24), burst: 1_000 };
    let limits = Limits { rates: vec![rate], concurrency: None };
    let dimension = rate.dimension();
    let report = |left, want| Report {
        stocks: vec![Stock {
            dimension,
            epoch: 0,
            left,
            quiet: Duration::ZERO,
            refund: 0,
            refund_age: Duration::ZERO,
            need: 1,
            want,
            waiting: want,
        }],
        ..Report::default()
    };
    let mut bucket = SharedBucket::default();
    let mut held = |left, want, now| bucket.exchange(1, &limits, &report(left, want), at(now)).slices[0].held;
    assert_eq!(held(0, 1_000, 0), 1_000);
    assert_eq!(held(0, 1_000, 1_000), 0);
    assert_eq!(held(0, 1_000, midnight - 1), 0);
    assert_eq!(held(0, 2_000, midnight), 1_000);
}

#[test]
fn a_limit_is_learned_where_none_is_configured_and_a_configured_one_is_the_ceiling() {
    let heard = |limit, remaining, corrected| Report {
        heard: vec![Heard { dimension: REQUESTS, limit: Some(limit), remaining: Some(remaining), corrected }],
        ..stock(0, 0, 1, 10_000)
    };
    let mut bucket = SharedBucket::default();
    let none = Limits::default();
    let told = bucket.exchange(1, &none, &stock(0, 0, 1, 10), at(0));
    assert_eq!(told.slices, []);
    let told = bucket.exchange(1, &none, &heard(600, 500, 0), at(0));
    assert_eq!((told.slices[0].held, told.slices[0].interval), (500, 100_000_000));
    // The provider halves the limit: used units stay used.
    let told = bucket.exchange(1, &none, &heard(300, 0, 0), at(0));
    assert_eq!(told.slices[0].interval, 200_000_000);
    // A lower configured limit counts, regardless of what the headers say.
    let told = bucket.exchange(2, &limits(60, 60), &heard(300, 0, 0), at(0));
    assert_eq!((told.slices[0].interval, told.slices[0].capacity), (1_000_000_000, 59));
    // A higher configured limit does not: the provider knows better.
    let told = bucket.exchange(3, &limits(6_000, 6_000), &heard(300, 0, 0), at(0));
    assert_eq!(told.slices[0].interval, 200_000_000);
    // A process with an older configuration changes nothing …
    let told = bucket.exchange(2, &limits(60, 60), &stock(0, 0, 1, 10), at(0));
    assert_eq!(told.slices[0].interval, 200_000_000);
    // … before the younger has been away for a while.
    let told = bucket.exchange(2, &limits(60, 60), &stock(0, 0, 1, 10), at(60_000));
    assert_eq!(told.slices[0].interval, 1_000_000_000);
    // … or has left: a `run` that has ended speaks for nothing.
    let later = bucket.exchange(9, &limits(6_000, 6_000), &stock(0, 0, 1, 10), at(61_000));
    assert_eq!(later.slices[0].interval, 200_000_000);
    let before = bucket.clone();
    bucket.exchange(9, &limits(6_000, 6_000), &Report { leaves: true, ..stock(0, 0, 0, 0) }, at(62_000));
    assert!(!bucket.is_same_as(&before), "that is written");
    let told = bucket.exchange(2, &limits(60, 60), &stock(0, 0, 1, 10), at(63_000));
    assert_eq!(told.slices[0].interval, 1_000_000_000);
}

#[test]
fn less_than_we_believed_is_taken_off() {
    let (mut bucket, mut one) = (SharedBucket::default(), Process::new(1, &limits(600, 600)));
    one.exchange(&mut bucket, 1, 1, 0);
    one.spend(1, 0);
    let mut report = stock(0, 0, 1, 1_000);
    report.heard = vec![Heard { dimension: REQUESTS, limit: Some(600), remaining: Some(100), corrected: 498 }];
    assert_eq!(bucket.exchange(1, &limits(600, 600), &report, at(0)).slices[0].held, 100);
    // Another process finds the same shortage, and that is not another correction.
    report.stocks[0].left = 100;
    let told = bucket.exchange(1, &limits(600, 600), &report, at(0)).slices[0];
    assert_eq!((told.held, told.level, told.corrected), (100, 0, 498));
    report.heard[0].corrected = 500;
    assert_eq!(bucket.exchange(1, &limits(600, 600), &report, at(0)).slices[0].level, -2);
}

#[test]
fn a_new_limit_keeps_what_was_used() {
    let mut bucket = SharedBucket::default();
    let mut one = Process::new(1, &limits(600, 600));
    one.exchange(&mut bucket, 1, 400, 0);
    one.spend(400, 0);
    one.limits = limits(1_200, 1_200);
    one.exchange(&mut bucket, 1, 10_000, 0);
    // 400 are used of 1,199 now.
    assert_eq!(one.held, 799);
}

#[test]
fn places_for_calls_are_shared_by_need() {
    let limits = Limits { rates: Vec::new(), concurrency: Some(10) };
    let mut bucket = SharedBucket::default();
    let mut ask = |id, running, slots_wanted, now| {
        let report = Report { running, slots_wanted, ..Report::default() };
        bucket.exchange(id, &limits, &report, at(now)).slots.unwrap()
    };
    assert_eq!(ask(1, 0, 100, 0), 10);
    assert_eq!(ask(2, 0, 100, 1), 0);
    // The first gives up places as its calls end, down to its half.
    assert_eq!(ask(1, 7, 100, 2), 5);
    assert_eq!(ask(2, 0, 100, 3), 3);
    assert_eq!(ask(1, 5, 100, 4), 5);
    assert_eq!(ask(2, 3, 100, 5), 5);
    // The first is done: the second gets all.
    assert_eq!(ask(1, 0, 0, 6), 0);
    assert_eq!(ask(2, 5, 100, 7), 10);
    // The second dies: its places are free after the lease.
    assert_eq!(ask(3, 0, 4, 8), 0);
    assert_eq!(ask(3, 0, 4, 3_008), 4);
}

#[test]
fn the_state_survives_being_written_down() {
    let mut bucket = SharedBucket::default();
    let mut one = Process::new(1, &limits(600, 600));
    one.exchange(&mut bucket, 1, 400, 0);
    let text = serde_json::to_string(&bucket).unwrap();
    assert_eq!(serde_json::from_str::<SharedBucket>(&text).unwrap(), bucket);
}

#[test]
fn waits_far_ahead_that_an_earlier_version_wrote_are_capped_when_they_are_read() {
    let limits = limits(600, 600);
    let years = at(883_000_000_000);
    let mut bucket = SharedBucket::default();
    bucket.exchange(1, &limits, &stock(0, 0, 1, 1), at(0));
    bucket.wait =
        Some(SharedWait { shut: Shut { reason: Reason::RateLimit, since: at(0), until: years }, asked: None });
    bucket.slope = Some(Slope { since: years });
    for meter in &mut bucket.meters {
        meter.drain(years, 0, 0);
    }
    // The form in the database.
    let written = serde_json::to_value(&bucket).unwrap();
    assert!(written["gate"].get("asked").is_none());
    let mut bucket: SharedBucket = serde_json::from_value(written).unwrap();
    let told = bucket.exchange(1, &limits, &Report { may_begin: true, ..stock(0, 0, 1, 1) }, at(1_000));
    let wait = told.wait.unwrap();
    assert_eq!((wait.shut.until, wait.asked.map(|asked| asked.until)), (at(1_000) + RECHECK, Some(years)));
    assert!(!told.probe && bucket.slope.is_none());
    let later = at(1_001) + RECHECK;
    let report = Report { may_begin: true, ..stock(told.slices[0].epoch, 0, 1, 1) };
    let told = bucket.exchange(1, &limits, &report, later);
    assert!(told.probe, "one call asks again: {told:?}");
    assert!(!bucket.exchange(2, &limits, &report, later).probe, "and only one");
    let told = bucket.exchange(1, &limits, &Report { reopens: true, ..report }, later + Duration::from_secs(1));
    assert_eq!((told.wait, told.reopened), (None, Some(later + Duration::from_secs(1))));
    assert!(told.slices[0].held > 0, "what comes back comes back: {told:?}");
}
