//! A device that is no member learns neither events nor heads.

use p2p_sync_tests::sim::world::World;

pub(super) fn check(world: &World) -> Result<(), String> {
    match world.stranger.secrets.first() {
        Some(secret) => Err(secret.clone()),
        None => Ok(()),
    }
}
