//! What is in the queue, and who works on it.

use super::{Doing, Store, StoreError};

impl Store {
    /// Whether jobs of these routes are ready, running or waiting for a retry. Jobs scheduled for later do not count,
    /// nor do those of paused routes, projects and batches.
    pub async fn outstanding(&self, routes: &[String]) -> Result<bool, StoreError> {
        let lanes = self.lanes().await?;
        let pauses = self.pauses().await?;
        let paused = |kind: &str, name: &str| pauses.iter().any(|pause| pause.kind == kind && pause.name == name);
        let ready = lanes.iter().any(|lane| {
            routes.contains(&lane.route)
                && !paused("route", &lane.route)
                && !paused("project", &lane.project)
                && !lane.batch.as_deref().is_some_and(|batch| paused("batch", batch))
        });
        if ready {
            return Ok(true);
        }
        let busy = sqlx::query_scalar!(
            r#"select exists (select from sluice.inflight)
                   or exists (select from sluice.parked where reason <> 'scheduled') as "busy!""#
        )
        .fetch_one(&self.pool)
        .await
        .doing("looking for unfinished jobs")?;
        Ok(busy)
    }
}
