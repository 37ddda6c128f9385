//! paths: not written yet.
