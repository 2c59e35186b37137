//! The access that other users of this machine have to a file or a folder, as its owner and its mode show it, and the
//! remedy.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
const GROUP_AND_OTHERS: u32 = 0o077;
/// In a folder with this bit only the owner of a file removes or renames it.
const STICKY: u32 = 0o1000;

/// A fault in the owner or the mode of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It belongs to a user other than root and this process's user.
    Owner(u32),
    /// Users other than its owner may write to it.
    Writable(u32),
    /// Users other than its owner may read it.
    Readable(u32),
}

/// A flaw of a path, in words, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file or folder.
    pub path: PathBuf,
    pub flaw: Flaw,
    is_folder: bool,
}

impl Exposed {
    fn new(path: &Path, found: &Metadata, flaw: Flaw) -> Self {
        Self { path: path.to_owned(), flaw, is_folder: found.is_dir() }
    }

    /// The consequence, without the path.
    #[must_use]
    pub fn problem(&self) -> String {
        match self.flaw {
            Flaw::Owner(user) => format!("belongs to the user with the number {user}, who may change it at any time"),
            Flaw::Writable(mode) => format!("may be written by other users (its mode is {mode:04o})"),
            Flaw::Readable(mode) => format!("may be read by other users (its mode is {mode:04o})"),
        }
    }

    /// The command that mends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let path = self.path.display();
        let me = rustix::process::geteuid().as_raw();
        match (self.flaw, self.is_folder) {
            (Flaw::Owner(_), _) => format!("check its content, then chown {me} {path}"),
            (Flaw::Writable(_), _) => format!("chmod go-w {path}"),
            (Flaw::Readable(_), true) => format!("chmod 700 {path}"),
            (Flaw::Readable(_), false) => format!("chmod o-rwx {path}"),
        }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.path.display(), self.problem(), self.remedy())
    }
}

impl std::error::Error for Exposed {}

impl From<Exposed> for io::Error {
    fn from(exposed: Exposed) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, exposed)
    }
}

fn mode(found: &Metadata) -> u32 {
    found.mode() & 0o7777
}

/// Whether files of this owner may be relied on: the owner is root, or this process's user.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Whether a group has only this user in it, as far as numbers show: systems give each user a group of the same number,
/// and make files that it may write.
fn is_own_group(found: &Metadata) -> bool {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    user != 0 && found.uid() == user && group == user && found.gid() == group
}

/// Whether another user may put content into a file that this process would then believe.
#[must_use]
pub fn forgeable(path: &Path, found: &Metadata) -> Option<Exposed> {
    let group = if is_own_group(found) { 0 } else { GROUP_WRITES };
    // The mode of a link says nothing.
    let is_link = found.is_symlink();
    let in_sticky_folder = found.is_dir() && found.mode() & STICKY != 0;
    if !is_trusted(found.uid()) {
        Some(Exposed::new(path, found, Flaw::Owner(found.uid())))
    } else if found.mode() & (OTHERS_WRITE | group) != 0 && !in_sticky_folder && !is_link {
        Some(Exposed::new(path, found, Flaw::Writable(mode(found))))
    } else {
        None
    }
}

/// Whether users outside of its group may lay files or links into a folder.
#[must_use]
pub fn open_to_others(path: &Path, found: &Metadata) -> Option<Exposed> {
    let writable = || Exposed::new(path, found, Flaw::Writable(mode(found)));
    if is_trusted(found.uid()) {
        (found.mode() & OTHERS_WRITE != 0).then(writable)
    } else {
        Some(Exposed::new(path, found, Flaw::Owner(found.uid())))
    }
}

/// Whether a file with something secret in it may be read by all users. A group that may read it was chosen.
#[must_use]
pub fn world_readable(path: &Path, found: &Metadata) -> Option<Exposed> {
    (found.mode() & OTHERS_READ != 0).then(|| Exposed::new(path, found, Flaw::Readable(mode(found))))
}

