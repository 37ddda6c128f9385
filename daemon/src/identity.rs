//! The device's key: 32 secret bytes in `identity.key`, readable by its owner only.
//!
//! Lost with it: the device's name in the group. A copy of it on another machine is a second device that claims to be
//! the same one, and every peer will notice.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the file in the state directory.
pub const FILE: &str = "identity.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("Cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("Cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not 32 bytes.
    #[error("{} does not hold a key: it has {len} bytes, not 32; restore it from a backup, or move it away to become a new device", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:o}); type: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gives no random bytes.
    #[error("The system gives no random bytes")]
    Random,
}

/// Returns 32 random bytes of the system's.
///
/// # Errors
/// [`IdentityError::Random`].
pub fn random32() -> Result<[u8; 32], IdentityError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| IdentityError::Random)?;
    Ok(bytes)
}

/// Reads the key in a state directory, or makes one; the second value says whether it is new.
///
/// # Errors
/// One of [`IdentityError`].
pub fn load_or_create(state_dir: &Path) -> Result<([u8; 32], bool), IdentityError> {
    let path = state_dir.join(FILE);
    match std::fs::File::open(&path) {
        Ok(file) => read(path, file).map(|key| (key, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(state_dir, path).map(|key| (key, true))
        }
        Err(source) => Err(IdentityError::Read { path, source }),
    }
}

fn read(path: PathBuf, mut file: std::fs::File) -> Result<[u8; 32], IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.clone(),
        source,
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path, mode });
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file)
        .take(64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| IdentityError::Damaged {
        path,
        len: bytes.len(),
    })
}

fn create(state_dir: &Path, path: PathBuf) -> Result<[u8; 32], IdentityError> {
    let key = random32()?;
    let part = path.with_extension("key.part");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::rename(&part, &path)?;
        std::fs::File::open(state_dir)?.sync_all()
    };
    write().map_err(|source| IdentityError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (first, new) = load_or_create(dir.path()).unwrap();
        let (second, again) = load_or_create(dir.path()).unwrap();
        assert!(new && !again);
        assert_eq!(first, second);
        let mode = std::fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_exposed_or_damaged_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, b"short").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            load_or_create(dir.path()),
            Err(IdentityError::Damaged { len: 5, .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load_or_create(dir.path()),
            Err(IdentityError::Exposed { .. })
        ));
    }
}
