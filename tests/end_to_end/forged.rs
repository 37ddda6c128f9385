//! Members whose programs were changed to do what their roles do not let them: events of every verb that are signed and
//! chained as they should be. The honest devices judge each as the table says and go on.

mod device;
mod log;
mod requests;
mod table;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::{EventKind, SignedEvent};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_core::ticket::Ticket;
use p2p_sync_tests::harness::{Device, PATIENCE, Tree, settle, wait_until};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use self::device::{Forger, id_of};
use self::table::{ACTORS, Before, Cell, Invites, Outcome, Place, Verb, cells};
use crate::roles::{member, ticket, wait_role};

/// What the one file of each actor says that is in conflict.
const BOTH: [&str; 2] = ["by anna", "by ben"];

fn all_cells() -> impl Iterator<Item = Cell> {
    ACTORS.iter().flat_map(|(actor, ..)| cells(actor))
}

#[test]
fn what_a_role_does_not_allow_changes_nothing_and_is_seen_and_what_it_allows_does() -> Result<()> {
    let (mut honest, actors) = group()?;
    let (ticket, invites) = prepare(&mut honest, &actors)?;
    let runtime = runtime()?;
    let both = [&honest[0], &honest[1]];
    let mut forgers = Vec::new();
    for mut actor in actors {
        actor.stop()?;
        forgers.push(Forger::start(actor, &both, &runtime)?);
    }
    let before = Before {
        founder: id_of(both[0])?,
        ticket: ticket.secret,
        invites,
        bait: forgers[0].heads(&RelPath::parse("bait")?)?.0,
    };
    let watch = Watch::start(&honest[0])?;
    let victims: Vec<_> = all_cells().filter_map(|cell| cell.victim()).collect();
    let oscar = forgers.last_mut().context("The last is oscar")?;
    let victims = vec![oscar.sign(EventKind::Admin, victims)?];
    let mut expected = events(both[0])? + 1;
    for honest in both {
        oscar.push(honest, &victims)?;
        wait_events(honest, expected)?;
    }
    let mut forged: Vec<Vec<SignedEvent>> = Vec::new();
    for (forger, (actor, ..)) in forgers.iter_mut().zip(ACTORS) {
        let mut signed = Vec::new();
        for cell in cells(actor) {
            let (kind, items) = cell.event(forger, &before)?;
            signed.push(forger.sign(kind, items)?);
        }
        expected += signed.len() as u64;
        forged.push(signed);
    }
    // They arrive in another order on each.
    for (forger, events) in forgers.iter_mut().zip(&forged) {
        forger.push(both[0], events)?;
    }
    for (forger, events) in forgers.iter_mut().zip(&forged).rev() {
        forger.push(both[1], events)?;
    }
    for honest in both {
        wait_events(honest, expected)?;
    }
    for honest in &honest {
        check(honest, &settle(&both)?, &before)?;
    }
    check_open(&honest[0], &before)?;
    check_log(&honest[0], &forgers, &forged)?;
    check_denials(&honest, &watch, &forgers)?;
    go_on(&mut honest, &before)
}

/// Anna and ben, and those who forge, all of whom are in sync.
fn group() -> Result<(Vec<Device>, Vec<Device>)> {
    let anna = Device::started("anna")?;
    anna.write("bait", "not what was there")?;
    for (actor, place) in ACTORS
        .iter()
        .flat_map(|(name, ..)| Place::ALL.map(|place| (name, place)))
    {
        for name in ["edit", "gone", "old"] {
            anna.write(&place.path(actor, name), format!("{name} of {actor}"))?;
        }
    }
    let ben = Device::started("ben")?;
    ben.join(&anna.invite()?)?;
    let mut actors = Vec::new();
    for (name, role, scope) in ACTORS {
        let device = Device::started(name)?;
        // Nobody is invited as an owner.
        let role = if name == "oscar" { "admin" } else { role.as_str() };
        let mut args = vec!["--role", role];
        args.extend(scope.iter().flat_map(|scope| ["--scope", scope]));
        device.join(&ticket(&anna, &args)?)?;
        actors.push(device);
    }
    anna.ctl_ok(["member", "role", "oscar", "owner"])?;
    Ok((vec![anna, ben], actors))
}

