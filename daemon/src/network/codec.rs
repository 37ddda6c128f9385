//! The frames of the three request-response protocols: a length (u32, little-endian), then that many bytes of one
//! protobuf message. A length over the bound ends the stream before anything is allocated for it; messages are
//! converted here, in the connection's task, so that the swarm's task sees only well-formed ones.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use p2p_sync_core::engine::{Request, Response};
use p2p_sync_core::ids::GroupId;
use p2p_sync_proto::peer::v1 as wire;
use prost::Message;

use super::convert::{self, ConvertError};

/// Bytes of a ledger request: one page of pushed events (1 MiB) and room for the fields around them.
pub const MAX_LEDGER_REQUEST: usize = (1 << 20) + (64 << 10);
/// Bytes of a ledger response: a page that one large event overshoots, and the fields of very many small ones.
pub const MAX_LEDGER_RESPONSE: usize = 4 << 20;
/// Bytes of a join request: a presented chain (64 KiB) and the fields around it. Strangers may send these.
pub const MAX_JOIN_REQUEST: usize = 72 << 10;
/// Bytes of a join response: the admin events of a group with many members.
pub const MAX_JOIN_RESPONSE: usize = 128 << 10;
/// Bytes of a message about the local network: one group id.
const MAX_LAN_MESSAGE: usize = 64;

/// Frames of `/p2p-sync/ledger/1`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LedgerCodec;

/// Frames of `/p2p-sync/join/1`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JoinCodec;

/// Frames of `/p2p-sync/lan/1`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LanCodec;

/// "Which group are you in?"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LanQuestion;

impl Codec for LedgerCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_LEDGER_REQUEST).await?;
        (convert::decode(&bytes).and_then(convert::ledger_request_from_wire)).map_err(invalid_data)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_LEDGER_RESPONSE).await?;
        (convert::decode(&bytes).and_then(convert::ledger_response_from_wire)).map_err(invalid_data)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = convert::ledger_request_to_wire(request).map_err(invalid_data)?;
        write_frame(io, &message, MAX_LEDGER_REQUEST).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = convert::ledger_response_to_wire(response).map_err(invalid_data)?;
        write_frame(io, &message, MAX_LEDGER_RESPONSE).await
    }
}

impl Codec for JoinCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_JOIN_REQUEST).await?;
        (convert::decode(&bytes).and_then(convert::join_request_from_wire)).map_err(invalid_data)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_JOIN_RESPONSE).await?;
        (convert::decode(&bytes).and_then(convert::join_response_from_wire)).map_err(invalid_data)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = convert::join_request_to_wire(request).map_err(invalid_data)?;
        write_frame(io, &message, MAX_JOIN_REQUEST).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let message = convert::join_response_to_wire(response).map_err(invalid_data)?;
        write_frame(io, &message, MAX_JOIN_RESPONSE).await
    }
}

impl Codec for LanCodec {
    type Protocol = StreamProtocol;
    type Request = LanQuestion;
    type Response = Option<GroupId>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<LanQuestion>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_LAN_MESSAGE).await?;
        let wire::LanRequest {} = convert::decode(&bytes).map_err(invalid_data)?;
        Ok(LanQuestion)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Option<GroupId>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let bytes = read_frame(io, MAX_LAN_MESSAGE).await?;
        (convert::decode(&bytes).and_then(convert::lan_from_wire)).map_err(invalid_data)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, _: LanQuestion) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &wire::LanRequest {}, MAX_LAN_MESSAGE).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        group: Option<GroupId>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &convert::lan_to_wire(group), MAX_LAN_MESSAGE).await
    }
}

async fn read_frame<T>(io: &mut T, max: usize) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut prefix = [0; 4];
    io.read_exact(&mut prefix).await?;
    let len = u32::from_le_bytes(prefix);
    if usize::try_from(len).map_or(true, |len| len > max) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("A frame of {len} bytes; at most {max} are allowed"),
        ));
    }
    let mut bytes = Vec::new();
    let read = io.take(u64::from(len)).read_to_end(&mut bytes).await?;
    if read as u64 != u64::from(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

async fn write_frame<M, T>(io: &mut T, message: &M, max: usize) -> io::Result<()>
where
    M: Message,
    T: AsyncWrite + Unpin + Send,
{
    let len = message.encoded_len();
    let prefix = match u32::try_from(len) {
        Ok(prefix) if len <= max => prefix,
        Ok(_) | Err(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("A message of {len} bytes; at most {max} are allowed"),
            ));
        }
    };
    let mut bytes = Vec::with_capacity(4 + len);
    bytes.extend_from_slice(&prefix.to_le_bytes());
    message
        .encode(&mut bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    io.write_all(&bytes).await
}

fn invalid_data(error: ConvertError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    #[tokio::test]
    async fn a_frame_is_a_little_endian_length_and_the_message() {
        let mut bytes = Vec::new();
        LanCodec
            .write_response(&PROTOCOL, &mut bytes, Some(GroupId::new([9; 32])))
            .await
            .unwrap();
        assert_eq!(bytes[..6], [34, 0, 0, 0, 10, 32]);
        let read = LanCodec.read_response(&PROTOCOL, &mut Cursor::new(bytes)).await;
        assert_eq!(read.unwrap(), Some(GroupId::new([9; 32])));
    }

    #[tokio::test]
    async fn a_frame_over_its_bound_is_refused_unread() {
        let len = u32::try_from(MAX_JOIN_REQUEST).unwrap() + 1;
        let mut frame = Cursor::new(len.to_le_bytes().to_vec());
        let error = JoinCodec.read_request(&PROTOCOL, &mut frame).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut huge = Cursor::new(u32::MAX.to_le_bytes().to_vec());
        let error = LedgerCodec.read_response(&PROTOCOL, &mut huge).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_error() {
        let mut frame = Cursor::new(vec![10, 0, 0, 0, 1, 2]);
        let error = LedgerCodec.read_request(&PROTOCOL, &mut frame).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_request_for_members_is_not_written_to_the_join_protocol() {
        let mut bytes = Vec::new();
        let request = Request::Heads { digest: [0; 32] };
        assert!(
            JoinCodec
                .write_request(&PROTOCOL, &mut bytes, request)
                .await
                .is_err()
        );
        assert!(bytes.is_empty());
    }
}
