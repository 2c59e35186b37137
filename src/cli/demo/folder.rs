//! The demo's folder. A demo that is killed cannot tidy up after itself, so another process does: its guard, which
//! waits for that, or a later demo, when the guard was killed too.
//!
//! The demo holds a lock on a file of the folder for as long as it lives. The process that has the lock tidies up. A
//! folder without that file is kept.

use crate::embedded::EmbeddedPostgres;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PREFIX: &str = "sluice-demo-";
/// The file that the demo holds.
const LOCK: &str = "lock";
/// The configuration of the demo. Each command of the demo names it, and can be told by it.
pub(super) const CONFIG: &str = "demo.toml";
/// The folder of the private Postgres.
pub(super) const POSTGRES: &str = "postgres";

/// How long killed commands may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder in use. When it is dropped, its guard ends first, then the folder goes, then the lock.
pub(super) struct Folder {
    guard: Child,
    dir: TempDir,
    lock: File,
}

impl Folder {
    /// A new folder, and its guard.
    pub fn make() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir().context("making a folder")?;
        // As root, Postgres runs as another user, who has to get to its folder.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).context("making a folder")?;
        // Locked before it has its name, so that no later demo takes the folder for one that was left behind.
        let unnamed = dir.path().join("lock.new");
        let lock = File::create(&unnamed).context("making a lock")?;
        lock.try_lock().context("taking a lock")?;
        std::fs::rename(&unnamed, dir.path().join(LOCK)).context("making a lock")?;
        let guard = Command::new(std::env::current_exe().context("finding our own program")?)
            .args(["demo", "--watch-over"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What the terminal sends to the demo's group must not end the guard before the demo.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("starting the guard of the folder")?;
        Ok(Self { guard, dir, lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the folder where it is.
    pub fn keep(self) -> std::io::Result<PathBuf> {
        let Self { guard, dir, lock } = self;
        drop(guard);
        std::fs::remove_file(dir.path().join(LOCK))?;
        drop(lock);
        Ok(dir.keep())
    }
}

/// Waits until the demo of this folder is dead, and tidies up after it. The demo ends this process before it leaves in
/// order.
pub(super) async fn watch_over(folder: PathBuf) -> anyhow::Result<()> {
    let lock = File::open(folder.join(LOCK)).context("opening the lock")?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    let tidied = tidy_up(&folder).await;
    drop(lock);
    tidied
}

/// Tidies up after demos of this user that were killed together with their guards; returns the folders that are gone.
pub(super) async fn tidy_up_after_others() -> Vec<PathBuf> {
    let mut gone = Vec::new();
    let Ok(entries) = std::env::temp_dir().read_dir() else { return gone };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if !is_ours(&folder) {
            continue;
        }
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        match tidy_up(&folder).await {
            Ok(()) => gone.push(folder),
            Err(error) => tracing::warn!(folder = %folder.display(), error = %error, "cannot tidy up after a demo"),
        }
    }
    gone
}

/// Whether it is a folder that a demo of this user has made.
fn is_ours(folder: &Path) -> bool {
    let is_named = folder.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
    let is_own =
        |metadata: std::fs::Metadata| metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    is_named && folder.symlink_metadata().is_ok_and(is_own)
}

async fn tidy_up(folder: &Path) -> anyhow::Result<()> {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        let commands = commands_of(folder);
        if commands.is_empty() || Instant::now() > give_up_at {
            break;
        }
        for command in commands {
            // It may have ended by itself.
            let _ = kill_process(command, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    EmbeddedPostgres::stop_abandoned(&folder.join(POSTGRES)).await?;
    std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
}

/// The running commands of the demo of this folder. None are found on systems without `/proc`.
fn commands_of(folder: &Path) -> Vec<Pid> {
    let config = folder.join(CONFIG);
    let names_it = |process: &Path| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair == [b"--config", config.as_os_str().as_bytes()])
    };
    let processes = Path::new("/proc").read_dir().into_iter().flatten().flatten();
    processes
        .filter_map(|entry| Some((Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?, entry.path())))
        .filter(|(_, process)| names_it(process))
        .map(|(pid, _)| pid)
        .collect()
}
