//! A simulated group of devices: the real engine over a fake store, disk, scanner, network and clock.
//!
//! Everything that happens follows from a plan, which is drawn from one seed or read from a file: what users do, how long
//! messages take and which are lost, when cables are cut, when a daemon or a machine dies, between two steps of an
//! install or elsewhere, and what had become durable by then, how wrong clocks are. A run has a part with
//! faults, then all is healed and everything must come to rest within a bounded time. A run tells its steps to a
//! trace, whose hash must be the same each time a seed is run.
//!
//! What must hold at each step and at the end stands in `tests/simulation/invariants/`.

pub mod actions;
pub mod device;
pub mod disk;
pub mod journal;
pub mod oracle;
pub mod plan;
pub mod rng;
pub mod scanner;
pub mod store;
pub mod ticket;
pub mod trace;
pub mod worktree;
pub mod world;
