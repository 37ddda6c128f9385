//! What `evaluate` says about a world, in the world's own terms.
//!
//! The world's events arrive one by one, in an order that respects their pasts. The order decides how the logs of a device
//! that forked are named, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use p2p_sync_core::access::{
    AdminEvent, Branch, Deed as CoreDeed, GrantDeed, History, Kept, LiveGrant, LogPoint, Rights, Role,
    Scopes, Writable, evaluate,
};
use p2p_sync_core::ids::{DeviceId, Dot, EventId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::time::Hlc;

use crate::roles::generate::Rng;
use crate::roles::world::{Deed, FOUNDER, Grant, Keep, Place, RECOVERY, Scope, World};

/// What comes of a valid grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantOutcome {
    pub(crate) rank: Vec<(u64, u32)>,
    /// The Revokes that end it.
    pub(crate) ended_by: BTreeSet<Place>,
    /// Where it is live.
    pub(crate) live: BTreeSet<Place>,
}

/// What comes of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// First those of the recovery key and the founder, then each Grant item; `None`: void.
    pub(crate) grants: Vec<Option<GrantOutcome>>,
    /// The role that each event's author has behind it, and which of [`Scope::PATHS`] it may write, as bits.
    pub(crate) at: Vec<(Option<Role>, u8)>,
    /// The same for each device, once it has heard of everything.
    pub(crate) from_now_on: Vec<(Option<Role>, u8)>,
}

/// A world as one device got to know it.
#[derive(Debug)]
pub(crate) struct Arrival {
    history: History,
    /// The log of each event.
    logs: Vec<ShortId>,
}

/// Returns the number that an item has in its event. There are other items between those that decide about roles.
pub(crate) const fn item_number(item: usize) -> u32 {
    2 * item as u32 + 1
}

/// Returns what `evaluate` says when the events arrive in the order in which the world has them.
pub(crate) fn evaluated(world: &World) -> Result<Outcome, String> {
    let order: Vec<usize> = (0..world.events.len()).collect();
    Arrival::new(world, &order, 0).outcome(world)
}

/// Returns the grants of a world with their places, in the order of [`Outcome::grants`].
pub(crate) fn grants(world: &World) -> Vec<(Option<Place>, Grant)> {
    let genesis = [RECOVERY, FOUNDER].map(|device| (None, Grant::plain(device, Role::Owner)));
    let items = world.deeds().filter_map(|(place, deed)| match deed {
        Deed::Grant(grant) => Some((Some(place), *grant)),
        Deed::Invite { .. } | Deed::Cancel { .. } | Deed::Revoke { .. } => None,
    });
    genesis.into_iter().chain(items).collect()
}

impl Arrival {
    /// Lets the events arrive in an order.
    pub(crate) fn new(world: &World, order: &[usize], names: u64) -> Self {
        let founder = device_id(world, FOUNDER);
        let mut history = History::new(founder, device_id(world, RECOVERY));
        let logs = name_logs(world, order, &mut Rng::new(!names), &mut history);
        let mut arrival = Self { history, logs };
        for event in order {
            // What does not matter for roles need not be there.
            if !world.events[*event].deeds.is_empty() || event % 2 == 0 {
                let event = arrival.admin_event(world, *event);
                arrival.history.add(event);
            }
        }
        for (place, deed) in world.deeds() {
            let device = match deed {
                Deed::Grant(grant) => grant.device,
                Deed::Revoke {
                    device,
                    keep: Keep::UntilSeen,
                } => *device,
                Deed::Revoke { .. } | Deed::Invite { .. } | Deed::Cancel { .. } => {
                    continue;
                }
            };
            arrival.note_seen(world, device, place);
        }
        arrival
    }

    fn note_seen(&mut self, world: &World, device: usize, place: Place) {
        for event in world.events_of(device) {
            let sees = |event: usize| world.events[event].past.contains(place.0);
            let first = sees(event) && !world.events[event].prev.is_some_and(sees);
            let (log, dot) = (self.logs[event], self.dot(world, place));
            if first && log != dot.device {
                self.history.note_seen(log, dot, world.events[event].seq);
            }
        }
    }

