//! The rules: what each of them sees in the observations of one look.

use super::{AlertRule, AlertSettings, Sighting};
use crate::domain::NanoUsd;
use crate::domain::Timestamp;
use crate::domain::awaited::{self, Awaited, What};
use crate::domain::budget::{BudgetStanding, Coverage, Need};
use crate::domain::counted::counted;
use crate::domain::diagnosis::{DoubtedCosts, Finding, Severity};
use crate::domain::obstacle::{Circumstances, Obstacle, Pause, Subject, instant, span};
use crate::domain::pause::{FixedWait, PauseKind};
use crate::domain::roll::{roll, shortened};
use crate::domain::shut::Reason;
use crate::domain::statistics::{GameDayStatistics, ShutStatistics, Statistics};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What one look has found. `None`: it is not known, and the rules that need it are not judged.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// The database's clock.
    pub now: Timestamp,
    /// What the live workers say, and the pauses, beside how budgets stand.
    pub known: Circumstances,
    /// For each live worker: its name, and how many outcomes wait on its disk.
    pub spools: Vec<(String, u64)>,
    /// Workers that have died, or stopped because a part of them failed.
    pub lost: Option<Vec<LostWorker>>,
    /// The work left for each budget, by its name.
    pub needs: Option<BTreeMap<String, Need>>,
    /// What routes have answered over the window of `fallback_share`.
    pub fallbacks: Option<Vec<RouteFlow>>,
    /// The same over the window of `dearer_rung`.
    pub dearer: Option<Vec<RouteFlow>>,
    /// The same over the last hour.
    pub hour: Option<Vec<RouteFlow>>,
    /// What an hour usually costs.
    pub usual: Option<UsualHour>,
    /// The routes that have work, and how many of their jobs have ended lately.
    pub work: Option<Vec<RouteWork>>,
    /// The batches that are paused by their stop-loss.
    pub stopped: Option<Vec<StoppedBatch>>,
    /// Targets whose calls of the last day have a cost that is doubted.
    pub doubted: Option<Vec<DoubtedCosts>>,
    /// The findings of the doctor.
    pub findings: Option<Vec<Finding>>,
}

/// How a worker was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostHow {
    /// It is not heard of any more.
    Died,
    /// This part of it has ended unexpectedly, and it shut down cleanly.
    Fell(String),
}

/// A worker that was lost within the last hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWorker {
    pub id: i64,
    pub host: String,
    pub how: LostHow,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Whether another worker of its host has begun since, and is alive.
    pub has_successor: bool,
    /// Whether an alert has told of it.
    pub is_told: bool,
}

/// What jobs of a route came to over some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFlow {
    pub route: String,
    /// Jobs that have ended, in any way.
    pub ended: i64,
    /// Jobs that have succeeded.
    pub answered: i64,
    /// Those of them that did not get the answer of their first choice.
    pub fallbacks: i64,
    /// What its calls have cost.
    pub cost: NanoUsd,
    /// How much more its answers have cost than they would have at the first choice.
    pub extra: NanoUsd,
}

/// What an hour usually costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsualHour {
    /// The median of the hours of the last week that have cost something.
    pub cost: NanoUsd,
    /// How many hours that were.
    pub hours: i64,
}

/// With fewer hours than these the usual figure is not known.
const ENOUGH_HOURS: i64 = 6;

/// The work of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteWork {
    pub route: String,
    /// Jobs that a worker may take at once, as far as is known.
    pub free: i64,
    /// Jobs in workers' hands.
    pub running: i64,
    /// Other jobs, by the words for what they wait for, with when the first of them wakes.
    pub waits: Vec<(String, i64, Option<Timestamp>)>,
    /// Jobs that have ended since the last look.
    pub ended: i64,
}

/// A batch that its stop-loss has paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedBatch {
    pub batch: String,
    /// The reason that was written with the pause.
    pub reason: String,
}

/// What the rules see, and which of them could be judged.
#[must_use]
pub fn sightings(seen: &Observations, settings: &AlertSettings) -> (Vec<Sighting>, BTreeSet<AlertRule>) {
    let mut all = Vec::new();
    let mut examined = BTreeSet::new();
    for rule in AlertRule::ALL.into_iter().filter(|rule| settings.rule(*rule).on && !rule.is_event()) {
        if let Some(found) = judge(rule, seen, settings) {
            examined.insert(rule);
            all.extend(found.into_iter().map(|found| found.of(rule)));
        }
    }
    (all, examined)
}

