//! `syncctl join lan:NAME` and `approve`.

use std::time::Duration;

use p2p_sync_proto::v1;
use p2p_sync_proto::v1::join_by_name_response::Step;
use serde::Serialize;
use tokio::time::Instant;

use super::invite;
use crate::args::InviteRole;
use crate::exit::{Exit, Failure};
use crate::output::{Stop, escape, short, table};
use crate::view::{DeviceJson, role};
use crate::{CALL_TIMEOUT, Client, Session};

/// What a name on the local network begins with, where a ticket could stand.
const PREFIX: &str = "lan:";
/// Looking at the local network takes the daemon up to 8 s.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a join waits for somebody to type the digits.
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize)]
struct LanJson {
    schema: &'static str,
    devices: Vec<LanDeviceJson>,
}

#[derive(Debug, Serialize)]
struct LanDeviceJson {
    device: DeviceJson,
    group: String,
    group_name: String,
}

#[derive(Debug, Serialize)]
struct CodeJson<'a> {
    schema: &'static str,
    code: &'a str,
    device: DeviceJson,
    asked: LanDeviceJson,
}

#[derive(Debug, Serialize)]
struct RequestsJson {
    schema: &'static str,
    requests: Vec<RequestJson>,
}

#[derive(Debug, Serialize)]
struct RequestJson {
    device: DeviceJson,
    code: String,
}

#[derive(Debug, Serialize)]
struct ApprovedJson {
    schema: &'static str,
    device: DeviceJson,
    role: Option<&'static str>,
}

/// Returns the name in `lan:NAME`; `None` for a ticket.
pub(crate) fn lan_name(text: &str) -> Option<&str> {
    let prefix = text.get(..PREFIX.len())?;
    let name = text.get(PREFIX.len()..)?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(name.trim())
}

/// Lists the devices of the local network that can be asked.
pub(crate) async fn list_lan(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.list_lan(v1::ListLanRequest {}).await;
    let devices = session.call(LOOK_TIMEOUT, call).await?.devices;
    let text = lan_words(&devices);
    let json = LanJson {
        schema: "p2psync.lan/1",
        devices: devices.into_iter().map(LanDeviceJson::from).collect(),
    };
    session.out.answer(&json, || text)
}

/// Asks a device of the local network, shows the digits, and waits until somebody typed them there.
pub(crate) async fn join(session: &mut Session<'_>, name: &str, choice: v1::JoinChoice) -> Result<(), Stop> {
    let timeout = session.timeout(APPROVAL_TIMEOUT);
    let deadline = Instant::now() + timeout;
    let mut client = session.client().await?;
    let request = v1::JoinByNameRequest {
        name: name.to_owned(),
        choice: choice.into(),
    };
    let mut steps = client
        .join_by_name(request)
        .await
        .map_err(Failure::from)?
        .into_inner();
    loop {
        let Ok(step) = tokio::time::timeout_at(deadline, steps.message()).await else {
            let failure = Failure::new(
                Exit::TempFail,
                "NOT_APPROVED",
                format!("Nobody approved it in {timeout:?}"),
            );
            return Err(failure.hint("ask again; to wait longer: --timeout 9m").into());
        };
        let step = step.map_err(Failure::from)?.and_then(|message| message.step);
        match step {
            Some(Step::Code(code)) => show_code(session, code)?,
            Some(Step::Joined(joined)) => {
                let joined = v1::JoinResponse {
                    group_id: joined.group_id,
                    role: joined.role,
                    ..Default::default()
                };
                return super::join::show(session, &joined, false);
            }
            None => {
                return Err(
                    Failure::new(Exit::Unavailable, "STREAM_ENDED", "The daemon ended the join")
                        .hint("see whether it runs: syncctl status")
                        .into(),
                );
            }
        }
    }
}

fn show_code(session: &mut Session<'_>, step: v1::JoinCode) -> Result<(), Stop> {
    let text = code_words(&step);
    let code = escape(step.code.as_bytes());
    let json = CodeJson {
        schema: "p2psync.join-code/1",
        code: &code,
        device: step.device.unwrap_or_default().into(),
        asked: step.asked.unwrap_or_default().into(),
    };
    session.out.answer(&json, || text)
}

/// Lists the devices that ask to be let in.
pub(crate) async fn list_requests(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.list_join_requests(v1::ListJoinRequestsRequest {}).await;
    let requests = session.call(CALL_TIMEOUT, call).await?.requests;
    let text = request_words(&requests);
    let requests = requests.into_iter().map(|request| RequestJson {
        device: request.device.unwrap_or_default().into(),
        code: request.code,
    });
    let json = RequestsJson {
        schema: "p2psync.join-requests/1",
        requests: requests.collect(),
    };
    session.out.answer(&json, || text)
}

