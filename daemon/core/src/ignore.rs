//! Paths that this device leaves alone.
//!
//! Ignored means *unknown here*: a device neither publishes nor removes nor installs an ignored path, whatever stands
//! on its disk and whatever the ledger says. Rules are each device's own; others need not have the same.

use crate::rel_path::RelPath;

/// Which paths are ignored. Pure: the same answer for the same path for as long as the value lives.
pub trait IgnoreRules: std::fmt::Debug + Send + Sync {
    /// Says whether a path is ignored, itself or because a directory above it is; `is_dir` says what it is.
    fn is_ignored(&self, path: &RelPath, is_dir: bool) -> bool;

    /// Returns a name of these rules: rules of the same name give the same answers. All zeros is [`IgnoreNothing`]'s.
    fn id(&self) -> [u8; 32];
}

/// Rules that ignore nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IgnoreNothing;

impl IgnoreRules for IgnoreNothing {
    fn is_ignored(&self, _: &RelPath, _: bool) -> bool {
        false
    }

    fn id(&self) -> [u8; 32] {
        [0; 32]
    }
}
