//! The real program, run as a user would run it.

use super::wait::PATIENCE;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::process::{Child, Command};

/// Connections of a process whose configuration does not tell. A worker opens as many as it may. Each of them is a
/// process of the server that plans every statement for itself: with the default of ten, two fifths of the processor
/// time of these tests was theirs.
const CONNECTIONS: &str = "4";

/// A folder with a configuration, and a database.
pub struct Program {
    folder: tempfile::TempDir,
    url: String,
}

impl Program {
    /// With this configuration and this database.
    pub fn new(config: &str, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
        Self { folder, url: url.to_owned() }
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into its folder.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command
            .current_dir(self.folder.path())
            .arg("--config")
            .arg(self.path("sluice.toml"))
            .args(arguments)
            .env_remove("SLUICE_CONFIG")
            .env("DATABASE_URL", &self.url)
            // Of the program alone: tests do not take over from each other's workers.
            .env("SLUICE__SPOOL__DIR", self.path("spool"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let config = std::fs::read_to_string(self.path("sluice.toml")).unwrap_or_default();
        if !config.contains("max_connections") {
            command.env("SLUICE__DATABASE__MAX_CONNECTIONS", CONNECTIONS);
        }
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        ended(self.command(arguments).spawn().unwrap()).await
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub async fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "`sluice {}` failed:\n{}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }
}

/// Waits for a process, but not for ever: one that takes too long is told to stop, and what it said is shown.
pub async fn ended(child: Child) -> Output {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let mut waiting = std::pin::pin!(child.wait_with_output());
    if let Ok(output) = tokio::time::timeout(PATIENCE, &mut waiting).await {
        return output.unwrap();
    }
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::ABORT);
    }
    panic!("the command did not end:\n{}", text(&waiting.await.unwrap().stderr));
}

/// Bytes that a program printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads a file of JSON lines.
pub fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
