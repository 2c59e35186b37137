//! Latencies of accepted answers, from the histograms in the sums.

use super::{Filter, Grouping, Keys, push_dimensions, push_keys};
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
            query
                .push("h.part >> 40 as class, sum(sign * (h.part & 1099511627775)) as n from chosen, unnest(")
                .push(histogram);
            query.push(") h(part) group by ");
            push_group(&mut query, by);
            query.push(", class), ").push(histogram).push(" as (select ");
            push_names(&mut query, by);
            for (index, share) in ["0.5", "0.95", "0.99"].into_iter().enumerate() {
                query.push(if index == 0 { "" } else { ", " });
                query.push("sluice.latency_of((min(class) filter (where up_to >= ceil(whole * ").push(share);
                query.push(")))::integer) as p").push(index);
            }
            query.push(" from (select *, sum(n) over (partition by ");
            push_group(&mut query, by);
            query.push(" order by class) as up_to, sum(n) over (partition by ");
            push_group(&mut query, by);
            query.push(") as whole from ").push(histogram).push("_parts) p group by ");
            push_group(&mut query, by);
            query.push(")");
        }
        query.push(" select ");
        push_keys(&mut query, by);
        query.push(
            " as keys, answers, (total / answers)::bigint as mean, l.p0 as p50, l.p1 as p95, l.p2 as p99,
                f.p0 as first_byte
           from counted left join latency l using (",
        );
        push_group(&mut query, by);
        query.push(") left join first_byte f using (");
        push_group(&mut query, by);
        query.push(") where answers > 0 order by 1");
        let rows = query.build().fetch_all(&self.db).await.doing(DOING)?;
        let read = |row: sqlx::postgres::PgRow| -> Result<LatencyRow, sqlx::Error> {
            Ok(LatencyRow {
                keys: Keys::of(by, row.try_get::<Vec<String>, _>("keys")?),
                answers: row.try_get("answers")?,
                mean_ms: row.try_get("mean")?,
                p50_ms: row.try_get("p50")?,
                p95_ms: row.try_get("p95")?,
                p99_ms: row.try_get("p99")?,
                first_byte_p50_ms: row.try_get("first_byte")?,
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
