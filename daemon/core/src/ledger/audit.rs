//! Checking a stored ledger again, from its bytes.
//!
//! The auditor is shown every event in the order in which it arrived, and at the end what the store believes of each
//! log. It keeps the end of each log and who was admitted, so its memory does not grow with the ledger, but for what members
//! had seen that was not here. One damaged event is one finding, or a few about that event: the logs are followed through
//! the column that still fits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{EventError, EventKind, Header, Seen, SignedEvent, VerifiedEvent};
use super::item::Item;
use super::log::{Left, LogError, LogState};
use crate::ids::{DeviceId, EventId, GroupId, ShortId};
use crate::merkle::{self, Peaks};
use crate::time::Hlc;

/// Events that were said to have been seen and are not here that are remembered; the others are faults at once.
const MAX_UNSEEN: usize = 100_000;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Headers: ids, the chain of each log, and how long it is.
    Fast,
    /// Everything: signatures, bodies, what was seen, who was admitted.
    Full,
}

/// An event as a store holds it, before anything is believed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The column of the author's short id.
    pub short: Vec<u8>,
    /// The column of the author.
    pub author: Vec<u8>,
    /// The column of the place in the log.
    pub seq: u64,
    /// The column of the kind.
    pub kind: i64,
    /// The column of the id.
    pub id: Vec<u8>,
    /// The header's bytes.
    pub header: Arc<[u8]>,
    /// The signature's bytes; looked at in [`Depth::Full`].
    pub signature: Vec<u8>,
    /// The body's bytes; looked at in [`Depth::Full`].
    pub body: Arc<[u8]>,
}

/// What is wrong with an event, or with a log.
#[derive(Debug)]
pub struct Fault {
    /// Whose log, by the store's column.
    pub device: ShortId,
    /// Which event, by the store's column; for a log: its size.
    pub seq: u64,
    /// What is wrong.
    pub what: Wrong,
}

