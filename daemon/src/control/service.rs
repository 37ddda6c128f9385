//! The rpcs: convert, hand over, wait, convert back.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use p2p_sync_proto::v1::control_service_server::ControlService;
use p2p_sync_proto::{reason, v1};
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::status::{from_error, invalid};
use super::{
    Backend, ControlCommand, ControlError, PairingCommand, ReplyTo, convert, guards, history, naming,
    pairing, watch,
};

/// How long a command may take. A join dials every address of the ticket; nothing else takes more than moments.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(120);

/// Answers calls.
#[derive(Debug, Clone)]
pub(super) struct Rpcs {
    pub(super) backend: Backend,
    /// Becomes true when the daemon stops; ends the watchers.
    pub(super) stopping: latest::Receiver<bool>,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ControlService for Rpcs {
    type WatchStream = WatchStream;
    type ReadVersionStream = history::Reply<v1::ReadVersionResponse>;
    type RestoreStream = history::Reply<v1::RestoreResponse>;
    type JoinByNameStream = history::Reply<v1::JoinByNameResponse>;

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let status = convert::status(&self.backend.status.borrow());
        Ok(Response::new(v1::GetStatusResponse { status: Some(status) }))
    }

    async fn list_peers(
        &self,
        _request: Request<v1::ListPeersRequest>,
    ) -> Result<Response<v1::ListPeersResponse>, Status> {
        let peers = convert::peers(&self.backend.status.borrow());
        Ok(Response::new(v1::ListPeersResponse { peers }))
    }

