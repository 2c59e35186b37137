//! The report that a schedule makes of the time before each tick, and where it goes.

use super::{Schedule, TickSource};
use crate::domain::Timestamp;
use crate::domain::counted::counted;
use crate::domain::report::{ReportBy, ReportKind};
use crate::domain::template::{Template, Unfilled};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In milliseconds.
const HOUR: i64 = 3_600_000;

/// A report, of which part of the work it is, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickReport {
    pub kind: ReportKind,
    /// What it is grouped by; empty: as `sluice report` groups it by itself.
    pub by: Vec<ReportBy>,
    /// It covers so long a time before its end; `None`: as long as its kind does by itself.
    pub since: Option<Duration>,
    /// Only this project.
    pub project: Option<String>,
    /// Only this route.
    pub route: Option<String>,
    /// Only this batch.
    pub batch: Option<String>,
    /// Only jobs of this login.
    pub login: Option<String>,
    pub to: ReportGoesTo,
    /// The name of this installation in messages.
    pub source: Option<String>,
}

/// Where a report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportGoesTo {
    /// Into a file of its own, or over the last one.
    File {
        /// The folder, which has to be there.
        folder: PathBuf,
        /// The name in it, with what belongs to the tick in braces.
        name: Template,
        /// The whole path as it was written.
        written: String,
        form: ReportForm,
    },
    /// To this receiver of alerts.
    Receiver(String),
}

/// The form of a file with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    Csv,
    Json,
}

impl ReportForm {
    /// The form that the name of a file asks for by its ending.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The time that a report covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPeriod {
    /// `None`: from the beginning.
    pub from: Option<Timestamp>,
    pub until: Timestamp,
}

impl TickReport {
    /// The time that it covers, for this tick. Sums are kept by the hour, so it ends with the last full hour, and a
    /// worker that is late reads the same. The periods of ticks that are `since` apart, by UTC, meet. By hand it goes
    /// up to the moment.
    #[must_use]
    pub fn period(&self, at: Timestamp, by_hand: bool) -> ReportPeriod {
        let hour = |at: Timestamp| Timestamp(at.0.saturating_sub(at.0.rem_euclid(HOUR)));
        let until = if by_hand { at } else { hour(at) };
        ReportPeriod { from: self.span().map(|span| hour(until - span)), until }
    }

    /// How long a time it covers; `None`: all that came before its end.
    fn span(&self) -> Option<Duration> {
        self.since.or(self.kind.usual_span())
    }
}

impl fmt::Display for TickReport {
    /// Which report it is, in words: `cost by project of the last 168 hours, batch nightly`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        for (place, by) in self.by.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { " by " } else { ", " }, by.as_str())?;
        }
        if let Some(span) = self.span() {
            write!(f, " of the last {}", counted(span.as_secs() / 3_600, "hour", "hours"))?;
        }
        let parts =
            [("project", &self.project), ("route", &self.route), ("batch", &self.batch), ("login", &self.login)];
        for (what, name) in parts.iter().filter_map(|(what, name)| Some((what, name.as_ref()?))) {
            write!(f, ", {what} {name}")?;
        }
        Ok(())
    }
}

impl ReportGoesTo {
    /// The file that a schedule of this name writes, with what stands for its ticks in braces: two schedules with the
    /// same one would write over each other's reports. `None`: it writes none.
    #[must_use]
    pub fn file_for(&self, schedule: &str) -> Option<PathBuf> {
        match self {
            Self::File { folder, written, .. } => {
                let name = Path::new(written).file_name()?.to_str()?.replace("{name}", schedule);
                // `./a.csv` is `a.csv`; elsewhere in a path such a dot makes no difference.
                Some(folder.strip_prefix(".").unwrap_or(folder).join(name))
            }
            Self::Receiver(_) => None,
        }
    }
}

impl Schedule {
    /// The name that a file of this tick has.
    ///
    /// # Errors
    /// It names something that a tick does not have.
    pub fn file_of(&self, name: &Template, at: Timestamp, by_hand: bool) -> Result<String, Unfilled> {
        name.fill(&super::Named { schedule: self, at, by_hand })
    }

