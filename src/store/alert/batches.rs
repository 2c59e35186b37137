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
        let rows = sqlx::query!(
            r#"with recent as materialized (
                select distinct t.batch
                  from sluice.alert_watch w join sluice.totals t on t.batch <> '' and t.hour >= w.batches_since
            ), sums as materialized (
                select t.batch, sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded,
                       sum(t.failed)::bigint as failed, sum(t.cancelled)::bigint as cancelled,
                       sum(t.attempts)::bigint as attempts, sluice.capped(sum(t.cost_nanos)) as cost,
                       sluice.capped(sum(t.uncertain_nanos)) as uncertain, sum(t.unpriced)::bigint as unpriced
                  from sluice.totals t
                 where t.batch <> '' and t.batch = any (array(select r.batch from recent r))
                 group by t.batch
            ), opened as (
                update sluice.batch_end e set is_open = true from sums s
                 where e.batch = s.batch and not e.is_open and s.jobs > s.succeeded + s.failed + s.cancelled
            ), ended as (
                insert into sluice.batch_end as e (batch, jobs, succeeded, failed, cancelled, times)
                select s.batch, s.jobs, s.succeeded, s.failed, s.cancelled, 1 from sums s
                 where s.jobs > 0 and s.jobs = s.succeeded + s.failed + s.cancelled
                on conflict (batch) do update
                   set jobs = excluded.jobs, succeeded = excluded.succeeded, failed = excluded.failed,
                       cancelled = excluded.cancelled, is_open = false, times = e.times + 1, ended_at = now()
                 where e.is_open or (e.jobs, e.succeeded, e.failed, e.cancelled)
                       is distinct from (excluded.jobs, excluded.succeeded, excluded.failed, excluded.cancelled)
                returning e.batch, e.times
            )
            select s.batch as "batch!", s.jobs as "jobs!", s.succeeded as "succeeded!", s.failed as "failed!",
                   s.cancelled as "cancelled!", s.attempts as "attempts!", s.cost as "cost!",
                   s.uncertain as "uncertain!", s.unpriced as "unpriced!", e.times
              from ended e join sums s on s.batch = e.batch order by s.batch"#
        )
        .fetch_all(&mut transaction)
        .await
        .doing(LOOKING)?;
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
