//! Pairing by name: from a user's command to the engine, and back.

use p2p_sync_core::engine::{
    Command, CommandError, CommandId, Input, JoinChoice, LanDevice, PairCommand, PairReply, Reply,
};
use tokio::sync::mpsc;

use super::{EventLoop, LoopError, Waiting};
use crate::control::{Approved, ControlError, JoinStep, Joined, PairingCommand, ReplyTo};

/// A command about pairing that the engine has not answered yet.
pub(super) enum WaitingPair {
    List(ReplyTo<Vec<LanDevice>>),
    Join(mpsc::Sender<Result<JoinStep, ControlError>>, Option<JoinChoice>),
    Approve(ReplyTo<Approved>),
}

impl EventLoop {
    pub(super) fn pairing(&mut self, command: PairingCommand) -> Result<(), LoopError> {
        let (command, waiting) = match command {
            PairingCommand::List { reply } => (PairCommand::List, WaitingPair::List(reply)),
            PairingCommand::Join { name, choice, steps } => {
                (PairCommand::Join { name }, WaitingPair::Join(steps, choice))
            }
            PairingCommand::GivenUp => return self.give_up_joins(),
            PairingCommand::Approve {
                device,
                code,
                role,
                person,
                reply,
            } => (
                PairCommand::Approve {
                    device,
                    code,
                    role,
                    person,
                },
                WaitingPair::Approve(reply),
            ),
        };
        self.next_command += 1;
        let id = CommandId(self.next_command);
        self.waiting.insert(id, Waiting::Pair(waiting));
        let command = Command::Pair(command);
        self.input(Input::Command { id, command })
    }

    /// Gives up the joins whose callers are gone.
    fn give_up_joins(&mut self) -> Result<(), LoopError> {
        let is_gone = |waiting: &Waiting| matches!(waiting, Waiting::Pair(WaitingPair::Join(steps, _)) if steps.is_closed());
        let gone: Vec<CommandId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_gone(waiting))
            .map(|(id, _)| *id)
            .collect();
        for join in gone {
            self.next_command += 1;
            let id = CommandId(self.next_command);
            let command = Command::Pair(PairCommand::Cancel { join });
            self.input(Input::Command { id, command })?;
        }
        Ok(())
    }

    /// Passes on the engine's answer; a join that only has its digits goes on waiting.
    pub(super) fn answer_pairing(
        &mut self,
        id: CommandId,
        waiting: WaitingPair,
        reply: Result<Reply, CommandError>,
    ) {
        match (waiting, reply) {
            (WaitingPair::List(to), Ok(Reply::Pair(PairReply::Found(found)))) => drop(to.send(Ok(found))),
            (WaitingPair::List(to), reply) => drop(to.send(Err(error_of(reply)))),
            (WaitingPair::Approve(to), Ok(Reply::Pair(PairReply::Approved { device, name, role }))) => {
                drop(to.send(Ok(Approved { device, name, role })));
            }
            (WaitingPair::Approve(to), reply) => drop(to.send(Err(error_of(reply)))),
            (WaitingPair::Join(steps, choice), Ok(Reply::Pair(PairReply::Code { asked, code }))) => {
                // There is room: a join has two steps.
                drop(steps.try_send(Ok(JoinStep::Code { asked, code })));
                self.waiting
                    .insert(id, Waiting::Pair(WaitingPair::Join(steps, choice)));
            }
            (WaitingPair::Join(steps, choice), Ok(Reply::Joined { group, role })) => {
                self.join_choice = choice;
                drop(steps.try_send(Ok(JoinStep::Joined(Joined { group, role }))));
            }
            (WaitingPair::Join(steps, _), reply) => drop(steps.try_send(Err(error_of(reply)))),
        }
    }
}

/// Returns the engine's error; an answer to another command would be a mistake of this program's.
fn error_of(reply: Result<Reply, CommandError>) -> ControlError {
    reply.err().map_or(ControlError::TimedOut, ControlError::from)
}
