//! `syncctl watch`.

use std::time::Duration;

use p2p_sync_proto::v1;
use p2p_sync_proto::v1::watch_response::Change;
use serde::Serialize;

use crate::Session;
use crate::exit::{Exit, Failure};
use crate::output::{JsonPath, Stop, escape, number, short};
use crate::view::{DeviceJson, StatusJson, folder_state, role};

/// How often to look whether anybody still reads.
const READER_CHECK: Duration = Duration::from_millis(250);

pub(crate) async fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    let mut client = session.client().await?;
    let mut stream = client.watch(v1::WatchRequest {}).await?.into_inner();
    let mut reader_check = tokio::time::interval(READER_CHECK);
    loop {
        let message = tokio::select! {
            message = stream.message() => message?,
            _ = reader_check.tick() => {
                if session.out.reader_gone() {
                    return Err(Stop::ReaderGone);
                }
                continue;
            }
        };
        let Some(message) = message else { break };
        let Some(change) = message.change.clone() else {
            continue;
        };
        if let (Change::Heartbeat(_), false) = (&change, session.out.json) {
            continue;
        }
        let text = format!("{}  {}", time(&message), words(&change));
        session.out.answer(&json(&message, change), || text)?;
    }
    Err(
        Failure::new(Exit::Unavailable, "STREAM_ENDED", "The daemon ended the stream")
            .hint("see whether it runs: syncctl status")
            .into(),
    )
}

