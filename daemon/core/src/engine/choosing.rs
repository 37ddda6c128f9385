//! An owner chooses who grants locks: the new voters stand for it, a majority of those before make room, and the ledger says
//! so (locks.md 3, *Reconfiguration*).
//!
//! Who made room grants nothing until the ledger shows the new voters, or until this try is called off; its seal is good for
//! this try only. What is to be called off is a setting, so that a try that a crash cut short is called off, too.

mod asking;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::words::{VoterReport, VotersError, VotersReport};
use super::{CommandError, CommandId, LockReply, StateView, SyncEngine};
use crate::access::Role;
use crate::encoding::{self, Decoder, ShapeError, array_len, array_of, bytes_of, infallible};
use crate::ids::DeviceId;
use crate::ledger::{EventKind, Item, Voters};
use crate::lock::succession::{Next, Seal};
use crate::lock::{Answer, LockError, Nonce, quorum};
use crate::time::{BootInstant, Now};

/// Setting: the sets of voters that come to nothing, with their epoch and those who may be sealed for them:
/// `[[set bstr32, epoch uint, [voter bstr32…]]…]`.
const CHOOSING: &str = "choosing";
/// How long the new voters have, and then those before.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names a question about voters, within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChoiceNo(u64);

/// A set that comes to nothing: who may be sealed for it, and when to tell him.
#[derive(Debug)]
struct CalledOff {
    epoch: u64,
    sealed: BTreeMap<DeviceId, BootInstant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Choosing {
    trying: Option<Try>,
    off: BTreeMap<[u8; 32], CalledOff>,
    asked: BTreeMap<ChoiceNo, (DeviceId, Question)>,
    next: u64,
}

/// What is asked, and of which set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Stand([u8; 32]),
    Seal([u8; 32]),
    Unseal([u8; 32]),
}

/// Voters who are being chosen.
#[derive(Debug)]
struct Try {
    command: CommandId,
    next: Next,
    set: [u8; 32],
    before: Vec<DeviceId>,
    is_forced: bool,
    /// Whether all that are to be voters stand, and those before are asked.
    is_sealing: bool,
    /// Whom to ask, and when.
    due: BTreeMap<DeviceId, BootInstant>,
    stood: BTreeSet<DeviceId>,
    seals: BTreeMap<DeviceId, Seal>,
    /// What each said last that was not a yes.
    refusals: BTreeMap<DeviceId, Answer>,
    until: BootInstant,
}

impl Choosing {
    /// Takes up what was durable.
    pub(super) fn recover(settings: &BTreeMap<String, Vec<u8>>) -> Self {
        let bytes = settings.get(CHOOSING);
        Self {
            off: bytes.and_then(|bytes| read_off(bytes).ok()).unwrap_or_default(),
            ..Self::default()
        }
    }

    pub(super) fn deadline(&self) -> Option<(BootInstant, &'static str)> {
        let trying = self.trying.iter();
        let trying = trying.flat_map(|trying| trying.due.values().chain([&trying.until]));
        let off = self.off.values().flat_map(|off| off.sealed.values());
        trying
            .chain(off)
            .min()
            .map(|at| (*at, "go on with choosing voters"))
    }

    fn to_bytes(&self) -> Option<Vec<u8>> {
        let sealing = self.trying.iter().filter(|trying| trying.is_sealing);
        let sealing = sealing.map(|trying| {
            let before: Vec<&DeviceId> = trying.before.iter().collect();
            (&trying.set, trying.next.epoch - 1, before)
        });
        let off = self.off.iter();
        let off = off.map(|(set, off)| (set, off.epoch, off.sealed.keys().collect()));
        let all: Vec<(&[u8; 32], u64, Vec<&DeviceId>)> = off.chain(sealing).collect();
        let write = |e: &mut encoding::Encoder<'_>| {
            infallible(e.array(all.len() as u64));
            for (set, epoch, voters) in &all {
                infallible(e.array(3));
                infallible(e.bytes(*set));
                infallible(e.u64(*epoch));
                infallible(e.array(voters.len() as u64));
                for voter in voters {
                    infallible(e.bytes(voter.as_bytes()));
                }
            }
        };
        (!all.is_empty()).then(|| encoding::to_vec(write))
    }
}

