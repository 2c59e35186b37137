//! Why a job, a batch or a route does not go on: the one answer that every face gives.
//!
//! The schema says it in a few fixed words (`sluice.waits_for`), by which jobs can be counted. Here those words meet
//! the facts known beside them: who paused what, what workers say of keys, models, limits and breakers.

mod words;

pub use words::{Advice, instant, moment, span};

use super::Timestamp;
use super::awaited::{self, Awaited, What};
use super::budget::BudgetStanding;
use super::pause::{FixedWait, PauseKind};
use super::shut::Reason;
use super::statistics::{KeyStatistics, Statistics, TargetStatistics};
use super::trial;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub kind: PauseKind,
    /// The name of the route, project, batch or provider.
    pub name: String,
    /// The login that paused it; `None`: it is not known.
    pub by: Option<String>,
    pub since: Timestamp,
    /// The reason that was given.
    pub why: Option<String>,
}

/// The pause of a single job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPause {
    /// The login that paused it; `None`: it is not known.
    pub by: Option<String>,
    pub since: Timestamp,
    /// The reason that was given.
    pub why: Option<String>,
}

/// What obstacles are told from, as of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The database's clock.
    pub now: Timestamp,
    pub pauses: Vec<Pause>,
    pub budgets: Vec<BudgetStanding>,
    /// What the live workers say of themselves.
    pub workers: Vec<Statistics>,
}

/// Whose obstacle it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    pub route: &'a str,
    /// `None`: of several projects.
    pub project: Option<&'a str>,
    /// `None`: of several batches, or of none.
    pub batch: Option<&'a str>,
    /// Since when the job could have run, where it is one job; patience counts from then.
    pub ready_at: Option<Timestamp>,
    /// Until when the job rests by its own row, where it does.
    pub rests_until: Option<Timestamp>,
}

/// Why something does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The fixed words, as `sluice.jobs.waits_for` has them.
    pub code: String,
    pub kind: Hindrance,
    /// When it is over by itself, as far as is known.
    pub until: Option<Timestamp>,
    /// When it was looked at.
    pub as_of: Timestamp,
    /// The targets, where no target of the route can be called before a person does something: all keys refused, or the
    /// model unknown. Empty where work may go on by itself.
    pub stuck: Vec<ShutTarget>,
    /// The fixed words of other jobs of the same batch that wait for something else.
    pub others: Vec<String>,
}

/// The obstacle to a job, a batch or a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The job is in no queue.
    NoQueue,
    /// No worker runs that would take it; `others`: workers that run, but stop or work on other batches alone.
    NoWorker { others: usize },
    /// No worker that runs has the route; these are the ones that they have.
    RouteUnknown { route: String, known: BTreeSet<String> },
    /// It was enqueued for later.
    Scheduled,
    /// The job itself is paused; by whom, where that is known.
    Paused(Option<JobPause>),
    /// Its batch, route or project is paused; the pause, where it is still in force.
    PausedBy(PauseKind, Option<Pause>),
    /// A budget has no room; where it stands, if it is still there.
    Budget(String, Option<Box<BudgetStanding>>),
    /// A target cannot be called, or the job rests before it is called again.
    Shut(ShutTarget),
    /// Words of another version.
    Other,
}

/// A target that cannot be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutTarget {
    /// `provider/model`.
    pub target: String,
    pub what: What,
    /// Why the job does not go elsewhere.
    pub because: String,
    pub since: Option<Timestamp>,
    /// When workers call it again, as far as they say.
    pub opens: Option<Timestamp>,
    /// The pause of its provider.
    pub pause: Option<Pause>,
    /// The keys of its provider that are out of service.
    pub keys: Vec<KeyOut>,
    /// The provider's budget, where that has no room.
    pub budget: Option<Box<BudgetStanding>>,
    /// The provider's words, where the model is unknown or the health probe fails; the last failure where the breaker
    /// is open.
    pub said: Option<String>,
    /// The limits that are used up, each with its bucket.
    pub limits: Vec<String>,
    /// Until when the job waits for this target at most, before it takes a dearer one.
    pub patience_until: Option<Timestamp>,
}

