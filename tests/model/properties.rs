//! The promises, as questions about a state.

use super::database::{Call, Ending, How, NO_JOB, Row, Said};
use super::worker::Made;
use super::world::{State, Trouble, World};
use stateright::{Model, Property};

pub const ONE_PLACE: &str = "a job is in exactly one place";
pub const ENDS: &str = "when faults stop, every job ends and nothing is left over";
pub const RESULT_IS_ACCEPTED: &str =
    "the answer that is delivered is the one that the ledger calls accepted, of this round";
pub const FAILS_FOR_A_REASON: &str = "a job fails only when its own round used up what it may";
pub const BOUNDED: &str = "no more calls than allowed";
pub const ONE_ROW: &str = "a call has one row";
pub const NEVER_OVERCHARGED: &str = "no row costs money that the provider did not take";
pub const EVERY_CALL_NAMED: &str =
    "in the end every call is on the ledger, or lost with a stretch of time that the database has lost";
pub const NO_CALL_INVENTED: &str = "in the end what is on the ledger was called, or is named as uncertain";
pub const MONEY: &str = "in the end the money on the ledger is the money that was taken";
pub const KEPT: &str = "an answer that reached a process that did not crash is used, or costed";
pub const BOUGHT_ONCE: &str =
    "without a crash, a lost lease, a cancelled job or a call given up, nothing is bought twice";
pub const USED: &str = "an answer is waste only when its job was over, or tried anew";
pub const ITS_OWN: &str = "a job has the answer that was bought for it, and its own calls on the ledger";
pub const ASKED_AGAIN_ONCE: &str = "the fault of an answer is named at most once in a round";
pub const BLAMELESS: &str = "a job is blamed for no more deaths than there were";

pub const ONE_SHADOW: &str = "a job that was answered has one shadow, and no job has more";

pub fn all() -> Vec<Property<World>> {
    vec![
        Property::always(ONE_PLACE, |_: &World, state: &State| {
            state.database.jobs.iter().all(|job| job.place.is_some() != job.ending.is_some())
        }),
        Property::always(ENDS, |world: &World, state: &State| {
            if state.is_done() {
                return true;
            }
            let mut actions = Vec::new();
            world.actions(state, &mut actions);
            !actions.is_empty()
        }),
        Property::always(RESULT_IS_ACCEPTED, |_: &World, state: &State| result_is_accepted(state)),
        Property::always(FAILS_FOR_A_REASON, fails_for_a_reason),
        Property::always(BOUNDED, bounded),
        Property::always(ONE_ROW, |_: &World, state: &State| state.database.ledger.values().all(|row| row.copies == 1)),
        Property::always(NEVER_OVERCHARGED, |_: &World, state: &State| {
            state.database.ledger.iter().all(|(call, row)| row.said.cost() <= charged(state, *call))
        }),
        Property::always(EVERY_CALL_NAMED, |_: &World, state: &State| {
            let named = |(call, made): (&Call, &Made)| made.times == 1 && state.database.ledger.contains_key(call);
            !state.is_done() || state.calls.iter().all(|call| named(call) || call.1.forgotten)
        }),
        Property::always(NO_CALL_INVENTED, |_: &World, state: &State| {
            let known = |call: &Call, said: Said| state.calls.contains_key(call) || said == Said::Placeholder;
            !state.is_done() || state.database.ledger.iter().all(|(call, row)| known(call, row.said))
        }),
        Property::always(MONEY, |_: &World, state: &State| {
            let covered = |(call, row): (&Call, &Row)| charged(state, *call) <= row.said.cost() + row.said.uncertain();
            !state.is_done() || state.database.ledger.iter().all(covered)
        }),
        Property::always(KEPT, |_: &World, state: &State| {
            let costed = |call: &Call| state.database.ledger.get(call).is_some_and(|row| row.said.cost() == 1);
            !state.is_done() || state.calls.iter().all(|(call, made)| !made.received || made.lost || costed(call))
        }),
        Property::always(BOUGHT_ONCE, bought_once),
        Property::always(USED, |_: &World, state: &State| {
            let wasted = |(call, row): (&Call, &Row)| {
                let job = state.database.jobs.get(usize::from(call.job));
                row.said == Said::Late && job.is_some_and(|job| job.place.is_some() && job.round == row.round)
            };
            !state.database.ledger.iter().any(wasted)
        }),
        Property::always(ASKED_AGAIN_ONCE, |_: &World, state: &State| asked_again_once(state)),
        Property::always(ONE_SHADOW, |_: &World, state: &State| {
            state.database.jobs.iter().all(|job| {
                let is_answered = matches!(job.ending, Some(Ending { how: How::Succeeded(_), .. }));
                job.shadows <= 1 && (job.shadows == 1 || !is_answered)
            })
        }),
        Property::always(ITS_OWN, |_: &World, state: &State| its_own(state)),
        Property::always(BLAMELESS, |world: &World, state: &State| {
            let (now, at_first) = (&state.trouble, &world.trouble);
            let deaths = |of: fn(&Trouble) -> u8| of(at_first) - of(now);
            let deaths = deaths(|of| of.crashes) + deaths(|of| of.expiries) + deaths(|of| of.drains);
            state.database.jobs.iter().all(|job| job.crashes <= deaths)
        }),
    ]
}

