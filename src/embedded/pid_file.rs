//! The content of `postmaster.pid`.

use rustix::process::Pid;
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
        match std::fs::read_link(format!("/proc/{}/cwd", self.pid.as_raw_nonzero())) {
            Ok(works_in) => cluster.canonicalize().is_ok_and(|cluster| cluster == works_in),
            // A process that ended, or one of another user, is not ours. Without /proc this cannot be known.
            Err(_) => !Path::new("/proc/self/cwd").exists(),
        }
    }
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
}
