//! Where a secret comes from that is no provider's key: a variable, a file or a systemd credential.

use super::section::Section;
use crate::permissions::{Flaw, read_secret};
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// A file with a secret in it is not larger than this.
const MOST_BYTES: u64 = 1 << 16;

/// Where a secret comes from.
pub(super) struct SecretSource {
    /// The key that names the place.
    pub key: &'static str,
    from: From,
}

enum From {
    Variable(String),
    File(PathBuf),
    Credential(String),
}

impl SecretSource {
    /// The one source that is given, of a variable, a file and a credential.
    ///
    /// # Errors
    /// Several are given, or one that cannot be; the fault is recorded.
    pub fn of(section: &mut Section<'_>, keys: [&'static str; 3]) -> Result<Option<Self>, ()> {
        let [variable, file, credential] = keys;
        let given = keys.iter().filter(|key| section.has(key)).count();
        let found = [
            section.text(variable, "the name of a variable").map(|name| (variable, From::Variable(name))),
            section.path(file).map(|path| (file, From::File(path))),
            section.text(credential, "the name of a systemd credential").map(|it| (credential, From::Credential(it))),
        ];
        let mut found = found.into_iter().flatten();
        let first = found.next();
        if given > 1 {
            section.fault(variable, "is given in more than one way", format!("only one of {}", keys.join(", ")));
            return Err(());
        }
        match first {
            Some((key, from)) => Ok(Some(Self { key, from })),
            None if given == 0 => Ok(None),
            None => Err(()),
        }
    }

    /// Reads it; `what` names it in faults.
    pub fn read(&self, what: &str, section: &Section<'_>) -> Option<SecretString> {
        let environment = &section.reading().environment;
        let path = match &self.from {
            From::Variable(name) => {
                if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    section.fault(self.key, "is not the name of a variable", "the name, not the secret");
                    return None;
                }
                let value = environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
                if value.is_none() {
                    let problem = format!("the variable {name} is not set, so there is no {what}");
                    section.fault(self.key, problem, "a variable that holds it");
                }
                return value.map(SecretString::from);
            }
            From::File(path) => path.clone(),
            From::Credential(name) => {
                let Some(folder) = environment.get("CREDENTIALS_DIRECTORY") else {
                    let problem = format!("CREDENTIALS_DIRECTORY is not set, so there is no {what}");
                    section.fault(self.key, problem, format!("a start by systemd with LoadCredential={name}:PATH"));
                    return None;
                };
                Path::new(folder).join(name)
            }
        };
        match read_secret(&path, MOST_BYTES) {
            Ok((text, flaws)) => {
                // systemd sees to the modes of credentials.
                for exposed in flaws.iter().filter(|_| matches!(self.from, From::File(_))) {
                    if matches!(exposed.flaw, Flaw::Writable(_) | Flaw::Owner(_)) {
                        // Messages would go wherever another user likes.
                        let problem =
                            format!("the {what} is not used: {} {}", exposed.path.display(), exposed.problem());
                        section.fault(self.key, problem, exposed.remedy());
                        return None;
                    }
                    section.reading().warn(format!("the {what} is not safe: {exposed}"));
                }
                Some(SecretString::from(text.trim()))
            }
            Err(error) => {
                let problem = format!("the {what} cannot be read from {}: {error}", path.display());
                section.fault(self.key, problem, "a file that holds nothing else");
                None
            }
        }
    }
}
