//! What must hold in every run; one file per property.
//!
//! | property | file | from |
//! |---|---|---|

use p2p_sync_tests::sim::trace::Sink;
use p2p_sync_tests::sim::world::World;

/// Runs a seed and checks everything.
///
/// # Errors
/// The first property that does not hold, in words.
pub fn run(seed: u64, sink: Sink) -> Result<World, String> {
    let mut world = World::new(seed, sink, vec![]);
    world.run()?;
    Ok(world)
}
