//! What people can see of the ledger, check and prove.

use std::fs;
use std::io::{BufRead as _, BufReader};

use anyhow::{Context, Result, ensure};
use p2p_sync_core::ids::GroupId;
use p2p_sync_core::ledger::SignedEvent;
use p2p_sync_tests::harness::{Device, Group};
use serde_json::Value;

use crate::settle_as_left;

/// The proof, or the ledger, is damaged.
const DATA: i32 = 65;
/// There is no such event.
const NO_INPUT: i32 = 66;
/// The output exists.
const CANT_CREATE: i32 = 73;

/// Two devices: the first wrote `plan.txt`, the second replaced it, and removed `gone.txt`.
fn group_with_a_past() -> Result<Group> {
    let group = Group::of(2)?;
    group[0].write("docs/plan.txt", "first")?;
    group[0].write("gone.txt", "soon")?;
    settle_as_left(&group, 0)?;
    group[1].write("docs/plan.txt", "second")?;
    fs::remove_file(group[1].path("gone.txt"))?;
    settle_as_left(&group, 1)?;
    Ok(group)
}

fn events(device: &Device, args: &[&str]) -> Result<Vec<Value>> {
    let args = ["log", "--json"].iter().chain(args).copied();
    let answer = device.ctl_json(args)?;
    Ok(answer["events"].as_array().context("A log has events")?.clone())
}

/// Returns what the events say, as `author type path`, in their order.
fn said(events: &[Value]) -> Vec<String> {
    let items = events.iter().flat_map(|event| {
        let author = event["author"]["name"].as_str().unwrap_or_default().to_owned();
        let items = event["items"].as_array().into_iter().flatten();
        items.map(move |item| {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            format!("{author} {} {}", text("type"), text("path"))
        })
    });
    items.collect()
}

fn genesis(device: &Device) -> Result<String> {
    let status = device.ctl_json(["status", "--json"])?;
    Ok(status["group"].as_str().context("There is a group")?.to_owned())
}

#[test]
fn the_log_shows_what_both_devices_did_and_is_the_same_on_both() -> Result<()> {
    let group = group_with_a_past()?;
    let here = events(&group[0], &[])?;
    let (anna, ben) = (&group[0].name, &group[1].name);
    let all = said(&here);
    for expected in [
        format!("{anna} genesis "),
        format!("{anna} grant "),
        format!("{anna} put docs/plan.txt"),
        format!("{ben} put docs/plan.txt"),
        format!("{ben} del gone.txt"),
    ] {
        ensure!(all.contains(&expected), "{expected:?} is not in {all:?}");
    }
    ensure!(all.last() == Some(&format!("{anna} grant ")), "{all:?}");
    ensure!(
        said(&events(&group[1], &[])?) == all,
        "Both devices have one history"
    );

    let of_path = said(&events(&group[0], &["docs/plan.txt"])?);
    ensure!(
        of_path
            == [
                format!("{ben} put docs/plan.txt"),
                format!("{anna} put docs/plan.txt")
            ],
        "{of_path:?}"
    );
    let of_ben = said(&events(&group[0], &["--device", ben])?);
    ensure!(of_ben.iter().all(|line| line.starts_with(ben)), "{of_ben:?}");
    let mut reversed = events(&group[0], &["--oldest-first", "--by-arrival"])?;
    ensure!(said(&reversed[..1])[0] == format!("{anna} genesis "));
    reversed.reverse();
    ensure!(reversed.len() == here.len());
    ensure!(events(&group[0], &["-n", "2"])?.len() == 2);
    ensure!(events(&group[0], &["--since", "2100-01-01T00:00:00Z"])?.is_empty());
    ensure!(events(&group[0], &["never-there"])?.is_empty());

    let text = group[0].ctl_ok(["log", "-n", "3"])?;
    ensure!(text.contains("docs/plan.txt") && text.contains("6 B"), "{text}");
    Ok(())
}

