//! Arbitrary events among four processes, beside a provider that counts for itself.

use super::*;
use proptest::prelude::*;

/// An event among the processes.
#[derive(Clone, Debug)]
enum Event {
    Pass {
        ms: i64,
    },
    Exchange {
        who: usize,
        want: u64,
    },
    /// The state is written, but the process never hears of it.
    Unheard {
        who: usize,
        want: u64,
    },
    /// The process reads, is held up, and writes only if no other process has written meanwhile.
    Late {
        who: usize,
        want: u64,
        ms: i64,
    },
    Spend {
        who: usize,
        calls: i64,
    },
    /// An estimate was too high: units come back.
    Refund {
        who: usize,
        units: i64,
    },
    Die {
        who: usize,
    },
    /// The database's clock goes back, for good by this much.
    ClockBack {
        ms: i64,
    },
    Refused {
        who: usize,
        wait: u64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let who = 0_usize..4;
    prop::collection::vec(
        prop_oneof![
            6 => (0_i64..700).prop_map(|ms| Event::Pass { ms }),
            1 => (2_000_i64..9_000).prop_map(|ms| Event::Pass { ms }),
            8 => (who.clone(), 0_u64..400).prop_map(|(who, want)| Event::Exchange { who, want }),
            1 => (who.clone(), 0_u64..400).prop_map(|(who, want)| Event::Unheard { who, want }),
            2 => (who.clone(), 0_u64..400, 0_i64..5_000).prop_map(|(who, want, ms)| Event::Late { who, want, ms }),
            8 => (who.clone(), 0_i64..400).prop_map(|(who, calls)| Event::Spend { who, calls }),
            1 => (who.clone(), 0_i64..50).prop_map(|(who, units)| Event::Refund { who, units }),
            1 => who.clone().prop_map(|who| Event::Die { who }),
            1 => (0_i64..2_000).prop_map(|ms| Event::ClockBack { ms }),
            1 => (who, 0_u64..3_000).prop_map(|(who, wait)| Event::Refused { who, wait }),
        ],
        1..150,
    )
}

/// Four processes, the bucket between them, and the provider's own count.
struct World {
    bucket: SharedBucket,
    processes: Vec<Process>,
    limits: Limits,
    now: i64,
    back: i64,
    youngest: i64,
    /// The level by the provider's own count.
    level: f64,
    burst: f64,
    per_ms: f64,
    /// Units spent since the start and not refunded.
    spent: i64,
}

impl World {
    fn new(per_minute: u64, burst: u64) -> Self {
        let limits = limits(per_minute, burst);
        Self {
            bucket: SharedBucket::default(),
            processes: (1..=4).map(|id| Process::new(id, &limits)).collect(),
            limits,
            now: 0,
            back: 0,
            youngest: 4,
            level: burst as f64,
            burst: burst as f64,
            per_ms: per_minute as f64 / 60_000.0,
            spent: 0,
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.level = self.burst.min(self.level + self.per_ms * ms as f64);
    }

    fn database_now(&self) -> Timestamp {
        at(self.now - self.back)
    }

    fn report(&mut self, who: usize, want: u64) -> (i64, Report) {
        let now = self.now;
        let process = &mut self.processes[who];
        if now >= process.lease_until {
            process.held = process.held.min(0);
        }
        let left = process.held;
        // Unwanted units are no longer spent, whether the report arrives or not.
        process.held = left.min(i64::try_from(want).unwrap());
        let mut report = stock(process.epoch, left, want.min(1), want);
        report.stocks[0].quiet = process.quiet(now);
        report.stocks[0].refund = std::mem::take(&mut process.refund);
        report.stocks[0].refund_age = Duration::from_millis(u64::try_from(now - process.refunded_at).unwrap());
        (process.id, report)
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Pass { ms } => self.pass(ms),
            Event::Exchange { who, want } => {
                let (id, report) = self.report(who, want);
                let told = self.bucket.exchange(id, &self.limits, &report, self.database_now());
                self.processes[who].take_from(&told, self.now, self.back);
            }
            Event::Unheard { who, want } => {
                let (id, report) = self.report(who, want);
                self.bucket.exchange(id, &self.limits, &report, self.database_now());
            }
            Event::Late { who, want, ms } => {
                // Read now, written later: this stands for a write that finds the state unchanged, and the slice counts
                // from when it was asked for.
                let (id, report) = self.report(who, want);
                let (asked, database_now) = (self.now, self.database_now());
                self.pass(ms);
                let told = self.bucket.exchange(id, &self.limits, &report, database_now);
                self.processes[who].take_from(&told, asked, self.back);
            }
            Event::Spend { who, calls } => {
                let spent = self.processes[who].spend(calls, self.now);
                self.level -= spent as f64;
                self.spent += spent;
                assert!(self.level > -1e-6, "{spent} too many at {}: {}", self.now, self.level);
            }
            Event::Refund { who, units } => {
                // Only spent units can come back.
                let units = units.min(self.spent).max(0);
                self.spent -= units;
                self.level = self.burst.min(self.level + units as f64);
                if self.processes[who].refund == 0 {
                    self.processes[who].refunded_at = self.now;
                }
                self.processes[who].refund += u64::try_from(units).unwrap();
            }
            Event::Die { who } => {
                self.youngest += 1;
                self.processes[who] = Process::new(self.youngest, &self.limits);
            }
            Event::ClockBack { ms } => self.back += ms,
            Event::Refused { who, wait } => {
                let (id, mut report) = self.report(who, 10);
                report.wait = Some(Wait {
                    reason: Reason::RateLimit,
                    remaining: Duration::from_millis(wait),
                    recheck: RECHECK,
                    drained: vec![(REQUESTS, 1)],
                    too_steep: false,
                });
                let told = self.bucket.exchange(id, &self.limits, &report, self.database_now());
                self.processes[who].take_from(&told, self.now, self.back);
            }
        }
    }
}

impl Process {
    /// Like [`Process::take`], with a database whose clock went back by `back`.
    fn take_from(&mut self, allotment: &Allotment, asked: i64, back: i64) {
        self.take(allotment, asked);
        if self.shut_until > 0 {
            self.shut_until += back;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// In any course of events among them, the provider never has to refuse a call; and when it is over and the dead
    /// are forgotten, nothing of the limit is lost.
    #[test]
    fn no_call_too_many_and_nothing_lost(
        per_minute in 60_u64..6_000,
        burst in 1_u64..1_500,
        events in events(),
    ) {
        let mut world = World::new(per_minute, burst);
        for event in &events {
            world.apply(event);
        }
        // All processes die; the database's clock catches up with its highest time; everything comes back.
        world.youngest += 1;
        let mut heir = Process::new(world.youngest, &world.limits);
        // Twice, because a refusal may have left a debt as large as the loan.
        let full_in = 2 * i64::try_from(burst * 60_000 / per_minute + 1).unwrap();
        let rest = 20_000 + full_in;
        heir.exchange(&mut world.bucket, 0, 0, world.now + 20_000);
        let told = heir.exchange(&mut world.bucket, 1, u64::MAX / 4, world.now + rest + 20_000);
        prop_assert_eq!(told.wait, None);
        prop_assert_eq!(u64::try_from(heir.held).unwrap(), told.slices[0].capacity);
        // Little is held back for jitter, and nothing of small bursts.
        prop_assert!(told.slices[0].capacity >= burst - burst / 50);
    }

    /// Under constant demand from all the whole rate is used, however small the burst; and when one of them stalls, it
    /// is used again when its lease is over.
    #[test]
    fn under_demand_the_rate_is_used_to_the_last_drop(
        per_minute in 120_u64..12_000,
        burst in 10_u64..1_000,
        stalled in 0_usize..4,
    ) {
        // A burst that comes back faster than any process can ask for it cannot be used whole.
        let burst = burst + per_minute / 150;
        let mut world = World::new(per_minute, burst);
        let mut spent = [0; 20];
        for (second, spent) in spent.iter_mut().enumerate() {
            let before = world.spent;
            for step in 0..10 {
                world.pass(100);
                for who in (0..4).map(|who| (who + second + step) % 4).filter(|who| second < 10 || *who != stalled) {
                    world.apply(&Event::Exchange { who, want: 1_000 });
                    world.apply(&Event::Spend { who, calls: 1_000 });
                }
            }
            *spent = world.spent - before;
        }
        // Less the part that is held back, the last tenth of a second, and units that are not whole.
        let slack = burst as f64 / 50.0 + world.per_ms * 100.0 + 2.0;
        let (first, after): (i64, i64) = (spent.iter().take(10).sum(), spent.iter().skip(13).sum());
        let ideal = burst as f64 + world.per_ms * 10_000.0;
        prop_assert!(first as f64 >= 0.98 * ideal - slack, "{} of {}", first, ideal);
        let ideal = world.per_ms * 7_000.0;
        prop_assert!(after as f64 >= 0.98 * ideal - slack, "{} of {} after the stall", after, ideal);
    }

    /// However places are asked for, no more calls run than may, as long as no process stalls beyond its lease.
    #[test]
    fn never_more_calls_than_places(
        limit in 1_u32..20,
        asks in prop::collection::vec((0_usize..3, 0_u32..20, 0_u32..20), 1..100),
    ) {
        let limits = Limits { rates: Vec::new(), concurrency: Some(limit) };
        let mut bucket = SharedBucket::default();
        let mut running = [0_u32; 3];
        for (who, ends, wants) in asks {
            running[who] = running[who].saturating_sub(ends);
            let report = Report { running: running[who], slots_wanted: wants.max(running[who]), ..Report::default() };
            let id = i64::try_from(who).unwrap();
            let slots = bucket.exchange(id, &limits, &report, at(0)).slots.unwrap();
            running[who] = running[who].max(slots.min(wants));
            prop_assert!(running.iter().sum::<u32>() <= limit, "{:?} of {}", running, limit);
        }
        // One process gets the places that no other uses.
        for id in 0..3 {
            bucket.exchange(id, &limits, &Report::default(), at(0));
        }
        let report = Report { slots_wanted: 100, ..Report::default() };
        prop_assert_eq!(bucket.exchange(9, &limits, &report, at(0)).slots, Some(limit));
    }
}
