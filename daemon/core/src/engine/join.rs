//! How a device founds a group or becomes a member of one (ledger.md 4, *Joining*; overview.md D13, D14).
//!
//! A joiner shows that it holds an invite's key, and gets the signed admin events that lead from genesis to its Grant.
//! It then leaves its own group of one, takes the group's ledger, and only then looks at its folder.

mod admit;
mod byname;
mod lan;
mod leave;
mod membership;
mod recovering;
mod removal;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::admit::read_chain;
use self::byname::{Asking, Requests};
pub use self::byname::{JoinRequest, LanDevice, PairCode, PairCommand, PairError, PairReply};
use self::lan::LAN_QUIET;
use super::branches::Branches;
use super::group::{Group, grant_message, nonce_message};
use super::local::JOIN_COUNTS;
use super::locks::Locks;
use super::sync::Asked;
use super::voting::Voting;
use super::{
    Command, CommandError, CommandId, Output, OwnLogSize, PAUSED, Phase, RecoveredInstall, RecoverySecret,
    Redeem, RefuseReason, Reply, Request, RequestFailed, Response, StateView, SyncEngine, member_set,
};
use crate::access::{GrantFlags, Role, Scopes};
use crate::ids::{DeviceId, GroupId};
use crate::ledger::{EventKind, Genesis, Grant, GrantVia, Invite, Item, SignedEvent};
use crate::signature;
use crate::ticket::Ticket;
use crate::time::{BootInstant, Now};

/// Setting: the evaluated group.
pub(super) const GROUP: &str = "group";
/// Setting: present while the folder has not been compared with the group's ledger: after a join, or when another folder
/// was taken for this state ([`COMPARE_NOW`]).
pub const COMPARE: &str = "joining";
/// The value of [`COMPARE`] when the ledger need not be completed first; otherwise it is empty.
pub const COMPARE_NOW: &[u8] = &[1];
/// Setting: devices that showed their way in before their Grant arrived, 32 bytes each.
const PRESENTED: &str = "presented";
/// Setting: addresses to keep dialling, one on a line.
const DIAL: &str = "dial";
/// Setting: the secret half of the recovery key, until its words have been shown.
pub(super) const RECOVERY: &str = "recovery";

/// Setting: the group that this device was made to leave.
const LEFT: &str = "left";

/// How long a join may take before its command fails.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a join goes on after somebody did not know the invite, if the ticket names one device only.
const UNKNOWN_INVITE: Duration = Duration::from_secs(10);
/// Until a device of a ticket is asked again.
const HELLO_AGAIN: Duration = Duration::from_secs(2);
/// Nonces handed out and not redeemed.
const MAX_NONCES: usize = 64;
/// Devices that showed their way in and whose Grant has not arrived.
const MAX_PRESENTED: usize = 64;
/// Addresses that are kept.
const MAX_DIAL: usize = 64;

