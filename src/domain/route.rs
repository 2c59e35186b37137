//! Routes: chains of targets with the rules for moving along them.

use super::cache::Cache;
use super::cascade::Cascade;
use super::defaults::Defaults;
use super::error_class::{ErrorClass, Fallback};
use super::estimate;
use super::fork::Fork;
use super::job::Job;
use super::metadata::Metadata;
use super::money::NanoUsd;
use super::must_keep::MustKeep;
use super::pack::Packing;
use super::prefix::PromptCaching;
use super::price::{PriceChange, PriceTerms, Tariff};
use super::request::{AskedTier, Pass};
use super::shadow::Shadow;
use super::shut::Reason;
use super::strategy;
use super::tier::Tier;
use super::timeouts::Timeouts;
use super::timestamp::Timestamp;
use super::validation::Rules;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A provider, one of its models, and the tier that is asked for: written `provider/model`, or `provider/model@tier`.
/// The model's name may contain slashes.
///
/// The same model in another tier is another target: it has health, pace and history of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The model's name as the provider knows it.
    pub model: String,
    /// The tier that calls ask for; `None`: they name none.
    pub tier: Option<Tier>,
}

impl Target {
    /// A model that is asked for in no tier by name.
    #[must_use]
    pub fn new(provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self { provider: provider.into(), model: model.into(), tier: None }
    }

    /// Splits at the first slash; `None` without one, or with an empty side. A suffix that may be a tier is left in the
    /// model's name, because only the vendor's tiers tell it from that: [`tier::split`](super::tier::split).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, model) = text.split_once('/')?;
        (!provider.is_empty() && !model.is_empty()).then(|| Self::new(provider, model))
    }

    /// The same model, without a tier.
    #[must_use]
    pub fn in_no_tier(&self) -> Self {
        Self { tier: None, ..self.clone() }
    }

    /// The model as rows, reports and metrics name it: with its tier.
    #[must_use]
    pub fn model_and_tier(&self) -> Cow<'_, str> {
        match self.tier {
            Some(tier) => Cow::Owned(format!("{}@{tier}", self.model)),
            None => Cow::Borrowed(&self.model),
        }
    }

    /// The provider, and the model with its tier: the two columns of every row that names a target.
    #[must_use]
    pub fn columns(&self) -> (String, String) {
        (self.provider.clone(), self.model_and_tier().into_owned())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model_and_tier())
    }
}

/// The order in which a job tries the rungs.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Strategy {
    /// The cheapest expected price for this request first; unknown prices last.
    #[default]
    Cost,
    /// As listed (active and stand-by).
    Priority,
    /// Each job draws by these weights, a finite one at least 0 for each rung in listed order. A rung of weight 0 comes
    /// after all that have one.
    Weighted(Arc<[f64]>),
    /// The rung whose limits have the most room, relative to what they hold when full, first.
    Balanced,
    /// The rung that is expected to have answered soonest first.
    Fastest,
    /// The same rung first for all jobs that have the same key.
    Sticky(StickyBy),
    /// As [`Cost`](Self::Cost); a rung that is slow to answer is not waited for: the next one is asked beside it, and
    /// the first answer that is accepted wins.
    Race(Race),
}

impl Strategy {
    /// Which of the strategies it is.
    #[must_use]
    pub const fn kind(&self) -> StrategyKind {
        match self {
            Self::Cost => StrategyKind::Cost,
            Self::Priority => StrategyKind::Priority,
            Self::Weighted(_) => StrategyKind::Weighted,
            Self::Balanced => StrategyKind::Balanced,
            Self::Fastest => StrategyKind::Fastest,
            Self::Sticky(_) => StrategyKind::Sticky,
            Self::Race(_) => StrategyKind::Race,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// A strategy without its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrategyKind {
    Cost,
    Priority,
    Weighted,
    Balanced,
    Fastest,
    Sticky,
    Race,
}

impl StrategyKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Cost, Self::Priority, Self::Weighted, Self::Balanced, Self::Fastest, Self::Sticky, Self::Race];