fn charged(state: &State, call: Call) -> u8 {
    state.calls.get(&call).map_or(0, |made| u8::from(made.charged))
}

fn result_is_accepted(state: &State) -> bool {
    (0_u8..).zip(&state.database.jobs).all(|(number, job)| {
        let accepted: Vec<_> = state
            .database
            .ledger
            .iter()
            .filter(|(call, row)| call.job == number && row.said == Said::Accepted)
            .collect();
        match job.ending.map(|ending| (ending.how, ending.round)) {
            Some((How::Succeeded(call), round)) => {
                matches!(accepted[..], [(only, row)] if *only == call && row.round == round)
            }
            _ => accepted.is_empty(),
        }
    })
}

fn fails_for_a_reason(world: &World, state: &State) -> bool {
    (0_u8..).zip(&state.database.jobs).all(|(number, job)| match job.ending {
        Some(ending) if ending.how == How::Failed => {
            let lost = |made: &&Made| made.lost && (made.born, made.round) == (job.born, ending.round);
            let lost = state.calls.values().filter(lost).count();
            let tried = usize::from(state.database.tried(number, ending.round)) + lost;
            tried >= usize::from(world.max_attempts) || (job.crashes >= world.max_crashes && job.died_with == 1)
        }
        _ => true,
    })
}

/// No call of a job that had its number before.
fn its_own(state: &State) -> bool {
    (0_u8..).zip(&state.database.jobs).all(|(number, job)| {
        let is_its = |call: &Call| state.calls.get(call).is_none_or(|made| made.born == job.born);
        let booked = |(call, row): (&Call, &Row)| call.job != number || row.round == NO_JOB || is_its(call);
        let answered = !matches!(job.ending, Some(Ending { how: How::Succeeded(call), .. }) if !is_its(&call));
        answered && state.database.ledger.iter().all(booked)
    })
}

/// What the database has lost counts no more.
fn asked_again_once(state: &State) -> bool {
    let made = |job: u8, round: u8| {
        let counts = |(call, made): &(&Call, &Made)| {
            call.job == job && made.round == round && made.reask && !made.lost && !made.strayed
        };
        state.calls.iter().filter(counts).count()
    };
    (0_u8..).zip(&state.database.jobs).all(|(number, job)| (0..=job.round).all(|round| made(number, round) <= 1))
}

/// A call that was cut off by a crash uses up nothing, so each crash allows one more; and a crash in a race cuts off
/// two. What the database has lost counts no more.
fn bounded(world: &World, state: &State) -> bool {
    let races = world.trouble.races - state.trouble.races;
    state.database.jobs.iter().all(|job| {
        let counts = |made: &&Made| (made.born, made.round) == (job.born, job.round) && !made.lost && !made.strayed;
        let made = state.calls.values().filter(counts).count();
        made <= usize::from(world.max_attempts + job.crashes + races.min(job.crashes))
    })
}

fn bought_once(world: &World, state: &State) -> bool {
    let (now, at_first) = (&state.trouble, &world.trouble);
    let excused = now.crashes < at_first.crashes
        || now.expiries < at_first.expiries
        || now.cancels < at_first.cancels
        || now.give_ups < at_first.give_ups
        || now.cuts < at_first.cuts
        || now.rejections < at_first.rejections
        || now.returns < at_first.returns
        || now.races < at_first.races;
    excused
        || (0..world.jobs)
            .all(|job| state.calls.iter().filter(|(call, made)| call.job == job && made.charged).count() <= 1)
}
