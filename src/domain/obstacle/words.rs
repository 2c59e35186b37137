//! Obstacles in words: the hindrance, and the command that a person may type.

use super::{Hindrance, JobPause, KeyOut, Obstacle, Pause, ShutTarget};
use crate::domain::Timestamp;
use crate::domain::awaited::{WITHIN_PATIENCE, What};
use crate::domain::budget::BudgetStanding;
use crate::domain::counted::counted;
use crate::domain::pause::PauseKind;
use crate::domain::roll::roll;
use crate::domain::shut::Reason;
use chrono::DateTime;
use std::fmt::Write as _;
use std::time::Duration;

const DAY: i64 = 86_400_000;

/// Limits that open sooner let calls through all the time.
const SOON: Duration = Duration::from_mins(1);

/// What a stop-loss writes as the reason of its pause begins with this.
const STOP_LOSS: &str = "stop-loss:";

impl Obstacle {
    /// The reason of the stop-loss that has paused the batch, where that is all it waits for.
    #[must_use]
    pub fn stop_loss(&self) -> Option<&str> {
        let Hindrance::PausedBy(PauseKind::Batch, Some(pause)) = &self.kind else { return None };
        pause.why.as_deref().filter(|why| why.starts_with(STOP_LOSS))
    }

    /// The hindrance, as a sentence without its end.
    #[must_use]
    pub fn in_words(&self) -> String {
        let words = self.hindrance_in_words();
        if self.others.is_empty() {
            return words;
        }
        format!("{words}; others wait for {}", roll(self.others.iter().map(String::as_str)))
    }

    fn hindrance_in_words(&self) -> String {
        let now = self.as_of;
        match &self.kind {
            Hindrance::NoQueue => "in no queue, so no worker finds it: it came in while triggers were off".to_owned(),
            Hindrance::NoWorker { others: 0 } => "no worker is running".to_owned(),
            Hindrance::NoWorker { others } => format!(
                "no worker is running that takes it: {} or on other batches alone",
                counted(others, "worker is stopping", "workers are stopping")
            ),
            Hindrance::RouteUnknown { route, known } if known.is_empty() => {
                format!("no worker that is running has the route {route}")
            }
            Hindrance::RouteUnknown { route, known } => {
                let known = roll(known.iter().map(String::as_str));
                format!("no worker that is running has the route {route}; they have {known}")
            }
            Hindrance::Scheduled => match self.until {
                Some(until) => format!("scheduled for {}", moment(until, now)),
                None => "scheduled for later".to_owned(),
            },
            Hindrance::Paused(None) => "the job itself is paused".to_owned(),
            Hindrance::Paused(Some(JobPause { by, since, why })) => {
                paused("the job itself", by.as_deref(), *since, why.as_deref(), now)
            }
            Hindrance::PausedBy(kind, None) => format!("its {} is paused", kind.as_str()),
            Hindrance::PausedBy(kind, Some(pause)) => pause.in_words(&format!("{} {}", kind.as_str(), pause.name), now),
            Hindrance::Budget(name, None) => format!("the budget {name} has no room"),
            Hindrance::Budget(name, Some(standing)) => no_room(&format!("the budget {name}"), standing, now),
            Hindrance::Shut(shut) => shut.in_words(self.until, now),
            Hindrance::Other => self.code.clone(),
        }
    }

    /// What a person may do about it; `None`: it passes by itself. `job`: it is in the way of this job.
    #[must_use]
    pub fn advice(&self, job: Option<i64>) -> Option<Advice> {
        match &self.kind {
            Hindrance::NoQueue => Some(Advice::Words("sluice doctor --repair")),
            Hindrance::NoWorker { .. } => Some(Advice::Words("sluice worker")),
            Hindrance::RouteUnknown { route, .. } => Some(Advice::AddRoute(route.clone())),
            Hindrance::Paused(_) => {
                Some(job.map_or(
                    Advice::Words("sluice job resume ID, or sluice job resume --route ROUTE"),
                    Advice::ResumeJob,
                ))
            }
            Hindrance::PausedBy(kind, pause) => Some(Advice::Resume(*kind, pause.as_ref()?.name.clone())),
            Hindrance::Budget(name, standing) => raise(name, standing.as_deref()),
            Hindrance::Shut(shut) => shut.advice(),
            Hindrance::Scheduled | Hindrance::Other => None,
        }
    }
}

