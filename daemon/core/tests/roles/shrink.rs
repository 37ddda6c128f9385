//! Makes a world that fails a check smaller.

use crate::roles::generate::{Rng, world};
use crate::roles::outcome::evaluated;
use crate::roles::properties::Check;
use crate::roles::world::World;

/// Checks the world of a seed.
///
/// Returns how much there was to check, or the smallest world found that fails, and how.
pub(crate) fn check_seed(check: Check, seed: u64) -> Result<usize, String> {
    let world = world(seed);
    let run = |world: &World| check(&evaluated, world, &mut Rng::new(!seed));
    run(&world).map_err(|_| {
        let small = shrink(world, &|world| run(world).is_err());
        let why = run(&small).err().unwrap_or_default();
        format!("seed {seed}: {why}\n{small}")
    })
}

/// Takes events and items out of a world for as long as it still fails.
fn shrink(mut world: World, fails: &dyn Fn(&World) -> bool) -> World {
    loop {
        let found = smaller(&world).find(|smaller| fails(smaller));
        match found {
            Some(smaller) => world = smaller,
            None => return world,
        }
    }
}

fn smaller(world: &World) -> impl Iterator<Item = World> {
    let events = (0..world.events.len()).rev();
    let whole = events.clone().map(|event| world.without(event));
    let items = events.flat_map(move |event| {
        (0..world.events[event].deeds.len()).map(move |item| {
            let mut world = world.clone();
            world.events[event].deeds.remove(item);
            world
        })
    });
    whole.chain(items)
}
