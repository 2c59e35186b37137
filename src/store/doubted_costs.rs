//! Calls whose cost is doubted: their price is unknown, or the provider puts it at another figure.

use super::{Doing, Store, StoreError};
use crate::domain::NanoUsd;
use crate::domain::diagnosis::DoubtedCosts;
use std::time::Duration;

impl Store {
    /// The targets whose calls of the last day have no known price, or whose calls within this time have a cost that
    /// the provider puts at another figure; with how many, those with most of them first.
    pub async fn doubted_costs(&self, differing_within: Duration) -> Result<Vec<DoubtedCosts>, StoreError> {
        let rows = sqlx::query!(
            r#"with unpriced as (
                select provider, model, sum(unpriced)::bigint as calls from sluice.totals_all
                 where hour >= date_trunc('hour', now(), 'UTC') - interval '23 hours' and provider <> ''
                 group by 1, 2 having sum(unpriced) > 0
            ), differing as (
                -- The index of this column tells which stretches of the ledger are so new.
                select a.provider, a.model, count(*) as calls,
                       sum(a.reported_cost_nanos - a.computed_cost_nanos) as more
                  from sluice.attempt a
                 where a.ended_at >= now() - make_interval(secs => $1) and a.cost_differs group by 1, 2
            )
            select coalesce(u.provider, d.provider) as "provider!", coalesce(u.model, d.model) as "model!",
                   coalesce(u.calls, 0) as "unpriced!", coalesce(d.calls, 0) as "differing!",
                   sluice.capped(coalesce(d.more, 0)) as "more!"
              from unpriced u full join differing d on d.provider = u.provider and d.model = u.model
             order by coalesce(u.calls, 0) + coalesce(d.calls, 0) desc, 1, 2"#,
            differing_within.as_secs_f64()
        )
        .fetch_all(&self.db)
        .await
        .doing("looking at doubted costs")?;
        let doubted = rows.into_iter().map(|row| DoubtedCosts {
            target: format!("{}/{}", row.provider, row.model),
            unpriced: row.unpriced,
            differing: row.differing,
            more: NanoUsd(row.more),
        });
        Ok(doubted.collect())
    }
}