#[test]
fn an_event_is_shown_by_id_and_place_and_the_first_one_names_the_group() -> Result<()> {
    let group = group_with_a_past()?;
    let event = events(&group[0], &["docs/plan.txt"])?.remove(0);
    let id = event["id"].as_str().context("An event has an id")?;
    let place = format!("{}:{}", group[1].name, event["seq"]);
    for name in [&id[..8], id, &place] {
        let shown = group[0].ctl_json(["ledger", "show", name, "--json"])?;
        ensure!(shown["event"]["id"] == id, "{name}: {shown}");
        ensure!(
            !shown["header"].as_str().unwrap_or_default().is_empty(),
            "{shown}"
        );
    }
    let first = group[1].ctl_json(["ledger", "show", "--genesis", "--json"])?;
    ensure!(first["event"]["id"] == first["group"], "{first}");
    ensure!(first["group"] == genesis(&group[0])?.as_str(), "{first}");
    for none in ["0000000000", "nobody:1", "anna:999"] {
        let ctl = group[0].ctl(["ledger", "show", none])?;
        ensure!(ctl.code == Some(NO_INPUT), "{none}: {ctl:?}");
    }
    Ok(())
}

#[test]
fn a_sound_ledger_verifies_on_every_device() -> Result<()> {
    let group = group_with_a_past()?;
    for device in &group.devices {
        for mode in ["--full", "--fast"] {
            let answer = device.ctl_json(["ledger", "verify", mode, "--json"])?;
            ensure!(answer["ok"] == true && answer["devices"] == 2, "{mode}: {answer}");
            let events = events(device, &["-n", "1000"])?.len();
            ensure!(answer["events"] == events, "{events}: {answer}");
        }
        let text = device.ctl_ok(["ledger", "verify"])?;
        ensure!(text.contains("signatures ok"), "{text}");
    }
    Ok(())
}

#[test]
fn what_one_device_proves_is_checked_with_nothing_but_the_file_and_the_groups_id() -> Result<()> {
    let mut group = group_with_a_past()?;
    // So that both have said that they saw the edit of ben's.
    group[0].write("later.txt", "later")?;
    settle_as_left(&group, 0)?;
    let genesis = genesis(&group[0])?;
    let file = group[0].state().join("plan.proof");
    let name = file.to_str().context("A temporary directory has a plain name")?;
    group[0].ctl_ok(["ledger", "prove", "docs/plan.txt", "-o", name])?;
    let again = group[0].ctl(["ledger", "prove", "docs/plan.txt", "-o", name])?;
    ensure!(again.code == Some(CANT_CREATE), "{again:?}");
    group[0].ctl_ok(["ledger", "prove", "docs/plan.txt", "-o", name, "--force"])?;
    let good = fs::read(&file)?;
    ensure!(
        (1 << 10..6 << 10).contains(&good.len()),
        "A proof has {} bytes",
        good.len()
    );
    let none = group[0].ctl(["ledger", "prove", "never-there", "-o", "/nowhere/x"])?;
    ensure!(none.code == Some(NO_INPUT), "{none:?}");

    group[0].stop()?;
    group[1].stop()?;
    let stranger = Device::new("stranger")?;
    let check = |genesis: &str| stranger.ctl(["ledger", "check-proof", name, "--genesis", genesis, "--json"]);
    let checked = check(&genesis)?;
    ensure!(checked.code == Some(0), "{checked:?}");
    let statement: Value = serde_json::from_str(&checked.stdout)?;
    let content = blake3::hash(b"second").to_hex().to_string();
    ensure!(statement["item"]["path"] == "docs/plan.txt", "{statement}");
    ensure!(statement["item"]["content"] == content.as_str(), "{statement}");
    ensure!(
        statement["author"]["name"] == *group[1].name && statement["author"]["role"] == "editor",
        "{statement}"
    );
    ensure!(
        statement["seen_by"][0]["member"]["name"] == *group[0].name,
        "{statement}"
    );

    let other = check(&"00".repeat(32))?;
    ensure!(other.code == Some(DATA), "{other:?}");
    for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad)?;
        let refused = check(&genesis)?;
        ensure!(
            refused.code == Some(DATA) && refused.stdout.is_empty(),
            "byte {at}: {refused:?}"
        );
    }
    fs::remove_file(&file)?;
    let absent = check(&genesis)?;
    ensure!(absent.code == Some(NO_INPUT), "{absent:?}");
    Ok(())
}

