//! `[routes.NAME]`.

use super::catalogue::Catalogue;
use super::keys::{self, TIMEOUTS};
use super::provider::{self, ReadProvider, read_timeouts};
use super::section::{Section, Table};
use super::{cascade, defaults, forks, must_keep, pack, prices, prompt_cache, rules, rungs, scalar, shadow, strategy};
use crate::domain::error_class::Fallback;
use crate::domain::request::{Pass, probably_meant};
use crate::domain::{
    Cache, ErrorClass, Model, NanoUsd, Patience, Route, Rung, Shadow, StopLoss, Strategy, Target, Tier, Timeouts,
};
use crate::provider::{Endpoint, vendors};
use config::{Value, ValueKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A route, with what commands that enqueue need.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub route: Arc<Route>,
    /// The stop-loss of batches that are enqueued by command.
    pub stop_loss: StopLoss,
}

impl RouteConfig {
    /// The rungs of the route, and the one of its shadow.
    pub fn asked(&self) -> impl Iterator<Item = &Rung> {
        let shadow = self.route.shadow.iter().flat_map(|shadow| &shadow.route.rungs);
        self.route.rungs.iter().chain(shadow)
    }
}

const RUNGS: &str = "a list of rungs such as [\"deepseek/deepseek-flash\", \"openai/gpt-4o-mini\"]";
/// The least that calls in a tier of spare capacity may take, unless the rung says otherwise.
const SPARE_TIMEOUT: Duration = Duration::from_mins(15);

const RUNG: &str = "\"provider/model\", or { target = \"provider/model\", timeouts = { total = \"2m\" } }";

/// The models whose prices are known, by provider.
type Neighbours = BTreeMap<String, Arc<BTreeMap<String, Model>>>;

