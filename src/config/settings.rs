//! The sections of the daemon itself: `[database]`, `[worker]`, `[retention]`, `[log]`.

use super::catalogue::Catalogue;
use super::keys::LOG;
use super::scalar;
use super::section::{Reading, Section, Table};
use super::source::{ConfigSource, database_url};
use super::words::{LOG_FORMATS, LogFormat, POOLERS};
use crate::domain::retention::Retention;
use crate::permissions::read_secret;
use crate::store::{Address, Pooler};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// `[database]`
#[derive(Clone, Debug)]
pub struct Database {
    /// A running Postgres; `None`: a private one is kept under `data_dir`.
    pub url: Option<SecretString>,
    /// The origin of the URL: a variable, an option of the command line, or the key of the file.
    pub url_set_by: String,
    /// The folder of the private Postgres.
    pub data_dir: PathBuf,
    /// The most connections that this process opens.
    pub max_connections: u32,
    /// The connection pooler between this process and the Postgres at `url`, if any.
    pub pooler: Pooler,
}

impl Database {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let (url, url_set_by) = Self::read_url(&mut section);
        let database = Self {
            url,
            url_set_by,
            data_dir: section.path("data_dir").unwrap_or_else(|| state_dir(section.reading()).join("postgres")),
            max_connections: section.whole_or_default("max_connections"),
            pooler: section.word_or_default("pooler", "is no kind of pooler", POOLERS),
        };
        section.finish();
        database
    }
}

/// The form of a URL.
const URL: &str = "postgres://user:password@host/database";
/// A file with a URL in it is not larger than this.
const MOST_URL_BYTES: u64 = 1 << 16;

impl Database {
    /// The URL, and its origin. A URL from the environment or the command line takes precedence over everything in the
    /// file.
    fn read_url(section: &mut Section<'_>) -> (Option<SecretString>, String) {
        // The URL is not repeated in a message: it may hold a password.
        let checked =
            |text: &str| text.parse::<Address>().map(|_| SecretString::from(text)).map_err(|error| error.to_string());
        let from_environment = database_url(&section.reading().environment).map(|(name, _)| name.to_owned());
        let url = section.parsed("url", URL, checked);
        let file = section.path("url_file");
        let credential = section.text("credential", "the name of a systemd credential");
        if let Some(name) = from_environment {
            return (url, name);
        }
        if [url.is_some(), file.is_some(), credential.is_some()].iter().filter(|given| **given).count() > 1 {
            section.fault(
                "url",
                "the database is given in more than one way",
                "only one of url, url_file and credential",
            );
            return (None, String::new());
        }
        if let Some(url) = url {
            if let Some(exposed) = &section.reading().world_readable
                && Address::holds_password(url.expose_secret())
            {
                let told = format!("the configuration holds the database's password, and {exposed}; or use url_file");
                section.reading().warn(told);
            }
            return (Some(url), section.key_in_file("url"));
        }
        let (key, path) = match (file, credential) {
            (Some(file), _) => ("url_file", file),
            (None, Some(name)) => {
                let Some(folder) = section.reading().environment.get("CREDENTIALS_DIRECTORY") else {
                    let expected = format!(
                        "a start by systemd with LoadCredential={name}:PATH; commands outside of the unit take \
                         DATABASE_URL"
                    );
                    let problem = "CREDENTIALS_DIRECTORY is not set, so it is not known where the database is";
                    section.fault("credential", problem, expected);
                    return (None, String::new());
                };
                ("credential", Path::new(folder).join(name))
            }
            (None, None) => return (None, section.key_in_file("url")),
        };
        let set_by = section.key_in_file(key);
        let url = match read_secret(&path, MOST_URL_BYTES) {
            Ok((text, flaws)) => {
                // systemd sees to the modes of credentials.
                for exposed in flaws.iter().filter(|_| key == "url_file") {
                    section.reading().warn(format!("the database's URL stands in a file that is not safe: {exposed}"));
                }
                checked(text.trim()).map_err(|problem| format!("the URL in {} {problem}", path.display()))
            }
            Err(error) => Err(format!("the database's URL cannot be read from {}: {error}", path.display())),
        };
        match url {
            Ok(url) => (Some(url), set_by),
            Err(problem) => {
                section.fault(key, problem, format!("a file that holds nothing but {URL}"));
                (None, set_by)
            }
        }
    }
}

/// The state directory of the service.
pub const SERVICE_STATE: &str = "/var/lib/sluice";

/// Where a process of this user keeps its state: systemd's directory, else the usual place of root or of a user. The
/// service's own user works on the service's state outside the service too: a command that looked elsewhere would find
/// an empty queue.
fn state_dir(reading: &Reading) -> PathBuf {
    let variable = |name: &str| reading.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = variable("STATE_DIRECTORY") {
        return dir;
    }
    if rustix::process::geteuid().is_root() || is_own(Path::new(SERVICE_STATE)) {
        return PathBuf::from(SERVICE_STATE);
    }
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| PathBuf::from(SERVICE_STATE), |dir| dir.join("sluice"))
}

/// Whether a folder belongs to the user of this process.
fn is_own(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw())
}

