//! The arguments of `syncctl voters`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum VotersCommand {
    /// Show which devices grant locks
    #[command(after_help = "Examples:
  syncctl voters list
  syncctl voters list --json | jq -r .voters[].device.name")]
    List,
    /// Have one, three or five devices grant locks
    #[command(
        after_help = "A lock needs a majority of them, so with three of them one may be switched off. Best are devices that are always on. All
of them must be connected now, and a majority of those before, who hand over what is locked. Only an owner can do this.

With --force those before are not asked: for when too many of them are lost. Locks that the ledger shows stay. What was
granted in the last minutes and is not in the ledger here may be granted to another device, too.

Examples:
  syncctl voters set nas
  syncctl voters set nas desk attic
  syncctl voters set desk --force"
    )]
    Set {
        /// Ids, beginnings of ids, or names
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// Do not ask those before
        #[arg(long)]
        force: bool,
    },
}
