//! The engine: inputs in, outputs out; no IO, no clock (overview.md 4).
//!
//! [`SyncEngine`] owns the group, the logs and what is to be done; large state stays in the store and is read through
//! [`StateView`]. Parts: `pending` (writes that are not durable yet), `group` (members), `sync` (events between peers),
//! `paths` (from heads to what should stand on disk), `local` (from disk changes to events), `locks`, `voting`, `choosing` and `holding`
//! (locks in the ledger, as a voter, as an owner who chooses voters, and as a holder), `work` (what to fetch and install), `ignoring` (paths left alone), `join` (how devices become members).
//!
//! Lost in a crash: everything not covered by [`Input::Persisted`]; nothing that depends on it has left the engine.

mod branches;
mod choosing;
mod group;
mod holding;
mod ignoring;
mod io;
mod join;
mod local;
mod locks;
mod members;
mod message;
mod own_log;
mod paths;
mod pending;
mod sync;
mod taken;
mod times;
mod verdict;
mod voting;
mod why;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

pub use choosing::{VoterReport, VotersError, VotersReport};
pub use holding::{LockCommand, LockReply, LockReport};
pub use io::*;
pub use join::{COMPARE, COMPARE_NOW, JoinRequest, LanDevice, PairCode, PairCommand, PairError, PairReply};
pub use members::{
    Cut, InviteReport, MemberReport, MembersCommand, MembersReply, Membership, RecoverySecret, Removal,
};
pub use message::*;
pub use taken::Taken;
pub use why::{Cause, WhyReport};

use crate::access::Role;
use crate::ids::{ContentHash, DeviceId, ShortId};
use crate::ledger::LogState;
use crate::rel_path::RelPath;
use crate::signature;
use crate::time::{BootInstant, Now};
use branches::Branches;
use choosing::Choosing;
use group::Group;
use holding::Holding;
use ignoring::Ignoring;
use join::Joining;
use local::Local;
use locks::Locks;
pub use own_log::{OwnLogName, OwnLogNotes, OwnLogSize};
pub use paths::version_of;
use pending::Pending;
use sync::{Peers, Place};
pub use verdict::Verdict;
use voting::Voting;
use work::Work;

/// Keeps one folder of one group in step with its peers.
///
/// Methods are of four kinds: getters; `handle_*` for what came from outside; `poll_*` for what the caller must do now.
/// After each `handle_*` drain [`poll_output`](Self::poll_output), then sleep until
/// [`poll_timeout`](Self::poll_timeout). Time must not go backwards. The same inputs at the same times with the same
/// seed give the same outputs.
#[derive(Debug)]
pub struct SyncEngine {
    me: DeviceId,
    key: SigningKey,
    name: String,
    trust_lan: bool,
    lan_pairing: bool,
    paused: bool,
    random: Random,
    phase: Phase,
    group: Option<Group>,
    /// The logs of all authors; this device's own too, once it has events.
    logs: BTreeMap<ShortId, LogState>,
    /// Which of them forked.
    branches: Branches,
    pending: Pending,
    peers: Peers,
    local: Local,
    work: Work,
    ignoring: Ignoring,
    locks: Locks,
    voting: Voting,
    holding: Holding,
    choosing: Choosing,
    joining: Joining,
    installed_count: u64,
    copies_count: u64,
    persisted: BatchNo,
    issued: BatchNo,
    next_request: u64,
    staged: Vec<Output>,
    gated: VecDeque<(BatchNo, Output)>,
    out: VecDeque<Output>,
    /// The newest full scan that was asked for.
    scan_no: ScanNo,
    /// How many events this device has made at least (`own_log`).
    expected_log: OwnLogSize,
    /// Changes that this device's role did not let it make.
    rejected: u64,
}

/// Setting: present while the user has the folder paused.
const PAUSED: &str = "paused";

