//! scanner: not written yet.