    fn admin_event(&self, world: &World, number: usize) -> AdminEvent {
        let event = &world.events[number];
        let mut seen: BTreeMap<ShortId, u64> = BTreeMap::new();
        for other in event
            .past
            .iter()
            .filter(|other| self.logs[*other] != self.logs[number])
        {
            let next = seen.entry(self.logs[other]).or_default();
            *next = (*next).max(world.events[other].seq + 1);
        }
        let deeds = event.deeds.iter().enumerate();
        AdminEvent {
            id: event_id(event.id),
            hlc: Hlc::from_bits(event.clock),
            author: device_id(world, event.author),
            log: self.logs[number],
            seq: event.seq,
            seen,
            deeds: deeds
                .map(|(item, deed)| (item_number(item), self.deed(world, deed)))
                .collect(),
        }
    }

    fn deed(&self, world: &World, deed: &Deed) -> CoreDeed {
        match deed {
            Deed::Grant(grant) => CoreDeed::Grant(GrantDeed {
                device: device_id(world, grant.device),
                role: grant.role,
                scopes: scopes(grant.scope),
                flags: grant.flags,
                invite: grant.invite.map(|key| [key; 32]),
            }),
            Deed::Invite { key, role, scope } => CoreDeed::Invite {
                key: [*key; 32],
                role: *role,
                scopes: scopes(*scope),
            },
            Deed::Cancel { key } => CoreDeed::Cancel { key: [*key; 32] },
            Deed::Revoke { device, keep } => CoreDeed::Revoke {
                device: device_id(world, *device),
                keep: match keep {
                    Keep::UntilSeen => Kept::UntilSeen,
                    Keep::Heads(heads) => {
                        Kept::Points(heads.iter().map(|head| self.point(world, *head)).collect())
                    }
                },
            },
        }
    }

    fn point(&self, world: &World, event: usize) -> LogPoint {
        LogPoint {
            log: self.logs[event],
            size: world.events[event].seq + 1,
        }
    }

    fn dot(&self, world: &World, place: Place) -> Dot {
        Dot {
            device: self.logs[place.0],
            seq: world.events[place.0].seq,
            item: item_number(place.1),
        }
    }

    /// Returns what `evaluate` says, or in what its answers contradict each other.
    pub(crate) fn outcome(&self, world: &World) -> Result<Outcome, String> {
        let rights = evaluate(&self.history);
        let mut found = 0;
        let mut outcomes = Vec::new();
        for (place, grant) in grants(world) {
            let dot = place.map(|place| self.dot(world, place));
            let of_device = rights.grants(&device_id(world, grant.device));
            let live: Vec<&LiveGrant> = of_device.iter().filter(|live| live.place == dot).collect();
            found += live.len();
            outcomes.push(match live.as_slice() {
                [] => None,
                [live] => Some(self.grant_outcome(world, live, grant)?),
                _ => return Err(format!("{dot:?} is there more than once")),
            });
        }
        let all: usize = rights.devices().map(|device| rights.grants(device).len()).sum();
        if all != found {
            return Err(format!("{all} grants, of which {found} were made"));
        }
        let at = (0..world.events.len()).map(|event| self.at(world, &rights, event));
        Ok(Outcome {
            grants: outcomes,
            at: at.collect::<Result<_, _>>()?,
            from_now_on: (0..world.devices)
                .map(|device| device_id(world, device))
                .map(|device| (rights.role(&device), reach(&rights.writable(&device))))
                .collect(),
        })
    }

