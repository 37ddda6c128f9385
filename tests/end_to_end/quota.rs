//! How much one author's events take in the ledger: counted on every device, told beyond a quota, and never refused.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use p2p_sync_tests::harness::{Device, DeviceOptions, PATIENCE, settle, wait_until};

use crate::roles::member;

fn warns(device: &Device) -> Result<bool> {
    let warnings = device.status()?.0["warnings"].to_string();
    Ok(warnings.contains("LEDGER_QUOTA"))
}

fn bytes(on: &Device, name: &str) -> Result<u64> {
    let member = member(on, name)?;
    let bytes = member["event_bytes"].as_u64();
    bytes.with_context(|| format!("{member} has a count"))
}

fn wait_so(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    wait_until(what, PATIENCE, || {
        Ok(is_so()?.then_some(()).ok_or_else(String::new))
    })
}

#[test]
fn status_says_whose_events_take_more_than_the_quota_and_none_is_refused() -> Result<()> {
    let config = tempfile::NamedTempFile::new().context("Making a configuration")?;
    fs::write(
        config.path(),
        "version = 1\n\n[ledger]\nauthor_quota = \"4KiB\"\n",
    )?;
    let options = DeviceOptions {
        args: vec!["--config".to_owned(), config.path().display().to_string()],
        ..DeviceOptions::default()
    };
    let mut anna = Device::with_options("anna", options)?;
    anna.start()?;
    let ben = Device::started("ben")?;
    ben.join(&anna.invite()?)?;
    settle(&[&anna, &ben])?;
    ensure!(!warns(&anna)?, "{}", anna.status()?.0);
    for number in 0..100 {
        ben.write(&format!("a long name for a small file, number {number}"), "x")?;
    }
    wait_so("the warning", || warns(&anna))?;
    let tree = settle(&[&anna, &ben])?;
    ensure!(tree.file_count() == 100, "{tree:?}");
    // Ben's own quota is as large as it is unless somebody says otherwise.
    ensure!(!warns(&ben)?, "{}", ben.status()?.0);
    wait_so("one count of one ledger", || {
        Ok(["anna", "ben"]
            .into_iter()
            .map(|name| Ok((bytes(&anna, name)?, bytes(&ben, name)?)))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|(here, there)| here == there))
    })?;
    let counts = (bytes(&anna, "anna")?, bytes(&anna, "ben")?);
    ensure!(
        (1..4 << 10).contains(&counts.0) && counts.1 > 4 << 10,
        "{counts:?}"
    );
    anna.restart()?;
    wait_so("the same after a restart", || {
        let again = (bytes(&anna, "anna")?, bytes(&anna, "ben")?);
        Ok(again == counts && warns(&anna)?)
    })
}
