//! The result as a table and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// One piece of work by one program.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who.
    pub program: String,
    /// What.
    pub work: String,
    /// Bytes of content.
    pub bytes: u64,
    /// Regular files.
    pub files: usize,
    /// From the change on one side until it was whole on the other.
    pub wall: Duration,
    /// Processor time of both ends meanwhile.
    pub cpu: Duration,
    /// Most resident memory of each end so far, added up, in bytes.
    pub rss_peak_bytes: u64,
    /// Half of the single changes took at most this.
    pub latency_p50: Option<Duration>,
    /// 95 % of the single changes took at most this.
    pub latency_p95: Option<Duration>,
}

/// All rows.
#[derive(Debug, Clone)]
pub struct Report {
    /// In the order of measuring.
    pub rows: Vec<Row>,
}

impl Report {
    /// Returns a table for people.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = format!(
            "{:<14}{:<19}{:>9}{:>9}{:>10}{:>8}{:>9}{:>9}{:>9}\n",
            "program", "work", "seconds", "MB/s", "files/s", "CPU-s", "RSS MiB", "p50 ms", "p95 ms"
        );
        for row in &self.rows {
            let ms = |time: Option<Duration>| {
                time.map_or_else(|| "-".to_owned(), |time| number(time.as_secs_f64() * 1e3))
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "{:<14}{:<19}{:>9.2}{:>9}{:>10}{:>8.2}{:>9}{:>9}{:>9}",
                row.program,
                row.work,
                row.wall.as_secs_f64(),
                number(row.megabytes_per_second()),
                number(row.files_per_second()),
                row.cpu.as_secs_f64(),
                row.rss_peak_bytes >> 20,
                ms(row.latency_p50),
                ms(row.latency_p95),
            );
        }
        table
    }

    /// Returns JSON for programs: one object with a list of rows.
    #[must_use]
    pub fn to_json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        format!("{:#}\n", json!({ "schema": "p2psync.bench/1", "rows": rows }))
    }
}

impl Row {
    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.wall.as_secs_f64()
    }

    fn files_per_second(&self) -> f64 {
        self.files as f64 / self.wall.as_secs_f64()
    }

    fn to_json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "program": self.program,
            "work": self.work,
            "bytes": self.bytes,
            "files": self.files,
            "wall_ms": ms(self.wall),
            "cpu_ms": ms(self.cpu),
            "rss_peak_bytes": self.rss_peak_bytes,
            "mb_per_s": self.megabytes_per_second(),
            "files_per_s": self.files_per_second(),
            "latency_p50_ms": self.latency_p50.map(ms),
            "latency_p95_ms": self.latency_p95.map(ms),
        })
    }
}

fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_shows_rates_and_leaves_no_key_out() {
        let row = Row {
            program: "p2p-sync".to_owned(),
            work: "large file".to_owned(),
            bytes: 100_000_000,
            files: 1,
            wall: Duration::from_millis(500),
            cpu: Duration::from_millis(250),
            rss_peak_bytes: 64 << 20,
            latency_p50: None,
            latency_p95: Some(Duration::from_millis(12)),
        };
        let report = Report { rows: vec![row] };
        let lines: Vec<String> = report
            .to_table()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines[1], "p2p-sync large file 0.50 200 2.0 0.25 64 - 12");
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][0]["mb_per_s"], 200.0);
        assert!(json["rows"][0]["latency_p50_ms"].is_null());
    }
}