    /// The file that its report of this tick is written to; `None`: it writes none.
    #[must_use]
    pub fn report_file(&self, at: Timestamp) -> Option<PathBuf> {
        let TickSource::Report(report) = &self.source else { return None };
        let ReportGoesTo::File { folder, name, .. } = &report.to else { return None };
        // As in `file_for`.
        Some(folder.strip_prefix(".").unwrap_or(folder).join(self.file_of(name, at, false).ok()?))
    }

    /// Whether both write one file: by what they were told, or at a tick at this instant.
    #[must_use]
    pub fn shares_file_with(&self, other: &Self, at: Timestamp) -> bool {
        let told = |schedule: &Self| match &schedule.source {
            TickSource::Report(report) => report.to.file_for(&schedule.name),
            TickSource::File(_) | TickSource::Sql(_) | TickSource::Request(_) => None,
        };
        let is_one = |ours: Option<PathBuf>, theirs| ours.is_some() && ours == theirs;
        is_one(told(self), told(other)) || is_one(self.report_file(at), other.report_file(at))
    }

    /// The file that two ticks which follow each other both write, the first two after this instant; `None`: they do
    /// not.
    #[must_use]
    pub fn file_of_two_ticks(&self, after: Timestamp) -> Option<PathBuf> {
        let first = self.next(after)?;
        let file = self.report_file(first)?;
        (self.report_file(self.next(first)?)? == file).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::tests::schedule;
    use chrono::DateTime;

    fn at(text: &str) -> Timestamp {
        Timestamp(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    fn report(since: Option<Duration>, file: &str) -> TickReport {
        TickReport {
            kind: ReportKind::Cost,
            by: Vec::new(),
            since,
            project: None,
            route: None,
            batch: None,
            login: None,
            to: ReportGoesTo::File {
                folder: PathBuf::from("/reports"),
                name: Template::parse(file).unwrap(),
                written: format!("/reports/{file}"),
                form: ReportForm::Csv,
            },
            source: None,
        }
    }

    #[test]
    fn periods_of_ticks_that_follow_each_other_meet_in_full_hours_and_a_run_by_hand_goes_up_to_the_moment() {
        let week = report(Some(Duration::from_hours(168)), "a.csv");
        let first = week.period(at("2026-11-23T08:05:00Z"), false);
        let second = week.period(at("2026-11-30T08:05:00Z"), false);
        assert_eq!((first.until, second.from), (at("2026-11-23T08:00:00Z"), Some(first.until)));
        // Half an hour beside those of UTC.
        let kolkata = week.period(at("2026-11-30T08:00:00+05:30"), false);
        assert_eq!(kolkata.until, at("2026-11-30T02:00:00Z"));
        let by_hand = week.period(at("2026-11-30T08:05:07Z"), true);
        assert_eq!(by_hand.until, at("2026-11-30T08:05:07Z"));
        assert_eq!(by_hand.from, Some(at("2026-11-23T08:00:00Z")));
        assert_eq!(report(None, "a.csv").period(at("2026-11-30T08:00:00Z"), false).from, None);
        // Some kinds are of a day unless they are asked for more; that day, too, ends with the tick.
        for kind in [ReportKind::Latency, ReportKind::Reasks] {
            let lately = TickReport { kind, ..report(None, "a.csv") };
            let period = lately.period(at("2026-11-30T08:05:00Z"), false);
            assert_eq!((period.from, period.until), (Some(at("2026-11-29T08:00:00Z")), at("2026-11-30T08:00:00Z")));
            assert_eq!(lately.to_string(), format!("{} of the last 24 hours", kind.as_str()));
        }
        for extreme in [i64::MIN, -1, 0, i64::MAX] {
            let _ = week.period(Timestamp(extreme), false);
        }
    }

    #[test]
    fn a_report_is_told_with_what_it_is_grouped_by_and_which_part_of_the_work_it_is_of() {
        assert_eq!(report(None, "a.csv").to_string(), "cost");
        let week = TickReport {
            by: vec![ReportBy::Project, ReportBy::Day],
            batch: Some("nightly".to_owned()),
            login: Some("app".to_owned()),
            ..report(Some(Duration::from_hours(168)), "a.csv")
        };
        assert_eq!(week.to_string(), "cost by project, day of the last 168 hours, batch nightly, login app");
    }

    #[test]
    fn a_file_is_named_by_its_tick_and_two_schedules_are_told_apart_by_their_names() {
        let nightly = schedule("0 2 * * *");
        let name = |file: &str| {
            let ReportGoesTo::File { name, .. } = report(None, file).to else { panic!("a file") };
            nightly.file_of(&name, at("2026-11-02T01:00:00Z"), false).unwrap()
        };
        assert_eq!(name("{name}-{tick}.csv"), "nightly-2026-11-02-0100.csv");
        assert_eq!(name("{month}-{tick}-{tick}.csv"), "2026-11-2026-11-02-0100-2026-11-02-0100.csv");
        assert_eq!(name("all.csv"), "all.csv");
        let file_for = |file: &str, schedule: &str| report(None, file).to.file_for(schedule);
        assert_eq!(file_for("a-{tick}.csv", "one"), file_for("a-{tick}.csv", "two"));
        assert_eq!(file_for("{name}.csv", "one"), file_for("one.csv", "two"));
        assert_ne!(file_for("{name}.csv", "one"), file_for("{name}.csv", "two"));
        let in_folder = |folder: &str| {
            let ReportGoesTo::File { name, form, .. } = report(None, "a.csv").to else { panic!("a file") };
            let written = format!("{folder}/a.csv");
            ReportGoesTo::File { folder: PathBuf::from(folder), name, written, form }.file_for("one")
        };
        assert_eq!(in_folder("."), Some(PathBuf::from("a.csv")));
        assert_eq!(in_folder("./sub/."), Some(PathBuf::from("sub/a.csv")));
        assert_eq!(ReportGoesTo::Receiver("ops".to_owned()).file_for("one"), None);
    }

    #[test]
    fn schedules_share_a_file_where_one_tick_gives_both_its_name_and_so_may_ticks_of_one() {
        let with = |name: &str, cron: &str, file: &str| Schedule {
            name: name.to_owned(),
            source: TickSource::Report(Box::new(report(None, file))),
            ..schedule(cron)
        };
        let tick = at("2026-11-02T01:00:00Z");
        let daily = with("costs", "0 2 * * *", "{name}-{tick}.csv");
        for (file, shares) in [
            ("costs-{tick}.csv", true),
            ("costs-{date}-{time}.csv", true),
            ("{name}-{tick}.csv", false),
            ("costs-{date}.csv", false),
            ("costs-{tick}.json", false),
        ] {
            assert_eq!(daily.shares_file_with(&with("other", "0 3 * * *", file), tick), shares, "{file}");
        }
        assert!(!schedule("0 2 * * *").shares_file_with(&schedule("0 2 * * *"), tick));
        for (cron, file, name) in [
            ("0 * * * *", "{date}.csv", Some("2026-11-02.csv")),
            ("0 2 * * *", "{month}.csv", Some("2026-11.csv")),
            ("0 2 * * *", "{date}.csv", None),
            ("0 2 1 * *", "{month}.csv", None),
            ("* * * * * *", "{tick}.csv", None),
        ] {
            let found = with("a", cron, file).file_of_two_ticks(tick);
            assert_eq!(found, name.map(|name| PathBuf::from("/reports").join(name)), "{cron} {file}");
        }
    }

    #[test]
    fn the_ending_of_a_name_is_its_form() {
        for (name, form) in [
            ("a.csv", Some(ReportForm::Csv)),
            ("{name}-{tick}.json", Some(ReportForm::Json)),
            ("a.csv.json", Some(ReportForm::Json)),
            ("a.CSV", None),
            ("csv", None),
            ("a.xlsx", None),
            ("a.", None),
            ("", None),
        ] {
            assert_eq!(ReportForm::of_name(name), form, "{name}");
        }
    }
}
