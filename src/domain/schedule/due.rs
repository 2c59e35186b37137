//! Which ticks are due, and the fate of each.

use super::{CatchUp, Schedule};
use crate::domain::Timestamp;
use std::fmt;
use std::time::Duration;

/// A tick that is found within this time is on time: workers look every second, and a restart of them takes a while.
const ON_TIME: Duration = Duration::from_mins(1);

/// By so much a clock may be behind the one that was read before. Further back, it was set.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// Of ticks that are left out, so many are noted, the newest.
const NOTED: usize = 100;

/// Pauses before a tick that has failed is tried again.
const RETRIES: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
];

/// Why a tick is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The schedule is paused.
    Paused,
    /// It came while no worker looked, and is not made up for.
    Missed,
    /// The same, and it is older than is made up for.
    TooOld,
    /// The same, and so many are not made up for at once.
    TooMany,
    /// No call could be made for it any more.
    Late,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "the schedule was paused",
            Self::Missed => "no worker looked in time, and catch_up does not make up for it",
            Self::TooOld => "no worker looked in time, and it is older than catch_up_within",
            Self::TooMany => "no worker looked in time, and more ticks were missed than catch_up_limit",
            Self::Late => "no worker looked before the deadline of its jobs",
        })
    }
}

/// A tick that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueTick {
    pub at: Timestamp,
    /// Why it is left out; `None`: it is to be run.
    pub passed: Option<Passed>,
}

/// What a look at a schedule has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookAt {
    /// The ticks that are due, in order. Of those that are left out the newest only.
    pub ticks: Vec<DueTick>,
    /// Whether there were earlier ones, about which nothing is noted.
    pub more: bool,
    /// The clock was set back: the schedule goes on from this instant. Ticks that come again are known by theirs.
    pub set_back_to: Option<Timestamp>,
}

/// Looks at a schedule, which was looked at before: each tick up to `looked_at` has been dealt with.
#[must_use]
pub fn look(schedule: &Schedule, looked_at: Timestamp, is_paused: bool, now: Timestamp) -> LookAt {
    let mut found = LookAt { ticks: Vec::new(), more: false, set_back_to: None };
    if !schedule.is_enabled {
        return found;
    }
    if now <= looked_at {
        found.set_back_to = (now.until(looked_at) > CLOCKS_DIFFER).then_some(now);
        return found;
    }
    let (ticks, more) = newest(schedule, looked_at, now, NOTED.max(schedule.catch_up_limit));
    found.more = more;
    let on_time = |at: Timestamp| at.until(now) <= ON_TIME;
    let is_covered = ticks.last().is_some_and(|at| on_time(*at));
    for (place, at) in ticks.iter().enumerate() {
        // How many late ones are newer.
        let newer = ticks.iter().skip(place.saturating_add(1)).filter(|at| !on_time(**at)).count();
        let is_old = at.until(now) > schedule.catch_up_within;
        let passed = match schedule.catch_up {
            _ if is_paused => Some(Passed::Paused),
            _ if schedule.deadline_of(*at).is_some_and(|deadline| deadline <= now) => Some(Passed::Late),
            _ if on_time(*at) => None,
            CatchUp::None => Some(Passed::Missed),
            CatchUp::Last if is_covered || newer > 0 => Some(Passed::Missed),
            CatchUp::All if newer >= schedule.catch_up_limit => Some(Passed::TooMany),
            CatchUp::Last | CatchUp::All => is_old.then_some(Passed::TooOld),
        };
        found.ticks.push(DueTick { at: *at, passed });
    }
    found
}

/// The newest ticks in `(after, until]`, and whether there are earlier ones. Looks back in growing steps, since the
/// first of them may be years ago.
fn newest(schedule: &Schedule, after: Timestamp, until: Timestamp, most: usize) -> (Vec<Timestamp>, bool) {
    let mut back = Duration::from_hours(1);
    loop {
        let from = after.max(until - back);
        let mut ticks = Vec::new();
        let mut at = from;
        while let Some(next) = schedule.next(at).filter(|next| *next <= until) {
            ticks.push(next);
            at = next;
        }
        let too_many = ticks.len().saturating_sub(most);
        if too_many > 0 || from == after {
            let is_whole = from == after && too_many == 0;
            let kept = ticks.split_off(too_many);
            return (kept, !is_whole);
        }
        back = back.saturating_mul(4);
    }
}

/// When a tick that has failed so many times is tried again; `None`: no more. The next tick takes its place.
#[must_use]
pub fn retry_at(failures: usize, now: Timestamp, next_tick: Option<Timestamp>) -> Option<Timestamp> {
    let pause = RETRIES.get(failures.checked_sub(1)?)?;
    let at = now + *pause;
    Some(at).filter(|at| next_tick.is_none_or(|next| *at < next))
}

#[cfg(test)]
mod tests;
