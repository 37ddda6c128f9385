//! Inputs, outputs, and the state that the engine reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::choosing::VotersError;
use super::holding::{LockCommand, LockReply, LockReport};
use super::join::{JoinRequest, PairCommand, PairError, PairReply};
use super::members::{MembersCommand, MembersReply};
use super::message::{GossipMessage, Request, Response};
use super::why::WhyReport;
use crate::access::{Role, Scopes};
use crate::content::Manifest;
use crate::fold::{PathState, Version};
use crate::ids::{ContentHash, DeviceId, Dot, EventId, GroupId, ShortId};
use crate::ignore::IgnoreRules;
use crate::ledger::{LogState, Person, SignedEvent};
use crate::lock::LockError;
use crate::rel_path::RelPath;
use crate::time::{BootInstant, Hlc};
use crate::tree::{Entry, Fingerprint, Installed, Node};

/// Names a request of ours until its response comes; counts up from 1 within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a peer's request until we respond; given by the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundId(pub u64);

/// Names a user's command until its reply; given by the control service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Counts write batches from 1 within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchNo(pub u64);

/// Counts the full scans that the engine asks for, from 1 within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ScanNo(pub u64);

/// Names a look at some paths, within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LookNo(pub u64);

/// Everything that can happen to the engine.
#[derive(Debug)]
pub enum Input {
    /// The shell is ready; comes once, before anything but [`Input::IgnoreRules`]. `installs` are what recovery from the journal found to have happened
    /// though the store does not know.
    Start {
        /// In the order in which they happened.
        installs: Vec<RecoveredInstall>,
    },
    /// Which paths are to be left alone from now on; comes before [`Input::Start`], and again when they change. The scanner
    /// goes by the same rules before it reports anything by them.
    IgnoreRules(Arc<dyn IgnoreRules>),
    /// The scanner found these paths different from what [`StateView::installed`] says, or wants to know nothing.
    LocalChanges(Vec<LocalChange>),
    /// A full scan has sent its last [`Input::LocalChanges`]; it began after this scan was asked for, and before the next.
    ScanFinished(ScanNo),
    /// The paths of an [`Output::Look`] were looked at: what was changed there before it was asked for has been told.
    Looked(LookNo),
    /// A full scan came to no result: what it did not find may be there.
    ScanFailed,
    /// A connection to a device is up; the first of possibly several.
    Connected {
        /// Who.
        device: DeviceId,
        /// How it was reached, a multiaddress, for people.
        address: String,
        /// Whether it was found on the local network (by mDNS).
        local: bool,
        /// Whether it was, or its address is one of a local network or of this machine.
        near: bool,
    },
    /// The last connection to a device is gone.
    Disconnected {
        /// Who.
        device: DeviceId,
    },
    /// A device was seen on the local network, connected or not, that would like to share (with `--trust-lan`).
    LanPeer {
        /// Who.
        device: DeviceId,
        /// The group it is in; `None` while it waits for one.
        group: Option<GroupId>,
    },
    /// A peer asks.
    Request {
        /// Who asks; authenticated by the transport.
        from: DeviceId,
        /// To be named in [`Output::Respond`].
        id: InboundId,
        /// What.
        request: Request,
    },
    /// A peer answered, or the request failed (connection lost, time-out, protocol not offered).
    Response {
        /// Which request.
        id: RequestId,
        /// The answer.
        result: Result<Response, RequestFailed>,
    },
    /// A member's broadcast arrived.
    Gossip {
        /// The neighbour that passed it on.
        from: DeviceId,
        /// What it says.
        message: GossipMessage,
    },
    /// Batches up to and including this one are durable.
    Persisted(BatchNo),
    /// Contents are complete and verified in the temporary directory, ready to install.
    Fetched(Vec<ContentHash>),
    /// A content could not be had.
    FetchFailed {
        /// Which.
        content: ContentHash,
        /// Why.
        reason: FetchFailure,
    },
    /// The outcome of an [`Output::Install`], in the same order.
    Installed(Vec<InstallResult>),
    /// A user's command.
    Command {
        /// To be named in [`Output::Reply`].
        id: CommandId,
        /// What.
        command: Command,
    },
}

