//! The work left that budgets cover.

use super::READING;
use crate::domain::NanoUsd;
use crate::domain::budget::{Budget, Coverage, Need, Outlay, Remainder};
use crate::domain::rotation::Rotation;
use crate::store::lanes::{Lane, Look};
use crate::store::{Doing, Store, StoreError};
use std::collections::{BTreeSet, HashMap};

/// So many ready jobs are counted in all lanes together, …
const MOST_READY: i64 = 1_000_000;
/// … so many in one lane, and so many that rest.
const MOST_COUNTED: i64 = 100_000;

/// Jobs that have not ended.
struct Open {
    route: String,
    project: String,
    login: String,
    is_in_batch: bool,
    jobs: i64,
}

/// Jobs that have ended lately, and the money spent meanwhile.
struct Ended {
    route: String,
    project: String,
    login: String,
    provider: String,
    jobs: i64,
    spent: NanoUsd,
}

impl Open {
    fn asked(&self) -> Outlay<'_> {
        let Self { route, project, login, .. } = self;
        Outlay { route, project, batch: None, login: Some(login), provider: None, worst: None }
    }
}

impl Ended {
    fn asked(&self) -> Outlay<'_> {
        let Self { route, project, login, provider, .. } = self;
        Outlay { route, project, batch: None, login: Some(login), provider: Some(provider), worst: None }
    }
}

/// The work left that this budget covers. Which jobs a provider will be asked for is not known: of each route it is
/// taken to get the share of the money that it got lately.
fn need(scope: &Coverage, open: &[Open], ended: &[Ended]) -> Need {
    if !scope.is_provider() {
        let covered = || ended.iter().filter(|ended| scope.covers(&ended.asked()));
        return Need::of([Remainder {
            jobs_left: open.iter().filter(|open| scope.covers(&open.asked())).map(|open| open.jobs).sum(),
            ended: covered().map(|ended| ended.jobs).sum(),
            spent: covered().fold(NanoUsd::ZERO, |spent, ended| spent + ended.spent),
        }]);
    }
    let called = ended.iter().filter(|ended| scope.covers(&ended.asked()) && ended.spent.0 > 0);
    let routes: BTreeSet<&str> = called.map(|ended| ended.route.as_str()).collect();
    Need::of(routes.into_iter().map(|route| {
        let of_route = || ended.iter().filter(|ended| ended.route == route);
        Remainder {
            jobs_left: open.iter().filter(|open| open.route == route).map(|open| open.jobs).sum(),
            ended: of_route().map(|ended| ended.jobs).sum(),
            spent: of_route()
                .filter(|ended| scope.covers(&ended.asked()))
                .fold(NanoUsd::ZERO, |spent, ended| spent + ended.spent),
        }
    }))
}

impl Store {
    /// The work left that each of these budgets covers, by their names.
    pub async fn budget_needs(
        &self,
        budgets: impl IntoIterator<Item = &Budget>,
    ) -> Result<HashMap<String, Need>, StoreError> {
        let (of_batches, others): (Vec<&Budget>, Vec<&Budget>) =
            budgets.into_iter().partition(|budget| matches!(budget.scope, Coverage::Batch(_)));
        let mut needs = self.needs_of_batches(&of_batches).await?;
        if !others.is_empty() {
            let open = self.open().await?;
            let ended = self.ended_lately().await?;
            needs.extend(others.iter().map(|budget| (budget.name.clone(), need(&budget.scope, &open, &ended))));
        }
        Ok(needs)
    }

