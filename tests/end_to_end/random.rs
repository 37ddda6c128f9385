//! Random users and kills, in small: `soak` runs more of them.

use std::path::PathBuf;

use anyhow::Result;
use p2p_sync_tests::soak::{Options, run};

fn options(seed: u64, devices: u64, kills: u64) -> Options {
    Options {
        seed,
        seeds: 1,
        devices,
        rounds: 1,
        kills,
        quiet: 1,
        editor_race: None,
        bin_dir: None,
        work_dir: None::<PathBuf>,
    }
}

#[test]
fn two_users_lose_nothing_while_their_daemons_are_killed() -> Result<()> {
    run(&options(11, 2, 4), &mut |_| {})
}

#[test]
fn two_other_users_lose_nothing_while_their_daemons_are_killed() -> Result<()> {
    run(&options(12, 2, 4), &mut |_| {})
}

#[test]
fn three_users_lose_nothing_while_their_daemons_are_killed() -> Result<()> {
    run(&options(13, 3, 4), &mut |_| {})
}

#[test]
fn two_editors_of_one_file_lose_no_save() -> Result<()> {
    let race = Options {
        editor_race: Some(4),
        ..options(14, 2, 0)
    };
    run(&race, &mut |_| {})
}