pub(super) fn read_all(
    sections: Vec<(String, Section<'_>)>,
    providers: &BTreeMap<String, ReadProvider>,
    models: &mut BTreeMap<Target, Model>,
    catalogue: &Catalogue,
) -> BTreeMap<String, RouteConfig> {
    let neighbours: Neighbours = providers
        .iter()
        .map(|(name, provider)| (name.clone(), Arc::new(prices::priced(name, &provider.vendor, models, catalogue))))
        .collect();
    let leads = forks::leads(&sections);
    sections
        .into_iter()
        .map(|(name, section)| {
            let route = read_one(&name, section, providers, &neighbours, (&mut *models, catalogue), &leads);
            (name, route)
        })
        .collect()
}

fn read_one(
    name: &str,
    mut section: Section<'_>,
    providers: &BTreeMap<String, ReadProvider>,
    neighbours: &Neighbours,
    models: (&mut BTreeMap<Target, Model>, &Catalogue),
    leads: &forks::Leads,
) -> RouteConfig {
    let (models, catalogue) = models;
    let stream = section.flag_or_default("stream");
    let rungs = read_rungs(&mut section, stream, providers, neighbours, (&mut *models, catalogue));
    let cascade = cascade::read(&mut section, &rungs, providers);
    let prompt_cache = prompt_cache::read(&mut section, &rungs, providers);
    let strategy = strategy::read(&mut section, &rungs);
    let mut route = Route {
        name: name.to_owned(),
        patience: read_patience(&mut section, &strategy),
        strategy,
        rungs,
        max_attempts: section.whole_or_default("max_attempts"),
        max_cost: section.parsed("max_cost", scalar::MONEY, scalar::nano_dollars).map(NanoUsd),
        fallback_on: read_fallback(&mut section),
        rules: rules::read(section.child("validate")),
        reask: section.flag_or_default("reask"),
        pass: read_pass(&mut section),
        must_keep: must_keep::read(&mut section),
        defaults: Arc::new(defaults::read(&mut section)),
        forks: forks::read(name, &mut section, leads),
        cache: section.positive_duration("cache").map(|max_age| Cache { max_age }),
        cascade,
        prompt_cache,
        shadow: None,
        pack: pack::read(&mut section),
    };
    route.shadow = read_shadow(&mut section, &route, providers, neighbours, (models, catalogue));
    check_stream(&section, &route);
    check_max_cost(&section, &route);
    must_keep::check(&section, &route, providers);
    strategy::check(&section, &route);
    cascade::check(&section, &route);
    pack::check(&section, &route, providers);
    rungs::check(&section, &route);
    let stop_loss =
        StopLoss { max_failed: section.max_failed("max_failed"), max_wasted: section.max_failed("max_wasted") };
    section.finish();
    RouteConfig { route: Arc::new(route), stop_loss }
}

/// What has no price fits no bound.
fn check_max_cost(section: &Section<'_>, route: &Route) {
    if route.max_cost.is_none() {
        return;
    }
    let key = section.key_in_file("max_cost");
    for rung in route.rungs.iter().filter(|rung| !rung.is_priced()) {
        let target = &rung.target;
        section.reading().warn(format!(
            "{key}: {target} has no price, so no job of this route is ever sent there: give it one \
             ([models.\"{target}\"], docs/prices.md)"
        ));
    }
}

/// Vectors come whole, so a stream of them is a mistake where it is certain, and worth a warning where a name says so.
fn check_stream(section: &Section<'_>, route: &Route) {
    if !route.rungs.iter().any(|rung| rung.stream) {
        return;
    }
    if defaults::asks_for_vectors(&route.defaults) {
        let problem = "the route asks for embeddings, which come in one piece";
        return section.fault("stream", problem, "no such key, or false");
    }
    let is_for_vectors = |rung: &&Rung| rung.stream && rung.target.model.to_ascii_lowercase().contains("embed");
    for rung in route.rungs.iter().filter(is_for_vectors) {
        let key = section.key_in_file("stream");
        section.reading().warn(format!(
            "{key}: it makes no difference to embeddings, which come in one piece, and {} seems to make no others",
            rung.target
        ));
    }
}

fn read_rungs(
    section: &mut Section<'_>,
    stream: bool,
    providers: &BTreeMap<String, ReadProvider>,
    neighbours: &Neighbours,
    (models, catalogue): (&mut BTreeMap<Target, Model>, &Catalogue),
) -> Vec<Rung> {
    let is_missing = !section.has("rungs");
    let values = section.list("rungs", RUNGS);
    if is_missing || values.as_ref().is_some_and(Vec::is_empty) {
        section.fault("rungs", "the route has no rungs", RUNGS);
    }
    let mut rungs: Vec<Rung> = Vec::new();
    for (index, value) in values.into_iter().flatten().enumerate() {
        let key = format!("rungs[{index}]");
        let Some((target, timeouts, own_stream)) = read_rung(section, &key, value) else { continue };
        let written = (&target, timeouts, own_stream.unwrap_or(stream));
        let rung = rung_of(section, &key, written, providers, neighbours, (&mut *models, catalogue));
        let Some(rung) = rung else { continue };
        if rungs.iter().any(|known| known.target == rung.target) {
            section.fault(&key, format!("{} is a rung of this route already", rung.target), "each target once");
        }
        rungs.push(rung);
    }
    rungs
}

/// The rung of a target that stands under this key; `None`: there is no such target.
fn rung_of(
    section: &Section<'_>,
    key: &str,
    (target, timeouts, stream): (&Target, Table, bool),
    providers: &BTreeMap<String, ReadProvider>,
    neighbours: &Neighbours,
    (models, catalogue): (&mut BTreeMap<Target, Model>, &Catalogue),
) -> Option<Rung> {
    let Some(provider) = providers.get(&target.provider) else {
        let expected = match scalar::nearest(&target.provider, provider::names(providers)) {
            Some(near) => format!("perhaps {near}"),
            None => format!("a section [providers.{}]", target.provider),
        };
        section.fault(key, format!("there is no provider {:?}", target.provider), expected);
        return None;
    };
    let target = match prices::in_its_tier(target, &provider.config.endpoint) {
        Ok(target) => target,
        Err((problem, expected)) => {
            section.fault(key, problem, expected);
            return None;
        }
    };
    let timeouts = read_timeouts(
        section.nested(&format!("{key}.timeouts"), &TIMEOUTS, timeouts),
        Some(usual_timeouts(&provider.config.endpoint, target.tier)),
    );
    let model = models
        .entry(target.in_no_tier())
        .or_insert_with(|| catalogue.model(&provider.vendor, &target.model).unwrap_or_default())
        .clone();
    let mut model = Model { neighbours: neighbours.get(&target.provider).cloned().unwrap_or_default(), ..model };
    if !provider.config.endpoint.dialect.hears {
        model.capabilities.audio = Some(false);
    }
    let endpoint = &provider.config.endpoint;
    model.capabilities.ignores_cap = endpoint.leaves_out_cap(&target.model, &model.capabilities);
    model.capabilities.unsent_extras = endpoint.unsent_extras(&target.model, &model.capabilities);
    if let Some(vendor) = vendors::named(&provider.vendor).filter(|_| model.served_as.is_empty()) {
        model.served_as.extend(vendor.served_as.iter().map(|&name| name.to_owned()));
    }
    Some(Rung { target, model, timeouts, stream })
}

/// The shadow of a route; `None`: it has none, or a faulty one.
fn read_shadow(
    section: &mut Section<'_>,
    route: &Route,
    providers: &BTreeMap<String, ReadProvider>,
    neighbours: &Neighbours,
    models: (&mut BTreeMap<Target, Model>, &Catalogue),
) -> Option<Shadow> {
    if !section.has("shadow") {
        return None;
    }
    let mut table = section.child("shadow");
    let written = shadow::read(&mut table);
    let stream = route.rungs.first().is_some_and(|rung| rung.stream);
    let rung = written
        .target
        .and_then(|target| rung_of(&table, "target", (&target, Table::new(), stream), providers, neighbours, models));
    if let Some(rung) = &rung {
        shadow::check(&table, &route.name, &route.rungs, rung);
    }
    table.finish();
    Some(Shadow::of(route, rung?, written.share?, written.limit?))
}

/// The timeouts of a rung that has none of its own. Spare capacity is slow, and a call that is given up may be billed.
fn usual_timeouts(endpoint: &Endpoint, tier: Option<Tier>) -> Timeouts {
    let usual = endpoint.timeouts;
    if !tier.is_some_and(|tier| tier.is_spare) {
        return usual;
    }
    let (first_byte, total) = (usual.first_byte.max(SPARE_TIMEOUT), usual.total.max(SPARE_TIMEOUT));
    Timeouts { first_byte, total, ..usual }
}

/// Reads a rung: its target, its table of timeouts, and whether it says itself that it is streamed or not.
fn read_rung(section: &Section<'_>, key: &str, value: Value) -> Option<(Target, Table, Option<bool>)> {
    match value.kind {
        ValueKind::String(text) => {
            let target = Target::parse(&text);
            if target.is_none() {
                section.fault(key, format!("{text:?} has no provider or no model"), RUNG);
            }
            Some((target?, Table::new(), None))
        }
        ValueKind::Table(table) => {
            let mut rung = section.nested(key, &keys::RUNG, table.into_iter().collect());
            let is_missing = !rung.has("target");
            let target = rung.parsed("target", "\"provider/model\"", |text| {
                Target::parse(text).ok_or_else(|| format!("{text:?} has no provider or no model"))
            });
            if is_missing {
                rung.fault("target", "is missing", "\"provider/model\"");
            }
            let (timeouts, stream) = (rung.table("timeouts"), rung.flag("stream"));
            rung.finish();
            Some((target?, timeouts, stream))
        }
        _ => {
            section.fault(key, "is not a rung", RUNG);
            None
        }
    }
}

fn read_pass(section: &mut Section<'_>) -> Pass {
    const EXPECTED: &str = "a list of members such as [\"service_tier\", \"tools.web_search\"], or [\"*\"]";
    let names = section.parsed_list("pass", EXPECTED, |name| match name {
        "model" | "stream" | "n" => Err(format!("{name:?} is never taken from a request")),
        name if name.trim().is_empty() => Err("is empty".to_owned()),
        name => Ok(name.to_owned()),
    });
    let names = names.unwrap_or_default();
    for name in &names {
        if let Some(meant) = probably_meant(name) {
            let key = section.key_in_file("pass");
            section.reading().warn(format!("{key}: no provider is known to take {name:?}; perhaps {meant:?} is meant"));
        }
    }
    Pass::of(names)
}

/// The names of the classes that may let a job move on.
pub(super) fn classes() -> Vec<&'static str> {
    ErrorClass::ALL.iter().map(|class| class.as_str()).collect()
}

