//! `[providers.NAME]` and `[buckets.NAME]`.

use super::Keys;
use super::api_keys;
use super::aws;
use super::scalar;
use super::section::Section;
use crate::domain::probe::{ProbePage, ProbeSettings};
use crate::domain::{BreakerSettings, Charging, Limits, QualitySettings, Rate, Timeouts, Unit};
use crate::provider::charging;
use crate::provider::vendors::{self, VENDORS, Vendor};
use crate::provider::{DIALECTS, Dialect, Endpoint, HeaderName, HeaderValue, Url, dialect};
use config::ValueKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// A provider: its endpoint, and how to treat it.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Its address and dialect.
    pub endpoint: Endpoint,
    /// The bucket whose limits its calls share.
    pub bucket: String,
    /// How a request is counted there, unless the model has its own rule.
    pub charging: Charging,
    /// When its targets are avoided for a while.
    pub breaker: BreakerSettings,
    /// When its targets are passed over for the quality of their answers.
    pub quality: QualitySettings,
    /// How long a rejected key, or one without money, rests before one call tries it again.
    pub recheck: Duration,
    /// How its health is probed, where it is.
    pub probe: Option<ProbeSettings>,
}

/// A provider with the parts that only the configuration needs.
pub(super) struct ReadProvider {
    pub config: ProviderConfig,
    /// The name under which the catalogue lists its models.
    pub vendor: String,
}

/// A shorter rest of something that was refused would be none: the next call would find it over.
const LEAST_RECHECK: Duration = Duration::from_millis(100);

/// A server that is probed more often than this would notice it.
const LEAST_PROBE: Duration = Duration::from_millis(100);

/// How long the answer to a health probe may take where nothing is said of it.
const USUAL_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that carry keys; keys must come from elsewhere.
const KEY_HEADERS: &[&str] = &["authorization", "x-api-key", "api-key", "x-goog-api-key"];

pub(super) fn read_buckets(sections: Vec<(String, Section<'_>)>) -> BTreeMap<String, Limits> {
    sections.into_iter().map(|(name, section)| (name, read_limits(section))).collect()
}

pub(super) fn read_all(
    sections: Vec<(String, Section<'_>)>,
    buckets: &mut BTreeMap<String, Limits>,
    keys: Keys,
) -> BTreeMap<String, ReadProvider> {
    sections
        .into_iter()
        .map(|(name, section)| {
            let provider = read_one(&name, section, buckets, keys);
            (name, provider)
        })
        .collect()
}

fn read_one(name: &str, mut section: Section<'_>, buckets: &mut BTreeMap<String, Limits>, keys: Keys) -> ReadProvider {
    let says_vendor = section.has("vendor");
    let vendor_name = read_vendor(&mut section);
    let is_faulty = says_vendor && vendor_name.is_none();
    let vendor_name = vendor_name.unwrap_or_else(|| name.to_owned());
    // After a fault any vendor will do: one slip is one fault.
    let named = vendors::named(&vendor_name).or_else(|| VENDORS.first().filter(|_| is_faulty));
    let dialect = read_dialect(&mut section, named);
    let by_name = vendors::of_server(Some(&vendor_name), dialect, "");
    if let (Some(named), None, false) = (named, by_name, is_faulty) {
        read_mismatch(&section, named, dialect, says_vendor);
    }
    let base_url = read_base_url(&mut section, by_name.or(named));
    let vendor = vendors::of_server(Some(&vendor_name), dialect, &base_url).or(named);
    let signing = aws::read(&mut section, dialect, &base_url);
    let is_open = signing.is_none() && keys == Keys::Required;
    let keys = api_keys::read(name, &mut section, keys, signing.as_ref());
    if is_open {
        aws::check_unsigned(name, &section, dialect, &base_url, &keys);
    }
    let endpoint = Endpoint {
        name: name.to_owned(),
        dialect,
        vendor: Some(vendor_name.clone()),
        quirks: super::quirks::read(section.child("quirks"), dialect),
        base_url,
        keys,
        headers: read_headers(section.child("headers")),
        timeouts: read_timeouts(section.child("timeouts"), None),
        max_body: section.whole_or_default("max_body_bytes"),
    };
    let (breaker, quality) = read_breaker(section.child("breaker"), endpoint.timeouts.total);
    let config = ProviderConfig {
        endpoint,
        bucket: read_bucket(name, &mut section, buckets),
        charging: read_charging(&mut section, vendor, dialect),
        breaker,
        quality,
        recheck: section.duration_of_at_least_or_default("recheck", LEAST_RECHECK),
        probe: read_probe(&mut section),
    };
    section.finish();
    ReadProvider { config, vendor: vendor_name }
}

/// The vendor that is named; `None` after a fault, too.
fn read_vendor(section: &mut Section<'_>) -> Option<String> {
    let known = vendor_names();
    let expected = format!("one of {}; any other server has a dialect and a base_url, and no vendor", known.join(", "));
    section.parsed("vendor", &expected, |text| {
        if known.contains(&text) {
            return Ok(text.to_owned());
        }
        Err(match scalar::nearest(&text.to_ascii_lowercase(), known.iter().copied()) {
            Some(near) => format!("{text:?} is not a vendor; perhaps {near:?} is meant"),
            None => format!("{text:?} is not a vendor"),
        })
    })
}

/// A vendor is known for one dialect, and its server is to speak another one. At the vendor's own address that cannot
/// work. A gateway may do so.
fn read_mismatch(section: &Section<'_>, vendor: &Vendor, dialect: &Dialect, says_vendor: bool) {
    let known: Vec<&str> = VENDORS.iter().filter(|row| row.name == vendor.name).map(|row| row.dialect.name).collect();
    if !section.has("base_url") {
        section.fault(
            "dialect",
            format!("the server of {:?} is not known to speak {:?}", vendor.name, dialect.name),
            format!("{}, or the base_url of a server that speaks it", known.join(" or ")),
        );
    } else if says_vendor {
        section.reading().warn(format!(
            "{}: {:?} is known to speak {}, and this server is to speak {:?}: only prices and the counting of tokens \
             are the vendor's",
            section.key_in_file("vendor"),
            vendor.name,
            known.join(" and "),
            dialect.name
        ));
    }
}

/// The names of the vendors.
pub(super) fn vendor_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = VENDORS.iter().map(|vendor| vendor.name).collect();
    // A vendor with two dialects has two rows, one after the other.
    names.dedup();
    names
}

/// The names of the dialects.
pub(super) fn dialects() -> Vec<&'static str> {
    DIALECTS.iter().map(|dialect| dialect.name).collect()
}