    async fn watch(&self, _request: Request<v1::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let stream = watch::stream(&self.backend, self.stopping.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn rescan(
        &self,
        request: Request<v1::RescanRequest>,
    ) -> Result<Response<v1::RescanResponse>, Status> {
        let path = convert::rel_path(request.into_inner().path)?;
        self.ask(|reply| ControlCommand::Rescan { path, reply }).await?;
        Ok(Response::new(v1::RescanResponse {}))
    }

    async fn connect_peer(
        &self,
        request: Request<v1::ConnectPeerRequest>,
    ) -> Result<Response<v1::ConnectPeerResponse>, Status> {
        let address = convert::address(&request.into_inner().address)?;
        self.ask(|reply| ControlCommand::ConnectPeer { address, reply })
            .await?;
        Ok(Response::new(v1::ConnectPeerResponse {}))
    }

    async fn create_invite(
        &self,
        request: Request<v1::CreateInviteRequest>,
    ) -> Result<Response<v1::CreateInviteResponse>, Status> {
        let terms = convert::invite_terms(&request.into_inner(), SystemTime::now())?;
        let (role, expires, max_uses) = (terms.role, terms.expires, terms.max_uses);
        let (scopes, person) = (terms.scopes, terms.person);
        let ticket = self
            .ask(|reply| ControlCommand::CreateInvite {
                role,
                expires,
                max_uses,
                scopes,
                person,
                reply,
            })
            .await?;
        Ok(Response::new(v1::CreateInviteResponse {
            ticket: ticket.to_string(),
            role: convert::role_to_proto(role).into(),
            expires_at: expires.map(Into::into),
            max_uses,
            key: naming::hex(&naming::invite_key(&ticket)),
            addresses: ticket.addresses,
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        let choice = convert::join_choice(request.choice)?;
        if request.ticket.trim().is_empty() && request.dry_run {
            return self.counted();
        }
        if request.ticket.trim().is_empty() {
            let Some(choice) = choice else {
                return Err(invalid(
                    reason::BAD_TICKET,
                    "There is neither a ticket nor a choice",
                ));
            };
            self.ask(|reply| ControlCommand::ResolveJoin { choice, reply })
                .await?;
            return Ok(Response::new(v1::JoinResponse::default()));
        }
        let ticket = convert::ticket(&request.ticket)?;
        let addresses = ticket.addresses.clone();
        if request.dry_run {
            let group_id = ticket.group.to_hex();
            return Ok(Response::new(v1::JoinResponse {
                group_id,
                addresses,
                ..Default::default()
            }));
        }
        let joined = self
            .ask(|reply| ControlCommand::Join {
                ticket,
                choice,
                reply,
            })
            .await?;
        let role = convert::role_to_proto(joined.role).into();
        Ok(Response::new(v1::JoinResponse {
            group_id: joined.group.to_hex(),
            role,
            addresses,
            ..Default::default()
        }))
    }

    async fn list_lan(
        &self,
        _: Request<v1::ListLanRequest>,
    ) -> Result<Response<v1::ListLanResponse>, Status> {
        let found = self
            .ask(|reply| ControlCommand::Pairing(PairingCommand::List { reply }))
            .await?;
        let devices = found.into_iter().map(pairing::lan_device).collect();
        Ok(Response::new(v1::ListLanResponse { devices }))
    }

    async fn join_by_name(
        &self,
        request: Request<v1::JoinByNameRequest>,
    ) -> Result<Response<Self::JoinByNameStream>, Status> {
        let request = request.into_inner();
        let choice = convert::join_choice(request.choice)?;
        if request.name.trim().is_empty() {
            return Err(invalid(reason::INVALID_ARGUMENT, "There is no name"));
        }
        Ok(Response::new(pairing::join(&self.backend, request.name, choice)))
    }

    async fn list_join_requests(
        &self,
        _: Request<v1::ListJoinRequestsRequest>,
    ) -> Result<Response<v1::ListJoinRequestsResponse>, Status> {
        let status = self.backend.status.borrow().clone();
        let requests = status.engine.join_requests.iter().map(pairing::request).collect();
        Ok(Response::new(v1::ListJoinRequestsResponse { requests }))
    }

    async fn approve_join(
        &self,
        request: Request<v1::ApproveJoinRequest>,
    ) -> Result<Response<v1::ApproveJoinResponse>, Status> {
        let request = request.into_inner();
        let v1::ApproveJoinRequest { device, code, .. } = request;
        let role = pairing::newcomers_role(request.role)?;
        let person = convert::person(&request.person)?;
        let approved = self
            .ask(|reply| {
                ControlCommand::Pairing(PairingCommand::Approve {
                    device,
                    code,
                    role,
                    person,
                    reply,
                })
            })
            .await?;
        Ok(Response::new(pairing::approved(&approved)))
    }

    async fn get_journal(
        &self,
        _request: Request<v1::GetJournalRequest>,
    ) -> Result<Response<v1::GetJournalResponse>, Status> {
        let summary = self.ask(|reply| ControlCommand::GetJournal { reply }).await?;
        Ok(Response::new(convert::journal(&summary)))
    }

    async fn get_history(
        &self,
        request: Request<v1::GetHistoryRequest>,
    ) -> Result<Response<v1::GetHistoryResponse>, Status> {
        let request = request.into_inner();
        let path = history::path(request.path)?;
        let skip = usize::try_from(request.skip).unwrap_or(usize::MAX);
        let limit = history::limit(request.limit);
        let page = self
            .ask(|reply| ControlCommand::GetHistory {
                path,
                skip,
                limit,
                reply,
            })
            .await?;
        let names = self.backend.status.borrow().clone();
        let versions = page.versions.into_iter().map(|v| history::version(v, &names));
        Ok(Response::new(v1::GetHistoryResponse {
            versions: versions.collect(),
            more: page.more,
        }))
    }

    async fn read_version(
        &self,
        request: Request<v1::ReadVersionRequest>,
    ) -> Result<Response<Self::ReadVersionStream>, Status> {
        use v1::read_version_request::Pick;
        let request = request.into_inner();
        let path = history::path(request.path)?;
        let pick = match request.pick {
            Some(Pick::Version(id)) => history::pick(Some(id), None)?,
            Some(Pick::Before(time)) => history::pick(None, Some(time))?,
            None => history::pick(None, None)?,
        };
        let (parts, inbox) = mpsc::channel(history::STREAM_QUEUE);
        self.tell(ControlCommand::ReadVersion { path, pick, parts })
            .await?;
        let names = self.backend.status.borrow().clone();
        let stream = history::stream(inbox, move |part| history::part(part, &names));
        Ok(Response::new(stream))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<Self::RestoreStream>, Status> {
        use v1::restore_request::Pick;
        let request = request.into_inner();
        let path = convert::rel_path(request.path)?;
        let pick = match request.pick {
            Some(Pick::Version(id)) => history::pick(Some(id), None)?,
            Some(Pick::Before(time)) => history::pick(None, Some(time))?,
            None => history::pick(None, None)?,
        };
        if path.is_none() && !matches!(pick, super::Pick::Before(_)) {
            let why = "The whole folder can be restored to a time only";
            return Err(invalid(reason::INVALID_ARGUMENT, why));
        }
        let (steps, inbox) = mpsc::channel(history::STREAM_QUEUE);
        self.tell(ControlCommand::Restore { path, pick, steps }).await?;
        let names = self.backend.status.borrow().clone();
        let stream = history::stream(inbox, move |step| history::step(step, &names));
        Ok(Response::new(stream))
    }

    async fn confirm_deletes(
        &self,
        request: Request<v1::ConfirmDeletesRequest>,
    ) -> Result<Response<v1::ConfirmDeletesResponse>, Status> {
        let restore = request.into_inner().restore;
        self.ask(|reply| ControlCommand::ConfirmDeletes { restore, reply })
            .await?;
        Ok(Response::new(v1::ConfirmDeletesResponse {}))
    }

    async fn why(&self, request: Request<v1::WhyRequest>) -> Result<Response<v1::WhyResponse>, Status> {
        let path = convert::rel_path(request.into_inner().path)?;
        let Some(path) = path else {
            return Err(invalid(reason::BAD_PATH, "There is no path"));
        };
        let answer = self.ask(|reply| ControlCommand::Why { path, reply }).await?;
        let response = guards::why(answer, &self.backend.status.borrow());
        Ok(Response::new(response))
    }

    async fn pause(
        &self,
        _request: Request<v1::PauseRequest>,
    ) -> Result<Response<v1::PauseResponse>, Status> {
        let paused = true;
        self.ask(|reply| ControlCommand::SetPaused { paused, reply })
            .await?;
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn resume(
        &self,
        _request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        let paused = false;
        self.ask(|reply| ControlCommand::SetPaused { paused, reply })
            .await?;
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn leave(
        &self,
        _request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        let group = self.ask(|reply| ControlCommand::Leave { reply }).await?;
        let group_id = group.to_hex();
        Ok(Response::new(v1::LeaveResponse { group_id }))
    }
}

impl Rpcs {
    /// Hands a command over that answers by itself.
    pub(super) async fn tell(&self, command: ControlCommand) -> Result<(), Status> {
        let sent = self.backend.commands.send(command).await;
        sent.map_err(|_| from_error(&ControlError::Stopping))
    }

    /// Says what the files turned out to be that a join found.
    fn counted(&self) -> Result<Response<v1::JoinResponse>, Status> {
        let counts = self.backend.status.borrow().engine.join;
        let Some(counts) = counts.map(guards::join_counts) else {
            let text = "No files wait for a choice; what a join will find is known once the group is joined";
            return Err(invalid(reason::INVALID_ARGUMENT, text));
        };
        Ok(Response::new(v1::JoinResponse {
            counts: Some(counts),
            ..Default::default()
        }))
    }

    /// Hands a command over and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(ReplyTo<T>) -> ControlCommand + Send,
    ) -> Result<T, Status>
    where
        T: Send,
    {
        let (reply, answer) = oneshot::channel();
        let command = command(reply);
        let exchange = async {
            self.backend
                .commands
                .send(command)
                .await
                .map_err(|_| self.no_answer())?;
            answer.await.map_err(|_| self.no_answer())?
        };
        match tokio::time::timeout(REPLY_TIMEOUT, exchange).await {
            Ok(result) => result.map_err(|e| from_error(&e)),
            Err(_) => Err(from_error(&ControlError::TimedOut)),
        }
    }

    /// Why nobody answers a command any more.
    pub(super) fn no_answer(&self) -> ControlError {
        let failure = self.backend.status.borrow().failure.clone();
        failure.map_or(ControlError::Stopping, ControlError::Failed)
    }
}