/// A subject, and the sighting of it.
struct Spotted {
    subject: String,
    summary: String,
    values: BTreeMap<&'static str, String>,
}

impl Spotted {
    fn new(subject: impl Into<String>, summary: String) -> Self {
        Self { subject: subject.into(), summary, values: BTreeMap::new() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers and money are passed as they are")]
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.values.insert(name, value.to_string());
        self
    }

    fn of(self, rule: AlertRule) -> Sighting {
        Sighting { rule, subject: self.subject, summary: self.summary, values: self.values }
    }
}

/// What a rule sees; `None`: what it needs is not known.
fn judge(rule: AlertRule, seen: &Observations, settings: &AlertSettings) -> Option<Vec<Spotted>> {
    Some(match rule {
        AlertRule::BreakerOpen => breakers(&seen.known.workers),
        AlertRule::FallbackShare => meanwhile(fallbacks(seen.fallbacks.as_deref()?, settings), seen),
        AlertRule::DearerRung => meanwhile(dearer(seen.dearer.as_deref()?, settings), seen),
        AlertRule::BudgetSoft => of_budgets(seen, |standing| standing.is_soft() && !is_full(standing), soft),
        AlertRule::BudgetFull => of_budgets(seen, |standing| is_full(standing) && !is_over(seen, standing), full),
        AlertRule::BudgetShort => short(seen)?,
        AlertRule::KeyOut => keys(&seen.known.workers),
        AlertRule::StuckAnswer => stuck_answers(&seen.known.workers),
        AlertRule::UnknownPrice => unknown(seen.doubted.as_deref()?, settings),
        AlertRule::CostDiffers => differing(seen.doubted.as_deref()?, settings),
        AlertRule::StuckQueue => meanwhile(stuck(seen.work.as_deref()?, &seen.known), seen),
        AlertRule::StopLoss => stopped(seen.stopped.as_deref()?),
        AlertRule::CostSpike => meanwhile(spike(seen.hour.as_deref()?, seen.usual?, settings), seen),
        AlertRule::SpoolInUse => spools(&seen.spools),
        AlertRule::WorkerLost => lost(seen.lost.as_deref()?, false),
        AlertRule::LoopLost => lost(seen.lost.as_deref()?, true),
        AlertRule::Doctor => doctor(seen.findings.as_deref()?),
        AlertRule::ForgottenPause => forgotten(&seen.known.pauses, seen.now, settings),
        AlertRule::BatchCompleted | AlertRule::BatchFailed => return None,
    })
}

/// `12.5%`
fn percent(part: i64, whole: i64) -> String {
    let tenths = (i128::from(part) * 1000).checked_div(i128::from(whole)).unwrap_or(0);
    format!("{}.{}%", tenths / 10, (tenths % 10).abs())
}

/// Whether a part is at least so many millionths of the whole.
fn reaches(part: i64, whole: i64, millionths: u32) -> bool {
    i128::from(part) * 1_000_000 >= i128::from(whole) * i128::from(millionths)
}

/// The game days of these workers that strike something of this name, in words that follow others.
fn struck<'a>(workers: &'a [Statistics], whom: impl Fn(&'a GameDayStatistics) -> Option<Cow<'a, str>>) -> String {
    let days = workers.iter().flat_map(|worker| &worker.game_days);
    let days: BTreeMap<&str, &GameDayStatistics> = days.map(|day| (day.name.as_str(), day)).collect();
    let mut words = String::new();
    for (name, day) in days {
        let Some(whom) = whom(day) else { continue };
        let _ = write!(words, "; a game day ({name}) strikes {whom} until {}", instant(Timestamp(day.until_ms)));
    }
    words
}

/// Says, with what is seen of routes or of all, which game days are on meanwhile.
fn meanwhile(mut spotted: Vec<Spotted>, seen: &Observations) -> Vec<Spotted> {
    let words = struck(&seen.known.workers, |day| Some(day.targets.join(", ").into()));
    for one in &mut spotted {
        one.summary.push_str(&words);
    }
    spotted
}

fn breakers(workers: &[Statistics]) -> Vec<Spotted> {
    let mut open: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for target in workers.iter().flat_map(|worker| &worker.gate.targets) {
        // One that tries again has not found it well yet.
        let is_open = target.breaker.as_deref().is_some_and(|state| state != "closed");
        let reason = target.shut.as_ref().and_then(|shut| shut.reason.as_deref());
        let fails_probe = reason == Some(Reason::HealthProbe.as_str());
        let (Some(name), true) = (target.target.as_deref(), is_open || fails_probe) else { continue };
        let entry = open.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1 || fails_probe);
    }
    let said = |name: &str| {
        let targets = workers.iter().flat_map(|worker| &worker.gate.targets);
        let own = [Reason::Breaker, Reason::GameDay, Reason::AskedToWait].map(Reason::as_str);
        let is_it = |shut: &ShutStatistics| shut.reason.as_deref().is_some_and(|reason| own.contains(&reason));
        let named = targets.filter(|target| target.target.as_deref() == Some(name));
        let mut named = named.filter(|target| target.shut.as_ref().is_some_and(is_it));
        named.find_map(|target| target.said.as_deref()).map_or_else(String::new, |said| format!(": {said}"))
    };
    let seen = open.into_iter().map(|(name, (count, fails_probe))| {
        let (counted, said) = (counted(count, "worker", "workers"), said(name));
        let summary = if fails_probe {
            format!("the health probe of {name} fails: it is not called ({counted})")
        } else {
            format!("the breaker of {name} is open: its calls fail{said} ({counted})")
        };
        let summary = summary + &struck(workers, |day| day.strikes(name).then_some("it".into()));
        Spotted::new(name, summary).with("workers", count)
    });
    seen.chain(outages(workers)).chain(passed_over(workers)).collect()
}

