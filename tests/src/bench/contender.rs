//! What the benchmark needs of a program.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::harness::Usage;

/// A program that brings the first folder's content to the second. Both ends run when it is made and end when it is
/// dropped.
pub(crate) trait Contender {
    /// Its name in the report.
    fn name(&self) -> &'static str;

    /// The two folders.
    fn folders(&self) -> [PathBuf; 2];

    /// A directory on the folders' file system, from which files are moved in.
    fn staging(&self) -> &Path;

    /// What both ends together have used so far.
    fn usage(&self) -> Result<Usage>;

    /// Says whether it notices changes by itself.
    fn is_continuous(&self) -> bool {
        true
    }

    /// Brings the changes over, where the program does not do so by itself.
    fn push(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Adds up what several processes have used, children that have ended included.
pub(crate) fn sum(usages: &[Usage]) -> Usage {
    usages.iter().fold(Usage::default(), |total, one| Usage {
        cpu: total.cpu + one.cpu + one.cpu_children,
        cpu_children: total.cpu_children,
        rss_bytes: total.rss_bytes + one.rss_bytes,
        rss_peak_bytes: total.rss_peak_bytes + one.rss_peak_bytes,
    })
}
