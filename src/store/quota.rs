//! The shared buckets: a register per bucket, which is read, and written if no other process has written meanwhile.

use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use crate::domain::shared_bucket::SharedBucket;
use crate::store::claim::timestamp;
use std::collections::BTreeMap;

/// A bucket's state as it was read.
#[derive(Clone, Debug)]
pub struct Register {
    /// The bucket's number.
    pub id: i64,
    /// The version of the state; the next state written must have been worked out from it.
    pub version: i64,
    /// The state. One that this program cannot read counts as new: its limits start full.
    pub state: SharedBucket,
}

/// A state to be written in place of the one that was read.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The bucket.
    pub id: i64,
    /// The version that it was worked out from.
    pub from: i64,
    pub state: SharedBucket,
}

impl Store {
    /// Reads the named buckets, making those that do not exist, and the database's clock.
    pub async fn read_buckets(&self, names: &[String]) -> Result<(BTreeMap<String, Register>, Timestamp), StoreError> {
        let (found, now) = self.find_buckets(names).await?;
        if found.len() == names.len() {
            return Ok((found, now));
        }
        sqlx::query!(
            "with made as (
                insert into sluice.bucket (name) select distinct n from unnest($1::text[]) n order by n
                on conflict do nothing returning id
             )
             insert into sluice.bucket_state (bucket, version, state) select id, 0, '{}' from made",
            names
        )
        .execute(&self.db)
        .await
        .doing("making a bucket")?;
        self.find_buckets(names).await
    }

    async fn find_buckets(&self, names: &[String]) -> Result<(BTreeMap<String, Register>, Timestamp), StoreError> {
        let rows = sqlx::query!(
            r#"select clock.now as "now!", b.id as "id?", b.name as "name?", s.version as "version?",
                      s.state as "state?"
                 from (select clock_timestamp() as now) clock
                 left join unnest($1::text[]) n on true
                 left join sluice.bucket b on b.name = n
                 left join lateral (select version, state from sluice.bucket_state s
                                     where s.bucket = b.id order by version desc limit 1) s on true"#,
            names
        )
        .fetch_all(&self.db)
        .await
        .doing("reading the limits")?;
        let now = rows.first().map_or(Timestamp::MIN, |row| timestamp(row.now));
        let found = rows.into_iter().filter_map(|row| {
            let name = row.name?;
            let state = state(&name, row.state?);
            Some((name, Register { id: row.id?, version: row.version?, state }))
        });
        Ok((found.collect(), now))
    }

    /// Writes each state whose predecessor is still the newest; returns the buckets for which that was the case.
    pub async fn write_buckets(&self, rewrites: &[Rewrite]) -> Result<Vec<i64>, StoreError> {
        let ids: Vec<i64> = rewrites.iter().map(|rewrite| rewrite.id).collect();
        let from: Vec<i64> = rewrites.iter().map(|rewrite| rewrite.from).collect();
        let json = |rewrite: &Rewrite| {
            serde_json::to_value(&rewrite.state).expect("a state has text and numbers for keys, and is always written")
        };
        let states: Vec<serde_json::Value> = rewrites.iter().map(json).collect();
        // A process that finds a row locked has lost already, and waiting for several of them could be a deadlock.
        sqlx::query_scalar!(
            "with mine as materialized (
                select s.bucket, s.version, u.state
                  from unnest($1::bigint[], $2::bigint[], $3::jsonb[]) u (bucket, version, state)
                  join sluice.bucket_state s on s.bucket = u.bucket and s.version = u.version
                   for update of s skip locked
             )
             update sluice.bucket_state s
                set version = s.version + 1, state = mine.state, written_at = clock_timestamp()
               from mine
              where s.bucket = mine.bucket and s.version = mine.version
             returning s.bucket",
            &ids,
            &from,
            &states
        )
        .fetch_all(&self.db)
        .await
        .doing("writing the limits")
    }

    /// Opens a bucket before its wait is over; false when no wait was on. Every worker hears of it within seconds.
    pub async fn reopen_bucket(&self, name: &str) -> Result<bool, StoreError> {
        let names = [name.to_owned()];
        loop {
            let (registers, now) = self.read_buckets(&names).await?;
            let Some(register) = registers.get(name) else { return Ok(false) };
            let mut state = register.state.clone();
            let was_shut = state.reopen(now);
            let rewrite = Rewrite { id: register.id, from: register.version, state };
            // Workers write the state a few times a second: the later writer starts over.
            if self.write_buckets(&[rewrite]).await?.contains(&register.id) {
                return Ok(was_shut);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Every bucket that any worker has ever used, by name, and the database's clock.
    pub async fn all_buckets(&self) -> Result<(BTreeMap<String, SharedBucket>, Timestamp), StoreError> {
        let rows = sqlx::query!(
            r#"select clock.now as "now!", b.name as "name?", s.state as "state?"
                 from (select clock_timestamp() as now) clock
                 left join (sluice.bucket b cross join lateral (
                     select state from sluice.bucket_state s where s.bucket = b.id
                       order by version desc limit 1) s) on true"#
        )
        .fetch_all(&self.db)
        .await
        .doing("reading the limits")?;
        let now = rows.first().map_or(Timestamp::MIN, |row| timestamp(row.now));
        let found = rows.into_iter().filter_map(|row| {
            let name = row.name?;
            let state = state(&name, row.state?);
            Some((name, state))
        });
        Ok((found.collect(), now))
    }
}

/// The state of a bucket. One that cannot be read counts as new, and the log says so: stopping all calls over it would
/// be worse, because the provider still says when its limit is reached.
fn state(name: &str, written: serde_json::Value) -> SharedBucket {
    serde_json::from_value(written).unwrap_or_else(|error| {
        tracing::warn!(bucket = name, error = %error, "the shared state of this limit cannot be read; it begins anew");
        SharedBucket::default()
    })
}
