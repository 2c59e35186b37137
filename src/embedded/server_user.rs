//! The user as whom the server runs: PostgreSQL refuses to run as root.

use super::{EmbeddedError, io_error};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub uid: u32,
    pub gid: u32,
    /// Whether this process is root and the server runs as this other user.
    pub is_other: bool,
}

impl ServerUser {
    /// Chooses ourselves; as root, the owner of the directory (or of the nearest existing one above it), so that root
    /// and the service's user agree; else `postgres`, else `nobody`.
    pub async fn choose(dir: &Path) -> Result<Self, EmbeddedError> {
        let me = rustix::process::geteuid();
        if !me.is_root() {
            return Ok(Self { uid: me.as_raw(), gid: rustix::process::getegid().as_raw(), is_other: false });
        }
        if let Some(owner) = dir.ancestors().find_map(|dir| dir.metadata().ok()).filter(|owner| owner.uid() != 0) {
            let gid = id("-g", &owner.uid().to_string()).await.unwrap_or(owner.gid());
            return Ok(Self { uid: owner.uid(), gid, is_other: true });
        }
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) {
                return Ok(Self { uid, gid, is_other: true });
            }
        }
        Err(EmbeddedError::NoServerUser)
    }

    /// Makes a directory for this user alone, and those above it that are missing. Other processes may be about to make
    /// the same ones: none is seen before it has its final mode, and it does not matter which process is first.
    pub fn create_dir_and_way(self, dir: &Path) -> Result<(), EmbeddedError> {
        let missing: Vec<&Path> = dir.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        for above in missing.into_iter().rev() {
            appear(above, |new| {
                std::fs::create_dir(new).map_err(io_error("create", new))?;
                if self.is_other {
                    // Root's umask may keep all others out, including the server's user.
                    let mode = std::fs::Permissions::from_mode(0o755);
                    std::fs::set_permissions(new, mode).map_err(io_error("set the mode of", new))?;
                }
                Ok(())
            })?;
        }
        appear(dir, |new| self.create_dir(new))
    }

    /// Makes a directory that only this user (and root) may enter.
    pub fn create_dir(self, dir: &Path) -> Result<(), EmbeddedError> {
        std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(io_error("create", dir))?;
        self.give(dir)
    }

    /// Makes this user the owner, when that is another user than ours.
    pub fn give(self, path: &Path) -> Result<(), EmbeddedError> {
        if self.is_other {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
                .map_err(io_error("change the owner of", path))?;
        }
        Ok(())
    }

    /// A command as this user, with a bare environment.
    ///
    /// The environment is bare because Debian's `postgres` would otherwise report to systemd in our name
    /// (`NOTIFY_SOCKET`, `WATCHDOG_*`), because `PG*` variables change its behaviour, and because keys in it are none
    /// of its business.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir("/");
        for name in ["PATH", "LD_LIBRARY_PATH", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if self.is_other {
            // The supplementary groups go with the user id.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Checks that this user can get to the directory; if not, names where the way ends.
    pub async fn check_traversable(self, dir: &Path) -> Result<(), EmbeddedError> {
        if !self.is_other {
            return Ok(());
        }
        let ways: Vec<PathBuf> = dir.ancestors().map(Path::to_owned).collect();
        // One process in the good case; the search for the blocking directory comes only afterwards.
        if self.can_enter(dir).await? {
            return Ok(());
        }
        for blocked in ways.into_iter().rev() {
            if !self.can_enter(&blocked).await? {
                return Err(EmbeddedError::NotTraversable { uid: self.uid, blocked });
            }
        }
        Ok(())
    }

    async fn can_enter(self, dir: &Path) -> Result<bool, EmbeddedError> {
        let shell = Path::new("/bin/sh");
        let mut command = tokio::process::Command::from(self.command(shell));
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().await.map_err(io_error("run", shell))?.success())
    }
}

/// Makes a directory under another name and gives it its own when it is ready, unless another process was first.
fn appear(dir: &Path, make: impl FnOnce(&Path) -> Result<(), EmbeddedError>) -> Result<(), EmbeddedError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let new = dir.with_file_name(name);
    make(&new)?;
    let Err(error) = rename_to_new(&new, dir) else { return Ok(()) };
    std::fs::remove_dir(&new).map_err(io_error("remove", &new))?;
    if dir.is_dir() { Ok(()) } else { Err(io_error("create", dir)(error)) }
}

/// Renames without replacing: an empty directory that was made just now belongs to another process.
fn rename_to_new(from: &Path, to: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system supports this.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            renamed => return Ok(renamed?),
        }
    }
    if to.exists() {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)
}

/// Asks `id`, which knows users of every kind (files, LDAP, …).
async fn id(what: &str, user: &str) -> Option<u32> {
    let output = tokio::process::Command::new("id").args([what, user]).stderr(Stdio::null()).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().parse().ok())?
}