/// Providers that refuse keys which had answered lately.
fn outages(workers: &[Statistics]) -> Vec<Spotted> {
    let mut doubted: BTreeMap<&str, (usize, Option<&str>)> = BTreeMap::new();
    for worker in workers {
        let mut own: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for target in &worker.gate.targets {
            let reason = target.shut.as_ref().and_then(|shut| shut.reason.as_deref());
            let is_it = reason == Some(Reason::KeysInDoubt.as_str());
            let Some(name) = target.target.as_deref().filter(|_| is_it) else { continue };
            own.insert(name.split('/').next().unwrap_or(name), target.said.as_deref());
        }
        for (provider, said) in own {
            let entry = doubted.entry(provider).or_default();
            *entry = (entry.0 + 1, entry.1.or(said));
        }
    }
    let seen = doubted.into_iter().map(|(provider, (count, said))| {
        let workers = counted(count, "worker", "workers");
        let said = said.unwrap_or("keys that have answered lately are refused");
        let summary = format!("{provider} takes no calls: {said} ({workers})");
        Spotted::new(provider, summary).with("workers", count)
    });
    seen.collect()
}

/// Targets that work, and that jobs of a route pass over.
fn passed_over(workers: &[Statistics]) -> Vec<Spotted> {
    let mut weak: BTreeMap<(&str, &str), (usize, Option<&str>)> = BTreeMap::new();
    for target in workers.iter().flat_map(|worker| &worker.gate.targets) {
        let Some(name) = target.target.as_deref() else { continue };
        for seen in &target.weak {
            let Some(route) = seen.route.as_deref() else { continue };
            let entry = weak.entry((name, route)).or_default();
            *entry = (entry.0 + 1, entry.1.or(seen.found.as_deref()));
        }
    }
    let seen = weak.into_iter().map(|((name, route), (count, found))| {
        let workers = counted(count, "worker", "workers");
        let found = found.unwrap_or("its answers are slow or rejected");
        let summary = format!("{name} answers jobs of route {route} badly: {found} ({workers})");
        Spotted::new(format!("{name} on {route}"), summary).with("workers", count)
    });
    seen.collect()
}

fn fallbacks(flows: &[RouteFlow], settings: &AlertSettings) -> Vec<Spotted> {
    let limits = &settings.thresholds;
    let is_much = |flow: &&RouteFlow| {
        flow.answered >= limits.fallback_answers.max(1)
            && flow.fallbacks > 0
            && reaches(flow.fallbacks, flow.answered, limits.fallback_share)
    };
    let seen = flows.iter().filter(is_much).map(|flow| {
        let RouteFlow { route, answered, fallbacks, .. } = flow;
        let share = percent(*fallbacks, *answered);
        let window = span(limits.fallback_window);
        let summary = format!(
            "{share} of the answers of route {route} in the last {window} did not come from the first choice \
             ({fallbacks} of {answered})"
        );
        Spotted::new(route, summary).with("share", share).with("fallbacks", fallbacks).with("answers", answered)
    });
    seen.collect()
}

