//! One source of configuration; what it does not say is left to the next.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::paths::Environment;

/// The sections and their keys, as the file and the environment spell them.
pub(super) const KEYS: [(&str, &[&str]); 6] = [
    ("daemon", &["name", "state_dir", "log"]),
    (
        "folder",
        &[
            "path",
            "modes",
            "default_ignores",
            "ignore",
            "min_free",
            "delete_guard",
        ],
    ),
    ("control", &["socket", "group", "read_only_group"]),
    (
        "network",
        &["listen", "mdns", "peers", "lan_pairing", "trust_lan"],
    ),
    ("versions", &["keep", "max_size"]),
    ("ledger", &["author_quota"]),
];

/// Variables that begin like configuration but are not.
const ENV_PREFIX: &str = "P2P_SYNC_";
/// The control socket under the name that `syncctl` reads, too.
const ENV_SOCKET: &str = "P2P_SYNC_SOCKET";

/// What one source says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Layer {
    /// The file's version; 1.
    pub version: Option<u64>,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[folder]`.
    pub folder: Folder,
    /// `[control]`.
    pub control: Control,
    /// `[network]`.
    pub network: Network,
    /// `[versions]`.
    pub versions: Versions,
    /// `[ledger]`.
    pub ledger: Ledger,
}

/// `[daemon]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Daemon {
    /// The device's name.
    pub name: Option<String>,
    /// Where key and store are.
    pub state_dir: Option<PathBuf>,
    /// What the log shows.
    pub log: Option<String>,
}

/// `[folder]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Folder {
    /// Where the folder is.
    pub path: Option<PathBuf>,
    /// Which permission bits are kept.
    pub modes: Option<Modes>,
    /// Whether the built-in set of temporary names is ignored.
    pub default_ignores: Option<bool>,
    /// Further paths that are ignored.
    pub ignore: Option<Vec<String>>,
    /// What is left free on the file system.
    pub min_free: Option<String>,
    /// Whether many deletions that nobody saw happen are held.
    pub delete_guard: Option<bool>,
}

/// `[control]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Control {
    /// Where the control socket is.
    pub socket: Option<PathBuf>,
    /// The group whose members may use it.
    pub group: Option<String>,
    /// The group whose members may use it to read.
    pub read_only_group: Option<String>,
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Addresses to listen on.
    pub listen: Option<Vec<String>>,
    /// Whether to find devices on the local network.
    pub mdns: Option<bool>,
    /// Addresses to keep dialling.
    pub peers: Option<Vec<String>>,
    /// Whether devices of the local network are told this one's name, and may ask to be let in.
    pub lan_pairing: Option<bool>,
    /// Whether to admit devices of the local network without asking.
    pub trust_lan: Option<bool>,
}

/// `[versions]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Versions {
    /// For how long old versions are kept.
    pub keep: Option<String>,
    /// How much room they may take.
    pub max_size: Option<String>,
}

/// `[ledger]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// How much one author's events may take before there is a warning.
    pub author_quota: Option<String>,
}

/// Which permission bits are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modes {
    /// All of 0o777: a user's own files.
    #[default]
    Full,
    /// Only whether the owner may execute; the rest comes from the directory: files that others share.
    Exec,
}

impl Modes {
    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Exec => "exec",
        }
    }
}

impl Layer {
    /// Takes from `lower` what this layer does not say.
    pub(super) fn fill_from(&mut self, lower: Self) {
        fn fill<T>(upper: &mut Option<T>, lower: Option<T>) {
            if upper.is_none() {
                *upper = lower;
            }
        }
        fill(&mut self.daemon.name, lower.daemon.name);
        fill(&mut self.daemon.state_dir, lower.daemon.state_dir);
        fill(&mut self.daemon.log, lower.daemon.log);
        fill(&mut self.folder.path, lower.folder.path);
        fill(&mut self.folder.modes, lower.folder.modes);
        fill(&mut self.folder.default_ignores, lower.folder.default_ignores);
        fill(&mut self.folder.ignore, lower.folder.ignore);
        fill(&mut self.folder.min_free, lower.folder.min_free);
        fill(&mut self.folder.delete_guard, lower.folder.delete_guard);
        fill(&mut self.control.socket, lower.control.socket);
        fill(&mut self.control.group, lower.control.group);
        fill(&mut self.control.read_only_group, lower.control.read_only_group);
        fill(&mut self.network.listen, lower.network.listen);
        fill(&mut self.network.mdns, lower.network.mdns);
        fill(&mut self.network.peers, lower.network.peers);
        fill(&mut self.network.lan_pairing, lower.network.lan_pairing);
        fill(&mut self.network.trust_lan, lower.network.trust_lan);
        fill(&mut self.versions.keep, lower.versions.keep);
        fill(&mut self.versions.max_size, lower.versions.max_size);
        fill(&mut self.ledger.author_quota, lower.ledger.author_quota);
    }
}