/// What a person may do about an obstacle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Resume the thing of this name.
    Resume(PauseKind, String),
    /// Resume the job.
    ResumeJob(i64),
    /// Raise the budget of this name.
    RaiseBudget(String),
    /// Mend the fault at the provider of this name, which is then tried again.
    Mend { what: &'static str, provider: String },
    /// Add the route of this name to the configuration, or cancel its jobs.
    AddRoute(String),
    /// Something else: a command without names in it, or what to do in words.
    Words(&'static str),
}

impl ShutTarget {
    /// Why the target cannot be called. `until`: when it is over, as far as is known.
    #[must_use]
    pub fn in_words(&self, until: Option<Timestamp>, now: Timestamp) -> String {
        let mut words = format!("{}: ", self.target);
        if let Some(standing) = &self.budget {
            words.push_str(&no_room(&format!("its provider's budget {}", standing.budget.name), standing, now));
            if !self.because.is_empty() && self.because != WITHIN_PATIENCE {
                let _ = write!(words, "; {}", self.because);
            }
            return words;
        }
        match self.what {
            What::Retry if self.because.is_empty() => words.push_str("it failed, and is tried again"),
            What::Retry => {
                let _ = write!(words, "its last call failed ({}), and it is tried again", self.because);
            }
            What::Opens(Reason::Paused) => match &self.pause {
                Some(pause) => words.push_str(&pause.in_words("its provider", now)),
                None => words.push_str("its provider is paused"),
            },
            What::Opens(Reason::Auth | Reason::QuotaExhausted) if !self.keys.is_empty() => {
                words.push_str("no key is in service: ");
                let keys: Vec<String> = self.keys.iter().map(|key| key.in_words(now)).collect();
                words.push_str(&keys.join("; "));
            }
            What::Opens(reason) => {
                words.push_str(shut(reason));
                if !self.limits.is_empty() {
                    let _ = write!(words, " ({})", self.limits.join(", "));
                }
                if let Some(said) = &self.said {
                    let _ = write!(words, " ({said})");
                }
                if let (Reason::HealthProbe, Some(since)) = (reason, self.since) {
                    let _ = write!(words, " since {}", moment(since, now));
                }
            }
        }
        if until.is_some_and(|until| until <= now) && self.is_tried() {
            words.push_str("; one call is trying it");
        } else if until.is_some_and(|until| until > now && now.until(until) < SOON) && self.is_a_limit() {
            // Other calls take their turns meanwhile, so the instant at which the next one may begin moves on.
            words.push_str("; calls go on within a minute");
        } else if let Some(until) = until.filter(|until| *until > now) {
            let again = match self.what {
                What::Opens(reason) if reason.is_a_limit() => " until",
                What::Opens(Reason::PeakHours) => ", which end at",
                What::Opens(Reason::Offline | Reason::AskedToWait) => "; calls try again at",
                What::Opens(Reason::HealthProbe) => "; the next one goes at",
                What::Opens(_) => "; one call tries again at",
                What::Retry => " at",
            };
            let _ = write!(words, "{again} {}", moment(until, now));
        }
        if let Some(until) = self.patience_until {
            let _ = write!(words, "; it waits for this rung until {} at most", moment(until, now));
        } else if self.because == WITHIN_PATIENCE {
            words.push_str("; it waits for this rung as long as its patience lasts");
        } else if !self.because.is_empty() && self.what != What::Retry {
            let _ = write!(words, "; {}", self.because);
        }
        words
    }

    fn is_a_limit(&self) -> bool {
        matches!(self.what, What::Opens(reason) if reason.is_a_limit())
    }

    /// Whether one call tries it when its time has come, and the others wait for the result.
    const fn is_tried(&self) -> bool {
        matches!(
            self.what,
            What::Opens(Reason::Breaker | Reason::Auth | Reason::KeysInDoubt | Reason::QuotaExhausted | Reason::Model)
        )
    }

    /// What a person may do about it.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        let provider = self.target.split('/').next().unwrap_or(&self.target).to_owned();
        let what = match self.what {
            What::Opens(Reason::Paused) => return Some(Advice::Resume(PauseKind::Provider, provider)),
            What::Opens(Reason::Budget) => {
                let standing = self.budget.as_deref();
                return standing.and_then(|standing| raise(&standing.budget.name, Some(standing)));
            }
            What::Opens(Reason::Auth) => {
                "replace the key and reload the workers (SIGHUP; restart them where a variable holds it)"
            }
            What::Opens(Reason::QuotaExhausted) => "pay the provider, or add a key and reload the workers (SIGHUP)",
            What::Opens(Reason::Model) => {
                "correct the model's name and reload the workers (SIGHUP), or allow it to the key"
            }
            What::Opens(_) | What::Retry => return None,
        };
        Some(Advice::Mend { what, provider })
    }
}

