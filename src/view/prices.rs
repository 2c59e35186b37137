//! Prices as they are shown: one line for each model, or all that is known of one.

use super::table::{Cell, Layout, Table};
use crate::domain::price::{Factor, Price, PriceTerms, Tariff, TierPrice};
use crate::domain::{Model, NanoUsd, Timestamp};
use chrono::DateTime;

/// A model with where its price comes from.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The vendor of the catalogue, or the provider of the configuration.
    pub of: &'a str,
    pub name: &'a str,
    /// The name under which the catalogue lists it, if this is another one.
    pub alias_of: Option<&'a str>,
    pub model: &'a Model,
    /// When the catalogue was compared with the vendor's page.
    pub as_of: String,
    /// That page.
    pub source: &'a str,
    /// The program, a file, or the configuration.
    pub origin: String,
}

/// A line for each model: what it costs at this instant.
#[must_use]
pub fn list(models: &[Listed<'_>], now: Timestamp) -> Table {
    let columns = ["vendor", "model", "input", "cached_input", "output", "also", "as_of", "origin"];
    let mut table = Table::new(columns).laid_out(Layout {
        wide: &["origin"],
        give_way: &["as_of", "cached_input", "also"],
        prose: &["also", "model", "origin"],
        ..Layout::default()
    });
    for listed in models {
        let tariff = listed.model.terms_at(now).price.as_ref();
        let money = |of: fn(&Price) -> Option<i64>| match tariff {
            Some(tariff) => of(&tariff.usual).map_or(Cell::Empty, |nanos| Cell::Money(NanoUsd(nanos))),
            None => Cell::UnknownMoney,
        };
        table.row([
            listed.of.into(),
            listed.name.into(),
            money(|price| Some(price.input)),
            money(|price| price.cached_input),
            money(|price| Some(price.output)),
            also(listed.model, now).into(),
            listed.as_of.clone().into(),
            listed.origin.clone().into(),
        ]);
    }
    table
}

/// The other terms of its price, in a few words.
fn also(model: &Model, now: Timestamp) -> String {
    let terms = model.terms_at(now);
    let mut also = Vec::new();
    if let Some(tariff) = &terms.price {
        also.extend(tariff.above.first().map(|above| format!("above {} tokens", above.input_tokens)));
    }
    also.extend(terms.tiers.keys().cloned());
    also.extend(terms.off_peak.as_ref().map(|_| "by the clock".to_owned()));
    also.extend(
        model.changes.iter().filter(|change| change.from > now).map(|change| format!("from {}", day(change.from))),
    );
    also.join(", ")
}

/// All that is known of a model's price: a line for each case.
#[must_use]
pub fn show(listed: &Listed<'_>) -> Table {
    let columns = [
        "vendor",
        "model",
        "when",
        "input",
        "cached_input",
        "cache_write",
        "cache_write_1h",
        "output",
        "reasoning",
        "as_of",
        "source",
        "origin",
    ];
    let mut table = Table::new(columns).laid_out(Layout {
        wide: &["source", "origin", "vendor", "model", "as_of"],
        when_told: &["cached_input", "cache_write", "cache_write_1h", "reasoning"],
        prose: &["when", "source", "origin"],
        ..Layout::default()
    });
    let dated = std::iter::once((None, &listed.model.terms))
        .chain(listed.model.changes.iter().map(|change| (Some(change.from), &change.terms)));
    let first = listed.model.changes.first().map(|change| change.from);
    for (from, terms) in dated {
        let when = match (from, first) {
            (Some(from), _) => format!("from {}", day(from)),
            (None, Some(first)) => format!("before {}", day(first)),
            (None, None) => String::new(),
        };
        for (case, price) in cases(terms) {
            let when = [when.as_str(), case.as_str()].into_iter().filter(|part| !part.is_empty());
            let when = when.collect::<Vec<_>>().join(", ");
            let money = |nanos: Option<i64>| nanos.map_or(Cell::Empty, |nanos| Cell::Money(NanoUsd(nanos)));
            let of = |part: fn(&Price) -> Option<i64>| money(price.as_ref().and_then(part));
            table.row([
                listed.of.into(),
                listed.name.into(),
                if when.is_empty() { "always".into() } else { when.into() },
                price.map_or(Cell::UnknownMoney, |price| Cell::Money(NanoUsd(price.input))),
                of(|price| price.cached_input),
                of(|price| price.cache_write),
                of(|price| price.cache_write_1h),
                price.map_or(Cell::UnknownMoney, |price| Cell::Money(NanoUsd(price.output))),
                of(|price| price.reasoning),
                listed.as_of.clone().into(),
                listed.source.into(),
                listed.origin.clone().into(),
            ]);
        }
    }
    table
}

/// The prices of these terms, each with when it holds; nothing is said of the usual one.
fn cases(terms: &PriceTerms) -> Vec<(String, Option<Price>)> {
    let Some(usual) = &terms.price else { return vec![("unknown".to_owned(), None)] };
    let mut cases = by_length("", usual);
    if let Some(other) = &terms.off_peak {
        if let Some((case, _)) = cases.first_mut() {
            *case = format!("{} (UTC)", other.peak);
        }
        let words = format!("at other hours{}", times(&other.price));
        cases.extend(by_length(&words, &other.outside(usual)));
    }
    for (name, tier) in &terms.tiers {
        let words = format!("tier {name}{}", times(tier));
        let (peak, off_peak) = (terms.peak_price(Some(name)), terms.off_peak_price(Some(name)));
        cases.extend(peak.iter().flat_map(|price| by_length(&words, price)));
        // A price of its own holds at all hours.
        let other = off_peak.filter(|price| Some(price) != peak.as_ref());
        cases.extend(other.iter().flat_map(|price| by_length(&format!("{words}, at other hours"), price)));
    }
    cases
}

fn by_length(words: &str, tariff: &Tariff) -> Vec<(String, Option<Price>)> {
    let mut cases = vec![(words.to_owned(), Some(tariff.usual))];
    for above in &tariff.above {
        let beyond = format!("above {} tokens of input", above.input_tokens);
        let words = if words.is_empty() { beyond } else { format!("{words}, {beyond}") };
        cases.push((words, Some(above.price)));
    }
    cases
}

fn times(price: &TierPrice) -> String {
    match price {
        TierPrice::Times(Factor(billionths)) => {
            format!(" (× {})", NanoUsd(*billionths).to_string().trim_start_matches('$'))
        }
        TierPrice::Own(_) => String::new(),
    }
}

fn day(Timestamp(millis): Timestamp) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(String::new, |at| at.date_naive().to_string())
}

