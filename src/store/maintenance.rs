//! Maintenance of the tables. Everything here may run in several processes at once.

use super::{Doing, Store, StoreError};
use std::time::Duration;

/// Rows of `tally` that one call of [`Store::fold_tally`] takes at most.
pub const FOLD_AT_ONCE: u64 = 20_000;

/// What one call of [`Store::fold_tally`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Rows of `tally` that it took.
    pub rows: u64,
    /// Sums that they came to.
    pub sums: u64,
    /// About how many rows are left.
    pub left: u64,
}

impl Store {
    /// Makes the partitions that the coming jobs will need; returns how many tables it made.
    pub async fn ensure_partitions(&self) -> Result<i32, StoreError> {
        let made = sqlx::query_scalar!("select sluice.ensure_partitions()")
            .fetch_one(&self.db)
            .await
            .doing("making partitions")?;
        Ok(made.unwrap_or(0))
    }

    /// Folds the appended sums into those of the hour, at most [`FOLD_AT_ONCE`] of them. Takes no rows when another
    /// process is doing so.
    pub async fn fold_tally(&self) -> Result<Folded, StoreError> {
        self.fold_some(FOLD_AT_ONCE).await
    }

    /// The same with at most this many rows.
    pub async fn fold_some(&self, most: u64) -> Result<Folded, StoreError> {
        let mut transaction = self.db.begin().await.doing("folding sums")?;
        // With the usual 4 MB the sums of so many rows are sorted on disk.
        let turn = sqlx::query!(
            r#"select sluice.take_turn('fold_cached_sums', false) as "is_free!", set_config('work_mem', '32MB', true)"#
        )
        .fetch_one(&mut transaction)
        .await
        .doing("folding sums")?;
        if !turn.is_free {
            return Ok(Folded::default());
        }
        let row = sqlx::query_file!("src/store/maintenance/fold.sql", i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_one(&mut transaction)
            .await
            .doing("folding sums")?;
        transaction.commit().await.doing("folding sums")?;
        let [rows, sums, left] = [row.rows, row.sums, row.left].map(|count| u64::try_from(count).unwrap_or(0));
        Ok(Folded { rows, sums, left })
    }

    /// Adopts keys from before keys had owners; returns how many. Zero: none are left, or now is not the moment.
    pub async fn own_keys(&self) -> Result<i64, StoreError> {
        let taken =
            sqlx::query_scalar!("select sluice.own_keys()").fetch_one(&self.db).await.doing("taking over keys")?;
        Ok(taken.unwrap_or(0))
    }

    /// Forgets the turns of commands that enqueued long ago.
    pub async fn forget_turns(&self) -> Result<u64, StoreError> {
        let forgotten = sqlx::query!(
            "delete from sluice.batch_turn
              where ctid = any (array(select ctid from sluice.batch_turn where since < now() - interval '1 day'
                                       limit 10000 for update skip locked))"
        )
        .execute(&self.db)
        .await
        .doing("forgetting turns")?;
        Ok(forgotten.rows_affected())
    }

    /// Forgets what providers have said of failures whose code was counted last longer than `keep` ago.
    pub async fn forget_failure_words(&self, keep: Duration) -> Result<u64, StoreError> {
        let forgotten = sqlx::query!(
            "delete from sluice.failure_sample
              where (provider, model, class, detail, code) in (
                    select provider, model, class, detail, code from sluice.failure_sample
                     where seen_at < now() - make_interval(secs => $1) limit 10000 for update skip locked)",
            keep.as_secs_f64()
        )
        .execute(&self.db)
        .await
        .doing("forgetting what providers have said")?;
        Ok(forgotten.rows_affected())
    }

    /// Forgets workers that are gone and hold nothing, an hour after they were last seen, together with the messages
    /// that still waited for them.
    pub async fn forget_workers(&self) -> Result<u64, StoreError> {
        sqlx::query!(
            "delete from sluice.recall r
              where not exists (select from sluice.worker w where w.id = r.worker and w.state = 'live')"
        )
        .execute(&self.db)
        .await
        .doing("forgetting recalls")?;
        let forgotten = sqlx::query!(
            "delete from sluice.worker w
              where w.state <> 'live' and w.seen_at < now() - interval '1 hour'
                and not exists (select from sluice.inflight i where i.worker = any (array[w.id]))"
        )
        .execute(&self.db)
        .await
        .doing("forgetting workers")?;
        Ok(forgotten.rows_affected())
    }
}
