//! Alerts: what an operator is told of without asking for it.
//!
//! A rule looks at [`Observations`] and tells what it sees ([`Sighting`]). A sighting that has lasted long enough
//! fires, and one that has been gone for long enough is resolved ([`steps`]). Both are told in a message to each
//! receiver that takes them. A rule and its subject are the key: of each key at most one alert is open at a time.

mod course;
mod message;
mod retry;
mod sighting;
#[cfg(test)]
mod tests;

pub use course::{AlertRecord, AlertStep, ResolvedBy, steps};
pub use message::{AlertMessage, AlertNews, AlertTold, BatchEnd, HookFormat, ReportMade};
pub use retry::{GIVE_UP_AFTER, SendOutcome, next_try};
pub use sighting::{LostHow, LostWorker, Observations, RouteFlow, RouteWork, StoppedBatch, UsualHour, sightings};

use super::NanoUsd;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long what jobs have come to is not read again after a reading that took so long, if workers look so often.
///
/// The sums of the last hours may be millions of rows that are not folded yet. Reading them has a fiftieth of the time,
/// and is part of every fourth look at least: an alert that holds must not begin anew ([`steps`]).
#[must_use]
pub fn pause_in_reading(took: Duration, every: Duration) -> Duration {
    took.saturating_mul(49).min(every.saturating_mul(3))
}

/// How grave an alert is. Receivers take alerts from a severity on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertSeverity {
    /// Nothing is wrong.
    Info,
    /// It will hurt, or costs more than it should.
    Warning,
    /// It hurts: work stands still, or money is lost.
    Critical,
}

impl AlertSeverity {
    /// All of them, the mildest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The word in the configuration, in rows and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == word)
    }
}

/// The rules, one for each trouble or event that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertRule {
    /// The breaker of a target is not closed.
    BreakerOpen,
    /// Too many answers of a route do not come from the first choice of their jobs.
    FallbackShare,
    /// Answers of a route cost much more than they would have at the first choice.
    DearerRung,
    /// A budget is past its soft threshold.
    BudgetSoft,
    /// The amount left in a budget does not cover the jobs that are left.
    BudgetShort,
    /// A budget has no room.
    BudgetFull,
    /// A key is out of service.
    KeyOut,
    /// A target gives the same long answer to different requests.
    StuckAnswer,
    /// Calls of a target have no known price.
    UnknownPrice,
    /// The costs that a provider reports are not the computed ones.
    CostDiffers,
    /// There is work on a route, and none of it has ended for some time.
    StuckQueue,
    /// A batch is paused by its stop-loss.
    StopLoss,
    /// An hour costs many times what hours usually cost.
    CostSpike,
    /// Outcomes wait on a worker's disk.
    SpoolInUse,
    /// A worker has died.
    WorkerLost,
    /// A loop of a worker has ended unexpectedly.
    LoopLost,
    /// The doctor found something bad.
    Doctor,
    /// Something has been paused for long.
    ForgottenPause,
    /// The last job of a batch has ended.
    BatchCompleted,
    /// The last job of a batch has ended, and too many of them have failed.
    BatchFailed,
}

/// What a rule is, and what an operator does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleFacts {
    /// The name in the configuration, in rows and in messages.
    pub name: &'static str,
    /// How grave it is, unless the configuration says otherwise.
    pub severity: AlertSeverity,
    /// For how long it has to be seen before it fires, unless the configuration says otherwise.
    pub hold: Duration,
    /// What to do, in words; empty: nothing.
    pub remedy: &'static str,
}

