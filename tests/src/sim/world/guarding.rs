//! Users who empty their folders while nobody looks, and what they answer when asked whether they meant it.

use p2p_sync_core::engine::Command;

use super::{Event, World};
use crate::sim::device::Device;

impl World {
    /// A user removes everything while the daemon is down.
    pub(super) fn empty(&mut self, device: usize) {
        if self.devices[device].engine.is_some() {
            return;
        }
        let Some(action) = self.with_hand(device, |hand| hand.empty()) else {
            return;
        };
        self.trace
            .line(format_args!("{:>8} {device} user: {action}", self.time_ms));
        self.last_activity_ms = self.time_ms;
    }

    /// A scan is over: if deletions are held, the user answers some day.
    pub(super) fn see_what_is_held(&mut self, device: usize) {
        self.devices[device].note_held();
        if self.devices[device].status().deletions_held > 0 {
            let delay = self.devices[device].dice.between(100, 20_000);
            self.at(self.time_ms + delay, Event::AnswerHeld(device));
        }
    }

    /// Half of the users want their files back, if somebody has them.
    pub(super) fn answer_held(&mut self, device: usize) -> Result<(), String> {
        if self.devices[device].status().deletions_held == 0 {
            return Ok(());
        }
        let restore = self.devices[device].dice.percent(50) && self.others_have_all(device);
        self.trace.line(format_args!(
            "{:>8} {device} user: {}",
            self.time_ms,
            if restore { "restore" } else { "confirm" }
        ));
        self.last_activity_ms = self.time_ms;
        self.devices[device].guarded.clear();
        self.command(device, Command::ConfirmDeletes { restore })
            .map(drop)
    }

    /// Says whether each held file stands at its path on another device that knows it: if its bytes only happen to be
    /// elsewhere, or their device has lost its state and takes what its user does to them for new, they may be gone before
    /// they are fetched.
    fn others_have_all(&self, device: usize) -> bool {
        let here = &self.devices[device];
        let mut held = here.engine.iter().flat_map(|engine| engine.held_deletions());
        held.all(|path| {
            let Some(row) = here.store.durable().installed.get(path) else {
                return false;
            };
            let same = |other: &Device| {
                let there = other.disk.lstat(path);
                let known = other.store.durable().installed.get(path);
                there.is_some_and(|inode| inode.entry().node == row.entry.node)
                    && known.is_some_and(|known| known.dots == row.dots)
            };
            let mut others = self.devices.iter().filter(|other| other.index != device);
            others.any(same)
        })
    }
}
