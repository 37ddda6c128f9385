//! Every error of the control service as a gRPC status; the one place where codes and reasons are chosen.

use p2p_sync_core::engine::{CommandError, RefuseReason, VotersError};
use p2p_sync_core::lock::LockError;
use p2p_sync_proto::reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{ControlError, pairing};

/// Returns the status for a command that was not done.
pub(super) fn from_error(error: &ControlError) -> Status {
    in_words(error, error_chain(error))
}

/// Returns the status for a command that was not done, in other words than its own.
pub(super) fn in_words(error: &ControlError, message: impl Into<String>) -> Status {
    let (code, reason) = match error {
        ControlError::Command(command) => of_command(command),
        ControlError::BadAddress { .. } => (Code::InvalidArgument, reason::BAD_ADDRESS),
        ControlError::Io { .. } => (Code::Internal, reason::IO),
        ControlError::NoVersion(_) => (Code::NotFound, reason::NO_SUCH_VERSION),
        ControlError::MayNotWrite { .. } => (Code::PermissionDenied, reason::ROLE_TOO_LOW),
        ControlError::Ignored { .. } => (Code::FailedPrecondition, reason::PATH_IGNORED),
        ControlError::NotAtHand => (Code::FailedPrecondition, reason::BYTES_NOT_AT_HAND),
        ControlError::Restoring | ControlError::NotReady => (Code::Aborted, reason::BUSY),
        ControlError::Read(_) | ControlError::Ledger(_) => (Code::Internal, reason::IO),
        ControlError::NoSuchEvent(_) => (Code::NotFound, reason::NO_SUCH_EVENT),
        ControlError::NotProvable(_) => (Code::FailedPrecondition, reason::NOT_PROVABLE),
        ControlError::LedgerDamaged(_) => (Code::DataLoss, reason::LEDGER_DAMAGED),
        ControlError::LedgerBusy(_) => (Code::Aborted, reason::BUSY),
        ControlError::Failed(_) => (Code::FailedPrecondition, reason::FOLDER_FAILED),
        ControlError::TimedOut => (Code::DeadlineExceeded, reason::TIMEOUT),
        ControlError::Stopping => (Code::Unavailable, reason::STOPPING),
    };
    with_reason(code, reason, message)
}

/// Returns the status for a caller that may not call.
pub(super) fn not_permitted() -> Status {
    let message = "Only root, the daemon's own user and members of its groups may use the control socket";
    with_reason(Code::PermissionDenied, reason::CALLER_NOT_PERMITTED, message)
}

/// Returns the status for a caller that may only read, and asks for more.
pub(super) fn reads_only(call: Option<&str>) -> Status {
    let call = call.unwrap_or("This");
    let message =
        format!("{call} does more than read, and this user is in the read-only group of the control socket");
    with_reason(Code::PermissionDenied, reason::CALLER_READS_ONLY, message)
}

/// Returns the status for what is not possible as things are.
pub(super) fn refused(reason: &'static str, message: impl Into<String>) -> Status {
    with_reason(Code::FailedPrecondition, reason, message)
}

/// Returns the status for an argument that cannot be read.
pub(super) fn invalid(reason: &'static str, message: impl Into<String>) -> Status {
    with_reason(Code::InvalidArgument, reason, message)
}

/// Returns the status for what is named and not there.
pub(super) fn not_found(reason: &'static str, message: impl Into<String>) -> Status {
    with_reason(Code::NotFound, reason, message)
}

