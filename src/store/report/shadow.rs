//! Answers beside those of shadows.

use super::{Filter, Grouping, Keys, push_dimensions, push_keys};
use crate::domain::{NanoUsd, Spent};
use crate::store::{Doing, Store, StoreError};
use sqlx::{QueryBuilder, Row};

/// What answers and those of their shadows have come to. Of the jobs of a route that have a shadow, all are accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShadowRow {
    /// The values of the dimensions.
    pub keys: Keys,
    /// Jobs whose shadow was asked and has ended.
    pub pairs: i64,
    /// Those of them whose shadow was accepted, too.
    pub both_accepted: i64,
    /// Those of these that can be compared, …
    pub compared: i64,
    /// … and those that say the same.
    pub same: i64,
    /// Members of answers that are JSON objects on both sides, …
    pub fields: i64,
    /// … and those in which they agree.
    pub fields_same: i64,
    /// What the answers of the pairs cost, as far as it is known.
    pub cost: NanoUsd,
    /// Answers of pairs whose cost is unknown.
    pub unpriced: i64,
    /// What the shadows of the pairs cost, as far as it is known.
    pub shadow_cost: NanoUsd,
    /// Shadows of pairs whose cost is unknown.
    pub shadow_unpriced: i64,
    /// The median of the calls that brought the answers; `None`: there is none.
    pub p50_ms: Option<i64>,
    /// The same of the shadows.
    pub shadow_p50_ms: Option<i64>,
    /// Shadows that have not ended.
    pub waiting: i64,
    /// Shadows that ended before their target was asked.
    pub not_asked: i64,
}

impl ShadowRow {
    /// The money of the answers, and of the shadows.
    #[must_use]
    pub fn spent(&self) -> [Spent; 2] {
        let spent = |cost, unpriced, accepted| Spent { cost, unpriced, accepted, ..Spent::default() };
        [spent(self.cost, self.unpriced, self.pairs), spent(self.shadow_cost, self.shadow_unpriced, self.both_accepted)]
    }
}

impl Store {
    /// Answers beside those of shadows by these dimensions, in the order of their values. The route is that of the
    /// jobs, and provider and model are those of the shadows.
    pub async fn shadows(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<ShadowRow>, StoreError> {
        const DOING: &str = "comparing shadows";
        let mut query = QueryBuilder::new("select ");
        push_keys(&mut query, by);
        query.push(" as keys, s.* from (select ");
        push_dimensions(&mut query, by);
        query.push(
            "count(*) filter (where t.is_pair) as pairs,
             count(*) filter (where t.is_pair and t.shadow_state = 'succeeded') as both_accepted,
             count(t.same) filter (where t.is_pair) as compared,
             count(*) filter (where t.is_pair and t.same) as same,
             coalesce(sum(t.fields) filter (where t.is_pair), 0)::bigint as fields,
             coalesce(sum(t.fields_same) filter (where t.is_pair), 0)::bigint as fields_same,
             sluice.capped(coalesce(sum(t.cost * 1e9) filter (where t.is_pair), 0)) as cost,
             count(*) filter (where t.is_pair and t.cost is null) as unpriced,
             sluice.capped(coalesce(sum(t.shadow_cost * 1e9) filter (where t.is_pair), 0)) as shadow_cost,
             count(*) filter (where t.is_pair and t.shadow_cost is null) as shadow_unpriced,
             (percentile_disc(0.5) within group (order by t.ms) filter (where t.is_pair))::bigint as p50_ms,
             (percentile_disc(0.5) within group (order by t.shadow_ms) filter (where t.is_pair))::bigint
                 as shadow_p50_ms,
             count(*) filter (where t.shadow_state = 'waiting') as waiting,
             count(*) filter (where t.shadow_state in ('not asked', 'cancelled')) as not_asked
           from (select v.*, date_trunc('hour', v.made_at, 'UTC') as hour, v.enqueued_by as login,
                        split_part(v.target, '/', 1) as provider, substr(v.target, strpos(v.target, '/') + 1) as model,
                        v.shadow_state in ('succeeded', 'failed') as is_pair
                   from sluice.shadows v) t
          where true",
        );
        filter.push_times(&mut query);
        filter.push_labels(&mut query);
        // By the last one, too, which is the same in all rows: where there are none, nothing is told.
        for index in 0..=by.len() {
            query.push(if index == 0 { " group by " } else { ", " }).push(index + 1);
        }
        query.push(") s order by 1");
        let mut transaction = self.reading(DOING).await?;
        let rows = query.build().fetch_all(&mut transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        let read = |row: sqlx::postgres::PgRow| -> Result<ShadowRow, sqlx::Error> {
            Ok(ShadowRow {
                // A job without a batch has none.
                keys: Keys::of(by, {
                    let keys = row.try_get::<Vec<Option<String>>, _>("keys")?;
                    keys.into_iter().map(Option::unwrap_or_default).collect::<Vec<String>>()
                }),
                pairs: row.try_get("pairs")?,
                both_accepted: row.try_get("both_accepted")?,
                compared: row.try_get("compared")?,
                same: row.try_get("same")?,
                fields: row.try_get("fields")?,
                fields_same: row.try_get("fields_same")?,
                cost: NanoUsd(row.try_get("cost")?),
                unpriced: row.try_get("unpriced")?,
                shadow_cost: NanoUsd(row.try_get("shadow_cost")?),
                shadow_unpriced: row.try_get("shadow_unpriced")?,
                p50_ms: row.try_get("p50_ms")?,
                shadow_p50_ms: row.try_get("shadow_p50_ms")?,
                waiting: row.try_get("waiting")?,
                not_asked: row.try_get("not_asked")?,
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing(DOING)
    }

    /// Forgets shadows of jobs that were dropped, a bounded number of them; returns how many.
    pub async fn forget_shadows(&self) -> Result<u64, StoreError> {
        let forgotten = sqlx::query!(
            "delete from sluice.shadow f
              where f.job_id = any (array(
                        select s.job_id from (select o.job_id from sluice.shadow o order by o.made_at limit 1000) s
                         where not exists (select from sluice.job j where j.id = any (array[s.job_id]))))"
        )
        .execute(&self.db)
        .await
        .doing("forgetting shadows")?;
        Ok(forgotten.rows_affected())
    }
}
