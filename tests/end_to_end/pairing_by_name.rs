//! Devices come together by a name and six digits, if somebody types them where they are asked for.
//!
//! The daemons find each other by an address and not by mDNS, which there is none of on loopback; an address of this
//! machine counts as near.

use std::thread;

use anyhow::{Context, Result, ensure};
use p2p_sync_tests::harness::{Ctl, Device, DeviceOptions, Group, PATIENCE};

use crate::{settle_as_left, settle_without_conflict};

/// Started devices, each in a group of its own, of which the first is connected to the others.
fn neighbours<const N: usize>(names: [&str; N]) -> Result<[Device; N]> {
    let devices: Vec<Device> = names.into_iter().map(Device::started).collect::<Result<_>>()?;
    for other in &devices[1..] {
        devices[0].connect(other)?;
    }
    devices.try_into().ok().context("as many devices as names")
}

/// Waits until a device is asked, and returns who asks, with which digits.
fn asked(device: &mut Device) -> Result<(String, String)> {
    device.wait("a device to ask to be let in", PATIENCE, |device| {
        let answer = device.ctl_json(["approve", "--json"])?;
        let request = &answer["requests"][0];
        let (id, code) = (&request["device"]["id"], &request["code"]);
        Ok(match (id.as_str(), code.as_str()) {
            (Some(id), Some(code)) => Ok((id.to_owned(), code.to_owned())),
            _ => Err(answer.to_string()),
        })
    })
}

/// Lets `joiner` ask for a name while `member`, whom it asks, does something about it.
fn while_asking<T>(
    joiner: &Device,
    member: &mut Device,
    args: &[&str],
    act: impl FnOnce(&mut Device) -> Result<T>,
) -> Result<(Ctl, T)> {
    thread::scope(|scope| {
        let asking = scope.spawn(|| joiner.ctl(["join"].into_iter().chain(args.iter().copied())));
        let done = act(member);
        let ctl = asking.join().ok().context("The thread that asks")??;
        let done = done.with_context(|| format!("{ctl:?}{}", joiner.log_tail()))?;
        Ok((ctl, done))
    })
}

fn id(device: &Device) -> Result<String> {
    let answer = device.ctl_json(["device", "id", "--json"])?;
    let id = answer["id"].as_str().context("A device has an id")?;
    Ok(id.to_owned())
}

#[test]
fn two_devices_pair_by_name_and_digits() -> Result<()> {
    let [mut anna, ben] = neighbours(["anna", "ben"])?;
    anna.write("hello.txt", "hello\n")?;
    ben.write("from-ben.txt", "b")?;
    let (ctl, code) = while_asking(&ben, &mut anna, &["lan:ANNA"], |anna| {
        let (asker, code) = asked(anna)?;
        ensure!(asker == id(&ben)?, "{asker} asks");
        let status = anna.status()?;
        let warnings = status.0["warnings"].to_string();
        ensure!(warnings.contains("ben") && warnings.contains(&code), "{warnings}");
        let approved = anna.ctl_json(["approve", &asker[..8], &code, "--json"])?;
        ensure!(approved["role"] == "editor" && approved["device"]["name"] == "ben");
        Ok(code)
    })?;
    ensure!(ctl.code == Some(0), "{ctl:?}");
    let typed = format!("syncctl approve {} {code}", &id(&ben)?[..8]);
    ensure!(ctl.stdout.contains(&typed), "The digits differ: {ctl:?}");
    let warnings = anna.status()?.0["warnings"].to_string();
    ensure!(!warnings.contains("ben"), "{warnings}");
    let group = Group {
        devices: vec![anna, ben],
    };
    let tree = settle_without_conflict(&group)?;
    ensure!(tree.file_count() == 2, "{tree:?}");
    group[1].write("more.txt", "more")?;
    settle_as_left(&group, 1)?;
    Ok(())
}

#[test]
fn nobody_is_let_in_by_other_digits_or_without_asking() -> Result<()> {
    let [mut anna, ben] = neighbours(["anna", "ben"])?;
    let group_of = |device: &Device| Ok::<_, anyhow::Error>(device.status()?.0["group"].clone());
    let groups = (group_of(&anna)?, group_of(&ben)?);
    let unasked = anna.ctl(["approve", &id(&ben)?, "123456", "--json"])?;
    ensure!(unasked.stderr.contains("NO_SUCH_REQUEST"), "{unasked:?}");
    let (ctl, ()) = while_asking(&ben, &mut anna, &["lan:anna", "--json"], |anna| {
        let (asker, code) = asked(anna)?;
        let wrong = if code == "000000" { "000001" } else { "000000" };
        for left in ["2 tries are left", "one try is left", "the request is dropped"] {
            let refused = anna.ctl(["approve", &asker, wrong])?;
            ensure!(
                refused.code == Some(1) && refused.stderr.contains(left),
                "{refused:?}"
            );
        }
        let late = anna.ctl(["approve", &asker, &code])?;
        ensure!(late.code == Some(1), "{late:?}");
        Ok(())
    })?;
    ensure!(
        ctl.code == Some(1) && ctl.stderr.contains("JOIN_TURNED_DOWN"),
        "{ctl:?}"
    );
    ensure!(groups == (group_of(&anna)?, group_of(&ben)?), "A group changed");
    Ok(())
}

#[test]
fn a_join_that_is_given_up_can_be_tried_again() -> Result<()> {
    let [mut anna, ben] = neighbours(["anna", "ben"])?;
    let (ctl, first) = while_asking(&ben, &mut anna, &["lan:anna", "--timeout", "15s"], asked)?;
    ensure!(
        ctl.code == Some(75) && ctl.stderr.contains("Nobody approved it"),
        "{ctl:?}"
    );
    let (ctl, ()) = while_asking(&ben, &mut anna, &["lan:anna"], |anna| {
        let second = anna.wait("other digits", PATIENCE, |anna| {
            let second = asked(anna)?;
            Ok(if second.1 == first.1 {
                Err(second.1)
            } else {
                Ok(second)
            })
        })?;
        anna.ctl_ok(["approve", &second.0, &second.1, "--role", "viewer"])?;
        Ok(())
    })?;
    ensure!(ctl.code == Some(0) && ctl.stdout.contains("as viewer"), "{ctl:?}");
    Ok(())
}

#[test]
fn names_that_say_too_little_list_what_is_there() -> Result<()> {
    let quiet = DeviceOptions {
        args: vec!["--no-lan-pairing".to_owned()],
        ..DeviceOptions::default()
    };
    let mut quiet = Device::with_options("quiet", quiet)?;
    quiet.start()?;
    let [ben, one, two] = neighbours(["ben", "Twin", "twin"])?;
    ben.connect(&quiet)?;
    let list = ben.ctl_json(["join", "lan:", "--json"])?;
    let names: Vec<&str> = list["devices"]
        .as_array()
        .context("a list")?
        .iter()
        .filter_map(|found| found["device"]["name"].as_str())
        .collect();
    ensure!(
        names.len() == 2 && names.contains(&"Twin") && names.contains(&"twin"),
        "{list}"
    );
    let several = ben.ctl(["join", "lan:twin"])?;
    let ids = [&id(&one)?[..8], &id(&two)?[..8]].map(str::to_owned);
    ensure!(
        several.code == Some(1) && ids.iter().all(|id| several.stderr.contains(id)),
        "{several:?}"
    );
    let nobody = ben.ctl(["join", "lan:quiet"])?;
    ensure!(
        nobody.code == Some(1) && nobody.stderr.contains(&ids[0]) && nobody.stderr.contains("join lan:"),
        "{nobody:?}"
    );
    Ok(())
}
