//! The group in the store: the admin events, as far as they decide about roles or voters or say whose device one is, and what
//! devices had heard of.
//!
//! ```text
//! [group, null or [founder, recovery, name], [event…], [[log, dot, seq]…], [[device, hlc, name]…]]
//! event = [id, hlc, author, log, seq, [[log, next]…], [[item number, item bytes, [[size, root, log, size]…]]…]]
//! dot   = device, seq, item
//! ```
//!
//! Of `seen` an event has what changed since the one before it in the same log.

use std::collections::BTreeMap;

use super::{Group, KnownItem};
use crate::access::{History, LogPoint};
use crate::encoding::{
    self, Decoder, Encoder, ShapeError, array_len, array_of, bytes_of, infallible, optional,
};
use crate::engine::Recovered;
use crate::engine::join::GROUP;
use crate::ids::{DeviceId, Dot, EventId, GroupId, ShortId};
use crate::ledger::{Item, LogHead, LogState};
use crate::merkle::Peaks;
use crate::time::Hlc;

impl Group {
    /// Encodes for the store.
    pub(in crate::engine) fn to_bytes(&self) -> Vec<u8> {
        encoding::to_vec(|e| {
            infallible(e.array(5));
            infallible(e.bytes(self.id.as_bytes()));
            match &self.history {
                None => infallible(e.null()),
                Some(history) => {
                    infallible(e.array(3));
                    infallible(e.bytes(history.founder.as_bytes()));
                    infallible(e.bytes(history.recovery.as_bytes()));
                    infallible(e.str(&self.name));
                }
            }
            self.write_events(e);
            infallible(e.array(self.met.len() as u64));
            for ((log, place), seq) in &self.met {
                infallible(e.array(5));
                infallible(e.bytes(log.as_bytes()));
                write_dot(e, *place);
                infallible(e.u64(*seq));
            }
            infallible(e.array(self.names.len() as u64));
            for (device, (hlc, name)) in &self.names {
                infallible(e.array(3));
                infallible(e.bytes(device.as_bytes()));
                infallible(e.u64(hlc.bits()));
                infallible(e.str(name));
            }
        })
    }

