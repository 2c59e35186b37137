//! The catalogue of prices: the one that comes with the program (`config/prices.toml`), and a newer one beside the
//! configuration. Of each vendor that block holds which was compared later; of the same day, the file's.

use super::keys;
use super::prices::{read_day, read_model, read_tiers_and_hours};
use super::section::{Reading, Section, Table, join, quote};
use super::source::ConfigSource;
use super::{ConfigErrors, Fault};
use crate::domain::Model;
use chrono::NaiveDate;
use config::{FileFormat, ValueKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// What the catalogue is called that comes with the program.
pub const BUILT_IN: &str = "the program";

const BUILT_IN_FILE: &str = "config/prices.toml";

/// Read once. A fault in it is a fault of the build; a test reads it.
static COMES_WITH_PROGRAM: LazyLock<Arc<Catalogue>> =
    LazyLock::new(|| Arc::new(Catalogue::parse(None, include_str!("../../config/prices.toml")).0));

/// The prices and windows of models, by vendor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The blocks by vendor.
    pub blocks: BTreeMap<String, Block>,
}

/// The models of one vendor.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// When the prices were compared last.
    pub as_of: NaiveDate,
    /// Where to look.
    pub source: String,
    /// The file that it comes from; `None`: it comes with the program.
    pub file: Option<PathBuf>,
    /// What holds for the models that are not listed: tiers and hours, no price.
    others: Model,
    /// The models by name, aliases included.
    pub models: BTreeMap<String, Entry>,
}

/// A model of the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it costs and takes.
    pub model: Model,
    /// The name under which it is listed, if this is another one.
    pub alias_of: Option<String>,
}

impl Catalogue {
    /// The one that comes with the program.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        Arc::clone(&COMES_WITH_PROGRAM)
    }

    /// Reads a catalogue from a file.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn read(file: &Path) -> Result<Self, ConfigErrors> {
        Self::of_source(&ConfigSource { path: file.to_owned(), is_found: false }).map(|(catalogue, _)| catalogue)
    }

    /// The same, with warnings about what other users may do with the file.
    pub(super) fn of_source(source: &ConfigSource) -> Result<(Self, Vec<String>), ConfigErrors> {
        let text = source.read()?;
        Ok((Self::of_text(&source.path, text.words())?, text.warnings))
    }

    /// The catalogue that this text of a file is.
    ///
    /// # Errors
    /// All faults of the text.
    pub fn of_text(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let (catalogue, result) = Self::parse(Some(file), text);
        result?;
        if catalogue.blocks.is_empty() {
            return Err(fault(file, "has no vendor in it", "a block such as [openai] with as_of, source and models"));
        }
        Ok(catalogue)
    }

    /// This catalogue with the blocks of another one that were compared as late or later.
    #[must_use]
    pub fn with(&self, newer: Self) -> Self {
        let mut all = self.clone();
        for (vendor, block) in newer.blocks {
            if all.blocks.get(&vendor).is_none_or(|known| known.as_of <= block.as_of) {
                all.blocks.insert(vendor, block);
            }
        }
        all
    }

    /// The entry for a model of a vendor, or what holds for models that are not listed.
    #[must_use]
    pub fn model(&self, vendor: &str, model: &str) -> Option<Model> {
        let block = self.blocks.get(vendor)?;
        Some(block.models.get(model).map_or(&block.others, |entry| &entry.model).clone())
    }

    /// The listed models of a vendor, by name.
    pub(super) fn of_vendor(&self, vendor: &str) -> impl Iterator<Item = (&str, &Model)> {
        let models = self.blocks.get(vendor).map(|block| &block.models);
        models.into_iter().flatten().map(|(name, entry)| (name.as_str(), &entry.model))
    }

    /// The catalogue, and its faults.
    fn parse(file: Option<&Path>, text: &str) -> (Self, Result<(), ConfigErrors>) {
        let named = file.unwrap_or_else(|| Path::new(BUILT_IN_FILE));
        let parsed = config::Config::builder().add_source(config::File::from_str(text, FileFormat::Toml)).build();
        let root = match parsed {
            Ok(parsed) => parsed.cache,
            Err(error) => return (Self::default(), Err(fault(named, &error.to_string(), "TOML"))),
        };
        let ValueKind::Table(root) = root.kind else {
            return (Self::default(), Err(fault(named, "is empty", "a block for each vendor")));
        };
        let reading = Reading::new(Some(named.to_owned()), None, BTreeMap::new());
        // The blocks of a file are not below a key of their own: in its faults, a path begins with the vendor.
        let root: Table = root.into_iter().collect();
        let mut catalogue = Self::default();
        for (vendor, value) in root {
            let ValueKind::Table(entries) = value.kind else {
                let root = Section::new(&reading, String::new(), &keys::FREE, Table::new());
                root.fault(
                    &quote(&vendor),
                    "is no block of a vendor",
                    "a block such as [openai] with as_of and source",
                );
                continue;
            };
            let section = Section::new(&reading, quote(&vendor), &keys::CATALOGUE, entries.into_iter().collect());
            if let Some(block) = read_block(section, file) {
                catalogue.blocks.insert(vendor, block);
            }
        }
        (catalogue, reading.into_result().map(drop))
    }
}

