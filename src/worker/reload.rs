//! Another configuration for a worker that is running.

use super::plan::Blueprint;
use super::{Settings, Shared};
use crate::domain::budget::Budget;
use crate::store::StoreError;
use std::sync::Arc;

/// Gives a running worker another configuration.
pub struct Reloader {
    pub(super) shared: Arc<Shared>,
}

impl Reloader {
    /// Whether the worker is stopping, so that it has no use for another configuration.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Sets the budgets of a configuration, as far as it says something new of them, and removes those that it no
    /// longer has.
    ///
    /// # Errors
    /// When the database does not take them; none of them is set then.
    pub async fn apply_budgets(&self, budgets: &[Budget], gone: &[String]) -> Result<Vec<String>, StoreError> {
        self.shared.store.apply_budgets(budgets, gone).await
    }

    /// Switches the worker to this blueprint and these settings. Calls under way end as they began. Jobs in hand switch
    /// at their next decision, and those whose route is gone return to the queue. How long the worker runs, and on
    /// which batch, does not change.
    ///
    /// # Errors
    /// When the blueprint cannot be resolved. The worker then goes on as before.
    pub fn reload(&mut self, blueprint: &Blueprint, settings: &Settings) -> anyhow::Result<()> {
        let shared = &self.shared;
        // No other task changes the plan, so it may be read before it is written.
        let plan = Arc::new(shared.plan().succeeded_by(blueprint, shared.clock.now())?);
        shared.plan.store(Arc::clone(&plan));
        let current = shared.settings();
        let (until_done, only_batch, spool) = (current.until_done, current.only_batch.clone(), current.spool.clone());
        shared.settings.store(Arc::new(Settings { until_done, only_batch, spool, ..settings.clone() }));
        // There may be more places now, and a rung that was shut may be open.
        shared.hands.freed.notify_one();
        plan.gate.keep_rehearsals(&settings.game_days, shared.clock.now());
        plan.gate.has_changed();
        Ok(())
    }
}
