//! The configuration, resolved for work: every route with its targets, clients and gates at hand.

use super::gate::{Gate, ProviderSetup, RouteQuality, TargetState, Unchanged};
use super::journey::Packs;
use super::line::LineCount;
use crate::domain::awaited;
use crate::domain::decide::{Condition, Skip, Startable, is_stuck, startable, together};
use crate::domain::defaults::Growth;
use crate::domain::fork::{Holds, Taken, Ways};
use crate::domain::routing::{self, Unrouted};
use crate::domain::shadow;
use crate::domain::shut::Reason;
use crate::domain::statistics::RouteWait;
use crate::domain::strategy::{self, Conditions};
use crate::domain::trace;
use crate::domain::{
    Charging, ChatRequest, Limits, Metadata, Patience, PromptCache, QualitySettings, RequestError, Route, Rung, Sizes,
    Target, Timestamp, Typical, bulk,
};
use crate::provider::{ApiKey, Endpoint, Provider};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// A limit that is used up for less time than this is not reported: it would be over before the report arrived.
const WORTH_SAYING: Duration = Duration::from_secs(3);

/// One provider, as the worker needs it.
#[derive(Clone, Debug)]
pub struct ProviderPlan {
    /// The address and dialect of the provider, and how to reach it.
    pub endpoint: Endpoint,
    /// Its bucket, the rule of charging, breaker and recheck time; the models are filled in from the routes.
    pub setup: ProviderSetup,
    /// When its targets are passed over for the quality of their answers.
    pub quality: QualitySettings,
}

/// The configuration that a worker works with, before it is resolved.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Limits by bucket.
    pub buckets: BTreeMap<String, Limits>,
    pub providers: BTreeMap<String, ProviderPlan>,
    pub routes: Vec<Arc<Route>>,
    /// Whether traces are sent, so that jobs may name the traces of their callers.
    pub traces: bool,
}

/// One rung, ready to be called.
pub struct RungPlan {
    pub target: Arc<TargetState>,
    pub provider: Arc<Provider>,
    /// How well it answers the jobs of its route.
    pub quality: Arc<RouteQuality>,
    /// How a request is counted against its limits.
    pub charging: Charging,
    /// How its provider keeps the beginnings of prompts; `None`: it does not, or it is not known to.
    pub prompt_cache: Option<PromptCache>,
    /// The jobs of its route that wait for a place here.
    pub(super) line: LineCount,
    /// The calls that its jobs share; `None`: each job has a call of its own.
    pub(super) packer: Option<Packs>,
}

impl RungPlan {
    /// The units that a request is expected to need here, by its estimated input tokens, its output cap and its inputs
    /// for embeddings.
    #[must_use]
    pub fn sizes(&self, input_tokens: i64, cap: Option<i64>, inputs: usize) -> Sizes {
        let calibration = self.target.calibration();
        let cap = cap.map(|cap| u64::try_from(cap).unwrap_or(0));
        Sizes {
            input: calibration.input(input_tokens),
            input_at_most: calibration.input_at_most(input_tokens),
            cap,
            expected_output: calibration.expected_output(cap),
            inputs: u64::try_from(inputs).unwrap_or(u64::MAX),
        }
    }

    /// For how many jobs one call is, at most.
    fn jobs_per_call(&self) -> usize {
        self.packer.as_ref().map_or(1, |packer| packer.bounds().inputs.max(1))
    }

    /// The condition of this rung for a request of these sizes that would wait at most `horizon` for its turn. `fence`
    /// is that of its job's claim; `None`: the job has not been claimed. Its room is computed only if
    /// `weighs_headroom`.
    #[must_use]
    pub fn condition(
        &self,
        sizes: &Sizes,
        fence: Option<i64>,
        horizon: Duration,
        weighs_headroom: bool,
        now: Timestamp,
    ) -> Condition {
        let ask = self.charging.ask(sizes);
        Condition {
            health: self.target.health(&ask, fence, horizon, now),
            headroom: weighs_headroom.then(|| self.target.headroom(ask.reserved, self.jobs_per_call())),
            free: weighs_headroom.then(|| self.target.free()),
            latency: self.target.latency(sizes.expected_output),
            line: None,
            weakness: self.quality.weakness(now),
        }
    }

