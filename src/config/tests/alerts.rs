//! Rules and receivers of alerts.

use super::*;
use crate::domain::NanoUsd;
use crate::domain::alert::{AlertRule, AlertSettings, AlertSeverity, HookFormat};

const SECRET: &str = "whsec_YWxlcnQtc2VjcmV0LW9mLTMyLWJ5dGVzLWV4YWN0bHk=";

fn receiver(lines: &str) -> Given {
    given(&format!("[alerts.receivers.ops]\n{lines}"))
}

#[test]
fn without_a_line_the_declared_defaults_hold() {
    let alerts = given("").config().alerts;
    assert_eq!(alerts.settings, AlertSettings::default(), "src/config/keys/alerts.rs and src/domain/alert.rs");
    assert!(alerts.receivers.is_empty());
}

#[test]
fn rules_are_switched_off_or_given_other_thresholds() {
    let settings = given(
        "[alerts]\nevery = \"5s\"\nrepeat = \"0s\"\nsource = \"prod\"\n[alerts.rules]\n\
         breaker_open = { on = false }\nkey_out = { severity = \"critical\", for = \"3m\" }\n\
         fallback_share = { share = 0.5, window = \"1h\", answers = 7 }\n\
         dearer_rung = { amount = \"2.50\" }\nbatch_failed = { share = 0 }\ndoctor = { every = \"1h\" }\n",
    )
    .config()
    .alerts
    .settings;
    assert!(!settings.rule(AlertRule::BreakerOpen).on && settings.rule(AlertRule::KeyOut).on);
    let key_out = settings.rule(AlertRule::KeyOut);
    assert_eq!((key_out.severity, key_out.hold), (AlertSeverity::Critical, Duration::from_mins(3)));
    let limits = settings.thresholds;
    assert_eq!((limits.fallback_share, limits.fallback_answers, limits.batch_failed_share), (500_000, 7, 0));
    assert_eq!(limits.dearer_amount, NanoUsd(2_500_000_000));
    assert_eq!((settings.every, settings.repeat), (Duration::from_secs(5), None));
    assert_eq!((settings.doctor_every, settings.source.as_deref()), (Duration::from_hours(1), Some("prod")));
}

#[test]
fn an_address_and_a_secret_come_from_a_variable_a_file_or_a_credential() {
    let url = "https://hooks.example.org/services/T0/B0/x";
    for lines in [
        "url_env = \"OPS_URL\"\nsecret_env = \"OPS_SECRET\"",
        "url_file = \"ops.url\"\nsecret_file = \"ops.secret\"",
        "credential = \"ops.url\"\nsecret_credential = \"ops.secret\"",
        "url = \"https://hooks.example.org/services/T0/B0/x\"\nsecret_env = \"OPS_SECRET\"",
    ] {
        let given = receiver(&format!("{lines}\nrules = [\"key_out\"]\nseverity = \"critical\"\ntimeout = \"3s\""))
            .with("OPS_URL", url)
            .with("OPS_SECRET", SECRET)
            .with_file("ops.url", &format!("{url}\n"))
            .with_file("ops.secret", SECRET);
        let folder = given.dir.path().to_str().unwrap().to_owned();
        let config = given.with("CREDENTIALS_DIRECTORY", &folder).config();
        let [ops] = config.alerts.receivers.as_slice() else { panic!("{lines}") };
        assert_eq!((ops.name.as_str(), ops.url.expose_secret(), ops.format), ("ops", url, HookFormat::Generic));
        assert_eq!(ops.secret.as_ref().map(secrecy::ExposeSecret::expose_secret), Some(SECRET));
        assert_eq!(ops.timeout, Duration::from_secs(3));
        assert!(ops.appetite.takes(AlertRule::KeyOut, AlertSeverity::Critical));
        assert!(!ops.appetite.takes(AlertRule::KeyOut, AlertSeverity::Warning));
        assert!(!ops.appetite.takes(AlertRule::Doctor, AlertSeverity::Critical));
        assert!(!format!("{ops:?}").contains("T0"), "no secret is printed");
    }
}

#[test]
fn a_command_without_keys_reads_no_secret_and_a_test_of_receivers_reads_no_key() {
    let file = "[providers.openai]\napi_key_env = \"NOT_SET\"\n[alerts.receivers.ops]\nurl_env = \"OPS_URL\"\n";
    let given = given(file).with("OPS_URL", "https://ops.example.org/");
    let load = |keys, variables: &[(String, String)]| {
        Config::load_with(Some(&given.dir.path().join("sluice.toml")), variables.to_vec(), keys)
    };
    assert_eq!(load(Keys::Ignored, &[]).unwrap().alerts.receivers[0].url.expose_secret(), "");
    let config = load(Keys::OfReceivers, &given.variables).unwrap();
    assert_eq!(config.alerts.receivers[0].url.expose_secret(), "https://ops.example.org/");
    assert!(load(Keys::OfReceivers, &[]).unwrap_err().to_string().contains("OPS_URL is not set"));
    assert!(load(Keys::Required, &given.variables).unwrap_err().to_string().contains("NOT_SET"));
}

