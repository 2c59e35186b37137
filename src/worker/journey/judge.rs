//! The outcome of one call: the verdict on its answer, and its cost.

use crate::domain::billing::{self, Answered, Cost};
use crate::domain::charging::{self, Charging, Sizes};
use crate::domain::decide::Ineligible;
use crate::domain::error_class::Billed;
use crate::domain::explanation::Streamed;
use crate::domain::json_schema::Schema;
use crate::domain::pack::Amounts;
use crate::domain::price::{Price, Tariff};
use crate::domain::served::Served;
use crate::domain::usage::{CostSource, Sent};
use crate::domain::validation::OwnRules;
use crate::domain::{
    Answer, Beside, ChatRequest, Confidence, ErrorClass, Failure, Finish, Job, NanoUsd, Outcome, Route, Rung, Scope,
    SoftFailure, Timestamp, Usage, UsageSource, Verdict,
};
use crate::provider::{CallReport, FailedUsage, Head};
use crate::worker::gate::CostSeen;
use serde_json::Value;

/// The request that the call was made for.
pub(super) struct AskedFor<'a> {
    pub(super) job: &'a Job,
    pub(super) request: &'a ChatRequest,
    pub(super) schema: Option<&'a Schema>,
    /// Whether the job goes on to another rung if this one is not sure enough of its answer.
    pub(super) climbs: bool,
    /// Whether the probabilities of the tokens were asked for by the route alone: they are not kept.
    pub(super) asks_for_logprobs: bool,
    /// What it has of a call that it shared; `None`: the call was its own.
    pub(super) share: Option<&'a Share>,
}

/// What a job has of a call that it shared with others, as far as it was found out for the whole call.
pub(super) struct Share {
    pub(super) amounts: Amounts,
    pub(super) other_model: Option<String>,
    pub(super) service_tier: Option<String>,
    pub(super) cost_differs: bool,
    pub(super) notes: Vec<String>,
}

impl AskedFor<'_> {
    fn sent(&self, spec: &Rung) -> Sent {
        Sent::of(self.job, self.request.max_tokens, &spec.model.capabilities)
    }

    /// The tier that the request itself asks this rung for.
    fn own_tier(&self, spec: &Rung) -> Option<&str> {
        self.job.extras.named_tier(&spec.model.capabilities.unsent_extras)
    }
}

/// A finished call with its verdict.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
    pub(super) answer: Option<Box<Answer>>,
    /// The answer as it came, when it was repaired.
    pub(super) original: Option<Box<Answer>>,
    /// What had come of an answer that broke off.
    pub(super) partial: Option<Box<Answer>>,
    /// What came of the stream, if one was asked for.
    pub(super) streamed: Option<Streamed>,
    /// Repairs, cuts and doubts about the answer.
    pub(super) notes: Vec<String>,
    pub(super) soft: Option<SoftFailure>,
    /// How sure the rung is of an answer that keeps every rule, on a route that asks for that.
    pub(super) confidence: Option<Confidence>,
    pub(super) message: Option<String>,
    pub(super) usage: Usage,
    /// The usage that limits are charged by; `None`: unknown.
    pub(super) counted_usage: Option<Usage>,
    pub(super) usage_raw: Option<Value>,
    pub(super) service_tier: Option<String>,
    /// The model that answered, if it is not the one that was asked.
    pub(super) other_model: Option<String>,
    /// The price that was applied: that of the tier, and of the model that answered.
    pub(super) price: Option<Price>,
    pub(super) cost: Option<NanoUsd>,
    /// Tokens times the price, regardless of what the provider says; `None`: no price is known, or nothing was charged.
    pub(super) computed_cost: Option<NanoUsd>,
    pub(super) reported_cost: Option<NanoUsd>,
    pub(super) cost_source: Option<CostSource>,
    /// Whether the provider's figure differs from the computed one by more than is allowed.
    pub(super) cost_differs: bool,
    pub(super) uncertain: NanoUsd,
    pub(super) status: Option<u16>,
    pub(super) request_id: Option<String>,
    pub(super) first_byte_ms: Option<i32>,
    pub(super) total_ms: i32,
    pub(super) dropped: Vec<String>,
    pub(super) is_final: bool,
}

