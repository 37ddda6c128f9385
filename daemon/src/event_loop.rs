//! The task that owns the engine: it turns what happens into inputs and carries out the outputs.
//!
//! Order of a turn: shutdown, what became durable, what was installed, timers, commands, content, the network, the
//! scanner. The scanner comes last and is held back while many changes wait, since the disk can always be looked at
//! again. Nothing here waits for a service; services wait for this task.

mod commands;
mod failed;
mod history;
mod own_log;
mod pairing;
mod why;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender as StdSender;
use std::time::{Duration, SystemTime};

use p2p_sync_core::engine::{
    BatchNo, CommandId, FolderState, Input, JoinChoice, LockReply, Notification, Output, OwnLogNotes, Reply,
    ScanNo, SyncEngine,
};
use p2p_sync_core::ids::{ContentHash, DeviceId, GroupId};
use p2p_sync_core::lock::Resource;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::ticket::Ticket;
use p2p_sync_core::time::Now;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{debug, error, info, trace, warn};

use crate::clock;
use crate::control::{ControlCommand, Joined, ReplyTo, StatusSnapshot, Warning, WhyAnswer};
use crate::history::{Ask, History, Wanted};
use crate::ignore_rules::Rules;
use crate::install_task::{DiskCommand, DiskEvent};
use crate::journal::JournalService;
use crate::ledger::{Judge, Ledger};
use crate::network::{NetworkCommand, NetworkEvent};
use crate::scan_task::{ScanCommand, ScanEvent};
use crate::store::{StoreError, StoreView, StoreWriter};
use crate::transfer::{FetchEvent, FetchHandle, Provider, TransferStats};
use crate::watcher::{Hint, Hints};
use crate::worktree::InstallToken;

/// Local changes that may wait in the engine before the scanner is held back.
const MAX_LOCAL_BACKLOG: usize = 8192;
/// Between two snapshots for `status`.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// Paths that could not be looked at which a snapshot names.
const MAX_UNREADABLE: usize = 100;