/// A key that is out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOut {
    /// Its name, which may be shown.
    pub key: String,
    /// Whether it was rejected or is out of money; `None`: the worker's word is unknown.
    pub reason: Option<Reason>,
    pub since: Option<Timestamp>,
    /// When one call tries it again.
    pub until: Option<Timestamp>,
    /// The provider's words.
    pub said: Option<String>,
}

impl ShutTarget {
    /// Whether it opens for all jobs at once, when a worker finds that it does.
    fn is_known_by_workers(&self) -> bool {
        matches!(self.what, What::Opens(reason) if !reason.is_a_limit() && reason != Reason::PeakHours)
    }
}

impl Obstacle {
    /// The obstacle behind the fixed words.
    #[must_use]
    pub fn of(code: &str, subject: Subject<'_>, known: &Circumstances) -> Self {
        let kind = match FixedWait::read(code) {
            Some(FixedWait::NoQueue) => Hindrance::NoQueue,
            Some(FixedWait::NoWorker) => Hindrance::NoWorker { others: known.workers.len() },
            // Only the trial's own worker has the route, and that one starts, or will.
            Some(FixedWait::RouteUnknown) if trial::tried(subject.route).is_some() => {
                Hindrance::NoWorker { others: known.workers.len() }
            }
            Some(FixedWait::RouteUnknown) => Hindrance::RouteUnknown {
                route: subject.route.to_owned(),
                known: known.workers.iter().filter_map(|worker| worker.routes.as_ref()).flatten().cloned().collect(),
            },
            Some(FixedWait::Scheduled) => Hindrance::Scheduled,
            Some(FixedWait::Paused) => Hindrance::Paused(None),
            Some(FixedWait::BatchPaused) => {
                Hindrance::PausedBy(PauseKind::Batch, known.pause_of(PauseKind::Batch, subject))
            }
            Some(FixedWait::RoutePaused) => {
                Hindrance::PausedBy(PauseKind::Route, known.pause_of(PauseKind::Route, subject))
            }
            Some(FixedWait::ProjectPaused) => {
                Hindrance::PausedBy(PauseKind::Project, known.pause_of(PauseKind::Project, subject))
            }
            None if code.starts_with(awaited::BUDGET) => {
                let name = code.trim_start_matches(awaited::BUDGET);
                let standing = known.budgets.iter().find(|standing| standing.budget.name == name);
                Hindrance::Budget(name.to_owned(), standing.cloned().map(Box::new))
            }
            None => Awaited::read(code).map_or(Hindrance::Other, |Awaited { target, what, because }| {
                Hindrance::Shut(known.shut(target, what, because, subject))
            }),
        };
        // Calls under way whose worker is dead end when another worker declares it dead.
        let waits_for_the_dead = match &kind {
            Hindrance::Budget(_, Some(standing)) | Hindrance::Shut(ShutTarget { budget: Some(standing), .. }) => {
                known.workers.is_empty() && standing.waits_for_calls()
            }
            _ => false,
        };
        let kind = if waits_for_the_dead { Hindrance::NoWorker { others: 0 } } else { kind };
        let waits = || known.workers.iter().filter_map(|worker| worker.waits.get(subject.route));
        let is_of_target = matches!(kind, Hindrance::Shut(_));
        let told = || waits().filter(|wait| wait.reason == code).filter_map(|wait| wait.until_ms).min().map(Timestamp);
        let rests = subject.rests_until.filter(|until| *until > known.now);
        let until = match &kind {
            Hindrance::Shut(ShutTarget { what: What::Opens(Reason::Paused), .. }) => None,
            Hindrance::Shut(ShutTarget { budget: Some(standing), .. }) => standing.opens(),
            // The row of a job rests only for a moment then, because workers know better when the target opens.
            Hindrance::Shut(shut) if shut.is_known_by_workers() => told().or(shut.opens).or(rests),
            Hindrance::Shut(shut) => rests.or_else(told).or(shut.opens),
            Hindrance::Scheduled => subject.rests_until,
            Hindrance::Budget(_, standing) => standing.as_ref().and_then(|standing| standing.opens()),
            _ => None,
        };
        // A worker with another secret under a key's name, or another configuration, may go on with them.
        let takes_it = |worker: &&Statistics| {
            let has_route = worker.routes.as_ref().is_none_or(|routes| routes.iter().any(|name| name == subject.route));
            let is_for_it = worker.only_batch.as_deref().is_none_or(|batch| subject.batch == Some(batch));
            has_route && is_for_it && !worker.stopping
        };
        let is_stuck = |worker: &Statistics| worker.waits.get(subject.route).is_some_and(|it| !it.stuck.is_empty());
        let are_all_stuck = is_of_target && known.workers.iter().filter(takes_it).all(is_stuck);
        let stuck: BTreeSet<&String> = waits().filter(|_| are_all_stuck).flat_map(|wait| &wait.stuck).collect();
        let stuck = stuck.into_iter().map(|target| known.stuck(target, subject)).collect();
        Self { code: code.to_owned(), kind, until, as_of: known.now, stuck, others: Vec::new() }
    }

