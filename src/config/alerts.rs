//! `[alerts]`: rules and receivers.

use super::Keys;
use super::scalar;
use super::secret_source::SecretSource;
use super::section::{Reading, Section};
use super::words::{HOOK_FORMATS, SEVERITIES};
use crate::domain::alert::{AlertRule, AlertSettings, Appetite, HookFormat, RuleSettings};
use crate::domain::{MaxFailed, NanoUsd};
use crate::provider::hook::{Receiver, hook_url, signing_key};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeSet;
use std::time::Duration;

/// `[alerts]`
#[derive(Clone, Debug, Default)]
pub struct Alerts {
    /// The rules.
    pub settings: AlertSettings,
    /// The receivers, by name. Without their secrets where the command reads none.
    pub receivers: Vec<Receiver>,
}

/// Where an address may come from.
const URLS: &str = "url_env = \"VARIABLE\", url_file = \"PATH\", credential = \"NAME\" or url = \"https://…\"";

/// Where a secret may come from.
const SECRETS: &str = "secret_env = \"VARIABLE\", secret_file = \"PATH\" or secret_credential = \"NAME\"";

const SHARE: &str = "a share above 0 and up to 1, such as 0.2";

impl Alerts {
    pub(super) fn read(mut section: Section<'_>, keys: Keys) -> Self {
        let mut settings = AlertSettings { every: between(&mut section, "every", 1, 60), ..AlertSettings::default() };
        settings.clear = section.duration_or_default("clear");
        settings.repeat = Some(section.duration_or_default("repeat")).filter(|repeat| !repeat.is_zero());
        if let Some(repeat) = settings.repeat.filter(|repeat| *repeat < Duration::from_secs(1)) {
            section.fault("repeat", format!("{repeat:?} is shorter than 1s"), "\"0s\", or a second and more");
        }
        settings.keep = section.duration_of_at_least_or_default("keep", Duration::from_hours(1));
        settings.source = section.text("source", "a name");
        read_rules(section.child("rules"), &mut settings);
        let mut receivers: Vec<Receiver> = Vec::new();
        for (name, child) in section.children("receivers") {
            if let Some(receiver) = read_receiver(name, child, keys) {
                let is_same = |other: &&Receiver| other.url.expose_secret() == receiver.url.expose_secret();
                if let Some(other) = receivers.iter().find(is_same).filter(|_| reads_secrets(keys)) {
                    section.reading().warn(format!(
                        "alerts.receivers.{} and {} have the same address: what both take comes there twice",
                        other.name, receiver.name
                    ));
                }
                warn_of_rules_that_never_come(&receiver, &settings, section.reading());
                receivers.push(receiver);
            }
        }
        section.finish();
        Self { settings, receivers }
    }
}

fn reads_secrets(keys: Keys) -> bool {
    keys != Keys::Ignored
}

/// A duration of so many seconds at least and at most.
fn between(section: &mut Section<'_>, key: &'static str, least: u64, most: u64) -> Duration {
    let given = section.duration_of_at_least_or_default(key, Duration::from_secs(least));
    let most = Duration::from_secs(most);
    if given > most {
        section.fault(key, format!("is longer than {}", humantime::format_duration(most)), "a shorter duration");
    }
    given
}

fn read_rules(mut section: Section<'_>, settings: &mut AlertSettings) {
    for rule in AlertRule::ALL {
        let mut of = section.child(rule.as_str());
        let used = RuleSettings {
            on: of.flag_or_default("on"),
            severity: of.word_or_default("severity", "is no severity", SEVERITIES),
            hold: of.duration_or_default("for"),
        };
        settings.rules.insert(rule, used);
        let limits = &mut settings.thresholds;
        let share = |of: &mut Section<'_>, known: u32| of.fraction_of("share", SHARE).map_or(known, millionths);
        match rule {
            AlertRule::FallbackShare => {
                limits.fallback_share = share(&mut of, limits.fallback_share);
                limits.fallback_window = window(&mut of);
                limits.fallback_answers = of.whole_or_default("answers");
            }
            AlertRule::DearerRung => {
                limits.dearer_share = share(&mut of, limits.dearer_share);
                limits.dearer_window = window(&mut of);
                limits.dearer_amount = amount(&mut of);
            }
            AlertRule::CostSpike => {
                limits.spike_times = of.whole_or_default("times");
                limits.spike_amount = amount(&mut of);
            }
            AlertRule::UnknownPrice => limits.unknown_calls = of.whole_or_default("calls"),
            AlertRule::CostDiffers => limits.differing_calls = of.whole_or_default("calls"),
            AlertRule::ForgottenPause => limits.pause_age = of.duration_or_default("age"),
            AlertRule::BatchFailed => {
                limits.batch_failed_share = of.max_failed("share").map_or(limits.batch_failed_share, millionths);
            }
            AlertRule::Doctor => {
                settings.doctor_every = of.duration_of_at_least_or_default("every", Duration::from_secs(1));
            }
            _ => {}
        }
        if rule.is_event() && !used.hold.is_zero() {
            of.fault("for", "a batch ends once, and nothing lasts", "no such key, or \"0s\"");
        }
        of.finish();
    }
    section.finish();
}

fn millionths(share: MaxFailed) -> u32 {
    share.millionths()
}

/// Observations are kept for a day.
fn window(of: &mut Section<'_>) -> Duration {
    let window = of.duration_of_at_least_or_default("window", Duration::from_secs(1));
    if window > Duration::from_hours(24) {
        of.fault("window", "is longer than a day", "a duration of up to \"24h\"");
    }
    window
}

