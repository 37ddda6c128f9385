//! Commands about members: giving roles, taking them, names, and what is asked about them; in `recovery` what the recovery
//! key is for.
//!
//! What a command would publish is evaluated first, as all devices will: only what has the wanted outcome is published.

mod persons;
mod recovery;

use std::collections::BTreeSet;

pub use self::recovery::RecoverySecret;
use super::group::{Group, KnownInvite};
use super::{CommandError, Phase, Reply, StateView, SyncEngine};
use crate::access::{GrantFlags, LiveGrant, Role, Scopes};
use crate::ids::{DeviceId, Dot, ShortId};
use crate::ledger::{
    EventKind, Grant, GrantVia, Header, Item, Keep, LogHead, LogState, MAX_NAME, MAX_REASON, Person, Revoke,
};
use crate::merkle::Peaks;
use crate::time::Now;

/// What a Revoke may add when it uncovers others that its device had removed.
const MAX_REISSUED: usize = 256;
/// Locks that one event breaks: with reasons of full length, they fit.
const MAX_BROKEN: usize = 256;

/// A command about members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersCommand {
    /// List the members, and those who were.
    List,
    /// List the invites.
    ListInvites,
    /// Make a member something else.
    ChangeRole {
        /// Who.
        device: DeviceId,
        /// What.
        wanted: Membership,
        /// Whether what it loses is lost for everything that is not known here, even if it has not heard of it.
        at_once: bool,
    },
    /// End memberships.
    Remove {
        /// Whose.
        devices: Vec<DeviceId>,
        /// How.
        how: Removal,
    },
    /// End an invite.
    CancelInvite {
        /// Its public key.
        key: [u8; 32],
    },
    /// Say whose device a member is.
    SetPerson {
        /// Which.
        device: DeviceId,
        /// Whose; `None`: nobody's in particular.
        person: Option<Person>,
    },
    /// Give this device another name.
    Rename {
        /// The name.
        name: String,
    },
    /// Tell the secret of the recovery key, if it is here.
    ShowRecovery,
    /// Erase it: its words are written down.
    ForgetRecovery,
    /// Make this device an owner by the recovery key.
    UseRecovery {
        /// Its secret.
        secret: RecoverySecret,
    },
}

/// What a command about members comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersReply {
    /// The members and those who were, in order of their ids.
    Members(Vec<MemberReport>),
    /// The invites, in order of their keys.
    Invites(Vec<InviteReport>),
    /// These are members no more.
    Removed {
        /// Who.
        devices: Vec<DeviceId>,
        /// Whose removal was said again, since it went with the events of those.
        again: Vec<DeviceId>,
    },
    /// The secret of the recovery key.
    Recovery(RecoverySecret),
}

/// One device that is or was a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// Who.
    pub device: DeviceId,
    /// What it is called; empty if nobody said.
    pub name: String,
    /// Whose device it is, if anybody said.
    pub person: Option<Person>,
    /// Its role; `None`: it is a member no more.
    pub role: Option<Role>,
    /// Where it may write.
    pub scopes: Scopes,
    /// What else it may do.
    pub flags: GrantFlags,
    /// Who gave it that; `None`: it founded the group.
    pub granted_by: Option<DeviceId>,
    /// The newest Revoke that ended a grant of it.
    pub ended_by: Option<Dot>,
    /// Who ended its membership; `None` for a member.
    pub removed_by: Option<DeviceId>,
    /// Why, as was said then; empty for a member.
    pub reason: String,
    /// Events in its log.
    pub events: u64,
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteReport {
    /// Its public key.
    pub key: [u8; 32],
    /// The role it gives.
    pub role: Role,
    /// Where it lets write.
    pub scopes: Scopes,
    /// Whose device it lets in, if it says that.
    pub person: Option<Person>,
    /// Who made it.
    pub by: DeviceId,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// How often it may be redeemed.
    pub max_uses: u32,
    /// How often it was.
    pub uses: u32,
    /// Whether this device could let somebody in with it: nobody ended it, and this device's role is strong enough.
    pub is_open: bool,
}

/// What a device is to be from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its role.
    pub role: Role,
    /// Where it may write.
    pub scopes: Scopes,
    /// What else it may do.
    pub flags: GrantFlags,
}

