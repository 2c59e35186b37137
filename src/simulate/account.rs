//! The account of one provider: its figures, its buckets of quotas, its models, and the money of its keys.

use super::conduct::ToldWait;
use super::fault::FaultKind;
use super::prompt_cache::PromptCaches;
use super::quota::{Limits, Quota};
use super::scenario::{Price, Provider};
use super::verdict::Figures;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Models that are told apart when a provider takes any; the rest share one entry, so that memory is bounded.
const MAX_MODELS: usize = 1000;
/// The most buckets per provider, for the same reason: a client that makes up keys must not fill the memory.
pub(super) const MAX_SCOPES: usize = 10_000;

/// A bucket of quotas, and the waits that were told of it.
#[derive(Debug)]
pub(super) struct Scope {
    pub quota: Quota,
    pub told: ToldWait,
}

/// What one provider keeps.
#[derive(Debug)]
pub(super) struct Account {
    /// Everything but the two maps, which are kept more cheaply below.
    pub figures: Figures,
    pub statuses: Vec<(u16, u64)>,
    pub faults: Vec<u64>,
    pub scopes: HashMap<u64, Scope>,
    /// When each empty purse was first known to be empty.
    pub out_of_money: HashMap<u64, Duration>,
    /// The amount charged to each key of the scenario's list, in nano-dollars.
    pub charged: Vec<u64>,
    pub models: HashMap<String, (Arc<str>, Option<Price>)>,
    pub in_flight: u64,
    /// The beginnings of prompts that it keeps.
    pub prompts: PromptCaches,
}

impl Account {
    pub fn new(provider: &Provider) -> Self {
        Self {
            figures: Figures::default(),
            statuses: Vec::new(),
            faults: vec![0; FaultKind::ALL.len()],
            scopes: HashMap::new(),
            out_of_money: HashMap::new(),
            charged: vec![0; provider.keys.len()],
            models: provider
                .models
                .iter()
                .map(|(name, model)| (name.clone(), (Arc::from(name.as_str()), model.price)))
                .collect(),
            in_flight: 0,
            prompts: PromptCaches::default(),
        }
    }

    /// Its figures, with the two maps.
    pub fn sums(&self) -> Figures {
        let faults = FaultKind::ALL.iter().zip(&self.faults).filter(|(_, count)| **count > 0);
        Figures {
            by_status: self.statuses.iter().copied().collect(),
            by_fault: faults.map(|(kind, count)| (kind.as_str(), *count)).collect(),
            ..self.figures.clone()
        }
    }

    /// The name and price of a model. An unlisted one has no price.
    pub fn model(&mut self, asked: &str) -> (Arc<str>, Option<Price>) {
        if let Some((name, price)) = self.models.get(asked) {
            return (Arc::clone(name), *price);
        }
        let name: Arc<str> = Arc::from(asked);
        if self.models.len() < MAX_MODELS {
            self.models.insert(asked.to_owned(), (Arc::clone(&name), None));
        }
        (name, None)
    }

    /// Makes the scope if there is none; beyond the cap all share one.
    pub fn scope_key(&mut self, wanted: u64, limits: &Limits, now: Duration) -> u64 {
        let full = self.scopes.len() >= MAX_SCOPES && !self.scopes.contains_key(&wanted);
        let key = if full { 0 } else { wanted };
        self.scopes.entry(key).or_insert_with(|| Scope { quota: Quota::new(limits, now), told: ToldWait::default() });
        key
    }
}
