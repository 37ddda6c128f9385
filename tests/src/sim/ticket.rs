//! Tickets as `syncctl invite` prints them, with addresses of the simulated network.

use p2p_sync_core::ids::GroupId;
use p2p_sync_core::ticket::Ticket;

/// Returns the address of a simulated device.
#[must_use]
pub fn address(device: usize) -> String {
    format!("sim/{device}")
}

/// Returns the device with this address.
#[must_use]
pub fn resolve(address: &str) -> Option<usize> {
    address.strip_prefix("sim/")?.parse().ok()
}

/// Returns a ticket.
#[must_use]
pub fn print(group: GroupId, secret: [u8; 32], devices: &[usize]) -> String {
    let addresses = devices.iter().map(|device| address(*device));
    Ticket::new(group, secret, addresses).to_string()
}
