//! What goes wrong, when it is time.

use super::{Ambush, AmbushKind, Event, Fault, World};
use crate::sim::plan::Happening;

impl World {
    /// Takes into the queue what the plan names.
    pub(super) fn expect(&mut self, happening: Happening) {
        let mut fault = |at, fault| self.at(at, Event::Fault(fault));
        match happening {
            Happening::User { at, device, seed } => self.at(at, Event::User(device, seed)),
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
            Fault::Backup(device) => {
                let here = &mut self.devices[device];
                here.backup = Some(here.store.durable().clone());
                Ok(())
            }
            Fault::Restore(device) => {
                let here = &mut self.devices[device];
                if here.engine.is_none() && here.restore_backup() {
                    self.last_activity_ms = self.time_ms;
                }
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
        if self.devices[device].engine.is_some() || self.is_only_source(device) {
            return;
        }
        let tree = self.devices[device].disk.tree();
        let own = tree.iter().filter(|(path, _)| path.is_own());
        let contents = own.filter_map(|(_, inode)| inode.entry().node.content());
        self.users.unsynced.extend(contents);
        self.devices[device].lose_state();
        self.tickets.remove(&device);
        self.invite_asked.retain(|_, guest| *guest != device);
        self.last_activity_ms = self.time_ms;
        if self.plan.devices[device].join_ms.is_some() {
            self.at(self.time_ms + 1_000, Event::Pair(device));
        }
    }

    /// Says whether some content that is wanted lies nowhere but on this device, or on none at all: then the group would
    /// wait for it for ever.
    fn is_only_source(&self, device: usize) -> bool {
        let states = self
            .devices
            .iter()
            .flat_map(|each| each.store.durable().path_states.values());
        let mut wanted = states
            .flat_map(|state| &state.heads)
            .filter_map(|head| head.entry.as_ref()?.node.content());
        wanted.any(|content| {
            let mut others = self.devices.iter().filter(|other| other.index != device);
            !others.any(|other| other.disk.bytes_of(&content).is_some())
        })
    }
}