fn dearer(flows: &[RouteFlow], settings: &AlertSettings) -> Vec<Spotted> {
    let limits = &settings.thresholds;
    let is_much = |flow: &&RouteFlow| {
        let there = flow.cost - flow.extra;
        flow.extra.0 > 0
            && flow.extra >= limits.dearer_amount
            && reaches(flow.extra.0, there.0.max(0), limits.dearer_share)
    };
    let seen = flows.iter().filter(is_much).map(|flow| {
        let RouteFlow { route, cost, extra, .. } = flow;
        let window = span(limits.dearer_window);
        let summary = format!(
            "answers of route {route} cost {extra} more in the last {window} than at their first choices ({cost} in \
             all)"
        );
        Spotted::new(route, summary).with("extra", extra).with("cost", cost)
    });
    seen.collect()
}

/// Whether it has no room, and calls under way will give none back.
fn is_full(standing: &BudgetStanding) -> bool {
    standing.holds() && !standing.holds_for_a_moment()
}

/// Whether it is the budget of a batch of which no job is left: nothing waits for room in it.
fn is_over(seen: &Observations, standing: &BudgetStanding) -> bool {
    let need = || seen.needs.as_ref()?.get(&standing.budget.name);
    matches!(standing.budget.scope, Coverage::Batch(_)) && need().is_some_and(|need| need.jobs_left == 0)
}

fn of_budgets(
    seen: &Observations,
    is_it: impl Fn(&BudgetStanding) -> bool,
    words: impl Fn(&BudgetStanding) -> String,
) -> Vec<Spotted> {
    let budgets = seen.known.budgets.iter().filter(|standing| is_it(standing));
    budgets
        .map(|standing| {
            Spotted::new(&standing.budget.name, words(standing))
                .with("limit", standing.budget.limit)
                .with("spent", standing.spent)
                .with("uncertain", standing.uncertain)
        })
        .collect()
}

fn soft(standing: &BudgetStanding) -> String {
    let name = &standing.budget.name;
    format!("budget {name} is past its soft threshold: {}{}", standing.in_words(), turns(standing))
}

fn full(standing: &BudgetStanding) -> String {
    format!("budget {} has no room: {}{}", standing.budget.name, standing.in_words(), turns(standing))
}

fn turns(standing: &BudgetStanding) -> String {
    standing.ends_at.map_or_else(String::new, |at| format!("; its window turns at {}", instant(at)))
}

fn short(seen: &Observations) -> Option<Vec<Spotted>> {
    let needs = seen.needs.as_ref()?;
    let short = seen.known.budgets.iter().filter(|standing| !is_full(standing)).filter_map(|standing| {
        let need = needs.get(&standing.budget.name)?;
        let expected = need.expected?;
        let left = standing.budget.limit - standing.used();
        (expected > left && need.jobs_left > 0).then(|| {
            let name = &standing.budget.name;
            let jobs = counted(need.jobs_left, "job that is left needs", "jobs that are left need");
            let summary = format!("budget {name} will not do: {jobs} about {expected}, and {left} is left");
            Spotted::new(name, summary).with("jobs_left", need.jobs_left).with("needs", expected).with("left", left)
        })
    });
    Some(short.collect())
}

fn keys(workers: &[Statistics]) -> Vec<Spotted> {
    let mut out: BTreeMap<String, (Option<Reason>, Option<Timestamp>)> = BTreeMap::new();
    for key in workers.iter().flat_map(|worker| &worker.gate.keys).filter(|key| key.is_out()) {
        let (Some(provider), Some(name), Some(shut)) = (&key.provider, &key.key, &key.shut) else { continue };
        let reason = shut.reason.as_deref().and_then(Reason::parse);
        out.entry(format!("{provider}/{name}")).or_insert((reason, shut.since_ms.map(Timestamp)));
    }
    let seen = out.into_iter().map(|(name, (reason, since))| {
        let what = if reason == Some(Reason::QuotaExhausted) { "is out of money" } else { "is rejected" };
        let since = since.map_or_else(String::new, |since| format!(" since {}", instant(since)));
        let summary = format!("key {name} {what}{since}");
        Spotted::new(name, summary).with("reason", reason.map_or("auth", Reason::as_str))
    });
    seen.collect()
}