impl AlertRule {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::BreakerOpen,
        Self::FallbackShare,
        Self::DearerRung,
        Self::BudgetSoft,
        Self::BudgetShort,
        Self::BudgetFull,
        Self::KeyOut,
        Self::StuckAnswer,
        Self::UnknownPrice,
        Self::CostDiffers,
        Self::StuckQueue,
        Self::StopLoss,
        Self::CostSpike,
        Self::SpoolInUse,
        Self::WorkerLost,
        Self::LoopLost,
        Self::Doctor,
        Self::ForgottenPause,
        Self::BatchCompleted,
        Self::BatchFailed,
    ];

    /// The facts about it.
    #[must_use]
    pub const fn facts(self) -> RuleFacts {
        use AlertSeverity::{Critical, Info, Warning};
        const NONE: Duration = Duration::ZERO;
        const fn rule(name: &'static str, severity: AlertSeverity, hold: Duration, remedy: &'static str) -> RuleFacts {
            RuleFacts { name, severity, hold, remedy }
        }
        match self {
            Self::BreakerOpen => rule(
                "breaker_open",
                Warning,
                Duration::from_mins(2),
                "`sluice report failures --by model` says how its calls fail; the provider's status page says more",
            ),
            Self::FallbackShare => rule(
                "fallback_share",
                Warning,
                NONE,
                "`sluice report fallbacks` says why the first choice did not answer",
            ),
            Self::DearerRung => rule(
                "dearer_rung",
                Warning,
                NONE,
                "`sluice report fallbacks` says where the money went; more patience, or a pause of the route, stops it",
            ),
            Self::BudgetSoft => rule("budget_soft", Warning, NONE, "`sluice budget show` says what is left of it"),
            Self::BudgetShort => rule(
                "budget_short",
                Warning,
                Duration::from_mins(5),
                "raise it (`sluice budget raise`), or cancel work that can wait",
            ),
            Self::BudgetFull => rule(
                "budget_full",
                Critical,
                Duration::from_mins(1),
                "its work waits: raise it (`sluice budget raise`), or wait until its window turns",
            ),
            Self::KeyOut => rule(
                "key_out",
                Warning,
                NONE,
                "replace the key or pay the provider, then `sluice provider reopen`, or reload the workers",
            ),
            Self::StuckAnswer => rule(
                "stuck_answer",
                Warning,
                NONE,
                "`sluice provider pause` keeps jobs from it; `validate.stuck_answer = true` on a route rejects such \
                 answers, and then its jobs pass the target over",
            ),
            Self::UnknownPrice => rule(
                "unknown_price",
                Warning,
                NONE,
                "add its price under [models], reload the workers, then `sluice reprice`",
            ),
            Self::CostDiffers => rule(
                "cost_differs",
                Warning,
                NONE,
                "correct its price under [models] or take a newer catalogue (`sluice prices`), then `sluice reprice`",
            ),
            Self::StuckQueue => {
                rule("stuck_queue", Critical, Duration::from_mins(15), "`sluice status` says what its jobs wait for")
            }
            Self::StopLoss => rule(
                "stop_loss",
                Critical,
                NONE,
                "`sluice report failures` says what failed; `sluice batch resume` goes on with the batch",
            ),
            Self::CostSpike => {
                rule("cost_spike", Critical, NONE, "`sluice report cost --by route,model` says what costs so much")
            }
            Self::SpoolInUse => rule(
                "spool_in_use",
                Warning,
                Duration::from_mins(2),
                "the worker's log says why the database does not take its outcomes; so does `sluice doctor`",
            ),
            Self::WorkerLost => rule(
                "worker_lost",
                Warning,
                NONE,
                "its jobs are taken over; look at the log of that machine, and start a worker there",
            ),
            Self::LoopLost => rule(
                "loop_lost",
                Critical,
                NONE,
                "it shut down cleanly: start it again, and report the lines of its log about that part",
            ),
            Self::Doctor => rule("doctor", Critical, NONE, "`sluice doctor` says why it matters and what to do"),
            Self::ForgottenPause => rule("forgotten_pause", Warning, NONE, "resume it, or pause it anew with a reason"),
            Self::BatchCompleted => rule("batch_completed", Info, NONE, ""),
            Self::BatchFailed => rule("batch_failed", Warning, NONE, "`sluice report failures` says what failed"),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// The rule of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }

    /// Whether it tells of something that has happened once, and not of a state that lasts.
    #[must_use]
    pub const fn is_event(self) -> bool {
        matches!(self, Self::BatchCompleted | Self::BatchFailed)
    }
}

/// How a rule is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// Whether it is used.
    pub on: bool,
    pub severity: AlertSeverity,
    /// For how long it has to be seen before it fires.
    pub hold: Duration,
}

