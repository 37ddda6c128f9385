//! The rpcs about the recovery key. Its secret passes through here and is never logged.

use p2p_sync_core::engine::{MembersCommand, MembersReply, RecoverySecret, Reply};
use p2p_sync_proto::v1::recovery_service_server::RecoveryService;
use p2p_sync_proto::{reason, v1};
use tonic::{Request, Response, Status};

use super::ControlError;
use super::service::Rpcs;
use super::status::{from_error, invalid};

#[tonic::async_trait]
impl RecoveryService for Rpcs {
    async fn show_recovery(
        &self,
        _request: Request<v1::ShowRecoveryRequest>,
    ) -> Result<Response<v1::ShowRecoveryResponse>, Status> {
        match self.manage(MembersCommand::ShowRecovery).await? {
            Reply::Members(MembersReply::Recovery(secret)) => Ok(Response::new(v1::ShowRecoveryResponse {
                secret: secret.as_bytes().to_vec(),
            })),
            _ => Err(from_error(&ControlError::TimedOut)),
        }
    }

    async fn forget_recovery(
        &self,
        _request: Request<v1::ForgetRecoveryRequest>,
    ) -> Result<Response<v1::ForgetRecoveryResponse>, Status> {
        self.manage(MembersCommand::ForgetRecovery).await?;
        Ok(Response::new(v1::ForgetRecoveryResponse {}))
    }

    async fn use_recovery(
        &self,
        request: Request<v1::UseRecoveryRequest>,
    ) -> Result<Response<v1::UseRecoveryResponse>, Status> {
        let secret = RecoverySecret::from_slice(&request.into_inner().secret).ok_or_else(|| {
            invalid(
                reason::WRONG_RECOVERY,
                "The secret of a recovery key has 32 bytes",
            )
        })?;
        self.manage(MembersCommand::UseRecovery { secret }).await?;
        Ok(Response::new(v1::UseRecoveryResponse {}))
    }
}
