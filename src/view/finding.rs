//! The findings of the doctor.

use super::table::Table;
use crate::domain::diagnosis::{self, Finding, Severity};
use serde::Serialize;

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiagnosisView<'a> {
    /// Whether nothing needs attention.
    pub ok: bool,
    /// The severity of the worst finding.
    pub worst: &'static str,
    /// One entry for each check.
    pub findings: Vec<FindingView<'a>>,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingView<'a> {
    /// The name of the check, which stays the same across versions.
    pub check: &'static str,
    pub severity: &'static str,
    /// The finding, in words.
    pub what: &'a str,
    /// Why it matters; `None`: all is well.
    pub why: Option<&'static str>,
    /// The action that it calls for; `None`: none.
    #[serde(rename = "do")]
    pub remedy: Option<&'a str>,
}

impl<'a> DiagnosisView<'a> {
    /// The findings, in the order in which the checks were made.
    #[must_use]
    pub fn of(findings: &'a [Finding]) -> Self {
        let worst = diagnosis::worst(findings);
        let findings = findings.iter().map(|finding| FindingView {
            check: finding.check,
            severity: finding.severity.as_str(),
            what: &finding.what,
            why: Some(finding.why).filter(|why| !why.is_empty()),
            remedy: Some(finding.remedy.as_str()).filter(|remedy| !remedy.is_empty()),
        });
        Self { ok: worst < Severity::Warning, worst: worst.as_str(), findings: findings.collect() }
    }

    /// The findings of this severity.
    pub fn of_severity(&self, severity: Severity) -> impl Iterator<Item = &FindingView<'a>> {
        self.findings.iter().filter(move |finding| finding.severity == severity.as_str())
    }

    /// A row for each finding, with all that is known of it.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new(["severity", "check", "what", "why", "do"]);
        for finding in &self.findings {
            table.row([
                finding.severity.into(),
                finding.check.into(),
                finding.what.into(),
                finding.why.unwrap_or_default().into(),
                finding.remedy.unwrap_or_default().into(),
            ]);
        }
        table
    }
}