/// An install that happened on disk before a crash, but was not yet recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredInstall {
    /// Where.
    pub path: RelPath,
    /// The print of what it replaced; `None`: nothing was there.
    pub before: Option<Fingerprint>,
    /// What stands there now, with its print; `None`: it was removed.
    pub now: Option<(Entry, Fingerprint)>,
    /// Where it was moved from.
    pub moved_from: Option<RelPath>,
}

/// A request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFailed;

/// Why a content could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailure {
    /// None of the named peers has it, or none is connected.
    NoSource,
    /// The disk failed or is full.
    Disk(String),
}

/// One path that differs from what was installed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalChange {
    /// Where.
    pub path: RelPath,
    /// When it was looked at, or earlier: what was seen before an install there was over says nothing.
    pub seen_at: BootInstant,
    /// What is there; `None`: proven absent (ENOENT with intact parents and the right root).
    pub after: Option<Observed>,
    /// Who noticed.
    pub found_by: FoundBy,
}

/// How a change came to be found, which says how sure it is that somebody made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// The watcher told of the path, or of one above it: it was seen to happen, and is never held.
    Watcher,
    /// The path was looked at by its name.
    Look,
    /// A full scan: nobody saw it happen.
    Scan,
}

/// What the scanner found at a path; stable while it was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Kind, content, mode, mtime.
    pub entry: Entry,
    /// What `lstat` said before and after hashing.
    pub print: Fingerprint,
    /// The chunks, for a file of more than one chunk.
    pub manifest: Option<Arc<Manifest>>,
}

/// Everything the engine can ask of the shell.
#[derive(Debug)]
pub enum Output {
    /// Make these writes durable, atomically, in order of batches; then say [`Input::Persisted`].
    Persist(Batch),
    /// Ask a peer; answer with [`Input::Response`].
    Request {
        /// Whom.
        to: DeviceId,
        /// Named again in the response.
        id: RequestId,
        /// What.
        request: Request,
    },
    /// Answer a peer.
    Respond {
        /// Which request.
        id: InboundId,
        /// The answer.
        response: Response,
    },
    /// Broadcast to the group.
    Gossip(GossipMessage),
    /// Who may use the members' protocols from now on (this device left out); others keep only the join protocol.
    /// Connections to devices whose membership changed are to be made anew.
    Members(BTreeSet<DeviceId>),
    /// What to tell the local network (with `--trust-lan`): the group, or that one is wanted.
    Announce {
        /// `None` while waiting for a group.
        group: Option<GroupId>,
    },
    /// Dial all that is known of the local network now, members or not: somebody there is looked for.
    SeekLan,
    /// Keep dialling this address (from a ticket or a command).
    Dial {
        /// A multiaddress.
        address: String,
    },
    /// Do not dial this address any more.
    Undial {
        /// A multiaddress.
        address: String,
    },
    /// Get these contents into the temporary directory: from this device's own files, else from the named peers in
    /// turn. Each is answered once, by [`Input::Fetched`] or [`Input::FetchFailed`].
    Fetch(Vec<FetchJob>),
    /// Nobody needs these complete temporary files any more.
    DropContent(Vec<ContentHash>),
    /// Bring these paths into the named state, in this order; answered by one [`Input::Installed`].
    Install(Vec<InstallJob>),
    /// Scan the whole folder from its beginning, then say [`Input::ScanFinished`] with this number.
    Scan(ScanNo),
    /// Look at these paths (and what lies below them) again.
    Rescan(Vec<RelPath>),
    /// Look at these paths (and what lies below them) again, then say [`Input::Looked`], but not while one of them is to be
    /// looked at once more.
    Look {
        /// To be named in the input.
        no: LookNo,
        /// Which.
        paths: Vec<RelPath>,
    },
    /// Answer a user's command.
    Reply {
        /// Which command.
        id: CommandId,
        /// The answer.
        reply: Result<Reply, CommandError>,
    },
    /// Something worth a line in the log and in `watch`.
    Notify(Notification),
}

/// Writes that become durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Counts up by one.
    pub no: BatchNo,
    /// In order; a later write to the same key wins.
    pub writes: Vec<Write>,
}

