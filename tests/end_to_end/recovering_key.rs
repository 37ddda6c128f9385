//! All owners are lost, and somebody has the recovery words.

use anyhow::{Context, Result, ensure};
use bip39::{Language, Mnemonic};
use p2p_sync_daemon::store::Store;
use p2p_sync_tests::harness::{Device, settle};

use crate::removing::{nobody_misbehaved, wait_roles};
use crate::roles::{expect, group, has, settle_all, ticket, wait_file, wait_role, wait_state};

/// What is typed are no recovery words.
const DATA: i32 = 65;

/// Returns the words of the device that founded the group, which is stopped. `syncctl recovery show` writes them to a
/// terminal only.
fn words(founder: &Device) -> Result<String> {
    let store = Store::open(&founder.state().join("store.sqlite"))?;
    let settings = store.load()?.settings;
    let secret = settings.get("recovery").context("The founder keeps the secret")?;
    words_of(secret)
}

fn words_of(secret: &[u8]) -> Result<String> {
    let words = Mnemonic::from_entropy_in(Language::English, secret).ok();
    let words = words.context("A secret has 32 bytes")?;
    Ok(words.words().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_group_that_lost_its_owner_gets_another_by_the_words_who_removes_the_lost_one() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("cleo", "admin")])?;
    devices[0].write("old", "of anna")?;
    settle_all(&devices)?;
    devices[1].connect(&devices[2])?;
    devices[0].stop()?;
    let words = words(&devices[0])?;
    let typed = |device: &Device, text: &str| device.ctl_with_input(["recovery", "use"], text);
    let refused = typed(&devices[1], &words.replacen(' ', " zoo ", 1))?;
    ensure!(refused.code == Some(DATA), "{refused:?}");
    // Right by their sum, and another group's.
    let refused = typed(&devices[1], &words_of(&[7; 32])?)?;
    ensure!(refused.code != Some(0), "{refused:?}");
    wait_role(&devices[1], "ben", Some("editor"))?;
    let used = typed(&devices[1], &format!("{words}\n"))?;
    ensure!(used.code == Some(0), "{used:?}");
    wait_role(&devices[2], "ben", Some("owner"))?;
    expect(&devices[2], &["member", "remove", "ben", "--yes"], false)?;
    expect(&devices[1], &["member", "remove", "anna", "--yes"], true)?;
    expect(&devices[1], &["member", "role", "cleo", "owner"], true)?;
    // The lost device turns up, and whoever found it works on.
    devices[0].write("old", "of the finder")?;
    devices[0].start()?;
    devices[0].connect(&devices[1])?;
    wait_state(&mut devices[0], "removed")?;
    let (owner, members) = (Some("owner"), [&devices[1], &devices[2]]);
    wait_roles(&members, &[("anna", None), ("ben", owner), ("cleo", owner)])?;
    settle(&members)?;
    devices[2].write("new", "of cleo")?;
    wait_file(&mut devices[1], "new", "of cleo")?;
    has(&devices[1], "old", "of anna")?;
    has(&devices[0], "old", "of the finder")?;
    for device in &mut devices[1..] {
        device.restart()?;
    }
    let members = [&devices[1], &devices[2]];
    wait_roles(&members, &[("anna", None), ("ben", owner), ("cleo", owner)])?;
    nobody_misbehaved(&members)
}

#[test]
fn with_a_thief_go_those_whom_only_he_let_in() -> Result<()> {
    let mut devices = group(&[("ben", "admin"), ("cleo", "editor")])?;
    for (name, role) in [("dora", "editor"), ("eve", "viewer")] {
        let device = Device::started(name)?;
        device.join(&ticket(&devices[1], &["--role", role])?)?;
        devices.push(device);
    }
    for device in &devices {
        wait_role(device, "eve", Some("viewer"))?;
    }
    // They know the address of who let them in.
    for device in &devices[3..] {
        device.connect(&devices[0])?;
    }
    // Whom somebody else took for a member, too, is one by that.
    devices[0].ctl_ok(["member", "role", "eve", "editor"])?;
    wait_role(&devices[4], "eve", Some("editor"))?;
    devices[3].write("of dora", "known to all")?;
    wait_file(&mut devices[0], "of dora", "known to all")?;
    settle_all(&devices)?;
    let json = devices[0].ctl_json(["member", "remove", "ben", "--with-admitted", "--yes", "--json"])?;
    let removed = json["removed"].as_array().context("A list")?;
    ensure!(removed.len() == 2, "{json}");
    for index in [1, 3] {
        wait_state(&mut devices[index], "removed")?;
    }
    let members = [&devices[0], &devices[2], &devices[4]];
    wait_roles(
        &members,
        &[
            ("anna", Some("owner")),
            ("ben", None),
            ("cleo", Some("editor")),
            ("dora", None),
            ("eve", Some("editor")),
        ],
    )?;
    devices[4].write("of eve", "as ever")?;
    wait_file(&mut devices[2], "of eve", "as ever")?;
    // What she had done before stays.
    has(&devices[2], "of dora", "known to all")?;
    let members = [&devices[0], &devices[2], &devices[4]];
    settle(&members)?;
    nobody_misbehaved(&members)
}
