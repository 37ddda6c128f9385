//! The journal of a folder in memory: which installs are open, and what of it a power cut leaves.

use std::collections::{BTreeMap, VecDeque};

use p2p_sync_core::engine::{OwnLogName, OwnLogSize};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::tree::{Entry, Fingerprint};

use super::rng::Rng;

/// What an install is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its number; names its slot and its version.
    pub tx: u64,
    /// What it does.
    pub action: IntentAction,
    /// Where.
    pub path: RelPath,
    /// What must be there before.
    pub expect: Option<Fingerprint>,
    /// What is to be there.
    pub new: Option<Entry>,
    /// What lies in the slot.
    pub staged: Option<Fingerprint>,
    /// Where a file that is moved lies, and what must be there.
    pub from: Option<(RelPath, Fingerprint)>,
}

/// What an [`Intent`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentAction {
    /// Puts an entry.
    Put,
    /// Sets mode and time.
    SetMeta,
    /// Moves a file.
    Move,
    /// Takes an entry away.
    Remove,
    /// Nothing any more: the store knows, and only what was replaced is still watched.
    Recorded,
}

#[derive(Debug, Clone)]
enum Record {
    Recorded(u64),
    Done(u64),
}

/// The open installs.
#[derive(Debug, Clone, Default)]
pub struct FakeJournal {
    durable: BTreeMap<u64, Intent>,
    /// Written, but not yet durable.
    tail: VecDeque<Record>,
    last_tx: u64,
    /// How many events this device has made, by its logs. A note that a power cut takes counts only if an old copy of the
    /// store is put back after the same cut, so none is taken here.
    own_logs: BTreeMap<OwnLogName, OwnLogSize>,
}

impl FakeJournal {
    /// Returns a number for a new install.
    pub const fn next_tx(&mut self) -> u64 {
        self.last_tx += 1;
        self.last_tx
    }

    /// Makes intents durable, and with them what was written before.
    pub fn begin(&mut self, intents: impl IntoIterator<Item = Intent>) {
        for record in self.tail.drain(..) {
            apply(&mut self.durable, &record);
        }
        self.durable
            .extend(intents.into_iter().map(|intent| (intent.tx, intent)));
    }

    /// Notes that the store knows of an install whose old file is still watched.
    pub fn recorded(&mut self, tx: u64) {
        self.tail.push_back(Record::Recorded(tx));
    }

    /// Notes the size of this device's log.
    pub fn note_own_log(&mut self, log: OwnLogName, size: OwnLogSize) {
        self.own_logs.insert(log, size);
    }

    /// Returns the size that this device's log has at least.
    #[must_use]
    pub fn own_log(&self, log: &OwnLogName) -> OwnLogSize {
        self.own_logs.get(log).copied().unwrap_or_default()
    }

    /// Closes an install.
    pub fn done(&mut self, tx: u64) {
        self.tail.push_back(Record::Done(tx));
    }

    /// Returns the open installs in their order.
    #[must_use]
    pub fn open(&self) -> BTreeMap<u64, Intent> {
        let mut open = self.durable.clone();
        self.tail.iter().for_each(|record| apply(&mut open, record));
        open
    }

    /// The power fails: what was written since the last fsync is lost from some record on.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let kept = rng.index(self.tail.len() + 1);
        for record in self.tail.drain(..).take(kept) {
            apply(&mut self.durable, &record);
        }
    }
}

fn apply(open: &mut BTreeMap<u64, Intent>, record: &Record) {
    match record {
        Record::Recorded(tx) => {
            if let Some(intent) = open.get_mut(tx) {
                intent.action = IntentAction::Recorded;
                intent.new = None;
                intent.from = None;
            }
        }
        Record::Done(tx) => {
            open.remove(tx);
        }
    }
}
