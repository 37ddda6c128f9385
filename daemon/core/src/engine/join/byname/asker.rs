//! How the engine asks: from the user's command to the group that is entered.

use super::asking::{Asking, Decision};
use super::{LanDevice, PairCommand, PairError, PairReply};
use crate::engine::group::Group;
use crate::engine::join::admit::read_chain;
use crate::engine::sync::Asked;
use crate::engine::{
    CommandError, CommandId, Output, Reply, Request, RequestFailed, Response, StateView, SyncEngine,
};
use crate::ids::DeviceId;
use crate::ledger::SignedEvent;
use crate::ticket::Ticket;
use crate::time::Now;

impl SyncEngine {
    /// Takes a user's command about pairing by name.
    pub(in crate::engine) fn pair_command(
        &mut self,
        id: CommandId,
        command: PairCommand,
        now: Now,
        view: &impl StateView,
    ) {
        match command {
            PairCommand::List => self.start_asking(id, None, now),
            PairCommand::Join { name } => self.start_asking(id, Some(name), now),
            PairCommand::Cancel { join } => {
                if self
                    .joining
                    .asking
                    .take_if(|asking| asking.reply == join)
                    .is_some()
                {
                    self.pair_failed(join, PairError::GivenUp);
                }
                self.reply(id, Ok(Reply::Done));
            }
            PairCommand::Approve {
                device,
                code,
                role,
                person,
            } => {
                let reply = self.approve(&device, &code, (role, person), now, view);
                self.reply(id, reply);
            }
        }
    }

    fn reply(&mut self, id: CommandId, reply: Result<Reply, CommandError>) {
        self.emit(Output::Reply { id, reply });
    }

    fn pair_failed(&mut self, id: CommandId, error: PairError) {
        self.reply(id, Err(CommandError::Pair(error)));
    }

    fn start_asking(&mut self, id: CommandId, name: Option<String>, now: Now) {
        if self.joining.active.is_some() || self.joining.asking.is_some() {
            self.reply(id, Err(CommandError::Busy));
            return;
        }
        let alone = |group: &Group| group.members().count() <= 1;
        if name.is_some() && !self.group.as_ref().is_none_or(alone) {
            self.reply(id, Err(CommandError::AlreadyInGroup));
            return;
        }
        self.joining.asking = Some(Asking::new(name, id, now));
        self.emit(Output::SeekLan);
        self.ask_who_is_there();
    }

    /// Asks the near devices that are no members and did not answer yet what they are called.
    fn ask_who_is_there(&mut self) {
        let Some(asking) = &self.joining.asking else {
            return;
        };
        let is_wanted = |device: &DeviceId| !asking.knows(device) && !self.is_member(device);
        let near: Vec<DeviceId> = self
            .peers
            .connected()
            .filter(|(device, peer)| peer.near && is_wanted(device))
            .map(|(device, _)| *device)
            .collect();
        for device in near {
            self.ask(device, Asked::Who, Request::JoinWho);
        }
    }

    /// A device that is no member connected: perhaps the one that is looked for, or that was asked.
    pub(in crate::engine::join) fn pair_connected(&mut self, device: DeviceId) {
        if !self.peers.get(&device).is_some_and(|peer| peer.near) {
            return;
        }
        match &self.joining.asking {
            Some(asking) if asking.is_looking() => self.ask(device, Asked::Who, Request::JoinWho),
            Some(_) => self.ask_on(Some(device)),
            None => {}
        }
    }

    /// Sends the question that is to be asked next, if the device is connected and `only` it is meant.
    fn ask_on(&mut self, only: Option<DeviceId>) {
        let me = self.me;
        let Some(asking) = &mut self.joining.asking else {
            return;
        };
        let Some(to) = asking.to().filter(|to| only.is_none_or(|only| only == *to)) else {
            return;
        };
        if self.peers.get(&to).is_none() {
            self.emit(Output::SeekLan);
            return;
        }
        if let Some((asked, request)) = asking.next_question(me, &self.name) {
            self.ask(to, asked, request);
        }
    }

    pub(in crate::engine) fn pair_timeout(&mut self, now: Now) {
        self.joining.requests.expire(now);
        let Some(asking) = &mut self.joining.asking else {
            return;
        };
        if asking.deadline <= now.boot {
            let id = asking.reply;
            self.joining.asking = None;
            self.pair_failed(id, PairError::TimeIsUp);
            return;
        }
        if asking.again > now.boot {
            return;
        }
        asking.ask_again(now);
        if !asking.is_looking() {
            self.ask_on(None);
            return;
        }
        match asking.decide(now) {
            Decision::Look => {
                self.emit(Output::SeekLan);
                self.ask_who_is_there();
            }
            decision => self.decided(decision),
        }
    }

    fn decided(&mut self, decision: Decision) {
        match decision {
            Decision::Look => {}
            Decision::Ask(device) => {
                let nonce = self.random.bytes32();
                if let Some(asking) = &mut self.joining.asking {
                    asking.begin(device, nonce);
                }
                self.ask_on(None);
            }
            Decision::List(found) => {
                if let Some(asking) = self.joining.asking.take() {
                    self.reply(asking.reply, Ok(Reply::Pair(PairReply::Found(found))));
                }
            }
            Decision::Fail(error) => {
                if let Some(asking) = self.joining.asking.take() {
                    self.pair_failed(asking.reply, error);
                }
            }
        }
    }

    /// Takes an answer to a question about pairing by name.
    pub(in crate::engine) fn pair_answered(
        &mut self,
        from: DeviceId,
        asked: Asked,
        result: Result<Response, RequestFailed>,
        now: Now,
    ) {
        let me = self.me;
        let Some(asking) = &mut self.joining.asking else {
            return;
        };
        match (asked, result) {
            (Asked::Who, Ok(Response::Here(here))) => asking.heard(LanDevice { device: from, here }),
            (Asked::PairAsk | Asked::PairReveal, _) if asking.to() != Some(from) => {}
            (Asked::PairAsk | Asked::PairReveal, Err(RequestFailed)) => asking.unanswered(),
            (Asked::PairAsk, Ok(Response::Challenge { nonce })) => {
                asking.challenged(me, &nonce);
                self.ask_on(None);
            }
            (Asked::PairReveal, Ok(answer @ (Response::Ack | Response::Accepted { .. }))) => {
                let id = asking.reply;
                match (asking.acknowledged(), answer) {
                    // Even one that was let in at once shows its digits first.
                    (Some((asked, code)), _) => {
                        self.reply(id, Ok(Reply::Pair(PairReply::Code { asked, code })));
                    }
                    (None, Response::Accepted { events }) => self.pair_accepted(from, &events, now),
                    (None, _) => {}
                }
            }
            (Asked::PairAsk | Asked::PairReveal, Ok(Response::Refused(reason))) => {
                let decision = asking.refused(reason);
                self.decided(decision);
            }
            _ => {}
        }
    }

    /// Enters the group, if this is the device that was asked, it shows the same digits, and leads into that group.
    fn pair_accepted(&mut self, from: DeviceId, events: &[SignedEvent], now: Now) {
        let Some(asking) = &self.joining.asking else {
            return;
        };
        let (id, Some(group)) = (asking.reply, asking.accepted(&from)) else {
            return;
        };
        self.joining.asking = None;
        if !read_chain(group, None, events).is_some_and(|shown| shown.is_member(&self.me)) {
            self.pair_failed(id, PairError::BadAnswer);
            return;
        }
        let ticket = Ticket::new(group, [0; 32], []);
        self.joined(from, &ticket, events, Some(id), now);
    }
}