impl KeyOut {
    fn in_words(&self, now: Timestamp) -> String {
        let what = match self.reason {
            Some(Reason::QuotaExhausted) => "is out of money",
            _ => "was rejected",
        };
        let mut words = format!("{} {what}", self.key);
        if let Some(since) = self.since {
            let _ = write!(words, " {} ago", span(since.until(now)));
        }
        if let Some(said) = &self.said {
            let _ = write!(words, " ({said})");
        }
        words
    }
}

/// `the budget news has no room: $0.98 of $1.00 is spent; its day ends at 00:00:00 UTC (in 5h)`.
fn no_room(what: &str, standing: &BudgetStanding, now: Timestamp) -> String {
    let mut words = format!("{what} has no room: {}", standing.in_words());
    if standing.waits_for_calls() {
        words.push_str("; work goes on when they end");
    } else if let Some(until) = standing.ends_at {
        let _ = write!(words, "; its {} ends at {}", standing.budget.period.as_str(), moment(until, now));
    } else {
        words.push_str("; it counts once");
    }
    words
}

/// A budget in which calls under way leave no room is not short of money.
fn raise(name: &str, standing: Option<&BudgetStanding>) -> Option<Advice> {
    let is_moment = standing.is_some_and(BudgetStanding::waits_for_calls);
    (!is_moment).then(|| Advice::RaiseBudget(name.to_owned()))
}

/// Why a target is shut, in words about the target.
#[must_use]
pub const fn shut(reason: Reason) -> &'static str {
    match reason {
        Reason::RateLimit => "its limit is used up",
        Reason::Concurrency => "all its places are taken",
        Reason::NoCapacity => "its tier has no capacity",
        Reason::PeakHours => "it is in its peak hours",
        Reason::Breaker => "its breaker is open after failures",
        Reason::AskedToWait => "its provider failed and asked to be left alone",
        Reason::Offline => "no provider can be reached, and it rests for a moment",
        Reason::QuotaExhausted => "its key is out of money",
        Reason::Auth => "its key is rejected",
        Reason::KeysInDoubt => "its keys are refused, which is not believed of them yet",
        Reason::Model => "the model is unknown, or not allowed to the key",
        Reason::Paused => "its provider is paused",
        Reason::Budget => "its provider's budget has no room",
        Reason::HealthProbe => "its provider's health probe fails",
        Reason::Slow => "its answers are slow",
        Reason::Quality => "its answers are rejected",
    }
}

impl Pause {
    fn in_words(&self, what: &str, now: Timestamp) -> String {
        // A stop-loss is written by its worker, and by no person.
        let by = self.by.as_deref().filter(|_| !self.why.as_deref().is_some_and(|why| why.starts_with(STOP_LOSS)));
        paused(what, by, self.since, self.why.as_deref(), now)
    }
}

/// `batch b is paused by ops since 08:00:09 UTC (51s ago): the reason`.
fn paused(what: &str, by: Option<&str>, since: Timestamp, why: Option<&str>, now: Timestamp) -> String {
    let by = by.map_or_else(String::new, |by| format!(" by {by}"));
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!("{what} is paused{by} since {}{why}", moment(since, now))
}

/// An instant with its distance: `08:00:09 UTC (in 51s)`, with the date where it is another day.
#[must_use]
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    let form = if now.0.div_euclid(DAY) == at.0.div_euclid(DAY) { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M UTC" };
    let clock = formatted(at, form);
    if at > now {
        format!("{clock} (in {})", span(now.until(at)))
    } else {
        format!("{clock} ({} ago)", span(at.until(now)))
    }
}

/// An instant for a text that is read later.
#[must_use]
pub fn instant(at: Timestamp) -> String {
    formatted(at, "%Y-%m-%d %H:%M:%S UTC")
}

fn formatted(at: Timestamp, form: &str) -> String {
    DateTime::from_timestamp_millis(at.0).map_or_else(|| "an unknown time".to_owned(), |at| at.format(form).to_string())
}

/// A duration to the precision that people ask for: its two largest units.
#[must_use]
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let parts = units.iter().map(|(size, name)| {
        let count = rest / size;
        rest %= size;
        (count, name)
    });
    let told: Vec<String> = parts
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count}{name}"))
        .collect();
    if told.is_empty() { "0s".to_owned() } else { told.join(" ") }
}
