//! The keys of a provider, wherever they are kept; never in the configuration itself.

use super::Keys;
use super::aws::Signing;
use super::keys::API_KEY;
use super::section::Section;
use crate::permissions::{Exposed, Flaw, read_secret};
use crate::provider::ApiKey;
use config::ValueKind;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::Path;

/// The places where a key may come from.
const SOURCES: &str = "api_key_env = \"VARIABLE\", api_key_file = \"PATH\" or credential = \"NAME\"";

/// A file with a key in it is not larger than this.
const MOST_BYTES: u64 = 1 << 20;

/// The form of a list of keys.
const LIST: &str = "a list such as [{ api_key_env = \"VARIABLE_A\" }, { api_key_file = \"PATH\" }]";

/// The keys of a provider, in the order of the configuration; empty for a server without keys. With `signing` they are
/// access keys of AWS, and the usual places of AWS are looked into where the configuration names none.
pub(super) fn read(provider: &str, section: &mut Section<'_>, keys: Keys, signing: Option<&Signing>) -> Vec<ApiKey> {
    let one = ["api_key_env", "api_key_file", "credential"].into_iter().find(|source| section.has(source));
    let Some(list) = section.take("keys") else {
        let key = match signing.filter(|_| one.is_none() && !section.has("api_key") && keys == Keys::Required) {
            Some(signing) => signing.usual_key(provider, section),
            None => read_one(provider, section, keys, signing),
        };
        return key.into_iter().collect();
    };
    if let Some(one) = one {
        section.fault(one, "there is a list of keys too", "either this or keys");
    }
    // The sources are known, and their faults are recorded already.
    let _ = read_one(provider, section, Keys::Ignored, signing);
    let ValueKind::Array(entries) = list.kind else {
        // The value is not repeated, here and below: it may be a key itself.
        section.fault("keys", "is not a list", LIST);
        return Vec::new();
    };
    if entries.is_empty() {
        section.fault("keys", "is empty", LIST);
    }
    let mut found: Vec<ApiKey> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("keys[{index}]");
        let ValueKind::Table(table) = entry.kind else {
            section.fault(&path, "is not a table", SOURCES);
            continue;
        };
        let mut entry = section.nested(&path, &API_KEY, table.into_iter().collect());
        if !["api_key", "api_key_env", "api_key_file", "credential"].iter().any(|source| entry.has(source)) {
            entry.fault("", "says nothing of where the key is", SOURCES);
        }
        let key = read_one(provider, &mut entry, keys, signing);
        entry.finish();
        let Some(key) = key else { continue };
        if found.iter().any(|other| other.name == key.name) {
            section.fault(&path, format!("{} is named before", key.name), "each key once");
            continue;
        }
        if let Some(same) = found.iter().find(|other| other.secret.expose_secret() == key.secret.expose_secret()) {
            let (key, same) = (&key.name, &same.name);
            section.reading().warn(format!("provider {provider}: {key} and {same} hold the same key"));
        }
        found.push(key);
    }
    found
}

/// The one key that a table names.
fn read_one(provider: &str, section: &mut Section<'_>, keys: Keys, signing: Option<&Signing>) -> Option<ApiKey> {
    if section.take_forbidden("api_key") {
        section.fault("api_key", "keys do not belong into the configuration file", SOURCES);
    }
    let variable = section.text("api_key_env", "the name of a variable");
    let file = section.path("api_key_file");
    let credential = section.text("credential", "the name of a systemd credential");
    if [variable.is_some(), file.is_some(), credential.is_some()].iter().filter(|given| **given).count() > 1 {
        section.fault("api_key_env", "the key is given in more than one way", format!("only one of {SOURCES}"));
        return None;
    }
    if keys != Keys::Required {
        return None;
    }
    let environment = &section.reading().environment;
    if let Some(variable) = variable {
        if !variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            // The value is not repeated: it may be the key itself.
            section.fault("api_key_env", "is not the name of a variable", "the name, not the key");
            return None;
        }
        let Some(key) = environment.get(&variable).map(|key| key.trim()).filter(|key| !key.is_empty()) else {
            section.fault(
                "api_key_env",
                format!("the variable {variable} is not set, so there is no key for the provider {provider}"),
                "a variable that holds the key",
            );
            return None;
        };
        return made(variable, key, "api_key_env", section, signing);
    }
    let (source, path, name) = if let Some(file) = file {
        let name = file.display().to_string();
        ("api_key_file", file, name)
    } else {
        let credential = credential?;
        let Some(dir) = environment.get("CREDENTIALS_DIRECTORY") else {
            section.fault(
                "credential",
                format!("CREDENTIALS_DIRECTORY is not set, so there is no key for the provider {provider}"),
                format!("a start by systemd with LoadCredential={credential}:PATH"),
            );
            return None;
        };
        ("credential", Path::new(dir).join(&credential), credential)
    };
    match read_secret(&path, MOST_BYTES) {
        Ok((key, flaws)) => {
            // systemd sees to the modes of credentials.
            if source == "api_key_file" && !is_safe(provider, flaws, source, section) {
                return None;
            }
            made(name, key.trim(), source, section, signing)
        }
        Err(error) => {
            let problem = format!("the key of the provider {provider} cannot be read from {}: {error}", path.display());
            section.fault(source, problem, "a file that holds nothing but the key");
            None
        }
    }
}

/// Whether a key from a file with these flaws is used; warns of those that only show it.
pub(super) fn is_safe(provider: &str, flaws: Vec<Exposed>, source: &str, section: &Section<'_>) -> bool {
    for exposed in flaws {
        if matches!(exposed.flaw, Flaw::Writable(_) | Flaw::Owner(_)) {
            // With another user's key the calls go to that user's account, which could read every prompt.
            let problem = format!(
                "the key of the provider {provider} is not used: {} {}",
                exposed.path.display(),
                exposed.problem()
            );
            section.fault(source, problem, exposed.remedy());
            return false;
        }
        section.reading().warn(format!("the key of the provider {provider} is not safe: {exposed}"));
    }
    true
}

/// The key in a text.
fn made(name: String, text: &str, source: &str, section: &Section<'_>, signing: Option<&Signing>) -> Option<ApiKey> {
    match signing {
        Some(signing) => signing.key_of(name, text, source, section),
        None => Some(ApiKey { name, secret: checked(text, source, section)?, access: None, role: None }),
    }
}

/// Checks that a key fits into a header. The fault does not repeat the key.
fn checked(key: &str, source: &str, section: &Section<'_>) -> Option<SecretString> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        section.fault(source, "the key is empty, or has blanks or characters in it that no key has", "the bare key");
        return None;
    }
    Some(SecretString::from(key))
}
