//! Finds `initdb` and `postgres`.

use super::EmbeddedError;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The oldest version that Sluice's SQL runs on.
pub const MINIMUM_MAJOR: u32 = 15;

/// Folders where the usual packages put the programs: Homebrew, Postgres.app, Red Hat, Alpine, the BSDs, plain `make
/// install`. A `*` stands for one folder of any name.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// A folder with both programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

/// The folders to search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The folder in `SLUICE_PG_BIN`; if it is set, no other is searched.
    explicit: Option<PathBuf>,
    path: Option<OsString>,
    usual: &'static [&'static str],
    os_release: String,
}

impl Search {
    /// A search by `SLUICE_PG_BIN`, `PATH`, and the places where distributions install Postgres.
    pub fn of_this_system() -> Self {
        Self {
            explicit: std::env::var_os("SLUICE_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            path: std::env::var_os("PATH"),
            usual: USUAL_FOLDERS,
            os_release: std::fs::read_to_string("/etc/os-release").unwrap_or_default(),
        }
    }

    /// Finds the programs for the cluster: of the version that made it, or the first that is new enough.
    pub async fn find(&self, cluster: &Path, made_by: Option<&str>) -> Result<Binaries, EmbeddedError> {
        let mut found: Vec<Binaries> = Vec::new();
        for dir in self.folders().await {
            // Symbolic links in PATH lead to the folder that holds both programs.
            let Ok(initdb) = dir.join("initdb").canonicalize() else { continue };
            let Some(dir) = initdb.parent().filter(|dir| dir.join("postgres").is_file()) else { continue };
            if found.iter().any(|known| known.dir == dir) {
                continue;
            }
            let Some(major) = major_of(dir).await else { continue };
            let binaries = Binaries { dir: dir.to_owned(), major };
            let wanted = made_by.map_or(major >= MINIMUM_MAJOR, |version| version == major.to_string());
            if wanted && major >= MINIMUM_MAJOR {
                return Ok(binaries);
            }
            found.push(binaries);
        }
        let newest = found.into_iter().max_by_key(|binaries| binaries.major);
        Err(match (newest, made_by, &self.explicit) {
            (Some(newest), Some(made_by), _) if newest.major >= MINIMUM_MAJOR => EmbeddedError::OtherMajor {
                data_dir: cluster.to_owned(),
                made_by: made_by.to_owned(),
                installed: newest.major,
            },
            (Some(newest), _, _) => EmbeddedError::TooOld { bin: newest.dir, found: newest.major },
            (None, _, Some(dir)) => EmbeddedError::WrongBinariesFolder(dir.clone()),
            (None, _, None) => EmbeddedError::MissingBinaries { install: self.install_line() },
        })
    }

    /// The folders, in the order in which they are tried.
    pub(super) async fn folders(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.explicit {
            return vec![dir.clone()];
        }
        let path: Vec<PathBuf> = self.path.iter().flat_map(std::env::split_paths).collect();
        let mut folders = Vec::new();
        for dir in &path {
            folders.extend(bindir_of(&dir.join("pg_config")).await);
        }
        folders.extend(path);
        folders.extend(self.usual.iter().flat_map(|pattern| expand(pattern)));
        folders
    }

    /// The command that installs the client programs on this system.
    pub(super) fn install_client_line(&self) -> &'static str {
        match self.install_line() {
            "sudo apt-get install -y postgresql" => "sudo apt-get install -y postgresql-client",
            "sudo dnf install -y postgresql-server" => "sudo dnf install -y postgresql",
            "sudo apk add postgresql" => "sudo apk add postgresql-client",
            line => line,
        }
    }

    /// The command that installs the programs on this system.
    fn install_line(&self) -> &'static str {
        let ids: Vec<&str> = self
            .os_release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|ids| ids.trim_matches('"').split_whitespace())
            .collect();
        let is = |names: &[&str]| ids.iter().any(|id| names.contains(id));
        if is(&["debian", "ubuntu"]) {
            "sudo apt-get install -y postgresql"
        } else if is(&["fedora", "rhel", "centos"]) {
            "sudo dnf install -y postgresql-server"
        } else if is(&["alpine"]) {
            "sudo apk add postgresql"
        } else if is(&["arch"]) {
            "sudo pacman -S --noconfirm postgresql"
        } else if is(&["suse", "opensuse"]) {
            "sudo zypper install -y postgresql-server"
        } else if cfg!(target_os = "macos") {
            "brew install postgresql@17"
        } else {
            "your system's package manager (the package is called postgresql or postgresql-server)"
        }
    }
}

