//! The IO shell of p2p-sync: everything that touches a file, a socket or a clock, around the engine of
//! `p2p_sync_core`. The services do not know each other; `daemon` and `event_loop` wire them.

pub mod config;
pub mod control;
pub mod daemon;
pub mod event_loop;
pub mod journal;
pub mod network;
pub mod paths;
pub mod root_dir;
pub mod scanner;
pub mod service_manager;
pub mod store;
pub mod transfer;
pub mod watcher;
pub mod worktree;