/// The entry of a model before and after a change of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub vendor: String,
    pub model: String,
    /// `new`, `gone` or `changed`.
    pub what: &'static str,
    pub before: String,
    pub after: String,
}

/// A line for each model whose price changes.
#[must_use]
pub fn changes(changes: Vec<Changed>) -> Table {
    let mut table = Table::new(["vendor", "model", "change", "before", "after"])
        .laid_out(Layout { prose: &["model", "before", "after"], ..Layout::default() });
    for changed in changes {
        table.row([
            changed.vendor.into(),
            changed.model.into(),
            changed.what.into(),
            changed.before.into(),
            changed.after.into(),
        ]);
    }
    table
}

/// The price of a model at this instant in a few words, with its other terms.
#[must_use]
pub fn in_words(model: &Model, now: Timestamp) -> String {
    let price = model.terms_at(now).price.as_ref().map_or_else(
        || "unknown".to_owned(),
        |tariff| format!("{} in, {} out", NanoUsd(tariff.usual.input), NanoUsd(tariff.usual.output)),
    );
    let also = also(model, now);
    if also.is_empty() { price } else { format!("{price} ({also})") }
}

/// The same for two models, and with the prices of caches and reasoning where the others are equal.
#[must_use]
pub fn both_in_words(before: &Model, after: &Model, now: Timestamp) -> (String, String) {
    let brief = (in_words(before, now), in_words(after, now));
    if brief.0 != brief.1 {
        return brief;
    }
    let full = |model: &Model, brief: String| {
        let Some(price) = model.terms_at(now).price.as_ref().map(|tariff| tariff.usual) else { return brief };
        let more = [
            (price.cached_input, "cached in"),
            (price.cache_write, "cache write"),
            (price.cache_write_1h, "cache write for an hour"),
            (price.reasoning, "reasoning"),
        ];
        let more = more.into_iter().filter_map(|(price, what)| Some(format!("{} {what}", NanoUsd(price?))));
        [brief].into_iter().chain(more).collect::<Vec<_>>().join(", ")
    };
    (full(before, brief.0), full(after, brief.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Hours;
    use crate::domain::price::{Above, OffPeak, PriceChange};

    fn model() -> Model {
        let above = vec![Above { input_tokens: 200_000, price: Price::plain(2_000_000_000, 3_000_000_000) }];
        let usual = Tariff { usual: Price::plain(1_000_000_000, 2_000_000_000), above };
        let half = TierPrice::Times(Factor(500_000_000));
        let off_peak = Some(OffPeak { peak: Hours::parse("01:00-04:00").unwrap(), price: half.clone() });
        let terms = PriceTerms { price: Some(usual), tiers: [("flex".to_owned(), half)].into(), off_peak };
        let later =
            PriceTerms { price: Some(Price::plain(9_000_000_000, 9_000_000_000).into()), ..PriceTerms::default() };
        Model { terms, changes: vec![PriceChange { from: Timestamp(86_400_000), terms: later }], ..Model::default() }
    }

    #[test]
    fn every_case_of_a_price_has_its_line() {
        let model = model();
        let listed = Listed {
            of: "v",
            name: "m",
            alias_of: None,
            model: &model,
            as_of: "2026-01-01".to_owned(),
            source: "x",
            origin: "the program".to_owned(),
        };
        let shown = serde_json::to_value(show(&listed)).unwrap();
        let said: Vec<(&str, f64)> = shown
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["when"].as_str().unwrap(), row["input"].as_f64().unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("before 1970-01-02, 01:00-04:00 (UTC)", 1.0),
                ("before 1970-01-02, above 200000 tokens of input", 2.0),
                ("before 1970-01-02, at other hours (× 0.50)", 0.5),
                ("before 1970-01-02, at other hours (× 0.50), above 200000 tokens of input", 1.0),
                ("before 1970-01-02, tier flex (× 0.50)", 0.5),
                ("before 1970-01-02, tier flex (× 0.50), above 200000 tokens of input", 1.0),
                ("before 1970-01-02, tier flex (× 0.50), at other hours", 0.25),
                ("before 1970-01-02, tier flex (× 0.50), at other hours, above 200000 tokens of input", 0.5),
                ("from 1970-01-02", 9.0),
            ]
        );
        assert_eq!(
            in_words(&model, Timestamp(0)),
            "$1.00 in, $2.00 out (above 200000 tokens, flex, by the clock, from 1970-01-02)"
        );
    }
}