fn read_block(mut section: Section<'_>, file: Option<&Path>) -> Option<Block> {
    const SOURCE: &str = "the address of the page where the prices were read";
    let as_of = read_day(&mut section, "as_of");
    if !section.has("source") {
        section.fault("source", "is missing", SOURCE);
    }
    let source = section.text("source", SOURCE);
    let others = Model { terms: read_tiers_and_hours(&mut section), ..Model::default() };
    let mut models = BTreeMap::new();
    for (name, value) in section.table("models") {
        let path = join("models", &quote(&name));
        let ValueKind::Table(entries) = value.kind else {
            section.fault(&path, "is not a table", "a model");
            continue;
        };
        let mut entry = section.nested(&path, &keys::CATALOGUE_MODEL, entries.into_iter().collect());
        let aliases = entry.parsed_list("aliases", "a list of names", |name| Ok(name.to_owned())).unwrap_or_default();
        let model = read_model(&mut entry, others.clone());
        if !model.is_priced() {
            entry.fault("price", "is missing", "what the model costs; a model without a price is not listed");
        }
        let names = std::iter::once((name.clone(), None));
        for (name, alias_of) in names.chain(aliases.into_iter().map(|alias| (alias, Some(name.clone())))) {
            let listed = Entry { model: model.clone(), alias_of };
            if models.insert(name.clone(), listed).is_some() {
                entry.fault("", format!("{name} is listed twice"), "each name once");
            }
        }
        entry.finish();
    }
    section.finish();
    Some(Block { as_of: as_of?, source: source?, file: file.map(Path::to_owned), others, models })
}

