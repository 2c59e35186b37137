//! `[traces]`: where traces are sent, and of which share of the jobs.

use super::Keys;
use super::secret_source::SecretSource;
use super::section::Section;
use crate::provider::otlp::{TraceCollector, collector_headers, collector_url};
use crate::provider::{HeaderName, Url};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;

/// Where headers may come from.
const SOURCES: &str = "headers_env = \"VARIABLE\", headers_file = \"PATH\" or credential = \"NAME\"";

/// The longest that one message may take.
const LONGEST: Duration = Duration::from_mins(1);

/// `[traces]`
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector that spans are sent to.
    pub collector: TraceCollector,
    /// The share of jobs whose traces are sent.
    pub sample: f64,
}

impl Traces {
    /// `None`: no traces are sent.
    pub(super) fn read(mut section: Section<'_>, keys: Keys) -> Option<Self> {
        let is_empty = section.is_empty();
        let is_given = section.has("endpoint");
        let expected = "an address such as \"http://127.0.0.1:4318/v1/traces\"";
        let endpoint = section.parsed("endpoint", expected, |text| collector_url(text).map_err(str::to_owned));
        let headers = read_headers(&mut section, keys, endpoint.as_ref());
        let sample = section.fraction_or_default("sample");
        let timeout = section.duration_of_at_least_or_default("timeout", Duration::from_millis(100));
        if timeout > LONGEST {
            section.fault("timeout", "is longer than a minute", "a duration of up to \"1m\"");
        }
        let service = section.text("service", "a name").unwrap_or_else(|| "sluice".to_owned());
        if !is_empty && !is_given {
            section.reading().warn("traces.endpoint is not set, so no traces are sent".to_owned());
        }
        section.finish();
        Some(Self { collector: TraceCollector { endpoint: endpoint?, headers, timeout, service }, sample })
    }
}

fn read_headers(section: &mut Section<'_>, keys: Keys, endpoint: Option<&Url>) -> Vec<(HeaderName, SecretString)> {
    if section.take_forbidden("headers") {
        section.fault("headers", "headers are secrets, which do not belong into the configuration file", SOURCES);
    }
    let Ok(Some(source)) = SecretSource::of(section, ["headers_env", "headers_file", "credential"]) else {
        return Vec::new();
    };
    if keys != Keys::Required {
        return Vec::new();
    }
    let is_plain = |url: &Url| url.scheme() == "http" && !super::is_loopback(url.as_str());
    if endpoint.is_some_and(is_plain) {
        section.reading().warn("the headers of traces are sent unencrypted: use https".to_owned());
    }
    let Some(text) = source.read("header for traces", section) else { return Vec::new() };
    collector_headers(text.expose_secret()).unwrap_or_else(|problem| {
        section.fault(source.key, format!("the headers of traces: {problem}"), "a line for each, as \"name: value\"");
        Vec::new()
    })
}
