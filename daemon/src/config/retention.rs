//! `[versions]`: for how long old versions are kept, and how much room they may take.

use std::time::Duration;

use super::ConfigError;

/// How much room old versions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSize {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that the folder lies on.
    Percent(u8),
}

/// What is kept unless the user says otherwise.
const DEFAULT_KEEP: &str = "30d";
const DEFAULT_MAX_SIZE: &str = "25%";

/// Reads `versions.keep`.
pub(super) fn keep(text: Option<&str>) -> Result<Duration, ConfigError> {
    let text = text.unwrap_or(DEFAULT_KEEP);
    let (number, unit) = split(text);
    let seconds = match unit {
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let product = number
        .zip(seconds)
        .and_then(|(number, seconds)| number.checked_mul(seconds));
    product
        .map(Duration::from_secs)
        .ok_or_else(|| ConfigError::Value {
            key: "versions.keep",
            why: format!("{text:?} is not a time like \"12h\" or \"30d\""),
        })
}

/// Reads `versions.max_size`.
pub(super) fn max_size(text: Option<&str>) -> Result<MaxSize, ConfigError> {
    let text = text.unwrap_or(DEFAULT_MAX_SIZE);
    let (number, unit) = split(text);
    let percent = number.parse().ok().filter(|n: &u8| *n <= 100);
    let size = match (unit, percent) {
        ("%", Some(percent)) => Some(MaxSize::Percent(percent)),
        _ => bytes(text).map(MaxSize::Bytes),
    };
    size.ok_or_else(|| ConfigError::Value {
        key: "versions.max_size",
        why: format!("{text:?} is not a size like \"10GiB\", nor a share of the disk like \"25%\""),
    })
}

/// Reads a number of bytes, with a unit or without.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift)
}

fn split(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(keep(None).unwrap(), 30 * day);
        assert_eq!(keep(Some("12h")).unwrap(), day / 2);
        assert_eq!(keep(Some("0d")).unwrap(), Duration::ZERO);
        assert_eq!(max_size(None).unwrap(), MaxSize::Percent(25));
        assert_eq!(max_size(Some("10GiB")).unwrap(), MaxSize::Bytes(10 << 30));
        assert_eq!(max_size(Some("1 MiB")).unwrap(), MaxSize::Bytes(1 << 20));
        assert_eq!(max_size(Some("7")).unwrap(), MaxSize::Bytes(7));
        for bad in [
            "",
            "d",
            "30",
            "-1d",
            "1w",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(keep(Some(bad)).is_err(), "{bad}");
        }
        for bad in ["", "GiB", "101%", "10GB", "1.5GiB", "99999999999TiB"] {
            assert!(max_size(Some(bad)).is_err(), "{bad}");
        }
    }
}