/// The names of the charging rules.
pub(super) fn charging_rules() -> Vec<&'static str> {
    charging::RULES.iter().map(|(name, _)| *name).collect()
}

fn read_dialect(section: &mut Section<'_>, vendor: Option<&Vendor>) -> &'static Dialect {
    let spoken = dialects();
    let expected = format!("one of {}", spoken.join(", "));
    let from_vendor = vendor.map(|vendor| vendor.dialect);
    let is_missing = !section.has("dialect");
    let spoken =
        section.parsed("dialect", &expected, |text| dialect(text).ok_or_else(|| format!("{text:?} is not a dialect")));
    if is_missing && from_vendor.is_none() {
        section.fault("dialect", "is missing, and the provider's name is no vendor's that is known", expected);
    }
    // After a fault the value is not used.
    spoken.or(from_vendor).unwrap_or(&crate::provider::openai::DIALECT)
}

/// The charging rule: as configured, else the vendor's, else the dialect's.
fn read_charging(section: &mut Section<'_>, vendor: Option<&Vendor>, dialect: &Dialect) -> Charging {
    let known = charging_rules();
    let configured = section.parsed("charging", &format!("one of {}", known.join(", ")), |text| {
        charging::rule(text).ok_or_else(|| match scalar::nearest(text, known.iter().copied()) {
            Some(near) => format!("{text:?} is not a rule of charging; perhaps {near:?} is meant"),
            None => format!("{text:?} is not a rule of charging"),
        })
    });
    configured.or(vendor.map(|vendor| vendor.charging)).unwrap_or(dialect.charging)
}

/// The part of a supposed URL that may be repeated: nothing when it may contain a password, and no query, where some
/// users put their key.
fn without_secrets(text: &str) -> String {
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    if text.contains('@') { String::new() } else { format!("{shown:?} ") }
}

/// Whether a member of a query may carry something that must not stand in a file.
fn may_be_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "token", "secret", "password", "credential"].iter().any(|word| name.contains(word))
        || matches!(name.as_str(), "auth" | "code" | "sig" | "signature")
}

