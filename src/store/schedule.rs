//! Schedules as all workers share them, their ticks, and the transaction in which a tick enqueues its jobs.

use super::claim::{datetime, timestamp};
use super::enqueue::{BulkEnqueue, BulkOptions};
use super::{Doing, Store, StoreError, database};
use crate::domain::Timestamp;
use crate::domain::alert::AlertMessage;
use crate::domain::schedule::Schedule;
use chrono::{DateTime, Utc};
use database::Transaction;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::time::Duration;
use tokio::sync::mpsc;

const READING: &str = "reading schedules";
const NOTING: &str = "noting a tick";
const TAKING: &str = "taking a tick";
const REPORTING: &str = "noting a report";
const SELECTING: &str = "running the statement of a schedule";

/// Ticks that are forgotten at once, at most.
const FORGET_AT_ONCE: i64 = 10_000;

/// A schedule as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRow {
    pub name: String,
    /// When it fires, as the worker said that was seen last.
    pub cron: String,
    pub timezone: String,
    pub enabled: bool,
    /// The other settings in that worker's configuration.
    pub settings: Value,
    /// Every tick up to here is dealt with.
    pub looked_at: DateTime<Utc>,
    pub next_at: Option<DateTime<Utc>>,
    /// When a worker last said that it has this schedule.
    pub seen_at: DateTime<Utc>,
    pub paused_at: Option<DateTime<Utc>>,
    /// The login that paused it.
    pub paused_by: Option<String>,
    pub pause_reason: Option<String>,
}

impl ScheduleRow {
    /// Whether a worker with this configuration may deal with its ticks: it fires when this one says.
    #[must_use]
    pub fn is_of(&self, schedule: &Schedule) -> bool {
        self.cron == schedule.line.to_string()
            && self.timezone == schedule.zone.to_string()
            && self.enabled == schedule.is_enabled
    }
}

/// The outcome of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickRow {
    pub schedule: String,
    pub at: DateTime<Utc>,
    /// `asked`, `retrying`, `done`, `skipped` or `failed`.
    pub state: String,
    pub by_hand: bool,
    /// The login that asked for it, or that of the worker.
    pub login: String,
    pub worker: Option<i64>,
    pub batch: Option<String>,
    pub jobs: i64,
    /// The number under which its jobs can be cancelled.
    pub enqueue: Option<i64>,
    pub failures: i16,
    pub retry_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
    pub ended_at: DateTime<Utc>,
    /// What it reported, and where to.
    pub reported: Option<String>,
}

/// A tick that was asked for or that has failed, whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTick {
    pub schedule: String,
    pub at: Timestamp,
    pub by_hand: bool,
    /// How often it has failed.
    pub failures: usize,
}

/// What workers share of all schedules, as of one look.
#[derive(Clone, Debug)]
pub struct SchedulesAt {
    /// The database's time.
    pub now: Timestamp,
    pub rows: Vec<ScheduleRow>,
    /// Ticks that are to be run, beside those that the clock says.
    pub open: Vec<OpenTick>,
}

/// A tick, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickNote {
    pub schedule: String,
    pub at: Timestamp,
    pub by_hand: bool,
    /// The worker that deals with it; `None`: a command.
    pub worker: Option<i64>,
}

/// A tick that was taken.
#[derive(Debug)]
pub enum TakenTick {
    /// Its jobs may be pushed; they and the row of the tick become visible together.
    Open {
        bulk: Box<BulkEnqueue>,
        /// The batch of the last tick that enqueued, and how many of its jobs have not ended.
        last: Option<(String, i64)>,
    },
    /// Another process deals with this schedule.
    Busy,
    /// It is dealt with, or its schedule is paused by now.
    Over,
}

/// A tick of a report that was taken: its row and the message that it sends become visible together.
#[derive(Debug)]
pub struct ReportTurn {
    transaction: Transaction,
}

/// Whether a tick of a report was taken.
#[derive(Debug)]
pub enum TakenReport {
    /// The report may be made.
    Open(ReportTurn),
    /// Another process deals with this schedule.
    Busy,
    /// It is dealt with, or its schedule is paused by now.
    Over,
}

/// Whether a tick may be dealt with.
enum Turn {
    Ours,
    Busy,
    Over,
}

