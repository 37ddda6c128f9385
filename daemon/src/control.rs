//! The control service: the gRPC API `p2psync.v1` on a Unix socket.
//!
//! It owns no state. What reads is answered from the published [`StatusSnapshot`]; what acts becomes a
//! [`ControlCommand`] with a oneshot for the answer, which the event loop hands to the engine, the network or the
//! journal; what happens is passed from the [`Notification`] channel to the watchers. A crash loses nothing but the
//! calls under way.
//!
//! Who may call what is decided once per connection, from the kernel's word about the peer ([`Access`]); every rpc, health
//! and reflection included, is refused to others with `PERMISSION_DENIED` (`control/caller.rs`). Errors become statuses in one place
//! (`control/status.rs`).

mod acl;
mod authority;
mod caller;
mod convert;
mod guards;
mod history;
mod ledger;
mod locks;
mod members;
mod naming;
mod pairing;
mod quarantine;
mod recovery;
mod server;
mod service;
mod socket;
mod status;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use p2p_sync_core::access::{Role, Scopes};
use p2p_sync_core::engine::{
    CommandError, JoinChoice, LockCommand, LockReply, MembersCommand, Notification, Reply, Status, WhyReport,
};
use p2p_sync_core::ids::{DeviceId, GroupId};
use p2p_sync_core::ledger::Person;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::ticket::Ticket;
use tokio::sync::{broadcast, mpsc, oneshot, watch as latest};

pub use caller::{Access, Reach};
pub use history::{AtHand, HistoryPage, PathVersion, Pick, RestoreProblem, RestoreStep, VersionPart};
pub use ledger::{EventRef, FollowPart, LedgerCommand, ProveTarget, Proven, VerifyStep};
pub use pairing::{Approved, JoinStep, PairingCommand};
pub use quarantine::{Accepted, Dropped, QuarantineCommand, QuarantinePage, QuarantinePlace, Quarantined};
pub use server::{ControlService, ServeError};
pub use socket::{ControlSocket, SocketError};

/// Commands that may wait for the event loop. Each belongs to a call that waits, so more would only wait longer.
pub const COMMAND_QUEUE: usize = 64;
/// Notifications kept for a slow watcher; who falls further behind is told how many were dropped.
pub const NOTIFICATION_QUEUE: usize = 1_024;

/// Where a command's answer goes. A closed receiver means that the caller went away; that is no error.
pub type ReplyTo<T> = oneshot::Sender<Result<T, ControlError>>;

