//! What scripts rely on: exit codes, JSON on standard output, words on standard error.

use anyhow::{Result, ensure};
use p2p_sync_tests::harness::Device;

/// The command was used wrongly.
const USAGE: i32 = 64;
/// What was given is not what it should be.
const DATA: i32 = 65;
/// The daemon cannot be reached.
const UNAVAILABLE: i32 = 69;

#[test]
fn without_a_daemon_the_exit_code_says_so() -> Result<()> {
    let device = Device::new("anna")?;
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["peers"],
        &["invite", "create"],
        &["rescan"],
    ] {
        let ctl = device.ctl(args.iter().copied())?;
        ensure!(ctl.code == Some(UNAVAILABLE), "{args:?}: {ctl:?}");
        ensure!(
            ctl.stdout.is_empty() && !ctl.stderr.is_empty(),
            "{args:?}: {ctl:?}"
        );
    }
    Ok(())
}

#[test]
fn wrong_usage_has_its_own_exit_code() -> Result<()> {
    let device = Device::started("anna")?;
    for args in [&["no-such-command"][..], &["status", "--no-such-flag"], &["join"]] {
        let ctl = device.ctl(args.iter().copied())?;
        ensure!(ctl.code == Some(USAGE), "{args:?}: {ctl:?}");
        ensure!(!ctl.stderr.is_empty(), "{args:?}: {ctl:?}");
    }
    let ctl = device.ctl(["join", "not-a-ticket"])?;
    ensure!(ctl.code == Some(DATA) && !ctl.stderr.is_empty(), "{ctl:?}");
    Ok(())
}

#[test]
fn help_and_version_are_answers_and_no_errors() -> Result<()> {
    let device = Device::new("anna")?;
    for args in [["--help"], ["--version"]] {
        let ctl = device.ctl(args)?;
        ensure!(ctl.code == Some(0) && !ctl.stdout.is_empty(), "{args:?}: {ctl:?}");
    }
    Ok(())
}

#[test]
fn second_daemon_on_the_same_folder_is_refused() -> Result<()> {
    let device = Device::started("anna")?;
    ensure!(
        !device.second_daemon()?.success(),
        "A second daemon ran on the same folder"
    );
    device.status()?;
    Ok(())
}

#[test]
fn stopping_removes_the_socket_and_succeeds() -> Result<()> {
    let mut device = Device::started("anna")?;
    device.write("a", "a")?;
    device.stop()?;
    ensure!(!device.socket().exists(), "The socket is left");
    device.start()
}
