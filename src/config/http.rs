//! `[http]`: where a worker serves its pages, and who may open and use them.

use super::Keys;
use super::section::Section;
use crate::permissions::read_secret;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::Path;

/// A file with a token in it is not larger than this.
const MOST_BYTES: u64 = 1 << 16;
/// A shorter token could be found out by trying.
const LEAST_CHARACTERS: usize = 24;

const SOURCES: &str = "token_env = \"VARIABLE\", token_file = \"PATH\" or credential = \"NAME\"";

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// The address that serves health, metrics, status, the dashboard and the API; `None`: none.
    pub listen: Option<SocketAddr>,
    /// Whether the user chose that address: then it is required. The default is optional, and left out when another
    /// process (a second worker on the same machine) has it.
    pub chosen: bool,
    /// Names under which it may be asked on loopback, beside those of this machine: the names of a proxy before it.
    pub hosts: Vec<String>,
    /// The secret that a user of the dashboard and the API must know; `None`: on loopback nothing, and elsewhere they
    /// are closed.
    pub token: Option<SecretString>,
    /// Whether the dashboard and the API change nothing.
    pub read_only: bool,
    /// Whether they show prompts and answers.
    pub bodies: bool,
}

impl Http {
    pub(super) fn read(mut section: Section<'_>, keys: Keys) -> Self {
        let chosen = section.has("listen");
        let listen =
            section.parsed_or_default(
                "listen",
                "an address such as \"127.0.0.1:9470\", or \"off\"",
                |text| match text {
                    "off" => Ok(None),
                    address => {
                        address.parse().map(Some).map_err(|_| format!("{address:?} is not an address with a port"))
                    }
                },
            );
        let hosts =
            section.parsed_list("hosts", "a list of names such as [\"sluice.example.org\"], without ports", |name| {
                let is_name = |name: &str| {
                    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
                };
                if is_name(name) { Ok(name.to_owned()) } else { Err(format!("{name:?} is not a name of a host")) }
            });
        let token = read_token(&mut section, keys);
        let read_only = section.flag_or_default("read_only");
        let bodies = section.flag_or_default("bodies");
        section.finish();
        Self { listen, chosen, hosts: hosts.unwrap_or_default(), token, read_only, bodies }
    }

    /// Whether it listens elsewhere than on loopback.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.listen.is_some_and(|listen| !listen.ip().to_canonical().is_loopback())
    }
}

fn read_token(section: &mut Section<'_>, keys: Keys) -> Option<SecretString> {
    if section.take_forbidden("token") {
        section.fault("token", "tokens do not belong into the configuration file", SOURCES);
    }
    let variable = section.text("token_env", "the name of a variable");
    let file = section.path("token_file");
    let credential = section.text("credential", "the name of a systemd credential");
    if [variable.is_some(), file.is_some(), credential.is_some()].iter().filter(|given| **given).count() > 1 {
        section.fault("token_env", "the token is given in more than one way", format!("only one of {SOURCES}"));
        return None;
    }
    if keys == Keys::Ignored {
        return None;
    }
    let environment = &section.reading().environment;
    if let Some(variable) = variable {
        let Some(token) = environment.get(&variable).map(|token| token.trim()).filter(|token| !token.is_empty()) else {
            let problem = format!("the variable {variable} is not set, so there is no token");
            section.fault("token_env", problem, "a variable that holds the token");
            return None;
        };
        return checked(token, "token_env", section);
    }
    let (key, path) = if let Some(file) = file {
        ("token_file", file)
    } else {
        let credential = credential?;
        let Some(dir) = environment.get("CREDENTIALS_DIRECTORY") else {
            let expected = format!("a start by systemd with LoadCredential={credential}:PATH");
            section.fault("credential", "CREDENTIALS_DIRECTORY is not set, so there is no token", expected);
            return None;
        };
        ("credential", Path::new(dir).join(credential))
    };
    match read_secret(&path, MOST_BYTES) {
        Ok((token, flaws)) => {
            // systemd sees to the modes of credentials.
            for exposed in flaws.iter().filter(|_| key == "token_file") {
                section.reading().warn(format!("the token of the dashboard is not safe: {exposed}"));
            }
            checked(token.trim(), key, section)
        }
        Err(error) => {
            let problem = format!("the token cannot be read from {}: {error}", path.display());
            section.fault(key, problem, "a file that holds nothing but the token");
            None
        }
    }
}

/// Checks that a token cannot be found out by trying. The fault does not repeat it.
fn checked(token: &str, key: &str, section: &Section<'_>) -> Option<SecretString> {
    let expected =
        format!("at least {LEAST_CHARACTERS} characters without blanks, such as the output of `openssl rand -hex 32`");
    let length = token.chars().count();
    if length < LEAST_CHARACTERS {
        section.fault(key, format!("the token is too short: it has {length} characters"), expected);
        return None;
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        section.fault(key, "the token has blanks or characters in it that fit into no header", expected);
        return None;
    }
    Some(SecretString::from(token))
}