/// How far the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before [`Input::Start`], or waiting for a group.
    NoGroup,
    /// The group is known, its ledger is not complete yet; the folder has not been looked at.
    CatchingUp,
    /// The first scan is under way; `joining`: files of unknown descent are a joiner's.
    Scanning { joining: bool },
    /// Everything goes its way.
    Running,
    /// This device is a member no more: nothing is published, installed or given.
    Removed,
}

impl SyncEngine {
    /// Takes up the durable state.
    #[must_use]
    pub fn new(config: EngineConfig, recovered: Recovered) -> Self {
        let key = signature::key_pair(&config.secret);
        let me = DeviceId::new(key.verifying_key().to_bytes());
        let mut group = recovered
            .settings
            .get(join::GROUP)
            .and_then(|bytes| Group::from_bytes(bytes).ok());
        if let Some(group) = &mut group {
            let branches = recovered.logs.values();
            group.add_branches(branches.filter_map(|log| Some((log.name, log.branch()?))));
        }
        let mut name = config.name;
        while name.len() > crate::ledger::MAX_NAME {
            name.pop();
        }
        let locks = Locks::recover(&recovered);
        let voting = Voting::recover(&recovered, group.is_some());
        Self {
            me,
            key,
            name,
            trust_lan: config.trust_lan,
            lan_pairing: config.lan_pairing,
            paused: recovered.settings.contains_key(PAUSED),
            random: Random {
                seed: config.seed,
                counter: 0,
            },
            phase: Phase::NoGroup,
            group,
            branches: Branches::among(&recovered.logs),
            logs: recovered.logs,
            pending: Pending::new(),
            peers: Peers::default(),
            local: Local::new(
                config.delete_guard,
                recovered.settings.contains_key(local::DELETIONS_HELD),
                recovered.settings.get(local::JOIN_COUNTS),
            ),
            work: Work::new(recovered.needs),
            ignoring: Ignoring::new(recovered.settings.get(ignoring::IGNORED_BY)),
            locks,
            voting,
            holding: Holding::new(me),
            choosing: Choosing::recover(&recovered.settings),
            joining: Joining::recover(&recovered.settings),
            installed_count: recovered.installed_count,
            copies_count: recovered.copies_count,
            persisted: BatchNo(0),
            issued: BatchNo(0),
            next_request: 0,
            staged: Vec::new(),
            gated: VecDeque::new(),
            out: VecDeque::new(),
            scan_no: ScanNo::default(),
            expected_log: OwnLogSize::default(),
            rejected: 0,
        }
    }

