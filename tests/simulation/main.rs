//! Random runs of simulated groups, each checked against the invariants, and each run twice: the same seed must give
//! the same trace.

mod ignoring;
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

fn check(quarter: u64) {
    for seed in quarter * SEEDS_PER_TEST..(quarter + 1) * SEEDS_PER_TEST {
        let hash = || invariants::run(seed, Sink::Drop).map(|world| world.trace().hash());
        let first = hash().unwrap_or_else(|reason| {
            panic!("seed {seed}: {reason}\nsee it with: simulate --from {seed} --seeds 1 --trace");
        });
        assert_eq!(hash(), Ok(first), "seed {seed} runs another way the second time");
    }
}
