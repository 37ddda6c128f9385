//! The side of a group: admitting devices, and showing and reading how a device came in.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_NONCES, MAX_PRESENTED};
use crate::access::{GrantFlags, LogPoint, Role};
use crate::engine::group::{Group, grant_message, nonce_message};
use crate::engine::sync::Asked;
use crate::engine::{
    InboundId, MAX_PRESENT_BYTES, Redeem, RefuseReason, Request, Response, StateView, StoredEvent, SyncEngine,
};
use crate::ids::{DeviceId, Dot, EventId, GroupId, ShortId};
use crate::ledger::{
    EventKind, Grant, GrantVia, Header, Item, Keep, LogHead, LogState, Person, Revoke, SignedEvent,
};
use crate::merkle::Peaks;
use crate::signature;
use crate::time::Now;

/// What a device is let in as.
#[derive(Debug)]
pub(super) struct NewMember {
    pub(super) role: Role,
    /// What it calls itself.
    pub(super) name: String,
    pub(super) via: GrantVia,
    /// Whose it is, if that is to be said; of whoever redeems an invite, the invite says it.
    pub(super) person: Option<Person>,
}

impl SyncEngine {
    pub(in crate::engine) fn join_hello(&mut self, from: DeviceId, id: InboundId) {
        let nonce = self.random.bytes32();
        while self.joining.nonces.len() >= MAX_NONCES {
            self.joining.nonces.pop_first();
        }
        self.joining.nonces.insert(from, nonce);
        self.respond(id, Response::Challenge { nonce });
    }

    pub(in crate::engine) fn join_redeem(
        &mut self,
        from: DeviceId,
        id: InboundId,
        redeem: &Redeem,
        now: Now,
        view: &impl StateView,
    ) {
        let response = match self.check_redeem(from, redeem, now) {
            Ok(role) => {
                let via = GrantVia::Invite {
                    key: redeem.invite,
                    sig: redeem.grant_sig,
                };
                let member = NewMember {
                    role,
                    name: redeem.name.clone(),
                    via,
                    person: None,
                };
                self.admit(from, member, now, view)
            }
            Err(reason) => Response::Refused(reason),
        };
        self.respond(id, response);
    }

    pub(super) fn check_redeem(
        &mut self,
        from: DeviceId,
        redeem: &Redeem,
        now: Now,
    ) -> Result<Role, RefuseReason> {
        let group = self.group.as_ref().ok_or(RefuseReason::Busy)?;
        if group.id != redeem.group {
            return Err(RefuseReason::OtherGroup);
        }
        let nonce = self.joining.nonces.remove(&from).ok_or(RefuseReason::Busy)?;
        let live = group.invite(&redeem.invite).ok_or(RefuseReason::BadInvite)?;
        let signed = signature::holds(
            &redeem.invite,
            &redeem.nonce_sig,
            &nonce_message(&nonce, &group.id, &from),
        ) && signature::holds(
            &redeem.invite,
            &redeem.grant_sig,
            &grant_message(&group.id, &from),
        );
        if !signed {
            return Err(RefuseReason::BadInvite);
        }
        if group.is_member(&from) {
            return Ok(live.invite.role);
        }
        if live.invite.expires_ms.is_some_and(|ms| ms <= now.wall_ms) {
            return Err(RefuseReason::Expired);
        }
        if group.uses(&redeem.invite) >= live.invite.max_uses {
            return Err(RefuseReason::UsedUp);
        }
        if !group.could_admit(&self.next_own_log(), &redeem.invite) {
            let strong = group.role(&self.me).is_some_and(|mine| mine >= Role::Admin);
            let reason = if strong {
                RefuseReason::BadInvite
            } else {
                RefuseReason::MayNotAdmit
            };
            return Err(reason);
        }
        Ok(live.invite.role)
    }

    pub(in crate::engine) fn join_trust_lan(
        &mut self,
        from: DeviceId,
        id: InboundId,
        name: String,
        now: Now,
        view: &impl StateView,
    ) {
        let local = self.peers.get(&from).is_some_and(|peer| peer.local);
        let may = self.my_role().is_some_and(|mine| mine.may_give(Role::Editor));
        let known = self.group.as_ref().is_some_and(|group| group.is_member(&from));
        let response = if self.trust_lan && local && (may || known) {
            let member = NewMember {
                role: Role::Editor,
                name,
                via: GrantVia::Author,
                person: None,
            };
            self.admit(from, member, now, view)
        } else {
            Response::Refused(RefuseReason::MayNotAdmit)
        };
        self.respond(id, response);
    }