impl Store {
    /// All schedules that workers have said they have, and the ticks to be run beside those of the clock.
    pub async fn schedules_at(&self) -> Result<SchedulesAt, StoreError> {
        let now =
            sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&self.db).await.doing(READING)?;
        let rows = self.schedules().await?;
        let open = sqlx::query!(
            "select t.schedule, t.at, t.by_hand, t.failures from sluice.tick t
              where t.state in ('asked', 'retrying') and (t.retry_at is null or t.retry_at <= clock_timestamp())
              order by t.schedule, t.at"
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        let open = open.into_iter().map(|row| OpenTick {
            schedule: row.schedule,
            at: timestamp(row.at),
            by_hand: row.by_hand,
            failures: usize::try_from(row.failures).unwrap_or(0),
        });
        Ok(SchedulesAt { now: timestamp(now), rows, open: open.collect() })
    }

    /// All schedules that workers have said they have, by their names.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        sqlx::query_as!(
            ScheduleRow,
            "select s.name, s.cron, s.timezone, s.enabled, s.settings, s.looked_at, s.next_at, s.seen_at, s.paused_at,
                    s.paused_by, s.pause_reason
               from sluice.schedule s order by s.name"
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)
    }

    /// The newest ticks, of one schedule or of each, so many of each.
    pub async fn ticks(&self, schedule: Option<&str>, most: i64) -> Result<Vec<TickRow>, StoreError> {
        sqlx::query_as!(
            TickRow,
            r#"select t.schedule as "schedule!", t.at as "at!", t.state as "state!", t.by_hand as "by_hand!",
                      t.login as "login!", t.worker, t.batch, t.jobs as "jobs!", t.enqueue, t.failures as "failures!",
                      t.retry_at, t.reason, t.ended_at as "ended_at!", t.reported
                 from sluice.schedule s
                      cross join lateral (select x.* from sluice.tick x where x.schedule = s.name
                                           order by x.at desc limit $2) t
                where $1::text is null or s.name = $1
                order by t.schedule, t.at desc"#,
            schedule,
            most
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)
    }

    /// Says that a worker has this schedule. A new one, and one that fires at other times than before, begins now.
    /// `next`: its next tick.
    pub async fn register_schedule(
        &self,
        schedule: &Schedule,
        settings: &Value,
        next: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "with turn as (
                insert into sluice.schedule_turn (schedule) values ($1) on conflict do nothing
            )
            insert into sluice.schedule as s (name, cron, timezone, enabled, settings, next_at)
                 values ($1, $2, $3, $4, $5, $6)
            on conflict (name) do update
                set cron = excluded.cron, timezone = excluded.timezone, enabled = excluded.enabled,
                    settings = excluded.settings, next_at = excluded.next_at, seen_at = now(),
                    looked_at = case when (s.cron, s.timezone, s.enabled)
                                          is distinct from (excluded.cron, excluded.timezone, excluded.enabled)
                                     then greatest(s.looked_at, now()) else s.looked_at end",
            schedule.name,
            schedule.line.to_string(),
            schedule.zone.to_string(),
            schedule.is_enabled,
            settings,
            next.map(datetime) as _
        )
        .execute(&self.db)
        .await
        .doing("saying which schedules there are")?;
        Ok(())
    }

    /// Goes on from an instant, because the clock was set back behind the instant of the last look.
    pub async fn set_schedule_back(&self, name: &str, looked_at: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query!(
            "update sluice.schedule s set looked_at = $3 where s.name = $1 and s.looked_at >= $2",
            name,
            datetime(looked_at),
            datetime(now)
        )
        .execute(&self.db)
        .await
        .doing(NOTING)?;
        Ok(())
    }

    /// Takes a tick, so that no other process deals with it, and begins to enqueue.
    pub async fn take_tick(&self, tick: &TickNote, options: BulkOptions) -> Result<TakenTick, StoreError> {
        self.partitions_ahead().await?;
        let mut transaction = self.begin_long().await?;
        match take(&mut transaction, tick).await? {
            Turn::Ours => {}
            Turn::Busy => {
                transaction.rollback().await.doing(TAKING)?;
                return Ok(TakenTick::Busy);
            }
            Turn::Over => {
                transaction.rollback().await.doing(TAKING)?;
                return Ok(TakenTick::Over);
            }
        }
        let last = sqlx::query!(
            r#"select l.batch as "batch!",
                      (select coalesce(sum(x.enqueued - x.succeeded - x.failed - x.cancelled), 0)::bigint
                         from sluice.totals x where x.batch <> '' and x.batch = l.batch) as "left!"
                 from (select t.batch from sluice.tick t
                        where t.schedule = $1 and t.state = 'done' and t.jobs > 0
                        order by t.at desc limit 1) l
                where l.batch is not null"#,
            tick.schedule
        )
        .fetch_optional(&mut transaction)
        .await
        .doing(TAKING)?;
        let last = last.map(|row| (row.batch, row.left));
        Ok(TakenTick::Open { bulk: Box::new(self.bulk_in(transaction, options)), last })
    }

    /// Takes the tick of a report, so that no other process deals with it.
    pub async fn take_report(&self, tick: &TickNote) -> Result<TakenReport, StoreError> {
        let mut transaction = self.begin_long().await?;
        let taken = take(&mut transaction, tick).await?;
        if let Turn::Ours = taken {
            return Ok(TakenReport::Open(ReportTurn { transaction }));
        }
        transaction.rollback().await.doing(TAKING)?;
        Ok(if let Turn::Busy = taken { TakenReport::Busy } else { TakenReport::Over })
    }

    /// Notes that ticks are left out, each for a reason, unless another process has dealt with them. True: it was this
    /// process that noted them.
    pub async fn skip_ticks(&self, ticks: &[(TickNote, String)]) -> Result<bool, StoreError> {
        let Some((first, _)) = ticks.first() else { return Ok(false) };
        let at: Vec<DateTime<Utc>> = ticks.iter().map(|(tick, _)| datetime(tick.at)).collect();
        let reasons: Vec<&str> = ticks.iter().map(|(_, reason)| reason.as_str()).collect();
        let mut transaction = self.db.begin().await.doing(NOTING)?;
        if !turn(&mut transaction, &first.schedule).await? {
            transaction.rollback().await.doing(NOTING)?;
            return Ok(false);
        }
        let noted = sqlx::query!(
            "insert into sluice.tick as t (schedule, at, state, by_hand, worker, reason)
             select $1, u.at, 'skipped', $4, $5, u.reason from unnest($2::timestamptz[], $3::text[]) u(at, reason)
             on conflict (schedule, at) do update
                 set state = 'skipped', reason = excluded.reason, worker = excluded.worker, retry_at = null,
                     ended_at = now()
               where t.state in ('asked', 'retrying')",
            first.schedule,
            &at,
            &reasons as _,
            first.by_hand,
            first.worker
        )
        .execute(&mut transaction)
        .await
        .doing(NOTING)?;
        look_on(&mut transaction, &first.schedule, at.iter().max().copied().filter(|_| !first.by_hand)).await?;
        transaction.commit().await.doing(NOTING)?;
        Ok(noted.rows_affected() > 0)
    }

    /// Notes that a tick has failed, for this reason. `retry_at`: it is tried again.
    pub async fn fail_tick(
        &self,
        tick: &TickNote,
        failures: usize,
        retry_at: Option<Timestamp>,
        reason: &str,
    ) -> Result<(), StoreError> {
        let mut transaction = self.db.begin().await.doing(NOTING)?;
        sqlx::query!(
            "insert into sluice.tick as t (schedule, at, state, by_hand, worker, failures, retry_at, reason)
                  values ($1, $2, case when $6::timestamptz is null then 'failed' else 'retrying' end, $3, $4, $5, $6,
                          $7)
             on conflict (schedule, at) do update
                 set state = excluded.state, worker = excluded.worker, failures = excluded.failures,
                     retry_at = excluded.retry_at, reason = excluded.reason, ended_at = now()
               where t.state in ('asked', 'retrying')",
            tick.schedule,
            datetime(tick.at),
            tick.by_hand,
            tick.worker,
            i16::try_from(failures).unwrap_or(i16::MAX),
            retry_at.map(datetime) as _,
            reason
        )
        .execute(&mut transaction)
        .await
        .doing(NOTING)?;
        look_on(&mut transaction, &tick.schedule, Some(datetime(tick.at)).filter(|_| !tick.by_hand)).await?;
        transaction.commit().await.doing(NOTING)
    }

    /// Asks the workers to run a schedule now; returns the tick.
    pub async fn ask_for_tick(&self, schedule: &str) -> Result<DateTime<Utc>, StoreError> {
        sqlx::query_scalar!(r#"select sluice.run_schedule($1) as "at!""#, schedule)
            .fetch_one(&self.db)
            .await
            .doing("asking for a tick")
    }

    /// Pauses a schedule; false when it was paused already.
    pub async fn pause_schedule(&self, name: &str, reason: Option<&str>) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.pause_schedule($1, $2) as "changed!""#, name, reason)
            .fetch_one(&self.db)
            .await
            .doing("pausing")
    }

    /// Resumes a schedule; false when it was not paused.
    pub async fn resume_schedule(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.resume_schedule($1) as "changed!""#, name)
            .fetch_one(&self.db)
            .await
            .doing("resuming")
    }

    /// Forgets ticks that are older than this, but for the last of each schedule, and schedules that no worker has had
    /// for that long. Returns how many.
    pub async fn forget_ticks(&self, keep: Duration) -> Result<u64, StoreError> {
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let forgotten = sqlx::query!(
            "with old as (
                select t.schedule, t.at from sluice.tick t
                 where t.ended_at < now() - make_interval(secs => least($1::bigint, 1e10)::double precision)
                   and t.state in ('done', 'skipped', 'failed')
                   and (exists (select from sluice.tick n where n.schedule = t.schedule and n.at > t.at)
                        or not exists (select from sluice.schedule s where s.name = t.schedule))
                 limit $2
            )
            delete from sluice.tick t using old o where t.schedule = o.schedule and t.at = o.at",
            keep,
            FORGET_AT_ONCE
        )
        .execute(&self.db)
        .await
        .doing("forgetting ticks")?;
        sqlx::query!(
            "with gone as (
                delete from sluice.schedule_turn t
                 where not exists (select from sluice.schedule s where s.name = t.schedule)
            )
            delete from sluice.schedule s
              where s.seen_at < now() - make_interval(secs => least($1::bigint, 1e10)::double precision)
                and s.paused_at is null",
            keep
        )
        .execute(&self.db)
        .await
        .doing("forgetting schedules")?;
        Ok(forgotten.rows_affected())
    }

    /// Runs the statement of a schedule in a transaction that can only read, and sends each row as a line of JSON, in
    /// the order of the columns. `current_setting('sluice.tick')` is the tick, and `sluice.last_tick` the last
    /// one before it that was done, or `-infinity`.
    ///
    /// # Errors
    /// Those of the database. The receiver is gone: nothing more is read, and that is no error.
    pub async fn select_rows(
        &self,
        statement: &str,
        timeout: Duration,
        tick: &TickNote,
        lines: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.db.begin().await.doing(SELECTING)?;
        transaction.wait_for_ever();
        sqlx::raw_sql("set transaction read only").execute(&mut transaction).await.doing(SELECTING)?;
        sqlx::query!(
            "select set_config('statement_timeout', $1, true) as work,
                    set_config('sluice.tick', $2::timestamptz::text, true) as tick,
                    set_config('sluice.last_tick',
                               coalesce((select max(t.at) from sluice.tick t
                                          where t.schedule = $3 and t.state = 'done' and t.at < $2),
                                        '-infinity')::text,
                               true) as last",
            timeout.as_millis().clamp(1, 2_147_483_647).to_string(),
            datetime(tick.at),
            tick.schedule
        )
        .fetch_one(&mut transaction)
        .await
        .doing(SELECTING)?;
        // The line break ends a comment of the statement.
        let statement = statement.trim().trim_end_matches(';');
        let statement = format!("select row_to_json(rows_of_schedule)::text from (\n{statement}\n) rows_of_schedule");
        {
            let mut rows =
                sqlx::query_scalar::<_, String>(AssertSqlSafe(statement)).persistent(false).fetch(&mut transaction);
            while let Some(row) = rows.try_next().await.doing(SELECTING)? {
                let mut line = row.into_bytes();
                line.push(b'\n');
                if lines.send(line).await.is_err() {
                    break;
                }
            }
        }
        transaction.rollback().await.doing(SELECTING)
    }
}

