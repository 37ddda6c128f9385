//! Who is on the other end of a connection, and whether they may call.
//!
//! The kernel names the peer's user and group (`SO_PEERCRED`). Supplementary groups are not among that, so membership
//! is read from the group file by the user's name; a user from a directory service counts only if the group is the
//! process's own (`sg p2p-sync -c …`).

use std::path::Path;
use std::{fs, io};

use tonic::{Request, Status};

use super::status::not_permitted;

const GROUP_FILE: &str = "/etc/group";
const PASSWD_FILE: &str = "/etc/passwd";

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The daemon's own user.
    pub own_uid: u32,
    /// The name of a group whose members may call too.
    pub group: Option<String>,
}

/// A connection's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its user.
    pub(super) uid: u32,
    /// Its process; `None` if it lies in another namespace.
    pub(super) pid: Option<i32>,
    /// Whether it may call.
    pub(super) permitted: bool,
}

impl Access {
    /// Returns the access of a daemon that runs as the current user.
    #[must_use]
    pub fn current(group: Option<String>) -> Self {
        Self {
            own_uid: rustix::process::geteuid().as_raw(),
            group,
        }
    }

    /// Says whether a peer may call. Reads the user and group files if that has to be asked; blocks for it.
    #[must_use]
    pub fn permits(&self, uid: u32, gid: u32) -> bool {
        if uid == 0 || uid == self.own_uid {
            return true;
        }
        let Some(group) = &self.group else {
            return false;
        };
        let files = read(GROUP_FILE).and_then(|groups| Ok((groups, read(PASSWD_FILE)?)));
        match files {
            Ok((groups, users)) => is_member(group, &groups, &users, uid, gid),
            Err(error) => {
                tracing::warn!(%error, "Cannot read the user database; the caller is refused");
                false
            }
        }
    }
}

/// Returns the number of a group.
///
/// # Errors
/// The group file cannot be read; no such group is `Ok(None)`.
pub(super) fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(find_group(name, &read(GROUP_FILE)?).map(|(gid, _)| gid))
}

/// Refuses callers that may not call; for every service on the socket.
pub(super) fn check(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.permitted => Ok(request),
        Some(caller) => {
            tracing::warn!(
                uid = caller.uid,
                pid = caller.pid,
                "Refused a caller on the control socket"
            );
            Err(not_permitted())
        }
        None => Err(not_permitted()),
    }
}

/// Logs who makes a call that changes something.
pub(super) fn note<T>(request: &Request<T>, call: &'static str) {
    let caller = request.extensions().get::<Caller>();
    let (uid, pid) = (
        caller.map(|caller| caller.uid),
        caller.and_then(|caller| caller.pid),
    );
    tracing::info!(call, uid, pid, "A user asked");
}

fn read(path: &str) -> io::Result<String> {
    let bytes = fs::read(Path::new(path)).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_member(group: &str, groups: &str, users: &str, uid: u32, gid: u32) -> bool {
    let Some((wanted, members)) = find_group(group, groups) else {
        return false;
    };
    if gid == wanted {
        return true;
    }
    let Some((name, primary)) = find_user(uid, users) else {
        return false;
    };
    primary == wanted || members.contains(&name)
}

/// Returns a group's number and members, from lines of `name:password:gid:user,user`.
fn find_group<'a>(name: &str, groups: &'a str) -> Option<(u32, Vec<&'a str>)> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let gid = fields.nth(1)?.parse().ok()?;
        Some((gid, fields.next()?.split(',').map(str::trim).collect()))
    })
}

/// Returns a user's name and primary group, from lines of `name:password:uid:gid:…`.
fn find_user(uid: u32, users: &str) -> Option<(&str, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        if fields.nth(1)?.parse() != Ok(uid) {
            return None;
        }
        Some((name, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\np2p-sync:x:990:anna,bert\nother:x:991:carl\nbroken\n";
    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/:\ncarl:x:1001:1001::/:\ndora:x:1002:990::/:\n";

    #[test]
    fn root_and_the_daemons_user_may_call_without_a_group() {
        let access = Access {
            own_uid: 1000,
            group: None,
        };
        assert!(access.permits(0, 0));
        assert!(access.permits(1000, 5));
        assert!(!access.permits(1001, 1000));
    }

    #[test]
    fn only_members_of_the_group_may_call() {
        let check = |uid, gid| is_member("p2p-sync", GROUPS, USERS, uid, gid);
        assert!(check(1000, 1000), "listed in the group");
        assert!(check(1002, 1), "by primary group");
        assert!(check(4000, 990), "by the process's group");
        assert!(!check(1001, 1001), "in another group only");
        assert!(!check(4000, 4000), "unknown user");
        assert!(!is_member("missing", GROUPS, USERS, 1000, 1000));
    }

    #[test]
    fn a_call_without_credentials_is_refused() {
        assert_eq!(
            check(Request::new(())).unwrap_err().code(),
            tonic::Code::PermissionDenied
        );
        let mut request = Request::new(());
        request.extensions_mut().insert(Caller {
            uid: 5,
            pid: None,
            permitted: false,
        });
        assert_eq!(check(request).unwrap_err().code(), tonic::Code::PermissionDenied);
        let mut request = Request::new(());
        request.extensions_mut().insert(Caller {
            uid: 5,
            pid: None,
            permitted: true,
        });
        assert!(check(request).is_ok());
    }
}