/// The loop's ends of all channels.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) persisted: mpsc::UnboundedReceiver<Result<BatchNo, StoreError>>,
    pub(crate) disk: mpsc::UnboundedReceiver<DiskEvent>,
    pub(crate) scan: mpsc::Receiver<ScanEvent>,
    pub(crate) hints: Hints,
    pub(crate) network: mpsc::Receiver<NetworkEvent>,
    pub(crate) fetch: mpsc::Receiver<FetchEvent>,
    pub(crate) stale: mpsc::UnboundedReceiver<RelPath>,
    pub(crate) control: mpsc::Receiver<ControlCommand>,
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    pub(crate) judges: mpsc::UnboundedReceiver<Judge>,
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// What the loop drives.
pub(crate) struct Services {
    pub(crate) view: StoreView,
    pub(crate) writer: Arc<StoreWriter>,
    pub(crate) journal: Arc<JournalService>,
    pub(crate) journal_recovered: Vec<PathBuf>,
    pub(crate) disk: StdSender<DiskCommand>,
    pub(crate) scan: StdSender<ScanCommand>,
    pub(crate) network: mpsc::UnboundedSender<NetworkCommand>,
    pub(crate) peer_id: String,
    pub(crate) fetcher: FetchHandle,
    pub(crate) provider: Provider,
    pub(crate) history: Arc<History>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<TransferStats>,
    pub(crate) status: watch::Sender<Arc<StatusSnapshot>>,
    pub(crate) notifications: broadcast::Sender<Notification>,
    pub(crate) degraded: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoopError {
    /// The store failed; nothing can be recorded any more.
    #[error("The store failed")]
    Store(#[source] StoreError),
    /// The store can no longer be read.
    #[error("The store can no longer be read")]
    View,
    /// The journal failed; nothing can be installed any more.
    #[error("The journal failed: {0}")]
    Journal(String),
    /// A service ended by itself.
    #[error("The {0} service ended")]
    ServiceEnded(&'static str),
}

/// A command of a user's that the engine has not answered yet.
enum Waiting {
    Invite(ReplyTo<Ticket>),
    Join(ReplyTo<Joined>, Option<JoinChoice>),
    Done(ReplyTo<()>),
    Members(ReplyTo<Reply>),
    Lock(ReplyTo<LockReply>),
    Why(ReplyTo<WhyAnswer>),
    Leave(ReplyTo<GroupId>),
    Pair(pairing::WaitingPair),
}

/// See the module.
pub(crate) struct EventLoop {
    engine: SyncEngine,
    services: Services,
    waiting: BTreeMap<CommandId, Waiting>,
    next_command: u64,
    /// Locks for which nobody waits any more.
    given_back: Vec<Resource>,
    submitted: BatchNo,
    durable: BatchNo,
    /// Finished groups whose record is not durable yet.
    tokens: VecDeque<(BatchNo, InstallToken)>,
    listen: Vec<String>,
    /// What to do with differing files once a join has found them.
    join_choice: Option<JoinChoice>,
    scan_problems: Vec<(RelPath, String)>,
    /// Ignore patterns that were left out, with the reason.
    rule_problems: Vec<String>,
    /// Why the ignore patterns could not be read again.
    rules_failed: Option<String>,
    /// The ignore patterns that hold.
    rules: Option<Arc<Rules>>,
    failure: Option<String>,
    /// Why nothing goes on until the next start.
    fatal: Option<String>,
    own_notes: OwnLogNotes,
    /// The newest full scan that the engine has asked for.
    scan_asked: ScanNo,
    last_state: Option<FolderState>,
    /// Contents of which an earlier run left parts: dropped once nothing is needed any more.
    parts: Vec<ContentHash>,
    /// Contents that are wanted to read or restore old versions.
    wanted: Wanted,
}

impl EventLoop {
    /// Makes the loop; `parts` are contents of which an earlier run left parts.
    pub(crate) fn new(engine: SyncEngine, services: Services, parts: Vec<ContentHash>) -> Self {
        let own_log = engine.own_log_name();
        Self {
            engine,
            services,
            waiting: BTreeMap::new(),
            next_command: 0,
            given_back: Vec::new(),
            submitted: BatchNo(0),
            durable: BatchNo(0),
            tokens: VecDeque::new(),
            listen: Vec::new(),
            join_choice: None,
            scan_problems: Vec::new(),
            rule_problems: Vec::new(),
            rules_failed: None,
            rules: None,
            failure: None,
            fatal: None,
            own_notes: OwnLogNotes::new(own_log),
            scan_asked: ScanNo::default(),
            last_state: None,
            parts,
            wanted: Wanted::default(),
        }
    }

    /// Gives the engine its first inputs: the ignore rules, and `first`; `token` stands for the installs that recovery found.
    ///
    /// # Errors
    /// One of [`LoopError`].
    pub(crate) fn begin(
        &mut self,
        rules: Arc<Rules>,
        first: Input,
        token: InstallToken,
    ) -> Result<(), LoopError> {
        self.scan(ScanEvent::Rules(rules))?;
        self.input(first)?;
        self.tokens.push_back((self.submitted, token));
        self.finish_installs();
        Ok(())
    }

    /// Runs until shutdown is asked for or the store fails.
    ///
    /// # Errors
    /// One of [`LoopError`].
    pub(crate) async fn run(&mut self, channels: &mut Channels) -> Result<(), LoopError> {
        let mut status = tokio::time::interval(STATUS_INTERVAL);
        status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stale_status = true;
        let mut alive = alive_ticks();
        loop {
            let deadline = self.sleep_until();
            let may_scan =
                self.engine.local_backlog() < MAX_LOCAL_BACKLOG && !self.services.writer.is_behind();
            let may_listen = !self.services.writer.is_behind();
            tokio::select! {
                biased;
                _ = channels.shutdown.changed() => return Ok(()),
                _ = alive.tick() => {
                    crate::service_manager::alive();
                    continue;
                }
                Some(result) = channels.persisted.recv() => self.persisted(result)?,
                Some(event) = channels.disk.recv() => self.disk(event)?,
                () = tokio::time::sleep(deadline) => self.timeout()?,
                _ = status.tick(), if stale_status => {
                    self.publish_status();
                    stale_status = false;
                    continue;
                }
                Some(command) = channels.control.recv() => self.control(command)?,
                Some(ask) = channels.asks.recv() => self.ask(ask),
                Some(question) = channels.judges.recv() => self.judge(question),
                event = channels.fetch.recv() => {
                    let Some(event) = event else { return Err(LoopError::ServiceEnded("content")) };
                    self.fetch(event)?;
                }
                Some(path) = channels.stale.recv() => self.rescan(vec![path]),
                event = channels.network.recv(), if may_listen => {
                    let Some(event) = event else { return Err(LoopError::ServiceEnded("network")) };
                    self.network(event)?;
                }
                hint = channels.hints.next() => self.hint(hint),
                Some(event) = channels.scan.recv(), if may_scan => self.scan(event)?,
            }
            stale_status = true;
        }
    }

    fn sleep_until(&self) -> Duration {
        let Some((at, reason)) = self.engine.poll_timeout() else {
            return Duration::from_secs(3600);
        };
        let wait = at.since(clock::now().boot);
        trace!(reason, ms = wait.as_millis(), "Next deadline");
        wait
    }

    fn input(&mut self, input: Input) -> Result<(), LoopError> {
        let now = clock::now();
        self.engine.handle_input(input, now, &self.services.view);
        self.drain(now)
    }

    fn timeout(&mut self) -> Result<(), LoopError> {
        let now = clock::now();
        self.engine.handle_timeout(now, &self.services.view);
        self.drain(now)
    }

    /// Carries out what the engine wants done.
    fn drain(&mut self, _now: Now) -> Result<(), LoopError> {
        if self.services.view.failed() {
            return Err(LoopError::View);
        }
        while let Some(output) = self.engine.poll_output() {
            self.output(output)?;
        }
        self.give_back()
    }

    fn output(&mut self, output: Output) -> Result<(), LoopError> {
        match output {
            Output::Persist(batch) => {
                self.own_notes.issued(batch.no, &self.engine);
                self.submitted = batch.no;
                self.services.writer.submit(batch).map_err(LoopError::Store)?;
            }
            Output::Request { to, id, request } => self.send(NetworkCommand::Request { to, id, request }),
            Output::Respond { id, response } => self.send(NetworkCommand::Respond { id, response }),
            Output::Gossip(message) => self.send(NetworkCommand::Gossip(message)),
            Output::Members(members) => self.send(NetworkCommand::Members(members)),
            Output::SeekLan => self.send(NetworkCommand::SeekLan),
            Output::Announce { group } => self.send(NetworkCommand::Announce { group }),
            Output::Dial { address } => self.send(NetworkCommand::Dial { address }),
            Output::Undial { address } => self.send(NetworkCommand::Forget { address }),
            Output::Fetch(jobs) => self.services.fetcher.fetch(jobs),
            Output::DropContent(contents) => self.drop_content(contents),
            Output::Install(jobs) => self.to_disk(DiskCommand::Install(jobs)),
            Output::Scan(no) => {
                self.scan_asked = no;
                self.to_scan(ScanCommand::Full(no));
            }
            Output::Rescan(paths) => self.rescan(paths),
            Output::Look { no, paths } => self.to_scan(ScanCommand::Look(no, paths)),
            Output::Reply { id, reply } => self.reply(id, reply),
            Output::Notify(notification) => self.notify(notification),
        }
        Ok(())
    }

    /// Sends to the network in order; what its inbox has no room for waits here.
    fn send(&self, command: NetworkCommand) {
        // The task ends only after this loop; its end is noticed by its events ending.
        let _ = self.services.network.send(command);
    }

    fn drop_content(&self, mut contents: Vec<ContentHash>) {
        contents.retain(|content| !self.wanted.contains(content));
        contents
            .iter()
            .for_each(|content| self.services.writer.clear_partial(*content));
        self.to_disk(DiskCommand::Drop(contents));
    }

    fn to_disk(&self, command: DiskCommand) {
        // The thread ends only after this loop.
        let _ = self.services.disk.send(command);
    }

    fn to_scan(&self, command: ScanCommand) {
        let _ = self.services.scan.send(command);
    }

    fn rescan(&self, paths: Vec<RelPath>) {
        self.to_scan(ScanCommand::Paths(paths));
    }

    fn persisted(&mut self, result: Result<BatchNo, StoreError>) -> Result<(), LoopError> {
        let no = result.map_err(LoopError::Store)?;
        self.durable = no;
        self.finish_installs();
        self.note_own_log();
        self.services.ledger.grown();
        self.input(Input::Persisted(no))
    }

    fn finish_installs(&mut self) {
        while self.tokens.front().is_some_and(|(no, _)| *no <= self.durable) {
            if let Some((_, token)) = self.tokens.pop_front() {
                self.to_disk(DiskCommand::Finish(token));
            }
        }
    }

    fn disk(&mut self, event: DiskEvent) -> Result<(), LoopError> {
        match event {
            DiskEvent::Installed { results, token } => {
                self.input(Input::Installed(results))?;
                self.tokens.push_back((self.submitted, token));
                self.finish_installs();
                Ok(())
            }
            DiskEvent::Displaced(paths) => {
                self.rescan(paths);
                Ok(())
            }
            DiskEvent::JournalFailed => self.check_journal(),
        }
    }

    fn scan(&mut self, event: ScanEvent) -> Result<(), LoopError> {
        match event {
            ScanEvent::Changes(changes) => {
                let now = clock::now();
                self.engine.handle_fs_event(changes, now, &self.services.view);
                self.drain(now)
            }
            ScanEvent::Rules(rules) => {
                self.rule_problems = rules.problems().to_vec();
                self.rules = Some(rules.clone());
                self.input(Input::IgnoreRules(rules))
            }
            ScanEvent::RulesFailed(reason) => {
                self.rules_failed = reason;
                Ok(())
            }
            ScanEvent::Problems(problems) => {
                self.scan_problems = problems;
                Ok(())
            }
            ScanEvent::Finished(no) => {
                self.failure = None;
                self.input(Input::ScanFinished(no))?;
                self.choose_held()
            }
            ScanEvent::Looked(no) => self.input(Input::Looked(no)),
            ScanEvent::Failed(reason) => {
                self.failure = Some(reason);
                self.input(Input::ScanFailed)
            }
        }
    }

    fn hint(&self, hint: Hint) {
        match hint {
            Hint::Paths(paths) => self.to_scan(ScanCommand::Hint(paths)),
            Hint::Overflow => self.to_scan(ScanCommand::Full(self.scan_asked)),
        }
    }

    fn fetch(&mut self, event: FetchEvent) -> Result<(), LoopError> {
        match event {
            FetchEvent::Fetched(contents) => {
                let contents = self.came(contents);
                self.input(Input::Fetched(contents))
            }
            FetchEvent::Failed { content, reason } => {
                self.came_not(&content, &reason);
                self.input(Input::FetchFailed { content, reason })
            }
            FetchEvent::Misbehaved { device, reason } => {
                self.notify(Notification::PeerMisbehaved { device, reason });
                Ok(())
            }
            FetchEvent::Stale(path) => {
                self.rescan(vec![path]);
                Ok(())
            }
        }
    }

    fn network(&mut self, event: NetworkEvent) -> Result<(), LoopError> {
        match event {
            NetworkEvent::Listening(address) => {
                info!(%address, "Listening");
                let address = format!("{address}/p2p/{}", self.services.peer_id);
                if !self.listen.contains(&address) {
                    self.listen.push(address);
                }
                Ok(())
            }
            NetworkEvent::Connected {
                device,
                address,
                local,
                near,
                ..
            } => self.input(Input::Connected {
                device,
                address,
                local,
                near,
            }),
            NetworkEvent::Disconnected { device } => {
                self.services.fetcher.peer_gone(device);
                self.input(Input::Disconnected { device })
            }
            NetworkEvent::Request { from, id, request } => self.input(Input::Request { from, id, request }),
            NetworkEvent::Response { id, result } => self.input(Input::Response { id, result }),
            NetworkEvent::Gossip { from, message } => {
                let now = clock::now();
                self.engine
                    .handle_network_event(from, message, now, &self.services.view);
                self.drain(now)
            }
            NetworkEvent::LanPeer { device, group } => self.input(Input::LanPeer { device, group }),
            NetworkEvent::Stream { from, stream } => {
                self.serve(from, stream);
                Ok(())
            }
            NetworkEvent::ListenFailed { address, reason } => {
                warn!(%address, reason, "Cannot listen");
                Ok(())
            }
        }
    }

    fn serve(&self, from: DeviceId, stream: libp2p::Stream) {
        let provider = self.services.provider.clone();
        tokio::spawn(async move {
            if let Err(error) = provider.serve(from, stream).await {
                debug!(device = %from.short(), error = %crate::error_chain(&error), "A content stream ended");
            }
        });
    }

    fn publish_status(&mut self) {
        let engine = self.engine.status();
        if self.fatal.is_none() && engine.state == FolderState::InSync && !self.parts.is_empty() {
            let parts = std::mem::take(&mut self.parts);
            self.drop_content(parts);
        }
        if self.fatal.is_none() && self.last_state != Some(engine.state) {
            self.last_state = Some(engine.state);
            let (files, needed, conflicts) = (engine.files_total, engine.files_needed, engine.conflicts);
            info!(state = ?engine.state, files, needed, conflicts, "Folder");
            crate::service_manager::status(&format!("{:?}: {files} files, {needed} to go", engine.state));
        }
        let unreadable = self.scan_problems.iter().take(MAX_UNREADABLE).cloned().collect();
        let warnings = self.rule_warnings().collect();
        let author_bytes = match &self.fatal {
            None => self.services.view.author_bytes(),
            Some(_) => self.services.status.borrow().author_bytes.clone(),
        };
        let next = StatusSnapshot {
            engine,
            author_bytes,
            listen: self.listen.clone(),
            watcher_degraded: (self.services.degraded)(),
            failure: self.fatal.as_ref().or(self.failure.as_ref()).cloned(),
            warnings,
            unreadable,
            unreadable_count: self.scan_problems.len() as u64,
            bytes_in: self.services.stats.bytes_in(),
            bytes_out: self.services.stats.bytes_out(),
            ..StatusSnapshot::clone(&self.services.status.borrow())
        };
        self.services.status.send_if_modified(|current| {
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }

    fn rule_warnings(&self) -> impl Iterator<Item = Warning> {
        let bad = self.rule_problems.iter().take(20);
        let bad = bad.map(|why| format!("An ignore pattern is left out: {why}"));
        let failed = self.rules_failed.iter();
        let failed = failed.map(|why| format!("The ignore patterns stay as they were: {why}"));
        bad.chain(failed).map(|message| Warning {
            code: "BAD_PATTERN",
            message,
        })
    }

    /// Waits for installs and writes under way, so that a stop is clean.
    pub(crate) async fn wind_down(&mut self, channels: &mut Channels, started: SystemTime) {
        let limit = Duration::from_secs(3);
        let end = async {
            while self.fatal.is_none()
                && (self.engine.is_installing() || self.durable < self.submitted || !self.tokens.is_empty())
            {
                let result = tokio::select! {
                    Some(result) = channels.persisted.recv() => self.persisted(result),
                    Some(event) = channels.disk.recv() => self.disk(event),
                    else => break,
                };
                if let Err(error) = result {
                    error!(error = %crate::error_chain(&error), "Could not end what was under way");
                    self.fatal = Some(crate::error_chain(&error));
                }
            }
        };
        if tokio::time::timeout(limit, end).await.is_err() {
            warn!("Installs were still under way; the next start takes them up");
        }
        let up = started.elapsed().unwrap_or_default().as_secs();
        info!(up_s = up, "Stopping");
    }
}

/// Returns the ticks at which the service manager is told that the loop turns. Where nobody asks they are rare.
fn alive_ticks() -> tokio::time::Interval {
    let every = crate::service_manager::alive_interval().unwrap_or(Duration::from_secs(3600));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
