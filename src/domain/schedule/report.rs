//! The report that a schedule makes of the time before each tick, and where it goes.

use super::Schedule;
use crate::domain::Timestamp;
use crate::domain::report::{ReportBy, ReportKind};
use crate::domain::template::{Template, Unfilled};
use std::path::PathBuf;
use std::time::Duration;

/// A report, of which part of the work it is, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickReport {
    pub kind: ReportKind,
    /// What it is grouped by; empty: as `sluice report` groups it by itself.
    pub by: Vec<ReportBy>,
    /// It covers so long a time before the tick; `None`: all that came before it.
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

impl TickReport {
    /// Since when it covers the work, for this tick.
    #[must_use]
    pub fn begins(&self, at: Timestamp) -> Option<Timestamp> {
        self.since.map(|since| at - since)
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
