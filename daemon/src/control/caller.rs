//! Who is on the other end of a connection, and what they may call.
//!
//! One layer around all services ([`CheckLayer`]) asks for each call whether its caller may make it, and logs who makes one
//! that does more than read. Whether a method only reads stands in the `.proto` files; one that is not marked is for root,
//! the daemon's user and its group.
//!
//! The kernel names the peer's user and group (`SO_PEERCRED`). Supplementary groups are not among that, so membership
//! is read from the group file by the user's name; a user from a directory service counts only if the group is the
//! process's own (`sg p2p-sync -c …`).

use std::path::Path;
use std::task::{Context, Poll};
use std::{fs, io};

use futures::future::{Either, Ready, ready};
use p2p_sync_proto::method::Method;
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::status::{not_permitted, reads_only};

const GROUP_FILE: &str = "/etc/group";
const PASSWD_FILE: &str = "/etc/passwd";

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The daemon's own user.
    pub own_uid: u32,
    /// The name of a group whose members may call too.
    pub group: Option<String>,
    /// The name of a group whose members may call what only reads.
    pub read_only_group: Option<String>,
}

/// How far somebody's power over the daemon reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// They may call nothing.
    Nothing,
    /// They may call what only reads.
    Reads,
    /// They may call everything.
    Everything,
}

/// A connection's other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its user.
    pub(super) uid: u32,
    /// Its process; `None` if it lies in another namespace.
    pub(super) pid: Option<i32>,
    /// What it may call.
    pub(super) reach: Reach,
}

impl Access {
    /// Returns the access of a daemon that runs as the current user.
    #[must_use]
    pub fn current(group: Option<String>, read_only_group: Option<String>) -> Self {
        Self {
            own_uid: rustix::process::geteuid().as_raw(),
            group,
            read_only_group,
        }
    }

    /// Says what a peer may call. Reads the user and group files if that has to be asked; blocks for it.
    #[must_use]
    pub fn reach(&self, uid: u32, gid: u32) -> Reach {
        if uid == 0 || uid == self.own_uid {
            return Reach::Everything;
        }
        if self.group.is_none() && self.read_only_group.is_none() {
            return Reach::Nothing;
        }
        let files = read(GROUP_FILE).and_then(|groups| Ok((groups, read(PASSWD_FILE)?)));
        match files {
            Ok((groups, users)) => self.reach_by(&groups, &users, uid, gid),
            Err(error) => {
                tracing::warn!(%error, "Cannot read the user database; the caller is refused");
                Reach::Nothing
            }
        }
    }

    fn reach_by(&self, groups: &str, users: &str, uid: u32, gid: u32) -> Reach {
        let is_in = |group: &Option<String>| {
            let group = group.as_ref();
            group.is_some_and(|group| is_member(group, groups, users, uid, gid))
        };
        match (is_in(&self.group), is_in(&self.read_only_group)) {
            (true, _) => Reach::Everything,
            (false, true) => Reach::Reads,
            (false, false) => Reach::Nothing,
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

/// Methods of other packages that only read: whether the daemon serves, and what it can be asked.
const READING_PACKAGES: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Lets a call through whose caller may make it; logs who makes one that does more than read.
fn check(caller: Option<&Caller>, path: &str) -> Result<(), Status> {
    let Some(caller) = caller.filter(|caller| caller.reach != Reach::Nothing) else {
        let (uid, pid) = (
            caller.map(|caller| caller.uid),
            caller.and_then(|caller| caller.pid),
        );
        tracing::warn!(uid, pid, "Refused a caller on the control socket");
        return Err(not_permitted());
    };
    let method = Method::of_path(path);
    let reads = method.map_or_else(
        || READING_PACKAGES.iter().any(|package| path.starts_with(package)),
        |method| method.reads,
    );
    if reads {
        return Ok(());
    }
    let (uid, pid, call) = (caller.uid, caller.pid, method.map(Method::name));
    if caller.reach == Reach::Reads {
        tracing::warn!(call, uid, pid, "Refused a caller that may only read");
        return Err(reads_only(call));
    }
    // What is no method changes nothing.
    if let Some(call) = call {
        tracing::info!(call, uid, pid, "A user asked");
    }
    Ok(())
}

/// Puts [`Checked`] around the services.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckLayer;

impl<S> Layer<S> for CheckLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner }
    }
}

