//! The rpcs about the quarantine: what was written without the right to.

use p2p_sync_core::ids::{Dot, EventId, ShortId};
use p2p_sync_core::rel_path::RelPath;
use p2p_sync_proto::v1::quarantine_service_server::QuarantineService;
use p2p_sync_proto::{reason, v1};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::caller::note;
use super::service::Rpcs;
use super::status::{from_error, invalid};
use super::{ControlCommand, ControlError, PathVersion, ReplyTo, StatusSnapshot, history};

/// Versions in one answer unless the caller says otherwise.
const DEFAULT_PAGE: usize = 100;
/// Versions in one answer; at 4 KiB of path each they just fit into tonic's limit of 4 MiB, and paths of that length do
/// not exist in numbers.
const MAX_PAGE: usize = 1_000;

/// A version in quarantine by its path and name; they are in order of these.
pub type QuarantinePlace = (RelPath, Dot);

/// What users ask about the quarantine.
#[derive(Debug)]
pub enum QuarantineCommand {
    /// What is in it?
    List {
        /// What comes after this; `None`: from the start.
        after: Option<QuarantinePlace>,
        /// Versions wanted at most.
        limit: usize,
        /// The versions.
        reply: ReplyTo<QuarantinePage>,
    },
    /// Put one at its path as an edit of this device's.
    Accept {
        /// Which path.
        path: RelPath,
        /// The version's id or the beginning of it; `None`: the newest.
        version: Option<String>,
        /// Which it was. A closed receiver gives it up.
        reply: ReplyTo<Accepted>,
    },
    /// Forget the bytes of one, or of all of a path.
    Drop {
        /// Which path.
        path: RelPath,
        /// The version's id or the beginning of it; `None`: all.
        version: Option<String>,
        /// What went.
        reply: ReplyTo<Dropped>,
    },
}

/// A part of what is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantinePage {
    /// The versions.
    pub items: Vec<Quarantined>,
    /// After what the next part begins; `None`: there is none.
    pub next: Option<QuarantinePlace>,
}

/// A version in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it was written.
    pub path: RelPath,
    /// What it is.
    pub version: PathVersion,
    /// The event that says so.
    pub event: EventId,
}

/// A version that stands at its path again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Which.
    pub version: PathVersion,
    /// Whether it stood there anyway.
    pub unchanged: bool,
}

/// Versions whose bytes were forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Which, newest first.
    pub versions: Vec<PathVersion>,
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[tonic::async_trait]
impl QuarantineService for Rpcs {
    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        let request = request.into_inner();
        let after = read_token(&request.page_token)?;
        let limit = match usize::try_from(request.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => {
                return Err(invalid(
                    reason::INVALID_ARGUMENT,
                    "A page has at least one version",
                ));
            }
        };
        let page = self
            .ask(|reply| ControlCommand::Quarantine(QuarantineCommand::List { after, limit, reply }))
            .await?;
        let names = self.backend.status.borrow().clone();
        let items = page.items.into_iter().map(|item| quarantined(item, &names));
        Ok(Response::new(v1::ListQuarantineResponse {
            items: items.collect(),
            next_page_token: page.next.as_ref().map(write_token).unwrap_or_default(),
        }))
    }

    async fn accept_quarantined(
        &self,
        request: Request<v1::AcceptQuarantinedRequest>,
    ) -> Result<Response<v1::AcceptQuarantinedResponse>, Status> {
        note(&request, "AcceptQuarantined");
        let v1::AcceptQuarantinedRequest { path, version } = request.into_inner();
        let path = history::path(path)?;
        // Bytes that another device has may take longer than a command may.
        let (reply, answer) = oneshot::channel();
        let command = QuarantineCommand::Accept { path, version, reply };
        self.tell(ControlCommand::Quarantine(command)).await?;
        let answer = answer.await.map_err(|_| from_error(&ControlError::Stopping))?;
        let accepted = answer.map_err(|e| from_error(&e))?;
        let names = self.backend.status.borrow().clone();
        Ok(Response::new(v1::AcceptQuarantinedResponse {
            version: Some(history::version(accepted.version, &names)),
            unchanged: accepted.unchanged,
        }))
    }

    async fn drop_quarantined(
        &self,
        request: Request<v1::DropQuarantinedRequest>,
    ) -> Result<Response<v1::DropQuarantinedResponse>, Status> {
        note(&request, "DropQuarantined");
        let v1::DropQuarantinedRequest { path, version } = request.into_inner();
        let path = history::path(path)?;
        let command = |reply| ControlCommand::Quarantine(QuarantineCommand::Drop { path, version, reply });
        let dropped = self.ask(command).await?;
        let names = self.backend.status.borrow().clone();
        let versions = dropped.versions.into_iter().map(|v| history::version(v, &names));
        Ok(Response::new(v1::DropQuarantinedResponse {
            versions: versions.collect(),
            files: dropped.files,
            bytes: dropped.bytes,
        }))
    }
}

fn quarantined(item: Quarantined, names: &StatusSnapshot) -> v1::Quarantined {
    v1::Quarantined {
        path: item.path.as_bytes().to_vec(),
        version: Some(history::version(item.version, names)),
        event: item.event.to_hex(),
    }
}

/// Returns the token of the page after a place: device 8 B, number 8 B and item 4 B of the version, then the path.
fn write_token((path, dot): &QuarantinePlace) -> String {
    let bytes = [
        &dot.device.as_bytes()[..],
        &dot.seq.to_be_bytes(),
        &dot.item.to_be_bytes(),
        path.as_bytes(),
    ];
    data_encoding::BASE64URL_NOPAD.encode(&bytes.concat())
}

/// Reads [`write_token`] back; an empty one stands for the start.
fn read_token(token: &str) -> Result<Option<QuarantinePlace>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = || {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let (device, rest) = bytes.split_first_chunk::<{ ShortId::LEN }>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (item, path) = rest.split_first_chunk::<4>()?;
        let dot = Dot {
            device: ShortId::new(*device),
            seq: u64::from_be_bytes(*seq),
            item: u32::from_be_bytes(*item),
        };
        Some((RelPath::parse(path).ok()?, dot))
    };
    let bad = || invalid(reason::INVALID_ARGUMENT, "That is not a page token");
    place().map(Some).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_comes_back_and_others_are_refused() {
        let dot = Dot {
            device: ShortId::new([7; 8]),
            seq: 1 << 40,
            item: 3,
        };
        let place = (RelPath::parse("a/\u{e9}").unwrap(), dot);
        assert_eq!(read_token(&write_token(&place)).unwrap(), Some(place));
        assert_eq!(read_token("").unwrap(), None);
        for bad in ["x", "AAAA", &"A".repeat(27), &"A".repeat(40)] {
            assert_eq!(
                read_token(bad).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{bad}"
            );
        }
    }
}
