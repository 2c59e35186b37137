//! What the jobs of a file will cost, rung by rung, before anything is sent.

use super::cost_bound::CostBound;
use super::course::Refuses;
use super::decide::Ineligible;
use super::eligibility::lacking;
use super::estimate::{
    USUAL_OUTPUT_TOKENS, dearest_cost, expected_cost, input_tokens, longest_input, most_output_of_all,
    most_output_tokens,
};
use super::larger_cap::{self, RaiseCap};
use super::lately::{CallsOfTarget, ENOUGH, Lately};
use super::request::{Extras, Pass};
use super::strategy::{self, Conditions};
use super::{ChatRequest, Job, JobId, NanoUsd, Route, Rung, Timestamp};

/// The sums of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileEstimate {
    /// When the calls are taken to be made.
    pub at: Timestamp,
    /// How many jobs there are.
    pub jobs: u64,
    /// For each rung, in listed order.
    pub rungs: Vec<RungEstimate>,
    /// Cost of one call for each job to the first rung of its order that can take it, by the estimated tokens alone;
    /// `None`: one of those has no price.
    pub as_routed: Option<NanoUsd>,
    /// The most that all jobs can cost, whichever rungs they come to; `None`: a rung that can take one has no price.
    pub most: Option<NanoUsd>,
    /// Jobs that no rung can take.
    pub stranded: u64,
    /// Why the first of them cannot be taken: a rung, and what speaks against it there; `None`: there is none, or it is
    /// too large or too dear, which the figures tell.
    pub why_stranded: Option<(String, Ineligible)>,
    /// Calls that a job may have at most.
    pub max_attempts: u64,
    /// Whether a rejected answer is asked for again in the same conversation.
    pub reask: bool,
    /// Which answers that were cut off are asked for again with a larger cap.
    pub raise_cap: RaiseCap,
}

/// The sums for a rung, if all jobs that it can take went there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RungEstimate {
    /// `provider/model`.
    pub target: String,
    /// Jobs that it can take.
    pub jobs: u64,
    /// Jobs whose first rung it is.
    pub first_choice: u64,
    /// Jobs whose prompt and output cap do not fit its window.
    pub too_large: u64,
    /// Jobs that ask for something it lacks.
    pub unsupported: u64,
    /// Jobs of which one call may cost more than the route allows for a job.
    pub too_dear: u64,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers, by their caps or as usual.
    pub output_tokens: i64,
    /// Jobs that set no cap on the answer.
    pub uncapped: u64,
    /// Cost of one call for each job by these tokens; `None`: the price is unknown.
    pub expected: Option<NanoUsd>,
    /// The same of the jobs whose first rung it is.
    pub expected_first: Option<NanoUsd>,
    /// The most that the jobs can cost there; `None`: the price is unknown.
    pub most: Option<NanoUsd>,
}

impl FileEstimate {
    /// Nothing yet, of the rungs of this route, with the prices from this instant on.
    #[must_use]
    pub fn new(route: &Route, at: Timestamp) -> Self {
        let rung = |rung: &Rung| {
            let nothing = rung.price_at(at).map(|_| NanoUsd::ZERO);
            RungEstimate {
                target: rung.target.to_string(),
                expected: nothing,
                expected_first: nothing,
                most: nothing,
                ..RungEstimate::default()
            }
        };
        Self {
            at,
            jobs: 0,
            rungs: route.rungs.iter().map(rung).collect(),
            as_routed: Some(NanoUsd::ZERO),
            most: Some(NanoUsd::ZERO),
            stranded: 0,
            why_stranded: None,
            max_attempts: u64::from(route.max_attempts).max(1),
            reask: route.reask,
            raise_cap: route.rules.raise_cap,
        }
    }

