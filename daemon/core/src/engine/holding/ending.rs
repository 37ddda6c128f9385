//! How locks end: released by their user after what he changed last was published, or broken.

use std::collections::BTreeSet;

use super::{Ending, LockReply, LockReport, PUBLISH_TIMEOUT};
use crate::access::Role;
use crate::engine::locks::Grant;
use crate::engine::{CommandError, CommandId, LookNo, Output, StateView, SyncEngine};
use crate::ids::{DeviceId, Dot};
use crate::ledger::{EndReason, EventKind, Item, LockBreak, LockEnd, MAX_REASON};
use crate::lock::Resource;
use crate::time::Now;

impl SyncEngine {
    /// Has the paths looked at, after which the lock is released.
    pub(super) fn release_lock(
        &mut self,
        id: CommandId,
        resource: &Resource,
        now: Now,
        view: &impl StateView,
    ) -> Result<(), CommandError> {
        self.may_hold()?;
        if self.paused {
            return Err(CommandError::Invalid(
                "The folder is paused, so what was changed under the lock cannot be published",
            ));
        }
        let locks = self.reports(now, view);
        let named = |lock: &&LockReport| lock.resources.contains(resource);
        let Some(lock) = locks.iter().filter(named).max_by_key(|lock| lock.is_own) else {
            return Err(CommandError::NoLock);
        };
        if !lock.is_own {
            return Err(CommandError::Locked(Box::new(lock.clone())));
        }
        if self.holding.ending.contains_key(&lock.place) {
            return Err(CommandError::Busy);
        }
        self.look_and_release(lock, Some(id), now);
        Ok(())
    }

    pub(super) fn look_and_release(&mut self, lock: &LockReport, command: Option<CommandId>, now: Now) {
        self.holding.looks += 1;
        let look = LookNo(self.holding.looks);
        let ending = Ending {
            command,
            look,
            is_looked: false,
            until: now.boot.after(PUBLISH_TIMEOUT),
            report: None,
        };
        self.holding.ending.insert(lock.place, ending);
        let paths = lock.resources.iter().map(|resource| resource.path().clone());
        let paths = paths.collect();
        self.emit_now(Output::Look { no: look, paths });
    }

    /// The paths of a lock that is to be released were looked at.
    pub(in crate::engine) fn looked(&mut self, no: LookNo) {
        for ending in self.holding.ending.values_mut() {
            ending.is_looked |= ending.look == no;
        }
    }

    pub(super) fn break_lock(
        &mut self,
        resource: &Resource,
        reason: String,
        now: Now,
        view: &impl StateView,
    ) -> Result<LockReply, CommandError> {
        self.may_hold()?;
        if reason.len() > MAX_REASON {
            return Err(CommandError::Invalid("A reason has at most 1024 bytes"));
        }
        let locks = self.reports(now, view).into_iter();
        let Some(lock) = locks
            .filter(|lock| lock.resources.contains(resource))
            .max_by_key(|lock| lock.token)
        else {
            return Err(CommandError::NoLock);
        };
        let is_over = lock.until_ms.is_some_and(|until| now.wall_ms >= until);
        let allowed = lock.is_own || is_over || self.my_role().is_some_and(|role| role >= Role::Admin);
        if !allowed || !self.may_lock(&self.me, &lock.resources) {
            return Err(CommandError::NotAllowed);
        }
        let grant = lock.place;
        let item = if lock.is_own {
            Item::LockEnd(LockEnd {
                grant,
                reason: EndReason::Released,
            })
        } else {
            Item::LockBreak(LockBreak { grant, reason })
        };
        self.publish(EventKind::Work, vec![item], now, view);
        Ok(LockReply::Ended {
            lock,
            by_majority: false,
        })
    }

    /// Returns what breaks the locks of devices that are about to be removed, as far as this device may: nobody else will
    /// release them.
    pub(in crate::engine) fn breaks_of(
        &self,
        holders: &BTreeSet<DeviceId>,
        reason: &str,
        view: &impl StateView,
    ) -> Vec<Item> {
        let mut locks = self.held_locks(view);
        locks.retain(|lock| holders.contains(&lock.holder) && self.may_lock(&self.me, &lock.item.resources));
        let broken = |lock: Grant| {
            Item::LockBreak(LockBreak {
                grant: lock.place,
                reason: reason.to_owned(),
            })
        };
        locks.into_iter().map(broken).collect()
    }

    /// Ends the locks whose paths were looked at, and in which nothing waits to be published.
    pub(super) fn end_looked(&mut self, now: Now, view: &impl StateView) {
        let open = self
            .holding
            .ending
            .iter()
            .filter(|(_, ending)| ending.report.is_none());
        let open: Vec<Dot> = open.map(|(place, _)| *place).collect();
        if open.is_empty() || self.may_hold().is_err() {
            return;
        }
        let reports = self.reports(now, view);
        for place in open {
            let Some(ending) = self.holding.ending.get_mut(&place) else {
                continue;
            };
            let Some(report) = reports.iter().find(|report| report.place == place) else {
                // It was broken meanwhile.
                let command = ending.command;
                self.holding.ending.remove(&place);
                self.forget_lock(place);
                if let Some(id) = command {
                    self.reply_lock(id, Err(CommandError::NoLock));
                }
                continue;
            };
            let waits = |resource: &Resource| self.local.waits_in(resource);
            if ending.is_looked && !report.resources.iter().any(waits) {
                ending.report = Some(report.clone());
                self.publish_end(place, now, view);
                self.let_go(place, now);
            } else if now.boot >= ending.until {
                let command = ending.command;
                self.holding.ending.remove(&place);
                if let Some(id) = command {
                    let text = "Something there is still being written, or cannot be read, so the lock is held on; try again";
                    self.reply_lock(id, Err(CommandError::Invalid(text)));
                } else {
                    self.holding
                        .expires
                        .insert(place, now.boot.after(PUBLISH_TIMEOUT));
                }
            }
        }
    }

    /// Tells the voters that a lock is over.
    fn let_go(&mut self, place: Dot, now: Now) {
        let last = self.own_log().size();
        match self.holding.own.get(&place) {
            Some(lock) => self.holding.manager.release_lock(*lock, last, None, now.boot),
            None => {
                let ending = self.holding.ending.remove(&place);
                let told = ending.and_then(|ending| Some((ending.command?, ending.report?)));
                if let Some((id, lock)) = told {
                    let by_majority = false;
                    self.reply_lock(id, Ok(LockReply::Ended { lock, by_majority }));
                }
            }
        }
    }
}