/// How a device is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removal {
    /// From where on its log does not count any more; `None`: all that is known here goes on to count.
    pub cut: Option<Cut>,
    /// Whether those go, too, whom only it admitted.
    pub with_admitted: bool,
    /// Why, for people.
    pub reason: String,
}

/// From where on a device's log does not count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The event of this number, on each branch.
    Number(u64),
    /// An event. Branches that it is not on count whole.
    Event {
        /// In which log it is stored.
        log: ShortId,
        /// Its number.
        seq: u64,
    },
}

impl SyncEngine {
    /// Takes a command about members.
    pub(super) fn members_command(
        &mut self,
        command: MembersCommand,
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        match command {
            MembersCommand::List => Ok(Reply::Members(MembersReply::Members(self.member_reports()))),
            MembersCommand::ListInvites => Ok(Reply::Members(MembersReply::Invites(self.invite_reports()))),
            MembersCommand::ChangeRole {
                device,
                wanted,
                at_once,
            } => self.change_role(device, &wanted, at_once, now, view),
            MembersCommand::Remove { devices, how } => self.remove_members(&devices, &how, now, view),
            MembersCommand::CancelInvite { key } => self.cancel_invite(key, now, view),
            MembersCommand::SetPerson { device, person } => self.set_person(device, person, now, view),
            MembersCommand::Rename { name } => self.rename(&name, now, view),
            MembersCommand::ShowRecovery => self.show_recovery(),
            MembersCommand::ForgetRecovery => self.forget_recovery(),
            MembersCommand::UseRecovery { secret } => self.use_recovery(&secret, now, view),
        }
    }

    /// Makes a member something else.
    ///
    /// What it loses it loses once it has heard of it, or (`at_once`) for everything that is not known here.
    fn change_role(
        &mut self,
        device: DeviceId,
        wanted: &Membership,
        at_once: bool,
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group_to_manage()?;
        if !group.is_member(&device) {
            return Err(CommandError::NoMember);
        }
        let exceeds = |grant: &LiveGrant| {
            let flags = GrantFlags::bits(grant.flags) & !wanted.flags.bits() != 0;
            grant.role > wanted.role || flags || !grant.scopes.within(&wanted.scopes)
        };
        let lowers = group
            .grants(&device)
            .iter()
            .filter(|grant| grant.is_current())
            .any(exceeds);
        let mut items = Vec::new();
        if lowers {
            let keep = if at_once {
                Keep::Heads(self.heads_of(&device, None, view))
            } else {
                Keep::UntilSeen
            };
            items.push(Item::Revoke(Revoke {
                device,
                keep,
                reason: String::new(),
            }));
        }
        items.push(Item::Grant(Grant {
            device,
            role: wanted.role,
            name: group.name_of(&device).to_owned(),
            via: GrantVia::Author,
            scopes: wanted.scopes.clone(),
            flags: wanted.flags,
            person: None,
        }));
        let outcome = self.imagine(&items, view);
        let mut current = outcome.grants(&device).iter().filter(|grant| grant.is_current());
        if outcome.role(&device) != Some(wanted.role) || current.any(exceeds) {
            return Err(CommandError::Outranked);
        }
        self.publish(EventKind::Admin, items, now, view);
        Ok(Reply::Done)
    }