    /// Its name in the configuration and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Priority => "priority",
            Self::Weighted => "weighted",
            Self::Balanced => "balanced",
            Self::Fastest => "fastest",
            Self::Sticky => "sticky",
            Self::Race => "race",
        }
    }

    /// The strategy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The pace at which a job asks several rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    /// How long a call goes on before the next rung is asked beside it.
    pub after: Duration,
    /// Calls of one job that are under way at a time, at most.
    pub at_most: u16,
}

/// The key by which jobs stick to a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// The batch, within its project.
    Batch,
    Project,
    /// A member of the job's metadata.
    Metadata(String),
}

impl fmt::Display for StickyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("batch"),
            Self::Project => f.write_str("project"),
            Self::Metadata(member) => write!(f, "metadata.{member}"),
        }
    }
}

/// How long a job may wait for a cheaper rung before a dearer one may take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// At most this long; zero: never wait.
    For(Duration),
    /// As long as it takes.
    Forever,
}

/// The abilities of a model. `None` means unknown, which is taken as "yes" and "no limit".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Tokens that prompt and answer together may have.
    pub context_window: Option<i64>,
    /// Tokens that an answer may have.
    pub max_output_tokens: Option<i64>,
    /// Takes a JSON schema for its answer.
    pub json_schema: Option<bool>,
    pub tools: Option<bool>,
    pub images: Option<bool>,
    pub files: Option<bool>,
    pub audio: Option<bool>,
    /// Takes `temperature` and `top_p`; if not, they are dropped and the drop is recorded.
    pub temperature: Option<bool>,
    /// Whether its answers have no cap although the request sets one, because it is not sent along.
    pub ignores_cap: bool,
    /// The members that change what a call costs ([`Extras`](super::request::Extras)) and are not sent along.
    pub unsent_extras: BTreeSet<&'static str>,
}

/// A model as configured: its price and its abilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// What it has cost since ever, or until the first of the changes. Without a price the costs are NULL and an alert
    /// is raised.
    pub terms: PriceTerms,
    /// What it costs from certain days on, the earliest first.
    pub changes: Vec<PriceChange>,
    pub capabilities: Capabilities,
    /// How many tokens of a limit of all tokens one token of output takes; `None`: the provider's rule decides.
    pub output_burndown: Option<u32>,
    /// Names that its answers may give as their model, beside its own; `*` stands for any.
    pub served_as: Vec<String>,
    /// The models of the same provider whose prices are known, by name: one of them may answer in place of this one.
    pub neighbours: Arc<BTreeMap<String, Model>>,
}

impl Model {
    /// What it costs at this instant.
    #[must_use]
    pub fn terms_at(&self, at: Timestamp) -> &PriceTerms {
        let last = self.changes.iter().rev().find(|change| change.from <= at);
        last.map_or(&self.terms, |change| &change.terms)
    }

    /// The price in this tier of a call that is made at this instant; `None`: unknown.
    #[must_use]
    pub fn price_at(&self, tier: Option<&str>, at: Timestamp) -> Option<Tariff> {
        self.terms_at(at).price_at(tier, at)
    }

    /// All terms that it has or will have.
    pub fn all_terms(&self) -> impl Iterator<Item = &PriceTerms> {
        std::iter::once(&self.terms).chain(self.changes.iter().map(|change| &change.terms))
    }

    /// Whether it has a price at some time.
    #[must_use]
    pub fn is_priced(&self) -> bool {
        self.all_terms().any(|terms| terms.price.is_some())
    }

    /// Whether it costs nothing, at any time.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.all_terms().all(|terms| {
            terms
                .price
                .as_ref()
                .is_some_and(|price| price.above.is_empty() && price.usual.input == 0 && price.usual.output == 0)
        })
    }
}

/// One alternative of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    pub target: Target,
    /// Its price and abilities.
    pub model: Model,
    /// How long one call may take.
    pub timeouts: Timeouts,
    /// Whether its answers are asked for as streams, so that one that stalls or breaks off is seen at once. Vectors
    /// come whole all the same.
    pub stream: bool,
}

