//! Finds the file and layers the environment over it.

use super::section::{FROM_ENVIRONMENT, Table};
use super::{ConfigErrors, Fault};
use crate::permissions::{Exposed, forgeable, ways_to, world_readable};
use config::{ConfigError, Environment, File, FileFormat, ValueKind};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The files that are tried when none is named.
pub const USUAL_FILES: [&str; 3] = ["./sluice.toml", "./config/sluice.toml", "/etc/sluice/sluice.toml"];

/// The largest file of a configuration, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// The file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigSource {
    pub path: PathBuf,
    /// Whether it lay in the current folder without being named by the user.
    pub is_found: bool,
}

/// Finds the file to read. A named one is returned even when it does not exist, so that its absence is a fault.
pub(super) fn find_file(named: Option<&Path>, environment: &BTreeMap<String, String>) -> Option<ConfigSource> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| environment.get("SLUICE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        return Some(ConfigSource { path, is_found: false });
    }
    let usual = USUAL_FILES.iter().map(PathBuf::from).find(|path| path.symlink_metadata().is_ok())?;
    Some(ConfigSource { is_found: usual.is_relative(), path: usual })
}

/// A file that was read.
#[derive(Default)]
pub(super) struct Text {
    words: String,
    /// Warnings about what another user may do with the file.
    pub warnings: Vec<String>,
    /// Set if all users may read the file: the advice for that case.
    pub world_readable: Option<Exposed>,
}

impl Text {
    /// What it says.
    pub(super) fn words(&self) -> &str {
        &self.words
    }
}

impl ConfigSource {
    /// Reads the file, once: it may be a pipe. A file in the current folder may have been put there by another user as
    /// a trap: the file and the folder have to belong to this user, or to root.
    pub(super) fn read(&self) -> Result<Text, ConfigErrors> {
        let file = &self.path;
        let refused = |exposed: &Exposed| {
            ConfigErrors::of(Fault {
                place: file.display().to_string(),
                key: String::new(),
                problem: if exposed.path == *file {
                    format!("was found in the current folder and is not used: it {}", exposed.problem())
                } else {
                    let other = exposed.path.display();
                    format!("was found in the current folder and is not used: {other} {}", exposed.problem())
                },
                expected: format!("{}; or name the file: --config {}", exposed.remedy(), file.display()),
            })
        };
        let mut options = OpenOptions::new();
        options.read(true);
        if self.is_found {
            if let Some(exposed) = ways_to(file).iter().find_map(|(path, found)| forgeable(path, found)) {
                return Err(refused(&exposed));
            }
            // Opening a pipe would block.
            options.custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0));
        }
        let opened = options.open(file).map_err(|error| fault_of_file(file, &error))?;
        let found = opened.metadata().map_err(|error| fault_of_file(file, &error))?;
        if self.is_found && !found.is_file() && !found.is_dir() {
            return Err(fault_of_file(file, &io::Error::other("it is no plain file")));
        }
        let mut read = Text::default();
        // Pipes and other special files were made by the user who named them.
        if found.is_file() {
            match forgeable(file, &found) {
                Some(exposed) if self.is_found => return Err(refused(&exposed)),
                Some(exposed) => read.warnings.push(format!("the configuration {exposed}")),
                None => {}
            }
            read.world_readable = world_readable(file, &found);
        }
        opened.take(MOST_BYTES).read_to_string(&mut read.words).map_err(|error| fault_of_file(file, &error))?;
        Ok(read)
    }
}

/// The option of the command line that names a database. It stands among the variables under this name, which no
/// variable can have.
pub const DATABASE_URL_OPTION: &str = "--database-url";

/// Our own variable for the URL.
const OUR_URL: &str = "SLUICE__DATABASE__URL";

/// The name and value of the setting that gives the database outside the file; of several, the most specific one. An
/// empty one does not count.
pub(super) fn database_url(environment: &BTreeMap<String, String>) -> Option<(&'static str, &str)> {
    [DATABASE_URL_OPTION, OUR_URL, "DATABASE_URL"]
        .into_iter()
        .filter_map(|name| Some((name, environment.get(name)?.as_str())))
        .find(|(_, url)| !url.is_empty())
}

/// The merged tree of all sources.
pub(super) fn read(
    file: Option<(&Path, &Text)>,
    environment: &BTreeMap<String, String>,
) -> Result<Table, ConfigErrors> {
    let mut builder = config::Config::builder();
    if let Some((_, read)) = file {
        builder = builder.add_source(File::from_str(&read.words, FileFormat::Toml));
    }
    let file = file.map(|(file, _)| file);
    let mut variables: HashMap<String, String> = environment
        .iter()
        // An empty variable counts as not set, and hides no other.
        .filter(|(name, value)| name.starts_with("SLUICE__") && !value.is_empty())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some((_, url)) = database_url(environment) {
        variables.insert(OUR_URL.to_owned(), url.to_owned());
    }
    builder = builder.add_source(
        Environment::with_prefix("SLUICE")
            .prefix_separator("__")
            .separator("__")
            .ignore_empty(true)
            .source(Some(variables)),
    );
    let merged = builder.build().map_err(|error| ConfigErrors::of(fault_of_parser(file, &error)))?;
    match merged.cache.kind {
        ValueKind::Table(table) => Ok(table.into_iter().collect()),
        _ => Ok(Table::new()),
    }
}

fn fault_of_file(file: &Path, error: &io::Error) -> ConfigErrors {
    ConfigErrors::of(Fault {
        place: file.display().to_string(),
        key: String::new(),
        problem: format!("the file cannot be read: {error}"),
        expected: String::new(),
    })
}

/// A parser's message without the quoted line of the file, which may hold a password or a header.
fn without_source(message: &str) -> String {
    let is_source = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    message.trim_end().lines().filter(|line| !is_source(line)).collect::<Vec<_>>().join(": ")
}

/// A syntax error, with its line and column.
fn fault_of_parser(file: Option<&Path>, error: &ConfigError) -> Fault {
    let file = || file.map_or_else(String::new, |file| file.display().to_string());
    match error {
        ConfigError::FileParse { cause, .. } => Fault {
            place: file(),
            key: String::new(),
            problem: format!("is not valid TOML: {}", without_source(&cause.to_string())),
            expected: String::new(),
        },
        other => Fault {
            place: FROM_ENVIRONMENT.to_owned(),
            key: String::new(),
            problem: other.to_string(),
            expected: String::new(),
        },
    }
}