    /// Ends the membership of devices.
    fn remove_members(
        &mut self,
        devices: &[DeviceId],
        how: &Removal,
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        if how.reason.len() > MAX_REASON {
            return Err(CommandError::Invalid("A reason has at most 1024 bytes"));
        }
        let group = self.group_to_manage()?;
        let mut removed: BTreeSet<DeviceId> = devices.iter().copied().collect();
        if removed.iter().any(|device| !group.has_log_of(device)) {
            return Err(CommandError::NoMember);
        }
        if how.with_admitted {
            add_admitted(group, &mut removed);
        }
        if removed.contains(&self.me) {
            return Err(CommandError::Invalid(
                "A device cannot remove itself; it can leave",
            ));
        }
        let before: BTreeSet<DeviceId> = group.members().map(|(device, ..)| *device).collect();
        let revoke = |device: &DeviceId| {
            Item::Revoke(Revoke {
                device: *device,
                keep: Keep::Heads(self.heads_of(device, how.cut, view)),
                reason: how.reason.clone(),
            })
        };
        let mut items: Vec<Item> = removed.iter().map(revoke).collect();
        let mut reissued = Vec::new();
        let mut outcome = self.imagine(&items, view);
        // With the events of a device its Revokes go; whom it had removed would be back.
        while let Some(back) = came_back(&outcome, &before)
            && reissued.len() < MAX_REISSUED
        {
            let known = self.group.as_ref().and_then(|group| former_revoke(group, &back));
            let Some(again) = known else { break };
            items.push(Item::Revoke(again));
            reissued.push(back);
            outcome = self.imagine(&items, view);
        }
        if removed
            .iter()
            .chain(&reissued)
            .any(|device| outcome.is_member(device))
        {
            return Err(CommandError::Outranked);
        }
        let broken = self.breaks_of(&removed, &how.reason, view);
        for some in broken.chunks(MAX_BROKEN) {
            self.publish(EventKind::Work, some.to_vec(), now, view);
        }
        self.publish(EventKind::Admin, items, now, view);
        Ok(Reply::Members(MembersReply::Removed {
            devices: removed.into_iter().collect(),
            again: reissued,
        }))
    }

    /// Ends an invite.
    fn cancel_invite(
        &mut self,
        key: [u8; 32],
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group_to_change()?;
        let role = group.invite(&key).ok_or(CommandError::NoInvite)?.invite.role;
        let items = vec![Item::Cancel { key }];
        let mine = group.role(&self.me);
        if !mine.is_some_and(|mine| mine.may_give(role)) {
            return Err(if mine >= Some(Role::Admin) {
                CommandError::Outranked
            } else {
                CommandError::NotAllowed
            });
        }
        self.publish(EventKind::Admin, items, now, view);
        Ok(Reply::Done)
    }

