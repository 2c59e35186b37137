//! The book of a run: quotas, the waits that were told, every call and every distinct request, under one short lock.

use super::account::{Account, MAX_SCOPES, Scope};
use super::chance::mix;
use super::conduct::Arrival;
use super::exchange::{Ask, Problem, Usage};
use super::fault::{Fault, FaultKind, scripted};
use super::fault_rule::{Circumstances, choose};
use super::prompt_cache::{CacheAsk, Cached};
use super::quota::{Levels, Shortage};
use super::scenario::{Price, Provider, QuotaScope, Scenario};
use super::verdict::{Figures, ProviderVerdict, Verdict};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The decision about a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// The request itself is at fault.
    Reject(Problem),
    /// The call exceeds a real quota.
    Refuse(Shortage),
    /// A fault, or with [`FaultKind::Ok`] a good answer.
    Do(Fault),
}

/// A call that has arrived and been decided.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub seq: u64,
    pub generation: u64,
    pub provider: usize,
    pub scope: u64,
    /// Scope and key, hashed: identifies the money that it spends.
    pub purse: u64,
    /// The key's place in the scenario's list.
    pub key: Option<usize>,
    pub prompt: u64,
    /// Prompt, provider and model, hashed.
    pub target: u64,
    pub model: Arc<str>,
    /// The tier that serves it; `None`: the usual one.
    pub tier: Option<Arc<str>>,
    /// The model's price in that tier.
    pub price: Option<Price>,
    pub decision: Decision,
    /// The call took its share of the quota and has to give the slot back.
    pub admitted: bool,
    pub levels: Option<Levels>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The part of the input that was read from the cache or written into it.
    pub cached: Cached,
    /// The beginning that is kept once it has been answered, and its model, hashed.
    pub keeps: Option<(u64, CacheAsk)>,
    pub early: bool,
    /// Calls of the provider that were under way when it arrived, itself included.
    pub in_flight: u64,
    /// For draws that belong to this call: seed, request, occurrence.
    pub draw: u64,
    pub arrived: Duration,
}

/// Whether a call is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Answered with 200 in full.
    Charged,
    /// Nothing was generated.
    Free,
    /// Generated, but not delivered.
    Lost,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// 0: no answer.
    pub status: u16,
    /// The wait that the answer told the client.
    pub told: Option<Duration>,
    pub charge: Charge,
    /// The client went away first.
    pub abandoned: bool,
    /// Usage as the answer reported it, when it did.
    pub reported: Option<(u64, u64)>,
}

/// A call in the log: `GET /_sim/calls`.
#[derive(Clone, Debug, Serialize)]
pub struct CallRecord {
    /// The id in the answer's header.
    pub request_id: String,
    /// Milliseconds from the start to the arrival.
    pub arrived_ms: u64,
    /// Milliseconds from the start to the end.
    pub ended_ms: u64,
    pub provider: String,
    pub model: String,
    /// The key's place in the scenario's list, from 0; absent when it is not on it.
    pub key: Option<usize>,
    /// The distinct request, in hexadecimal.
    pub request: String,
    /// The status that was sent; 0: none.
    pub status: u16,
    /// The fault that struck; absent for a good answer.
    pub fault: Option<&'static str>,
    /// Refused by a real quota.
    pub refused_by_quota: bool,
    /// The call came before a wait that it had been told was over.
    pub early: bool,
    /// The wait that the answer told the client.
    pub told_ms: Option<u64>,
    /// Answered with 200 in full, so that its tokens are paid for.
    pub charged: bool,
    /// Input tokens used.
    pub input_tokens: u64,
    /// Output tokens used.
    pub output_tokens: u64,
    /// Input tokens that were read from the cache of prompts.
    pub cache_read_tokens: u64,
    /// Input tokens that were written into it.
    pub cache_write_tokens: u64,
    /// Input tokens as reported, where the answer reported any.
    pub reported_input_tokens: Option<u64>,
    /// Output tokens as reported.
    pub reported_output_tokens: Option<u64>,
    /// The cost of the call, if it was charged and the model has a price.
    pub nano_usd: Option<u64>,
}