/// Validates an answer and computes the cost of the call, which was made at the instant `at`.
pub(super) fn judge(route: &Route, asked: &AskedFor<'_>, spec: &Rung, report: CallReport, at: Timestamp) -> Judged {
    let price = spec.price_at(at);
    let worst = || spec.worst_cost(asked.job, at);
    let CallReport { result, status, request_id, first_byte_ms, total_ms, dropped, failed_usage, should_retry, .. } =
        report;
    let (is_streamed, partial) = (report.is_streamed, report.partial);
    let mut judged = Judged {
        outcome: Outcome::Accepted,
        failure: None,
        answer: None,
        original: None,
        partial: None,
        streamed: None,
        notes: Vec::new(),
        soft: None,
        confidence: None,
        message: None,
        usage: Usage::default(),
        counted_usage: None,
        usage_raw: None,
        service_tier: None,
        other_model: None,
        price: price.as_ref().map(|price| price.of(asked.job.input_tokens)),
        cost: Some(NanoUsd::ZERO),
        computed_cost: None,
        reported_cost: None,
        cost_source: None,
        cost_differs: false,
        uncertain: NanoUsd::ZERO,
        status,
        request_id,
        first_byte_ms,
        total_ms,
        dropped,
        is_final: should_retry == Some(false),
    };
    judged.streamed = is_streamed.then(|| Streamed {
        whole: result.is_ok(),
        characters: partial.as_ref().map_or(0, |partial| u64::try_from(partial.characters()).unwrap_or(u64::MAX)),
    });
    match result {
        Ok(mut answer) => {
            judged.notes = std::mem::take(&mut answer.beside.notes);
            if let Some(share) = asked.share {
                judged.take(share, &mut answer);
            } else {
                let is_more = judged.count(&mut answer, asked, spec);
                judged.bill(&answer, asked, spec, at);
                if let Some(price) = judged.price.as_ref().filter(|_| is_more && judged.reported_cost.is_none()) {
                    // The provider may have charged for all the output that was allowed.
                    let most = Usage { output: asked.sent(spec).allowed.max(judged.usage.output), ..judged.usage };
                    let (most, booked) = (price.cost(&most), price.cost(&judged.usage));
                    judged.uncertain = NanoUsd(most.0.saturating_sub(booked.0).max(0));
                }
            }
            if judged.cost.is_none() {
                // Another model or tier than the one that was asked, without a price: until it has one, budgets keep
                // what was reserved for the call.
                judged.uncertain = worst().unwrap_or(NanoUsd::ZERO);
            }
            let rules = OwnRules::over(asked.request.validate.as_deref(), &route.rules);
            match rules.judge(&answer, asked.request, asked.schema) {
                Verdict::Accepted => {}
                Verdict::Repaired { text, draft, cut } => {
                    judged.original = Some(Box::new(Answer { beside: Beside::default(), ..answer.clone() }));
                    answer.text = Some(text);
                    if let Some(draft) = draft {
                        let shown = answer.reasoning.take().filter(|reasoning| !reasoning.is_empty());
                        answer.reasoning = Some(shown.map_or(draft.clone(), |shown| format!("{shown}\n\n{draft}")));
                    }
                    judged.notes.push(cut);
                }
                Verdict::Rejected { failures, message } => {
                    let gravest = failures.first().copied().unwrap_or(SoftFailure::Empty);
                    judged.outcome = Outcome::Rejected(gravest);
                    judged.soft = Some(gravest);
                    judged.message = Some(message);
                }
            }
            if let Some((kind, words)) =
                rules.other_model(judged.other_model.as_deref()).filter(|_| judged.soft.is_none())
            {
                judged.outcome = Outcome::Rejected(kind);
                judged.soft = Some(kind);
                judged.message = Some(words);
            }
            if judged.soft.is_none() {
                judged.weigh(route, &answer, asked.climbs);
            }
            if asked.asks_for_logprobs {
                answer.beside.choice.remove("logprobs");
            }
            if answer.finish == Finish::Unknown && judged.soft.is_none() {
                let word: String = answer.finish_raw.as_deref().unwrap_or_default().chars().take(60).collect();
                judged.notes.push(format!("it ended with {word:?}, a word that is not known"));
            }
            judged.answer = Some(Box::new(answer));
        }
        Err(failure) => {
            if let Some(billed) = failed_usage {
                judged.bill_failure(billed, asked, spec, at);
            } else if partial.is_some() || may_have_been_billed(&failure, judged.status) {
                // Without a price the possible cost is unknown, not zero.
                judged.cost = worst().map(|_| NanoUsd::ZERO);
                judged.uncertain = worst().unwrap_or(NanoUsd::ZERO);
            }
            if let Some(partial) = partial {
                if judged.counted_usage.is_none() && judged.reported_cost.is_none() {
                    judged.estimate(&partial, asked, spec, price.as_ref());
                }
                judged.partial = Some(partial);
            }
            judged.outcome = Outcome::Failed(failure.class);
            judged.message = Some(failure.message.clone());
            judged.failure = Some(failure);
        }
    }
    judged
}

