//! How much of each log must be here, for those who look at a stored ledger from outside.

use super::group::Group;
use super::join;
use crate::ids::ShortId;

/// What a store says of the group.
#[derive(Debug)]
pub struct Taken(Option<Group>);

impl Taken {
    /// The name of the setting that it is read from.
    pub const SETTING: &str = join::GROUP;

    /// Reads a setting; everything should be here if there is none, or if it cannot be read.
    #[must_use]
    pub fn read(setting: Option<&[u8]>) -> Self {
        Self(setting.and_then(|bytes| Group::from_bytes(bytes).ok()))
    }

    /// Returns how many events of a log are here for certain, if it has so many.
    #[must_use]
    pub fn of(&self, log: ShortId) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |group| group.taken(log))
    }
}
