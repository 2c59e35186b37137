//! What the jobs of a file will cost, rung by rung, before anything is sent.

use super::estimate::{USUAL_OUTPUT_TOKENS, expected_cost, input_tokens, longest_input, worst_cost};
use super::strategy::{self, Conditions};
use super::{Capabilities, ChatRequest, ContentPart, Job, JobId, NanoUsd, ResponseFormat, Route, Rung, Timestamp};

/// The sums of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileEstimate {
    /// How many jobs there are.
    pub jobs: u64,
    /// For each rung, in listed order.
    pub rungs: Vec<RungEstimate>,
    /// Expected cost when each job goes to the first rung of its order that can take it; `None`: one of those has no
    /// price.
    pub as_routed: Option<NanoUsd>,
    /// Jobs that no rung can take.
    pub stranded: u64,
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
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers, as expected.
    pub output_tokens: i64,
    /// Expected cost; `None`: the price is unknown.
    pub expected: Option<NanoUsd>,
    /// Worst case of one call for each job; `None`: the price is unknown.
    pub worst: Option<NanoUsd>,
}

impl FileEstimate {
    /// Nothing yet, of the rungs of this route.
    #[must_use]
    pub fn new(route: &Route) -> Self {
        let rung = |rung: &Rung| {
            let nothing = rung.price().map(|_| NanoUsd::ZERO);
            RungEstimate {
                target: rung.target.to_string(),
                expected: nothing,
                worst: nothing,
                ..RungEstimate::default()
            }
        };
        Self { jobs: 0, rungs: route.rungs.iter().map(rung).collect(), as_routed: Some(NanoUsd::ZERO), stranded: 0 }
    }

    /// Adds a job of that route.
    pub fn add(&mut self, route: &Route, request: &ChatRequest) {
        self.jobs += 1;
        let job = Job {
            // Of each job another one: a strategy that draws spreads them as it will spread the jobs.
            id: JobId(i64::try_from(self.jobs).unwrap_or(i64::MAX)),
            ready_at: Timestamp(0),
            deadline: None,
            max_attempts: None,
            input_tokens: input_tokens(request),
            max_output_tokens: request.max_tokens,
            sticky: None,
        };
        let mut takes = Vec::with_capacity(route.rungs.len());
        for (rung, sums) in route.rungs.iter().zip(&mut self.rungs) {
            let lack = lack(&rung.model.capabilities, request, &job);
            takes.push(lack.is_none());
            match lack {
                Some(Lack::Window) => sums.too_large += 1,
                Some(Lack::Ability) => sums.unsupported += 1,
                None => sums.add(rung, &job),
            }
        }
        let mut order = Vec::new();
        strategy::order(route, &Conditions::of_job(&job, Some(NanoUsd::ZERO), job.ready_at, &[]), &mut order);
        let first = order.into_iter().find(|index| takes.get(*index) == Some(&true));
        match first.and_then(|index| Some((route.rungs.get(index)?, self.rungs.get_mut(index)?))) {
            None => self.stranded += 1,
            Some((rung, sums)) => {
                sums.first_choice += 1;
                let cost = rung.price().map(|price| expected_cost(&price, job.input_tokens, job.max_output_tokens));
                self.as_routed = self.as_routed.zip(cost).map(|(sum, cost)| sum + cost);
            }
        }
    }
}

impl RungEstimate {
    fn add(&mut self, rung: &Rung, job: &Job) {
        self.jobs += 1;
        self.input_tokens = self.input_tokens.saturating_add(job.input_tokens);
        let output = job.max_output_tokens.unwrap_or(USUAL_OUTPUT_TOKENS);
        self.output_tokens = self.output_tokens.saturating_add(output);
        let Some(price) = &rung.price() else { return };
        self.expected = self.expected.map(|sum| sum + expected_cost(price, job.input_tokens, job.max_output_tokens));
        // The hours of the calls are not known yet, and outside the peak hours they may be dearer.
        let worst = [Some(*price), rung.off_peak_price()].into_iter().flatten();
        let worst = worst.map(|price| worst_cost(&price, &rung.model.capabilities, job)).max().unwrap_or_default();
        self.worst = self.worst.map(|sum| sum + worst);
    }
}

/// Why a rung cannot take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Window,
    Ability,
}

/// The first capability that a job needs and the configuration knows to be missing. An adapter may find more when it
/// translates the request.
fn lack(capabilities: &Capabilities, request: &ChatRequest, job: &Job) -> Option<Lack> {
    let needs = match &request.embed {
        Some(embed) => longest_input(&embed.inputs),
        None => job.input_tokens.saturating_add(job.max_output_tokens.unwrap_or(1)),
    };
    if capabilities.context_window.is_some_and(|window| needs > window) {
        return Some(Lack::Window);
    }
    let has_images = || {
        request
            .messages
            .iter()
            .flat_map(|message| &message.content)
            .any(|part| matches!(part, ContentPart::Image { .. }))
    };
    let wants_schema = matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. }));
    let lacks_ability = (capabilities.tools == Some(false) && !request.tools.is_empty())
        || (capabilities.json_schema == Some(false) && wants_schema)
        || (capabilities.images == Some(false) && has_images());
    lacks_ability.then_some(Lack::Ability)
}
