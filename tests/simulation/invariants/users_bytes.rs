//! No byte of a user's is lost: each content that somebody wrote, and that nobody replaced or deleted having it before
//! his eyes, is in a folder. What he wrote into the daemon's own directory may be among the old versions, for the next
//! copy of that name takes its place; so may be what two users renamed to and fro at a time,
//! where an old copy of a state was put back, what stood in a folder when that copy was made, and where roles change, what
//! somebody wrote who may not.

use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    for (content, author) in &world.users.authors {
        // What lies in the daemon's own directory never leaves its machine.
        let switched_off = world.devices.iter().any(|device| device.twin_keeps(content));
        if world.users.given_up.contains(content) || switched_off {
            continue;
        }
        let in_folder = |device: &p2p_sync_tests::sim::device::Device| {
            device
                .disk
                .tree()
                .values()
                .any(|inode| inode.entry().node.content() == Some(*content))
        };
        if !world.devices.iter().any(in_folder) {
            let aside = world.devices.iter().any(|device| device.disk.put_aside(content));
            let may_be_aside = world.plan.restores()
                || world.plan.changes_roles()
                || world.users.unsynced.contains(content)
                || world.users.crossed(content);
            if aside && may_be_aside {
                continue;
            }
            let also = if aside { ", only among old versions" } else { "" };
            return Err(format!(
                "{content:?}, written on device {author}, is in no folder{also}"
            ));
        }
    }
    Ok(())
}
