//! watcher: not written yet.