    /// The same with the jobs that wait here already or are `coming`, for a job that has not been claimed yet.
    fn condition_to_claim(&self, sizes: &Sizes, coming: usize, horizon: Duration, now: Timestamp) -> Condition {
        // Of those that are coming, as many as share a call wait for one place.
        let line = self.target.line(self.line.jobs(), coming.div_ceil(self.jobs_per_call()), now);
        Condition { line, ..self.condition(sizes, None, horizon, true, now) }
    }
}

impl RungPlan {
    /// The name of the key that a call was made with, where it is informative: the provider has several keys, or the
    /// key was refused.
    #[must_use]
    pub fn key_worth_telling(&self, key: usize, refused: bool) -> Option<&str> {
        let keys = &self.provider.endpoint().keys;
        keys.get(key).filter(|_| refused || keys.len() > 1).map(|key| key.name.as_str())
    }
}

/// A job whose route is found.
pub(super) struct Resolved {
    pub plan: Arc<RoutePlan>,
    /// The rules that led there.
    pub taken: Vec<Taken>,
    pub request: ChatRequest,
    /// Estimated tokens of its prompt.
    pub input_tokens: i64,
}

/// One route, ready for work.
pub struct RoutePlan {
    pub route: Arc<Route>,
    /// Its rungs, in listed order.
    pub rungs: Vec<RungPlan>,
    /// Typical sizes of its jobs.
    typical: Arc<Mutex<Typical>>,
    /// How much larger a request becomes at most on it and on the routes to which its rules lead.
    growth: Growth,
    /// Where its rules have led its jobs.
    ways: Arc<Mutex<Ways>>,
    /// The jobs that were just claimed and have not asked for a place yet.
    pub(super) coming: LineCount,
    /// Why none of its jobs could be started when that was last asked and was so, and when that was.
    held_up: Mutex<Option<(String, Timestamp)>>,
}

impl RoutePlan {
    /// A rung, as it is configured and as it is called.
    #[must_use]
    pub fn rung(&self, index: usize) -> Option<(&Rung, &RungPlan)> {
        Some((self.route.rungs.get(index)?, self.rungs.get(index)?))
    }

    /// The sizes of its recent jobs.
    #[must_use]
    pub fn typical(&self) -> Typical {
        *self.typical.lock()
    }

    /// Records the estimated input tokens and the output cap of one more of its jobs.
    pub fn see(&self, input_tokens: i64, cap: Option<i64>) {
        self.typical.lock().see(input_tokens, cap);
    }

    /// The first rung of all jobs of a lane with this project and batch, where all of them have the same, and its key.
    fn first_of_lane(&self, project: &str, batch: Option<&str>) -> Option<(usize, u64)> {
        let key = self.route.sticky(project, batch, &Metadata::default())?;
        let mut order = Vec::new();
        let seen = Conditions::of_route(Typical::default(), Some(key), Timestamp(0), &[]);
        strategy::order(&self.route, &seen, &mut order);
        Some((*order.first()?, key))
    }

    /// How many of its jobs with this deadline may be started now, and if none, when to ask again. `sticky`: only those
    /// that have this key.
    fn startable(&self, sticky: Option<u64>, deadline: Option<Timestamp>, now: Timestamp) -> Startable {
        let (typical, conditions) = (self.typical(), self.conditions(now));
        let mut order = Vec::new();
        strategy::order(&self.route, &Conditions::of_route(typical, sticky, now, &conditions), &mut order);
        let drawn = strategy::first_choices(&self.route, sticky);
        let startable = startable(&self.route, &order, &drawn, &conditions, deadline, now);
        // What holds up the jobs of one key is no matter of the others.
        if let (Startable::Later { rung, why, .. }, None) = (&startable, sticky) {
            self.note_hold_up(*rung, why, now);
        }
        startable
    }