/// Makes what the events are about: conflicts, and invites.
fn prepare(honest: &mut [Device], actors: &[Device]) -> Result<(Ticket, Invites)> {
    let mut invites = Invites::new();
    for cell in all_cells() {
        if let Verb::Cancel(role) = cell.verb {
            let ticket = Ticket::parse(&ticket(&honest[0], &["--role", role.as_str()])?)?;
            invites.insert(cell.name(), public(&ticket));
        }
    }
    let ticket = Ticket::parse(&ticket(&honest[0], &["--uses", "9"])?)?;
    honest[1].stop()?;
    for (device, text) in honest.iter().zip(BOTH) {
        for cell in all_cells().filter(|cell| matches!(cell.verb, Verb::Discard(_))) {
            device.write(&cell.path().context("It is about a file")?, text)?;
        }
    }
    honest[0].wait_in_sync()?;
    honest[1].start()?;
    let tree = settle(&honest.iter().chain(actors).collect::<Vec<_>>())?;
    ensure!(tree.conflict_copies().len() == 2 * ACTORS.len(), "{tree:?}");
    wait_role(&actors[4], "oscar", Some("owner"))?;
    Ok((ticket, invites))
}

fn public(ticket: &Ticket) -> [u8; 32] {
    let key = ed25519_dalek::SigningKey::from_bytes(&ticket.secret);
    key.verifying_key().to_bytes()
}

fn runtime() -> Result<Arc<Runtime>> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(Arc::new(runtime))
}

fn events(device: &Device) -> Result<u64> {
    device.status()?.events().context("A status counts events")
}

fn wait_events(device: &Device, count: u64) -> Result<()> {
    let what = format!("{} to have {count} events{}", device.name, device.log_tail());
    wait_until(&what, PATIENCE, || {
        let found = events(device)?;
        Ok((found == count)
            .then_some(())
            .ok_or_else(|| format!("it has {found}")))
    })
}

/// Checks what the cells did to the folder and to the members, as a device sees both.
fn check(device: &Device, tree: &Tree, before: &Before) -> Result<()> {
    let members = device.ctl_json(["member", "list", "--json"])?;
    let members = members["members"].as_array().context("A list of members")?;
    let role = |id: &str| {
        let found = members.iter().find(|member| member["id"] == id);
        found.and_then(|member| member["role"].as_str())
    };
    for cell in all_cells() {
        let is_done = cell.outcome == Outcome::Yes;
        let id = DeviceId::new(cell.public()).to_hex();
        let holds = match cell.verb {
            Verb::Put(place) => tree.has(&place.path(cell.actor, "new")) == is_done,
            Verb::Overwrite(place) => {
                let text = fs::read_to_string(device.path(&place.path(cell.actor, "edit")))?;
                (text == "not what was there") == is_done
                    && (text == format!("edit of {}", cell.actor)) != is_done
            }
            Verb::Delete(place) => tree.has(&place.path(cell.actor, "gone")) != is_done,
            Verb::Rename(place) => {
                let [old, new] = ["old", "moved"].map(|name| tree.has(&place.path(cell.actor, name)));
                old != is_done && new == is_done
            }
            Verb::Discard(place) => {
                let path = place.path(cell.actor, "copied");
                let copies = tree.conflict_copies();
                let copy = copies
                    .iter()
                    .any(|copy| copy.to_string_lossy().starts_with(&path));
                tree.has(&path) && copy != is_done
            }
            Verb::Grant(given) => role(&id) == is_done.then_some(given.as_str()),
            Verb::GrantVoter | Verb::Admit | Verb::GrantInWork => role(&id) == is_done.then_some("editor"),
            Verb::Revoke(held) => role(&id) == (!is_done).then_some(held.as_str()),
            Verb::RevokeFounder => role(&before.founder.to_hex()) == Some("owner"),
            Verb::PutInAdmin => !tree.has(&Place::Docs.path(cell.actor, "hidden")),
            // What is left of these is looked at elsewhere.
            Verb::Raise(_) | Verb::Invite(_) | Verb::Cancel(_) => true,
        };
        ensure!(
            holds,
            "{}: {} was to be {:?}",
            device.name,
            cell.name(),
            cell.outcome
        );
    }
    for (name, role, scope) in ACTORS {
        let member = member(device, name)?;
        ensure!(member["role"] == role.as_str(), "{member}");
        ensure!(member["scopes"][0]["path"].as_str() == scope, "{member}");
    }
    Ok(())
}

/// Checks which invites let somebody in at a device that may.
fn check_open(device: &Device, before: &Before) -> Result<()> {
    let answer = device.ctl_json(["invite", "list", "--json"])?;
    let invites = answer["invites"].as_array().context("A list of invites")?;
    let open = |key: &str| {
        invites
            .iter()
            .any(|invite| invite["key"] == key && invite["state"] == "open")
    };
    for cell in all_cells() {
        let is_done = cell.outcome == Outcome::Yes;
        let (key, is_open) = match cell.verb {
            Verb::Invite(_) => (cell.public(), is_done),
            Verb::Cancel(_) => (before.invite(&cell)?, !is_done),
            _ => continue,
        };
        let key = DeviceId::new(key).to_hex();
        ensure!(open(&key) == is_open, "{}: {answer}", cell.name());
    }
    Ok(())
}

