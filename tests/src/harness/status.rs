//! What `syncctl status` says.

use serde_json::Value;

/// The answer to `syncctl status --json`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// Returns the folder's state, as `in_sync`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.0["folder"]["state"].as_str().unwrap_or_default()
    }

    /// Returns a number of the folder's part, as `files_needed`; `None` if there is no such key.
    #[must_use]
    pub fn folder(&self, key: &str) -> Option<u64> {
        self.0["folder"][key].as_u64()
    }

    /// Says whether the device has nothing left to do.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.state() == "in_sync" && self.folder("files_needed") == Some(0)
    }

    /// Returns why the folder failed; empty if it did not.
    #[must_use]
    pub fn failure(&self) -> &str {
        self.0["folder"]["failure"].as_str().unwrap_or_default()
    }

    /// Returns the number of connected members.
    #[must_use]
    pub fn connected(&self) -> u64 {
        self.0["peers"]["connected"].as_u64().unwrap_or_default()
    }

    /// Returns the paths that are stuck or cannot be read, each as `path: reason`, one on a line.
    #[must_use]
    pub fn stuck(&self) -> String {
        let stuck = self.0["folder"]["stuck"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        stuck
            .map(|one| format!("{}: {}\n", text(&one["path"]), text(&one["reason"])))
            .collect()
    }

    /// Returns the number of events in the ledger, if the status tells.
    #[must_use]
    pub fn events(&self) -> Option<u64> {
        self.0["events"].as_u64()
    }
}