    fn note_hold_up(&self, rung: usize, why: &Skip, now: Timestamp) {
        // A job that waits for a place waits for other jobs, as it would in any queue.
        if matches!(why, Skip::Shut { shut, .. } if shut.reason == Reason::Concurrency) {
            return;
        }
        let Some(planned) = self.rungs.get(rung) else { return };
        let target = planned.target.target().to_string();
        *self.held_up.lock() = Some((awaited::in_words(&target, why, self.rungs.len() == 1, None), now));
    }

    /// Why none of its jobs could be started at some time since this instant, in the words of rows.
    pub(super) fn held_up(&self, since: Timestamp) -> Option<String> {
        self.held_up.lock().as_ref().filter(|(_, seen)| *seen >= since).map(|(words, _)| words.clone())
    }

    /// The conditions of its rungs for jobs of the usual size.
    fn conditions(&self, now: Timestamp) -> Vec<Condition> {
        let typical = self.typical();
        let pace = Duration::from_millis(5);
        // Nothing is generated for embeddings: then the mean of the caps is next to nothing.
        let inputs = usize::from(typical.cap().is_some_and(|cap| cap <= 1));
        let sizes = |rung: &RungPlan| rung.sizes(typical.input(), typical.cap(), inputs);
        let condition = |rung: &RungPlan| rung.condition_to_claim(&sizes(rung), self.coming.jobs(), pace, now);
        self.rungs.iter().map(condition).collect()
    }

    /// For how many seconds its jobs wait for a cheaper rung; `None`: there is none, or they wait for ever.
    pub(super) fn patience(&self) -> Option<u64> {
        match self.route.patience {
            Patience::For(patience) if self.rungs.len() > 1 && !patience.is_zero() => Some(patience.as_secs()),
            Patience::For(_) | Patience::Forever => None,
        }
    }

    /// The wait of its jobs, if none of them may start within [`WORTH_SAYING`].
    fn hold_up(&self, now: Timestamp) -> Option<RouteWait> {
        let Startable::Later { until, rung, why, .. } = self.startable(None, None, now) else { return None };
        let opens = match why {
            Skip::Shut { shut, .. } if shut.known_end().is_none() => None,
            _ => Some(until.0),
        };
        let passes = match why {
            // Calls end all the time, and free places.
            Skip::Shut { shut, .. } if shut.reason == Reason::Concurrency => true,
            Skip::Shut { shut, .. } if shut.reason == Reason::RateLimit => until - WORTH_SAYING <= now,
            _ => false,
        };
        let target = self.rungs.get(rung)?.target.target().to_string();
        let targets = || self.rungs.iter().map(|rung| rung.target.target().to_string()).collect();
        (!passes).then(|| RouteWait {
            reason: awaited::in_words(&target, &why, self.rungs.len() == 1, None),
            until_ms: opens,
            stuck: if is_stuck(&self.conditions(now)) { targets() } else { Vec::new() },
        })
    }
}

/// What a lane's jobs may go along, as far as that is known before they are claimed: its route, or those that the rules
/// of its route lead to.
pub(super) struct LanePlan {
    /// Never empty.
    parts: Vec<Part>,
}

/// A route that some jobs of a lane go along.
struct Part {
    plan: Arc<RoutePlan>,
    /// The share of the lane's jobs.
    share: f64,
    /// The rung that all of them try first, and the key by which they stick to it.
    sticky: Option<(usize, u64)>,
}

impl LanePlan {
    /// Lanes with the same key have the same answer.
    pub(super) fn key(&self) -> Vec<(&str, Option<usize>)> {
        let key = |part: &'_ Part| part.sticky.map(|(first, _)| first);
        self.parts.iter().map(|part| (part.plan.route.name.as_str(), key(part))).collect()
    }

    /// The providers that its jobs may be sent to.
    pub(super) fn providers(&self) -> impl Iterator<Item = &str> {
        let rungs = self.parts.iter().flat_map(|part| &part.plan.route.rungs);
        rungs.map(|rung| rung.target.provider.as_str())
    }

