//! Why jobs do not go on. All faces ask here: `sluice.waits_for` says it in fixed words, and other facts about it are
//! read beside them.

use super::batch::Batch;
use super::lanes::Lane;
use super::status::PauseRecord;
use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use crate::domain::budget::Budgets;
use crate::domain::long_calls::LongCalls;
use crate::domain::obstacle::{Circumstances, Obstacle, Pause, Subject};
use crate::domain::pause::{FixedWait, PauseKind, Pauses};
use crate::domain::statistics::Statistics;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const REASONS: &str = "looking at what jobs wait for";

/// How many of a batch's jobs are examined for what each of them rests for.
const SAMPLE: i64 = 200;

/// Jobs that have their obstacle in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) route: String,
    pub(super) project: String,
    pub(super) batch: Option<String>,
    /// The login that enqueued them; `None`: of several logins, or it is not asked.
    pub(super) login: Option<String>,
    /// The reason in the row of a parked job; `None`: it is ready.
    pub(super) rests: Option<String>,
    /// Whether that rest is over.
    pub(super) is_due: bool,
}

impl Store {
    /// The known obstacle of each, in the fixed words.
    pub(super) async fn obstacles(&self, spots: &[Spot]) -> Result<Vec<Option<String>>, StoreError> {
        if spots.is_empty() {
            return Ok(Vec::new());
        }
        // There may be a million lanes, so lanes that have no bearing on the answer are left out of the question: only
        // paused projects, and batches that are paused or have a worker of their own, are asked about one by one.
        let alone: HashSet<String> = sqlx::query_scalar!(
            r#"select c.it ->> 'only' as "batch!" from sluice.claimers s cross join jsonb_array_elements(s.said) c(it)
                where c.it ->> 'only' is not null"#
        )
        .fetch_all(&self.db)
        .await
        .doing(REASONS)?
        .into_iter()
        .collect();
        let pauses = self.pauses().await?;
        let budgets = self.budgets().await?.budgets;
        let asked: Vec<Spot> =
            spots.iter().map(|spot| spot.without_what_does_not_matter(&pauses, &alone, &budgets)).collect();
        let each: Vec<&Spot> = asked.iter().collect::<HashSet<_>>().into_iter().collect();
        let texts = |of: fn(&Spot) -> Option<&str>| each.iter().map(|spot| of(spot).map(str::to_owned)).collect();
        let routes: Vec<Option<String>> = texts(|spot| Some(&spot.route));
        let projects: Vec<Option<String>> = texts(|spot| Some(&spot.project));
        let batches: Vec<Option<String>> = texts(|spot| spot.batch.as_deref());
        let rests: Vec<Option<String>> = texts(|spot| spot.rests.as_deref());
        let logins: Vec<Option<String>> = texts(|spot| spot.login.as_deref());
        let due: Vec<bool> = each.iter().map(|spot| spot.is_due).collect();
        let reasons = sqlx::query_scalar!(
            r#"select coalesce(sluice.waits_for(h.claimers, h.paused, s.route, s.project, s.batch, s.rests, s.due),
                               sluice.login_budget(h.paused, s.login)) as reason
                 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[])
                          with ordinality s(route, project, batch, rests, due, login, n)
                      cross join sluice.hindrances h
                order by s.n"#,
            &routes as _,
            &projects as _,
            &batches as _,
            &rests as _,
            &due,
            &logins as _
        )
        .fetch_all(&self.db)
        .await
        .doing(REASONS)?;
        let found: HashMap<&Spot, Option<String>> = each.into_iter().zip(reasons).collect();
        Ok(asked.iter().map(|spot| found.get(spot).cloned().flatten()).collect())
    }

    /// The kind of each pause that is in force.
    pub async fn paused_kinds(&self) -> Result<Vec<PauseKind>, StoreError> {
        Ok(self.pause_records().await?.iter().filter_map(|record| PauseKind::named(&record.kind)).collect())
    }

    /// What obstacles are told from: pauses, and what live workers say.
    pub async fn known(&self) -> Result<Circumstances, StoreError> {
        let pauses = self.pause_records().await?;
        let workers =
            sqlx::query_scalar!("select stats from sluice.worker where state = 'live' and lease_until > now()")
                .fetch_all(&self.db)
                .await
                .doing("reading workers")?;
        let now =
            sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&self.db).await.doing("reading the clock")?;
        Ok(Circumstances {
            now: Timestamp(now.timestamp_millis()),
            pauses: pauses.iter().filter_map(PauseRecord::known).collect(),
            budgets: self.budgets().await?.budgets.0,
            workers: workers.iter().map(Statistics::read).collect(),
        })
    }

    /// What all unfinished jobs of a batch wait for, if it is known of each of them that it waits: the obstacle of most
    /// of them, with the [others](Obstacle::others) beside it.
    ///
    /// Where the batch as a whole is held up by nothing, its last jobs are examined, because those are taken last: if
    /// all of them rest and none is in a worker's hands, it is what they rest for.
    ///
    /// To a login that may not read the sums only the fixed words of its own jobs' obstacle are told.
    pub async fn batch_obstacle(&self, name: &str) -> Result<Option<Obstacle>, StoreError> {
        if !self.reads_all().await? {
            return self.own_batch_obstacle(name).await;
        }
        let groups = sqlx::query!(
            r#"select t.route as "route!", t.project as "project!" from sluice.totals t
                where t.batch <> '' and t.batch = $1 group by t.route, t.project
               having sum(t.enqueued) > sum(t.succeeded) + sum(t.failed) + sum(t.cancelled)"#,
            name
        )
        .fetch_all(&self.db)
        .await
        .doing("looking at what the batch waits for")?;
        let spot = |route: &str, project: &str| Spot {
            route: route.to_owned(),
            project: project.to_owned(),
            batch: Some(name.to_owned()),
            login: None,
            rests: None,
            is_due: true,
        };
        let spots: Vec<Spot> = groups.iter().map(|group| spot(&group.route, &group.project)).collect();
        let reasons = self.obstacles(&spots).await?;
        let first = spots.iter().zip(&reasons).find_map(|(spot, reason)| Some((spot, reason.as_deref()?)));
        // A job that is not known to wait may well be moving.
        let common = first.filter(|_| reasons.iter().all(Option::is_some));
        if let Some((spot, reason)) = common {
            let known = self.known().await?;
            let of = |spot: &Spot, reason: &str| Obstacle::of(reason, spot.subject(None), &known);
            let mut obstacle = of(spot, reason);
            let each = spots.iter().zip(reasons.iter().flatten()).map(|(spot, reason)| of(spot, reason).stuck);
            let stuck: Vec<_> = each.collect();
            let are_stuck = stuck.iter().all(|stuck| !stuck.is_empty());
            obstacle.stuck = if are_stuck { stuck.into_iter().flatten().collect() } else { Vec::new() };
            obstacle.stuck.dedup();
            obstacle.others = others(reasons.iter().flatten(), reason);
            // A job that no worker could take yet does not wait for one.
            if obstacle.is_no_worker()
                && let Some(rest) = self.common_rest(name).await?.filter(|rest| !rest.is_no_worker())
            {
                return Ok(Some(rest));
            }
            return Ok(Some(obstacle));
        }
        if groups.is_empty() { Ok(None) } else { self.common_rest(name).await }
    }

    /// Why an unfinished batch stands still, as far as is known: what all its jobs wait for, and its calls that have
    /// been under way for long.
    pub async fn standstill(&self, batch: &Batch) -> Result<(Option<Obstacle>, Option<LongCalls>), StoreError> {
        if batch.unfinished() <= 0 {
            return Ok((None, None));
        }
        Ok((self.batch_obstacle(&batch.name).await?, self.long_calls_of_batch(&batch.name).await?))
    }

    /// The obstacle that the unfinished jobs of this login in a batch have in common, as far as this login may know.
    async fn own_batch_obstacle(&self, name: &str) -> Result<Option<Obstacle>, StoreError> {
        let row = sqlx::query!(r#"select sluice.own_batch_waits_for($1) as reason, now() as "now!""#, name)
            .fetch_one(&self.db)
            .await
            .doing("looking at what the batch waits for")?;
        let now = Timestamp(row.now.timestamp_millis());
        let known = Circumstances { now, ..Circumstances::default() };
        let subject = Subject { route: "", project: None, batch: Some(name), ready_at: None, rests_until: None };
        Ok(row.reason.map(|reason| Obstacle::of(&reason, subject, &known)))
    }

    /// Whether a worker has a job of the batch in its hands. To a login that may not read the sums: no.
    pub async fn is_batch_in_hand(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.reads_all().await? && self.holds_jobs_of(name).await?)
    }

    async fn holds_jobs_of(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"select exists (select from sluice.inflight i cross join lateral (
                                     select b.batch from sluice.job b where b.id = i.job_id limit 1) j
                               where j.batch = $1) as "held!""#,
            name
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at what the batch waits for")
    }

    /// The reason for which all of a batch's last jobs rest.
    async fn common_rest(&self, name: &str) -> Result<Option<Obstacle>, StoreError> {
        let rows = sqlx::query!(
            r#"with last as materialized (
                select j.id, j.route, j.project from sluice.job j where j.batch = $1 order by j.id desc limit $2
            )
            select l.route as "route!", l.project as "project!", p.reason as "reason?",
                   coalesce(p.run_at <= now(), false) as "due!",
                   case when p.run_at is not null
                        then (extract(epoch from least(p.run_at, '9999-12-31 00:00:00+00')) * 1000)::bigint end
                       as until_ms
              from last l left join sluice.parked p on p.job_id = l.id
             where not exists (select from sluice.result r where r.job_id = l.id)
             order by p.run_at nulls first"#,
            name,
            SAMPLE
        )
        .fetch_all(&self.db)
        .await
        .doing("looking at what the batch waits for")?;
        if rows.is_empty() {
            return Ok(None);
        }
        // A job that is not known to wait may well be moving.
        if self.holds_jobs_of(name).await? {
            return Ok(None);
        }
        let spots: Vec<Spot> = rows
            .iter()
            .map(|row| Spot {
                route: row.route.clone(),
                project: row.project.clone(),
                batch: Some(name.to_owned()),
                login: None,
                rests: row.reason.clone(),
                is_due: row.due || row.reason.is_none(),
            })
            .collect();
        let reasons = self.obstacles(&spots).await?;
        if reasons.iter().any(Option::is_none) {
            return Ok(None);
        }
        let mut jobs: BTreeMap<&str, usize> = BTreeMap::new();
        reasons.iter().flatten().for_each(|reason| *jobs.entry(reason).or_default() += 1);
        // What was scheduled is meant to wait, so the others say more.
        let says_most = |(reason, jobs): &(&str, usize)| (*reason != FixedWait::Scheduled.as_str(), *jobs);
        let Some((commonest, _)) = jobs.into_iter().max_by_key(says_most) else { return Ok(None) };
        let Some(at) = reasons.iter().position(|reason| reason.as_deref() == Some(commonest)) else { return Ok(None) };
        let (Some(spot), Some(row)) = (spots.get(at), rows.get(at)) else { return Ok(None) };
        let known = self.known().await?;
        let mut obstacle = Obstacle::of(commonest, spot.subject(row.until_ms.map(Timestamp)), &known);
        obstacle.others = others(reasons.iter().flatten(), commonest);
        if !obstacle.others.is_empty() {
            // Each of them has a reason of its own: whether no target can be called at all is not known.
            obstacle.stuck = Vec::new();
        }
        Ok(Some(obstacle))
    }
}

