//! What the suites of p2p-sync share: [`harness`] runs real daemons on loopback, [`mod@bench`] measures them, [`main_job`]
//! runs them at the size of real work, [`model`] tries all orders in which lock messages come, [`soak`] kills
//! them while users work, [`sim`] runs groups of engines over fakes.

pub mod bench;
pub mod harness;
pub mod main_job;
pub mod model;
pub mod sim;
pub mod soak;
