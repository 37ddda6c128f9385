//! Where things are (the only module that knows): folder, state directory, configuration, control socket.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use p2p_sync_proto::socket_path::{self, RuntimeEnv};

/// The folder of a daemon that was told nothing, in the current directory.
pub const DEFAULT_FOLDER: &str = "sync_folder";
/// The name of everything of ours in directories that others use too.
const APP: &str = "p2p-sync";

/// Why a place cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathsError {
    /// A path cannot be made absolute or followed.
    #[error("Cannot resolve {}", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Neither a home directory nor a variable that stands for it.
    #[error("There is no home directory to keep state in; name one with --state-dir")]
    NoHome,
    /// A socket's path does not fit into `sun_path`.
    #[error(
        "The control socket's path has {} bytes, but a Unix socket's can have only {}: {}; choose a shorter one with --socket",
        path.as_os_str().len(),
        socket_path::MAX_LEN,
        path.display()
    )]
    SocketTooLong {
        /// The path.
        path: PathBuf,
    },
}

/// The environment, read once.
#[derive(Debug, Clone)]
pub struct Environment {
    /// All variables whose names are UTF-8.
    pub vars: BTreeMap<String, OsString>,
    /// The current directory.
    pub current_dir: PathBuf,
    /// The user.
    pub uid: u32,
    /// The machine's name, for want of a better name of the device.
    pub host_name: String,
}

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`PathsError::Resolve`] if the current directory is gone.
    pub fn current() -> Result<Self, PathsError> {
        let current_dir = std::env::current_dir().map_err(|source| PathsError::Resolve {
            path: PathBuf::from("."),
            source,
        })?;
        let vars = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v)))
            .collect();
        let uid = rustix::process::geteuid().as_raw();
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            vars,
            current_dir,
            uid,
            host_name,
        })
    }

    /// Returns a variable, unless it is empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&OsString> {
        self.vars.get(name).filter(|v| !v.is_empty())
    }

    /// Returns a variable that holds an absolute path; XDG's rule is to ignore others.
    fn dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }

    /// Returns the first directory of a variable that systemd fills with several, `:` between them.
    fn first_dir(&self, name: &str) -> Option<PathBuf> {
        let value = self.var(name)?.to_str()?;
        value
            .split(':')
            .next()
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    }

    fn below_home(&self, xdg: &str, below: &str) -> Option<PathBuf> {
        self.dir(xdg).or_else(|| Some(self.dir("HOME")?.join(below)))
    }

    /// Returns what decides about sockets.
    #[must_use]
    pub fn runtime(&self) -> RuntimeEnv {
        RuntimeEnv {
            runtime_directory: self.first_dir("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: self.dir("XDG_RUNTIME_DIR"),
            temp_dir: self.dir("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")),
            uid: self.uid,
        }
    }

    /// Returns where a user's configuration file is, if it exists or not.
    #[must_use]
    pub fn user_config(&self) -> Option<PathBuf> {
        Some(
            self.below_home("XDG_CONFIG_HOME", ".config")?
                .join(APP)
                .join("config.toml"),
        )
    }

    /// Returns the state directory of a daemon that keeps this folder.
    ///
    /// # Errors
    /// [`PathsError::NoHome`].
    pub fn state_dir(&self, real_folder: &Path) -> Result<PathBuf, PathsError> {
        if let Some(dir) = self.first_dir("STATE_DIRECTORY") {
            return Ok(dir.join(socket_path::folder_hash(real_folder)));
        }
        let base = self
            .below_home("XDG_STATE_HOME", ".local/state")
            .ok_or(PathsError::NoHome)?;
        Ok(base.join(APP).join(socket_path::folder_hash(real_folder)))
    }

    /// Returns a path as seen from the current directory, and without symbolic links as far as it exists.
    ///
    /// # Errors
    /// [`PathsError::Resolve`].
    pub fn real_path(&self, path: &Path) -> Result<PathBuf, PathsError> {
        let absolute = self.current_dir.join(path);
        socket_path::real_path(&absolute).map_err(|source| PathsError::Resolve {
            path: absolute,
            source,
        })
    }
}

/// Where the control socket goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPlace {
    /// Exactly there, as the user said.
    Named(PathBuf),
    /// Into the user's own directory, by the folder's name, and by the common name if that is free.
    Own {
        /// The directory; made with mode 0700.
        dir: PathBuf,
        /// The folder's name in it.
        name: String,
    },
}

impl SocketPlace {
    /// Returns the place that was named.
    ///
    /// # Errors
    /// [`PathsError::SocketTooLong`].
    pub fn named(path: PathBuf) -> Result<Self, PathsError> {
        fitting(&path)?;
        Ok(Self::Named(path))
    }

    /// Returns the place for a daemon that keeps this folder and was told nothing.
    ///
    /// # Errors
    /// [`PathsError::SocketTooLong`].
    pub fn own(runtime: &RuntimeEnv, real_folder: &Path) -> Result<Self, PathsError> {
        let (dir, name) = (runtime.directory(), socket_path::folder_socket_name(real_folder));
        fitting(&dir.join(&name))?;
        Ok(Self::Own { dir, name })
    }
}

fn fitting(path: &Path) -> Result<(), PathsError> {
    if socket_path::fits(path) {
        Ok(())
    } else {
        Err(PathsError::SocketTooLong {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment {
            vars: vars
                .iter()
                .map(|(k, v)| ((*k).to_owned(), OsString::from(v)))
                .collect(),
            current_dir: "/work".into(),
            uid: 1000,
            host_name: "atlas".into(),
        }
    }

    #[test]
    fn state_lies_in_the_xdg_state_directory_by_the_folders_hash() {
        let folder = Path::new("/srv/sync");
        let name = socket_path::folder_hash(folder);
        let check = |vars: &[(&str, &str)], base: &str| {
            assert_eq!(
                environment(vars).state_dir(folder).unwrap(),
                Path::new(base).join(&name)
            );
        };
        check(&[("HOME", "/home/a")], "/home/a/.local/state/p2p-sync");
        check(
            &[("HOME", "/home/a"), ("XDG_STATE_HOME", "/state")],
            "/state/p2p-sync",
        );
        check(
            &[("HOME", "/home/a"), ("XDG_STATE_HOME", "relative")],
            "/home/a/.local/state/p2p-sync",
        );
        check(
            &[("STATE_DIRECTORY", "/var/lib/p2p-sync-a:/var/lib/b")],
            "/var/lib/p2p-sync-a",
        );
        assert!(matches!(
            environment(&[]).state_dir(folder),
            Err(PathsError::NoHome)
        ));
    }

    #[test]
    fn a_socket_path_of_more_than_107_bytes_is_refused() {
        assert!(SocketPlace::named(PathBuf::from(format!("/{}", "a".repeat(106)))).is_ok());
        let error = SocketPlace::named(PathBuf::from(format!("/{}", "a".repeat(107)))).unwrap_err();
        assert!(error.to_string().contains("108 bytes") && error.to_string().contains("--socket"));
        let runtime = environment(&[("XDG_RUNTIME_DIR", &format!("/{}", "r".repeat(100)))]).runtime();
        assert!(SocketPlace::own(&runtime, Path::new("/srv/sync")).is_err());
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_has_a_real_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let environment = Environment {
            current_dir: dir.path().to_owned(),
            ..environment(&[])
        };
        assert_eq!(
            environment.real_path(Path::new("link/x/y")).unwrap(),
            real.join("x/y")
        );
    }
}
