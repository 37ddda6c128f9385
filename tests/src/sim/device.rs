//! One device: its daemon's engine, if it runs, with its disk and store, and what its services are busy with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use p2p_sync_core::engine::{
    BatchNo, EngineConfig, FoundBy, Input, LocalChange, OwnLogNotes, ScanNo, Status, StoredEvent, SyncEngine,
};
use p2p_sync_core::ids::{ContentHash, DeviceId, GroupId};
use p2p_sync_core::ignore::{IgnoreNothing, IgnoreRules};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::signature::key_pair;
use p2p_sync_core::time::{BootInstant, Now};
use p2p_sync_core::tree::{Installed, Node};

use super::disk::{FakeDisk, Place};
use super::journal::FakeJournal;
use super::rng::Rng;
use super::store::{MemoryStore, Tables};
use super::worktree::{Died, Recovery, Round, Unfinished, Watched, Worktree};

/// Deletions of one scan that are published without asking; folders are small here.
const DELETE_GUARD: usize = 2;
/// Milliseconds since 1970 at the start of each run; any date would do.
const EPOCH_MS: i64 = 1_750_000_000_000;

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its place among the devices.
    pub index: usize,
    /// Its key's public half.
    pub id: DeviceId,
    secret: [u8; 32],
    trust_lan: bool,
    /// The engine; `None` while the daemon is down.
    pub engine: Option<SyncEngine>,
    /// Counts starts of the daemon; what belongs to an earlier one is dropped.
    pub run: u32,
    /// Durable state.
    pub store: MemoryStore,
    /// The folder.
    pub disk: FakeDisk,
    /// Which paths it leaves alone.
    pub rules: Arc<dyn IgnoreRules>,
    /// Installs that are open.
    pub journal: FakeJournal,
    /// Who may use the members' protocols.
    pub members: BTreeSet<DeviceId>,
    /// What it tells the local network; `None`: nothing.
    pub announced: Option<Option<GroupId>>,
    /// Devices that it keeps dialling.
    pub dials: BTreeSet<usize>,
    /// What the thread that changes the folder has still to do, in order.
    pub tasks: VecDeque<Task>,
    /// Installs whose record is not durable yet, with the batch that has it.
    pub unfinished: VecDeque<(BatchNo, Vec<Unfinished>)>,
    /// Old versions that a program may still be writing to.
    pub watched: VecDeque<Watched>,
    /// What goes wrong between two steps of an install.
    pub ambushes: Vec<Ambush>,
    /// Paths that a full scan has still to look at.
    pub scan: Option<VecDeque<RelPath>>,
    /// Which scan that is.
    pub scan_no: ScanNo,
    /// What the scanner found and the engine has not been told yet, oldest first.
    pub reports: VecDeque<Input>,
    /// The newest batch the engine has asked for in this run.
    pub last_batch: BatchNo,
    /// The newest batch that is durable in this run.
    pub durable_batch: BatchNo,
    /// Its clock's error in milliseconds.
    pub skew_ms: i64,
    /// What stood at paths whose deletion was held, as long as they are gone and the user has not answered.
    pub guarded: BTreeMap<RelPath, Installed>,
    /// What its user ever had in his folder by his own doing; `None`: nobody can say any more.
    pub stood: Option<BTreeSet<Node>>,
    /// What the journal is to know of its log.
    own_notes: OwnLogNotes,
    /// An old copy of its database.
    pub backup: Option<Tables>,
    /// Another machine with its key, switched off.
    pub twin: Option<Machine>,
    /// Its share of chance.
    pub dice: Rng,
    /// What its boot clock shows at the start of the run, milliseconds; less than nothing after a restart of the machine.
    boot_offset_ms: i64,
}

/// What a machine has of a device.
#[derive(Debug, Clone)]
pub struct Machine {
    tables: Tables,
    disk: FakeDisk,
    journal: FakeJournal,
    guarded: BTreeMap<RelPath, Installed>,
}

/// What the thread that changes the folder is asked to do.
#[derive(Debug)]
pub enum Task {
    /// Install.
    Install(Round),
    /// The store has recorded installs: say so in the journal.
    Record(Vec<Unfinished>),
    /// Then keep what they replaced.
    Finish(Vec<Unfinished>),
}

