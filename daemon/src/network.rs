//! network: not written yet.
