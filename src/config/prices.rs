//! The prices and capabilities of models: `[models."provider/model"]` over the catalogue.
//!
//! The catalogue is keyed by vendor and the vendor's name of the model. A provider's vendor is its `vendor`, or its own
//! name. So `[providers.openai]` finds the prices of OpenAI, and an account that is called `openai_team_b` finds them
//! with `vendor = "openai"`.

use super::catalogue::Catalogue;
use super::keys;
use super::provider::{self, ReadProvider};
use super::scalar::{self, MONEY};
use super::section::{Reading, Section, Table, join, quote};
use crate::domain::price::{Above, Factor, OffPeak, Price, PriceChange, PriceTerms, Tariff, TierPrice, special_tier};
use crate::domain::tier::{self, NoTier};
use crate::domain::{Capabilities, Hours, Limits, Model, Target, Timestamp};
use crate::provider::{Endpoint, vendors};
use chrono::{Datelike as _, NaiveDate, NaiveTime};
use config::ValueKind;
use std::collections::{BTreeMap, BTreeSet};

/// The target with the tier that its name asks for, where the provider's vendor has that.
///
/// # Errors
/// The tier cannot be asked for: the fault, and the form expected in its place.
pub(super) fn in_its_tier(target: &Target, endpoint: &Endpoint) -> Result<Target, (String, String)> {
    let tiers = endpoint.tiers().list;
    let (model, why) = match tier::split(&target.model, tiers, &vendors::all_tiers()) {
        Ok((model, tier)) => return Ok(Target { model: model.to_owned(), tier, ..target.clone() }),
        Err(why) => (target.model.rsplit_once('@').map_or("", |(model, _)| model), why),
    };
    let provider = &target.provider;
    let names: Vec<&str> = tiers.iter().map(|tier| tier.name).collect();
    let plain = format!("{provider}/{}", if model.is_empty() { "MODEL" } else { model });
    let (problem, near) = match &why {
        NoTier::Empty => (format!("{target:?} has no tier behind its @", target = target.to_string()), None),
        NoTier::NoModel => (format!("{target:?} has no model before its @", target = target.to_string()), None),
        NoTier::Twice => (format!("{target:?} asks for two tiers", target = target.to_string()), None),
        NoTier::Unknown(word) => {
            let near = scalar::nearest(&word.trim().to_ascii_lowercase(), names.iter().copied());
            (format!("{provider} has no tier {word:?}"), near)
        }
        NoTier::NoneHere(word) => {
            (format!("the tier {word:?} is not known of {provider}, nor is any other tier"), None)
        }
    };
    let expected = match near {
        _ if names.is_empty() => plain,
        Some(near) => format!("perhaps {plain}@{near}; its tiers are {}", names.join(", ")),
        None => format!("{plain}, or a tier behind the @: {}", names.join(", ")),
    };
    Err((problem, expected))
}

/// The content of `[models]`.
#[derive(Default)]
pub(super) struct ReadModels {
    pub models: BTreeMap<Target, Model>,
    /// The buckets of models whose limits are not their provider's.
    pub buckets: BTreeMap<Target, String>,
}

/// Reads `[models]`: each entry over that of the catalogue.
pub(super) fn read_models(
    table: Table,
    reading: &Reading,
    providers: &BTreeMap<String, ReadProvider>,
    buckets: &mut BTreeMap<String, Limits>,
    catalogue: &Catalogue,
) -> ReadModels {
    let root = Section::new(reading, "models".to_owned(), &keys::FREE, Table::new());
    let mut read = ReadModels::default();
    for (name, value) in table {
        let path = quote(&name);
        let Some(target) = Target::parse(&name) else {
            root.fault(&path, "has no provider or no model", "[models.\"provider/model\"]");
            continue;
        };
        let ValueKind::Table(entries) = value.kind else {
            root.fault(&path, "is not a table", "for example price = { input = \"0.15\", output = \"0.60\" }");
            continue;
        };
        let vendor = providers.get(&target.provider).map(|provider| provider.vendor.as_str());
        if vendor.is_none() {
            let hint = scalar::nearest(&target.provider, provider::names(providers))
                .map_or_else(String::new, |near| format!("; perhaps {near} is meant"));
            reading.warn(format!("[models.{path}] is not used: there is no provider {}{hint}", target.provider));
        }
        if let Some(provider) = providers.get(&target.provider) {
            match in_its_tier(&target, &provider.config.endpoint) {
                Ok(target) if target.tier.is_none() => {}
                Ok(target) => {
                    let model = target.in_no_tier();
                    let expected = format!("the tier's price among `tiers` of [models.\"{model}\"]");
                    root.fault(&path, "names a tier: settings are those of the model, whatever the tier", expected);
                    continue;
                }
                Err((problem, expected)) => {
                    root.fault(&path, problem, expected);
                    continue;
                }
            }
        }
        let known = vendor.and_then(|vendor| catalogue.model(vendor, &target.model)).unwrap_or_default();
        let mut section = root.nested(&path, &keys::MODEL, entries.into_iter().collect());
        let model = read_model(&mut section, known);
        if section.has("bucket") || section.has("limits") {
            read.buckets.insert(target.clone(), provider::read_bucket(&name, &mut section, buckets));
        }
        section.finish();
        read.models.insert(target, model);
    }
    read
}