fn read_base_url(section: &mut Section<'_>, vendor: Option<&Vendor>) -> String {
    const EXPECTED: &str = "a URL such as \"https://api.example.com/v1\"";
    let is_missing = !section.has("base_url");
    let base_url = section.parsed("base_url", EXPECTED, |text| match Url::parse(text) {
        // Left out by the rules of URLs: two lines would be one address.
        Ok(_) if text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(format!("{}has a space or a line break in it", without_secrets(text)))
        }
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
            Err(format!("{}is not an http or https URL", without_secrets(text)))
        }
        Ok(url) if url.fragment().is_some() => {
            Err(format!("{}has a fragment, which is never sent", without_secrets(text)))
        }
        Ok(url) if url.query_pairs().any(|(name, _)| may_be_secret(&name)) => Err(format!(
            "{}has a key in its query, and keys do not belong into the configuration file",
            without_secrets(text)
        )),
        // The URL is not repeated: it may hold a password.
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Err("holds a user name or password".to_owned())
        }
        Ok(_) => Ok(text.trim_end_matches('/').to_owned()),
        Err(error) => Err(format!("{}is not a URL ({error})", without_secrets(text))),
    });
    match (base_url, vendor.and_then(|vendor| vendor.base_url)) {
        (Some(base_url), _) => base_url,
        (None, Some(base_url)) => base_url.to_owned(),
        (None, None) => {
            // The address is not guessed: a key must not be sent to a server that it does not belong to.
            if is_missing {
                section.fault("base_url", "is missing", EXPECTED);
            }
            String::new()
        }
    }
}

fn read_headers(mut section: Section<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in section.take_all() {
        let ValueKind::String(value) = value.kind else {
            section.fault(&name, "is not a text", "a header's value");
            continue;
        };
        if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
            section.fault(&name, "is not a header with a value", "for example \"OpenAI-Organization\" = \"org-1\"");
        } else if KEY_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            section.fault(&name, "keys do not belong into the configuration file", "api_key_env and the like");
        } else {
            headers.push((name, value));
        }
    }
    headers
}

/// Reads timeouts. One that is not given is that of `provider`, or else the declared default.
pub(super) fn read_timeouts(mut section: Section<'_>, provider: Option<Timeouts>) -> Timeouts {
    let says_first_byte = section.has("first_byte");
    let mut read = |key: &'static str, of_provider: Option<Duration>| match of_provider {
        Some(of_provider) => section.positive_duration(key).unwrap_or(of_provider),
        None => section.positive_duration_or_default(key),
    };
    let timeouts = Timeouts {
        connect: read("connect", provider.map(|provider| provider.connect)),
        first_byte: read("first_byte", provider.map(|provider| provider.first_byte)),
        idle: read("idle", provider.map(|provider| provider.idle)),
        total: read("total", provider.map(|provider| provider.total)),
    };
    if says_first_byte && timeouts.first_byte > timeouts.total {
        section.reading().warn(format!(
            "{} is {}, and total is {}, which ends a call first",
            section.key_in_file("first_byte"),
            humantime::format_duration(timeouts.first_byte),
            humantime::format_duration(timeouts.total)
        ));
    }
    section.finish();
    timeouts
}

/// When targets are shut for their failures, and when they are passed over for their answers. `total`: the time that
/// ends a call.
fn read_breaker(mut section: Section<'_>, total: Duration) -> (BreakerSettings, QualitySettings) {
    let breaker = BreakerSettings {
        min_calls: section.whole_or_default("min_calls"),
        failure_rate: section.fraction_or_default("failure_rate"),
        window: section.positive_duration_or_default("window"),
        open: section.positive_duration_or_default("open"),
    };
    let (says_slow, says_rate) = (section.has("slow"), section.has("slow_rate"));
    let BreakerSettings { min_calls, window, open, .. } = breaker;
    let quality = QualitySettings {
        min_calls,
        window,
        open,
        slow: section.positive_duration("slow"),
        slow_rate: section.fraction_or_default("slow_rate"),
        soft_failure_rate: section.fraction_or_default("soft_failure_rate"),
        wasted_token_rate: section.fraction_or_default("wasted_token_rate"),
    };
    if says_rate && !says_slow {
        section.fault("slow_rate", "has no meaning without `slow`", "beside it `slow`, the longest good time");
    }
    if let Some(slow) = quality.slow.filter(|slow| *slow >= total) {
        section.fault(
            "slow",
            format!(
                "is {}, and `timeouts.total` ends a call after {}: no answer is ever slow",
                humantime::format_duration(slow),
                humantime::format_duration(total)
            ),
            "less than `timeouts.total` of the provider",
        );
    }
    section.finish();
    (breaker, quality)
}

