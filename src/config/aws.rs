//! Access keys of AWS, from the places where its own tools look for them.

use super::api_keys;
use super::section::Section;
use super::words::{AUTH_KINDS, AuthKind, CREDENTIAL_SOURCES, CredentialSource};
use crate::permissions::read_secret;
use crate::provider::{AccessKey, ApiKey, AwsRole, DIALECTS, Dialect, RoleSource, RoleToken, Url, vendors};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// A file with credentials is not larger than this.
const MOST_BYTES: u64 = 1 << 20;

/// The forms of an access key in one text.
const FORMS: &str = "ID:SECRET or ID:SECRET:TOKEN, the JSON of `aws sts` or `aws configure export-credentials`, or a \
                     file of the form of ~/.aws/credentials";

/// The variables by which a platform says where the keys of a role are.
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE: &str = "AWS_ROLE_ARN";

/// The places of the usual order.
const PLACES: &str = "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or a profile \
                      in ~/.aws/credentials (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE), or \
                      credential_source = \"instance\" on an instance with a role, or api_key_env, api_key_file or \
                      credential with the access key";

/// The region, the profile and the source of keys of a provider whose calls are signed.
pub(super) struct Signing {
    region: Option<String>,
    profile: Option<String>,
    source: Option<CredentialSource>,
}

/// The service of a container on ECS, for a path without a host.
const CONTAINER: &str = "http://169.254.170.2";

/// The hosts from which a container's keys may come without TLS.
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// The service of an instance.
const INSTANCE: &str = "http://169.254.169.254";

/// Reads whether calls are signed, and for which region; `None` for keys that go with each call.
pub(super) fn read(section: &mut Section<'_>, dialect: &Dialect, base_url: &str) -> Option<Signing> {
    let kind = section.word_or_default("auth", "is no way to authenticate", AUTH_KINDS);
    let region = section.parsed("region", "a region such as \"eu-central-1\"", |text| {
        if is_region(text) { Ok(text.to_owned()) } else { Err("is not the name of a region".to_owned()) }
    });
    let profile = section.text("profile", "the name of a profile in ~/.aws/credentials");
    let expected = CREDENTIAL_SOURCES.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let source = section.parsed("credential_source", &expected, |word| {
        let known = CREDENTIAL_SOURCES.iter().find(|(known, _)| *known == word).map(|(_, source)| *source);
        known.ok_or_else(|| format!("{word:?} is no place where keys of a role come from"))
    });
    if profile.is_some() && source.is_some() {
        section.fault("credential_source", "there is a profile too", "either this or profile");
    }
    let given = [("region", region.is_some()), ("profile", profile.is_some()), ("credential_source", source.is_some())];
    if kind == AuthKind::Key {
        for (key, given) in given {
            if given {
                section.fault(key, "has no effect on calls that are not signed", "auth = \"sigv4\" too");
            }
        }
        return None;
    }
    if dialect.signs_for.is_none() {
        let problem = format!("calls in the dialect {:?} carry a key and are not signed", dialect.name);
        let signing = DIALECTS.iter().filter(|dialect| dialect.signs_for.is_some());
        let signing = signing.map(|dialect| format!("dialect = {:?}", dialect.name)).collect::<Vec<_>>().join(", ");
        section.fault("auth", problem, format!("{signing}, or no auth"));
        return None;
    }
    Some(Signing { region: region.or_else(|| region_of(base_url)), profile, source })
}

fn is_region(text: &str) -> bool {
    let is_of_them = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_of_them)
}

/// The region in the name of a server of AWS: `bedrock-runtime.REGION.amazonaws.com`, with `-fips`, in China, behind an
/// endpoint of a VPC, or under the newer `api.aws`.
fn region_of(base_url: &str) -> Option<String> {
    let url = Url::parse(base_url).ok()?;
    let host = url.host_str()?;
    if !vendors::takes_signatures(host) {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let service = labels.iter().position(|label| label.starts_with("bedrock"))?;
    labels.get(service + 1).filter(|label| is_region(label) && label.contains('-')).map(|&label| label.to_owned())
}

/// Whether keys may come from this address: by TLS, or from this machine.
fn is_safe_address(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let is_here = || {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback()) || PLAIN_HOSTS.contains(&host)
    };
    url.scheme() == "https" || is_here()
}

