//! Roles (roles.md 1 to 4) over random histories of groups whose devices fork, back-date and work together.
//!
//! [`p2p_sync_core::access::evaluate`] settles each grant once, in an order that it knows to be right. The oracle knows no
//! order: it applies the definitions, over explicit pasts, until nothing changes. `cargo run -p p2p_sync_core --example
//! search_roles -- FROM COUNT` checks as many histories as you like.

use roles::generate::{self, Rng};
use roles::oracle::solve;
use roles::outcome::evaluated;
use roles::properties::{self, Check};
use roles::rule::Rule;
use roles::shrink::check_seed;
use roles::world::World;

mod roles {
    mod cases;
    pub(crate) mod generate;
    pub(crate) mod known;
    pub(crate) mod oracle;
    pub(crate) mod outcome;
    pub(crate) mod properties;
    pub(crate) mod rule;
    pub(crate) mod shrink;
    pub(crate) mod world;
}

/// Histories that are held against the oracle.
const ORACLE_RUNS: u64 = 100_000;
/// Histories for each of the other properties.
const RUNS: u64 = 3_000;

#[test]
fn evaluation_equals_the_definitions() {
    hold(properties::equals_the_oracle, ORACLE_RUNS, 100_000);
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    hold(properties::order_of_arrival_does_not_matter, RUNS, 1_000);
}

#[test]
fn no_two_concurrent_revokes_end_each_other() {
    hold(properties::no_two_revokes_end_each_other, RUNS, 1_000);
}

#[test]
fn only_revokes_and_cancels_change_what_was() {
    hold(properties::only_ends_change_what_was, RUNS, 1_000);
}

#[test]
fn an_event_touches_only_what_its_author_may_touch() {
    hold(
        properties::an_event_touches_only_what_its_author_may_touch,
        RUNS,
        1_000,
    );
}

#[test]
fn revoked_devices_that_work_together_regain_nothing() {
    hold(properties::revoked_devices_regain_nothing, RUNS, 1_000);
}

#[test]
fn every_mistake_in_the_rules_shows() {
    let mut unseen = Rule::MISTAKES.to_vec();
    for seed in 0..ORACLE_RUNS {
        let world = generate::world(seed);
        let outcome = evaluated(&world).ok();
        unseen.retain(|rule| solve(&world, *rule) == outcome);
        if unseen.is_empty() {
            return;
        }
    }
    panic!("No history tells these from the rules: {unseen:?}");
}

#[test]
fn each_property_fails_under_a_mistake_in_the_rules() {
    let pairs: [(Check, Rule); 5] = [
        (properties::equals_the_oracle, Rule::CutByNumber),
        (
            properties::no_two_revokes_end_each_other,
            Rule::EqualLevelDominates,
        ),
        (properties::only_ends_change_what_was, Rule::OpenInvite),
        (
            properties::an_event_touches_only_what_its_author_may_touch,
            Rule::RevokeEndsDevice,
        ),
        (properties::revoked_devices_regain_nothing, Rule::CutByNumber),
    ];
    for (check, rule) in pairs {
        let judge = |world: &World| solve(world, rule).ok_or_else(|| "no solution".to_owned());
        let fails = |seed: u64| {
            let world = generate::world(seed);
            judge(&world).is_ok() && check(&judge, &world, &mut Rng::new(!seed)).is_err()
        };
        assert!((0..ORACLE_RUNS).any(fails), "A property holds under {rule:?}");
    }
}

/// Checks `runs` seeds, and that there was enough to check.
fn hold(check: Check, runs: u64, enough: usize) {
    let mut checked = 0;
    for seed in 0..runs {
        match check_seed(check, seed) {
            Ok(count) => checked += count,
            Err(why) => panic!("{why}"),
        }
    }
    assert!(checked >= enough, "The histories are too tame: {checked}");
}