impl Rung {
    /// The price of a call at this instant, in the tier that it asks for; `None`: unknown.
    #[must_use]
    pub fn price_at(&self, at: Timestamp) -> Option<Tariff> {
        self.model.price_at(self.tier(), at)
    }

    /// The price on this day outside the peak hours, in the tier that it asks for; `None`: unknown, or the same at all
    /// hours.
    #[must_use]
    pub fn off_peak_price(&self, day: Timestamp) -> Option<Tariff> {
        self.model.terms_at(day).off_peak_price(self.tier())
    }

    /// The price on this day in the peak hours, in the tier that it asks for; `None`: unknown.
    #[must_use]
    pub fn peak_price(&self, day: Timestamp) -> Option<Tariff> {
        self.model.terms_at(day).peak_price(self.tier())
    }

    /// All prices that a call for the job can have from this instant on, at any hour and whenever it is made, in every
    /// tier that may serve it. `None`: a tier that its request asks for has none.
    #[must_use]
    pub fn prices_from(&self, job: &Job, at: Timestamp) -> Option<Vec<Tariff>> {
        let later = self.model.changes.iter().filter(|change| change.from > at).map(|change| &change.terms);
        let mut prices = Vec::new();
        for terms in std::iter::once(self.model.terms_at(at)).chain(later).filter(|terms| terms.price.is_some()) {
            for tier in self.tiers_of(job, terms) {
                let before = prices.len();
                prices.extend(terms.prices(tier));
                if prices.len() == before && tier != self.tier() {
                    return None;
                }
            }
        }
        Some(prices)
    }

    /// The most that a call for the job costs at this instant ([`estimate::worst_cost`]), in the dearest tier that may
    /// serve it; `None`: the price is unknown.
    #[must_use]
    pub fn worst_cost(&self, job: &Job, at: Timestamp) -> Option<NanoUsd> {
        let terms = self.model.terms_at(at);
        self.tiers_of(job, terms).into_iter().try_fold(NanoUsd::ZERO, |dearest, tier| {
            let price = terms.price_at(tier, at)?;
            Some(dearest.max(estimate::worst_cost(&price, &self.model.capabilities, job)))
        })
    }

    /// The tiers in which a call for the job may be served: that of the rung; or else the usual one, which a vendor
    /// falls back to, and what the request asks for.
    fn tiers_of<'a>(&self, job: &'a Job, terms: &'a PriceTerms) -> Vec<Option<&'a str>> {
        const OF_BATCHES: &str = "batch";
        let mut tiers = vec![self.tier()];
        // What costs nothing costs nothing in any tier.
        if self.target.tier.is_some() || job.extras.is_plain() || self.model.is_free() {
            return tiers;
        }
        for asked in job.extras.tiers(&self.model.capabilities.unsent_extras) {
            match asked {
                AskedTier::Any => tiers.extend(terms.tiers.keys().map(|tier| Some(tier.as_str()))),
                AskedTier::Named(word) => tiers.push(Some(word)),
            }
        }
        // No single call is sold in that one.
        tiers.retain(|tier| *tier != Some(OF_BATCHES));
        tiers
    }

    /// Whether the tier that it asks for has a price at some time.
    #[must_use]
    pub fn is_priced(&self) -> bool {
        self.model.all_terms().any(|terms| terms.peak_price(self.tier()).is_some())
    }

    fn tier(&self) -> Option<&'static str> {
        self.target.tier.map(|tier| tier.name)
    }
}

