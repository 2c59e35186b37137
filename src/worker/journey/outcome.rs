//! Handles the outcomes of calls: the journey takes in each one and decides which rows go to the ledger.

use super::Journey;
use super::call::{Came, Made};
use super::calls::Begun;
use super::rows::{Completion, LastCall};
use super::rung_state::RungState;
use crate::domain::awaited;
use crate::domain::budget::{MOMENT, REST, Shortage};
use crate::domain::decide::Ineligible;
use crate::domain::explanation::{self, Explanation, Waited};
use crate::domain::larger_cap::{self, CutAnswer};
use crate::domain::validation::OwnRules;
use crate::domain::{Attempt, FirstChoice, Outcome, Rejected, SoftFailure, Unsure, reask};
use crate::store::budget::NoMoney;
use crate::store::settle::AttemptRow;
use crate::worker::hands::InHand;
use crate::worker::settler::Then;
use std::sync::Arc;

impl Journey {
    /// Takes in the outcomes of calls that have ended.
    pub(super) async fn take_ended(&mut self, in_hand: &InHand) {
        while let Some((Begun { rung, reasons, .. }, came)) = self.calls.next_ended() {
            self.take(rung, came, reasons, in_hand).await;
        }
    }

    /// The job is no longer ours: its calls end, and only their money is booked.
    pub(super) async fn recalled(&mut self, in_hand: &InHand) {
        self.calls.all_ended().await;
        self.take_ended(in_hand).await;
        self.unsettled.iter_mut().filter(|row| row.class.is_none()).for_each(AttemptRow::came_late);
        self.settle(Then::GoOn).await;
    }

    /// Takes in the outcome of a call to this rung; `None`: it is no longer on the route.
    pub(super) async fn take(&mut self, rung: Option<usize>, came: Came, reasons: Explanation, in_hand: &InHand) {
        let shared = &self.errand.shared;
        if !matches!(came, Came::Made(_)) {
            // No call was made that could tell of them.
            self.waited.splice(0..0, reasons.waited.iter().cloned());
        }
        match came {
            Came::NotBegun => {}
            Came::ClaimLost => in_hand.lost.cancel(),
            // The heartbeat finds out when the database is back, and whether this job is still ours.
            Came::Away => tokio::select! {
                () = shared.heartbeats.next() => {}
                () = self.calls.wait() => {}
                () = shared.stop.cancelled() => {}
                () = in_hand.recalled.cancelled() => {}
                () = in_hand.lost.cancelled() => {}
            },
            Came::NoMoney(why) => self.take_no_money(rung, *why),
            Came::Refused(shut) => {
                if let Some(state) = self.state_of(rung) {
                    state.is_refused(shut);
                }
            }
            Came::Ineligible(why) => self.take_ineligible(rung, why),
            Came::Parted(company) => self.company = company,
            Came::Made(made) => self.note(rung, *made, reasons),
        }
    }

    /// The rung takes no such request.
    fn take_ineligible(&mut self, rung: Option<usize>, why: Ineligible) {
        match rung {
            // The target takes no such conversation; the request as it was inserted is another matter.
            Some(rung) if self.state_of(Some(rung)).is_some_and(|state| state.again.is_some()) => {
                self.forget_to_ask_again(rung);
            }
            rung => {
                if let Some(state) = self.state_of(rung) {
                    state.ineligible = Some(why);
                }
            }
        }
    }

    /// A budget has refused a call. What it never takes is nothing for this rung. A provider without money leaves the
    /// other rungs; without money for the job itself, the job rests.
    fn take_no_money(&mut self, rung: Option<usize>, NoMoney { standing, refusal }: NoMoney) {
        let now = self.errand.shared.clock.now();
        let (budget, limit) = (standing.budget.name.clone(), standing.budget.limit);
        match refusal {
            Shortage::NeverFits { worst, .. } => {
                self.take_ineligible(rung, Ineligible::OverBudget { budget, worst, limit });
            }
            Shortage::Unpriced { .. } => self.take_ineligible(rung, Ineligible::Unpriced { budget }),
            // Another call of the job may be smaller.
            Shortage::NoRoom { is_moment: false, .. }
                if self.state_of(rung).is_some_and(|state| state.again.is_some()) =>
            {
                if let Some(rung) = rung {
                    self.forget_to_ask_again(rung);
                }
            }
            // A job that has an answer does not wait until there is money for a surer one.
            Shortage::NoRoom { is_moment, .. }
                if standing.budget.scope.is_provider()
                    || (!is_moment && self.history.iter().any(|attempt| attempt.unsure.is_some())) =>
            {
                if let Some(state) = self.state_of(rung) {
                    state.is_refused(standing.shut(now));
                }
            }
            Shortage::NoRoom { is_moment, .. } => {
                let rest = if is_moment { now + MOMENT } else { standing.shut(now).until.min(now + REST) };
                let until = self.errand.job.deadline.map_or(rest, |deadline| rest.min(deadline));
                self.waits_for_money = Some((until, awaited::budget(&budget)));
            }
        }
    }

    fn state_of(&mut self, rung: Option<usize>) -> Option<&mut RungState> {
        self.rungs.get_mut(rung?)
    }

