//! Batches whose last job has ended.

use super::super::{Doing, Store, StoreError};
use super::{Appetites, keep_turn};
use crate::domain::alert::{AlertMessage, AlertSettings, BatchEnd};
use crate::domain::{NanoUsd, Timestamp};

const LOOKING: &str = "looking for batches that have ended";

impl Store {
    /// Takes note of the batches that have ended already, without a word, if no worker has done so before: of those
    /// that end from now on receivers are told.
    pub async fn begin_to_watch_batches(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "with fresh as (
                update sluice.alert_watch set batches_since = date_trunc('hour', now()) - interval '1 hour'
                 where batches_since is null returning batches_since
            ), sums as (
                select t.batch, sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded,
                       sum(t.failed)::bigint as failed, sum(t.cancelled)::bigint as cancelled
                  from fresh f cross join sluice.totals t
                 where t.batch <> '' and t.batch in (select r.batch from sluice.totals r
                                                      where r.batch <> '' and r.hour >= f.batches_since)
                 group by t.batch
            )
            insert into sluice.batch_end (batch, jobs, succeeded, failed, cancelled, times)
            select batch, jobs, succeeded, failed, cancelled, 0 from sums
             where jobs > 0 and jobs = succeeded + failed + cancelled
            on conflict (batch) do nothing"
        )
        .execute(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(())
    }

    /// No receiver is told of batches: one that comes later is told of those that end from then on.
    pub async fn watch_no_batches(&self) -> Result<(), StoreError> {
        sqlx::query!("update sluice.alert_watch set batches_since = null where batches_since is not null")
            .execute(&self.db)
            .await
            .doing(LOOKING)?;
        Ok(())
    }

    /// Finds batches whose last job has ended, and puts a message for each receiver that takes it into its queue.
    /// Returns how many batches that were; `None`: another worker has the turn.
    pub async fn tell_ended_batches(
        &self,
        worker: i64,
        now: Timestamp,
        settings: &AlertSettings,
        receivers: &Appetites,
    ) -> Result<Option<usize>, StoreError> {
        let mut transaction = self.db.begin().await.doing(LOOKING)?;
        if !keep_turn(&mut transaction, worker).await? {
            transaction.rollback().await.doing(LOOKING)?;
            return Ok(None);
        }
        let rows =
            sqlx::query_file!("src/store/alert/batches/ended.sql").fetch_all(&mut transaction).await.doing(LOOKING)?;
        // Sums of the last minutes may become visible later, under the hour of their transaction's beginning.
        sqlx::query!(
            "update sluice.alert_watch set batches_since = date_trunc('hour', now() - interval '15 minutes')
              where batches_since < date_trunc('hour', now() - interval '15 minutes')"
        )
        .execute(&mut transaction)
        .await
        .doing(LOOKING)?;
        let ended = rows.len();
        for row in rows {
            let end = BatchEnd {
                batch: row.batch,
                jobs: row.jobs,
                succeeded: row.succeeded,
                failed: row.failed,
                cancelled: row.cancelled,
                attempts: row.attempts,
                cost: NanoUsd(row.cost),
                uncertain: NanoUsd(row.uncertain),
                unpriced: row.unpriced,
                before: row.times.saturating_sub(1),
            };
            let rule = end.rule(settings.thresholds.batch_failed_share);
            let used = settings.rule(rule);
            if !used.on {
                continue;
            }
            let takers: Vec<String> = (receivers.iter())
                .filter(|(_, appetite)| appetite.takes(rule, used.severity))
                .map(|(name, _)| name.clone())
                .collect();
            let message = AlertMessage::of_batch(&end, rule, used.severity, settings.source.as_deref(), now);
            sqlx::query!(
                "insert into sluice.alert_delivery (receiver, kind, message)
                 select r.name, $2, $3 from unnest($1::text[]) r(name)",
                &takers,
                message.kind(),
                message.value()
            )
            .execute(&mut transaction)
            .await
            .doing(LOOKING)?;
        }
        transaction.commit().await.doing(LOOKING)?;
        Ok(Some(ended))
    }
}