fn read_probe(provider: &mut Section<'_>) -> Option<ProbeSettings> {
    const PAGE: &str = "a path at the provider's server, such as \"/health\"";
    let is_table = matches!(provider.peek("probe")?.kind, ValueKind::Table(_));
    let mut section = provider.child("probe");
    if !is_table {
        // That it is none has been said.
        section.finish();
        return None;
    }
    let is_missing = !section.has("path");
    let page = section.parsed("path", PAGE, |text| {
        let page = ProbePage::parse(text).map_err(|reason| format!("{}{reason}", without_secrets(text)))?;
        let query = page.parts().1.unwrap_or_default();
        let names = query.split('&').map(|member| member.split('=').next().unwrap_or_default());
        if names.into_iter().any(may_be_secret) {
            return Err(format!(
                "{}has a key in its query, and keys do not belong into the configuration file",
                without_secrets(text)
            ));
        }
        Ok(page)
    });
    if is_missing {
        section.fault("path", "is missing", PAGE);
    }
    let every = section.duration_of_at_least_or_default("every", LEAST_PROBE);
    let timeout = section.positive_duration("timeout").unwrap_or_else(|| every.min(USUAL_PROBE_TIMEOUT));
    if timeout > every {
        let (timeout, every) = (humantime::format_duration(timeout), humantime::format_duration(every));
        section.fault(
            "timeout",
            format!("is {timeout}, and the next probe goes after {every}"),
            "no more than `every`",
        );
    }
    let failures = section.whole_or_default("failures");
    section.finish();
    Some(ProbeSettings { page: page?, every, timeout, failures })
}

/// The bucket of a provider or model: the one it names, or one of its own name.
pub(super) fn read_bucket(owner: &str, section: &mut Section<'_>, buckets: &mut BTreeMap<String, Limits>) -> String {
    let named = section.text("bucket", "the name of one of the [buckets]");
    let has_limits = section.has("limits");
    let limits = read_limits(section.child("limits"));
    if let Some(bucket) = named {
        if has_limits {
            section.fault("bucket", "there are limits too", "either limits or the bucket that has them");
        }
        if !buckets.contains_key(&bucket) {
            let known: Vec<&str> = buckets.keys().map(String::as_str).collect();
            let expected = match scalar::nearest(&bucket, known.iter().copied()) {
                Some(near) => format!("perhaps {near}"),
                None => format!("a section [buckets.{bucket}]"),
            };
            section.fault("bucket", format!("there is no bucket {bucket:?}"), expected);
        }
        return bucket;
    }
    if has_limits && buckets.contains_key(owner) {
        let problem = format!("there is a section [buckets.{owner}] too, which has the limits of this one");
        section.fault("limits", problem, "only one of the two");
    }
    buckets.entry(owner.to_owned()).or_insert(limits);
    owner.to_owned()
}

/// One of `requests_per_minute` and so on: its key, unit and time.
const RATES: &[(&str, Unit, u64)] = &[
    ("requests_per_second", Unit::Requests, 1),
    ("requests_per_minute", Unit::Requests, 60),
    ("requests_per_day", Unit::Requests, DAY),
    ("tokens_per_second", Unit::Tokens, 1),
    ("tokens_per_minute", Unit::Tokens, 60),
    ("tokens_per_day", Unit::Tokens, DAY),
    ("input_tokens_per_second", Unit::InputTokens, 1),
    ("input_tokens_per_minute", Unit::InputTokens, 60),
    ("input_tokens_per_day", Unit::InputTokens, DAY),
    ("output_tokens_per_second", Unit::OutputTokens, 1),
    ("output_tokens_per_minute", Unit::OutputTokens, 60),
    ("output_tokens_per_day", Unit::OutputTokens, DAY),
    ("inputs_per_second", Unit::Inputs, 1),
    ("inputs_per_minute", Unit::Inputs, 60),
    ("inputs_per_day", Unit::Inputs, DAY),
];
const DAY: u64 = 86_400;

fn read_limits(mut section: Section<'_>) -> Limits {
    let burst_requests: Option<u64> = section.whole("burst_requests");
    let burst_tokens: Option<u64> = section.whole("burst_tokens");
    let burst_inputs: Option<u64> = section.whole("burst_inputs");
    let mut rates = Vec::new();
    for &(key, unit, seconds) in RATES {
        let Some(amount) = section.whole::<u64>(key) else { continue };
        let burst = match unit {
            Unit::Requests => burst_requests,
            Unit::Tokens | Unit::InputTokens | Unit::OutputTokens => burst_tokens,
            Unit::Inputs => burst_inputs,
        };
        // A day's allowance may be used at once: the burst only shapes the short limits.
        let burst = burst.filter(|_| seconds < DAY).unwrap_or(amount);
        rates.push(Rate { unit, amount, per: Duration::from_secs(seconds), burst });
    }
    let concurrency = section.whole("concurrency");
    section.finish();
    Limits { rates, concurrency }
}

/// The names of all providers, for suggestions.
pub(super) fn names(providers: &BTreeMap<String, ReadProvider>) -> Vec<&str> {
    providers.keys().map(String::as_str).collect()
}
