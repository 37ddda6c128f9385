//! What users ask of the daemon, and what they are told.

use p2p_sync_core::engine::{
    Command, CommandError, CommandId, Input, LockCommand, LockReply, Notification, Reply,
};
use p2p_sync_core::ids::GroupId;
use p2p_sync_core::ticket::Ticket;
use tokio::sync::oneshot;
use tracing::{debug, error, info, trace, warn};

use super::{EventLoop, LoopError, Waiting};
use crate::clock;
use crate::control::{ControlCommand, ControlError, Joined, JournalSummary, LedgerCommand, ReplyTo};
use crate::ledger::Judge;
use crate::network::NetworkCommand;

impl EventLoop {
    /// Gives the answer that came with the join to the files that it found differing.
    pub(super) fn choose_held(&mut self) -> Result<(), LoopError> {
        let Some(choice) = self.join_choice else {
            return Ok(());
        };
        if self.engine.status().join_held == 0 {
            return Ok(());
        }
        self.join_choice = None;
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.input(Input::Command {
            id,
            command: Command::ResolveJoin { choice },
        })
    }

    pub(super) fn control(&mut self, command: ControlCommand) -> Result<(), LoopError> {
        let (command, waiting) = match command {
            ControlCommand::GetJournal { reply } => {
                let _ = reply.send(Ok(self.journal_summary()));
                return Ok(());
            }
            ControlCommand::GetHistory {
                path,
                skip,
                limit,
                reply,
            } => {
                self.services.history.list(path, skip, limit, reply);
                return Ok(());
            }
            ControlCommand::Ledger(command) => {
                self.read_ledger(command);
                return Ok(());
            }
            ControlCommand::Quarantine(command) => {
                self.quarantine(command);
                return Ok(());
            }
            ControlCommand::ReadVersion { path, pick, parts } => {
                self.services.history.read_version(path, pick, parts);
                return Ok(());
            }
            ControlCommand::Restore { path, pick, steps } => {
                match self.may_not_restore() {
                    // The queue is empty, so there is room.
                    Some(error) => drop(steps.try_send(Err(error))),
                    None => self.services.history.restore(path, pick, steps),
                }
                return Ok(());
            }
            ControlCommand::ConnectPeer { address, reply } => {
                self.send(NetworkCommand::Dial { address });
                let _ = reply.send(Ok(()));
                return Ok(());
            }
            ControlCommand::CreateInvite {
                role,
                expires,
                max_uses,
                scopes,
                person,
                reply,
            } => {
                let Ok(secret) = crate::identity::random32() else {
                    let _ = reply.send(Err(ControlError::TimedOut));
                    return Ok(());
                };
                let expires_ms = expires.map(clock::wall_ms);
                (
                    Command::CreateInvite {
                        role,
                        expires_ms,
                        max_uses,
                        scopes,
                        person,
                        secret,
                    },
                    Waiting::Invite(reply),
                )
            }
            ControlCommand::Lock { command, reply } => (Command::Lock(command), Waiting::Lock(reply)),
            ControlCommand::Members { command, reply } => {
                (Command::Members(command), Waiting::Members(reply))
            }
            ControlCommand::Join {
                ticket,
                choice,
                reply,
            } => (
                Command::Join {
                    ticket: ticket.to_string(),
                },
                Waiting::Join(reply, choice),
            ),
            ControlCommand::Pairing(command) => return self.pairing(command),
            ControlCommand::ResolveJoin { choice, reply } => {
                (Command::ResolveJoin { choice }, Waiting::Done(reply))
            }
            ControlCommand::Rescan { path, reply } => (Command::Rescan { path }, Waiting::Done(reply)),
            ControlCommand::Why { path, reply } => (Command::Why { path }, Waiting::Why(reply)),
            ControlCommand::SetPaused { paused, reply } => {
                (Command::SetPaused { paused }, Waiting::Done(reply))
            }
            ControlCommand::Leave { reply } => {
                self.join_choice = None;
                (Command::Leave, Waiting::Leave(reply))
            }
            ControlCommand::ConfirmDeletes { restore, reply } => {
                (Command::ConfirmDeletes { restore }, Waiting::Done(reply))
            }
        };
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.waiting.insert(id, waiting);
        self.input(Input::Command { id, command })
    }

    /// Hands a question about the ledger over; reading it needs nothing of the loop but verdicts.
    pub(super) fn read_ledger(&self, command: LedgerCommand) {
        self.services.ledger.answer(command, self.engine.status().group);
    }

    /// Says what of events counts.
    pub(super) fn judge(&self, question: Judge) {
        let events = question.events.iter();
        let verdicts = events.map(|(log, event)| self.engine.verdict(*log, event));
        // A reader that went away wants no answer.
        let _ = question.reply.send(verdicts.collect());
    }

    pub(super) fn journal_summary(&self) -> JournalSummary {
        let summary = self.services.journal.summary();
        JournalSummary {
            last_stop_clean: self.services.journal_recovered.is_empty(),
            recovered: self.services.journal_recovered.clone(),
            in_use: summary.in_use,
            open_installs: summary.open_installs,
            size_bytes: summary.size_bytes,
        }
    }

