//! The commands about members, invites and this device.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members, and those who were
    List,
    /// Make a member something else
    #[command(
        after_help = "Role and paths replace those it has. What it loses it loses once it has heard of it; with --now at once,
and changes of it that are not known here count nowhere. Its folder keeps them.

An owner may do everything; an admin may invite, remove and change editors and viewers; an editor may change files; a
viewer may read. An owner cannot be changed by an owner that it, or one before it, made.

Examples:
  syncctl member role laptop editor
  syncctl member role laptop editor --scope docs --scope src/web
  syncctl member role laptop viewer --now"
    )]
    Role(RoleWanted),
    /// Say whose device a member is
    #[command(
        after_help = "The tag is for people, and for syncctl member remove; it gives no rights. An owner may tag every device, an
admin its own and those of editors and viewers.

Examples:
  syncctl member person laptop Anna
  syncctl member person laptop --none"
    )]
    Person(PersonWanted),
    /// End the membership of devices
    #[command(
        after_help = "The devices get nothing any more, and nothing of them is taken. Their folders stay as they are, with
changes that are not known here. The name of a person (syncctl member person) stands for all members that are that
person's; they are listed first, and go in one event. Type person:NAME if a device is called so, too.

To undo also what a device did before, give --cut the number at which that began: it is the middle number of a version as
syncctl history prints it. Where two machines have used one key (DEVICE_FORKED), one number may stand for two events: give
--cut-event the first event that is not to count, as syncctl log prints it; what the other machine did stays. Whom the
device had removed after that stays removed: that is said again, and printed.

Examples:
  syncctl member remove laptop
  syncctl member remove laptop phone --reason \"sold\" --yes
  syncctl member remove person:Anna
  syncctl member remove 3f2a0b0c --cut 17 --with-admitted
  syncctl member remove laptop --cut-event 8f3a0b0c"
    )]
    Remove(RemovalWanted),
}

/// What a member is to be.
#[derive(Debug, Args)]
pub(crate) struct RoleWanted {
    /// Which device
    pub(crate) device: String,
    /// What it may do from now on
    pub(crate) role: RoleName,
    /// Let it write only at and below this path; may be given again
    #[arg(long = "scope", value_name = "PATH")]
    pub(crate) scopes: Vec<OsString>,
    /// Take what it loses at once, also for changes that it made and that are not known here
    #[arg(long)]
    pub(crate) now: bool,
}

/// Whose a device is.
#[derive(Debug, Args)]
pub(crate) struct PersonWanted {
    /// Which device
    pub(crate) device: String,
    /// Whose, at most 64 bytes
    #[arg(value_name = "NAME", required_unless_present = "none")]
    pub(crate) person: Option<String>,
    /// Nobody's in particular
    #[arg(long, conflicts_with = "person")]
    pub(crate) none: bool,
}

/// Who is to be removed, and how.
#[derive(Debug, Args)]
pub(crate) struct RemovalWanted {
    /// Which devices, or whose
    #[arg(required = true, value_name = "DEVICE|PERSON")]
    pub(crate) devices: Vec<String>,
    /// Undo what the device did from this number of its log on
    #[arg(long, value_name = "SEQ")]
    pub(crate) cut: Option<u64>,
    /// Undo what the device did from this event on; named as in ledger show
    #[arg(long, value_name = "EVENT", conflicts_with = "cut")]
    pub(crate) cut_event: Option<String>,
    /// Remove those, too, whom only these devices admitted
    #[arg(long)]
    pub(crate) with_admitted: bool,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make a ticket with which a device can join
    #[command(after_help = "Whoever has the ticket can join: hand it over in private.

Examples:
  syncctl invite create
  syncctl invite create --role viewer --expires 7d --uses 5
  syncctl invite create --scope docs
  syncctl invite create --person Anna
  TICKET=$(syncctl invite create --json | jq -r .ticket)")]
    Create(InviteWanted),
    /// List the invites
    #[command(after_help = "Example:
  syncctl invite list")]
    List,
    /// End an invite, so that it lets nobody in any more
    #[command(
        after_help = "Who came in by it stays. The key is what syncctl invite list prints, or the beginning of it.

Examples:
  syncctl invite revoke 3f2a0b0c
  syncctl invite revoke p2ps1… --yes"
    )]
    Revoke {
        /// Its key or its ticket
        #[arg(value_name = "KEY|TICKET")]
        invite: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What an invite is to give.
#[derive(Debug, Args)]
pub(crate) struct InviteWanted {
    /// What the joining device may do
    #[arg(long, default_value = "editor")]
    pub(crate) role: InviteRole,
    /// How long the ticket is good, for example 30m, 24h or 7d
    #[arg(long, value_name = "D", default_value = "24h", value_parser = duration)]
    pub(crate) expires: Duration,
    /// How often it can be used
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) uses: u32,
    /// Let the joining device write only at and below this path; may be given again
    #[arg(long = "scope", value_name = "PATH")]
    pub(crate) scopes: Vec<OsString>,
    /// Whose device the joining one is, for people
    #[arg(long, value_name = "NAME")]
    pub(crate) person: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Show this device's id and name
    #[command(after_help = "Examples:
  syncctl device id
  syncctl device id --json | jq -r .peer_id")]
    Id,
    /// Give this device another name
    #[command(after_help = "Example:
  syncctl device rename anna-laptop")]
    Rename {
        /// The name, at most 256 bytes
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecoveryCommand {
    /// Show the recovery words on a terminal, and erase them once they are written down
    #[command(
        after_help = "The device that founded the group has them. Whoever has the words can make a device of the group an owner
that is senior to all others: keep them where you keep keys.

Example:
  syncctl recovery show"
    )]
    Show,
    /// Make this device an owner by the recovery words
    #[command(
        after_help = "The words are typed, or read from standard input. Use them on one device only, when all owners are lost, or an
owner's device was stolen; then remove that device.

Example:
  syncctl recovery use"
    )]
    Use,
}

/// Roles that an invite or an approval can give.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum InviteRole {
    /// May read
    Viewer,
    /// May also change files
    Editor,
    /// May also invite and remove editors and viewers
    Admin,
}

/// Roles that a member can be given.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// May read
    Viewer,
    /// May also change files
    Editor,
    /// May also invite and remove editors and viewers
    Admin,
    /// May do everything
    Owner,
}

impl From<InviteRole> for RoleName {
    fn from(role: InviteRole) -> Self {
        match role {
            InviteRole::Viewer => Self::Viewer,
            InviteRole::Editor => Self::Editor,
            InviteRole::Admin => Self::Admin,
        }
    }
}