/// One write. `None` as a value deletes the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Appends an event; `arrival` order is the order of these writes.
    Event(StoredEvent),
    /// Replaces what is known of a log.
    Log(ShortId, LogState),
    /// Adds a version to a path's history, or takes it out.
    Version(RelPath, Dot, Option<Version>),
    /// Notes, or forgets, that an item speaks of a path without being a version of it: a Discard, or a Put or Del
    /// without authority.
    Mention(RelPath, Dot, bool),
    /// Replaces a path's state.
    PathState(RelPath, Option<PathState>),
    /// Records that the greatest write at this path that replaced this node has this order, or that none has replaced it.
    Replaced(RelPath, Node, Option<(Hlc, EventId)>),
    /// Replaces what is believed to stand on disk.
    Installed(RelPath, Option<Installed>),
    /// Records that the plain name of some conflict copy of `origin` is `name`.
    CopyName {
        /// The name on disk.
        name: RelPath,
        /// The path it is a copy of; `None` when there is no such copy any more.
        origin: Option<RelPath>,
    },
    /// Marks a path as one whose disk state differs from what the ledger wants, or no longer.
    Need(RelPath, bool),
    /// Keeps a manifest.
    Manifest(Arc<Manifest>),
    /// Keeps a small named value.
    Setting(&'static str, Option<Vec<u8>>),
    /// Forgets group, events, logs, versions, path states, installed rows, needs and settings; manifests stay.
    Forget,
}

/// An event with what the store indexes it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The author.
    pub author: DeviceId,
    /// The log in which it stands.
    pub log: ShortId,
    /// Its place in the log.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
    /// The header's `kind`; 0 and 1 (Genesis, Admin) are read again at start.
    pub kind: u16,
    /// The signed bytes.
    pub event: SignedEvent,
}

/// A content to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchJob {
    /// Its name, and the name of the temporary file.
    pub content: ContentHash,
    /// Its length in bytes.
    pub size: u64,
    /// Connected members to ask, best first.
    pub from: Vec<DeviceId>,
}

/// A path to bring into a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallJob {
    /// Where; may lie in the daemon's own directory (conflict copies of `.git` files).
    pub path: RelPath,
    /// What must be there before; `None`: nothing.
    pub expect: Option<Fingerprint>,
    /// What to do.
    pub action: InstallAction,
}

/// What to do at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallAction {
    /// Put this entry there. A file's bytes are in the temporary directory under its content's name; a file of 0 bytes
    /// needs none. Missing parents are made. `keep` says the temporary file is needed again for another path.
    Put {
        /// The entry.
        entry: Entry,
        /// Copy the temporary file instead of moving it.
        keep: bool,
    },
    /// Set mode and mtime only; kind and content stay.
    SetMeta {
        /// The entry with the wanted mode and mtime.
        entry: Entry,
    },
    /// Move the file or link at `from` here, then set mode and mtime.
    Move {
        /// Where it lies.
        from: RelPath,
        /// What must be there.
        from_expect: Fingerprint,
        /// The entry with the wanted mode and mtime.
        entry: Entry,
    },
    /// Take away what is there; a directory only if it is empty.
    Remove,
}

/// What came of one [`InstallJob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallResult {
    /// The job's path.
    pub path: RelPath,
    /// What happened.
    pub outcome: InstallOutcome,
}

/// What happened at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallOutcome {
    /// Done and durable; what `lstat` says now (`None` after [`InstallAction::Remove`]).
    Done(Option<Fingerprint>),
    /// What was there was not what was expected: nothing was replaced; look at the path again.
    Changed,
    /// There was nothing to remove: its user was faster.
    Gone,
    /// The temporary file is missing or not what it should be: fetch again.
    ContentMissing,
    /// A directory that should go or be replaced still holds something: these, or the first of them; may be empty.
    NotEmpty(Vec<RelPath>),
    /// The system refused.
    Failed(String),
}

