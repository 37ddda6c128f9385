//! What the suites of p2p-sync share: [`harness`] runs real daemons on loopback, [`mod@bench`] measures them, [`sim`] runs
//! groups of engines over fakes.

pub mod bench;
pub mod harness;
pub mod sim;