    fn write_events(&self, e: &mut Encoder<'_>) {
        let events: Vec<_> = self.history.iter().flat_map(History::events).collect();
        let mut before: BTreeMap<ShortId, &BTreeMap<ShortId, u64>> = BTreeMap::new();
        infallible(e.array(events.len() as u64));
        for event in events {
            infallible(e.array(7));
            infallible(e.bytes(event.id.as_bytes()));
            infallible(e.u64(event.hlc.bits()));
            infallible(e.bytes(event.author.as_bytes()));
            infallible(e.bytes(event.log.as_bytes()));
            infallible(e.u64(event.seq));
            let known = before.insert(event.log, &event.seen);
            let news = event
                .seen
                .iter()
                .filter(|(log, next)| known.is_none_or(|known| known.get(log) != Some(next)));
            let news: Vec<_> = news.collect();
            infallible(e.array(news.len() as u64));
            for (log, next) in news {
                infallible(e.array(2));
                infallible(e.bytes(log.as_bytes()));
                infallible(e.u64(*next));
            }
            let from = Dot {
                device: event.log,
                seq: event.seq,
                item: 0,
            };
            let to = Dot {
                item: u32::MAX,
                ..from
            };
            let items: Vec<_> = self.items.range(from..=to).collect();
            infallible(e.array(items.len() as u64));
            for (place, known) in items {
                write_item(e, place.item, known);
            }
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(in crate::engine) fn from_bytes(bytes: &[u8]) -> Result<Self, ShapeError> {
        let mut d = Decoder::new(bytes);
        array_of(&mut d, 5)?;
        let mut group = Self::new(GroupId::new(bytes_of(&mut d)?));
        if let Some((founder, recovery, name)) = optional(&mut d, read_founding)? {
            group.name = name;
            group.history = Some(History::new(founder, recovery));
        }
        group.read_events(&mut d)?;
        for _ in 0..array_len(&mut d)? {
            array_of(&mut d, 5)?;
            let log = ShortId::new(bytes_of(&mut d)?);
            let place = read_dot(&mut d)?;
            let seq = d.u64()?;
            group.met.insert((log, place), seq);
            if let Some(history) = &mut group.history {
                history.note_seen(log, place, seq);
            }
        }
        for _ in 0..array_len(&mut d)? {
            array_of(&mut d, 3)?;
            let device = DeviceId::new(bytes_of(&mut d)?);
            let named = (Hlc::from_bits(d.u64()?), d.str()?.to_owned());
            group.names.insert(device, named);
        }
        group.settle();
        Ok(group)
    }

    fn read_events(&mut self, d: &mut Decoder<'_>) -> Result<(), ShapeError> {
        let mut logs: BTreeMap<ShortId, LogState> = BTreeMap::new();
        for _ in 0..array_len(d)? {
            array_of(d, 7)?;
            let id = EventId::new(bytes_of(d)?);
            let hlc = Hlc::from_bits(d.u64()?);
            let author = DeviceId::new(bytes_of(d)?);
            let name = ShortId::new(bytes_of(d)?);
            let seq = d.u64()?;
            let log = logs.entry(name).or_insert_with(|| LogState {
                name,
                ..LogState::empty(author)
            });
            log.peaks = Peaks::unknown(seq + 1);
            for _ in 0..array_len(d)? {
                array_of(d, 2)?;
                let device = ShortId::new(bytes_of(d)?);
                log.seen.insert(device, d.u64()?);
            }
            let mut items = Vec::new();
            for _ in 0..array_len(d)? {
                let (item, known) = read_item(d)?;
                let place = Dot {
                    device: name,
                    seq,
                    item,
                };
                items.push((place, known));
            }
            let log = log.clone();
            self.add(id, hlc, &log, items);
        }
        Ok(())
    }
}

impl Recovered {
    /// Says whether the group of a store can be read. One of an earlier format cannot, and an engine that starts with it
    /// would found another.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let group = self.settings.get(GROUP);
        group.is_none_or(|bytes| Group::from_bytes(bytes).is_ok())
    }
}

fn read_founding(d: &mut Decoder<'_>) -> Result<(DeviceId, DeviceId, String), ShapeError> {
    array_of(d, 3)?;
    let founder = DeviceId::new(bytes_of(d)?);
    let recovery = DeviceId::new(bytes_of(d)?);
    Ok((founder, recovery, d.str()?.to_owned()))
}

fn write_item(e: &mut Encoder<'_>, number: u32, known: &KnownItem) {
    infallible(e.array(3));
    infallible(e.u32(number));
    infallible(e.bytes(&known.item.to_bytes()));
    infallible(e.array(known.points.len() as u64));
    for (head, point) in &known.points {
        infallible(e.array(4));
        infallible(e.u64(head.size));
        infallible(e.bytes(&head.root));
        infallible(e.bytes(point.log.as_bytes()));
        infallible(e.u64(point.size));
    }
}

fn read_item(d: &mut Decoder<'_>) -> Result<(u32, KnownItem), ShapeError> {
    array_of(d, 3)?;
    let number = d.u32()?;
    let item = Item::from_bytes(d.bytes()?)?;
    let mut points = Vec::new();
    for _ in 0..array_len(d)? {
        array_of(d, 4)?;
        let head = LogHead {
            size: d.u64()?,
            root: bytes_of(d)?,
        };
        let log = ShortId::new(bytes_of(d)?);
        points.push((head, LogPoint { log, size: d.u64()? }));
    }
    Ok((number, KnownItem { item, points }))
}

fn write_dot(e: &mut Encoder<'_>, dot: Dot) {
    infallible(e.bytes(dot.device.as_bytes()));
    infallible(e.u64(dot.seq));
    infallible(e.u32(dot.item));
}

fn read_dot(d: &mut Decoder<'_>) -> Result<Dot, ShapeError> {
    Ok(Dot {
        device: ShortId::new(bytes_of(d)?),
        seq: d.u64()?,
        item: d.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_another_format_is_not_taken_for_none() {
        let mut recovered = Recovered::default();
        assert!(recovered.is_readable());
        let group = Group::new(GroupId::new([7; 32]));
        recovered.settings.insert(GROUP.to_owned(), group.to_bytes());
        assert!(recovered.is_readable());
        recovered.settings.insert(GROUP.to_owned(), vec![0x83, 0, 0, 0]);
        assert!(!recovered.is_readable());
    }
}
