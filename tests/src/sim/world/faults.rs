//! What goes wrong, when it is time.

use p2p_sync_core::fold::PathState;
use p2p_sync_core::ids::ContentHash;
use p2p_sync_core::rel_path::RelPath;

use super::{Ambush, AmbushKind, Event, Fault, World};
use crate::sim::disk::Inode;
use crate::sim::plan::Happening;

impl World {
    /// Takes into the queue what the plan names.
    pub(super) fn expect(&mut self, happening: Happening) {
        let mut fault = |at, fault| self.at(at, Event::Fault(fault));
        match happening {
            Happening::User { at, device, seed } => self.at(at, Event::User(device, seed)),
            Happening::Admin { at, device, seed } => self.at(at, Event::Decide(device, seed)),
            Happening::Meddle {
                at,
                device,
                steps,
                seed,
            } => {
                let what = AmbushKind::Meddle { seed };
                let ambush = Ambush { steps, what };
                fault(at, Fault::Ambush { device, ambush });
            }
            Happening::Cut { at, until, a, b } => {
                fault(at, Fault::Cut(a, b));
                fault(until, Fault::Mend(a, b));
            }
            Happening::OneWay { at, until, from, to } => {
                fault(at, Fault::Deafen { from, to, until });
                fault(until, Fault::Undeafen { from, to });
            }
            Happening::Slow {
                at,
                until,
                a,
                b,
                delay,
            } => {
                fault(at, Fault::Slow { a, b, delay });
                fault(until, Fault::Quick(a, b));
            }
            Happening::Crash {
                at,
                until,
                device,
                steps: 0,
                power,
            } => {
                fault(at, Fault::Crash { device, power });
                self.at(until, Event::Start(device));
            }
            Happening::Crash {
                at,
                until,
                device,
                steps,
                power,
            } => {
                let what = AmbushKind::Die { until, power };
                let ambush = Ambush { steps, what };
                fault(at, Fault::Ambush { device, ambush });
            }
            Happening::Empty { at, device } => fault(at, Fault::Empty(device)),
            Happening::Jump { at, device, by } => fault(at, Fault::Jump { device, by }),
            Happening::Lose { at, device } => fault(at, Fault::Lose(device)),
            Happening::Exchange { at, device } => fault(at, Fault::Exchange(device)),
            Happening::Backup { at, device } => fault(at, Fault::Backup(device)),
            Happening::Restore { at, device } => fault(at, Fault::Restore(device)),
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        if self.healed && !matches!(fault, Fault::Jump { .. }) {
            return Ok(());
        }
        self.trace.line(format_args!("{:>8} {fault:?}", self.time_ms));
        match fault {
            Fault::Crash { device, power } => self.crash(device, power),
            Fault::Ambush { device, ambush } => {
                self.devices[device].ambushes.push(ambush);
                Ok(())
            }
            Fault::Jump { device, by } => {
                let here = &mut self.devices[device];
                here.skew_ms = here.skew_ms.saturating_add(by);
                Ok(())
            }
            Fault::Cut(a, b) => self.cut(a, b),
            Fault::Mend(a, b) => {
                self.mend(a, b);
                Ok(())
            }
            Fault::Deafen { from, to, until } => {
                self.deafen(from, to, until);
                Ok(())
            }
            Fault::Undeafen { from, to } => {
                self.undeafen(from, to);
                Ok(())
            }
            Fault::Slow { a, b, delay } => {
                self.links.slow_down(a, b, delay);
                Ok(())
            }
            Fault::Quick(a, b) => {
                self.links.quicken(a, b);
                Ok(())
            }
            Fault::Empty(device) => {
                self.empty(device);
                Ok(())
            }
            Fault::Lose(device) => {
                self.lose(device);
                Ok(())
            }
            Fault::Exchange(device) => {
                // A copy of before it came to the group would never come there.
                let group = self.devices[0].group_in_store();
                if self.devices[device].group_in_store() == group {
                    self.devices[device].exchange();
                    self.last_activity_ms = self.time_ms;
                }
                Ok(())
            }
            Fault::Backup(device) => {
                let here = &mut self.devices[device];
                here.backup = Some(here.store.durable().clone());
                Ok(())
            }
            Fault::Restore(device) => {
                self.restore(device);
                Ok(())
            }
        }
    }

    /// The daemon dies, or the machine; then the disk loses what is not durable on it, also while the daemon is down.
    pub(super) fn crash(&mut self, device: usize, power: bool) -> Result<(), String> {
        let here = &mut self.devices[device];
        let ran = here.engine.is_some();
        if !ran && !power {
            return Ok(());
        }
        let on_their_way = here.store.pending_len();
        let survivors = here.dice.index(on_their_way + 1);
        self.trace.line(format_args!(
            "{:>8} {device} dies; {survivors} of {on_their_way} batches are durable",
            self.time_ms
        ));
        self.last_activity_ms = self.time_ms;
        here.crash(survivors);
        if power {
            let loss = here.power_cut(self.time_ms);
            self.trace
                .line(format_args!("{:>8} {device} lost {loss:?}", self.time_ms));
            // Who wrote that had not made sure of it.
            self.users.given_up.extend(loss.contents);
        }
        if ran { self.drop_links(device) } else { Ok(()) }
    }

    /// Nothing is left of a device but its folder; its user pairs it anew.
    fn lose(&mut self, device: usize) {
        let here = &self.devices[device];
        if here.engine.is_some() || here.twin.is_some() || self.is_only_source(device) {
            return;
        }
        self.devices[device].lose_state();
        self.invite_again(device);
    }

    /// Puts an old copy of a device's database back, unless that knows no group (then it is as if the state were lost), or
    /// wants a content that nobody has any more.
    fn restore(&mut self, device: usize) {
        let here = &self.devices[device];
        let old = here
            .backup
            .as_ref()
            .filter(|old| old.settings.contains_key("group"));
        let Some(old) = old.filter(|_| here.engine.is_none()) else {
            return;
        };
        let lies_nowhere = |content: &ContentHash| !self.devices.iter().any(|each| each.disk.keeps(content));
        // Its newest events, which may be forgotten, may have given up what others still want.
        let states = old.path_states.values().chain(self.states());
        if wanted(states).any(|content| lies_nowhere(&content)) {
            return;
        }
        let group = here.group_in_store();
        self.devices[device].restore_backup();
        self.last_activity_ms = self.time_ms;
        if self.devices[device].group_in_store() != group {
            // It is of before the device came to the group.
            self.invite_again(device);
        }
    }

    /// Starts devices anew, as their logs are, that wait for own events. Who is not in their group, because
    /// his admission was among those events, is invited again.
    pub(super) fn rebind(&mut self) -> Result<(), String> {
        for device in 0..self.devices.len() {
            if self.devices[device].engine.is_none() || self.devices[device].status().own_events_missing == 0
            {
                continue;
            }
            self.crash(device, false)?;
            self.devices[device].rebind();
            self.start(device)?;
            for other in 0..self.devices.len() {
                let status = self.devices[other].status();
                if status.role.is_none() || status.group != self.devices[device].status().group {
                    self.invite_again(other);
                }
            }
        }
        Ok(())
    }

    /// Has a device that was invited once be invited anew.
    fn invite_again(&mut self, device: usize) {
        self.tickets.remove(&device);
        self.invite_asked.retain(|_, guest| *guest != device);
        self.last_activity_ms = self.time_ms;
        if self.plan.devices[device].join_ms.is_some() {
            self.at(self.time_ms + 1_000, Event::Pair(device));
        }
    }

    fn states(&self) -> impl Iterator<Item = &PathState> {
        let stores = self.devices.iter().map(|each| each.store.durable());
        stores.flat_map(|tables| tables.path_states.values())
    }

    /// Says whether some content that is wanted stands where it belongs on no other device than this: if its user changed
    /// it there before the device knows again what it was, or others what happens to hold it, the group would wait for it
    /// for ever.
    fn is_only_source(&self, device: usize) -> bool {
        let others = || self.devices.iter().filter(move |other| other.index != device);
        let is_elsewhere = |path: &RelPath, state: &PathState, content: &ContentHash| {
            let shown = state.shown.iter().map(|(name, _)| name);
            let mut names = std::iter::once(path).chain(shown);
            names.any(|name| {
                let holds = |inode: &Inode| inode.entry().node.content() == Some(*content);
                others().any(|other| other.disk.lstat(name).is_some_and(holds))
            })
        };
        let mut tables = self.devices.iter().map(|each| each.store.durable());
        tables.any(|tables| {
            let mut states = tables.path_states.iter();
            states.any(|(path, state)| {
                let mut contents = wanted(std::iter::once(state));
                contents.any(|content| !is_elsewhere(path, state, &content))
            })
        })
    }
}

/// Returns the contents that are to be in folders.
fn wanted<'a>(states: impl Iterator<Item = &'a PathState>) -> impl Iterator<Item = ContentHash> {
    states
        .flat_map(|state| &state.heads)
        .filter_map(|head| head.entry.as_ref()?.node.content())
}