    /// Makes a device a member, unless it is one, and returns its way into the group.
    pub(super) fn admit(
        &mut self,
        device: DeviceId,
        member: NewMember,
        now: Now,
        view: &impl StateView,
    ) -> Response {
        let NewMember {
            role,
            mut name,
            via,
            mut person,
        } = member;
        while name.len() > crate::ledger::MAX_NAME {
            name.pop();
        }
        if !self.group.as_ref().is_some_and(|group| group.is_member(&device)) {
            if self.own_events_missing() > 0 {
                return Response::Refused(RefuseReason::Busy);
            }
            let group = self.group.as_ref();
            let scopes = match &via {
                GrantVia::Invite { key, .. } => {
                    let invite = group.and_then(|group| Some(&group.invite(key)?.invite));
                    person = invite.and_then(|invite| invite.person.clone());
                    invite.map(|invite| invite.scopes.clone())
                }
                GrantVia::Author => group.and_then(|group| group.scopes_to_give(&self.me, role)),
            };
            let grant = Item::Grant(Grant {
                device,
                role,
                name,
                via,
                scopes: scopes.unwrap_or_default(),
                flags: GrantFlags::default(),
                person,
            });
            self.publish(EventKind::Admin, vec![grant], now, view);
        }
        Response::Accepted {
            events: self.chain_of(&device, view),
        }
    }

    /// Returns the admin events that lead from genesis to a device's Grant, in the order of telling.
    pub(super) fn chain_of(&self, device: &DeviceId, view: &impl StateView) -> Vec<SignedEvent> {
        let chain = self.chain_events(device, view);
        self.in_telling_order(chain.into_iter().map(|stored| stored.event).collect(), view)
    }

    pub(super) fn chain_events(&self, device: &DeviceId, view: &impl StateView) -> Vec<StoredEvent> {
        let Some(group) = &self.group else {
            return Vec::new();
        };
        let mut chain: BTreeMap<(u64, EventId), StoredEvent> = BTreeMap::new();
        let mut open = vec![*device];
        let mut visited = BTreeSet::new();
        while let Some(device) = open.pop() {
            if !visited.insert(device) {
                continue;
            }
            for grant in group.grants(&device) {
                let invite = grant
                    .invite
                    .as_ref()
                    .and_then(|key| group.invite(key))
                    .map(|known| known.dot);
                let genesis = Dot {
                    device: group.founder().unwrap_or(device).short(),
                    seq: 0,
                    item: 0,
                };
                for dot in [Some(grant.place.unwrap_or(genesis)), invite]
                    .into_iter()
                    .flatten()
                {
                    let Some(stored) = self.pending.event(view, dot.device, dot.seq) else {
                        continue;
                    };
                    open.push(stored.author);
                    if let Ok(read) = stored.event.read_stored() {
                        chain.insert((read.header.hlc.bits(), stored.id), stored);
                    }
                }
            }
        }
        chain.into_values().collect()
    }

    /// Shows a member that does not know us how we came in.
    pub(in crate::engine) fn present(&mut self, to: DeviceId, view: &impl StateView) {
        let me = self.me;
        let events = self.chain_of(&me, view);
        let size: usize = events.iter().map(SignedEvent::len).sum();
        if !events.is_empty() && size <= MAX_PRESENT_BYTES {
            self.ask(to, Asked::Present, Request::Present { events });
        }
    }

    pub(in crate::engine) fn present_received(
        &mut self,
        from: DeviceId,
        id: InboundId,
        events: &[SignedEvent],
        view: &impl StateView,
    ) {
        let Some(group) = &self.group else {
            self.respond(id, Response::Refused(RefuseReason::Busy));
            self.shown_other_group(from, events);
            return;
        };
        if self.is_member(&from) {
            self.respond(id, Response::Accepted { events: Vec::new() });
            return;
        }
        let lets_in = |known| read_chain(group.id, known, events).is_some_and(|shown| shown.is_member(&from));
        let shown = self.contradicts_nothing(events, view) && lets_in(Some(group));
        // Whom a removed device let in may never have been granted anything here, and has to hear of that removal.
        if !shown && (group.was_granted(&from) || lets_in(None)) {
            let events = self.removal_of(&from, view);
            self.respond(id, Response::Removed { events });
            return;
        }
        if !shown || self.joining.presented.len() >= MAX_PRESENTED {
            self.respond(id, Response::Refused(RefuseReason::NotMember));
            if !shown {
                self.shown_other_group(from, events);
            }
            return;
        }
        self.joining.presented.insert(from);
        self.respond(id, Response::Accepted { events: Vec::new() });
        self.enter_group();
    }

