//! What devices ask each other for: a viewer serves as any member does, and who was removed gets nothing.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use p2p_sync_core::engine::{RefuseReason, Request, Response};
use p2p_sync_core::ledger::EventKind;
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_daemon::store::Store;
use p2p_sync_tests::harness::{Device, settle};

use super::device::Forger;
use super::table::link;
use super::{events, runtime, wait_events};
use crate::roles::{group, wait_file, wait_role};

#[test]
fn a_removed_device_gets_neither_events_nor_contents_and_tells_nothing() -> Result<()> {
    let mut devices = group(&[("ben", "editor"), ("ed", "editor")])?;
    devices[0].write("secret", "for members only")?;
    devices[0].write("later", "written later")?;
    settle(&devices.iter().collect::<Vec<_>>())?;
    let mut ed = devices.pop().context("The last")?;
    ed.stop()?;
    let way = Store::open(&ed.state().join("store.sqlite"))?
        .load()?
        .admin_events;
    let others: Vec<&Device> = devices.iter().collect();
    let mut ed = Forger::start(ed, &others, &runtime()?)?;
    for other in &others {
        let found = ed.fetch(other, b"for members only")?;
        ensure!(found == b"for members only", "{found:?}");
        let answer = ed.ask(other, &pull())?;
        ensure!(matches!(answer, Ok(Response::Events { .. })), "{answer:?}");
    }
    let removed = events(others[0])? + 1;
    others[0].ctl_ok(["member", "remove", "ed", "--yes"])?;
    for other in &others {
        wait_role(other, "ed", None)?;
        wait_events(other, removed)?;
    }
    let forged = ed.sign(EventKind::Work, vec![link(RelPath::parse("planted")?)])?;
    let asked = [
        Request::Heads { digest: [0; 32] },
        pull(),
        Request::Push { events: vec![forged] },
        Request::InSync { digest: [0; 32] },
    ];
    for other in &others {
        // It is spoken to: it is told by which events it was removed.
        let events = way.iter().map(|stored| stored.event.clone()).collect();
        let answer = ed.ask_until(other, &Request::Present { events }, |answer| {
            matches!(answer, Ok(Response::Removed { .. }))
        })?;
        ensure!(
            matches!(&answer, Ok(Response::Removed { events }) if !events.is_empty()),
            "{answer:?}"
        );
        for request in &asked {
            let answer = ed.ask(other, request)?;
            let refused = matches!(answer, Err(_) | Ok(Response::Refused(RefuseReason::NotMember)));
            ensure!(refused, "{}: {request:?} got {answer:?}", other.name);
        }
        for content in ["for members only", "written later"] {
            let answer = ed.fetch(other, content.as_bytes());
            ensure!(answer.is_err(), "{} gave {answer:?}", other.name);
        }
    }
    devices[1].write("after", "as ever")?;
    wait_file(&mut devices[0], "after", "as ever")?;
    let tree = settle(&devices.iter().collect::<Vec<_>>())?;
    for device in &devices {
        wait_events(device, removed + 1)?;
    }
    ensure!(!tree.has("planted"), "{tree:?}");
    Ok(())
}

fn pull() -> Request {
    Request::Pull {
        have: Vec::new(),
        max_bytes: u32::MAX,
    }
}

#[test]
fn a_viewer_gives_events_and_contents_to_who_lacks_them() -> Result<()> {
    let mut devices = group(&[("vera", "viewer"), ("ben", "editor")])?;
    devices[2].connect(&devices[1])?;
    settle(&devices.iter().collect::<Vec<_>>())?;
    devices[2].stop()?;
    devices[0].write("news", "of anna")?;
    settle(&[&devices[0], &devices[1]])?;
    devices[0].stop()?;
    devices[2].start()?;
    devices[2].connect(&devices[1])?;
    wait_file(&mut devices[2], "news", "of anna")?;
    settle(&[&devices[1], &devices[2]])?;
    // What a viewer relays is of others; what it made itself is no member's business.
    devices[1].write("mine", "of vera")?;
    devices[2].write("mine too", "of ben")?;
    wait_file(&mut devices[1], "mine too", "of ben")?;
    ensure!(!devices[2].path("mine").exists());
    ensure!(fs::read(devices[1].path("mine"))? == b"of vera");
    Ok(())
}
