//! The prices and capabilities of models: `[models."provider/model"]` over the catalogue that comes with the program.
//!
//! The catalogue (`config/prices.toml`) is keyed by vendor and the vendor's name of the model. A provider's vendor is
//! its `vendor`, or its own name. So `[providers.openai]` finds the prices of OpenAI, and an account that is called
//! `openai_team_b` finds them with `vendor = "openai"`.

use super::keys;
use super::provider::{self, ReadProvider};
use super::scalar::{self, MONEY};
use super::section::{Reading, Section, Table, join, quote};
use crate::domain::price::{Factor, OffPeak, Price, TierPrice, special_tier};
use crate::domain::tier::{self, NoTier};
use crate::domain::{Capabilities, Hours, Limits, Model, Target};
use crate::provider::{Endpoint, vendors};
use config::{FileFormat, ValueKind};
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// By vendor and model, aliases included.
type Catalogue = HashMap<(String, String), Model>;

/// The catalogue, read once. A fault in it is a fault of the build; a test reads it.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| parse_catalogue(include_str!("../../config/prices.toml")).0);

/// Stands for all models of a vendor that are not listed.
const OTHERS: &str = "";

/// The catalogue's entry for a model.
pub(super) fn catalogued(vendor: &str, model: &str) -> Option<Model> {
    let of_vendor = || CATALOGUE.get(&(vendor.to_owned(), OTHERS.to_owned()));
    CATALOGUE.get(&(vendor.to_owned(), model.to_owned())).or_else(of_vendor).cloned()
}

/// The target with the tier that its name asks for, where the provider's vendor has that.
///
/// # Errors
/// The tier cannot be asked for: what is wrong, and what is expected in its place.
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
        let known = vendor.and_then(|vendor| catalogued(vendor, &target.model)).unwrap_or_default();
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
fn read_model(section: &mut Section<'_>, known: Model) -> Model {
    let capabilities = known.capabilities;
    let price = read_price(section.child("price"));
    let mut tiers = known.tiers;
    if price.is_some() {
        // List prices of tiers do not apply beside a price that is not the list's.
        tiers.retain(|_, tier| matches!(tier, TierPrice::Times(_)));
    }
    tiers.extend(read_tiers(section));
    let off_peak = known.off_peak.filter(|other| price.is_none() || matches!(other.price, TierPrice::Times(_)));
    Model {
        off_peak: read_off_peak(section, off_peak),
        price: price.or(known.price),
        tiers,
        output_burndown: section.whole("output_burndown").or(known.output_burndown),
        served_as: read_served_as(section).unwrap_or(known.served_as),
        neighbours: known.neighbours,
        capabilities: Capabilities {
            context_window: section.whole("context_window").or(capabilities.context_window),
            max_output_tokens: section.whole("max_output_tokens").or(capabilities.max_output_tokens),
            json_schema: section.flag("json_schema").or(capabilities.json_schema),
            tools: section.flag("tools").or(capabilities.tools),
            images: section.flag("images").or(capabilities.images),
            temperature: section.flag("temperature").or(capabilities.temperature),
        },
    }
}

/// `served_as = ["deepseek-v4-flash"]`: names under which the model's answers come; `"*"` for any.
fn read_served_as(section: &mut Section<'_>) -> Option<Vec<String>> {
    section.parsed_list("served_as", "a list of names such as [\"gpt-4o-2024-08-06\"], or [\"*\"]", |name| {
        if name.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(name.to_owned()) }
    })
}

/// The models of a provider whose prices are known: the configured ones over the catalogue of its vendor.
pub(super) fn priced(provider: &str, vendor: &str, models: &BTreeMap<Target, Model>) -> BTreeMap<String, Model> {
    let listed = CATALOGUE.iter().filter(|((of, name), _)| of == vendor && name != OTHERS);
    let mut priced: BTreeMap<String, Model> = listed.map(|((_, name), model)| (name.clone(), model.clone())).collect();
    let own = models.iter().filter(|(target, _)| target.provider == provider);
    priced.extend(own.map(|(target, model)| (target.model.clone(), model.clone())));
    priced.retain(|_, model| model.price.is_some());
    priced
}

