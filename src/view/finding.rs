//! What the doctor found.

use crate::domain::diagnosis::{self, Finding, Severity};
use serde::Serialize;

/// Everything it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiagnosisView<'a> {
    /// Nothing is worth a word.
    pub ok: bool,
    /// How bad the worst finding is.
    pub worst: &'static str,
    /// Each thing that was looked at.
    pub findings: Vec<FindingView<'a>>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingView<'a> {
    /// What was looked at: a name that stays.
    pub check: &'static str,
    /// How bad it is.
    pub severity: &'static str,
    /// What was found.
    pub what: &'a str,
    /// Why it matters; `None`: all is well.
    pub why: Option<&'static str>,
    /// What to do about it; `None`: nothing.
    #[serde(rename = "do")]
    pub remedy: Option<&'a str>,
}

impl<'a> DiagnosisView<'a> {
    /// The findings, in the order in which they were looked at.
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
}
