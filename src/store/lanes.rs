//! The lanes that have ready jobs: all of them while they are few, and a fair sample of bounded size where there are
//! many.

use super::{Doing, Store, StoreError};
use crate::domain::budget::Outlay;
use crate::domain::rotation::{Depth, Rotation, SWEPT, Stretch, WINDOW};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};

/// How many blocks of the table a sweep visits at most: a stretch of rows that are gone, but not yet cleared away, must
/// not keep a look busy.
const BLOCKS: i64 = 2_000;

const LOOKING: &str = "looking for ready jobs";

/// One readable stretch of the queue: the ready jobs of one route, project, batch and login at one priority.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Lane {
    /// Hash of route, project, batch and login.
    pub flow: i64,
    /// The negative of the jobs' priority.
    pub prio: i16,
    /// The jobs' route.
    pub route: String,
    /// The jobs' project.
    pub project: String,
    /// The jobs' batch.
    pub batch: Option<String>,
    /// The login that enqueued them.
    pub login: String,
    /// The first job.
    pub first: i64,
    /// The latest instant at which that job may be called.
    pub deadline: Option<DateTime<Utc>>,
    /// How many jobs there are; `None`: many, or not counted.
    pub jobs: Option<i32>,
    /// Where its only job lies in the table. `None`: not known, or there are more jobs.
    pub place: Option<String>,
}

impl Lane {
    /// Its jobs as budgets see them.
    #[must_use]
    pub fn outlay(&self) -> Outlay<'_> {
        Outlay {
            route: &self.route,
            project: &self.project,
            batch: self.batch.as_deref(),
            login: Some(&self.login),
            provider: None,
            worst: None,
        }
    }
}

/// The lanes that a look found.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The lanes, in the order of the index.
    pub lanes: Vec<Lane>,
    /// Those among them that belong to one of the newest jobs, the newest last. Filled only if not all lanes are here.
    pub newest: Vec<(i64, i16)>,
    /// Whether there are no other lanes.
    pub is_all: bool,
}

/// One of the first jobs of a flow that a sweep found, with where the sweep ended, and how many jobs it saw.
#[derive(sqlx::FromRow)]
struct SweptRow {
    flow: i64,
    prio: i16,
    job_id: i64,
    place: String,
    reached: String,
    swept: i64,
}

/// The front of a flow that a sweep found.
struct Head {
    flow: i64,
    prio: i16,
    first: i64,
    /// Where its first job lies.
    place: String,
    /// How many of the flow's jobs were read.
    jobs: i32,
    /// Whether these have the same priority.
    is_even: bool,
}

impl Head {
    /// So many jobs of a flow are counted.
    const MOST: i32 = 8;

    /// The heads of these rows, in which each flow's jobs come in their order.
    fn of(rows: Vec<SweptRow>) -> Vec<Self> {
        let mut heads: Vec<Self> = Vec::new();
        for row in rows {
            match heads.last_mut().filter(|head| head.flow == row.flow) {
                Some(head) => {
                    head.jobs += 1;
                    head.is_even &= head.prio == row.prio;
                }
                None => heads.push(Self {
                    flow: row.flow,
                    prio: row.prio,
                    first: row.job_id,
                    place: row.place,
                    jobs: 1,
                    is_even: true,
                }),
            }
        }
        heads
    }

    fn lane(self, of: OfJob) -> Lane {
        Lane {
            flow: self.flow,
            prio: self.prio,
            route: of.route,
            project: of.project,
            batch: of.batch,
            login: of.login,
            first: self.first,
            deadline: of.deadline,
            jobs: (self.jobs <= Self::MOST && self.is_even).then_some(self.jobs),
            place: (self.jobs == 1).then_some(self.place),
        }
    }
}

/// What a job says of its lane.
struct OfJob {
    id: i64,
    route: String,
    project: String,
    batch: Option<String>,
    login: String,
    deadline: Option<DateTime<Utc>>,
}

