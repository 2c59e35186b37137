//! Alerts: which of them are open, what one look changes, and who looks. `migrations/0034…` has the tables.

mod batches;
mod delivery;
mod sight;

pub use delivery::LeasedMessage;

use super::claim::{datetime, timestamp};
use super::database::Transaction;
use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use crate::domain::alert::{
    AlertMessage, AlertNews, AlertRecord, AlertRule, AlertSettings, AlertSeverity, AlertStep, AlertTold, Appetite,
    ResolvedBy, Sighting,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const LOOKING: &str = "looking at alerts";
const WRITING: &str = "writing alerts";

/// The most alerts that a list has.
const MOST_LISTED: i64 = 1000;

/// The turn to look for all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertTurn {
    /// The database's clock.
    pub now: Timestamp,
    /// When a worker has looked last.
    pub looked_at: Option<Timestamp>,
}

/// An alert as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    pub id: i64,
    pub rule: String,
    pub subject: String,
    pub severity: String,
    /// `firing` or `resolved`.
    pub state: String,
    pub summary: String,
    /// The figures behind it.
    pub details: Value,
    pub since: DateTime<Utc>,
    pub fired_at: DateTime<Utc>,
    pub until: Option<DateTime<Utc>>,
    pub reminders: i32,
    /// Messages about it that receivers have taken, …
    pub delivered: i64,
    /// … that wait, …
    pub waiting: i64,
    /// … and that were given up.
    pub given_up: i64,
}

/// What one look has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertChanges {
    /// The alerts that have fired: rule, subject and summary.
    pub fired: Vec<(String, String, String)>,
    /// Those that are over: rule and subject.
    pub resolved: Vec<(String, String)>,
    /// Messages that wait for receivers now.
    pub messages: usize,
}

/// The receivers by their names, with what each of them takes.
pub type Appetites = BTreeMap<String, Appetite>;

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

impl Store {
    /// Takes the turn to look for all, or keeps it, for so long. `None`: another worker has it and lives, or has looked
    /// less than `every` ago.
    pub async fn take_alert_turn(
        &self,
        worker: i64,
        every: Duration,
        lease: Duration,
    ) -> Result<Option<AlertTurn>, StoreError> {
        let row = sqlx::query!(
            r#"update sluice.alert_watch w set worker = $1, leased_until = now() + make_interval(secs => $2)
                where w.id and (w.worker = $1 or w.leased_until < now()
                                or not exists (select from sluice.worker l
                                                where l.id = w.worker and l.state = 'live' and l.lease_until > now()))
                  and coalesce(w.looked_at, '-infinity') <= now() - make_interval(secs => $3)
               returning now() as "now!", w.looked_at"#,
            worker,
            seconds(lease),
            seconds(every)
        )
        .fetch_optional(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(row.map(|row| AlertTurn { now: timestamp(row.now), looked_at: row.looked_at.map(timestamp) }))
    }

    /// Leaves the turn to others at once.
    pub async fn leave_alert_turn(&self, worker: i64) -> Result<(), StoreError> {
        sqlx::query!("update sluice.alert_watch set leased_until = '-infinity' where worker = $1", worker)
            .execute(&self.db)
            .await
            .doing(LOOKING)?;
        Ok(())
    }

    /// The alerts that are not over.
    pub async fn open_alerts(&self) -> Result<Vec<AlertRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select id, rule, subject, since, seen_at, fired_at, gone_since, told_at, reminders
                 from sluice.alert where state <> 'resolved' order by id"#
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        // A rule of a later version is left to the workers that know it.
        let records = rows.into_iter().filter_map(|row| {
            Some(AlertRecord {
                id: row.id,
                rule: AlertRule::parse(&row.rule)?,
                subject: row.subject,
                since: timestamp(row.since),
                seen_at: timestamp(row.seen_at),
                fired_at: row.fired_at.map(timestamp),
                gone_since: row.gone_since.map(timestamp),
                told_at: row.told_at.map(timestamp),
                reminders: row.reminders,
            })
        });
        Ok(records.collect())
    }

