//! Configuration: the command line, the environment, the file, and the defaults, in that order of precedence.
//!
//! All four are read into the same [`Layer`], then laid over each other; [`Settings`] is what the daemon runs with.
//! An unknown key or a value of the wrong type is an error with its place, and all errors of a file are shown at
//! once. Members and policies are not configured here: they live in the ledger.

mod cli;
mod file;
mod layer;
mod ledger;
mod retention;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use p2p_sync_core::ticket::{Ticket, TicketError};

pub use cli::{Cli, Subcommand};
pub use layer::{Layer, Modes};
pub use retention::MaxSize;

use crate::free_space::Reserve;
use crate::ignore_rules;
use crate::paths::{DEFAULT_FOLDER, Environment, PathsError, SocketPlace};

/// The exit code for a configuration error (EX_CONFIG); systemd does not start the daemon again after it.
pub const EXIT_CONFIG: u8 = 78;

/// The port that devices listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 22010;

/// What the log shows by default.
const DEFAULT_LOG: &str = "info";
/// Bytes a device's name may have; the engine's limit.
const MAX_NAME_LEN: usize = 256;

/// Why the daemon cannot be configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file, or variables of the environment, break the rules.
    #[error("{}", .0.join("\n"))]
    Mistakes(Vec<String>),
    /// A value makes no sense, wherever it came from.
    #[error("{key}: {why}")]
    Value {
        /// `section.key`.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The ticket of `--join` is none.
    #[error("--join: not a ticket; copy all of the line that `syncctl invite create` printed")]
    Ticket(#[source] TicketError),
    /// A place cannot be told.
    #[error(transparent)]
    Paths(#[from] PathsError),
}

/// What the daemon runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The device's name, for people.
    pub name: String,
    /// The folder: absolute, without symbolic links as far as it exists. It need not exist.
    pub folder: PathBuf,
    /// Which permission bits are kept.
    pub modes: Modes,
    /// Whether the built-in set of temporary names is ignored.
    pub default_ignores: bool,
    /// Further paths that are ignored, patterns as in a `.gitignore`.
    pub ignore: Vec<String>,
    /// What is left free on the file system, whatever is fetched.
    pub min_free: Reserve,
    /// Whether many deletions that nobody saw happen are held until the user confirms them.
    pub delete_guard: bool,
    /// Where key and store are; not made yet.
    pub state_dir: PathBuf,
    /// Where the control socket goes; a socket that systemd passes comes before it.
    pub socket: SocketPlace,
    /// The group whose members may use the socket.
    pub group: Option<String>,
    /// The group whose members may use the socket to read.
    pub read_only_group: Option<String>,
    /// Multiaddresses to listen on. If the user named none and the port is taken, use [`Settings::any_port`].
    pub listen: Vec<String>,
    /// Whether the user named no address to listen on.
    pub listen_is_default: bool,
    /// Whether to find devices on the local network.
    pub mdns: bool,
    /// Multiaddresses to keep dialling.
    pub peers: Vec<String>,
    /// Whether devices of the local network are told this one's name, and may ask to be let in.
    pub lan_pairing: bool,
    /// Whether to admit devices of the local network without asking.
    pub trust_lan: bool,
    /// For how long old versions are kept.
    pub keep_versions: Duration,
    /// How much room old versions may take.
    pub max_versions: MaxSize,
    /// Bytes of one author's events in the ledger beyond which there is a warning; 0: never.
    pub author_quota: u64,
    /// What the log shows: a level, or `target=level,…`.
    pub log: String,
    /// The ticket to redeem.
    pub join: Option<Ticket>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment and the file and lays the command line over them.
    ///
    /// # Errors
    /// Any [`ConfigError`]; the exit code for it is [`EXIT_CONFIG`].
    pub fn resolve(cli: &Cli) -> Result<Self, ConfigError> {
        Self::resolve_in(cli, &Environment::current()?)
    }

    /// As [`Settings::resolve`], in a given environment.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve_in(cli: &Cli, environment: &Environment) -> Result<Self, ConfigError> {
        let file = config_file(cli, environment);
        let mut layer = cli.layer();
        layer.fill_from(layer::from_environment(environment)?);
        if let Some(path) = &file {
            layer.fill_from(file::read(path)?);
        }
        let join = cli
            .join
            .as_deref()
            .map(Ticket::parse)
            .transpose()
            .map_err(ConfigError::Ticket)?;
        Self::from_layer(layer, join, file, environment)
    }

    fn from_layer(
        layer: Layer,
        join: Option<Ticket>,
        file: Option<PathBuf>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let named = layer.folder.path.unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER));
        let folder = environment.real_path(&named)?;
        let state_dir = match layer.daemon.state_dir {
            Some(dir) => environment.real_path(&dir)?,
            None => environment.state_dir(&folder)?,
        };
        if state_dir.starts_with(&folder) {
            let why = format!(
                "{} lies in the folder, where it would be synced",
                state_dir.display()
            );
            return Err(ConfigError::Value {
                key: "daemon.state_dir",
                why,
            });
        }
        let socket = match layer.control.socket {
            Some(path) => SocketPlace::named(environment.current_dir.join(path))?,
            None => SocketPlace::own(&environment.runtime(), &folder)?,
        };
        let listen = layer.network.listen.filter(|l| !l.is_empty());
        let listen_is_default = listen.is_none();
        let listen = listen.unwrap_or_else(|| listen_on(DEFAULT_PORT));
        Ok(Self {
            name: name(layer.daemon.name, environment)?,
            folder,
            modes: layer.folder.modes.unwrap_or_default(),
            default_ignores: layer.folder.default_ignores.unwrap_or(true),
            ignore: patterns(layer.folder.ignore.unwrap_or_default())?,
            min_free: min_free(layer.folder.min_free.as_deref())?,
            delete_guard: layer.folder.delete_guard.unwrap_or(true),
            state_dir,
            socket,
            group: layer.control.group.filter(|g| !g.is_empty()),
            read_only_group: layer.control.read_only_group.filter(|g| !g.is_empty()),
            listen: addresses("network.listen", listen)?,
            listen_is_default,
            mdns: layer.network.mdns.unwrap_or(true),
            peers: addresses("network.peers", layer.network.peers.unwrap_or_default())?,
            lan_pairing: layer.network.lan_pairing.unwrap_or(true),
            trust_lan: layer.network.trust_lan.unwrap_or(false),
            keep_versions: retention::keep(layer.versions.keep.as_deref())?,
            max_versions: retention::max_size(layer.versions.max_size.as_deref())?,
            author_quota: ledger::author_quota(layer.ledger.author_quota.as_deref())?,
            log: layer.daemon.log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            join,
            file,
        })
    }

    /// Returns the addresses to listen on if the default port is taken: the same, with a port that is free.
    #[must_use]
    pub fn any_port() -> Vec<String> {
        listen_on(0)
    }

    /// Returns the settings in words, for `--check-config`.
    #[must_use]
    pub fn summary(&self) -> String {
        let file = self
            .file
            .as_ref()
            .map_or_else(|| "none".to_owned(), |f| f.display().to_string());
        let socket = match &self.socket {
            SocketPlace::Named(path) => path.display().to_string(),
            SocketPlace::Own { dir, name } => dir.join(name).display().to_string(),
        };
        let lines = [
            ("file", file),
            ("daemon.name", self.name.clone()),
            ("daemon.state_dir", self.state_dir.display().to_string()),
            ("daemon.log", self.log.clone()),
            ("folder.path", self.folder.display().to_string()),
            ("folder.modes", self.modes.as_str().to_owned()),
            ("folder.default_ignores", self.default_ignores.to_string()),
            ("folder.ignore", self.ignore.join(" ")),
            ("folder.min_free", self.min_free.to_string()),
            ("folder.delete_guard", self.delete_guard.to_string()),
            ("control.socket", socket),
            ("control.group", self.group.clone().unwrap_or_default()),
            (
                "control.read_only_group",
                self.read_only_group.clone().unwrap_or_default(),
            ),
            ("network.listen", self.listen.join(" ")),
            ("network.mdns", self.mdns.to_string()),
            ("network.peers", self.peers.join(" ")),
            ("network.trust_lan", self.trust_lan.to_string()),
            (
                "versions.keep",
                format!("{}h", self.keep_versions.as_secs() / 3600),
            ),
            (
                "versions.max_size",
                match self.max_versions {
                    MaxSize::Bytes(bytes) => format!("{bytes}B"),
                    MaxSize::Percent(percent) => format!("{percent}%"),
                },
            ),
            ("ledger.author_quota", format!("{}B", self.author_quota)),
        ];
        let lines = lines
            .into_iter()
            .map(|(key, value)| format!("{key:<23}{value}").trim_end().to_owned() + "\n");
        lines.collect::<String>() + "OK\n"
    }
}