    /// Gives the engine's answer to whoever asked; a closed receiver went away and wants none.
    pub(super) fn reply(&mut self, id: CommandId, reply: Result<Reply, CommandError>) {
        match self.waiting.remove(&id) {
            Some(Waiting::Invite(to)) => {
                let _ = to.send(match reply {
                    Ok(Reply::Invited { group, secret }) => Ok(self.ticket(group, secret)),
                    Ok(_) => Err(ControlError::TimedOut),
                    Err(error) => Err(error.into()),
                });
            }
            Some(Waiting::Join(to, choice)) => {
                if reply.is_ok() {
                    self.join_choice = choice;
                }
                let _ = to.send(match reply {
                    Ok(Reply::Joined { group, role }) => Ok(Joined { group, role }),
                    Ok(_) => Err(ControlError::TimedOut),
                    Err(error) => Err(error.into()),
                });
            }
            Some(Waiting::Done(to)) => drop(to.send(reply.map(|_| ()).map_err(ControlError::from))),
            Some(Waiting::Members(to)) => drop(to.send(reply.map_err(ControlError::from))),
            Some(Waiting::Lock(to)) => self.answer_lock(to, reply),
            Some(Waiting::Why(to)) => self.answer_why(to, reply),
            Some(Waiting::Leave(to)) => {
                let _ = to.send(match reply {
                    Ok(Reply::Left { group }) => Ok(group),
                    Ok(_) => Err(ControlError::TimedOut),
                    Err(error) => Err(error.into()),
                });
            }
            Some(Waiting::Pair(waiting)) => self.answer_pairing(id, waiting, reply),
            None => {}
        }
    }

    /// Answers a command about locks. A lock for which nobody waits any more is given back.
    fn answer_lock(&mut self, to: ReplyTo<LockReply>, reply: Result<Reply, CommandError>) {
        let reply = match reply {
            Ok(Reply::Lock(reply)) => Ok(*reply),
            Ok(_) => Err(ControlError::TimedOut),
            Err(error) => Err(error.into()),
        };
        if let Err(Ok(LockReply::Held(lock))) = to.send(reply) {
            let resource = lock.resources.into_iter().next();
            self.given_back.extend(resource);
        }
    }

    /// Releases the locks for which nobody waits any more.
    pub(super) fn give_back(&mut self) -> Result<(), LoopError> {
        while let Some(resource) = self.given_back.pop() {
            self.next_command += 1;
            let id = CommandId(self.next_command);
            let command = Command::Lock(LockCommand::Release { resource });
            self.input(Input::Command { id, command })?;
        }
        Ok(())
    }

    pub(super) fn ticket(&self, group: GroupId, secret: [u8; 32]) -> Ticket {
        let far = |address: &&String| !address.contains("/ip4/127.") && !address.contains("/ip6/::1/");
        let reachable: Vec<String> = self.listen.iter().filter(far).cloned().collect();
        // A device that listens on loopback only is being tried out on one machine.
        let addresses = if reachable.is_empty() {
            self.listen.clone()
        } else {
            reachable
        };
        Ticket::new(group, secret, addresses)
    }

    pub(super) fn notify(&self, notification: Notification) {
        match &notification {
            Notification::MemberAdded { device, name, role } => {
                info!(device = %device.short(), name, %role, "A device joined the group");
            }
            Notification::JoinRequested(request) => {
                let (device, name) = (request.device.short(), &request.name);
                info!(%device, name, "A device asks to join; see: syncctl approve");
            }
            Notification::MemberRemoved { device, name } => {
                info!(device = %device.short(), name, "A device is no member any more");
            }
            Notification::PeerConnected { device } => info!(device = %device.short(), "Connected"),
            Notification::PeerDisconnected { device } => info!(device = %device.short(), "Disconnected"),
            Notification::PeerMisbehaved { device, reason } => {
                warn!(device = %device.short(), reason, "A device sent what no honest daemon sends");
                self.send(NetworkCommand::Disconnect(*device));
            }
            Notification::PeerLimited { device } => {
                warn!(device = %device.short(), "A device tells of events faster than they are taken; they are fetched later");
            }
            Notification::UpgradeNeeded { device } => {
                warn!(device = %device.short(), "An event needs a newer version of this daemon");
            }
            Notification::Denied { device, path } => {
                warn!(device = %device.short(), "An event says what its author's role does not allow");
                debug!(?path, "It has no effect there");
            }
            Notification::ChangeRejected { path } => {
                debug!(%path, "This device's role does not let it change a path");
            }
            Notification::PathStuck { path, reason } => debug!(%path, reason, "A path is stuck"),
            Notification::PathSynced { path, .. } => trace!(%path, "Synced"),
            Notification::PathPublished { path, .. } => trace!(%path, "Published"),
            Notification::ConflictCopy { path, .. } => debug!(%path, "A conflict copy appeared"),
        }
        // Nobody may be watching.
        let _ = self.services.notifications.send(notification);
    }

    /// Has a ticket redeemed as if a user had typed it; the answer is logged.
    pub(crate) fn join_at_start(&mut self, ticket: Ticket) -> Result<(), LoopError> {
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            match answer.await {
                Ok(Ok(Joined { group, role })) => info!(%group, %role, "Joined"),
                Ok(Err(error)) => error!(error = %crate::error_chain(&error), "Cannot join"),
                Err(_) => {}
            }
        });
        self.control(ControlCommand::Join {
            ticket,
            choice: None,
            reply,
        })
    }
}