/// Warns of calls that AWS can only refuse: without a key and without a signature, or with an access key in place of
/// an API key.
pub(super) fn check_unsigned(
    provider: &str,
    section: &Section<'_>,
    dialect: &Dialect,
    base_url: &str,
    keys: &[ApiKey],
) {
    if dialect.signs_for.is_none() {
        return;
    }
    let host = Url::parse(base_url).ok().and_then(|url| url.host_str().map(str::to_owned));
    if keys.is_empty() && host.is_some_and(|host| vendors::takes_signatures(&host)) {
        section.reading().warn(format!(
            "provider {provider}: its calls carry no key and are not signed, so AWS refuses them: add api_key_env with \
             one of Bedrock's API keys, or auth = \"sigv4\""
        ));
    }
    for key in keys.iter().filter(|key| looks_like_access_key(key.secret.expose_secret())) {
        section.reading().warn(format!(
            "provider {provider}: {} holds an access key of AWS, which is no API key: add auth = \"sigv4\"",
            key.name
        ));
    }
}

fn looks_like_access_key(text: &str) -> bool {
    let text = text.trim_start();
    ["AKIA", "ASIA"].iter().any(|start| text.starts_with(start)) || text.starts_with('{')
}

/// The parts of an access key, as far as they were found.
#[derive(Default)]
struct Found {
    id: String,
    secret: String,
    token: Option<String>,
}

/// The credentials of one form of JSON. Others' members are left alone.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Json {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    credentials: Option<Box<Self>>,
}

impl Found {
    /// Reads any of the [`FORMS`].
    fn read(text: &str, profile: &str) -> Option<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            let json: Json = serde_json::from_str(text).ok()?;
            let json = match json.credentials {
                Some(inner) => *inner,
                None => json,
            };
            return Some(Self { id: json.access_key_id?, secret: json.secret_access_key?, token: json.session_token });
        }
        if text.lines().count() > 1 || text.starts_with('[') {
            let mut profiles = Profiles::read(text, Kind::Credentials);
            return Self::of_profile(profiles.0.remove(profile)?);
        }
        let (id, rest) = text.split_once(':')?;
        let (secret, token) = match rest.split_once(':') {
            Some((secret, token)) => (secret, Some(token.to_owned())),
            None => (rest, None),
        };
        Some(Self { id: id.to_owned(), secret: secret.to_owned(), token })
    }

    fn of_profile(mut settings: BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            id: settings.remove("aws_access_key_id")?,
            secret: settings.remove("aws_secret_access_key")?,
            token: settings.remove("aws_session_token"),
        })
    }

    /// The key under this name, if it can be one; otherwise the problem, which does not repeat it.
    fn checked(self, name: String, region: &str) -> Result<ApiKey, &'static str> {
        let Self { id, secret, token } = self;
        let token = token.filter(|token| !token.is_empty());
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("the id of the access key is empty, or has characters that no id has");
        }
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain(&secret) || !token.as_deref().is_none_or(is_plain) {
            return Err("the secret of the access key or its token is empty, or has characters that no secret has");
        }
        if id.starts_with("ASIA") && token.is_none() {
            return Err("the access key is a temporary one (ASIA…), and its session token is missing");
        }
        let access =
            AccessKey { id: id.into(), session_token: token.map(SecretString::from), region: region.to_owned() };
        Ok(ApiKey { name, secret: secret.into(), access: Some(access), role: None })
    }
}

/// Which of the two files of AWS's tools is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[NAME]`
    Credentials,
    /// `[profile NAME]` and `[default]`
    Config,
}

/// The profiles of a file, with their settings.
struct Profiles(BTreeMap<String, BTreeMap<String, String>>);

