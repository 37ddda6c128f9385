//! Failures: what went wrong, what to type next, and the exit code.

use p2p_sync_proto::reason;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Exit codes, after sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// The answer is no, or the daemon refused.
    No = 1,
    Usage = 64,
    Data = 65,
    NoInput = 66,
    Unavailable = 69,
    Software = 70,
    CantCreate = 73,
    TempFail = 75,
    Protocol = 76,
    NoPerm = 77,
}

/// A command that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// A stable word in capitals.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The gRPC code, if the daemon answered.
    pub(crate) grpc: Option<Code>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, reason: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            reason: reason.to_owned(),
            message: message.into(),
            hint: None,
            grpc: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Returns the error as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            schema: &'static str,
            reason: &'a str,
            grpc: Option<String>,
            exit: u8,
            message: &'a str,
            hint: Option<&'a str>,
        }
        let json = Json {
            schema: "p2psync.error/1",
            reason: &self.reason,
            grpc: self.grpc.map(grpc_name),
            exit: self.exit as u8,
            message: &self.message,
            hint: self.hint.as_deref(),
        };
        serde_json::to_string(&json).unwrap_or_else(|_| self.message.clone())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let info = status
            .get_details_error_info()
            .filter(|i| i.domain == reason::DOMAIN);
        let reason = info.map_or_else(|| grpc_name(status.code()), |i| i.reason);
        let (exit, hint) = judge(&reason, status.code());
        let message = match status.message() {
            "" => grpc_name(status.code()),
            text => text.to_owned(),
        };
        Self {
            exit,
            reason,
            message,
            hint: hint.map(str::to_owned),
            grpc: Some(status.code()),
        }
    }
}

/// Chooses exit code and hint: by the daemon's reason, else by the gRPC code.
fn judge(reason: &str, code: Code) -> (Exit, Option<&'static str>) {
    let new_ticket = Some("make a new ticket on a device of the group: syncctl invite create");
    match reason {
        reason::BAD_TICKET => (
            Exit::Data,
            Some("copy all of the line that this printed there: syncctl invite create"),
        ),
        reason::INVITE_UNKNOWN | reason::INVITE_EXPIRED | reason::INVITE_USED_UP => (Exit::Data, new_ticket),
        reason::INVITER_MAY_NOT_ADMIT => (Exit::NoPerm, new_ticket),
        reason::INVITER_UNREACHABLE => (
            Exit::TempFail,
            Some("see that the other daemon runs and can be reached; there: syncctl status"),
        ),
        reason::NO_SUCH_NAME => (Exit::No, Some("see who is there: syncctl join lan:")),
        reason::NAME_AMBIGUOUS => (
            Exit::No,
            Some("name a device by its id, which this lists: syncctl join lan:"),
        ),
        reason::JOIN_TURNED_DOWN => (Exit::No, Some("ask again: syncctl join lan:NAME")),
        reason::NOT_APPROVED => (Exit::TempFail, Some("ask again: syncctl join lan:NAME")),
        reason::NO_SUCH_REQUEST => (Exit::No, Some("see who asks: syncctl approve")),
        reason::WRONG_CODE => (
            Exit::No,
            Some("type the digits that the device's own screen shows"),
        ),
        reason::NO_GROUP => (Exit::No, Some("join one: syncctl join TICKET")),
        reason::NO_ADDRESS => (
            Exit::TempFail,
            Some("see where this device listens: syncctl status"),
        ),
        reason::ROLE_TOO_LOW => (Exit::NoPerm, Some("see who may: syncctl peers")),
        reason::OUTRANKED => (
            Exit::NoPerm,
            Some("a senior owner can; see who is one: syncctl member list"),
        ),
        reason::NO_SUCH_MEMBER => (Exit::NoInput, Some("see who is one: syncctl member list")),
        reason::NO_SUCH_INVITE => (Exit::NoInput, Some("see which there are: syncctl invite list")),
        reason::ALREADY_IN_GROUP => (Exit::No, Some("see which devices are in it: syncctl peers")),
        reason::LOCKED => (
            Exit::No,
            Some(
                "wait for it: syncctl lock --wait 10m PATH; an admin can end it: syncctl unlock --force --reason WHY PATH",
            ),
        ),
        reason::NO_SUCH_LOCK => (Exit::No, Some("see what is locked: syncctl locks")),
        reason::NO_QUORUM => (
            Exit::TempFail,
            Some("see which voters can be reached: syncctl voters list"),
        ),
        reason::VOTER_UNREACHABLE => (
            Exit::TempFail,
            Some("see which devices are connected: syncctl peers"),
        ),
        reason::SAME_VOTERS => (Exit::No, Some("see who does: syncctl voters list")),
        reason::VOTER_UNFIT => (
            Exit::TempFail,
            Some("an owner can have other devices grant locks: syncctl voters set DEVICE..."),
        ),
        reason::BEHIND => (
            Exit::TempFail,
            Some("wait for it: syncctl wait --for in-sync; then try again"),
        ),
        reason::NO_SUCH_EVENT => (Exit::NoInput, Some("see what there is: syncctl log")),
        reason::NOT_PROVABLE => (
            Exit::No,
            Some("what its author was not allowed to do counts nowhere; see its grants: syncctl log"),
        ),
        reason::LEDGER_DAMAGED => (
            Exit::Data,
            Some("find what is damaged: syncctl ledger verify --full"),
        ),
        reason::NO_SUCH_VERSION => (Exit::No, Some("see what there is: syncctl history PATH")),
        reason::PATH_IGNORED => (
            Exit::No,
            Some("do it on a device that does not ignore the path, or change the patterns"),
        ),
        reason::BYTES_NOT_AT_HAND => (
            Exit::No,
            Some("connect a device that may have them and try again: syncctl peers"),
        ),
        reason::BUSY => (Exit::TempFail, Some("try again in a moment")),
        reason::STATE_OLD => (Exit::TempFail, Some("see what it waits for: syncctl status")),
        reason::FOLDER_FAILED => (Exit::No, Some("see what failed and what to do: syncctl status")),
        reason::TIMEOUT => (
            Exit::TempFail,
            Some("see what the daemon is doing: syncctl status"),
        ),
        reason::STOPPING => (
            Exit::Unavailable,
            Some("see whether it comes back: syncctl status"),
        ),
        reason::CALLER_NOT_PERMITTED => (
            Exit::NoPerm,
            Some("sudo usermod -aG p2p-sync $USER, then log in again; or use sudo"),
        ),
        reason::CALLER_READS_ONLY => (
            Exit::NoPerm,
            Some("ask somebody in [control] group of the daemon's configuration, or use sudo"),
        ),
        reason::BAD_ADDRESS => (
            Exit::Usage,
            Some("an address looks like /ip4/192.0.2.7/tcp/22010/p2p/12D3Koo…; there: syncctl status"),
        ),
        reason::NO_RECOVERY => (Exit::No, Some("show them on the device that founded the group")),
        reason::WRONG_RECOVERY => (
            Exit::Data,
            Some("see that they are the words of this group, which was founded with them"),
        ),
        reason::AMBIGUOUS => (Exit::Usage, Some("type more digits of its id")),
        reason::BAD_PATH | reason::INVALID_ARGUMENT => (Exit::Usage, Some("see: syncctl --help")),
        _ => by_code(code),
    }
}