impl Store {
    /// The lanes that have ready jobs, for a caller that looks once: all of them, or a sample where there are many.
    pub async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        Ok(self.look(&mut Rotation::default(), &[], 0).await?.lanes)
    }

    /// The lanes that have ready jobs: all of them, or, where there are many, those of the `known` flows and others of
    /// every login, in rotation, so that over time each is seen. Of each flow it is then the lane with the highest
    /// priority. The cost does not depend on how many jobs or lanes there are. `kept`: how many other lanes with jobs
    /// the caller knows of and need not be looked up.
    pub async fn look(&self, rotation: &mut Rotation, known: &[i64], kept: usize) -> Result<Look, StoreError> {
        if !rotation.has_many {
            let (first, last) = Depth::All.ends(0);
            let lanes = self.walk(&[Stretch { first, last, most: WINDOW + 1 }], false).await?.concat();
            if lanes.len() <= WINDOW {
                return Ok(Look { lanes, newest: Vec::new(), is_all: true });
            }
            rotation.has_many = true;
        }
        let projects = match rotation.known_groups() {
            Some(known) => known,
            None => self.projects(rotation).await?,
        };
        let swept = self.sweep(rotation).await?;
        let flows: Vec<i64> = swept.iter().map(|lane| lane.flow).collect();
        let mut stretches = rotation.beside(&flows, &projects);
        let new = stretches.len();
        stretches.extend(known.iter().map(|flow| Stretch { first: *flow, last: *flow, most: 1 }));
        let walked = self.walk(&stretches, true).await?;
        for (stretch, found) in stretches.iter().zip(&walked).take(new) {
            rotation.note(Depth::Project, stretch, found.len(), found.last().map(|lane| lane.flow));
        }
        // All lanes are read again as soon as there are few.
        let mut seen = HashSet::new();
        let mut lanes: Vec<Lane> =
            walked.into_iter().flatten().chain(swept).filter(|lane| seen.insert((lane.flow, lane.prio))).collect();
        rotation.has_many = kept + lanes.len() >= WINDOW / 2;
        if !rotation.has_many {
            rotation.keep_groups(&[], false);
        }
        let found = self.newest().await?;
        let newest = found.iter().map(|lane| (lane.flow, lane.prio)).collect();
        lanes.extend(found.into_iter().filter(|lane| seen.insert((lane.flow, lane.prio))));
        lanes.sort_unstable_by_key(|lane| (lane.flow, lane.prio));
        Ok(Look { lanes, newest, is_all: false })
    }

    /// The lanes of the jobs that lie next to each other in the table, behind the last sweep, unless this look does
    /// without.
    async fn sweep(&self, rotation: &mut Rotation) -> Result<Vec<Lane>, StoreError> {
        let blocks = sqlx::query_scalar!(
            r#"select pg_relation_size('sluice.ready') / current_setting('block_size')::bigint as "blocks!""#
        );
        let blocks = blocks.fetch_one(&self.db).await.doing(LOOKING)?;
        let Some(behind) = rotation.sweep(blocks) else { return Ok(Vec::new()) };
        let first: i64 = behind.trim_start_matches('(').split(',').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let past = first.saturating_add(BLOCKS);
        let most = i64::try_from(SWEPT).unwrap_or(i64::MAX);
        // Planned anew each time, for the table as it is: for an empty one, reading all of it is the best plan, and a
        // plan that was kept would go on doing so. The macros, which check statements, keep all plans.
        let rows: Vec<SweptRow> = sqlx::query_as(include_str!("lanes/sweep.sql"))
            .bind(behind)
            .bind(past)
            .bind(most)
            .persistent(false)
            .fetch_all(&self.db)
            .await
            .doing(LOOKING)?;
        let full = rows.first().filter(|row| row.swept >= most).map(|row| row.reached.clone());
        rotation.note_sweep(full.or_else(|| (past < blocks).then(|| format!("({past},0)"))));
        let heads = Head::of(rows);
        let mut named = self.names(&heads.iter().map(|head| head.first).collect::<Vec<_>>()).await?;
        let lanes = heads.into_iter().filter_map(|head| {
            let of = named.remove(&head.first)?;
            Some(head.lane(of))
        });
        Ok(lanes.collect())
    }

    /// What these jobs say of their lanes, by their numbers; those that are gone are left out.
    ///
    /// A sweep mostly finds jobs that were enqueued together. To read a stretch of numbers takes a fifth of the time
    /// that it takes to look up each of them.
    async fn names(&self, jobs: &[i64]) -> Result<HashMap<i64, OfJob>, StoreError> {
        let (Some(first), Some(last)) = (jobs.iter().min(), jobs.iter().max()) else { return Ok(HashMap::new()) };
        let stretch = last.saturating_sub(*first);
        let found = if stretch < i64::try_from(jobs.len() * 2).unwrap_or(i64::MAX) {
            sqlx::query_file_as!(OfJob, "src/store/lanes/names_between.sql", first, last).fetch_all(&self.db).await
        } else {
            sqlx::query_file_as!(OfJob, "src/store/lanes/names.sql", jobs).fetch_all(&self.db).await
        };
        Ok(found.doing(LOOKING)?.into_iter().map(|names| (names.id, names)).collect())
    }

    /// A flow of each group of projects whose turn it is, by login.
    async fn projects(&self, rotation: &mut Rotation) -> Result<Vec<Vec<i64>>, StoreError> {
        let logins = rotation.logins();
        let found = self.groups(&[logins], Depth::Login).await?.concat();
        let mut are_all = found.len() < logins.most;
        rotation.note(Depth::All, &logins, found.len(), found.last().map(|flow| Depth::Login.ends(*flow).1));
        let stretches = rotation.stretches(Depth::Login, &[found]);
        let projects = self.groups(&stretches, Depth::Project).await?;
        for (stretch, found) in stretches.iter().zip(&projects) {
            are_all &= found.len() < stretch.most;
            let last = found.last().map(|flow| Depth::Project.ends(*flow).1);
            rotation.note(Depth::Login, stretch, found.len(), last);
        }
        rotation.keep_groups(&projects, are_all);
        Ok(projects)
    }

    /// For each stretch a flow of each of its first groups.
    async fn groups(&self, stretches: &[Stretch], depth: Depth) -> Result<Vec<Vec<i64>>, StoreError> {
        let (firsts, lasts, mosts) = columns(stretches);
        let rows = sqlx::query_file!("src/store/lanes/groups.sql", &firsts, &lasts, &mosts, depth.mask())
            .fetch_all(&self.db)
            .await
            .doing(LOOKING)?;
        let mut found = vec![Vec::new(); stretches.len()];
        for row in rows {
            if let Some(of_stretch) = nth(&mut found, row.stretch) {
                of_stretch.push(row.flow);
            }
        }
        Ok(found)
    }

    /// The first lanes of each stretch.
    async fn walk(&self, stretches: &[Stretch], only_heads: bool) -> Result<Vec<Vec<Lane>>, StoreError> {
        let (firsts, lasts, mosts) = columns(stretches);
        let rows = sqlx::query_file!("src/store/lanes/walk.sql", &firsts, &lasts, &mosts, only_heads)
            .fetch_all(&self.db)
            .await
            .doing(LOOKING)?;
        let mut found = vec![Vec::new(); stretches.len()];
        for row in rows {
            if let Some(of_stretch) = nth(&mut found, row.stretch) {
                of_stretch.push(Lane {
                    flow: row.flow,
                    prio: row.prio,
                    route: row.route,
                    project: row.project,
                    batch: row.batch,
                    login: row.login,
                    first: row.first,
                    deadline: row.deadline,
                    jobs: row.jobs,
                    place: None,
                });
            }
        }
        Ok(found)
    }

    /// The lanes of the newest jobs that are ready, the newest last.
    async fn newest(&self) -> Result<Vec<Lane>, StoreError> {
        sqlx::query_file_as!(Lane, "src/store/lanes/newest.sql").fetch_all(&self.db).await.doing(LOOKING)
    }

    /// The flows from this one on, each by its lane with the highest priority: one page, and where the next one begins.
    /// For callers that cannot use a sample and have time.
    pub(super) async fn flows_from(&self, first: i64) -> Result<(Vec<Lane>, Option<i64>), StoreError> {
        let stretch = Stretch { first, last: Depth::All.ends(0).1, most: WINDOW };
        let lanes = self.walk(&[stretch], true).await?.concat();
        let next = lanes.last().filter(|_| lanes.len() >= WINDOW).and_then(|lane| lane.flow.checked_add(1));
        Ok((lanes, next))
    }
}

fn columns(stretches: &[Stretch]) -> (Vec<i64>, Vec<i64>, Vec<i32>) {
    (
        stretches.iter().map(|stretch| stretch.first).collect(),
        stretches.iter().map(|stretch| stretch.last).collect(),
        stretches.iter().map(|stretch| i32::try_from(stretch.most).unwrap_or(i32::MAX)).collect(),
    )
}

/// The item with this ordinal, counted from one.
fn nth<T>(found: &mut [T], ordinal: i64) -> Option<&mut T> {
    usize::try_from(ordinal - 1).ok().and_then(|index| found.get_mut(index))
}
