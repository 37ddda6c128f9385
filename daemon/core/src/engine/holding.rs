//! Locks that this device's user wants or has: from the command to the ledger, and back to the voters (locks.md 3).
//!
//! The voters are asked by the [`LockManager`]. What they granted is recorded once everything that they know of it is here,
//! in the ledger and on the disk (the *quorum read*): who holds a lock has the newest version. A lock is released after
//! what its user changed last was looked for and published, so whoever holds it next has that.

mod ending;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::words::{LockCommand, LockReply, LockReport};
use super::sync::Asked;
use super::{CommandError, CommandId, LookNo, Output, Phase, Reply, Request, StateView, SyncEngine};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::ledger::{EndReason, EventKind, Item, LockEnd, LockGrant, LogState, MAX_NOTE};
use crate::lock::{
    AskNo, Certificate, Electorate, LockError, LockManager, LockNo, LockOutput, Resource, Voted, Wanted,
};
use crate::time::{BootInstant, Now};

/// How long what is missing here is waited for, after the voters granted a lock.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the event of a lock is waited for that a voter has told of.
const HEAR_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change that is about to be published is waited for, before its lock is released.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Holding {
    manager: LockManager,
    wishes: BTreeMap<LockNo, Wish>,
    /// This device's locks, by the items that granted them.
    own: BTreeMap<Dot, LockNo>,
    /// Locks to be released once their paths were looked at.
    ending: BTreeMap<Dot, Ending>,
    /// When locks are to be released because their time is over.
    expires: BTreeMap<Dot, BootInstant>,
    /// Who was refused because of a lock that the ledger does not show here yet, and how long to wait for it.
    refused: Vec<(CommandId, LockError, BootInstant)>,
    looks: u64,
    /// The set of voters that the manager knows.
    voters: [u8; 32],
}

/// A lock that was asked for.
#[derive(Debug)]
struct Wish {
    command: CommandId,
    resource: Resource,
    until_ms: Option<u64>,
    note: String,
    granted: Option<Granted>,
    /// The item that granted it, once it is in the ledger.
    place: Option<Dot>,
}

/// What the voters said, until all that they have is here.
#[derive(Debug)]
struct Granted {
    certificate: Certificate,
    has: BTreeMap<ShortId, u64>,
    until: BootInstant,
}

#[derive(Debug)]
struct Ending {
    command: Option<CommandId>,
    look: LookNo,
    is_looked: bool,
    until: BootInstant,
    /// What it was, once its end is in the ledger.
    report: Option<LockReport>,
}

impl Holding {
    pub(super) const fn new(me: DeviceId) -> Self {
        Self {
            manager: LockManager::new(me),
            wishes: BTreeMap::new(),
            own: BTreeMap::new(),
            ending: BTreeMap::new(),
            expires: BTreeMap::new(),
            refused: Vec::new(),
            looks: 0,
            voters: [0; 32],
        }
    }

    pub(super) fn deadline(&self) -> Option<(BootInstant, &'static str)> {
        let reading = self.wishes.values().filter_map(|wish| wish.granted.as_ref());
        let reading = reading.map(|granted| granted.until);
        let ending = self.ending.values().filter(|ending| ending.report.is_none());
        let ending = ending.map(|ending| ending.until);
        let refused = self.refused.iter().map(|(.., until)| *until);
        let asked = self.manager.poll_timeout().into_iter().chain(refused);
        let all = reading
            .chain(ending)
            .chain(self.expires.values().copied())
            .chain(asked);
        all.min().map(|at| (at, "go on with locks"))
    }
}

