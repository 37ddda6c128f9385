//! What events mean for the group: who is in it, and whose events count.

use super::GROUP;
use crate::access::LogPoint;
use crate::engine::group::{Change, Group, heads_in};
use crate::engine::{Notification, Phase, StateView, SyncEngine};
use crate::ids::{DeviceId, ShortId};
use crate::ledger::{EventKind, Header, LogHead, LogState, VerifiedEvent};

impl SyncEngine {
    /// Takes up what an event means for the group; `log` is its author's log with it as the last event.
    pub(in crate::engine) fn apply_to_group(
        &mut self,
        event: &VerifiedEvent,
        log: &LogState,
        view: &impl StateView,
    ) {
        if event.header.kind == EventKind::Genesis && self.group.is_none() {
            self.group = Some(Group::new(event.id.as_group()));
        }
        let named = event.body.items.iter().flat_map(heads_in);
        let found = named.filter_map(|(device, head)| {
            let point = self.find_head(&device, &head, log, view)?;
            Some((device, head, point))
        });
        let found: Vec<_> = found.collect();
        let find = |device: &DeviceId, head: &LogHead| {
            let mut same = found.iter().filter(|(of, at, _)| (of, at) == (device, head));
            same.next().map(|(.., point)| *point)
        };
        let group = self.group.as_mut();
        let Some(change) = group.and_then(|group| group.apply(event, log, find)) else {
            return;
        };
        self.keep_group();
        self.peers.heads_moved();
        let regains = change.current.contains(&self.me);
        self.membership_changed(&change);
        if change.denied && event.header.author != self.me {
            self.notify(Notification::Denied {
                device: event.header.author,
                path: None,
            });
        }
        if regains {
            self.own_role_changed();
        }
        // The event itself was not applied yet.
        let own = |(of, from, to): &(ShortId, u64, u64)| {
            let seq = event.header.seq;
            *of == log.name && *from == seq && *to > seq
        };
        let judged = change.judged.iter().filter(|stretch| !own(stretch)).copied();
        let mut judged: Vec<_> = judged.collect();
        if change.other_voters {
            let size = |of: &LogState| of.size() - u64::from(of.name == log.name);
            judged = self.logs.values().map(|of| (of.name, 0, size(of))).collect();
        }
        self.judge_again(&judged, view);
    }

    /// Returns where a head of a device's log stands, if the author of `log` had it.
    pub(in crate::engine) fn find_head(
        &self,
        device: &DeviceId,
        head: &LogHead,
        log: &LogState,
        view: &impl StateView,
    ) -> Option<LogPoint> {
        let last = head.size.checked_sub(1)?;
        let is_it = |other: &&LogState| {
            if !log.has_seen(self.holder(other.name, last), last) {
                return false;
            }
            let next = || {
                let next = self.event_at(other.name, head.size, view)?;
                Some(Header::from_bytes(&next.event.header).ok()?.prev_root)
            };
            let root = if other.size() == head.size {
                Some(other.peaks.root())
            } else {
                next()
            };
            root == Some(head.root)
        };
        let Some(found) = self.logs_of(device.short()).find(is_it) else {
            return self.head_not_taken(device, head, log);
        };
        Some(LogPoint {
            log: self.holder(found.name, last),
            size: head.size,
        })
    }

    /// Returns where a head stands that nobody can look up who heard of another Revoke first: its author had more of a removed
    /// device's log than is taken here. Were it ignored, the same Revoke would keep less here than elsewhere.
    fn head_not_taken(&self, device: &DeviceId, head: &LogHead, log: &LogState) -> Option<LogPoint> {
        let short = device.short();
        let last = head.size.checked_sub(1)?;
        // What is taken may have changed with the event before this one: what was refused until then is yet to be had.
        let taken = self.logs_of(short).any(|of| of.size() >= head.size);
        (!taken && log.has_seen(short, last)).then_some(LogPoint {
            log: short,
            size: head.size,
        })
    }

    pub(super) fn keep_group(&mut self) {
        let bytes = self.group.as_ref().map(Group::to_bytes);
        self.pending.set_setting(GROUP, bytes);
    }

    /// Tells who came and who went.
    fn membership_changed(&mut self, change: &Change) {
        let Some(group) = &self.group else { return };
        let mut news = Vec::new();
        for device in &change.added {
            let name = group.name_of(device).to_owned();
            if let Some(role) = group.role(device)
                && group.members().any(|(member, ..)| member == device)
            {
                news.push(Notification::MemberAdded {
                    device: *device,
                    name,
                    role,
                });
            }
        }
        for device in &change.removed {
            news.push(Notification::MemberRemoved {
                device: *device,
                name: group.name_of(device).to_owned(),
            });
        }
        news.into_iter().for_each(|news| self.notify(news));
        let unknown = |device: &DeviceId| *device != self.me && !self.joining.presented.contains(device);
        let moved = change.added.iter().any(unknown) || !change.removed.is_empty();
        for device in change.added.iter().chain(&change.removed) {
            self.joining.presented.remove(device);
        }
        // With who went their grants may have gone, by which others showed that they came in: these can show it again. But
        // who catches up knows the group by what it was shown only.
        if !change.removed.is_empty() && self.phase != Phase::CatchingUp {
            self.joining.presented.clear();
        }
        if moved {
            self.enter_group();
        }
        self.own_membership_changed();
    }
}