/// Targets that give one text to different requests.
fn stuck_answers(workers: &[Statistics]) -> Vec<Spotted> {
    let mut stuck: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for target in workers.iter().flat_map(|worker| &worker.gate.targets) {
        let (Some(name), Some(found)) = (target.target.as_deref(), target.stuck) else { continue };
        let entry = stuck.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1.max(found.requests));
    }
    let seen = stuck.into_iter().map(|(name, (count, requests))| {
        let workers = counted(count, "worker", "workers");
        let summary = format!(
            "{name} gives the same answer, word by word, to different requests, lately to {requests} of them: perhaps \
             a cache of the provider got stuck ({workers})"
        );
        Spotted::new(name, summary).with("requests", requests).with("workers", count)
    });
    seen.collect()
}

fn unknown(doubted: &[DoubtedCosts], settings: &AlertSettings) -> Vec<Spotted> {
    let least = settings.thresholds.unknown_calls.max(1);
    let seen = doubted.iter().filter(|doubted| doubted.unpriced >= least).map(|doubted| {
        let DoubtedCosts { target, unpriced, .. } = doubted;
        let calls = counted(unpriced, "call of the last day has", "calls of the last day have");
        let summary = format!("the price of {target} is unknown: {calls} no cost on the books");
        Spotted::new(target, summary).with("calls", unpriced)
    });
    seen.collect()
}

fn differing(doubted: &[DoubtedCosts], settings: &AlertSettings) -> Vec<Spotted> {
    let least = settings.thresholds.differing_calls.max(1);
    let seen = doubted.iter().filter(|doubted| doubted.differing >= least).map(|doubted| {
        let DoubtedCosts { target, differing, more, .. } = doubted;
        let calls = counted(differing, "call", "calls");
        let (amount, word) = if more.0 < 0 { (NanoUsd(more.0.saturating_neg()), "less") } else { (*more, "more") };
        let summary =
            format!("the provider of {target} reports {amount} {word} than was computed, for {calls} of the last hour");
        Spotted::new(target, summary).with("calls", differing).with("more", more)
    });
    seen.collect()
}

/// Whether jobs that wait for this are meant to wait: another rule tells of it, or nothing is wrong.
fn is_meant(code: &str) -> bool {
    let fixed = FixedWait::read(code);
    matches!(fixed, Some(FixedWait::Scheduled | FixedWait::Paused))
        || fixed.and_then(FixedWait::paused).is_some()
        || code.starts_with(awaited::BUDGET)
        || Awaited::read(code).is_some_and(|awaited| {
            matches!(awaited.what, What::Opens(Reason::Paused | Reason::Budget | Reason::PeakHours))
        })
}

fn stuck(work: &[RouteWork], known: &Circumstances) -> Vec<Spotted> {
    let mut seen = Vec::new();
    for work in work.iter().filter(|work| work.ended == 0) {
        let waits: Vec<_> = work.waits.iter().filter(|(code, ..)| !is_meant(code)).collect();
        let waiting = waits.iter().map(|(_, jobs, _)| jobs).fold(0_i64, |sum, jobs| sum.saturating_add(*jobs));
        let jobs = work.free.saturating_add(work.running).saturating_add(waiting);
        if jobs <= 0 {
            continue;
        }
        let cause = waits.iter().max_by_key(|(_, jobs, _)| *jobs).filter(|(_, jobs, _)| *jobs > work.free);
        // Jobs that workers have in hand wait for the same as those that they take no more.
        let told = known.workers.iter().find_map(|worker| worker.waits.get(&work.route));
        let told = told.map(|wait| (wait.reason.as_str(), None)).filter(|(code, _)| !is_meant(code));
        let cause = cause.map(|(code, _, wakes_at)| (code.as_str(), *wakes_at)).or(told);
        let why = match cause {
            Some((code, rests_until)) => {
                let subject = Subject { route: &work.route, rests_until, ..Subject::default() };
                Obstacle::of(code, subject, known).in_words()
            }
            None if known.workers.is_empty() => "no worker is running".to_owned(),
            None if work.running > 0 => {
                format!("{} with workers, and none comes to an end", counted(work.running, "job is", "jobs are"))
            }
            None => "nothing is known to be in the way".to_owned(),
        };
        let route = &work.route;
        let jobs_in_words = counted(jobs, "job waits or runs", "jobs wait or run");
        let summary = format!("nothing ends on route {route}: {jobs_in_words}; {why}");
        let code = cause.map_or("", |(code, _)| code);
        seen.push(Spotted::new(route, summary).with("jobs", jobs).with("waits_for", code));
    }
    seen
}

