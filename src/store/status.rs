//! The state of the queue and its workers.

use super::budget::BudgetRow;
use super::lanes::{Lane, Look};
use super::schedule::{ScheduleRow, TickRow};
use super::waits::Spot;
use super::{Doing, Store, StoreError};
use crate::domain::budget::Need;
use crate::domain::long_calls::LongCalls;
use crate::domain::pause::FixedWait;
use crate::domain::rotation::{Rotation, WINDOW};
use crate::domain::shared_bucket::BucketStanding;
use crate::domain::{NanoUsd, Spent, WorkerState};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most rows that are counted in one lane.
const LANE_CAP: i64 = 100_000;
/// The most rows that are counted in all lanes together, roughly: as many as a second is enough for.
const TOTAL_CAP: i64 = 1_000_000;

const UNFINISHED: &str = "looking for unfinished jobs";

/// A number of rows, counted up to a bound: exact counts of millions take seconds, and no report needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many were counted.
    pub rows: i64,
    /// Whether there are more rows.
    pub more: bool,
}

impl Counted {
    fn add(&mut self, rows: i64, more: bool) {
        self.rows += rows;
        self.more |= more;
    }
}

/// The jobs that wait and run on one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteQueue {
    /// Jobs that a worker may take at once, as far as is known.
    pub ready: Counted,
    /// Known obstacles of ready jobs, as `sluice.jobs.waits_for` has them.
    pub held: BTreeMap<String, Held>,
    /// When the first of them could first have been taken; of each project and batch only the job with the lowest
    /// number is examined.
    pub oldest_ready: Option<DateTime<Utc>>,
    /// Jobs in workers' hands.
    pub running: i64,
    /// Their calls that have been under way for long.
    pub long_calls: Option<LongCalls>,
    /// Jobs that wait, by the reason of the wait.
    pub parked: BTreeMap<String, Held>,
}

/// Jobs of one route that one obstacle holds up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub count: Counted,
    /// When the first of them wakes, by its own row.
    pub wakes_at: Option<DateTime<Utc>>,
    /// The paused batches or projects that they are in, the first few of them by name.
    pub names: BTreeSet<String>,
}

/// How many names of paused batches or projects are gathered for each reason.
const NAMES: usize = 20;

impl Held {
    fn add(&mut self, rows: i64, more: bool, wakes_at: Option<DateTime<Utc>>, reason: &str, spot: &Spot) {
        self.count.add(rows, more);
        self.wakes_at = [self.wakes_at, wakes_at].into_iter().flatten().min();
        let name = match FixedWait::read(reason) {
            Some(FixedWait::BatchPaused) => spot.batch.as_ref(),
            Some(FixedWait::ProjectPaused) => Some(&spot.project),
            _ => None,
        };
        if let Some(name) = name.filter(|_| self.names.len() < NAMES) {
            self.names.insert(name.clone());
        }
    }
}

/// The money of routes and targets over the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// From when on: an hour, since sums are kept by the hour. Later than usual when there are very many sums.
    pub since: DateTime<Utc>,
    /// What jobs of each route have cost and brought. Routes without calls are left out.
    pub routes: BTreeMap<String, SpentOnCalls>,
    /// What calls to each target have cost, as `provider/model`, and how many jobs they have answered.
    pub targets: BTreeMap<String, SpentOnCalls>,
}

/// What calls have cost and brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpentOnCalls {
    /// Calls.
    pub attempts: i64,
    /// The money, that of rejected answers included, and the jobs that succeeded.
    pub spent: Spent,
}

/// One worker process.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRecord {
    pub id: i64,
    pub host: String,
    pub pid: i32,
    pub version: String,
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub seen_at: DateTime<Utc>,
    pub state: WorkerState,
    /// Jobs that the queue says it holds.
    pub holds: i64,
    /// The statistics that it published.
    pub stats: Value,
}

impl WorkerRecord {
    /// Whether the worker may act.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state == WorkerState::Live
    }
}

/// Something that is paused, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseRecord {
    /// `route`, `project`, `batch` or `provider`. A text, because a newer version may pause what this one does not
    /// know.
    pub kind: String,
    /// The name of the route, project, batch or provider.
    pub name: String,
    /// When it was paused.
    pub since: DateTime<Utc>,
    pub reason: Option<String>,
    /// The login that paused it; `None`: it is not known.
    pub by: Option<String>,
}