impl Judged {
    /// Rejects an answer that keeps the rules for itself.
    pub(super) fn reject(&mut self, kind: SoftFailure, words: String) {
        self.outcome = Outcome::Rejected(kind);
        self.soft = Some(kind);
        self.message = Some(words);
        // The ledger keeps it as it came.
        if let Some(original) = self.original.take() {
            self.answer = Some(original);
        }
    }

    /// Estimates the tokens of an answer that broke off, and what they are worth. They are on the ledger and in no sum
    /// of money: whether they were charged, and whether the provider wrote on after that, is not known (`uncertain`).
    fn estimate(&mut self, partial: &Answer, asked: &AskedFor<'_>, spec: &Rung, price: Option<&Tariff>) {
        let texts: Vec<&str> = partial.texts().collect();
        let (come, _) = Usage::default().believed(asked.sent(spec), &texts);
        // Some vendors count as they go; a count of output from before the last word is too low.
        let (told, _) = partial.usage.believed(asked.sent(spec), &texts);
        self.usage = Usage { output: told.output.max(come.output), source: UsageSource::Estimated, ..told };
        self.price = price.map(|price| price.of(self.usage.total_input()));
        self.computed_cost = price.map(|price| price.cost(&self.usage));
        self.uncertain = self.uncertain.max(self.computed_cost.unwrap_or(NanoUsd::ZERO));
    }

    /// Counts the tokens: as reported, or as estimated where the report cannot be right. Returns whether more output
    /// was reported than is believed.
    fn count(&mut self, answer: &mut Answer, asked: &AskedFor<'_>, spec: &Rung) -> bool {
        let told = answer.usage.output;
        let texts: Vec<&str> = answer.texts().collect();
        let (usage, doubt) = answer.usage.believed(asked.sent(spec), &texts);
        self.notes.extend(doubt.map(|doubt| format!("{doubt}: estimated")));
        answer.usage = usage;
        self.usage = usage;
        self.counted_usage = Some(usage);
        told > usage.output
    }

    /// Takes over what was found out for the whole of a call that it shared.
    fn take(&mut self, share: &Share, answer: &mut Answer) {
        let Amounts { usage, price, cost, reported } = share.amounts.clone();
        answer.usage = usage;
        (self.usage, self.counted_usage) = (usage, Some(usage));
        (self.price, self.reported_cost) = (price, reported);
        self.book(cost);
        self.other_model.clone_from(&share.other_model);
        self.service_tier.clone_from(&share.service_tier);
        self.cost_differs = share.cost_differs;
        self.notes.clone_from(&share.notes);
    }

    /// The tokens and the money of the call.
    pub(super) fn amounts(&self) -> Amounts {
        let cost = Cost { booked: self.cost, computed: self.computed_cost, source: self.cost_source };
        Amounts { usage: self.usage, price: self.price, cost, reported: self.reported_cost }
    }