/// `[worker]`
#[derive(Clone, Debug)]
pub struct Worker {
    /// The most calls that this process has in flight.
    pub max_in_flight: usize,
    /// The worker takes no job while the requests in hand have this many bytes.
    pub max_in_flight_bytes: usize,
    /// How long calls may go on after the signal to stop, before their jobs are given back.
    pub drain_timeout: Duration,
    /// A job in whose hands this many workers died fails instead of being tried again.
    pub max_crashes: u16,
}

impl Worker {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let worker = Self {
            max_in_flight: section.whole_or_default("max_in_flight"),
            max_in_flight_bytes: section.whole_or_default("max_in_flight_bytes"),
            drain_timeout: section.duration_or_default("drain_timeout"),
            max_crashes: section.whole_or_default("max_crashes"),
        };
        section.finish();
        worker
    }
}

/// `[spool]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder in which outcomes wait while the database is away; `None`: they wait in memory.
    pub dir: Option<PathBuf>,
    /// The size limit of one worker's spool, in bytes.
    pub max_bytes: u64,
    /// Whether the user chose the folder: then it is required. The default is optional, and left out when it cannot be
    /// written to.
    pub chosen: bool,
}

impl Spool {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let chosen = section.path("dir");
        let max_bytes = section.whole_or_default("max_bytes");
        let is_off = chosen.as_deref().and_then(Path::file_name).is_some_and(|name| name == "off");
        let dir = chosen.clone().unwrap_or_else(|| state_dir(section.reading()).join("spool"));
        section.finish();
        Self { dir: (!is_off).then_some(dir), max_bytes, chosen: chosen.is_some() }
    }
}

/// `[retention]`
pub(super) fn read_retention(mut section: Section<'_>) -> Option<Retention> {
    let expected = "a duration such as \"90d\", an hour at least";
    let finished = section.parsed("finished", expected, |text| match scalar::duration(text)? {
        kept if kept < Retention::SHORTEST => Err(format!("{text:?} is too short")),
        kept => Ok(kept),
    });
    section.finish();
    finished.map(|finished| Retention { finished })
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The shape of lines on standard error and in files.
    pub format: LogFormat,
    /// The filter for log lines, in the syntax of `tracing-subscriber`: `info`, or `warn,sluice=debug`.
    pub filter: String,
    /// The folder of daily files, which are written beside standard error; `None`: none.
    pub dir: Option<PathBuf>,
    /// The number of daily files that are kept.
    pub keep: usize,
}

impl Default for Log {
    /// The declared values of keys that are not set.
    fn default() -> Self {
        let reading = Reading::new(None, None, BTreeMap::new());
        Self::read(Section::new(&reading, String::new(), &LOG, Table::new()))
    }
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let log = Self {
            format: section.word_or_default("format", "is not a format", LOG_FORMATS),
            filter: section.parsed_or_default("filter", "a filter such as \"info\" or \"warn,sluice=debug\"", |text| {
                match tracing_subscriber::EnvFilter::try_new(text) {
                    Ok(_) => Ok(text.to_owned()),
                    Err(error) => Err(format!("{text:?} is not a filter ({error})")),
                }
            }),
            dir: section.path("dir"),
            keep: section.whole_or_default("keep"),
        };
        section.finish();
        log
    }
}

/// The section `[prices]`.
#[derive(Clone, Debug)]
pub struct Prices {
    /// The catalogue that comes with the program, with the newer blocks of the file.
    pub catalogue: Arc<Catalogue>,
    /// Where a newer catalogue is kept; it need not exist. `None`: there is no configuration file.
    pub file: Option<PathBuf>,
    /// A reported cost that differs from the computed one by a larger share of that is an alert.
    pub reported_difference: f64,
}

impl Prices {
    /// Reads the section and the catalogue. `is_found`: the configuration lay in the current folder, and so may the
    /// catalogue beside it, where another user can have put it.
    pub(super) fn read(mut section: Section<'_>, is_found: bool) -> Self {
        let named = section.path("catalogue");
        let reported_difference = section.fraction_or_default("reported_difference");
        let beside = || section.reading().beside("prices.toml");
        let is_named = named.is_some();
        let file = named.or_else(beside);
        let mut catalogue = Catalogue::built_in();
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        if let Some(missing) = file.as_ref().filter(|path| is_named && !is_there(path)) {
            // `sluice prices update` may be about to write it.
            section.reading().warn(format!(
                "prices.catalogue: there is no {}: the prices that come with the program hold",
                missing.display()
            ));
        }
        if let Some(path) = file.clone().filter(is_there) {
            let source = ConfigSource { path, is_found };
            match Catalogue::of_source(&source) {
                Ok((newer, warnings)) => {
                    for warning in warnings {
                        section.reading().warn(warning);
                    }
                    catalogue = Arc::new(catalogue.with(newer));
                }
                Err(errors) => section.reading().fail(errors),
            }
        }
        section.finish();
        Self { catalogue, file, reported_difference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_ones_own_when_one_owns_it() {
        let own = tempfile::tempdir().unwrap();
        assert!(is_own(own.path()));
        assert!(!is_own(&own.path().join("missing")));
        // Belongs to root on every system; when we are root, it is ours.
        assert_eq!(is_own(Path::new("/usr")), rustix::process::geteuid().is_root());
    }
}