impl SyncEngine {
    /// Takes a command about locks; one that is done at once is answered.
    pub(super) fn lock_command(
        &mut self,
        id: CommandId,
        command: LockCommand,
        now: Now,
        view: &impl StateView,
    ) {
        let reply = match command {
            LockCommand::List => self.list_locks(now, view).map(Some),
            LockCommand::Acquire {
                resource,
                until_ms,
                note,
                wait,
            } => {
                let wish = Wish {
                    command: id,
                    resource,
                    until_ms,
                    note,
                    granted: None,
                    place: None,
                };
                self.acquire_lock(wish, wait, now, view)
            }
            LockCommand::Release { resource } => self.release_lock(id, &resource, now, view).map(|()| None),
            LockCommand::Break { resource, reason } => {
                self.break_lock(&resource, reason, now, view).map(Some)
            }
            LockCommand::SetVoters { voters, is_forced } => {
                self.set_voters(id, voters, is_forced, now).map(|()| None)
            }
            LockCommand::ListVoters => self.voters_report().map(LockReply::Voters).map(Some),
        };
        match reply {
            Ok(None) => {}
            Ok(Some(reply)) => self.reply_lock(id, Ok(reply)),
            Err(error) => self.reply_lock(id, Err(error)),
        }
    }

    pub(super) fn reply_lock(&mut self, id: CommandId, reply: Result<LockReply, CommandError>) {
        let reply = reply.map(|reply| Reply::Lock(Box::new(reply)));
        self.emit(Output::Reply { id, reply });
    }

    /// Takes up this device's locks after a start.
    pub(super) fn start_holding(&mut self, now: Now, view: &impl StateView) {
        self.meet_voters(now);
        for grant in self.held_locks(view) {
            if grant.holder != self.me || !grant.item.durable {
                continue;
            }
            let claim = grant.item.certificate(self.me).claim;
            let electorate = self.electorate();
            let lock = self.holding.manager.resume(claim, electorate, now.boot);
            self.holding.own.insert(grant.place, lock);
            self.note_expiry(grant.place, grant.item.until_ms, now);
        }
    }

    /// Answers who waits for a lock, since the group is left.
    pub(super) fn forget_holding(&mut self) {
        let left = std::mem::replace(&mut self.holding, Holding::new(self.me));
        let wishes = left.wishes.into_values().map(|wish| wish.command);
        let ending = left.ending.into_values().filter_map(|ending| ending.command);
        let refused = left.refused.into_iter().map(|(command, ..)| command);
        for command in wishes.chain(ending).chain(refused).collect::<Vec<_>>() {
            self.reply_lock(command, Err(CommandError::NoGroup));
        }
    }

    /// Forgets this device's part in a lock that the ledger shows to be over.
    pub(super) fn forget_lock(&mut self, place: Dot) {
        self.holding.expires.remove(&place);
        if self.holding.ending.contains_key(&place) {
            return;
        }
        let Some(lock) = self.holding.own.remove(&place) else {
            return;
        };
        self.holding.manager.forget(lock);
        if let Some(wish) = self.holding.wishes.remove(&lock) {
            self.reply_lock(wish.command, Err(CommandError::Lock(LockError::Lapsed)));
        }
    }

    fn acquire_lock(
        &mut self,
        wish: Wish,
        wait: Duration,
        now: Now,
        view: &impl StateView,
    ) -> Result<Option<LockReply>, CommandError> {
        self.may_hold()?;
        let resource = wish.resource.clone();
        if wish.note.len() > MAX_NOTE {
            return Err(CommandError::Invalid("A note has at most 1024 bytes"));
        }
        if wish.until_ms.is_some_and(|until| until <= now.wall_ms) {
            return Err(CommandError::Invalid("That time is over"));
        }
        if !self.may_lock(&self.me, std::slice::from_ref(&resource)) {
            return Err(CommandError::NotAllowed);
        }
        let is_dir = self
            .want(resource.path(), view)
            .is_some_and(|want| want.entry.node.is_dir());
        if is_dir && !resource.is_subtree() {
            return Err(CommandError::Invalid(
                "That is a directory; to lock all that is in it, put a slash behind its name",
            ));
        }
        let mut overlapping = self.reports(now, view);
        overlapping.retain(|lock| lock.resources.iter().any(|other| other.overlaps(&resource)));
        if let Some(own) = overlapping
            .iter()
            .find(|lock| lock.is_own && lock.resources == [resource.clone()])
        {
            return Ok(Some(LockReply::Held(own.clone())));
        }
        if let Some(own) = overlapping.iter().find(|lock| lock.is_own) {
            return Err(CommandError::Locked(Box::new(own.clone())));
        }
        if let Some(other) = overlapping.into_iter().next().filter(|_| wait.is_zero()) {
            return Err(CommandError::Locked(Box::new(other)));
        }
        let wanted = Wanted {
            resources: vec![resource],
            durable: true,
            wait_until: (!wait.is_zero()).then(|| now.boot.after(wait)),
        };
        let electorate = self.electorate();
        let (random, manager) = (&mut self.random, &mut self.holding.manager);
        let lock = manager.acquire_lock(wanted, electorate, now.boot, &mut || random.bytes16());
        self.holding.wishes.insert(lock, wish);
        Ok(None)
    }

