//! What the suites of p2p-sync share: [`harness`] runs real daemons on loopback, [`bench`] measures them.

pub mod bench;
pub mod harness;
