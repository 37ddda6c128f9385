//! The command line.

mod members;
mod quarantine;
mod voters;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::members::{
    DeviceCommand, InviteCommand, InviteRole, InviteWanted, MemberCommand, PersonWanted, RecoveryCommand,
    RemovalWanted, RoleName, RoleWanted,
};
pub(crate) use self::quarantine::QuarantineCommand;
pub(crate) use self::voters::VotersCommand;

const AFTER_HELP: &str = "\
If the folder was moved, replaced or restored from a backup, start the daemon once with
  p2p_sync_daemon --rebind
It compares every file with what the group has, and takes nothing that is missing for deleted.

Exit codes:
  0   done, or nothing to do
  1   the answer is no, or the daemon refused
  64  wrong usage
  65  the ticket or proof is no good, or the ledger is damaged
  66  there is no such event or file
  69  the daemon cannot be reached
  73  a file cannot be made, or is there already
  75  not now: try again later, or time is up
  77  no permission
Unknown non-zero codes mean failure; new ones may come.";

/// Drive the p2p-sync daemon.
#[derive(Debug, Parser)]
#[command(
    name = "syncctl",
    version,
    about = "Drive the p2p-sync daemon",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Talk to the daemon at this socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "P2P_SYNC_SOCKET",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Talk to the daemon that keeps this folder
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) sync_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Give up after this long, for example 500ms, 30s or 5m
    #[arg(long, global = true, value_name = "D", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what the daemon is doing
    #[command(after_help = "Examples:
  syncctl status
  syncctl status --json | jq -r .folder.state")]
    Status,
    /// List the devices of the group, or connect to one
    #[command(
        visible_alias = "peer",
        after_help = "Examples:
  syncctl peers
  syncctl peers connect /ip4/192.0.2.7/tcp/22010/p2p/12D3Koo…"
    )]
    Peers {
        #[command(subcommand)]
        command: Option<PeersCommand>,
    },
    /// Print what happens until interrupted
    #[command(after_help = "Examples:
  syncctl watch
  syncctl watch --json | jq -c 'select(.type == \"path_synced\") | .path'")]
    Watch,
    /// Wait until something is so
    #[command(
        after_help = "Without --timeout it waits for as long as it takes. Time up is exit code 75.

Examples:
  syncctl wait --for connected --timeout 30s
  syncctl wait --for in-sync --timeout 5m && tar cf backup.tar sync_folder"
    )]
    Wait {
        /// What to wait for
        #[arg(long = "for", value_name = "STATE")]
        condition: Condition,
    },
    /// Make, list and revoke invites
    Invite {
        #[command(subcommand)]
        command: InviteCommand,
    },
    /// List the members, change what they may do, or remove them
    #[command(
        visible_alias = "roles",
        after_help = "A device is named by its name, its id, or the beginning of its id (4 digits or more).

Examples:
  syncctl member list
  syncctl member role laptop admin
  syncctl member person laptop Anna
  syncctl member remove laptop"
    )]
    Member {
        #[command(subcommand)]
        command: Option<MemberCommand>,
    },
    /// Write down the group's recovery words, or use them
    Recovery {
        #[command(subcommand)]
        command: RecoveryCommand,
    },
    /// Join the group of a ticket, or one of the local network by its name
    #[command(
        after_help = "lan:NAME asks a device of the local network; NAME is its name, or that of its group, or the beginning of its
id. Both devices show six digits, and this one is let in when they are typed there (syncctl approve). It waits five minutes
or --timeout.

Files here that differ from the group's are held if there are many, until you choose:
--keep-both publishes them as conflict copies, --prefer-group replaces them and keeps their bytes on this device.

Examples:
  syncctl join p2ps1…
  syncctl join p2ps1… --keep-both
  syncctl join lan:                    (lists who can be asked)
  syncctl join lan:photos
  syncctl join --dry-run               (counts the files once they are held)
  syncctl join --prefer-group          (decides about files that are held)"
    )]
    Join {
        /// The ticket that `syncctl invite create` printed, or lan:NAME
        #[arg(value_name = "TICKET|lan:NAME", required_unless_present_any = ["keep_both", "prefer_group", "dry_run"])]
        ticket: Option<String>,
        /// Keep files here that differ, as conflict copies
        #[arg(long, conflicts_with = "prefer_group")]
        keep_both: bool,
        /// Let the group's files replace files here that differ
        #[arg(long)]
        prefer_group: bool,
        /// Only read the ticket and say what it names; without a ticket: count the files that are held
        #[arg(long)]
        dry_run: bool,
    },
    /// Let a device of the local network in that asked, or list those that ask
    #[command(
        after_help = "A device asks with: syncctl join lan:NAME. Type the digits that its screen shows; if they are not those that this
