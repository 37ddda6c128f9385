//! Where control sockets are: the rules by which a daemon places its socket and `syncctl` finds it.
//!
//! A daemon run by hand puts its socket into the user's runtime directory under the name of its folder's hash, and
//! claims the common name `control.sock` too if no other daemon holds that. So `syncctl` alone reaches the first
//! daemon, and `syncctl --sync-dir DIR` always the right one. Only [`real_path`] touches the disk.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Bytes that the path of a Unix socket may have: `sun_path` on Linux has 108, one of them for the NUL.
pub const MAX_LEN: usize = 107;

/// The name of the socket of a user's first daemon, and of the machine's.
pub const COMMON_NAME: &str = "control.sock";

/// The socket of the machine's own daemon.
pub const SYSTEM_SOCKET: &str = "/run/p2p-sync/control.sock";

/// Environment variables that decide where sockets are.
#[derive(Debug, Clone, Default)]
pub struct RuntimeEnv {
    /// `RUNTIME_DIRECTORY`, which systemd sets for a unit with `RuntimeDirectory=`; the first of several.
    pub runtime_directory: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// The directory for temporary files, `/tmp` as a rule.
    pub temp_dir: PathBuf,
    /// The caller's user id.
    pub uid: u32,
}

impl RuntimeEnv {
    /// Returns the directory of this user's sockets; to be kept at mode 0700.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        if let Some(dir) = &self.runtime_directory {
            return dir.clone();
        }
        match &self.xdg_runtime_dir {
            Some(dir) => dir.join("p2p-sync"),
            None => self.temp_dir.join(format!("p2p-sync-{}", self.uid)),
        }
    }
}

/// Returns the first 16 hexadecimal digits of the SHA-256 of a folder's real path: its name among state directories
/// and sockets.
#[must_use]
pub fn folder_hash(real_path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let digest = Sha256::digest(real_path.as_os_str().as_bytes());
    digest[..8].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the name of the socket of the daemon that keeps this folder.
#[must_use]
pub fn folder_socket_name(real_path: &Path) -> String {
    format!("{}.sock", folder_hash(real_path))
}

/// Returns an absolute path without symbolic links and `..`, as far as it exists; the rest stays as it is.
///
/// # Errors
/// A part of the path exists and cannot be followed, or a `..` comes after a part that does not exist.
pub fn real_path(absolute: &Path) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = absolute;
    loop {
        match existing.canonicalize() {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |path, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
                    return Err(error);
                };
                missing.push(name);
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says whether a path is short enough for a Unix socket.
#[must_use]
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_follows_the_environment() {
        let mut env = RuntimeEnv {
            temp_dir: "/tmp".into(),
            uid: 1000,
            ..RuntimeEnv::default()
        };
        assert_eq!(env.directory(), Path::new("/tmp/p2p-sync-1000"));
        env.xdg_runtime_dir = Some("/run/user/1000".into());
        assert_eq!(env.directory(), Path::new("/run/user/1000/p2p-sync"));
        env.runtime_directory = Some("/run/p2p-sync-anna".into());
        assert_eq!(env.directory(), Path::new("/run/p2p-sync-anna"));
    }

    #[test]
    fn a_folder_is_named_by_the_sha_256_of_its_path() {
        // printf /srv/sync | sha256sum | cut -c1-16
        assert_eq!(folder_hash(Path::new("/srv/sync")), "f762e68b8608080f");
        assert_eq!(
            folder_socket_name(Path::new("/srv/sync")),
            "f762e68b8608080f.sock"
        );
    }

    #[test]
    fn a_path_of_108_bytes_is_too_long() {
        assert!(fits(Path::new(&"a".repeat(107))));
        assert!(!fits(Path::new(&"a".repeat(108))));
    }
}
