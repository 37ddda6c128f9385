//! Starts all services around the event loop, and stops them in order.
//!
//! Start: lock and recover the folder (journal), open the store, put right what a crash left, then network, content,
//! scanner and watcher, and last the control socket, so that whoever can talk to the daemon finds it whole.
//!
//! Stop: 1 the control socket takes no more calls, 2 the event loop ends, 3 installs and writes under way end, 4 the
//! network says goodbye, 5 scanner, watcher and installer end, 6 the store is closed, 7 the journal is marked clean. A
//! daemon whose store or journal failed does the same when it is told to stop, but for 3 and 7.

mod binding;
mod network;
mod socket;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use p2p_sync_core::engine::{DELETE_GUARD, EngineConfig, Input, Notification, RecoveredInstall, SyncEngine};
use p2p_sync_core::ids::{ContentHash, DeviceId};
use p2p_sync_core::ticket::Ticket;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::content_index::{SharedStore, StoreBeliefs, SwarmStreams};
use crate::control::{
    Backend, COMMAND_QUEUE, ControlCommand, NOTIFICATION_QUEUE, SocketError, StatusSnapshot,
};
use crate::event_loop::{Channels, EventLoop, LoopError, Services};
use crate::free_space::Reserve;
use crate::history::History;
use crate::identity::{self, IdentityError};
use crate::ignore_rules::{IgnoreError, RuleSource, Rules};
use crate::install_task;
use crate::journal::{JournalError, JournalService};
use crate::ledger::Ledger;
use crate::network::{NetworkCommand, NetworkError, peer_of};
use crate::paths::SocketPlace;
use crate::root_dir::Modes;
use crate::scan_task::{self, CHANGE_BATCHES, ScanTask};
use crate::scanner::{ScanError, Scanner};
use crate::store::{Store, StoreError, StoreWriter};
use crate::transfer::{FetchTiming, Fetcher, OpenFolderError, Provider, TransferStats};
use crate::versions_task::{self, VersionsTask};
use crate::watcher::FileWatcher;
use crate::worktree::{InstallToken, Retention, Worktree, WorktreeError};

/// Contents reported by the fetcher and not taken yet, in batches.
const FETCH_EVENTS: usize = 64;

