//! Latencies of accepted answers, from the histograms in the sums.

use super::{Filter, Grouping, Keys, push_dimensions, push_keys};
use crate::domain::histogram;
use crate::store::{Doing, Store, StoreError};
use sqlx::{QueryBuilder, Row};

/// Latencies of accepted answers, in milliseconds. The mean is exact; the others come from histograms and are at most
/// 4.9 % beside the truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyRow {
    /// The values of the dimensions.
    pub keys: Keys,
    /// Accepted answers.
    pub answers: i64,
    pub mean_ms: i64,
    /// Half of them took at most this long; `None`: workers of an earlier version have counted all of them.
    pub p50_ms: Option<i64>,
    /// 95 of 100 took at most this long.
    pub p95_ms: Option<i64>,
    /// 99 of 100 took at most this long.
    pub p99_ms: Option<i64>,
    /// Half of them began to arrive after at most this long.
    pub first_byte_p50_ms: Option<i64>,
}

impl Store {
    /// Latencies by these dimensions, in the order of their values.
    pub async fn latencies(&self, by: &[Grouping], filter: &Filter) -> Result<Vec<LatencyRow>, StoreError> {
        const DOING: &str = "summing up latencies";
        let mut query = QueryBuilder::new("with chosen as not materialized (select ");
        push_dimensions(&mut query, by);
        query.push("t.attempts, t.total_ms, t.latency, t.first_byte, t.sign from ");
        filter.push_source(&mut query, by);
        query.push(" where t.class = '' and t.attempts <> 0");
        filter.push(&mut query);
        query.push("), counted as (select ");
        push_names(&mut query, by);
        query.push("sum(attempts)::bigint as answers, sum(total_ms) as total from chosen group by ");
        push_group(&mut query, by);
        query.push(")");
        for histogram in ["latency", "first_byte"] {
            query.push(", ").push(histogram).push("_parts as (select ");
            push_names(&mut query, by);
            query.push("h.part >> 40 as class, sum(sign * (h.part & 1099511627775))::bigint as n from chosen, unnest(");
            query.push(histogram).push(") h(part) group by ");
            push_group(&mut query, by);
            query.push(", class), ").push(histogram).push(" as (select ");
            push_names(&mut query, by);
            query.push("array_agg((class << 40) + n) as parts from ").push(histogram);
            query.push("_parts where n > 0 group by ");
            push_group(&mut query, by);
            query.push(")");
        }
        query.push(" select ");
        push_keys(&mut query, by);
        // Put together by grouping: the server expects few groups, and would join each with each.
        query.push(
            " as keys, answers, (total / answers)::bigint as mean, latency, first_byte from (
              select max(answers) as answers, max(total) as total, max(latency) as latency,
                     max(first_byte) as first_byte, ",
        );
        push_group(&mut query, by);
        query.push(" from (select ");
        push_names(&mut query, by);
        query.push("answers, total, null::bigint[] as latency, null::bigint[] as first_byte from counted");
        for (histogram, figures) in [("latency", "null, null, parts, null"), ("first_byte", "null, null, null, parts")]
        {
            query.push(" union all select ");
            push_names(&mut query, by);
            query.push(figures).push(" from ").push(histogram);
        }
        query.push(") parts group by ");
        push_group(&mut query, by);
        query.push(") s where answers > 0 order by 1");
        let mut transaction = self.reading(DOING).await?;
        let rows = query.build().fetch_all(&mut transaction).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        let read = |row: sqlx::postgres::PgRow| -> Result<LatencyRow, sqlx::Error> {
            let [latency, first_byte] = ["latency", "first_byte"].map(|name| row.try_get::<Option<Vec<i64>>, _>(name));
            let (latency, first_byte) = (latency?.unwrap_or_default(), first_byte?.unwrap_or_default());
            let [p50_ms, p95_ms, p99_ms] = histogram::percentiles(&latency, [50, 95, 99]);
            let [first_byte_p50_ms] = histogram::percentiles(&first_byte, [50]);
            Ok(LatencyRow {
                keys: Keys::of(by, row.try_get::<Vec<String>, _>("keys")?),
                answers: row.try_get("answers")?,
                mean_ms: row.try_get("mean")?,
                p50_ms,
                p95_ms,
                p99_ms,
                first_byte_p50_ms,
            })
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().doing(DOING)
    }
}

/// The names of the dimensions, with a comma behind each.
fn push_names(query: &mut QueryBuilder<sqlx::Postgres>, by: &[Grouping]) {
    for index in 0..=by.len() {
        query.push("k").push(index).push(", ");
    }
}

/// The names of the dimensions, with commas between them. There is always one: `k` with the number of the dimensions is
/// the same in all rows.
fn push_group(query: &mut QueryBuilder<sqlx::Postgres>, by: &[Grouping]) {
    for index in 0..=by.len() {
        query.push(if index == 0 { "k" } else { ", k" }).push(index);
    }
}
