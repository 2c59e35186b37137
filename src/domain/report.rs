//! Reports by their names: which there are, and by what they are grouped. Every face asks in these words.

use std::time::Duration;

/// Words that a report is asked for in: an enum, whose names and meanings stand in one place.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal: $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The names of all.
            #[must_use]
            pub fn names() -> Vec<&'static str> {
                Self::ALL.iter().map(|one| one.as_str()).collect()
            }

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What it means, in words.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)*
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == name)
            }
        }
    };
}

words! {
    /// A kind of report.
    ReportKind {
        Cost = "cost": "Dollars and tokens",
        Quality = "quality":
            "How many answers were accepted, what was wrong with the others, and dollars per accepted answer",
        Failures = "failures":
            "Attempts and jobs that failed, by error class, with the provider's code and what it says",
        Waste = "waste": "Money for answers that were not used",
        Fallbacks = "fallbacks":
            "Answers that did not come from the first choice: which it was, why, who answered, and what that cost more",
        Reasks = "reasks":
            "Calls that named the fault of a rejected answer, and what came of them; of the last 24 hours \
             unless --since says otherwise",
        Latency = "latency":
            "How long accepted answers took; of the last 24 hours unless --since says otherwise",
        Shadow = "shadow":
            "Answers beside those of the shadows of their jobs: how many agree, and what each cost and took. Route, \
             project, batch and login are those of the jobs, provider and model those of the shadows",
        Cache = "cache": "Answers that the caches of routes gave again, and the money that they saved",
        PromptCache = "prompt-cache":
            "Input that was read from the prompt caches of providers, and the money that this saved",
    }
}

words! {
    /// What a report is grouped by.
    ReportBy {
        Provider = "provider": "The provider that was called",
        Model = "model": "The model that was called",
        Route = "route": "The route that the job named",
        Project = "project": "The project that pays",
        Batch = "batch": "The batch",
        Login = "login": "The login that enqueued the job",
        Class = "class": "Error class and kind of soft failure",
        Code = "code": "Code of a failure: the provider's, or else the HTTP status",
        From = "from": "Of fallbacks: the first choice",
        Why = "why": "Of fallbacks: why the first choice did not answer",
        To = "to": "Of fallbacks: the target that answered",
        Day = "day": "Day, UTC",
        Hour = "hour": "Hour, UTC",
    }
}

impl ReportKind {
    /// The time that it covers unless it is asked for another one; `None`: all. How things are now is what reports of
    /// latencies and re-asks are for.
    #[must_use]
    pub const fn usual_span(self) -> Option<Duration> {
        match self {
            Self::Reasks | Self::Latency => Some(Duration::from_hours(24)),
            Self::Cost
            | Self::Quality
            | Self::Failures
            | Self::Waste
            | Self::Fallbacks
            | Self::Shadow
            | Self::Cache
            | Self::PromptCache => None,
        }
    }
}

/// Why a dimension says nothing in a report: an answer that is used has no class.
#[must_use]
pub fn says_nothing(kind: ReportKind, by: &[ReportBy]) -> Option<&'static str> {
    let is_known_of_caches =
        |by: &ReportBy| matches!(by, ReportBy::Route | ReportBy::Project | ReportBy::Day | ReportBy::Hour);
    if kind == ReportKind::Cache && !by.iter().all(is_known_of_caches) {
        return Some("what the cache saved is kept by route, project, day and hour: --by takes these");
    }
    if kind != ReportKind::Fallbacks && by.iter().any(|by| matches!(by, ReportBy::From | ReportBy::Why | ReportBy::To))
    {
        return Some("--by from, why and to tell fallbacks apart: `sluice report fallbacks` takes them");
    }
    if !matches!(kind, ReportKind::Failures | ReportKind::Waste) && by.contains(&ReportBy::Code) {
        return Some(
            "--by code says nothing here: only failures have a code. `sluice report failures --by code` has them",
        );
    }
    if kind == ReportKind::Quality && by.contains(&ReportBy::Class) {
        return Some("--by class says nothing here: this report has a column for each kind of unusable answer");
    }
    let is_of_answers = matches!(kind, ReportKind::Fallbacks | ReportKind::Latency | ReportKind::Shadow);
    (is_of_answers && by.contains(&ReportBy::Class)).then_some(
        "--by class says nothing here: this report is of answers that were used, and only failures have a class. \
         `sluice report failures --by class` has those",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_refused_where_nothing_has_one() {
        for kind in [ReportKind::Fallbacks, ReportKind::Latency, ReportKind::Shadow] {
            assert!(says_nothing(kind, &[ReportBy::Day, ReportBy::Class]).is_some(), "{kind:?}");
            assert_eq!(says_nothing(kind, &[ReportBy::Day, ReportBy::Route]), None, "{kind:?}");
        }
        for kind in [ReportKind::Cost, ReportKind::Failures, ReportKind::Waste] {
            assert_eq!(says_nothing(kind, &[ReportBy::Class]), None, "{kind:?}");
        }
        for by in [ReportBy::Class, ReportBy::Code, ReportBy::From, ReportBy::Why, ReportBy::To] {
            assert!(says_nothing(ReportKind::Quality, &[by]).is_some(), "{by:?}");
        }
        assert_eq!(
            says_nothing(ReportKind::Fallbacks, &[ReportBy::From, ReportBy::Why, ReportBy::To, ReportBy::Login]),
            None
        );
    }
}