    /// Says whether none of these events has the place of another that is known here, by a device that lost rights: it could
    /// sign one for a time when it had them. Where nothing was lost, both count, for its log has forked.
    pub(super) fn contradicts_nothing(&self, events: &[SignedEvent], view: &impl StateView) -> bool {
        let lost = |author: &DeviceId| {
            let mut grants = self.group.iter().flat_map(|group| group.grants(author));
            grants.any(|grant| !grant.is_current())
        };
        events.iter().all(|event| {
            let Ok(header) = Header::from_bytes(&event.header) else {
                return false;
            };
            let known = self.pending.event(view, header.author.short(), header.seq);
            known.is_none_or(|known| known.id == event.id()) || !lost(&header.author)
        })
    }
}

/// Evaluates a chain of admin events without the logs they stand in, on top of what is known of the group; `None` if one
/// is malformed, not signed, or founds another group. Enough to let a device ask for the ledger, which then says the
/// same or refuses it.
pub(super) fn read_chain(group: GroupId, known: Option<&Group>, events: &[SignedEvent]) -> Option<Group> {
    let mut shown = known.cloned().unwrap_or_else(|| Group::new(group));
    let size: usize = events.iter().map(SignedEvent::len).sum();
    if size > MAX_PRESENT_BYTES {
        return None;
    }
    let mut before: BTreeMap<ShortId, u64> = BTreeMap::new();
    let mut said: BTreeMap<ShortId, BTreeMap<ShortId, u64>> = BTreeMap::new();
    for event in events {
        let verified = event.verify(&group).ok()?;
        let header = &verified.header;
        // The logs are not at hand: what gave rights before it in the chain counts as seen, and what its author said. But
        // an event that took rights may be of the same time; only whom it gave others surely had heard of it, and the
        // order of telling sees to that.
        let own = said.entry(header.author.short()).or_default();
        for other in &header.seen {
            raise(own, other.device, other.next_seq);
        }
        for (device, head) in kept_heads(&verified.body.items) {
            raise(own, device.short(), head.size);
        }
        let mut seen = before.clone();
        for (device, next) in own {
            raise(&mut seen, *device, *next);
        }
        let log = LogState {
            peaks: Peaks::unknown(header.seq + 1),
            seen,
            ..LogState::empty(header.author)
        };
        if !shown.has_event(&verified) {
            // Whoever keeps the events up to a head had them.
            let point = |device: &DeviceId, head: &LogHead| LogPoint {
                log: device.short(),
                size: head.size,
            };
            shown.apply(&verified, &log, |device, head| Some(point(device, head)));
        }
        let (author, next) = (header.author.short(), header.seq + 1);
        if !verified.body.items.iter().any(takes_rights) {
            raise(&mut before, author, next);
        }
        for item in &verified.body.items {
            if let Item::Grant(grant) = item {
                raise(said.entry(grant.device.short()).or_default(), author, next);
            }
        }
    }
    Some(shown)
}

fn raise(seen: &mut BTreeMap<ShortId, u64>, device: ShortId, next_seq: u64) {
    let known = seen.entry(device).or_default();
    *known = next_seq.max(*known);
}

/// Returns up to where Revokes keep the logs of their devices.
fn kept_heads(items: &[Item]) -> impl Iterator<Item = (DeviceId, LogHead)> + '_ {
    let revokes = items.iter().filter_map(|item| match item {
        Item::Revoke(Revoke {
            device,
            keep: Keep::Heads(heads),
            ..
        }) => Some((*device, heads)),
        _ => None,
    });
    revokes.flat_map(|(device, heads)| heads.iter().map(move |head| (device, *head)))
}

pub(super) fn takes_rights(item: &Item) -> bool {
    matches!(item, Item::Revoke(_) | Item::Cancel { .. })
}