    /// Returns this device's id.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.me
    }

    /// Returns how many local changes wait to be published; the caller holds the scanner back above a few thousand.
    #[must_use]
    pub fn local_backlog(&self) -> usize {
        self.local.len()
    }

    /// Says whether a group of installs is under way.
    #[must_use]
    pub fn is_installing(&self) -> bool {
        self.work.is_installing()
    }

    /// Says whether a content is being fetched for the engine.
    #[must_use]
    pub fn is_fetching(&self, content: &ContentHash) -> bool {
        self.work.is_fetching(content)
    }

    /// Says whether the temporary file of a content is of use to the engine, now or when it is complete.
    #[must_use]
    pub fn uses_content(&self, content: &ContentHash) -> bool {
        self.work.is_fetching(content) || self.work.is_holding(content)
    }

    /// Returns the paths whose deletions are held until the user answers.
    #[must_use]
    pub const fn held_deletions(&self) -> &BTreeSet<RelPath> {
        self.local.held_deletions()
    }

    /// Returns how many events this device has made.
    #[must_use]
    pub fn own_seq(&self) -> u64 {
        self.logs.get(&self.me.short()).map_or(0, LogState::size)
    }

    /// Returns the strongest role that the author of event `seq` of a log had in it, as is known here; `None`: none.
    #[must_use]
    pub fn role_at(&self, log: ShortId, seq: u64) -> Option<Role> {
        let group = self.group.as_ref()?;
        group.role_at(&group.device(log)?, log, seq)
    }

    /// Takes one input. It cannot fail: a bad message is an input too.
    pub fn handle_input(&mut self, input: Input, now: Now, view: &impl StateView) {
        match input {
            Input::IgnoreRules(rules) => self.set_ignore_rules(rules),
            Input::Start { installs } => self.start(installs, now, view),
            Input::LocalChanges(changes) => self.local_changes(changes, now, view),
            // An older scan says nothing about what the newest is to look at: the one that counts is not over.
            Input::ScanFinished(no) if no < self.scan_no => {}
            Input::ScanFinished(_) => self.scan_finished(now, view),
            Input::Looked(no) => self.looked(no),
            Input::ScanFailed => self.scan_failed(),
            Input::Connected {
                device,
                address,
                local,
                near,
            } => self.connected(device, address, Place { local, near }, now),
            Input::Disconnected { device } => self.disconnected(device),
            Input::LanPeer { device, group } => self.lan_peer(device, group, now),
            Input::Request { from, id, request } => self.request(from, id, request, now, view),
            Input::Response { id, result } => self.response(id, result, now, view),
            Input::Gossip { from, message } => self.gossip(from, &message, now),
            Input::Persisted(no) => {
                self.persisted = self.persisted.max(no);
                let installed = self.pending.persisted(self.persisted);
                self.local.recorded(installed, now.boot);
            }
            Input::Fetched(contents) => self.fetched(&contents, view),
            Input::FetchFailed { content, reason } => self.fetch_failed(content, reason, now, view),
            Input::Installed(results) => self.installs_done(results, now, view),
            Input::Command { id, command } => self.command(id, command, now, view),
        }
        self.settle(now, view);
    }

    /// Takes changes that the scanner found; the promised name for [`Input::LocalChanges`].
    pub fn handle_fs_event(&mut self, changes: Vec<LocalChange>, now: Now, view: &impl StateView) {
        self.handle_input(Input::LocalChanges(changes), now, view);
    }

    /// Takes a peer's broadcast; the promised name for [`Input::Gossip`].
    pub fn handle_network_event(
        &mut self,
        from: DeviceId,
        message: GossipMessage,
        now: Now,
        view: &impl StateView,
    ) {
        self.handle_input(Input::Gossip { from, message }, now, view);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Now, view: &impl StateView) {
        self.sync_timeout(now);
        self.join_timeout(now, view);
        self.work_timeout(now);
        self.ignoring_timeout(now, view);
        self.holding_timeout(now, view);
        self.settle(now, view);
    }

    /// Returns the next thing to do; to be called until it returns `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns the next deadline and its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(BootInstant, &'static str)> {
        let deadlines = [
            self.peers.deadline(),
            self.joining.deadline(),
            self.work.deadline(),
            self.ignoring_deadline(),
            self.holding.deadline(),
            self.choosing.deadline(),
            self.local
                .deadline(self.may_publish() && !self.paused && self.phase != Phase::Removed),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Returns a snapshot for people.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            device: Some(self.me),
            group: self.group.as_ref().map(|group| group.id),
            // Others may have shown what this device's own ledger does not say.
            role: self.my_role().filter(|_| self.phase != Phase::Removed),
            state: self.folder_state(),
            files_total: self.installed_count,
            files_needed: self.work.len() as u64,
            bytes_needed: self.work.bytes(),
            conflicts: self.copies_count,
            events: self.logs.values().map(LogState::size).sum(),
            peers: self.peer_statuses(),
            join_held: self.local.held() as u64,
            deletions_held: self.local.deletions_held() as u64,
            stuck: self.work.stuck(),
            stuck_count: self.work.stuck_count(),
            join: self.local.join_counts(),
            own_events_missing: self.own_events_missing(),
            join_requests: self.joining.requests.shown(),
            rejected: self.rejected,
            forked: self.forked_members(),
            recovery_unread: self.joining.recovery.is_some(),
        }
    }

    fn folder_state(&self) -> FolderState {
        match self.phase {
            Phase::NoGroup | Phase::CatchingUp => FolderState::Starting,
            Phase::Removed => FolderState::Removed,
            _ if self.paused => FolderState::Paused,
            Phase::Scanning { .. } => FolderState::Scanning,
            Phase::Running if self.work.is_empty() && self.local.is_empty() && !self.peers.is_pulling() => {
                FolderState::InSync
            }
            Phase::Running => FolderState::Syncing,
        }
    }

    /// Stops or resumes all changes of the folder and of the ledger that come from it.
    fn set_paused(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        self.pending.set_setting(PAUSED, paused.then(Vec::new));
        // What the scan found while paused was not compared.
        if !paused && self.phase == (Phase::Scanning { joining: true }) {
            self.ask_scan();
        }
    }

    /// Publishes and schedules what has become possible, then hands out outputs in order: those that tell anybody
    /// anything wait until what they rest on is durable.
    fn settle(&mut self, now: Now, view: &impl StateView) {
        self.publish_local(now, view);
        self.choose(now, view);
        self.hold(now, view);
        self.schedule(now, view);
        self.tell_in_sync();
        if let Some(batch) = self.pending.close() {
            self.issued = batch.no;
            self.out.push_back(Output::Persist(batch));
        }
        let gate = self.issued;
        self.gated.extend(
            std::mem::take(&mut self.staged)
                .into_iter()
                .map(|output| (gate, output)),
        );
        while self
            .gated
            .front()
            .is_some_and(|(gate, _)| *gate <= self.persisted)
        {
            let output = self.gated.pop_front().map(|(_, output)| output);
            self.out.extend(output);
        }
    }

    fn emit(&mut self, output: Output) {
        self.staged.push(output);
    }

    /// Asks for a scan of everything; the ends of those that were asked for before count no more.
    fn ask_scan(&mut self) {
        self.scan_no.0 += 1;
        self.emit(Output::Scan(self.scan_no));
    }

    /// Emits something that reveals nothing and changes nothing that must be durable first.
    fn emit_now(&mut self, output: Output) {
        self.out.push_back(output);
    }

    fn notify(&mut self, notification: Notification) {
        self.emit(Output::Notify(notification));
    }

    fn my_role(&self) -> Option<crate::access::Role> {
        self.group.as_ref()?.role(&self.me)
    }
}

