//! Limits of a running daemon's process, which need no root.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::Device;

impl Device {
    /// Lets every write of the running daemon fail that would make a file longer than so many bytes; `None`: none.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, limit).context("Limiting the size of files")?;
        Ok(())
    }

    /// Leaves the running daemon room for so many further descriptors; `None`: for as many as this process may have.
    ///
    /// # Errors
    /// Fails if it is not running.
    pub fn limit_open_files(&self, further: Option<usize>) -> Result<()> {
        let pid = self.pid()?;
        let mut limit = getrlimit(Resource::Nofile);
        if let Some(further) = further {
            let dir = PathBuf::from(format!("/proc/{pid}/fd"));
            let taken = |number: &u64| dir.join(number.to_string()).symlink_metadata().is_ok();
            limit.current = (0..).filter(|number| !taken(number)).nth(further);
        }
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        prlimit(pid, Resource::Nofile, limit).context("Limiting the number of open files")?;
        Ok(())
    }
}
