//! What goes wrong when: a function of the seed, the length and the number of workers, and of nothing else.

use super::servers::Refusal;
use crate::support::proxy::{Moment, Weather};
use sluice::simulate::chance::{mix, unit};
use std::fmt;
use std::time::Duration;

/// A kind of fault that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker is killed; it comes back on its machine, or another takes its place elsewhere.
    Kill,
    /// A worker is asked to stop, and comes back.
    Term,
    /// A worker hangs, beyond its lease or within it, and goes on.
    Stop,
    /// Connections are ended by the server.
    Terminate,
    /// Postgres is stopped without a good-bye, and started again.
    Crash,
    /// A machine's network to Postgres is in trouble.
    Net,
    /// All machines are cut off from Postgres, for longer than a lease.
    Outage,
    /// A connection is cut exactly at a commit.
    Commit,
    /// A machine is cut off while its spool has no room.
    FullSpool,
    /// A worker reads its configuration again.
    Reload,
    /// The database takes no writes for some seconds.
    ReadOnly,
    /// It refuses the workers' login for some seconds.
    Refused,
    /// The address leads to the standby for some seconds.
    Lagging,
    /// The primary dies for good, and the standby takes over.
    Promotion,
    /// The database goes back to a backup. In asynchronous runs only: commits lost then are lost.
    Restore,
}

impl Kind {
    /// Every kind with its name.
    pub const ALL: [(&str, Self); 15] = [
        ("kill", Self::Kill),
        ("term", Self::Term),
        ("stop", Self::Stop),
        ("terminate", Self::Terminate),
        ("crash", Self::Crash),
        ("net", Self::Net),
        ("outage", Self::Outage),
        ("commit", Self::Commit),
        ("full_spool", Self::FullSpool),
        ("reload", Self::Reload),
        ("read_only", Self::ReadOnly),
        ("refused", Self::Refused),
        ("lagging", Self::Lagging),
        ("promotion", Self::Promotion),
        ("restore", Self::Restore),
    ];

    /// Whether it needs another server, which takes its time to be made: there are a few in a run.
    fn is_rare(self) -> bool {
        matches!(self, Self::Promotion | Self::Restore)
    }
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill { slot: usize },
    /// SIGTERM.
    Term { slot: usize },
    /// SIGSTOP.
    Stop { slot: usize },
    /// SIGHUP.
    Reload { slot: usize },
    /// SIGCONT.
    Continue { slot: usize },
    /// The process of this slot is started as soon as the one before it has ended.
    Start { slot: usize, machine: usize, spool: Room },
    /// The lease of the worker in this slot has run out.
    Expire { slot: usize },
    /// So many backends are terminated, drawn by this number.
    Terminate { backends: i64, draw: i64 },
    /// Postgres is stopped immediately.
    Crash,
    /// And comes back.
    Recover,
    /// From now on, between a machine and Postgres.
    Net { machine: usize, weather: Weather },
    /// All connections of a machine are reset.
    Cut { machine: usize },
    /// One connection of a machine is, at this moment.
    CutAt { machine: usize, moment: Moment },
    /// The database is made read-only.
    ReadOnly,
    /// The workers' login is refused.
    Refuse { how: Refusal },
    /// Nothing is refused any more.
    Lift,
    /// A machine's connections to Postgres lead to the standby.
    Mislead { machine: usize },
    /// And to the primary again; those that there are stay.
    LeadBack { machine: usize },
    /// Nothing arrives at the standby any more.
    CutOff,
    /// The primary dies, the standby takes over.
    Promote,
    /// A backup is begun.
    BackUp,
    /// And restored.
    Restore,
}

/// How much the spool of a worker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// As much as by default.
    Plenty,
    /// Nothing: the configuration says so.
    Off,
    /// Next to nothing: the disk is full.
    Disk,
}

/// An act and its time from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub act: Act,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} s  {:?}", self.at.as_secs_f64(), self.act)
    }
}

/// An outage of a provider, as the scenario has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trouble {
    pub provider: usize,
    pub from: f64,
    pub until: f64,
    /// Index of what it is: the scenario knows.
    pub what: usize,
}

/// Draws numbers, always the same for one seed.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    /// Another sequence for each purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self { seed: mix(seed, purpose), drawn: 0 }
    }

    pub fn number(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count.max(1) as u64).unwrap()
    }

    /// True so often, of 1.
    pub fn chance(&mut self, share: f64) -> bool {
        unit(self.number()) < share
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * unit(self.number())
    }

    pub fn seconds(&mut self, low: f64, high: f64) -> Duration {
        Duration::from_secs_f64(self.between(low, high))
    }
}

/// How large the run is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub seconds: u64,
    pub workers: usize,
    pub machines: usize,
}