#[test]
fn an_admission_is_proven_as_an_event() -> Result<()> {
    let group = group_with_a_past()?;
    let grants = events(&group[1], &["--oldest-first"])?;
    let grant = grants
        .iter()
        .filter(|event| event["kind"] == "admin")
        .find(|event| event["items"][0]["type"] == "grant")
        .context("Ben was admitted")?;
    let id = grant["id"].as_str().context("An event has an id")?;
    let file = group[1].state().join("grant.proof");
    let name = file.to_str().context("A temporary directory has a plain name")?;
    group[1].ctl_ok(["ledger", "prove", &id[..12], "-o", name])?;
    let genesis = genesis(&group[1])?;
    let statement = group[1].ctl_json(["ledger", "check-proof", name, "--genesis", &genesis, "--json"])?;
    ensure!(statement["item"]["name"] == *group[1].name, "{statement}");
    ensure!(statement["author"]["role"] == "owner", "{statement}");
    Ok(())
}

#[test]
fn the_exports_hold_every_event_and_the_bundle_can_be_checked_by_others() -> Result<()> {
    let group = group_with_a_past()?;
    let lines = group[0].ctl_ok(["ledger", "export", "--jsonl"])?;
    let all = events(&group[0], &["--oldest-first", "--by-arrival"])?;
    let exported: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(ids(&exported) == ids(&all), "{lines}");
    let other = group[1].ctl_ok(["ledger", "export", "--jsonl"])?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    ensure!(
        sorted(&lines) == sorted(&other),
        "An event's line is the same everywhere"
    );

    let file = group[0].state().join("ledger.bundle");
    let name = file.to_str().context("A temporary directory has a plain name")?;
    group[0].ctl_ok(["ledger", "export", "--bundle", "-o", name])?;
    let bytes = fs::read(&file)?;
    let end = bytes
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .context("The preamble ends")?;
    let group_id = GroupId::from_hex(&genesis(&group[0])?)?;
    let mut rest = &bytes[end + 2..];
    let mut found = Vec::new();
    loop {
        let (head, after) = rest.split_at(8);
        let length = |bytes: &[u8]| Ok::<_, anyhow::Error>(u32::from_be_bytes(bytes.try_into()?) as usize);
        let (header, body) = (length(&head[..4])?, length(&head[4..])?);
        if header == 0 {
            ensure!(body == 0 && after == u64::try_from(found.len())?.to_be_bytes());
            break;
        }
        let event = SignedEvent {
            signature: after[..64].try_into()?,
            header: after[64..64 + header].into(),
            body: after[64 + header..64 + header + body].into(),
        };
        found.push(Value::from(event.verify(&group_id)?.id.to_hex()));
        rest = &after[64 + header + body..];
    }
    ensure!(found == ids(&all), "The bundle holds other events");
    Ok(())
}

fn ids(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| event["id"].clone()).collect()
}

#[test]
fn a_follower_sees_the_last_events_and_those_that_arrive() -> Result<()> {
    let mut group = group_with_a_past()?;
    let mut follower = group[0].spawn_ctl(["log", "--follow", "-n", "1", "--json"])?;
    let out = follower.stdout.take().context("The output is a pipe")?;
    let mut lines = BufReader::new(out).lines();
    let mut next = || -> Result<Value> {
        let line = lines.next().context("The stream goes on")??;
        Ok(serde_json::from_str(&line)?)
    };
    let before = next()?;
    ensure!(before["schema"] == "p2psync.ledger_event/1", "{before}");
    group[1].write("new.txt", "new")?;
    loop {
        let event = next()?;
        if said(&[event["event"].clone()]).contains(&format!("{} put new.txt", group[1].name)) {
            break;
        }
    }
    group[0].stop()?;
    ensure!(
        follower.wait()?.code() == Some(69),
        "The daemon's end ends the stream"
    );
    Ok(())
}