/// A ticket being redeemed.
#[derive(Debug)]
struct ActiveJoin {
    ticket: Ticket,
    reply: CommandId,
    deadline: BootInstant,
    again: BootInstant,
    refusal: Option<RefuseReason>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Joining {
    pub(super) presented: BTreeSet<DeviceId>,
    nonces: BTreeMap<DeviceId, [u8; 32]>,
    active: Option<ActiveJoin>,
    must_compare: bool,
    /// The ledger is ours already.
    compare_now: bool,
    dial: Vec<String>,
    /// Devices of the local network that would like to share, their groups, and when they were last heard of.
    lan: BTreeMap<DeviceId, (Option<GroupId>, BootInstant)>,
    lan_found_at: Option<BootInstant>,
    lan_asked: bool,
    /// Which of them was asked last, when none had answered for a while.
    lan_last: Option<DeviceId>,
    /// The group that this device was made to leave: it is not drawn into it again unasked.
    left: Option<GroupId>,
    /// A join by name that is under way.
    asking: Option<Asking>,
    /// Devices that ask to be let in.
    pub(super) requests: Requests,
    /// Others showed by these events that this device is a member no more; the own ledger does not say so.
    pub(super) removed: Option<Vec<SignedEvent>>,
    /// The secret of the recovery key, until its words have been shown.
    pub(super) recovery: Option<RecoverySecret>,
}

impl Joining {
    pub(super) fn recover(settings: &BTreeMap<String, Vec<u8>>) -> Self {
        let presented = settings.get(PRESENTED).map(|bytes| {
            bytes
                .chunks_exact(DeviceId::LEN)
                .filter_map(|id| DeviceId::from_slice(id).ok())
                .collect()
        });
        let dial = settings.get(DIAL).map(|bytes| {
            String::from_utf8_lossy(bytes)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        Self {
            presented: presented.unwrap_or_default(),
            dial: dial.unwrap_or_default(),
            must_compare: settings.contains_key(COMPARE),
            compare_now: settings.get(COMPARE).is_some_and(|value| value == COMPARE_NOW),
            removed: removal::shown_before(settings),
            recovery: settings
                .get(RECOVERY)
                .and_then(|bytes| RecoverySecret::from_slice(bytes)),
            left: settings
                .get(LEFT)
                .and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok())
                .map(GroupId::new),
            ..Self::default()
        }
    }

    pub(super) fn deadline(&self) -> Option<(BootInstant, &'static str)> {
        let join = self
            .active
            .as_ref()
            .map(|join| (join.deadline.min(join.again), "join"));
        let lan = self
            .lan_found_at
            .map(|at| (at, "found a group on the local network"));
        let asking = self.asking.as_ref().map(|asking| (asking.due(), "join by name"));
        let lapse = self
            .requests
            .deadline()
            .map(|at| (at, "drop a request to be let in"));
        join.into_iter().chain(lan).chain(asking).chain(lapse).min()
    }
}

impl SyncEngine {
    /// Takes up work where the last run left it.
    pub(super) fn start(&mut self, installs: Vec<RecoveredInstall>, now: Now, view: &impl StateView) {
        for address in self.joining.dial.clone() {
            self.emit(Output::Dial { address });
        }
        if self.group.is_none() {
            if self.trust_lan {
                self.joining.lan_found_at = Some(now.boot.after(LAN_QUIET));
                self.emit(Output::Announce { group: None });
            } else {
                self.found_group(now, view);
            }
            return;
        }
        for install in installs {
            self.recover_install(install, view);
        }
        self.enter_group();
        self.start_voting(now);
        self.start_holding(now, view);
        if self.is_removed() {
            self.phase = Phase::Removed;
            return;
        }
        // Of an old copy even the own admission may be lost: what is found before it is back could not be published.
        let is_member = self.group.as_ref().is_some_and(|group| group.is_member(&self.me));
        if self.joining.must_compare && !(self.joining.compare_now && is_member) {
            self.phase = Phase::CatchingUp;
        } else {
            self.recover_needs(view);
            self.scan(self.joining.must_compare);
        }
    }

    fn scan(&mut self, joining: bool) {
        self.phase = Phase::Scanning { joining };
        if !self.ignoring.is_walking() {
            self.ask_scan();
        }
    }

    /// Tells the network who is in the group.
    fn enter_group(&mut self) {
        let Some(group) = &self.group else { return };
        let members = member_set(group, &self.joining.presented, &self.me);
        let id = group.id;
        self.emit(Output::Members(members));
        if self.trust_lan {
            self.emit(Output::Announce { group: Some(id) });
        }
    }

    /// Makes a group of one.
    fn found_group(&mut self, now: Now, view: &impl StateView) {
        let secret = self.random.bytes32();
        let recovery = signature::key_pair(&secret).verifying_key().to_bytes();
        let items = vec![
            Item::Genesis(Genesis {
                name: self.name.clone(),
                recovery,
            }),
            Item::Grant(Grant {
                device: self.me,
                role: Role::Owner,
                name: self.name.clone(),
                via: GrantVia::Author,
                scopes: Scopes::whole(),
                flags: GrantFlags::default(),
                person: None,
            }),
        ];
        self.founded_as_voter();
        self.joining.lan_found_at = None;
        self.pending.set_setting(RECOVERY, Some(secret.to_vec()));
        self.joining.recovery = Some(RecoverySecret::new(secret));
        self.publish(EventKind::Genesis, items, now, view);
        self.enter_group();
        self.scan(false);
    }