/// Reads `P2P_SYNC_SECTION__KEY`; lists have commas between their elements.
pub(super) fn from_environment(environment: &Environment) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    let mut mistakes = Vec::new();
    for (variable, value) in &environment.vars {
        let Some((section, key)) = variable.strip_prefix(ENV_PREFIX).and_then(|v| v.split_once("__")) else {
            continue;
        };
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        let result = match value.to_str() {
            Some(text) => layer.set(&section, &key, text),
            None => layer.set_path(&section, &key, PathBuf::from(value)),
        };
        if let Err(why) = result {
            mistakes.push(format!("{variable}: {why}"));
        }
    }
    if layer.control.socket.is_none() {
        layer.control.socket = environment.var(ENV_SOCKET).map(PathBuf::from);
    }
    if mistakes.is_empty() {
        Ok(layer)
    } else {
        Err(ConfigError::Mistakes(mistakes))
    }
}

impl Layer {
    fn set(&mut self, section: &str, key: &str, text: &str) -> Result<(), String> {
        let list = || {
            text.split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let boolean = || match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("expected true or false, found {text:?}")),
        };
        match (section, key) {
            ("daemon", "name") => self.daemon.name = Some(text.to_owned()),
            ("daemon", "log") => self.daemon.log = Some(text.to_owned()),
            ("folder", "min_free") => self.folder.min_free = Some(text.to_owned()),
            ("folder", "modes") => {
                self.folder.modes = Some(match text {
                    "full" => Modes::Full,
                    "exec" => Modes::Exec,
                    _ => return Err(format!("expected full or exec, found {text:?}")),
                });
            }
            ("folder", "default_ignores") => self.folder.default_ignores = Some(boolean()?),
            ("folder", "ignore") => self.folder.ignore = Some(list()),
            ("folder", "delete_guard") => self.folder.delete_guard = Some(boolean()?),
            ("control", "read_only_group") => self.control.read_only_group = Some(text.to_owned()),
            ("control", "group") => self.control.group = Some(text.to_owned()),
            ("network", "listen") => self.network.listen = Some(list()),
            ("network", "mdns") => self.network.mdns = Some(boolean()?),
            ("network", "peers") => self.network.peers = Some(list()),
            ("network", "lan_pairing") => self.network.lan_pairing = Some(boolean()?),
            ("network", "trust_lan") => self.network.trust_lan = Some(boolean()?),
            ("versions", "keep") => self.versions.keep = Some(text.to_owned()),
            ("ledger", "author_quota") => self.ledger.author_quota = Some(text.to_owned()),
            ("versions", "max_size") => self.versions.max_size = Some(text.to_owned()),
            _ => return self.set_path(section, key, PathBuf::from(text)),
        }
        Ok(())
    }

    fn set_path(&mut self, section: &str, key: &str, path: PathBuf) -> Result<(), String> {
        match (section, key) {
            ("daemon", "state_dir") => self.daemon.state_dir = Some(path),
            ("folder", "path") => self.folder.path = Some(path),
            ("control", "socket") => self.control.socket = Some(path),
            _ => {
                let keys = KEYS
                    .iter()
                    .find(|(name, _)| *name == section)
                    .map(|(_, keys)| *keys);
                return Err(match keys {
                    None => unknown("section", section, KEYS.map(|(name, _)| name)),
                    Some(keys) if keys.contains(&key) => "expected UTF-8".to_owned(),
                    Some(keys) => unknown("key", key, keys.iter().copied()),
                });
            }
        }
        Ok(())
    }
}

/// Returns the words for something that is not known, with what may have been meant.
pub(super) fn unknown<'a>(what: &str, found: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = known.into_iter().map(|word| (distance(found, word), word)).min();
    match nearest {
        Some((distance, word)) if distance <= found.len().max(word.len()) / 2 => {
            format!("unknown {what} '{found}'; did you mean '{word}'?")
        }
        _ => format!("unknown {what} '{found}'"),
    }
}

/// Returns how many characters must be added, removed or changed to get from one word to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ignor", "ignore"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(
            unknown("key", "lissten", ["listen", "mdns"]),
            "unknown key 'lissten'; did you mean 'listen'?"
        );
        assert_eq!(
            unknown("key", "bandwidth", ["listen", "mdns"]),
            "unknown key 'bandwidth'"
        );
    }
}