fn fault(file: &Path, problem: &str, expected: &str) -> ConfigErrors {
    ConfigErrors::of(Fault {
        place: file.display().to_string(),
        key: String::new(),
        problem: problem.to_owned(),
        expected: expected.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::{Factor, TierPrice};

    #[test]
    fn the_catalogue_is_without_fault_and_every_model_in_it_has_a_price() {
        let (catalogue, result) = Catalogue::parse(None, include_str!("../../config/prices.toml"));
        assert_eq!(result, Ok(()));
        let mut models = 0;
        for (vendor, block) in &catalogue.blocks {
            for (name, entry) in &block.models {
                models += 1;
                for tariff in entry.model.all_terms().filter_map(|terms| terms.price.as_ref()) {
                    let mut last = tariff.usual;
                    for price in std::iter::once(tariff.usual).chain(tariff.above.iter().map(|above| above.price)) {
                        assert!(price.input > 0, "{vendor}/{name}");
                        assert!(price.cached_input.is_none_or(|cached| cached <= price.input), "{vendor}/{name}");
                        assert!(price.cache_write.is_none_or(|write| write >= price.input), "{vendor}/{name}");
                        let hour = price.cache_write_1h.zip(price.cache_write);
                        assert!(hour.is_none_or(|(hour, minutes)| hour >= minutes), "{vendor}/{name}");
                        assert!(price.input >= last.input && price.output >= last.output, "{vendor}/{name}");
                        last = price;
                    }
                }
            }
        }
        assert!(models > 50, "{models}");
    }

    #[test]
    fn tiers_are_those_of_the_model_or_of_its_vendor() {
        let factor =
            |model: &str, tier: &str| match Catalogue::built_in().model("openai", model).unwrap().terms.tiers.get(tier)
            {
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
        assert!(!Catalogue::built_in().model("openai", "gpt-99").unwrap().is_priced());
        assert!(matches!(
            Catalogue::built_in().model("openai", "gpt-4o-mini").unwrap().terms.tiers["priority"],
            TierPrice::Own(_)
        ));
        let (_, faults) = Catalogue::parse(
            None,
            "[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\ntiers = { default = \"1\", flex = \"half\", odd = 3 }\n\
             [v.models]\n",
        );
        let faults = faults.unwrap_err().to_string();
        for fault in ["default", "is the usual tier", "\"half\" is no factor", "is no factor and no price"] {
            assert!(faults.contains(fault), "{fault}: {faults}");
        }
    }

    #[test]
    fn the_hours_of_a_vendor_hold_for_its_models() {
        // Monday, 2026-11-23, at 02:00, 05:00 and on the Saturday before at 02:00.
        let at = |hours: i64| crate::domain::Timestamp(1_795_392_000_000 + hours * 3_600_000);
        let model = Catalogue::built_in().model("deepseek", "deepseek-flash").unwrap();
        let input = |hours| model.price_at(None, at(hours)).unwrap().usual.input;
        assert_eq!([input(2), input(5), input(2 - 48)], [300_000_000, 150_000_000, 150_000_000]);
        let (_, faults) = Catalogue::parse(
            None,
            "[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\n[v.models]\na = { off_peak = \"0.5\" }\n\
             b = { peak_hours = [\"25:00-26:00\"], off_peak = \"half\" }\nc = { peak_hours = [\"01:00-02:00\"] }\n",
        );
        let faults = faults.unwrap_err().to_string();
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
        assert!(Catalogue::parse(None, text).1.unwrap_err().to_string().contains("listed twice"));
    }

    /// The faults of a model with this entry.
    fn faults(entry: &str) -> String {
        let text = format!("[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\n[v.models]\n\"m.1\" = {{ {entry} }}\n");
        Catalogue::parse(Some(Path::new("new.toml")), &text)
            .1
            .map_or_else(|faults| faults.to_string(), |()| String::new())
    }

    #[test]
    fn prices_change_from_a_day_on_and_every_slip_in_that_is_named() {
        let price = |input: &str| format!("price = {{ input = \"{input}\", output = \"9\" }}");
        let from = |day: &str, input: &str| format!("{{ from = \"{day}\", {} }}", price(input));
        let (early, late) = (from("2026-05-01", "2"), from("2026-06-01", "3"));
        let text = format!(
            "[v]\nas_of = \"2026-01-01\"\nsource = \"x\"\ntiers = {{ flex = \"0.5\" }}\n[v.models]\n\
             m = {{ {}, changes = [{early}, {late}] }}\nn = {{ changes = [{early}] }}\n",
            price("1")
        );
        let (catalogue, result) = Catalogue::parse(None, &text);
        assert_eq!(result, Ok(()));
        // 2026-05-01, 00:00 UTC.
        let may = 1_777_593_600_000;
        let input = |model: &str, tier, millis| {
            let model = catalogue.model("v", model).unwrap();
            model.price_at(tier, crate::domain::Timestamp(millis)).map(|price| price.usual.input)
        };
        let dollars = |dollars: i64| Some(dollars * 1_000_000_000);
        assert_eq!([input("m", None, 0), input("m", None, may - 1)], [dollars(1); 2]);
        assert_eq!([input("m", None, may), input("m", None, may + 86_400_000 * 30)], [dollars(2); 2]);
        assert_eq!(input("m", None, may + 86_400_000 * 31), dollars(3));
        assert_eq!(input("m", Some("flex"), may), dollars(1));
        // Before the first price that is known, none is.
        assert_eq!([input("n", None, may - 1), input("n", None, may)], [None, dollars(2)]);
        for (entry, fault) in [
            (
                format!("changes = [{early}, {early}]"),
                "new.toml: v.models.\"m.1\".changes[1].from: is 2026-05-01, and so is that of changes[0]: there \
                 cannot be two prices of one day; expected each day once",
            ),
            (
                format!("changes = [{late}, {early}]"),
                "changes[1].from: is 2026-05-01, which is before 2026-06-01 of changes[0]; expected the days in order",
            ),
            (format!("changes = [{}]", from("soon", "1")), "\"soon\" is no day; expected a day such as \"2027-01-31\""),
            (format!("changes = [{}]", from("2026-02-30", "1")), "\"2026-02-30\" is no day"),
            (format!("changes = [{{ {} }}]", price("1")), "changes[0].from: is missing"),
            (format!("{}, changes = [{{ from = \"2026-05-01\" }}]", price("1")), "changes[0]: changes nothing"),
            (price("-1"), "price.input: \"-1\" is negative; expected dollars"),
            (price("1 EUR"), "\"1 EUR\" is not an amount of money"),
            (price("1,5"), "\"1,5\" is not an amount of money"),
            ("tools = true".to_owned(), "price: is missing"),
        ] {
            let found = faults(&entry);
            assert!(found.contains(fault), "{entry}\n{found}");
        }
    }

    #[test]
    fn long_prompts_have_a_price_of_their_own_and_thresholds_rise() {
        let price = |above: &str| format!("price = {{ input = \"1\", output = \"2\", above = [{above}] }}");
        let beyond =
            |tokens: &str| format!("{{ input_tokens = {tokens}, price = {{ input = \"2\", output = \"3\" }} }}");
        assert_eq!(faults(&price(&beyond("200000"))), "");
        for (above, fault) in [
            (
                format!("{}, {}", beyond("200"), beyond("200")),
                "above[1].input_tokens: is 200, and the one before it 200",
            ),
            ("{ input_tokens = 9 }".to_owned(), "above[0].price.input: is missing from the price"),
            ("{ price = { input = \"2\", output = \"3\" } }".to_owned(), "above[0].input_tokens: is missing"),
            (beyond("-1"), "input_tokens"),
            ("3".to_owned(), "above[0]: is no table"),
        ] {
            let found = faults(&price(&above));
            assert!(found.contains(fault), "{above}\n{found}");
        }
    }

    #[test]
    fn of_two_blocks_the_one_that_was_compared_later_holds() {
        let block = |as_of: &str, input: &str| {
            let text = format!(
                "[v]\nas_of = \"{as_of}\"\nsource = \"x\"\n[v.models]\nm = {{ price = {{ input = \"{input}\", \
                 output = \"1\" }} }}\n"
            );
            Catalogue::of_text(Path::new("new.toml"), &text).unwrap()
        };
        let input =
            |catalogue: &Catalogue| catalogue.model("v", "m").unwrap().terms.price.unwrap().usual.input / 1_000_000_000;
        let known = block("2026-05-01", "1");
        for (as_of, expected) in [("2026-04-30", 1), ("2026-05-01", 2), ("2026-06-01", 2)] {
            assert_eq!(input(&known.with(block(as_of, "2"))), expected, "{as_of}");
        }
        assert!(Catalogue::of_text(Path::new("x"), "").unwrap_err().to_string().contains("has no vendor in it"));
        assert!(
            Catalogue::of_text(Path::new("x"), "v = 1").unwrap_err().to_string().contains("is no block of a vendor")
        );
    }
}
