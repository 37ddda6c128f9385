//! What must hold in every run; one file per property. Numbers are those of the design's list of invariants.
//!
//! | property | file |
//! |---|---|
//! | 1 equal sets of events give equal states and members | `equal_states` |
//! | 2 taking an event again changes nothing | `idempotent` |
//! | 5 logs and clocks only go forward | `forward` |
//! | 6 nothing is said before it is durable | `durable_first` |
//! | 9 connected devices reach equal heads | `equal_heads` |
//! | 14 no published content vanishes | `nothing_vanishes` |
//! | 16 names of copies are injective and equal | `copy_names` |
//! | 17 an edit beside a deletion stays | `edits_survive` |
//! | 18 the folder is what the ledger says, on all devices | `equal_trees` |
//! | 19 an idle group is silent | `silence` |
//! | all who were invited are in, and every question is answered | `answered` |
//! | 30 no event blames a user for an install | `not_blamed` |
//! | the stored ledger is found sound, from its bytes | `sound_ledger` |
//! | strangers learn nothing | `strangers` |
//! | many deletions that nobody saw are not published unasked | `guarded` |
//! | no byte of a user's is lost | `users_bytes` |

mod answered;
mod copy_names;
mod durable_first;
mod edits_survive;
mod equal_heads;
mod equal_states;
mod equal_trees;
mod forward;
mod guarded;
mod idempotent;
mod not_blamed;
mod nothing_vanishes;
mod silence;
mod sound_ledger;
mod strangers;
mod users_bytes;

use p2p_sync_tests::sim::plan::Plan;
use p2p_sync_tests::sim::trace::Sink;
use p2p_sync_tests::sim::world::{Observer, World};

type Check = fn(&World) -> Result<(), String>;

/// Checks of a group at rest, with their names.
const AT_REST: [(&str, Check); 11] = [
    ("answered", answered::check),
    ("equal heads", equal_heads::check),
    ("equal states", equal_states::check),
    ("forward", forward::check),
    ("copy names", copy_names::check),
    ("nothing vanishes", nothing_vanishes::check),
    ("edits survive", edits_survive::check),
    ("users' bytes", users_bytes::check),
    ("equal trees", equal_trees::check),
    ("strangers", strangers::check),
    ("sound ledger", sound_ledger::check),
];

fn observers() -> Vec<Box<dyn Observer>> {
    vec![
        Box::new(durable_first::DurableFirst),
        Box::new(guarded::Guarded),
        Box::new(not_blamed::NotBlamed),
    ]
}

/// Runs a plan and checks everything.
///
/// # Errors
/// The first property that does not hold, in words that begin with its name.
pub(crate) fn run(plan: Plan, sink: Sink) -> Result<World, String> {
    let mut world = World::with_plan(plan, sink, observers());
    world.run()?;
    for (name, check) in AT_REST {
        check(&world).map_err(|reason| format!("{name}: {reason}"))?;
    }
    silence::check(&mut world).map_err(|reason| format!("silence: {reason}"))?;
    idempotent::check(&mut world).map_err(|reason| format!("idempotent: {reason}"))?;
    Ok(world)
}