    /// Gives this device another name.
    fn rename(&mut self, name: &str, now: Now, view: &impl StateView) -> Result<Reply, CommandError> {
        let group = self.group_to_change()?;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(CommandError::Invalid(
                "A name has 1 to 256 bytes and no control characters",
            ));
        }
        if !group.is_member(&self.me) {
            return Err(CommandError::NotAllowed);
        }
        name.clone_into(&mut self.name);
        self.publish(EventKind::Admin, vec![Item::Name(name.to_owned())], now, view);
        Ok(Reply::Done)
    }

    /// Returns the group, if this device may publish anything about it now.
    pub(super) fn group_to_change(&self) -> Result<&Group, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        if self.own_events_missing() > 0 {
            return Err(CommandError::OwnEventsMissing);
        }
        match self.phase {
            Phase::Removed => return Err(CommandError::NotAllowed),
            Phase::CatchingUp => return Err(CommandError::CatchingUp),
            Phase::NoGroup | Phase::Scanning { .. } | Phase::Running => {}
        }
        Ok(group)
    }

    /// Returns the group, if this device may publish anything about other members now.
    fn group_to_manage(&self) -> Result<&Group, CommandError> {
        let group = self.group_to_change()?;
        if group.role(&self.me) < Some(Role::Admin) {
            return Err(CommandError::NotAllowed);
        }
        Ok(group)
    }

    /// Returns the group as it would be if this device published these items now.
    fn imagine(&self, items: &[Item], view: &impl StateView) -> Group {
        let log = self.next_own_log();
        let group = self.group.as_ref().map(|group| {
            group.imagine(&log, items, |device, head| {
                self.find_head(device, head, &log, view)
            })
        });
        group.unwrap_or_else(|| Group::new(crate::ids::GroupId::new([0; 32])))
    }

    /// Returns this device's log as it will be with its next event, of which only place and past count.
    pub(super) fn next_own_log(&self) -> LogState {
        let own = self.own_log();
        let others = self.logs.iter().filter(|(log, _)| **log != own.name);
        LogState {
            peaks: Peaks::unknown(own.size() + 1),
            seen: others.map(|(short, log)| (*short, log.size())).collect(),
            ..own
        }
    }

    /// Returns what is known of a device's log, or what comes before the cut, on each branch.
    fn heads_of(&self, device: &DeviceId, cut: Option<Cut>, view: &impl StateView) -> Vec<LogHead> {
        let heads = self.logs_of(device.short()).filter_map(|log| {
            let size = match cut {
                Some(Cut::Number(seq)) => seq.min(log.size()),
                Some(Cut::Event { log: holder, seq }) if self.holder(log.name, seq) == holder => {
                    seq.min(log.size())
                }
                Some(Cut::Event { .. }) | None => log.size(),
            };
            let root = if size == log.size() {
                log.peaks.root()
            } else {
                let next = self.event_at(log.name, size, view)?;
                Header::from_bytes(&next.event.header).ok()?.prev_root
            };
            (size > 0).then_some(LogHead { size, root })
        });
        let heads: BTreeSet<LogHead> = heads.collect();
        heads.into_iter().collect()
    }

    /// Returns the members and those who were, for people.
    fn member_reports(&self) -> Vec<MemberReport> {
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let devices = group
            .devices()
            .filter(|device| Some(**device) != group.recovery());
        devices
            .map(|device| {
                let grants = group.grants(device);
                let current: Vec<&LiveGrant> = grants.iter().filter(|grant| grant.is_current()).collect();
                let strongest = current.iter().max_by_key(|grant| grant.role);
                let by = strongest.and_then(|grant| grant.place).map(|place| place.device);
                let ended_by = grants
                    .iter()
                    .flat_map(|grant| grant.ended_by.iter().copied())
                    .max();
                let removed = ended_by.filter(|_| strongest.is_none());
                MemberReport {
                    device: *device,
                    name: group.name_of(device).to_owned(),
                    person: group.person_of(device).cloned(),
                    role: strongest.map(|grant| grant.role),
                    scopes: strongest.map(|grant| grant.scopes.clone()).unwrap_or_default(),
                    flags: strongest.map(|grant| grant.flags).unwrap_or_default(),
                    granted_by: by.and_then(|short| group.device(short)),
                    ended_by,
                    removed_by: removed.and_then(|end| group.device(end.device)),
                    reason: removed.map(|end| reason_of(group, end)).unwrap_or_default(),
                    events: self
                        .logs_of(device.short())
                        .map(LogState::size)
                        .max()
                        .unwrap_or(0),
                }
            })
            .collect()
    }

    /// Returns the invites, for people.
    fn invite_reports(&self) -> Vec<InviteReport> {
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let log = self.next_own_log();
        let report = |known: &KnownInvite| InviteReport {
            key: known.invite.key,
            role: known.invite.role,
            scopes: known.invite.scopes.clone(),
            person: known.invite.person.clone(),
            by: known.by,
            expires_ms: known.invite.expires_ms,
            max_uses: known.invite.max_uses,
            uses: group.uses(&known.invite.key),
            is_open: group.could_admit(&log, &known.invite.key),
        };
        group.invites().map(report).collect()
    }
}

/// Adds the devices all of whose grants were made by devices among these.
fn add_admitted(group: &Group, removed: &mut BTreeSet<DeviceId>) {
    loop {
        let by_removed = |grant: &LiveGrant| {
            let giver = grant.place.and_then(|place| group.device(place.device));
            giver.is_some_and(|giver| removed.contains(&giver) && giver != grant.device)
        };
        let more: Vec<DeviceId> = group
            .members()
            .map(|(device, ..)| *device)
            .filter(|device| !removed.contains(device) && group.grants(device).iter().all(by_removed))
            .collect();
        if more.is_empty() {
            return;
        }
        removed.extend(more);
    }
}

/// Returns a device that is a member now and was none.
fn came_back(outcome: &Group, before: &BTreeSet<DeviceId>) -> Option<DeviceId> {
    let mut members = outcome.members().map(|(device, ..)| *device);
    members.find(|device| !before.contains(device))
}

/// Returns what a Revoke says why.
fn reason_of(group: &Group, end: Dot) -> String {
    match group.item(end) {
        Some(Item::Revoke(revoke)) => revoke.reason.clone(),
        _ => String::new(),
    }
}

/// Returns the newest Revoke that ended a device's grants, to be said again.
fn former_revoke(group: &Group, device: &DeviceId) -> Option<Revoke> {
    let ends = group.grants(device).iter().flat_map(|grant| &grant.ended_by);
    match group.item(*ends.max()?)? {
        Item::Revoke(revoke) => Some(revoke.clone()),
        _ => None,
    }
}
