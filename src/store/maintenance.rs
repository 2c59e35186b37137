//! Keeping the tables in shape. Everything here may run in several processes at once.

use super::{Doing, Store, StoreError};

/// Rows of `tally` that one call of [`Store::fold_tally`] takes at most.
pub const FOLD_AT_ONCE: u64 = 20_000;

impl Store {
    /// Makes the partitions that the coming jobs will need; returns how many tables it made.
    pub async fn ensure_partitions(&self) -> Result<i32, StoreError> {
        let made = sqlx::query_scalar!("select sluice.ensure_partitions()")
            .fetch_one(&self.db)
            .await
            .doing("making partitions")?;
        Ok(made.unwrap_or(0))
    }

    /// Folds the appended sums into those of the hour; returns how many rows it took. Zero when another process is
    /// doing it.
    pub async fn fold_tally(&self) -> Result<u64, StoreError> {
        let mut transaction = self.db.begin().await.doing("folding sums")?;
        let free = sqlx::query_scalar!(r#"select sluice.take_turn('fold_tally', false) as "free!""#)
            .fetch_one(&mut transaction)
            .await
            .doing("folding sums")?;
        if !free {
            return Ok(0);
        }
        let folded = sqlx::query_scalar!(
            r#"with old as (
                delete from sluice.tally
                 where ctid = any (array(select ctid from sluice.tally limit $1 for update skip locked))
                returning *
            ), taken as (
                -- A name that is too long for an index keeps its beginning, and its hash so that it stays one of its own.
                select o.*, n.route as route_name, n.project as project_name, n.batch as batch_name
                  from old o cross join lateral (
                       select case when octet_length(o.route) > 500 then left(o.route, 100) || '…' || md5(o.route) else o.route end,
                              case when octet_length(o.project) > 500 then left(o.project, 100) || '…' || md5(o.project) else o.project end,
                              case when octet_length(o.batch) > 500 then left(o.batch, 100) || '…' || md5(o.batch) else o.batch end
                       ) n(route, project, batch)
            ), kept as (
                insert into sluice.tally_hour as h
                     select hour, route_name, project_name, batch_name, provider, model, class, detail, sum(enqueued), sum(succeeded),
                            sum(failed), sum(cancelled), sum(attempts), sum(fallbacks), sluice.capped(sum(input_tokens)),
                            sluice.capped(sum(cached_tokens)), sluice.capped(sum(output_tokens)), sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)),
                            sluice.capped(sum(uncertain_nanos)), sum(unpriced), sluice.capped(sum(total_ms))
                       from taken group by 1, 2, 3, 4, 5, 6, 7, 8
                on conflict (hour, route, project, batch, provider, model, class, detail) do update set
                     enqueued = h.enqueued + excluded.enqueued,
                     succeeded = h.succeeded + excluded.succeeded,
                     failed = h.failed + excluded.failed,
                     cancelled = h.cancelled + excluded.cancelled,
                     attempts = h.attempts + excluded.attempts,
                     fallbacks = h.fallbacks + excluded.fallbacks,
                     input_tokens = sluice.capped(h.input_tokens::numeric + excluded.input_tokens),
                     cached_tokens = sluice.capped(h.cached_tokens::numeric + excluded.cached_tokens),
                     output_tokens = sluice.capped(h.output_tokens::numeric + excluded.output_tokens),
                     cost_nanos = sluice.capped(h.cost_nanos::numeric + excluded.cost_nanos),
                     waste_nanos = sluice.capped(h.waste_nanos::numeric + excluded.waste_nanos),
                     uncertain_nanos = sluice.capped(h.uncertain_nanos::numeric + excluded.uncertain_nanos),
                     unpriced = h.unpriced + excluded.unpriced,
                     total_ms = sluice.capped(h.total_ms::numeric + excluded.total_ms)
            )
            select count(*) as "count!" from taken"#,
            i64::try_from(FOLD_AT_ONCE).unwrap_or(i64::MAX)
        )
        .fetch_one(&mut transaction)
        .await
        .doing("folding sums")?;
        transaction.commit().await.doing("folding sums")?;
        Ok(u64::try_from(folded).unwrap_or(0))
    }

    /// Takes over keys from before keys had owners; returns how many. Zero: none are left, or it is not the moment.
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

    /// Forgets workers that are gone and hold nothing, an hour after they were last seen, and what they were still to
    /// be told.
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
