//! The configuration, resolved for work: every route with its targets, clients and gates at hand.

use super::gate::{Gate, Kept, ProviderSetup, TargetState};
use super::waits::what_is_waited_for;
use crate::domain::decide::{Closed, RungHealth, Skip, Step, decide};
use crate::domain::strategy;
use crate::domain::{Charging, Job, JobId, Limits, Route, Sizes, Target, Timestamp, Typical};
use crate::provider::{ApiKey, Endpoint, Provider, Timeouts};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A limit that is used up for less time than this is told to nobody: it is over when the word of it has come.
const WORTH_SAYING: Duration = Duration::from_secs(3);

/// One provider as the worker needs it.
#[derive(Clone, Debug)]
pub struct ProviderPlan {
    /// Where and how it is reached.
    pub endpoint: Endpoint,
    /// Its bucket, the rule of charging, breaker and recheck time; the models are filled in from the routes.
    pub setup: ProviderSetup,
}

/// What a worker is to work with.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Limits by bucket.
    pub buckets: BTreeMap<String, Limits>,
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderPlan>,
    /// Routes with the timeouts of each rung.
    pub routes: Vec<(Arc<Route>, Vec<Timeouts>)>,
}

/// One rung, ready to be called.
pub struct RungPlan {
    /// Its gate.
    pub target: Arc<TargetState>,
    /// Its client.
    pub provider: Arc<Provider>,
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// How a request is counted against its limits.
    pub charging: Charging,
}

impl RungPlan {
    /// What a request is expected to need here, by its estimated tokens of input and its output cap.
    #[must_use]
    pub fn sizes(&self, input_tokens: i64, cap: Option<i64>) -> Sizes {
        let calibration = self.target.calibration();
        let cap = cap.map(|cap| u64::try_from(cap).unwrap_or(0));
        Sizes {
            input: calibration.input(input_tokens),
            input_at_most: calibration.input_at_most(input_tokens),
            cap,
            expected_output: calibration.expected_output(cap),
        }
    }

    /// The state of its target for a request of these sizes that would wait at most `horizon` for its turn.
    #[must_use]
    pub fn health(&self, sizes: &Sizes, horizon: Duration, now: Timestamp) -> RungHealth {
        self.target.health(&self.charging.ask(sizes), horizon, now)
    }
}

impl RungPlan {
    /// The name of the key that a call was made with, where it says something: there were others, or it was refused.
    #[must_use]
    pub fn key_worth_telling(&self, key: usize, refused: bool) -> Option<&str> {
        let keys = &self.provider.endpoint().keys;
        keys.get(key).filter(|_| refused || keys.len() > 1).map(|key| key.name.as_str())
    }
}

/// One route, ready for work.
pub struct RoutePlan {
    /// The policy.
    pub route: Arc<Route>,
    /// Its rungs, in listed order.
    pub rungs: Vec<RungPlan>,
    /// What its jobs are like.
    typical: Arc<Mutex<Typical>>,
}

impl RoutePlan {
    /// What its jobs have been like lately.
    #[must_use]
    pub fn typical(&self) -> Typical {
        *self.typical.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the estimated tokens of input and the output cap of one more of its jobs.
    pub fn see(&self, input_tokens: i64, cap: Option<i64>) {
        self.typical.lock().unwrap_or_else(PoisonError::into_inner).see(input_tokens, cap);
    }

    /// The order in which a job tries the rungs.
    #[must_use]
    pub fn order(&self, job: &Job) -> Vec<usize> {
        strategy::order(&self.route, job)
    }

    /// How many of its jobs with this deadline may be started now, and if none, when to ask again.
    pub(super) fn budget(&self, deadline: Option<Timestamp>, now: Timestamp) -> (usize, Option<Timestamp>) {
        let (step, sizes) = self.probe(deadline, now);
        match step {
            Step::Call { rung, .. } => {
                let room = |(rung, sizes): (&RungPlan, _)| rung.target.headroom(rung.charging.reserve(sizes)).max(1);
                (self.rungs.get(rung).zip(sizes.get(rung)).map_or(0, room), None)
            }
            Step::Wait { until, .. } => (0, Some(until)),
            // No rung can take even a typical request: the jobs themselves will say why.
            Step::Finish(_) => (usize::MAX, None),
        }
    }

    /// What its jobs wait for, when none of them may be started for longer than it takes to say so.
    pub(super) fn hold_up(&self, now: Timestamp) -> Option<String> {
        let Step::Wait { until, rung, why } = self.probe(None, now).0 else { return None };
        let passes = match why {
            // Calls end all the time.
            Skip::Closed { reason: Closed::Concurrency, .. } => true,
            Skip::Closed { reason: Closed::RateLimit, .. } => until - WORTH_SAYING <= now,
            _ => false,
        };
        let target = self.rungs.get(rung)?.target.target().to_string();
        (!passes).then(|| what_is_waited_for(&target, &why, self.rungs.len() == 1))
    }

    /// What a job of usual size may do, and what it takes of each rung.
    fn probe(&self, deadline: Option<Timestamp>, now: Timestamp) -> (Step, Vec<Sizes>) {
        let typical = self.typical();
        // A job that has waited since ever: whatever patience there is, it is used up. What it may do, some job may do.
        let probe = Job {
            id: JobId(0),
            ready_at: Timestamp::MIN,
            deadline,
            max_attempts: None,
            input_tokens: typical.input(),
            max_output_tokens: typical.cap(),
        };
        let order = self.order(&probe);
        let pace = Duration::from_millis(5);
        let sizes: Vec<_> = self.rungs.iter().map(|rung| rung.sizes(typical.input(), typical.cap())).collect();
        let health: Vec<RungHealth> =
            self.rungs.iter().zip(&sizes).map(|(rung, sizes)| rung.health(sizes, pace, now)).collect();
        (decide(&probe, &self.route, &order, &[], &health, now), sizes)
    }
}

/// All routes and the gate before them.
pub struct Plan {
    /// What may be called.
    pub gate: Gate,
    /// By name.
    pub routes: HashMap<String, Arc<RoutePlan>>,
    /// By provider.
    clients: BTreeMap<String, Arc<Provider>>,
}

impl Plan {
    /// Resolves a blueprint.
    ///
    /// # Errors
    /// When a provider's client cannot be made (a base URL or header that is none).
    pub fn new(blueprint: &Blueprint) -> anyhow::Result<Self> {
        let setups = setups(blueprint);
        let clients = clients(blueprint, None)?;
        let gate = Gate::new(&blueprint.buckets, &setups);
        Self::assemble(blueprint, &setups, clients, gate, None)
    }

