//! What an invite's key signs.

use crate::ids::{DeviceId, GroupId};

const GRANT_CONTEXT: &[u8] = b"p2p-sync/grant/1\0";

/// Returns what an invite's key signs for the Grant that redeems it.
pub(crate) fn grant_message(group: &GroupId, device: &DeviceId) -> Vec<u8> {
    [GRANT_CONTEXT, group.as_bytes(), device.as_bytes()].concat()
}