    /// Takes a user's command.
    pub(super) fn command(&mut self, id: CommandId, command: Command, now: Now, view: &impl StateView) {
        match command {
            Command::CreateInvite {
                role,
                expires_ms,
                max_uses,
                scopes,
                person,
                secret,
            } => {
                let invite = Invite {
                    key: signature::key_pair(&secret).verifying_key().to_bytes(),
                    role,
                    expires_ms,
                    max_uses,
                    scopes,
                    person,
                };
                let reply = self.create_invite(invite, secret, now, view);
                self.emit(Output::Reply { id, reply });
            }
            Command::Members(command) => {
                let reply = self.members_command(command, now, view);
                self.emit(Output::Reply { id, reply });
            }
            Command::Join { ticket } => {
                if let Err(error) = self.start_join(id, &ticket, now) {
                    self.emit(Output::Reply { id, reply: error });
                }
            }
            Command::Pair(command) => self.pair_command(id, command, now, view),
            Command::Lock(command) => self.lock_command(id, command, now, view),
            Command::Rescan { path } => {
                match path {
                    None => self.ask_scan(),
                    Some(path) => self.emit(Output::Rescan(vec![path])),
                }
                let reply = Ok(Reply::Done);
                self.emit(Output::Reply { id, reply });
            }
            Command::ResolveJoin { choice } => self.resolve_join(id, choice, view),
            Command::ConfirmDeletes { restore } => self.confirm_deletes(id, restore, now, view),
            Command::Why { path } => self.explain(id, path, now, view),
            Command::SetPaused { paused } => {
                self.set_paused(paused);
                let reply = Ok(Reply::Done);
                self.emit(Output::Reply { id, reply });
            }
            Command::Leave => {
                let reply = self.leave(now, view);
                self.emit(Output::Reply { id, reply });
            }
        }
    }

    fn create_invite(
        &mut self,
        invite: Invite,
        secret: [u8; 32],
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        if invite.role == Role::Owner || invite.max_uses == 0 {
            return Err(CommandError::Invalid(
                "An invite gives admin, editor or viewer, at least once",
            ));
        }
        if !group.may_give(&self.me, invite.role, &invite.scopes) {
            return Err(CommandError::NotAllowed);
        }
        if self.own_events_missing() > 0 {
            return Err(CommandError::OwnEventsMissing);
        }
        let group = group.id;
        self.publish(EventKind::Admin, vec![Item::Invite(invite)], now, view);
        Ok(Reply::Invited { group, secret })
    }

    /// Starts to redeem a ticket; an answer that is known at once comes as the error.
    fn start_join(
        &mut self,
        id: CommandId,
        ticket: &str,
        now: Now,
    ) -> Result<(), Result<Reply, CommandError>> {
        let ticket = Ticket::parse(ticket).map_err(|_| Err(CommandError::BadTicket))?;
        if self.joining.active.is_some() || self.joining.asking.is_some() {
            return Err(Err(CommandError::Busy));
        }
        match &self.group {
            Some(group) if group.id == ticket.group => {
                // Without a role it was let in by somebody whose word for it is lost, and needs another's.
                if let Some(role) = group.role(&self.me)
                    && self.phase != Phase::Removed
                {
                    let group = group.id;
                    return Err(Ok(Reply::Joined { group, role }));
                }
            }
            Some(group) if group.members().count() > 1 => return Err(Err(CommandError::AlreadyInGroup)),
            Some(_) | None => {}
        }
        for address in &ticket.addresses {
            self.emit(Output::Dial {
                address: address.clone(),
            });
        }
        self.joining.lan_found_at = None;
        self.joining.active = Some(ActiveJoin {
            ticket,
            reply: id,
            deadline: now.boot.after(JOIN_TIMEOUT),
            again: now.boot.after(HELLO_AGAIN),
            refusal: None,
        });
        self.say_hello();
        Ok(())
    }

    /// Asks every connected device for a nonce; only one of the ticket's group can do something with what follows.
    fn say_hello(&mut self) {
        let devices: Vec<DeviceId> = self.peers.connected().map(|(device, _)| *device).collect();
        for device in devices {
            self.ask(device, Asked::Hello, Request::JoinHello);
        }
    }