/// Random bytes from a seed: SHA-256(seed ‖ counter).
#[derive(Debug)]
struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    fn bytes32(&mut self) -> [u8; 32] {
        self.counter += 1;
        let mut hasher = Sha256::new();
        hasher.update(self.seed);
        hasher.update(self.counter.to_be_bytes());
        hasher.finalize().into()
    }

    fn bytes16(&mut self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.bytes32()[..16]);
        half
    }

    /// Returns a number below `bound` (not zero); good enough for jitter and choice.
    fn below(&mut self, bound: u64) -> u64 {
        let bytes = self.bytes32();
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[..8]);
        u64::from_be_bytes(eight) % bound.max(1)
    }
}

/// Members and devices that only showed their way in; the set that may use the members' protocols.
fn member_set(group: &Group, presented: &BTreeSet<DeviceId>, me: &DeviceId) -> BTreeSet<DeviceId> {
    let members = group
        .members()
        .map(|(device, ..)| *device)
        .chain(presented.iter().copied());
    members.filter(|device| device != me).collect()
}

/// Returns the entries of a map whose paths lie below a path.
fn below<'m, V>(
    map: &'m BTreeMap<RelPath, V>,
    path: &'m RelPath,
) -> impl Iterator<Item = (&'m RelPath, &'m V)> {
    // The first name there can be; below a path of the greatest length or depth there is nothing.
    let first = path.join(b"\x01").ok();
    let from = first.into_iter().flat_map(move |first| map.range(first..));
    from.take_while(move |(other, _)| other.is_below(path))
}
