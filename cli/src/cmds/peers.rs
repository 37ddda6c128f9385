//! `syncctl peers`.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::output::{Stop, escape, or_null, short, table};
use crate::view::{peer_state, role};
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct PeersJson<'a> {
    schema: &'static str,
    peers: Vec<PeerJson<'a>>,
}

#[derive(Debug, Serialize)]
struct PeerJson<'a> {
    id: &'a str,
    #[serde(serialize_with = "or_null")]
    name: &'a str,
    #[serde(serialize_with = "or_null")]
    peer_id: &'a str,
    #[serde(serialize_with = "or_null")]
    person: &'a str,
    state: &'static str,
    role: Option<&'static str>,
    #[serde(serialize_with = "or_null")]
    address: &'a str,
    in_sync: bool,
}

pub(crate) async fn list(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.list_peers(v1::ListPeersRequest {}).await;
    let peers = session.call(CALL_TIMEOUT, call).await?.peers;
    session.out.answer(&json(&peers), || words(&peers))
}

pub(crate) async fn connect(session: &mut Session<'_>, address: String) -> Result<(), Stop> {
    #[derive(Serialize)]
    struct Json<'a> {
        schema: &'static str,
        address: &'a str,
    }
    let request = v1::ConnectPeerRequest {
        address: address.clone(),
    };
    session
        .call(CALL_TIMEOUT, async |mut client: Client| {
            client.connect_peer(request).await
        })
        .await?;
    session.out.answer(
        &Json {
            schema: "p2psync.connect/1",
            address: &address,
        },
        || format!("Dialling {}; see: syncctl peers", escape(address.as_bytes())),
    )
}

fn json(peers: &[v1::Peer]) -> PeersJson<'_> {
    let peers = peers.iter().map(|peer| {
        let device = peer.device.as_ref();
        PeerJson {
            id: device.map_or("", |d| &d.id),
            name: device.map_or("", |d| &d.name),
            peer_id: device.map_or("", |d| &d.peer_id),
            person: device.map_or("", |d| &d.person),
            state: peer_state(peer.state()),
            role: role(peer.role()),
            address: &peer.address,
            in_sync: peer.in_sync,
        }
    });
    PeersJson {
        schema: "p2psync.peers/1",
        peers: peers.collect(),
    }
}

fn words(peers: &[v1::Peer]) -> String {
    let heading = ["DEVICE", "NAME", "PERSON", "ROLE", "STATE", "IN SYNC", "ADDRESS"]
        .map(str::to_owned)
        .to_vec();
    let dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            escape(text.as_bytes())
        }
    };
    let rows = peers.iter().map(|peer| {
        let device = peer.device.clone().unwrap_or_default();
        vec![
            dash(short(&device.id)),
            dash(&device.name),
            dash(&device.person),
            dash(role(peer.role()).unwrap_or_default()),
            peer_state(peer.state()).replace('_', " "),
            if peer.in_sync { "yes" } else { "no" }.to_owned(),
            dash(&peer.address),
        ]
    });
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample_peers;

    #[test]
    fn the_peers_in_words() {
        assert_eq!(
            words(&sample_peers()),
            "\
DEVICE    NAME           PERSON  ROLE    STATE        IN SYNC  ADDRESS
0a0a0a0a  atlas          Anna    owner   this device  yes      -
0b0b0b0b  lap\\x1b[0mtop  -       editor  connected    no       /ip4/192.0.2.8/tcp/1
0c0c0c0c  -              -       -       stranger     no       -
"
        );
    }

    #[test]
    fn the_peers_as_json() {
        let peers = sample_peers();
        assert_eq!(
            serde_json::to_string(&json(&peers[1..])).unwrap(),
            r#"{"schema":"p2psync.peers/1","peers":[{"id":"0b0b0b0b0b0b","name":"lap\u001b[0mtop","peer_id":null,"person":null,"state":"connected","role":"editor","address":"/ip4/192.0.2.8/tcp/1","in_sync":false},{"id":"0c0c0c0c0c0c","name":null,"peer_id":null,"person":null,"state":"stranger","role":null,"address":null,"in_sync":false}]}"#
        );
    }
}