    /// How many of the jobs with this deadline may be started now, and if none, when to ask again.
    pub(super) fn startable(&self, deadline: Option<Timestamp>, now: Timestamp) -> Startable {
        let ask = |part: &Part| part.plan.startable(part.sticky.map(|(_, key)| key), deadline, now);
        match self.parts.as_slice() {
            [part] => ask(part),
            parts => together(parts.iter().map(|part| (part.share, ask(part))), usize::MAX),
        }
    }
}

/// All routes and the gate before them.
pub struct Plan {
    /// The gate: which calls may be made.
    pub gate: Gate,
    pub routes: HashMap<String, Arc<RoutePlan>>,
    /// The members of a job's metadata that any route looks at, and that of traces.
    pub members: Arc<[String]>,
    /// Clients by provider.
    clients: BTreeMap<String, Arc<Provider>>,
}

impl Plan {
    /// Resolves a blueprint.
    ///
    /// # Errors
    /// When a provider's client cannot be built (an invalid base URL or header).
    pub fn new(blueprint: &Blueprint) -> anyhow::Result<Self> {
        let setups = setups(blueprint);
        let clients = clients(blueprint, None)?;
        let gate = Gate::new(&blueprint.buckets, &setups);
        Self::assemble(blueprint, &setups, clients, gate, None)
    }

    /// The plan that follows this one. Parts that did not change carry on as they are: connections, limits and learned
    /// values.
    ///
    /// # Errors
    /// As for [`Plan::new`]; this plan is then unchanged.
    pub fn succeeded_by(&self, blueprint: &Blueprint, now: Timestamp) -> anyhow::Result<Self> {
        let setups = setups(blueprint);
        let clients = clients(blueprint, Some(self))?;
        require_targets(blueprint)?;
        let kept = blueprint.providers.iter().filter_map(|(name, plan)| {
            let known = self.clients.get(name)?.endpoint();
            let is_known = |key: &&ApiKey| known.keys.iter().any(|known| known.is_same_as(key));
            let keys = plan.endpoint.keys.iter().filter(is_known).map(|key| key.name.clone()).collect();
            Some((name.clone(), Unchanged { is_same_server: known.is_same_server_as(&plan.endpoint), keys }))
        });
        let gate = self.gate.succeeded_by(&blueprint.buckets, &setups, &kept.collect(), now);
        Self::assemble(blueprint, &setups, clients, gate, Some(self))
    }

    /// The client of a provider.
    pub(super) fn client(&self, provider: &str) -> Option<&Arc<Provider>> {
        self.clients.get(provider)
    }

    /// What jobs of this route, project and batch may go along; `None`: there is no such route.
    pub(super) fn lane(&self, route: &str, project: &str, batch: Option<&str>) -> Option<LanePlan> {
        let mut parts = Vec::with_capacity(1);
        self.gather(self.routes.get(route)?, Some((project, batch)), 1.0, 0, &mut parts);
        Some(LanePlan { parts })
    }

    /// The providers that jobs in hand wait for, those of shadows left out.
    pub(super) fn waiting_in_hand(&self) -> BTreeSet<&str> {
        let mut providers = BTreeSet::new();
        for plan in self.routes.values().filter(|plan| shadow::shadowed(&plan.route.name).is_none()) {
            let is_coming = plan.coming.jobs() > 0;
            for (rung, planned) in plan.route.rungs.iter().zip(&plan.rungs) {
                if is_coming || planned.line.jobs() > 0 {
                    providers.insert(rung.target.provider.as_str());
                }
            }
        }
        providers
    }

    /// Every route that some job of this route may take.
    pub(super) fn any_lane(&self, route: &str) -> Option<LanePlan> {
        let mut parts = Vec::with_capacity(1);
        self.gather(self.routes.get(route)?, None, 1.0, 0, &mut parts);
        Some(LanePlan { parts })
    }