/// A distinct request: `GET /_sim/requests`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// Its hash in hexadecimal: [`request_hash`](super::prompt::request_hash).
    pub request: String,
    /// Calls to any provider.
    pub calls: u32,
    /// Good answers.
    pub answered: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Request {
    calls: u32,
    /// Calls that a script has counted: all that no real quota refused.
    steps: u32,
    answered: u32,
}

/// One request at one provider and model.
#[derive(Clone, Copy, Debug, Default)]
struct Target {
    steps: u32,
    refused_for_good: bool,
    not_before: Duration,
}

#[derive(Debug)]
struct Logged {
    entry: Entry,
    ending: Ending,
    ended: Duration,
}

/// All that changes while the simulator runs.
#[derive(Debug)]
pub(crate) struct Ledger {
    generation: u64,
    seq: u64,
    accounts: Vec<Account>,
    requests: HashMap<u64, Request>,
    targets: HashMap<u64, Target>,
    untracked: u64,
    answered: u64,
    answered_twice: u64,
    max_calls: u32,
    in_flight: u64,
    max_in_flight: u64,
    log: VecDeque<Logged>,
}

/// A call as it arrives.
pub(crate) struct Knock<'a> {
    pub provider: usize,
    /// Absent when it could not be read.
    pub ask: Option<&'a Ask<'a>>,
    /// Its own fault, regardless of what the faults and quotas of the scenario say.
    pub problem: Option<Problem>,
    /// Replaces the prompt of a request that cannot be read.
    pub body_hash: u64,
    /// Its place in the scenario's list, if it is on it.
    pub key: Option<usize>,
    pub key_hash: u64,
}

impl Ledger {
    pub fn new(scenario: &Scenario, generation: u64) -> Self {
        let accounts = scenario.providers.values().map(Account::new);
        Self {
            generation,
            seq: 0,
            accounts: accounts.collect(),
            requests: HashMap::new(),
            targets: HashMap::new(),
            untracked: 0,
            answered: 0,
            answered_twice: 0,
            max_calls: 0,
            in_flight: 0,
            max_in_flight: 0,
            log: VecDeque::new(),
        }
    }

