//! The price of any target, also of one that no route names any more: for costs that are computed again.

use super::Config;
use super::prices::{in_its_tier, priced};
use crate::domain::{Model, Target};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The models of a configuration and its catalogue, by target.
#[derive(Debug)]
pub struct PriceBook<'a> {
    config: &'a Config,
    neighbours: BTreeMap<String, Arc<BTreeMap<String, Model>>>,
    found: BTreeMap<(String, String), Option<(Target, Model)>>,
}

impl<'a> PriceBook<'a> {
    /// The book of this configuration.
    #[must_use]
    pub fn of(config: &'a Config) -> Self {
        Self { config, neighbours: BTreeMap::new(), found: BTreeMap::new() }
    }

    /// The target of a provider and a model as the ledger has them, and what it costs; `None`: nothing is known of it.
    /// A provider that is not configured is looked for in the catalogue under its name.
    pub fn find(&mut self, provider: &str, model: &str) -> Option<&(Target, Model)> {
        let key = (provider.to_owned(), model.to_owned());
        if !self.found.contains_key(&key) {
            let found = self.look(provider, model);
            self.found.insert(key.clone(), found);
        }
        self.found.get(&key).and_then(Option::as_ref)
    }

    fn look(&mut self, provider: &str, model: &str) -> Option<(Target, Model)> {
        let configured = self.config.providers.get(provider);
        let vendor = configured.and_then(|configured| configured.endpoint.vendor.as_deref()).unwrap_or(provider);
        let target = Target::new(provider.to_owned(), model.to_owned());
        let target = match configured {
            // A tier that its vendor does not have any more has no price, either.
            Some(configured) => in_its_tier(&target, &configured.endpoint).ok()?,
            None => target,
        };
        let models = &self.config.models;
        let plain = target.in_no_tier();
        let listed = || self.config.prices.catalogue.model(vendor, &target.model);
        let known = models.get(&plain).cloned().or_else(listed)?;
        let catalogue = &self.config.prices.catalogue;
        let neighbours = self
            .neighbours
            .entry(provider.to_owned())
            .or_insert_with(|| Arc::new(priced(provider, vendor, models, catalogue)));
        let mut model = Model { neighbours: Arc::clone(neighbours), ..known };
        if let Some(vendor) = crate::provider::vendors::named(vendor).filter(|_| model.served_as.is_empty()) {
            model.served_as.extend(vendor.served_as.iter().map(|&name| name.to_owned()));
        }
        Some((target, model))
    }
}
