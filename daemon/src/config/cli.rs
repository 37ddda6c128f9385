//! The daemon's command line.

use std::path::PathBuf;

use clap::Parser;

use super::layer::{Control, Daemon, Folder, Layer, Ledger, Network, Versions};

/// Keep a folder the same on many machines, peer to peer.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "p2p_sync_daemon",
    version,
    about = "Keep a folder the same on many machines, peer to peer",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Without any option it keeps ./sync_folder. Drive it with syncctl.

Examples:
  p2p_sync_daemon
  p2p_sync_daemon --sync-dir ~/Sync --name laptop
  p2p_sync_daemon --join p2ps1…
  p2p_sync_daemon --config /etc/p2p-sync/config.toml --check-config
  p2p_sync_daemon demo

Precedence: option, environment (P2P_SYNC_SECTION__KEY), configuration file, default.
Exit codes: 0 stopped, 64 wrong usage, 78 configuration error; others mean failure."
)]
pub struct Cli {
    /// Read this configuration file [default: $XDG_CONFIG_HOME/p2p-sync/config.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep this folder [default: ./sync_folder]
    #[arg(long, value_name = "DIR")]
    pub sync_dir: Option<PathBuf>,
    /// Keep key and store here [default: $XDG_STATE_HOME/p2p-sync/HASH-OF-FOLDER]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Put the control socket here [default: $XDG_RUNTIME_DIR/p2p-sync/control.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Listen on this address; may be repeated [default: port 22010, TCP, all interfaces]
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Keep dialling this address; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub peer: Vec<String>,
    /// Call this device so [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Join the group of this ticket
    #[arg(long, value_name = "TICKET")]
    pub join: Option<String>,
    /// Do not look for devices on the local network
    #[arg(long)]
    pub no_mdns: bool,
    /// Do not tell devices of the local network this one's name, and let none of them ask to join
    #[arg(long)]
    pub no_lan_pairing: bool,
    /// Admit every device of the local network as an editor, without asking
    #[arg(long)]
    pub trust_lan: bool,
    /// Take the folder as it is, after it was moved, replaced or restored from a backup: compare every file with what the
    /// group has, and take nothing that is missing for deleted. For one start only
    #[arg(long)]
    pub rebind: bool,
    /// Check the configuration, print it and stop
    #[arg(long)]
    pub check_config: bool,
    /// What to do other than keep a folder
    #[command(subcommand)]
    pub command: Option<Subcommand>,
}

/// What the daemon's binary does other than keep a folder.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Subcommand {
    /// Show two devices that share a folder on this machine, then stop
    Demo {
        /// Share the files of this directory instead of made-up ones; it is only read
        #[arg(value_name = "SOURCE_DIR")]
        source_dir: Option<PathBuf>,
    },
}

impl Cli {
    /// Returns what the options say about configuration.
    pub(super) fn layer(&self) -> Layer {
        let some = |list: &Vec<String>| Some(list.clone()).filter(|l| !l.is_empty());
        Layer {
            version: None,
            daemon: Daemon {
                name: self.name.clone(),
                state_dir: self.state_dir.clone(),
                log: None,
            },
            folder: Folder {
                path: self.sync_dir.clone(),
                modes: None,
                default_ignores: None,
                ignore: None,
                min_free: None,
                delete_guard: None,
            },
            control: Control {
                socket: self.socket.clone(),
                group: None,
                read_only_group: None,
            },
            network: Network {
                listen: some(&self.listen),
                mdns: self.no_mdns.then_some(false),
                peers: some(&self.peer),
                lan_pairing: self.no_lan_pairing.then_some(false),
                trust_lan: self.trust_lan.then_some(true),
            },
            versions: Versions::default(),
            ledger: Ledger::default(),
        }
    }
}
