//! The history that the database is on. A promotion, a restore or a copy begins another one, in which numbers recur.

use super::claim::{Lease, datetime};
use super::{Doing, Store, StoreError};
use crate::domain::timeline::{Change, History, Stray, TimelineSwitch};
use crate::domain::{NanoUsd, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};

const LOOKING: &str = "looking at the database's timeline";

/// Making partitions takes a look of its own, so a few are enough.
const LOOKS: u32 = 4;

/// The highest job number that this process has seen.
#[derive(Debug, Default)]
pub(super) struct Highest(AtomicI64);

impl Highest {
    /// Sees the numbers of these jobs.
    pub fn note(&self, leases: impl Iterator<Item = Lease>) {
        if let Some(highest) = leases.map(|lease| lease.job.0).max() {
            self.0.fetch_max(highest, Ordering::Relaxed);
        }
    }
}

/// A commit that was confirmed to a worker and is now gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The last of the worker's commits that still exists; `None`: none does.
    pub from: Option<Timestamp>,
    /// When the lost commit was confirmed.
    pub to: Timestamp,
}

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The number of the history that the database is on; `None`: none was noted yet.
    pub number: Option<i32>,
    /// The change that this look, and no other, has noted.
    pub news: Option<TimelineSwitch>,
}

impl Store {
    /// Compares the database's position with the one noted last, and notes a change: then the numbers of jobs, workers
    /// and claims continue far above all that may have been given out. Of several processes that notice it at once one
    /// does so, and logs it. `begins`: if nothing was noted yet, this is the beginning.
    ///
    /// # Errors
    /// Those of the database. The caller repeats a look that failed.
    pub async fn look_at_timeline(&self, loss: Option<Loss>, begins: bool) -> Result<Looked, StoreError> {
        for _ in 0..LOOKS {
            let looked = sqlx::query!(
                r#"select outcome as "outcome!", number from sluice.look_at_timeline($1, $2, $3, $4)"#,
                self.highest.0.load(Ordering::Relaxed),
                loss.and_then(|loss| loss.from).map(datetime),
                loss.map(|loss| datetime(loss.to)),
                begins
            )
            .fetch_one(&self.db)
            .await
            .doing(LOOKING)?;
            let news = match looked.outcome.as_str() {
                "again" => continue,
                "changed" | "lost" => self.newest_turn().await?,
                _ => None,
            };
            if let Some(turn) = &news {
                tracing::warn!(
                    history = turn.number,
                    "{}. New jobs are numbered from {} on; see `sluice doctor`",
                    turn.in_words(),
                    turn.next_job.unwrap_or(0)
                );
            }
            return Ok(Looked { number: looked.number, news });
        }
        Ok(Looked { number: None, news: None })
    }

    /// Notes that this process knows of a job, by its number.
    pub fn knows_of_jobs(&self, leases: impl Iterator<Item = Lease>) {
        self.highest.note(leases);
    }

    async fn newest_turn(&self) -> Result<Option<TimelineSwitch>, StoreError> {
        let row = sqlx::query!(
            r#"select t.number, t.change, t.timeline, p.timeline as "previous_timeline?", t.next_job,
                      to_char(t.began_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "began_at!",
                      extract(epoch from now() - t.began_at)::bigint as "age!",
                      to_char(t.previous_seen_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as previous_seen_at,
                      to_char(t.lost_from at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as lost_from,
                      to_char(t.lost_to at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as lost_to
                 from sluice.timeline t left join sluice.timeline p on p.number = t.number - 1
                order by t.number desc limit 1"#
        )
        .fetch_optional(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(row.map(|row| TimelineSwitch {
            number: row.number,
            change: Change::of(&row.change),
            timeline: row.timeline,
            previous_timeline: row.previous_timeline,
            began_at: row.began_at,
            age: row.age,
            previous_seen_at: row.previous_seen_at,
            next_job: row.next_job,
            lost_to: row.lost_to,
            lost_from: row.lost_from,
        }))
    }

    /// The history of the database, and the losses that are known.
    pub async fn history_of_database(&self) -> Result<History, StoreError> {
        let turn = self.newest_turn().await?;
        let row = sqlx::query_file!("src/store/timeline/history.sql").fetch_one(&self.db).await.doing(LOOKING)?;
        // Of interest beside the others only, and only the ledger knows which jobs the answers were for.
        let late =
            if row.stray_calls + row.again_calls > 0 { self.late_since_the_turn().await? } else { Stray::default() };
        Ok(History {
            is_readable: row.is_readable,
            is_standby: row.is_standby,
            is_news: row.is_news,
            turn,
            stray: Stray {
                calls: row.stray_calls,
                cost: NanoUsd(row.stray_cost),
                unpriced: row.stray_unpriced,
                ..Stray::default()
            },
            again: Stray {
                calls: row.again_calls,
                uncertain: NanoUsd(row.again_uncertain),
                unpriced: row.again_unpriced,
                ..Stray::default()
            },
            late,
        })
    }

    /// Answers that came too late since the newest history began, in the last days. Answers that a cancellation made
    /// late are not counted.
    async fn late_since_the_turn(&self) -> Result<Stray, StoreError> {
        let row = sqlx::query!(
            r#"select count(*) as "calls!", coalesce(sum(a.cost_nanos), 0)::bigint as "cost!",
                      count(*) filter (where a.cost_nanos is null) as "unpriced!"
                 from sluice.timeline t
                      join sluice.attempt a on a.ended_at >= greatest(t.began_at, now() - interval '7 days')
                where t.number = (select max(number) from sluice.timeline) and t.change <> 'first'
                  and a.class = 'abandoned' and a.detail = 'late'
                  and not exists (select from sluice.result r where r.job_id = a.job_id and r.state = 'cancelled')"#
        )
        .fetch_one(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(Stray { calls: row.calls, cost: NanoUsd(row.cost), unpriced: row.unpriced, ..Stray::default() })
    }
}