    /// Writes what a look changes, with the messages that follow from it, if this worker still has the turn. `None`: it
    /// has not, and nothing was written.
    pub async fn write_alerts(
        &self,
        worker: i64,
        now: Timestamp,
        steps: &[AlertStep<'_>],
        settings: &AlertSettings,
        receivers: &Appetites,
    ) -> Result<Option<AlertChanges>, StoreError> {
        let mut transaction = self.db.begin().await.doing(WRITING)?;
        if !keep_turn(&mut transaction, worker).await? {
            transaction.rollback().await.doing(WRITING)?;
            return Ok(None);
        }
        let mut writing = Writing { transaction, now, settings, receivers, changes: AlertChanges::default() };
        for step in steps {
            writing.step(step).await?;
        }
        let Writing { transaction, changes, .. } = writing;
        transaction.commit().await.doing(WRITING)?;
        Ok(Some(changes))
    }

    /// How many alerts fire, by severity.
    pub async fn firing_alerts(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        let rows = sqlx::query!(
            r#"select severity, count(*) as "alerts!" from sluice.alert where state = 'firing' group by severity"#
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(rows.into_iter().map(|row| (row.severity, row.alerts)).collect())
    }

    /// How many messages wait to be taken, by receiver, and how many of them it has failed to take so far.
    pub async fn undelivered_messages(&self) -> Result<BTreeMap<String, (i64, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"select receiver, count(*) as "waiting!", count(*) filter (where tries > 0) as "refused!"
                 from sluice.alert_delivery where delivered_at is null and gave_up_at is null group by receiver"#
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(rows.into_iter().map(|row| (row.receiver, (row.waiting, row.refused))).collect())
    }

    /// The alerts that fire, and those that have been over for a day at most, or all that are kept; the gravest and
    /// latest first.
    pub async fn alerts(&self, all: bool) -> Result<Vec<AlertRow>, StoreError> {
        sqlx::query_as!(
            AlertRow,
            r#"select a.id as "id!", a.rule as "rule!", a.subject as "subject!", a.severity as "severity!",
                      a.state as "state!", a.summary as "summary!", a.details as "details!", a.since as "since!",
                      a.fired_at as "fired_at!", a.until, a.reminders as "reminders!", a.delivered as "delivered!",
                      a.waiting as "waiting!", a.given_up as "given_up!"
                 from sluice.alerts a
                where $1 or a.state = 'firing' or a.until > now() - interval '1 day'
                order by a.state, a.state = 'firing' and a.severity = 'critical' desc, a.fired_at desc, a.id desc
                limit $2"#,
            all,
            MOST_LISTED
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)
    }

    /// Forgets alerts that have been over for longer than this, messages that were sent or given up, and records no
    /// longer needed to tell the news.
    pub async fn forget_alerts(&self, keep: Duration) -> Result<u64, StoreError> {
        let messages = sqlx::query!(
            "delete from sluice.alert_delivery
              where id in (select id from sluice.alert_delivery
                            where written_at < now() - make_interval(secs => $1)
                              and (delivered_at is not null or gave_up_at is not null)
                            order by written_at limit 10000)",
            seconds(keep)
        )
        .execute(&self.db)
        .await
        .doing(WRITING)?;
        let alerts = sqlx::query!(
            "delete from sluice.alert a
              where a.state = 'resolved' and a.until < now() - make_interval(secs => $1)
                and not exists (select from sluice.alert_delivery d where d.alert = a.id)",
            seconds(keep)
        )
        .execute(&self.db)
        .await
        .doing(WRITING)?;
        sqlx::query!("delete from sluice.alert_sample where taken_at < now() - interval '1 day 2 hours'")
            .execute(&self.db)
            .await
            .doing(WRITING)?;
        sqlx::query!(
            "delete from sluice.batch_end
              where batch in (select batch from sluice.batch_end where ended_at < now() - make_interval(secs => $1)
                               order by ended_at limit 10000)",
            seconds(keep)
        )
        .execute(&self.db)
        .await
        .doing(WRITING)?;
        Ok(messages.rows_affected() + alerts.rows_affected())
    }
}

/// Locks the turn until the end of the transaction. False: another worker has it by now.
async fn keep_turn(transaction: &mut Transaction, worker: i64) -> Result<bool, StoreError> {
    let kept = sqlx::query!(
        "update sluice.alert_watch set looked_at = now() where worker = $1 and leased_until > now()",
        worker
    )
    .execute(transaction)
    .await
    .doing(WRITING)?;
    Ok(kept.rows_affected() > 0)
}

/// One look that is being written.
struct Writing<'a> {
    transaction: Transaction,
    now: Timestamp,
    settings: &'a AlertSettings,
    receivers: &'a Appetites,
    changes: AlertChanges,
}

impl Writing<'_> {
    async fn step(&mut self, step: &AlertStep<'_>) -> Result<(), StoreError> {
        match step {
            AlertStep::Note { sighting } => self.insert(sighting, self.now, false).await.map(|_| ()),
            AlertStep::Fire { id: None, since, sighting } => {
                let Some(id) = self.insert(sighting, *since, true).await? else { return Ok(()) };
                self.fired(id, *since, sighting).await
            }
            AlertStep::Fire { id: Some(id), since, sighting } => {
                self.update(*id, sighting, Some("firing"), None, false).await?;
                self.fired(*id, *since, sighting).await
            }
            AlertStep::See { id, sighting, anew } => self.update(*id, sighting, None, None, *anew).await.map(|_| ()),
            AlertStep::Remind { id, sighting, reminders } => {
                let Some((since, fired_at)) = self.update(*id, sighting, None, Some(*reminders), false).await? else {
                    return Ok(());
                };
                let told = Told { id: *id, since, fired_at, until: None, reminders: *reminders };
                self.tell(AlertNews::Firing, &told, sighting).await
            }
            AlertStep::Miss { id } => {
                sqlx::query!("update sluice.alert set gone_since = $2 where id = $1", id, datetime(self.now))
                    .execute(&mut self.transaction)
                    .await
                    .doing(WRITING)?;
                Ok(())
            }
            AlertStep::Drop { id } => {
                sqlx::query!("delete from sluice.alert where id = $1 and state = 'pending'", id)
                    .execute(&mut self.transaction)
                    .await
                    .doing(WRITING)?;
                Ok(())
            }
            AlertStep::Resolve { id, by } => self.resolve(*id, *by).await,
        }
    }

