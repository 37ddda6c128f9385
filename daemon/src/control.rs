//! control: not written yet.
