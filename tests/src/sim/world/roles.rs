//! Users who decide about members. What their devices' roles do not allow is refused, and changes nothing.

use p2p_sync_core::access::{GrantFlags, Role, Scopes};
use p2p_sync_core::engine::{Command, Cut, FolderState, MembersCommand, Membership, Removal};
use p2p_sync_core::rel_path::RelPath;

use super::{Event, World};
use crate::sim::device::Device;
use crate::sim::rng::Rng;

/// A directory that users work in, too.
const SCOPE: &str = "d";

impl World {
    /// Returns the devices that are members by the ledger of the first, who founded the group and cannot be removed. What only
    /// a machine of its that is switched off has said, those know to whom it said it; likewise what a member said before it
    /// lost its disk.
    #[must_use]
    pub fn insiders(&self) -> Vec<&Device> {
        let founder = self.devices[0].status();
        let was_said = self.devices[0].twin.is_some() || self.plan.loses();
        let is_member = |device: &&Device| {
            let mut peers = founder.peers.iter().filter(|peer| peer.role.is_some());
            let was_told = was_said && device.status().state == FolderState::Removed;
            device.index == 0 || (peers.any(|peer| peer.device == device.id) && !was_told)
        };
        self.devices.iter().filter(is_member).collect()
    }

    /// A user changes a role, removes a device, or has one let in again that was removed.
    pub(super) fn decide(&mut self, device: usize, seed: u64) -> Result<(), String> {
        let mut rng = Rng::new(seed);
        let whom = rng.index(self.devices.len());
        if whom == device || self.devices[device].engine.is_none() {
            return Ok(());
        }
        let target = self.devices[whom].id;
        let command = match rng.below(10) {
            0..4 => {
                let wanted = Membership {
                    role: [Role::Viewer, Role::Editor, Role::Editor, Role::Admin, Role::Owner][rng.index(5)],
                    scopes: scopes(&mut rng),
                    flags: GrantFlags::default(),
                };
                MembersCommand::ChangeRole {
                    device: target,
                    wanted,
                    at_once: rng.percent(50),
                }
            }
            4..7 => {
                let events = self.devices[whom]
                    .engine
                    .as_ref()
                    .map_or(0, |engine| engine.own_seq());
                let how = Removal {
                    cut: rng.percent(50).then(|| Cut::Number(rng.below(events + 1))),
                    with_admitted: rng.percent(25),
                    reason: String::new(),
                };
                let devices = vec![target];
                MembersCommand::Remove { devices, how }
            }
            _ => {
                self.at(self.time_ms, Event::Pair(whom));
                return Ok(());
            }
        };
        self.trace
            .line(format_args!("{:>8} {device} decides: {command:?}", self.time_ms));
        self.last_activity_ms = self.time_ms;
        self.command(device, Command::Members(command))?;
        Ok(())
    }
}

fn scopes(rng: &mut Rng) -> Scopes {
    let dir = RelPath::parse(SCOPE).into_iter().filter(|_| rng.percent(30));
    Scopes::new(dir.collect()).unwrap_or_default()
}
