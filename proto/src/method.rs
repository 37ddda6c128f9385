//! The methods of the control API, and which of them only read (the option `read` in `p2psync/v1/options.proto`).

/// A method of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its path in a request: `/package.Service/Method`.
    pub path: &'static str,
    /// Whether it has the option `read`.
    pub reads: bool,
}

/// All of them, in the order of their files.
pub const METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

impl Method {
    /// Returns the method that a request's path names.
    #[must_use]
    pub fn of_path(path: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.path == path)
    }

    /// Returns its name without the service's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Methods that change something, ask other devices, or tell what is in files or a secret. Whoever adds a method marks
    /// it with the option `read` or, after some thought, names it here.
    const FOR_THE_GROUP_ONLY: [&str; 27] = [
        "AcceptQuarantined",
        "AcquireLock",
        "ApproveJoin",
        "BreakLock",
        "ChangeRole",
        "ConfirmDeletes",
        "ConnectPeer",
        "CreateInvite",
        "DropQuarantined",
        "ForgetRecovery",
        "Join",
        "JoinByName",
        "Leave",
        "ListLan",
        "Pause",
        "ReadVersion",
        "ReleaseLock",
        "RemoveMember",
        "RenameDevice",
        "Rescan",
        "Restore",
        "Resume",
        "RevokeInvite",
        "SetPerson",
        "SetVoters",
        "ShowRecovery",
        "UseRecovery",
    ];

    #[test]
    fn every_method_is_marked_as_reading_or_known_to_do_more() {
        let more = METHODS.iter().filter(|method| !method.reads);
        let more: BTreeSet<&str> = more.map(Method::name).collect();
        assert_eq!(more, BTreeSet::from(FOR_THE_GROUP_ONLY));
        assert!(METHODS.iter().any(|method| method.reads), "the option is read");
    }

    #[test]
    fn a_method_is_found_by_the_path_of_a_request() {
        let found = Method::of_path("/p2psync.v1.ControlService/GetStatus").unwrap();
        assert_eq!((found.name(), found.reads), ("GetStatus", true));
        assert!(
            !Method::of_path("/p2psync.v1.RecoveryService/ShowRecovery")
                .unwrap()
                .reads
        );
        assert_eq!(Method::of_path("/p2psync.v1.ControlService/"), None);
        assert_eq!(Method::of_path("GetStatus"), None);
    }
}
