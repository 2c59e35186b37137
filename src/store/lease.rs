//! Leases: staying alive, and taking over from workers that are dead.

use super::{Doing, Store, StoreError, schema, stop_loss};
use crate::domain::statistics::Statistics;
use crate::domain::{JobId, Timestamp};
use crate::store::claim::{Lease, timestamp};
use sqlx::types::Json;
use std::collections::HashSet;

/// How long a worker may be silent before others take its jobs, in seconds.
pub const LEASE_SECONDS: f64 = 30.0;

/// The result of a heartbeat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Whether the lease still holds. If not, others may have this worker's jobs: everything it does is void.
    pub alive: bool,
    /// The database's clock.
    pub now: Timestamp,
    /// Jobs that were cancelled while this worker had them.
    pub recalled: Vec<Lease>,
    /// Whether the database knows this number as this worker's: it may have given it to another worker, or forgotten
    /// it.
    pub known: bool,
    /// The beat of this worker that the database had before this one: its ordinal, and when it came.
    pub before: Option<(i64, Timestamp)>,
}

/// The result of a rescue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Workers found dead.
    pub workers: u64,
    /// Jobs put back into the queue.
    pub jobs: u64,
    /// Jobs failed because too many workers died with them.
    pub poisoned: u64,
}

impl Store {
    /// Registers a worker process. Its number is new each time, so that nothing of an earlier process is mistaken for
    /// its own.
    pub async fn register(&self, host: &str, pid: i32, version: &str) -> Result<(i64, Timestamp), StoreError> {
        let row = sqlx::query!(
            r#"insert into sluice.worker (host, pid, version, lease_until, schema_version)
                    values ($1, $2, $3, now() + make_interval(secs => $4), $5)
                 returning id, now() as "now!""#,
            host,
            pid,
            version,
            LEASE_SECONDS,
            schema::known()
        )
        .fetch_one(&self.db)
        .await
        .doing("registering the worker")?;
        Ok((row.id, timestamp(row.now)))
    }

    /// Registers a worker and takes that back, and returns the number that it would have had: no other worker has it.
    pub async fn rehearse_registering(&self) -> Result<i64, StoreError> {
        let mut transaction = self.db.begin().await.doing("registering the worker")?;
        let id = sqlx::query_scalar!(
            "insert into sluice.worker (host, pid, version, lease_until) values ('', 0, '', now()) returning id"
        )
        .fetch_one(&mut transaction)
        .await
        .doing("registering the worker")?;
        transaction.rollback().await.doing("registering the worker")?;
        Ok(id)
    }

