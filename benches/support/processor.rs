//! Processor time of the processes that a benchmark has started.

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