impl Profiles {
    fn read(text: &str, kind: Kind) -> Self {
        let mut profiles: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut at: Option<String> = None;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(head) = trimmed.strip_prefix('[') {
                let head = head.split(']').next().unwrap_or_default().trim();
                let name = head.strip_prefix("profile").filter(|name| name.starts_with(char::is_whitespace));
                at = match (kind, name) {
                    (Kind::Config, Some(name)) => Some(name.trim().to_owned()),
                    (Kind::Config, None) => (head == "default").then(|| head.to_owned()),
                    (Kind::Credentials, _) => Some(head.to_owned()),
                };
                continue;
            }
            // Indented lines belong to a setting of their own (`s3 =`).
            let is_nested = line.starts_with(char::is_whitespace);
            if let (Some(at), Some((name, value)), false) = (&at, trimmed.split_once('='), is_nested) {
                let value = [" #", " ;"].iter().fold(value, |value, mark| value.split(mark).next().unwrap_or_default());
                let settings = profiles.entry(at.clone()).or_default();
                settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        Self(profiles)
    }
}

impl Signing {
    /// The key in this text, which came from `source` of the configuration.
    pub(super) fn key_of(&self, name: String, text: &str, source: &str, section: &Section<'_>) -> Option<ApiKey> {
        let profile = self.profile.as_deref().unwrap_or("default");
        let Some(found) = Found::read(text, profile) else {
            section.fault(source, "there is no access key of AWS in it", FORMS);
            return None;
        };
        self.made(found, name, source, section, None)
    }

    /// The key of the usual places, where the configuration names none.
    pub(super) fn usual_key(&self, provider: &str, section: &Section<'_>) -> Option<ApiKey> {
        let variable = |name: &str| {
            let value = section.reading().environment.get(name).map(|value| value.trim());
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        if let Some(source) = self.source {
            return self.role_key(source, provider, section);
        }
        // A profile that the configuration names is more specific than variables of the whole process.
        if self.profile.is_none() {
            match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
                (Some(id), Some(secret)) => {
                    let found = Found { id, secret, token: variable("AWS_SESSION_TOKEN") };
                    return self.made(found, "AWS_ACCESS_KEY_ID".to_owned(), "auth", section, None);
                }
                (None, None) => {}
                _ => {
                    let problem = "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set";
                    section.fault("auth", problem, "both, or neither");
                    return None;
                }
            }
        }
        if self.profile.is_none() && variable(TOKEN_FILE).is_some() {
            return self.role_key(CredentialSource::WebIdentity, provider, section);
        }
        let profile = self.profile.clone().or_else(|| variable("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned());
        let home = variable("HOME").map(PathBuf::from);
        let file = |name: &str, usual: &str| match variable(name) {
            Some(path) => match (path.strip_prefix("~/"), &home) {
                (Some(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(PathBuf::from(path)),
            },
            None => home.as_ref().map(|home| home.join(".aws").join(usual)),
        };
        let mut others = BTreeMap::new();
        let mut keys = None;
        let mut looked = Vec::new();
        for (path, kind) in [
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), Kind::Credentials),
            (file("AWS_CONFIG_FILE", "config"), Kind::Config),
        ] {
            let Some(path) = path else { continue };
            looked.push(path.display().to_string());
            let (text, flaws) = match read_secret(&path, MOST_BYTES) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let problem = format!(
                        "the access key of the provider {provider} is not read from {}: {error}",
                        path.display()
                    );
                    section.fault("auth", problem, PLACES);
                    return None;
                }
            };
            let Some(settings) = Profiles::read(&text, kind).0.remove(&profile) else { continue };
            for (name, value) in &settings {
                others.entry(name.clone()).or_insert_with(|| value.clone());
            }
            if keys.is_none()
                && let Some(found) = Found::of_profile(settings)
            {
                if !api_keys::is_safe(provider, flaws, "auth", section) {
                    return None;
                }
                keys = Some((found, format!("profile {profile} of {}", path.display())));
            }
        }
        let Some((found, name)) = keys else {
            if self.profile.is_none() && [FULL_URI, RELATIVE_URI].iter().any(|name| variable(name).is_some()) {
                return self.role_key(CredentialSource::Container, provider, section);
            }
            let dynamic = ["sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"];
            let problem = match dynamic.iter().find(|name| others.contains_key(**name)) {
                Some(name) => format!(
                    "the profile {profile} has no access key but {name}, which Sluice does not follow, so there is no \
                     key for the provider {provider}"
                ),
                None => format!(
                    "there is no access key of AWS for the provider {provider}: AWS_ACCESS_KEY_ID is not {}, and there \
                     is none in the profile {profile} of {}",
                    if self.profile.is_some() { "asked" } else { "set" },
                    if looked.is_empty() { "any file (HOME is not set)".to_owned() } else { looked.join(" and ") }
                ),
            };
            section.fault("auth", problem, PLACES);
            return None;
        };
        self.made(found, name, "auth", section, others.remove("region"))
    }