    /// Whether the wait soon ends by itself: work goes on, if slowly.
    #[must_use]
    pub fn is_a_limit(&self) -> bool {
        let is_a_limit = matches!(
            &self.kind,
            Hindrance::Shut(ShutTarget { what: What::Opens(reason), .. }) if reason.is_a_limit()
        );
        is_a_limit && self.others.is_empty()
    }

    /// Whether no worker that runs takes it.
    #[must_use]
    pub const fn is_no_worker(&self) -> bool {
        matches!(self.kind, Hindrance::NoWorker { .. })
    }

    /// The budget that is behind it, where it is known how that stands.
    #[must_use]
    pub fn budget(&self) -> Option<&BudgetStanding> {
        match &self.kind {
            Hindrance::Budget(_, budget) | Hindrance::Shut(ShutTarget { budget, .. }) => budget.as_deref(),
            _ => None,
        }
    }

    /// The budget without which nothing goes on, where that counts once: only a person ends that wait. While a job has
    /// patience for a provider's budget, it goes to another rung in time.
    #[must_use]
    pub fn lasting_budget(&self) -> Option<&BudgetStanding> {
        let is_within = matches!(&self.kind, Hindrance::Shut(shut) if shut.because == awaited::WITHIN_PATIENCE);
        self.budget().filter(|standing| !is_within && standing.ends_at.is_none() && self.others.is_empty())
    }

    /// The pause that is behind it.
    #[must_use]
    pub fn pause(&self) -> Option<&Pause> {
        match &self.kind {
            Hindrance::PausedBy(_, pause) | Hindrance::Shut(ShutTarget { pause, .. }) => pause.as_ref(),
            _ => None,
        }
    }
}

impl Circumstances {
    /// The pause of this kind that holds the subject back; `None`: it is over, or it is not known which it is.
    fn pause_of(&self, kind: PauseKind, subject: Subject<'_>) -> Option<Pause> {
        let name = match kind {
            PauseKind::Route => Some(subject.route),
            PauseKind::Project => subject.project,
            PauseKind::Batch => subject.batch,
            PauseKind::Provider => None,
        };
        self.pause(kind, name?).cloned()
    }

