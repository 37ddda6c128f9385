//! What `syncctl log` says of events of which nothing counts, or a part only: the role of then, and what has no effect.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use p2p_sync_core::ledger::{EventKind, Item, SignedEvent};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_tests::harness::{Device, PATIENCE, wait_until};
use serde_json::{Value, json};

use super::device::Forger;
use super::table::link;
use super::{events, runtime, wait_events};
use crate::roles::{group, ticket, wait_role};

/// The log as it grows, as `syncctl log --follow --json` shows it.
struct Follow {
    syncctl: Child,
    lines: Receiver<String>,
}

impl Follow {
    fn start(device: &Device) -> Result<Self> {
        let mut syncctl = device.spawn_ctl(["log", "--follow", "--json"])?;
        let out = syncctl.stdout.take().context("The output is a pipe")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { syncctl, lines })
    }

    /// Waits for an event.
    fn event(&self, id: &str) -> Result<Value> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).context("No such event")?;
            let event = serde_json::from_str::<Value>(&line)?["event"].take();
            if event["id"] == id {
                return Ok(event);
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // Either fails only if it is gone.
        let _ = self.syncctl.kill();
        let _ = self.syncctl.wait();
    }
}

/// The role of now, the role of then, whether nothing counts, and for each item whether it does not.
fn judged(event: &Value) -> Value {
    let items = event["items"].as_array().into_iter().flatten();
    let void: Vec<&Value> = items.map(|item| &item["void"]).collect();
    json!([event["author_role"], event["role_then"], event["void"], void])
}

fn shown(on: &Device, event: &SignedEvent) -> Result<Value> {
    let id = event.id().to_hex();
    let shown = on.ctl_json(["ledger", "show", &id, "--json"])?["event"].take();
    let answer = on.ctl_json(["log", "--json"])?;
    let listed = answer["events"].as_array().context("A log has events")?;
    let listed = listed.iter().find(|event| event["id"] == id.as_str());
    let (listed, shown) = (judged(listed.context("It is listed")?), judged(&shown));
    // What the role is now, the first of them, may have changed in between.
    let then = |event: &Value| event.as_array().map(|said| said[1..].to_vec());
    ensure!(then(&listed) == then(&shown), "{answer}");
    Ok(shown)
}

/// Waits until an event is shown like this: what roles are now is told a little later than what they were.
fn wait_shown(on: &Device, event: &SignedEvent, expected: &Value) -> Result<()> {
    wait_until(&expected.to_string(), PATIENCE, || {
        let shown = shown(on, event)?;
        Ok(if shown == *expected {
            Ok(())
        } else {
            Err(shown.to_string())
        })
    })
}

fn put(path: &str) -> Result<Item> {
    Ok(link(RelPath::parse(path)?))
}

#[test]
fn the_log_says_in_which_role_an_event_was_made_and_what_of_it_counts_nowhere() -> Result<()> {
    let mut devices = group(&[("vera", "viewer")])?;
    let sam = Device::started("sam")?;
    sam.join(&ticket(&devices[0], &["--role", "editor", "--scope", "docs"])?)?;
    let (vera, anna) = (devices.pop().context("The last")?, devices.remove(0));
    wait_role(&anna, "sam", Some("editor"))?;
    let runtime = runtime()?;
    let mut forgers = Vec::new();
    for mut device in [vera, sam] {
        device.stop()?;
        forgers.push(Forger::start(device, &[&anna], &runtime)?);
    }
    let follow = Follow::start(&anna)?;
    let before = events(&anna)?;
    let mut signed = Vec::new();
    for (forger, items) in [
        (0, vec![put("a")?]),
        (1, vec![put("docs/b")?, put("c")?]),
        (1, vec![put("docs/d")?]),
    ] {
        let event = forgers[forger].sign(EventKind::Work, items)?;
        forgers[forger].push(&anna, std::slice::from_ref(&event))?;
        signed.push(event);
    }
    wait_events(&anna, before + 3)?;
    let expected = [
        json!(["viewer", "viewer", true, [true]]),
        json!(["editor", "editor", false, [false, true]]),
        json!(["editor", "editor", false, [false]]),
    ];
    for (event, expected) in signed.iter().zip(&expected) {
        ensure!(shown(&anna, event)? == *expected, "{expected}");
        let followed = judged(&follow.event(&event.id().to_hex())?);
        ensure!(followed == *expected, "{followed}");
    }
    let text = anna.ctl_ok(["log", "-n", "3"])?;
    let void = |line: &&str| line.contains("counts nowhere");
    ensure!(text.lines().filter(void).count() == 2, "{text}");

    // What was said before counts as it did, in the role of then.
    anna.ctl_ok(["member", "role", "vera", "editor"])?;
    wait_shown(&anna, &signed[0], &json!(["editor", "viewer", true, [true]]))?;
    anna.ctl_ok(["member", "role", "sam", "viewer", "--now"])?;
    wait_shown(
        &anna,
        &signed[1],
        &json!(["viewer", "editor", false, [false, true]]),
    )?;
    // But not beyond the cut.
    let cut = signed[1].verify(&forgers[1].group)?.header.seq + 1;
    anna.ctl_ok(["member", "remove", "sam", "--cut", &cut.to_string(), "--yes"])?;
    wait_shown(&anna, &signed[1], &json!([null, "editor", false, [false, true]]))?;
    wait_shown(&anna, &signed[2], &json!([null, null, true, [true]]))
}
