//! Pairing by name: what users ask, and what they are told.

use p2p_sync_core::access::Role;
use p2p_sync_core::engine::{JoinChoice, JoinRequest, LanDevice, PairCode, PairError};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::Person;
use p2p_sync_proto::{reason, v1};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::history::{Reply, STREAM_QUEUE, stream};
use super::status::invalid;
use super::{Backend, ControlCommand, ControlError, Joined, ReplyTo, StatusSnapshot, Warning, convert};

/// What a user can ask about pairing by name.
#[derive(Debug)]
pub enum PairingCommand {
    /// List the devices of the local network that can be asked.
    List {
        /// The devices.
        reply: ReplyTo<Vec<LanDevice>>,
    },
    /// Ask to be let in.
    Join {
        /// Of a group or a device.
        name: String,
        /// What to do with differing files; `None`: hold them if there are many.
        choice: Option<JoinChoice>,
        /// How far it is; with `STREAM_QUEUE` places. A closed receiver gives the join up, once
        /// [`PairingCommand::GivenUp`] says so.
        steps: mpsc::Sender<Result<JoinStep, ControlError>>,
    },
    /// The caller of a [`PairingCommand::Join`] went away.
    GivenUp,
    /// Let a device in.
    Approve {
        /// Its id or the beginning of it.
        device: String,
        /// The digits that it shows.
        code: String,
        /// Its role.
        role: Role,
        /// Whose it is, if that is to be said.
        person: Option<Person>,
        /// Who it was.
        reply: ReplyTo<Approved>,
    },
}

/// How far a join by name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinStep {
    /// The digits can be typed there.
    Code {
        /// Where.
        asked: LanDevice,
        /// The digits.
        code: PairCode,
    },
    /// This device is in; the last step.
    Joined(Joined),
}

/// A device that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// Who.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
}

/// Starts a join whose steps go to the caller, and gives it up when the caller is gone.
pub(super) fn join(
    backend: &Backend,
    name: String,
    choice: Option<JoinChoice>,
) -> Reply<v1::JoinByNameResponse> {
    let (queue, inbox) = mpsc::channel(STREAM_QUEUE);
    let names = backend.status.borrow().clone();
    tokio::spawn(pass_on(backend.clone(), name, choice, queue));
    stream(inbox, move |step| step_to_proto(step, &names))
}

/// Passes the steps of a join on until the last of them, or until the caller is gone.
async fn pass_on(
    backend: Backend,
    name: String,
    choice: Option<JoinChoice>,
    queue: mpsc::Sender<Result<JoinStep, ControlError>>,
) {
    let (steps, mut taken) = mpsc::channel(STREAM_QUEUE);
    let start = PairingCommand::Join { name, choice, steps };
    // Whether it was taken shows below: if not, the other end of the steps is gone.
    let _ = backend.commands.send(ControlCommand::Pairing(start)).await;
    let no_answer = || {
        let failure = backend.status.borrow().failure.clone();
        failure.map_or(ControlError::Stopping, ControlError::Failed)
    };
    loop {
        let step = tokio::select! {
            () = queue.closed() => break,
            step = taken.recv() => step.unwrap_or_else(|| Err(no_answer())),
        };
        let is_last = !matches!(step, Ok(JoinStep::Code { .. }));
        if queue.send(step).await.is_err() || is_last {
            break;
        }
    }
    drop(taken);
    // A loop that is gone has forgotten the join itself.
    let given_up = ControlCommand::Pairing(PairingCommand::GivenUp);
    let _ = backend.commands.send(given_up).await;
}

fn step_to_proto(step: JoinStep, own: &StatusSnapshot) -> v1::JoinByNameResponse {
    use v1::join_by_name_response::Step;
    let step = match step {
        JoinStep::Code { asked, code } => Step::Code(v1::JoinCode {
            asked: Some(lan_device(asked)),
            device: own.engine.device.map(|id| convert::device(id, &own.name)),
            code: code.to_string(),
        }),
        JoinStep::Joined(joined) => Step::Joined(v1::JoinedByName {
            group_id: joined.group.to_hex(),
            role: convert::role_to_proto(joined.role).into(),
        }),
    };
    v1::JoinByNameResponse { step: Some(step) }
}

/// Returns a device of the local network as a message.
pub(super) fn lan_device(found: LanDevice) -> v1::LanDevice {
    v1::LanDevice {
        device: Some(convert::device(found.device, &found.here.device_name)),
        group_id: found.here.group.to_hex(),
        group_name: found.here.group_name,
    }
}

/// Returns a request to be let in as a message.
pub(super) fn request(request: &JoinRequest) -> v1::JoinRequested {
    v1::JoinRequested {
        device: Some(convert::device(request.device, &request.name)),
        code: request.code.to_string(),
    }
}

/// Returns a device that was let in as a message.
pub(super) fn approved(approved: &Approved) -> v1::ApproveJoinResponse {
    v1::ApproveJoinResponse {
        device: Some(convert::device(approved.device, &approved.name)),
        role: convert::role_to_proto(approved.role).into(),
    }
}