    /// The pause of a thing.
    #[must_use]
    pub fn pause(&self, kind: PauseKind, name: &str) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.kind == kind && pause.name == name)
    }

    fn targets<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Statistics, &'a TargetStatistics)> {
        let all = self.workers.iter().flat_map(|worker| worker.gate.targets.iter().map(move |it| (worker, it)));
        all.filter(move |(_, target)| target.target.as_deref() == Some(name))
    }

    fn shut(&self, target: &str, what: What, because: &str, subject: Subject<'_>) -> ShutTarget {
        let code = what.as_str();
        let is_it = |target: &TargetStatistics| {
            target.shut.as_ref().is_some_and(|shut| shut.reason.as_deref().map(read_reason) == Some(read_reason(code)))
        };
        let shut = || self.targets(target).filter(|(_, it)| is_it(it)).filter_map(|(_, it)| it.shut.as_ref());
        let since = shut().filter_map(|shut| shut.since_ms).min().map(Timestamp);
        let opens = shut().filter_map(|shut| shut.until_ms).min().map(Timestamp);
        let provider = target.split('/').next().unwrap_or(target);
        let (mut keys, mut said, mut limits, mut pause) = (Vec::new(), None, BTreeSet::new(), None);
        let mut budget = None;
        match what {
            What::Opens(Reason::Auth | Reason::QuotaExhausted) => keys = self.keys_out(provider),
            What::Opens(
                Reason::Model
                | Reason::Breaker
                | Reason::AskedToWait
                | Reason::Offline
                | Reason::HealthProbe
                | Reason::KeysInDoubt,
            ) => {
                said = self.targets(target).filter(|(_, it)| is_it(it)).find_map(|(_, it)| it.said.clone());
            }
            What::Opens(Reason::RateLimit | Reason::Concurrency) => {
                limits = self.targets(target).flat_map(|(worker, it)| used_up(worker, it)).collect();
            }
            What::Opens(Reason::Budget) => {
                let of_provider = |standing: &&BudgetStanding| {
                    standing.budget.scope.is_provider() && standing.budget.scope.name() == provider && standing.holds()
                };
                budget = self.budgets.iter().find(of_provider).cloned().map(Box::new);
            }
            What::Opens(Reason::Paused) => pause = self.pause(PauseKind::Provider, provider).cloned(),
            What::Opens(_) | What::Retry => {}
        }
        let patience = || self.workers.iter().filter_map(|worker| worker.patience.get(subject.route)).max();
        let is_within = because == awaited::WITHIN_PATIENCE;
        let patience_until = is_within.then(patience).flatten().and_then(|seconds| {
            let from = subject.ready_at.max(since)?.min(self.now);
            Some(from + Duration::from_secs(*seconds))
        });
        ShutTarget {
            target: target.to_owned(),
            what,
            because: because.to_owned(),
            since: since.or_else(|| pause.as_ref().map(|pause| pause.since)),
            opens,
            pause,
            keys,
            budget,
            said,
            limits: limits.into_iter().collect(),
            patience_until,
        }
    }

    /// A target that cannot be called before a person does something.
    fn stuck(&self, target: &str, subject: Subject<'_>) -> ShutTarget {
        let mut reasons = self.targets(target).filter_map(|(_, it)| it.shut.as_ref()?.reason.as_deref());
        let reason = reasons.find_map(Reason::parse).unwrap_or(Reason::Auth);
        self.shut(target, What::Opens(reason), "", subject)
    }

    /// The keys of a provider that a worker has taken out of service, in the order of their names.
    fn keys_out(&self, provider: &str) -> Vec<KeyOut> {
        let mut out: BTreeMap<&str, &KeyStatistics> = BTreeMap::new();
        let keys = self.workers.iter().flat_map(|worker| &worker.gate.keys);
        for key in keys.filter(|key| key.provider.as_deref() == Some(provider) && key.is_out()) {
            let Some(name) = key.key.as_deref() else { continue };
            let kept = out.entry(name).or_insert(key);
            if kept.said.is_none() {
                *kept = key;
            }
        }
        let shut = |key: &KeyStatistics| key.shut.clone().unwrap_or_default();
        out.into_iter()
            .map(|(name, key)| KeyOut {
                key: name.to_owned(),
                reason: shut(key).reason.as_deref().and_then(Reason::parse),
                since: shut(key).since_ms.map(Timestamp),
                until: shut(key).until_ms.map(Timestamp),
                said: key.said.clone(),
            })
            .collect()
    }
}

/// Reasons are compared as what they mean: the breaker has had two codes.
fn read_reason(code: &str) -> Result<Reason, String> {
    Reason::try_from(code.to_owned())
}

/// The limits of a target's buckets of which this worker may spend nothing.
fn used_up(worker: &Statistics, target: &TargetStatistics) -> Vec<String> {
    let names: Vec<&str> = target.bucket.as_deref().unwrap_or_default().split(", ").collect();
    let its = |name: &Option<String>| name.as_deref().filter(|name| names.contains(name)).map(str::to_owned);
    let mut used_up = Vec::new();
    for bucket in &worker.gate.buckets {
        let Some(name) = its(&bucket.name) else { continue };
        let empty = bucket.rates.iter().filter(|rate| rate.headroom == Some(0) && !rate.limit.is_empty());
        used_up.extend(empty.map(|rate| format!("{name}: {}", rate.limit)));
        if used_up.is_empty() && bucket.shut.is_some() {
            used_up.push(name);
        }
    }
    used_up
}

#[cfg(test)]
mod tests;