/// What goes wrong after some more steps of installs.
#[derive(Debug, Clone, Copy)]
pub struct Ambush {
    /// Steps until then.
    pub steps: u64,
    /// What happens.
    pub what: AmbushKind,
}

/// See [`Ambush`].
#[derive(Debug, Clone, Copy)]
pub enum AmbushKind {
    /// A user changes the path.
    Meddle {
        /// From which it is drawn.
        seed: u64,
    },
    /// The daemon dies.
    Die {
        /// Until when, milliseconds.
        until: u64,
        /// Whether the machine dies with it.
        power: bool,
    },
}

impl Device {
    /// Makes a device whose daemon does not run yet.
    #[must_use]
    pub fn new(index: usize, skew_ms: i64, trust_lan: bool, rng: &mut Rng) -> Self {
        let secret = rng.bytes32();
        Self {
            index,
            id: DeviceId::new(key_pair(&secret).verifying_key().to_bytes()),
            secret,
            trust_lan,
            engine: None,
            run: 0,
            store: MemoryStore::default(),
            disk: FakeDisk::default(),
            rules: Arc::new(IgnoreNothing),
            journal: FakeJournal::default(),
            members: BTreeSet::new(),
            announced: None,
            dials: BTreeSet::new(),
            tasks: VecDeque::new(),
            unfinished: VecDeque::new(),
            watched: VecDeque::new(),
            ambushes: Vec::new(),
            scan: None,
            scan_no: ScanNo::default(),
            reports: VecDeque::new(),
            last_batch: BatchNo(0),
            durable_batch: BatchNo(0),
            skew_ms,
            guarded: BTreeMap::new(),
            stood: Some(BTreeSet::new()),
            own_notes: OwnLogNotes::default(),
            backup: None,
            twin: None,
            dice: Rng::new(rng.bits()),
            boot_offset_ms: i64::try_from(rng.below(1_000_000)).unwrap_or(0),
        }
    }

    /// Returns the present as this device sees it.
    #[must_use]
    pub fn now(&self, time_ms: u64) -> Now {
        // No system takes a time before 1970, and the clock of one that is near it goes on, too.
        let since_start = i64::try_from(time_ms).unwrap_or(0);
        let wall = (EPOCH_MS + since_start + self.skew_ms).max(since_start);
        Now {
            boot: BootInstant::from_millis(time_ms.saturating_add_signed(self.boot_offset_ms)),
            wall_ms: u64::try_from(wall).unwrap_or(0),
        }
    }

    /// Returns when, in the run's time, this device reaches an instant.
    #[must_use]
    pub const fn time_of(&self, instant: BootInstant) -> u64 {
        instant
            .as_millis()
            .saturating_add_signed(self.boot_offset_ms.saturating_neg())
    }