/// The model as the section sets it, over the known values.
pub(super) fn read_model(section: &mut Section<'_>, known: Model) -> Model {
    let capabilities = known.capabilities;
    let set = SetTerms::read(section);
    let terms = set.over(section, known.terms);
    let changes = match read_changes(section, &terms) {
        Some(changes) => changes,
        // What the list says of later days is no more about this price than what it says of today.
        None if set.price.is_some() => Vec::new(),
        None => {
            let with = |change: PriceChange| PriceChange { terms: set.over(section, change.terms), ..change };
            known.changes.into_iter().map(with).collect()
        }
    };
    Model {
        terms,
        changes,
        output_burndown: section.whole("output_burndown").or(known.output_burndown),
        served_as: read_served_as(section).unwrap_or(known.served_as),
        neighbours: known.neighbours,
        capabilities: Capabilities {
            context_window: section.whole("context_window").or(capabilities.context_window),
            max_output_tokens: section.whole("max_output_tokens").or(capabilities.max_output_tokens),
            json_schema: section.flag("json_schema").or(capabilities.json_schema),
            tools: section.flag("tools").or(capabilities.tools),
            images: section.flag("images").or(capabilities.images),
            files: section.flag("files").or(capabilities.files),
            audio: section.flag("audio").or(capabilities.audio),
            temperature: section.flag("temperature").or(capabilities.temperature),
            ignores_cap: false,
            unsent_extras: BTreeSet::new(),
        },
    }
}

/// What a table sets of the terms of a model.
struct SetTerms {
    price: Option<Tariff>,
    tiers: BTreeMap<String, TierPrice>,
    peak: Option<Hours>,
    off_peak: Option<TierPrice>,
    /// Of `peak_hours` and `off_peak`, the one that is written down.
    says: (bool, bool),
}

const HOURS: &str = "hours of UTC such as [\"mon-fri 01:00-04:00\", \"22:00-06:00\"]";

impl SetTerms {
    fn read(section: &mut Section<'_>) -> Self {
        let price = read_tariff(section.child("price"));
        let tiers = read_tiers(section);
        let says = (section.has("peak_hours"), section.has("off_peak"));
        Self { price, tiers, says, peak: read_peak_hours(section), off_peak: read_off_peak(section) }
    }

    /// The known terms, overridden by the set ones. List prices of tiers and hours do not apply beside a price that is
    /// not the list's; multiples of the price do.
    fn over(&self, section: &Section<'_>, known: PriceTerms) -> PriceTerms {
        let is_multiple = |price: &TierPrice| matches!(price, TierPrice::Times(_));
        let mut tiers = known.tiers;
        if self.price.is_some() {
            tiers.retain(|_, tier| is_multiple(tier));
        }
        tiers.extend(self.tiers.iter().map(|(name, price)| (name.clone(), price.clone())));
        let known_hours = known.off_peak.filter(|other| self.price.is_none() || is_multiple(&other.price));
        let (known_peak, known_price) = known_hours.map(|known| (known.peak, known.price)).unzip();
        let peak = self.peak.clone().or(known_peak);
        let off_peak = match (peak, self.off_peak.clone().or(known_price)) {
            (Some(peak), Some(price)) => {
                if self.says.0 && peak.end_after(Timestamp(0)).is_none() {
                    section.reading().warn(format!(
                        "{}: they are all hours of the week, so the price of off_peak is never taken",
                        section.key_in_file("peak_hours")
                    ));
                }
                Some(OffPeak { peak, price })
            }
            (Some(_), None) if !self.says.1 => {
                section.fault("off_peak", "is missing beside peak_hours", "a factor such as \"0.5\", or prices");
                None
            }
            (None, Some(_)) if !self.says.0 => {
                section.fault("peak_hours", "is missing beside off_peak", HOURS);
                None
            }
            _ => None,
        };
        PriceTerms { price: self.price.clone().or(known.price), tiers, off_peak }
    }
}