impl ReportTurn {
    /// Notes that the report was made, in these words, and puts the message, if it is one, into the queue of its
    /// receiver: both or neither.
    pub async fn commit(
        mut self,
        tick: &TickNote,
        reported: &str,
        message: Option<(&str, &AlertMessage)>,
    ) -> Result<(), StoreError> {
        if let Some((receiver, message)) = message {
            sqlx::query!(
                "insert into sluice.alert_delivery (receiver, kind, message) values ($1, $2, $3)",
                receiver,
                message.kind(),
                message.value()
            )
            .execute(&mut self.transaction)
            .await
            .doing(REPORTING)?;
        }
        finish(&mut self.transaction, tick, "", 0, None, Some(reported)).await?;
        self.transaction.commit().await.doing(REPORTING)
    }

    /// Gives the tick back.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.transaction.rollback().await.doing(REPORTING)
    }
}

impl StoreError {
    /// Whether the server gave up what a report reads, as an operator or a limit of time wants, and may take it later.
    #[must_use]
    pub fn is_of_reading(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return false };
        // A pooler says of class 08 that it has lost the server.
        self.is_transient() && error.code().is_none_or(|code| !code.starts_with("08"))
    }

    /// Why the statement of a schedule has failed, without a value of a row: those may be prompts.
    #[must_use]
    pub fn of_statement(&self) -> String {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return self.to_string() };
        let code = error.code().unwrap_or_default().into_owned();
        // The fault of the statement itself speaks of names, and is told in the server's words.
        match code.as_str() {
            "57014" => "the statement took longer than sql_timeout".to_owned(),
            "25006" => "the statement wants to write, and runs in a transaction that can only read".to_owned(),
            "57P01" => "the session of the statement was ended, by a person or by a server that stops".to_owned(),
            code if code.starts_with("42") => format!("the statement: {}", error.message()),
            code => format!("the statement has failed with SQLSTATE {code} (its message may quote rows)"),
        }
    }
}