/// The reasons beside this one, each once.
fn others<'a>(reasons: impl Iterator<Item = &'a String>, reason: &str) -> Vec<String> {
    let others: BTreeSet<&String> = reasons.filter(|other| *other != reason).collect();
    others.into_iter().cloned().collect()
}

impl Spot {
    /// The ready jobs of a lane.
    pub(super) fn ready(lane: &Lane) -> Self {
        let (route, project, batch) = (lane.route.clone(), lane.project.clone(), lane.batch.clone());
        Self { route, project, batch, login: Some(lane.login.clone()), rests: None, is_due: true }
    }

    fn without_what_does_not_matter(&self, pauses: &Pauses, alone: &HashSet<String>, budgets: &Budgets) -> Self {
        let has_budget = |kind: &str, name: &str| {
            budgets.0.iter().any(|it| it.budget.scope.kind() == kind && it.budget.scope.name() == name)
        };
        let matters = |batch: &&String| {
            alone.contains(*batch) || pauses.has(PauseKind::Batch, batch) || has_budget("batch", batch)
        };
        let project_matters = pauses.has(PauseKind::Project, &self.project) || has_budget("project", &self.project);
        Self {
            project: if project_matters { self.project.clone() } else { String::new() },
            batch: self.batch.as_ref().filter(matters).cloned(),
            login: self.login.as_ref().filter(|login| has_budget("login", login)).cloned(),
            ..self.clone()
        }
    }

    pub(super) fn subject(&self, rests_until: Option<Timestamp>) -> Subject<'_> {
        Subject {
            route: &self.route,
            project: Some(&self.project),
            batch: self.batch.as_deref(),
            ready_at: None,
            rests_until,
        }
    }
}

impl PauseRecord {
    /// The pause, if this program knows such.
    #[must_use]
    pub fn known(&self) -> Option<Pause> {
        Some(Pause {
            kind: PauseKind::named(&self.kind)?,
            name: self.name.clone(),
            by: self.by.clone(),
            since: Timestamp(self.since.timestamp_millis()),
            why: self.reason.clone(),
        })
    }
}
