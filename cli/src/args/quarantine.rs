//! The arguments of `quarantine`.

use std::ffi::OsString;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the files that wait for a decision here
    #[command(
        after_help = "BYTES says where this device has them; what is not here may be on other devices. They are kept as long as old
versions are (30 days, unless [versions] keep says otherwise).

Examples:
  syncctl quarantine list
  syncctl quarantine list --json | jq -r '.items[].path'"
    )]
    List,
    /// Publish a file again under this device's name
    #[command(
        after_help = "Without --version it is the newest of PATH. It becomes the file at PATH, as an edit of this device's, whatever was
changed there since: that is kept as an old version (syncctl history, restore). To look at it first, or to have both,
write it beside: syncctl restore PATH --version V -o FILE. The device must be owner, admin, or editor of PATH.

Examples:
  syncctl quarantine accept docs/plan.odt
  syncctl quarantine accept docs/plan.odt --version 3f2a0b0c-17-0"
    )]
    Accept {
        /// Which path, below the folder or absolute
        path: OsString,
        /// The version, as list prints it, or the beginning of it
        #[arg(long, value_name = "V")]
        version: Option<String>,
    },
    /// Remove the bytes of a file from this device, and list it no more
    #[command(
        after_help = "Without --version all of PATH goes. The ledger keeps that it was written; other devices keep theirs until they drop it,
or it is too old.

Examples:
  syncctl quarantine drop docs/plan.odt
  syncctl quarantine drop docs/plan.odt --version 3f2a0b0c-17-0 --yes"
    )]
    Drop {
        /// Which path, below the folder or absolute
        path: OsString,
        /// The version, as list prints it, or the beginning of it
        #[arg(long, value_name = "V")]
        version: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