/// Takes the turn of a tick until the end of the transaction, if the tick is still due.
async fn take(transaction: &mut Transaction, tick: &TickNote) -> Result<Turn, StoreError> {
    if !turn(transaction, &tick.schedule).await? {
        return Ok(Turn::Busy);
    }
    let state = sqlx::query!(
        r#"select s.paused_at is not null as "paused!",
                  (select t.state from sluice.tick t where t.schedule = s.name and t.at = $2) as tick
             from sluice.schedule s where s.name = $1"#,
        tick.schedule,
        datetime(tick.at)
    )
    .fetch_optional(transaction)
    .await
    .doing(TAKING)?;
    // Without a row the schedule was removed.
    let Some(state) = state else { return Ok(Turn::Over) };
    let is_over = state.tick.is_some_and(|state| state != "asked" && state != "retrying");
    Ok(if is_over || (state.paused && !tick.by_hand) { Turn::Over } else { Turn::Ours })
}

/// Takes the turn of a schedule until the end of the transaction. False: another transaction has it.
async fn turn(transaction: &mut Transaction, schedule: &str) -> Result<bool, StoreError> {
    let turn = sqlx::query!(
        "select t.schedule from sluice.schedule_turn t where t.schedule = $1 for update skip locked",
        schedule
    )
    .fetch_optional(transaction)
    .await
    .doing(TAKING)?;
    Ok(turn.is_some())
}

