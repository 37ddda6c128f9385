//! Who grants locks: the chain of the sets of voters (locks.md 3, *Reconfiguration*).
//!
//! Of the owners' items for one epoch one counts: of those that the voters before made room for there is only one, unless an
//! owner lied to them; of those that go by an owner's word alone, the most senior owner's. All devices with the same events
//! find the same chain.

use super::Group;
use crate::access::{AdminEvent, History, Rank, Role};
use crate::ids::{DeviceId, Dot, EventId};
use crate::ledger::{Item, Voters};

/// The voters of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Epoch {
    /// The item that named them; `None`: the group was founded with them.
    pub(in crate::engine) place: Option<Dot>,
    /// What the set is called; zeros for that of the founding.
    pub(in crate::engine) set: [u8; 32],
    /// Who.
    pub(in crate::engine) voters: Vec<DeviceId>,
}

/// Which of two items for one epoch counts: the lesser.
type Order<'a> = (bool, &'a Rank, EventId, u32);

/// An owner's item.
struct Named<'a> {
    item: &'a Voters,
    place: Dot,
    event: &'a AdminEvent,
    rank: &'a Rank,
}

impl Group {
    /// Returns the newest epoch of voters.
    pub(in crate::engine) fn epoch(&self) -> u64 {
        (self.epochs.len() as u64).saturating_sub(1)
    }

    /// Returns what is known of an epoch; `None`: it has not begun.
    pub(in crate::engine) fn epoch_at(&self, epoch: u64) -> Option<&Epoch> {
        self.epochs.get(usize::try_from(epoch).ok()?)
    }

    /// Returns the voters of an epoch; `None`: it has not begun.
    pub(in crate::engine) fn voters(&self, epoch: u64) -> Option<Vec<DeviceId>> {
        Some(self.epoch_at(epoch)?.voters.clone())
    }

    /// Says whether other voters follow by an item at this place.
    pub(super) fn is_followed(&self, place: Dot) -> bool {
        self.epochs.iter().any(|epoch| epoch.place == Some(place))
    }

    /// Finds the chain.
    pub(super) fn find_epochs(&self) -> Vec<Epoch> {
        let Some(history) = &self.history else {
            return Vec::new();
        };
        let mut epochs = vec![Epoch {
            place: None,
            set: [0; 32],
            voters: vec![history.founder],
        }];
        let named: Vec<Named<'_>> = self.named_voters(history).collect();
        while let Some(last) = epochs.last() {
            let number = epochs.len() as u64;
            let candidates = named.iter().filter(|named| named.item.epoch == number);
            let ordered = candidates.filter_map(|named| Some((self.order(named, &last.voters)?, named)));
            let Some((_, next)) = ordered.min_by_key(|(order, _)| *order) else {
                break;
            };
            epochs.push(Epoch {
                place: Some(next.place),
                set: next.item.next(next.event.author).hash(&self.id),
                voters: next.item.voters.clone(),
            });
        }
        epochs
    }

    /// Returns the owners' items about voters.
    fn named_voters<'a>(&'a self, history: &'a History) -> impl Iterator<Item = Named<'a>> {
        let all = history.events().flat_map(|event| {
            self.items_of(event)
                .map(move |(place, item)| (event, place, item))
        });
        all.filter_map(|(event, place, item)| {
            let Item::Voters(item) = item else { return None };
            let at = (place.seq, place.item);
            let acting = self.rights.live_at(&event.author, place.device, at);
            let owner = acting.filter(|grant| grant.role == Role::Owner);
            let rank = owner.map(|grant| &grant.rank).min()?;
            Some(Named {
                item,
                place,
                event,
                rank,
            })
        })
    }

    /// Says where an item stands among those for its epoch; `None`: its voters do not follow these.
    fn order<'a>(&self, named: &Named<'a>, before: &[DeviceId]) -> Option<Order<'a>> {
        let forced = match named.item.succession(named.event.author, &self.id) {
            Some(succession) => {
                let epoch = named.item.epoch.checked_sub(1)?;
                succession.check(&self.id, epoch, before).ok()?;
                false
            }
            None if named.item.next(named.event.author).is_well_formed() => true,
            None => return None,
        };
        Some((forced, named.rank, named.event.id, named.place.item))
    }
}
