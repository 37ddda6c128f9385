//! Processor time and memory of a process, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc`; 100 on every Linux this program is built for.
const USER_HZ: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// The same of its children that have ended and been waited for.
    pub cpu_children: Duration,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Most resident memory so far, in bytes.
    pub rss_peak_bytes: u64,
}

impl Usage {
    /// Reads the figures of a running process.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("No process {pid}"))?;
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("No process {pid}"))?;
        // The command name, in parentheses, may hold spaces; utime, stime, cutime and cstime are the 12th to 15th
        // field after it.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<u64> = after_name
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse().ok())
            .collect();
        let time = |ticks: &[u64]| Duration::from_millis(ticks.iter().sum::<u64>() * 1000 / USER_HZ);
        Ok(Self {
            cpu: time(fields.get(..2).unwrap_or_default()),
            cpu_children: time(fields.get(2..).unwrap_or_default()),
            rss_bytes: status_bytes(&status, "VmRSS:"),
            rss_peak_bytes: status_bytes(&status, "VmHWM:"),
        })
    }
}

fn status_bytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_plausible() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000 && usage.rss_peak_bytes >= usage.rss_bytes / 2);
    }
}