    fn list_locks(&self, now: Now, view: &impl StateView) -> Result<LockReply, CommandError> {
        let voters = self.voters_report()?.voters;
        let mut locks = self.reports(now, view);
        locks.sort_by(|a, b| a.resources.cmp(&b.resources));
        Ok(LockReply::List { locks, voters })
    }

    /// Says why this device can hold no locks now.
    fn may_hold(&self) -> Result<(), CommandError> {
        if self.group.is_none() || self.phase == Phase::Removed {
            return Err(CommandError::NoGroup);
        }
        if self.phase == Phase::CatchingUp {
            return Err(CommandError::CatchingUp);
        }
        if self.own_events_missing() > 0 {
            return Err(CommandError::OwnEventsMissing);
        }
        Ok(())
    }

    fn electorate(&self) -> Electorate {
        let group = self.group.as_ref();
        let epoch = group.map_or(0, |group| group.epoch());
        Electorate {
            group: group.map_or(crate::ids::GroupId::new([0; 32]), |group| group.id),
            epoch,
            voters: group.and_then(|group| group.voters(epoch)).unwrap_or_default(),
            highest: self.locks.highest(epoch),
        }
    }

    pub(super) fn reports(&self, now: Now, view: &impl StateView) -> Vec<LockReport> {
        let grants = self.held_locks(view).into_iter();
        let report = |grant: super::locks::Grant| {
            let own = self.holding.own.get(&grant.place);
            LockReport {
                place: grant.place,
                resources: grant.item.resources,
                holder: grant.holder,
                token: grant.item.token,
                durable: grant.item.durable,
                since_ms: grant.hlc.wall_ms(),
                until_ms: grant.item.until_ms,
                note: grant.item.note,
                is_own: grant.holder == self.me,
                is_confirmed: own.is_some_and(|lock| self.holding.manager.holds(*lock, now.boot)),
            }
        };
        grants.map(report).collect()
    }

    fn note_expiry(&mut self, place: Dot, until_ms: Option<u64>, now: Now) {
        if let Some(until) = until_ms {
            let left = Duration::from_millis(until.saturating_sub(now.wall_ms));
            self.holding.expires.insert(place, now.boot.after(left));
        }
    }

    /// A voter answered, or the question failed.
    pub(super) fn vote_answered(&mut self, ask: AskNo, voted: Option<Voted>, now: Now) {
        let (random, manager) = (&mut self.random, &mut self.holding.manager);
        manager.handle_answer(ask, voted, now.boot, &mut || random.bytes16());
    }

    pub(super) fn holding_timeout(&mut self, now: Now, view: &impl StateView) {
        let (random, manager) = (&mut self.random, &mut self.holding.manager);
        manager.handle_timeout(now.boot, &mut || random.bytes16());
        if self.may_hold().is_err() {
            // Nothing may be published now; what is over waits.
            let later = now.boot.after(PUBLISH_TIMEOUT);
            self.holding
                .expires
                .values_mut()
                .for_each(|at| *at = later.max(*at));
            return;
        }
        let over = self.holding.expires.extract_if(.., |_, at| *at <= now.boot);
        let over: Vec<Dot> = over.map(|(place, _)| place).collect();
        let locks = if over.is_empty() {
            Vec::new()
        } else {
            self.reports(now, view)
        };
        for lock in locks {
            if over.contains(&lock.place) && !self.holding.ending.contains_key(&lock.place) {
                self.look_and_release(&lock, None, now);
            }
        }
    }

    /// Goes on with locks as far as it goes.
    pub(super) fn hold(&mut self, now: Now, view: &impl StateView) {
        self.meet_voters(now);
        loop {
            self.record_granted(now, view);
            self.end_looked(now, view);
            self.tell_refused(now, view);
            let Some(output) = self.holding.manager.poll_output() else {
                return;
            };
            self.take_lock_output(output, now, view);
        }
    }