/// From where on something is worth an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertThresholds {
    /// The share of answers that may come from other rungs than the first choice, in millionths, …
    pub fallback_share: u32,
    /// … over this time, …
    pub fallback_window: Duration,
    /// … where there are at least so many answers.
    pub fallback_answers: i64,
    /// By which share answers may cost more than they would have at the first choice, in millionths, …
    pub dearer_share: u32,
    /// … over this time, …
    pub dearer_window: Duration,
    /// … where that is at least so much money.
    pub dearer_amount: NanoUsd,
    /// How many times the usual hour an hour may cost, …
    pub spike_times: u32,
    /// … where that is at least so much money.
    pub spike_amount: NanoUsd,
    /// Calls without a known price in the last day.
    pub unknown_calls: i64,
    /// Calls in the last day whose reported cost differs.
    pub differing_calls: i64,
    /// How old a pause may be.
    pub pause_age: Duration,
    /// The share of a batch's jobs that may fail before it counts as failed, in millionths.
    pub batch_failed_share: u32,
}

/// The rules that are watched, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSettings {
    /// How often one of the workers looks.
    pub every: Duration,
    /// How long something has to be gone before it counts as over.
    pub clear: Duration,
    /// How long after the last message a reminder comes; `None`: never.
    pub repeat: Option<Duration>,
    /// How often the doctor looks.
    pub doctor_every: Duration,
    /// How long alerts that are over, and messages that were sent, are kept.
    pub keep: Duration,
    /// What messages say they are from.
    pub source: Option<String>,
    pub rules: BTreeMap<AlertRule, RuleSettings>,
    pub thresholds: AlertThresholds,
}

impl Default for AlertSettings {
    fn default() -> Self {
        let rules = AlertRule::ALL.map(|rule| {
            let RuleFacts { severity, hold, .. } = rule.facts();
            (rule, RuleSettings { on: true, severity, hold })
        });
        Self {
            every: Duration::from_secs(30),
            clear: Duration::from_mins(2),
            repeat: Some(Duration::from_hours(4)),
            doctor_every: Duration::from_mins(15),
            keep: Duration::from_hours(30 * 24),
            source: None,
            rules: BTreeMap::from(rules),
            thresholds: AlertThresholds {
                fallback_share: 200_000,
                fallback_window: Duration::from_mins(30),
                fallback_answers: 50,
                dearer_share: 250_000,
                dearer_window: Duration::from_hours(1),
                dearer_amount: NanoUsd(1_000_000_000),
                spike_times: 3,
                spike_amount: NanoUsd(10_000_000_000),
                unknown_calls: 1,
                differing_calls: 1,
                pause_age: Duration::from_hours(24),
                batch_failed_share: 500_000,
            },
        }
    }
}

impl AlertSettings {
    /// How a rule is used.
    #[must_use]
    pub fn rule(&self, rule: AlertRule) -> RuleSettings {
        let RuleFacts { severity, hold, .. } = rule.facts();
        self.rules.get(&rule).copied().unwrap_or(RuleSettings { on: true, severity, hold })
    }
}

/// Something that a rule sees at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub rule: AlertRule,
    /// What it is about: a target, a route, a budget. Part of the key.
    pub subject: String,
    /// The sighting, in a sentence without its end. Holds no prompt, no answer and no secret.
    pub summary: String,
    /// The figures behind it, by name.
    pub values: BTreeMap<&'static str, String>,
}

/// What a receiver takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appetite {
    /// `None`: all rules.
    pub rules: Option<BTreeSet<AlertRule>>,
    /// The mildest severity.
    pub severity: AlertSeverity,
}

impl Appetite {
    /// Whether it takes what this rule tells with this severity.
    #[must_use]
    pub fn takes(&self, rule: AlertRule, severity: AlertSeverity) -> bool {
        severity >= self.severity && self.rules.as_ref().is_none_or(|rules| rules.contains(&rule))
    }
}
