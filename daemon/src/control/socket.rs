//! The control socket's file: making it, replacing a dead one, taking it away again.
//!
//! A group may use it, and another to read: the first owns the socket, the second stands in its access control list; if
//! there is one only, that owns it.
//!
//! The mode is set on the socket before it is bound, so there is no moment at which others could connect. Whoever
//! makes or replaces a socket holds a lock on the directory, so that two daemons that start at once cannot take each
//! other's. A file is replaced only if it is a socket on which nobody answers, which is what a crash leaves behind.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use p2p_sync_proto::socket_path;
use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::acl;
use super::caller::{Access, group_id};
use crate::paths::SocketPlace;

/// The name that the socket unit gives its descriptor (`FileDescriptorName=`).
const ACTIVATION_NAME: &str = "control";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("Another daemon already answers at {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something stands there that is no socket.
    #[error("{} is in the way and is not a socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("{} is not a directory of this user's own", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The configured group does not exist.
    #[error("There is no group {name:?} on this machine")]
    NoSuchGroup {
        /// The group.
        name: String,
    },
    /// The path is too long for a Unix socket.
    #[error("The path of a Unix socket has at most {} bytes: {}", socket_path::MAX_LEN, path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("Cannot {act} {}", path.display())]
    Io {
        /// What was to be done.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd passed descriptors that are of no use.
    #[error("The socket that systemd passed cannot be used")]
    Activation(#[source] io::Error),
}

/// A listening socket, and the files that are removed with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    files: Vec<(PathBuf, u64)>,
}

impl ControlSocket {
    /// Takes the socket that systemd passed under the name `control`; `None` if it passed none.
    ///
    /// # Errors
    /// [`SocketError::Activation`].
    pub fn from_systemd() -> Result<Option<Self>, SocketError> {
        let mut passed = sd_notify::listen_fds_with_names().map_err(SocketError::Activation)?;
        let Some((fd, _)) = passed.find(|(_, name)| name == ACTIVATION_NAME) else {
            return Ok(None);
        };
        Self::duplicate(fd).map(Some).map_err(SocketError::Activation)
    }

    /// Makes a socket of a bare descriptor number without `unsafe`: by a copy that the kernel hands out.
    fn duplicate(fd: i32) -> io::Result<Self> {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let copy = rustix::process::pidfd_getfd(&own, fd, PidfdGetfdFlags::empty())?;
        let listener = UnixListener::from(copy);
        let path = listener
            .local_addr()?
            .as_pathname()
            .map(Path::to_owned)
            .unwrap_or_default();
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path,
            files: Vec::new(),
        })
    }

    /// Makes the socket: mode 0600, or 0660 for groups.
    ///
    /// # Errors
    /// Any [`SocketError`].
    pub fn bind(place: &SocketPlace, access: &Access) -> Result<Self, SocketError> {
        let group = access.group.as_deref().map(find_group).transpose()?;
        let readers = access.read_only_group.as_deref().map(find_group).transpose()?;
        let second = readers.filter(|_| group.is_some() && readers != group);
        let dir_mode = match (group.or(readers), second) {
            (None, _) => 0o700,
            (Some(_), None) => 0o750,
            // A directory has one group; the socket in it keeps everybody else out.
            (Some(_), Some(_)) => 0o751,
        };
        let socket = Self::bind_for(place, group.or(readers), dir_mode)?;
        if let Some(gid) = second {
            let path = &socket.path;
            acl::share(path, gid).map_err(|e| io_error("let the read-only group use", path, e))?;
        }
        Ok(socket)
    }

    /// Says whether the members of a group can reach the socket, as far as its own file decides that; also if there is no
    /// such group or no such file.
    #[must_use]
    pub fn admits(&self, group: &str) -> bool {
        let (Ok(gid), Ok(meta)) = (find_group(group), stat(&self.path)) else {
            return true;
        };
        let by_mode = meta.mode() & 0o002 != 0 || (meta.gid() == gid && meta.mode() & 0o020 != 0);
        by_mode || acl::names(&self.path, gid)
    }

    fn bind_for(place: &SocketPlace, group: Option<u32>, dir_mode: u32) -> Result<Self, SocketError> {
        match place {
            SocketPlace::Named(path) => {
                let dir = match path.parent() {
                    Some(dir) if !dir.as_os_str().is_empty() => dir,
                    _ => Path::new("."),
                };
                make_dir(dir, group, dir_mode)?;
                let _lock = lock(dir)?;
                Self::bind_at(path, group)
            }
            SocketPlace::Own { dir, name } => {
                make_dir(dir, group, dir_mode)?;
                secure_own_dir(dir, group)?;
                let _lock = lock(dir)?;
                let mut socket = Self::bind_at(&dir.join(name), group)?;
                socket.claim_common_name(&dir.join(socket_path::COMMON_NAME))?;
                Ok(socket)
            }
        }
    }

    /// Returns where clients reach the socket; empty if systemd's has no path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the listener, ready for tokio.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    fn bind_at(path: &Path, group: Option<u32>) -> Result<Self, SocketError> {
        if !socket_path::fits(path) {
            return Err(SocketError::TooLong {
                path: path.to_owned(),
            });
        }
        remove_dead(path)?;
        let fd = listen(path, if group.is_some() { 0o660 } else { 0o600 })
            .map_err(|e| io_error("listen at", path, e))?;
        let socket = Self {
            listener: UnixListener::from(fd),
            path: path.to_owned(),
            files: vec![(path.to_owned(), stat(path)?.ino())],
        };
        if let Some(gid) = group {
            std::os::unix::fs::chown(path, None, Some(gid))
                .map_err(|e| io_error("give to the group", path, e))?;
            set_mode(path, 0o660)?;
        }
        Ok(socket)
    }

    /// Adds the common name unless a living daemon has it.
    fn claim_common_name(&mut self, common: &Path) -> Result<(), SocketError> {
        match remove_dead(common) {
            Ok(()) => {}
            Err(SocketError::InUse { .. }) => return Ok(()),
            Err(other) => return Err(other),
        }
        fs::hard_link(&self.path, common).map_err(|e| io_error("link", common, e))?;
        self.files.push((common.to_owned(), stat(common)?.ino()));
        self.path = common.to_owned();
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        for (path, ino) in &self.files {
            // Somebody else's file at our name stays.
            if fs::symlink_metadata(path).is_ok_and(|m| m.ino() == *ino) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn find_group(name: &str) -> Result<u32, SocketError> {
    let missing = || SocketError::NoSuchGroup {
        name: name.to_owned(),
    };
    let found = group_id(name).map_err(|e| io_error("read", Path::new("/etc/group"), e))?;
    found.ok_or_else(missing)
}

/// Makes a directory that only this user (and the groups) can enter; one that exists stays as it is.
fn make_dir(dir: &Path, group: Option<u32>, mode: u32) -> Result<(), SocketError> {
    if dir.is_dir() {
        return Ok(());
    }
    match DirBuilder::new().recursive(true).mode(mode).create(dir) {
        Ok(()) => {}
        Err(e) => return Err(io_error("make", dir, e)),
    }
    if let Some(gid) = group {
        std::os::unix::fs::chown(dir, None, Some(gid)).map_err(|e| io_error("give to the group", dir, e))?;
    }
    Ok(())
}

/// Sees to it that nobody else can put files into the user's socket directory: in `/tmp` somebody may have made it
/// before us.
fn secure_own_dir(dir: &Path, group: Option<u32>) -> Result<(), SocketError> {
    let meta = stat(dir)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(SocketError::ForeignDirectory { path: dir.to_owned() });
    }
    let allowed = if group.is_some() { 0o755 } else { 0o700 };
    if meta.mode() & 0o777 & !allowed != 0 {
        set_mode(dir, allowed & meta.mode() & 0o777 | 0o700)?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, SocketError> {
    let file = File::open(dir).map_err(|e| io_error("open", dir, e))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| io_error("lock", dir, e.into()))?;
    Ok(file)
}

/// Removes a socket on which nobody answers.
fn remove_dead(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("look at", path, e)),
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket {
            path: path.to_owned(),
        });
    }
    if answers(path).map_err(|e| io_error("probe", path, e))? {
        return Err(SocketError::InUse {
            path: path.to_owned(),
        });
    }
    fs::remove_file(path).map_err(|e| io_error("remove", path, e))
}