fn amount(of: &mut Section<'_>) -> NanoUsd {
    NanoUsd(of.parsed_or_default("amount", scalar::MONEY, scalar::nano_dollars))
}

fn read_receiver(name: String, mut section: Section<'_>, keys: Keys) -> Option<Receiver> {
    let before = section.reading().fault_count();
    let format = section.word_or_default("format", "is no format", HOOK_FORMATS);
    let rules = section.parsed_list("rules", "names of rules", |rule| {
        AlertRule::parse(rule).ok_or_else(|| {
            let near = scalar::nearest(rule, AlertRule::ALL.iter().map(|rule| rule.as_str()));
            let near = near.map_or_else(String::new, |near| format!("; perhaps {near:?}"));
            format!("there is no rule {rule:?}{near}")
        })
    });
    let severity = section.word_or_default("severity", "is no severity", SEVERITIES);
    let timeout = between(&mut section, "timeout", 1, 60);
    let url = read_url(&name, &mut section, keys);
    let secret = read_signing_secret(&name, &mut section, format, keys);
    let reading = section.reading();
    section.finish();
    if reading.fault_count() > before {
        return None;
    }
    let appetite = Appetite { rules: rules.map(|rules| rules.into_iter().collect::<BTreeSet<_>>()), severity };
    Some(Receiver { name, url: url?, format, secret, timeout, appetite })
}

/// A rule that a receiver names and never hears of looks as if nothing had happened.
fn warn_of_rules_that_never_come(receiver: &Receiver, settings: &AlertSettings, reading: &Reading) {
    let Appetite { rules: Some(rules), severity: least } = &receiver.appetite else { return };
    for rule in rules {
        let (name, RuleSettings { on, severity, .. }) = (rule.as_str(), settings.rule(*rule));
        let why = if !on {
            format!("that rule is off; set on = true in [alerts.rules.{name}]")
        } else if severity < *least {
            let severity = severity.as_str();
            format!(
                "it is {severity}, and the receiver takes {} and graver; set severity = \"{severity}\"",
                least.as_str()
            )
        } else {
            continue;
        };
        reading.warn(format!("alerts.receivers.{}.rules names {name}, which never comes there: {why}", receiver.name));
    }
}

/// The address of a receiver; empty where no secret is read.
fn read_url(name: &str, section: &mut Section<'_>, keys: Keys) -> Option<SecretString> {
    // No value is repeated in a message: it may be the secret.
    let is_plain = section.has("url");
    let plain = section.parsed("url", URLS, |text| checked_url(text).map_err(ToOwned::to_owned));
    let source = SecretSource::of(section, ["url_env", "url_file", "credential"]);
    match (is_plain, source) {
        (_, Err(())) => None,
        (true, Ok(Some(_))) => {
            section.fault("url", "the address is given in more than one way", URLS);
            None
        }
        (true, Ok(None)) => {
            let url = plain?;
            if let Some(exposed) = &section.reading().world_readable {
                section.reading().warn(format!(
                    "the configuration holds the address of the receiver {name}, which may be a secret, and {exposed}; \
                     or use url_file"
                ));
            }
            warn_of_plain_text(name, &url, section.reading());
            Some(url)
        }
        (false, Ok(None)) => {
            section.fault("", format!("the receiver {name} has no address"), URLS);
            None
        }
        (false, Ok(Some(_))) if !reads_secrets(keys) => Some(SecretString::from("")),
        (false, Ok(Some(source))) => {
            let text = source.read(&format!("address of the receiver {name}"), section)?;
            match checked_url(text.expose_secret().trim()) {
                Ok(url) => {
                    warn_of_plain_text(name, &url, section.reading());
                    Some(url)
                }
                Err(problem) => {
                    section.fault(source.key, format!("the address {problem}"), "https:// and the rest");
                    None
                }
            }
        }
    }
}

fn checked_url(text: &str) -> Result<SecretString, &'static str> {
    hook_url(text).map(|_| SecretString::from(text))
}

/// A message sent unencrypted to another machine can be read and changed on the way.
fn warn_of_plain_text(name: &str, url: &SecretString, reading: &Reading) {
    let url = url.expose_secret();
    if url.starts_with("http://") && !super::is_loopback(url) {
        reading.warn(format!("messages to the receiver {name} are sent unencrypted, as is its address: use https"));
    }
}

fn read_signing_secret(name: &str, section: &mut Section<'_>, format: HookFormat, keys: Keys) -> Option<SecretString> {
    if section.take_forbidden("secret") {
        section.fault("secret", "secrets do not belong into the configuration file", SECRETS);
    }
    let source = SecretSource::of(section, ["secret_env", "secret_file", "secret_credential"]).ok()??;
    if format == HookFormat::Slack {
        section.fault(source.key, "messages to Slack are not signed", "no secret, or format = \"generic\"");
        return None;
    }
    if !reads_secrets(keys) {
        return None;
    }
    let text = source.read(&format!("signing secret of the receiver {name}"), section)?;
    match signing_key(text.expose_secret()) {
        Ok(_) => Some(SecretString::from(text.expose_secret().trim())),
        Err(problem) => {
            section.fault(
                source.key,
                format!("the signing secret {problem}"),
                "whsec_ and the base64 of 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)",
            );
            None
        }
    }
}
