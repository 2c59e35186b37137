//! Looks, for all workers, at the facts that operators are to be told of: one worker at a time has the turn, and notes
//! the alerts that fire and those that are over. Messages are sent by a loop of its own.

mod seen;
mod sending;

use super::Shared;
use super::troubles::Troubles;
use crate::domain::alert::{AlertSettings, GIVE_UP_AFTER, sightings, steps};
use crate::provider::hook::Receiver;
use crate::store::alert::{AlertTurn, Appetites};
use crate::store::doctor::Surroundings;
use crate::store::{StoreError, within};
use seen::Memory;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) use sending::run as send;

/// How often a worker asks whether it is time to look.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A look that takes longer is given up; the turn lasts longer than that.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the turn of a worker lasts that is not heard of any more.
const TURN: Duration = Duration::from_secs(75);

/// How often old alerts and messages are forgotten.
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// Looking for ended batches pauses for so many times its duration: there may be a million of them.
const PAUSE_IN_COUNTING: u32 = 9;

/// How long a worker that stops takes for its last look and the messages of it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What operators are told of, and where.
#[derive(Clone, Debug)]
pub struct Alerting {
    pub settings: AlertSettings,
    pub receivers: Vec<Receiver>,
    /// What the doctor has to know of the configuration.
    pub around: Surroundings,
}

impl Alerting {
    fn appetites(&self) -> Appetites {
        self.receivers.iter().map(|receiver| (receiver.name.clone(), receiver.appetite.clone())).collect()
    }

    /// Whether anyone is told of batches.
    fn tells_of_batches(&self) -> bool {
        let rules = self.settings.rules.iter().filter(|(rule, used)| rule.is_event() && used.on);
        let mut rules = rules.map(|(rule, used)| (*rule, used.severity));
        rules.any(|(rule, severity)| self.receivers.iter().any(|it| it.appetite.takes(rule, severity)))
    }
}

/// Before the first job is taken: the batches that have ended already are told to no receiver.
pub(super) async fn begin(shared: &Shared) {
    let Some(alerting) = shared.settings().alerts.clone().filter(Alerting::tells_of_batches) else { return };
    let begun = within(PATIENCE, "looking for batches that have ended", shared.store.begin_to_watch_batches()).await;
    if let Err(error) = begun {
        tracing::warn!(error = %error, receivers = alerting.receivers.len(), "cannot watch batches for alerts yet");
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut memory = Memory::default();
    let mut troubles = Troubles::default();
    let mut forget_at = Instant::now() + FORGET_EVERY;
    loop {
        if let Some(alerting) = shared.settings().alerts.clone() {
            let looked = within(PATIENCE, "looking for alerts", look(&shared, &alerting, &mut memory)).await;
            let has_turn = troubles.note("looking for alerts", looked) == Some(true);
            if has_turn && Instant::now() >= forget_at {
                forget_at = Instant::now() + FORGET_EVERY;
                let forgotten = within(PATIENCE, "forgetting alerts", forget(&shared, &alerting)).await;
                troubles.note("forgetting alerts", forgotten);
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// When the worker stops: one more look, so that what ended last is told now and not by the next worker. Then another
/// worker may have the turn at once.
pub(super) async fn close(shared: &Arc<Shared>) {
    let Some(alerting) = shared.settings().alerts.clone() else { return };
    let last_words = async {
        if alerting.tells_of_batches() {
            let mut memory = Memory::of_last_look();
            look(shared, &alerting, &mut memory).await?;
            sending::send_all(shared).await?;
        }
        shared.store.leave_alert_turn(shared.worker_id()).await
    };
    if let Err(error) = within(LAST_WORDS, "looking for alerts", last_words).await {
        tracing::debug!(error = %error, "the last look for alerts was cut short; another worker makes it");
    }
}

/// Looks, if it is time and no other worker has the turn. Returns whether it has looked.
async fn look(shared: &Shared, alerting: &Alerting, memory: &mut Memory) -> Result<bool, StoreError> {
    let (worker, settings) = (shared.worker_id(), &alerting.settings);
    let every = if memory.is_last { Duration::ZERO } else { settings.every };
    let Some(AlertTurn { now, looked_at }) = shared.store.take_alert_turn(worker, every, TURN).await? else {
        return Ok(false);
    };
    let receivers = alerting.appetites();
    // The last look of a worker that stops is for batches: what lasts is seen by the next one, too.
    if !memory.is_last {
        let observed = memory.observe(shared, alerting, now).await?;
        let known = shared.store.open_alerts().await?;
        let (seen, examined) = sightings(&observed, settings);
        let steps = steps(&known, &seen, &examined, settings, looks_apart(settings.every), now);
        tracing::trace!(steps = steps.len(), seen = seen.len(), ?looked_at, "looked for alerts");
        let Some(changes) = shared.store.write_alerts(worker, now, &steps, settings, &receivers).await? else {
            return Ok(false);
        };
        // The cause has its own line at its own level.
        for (rule, subject, summary) in &changes.fired {
            tracing::info!(alert.rule = rule, alert.subject = subject, "an alert fires: {summary}");
        }
        for (rule, subject) in &changes.resolved {
            tracing::info!(alert.rule = rule, alert.subject = subject, "an alert is over");
        }
    }
    if !alerting.tells_of_batches() {
        shared.store.watch_no_batches().await?;
    } else if memory.batches_at.is_none_or(|at| Instant::now() >= at) {
        let began = Instant::now();
        shared.store.begin_to_watch_batches().await?;
        let told = shared.store.tell_ended_batches(worker, now, settings, &receivers).await?;
        memory.batches_at = Some(Instant::now() + began.elapsed() * PAUSE_IN_COUNTING);
        if let Some(batches) = told.filter(|batches| *batches > 0) {
            tracing::debug!(batches, "batches have ended");
        }
    }
    shared.letters_wanted.notify_one();
    Ok(true)
}

/// How far two sightings of a thing may be apart. Several looks may fail in a row, and the turn may pass to another
/// worker.
fn looks_apart(every: Duration) -> Duration {
    every * 4 + TURN
}

async fn forget(shared: &Shared, alerting: &Alerting) -> Result<(), StoreError> {
    let given_up = shared.store.give_up_messages(GIVE_UP_AFTER).await?;
    if given_up > 0 {
        tracing::error!(messages = given_up, "messages of alerts were given up after a day: `sluice doctor` says more");
    }
    shared.store.forget_alerts(alerting.settings.keep).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::pause_in_reading;

    #[test]
    fn what_is_not_read_at_each_look_is_read_before_an_alert_would_begin_anew() {
        for every in (1..=60).map(Duration::from_secs) {
            // The next look comes after the pause, and takes as long as it may.
            let apart = pause_in_reading(PATIENCE, every) + every + ASK_EVERY + PATIENCE;
            assert!(apart < looks_apart(every), "{every:?}");
        }
    }
}
