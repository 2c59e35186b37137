//! The verdict on a client: its calls, their cost, and whether it behaved well.

use super::conduct::Rules;
use super::dialect::Dialect;
use super::notation::span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The limits up to which the verdict is clean, and the thresholds by which it counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerances {
    /// Calls that came before a wait they had been told was over.
    pub early_retries: u64,
    /// Stampedes when a gate opened.
    pub storms: u64,
    /// Requests sent again after an answer that can only repeat itself.
    pub retried_non_retryables: u64,
    /// Calls after the provider had said that there is no money: occasional probes are in order.
    pub calls_after_out_of_quota: u64,
    /// Calls that the real API would not have understood.
    pub malformed_requests: u64,
    /// Calls refused by a real quota; any number when absent.
    pub refused_by_quota: Option<u64>,
    /// Calls of one distinct request; any number when absent.
    pub calls_per_request: Option<u32>,
    /// Distinct requests with more than one good answer; any number when absent.
    pub answered_twice: Option<u64>,
    /// A call this little before a gate opens is in time.
    #[serde(deserialize_with = "span")]
    pub tolerance: Duration,
    /// A call of another request this soon after a wait was told was on its way already.
    #[serde(deserialize_with = "span")]
    pub in_flight_grace: Duration,
    /// How many calls more than the quota admits may come within 100 ms after a gate opens.
    pub storm_calls: u32,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self {
            early_retries: 0,
            storms: 0,
            retried_non_retryables: 0,
            calls_after_out_of_quota: 10,
            malformed_requests: 0,
            refused_by_quota: None,
            calls_per_request: None,
            answered_twice: None,
            tolerance: Duration::from_millis(5),
            in_flight_grace: Duration::from_millis(50),
            storm_calls: 20,
        }
    }
}

impl Tolerances {
    pub(crate) fn rules(&self) -> Rules {
        let Self { tolerance, in_flight_grace, storm_calls, .. } = *self;
        Rules { tolerance, in_flight_grace, storm_calls }
    }
}

/// All counts, for one provider or for all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Calls received.
    pub calls: u64,
    /// Answers by HTTP status; 0: no answer (hang, reset, or the client went away first).
    pub by_status: BTreeMap<u16, u64>,
    /// Faults that struck, by name.
    pub by_fault: BTreeMap<&'static str, u64>,
    /// Calls refused by a real quota.
    pub refused_by_quota: u64,
    /// Answers with status 429, by quota or fault.
    pub rate_limited: u64,
    /// Calls that came before a wait they had been told was over.
    pub early_retries: u64,
    /// Those of them that repeat the same request that was told to wait.
    pub early_retries_of_same_request: u64,
    /// Stampedes when a gate opened.
    pub storms: u64,
    /// Requests sent again to the same provider and model after an answer that can only repeat itself.
    pub retried_non_retryables: u64,
    /// Calls after the provider had said that there is no money.
    pub calls_after_out_of_quota: u64,
    /// Calls that the real API would not have understood.
    pub malformed_requests: u64,
    /// Calls whose client went away before the answer was sent.
    pub abandoned: u64,
    /// The most calls at the same time.
    pub max_concurrency: u64,
    /// Input tokens charged: of calls answered with 200 in full, good or bad.
    pub input_tokens: u64,
    /// Output tokens charged.
    pub output_tokens: u64,
    /// Nano-dollars charged; each call is rounded half up.
    pub charged_nano_usd: u64,
    /// Charged calls of models without a price: they are not in `charged_nano_usd`.
    pub unpriced_calls: u64,
    /// Calls that were generated and not delivered (cut, or abandoned while generating): real providers charge them.
    pub lost_calls: u64,
    /// The most that the lost calls would cost.
    pub lost_nano_usd: u64,
}

impl Figures {
    /// Adds the figures of another provider; concurrency cannot be added, so the caller sets it.
    pub(crate) fn add(&mut self, other: &Self) {
        for (status, count) in &other.by_status {
            *self.by_status.entry(*status).or_default() += count;
        }
        for (fault, count) in &other.by_fault {
            *self.by_fault.entry(fault).or_default() += count;
        }
        self.calls += other.calls;
        self.refused_by_quota += other.refused_by_quota;
        self.rate_limited += other.rate_limited;
        self.early_retries += other.early_retries;
        self.early_retries_of_same_request += other.early_retries_of_same_request;
        self.storms += other.storms;
        self.retried_non_retryables += other.retried_non_retryables;
        self.calls_after_out_of_quota += other.calls_after_out_of_quota;
        self.malformed_requests += other.malformed_requests;
        self.abandoned += other.abandoned;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.charged_nano_usd += other.charged_nano_usd;
        self.unpriced_calls += other.unpriced_calls;
        self.lost_calls += other.lost_calls;
        self.lost_nano_usd += other.lost_nano_usd;
    }
}