/// The output of `pg_config --bindir`, if there is a `pg_config`.
async fn bindir_of(pg_config: &Path) -> Option<PathBuf> {
    if !pg_config.is_file() {
        return None;
    }
    let output = tokio::process::Command::new(pg_config).arg("--bindir").stderr(Stdio::null()).output().await.ok()?;
    let bindir = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !bindir.trim().is_empty()).then(|| PathBuf::from(bindir.trim()))
}

/// The major version: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is version 15.
async fn major_of(dir: &Path) -> Option<u32> {
    version_of(&dir.join("postgres")).await
}

/// The major version that one of Postgres's programs says of itself.
pub(super) async fn version_of(program: &Path) -> Option<u32> {
    let output = tokio::process::Command::new(program).arg("--version").stderr(Stdio::null()).output().await.ok()?;
    parse_major(std::str::from_utf8(&output.stdout).ok()?)
}

fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    // `15.18`, `18beta1`, `19devel`
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The folders that match, highest version number first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            let dir = PathBuf::from(format!("{parent}/{name}{after}"));
            dir.is_dir().then(|| (version.parse().unwrap_or(0), dir))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn nowhere(os_release: &str) -> Search {
        Search { explicit: None, path: None, usual: &[], os_release: os_release.to_owned() }
    }

    /// A folder with programs that claim to be of this version.
    fn fake(dir: &Path, version: &str) -> PathBuf {
        let bin = dir.join(version);
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["initdb", "postgres"] {
            let program = bin.join(name);
            // Written by a shell and renamed, so that no writer is open when the program is run.
            let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            let status = std::process::Command::new("sh")
                .args(["-c", "printf %s \"$1\" > \"$2\"", "sh", &script])
                .arg(&program)
                .status()
                .unwrap();
            assert!(status.success());
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }

    fn in_path(dirs: &[PathBuf]) -> Search {
        Search { path: Some(std::env::join_paths(dirs).unwrap()), ..nowhere("") }
    }

    #[tokio::test]
    async fn missing_programs_are_reported_with_the_line_that_installs_them() {
        for (os_release, line) in [
            ("ID=debian\n", "sudo apt-get install -y postgresql"),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "sudo apt-get install -y postgresql"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "sudo dnf install -y postgresql-server"),
            ("ID=alpine\n", "sudo apk add postgresql"),
        ] {
            let error = nowhere(os_release).find(Path::new("/x"), None).await.unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
    }

    #[tokio::test]
    async fn a_named_folder_without_the_programs_is_an_error_that_names_it() {
        let search = Search { explicit: Some("/nowhere".into()), ..nowhere("ID=debian") };
        let error = search.find(Path::new("/x"), None).await.unwrap_err();
        assert!(error.to_string().starts_with("SLUICE_PG_BIN is /nowhere"), "{error}");
    }

    #[tokio::test]
    async fn an_old_version_is_refused_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake(dir.path(), "14.2");
        let error = in_path(&[old]).find(Path::new("/x"), None).await.unwrap_err();
        assert!(matches!(error, EmbeddedError::TooOld { found: 14, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_cluster_is_run_by_the_version_that_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [fake(dir.path(), "17.1"), fake(dir.path(), "16.4")];
        let search = in_path(&folders);
        assert_eq!(search.find(Path::new("/x"), None).await.unwrap().major, 17);
        assert_eq!(search.find(Path::new("/x"), Some("16")).await.unwrap().major, 16);
        let error = search.find(Path::new("/x"), Some("15")).await.unwrap_err();
        assert!(error.to_string().contains("made by PostgreSQL 15, but only version 17"), "{error}");
    }

    #[test]
    fn versions_are_read_whatever_follows_them() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("cockroach 23"), None);
    }
}