    /// The ledger that follows this one: calls that are still under way do not count in it.
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// Books an arrival and decides about it.
    pub fn arrive(
        &mut self,
        scenario: &Scenario,
        name: &str,
        spec: &Provider,
        knock: Knock<'_>,
        now: Duration,
    ) -> Entry {
        self.seq += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        let tracked = self.requests.len() < scenario.max_requests;
        let account = &mut self.accounts[knock.provider];
        account.figures.calls += 1;
        account.in_flight += 1;
        account.figures.max_concurrency = account.figures.max_concurrency.max(account.in_flight);

        let (prompt, input_tokens, asked_model) = match knock.ask {
            Some(ask) => (ask.prompt, ask.input_tokens, ask.model.as_ref()),
            None => (knock.body_hash, 0, ""),
        };
        let (model, price) = account.model(asked_model);
        let model_hash = model.bytes().fold(knock.provider as u64 + 1, |hash, byte| mix(hash, u64::from(byte)));
        let key = knock.key.and_then(|key| spec.keys.get(key));
        let of_key = key.and_then(|key| key.quota.as_ref());
        let of_model = spec.models.get(asked_model).and_then(|model| model.quota.as_ref());
        let own_quota = of_key.or(of_model);
        let scope_key = match spec.quota_per {
            _ if of_key.is_some() => knock.key_hash,
            _ if of_model.is_some() => model_hash,
            QuotaScope::Provider => 0,
            QuotaScope::Model => model_hash,
            QuotaScope::Key => knock.key_hash,
        };
        let scope_key = account.scope_key(scope_key, own_quota.unwrap_or(&spec.quota), now);
        let purse = mix(scope_key, knock.key_hash);
        let charged = knock.key.and_then(|key| account.charged.get(key)).copied().unwrap_or(0);
        let without_money = key.filter(|key| key.credit.is_some_and(|credit| charged >= credit));
        let tier = knock.ask.and_then(|ask| spec.tiers.get_key_value(ask.tier.as_deref()?));
        let price = price.map(|price| match tier.and_then(|(_, tier)| tier.price) {
            Some(factor) => price.times(factor),
            None => price,
        });
        let tier: Option<Arc<str>> = tier.map(|(name, _)| Arc::from(name.as_str()));
        // What one tier refuses, another one of the same model may serve.
        let tier_hash = tier.iter().flat_map(|tier| tier.bytes()).fold(0, |hash, byte| mix(hash, u64::from(byte)));
        let target_key = mix(prompt, model_hash ^ tier_hash);

        // A request that does not fit the table is judged as if it had come for the first time.
        let (mut new_request, mut new_target) = (Request::default(), Target::default());
        let known = tracked || self.requests.contains_key(&prompt);
        let (request, target) = if known {
            (self.requests.entry(prompt).or_default(), self.targets.entry(target_key).or_default())
        } else {
            self.untracked += 1;
            (&mut new_request, &mut new_target)
        };
        request.calls += 1;
        self.max_calls = self.max_calls.max(request.calls);

        let scope = account.scopes.get_mut(&scope_key).expect("made above");
        let rules = scenario.verdict.rules();
        let Scope { quota, told } = scope;
        let Arrival { early, storm } = told.arrive(now, &rules, |from, until| quota.requests_between(from, until));
        let same = now + rules.tolerance < target.not_before;
        let after_money = account.out_of_money.get(&purse).is_some_and(|since| now > *since + rules.in_flight_grace);
        let figures = &mut account.figures;
        figures.early_retries += u64::from(early || same);
        figures.early_retries_of_same_request += u64::from(same);
        figures.storms += u64::from(storm);
        figures.retried_non_retryables += u64::from(target.refused_for_good);
        figures.calls_after_out_of_quota += u64::from(after_money);

        let occurrence = if known { u64::from(target.steps) } else { self.seq };
        let draw = mix(mix(scenario.seed, target_key), occurrence);
        let mut admitted = false;
        let decision = match (knock.problem, knock.ask) {
            (Some(problem), _) => Decision::Reject(problem),
            (None, None) => Decision::Reject(Problem::InvalidRequest),
            // Money is checked before anything else.
            (None, Some(_)) if without_money.is_some() => {
                let disguise = without_money.and_then(|key| key.disguise);
                Decision::Do(Fault { disguise, ..Fault::new(FaultKind::OutOfQuota) })
            }
            (None, Some(ask)) => {
                let circumstances = Circumstances {
                    now,
                    nth_call: figures.calls,
                    nth_of_request: target.steps + 1,
                    model: &model,
                    tier: tier.as_deref(),
                    last_user: &ask.last_user,
                    draw,
                };
                let fault = fault(scenario, name, spec, &circumstances, request.steps + 1);
                match fault.map(|fault| fault.within(ask.max_output)) {
                    Err(message) => Decision::Reject(Problem::Malformed(message)),
                    Ok(fault) if !fault.kind.is_answer() => Decision::Do(fault),
                    Ok(fault) => {
                        let admission = quota.admit(spec.dialect.api().cost(ask.input_tokens, ask.max_output), now);
                        admitted = admission.is_ok();
                        admission.map_or_else(Decision::Refuse, |()| Decision::Do(fault))
                    }
                }
            }
        };
        match &decision {
            Decision::Refuse(_) => figures.refused_by_quota += 1,
            Decision::Reject(problem) => figures.malformed_requests += u64::from(problem.is_malformed()),
            Decision::Do(fault) => {
                request.steps += 1;
                target.steps += 1;
                if fault.kind != FaultKind::Ok {
                    account.faults[fault.kind as usize] += 1;
                }
            }
        }
        let asks = knock.ask.and_then(|ask| ask.cache).filter(|_| admitted);
        let cached = asks.map(|ask| account.prompts.look(model_hash, &ask, now)).unwrap_or_default();
        // A 429 of a fault states its own limits.
        let tells_levels = matches!(decision, Decision::Refuse(_)) || admitted;
        Entry {
            seq: self.seq,
            generation: self.generation,
            provider: knock.provider,
            scope: scope_key,
            purse,
            key: knock.key,
            prompt,
            target: target_key,
            model,
            tier,
            price,
            decision,
            admitted,
            levels: tells_levels.then(|| quota.levels(now)),
            input_tokens,
            output_tokens: 0,
            cached,
            keeps: asks.map(|ask| (model_hash, ask)),
            early: early || same,
            in_flight: account.in_flight,
            draw,
            arrived: now,
        }
    }

