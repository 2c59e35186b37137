//! Why a run ends before its work does: its batch is paused, its budget is spent, or only a person can help it on.

use super::LOOK_AGAIN;
use crate::cli::batch::find;
use crate::cli::table::wrapped;
use crate::domain::budget::BudgetStanding;
use crate::domain::error_class::Effect;
use crate::domain::job::JobState;
use crate::domain::obstacle::Obstacle;
use crate::domain::{ErrorClass, NanoUsd};
use crate::printable::{self, on_one_line};
use crate::store::batch::{Batch, Calls, JobFilter};
use crate::store::{Store, StoreError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a run in which not one call has reached a server goes on. A name that is misspelt, a wrong port and a
/// server that was not started look so; an outage begins, as a rule, when calls have been answered.
const UNREACHED: Duration = Duration::from_secs(8);

/// Waits until the batch is paused by its stop-loss: a command that waited on would wait for an operator.
pub(super) async fn stopped_by_loss(store: &Store, batch: &str) {
    loop {
        match store.stopped_by_loss(batch).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "the stop-loss cannot be read at the moment"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The budget that keeps a batch from going on until it is raised: it counts once, no call is under way that might give
/// some of it back, and no job is about to ask it.
pub(super) async fn spent_budget(store: &Store, batch: &str) -> Result<Option<BudgetStanding>, StoreError> {
    let obstacle = store.batch_obstacle(batch).await?;
    let budget = obstacle.as_ref().and_then(Obstacle::lasting_budget);
    let Some(standing) = budget.filter(|standing| standing.reserved == NanoUsd::ZERO) else { return Ok(None) };
    if standing.holds() {
        return Ok(Some(standing.clone()));
    }
    // Where there is room for some call, the jobs that are left may need more: then all of them have asked, and rest. A
    // job that is not at rest is on its way to ask.
    let (resting, asks_soon) = store.rest_for(&standing.budget.name, batch).await?;
    let left = store.batch(batch).await?.map_or(0, |batch| batch.unfinished());
    Ok((!asks_soon && resting >= left).then(|| standing.clone()))
}

/// Waits until the batch cannot go on before a budget is raised: which one.
pub(super) async fn stopped_by_budget(store: &Store, batch: &str) -> BudgetStanding {
    let mut is_spent = false;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        match spent_budget(store, batch).await {
            // Twice: between two calls of the last jobs nothing is reserved either.
            Ok(Some(standing)) if is_spent => return standing,
            Ok(found) => is_spent = found.is_some(),
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "the budget cannot be read at the moment"),
        }
    }
}

/// Waits until no target of the batch can be called before a person does something, or until it turns out that no call
/// of this run reaches a server. Returns the obstacles in words. `before`: the calls before the worker began.
pub(super) async fn stuck_for_good(store: &Store, batch: &str, before: Calls) -> Vec<String> {
    let (mut before, mut since) = (before, None);
    let mut is_stuck = false;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        match store.calls_of_batch(batch).await {
            Ok(calls) => {
                let (made, in_vain) = (calls.all - before.all, calls.unreachable - before.unreachable);
                if made > in_vain {
                    // A server was reached: then an outage passes.
                    before = Calls { all: i64::MIN / 2, ..calls };
                } else if in_vain > 0 && since.get_or_insert_with(Instant::now).elapsed() >= UNREACHED {
                    match store.unreached(batch).await {
                        Ok(reasons) if !reasons.is_empty() => {
                            return reasons.iter().map(|words| without_number(words)).collect();
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(error = %error, "what was not reached cannot be read"),
                    }
                }
            }
            Err(error) => tracing::debug!(error = %error, "the calls of the batch cannot be read at the moment"),
        }
        match store.batch_obstacle(batch).await {
            Ok(Some(obstacle)) if !obstacle.stuck.is_empty() => {
                // Twice: what an earlier worker left behind of a key or a model, this one tries at once.
                if is_stuck {
                    return obstacle.stuck.iter().map(|shut| shut.in_words(None, obstacle.as_of)).collect();
                }
                is_stuck = true;
            }
            Ok(_) => is_stuck = false,
            // An absence of the database is the worker's business.
            Err(error) => tracing::debug!(error = %error, "what the batch waits for cannot be read at the moment"),
        }
    }
}

/// The words of a system's error without its number.
fn without_number(words: &str) -> String {
    words.split_once(" (os error").map_or(words, |(words, _)| words).to_owned()
}

/// The classes of failures that say that a model is unknown or not allowed.
fn no_model() -> impl Iterator<Item = &'static str> {
    ErrorClass::ALL.iter().filter(|class| class.facts().effect == Effect::NoModel).map(|class| class.as_str())
}

/// Why a batch cannot go on, if it cannot. The jobs that found out that there is no such model have failed of it: they
/// are put back, to stay queued like the others. `before`: the batch before the run; `stuck`: what ended the run.
pub(super) async fn keep_queued(
    store: &Store,
    before: &Batch,
    stuck: Option<Vec<String>>,
) -> anyhow::Result<Option<Vec<String>>> {
    let classes: Vec<&str> = no_model().collect();
    let reasons = if let Some(reasons) = stuck {
        reasons
    } else {
        // With few jobs all of them find out before it is noticed that none can go on.
        let after = find(store, &before.name).await?;
        let newly_failed = after.failed - before.failed;
        if newly_failed == 0 || after.succeeded > before.succeeded {
            return Ok(None);
        }
        match store.failed_of(&before.name, &classes).await? {
            (jobs, Some(reason)) if jobs >= newly_failed => vec![reason],
            _ => return Ok(None),
        }
    };
    let classes = classes.into_iter().map(str::to_owned).collect();
    let unknown = JobFilter { states: vec![JobState::Failed], classes, error: None };
    store.retry_chosen(&before.name, &unknown, false, |_| {}).await?;
    Ok(Some(reasons))
}

/// Why a batch cannot go on, a line for each reason, and more where it is longer than the screen is wide.
pub(super) fn cannot_go_on(batch: &str, reasons: &[String]) -> String {
    let screen = printable::stderr_width().map_or(usize::MAX, |columns| columns.saturating_sub(5));
    let each = reasons.iter().map(|words| format!("\n  {}", wrapped(&on_one_line(words), screen).join("\n    ")));
    format!("batch {} cannot go on:{}", on_one_line(batch), each.collect::<String>())
}