/// What a user can ask of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make an invite.
    CreateInvite {
        /// The role of whoever redeems it; never owner.
        role: Role,
        /// When it ends, milliseconds since 1970; `None`: never.
        expires_ms: Option<u64>,
        /// How often it may be redeemed.
        max_uses: u32,
        /// Where whoever redeems it may write.
        scopes: Scopes,
        /// Whose devices it lets in, if that is to be said.
        person: Option<Person>,
        /// 32 fresh random bytes: the invite's secret key.
        secret: [u8; 32],
    },
    /// Ask about members, or change who is one.
    Members(MembersCommand),
    /// Ask for locks, release them, or ask about them.
    Lock(LockCommand),
    /// Redeem a ticket.
    Join {
        /// The ticket as it was printed.
        ticket: String,
    },
    /// Pair by name on the local network.
    Pair(PairCommand),
    /// Scan the folder, or the part below a path.
    Rescan {
        /// The part; `None`: all.
        path: Option<RelPath>,
    },
    /// Decide what to do with files of a joiner that differ from the group's and are held.
    ResolveJoin {
        /// What.
        choice: JoinChoice,
    },
    /// Publish the deletions that are held, or bring the files back.
    ConfirmDeletes {
        /// Whether to bring the files back.
        restore: bool,
    },
    /// Say what blocks or holds a path.
    Why {
        /// Which.
        path: RelPath,
    },
    /// Change nothing in the folder and publish nothing, or go on.
    SetPaused {
        /// Which of both.
        paused: bool,
    },
    /// Leave the group and found one of this device alone. The files stay as they are.
    Leave,
}

/// What to do with differing files when joining with many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinChoice {
    /// Publish them; they become conflict copies.
    KeepBoth,
    /// The group's version replaces them; their bytes are kept as old versions on this device.
    PreferGroup,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// An invite was made; the ticket still lacks the addresses.
    Invited {
        /// The group.
        group: GroupId,
        /// The invite's secret key.
        secret: [u8; 32],
    },
    /// The group was joined.
    Joined {
        /// The group.
        group: GroupId,
        /// This device's role in it.
        role: Role,
    },
    /// What came of a [`Command::Pair`]; [`PairReply::Code`] is followed by another reply.
    Pair(PairReply),
    /// About members.
    Members(MembersReply),
    /// About locks.
    Lock(Box<LockReply>),
    /// What is known about a path.
    Why(Box<WhyReport>),
    /// The group was left.
    Left {
        /// The group that this device is alone in.
        group: GroupId,
    },
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no group yet.
    #[error("This device is not in a group yet")]
    NoGroup,
    /// The role is too low.
    #[error("This device's role does not allow that")]
    NotAllowed,
    /// What would be changed was made by somebody whom this device cannot overrule.
    #[error("Whoever gave that is as senior as this device, or more")]
    Outranked,
    /// There is no such member.
    #[error("That device is no member of the group")]
    NoMember,
    /// There is no such invite.
    #[error("There is no such invite")]
    NoInvite,
    /// The recovery key's secret is not here.
    #[error("The recovery words are not here: they were shown before, or another device founded the group")]
    NoRecovery,
    /// The secret is not that of the group's recovery key.
    #[error("These are not the recovery words of this group")]
    WrongRecovery,
    /// The arguments make no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The text is not a ticket.
    #[error("That is not a ticket, or part of it is missing")]
    BadTicket,
    /// This device is already in a group with others.
    #[error("This device is already in a group with other devices")]
    AlreadyInGroup,
    /// Another join is under way.
    #[error("Another join is under way")]
    Busy,
    /// The group was joined a moment ago.
    #[error("The group's ledger is still being had")]
    CatchingUp,
    /// An old copy of the state was put back.
    #[error("This device waits for its own newest events, because its state is an old copy")]
    OwnEventsMissing,
    /// The inviting device refused.
    #[error("The inviting device refused")]
    Refused(RefusedBy),
    /// None of the ticket's devices could be reached in time.
    #[error("No device of the ticket could be reached")]
    Unreachable,
    /// There is no lock, for this reason.
    #[error(transparent)]
    Lock(LockError),
    /// There are no other voters, for this reason.
    #[error(transparent)]
    Voters(VotersError),
    /// This lock is in the way.
    #[error("That is locked")]
    Locked(Box<LockReport>),
    /// Nothing holds that.
    #[error("There is no lock on exactly that")]
    NoLock,
    /// Pairing by name came to nothing.
    #[error(transparent)]
    Pair(PairError),
}

/// A peer's refusal, passed on.
pub type RefusedBy = super::message::RefuseReason;