    /// Adds a job of that route.
    pub fn add(&mut self, route: &Route, request: &ChatRequest, refuses: &Refuses<'_>) {
        self.jobs += 1;
        let asked = RouteDemand::of(route, request, self.at, refuses);
        let request = asked.request();
        let job = job_of(request, &route.pass, self.jobs);
        let mut why = None;
        let (mut takes, mut dearest) = (Vec::with_capacity(route.rungs.len()), Some(Calls::default()));
        let repeats = i64::try_from(self.max_attempts - 1).unwrap_or(i64::MAX);
        for (rung, sums) in route.rungs.iter().zip(&mut self.rungs) {
            let lack = asked.lack(rung, &job);
            takes.push(lack.is_none());
            match lack {
                Some(Lack::Window) => sums.too_large += 1,
                Some(Lack::Ability(ability)) => {
                    sums.unsupported += 1;
                    why = why.or_else(|| Some((sums.target.clone(), ability)));
                }
                Some(Lack::Money) => sums.too_dear += 1,
                None => {
                    let own = request.validate.as_deref().and_then(|own| own.raise_cap);
                    let raises = own.unwrap_or(self.raise_cap) != RaiseCap::Never;
                    let is_chat = request.embed.is_none();
                    let most = most(rung, self.at, &job, (self.reask && is_chat, raises && is_chat));
                    dearest = dearest.zip(most).map(|(dearest, most)| dearest.or_dearer(most));
                    sums.add(rung, self.at, &job, most.map(|most| most.within(route, repeats)));
                }
            }
        }
        // The first call and those after it may be at different rungs.
        self.most = self.most.zip(dearest).map(|(sum, most)| sum + most.within(route, repeats));
        match first_choice(route, &job, &takes, self.at).and_then(|index| {
            let rung = route.rungs.get(index)?;
            Some((rung, self.rungs.get_mut(index)?))
        }) {
            None => {
                self.stranded += 1;
                self.why_stranded = self.why_stranded.take().or(why);
            }
            Some((rung, sums)) => {
                sums.first_choice += 1;
                let cost = expected(rung, self.at, &job);
                sums.expected_first = sums.expected_first.zip(cost).map(|(sum, cost)| sum + cost);
                self.as_routed = self.as_routed.zip(cost).map(|(sum, cost)| sum + cost);
            }
        }
    }

    /// What one call for each job to its first choice costs: as the targets' answers have lately cost, where there are
    /// enough of them, and by the estimated tokens elsewhere. `None`: a price is unknown.
    #[must_use]
    pub fn expected(&self, lately: Option<&Lately>) -> Option<NanoUsd> {
        self.rungs.iter().filter(|rung| rung.first_choice > 0).try_fold(NanoUsd::ZERO, |sum, rung| {
            let seen = lately.and_then(|lately| lately.target(&rung.target));
            Some(sum + RungEstimate::corrected(seen, rung.first_choice, rung.expected_first?))
        })
    }

    /// What the jobs are likely to cost with all their retries and fallbacks; `None`: too little is known.
    #[must_use]
    pub fn as_lately(&self, lately: Option<&Lately>) -> Option<NanoUsd> {
        lately?.of(self.jobs - self.stranded, self.as_routed)
    }
}

/// A job as an estimate sees it. Of each job another `number`: a strategy that draws spreads them as it will spread the
/// jobs.
fn job_of(request: &ChatRequest, pass: &Pass, number: u64) -> Job {
    Job {
        id: JobId(i64::try_from(number).unwrap_or(i64::MAX)),
        ready_at: Timestamp(0),
        deadline: None,
        max_attempts: None,
        input_tokens: input_tokens(request),
        max_output_tokens: request.max_tokens,
        sticky: None,
        extras: Extras::of(request, pass),
    }
}

/// The first rung of the job's order that can take it.
fn first_choice(route: &Route, job: &Job, takes: &[bool], at: Timestamp) -> Option<usize> {
    let mut order = Vec::new();
    let seen = Conditions::of_job(job, Some(NanoUsd::ZERO), job.ready_at, &[]);
    strategy::order(route, &Conditions { now: at, ..seen }, &mut order);
    order.into_iter().find(|index| takes.get(*index) == Some(&true))
}