    /// Adds the routes that jobs of `plan` may go along, by its rules and those of the routes that these lead to.
    fn gather(
        &self,
        plan: &Arc<RoutePlan>,
        lane: Option<(&str, Option<&str>)>,
        share: f64,
        depth: usize,
        parts: &mut Vec<Part>,
    ) {
        let mut ways: Vec<&Arc<RoutePlan>> = Vec::new();
        let mut all_leave = false;
        // Rules form no circle, so no chain of them is longer than there are routes.
        for fork in plan.route.forks.iter().take_while(|_| depth < self.routes.len()) {
            let holds = lane.map_or(Holds::ForSome, |(project, batch)| fork.when.of_lane(project, batch));
            if let Some(other) = self.routes.get(&fork.to).filter(|_| holds != Holds::ForNone)
                && !ways.iter().any(|known| Arc::ptr_eq(known, other))
            {
                ways.push(other);
            }
            all_leave = holds == Holds::ForAll;
            if all_leave {
                break;
            }
        }
        if ways.is_empty() {
            let sticky = lane.and_then(|(project, batch)| plan.first_of_lane(project, batch));
            return parts.push(Part { plan: Arc::clone(plan), share, sticky });
        }
        let weights: Vec<f64> = {
            let noted = plan.ways.lock();
            let own = (!all_leave).then(|| noted.weight(&plan.route.name));
            ways.iter().map(|way| noted.weight(&way.route.name)).chain(own).collect()
        };
        let sum: f64 = weights.iter().sum();
        for (way, weight) in ways.iter().zip(&weights) {
            self.gather(way, lane, share * weight / sum, depth + 1, parts);
        }
        if let (false, Some(own)) = (all_leave, weights.last()) {
            let sticky = lane.and_then(|(project, batch)| plan.first_of_lane(project, batch));
            parts.push(Part { plan: Arc::clone(plan), share: share * own / sum, sticky });
        }
    }

    /// The route that a job goes along whose row names `route`, its request as that route completes it, and the rules
    /// that lead there. `None`: there is no such route.
    pub(super) fn resolve(&self, route: &str, asked: &Unrouted<'_>) -> Option<Result<Resolved, RequestError>> {
        let named = self.routes.get(route)?;
        let find = |name: &str| self.routes.get(name).map(|plan| &*plan.route);
        let routed = match routing::route(&named.route, &find, self.routes.len(), asked) {
            Ok(routed) => routed,
            Err(fault) => return Some(Err(fault)),
        };
        let plan = Arc::clone(self.routes.get(&routed.route.name)?);
        let (taken, request, input_tokens) = (routed.taken, routed.request, routed.input_tokens);
        Some(Ok(Resolved { plan, taken, request, input_tokens }))
    }

    /// As [`resolve`](Self::resolve), for a request that has been read already.
    pub(super) fn resolve_again(
        &self,
        route: &str,
        asked: &Unrouted<'_>,
        request: &ChatRequest,
    ) -> Option<(Arc<RoutePlan>, Vec<Taken>)> {
        let find = |name: &str| self.routes.get(name).map(|plan| &*plan.route);
        let (route, taken) = routing::again(find(route)?, &find, self.routes.len(), asked, request);
        Some((Arc::clone(self.routes.get(&route.name)?), taken))
    }

    /// About how many bytes a request takes in memory whose row names `route`, with what the routes add that it may go
    /// along.
    pub(super) fn weight(&self, route: &str, body: &str) -> usize {
        self.routes.get(route).map_or_else(|| bulk::weight(body), |plan| plan.growth.weight(body))
    }

    /// Notes the way that one more job takes.
    pub(super) fn note_way(&self, plan: &RoutePlan, taken: &[Taken]) {
        for Taken { route, to, .. } in taken.iter().filter(|taken| taken.budget.is_none()) {
            if let Some(from) = self.routes.get(route) {
                from.ways.lock().note(to);
            }
        }
        if !plan.route.forks.is_empty() {
            plan.ways.lock().note(&plan.route.name);
        }
    }

    /// The wait of a route's jobs, if none of them may start for a while, whichever way they take.
    pub(super) fn hold_up(&self, route: &str, now: Timestamp) -> Option<RouteWait> {
        let lane = self.any_lane(route)?;
        let mut waits: Vec<RouteWait> = lane.parts.iter().map(|part| part.plan.hold_up(now)).collect::<Option<_>>()?;
        waits.sort_by_key(|wait| wait.until_ms.unwrap_or(i64::MAX));
        let all: BTreeSet<String> = waits.iter().flat_map(|wait| wait.stuck.iter().cloned()).collect();
        let are_stuck = waits.iter().all(|wait| !wait.stuck.is_empty());
        let wait = waits.into_iter().next()?;
        Some(RouteWait { stuck: if are_stuck { all.into_iter().collect() } else { Vec::new() }, ..wait })
    }

