//! Finds the file and layers the environment over it.

use super::section::{FROM_ENVIRONMENT, Table};
use super::{ConfigErrors, Fault};
use config::{ConfigError, Environment, File, FileFormat, ValueKind};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Where the file is looked for when nobody names one.
pub(super) const USUAL_FILES: [&str; 3] = ["./sluice.toml", "./config/sluice.toml", "/etc/sluice/sluice.toml"];

/// The file to read. One that was named is returned even when it does not exist, so that its absence is a fault.
pub(super) fn find_file(named: Option<&Path>, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    named
        .map(Path::to_owned)
        .or_else(|| environment.get("SLUICE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from))
        .or_else(|| USUAL_FILES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The option of the command line by which a database is named. It stands among the variables under this name, which is
/// none that a variable has.
pub const DATABASE_URL_OPTION: &str = "--database-url";

/// Our own variable for it.
const OUR_URL: &str = "SLUICE__DATABASE__URL";

/// What names the database beside the file, and how: of several the most specific one. An empty one is none.
pub(super) fn database_url(environment: &BTreeMap<String, String>) -> Option<(&'static str, &str)> {
    [DATABASE_URL_OPTION, OUR_URL, "DATABASE_URL"]
        .into_iter()
        .filter_map(|name| Some((name, environment.get(name)?.as_str())))
        .find(|(_, url)| !url.is_empty())
}

/// The merged tree of all sources.
pub(super) fn read(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Table, ConfigErrors> {
    let mut builder = config::Config::builder();
    if let Some(file) = file {
        // Checked first, because the crate says only "not found", without "permission denied" or "is a directory".
        let text = std::fs::read_to_string(file).map_err(|error| fault_of_file(file, &error))?;
        drop(text);
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
    }
    let mut variables: HashMap<String, String> = environment
        .iter()
        // An empty one is not set, and hides none that is.
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

fn fault_of_file(file: &Path, error: &std::io::Error) -> ConfigErrors {
    ConfigErrors::of(Fault {
        place: file.display().to_string(),
        key: String::new(),
        problem: format!("the file cannot be read: {error}"),
        expected: String::new(),
    })
}

/// A parser's message without the line of the file that it shows, which may hold a password or a header.
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