/// See [`Fault`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// The bytes are no event of this group.
    #[error("the event does not verify")]
    Event(#[from] EventError),
    /// A column does not say what the event says.
    #[error("the stored {0} is not the event's")]
    Column(&'static str),
    /// The event does not continue its log.
    #[error("the event does not fit to its log")]
    Log(#[from] LogError),
    /// Events are not there.
    #[error("{0} events before it are missing")]
    Missing(u64),
    /// A place in the log is taken already.
    #[error("its place in the log is taken already")]
    Twice,
    /// It has seen an event that is not here, though it should be.
    #[error("it has seen event {seq} of {device}, which is missing")]
    SeenMissing {
        /// Whose.
        device: ShortId,
        /// Which.
        seq: u64,
    },
    /// It has seen another event than the one that is here.
    #[error("it has seen another event {seq} of {device} than the one that is here")]
    SeenOther {
        /// Whose.
        device: ShortId,
        /// Which.
        seq: u64,
    },
    /// Its clock is not after that of what it has seen.
    #[error("its clock is not after that of event {seq} of {device}, which it has seen")]
    SeenLater {
        /// Whose.
        device: ShortId,
        /// Which.
        seq: u64,
    },
    /// The ledger does not begin with the Genesis event of the group.
    #[error("the ledger does not begin with the event that founds the group")]
    NotFounded,
    /// There is a second Genesis event.
    #[error("the event founds a second group")]
    SecondGenesis,
    /// Nobody granted its author anything before it.
    #[error("no grant for its author arrived before it")]
    NotAdmitted,
    /// What is stored of the log is not what its events say.
    #[error("what is stored of the log's end is not what its events say")]
    LogEnd,
}

/// See the module.
#[derive(Debug)]
pub struct Audit {
    group: GroupId,
    depth: Depth,
    logs: BTreeMap<ShortId, Followed>,
    /// The branches there are, with their authors, and what each begins with, once the log that it left was followed so far.
    branches: BTreeMap<ShortId, (DeviceId, Left)>,
    begun: BTreeMap<ShortId, LogState>,
    admitted: BTreeSet<DeviceId>,
    /// What members say they had and was not here, with the event that said so first.
    unseen: BTreeMap<Unseen, (ShortId, u64, Hlc)>,
    events: u64,
}

/// A device, how many events of it, and how the id of the last begins.
type Unseen = (ShortId, u64, [u8; 16]);

/// A log as far as it was shown.
#[derive(Debug)]
struct Followed {
    state: LogState,
    /// Its chain has been found broken: nothing more follows from its tree.
    broken: bool,
}

/// What is believed of a row once its columns were compared with its bytes.
struct Believed {
    short: ShortId,
    seq: u64,
    id: EventId,
    /// The header, if the row's bytes are those that the id names.
    header: Option<Header>,
}

impl Audit {
    /// Begins the audit of a group's ledger.
    #[must_use]
    pub const fn new(group: GroupId, depth: Depth) -> Self {
        Self {
            group,
            depth,
            logs: BTreeMap::new(),
            branches: BTreeMap::new(),
            begun: BTreeMap::new(),
            admitted: BTreeSet::new(),
            unseen: BTreeMap::new(),
            events: 0,
        }
    }

    /// Says what logs the store has: a branch can be followed if it is named before its first event is shown, and before the
    /// log that it left has passed that place.
    pub fn expect(&mut self, stored: &BTreeMap<ShortId, Option<LogState>>) {
        for (name, log) in stored {
            if let Some(log) = log
                && let Some(left) = log.left
            {
                self.branches.insert(*name, (log.author, left));
            }
        }
    }

    /// Returns how many events were shown.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Returns how many logs were shown.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.logs.len()
    }

    /// Looks at the next event. `stored` returns id and clock of an event that was shown before, from its bytes.
    pub fn event(
        &mut self,
        row: &Row,
        mut stored: impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
    ) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let verified = self.verify(row, &mut wrong);
        let believed = self.believe(row, verified.is_some(), &mut wrong);
        if let Some(header) = &believed.header
            && self.depth == Depth::Full
        {
            for seen in &header.seen {
                match self.check_seen(seen, header.hlc, &mut stored) {
                    // Whether it should be here is known at the end.
                    Some(Wrong::SeenMissing { .. } | Wrong::SeenOther { .. })
                        if self.unseen.len() < MAX_UNSEEN =>
                    {
                        let key = (seen.device, seen.next_seq, seen.id16);
                        let by = (short_of(row), row.seq, header.hlc);
                        self.unseen.entry(key).or_insert(by);
                    }
                    found => wrong.extend(found),
                }
            }
        }
        if self.depth == Depth::Full {
            self.check_membership(verified.as_ref(), &believed, &mut wrong);
        }
        self.follow(&believed, &mut stored, &mut wrong);
        self.events += 1;
        let (device, seq) = (short_of(row), row.seq);
        let faults = wrong.into_iter().map(|what| Fault { device, seq, what });
        faults.collect()
    }

    /// Looks for what members had and was not here when they said so; `taken` says how many events of a log are taken: of
    /// whom was removed not all, and his log may have gone on where he was admitted again. `stored` as for [`Self::event`].
    pub fn finish_seen(
        &self,
        taken: impl Fn(ShortId) -> u64,
        mut stored: impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        for ((author, next_seq, id16), (device, seq, hlc)) in &self.unseen {
            let seen = Seen {
                device: *author,
                next_seq: *next_seq,
                id16: *id16,
            };
            let limit = self.logs_of(*author).map(&taken).max().unwrap_or(0);
            let excused = |what: &Wrong| match what {
                Wrong::SeenMissing { .. } => *next_seq > limit,
                // No further branch of his is taken either.
                Wrong::SeenOther { .. } => limit < u64::MAX,
                _ => false,
            };
            if let Some(what) = self
                .check_seen(&seen, *hlc, &mut stored)
                .filter(|what| !excused(what))
            {
                let (device, seq) = (*device, *seq);
                faults.push(Fault { device, seq, what });
            }
        }
        faults
    }

    /// Looks at what the store believes of the logs; `None`: it cannot be read.
    #[must_use]
    pub fn finish(&self, stored: &BTreeMap<ShortId, Option<LogState>>) -> Vec<Fault> {
        let devices: BTreeSet<ShortId> = self.logs.keys().chain(stored.keys()).copied().collect();
        let mut faults = Vec::new();
        if self.events == 0 {
            let device = ShortId::new([0; ShortId::LEN]);
            let what = Wrong::NotFounded;
            faults.push(Fault { device, seq: 0, what });
        }
        for device in devices {
            let followed = self.logs.get(&device);
            let believed = stored.get(&device).and_then(Option::as_ref);
            let same = match (followed, believed) {
                (Some(followed), Some(state)) if followed.broken => followed.state.size() == state.size(),
                (Some(followed), Some(state)) => followed.state == *state,
                _ => false,
            };
            if !same {
                let seq = followed.map_or(0, |followed| followed.state.size());
                let what = Wrong::LogEnd;
                faults.push(Fault { device, seq, what });
            }
        }
        faults
    }

    fn verify(&self, row: &Row, wrong: &mut Vec<Wrong>) -> Option<VerifiedEvent> {
        if self.depth == Depth::Fast {
            return None;
        }
        let Ok(signature) = <[u8; 64]>::try_from(&row.signature[..]) else {
            wrong.push(EventError::Signature.into());
            return None;
        };
        let event = SignedEvent {
            header: Arc::clone(&row.header),
            signature,
            body: Arc::clone(&row.body),
        };
        event
            .verify(&self.group)
            .map_err(|error| wrong.push(error.into()))
            .ok()
    }

    fn check_seen(
        &self,
        seen: &Seen,
        hlc: Hlc,
        stored: &mut impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
    ) -> Option<Wrong> {
        let (device, seq) = (seen.device, seen.next_seq.saturating_sub(1));
        let branches = self.logs_of(device).filter(|name| {
            let log = self.logs.get(name);
            log.is_some_and(|log| log.state.size() >= seen.next_seq)
        });
        let mut nearest = Wrong::SeenMissing { device, seq };
        for name in branches.collect::<Vec<_>>() {
            match self.known_at(name, seen.next_seq, stored) {
                None => {}
                Some((id, _)) if id.id16() != seen.id16 => nearest = Wrong::SeenOther { device, seq },
                Some((_, clock)) if clock >= hlc => return Some(Wrong::SeenLater { device, seq }),
                Some(_) => return None,
            }
        }
        Some(nearest)
    }

    /// Returns the names of a device's logs.
    fn logs_of(&self, device: ShortId) -> impl Iterator<Item = ShortId> {
        let further = self.branches.iter();
        let further = further.filter(move |(_, (author, _))| author.short() == device);
        std::iter::once(device).chain(further.map(|(name, _)| *name))
    }

    /// Returns id and clock of the last of the first `size` events of a log.
    fn known_at(
        &self,
        log: ShortId,
        size: u64,
        stored: &mut impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
    ) -> Option<(EventId, Hlc)> {
        let state = &self.logs.get(&log)?.state;
        if state.size() == size {
            return Some((state.last_id, state.hlc));
        }
        stored(self.holder(log, size), size - 1)
    }

    /// Returns what an event's author had of each log, with the names of the logs in the store.
    fn local_seen(
        &self,
        header: &Header,
        stored: &mut impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
    ) -> Vec<(ShortId, u64)> {
        if self.branches.is_empty() {
            return header
                .seen
                .iter()
                .map(|seen| (seen.device, seen.next_seq))
                .collect();
        }
        let mut local = |seen: &Seen| {
            let is_it = |name: &ShortId| {
                let last = self.known_at(*name, seen.next_seq, stored);
                last.is_some_and(|(id, _)| id.id16() == seen.id16)
            };
            let log = self.logs_of(seen.device).find(is_it);
            (
                self.holder(log.unwrap_or(seen.device), seen.next_seq),
                seen.next_seq,
            )
        };
        header.seen.iter().map(&mut local).collect()
    }

    /// Adds what is shared with the logs that these left.
    fn with_shared(&self, mut seen: Vec<(ShortId, u64)>) -> Vec<(ShortId, u64)> {
        for at in 0..seen.len() {
            let (mut log, mut size) = seen[at];
            while let Some((_, left)) = self.branches.get(&log) {
                (log, size) = (left.log, left.size.min(size));
                seen.push((log, size));
            }
        }
        seen
    }

    /// Returns the log whose own the last of the first `size` events of a log is.
    fn holder(&self, log: ShortId, size: u64) -> ShortId {
        let mut holder = log;
        while let Some((_, left)) = self.branches.get(&holder)
            && size <= left.size
        {
            holder = left.log;
        }
        holder
    }

    /// Returns the name of the log in which an event stands: the store's column if a branch of its author is called so.
    fn name_of(&self, row: &Row, author: DeviceId) -> ShortId {
        let column = short_of(row);
        let branch = self.branches.get(&column);
        if branch.is_some_and(|(device, left)| *device == author && row.seq >= left.size) {
            column
        } else {
            author.short()
        }
    }

    /// Compares columns with bytes. The header is believed if it verifies, or if it is the one that the id names.
    fn believe(&self, row: &Row, verified: bool, wrong: &mut Vec<Wrong>) -> Believed {
        let computed = EventId::new(merkle::leaf_hash(&row.header));
        let named = row.id == computed.as_bytes();
        if !named {
            wrong.push(Wrong::Column("id"));
        }
        let columns = || Believed {
            short: short_of(row),
            seq: row.seq,
            id: EventId::from_slice(&row.id).unwrap_or(computed),
            header: None,
        };
        let header = match Header::from_bytes(&row.header) {
            Ok(header) => header,
            Err(error) => {
                if wrong.iter().all(|w| !matches!(w, Wrong::Event(_))) {
                    wrong.push(error.into());
                }
                return columns();
            }
        };
        if !verified && !named {
            return columns();
        }
        let name = self.name_of(row, header.author);
        let said = [
            ("author's short id", row.short == name.as_bytes()),
            ("author", row.author == header.author.as_bytes()),
            ("place in the log", row.seq == header.seq),
            ("kind", row.kind == i64::from(header.kind.code())),
        ];
        let differing = said.into_iter().filter(|(_, same)| !same);
        wrong.extend(differing.map(|(column, _)| Wrong::Column(column)));
        Believed {
            short: name,
            seq: header.seq,
            id: computed,
            header: Some(header),
        }
    }

    /// Checks that the group was founded first, and that somebody granted the author something.
    fn check_membership(
        &mut self,
        verified: Option<&VerifiedEvent>,
        believed: &Believed,
        wrong: &mut Vec<Wrong>,
    ) {
        let founds = believed.id.as_group() == self.group;
        if self.events == 0 && !founds {
            wrong.push(Wrong::NotFounded);
        }
        let Some(header) = &believed.header else { return };
        if header.kind == EventKind::Genesis {
            if !founds {
                wrong.push(Wrong::SecondGenesis);
                return;
            }
            self.admitted.insert(header.author);
        }
        if !self.admitted.contains(&header.author) {
            wrong.push(Wrong::NotAdmitted);
        }
        if !matches!(header.kind, EventKind::Genesis | EventKind::Admin) {
            return;
        }
        for item in verified.iter().flat_map(|event| &event.body.items) {
            match item {
                Item::Grant(grant) => drop(self.admitted.insert(grant.device)),
                Item::Genesis(genesis) => drop(self.admitted.insert(DeviceId::new(genesis.recovery))),
                _ => {}
            }
        }
    }

    /// Takes the event up as the next of its log.
    fn follow(
        &mut self,
        believed: &Believed,
        stored: &mut impl FnMut(ShortId, u64) -> Option<(EventId, Hlc)>,
        wrong: &mut Vec<Wrong>,
    ) {
        let author = believed.header.as_ref().map(|header| header.author);
        let seen = believed
            .header
            .as_ref()
            .map(|header| self.local_seen(header, stored));
        // Of a removed device's log not all is here.
        let told = believed.header.iter().flat_map(|header| &header.seen);
        let is_here = |((log, size), told): &(&(ShortId, u64), &Seen)| {
            if self.branches.is_empty() {
                return self.logs.get(log).is_some_and(|log| log.state.size() >= *size);
            }
            let last = self.known_at(*log, *size, stored);
            last.is_some_and(|(id, _)| id.id16() == told.id16)
        };
        let known = seen.iter().flatten().zip(told).filter(is_here);
        let known: Vec<(ShortId, u64)> = known.map(|(here, _)| *here).collect();
        let shared = self.with_shared(seen.unwrap_or_default());
        let begun = self.begun.remove(&believed.short);
        let is_branch = self.branches.contains_key(&believed.short);
        let log = self.logs.entry(believed.short).or_insert_with(|| Followed {
            broken: author.is_none() || (is_branch && begun.is_none()),
            state: begun
                .unwrap_or_else(|| LogState::empty(author.unwrap_or(DeviceId::new([0; DeviceId::LEN])))),
        });
        for (name, (_, left)) in &self.branches {
            if left.log == believed.short && left.size == believed.seq && !log.broken {
                let begun = log.state.begin_branch(*name, *left);
                self.begun.insert(*name, begun);
            }
        }
        let size = log.state.size();
        if believed.seq < size {
            wrong.push(Wrong::Twice);
            return;
        }
        if believed.seq > size {
            wrong.push(Wrong::Missing(believed.seq - size));
            log.state.peaks = Peaks::unknown(believed.seq);
            log.broken = true;
        }
        if let (Some(header), false) = (&believed.header, log.broken)
            && let Err(error) = log.state.check_next(header, &known)
        {
            log.broken = error == LogError::PrevRoot;
            wrong.push(error.into());
        }
        log.state.peaks.push(*believed.id.as_bytes());
        log.state.last_id = believed.id;
        if let Some(header) = &believed.header {
            log.state.hlc = header.hlc;
            log.state.note_seen(&shared);
        } else {
            log.broken = true;
        }
    }
}

fn short_of(row: &Row) -> ShortId {
    ShortId::from_slice(&row.short).unwrap_or(ShortId::new([0; ShortId::LEN]))
}

#[cfg(test)]
mod tests;