/// Reads a role that can be given to a newcomer.
pub(super) fn newcomers_role(code: i32) -> Result<Role, Status> {
    let bad = |text: &str| invalid(reason::INVALID_ARGUMENT, text);
    match v1::Role::try_from(code) {
        Ok(v1::Role::Unspecified | v1::Role::Editor) => Ok(Role::Editor),
        Ok(v1::Role::Viewer) => Ok(Role::Viewer),
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Owner) => Err(bad("A newcomer cannot become an owner")),
        Err(_) => Err(bad("There is no such role")),
    }
}

/// Returns what a person should do about devices that ask to be let in.
pub(super) fn warnings(requests: &[JoinRequest]) -> impl Iterator<Item = Warning> {
    requests.iter().map(|JoinRequest { device, name, code }| {
        let id = device.short().label();
        Warning {
            code: "JOIN_REQUESTED",
            message: format!(
                "{name} ({id}) asks to join; if it shows the digits {code}, let it in: syncctl approve {id} {code}"
            ),
        }
    })
}

/// Chooses code and reason for a join or an approval that came to nothing.
pub(super) const fn of_error(error: &PairError) -> (Code, &'static str) {
    match error {
        PairError::NoSuchName { .. } => (Code::NotFound, reason::NO_SUCH_NAME),
        PairError::Ambiguous { .. } => (Code::InvalidArgument, reason::NAME_AMBIGUOUS),
        PairError::MayNotAdmit => (Code::FailedPrecondition, reason::INVITER_MAY_NOT_ADMIT),
        PairError::Busy => (Code::Aborted, reason::BUSY),
        PairError::TurnedDown | PairError::BadAnswer => (Code::FailedPrecondition, reason::JOIN_TURNED_DOWN),
        PairError::TimeIsUp => (Code::DeadlineExceeded, reason::NOT_APPROVED),
        PairError::GivenUp => (Code::Cancelled, reason::NOT_APPROVED),
        PairError::NoSuchRequest | PairError::NotUnique => (Code::NotFound, reason::NO_SUCH_REQUEST),
        PairError::WrongCode { .. } => (Code::PermissionDenied, reason::WRONG_CODE),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use p2p_sync_core::engine::Here;
    use p2p_sync_core::ids::GroupId;
    use tokio::sync::{broadcast, watch};
    use tokio_stream::StreamExt as _;

    use super::*;

    fn backend() -> (
        Backend,
        mpsc::Receiver<ControlCommand>,
        watch::Sender<Arc<StatusSnapshot>>,
    ) {
        let snapshot = StatusSnapshot::starting("ben".into(), "/srv/sync".into(), SystemTime::UNIX_EPOCH);
        let (sender, status) = watch::channel(Arc::new(snapshot));
        let (commands, inbox) = mpsc::channel(4);
        let (notifications, _) = broadcast::channel(4);
        let backend = Backend {
            commands,
            status,
            notifications,
        };
        (backend, inbox, sender)
    }

    fn code() -> JoinStep {
        let here = Here {
            group: GroupId::new([7; 32]),
            group_name: "photos".into(),
            device_name: "anna".into(),
        };
        let device = DeviceId::new([1; 32]);
        let code = PairCode::parse("012345").unwrap();
        JoinStep::Code {
            asked: LanDevice { device, here },
            code,
        }
    }

    #[test]
    fn a_request_becomes_a_warning_that_says_what_to_type() {
        let requests = [JoinRequest {
            device: DeviceId::new([0x1a; 32]),
            name: "ben".into(),
            code: PairCode::parse("012345").unwrap(),
        }];
        let warning = warnings(&requests).next().unwrap();
        assert_eq!(warning.code, "JOIN_REQUESTED");
        assert!(
            warning.message.ends_with("syncctl approve 1a1a1a1a 012345"),
            "{}",
            warning.message
        );
    }

    #[tokio::test]
    async fn a_join_is_given_up_with_its_caller() {
        let (backend, mut commands, _status) = backend();
        let mut stream = join(&backend, "anna".into(), None);
        let Some(ControlCommand::Pairing(PairingCommand::Join { name, steps, .. })) = commands.recv().await
        else {
            panic!("another command");
        };
        assert_eq!(name, "anna");
        steps.send(Ok(code())).await.unwrap();
        let step = stream.next().await.unwrap().unwrap().step;
        let Some(v1::join_by_name_response::Step::Code(shown)) = step else {
            panic!("another step");
        };
        assert_eq!(shown.code, "012345");
        drop(stream);
        let given_up = commands.recv().await;
        assert!(matches!(
            given_up,
            Some(ControlCommand::Pairing(PairingCommand::GivenUp))
        ));
        assert!(steps.is_closed());
    }

    #[tokio::test]
    async fn a_join_that_the_daemon_drops_ends_with_an_error() {
        let (backend, mut commands, _status) = backend();
        let mut stream = join(&backend, "anna".into(), None);
        drop(commands.recv().await);
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn a_newcomer_gets_any_role_but_the_owners() {
        assert_eq!(newcomers_role(0).unwrap(), Role::Editor);
        assert_eq!(newcomers_role(v1::Role::Viewer.into()).unwrap(), Role::Viewer);
        for bad in [v1::Role::Owner.into(), 77] {
            assert_eq!(newcomers_role(bad).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