    /// A device that is no member connected.
    pub(super) fn stranger_connected(&mut self, device: DeviceId) {
        if self.joining.active.is_some() {
            self.ask(device, Asked::Hello, Request::JoinHello);
        } else {
            self.ask_lan(device);
            self.pair_connected(device);
        }
    }

    pub(super) fn join_timeout(&mut self, now: Now, view: &impl StateView) {
        if self
            .joining
            .active
            .as_ref()
            .is_some_and(|join| join.deadline <= now.boot)
        {
            let join = self.joining.active.take();
            if let Some(ActiveJoin { reply, refusal, .. }) = join {
                let error = refusal.map_or(CommandError::Unreachable, CommandError::Refused);
                self.emit(Output::Reply {
                    id: reply,
                    reply: Err(error),
                });
            }
        }
        if let Some(join) = &mut self.joining.active
            && join.again <= now.boot
        {
            join.again = now.boot.after(HELLO_AGAIN);
            self.say_hello();
        }
        self.pair_timeout(now);
        if self.joining.lan_found_at.is_some_and(|at| at <= now.boot) {
            self.lan_is_quiet(now, view);
        }
    }

    /// Takes an answer to one of the join protocol's requests.
    pub(super) fn join_answered(
        &mut self,
        from: DeviceId,
        asked: Asked,
        result: Result<Response, RequestFailed>,
        now: Now,
        view: &impl StateView,
    ) {
        match (asked, result) {
            (Asked::Hello, Ok(Response::Challenge { nonce })) => self.redeem(from, &nonce),
            (Asked::Redeem, Ok(Response::Accepted { events })) => {
                if let Some(join) = self.joining.active.take() {
                    self.joined(from, &join.ticket, &events, Some(join.reply), now);
                }
            }
            (Asked::Redeem, Ok(Response::Refused(reason))) => self.join_refused(reason, now),
            (Asked::TrustLan, result) => self.lan_answered(from, result, now),
            (Asked::Present, Ok(Response::Refused(RefuseReason::NotMember))) => self.not_wanted_by(from, now),
            (Asked::Present, Ok(Response::Removed { events })) => {
                self.shown_removal(from, &events, now, view);
            }
            (Asked::Present, Ok(Response::Accepted { .. })) => {
                if self.phase == Phase::Removed {
                    self.admitted_again();
                }
                self.peers
                    .ask_at(&from, now.boot.after(Duration::from_millis(200)));
            }
            _ => {}
        }
    }

    fn redeem(&mut self, to: DeviceId, nonce: &[u8; 32]) {
        let Some(join) = &self.joining.active else { return };
        let key = signature::key_pair(&join.ticket.secret);
        let group = join.ticket.group;
        let redeem = Redeem {
            group,
            invite: key.verifying_key().to_bytes(),
            name: self.name.clone(),
            nonce_sig: signature::sign(&key, &nonce_message(nonce, &group, &self.me)),
            grant_sig: signature::sign(&key, &grant_message(&group, &self.me)),
        };
        self.ask(to, Asked::Redeem, Request::JoinRedeem(Box::new(redeem)));
    }

    /// A refusal by a device of the ticket's group ends the join; one by any other device says nothing. Who does not know
    /// the invite may be a member that has not heard of it yet, so others are asked, and he again.
    fn join_refused(&mut self, reason: RefuseReason, now: Now) {
        let Some(join) = &mut self.joining.active else {
            return;
        };
        join.refusal = Some(reason);
        match reason {
            RefuseReason::BadInvite if join.ticket.addresses.len() <= 1 => {
                join.deadline = join.deadline.min(now.boot.after(UNKNOWN_INVITE));
            }
            RefuseReason::Expired | RefuseReason::UsedUp => {
                let error = CommandError::Refused(reason);
                if let Some(join) = self.joining.active.take() {
                    self.emit(Output::Reply {
                        id: join.reply,
                        reply: Err(error),
                    });
                }
            }
            _ => {}
        }
    }

