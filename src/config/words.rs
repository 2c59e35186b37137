//! The keys whose value is one of a few words. Each list is read, documented and offered in messages.

use crate::domain::alert::{AlertSeverity, HookFormat};
use crate::domain::budget::{Period, Unpriced};
use crate::domain::game_day::GameFault;
use crate::domain::larger_cap::RaiseCap;
use crate::domain::prefix::CacheLife;
use crate::domain::schedule::{CatchUp, Overlap};
use crate::domain::validation::FinishRule;
use crate::store::Pooler;

/// Words, each with its meaning.
pub(super) type WordList<T> = &'static [(&'static str, T)];

/// The words alone.
pub(super) fn names<T>(words: WordList<T>) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// `database.pooler`
pub(super) const PERIODS: WordList<Period> =
    &[("hour", Period::Hour), ("day", Period::Day), ("month", Period::Month), ("once", Period::Once)];

/// `schedules.*.overlap`
pub(super) const OVERLAPS: WordList<Overlap> = &[("skip", Overlap::Skip), ("allow", Overlap::Allow)];

/// `schedules.*.catch_up`
pub(super) const CATCH_UPS: WordList<CatchUp> =
    &[("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];

/// `game_days.*.faults`
pub(super) const GAME_FAULTS: WordList<GameFault> =
    &[("overloaded", GameFault::Overloaded), ("server_error", GameFault::ServerError)];

/// The treatment of calls without a price.
pub(super) const UNPRICED: WordList<Unpriced> = &[("refuse", Unpriced::Refuse), ("allow", Unpriced::Allow)];

pub(super) const POOLERS: WordList<Pooler> =
    &[("auto", Pooler::Auto), ("none", Pooler::None), ("transaction", Pooler::Transaction)];

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// `log.format`
pub(super) const LOG_FORMATS: WordList<LogFormat> = &[("human", LogFormat::Human), ("json", LogFormat::Json)];

/// `validate.finish`
pub(super) const FINISH_RULES: WordList<FinishRule> =
    &[("said", FinishRule::Said), ("known", FinishRule::Known), ("any", FinishRule::Any)];

/// `validate.filter`: whether the content filter has to have run.
pub(super) const FILTER_RULES: WordList<bool> = &[("any", false), ("ran", true)];

/// `validate.raise_cap`
pub(super) const CAP_RAISES: WordList<RaiseCap> =
    &[("never", RaiseCap::Never), ("reasoning", RaiseCap::Reasoning), ("always", RaiseCap::Always)];

/// Which model may answer: whether only the one that was asked.
pub(super) const SERVED_RULES: WordList<bool> = &[("any", false), ("asked", true)];

/// `prompt_cache.ttl`
pub(super) const CACHE_LIVES: WordList<CacheLife> =
    &[(CacheLife::FiveMinutes.as_str(), CacheLife::FiveMinutes), (CacheLife::Hour.as_str(), CacheLife::Hour)];

/// How the calls of a provider are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthKind {
    /// By a key that goes with each call.
    Key,
    /// By a signature.
    SigV4,
}

/// `providers.*.auth`
pub(super) const AUTH_KINDS: WordList<AuthKind> = &[("key", AuthKind::Key), ("sigv4", AuthKind::SigV4)];

/// Where AWS's platforms hand out the keys of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialSource {
    /// The service of a container.
    Container,
    /// The service of a virtual machine.
    Instance,
    /// STS, for a token of an identity provider.
    WebIdentity,
}

/// `providers.*.credential_source`
pub(super) const CREDENTIAL_SOURCES: WordList<CredentialSource> = &[
    ("container", CredentialSource::Container),
    ("instance", CredentialSource::Instance),
    ("web_identity", CredentialSource::WebIdentity),
];

/// `alerts.receivers.*.format`
pub(super) const HOOK_FORMATS: WordList<HookFormat> = &[("generic", HookFormat::Generic), ("slack", HookFormat::Slack)];

/// `severity` of rules and receivers.
pub(super) const SEVERITIES: WordList<AlertSeverity> = &[
    (AlertSeverity::Info.as_str(), AlertSeverity::Info),
    (AlertSeverity::Warning.as_str(), AlertSeverity::Warning),
    (AlertSeverity::Critical.as_str(), AlertSeverity::Critical),
];