fn read_price(mut section: Section<'_>) -> Option<Price> {
    if section.is_empty() {
        return None;
    }
    for needed in ["input", "output"] {
        if !section.has(needed) {
            section.fault(needed, "is missing from the price", format!("{MONEY} (\"0\" when it costs nothing)"));
        }
    }
    let mut money = |key| section.parsed(key, &format!("{MONEY}, per million tokens"), scalar::nano_dollars);
    let (input, output) = (money("input"), money("output"));
    let (cached_input, cache_write, cache_write_1h) =
        (money("cached_input"), money("cache_write"), money("cache_write_1h"));
    section.finish();
    Some(Price { input: input?, output: output?, cached_input, cache_write, cache_write_1h })
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
            read_price(section.nested(key, &keys::PRICE, entries.into_iter().collect())).map(TierPrice::Own)
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

/// `peak_hours = ["mon-fri 01:00-04:00"]` and `off_peak = "0.5"`: each of them over what is known.
fn read_off_peak(section: &mut Section<'_>, known: Option<OffPeak>) -> Option<OffPeak> {
    const HOURS: &str = "hours of UTC such as [\"mon-fri 01:00-04:00\", \"22:00-06:00\"]";
    let says_hours = section.has("peak_hours");
    let listed = section.parsed_list("peak_hours", HOURS, Hours::parse);
    let says_price = section.has("off_peak");
    let price = section.take("off_peak").and_then(|value| other_price(section, "off_peak", value.kind));
    let (known_peak, known_price) = known.map(|known| (known.peak, known.price)).unzip();
    let peak = listed.map(|parts| parts.into_iter().fold(Hours::default(), Hours::and)).or(known_peak);
    match (peak, price.or(known_price)) {
        (Some(peak), Some(price)) => Some(OffPeak { peak, price }),
        (Some(_), None) if !says_price => {
            section.fault("off_peak", "is missing beside peak_hours", "a factor such as \"0.5\", or prices");
            None
        }
        (None, Some(_)) if !says_hours => {
            section.fault("peak_hours", "is missing beside off_peak", HOURS);
            None
        }
        _ => None,
    }
}

/// The catalogue, and its faults.
fn parse_catalogue(text: &str) -> (Catalogue, Result<(), String>) {
    let parsed = config::Config::builder().add_source(config::File::from_str(text, FileFormat::Toml)).build();
    let root = match parsed {
        Ok(parsed) => parsed.cache,
        Err(error) => return (Catalogue::new(), Err(error.to_string())),
    };
    let ValueKind::Table(root) = root.kind else { return (Catalogue::new(), Err("is empty".to_owned())) };
    let reading = Reading::new(Some("config/prices.toml".into()), None, BTreeMap::new());
    let vendors = Table::from([("vendors".to_owned(), config::Value::from(root))]);
    let mut root = Section::new(&reading, String::new(), &keys::CATALOGUE, vendors);
    let mut catalogue = Catalogue::new();
    for (vendor, mut section) in root.children("vendors") {
        for needed in ["as_of", "source"] {
            if section.text(needed, "where and when the prices were read").is_none() {
                section.fault(needed, "is missing", "where and when the prices were read");
            }
        }
        let tiers = read_tiers(&mut section);
        let off_peak = read_off_peak(&mut section, None);
        let others = Model { tiers, off_peak, ..Model::default() };
        catalogue.insert((vendor.clone(), OTHERS.to_owned()), others.clone());
        for (name, value) in section.table("models") {
            let ValueKind::Table(entries) = value.kind else {
                section.fault(&name, "is not a table", "a model");
                continue;
            };
            let mut entry =
                section.nested(&join("models", &quote(&name)), &keys::CATALOGUE_MODEL, entries.into_iter().collect());
            let aliases =
                entry.parsed_list("aliases", "a list of names", |name| Ok(name.to_owned())).unwrap_or_default();
            let model = read_model(&mut entry, others.clone());
            for name in aliases.into_iter().chain([name]) {
                if catalogue.insert((vendor.clone(), name.clone()), model.clone()).is_some() {
                    entry.fault("", format!("{name} is listed twice"), "each name once");
                }
            }
            entry.finish();
        }
        section.finish();
    }
    (catalogue, reading.into_result().map(drop).map_err(|errors| errors.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_without_fault_and_every_model_in_it_has_a_price() {
        let (catalogue, result) = parse_catalogue(include_str!("../../config/prices.toml"));
        assert_eq!(result, Ok(()));
        for ((vendor, model), entry) in catalogue.iter().filter(|((_, model), _)| model != OTHERS) {
            let price = entry.price.unwrap_or_else(|| panic!("{vendor}/{model} has no price"));
            assert!(price.input > 0, "{vendor}/{model}");
            assert!(price.cached_input.is_none_or(|cached| cached <= price.input), "{vendor}/{model}");
            assert!(price.cache_write.is_none_or(|write| write >= price.input), "{vendor}/{model}");
        }
    }

    #[test]
    fn tiers_are_those_of_the_model_or_of_its_vendor() {
        let factor = |model: &str, tier: &str| match catalogued("openai", model).unwrap().tiers.get(tier) {
            Some(TierPrice::Times(Factor(billionths))) => Some(*billionths),
            _ => None,
        };
        assert_eq!(
            (factor("gpt-5-mini", "flex"), factor("gpt-5-mini", "priority")),
            (Some(500_000_000), Some(1_800_000_000))
        );
        // A snapshot and a model that is not listed.
        assert_eq!(
            (factor("gpt-5-2025-08-07", "priority"), factor("gpt-99", "flex")),
            (Some(2_000_000_000), Some(500_000_000))
        );
        assert_eq!(catalogued("openai", "gpt-99").unwrap().price, None);
        assert!(matches!(catalogued("openai", "gpt-4o-mini").unwrap().tiers["priority"], TierPrice::Own(_)));
        let (_, faults) = parse_catalogue(
            "[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\ntiers = { default = \"1\", flex = \"half\", odd = 3 }\n\
             [v.models]\n",
        );
        let faults = faults.unwrap_err();
        for fault in ["default", "is the usual tier", "\"half\" is no factor", "is no factor and no price"] {
            assert!(faults.contains(fault), "{fault}: {faults}");
        }
    }

    #[test]
    fn the_hours_of_a_vendor_hold_for_its_models() {
        // Monday, 2026-11-23, at 02:00, 05:00 and on the Saturday before at 02:00.
        let at = |hours: i64| crate::domain::Timestamp(1_795_392_000_000 + hours * 3_600_000);
        let model = catalogued("deepseek", "deepseek-flash").unwrap();
        let input = |hours| model.price_at(None, at(hours)).unwrap().input;
        assert_eq!([input(2), input(5), input(2 - 48)], [300_000_000, 150_000_000, 150_000_000]);
        let (_, faults) = parse_catalogue(
            "[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\n[v.models]\na = { off_peak = \"0.5\" }\n\
             b = { peak_hours = [\"25:00-26:00\"], off_peak = \"half\" }\nc = { peak_hours = [\"01:00-02:00\"] }\n",
        );
        let faults = faults.unwrap_err();
        for fault in [
            "is missing beside off_peak",
            "\"25:00\" is no time of day",
            "\"half\" is no factor",
            "is missing beside peak_hours",
        ] {
            assert!(faults.contains(fault), "{fault}: {faults}");
        }
    }

    #[test]
    fn a_catalogue_entry_listed_twice_is_noticed() {
        let text = "[v]\nas_of = \"2026-01-01\"\nsource = \"https://example.com\"\n[v.models]\n\
                    a = { price = { input = \"1\", output = \"2\" } }\n\
                    b = { price = { input = \"1\", output = \"2\" }, aliases = [\"a\"] }\n";
        assert!(parse_catalogue(text).1.unwrap_err().contains("listed twice"));
    }
}