/// The tiers and hours of all models of a vendor.
pub(super) fn read_tiers_and_hours(section: &mut Section<'_>) -> PriceTerms {
    let set = SetTerms {
        price: None,
        tiers: read_tiers(section),
        says: (section.has("peak_hours"), section.has("off_peak")),
        peak: read_peak_hours(section),
        off_peak: read_off_peak(section),
    };
    set.over(section, PriceTerms::default())
}

/// `changes = [{ from = "2027-01-01", price = { … } }]`: each over what holds before it.
fn read_changes(section: &mut Section<'_>, before: &PriceTerms) -> Option<Vec<PriceChange>> {
    const CHANGES: &str = "a list such as [{ from = \"2027-01-01\", price = { input = \"…\", output = \"…\" } }]";
    let mut changes: Vec<PriceChange> = Vec::new();
    let mut days: Vec<(usize, NaiveDate)> = Vec::new();
    for (index, value) in section.list("changes", CHANGES)?.into_iter().enumerate() {
        let key = format!("changes[{index}]");
        let ValueKind::Table(table) = value.kind else {
            section.fault(&key, "is no table", CHANGES);
            continue;
        };
        let mut change = section.nested(&key, &keys::CHANGE, table.into_iter().collect());
        let day = read_day(&mut change, "from");
        let is_empty = ["price", "tiers", "peak_hours", "off_peak"].iter().all(|key| !change.has(key));
        if is_empty {
            change.fault("", "changes nothing", "price, tiers, peak_hours or off_peak");
        }
        let set = SetTerms::read(&mut change);
        let known = changes.last().map_or_else(|| before.clone(), |last| last.terms.clone());
        let terms = set.over(&change, known);
        if let Some(day) = day {
            if let Some((twin, _)) = days.iter().find(|(_, other)| *other == day) {
                let problem =
                    format!("is {day}, and so is that of changes[{twin}]: there cannot be two prices of one day");
                change.fault("from", problem, "each day once");
            } else if let Some((last, later)) = days.last().filter(|(_, last)| *last > day) {
                let problem = format!("is {day}, which is before {later} of changes[{last}]");
                change.fault("from", problem, "the days in order, the earliest first");
            }
            days.push((index, day));
            changes.push(PriceChange { from: Timestamp(midnight(day)), terms });
        }
        change.finish();
    }
    Some(changes)
}

/// Milliseconds of the first instant of a day, in UTC.
fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_millis()
}

/// A day, written like `2027-01-31`.
pub(super) fn read_day(section: &mut Section<'_>, key: &'static str) -> Option<NaiveDate> {
    const DAY: &str = "a day such as \"2027-01-31\"";
    if !section.has(key) {
        section.fault(key, "is missing", DAY);
        return None;
    }
    section.parsed(key, DAY, |text| {
        let is_written_so = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let day = text.parse::<NaiveDate>().ok().filter(|day| is_written_so && (1970..=9999).contains(&day.year()));
        day.ok_or_else(|| format!("{text:?} is no day"))
    })
}

/// `served_as = ["deepseek-v4-flash"]`: names under which the model's answers come; `"*"` for any.
fn read_served_as(section: &mut Section<'_>) -> Option<Vec<String>> {
    section.parsed_list("served_as", "a list of names such as [\"gpt-4o-2024-08-06\"], or [\"*\"]", |name| {
        if name.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(name.to_owned()) }
    })
}

/// The models of a provider whose prices are known: the configured ones over the catalogue of its vendor.
pub(super) fn priced(
    provider: &str,
    vendor: &str,
    models: &BTreeMap<Target, Model>,
    catalogue: &Catalogue,
) -> BTreeMap<String, Model> {
    let listed = catalogue.of_vendor(vendor);
    let mut priced: BTreeMap<String, Model> = listed.map(|(name, model)| (name.to_owned(), model.clone())).collect();
    let own = models.iter().filter(|(target, _)| target.provider == provider);
    priced.extend(own.map(|(target, model)| (target.model.clone(), model.clone())));
    priced.retain(|_, model| model.is_priced());
    priced
}

