//! The rpcs about locks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2p_sync_core::engine::{
    CommandError, LockCommand, LockReply, LockReport, VoterReport, VotersError, VotersReport,
};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::lock::{LockError, Resource};
use p2p_sync_proto::v1::lock_service_server::LockService;
use p2p_sync_proto::{reason, v1};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::service::{REPLY_TIMEOUT, Rpcs};
use super::status::{from_error, in_words, invalid, refused};
use super::{ControlCommand, ControlError, StatusSnapshot, convert, naming};

/// The longest wait for a lock.
const MAX_WAIT: Duration = Duration::from_hours(24);
/// What the engine may take beside the waiting: to have the newest version, or to publish the last change.
const WORK: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl LockService for Rpcs {
    async fn acquire_lock(
        &self,
        request: Request<v1::AcquireLockRequest>,
    ) -> Result<Response<v1::AcquireLockResponse>, Status> {
        let request = request.into_inner();
        let wait = match request.wait {
            None => Duration::ZERO,
            Some(wait) => Duration::try_from(wait)
                .ok()
                .filter(|wait| *wait <= MAX_WAIT)
                .ok_or_else(|| invalid(reason::INVALID_ARGUMENT, "A lock can be waited for a day at most"))?,
        };
        let command = LockCommand::Acquire {
            resource: resource(request.path)?,
            until_ms: request.until.map(millis).transpose()?,
            note: request.note,
            wait,
        };
        match self.on_locks(command, wait + WORK).await? {
            LockReply::Held(lock) => Ok(Response::new(v1::AcquireLockResponse {
                lock: Some(self.lock(lock)),
            })),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn release_lock(
        &self,
        request: Request<v1::ReleaseLockRequest>,
    ) -> Result<Response<v1::ReleaseLockResponse>, Status> {
        let resource = resource(request.into_inner().path)?;
        match self.on_locks(LockCommand::Release { resource }, WORK).await? {
            LockReply::Ended { lock, by_majority } => Ok(Response::new(v1::ReleaseLockResponse {
                lock: Some(self.lock(lock)),
                by_majority,
            })),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn break_lock(
        &self,
        request: Request<v1::BreakLockRequest>,
    ) -> Result<Response<v1::BreakLockResponse>, Status> {
        let request = request.into_inner();
        let (resource, reason) = (resource(request.path)?, request.reason);
        match self
            .on_locks(LockCommand::Break { resource, reason }, REPLY_TIMEOUT)
            .await?
        {
            LockReply::Ended { lock, .. } => Ok(Response::new(v1::BreakLockResponse {
                lock: Some(self.lock(lock)),
            })),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn list_locks(
        &self,
        _request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        match self.on_locks(LockCommand::List, REPLY_TIMEOUT).await? {
            LockReply::List { locks, voters } => {
                let names = self.backend.status.borrow().clone();
                Ok(Response::new(v1::ListLocksResponse {
                    locks: locks.into_iter().map(|lock| to_proto(lock, &names)).collect(),
                    voters: voters.iter().map(|voter| voter_to_proto(voter, &names)).collect(),
                }))
            }
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn list_voters(
        &self,
        _request: Request<v1::ListVotersRequest>,
    ) -> Result<Response<v1::ListVotersResponse>, Status> {
        let report = self.on_voters(LockCommand::ListVoters, REPLY_TIMEOUT).await?;
        Ok(Response::new(report))
    }

    async fn set_voters(
        &self,
        request: Request<v1::SetVotersRequest>,
    ) -> Result<Response<v1::SetVotersResponse>, Status> {
        let v1::SetVotersRequest { devices, force } = request.into_inner();
        let known = self.members().await?;
        let voters = devices.iter().map(|text| naming::device(text, &known));
        let command = LockCommand::SetVoters {
            voters: voters.collect::<Result<_, _>>()?,
            is_forced: force,
        };
        let voters = Some(self.on_voters(command, WORK).await?);
        Ok(Response::new(v1::SetVotersResponse { voters }))
    }
}

impl Rpcs {
    /// Hands a command over that is answered with who grants locks.
    async fn on_voters(
        &self,
        command: LockCommand,
        timeout: Duration,
    ) -> Result<v1::ListVotersResponse, Status> {
        match self.on_locks(command, timeout).await? {
            LockReply::Voters(report) => Ok(voters_to_proto(report, &self.backend.status.borrow())),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    /// Hands a command about locks over, and waits so long for its answer.
    async fn on_locks(&self, command: LockCommand, timeout: Duration) -> Result<LockReply, Status> {
        let (reply, answer) = oneshot::channel();
        let command = ControlCommand::Lock { command, reply };
        let exchange = async {
            let sent = self.backend.commands.send(command).await;
            sent.map_err(|_| self.no_answer())?;
            answer.await.map_err(|_| self.no_answer())?
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result.map_err(|error| self.lock_status(&error)),
            Err(_) => Err(from_error(&ControlError::TimedOut)),
        }
    }

    fn lock(&self, lock: LockReport) -> v1::Lock {
        to_proto(lock, &self.backend.status.borrow())
    }

    /// Returns the status for an error, in words that name who is in the way.
    fn lock_status(&self, error: &ControlError) -> Status {
        let names = self.backend.status.borrow();
        let name = |device: DeviceId| words(&named(device, &names));
        match error {
            ControlError::Command(CommandError::Locked(lock)) if lock.is_own => {
                let what = listed(&lock.resources);
                refused(
                    reason::LOCKED,
                    format!("This device holds a lock on {what} already"),
                )
            }
            ControlError::Command(CommandError::Locked(lock)) => {
                let since = prost_types::Timestamp::from(time(lock.since_ms / 1_000 * 1_000));
                let (what, holder) = (listed(&lock.resources), name(lock.holder));
                let note = if lock.note.is_empty() {
                    String::new()
                } else {
                    format!(": {}", lock.note)
                };
                refused(
                    reason::LOCKED,
                    format!("{what} is locked by {holder} since {since}{note}"),
                )
            }
            ControlError::Command(CommandError::Lock(LockError::Busy {
                holder, resources, ..
            })) => {
                let text = format!("{} is locked by {}", listed(resources), name(*holder));
                refused(reason::LOCKED, text)
            }
            ControlError::Command(CommandError::Lock(LockError::Behind { device: Some(device) })) => {
                let text = format!("A newer version is not here yet; {} has it", name(*device));
                refused(reason::BEHIND, text)
            }
            ControlError::Command(CommandError::Voters(VotersError::Unreachable(device))) => {
                let text = format!("{} cannot be reached, so it cannot grant locks", name(*device));
                in_words(error, text)
            }
            ControlError::Command(CommandError::Voters(VotersError::Refused(device))) => {
                let text = format!("{} has not heard yet that this device is an owner", name(*device));
                in_words(error, text)
            }
            error => from_error(error),
        }
    }
}

fn voters_to_proto(report: VotersReport, names: &StatusSnapshot) -> v1::ListVotersResponse {
    let voters = report.voters.iter();
    v1::ListVotersResponse {
        voters: voters.map(|voter| voter_to_proto(voter, names)).collect(),
        epoch: report.epoch,
        chosen_by: report.chosen_by.map(|device| named(device, names)),
        forced: report.is_forced,
    }
}

fn voter_to_proto(voter: &VoterReport, names: &StatusSnapshot) -> v1::Voter {
    v1::Voter {
        device: Some(named(voter.device, names)),
        reachable: voter.is_reached,
        removed: !voter.is_member,
    }
}

fn listed(resources: &[Resource]) -> String {
    let names: Vec<String> = resources.iter().map(Resource::to_string).collect();
    names.join(", ")
}

fn words(device: &v1::Device) -> String {
    let short: String = device.id.chars().take(8).collect();
    if device.name.is_empty() {
        short
    } else {
        format!("{} ({short})", device.name)
    }
}

/// Returns a device as a message, with the name that members know it by.
pub(super) fn named(device: DeviceId, names: &StatusSnapshot) -> v1::Device {
    let known = names.engine.peers.iter().find(|peer| peer.device == device);
    convert::device(device, known.map_or("", |peer| peer.name.as_str()))
}

pub(super) fn to_proto(lock: LockReport, names: &StatusSnapshot) -> v1::Lock {
    let path = |resource: Resource| v1::LockedPath {
        path: resource.path().as_bytes().to_vec(),
        directory: resource.is_subtree(),
    };
    v1::Lock {
        paths: lock.resources.into_iter().map(path).collect(),
        holder: Some(named(lock.holder, names)),
        epoch: lock.token.epoch,
        number: lock.token.n,
        since: Some(time(lock.since_ms).into()),
        until: lock.until_ms.map(|ms| time(ms).into()),
        note: lock.note,
        mine: lock.is_own,
        confirmed: lock.is_confirmed,
    }
}

fn time(ms: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    time.unwrap_or(UNIX_EPOCH)
}

fn resource(path: Option<v1::LockedPath>) -> Result<Resource, Status> {
    let v1::LockedPath { path, directory } = path.unwrap_or_default();
    let Some(path) = convert::rel_path(path)? else {
        return Err(invalid(reason::BAD_PATH, "A path below the folder is needed"));
    };
    let resource = if directory {
        Resource::subtree(path)
    } else {
        Resource::file(path)
    };
    resource.map_err(|error| invalid(reason::BAD_PATH, error.to_string()))
}

fn millis(time: prost_types::Timestamp) -> Result<u64, Status> {
    let since = SystemTime::try_from(time)
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.ok_or_else(|| invalid(reason::INVALID_ARGUMENT, "There is no such time"))
}
