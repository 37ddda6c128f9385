//! Saying whose device a member is.

use super::{EventKind, Item, Reply, StateView, SyncEngine};
use crate::engine::CommandError;
use crate::ids::DeviceId;
use crate::ledger::Person;
use crate::time::Now;

impl SyncEngine {
    /// Returns whose device one is, if anybody said.
    pub(in crate::engine) fn person_of(&self, device: &DeviceId) -> Option<&Person> {
        self.group.as_ref()?.person_of(device)
    }

    /// Says whose device a member is. Nothing is published if that is what is known of it.
    pub(super) fn set_person(
        &mut self,
        device: DeviceId,
        person: Option<Person>,
        now: Now,
        view: &impl StateView,
    ) -> Result<Reply, CommandError> {
        let group = self.group_to_manage()?;
        if !group.is_member(&device) {
            return Err(CommandError::NoMember);
        }
        if group.person_of(&device) == person.as_ref() {
            return Ok(Reply::Done);
        }
        let items = vec![Item::Person {
            device,
            person: person.clone(),
        }];
        if self.imagine(&items, view).person_of(&device) != person.as_ref() {
            return Err(CommandError::Outranked);
        }
        self.publish(EventKind::Admin, items, now, view);
        Ok(Reply::Done)
    }
}