/// The plan of a run, in the order of time.
pub fn schedule(seed: u64, size: Size, kinds: &[Kind]) -> Vec<Event> {
    let mut dice = Dice::new(seed, 1);
    let mut events = Vec::new();
    let end = Duration::from_secs(size.seconds);
    // Something is to be under way before the first fault.
    let mut at = Duration::from_secs(3);
    // Each kind has its turn before any has a second one, in an order that is drawn: a short run meets them all.
    let mut turns: Vec<Kind> = Vec::new();
    let frequent: Vec<Kind> = kinds.iter().copied().filter(|kind| !kind.is_rare()).collect();
    while at < end && !frequent.is_empty() {
        if turns.is_empty() {
            turns.clone_from(&frequent);
            for index in (1..turns.len()).rev() {
                turns.swap(index, dice.below(index + 1));
            }
            // Fast kinds come more often.
            let often = [Kind::Kill, Kind::Commit, Kind::Terminate, Kind::Kill];
            for kind in often.into_iter().filter(|kind| kinds.contains(kind)) {
                let place = dice.below(turns.len() + 1);
                turns.insert(place, kind);
            }
        }
        if let Some(kind) = turns.pop() {
            one(&mut dice, kind, at, size, &mut events);
        }
        at += dice.seconds(0.2, 2.0);
    }
    for (kind, shares) in [(Kind::Promotion, [0.25, 0.55, 0.9]), (Kind::Restore, [0.4, 0.75, 1.0])] {
        if kinds.contains(&kind) {
            // One that comes too soon after another finds no standby yet. A short run has them when it is about them.
            let count = if size.seconds >= LONG { 3 } else { usize::from(size.seconds >= 60 || kinds.len() <= 4) };
            for share in shares.into_iter().take(count) {
                one(&mut dice, kind, end.mul_f64(share * 0.95), size, &mut events);
            }
        }
    }
    if size.seconds >= LONG {
        for (kind, share) in [(Kind::Outage, 0.3), (Kind::Stop, 0.65)] {
            if kinds.contains(&kind) {
                lapse(&mut dice, kind, end.mul_f64(share), size, &mut events);
            }
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

/// In runs of so many seconds leases really run out once, instead of being said to have.
const LONG: u64 = 150;

/// No machine reaches Postgres, or a worker hangs, for longer than a lease of 30 s. Nothing else that is planned ends
/// it before.
fn lapse(dice: &mut Dice, kind: Kind, from: Duration, size: Size, events: &mut Vec<Event>) {
    let until = from + dice.seconds(36.0, 42.0);
    let mut replace = |ends_it: &dyn Fn(Act) -> bool, begin: &[Act], end: &[Act]| {
        events.retain(|event| !((from..=until).contains(&event.at) && ends_it(event.act)));
        events.extend(begin.iter().map(|act| Event { at: from, act: *act }));
        events.extend(end.iter().map(|act| Event { at: until, act: *act }));
    };
    if kind == Kind::Outage {
        let weather = [Weather::Refuse, Weather::Blackhole, Weather::Stall][dice.below(3)];
        let all = |weather| (0..size.machines).map(move |machine| Act::Net { machine, weather }).collect::<Vec<_>>();
        replace(&|act| matches!(act, Act::Net { .. }), &all(weather), &all(Weather::Clear));
    } else {
        let one = dice.below(size.workers);
        let is_its = |act| match act {
            Act::Kill { slot }
            | Act::Term { slot }
            | Act::Stop { slot }
            | Act::Continue { slot }
            | Act::Start { slot, .. }
            | Act::Expire { slot } => slot == one,
            _ => false,
        };
        replace(&is_its, &[Act::Stop { slot: one }], &[Act::Continue { slot: one }]);
    }
}

fn one(dice: &mut Dice, kind: Kind, at: Duration, size: Size, events: &mut Vec<Event>) {
    let slot = dice.below(size.workers);
    let machine = dice.below(size.machines);
    let mut add = |at: Duration, act: Act| events.push(Event { at, act });
    match kind {
        Kind::Kill => {
            // Usually it comes back where it was, which is where its spool lies.
            let back = dice.seconds(0.1, 3.0);
            let home = if dice.chance(0.7) { slot % size.machines } else { machine };
            add(at, Act::Kill { slot });
            if dice.chance(0.4) {
                add(at + dice.seconds(0.0, 2.0), Act::Expire { slot });
            }
            add(at + back, Act::Start { slot, machine: home, spool: Room::Plenty });
        }
        Kind::Term => {
            add(at, Act::Term { slot });
            add(at, Act::Start { slot, machine: slot % size.machines, spool: Room::Plenty });
        }
        Kind::Stop => {
            let pause = dice.seconds(0.5, 9.0);
            add(at, Act::Stop { slot });
            if dice.chance(0.7) {
                add(at + pause.mul_f64(dice.between(0.0, 0.5)), Act::Expire { slot });
            }
            add(at + pause, Act::Continue { slot });
        }
        Kind::Reload => add(at, Act::Reload { slot }),
        Kind::Terminate => {
            let backends = i64::try_from(1 + dice.below(6)).unwrap();
            let draw = i64::try_from(dice.number() >> 1).unwrap();
            add(at, Act::Terminate { backends, draw });
        }
        Kind::Crash => {
            add(at, Act::Crash);
            add(at + dice.seconds(0.0, 6.0), Act::Recover);
        }
        Kind::Net => {
            let weather = match dice.below(5) {
                0 => return add(at, Act::Cut { machine }),
                1 => Weather::Refuse,
                2 => Weather::Blackhole,
                3 => Weather::Stall,
                _ => Weather::Delay(dice.seconds(0.05, 0.6)),
            };
            add(at, Act::Net { machine, weather });
            let pause = dice.seconds(0.5, 9.0);
            if dice.chance(0.5) {
                // Others find that it is dead, and take over while it lives on.
                for slot in (0..size.workers).filter(|slot| slot % size.machines == machine) {
                    add(at + pause.mul_f64(0.5), Act::Expire { slot });
                }
            }
            add(at + pause, Act::Net { machine, weather: Weather::Clear });
        }
        Kind::Outage => {
            let weather = [Weather::Refuse, Weather::Blackhole, Weather::Stall][dice.below(3)];
            let pause = dice.seconds(4.0, 10.0);
            for machine in 0..size.machines {
                add(at, Act::Net { machine, weather });
                add(at + pause, Act::Net { machine, weather: Weather::Clear });
            }
            for slot in 0..size.workers {
                add(at + pause.mul_f64(0.9), Act::Expire { slot });
            }
        }
        Kind::Commit => {
            let moment = [Moment::CommitAnswer, Moment::Commit, Moment::Answer][dice.below(3)];
            add(at, Act::CutAt { machine, moment });
        }
        Kind::ReadOnly => {
            add(at, Act::ReadOnly);
            add(at + dice.seconds(1.0, 6.0), Act::Lift);
        }
        Kind::Refused => {
            let how = [Refusal::NoLogin, Refusal::Limit, Refusal::Hba][dice.below(3)];
            add(at, Act::Refuse { how });
            add(at + dice.seconds(1.0, 6.0), Act::Lift);
        }
        Kind::Lagging => {
            let all = dice.chance(0.5);
            let pause = dice.seconds(1.0, 6.0);
            for machine in (0..size.machines).filter(|one| all || *one == machine) {
                add(at, Act::Mislead { machine });
                add(at + pause, Act::LeadBack { machine });
            }
        }
        Kind::Promotion => {
            let lag = dice.seconds(0.3, 3.0);
            add(at, Act::CutOff);
            add(at + lag, Act::Promote);
        }
        Kind::Restore => {
            let age = dice.seconds(3.0, 8.0);
            add(at.saturating_sub(age), Act::BackUp);
            add(at, Act::Restore);
        }
        Kind::FullSpool => {
            let machine = slot % size.machines;
            add(at, Act::Term { slot });
            let spool = if dice.chance(0.5) { Room::Off } else { Room::Disk };
            add(at, Act::Start { slot, machine, spool });
            let cut = at + dice.seconds(1.0, 3.0);
            add(cut, Act::Net { machine, weather: Weather::Refuse });
            add(cut + dice.seconds(5.0, 9.0), Act::Net { machine, weather: Weather::Clear });
        }
    }
}

/// The troubles at the providers.
pub fn troubles(seed: u64, size: Size, providers: usize, kinds: usize) -> Vec<Trouble> {
    let mut dice = Dice::new(seed, 2);
    let mut troubles = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "seconds of one run")]
    let end = size.seconds as f64;
    let mut at = 2.0;
    while at < end {
        let until = at + dice.between(0.5, 6.0);
        troubles.push(Trouble { provider: dice.below(providers), from: at, until, what: dice.below(kinds) });
        at += dice.between(1.0, 8.0);
    }
    troubles
}

#[test]
fn a_schedule_is_a_function_of_its_seed() {
    const ALL: [Kind; 3] = [Kind::Kill, Kind::Net, Kind::Crash];
    let size = Size { seconds: 60, workers: 4, machines: 2 };
    assert_eq!(schedule(7, size, &ALL), schedule(7, size, &ALL));
    assert_ne!(schedule(7, size, &ALL), schedule(8, size, &ALL));
    assert!(schedule(7, size, &ALL).is_sorted_by_key(|event| event.at));
    let long = Size { seconds: 300, ..size };
    let mut networks = schedule(7, long, &[Kind::Net, Kind::Outage]);
    networks.retain(|event| matches!(event.act, Act::Net { .. }));
    let lasts = |pair: &&[Event]| pair[1].at > pair[0].at + Duration::from_secs(36);
    let lasting: Vec<_> = networks.windows(2).filter(lasts).map(|pair| pair[0].act).collect();
    let is_cut = matches!(lasting[..], [Act::Net { weather, .. }] if weather != Weather::Clear);
    assert!(is_cut, "one outage is longer than a lease, and nothing is changed meanwhile: {lasting:?}");
    assert_eq!(troubles(7, size, 3, 4), troubles(7, size, 3, 4));
}
