//! The models, as far as every change can afford them; `cargo run --release -p p2p_sync_tests --bin model` looks further.

use p2p_sync_tests::model::locks::{Mistake, Outcome, cases};

#[test]
fn locks_exclude_in_every_order_of_messages_clocks_and_crashes() {
    for (name, model) in cases::small() {
        let outcome = Outcome::of(model);
        assert_eq!(outcome.broken, [""; 0], "{name}: {outcome:?}");
        assert_eq!(outcome.impossible, [""; 0], "{name}: {outcome:?}");
    }
}

#[test]
fn every_mistake_breaks_a_rule() {
    for mistake in Mistake::ALL {
        let outcome = Outcome::of(cases::wrong(mistake));
        assert!(!outcome.broken.is_empty(), "{mistake:?}: {outcome:?}");
    }
}