    /// The plan after this one: what is still the same goes on as it stands, connections, limits and what was learned.
    ///
    /// # Errors
    /// As for [`Plan::new`]; this plan is then as it was.
    pub fn succeeded_by(&self, blueprint: &Blueprint, now: Timestamp) -> anyhow::Result<Self> {
        let setups = setups(blueprint);
        let clients = clients(blueprint, Some(self))?;
        require_targets(blueprint)?;
        let kept = blueprint.providers.iter().filter_map(|(name, plan)| {
            let known = self.clients.get(name)?.endpoint();
            let is_known = |key: &&ApiKey| known.keys.iter().any(|known| known.is_same_as(key));
            let keys = plan.endpoint.keys.iter().filter(is_known).map(|key| key.name.clone()).collect();
            Some((name.clone(), Kept { is_same_server: known.is_same_server_as(&plan.endpoint), keys }))
        });
        let gate = self.gate.succeeded_by(&blueprint.buckets, &setups, &kept.collect(), now);
        Self::assemble(blueprint, &setups, clients, gate, Some(self))
    }

    fn assemble(
        blueprint: &Blueprint,
        setups: &BTreeMap<String, ProviderSetup>,
        clients: BTreeMap<String, Arc<Provider>>,
        gate: Gate,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut routes = HashMap::new();
        for (route, timeouts) in &blueprint.routes {
            let mut rungs = Vec::new();
            for (rung, timeouts) in route.rungs.iter().zip(timeouts) {
                let target = gate.target(&rung.target).ok_or_else(|| no_provider(route, &rung.target))?;
                let provider = clients.get(&rung.target.provider).ok_or_else(|| no_provider(route, &rung.target))?;
                let rule = setups.get(&rung.target.provider).map_or(Charging::COMBINED, |setup| setup.charging);
                let charging = rule.for_model(&rung.target.model, rung.model.output_burndown);
                rungs.push(RungPlan { target, provider: Arc::clone(provider), timeouts: *timeouts, charging });
            }
            let known = before.and_then(|before| before.routes.get(&route.name));
            let typical = known.map(|known| Arc::clone(&known.typical)).unwrap_or_default();
            routes.insert(route.name.clone(), Arc::new(RoutePlan { route: Arc::clone(route), rungs, typical }));
        }
        Ok(Self { gate, routes, clients })
    }
}

/// Providers with the models that routes name.
fn setups(blueprint: &Blueprint) -> BTreeMap<String, ProviderSetup> {
    let mut setups: BTreeMap<String, ProviderSetup> =
        blueprint.providers.iter().map(|(name, plan)| (name.clone(), plan.setup.clone())).collect();
    for (route, _) in &blueprint.routes {
        for rung in &route.rungs {
            if let Some(setup) = setups.get_mut(&rung.target.provider)
                && !setup.models.contains(&rung.target.model)
            {
                setup.models.push(rung.target.model.clone());
            }
        }
    }
    setups
}

/// A client for each provider; where nothing about it has changed, the one that there is, with its connections.
fn clients(blueprint: &Blueprint, before: Option<&Plan>) -> anyhow::Result<BTreeMap<String, Arc<Provider>>> {
    let mut clients = BTreeMap::new();
    for (name, plan) in &blueprint.providers {
        let known = before.and_then(|before| before.clients.get(name));
        let client = match known.filter(|known| known.endpoint().is_same_as(&plan.endpoint)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(
                Provider::new(plan.endpoint.clone()).map_err(|error| anyhow::anyhow!("provider {name}: {error}"))?,
            ),
        };
        clients.insert(name.clone(), client);
    }
    Ok(clients)
}

/// Before anything is taken over from the plan before: afterwards nothing fails any more.
fn require_targets(blueprint: &Blueprint) -> anyhow::Result<()> {
    for (route, _) in &blueprint.routes {
        for rung in &route.rungs {
            if !blueprint.providers.contains_key(&rung.target.provider) {
                return Err(no_provider(route, &rung.target));
            }
        }
    }
    Ok(())
}

fn no_provider(route: &Route, target: &Target) -> anyhow::Error {
    anyhow::anyhow!("route {}: {target} has no provider", route.name)
}