    /// The same outcome for a job that shared the call and has no answer from it, with its part of the money. `worst`:
    /// the most that its part may have cost; `None`: the price is unknown.
    pub(super) fn without_answer(&self, amounts: &Amounts, worst: Option<NanoUsd>) -> Self {
        let Amounts { usage, price, cost, reported } = *amounts;
        let is_uncertain = self.uncertain > NanoUsd::ZERO;
        Self {
            outcome: self.outcome.clone(),
            failure: self.failure.clone(),
            answer: None,
            original: None,
            partial: None,
            streamed: None,
            notes: self.notes.clone(),
            soft: self.soft,
            confidence: None,
            message: self.message.clone(),
            usage,
            counted_usage: self.counted_usage.map(|_| usage),
            usage_raw: None,
            service_tier: self.service_tier.clone(),
            other_model: self.other_model.clone(),
            price,
            cost: cost.booked,
            computed_cost: cost.computed,
            reported_cost: reported,
            cost_source: cost.source,
            cost_differs: self.cost_differs,
            uncertain: worst.filter(|_| is_uncertain).unwrap_or(NanoUsd::ZERO),
            status: self.status,
            request_id: self.request_id.clone(),
            first_byte_ms: self.first_byte_ms,
            total_ms: self.total_ms,
            dropped: self.dropped.clone(),
            is_final: self.is_final,
        }
    }

    /// Finds out how sure the rung is of its answer, and rejects it where the job `climbs` for a surer one.
    fn weigh(&mut self, route: &Route, answer: &Answer, climbs: bool) {
        let Some(cascade) = &route.cascade else { return };
        self.confidence = cascade.measure.of(answer);
        if let Some(fault) = cascade.fault(self.confidence).filter(|_| climbs) {
            self.outcome = Outcome::Rejected(SoftFailure::LowConfidence);
            self.soft = Some(SoftFailure::LowConfidence);
            self.message = Some(fault);
        }
    }

    /// What it has cost, to be watched.
    pub(super) fn cost_seen(&self) -> CostSeen {
        CostSeen {
            booked: self.cost,
            computed: self.computed_cost,
            reported: self.reported_cost,
            differs: self.cost_differs,
        }
    }

    fn book(&mut self, cost: Cost) {
        self.cost = cost.booked;
        self.computed_cost = cost.computed;
        self.cost_source = cost.source;
    }

    /// Computes the cost: what the provider says, or else from the price of the model and the tier that served the
    /// answer.
    fn bill(&mut self, answer: &Answer, asked: &AskedFor<'_>, spec: &Rung, at: Timestamp) {
        let served = answer.model.as_deref().unwrap_or_default();
        let tier = answer.beside.service_tier.as_deref();
        let own = asked.own_tier(spec);
        let billed = Answered { target: &spec.target, model: &spec.model, served, tier, asked: own, at }.billed();
        let (who, tier) = (billed.who, billed.tier);
        self.price = billed.price.as_ref().map(|price| price.of(self.usage.total_input()));
        self.reported_cost = self.believed_cost(answer.beside.cost, billed.price.as_ref(), asked, spec, at);
        self.book(Cost::of(billed.price.as_ref(), &self.usage, self.reported_cost));
        let is_tier_unpriced = match who {
            Served::AsAsked => spec.model.is_priced(),
            Served::Other(other) => other.is_priced(),
            Served::Stranger => false,
        } && billed.price.is_none();
        let name: String = served.chars().take(60).collect();
        match who {
            Served::AsAsked => {}
            Served::Other(_) => {
                self.notes.push(format!("{name:?} answered in its place: it is booked at the price of that"));
            }
            Served::Stranger => {
                let provider = &spec.target.provider;
                self.notes.push(format!(
                    "{name:?} answered in its place, whose price is not known: [models.\"{provider}/{name}\"] can \
                     give it one, and `served_as` in [models.\"{}\"] says where it is the same model",
                    spec.target.in_no_tier()
                ));
            }
        }
        self.other_model = (who != Served::AsAsked).then_some(name);
        if is_tier_unpriced {
            let tier: String = tier.unwrap_or_default().chars().take(60).collect();
            self.notes.push(format!(
                "the tier {tier:?} has no price: `tiers` in [models.\"{}\"] can give it one",
                spec.target.in_no_tier()
            ));
        }
        // The tier of the rung is a part of its name.
        let is_news = answer.beside.service_tier.is_some() || spec.target.tier.is_none();
        self.service_tier = tier.filter(|_| is_news).map(str::to_owned);
    }