device lists, somebody may stand between the two. Three wrong tries drop the request.

Examples:
  syncctl approve                        (lists who asks)
  syncctl approve 1a2b3c4d 123456
  syncctl approve 1a2b3c4d 123456 --role viewer"
    )]
    Approve {
        /// The device's id, or the beginning of it
        #[arg(requires = "code")]
        device: Option<String>,
        /// The six digits that it shows
        code: Option<String>,
        /// What the device may do
        #[arg(long, default_value = "editor")]
        role: InviteRole,
        /// Whose device it is, for people
        #[arg(long, value_name = "NAME")]
        person: Option<String>,
    },
    /// Show this device, or give it another name
    Device {
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Look for changes in the folder, or below a path of it
    #[command(
        after_help = "PATH is below the folder, or absolute. Bytes can be written as \\xNN.

Examples:
  syncctl rescan
  syncctl rescan photos/2024"
    )]
    Rescan {
        /// Where to look
        path: Option<OsString>,
    },
    /// List the versions of a path
    #[command(
        after_help = "ROLE is the author's role when the version was written; none: it counts nowhere (syncctl quarantine).
BYTES says where this device has a version's bytes. Kept are the bytes of what p2p-sync replaced or
removed here; what a program on this device overwrote is gone here, but other devices may have it.

Examples:
  syncctl history docs/plan.odt
  syncctl history docs/plan.odt --json | jq -r '.versions[] | select(.at_hand) | .id'"
    )]
    History {
        /// Which path, below the folder or absolute
        path: OsString,
        /// Leave out so many of the newest
        #[arg(long, value_name = "N", default_value_t = 0)]
        skip: u32,
        /// Show so many at most
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show, check and prove the ledger: the signed record of who did what
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Show the events of the ledger; the same as ledger log
    #[command(after_help = LOG_HELP)]
    Log(LogArgs),
    /// Bring back an old version of a path, or of everything below it
    #[command(
        after_help = "Without --version and --before it is the newest version that is not current. The version becomes an
edit of this device's, and what stood at the path is kept as a version: a restore can be undone by a restore. Bytes that
are not here are asked from the connected devices. --before restores all that stood at or below PATH then and differs
now; what was made later is left alone. TIME is like 2026-11-22T17:00:00Z, or 90m, 2h, 3d for that long ago.

Examples:
  syncctl restore docs/plan.odt
  syncctl restore docs/plan.odt --version 3f2a0b0c-17-0
  syncctl restore docs/plan.odt -o ./plan-old.odt
  syncctl restore --before 2h docs/
  syncctl restore --before 2026-11-22T17:00:00Z ."
    )]
    Restore {
        /// Which path, below the folder or absolute
        path: OsString,
        /// The version, as history prints it, or the beginning of it
        #[arg(long, value_name = "V", conflicts_with = "before")]
        version: Option<String>,
        /// What stood there before this time
        #[arg(long, value_name = "TIME", value_parser = past)]
        before: Option<SystemTime>,
        /// Write it to this new file and leave the folder alone
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List, accept or drop what was written without the right to
    #[command(
        after_help = "When a device was removed with --cut, or lowered with --now, what it wrote beyond that counts nowhere and is undone
everywhere. What had arrived here by then lies in quarantine until you decide, or it is too old.

Examples:
  syncctl quarantine list
  syncctl quarantine accept docs/plan.odt"
    )]
    Quarantine {
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Show the crash journal
    #[command(after_help = "Examples:
  syncctl journal
  syncctl journal --json | jq .open_installs")]
    Journal,
    /// Have a file, or all of a directory, for this device alone
    #[command(
        after_help = "While it is locked, what other devices write there does not become the file: it is kept as a conflict copy. The
lock lasts until it is unlocked, also while this device is off. A slash at the end locks a directory with all below it.
Voters grant locks: today the device that founded the group. Without it there is no new lock.

Examples:
  syncctl lock plan.odt
  syncctl lock drawings/ --note \"moving walls\" --for 8h
  syncctl lock plan.odt --wait 10m"
    )]
    Lock {
        /// What to lock
        path: OsString,
        /// Unlock it after this time
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasts: Option<Duration>,
        /// What for, for the others
        #[arg(long, default_value = "")]
        note: String,
        /// Wait so long while somebody else holds it or no voter is reachable
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0")]
        wait: Duration,
    },
    /// Publish what was changed under a lock, and end it
    #[command(
        after_help = "With --force somebody else's lock is ended: by an admin, or by any editor once its time is over. What its holder