/// A named policy.
#[derive(Clone, Debug)]
pub struct Route {
    /// The route's name, as jobs give it.
    pub name: String,
    /// The alternatives in listed order; never empty.
    pub rungs: Vec<Rung>,
    /// The order in which they are tried.
    pub strategy: Strategy,
    /// How long to wait for a cheaper one.
    pub patience: Patience,
    /// Attempts that count, per job (waiting for a limit does not count).
    pub max_attempts: u16,
    /// The most that the calls of one job may cost together, in each of its rounds; `None`: as much as its attempts do.
    pub max_cost: Option<NanoUsd>,
    /// The classes that let a job move on to another rung; see [`falls_back_on`](Self::falls_back_on). If empty, a job
    /// never moves on.
    pub fallback_on: BTreeSet<ErrorClass>,
    /// The rules that an answer has to keep.
    pub rules: Rules,
    /// Whether a rung whose answer was rejected is asked once more with the fault named.
    pub reask: bool,
    /// Members of requests that choose what the route pays for, and are sent all the same.
    pub pass: Pass,
    /// Members of requests that no rung may leave out.
    pub must_keep: MustKeep,
    /// What it adds to requests that lack it.
    pub defaults: Arc<Defaults>,
    /// The rules that send some of its jobs along other routes: the first that holds decides.
    pub forks: Vec<Fork>,
    /// Whether and how long answers are given again to jobs with the same request; `None`: each job is asked for.
    pub cache: Option<Cache>,
    /// Whether a job goes on from a rung that is not sure enough of its answer; `None`: it does not.
    pub cascade: Option<Cascade>,
    /// Whether and how the prompt caches of its providers are used; `None`: nothing is done about them.
    pub prompt_cache: Option<PromptCaching>,
    /// The target that is asked beside, and never for the answer; `None`: there is none.
    pub shadow: Option<Shadow>,
    /// How its requests for embeddings share calls; `None`: each is a call of its own.
    pub pack: Option<Packing>,
}

#[cfg(test)]
impl Route {
    /// A route of these rungs with nothing that a configuration leaves out: in listed order, waiting for ever, one
    /// attempt.
    pub(crate) fn plain(name: &str, rungs: Vec<Rung>) -> Self {
        Self {
            name: name.to_owned(),
            rungs,
            strategy: Strategy::Priority,
            patience: Patience::Forever,
            max_attempts: 1,
            max_cost: None,
            fallback_on: ErrorClass::fallen_back_on_by_default(),
            rules: Rules::default(),
            reask: false,
            pass: Pass::default(),
            must_keep: MustKeep::default(),
            defaults: Arc::default(),
            forks: Vec::new(),
            cache: None,
            cascade: None,
            prompt_cache: None,
            shadow: None,
            pack: None,
        }
    }
}

impl Route {
    /// Whether a job may leave a rung because of a failure of this class.
    #[must_use]
    pub fn falls_back_on(&self, class: ErrorClass) -> bool {
        let is_always = class.facts().fallback == Fallback::Always;
        self.fallback_on.contains(&class) || (is_always && !self.fallback_on.is_empty())
    }

    /// Hash of the key by which a job of this project and batch sticks to a rung, where the route has one and the job
    /// has that; `metadata` are the members that routes look at.
    #[must_use]
    pub fn sticky(&self, project: &str, batch: Option<&str>, metadata: &Metadata) -> Option<u64> {
        let Strategy::Sticky(by) = &self.strategy else { return None };
        let key = match by {
            // A batch belongs to its project.
            StickyBy::Batch => strategy::hash_of(&format!("{project}\0{}", batch?)),
            StickyBy::Project => strategy::hash_of(project),
            StickyBy::Metadata(member) => strategy::hash_of(metadata.get(member)?),
        };
        Some(key)
    }

    /// The members of a job's metadata that the route looks at.
    pub fn looks_at(&self) -> impl Iterator<Item = &str> {
        let by = match &self.strategy {
            Strategy::Sticky(StickyBy::Metadata(member)) => Some(member.as_str()),
            _ => None,
        };
        by.into_iter().chain(self.forks.iter().flat_map(|fork| fork.when.metadata.keys().map(String::as_str)))
    }

