//! The content of `postmaster.pid`.

use super::PORT;
use rustix::process::Pid;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The state of the server, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It accepts connections.
    Ready,
    /// It is starting, recovering or stopping.
    Other,
}

/// The lines of `postmaster.pid` that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: Pid,
    pub socket_dir: Option<PathBuf>,
    pub status: Status,
}

impl PidFile {
    /// Reads the file; `None` without one, or while it is being written.
    pub fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    /// Line 1 is the pid, line 5 the socket's directory, line 8 the status, padded with blanks.
    fn parse(text: &str) -> Option<Self> {
        let line = |number: usize| text.lines().nth(number - 1).map(str::trim).filter(|line| !line.is_empty());
        let pid: i32 = line(1)?.parse().ok()?;
        Some(Self {
            pid: Pid::from_raw(pid.checked_abs()?)?,
            socket_dir: line(5).map(PathBuf::from),
            status: if line(8) == Some("ready") { Status::Ready } else { Status::Other },
        })
    }

    /// Whether the process with this pid is the server of this cluster and not another process that got its number.
    ///
    /// The server works inside its data directory. On systems that do not show where a process works (no `/proc`), the
    /// number is believed.
    pub fn is_of(&self, cluster: &Path) -> bool {
        match std::fs::read_link(self.shown_as("cwd")) {
            Ok(works_in) => is_same(&works_in, cluster),
            Err(_) if !Path::new("/proc/self/cwd").exists() => true,
            // A process that has ended, or one of another user, is not ours.
            Err(_) if rustix::process::test_kill_process(self.pid).is_err() => false,
            Err(_) => self.hidden_is_of(cluster),
        }
    }

    /// The same of a process of this user that may not be looked into: on the other side of a service's walls.
    /// `PrivateUsers=` hides where it works, `ProtectProc=` that it is there at all. To take such a server for a dead
    /// one would mean a second one on the same files.
    fn hidden_is_of(&self, cluster: &Path) -> bool {
        let words = std::fs::read(self.shown_as("cmdline")).unwrap_or_default();
        let names = words.split(|byte| *byte == 0).any(|word| is_same(Path::new(OsStr::from_bytes(word)), cluster));
        names || self.is_listening()
    }

    /// Whether a process listens where the file says: no other does than the server that wrote it.
    fn is_listening(&self) -> bool {
        // A file without this line is being written.
        self.socket_dir.as_ref().is_none_or(|dir| UnixStream::connect(dir.join(format!(".s.PGSQL.{PORT}"))).is_ok())
    }

    fn shown_as(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.pid.as_raw_nonzero()))
    }
}

fn is_same(path: &Path, cluster: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| cluster.canonicalize().is_ok_and(|cluster| cluster == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_server_is_read_from_its_file() {
        let text = "4711\n/var/lib/x/data\n1700000000\n5432\n/var/lib/x/run\n\n  5432001    131072\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!(file.pid.as_raw_nonzero().get(), 4711);
        assert_eq!(file.socket_dir, Some(PathBuf::from("/var/lib/x/run")));
        assert_eq!(file.status, Status::Ready);
    }

    #[test]
    fn a_file_that_is_still_being_written_says_no_more_than_it_holds() {
        assert_eq!(PidFile::parse(""), None);
        let file = PidFile::parse("4711\n/var/lib/x/data\n").unwrap();
        assert_eq!((file.socket_dir, file.status), (None, Status::Other));
        assert_eq!(PidFile::parse("rubbish\n"), None);
        assert_eq!(PidFile::parse("0\n"), None);
    }

    #[test]
    fn a_process_that_works_elsewhere_is_not_the_server() {
        let me = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let file = PidFile { pid: me, socket_dir: None, status: Status::Ready };
        assert!(!file.is_of(&std::env::temp_dir()) || !Path::new("/proc").exists());
    }

    /// What a service's `PrivateUsers=` and `ProtectProc=` hide; tests/package/install.sh has the service itself.
    #[test]
    fn a_server_that_may_not_be_looked_into_is_known_by_its_command_or_its_socket() {
        use std::os::unix::net::UnixListener;
        use std::process::{Command, Stdio};
        let folder = tempfile::tempdir().unwrap();
        let [cluster, other, run] = ["data", "other", "run"].map(|name| folder.path().join(name));
        for folder in [&cluster, &other, &run] {
            std::fs::create_dir(folder).unwrap();
        }
        let mut server = Command::new("sh");
        server.args(["-c", "read -r line", "-D"]).arg(&cluster).stdin(Stdio::piped());
        let mut server = server.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
        let file = PidFile { pid, socket_dir: Some(run.clone()), status: Status::Ready };
        if Path::new("/proc/self/cmdline").exists() {
            while std::fs::read(file.shown_as("cmdline")).unwrap().is_empty() {
                std::thread::yield_now();
            }
            assert!(file.hidden_is_of(&cluster));
        }
        assert!(!file.hidden_is_of(&other), "its number came again");
        let listener = UnixListener::bind(run.join(format!(".s.PGSQL.{PORT}"))).unwrap();
        assert!(file.hidden_is_of(&other), "it listens");
        drop(listener);
        assert!(!file.hidden_is_of(&other), "the socket that a dead server left");
        drop(server.stdin.take());
        server.wait().unwrap();
    }
}
