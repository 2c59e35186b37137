//! The data directory: its files, its locks and the server that runs on it.

use super::binaries::{self, Binaries};
use super::error::{EmbeddedError, io_error};
use super::lock::Lock;
use super::pid_file::{PidFile, Status};
use super::server_user::ServerUser;
use super::{Options, POLL, PORT, ROLE, START_TIMEOUT};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// Linux allows 107 bytes for a socket's path, macOS 103: the smaller one holds everywhere.
const MAX_SOCKET_PATH: usize = 103;
/// The largest log that is kept in place; a larger one is set aside when the server starts.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// The data directory, and the user who owns it.
#[derive(Debug)]
pub(super) struct Place {
    pub dir: PathBuf,
    user: ServerUser,
}

impl Place {
    /// Makes the directory when it is missing, and checks that the server's user can use it.
    pub async fn prepare(dir: &Path) -> Result<Self, EmbeddedError> {
        let dir = std::path::absolute(dir).map_err(io_error("find", dir))?;
        let user = ServerUser::choose(&dir).await?;
        if !dir.exists() {
            user.create_dir_and_way(&dir)?;
        }
        let dir = dir.canonicalize().map_err(io_error("open", &dir))?;
        if !is_empty_or_ours(&dir)? {
            return Err(EmbeddedError::NotADataDirectory(dir));
        }
        let metadata = dir.metadata().map_err(io_error("open", &dir))?;
        if metadata.uid() != user.uid {
            if !user.is_other {
                return Err(EmbeddedError::OtherOwner { data_dir: dir, owner: metadata.uid(), me: user.uid });
            }
            user.give(&dir)?;
        }
        if is_open_to_others(&metadata) {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
                .map_err(io_error("set the mode of", &dir))?;
        }
        user.check_traversable(&dir).await?;
        Ok(Self { dir, user })
    }

    /// A file or folder of this name in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The data directory of the server.
    pub fn cluster(&self) -> PathBuf {
        self.path("data")
    }

    /// The file that the server logs to.
    pub fn log(&self) -> PathBuf {
        self.path("postgres.log")
    }