fn by_code(code: Code) -> (Exit, Option<&'static str>) {
    match code {
        Code::Ok => (Exit::Ok, None),
        Code::PermissionDenied | Code::Unauthenticated => (Exit::NoPerm, None),
        Code::Unavailable => (Exit::Unavailable, Some("see whether it runs: syncctl status")),
        Code::DeadlineExceeded | Code::Cancelled => (Exit::TempFail, Some("allow more time: --timeout 60s")),
        Code::Aborted | Code::ResourceExhausted => (Exit::TempFail, Some("try again in a moment")),
        Code::InvalidArgument | Code::OutOfRange => (Exit::Usage, None),
        Code::DataLoss => (Exit::Data, None),
        Code::Unimplemented => (
            Exit::Protocol,
            Some("daemon and syncctl have different versions: restart the daemon"),
        ),
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => (Exit::No, None),
        Code::Internal | Code::Unknown => (Exit::Software, None),
    }
}

/// Returns a code as gRPC spells it, `FAILED_PRECONDITION`.
fn grpc_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
        Status::with_error_details(code, "words", details)
    }

    #[test]
    fn reasons_decide_the_exit_code() {
        let check = |code, reason, exit| {
            let failure = Failure::from(status(code, reason));
            assert_eq!((failure.exit, failure.reason.as_str()), (exit, reason));
            assert!(failure.hint.is_some(), "{reason} needs a hint");
        };
        check(Code::InvalidArgument, "BAD_TICKET", Exit::Data);
        check(Code::FailedPrecondition, "INVITE_EXPIRED", Exit::Data);
        check(Code::PermissionDenied, "ROLE_TOO_LOW", Exit::NoPerm);
        check(Code::PermissionDenied, "CALLER_READS_ONLY", Exit::NoPerm);
        check(Code::PermissionDenied, "CALLER_NOT_PERMITTED", Exit::NoPerm);
        check(Code::DeadlineExceeded, "INVITER_UNREACHABLE", Exit::TempFail);
        check(Code::Aborted, "BUSY", Exit::TempFail);
        check(Code::NotFound, "NO_SUCH_VERSION", Exit::No);
        check(Code::FailedPrecondition, "PATH_IGNORED", Exit::No);
        check(Code::FailedPrecondition, "BYTES_NOT_AT_HAND", Exit::No);
        check(Code::FailedPrecondition, "ALREADY_IN_GROUP", Exit::No);
        check(Code::NotFound, "NO_SUCH_EVENT", Exit::NoInput);
        check(Code::FailedPrecondition, "NOT_PROVABLE", Exit::No);
        check(Code::DataLoss, "LEDGER_DAMAGED", Exit::Data);
        check(Code::NotFound, "NO_SUCH_NAME", Exit::No);
        check(Code::InvalidArgument, "NAME_AMBIGUOUS", Exit::No);
        check(Code::FailedPrecondition, "JOIN_TURNED_DOWN", Exit::No);
        check(Code::DeadlineExceeded, "NOT_APPROVED", Exit::TempFail);
        check(Code::NotFound, "NO_SUCH_REQUEST", Exit::No);
        check(Code::PermissionDenied, "WRONG_CODE", Exit::No);
        check(Code::InvalidArgument, "BAD_PATH", Exit::Usage);
        check(Code::Unavailable, "STOPPING", Exit::Unavailable);
    }

    #[test]
    fn without_a_reason_the_code_decides() {
        let failure = Failure::from(Status::unimplemented(""));
        assert_eq!(
            (failure.exit, failure.reason.as_str()),
            (Exit::Protocol, "UNIMPLEMENTED")
        );
        assert_eq!(Failure::from(Status::unavailable("x")).exit, Exit::Unavailable);
    }

    #[test]
    fn json_errors_have_fixed_keys() {
        let failure = Failure::from(status(Code::FailedPrecondition, "NO_GROUP"));
        assert_eq!(
            failure.to_json(),
            r#"{"schema":"p2psync.error/1","reason":"NO_GROUP","grpc":"FAILED_PRECONDITION","exit":1,"message":"words","hint":"join one: syncctl join TICKET"}"#
        );
    }
}
