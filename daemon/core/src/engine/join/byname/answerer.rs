//! How the engine answers those who ask to be let in, and lets them in when its user says so.

use super::requests::Revealed;
use super::{Exchange, JoinRequest, PairReply};
use crate::access::{Role, Scopes};
use crate::engine::group::Group;
use crate::engine::join::admit::NewMember;
use crate::engine::{
    CommandError, Here, InboundId, Notification, RefuseReason, Reply, Response, StateView, SyncEngine,
};
use crate::ids::{DeviceId, GroupId};
use crate::ledger::{GrantVia, Item, Person};
use crate::time::Now;

impl SyncEngine {
    /// Says whether this device lets that one ask who it is and to be let in: it is near, and nobody switched it off.
    fn may_be_asked_by(&self, device: &DeviceId) -> bool {
        self.lan_pairing && self.peers.get(device).is_some_and(|peer| peer.near)
    }

    /// Tells a stranger what this device and its group are called, and nothing else.
    pub(in crate::engine) fn join_who(
        &mut self,
        from: DeviceId,
        id: InboundId,
        now: Now,
        view: &impl StateView,
    ) {
        let response = match (&self.group, self.may_be_asked_by(&from)) {
            (_, false) => Response::Refused(RefuseReason::MayNotAdmit),
            (Some(group), true) if self.joining.requests.may_say_who(now) => Response::Here(Here {
                group: group.id,
                group_name: self.group_name(view).unwrap_or_default(),
                device_name: self.name.clone(),
            }),
            (_, true) => Response::Refused(RefuseReason::Busy),
        };
        self.respond(id, response);
    }

    /// Returns the name that the group was founded with.
    fn group_name(&self, view: &impl StateView) -> Option<String> {
        let group = self.group.as_ref()?;
        let founder = group.founder()?;
        let genesis = self.pending.event(view, founder.short(), 0)?;
        let items = genesis.event.read_stored().ok()?.body.items;
        items.into_iter().find_map(|item| match item {
            Item::Genesis(genesis) => Some(genesis.name),
            _ => None,
        })
    }

    /// A near device asks to be let in, and shows the hash of its nonce.
    pub(in crate::engine) fn join_ask(
        &mut self,
        from: DeviceId,
        id: InboundId,
        group: GroupId,
        name: String,
        commitment: [u8; 32],
        now: Now,
    ) {
        let ours = self.group.as_ref().map(|group| group.id);
        let may_give = |group: &Group| group.may_give(&self.me, Role::Viewer, &Scopes::whole());
        let may = self.group.as_ref().is_some_and(may_give);
        let response = if !may || !self.may_be_asked_by(&from) {
            Response::Refused(RefuseReason::MayNotAdmit)
        } else if ours != Some(group) {
            Response::Refused(RefuseReason::OtherGroup)
        } else {
            let nonce = self.random.bytes32();
            match self.joining.requests.ask(from, name, commitment, nonce, now) {
                Ok(()) => Response::Challenge { nonce },
                Err(reason) => Response::Refused(reason),
            }
        };
        self.respond(id, response);
    }

    /// The asker shows its nonce, for the first time or to hear whether it was let in.
    pub(in crate::engine) fn join_reveal(
        &mut self,
        from: DeviceId,
        id: InboundId,
        nonce: &[u8; 32],
        now: Now,
        view: &impl StateView,
    ) {
        let revealed = match &self.group {
            Some(group) if self.may_be_asked_by(&from) => {
                let exchange = Exchange {
                    group: group.id,
                    asker: from,
                    answerer: self.me,
                };
                self.joining.requests.reveal(exchange, nonce, now)
            }
            _ => Err(RefuseReason::NotAsked),
        };
        let response = match revealed {
            Ok(Revealed::Shown(request)) => {
                self.notify(Notification::JoinRequested(request));
                Response::Ack
            }
            Ok(Revealed::Waiting) => Response::Ack,
            Ok(Revealed::Approved) => Response::Accepted {
                events: self.chain_of(&from, view),
            },
            Err(reason) => Response::Refused(reason),
        };
        self.respond(id, response);
    }

    /// Lets a device in whose user showed these digits.
    pub(super) fn approve(
        &mut self,
        device: &str,
        code: &str,
        (role, person): (Role, Option<Person>),
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        if role == Role::Owner {
            let why = "An approval gives admin, editor or viewer";
            return Err(CommandError::Invalid(why));
        }
        if !group.may_give(&self.me, role, &Scopes::whole()) {
            return Err(CommandError::NotAllowed);
        }
        if self.own_events_missing() > 0 {
            return Err(CommandError::OwnEventsMissing);
        }
        let request = self
            .joining
            .requests
            .approve(device, code, now)
            .map_err(CommandError::Pair)?;
        let JoinRequest { device, name, .. } = request;
        // It fetches the answer when it asks the next time.
        let member = NewMember {
            role,
            name: name.clone(),
            via: GrantVia::Author,
            person,
        };
        self.admit(device, member, now, view);
        let role = self
            .group
            .as_ref()
            .and_then(|group| group.role(&device))
            .unwrap_or(role);
        Ok(Reply::Pair(PairReply::Approved { device, name, role }))
    }
}