    /// Leaves the group of one and enters the other.
    fn joined(
        &mut self,
        from: DeviceId,
        ticket: &Ticket,
        events: &[SignedEvent],
        reply: Option<CommandId>,
        now: Now,
    ) {
        let shown = read_chain(ticket.group, None, events).filter(|shown| shown.is_member(&self.me));
        let Some(shown) = shown else {
            if let Some(id) = reply {
                let reply = Err(CommandError::Refused(RefuseReason::BadInvite));
                self.emit(Output::Reply { id, reply });
            }
            return;
        };
        let role = shown.role(&self.me).unwrap_or(Role::Viewer);
        let mut members: BTreeSet<DeviceId> = shown.members().map(|(device, ..)| *device).collect();
        members.insert(from);
        members.remove(&self.me);
        let here = self.group.as_ref().filter(|group| group.id == ticket.group);
        let removed = self.phase == Phase::Removed;
        if here.is_some_and(|group| group.is_member(&self.me)) && !removed {
            // The ledger came by another way meanwhile; what it is compared with is settled or under way.
            if let Some(id) = reply {
                let group = ticket.group;
                let reply = Ok(Reply::Joined { group, role });
                self.emit(Output::Reply { id, reply });
            }
            return;
        }
        if removed && here.is_some() {
            self.admitted_again();
        } else if here.is_none() {
            self.leave_group();
            self.expected_log = OwnLogSize::default();
            self.group = Some(Group::new(ticket.group));
            self.joining.must_compare = true;
            self.joining.left = None;
            self.joining.lan_found_at = None;
            self.phase = Phase::CatchingUp;
        }
        self.joining.presented = members;
        self.joining.dial = ticket.addresses.iter().take(MAX_DIAL).cloned().collect();
        self.keep_join_settings();
        self.joined_as_voter();
        self.enter_group();
        if let Some(id) = reply {
            self.emit(Output::Reply {
                id,
                reply: Ok(Reply::Joined {
                    group: ticket.group,
                    role,
                }),
            });
        }
        self.peers
            .ask_at(&from, now.boot.after(Duration::from_millis(500)));
    }

    fn leave_group(&mut self) {
        self.joining.requests.clear();
        self.pending.forget();
        self.joining.recovery = None;
        self.logs.clear();
        self.branches = Branches::default();
        self.locks = Locks::default();
        self.forget_holding();
        self.forget_choosing();
        self.voting = Voting::default();
        self.peers.heads_moved();
        self.work.forget();
        self.local.clear();
        self.installed_count = 0;
        self.copies_count = 0;
        self.ignoring_left_group();
        if self.paused {
            self.pending.set_setting(PAUSED, Some(Vec::new()));
        }
    }

    fn keep_join_settings(&mut self) {
        let Some(group) = &self.group else { return };
        let bytes = group.to_bytes();
        self.pending.set_setting(GROUP, Some(bytes));
        self.pending.set_setting(COMPARE, Some(Vec::new()));
        let presented = self
            .joining
            .presented
            .iter()
            .flat_map(|id| *id.as_bytes())
            .collect();
        self.pending.set_setting(PRESENTED, Some(presented));
        self.pending
            .set_setting(DIAL, Some(self.joining.dial.join("\n").into_bytes()));
    }

    /// The group's ledger is here: now the folder is compared with it.
    pub(super) fn ledger_complete(&mut self, view: &impl StateView) {
        let granted = self.group.as_ref().is_some_and(|group| group.is_member(&self.me));
        if granted && !self.awaits_own_events() {
            self.expected_log = OwnLogSize::default();
            self.recover_needs(view);
            self.scan(true);
        }
    }

    /// The folder has been compared.
    pub(super) const fn compared(&mut self) {
        self.joining.must_compare = false;
    }

    /// Says whether the folder will be compared when the ledger is complete.
    pub(super) fn is_about_to_compare(&self) -> bool {
        self.phase == Phase::CatchingUp && self.joining.must_compare
    }

    /// The folder has been compared, and what it has that the group had not is published. Not before: who starts again
    /// between the two compares again, for what he found would pass for edits then.
    pub(super) fn forget_joining(&mut self) {
        self.pending.set_setting(COMPARE, None);
        self.pending.set_setting(JOIN_COUNTS, None);
        self.pending.set_setting(PRESENTED, None);
    }
}
