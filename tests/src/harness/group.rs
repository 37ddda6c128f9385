//! Several devices that share a folder.

use std::ops::{Index, IndexMut};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Device, DeviceOptions, PATIENCE, Tree, leftovers, wait_until};

/// Differing paths that an error shows.
const DIFFERENCES_SHOWN: usize = 10;

/// Devices of one group, all started; the first invited the others.
#[derive(Debug)]
pub struct Group {
    /// The devices.
    pub devices: Vec<Device>,
}

impl Group {
    /// Starts `count` devices with empty folders and pairs them.
    ///
    /// # Errors
    /// Fails if a daemon does not start or pairing fails.
    pub fn of(count: usize) -> Result<Self> {
        Self::with_options(count, &DeviceOptions::default())
    }

    /// Starts and pairs devices as [`Group::of`] does, with options.
    ///
    /// # Errors
    /// As [`Group::of`].
    pub fn with_options(count: usize, options: &DeviceOptions) -> Result<Self> {
        let mut devices = Vec::new();
        for number in 0..count {
            let name = ["anna", "ben", "cleo", "dora"]
                .get(number)
                .copied()
                .unwrap_or("more");
            let mut device = Device::with_options(name, options.clone())?;
            device.start()?;
            devices.push(device);
        }
        let mut group = Self { devices: Vec::new() };
        for device in devices {
            group.add(device)?;
        }
        Ok(group)
    }

    /// Lets a started device join, invited by the first.
    ///
    /// # Errors
    /// Fails if pairing fails.
    pub fn add(&mut self, device: Device) -> Result<()> {
        if let Some(first) = self.devices.first() {
            let ticket = first.invite()?;
            device
                .join(&ticket)
                .with_context(|| format!("{} invited{}", first.name, first.log_tail()))?;
        }
        self.devices.push(device);
        Ok(())
    }

    /// Waits until all devices are in sync with equal trees, and returns the tree.
    ///
    /// # Errors
    /// As [`settle`].
    pub fn settle(&self) -> Result<Tree> {
        settle(&self.devices.iter().collect::<Vec<_>>())
    }

    /// Makes the first device's folder equal to what is expected on all: settles and compares it with `expected`, the
    /// tree as the user left it.
    ///
    /// # Errors
    /// As [`settle`], or if the trees are equal to each other and not to `expected`.
    pub fn settle_as(&self, expected: &Tree) -> Result<()> {
        let tree = self.settle()?;
        let differences = expected.differences(&tree);
        anyhow::ensure!(
            differences.is_empty(),
            "All devices differ from what was made: {}",
            show(&differences)
        );
        Ok(())
    }
}

impl Index<usize> for Group {
    type Output = Device;

    fn index(&self, number: usize) -> &Device {
        &self.devices[number]
    }
}

impl IndexMut<usize> for Group {
    fn index_mut(&mut self, number: usize) -> &mut Device {
        &mut self.devices[number]
    }
}

/// Waits until the devices have nothing left to do, their trees are equal and nothing temporary is left; returns the
/// tree.
///
/// # Errors
/// Fails after [`PATIENCE`], naming what is missing and showing the ends of the logs.
pub fn settle(devices: &[&Device]) -> Result<Tree> {
    settle_within(devices, PATIENCE)
}

/// Does as [`settle`], with another limit.
///
/// # Errors
/// As [`settle`].
pub fn settle_within(devices: &[&Device], limit: Duration) -> Result<Tree> {
    let settled = wait_until("all devices to be in sync with equal trees", limit, || {
        for device in devices {
            let status = device.status()?;
            if !status.in_sync() {
                return Ok(Err(format!("{} says {}", device.name, status.0)));
            }
        }
        compare(devices)
    });
    settled.with_context(|| devices.iter().map(|device| device.log_tail()).collect::<String>())
}

fn compare(devices: &[&Device]) -> Result<Result<Tree, String>> {
    let mut first: Option<(&Device, Tree)> = None;
    for device in devices {
        let left = leftovers(&device.folder())?;
        if !left.is_empty() {
            return Ok(Err(format!("{} still has {left:?}", device.name)));
        }
        let tree = device.tree()?;
        let Some((other, expected)) = &first else {
            first = Some((device, tree));
            continue;
        };
        let differences = expected.differences(&tree);
        if !differences.is_empty() {
            return Ok(Err(format!(
                "{} and {}: {}",
                other.name,
                device.name,
                show(&differences)
            )));
        }
    }
    Ok(Ok(first.map(|(_, tree)| tree).unwrap_or_default()))
}

fn show(differences: &[String]) -> String {
    let shown = differences
        .iter()
        .take(DIFFERENCES_SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    format!("{} paths differ: {shown}", differences.len())
}
