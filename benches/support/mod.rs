//! Code that the benchmarks share.

use std::path::Path;
use std::process::Child;

/// A process that does not outlive the benchmark.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens a folder to all: as root, the server runs as another user, who has to get to its directory.
pub fn open_to_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// An option from the environment.
pub fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Processor time that a process has spent, and its ended children, in seconds. Linux tells it in hundredths.
pub fn processor_time(pid: u32) -> anyhow::Result<f64> {
    let ticks: u64 = stat(pid)?.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(ticks as f64 / 100.0)
}

/// As [`processor_time`], with the children that run.
pub fn processor_time_of_all(pid: u32) -> anyhow::Result<f64> {
    let mut sum = processor_time(pid)?;
    for entry in std::fs::read_dir("/proc")? {
        let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        if stat(other).is_ok_and(|fields| fields.get(1).is_some_and(|parent| *parent == pid.to_string())) {
            sum += processor_time(other).unwrap_or(0.0);
        }
    }
    Ok(sum)
}

/// The fields of `/proc/PID/stat` behind the name, which may have blanks in it.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').ok_or_else(|| anyhow::anyhow!("unexpected: {text}"))?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
