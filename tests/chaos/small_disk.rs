//! A disk that is full at once.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;

/// A file system that is full at once. Only root can have one.
pub struct SmallDisk {
    pub path: PathBuf,
    keeper: std::process::Child,
}

impl SmallDisk {
    pub fn mount() -> Option<Self> {
        // `cat` ends when the other end of its pipe is closed, which the kernel does for a process that was killed.
        const SCRIPT: &str =
            r#"mount -t tmpfs -o size=32k none "$1" && echo mounted && cat > /dev/null; umount -l "$1"; rmdir "$1""#;
        let path = tempfile::Builder::new().prefix("sluice-test-disk-").tempdir().unwrap().keep();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", SCRIPT, "small-disk"]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let disk = Self { path, keeper };
        (line == "mounted\n").then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
