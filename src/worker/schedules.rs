//! The loop that runs schedules: every worker looks, and whichever takes a tick first enqueues its jobs.

mod lines;
mod report;
mod tick;

pub use tick::{FindRoute, TickEnd, TickOrder, run_tick};

use super::Shared;
use super::troubles::Troubles;
use crate::domain::counted::counted;
use crate::domain::schedule::{Schedule, look};
use crate::domain::{Route, Timestamp};
use crate::store::schedule::{ScheduleRow, SchedulesAt, TickNote};
use crate::store::{Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// How often is looked, at least: an operator may ask for a tick.
const EVERY: Duration = Duration::from_secs(1);
/// Never a busy loop, even for a tick that another worker is at.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// How often a worker says which schedules it has.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// A schedule of which no worker has spoken for so long is taken over by a worker that has another configuration of it.
const SILENT: Duration = Duration::from_mins(2);

const LOOKING: &str = "looking at schedules";

/// The schedules as one worker deals with them.
#[derive(Default)]
struct Dealing {
    /// The configuration of which the database was told.
    told: Option<Arc<[Arc<Schedule>]>>,
    told_at: Option<Instant>,
    /// Those whose ticks are under way here.
    busy: HashSet<String>,
    /// Those that another worker has otherwise, which was said.
    foreign: HashSet<String>,
}

/// Runs until it is aborted; work under way is then rolled back, and another worker does it.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut troubles = Troubles::default();
    let mut dealing = Dealing::default();
    let mut under_way: JoinSet<Ended> = JoinSet::new();
    loop {
        let mut next = Instant::now() + EVERY;
        let settings = shared.settings();
        let schedules = Arc::clone(&settings.schedules);
        let does = !settings.until_done && settings.only_batch.is_none();
        if does && (!schedules.is_empty() || dealing.told.is_some()) {
            let looked = step(&shared, &schedules, &mut dealing, &mut under_way).await;
            if let Some(Some(tick)) = troubles.note(LOOKING, looked) {
                next = next.min(shared.clock.instant(tick));
            }
        }
        let at = next.max(Instant::now() + AT_MOST_EVERY);
        // Not before that, no matter which tick ends: a schedule that another worker is at would be asked for again and
        // again.
        while let Ok(ended) = tokio::time::timeout_at(at, ended(&mut under_way)).await {
            match ended {
                Ok((name, outcome)) => {
                    dealing.busy.remove(&name);
                    troubles.note("running a tick", outcome);
                }
                Err(error) => {
                    tracing::error!(error = %error, "a tick of a schedule ended unexpectedly; it is tried again");
                    // Which one it was is not known; each is under its own turn anyway.
                    dealing.busy.clear();
                }
            }
        }
    }
}

/// The end of a schedule's ticks: its name, and whether the database was there.
type Ended = (String, Result<(), StoreError>);