#[test]
fn each_slip_is_named_with_what_is_expected_and_no_value_that_may_be_a_secret() {
    let url = "url = \"https://ops.example.org/zq\"\n";
    for (lines, key, problem) in [
        ("format = \"generic\"\n".to_owned(), "alerts.receivers.ops", "has no address"),
        (format!("{url}format = \"teams\"\n"), "alerts.receivers.ops.format", "\"teams\" is no format"),
        ("url = \"ops.example.org/zq\"\n".to_owned(), "alerts.receivers.ops.url", "is no URL"),
        (
            "url = \"https://ops.example.org/a\\nhttp://zq\"\n".to_owned(),
            "alerts.receivers.ops.url",
            "a line break in it",
        ),
        ("url = \"ftp://ops.example.org/zq\"\n".to_owned(), "alerts.receivers.ops.url", "begins with https://"),
        ("url = \"https://me:zq@ops.example.org/\"\n".to_owned(), "alerts.receivers.ops.url", "a name or a password"),
        (format!("{url}url_env = \"OPS_URL\"\n"), "alerts.receivers.ops.url", "more than one way"),
        ("url_env = \"A\"\nurl_file = \"b\"\n".to_owned(), "alerts.receivers.ops.url_env", "more than one way"),
        ("url_env = \"https://zq\"\n".to_owned(), "alerts.receivers.ops.url_env", "is not the name of a variable"),
        ("url_env = \"NOT_SET\"\n".to_owned(), "alerts.receivers.ops.url_env", "NOT_SET is not set"),
        ("url_file = \"none\"\n".to_owned(), "alerts.receivers.ops.url_file", "cannot be read"),
        ("credential = \"none\"\n".to_owned(), "alerts.receivers.ops.credential", "CREDENTIALS_DIRECTORY"),
        (format!("{url}secret = \"zq\"\n"), "alerts.receivers.ops.secret", "do not belong into the configuration"),
        (format!("{url}secret_env = \"SHORT\"\n"), "alerts.receivers.ops.secret_env", "is too short"),
        (format!("{url}secret_env = \"BARE\"\n"), "alerts.receivers.ops.secret_env", "does not begin with whsec_"),
        (
            format!("{url}format = \"slack\"\nsecret_env = \"SHORT\"\n"),
            "alerts.receivers.ops.secret_env",
            "messages to Slack are not signed",
        ),
        (format!("{url}rules = [\"breaker\"]\n"), "alerts.receivers.ops.rules[0]", "there is no rule \"breaker\""),
        (format!("{url}severity = \"high\"\n"), "alerts.receivers.ops.severity", "\"high\" is no severity"),
        (format!("{url}timeout = \"2m\"\n"), "alerts.receivers.ops.timeout", "is longer than 1m"),
        (format!("{url}webhook = \"zq\"\n"), "alerts.receivers.ops.webhook", "no such key"),
        ("[alerts.rules]\nbreakers = { on = false }\n".to_owned(), "alerts.rules.breakers", "no such key"),
        ("[alerts.rules]\nkey_out = { share = 0.1 }\n".to_owned(), "alerts.rules.key_out.share", "no such key"),
        ("[alerts.rules]\nfallback_share = { share = 2.0 }\n".to_owned(), "alerts.rules.fallback_share.share", "2"),
        ("[alerts.rules]\nbatch_failed = { for = \"1s\" }\n".to_owned(), "alerts.rules.batch_failed.for", "ends once"),
        ("[alerts]\nevery = \"5m\"\n".to_owned(), "alerts.every", "is longer than 1m"),
    ] {
        let given = if lines.starts_with('[') { given(&lines) } else { receiver(&lines) };
        let faults = given.with("SHORT", "whsec_enE=").with("BARE", "zqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzqzq").faults();
        assert_eq!(faults.len(), 1, "{lines}: {faults:?}");
        assert!(faults[0].starts_with(&format!("{key}: ")) && faults[0].contains(problem), "{lines}: {faults:?}");
        assert!(!faults[0].contains("zq"), "{lines}: {faults:?}");
    }
    let twice = given("[alerts.receivers.ops]\nurl = \"https://a/\"\n[alerts.receivers.ops]\nurl = \"https://b/\"\n");
    assert!(twice.load().unwrap_err().to_string().contains("line 3"), "a receiver that is named twice");
}

#[test]
fn what_is_sent_in_the_clear_or_comes_twice_is_a_warning() {
    let config = given(
        "[alerts.receivers.one]\nurl = \"http://ops.example.org/a\"\n[alerts.receivers.two]\n\
         url = \"http://ops.example.org/a\"\n[alerts.receivers.here]\nurl = \"http://127.0.0.1:9/a\"\n",
    )
    .config();
    let warned = |words: &str| config.warnings.iter().filter(|warning| warning.contains(words)).count();
    assert_eq!(warned("are sent unencrypted"), 2, "{:?}", config.warnings);
    assert_eq!(warned("have the same address"), 1, "{:?}", config.warnings);
    assert_eq!(warned("receiver here"), 0);
}

#[test]
fn a_receiver_that_names_a_rule_which_never_comes_is_a_warning() {
    let warnings = |lines: &str| given(lines).config().warnings;
    let receiver = |lines: &str| format!("[alerts.receivers.ops]\nurl = \"http://127.0.0.1:9/a\"\n{lines}\n");
    assert_eq!(
        warnings(&receiver("rules = [\"batch_completed\", \"key_out\"]")),
        ["alerts.receivers.ops.rules names batch_completed, which never comes there: it is info, and the receiver \
             takes warning and graver; set severity = \"info\""]
    );
    assert!(warnings(&receiver("rules = [\"batch_completed\"]\nseverity = \"info\"")).is_empty());
    assert!(warnings(&receiver("severity = \"critical\"")).is_empty(), "it names no rule");
    let off = format!("{}[alerts.rules]\nkey_out = {{ on = false }}\n", receiver("rules = [\"key_out\"]"));
    assert!(warnings(&off)[0].ends_with("that rule is off; set on = true in [alerts.rules.key_out]"));
}