/// Something that happened, for `watch` and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A path came to be as the ledger says.
    PathSynced {
        /// Where.
        path: RelPath,
        /// Whether it was removed.
        removed: bool,
        /// Who wrote the version; `None` for implied directories.
        author: Option<ShortId>,
    },
    /// This device published a change.
    PathPublished {
        /// Where.
        path: RelPath,
        /// Whether it was deleted.
        removed: bool,
    },
    /// A conflict copy appeared.
    ConflictCopy {
        /// Its name on disk.
        path: RelPath,
        /// The path it is a copy of.
        origin: RelPath,
    },
    /// A member joined.
    MemberAdded {
        /// Who.
        device: DeviceId,
        /// Its name.
        name: String,
        /// Its role.
        role: Role,
    },
    /// A near device asks to be let in.
    JoinRequested(JoinRequest),
    /// A change in the folder was not published: this device's role does not let it write there.
    ChangeRejected {
        /// Where.
        path: RelPath,
    },
    /// An event says what its author's role did not allow; it has no effect.
    Denied {
        /// Whose.
        device: DeviceId,
        /// The first path that it would have changed; `None`: a membership.
        path: Option<RelPath>,
    },
    /// A device is no member any more.
    MemberRemoved {
        /// Who.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// A device connected as a member.
    PeerConnected {
        /// Who.
        device: DeviceId,
    },
    /// A member's last connection is gone.
    PeerDisconnected {
        /// Who.
        device: DeviceId,
    },
    /// An event says something that this daemon does not know and must not ignore: it needs a newer version.
    UpgradeNeeded {
        /// The event's author.
        device: DeviceId,
    },
    /// A path cannot be brought into the wanted state.
    PathStuck {
        /// Where.
        path: RelPath,
        /// Why.
        reason: String,
    },
    /// A peer tells of events faster than they are taken unasked; the rest is asked for. At most once a minute.
    PeerLimited {
        /// Who.
        device: DeviceId,
    },
    /// A peer sent something that no honest daemon sends.
    PeerMisbehaved {
        /// Who.
        device: DeviceId,
        /// What.
        reason: &'static str,
    },
}

/// What the engine reads of the store. Reads are synchronous and cheap (microseconds); they show what is durable, and
/// the engine lays its writes that are still under way over it.
pub trait StateView {
    /// Returns a path's state.
    fn path_state(&self, path: &RelPath) -> Option<PathState>;
    /// Returns one version of a path.
    fn version(&self, path: &RelPath, dot: Dot) -> Option<Version>;
    /// Returns all versions of a path, in dot order.
    fn versions_of(&self, path: &RelPath) -> Vec<Version>;
    /// Returns the items that speak of a path without being versions of it, in dot order.
    fn mentions(&self, path: &RelPath) -> Vec<Dot>;
    /// Returns the dots of all versions of a path with this kind and content, in dot order.
    fn versions_with(&self, path: &RelPath, node: &Node) -> Vec<Dot>;
    /// Says whether any version of this path is known.
    fn has_history(&self, path: &RelPath) -> bool;
    /// Returns the order of the greatest write at this path that replaced this node.
    fn replaced(&self, path: &RelPath, node: &Node) -> Option<(Hlc, EventId)>;
    /// Returns what is believed to stand on disk.
    fn installed(&self, path: &RelPath) -> Option<Installed>;
    /// Returns the first path, in byte order, that lies below `dir` (`None`: anywhere), comes after `after` (exclusive),
    /// and whose state has a Put among its heads.
    fn next_live_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath>;
    /// Returns the first installed path, in byte order, below `dir` (`None`: anywhere) and after `after` (exclusive).
    fn next_installed_below(&self, dir: Option<&RelPath>, after: Option<&RelPath>) -> Option<RelPath>;
    /// Returns the path whose conflict copy has this plain name.
    fn copy_origin(&self, name: &RelPath) -> Option<RelPath>;
    /// Returns an event of a log; of a branch only its own.
    fn event(&self, log: ShortId, seq: u64) -> Option<StoredEvent>;
    /// Returns events that the holder of `have` lacks, in order of arrival here (which respects `seen`), until
    /// `max_bytes` are reached (at least one), and whether there are more.
    fn events_beyond(&self, have: &BTreeMap<ShortId, u64>, max_bytes: usize) -> (Vec<StoredEvent>, bool);
    /// Returns a path, if any, at which this content is installed.
    fn path_with_content(&self, content: &ContentHash) -> Option<RelPath>;
}