fn read_off(bytes: &[u8]) -> Result<BTreeMap<[u8; 32], CalledOff>, ShapeError> {
    let d = &mut Decoder::new(bytes);
    let mut off = BTreeMap::new();
    for _ in 0..array_len(d)? {
        array_of(d, 3)?;
        let (set, epoch) = (bytes_of(d)?, d.u64()?);
        let mut sealed = BTreeMap::new();
        for _ in 0..array_len(d)? {
            sealed.insert(DeviceId::new(bytes_of(d)?), BootInstant::default());
        }
        off.insert(set, CalledOff { epoch, sealed });
    }
    Ok(off)
}

impl SyncEngine {
    /// Begins to choose voters.
    pub(super) fn set_voters(
        &mut self,
        id: CommandId,
        mut voters: Vec<DeviceId>,
        is_forced: bool,
        now: Now,
    ) -> Result<(), CommandError> {
        let group = self.group_to_change()?;
        if group.role(&self.me) != Some(Role::Owner) {
            return Err(CommandError::NotAllowed);
        }
        if self.choosing.trying.is_some() {
            return Err(CommandError::Busy);
        }
        voters.sort();
        let (epoch, group_id) = (group.epoch(), group.id);
        let before = group.voters(epoch).unwrap_or_default();
        if !voters.iter().all(|voter| group.is_member(voter)) {
            return Err(CommandError::NoMember);
        }
        if voters == before && !is_forced {
            return Err(CommandError::Voters(VotersError::Same));
        }
        let next = Next {
            epoch: epoch + 1,
            voters,
            owner: self.me,
            nonce: Nonce(self.random.bytes16()),
        };
        if !next.is_well_formed() {
            return Err(CommandError::Voters(VotersError::Count));
        }
        if let Some(device) = next.voters.iter().find(|voter| !self.is_reached(voter)) {
            return Err(CommandError::Voters(VotersError::Unreachable(*device)));
        }
        let reached = before.iter().filter(|voter| self.is_reached(voter)).count();
        let needed = quorum(before.len());
        if reached < needed && !is_forced {
            return Err(CommandError::Lock(LockError::NoQuorum { reached, needed }));
        }
        self.choosing.trying = Some(Try {
            command: id,
            set: next.hash(&group_id),
            before,
            is_forced,
            is_sealing: false,
            due: next.voters.iter().map(|voter| (*voter, now.boot)).collect(),
            next,
            stood: BTreeSet::new(),
            seals: BTreeMap::new(),
            refusals: BTreeMap::new(),
            until: now.boot.after(PATIENCE),
        });
        Ok(())
    }