fn of_command(error: &CommandError) -> (Code, &'static str) {
    match error {
        CommandError::NoGroup => (Code::FailedPrecondition, reason::NO_GROUP),
        CommandError::NotAllowed => (Code::PermissionDenied, reason::ROLE_TOO_LOW),
        CommandError::Outranked => (Code::PermissionDenied, reason::OUTRANKED),
        CommandError::NoMember => (Code::NotFound, reason::NO_SUCH_MEMBER),
        CommandError::NoInvite => (Code::NotFound, reason::NO_SUCH_INVITE),
        CommandError::NoRecovery => (Code::FailedPrecondition, reason::NO_RECOVERY),
        CommandError::WrongRecovery => (Code::InvalidArgument, reason::WRONG_RECOVERY),
        CommandError::Invalid(_) => (Code::InvalidArgument, reason::INVALID_ARGUMENT),
        CommandError::BadTicket => (Code::InvalidArgument, reason::BAD_TICKET),
        CommandError::AlreadyInGroup => (Code::FailedPrecondition, reason::ALREADY_IN_GROUP),
        CommandError::Busy | CommandError::CatchingUp => (Code::Aborted, reason::BUSY),
        CommandError::OwnEventsMissing => (Code::FailedPrecondition, reason::STATE_OLD),
        CommandError::Refused(by) => of_refusal(*by),
        CommandError::Pair(error) => pairing::of_error(error),
        CommandError::Lock(error) => of_lock(error),
        CommandError::Voters(error) => of_voters(error),
        CommandError::Locked(_) => (Code::FailedPrecondition, reason::LOCKED),
        CommandError::NoLock => (Code::NotFound, reason::NO_SUCH_LOCK),
        CommandError::Unreachable => (Code::DeadlineExceeded, reason::INVITER_UNREACHABLE),
    }
}

const fn of_lock(error: &LockError) -> (Code, &'static str) {
    match error {
        LockError::NoQuorum { .. } => (Code::Unavailable, reason::NO_QUORUM),
        LockError::Busy { .. } => (Code::FailedPrecondition, reason::LOCKED),
        LockError::Denied => (Code::PermissionDenied, reason::ROLE_TOO_LOW),
        LockError::Unfit => (Code::FailedPrecondition, reason::VOTER_UNFIT),
        LockError::Behind { .. } => (Code::FailedPrecondition, reason::BEHIND),
        _ => (Code::Aborted, reason::BUSY),
    }
}

const fn of_voters(error: &VotersError) -> (Code, &'static str) {
    match error {
        VotersError::Count => (Code::InvalidArgument, reason::INVALID_ARGUMENT),
        VotersError::Same => (Code::AlreadyExists, reason::SAME_VOTERS),
        VotersError::Unreachable(_) | VotersError::Refused(_) => {
            (Code::Unavailable, reason::VOTER_UNREACHABLE)
        }
        VotersError::TooManyLocks => (Code::FailedPrecondition, reason::LOCKED),
        _ => (Code::Aborted, reason::BUSY),
    }
}

fn of_refusal(by: RefuseReason) -> (Code, &'static str) {
    match by {
        RefuseReason::BadInvite | RefuseReason::OtherGroup => {
            (Code::FailedPrecondition, reason::INVITE_UNKNOWN)
        }
        RefuseReason::Expired => (Code::FailedPrecondition, reason::INVITE_EXPIRED),
        RefuseReason::UsedUp => (Code::FailedPrecondition, reason::INVITE_USED_UP),
        RefuseReason::NotMember | RefuseReason::MayNotAdmit => {
            (Code::FailedPrecondition, reason::INVITER_MAY_NOT_ADMIT)
        }
        RefuseReason::Busy => (Code::Aborted, reason::BUSY),
        RefuseReason::NotAsked => (Code::FailedPrecondition, reason::JOIN_TURNED_DOWN),
    }
}

/// Returns the refusal in words; [`CommandError::Refused`] says only that there was one.
fn refusal_text(by: RefuseReason) -> &'static str {
    match by {
        RefuseReason::BadInvite => "it does not know the invite",
        RefuseReason::OtherGroup => "it is in another group",
        RefuseReason::Expired => "the invite's time is over",
        RefuseReason::UsedUp => "the invite was used as often as it may be",
        RefuseReason::NotMember => "it does not count this device as a member",
        RefuseReason::MayNotAdmit => "it may not admit anybody",
        RefuseReason::Busy => "it is busy",
        RefuseReason::NotAsked => "it knows of no such request",
    }
}