/// What one call for the job to the rung costs by the estimated tokens; `None`: the price is unknown.
fn expected(rung: &Rung, at: Timestamp, job: &Job) -> Option<NanoUsd> {
    // The hours of the calls are not known; those of the peak are the ones that are told.
    let price = rung.peak_price(at)?;
    Some(expected_cost(&price, job.input_tokens, job.max_output_tokens))
}

/// What a past job's first choice and each of its calls were expected to cost: the figures that later ones are
/// compared with.
#[must_use]
pub fn expected_of(
    route: &Route,
    request: &ChatRequest,
    at: Timestamp,
    refuses: &Refuses<'_>,
) -> (Option<NanoUsd>, Vec<Option<NanoUsd>>) {
    let asked = RouteDemand::of(route, request, at, refuses);
    let job = job_of(asked.request(), &route.pass, 1);
    let takes: Vec<bool> = route.rungs.iter().map(|rung| asked.lack(rung, &job).is_none()).collect();
    let each: Vec<Option<NanoUsd>> = route.rungs.iter().map(|rung| expected(rung, at, &job)).collect();
    let first = first_choice(route, &job, &takes, at).and_then(|index| each.get(index).copied().flatten());
    (first, each)
}

/// The most that calls can cost.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    first: NanoUsd,
    /// Each call after that.
    again: NanoUsd,
}

impl Calls {
    fn or_dearer(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), again: self.again.max(other.again) }
    }

    /// Of a job with so many calls after the first one, on a route that may bound its cost: no call begins whose worst
    /// case does not fit beside those before it.
    fn within(self, route: &Route, repeats: i64) -> NanoUsd {
        let all = self.in_all(repeats);
        route.max_cost.map_or(all, |limit| all.min(limit))
    }

    /// Of a job with so many calls after the first one.
    const fn in_all(self, repeats: i64) -> NanoUsd {
        NanoUsd(self.first.0.saturating_add(self.again.0.saturating_mul(repeats)))
    }
}

/// The most that calls of a job can cost at a rung. `None`: the price is unknown.
///
/// A token has at least one byte, and a token of the estimate at most four: so four times the estimate is a bound on
/// the prompt of any text. A call that is repeated may have the rejected answer, and the words about it, on top
/// (`reask`), and a larger output cap (`raises`).
fn most(rung: &Rung, at: Timestamp, job: &Job, (reask, raises): (bool, bool)) -> Option<Calls> {
    let input = job.input_tokens.max(0).saturating_mul(4).saturating_add(FRAME);
    let capabilities = &rung.model.capabilities;
    let output = most_output_of_all(capabilities, job, job.max_output_tokens);
    let raised = job.max_output_tokens.filter(|_| raises).map(larger_cap::most_of).or(job.max_output_tokens);
    let larger = most_output_of_all(capabilities, job, raised);
    // Of several answers one is named.
    let named = most_output_tokens(capabilities, raised);
    let longer = if reask { input.saturating_add(named).saturating_add(WORDS_OF_A_FAULT) } else { input };
    // Neither the day nor the hour of the calls is known.
    let prices = rung.prices_from(job, at)?.into_iter();
    prices
        .map(|price| Calls { first: dearest_cost(&price, input, output), again: dearest_cost(&price, longer, larger) })
        .reduce(Calls::or_dearer)
}

/// Tokens of what a vendor puts around a prompt.
const FRAME: i64 = 64;
/// The most tokens of the message that names the fault of an answer.
const WORDS_OF_A_FAULT: i64 = 4_000;

impl RungEstimate {
    fn add(&mut self, rung: &Rung, at: Timestamp, job: &Job, most: Option<NanoUsd>) {
        self.jobs += 1;
        self.input_tokens = self.input_tokens.saturating_add(job.input_tokens);
        self.uncapped += u64::from(job.max_output_tokens.is_none());
        let output = job.max_output_tokens.unwrap_or(USUAL_OUTPUT_TOKENS);
        self.output_tokens = self.output_tokens.saturating_add(output);
        self.expected = self.expected.zip(expected(rung, at, job)).map(|(sum, cost)| sum + cost);
        self.most = self.most.zip(most).map(|(sum, most)| sum + most);
    }

