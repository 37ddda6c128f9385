//! transfer: not written yet.