/// Returns the words of a first start: what was made, and how a second device comes in.
#[must_use]
pub fn print_first_start(settings: &Settings, device: &str, socket: &Path) -> String {
    let syncctl = match &settings.socket {
        SocketPlace::Named(path) => format!("syncctl --socket {}", shell_word(path)),
        SocketPlace::Own { .. } if socket.file_name().is_some_and(|n| n == "control.sock") => {
            "syncctl".to_owned()
        }
        SocketPlace::Own { .. } => format!("syncctl --sync-dir {}", shell_word(&settings.folder)),
    };
    format!(
        "This device is \"{name}\", {device}.\n\
         It keeps the folder    {folder}\n\
         and is driven through  {socket}\n\
         \n\
         To share the folder with another machine:\n\
         \x20 1. here:   {syncctl} invite create\n\
         \x20 2. there:  p2p_sync_daemon --join TICKET     (or, if it runs already: syncctl join TICKET)\n",
        name = settings.name,
        folder = settings.folder.display(),
        socket = socket.display(),
    )
}

/// Returns a path as one word of a shell's command line.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn config_file(cli: &Cli, environment: &Environment) -> Option<PathBuf> {
    let named = cli.config.as_ref().map(|path| environment.current_dir.join(path));
    named.or_else(|| environment.user_config().filter(|path| path.exists()))
}