    /// Returns the folder with its journal, to do something to them.
    pub fn worktree(&mut self, time_ms: u64) -> Worktree<'_> {
        self.disk.set_time(time_ms);
        self.disk.set_by_user(false);
        Worktree {
            disk: &mut self.disk,
            journal: &mut self.journal,
        }
    }

    /// Looks at what the last run left half done, and makes the engine of a new run.
    ///
    /// # Errors
    /// [`Died`] after so many `intents`: then it does not run.
    pub fn start(&mut self, time_ms: u64, intents: Option<u64>) -> Result<Recovery, Died> {
        let recovery = self.worktree(time_ms).recover(intents)?;
        self.run += 1;
        self.last_batch = BatchNo(0);
        self.durable_batch = BatchNo(0);
        let seed = self.dice.bytes32();
        let config = self.config(seed);
        self.engine = Some(self.bound(config));
        Ok(recovery)
    }

    fn config(&self, seed: [u8; 32]) -> EngineConfig {
        EngineConfig {
            secret: self.secret,
            name: format!("device {}", self.index),
            seed,
            trust_lan: self.trust_lan,
            lan_pairing: true,
            delete_guard: Some(DELETE_GUARD),
        }
    }

    /// Returns the group that the store knows.
    #[must_use]
    pub fn group_in_store(&self) -> Option<GroupId> {
        let engine = SyncEngine::new(self.config([0; 32]), self.store.recover());
        engine.own_log_name().map(|(group, _)| group)
    }

    /// Makes the engine as the daemon does: if the journal knows of more own events than the store, the store is an old
    /// copy that was put back.
    fn bound(&mut self, config: EngineConfig) -> SyncEngine {
        let mut engine = SyncEngine::new(config.clone(), self.store.recover());
        let log = engine.own_log_name();
        self.own_notes = OwnLogNotes::new(log);
        let made = log.map(|log| self.journal.own_log(&log)).unwrap_or_default();
        if made.events <= engine.own_seq() {
            return engine;
        }
        engine.expect_own_log(made);
        let missing = engine.own_events_missing();
        let old = self.store.durable().clone();
        if missing > 0 {
            self.store.put_back(old);
        } else {
            self.store.put_back_alone(old);
        }
        engine = SyncEngine::new(config, self.store.recover());
        if missing > 0 {
            engine.expect_own_log(made);
        }
        engine
    }

    /// Has the journal remember how many own events are durable, as the daemon's event loop does.
    pub fn note_own_log(&mut self) {
        let Some(engine) = self.engine.as_mut() else {
            return;
        };
        let journal = &self.journal;
        let note = self
            .own_notes
            .durable(self.durable_batch, engine, |log| journal.own_log(log));
        if let Some((log, size)) = note {
            self.journal.note_own_log(log, size);
        }
    }

    /// A batch is on its way to the store.
    pub fn issued(&mut self, no: BatchNo) {
        if let Some(engine) = &self.engine {
            self.own_notes.issued(no, engine);
        }
    }

    /// The daemon dies; `survivors` of the batches on their way became durable.
    pub fn crash(&mut self, survivors: usize) {
        self.engine = None;
        self.run += 1;
        self.store.crash(survivors);
        if !self.store.durable().settings.contains_key("deletions_held") {
            // It died before that was durable, and nobody was told.
            self.guarded.clear();
        }
        self.members.clear();
        self.announced = None;
        self.dials.clear();
        self.tasks.clear();
        self.unfinished.clear();
        self.watched.clear();
        self.scan = None;
        self.reports.clear();
    }

    /// The machine dies: what is not on the disk is lost, and the boot clock begins anew. Returns what users lost.
    pub fn power_cut(&mut self, time_ms: u64) -> super::disk::Loss {
        let before = self.disk.clone();
        self.disk.set_time(time_ms);
        self.journal.power_cut(&mut self.dice);
        let loss = self.disk.power_cut(&mut self.dice);
        if loss.of_users {
            // What is back, or torn, is as its user left it; also what an install took out of the folder just now.
            let in_folder = self.disk.tree().keys().cloned().map(Place::Folder);
            let taken_out = self.journal.open().into_keys().map(Place::Slot);
            let changed = in_folder.chain(taken_out).filter_map(|place| {
                let inode = self.disk.at(&place)?;
                (before.at(&place) != Some(inode)).then(|| inode.entry().node)
            });
            // A directory with something in it is no install's.
            let slots = self.journal.open().into_keys().map(Place::Slot);
            let below = slots.flat_map(|slot| {
                self.disk
                    .taken_out_below(&slot)
                    .map(|inode| inode.entry().node)
                    .collect::<Vec<_>>()
            });
            let changed: Vec<Node> = changed.chain(below).collect();
            self.stood
                .iter_mut()
                .for_each(|stood| stood.extend(changed.clone()));
        }
        let since_boot = self.dice.between(2_000, 60_000);
        let offset = since_boot.wrapping_sub(time_ms).cast_signed();
        self.boot_offset_ms = offset;
        // A torn file may hold now what was emptied elsewhere.
        self.note_what_is_back();
        loss
    }

    /// State and key are lost; the folder stays.
    pub fn lose_state(&mut self) {
        self.secret = self.dice.bytes32();
        self.id = DeviceId::new(key_pair(&self.secret).verifying_key().to_bytes());
        self.store = MemoryStore::default();
        self.backup = None;
        self.guarded.clear();
        self.stood = None;
    }

    /// Another machine with the same key takes this one's place; if there is none, this one is copied. Nothing happens while
    /// the daemon runs, or before it came to a group.
    pub fn exchange(&mut self) {
        if self.engine.is_some() || self.group_in_store().is_none() {
            return;
        }
        let here = Machine {
            tables: self.store.durable().clone(),
            disk: self.disk.clone(),
            journal: self.journal.clone(),
            guarded: self.guarded.clone(),
        };
        if let Some(other) = self.twin.replace(here) {
            self.store.restore(other.tables);
            self.disk = other.disk;
            self.journal = other.journal;
            self.guarded = other.guarded;
        }
    }

    /// Says whether the other machine with this key has a content anywhere.
    #[must_use]
    pub fn twin_keeps(&self, content: &ContentHash) -> bool {
        self.twin.as_ref().is_some_and(|twin| twin.disk.keeps(content))
    }

    /// Says whether the other machine with this key has an event.
    #[must_use]
    pub fn twin_has(&self, event: &StoredEvent) -> bool {
        let events = self.twin.iter().flat_map(|twin| twin.tables.events.values());
        events.into_iter().any(|other| other.id == event.id)
    }

    /// The database becomes an old copy of itself, if there is one.
    pub fn restore_backup(&mut self) -> bool {
        let Some(tables) = self.backup.clone() else {
            return false;
        };
        self.store.restore(tables);
        self.guarded.clear();
        self.stood = None;
        true
    }

    /// Takes the folder as it is, with the log as it is in the store; what the option `--rebind` does at a start.
    pub fn rebind(&mut self) {
        let engine = SyncEngine::new(self.config([0; 32]), self.store.recover());
        if let Some(log) = engine.own_log_name() {
            self.journal.note_own_log(log, engine.own_log_size());
        }
        self.store.put_back_alone(self.store.durable().clone());
    }

    /// Notes what a user has at these paths, and below them, by his own doing.
    pub fn note_user(&mut self, paths: &[RelPath]) {
        let below = paths.iter().flat_map(|path| self.disk.below(path));
        let all: BTreeSet<RelPath> = paths.iter().cloned().chain(below).collect();
        let stand = all
            .into_iter()
            .filter_map(|path| Some(self.disk.lstat(&path)?.entry().node));
        let mut stand: Vec<Node> = stand.collect();
        if paths.is_empty() {
            // He wrote to a file that was taken away under him.
            let places = self.disk.own_places();
            stand.extend(
                places
                    .iter()
                    .filter_map(|place| Some(self.disk.at(place)?.entry().node)),
            );
        }
        self.stood
            .iter_mut()
            .for_each(|stood| stood.extend(stand.clone()));
    }

    /// Notes whose deletion is held.
    pub fn note_held(&mut self) {
        let held = self.engine.iter().flat_map(SyncEngine::held_deletions);
        let rows = held.filter_map(|path| {
            let row = self.store.durable().installed.get(path)?;
            Some((path.clone(), row.clone()))
        });
        self.guarded.extend(rows);
        // The engine has not heard yet of what is back.
        self.note_what_is_back();
    }

    /// Drops the notes of paths that the watcher saw vanish.
    pub fn note_what_was_seen(&mut self, changes: &[LocalChange]) {
        for change in changes {
            if change.after.is_none() && change.found_by == FoundBy::Watcher {
                self.guarded.remove(&change.path);
            }
        }
    }

    /// Drops the notes of paths that hold something again, and of what stands elsewhere, even if only for an instant: it
    /// passes for renamed.
    pub fn note_what_is_back(&mut self) {
        let disk = &self.disk;
        let is_elsewhere = |row: &Installed| {
            let same = |ino, node| ino == row.print.ino || node == row.entry.node;
            let mut inodes = disk.tree().values();
            inodes.any(|inode| same(inode.print().ino, inode.entry().node))
        };
        self.guarded
            .retain(|path, row| disk.lstat(path).is_none() && !is_elsewhere(row));
    }

    /// Returns the engine's own words about itself; the default while it is down.
    #[must_use]
    pub fn status(&self) -> Status {
        self.engine.as_ref().map(SyncEngine::status).unwrap_or_default()
    }
}