/// Everything that decides which file or folder a path leads to: its folders, and each part of it that is a link.
#[must_use]
pub fn ways_to(path: &Path) -> Vec<(PathBuf, Metadata)> {
    let parts = path.ancestors().filter(|part| !part.as_os_str().is_empty());
    let found = parts.flat_map(|part| {
        let link = part.symlink_metadata().ok().filter(Metadata::is_symlink);
        let folder = part.metadata().ok().filter(Metadata::is_dir);
        [link, folder].into_iter().flatten().map(|found| (part.to_owned(), found))
    });
    found.collect()
}

/// Whether another user can replace a file or folder: the flaw on the way to it from the root, or to where its links
/// lead.
fn replaceable(path: &Path) -> Option<Exposed> {
    let named = std::path::absolute(path).ok();
    let real = path.canonicalize().ok();
    [named, real].iter().flatten().flat_map(|path| ways_to(path)).find_map(|(part, found)| forgeable(&part, &found))
}

/// Refuses a folder that is not this process's alone, or that another user can replace. A missing folder passes; so
/// does a path that is not a folder, which its user has to refuse.
pub fn require_private_folder(path: &Path) -> Result<(), Exposed> {
    // A link may lead to the folder: its destination counts.
    let Some(found) = std::fs::metadata(path).ok().filter(Metadata::is_dir) else { return Ok(()) };
    if found.mode() & GROUP_AND_OTHERS != 0 {
        return Err(Exposed::new(path, &found, Flaw::Readable(mode(&found))));
    }
    if !is_trusted(found.uid()) {
        return Err(Exposed::new(path, &found, Flaw::Owner(found.uid())));
    }
    replaceable(path).map_or(Ok(()), Err)
}

/// Opens a plain file and nothing else: no link that another user may have laid, and no pipe, which would make this
/// wait.
pub fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path);
    let is_link = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let file = opened.map_err(|error| if is_link(&error) { io::Error::other("it is a link") } else { error })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

/// The text of a small file that holds a secret, and the faults of its permissions. `most`: bytes.
pub fn read_secret(path: &Path, most: u64) -> io::Result<(String, Vec<Exposed>)> {
    use rustix::fs::OFlags;
    // Links are followed, since the secrets of containers are links.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text)?;
    let forged = forgeable(path, &found).or_else(|| replaceable(path));
    Ok((text, [forged, world_readable(path, &found)].into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn with_mode(path: &Path, mode: u32) -> Metadata {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::metadata(path).unwrap()
    }

    #[test]
    fn what_others_may_do_follows_from_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (mode, forged, read) in [
            (0o600, false, false),
            (0o640, false, false),
            (0o644, false, true),
            (0o602, true, false),
            (0o666, true, true),
            (0o1602, true, false),
        ] {
            let found = with_mode(&file, mode);
            assert_eq!(forgeable(&file, &found).is_some(), forged, "{mode:o}");
            assert_eq!(world_readable(&file, &found).is_some(), read, "{mode:o}");
        }
        for (mode, forged) in [(0o755, false), (0o777, true), (0o1777, false)] {
            let found = with_mode(dir.path(), mode);
            assert_eq!(forgeable(dir.path(), &found).is_some(), forged, "{mode:o}");
        }
        for (mode, private) in [(0o700, true), (0o750, false), (0o701, false), (0o1777, false), (0o500, true)] {
            with_mode(dir.path(), mode);
            assert_eq!(require_private_folder(dir.path()).is_ok(), private, "{mode:o}");
        }
        with_mode(dir.path(), 0o750);
        let told = require_private_folder(dir.path()).unwrap_err().to_string();
        let expected = "may be read by other users (its mode is 0750): chmod 700 ";
        assert!(told.contains(expected) && told.ends_with(&dir.path().display().to_string()), "{told}");
        for name in ["missing", "file"] {
            assert!(require_private_folder(&dir.path().join(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn links_folders_and_pipes_are_no_plain_files() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("pipe"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let open = |path: &Path| open_plain(path, File::options().read(true));
        assert!(open(&file).is_ok());
        for other in [&link, &pipe, &dir.path().to_owned()] {
            assert!(open(other).is_err(), "{}", other.display());
        }
        // No process writes into it, and yet this returns.
        assert!(read_secret(&pipe, 100).is_err());
        assert_eq!(read_secret(&link, 100).unwrap().0, "text");
    }
}