writes under it afterwards becomes a conflict copy as soon as somebody else locks it, and the ledger shows who ended it.

Examples:
  syncctl unlock plan.odt
  syncctl unlock drawings/ --force --reason \"on holiday\""
    )]
    Unlock {
        /// What to unlock, as it was locked
        path: OsString,
        /// End it though it is another device's
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why, for the ledger
        #[arg(long, requires = "force")]
        reason: Option<String>,
    },
    /// List what is locked, and which voters can be reached
    #[command(after_help = "Examples:
  syncctl locks
  syncctl locks --theirs --json | jq -r .locks[].holder.name")]
    Locks {
        /// This device's only
        #[arg(long)]
        mine: bool,
        /// Other devices' only
        #[arg(long, conflicts_with = "mine")]
        theirs: bool,
    },
    /// Show or choose which devices grant locks
    Voters {
        #[command(subcommand)]
        command: VotersCommand,
    },
    /// Publish deletions that are held, or bring the files back
    #[command(
        after_help = "Many entries that vanished while the daemon was not looking are not deleted on other devices before you
say so. The folder is scanned once more; what is back by then is not deleted.

Examples:
  syncctl confirm-deletes
  syncctl confirm-deletes --restore    (fetches the files from the other devices)"
    )]
    ConfirmDeletes {
        /// Bring the files back
        #[arg(long)]
        restore: bool,
    },
    /// Say why a path is not in sync, or whether it is
    #[command(after_help = "PATH is below the folder, or absolute.

Examples:
  syncctl why photos/2024/a.jpg
  syncctl why a.jpg --json | jq -r .cause")]
    Why {
        /// What to ask about
        path: OsString,
    },
    /// Change nothing in the folder and publish nothing from it, until resumed
    #[command(after_help = "It stays paused when the daemon is restarted.

Example:
  syncctl pause")]
    Pause,
    /// Go on after a pause
    #[command(after_help = "Example:
  syncctl resume && syncctl wait --for in-sync")]
    Resume,
    /// Leave the group; the files here stay
    #[command(
        after_help = "The device forgets the group's history and members and founds a group of its own. The others keep what they
have, and keep this device on their lists.

Example:
  syncctl leave --yes"
    )]
    Leave {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// List the devices of the group
    List,
    /// Keep dialling an address
    #[command(after_help = "Example:
  syncctl peers connect /ip4/192.0.2.7/tcp/22010/p2p/12D3Koo…")]
    Connect {
        /// A multiaddress
        #[arg(value_name = "ADDR")]
        address: String,
    },
}

const LOG_HELP: &str = "Events of a device are ordered as it made them; what an event has seen comes before it. TIME is like
2026-11-22T17:00:00Z, or 90m, 2h, 3d for that long ago. With PATH: the events that wrote or removed it. The time shown is
the clock of whoever signed, and orders nothing.

Examples:
  syncctl log -n 3
  syncctl log docs/plan.odt
  syncctl log --since 2h --device laptop
  syncctl ledger log --follow --json | jq -c '.event.items[]'";

/// What `log` shows.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Only events that wrote or removed this path, below the folder or absolute
    pub(crate) path: Option<OsString>,
    /// Only events not before this time
    #[arg(long, value_name = "TIME", value_parser = past)]
    pub(crate) since: Option<SystemTime>,
    /// Only events of this device: its name, or the first digits of its id
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Show so many events at most (100; with --follow: 10)
    #[arg(short = 'n', long = "limit", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) limit: Option<u32>,
    /// Begin with the first events, not the last
    #[arg(long)]
    pub(crate) oldest_first: bool,
    /// In the order in which they arrived here
    #[arg(long)]
    pub(crate) by_arrival: bool,
    /// Go on with events as they arrive, until interrupted
    #[arg(short, long, conflicts_with_all = ["path", "since", "device", "oldest_first", "by_arrival"])]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Show the events of the ledger
    #[command(after_help = LOG_HELP)]
    Log(LogArgs),
    /// Show one event with all its items
    #[command(
        after_help = "EVENT is the first digits of its id, at least 8, or DEVICE:SEQ. The Genesis event's id names the group; whoever
checks a proof needs it.

