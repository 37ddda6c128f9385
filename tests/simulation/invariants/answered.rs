//! Everybody who was invited is in the group, and no running device leaves a question without an answer.

use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    let group = world.devices[0].status().group;
    for device in world.insiders() {
        let status = device.status();
        if status.group != group || status.role.is_none() {
            let (index, its) = (device.index, status.group);
            return Err(format!(
                "device {index} is in {its:?} as {:?}, not in {group:?}",
                status.role
            ));
        }
    }
    match world.unanswered().first() {
        Some(device) => Err(format!("device {device} left a question without an answer")),
        None => Ok(()),
    }
}