fn read_price(section: &mut Section<'_>) -> Option<Price> {
    for needed in ["input", "output"] {
        if !section.has(needed) {
            section.fault(needed, "is missing from the price", format!("{MONEY} (\"0\" when it costs nothing)"));
        }
    }
    let mut money = |key| section.parsed(key, &format!("{MONEY}, per million tokens"), scalar::nano_dollars);
    let (input, output) = (money("input"), money("output"));
    let (cached_input, cache_write, cache_write_1h) =
        (money("cached_input"), money("cache_write"), money("cache_write_1h"));
    let reasoning = money("reasoning");
    Some(Price { input: input?, output: output?, cached_input, cache_write, cache_write_1h, reasoning })
}

/// A price with its `above = [{ input_tokens = 200000, price = { … } }]`; `None`: there is none, or it is faulty.
fn read_tariff(mut section: Section<'_>) -> Option<Tariff> {
    const ABOVE: &str = "a list such as [{ input_tokens = 200000, price = { input = \"…\", output = \"…\" } }]";
    if section.is_empty() {
        return None;
    }
    let usual = read_price(&mut section);
    let mut above: Vec<Above> = Vec::new();
    for (index, value) in section.list("above", ABOVE).into_iter().flatten().enumerate() {
        let key = format!("above[{index}]");
        let ValueKind::Table(table) = value.kind else {
            section.fault(&key, "is no table", ABOVE);
            continue;
        };
        let mut beyond = section.nested(&key, &keys::ABOVE, table.into_iter().collect());
        if !beyond.has("input_tokens") {
            beyond.fault("input_tokens", "is missing", "the longest prompt that has the usual price");
        }
        let input_tokens = beyond.whole("input_tokens");
        if let Some((tokens, last)) =
            input_tokens.zip(above.last()).filter(|(tokens, last)| *tokens <= last.input_tokens)
        {
            let problem = format!("is {tokens}, and the one before it {}", last.input_tokens);
            beyond.fault("input_tokens", problem, "rising thresholds, each once");
        }
        let mut price = beyond.child("price");
        let read = read_price(&mut price);
        price.finish();
        beyond.finish();
        above.extend(input_tokens.zip(read).map(|(input_tokens, price)| Above { input_tokens, price }));
    }
    section.finish();
    Some(Tariff { usual: usual?, above })
}

/// `tiers = { flex = "0.5", priority = { input = "3.50", output = "28" } }`: keyed by the word for the tier in the
/// provider's answers; the value is a multiple of the usual price, or prices of its own.
fn read_tiers(section: &mut Section<'_>) -> BTreeMap<String, TierPrice> {
    let mut tiers = BTreeMap::new();
    for (name, value) in section.table("tiers") {
        let key = join("tiers", &quote(&name));
        let Some(tier) = special_tier(&name) else {
            section.fault(&key, "is the usual tier, whose price is `price`", "the name of another tier");
            continue;
        };
        tiers.extend(other_price(section, &key, value.kind).map(|price| (tier, price)));
    }
    tiers
}

/// A multiple of the usual price, or prices of their own.
fn other_price(section: &Section<'_>, key: &str, value: ValueKind) -> Option<TierPrice> {
    const EXPECTED: &str = "a factor such as \"0.5\", or { input = \"…\", output = \"…\" }";
    match value {
        ValueKind::Table(entries) => {
            read_tariff(section.nested(key, &keys::PRICE, entries.into_iter().collect())).map(TierPrice::Own)
        }
        ValueKind::String(text) => {
            let factor = scalar::nano_dollars(&text).map(|billionths| TierPrice::Times(Factor(billionths)));
            if factor.is_err() {
                section.fault(key, format!("{text:?} is no factor"), EXPECTED);
            }
            factor.ok()
        }
        _ => {
            section.fault(key, "is no factor and no price", EXPECTED);
            None
        }
    }
}

fn read_peak_hours(section: &mut Section<'_>) -> Option<Hours> {
    let listed = section.parsed_list("peak_hours", HOURS, Hours::parse);
    listed.map(|parts| parts.into_iter().fold(Hours::default(), Hours::and))
}

fn read_off_peak(section: &mut Section<'_>) -> Option<TierPrice> {
    section.take("off_peak").and_then(|value| other_price(section, "off_peak", value.kind))
}