/// Lets a device in.
pub(crate) async fn approve(
    session: &mut Session<'_>,
    device: String,
    code: String,
    given: InviteRole,
    person: Option<String>,
) -> Result<(), Stop> {
    let request = v1::ApproveJoinRequest {
        device,
        code,
        role: invite::to_proto(given).into(),
        person: person.unwrap_or_default(),
    };
    let approved = session
        .call(CALL_TIMEOUT, async |mut client: Client| {
            client.approve_join(request).await
        })
        .await?;
    let device = approved.device.clone().unwrap_or_default();
    let text = format!(
        "{} is in the group as {}",
        named(&device),
        role(approved.role()).unwrap_or("member")
    );
    let json = ApprovedJson {
        schema: "p2psync.approve/1",
        role: role(approved.role()),
        device: device.into(),
    };
    session.out.answer(&json, || text)
}

impl From<v1::LanDevice> for LanDeviceJson {
    fn from(found: v1::LanDevice) -> Self {
        Self {
            device: found.device.unwrap_or_default().into(),
            group: found.group_id,
            group_name: found.group_name,
        }
    }
}

fn named(device: &v1::Device) -> String {
    let (name, id) = (
        escape(device.name.as_bytes()),
        escape(short(&device.id).as_bytes()),
    );
    format!("{name} ({id})")
}

fn lan_words(devices: &[v1::LanDevice]) -> String {
    if devices.is_empty() {
        return "No device of the local network can be asked; make an invite there: syncctl invite create"
            .to_owned();
    }
    let mut rows = vec![
        ["DEVICE", "NAME", "GROUP", "GROUP NAME"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for found in devices {
        let device = found.device.clone().unwrap_or_default();
        let cells = [
            short(&device.id),
            &device.name,
            short(&found.group_id),
            &found.group_name,
        ];
        rows.push(cells.map(|cell| escape(cell.as_bytes())).to_vec());
    }
    format!(
        "{}\nAsk one to let this device in: syncctl join lan:NAME",
        table(&rows)
    )
}

fn code_words(step: &v1::JoinCode) -> String {
    let asked = step.asked.clone().unwrap_or_default();
    let there = named(&asked.device.unwrap_or_default());
    let group = escape(asked.group_name.as_bytes());
    let here = step.device.clone().unwrap_or_default();
    format!(
        "Asking {there} for the group {group}.\nOn that device type: syncctl approve {} {}\n\
         Waiting; to give up: Ctrl-C",
        escape(short(&here.id).as_bytes()),
        escape(step.code.as_bytes())
    )
}

fn request_words(requests: &[v1::JoinRequested]) -> String {
    if requests.is_empty() {
        return "No device asks to join".to_owned();
    }
    let mut rows = vec![["DEVICE", "NAME", "DIGITS"].map(str::to_owned).to_vec()];
    for request in requests {
        let device = request.device.clone().unwrap_or_default();
        let cells = [short(&device.id), &device.name, &request.code];
        rows.push(cells.map(|cell| escape(cell.as_bytes())).to_vec());
    }
    format!(
        "{}\nIf the device shows the same digits, let it in: syncctl approve DEVICE DIGITS",
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample_lan_device;

    #[test]
    fn a_name_on_the_local_network_is_told_from_a_ticket() {
        assert_eq!(lan_name("lan:photos"), Some("photos"));
        assert_eq!(lan_name("LAN: my group "), Some("my group"));
        assert_eq!(lan_name("lan:"), Some(""));
        for ticket in ["p2ps1abc", "lan", "", "län:x"] {
            assert_eq!(lan_name(ticket), None, "{ticket}");
        }
    }

    #[test]
    fn the_digits_come_with_what_is_to_be_typed() {
        let step = v1::JoinCode {
            asked: Some(sample_lan_device()),
            device: Some(v1::Device {
                id: "0d0d0d0d0d0d".into(),
                name: "ben".into(),
                ..Default::default()
            }),
            code: "012345".into(),
        };
        assert_eq!(
            code_words(&step),
            "\
Asking anna\\x1b (0b0b0b0b) for the group photos.
On that device type: syncctl approve 0d0d0d0d 012345
Waiting; to give up: Ctrl-C"
        );
    }

    #[test]
    fn who_is_there_is_listed_with_the_next_step() {
        assert_eq!(
            lan_words(&[sample_lan_device()]),
            "\
DEVICE    NAME      GROUP     GROUP NAME
0b0b0b0b  anna\\x1b  07070707  photos

Ask one to let this device in: syncctl join lan:NAME"
        );
        assert!(lan_words(&[]).contains("syncctl invite create"));
    }

    #[test]
    fn who_asks_is_listed_with_the_next_step() {
        let request = v1::JoinRequested {
            device: sample_lan_device().device,
            code: "012345".into(),
        };
        let text = request_words(&[request]);
        assert!(text.contains("0b0b0b0b  anna\\x1b  012345"), "{text}");
        assert!(text.contains("syncctl approve DEVICE DIGITS"), "{text}");
    }
}