    /// Opens a lock file, for the server's user too: the next process may not be root.
    pub fn open_lock(&self, name: &str) -> Result<File, EmbeddedError> {
        let path = self.path(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(io_error("open", &path))?;
        self.user.give(&path)?;
        Ok(file)
    }

    /// Keeps other processes from starting or stopping the server until the file is dropped; waits for its turn.
    pub async fn lock_start(&self) -> Result<Lock, EmbeddedError> {
        let lock = Lock::not_taken(self.open_lock("start.lock")?);
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = lock.try_alone() {
            if error != rustix::io::Errno::WOULDBLOCK || Instant::now() > deadline {
                return Err(io_error("lock", &self.path("start.lock"))(error.into()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(lock)
    }

    /// The directory of the socket: beside the data, or at a short path when that one is too long for a socket.
    pub fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let beside = self.path("run");
        let longest = beside.join(format!(".s.PGSQL.{PORT}.lock"));
        let dir = if longest.as_os_str().len() <= MAX_SOCKET_PATH {
            beside
        } else {
            Path::new("/tmp").join(format!("sluice-{}-{:016x}", self.user.uid, fnv1a(self.dir.as_os_str())))
        };
        match dir.symlink_metadata() {
            Err(_) => self.user.create_dir(&dir)?,
            // Every user can write to `/tmp`: a directory that another user put there must not be used.
            Ok(found) if found.is_dir() && found.uid() == self.user.uid && !is_open_to_others(&found) => {}
            Ok(found) => {
                return Err(EmbeddedError::OtherOwner { data_dir: dir, owner: found.uid(), me: self.user.uid });
            }
        }
        Ok(dir)
    }

    /// Programs of the version that made the cluster, or of any where there is none yet.
    pub async fn find_binaries(&self) -> Result<Binaries, EmbeddedError> {
        let made_by = std::fs::read_to_string(self.cluster().join("PG_VERSION")).ok();
        binaries::Search::of_this_system().find(&self.cluster(), made_by.as_deref().map(str::trim)).await
    }

    /// Makes the cluster beside its final name and renames it, so that a crash never leaves half a cluster.
    pub async fn initdb(&self, binaries: &Binaries, fsync: bool) -> Result<(), EmbeddedError> {
        let unfinished = self.path("data.new");
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
        }
        // These locales exist on every system of their kind, and both sort by bytes.
        let locale = if cfg!(target_os = "macos") { "--locale=C" } else { "--locale=C.UTF-8" };
        let initdb = binaries.dir.join("initdb");
        let mut command = tokio::process::Command::from(self.user.command(&initdb));
        command
            .arg("-D")
            .arg(&unfinished)
            .args(["-U", ROLE, "-A", "trust", "-E", "UTF8", locale, "--no-instructions"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if !fsync {
            command.arg("--no-sync");
        }
        let output = command.output().await.map_err(io_error("run", &initdb))?;
        if !output.status.success() {
            return Err(EmbeddedError::Initdb(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        std::fs::rename(&unfinished, self.cluster()).map_err(io_error("rename", &unfinished))
    }

    /// The server that runs on our data, if its pid file and the process table agree that there is one.
    pub fn running(&self) -> Option<PidFile> {
        let file = PidFile::read(&self.cluster())?;
        (is_alive(file.pid) && file.is_of(&self.cluster())).then_some(file)
    }

    /// Starts the server and returns when it reports to be ready.
    pub async fn spawn(&self, socket_dir: &Path, options: &Options) -> Result<(), EmbeddedError> {
        let binaries = self.find_binaries().await?;
        self.remove_stale_pid_file()?;
        let mut log = self.open_log()?;
        let log_start = log.seek(SeekFrom::End(0)).map_err(io_error("read", &self.log()))?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let (pid, exited) = self.spawn_once(&binaries, socket_dir, options, &log)?;
            while !exited.load(Ordering::Acquire) {
                if PidFile::read(&self.cluster()).is_some_and(|f| f.pid == pid && f.status == Status::Ready) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(EmbeddedError::TimedOut { what: "start", limit: START_TIMEOUT, log: self.log() });
                }
                tokio::time::sleep(POLL).await;
            }
            let tail = tail(&self.log(), log_start);
            // The children of a postmaster that was killed need a moment to notice and leave.
            let leftovers = tail.contains("is still in use") || tail.contains("already exists");
            if !leftovers || Instant::now() > deadline {
                return Err(EmbeddedError::Exited { log: self.log(), tail });
            }
            tokio::time::sleep(5 * POLL).await;
        }
    }

    /// Starts the server once. The flag becomes true when the server has ended.
    fn spawn_once(
        &self,
        binaries: &Binaries,
        socket_dir: &Path,
        options: &Options,
        log: &File,
    ) -> Result<(Pid, Arc<AtomicBool>), EmbeddedError> {
        let program = binaries.dir.join("postgres");
        let log_handle = || log.try_clone().map_err(io_error("open", &self.log()));
        // Quoted, because the setting is a list.
        let socket_dirs = format!("\"{}\"", socket_dir.to_string_lossy().replace('"', "\"\""));
        let mut command = self.user.command(&program);
        command.arg("-D").arg(self.cluster()).stdin(Stdio::null()).stdout(log_handle()?).stderr(log_handle()?);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "");
        set("port", &PORT.to_string());
        set("unix_socket_directories", &socket_dirs);
        set("unix_socket_permissions", "0700");
        set("max_connections", &options.max_connections.to_string());
        set("logging_collector", "off");
        set("log_line_prefix", "%m [%p] ");
        set("log_timezone", "UTC");
        // Read by `tail` above.
        set("lc_messages", "C");
        // Sluice's statements are short, and a hardened systemd unit forbids writable executable memory.
        set("jit", "off");
        if options.fsync {
            set("fsync", "on");
            set("shared_buffers", &format!("{}MB", shared_buffers_mib(machine_memory())));
        } else {
            set("fsync", "off");
            set("synchronous_commit", "off");
            set("full_page_writes", "off");
        }
        // Its own process group: Ctrl-C on the terminal must not stop the server before the worker has drained.
        command.process_group(0);
        let mut child = command.spawn().map_err(io_error("run", &program))?;
        let pid = Pid::from_child(&child);
        let exited = Arc::new(AtomicBool::new(false));
        // A thread rather than a task: the server outlives any one runtime, and an unreaped server would look
        // alive to the next one.
        let flag = exited.clone();
        let data_dir = self.dir.clone();
        std::thread::Builder::new()
            .name("postgres-reaper".to_owned())
            .spawn(move || {
                let status = child.wait();
                flag.store(true, Ordering::Release);
                tracing::debug!(data_dir = %data_dir.display(), ?status, "the private PostgreSQL has ended");
            })
            .map_err(io_error("watch", &program))?;
        Ok((pid, exited))
    }

    /// After a crash of the machine the pid in the file may belong to any other process by now, or the file may be
    /// empty: both would keep `postgres` from starting. A file that names a dead process is left to `postgres`,
    /// which checks for its orphaned children first.
    fn remove_stale_pid_file(&self) -> Result<(), EmbeddedError> {
        let path = self.cluster().join("postmaster.pid");
        let misleads = PidFile::read(&self.cluster()).is_none_or(|file| is_alive(file.pid));
        if path.exists() && misleads && self.running().is_none() {
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn open_log(&self) -> Result<File, EmbeddedError> {
        let path = self.log();
        if path.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            std::fs::rename(&path, self.path("postgres.log.1")).map_err(io_error("rename", &path))?;
        }
        let log = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(&path)
            .map_err(io_error("open", &path))?;
        self.user.give(&path)?;
        Ok(log)
    }

    /// Asks for a fast shutdown: no new connections, open transactions are rolled back, a checkpoint, the end.
    pub fn signal_stop(&self) -> Option<Pid> {
        let pid = self.running()?.pid;
        rustix::process::kill_process(pid, Signal::INT).ok()?;
        Some(pid)
    }
}

/// Whether the directory may be taken: its owner and mode are about to change, so it must not be something like `/etc`.
fn is_empty_or_ours(dir: &Path) -> Result<bool, EmbeddedError> {
    let mut entries = dir.read_dir().map_err(io_error("read", dir))?;
    Ok(entries.next().is_none() || dir.join("start.lock").exists())
}

/// Whether group or others have any right to the directory.
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    const GROUP_AND_OTHERS: u32 = 0o077;
    metadata.mode() & GROUP_AND_OTHERS > 0
}

/// Makes opening a symbolic link fail: as root we must not be led out of a directory that another user owns.
fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// The last lines of the log after `start`.
fn tail(log: &Path, start: u64) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        // If the log cannot be read, the message only lacks its lines.
        let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// FNV-1a: the same on every run, unlike the standard library's hasher.
fn fnv1a(text: &std::ffi::OsStr) -> u64 {
    text.as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether a process with this id exists.
pub(super) fn is_alive(pid: Pid) -> bool {
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// The memory of this machine in bytes, where the system says so.
fn machine_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let info = rustix::system::sysinfo();
        u64::from(info.mem_unit).checked_mul(info.totalram)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The size of the server's own cache of pages, in MiB: a sixteenth of the memory, within 128 (what Postgres has when
/// nothing is said) and 2,048. Jobs of many batches are claimed from pages all over the table, and with a small cache
/// each of them pushes out a page that has to be written first.
fn shared_buffers_mib(memory: Option<u64>) -> u64 {
    memory.map_or(128, |bytes| (bytes >> 24).clamp(128, 2_048))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// The mode of a folder that every user can reach.
    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn several_may_make_the_directory_at_once() {
        const STARTS: usize = 6;
        for _ in 0..20 {
            let folder = open_folder();
            let dir = folder.path().join("new/one/postgres");
            let barrier = Barrier::new(STARTS);
            std::thread::scope(|scope| {
                let start = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    barrier.wait();
                    runtime.block_on(Place::prepare(&dir)).map(|place| place.open_lock("start.lock").map(drop))
                };
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
                for start in starts {
                    start.join().unwrap().unwrap().unwrap();
                }
            });
            let left: Vec<_> = dir.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, [dir]);
        }
    }

    #[test]
    fn the_cache_follows_the_memory_of_the_machine() {
        const GIB: u64 = 1 << 30;
        let sizes =
            [(None, 128), (Some(GIB / 2), 128), (Some(4 * GIB), 256), (Some(8 * GIB), 512), (Some(99 * GIB), 2_048)];
        for (memory, mib) in sizes {
            assert_eq!(shared_buffers_mib(memory), mib, "{memory:?}");
        }
    }
}