/// Services whose every call is checked first.
#[derive(Debug, Clone)]
pub(super) struct Checked<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Checked<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<B>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        match check(request.extensions().get::<Caller>(), request.uri().path()) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refusal) => Either::Left(ready(Ok(refusal.into_http()))),
        }
    }
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
    use tonic_types::StatusExt as _;

    use super::*;

    const GROUPS: &str = "root:x:0:\np2p-sync:x:990:anna,bert\nother:x:991:carl\nbroken\n";
    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/:\ncarl:x:1001:1001::/:\ndora:x:1002:990::/:\n";

    #[test]
    fn root_and_the_daemons_user_may_call_without_a_group() {
        let access = Access {
            own_uid: 1000,
            group: None,
            read_only_group: None,
        };
        assert_eq!(access.reach(0, 0), Reach::Everything);
        assert_eq!(access.reach(1000, 5), Reach::Everything);
        assert_eq!(access.reach(1001, 1000), Reach::Nothing);
    }

    #[test]
    fn members_of_the_read_only_group_reach_less_unless_they_are_in_the_other_too() {
        let access = |group: &str, read_only: &str| Access {
            own_uid: 5,
            group: Some(group.to_owned()),
            read_only_group: Some(read_only.to_owned()),
        };
        let reach = |access: &Access, uid| access.reach_by(GROUPS, USERS, uid, uid);
        let apart = access("p2p-sync", "other");
        assert_eq!(reach(&apart, 1000), Reach::Everything);
        assert_eq!(reach(&apart, 1001), Reach::Reads);
        assert_eq!(reach(&apart, 4000), Reach::Nothing);
        assert_eq!(reach(&access("other", "other"), 1001), Reach::Everything);
        assert_eq!(reach(&access("missing", "p2p-sync"), 1000), Reach::Reads);
        assert_eq!(reach(&access("missing", "missing"), 1000), Reach::Nothing);
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
    fn each_caller_may_call_what_it_reaches_and_nobody_without_credentials_anything() {
        let reading = [
            "/p2psync.v1.ControlService/GetStatus",
            "/p2psync.v1.ControlService/Watch",
            "/p2psync.v1.LedgerService/FollowEvents",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ];
        let more = [
            "/p2psync.v1.ControlService/Pause",
            "/p2psync.v1.ControlService/ReadVersion",
            "/p2psync.v1.RecoveryService/ShowRecovery",
            "/p2psync.v1.ControlService/Unknown",
            "/unknown.Service/GetStatus",
            "",
        ];
        let reason = |reach: Option<Reach>, path: &str| {
            let caller = reach.map(|reach| Caller {
                uid: 5,
                pid: None,
                reach,
            });
            let refusal = check(caller.as_ref(), path).err()?;
            assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
            Some(refusal.get_details_error_info()?.reason)
        };
        for path in reading.into_iter().chain(more) {
            for stranger in [None, Some(Reach::Nothing)] {
                assert_eq!(
                    reason(stranger, path).as_deref(),
                    Some("CALLER_NOT_PERMITTED"),
                    "{path}"
                );
            }
            assert_eq!(reason(Some(Reach::Everything), path), None, "{path}");
        }
        for path in reading {
            assert_eq!(reason(Some(Reach::Reads), path), None, "{path}");
        }
        for path in more {
            assert_eq!(
                reason(Some(Reach::Reads), path).as_deref(),
                Some("CALLER_READS_ONLY"),
                "{path}"
            );
        }
    }
}