/// Says whether somebody listens; does not wait, even if their queue is full.
fn answers(path: &Path) -> io::Result<bool> {
    let fd = unix_socket()?;
    match rustix::net::connect(&fd, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let fd = unix_socket()?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn stat(path: &Path) -> Result<Metadata, SocketError> {
    fs::symlink_metadata(path).map_err(|e| io_error("look at", path, e))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SocketError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| io_error("set the mode of", path, e))
}

fn io_error(act: &'static str, path: &Path, source: io::Error) -> SocketError {
    SocketError::Io {
        act,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn alone() -> Access {
        Access::current(None, None)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn own(dir: &Path, name: &str) -> SocketPlace {
        SocketPlace::Own {
            dir: dir.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn the_socket_is_0600_in_a_0700_directory_and_goes_with_its_owner() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/control.sock");
        let socket = ControlSocket::bind(&SocketPlace::Named(path.clone()), &alone()).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let place = SocketPlace::Named(temp.path().join("s"));
        drop(UnixListener::bind(temp.path().join("s")).unwrap());
        let living = ControlSocket::bind(&place, &alone()).unwrap();
        assert!(matches!(
            ControlSocket::bind(&place, &alone()),
            Err(SocketError::InUse { .. })
        ));
        assert!(UnixStream::connect(living.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        fs::write(&path, "precious").unwrap();
        let result = ControlSocket::bind(&SocketPlace::Named(path.clone()), &alone());
        assert!(matches!(result, Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(path).unwrap(), b"precious");
    }

    #[test]
    fn the_first_daemon_has_the_common_name_and_the_second_only_its_folders() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        let first = ControlSocket::bind(&own(&dir, "1.sock"), &alone()).unwrap();
        let second = ControlSocket::bind(&own(&dir, "2.sock"), &alone()).unwrap();
        assert_eq!(first.path(), dir.join("control.sock"));
        assert_eq!(second.path(), dir.join("2.sock"));
        assert!(UnixStream::connect(dir.join("1.sock")).is_ok());
        drop(first);
        assert!(!dir.join("control.sock").exists() && !dir.join("1.sock").exists());
        let third = ControlSocket::bind(&own(&dir, "1.sock"), &alone()).unwrap();
        assert_eq!(third.path(), dir.join("control.sock"));
    }

    #[test]
    fn an_own_directory_that_others_could_enter_is_closed() {
        let temp = tempfile::tempdir().unwrap();
        set_mode(temp.path(), 0o755).unwrap();
        let _socket = ControlSocket::bind(&own(temp.path(), "1.sock"), &alone()).unwrap();
        assert_eq!(mode(temp.path()), 0o700);
    }

    #[test]
    fn a_missing_group_and_a_long_path_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let missing = Some("no such group".to_owned());
        for access in [
            Access::current(missing.clone(), None),
            Access::current(None, missing),
        ] {
            let result = ControlSocket::bind(&SocketPlace::Named(temp.path().join("s")), &access);
            assert!(matches!(result, Err(SocketError::NoSuchGroup { .. })));
        }
        let long = temp.path().join("x".repeat(120));
        let result = ControlSocket::bind(&SocketPlace::Named(long), &alone());
        assert!(matches!(result, Err(SocketError::TooLong { .. })));
    }

    #[test]
    fn a_passed_descriptor_becomes_a_listener() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let passed = UnixListener::bind(&path).unwrap();
        let socket = ControlSocket::duplicate(passed.as_raw_fd()).unwrap();
        drop(passed);
        assert_eq!(socket.path(), path);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(path.exists(), "the file is systemd's");
    }
}
