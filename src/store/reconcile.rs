//! What the ledger says of each day and model, as a provider's invoice would: by the day on which a call was made.

use super::{Doing, Store, StoreError};
use crate::domain::reconcile::{DaySum, Side};
use chrono::{DateTime, NaiveDate, Utc};

impl Store {
    /// The calls that were made from `first` to before `end`, by day (UTC) and by the model that answered, or else was
    /// asked. `providers`: only theirs; empty: all.
    pub async fn by_day_and_model(
        &self,
        first: DateTime<Utc>,
        end: DateTime<Utc>,
        providers: &[String],
    ) -> Result<Side, StoreError> {
        let rows = sqlx::query!(
            r#"select (a.started_at at time zone 'UTC')::date as "day!: NaiveDate",
                      coalesce(a.model_served, split_part(a.model, '@', 1)) as "model!",
                      count(*) as "calls!", count(*) filter (where a.cost_nanos is null) as "unpriced!",
                      sluice.capped(coalesce(sum(a.cost_nanos), 0)) as "cost!",
                      sluice.capped(coalesce(sum(a.uncertain_nanos) filter (where a.cost_nanos is not null), 0))
                          as "uncertain!",
                      sluice.capped(coalesce(sum(a.input_tokens + a.cache_read_tokens + a.cache_write_tokens
                                                 + a.output_tokens), 0)) as "tokens!",
                      count(*) filter (where a.usage_source = 'estimated') as "estimated!",
                      sluice.capped(coalesce(sum(a.cost_nanos) filter (where a.usage_source = 'estimated'), 0))
                          as "estimated_cost!",
                      sluice.capped(coalesce(sum(a.input_tokens + a.cache_read_tokens + a.cache_write_tokens
                                                 + a.output_tokens) filter (where a.usage_source = 'estimated'), 0))
                          as "estimated_tokens!"
                 from sluice.attempt a
                where a.started_at >= $1 and a.started_at < $2
                  -- The index is of the end, which is never before the beginning.
                  and a.ended_at >= $1
                  and (cardinality($3::text[]) = 0 or a.provider = any ($3))
                group by 1, 2"#,
            first,
            end,
            providers
        )
        .fetch_all(&self.db)
        .await
        .doing("adding up the ledger by day and model")?;
        let said = rows.into_iter().map(|row| {
            let said = DaySum {
                cost: Some(i128::from(row.cost)),
                tokens: Some(i128::from(row.tokens)),
                calls: Some(row.calls),
                uncertain: i128::from(row.uncertain),
                unpriced: row.unpriced,
                estimated: row.estimated,
                estimated_cost: i128::from(row.estimated_cost),
                estimated_tokens: i128::from(row.estimated_tokens),
            };
            ((row.day.to_string(), row.model), said)
        });
        Ok(said.collect())
    }
}