/// Notes that all ticks of a schedule up to this one are dealt with.
async fn look_on(transaction: &mut Transaction, schedule: &str, at: Option<DateTime<Utc>>) -> Result<(), StoreError> {
    let Some(at) = at else { return Ok(()) };
    sqlx::query!("update sluice.schedule s set looked_at = $2 where s.name = $1 and s.looked_at < $2", schedule, at)
        .execute(transaction)
        .await
        .doing(NOTING)?;
    Ok(())
}

/// Notes that a tick has enqueued its jobs, in their transaction, or what it `reported`.
pub(super) async fn finish(
    transaction: &mut Transaction,
    tick: &TickNote,
    batch: &str,
    jobs: i64,
    enqueue: Option<i64>,
    reported: Option<&str>,
) -> Result<(), StoreError> {
    let noted = sqlx::query!(
        "insert into sluice.tick as t (schedule, at, state, by_hand, worker, batch, jobs, enqueue, reported)
              values ($1, $2, 'done', $3, $4, $5, $6, $7, $8)
         on conflict (schedule, at) do update
             set state = 'done', worker = excluded.worker, batch = excluded.batch, jobs = excluded.jobs,
                 enqueue = excluded.enqueue, reported = excluded.reported, retry_at = null, reason = null,
                 ended_at = now()
           where t.state in ('asked', 'retrying')",
        tick.schedule,
        datetime(tick.at),
        tick.by_hand,
        tick.worker,
        (jobs > 0).then_some(batch) as _,
        jobs,
        enqueue,
        reported
    )
    .execute(&mut *transaction)
    .await
    .doing(NOTING)?;
    if noted.rows_affected() == 0 {
        // The turn keeps others from it, so this cannot be; and if it were, nothing may be enqueued twice.
        let source = sqlx::Error::Protocol("the tick is dealt with already".to_owned());
        return Err(StoreError::Sql { doing: NOTING, source });
    }
    look_on(transaction, &tick.schedule, Some(datetime(tick.at)).filter(|_| !tick.by_hand)).await
}
