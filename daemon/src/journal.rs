//! journal: not written yet.
