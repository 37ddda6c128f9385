//! `[ledger]`: how much of the ledger one author's events may take before somebody is told.

use super::ConfigError;
use super::retention::bytes;

/// The quota unless the user says otherwise: 4 GiB, at 100 bytes of ledger for a file some forty million changes.
const DEFAULT_AUTHOR_QUOTA: u64 = 4 << 30;

/// Reads `ledger.author_quota`, in bytes; 0: nobody is told.
pub(super) fn author_quota(text: Option<&str>) -> Result<u64, ConfigError> {
    let Some(text) = text else {
        return Ok(DEFAULT_AUTHOR_QUOTA);
    };
    bytes(text).ok_or_else(|| ConfigError::Value {
        key: "ledger.author_quota",
        why: format!("{text:?} is not a size like \"4GiB\", or \"0\" for no warning"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_size() {
        for (text, expected) in [
            (None, Some(4 << 30)),
            (Some("0"), Some(0)),
            (Some("512"), Some(512)),
            (Some("3MiB"), Some(3 << 20)),
            (Some("25%"), None),
            (Some("much"), None),
            (Some("99999999999TiB"), None),
        ] {
            assert_eq!(author_quota(text).ok(), expected, "{text:?}");
        }
    }
}