#[derive(Debug, Serialize)]
struct Line {
    schema: &'static str,
    seq: u64,
    time: String,
    #[serde(flatten)]
    change: ChangeJson,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChangeJson {
    Status {
        status: Box<StatusJson>,
    },
    PathSynced {
        #[serde(flatten)]
        path: JsonPath,
        removed: bool,
        author: Option<String>,
    },
    PathPublished {
        #[serde(flatten)]
        path: JsonPath,
        removed: bool,
    },
    ConflictCopied {
        #[serde(flatten)]
        path: JsonPath,
        origin: JsonPath,
    },
    MemberAdded {
        device: DeviceJson,
        role: Option<&'static str>,
    },
    JoinRequested {
        device: DeviceJson,
        code: String,
    },
    MemberRemoved {
        device: DeviceJson,
    },
    PeerConnected {
        device: DeviceJson,
    },
    PeerDisconnected {
        device: DeviceJson,
    },
    ChangeRejected {
        #[serde(flatten)]
        path: JsonPath,
    },
    PathStuck {
        #[serde(flatten)]
        path: JsonPath,
        reason: String,
    },
    PeerMisbehaved {
        device: DeviceJson,
        reason: String,
    },
    Heartbeat,
    Dropped {
        count: u64,
    },
}

fn time(message: &v1::WatchResponse) -> String {
    message
        .time
        .map(|t| prost_types::Timestamp { nanos: 0, ..t }.to_string())
        .unwrap_or_default()
}

fn json(message: &v1::WatchResponse, change: Change) -> Line {
    let path = |bytes: &[u8]| JsonPath::new(bytes);
    let device = |device: Option<v1::Device>| DeviceJson::from(device.unwrap_or_default());
    let change = match change {
        Change::Status(status) => ChangeJson::Status {
            status: Box::new(status.into()),
        },
        Change::PathSynced(c) => ChangeJson::PathSynced {
            path: path(&c.path),
            removed: c.removed,
            author: Some(c.author).filter(|a| !a.is_empty()),
        },
        Change::PathPublished(c) => ChangeJson::PathPublished {
            path: path(&c.path),
            removed: c.removed,
        },
        Change::ConflictCopied(c) => ChangeJson::ConflictCopied {
            path: path(&c.path),
            origin: path(&c.origin),
        },
        Change::MemberAdded(c) => ChangeJson::MemberAdded {
            role: role(c.role()),
            device: device(c.device),
        },
        Change::JoinRequested(c) => ChangeJson::JoinRequested {
            code: c.code,
            device: device(c.device),
        },
        Change::MemberRemoved(c) => ChangeJson::MemberRemoved {
            device: device(c.device),
        },
        Change::PeerConnected(c) => ChangeJson::PeerConnected {
            device: device(c.device),
        },
        Change::PeerDisconnected(c) => ChangeJson::PeerDisconnected {
            device: device(c.device),
        },
        Change::ChangeRejected(c) => ChangeJson::ChangeRejected { path: path(&c.path) },
        Change::PathStuck(c) => ChangeJson::PathStuck {
            path: path(&c.path),
            reason: c.reason,
        },
        Change::PeerMisbehaved(c) => ChangeJson::PeerMisbehaved {
            device: device(c.device),
            reason: c.reason,
        },
        Change::Heartbeat(_) => ChangeJson::Heartbeat,
        Change::Dropped(count) => ChangeJson::Dropped { count },
    };
    Line {
        schema: "p2psync.watch/1",
        seq: message.seq,
        time: time(message),
        change,
    }
}

fn words(change: &Change) -> String {
    let device = |device: &Option<v1::Device>| {
        let device = device.clone().unwrap_or_default();
        let name = if device.name.is_empty() {
            short(&device.id)
        } else {
            &device.name
        };
        escape(name.as_bytes())
    };
    match change {
        Change::Status(status) => {
            let folder = status.folder.clone().unwrap_or_default();
            let peers = status.peers.unwrap_or_default();
            format!(
                "status     {}, {} paths to go, {} peers connected",
                folder_state(folder.state()).replace('_', " "),
                number(folder.files_needed),
                peers.connected
            )
        }
        Change::PathSynced(c) if c.removed => format!("removed    {}", escape(&c.path)),
        Change::PathSynced(c) => format!("synced     {}", escape(&c.path)),
        Change::PathPublished(c) if c.removed => format!("deleted    {}", escape(&c.path)),
        Change::PathPublished(c) => format!("published  {}", escape(&c.path)),
        Change::ConflictCopied(c) => {
            format!("conflict   {} (copy of {})", escape(&c.path), escape(&c.origin))
        }
        Change::MemberAdded(c) => {
            format!(
                "member     {} joined as {}",
                device(&c.device),
                role(c.role()).unwrap_or("nothing")
            )
        }
        Change::JoinRequested(c) => format!(
            "request    {} asks to join with the digits {}; see: syncctl approve",
            device(&c.device),
            escape(c.code.as_bytes())
        ),
        Change::MemberRemoved(c) => format!("member     {} was removed", device(&c.device)),
        Change::PeerConnected(c) => format!("peer       {} connected", device(&c.device)),
        Change::PeerDisconnected(c) => format!("peer       {} disconnected", device(&c.device)),
        Change::ChangeRejected(c) => format!("rejected   {}: not in this device's role", escape(&c.path)),
        Change::PathStuck(c) => format!("stuck      {}: {}", escape(&c.path), escape(c.reason.as_bytes())),
        Change::PeerMisbehaved(c) => {
            format!(
                "misbehaved {}: {}",
                device(&c.device),
                escape(c.reason.as_bytes())
            )
        }
        Change::Heartbeat(_) => "alive".to_owned(),
        Change::Dropped(n) => format!(
            "dropped    {} lines, because they were read too slowly",
            number(*n)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_one_line() {
        let path = b"a\nb\xff".to_vec();
        let change = Change::PathSynced(v1::PathSynced {
            path,
            removed: false,
            author: String::new(),
        });
        assert_eq!(words(&change), "synced     a\\x0ab\\xff");
        let time = Some(prost_types::Timestamp { seconds: 5, nanos: 7 });
        let message = v1::WatchResponse {
            seq: 3,
            time,
            change: None,
        };
        assert_eq!(
            serde_json::to_string(&json(&message, change)).unwrap(),
            "{\"schema\":\"p2psync.watch/1\",\"seq\":3,\"time\":\"1970-01-01T00:00:05Z\",\"type\":\"path_synced\",\
             \"path\":\"a\\nb\u{fffd}\",\"path_hex\":\"610a62ff\",\"removed\":false,\"author\":null}"
        );
    }

    #[test]
    fn a_device_without_a_name_is_shown_by_its_id() {
        let device = v1::Device {
            id: "0b0b0b0b0b".into(),
            ..v1::Device::default()
        };
        let change = Change::PeerConnected(v1::PeerConnected { device: Some(device) });
        assert_eq!(words(&change), "peer       0b0b0b0b connected");
    }
}
