//! A worker with a provider that answers at once, so that the queue is what limits it.

use super::support::Running;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// The program of this version.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sluice");

/// A provider that answers at once, and its address.
pub fn fast_provider(scratch: &Path) -> anyhow::Result<(Running, String)> {
    const BEGIN: &str = "http://127.0.0.1:";
    let scenario = scratch.join("scenario.toml");
    std::fs::write(&scenario, include_str!("../throughput.scenario.toml"))?;
    let mut simulator = Running(
        Command::new(PROGRAM)
            .args(["simulate", "--listen", "127.0.0.1:0", "--scenario"])
            .arg(&scenario)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let errors = simulator.0.stderr.take().ok_or_else(|| anyhow::anyhow!("no pipe"))?;
    let mut lines = BufReader::new(errors).lines();
    let address = loop {
        let line = lines.next().ok_or_else(|| anyhow::anyhow!("the simulator did not start"))??;
        if let Some((_, rest)) = line.split_once(BEGIN) {
            break format!("{BEGIN}{}", rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    Ok((simulator, address))
}

/// A worker of this program that uses that provider, not started yet.
pub fn fast_worker(program: &str, scratch: &Path, url: &str, provider: &str) -> std::io::Result<Command> {
    let config = scratch.join("sluice.toml");
    std::fs::write(&config, include_str!("../throughput.sluice.toml").replace("http://simulator", provider))?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(&config)
        .env("DATABASE_URL", url)
        .env("SLUICE__HTTP__LISTEN", "off")
        .env("SLUICE__SPOOL__DIR", scratch.join("spool"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}
