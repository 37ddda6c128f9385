//! Random runs of simulated groups, each checked against the invariants, and each run twice: the same seed must give
//! the same trace.

mod desk;
mod explaining;
mod floor;
mod guarding;
mod ignoring;
mod installing;
mod invariants;
mod joining;
mod leaving;
mod pausing;
mod publishing;
mod restored;

use p2p_sync_tests::sim::trace::Sink;

/// Seeds in each of the tests below; two of them run at a time on two cores.
const SEEDS_PER_TEST: u64 = 250;

/// Seeds that once failed, with what they showed. A change of the simulation gives a seed another meaning; then it is one
/// more seed like any other.
const KEPT: [u64; 7] = [
    7_771,   // the deletion of a conflict copy was held, and forgotten when its version was wanted elsewhere
    20_467,  // an edited conflict copy of a `.git` path stood in the way of the same copy
    101_725, // a source of a move that was not made was never let go
    103_378, // as 20467, and nobody looked at it
    203_452, // a content was dropped before the install that copies it; a rescue to a place below a file
    501_826, // an install of a former group was taken for one of the joined group, and undone
    510_936, // a temporary file was dropped for a rescue that failed, while another path's bytes were replaced
];

#[test]
fn kept_seeds_hold_all_invariants() {
    KEPT.into_iter().for_each(check_seed);
}

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
    (quarter * SEEDS_PER_TEST..(quarter + 1) * SEEDS_PER_TEST).for_each(check_seed);
}

fn check_seed(seed: u64) {
    let hash = || invariants::run(seed, Sink::Drop).map(|world| world.trace().hash());
    let first = hash().unwrap_or_else(|reason| {
        panic!("seed {seed}: {reason}\nsee it with: simulate --from {seed} --seeds 1 --trace");
    });
    assert_eq!(hash(), Ok(first), "seed {seed} runs another way the second time");
}