/// How a daemon is set up; every path absolute.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made if missing.
    pub folder: PathBuf,
    /// Where key and store lie; made if missing.
    pub state_dir: PathBuf,
    /// Where the control socket is; `None`: there is none.
    pub socket: Option<SocketPlace>,
    /// The group whose members may use the control socket.
    pub control_group: Option<String>,
    /// The group whose members may use the control socket to read.
    pub control_read_only_group: Option<String>,
    /// Where to listen, multiaddresses.
    pub listen: Vec<libp2p::Multiaddr>,
    /// Whether to take a free port when the wanted one is taken.
    pub fallback_port: bool,
    /// Addresses to keep dialling.
    pub peers: Vec<String>,
    /// The device's name, for people.
    pub name: String,
    /// A ticket to redeem at the start.
    pub join: Option<Ticket>,
    /// Whether to use mDNS.
    pub mdns: bool,
    /// Whether devices of the local network are told this one's name, and may ask to be let in.
    pub lan_pairing: bool,
    /// Whether to admit devices of the local network without asking.
    pub trust_lan: bool,
    /// Which permission bits are kept.
    pub modes: Modes,
    /// Where the patterns of the paths that are left alone come from.
    pub ignore: RuleSource,
    /// Which old versions are kept.
    pub retention: Retention,
    /// Whether to take the folder for this state's, whatever it is, and to compare every file.
    pub rebind: bool,
    /// What is left free on the folder's file system.
    pub min_free: Reserve,
    /// Bytes of one author's events in the ledger beyond which there is a warning; 0: never.
    pub author_quota: u64,
    /// Whether many deletions that nobody saw happen are held until the user confirms them.
    pub delete_guard: bool,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A directory cannot be made.
    #[error("Cannot make the directory {}", path.display())]
    MakeDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key cannot be had.
    #[error("Cannot use this device's key")]
    Identity(#[from] IdentityError),
    /// The journal cannot be used.
    #[error("Cannot use the journal of the folder")]
    Journal(#[from] JournalError),
    /// The folder cannot be used.
    #[error("Cannot use the folder")]
    Worktree(#[from] WorktreeError),
    /// The store cannot be used.
    #[error("Cannot use the store")]
    Store(#[from] StoreError),
    /// The folder is not the one that the store belongs to.
    #[error("{} is not the folder that the state in {} belongs to: put the folder back (is its disk mounted?); or, if it was moved, replaced or restored from a backup, start once with --rebind, which compares every file and takes nothing for deleted; or give this folder a state of its own with --state-dir", folder.display(), state_dir.display())]
    OtherFolder {
        /// The folder.
        folder: PathBuf,
        /// The state.
        state_dir: PathBuf,
    },
    /// The ledger in the store is of an earlier format.
    #[error("The ledger in {} was written by an earlier version, whose format this one does not read. The folder is untouched. Move that directory away and start again, on every device; then let the devices join one of them: syncctl invite create", state_dir.display())]
    OtherFormat {
        /// The state.
        state_dir: PathBuf,
    },
    /// The network cannot be used.
    #[error("Cannot use the network")]
    Network(#[from] NetworkError),
    /// Content cannot be moved.
    #[error("Cannot open the folder for transfers")]
    Transfer(#[from] OpenFolderError),
    /// It is not known which paths to leave alone.
    #[error("Cannot use the ignore patterns")]
    Ignore(#[from] IgnoreError),
    /// The folder cannot be scanned.
    #[error("Cannot scan the folder")]
    Scan(#[from] ScanError),
    /// The control socket cannot be used.
    #[error("Cannot use the control socket")]
    Socket(#[from] SocketError),
    /// A thread cannot be started.
    #[error("Cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The device's id is no key.
    #[error("This device's id is no key")]
    DeviceId,
    /// The loop ended by a failure.
    #[error("The daemon cannot go on: {0}")]
    Loop(String),
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    device: DeviceId,
    fresh: bool,
    control: mpsc::Sender<ControlCommand>,
    status: watch::Receiver<Arc<StatusSnapshot>>,
    notifications: broadcast::Sender<Notification>,
    socket: Option<PathBuf>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), DaemonError>>,
}

impl Daemon {
    /// Starts everything; returns when the control socket answers. Blocks while it recovers what a crash left; must run
    /// on a tokio runtime with several threads.
    ///
    /// # Errors
    /// Any [`DaemonError`].
    pub fn start(options: Options) -> Result<Self, DaemonError> {
        let started = SystemTime::now();
        binding::check(&options)?;
        make_private_dir(&options.folder)?;
        make_private_dir(&options.state_dir)?;
        let (secret, fresh) = identity::load_or_create(&options.state_dir)?;
        let mut opened = tokio::task::block_in_place(|| Opened::open(&options))?;
        let (stop, stopping) = watch::channel(false);
        let (control, control_inbox) = mpsc::channel(COMMAND_QUEUE);
        let (notifications, _) = broadcast::channel(NOTIFICATION_QUEUE);
        let mut snapshot = StatusSnapshot::starting(options.name.clone(), options.folder.clone(), started);
        snapshot.author_quota = options.author_quota;
        let (status, status_view) = watch::channel(Arc::new(snapshot));
        let socket = socket::bind(&options)?;
        let socket_path = socket.as_ref().map(|socket| socket.path().to_owned());
        let backend = Backend {
            commands: control.clone(),
            status: status_view.clone(),
            notifications: notifications.clone(),
        };
        let config = EngineConfig {
            secret,
            name: options.name.clone(),
            seed: identity::random32()?,
            trust_lan: options.trust_lan,
            lan_pairing: options.lan_pairing,
            delete_guard: options.delete_guard.then_some(DELETE_GUARD),
        };
        let engine = tokio::task::block_in_place(|| {
            binding::engine(&options, &config, &opened.journal, &mut opened.store)
        })?;
        let device = engine.device();
        let running = Running::start(
            &options,
            secret,
            engine,
            opened,
            Ends {
                control_inbox,
                status,
                notifications: notifications.clone(),
                stopping: stopping.clone(),
            },
        )?;
        let server = socket.map(|socket| socket::serve(socket, backend, &options, stopping));
        info!(device = %device.short(), folder = %options.folder.display(), "Started");
        let join = options.join.clone();
        let task = tokio::spawn(running.run(join, server, started));
        Ok(Self {
            device,
            fresh,
            control,
            status: status_view,
            notifications,
            socket: socket_path,
            stop,
            task,
        })
    }

    /// Returns this device's id.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// Says whether the device's key was made by this start.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Returns where the control socket is.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Returns the way to give commands.
    #[must_use]
    pub fn control(&self) -> mpsc::Sender<ControlCommand> {
        self.control.clone()
    }

    /// Returns the newest status, and those to come.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<StatusSnapshot>> {
        self.status.clone()
    }

    /// Returns what happens from now on.
    #[must_use]
    pub fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.notifications.subscribe()
    }

    /// Runs until `shutdown` is done or something fails, then stops in order.
    ///
    /// # Errors
    /// [`DaemonError::Loop`] if the daemon could not go on.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future stops nothing in order.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
        tokio::select! {
            () = shutdown => {
                let _ = self.stop.send(true);
                self.task.await
            }
            result = &mut self.task => result,
        }
        .unwrap_or_else(|error| Err(DaemonError::Loop(error.to_string())))
    }
}

/// What lies on disk, opened and recovered.
struct Opened {
    journal: Arc<JournalService>,
    journal_recovered: Vec<PathBuf>,
    worktree: Arc<Worktree>,
    store: Store,
    installs: Vec<RecoveredInstall>,
    recovery_token: InstallToken,
    /// Contents of which an earlier run left parts.
    parts: Vec<ContentHash>,
}

impl Opened {
    fn open(options: &Options) -> Result<Self, DaemonError> {
        let journal = Arc::new(JournalService::new(&options.folder)?);
        let mut journal_recovered: Vec<PathBuf> = journal.check_for_recovery()?.into_iter().collect();
        journal_recovered.sort();
        let worktree =
            Worktree::new(&options.folder, journal.clone(), options.modes)?.with_reserve(options.min_free);
        let worktree = Arc::new(worktree);
        let mut store = Store::open(&options.state_dir.join("store.sqlite"))?;
        binding::bind(options, worktree.root_id(), &mut store)?;
        worktree.set_believed(Box::new(StoreBeliefs(Mutex::new(store.view()?))));
        let recovery = worktree.recover()?;
        for displaced in &recovery.displaced {
            warn!(kept_at = %displaced.kept_at, "A program wrote to a file after it was replaced");
        }
        // Parts may be resumed; the event loop drops those that turn out not to be wanted.
        let parts = std::cell::RefCell::new(Vec::new());
        worktree.sweep_tmp(|name| {
            let content = name
                .strip_suffix(".part")
                .and_then(|hex| ContentHash::from_hex(hex).ok());
            parts.borrow_mut().extend(content);
            content.is_some()
        })?;
        Ok(Self {
            journal,
            journal_recovered,
            worktree,
            store,
            installs: recovery.installs,
            recovery_token: recovery.token,
            parts: parts.into_inner(),
        })
    }
}

/// The ends of channels that the loop takes.
struct Ends {
    control_inbox: mpsc::Receiver<ControlCommand>,
    status: watch::Sender<Arc<StatusSnapshot>>,
    notifications: broadcast::Sender<Notification>,
    stopping: watch::Receiver<bool>,
}

/// All services, wired.
struct Running {
    event_loop: EventLoop,
    channels: Channels,
    first: Option<(Arc<Rules>, Input, InstallToken)>,
    journal: Arc<JournalService>,
    writer: Arc<StoreWriter>,
    network: mpsc::UnboundedSender<NetworkCommand>,
    network_task: JoinHandle<()>,
    scan: ScanTask,
    install_thread: std::thread::JoinHandle<()>,
    watcher: Arc<FileWatcher>,
    versions: VersionsTask,
}

impl Running {
    fn start(
        options: &Options,
        secret: [u8; 32],
        engine: SyncEngine,
        opened: Opened,
        ends: Ends,
    ) -> Result<Self, DaemonError> {
        let (persisted_sender, persisted) = mpsc::unbounded_channel();
        let writer = Arc::new(opened.store.writer(move |result| {
            let _ = persisted_sender.send(result);
        })?);
        let shared = |store: &Store| -> Result<Arc<SharedStore>, StoreError> {
            let kept = opened.worktree.kept();
            Ok(Arc::new(SharedStore::new(store.view()?, writer.clone(), kept)))
        };
        let (network, network_events, streams, network_task) = network::start(options, secret)?;
        for address in &options.peers {
            let _ = network.send(NetworkCommand::Dial {
                address: address.clone(),
            });
        }
        let (stale_sender, stale) = mpsc::unbounded_channel();
        let stats = Arc::new(TransferStats::default());
        let on_stale = Arc::new(move |path| drop(stale_sender.send(path)));
        let provider = Provider::new(&options.folder, shared(&opened.store)?, on_stale, stats.clone())?;
        let (fetch_sender, fetch) = mpsc::channel(FETCH_EVENTS);
        let (fetch_task, fetcher) = Fetcher::new(
            &options.folder,
            options.min_free,
            shared(&opened.store)?,
            Arc::new(SwarmStreams(streams)),
            fetch_sender,
            stats.clone(),
            FetchTiming::default(),
        )?;
        tokio::spawn(fetch_task.run());
        let (watcher, hints) = FileWatcher::start(&options.folder);
        let watcher = Arc::new(watcher);
        let rules = Arc::new(options.ignore.read()?);
        let scanner = Scanner::new(
            &options.folder,
            shared(&opened.store)?,
            options.modes,
            watcher.clone(),
            rules.clone(),
        )?;
        let (scan_sender, scan_events) = mpsc::channel(CHANGE_BATCHES);
        let scan = scan_task::spawn(scanner, options.ignore.clone(), rules.clone(), scan_sender)
            .map_err(DaemonError::Thread)?;
        let (disk_sender, disk_events) = mpsc::unbounded_channel();
        let (disk, install_thread) =
            install_task::spawn(opened.worktree.clone(), disk_sender).map_err(DaemonError::Thread)?;
        let versions =
            versions_task::spawn(opened.worktree.kept(), options.retention).map_err(DaemonError::Thread)?;
        let peer_id = peer_of(&engine.device())
            .map_err(|_| DaemonError::DeviceId)?
            .to_string();
        let degraded = {
            let watcher = watcher.clone();
            Arc::new(move || watcher.degraded())
        };
        let (ask_sender, asks) = mpsc::unbounded_channel();
        let (judge_sender, judges) = mpsc::unbounded_channel();
        let (view, worktree) = (opened.store.view()?, opened.worktree.clone());
        let history = History::new(view, writer.clone(), worktree, ask_sender);
        let services = Services {
            view: opened.store.view()?,
            writer: writer.clone(),
            journal: opened.journal.clone(),
            journal_recovered: opened.journal_recovered,
            disk,
            scan: scan.commands.clone(),
            network: network.clone(),
            peer_id,
            fetcher,
            provider,
            history: Arc::new(history),
            ledger: Arc::new(Ledger::new(opened.store.ledger(), judge_sender)),
            stats,
            status: ends.status,
            notifications: ends.notifications,
            degraded,
        };
        let channels = Channels {
            persisted,
            disk: disk_events,
            scan: scan_events,
            hints,
            network: network_events,
            fetch,
            stale,
            control: ends.control_inbox,
            asks,
            judges,
            shutdown: ends.stopping,
        };
        Ok(Self {
            event_loop: EventLoop::new(engine, services, opened.parts),
            channels,
            first: Some((
                rules,
                Input::Start {
                    installs: opened.installs,
                },
                opened.recovery_token,
            )),
            journal: opened.journal,
            writer,
            network,
            network_task,
            scan,
            install_thread,
            watcher,
            versions,
        })
    }

    async fn run(
        mut self,
        join: Option<Ticket>,
        server: Option<JoinHandle<()>>,
        started: SystemTime,
    ) -> Result<(), DaemonError> {
        crate::service_manager::ready();
        let mut result = self.run_loop(join).await;
        if let Err(error) = &mut result
            && error.is_of_disk()
        {
            self.event_loop.run_failed(&mut self.channels, error).await;
        }
        if let Err(error) = &result {
            error!(error = %crate::error_chain(error), "The daemon cannot go on");
        }
        crate::service_manager::stopping();
        self.event_loop.wind_down(&mut self.channels, started).await;
        let _ = self.network.send(NetworkCommand::Shutdown);
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.network_task).await;
        if let Some(server) = server {
            server.abort();
        }
        self.scan.stop.store(true, Ordering::Relaxed);
        let clean = result.is_ok() && !self.event_loop.has_failed();
        let Self {
            event_loop,
            channels,
            scan,
            install_thread,
            watcher,
            versions,
            writer,
            journal,
            ..
        } = self;
        let end = tokio::task::spawn_blocking(move || {
            drop(event_loop);
            drop(channels);
            drop(watcher);
            let ScanTask { commands, thread, .. } = scan;
            drop(commands);
            let _ = thread.join();
            let _ = install_thread.join();
            versions.end();
            writer.close();
            if clean { journal.clear() } else { Ok(()) }
        });
        if let Ok(Err(error)) = end.await {
            error!(error = %crate::error_chain(&error), "Cannot mark the journal clean");
        }
        result.map_err(|error| DaemonError::Loop(crate::error_chain(&error)))
    }

    async fn run_loop(&mut self, join: Option<Ticket>) -> Result<(), LoopError> {
        if let Some((rules, first, token)) = self.first.take() {
            self.event_loop.begin(rules, first, token)?;
        }
        if let Some(ticket) = join {
            self.event_loop.join_at_start(ticket)?;
        }
        self.event_loop.run(&mut self.channels).await
    }
}

fn make_private_dir(path: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| DaemonError::MakeDir {
            path: path.to_owned(),
            source,
        })
}
