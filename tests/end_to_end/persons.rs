//! Whose devices are whose: said with an invite or later, shown wherever devices are, and removed all at once.

use anyhow::{Context as _, Result, ensure};
use p2p_sync_tests::harness::{Device, PATIENCE, settle, wait_until};
use serde_json::Value;

use crate::roles::{member, ticket, wait_role};

/// Nobody was asked, or wrong usage.
const USAGE: i32 = 64;

/// Waits until a device knows whose another is.
fn wait_person(on: &Device, name: &str, person: Option<&str>) -> Result<()> {
    wait_until(&format!("{} to see whose {name} is", on.name), PATIENCE, || {
        let member = member(on, name)?;
        let is_so = member["id"].is_string() && member["person"].as_str() == person;
        Ok(if is_so { Ok(()) } else { Err(member.to_string()) })
    })
}

fn id(on: &Device, name: &str) -> Result<String> {
    let member = member(on, name)?;
    let id = member["id"].as_str().with_context(|| member.to_string())?;
    Ok(id[..16].to_owned())
}

fn newest(on: &Device) -> Result<Value> {
    let mut answer = on.ctl_json(["log", "-n", "1", "--json"])?;
    Ok(answer["events"][0].take())
}

#[test]
fn all_devices_of_a_person_are_removed_at_once_and_no_others() -> Result<()> {
    let anna = Device::started("anna")?;
    let laptop = Device::started("laptop")?;
    laptop.join(&ticket(&anna, &["--person", "Ben"])?)?;
    let phone = Device::started("phone")?;
    phone.join(&ticket(&anna, &[])?)?;
    let dora = Device::started("dora")?;
    dora.join(&ticket(&anna, &["--person", "Dora"])?)?;
    anna.ctl_ok(["member", "person", "phone", "Ben"])?;
    for on in [&anna, &laptop, &dora] {
        wait_person(on, "laptop", Some("Ben"))?;
        wait_person(on, "phone", Some("Ben"))?;
        wait_person(on, "dora", Some("Dora"))?;
        wait_person(on, "anna", None)?;
    }
    let refused = laptop.ctl(["member", "person", "laptop", "Dora"])?;
    ensure!(refused.code != Some(0), "{refused:?}");
    laptop.write("plan", "of ben")?;
    settle(&[&anna, &laptop, &phone, &dora])?;
    let shown = anna.ctl_ok(["history", "plan"])?;
    ensure!(shown.contains("laptop (Ben)"), "{shown}");
    let peers = anna.ctl_json(["peers", "--json"])?.to_string();
    ensure!(peers.contains(r#""person":"Ben""#), "{peers}");

    // Whom it is about is shown before anything is done.
    let (laptops, phones) = (id(&anna, "laptop")?, id(&anna, "phone")?);
    let asked = anna.ctl(["member", "remove", "Ben"])?;
    ensure!(asked.code == Some(USAGE), "{asked:?}");
    let lists = |text: &str| text.contains(&laptops[..8]) && text.contains(&phones[..8]);
    ensure!(
        lists(&asked.stderr) && !asked.stderr.contains("dora"),
        "{asked:?}"
    );
    let cut = anna.ctl(["member", "remove", "Ben", "--cut", "1", "--yes"])?;
    ensure!(cut.code != Some(0) && lists(&cut.stderr), "{cut:?}");
    ensure!(cut.stderr.contains("--cut SEQ"), "{cut:?}");
    dora.ctl_ok(["device", "rename", "Ben"])?;
    wait_person(&anna, "Ben", Some("Dora"))?;
    let unclear = anna.ctl(["member", "remove", "Ben", "--yes"])?;
    ensure!(unclear.code == Some(USAGE), "{unclear:?}");
    ensure!(unclear.stderr.contains("person:Ben"), "{unclear:?}");
    wait_role(&anna, "laptop", Some("editor"))?;

    let done = anna.ctl_json(["member", "remove", "person:Ben", "--yes", "--json"])?;
    ensure!(done["removed"].as_array().map(Vec::len) == Some(2), "{done}");
    let event = newest(&anna)?;
    let items = event["items"].as_array().context("An event has items")?;
    let revokes = items
        .iter()
        .filter(|item| item["type"] == "revoke" && item["void"] == false);
    ensure!(revokes.count() == 2 && items.len() == 2, "{event}");
    for on in [&anna, &dora] {
        wait_role(on, "laptop", None)?;
        wait_role(on, "phone", None)?;
        wait_role(on, "Ben", Some("editor"))?;
    }
    // Nothing is left to remove, and no tag of a device that stays was touched.
    let again = anna.ctl(["member", "remove", "person:Ben", "--yes"])?;
    ensure!(again.code != Some(0), "{again:?}");
    wait_person(&dora, "Ben", Some("Dora"))?;
    let tree = settle(&[&anna, &dora])?;
    ensure!(tree.has("plan"), "{tree:?}");
    Ok(())
}