    /// Tells the manager of other voters.
    fn meet_voters(&mut self, now: Now) {
        let group = self.group.as_ref();
        let voters = group.and_then(|group| group.epoch_at(group.epoch()));
        if let Some(set) = voters.map(|voters| voters.set)
            && std::mem::replace(&mut self.holding.voters, set) != set
        {
            let electorate = self.electorate();
            self.holding.manager.replace_voters(&electorate, now.boot);
        }
    }

    fn take_lock_output(&mut self, output: LockOutput, now: Now, view: &impl StateView) {
        match output {
            LockOutput::Ask { voter, ask, request } if voter == self.me => {
                let voted = self.vote(&voter, &request, now, view);
                self.vote_answered(ask, Some(voted), now);
            }
            LockOutput::Ask { voter, ask, request } => {
                if self.peers.get(&voter).is_some() {
                    self.ask(voter, Asked::Lock(ask), Request::Lock(request));
                } else {
                    self.vote_answered(ask, None, now);
                }
            }
            LockOutput::Granted {
                lock,
                certificate,
                has,
            } => self.lock_granted(lock, certificate, has, now),
            LockOutput::Held { lock } => self.lock_held(lock, now, view),
            LockOutput::Failed { lock, error } => self.lock_failed(lock, error, now, view),
            LockOutput::Released { lock, by_majority } => self.lock_released(lock, by_majority),
        }
    }

    fn lock_granted(
        &mut self,
        lock: LockNo,
        certificate: Certificate,
        has: BTreeMap<ShortId, u64>,
        now: Now,
    ) {
        let until = now.boot.after(READ_TIMEOUT);
        let until = self
            .holding
            .manager
            .granted_until(lock)
            .map_or(until, |at| at.min(until));
        let voters: Vec<DeviceId> = certificate.votes.iter().map(|vote| vote.voter).collect();
        if self.missing(&has).is_some() {
            voters.into_iter().for_each(|voter| self.ask_heads(voter));
        }
        if let Some(wish) = self.holding.wishes.get_mut(&lock) {
            wish.granted = Some(Granted {
                certificate,
                has,
                until,
            });
        }
    }

    /// Returns a device of whose log something is missing here that a voter has.
    fn missing(&self, has: &BTreeMap<ShortId, u64>) -> Option<ShortId> {
        let size = |log: &ShortId| self.logs.get(log).map_or(0, LogState::size);
        let lacking = has.iter().find(|(log, wanted)| size(log) < **wanted);
        lacking.map(|(log, _)| *log)
    }

    /// Records the locks for which everything is here that the voters have of them, or gives them up.
    fn record_granted(&mut self, now: Now, view: &impl StateView) {
        let open = self
            .holding
            .wishes
            .iter()
            .filter(|(_, wish)| wish.granted.is_some());
        let open: Vec<LockNo> = open.map(|(lock, _)| *lock).collect();
        for lock in open {
            let Some(wish) = self.holding.wishes.get(&lock) else {
                continue;
            };
            let Some(granted) = &wish.granted else { continue };
            let behind = match self.missing(&granted.has) {
                Some(log) => Some(self.group.as_ref().and_then(|group| group.device(log))),
                None => self.not_here(&wish.resource, view),
            };
            match behind {
                None if self.may_hold().is_err() => {}
                None => self.record_lock(lock, now, view),
                Some(device) if now.boot >= granted.until => {
                    if let Some(wish) = self.holding.wishes.get_mut(&lock) {
                        wish.granted = None;
                    }
                    let error = LockError::Behind { device };
                    self.holding.manager.release_lock(lock, 0, Some(error), now.boot);
                }
                Some(_) => {}
            }
        }
    }

    /// Says whether what is locked does not stand in the folder as the ledger says; the inner value is who wrote what is
    /// missing, if that is known.
    fn not_here(&self, resource: &Resource, view: &impl StateView) -> Option<Option<DeviceId>> {
        if self.local.waits_in(resource) {
            return Some(Some(self.me));
        }
        let path = self.work.needed_in(resource)?;
        let state = self.pending.path_state(view, &path).unwrap_or_default();
        let author = state
            .winner()
            .and_then(|winner| self.logs.get(&winner.dot.device));
        Some(author.map(|log| log.author))
    }