/// What was durable when the daemon started; read once.
#[derive(Debug, Default)]
pub struct Recovered {
    /// All logs.
    pub logs: BTreeMap<ShortId, LogState>,
    /// Genesis and Admin events, in order of arrival.
    pub admin_events: Vec<StoredEvent>,
    /// Paths marked by [`Write::Need`].
    pub needs: Vec<RelPath>,
    /// Values kept by [`Write::Setting`].
    pub settings: BTreeMap<String, Vec<u8>>,
    /// Paths with an installed row, and files among them.
    pub installed_count: u64,
    /// Conflict copies that are installed.
    pub copies_count: u64,
}

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The device's Ed25519 secret key.
    pub secret: [u8; 32],
    /// The device's name, for people; cut to 256 bytes.
    pub name: String,
    /// From which all randomness of this run is derived; fresh at each start.
    pub seed: [u8; 32],
    /// Whether devices of the local network are admitted without asking.
    pub trust_lan: bool,
    /// Whether devices of the local network are told what this device and its group are called, and may ask to be let in.
    pub lan_pairing: bool,
    /// Deletions found by one scan that are published without asking, even if they are more than half of the folder's
    /// entries; [`DELETE_GUARD`] for people's folders. `None`: all are.
    pub delete_guard: Option<usize>,
}

/// Deletions found by one scan that are published without asking: fewer are soon undone by hand.
pub const DELETE_GUARD: usize = 100;

/// What the engine is doing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FolderState {
    /// Waiting for a group or for the group's ledger.
    #[default]
    Starting,
    /// The first scan is under way.
    Scanning,
    /// Something is still to be fetched, installed or published.
    Syncing,
    /// Nothing is to be done.
    InSync,
    /// The user had it paused.
    Paused,
    /// This device is no member any more: its folder is left as it is.
    Removed,
}

/// A snapshot for `status` and `peers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// This device.
    pub device: Option<DeviceId>,
    /// The group.
    pub group: Option<GroupId>,
    /// This device's role.
    pub role: Option<Role>,
    /// What the engine is doing.
    pub state: FolderState,
    /// Files, directories and links that stand in the folder.
    pub files_total: u64,
    /// Paths that differ from what the ledger wants.
    pub files_needed: u64,
    /// Bytes of content still to be had for them.
    pub bytes_needed: u64,
    /// Conflict copies in the folder.
    pub conflicts: u64,
    /// Events in all logs.
    pub events: u64,
    /// Members, this device included, and connected devices that are none; in order of their ids.
    pub peers: Vec<PeerStatus>,
    /// Files of a joiner that are held until the user chooses; 0: none.
    pub join_held: u64,
    /// Deletions that are held until the user confirms them or has the files restored; 0: none.
    pub deletions_held: u64,
    /// Paths that cannot be brought into the wanted state, with the reason; at most 100.
    pub stuck: Vec<(RelPath, String)>,
    /// How many such paths there are.
    pub stuck_count: u64,
    /// What a joiner's files turned out to be; `None` unless some are held.
    pub join: Option<JoinCounts>,
    /// This device's own events that it lacks, because an old copy of its state was put back; 0: none.
    pub own_events_missing: u64,
    /// Near devices that ask to be let in; at most 8, in order of their ids.
    pub join_requests: Vec<JoinRequest>,
    /// Changes of this run that this device's role did not let it make.
    pub rejected: u64,
    /// Members whose logs forked: two machines have one key, or an old copy of a state was put back.
    pub forked: Vec<DeviceId>,
    /// Whether the recovery key's secret still lies here, because nobody has written down its words.
    pub recovery_unread: bool,
}

/// What the files that a joiner brought along turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JoinCounts {
    /// As the group has them.
    pub same: u64,
    /// As the group had them once; replaced.
    pub old: u64,
    /// At paths that the group never had; published.
    pub new: u64,
    /// Other than the group ever had them; held.
    pub differing: u64,
}

/// One device in [`Status::peers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub device: DeviceId,
    /// Its name; empty if unknown.
    pub name: String,
    /// Whose it is, if anybody said.
    pub person: Option<Person>,
    /// Its role; `None` for a device that is no member.
    pub role: Option<Role>,
    /// Whether it is connected.
    pub connected: bool,
    /// The address of the connection.
    pub address: Option<String>,
    /// Whether it said that it holds all that our heads name.
    pub in_sync: bool,
}