fn error_chain(error: &ControlError) -> String {
    if let ControlError::Command(CommandError::Refused(by)) = error {
        return format!("{error}: {}", refusal_text(*by));
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn with_reason(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, std::collections::HashMap::new());
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Into<ControlError>, code: Code, reason: &str) {
        let status = from_error(&error.into());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str(), info.domain.as_str()),
            (code, reason, "p2psync")
        );
    }

    #[test]
    fn every_error_has_its_code_and_reason() {
        check(CommandError::NoGroup, Code::FailedPrecondition, "NO_GROUP");
        check(CommandError::NotAllowed, Code::PermissionDenied, "ROLE_TOO_LOW");
        check(
            CommandError::Invalid("x"),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        );
        check(CommandError::BadTicket, Code::InvalidArgument, "BAD_TICKET");
        check(
            CommandError::AlreadyInGroup,
            Code::FailedPrecondition,
            "ALREADY_IN_GROUP",
        );
        check(CommandError::Busy, Code::Aborted, "BUSY");
        check(
            CommandError::OwnEventsMissing,
            Code::FailedPrecondition,
            "STATE_OLD",
        );
        check(
            CommandError::Unreachable,
            Code::DeadlineExceeded,
            "INVITER_UNREACHABLE",
        );
        check(
            CommandError::Refused(RefuseReason::Expired),
            Code::FailedPrecondition,
            "INVITE_EXPIRED",
        );
        check(
            CommandError::Refused(RefuseReason::UsedUp),
            Code::FailedPrecondition,
            "INVITE_USED_UP",
        );
        check(
            CommandError::Refused(RefuseReason::BadInvite),
            Code::FailedPrecondition,
            "INVITE_UNKNOWN",
        );
        check(
            CommandError::Refused(RefuseReason::MayNotAdmit),
            Code::FailedPrecondition,
            "INVITER_MAY_NOT_ADMIT",
        );
        check(CommandError::Refused(RefuseReason::Busy), Code::Aborted, "BUSY");
        check(
            ControlError::BadAddress { address: "x".into() },
            Code::InvalidArgument,
            "BAD_ADDRESS",
        );
        check(
            ControlError::NoVersion("x".into()),
            Code::NotFound,
            "NO_SUCH_VERSION",
        );
        check(
            ControlError::NotAtHand,
            Code::FailedPrecondition,
            "BYTES_NOT_AT_HAND",
        );
        let path = p2p_sync_core::rel_path::RelPath::parse("a").unwrap();
        let may_not = ControlError::MayNotWrite {
            path: path.clone(),
            role: None,
        };
        check(may_not, Code::PermissionDenied, "ROLE_TOO_LOW");
        check(
            ControlError::Ignored { path },
            Code::FailedPrecondition,
            "PATH_IGNORED",
        );
        check(ControlError::NotReady, Code::Aborted, "BUSY");
        check(
            ControlError::NoSuchEvent("x".into()),
            Code::NotFound,
            "NO_SUCH_EVENT",
        );
        check(
            ControlError::NotProvable("x".into()),
            Code::FailedPrecondition,
            "NOT_PROVABLE",
        );
        check(
            ControlError::LedgerDamaged("x".into()),
            Code::DataLoss,
            "LEDGER_DAMAGED",
        );
        check(ControlError::LedgerBusy("x"), Code::Aborted, "BUSY");
        check(ControlError::Restoring, Code::Aborted, "BUSY");
        check(
            ControlError::Failed("x".into()),
            Code::FailedPrecondition,
            "FOLDER_FAILED",
        );
        check(ControlError::TimedOut, Code::DeadlineExceeded, "TIMEOUT");
        check(ControlError::Stopping, Code::Unavailable, "STOPPING");
    }

    #[test]
    fn the_message_names_the_cause() {
        let io = ControlError::Io {
            path: "/j".into(),
            source: std::io::Error::other("disk gone"),
        };
        assert_eq!(from_error(&io).message(), "Cannot read /j: disk gone");
        let refused = ControlError::Command(CommandError::Refused(RefuseReason::Expired));
        assert_eq!(
            from_error(&refused).message(),
            "The inviting device refused: the invite's time is over"
        );
    }
}