/// What a user can ask of the daemon. Exactly one answer goes to each `reply`.
#[derive(Debug)]
pub enum ControlCommand {
    /// Make an invite and a ticket for it with this device's addresses.
    CreateInvite {
        /// The role of whoever redeems it; never owner.
        role: Role,
        /// When it ends; `None`: never.
        expires: Option<SystemTime>,
        /// How often it may be redeemed, 1 to [`MAX_INVITE_USES`].
        max_uses: u32,
        /// Where whoever redeems it may write.
        scopes: Scopes,
        /// Whose devices it lets in, if that is to be said.
        person: Option<Person>,
        /// The ticket.
        reply: ReplyTo<Ticket>,
    },
    /// Ask or change something about members.
    Members {
        /// What.
        command: MembersCommand,
        /// [`Reply::Members`] or [`Reply::Done`].
        reply: ReplyTo<Reply>,
    },
    /// Ask or change something about locks.
    Lock {
        /// What.
        command: LockCommand,
        /// What came of it. Whoever asked for a lock and is not there any more has none.
        reply: ReplyTo<LockReply>,
    },
    /// Redeem a ticket; answered when the device is in the group, or cannot be.
    Join {
        /// The ticket, already known to be well formed.
        ticket: Ticket,
        /// What to do with differing files; `None`: hold them if there are many.
        choice: Option<JoinChoice>,
        /// The group and the role.
        reply: ReplyTo<Joined>,
    },
    /// Pair by name on the local network.
    Pairing(PairingCommand),
    /// Decide about the files that a join left held.
    ResolveJoin {
        /// What to do with them.
        choice: JoinChoice,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Scan the folder or what lies below a path; answered when it is under way.
    Rescan {
        /// `None`: the whole folder.
        path: Option<RelPath>,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Publish the deletions that are held, or bring the files back; answered when it is under way.
    ConfirmDeletes {
        /// Whether to bring the files back.
        restore: bool,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Say what blocks or holds a path.
    Why {
        /// Which.
        path: RelPath,
        /// What is known.
        reply: ReplyTo<WhyAnswer>,
    },
    /// Change nothing in the folder and publish nothing, or go on.
    SetPaused {
        /// Which of both.
        paused: bool,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Leave the group.
    Leave {
        /// The group that this device is alone in.
        reply: ReplyTo<GroupId>,
    },
    /// Keep dialling an address; answered at once.
    ConnectPeer {
        /// A well-formed multiaddress.
        address: String,
        /// Done.
        reply: ReplyTo<()>,
    },
    /// Say what the crash journal holds.
    GetJournal {
        /// The journal.
        reply: ReplyTo<JournalSummary>,
    },
    /// Say which versions of a path are known.
    GetHistory {
        /// Which path.
        path: RelPath,
        /// Versions to leave out, newest first.
        skip: usize,
        /// Versions wanted at most.
        limit: usize,
        /// The versions.
        reply: ReplyTo<HistoryPage>,
    },
    /// Read a version, wherever its bytes are.
    ReadVersion {
        /// Of which path.
        path: RelPath,
        /// Which.
        pick: Pick,
        /// What it is and its bytes; closed when it is complete. A closed receiver ends it.
        parts: mpsc::Sender<Result<VersionPart, ControlError>>,
    },
    /// Ask or decide about what is in quarantine.
    Quarantine(QuarantineCommand),
    /// Read the ledger.
    Ledger(LedgerCommand),
    /// Put versions at their paths as edits of this device's.
    Restore {
        /// Which path; with a time also what is below. `None`: the whole folder.
        path: Option<RelPath>,
        /// Which version.
        pick: Pick,
        /// How far it is. A closed receiver ends it.
        steps: mpsc::Sender<Result<RestoreStep, ControlError>>,
    },
}

/// Times that one invite may be redeemed: a classroom, not the internet.
pub const MAX_INVITE_USES: u32 = 1_000;

/// The group that was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The group.
    pub group: GroupId,
    /// This device's role in it.
    pub role: Role,
}

/// What is known about a path: the engine's word, and the scanner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyAnswer {
    /// The engine's.
    pub report: WhyReport,
    /// Why the scanner does not look at it; comes before what the engine says.
    pub obstacle: Option<Obstacle>,
    /// What still lies in a directory that is to be taken away.
    pub blockers: Vec<RelPath>,
}

/// Why the scanner does not look at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It is left out by its name or a pattern.
    Ignored,
    /// It cannot be read, or is nothing that can be synced.
    Unreadable(String),
}

/// What the crash journal holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalSummary {
    /// Whether the last run stopped cleanly; a first run counts as clean.
    pub last_stop_clean: bool,
    /// Paths that recovery looked at when this run started, relative to the folder; `.` is all of it.
    pub recovered: Vec<PathBuf>,
    /// Paths in use now, relative to the folder.
    pub in_use: Vec<PathBuf>,
    /// Installs begun and not finished.
    pub open_installs: u64,
    /// Bytes of the journal file.
    pub size_bytes: u64,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The engine refused it.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The address cannot be dialled.
    #[error("{address} is not an address that this device can dial")]
    BadAddress {
        /// As it was given.
        address: String,
    },
    /// The disk refused.
    #[error("Cannot read {}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There is no such version.
    #[error("{0}")]
    NoVersion(String),
    /// This device may not write there.
    #[error(
        "To write {path} a device must be editor, admin or owner there; this one is {}{}",
        role.map_or("no member", Role::as_str),
        if role.is_some_and(Role::may_write) { ", but not there" } else { "" }
    )]
    MayNotWrite {
        /// Where.
        path: RelPath,
        /// This device's role.
        role: Option<Role>,
    },
    /// The path is left out by its name or a pattern.
    #[error("{path} is ignored on this device, so it would not be published")]
    Ignored {
        /// Which.
        path: RelPath,
    },
    /// No connected device has the bytes.
    #[error("No connected device has the bytes of this version")]
    NotAtHand,
    /// What stands in the folder is not known yet.
    #[error("The folder is being scanned for the first time")]
    NotReady,
    /// Another restore is under way.
    #[error("Another restore is under way")]
    Restoring,
    /// A version could not be read.
    #[error("Cannot read the version: {0}")]
    Read(String),
    /// The ledger could not be read.
    #[error("Cannot read the ledger: {0}")]
    Ledger(String),
    /// There is no such event, path or device in the ledger.
    #[error("{0}")]
    NoSuchEvent(String),
    /// An item of the ledger cannot be proven.
    #[error("{0}")]
    NotProvable(String),
    /// The ledger is not what was once checked and stored.
    #[error("The ledger is damaged: {0}")]
    LedgerDamaged(String),
    /// As many readers as there may be are at it.
    #[error("The ledger is being read already by as many as may: {0}")]
    LedgerBusy(&'static str),
    /// The folder is not kept any more; says why, and what to do.
    #[error("{0}")]
    Failed(String),
    /// The daemon did not get to it in time.
    #[error("The daemon did not get to it in time")]
    TimedOut,
    /// The daemon is stopping.
    #[error("The daemon is stopping")]
    Stopping,
}

