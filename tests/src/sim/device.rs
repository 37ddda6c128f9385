//! One device: its daemon's engine, if it runs, with its disk and store, and what its services are busy with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use p2p_sync_core::engine::{
    Batch, BatchNo, EngineConfig, Input, InstallJob, InstallResult, RecoveredInstall, ScanNo, Status,
    SyncEngine, Write,
};
use p2p_sync_core::ids::{DeviceId, GroupId};
use p2p_sync_core::ignore::{IgnoreNothing, IgnoreRules};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::{BootInstant, Now};
use p2p_sync_core::tree::{Fingerprint, Installed};

use super::disk::{FakeDisk, Inode};
use super::rng::Rng;
use super::store::MemoryStore;

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
    /// Installs that happened on disk, until the store knows.
    pub journal: Vec<JournalEntry>,
    /// Who may use the members' protocols.
    pub members: BTreeSet<DeviceId>,
    /// What it tells the local network; `None`: nothing.
    pub announced: Option<Option<GroupId>>,
    /// Devices that it keeps dialling.
    pub dials: BTreeSet<usize>,
    /// Installs asked for and not yet answered, in order.
    pub installs: VecDeque<InstallRound>,
    /// Paths that a full scan has still to look at.
    pub scan: Option<VecDeque<RelPath>>,
    /// Which scan that is.
    pub scan_no: ScanNo,
    /// What the scanner found and the engine has not been told yet, oldest first.
    pub reports: VecDeque<Input>,
    /// The newest batch the engine has asked for in this run.
    pub last_batch: BatchNo,
    /// Its clock's error in milliseconds.
    pub skew_ms: i64,
    /// What stood at paths whose deletion was held, as long as they are gone and the user has not answered.
    pub guarded: BTreeMap<RelPath, Installed>,
    boot_offset_ms: u64,
}

/// One `Output::Install` in the doing.
#[derive(Debug, Default)]
pub struct InstallRound {
    /// What is still to be done.
    pub jobs: VecDeque<InstallJob>,
    /// What came of the others.
    pub results: Vec<InstallResult>,
}

/// An install in the journal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    /// What is told to the engine after a crash.
    pub install: RecoveredInstall,
    /// The first batch that can record it; `None` until the engine was told of the install.
    pub told: Option<BatchNo>,
}

impl Device {
    /// Makes a device whose daemon does not run yet.
    #[must_use]
    pub fn new(index: usize, skew_ms: i64, trust_lan: bool, rng: &mut Rng) -> Self {
        let secret = rng.bytes32();
        Self {
            index,
            id: DeviceId::new(SigningKey::from_bytes(&secret).verifying_key().to_bytes()),
            secret,
            trust_lan,
            engine: None,
            run: 0,
            store: MemoryStore::default(),
            disk: FakeDisk::default(),
            rules: Arc::new(IgnoreNothing),
            journal: Vec::new(),
            members: BTreeSet::new(),
            announced: None,
            dials: BTreeSet::new(),
            installs: VecDeque::new(),
            scan: None,
            scan_no: ScanNo::default(),
            reports: VecDeque::new(),
            last_batch: BatchNo(0),
            skew_ms,
            guarded: BTreeMap::new(),
            boot_offset_ms: rng.below(1_000_000),
        }
    }

    /// Returns the present as this device sees it.
    #[must_use]
    pub fn now(&self, time_ms: u64) -> Now {
        let wall = EPOCH_MS + i64::try_from(time_ms).unwrap_or(0) + self.skew_ms;
        Now {
            boot: BootInstant::from_millis(time_ms + self.boot_offset_ms),
            wall_ms: u64::try_from(wall).unwrap_or(0),
        }
    }

    /// Returns when, in the run's time, this device reaches an instant.
    #[must_use]
    pub const fn time_of(&self, instant: BootInstant) -> u64 {
        instant.as_millis().saturating_sub(self.boot_offset_ms)
    }

    /// Makes the engine of a new run and returns what recovery found.
    pub fn start(&mut self, rng: &mut Rng) -> Vec<RecoveredInstall> {
        self.run += 1;
        self.last_batch = BatchNo(0);
        let config = EngineConfig {
            secret: self.secret,
            name: format!("device {}", self.index),
            seed: rng.bytes32(),
            trust_lan: self.trust_lan,
            delete_guard: Some(DELETE_GUARD),
        };
        self.engine = Some(SyncEngine::new(config, self.store.recover()));
        let journal = std::mem::take(&mut self.journal);
        let unknown: Vec<JournalEntry> = journal.into_iter().filter(|entry| self.is_news(entry)).collect();
        let found = unknown.iter().map(|entry| entry.install.clone()).collect();
        self.journal = unknown;
        for entry in &mut self.journal {
            entry.told = Some(BatchNo(1));
        }
        found
    }

    /// Says whether the store does not know of an install.
    fn is_news(&self, entry: &JournalEntry) -> bool {
        let row = self.store.durable().installed.get(&entry.install.path);
        let stored: Option<Fingerprint> = row.map(|row| row.print);
        stored != entry.install.now.as_ref().map(|(_, print)| *print)
    }

    /// The daemon dies; `survivors` of the batches on their way became durable.
    pub fn crash(&mut self, survivors: usize, keep_temporary: bool) {
        self.engine = None;
        self.run += 1;
        self.store.crash(survivors);
        self.members.clear();
        self.announced = None;
        self.dials.clear();
        self.installs.clear();
        self.scan = None;
        self.reports.clear();
        if !keep_temporary {
            self.disk.sweep();
        }
    }

    /// Notes that the engine is told of all installs done so far, sources of moves included.
    pub fn told(&mut self) {
        let next = BatchNo(self.last_batch.0 + 1);
        for entry in &mut self.journal {
            entry.told.get_or_insert(next);
        }
    }

    /// Drops from the journal what a durable batch records.
    pub fn forget_recorded(&mut self, batch: &Batch) {
        let recorded = |path: &RelPath| {
            let mut writes = batch.writes.iter();
            writes.any(|write| matches!(write, Write::Installed(written, _) if written == path))
        };
        self.journal.retain(|entry| {
            let could = entry.told.is_some_and(|first| first <= batch.no);
            !(could && recorded(&entry.install.path))
        });
    }

    /// Notes an install on disk.
    pub fn journal_path(&mut self, path: &RelPath) {
        let now = self
            .disk
            .lstat(path)
            .map(|inode: &Inode| (inode.entry(), inode.print()));
        let install = RecoveredInstall {
            path: path.clone(),
            now,
        };
        self.journal.push(JournalEntry { install, told: None });
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

    /// Drops the notes of paths that hold something again.
    pub fn note_what_is_back(&mut self) {
        let disk = &self.disk;
        self.guarded.retain(|path, _| disk.lstat(path).is_none());
    }

    /// Returns the engine's own words about itself; the default while it is down.
    #[must_use]
    pub fn status(&self) -> Status {
        self.engine.as_ref().map(SyncEngine::status).unwrap_or_default()
    }
}
