//! What must always be so, and what must be possible.

use stateright::Property;

use super::{Locks, Stage, State, TOKEN_NOT_ABOVE, WITHOUT_LAST_WRITE};

pub(super) fn properties() -> Vec<Property<Locks>> {
    vec![
        Property::always("one holder at a time", |model: &Locks, state: &State| {
            let holders = (0..state.tries.len()).filter(|at| model.believes(state, *at));
            holders.count() <= 1
        }),
        Property::always("tokens rise", |_, state: &State| {
            state.wrong != Some(TOKEN_NOT_ABOVE)
        }),
        Property::always("the next holder has the last write", |_, state: &State| {
            state.wrong != Some(WITHOUT_LAST_WRITE)
        }),
        Property::always("what lasts is recorded", |model: &Locks, state: &State| {
            let recorded = model.recorded(state);
            let voters = state.voters.iter().flatten();
            let mut slots = voters.flat_map(|voter| voter.state().slots.iter());
            slots.all(|(id, slot)| !slot.durable || recorded.contains(id))
        }),
        Property::sometimes("a lock changes hands", |_, state: &State| state.handed_over),
        Property::sometimes("a lock is let go", |model: &Locks, state: &State| {
            !model.releases || state.tries.iter().any(|one| one.stage == Stage::Done)
        }),
        Property::sometimes("who is gone is followed", |model: &Locks, state: &State| {
            let gone = |at: usize| {
                let one = &state.tries[at];
                one.stage == Stage::Crashed && model.is_quorum(one.votes, model.tries[at])
            };
            let followed = (0..state.tries.len()).any(gone)
                && (0..state.tries.len()).any(|at| model.believes(state, at));
            model.crashes == 0 || followed
        }),
    ]
}