    /// Renews the lease, publishes the worker's statistics, and fetches the jobs cancelled in the meantime. `life` in
    /// the statistics tells this worker from others that may have its number, since a database that has gone back in
    /// time gives numbers again; `beats` counts.
    pub async fn beat(&self, worker: i64, statistics: &Statistics) -> Result<Beat, StoreError> {
        let row = sqlx::query!(
            r#"with was as (
                select seen_at, stats ->> 'beats' as beats, stats ->> 'life' as life from sluice.worker where id = $1
            ), beat as (
                update sluice.worker
                   set lease_until = now() + make_interval(secs => $3), seen_at = now(), stats = $2::jsonb
                 where id = $1 and state = 'live'
                   and coalesce(stats ->> 'life', $2::jsonb ->> 'life') is not distinct from $2::jsonb ->> 'life'
                returning id
            ), recalled as (
                delete from sluice.recall where worker = $1 returning job_id, fence
            )
            select exists (select from beat) as "alive!", now() as "now!",
                   coalesce((select array_agg(job_id) from recalled), '{}') as "jobs!",
                   coalesce((select array_agg(fence) from recalled), '{}') as "fences!",
                   $1 <= (select last_value from sluice.worker_id_seq)
                       and not exists (select from was where life <> $2::jsonb ->> 'life') as "known!",
                   (select beats::bigint from was where life = $2::jsonb ->> 'life') as beats,
                   (select seen_at from was where life = $2::jsonb ->> 'life') as beaten_at"#,
            worker,
            Json(statistics) as _,
            LEASE_SECONDS
        )
        .fetch_one(&self.db)
        .await
        .doing("renewing the lease")?;
        let recalled =
            row.jobs.into_iter().zip(row.fences).map(|(job, fence)| Lease { job: JobId(job), fence, born: 0 });
        Ok(Beat {
            alive: row.alive,
            now: timestamp(row.now),
            recalled: recalled.collect(),
            known: row.known,
            before: row.beats.zip(row.beaten_at.map(timestamp)),
        })
    }

    /// Signs the worker off. Jobs that it still holds (there should be none) are rescued at once rather than after the
    /// lease.
    pub async fn sign_off(&self, worker: i64) -> Result<(), StoreError> {
        sqlx::query!(
            "update sluice.worker set state = 'gone', lease_until = now() where id = $1 and state = 'live'",
            worker
        )
        .execute(&self.db)
        .await
        .doing("signing off")?;
        Ok(())
    }

    /// Gives back the jobs of workers whose lease ran out. Several processes may safely do so at once, and it is meant
    /// to be repeated: a claim may commit just after its worker was declared dead. A job is failed if `max_crashes`
    /// workers died with it, and the last of them held no other job: this job kills them.
    pub async fn rescue(&self, max_crashes: u16) -> Result<Rescued, StoreError> {
        let workers =
            sqlx::query!("update sluice.worker set state = 'dead' where state = 'live' and lease_until < now()")
                .execute(&self.db)
                .await
                .doing("looking for dead workers")?
                .rows_affected();
        let rescued = self.rescue_left(max_crashes).await?;
        Ok(Rescued { workers, ..rescued })
    }

    /// As [`rescue`](Self::rescue), but only for workers that are known to be dead or gone; leases are not examined.
    /// For a worker that cannot tell yet whether the others are silent, or were cut off together with it and had no
    /// time to report.
    pub async fn rescue_left(&self, max_crashes: u16) -> Result<Rescued, StoreError> {
        let mut total = Rescued::default();
        loop {
            let (jobs, poisoned) = self.rescue_some(max_crashes).await?;
            total.jobs += jobs;
            total.poisoned += poisoned;
            if jobs + poisoned == 0 {
                return Ok(total);
            }
        }
    }

    /// Takes a thousand jobs from workers that are gone; returns how many went back into the queue and how many failed.
    async fn rescue_some(&self, max_crashes: u16) -> Result<(u64, u64), StoreError> {
        let mut transaction = self.db.begin().await.doing("rescuing jobs")?;
        // The number of jobs that it held is noted before the first of them goes: the rescue of the last ones needs it
        // too.
        sqlx::query!(
            "update sluice.worker w
                set stats = w.stats || jsonb_build_object('held_at_death', (
                        select count(*) from sluice.inflight i where i.worker = any (array[w.id])))
              where w.state <> 'live' and not w.stats ? 'held_at_death'
                and exists (select from sluice.inflight i where i.worker = any (array[w.id]))"
        )
        .execute(&mut transaction)
        .await
        .doing("rescuing jobs")?;
        // The calls come first: the cost in an ending is read from the ledger.
        let orphans = sqlx::query!(
            r#"with orphan as materialized (
                select i as held from sluice.worker w join sluice.inflight i on i.worker = any (array[w.id])
                 where w.state <> 'live' limit 1000 for update of i skip locked
            )
            select (held).job_id as "job_id!", (held).fence as "fence!",
                   sluice.book_open_call(held, 'worker_died') as "booked!"
              from orphan"#
        )
        .fetch_all(&mut transaction)
        .await
        .doing("rescuing jobs")?;
        if orphans.is_empty() {
            return Ok((0, 0));
        }
        let row = sqlx::query_file!(
            "src/store/lease/rescue.sql",
            i32::from(max_crashes),
            &orphans.iter().map(|orphan| orphan.job_id).collect::<Vec<_>>(),
            &orphans.iter().map(|orphan| orphan.fence).collect::<Vec<_>>()
        )
        .fetch_one(&mut transaction)
        .await
        .doing("rescuing jobs")?;
        let batches: Vec<&str> = row.batches.iter().map(String::as_str).collect();
        stop_loss::note_failures(&mut transaction, &batches).await?;
        transaction.commit().await.doing("rescuing jobs")?;
        for (job, crashes) in row.poison.iter().zip(row.crashes) {
            tracing::warn!(job.id = job, workers = crashes, "the job has failed: this many workers died with it");
        }
        if !row.poison.is_empty()
            && let Err(error) = self.tell_ended(&row.poison).await
        {
            // A notice is a hint; the results are committed.
            tracing::debug!(error = %error, "a notice of jobs that have ended was dropped");
        }
        Ok((u64::try_from(row.back).unwrap_or(0), row.poison.len() as u64))
    }

    /// The fences of those of these claims whose rows another transaction has locked, as one does that has cancelled
    /// their jobs and has not ended. It waits for none of them.
    pub async fn locked(&self, claims: &[Lease]) -> Result<HashSet<i64>, StoreError> {
        let locked = sqlx::query_scalar!(
            r#"with w as (
                select * from unnest($1::bigint[], $2::bigint[]) w(job_id, fence)
            ), free as materialized (
                select i.fence from w join sluice.inflight i on i.job_id = any (array[w.job_id]) and i.fence = w.fence
                   for update of i skip locked
            )
            select i.fence from w join sluice.inflight i on i.job_id = any (array[w.job_id]) and i.fence = w.fence
             where i.fence not in (select f.fence from free f)"#,
            &claims.iter().map(|claim| claim.job.0).collect::<Vec<_>>(),
            &claims.iter().map(|claim| claim.fence).collect::<Vec<_>>()
        )
        .fetch_all(&self.db)
        .await
        .doing("looking for claims that are locked")?;
        Ok(locked.into_iter().collect())
    }

    /// Declares workers dead whose processes are known to have ended, so that their leases need not run out first.
    pub async fn declare_dead(&self, workers: &[i64]) -> Result<u64, StoreError> {
        let declared =
            sqlx::query!("update sluice.worker set state = 'dead' where id = any ($1) and state = 'live'", workers)
                .execute(&self.db)
                .await
                .doing("declaring workers dead")?;
        Ok(declared.rows_affected())
    }

    /// Gives back jobs that the queue lists for this worker and the worker does not know: the reply to their claim was
    /// lost, or the database has lost their ending. A call that had
    /// begun for such a job is booked, as its result is no longer known. `known` are the fences of everything that the
    /// worker holds or has not settled yet; it must claim nothing in between. A job that another transaction has locked
    /// is left for the next time.
    pub async fn give_back_unknown(&self, worker: i64, known: &[i64]) -> Result<u64, StoreError> {
        let held = sqlx::query!(
            r#"select count(*) as "unknown!" from sluice.inflight where worker = $1 and fence <> all ($2)"#,
            worker,
            known
        )
        .fetch_one(&self.db)
        .await
        .doing("comparing what is held")?;
        if held.unknown == 0 {
            return Ok(0);
        }
        let mut transaction = self.db.begin().await.doing("giving back jobs of a lost claim")?;
        let unknown = sqlx::query!(
            r#"with lost as materialized (
                select i as held from sluice.inflight i
                 where i.worker = $1 and i.fence <> all ($2) for update of i skip locked
            )
            select (held).job_id as "job_id!", (held).fence as "fence!",
                   sluice.book_open_call(held, 'lost_answer') as "booked!"
              from lost"#,
            worker,
            known
        )
        .fetch_all(&mut transaction)
        .await
        .doing("giving back jobs of a lost claim")?;
        // By their fences: if the server runs this late, it must not take jobs that were claimed since.
        let given_back = sqlx::query!(
            "with lost as (
                 delete from sluice.inflight i using unnest($1::bigint[], $2::bigint[]) u(job_id, fence)
                  where i.job_id = any (array[u.job_id]) and i.fence = u.fence
                 returning i.flow, i.prio, i.job_id, greatest(i.attempts, i.call_number) as attempts, i.crashes, i.round
             )
             insert into sluice.ready (flow, prio, job_id, attempts, crashes, round)
                  select flow, prio, job_id, attempts, crashes, round from lost",
            &unknown.iter().map(|row| row.job_id).collect::<Vec<_>>(),
            &unknown.iter().map(|row| row.fence).collect::<Vec<_>>()
        )
        .execute(&mut transaction)
        .await
        .doing("giving back jobs of a lost claim")?;
        transaction.commit().await.doing("giving back jobs of a lost claim")?;
        Ok(given_back.rows_affected())
    }

    /// An identity that no other database has. A spool on disk belongs to it.
    pub async fn installation(&self) -> Result<String, StoreError> {
        sqlx::query_scalar!(
            r#"select id || '-' || current_database() as "installation!" from sluice.installation limit 1"#
        )
        .fetch_one(&self.db)
        .await
        .doing("reading which database this is")
    }

    /// Puts parked jobs whose time has come into the queue, earliest first; returns how many.
    pub async fn promote(&self) -> Result<u64, StoreError> {
        let promoted = sqlx::query!(
            "with due as materialized (
                 select job_id from sluice.parked where run_at <= now()
                   order by run_at limit 2000 for update skip locked
             ), gone as (
                 delete from sluice.parked p using due d where p.job_id = any (array[d.job_id])
                 returning p.flow, p.prio, p.job_id, p.attempts, p.crashes, p.round, p.reason
             )
             insert into sluice.ready (flow, prio, job_id, attempts, crashes, round, waited)
                  select flow, prio, job_id, attempts, crashes, round, reason from gone"
        )
        .execute(&self.db)
        .await
        .doing("waking parked jobs")?;
        Ok(promoted.rows_affected())
    }

    /// Wakes the jobs that wait for a provider, ten seconds from now: by then every worker has heard that it is open.
    /// Returns how many jobs that were.
    pub async fn wake_waiting_for(&self, provider: &str) -> Result<u64, StoreError> {
        let mut woken = 0_u64;
        loop {
            let some = sqlx::query!(
                "update sluice.parked p set run_at = now() + interval '10 seconds'
                  where p.ctid = any (array(
                        select w.ctid from sluice.parked w
                         where w.run_at > now() + interval '15 seconds' and starts_with(w.reason, $1 || '/')
                         limit 10000 for update skip locked))",
                provider
            )
            .execute(&self.db)
            .await
            .doing("waking jobs that wait for a provider")?
            .rows_affected();
            woken = woken.saturating_add(some);
            if some == 0 {
                return Ok(woken);
            }
        }
    }

    /// When the next parked job is due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let due = sqlx::query_scalar!(
            "select nullif(least(first.run_at, '9999-12-31 00:00:00+00'), '9999-12-31 00:00:00+00')
               from (select run_at from sluice.parked order by run_at limit 1) first"
        )
        .fetch_optional(&self.db)
        .await
        .doing("looking at parked jobs")?;
        Ok(due.flatten().map(timestamp))
    }
}
