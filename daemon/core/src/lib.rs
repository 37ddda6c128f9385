//! The sans-IO core of p2p-sync: what an event is, what a set of events means for a folder, and what a device does
//! about it. No module here reads a clock, a file or a socket; the shell (`p2p_sync_daemon`) does, and the simulator
//! puts fakes in its place.
//!
//! Modules, each using only those before it: [`ids`], [`rel_path`], [`time`], [`encoding`], [`merkle`], [`content`],
//! [`tree`], [`access`], [`signature`], [`lock`], [`ledger`], [`fold`], [`ticket`], [`ignore`], [`engine`].

pub mod access;
pub mod content;
pub mod encoding;
pub mod engine;
pub mod fold;
pub mod ids;
pub mod ignore;
pub mod ledger;
pub mod lock;
pub mod merkle;
pub mod rel_path;
pub mod signature;
pub mod ticket;
pub mod time;
pub mod tree;
