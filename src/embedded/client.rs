//! Finds Postgres's own client programs: `psql`, `pg_dump`, `pg_restore`.

use super::EmbeddedError;
use super::binaries::{self, Search};
use std::path::{Path, PathBuf};

/// Where a client program is: for a private Postgres that of the installation that made it, otherwise the newest there
/// is, since a dump needs programs that are at least as new as the server.
///
/// # Errors
/// There is none, with the command that installs it.
pub async fn client_program(name: &'static str, private: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    let search = Search::of_this_system();
    if let Some(dir) = private {
        let cluster = dir.join("data");
        let made_by = std::fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let own = search.find(&cluster, made_by.as_deref().map(str::trim)).await?.dir.join(name);
        if own.is_file() {
            return Ok(own);
        }
    }
    let mut newest: Option<(u32, PathBuf)> = None;
    for program in search.folders().await.into_iter().map(|dir| dir.join(name)).filter(|program| program.is_file()) {
        let Some(major) = binaries::version_of(&program).await else { continue };
        if newest.as_ref().is_none_or(|(known, _)| major > *known) {
            newest = Some((major, program));
        }
    }
    let missing = || EmbeddedError::MissingClient { program: name, install: search.install_client_line() };
    newest.map(|(_, program)| program).ok_or_else(missing)
}
