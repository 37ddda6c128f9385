//! Random runs of simulated groups, each checked against the invariants.

mod invariants;

use p2p_sync_tests::sim::trace::Sink;

/// Seeds in each of the tests below; two of them run at a time on two cores.
const SEEDS_PER_TEST: u64 = 250;

#[test]
fn seeds_of_the_first_quarter_hold_all_invariants() {
    check(0);
}

#[test]
fn seeds_of_the_second_quarter_hold_all_invariants() {
    check(1);
}

#[test]
fn seeds_of_the_third_quarter_hold_all_invariants() {
    check(2);
}

#[test]
fn seeds_of_the_fourth_quarter_hold_all_invariants() {
    check(3);
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in 0..100 {
        let first = invariants::run(seed, Sink::Drop).map(|world| world.trace().hash());
        let second = invariants::run(seed, Sink::Drop).map(|world| world.trace().hash());
        assert_eq!(first, second, "seed {seed}");
    }
}

fn check(quarter: u64) {
    for seed in quarter * SEEDS_PER_TEST..(quarter + 1) * SEEDS_PER_TEST {
        if let Err(reason) = invariants::run(seed, Sink::Drop) {
            panic!("seed {seed}: {reason}\nsee it with: simulate --from {seed} --seeds 1 --trace");
        }
    }
}