    /// By the index of batches, of which there may be many.
    async fn needs_of_batches(&self, budgets: &[&Budget]) -> Result<HashMap<String, Need>, StoreError> {
        let batches: Vec<String> = budgets.iter().map(|budget| budget.scope.name().to_owned()).collect();
        let rows = sqlx::query!(
            r#"select t.batch as "batch!", sum(t.enqueued - t.succeeded - t.failed - t.cancelled)::bigint as "left!",
                      coalesce(sum(t.succeeded + t.failed)
                                   filter (where t.hour > now() - interval '30 days'), 0)::bigint as "ended!",
                      sluice.capped(coalesce(sum(t.cost_nanos + t.uncertain_nanos)
                                                 filter (where t.hour > now() - interval '30 days'), 0)) as "spent!"
                 from sluice.totals t where t.batch <> '' and t.batch = any ($1) group by t.batch"#,
            &batches
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        let needs: HashMap<String, Need> = rows
            .into_iter()
            .map(|row| {
                let remainder = Remainder { jobs_left: row.left, ended: row.ended, spent: NanoUsd(row.spent) };
                (row.batch, Need::of([remainder]))
            })
            .collect();
        let known = |budget: &&Budget| Some((budget.name.clone(), *needs.get(budget.scope.name())?));
        Ok(budgets.iter().filter_map(known).collect())
    }

    /// The jobs that have not ended, counted in the queue. Where it is too long for that, the sums tell of the jobs of
    /// batches, which they count when they come; of the others it is then so many at least.
    async fn open(&self) -> Result<Vec<Open>, StoreError> {
        let (mut open, is_all_ready) = self.ready().await?;
        let (others, are_all_others) = self.resting_and_running().await?;
        open.extend(others);
        if !(is_all_ready && are_all_others) {
            open.retain(|open| !open.is_in_batch);
            open.extend(self.open_in_batches().await?);
        }
        Ok(open)
    }

    /// Ready jobs, and whether these are all.
    async fn ready(&self) -> Result<(Vec<Open>, bool), StoreError> {
        let Look { lanes, is_all, .. } = self.look(&mut Rotation::default(), &[], 0).await?;
        let flows: Vec<i64> = lanes.iter().map(|lane| lane.flow).collect();
        let prios: Vec<i16> = lanes.iter().map(|lane| lane.prio).collect();
        let firsts: Vec<i64> = lanes.iter().map(|lane| lane.first).collect();
        let most = (MOST_READY / i64::try_from(lanes.len()).unwrap_or(i64::MAX).max(1)).clamp(1_000, MOST_COUNTED);
        let counts = sqlx::query_scalar!(
            r#"select c.rows as "rows!"
                 from unnest($1::bigint[], $2::smallint[], $3::bigint[]) with ordinality l(flow, prio, first, n)
                      cross join lateral (
                          select count(*) as rows from (
                              select from sluice.ready r
                               where r.flow = l.flow and r.prio = l.prio and r.job_id >= l.first limit $4) as seen) c
                order by l.n"#,
            &flows,
            &prios,
            &firsts,
            most
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        let are_all = is_all && counts.iter().all(|jobs| *jobs < most);
        let open = |(Lane { route, project, batch, login, .. }, jobs)| Open {
            route,
            project,
            login,
            is_in_batch: batch.is_some(),
            jobs,
        };
        Ok((lanes.into_iter().zip(counts).map(open).collect(), are_all))
    }

    /// Jobs that rest or run, and whether these are all.
    async fn resting_and_running(&self) -> Result<(Vec<Open>, bool), StoreError> {
        let open = sqlx::query_as!(
            Open,
            r#"with seen as (
                select flow, job_id from (select flow, job_id from sluice.parked limit $1) parked
                 union all
                select flow, job_id from sluice.inflight
            ), flow as (
                select flow, count(*) as rows, min(job_id) as job_id from seen group by flow
            )
            select j.route as "route!", j.project as "project!", j.enqueued_by as "login!",
                   j.batch is not null as "is_in_batch!", sum(f.rows)::bigint as "jobs!"
              from flow f cross join lateral (
                       select b.route, b.project, b.batch, b.enqueued_by
                         from sluice.job b where b.id = f.job_id limit 1) j
             group by j.route, j.project, j.enqueued_by, j.batch is not null"#,
            MOST_COUNTED
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        let are_all = open.iter().map(|open| open.jobs).sum::<i64>() < MOST_COUNTED;
        Ok((open, are_all))
    }

    /// Jobs of batches by the sums. Those by day have no batches, and are few; what is outside of batches is taken off.
    async fn open_in_batches(&self) -> Result<Vec<Open>, StoreError> {
        sqlx::query_as!(
            Open,
            r#"select s.route as "route!", s.project as "project!", s.login as "login!", true as "is_in_batch!",
                      sum(s.jobs)::bigint as "jobs!"
                 from (select route, project, login, sum(enqueued - succeeded - failed - cancelled) as jobs
                         from sluice.totals_days group by route, project, login
                        union all
                       select route, project, login, sum(succeeded + failed + cancelled - enqueued)
                         from sluice.totals where batch = '' group by route, project, login) s
                group by s.route, s.project, s.login having sum(s.jobs) <> 0"#
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)
    }

    async fn ended_lately(&self) -> Result<Vec<Ended>, StoreError> {
        let rows = sqlx::query!(
            r#"select route as "route!", project as "project!", login as "login!", provider as "provider!",
                      sum(succeeded + failed)::bigint as "jobs!",
                      sluice.capped(sum(cost_nanos + uncertain_nanos)) as "spent!"
                 from sluice.totals_days where hour > now() - interval '30 days'
                group by route, project, login, provider"#
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        let ended = rows.into_iter().map(|row| Ended {
            route: row.route,
            project: row.project,
            login: row.login,
            provider: row.provider,
            jobs: row.jobs,
            spent: NanoUsd(row.spent),
        });
        Ok(ended.collect())
    }
}
