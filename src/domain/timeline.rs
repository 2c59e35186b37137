//! The histories that a database has been on: a promotion, a restore or a copy begins another, and what was committed
//! last in the one before may be gone.

use super::NanoUsd;
use std::fmt::Write as _;

/// What was another than before.
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
    /// As the database writes it; what a newer version wrote is the most general of them.
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

/// A history that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number, from 1.
    pub number: i32,
    /// What was another than before.
    pub change: Change,
    /// The server's timeline; `None`: it cannot be read.
    pub timeline: Option<i32>,
    /// The one before.
    pub previous_timeline: Option<i32>,
    /// When it was noticed, as a text.
    pub began_at: String,
    /// How many seconds ago that was.
    pub age: i64,
    /// When the history before was last looked at, as far as this one knows.
    pub previous_seen_at: Option<String>,
    /// New jobs are numbered from here on.
    pub next_job: Option<i64>,
    /// When a worker's commit was confirmed that is gone.
    pub lost_to: Option<String>,
    /// The last commit of that worker that is there.
    pub lost_from: Option<String>,
}

impl Turn {
    /// What happened, in a few sentences.
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
            (None, _) => "what was committed after the backup is gone".to_owned(),
        };
        format!("{what}.{} {lost}", seen.unwrap_or_default())
    }
}

/// Calls whose jobs, or whose outcomes, the database has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stray {
    /// How many.
    pub calls: i64,
    /// What they cost, as far as prices are known.
    pub cost: NanoUsd,
    /// What they may have cost beside that.
    pub uncertain: NanoUsd,
    /// Those without a price.
    pub unpriced: i64,
}

impl Stray {
    /// How much money that is, in words.
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

/// How a database came to be as it is.
#[derive(Clone, Debug)]
pub struct History {
    /// Whether the server's identity and timeline can be read.
    pub is_readable: bool,
    /// Whether it is a standby, which has no timeline of its own.
    pub is_standby: bool,
    /// Whether it is on another history than was noted last.
    pub is_news: bool,
    /// The history that was noted last.
    pub turn: Option<Turn>,
    /// Calls of lost jobs that were booked in the last week.
    pub stray: Stray,
    /// Calls since then whose outcomes were lost, and whose jobs are called for again.
    pub again: Stray,
    /// Answers since then that came when the job was answered again already.
    pub late: Stray,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(change: Change) -> Turn {
        Turn {
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
        let lost = Turn {
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
            (Turn { lost_from: None, ..lost }, "a worker's of 2026-11-26T12:00:01Z is gone", "the last of it"),
            (turn(Change::Cluster), "in another cluster", "timeline"),
            (turn(Change::Database), "after the backup is gone", "nothing need be"),
            (turn(Change::Tables), "tables were restored from a dump", "timeline"),
            (turn(Change::WentBack), "went back in time", "nothing need be"),
            (Turn { timeline: None, ..turn(Change::Timeline) }, "went back in time", "None"),
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
