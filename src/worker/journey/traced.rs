//! What a job's journey tells in traces: a span for each of its calls, and one for the job itself.

use super::Journey;
use super::rows::HeldJob;
use crate::domain::trace::{JobTrace, Operation, Span, TracedCall, TracedEnding, provider_name};
use crate::domain::{ErrorClass, Finish, SoftFailure, Timestamp};
use crate::provider::Endpoint;
use crate::store::settle::{AttemptRow, EndingRow};
use crate::worker::settler::Then;

/// The trace of a job in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct InTrace {
    pub(super) trace: JobTrace,
    /// Since when the job could be worked on.
    pub(super) ready: Timestamp,
}

impl Journey {
    /// The spans of these calls, and of the job if it ends with them.
    pub(super) fn spans(&self, rows: &[AttemptRow], then: &Then) -> Vec<Span> {
        let Some(InTrace { trace, .. }) = &self.held.traced else { return Vec::new() };
        let calls = rows.iter().map(|row| self.span_of_call(trace, row));
        let end = match then {
            Then::End(row) => self.held.span_of_end(row, self.errand.shared.clock.now()),
            Then::GoOn | Then::Park(_) => None,
        };
        calls.chain(end).collect()
    }

    fn span_of_call(&self, trace: &JobTrace, row: &AttemptRow) -> Span {
        let plan = &self.errand.plan;
        let is_it = |target: (String, String)| target == (row.provider.clone(), row.model.clone());
        let place = plan.route.rungs.iter().position(|rung| is_it(rung.target.columns()));
        // A rung that is no longer on the route is told by what its row knows.
        let rung = place.and_then(|place| plan.rung(place));
        let endpoint = rung.map(|(_, planned)| planned.provider.endpoint());
        let server = endpoint.and_then(Endpoint::host_and_port);
        let host = server.as_ref().map(|(host, _)| host.as_str());
        let dialect = endpoint.map_or("", |endpoint| endpoint.dialect.name);
        let vendor = endpoint.and_then(Endpoint::known_vendor);
        let request = self.errand.request.as_ref();
        let decision = row.decision.as_ref();
        let raised = decision.and_then(|decision| decision.raised_cap.as_ref()).map(|raised| raised.to);
        let soft = row.detail.as_deref().filter(|_| row.class == Some(ErrorClass::SoftFailure));
        let tier = rung.and_then(|(rung, _)| rung.target.tier).map(|tier| tier.to_string());
        trace.call(&TracedCall {
            number: row.number,
            route: &row.labels.route,
            project: &row.labels.project,
            batch: row.labels.batch.as_deref(),
            rung: row.rung,
            provider: &row.provider,
            system: provider_name(vendor, dialect, host, &row.provider),
            operation: Operation::of(dialect, request.embed.is_some()),
            model: rung.map_or(&row.model, |(rung, _)| &rung.target.model),
            tier: tier.as_deref(),
            server: host.zip(server.as_ref().map(|(_, port)| *port)),
            max_tokens: raised.or(request.max_tokens).filter(|_| request.embed.is_none()),
            is_streamed: decision.is_some_and(|decision| decision.streamed.is_some()),
            started: row.started_at,
            ended: row.ended_at,
            first_byte_ms: row.first_byte_ms,
            class: row.class,
            soft: soft.and_then(SoftFailure::parse),
            http_status: row.http_status,
            model_served: row.model_served.as_deref(),
            request_id: row.request_id.as_deref(),
            finish: row.finish.as_deref().map(Finish::of_word),
            usage: row.usage,
            cost: row.cost,
            uncertain: row.uncertain,
        })
    }
}

impl HeldJob {
    /// The span of the job, which ends with this row; `None`: its trace is not sent.
    pub(super) fn span_of_end(&self, row: &EndingRow, ended: Timestamp) -> Option<Span> {
        let InTrace { trace, ready } = self.traced.as_ref()?;
        Some(trace.job(&TracedEnding {
            job: row.lease.job.0,
            round: row.round,
            route: &row.labels.route,
            project: &row.labels.project,
            batch: row.labels.batch.as_deref(),
            ready: *ready,
            ended,
            attempts: row.attempts,
            target: row.target.as_ref().map(|(provider, model)| (provider.as_str(), model.as_str())),
            failure: row.failure.as_ref().map(|(class, _)| *class),
            cost: row.cost,
            is_from_cache: row.cache.as_ref().is_some_and(|cache| cache.from.is_some()),
            is_after_fallback: row.after_fallback,
            is_repaired: row.repaired,
        }))
    }
}