    fn record_lock(&mut self, lock: LockNo, now: Now, view: &impl StateView) {
        let Some(wish) = self.holding.wishes.get_mut(&lock) else {
            return;
        };
        let Some(granted) = wish.granted.take() else {
            return;
        };
        let Certificate { claim, votes } = granted.certificate;
        let until_ms = wish.until_ms;
        let item = Item::LockGrant(LockGrant {
            token: claim.token,
            nonce: claim.nonce,
            ttl: claim.ttl,
            durable: claim.durable,
            resources: claim.resources,
            votes,
            until_ms,
            note: wish.note.clone(),
        });
        let log = self.own_log();
        let place = Dot {
            device: log.name,
            seq: log.size(),
            item: 0,
        };
        if let Some(wish) = self.holding.wishes.get_mut(&lock) {
            wish.place = Some(place);
        }
        self.holding.own.insert(place, lock);
        self.note_expiry(place, until_ms, now);
        self.publish(EventKind::Work, vec![item], now, view);
        self.holding.manager.recorded(lock, now.boot);
    }

    fn lock_held(&mut self, lock: LockNo, now: Now, view: &impl StateView) {
        let Some(wish) = self.holding.wishes.remove(&lock) else {
            return;
        };
        let report = self
            .reports(now, view)
            .into_iter()
            .find(|report| Some(report.place) == wish.place);
        let reply = report
            .map(LockReply::Held)
            .ok_or(CommandError::Lock(LockError::Lapsed));
        self.reply_lock(wish.command, reply);
    }

    fn lock_failed(&mut self, lock: LockNo, error: LockError, now: Now, view: &impl StateView) {
        let Some(wish) = self.holding.wishes.remove(&lock) else {
            return;
        };
        if let Some(place) = wish.place.filter(|_| self.may_hold().is_ok()) {
            // The ledger shows it, though the voters do not keep it: others need not wait for it.
            self.holding.own.remove(&place);
            self.publish_end(place, now, view);
        }
        let until = match &error {
            LockError::Busy { .. } => now.boot.after(HEAR_TIMEOUT),
            _ => now.boot,
        };
        self.holding.refused.push((wish.command, error, until));
    }

    /// Answers those who were refused, once the lock in their way is known: who holds it, since when, and what for.
    fn tell_refused(&mut self, now: Now, view: &impl StateView) {
        if self.holding.refused.is_empty() {
            return;
        }
        let reports = self.reports(now, view);
        for (command, error, until) in std::mem::take(&mut self.holding.refused) {
            let known = match &error {
                LockError::Busy { token, .. } => reports.iter().find(|lock| lock.token == *token),
                _ => None,
            };
            let error = match known {
                Some(lock) => CommandError::Locked(Box::new(lock.clone())),
                None if now.boot < until => {
                    self.holding.refused.push((command, error, until));
                    continue;
                }
                None => CommandError::Lock(error),
            };
            self.reply_lock(command, Err(error));
        }
    }

    fn publish_end(&mut self, grant: Dot, now: Now, view: &impl StateView) {
        let end = Item::LockEnd(LockEnd {
            grant,
            reason: EndReason::Released,
        });
        self.publish(EventKind::Work, vec![end], now, view);
    }

    fn lock_released(&mut self, lock: LockNo, by_majority: bool) {
        let place = self.holding.own.iter().find(|(_, own)| **own == lock);
        let Some(place) = place.map(|(place, _)| *place) else {
            return;
        };
        self.holding.own.remove(&place);
        if let Some(wish) = self.holding.wishes.remove(&lock) {
            self.reply_lock(wish.command, Err(CommandError::Lock(LockError::Lapsed)));
        }
        let Some(ending) = self.holding.ending.remove(&place) else {
            return;
        };
        if let (Some(id), Some(lock)) = (ending.command, ending.report) {
            self.reply_lock(id, Ok(LockReply::Ended { lock, by_majority }));
        }
    }
}