    /// Inserts an alert. `None`: it is there already.
    async fn insert(
        &mut self,
        sighting: &Sighting,
        since: Timestamp,
        is_firing: bool,
    ) -> Result<Option<i64>, StoreError> {
        let severity = self.settings.rule(sighting.rule).severity;
        sqlx::query_scalar!(
            r#"insert into sluice.alert (rule, subject, severity, state, since, seen_at, fired_at, told_at, summary,
                                         details)
                    values ($1, $2, $3, case when $4 then 'firing' else 'pending' end, $5, $6,
                            case when $4 then $6::timestamptz end, case when $4 then $6::timestamptz end, $7, $8)
               on conflict (rule, subject) where state <> 'resolved' do nothing returning id"#,
            sighting.rule.as_str(),
            sighting.subject,
            severity.as_str(),
            is_firing,
            datetime(since),
            datetime(self.now),
            clean(&sighting.summary),
            details(sighting)
        )
        .fetch_optional(&mut self.transaction)
        .await
        .doing(WRITING)
    }

    /// Writes that it was seen again; returns since when it is there, and when it fired.
    async fn update(
        &mut self,
        id: i64,
        sighting: &Sighting,
        state: Option<&str>,
        reminders: Option<i32>,
        anew: bool,
    ) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
        let severity = self.settings.rule(sighting.rule).severity;
        let is_told = state.is_some() || reminders.is_some();
        let row = sqlx::query!(
            r#"update sluice.alert
                  set seen_at = $2, summary = $3, details = $4, severity = $5, gone_since = null,
                      since = case when $6 then $2 else since end, state = coalesce($7, state),
                      fired_at = case when $7 = 'firing' then $2 else fired_at end,
                      told_at = case when $8 then $2 else told_at end, reminders = coalesce($9, reminders)
                where id = $1 and state <> 'resolved'
               returning since, coalesce(fired_at, since) as "fired_at!""#,
            id,
            datetime(self.now),
            clean(&sighting.summary),
            details(sighting),
            severity.as_str(),
            anew,
            state,
            is_told,
            reminders
        )
        .fetch_optional(&mut self.transaction)
        .await
        .doing(WRITING)?;
        Ok(row.map(|row| (timestamp(row.since), timestamp(row.fired_at))))
    }

    async fn fired(&mut self, id: i64, since: Timestamp, sighting: &Sighting) -> Result<(), StoreError> {
        let summary = clean(&sighting.summary);
        self.changes.fired.push((sighting.rule.as_str().to_owned(), sighting.subject.clone(), summary));
        let told = Told { id, since, fired_at: self.now, until: None, reminders: 0 };
        self.tell(AlertNews::Firing, &told, sighting).await
    }

    async fn resolve(&mut self, id: i64, by: ResolvedBy) -> Result<(), StoreError> {
        let row = sqlx::query!(
            r#"update sluice.alert set state = 'resolved', until = coalesce(gone_since, $2), told_at = $2
                where id = $1 and state = 'firing'
               returning rule, subject, severity, summary, details, since, fired_at as "fired_at!", until as "until!",
                         reminders"#,
            id,
            datetime(self.now)
        )
        .fetch_optional(&mut self.transaction)
        .await
        .doing(WRITING)?;
        let Some(row) = row else { return Ok(()) };
        let (Some(rule), Some(severity)) = (AlertRule::parse(&row.rule), AlertSeverity::parse(&row.severity)) else {
            return Ok(());
        };
        self.changes.resolved.push((row.rule.clone(), row.subject.clone()));
        let summary = match by {
            ResolvedBy::Gone => format!("over: {}", row.summary),
            ResolvedBy::SwitchedOff => format!("its rule was switched off: {}", row.summary),
        };
        let values: BTreeMap<String, String> = serde_json::from_value(row.details).unwrap_or_default();
        let told = AlertTold {
            id,
            rule,
            subject: &row.subject,
            severity,
            summary: &summary,
            values: &values,
            since: timestamp(row.since),
            fired_at: timestamp(row.fired_at),
            until: Some(timestamp(row.until)),
            reminders: row.reminders,
        };
        self.enqueue(AlertNews::Resolved, &told).await
    }

    async fn tell(&mut self, news: AlertNews, told: &Told, sighting: &Sighting) -> Result<(), StoreError> {
        let values: BTreeMap<String, String> =
            sighting.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let told = AlertTold {
            id: told.id,
            rule: sighting.rule,
            subject: &sighting.subject,
            severity: self.settings.rule(sighting.rule).severity,
            summary: &sighting.summary,
            values: &values,
            since: told.since,
            fired_at: told.fired_at,
            until: told.until,
            reminders: told.reminders,
        };
        self.enqueue(news, &told).await
    }

    /// Puts the message into the queue of each receiver that takes it. One that has not been told that it fires is not
    /// told that it is over. Reminders that a receiver has not taken yet give way: it would get all of them at once.
    async fn enqueue(&mut self, news: AlertNews, told: &AlertTold<'_>) -> Result<(), StoreError> {
        let takers: Vec<String> = (self.receivers.iter())
            .filter(|(_, appetite)| appetite.takes(told.rule, told.severity))
            .map(|(name, _)| name.clone())
            .collect();
        let message = AlertMessage::of_alert(news, told, self.settings.source.as_deref(), self.now);
        let written = sqlx::query!(
            "with outdated as (
                delete from sluice.alert_delivery d
                 where d.alert = $3 and d.receiver = any ($1) and d.delivered_at is null and d.gave_up_at is null
                   and coalesce(d.leased_until, '-infinity') < now()
                   and (d.message -> 'data' ->> 'reminders')::integer > 0
             )
             insert into sluice.alert_delivery (receiver, kind, alert, message)
             select r.name, $2, $3, $4 from unnest($1::text[]) r(name)
              where $5 or exists (select from sluice.alert_delivery d where d.alert = $3 and d.receiver = r.name)",
            &takers,
            message.kind(),
            told.id,
            message.value(),
            news == AlertNews::Firing
        )
        .execute(&mut self.transaction)
        .await
        .doing(WRITING)?;
        self.changes.messages += usize::try_from(written.rows_affected()).unwrap_or(0);
        Ok(())
    }
}

/// What a message says beside the sighting.
struct Told {
    id: i64,
    since: Timestamp,
    fired_at: Timestamp,
    until: Option<Timestamp>,
    reminders: i32,
}

fn details(sighting: &Sighting) -> Value {
    let values = sighting.values.iter().map(|(name, value)| ((*name).to_owned(), Value::String(clean(value))));
    Value::Object(values.collect())
}

/// A text as a row can hold it.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