/// The classes that let a job move on unless the route says otherwise.
pub(super) fn fallback_classes() -> Vec<&'static str> {
    // Classes that go along with another one are not listed by themselves.
    let by_default = ErrorClass::fallen_back_on_by_default();
    let goes_along = |class: &&ErrorClass| matches!(class.facts().fallback, Fallback::As(_));
    let listed = ErrorClass::ALL.iter().filter(|class| by_default.contains(class) && !goes_along(class));
    listed.map(|class| class.as_str()).collect()
}

/// How long jobs wait for a better rung where the route does not say.
const USUAL_PATIENCE: Duration = Duration::from_mins(10);

/// A race joins a rung that does not answer by the next one after a time. A rung that is closed is no better, so a job
/// waits no longer for it unless the route says so.
fn read_patience(section: &mut Section<'_>, strategy: &Strategy) -> Patience {
    let expected = format!("{}, or \"forever\"", scalar::DURATION);
    let read = section.parsed("patience", &expected, |text| match text {
        "forever" => Ok(Patience::Forever),
        text => scalar::duration(text).map(Patience::For),
    });
    read.unwrap_or_else(|| {
        Patience::For(match strategy {
            Strategy::Race(race) => race.after.min(USUAL_PATIENCE),
            _ => USUAL_PATIENCE,
        })
    })
}

fn read_fallback(section: &mut Section<'_>) -> BTreeSet<ErrorClass> {
    let never = section.parsed("fallback", "\"never\", or no such key", |text| match text {
        "never" => Ok(()),
        other => Err(format!("{other:?} is not a rule for fallbacks")),
    });
    let known = classes();
    let listed = section.parsed_list("fallback_on", &format!("a list of {}", known.join(", ")), |text| {
        text.parse().map_err(|()| match scalar::nearest(text, known.iter().copied()) {
            Some(near) => format!("{text:?} is not an error class; perhaps {near:?} is meant"),
            None => format!("{text:?} is not an error class"),
        })
    });
    if never.is_some() {
        if listed.is_some() {
            section.fault("fallback", "there is a list fallback_on too", "only one of the two");
        }
        return BTreeSet::new();
    }
    listed.map_or_else(ErrorClass::fallen_back_on_by_default, |classes| {
        ErrorClass::with_those_that_go_along(classes.into_iter().collect())
    })
}