    /// One call for each job that it can take, as its answers have lately cost.
    #[must_use]
    pub fn expected_by(&self, seen: Option<&CallsOfTarget>) -> Option<NanoUsd> {
        Some(Self::corrected(seen, self.jobs, self.expected?))
    }

    /// The same with the calls that are made again, as often as lately; `None`: too few of its answers were accepted.
    #[must_use]
    pub fn as_lately(&self, seen: Option<&CallsOfTarget>) -> Option<NanoUsd> {
        let NanoUsd(expected) = self.expected_by(seen)?;
        let whole = i128::from(expected).saturating_mul(seen?.markup()?) / 1_000;
        Some(NanoUsd(i64::try_from(whole).unwrap_or(i64::MAX)))
    }

    /// The expected cost of so many calls, as those of the target have lately cost.
    fn corrected(seen: Option<&CallsOfTarget>, jobs: u64, expected: NanoUsd) -> NanoUsd {
        seen.and_then(|seen| seen.accepted.of(jobs, expected)).unwrap_or(expected)
    }

    /// The figures that no answer of the target stands behind, in a word or two each.
    #[must_use]
    pub fn guessed(&self, seen: Option<&CallsOfTarget>) -> Vec<&'static str> {
        let is_known = seen.is_some_and(|seen| seen.accepted.pairs() >= ENOUGH);
        let mut guessed = Vec::new();
        if self.expected.is_none() {
            guessed.push("the price");
        }
        if !is_known {
            guessed.push("tokens");
            if self.uncapped > 0 {
                guessed.push("length of answers");
            }
            guessed.push("retries");
        }
        guessed
    }
}

/// Why a rung cannot take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    Window,
    Ability(Ineligible),
    Money,
}

/// What a route asks of its rungs for one job.
struct RouteDemand<'a> {
    route: &'a Route,
    whole: &'a ChatRequest,
    /// The request without what the route holds back, where it holds something back.
    left: Option<ChatRequest>,
    /// Why no rung can take it, because something has to be kept that the route holds back.
    lost: Option<Ineligible>,
    at: Timestamp,
    refuses: &'a Refuses<'a>,
}

impl<'a> RouteDemand<'a> {
    fn of(route: &'a Route, whole: &'a ChatRequest, at: Timestamp, refuses: &'a Refuses<'a>) -> Self {
        let left = whole.without_held_back(&route.pass).and_then(Result::ok);
        Self { route, whole, left, lost: route.must_keep.held_back(whole, &route.pass), at, refuses }
    }

    fn request(&self) -> &ChatRequest {
        self.left.as_ref().unwrap_or(self.whole)
    }

    /// The first thing that a job needs and a rung is known to lack, or that one call may cost more than the `max_cost`
    /// of its route.
    fn lack(&self, rung: &Rung, job: &Job) -> Option<Lack> {
        let (capabilities, request) = (&rung.model.capabilities, self.request());
        let needs = match &request.embed {
            Some(embed) => longest_input(&embed.inputs),
            None => job.input_tokens.saturating_add(job.max_output_tokens.unwrap_or(1)),
        };
        if capabilities.context_window.is_some_and(|window| needs > window) {
            return Some(Lack::Window);
        }
        let lacking = || lacking(capabilities, request).map(|ability| Ineligible::Unsupported(ability.to_owned()));
        let refused = || (self.refuses)(rung, request, &self.route.must_keep);
        if let Some(ability) = lacking().or_else(|| self.lost.clone()).or_else(refused) {
            return Some(Lack::Ability(ability));
        }
        let bound = self.route.max_cost.map(|limit| CostBound { limit, spent: Some(NanoUsd::ZERO) });
        bound.and_then(|bound| bound.refuses(rung.worst_cost(job, self.at))).map(|_| Lack::Money)
    }
}

#[cfg(test)]
mod tests;
