//! The histories that a database has been on. A promotion, a restore or a copy begins another, and the last commits of
//! the one before may be gone.

use super::NanoUsd;
use std::fmt::Write as _;

/// The difference from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing is known from before.
    First,
    /// The cluster, by its system identifier.
    Cluster,
    /// The database in it.
    Database,
    /// The tables in that.
    Tables,
    /// The timeline of the server's WAL.
    Timeline,
    /// None of these, and yet confirmed commits are gone.
    WentBack,
}

impl Change {
    /// The change with the database's name; a name that a newer version wrote counts as the most general one.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "first" => Self::First,
            "cluster" => Self::Cluster,
            "database" => Self::Database,
            "tables" => Self::Tables,
            "timeline" => Self::Timeline,
            _ => Self::WentBack,
        }
    }
}

/// A history of the database, as a worker noticed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// Its number, from 1.
    pub number: i32,
    /// The difference from the history before.
    pub change: Change,
    /// The server's timeline; `None`: it cannot be read.
    pub timeline: Option<i32>,
    /// The timeline of the history before.
    pub previous_timeline: Option<i32>,
    /// When it was noticed, as text.
    pub began_at: String,
    /// How many seconds ago it was noticed.
    pub age: i64,
    /// When the history before was last seen, as far as this one knows.
    pub previous_seen_at: Option<String>,
    /// New jobs are numbered from here on.
    pub next_job: Option<i64>,
    /// When a worker's commit that is now gone was confirmed.
    pub lost_to: Option<String>,
    /// The last commit of that worker that is still there.
    pub lost_from: Option<String>,
}

impl TimelineSwitch {
    /// The event, in a few sentences.
    #[must_use]
    pub fn in_words(&self) -> String {
        let what = match (self.change, self.previous_timeline, self.timeline) {
            (Change::First, _, _) => return "no change of its history is known".to_owned(),
            (Change::Cluster, _, _) => {
                "the database is in another cluster than before: it was restored from a dump, copied, or moved by \
                 pg_upgrade"
                    .to_owned()
            }
            (Change::Database, _, _) => {
                "the database is another one of its cluster than before: it was restored from a dump, or \
                 copied"
                    .to_owned()
            }
            (Change::Tables, _, _) => "the database's tables were restored from a dump".to_owned(),
            (Change::Timeline, Some(before), Some(after)) => format!(
                "the database went from timeline {before} to {after}: a standby was promoted, or a backup restored to \
                 a point in time"
            ),
            (Change::Timeline | Change::WentBack, _, _) => {
                "the database went back in time: a snapshot or a backup was brought back".to_owned()
            }
        };
        let seen = self.previous_seen_at.as_ref().map(|seen| format!(" It remembers a look at {seen};"));
        let lost = match (&self.lost_to, &self.lost_from) {
            (Some(to), Some(from)) => format!(
                "commits that were confirmed are lost: a worker's of {to} is gone, and the last of it \
                 that is there is of {from}"
            ),
            (Some(to), None) => format!("commits that were confirmed are lost: a worker's of {to} is gone"),
            (None, _) if self.change == Change::Timeline => {
                "it is not known that anything is lost, and with a synchronous standby nothing need be".to_owned()
            }
            (None, _) if matches!(self.change, Change::Cluster | Change::Database | Change::Tables) => {
                "what the original has committed after that is not in it".to_owned()
            }
            (None, _) => "all commits after the backup are lost".to_owned(),
        };
        format!("{what}.{} {lost}", seen.unwrap_or_default())
    }
}

/// Calls whose jobs, or whose outcomes, the database has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stray {
    /// The number of calls.
    pub calls: i64,
    /// What they cost, as far as prices are known.
    pub cost: NanoUsd,
    /// What they may have cost in addition.
    pub uncertain: NanoUsd,
    /// Calls without a price.
    pub unpriced: i64,
}

impl Stray {
    /// The money, in words.
    #[must_use]
    pub fn money(&self) -> String {
        let mut words = self.cost.to_string();
        if self.uncertain != NanoUsd::ZERO {
            let _ = write!(words, " and perhaps {} more", self.uncertain);
        }
        if self.unpriced > 0 {
            let _ = write!(words, ", {} of unknown price", self.unpriced);
        }
        words
    }
}

/// The history of a database, as far as it is known.
#[derive(Clone, Debug)]
pub struct History {
    /// Whether the server's identity and timeline can be read.
    pub is_readable: bool,
    /// Whether it is a standby, which has no timeline of its own.
    pub is_standby: bool,
    /// Whether the database is on another history than the one noted last.
    pub is_news: bool,
    /// The history that was noted last.
    pub turn: Option<TimelineSwitch>,
    /// Calls of lost jobs that were booked in the last week.
    pub stray: Stray,
    /// Calls since then whose outcomes were lost and whose jobs are called for again.
    pub again: Stray,
    /// Answers since then that came when the job had been answered again already.
    pub late: Stray,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(change: Change) -> TimelineSwitch {
        TimelineSwitch {
            number: 2,
            change,
            timeline: Some(2),
            previous_timeline: Some(1),
            began_at: "2026-11-26T12:00:05Z".to_owned(),
            age: 5,
            previous_seen_at: Some("2026-11-26T11:59:30Z".to_owned()),
            next_job: Some(2_000_000),
            lost_to: None,
            lost_from: None,
        }
    }

    #[test]
    fn what_is_known_of_a_loss_is_said_and_no_more() {
        let promoted = turn(Change::Timeline);
        let lost = TimelineSwitch {
            lost_to: Some("2026-11-26T12:00:01Z".to_owned()),
            lost_from: Some("2026-11-26T11:59:58Z".to_owned()),
            ..promoted.clone()
        };
        for (turn, said, unsaid) in [
            (promoted.clone(), "from timeline 1 to 2", "are lost"),
            (promoted.clone(), "with a synchronous standby nothing need be", "is gone"),
            (promoted, "It remembers a look at 2026-11-26T11:59:30Z", "are lost"),
            (
                lost.clone(),
                "commits that were confirmed are lost: a worker's of 2026-11-26T12:00:01Z",
                "nothing need be",
            ),
            (
                TimelineSwitch { lost_from: None, ..lost },
                "a worker's of 2026-11-26T12:00:01Z is gone",
                "the last of it",
            ),
            (turn(Change::Cluster), "in another cluster", "timeline"),
            (turn(Change::Database), "what the original has committed after that", "nothing need be"),
            (turn(Change::Tables), "tables were restored from a dump", "timeline"),
            (turn(Change::WentBack), "went back in time", "nothing need be"),
            (TimelineSwitch { timeline: None, ..turn(Change::Timeline) }, "went back in time", "None"),
            (turn(Change::First), "no change", "gone"),
        ] {
            let words = turn.in_words();
            assert!(words.contains(said) && !words.contains(unsaid), "{:?}: {words}", turn.change);
        }
    }

    #[test]
    fn money_says_what_is_not_certain() {
        let stray = Stray { calls: 2, cost: NanoUsd(1_500_000_000), uncertain: NanoUsd(250_000_000), unpriced: 1 };
        assert_eq!(stray.money(), "$1.50 and perhaps $0.25 more, 1 of unknown price");
        assert_eq!(Stray { uncertain: NanoUsd::ZERO, unpriced: 0, ..stray }.money(), "$1.50");
    }
}
