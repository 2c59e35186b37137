//! Messages on their way to receivers: leased, sent, tried again, given up.

use super::super::{Doing, Store, StoreError};
use crate::domain::alert::AlertMessage;
use crate::domain::diagnosis::AlertMail;
use std::time::Duration;

const SENDING: &str = "looking for messages to send";

/// A message that this worker is to send.
#[derive(Clone, Debug, PartialEq)]
pub struct LeasedMessage {
    /// Its number.
    pub id: i64,
    /// The id by which a receiver tells it from others, the same at each try.
    pub message_id: String,
    pub receiver: String,
    pub message: AlertMessage,
    /// How often it has been tried, this time included: the fence of the lease.
    pub tries: i32,
    /// How old it is.
    pub age: Duration,
}

impl Store {
    /// Leases the next message to each of these receivers, where one is due: the oldest first, and of one alert always
    /// in order. Another worker may send it when the lease is over.
    pub async fn lease_messages(
        &self,
        worker: i64,
        receivers: &[String],
        lease: Duration,
    ) -> Result<Vec<LeasedMessage>, StoreError> {
        let rows = sqlx::query!(
            r#"with next as materialized (
                select d.id from unnest($2::text[]) r(name) cross join lateral (
                       select m.id from sluice.alert_delivery m
                        where m.receiver = r.name and m.delivered_at is null and m.gave_up_at is null
                          and m.due_at <= now() and coalesce(m.leased_until, '-infinity') < now()
                          and not exists (select from sluice.alert_delivery e
                                           where e.alert = m.alert and e.receiver = m.receiver and e.id < m.id
                                             and e.delivered_at is null and e.gave_up_at is null)
                        order by m.id limit 1 for update skip locked) d
            )
            update sluice.alert_delivery d
               set leased_until = now() + make_interval(secs => $3), leased_by = $1, tries = d.tries + 1
              from next n where d.id = n.id
            returning d.id, d.message_id, d.receiver, d.message, d.tries,
                      extract(epoch from now() - d.written_at)::float8 as "age!""#,
            worker,
            receivers,
            super::seconds(lease)
        )
        .fetch_all(&self.db)
        .await
        .doing(SENDING)?;
        let leased = rows.into_iter().map(|row| LeasedMessage {
            id: row.id,
            message_id: row.message_id,
            receiver: row.receiver,
            message: AlertMessage::stored(row.message),
            tries: row.tries,
            age: Duration::try_from_secs_f64(row.age).unwrap_or_default(),
        });
        Ok(leased.collect())
    }

    /// Notes that a receiver has taken a message. False: another worker has the lease by now.
    pub async fn message_sent(
        &self,
        worker: i64,
        sent: &LeasedMessage,
        status: Option<u16>,
    ) -> Result<bool, StoreError> {
        let noted = sqlx::query!(
            "update sluice.alert_delivery
                set delivered_at = now(), leased_until = null, leased_by = null, last_status = $4, last_words = null
              where id = $1 and leased_by = $2 and tries = $3",
            sent.id,
            worker,
            sent.tries,
            status.map(i32::from)
        )
        .execute(&self.db)
        .await
        .doing("noting a message that was sent")?;
        Ok(noted.rows_affected() > 0)
    }

    /// Notes that a receiver did not take a message, which is tried again after `pause`, or given up without one.
    /// `with_others`: its receiver is at fault, so that its other messages wait too.
    pub async fn message_failed(
        &self,
        worker: i64,
        failed: &LeasedMessage,
        status: Option<u16>,
        words: &str,
        pause: Option<Duration>,
        with_others: bool,
    ) -> Result<(), StoreError> {
        let noted = sqlx::query!(
            "update sluice.alert_delivery
                set leased_until = null, leased_by = null, last_status = $4, last_words = $5,
                    due_at = now() + make_interval(secs => coalesce($6, 0)),
                    gave_up_at = case when $6::float8 is null then now() end
              where id = $1 and leased_by = $2 and tries = $3",
            failed.id,
            worker,
            failed.tries,
            status.map(i32::from),
            words.replace('\0', "\u{fffd}"),
            pause.map(super::seconds) as _
        )
        .execute(&self.db)
        .await
        .doing("noting a message that was not taken")?;
        if let (Some(pause), true) = (pause, with_others && noted.rows_affected() > 0) {
            sqlx::query!(
                "update sluice.alert_delivery d set due_at = now() + make_interval(secs => $2)
                  where d.id in (select m.id from sluice.alert_delivery m
                                  where m.receiver = $1 and m.delivered_at is null and m.gave_up_at is null
                                    and m.due_at < now() + make_interval(secs => $2) and m.leased_until is null
                                    for update skip locked)",
                failed.receiver,
                super::seconds(pause)
            )
            .execute(&self.db)
            .await
            .doing("noting a receiver that takes nothing")?;
        }
        Ok(())
    }

    /// Gives up messages that are older than this, whichever worker was to send them: their receiver may be
    /// configured no more.
    pub async fn give_up_messages(&self, age: Duration) -> Result<u64, StoreError> {
        let given_up = sqlx::query!(
            "update sluice.alert_delivery
                set gave_up_at = now(), leased_until = null,
                    last_words = coalesce(last_words, 'no worker has this receiver')
              where delivered_at is null and gave_up_at is null
                and written_at < now() - make_interval(secs => $1)
                and coalesce(leased_until, '-infinity') < now()",
            super::seconds(age)
        )
        .execute(&self.db)
        .await
        .doing("giving up messages")?;
        Ok(given_up.rows_affected())
    }

    /// The messages that did not get through.
    pub async fn alert_mail(&self) -> Result<AlertMail, StoreError> {
        let row = sqlx::query!(
            r#"select count(*) filter (where gave_up_at is not null) as "given_up!",
                      count(*) filter (where gave_up_at is null) as "late!",
                      coalesce(array_agg(distinct receiver), '{}') as "receivers!"
                 from sluice.alert_delivery
                where gave_up_at > now() - interval '1 day'
                   or delivered_at is null and gave_up_at is null and written_at < now() - interval '10 minutes'"#
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at messages of alerts")?;
        Ok(AlertMail { given_up: row.given_up, late: row.late, receivers: row.receivers })
    }
}
