//! Failures of the private Postgres, in words for its owner.

use super::MINIMUM_MAJOR;
use crate::store::in_words;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the private Postgres could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No `initdb` and `postgres` were found.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) were found. Install them with: {install}\n\
         or name their folder in SLUICE_PG_BIN, or give the URL of a running server in DATABASE_URL"
    )]
    MissingBinaries {
        /// The command that installs them on this system.
        install: &'static str,
    },
    /// A client program was not found.
    #[error(
        "the program {program} of PostgreSQL was not found. Install it with: {install}, or name its folder in \
         SLUICE_PG_BIN"
    )]
    MissingClient {
        /// `psql`, `pg_dump` or `pg_restore`.
        program: &'static str,
        /// The command that installs it on this system.
        install: &'static str,
    },
    /// `SLUICE_PG_BIN` names a folder without them.
    #[error("SLUICE_PG_BIN is {}, but there is no initdb and postgres in it", .0.display())]
    WrongBinariesFolder(PathBuf),
    /// Only versions were found that are too old.
    #[error("PostgreSQL {} or newer is needed; {} is version {found}", MINIMUM_MAJOR, bin.display())]
    TooOld {
        /// Where it was found.
        bin: PathBuf,
        /// Its major version.
        found: u32,
    },
    /// The data directory was made by another major version than the ones installed.
    #[error(
        "{} was made by PostgreSQL {made_by}, but only version {installed} is installed. Install PostgreSQL \
         {made_by}, or convert the directory with pg_upgrade, or choose another database.data_dir",
        data_dir.display()
    )]
    OtherMajor {
        data_dir: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The version found.
        installed: u32,
    },
    /// The directory belongs to another user.
    #[error(
        "{} belongs to user id {owner}, not to the user id {me} that runs this program: run it as that user, \
         or choose another database.data_dir",
        data_dir.display()
    )]
    OtherOwner {
        data_dir: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// Our own user id.
        me: u32,
    },
    /// The directory holds other things.
    #[error("{} is not empty and holds no private PostgreSQL: choose another database.data_dir", .0.display())]
    NotADataDirectory(PathBuf),
    /// Root runs the server as an unprivileged user, and that user cannot get to the directory.
    #[error(
        "PostgreSQL does not run as root, and the user id {uid} that it would run as may not enter {}: \
         let it through (chmod o+x {}), or choose a database.data_dir elsewhere",
        blocked.display(), blocked.display()
    )]
    NotTraversable {
        /// The server's user.
        uid: u32,
        /// The first directory that stops this user.
        blocked: PathBuf,
    },
    /// Root has no unprivileged user to run the server as.
    #[error("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")]
    NoServerUser,
    #[error("initdb could not make the cluster: {0}")]
    Initdb(String),
    /// The server ended instead of starting.
    #[error("postgres did not start; {} ends with:\n{tail}", log.display())]
    Exited {
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The server did not get ready, or not get stopped, in time.
    #[error("postgres did not {what} within {limit:?}; see {}", log.display())]
    TimedOut {
        /// `start` or `stop`.
        what: &'static str,
        limit: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// A running server was found that would lose commits in a crash, and a durable one was wanted.
    #[error("the PostgreSQL that already runs on {} has fsync off: stop it first", .0.display())]
    NotDurable(PathBuf),
    #[error("the private PostgreSQL: {}", in_words(.0))]
    Sql(#[from] sqlx::Error),
    /// A file, directory or process could not be handled.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The attempted action.
        what: &'static str,
        /// The path that it concerned.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Turns an I/O error into one that names the action and the path.
pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EmbeddedError + use<> {
    let path = path.to_owned();
    move |source| EmbeddedError::Io { what, path, source }
}
