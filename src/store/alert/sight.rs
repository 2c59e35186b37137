//! What the rules of alerts look at, beside what others read already.

use super::super::{Doing, Store, StoreError};
use super::seconds;
use crate::domain::NanoUsd;
use crate::domain::alert::{LostHow, LostWorker, RouteFlow, StoppedBatch, UsualHour};
use crate::store::claim::timestamp;
use std::time::Duration;

const LOOKING: &str = "looking for what alerts tell of";

impl Store {
    /// The workers that were lost and are not forgotten yet. One whose lease has run out counts from when another
    /// worker has found it dead: while the database is away all leases run out.
    pub async fn lost_workers(&self) -> Result<Vec<LostWorker>, StoreError> {
        let rows = sqlx::query!(
            r#"select w.id, w.host, w.seen_at, w.stats ->> 'fallen' as fallen,
                      exists (select from sluice.worker s where s.host = w.host and s.id > w.id and s.state = 'live'
                                 and s.lease_until > now()) as "has_successor!",
                      exists (select from sluice.alert a where a.rule in ('worker_lost', 'loop_lost')
                                 and a.subject = 'worker ' || w.id || ' on ' || w.host and a.fired_at is not null)
                          as "is_told!"
                 from sluice.worker w
                where w.state = 'dead' or w.state = 'gone' and w.stats ? 'fallen'
                order by w.id"#
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        let lost = rows.into_iter().map(|row| LostWorker {
            id: row.id,
            host: row.host,
            how: row.fallen.map_or(LostHow::Died, LostHow::Fell),
            seen_at: timestamp(row.seen_at),
            has_successor: row.has_successor,
            is_told: row.is_told,
        });
        Ok(lost.collect())
    }

    /// Notes, of a worker that has stopped, which part of it has ended unexpectedly.
    pub async fn note_fallen(&self, worker: i64, part: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "update sluice.worker set stats = stats || jsonb_build_object('fallen', $2::text) where id = $1",
            worker,
            part
        )
        .execute(&self.db)
        .await
        .doing("noting which part has failed")?;
        Ok(())
    }

    /// What the jobs of each route have come to over each of these times, in their order: to the minute where it was
    /// noted, else from the beginning of the hour. Notes what they have come to in this hour so far.
    ///
    /// Sums that are not folded yet may be millions of rows, so they are read once.
    pub async fn look_at_flows<const N: usize>(
        &self,
        windows: [Duration; N],
    ) -> Result<[Vec<RouteFlow>; N], StoreError> {
        let rows = sqlx::query!(
            r#"with span as materialized (
                select w.place, b.at, date_trunc('hour', coalesce(b.at, now() - make_interval(secs => w.secs))) as hour
                  from unnest($1::float8[]) with ordinality w(secs, place) cross join lateral (
                       select max(s.taken_at) as at from sluice.alert_sample s
                        where s.taken_at <= now() - make_interval(secs => w.secs)
                          and s.taken_at > now() - make_interval(secs => w.secs) - interval '10 minutes') b
            ), hours as materialized (
                select t.hour, t.route, sum(t.succeeded + t.failed + t.cancelled) as ended,
                       sum(t.succeeded) as answered, sum(t.fallbacks) as fallbacks, sum(t.cost_nanos) as cost_nanos,
                       sum(t.extra_nanos) as extra_nanos
                  from sluice.totals_all t
                 where t.hour >= (select least(min(p.hour), date_trunc('hour', now())) from span p)
                 group by t.hour, t.route
            ), noted as (
                insert into sluice.alert_sample (taken_at, route, ended, answered, fallbacks, cost_nanos, extra_nanos)
                select now(), h.route, sum(h.ended), sum(h.answered), sum(h.fallbacks),
                       sluice.capped(sum(h.cost_nanos)), sluice.capped(sum(h.extra_nanos))
                  from hours h where h.hour >= date_trunc('hour', now()) group by h.route
                 union all
                select now(), '', 0, 0, 0, 0, 0
                on conflict do nothing
            ), sums as (
                select p.place, h.route, h.ended, h.answered, h.fallbacks, h.cost_nanos, h.extra_nanos
                  from span p join hours h on h.hour >= p.hour
                 union all
                select p.place, s.route, -s.ended, -s.answered, -s.fallbacks, -s.cost_nanos, -s.extra_nanos
                  from span p join sluice.alert_sample s on s.taken_at = p.at
            )
            select u.place as "place!", u.route as "route!", sum(u.ended)::bigint as "ended!",
                   sum(u.answered)::bigint as "answered!", sum(u.fallbacks)::bigint as "fallbacks!",
                   sluice.capped(sum(u.cost_nanos)) as "cost!", sluice.capped(sum(u.extra_nanos)) as "extra!"
              from sums u where u.route <> '' group by u.place, u.route order by u.route"#,
            &windows.map(seconds)[..]
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        let mut flows: [Vec<RouteFlow>; N] = std::array::from_fn(|_| Vec::new());
        for row in rows {
            let place = usize::try_from(row.place - 1).ok();
            if let Some(flows) = place.and_then(|place| flows.get_mut(place)) {
                flows.push(RouteFlow {
                    route: row.route,
                    ended: row.ended,
                    answered: row.answered,
                    fallbacks: row.fallbacks,
                    cost: NanoUsd(row.cost),
                    extra: NanoUsd(row.extra),
                });
            }
        }
        Ok(flows)
    }

    /// Whether a worker has noted within this time what jobs have come to.
    pub async fn flows_were_noted(&self, within: Duration) -> Result<bool, StoreError> {
        let noted = sqlx::query_scalar!(
            r#"select exists (select from sluice.alert_sample where taken_at > now() - make_interval(secs => $1))
                   as "noted!""#,
            seconds(within)
        );
        noted.fetch_one(&self.db).await.doing(LOOKING)
    }

    /// What an hour usually costs: the median of the hours of the last week that have cost something, the last two
    /// left out.
    pub async fn usual_hour(&self) -> Result<UsualHour, StoreError> {
        let row = sqlx::query!(
            r#"select coalesce(percentile_disc(0.5) within group (order by h.cost), 0)::bigint as "cost!",
                      count(*) as "hours!"
                 from (select sluice.capped(sum(t.cost_nanos)) as cost from sluice.totals_all t
                        where t.hour >= date_trunc('hour', now()) - interval '7 days'
                          and t.hour < date_trunc('hour', now()) - interval '1 hour'
                        group by t.hour having sum(t.cost_nanos) > 0) h"#
        )
        .fetch_one(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(UsualHour { cost: NanoUsd(row.cost), hours: row.hours })
    }

    /// The batches that are paused by their stop-loss.
    pub async fn stopped_batches(&self) -> Result<Vec<StoppedBatch>, StoreError> {
        let rows = sqlx::query!(
            r#"select s.batch, coalesce(p.reason, 'stop-loss') as "reason!"
                 from sluice.stop_loss s join sluice.pause p on p.kind = 'batch' and p.name = s.batch
                where s.stopped_at is not null order by s.batch limit 1000"#
        )
        .fetch_all(&self.db)
        .await
        .doing(LOOKING)?;
        Ok(rows.into_iter().map(|row| StoppedBatch { batch: row.batch, reason: row.reason }).collect())
    }
}