fn listen_on(port: u16) -> Vec<String> {
    vec![format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip6/::/tcp/{port}")]
}

fn name(given: Option<String>, environment: &Environment) -> Result<String, ConfigError> {
    let name = given.unwrap_or_else(|| environment.host_name.clone());
    let name = name.trim();
    let bad = |why: &str| {
        Err(ConfigError::Value {
            key: "daemon.name",
            why: why.to_owned(),
        })
    };
    if name.is_empty() {
        return bad("a device needs a name; give it one with --name");
    }
    if name.len() > MAX_NAME_LEN || name.chars().any(char::is_control) {
        return bad("a name has at most 256 bytes and no control characters");
    }
    Ok(name.to_owned())
}

fn patterns(list: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let key = "folder.ignore";
    list.iter()
        .try_for_each(|pattern| ignore_rules::check(pattern))
        .map(|()| list)
        .map_err(|why| ConfigError::Value { key, why })
}

fn min_free(text: Option<&str>) -> Result<Reserve, ConfigError> {
    let reserve = text.map(Reserve::parse).transpose();
    Ok(reserve
        .map_err(|why| ConfigError::Value {
            key: "folder.min_free",
            why,
        })?
        .unwrap_or_default())
}

fn addresses(key: &'static str, list: Vec<String>) -> Result<Vec<String>, ConfigError> {
    for text in &list {
        match text.parse::<libp2p::Multiaddr>() {
            Ok(address) if !address.is_empty() => {}
            Ok(_) => {
                return Err(ConfigError::Value {
                    key,
                    why: "an address is empty".to_owned(),
                });
            }
            Err(e) => {
                let why = format!("{text:?} is not a multiaddress like /ip4/192.0.2.7/tcp/22010 ({e})");
                return Err(ConfigError::Value { key, why });
            }
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests;