fn stopped(batches: &[StoppedBatch]) -> Vec<Spotted> {
    let seen = batches.iter().map(|StoppedBatch { batch, reason }| {
        let name = shortened(batch);
        Spotted::new(batch, format!("batch {name} is paused: {reason}"))
    });
    seen.collect()
}

fn spike(hour: &[RouteFlow], usual: UsualHour, settings: &AlertSettings) -> Vec<Spotted> {
    let limits = &settings.thresholds;
    let cost = hour.iter().fold(NanoUsd::ZERO, |sum, flow| sum + flow.cost);
    let most = i128::from(usual.cost.0) * i128::from(limits.spike_times);
    if usual.hours < ENOUGH_HOURS || cost < limits.spike_amount || i128::from(cost.0) < most {
        return Vec::new();
    }
    let dearest = hour.iter().max_by_key(|flow| flow.cost);
    let of_route = dearest.map_or_else(String::new, |flow| format!("; {} of that on route {}", flow.cost, flow.route));
    let summary = format!("the last hour has cost {cost}, and an hour usually costs {}{of_route}", usual.cost);
    vec![Spotted::new("total", summary).with("cost", cost).with("usual", usual.cost)]
}

fn spools(spools: &[(String, u64)]) -> Vec<Spotted> {
    let seen = spools.iter().filter(|(_, outcomes)| *outcomes > 0).map(|(worker, outcomes)| {
        let waiting = counted(outcomes, "outcome waits", "outcomes wait");
        let summary = format!("{waiting} in the spool of {worker}: the database does not take what it writes");
        Spotted::new(worker, summary).with("outcomes", outcomes)
    });
    seen.collect()
}

fn lost(workers: &[LostWorker], fell: bool) -> Vec<Spotted> {
    // One that has a successor is told of once, and is over then.
    let is_open = |worker: &&LostWorker| {
        matches!(worker.how, LostHow::Fell(_)) == fell && (!worker.has_successor || !worker.is_told)
    };
    let seen = workers.iter().filter(is_open).map(|worker| {
        let LostWorker { id, host, how, seen_at, .. } = worker;
        let subject = format!("worker {id} on {host}");
        let at = instant(*seen_at);
        let summary = match how {
            LostHow::Died => format!("{subject} has died: it was last heard of at {at}"),
            LostHow::Fell(part) => format!("{subject} has stopped, because its {part} ended unexpectedly; {at}"),
        };
        let seen = Spotted::new(subject, summary).with("host", host).with("worker", id);
        if let LostHow::Fell(part) = how { seen.with("part", part) } else { seen }
    });
    seen.collect()
}

fn doctor(findings: &[Finding]) -> Vec<Spotted> {
    let mut bad: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Bad) {
        bad.entry(finding.check).or_default().push(&finding.what);
    }
    let seen = bad.into_iter().map(|(check, found)| {
        let summary = format!("{}: {}", check.replace('_', " "), found.join("; "));
        Spotted::new(check, summary)
    });
    seen.collect()
}

fn forgotten(pauses: &[Pause], now: Timestamp, settings: &AlertSettings) -> Vec<Spotted> {
    let is_old = |pause: &&Pause| {
        // The pause of a stop-loss has a rule of its own.
        let is_stop_loss =
            pause.kind == PauseKind::Batch && pause.why.as_deref().is_some_and(|why| why.starts_with("stop-loss:"));
        !is_stop_loss && pause.since.until(now) >= settings.thresholds.pause_age
    };
    let seen = pauses.iter().filter(is_old).map(|pause| {
        let subject = format!("{} {}", pause.kind.as_str(), pause.name);
        let age = span(pause.since.until(now));
        let by = pause.by.as_deref().map_or_else(String::new, |by| format!(" by {by}"));
        let why = pause.why.as_deref().map_or_else(String::new, |why| format!(": {}", roll([why])));
        let summary = format!("{} {} has been paused for {age}{by}{why}", pause.kind.as_str(), shortened(&pause.name));
        Spotted::new(subject, summary).with("age", age)
    });
    seen.collect()
}