/// One provider's part of the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProviderVerdict {
    /// The API that it speaks.
    pub dialect: Dialect,
    /// The counts of this provider.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The verdict: `GET /_sim/verdict`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether everything is within the scenario's tolerances.
    pub clean: bool,
    /// The tolerances that were exceeded, in words.
    pub reasons: Vec<String>,
    /// Seconds since the start or the last reset.
    pub seconds: f64,
    /// Distinct requests seen: the same conversation is the same request at every provider.
    pub distinct_requests: u64,
    /// Calls of requests that came after the table of distinct requests was full.
    pub untracked_calls: u64,
    /// Distinct requests that were answered well at least once.
    pub answered_requests: u64,
    /// Distinct requests that were answered well more than once: bought twice.
    pub answered_twice: u64,
    /// Calls per distinct request, on average.
    pub calls_per_request: f64,
    /// Calls of the request that was called most.
    pub max_calls_per_request: u32,
    /// All providers together.
    #[serde(flatten)]
    pub total: Figures,
    /// Each provider.
    pub providers: BTreeMap<String, ProviderVerdict>,
}

impl Verdict {
    /// Fills in `clean` and `reasons`.
    pub(crate) fn judge(mut self, tolerances: &Tolerances) -> Self {
        let total = &self.total;
        let counted = [
            (total.early_retries, Some(tolerances.early_retries), "early retries"),
            (total.storms, Some(tolerances.storms), "storms"),
            (total.retried_non_retryables, Some(tolerances.retried_non_retryables), "retried non-retryables"),
            (total.calls_after_out_of_quota, Some(tolerances.calls_after_out_of_quota), "calls after out of quota"),
            (total.malformed_requests, Some(tolerances.malformed_requests), "malformed requests"),
            (total.refused_by_quota, tolerances.refused_by_quota, "calls refused by a quota"),
            (
                u64::from(self.max_calls_per_request),
                tolerances.calls_per_request.map(u64::from),
                "calls of one distinct request",
            ),
            (self.answered_twice, tolerances.answered_twice, "requests answered more than once"),
        ];
        self.reasons = counted
            .into_iter()
            .filter_map(|(count, limit, what)| Some((count, limit?, what)))
            .filter(|(count, limit, _)| count > limit)
            .map(|(count, limit, what)| format!("{what}: {count}, at most {limit} tolerated"))
            .collect();
        self.clean = self.reasons.is_empty();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(total: Figures) -> Verdict {
        Verdict {
            clean: false,
            reasons: Vec::new(),
            seconds: 1.0,
            distinct_requests: 1,
            untracked_calls: 0,
            answered_requests: 1,
            answered_twice: 1,
            calls_per_request: 1.0,
            max_calls_per_request: 3,
            total,
            providers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_verdict_names_what_is_beyond_its_tolerances() {
        let strict = Tolerances { answered_twice: Some(0), calls_per_request: Some(2), ..Tolerances::default() };
        let cases: [(Figures, &Tolerances, &[&str]); 6] = [
            (Figures::default(), &Tolerances::default(), &[]),
            (Figures { early_retries: 1, ..Figures::default() }, &Tolerances::default(), &["early retries: 1"]),
            (Figures { calls_after_out_of_quota: 10, ..Figures::default() }, &Tolerances::default(), &[]),
            (
                Figures { storms: 2, malformed_requests: 1, ..Figures::default() },
                &Tolerances::default(),
                &["storms: 2", "malformed requests: 1"],
            ),
            (Figures { refused_by_quota: 5000, ..Figures::default() }, &Tolerances::default(), &[]),
            (Figures::default(), &strict, &["calls of one distinct request: 3", "requests answered more than once: 1"]),
        ];
        for (figures, tolerances, reasons) in cases {
            let judged = verdict(figures).judge(tolerances);
            assert_eq!(judged.clean, reasons.is_empty());
            assert_eq!(judged.reasons.len(), reasons.len(), "{:?}", judged.reasons);
            for (said, expected) in judged.reasons.iter().zip(reasons) {
                assert!(said.starts_with(expected), "{said}");
            }
        }
    }
}
