//! Users who bring their devices into the first device's group, and who try again until it works.

use p2p_sync_core::engine::{Command, CommandError, CommandId, FolderState, Reply};

use super::{Event, World};
use crate::sim::ticket;

/// The device whose user makes all invites.
const INVITER: usize = 0;

impl World {
    /// One attempt of a user to get this device in.
    pub(super) fn pair(&mut self, device: usize) -> Result<(), String> {
        if self.is_in_group(device) {
            return Ok(());
        }
        let again = self.devices[device].dice.between(3_000, 10_000);
        self.at(self.time_ms + again, Event::Pair(device));
        if self.devices[device].engine.is_none() || self.devices[INVITER].engine.is_none() {
            return Ok(());
        }
        self.last_activity_ms = self.time_ms;
        if self.tickets.contains_key(&device) {
            return self.redeem(device);
        }
        let command = Command::CreateInvite {
            role: self.plan.devices[device].role,
            expires_ms: None,
            max_uses: 1,
            scopes: p2p_sync_core::access::Scopes::whole(),
            person: None,
            secret: self.devices[device].dice.bytes32(),
        };
        self.invite_asked.insert(CommandId(self.next_command + 1), device);
        self.command(INVITER, command)?;
        Ok(())
    }

    /// The user types the ticket in.
    pub(super) fn redeem(&mut self, device: usize) -> Result<(), String> {
        if let Some(ticket) = self.tickets.get(&device).cloned() {
            self.command(device, Command::Join { ticket })?;
        }
        Ok(())
    }

    fn is_in_group(&self, device: usize) -> bool {
        let status = self.devices[device].status();
        let group = self.devices[INVITER].status().group;
        let removed = status.state == FolderState::Removed;
        group.is_some() && status.group == group && status.role.is_some() && !removed
    }

    pub(super) fn replied(&mut self, device: usize, id: CommandId, reply: Result<Reply, CommandError>) {
        match reply {
            Ok(Reply::Invited { group, secret }) => {
                if let Some(guest) = self.invite_asked.remove(&id) {
                    let text = ticket::print(group, secret, &[device]);
                    self.tickets.insert(guest, text);
                    self.at(self.time_ms + 100, Event::Redeem(guest));
                }
            }
            Err(CommandError::Refused(_) | CommandError::BadTicket) => {
                self.tickets.remove(&device);
            }
            Ok(_) | Err(_) => {}
        }
    }
}