    fn grant_outcome(&self, world: &World, live: &LiveGrant, grant: Grant) -> Result<GrantOutcome, String> {
        let as_made = live.device == device_id(world, grant.device)
            && live.role == grant.role
            && live.scopes == scopes(grant.scope)
            && (live.flags == grant.flags || live.place.is_none())
            && live.invite == grant.invite.map(|key| [key; 32]);
        if !as_made {
            return Err(format!("{live:?} is not as it was made: {grant:?}"));
        }
        let revokes = world
            .deeds()
            .filter(|(_, deed)| matches!(deed, Deed::Revoke { .. }));
        let ended_by: BTreeSet<Place> = revokes
            .map(|(place, _)| place)
            .filter(|place| live.ended_by.contains(&self.dot(world, *place)))
            .collect();
        if ended_by.len() != live.ended_by.len() {
            return Err(format!("{live:?} is ended by what is no Revoke, or twice by one"));
        }
        let mut places = BTreeSet::new();
        for event in world.events_of(grant.device) {
            let (log, seq) = (self.logs[event], world.events[event].seq);
            let behind = world.events[event].deeds.len();
            for item in 0..=behind {
                let number = if item == behind {
                    u32::MAX
                } else {
                    item_number(item)
                };
                if live.is_live_at(log, (seq, number)) {
                    places.insert((event, item));
                }
            }
        }
        Ok(GrantOutcome {
            rank: live.rank.clone(),
            ended_by,
            live: places,
        })
    }

    fn at(&self, world: &World, rights: &Rights, number: usize) -> Result<(Option<Role>, u8), String> {
        let event = &world.events[number];
        let (device, log) = (device_id(world, event.author), self.logs[number]);
        let writable = rights.writable_at(&device, log, event.seq);
        let steps = rights.steps(&device, log);
        let step = steps.range(..=event.seq).next_back().map(|(_, step)| step);
        if step != Some(&writable) || !steps.contains_key(&0) {
            return Err(format!(
                "Steps {steps:?}, but at event {number} it is {writable:?}"
            ));
        }
        Ok((rights.role_at(&device, log, event.seq), reach(&writable)))
    }
}

/// Names the log of each event as it arrives: what goes on behind a log's last event is that log's, anything else is a
/// new one.
fn name_logs(world: &World, order: &[usize], names: &mut Rng, history: &mut History) -> Vec<ShortId> {
    let mut logs: Vec<Option<ShortId>> = vec![None; world.events.len()];
    let mut last: BTreeMap<ShortId, usize> = BTreeMap::new();
    for number in order {
        let event = &world.events[*number];
        let main = device_id(world, event.author).short();
        let before = event.prev.map_or(Some(main), |prev| logs[prev]);
        let before = before.expect("the order respects pasts");
        let log = if last.get(&before).copied() == event.prev {
            before
        } else {
            let log = ShortId::new(names.next().to_be_bytes());
            let branch = Branch {
                device: device_id(world, event.author),
                of: before,
                from: event.seq,
            };
            history.add_branch(log, branch);
            log
        };
        last.insert(log, *number);
        logs[*number] = Some(log);
    }
    logs.into_iter()
        .map(|log| log.expect("every event arrives"))
        .collect()
}

/// Returns a device's id. Their order says nothing.
fn device_id(world: &World, device: usize) -> DeviceId {
    let short_of = match world.twins {
        Some((one, other)) if other == device => one,
        _ => device,
    };
    let mut bytes = [device as u8; 32];
    bytes[..8].copy_from_slice(&Rng::new(short_of as u64).next().to_be_bytes());
    DeviceId::new(bytes)
}

fn event_id(id: u64) -> EventId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    EventId::new(bytes)
}

fn scopes(scope: Scope) -> Scopes {
    let paths = scope.named().iter().map(|path| parse(path));
    Scopes::new(paths.collect()).expect("few paths")
}

fn reach(writable: &Writable) -> u8 {
    let covered = Scope::PATHS
        .iter()
        .enumerate()
        .filter(|(_, path)| writable.covers(&parse(path)));
    covered.map(|(bit, _)| 1 << bit).sum()
}

fn parse(path: &str) -> RelPath {
    RelPath::parse(path).expect("a path of these worlds")
}
