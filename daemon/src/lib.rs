//! The IO shell of p2p-sync: everything that touches a file, a socket or a clock, around the engine of
//! `p2p_sync_core`. The services do not know each other; `daemon` and `event_loop` wire them.

mod clock;
pub mod config;
mod content_index;
pub mod control;
pub mod daemon;
pub mod demo;
mod event_loop;
pub mod free_space;
mod history;
pub mod identity;
pub mod ignore_rules;
mod install_task;
pub mod journal;
mod ledger;
pub mod ledger_query;
pub mod network;
pub mod paths;
pub mod root_dir;
mod scan_task;
pub mod scanner;
pub mod service_manager;
pub mod store;
pub mod transfer;
mod versions_task;
pub mod watcher;
pub mod worktree;

/// Writes an error and its causes on one line, most outward first.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