/// The next end of something that is under way; never, where nothing is.
async fn ended(under_way: &mut JoinSet<Ended>) -> Result<Ended, JoinError> {
    match under_way.join_next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

/// Looks once; returns when the next tick is due.
async fn step(
    shared: &Arc<Shared>,
    schedules: &Arc<[Arc<Schedule>]>,
    dealing: &mut Dealing,
    under_way: &mut JoinSet<Ended>,
) -> Result<Option<Timestamp>, StoreError> {
    let is_new = dealing.told.as_ref().is_none_or(|told| !Arc::ptr_eq(told, schedules));
    let mut at = shared.store.schedules_at().await?;
    let says = is_new || dealing.told_at.is_none_or(|told| told.elapsed() >= SAY_EVERY);
    if says {
        let mut said_all = true;
        for schedule in schedules.iter() {
            let row = at.rows.iter().find(|row| row.name == schedule.name);
            if is_new || row.is_none_or(|row| row.is_of(schedule) || is_silent(row, at.now)) {
                said_all &= say(&shared.store, schedule, at.now).await.is_ok();
            }
        }
        if said_all {
            (dealing.told, dealing.told_at) = (Some(Arc::clone(schedules)), Some(Instant::now()));
        }
        at = shared.store.schedules_at().await?;
    }
    let rows: HashMap<&str, &ScheduleRow> = at.rows.iter().map(|row| (row.name.as_str(), row)).collect();
    let mut next: Option<Timestamp> = None;
    for schedule in schedules.iter() {
        let Some(row) = rows.get(schedule.name.as_str()) else {
            // It was removed.
            dealing.told_at = None;
            continue;
        };
        if !row.is_of(schedule) {
            if dealing.foreign.insert(schedule.name.clone()) {
                tracing::warn!(
                    schedule = schedule.name,
                    cron = row.cron,
                    timezone = row.timezone,
                    "another worker has a newer configuration of this schedule, and deals with it: let this worker \
                     read its configuration again, or give all the same"
                );
            }
            continue;
        }
        dealing.foreign.remove(&schedule.name);
        if let Some(tick) = schedule.next(at.now).filter(|_| schedule.is_enabled) {
            next = Some(next.map_or(tick, |next| next.min(tick)));
        }
        if dealing.busy.contains(&schedule.name) {
            continue;
        }
        let orders = due(shared, schedule, row, &at).await?;
        if !orders.is_empty() {
            dealing.busy.insert(schedule.name.clone());
            let (shared, schedule) = (Arc::clone(shared), Arc::clone(schedule));
            under_way.spawn(async move {
                let outcome = run_all(&shared, &schedule, orders).await;
                (schedule.name.clone(), outcome)
            });
        }
    }
    Ok(next)
}

fn is_silent(row: &ScheduleRow, now: Timestamp) -> bool {
    Timestamp(row.seen_at.timestamp_millis()).until(now) > SILENT
}

async fn say(store: &Store, schedule: &Schedule, now: Timestamp) -> Result<(), StoreError> {
    let next = schedule.next(now).filter(|_| schedule.is_enabled);
    store.register_schedule(schedule, &schedule.settings(), next).await
}

/// The ticks of a schedule that are to be run now; those that are left out are noted.
async fn due(
    shared: &Arc<Shared>,
    schedule: &Arc<Schedule>,
    row: &ScheduleRow,
    at: &SchedulesAt,
) -> Result<Vec<TickOrder>, StoreError> {
    let looked_at = Timestamp(row.looked_at.timestamp_millis());
    let note =
        |at, by_hand| TickNote { schedule: schedule.name.clone(), at, by_hand, worker: Some(shared.worker_id()) };
    let found = look(schedule, looked_at, row.paused_at.is_some(), at.now);
    if let Some(now) = found.set_back_to {
        tracing::warn!(schedule = schedule.name, "the database's clock was set back: the schedule goes on from there");
        shared.store.set_schedule_back(&schedule.name, looked_at, now).await?;
    }
    let mut skipped: Vec<(TickNote, String)> = Vec::new();
    for tick in &found.ticks {
        let Some(passed) = tick.passed else { continue };
        let earlier = if skipped.is_empty() && found.more { "; so were earlier ones" } else { "" };
        skipped.push((note(tick.at, false), format!("{passed}{earlier}")));
    }
    if let Some((_, reason)) = skipped.last()
        && shared.store.skip_ticks(&skipped).await?
    {
        let ticks = counted(skipped.len(), "tick", "ticks");
        tracing::info!(schedule = schedule.name, ticks, reason, "ticks of a schedule are left out");
    }
    let order = |note, failures| TickOrder { note, failures, anyway: false, retries: true, now: at.now };
    let by_clock = found.ticks.iter().filter(|tick| tick.passed.is_none());
    let mut orders: Vec<TickOrder> = by_clock.map(|tick| order(note(tick.at, false), 0)).collect();
    let open = at.open.iter().filter(|open| open.schedule == schedule.name);
    // A failed tick waits while the schedule is paused or switched off.
    let open = open.filter(|open| open.by_hand || (row.paused_at.is_none() && schedule.is_enabled));
    orders.extend(open.map(|open| order(note(open.at, open.by_hand), open.failures)));
    orders.sort_by_key(|order| order.note.at);
    orders.dedup_by_key(|order| order.note.at);
    Ok(orders)
}

/// Runs ticks of one schedule, one after the other.
async fn run_all(shared: &Arc<Shared>, schedule: &Schedule, orders: Vec<TickOrder>) -> Result<(), StoreError> {
    for order in orders {
        let plan = shared.plan();
        let find = |name: &str| -> Option<Arc<Route>> { plan.routes.get(name).map(|plan| Arc::clone(&plan.route)) };
        let (name, tick) = (schedule.name.as_str(), order.note.clone());
        let shown = schedule.zone.local(tick.at).map(|at| at.to_rfc3339()).unwrap_or_default();
        match run_tick(&shared.store, &find, schedule, order).await? {
            TickEnd::Done { batch, jobs, .. } => {
                tracing::info!(schedule = name, tick = shown, batch, jobs, "a schedule has enqueued its jobs");
            }
            TickEnd::Reported(reported) => {
                tracing::info!(schedule = name, tick = shown, reported, "a schedule has made its report");
            }
            TickEnd::Overlaps(reason) => {
                let skipped = [(tick, reason)];
                if shared.store.skip_ticks(&skipped).await? {
                    let [(_, reason)] = skipped;
                    tracing::warn!(schedule = name, tick = shown, reason, "a tick of a schedule is left out");
                }
            }
            TickEnd::Failed { reason, retry_at: Some(_) } => {
                tracing::warn!(
                    schedule = name,
                    tick = shown,
                    reason,
                    "a tick of a schedule has failed; it is tried again"
                );
            }
            TickEnd::Failed { reason, retry_at: None } => {
                tracing::error!(
                    schedule = name,
                    tick = shown,
                    reason,
                    "a tick of a schedule has failed, and came to nothing; `sluice schedule run` runs it by hand"
                );
            }
            // Another worker is at it, and does the rest.
            TickEnd::Busy => return Ok(()),
            TickEnd::Over => {}
        }
    }
    Ok(())
}