Examples:
  syncctl ledger show 8f3a0b0c
  syncctl ledger show laptop:17
  syncctl ledger show --genesis"
    )]
    Show {
        /// Which event
        #[arg(required_unless_present = "genesis")]
        event: Option<String>,
        /// The event that founded the group
        #[arg(long, conflicts_with = "event")]
        genesis: bool,
    },
    /// Check the whole ledger again, from its bytes
    #[command(
        after_help = "--full (the default) checks every signature, item, clock and chain, what each event had seen, and that its author
was admitted; --fast only how the headers are chained. Exit code 65 if anything is wrong.

Examples:
  syncctl ledger verify
  syncctl ledger verify --fast --json | jq .faults_total"
    )]
    Verify {
        /// Only the chains of headers
        #[arg(long, conflicts_with = "full")]
        fast: bool,
        /// Everything
        #[arg(long)]
        full: bool,
    },
    /// Write a file that proves one item of the ledger to anybody
    #[command(
        after_help = "WHAT is a path, for the version that stands there now, or an event as in ledger show. Whoever gets the file needs
nothing else but the group's id (syncctl ledger show --genesis) to check who signed what and when, in which role, and who
has seen it. Other items of the event stay hidden. It does not show that nobody has revoked the author since.

Examples:
  syncctl ledger prove docs/plan.odt -o plan.proof
  syncctl ledger prove laptop:17 --item 2 -o change.proof"
    )]
    Prove {
        /// A path, below the folder or absolute, or an event
        #[arg(value_name = "WHAT")]
        what: OsString,
        /// WHAT is an event, though there is a path of that name
        #[arg(long)]
        event: bool,
        /// Which item of an event
        #[arg(long, value_name = "N", default_value_t = 0)]
        item: u32,
        /// Write it to this new file
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// Check a proof; needs no daemon
    #[command(
        after_help = "The group's id must come from a source that you trust, and not from whoever gave you the file. Exit code 65 if the
file proves nothing.

Example:
  syncctl ledger check-proof plan.proof --genesis 4b1f…"
    )]
    CheckProof {
        /// The proof
        file: PathBuf,
        /// The group's id, 64 digits
        #[arg(long, value_name = "ID")]
        genesis: String,
    },
    /// Write the whole ledger out, in the order in which it arrived here
    #[command(
        after_help = "--jsonl writes one event a line; --bundle the signed bytes, in a format that the file's first lines describe.

Examples:
  syncctl ledger export --jsonl | jq -c 'select(.kind == \"admin\")'
  syncctl ledger export --bundle -o ledger.bundle"
    )]
    Export {
        /// One event a line, as JSON
        #[arg(long, required_unless_present = "bundle", conflicts_with = "bundle")]
        jsonl: bool,
        /// The signed bytes
        #[arg(long)]
        bundle: bool,
        /// Write to this new file, not to the standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Condition {
    /// The folder holds all that the group has, as far as this device knows
    InSync,
    /// At least one other device of the group is connected
    Connected,
}

impl Condition {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::Connected => "connected",
        }
    }
}

/// Reads a duration: a number and one of `ms`, `s`, `m`, `h`, `d`; without a unit seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write it like 500ms, 30s, 5m, 24h or 7d".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write it like 500ms, 30s, 5m, 24h or 7d".to_owned())?;
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "that is too long".to_owned())
}

/// Reads a time: as RFC 3339 writes it, or how long ago.
fn past(text: &str) -> Result<SystemTime, String> {
    let words = || "write it like 2026-11-22T17:00:00Z, or 2h or 3d for that long ago".to_owned();
    if let Ok(ago) = duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(words);
    }
    let time: prost_types::Timestamp = text.parse().map_err(|_| words())?;
    SystemTime::try_from(time).map_err(|_| words())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("5m", 300_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "s",
            "5 m",
            "-1s",
            "1.5h",
            "5w",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_a_date_or_a_distance() {
        let at = |text| past(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("1970-01-02T00:00:05Z"), Ok(86_405));
        assert_eq!(at("1970-01-02T01:00:05+01:00"), Ok(86_405));
        let now = past("0s").unwrap();
        let ago = past("2h").unwrap();
        assert!(ago < now, "{ago:?} {now:?}");
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "999999999999999999d"] {
            assert!(past(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_command_shows_examples_or_has_subcommands() {
        for command in Cli::command().get_subcommands() {
            let examples = command
                .get_after_help()
                .is_some_and(|h| h.to_string().contains("Example"));
            assert!(examples || command.has_subcommands(), "{}", command.get_name());
        }
    }
}