/// All that `status` and `peers` show.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusSnapshot {
    /// The engine's view.
    pub engine: Status,
    /// This device's name.
    pub name: String,
    /// The daemon's version.
    pub version: &'static str,
    /// Where the folder is.
    pub folder: PathBuf,
    /// Multiaddresses at which this device can be reached, with the `/p2p/` part.
    pub listen: Vec<String>,
    /// When the daemon started.
    pub started_at: SystemTime,
    /// Why changes are found by rescans only; `None` while the watcher works.
    pub watcher_degraded: Option<String>,
    /// Paths that the last scan could not look at, with the reason; at most 100.
    pub unreadable: Vec<(RelPath, String)>,
    /// How many such paths there are.
    pub unreadable_count: u64,
    /// Why the folder cannot be kept; `None` while it can.
    pub failure: Option<String>,
    /// More that a person should look at. Conflicts, held files, stuck paths and the watcher are added to it when it
    /// is shown.
    pub warnings: Vec<Warning>,
    /// Bytes of the events of each author that had any, in order of their ids.
    pub author_bytes: Vec<(DeviceId, u64)>,
    /// Beyond how many of them there is a warning; 0: never.
    pub author_quota: u64,
    /// Bytes of content received from peers since the start.
    pub bytes_in: u64,
    /// Bytes of content sent to peers since the start.
    pub bytes_out: u64,
}

impl StatusSnapshot {
    /// Returns the snapshot of a daemon that has only just begun.
    #[must_use]
    pub fn starting(name: String, folder: PathBuf, started_at: SystemTime) -> Self {
        Self {
            engine: Status::default(),
            name,
            version: env!("CARGO_PKG_VERSION"),
            folder,
            listen: Vec::new(),
            started_at,
            watcher_degraded: None,
            unreadable: Vec::new(),
            unreadable_count: 0,
            failure: None,
            warnings: Vec::new(),
            author_bytes: Vec::new(),
            author_quota: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable word in capitals.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

/// The service's ends of the channels to the event loop.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Takes commands; make it with room for [`COMMAND_QUEUE`].
    pub commands: mpsc::Sender<ControlCommand>,
    /// The newest snapshot.
    pub status: latest::Receiver<Arc<StatusSnapshot>>,
    /// What happens; each watcher subscribes. Make it with room for [`NOTIFICATION_QUEUE`].
    pub notifications: broadcast::Sender<Notification>,
}