/// The state of the queue and its workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// By route. Routes on which nothing waits or runs are left out.
    pub routes: BTreeMap<String, RouteQueue>,
    pub spending: Spending,
    /// Live workers and, for an hour, those that died or left.
    pub workers: Vec<WorkerRecord>,
    pub pauses: Vec<PauseRecord>,
    /// The limits by bucket, of every bucket that a worker has ever used.
    pub buckets: BTreeMap<String, BucketStanding>,
    pub budgets: Vec<BudgetRow>,
    /// The schedules that workers have, …
    pub schedules: Vec<ScheduleRow>,
    /// … and the last tick of each.
    pub ticks: Vec<TickRow>,
    /// How many alerts fire, by severity.
    pub firing: BTreeMap<String, i64>,
    /// The work left that the budgets cover, by their names.
    pub needs: HashMap<String, Need>,
}

/// Jobs that rest, and have their obstacle in common.
pub(super) struct Resting {
    pub(super) spot: Spot,
    /// The reason in their rows.
    reason: String,
    count: Counted,
    /// When the first of them wakes.
    wakes_at: DateTime<Utc>,
}

impl Store {
    /// Everything that `sluice status` shows. Takes about a second at most, however long the queue.
    pub async fn status(&self) -> Result<Status, StoreError> {
        let now =
            sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&self.db).await.doing("reading the clock")?;
        let routes = self.queue().await?;
        let spending = self.spending().await?;
        let workers = self.workers().await?;
        let pauses = self.pause_records().await?;
        let buckets = self.standings().await?;
        let budgets = self.budget_rows().await?;
        let schedules = self.schedules().await?;
        let ticks = self.ticks(None, 1).await?;
        let firing = self.firing_alerts().await?;
        let needs = self.budget_needs(budgets.iter().map(|row| &row.standing.budget)).await?;
        Ok(Status { now, routes, spending, workers, pauses, buckets, budgets, schedules, ticks, firing, needs })
    }

    /// Everything that is paused, for people.
    pub(super) async fn pause_records(&self) -> Result<Vec<PauseRecord>, StoreError> {
        sqlx::query_as!(
            PauseRecord,
            "select kind, name, since, reason, paused_by as by from sluice.pause order by kind, name"
        )
        .fetch_all(&self.db)
        .await
        .doing("reading pauses")
    }

    /// The jobs that wait and run, by route. Takes about a second at most, however long the queue.
    pub async fn queue(&self) -> Result<BTreeMap<String, RouteQueue>, StoreError> {
        let mut routes = BTreeMap::new();
        self.count_ready(&mut routes).await?;
        self.count_parked(&mut routes).await?;
        self.count_running(&mut routes).await?;
        Ok(routes)
    }

    /// What each route and each target has cost and brought in the last 24 hours. The sums of an hour are as many as
    /// there are batches in it, so at most a hundred thousand of them are read: of the last hours that are complete
    /// among those.
    async fn spending(&self) -> Result<Spending, StoreError> {
        let rows = sqlx::query!(
            r#"with sums as materialized (
                select hour, route, provider, model, attempts, succeeded, cost_nanos, uncertain_nanos, unpriced
                  from sluice.totals
                 where hour >= date_trunc('hour', now()) - interval '23 hours' order by hour desc limit 100001
            ), span as (
                select case when count(*) > 100000 then min(hour) + interval '1 hour'
                            else date_trunc('hour', now()) - interval '23 hours' end as since
                  from sums
            )
            select s.since as "since!", grouping(t.route) = 1 as "is_of_target!", t.route as "route?",
                   t.provider as "provider?", t.model as "model?", coalesce(sum(t.attempts), 0)::bigint as "attempts!",
                   coalesce(sum(t.succeeded), 0)::bigint as "succeeded!",
                   sluice.capped(coalesce(sum(t.cost_nanos), 0)) as "cost!",
                   sluice.capped(coalesce(sum(t.uncertain_nanos), 0)) as "uncertain!",
                   coalesce(sum(t.unpriced), 0)::bigint as "unpriced!"
              from span s left join sums t on t.hour >= s.since
             group by grouping sets ((s.since, t.route), (s.since, t.provider, t.model))"#
        )
        .fetch_all(&self.db)
        .await
        .doing("summing up what was spent")?;
        let since = rows.first().map_or(DateTime::UNIX_EPOCH, |row| row.since);
        let mut spending = Spending { since, ..Spending::default() };
        for row in rows.into_iter().filter(|row| row.attempts > 0) {
            let (cost, uncertain) = (NanoUsd(row.cost), NanoUsd(row.uncertain));
            let spent = Spent { cost, uncertain, unpriced: row.unpriced, accepted: row.succeeded };
            let spent = SpentOnCalls { attempts: row.attempts, spent };
            match (row.is_of_target, row.route, row.provider.zip(row.model)) {
                (false, Some(route), _) => _ = spending.routes.insert(route, spent),
                // Jobs that ended without a call are of no provider.
                (true, _, Some((provider, model))) if !provider.is_empty() => {
                    spending.targets.insert(format!("{provider}/{model}"), spent);
                }
                _ => {}
            }
        }
        Ok(spending)
    }

    /// The standing of every bucket that a worker has ever used, by name.
    pub async fn standings(&self) -> Result<BTreeMap<String, BucketStanding>, StoreError> {
        let (buckets, now) = self.all_buckets().await?;
        Ok(buckets.into_iter().map(|(name, bucket)| (name, bucket.standing(now))).collect())
    }

    async fn count_ready(&self, routes: &mut BTreeMap<String, RouteQueue>) -> Result<(), StoreError> {
        let Look { lanes, is_all, .. } = self.look(&mut Rotation::default(), &[], 0).await?;
        let cap = (TOTAL_CAP / i64::try_from(lanes.len()).unwrap_or(i64::MAX).max(1)).clamp(1000, LANE_CAP);
        let flows: Vec<i64> = lanes.iter().map(|lane| lane.flow).collect();
        let prios: Vec<i16> = lanes.iter().map(|lane| lane.prio).collect();
        let firsts: Vec<i64> = lanes.iter().map(|lane| lane.first).collect();
        let counts = sqlx::query!(
            r#"select c.rows as "rows!", case when j.created_at is not null
                           then least(greatest(j.created_at, j.run_at, '1970-01-01 00:00:00+00'),
                             '9999-12-31 00:00:00+00') end as since
                 from unnest($1::bigint[], $2::smallint[], $3::bigint[]) with ordinality l(flow, prio, first, n)
                      cross join lateral (
                          select count(*) as rows from (
                              select from sluice.ready r
                               where r.flow = l.flow and r.prio = l.prio and r.job_id >= l.first limit $4) as seen) c
                      left join lateral (select b.created_at, b.run_at from sluice.job b where b.id = l.first limit 1) j
                             on true
                order by l.n"#,
            &flows,
            &prios,
            &firsts,
            cap + 1
        )
        .fetch_all(&self.db)
        .await
        .doing("counting ready jobs")?;
        let spots: Vec<Spot> = lanes.iter().map(Spot::ready).collect();
        let reasons = self.obstacles(&spots).await?;
        for ((spot, count), reason) in spots.iter().zip(counts).zip(reasons) {
            let queue = routes.entry(spot.route.clone()).or_default();
            // It is not known which routes the other lanes have.
            let is_more = count.rows > cap || !is_all;
            queue.ready.add(count.rows.min(cap), is_more);
            queue.oldest_ready = [queue.oldest_ready, count.since].into_iter().flatten().min();
            if let Some(reason) = reason {
                let held = queue.held.entry(reason.clone()).or_default();
                held.add(count.rows.min(cap), is_more, None, &reason, spot);
            }
        }
        Ok(())
    }

    /// The jobs that rest, in groups that have their obstacle in common. Of very many those that wake first are
    /// counted.
    pub(super) async fn resting(&self) -> Result<Vec<Resting>, StoreError> {
        let rows = sqlx::query!(
            r#"with seen as materialized (
                select flow, reason, run_at, job_id from sluice.parked order by run_at limit $1
            ), flow as (
                select flow, reason, run_at <= now() as due, count(*) as rows, min(run_at) as wakes_at,
                       min(job_id) as job_id
                  from seen group by flow, reason, run_at <= now()
            )
            select j.route as "route!", j.project as "project!", j.batch, f.reason as "reason!", f.due as "due!",
                   sum(f.rows)::bigint as "rows!",
                   least(min(f.wakes_at), '9999-12-31 00:00:00+00') as "wakes_at!",
                   (select count(*) from seen) as "seen!"
              from flow f cross join lateral (
                       select b.route, b.project, b.batch from sluice.job b where b.id = f.job_id limit 1) j
             group by j.route, j.project, j.batch, f.reason, f.due"#,
            LANE_CAP + 1
        )
        .fetch_all(&self.db)
        .await
        .doing("counting parked jobs")?;
        Ok(rows
            .into_iter()
            .map(|row| Resting {
                // It is not known which group the uncounted rows belong to.
                count: Counted { rows: row.rows, more: row.seen > LANE_CAP },
                wakes_at: row.wakes_at,
                reason: row.reason.clone(),
                spot: Spot {
                    route: row.route,
                    project: row.project,
                    batch: row.batch,
                    login: None,
                    rests: Some(row.reason),
                    is_due: row.due,
                },
            })
            .collect())
    }

    async fn count_parked(&self, routes: &mut BTreeMap<String, RouteQueue>) -> Result<(), StoreError> {
        let groups = self.resting().await?;
        let spots: Vec<Spot> = groups.iter().map(|group| group.spot.clone()).collect();
        let reasons = self.obstacles(&spots).await?;
        for (group, reason) in groups.into_iter().zip(reasons) {
            let queue = routes.entry(group.spot.route.clone()).or_default();
            // One that is due and held up by nothing is about to be woken.
            let reason = reason.unwrap_or(group.reason);
            let held = queue.parked.entry(reason.clone()).or_default();
            held.add(group.count.rows, group.count.more, Some(group.wakes_at), &reason, &group.spot);
        }
        Ok(())
    }

    async fn count_running(&self, routes: &mut BTreeMap<String, RouteQueue>) -> Result<(), StoreError> {
        let groups = sqlx::query!(
            r#"with flow as (
                select flow, count(*) as rows, min(job_id) as job_id from sluice.inflight group by flow
            )
            select j.route as "route!", sum(f.rows)::bigint as "rows!"
              from flow f cross join lateral (select b.route from sluice.job b where b.id = f.job_id limit 1) j
             group by j.route"#
        )
        .fetch_all(&self.db)
        .await
        .doing("counting running jobs")?;
        for group in groups {
            routes.entry(group.route).or_default().running = group.rows;
        }
        for (route, calls) in self.long_calls(None).await? {
            routes.entry(route).or_default().long_calls = Some(calls);
        }
        Ok(())
    }

    /// Every worker that is alive, or was within the last hour, or still holds jobs.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select w.id, w.host, w.pid, w.version, w.started_at, w.seen_at, w.stats,
                      case when w.state = 'live' and w.lease_until <= now() then 'dead' else w.state end as "state!",
                      (select count(*) from sluice.inflight i where i.worker = w.id) as "holds!"
                 from sluice.worker w
                order by w.state <> 'live', w.id"#
        )
        .fetch_all(&self.db)
        .await
        .doing("reading workers")?;
        let records = rows.into_iter().map(|row| WorkerRecord {
            id: row.id,
            host: row.host,
            pid: row.pid,
            version: row.version,
            started_at: row.started_at,
            seen_at: row.seen_at,
            state: WorkerState::named(&row.state),
            holds: row.holds,
            stats: row.stats,
        });
        Ok(records.collect())
    }

    /// How many workers are alive.
    pub async fn live_workers(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"select count(*) as "workers!" from sluice.worker where state = 'live' and lease_until > now()"#
        )
        .fetch_one(&self.db)
        .await
        .doing("looking for workers")
    }

    /// Whether jobs of these routes are ready, running or waiting for a retry. Jobs scheduled for later do not count,
    /// nor do paused ones, those of paused routes, projects and batches, and those that rest because their only
    /// provider is paused.
    ///
    /// One statement, so one snapshot: a job that moves from one table to another meanwhile is seen in one of them.
    /// Only where very many lanes have nothing that counts are the others looked through after that, a page at a time.
    pub async fn outstanding(&self, routes: &[String]) -> Result<bool, StoreError> {
        let first =
            sqlx::query_file!("src/store/status/outstanding.sql", routes, i32::try_from(WINDOW).unwrap_or(i32::MAX))
                .fetch_one(&self.db)
                .await
                .doing(UNFINISHED)?;
        let mut from = first.last.filter(|_| !first.busy);
        if from.is_none() {
            return Ok(first.busy);
        }
        let pauses = self.pauses().await?;
        while let Some(flow) = from {
            let (lanes, next) = self.flows_from(flow).await?;
            let counts = |lane: &Lane| {
                routes.contains(&lane.route)
                    && pauses.held_back(&lane.route, &lane.project, lane.batch.as_deref()).is_none()
            };
            if lanes.iter().any(counts) {
                return Ok(true);
            }
            from = next;
        }
        // A job may have been in a worker's hands while its place was examined.
        sqlx::query_scalar!(
            r#"select exists (select from sluice.inflight)
                   or exists (select from sluice.parked k where k.reason not in ('scheduled', 'paused')
                                and not exists (select from sluice.shadow s where s.shadow_id = k.job_id))
                   or exists (select from sluice.parked k where k.run_at <= now() and k.reason = 'scheduled')
                      as "busy!""#
        )
        .fetch_one(&self.db)
        .await
        .doing(UNFINISHED)
    }
}
