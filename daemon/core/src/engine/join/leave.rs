//! How a device leaves its group: it forgets it and founds one of its own, and its files stay where they are.
//!
//! The others keep it on their lists until somebody removes it there. They may go on dialling it and show their way in;
//! it does not take them for members, and they do not ask often.

use super::{Joining, LEFT};
use crate::engine::{CommandError, Output, Reply, StateView, SyncEngine};
use crate::ids::DeviceId;
use crate::time::Now;

impl SyncEngine {
    pub(super) fn leave(&mut self, now: Now, view: &impl StateView) -> Result<Reply, CommandError> {
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?;
        if self.joining.active.is_some() || self.joining.asking.is_some() {
            return Err(CommandError::Busy);
        }
        if group.members().all(|(device, ..)| *device == self.me) && !self.joining.must_compare {
            return Err(CommandError::Invalid("This device is alone in its group"));
        }
        let left = group.id;
        let former = std::mem::take(&mut self.joining);
        for address in former.dial {
            self.emit(Output::Undial { address });
        }
        self.joining = Joining {
            lan: former.lan,
            left: Some(left),
            ..Joining::default()
        };
        self.leave_group();
        self.group = None;
        self.peers.forget_group();
        self.pending.set_setting(LEFT, Some(left.as_bytes().to_vec()));
        self.found_group(now, view);
        let group = self.group.as_ref().ok_or(CommandError::NoGroup)?.id;
        Ok(Reply::Left { group })
    }

    /// A device does not take us for a member though it was shown our way in: it left, or is in another group. Asking
    /// it again and again would wake both for ever.
    pub(super) fn not_wanted_by(&mut self, device: DeviceId, now: Now) {
        self.peers.leave_alone(&device, now);
    }
}