    /// Books a call that failed and that the provider says was billed all the same.
    fn bill_failure(&mut self, billed: FailedUsage, asked: &AskedFor<'_>, spec: &Rung, at: Timestamp) {
        let FailedUsage { usage, raw, cost } = billed;
        let own = asked.own_tier(spec);
        let call = Answered { target: &spec.target, model: &spec.model, served: "", tier: None, asked: own, at };
        let billed = call.billed();
        // By this tier it is priced again later (`sluice reprice`).
        self.service_tier = billed.tier.filter(|_| spec.target.tier.is_none()).map(str::to_owned);
        let tariff = billed.price;
        // Without counts, the tokens are not known.
        let mut is_known = usage.source == UsageSource::Provider;
        let price = tariff.as_ref().filter(|_| is_known);
        self.usage_raw = raw;
        if is_known {
            let (usage, doubt) = usage.believed(asked.sent(spec), &[]);
            self.usage = usage;
            self.counted_usage = Some(usage);
            self.price = price.map(|price| price.of(usage.total_input()));
            is_known = doubt.is_none();
            self.notes.extend(doubt.map(|doubt| format!("{doubt}: estimated")));
        }
        self.reported_cost = self.believed_cost(cost, tariff.as_ref(), asked, spec, at);
        self.book(Cost::of(price, &self.usage, self.reported_cost));
        if self.reported_cost.is_none() && !is_known {
            // The answer that it was billed for was never seen.
            let worst = spec.worst_cost(asked.job, at);
            self.cost = worst.map(|_| NanoUsd::ZERO);
            self.cost_source = None;
            self.computed_cost = None;
            self.uncertain = worst.unwrap_or(NanoUsd::ZERO);
        }
    }

    /// The cost that the provider says, if it is believed; otherwise a note tells of it.
    fn believed_cost(
        &mut self,
        reported: Option<NanoUsd>,
        price: Option<&Tariff>,
        asked: &AskedFor<'_>,
        spec: &Rung,
        at: Timestamp,
    ) -> Option<NanoUsd> {
        let reported = reported?;
        let computed = price.map(|price| price.cost(&self.usage));
        let worst = spec.worst_cost(asked.job, at);
        let most = computed.zip(worst).map(|(computed, worst)| computed.max(worst));
        if billing::is_believed(reported, most.filter(|_| !asked.job.extras.unlisted)) {
            return Some(reported);
        }
        self.notes.push(format!("a cost of {reported} was reported, which such a call cannot have: not believed"));
        None
    }

    /// Tells a request that is larger than a limit from one that came too fast. Returns why the request never fits, if
    /// it does not.
    pub(super) fn tell_apart(&mut self, charging: Charging, sizes: &Sizes) -> Option<Ineligible> {
        let failure = self.failure.as_mut()?;
        let oversize = charging::never_fits(failure, &charging, sizes)?;
        failure.class = ErrorClass::NeverFits;
        failure.scope = Scope::Request;
        failure.wait = None;
        self.outcome = Outcome::Failed(ErrorClass::NeverFits);
        let signed = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        let (unit, needed, size) = (oversize.unit, signed(oversize.needed), signed(oversize.size));
        Some(Ineligible::BucketTooSmall { unit, needed, size })
    }
}

/// A call that this process gave up while the provider was working on it.
pub(super) fn abandoned(started_at: Timestamp, ended_at: Timestamp, head: Option<Head>, why: &str) -> CallReport {
    let total = started_at.until(ended_at).as_millis();
    CallReport {
        status: head.as_ref().map(|head| head.status),
        first_byte_ms: head.as_ref().and_then(|head| head.first_byte_ms),
        request_id: head.and_then(|head| head.request_id),
        total_ms: i32::try_from(total).unwrap_or(i32::MAX),
        ..CallReport::without_answer(Failure::new(ErrorClass::Abandoned, Scope::Request, why))
    }
}

/// The report of a call that was not made, because it was to fail on purpose.
pub(super) fn not_made(failure: Failure) -> CallReport {
    CallReport { status: failure.status, ..CallReport::without_answer(failure) }
}

/// Whether the provider may have generated an answer that never reached us whole.
fn may_have_been_billed(failure: &Failure, status: Option<u16>) -> bool {
    match failure.class.facts().billed {
        Billed::Perhaps => true,
        Billed::Never => false,
        Billed::AfterSuccess => status.is_some_and(|status| (200..300).contains(&status)) && failure.code.is_none(),
    }
}