    /// Whether a job may leave a rung that is shut for this reason.
    #[must_use]
    pub fn leaves(&self, reason: Reason) -> bool {
        let may = |&class: &ErrorClass| reason.follows_from(class) && self.falls_back_on(class);
        // The operator who pauses a provider, or gives it a budget, wants its work done elsewhere, and a dear hour is
        // no failure.
        matches!(reason, Reason::Paused | Reason::PeakHours | Reason::Budget) || ErrorClass::ALL.iter().any(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::{Factor, Price, TierPrice};
    use crate::domain::request::Extras;
    use crate::domain::{ChatRequest, JobId};
    use serde_json::{Value, json};

    fn rung(tiers: &[(&str, i64)]) -> Rung {
        let tiers =
            tiers.iter().map(|(name, times)| ((*name).to_owned(), TierPrice::Times(Factor(times * 1_000_000_000))));
        let terms = PriceTerms {
            price: Some(Price::plain(1_000_000_000, 1_000_000_000).into()),
            tiers: tiers.collect(),
            ..PriceTerms::default()
        };
        Rung {
            target: Target::new("p", "m"),
            model: Model { terms, ..Model::default() },
            timeouts: Timeouts::of(Duration::from_mins(1)),
            stream: false,
        }
    }

    /// The worst case of a call with 1,000 tokens of output, in thousands of nano-dollars; the prompt is left out.
    fn worst(rung: &Rung, members: &Value) -> Option<i64> {
        let mut body = json!({ "messages": [{ "role": "user", "content": "a" }], "max_tokens": 1_000 });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let request = ChatRequest::parse(&body).unwrap();
        let job = Job {
            id: JobId(1),
            ready_at: Timestamp(0),
            deadline: None,
            max_attempts: None,
            input_tokens: 0,
            max_output_tokens: request.max_tokens,
            sticky: None,
            extras: Extras::of(&request, &Pass::of(["*".to_owned()])),
        };
        let prices = rung.prices_from(&job, Timestamp(0));
        let worst = rung.worst_cost(&job, Timestamp(0));
        // What an estimate of a file counts with is no less.
        let output = estimate::most_output_of_all(&rung.model.capabilities, &job, job.max_output_tokens);
        let dearest = |prices: Vec<Tariff>| prices.iter().map(|price| estimate::dearest_cost(price, 1, output)).max();
        assert_eq!(prices.and_then(dearest), worst, "{members}");
        worst.map(|worst| worst.0 / 1_000_000)
    }

    #[test]
    fn the_worst_case_is_that_of_the_dearest_tier_and_of_all_answers_that_the_request_asks_for() {
        let sold = rung(&[("priority", 3), ("scale", 5), ("batch", 9)]);
        for (members, expected) in [
            (json!({}), Some(1)),
            (json!({ "service_tier": "priority" }), Some(3)),
            (json!({ "service_tier": "fast" }), Some(3)),
            // A vendor that does not take the cheaper tier serves the usual one.
            (json!({ "service_tier": "default" }), Some(1)),
            (json!({ "service_tier": "auto" }), Some(5)),
            (json!({ "best_of": 4 }), Some(4)),
            (json!({ "best_of": 4, "service_tier": "priority" }), Some(12)),
            (json!({ "extra_body": { "candidateCount": 2, "service_tier": "scale" } }), Some(10)),
            // Its price is not known.
            (json!({ "service_tier": "gold" }), None),
        ] {
            assert_eq!(worst(&sold, &members), expected, "{members}");
        }
        let both = json!({ "best_of": 4, "service_tier": "priority" });
        // The rung's own tier goes in place of the request's.
        let mut of_rung = sold.clone();
        of_rung.target.tier = Some(Tier::new("scale"));
        assert_eq!(worst(&of_rung, &both), Some(20));
        // What is not sent costs nothing, and neither does a model that is free.
        let mut deaf = sold.clone();
        deaf.model.capabilities.unsent_extras = BTreeSet::from(["best_of", "service_tier"]);
        assert_eq!(worst(&deaf, &both), Some(1));
        let mut free = rung(&[]);
        free.model.terms.price = Some(Price::plain(0, 0).into());
        assert_eq!(worst(&free, &json!({ "service_tier": "gold" })), Some(0));
        // Half the price, if it is served.
        let mut cheap = sold;
        cheap.model.terms.tiers = [("flex".to_owned(), TierPrice::Times(Factor(500_000_000)))].into();
        assert_eq!(worst(&cheap, &json!({ "service_tier": "flex" })), Some(1));
    }
}