    /// Returns who grants locks.
    pub(super) fn voters_report(&self) -> Result<VotersReport, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        let number = group.epoch();
        let epoch = group.epoch_at(number).ok_or(CommandError::CatchingUp)?;
        let item = epoch.place.and_then(|place| group.item(place));
        let report = |voter: &DeviceId| VoterReport {
            device: *voter,
            is_reached: self.is_reached(voter),
            is_member: group.is_member(voter),
        };
        Ok(VotersReport {
            epoch: number,
            voters: epoch.voters.iter().map(report).collect(),
            chosen_by: epoch.place.and_then(|place| group.device(place.device)),
            is_forced: matches!(item, Some(Item::Voters(voters)) if voters.seals.is_none()),
        })
    }

    pub(super) fn is_reached(&self, device: &DeviceId) -> bool {
        *device == self.me || self.peers.get(device).is_some()
    }

    /// Answers who waits for new voters, since the group is left.
    pub(super) fn forget_choosing(&mut self) {
        if let Some(trying) = std::mem::take(&mut self.choosing).trying {
            self.reply_lock(trying.command, Err(CommandError::NoGroup));
        }
    }

    /// Goes on with choosing voters as far as it goes.
    pub(super) fn choose(&mut self, now: Now, view: &impl StateView) {
        self.call_off(now, view);
        while self.ask_due(now, view) {}
        let Some(trying) = &self.choosing.trying else {
            return;
        };
        let stands = trying
            .next
            .voters
            .iter()
            .all(|voter| trying.stood.contains(voter));
        let is_sealed = trying.seals.len() >= quorum(trying.before.len());
        let still = self.group_to_change();
        let is_next = still.is_ok_and(|group| group.epoch() + 1 == trying.next.epoch);
        if !is_next {
            self.end_choice(CommandError::Voters(VotersError::Contended), now);
        } else if trying.is_sealing && is_sealed || !trying.is_sealing && stands && trying.is_forced {
            self.publish_voters(now, view);
        } else if !trying.is_sealing && stands {
            self.begin_sealing(now);
            self.choose(now, view);
        } else if now.boot >= trying.until {
            let error = trying.error();
            self.end_choice(error, now);
        }
    }

    fn begin_sealing(&mut self, now: Now) {
        if let Some(trying) = &mut self.choosing.trying {
            trying.is_sealing = true;
            trying.until = now.boot.after(PATIENCE);
            trying.refusals.clear();
            trying.due = trying.before.iter().map(|voter| (*voter, now.boot)).collect();
        }
        self.keep_choosing();
    }

    fn publish_voters(&mut self, now: Now, view: &impl StateView) {
        let Some(trying) = self.choosing.trying.take() else {
            return;
        };
        let seals = trying.is_sealing.then(|| trying.seals.into_values().collect());
        let items = vec![Item::Voters(Voters::new(trying.next.clone(), seals))];
        self.keep_choosing();
        self.publish(EventKind::Admin, items, now, view);
        let follows = self.group.as_ref().is_some_and(|group| {
            let epoch = group.epoch_at(trying.next.epoch);
            epoch.is_some_and(|epoch| epoch.set == trying.set)
        });
        let reply = if follows {
            self.voters_report().map(LockReply::Voters)
        } else {
            Err(CommandError::Voters(VotersError::Contended))
        };
        self.reply_lock(trying.command, reply);
    }

    /// Calls a try off.
    fn end_choice(&mut self, error: CommandError, now: Now) {
        let Some(trying) = self.choosing.trying.take() else {
            return;
        };
        if trying.is_sealing {
            let sealed = trying.before.iter().map(|voter| (*voter, now.boot));
            let off = CalledOff {
                epoch: trying.next.epoch - 1,
                sealed: sealed.collect(),
            };
            self.choosing.off.insert(trying.set, off);
        }
        self.keep_choosing();
        self.reply_lock(trying.command, Err(error));
    }

    fn keep_choosing(&mut self) {
        let bytes = self.choosing.to_bytes();
        self.pending.set_setting(CHOOSING, bytes);
    }
}

impl Try {
    /// Says why it came to nothing in time.
    fn error(&self) -> CommandError {
        let said = |answer: fn(&Answer) -> bool| self.refusals.values().any(answer);
        if !self.is_sealing {
            let missing = self.next.voters.iter().find(|voter| !self.stood.contains(voter));
            let device = missing.copied().unwrap_or(self.next.owner);
            return CommandError::Voters(match self.refusals.get(&device) {
                Some(_) => VotersError::Refused(device),
                None => VotersError::Unreachable(device),
            });
        }
        if said(|answer| matches!(answer, Answer::Sealed { .. })) {
            CommandError::Voters(VotersError::Contended)
        } else if said(|answer| *answer == Answer::Full) {
            CommandError::Voters(VotersError::TooManyLocks)
        } else {
            CommandError::Lock(LockError::NoQuorum {
                reached: self.seals.len(),
                needed: quorum(self.before.len()),
            })
        }
    }
}