    /// Books how a call ended.
    pub fn end(&mut self, scenario: &Scenario, spec: &Provider, entry: &Entry, ending: Ending, now: Duration) {
        if entry.generation != self.generation {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let account = &mut self.accounts[entry.provider];
        account.in_flight = account.in_flight.saturating_sub(1);
        match account.statuses.iter_mut().find(|(status, _)| *status == ending.status) {
            Some((_, count)) => *count += 1,
            None => account.statuses.push((ending.status, 1)),
        }
        let figures = &mut account.figures;
        figures.rate_limited += u64::from(ending.status == 429);
        figures.abandoned += u64::from(ending.abandoned);
        let cost = entry.price.map(|price| price.cost(entry.used()));
        match ending.charge {
            Charge::Charged => {
                if let Some((model, ask)) = &entry.keeps {
                    account.prompts.keep(*model, ask, now);
                }
                figures.input_tokens += entry.input_tokens;
                figures.output_tokens += entry.output_tokens;
                figures.charged_nano_usd += cost.unwrap_or(0);
                figures.unpriced_calls += u64::from(cost.is_none());
                if let Some(charged) = entry.key.and_then(|key| account.charged.get_mut(key)) {
                    *charged += cost.unwrap_or(0);
                }
            }
            Charge::Lost => {
                figures.lost_calls += 1;
                figures.lost_nano_usd += cost.unwrap_or(0);
            }
            Charge::Free => {}
        }
        if let Some(scope) = account.scopes.get_mut(&entry.scope) {
            if entry.admitted {
                let tokens = spec.dialect.api().cost_afterwards(entry.output_tokens);
                scope.quota.release(entry.output_tokens, tokens, now);
            }
            // A tier without capacity is no limit that is used up.
            if let Some(wait) = ending.told.filter(|_| !entry.is(FaultKind::NoCapacity)) {
                scope.told.tell(now, wait);
            }
        }
        if entry.is(FaultKind::OutOfQuota) {
            // Bounded as the number of scopes is.
            if account.out_of_money.len() < MAX_SCOPES {
                account.out_of_money.entry(entry.purse).or_insert(now);
            }
        } else if ending.charge == Charge::Charged {
            account.out_of_money.remove(&entry.purse);
        }
        if let Some(target) = self.targets.get_mut(&entry.target) {
            target.refused_for_good |= ending.status != 0 && entry.is_refused_for_good();
            if let Some(wait) = ending.told {
                target.not_before = now + wait;
            }
        }
        if ending.charge == Charge::Charged
            && entry.is_good()
            && let Some(request) = self.requests.get_mut(&entry.prompt)
        {
            request.answered += 1;
            self.answered += u64::from(request.answered == 1);
            self.answered_twice += u64::from(request.answered == 2);
        }
        if scenario.record_calls > 0 {
            if self.log.len() >= scenario.record_calls {
                self.log.pop_front();
            }
            self.log.push_back(Logged { entry: entry.clone(), ending, ended: now });
        }
    }

    /// The verdict as of `now`.
    #[expect(clippy::cast_precision_loss, reason = "an average for display")]
    pub fn verdict(&self, scenario: &Scenario, now: Duration) -> Verdict {
        let mut total = Figures::default();
        let mut providers = std::collections::BTreeMap::new();
        for ((name, spec), account) in scenario.providers.iter().zip(&self.accounts) {
            let figures = account.sums();
            total.add(&figures);
            providers.insert(name.clone(), ProviderVerdict { dialect: spec.dialect, figures });
        }
        total.max_concurrency = self.max_in_flight;
        let distinct = self.requests.len() as u64;
        let verdict = Verdict {
            clean: true,
            reasons: Vec::new(),
            seconds: now.as_secs_f64(),
            distinct_requests: distinct,
            untracked_calls: self.untracked,
            answered_requests: self.answered,
            answered_twice: self.answered_twice,
            calls_per_request: (total.calls - self.untracked) as f64 / distinct.max(1) as f64,
            max_calls_per_request: self.max_calls,
            total,
            providers,
        };
        verdict.judge(&scenario.verdict)
    }

    /// The latest calls, the newest first.
    pub fn calls(&self, scenario: &Scenario, run: u32, limit: usize) -> Vec<CallRecord> {
        let specs: Vec<(&String, &Provider)> = scenario.providers.iter().collect();
        let record = |Logged { entry, ending, ended }: &Logged| {
            let (name, spec) = specs[entry.provider];
            let fault = match &entry.decision {
                Decision::Do(fault) if fault.kind != FaultKind::Ok => Some(fault.kind.as_str()),
                Decision::Do(_) | Decision::Refuse(_) => None,
                Decision::Reject(problem) => Some(if problem.is_malformed() { "malformed" } else { "rejected" }),
            };
            let charged = ending.charge == Charge::Charged;
            CallRecord {
                request_id: spec.dialect.api().request_id(run, entry.seq),
                arrived_ms: millis(entry.arrived),
                ended_ms: millis(*ended),
                provider: name.clone(),
                model: entry.model.to_string(),
                key: entry.key,
                request: format!("{:016x}", entry.prompt),
                status: ending.status,
                fault,
                refused_by_quota: matches!(entry.decision, Decision::Refuse(_)),
                early: entry.early,
                told_ms: ending.told.map(millis),
                charged,
                input_tokens: entry.input_tokens,
                output_tokens: entry.output_tokens,
                cache_read_tokens: entry.cached.read,
                cache_write_tokens: entry.cached.written,
                reported_input_tokens: ending.reported.map(|(input, _)| input),
                reported_output_tokens: ending.reported.map(|(_, output)| output),
                nano_usd: entry.price.filter(|_| charged).map(|price| price.cost(entry.used())),
            }
        };
        self.log.iter().rev().take(limit).map(record).collect()
    }

    /// The distinct requests that were called most.
    pub fn requests(&self, limit: usize) -> Vec<RequestRecord> {
        let mut all: Vec<(&u64, &Request)> = self.requests.iter().collect();
        all.sort_unstable_by_key(|(hash, request)| (std::cmp::Reverse(request.calls), **hash));
        let record = |(hash, request): (&u64, &Request)| RequestRecord {
            request: format!("{hash:016x}"),
            calls: request.calls,
            answered: request.answered,
        };
        all.into_iter().take(limit).map(record).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The script in the prompt; otherwise the first rule that strikes; otherwise a good answer.
fn fault(
    scenario: &Scenario,
    name: &str,
    spec: &Provider,
    call: &Circumstances<'_>,
    nth_anywhere: u32,
) -> Result<Fault, String> {
    if scenario.markers
        && let Some(fault) = scripted(call.last_user, name, nth_anywhere, call.nth_of_request)?
    {
        return Ok(fault);
    }
    Ok(choose(&spec.faults, call).unwrap_or(Fault::new(FaultKind::Ok)))
}

impl Entry {
    fn used(&self) -> Usage {
        Usage { input: self.input_tokens, output: self.output_tokens, cached: self.cached }
    }

    fn is(&self, kind: FaultKind) -> bool {
        matches!(self.decision, Decision::Do(fault) if fault.kind == kind)
    }

    /// Whether it is an answer that a client may use.
    fn is_good(&self) -> bool {
        use FaultKind::{Json, NoUsage, Ok, Slow, SlowDrip, WrongUsage};
        matches!(self.decision, Decision::Do(fault)
            if matches!(fault.kind, Ok | Slow | SlowDrip | WrongUsage | NoUsage | Json))
    }

    fn is_refused_for_good(&self) -> bool {
        match &self.decision {
            Decision::Reject(problem) => problem.is_permanent(),
            Decision::Refuse(shortage) => shortage.is_too_large(),
            Decision::Do(fault) => fault.kind.is_permanent(),
        }
    }
}