    fn assemble(
        blueprint: &Blueprint,
        setups: &BTreeMap<String, ProviderSetup>,
        clients: BTreeMap<String, Arc<Provider>>,
        gate: Gate,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let mut routes = HashMap::new();
        for route in &blueprint.routes {
            let mut rungs = Vec::new();
            for rung in &route.rungs {
                let target = gate.target(&rung.target).ok_or_else(|| no_provider(route, &rung.target))?;
                let provider = clients.get(&rung.target.provider).ok_or_else(|| no_provider(route, &rung.target))?;
                let rule = setups.get(&rung.target.provider).map_or(Charging::COMBINED, |setup| setup.charging);
                let charging = rule.for_model(&rung.target.model, rung.model.output_burndown);
                let prompt_cache = provider.endpoint().prompt_cache(&rung.target.model);
                let packer = route.pack.zip(provider.endpoint().embeds());
                let packer = packer.map(|(packing, vendor)| Packs::new(packing, vendor));
                let planned = blueprint.providers.get(&rung.target.provider);
                let settings = planned.ok_or_else(|| no_provider(route, &rung.target))?.quality;
                let quality = target.quality_on(&route.name, settings);
                let (provider, line) = (Arc::clone(provider), LineCount::default());
                rungs.push(RungPlan { target, provider, quality, charging, prompt_cache, line, packer });
            }
            let known = before.and_then(|before| before.routes.get(&route.name));
            let typical = known.map(|known| Arc::clone(&known.typical)).unwrap_or_default();
            let ways = known.map(|known| Arc::clone(&known.ways)).unwrap_or_default();
            let growth = growth_along(&blueprint.routes, &route.name);
            let (route, coming) = (Arc::clone(route), LineCount::default());
            routes.insert(
                route.name.clone(),
                Arc::new(RoutePlan { route, rungs, typical, growth, ways, coming, held_up: Mutex::default() }),
            );
        }
        gate.keep_routes(|route| routes.contains_key(route));
        let of_caller = blueprint.traces.then_some(trace::MEMBER);
        let members = blueprint.routes.iter().flat_map(|route| route.looks_at());
        let members: BTreeSet<&str> = members.chain(of_caller).collect();
        let members = members.into_iter().map(str::to_owned).collect();
        Ok(Self { gate, routes, members, clients })
    }
}

/// How much larger a request becomes at most whose row names this route.
fn growth_along(routes: &[Arc<Route>], name: &str) -> Growth {
    let (mut growth, mut seen, mut left) = (Growth::default(), BTreeSet::new(), vec![name]);
    while let Some(name) = left.pop() {
        let known = routes.iter().find(|route| route.name == name);
        if let Some(route) = known.filter(|_| seen.insert(name)) {
            growth = growth.max(route.defaults.growth());
            left.extend(route.forks.iter().map(|fork| fork.to.as_str()));
        }
    }
    growth
}

/// Providers with the targets that routes name.
fn setups(blueprint: &Blueprint) -> BTreeMap<String, ProviderSetup> {
    let mut setups: BTreeMap<String, ProviderSetup> =
        blueprint.providers.iter().map(|(name, plan)| (name.clone(), plan.setup.clone())).collect();
    for route in &blueprint.routes {
        for rung in &route.rungs {
            if let Some(setup) = setups.get_mut(&rung.target.provider)
                && !setup.targets.contains(&rung.target)
            {
                setup.targets.push(rung.target.clone());
            }
        }
    }
    setups
}

/// A client for each provider; a provider whose configuration has not changed keeps its client and its connections.
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

/// Runs before anything is taken over from the earlier plan: after that, no step can fail.
fn require_targets(blueprint: &Blueprint) -> anyhow::Result<()> {
    for route in &blueprint.routes {
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