    /// Records a call that was made, in the history and for the ledger.
    fn note(&mut self, rung: Option<usize>, mut made: Made, reasons: Explanation) {
        let reasons = Explanation { waited: Waited::told(reasons.waited), ..reasons };
        self.held.calls = self.held.calls.saturating_add(1);
        self.numbers.push(made.number);
        self.waits_since = None;
        let judged = &made.judged;
        self.bill.add(judged.cost, judged.uncertain);
        self.of_round.add(judged.cost, judged.uncertain);
        if let Some(winner) = self.winner() {
            let explanation = explained(reasons, &mut made);
            let mut row = self.held.called(made, explanation);
            row.lost_the_race(&winner);
            self.unsettled.push(row);
            return;
        }
        if let Some(company) = made.company {
            // It stands on the ledger and is no part of the history: it was the failure of a pack.
            self.company = company;
            let explanation = explained(reasons, &mut made);
            self.unsettled.push(self.held.called(made, explanation));
            return;
        }
        let rejected = rung.and_then(|rung| self.rejected(rung, &made));
        let cut = rung.and_then(|rung| self.cut(rung, &made));
        let is_unsure = judged.outcome == Outcome::Rejected(SoftFailure::LowConfidence);
        self.history.push(Attempt {
            rung,
            outcome: judged.outcome.clone(),
            ended_at: made.ended_at,
            retry_at: made.asks_again_at.or(made.retry_at),
            is_final: judged.is_final,
            bearing: judged.failure.as_ref().map(|failure| failure.bearing).unwrap_or_default(),
            is_mendable: made.mend.is_some(),
            words: judged.failure.as_ref().map(|failure| failure.message.as_str().into()),
            rejected: rejected.map(Arc::new),
            is_reask: made.reask_of.is_some(),
            cut,
            is_raised: made.raised.is_some(),
            unsure: is_unsure.then_some(Unsure { number: made.number, confidence: judged.confidence }),
        });
        let good = judged.answer.as_ref().filter(|_| is_unsure || judged.outcome == Outcome::Accepted);
        let completion = good.map(|answer| Completion {
            json: answer.to_openai(&made.target.model, made.ended_at.0.div_euclid(1000)),
            is_repaired: judged.original.is_some(),
            confidence: judged.confidence,
        });
        let mut last = LastCall {
            number: made.number,
            target: made.target.clone(),
            rung: rung.unwrap_or(made.rung),
            usage: judged.usage,
            request_id: judged.request_id.clone(),
            accepted: completion,
        };
        if is_unsure {
            self.unsure.push(last.clone());
            last.accepted = None;
        }
        self.last = Some(last);
        let is_accepted = judged.outcome == Outcome::Accepted;
        let first_choice = if is_accepted { self.first_choice(&reasons, &made) } else { None };
        let (mend, ineligible) = (made.mend.take(), made.ineligible.take());
        if let Some(state) = self.state_of(rung) {
            if let Some(mend) = mend {
                state.add_mend(mend);
            }
            state.ineligible = ineligible.or_else(|| state.ineligible.take());
        }
        let explanation = explained(reasons, &mut made);
        self.unsettled.push(AttemptRow { first_choice, ..self.held.called(made, explanation) });
    }

    /// The rung that the job would have taken first, where another one has answered the call just made.
    fn first_choice(&self, reasons: &Explanation, made: &Made) -> Option<FirstChoice> {
        let failure = |rung| {
            let failed = self.history.iter().rev().find(|attempt| attempt.rung == Some(rung));
            failed.and_then(|attempt| attempt.outcome.class())
        };
        let rungs = &self.errand.plan.route.rungs;
        FirstChoice::of(reasons, rungs, failure, &made.judged.usage, made.started_at)
    }

    /// The target whose answer was accepted under this claim.
    fn winner(&self) -> Option<String> {
        self.last.as_ref().filter(|last| last.accepted.is_some()).map(|last| last.target.to_string())
    }

    /// The rejected answer of the call just made to this rung, if the rung is worth asking again.
    fn rejected(&self, rung: usize, made: &Made) -> Option<Rejected> {
        let judged = &made.judged;
        let kind = judged.soft.filter(|_| self.errand.plan.route.reask && !reask::was_due(&self.history, rung))?;
        let answer = judged.answer.as_ref()?;
        if reask::is_empty_turn(kind, answer.finish_raw.as_deref(), judged.usage.reported_output()) {
            return Some(Rejected::nudge(made.number));
        }
        let completion = answer.to_chat_completion("", 0);
        let message = completion.pointer("/choices/0/message")?;
        Rejected::of(message, kind, judged.message.as_deref().unwrap_or_default(), made.number)
    }

    /// The answer of the call just made to this rung, if its output cap cut it and the rung is worth asking with a
    /// larger one.
    fn cut(&self, rung: usize, made: &Made) -> Option<CutAnswer> {
        let (judged, errand) = (&made.judged, &self.errand);
        let rules = OwnRules::raise_cap(errand.request.validate.as_deref(), &errand.plan.route.rules);
        let kind = judged.soft.filter(|kind| rules.is_for(*kind) && !larger_cap::was_due(&self.history, rung))?;
        let asked = errand.job.max_output_tokens;
        CutAnswer::of(made.number, kind, asked, judged.answer.as_ref()?.finish, judged.usage.reported_output())
    }
}

/// Why a call was made as it was: what it was decided by, the members that were not sent, its key, and when the
/// provider is asked again although it asked for a longer wait, and what came of a stream. Nothing is noted when the
/// rung was simply the first by price or by list, took the whole request, had no choice of keys and answered in one
/// piece.
fn explained(reasons: Explanation, made: &mut Made) -> Option<Explanation> {
    let explanation = Explanation {
        dropped: std::mem::take(&mut made.judged.dropped),
        key: made.key.take(),
        asks_again_at: made.asks_again_at,
        streamed: made.judged.streamed,
        added: std::mem::take(&mut made.added),
        prefix_wait_ms: made.waited_ms,
        pack: made.packed,
        raised_cap: made.raised,
        ..reasons
    };
    let plain = Explanation { version: explanation::VERSION, ..Explanation::default() };
    (explanation != plain).then_some(explanation)
}
