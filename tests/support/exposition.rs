//! A strict reader of OpenMetrics text: what a scraper might forgive is a fault here.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// A page of metrics.
#[derive(Debug)]
pub struct Exposition {
    /// The type of each family.
    pub types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Reads a page. Panics with the line that is wrong.
    pub fn parse(page: &str) -> Self {
        let body = page.strip_suffix("# EOF\n").expect("the page ends with its mark");
        let mut read = Self { types: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped: Option<&str> = None;
        let mut family: Option<(&str, &str)> = None;
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect(line);
                assert!(is_name(name) && name.starts_with("sluice_") && !name.ends_with("_total"), "{line}");
                assert!(text.ends_with('.') && !text.contains('\\'), "{line}");
                helped = Some(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(helped.take(), Some(name), "help comes before the type: {line}");
                assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                assert!(read.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                family = Some((name, kind));
            } else {
                assert_eq!(helped, None, "a sample between help and type: {line}");
                let (name, labels, value) = sample(line);
                let (of, kind) = family.expect("a sample has a type");
                let suffix = name.strip_prefix(of).unwrap_or_else(|| panic!("not of {of}: {line}"));
                let suffixes: &[&str] = match kind {
                    "counter" => &["_total"],
                    "info" => &["_info"],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{kind}: {line}");
                assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
                assert!(value.is_finite() && (kind == "gauge" || value >= 0.0), "{line}");
                assert!(read.samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
            }
        }
        read.histograms_add_up();
        read
    }

    fn histograms_add_up(&self) {
        for ((name, labels), count) in &self.samples {
            let Some(family) = name.strip_suffix("_count") else { continue };
            let mut classes: Vec<(f64, f64)> = self
                .samples
                .iter()
                .filter(|((name, _), _)| name.strip_suffix("_bucket") == Some(family))
                .filter_map(|((_, others), value)| {
                    let mut others = others.clone();
                    let bound = others.remove("le")?.replace("+Inf", "inf").parse().unwrap();
                    (others == *labels).then_some((bound, *value))
                })
                .collect();
            classes.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(classes.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}{labels:?}: {classes:?}");
            assert_eq!(classes.last(), Some(&(f64::INFINITY, *count)), "{name}{labels:?}");
        }
    }

    /// The names of its samples.
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|(name, _)| name.as_str()).collect()
    }

    /// The one sample with exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// All samples of a name, by the value of one label, added up over the others.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for ((sample, labels), value) in &self.samples {
            if sample == name {
                *sums.entry(labels[label].clone()).or_default() += value;
            }
        }
        sums
    }

    /// All samples of a name together; `None` when there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let samples = self.samples.iter().filter(|((sample, _), _)| sample == name);
        samples.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|next| next.is_ascii_alphanumeric() || next == '_')
}

/// `name{label="value",…} number`; the braces only around something.
fn sample(line: &str) -> (&str, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = unquoted(quoted).unwrap_or_else(|| panic!("a value that does not end: {line}"));
            assert!(labels.insert(label.to_owned(), value).is_none(), "twice {label}: {line}");
            if let Some(after) = after.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = after.strip_prefix(',').unwrap_or_else(|| panic!("neither , nor }}: {line}"));
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no space before the value: {line}"));
    (name, labels, number.parse().unwrap_or_else(|_| panic!("not a number: {line}")))
}

/// A value up to its closing quote, and the text after that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                quoted @ ('\\' | '"') => quoted,
                _ => return None,
            }),
            (_, plain) => value.push(plain),
        }
    }
}