    /// The role whose keys this source hands out. They are fetched when they are needed.
    fn role_key(&self, source: CredentialSource, provider: &str, section: &Section<'_>) -> Option<ApiKey> {
        let variable = |name: &str| {
            let value = section.reading().environment.get(name).map(|value| value.trim());
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let key = if self.source.is_some() { "credential_source" } else { "auth" };
        let missing = |name: &str| {
            let problem = format!("the variable {name} is not set, so there is no key for the provider {provider}");
            section.fault(key, problem, "the variables that the platform sets");
        };
        let address = |name: &str, url: String| {
            let is_url = Url::parse(&url).is_ok_and(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
            if !is_url {
                section.fault(key, format!("{name} is not the address of a server"), "http:// or https:// and a host");
            }
            is_url.then(|| url.trim_end_matches('/').to_owned())
        };
        let region = self.region_of_key(section, None)?;
        let (name, source) = match source {
            CredentialSource::Instance => {
                if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                    section.fault(key, "AWS_EC2_METADATA_DISABLED is true", "another source, or without the variable");
                    return None;
                }
                let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
                let url = address(name, variable(name).unwrap_or_else(|| INSTANCE.to_owned()))?;
                ("the role of the instance".to_owned(), RoleSource::Instance { url })
            }
            CredentialSource::Container => {
                let (name, url) = match (variable(RELATIVE_URI), variable(FULL_URI)) {
                    (Some(path), _) => (RELATIVE_URI, format!("{CONTAINER}{path}")),
                    (None, Some(url)) => (FULL_URI, url),
                    (None, None) => {
                        missing(FULL_URI);
                        return None;
                    }
                };
                let url = address(name, url)?;
                if !is_safe_address(&url) {
                    let problem = format!("{name} names another machine without TLS, and keys come from it");
                    section.fault(key, problem, "https://, or an address of this machine");
                    return None;
                }
                let value =
                    || variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|value| RoleToken::Value(value.into()));
                let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| RoleToken::File(path.into()));
                (name.to_owned(), RoleSource::Container { url, token: file.or_else(value) })
            }
            CredentialSource::WebIdentity => {
                let (Some(file), Some(role)) = (variable(TOKEN_FILE), variable(ROLE)) else {
                    missing(if variable(TOKEN_FILE).is_some() { ROLE } else { TOKEN_FILE });
                    return None;
                };
                let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                let url = variable("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
                let url = address("AWS_ENDPOINT_URL_STS", url)?;
                let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "sluice".to_owned());
                (TOKEN_FILE.to_owned(), RoleSource::WebIdentity { url, role, session, token_file: file.into() })
            }
        };
        Some(ApiKey { name, secret: String::new().into(), access: None, role: Some(AwsRole { source, region }) })
    }

    /// The key that was found. `region`: what its profile says.
    fn made(
        &self,
        found: Found,
        name: String,
        source: &str,
        section: &Section<'_>,
        region: Option<String>,
    ) -> Option<ApiKey> {
        let region = self.region_of_key(section, region)?;
        found.checked(name, &region).map_err(|problem| section.fault(source, problem, FORMS)).ok()
    }

    /// The region for which calls are signed. `of_profile`: what the profile says.
    fn region_of_key(&self, section: &Section<'_>, of_profile: Option<String>) -> Option<String> {
        let environment = &section.reading().environment;
        let of_variable = |name: &str| environment.get(name).map(|value| value.trim().to_owned());
        let region = (self.region.clone())
            .or_else(|| of_variable("AWS_REGION").filter(|region| !region.is_empty()))
            .or_else(|| of_variable("AWS_DEFAULT_REGION").filter(|region| !region.is_empty()))
            .or(of_profile);
        let Some(region) = region.filter(|region| is_region(region)) else {
            section.fault(
                "region",
                "is not known, and a signature holds for one region only: base_url names none",
                "region = \"eu-central-1\", or the variable AWS_REGION",
            );
            return None;
        };
        Some(region)
    }
}

#[cfg(test)]
mod tests;