/// Checks that the log marks what has no effect, and only that.
fn check_log(device: &Device, forgers: &[Forger], forged: &[Vec<SignedEvent>]) -> Result<()> {
    for ((forger, signed), (actor, role, _)) in forgers.iter().zip(forged).zip(ACTORS) {
        let answer = device.ctl_json(["log", "--json", "-n", "1000", "--device", &forger.id.to_hex()])?;
        let events = answer["events"].as_array().context("A log has events")?;
        for (cell, event) in cells(actor).zip(signed) {
            let id = event.id().to_hex();
            let event = events.iter().find(|event| event["id"] == id.as_str());
            let event = event.with_context(|| cell.name())?;
            ensure!(
                event["void"] == (cell.outcome != Outcome::Yes),
                "{}: {event}",
                cell.name()
            );
            let items = event["items"].as_array().context("An event has items")?;
            let is_void = |item: &Value| item["void"] == event["void"];
            ensure!(items.iter().all(is_void), "{}: {event}", cell.name());
            ensure!(event["role_then"] == role.as_str(), "{}: {event}", cell.name());
        }
    }
    Ok(())
}

/// Checks that exactly what was not allowed was told to whoever follows anna, and stands in ben's log.
fn check_denials(honest: &[Device], watch: &Watch, forgers: &[Forger]) -> Result<()> {
    let mut expected: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for (forger, (actor, ..)) in forgers.iter().zip(ACTORS) {
        for cell in cells(actor).filter(|cell| cell.outcome == Outcome::No) {
            *expected.entry((forger.id.to_hex(), cell.path())).or_default() += 1;
        }
        let log = fs::read_to_string(honest[1].log_path())?;
        let said = log.lines().filter(|line| {
            line.contains("An event says what its author's role does not allow")
                && line.contains(&forger.id.short().to_string())
        });
        let wanted = cells(actor).filter(|cell| cell.outcome == Outcome::No).count();
        let said = said.count();
        ensure!(said == wanted, "{actor}: {said} lines and not {wanted}");
    }
    let what = format!("the denials {expected:?}");
    wait_until(&what, PATIENCE, || {
        let told = watch.denials();
        Ok(if told == expected {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        })
    })
}

/// Follows what a daemon tells, as `syncctl watch` does.
struct Watch {
    syncctl: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    fn start(device: &Device) -> Result<Self> {
        let mut syncctl = device.spawn_ctl(["watch", "--json"])?;
        let out = syncctl.stdout.take().context("The output is a pipe")?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&told);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let said = serde_json::from_str(&line).unwrap_or(Value::String(line));
                all.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        });
        let new = Self { syncctl, told };
        wait_until("the first line", PATIENCE, || {
            let told = new.told.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((!told.is_empty()).then_some(()).ok_or_else(String::new))
        })?;
        Ok(new)
    }

    /// Returns how often which device was said to have wanted what it may not, and where.
    fn denials(&self) -> BTreeMap<(String, Option<String>), usize> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut denials = BTreeMap::new();
        for said in told.iter().filter(|said| said["type"] == "denied") {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let device = text(&said["device"]["id"]).unwrap_or_default();
            *denials.entry((device, text(&said["path"]["path"]))).or_default() += 1;
        }
        denials
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Either fails only if it is gone.
        let _ = self.syncctl.kill();
        let _ = self.syncctl.wait();
    }
}

/// Checks that the honest go on, that a restart changes nothing, and that whoever comes later judges alike.
fn go_on(honest: &mut Vec<Device>, before: &Before) -> Result<()> {
    honest[0].write("after/anna", "by anna")?;
    honest[1].write("after/ben", "by ben")?;
    honest[0].restart()?;
    honest[0].connect(&honest[1])?;
    let cleo = Device::started("cleo")?;
    cleo.join(&honest[0].invite()?)?;
    honest.push(cleo);
    let tree = wait_until("all to have what was written since", PATIENCE, || {
        let tree = settle(&honest.iter().collect::<Vec<_>>())?;
        let has = ["after/anna", "after/ben"].iter().all(|path| tree.has(path));
        Ok(if has { Ok(tree) } else { Err(format!("{tree:?}")) })
    })?;
    for device in &*honest {
        check(device, &tree, before)?;
        let verified = device.ctl_json(["ledger", "verify", "--full", "--json"])?;
        ensure!(verified["ok"] == true, "{}: {verified}", device.name);
        let log = fs::read_to_string(device.log_path())?;
        ensure!(!log.contains("no honest daemon sends"), "{}: {log}", device.name);
    }
    check_open(&honest[0], before)
}
