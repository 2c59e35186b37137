//! The end of a job that has no surer answer than one of which its rung was not sure enough.

use super::Journey;
use super::rows::{Completion, LastCall};
use crate::domain::decide::Ending;
use crate::domain::validation::OwnRules;
use crate::domain::{Answer, Beside, Finish, Target, Timestamp, Unsure, Usage, Verdict};
use crate::store::unsure::KeptUnsure;
use crate::store::within;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A database that takes longer than this to read an answer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a job goes back whose answer could not be read from the ledger.
const READ_AGAIN: &str = "its answer is read again";

impl Journey {
    /// Ends the job with an answer of which its rung was not sure enough: from this claim, or from the ledger.
    pub(super) async fn finish_unsure(&mut self, unsure: Unsure, now: Timestamp) {
        self.last = if let Some(place) = self.unsure.iter().position(|last| last.number == unsure.number) {
            Some(self.unsure.swap_remove(place))
        } else {
            let (store, job) = (&self.errand.shared.store, self.errand.job.id);
            match within(PATIENCE, "reading an answer", store.unsure_answer(job, unsure.number)).await {
                Ok(Some(kept)) => Some(self.recall_unsure(kept, unsure).await),
                Ok(None) => self.last.take(),
                Err(error) => {
                    tracing::debug!(job.id = job.0, error = %error, "its answer cannot be read");
                    return self.park(None, READ_AGAIN.to_owned()).await;
                }
            }
        };
        self.finish(Ending::Unsure(unsure), now).await;
    }

    /// The call of another claim that brought the answer, repaired as it was then.
    async fn recall_unsure(&self, kept: KeptUnsure, unsure: Unsure) -> LastCall {
        let KeptUnsure { target: (provider, model), rung, usage, request_id, mut response } = kept;
        let route = &self.errand.plan.route;
        let is_it = |columns: (String, String)| columns == (provider.clone(), model.clone());
        let place = route.rungs.iter().position(|rung| is_it(rung.target.columns()));
        let target = place.and_then(|place| route.rungs.get(place)).map(|rung| rung.target.clone());
        let (schema, request, of) = (self.errand.schema.clone(), Arc::clone(&self.errand.request), Arc::clone(route));
        let repair = move || {
            let schema = schema.as_deref().map(|schema| &**schema);
            let rules = OwnRules::over(request.validate.as_deref(), &of.rules);
            let verdict = bare(&response).map(|answer| rules.judge(&answer, &request, schema));
            let is_repaired = verdict.is_some_and(|verdict| repair(&mut response, verdict));
            (response, is_repaired)
        };
        let (response, is_repaired) = self.errand.shared.schemas.aside(repair).await;
        LastCall {
            number: unsure.number,
            target: target.unwrap_or_else(|| Target::new(provider, model)),
            rung: place.unwrap_or_else(|| usize::try_from(rung).unwrap_or(0)),
            usage,
            request_id,
            accepted: Some(Completion { json: response.to_string(), is_repaired, confidence: unsure.confidence }),
        }
    }
}

/// As much of an answer as repairs look at; `None`: it has no text.
fn bare(response: &Value) -> Option<Answer> {
    let choice = response.pointer("/choices/0")?;
    let text = choice.pointer("/message/content")?.as_str()?;
    Some(Answer {
        text: Some(text.to_owned()),
        refusal: None,
        reasoning: None,
        tool_calls: Vec::new(),
        finish: Finish::of_word(choice.get("finish_reason")?.as_str()?),
        finish_raw: None,
        model: None,
        id: None,
        usage: Usage::default(),
        usage_raw: None,
        vectors: None,
        beside: Beside::default(),
    })
}

/// Puts the repaired text into the answer, and the reasoning that was cut off beside it. False: there is no repair.
fn repair(response: &mut Value, verdict: Verdict) -> bool {
    let (Verdict::Repaired { text, draft, .. }, Some(message)) =
        (verdict, response.pointer_mut("/choices/0/message").and_then(Value::as_object_mut))
    else {
        return false;
    };
    message.insert("content".to_owned(), text.into());
    if let Some(draft) = draft {
        let shown = message.get("reasoning_content").and_then(Value::as_str).filter(|shown| !shown.is_empty());
        let reasoning = shown.map_or(draft.clone(), |shown| format!("{shown}\n\n{draft}"));
        message.insert("reasoning_content".to_owned(), reasoning.into());
    }
    true
}
